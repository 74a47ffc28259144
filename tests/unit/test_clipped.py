"""Int8 files on ranges that somebody chose: the range asked for is the range in the file."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit.litert import model as files
from compresskit.litert.calibration import activation_ranges
from compresskit.litert.clipped import int8_file, layer_outputs, with_range


@pytest.fixture(scope="module")
def measured():
    images = ck.load_mnist().train.take(50).images
    tflite = ck.load_model("digit_reader").tflite
    return tflite, images, activation_ranges(tflite, images)


def scale_in(tflite: bytes, name: str) -> tuple[float, int]:
    graph = files.read(tflite).subgraphs[0]
    tensor = next(tensor for tensor in graph.tensors if files.tensor_name(tensor) == name)
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])


def test_a_layer_is_followed_through_pooling_and_flattening():
    outputs = layer_outputs(ck.load_model("digit_reader").tflite)
    assert [len(outputs[name]) for name in ("conv1", "conv2", "dense", "head")] == [2, 3, 1, 1]


def test_measured_ranges_give_the_file_of_the_recipe(measured):
    tflite, images, ranges = measured
    recipe = ck.Recipe(ck.Quantize(calibration_digits=50))
    split = ck.load_mnist().train.take(50)
    assert int8_file(tflite, ranges, images[:8]) == ck.compress(ck.load_model("digit_reader"), recipe, split).tflite


def test_the_range_asked_for_is_in_the_file(measured):
    tflite, images, ranges = measured
    small = int8_file(tflite, with_range(ranges, tflite, "conv2", 0.0, 2.55), images[:8])
    for name in layer_outputs(tflite)["conv2"]:
        assert scale_in(small, name) == (pytest.approx(0.01, rel=1e-6), -128)
    untouched = layer_outputs(tflite)["dense"][0]
    assert scale_in(small, untouched)[0] == pytest.approx(ranges[untouched][1] / 255, rel=1e-6)


def test_ranges_that_are_none_are_refused(measured):
    tflite, images, ranges = measured
    with pytest.raises(ValueError, match="'conv9' is not in this model"):
        with_range(ranges, tflite, "conv9", 0, 1)
    with pytest.raises(ValueError, match="give low below high"):
        with_range(ranges, tflite, "conv1", 1, 1)
    with pytest.raises(ValueError, match="give finite numbers"):
        int8_file(tflite, with_range(ranges, tflite, "conv1", 0, np.inf), images[:8])
