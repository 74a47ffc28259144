"""What is in a `.tflite` file: a row for each layer that holds weights.

Names are taken from the names of the weight tensors, so that a layer is called the same in the float file and in every
file made from it, whatever the converter called its outputs.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from compresskit.litert import model as files
from compresskit.litert.model import ModelT

CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
"""Layers with weights, and the axis of their weights along which the output channels lie."""

_WEIGHT_INPUT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
_BIAS_INPUT = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
_CHANGE_OF_FORM = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "CAST")
_KERNEL_PARTS = re.compile(
    r"^(Conv2D|MatMul|depthwise|separable_conv2d|conv2d_transpose|BiasAdd|Relu6?|FusedBatchNormV3|ReadVariableOp|"
    r"Tensordot|Reshape|convolution|dot_general|transpose|add)(_?\d+)?$"
)


@dataclass(frozen=True)
class Layer:
    """One layer of a file that holds weights.

    Attributes
    ----------
    name : str
        The layer's name, unique in the file.
    op : str
        The operator, such as `"CONV_2D"`.
    shape : tuple of int
        Shape of the weights as LiteRT stores them: (out, height, width, in) for a convolution, (1, height, width,
        channels) for a depthwise one, (out, in) for a dense layer.
    dtype : str
        How the weights are stored: float32, float16, int8, int4 or int2.
    bytes : int
        Bytes of weights and bias in the file, without scales and names.
    parameters : int
        Number of weights and biases.
    macs : int
        Multiply-accumulate operations for one input.
    sparsity : float
        Fraction of the weights that are exactly zero.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    parameters: int
    macs: int
    sparsity: float


@dataclass(frozen=True)
class Site:
    """Where a layer stands in the main graph: indices of its operator and of its tensors."""

    name: str
    op: str
    operator: int
    weights: int
    bias: int | None


def sites(model: ModelT) -> tuple[Site, ...]:
    """Find the layers that hold constant weights, in the order in which they run.

    Parameters
    ----------
    model
        An unpacked model.

    Returns
    -------
    tuple of Site
        A dequantized weight (weight-only and float16 files insert a DEQUANTIZE) is followed to the stored one.
    """
    found = []
    for index, kind, op in _operators(model):
        if kind not in CHANNEL_AXIS:
            continue
        weights = _stored_source(model, int(op.inputs[_WEIGHT_INPUT[kind]]))
        if weights is None:
            continue
        bias_input = _BIAS_INPUT[kind]
        bias = int(op.inputs[bias_input]) if len(op.inputs) > bias_input else -1
        source = _stored_source(model, bias) if bias >= 0 else None
        found.append((kind, index, weights, source))
    names = _layer_names(model, [(kind, weights) for kind, _, weights, _ in found])
    return tuple(
        Site(name, kind, index, weights, bias) for name, (kind, index, weights, bias) in zip(names, found, strict=True)
    )


@functools.lru_cache(maxsize=64)
def layers(tflite: bytes) -> tuple[Layer, ...]:
    """Describe each layer of a file that holds weights.

    Parameters
    ----------
    tflite
        The bytes of the file.

    Returns
    -------
    tuple of Layer
        In the order in which they run.
    """
    model = files.read(tflite)
    return tuple(_describe(model, site) for site in sites(model))


@functools.lru_cache(maxsize=64)
def ends_in_softmax(tflite: bytes) -> bool:
    """Tell whether a file gives probabilities: the last operator that computes is a softmax."""
    kinds = [kind for _, kind, _ in _operators(files.read(tflite)) if kind not in _CHANGE_OF_FORM]
    return bool(kinds) and kinds[-1] == "SOFTMAX"


def _describe(model: ModelT, site: Site) -> Layer:
    """Make the row for one layer."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[site.weights]
    weights = files.dequantized(model, tensor)
    held = [tensor] if site.bias is None else [tensor, graph.tensors[site.bias]]
    bias = 0 if site.bias is None else int(np.prod(files.shape(graph.tensors[site.bias])))
    return Layer(
        name=site.name,
        op=site.op,
        shape=files.shape(tensor),
        dtype=files.DTYPES[tensor.type],
        bytes=sum(len(model.buffers[each.buffer].data) for each in held),
        parameters=weights.size + bias,
        macs=_macs(model, site, weights.shape),
        sparsity=float(np.mean(weights == 0)) if weights.size else 0.0,
    )


def _macs(model: ModelT, site: Site, shape: tuple[int, ...]) -> int:
    """Count multiply-accumulates for one input: one per weight and per place at which the weight is used."""
    graph = model.subgraphs[0]
    op = graph.operators[site.operator]
    output = files.shape(graph.tensors[op.outputs[0]])
    size = int(np.prod(shape))
    if site.op == "FULLY_CONNECTED":
        return size * int(np.prod(output[1:-1])) if len(output) > 2 else size
    if site.op == "TRANSPOSE_CONV":  # each input place spreads over the whole kernel
        image = files.shape(graph.tensors[op.inputs[2]])
        return size * int(np.prod(image[1:3]))
    return size * int(np.prod(output[1:3]))


def _operators(model: ModelT) -> Iterator[tuple[int, str, Any]]:
    """Go through the operators of the main graph with their index and kind."""
    for index, op in enumerate(model.subgraphs[0].operators):
        yield index, files.operator_name(model, op), op


def _stored_source(model: ModelT, index: int) -> int | None:
    """Follow a tensor back through DEQUANTIZE to the constant it comes from; None if it is computed."""
    if files.is_constant(model, index):
        return index
    for _, kind, op in _operators(model):
        if index in op.outputs and kind == "DEQUANTIZE" and files.is_constant(model, int(op.inputs[0])):
            return int(op.inputs[0])
    return None


def _layer_names(model: ModelT, found: list[tuple[str, int]]) -> list[str]:
    """Give each layer a short unique name."""
    raw = [
        _short_name(files.tensor_name(model.subgraphs[0].tensors[weights])) or kind.lower() for kind, weights in found
    ]
    repeated = {name for name, count in Counter(raw).items() if count > 1}
    seen: Counter[str] = Counter()
    names = []
    for name in raw:
        seen[name] += 1
        names.append(f"{name}_{seen[name]}" if name in repeated else name)
    return names


def _short_name(tensor: str) -> str:
    """Find the layer's name in a tensor's: `digit_reader/conv1/Conv2D` and `a/relu/Relu;a/conv1/Conv2D` to `conv1`."""
    candidates: list[tuple[bool, int, str]] = []
    for path in tensor.split(";"):
        parts = [part for part in path.split("/") if part]
        kernel = bool(parts) and bool(re.match(r"^(Conv2D|MatMul|depthwise|conv2d_transpose)(_?\d+)?$", parts[-1]))
        while parts and _KERNEL_PARTS.match(parts[-1]):
            parts.pop()
        if parts and not parts[-1].startswith(("arith.constant", "tfl.pseudo")):
            candidates.append((not kernel, len(candidates), parts[-1]))
    return min(candidates)[2] if candidates else ""
