"""Exercises of lesson 02: grids, rounding, clipping, and how much error a grid makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compresskit.course.checks import Case, Exercise, Mistake

# -- scale and zero point -----------------------------------------------------------------------------------------


def scale_and_zero_point(low: float, high: float, bits: int) -> tuple[float, int]:
    """Give the scale and the zero point of the unsigned grid from low to high that contains zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def _ranges(rng: np.random.Generator) -> Iterator[Case]:
    yield (-1.0, 3.0, 8)
    yield (0.0, 6.0, 8)
    yield (0.5, 2.0, 8)  # all above zero: the grid is widened down to it
    yield (-2.0, -0.5, 4)
    yield (-1.0, 1.0, 2)
    for _ in range(8):
        low, width = float(rng.uniform(-4, 2)), float(rng.uniform(0.5, 6))
        yield (round(low, 3), round(low + width, 3), int(rng.integers(2, 9)))


def _off_by_one(low: float, high: float, bits: int) -> tuple[float, int]:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 2**bits
    return scale, round(-low / scale)


def _without_zero(low: float, high: float, bits: int) -> tuple[float, int]:
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def _unrounded(low: float, high: float, bits: int) -> tuple[float, float]:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, -low / scale


def _truncated(low: float, high: float, bits: int) -> tuple[float, int]:
    scale, zero_point = _unrounded(low, high, bits)
    return scale, int(zero_point)


def _signed(low: float, high: float, bits: int) -> tuple[float, int]:
    scale, zero_point = scale_and_zero_point(low, high, bits)
    return scale, zero_point - 2 ** (bits - 1)


def _negated(low: float, high: float, bits: int) -> tuple[float, int]:
    scale, zero_point = scale_and_zero_point(low, high, bits)
    return scale, -zero_point


def _symmetric(low: float, high: float, bits: int) -> tuple[float, int]:
    return max(abs(low), abs(high)) / (2 ** (bits - 1) - 1), 0


def _inverse(low: float, high: float, bits: int) -> tuple[float, int]:
    scale, zero_point = scale_and_zero_point(low, high, bits)
    return 1 / scale, zero_point


SCALE = Exercise(
    reference=scale_and_zero_point,
    cases=_ranges,
    mistakes=(
        Mistake(
            _off_by_one,
            "There are 2^bits levels, but one gap less between them: divide by 2^bits - 1. With 255 gaps of a byte "
            "the error is small, with 3 gaps it is not.",
        ),
        Mistake(
            _without_zero,
            "The range is not widened to contain zero. For 0.5 to 2 the real number 0 would lie off the grid, and "
            "every padded or pruned zero with it.",
        ),
        Mistake(_unrounded, "The zero point is an integer of the grid: round it."),
        Mistake(_truncated, "`int` cuts off; the nearest integer is wanted: `round`."),
        Mistake(_signed, "That is the zero point of a signed grid (-128 to 127). Here the integers begin at 0."),
        Mistake(_negated, "The sign is turned round: `low` is at integer 0, so 0 is -low / scale steps above it."),
        Mistake(
            _symmetric,
            "That is a symmetric grid, as far down as up. Here it begins at `low` and ends at `high`, and "
            "the integers are unsigned.",
        ),
        Mistake(_inverse, "That is steps a unit; the scale is units a step, the width of one gap."),
        Mistake(lambda low, high, bits: scale_and_zero_point(low, high, bits)[0], "Where is the zero point?"),
        Mistake(
            lambda low, high, bits: tuple(reversed(scale_and_zero_point(low, high, bits))),
            "The order is scale first, then zero point.",
        ),
    ),
    praise="With these two numbers an integer stands for a real one, and 0 is exact.",
    tolerance=1e-5,
)


# -- quantize and dequantize --------------------------------------------------------------------------------------


def quantize(x: Any, scale: float, zero_point: int, lowest: int, highest: int) -> Any:
    """Move real numbers to the integers of a grid."""
    return np.clip(np.round(x / scale) + zero_point, lowest, highest)


def dequantize(q: Any, scale: float, zero_point: int) -> Any:
    """Give the real numbers that integers stand for."""
    return scale * (q.astype(np.int32) - zero_point)


def _to_quantize(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([-1.0, 0.0, 0.3, 0.74, 1.0]), 0.5, 10, 0, 255)
    yield (np.array([-9.0, 9.0, 100.0]), 0.05, 0, -128, 127)  # beyond both ends
    yield (np.array([0.0]), 0.1, 3, 0, 15)
    yield (np.array([-0.26, 0.26, 0.49]), 0.1, -1, -8, 7)
    for _ in range(8):
        lowest, highest = (0, 255) if rng.integers(2) else (-128, 127)
        zero_point = int(rng.integers(lowest + 20, highest - 20))
        yield (rng.normal(0, 4, 12).round(3), round(float(rng.uniform(0.01, 0.11)), 4), zero_point, lowest, highest)


def _to_dequantize(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([0, 10, 255], np.uint8), 0.5, 10)
    yield (np.array([-128, 0, 127], np.int8), 0.1, 5)
    yield (np.array([-128, 127], np.int8), 0.1, 120)
    for _ in range(6):
        yield (
            rng.integers(-128, 128, 8).astype(np.int8),
            round(float(rng.uniform(0.01, 1)), 4),
            int(rng.integers(5, 99)),
        )


def _wraps(x: Any, scale: float, zero_point: int, lowest: int, highest: int) -> Any:
    levels = highest - lowest + 1
    return (np.round(x / scale) + zero_point - lowest) % levels + lowest


QUANTIZE = Exercise(
    reference=quantize,
    cases=_to_quantize,
    mistakes=(
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.round(x / scale) + zero_point,
            "Nothing is clipped: what lies beyond the grid must go to its end, or it will not fit into the integer.",
        ),
        Mistake(
            _wraps,
            "Values beyond the end come back at the other one: a large weight becomes a large negative one. Clip "
            "first, then change the type.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.trunc(x / scale) + zero_point, lowest, highest),
            "This cuts off towards zero instead of rounding to the nearest: the error doubles, and all values shrink.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.floor(x / scale) + zero_point, lowest, highest),
            "This always rounds down: the error doubles, and all values move the same way.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.round(x / scale) - zero_point, lowest, highest),
            "The zero point is added: the real number 0 becomes the integer `zero_point`.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.round((x - zero_point) / scale), lowest, highest),
            "The zero point is an integer, not a real number: divide by the scale first, then add it.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.round((x + zero_point) / scale), lowest, highest),
            "The zero point is an integer, not a real number: divide by the scale first, then add it.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.round(x * scale) + zero_point, lowest, highest),
            "Divide by the scale: it is the real width of one step.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.round(x / scale), lowest, highest) + zero_point,
            "The clipping comes last: after the zero point is added, values may lie beyond the end again.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(np.round(x / scale), lowest, highest),
            "The zero point is missing: the real number 0 becomes the integer `zero_point`.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(x / scale + zero_point, lowest, highest),
            "These are no integers yet: round.",
        ),
        Mistake(
            lambda x, scale, zero_point, lowest, highest: np.clip(x / scale + zero_point, lowest, highest).astype(int),
            "`astype(int)` cuts off: round first.",
        ),
    ),
    praise="Round, add, clip: in this order, and every converter does the same.",
    tolerance=0.0,
)


def _overflowing(q: Any, scale: float, zero_point: int) -> Any:
    return scale * (q - np.array(zero_point).astype(q.dtype))


DEQUANTIZE = Exercise(
    reference=dequantize,
    cases=_to_dequantize,
    mistakes=(
        Mistake(
            lambda q, scale, zero_point: scale * (q.astype(np.int32) + zero_point),
            "The zero point is taken off: the integer `zero_point` stands for 0.",
        ),
        Mistake(
            lambda q, scale, zero_point: scale * q - zero_point,
            "The zero point is an integer of the grid: take it off before you multiply by the scale.",
        ),
        Mistake(
            lambda q, scale, zero_point: scale * q + zero_point,
            "The zero point is an integer of the grid: take it off before you multiply by the scale.",
        ),
        Mistake(
            lambda q, scale, zero_point: (q.astype(np.int32) - zero_point) / scale,
            "Multiply by the scale: each integer is that far from its neighbour.",
        ),
        Mistake(
            _overflowing,
            "The subtraction runs over: 8 bits cannot hold -128 - 120. Make the integers wider: `q.astype(np.int32)`.",
        ),
        Mistake(lambda q, scale, zero_point: scale * q, "The zero point is missing."),
    ),
    praise="What comes out is not what went in: it is the nearest number on the grid.",
)


# -- how much error -----------------------------------------------------------------------------------------------


def signal_to_noise(x: Any, rounded: Any) -> float:
    """Give the signal-to-noise ratio of rounded numbers, in decibels."""
    return float(10 * np.log10(np.sum(x**2) / np.sum((rounded - x) ** 2)))


def _rounded_pairs(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    yield (np.array([1.0, -1.0]), np.array([2.0, -2.0]))
    for bits in (2, 3, 4, 6, 8):
        x = rng.normal(0.3, 1, 50)
        step = 6 / 2**bits
        yield (x, step * np.round(x / step))


SNR = Exercise(
    reference=signal_to_noise,
    cases=_rounded_pairs,
    mistakes=(
        Mistake(
            lambda x, rounded: 20 * np.log10(np.sum(x**2) / np.sum((rounded - x) ** 2)),
            "20 log10 is for a ratio of amplitudes. Sums of squares are powers: 10 log10.",
        ),
        Mistake(
            lambda x, rounded: 10 * np.log10(np.sqrt(np.sum(x**2) / np.sum((rounded - x) ** 2))),
            "That is a ratio of amplitudes; either leave out the root or use 20 log10.",
        ),
        Mistake(
            lambda x, rounded: np.sum(x**2) / np.sum((rounded - x) ** 2),
            "That is the ratio; in decibels it is 10 log10 of it.",
        ),
        Mistake(
            lambda x, rounded: 10 * np.log10(np.sum((rounded - x) ** 2) / np.sum(x**2)),
            "That is noise to signal: the sign is turned round.",
        ),
        Mistake(
            lambda x, rounded: 10 * np.log(np.sum(x**2) / np.sum((rounded - x) ** 2)),
            "`np.log` is the natural logarithm; decibels use `np.log10`.",
        ),
        Mistake(
            lambda x, rounded: 10 * np.log10(np.sum(np.abs(x)) / np.sum(np.abs(rounded - x))),
            "Squares, not absolute values: power is what adds up.",
        ),
        Mistake(
            lambda x, rounded: 10 * np.log10(np.var(x) / np.var(rounded - x)),
            "`np.var` takes the mean off first; the mean of the error is error, too.",
        ),
        Mistake(
            lambda x, rounded: 10 * np.log10(np.sum(rounded**2) / np.sum((rounded - x) ** 2)),
            "The signal is `x`, the number as it was, not what became of it.",
        ),
    ),
    praise="Twice the levels, half the error, a quarter of its power: 6 dB for each bit.",
)


# -- the worked example, done right -------------------------------------------------------------------------------


def store(weights: Any) -> tuple[Any, float, int]:
    """Give unsigned 8-bit integers, scale and zero point for any weights."""
    scale, zero_point = scale_and_zero_point(float(np.min(weights)), float(np.max(weights)), 8)
    return quantize(np.asarray(weights, np.float64), scale, zero_point, 0, 255), scale, zero_point


def _tutorial(weights: Any) -> tuple[Any, float, int]:
    return np.asarray(weights) * (255 / 2), 2 / 255, 0


def _maximum_only(weights: Any) -> tuple[Any, float, int]:
    scale = float(np.max(np.abs(weights))) / 255
    return np.clip(np.round(np.asarray(weights) / scale), 0, 255), scale, 0


def _least_first(weights: Any) -> tuple[Any, float, int]:
    low, high = float(np.min(weights)), float(np.max(weights))
    scale = (high - low) / 255
    return np.round((np.asarray(weights) - low) / scale), scale, 0


def _stored_symmetric(weights: Any) -> tuple[Any, float, int]:
    scale = float(np.abs(weights).max()) / 127
    return np.clip(np.round(np.asarray(weights) / scale), -127, 127), scale, 0


def _matrices(rng: np.random.Generator) -> Iterator[Case]:
    # No value lies half way between two levels: there the last bit of the scale decides, and no answer is wrong.
    yield (np.array([[1.0, 2.0], [3.0, 4.3]]),)
    yield (np.array([[-1.0, 0.4], [0.3, 2.0]]),)
    yield (np.array([[-4.3, -3.0], [-2.0, -1.0]]),)
    for _ in range(5):
        yield (rng.normal(float(rng.normal()), 1, (3, 4)).round(4),)


STORE = Exercise(
    reference=store,
    cases=_matrices,
    mistakes=(
        Mistake(
            _tutorial,
            "That is the example's own formula: 4 becomes 510, which no byte holds, and 1 becomes 127.5, no integer.",
        ),
        Mistake(
            _maximum_only,
            "This works as long as no weight is negative: those are all clipped to 0. They need a zero point.",
        ),
        Mistake(
            _least_first,
            "The smallest weight is at integer 0, but then the real 0 is at -low / scale. That is the zero point, and "
            "it must be an integer of the grid: widen the range to contain 0, and round.",
        ),
        Mistake(
            _stored_symmetric,
            "That is the symmetric grid of signed integers, -127 to 127. Unsigned ones, 0 to 255, are asked for.",
        ),
        Mistake(
            lambda weights: (store(weights)[0] + 0.3, *store(weights)[1:]),
            "The first value must hold integers: round.",
        ),
        Mistake(
            lambda weights: store(weights)[0],
            "Without scale and zero point nobody can read these integers. Give all three.",
        ),
    ),
    praise="Integers, a scale and a zero point: that is all a `.tflite` file stores of a layer's weights.",
    tolerance=1e-5,
)


# -- very few levels ----------------------------------------------------------------------------------------------


def binary(weights: Any) -> Any:
    """Give the best two-level copy of the weights: one size, two signs."""
    return np.mean(np.abs(weights)) * np.where(np.asarray(weights) >= 0, 1.0, -1.0)


BINARY = Exercise(
    reference=binary,
    cases=lambda rng: (
        (np.array([0.5, -1.5, 1.0, -1.0]),),
        (np.array([0.0, 2.0, -4.0]),),
        *((rng.normal(0.1, 0.4, (4, 5)).round(4),) for _ in range(5)),
    ),
    mistakes=(
        Mistake(
            lambda weights: np.where(np.asarray(weights) >= 0, 1.0, -1.0),
            "The signs are right, but all weights now have size 1. One size fits them best: their mean absolute value.",
        ),
        Mistake(
            lambda weights: np.mean(np.abs(weights)) * np.sign(weights),
            "`np.sign(0)` is 0: that is a third level. Send 0 to the positive one.",
        ),
        Mistake(
            lambda weights: np.max(np.abs(weights)) * np.where(np.asarray(weights) >= 0, 1.0, -1.0),
            "The largest weight decides alone here; the mean absolute value has the smallest squared error.",
        ),
        Mistake(
            lambda weights: np.sqrt(np.mean(np.square(weights))) * np.where(np.asarray(weights) >= 0, 1.0, -1.0),
            "That is the root of the mean square. Set the derivative of sum((|w| - a)²) to zero: the mean of |w|.",
        ),
        Mistake(
            lambda weights: np.mean(weights) * np.where(np.asarray(weights) >= 0, 1.0, -1.0),
            "In the mean of the weights, positive and negative ones cancel. Take the mean of their absolute values.",
        ),
        Mistake(
            lambda weights: np.where(weights >= 0, weights[weights >= 0].mean(), weights[weights < 0].mean()),
            "Those are two sizes, one for each sign. One `a` for both is asked for: the mean absolute value of all.",
        ),
        Mistake(
            lambda weights: np.median(np.abs(weights)) * np.where(np.asarray(weights) >= 0, 1.0, -1.0),
            "The median has the smallest absolute error; for the squared error it is the mean.",
        ),
    ),
    praise="One bit a weight, and one number for all of them: that is XNOR-Net's formula.",
)

BUG = Exercise(
    reference="c",
    mistakes=(
        Mistake(
            "a", "Rounding halves to even or away from zero changes the last unit at most; 510 is wrong by hundreds."
        ),
        Mistake("b", "Both ways of writing are right, as long as the zero point belongs to the one that is used."),
        Mistake("d", "The matrix is small, but the formula would fail on a large one in the same way."),
    ),
    praise="255 / 2 maps 2 to 255. Whatever is above 2 runs over; the range of *these* weights ends at 4.",
)

EXERCISES = {
    "scale_and_zero_point": SCALE,
    "quantize": QUANTIZE,
    "dequantize": DEQUANTIZE,
    "signal_to_noise": SNR,
    "bug": BUG,
    "store": STORE,
    "binary": BINARY,
}
