"""Backpropagation through a float file: against slopes measured with LiteRT itself, on networks made by chance."""

from __future__ import annotations

import numpy as np
import pytest
from float_networks import FloatNetwork, random_network

import compresskit as ck
from compresskit.data import Split
from compresskit.litert import gradients as room
from compresskit.litert import model as files
from compresskit.litert.gradients import weight_gradients
from compresskit.litert.inspect import sites
from compresskit.litert.runtime import outputs
from compresskit.pruned import GRADIENT_DIGITS, float_weights


def examples(tflite, count=24):
    graph = files.read(tflite).subgraphs[0]
    shape = files.shape(graph.tensors[graph.inputs[0]])[1:]
    generator = np.random.default_rng(0)
    return Split(generator.random((count, *shape), np.float32), generator.integers(0, 10, count))


def loss(tflite, digits, edits):
    """Mean cross-entropy of a file with some weights replaced, in float64 behind LiteRT's logits."""
    logits = outputs(files.replace_constants(tflite, edits) if edits else tflite, digits.images).astype(np.float64)
    logits = logits.reshape(len(digits), -1)
    logits -= logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(digits)), digits.labels]))


def measured_slope(tflite, digits, site, weights, direction):
    """Slope of the loss along a direction in a layer's weights, by a difference on both sides."""
    step = 2e-3 * float(np.linalg.norm(weights))
    ends = [
        loss(tflite, digits, {site.weights: (weights + sign * step * direction).astype(np.float32)}) for sign in (1, -1)
    ]
    return (ends[0] - ends[1]) / (2 * step)


ALIVE = [seed for seed in range(13) if seed != 2]  # nothing flows into the head of number 2: all its slopes are 0


@pytest.mark.parametrize("seed", ALIVE)
def test_the_slope_along_the_gradient_is_its_length(seed):
    """Convolutions, depthwise ones, residual additions, norms, pools, means: whatever chance has put together."""
    tflite = random_network(seed)
    digits = examples(tflite)
    found, weights = weight_gradients(tflite, digits), float_weights(tflite)
    compared = 0
    for site in sites(files.read(tflite)):
        gradient = found[site.name].astype(np.float64)
        length = float(np.linalg.norm(gradient))
        if length * float(np.linalg.norm(weights[site.name])) < 1e-3:
            continue  # a difference of losses in float32 would be noise
        slope = measured_slope(tflite, digits, site, weights[site.name], gradient / length)
        assert slope == pytest.approx(length, rel=0.06), site.name
        compared += 1
    assert compared, "at least the head has a slope"


def test_batches_add_up_to_the_mean(monkeypatch):
    tflite = ck.load_model("small_student").tflite
    digits = examples(tflite, 10)
    whole = {name: array.copy() for name, array in weight_gradients(tflite, digits).items()}
    monkeypatch.setattr(room, "BATCH", 4)
    weight_gradients.cache_clear()
    for name, array in weight_gradients(tflite, digits).items():
        assert np.allclose(array, whole[name], rtol=1e-3, atol=1e-6 * np.abs(whole[name]).max())
    assert weight_gradients(tflite, digits) is weight_gradients(tflite, digits), "computed once"


def test_an_operator_without_a_derivative_is_named_before_anything_is_computed():
    net = FloatNetwork((6, 6, 1), 0)
    x = net.unary("ABS", net.conv(net.input, 4))
    tflite = net.tflite(net.dense(net.flatten(x), 10, activation="none"))
    with pytest.raises(ValueError, match=r"ABS has no derivative here.*choose importance='magnitude' or 'activation'"):
        weight_gradients(tflite, examples(tflite))


def test_what_lies_before_every_layer_may_be_anything():
    net = FloatNetwork((6, 6, 1), 0)
    tflite = net.tflite(net.dense(net.flatten(net.conv(net.unary("ABS", net.input), 4)), 10, activation="none"))
    assert set(weight_gradients(tflite, examples(tflite))) == {site.name for site in sites(files.read(tflite))}


@pytest.mark.parametrize("pattern", ["unstructured", "channel"])
def test_importance_by_gradient_needs_digits_and_says_so(pattern):
    with pytest.raises(ValueError, match="importance='gradient' needs digits"):
        ck.compress(ck.load_model("small_student"), ck.Recipe(ck.Prune(0.3, pattern=pattern, importance="gradient")))


def test_the_weights_that_the_loss_needs_least_go(digits):
    model, sample = ck.load_model("lenet_300_100"), digits.train
    small = ck.compress(model, ck.Recipe(ck.Prune(0.4, importance="gradient")), sample)
    slopes = weight_gradients(model.tflite, sample.take(GRADIENT_DIGITS))
    for layer in model.layers:
        before, after = float_weights(model.tflite)[layer.name], small.weights(layer.name)
        score = np.abs(before * slopes[layer.name])
        assert score[after == 0].max() <= score[after != 0].min()
        assert np.mean(after == 0) == pytest.approx(0.4, abs=0.001)
