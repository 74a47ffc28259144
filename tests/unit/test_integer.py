"""Integer arithmetic against the definitions, written down once more in Python's unbounded integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compresskit.quantization.affine import affine_grid, dequantize, quantize, symmetric_grid
from compresskit.quantization.integer import (
    ExactMatrix,
    IntegerAveragePool,
    IntegerConv,
    IntegerDense,
    IntegerDepthwise,
    IntegerMaxPool,
    IntegerReshape,
    Requantizer,
    Window,
    clamp_range,
    divide_by_power_of_two,
    doubling_high_multiply,
    multiply_by_multiplier,
    multiply_rounding_once,
    quantize_bias,
    quantize_multiplier,
    run,
    trace,
    with_rounding,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
REALS = st.floats(1e-9, 1e4)


def halves_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def halves_away(x: Fraction) -> int:
    return halves_up(abs(x)) * (1 if x >= 0 else -1)


# One number


@given(REALS)
@example(0.5)
@example(1.0)
@example(1 - 2.0**-40)
def test_a_multiplier_is_right_to_31_bits(real):
    m, shift = (int(part) for part in quantize_multiplier(real))
    assert 2**30 <= m < 2**31
    assert abs(Fraction(m) / 2**31 * Fraction(2) ** shift / Fraction(real) - 1) <= Fraction(1, 2**31)


def test_a_multiplier_too_small_for_any_accumulator_is_zero():
    assert [int(part) for part in quantize_multiplier(2.0**-33)] == [0, 0]
    assert [int(part) for part in quantize_multiplier(2.0**-32)] == [2**30, -31]
    assert [int(part) for part in quantize_multiplier(0.0)] == [0, 0]


@given(INT32, INT32)
@example(-(2**31), -(2**31))
@example(2**30, 1)
@example(-(2**30), 1)
def test_doubling_high_multiply(a, b):
    """The high half of 2ab, halves up; the one overflow saturates."""
    assert int(doubling_high_multiply(a, b)) == min(halves_up(Fraction(a * b, 2**31)), 2**31 - 1)


@given(INT32, st.integers(0, 31))
@example(5, 1)
@example(-5, 1)
@example(-(2**31), 31)
@example(2**31 - 1, 31)
@example(7, 0)
@example(-7, 0)
def test_divide_by_power_of_two(x, exponent):
    assert int(divide_by_power_of_two(x, exponent)) == halves_away(Fraction(x, 2**exponent))


@given(INT32, st.integers(2**30, 2**31 - 1), st.integers(-31, 0))
def test_rounding_twice_is_two_roundings(x, m, shift):
    high = min(halves_up(Fraction(x * m, 2**31)), 2**31 - 1)
    assert int(multiply_by_multiplier(x, m, shift)) == halves_away(Fraction(high, 2**-shift))


@given(st.integers(-(2**20), 2**20), st.integers(2**30, 2**31 - 1), st.integers(-31, 8))
def test_rounding_once_is_one_rounding(x, m, shift):
    assert int(multiply_rounding_once(x, m, shift)) == halves_up(Fraction(x * m, 2**31) * Fraction(2) ** shift)


@given(st.integers(-(2**20), 2**20), st.integers(2**30, 2**31 - 1), st.integers(-20, 8))
def test_all_roundings_are_within_one_unit(x, m, shift):
    exact = Fraction(x * m, 2**31) * Fraction(2) ** shift
    for rounded in (multiply_by_multiplier(x, m, shift), multiply_rounding_once(x, m, shift)):
        assert abs(int(rounded) - exact) <= Fraction(1, 2) + Fraction(1, 2) * Fraction(2) ** shift


def test_rounding_twice_and_once_differ_just_below_a_half():
    """0.49...: the first rounding makes it a half, the second rounds that up."""
    m, shift = quantize_multiplier(0.25)
    assert int(multiply_by_multiplier(2, m, shift)) == int(multiply_rounding_once(2, m, shift)) == 1
    m, shift = quantize_multiplier(0.2499999998)
    assert [int(f(2, m, shift)) for f in (multiply_by_multiplier, multiply_rounding_once)] == [1, 0]


def test_bias_is_counted_in_units_of_the_accumulator():
    np.testing.assert_array_equal(quantize_bias([1.0, -0.3, 0.0], 0.5, [0.1, 0.1, 0.2]), [20, -6, 0])
    np.testing.assert_array_equal(quantize_bias([1e30, -1e30], 1e-3, 1e-3), [2**31 - 1, -(2**31)])


@pytest.mark.parametrize(
    ("activation", "scale", "zero_point", "expected"),
    [
        ("none", 0.1, 3, (-128, 127)),
        ("relu", 0.1, 3, (3, 127)),
        ("relu6", 0.1, 3, (3, 63)),
        ("relu6", 6 / 255, -128, (-128, 127)),
        ("relu6", 0.01, 3, (3, 127)),
        ("relu_n1_to_1", 0.1, 3, (-7, 13)),
        ("relu_n1_to_1", 0.4, 0, (-3, 3)),  # 1 / 0.4 is 2.5: away from zero
    ],
)
def test_rectifiers_are_folded_into_the_clamp(activation, scale, zero_point, expected):
    assert clamp_range(activation, scale, zero_point) == expected


# Layers


def test_a_dense_layer_by_hand():
    """2 * 3 - 1 * 4 + bias 8 = 10 units of S_in S_w = 1/8; in steps of 1/2 that is 2.5: 3, and Z = -1 makes 2."""
    requantizer = Requantizer(0.5, np.float32(0.25), 0.5, -1)
    layer = IntegerDense("dense", np.int8([[3, 4]]), np.int32([8]), 5, requantizer)
    x = np.int8([[7, 4]])
    np.testing.assert_array_equal(layer.accumulate(x), [[10]])
    np.testing.assert_array_equal(layer(x), [[2]])
    assert layer(x).dtype == np.int8


def test_a_dense_layer_stays_close_to_the_real_one():
    rng = np.random.default_rng(0)
    x, weights, bias = rng.normal(0, 1, (50, 40)), rng.normal(0, 0.2, (6, 40)), rng.normal(0, 1, 6)
    real = x @ weights.T + bias
    into, out = affine_grid(x.min(), x.max()), affine_grid(real.min(), real.max())
    grid = symmetric_grid(np.abs(weights).max(axis=1), axis=0)
    requantizer = Requantizer(float(into.scale), grid.scale, float(out.scale), int(out.zero_point))
    integers = quantize_bias(bias, into.scale, grid.scale)
    layer = IntegerDense("dense", quantize(weights, grid), integers, int(into.zero_point), requantizer)
    error = dequantize(layer(quantize(x, into)), out) - real
    assert np.sqrt(np.mean(error**2)) < 2 * float(out.scale)


def slow_convolution(x, weights, bias, zero_point, window, depthwise=False):
    """Accumulators, one output at a time, in Python integers."""
    (high, wide), ((top, _), (left, _)) = window.placed(x.shape[1:3])
    out = weights.shape[3] if depthwise else weights.shape[0]
    sums = np.zeros((len(x), high, wide, out), np.int64)
    for n, i, j, o in np.ndindex(sums.shape):
        total = int(bias[o])
        for a, b in np.ndindex(*window.size):
            y = i * window.stride[0] + a * window.dilation[0] - top
            z = j * window.stride[1] + b * window.dilation[1] - left
            if not (0 <= y < x.shape[1] and 0 <= z < x.shape[2]):
                continue
            if depthwise:
                channel = o // (out // x.shape[3])
                total += (int(x[n, y, z, channel]) - zero_point) * int(weights[0, a, b, o])
            else:
                total += sum((int(x[n, y, z, c]) - zero_point) * int(weights[o, a, b, c]) for c in range(x.shape[3]))
        sums[n, i, j, o] = total
    return sums


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_convolutions_add_up_what_the_definition_says(padding, stride, dilation):
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (2, 7, 6, 2)).astype(np.int8)
    window = Window((3, 2), stride, dilation, padding)
    bias = rng.integers(-1000, 1000, 4).astype(np.int32)
    requantizer = Requantizer(0.1, np.float32(0.1), 1.0, 0)
    weights = rng.integers(-127, 128, (4, 3, 2, 2)).astype(np.int8)
    conv = IntegerConv("conv", weights, bias, -7, window, requantizer)
    np.testing.assert_array_equal(conv.accumulate(x), slow_convolution(x, weights, bias, -7, window))
    weights = rng.integers(-127, 128, (1, 3, 2, 4)).astype(np.int8)
    depthwise = IntegerDepthwise("depthwise", weights, bias, -7, window, requantizer)
    np.testing.assert_array_equal(depthwise.accumulate(x), slow_convolution(x, weights, bias, -7, window, True))


def test_pools_by_hand():
    x = np.int8([[1, 2, -3], [4, 6, -4], [0, 0, 9]]).reshape(1, 3, 3, 1)
    window = Window((2, 2), (2, 2), padding="same")
    average = IntegerAveragePool("average", window)(x)
    np.testing.assert_array_equal(average.ravel(), [3, -4, 0, 9])  # 13/4, -7/2 away from zero, 0/2, 9/1
    np.testing.assert_array_equal(IntegerMaxPool("max", window)(x).ravel(), [6, -3, 0, 9])
    np.testing.assert_array_equal(IntegerMaxPool("max", window, 0, 5)(x).ravel(), [5, 0, 0, 5])


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit into an input"):
        Window((3, 3), dilation=(2, 2)).placed((4, 9))


@pytest.mark.parametrize("channels", [16, 40_000])
@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_products_are_exact_however_large(channels, zero_point):
    """The extreme integers, in sums beyond 2^24, where float32 would go wrong."""
    rng = np.random.default_rng(2)
    x = rng.choice([-128, 127, 126], (3, channels)).astype(np.int8)
    weights = rng.choice([-127, 127, 126], (4, channels)).astype(np.int8)
    bias = np.int32([2**30 - 1, -(2**30) + 1, 0, 1])
    layer = IntegerDense("dense", weights, bias, zero_point, Requantizer(1, np.float32(1), 1, 0))
    exact = (x.astype(np.int64) - zero_point) @ weights.T.astype(np.int64) + bias
    np.testing.assert_array_equal(layer.accumulate(x), exact)


@given(hnp.arrays(np.int8, (3, 20)), st.integers(-128, 127), st.integers(-(2**25), 2**25))
def test_float32_is_taken_only_where_it_is_exact(weights, zero_point, bias):
    matrix = ExactMatrix.of(weights, np.full(3, bias, np.int32), zero_point)
    # The largest sum has no negative term and the smallest no positive one, so no part of either goes further.
    inputs = np.where(weights > 0, 127, -128), np.where(weights > 0, -128, 127)
    largest = max(np.abs(((x - zero_point) * weights.astype(np.int64)).sum(axis=1)).max() for x in inputs) + abs(bias)
    assert matrix.weights.dtype == (np.float32 if largest < 2**24 else np.float64)


def test_a_network_runs_in_batches_of_any_size_and_can_be_watched():
    rng = np.random.default_rng(3)
    layers = (
        IntegerConv(
            "conv",
            rng.integers(-127, 128, (4, 3, 3, 1)).astype(np.int8),
            np.zeros(4, np.int32),
            -128,
            Window((3, 3), padding="same"),
            Requantizer(1 / 255, np.float32(0.01), 0.02, -128),
        ),
        IntegerMaxPool("pool", Window((2, 2), (2, 2))),
        IntegerReshape("flatten", (16,)),
        IntegerDense(
            "head",
            rng.integers(-127, 128, (3, 16)).astype(np.int8),
            np.zeros(3, np.int32),
            -128,
            Requantizer(0.02, np.float32([0.01, 0.02, 0.03]), 0.1, 4),
        ),
    )
    x = rng.integers(-128, 128, (11, 4, 4, 1)).astype(np.int8)
    whole = run(layers, x, batch=100)
    assert whole.shape == (11, 3)
    np.testing.assert_array_equal(run(layers, x, batch=3), whole)
    seen = trace(layers, x)
    assert [part.shape for part in seen] == [(11, 4, 4, 4), (11, 2, 2, 4), (11, 16), (11, 3)]
    np.testing.assert_array_equal(seen[-1], whole)
    for rounding in ("once", "twice", "float32", "float64"):
        other = run(with_rounding(layers, rounding), x)
        assert np.abs(other.astype(int) - whole).max() <= 2
        assert with_rounding(layers, rounding)[0].requantize.rounding == rounding


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: quantize_multiplier(-1.0), "finite and not negative"),
        (lambda: quantize_multiplier(np.nan), "finite and not negative"),
        (lambda: run((), np.zeros((0, 3), np.int8)), "at least one example"),
        (lambda: run((), np.zeros((2, 3))), "in int8 or uint8"),
        (lambda: Requantizer(1, np.float32(1), 1, 0, rounding="up")(np.int32([1])), "rounding is 'up'"),
    ],
)
def test_a_sentence_for_each_bad_input(act, message):
    with pytest.raises(ValueError) as error:
        act()
    assert message in str(error.value)
