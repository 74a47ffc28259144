"""Two small models side by side: layer by layer, and digit by digit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed
from compresskit.data import Split
from compresskit.evaluation import Score
from compresskit.litert.inspect import Layer
from compresskit.recipe import Recipe
from compresskit.widgets.points import Point
from compresskit.zoo import Checkpoint


@dataclass(frozen=True)
class LayerPair:
    """One layer in two files.

    Attributes
    ----------
    name : str
        Of the layer.
    first, second : Layer or None
        Its row in each file; None where a file does not have it.
    errors : (float or None, float or None)
        How far each file's weights are from the original's: `||W - W0|| / ||W0||` over all weights, as real numbers.
        None where the shape is another, since channels were removed.
    between : float or None
        How far the two are from each other, in the same measure.
    """

    name: str
    first: Layer | None
    second: Layer | None
    errors: tuple[float | None, float | None]
    between: float | None


@dataclass(frozen=True)
class Readings:
    """What two files read in the same digits.

    Attributes
    ----------
    only_first, only_second : ndarray of int64
        Positions of the digits that one of them reads rightly and the other does not.
    both, neither : int
        How many both read rightly, and neither.
    p : float
        Of McNemar's exact test; see `mcnemar`.
    """

    only_first: NDArray[np.int64]
    only_second: NDArray[np.int64]
    both: int
    neither: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two points with what tells them apart.

    Attributes
    ----------
    first, second : Point
        The points, both exact.
    layers : tuple of LayerPair
        In the order in which they run.
    readings : Readings
        Digit by digit.
    """

    first: Point
    second: Point
    layers: tuple[LayerPair, ...]
    readings: Readings


def compare_points(original: Checkpoint, first: Point, second: Point, digits: Split) -> Comparison:
    """Compare two points.

    Parameters
    ----------
    original
        The model that weights are measured against.
    first, second
        What was read on `digits`.
    digits
        The test digits.

    Returns
    -------
    Comparison
        Layer by layer, and digit by digit.

    Raises
    ------
    ValueError
        If one of them did not read all the digits.
    """
    layers = compare_layers(original, first.compressed, second.compressed)
    return Comparison(first, second, layers, compare_readings(first.score, second.score, digits))


def compare_layers(original: Checkpoint, first: Compressed, second: Compressed) -> tuple[LayerPair, ...]:
    """Hold the layers of two files side by side, and their weights against the original's.

    Parameters
    ----------
    original
        The model that weights are measured against.
    first, second
        Files made of it.

    Returns
    -------
    tuple of LayerPair
        The original's layers in their order, as far as one of the files has them; then those that only files have.
    """
    whole = {layer.name: layer for layer in original.layers}
    rows = [{layer.name: layer for layer in small.layers} for small in (first, second)]
    names = dict.fromkeys([*whole, *rows[0], *rows[1]])
    pairs = []
    for name in names:
        one, other = rows[0].get(name), rows[1].get(name)
        if one is None and other is None:
            continue
        weights = [small.weights(name) if row is not None else None for small, row in ((first, one), (second, other))]
        start = _original_weights(original, name) if name in whole else None
        size = None if start is None else float(np.linalg.norm(start))
        errors = (_distance(weights[0], start, size), _distance(weights[1], start, size))
        pairs.append(LayerPair(name, one, other, errors, _distance(weights[0], weights[1], size)))
    return tuple(pairs)


def _original_weights(original: Checkpoint, name: str) -> NDArray[np.float32]:
    return Compressed(original.tflite, Recipe(), original).weights(name)


def _distance(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None, size: float | None) -> float | None:
    """Give `||one - other|| / size`; None where there is nothing to subtract."""
    if one is None or other is None or size is None or one.shape != other.shape:
        return None
    apart = float(np.linalg.norm(one - other))
    return apart / size if size else (0.0 if apart == 0 else math.inf)


def compare_readings(first: Score, second: Score, digits: Split) -> Readings:
    """Find the digits that one file reads rightly and the other does not.

    Parameters
    ----------
    first, second
        What was read on `digits`.
    digits
        With the right labels.

    Returns
    -------
    Readings

    Raises
    ------
    ValueError
        If one of them did not read all the digits.
    """
    for score in (first, second):
        if score.n != len(digits):
            raise ValueError(f"digits: there are {len(digits)}, but {score.n} were read; compare exact points")
    one, other = first.predictions == digits.labels, second.predictions == digits.labels
    only_first, only_second = np.flatnonzero(one & ~other), np.flatnonzero(other & ~one)
    return Readings(
        only_first,
        only_second,
        int((one & other).sum()),
        int((~one & ~other).sum()),
        mcnemar(len(only_first), len(only_second)),
    )


def mcnemar(b: int, c: int) -> float:
    """Compute the p-value of McNemar's exact test: could two equally good readers differ so much by chance.

    Digits that both read, or neither, say nothing. If both were equally good, each of the other `b + c` would be as
    likely to be read by the one as by the other: the smaller count then follows a binomial distribution with 1/2.
    `p = min(1, 2 sum_{k <= min(b, c)} C(b + c, k) / 2^(b + c))` (McNemar 1947; Fagerland et al. 2013).

    Parameters
    ----------
    b, c
        How many digits only the one reads, and only the other; 0 or more.

    Returns
    -------
    float
        The two-sided probability of a difference at least as large.

    Raises
    ------
    ValueError
        If a count is negative.
    """
    if b < 0 or c < 0:
        raise ValueError(f"b is {b} and c is {c}; give counts of 0 or more.")
    n, tail, ways = b + c, 0, 1
    for k in range(min(b, c) + 1):  # whole numbers, so nothing is rounded before the division
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << n))
