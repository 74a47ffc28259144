"""Remedies for layers that share one scale: move size from channel to channel, and mend the bias.

*Cross-layer equalization.* ReLU lets a positive factor through, ReLU(s x) = s ReLU(x), and so do max pooling and an
average. So channel i of a layer can be divided by any s_i > 0 and the weights that read it multiplied by s_i, and the
network computes what it did:

    W1'[i] = W1[i] / s_i      b1'[i] = b1[i] / s_i      W2'[.., i] = W2[.., i] s_i

Among all these equal networks there is one whose channels use a shared scale best: with r1_i and r2_i the largest
absolute weights that make and that read channel i,

    s_i = sqrt(r1_i r2_i) / r2_i                        both then reach to sqrt(r1_i r2_i)

*Bias correction.* Rounding weights moves what a layer puts out, also on average: by the error of the weights times the
mean of what flows in. That mean error is known, so the bias can take it off:

    E[y~] - E[y] = (W~ - W) E[x]                        b' = b - (W~ - W) E[x]

Arrays are float32 or float64, of any shape; an `axis` says where a tensor's channels lie.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), sections 4.1 and
4.2, https://arxiv.org/abs/1906.04721
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def channel_reach(weights: ArrayLike, axis: int, channels: int | None = None) -> Floats:
    """Largest absolute weight of each channel.

    Parameters
    ----------
    weights : array of floats
        Any shape.
    axis : int
        Where the channels lie.
    channels : int, optional
        How many channels there are, where `axis` runs through them several times: behind a flattening, a dense layer
        reads channel i at i, i + channels, i + 2 channels and so on. By default each index of `axis` is a channel.

    Returns
    -------
    ndarray of float64, shape (channels,)

    Raises
    ------
    ValueError
        If the weights are not finite, or `axis` does not hold a whole number of times the channels.
    """
    array = np.moveaxis(np.asarray(weights, np.float64), axis, 0)
    if not np.isfinite(array).all():
        raise ValueError("weights hold NaN or infinity; equalization needs finite numbers.")
    count = len(array) if channels is None else channels
    if count < 1 or len(array) % count:
        raise ValueError(f"channels is {channels}, but axis {axis} has {len(array)} entries; choose a divisor of it.")
    return np.asarray(np.abs(array).reshape(len(array) // count, count, -1).max(axis=(0, 2)))


def equalizing_scales(first: ArrayLike, second: ArrayLike) -> Floats:
    """Factors s that make both sides reach equally far: s = sqrt(r1 r2) / r2.

    Parameters
    ----------
    first, second : array of floats, shape (channels,)
        Largest absolute weight that makes each channel, and that reads it; at least 0.

    Returns
    -------
    ndarray of float64, shape (channels,)
        Above 0. A channel that nothing makes or nothing reads keeps s = 1: no factor helps it.

    Raises
    ------
    ValueError
        If the shapes differ, or a reach is negative or not finite.
    """
    r1, r2 = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if r1.shape != r2.shape or r1.ndim != 1:
        raise ValueError(f"first has shape {r1.shape} and second {r2.shape}; give one number for each channel to both.")
    if not (np.isfinite(r1).all() and np.isfinite(r2).all() and (r1 >= 0).all() and (r2 >= 0).all()):
        raise ValueError("first and second must be finite and not negative; give largest absolute values.")
    alive = (r1 > 0) & (r2 > 0)
    return np.asarray(np.sqrt(np.divide(r1, r2, out=np.ones_like(r1), where=alive)))


def scale_channels(weights: ArrayLike, axis: int, factors: ArrayLike) -> Floats:
    """Multiply each channel by its factor; where `axis` runs through the channels several times, each time.

    Parameters
    ----------
    weights : array of floats
        Weights, or a bias with axis 0.
    axis : int
        Where the channels lie.
    factors : array of floats, shape (channels,)

    Returns
    -------
    ndarray of float64, of the shape of `weights`
    """
    array, scale = np.asarray(weights, np.float64), np.asarray(factors, np.float64)
    if array.shape[axis] % scale.size:
        raise ValueError(f"factors has {scale.size} entries, but axis {axis} has {array.shape[axis]}; they must fit.")
    along = [1] * array.ndim
    along[axis] = -1
    return np.asarray(array * np.tile(scale, array.shape[axis] // scale.size).reshape(along))


def equalize(
    first: ArrayLike, bias: ArrayLike, second: ArrayLike, axis: int = 0, read_axis: int = -1
) -> tuple[Floats, Floats, Floats]:
    """Equalize two layers with a ReLU, or nothing, between them.

    Parameters
    ----------
    first : array of floats
        Weights of the first layer; its channels, what it puts out, lie along `axis`.
    bias : array of floats, shape (channels,)
        Its bias.
    second : array of floats
        Weights of the layer that reads them, along `read_axis`.
    axis, read_axis : int
        As LiteRT stores weights, 0 and -1; for a depthwise layer, -1 on both sides.

    Returns
    -------
    (first, bias, second) : float64 arrays
        Which compute the same, up to the rounding of floats.
    """
    channels = np.asarray(bias).size
    s = equalizing_scales(channel_reach(first, axis, channels), channel_reach(second, read_axis, channels))
    return scale_channels(first, axis, 1 / s), scale_channels(bias, 0, 1 / s), scale_channels(second, read_axis, s)


def corrected_bias(bias: ArrayLike, weights: ArrayLike, rounded: ArrayLike, mean_input: ArrayLike) -> Floats:
    """Take off the bias what rounding the weights adds to each output on average: b - (W~ - W) E[x].

    Parameters
    ----------
    bias : array of floats, shape (out,)
        Bias of the float layer.
    weights, rounded : array of floats, shape (out, in)
        The weights as they were, and as their grid holds them. Of a convolution: (out, height * width * channels).
    mean_input : array of floats, shape (in,)
        Mean of what flows in, over examples (and, for a convolution, over the places of the window).

    Returns
    -------
    ndarray of float64, shape (out,)

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    w, q = np.asarray(weights, np.float64), np.asarray(rounded, np.float64)
    x, b = np.asarray(mean_input, np.float64), np.asarray(bias, np.float64)
    if w.ndim != 2 or q.shape != w.shape or x.shape != w.shape[1:] or b.shape != w.shape[:1]:
        raise ValueError(
            f"bias has shape {b.shape}, weights {w.shape}, rounded {q.shape} and mean_input {x.shape}; give (out,), "
            "(out, in), (out, in) and (in,)."
        )
    return np.asarray(b - (q - w) @ x)
