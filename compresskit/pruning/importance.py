"""What a weight is worth: scores that say which weights to keep.

Weights are arranged as LiteRT stores them: a dense layer is ``(out, in)``, a convolution ``(out, height, width, in)``,
a depthwise convolution ``(1, height, width, channels)``. A higher score is a weight worth more. The scores of single
weights come from `magnitude`, `activation`, `taylor` or `chance`; `per_channel` and `per_block` pool them for patterns
that remove weights together.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compresskit.messages import of_layer

Weights: TypeAlias = NDArray[Any]
Scores: TypeAlias = NDArray[Any]
Pool: TypeAlias = Literal["l1", "l2", "mean", "max"]


def magnitude(weights: Weights) -> Scores:
    """Score a weight by its absolute value.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer.

    Returns
    -------
    ndarray, shape and dtype of ``weights``

    Notes
    -----
    Han, Pool, Tran and Dally (2015), *Learning both weights and connections for efficient neural networks*,
    arXiv:1506.02626.
    """
    return np.asarray(np.abs(weights))


def activation(weights: Weights, input_scale: ArrayLike, *, name: str = "") -> Scores:
    """Score a weight by its absolute value times how strong its input is on average: |w_ij| · mean|x_j|.

    Parameters
    ----------
    weights : ndarray, shape (..., channels in)
        Weights of a layer, the input channel last.
    input_scale : array_like, shape (channels in,)
        Mean absolute value of each input channel (`mean_absolute_input`), not negative.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray, shape of ``weights``
        What the weight adds to the output, on average, in units of the output.

    Raises
    ------
    ValueError
        If there is not one scale for each input channel, or a scale is negative or not finite.

    Notes
    -----
    Sun, Liu, Bair and Kolter (2023), *A simple and effective pruning approach for large language models* (Wanda),
    arXiv:2306.11695, with the mean of |x| in the place of the Euclidean norm.
    """
    scale = np.asarray(input_scale)
    if scale.shape != weights.shape[-1:]:
        raise ValueError(
            f"{of_layer(name)}input_scale has shape {scale.shape}; give one value for each of the "
            f"{weights.shape[-1]} input channels of weights of shape {weights.shape}"
        )
    if not np.all(np.isfinite(scale)) or np.any(scale < 0):
        raise ValueError(f"{of_layer(name)}input_scale holds values that are negative or not finite; give means of |x|")
    return np.asarray(np.abs(weights) * scale.astype(weights.dtype, copy=False))


def mean_absolute_input(inputs: NDArray[Any], *, name: str = "") -> NDArray[np.float64]:
    """Average |x| over samples and positions, for each input channel.

    Parameters
    ----------
    inputs : ndarray, shape (n, ..., channels)
        What the layer read while the network ran over n samples.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of float64, shape (channels,)
        For a convolution the border is counted like any other place, though the outermost weights see it less often.

    Raises
    ------
    ValueError
        If there are no samples, or an input is not finite.
    """
    if inputs.ndim < 2 or inputs.shape[0] == 0:
        raise ValueError(
            f"{of_layer(name)}inputs has shape {inputs.shape}; give what the layer read for at least one sample, "
            "as (n, ..., channels)"
        )
    scale = np.abs(inputs).mean(axis=tuple(range(inputs.ndim - 1)), dtype=np.float64)
    if not np.all(np.isfinite(scale)):
        raise ValueError(f"{of_layer(name)}inputs holds values that are not finite; look at the samples you ran")
    return np.asarray(scale)


def taylor(weights: Weights, gradients: NDArray[Any], *, name: str = "") -> Scores:
    """Score a weight by how much the loss changes when it goes, to first order: |w · ∂L/∂w|.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer.
    gradients : ndarray, shape of ``weights``
        Gradient of the loss, averaged over samples.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray, shape of ``weights``
        In units of the loss.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    LeCun, Denker and Solla (1989), *Optimal brain damage*, stop one order later; Molchanov et al. (2019), *Importance
    estimation for neural network pruning*, arXiv:1906.10771, found the first order good enough.
    """
    _same_shape(weights, gradients, name)
    return np.asarray(np.abs(weights * gradients))


def taylor_channel(weights: Weights, gradients: NDArray[Any], *, axis: int = 0, name: str = "") -> NDArray[np.float64]:
    """Score a channel by how much the loss changes when all its weights go: |Σ w · ∂L/∂w|.

    The changes are added with their signs, so weights whose removal cancels out count for nothing together, which
    `per_channel` over `taylor` scores does not see.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer.
    gradients : ndarray, shape of ``weights``
        Gradient of the loss, averaged over samples.
    axis : int, optional
        The axis of the channel: 0 for filters and neurons, -1 for input channels.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of float64, shape (weights.shape[axis],)

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    Molchanov, Tyree, Karras, Aila and Kautz (2017), *Pruning convolutional neural networks for resource efficient
    inference*, arXiv:1611.06440.
    """
    _same_shape(weights, gradients, name)
    change = weights.astype(np.float64) * gradients
    return np.asarray(np.abs(change.sum(axis=_other_axes(change, axis))))


def chance(weights: Weights, *, seed: int) -> NDArray[np.float32]:
    """Score by lot: the control that every other measure has to beat.

    Parameters
    ----------
    weights : ndarray, any shape
        Weights of a layer; only the shape is looked at.
    seed : int
        The same seed and shape give the same scores.

    Returns
    -------
    ndarray of float32, shape of ``weights``
        Uniform in [0, 1).
    """
    return np.random.default_rng(seed).random(weights.shape, dtype=np.float32)


def batch_norm_scale(gamma: ArrayLike, *, name: str = "") -> NDArray[Any]:
    """Score a channel by the scale that batch normalization gives it: |γ|.

    Parameters
    ----------
    gamma : array_like, shape (channels,)
        Scale of the batch normalization that follows the layer.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray, shape (channels,)

    Raises
    ------
    ValueError
        If ``gamma`` does not have exactly one axis.

    Notes
    -----
    Liu et al. (2017), *Learning efficient convolutional networks through network slimming*, arXiv:1708.06519.
    """
    scale = np.abs(np.asarray(gamma))
    if scale.ndim != 1:
        raise ValueError(f"{of_layer(name)}gamma has shape {scale.shape}; give one value for each channel")
    return np.asarray(scale)


def per_channel(scores: Scores, *, axis: int = 0, pool: Pool = "l1") -> NDArray[np.float64]:
    """Pool the scores of single weights into one score for each channel.

    Parameters
    ----------
    scores : ndarray, any shape
        Scores of single weights, not negative.
    axis : int, optional
        The axis of the channel: 0 for filters and neurons, -1 for input channels.
    pool : {"l1", "l2", "mean", "max"}, optional
        Sum, root of the sum of squares, mean, or maximum. Over magnitudes the first two are the L1 and L2 norms.

    Returns
    -------
    ndarray of float64, shape (scores.shape[axis],)

    Raises
    ------
    ValueError
        If ``pool`` is not one of the four.

    Notes
    -----
    L1 norm of filters: Li, Kadav, Durdanovic, Samet and Graf (2016), *Pruning filters for efficient ConvNets*,
    arXiv:1608.08710.
    """
    return _pooled(scores, _other_axes(scores, axis), pool)


def per_block(scores: Scores, block: tuple[int, int], *, pool: Pool = "l1", name: str = "") -> NDArray[np.float64]:
    """Pool the scores of single weights into one score for each block of a matrix.

    Parameters
    ----------
    scores : ndarray, shape (rows, columns)
        Scores of single weights, not negative.
    block : (int, int)
        Rows and columns of a block; they divide the matrix without rest.
    pool : {"l1", "l2", "mean", "max"}, optional
        Sum, root of the sum of squares, mean, or maximum.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of float64, shape (rows / block rows, columns / block columns)

    Raises
    ------
    ValueError
        If ``scores`` is not a matrix, the block does not divide it, or ``pool`` is not one of the four.

    Notes
    -----
    Narang, Undersander and Diamos (2017), *Block-sparse recurrent neural networks*, arXiv:1711.02782, pool by maximum.
    """
    if scores.ndim != 2:
        raise ValueError(f"{of_layer(name)}scores has shape {scores.shape}; blocks are cut from a matrix")
    rows, columns = block
    if rows < 1 or columns < 1 or scores.shape[0] % rows or scores.shape[1] % columns:
        raise ValueError(
            f"{of_layer(name)}block {rows}x{columns} does not divide the {scores.shape[0]}x{scores.shape[1]} weight "
            "matrix; choose a block whose sides divide the matrix's"
        )
    cut = scores.reshape(scores.shape[0] // rows, rows, scores.shape[1] // columns, columns)
    return _pooled(cut, (1, 3), pool)


def _pooled(scores: Scores, axes: tuple[int, ...], pool: Pool) -> NDArray[np.float64]:
    """Pool over some axes, in float64, so that equal channels get equal scores."""
    if pool == "l1":
        return np.asarray(scores.sum(axis=axes, dtype=np.float64))
    if pool == "l2":
        return np.asarray(np.sqrt(np.square(scores, dtype=np.float64).sum(axis=axes)))
    if pool == "mean":
        return np.asarray(scores.mean(axis=axes, dtype=np.float64))
    if pool == "max":
        return np.asarray(scores.max(axis=axes), dtype=np.float64)
    raise ValueError(f"pool is {pool!r}; choose 'l1', 'l2', 'mean' or 'max'")


def _other_axes(values: NDArray[Any], axis: int) -> tuple[int, ...]:
    """All axes but one."""
    if not -values.ndim <= axis < values.ndim:
        raise ValueError(f"axis is {axis}; the array of shape {values.shape} has {values.ndim} axes")
    return tuple(other for other in range(values.ndim) if other != axis % values.ndim)


def _same_shape(weights: Weights, gradients: NDArray[Any], name: str) -> None:
    """Raise if there is not one gradient for each weight."""
    if weights.shape != gradients.shape:
        raise ValueError(
            f"{of_layer(name)}gradients has shape {gradients.shape}; give one for each weight, as {weights.shape}"
        )
