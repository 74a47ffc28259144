"""Few values for many weights: codebooks.

A layer's weights are replaced by a *codebook* of K values and, for each weight, a *code*: the number of its value in
the codebook. With K = 16 a code takes 4 bits where a float takes 32.

All functions take the weights of one layer and return a `Shared`; `by_channel` makes a codebook for each channel.
Fewer distinct weights than levels, a layer of zeros, or a single weight are no errors: the codebook is then as short as
it can be, and exact.

Han, Mao and Dally (2015), *Deep compression*, arXiv:1510.00149.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from compresskit.messages import of_layer

Weights: TypeAlias = NDArray[Any]
Matrix: TypeAlias = NDArray[np.float64]
Start: TypeAlias = Literal["linear", "density", "k-means++"]


@dataclass(frozen=True)
class Shared:
    """Weights as codebook and codes.

    Parameters
    ----------
    codebook : ndarray, shape (K,) or (channels, K)
        The values, ascending, of the dtype of the weights. With a row for each channel, short rows repeat their last
        value.
    codes : ndarray of uint8, uint16 or uint32, shape of the weights
        For each weight the place of its value in the codebook, or in its channel's row.
    channel_axis : int or None
        The axis of the channels, if there is a codebook for each.
    """

    codebook: NDArray[Any]
    codes: NDArray[np.unsignedinteger[Any]]
    channel_axis: int | None = None

    @property
    def levels(self) -> int:
        """K, the number of values in the codebook (of a channel)."""
        return int(self.codebook.shape[-1])

    @property
    def bits(self) -> int:
        """Bits of a code of fixed length: ``ceil(log2 K)``."""
        return (self.levels - 1).bit_length()

    @property
    def estimated_bits(self) -> int:
        """Codes of fixed length and codebooks of float32, in bits: an estimate, no file has been written."""
        return self.codes.size * self.bits + self.codebook.size * 32

    def decode(self) -> Weights:
        """Return the weights that the codes stand for.

        Returns
        -------
        ndarray, shape of the codes, dtype of the codebook
        """
        if self.channel_axis is None:
            return np.asarray(self.codebook[self.codes])
        rows = np.moveaxis(self.codes, self.channel_axis, 0)
        flat = np.take_along_axis(self.codebook, rows.reshape(len(rows), -1).astype(np.intp), axis=1)
        return np.ascontiguousarray(np.moveaxis(flat.reshape(rows.shape), 0, self.channel_axis))


def kmeans(
    weights: Weights,
    levels: int,
    *,
    start: Start = "linear",
    keep_zero: bool = False,
    seed: int = 0,
    iterations: int = 100,
    name: str = "",
) -> Shared:
    """Share by k-means: each value is the mean of the weights that are nearer to it than to any other.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer, finite.
    levels : int
        K >= 1, the values to have; fewer if there are fewer distinct weights.
    start : {"linear", "density", "k-means++"}, optional
        Evenly from the smallest weight to the largest (large weights, few but important, keep values of their own: the
        choice of the paper), evenly in rank (most values where most weights are), or drawn far apart by lot (Arthur and
        Vassilvitskii, 2007).
    keep_zero : bool, optional
        Let zeros stay exactly 0, with a level of their own among the K, so that a pruned layer stays as sparse.
    seed : int, optional
        For ``"k-means++"``.
    iterations : int, optional
        The most rounds of Lloyd's algorithm (1957); it stops when nothing moves.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Shared
        A local optimum of the sum of squared errors; `exact_kmeans` finds the global one.

    Raises
    ------
    ValueError
        If the weights are empty or not finite, ``levels`` is too small, or ``start`` is not one of the three.
    """
    if iterations < 0:
        raise ValueError(f"{of_layer(name)}iterations is {iterations}; choose 0 or more")
    if start not in get_args(Start):
        raise ValueError(f"{of_layer(name)}start is {start!r}; choose 'linear', 'density' or 'k-means++'")

    def centres(ascending: Matrix, count: int) -> Matrix:
        return _lloyd(ascending, _first_centres(ascending, count, start, seed), iterations)

    return _clustered(weights, levels, centres, keep_zero, name)


def exact_kmeans(
    weights: Weights, levels: int, *, keep_zero: bool = False, bins: int | None = None, name: str = ""
) -> Shared:
    """Share by the best k-means there is: on a line the global optimum can be computed.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer, finite.
    levels : int
        K >= 1.
    keep_zero : bool, optional
        As for `kmeans`.
    bins : int, optional
        Search only among intervals that begin at one of so many evenly spaced places, then go on from there by Lloyd's
        rounds: with 4,096, hundreds of times faster for a large layer, and hardly ever worse in the fourth digit.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Shared
        With the least sum of squared errors of all codebooks of K values (to rounding, and but for ``bins``).

    Raises
    ------
    ValueError
        If the weights are empty or not finite, or ``levels`` or ``bins`` is too small.

    Notes
    -----
    Clusters of sorted numbers are intervals, so dynamic programming over their ends finds the optimum (Wang and Song,
    2011, *Ckmeans.1d.dp*), and since the best last cut moves to the right with the end, divide and conquer does it in
    O(K n log n) (Grønlund et al., 2017, *Fast exact k-means, k-medians and Bregman divergence clustering in 1D*,
    arXiv:1701.07204). At K = 16 it takes seconds for 400,000 weights.
    """
    if bins is not None and bins < 1:
        raise ValueError(f"{of_layer(name)}bins is {bins}; choose at least 1, such as 4096")

    def centres(ascending: Matrix, count: int) -> Matrix:
        if bins is None or bins >= ascending.size:
            return _best_centres(ascending, count, np.arange(ascending.size + 1))
        inner = np.searchsorted(ascending, np.linspace(ascending[0], ascending[-1], bins + 1)[1:-1])
        places = np.unique(np.concatenate([[0], inner, [ascending.size]]))
        return _lloyd(ascending, _best_centres(ascending, count, places), 100)

    return _clustered(weights, levels, centres, keep_zero, name)


def binary(weights: Weights, *, name: str = "") -> Shared:
    """Share two values, -α and +α, with α the mean of |w|: the least squared error that two such values can have.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer, finite. Zeros become +α.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Shared

    Raises
    ------
    ValueError
        If the weights are empty or not finite.

    Notes
    -----
    Rastegari, Ordonez, Redmon and Farhadi (2016), *XNOR-Net*, arXiv:1603.05279.
    """
    values = _flat(weights, name)
    alpha = np.abs(values).mean()
    return _nearest(weights, np.array([-alpha, alpha]) if alpha > 0 else np.zeros(1))


def ternary(weights: Weights, *, rule: Literal["best", "twn"] = "best", name: str = "") -> Shared:
    """Share three values, -α, 0 and +α.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer, finite.
    rule : {"best", "twn"}, optional
        ``"twn"`` is the paper's rule: what is below 0.7 times the mean of |w| becomes 0, and α is the mean of the other
        |w|. ``"best"`` has the least squared error of all: of the m largest |w|, α is the mean, for the m that makes
        (their sum)² / m largest.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Shared

    Raises
    ------
    ValueError
        If the weights are empty or not finite, or the rule is neither of the two.

    Notes
    -----
    Li, Zhang and Liu (2016), *Ternary weight networks*, arXiv:1605.04711.
    """
    values = _flat(weights, name)
    size = np.abs(values)
    if not size.any():
        return _nearest(weights, np.zeros(1))
    if rule == "twn":
        large = size > 0.7 * size.mean()
        alpha = size[large].mean()
    elif rule == "best":
        descending = np.sort(size)[::-1]
        count = int(np.argmax(np.cumsum(descending) ** 2 / np.arange(1, size.size + 1))) + 1
        alpha = descending[:count].mean()
        large = size >= descending[count - 1]
    else:
        raise ValueError(f"{of_layer(name)}rule is {rule!r}; choose 'best' or 'twn'")
    codes = np.where(large, np.where(values > 0, 2, 0), 1).astype(np.uint8).reshape(weights.shape)
    return Shared(np.array([-alpha, 0, alpha], dtype=weights.dtype), codes)


def uniform(weights: Weights, levels: int, *, name: str = "") -> Shared:
    """Share values at equal distances, whole multiples of one scale: ``s · {-K/2, ..., K/2 - 1}``.

    With 4, 16 or 256 levels these are the numbers that a LiteRT file of int2, int4 or int8 weights can hold.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer, finite.
    levels : int
        K, an even number >= 2. The codebook always has K values, unless all weights are 0.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Shared
        The scale is the best of a coarse and then a fine search, each try refined by least squares until it stays.

    Raises
    ------
    ValueError
        If the weights are empty or not finite, or K is odd or too small.
    """
    if levels < 2 or levels % 2:
        raise ValueError(f"{of_layer(name)}levels is {levels}; choose an even number, such as 4, 8 or 16")
    values = _flat(weights, name)
    if not values.any():
        return _nearest(weights, np.zeros(1))
    numbers = np.arange(-(levels // 2), levels // 2)
    ascending = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
    largest = np.abs(values).max()
    scale = largest / (levels / 2)
    for factors in (np.linspace(0.05, 1.2, 60), np.linspace(0.97, 1.03, 60)):
        scale = _refined_scale(ascending, sums, numbers, factors * scale)
    return _nearest(weights, np.asarray(scale * numbers, dtype=np.float64))


def powers_of_two(weights: Weights, magnitudes: int, *, name: str = "") -> Shared:
    """Share 0 and ±2^e for some whole numbers e in a row: multiplying by such a weight is a shift.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer, finite.
    magnitudes : int
        How many exponents, >= 1; the codebook has ``2 · magnitudes + 1`` values.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Shared
        The largest exponent is ``floor(log2(4/3 · max|w|))``, so that the largest weight is nearest to its power.

    Raises
    ------
    ValueError
        If the weights are empty or not finite, or ``magnitudes`` is below 1.

    Notes
    -----
    Zhou, Yao, Guo, Xu and Chen (2017), *Incremental network quantization*, arXiv:1702.03044, where the number of bits
    is chosen; b bits are 2^(b-2) magnitudes.
    """
    if magnitudes < 1:
        raise ValueError(f"{of_layer(name)}magnitudes is {magnitudes}; choose at least 1 power of two")
    values = _flat(weights, name)
    if not values.any():
        return _nearest(weights, np.zeros(1))
    top = np.floor(np.log2(4 / 3 * np.abs(values).max()))
    powers = 2.0 ** np.arange(top - magnitudes + 1, top + 1)
    return _nearest(weights, np.concatenate([-powers[::-1], [0.0], powers]))


def by_channel(weights: Weights, method: Callable[[Weights], Shared], *, axis: int = 0) -> Shared:
    """Make a codebook for each channel.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer.
    method : callable (weights) -> Shared
        What shares the weights of one channel, such as ``lambda channel: kmeans(channel, 4)``.
    axis : int, optional
        The axis of the channels: 0, or -1 for a depthwise convolution.

    Returns
    -------
    Shared
        With a codebook of shape (channels, K), K the largest that a channel needs.
    """
    rows = np.moveaxis(weights, axis, 0)
    parts = [method(row) for row in rows]
    longest = max(part.levels for part in parts)
    codebook = np.stack([np.pad(part.codebook, (0, longest - part.levels), mode="edge") for part in parts])
    codes = np.stack([part.codes.astype(_code_type(longest)) for part in parts])
    return Shared(codebook, np.ascontiguousarray(np.moveaxis(codes, 0, axis)), axis)


def codebook_gradient(shared: Shared, gradients: NDArray[Any], *, average: bool = True) -> Matrix:
    """Turn the gradients of the weights into gradients of the values that they share.

    Parameters
    ----------
    shared : Shared
        Codebook and codes.
    gradients : ndarray, shape of the codes
        Gradient of the loss by each weight.
    average : bool, optional
        The mean over the weights of a value, so that one step size suits values with many weights and with few; or the
        sum, which is the derivative of the loss by the value (the paper's equation 3).

    Returns
    -------
    ndarray of float64, shape of the codebook
        0 where a value has no weights.

    Raises
    ------
    ValueError
        If there is not one gradient for each weight.
    """
    if gradients.shape != shared.codes.shape:
        raise ValueError(f"gradients has shape {gradients.shape}; give one for each weight, as {shared.codes.shape}")
    places = shared.codes.astype(np.intp)
    if shared.channel_axis is not None:
        along = [1] * places.ndim
        along[shared.channel_axis] = -1
        places = places + shared.levels * np.arange(places.shape[shared.channel_axis]).reshape(along)
    flat = places.reshape(-1)
    total = np.bincount(flat, gradients.reshape(-1), shared.codebook.size).astype(np.float64)
    if average:
        total = total / np.maximum(np.bincount(flat, minlength=shared.codebook.size), 1)
    return total.reshape(shared.codebook.shape)


def _clustered(
    weights: Weights, levels: int, centres: Callable[[Matrix, int], Matrix], keep_zero: bool, name: str
) -> Shared:
    """Sort, find centres, and give each weight the nearest; zeros apart if they are to stay."""
    values = _flat(weights, name)
    if levels < 1:
        raise ValueError(f"{of_layer(name)}levels is {levels}; choose at least 1 shared value")
    ascending = np.sort(values)
    if not keep_zero:
        return _nearest(weights, _few_or(centres, ascending, levels))
    others = ascending[ascending != 0]
    if others.size == 0:
        return _nearest(weights, np.zeros(1))
    if levels < 2 and others.size < ascending.size:
        raise ValueError(f"{of_layer(name)}levels is {levels}; with zeros kept, choose at least 2 (one of them is 0)")
    if others.size == ascending.size:
        return _nearest(weights, _few_or(centres, others, levels))
    of_others = _few_or(centres, others, levels - 1)
    codebook = np.union1d(of_others, [0.0])
    places = np.searchsorted(codebook, of_others).astype(_code_type(len(codebook)))
    codes = places[_nearest(weights, of_others).codes]
    codes[weights == 0] = np.searchsorted(codebook, 0.0)
    return Shared(codebook.astype(weights.dtype), codes)


def _few_or(centres: Callable[[Matrix, int], Matrix], ascending: Matrix, levels: int) -> Matrix:
    """Return the distinct values themselves, if these are few enough, or else centres, each only once."""
    new = np.concatenate([[True], ascending[1:] != ascending[:-1]])
    if np.count_nonzero(new) <= levels:
        return np.asarray(ascending[new])
    return np.unique(centres(ascending, levels))


def _first_centres(ascending: Matrix, count: int, start: Start, seed: int) -> Matrix:
    """Where k-means begins."""
    if start == "linear":
        return np.linspace(ascending[0], ascending[-1], count)
    if start == "density":
        return np.asarray(ascending[((np.arange(count) + 0.5) / count * ascending.size).astype(np.intp)])
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(ascending)]
    distance = np.square(ascending - chosen[0])
    for _ in range(count - 1):
        chosen.append(ascending[_drawn(np.cumsum(distance), rng)])
        distance = np.minimum(distance, np.square(ascending - chosen[-1]))
    return np.sort(chosen)


def _drawn(cumulated: Matrix, rng: np.random.Generator) -> int:
    """Draw a place, as likely as its share of the total."""
    place = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
    return min(place, cumulated.size - 1)


def _lloyd(ascending: Matrix, centres: Matrix, iterations: int) -> Matrix:
    """Move each centre to the mean of its interval until none moves; a centre without weights stays."""
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
    edges = None
    for _ in range(iterations):
        inner = np.searchsorted(ascending, (centres[1:] + centres[:-1]) / 2)
        new_edges = np.concatenate([[0], inner, [ascending.size]])
        if edges is not None and np.array_equal(edges, new_edges):
            break
        edges = new_edges
        counts = np.diff(edges)
        centres = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centres)
    return centres


def _best_centres(ascending: Matrix, count: int, places: NDArray[np.intp]) -> Matrix:
    """Cut sorted numbers into intervals with the least sum of squares around their means.

    Cuts are made at the places given only, the first of them 0 and the last behind the end. ``best[e]`` is the least
    sum for the numbers before place e in as many intervals as there were rounds. A round adds an interval: for every
    end, the cut before the last interval is searched between the cuts of neighbouring ends that are known already,
    halving the distance between known ends each time.
    """
    shifted = ascending - ascending.mean()
    sums = np.concatenate([[0.0], np.cumsum(shifted)])[places]
    squares = np.concatenate([[0.0], np.cumsum(shifted**2)])[places]

    def spread(begin: NDArray[np.intp], end: NDArray[np.intp]) -> Matrix:
        """Sum of squares around the mean of the numbers from one place to another."""
        total = sums[end] - sums[begin]
        return np.asarray(squares[end] - squares[begin] - total * total / np.maximum(places[end] - places[begin], 1))

    ends = np.arange(places.size)
    best = spread(np.zeros_like(ends), ends)
    cuts = []
    for _ in range(count - 1):
        best, cut = _one_more_interval(best, spread)
        cuts.append(cut)
    edges = [places.size - 1]
    for cut in reversed(cuts):
        edges.append(int(cut[edges[-1]]))
    edges.append(0)
    edges.reverse()
    return np.array([ascending[places[b] : places[e]].mean() for b, e in pairwise(edges) if e > b])


def _one_more_interval(
    best: Matrix, spread: Callable[[NDArray[np.intp], NDArray[np.intp]], Matrix]
) -> tuple[Matrix, NDArray[np.int32]]:
    """Return the least sums with one interval more, and where that interval begins, for every end."""
    size = best.size
    new_best = np.empty(size)
    cut = np.zeros(size, dtype=np.int32)
    stride = 1 << (size.bit_length() - 1)
    while stride >= 1:
        ends = np.arange(stride - 1, size, 2 * stride)
        lowest = np.where(ends >= stride, cut[ends - stride], 0).astype(np.intp)
        after = ends + stride
        highest = np.where(after < size, cut[np.minimum(after, size - 1)], ends).astype(np.intp)
        highest = np.minimum(highest, ends)
        lengths = highest - lowest + 1
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        candidates = np.arange(int(lengths.sum())) + np.repeat(lowest - first, lengths)
        sums = best[candidates] + spread(candidates, np.repeat(ends, lengths))
        least = np.minimum.reduceat(sums, first)
        places = np.flatnonzero(sums == np.repeat(least, lengths))
        chosen = places[np.searchsorted(places, first)]
        new_best[ends], cut[ends] = least, candidates[chosen]
        stride //= 2
    return new_best, cut


def _refined_scale(ascending: Matrix, sums: Matrix, numbers: NDArray[Any], scales: Matrix) -> float:
    """Alternate codes and least-squares scale from several first guesses at once; return the best scale seen."""
    explained, best = -np.inf, float(scales[0])
    for _ in range(50):
        inner = np.searchsorted(ascending, np.outer(scales, numbers[1:] - 0.5))
        ends = np.full((len(scales), 1), ascending.size)
        edges = np.concatenate([np.zeros_like(ends), inner, ends], axis=1)
        product = np.diff(sums[edges], axis=1) @ numbers
        power = np.diff(edges, axis=1) @ numbers**2
        # Σ(w - s·c)² = Σw² - explained
        now = 2 * scales * product - scales**2 * power
        if now.max() > explained:
            explained, best = float(now.max()), float(scales[now.argmax()])
        better = np.where((product > 0) & (power > 0), product / np.maximum(power, 1), scales)
        if np.allclose(better, scales, rtol=1e-6, atol=0):
            break
        scales = better
    return best


def _nearest(weights: Weights, codebook: Matrix) -> Shared:
    """Give each weight the nearest value of an ascending codebook, the upper one halfway."""
    middles = (codebook[1:] + codebook[:-1]) / 2
    if len(codebook) > 256:
        codes = np.searchsorted(middles, weights.reshape(-1), side="right").astype(_code_type(len(codebook)))
    else:
        # Counting the middles below, one comparison of the whole layer after the other, is several times faster.
        codes = np.zeros(weights.size, dtype=np.uint8)
        bounds = middles.astype(weights.dtype)  # rounded up, so that comparing is as exact as in float64
        bounds = np.where(bounds < middles, np.nextafter(bounds, bounds.dtype.type(np.inf)), bounds)
        for bound in bounds:
            codes += weights.reshape(-1) >= bound
    return Shared(codebook.astype(weights.dtype), codes.reshape(weights.shape))


def _code_type(levels: int) -> np.dtype[Any]:
    """Smallest unsigned type for codes 0..levels-1."""
    return np.min_scalar_type(levels - 1)


def _flat(weights: Weights, name: str) -> Matrix:
    """Return the weights as one row of float64, or say why they cannot be shared."""
    if weights.size == 0:
        raise ValueError(f"{of_layer(name)}weights has shape {weights.shape}: there is nothing to share")
    if not np.all(np.isfinite(weights)):
        raise ValueError(f"{of_layer(name)}weights holds NaN or infinity; look at the network they come from")
    return weights.reshape(-1).astype(np.float64)
