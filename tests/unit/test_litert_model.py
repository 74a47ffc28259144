"""Reading and writing `.tflite` files: plain flatbuffers that compute the same, numbers decoded as others do."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import quantizer, recipe
from hypothesis import given
from hypothesis import strategies as st

import compresskit as ck
from compresskit.data import Digits
from compresskit.litert import model as files
from compresskit.litert.inspect import layers, sites
from compresskit.litert.runtime import Session, outputs


@pytest.fixture(scope="module")
def reader() -> ck.Checkpoint:
    return ck.load_model("digit_reader")


def sizes_behind_the_flatbuffer(tflite: bytes) -> list[int]:
    packed = schema.Model.GetRootAs(tflite, 0)
    return [packed.Buffers(index).Size() for index in range(packed.BuffersLength()) if packed.Buffers(index).Size()]


def test_buffers_stored_outside_come_inside_and_compute_the_same(reader: ck.Checkpoint, digits: Digits) -> None:
    theirs = bytes(quantizer.Quantizer(reader.tflite, recipe.dynamic_wi8_afp32()).quantize().quantized_model)
    assert sizes_behind_the_flatbuffer(theirs), "ai-edge-quantizer no longer stores buffers outside; drop the detour"
    ours = files.write(files.read(theirs))
    assert not sizes_behind_the_flatbuffer(ours)
    images = np.asarray(digits.test.images[:50])
    np.testing.assert_array_equal(outputs(ours, images), outputs(theirs, images))


def test_writing_what_was_read_is_stable(reader: ck.Checkpoint) -> None:
    once = files.write(files.read(reader.tflite))
    assert files.write(files.read(once)) == once


def test_a_twin_is_edited_without_a_trace_in_the_original(reader: ck.Checkpoint) -> None:
    model = files.read(reader.tflite)
    index = sites(model)[1].weights
    new = np.random.default_rng(0).normal(size=files.shape(model.subgraphs[0].tensors[index])).astype(np.float32)
    twin = files.twin(model)
    files.replace_buffers(twin, {index: new})
    twin.subgraphs[0].operators[0].inputs = []
    twin.subgraphs[0].tensors[0].name = b"another"
    assert files.write(model) == files.write(files.read(reader.tflite))
    np.testing.assert_array_equal(files.dequantized(twin, twin.subgraphs[0].tensors[index]), new)
    edited = files.twin(model)
    files.replace_buffers(edited, {index: new})
    assert files.write(edited) == files.replace_constants(files.write(model), {index: new})
    with pytest.raises(ValueError, match="bytes but 4 were given"):
        files.replace_buffers(edited, {index: np.zeros(1, np.float32)})


def test_inner_tensors_become_outputs_and_hold_what_litert_keeps_in_them(reader: ck.Checkpoint, digits: Digits) -> None:
    graph = files.read(reader.tflite).subgraphs[0]
    wanted = [int(op.outputs[0]) for op in reversed(graph.operators)]
    image = np.asarray(digits.test.images[:1], np.float32)[..., None] / np.float32(255)
    reference = OpResolverType.BUILTIN_REF
    kept = Interpreter(
        model_content=reader.tflite, experimental_op_resolver_type=reference, experimental_preserve_all_tensors=True
    )
    kept.allocate_tensors()
    kept.set_tensor(kept.get_input_details()[0]["index"], image)
    kept.invoke()
    for padding in range(4):  # wherever the file ends
        shown = files.expose(reader.tflite + bytes(padding), wanted)
        assert files.read(shown).subgraphs[0].outputs.tolist() == wanted
        assert not files.read(shown).signatureDefs
        for index, found in zip(wanted, Session(shown, reference=True)(image), strict=True):
            np.testing.assert_array_equal(found, kept.get_tensor(index))
    assert len(files.read(reader.tflite).signatureDefs) == 1, "nothing was there to be emptied"


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=33))
def test_int4_unpacks_low_bits_first(values: list[int]) -> None:
    padded = np.array(values + [0] * (len(values) % 2), np.int8)
    packed = (padded[0::2] & 15).astype(np.uint8) | ((padded[1::2] & 15).astype(np.uint8) << 4)
    assert files.unpack_bits(packed, 4, len(values)).tolist() == values


@given(st.lists(st.integers(-2, 1), min_size=1, max_size=33))
def test_int2_unpacks_low_bits_first(values: list[int]) -> None:
    padded = np.array(values + [0] * (-len(values) % 4), np.int8).reshape(-1, 4)
    packed = sum(((padded[:, k] & 3).astype(np.uint8) << (2 * k) for k in range(4)), np.zeros(len(padded), np.uint8))
    assert files.unpack_bits(packed.astype(np.uint8), 2, len(values)).tolist() == values


@pytest.mark.parametrize("bits", [8, 4])
def test_dequantized_weights_are_those_that_litert_dequantizes(reader: ck.Checkpoint, bits: int) -> None:
    """A weight-only file carries DEQUANTIZE operators: LiteRT itself says what its weights mean."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    make = recipe.weight_only_wi8_afp32 if bits == 8 else recipe.weight_only_wi4_afp32
    tflite = bytes(quantizer.Quantizer(reader.tflite, make()).quantize().quantized_model)
    # The reference kernels: XNNPACK folds the DEQUANTIZE away, and leaves its output unset.
    interpreter = Interpreter(
        model_content=tflite,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    model = files.read(tflite)
    graph = model.subgraphs[0]
    found = 0
    for op in graph.operators:
        if files.operator_name(model, op) == "DEQUANTIZE":
            ours = files.dequantized(model, graph.tensors[op.inputs[0]])
            np.testing.assert_allclose(ours, interpreter.get_tensor(int(op.outputs[0])), rtol=1e-6)
            found += 1
    assert found == len(layers(tflite)) == 4


def test_replacing_constants_changes_these_and_nothing_else(reader: ck.Checkpoint) -> None:
    site = sites(files.read(reader.tflite))[2]
    new = np.full(layers(reader.tflite)[2].shape, 0.25, np.float32)
    edited = files.replace_constants(reader.tflite, {site.weights: new})
    before, after = files.read(reader.tflite), files.read(edited)
    assert len(edited) == len(reader.tflite)
    for index, tensor in enumerate(before.subgraphs[0].tensors):
        if not files.is_constant(before, index):
            continue
        kept = files.stored(after, after.subgraphs[0].tensors[index])
        expected = new if index == site.weights else files.stored(before, tensor)
        np.testing.assert_array_equal(kept, expected)


def test_replacing_by_another_size_is_refused_and_changes_nothing(reader: ck.Checkpoint) -> None:
    site = sites(files.read(reader.tflite))[0]
    with pytest.raises(ValueError, match="holds 1152 bytes but 4 were given"):
        files.replace_constants(reader.tflite, {site.weights: np.zeros(1, np.float32)})


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00" * 100, b"PK\x03\x04" + b"\x00" * 60])
def test_what_is_no_flatbuffer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="TFL3"):
        files.read(data)


def test_layers_are_described_with_their_names_sizes_and_work(reader: ck.Checkpoint) -> None:
    rows = {row.name: row for row in layers(reader.tflite)}
    assert list(rows) == ["conv1", "conv2", "dense", "head"]
    assert rows["conv1"].macs == 28 * 28 * 32 * 9
    assert rows["conv2"].macs == 14 * 14 * 64 * 9 * 32
    assert rows["dense"].macs == 3136 * 128
    assert sum(row.parameters for row in rows.values()) == 421_642
    assert sum(row.bytes for row in rows.values()) == 4 * 421_642
    assert {row.dtype for row in rows.values()} == {"float32"}
