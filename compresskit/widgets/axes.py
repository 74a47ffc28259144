"""What a workbench's plot can show from left to right and upward, and how a file is measured for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from numpy.typing import NDArray

from compresskit.compression import Compressed
from compresskit.litert.arena import peak_activations
from compresskit.litert.runtime import latency
from compresskit.widgets.points import Point


@dataclass(frozen=True)
class Axis:
    """What the plot shows from left to right.

    Attributes
    ----------
    name : str
        In the list of axes.
    title : str
        Beside the axis.
    unit : str
        Of its numbers.
    place : callable
        ``place(file, image)`` measures a file, in `unit`; `image`, of shape (1, ...), is an example to be timed.
    """

    name: str
    title: str
    unit: str
    place: Callable[[Compressed, NDArray[Any]], float]


AXES: Final = {
    "file": Axis("bytes of the file", "size of the file", "kB", lambda file, _: file.size / 1000),
    "zipped": Axis(
        "bytes, zipped", "size of the file, zipped (DEFLATE)", "kB", lambda file, _: file.deflated_size / 1000
    ),
    "packed": Axis("bytes, packed", "size of the packed container", "kB", lambda file, _: file.packed_size / 1000),
    "macs": Axis(
        "multiplications", "multiply-accumulates for one digit", "M",
        lambda file, _: sum(layer.macs for layer in file.layers) / 1e6,
    ),
    "latency": Axis(
        "latency here", "time of one, one thread of this machine", "µs",
        lambda file, image: latency(file.tflite, image).median * 1e6,
    ),
    "memory": Axis(
        "memory while it runs", "largest sum of activations alive at once (computed from the file)", "kB",
        lambda file, _: peak_activations(file.tflite).bytes / 1000,
    ),
}  # fmt: skip
UPWARD: Final = (("accuracy", "accuracy"), ("misread", "misread"), ("loss", "loss"))
SOON: Final = ("zipped", "memory")
"""Axes on which every point is to be placed, and which would keep its score waiting."""
_AT_ONCE: Final = ("file", "macs")


def measure(file: Compressed, axes: Iterable[str], image: NDArray[Any]) -> dict[str, float]:
    """Place a file on axes.

    Parameters
    ----------
    file
        The file.
    axes
        Keys of `AXES`.
    image : ndarray, shape (1, ...)
        An example to be timed.

    Returns
    -------
    dict of str to float
        Axis to place, in the axis' unit.
    """
    return {axis: AXES[axis].place(file, image) for axis in axes}


def ask(point: Point, axis: str, image: NDArray[Any]) -> Point:
    """Place a point on an axis, and on those that take no time; its loss, in nats, is noted too where it is known.

    Parameters
    ----------
    point
        The point.
    axis
        A key of `AXES`.
    image : ndarray, shape (1, ...)
        An example to be timed.
    """
    found = measure(point.compressed, dict.fromkeys([*_AT_ONCE, axis]), image)
    if not math.isnan(point.score.loss):
        found["loss"] = point.score.loss
    return replace(point, measured=found)
