"""Int8 `.tflite` files made by hand, operator by operator, without a converter: for tests of integer arithmetic."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

ACTIVATIONS = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3}
TYPES = {"int8": 9, "uint8": 3, "int32": 2, "float32": 0}
VERSIONS = {
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "AVERAGE_POOL_2D": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "RESHAPE": 1,
    "QUANTIZE": 2,
}


class SmallNetwork:
    """A chain of operators; each method adds one behind the last.

    Parameters
    ----------
    shape : tuple of int
        Shape of the input for one example, without the batch.
    scale, zero_point : float, int
        Grid of the input.
    dtype : str
        Type of the input.
    """

    def __init__(self, shape, scale=1 / 255, zero_point=-128, dtype="int8"):
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.last = self._flowing((1, *shape), scale, zero_point, dtype)
        self.graph.inputs = [self.last]

    @property
    def shape(self):
        """Shape of what flows out of the last operator, with a batch of 1."""
        return tuple(self.graph.tensors[self.last].shape)

    @property
    def grid(self):
        """Scale and zero point of what flows out of the last operator."""
        quantization = self.graph.tensors[self.last].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def conv(
        self,
        weights,
        scales,
        bias,
        scale,
        zero_point,
        *,
        stride=(1, 1),
        dilation=(1, 1),
        padding="same",
        activation="none",
    ):
        """CONV_2D; weights int8 (out, height, width, in), one scale for each output channel or one for all."""
        options = schema.Conv2DOptionsT()
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.padding = 0 if padding == "same" else 1
        options.fusedActivationFunction = ACTIVATIONS[activation]
        spatial = self._spatial(weights.shape[1:3], stride, dilation, padding)
        self._weighted(
            "CONV_2D",
            "Conv2DOptions",
            options,
            weights,
            scales,
            bias,
            0,
            (1, *spatial, weights.shape[0]),
            scale,
            zero_point,
        )

    def depthwise(
        self,
        weights,
        scales,
        bias,
        scale,
        zero_point,
        *,
        stride=(1, 1),
        dilation=(1, 1),
        padding="same",
        activation="none",
    ):
        """DEPTHWISE_CONV_2D; weights int8 (1, height, width, channels * multiplier)."""
        options = schema.DepthwiseConv2DOptionsT()
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.depthMultiplier = weights.shape[3] // self.shape[3]
        options.padding = 0 if padding == "same" else 1
        options.fusedActivationFunction = ACTIVATIONS[activation]
        spatial = self._spatial(weights.shape[1:3], stride, dilation, padding)
        self._weighted(
            "DEPTHWISE_CONV_2D",
            "DepthwiseConv2DOptions",
            options,
            weights,
            scales,
            bias,
            3,
            (1, *spatial, weights.shape[3]),
            scale,
            zero_point,
        )

    def dense(self, weights, scales, bias, scale, zero_point, *, activation="none"):
        """FULLY_CONNECTED; weights int8 (out, in)."""
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = ACTIVATIONS[activation]
        self._weighted(
            "FULLY_CONNECTED",
            "FullyConnectedOptions",
            options,
            weights,
            scales,
            bias,
            0,
            (1, weights.shape[0]),
            scale,
            zero_point,
        )

    def pool(self, kind, size, *, stride=None, padding="valid", activation="none"):
        """AVERAGE_POOL_2D or MAX_POOL_2D, on the grid of its input."""
        options = schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth = size
        options.strideH, options.strideW = stride or size
        options.padding = 0 if padding == "same" else 1
        options.fusedActivationFunction = ACTIVATIONS[activation]
        spatial = self._spatial(size, stride or size, (1, 1), padding)
        name = {"average": "AVERAGE_POOL_2D", "max": "MAX_POOL_2D"}[kind]
        self._append(name, "Pool2DOptions", options, [], (1, *spatial, self.shape[3]), *self.grid)

    def mean(self, scale, zero_point):
        """MEAN over height and width."""
        options = schema.ReducerOptionsT()
        axes = self._constant(np.array([1, 2], np.int32))
        self._append("MEAN", "ReducerOptions", options, [axes], (1, self.shape[3]), scale, zero_point)

    def reshape(self, shape):
        """RESHAPE to `shape` for one example."""
        options = schema.ReshapeOptionsT()
        options.newShape = [-1, *shape]
        wanted = self._constant(np.array([-1, *shape], np.int32))
        self._append("RESHAPE", "ReshapeOptions", options, [wanted], (1, *shape), *self.grid)

    def requantize(self, scale, zero_point, dtype="int8"):
        """QUANTIZE from one integer grid to another."""
        self._append("QUANTIZE", "QuantizeOptions", schema.QuantizeOptionsT(), [], self.shape, scale, zero_point, dtype)

    def bytes(self):
        """The `.tflite` file."""
        self.graph.outputs = [self.last]
        self.model.subgraphs = [self.graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _spatial(self, size, stride, dilation, padding):
        reach = [(n - 1) * d + 1 for n, d in zip(size, dilation, strict=True)]
        space = self.shape[1:3]
        if padding == "same":
            return [-(-n // s) for n, s in zip(space, stride, strict=True)]
        return [(n - r) // s + 1 for n, r, s in zip(space, reach, stride, strict=True)]

    def _weighted(self, name, options_name, options, weights, scales, bias, channel_axis, shape, scale, zero_point):
        scales = np.atleast_1d(np.asarray(scales, np.float32))
        inputs = [self._constant(weights, scales, channel_axis)]
        if bias is not None:
            inputs.append(self._constant(bias.astype(np.int32), np.float32(self.grid[0]) * scales, 0))
        self._append(name, options_name, options, inputs, shape, scale, zero_point)

    def _append(self, name, options_name, options, inputs, shape, scale, zero_point, dtype="int8"):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = code.builtinCode
        code.version = VERSIONS[name]
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs = [self.last, *inputs]
        self.last = self._flowing(shape, scale, zero_point, dtype)
        op.outputs = [self.last]
        op.builtinOptionsType = getattr(schema.BuiltinOptions, options_name)
        op.builtinOptions = options
        self.graph.operators.append(op)

    def _flowing(self, shape, scale, zero_point, dtype="int8"):
        tensor = self._tensor(shape, TYPES[dtype], 0)
        tensor.shapeSignature = [-1, *shape[1:]]
        tensor.quantization = _quantization(np.float32([scale]), np.int64([zero_point]), 0)
        return len(self.graph.tensors) - 1

    def _constant(self, values, scales=None, axis=0):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor = self._tensor(values.shape, TYPES[values.dtype.name], len(self.model.buffers) - 1)
        if scales is not None:
            tensor.quantization = _quantization(scales, np.zeros(len(scales), np.int64), axis)
        return len(self.graph.tensors) - 1

    def _tensor(self, shape, kind, buffer):
        tensor = schema.TensorT()
        tensor.shape = list(shape)
        tensor.type = kind
        tensor.buffer = buffer
        tensor.name = f"tensor{len(self.graph.tensors)}".encode()
        self.graph.tensors.append(tensor)
        return tensor


def _quantization(scales, zero_points, axis):
    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint, parameters.quantizedDimension = scales, zero_points, axis
    return parameters
