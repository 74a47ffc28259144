"""Which weights go: masks with exactly the number of zeros that was asked for.

A mask is a boolean array, ``True`` where a weight is kept. Every function takes *scores* (what a weight is worth, see
``importance``) and not weights, so that a pattern and a measure of importance combine freely.

Among equal scores the one that stands first is kept, in C order, so a mask never depends on chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

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
            f"{_layer(name)}sparsity is {sparsity!r}; "
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
        raise ValueError(f"{_layer(name)}threshold is {threshold!r}; choose a number")
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


def _refuse_nan(scores: Scores, name: str) -> None:
    """Raise if a score is NaN: it would be sorted to the top and kept."""
    if scores.size and np.isnan(scores.max()):
        count = int(np.isnan(scores).sum())
        raise ValueError(
            f"{_layer(name)}scores holds {count} NaN among {scores.size}; give finite scores (are the weights finite?)"
        )


def _layer(name: str) -> str:
    """Start of an error message: which layer it is about, if that is known."""
    return f"layer {name!r}: " if name else ""
