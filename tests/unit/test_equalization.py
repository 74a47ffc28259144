"""Equalization and bias correction: the formulas, and the same on real files with LiteRT as the judge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compresskit as ck
from compresskit.litert import model as files
from compresskit.litert.equalize import bias_corrected, equalized, pairs, rescaled
from compresskit.litert.inspect import sites
from compresskit.litert.runtime import outputs
from compresskit.quantization.equalization import (
    channel_reach,
    corrected_bias,
    equalize,
    equalizing_scales,
    scale_channels,
)

REACHES = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=1, max_size=20)


@given(REACHES)
def test_both_sides_reach_equally_far_afterwards(reaches):
    first, second = np.array(reaches).T
    s = equalizing_scales(first, second)
    assert np.allclose(first / s, second * s) and np.allclose(first / s, np.sqrt(first * second))


def test_dead_channels_are_left_alone():
    assert equalizing_scales([0.0, 2.0, 0.0], [1.0, 0.0, 0.0]).tolist() == [1.0, 1.0, 1.0]


@given(st.integers(0, 1000))
def test_an_equalized_network_computes_the_same_through_relu(seed):
    rng = np.random.default_rng(seed)
    w1, b1 = rng.normal(size=(6, 4)) * 10.0 ** rng.uniform(-2, 2, (6, 1)), rng.normal(size=6)
    w2, x = rng.normal(size=(3, 6)), rng.normal(size=(50, 4))
    v1, c1, v2 = equalize(w1, b1, w2)
    assert np.allclose(np.maximum(x @ v1.T + c1, 0) @ v2.T, np.maximum(x @ w1.T + b1, 0) @ w2.T)
    assert np.allclose(np.abs(v1).max(axis=1), np.abs(v2).max(axis=0))


def test_behind_a_flattening_a_channel_is_read_at_every_place():
    read = np.array([[1.0, 2.0, -5.0, 0.5]])  # two channels at two places
    assert channel_reach(read, 1, 2).tolist() == [5.0, 2.0]
    assert scale_channels(read, 1, [10.0, 1.0]).tolist() == [[10.0, 2.0, -50.0, 0.5]]


def test_a_corrected_bias_takes_the_mean_error_off():
    rng = np.random.default_rng(0)
    w, b, x = rng.normal(size=(5, 8)), rng.normal(size=5), rng.uniform(0, 2, (1000, 8))
    q = np.round(w)
    shifted = (x @ q.T + corrected_bias(b, w, q, x.mean(axis=0))).mean(axis=0)
    assert np.allclose(shifted, (x @ w.T + b).mean(axis=0))
    assert np.abs((x @ q.T + b).mean(axis=0) - shifted).max() > 0.1, "without it they differ"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: channel_reach([[1.0, 2.0, 3.0]], 1, 2), "choose a divisor"),
        (lambda: channel_reach([[np.nan]], 0), "finite numbers"),
        (lambda: equalizing_scales([1.0], [1.0, 2.0]), "one number for each channel"),
        (lambda: equalizing_scales([-1.0], [1.0]), "largest absolute values"),
        (lambda: scale_channels([1.0, 2.0, 3.0], 0, [1.0, 2.0]), "must fit"),
        (lambda: corrected_bias([1.0], [[1.0, 2.0]], [[1.0, 2.0]], [1.0]), "mean_input"),
    ],
)
def test_what_does_not_fit_is_a_sentence(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# -- on real files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return np.random.default_rng(3).random((40, 28, 28, 1), np.float32)


@pytest.mark.parametrize("name", ["digit_reader", "small_student", "lenet5"])
def test_powers_of_two_change_no_bit_of_any_output(name, digits):
    model, rng = ck.load_model(name), np.random.default_rng(1)
    factors = {pair.first: 2.0 ** rng.integers(-5, 6, pair.channels) for pair in pairs(model.tflite)}
    wild = rescaled(model.tflite, factors)
    assert factors and wild != model.tflite
    assert np.array_equal(outputs(wild, digits), outputs(model.tflite, digits))
    again = rescaled(wild, {layer: 1 / values for layer, values in factors.items()})
    assert again == model.tflite


def reach_ratio(tflite: bytes, layer: str, axis: int) -> float:
    graph = files.read(tflite)
    site = next(site for site in sites(graph) if site.name == layer)
    reach = channel_reach(files.stored(graph, graph.subgraphs[0].tensors[site.weights]), axis)
    return float(reach.max() / reach[reach > 0].min())


def test_equalization_undoes_a_thousandfold_spread(digits):
    model = ck.load_model("digit_reader")
    spread = 2.0 ** np.linspace(-5, 5, 32).round()
    wild = rescaled(model.tflite, {"conv1": spread})
    assert reach_ratio(wild, "conv1", 0) > 500
    from_wild, from_plain = equalized(wild), equalized(model.tflite)
    assert np.allclose(outputs(from_wild, digits), outputs(model.tflite, digits), atol=1e-3)
    for layer, axis in (("conv1", 0), ("dense", 0)):
        assert reach_ratio(from_wild, layer, axis) == pytest.approx(reach_ratio(from_plain, layer, axis), rel=1e-3)
    assert reach_ratio(from_wild, "conv1", 0) < 20


def test_the_way_through_a_depthwise_network_is_found():
    assert [(pair.first, pair.second) for pair in pairs(ck.load_model("small_student").tflite)][:2] == [
        ("conv", "block1_depthwise"),
        ("block1_depthwise", "block1_pointwise"),
    ]
    assert pairs(ck.load_model("small_student").tflite)[-1].second == "head", "through the mean"


def test_a_bias_corrected_layer_is_right_on_average(digits):
    model = ck.load_model("digit_reader")
    recipe = ck.Recipe(ck.Quantize(weights=3, activations=32, compute="float", granularity="tensor"))
    small = ck.compress(model, recipe).tflite
    corrected = bias_corrected(model.tflite, small, digits)
    graph = files.read(corrected)
    changed = ck.Checkpoint("corrected", corrected)
    after = ck.compress(changed, recipe).tflite
    truth, before, mended = (outputs(each, digits).mean(axis=0) for each in (model.tflite, small, after))
    assert np.abs(mended - truth).max() < 0.5 * np.abs(before - truth).max()
    assert [site.bias is not None for site in sites(graph)] == [True] * 4


def test_a_head_is_not_rescaled_and_factors_are_positive():
    tflite = ck.load_model("digit_reader").tflite
    with pytest.raises(ValueError, match="'head' cannot be rescaled; those that can are conv1, conv2, dense"):
        rescaled(tflite, {"head": np.ones(10)})
    with pytest.raises(ValueError, match="32 positive factors"):
        rescaled(tflite, {"conv1": np.zeros(32)})
    with pytest.raises(ValueError, match="no layer 'conv1'"):
        bias_corrected(tflite, ck.load_model("small_student").tflite, np.zeros((1, 28, 28), np.uint8))


def test_relu6_and_branches_stop_the_way():
    tflite = ck.load_model("digit_reader").tflite
    model = files.read(tflite)
    convolution = model.subgraphs[0].operators[0]
    assert files.operator_name(model, convolution) == "CONV_2D"
    convolution.builtinOptions.fusedActivationFunction = 3  # RELU6
    assert [pair.first for pair in pairs(files.write(model))] == ["conv2", "dense"]
    model = files.read(tflite)
    model.subgraphs[0].outputs = np.append(model.subgraphs[0].outputs, model.subgraphs[0].operators[2].outputs)
    assert [pair.first for pair in pairs(files.write(model))] == ["conv1", "dense"], "an output is seen from outside"
