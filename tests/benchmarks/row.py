"""A row of the benchmark table, and how pairs are measured on a machine that is never quiet."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    name : str
        What was measured.
    ours, reference : float
        Medians, in `unit`. The reference is None where there is nothing to compare with.
    ratio : float or None
        How many times better ours is: the median of the ratios of the pairs.
    unit : str
        Of `ours` and `reference`.
    """

    name: str
    ours: float
    reference: float | None
    ratio: float | None
    unit: str


def compare(
    name: str, ours: Callable[[int], float], reference: Callable[[int], float], *, pairs: int, unit: str
) -> Row:
    """Measure two things in turn, A B A B, and compare them pair by pair.

    Parameters
    ----------
    name
        Of the row.
    ours, reference
        Called with the number of the pair; each gives its own figure, smaller is better.
    pairs
        How many pairs count; one more is measured first and left out.
    unit
        Of the figures.
    """
    measured = [(ours(number), reference(number)) for number in range(pairs + 1)][1:]
    return Row(
        name,
        statistics.median(each for each, _ in measured),
        statistics.median(each for _, each in measured),
        statistics.median(other / each for each, other in measured),
        unit,
    )
