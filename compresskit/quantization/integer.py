"""A network in integers: what LiteRT computes for an int8 model, number for number.

A layer multiplies int8 inputs by int8 weights and adds up in int32. With real numbers r = S (q - Z) on both sides,

    S_out (q_out - Z_out) = sum of S_in (q_in - Z_in) * S_w q_w  +  S_in S_w q_bias

so the bias is stored in int32 with the scale S_in * S_w, and one real number a channel is left:

    q_out = Z_out + M * accumulator,    M = S_in S_w / S_out

A processor without floating point multiplies by M as by m / 2^31 * 2^shift, with an integer m from 2^30 to 2^31
(Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 2.2). How that product is rounded differs from kernel to
kernel; measured on ai-edge-litert 2.3 (see `Rounding`):

- "twice": first to 32 bits, halves up, then by the shift, halves away from zero. Reference CONV_2D, DEPTHWISE_CONV_2D,
  MEAN and QUANTIZE; gemmlowp's way, and CMSIS-NN's.
- "once": one shift at the end, halves up. Other kernels, when built for it.
- "float64": M in double precision, halves away from zero. Reference FULLY_CONNECTED.
- "float32": M and the accumulator in single precision, halves to even. XNNPACK's convolutions and dense layers, the
  kernels used by default. (Its MEAN and QUANTIZE round in ways of their own.)

One layer's outputs differ by one unit, where M * accumulator is close to a half; in a deep network the differences of
one layer are inputs of the next. Layers below are plain values that know nothing of
files; `compresskit.litert.integer_layers` reads them from a `.tflite`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compresskit.quantization.affine import round_half

Rounding = Literal["twice", "once", "float64", "float32"]
Activation = Literal["none", "relu", "relu6", "relu_n1_to_1"]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


# The arithmetic of one number


def quantize_multiplier(real: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write a positive real number as m / 2^31 * 2^shift with an integer m of 31 bits.

    Parameters
    ----------
    real : float or array of float64
        M = S_in S_w / S_out.

    Returns
    -------
    (m, shift) : int64 arrays of the shape of `real`
        2^30 <= m < 2^31, or m = 0 for numbers below 2^-32, which no 32-bit accumulator lifts to a half.

    Raises
    ------
    ValueError
        If a number is negative, infinite or NaN.
    """
    value = np.asarray(real, np.float64)
    if not (np.isfinite(value).all() and (value >= 0).all()):
        raise ValueError(f"real is {value}, but a multiplier must be finite and not negative; check the scales.")
    fraction, exponent = np.frexp(value)
    m, shift = np.floor(fraction * 2**31 + 0.5).astype(np.int64), exponent.astype(np.int64)
    full = m == 2**31
    m, shift = np.where(full, 2**30, m), np.where(full, shift + 1, shift)
    tiny = shift < -31
    return np.where(tiny, 0, m), np.where(tiny, 0, shift)


def doubling_high_multiply(a: ArrayLike, b: ArrayLike) -> NDArray[np.int32]:
    """Multiply two int32 and keep the high half of twice the product: a * b / 2^31, halves up, saturated.

    ARM's SQRDMULH, gemmlowp's SaturatingRoundingDoublingHighMul. The one product that does not fit, -2^31 * -2^31,
    gives 2^31 - 1.
    """
    high = (np.multiply(a, b, dtype=np.int64) + 2**30) >> 31
    if np.min(b) == INT32_MIN:
        high = np.minimum(high, INT32_MAX)
    return np.asarray(high, np.int32)


def divide_by_power_of_two(x: ArrayLike, exponent: ArrayLike) -> NDArray[np.int32]:
    """Divide int32 by 2^exponent, 0 to 31, to the nearest integer, halves away from zero (RoundingDivideByPOT)."""
    number, places = np.asarray(x, np.int32), np.asarray(exponent, np.int32)
    mask = ((np.int64(1) << places) - 1).astype(np.int32)
    rest, half = number & mask, (mask >> 1) + (number < 0)
    return np.asarray((number >> places) + (rest > half))


def multiply_by_multiplier(x: ArrayLike, m: ArrayLike, shift: ArrayLike) -> NDArray[np.int32]:
    """Compute x * m / 2^31 * 2^shift as LiteRT does, rounding twice (MultiplyByQuantizedMultiplier).

    A positive shift is applied before the multiplication, a negative one after it.
    """
    left, right = np.maximum(shift, 0), np.maximum(np.negative(shift), 0)
    number = np.asarray(x, np.int64) << left if left.any() else x
    return divide_by_power_of_two(doubling_high_multiply(number, m), right)


def multiply_rounding_once(x: ArrayLike, m: ArrayLike, shift: ArrayLike) -> NDArray[np.int64]:
    """Compute x * m / 2^31 * 2^shift with one rounding at the end, halves up."""
    total = 31 - np.asarray(shift, np.int64)
    return np.asarray((np.multiply(x, m, dtype=np.int64) + (np.int64(1) << (total - 1))) >> total)


def quantize_bias(bias: ArrayLike, input_scale: ArrayLike, weight_scale: ArrayLike) -> NDArray[np.int32]:
    """Round a bias to int32 with the scale S_in * S_w, in which the accumulator counts; one a channel.

    Halves go to the even integer, and the scale is a float32 product: ai-edge-quantizer's bias, to the bit.
    """
    scale = np.asarray(input_scale, np.float32) * np.asarray(weight_scale, np.float32)
    steps = np.rint(np.asarray(bias, np.float32) / scale).astype(np.float64)
    return np.asarray(np.clip(steps, INT32_MIN, INT32_MAX), np.int32)


def clamp_range(
    activation: Activation, scale: float, zero_point: int, lowest: int = -128, highest: int = 127
) -> tuple[int, int]:
    """Fold a rectifier into the clamp: the integers between which the output is cut off.

    ReLU is q >= Z, ReLU6 is Z <= q <= Z + round(6 / S): neither costs an instruction, the output is clamped anyway.
    """
    if activation == "none":
        return lowest, highest
    bottom, top = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}[activation]
    steps = round_half(np.array([bottom, top], np.float32) / np.float32(scale), "away")
    lowest = max(lowest, zero_point + int(steps[0]))
    return lowest, min(highest, zero_point + int(steps[1])) if np.isfinite(top) else highest


# From accumulator to output


@dataclass(frozen=True, eq=False)
class Requantizer:
    """Takes accumulators to the output's grid: q = clip(Z + M * accumulator, lowest, highest).

    Attributes
    ----------
    input_scale, output_scale : float
        S_in and S_out.
    weight_scale : ndarray of float32, shape () or (channels,)
        S_w; channels are the last axis of an accumulator.
    zero_point : int
        Z of the output.
    lowest, highest : int
        The clamp, rectifier included.
    rounding : Rounding
        How M * accumulator is rounded.
    """

    input_scale: float
    weight_scale: NDArray[np.float32]
    output_scale: float
    zero_point: int
    lowest: int = -128
    highest: int = 127
    rounding: Rounding = "twice"

    @property
    def real(self) -> NDArray[np.float64]:
        """M = S_in S_w / S_out, in double precision, from scales that a file holds in single precision."""
        scales = np.asarray([self.input_scale, self.output_scale], np.float32).astype(np.float64)
        return np.asarray(scales[0] * np.asarray(self.weight_scale, np.float64) / scales[1])

    @property
    def multiplier(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """M as integer and shift."""
        return quantize_multiplier(self.real)

    def __call__(self, accumulator: NDArray[Any]) -> NDArray[np.int8]:
        """Requantize accumulators, int32 (..., channels)."""
        q = self.round(accumulator)
        q += self.zero_point
        return np.asarray(np.clip(q, self.lowest, self.highest, out=q), np.int8)

    def round(self, accumulator: NDArray[Any]) -> NDArray[Any]:
        """Compute M * accumulator, rounded to whole numbers: int32, int64 or floats, by the way of rounding."""
        if self.rounding == "twice":
            return multiply_by_multiplier(accumulator, *self.multiplier)
        if self.rounding == "once":
            return multiply_rounding_once(accumulator, *self.multiplier)
        if self.rounding == "float64":
            return round_half(np.asarray(accumulator, np.float64) * self.real, "away")
        if self.rounding == "float32":
            scale = np.float32(self.input_scale) * np.asarray(self.weight_scale, np.float32)
            return np.rint(np.asarray(accumulator, np.float32) * (scale / np.float32(self.output_scale)))
        raise ValueError(f"rounding is {self.rounding!r}; choose 'twice', 'once', 'float64' or 'float32'.")


# Layers


class IntegerLayer(Protocol):
    """A layer: integers (n, ...) in, integers (n, ...) out."""

    @property
    def name(self) -> str:
        """Name in the model."""

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Compute the layer's output for a batch."""


@dataclass(frozen=True)
class Window:
    """How a window moves over height and width.

    Attributes
    ----------
    size, stride, dilation : (int, int)
        Height and width; dilation is the distance between neighbouring taps.
    padding : {"same", "valid"}
        "same": zeros around, so that the output has ceil(n / stride) places; the odd one goes below and to the right.
    """

    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Literal["same", "valid"] = "valid"

    def placed(self, shape: tuple[int, int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Output height and width, and the padding (before, after) of each, for an input of height and width `shape`.

        Raises
        ------
        ValueError
            If the window does not fit.
        """
        reach = [(k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True)]
        if self.padding == "valid":
            out = [(n - r) // s + 1 for n, r, s in zip(shape, reach, self.stride, strict=True)]
            if min(out) < 1:
                raise ValueError(f"a window of {reach} does not fit into an input of {shape}; use padding 'same'.")
            return out, [(0, 0), (0, 0)]
        out = [-(-n // s) for n, s in zip(shape, self.stride, strict=True)]
        total = [max((o - 1) * s + r - n, 0) for o, s, r, n in zip(out, self.stride, reach, shape, strict=True)]
        return out, [(t // 2, t - t // 2) for t in total]

    def taps(self, x: NDArray[Any], fill: float) -> list[NDArray[Any]]:
        """Shifted views on x (n, height, width, channels), one for each place of the window, row by row."""
        out, padding = self.placed((x.shape[1], x.shape[2]))
        if any(sum(sides) for sides in padding):
            x = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
        (down, right), (high, wide) = self.stride, out
        corners = [
            (i * self.dilation[0], j * self.dilation[1]) for i in range(self.size[0]) for j in range(self.size[1])
        ]
        return [x[:, i : i + (high - 1) * down + 1 : down, j : j + (wide - 1) * right + 1 : right] for i, j in corners]


@dataclass(frozen=True, eq=False)
class IntegerDense:
    """Fully connected layer.

    Attributes
    ----------
    name : str
    weights : ndarray of int8, shape (out, in)
    bias : ndarray of int32, shape (out,)
        With the scale S_in * S_w.
    input_zero_point : int
    requantize : Requantizer
    """

    name: str
    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    input_zero_point: int
    requantize: Requantizer

    @cached_property
    def matrix(self) -> ExactMatrix:
        """Weights and bias, ready to be multiplied."""
        return ExactMatrix.of(self.weights, self.bias, self.input_zero_point)

    def accumulate(self, x: NDArray[Any]) -> NDArray[np.int32]:
        """Add up (q_in - Z_in) q_w and q_bias; x (n, ...) is flattened, the result is (n, out)."""
        return self.matrix.multiply(centered(x.reshape(len(x), -1), self.input_zero_point))

    def __call__(self, x: NDArray[Any]) -> NDArray[np.int8]:
        """Compute the outputs, int8 (n, out)."""
        return self.requantize(self.accumulate(x))


@dataclass(frozen=True, eq=False)
class IntegerConv:
    """Convolution.

    Attributes
    ----------
    name : str
    weights : ndarray of int8, shape (out, height, width, in)
    bias : ndarray of int32, shape (out,)
    input_zero_point : int
        Padding puts this integer around the image: it stands for 0.
    window : Window
    requantize : Requantizer
    """

    name: str
    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    input_zero_point: int
    window: Window
    requantize: Requantizer

    @cached_property
    def matrix(self) -> ExactMatrix:
        """Weights and bias, ready to be multiplied: a column for each filter."""
        return ExactMatrix.of(self.weights.reshape(len(self.weights), -1), self.bias, self.input_zero_point)

    def accumulate(self, x: NDArray[Any]) -> NDArray[np.int32]:
        """Add up for each place of the window; x (n, height, width, in), the result (n, high, wide, out)."""
        taps = self.window.taps(centered(x, self.input_zero_point), 0)
        patches = np.stack(taps, axis=3).reshape(-1, self.weights[0].size)
        return self.matrix.multiply(patches).reshape(*taps[0].shape[:3], -1)

    def __call__(self, x: NDArray[Any]) -> NDArray[np.int8]:
        """Compute the outputs, int8."""
        return self.requantize(self.accumulate(x))


@dataclass(frozen=True, eq=False)
class IntegerDepthwise:
    """Depthwise convolution: each input channel has filters of its own.

    Attributes
    ----------
    name : str
    weights : ndarray of int8, shape (1, height, width, in * multiplier)
    bias : ndarray of int32, shape (in * multiplier,)
    input_zero_point : int
    window : Window
    requantize : Requantizer
    """

    name: str
    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    input_zero_point: int
    window: Window
    requantize: Requantizer

    def accumulate(self, x: NDArray[Any]) -> NDArray[np.int32]:
        """Add up for each place of the window; x (n, height, width, in), the result (n, high, wide, out)."""
        taps = self.window.taps(x.astype(np.int32) - np.int32(self.input_zero_point), 0)
        multiplier = self.weights.shape[3] // x.shape[3]
        filters = self.weights.reshape(-1, self.weights.shape[3]).astype(np.int32)
        sums = np.tile(self.bias.astype(np.int32), (*taps[0].shape[:3], 1))
        for tap, row in zip(taps, filters, strict=True):
            sums += (tap if multiplier == 1 else np.repeat(tap, multiplier, axis=3)) * row
        return sums

    def __call__(self, x: NDArray[Any]) -> NDArray[np.int8]:
        """Compute the outputs, int8."""
        return self.requantize(self.accumulate(x))


@dataclass(frozen=True)
class IntegerAveragePool:
    """Mean of each window, padding not counted, halves away from zero; the grid stays."""

    name: str
    window: Window
    lowest: int = -128
    highest: int = 127

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Compute the outputs, of the type of x (n, height, width, channels)."""
        total = sum(tap.astype(np.int32) for tap in self.window.taps(x, 0))
        ones = np.ones((1, *x.shape[1:3], 1), np.int32)
        number = np.sum(self.window.taps(ones, 0), axis=0)
        mean = np.sign(total) * ((2 * np.abs(total) + number) // (2 * number))
        return np.asarray(np.clip(mean, self.lowest, self.highest), x.dtype)


@dataclass(frozen=True)
class IntegerMaxPool:
    """Largest integer of each window; the grid stays."""

    name: str
    window: Window
    lowest: int = -128
    highest: int = 127

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Compute the outputs, of the type of x (n, height, width, channels)."""
        taps = self.window.taps(x, np.iinfo(x.dtype).min)
        largest = taps[0]
        for tap in taps[1:]:
            largest = np.maximum(largest, tap)
        return np.asarray(np.clip(largest, self.lowest, self.highest))


@dataclass(frozen=True, eq=False)
class IntegerMean:
    """Mean over height and width, on a grid of its own (global average pooling).

    The division by the number of places is put into the multiplier, which loses a bit or two on the way; LiteRT's
    reference kernel does the same.
    """

    name: str
    input_zero_point: int
    requantize: Requantizer

    def __call__(self, x: NDArray[Any]) -> NDArray[np.int8]:
        """Compute the outputs, int8 (n, channels), for x (n, height, width, channels)."""
        total = (x.astype(np.int64) - self.input_zero_point).sum(axis=(1, 2))
        places = x.shape[1] * x.shape[2]
        m, shift = (int(part) for part in self.requantize.multiplier)
        spare = min(places.bit_length() - 1, 32, 31 + shift)
        if self.requantize.rounding == "twice":
            q = multiply_by_multiplier(total, (m << spare) // places, shift - spare)
        else:
            share = self.requantize.weight_scale / np.float32(places)
            q = replace(self.requantize, weight_scale=share).round(total)
        q = np.clip(q + self.requantize.zero_point, self.requantize.lowest, self.requantize.highest)
        return np.asarray(q, np.int8)


@dataclass(frozen=True)
class IntegerReshape:
    """Puts the same integers into another shape.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Shape for one example.
    """

    name: str
    shape: tuple[int, ...]

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Reshape x (n, ...) to (n, *shape)."""
        return x.reshape(len(x), *self.shape)


@dataclass(frozen=True, eq=False)
class IntegerRescale:
    """Moves integers from one grid to another: uint8 pixels to int8, say, or back (LiteRT's QUANTIZE)."""

    name: str
    input_zero_point: int
    requantize: Requantizer
    dtype: str = "int8"

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Compute the outputs, of `dtype`, in the shape of x."""
        rescaled = self.requantize.round(x.astype(np.int32) - self.input_zero_point) + self.requantize.zero_point
        return np.asarray(np.clip(rescaled, self.requantize.lowest, self.requantize.highest), self.dtype)


def run(layers: Sequence[IntegerLayer], x: NDArray[Any], batch: int = 16) -> NDArray[Any]:
    """Run a network over examples.

    Parameters
    ----------
    layers : sequence of layers
        In order. A network that ends in logits needs no softmax: the largest logit is the answer.
    x : ndarray of int8 or uint8, shape (n, ...)
        On the grid of the first layer's input.
    batch : int
        Examples at a time; no effect on the result.

    Returns
    -------
    ndarray of integers, shape (n, ...)
        On the grid of the last layer's output.

    Raises
    ------
    ValueError
        If x is empty or not of integers.
    """
    if len(x) == 0 or x.dtype.kind not in "iu":
        raise ValueError(f"x has shape {x.shape} and type {x.dtype}; give at least one example, in int8 or uint8.")
    parts = []
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        for layer in layers:
            part = layer(part)
        parts.append(part)
    return np.concatenate(parts)


def trace(layers: Sequence[IntegerLayer], x: NDArray[Any]) -> list[NDArray[Any]]:
    """Run a network and keep what each layer gives, in order."""
    given = []
    for layer in layers:
        x = layer(x)
        given.append(x)
    return given


def with_rounding(layers: Sequence[IntegerLayer], rounding: Rounding) -> tuple[IntegerLayer, ...]:
    """Copy a network, all its requantizers rounding in one way: "float32" makes XNNPACK's of it."""
    return tuple(
        replace(layer, requantize=replace(layer.requantize, rounding=rounding))
        if isinstance(layer, IntegerDense | IntegerConv | IntegerDepthwise | IntegerMean | IntegerRescale)
        else layer
        for layer in layers
    )


@dataclass(frozen=True, eq=False)
class ExactMatrix:
    """Integer weights and bias in floating point, where a product of matrices is fast, and here exact.

    Whole numbers are exact in float32 up to 2^24 and in float64 up to 2^53. The largest sum that int8 inputs can bring
    about decides which is taken; then no partial sum is ever rounded, in whatever order they are added.

    Attributes
    ----------
    weights : ndarray of float32 or float64, shape (in, out)
    bias : ndarray of the same type, shape (out,)
    """

    weights: NDArray[Any]
    bias: NDArray[Any]

    @classmethod
    def of(cls, weights: NDArray[np.int8], bias: NDArray[np.int32], input_zero_point: int) -> ExactMatrix:
        """Choose the type for weights (out, in) and bias (out,) behind int8 inputs with this zero point."""
        wide = weights.astype(np.int64)
        up, down = np.maximum(wide, 0).sum(axis=1), -np.minimum(wide, 0).sum(axis=1)
        most, least = 127 - input_zero_point, -128 - input_zero_point
        largest = np.maximum(most * up - least * down, most * down - least * up) + np.abs(bias.astype(np.int64))
        kind = np.float32 if largest.max() < 2**24 else np.float64
        return cls(np.ascontiguousarray(weights.T, kind), bias.astype(kind))

    def multiply(self, x: NDArray[np.float32]) -> NDArray[np.int32]:
        """Compute x @ weights + bias for whole numbers x (n, in); the result is (n, out)."""
        sums = x.astype(self.weights.dtype, copy=False) @ self.weights
        sums += self.bias
        return np.asarray(sums, np.int32)


def centered(x: NDArray[Any], zero_point: int) -> NDArray[np.float32]:
    """Take the zero point away, in float32, which holds the difference exactly."""
    return x.astype(np.float32) - np.float32(zero_point)
