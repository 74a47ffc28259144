"""Multipliers of any width: against fractions, and against the integer network that is LiteRT's."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit.quantization.integer import IntegerDense, Requantizer, multiply_by_multiplier, quantize_multiplier
from compresskit.quantization.narrow import (
    WAYS,
    divide_rounding,
    multiply_narrow,
    narrow_multiplier,
    narrowed,
    with_multipliers,
)

REALS = st.floats(2.0**-20, 4.0)
SUMS = st.integers(-(2**23), 2**23)


def exact(value: Fraction, way: str) -> int:
    if way == "down":
        return math.floor(value)
    if way == "even":
        return round(value)
    return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value)) if value else 0


@given(REALS, st.integers(1, 31))
def test_a_multiplier_has_its_bits_and_is_the_nearest(real, width):
    m, shift = (int(part) for part in narrow_multiplier(real, width))
    assert 2 ** (width - 1) <= m < 2**width
    assert abs(m * 2.0 ** (shift - width) - real) <= 2.0 ** (shift - width) * 0.5001


@given(REALS)
def test_with_31_bits_it_is_that_of_litert(real):
    assert [int(part) for part in narrow_multiplier(real, 31)] == [int(part) for part in quantize_multiplier(real)]


@given(st.integers(-(2**50), 2**50), st.integers(0, 40), st.sampled_from(["even", "away", "down"]))
def test_a_division_is_rounded_as_fractions_are(x, places, way):
    assert int(divide_rounding(np.asarray(x, np.int64), places, way)) == exact(Fraction(x, 2**places), way)


@pytest.mark.parametrize("way", ["even", "away", "down"])
def test_halves(way):
    halves = np.array([-3, -1, 1, 3, 5], np.int64)
    expected = {"even": [-2, 0, 0, 2, 2], "away": [-2, -1, 1, 2, 3], "down": [-2, -1, 0, 1, 2]}
    assert divide_rounding(halves, 1, way).tolist() == expected[way]


@given(SUMS, REALS, st.integers(1, 31), st.sampled_from(["even", "away", "down"]))
def test_a_product_is_rounded_once(x, real, width, way):
    m, shift = (int(part) for part in narrow_multiplier(real, width))
    found = multiply_narrow(np.int32(x), real, width, way)
    assert int(found) == exact(Fraction(x) * m * Fraction(2) ** (shift - width), way)


@given(st.lists(SUMS, min_size=1, max_size=8), REALS)
def test_rounding_twice_with_31_bits_is_the_reference_convolution(sums, real):
    x = np.array(sums, np.int32)
    np.testing.assert_array_equal(
        multiply_narrow(x, real, 31, "twice"), multiply_by_multiplier(x, *quantize_multiplier(real))
    )


def test_channels_have_multipliers_of_their_own():
    sums = np.array([[100, 100], [-100, 100]], np.int32)
    assert multiply_narrow(sums, np.array([0.5, 0.25]), 8, "even").tolist() == [[50, 25], [-50, 25]]
    assert multiply_narrow(sums, np.array([0.75, 3.0]), 1, "even").tolist() == [[100, 400], [-100, 400]], (
        "of one bit there are only powers of two"
    )


def layer(rounding="float64"):
    requantize = Requantizer(0.1, np.float32([0.01, 0.02]), 0.05, -3, -128, 100, rounding)
    weights = np.array([[1, 2, 3], [4, 5, -6]], np.int8)
    return IntegerDense("unit", weights, np.array([7, -7], np.int32), 5, requantize)


def test_a_network_is_copied_with_other_multipliers():
    original = layer()
    (copied,) = with_multipliers([original], 4, "down")
    assert original.requantize.rounding == "float64" and type(original.requantize) is Requantizer
    assert (copied.requantize.width, copied.requantize.way) == (4, "down")
    assert copied.requantize.highest == 100 and copied.requantize.zero_point == -3
    x = np.array([[100, -90, 60]], np.int8)
    sums = original.accumulate(x)
    expected = np.clip(multiply_narrow(sums, original.requantize.real, 4, "down") - 3, -128, 100)
    np.testing.assert_array_equal(copied(x), expected)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: narrow_multiplier(0.5, 0), "width is 0; a multiplier has 1 to 31 bits"),
        (lambda: narrow_multiplier(0.5, 32), "width is 32"),
        (lambda: narrow_multiplier(0.0, 8), "must be finite and positive"),
        (lambda: narrow_multiplier(math.nan, 8), "must be finite and positive"),
        (lambda: multiply_narrow(np.int32(1), 0.5, 8, "up"), "way is 'up'; choose from twice, even, away, down"),
        (lambda: narrowed(layer().requantize, 40, "even")(np.array([[1, 2]])), "width is 40"),
    ],
)
def test_a_sentence_for_each_bad_input(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_all_ways_are_tried():
    assert set(WAYS) == {"twice", "even", "away", "down"}
