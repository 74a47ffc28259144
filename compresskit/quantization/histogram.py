"""Histograms that can be added: what calibration keeps of the activations that came by.

The bins have a width of 2^k and an edge at 0; k is the smallest at which 0 and all values fit into `BINS` bins. When
larger values arrive, neighbouring bins are joined in pairs, exactly. So the histogram of two batches is the sum of the
histograms of each, whatever their order: one pass over the digits is enough, and the batches may be of any size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 8192
"""At most so many bins: 16 or more for each level of an 8-bit grid."""

_SMALLEST_EXPONENT = -43
"""No finer: 8,192 bins of 2^-43 are the 1e-9 to which a narrower range is widened anyway."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins of width 2^exponent, with exact ends and an exact count of zeros.

    Attributes
    ----------
    exponent : int
        Logarithm of the bin width to base 2.
    first : int
        Number of the first bin; bin i holds the values from i * width up to, but without, (i + 1) * width.
    counts : ndarray of int64, shape (bins,)
        Values in each bin.
    zeros : int
        Values that are exactly 0. They are in their bin too; any grid holds them without error.
    batches : tuple of (float, float)
        Smallest and largest value of each batch, in order.
    """

    exponent: int
    first: int
    counts: NDArray[np.int64]
    zeros: int
    batches: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, values: ArrayLike) -> Histogram:
        """Count one batch of values, of any shape; float32.

        Raises
        ------
        ValueError
            If there are no values, or one is NaN or infinite.
        """
        x = np.asarray(values, np.float32).ravel()
        if x.size == 0:
            raise ValueError("values are empty; calibration needs at least one digit.")
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("values hold NaN or infinity; look for the layer that makes them before calibrating.")
        exponent = _exponent(low, high)
        first = math.floor(math.ldexp(low, -exponent))
        # In float64: a small negative number must not become -0 on the way, it belongs into bin -1.
        bins = np.floor(np.multiply(x, 2.0**-exponent, dtype=np.float64)).astype(np.int64) - first
        return cls(exponent, first, np.bincount(bins), x.size - int(np.count_nonzero(x)), ((low, high),))

    def __add__(self, other: Histogram) -> Histogram:
        """Histogram of all values of both, batches of `other` after those of `self`."""
        if not isinstance(other, Histogram):
            return NotImplemented
        exponent = _exponent(min(self.low, other.low), max(self.high, other.high))
        a, b = self._coarsened(exponent), other._coarsened(exponent)
        first = min(a.first, b.first)
        counts = np.zeros(max(a.first + a.counts.size, b.first + b.counts.size) - first, np.int64)
        for part in (a, b):
            counts[part.first - first : part.first - first + part.counts.size] += part.counts
        return Histogram(exponent, first, counts, self.zeros + other.zeros, self.batches + other.batches)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 2.0**self.exponent

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(low for low, _ in self.batches)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(high for _, high in self.batches)

    @property
    def count(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """Ends of the bins, shape (bins + 1,)."""
        return np.asarray((self.first + np.arange(self.counts.size + 1)) * self.width)

    @property
    def centers(self) -> NDArray[np.float64]:
        """Middles of the bins, shape (bins,)."""
        return np.asarray((self.first + np.arange(self.counts.size) + 0.5) * self.width)

    @property
    def counts_without_zeros(self) -> NDArray[np.int64]:
        """Counts of the values that are not exactly 0, shape (bins,)."""
        counts = self.counts.copy()
        if self.zeros:
            counts[-self.first] -= self.zeros
        return counts

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of the absolute values that are not 0, in bins of the same width from 0 upwards."""
        counts = self.counts_without_zeros
        bins = self.first + np.arange(counts.size)
        folded = np.where(bins < 0, -bins - 1, bins)
        return np.bincount(folded, counts).astype(np.int64)

    def _coarsened(self, exponent: int) -> Histogram:
        """Join neighbouring bins until they are 2^exponent wide."""
        bins = (self.first + np.arange(self.counts.size)) >> (exponent - self.exponent)
        first = int(bins[0])
        counts = np.bincount(bins - first, self.counts).astype(np.int64)
        return Histogram(exponent, first, counts, self.zeros, self.batches)


def gather(batches: Iterable[ArrayLike]) -> Histogram:
    """Sum of the histograms of all batches; ValueError if there are none."""
    histograms = [Histogram.of(batch) for batch in batches]
    if not histograms:
        raise ValueError("there are no batches; calibration needs at least one digit.")
    return functools.reduce(Histogram.__add__, histograms)


def _exponent(low: float, high: float) -> int:
    """Smallest k for which bins of width 2^k cover 0 and everything from `low` to `high` with no more than BINS."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return _SMALLEST_EXPONENT
    exponent = max(_SMALLEST_EXPONENT, math.frexp((high - low) / BINS)[1] - 2)
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return exponent
