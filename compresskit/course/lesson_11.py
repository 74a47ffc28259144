"""Exercises of lesson 11: softened answers, the loss of a student, and which temperature to take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compresskit.course.checks import Case, Exercise, Mistake

# -- softmax at a temperature ------------------------------------------------------------------------------------------


def soften(logits: Any, temperature: float) -> Any:
    """Turn logits (n, K) into probabilities, softened by a temperature."""
    z = np.asarray(logits, np.float64) / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _plain_softmax(logits: Any) -> Any:
    return soften(logits, 1.0)


def _logits(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([[4.0, 2.0, 0.0]]), 2.0)
    yield (np.array([[4.0, 2.0, 0.0], [-1.0, 0.5, 3.0]]), 1.0)
    yield (np.array([[4000.0, 3998.0, 3990.0]]), 4.0)  # exp(1000) is no number any more
    for _ in range(6):
        yield (rng.normal(0, 5, (3, 4)).round(2), round(float(rng.uniform(0.5, 20)), 2))


def _overflowing(logits: Any, temperature: float) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(np.asarray(logits) / temperature)
        return e / e.sum(axis=-1, keepdims=True)


SOFTEN = Exercise(
    reference=soften,
    cases=_logits,
    mistakes=(
        Mistake(lambda logits, temperature: _plain_softmax(logits), "The temperature is not used: divide by it first."),
        Mistake(
            lambda logits, temperature: _plain_softmax(np.asarray(logits) * temperature),
            "That sharpens: the logits are *divided* by the temperature.",
        ),
        Mistake(
            lambda logits, temperature: _plain_softmax(logits) ** (1 / temperature),
            "The idea is right, p^(1/T), but its rows do not add up to 1 any more: divide by their sum.",
        ),
        Mistake(
            lambda logits, temperature: _plain_softmax(logits) / temperature,
            "The *logits* are divided by the temperature, before the exponential, not the probabilities after it.",
        ),
        Mistake(
            lambda logits, temperature: (
                np.exp(np.asarray(logits) / temperature - np.max(logits) / temperature)
                / np.exp(np.asarray(logits) / temperature - np.max(logits) / temperature).sum()
            ),
            "Each row has to add up to 1, not the whole matrix: sum along the last axis, with keepdims=True.",
        ),
        Mistake(
            _overflowing,
            "For logits of 1,000 the exponential is infinite, and infinity divided by infinity is no number: take the "
            "largest logit of the row away first. It cancels.",
        ),
    ),
    praise="The order of the classes stays at any temperature; how far apart they are does not.",
)

# -- the loss ----------------------------------------------------------------------------------------------------------


def student_loss(teacher: Any, student: Any, labels: Any, temperature: float, alpha: float) -> float:
    """Mix T² KL(teacher || student), both softened, with the cross-entropy with the labels at temperature 1."""
    p, q = soften(teacher, temperature), soften(student, temperature)
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    labelled = -np.log(soften(student, 1.0)[np.arange(len(labels)), labels]).mean()
    return float(alpha * temperature**2 * divergence + (1 - alpha) * labelled)


def _parts(teacher: Any, student: Any, labels: Any, hot: float, hard: float = 1.0) -> tuple[float, float]:
    p, q = soften(teacher, hot), soften(student, hot)
    divergence = float((p * np.log(p / q)).sum(axis=1).mean())
    return divergence, float(-np.log(soften(student, hard)[np.arange(len(labels)), labels]).mean())


def _lessons(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([[4.0, 1.0, 0.0]]), np.array([[1.0, 1.0, 1.0]]), np.array([0]), 2.0, 0.5)
    for _ in range(7):
        n = int(rng.integers(2, 5))
        yield (
            rng.normal(0, 3, (n, 4)).round(2),
            rng.normal(0, 2, (n, 4)).round(2),
            rng.integers(0, 4, n),
            round(float(rng.uniform(1.5, 8)), 1),
            round(float(rng.uniform(0.1, 0.95)), 2),
        )


def _without_square(v: Any, z: Any, y: Any, t: float, a: float) -> float:
    soft, hard = _parts(v, z, y, t)
    return a * soft + (1 - a) * hard


def _once(v: Any, z: Any, y: Any, t: float, a: float) -> float:
    soft, hard = _parts(v, z, y, t)
    return a * t * soft + (1 - a) * hard


def _swapped_weights(v: Any, z: Any, y: Any, t: float, a: float) -> float:
    soft, hard = _parts(v, z, y, t)
    return (1 - a) * t**2 * soft + a * hard


def _hot_labels(v: Any, z: Any, y: Any, t: float, a: float) -> float:
    soft, hard = _parts(v, z, y, t, hard=t)
    return a * t**2 * soft + (1 - a) * hard


def _reversed(v: Any, z: Any, y: Any, t: float, a: float) -> float:
    _, hard = _parts(v, z, y, t)
    return a * t**2 * _parts(z, v, y, t)[0] + (1 - a) * hard


def _squared_everything(v: Any, z: Any, y: Any, t: float, a: float) -> float:
    soft, hard = _parts(v, z, y, t)
    return t**2 * (a * soft + (1 - a) * hard)


def _summed(v: Any, z: Any, y: Any, t: float, a: float) -> float:
    return student_loss(v, z, y, t, a) * len(y)


STUDENT_LOSS = Exercise(
    reference=student_loss,
    cases=_lessons,
    mistakes=(
        Mistake(
            _without_square,
            "The factor T² is missing from the teacher's part: without it the gradient fades as 1/T², and at T = 8 the "
            "teacher is hardly heard.",
        ),
        Mistake(_once, "The factor is T squared: one T comes from each softmax, the teacher's and the student's."),
        Mistake(_swapped_weights, "`alpha` weighs the teacher, 1 - `alpha` the labels."),
        Mistake(
            _hot_labels,
            "The labels' part is at temperature 1: labels are not softened, and it is at 1 that the student answers.",
        ),
        Mistake(
            _reversed,
            "It is KL(teacher || student): the mean is taken with the teacher's probabilities, Σ p log(p / q).",
        ),
        Mistake(_squared_everything, "T² belongs to the teacher's part only."),
        Mistake(_summed, "Take the mean over the samples: a sum grows with the batch, and so would the step."),
    ),
    praise="At alpha = 0 this is plain training, at alpha = 1 no label is looked at.",
)

# -- the half-sum ------------------------------------------------------------------------------------------------------

HALF_SUM = Exercise(
    reference=0.05,
    mistakes=(
        Mistake(
            0.15,
            "That is the number that circulates. Work it out: (0.2² + 0.2² + 0.1² + 0.1²) / 2 = (0.04 + 0.04 + 0.01 + "
            "0.01) / 2.",
        ),
        Mistake(0.1, "That is the sum of the squares; half of it is asked for."),
        Mistake(0.025, "That is the mean over the four numbers; the tutorials print half the *sum*."),
        Mistake(0.3, "Those are the differences added up; they have to be squared first."),
    ),
    praise="And it doubles when the batch doubles: a mean would not.",
    tolerance=1e-6,
)

# -- choosing a temperature --------------------------------------------------------------------------------------------

Curve = Mapping[float, Sequence[float]]


def choose_temperature(validation: Curve) -> float:
    """Give the temperature with the best mean over the seeds; of equal ones the lowest."""
    return min(validation, key=lambda temperature: (-float(np.mean(validation[temperature])), temperature))


def _curves(rng: np.random.Generator) -> Iterator[Case]:
    # One lucky seed at 20, an unlucky one at 8, and the best mean at 4.
    yield ({1.0: [0.90, 0.91, 0.90], 4.0: [0.93, 0.94, 0.93], 8.0: [0.94, 0.94, 0.90], 20.0: [0.95, 0.89, 0.90]},)
    yield ({2.0: [0.93, 0.93], 8.0: [0.97, 0.92], 1.0: [0.90, 0.91]},)
    yield ({8.0: [0.95, 0.96], 2.0: [0.96, 0.95], 4.0: [0.94, 0.94]},)
    for _ in range(6):
        temperatures = (20.0, 1.0, 8.0, 2.0, 4.0)
        yield ({each: (0.9 + 0.05 * rng.random(3)).round(4).tolist() for each in temperatures},)


CHOOSE_TEMPERATURE = Exercise(
    reference=choose_temperature,
    cases=_curves,
    mistakes=(
        Mistake(
            lambda validation: min(validation, key=lambda t: (-max(validation[t]), t)),
            "That takes the luckiest single run. With several seeds a temperature is as good as their mean.",
        ),
        Mistake(
            lambda validation: max(np.mean(each) for each in validation.values()),
            "That is the best accuracy; the *temperature* at which it was reached is asked for.",
        ),
        Mistake(
            lambda validation: min(validation, key=lambda t: (float(np.mean(validation[t])), t)),
            "That is the worst one: these are accuracies, not losses.",
        ),
        Mistake(lambda validation: next(iter(validation)), "That is the first temperature of the table, not the best."),
        Mistake(
            lambda validation: min(validation, key=lambda t: (-min(validation[t]), t)),
            "That takes the temperature with the best *worst* run. It is careful, but the mean is asked for.",
        ),
        Mistake(
            lambda validation: max(validation, key=lambda t: (float(np.mean(validation[t])), t)),
            "Where two are equally good, take the lower temperature.",
        ),
    ),
    praise="Chosen on the validation digits; the test digits are looked at once, afterwards.",
    tolerance=0.0,
)

# -- a student that beats its teacher ----------------------------------------------------------------------------------

WHY = Exercise(
    reference="c",
    mistakes=(
        Mistake("a", "A student never sees the test digits; if it did, its accuracy would mean nothing."),
        Mistake("b", "A temperature does not change which class is largest, neither for the teacher nor the student."),
        Mistake(
            "d",
            "Fewer weights alone do not read better: the same student without the teacher is the control, and it reads "
            "worse.",
        ),
    ),
    praise="Soft labels say how sure one can be: noise in the labels and the teacher's overconfidence weigh less.",
)

EXERCISES = {
    "soften": SOFTEN,
    "student_loss": STUDENT_LOSS,
    "half_sum": HALF_SUM,
    "choose_temperature": CHOOSE_TEMPERATURE,
    "why": WHY,
}
