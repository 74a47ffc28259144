"""TFLiteConverter's files against ai-edge-quantizer's, and bad digits refused before the converter sees them."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit.data import Split
from compresskit.litert import model as files
from compresskit.litert.inspect import sites

tf = pytest.importorskip("tensorflow")

from compresskit.training import ptq  # noqa: E402

OURS = {
    "float16": ck.Quantize(weights=16, activations=32),
    "dynamic": ck.Quantize(activations=32),
    "int8": ck.Quantize(),
    "uint8": ck.Quantize(io="uint8"),
    "16x8": ck.Quantize(activations=16),
}


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


def stored_weights(tflite):
    graph = files.read(tflite)
    tensors = graph.subgraphs[0].tensors
    return {site.name: files.stored(graph, tensors[site.weights]) for site in sites(graph)}


@pytest.mark.parametrize("scheme", ptq.SCHEMES)
def test_both_ways_store_the_same_numbers(model, digits, scheme):
    theirs = ptq.convert(model, scheme, digits.train)
    ours = ck.compress(model, ck.Recipe(OURS[scheme]), digits.train)
    one, other = stored_weights(theirs), stored_weights(ours.tflite)
    assert list(one) == list(other) == ["conv1", "conv2", "dense", "head"]
    for name in one:
        if scheme == "dynamic" and one[name].size < 1024:
            assert one[name].dtype == np.float32 and name == "conv1", "the converter leaves small layers float"
            continue
        assert one[name].dtype == other[name].dtype, name
        difference = np.abs(one[name].astype(float) - other[name].astype(float))
        # Halves and the last bit of a scale: a unit at most, and rarely.
        assert difference.max() <= 1 and (difference > 0).mean() < 0.001, name
    some = digits.test.take(300)
    found = [ck.evaluate(each, some).predictions for each in (ck.Checkpoint("theirs", theirs), ours)]
    assert (found[0] == found[1]).mean() > 0.99


def test_one_scale_a_layer(model, digits):
    graph = files.read(ptq.convert(model, "int8", digits.train, per_channel=False))
    scales = [len(graph.subgraphs[0].tensors[site.weights].quantization.scale) for site in sites(graph)]
    assert scales[:2] == [1, 1]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (None, "give digits.train"),
        (np.zeros((0, 28, 28), np.uint8), "give digits.train"),
        (np.zeros((5, 14, 14), np.uint8), r"has the shape \(14, 14\)"),
        (np.full((5, 28, 28), -np.inf, np.float32), "5 of 5 digits hold infinite"),
        (np.where(np.eye(28), np.nan, 0)[None].astype(np.float32), "1 of 1 digits hold infinite"),
    ],
)
def test_digits_that_cannot_be_calibrated_on_are_refused(model, images, said):
    with pytest.raises(ValueError, match=said):
        ptq.convert(model, "int8", images)


def test_what_does_not_exist_is_refused(model, digits):
    with pytest.raises(ValueError, match="scheme is 'int3'; choose one of float16, dynamic"):
        ptq.convert(model, "int3", digits.train)
    with pytest.raises(ValueError, match="cannot be trained"):
        ptq.convert(ck.Checkpoint("file", model.tflite), "float16")


def test_pixels_and_fractions_mean_the_same(digits):
    whole = ptq.calibration_images(digits.train, (28, 28, 1), 7)
    part = np.asarray(digits.train.images[:7], np.float32) / 255
    assert whole.shape == (7, 28, 28, 1) and whole.max() <= 1
    assert np.array_equal(whole, ptq.calibration_images(Split(part, digits.train.labels[:7]), (28, 28, 1), 100))
