"""Working memory computed from a file, against LiteRT's own arena: where it puts the results, address by address."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from float_networks import FloatNetwork, random_network

import compresskit as ck
from compresskit.litert import model as files
from compresskit.litert.arena import peak_activations
from compresskit.litert.inspect import ends_in_softmax


def arena_of_litert(tflite: bytes) -> int:
    """Bytes between the first and the last byte of the results, as LiteRT's memory planner placed them.

    The reference kernels want no scratch space of their own.
    """
    interpreter = Interpreter(model_content=tflite, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    model = files.read(tflite)
    ends = []
    for detail in interpreter.get_tensor_details():
        if detail["index"] < len(model.subgraphs[0].tensors) and not files.is_constant(model, detail["index"]):
            view = interpreter.tensor(detail["index"])()
            start = view.__array_interface__["data"][0]
            ends.append((start, start + view.nbytes))
    return max(end for _, end in ends) - min(start for start, _ in ends)


@pytest.mark.parametrize("seed", range(12))
def test_litert_needs_what_is_computed_and_a_little_more(seed):
    tflite = random_network(seed)
    peak, taken = peak_activations(tflite), arena_of_litert(tflite)
    least = 2 / 3 * peak.bytes if peak.kind in ("ADD", "MUL") else peak.bytes  # LiteRT adds in place
    assert least <= taken <= 1.35 * peak.bytes


def test_both_ends_of_a_shortcut_are_alive_until_they_meet():
    net = FloatNetwork((8, 8, 4), 0)
    first = net.conv(net.input, 4)
    second = net.conv(first, 4)
    third = net.conv(second, 4)
    plain = peak_activations(net.tflite(third))
    assert plain.bytes == 2 * 8 * 8 * 4 * 4 and plain.operator == 0 and plain.kind == "CONV_2D"
    met = peak_activations(net.tflite(net.add(third, first)))
    assert met.bytes == 3 * 8 * 8 * 4 * 4 and met.operator == 2


def test_integers_need_a_quarter_and_unpacked_weights_are_counted():
    model, digits = ck.load_model("small_student"), np.zeros((4, 28, 28), np.uint8)
    calibration = ck.data.Split(digits, np.zeros(4, np.uint8), "train")
    whole = peak_activations(model.tflite)
    small = peak_activations(ck.compress(model, ck.Recipe(ck.Quantize()), calibration).tflite)
    assert small.bytes * 4 == whole.bytes
    half = ck.compress(model, ck.Recipe(ck.Quantize(16, 32)))
    weights = sum(layer.parameters for layer in half.layers)
    assert whole.bytes + 3.5 * weights <= peak_activations(half.tflite).bytes <= whole.bytes + 4 * weights


def test_a_softmax_at_the_end_is_seen_through_a_change_of_form():
    net = FloatNetwork((6, 6, 1), 0)
    logits = net.dense(net.flatten(net.input), 5, activation="none")
    assert not ends_in_softmax(net.tflite(logits))
    assert ends_in_softmax(net.tflite(net.flatten(net.unary("SOFTMAX", logits))))
