"""With a teacher and without: the same student, the same digits in the same order, the same seeds, several of them.

One run with a teacher beside one run without proves little: two runs that differ in nothing but their seed differ too.
So runs are made in pairs. Both of a pair start from the same weights and see the same digits, moved alike, in the same
order; only ``alpha`` differs. What the teacher brought is the mean difference over the pairs, and it counts as
something only where its 95 % interval (Student 1908, *The probable error of a mean*) leaves zero out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from compresskit.data import Digits
from compresskit.evaluation import evaluate

Verdict = Literal["better", "worse", "inside the noise"]


@dataclass(frozen=True)
class Gain:
    """A mean difference of pairs.

    Attributes
    ----------
    mean : float
        With less without, in the unit of the figures.
    low, high : float
        Ends of the 95 % interval; infinite for a single pair, which tells nothing of the spread.
    """

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether the gain is above zero, below it, or not to be told from it."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "inside the noise"


@dataclass(frozen=True)
class Comparison:
    """What a teacher brought.

    Attributes
    ----------
    student : str
        Name of the student.
    seeds : tuple of int
        Of the runs, a pair for each.
    with_teacher, without : tuple of float
        Accuracies of the students' float files on the test digits, in the order of the seeds.
    digits : int
        How many test digits were read.
    """

    student: str
    seeds: tuple[int, ...]
    with_teacher: tuple[float, ...]
    without: tuple[float, ...]
    digits: int

    @property
    def gain(self) -> Gain:
        """What the teacher brought, in accuracy."""
        return paired_gain(self.with_teacher, self.without)

    def __str__(self) -> str:
        gain = self.gain
        points = f"{100 * gain.mean:+.2f} points (95 % interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
        told = {
            "better": "better with the teacher",
            "worse": "worse with the teacher",
            "inside the noise": "a difference inside the noise",
        }[gain.verdict]
        return (
            f"{self.student}, {len(self.seeds)} seeds, {self.digits:,} digits: {_range(self.with_teacher)} with, "
            f"{_range(self.without)} without; {points}: {told}"
        )


def paired_gain(with_teacher: Sequence[float], without: Sequence[float]) -> Gain:
    """Compute the mean difference of pairs and its 95 % interval: ``mean ± t s / sqrt(n)``.

    ``s`` is the standard deviation of the differences, ``t`` the 97.5 % quantile of Student's distribution with n - 1
    degrees of freedom: 4.3 for three pairs, 2.8 for five.

    Parameters
    ----------
    with_teacher, without : sequence of float
        One figure for each seed, in the same order.

    Returns
    -------
    Gain

    Raises
    ------
    ValueError
        If there are none, or not as many of one as of the other.
    """
    if len(with_teacher) != len(without) or not len(with_teacher):
        raise ValueError(
            f"with_teacher has {len(with_teacher)} figures, without has {len(without)}: give one of each for each seed"
        )
    from scipy import stats

    difference = np.asarray(with_teacher, np.float64) - np.asarray(without, np.float64)
    mean, n = float(difference.mean()), len(difference)
    if n == 1:
        return Gain(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n))
    return Gain(mean, mean - half, mean + half)


def compare(
    teacher: Any,
    student: str,
    digits: Digits,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    alpha: float = 0.9,
    on_run: Callable[[int, bool, float], None] | None = None,
    cancel: threading.Event | None = None,
    **settings: Any,
) -> Comparison:
    """Train a student with and without its teacher, a pair for each seed.

    Parameters
    ----------
    teacher : Checkpoint, Compressed, or a sequence of them
        As :func:`compresskit.training.distill.distill` takes it.
    student : str
        Name of an architecture, which each seed builds anew.
    digits : Digits
        Trained on ``train``, read from ``test``.
    seeds : sequence of int, default (0, 1, 2)
        At least two.
    alpha : float, default 0.9
        Weight of the teacher in the runs with it.
    on_run : callable, optional
        Called after each run with its seed, whether the teacher was there, and the accuracy.
    cancel : threading.Event, optional
        Set it, and only the pairs finished by then are compared.
    **settings
        For all runs alike, as ``distill`` takes them: temperature, loss, epochs, learning_rate, augment and so on.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        As ``distill`` does, if there are fewer than two seeds or one comes twice, if ``alpha`` is 0, or if the run was
        cancelled before the first pair was complete.
    """
    from compresskit.training.distill import distill

    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise ValueError(f"seeds is {tuple(seeds)!r}: give two or more, each once; one run says nothing of the spread")
    if alpha == 0:
        raise ValueError("alpha is 0: that is the run without a teacher; give the weight of the teacher, such as 0.9")
    stop = cancel or threading.Event()
    pairs: list[tuple[float, float]] = []
    for seed in seeds:
        pair = []
        for weight in (alpha, 0.0):
            result = distill(teacher, student, digits, alpha=weight, seed=seed, cancel=stop, **settings)
            if result.cancelled:
                break
            pair.append(evaluate(result.checkpoint, digits.test).accuracy)
            if on_run is not None:
                on_run(seed, weight > 0, pair[-1])
        if len(pair) < 2:
            break
        pairs.append((pair[0], pair[1]))
    if not pairs:
        raise ValueError("cancelled before the first pair of runs was complete: there is nothing to compare")
    return Comparison(
        student=student,
        seeds=tuple(seeds[: len(pairs)]),
        with_teacher=tuple(taught for taught, _ in pairs),
        without=tuple(alone for _, alone in pairs),
        digits=len(digits.test),
    )


def _range(accuracies: Sequence[float]) -> str:
    return f"{min(accuracies):.2%} to {max(accuracies):.2%}"
