"""Exercises of lesson 06: rounding with a gradient, weights in two copies, ranges that follow the training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compresskit.course.checks import Case, Exercise, Mistake

# -- fake quantization ----------------------------------------------------------------------------------------------


def fake_quantize(w: Any, bits: int) -> Any:
    """Put weights on the symmetric grid that reaches to the largest, and give them back as real numbers."""
    scale = np.abs(w).max() / (2 ** (bits - 1) - 1)
    return scale * np.round(w / scale)


def _weights(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([-1.0, -0.4, 0.0, 0.3, 0.9]), 2)
    yield (np.array([0.1, 0.9, -2.0]), 3)
    for _ in range(8):
        yield (rng.normal(0, 0.3, (3, 4)).round(3), int(rng.integers(2, 9)))


FAKE_QUANTIZE = Exercise(
    reference=fake_quantize,
    cases=_weights,
    mistakes=(
        Mistake(
            lambda w, bits: np.round(w / (np.abs(w).max() / (2 ** (bits - 1) - 1))),
            "Those are the integers. *Fake* quantization gives real numbers: multiply by the scale again.",
        ),
        Mistake(
            lambda w, bits: np.abs(w).max() / (2**bits - 1) * np.round(w / (np.abs(w).max() / (2**bits - 1))),
            "The grid goes to both sides of zero: 2^(bits-1) - 1 steps reach from 0 to the largest weight.",
        ),
        Mistake(
            lambda w, bits: np.abs(w).max() / 2 ** (bits - 1) * np.round(w / (np.abs(w).max() / 2 ** (bits - 1))),
            "With 2^(bits-1) steps the largest positive weight would not fit into the integer: it is one step less.",
        ),
        Mistake(
            lambda w, bits: w.max() / (2 ** (bits - 1) - 1) * np.round(w / (w.max() / (2 ** (bits - 1) - 1))),
            "The largest *absolute* value sets the scale; it may belong to a negative weight.",
        ),
        Mistake(
            lambda w, bits: np.abs(w).max() / (2 ** (bits - 1) - 1) * np.trunc(
                w / (np.abs(w).max() / (2 ** (bits - 1) - 1))
            ),
            "This cuts off towards zero; round to the nearest.",
        ),
    ),
    praise="With 2 bits three values are left: the largest weight, its negative, and zero.",
)  # fmt: skip

# -- the gradient of what is clipped and rounded ---------------------------------------------------------------------


def straight_through(gradient: Any, x: Any, low: float, high: float) -> Any:
    """Pass the gradient where x lies inside the range, ends included; give 0 outside."""
    return np.where((x >= low) & (x <= high), gradient, 0.0)


def _flows(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([1.0, 2.0, 3.0, 4.0]), np.array([-2.0, 0.0, 0.5, 9.0]), -1.0, 1.0)
    yield (np.array([1.0, -2.0]), np.array([-1.0, 1.0]), -1.0, 1.0)
    for _ in range(6):
        yield (rng.normal(0, 1, 6).round(3), rng.normal(0, 2, 6).round(3), -1.5, round(float(rng.uniform(0.5, 3)), 3))


STRAIGHT_THROUGH = Exercise(
    reference=straight_through,
    cases=_flows,
    mistakes=(
        Mistake(
            lambda gradient, x, low, high: gradient,
            "What lies outside the range is clipped: moving it a little changes nothing, so its gradient is 0.",
        ),
        Mistake(
            lambda gradient, x, low, high: np.zeros_like(gradient),
            "That is the true gradient of rounding, and with it nothing is ever learned. Inside the range let it pass.",
        ),
        Mistake(
            lambda gradient, x, low, high: np.clip(gradient, low, high),
            "It is `x` that has to lie inside the range, not the gradient.",
        ),
        Mistake(
            lambda gradient, x, low, high: np.where((x >= low) & (x <= high), 0.0, gradient),
            "It is the other way round: inside it passes, outside it is 0.",
        ),
        Mistake(
            lambda gradient, x, low, high: np.where((x > low) & (x < high), gradient, 0.0),
            "The ends belong to the range: what lies on them is not clipped.",
        ),
        Mistake(
            lambda gradient, x, low, high: np.where((x >= low) & (x <= high), gradient * x, 0.0),
            "The gradient passes as it is; it is not multiplied by `x`.",
        ),
    ),
    praise="This is all that `fake_quant_with_min_max_vars` does on the way back.",
    tolerance=0.0,
)

# -- one step of training ----------------------------------------------------------------------------------------------


def training_step(w: Any, x: Any, target: float, rate: float, bits: int) -> Any:
    """Move the exact weights of y = x . fake_quantize(w) once against the gradient of (y - target)^2."""
    y = x @ fake_quantize(w, bits)
    return w - rate * 2 * (y - target) * x


def _steps(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([1.0, -0.4, 0.2]), np.array([1.0, 2.0, 0.0]), 1.0, 0.1, 2)
    for _ in range(7):
        w, x = rng.normal(0, 0.5, 5).round(3), rng.normal(0, 1, 5).round(3)
        yield (
            w,
            x,
            round(float(rng.normal(0, 2)), 3),
            round(float(rng.uniform(0.01, 0.1)), 3),
            int(rng.integers(2, 5)),
        )


TRAINING_STEP = Exercise(
    reference=training_step,
    cases=_steps,
    mistakes=(
        Mistake(
            lambda w, x, target, rate, bits: (
                fake_quantize(w, bits) - rate * 2 * (x @ fake_quantize(w, bits) - target) * x
            ),
            "The step starts from the rounded weights: what a small step adds is rounded away before the next one. "
            "Move the exact weights `w`, which remember it.",
        ),
        Mistake(
            lambda w, x, target, rate, bits: w - rate * 2 * (x @ w - target) * x,
            "The output is computed with the exact weights, so the training does not notice the rounding at all.",
        ),
        Mistake(
            lambda w, x, target, rate, bits: fake_quantize(
                w - rate * 2 * (x @ fake_quantize(w, bits) - target) * x, bits
            ),
            "The result is rounded. Keep the exact weights; they are rounded afresh in the next forward pass.",
        ),
        Mistake(
            lambda w, x, target, rate, bits: w + rate * 2 * (x @ fake_quantize(w, bits) - target) * x,
            "This climbs: go *against* the gradient.",
        ),
        Mistake(
            lambda w, x, target, rate, bits: w - rate * (x @ fake_quantize(w, bits) - target) * x,
            "The derivative of a square has a factor of 2.",
        ),
    ),
    praise="Two copies of every weight: an exact one that learns, and a rounded one that computes.",
)

# -- ranges that follow ------------------------------------------------------------------------------------------------


def moving_range(low: float, high: float, batch: Any, momentum: float) -> tuple[float, float]:
    """Move a range towards the extremes of a batch; zero is always inside."""
    least, most = min(float(np.min(batch)), 0.0), max(float(np.max(batch)), 0.0)
    return momentum * low + (1 - momentum) * least, momentum * high + (1 - momentum) * most


def _batches(rng: np.random.Generator) -> Iterator[Case]:
    yield (-1.0, 1.0, np.array([-3.0, 0.5, 5.0]), 0.9)
    yield (0.0, 6.0, np.array([1.0, 2.0]), 0.5)  # zero stays inside
    for _ in range(6):
        low, high = -round(float(rng.uniform(0, 2)), 2), round(float(rng.uniform(0, 4)), 2)
        yield (low, high, rng.normal(1, 2, 8).round(3), round(float(rng.uniform(0.5, 0.99)), 2))


MOVING_RANGE = Exercise(
    reference=moving_range,
    cases=_batches,
    mistakes=(
        Mistake(
            lambda low, high, batch, momentum: (
                momentum * low + (1 - momentum) * float(np.min(batch)),
                momentum * high + (1 - momentum) * float(np.max(batch)),
            ),
            "For a batch that is all positive the range would lose zero: take min(batch, 0) and max(batch, 0).",
        ),
        Mistake(
            lambda low, high, batch, momentum: moving_range(low, high, batch, 1 - momentum),
            "The momentum is the share of the *old* range.",
        ),
        Mistake(
            lambda low, high, batch, momentum: (min(low, float(np.min(batch))), max(high, float(np.max(batch)))),
            "That range only ever grows: one outlier, and it stays wide for good. Mix old and new.",
        ),
        Mistake(
            lambda low, high, batch, momentum: moving_range(low, high, batch, 0.0),
            "The old range is forgotten; mix it with the new one.",
        ),
    ),
    praise="After n steps the share of the first range is momentum^n: look at that before a short training.",
)

WHY = Exercise(
    reference="b",
    mistakes=(
        Mistake("a", "The gradient of rounding is 0 almost everywhere; it is replaced, or nothing could be learned."),
        Mistake("c", "More bits are not stored in the file: the exact copy is thrown away when training is over."),
        Mistake(
            "d", "The control was trained for as long, and rounding hurts it as before: it is not the training alone."
        ),
    ),
    praise="The network finds weights that still read digits *after* they are rounded.",
)

EXERCISES = {
    "fake_quantize": FAKE_QUANTIZE,
    "straight_through": STRAIGHT_THROUGH,
    "training_step": TRAINING_STEP,
    "moving_range": MOVING_RANGE,
    "why": WHY,
}
