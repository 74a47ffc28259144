"""Slim files: the same answers to the last bit, by both kinds of kernels, in fewer bytes."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit.litert import model as files
from compresskit.litert.runtime import Session, encode, outputs
from compresskit.litert.slim import _SharingBuilder, slim
from compresskit.zoo import model_names

RECIPES = {
    "float": ck.Recipe(),
    "int8": ck.Recipe(ck.Quantize()),
    "8 bits, float activations": ck.Recipe(ck.Quantize(weights=8, activations=32)),
    "float16": ck.Recipe(ck.Quantize(weights=16, activations=32)),
    "uint8 in and out": ck.Recipe(ck.Quantize(io="uint8")),
}


def same(first: bytes, second: bytes, images) -> bool:
    return np.array_equal(outputs(first, images), outputs(second, images))


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize("kind", RECIPES)
def test_every_shipped_model_answers_as_before(digits, name, kind):
    file = ck.compress(ck.load_model(name), RECIPES[kind], digits.train).tflite
    slimmed = slim(file)
    assert len(slimmed) < len(file)
    assert same(file, slimmed, digits.test.images[:64])


def test_reference_kernels_agree_too(digits):
    file = ck.compress(ck.load_model("small_student"), ck.Recipe(ck.Quantize()), digits.train).tflite
    images = digits.test.images[:32]
    assert np.array_equal(outputs(file, images, reference=True), outputs(slim(file), images, reference=True))


def test_most_of_what_is_not_weights_goes(digits):
    file = ck.compress(ck.load_model("small_student"), ck.Recipe(ck.Quantize()), digits.train)
    weights = sum(layer.bytes for layer in file.layers)
    assert len(slim(file.tflite)) - weights < 0.6 * (file.size - weights)


def test_weights_and_scales_are_the_same_in_the_same_order(digits):
    file = ck.compress(ck.load_model("small_student"), ck.Recipe(ck.Quantize()), digits.train).tflite
    before, after = files.read(file), files.read(slim(file))
    assert len(before.subgraphs[0].tensors) == len(after.subgraphs[0].tensors)
    for old, new in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        assert not new.name
        assert (old.type, files.shape(old)) == (new.type, files.shape(new))
        if old.quantization is not None and old.quantization.scale is not None:
            assert np.array_equal(old.quantization.scale, new.quantization.scale)
            assert np.array_equal(old.quantization.zeroPoint, new.quantization.zeroPoint)
        if before.buffers[old.buffer].data is not None:
            assert np.array_equal(before.buffers[old.buffer].data, after.buffers[new.buffer].data)


def test_slimming_twice_changes_nothing(digits):
    once = slim(ck.load_model("digit_reader").tflite)
    assert slim(once) == once


def test_buffers_stored_behind_the_flatbuffer_come_inside():
    source = ck.load_model("lenet_300_100").tflite
    model = files.read(source)
    behind = b""
    base = len(source) + (-len(source)) % 16
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 100_000:
            data = np.asarray(buffer.data).tobytes()
            buffer.offset, buffer.size, buffer.data = base + len(behind), len(data), None
            behind += data
    flat = files.write(model)
    outside = flat + bytes(base - len(flat)) + behind
    assert slim(outside) == slim(source)


def test_a_batch_of_any_size_still_runs(digits):
    session = Session(slim(ck.load_model("digit_reader").tflite), 7)
    assert session.batch == 7
    assert session(encode(digits.test.images[:7], session.inputs[0]))[0].shape == (7, 10)


def test_vectors_of_other_types_are_not_shared_though_their_bytes_are_equal():
    """Their lengths are counted in numbers, not in bytes."""
    builder = _SharingBuilder(64)
    one, other, again = (builder.CreateNumpyVector(np.zeros(*of)) for of in ((2, "<f4"), (1, "<i8"), (2, "<f4")))
    assert one == again != other


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="TFL3"):
        slim(b"no model at all")
