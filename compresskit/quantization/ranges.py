"""Choosing ranges: how far the grid should reach.

As far as the largest value, and every step is wide, so that all values are rounded coarsely; less far, and the
largest values are clipped. Each method below strikes that balance in its own way.

- *minmax*: the smallest and the largest value decide; nothing is clipped.
- *moving*: a moving average of each batch's smallest and largest value, so that one odd batch counts little.
- *percentile*: clip a set share of the values.
- *mse*: the smallest mean squared error. For weights, ai-edge-quantizer's rule of thumb: a step in proportion to the
  root mean square, without looking further; *search* then is the real thing.
- *octav*: the clipping point at which the error of clipping and that of rounding balance, by Newton's method.
  Sakr et al., "Optimal Clipping and Magnitude-aware Differentiation for Improved Quantization-aware Training" (2022),
  https://arxiv.org/abs/2206.06501
- *entropy*: the clipped, rounded distribution that tells most of the original one, by Kullback-Leibler divergence.
  Migacz, "8-bit Inference with TensorRT" (2017).

Weights lie in memory and get a symmetric grid (`weight_grid`). Activations come by in batches; `Histogram` keeps what
is needed of them, and `choose_range` reads the range off it. So calibration is one pass, whatever the method.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compresskit.quantization.affine import (
    SMALLEST_WIDTH,
    Grid,
    affine_grid,
    block_scale,
    check_bits,
    fake_quantize,
    split_blocks,
    value_range,
)
from compresskit.quantization.histogram import Histogram

WeightMethod = Literal["minmax", "mse", "search", "octav", "percentile", "entropy"]
Method = Literal["minmax", "moving", "percentile", "mse", "octav", "entropy"]

MSE_STEP = {2: 1.0484, 3: 0.6018, 4: 0.37755, 5: 0.1888, 6: 0.1042, 7: 0.0569, 8: 0.05408}
"""Step in units of the root mean square. 4 and 8 bits: ai-edge-quantizer's; the others: best for a normal law.

For 8 bits ai-edge-quantizer's is nearly twice what a normal law asks for, and often wider than minmax: there "mse"
makes more error than clipping nothing.
"""


def weight_grid(
    weights: ArrayLike,
    bits: int = 8,
    *,
    axis: int | None = None,
    block_size: int = 0,
    method: WeightMethod = "minmax",
    percent: float = 99.9,
) -> Grid:
    """Make the symmetric grid for a layer's weights: Z = 0; from 8 bits on the lowest integer is left out.

    Parameters
    ----------
    weights : array of floats
        Any shape.
    bits : int, default 8
        Width of the integers, 2 to 16 ("mse": 2 to 8).
    axis : int, optional
        The axis of the output channels, each of which gets its scale. None: one scale for all.
    block_size : int, default 0
        If not 0, each run of so many weights along `axis` gets a scale, as in LiteRT's blockwise int4.
    method : {"minmax", "mse", "search", "octav", "percentile", "entropy"}
        How to choose the reach; see the top of this module.
    percent : float, default 99.9
        For "percentile": the share of weights, in per cent, that is not clipped.

    Raises
    ------
    ValueError
        If the weights are empty or not finite, or a parameter is out of its range.
    """
    scale = weight_scale(weights, bits, axis, method, block_size=block_size, percent=percent)
    return Grid(scale, np.zeros(scale.shape, np.int32), bits, True, bits >= 8, axis, block_size)


def weight_scale(
    weights: ArrayLike,
    bits: int = 8,
    axis: int | None = None,
    method: WeightMethod = "minmax",
    *,
    block_size: int = 0,
    percent: float = 99.9,
) -> NDArray[np.float32]:
    """Choose the step S of a symmetric grid for weights; parameters and errors as for `weight_grid`.

    "minmax", "mse" (4 and 8 bits) and "octav" give ai-edge-quantizer's scales; a channel of zeros, for which its "mse"
    and "octav" divide by zero, gets the smallest scale instead.

    Returns
    -------
    ndarray of float32
        Shape () for axis None, (channels,) per channel, the shape of the weights with `axis` in blocks per block.
    """
    check_bits(bits)
    array = np.asarray(weights, np.float32)
    low, high = value_range(array, axis, block_size)
    largest = np.maximum(-low, high)
    highest = 2 ** (bits - 1) - 1
    rows = _rows(array, axis, block_size)
    if method == "minmax":
        scale = largest / highest
    elif method == "mse":
        scale = _mse_step(bits) * np.sqrt(_mean_square(rows))
    elif method == "search":
        scale = _search(rows, largest.reshape(-1, 1) / highest, highest)
    elif method == "octav":
        scale = np.minimum(octav_bound(np.abs(rows), bits), largest.reshape(-1)) / highest
    elif method == "percentile":
        scale = np.quantile(np.abs(rows), _share(percent), axis=-1) / highest
    elif method == "entropy":
        scale = np.array([_row_entropy(row, highest) for row in np.abs(rows)]) / highest
    else:
        raise ValueError(f"method is {method!r}; choose 'minmax', 'mse', 'search', 'octav', 'percentile' or 'entropy'.")
    scale = np.maximum(scale.reshape(largest.shape), SMALLEST_WIDTH / highest).astype(np.float32)
    return block_scale(scale) if block_size else scale


def octav_bound(magnitudes: NDArray[np.float32], bits: int, noise: float = 3.0, steps: int = 10) -> NDArray[np.float32]:
    """Optimal clipping bound of each row by Newton's method, equation 6 of the OCTAV paper.

        s <- sum of |x| above s  /  (4^-bits / noise * number up to s  +  number above s)

    Ten steps from s = 1, as in ai-edge-quantizer. At 8 bits that is often short of the optimum: where nearly all values
    lie below s, a step adds little more than the mean excess of the rest.

    Parameters
    ----------
    magnitudes : ndarray of float32, shape (rows, n)
        Absolute values.
    bits : int
        Width of the grid.
    noise : float
        3 for a grid from -s to s, 12 for one from 0 to s: its step is half as wide.
    steps : int
        Newton steps at most.

    Returns
    -------
    ndarray of float32, shape (rows,)
    """
    share = 4.0**-bits / noise
    bound = np.ones((len(magnitudes), 1), np.float32)
    for _ in range(steps):
        above = magnitudes >= bound
        many = np.count_nonzero(above, axis=1, keepdims=True).astype(np.float64)
        if not bound.all():  # ai-edge-quantizer counts x >= s and x <= -s: at s = 0 every zero is counted twice
            many += np.where(bound == 0, np.count_nonzero(magnitudes == 0, axis=1, keepdims=True), 0)
        total = np.multiply(magnitudes, above).sum(axis=1, keepdims=True, dtype=np.float64)
        before, bound = bound, (total / (share * magnitudes.shape[1] + (1 - share) * many)).astype(np.float32)
        if np.allclose(before, bound):
            break
    return bound[:, 0]


def choose_range(
    histogram: Histogram,
    method: Method = "minmax",
    bits: int = 8,
    *,
    percent: float = 99.99,
    momentum: float = 0.95,
) -> tuple[float, float]:
    """Choose the range (low, high) for an affine grid of activations.

    Parameters
    ----------
    histogram : Histogram
        What came by during calibration.
    method : {"minmax", "moving", "percentile", "mse", "octav", "entropy"}
        How to choose; see the top of this module.
    bits : int, default 8
        Width of the grid, 2 to 16; "mse", "octav" and "entropy" depend on it.
    percent : float, default 99.99
        For "percentile": values beyond this percentile, and below its mirror image (0.01), are clipped.
    momentum : float, default 0.95
        For "moving": weight of the average so far against the next batch; 0.95 is ai-edge-quantizer's.

    Returns
    -------
    (low, high) : floats
        Never beyond the smallest and largest value that came by.
    """
    check_bits(bits)
    if method == "minmax":
        return histogram.low, histogram.high
    if method == "moving":
        return moving_range(histogram, momentum)
    if method == "percentile":
        share = _share(percent)
        return quantile(histogram, 1 - share), quantile(histogram, share)
    if method == "mse":
        return mse_range(histogram, bits)
    if method == "octav":
        return octav_range(histogram, bits)
    if method == "entropy":
        return entropy_range(histogram, bits)
    raise ValueError(f"method is {method!r}; choose 'minmax', 'moving', 'percentile', 'mse', 'octav' or 'entropy'.")


def moving_range(histogram: Histogram, momentum: float = 0.95) -> tuple[float, float]:
    """Exponential moving average of the batches' ranges, from the first batch on."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, but must be at least 0 and below 1.")
    average = np.array(histogram.batches[0])
    for batch in histogram.batches[1:]:
        average = momentum * average + (1 - momentum) * np.array(batch)
    return float(average[0]), float(average[1])


def quantile(histogram: Histogram, share: float) -> float:
    """Value below which `share` of all values lie, 0 to 1; right to the width of a bin."""
    counted = np.cumsum(histogram.counts)
    target = share * counted[-1]
    i = min(int(np.searchsorted(counted, target)), counted.size - 1)
    inside = 1 - (counted[i] - target) / histogram.counts[i] if histogram.counts[i] else 0.0
    value = (histogram.first + i + inside) * histogram.width
    return float(np.clip(value, histogram.low, histogram.high))


def range_error(histogram: Histogram, low: float, high: float, bits: int = 8) -> tuple[float, float]:
    """Mean squared error that an affine grid over (low, high) makes: by rounding, and by clipping.

    Each value counts as the middle of its bin, exact zeros as zeros. Where a step is not much wider than a bin,
    rounding is taken as S^2 / 12, the error of evenly spread values.

    Returns
    -------
    (rounding, clipping) : floats, squares of the unit of the values; their sum is the mean squared error
    """
    grid = affine_grid(low, high, bits)
    x, counts = histogram.centers, histogram.counts_without_zeros
    squares = np.square(fake_quantize(x, grid) - x)
    clipped = (x < grid.low - grid.scale / 2) | (x > grid.high + grid.scale / 2)
    if grid.scale < 4 * histogram.width:
        squares = np.where(clipped, squares, float(grid.scale) ** 2 / 12)
    error = counts * squares / histogram.count
    return float(error[~clipped].sum()), float(error[clipped].sum())


def mse_range(histogram: Histogram, bits: int = 8) -> tuple[float, float]:
    """Range with the smallest mean squared error: both ends shrunk together by up to 64, then each by itself."""
    ends = np.array([min(histogram.low, 0), max(histogram.high, 0)])
    best = _least_error(histogram, [ends * factor for factor in 0.5 ** np.linspace(0, 6, 25)], bits)
    for i in (0, 1):
        around = [np.where(np.arange(2) == i, best * factor, best) for factor in np.linspace(0.8, 1.25, 19)]
        best = _least_error(histogram, [best, *(np.clip(pair, *ends) for pair in around)], bits)
    return _inside(histogram, *best)


def octav_range(histogram: Histogram, bits: int = 8) -> tuple[float, float]:
    """Range by OCTAV's Newton iteration on the histogram, to its end.

    As in the paper, exact zeros do not count: they are never wrong. The grid is taken to be symmetric where there are
    values of both signs, and to start at 0 where there are not. Where few values make the iteration go in a circle, the
    widest range on it is taken.
    """
    counts = histogram.magnitudes
    if not counts.any():
        return histogram.low, histogram.high
    x = (np.arange(counts.size) + 0.5) * histogram.width
    share = 4.0**-bits / (3 if histogram.low < 0 < histogram.high else 12)
    number, total = (np.append(np.cumsum(v[::-1])[::-1], 0) for v in (counts, counts * x))

    def next_bound(beyond: int) -> float:
        return float(total[beyond] / (share * (number[0] - number[beyond]) + number[beyond]))

    visited: list[int] = []  # the next bound depends on nothing but the number of the first bin that is clipped
    bound = next_bound(0)
    while (beyond := int(np.searchsorted(x, bound, side="right"))) not in visited:
        visited.append(beyond)
        bound = next_bound(beyond)
    bound = max(next_bound(each) for each in visited[visited.index(beyond) :])
    return _inside(histogram, -bound, bound)


def entropy_range(histogram: Histogram, bits: int = 8) -> tuple[float, float]:
    """Range by the entropy method, on absolute values: from -T to T, or from 0 to T where all values have one sign."""
    levels = 2 ** (bits - 1) if histogram.low < 0 < histogram.high else 2**bits
    bound = entropy_bins(histogram.magnitudes, levels) * histogram.width
    return _inside(histogram, -bound, bound)


def entropy_bins(counts: NDArray[np.int64], levels: int, candidates: int = 128) -> int:
    """How many of the lowest bins to keep so that little is lost of the distribution, by TensorRT's method.

    For each candidate i, P is the distribution of the first i bins, with all that lies beyond added to the last that is
    not empty; Q is that of the first i bins poured into `levels` levels, spread again over the bins that were not
    empty. The i with the smallest divergence sum P log(P / Q) is taken.

    Parameters
    ----------
    counts : ndarray of int64, shape (bins,)
        Histogram of absolute values, without zeros.
    levels : int
        Levels of the grid from 0 upwards.
    candidates : int
        How many i are tried, evenly from `levels` to all bins.

    Returns
    -------
    int
        Number of bins; all of them if there are no more than levels.
    """
    best, least = counts.size, np.inf
    if counts.size <= levels or not counts.any():
        return best
    for i in np.unique(np.linspace(counts.size, levels, candidates).astype(int))[::-1]:
        divergence = _divergence(counts, int(i), levels)
        if divergence < least:
            best, least = int(i), divergence
    return best


def _rows(x: NDArray[np.float32], axis: int | None, block_size: int) -> NDArray[np.float32]:
    """Put the values that share a scale into a row: shape (scales, values), in the order of the scales."""
    if axis is None:
        return x.reshape(1, -1)
    axis %= x.ndim
    if block_size:
        return np.moveaxis(split_blocks(x, axis, block_size), axis + 1, -1).reshape(-1, block_size)
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def _mse_step(bits: int) -> float:
    """Step of the "mse" rule, in units of the root mean square."""
    if bits not in MSE_STEP:
        raise ValueError(f"bits is {bits}, but 'mse' has steps for 2 to 8 bits; choose 'search' or 'minmax'.")
    return MSE_STEP[bits]


def _mean_square(rows: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Mean of the squares of each row; in float64 only where float32, which ai-edge-quantizer uses, overflows."""
    with np.errstate(over="ignore"):
        mean = np.asarray(np.mean(np.square(rows), axis=-1))
    return mean if np.isfinite(mean).all() else np.asarray(np.mean(np.square(rows, dtype=np.float64), axis=-1))


def _search(rows: NDArray[np.float32], widest: NDArray[np.float32], highest: int) -> NDArray[np.float32]:
    """Step of each row with the smallest squared error: 49 down to 1/64 of the widest, then 17 around the best."""
    lowest = -highest - (highest < 127)
    widest = np.maximum(widest, SMALLEST_WIDTH / highest)
    best, least = widest, np.full_like(widest, np.inf)
    for factors in (0.5 ** np.linspace(0, 6, 49), np.linspace(0.92, 1.08, 17)):
        around = best
        for factor in factors:
            scale = np.minimum(around * np.float32(factor), widest)
            difference = np.clip(np.rint(rows / scale), lowest, highest) * scale - rows
            error = np.einsum("rn,rn->r", difference, difference, dtype=np.float64)[:, None]
            best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best[:, 0]


def _share(percent: float) -> float:
    """Per cent as a share, checked."""
    if not 50 < percent <= 100:
        raise ValueError(f"percent is {percent}, but must be above 50 and at most 100; 99.9 clips one in a thousand.")
    return percent / 100


def _row_entropy(magnitudes: NDArray[np.float32], highest: int) -> float:
    """Bound of one row of weights by the entropy method, on a histogram of 1,024 bins (or 16 for each level)."""
    bins = max(1024, 16 * highest)
    largest = float(magnitudes.max())
    if largest <= SMALLEST_WIDTH:
        return largest
    counts, _ = np.histogram(magnitudes[magnitudes > 0], bins, (0, largest))
    return entropy_bins(counts, highest + 1, 32) * largest / bins


def _divergence(counts: NDArray[np.int64], kept: int, levels: int) -> float:
    """Kullback-Leibler divergence of the clipped from the clipped and rounded distribution, in nats."""
    inside = counts[:kept]
    starts = -(-np.arange(levels) * kept // levels)
    sizes = np.diff(np.append(starts, kept))
    filled = inside > 0
    poured = np.add.reduceat(inside, starts) / np.maximum(np.add.reduceat(filled.astype(np.int64), starts), 1)
    q = np.repeat(poured, sizes)
    if not filled.any():
        return np.inf
    p, q = inside[filled].astype(np.float64), q[filled]
    p[-1] += counts[kept:].sum()
    return float(np.sum(p / p.sum() * np.log((p / p.sum()) / (q / q.sum()))))


def _inside(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """Cut a range off at the smallest and the largest value that came by."""
    ends = np.clip((low, high), histogram.low, histogram.high)
    return float(ends[0]), float(ends[1])


def _least_error(histogram: Histogram, pairs: list[NDArray[np.float64]], bits: int) -> NDArray[np.float64]:
    """Find the pair (low, high) with the smallest mean squared error; the first of equals."""
    return min(pairs, key=lambda pair: sum(range_error(histogram, pair[0], pair[1], bits)))
