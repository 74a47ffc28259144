"""Exercises of lesson 03: two errors, the range between them, channels that share a scale, biases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compresskit.course.checks import Case, Exercise, Mistake

# -- clipping and rounding ----------------------------------------------------------------------------------------


def _on_grid(x: Any, high: float, bits: int) -> Any:
    step = high / (2**bits - 1)
    return step * np.round(np.minimum(x, high) / step)


def two_errors(x: Any, high: float, bits: int) -> tuple[float, float]:
    """Give the mean squared error by rounding and by clipping, on the grid from 0 to high."""
    squares = np.square(_on_grid(x, high, bits) - x)
    return float(squares[x <= high].sum() / x.size), float(squares[x > high].sum() / x.size)


def _values(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([0.0, 0.4, 1.1, 1.9, 5.0]), 2.0, 2)
    yield (np.array([0.0, 0.2, 0.9]), 4.0, 3)  # nothing is clipped
    yield (np.array([3.0, 4.0, 9.0]), 1.0, 2)  # everything is
    for _ in range(6):
        x = np.maximum(rng.normal(0, 1.5, 40), 0).round(3)
        yield (x, round(float(rng.uniform(0.5, 3)), 2), int(rng.integers(2, 9)))


def _not_clipped(x: Any, high: float, bits: int) -> tuple[float, float]:
    step = high / (2**bits - 1)
    squares = np.square(step * np.round(x / step) - x)
    return float(squares[x <= high].sum() / x.size), float(squares[x > high].sum() / x.size)


def _own_means(x: Any, high: float, bits: int) -> tuple[float, float]:
    squares = np.square(_on_grid(x, high, bits) - x)
    inside, outside = squares[x <= high], squares[x > high]
    return float(inside.sum() / max(inside.size, 1)), float(outside.sum() / max(outside.size, 1))


def _levels_for_gaps(x: Any, high: float, bits: int) -> tuple[float, float]:
    step = high / 2**bits
    squares = np.square(step * np.round(np.minimum(x, high) / step) - x)
    return float(squares[x <= high].sum() / x.size), float(squares[x > high].sum() / x.size)


def _absolute(x: Any, high: float, bits: int) -> tuple[float, float]:
    errors = np.abs(_on_grid(x, high, bits) - x)
    return float(errors[x <= high].sum() / x.size), float(errors[x > high].sum() / x.size)


def _roots(x: Any, high: float, bits: int) -> tuple[float, float]:
    rounding, clipping = two_errors(x, high, bits)
    return float(np.sqrt(rounding)), float(np.sqrt(clipping))


def _sums(x: Any, high: float, bits: int) -> tuple[float, float]:
    rounding, clipping = two_errors(x, high, bits)
    return rounding * x.size, clipping * x.size


def _law(x: Any, high: float, bits: int) -> tuple[float, float]:
    step = high / (2**bits - 1)
    return step**2 / 12 * float(np.mean(x <= high)), two_errors(x, high, bits)[1]


TWO_ERRORS = Exercise(
    reference=two_errors,
    cases=_values,
    mistakes=(
        Mistake(
            _not_clipped,
            "Nothing is clipped: values above `high` are rounded to levels that the grid does not have. "
            "`np.minimum(x, high)` first.",
        ),
        Mistake(
            _own_means,
            "Each part is divided by its own number of values. Divide both by `x.size`, or their sum is not the mean "
            "squared error.",
        ),
        Mistake(
            lambda x, high, bits: tuple(reversed(two_errors(x, high, bits))),
            "The order is turned round: rounding first, then clipping.",
        ),
        Mistake(_levels_for_gaps, "2^bits levels have one gap less between them: step = high / (2**bits - 1)."),
        Mistake(_absolute, "Squares are wanted, not absolute values."),
        Mistake(_roots, "No roots here: squares add up, roots of them do not."),
        Mistake(_sums, "These are sums; divide by the number of values, `x.size`."),
        Mistake(
            _law,
            "S²/12 is the average over all possible values; these values are known, so round them and look.",
        ),
        Mistake(
            lambda x, high, bits: sum(two_errors(x, high, bits)),
            "That is the whole error. Give two numbers: what lies up to `high`, and what lies above.",
        ),
    ),
    praise="One falls with the range, the other rises: somewhere between, their sum is smallest.",
)


# -- the best range -----------------------------------------------------------------------------------------------


def best_reach(x: Any, bits: int, candidates: Any) -> float:
    """Give the candidate with the smallest mean squared error."""
    return float(min(candidates, key=lambda high: sum(two_errors(np.asarray(x), high, bits))))


def _searches(rng: np.random.Generator) -> Iterator[Case]:
    for bits in (2, 3, 4, 4, 6, 8):
        x = np.maximum(rng.standard_t(4, 400), 0).round(3)
        largest = float(x.max())
        yield (x, bits, [round(float(part) * largest, 3) for part in (*np.linspace(0.1, 1, 10), 8)])


BEST_REACH = Exercise(
    reference=best_reach,
    cases=_searches,
    mistakes=(
        Mistake(
            lambda x, bits, candidates: max(candidates),
            "That is always the widest range: minmax. With few bits its steps are too coarse; measure the error of "
            "each candidate.",
        ),
        Mistake(
            lambda x, bits, candidates: max(candidates, key=lambda high: sum(two_errors(x, high, bits))),
            "That is the candidate with the largest error: `min`, not `max`.",
        ),
        Mistake(
            lambda x, bits, candidates: min(candidates, key=lambda high: two_errors(x, high, bits)[0]),
            "Only rounding is counted, so the narrowest range wins. Add what clipping costs.",
        ),
        Mistake(
            lambda x, bits, candidates: min(candidates, key=lambda high: two_errors(x, high, bits)[1]),
            "Only clipping is counted, so a range wins that clips nothing. Add what rounding costs.",
        ),
        Mistake(
            lambda x, bits, candidates: min(
                candidates, key=lambda high: float(np.abs(_on_grid(x, high, bits) - x).mean())
            ),
            "This takes absolute errors. The mean *squared* error is asked for, in which a large error weighs more.",
        ),
        Mistake(
            lambda x, bits, candidates: min(sum(two_errors(x, high, bits)) for high in candidates),
            "That is the smallest error; the candidate that has it is asked for. `min` takes a `key`.",
        ),
        Mistake(
            lambda x, bits, candidates: int(np.argmin([sum(two_errors(x, high, bits)) for high in candidates])),
            "That is the place of the best candidate in the list; give the candidate itself.",
        ),
    ),
    praise="That is the calibrator called mse. The course's own works on a histogram, and so needs no value twice.",
)


# -- percentile ---------------------------------------------------------------------------------------------------


def percentile_range(x: Any, percent: float) -> tuple[float, float]:
    """Give the range that leaves the same share of values out at both ends."""
    return float(np.percentile(x, 100 - percent)), float(np.percentile(x, percent))


PERCENTILE = Exercise(
    reference=percentile_range,
    cases=lambda rng: (
        (np.arange(101.0), 90),
        (np.array([-5.0, 0.0, 1.0, 2.0, 50.0]), 75),
        *((rng.normal(0.5, 2, 300).round(3), percent) for percent in (99, 99.9, 95.0)),
    ),
    mistakes=(
        Mistake(
            lambda x, percent: (np.percentile(x, 1 - percent / 100), np.percentile(x, percent / 100)),
            "`np.percentile` counts in per cent, from 0 to 100; `np.quantile` is the one that goes from 0 to 1.",
        ),
        Mistake(
            lambda x, percent: (np.min(x), np.percentile(x, percent)),
            "The lower end is the minimum: an outlier below zero would still set it. Leave out as many there.",
        ),
        Mistake(
            lambda x, percent: (np.percentile(x, (100 - percent) / 2), np.percentile(x, 100 - (100 - percent) / 2)),
            "Each end leaves out half of the rest here. `percent` per cent are to lie below `high`, whatever lies "
            "below `low`.",
        ),
        Mistake(
            lambda x, percent: (np.min(x) * percent / 100, np.max(x) * percent / 100),
            "That is a part of the largest *value*, and one outlier sets it. A percentile counts values: sort them, "
            "and see which one stands there.",
        ),
        Mistake(
            lambda x, percent: (np.percentile(x, percent), np.percentile(x, 100 - percent)),
            "The order is low first, then high.",
        ),
        Mistake(lambda x, percent: np.percentile(x, percent), "That is `high`. Where is `low`?"),
    ),
    praise="It counts values and does not look how far out they lie: that is why it bears an outlier.",
)


# -- channels -----------------------------------------------------------------------------------------------------

REASON = Exercise(
    reference="b",
    mistakes=(
        Mistake(
            "a",
            "Eight bits are enough for each channel by itself: with a scale of its own its size does not matter, for a "
            "scale is a float. Ask what has no scale of its own.",
        ),
        Mistake(
            "c",
            "The columns of int8 weights need no calibration at all, and the wild network loses digits there, too.",
        ),
        Mistake("d", "They are exact: the cell above has compared the outputs of the float files, to the last bit."),
    ),
    praise="So a scale for each channel is half a remedy; the other half is a network whose channels are of one size.",
)


def equalizing_factors(r1: Any, r2: Any) -> Any:
    """Give the factors that make both sides reach equally far."""
    return np.sqrt(np.asarray(r1) / np.asarray(r2))


def _reaches(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([4.0, 1.0, 0.5]), np.array([1.0, 1.0, 2.0]))
    for _ in range(5):
        yield (10.0 ** rng.uniform(-2, 2, 6).round(2), 10.0 ** rng.uniform(-2, 2, 6).round(2))


EQUALIZING = Exercise(
    reference=equalizing_factors,
    cases=_reaches,
    mistakes=(
        Mistake(lambda r1, r2: r1 / r2, "With this s, r1 / s is r2, but r2 * s is r1: they have changed places. "
                "Set r1 / s = r2 * s and solve for s."),
        Mistake(lambda r1, r2: np.sqrt(r2 / r1), "That is the inverse: the differences double instead of going away."),
        Mistake(lambda r1, r2: r2 / r1, "That is the inverse, and the root is missing: r1 / s = r2 * s, so s² = ?"),
        Mistake(lambda r1, r2: np.sqrt(r1 * r2),
                "That is how far both reach afterwards, not the factor; divide by r2."),
        Mistake(
            lambda r1, r2: np.full(len(r1), np.sqrt(np.max(r1) / np.max(r2))),
            "One factor for all channels moves both layers as a whole, and their channels differ as before.",
        ),
        Mistake(lambda r1, r2: r1, "Then the first layer is even, and the second has all the differences."),
        Mistake(lambda r1, r2: 1 / r2, "Then the second layer is even, and the first has all the differences."),
    ),
    praise="Both sides then reach to sqrt(r1 r2), halfway between on a logarithmic scale.",
)  # fmt: skip


# -- biases -------------------------------------------------------------------------------------------------------


def corrected_bias(bias: Any, weights: Any, rounded: Any, inputs: Any) -> Any:
    """Give the bias with which the rounded layer is right on average."""
    return bias - (rounded - weights) @ inputs.mean(axis=0)


def _layers(rng: np.random.Generator) -> Iterator[Case]:
    for out, into in ((2, 3), (4, 6), (3, 5), (5, 5)):
        weights = rng.normal(0, 1, (out, into)).round(2)
        inputs = np.maximum(rng.normal(0.3, 1, (8, into)), 0).round(2)
        yield (rng.normal(0, 1, out).round(2), weights, np.round(weights * 2) / 2, inputs)


CORRECTED_BIAS = Exercise(
    reference=corrected_bias,
    cases=_layers,
    mistakes=(
        Mistake(
            lambda bias, weights, rounded, inputs: bias + (rounded - weights) @ inputs.mean(axis=0),
            "The sign: this adds the error a second time.",
        ),
        Mistake(
            lambda bias, weights, rounded, inputs: bias - (rounded - weights).sum(axis=1),
            "The error of a weight counts as much as what flows through it: multiply by the mean of each input.",
        ),
        Mistake(
            lambda bias, weights, rounded, inputs: bias - (rounded - weights) @ inputs.sum(axis=0),
            "That is the sum over the examples; take their mean.",
        ),
        Mistake(
            lambda bias, weights, rounded, inputs: bias - (rounded - weights).sum(axis=1) * inputs.mean(),
            "Each input has a mean of its own: `inputs.mean(axis=0)`.",
        ),
        Mistake(
            lambda bias, weights, rounded, inputs: -(rounded - weights) @ inputs.mean(axis=0),
            "That is the correction; the bias itself is to stay in it.",
        ),
        Mistake(
            lambda bias, weights, rounded, inputs: bias - rounded @ inputs.mean(axis=0),
            "That takes off all that the layer puts out. Only the error of the weights is too much: rounded - weights.",
        ),
        Mistake(
            lambda bias, weights, rounded, inputs: bias - (rounded - weights) @ inputs[0],
            "That is right for the first example alone. Take the mean over all of them.",
        ),
    ),
    praise="On average the rounded layer now puts out what the float layer does.",
)

EXERCISES = {
    "two_errors": TWO_ERRORS,
    "best_reach": BEST_REACH,
    "percentile_range": PERCENTILE,
    "reason": REASON,
    "equalizing_factors": EQUALIZING,
    "corrected_bias": CORRECTED_BIAS,
}
