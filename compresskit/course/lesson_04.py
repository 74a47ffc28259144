"""Exercises of lesson 04: accumulator, multiplier, shift, clamp, and bytes with and without a sign."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from compresskit.course.checks import Case, Exercise, Mistake

# -- the accumulator ----------------------------------------------------------------------------------------------


def accumulate(q: Any, weights: Any, bias: Any, zero_point: int) -> Any:
    """Add up (q - Z) w for each unit, and the bias, in int32."""
    return weights.astype(np.int32) @ (q.astype(np.int32) - zero_point) + bias


def _dense_layers(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([3, -2], np.int8), np.array([[1, 2], [-3, 4]], np.int8), np.array([10, -10], np.int32), 0)
    yield (np.array([-128, 127], np.int8), np.array([[127, -127]], np.int8), np.array([5], np.int32), -128)
    yield (np.array([-128, -128], np.int8), np.array([[100, 100]], np.int8), np.array([7], np.int32), -128)  # all zeros
    for _ in range(6):
        units, inputs = int(rng.integers(2, 5)), int(rng.integers(3, 9))
        weights = rng.integers(-127, 128, (units, inputs)).astype(np.int8)
        bias = rng.integers(-3000, 3000, units).astype(np.int32)
        yield (rng.integers(-128, 128, inputs).astype(np.int8), weights, bias, int(rng.integers(-128, 100)))


ACCUMULATE = Exercise(
    reference=accumulate,
    cases=_dense_layers,
    mistakes=(
        Mistake(
            lambda q, weights, bias, zero_point: weights @ q,
            "This multiplies and adds in int8, which runs over after the first product or two, and leaves out the "
            "zero point and the bias. Make the integers wider first: `astype(np.int32)`.",
        ),
        Mistake(
            lambda q, weights, bias, zero_point: weights.astype(np.int32) @ q.astype(np.int32) + bias,
            "The zero point is missing: the integer Z stands for 0, so each input counts as q - Z. With all inputs at "
            "Z the sum is the bias alone.",
        ),
        Mistake(
            lambda q, weights, bias, zero_point: weights @ (q - np.array(zero_point).astype(np.int8)) + bias,
            "This still computes in int8, which runs over: 127 - (-128) is -1 there, and 100 * 100 is 16. Make the "
            "integers wider before you subtract or multiply.",
        ),
        Mistake(
            lambda q, weights, bias, zero_point: weights.astype(np.int32) @ (q.astype(np.int32) + zero_point) + bias,
            "The zero point is taken off, not added: the integer Z stands for 0.",
        ),
        Mistake(
            lambda q, weights, bias, zero_point: weights.astype(np.int32) @ (q.astype(np.int32) - zero_point),
            "The bias is missing. It is stored with the scale S_in * S_w, in which the accumulator counts: add it.",
        ),
        Mistake(
            lambda q, weights, bias, zero_point: weights.astype(np.int32) @ q.astype(np.int32) - zero_point + bias,
            "The zero point belongs to every input, so it is taken off before the multiplication, not once at the end.",
        ),
        Mistake(
            lambda q, weights, bias, zero_point: (
                (weights.astype(np.int32) - zero_point) @ (q.astype(np.int32) - zero_point) + bias
            ),
            "The zero point is that of the input. Weights are on a symmetric grid, with a zero point of 0.",
        ),
    ),
    praise="Integers alone, exact, in any order of adding: that is why accumulators agree on every machine.",
    tolerance=0.0,
)


# -- the multiplier -----------------------------------------------------------------------------------------------


def multiplier(real: float) -> tuple[int, int]:
    """Write a positive real number as m / 2^31 * 2^shift with 2^30 <= m < 2^31."""
    fraction, shift = np.frexp(real)
    m = int(np.floor(float(fraction) * 2**31 + 0.5))
    return (2**30, int(shift) + 1) if m == 2**31 else (m, int(shift))


def _multipliers(rng: np.random.Generator) -> Iterator[Case]:
    for real in (0.75, 0.5, 0.002, 0.1, 1.0, 3.3, 1 - 2.0**-40):
        yield (real,)
    for _ in range(6):
        yield (float(2.0 ** rng.uniform(-14, 1)),)


def _scaled(power: int, turn: Callable[[float], float] = round) -> Callable[[float], tuple[int, int]]:
    def answer(real: float) -> tuple[int, int]:
        fraction, shift = np.frexp(real)
        return int(turn(float(fraction) * 2.0**power)), int(shift)

    return answer


def _logarithm(real: float) -> tuple[int, int]:
    shift = int(np.floor(np.log2(real)))
    return round(real / 2.0**shift * 2**31), shift


MULTIPLIER = Exercise(
    reference=multiplier,
    cases=_multipliers,
    mistakes=(
        Mistake(
            _scaled(31),
            "All is well except just below a power of two: there the rounding gives m = 2^31, one too many for 31 "
            "bits. Halve m then, and raise the shift by one.",
        ),
        Mistake(_scaled(31, int), "`int` cuts off; the nearest integer is wanted: `round`."),
        Mistake(
            lambda real: (multiplier(real)[0], -multiplier(real)[1]),
            "The sign of the shift is turned round: M = m / 2^31 * 2^shift, so M below a half has a negative shift.",
        ),
        Mistake(
            lambda real: (round(real * 2**31), 0),
            "M is not brought to between a half and 1 first. For a small M, m then has far fewer than 31 bits: that "
            "is precision thrown away.",
        ),
        Mistake(
            lambda real: tuple(reversed(multiplier(real))), "The order is m first, then the shift."
        ),
        Mistake(
            lambda real: (float(np.frexp(real)[0]), int(np.frexp(real)[1])),
            "That is the fraction as a float; m is the integer nearest to fraction * 2^31.",
        ),
        Mistake(_scaled(32), "32 bits: with a sign m would not fit into int32. The fraction is multiplied by 2^31."),
        Mistake(_scaled(30), "That loses a bit: the fraction is at most 1, so it can be multiplied by 2^31."),
        Mistake(
            _logarithm,
            "The fraction is between 1 and 2 here, so m needs 32 bits. It must be between a half and 1: the shift is "
            "one more, `np.frexp` gives both.",
        ),
    ),
    praise="One integer and one shift for each channel, computed once, when the file is loaded.",
    tolerance=0.0,
)  # fmt: skip


# -- the rounding shift -------------------------------------------------------------------------------------------


def rounding_shift(x: Any, places: int) -> Any:
    """Divide integers by 2^places to the nearest integer, halves away from zero."""
    half = (1 << places) >> 1
    return np.sign(x) * ((np.abs(x) + half) >> places)


def _shifts(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([4, 5, 6, 7, 8]), 2)
    yield (np.array([-4, -5, -6, -7, -8]), 2)
    yield (np.array([3, -3, 0]), 0)
    yield (np.array([1, -1, 2, -2]), 1)
    yield (np.array([2**53 + 1, -(2**53) - 1]), 1)  # beyond what a float holds exactly
    for _ in range(6):
        places = int(rng.integers(1, 9))
        yield (rng.integers(-2000, 2000, 8) // 4 * (1 << max(places - 1, 0)) // 8, places)


SHIFT = Exercise(
    reference=rounding_shift,
    cases=_shifts,
    mistakes=(
        Mistake(
            lambda x, places: x >> places,
            "A shift alone always rounds down, also below zero: -5 >> 2 is -2. Add half of 2^places to the absolute "
            "value first.",
        ),
        Mistake(
            lambda x, places: (x + ((1 << places) >> 1)) >> places,
            "Right for positive numbers. Below zero it rounds halves up, towards zero: -6 / 4 = -1.5 becomes -1, "
            "where -2 is wanted.",
        ),
        Mistake(
            lambda x, places: (x + (1 << places >> 1)) // 2**places,
            "Right for positive numbers. Below zero it rounds halves up, towards zero: -6 / 4 = -1.5 becomes -1, "
            "where -2 is wanted.",
        ),
        Mistake(
            lambda x, places: np.sign(x) * (np.abs(x) >> places),
            "This cuts off towards zero. Add half of 2^places to the absolute value before the shift.",
        ),
        Mistake(
            lambda x, places: np.round(x / 2**places),
            "`np.round` sends halves to the even integer, and a float does not hold large integers exactly. Use "
            "integers alone: +, >> and the sign.",
        ),
        Mistake(
            lambda x, places: np.sign(x) * np.floor(np.abs(x) / 2**places + 0.5),
            "The rounding is right, but through a float, which does not hold integers beyond 2^53 exactly. Use "
            "integers alone: +, >> and the sign.",
        ),
        Mistake(lambda x, places: x / 2**places, "These are no integers yet: round."),
        Mistake(
            lambda x, places: np.sign(x) * ((np.abs(x) + (1 << places)) >> places),
            "Half of 2^places is added, not the whole.",
        ),
        Mistake(lambda x, places: x << places, "`<<` multiplies; `>>` divides."),
    ),
    praise="No division, no float: an addition, a shift, a sign.",
    tolerance=0.0,
)


# -- from accumulator to output -----------------------------------------------------------------------------------


def requantize(accumulator: Any, m: int, shift: int, zero_point: int, lowest: int, highest: int) -> Any:
    """Take accumulators to the output's grid, rounding twice; the shift is 0 or negative."""
    high = (accumulator.astype(np.int64) * m + 2**30) >> 31
    return np.clip(rounding_shift(high, -shift) + zero_point, lowest, highest)


def _sums(rng: np.random.Generator) -> Iterator[Case]:
    m, shift = multiplier(0.002)
    yield (np.array([0, 1000, -1000, 10_000]), m, shift, 0, -128, 127)
    yield (np.array([0, 1000, -1000, 10_000]), m, shift, -128, -128, 127)  # a rectifier
    yield (np.array([100_000, -100_000, 12_345_678]), m, shift, 20, -128, 127)
    yield (np.array([3198, 3200, 3202, -3198, -3202]), 2**30, -7, 3, -128, 127)
    # 2^30 / 2^31 * 2^-1 is a quarter: 1 becomes 0.5, up to 1, then 0.5 again, up to 1. Rounded once it is 0.
    yield (np.array([1, 2, 3, 5, 6, 9, -1, -2, -3]), 2**30, -1, 0, -128, 127)
    for _ in range(6):
        m, shift = multiplier(float(2.0 ** rng.uniform(-12, -6)))
        sums = rng.integers(-40_000, 40_000, 8)
        lowest = int(rng.choice([-128, -30]))
        yield (sums, m, shift, int(rng.integers(-128, 60)), lowest, 127)


def _high(accumulator: Any, m: int) -> Any:
    return (accumulator.astype(np.int64) * m + 2**30) >> 31


def _turned(accumulator: Any, m: int, shift: int, zero_point: int, lowest: int, highest: int) -> Any:
    return np.clip((_high(accumulator, m) << -shift) + zero_point, lowest, highest)


def _once(accumulator: Any, m: int, shift: int, zero_point: int, lowest: int, highest: int) -> Any:
    return np.clip(
        rounding_shift(accumulator.astype(np.int64) * m, 31 - shift) + zero_point, lowest, highest
    )  # fmt: skip


def _cut_twice(accumulator: Any, m: int, shift: int, zero_point: int, lowest: int, highest: int) -> Any:
    return np.clip(((accumulator.astype(np.int64) * m) >> 31 >> -shift) + zero_point, lowest, highest)


def _float(accumulator: Any, m: int, shift: int, zero_point: int, lowest: int, highest: int) -> Any:
    return np.clip(np.round(accumulator * (m / 2**31 * 2.0**shift)) + zero_point, lowest, highest)


def _first_cut(accumulator: Any, m: int, shift: int, zero_point: int, lowest: int, highest: int) -> Any:
    high = (accumulator.astype(np.int64) * m) >> 31
    return np.clip(rounding_shift(high, -shift) + zero_point, lowest, highest)


def _second_cut(accumulator: Any, m: int, shift: int, zero_point: int, lowest: int, highest: int) -> Any:
    return np.clip((_high(accumulator, m) >> -shift) + zero_point, lowest, highest)


REQUANTIZE = Exercise(
    reference=requantize,
    cases=_sums,
    mistakes=(
        Mistake(
            lambda accumulator, m, shift, zero_point, lowest, highest: (
                rounding_shift(_high(accumulator, m), -shift) + zero_point
            ),
            "Nothing is clamped: what is beyond the ends does not fit into int8, and the rectifier is missing, too.",
        ),
        Mistake(
            lambda accumulator, m, shift, zero_point, lowest, highest: (
                np.clip(rounding_shift(_high(accumulator, m), -shift), lowest, highest) + zero_point
            ),
            "The clamp comes last, after the zero point is added: its ends are integers of the output's grid.",
        ),
        Mistake(
            lambda accumulator, m, shift, zero_point, lowest, highest: np.clip(
                rounding_shift(_high(accumulator, m), -shift), lowest, highest
            ),
            "The zero point of the output is missing.",
        ),
        Mistake(
            lambda accumulator, m, shift, zero_point, lowest, highest: np.clip(
                rounding_shift(_high(accumulator, m), -shift) - zero_point, lowest, highest
            ),
            "The zero point is added: on the output's grid the integer Z stands for 0.",
        ),
        Mistake(
            _turned,
            "The shift is turned round: it is 0 or negative here, and a negative one divides.",
        ),
        Mistake(
            _once,
            "This rounds once, at the end. That is the more exact way, but not what is asked for: LiteRT's reference "
            "convolution first rounds to 32 bits (/ 2^31), then by the shift.",
        ),
        Mistake(
            _float,
            "This goes through a float and rounds once. Use integers alone: (accumulator * m + 2^30) >> 31, and then "
            "your rounding_shift.",
        ),
        Mistake(
            _cut_twice,
            "A shift alone rounds down, here twice. Add 2^30 before the first, and use your rounding_shift for the "
            "second.",
        ),
        Mistake(_first_cut, "The first shift cuts off. Add a half before it: (accumulator * m + 2^30) >> 31."),
        Mistake(_second_cut, "The second shift cuts off: use your rounding_shift."),
        Mistake(
            lambda accumulator, m, shift, zero_point, lowest, highest: np.clip(
                rounding_shift((accumulator.astype(np.int32) * np.int32(m)).astype(np.int64) + 2**30 >> 31, -shift)
                + zero_point,
                lowest,
                highest,
            ),
            "The product runs over: 31 bits times the accumulator needs 64. `accumulator.astype(np.int64) * m`.",
        ),
    ),
    praise="That is the whole way from an int32 accumulator to an int8 output.",
    tolerance=0.0,
)


# -- bytes with and without a sign --------------------------------------------------------------------------------


def to_int8(q: Any) -> Any:
    """Move uint8 integers to int8, such that their zero point moves by 128 as well."""
    return (q.astype(np.int16) - 128).astype(np.int8)


TO_INT8 = Exercise(
    reference=to_int8,
    cases=lambda rng: (
        (np.array([0, 127, 128, 255], np.uint8),),
        (np.array([1, 254], np.uint8),),
        *((rng.integers(0, 256, 8).astype(np.uint8),) for _ in range(5)),
    ),
    mistakes=(
        Mistake(
            lambda q: q.astype(np.int8),
            "The same eight bits, read with a sign: 255 becomes -1 and 127 stays. All values must move down by 128.",
        ),
        Mistake(
            lambda q: q - np.uint8(128),
            "In uint8 the subtraction runs over: 0 - 128 is 128 there. Make the integers wider first, or change the "
            "type of the result.",
        ),
        Mistake(
            lambda q: np.clip(q.astype(np.int16), -128, 127),
            "This clips all bright pixels to 127. The values move, they are not cut off.",
        ),
        Mistake(lambda q: q.astype(np.int16) - 127, "127 is half of 255, but the integers -128 to 127 begin at -128."),
        Mistake(
            lambda q: q.astype(np.int16) // 2, "Halving them throws a bit away. They move down by 128, all of them."
        ),
        Mistake(lambda q: q.astype(np.int16) + 128, "The other way: 0 becomes -128."),
    ),
    praise="q - 128 with the zero point moved by 128 as well: S (q - Z) is the same real number. For a computer it is "
    "one flipped bit, the highest.",
    tolerance=0.0,
)

RELU = Exercise(
    reference="c",
    mistakes=(
        Mistake("a", "There is no such operator in the file: it lists convolutions, pools and dense layers only."),
        Mistake("b", "Weights of either sign are still there; inputs times weights can be negative, and often are."),
        Mistake(
            "d",
            "Look at the ends of the head: it has no rectifier, and its zero point is not at the end. For the other "
            "layers something is cut off at 0.",
        ),
    ),
    praise="A zero point of -128 puts real 0 at the lowest int8. The clamp, which is needed anyway, is the rectifier.",
)

EXERCISES = {
    "accumulate": ACCUMULATE,
    "multiplier": MULTIPLIER,
    "rounding_shift": SHIFT,
    "requantize": REQUANTIZE,
    "relu": RELU,
    "to_int8": TO_INT8,
}
