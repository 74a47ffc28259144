"""What flows through a float model: the range of every tensor, measured on examples.

Integer activations need a range for each tensor before any digit is seen. It is measured with LiteRT on the float file
itself, many examples at once.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.runtime import WORKERS, Session, batch_size, encode
from compresskit.quantization.histogram import Histogram
from compresskit.quantization.ranges import Method, choose_range

_AT_ONCE = 5
"""Batches that run as one where two threads share a run, so that each has enough to do."""

Weights = Mapping[int, NDArray[Any]]
"""Constant tensors that are replaced before a run: index in the main graph to array."""


@functools.lru_cache(maxsize=32)
def _exposed(tflite: bytes) -> tuple[bytes, str, tuple[str, ...]]:
    """Write the model with every real-valued tensor that it computes as an output; name its input and those outputs."""
    model = files.read(tflite)
    graph = model.subgraphs[0]
    computed = (int(index) for op in graph.operators for index in op.outputs)
    shown = [index for index in computed if files.DTYPES[graph.tensors[index].type] == "float32"]
    names = tuple(files.tensor_name(graph.tensors[index]) for index in shown)
    return files.expose(tflite, shown), files.tensor_name(graph.tensors[graph.inputs[0]]), names


def _edited(tflite: bytes, weights: Weights | None) -> bytes:
    """Give the model that shows its inner tensors, with other weights."""
    exposed, _, _ = _exposed(tflite)
    return files.replace_constants(exposed, weights) if weights else exposed


def _batches(
    edited: bytes, images: NDArray[Any], threads: int = WORKERS
) -> Iterator[tuple[Session, NDArray[Any], int]]:
    """Cut examples into full batches for one session: the last is filled up, and the count says how many are real."""
    if len(images) == 0:
        raise ValueError("calibration: there are no digits; give at least one")
    largest = batch_size(images.shape[1:]) * (1 if threads == 1 else _AT_ONCE)
    rounds = -(-len(images) // largest)
    session = Session(edited, -(-len(images) // rounds), threads=threads)
    for start in range(0, len(images), session.batch):
        chunk = encode(images[start : start + session.batch], session.inputs[0])
        count = len(chunk)
        if count < session.batch:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], session.batch - count, axis=0)])
        yield session, chunk, count


def tensor_values(tflite: bytes, images: NDArray[Any], weights: Weights | None = None) -> dict[str, NDArray[Any]]:
    """Run a float model and keep everything that flows through it.

    Parameters
    ----------
    tflite
        A plain float `.tflite`; the copy of it that shows its inner tensors is made once and kept.
    images : ndarray, shape (n, ...)
        Examples, as `compresskit.litert.runtime.encode` takes them.
    weights
        Constant tensors to be replaced first; None for the model as it is.

    Returns
    -------
    dict of str to ndarray of float32
        Tensor name to its values, a row an example, the input included.

    Raises
    ------
    ValueError
        If there are no images, or they do not fit the model.
    """
    runs = [
        [array[:count] for array in (chunk, *session(chunk))]
        for session, chunk, count in _batches(_edited(tflite, weights), images)
    ]
    _, first, names = _exposed(tflite)
    return dict(zip((first, *names), (np.concatenate(parts) for parts in zip(*runs, strict=True)), strict=True))


def activation_ranges(
    tflite: bytes, images: NDArray[Any], weights: Weights | None = None
) -> dict[str, tuple[float, float]]:
    """Measure the smallest and largest value of every tensor that flows, as `tensor_values` runs it.

    Returns
    -------
    dict of str to (float, float)
        Tensor name to (lowest, highest).

    Raises
    ------
    ValueError
        If a value is not finite; the sentence names the tensor.
    """
    _, first, names = _exposed(tflite)
    parts = [part for part in np.array_split(images, WORKERS) if len(part)] or [images]
    edited = _edited(tflite, weights)
    with ThreadPoolExecutor(len(parts)) as pool:
        found = np.concatenate(list(pool.map(lambda part: _extremes(edited, part), parts)))
    lows, highs = found[..., 0].min(axis=0), found[..., 1].max(axis=0)
    ranges = dict(zip((first, *names), zip(lows.tolist(), highs.tolist(), strict=True), strict=True))
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(
                f"calibration: the tensor {name!r} reaches {low} to {high}; check the digits and the weights for "
                "infinite or undefined numbers"
            )
    return ranges


def _extremes(edited: bytes, images: NDArray[Any]) -> NDArray[np.float64]:
    """Find the smallest and largest value of the input and of each tensor, batch by batch: (batches, tensors, 2)."""
    return np.array(
        [
            [(float(chunk.min()), float(chunk.max())), *session.ranges(chunk, count=count)]
            for session, chunk, count in _batches(edited, images, threads=1)
        ]
    )


def chosen_ranges(
    tflite: bytes, images: NDArray[Any], weights: Weights | None, method: Method, bits: int
) -> dict[str, tuple[float, float]]:
    """Choose the range of every tensor that flows so that some values are clipped.

    Parameters
    ----------
    tflite, images, weights
        As `tensor_values` takes them.
    method
        As `compresskit.quantization.ranges.choose_range` takes it.
    bits
        Width of the activations, 8 or 16.

    Returns
    -------
    dict of str to (float, float)
        Tensor name to (lowest, highest). The input keeps its full range: pixels are not clipped.
    """
    ranges = activation_ranges(tflite, images, weights)  # refuses what is not finite
    counted = tensor_histograms(tflite, images, weights)
    chosen = {name: choose_range(histogram, method, bits) for name, histogram in counted.items()}
    return {**ranges, **chosen}


def tensor_histograms(
    tflite: bytes, images: NDArray[Any], weights: Weights | None = None, tensors: Container[str] | None = None
) -> dict[str, Histogram]:
    """Count the values of every tensor that a float model computes, batch by batch, so that none of them is kept.

    Parameters
    ----------
    tflite, images, weights
        As `tensor_values` takes them.
    tensors
        Names of those to be counted; None for all.

    Returns
    -------
    dict of str to Histogram
        Tensor name to its histogram; the input is not among them.
    """
    _, _, names = _exposed(tflite)
    counted: dict[str, Histogram] = {}
    for session, chunk, count in _batches(_edited(tflite, weights), images):
        for name, values in zip(names, session(chunk), strict=True):
            if tensors is None or name in tensors:
                batch = Histogram.of(values[:count])
                counted[name] = counted[name] + batch if name in counted else batch
    return counted
