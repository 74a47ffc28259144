"""Ranges: ai-edge-quantizer's for weights, the best there is for a search, and laws that each calibrator keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_quantizer import qtyping
from ai_edge_quantizer.algorithms.uniform_quantize import mse, naive_min_max_quantize, octav
from ai_edge_quantizer.utils import qsv_utils
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compresskit.quantization.affine import affine_grid, fake_quantize, quantize
from compresskit.quantization.histogram import Histogram, gather
from compresskit.quantization.ranges import (
    MSE_STEP,
    choose_range,
    entropy_bins,
    octav_bound,
    quantile,
    range_error,
    weight_grid,
    weight_scale,
)

THEIRS = {"minmax": naive_min_max_quantize, "mse": mse, "octav": octav}
OPERATORS = {
    "dense": (qtyping.TFLOperationName.FULLY_CONNECTED, 0, (12, 90)),
    "conv": (qtyping.TFLOperationName.CONV_2D, 0, (10, 3, 3, 7)),
    "depthwise": (qtyping.TFLOperationName.DEPTHWISE_CONV_2D, 3, (1, 3, 3, 24)),
}
METHODS = ("minmax", "moving", "percentile", "mse", "octav", "entropy")


def from_them(weights, bits, method, granularity, operator):
    """Scales and integers of ai-edge-quantizer."""
    config = qtyping.TensorQuantizationConfig(bits, symmetric=True, granularity=granularity)
    info = qtyping.OpInfo(None, operator, 0, qtyping.OpQuantizationConfig(weight_tensor_config=config))
    parameters = THEIRS[method].get_tensor_quant_params(info, config, weights)
    return parameters.scale, parameters.quantized_data


def mean_error(x, grid):
    """Mean squared error of a grid."""
    return float(np.mean((fake_quantize(x, grid).astype(np.float64) - x) ** 2))


def weights_like(kind, shape, rng):
    """Weights as they occur, and as one hopes they never do."""
    if kind == "normal":
        return rng.normal(0, 0.05, shape).astype(np.float32)
    if kind == "heavy":
        return (0.02 * rng.standard_t(2, shape)).astype(np.float32)
    if kind == "pruned":
        return (rng.normal(0, 0.05, shape) * (rng.random(shape) < 0.2)).astype(np.float32)
    if kind == "large":
        return rng.normal(0, 1e4, shape).astype(np.float32)
    if kind == "tiny":
        return rng.normal(0, 1e-5, shape).astype(np.float32)
    if kind == "uneven":
        return (rng.normal(0, 1, shape) * np.geomspace(1e-3, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))).astype(
            np.float32
        )
    weights = rng.normal(0, 0.05, shape).astype(np.float32)
    weights.flat[3] = 40  # "outlier"
    return weights


# Weights: ai-edge-quantizer's scales


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("method", THEIRS)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("kind", ["normal", "heavy", "pruned", "large", "tiny", "uneven", "outlier"])
def test_weight_scales_and_integers_are_theirs(operator, method, granularity, kind):
    name, axis, shape = OPERATORS[operator]
    weights = weights_like(kind, shape, np.random.default_rng(len(kind) + 7 * len(operator)))
    per_channel = granularity == "channel"
    theirs = qtyping.QuantGranularity.CHANNELWISE if per_channel else qtyping.QuantGranularity.TENSORWISE
    for bits in (4, 8) if method == "mse" else (2, 4, 8):
        scale, integers = from_them(weights, bits, method, theirs, name)
        grid = weight_grid(weights, bits, axis=axis if per_channel else None, method=method)
        used = scale > 0  # for a channel of zeros, their "mse" and "octav" have the scale 0 and divide by it
        np.testing.assert_allclose(
            grid.scale[used.ravel()] if per_channel else grid.scale,
            scale[used],
            rtol=0 if method == "minmax" else 2e-6,
        )
        ours, integers = quantize(weights, grid), np.where(used, integers, 0)
        if method == "minmax":
            np.testing.assert_array_equal(ours, integers)
        else:  # the sums are added in another order: a weight half way between two integers may fall to the other side
            differ = np.abs(ours.astype(int) - integers)
            assert differ.max() <= 1 and (differ > 0).mean() < 0.002


@pytest.mark.parametrize("method", ["minmax", "octav"])
def test_block_scales_are_theirs(method):
    weights = np.random.default_rng(5).normal(0, 0.05, (6, 96)).astype(np.float32)
    operator = qtyping.TFLOperationName.FULLY_CONNECTED
    scale, integers = from_them(weights, 4, method, qtyping.QuantGranularity.BLOCKWISE_32, operator)
    grid = weight_grid(weights, 4, axis=1, block_size=32, method=method)
    np.testing.assert_array_equal(grid.scale, scale.reshape(6, 3))
    np.testing.assert_array_equal(quantize(weights, grid), integers)


@given(hnp.arrays(np.float32, (3, 40), elements=st.floats(-1e3, 1e3, width=16)), st.sampled_from([2, 4, 8]))
def test_octav_is_theirs_on_any_numbers(weights, bits):
    theirs = octav._guess_clipping_with_octav(weights, bits, (1,), 10, 3.0)
    np.testing.assert_allclose(octav_bound(np.abs(weights), bits), theirs[:, 0], rtol=1e-5, atol=1e-9)


def test_the_steps_of_mse_are_the_best_for_a_normal_law():
    """Where ai-edge-quantizer has none. Its own, for 4 and 8 bits, are wider: for 8 bits by three quarters."""
    density = np.exp(-(np.linspace(-12, 12, 240_001) ** 2) / 2)
    x = np.linspace(-12, 12, 240_001)

    def error(step, bits):
        reach = 2 ** (bits - 1)
        return float(np.sum(density * (np.clip(np.rint(x / step), -reach, reach - 1) * step - x) ** 2))

    for bits, step in MSE_STEP.items():
        least = error(step, bits)
        if bits in (4, 8):
            assert error(step / 1.1, bits) < least
        else:
            assert least < min(error(step * 1.03, bits), error(step / 1.03, bits))


# Weights: what each method promises


@pytest.mark.parametrize("kind", ["normal", "heavy", "pruned", "uneven", "outlier", "large", "tiny"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_no_method_makes_less_error_than_the_search(kind, bits):
    weights = weights_like(kind, (8, 200), np.random.default_rng(bits))
    widest = weight_grid(weights, bits)
    tried = [replace(widest, scale=widest.scale * np.float32(f)) for f in np.geomspace(1 / 64, 1, 300)]
    least = mean_error(weights, weight_grid(weights, bits, method="search"))
    assert least <= 1.04 * min(mean_error(weights, grid) for grid in tried)
    for axis in (None, 0):
        least = mean_error(weights, weight_grid(weights, bits, axis=axis, method="search"))
        for method in ("minmax", "mse", "octav", "percentile", "entropy"):
            other = mean_error(weights, weight_grid(weights, bits, axis=axis, method=method))
            assert least <= 1.03 * other, (axis, method)


def test_minmax_clips_nothing_and_percentile_clips_its_share():
    weights = weights_like("normal", (4, 5000), np.random.default_rng(0))
    reach = weight_grid(weights, 8, axis=0).high
    assert (np.abs(weights).max(axis=1) <= reach * 1.000001).all()
    reach = weight_grid(weights, 8, axis=0, method="percentile", percent=99).high
    np.testing.assert_allclose((np.abs(weights) > reach[:, None]).mean(axis=1), 0.01, atol=0.001)


@pytest.mark.parametrize("method", ["minmax", "mse", "search", "octav", "percentile", "entropy"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_channels_of_zeros_huge_and_subnormal_numbers_have_a_scale(method, bits):
    weights = np.zeros((4, 50), np.float32)
    weights[1], weights[2, 7], weights[3] = 1e30, 1e-42, np.linspace(-2, 2, 50)
    grid = weight_grid(weights, bits, axis=0, method=method)
    assert np.isfinite(grid.scale).all() and (grid.scale > 0).all()
    np.testing.assert_array_equal(fake_quantize(weights, grid)[0], 0)
    assert weight_scale(np.float32([3]), bits, method=method) > 0


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: weight_grid([], 8), "no values"),
        (lambda: weight_grid([1, np.nan], 8), "x holds NaN"),
        (lambda: weight_grid([1.0], 1), "bits must be a whole number from 2 to 16"),
        (lambda: weight_grid([1.0], 9, method="mse"), "bits is 9, but 'mse' has steps for 2 to 8"),
        (lambda: weight_grid([1.0], 8, method="best"), "method is 'best'"),
        (lambda: weight_grid([1.0], 8, method="percentile", percent=20), "percent is 20"),
        (lambda: choose_range(Histogram.of([1.0]), "best"), "method is 'best'"),
        (lambda: choose_range(Histogram.of([1.0]), "moving", momentum=1), "momentum is 1"),
        (lambda: choose_range(Histogram.of([1.0]), "mse", 17), "bits must be a whole number from 2 to 16"),
        (lambda: choose_range(Histogram.of([1.0]), "percentile", percent=101), "percent is 101"),
        (lambda: gather([]), "no batches"),
        (lambda: Histogram.of([]), "values are empty"),
        (lambda: Histogram.of([np.nan, 1]), "NaN or infinity"),
    ],
)
def test_a_sentence_for_each_bad_input(act, message):
    with pytest.raises(ValueError) as error:
        act()
    assert message in str(error.value)


# Activations


def activations(kind, rng, n=20_000):
    """Activations of one layer."""
    if kind == "relu":
        return np.maximum(rng.normal(0, 1, n), 0).astype(np.float32)
    if kind == "pixels":
        return (rng.integers(0, 256, n) * (rng.random(n) < 0.2) / 255).astype(np.float32)
    if kind == "logits":
        return rng.normal(-3, 6, n).astype(np.float32)
    if kind == "negative":
        return -rng.exponential(1, n).astype(np.float32)
    x = np.maximum(rng.normal(0, 1, n), 0).astype(np.float32)
    x[17] = 300  # "outlier"
    return x


KINDS = ("relu", "pixels", "logits", "negative", "outlier")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_ranges_stay_inside_what_came_by(kind, method, bits):
    x = activations(kind, np.random.default_rng(1))
    histogram = gather(np.array_split(x, 7))
    low, high = choose_range(histogram, method, bits)
    assert x.min() <= low <= high <= x.max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_mse_range_is_nearly_the_best_of_all(kind, bits):
    """Tried on the values themselves, both ends by themselves: 30 by 30 ranges."""
    x = activations(kind, np.random.default_rng(2), 4000)
    histogram = Histogram.of(x)
    chosen = mean_error(x, affine_grid(*choose_range(histogram, "mse", bits), bits))
    ends = [np.geomspace(1 / 64, 1, 30) * end if end else [0.0] for end in (min(x.min(), 0), max(x.max(), 0))]
    best = min(mean_error(x, affine_grid(low, high, bits)) for low in ends[0] for high in ends[1])
    assert chosen <= 1.05 * best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 4, 8, 12])
def test_the_error_read_off_a_histogram_is_that_of_the_values(kind, bits):
    x = activations(kind, np.random.default_rng(3), 200_000)
    histogram = Histogram.of(x)
    for shrink in (1, 0.7, 0.3):
        low, high = shrink * float(x.min()), shrink * float(x.max())
        rounding, clipping = range_error(histogram, low, high, bits)
        assert rounding + clipping == pytest.approx(mean_error(x, affine_grid(low, high, bits)), rel=0.03, abs=1e-8)
    assert range_error(histogram, float(x.min()), float(x.max()), bits)[1] < 1e-3 * np.var(x)


def test_quantiles_are_right_to_a_bin():
    x = activations("logits", np.random.default_rng(4))
    histogram = Histogram.of(x)
    for share in (0, 0.001, 0.25, 0.5, 0.9, 0.9999, 1):
        exact = np.quantile(x, share, method="inverted_cdf")
        assert quantile(histogram, share) == pytest.approx(exact, abs=histogram.width)


def test_octav_reaches_the_balance_it_is_made_for():
    """At the optimum, the derivative of the error that OCTAV minimizes is 0."""
    x = np.random.default_rng(6).laplace(0, 1, 200_000).astype(np.float32)
    for bits in (3, 4, 8):
        _, bound = choose_range(Histogram.of(x), "octav", bits)
        magnitude = np.abs(x)
        slope = 4.0**-bits / 3 * bound * (magnitude <= bound).sum() - (magnitude - bound)[magnitude > bound].sum()
        curve = 4.0**-bits / 3 * (magnitude <= bound).sum() + (magnitude > bound).sum()
        assert abs(slope / curve) < 0.01 * bound


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("values", [[0.5], [0.1, 0.2], [-1.0, 3.0], [1e-6, 5.0, 5.1], [0.0, 0.0, 2.0]])
def test_octav_comes_to_an_end_where_there_are_few_values(values, bits):
    """Newton's iteration goes in a circle there."""
    low, high = choose_range(Histogram.of(np.array(values, np.float32)), "octav", bits)
    assert 0 < high <= max(values) + 1e-6 and min(*values, 0) <= low <= high


def test_the_moving_average_is_that_of_ai_edge_quantizer():
    batches = np.split(activations("logits", np.random.default_rng(7)), 20)
    theirs = {}
    for batch in batches:
        theirs = qsv_utils.moving_average_update(theirs, {"min": batch.min(), "max": batch.max()})
    ours = choose_range(gather(batches), "moving")
    np.testing.assert_allclose(ours, (theirs["min"], theirs["max"]), rtol=1e-6)


def test_one_outlier_moves_minmax_and_nothing_else_much():
    clean, odd = (activations(kind, np.random.default_rng(8)) for kind in ("relu", "outlier"))
    for method in ("percentile", "entropy"):
        (_, before), (_, after) = (choose_range(Histogram.of(x), method, 8, percent=99.9) for x in (clean, odd))
        assert before < 5 and after < 30, method
    assert choose_range(Histogram.of(odd), "minmax")[1] == 300


def test_entropy_keeps_all_of_a_flat_distribution_and_cuts_a_long_tail():
    assert entropy_bins(np.full(2048, 7), 128) == 2048
    decaying = np.floor(1e6 * np.exp(-np.arange(4096) / 60)).astype(int)
    assert 256 < entropy_bins(decaying, 128) < 1500
    assert entropy_bins(np.full(100, 7), 128) == 100
    assert entropy_bins(np.zeros(300, int), 128) == 300


# Histograms

VALUES = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(VALUES, VALUES, VALUES)
def test_histograms_add_up_whatever_the_order(a, b, c):
    whole = Histogram.of(np.concatenate([a, b, c]))
    for parts in ((a, b, c), (c, a, b)):
        total = gather(parts)
        assert (total.exponent, total.first, total.zeros) == (whole.exponent, whole.first, whole.zeros)
        np.testing.assert_array_equal(total.counts, whole.counts)
        assert (total.low, total.high, total.count) == (whole.low, whole.high, whole.count)


@given(VALUES)
def test_each_value_is_in_its_bin(x):
    histogram = Histogram.of(x)
    assert histogram.counts.size <= 8192
    with np.errstate(over="ignore"):
        expected, _ = np.histogram(x.astype(np.float64), histogram.edges)
    expected[-1] -= (x.astype(np.float64) == histogram.edges[-1]).sum()
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.zeros == (x == 0).sum()
    assert histogram.magnitudes.sum() == (x != 0).sum()


def test_bins_are_no_wider_than_they_must_be():
    rng = np.random.default_rng(9)
    for scale in (1e-6, 1e-3, 1, 1e6):
        histogram = Histogram.of(rng.normal(0, scale, 5000))
        assert 4095 <= histogram.counts.size <= 8192
