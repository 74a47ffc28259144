"""Affine quantization: real numbers on a grid of integers.

A grid has a step, the *scale* S > 0, and an integer that stands for the real number 0, the *zero point* Z:

    q = clip(round(x / S) + Z, lowest, highest)        real to integer
    x' = S * (q - Z)                                   integer to real

A symmetric grid has Z = 0 and reaches as far down as up: LiteRT wants it for weights. An affine (asymmetric) grid puts
its integers where the values are, say from 0 upwards behind a ReLU: LiteRT's way for activations. Either can hold one
scale for a tensor, one for each channel, or one for each block of weights.

All arithmetic is float32, as in a `.tflite` file and in ai-edge-quantizer, whose scales, zero points and integer
weights these functions reproduce to the bit.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(2018), https://arxiv.org/abs/1712.05877; LiteRT's 8-bit quantization specification,
https://ai.google.dev/edge/litert/models/quantization_spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rounding = Literal["even", "away"]

SMALLEST_WIDTH = 1e-9
"""A range narrower than this is widened to it, so that a tensor of zeros still has a scale (ai-edge-quantizer's)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The integers a tensor may use, and the real numbers they stand for.

    Attributes
    ----------
    scale : ndarray of float32
        The step S. Shape () for a tensor, (channels,) per channel; per block the shape of the tensor with its `axis`
        counted in blocks.
    zero_point : ndarray of int32
        The integer Z that stands for 0.0, of the same shape as `scale`.
    bits : int
        Width of the integers, 2 to 16.
    signed : bool
        -128..127 (for 8 bits) if true, else 0..255.
    narrow : bool
        Leave out the lowest integer: -127..127, so that the grid is its own mirror image.
    axis : int or None
        The axis along which there are several scales. None: one for the whole tensor.
    block_size : int
        Values along `axis` that share a scale; 0: one scale for each index of `axis`, shared over all other axes.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    bits: int = 8
    signed: bool = True
    narrow: bool = False
    axis: int | None = None
    block_size: int = 0

    def __post_init__(self) -> None:
        check_bits(self.bits)
        object.__setattr__(self, "scale", np.asarray(self.scale, np.float32))
        zero_point = np.broadcast_to(np.asarray(self.zero_point, np.int32), self.scale.shape)
        object.__setattr__(self, "zero_point", zero_point)
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("scale must be finite and above 0 everywhere; take it from symmetric_grid or affine_grid.")
        if ((zero_point < self.lowest) | (zero_point > self.highest)).any():
            raise ValueError(f"zero_point must be one of the integers {self.lowest} to {self.highest} of this grid.")
        if self.axis is None and (self.scale.ndim or self.block_size):
            raise ValueError(f"scale has shape {self.scale.shape}, but axis is None; say along which axis it varies.")

    @property
    def lowest(self) -> int:
        """The smallest integer of the grid."""
        return (-(1 << (self.bits - 1)) if self.signed else 0) + int(self.narrow)

    @property
    def highest(self) -> int:
        """The largest integer of the grid."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type that holds the integers: int8, uint8, int16 or uint16."""
        return np.dtype(f"{'int' if self.signed else 'uint'}{8 if self.bits <= 8 else 16}")

    @property
    def low(self) -> NDArray[np.float32]:
        """The smallest real number on the grid, of the shape of `scale`."""
        return self.scale * (self.lowest - self.zero_point).astype(np.float32)

    @property
    def high(self) -> NDArray[np.float32]:
        """The largest real number on the grid, of the shape of `scale`."""
        return self.scale * (self.highest - self.zero_point).astype(np.float32)

    def spread(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Scale and zero point in shapes that broadcast against a tensor of `shape`."""
        if self.axis is None:
            return self.scale, self.zero_point
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"axis is {self.axis}, but the tensor has shape {shape}; choose one of its axes.")
        axis = self.axis % len(shape)
        if self.block_size:
            scale = np.repeat(self.scale, self.block_size, axis)
            zero_point = np.repeat(self.zero_point, self.block_size, axis)
        else:
            row = [-1 if i == axis else 1 for i in range(len(shape))]
            scale, zero_point = self.scale.reshape(row), self.zero_point.reshape(row)
        if scale.shape[axis] != shape[axis] or (self.block_size and scale.shape != shape):
            raise ValueError(
                f"the grid has scales for {scale.shape[axis]} values along axis {axis}, but the tensor has shape "
                f"{shape}; make the grid from a tensor of the same shape."
            )
        return scale, zero_point


def symmetric_grid(
    bound: ArrayLike,
    bits: int = 8,
    *,
    signed: bool = True,
    narrow: bool | None = None,
    axis: int | None = None,
    block_size: int = 0,
) -> Grid:
    """Make the grid from -bound to bound, with 0.0 in its middle: S = bound / (2^(bits-1) - 1).

    Parameters
    ----------
    bound : float or array of floats
        The largest absolute value; an array for several channels or blocks (see `Grid.scale`).
    bits : int, default 8
        Width of the integers, 2 to 16.
    signed : bool, default True
        Unsigned: the same grid, its integers moved up by Z = 2^(bits-1).
    narrow : bool, optional
        Leave out the lowest integer (-128 for 8 bits). By default as LiteRT does: from 8 bits on. With 2 bits it would
        cost one of four levels.
    axis, block_size
        See `Grid`. Scales of blocks are rounded to 8 significant bits in half precision, as LiteRT stores them.

    Raises
    ------
    ValueError
        If a bound is negative, infinite or NaN, or `bits` is not 2 to 16.
    """
    check_bits(bits)
    width = _finite(bound, "bound")
    if (width < 0).any():
        raise ValueError(f"bound must not be negative, but is {width.min()}; give the largest absolute value.")
    scale = np.asarray(np.maximum(width, SMALLEST_WIDTH) / (2 ** (bits - 1) - 1), np.float32)
    if block_size:
        scale = block_scale(scale)
    zero_point = np.full(scale.shape, 0 if signed else 2 ** (bits - 1), np.int32)
    return Grid(scale, zero_point, bits, signed, bits >= 8 if narrow is None else narrow, axis, block_size)


def affine_grid(
    low: ArrayLike,
    high: ArrayLike,
    bits: int = 8,
    *,
    signed: bool = True,
    axis: int | None = None,
    block_size: int = 0,
) -> Grid:
    """Make the grid from low to high, widened to contain 0: S = (high - low) / (2^bits - 1), Z = round(lowest - low/S).

    Zero must be on the grid *exactly*: padding, ReLU and pruned weights are zeros, and a zero that becomes 0.01 is an
    error added to every sum. Rounding Z shifts the grid by at most half a step, so that `low` and `high` are then
    only nearly its ends.

    TensorFlow's `fake_quant_with_min_max_vars` gives the same numbers but in three cases: where -low / S lies half
    way between integers, its Z goes away from zero and this one to the even integer; a range without 0 it moves to 0
    without widening it; and a value half way between two numbers of the grid it rounds up.

    Parameters
    ----------
    low, high : float or array of floats
        The range; arrays for several channels or blocks (see `Grid.scale`).
    bits : int, default 8
        Width of the integers, 2 to 16.
    signed : bool, default True
        Whether the lowest integer is -2^(bits-1) or 0.
    axis, block_size
        See `Grid`.

    Raises
    ------
    ValueError
        If low is above high, a bound is infinite or NaN, the width exceeds float32, or `bits` is not 2 to 16.
    """
    check_bits(bits)
    bottom, top = np.broadcast_arrays(_finite(low, "low"), _finite(high, "high"))
    if (bottom > top).any():
        raise ValueError(f"low must not be above high, but low is {bottom} and high is {top}; exchange them.")
    bottom, top = np.minimum(bottom, 0), np.maximum(top, 0)
    with np.errstate(over="ignore"):
        width = np.maximum(top - bottom, SMALLEST_WIDTH)
    if not np.isfinite(width).all():
        raise ValueError(f"the range from {bottom.min()} to {top.max()} is wider than float32 can say; clip it first.")
    scale = np.asarray(width / (2**bits - 1), np.float32)
    if block_size:
        scale = block_scale(scale)
    lowest = -(2 ** (bits - 1)) if signed else 0
    zero_point = np.clip(np.rint(lowest - bottom / scale), lowest, lowest + 2**bits - 1)
    return Grid(scale, zero_point.astype(np.int32), bits, signed, False, axis, block_size)


def quantize(x: ArrayLike, grid: Grid, rounding: Rounding = "even") -> NDArray[Any]:
    """Real numbers to integers: clip(round(x / S) + Z, lowest, highest).

    Parameters
    ----------
    x : array of floats
        Any shape; infinities become the ends of the grid.
    grid : Grid
        Scale, zero point and width.
    rounding : {"even", "away"}
        Where x / S falls half way between two integers: to the even one (NumPy, ai-edge-quantizer, XNNPACK) or away
        from zero (C's `round`, LiteRT's reference kernels, TFLiteConverter).

    Returns
    -------
    ndarray of `grid.dtype`, of the shape of x

    Raises
    ------
    ValueError
        If x holds NaN, which no integer stands for, or does not fit the grid's channels.
    """
    x = np.asarray(x, np.float32)
    scale, zero_point = grid.spread(x.shape)
    with np.errstate(over="ignore"):
        q = round_half(x / scale, rounding) + zero_point.astype(np.float32)
    if np.isnan(q).any():
        raise ValueError("x holds NaN, which no integer stands for; find out where it comes from before quantizing.")
    return np.asarray(np.clip(q, grid.lowest, grid.highest), grid.dtype)


def dequantize(q: ArrayLike, grid: Grid) -> NDArray[np.float32]:
    """Integers back to the real numbers they stand for: S * (q - Z), float32."""
    q = np.asarray(q)
    scale, zero_point = grid.spread(q.shape)
    return np.asarray(scale * (q.astype(np.int32) - zero_point).astype(np.float32))


def fake_quantize(x: ArrayLike, grid: Grid, rounding: Rounding = "even") -> NDArray[np.float32]:
    """Quantize and dequantize at once: x moved to the nearest real number on the grid, float32."""
    return dequantize(quantize(x, grid, rounding), grid)


def value_range(
    x: ArrayLike, axis: int | None = None, block_size: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smallest and largest value of the tensor, of each channel of `axis`, or of each block along it.

    Returns
    -------
    (low, high) : float32 arrays in the shape that `Grid.scale` has

    Raises
    ------
    ValueError
        If x is empty, holds NaN or infinities, or `axis` cannot be cut into blocks of `block_size`.
    """
    x = np.asarray(x, np.float32)
    if x.size == 0:
        raise ValueError(f"x has shape {x.shape}: no values, and so no range; pass at least one.")
    if axis is None:
        low, high = x.min(), x.max()
    else:
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"axis is {axis}, but x has shape {x.shape}; choose one of its axes.")
        axis %= x.ndim
        others: int | tuple[int, ...] = tuple(i for i in range(x.ndim) if i != axis)
        if block_size:
            x, others = split_blocks(x, axis, block_size), axis + 1
        low, high = x.min(others), x.max(others)
    return _finite(low, "x"), _finite(high, "x")


def split_blocks(x: NDArray[Any], axis: int, block_size: int) -> NDArray[Any]:
    """View of x in which `axis` is cut in two: (..., n, ...) becomes (..., n / block_size, block_size, ...)."""
    n = x.shape[axis]
    if block_size < 1 or n % block_size:
        raise ValueError(f"block_size is {block_size}, but axis {axis} has {n} values; choose a divisor of {n}.")
    return x.reshape(*x.shape[:axis], n // block_size, block_size, *x.shape[axis + 1 :])


def round_half(x: NDArray[Any], rounding: Rounding = "even") -> NDArray[Any]:
    """Round to the nearest integer; halves to the even neighbour, or away from zero."""
    if rounding == "even":
        return np.asarray(np.rint(x))
    if rounding == "away":
        whole = np.trunc(x)  # not floor(x + 0.5): the sum of 0.49999997 and 0.5 is 1 in float32
        with np.errstate(invalid="ignore"):  # of infinities, which stay
            return np.asarray(whole + np.copysign(np.abs(x - whole) >= 0.5, x))
    raise ValueError(f"rounding is {rounding!r}; choose 'even' or 'away'.")


def block_scale(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round scales as a blockwise `.tflite` stores them: half precision, of which 8 significant bits are used.

    Both roundings are to nearest, halves to even. Scales below the smallest half-precision number, 2^-24, become that
    number (ai-edge-quantizer makes them 0, and divides by it).
    """
    significand, exponent = np.frexp(scale)
    rounded = np.ldexp(np.rint(significand * 256), exponent - 8)
    if (rounded > np.finfo(np.float16).max).any():
        raise ValueError(f"a block needs the scale {rounded.max()}, but half precision ends at 65504; use channels.")
    half = np.maximum(rounded.astype(np.float16), np.finfo(np.float16).smallest_subnormal)
    return np.asarray(half, np.float32)


def check_bits(bits: int) -> None:
    """Raise ValueError unless `bits` is a whole number from 2 to 16."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 2 <= bits <= 16:
        raise ValueError(f"bits must be a whole number from 2 to 16, but is {bits!r}.")


def _finite(values: ArrayLike, name: str) -> NDArray[np.float32]:
    """`values` as float32, or ValueError if one of them is not a finite number."""
    with np.errstate(over="ignore"):
        array = np.asarray(values, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN, infinity or a number beyond float32; quantization needs finite numbers.")
    return array
