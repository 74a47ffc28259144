"""Requantization with a multiplier of any width, rounded in one of four ways: what the bits of a multiplier are for.

LiteRT's multiplier is an integer of 31 bits. With `width` bits the real number M becomes m / 2^width * 2^shift, where m
is an integer from 2^(width - 1) to 2^width. A multiplier of a single bit is a power of two: a shift alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compresskit.quantization.integer import (
    IntegerConv,
    IntegerDense,
    IntegerDepthwise,
    IntegerLayer,
    Requantizer,
    divide_by_power_of_two,
)

Way = Literal["twice", "even", "away", "down"]
WAYS: Final[tuple[Way, ...]] = ("twice", "even", "away", "down")
WIDEST: Final = 31


def narrow_multiplier(real: ArrayLike, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write positive real numbers as m / 2^width * 2^shift with an integer m of `width` bits.

    Parameters
    ----------
    real : float or array of float64
        M, positive.
    width : int
        1 to 31.

    Returns
    -------
    (m, shift) : int64 arrays of the shape of `real`
        2^(width - 1) <= m < 2^width.

    Raises
    ------
    ValueError
        If a number is not positive and finite, or the width is not 1 to 31.
    """
    value = np.asarray(real, np.float64)
    if not 1 <= width <= WIDEST:
        raise ValueError(f"width is {width}; a multiplier has 1 to {WIDEST} bits.")
    if not (np.isfinite(value).all() and (value > 0).all()):
        raise ValueError(f"real is {value}, but a multiplier must be finite and positive; check the scales.")
    fraction, exponent = np.frexp(value)
    m, shift = np.floor(fraction * 2**width + 0.5).astype(np.int64), exponent.astype(np.int64)
    full = m == 2**width
    return np.where(full, 2 ** (width - 1), m), np.where(full, shift + 1, shift)


def divide_rounding(x: NDArray[np.int64], places: ArrayLike, way: Way) -> NDArray[np.int64]:
    """Divide int64 by 2^places in integers, rounded "even" or "away" at halves, or always "down" (a plain shift)."""
    n = np.asarray(places, np.int64)
    if way == "down":
        return np.asarray(x >> n)
    half = (np.int64(1) << n) >> 1  # 0 where nothing is divided
    if way == "away":
        return np.asarray((x + (half - ((x < 0) & (n > 0)))) >> n)
    below, odd = np.where(n > 0, half - 1, 0), (x >> n) & (n > 0)
    return np.asarray((x + (below + odd)) >> n)


def multiply_narrow(x: ArrayLike, real: ArrayLike, width: int, way: Way) -> NDArray[np.int64]:
    """Multiply accumulators by M, written with `width` bits, and round to whole numbers.

    Parameters
    ----------
    x : array of int32, shape (..., channels)
    real : float64, shape () or (channels,)
        M.
    width : int
        Bits of the multiplier.
    way : {"twice", "even", "away", "down"}
        "twice" as LiteRT's reference convolutions: first by 2^width, halves up, then by the shift, halves away from
        zero. The others round once, at the end.
    """
    if way not in WAYS:
        raise ValueError(f"way is {way!r}; choose from {', '.join(WAYS)}.")
    m, shift = narrow_multiplier(real, width)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    number = np.asarray(x, np.int64) << left
    if way == "twice":
        high = (number * m + (1 << (width - 1))) >> width
        return np.asarray(divide_by_power_of_two(high, right), np.int64)
    return divide_rounding(number * m, width + right, way)


@dataclass(frozen=True, eq=False)
class NarrowRequantizer(Requantizer):
    """A requantizer whose multiplier has `width` bits and rounds in its own `way`."""

    width: int = WIDEST
    way: Way = "twice"

    def round(self, accumulator: NDArray[Any]) -> NDArray[Any]:
        """Compute M * accumulator, rounded to whole numbers."""
        return multiply_narrow(accumulator, self.real, self.width, self.way)


def narrowed(requantizer: Requantizer, width: int, way: Way) -> NarrowRequantizer:
    """Copy a requantizer, its multiplier cut to `width` bits."""
    kept = {each.name: getattr(requantizer, each.name) for each in fields(Requantizer)}
    return NarrowRequantizer(**kept, width=width, way=way)


def with_multipliers(layers: Sequence[IntegerLayer], width: int, way: Way) -> tuple[IntegerLayer, ...]:
    """Copy a network, the multipliers of all its layers with weights having `width` bits and rounding in one way."""
    return tuple(
        replace(layer, requantize=narrowed(layer.requantize, width, way))
        if isinstance(layer, IntegerDense | IntegerConv | IntegerDepthwise)
        else layer
        for layer in layers
    )
