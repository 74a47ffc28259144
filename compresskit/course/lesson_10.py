"""Exercises of lesson 10: the break-even rank, and the rank that keeps a part of the energy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from compresskit.course.checks import Case, Exercise, Mistake
from compresskit.lowrank import break_even_rank as largest_rank
from compresskit.lowrank import rank_by_energy

# -- the break-even rank ------------------------------------------------------------------------------------------


def break_even(m: int, n: int) -> int:
    """Give the largest rank at which the two thin matrices together have fewer weights than the whole one."""
    return largest_rank(m, n)


def _shapes(rng: np.random.Generator) -> Iterator[Case]:
    yield (128, 3136)
    yield (10, 128)
    yield (2, 2)  # rank 1 has as many: not fewer
    yield (4, 4)  # nor has rank 2
    yield (1, 50)  # not even rank 1 saves anything
    for _ in range(6):
        yield (int(rng.integers(2, 400)), int(rng.integers(2, 4000)))


BREAK_EVEN = Exercise(
    reference=break_even,
    cases=_shapes,
    mistakes=(
        Mistake(
            lambda m, n: m * n // (m + n),
            "Where m n is a multiple of m + n, that rank has just as many weights, not fewer.",
        ),
        Mistake(
            lambda m, n: min(m, n) // 2,
            "Half of the smaller side is right for a square only. Count: rank r takes r (m + n) weights.",
        ),
        Mistake(lambda m, n: min(m, n), "That is the full rank, at which the two have more weights than the one."),
        Mistake(
            lambda m, n: math.ceil(m * n / (m + n)),
            "That is the first rank that no longer saves anything; the last that does is one below.",
        ),
        Mistake(
            lambda m, n: m * n / (m + n),
            "A rank is a whole number, and r (m + n) is to be below m n.",
        ),
        Mistake(lambda m, n: max(1, largest_rank(m, n)), "Where not even rank 1 saves anything the answer is 0."),
        Mistake(lambda m, n: (m + n) // 2, "Those are sides, not weights: m n are to be more than r m + r n."),
    ),
    praise="For a wide matrix it is nearly the smaller side; for a square one half of it.",
)


# -- the rank for a part of the energy ----------------------------------------------------------------------------


def rank_for_energy(values: Any, energy: float) -> int:
    """Give the smallest rank whose singular values have at least this part of the sum of all squares."""
    return rank_by_energy(np.asarray(values, float), energy)


def _spectra(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([4.0, 2.0, 1.0]), 0.7)
    yield (np.array([4.0, 2.0, 1.0]), 0.9)
    yield (np.array([3.0, 3.0, 3.0, 3.0]), 0.6)
    yield (np.array([5.0, 0.0, 0.0]), 0.99)
    for energy in (0.3, 0.8, 0.95):
        values = np.sort(rng.gamma(1.5, 1.0, 30))[::-1].round(3)
        yield (values, energy)


def _sums(values: Any, energy: float) -> int:
    return int(np.argmax(np.cumsum(values) >= energy * np.sum(values))) + 1


def _place(values: Any, energy: float) -> int:
    return rank_for_energy(values, energy) - 1


def _share_of_ranks(values: Any, energy: float) -> int:
    return math.ceil(energy * len(values))


def _above_a_part(values: Any, energy: float) -> int:
    return int((np.asarray(values) >= (1 - energy) * np.max(values)).sum())


ENERGY = Exercise(
    reference=rank_for_energy,
    cases=_spectra,
    mistakes=(
        Mistake(
            _sums,
            "Energy is the sum of *squares*: only then it is the squared error that the rest makes.",
        ),
        Mistake(_place, "That is the place in the list, from 0 on; the rank is the number of values kept, one more."),
        Mistake(_share_of_ranks, "That is a part of the ranks, not of the energy: the first values weigh more."),
        Mistake(
            _above_a_part, "Values are compared with the largest one; compare the sum of their squares with the whole."
        ),
        Mistake(
            lambda values, energy: float(np.cumsum(np.square(values))[rank_for_energy(values, energy) - 1]),
            "That is the energy kept; how many values keep it is asked for.",
        ),
    ),
    praise="What is left out is the squared error of the matrix, exactly; what the digits make of it is not.",
)


EXERCISES = {"break_even": BREAK_EVEN, "rank_for_energy": ENERGY}
