"""Working memory computed from a file, against LiteRT's own arena: where it puts the results, address by address."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from float_networks import FloatNetwork, random_network

import compresskit as ck
from compresskit.data import Split
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
    model = files.read(net.tflite(third))
    model.subgraphs[0].outputs = np.array([first, third], np.int32)
    assert peak_activations(files.write(model)) == replace(met, kind="CONV_2D"), "an output is kept to the end"


def test_an_unknown_dimension_counts_as_one_and_no_operators_are_refused():
    net = FloatNetwork((8, 8, 4), 0)
    model = files.read(net.tflite(net.conv(net.input, 4)))
    expected = peak_activations(files.write(model))
    for tensor in (model.subgraphs[0].tensors[0], model.subgraphs[0].tensors[-1]):
        tensor.shape = np.array([-1, *tensor.shape[1:]], np.int32)
    assert peak_activations(files.write(model)) == expected
    model.subgraphs[0].operators = []
    with pytest.raises(ValueError, match="give a model that computes something"):
        peak_activations(files.write(model))


def test_integers_need_a_quarter_and_unpacked_weights_are_counted():
    model, digits = ck.load_model("small_student"), np.zeros((4, 28, 28), np.uint8)
    calibration = Split(digits, np.zeros(4, np.uint8), "train")
    whole = peak_activations(model.tflite)
    small = peak_activations(ck.compress(model, ck.Recipe(ck.Quantize()), calibration).tflite)
    assert small.bytes * 4 == whole.bytes
    outside = ck.compress(model, ck.Recipe(ck.Quantize(io="float32")), calibration)
    assert peak_activations(outside.tflite).bytes == small.bytes, "a DEQUANTIZE of what flows unpacks no weights"
    net = FloatNetwork((2, 2, 1), 0)
    late = net.dense(net.dense(net.flatten(net.input), 64), 1024)  # most is alive when the first weights are read
    for each in (model, ck.Checkpoint("late", net.tflite(late))):
        half = ck.compress(each, ck.Recipe(ck.Quantize(16, 32)))
        weights = sum(int(np.prod(layer.shape)) for layer in half.layers)
        assert peak_activations(half.tflite).bytes == peak_activations(each.tflite).bytes + 4 * weights


def test_a_softmax_at_the_end_is_seen_through_a_change_of_form():
    net = FloatNetwork((6, 6, 1), 0)
    logits = net.dense(net.flatten(net.input), 5, activation="none")
    assert not ends_in_softmax(net.tflite(logits))
    sure = net.unary("SOFTMAX", logits)
    whole = ck.Checkpoint("sure", net.tflite(sure))
    data = Split(np.random.default_rng(0).random((8, 6, 6, 1), np.float32), np.zeros(8, np.uint8))
    for io in ("float32", "uint8"):
        assert ends_in_softmax(ck.compress(whole, ck.Recipe(ck.Quantize(io=io)), data).tflite)
    assert ends_in_softmax(net.tflite(net.flatten(sure)))
    assert not ends_in_softmax(net.tflite(net.dense(sure, 3, activation="none"))), "it is in the middle"
