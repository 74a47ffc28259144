"""An int8 file whose activation ranges somebody chose: by hand, by a calibrator of their own, from one digit or many.

A recipe names a method, and `compresskit.compress` measures. Here the ranges themselves are given, tensor by tensor, so
that a lesson can show what each of them does to a real file. The file is checked like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.quantizer import LayerPlan, Ranges, quantize
from compresskit.litert.verify import check_file

_CARRYING = frozenset(["MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE", "SQUEEZE", "PAD", "TRANSPOSE"])
"""Operators behind which LiteRT keeps the scale of what came in."""


@functools.lru_cache(maxsize=32)
def layer_outputs(tflite: bytes) -> Mapping[str, tuple[str, ...]]:
    """Name the tensors that each layer with weights puts out.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.

    Returns
    -------
    dict of str to tuple of str
        Layer name to its output tensor, and to those that hold the same values further on (pooled, reshaped): all of
        them have one range.
    """
    model = files.read(tflite)
    graph = model.subgraphs[0]
    found = {}
    for site in sites(model):
        same = [int(graph.operators[site.operator].outputs[0])]
        for op in graph.operators[site.operator + 1 :]:
            if files.operator_name(model, op) in _CARRYING and int(op.inputs[0]) in same:
                same.append(int(op.outputs[0]))
        found[site.name] = tuple(files.tensor_name(graph.tensors[index]) for index in same)
    return found


def with_range(ranges: Ranges, tflite: bytes, layer: str, low: float, high: float) -> dict[str, tuple[float, float]]:
    """Give a copy of measured ranges in which one layer's output reaches from `low` to `high`.

    Raises
    ------
    ValueError
        If there is no such layer, or the range is empty.
    """
    outputs = layer_outputs(tflite)
    if layer not in outputs:
        raise ValueError(f"layer {layer!r} is not in this model; its layers are {', '.join(outputs)}")
    if not low < high:
        raise ValueError(f"layer {layer!r}: the range from {low} to {high} is empty; give low below high")
    return {**ranges, **{name: (float(low), float(high)) for name in outputs[layer]}}


def int8_file(tflite: bytes, ranges: Ranges, probes: NDArray[Any], granularity: str = "channel") -> bytes:
    """Quantize weights and activations to int8, activations on the ranges given.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    ranges
        Smallest and largest value of every tensor that flows, as `compresskit.litert.calibration.activation_ranges`
        measures them and `with_range` changes them.
    probes : ndarray, shape (n, ...)
        A few examples, on which the file is checked operator by operator.
    granularity
        "channel" or "tensor": what has a scale of its own among the weights.

    Returns
    -------
    bytes
        The int8 `.tflite`.

    Raises
    ------
    ValueError
        If a range is not finite, or the file does not compute what its weights say; the sentence names the tensor or
        the layer.
    """
    for name, ends in ranges.items():
        if not np.isfinite(ends).all():
            raise ValueError(f"the range of {name!r} is {ends[0]} to {ends[1]}; give finite numbers")
    plan = LayerPlan(bits=8, stored=8, activations=8, granularity=granularity, ranges="minmax", compute="integer")
    plans = {site.name: plan for site in sites(files.read(tflite))}
    small = quantize(tflite, plans, 8, ranges)
    check_file(small, tflite, {}, plans, 8, probes)
    return small
