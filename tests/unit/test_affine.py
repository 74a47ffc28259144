"""The affine arithmetic: laws that hold for every grid, and ai-edge-quantizer's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_quantizer import qtyping
from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compresskit.quantization.affine import (
    SMALLEST_WIDTH,
    Grid,
    affine_grid,
    block_scale,
    dequantize,
    fake_quantize,
    quantize,
    round_half,
    symmetric_grid,
    value_range,
)

BITS = st.integers(2, 16)
MODERATE = st.floats(-1e6, 1e6, width=32)
TENSORS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=MODERATE)
GRANULARITY = qtyping.QuantGranularity


def theirs(low, high, bits, symmetric, granularity=GRANULARITY.CHANNELWISE, signed=True):
    """Scale and zero point of ai-edge-quantizer."""
    zero_point, scale = uniform_quantize_tensor.tensor_zp_scale_from_min_max(
        low, high, bits, symmetric, granularity, signed=signed
    )
    return scale, zero_point


@st.composite
def grids(draw):
    """Any grid for a whole tensor."""
    bits, signed = draw(BITS), draw(st.booleans())
    if draw(st.booleans()):
        return symmetric_grid(draw(st.floats(0, 1e6, width=32)), bits, signed=signed)
    low, high = sorted((draw(MODERATE), draw(MODERATE)))
    return affine_grid(low, high, bits, signed=signed)


# A worked example, by hand


def test_the_worked_example():
    """Range -1 to 2 in 8 bits: 255 steps of 3/255; 0 lies 85 steps above the low end."""
    grid = affine_grid(-1, 2)
    assert grid.scale == np.float32(3 / 255)
    assert grid.zero_point == -43  # -128 + 85
    assert grid.dtype == np.int8
    np.testing.assert_array_equal(quantize([-1, 0, 1, 2, 5, -9], grid), [-128, -43, 42, 127, 127, -128])
    np.testing.assert_allclose(dequantize([-128, -43, 127], grid), [-1, 0, 2], rtol=1e-6)


def test_what_a_tutorial_gets_wrong():
    """[[1, 2], [3, 4]] times 255/2 is 127.5 to 510: no integers, and no int8. On a grid they are integers that fit."""
    weights = np.array([[1, 2], [3, 4]])
    grid = symmetric_grid(4)
    np.testing.assert_array_equal(quantize(weights, grid), [[32, 64], [95, 127]])
    assert np.abs(fake_quantize(weights, grid) - weights).max() <= grid.scale / 2


# Laws


@given(grids())
def test_zero_is_exact(grid):
    assert fake_quantize(0.0, grid) == 0
    assert grid.lowest <= grid.zero_point <= grid.highest


@given(grids(), hnp.arrays(np.float32, 20, elements=st.floats(-2, 2, width=32)), st.sampled_from(["even", "away"]))
def test_the_error_inside_the_range_is_at_most_half_a_step(grid, relative, rounding):
    reach = max(abs(float(grid.low)), abs(float(grid.high)))
    x = np.clip(relative * reach, grid.low, grid.high)
    error = np.abs(fake_quantize(x, grid, rounding).astype(np.float64) - x)
    assert error.max() <= grid.scale / 2 + 2e-7 * reach


@given(grids())
def test_integers_come_back(grid):
    every = np.arange(grid.lowest, grid.highest + 1)
    np.testing.assert_array_equal(quantize(dequantize(every, grid), grid), every)


@given(grids(), hnp.arrays(np.float32, 30, elements=MODERATE))
def test_order_is_kept_and_twice_is_once(grid, x):
    q = quantize(np.sort(x), grid).astype(int)
    assert (np.diff(q) >= 0).all()
    once = fake_quantize(x, grid)
    np.testing.assert_array_equal(fake_quantize(once, grid), once)


@given(st.floats(0, 1e6, width=32), BITS, hnp.arrays(np.float32, 20, elements=MODERATE))
def test_a_narrow_grid_is_its_own_mirror_image(bound, bits, x):
    grid = symmetric_grid(bound, bits, narrow=True)
    assert grid.lowest == -grid.highest
    np.testing.assert_array_equal(quantize(-x, grid).astype(int), -quantize(x, grid).astype(int))


@given(st.floats(0, 1e6, width=32), BITS, hnp.arrays(np.float32, 20, elements=MODERATE))
def test_unsigned_is_signed_moved_up(bound, bits, x):
    signed, unsigned = symmetric_grid(bound, bits), symmetric_grid(bound, bits, signed=False)
    moved = quantize(x, signed).astype(int) + 2 ** (bits - 1)
    np.testing.assert_array_equal(quantize(x, unsigned), moved)
    np.testing.assert_array_equal(fake_quantize(x, unsigned), fake_quantize(x, signed))


@given(TENSORS, BITS, st.data())
def test_per_channel_is_per_tensor_channel_by_channel(x, bits, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    low, high = value_range(x, axis)
    together = quantize(x, affine_grid(low, high, bits, axis=axis))
    for channel in range(x.shape[axis]):
        part = np.take(x, channel, axis)
        alone = quantize(part, affine_grid(part.min(), part.max(), bits))
        np.testing.assert_array_equal(np.take(together, channel, axis), alone)


@given(
    hnp.arrays(np.float32, (3, 12, 2), elements=st.floats(-6e4, 6e4, width=32)),
    BITS,
    st.sampled_from([1, 2, 3, 4, 6, 12]),
)
def test_per_block_is_per_tensor_block_by_block(x, bits, size):
    low, high = value_range(x, 1, size)
    grid = symmetric_grid(np.maximum(-low, high), bits, axis=1, block_size=size)
    together = fake_quantize(x, grid)
    for i, j, k in np.ndindex(3, 12 // size, 2):
        block = np.s_[i, j * size : (j + 1) * size, k]
        alone = Grid(grid.scale[i, j, k], np.int32(0), bits, True, grid.narrow)
        np.testing.assert_array_equal(together[block], fake_quantize(x[block], alone))


def test_two_bits_and_sixteen():
    assert [symmetric_grid(1, 2).lowest, symmetric_grid(1, 2).highest] == [-2, 1]
    np.testing.assert_array_equal(quantize([-9, -1, 0.4, 9], symmetric_grid(1, 2)), [-2, -1, 0, 1])
    assert symmetric_grid(1, 16).dtype == np.int16
    assert affine_grid(0, 1, 9, signed=False).dtype == np.uint16
    assert [symmetric_grid(1, bits).narrow for bits in (2, 7, 8, 16)] == [False, False, True, True]


# Rounding


def test_halves():
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    np.testing.assert_array_equal(round_half(x, "even"), [-2, -2, 0, 0, 2, 2])
    np.testing.assert_array_equal(round_half(x, "away"), [-3, -2, -1, 1, 2, 3])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_number_just_below_a_half_is_rounded_down(kind):
    below = np.nextafter(kind(0.5), kind(0))
    np.testing.assert_array_equal(round_half(np.array([below, -below]), "away"), [0, 0])


@given(hnp.arrays(np.float64, 10, elements=st.floats(-1e9, 1e9)))
def test_away_agrees_with_python_arithmetic(x):
    expected = [int(abs(v) + 0.5) if abs(v) % 1 != 0.49999999999999994 else 0 for v in x]
    np.testing.assert_array_equal(np.abs(round_half(x, "away")), expected)


# Strange tensors


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-30, -1e-45, 1e30])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_constant_tensors(value, bits):
    x = np.full((2, 3), value, np.float32)
    for grid in (affine_grid(*value_range(x), bits), symmetric_grid(np.abs(x).max(), bits)):
        assert np.isfinite(grid.scale) and grid.scale > 0
        error = np.abs(fake_quantize(x, grid) - x).max()
        assert error <= max(SMALLEST_WIDTH, 1e-6 * abs(value))


def test_subnormal_numbers_become_zero():
    x = np.array([1e-45, -1e-40, 0], np.float32)
    grid = symmetric_grid(np.abs(x).max())
    assert grid.scale == np.float32(SMALLEST_WIDTH) / np.float32(127)
    np.testing.assert_array_equal(quantize(x, grid), [0, 0, 0])


def test_infinities_become_the_ends():
    np.testing.assert_array_equal(quantize([-np.inf, np.inf], affine_grid(-1, 2)), [-128, 127])
    np.testing.assert_array_equal(quantize([-np.inf, np.inf, 3e38], affine_grid(-1, 2), "away"), [-128, 127, 127])


def test_one_value_and_no_dimension():
    assert quantize(1.0, affine_grid(*value_range(1.0))).shape == ()
    assert quantize(np.float32(2), symmetric_grid(2)) == 127


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: symmetric_grid(1, 1), "bits must be a whole number from 2 to 16, but is 1"),
        (lambda: affine_grid(0, 1, 17), "bits must be a whole number from 2 to 16, but is 17"),
        (lambda: symmetric_grid(1, 8.0), "bits must be a whole number"),
        (lambda: symmetric_grid(1, True), "bits must be a whole number"),
        (lambda: symmetric_grid(-1), "bound must not be negative, but is -1"),
        (lambda: symmetric_grid(np.nan), "bound holds NaN"),
        (lambda: affine_grid(2, 1), "low must not be above high"),
        (lambda: affine_grid(-np.inf, 1), "low holds NaN, infinity"),
        (lambda: affine_grid(0, 1e39), "high holds NaN, infinity or a number beyond float32"),
        (lambda: affine_grid(-3e38, 3e38), "wider than float32"),
        (lambda: quantize([1, np.nan], symmetric_grid(1)), "x holds NaN"),
        (lambda: quantize([1], symmetric_grid(1), "up"), "rounding is 'up'"),
        (lambda: value_range([]), "no values"),
        (lambda: value_range([1, np.inf]), "x holds NaN, infinity"),
        (lambda: value_range(np.ones((2, 3)), axis=2), "axis is 2"),
        (lambda: value_range(np.ones((2, 3)), axis=1, block_size=2), "block_size is 2, but axis 1 has 3 values"),
        (lambda: quantize(np.ones((2, 3)), symmetric_grid([1, 1], axis=1)), "2 values along axis 1"),
        (lambda: quantize(np.ones(2), symmetric_grid([1, 1], axis=1)), "axis is 1, but the tensor has shape (2,)"),
        (lambda: symmetric_grid([1, 1]), "axis is None"),
        (lambda: Grid(np.float32(1), np.int32(200)), "zero_point must be one of the integers -128 to 127"),
        (lambda: Grid(np.float32(0), np.int32(0)), "scale must be finite and above 0"),
        (lambda: symmetric_grid(np.full((1, 1), 1e9), 4, axis=1, block_size=4), "half precision ends at 65504"),
    ],
)
def test_a_sentence_for_each_bad_input(act, message):
    with pytest.raises(ValueError) as error:
        act()
    assert message in str(error.value)


# Against ai-edge-quantizer

CHANNELS = hnp.arrays(np.float32, (4, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32))


@given(CHANNELS, BITS, st.booleans())
@example(np.zeros((4, 7), np.float32), 8, True)
def test_affine_scales_and_zero_points_are_theirs(x, bits, signed):
    low, high = value_range(x, 0)
    grid = affine_grid(low, high, bits, signed=signed, axis=0)
    scale, zero_point = theirs(low, high, bits, False, signed=signed)
    np.testing.assert_array_equal(grid.scale, scale)
    np.testing.assert_array_equal(grid.zero_point, zero_point)


@given(CHANNELS, BITS)
@example(np.zeros((4, 7), np.float32), 8)
def test_symmetric_integers_are_theirs(x, bits):
    low, high = value_range(x, 0)
    grid = symmetric_grid(np.maximum(-low, high), bits, axis=0)
    scale, zero_point = theirs(low, high, bits, True)
    np.testing.assert_array_equal(grid.scale, scale)
    parameters = qtyping.UniformQuantParams(bits, 0, scale, zero_point, True)
    np.testing.assert_array_equal(quantize(x, grid), uniform_quantize_tensor.uniform_quantize(x, parameters))


@given(hnp.arrays(np.float32, (3, 64), elements=st.floats(-1e3, 1e3, width=32)), st.sampled_from([2, 4, 8]))
def test_block_scales_and_integers_are_theirs(x, bits):
    x[:, ::32] = np.maximum(np.abs(x[:, ::32]), 1e-3)  # a block of zeros makes them divide by zero
    low, high = value_range(x, 1, 32)
    grid = symmetric_grid(np.maximum(-low, high), bits, axis=1, block_size=32)
    scale, zero_point = theirs(low, high, bits, True, GRANULARITY.BLOCKWISE_32)
    np.testing.assert_array_equal(grid.scale, scale)
    parameters = qtyping.UniformQuantParams(bits, 1, scale, zero_point, True, block_size=32)
    np.testing.assert_array_equal(quantize(x, grid), uniform_quantize_tensor.uniform_quantize(x, parameters, True))


@given(hnp.arrays(np.float32, 20, elements=st.floats(2.0**-14, 6e4, width=32)))
def test_block_scales_have_eight_significant_bits(scales):
    rounded = block_scale(scales)
    np.testing.assert_array_equal(np.frexp(rounded)[0] * 256 % 1, 0)
    assert (np.abs(rounded / scales - 1) <= 2.0**-8).all()
