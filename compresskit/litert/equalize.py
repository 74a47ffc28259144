"""Cross-layer equalization and bias correction of a float `.tflite`; the formulas are in `quantization.equalization`.

Two layers can be equalized where what the first puts out goes to the second and nowhere else, on a way that lets a
positive factor through channel by channel: ReLU or nothing, pooling, zero padding, flattening, a mean over places.
ReLU6, a sigmoid, an addition to another branch or an output of the model stop the way; such pairs are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import ArrayLike, NDArray

from compresskit.litert import model as files
from compresskit.litert.calibration import tensor_values
from compresskit.litert.inspect import CHANNEL_AXIS, Site, sites
from compresskit.litert.model import ModelT
from compresskit.quantization.equalization import (
    channel_reach,
    corrected_bias,
    equalizing_scales,
    scale_channels,
)

ROUNDS = 20
"""Passes over all pairs: a layer between two others is in two pairs, and settles only when both do."""

_LETS_THROUGH = frozenset(["MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU", "MEAN", "PAD", "RESHAPE"])
_STRAIGHT = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
_READ_AXIS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 1}


@dataclass(frozen=True)
class Pair:
    """Two layers of which the second reads what the first puts out.

    Attributes
    ----------
    first, second : str
        Their names.
    channels : int
        How many channels flow from one to the other.
    """

    first: str
    second: str
    channels: int


def pairs(tflite: bytes) -> tuple[Pair, ...]:
    """Find the layers that can be equalized.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.

    Returns
    -------
    tuple of Pair
        In the order in which the first layers run.
    """
    model = files.read(tflite)
    by_operator = {site.operator: site for site in sites(model)}
    found = []
    for site in by_operator.values():
        reader = _reader(model, site)
        second = by_operator.get(reader) if reader is not None else None
        if second is not None and _fits(model, site, second):
            found.append(Pair(site.name, second.name, _made(model, site)))
    return tuple(found)


def rescaled(tflite: bytes, factors: Mapping[str, ArrayLike]) -> bytes:
    """Multiply channels of layers by factors, and divide the weights that read them: the same function, other weights.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    factors
        Layer name to a positive factor for each of its output channels. Powers of two change no digit of any result.

    Returns
    -------
    bytes
        The new file.

    Raises
    ------
    ValueError
        If a layer cannot be rescaled, or the factors do not fit it or are not positive.
    """
    model = files.read(tflite)
    layers = {site.name: site for site in sites(model)}
    readers = {pair.first: pair for pair in pairs(tflite)}
    arrays = _Constants(model)
    for name, given in factors.items():
        if name not in readers:
            raise ValueError(f"layer {name!r} cannot be rescaled; those that can are {', '.join(readers) or 'none'}")
        pair, s = readers[name], np.asarray(given, np.float64)
        if s.shape != (pair.channels,) or not (np.isfinite(s).all() and (s > 0).all()):
            raise ValueError(f"layer {name!r}: give {pair.channels} positive factors, one for each channel")
        arrays.rescale(layers[name], layers[pair.second], s)
    return files.replace_constants(tflite, arrays.edited)


def equalized(tflite: bytes, rounds: int = ROUNDS) -> bytes:
    """Equalize every pair of layers, over and over, until all channels reach equally far.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    rounds
        How many passes over the pairs.

    Returns
    -------
    bytes
        A file that computes the same, up to the rounding of floats.
    """
    model = files.read(tflite)
    layers = {site.name: site for site in sites(model)}
    chain = pairs(tflite)
    arrays = _Constants(model)
    for _ in range(rounds):
        for pair in chain:
            first, second = layers[pair.first], layers[pair.second]
            made = channel_reach(arrays.of(first.weights), CHANNEL_AXIS[first.op])
            read = channel_reach(arrays.of(second.weights), _READ_AXIS[second.op], pair.channels)
            arrays.rescale(first, second, 1 / equalizing_scales(made, read))
    return files.replace_constants(tflite, arrays.edited)


def bias_corrected(tflite: bytes, small: bytes, images: NDArray[Any]) -> bytes:
    """Correct the biases of a float model for what rounding its weights will do.

    The mean of what flows into each layer is measured on the float model. The border of a padded convolution, where the
    window hangs over the edge, is counted like its middle, as in the paper.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    small
        A file quantized from it, whose weights are read.
    images : ndarray, shape (n, ...)
        Examples, as `compresskit.litert.runtime.encode` takes them.

    Returns
    -------
    bytes
        The float model with other biases: quantize it as before. Layers without a bias are left as they are.

    Raises
    ------
    ValueError
        If `small` has other layers than `tflite`.
    """
    model, quantized = files.read(tflite), files.read(small)
    rounded = {site.name: quantized.subgraphs[0].tensors[site.weights] for site in sites(quantized)}
    graph, edited = model.subgraphs[0], {}
    flows = tensor_values(tflite, images)
    for site in sites(model):
        if site.name not in rounded:
            raise ValueError(f"small: it has no layer {site.name!r}; give a file quantized from this model")
        if site.bias is None:
            continue
        weights = files.stored(model, graph.tensors[site.weights])
        inputs = flows[files.tensor_name(graph.tensors[graph.operators[site.operator].inputs[0]])]
        bias = files.stored(model, graph.tensors[site.bias])
        error = files.dequantized(quantized, rounded[site.name])
        edited[site.bias] = _corrected(site, bias, weights, error, inputs).astype(np.float32)
    return files.replace_constants(tflite, edited)


def _corrected(
    site: Site, bias: NDArray[Any], weights: NDArray[Any], rounded: NDArray[Any], inputs: NDArray[Any]
) -> NDArray[np.float64]:
    """Bring a layer's weights into the form of the formula: a row for each output."""
    if site.op == "FULLY_CONNECTED":
        return corrected_bias(bias, weights, rounded, inputs.reshape(-1, weights.shape[1]).mean(axis=0, dtype=float))
    mean = inputs.mean(axis=(0, 1, 2), dtype=np.float64)
    if site.op == "DEPTHWISE_CONV_2D":  # output c reads channel c alone: its mean, times the sum of its error
        error = (rounded - weights).astype(np.float64).sum(axis=(0, 1, 2))
        return np.asarray(bias - error * np.repeat(mean, weights.shape[3] // mean.size))
    rows = weights.reshape(len(weights), -1)
    return corrected_bias(bias, rows, rounded.reshape(rows.shape), np.tile(mean, rows.shape[1] // mean.size))


class _Constants:
    """Constant tensors of a model while they are edited, in float64."""

    def __init__(self, model: ModelT) -> None:
        self._model = model
        self._arrays: dict[int, NDArray[np.float64]] = {}

    def of(self, index: int) -> NDArray[np.float64]:
        """Give a tensor as it is now."""
        if index not in self._arrays:
            stored = files.stored(self._model, self._model.subgraphs[0].tensors[index])
            self._arrays[index] = stored.astype(np.float64)
        return self._arrays[index]

    def rescale(self, first: Site, second: Site, factors: NDArray[np.float64]) -> None:
        """Multiply what the first layer puts out, divide what the second reads."""
        self._arrays[first.weights] = scale_channels(self.of(first.weights), CHANNEL_AXIS[first.op], factors)
        if first.bias is not None:
            self._arrays[first.bias] = scale_channels(self.of(first.bias), 0, factors)
        self._arrays[second.weights] = scale_channels(self.of(second.weights), _READ_AXIS[second.op], 1 / factors)

    @property
    def edited(self) -> dict[int, NDArray[np.float32]]:
        """All tensors that were looked at, for `replace_constants`."""
        return {index: array.astype(np.float32) for index, array in self._arrays.items()}


def _reader(model: ModelT, site: Site) -> int | None:
    """Follow a layer's output to the only operator with weights that reads it; None where the way is not straight."""
    graph = model.subgraphs[0]
    number = site.operator
    outputs = {int(index) for index in graph.outputs}
    while True:
        op = graph.operators[number]
        if getattr(op.builtinOptions, "fusedActivationFunction", 0) not in _STRAIGHT:
            return None
        index = int(op.outputs[0])
        readers = [i for i, each in enumerate(graph.operators) if index in each.inputs]
        if index in outputs or len(readers) != 1:
            return None
        number = readers[0]
        kind = files.operator_name(model, graph.operators[number])
        if kind in _READ_AXIS:
            return number
        if kind not in _LETS_THROUGH or not _keeps_channels(model, graph.operators[number], kind):
            return None


def _keeps_channels(model: ModelT, op: Any, kind: str) -> bool:
    """Tell whether channel i stays channel i, counted along the last axis."""
    graph = model.subgraphs[0]
    before, after = (files.shape(graph.tensors[index]) for index in (op.inputs[0], op.outputs[0]))
    if kind == "RESHAPE":  # a flattening: places outside, channels inside
        return len(after) == 2 and after[-1] % before[-1] == 0
    if kind == "MEAN":
        axes = files.stored(model, graph.tensors[op.inputs[1]]).ravel()
        return len(before) - 1 not in {int(axis) % len(before) for axis in axes}
    return before[-1] == after[-1]


def _made(model: ModelT, site: Site) -> int:
    """Count a layer's output channels."""
    return files.shape(model.subgraphs[0].tensors[site.weights])[CHANNEL_AXIS[site.op]]


def _fits(model: ModelT, first: Site, second: Site) -> bool:
    """Tell whether the second layer reads each channel by itself: no grouped convolution, no shared weights."""
    graph = model.subgraphs[0]
    entries = files.shape(graph.tensors[second.weights])[_READ_AXIS[second.op]]
    channels = _made(model, first)
    several = entries % channels == 0 if second.op == "FULLY_CONNECTED" else entries == channels
    used = [int(index) for op in graph.operators for index in op.inputs]
    held = [index for index in (first.weights, first.bias, second.weights) if index is not None]
    return several and first.op in CHANNEL_AXIS and all(used.count(index) == 1 for index in held)
