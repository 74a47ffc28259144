"""What a workbench's plot can show from left to right and upward, and how a file is measured for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from numpy.typing import NDArray

from compresskit.compression import Compressed
from compresskit.litert.arena import peak_activations
from compresskit.litert.runtime import latency
from compresskit.widgets.points import Point
from compresskit.zoo import Checkpoint


@dataclass(frozen=True)
class Axis:
    """What the plot shows from left to right: its name in the list, the title of the axis, and the unit."""

    name: str
    title: str
    unit: str


AXES: Final = {
    "file": Axis("bytes of the file", "size of the file", "kB"),
    "zipped": Axis("bytes, zipped", "size of the file, zipped (DEFLATE)", "kB"),
    "packed": Axis("bytes, packed", "size of the packed container", "kB"),
    "macs": Axis("multiplications", "multiply-accumulates for one digit", "M"),
    "latency": Axis("latency here", "time of one digit, one thread of this machine", "µs"),
    "memory": Axis("memory while it runs", "largest sum of activations alive at once (computed from the file)", "kB"),
}
UPWARD: Final = (("accuracy", "accuracy"), ("digits misread", "misread"), ("loss", "loss"))


def macs(model: Compressed | Checkpoint) -> float:
    """Count multiply-accumulates for one digit, in millions."""
    return sum(layer.macs for layer in model.layers) / 1e6


def ask(point: Point, axis: str, image: NDArray[Any]) -> Point:
    """Measure what an axis needs and what takes a while.

    Parameters
    ----------
    point
        The point.
    axis
        A key of `AXES`.
    image : ndarray, shape (1, ...)
        An example to be timed.
    """
    if axis == "packed":
        return replace(point, packed=point.compressed.packed_size)
    if axis == "latency":
        return replace(point, latency=latency(point.compressed.tflite, image))
    if axis == "memory":
        return replace(point, memory=peak_activations(point.compressed.tflite).bytes)
    return point


def measured(point: Point) -> dict[str, float]:
    """Place a point on every axis that is known of it, in the axis' unit; the loss is there too, in nats."""
    small = point.compressed
    found = {
        "file": small.size / 1000,
        "macs": macs(small),
        "loss": point.score.loss,
    }
    if "deflated_size" in small.__dict__:  # only if it was asked for: it takes a while
        found["zipped"] = small.deflated_size / 1000
    if point.packed is not None:
        found["packed"] = point.packed / 1000
    if point.latency is not None:
        found["latency"] = point.latency.median * 1e6
    if point.memory is not None:
        found["memory"] = point.memory / 1000
    return {axis: place for axis, place in found.items() if place == place}  # a loss that is not known is no place


def squeezed(small: Compressed) -> dict[str, float]:
    """Measure what every point is to have, and what would keep its score waiting: see `measured`."""
    return {"zipped": small.deflated_size / 1000, "memory": peak_activations(small.tflite).bytes / 1000}


def measure_file(model: Compressed, axis: str, image: NDArray[Any]) -> float:
    """Measure a file on one axis, in the axis' unit; see `ask`."""
    ways: dict[str, Callable[[], float]] = {
        "file": lambda: model.size / 1000,
        "zipped": lambda: model.deflated_size / 1000,
        "packed": lambda: model.packed_size / 1000,
        "macs": lambda: macs(model),
        "latency": lambda: latency(model.tflite, image).median * 1e6,
        "memory": lambda: peak_activations(model.tflite).bytes / 1000,
    }
    return ways[axis]()
