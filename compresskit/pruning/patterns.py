"""Which weights go: masks with exactly the number of zeros that was asked for.

A mask is a boolean array, ``True`` where a weight is kept. Every function takes *scores* (what a weight is worth, see
``importance``) and not weights, so that a pattern and a measure of importance combine freely.

Among equal scores the one that stands first is kept, in C order, so a mask never depends on chance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compresskit.messages import of_layer
from compresskit.pruning import importance

Scores: TypeAlias = NDArray[Any]
Mask: TypeAlias = NDArray[np.bool_]


def removed_count(total: int, sparsity: float, *, name: str = "") -> int:
    """Return how many of ``total`` weights (or blocks, or channels) a sparsity removes.

    Parameters
    ----------
    total : int
        Number of weights.
    sparsity : float
        Fraction to remove, in [0, 1).
    name : str, optional
        Name of the layer, for the error message.

    Returns
    -------
    int
        ``round(sparsity * total)``, halves to the even number.

    Raises
    ------
    ValueError
        If the sparsity is outside [0, 1) or not a number.
    """
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(
            f"{of_layer(name)}sparsity is {sparsity!r}; "
            "choose a number from 0 up to, but not including, 1 (0.9 removes 90 %)"
        )
    return round(sparsity * total)


def unstructured_mask(scores: Scores, sparsity: float, *, name: str = "") -> Mask:
    """Keep the highest scores, wherever they stand.

    Parameters
    ----------
    scores : ndarray, any shape
        Importance of each weight; no NaN.
    sparsity : float
        Fraction to remove, in [0, 1).
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of bool, shape of ``scores``
        ``True`` = kept, with exactly ``round(sparsity * scores.size)`` entries ``False``.

    Raises
    ------
    ValueError
        If the sparsity is outside [0, 1) or a score is NaN.

    Notes
    -----
    Magnitude pruning (Han, Pool, Tran and Dally, 2015, arXiv:1506.02626) when the scores are magnitudes. A partition
    finds the threshold in linear time; the scores that equal it are then let in, first come first kept, until the
    count is exact.
    """
    removed = removed_count(scores.size, sparsity, name=name)
    _refuse_nan(scores, name)
    if removed == 0:
        return np.ones(scores.shape, dtype=bool)
    flat = scores.reshape(-1)
    threshold = np.partition(flat, removed - 1)[removed - 1]
    mask = flat > threshold
    missing = (flat.size - removed) - np.count_nonzero(mask)
    if missing:
        mask[np.flatnonzero(flat == threshold)[:missing]] = True
    return np.asarray(mask.reshape(scores.shape))


def threshold_mask(scores: Scores, threshold: float, *, name: str = "") -> Mask:
    """Keep the scores that reach a fixed threshold; how many these are is for the scores to say.

    Parameters
    ----------
    scores : ndarray, any shape
        Importance of each weight; no NaN.
    threshold : float
        The lowest score that is kept, in units of the scores.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of bool, shape of ``scores``

    Raises
    ------
    ValueError
        If the threshold or a score is NaN.
    """
    if np.isnan(threshold):
        raise ValueError(f"{of_layer(name)}threshold is {threshold!r}; choose a number")
    _refuse_nan(scores, name)
    return np.asarray(scores >= threshold)


def global_masks(scores: Mapping[str, Scores], sparsity: float) -> dict[str, Mask]:
    """Keep the highest scores of the whole network: one threshold for all layers.

    Parameters
    ----------
    scores : mapping of str to ndarray
        Layer name to the importance of each of its weights. The scores must be comparable between layers.
    sparsity : float
        Fraction of all weights together to remove, in [0, 1).

    Returns
    -------
    dict of str to ndarray of bool
        A mask for each layer, of the shape of its scores; exactly ``round(sparsity * total)`` entries are ``False``.
        Among equal scores those of the layers named first are kept.

    Raises
    ------
    ValueError
        If there is no layer, the sparsity is outside [0, 1), or a score is NaN (the message names the layer).
    """
    if not scores:
        raise ValueError("scores is empty: there is no layer to prune; name at least one layer with weights")
    for name, layer_scores in scores.items():
        _refuse_nan(layer_scores, name)
    everything = np.concatenate([layer_scores.reshape(-1) for layer_scores in scores.values()])
    mask = unstructured_mask(everything, sparsity)
    ends = np.cumsum([layer_scores.size for layer_scores in scores.values()])
    parts = np.split(mask, ends[:-1])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


@dataclass(frozen=True)
class Pattern:
    """The shape of what is removed.

    Parameters
    ----------
    kind : {"unstructured", "n:m", "block", "channel"}
        Single weights; all but n of every m; rectangles of the weight matrix; whole channels.
    size : (int, int)
        (n, m) for ``"n:m"``, (rows, columns) for ``"block"``, (1, 1) for the others.
    """

    kind: Literal["unstructured", "n:m", "block", "channel"]
    size: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        """Return the text that `parse_pattern` reads."""
        if self.kind == "n:m":
            return f"{self.size[0]}:{self.size[1]}"
        if self.kind == "block":
            return f"block {self.size[0]}x{self.size[1]}"
        return self.kind

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the pattern itself fixes, ``1 - n/m``; ``None`` where it is free."""
        return 1 - self.size[0] / self.size[1] if self.kind == "n:m" else None


def parse_pattern(text: str) -> Pattern:
    """Read a pattern from its text.

    Parameters
    ----------
    text : str
        ``"unstructured"``, ``"channel"``, ``"2:4"`` (2 of 4 kept; any N:M), or ``"block 4x4"`` (rows x columns).

    Returns
    -------
    Pattern

    Raises
    ------
    ValueError
        If the text is none of these, a block has no size, or N:M does not keep from 1 to M weights.
    """
    if text in ("unstructured", "channel"):
        return Pattern("channel" if text == "channel" else "unstructured")
    if match := re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", text):
        kept, group = int(match[1]), int(match[2])
        _check_n_m(kept, group, "")
        return Pattern("n:m", (kept, group))
    if match := re.fullmatch(r"block ([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text):
        return Pattern("block", (int(match[1]), int(match[2])))
    raise ValueError(f"pattern is {text!r}; choose 'unstructured', 'channel', N:M such as '2:4', or 'block 4x4'")


def pattern_mask(
    scores: Scores, pattern: Pattern | str, sparsity: float | None = None, *, channel_axis: int = 0, name: str = ""
) -> Mask:
    """Return the mask of any pattern.

    Parameters
    ----------
    scores : ndarray, any shape
        Importance of each weight of a layer; no NaN.
    pattern : Pattern or str
        A pattern, or its text (`parse_pattern`).
    sparsity : float, optional
        Fraction to remove, in [0, 1). N:M fixes its own, so there it is left out, or ``1 - n/m``.
    channel_axis : int, optional
        The axis of the output channels: 0, or -1 for a depthwise convolution.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of bool, shape of ``scores``

    Raises
    ------
    ValueError
        As the function of the pattern does; if the sparsity is missing, or is not the one that N:M fixes.
    """
    chosen = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    if chosen.sparsity is not None:
        if sparsity is not None and not np.isclose(sparsity, chosen.sparsity):
            raise ValueError(
                f"{of_layer(name)}sparsity is {sparsity!r}, but the pattern {chosen} removes exactly "
                f"{chosen.sparsity:g}; leave the sparsity out, or choose another N:M"
            )
        return n_m_mask(scores, *chosen.size, name=name)
    if sparsity is None:
        raise ValueError(f"{of_layer(name)}the pattern {chosen} needs a sparsity; give a number in [0, 1)")
    if chosen.kind == "block":
        return block_mask(scores, chosen.size, sparsity, channel_axis=channel_axis, name=name)
    if chosen.kind == "channel":
        kept = channel_mask(importance.per_channel(scores, axis=channel_axis), sparsity, name=name)
        return spread(kept, scores.shape, axis=channel_axis)
    return unstructured_mask(scores, sparsity, name=name)


def n_m_mask(scores: Scores, n: int, m: int, *, axis: int = -1, name: str = "") -> Mask:
    """Keep the ``n`` highest of every ``m`` consecutive scores along an axis.

    Parameters
    ----------
    scores : ndarray, any shape
        Importance of each weight; no NaN.
    n, m : int
        How many are kept of how many, 1 <= n <= m. 2:4 is the pattern of NVIDIA's sparse tensor cores.
    axis : int, optional
        The axis along which the groups lie. The last is the input channel of dense layers and convolutions as LiteRT
        stores them, which is where hardware wants the pattern.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of bool, shape of ``scores``
        ``True`` = kept, exactly n in each group.

    Raises
    ------
    ValueError
        If n is not from 1 to m, m does not divide the axis, or a score is NaN.

    Notes
    -----
    Mishra et al. (2021), *Accelerating sparse deep neural networks*, arXiv:2104.08378. TFMOT counts the other way: its
    ``sparsity_m_by_n=(1, 4)`` is one *zero* in four, here 3:4.
    """
    _check_n_m(n, m, name)
    length = _length(scores, axis, name)
    if length % m:
        raise ValueError(
            f"{of_layer(name)}pattern {n}:{m} does not divide axis {axis} of the weights of shape {scores.shape}, "
            f"which is {length} long; choose an M that divides {length}, or leave this layer out"
        )
    _refuse_nan(scores, name)
    last = np.moveaxis(scores, axis, -1)
    # One contiguous row for each place in the group: comparing rows is what NumPy does fastest.
    places = np.ascontiguousarray(last.reshape(-1, m).T)
    mask = np.empty(places.shape, dtype=bool)
    count = np.min_scalar_type(m)
    for place, score in enumerate(places):
        ahead = np.add.reduce(places[:place] >= score, axis=0, dtype=count)
        ahead += np.add.reduce(places[place + 1 :] > score, axis=0, dtype=count)
        mask[place] = ahead < n
    return np.ascontiguousarray(np.moveaxis(mask.T.reshape(last.shape), -1, axis))


def matrix_view(weights: NDArray[Any], *, channel_axis: int = 0) -> NDArray[Any]:
    """See the weights of a layer as a matrix with a row for each output channel.

    Parameters
    ----------
    weights : ndarray, any shape
        As LiteRT stores them: dense ``(out, in)``, convolution ``(out, height, width, in)``, depthwise ``(1, height,
        width, channels)``.
    channel_axis : int, optional
        The axis of the output channels: 0, or -1 for a depthwise convolution.

    Returns
    -------
    ndarray, shape (channels, weights of a channel)
        Dense: the matrix itself. Convolution: row o is filter o, columns run over (height, width, in), so four
        neighbours in a row are four input channels at one place, if there are that many. No copy for axis 0.
    """
    first = np.moveaxis(weights, channel_axis, 0)
    return first.reshape(first.shape[0], -1)


def block_mask(
    scores: Scores,
    block: tuple[int, int],
    sparsity: float,
    *,
    pool: importance.Pool = "l1",
    channel_axis: int = 0,
    name: str = "",
) -> Mask:
    """Keep the rectangles of the weight matrix that score highest together.

    Parameters
    ----------
    scores : ndarray, any shape
        Importance of each weight; no NaN.
    block : (int, int)
        Rows and columns of a block in `matrix_view` of the weights: (1, 4), (4, 4), (16, 1) and so on.
    sparsity : float
        Fraction of the blocks to remove, in [0, 1).
    pool : {"l1", "l2", "mean", "max"}, optional
        How the scores of a block become one (`importance.per_block`).
    channel_axis : int, optional
        The axis of the output channels: 0, or -1 for a depthwise convolution.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of bool, shape of ``scores``
        ``True`` = kept; exactly ``round(sparsity * blocks)`` blocks are ``False``.

    Raises
    ------
    ValueError
        If the block does not divide the matrix, the sparsity is outside [0, 1), or a score is NaN.

    Notes
    -----
    Gray, Radford and Kingma (2017), *GPU kernels for block-sparse weights*.
    """
    matrix = matrix_view(scores, channel_axis=channel_axis)
    kept = unstructured_mask(importance.per_block(matrix, block, pool=pool, name=name), sparsity, name=name)
    weights_kept = np.repeat(np.repeat(kept, block[0], axis=0), block[1], axis=1)
    first = np.moveaxis(scores, channel_axis, 0)
    return np.ascontiguousarray(np.moveaxis(weights_kept.reshape(first.shape), 0, channel_axis))


def channel_mask(channel_scores: Scores, sparsity: float, *, name: str = "") -> Mask:
    """Keep the channels (filters, neurons) that score highest.

    Parameters
    ----------
    channel_scores : ndarray, shape (channels,)
        One score for each channel (`importance.per_channel`); no NaN.
    sparsity : float
        Fraction of the channels to remove, in [0, 1).
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of bool, shape (channels,)
        ``True`` = kept; exactly ``round(sparsity * channels)`` entries are ``False``.

    Raises
    ------
    ValueError
        If every channel would go, the scores are not one row, the sparsity is outside [0, 1), or a score is NaN.

    Notes
    -----
    Li, Kadav, Durdanovic, Samet and Graf (2016), *Pruning filters for efficient ConvNets*, arXiv:1608.08710.
    """
    if channel_scores.ndim != 1 or not channel_scores.size:
        raise ValueError(
            f"{of_layer(name)}channel_scores has shape {channel_scores.shape}; give one score for each channel"
        )
    channels = channel_scores.size
    if removed_count(channels, sparsity, name=name) == channels:
        highest = np.floor(1000 * (channels - 1) / channels) / 1000
        raise ValueError(
            f"{of_layer(name)}sparsity {sparsity!r} removes every one of the {channels} channels; "
            f"choose at most {highest:g}, so that one is left"
        )
    return unstructured_mask(channel_scores, sparsity, name=name)


def spread(channels_kept: Mask, shape: tuple[int, ...], *, axis: int = 0) -> Mask:
    """Give every weight the mask of its channel.

    Parameters
    ----------
    channels_kept : ndarray of bool, shape (channels,)
        ``True`` = kept.
    shape : tuple of int
        Shape of the weights.
    axis : int, optional
        The axis of the channel: 0 for filters and neurons, -1 for input channels (and depthwise convolutions).

    Returns
    -------
    ndarray of bool, of the given shape

    Raises
    ------
    ValueError
        If the axis is not as long as there are channels.
    """
    if not -len(shape) <= axis < len(shape) or channels_kept.shape != (shape[axis],):
        raise ValueError(
            f"channels_kept has shape {channels_kept.shape}; give one entry for each place on axis {axis} of {shape}"
        )
    along = [1] * len(shape)
    along[axis] = -1
    return np.broadcast_to(channels_kept.reshape(along), shape).copy()


def erdos_renyi_kernel(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Share a network's sparsity out to its layers: small layers keep more, large ones give more.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Layer name to the shape of its weights.
    sparsity : float
        Fraction of all weights together to remove, in [0, 1).

    Returns
    -------
    dict of str to float
        Sparsity of each layer, in [0, 1). `unstructured_mask` with these removes exactly ``round(sparsity * total)``
        weights in all. No layer loses its last weight.

    Raises
    ------
    ValueError
        If there is no layer, a layer has no weights, the sparsity is outside [0, 1), or fewer weights would be left
        than there are layers.

    Notes
    -----
    The density of a layer is proportional to ``sum(shape) / prod(shape)``, at most 1: Evci, Gale, Menick, Castro and
    Elsen (2020), *Rigging the lottery*, arXiv:1911.11134. The factor ε for which the layers add up to the whole is
    found on the broken line that the total is as a function of ε; fractions of a weight are then given out by largest
    remainder.
    """
    if not shapes:
        raise ValueError("shapes is empty: there is no layer to prune; name at least one layer with weights")
    size = np.array([np.prod(shape, dtype=np.int64) for shape in shapes.values()])
    for name, count in zip(shapes, size, strict=True):
        if count < 1:
            raise ValueError(f"{of_layer(name)}shape is {shapes[name]}, which holds no weights; leave this layer out")
    total = int(size.sum())
    kept = total - removed_count(total, sparsity)
    if kept < len(size):
        raise ValueError(
            f"sparsity {sparsity!r} leaves {kept} of {total} weights for {len(size)} layers; "
            "choose a lower one, so that each layer keeps a weight"
        )
    kept_by_layer = _whole_numbers(_erk_shares(np.array([sum(shape) for shape in shapes.values()]), size, kept), kept)
    removed = size - kept_by_layer
    return {name: int(gone) / int(count) for name, gone, count in zip(shapes, removed, size, strict=True)}


def _erk_shares(perimeter: NDArray[np.int64], size: NDArray[np.int64], kept: int) -> NDArray[np.float64]:
    """Return ε · perimeter, held between 1 and the size of the layer, with the ε that makes the sum ``kept``."""
    corners = np.unique(np.concatenate([1 / perimeter, size / perimeter]))
    totals = np.array([np.clip(corner * perimeter, 1, size).sum() for corner in corners])
    epsilon = np.interp(kept, totals, corners)
    return np.asarray(np.clip(epsilon * perimeter, 1, size))


def _whole_numbers(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Round shares to whole numbers with a given sum: the largest remainders are rounded up."""
    whole = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(whole - shares, kind="stable")
    whole[by_remainder[: total - int(whole.sum())]] += 1
    return whole


def _check_n_m(n: int, m: int, name: str) -> None:
    """Raise if N:M is not a pattern."""
    if not 1 <= n <= m:
        raise ValueError(f"{of_layer(name)}pattern is {n}:{m}; choose N:M with N from 1 to M, as in 2:4 (2 of 4 kept)")


def _length(scores: Scores, axis: int, name: str) -> int:
    """Length of an axis that must exist."""
    if not -scores.ndim <= axis < scores.ndim:
        raise ValueError(f"{of_layer(name)}axis is {axis}; the weights of shape {scores.shape} have {scores.ndim} axes")
    return int(scores.shape[axis])


def _refuse_nan(scores: Scores, name: str) -> None:
    """Raise if a score is NaN: it would be sorted to the top and kept."""
    if scores.size and np.isnan(scores.max()):
        count = int(np.isnan(scores).sum())
        raise ValueError(
            f"{of_layer(name)}scores holds {count} NaN among {scores.size}; "
            "give finite scores (are the weights finite?)"
        )
