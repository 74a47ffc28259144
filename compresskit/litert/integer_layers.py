"""Read the layers of an int8 `.tflite` for `compresskit.quantization.integer`, which computes them in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.model import ModelT
from compresskit.litert.runtime import WORKERS
from compresskit.quantization import integer
from compresskit.quantization.affine import Grid, dequantize, quantize
from compresskit.quantization.integer import (
    Activation,
    IntegerAveragePool,
    IntegerConv,
    IntegerDense,
    IntegerDepthwise,
    IntegerLayer,
    IntegerMaxPool,
    IntegerMean,
    IntegerRescale,
    IntegerReshape,
    Requantizer,
    Rounding,
    Window,
)

_ACTIVATIONS: dict[int, Activation] = {
    schema.ActivationFunctionType.NONE: "none",
    schema.ActivationFunctionType.RELU: "relu",
    schema.ActivationFunctionType.RELU6: "relu6",
    schema.ActivationFunctionType.RELU_N1_TO_1: "relu_n1_to_1",
}
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


@dataclass(frozen=True, eq=False)
class IntegerModel:
    """A chain of integer layers, and the grids at its ends.

    Attributes
    ----------
    layers : tuple of layers
        See `compresskit.quantization.integer`.
    input_shape : tuple of int
        Shape of one example.
    input_grid, output_grid : Grid
        How the integers at both ends stand for real numbers.
    """

    layers: tuple[IntegerLayer, ...]
    input_shape: tuple[int, ...]
    input_grid: Grid
    output_grid: Grid

    def encode(self, images: NDArray[Any]) -> NDArray[Any]:
        """Bring uint8 pixels (as pixel / 255) or float32 values, shape (n, ...), onto the grid of the input."""
        values = images.reshape(len(images), *self.input_shape)
        if images.dtype == np.uint8:
            codes = quantize(np.arange(256, dtype=np.float32) / np.float32(255), self.input_grid, "away")
            return np.asarray(codes[values])
        return quantize(values, self.input_grid, "away")

    def run(self, x: NDArray[Any], *, rounding: Rounding | None = None, workers: int = WORKERS) -> NDArray[Any]:
        """Compute the outputs for integers x, shape (n, *input_shape).

        With `rounding` None every layer rounds as LiteRT's reference kernel for it does; otherwise all of them so:
        "float32" gives what XNNPACK gives. The examples are shared among `workers` threads.
        """
        layers = self.layers if rounding is None else integer.with_rounding(self.layers, rounding)
        parts = np.array_split(x, max(1, min(workers, len(x))))
        # The matrices are small: threads inside the product would wait for each other longer than they compute.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(len(parts)) as pool:
            return np.concatenate(list(pool.map(partial(integer.run, layers), parts)))

    def decode(self, q: NDArray[Any]) -> NDArray[np.float32]:
        """Turn integers of the output into real numbers."""
        return dequantize(q, self.output_grid)


def integer_model(tflite: bytes) -> IntegerModel:
    """Read a fully quantized `.tflite` whose operators form a chain.

    Parameters
    ----------
    tflite
        The bytes of the file: int8 activations, weights of 8, 4 or 2 bits with zero point 0. A float input or output
        behind QUANTIZE or DEQUANTIZE is left out: the chain begins and ends with integers.

    Returns
    -------
    IntegerModel

    Raises
    ------
    ValueError
        If an operator or a type is not among those; the sentence names it.
    """
    model = files.read(tflite)
    graph = model.subgraphs[0]
    ops = [op for op in graph.operators if not _touches_float(model, op)]
    if not ops:
        raise ValueError("tflite: no operator computes in integers; quantize weights and activations to int8 first.")
    _check_chain(model, ops)
    ends = graph.tensors[ops[0].inputs[0]], graph.tensors[ops[-1].outputs[0]]
    input_grid, output_grid = (_grid(tensor) for tensor in ends)
    names = {id(graph.operators[site.operator]): site.name for site in sites(model)}
    layers = tuple(_READERS[_kind(model, op)](model, op, names.get(id(op)) or _name(model, op)) for op in ops)
    return IntegerModel(layers, files.shape(ends[0])[1:], input_grid, output_grid)


def _touches_float(model: ModelT, op: Any) -> bool:
    """Tell whether an operator only converts between float and integers; ValueError if it computes in float."""
    tensors = [model.subgraphs[0].tensors[index] for index in (op.inputs[0], op.outputs[0])]
    kinds = [files.DTYPES[tensor.type] for tensor in tensors]
    if "float32" not in kinds:
        return False
    if _kind(model, op) in ("QUANTIZE", "DEQUANTIZE"):
        return True
    raise ValueError(
        f"tflite: {_kind(model, op)} ({files.tensor_name(tensors[1])!r}) computes in float32; "
        "quantize weights and activations to int8, so that every layer computes in integers."
    )


def _check_chain(model: ModelT, ops: list[Any]) -> None:
    """Raise ValueError unless each operator is known and reads what the one before it wrote."""
    for number, op in enumerate(ops):
        kind = _kind(model, op)
        if kind not in _READERS:
            raise ValueError(
                f"tflite: {kind} has no integer layer here; there are {', '.join(sorted(_READERS))}. "
                "A model that ends in logits needs no softmax."
            )
        if number and op.inputs[0] != ops[number - 1].outputs[0]:
            raise ValueError(f"tflite: {kind} does not read the operator before it; only chains can be computed here.")


def _kind(model: ModelT, op: Any) -> str:
    """Name the kind of an operator."""
    return files.operator_name(model, op)


def _name(model: ModelT, op: Any) -> str:
    """Name an operator by its output."""
    return files.tensor_name(_output(model, op))


def _input(model: ModelT, op: Any, position: int = 0) -> Any:
    """Give a tensor that an operator reads."""
    return model.subgraphs[0].tensors[op.inputs[position]]


def _output(model: ModelT, op: Any) -> Any:
    """Give the tensor that an operator writes."""
    return model.subgraphs[0].tensors[op.outputs[0]]


def _grid(tensor: Any) -> Grid:
    """Read the grid of what flows: one scale, one zero point, int8 or uint8."""
    kind = files.DTYPES[tensor.type]
    if kind not in _LIMITS:
        raise ValueError(
            f"tflite: tensor {files.tensor_name(tensor)!r} has the type {kind}, but must be int8 or uint8."
        )
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        raise ValueError(f"tflite: tensor {files.tensor_name(tensor)!r} must have one scale; it is not quantized.")
    return Grid(np.asarray(quantization.scale[0]), np.asarray(quantization.zeroPoint[0]), 8, kind == "int8")


def _requantizer(
    model: ModelT, op: Any, weight_scale: NDArray[np.float32], rounding: Rounding, activation: int = 0
) -> Requantizer:
    """Collect what takes the accumulators of an operator to its output."""
    before, after = _grid(_input(model, op)), _grid(_output(model, op))
    clamp = _clamp(after, activation)
    scales = float(before.scale), weight_scale, float(after.scale)
    return Requantizer(*scales, int(after.zero_point), *clamp, rounding)


def _clamp(grid: Grid, activation: int) -> tuple[int, int]:
    """Fold the activation into the clamp."""
    if activation not in _ACTIVATIONS:
        raise ValueError(f"tflite: activation {activation} of the schema cannot be folded into a clamp; use a ReLU.")
    limits = grid.lowest, grid.highest
    return integer.clamp_range(_ACTIVATIONS[activation], float(grid.scale), int(grid.zero_point), *limits)


def _weights(model: ModelT, op: Any) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32]]:
    """Read weights, their scales and the bias of a layer."""
    tensor = _input(model, op, 1)
    kind = files.DTYPES[tensor.type]
    if kind not in ("int8", "int4", "int2"):
        raise ValueError(
            f"tflite: weights {files.tensor_name(tensor)!r} have the type {kind}, but must be int8 or less."
        )
    weights, quantization = files.stored(model, tensor), tensor.quantization
    if quantization.scale is None or np.any(quantization.zeroPoint):
        raise ValueError(f"tflite: weights {files.tensor_name(tensor)!r} must have scales, and zero points of 0.")
    channels = weights.shape[3] if _kind(model, op) == "DEPTHWISE_CONV_2D" else weights.shape[0]
    has_bias = len(op.inputs) > 2 and op.inputs[2] >= 0
    bias = files.stored(model, _input(model, op, 2)) if has_bias else np.zeros(channels, np.int32)
    if bias.dtype != np.int32:
        raise ValueError(f"tflite: the bias of {_name(model, op)!r} has the type {bias.dtype}, but must be int32.")
    scale = np.asarray(quantization.scale, np.float32)
    return weights, scale if len(scale) > 1 else scale.reshape(()), bias


def _window(options: Any, size: tuple[int, int]) -> Window:
    """Read how a window moves."""
    dilation = getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)
    padding = "same" if options.padding == schema.Padding.SAME else "valid"
    return Window(size, (options.strideH, options.strideW), dilation, padding)  # type: ignore[arg-type]


def _convolution(model: ModelT, op: Any, name: str) -> IntegerLayer:
    """Read CONV_2D or DEPTHWISE_CONV_2D."""
    weights, scale, bias = _weights(model, op)
    options = op.builtinOptions
    requantizer = _requantizer(model, op, scale, "twice", options.fusedActivationFunction)
    window = _window(options, (weights.shape[1], weights.shape[2]))
    make = IntegerConv if _kind(model, op) == "CONV_2D" else IntegerDepthwise
    zero_point = int(_grid(_input(model, op)).zero_point)
    return make(name, weights, bias, zero_point, window, requantizer)


def _dense(model: ModelT, op: Any, name: str) -> IntegerLayer:
    """Read FULLY_CONNECTED, whose reference kernel requantizes in double precision."""
    weights, scale, bias = _weights(model, op)
    requantizer = _requantizer(model, op, scale, "float64", op.builtinOptions.fusedActivationFunction)
    return IntegerDense(name, weights, bias, int(_grid(_input(model, op)).zero_point), requantizer)


def _pool(model: ModelT, op: Any, name: str) -> IntegerLayer:
    """Read AVERAGE_POOL_2D or MAX_POOL_2D."""
    options = op.builtinOptions
    window = _window(options, (options.filterHeight, options.filterWidth))
    make = IntegerAveragePool if _kind(model, op) == "AVERAGE_POOL_2D" else IntegerMaxPool
    return make(name, window, *_clamp(_grid(_output(model, op)), options.fusedActivationFunction))


def _mean(model: ModelT, op: Any, name: str) -> IntegerLayer:
    """Read MEAN over height and width."""
    axes = sorted(int(axis) % len(files.shape(_input(model, op))) for axis in files.stored(model, _input(model, op, 1)))
    if axes != [1, 2] or len(files.shape(_output(model, op))) != 2:
        raise ValueError(f"tflite: MEAN {name!r} must go over height and width and drop them.")
    zero_point = int(_grid(_input(model, op)).zero_point)
    return IntegerMean(name, zero_point, _requantizer(model, op, np.ones((), np.float32), "twice"))


def _reshape(model: ModelT, op: Any, name: str) -> IntegerLayer:
    """Read RESHAPE."""
    return IntegerReshape(name, files.shape(_output(model, op))[1:])


def _rescale(model: ModelT, op: Any, name: str) -> IntegerLayer:
    """Read QUANTIZE from integers to integers."""
    zero_point, kind = int(_grid(_input(model, op)).zero_point), files.DTYPES[_output(model, op).type]
    return IntegerRescale(name, zero_point, _requantizer(model, op, np.ones((), np.float32), "twice"), kind)


_READERS: dict[str, Callable[[ModelT, Any, str], IntegerLayer]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _dense,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "RESHAPE": _reshape,
    "QUANTIZE": _rescale,
}
