"""Float `.tflite` files made by hand, operator by operator, with branches: for tests of what is done to a graph."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

VERSIONS = {"LOGISTIC": 1, "SOFTMAX": 1}
RELU = {"none": 0, "relu": 1, "relu6": 3}


class FloatNetwork:
    """A graph that grows; each method takes the index of a tensor and gives that of its result."""

    def __init__(self, shape, seed):
        self.chance = np.random.default_rng(seed)
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.input = self._tensor("input", (1, *shape))
        self.count = 0

    def shape(self, tensor):
        return tuple(int(size) for size in self.graph.tensors[tensor].shape)

    def _tensor(self, name, shape, values=None, kind=schema.TensorType.FLOAT32):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = name.encode(), kind, np.array(shape, np.int32)
        tensor.buffer = 0
        if values is None:
            tensor.shapeSignature = np.array([-1, *shape[1:]], np.int32)
        else:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def weights(self, name, *shape):
        spread = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        return self._tensor(name, shape, self.chance.normal(0, spread, shape).astype(np.float32))

    def integers(self, name, values):
        array = np.array(values, np.int32)
        return self._tensor(name, array.shape, array, schema.TensorType.INT32)

    def _operator(self, kind, inputs, shape, options=None, options_kind=0):
        code = getattr(schema.BuiltinOperator, kind)
        found = schema.OperatorCodeT()
        found.builtinCode, found.deprecatedBuiltinCode = code, min(code, 127)
        found.version = VERSIONS.get(kind, 1)
        self.model.operatorCodes.append(found)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs = np.array(inputs, np.int32)
        self.count += 1
        op.outputs = np.array([self._tensor(f"{kind.lower()}_{self.count}", shape)], np.int32)
        op.builtinOptions, op.builtinOptionsType = options, options_kind
        self.graph.operators.append(op)
        return int(op.outputs[0])

    def conv(self, x, channels, size=3, stride=1, activation="relu"):
        _, height, width, before = self.shape(x)
        options = schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.SAME, stride, stride
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = RELU[activation]
        name = f"net/conv{self.count}/Conv2D"
        inputs = [x, self.weights(name, channels, size, size, before)]
        inputs.append(self.weights(f"net/conv{self.count}/bias", channels))
        shape = (1, -(-height // stride), -(-width // stride), channels)
        return self._operator("CONV_2D", inputs, shape, options, schema.BuiltinOptions.Conv2DOptions)

    def depthwise(self, x, stride=1, multiplier=1, activation="relu6"):
        _, height, width, channels = self.shape(x)
        options = schema.DepthwiseConv2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.SAME, stride, stride
        options.dilationHFactor = options.dilationWFactor = 1
        options.depthMultiplier, options.fusedActivationFunction = multiplier, RELU[activation]
        after = channels * multiplier
        inputs = [x, self.weights(f"net/depthwise{self.count}/depthwise", 1, 3, 3, after)]
        inputs.append(self.weights(f"net/depthwise{self.count}/bias", after))
        shape = (1, -(-height // stride), -(-width // stride), after)
        kind = schema.BuiltinOptions.DepthwiseConv2DOptions
        return self._operator("DEPTHWISE_CONV_2D", inputs, shape, options, kind)

    def pool(self, x, kind="MAX_POOL_2D"):
        _, height, width, channels = self.shape(x)
        options = schema.Pool2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.VALID, 2, 2
        options.filterHeight = options.filterWidth = 2
        shape = (1, height // 2, width // 2, channels)
        return self._operator(kind, [x], shape, options, schema.BuiltinOptions.Pool2DOptions)

    def scale_and_shift(self, x):
        """Batch normalization that was not folded: a multiplication and an addition with a number for each channel."""
        channels = self.shape(x)[-1]
        scaled = self._operator("MUL", [x, self.weights("scale", channels)], self.shape(x), *self._plain("Mul"))
        return self._operator("ADD", [scaled, self.weights("shift", channels)], self.shape(x), *self._plain("Add"))

    def add(self, x, y):
        return self._operator("ADD", [x, y], self.shape(x), *self._plain("Add"))

    def unary(self, kind, x):
        return self._operator(kind, [x], self.shape(x))

    def mean(self, x):
        options = schema.ReducerOptionsT()
        axes = self.integers("axes", [1, 2])
        shape = (1, self.shape(x)[-1])
        return self._operator("MEAN", [x, axes], shape, options, schema.BuiltinOptions.ReducerOptions)

    def flatten(self, x):
        size = int(np.prod(self.shape(x)[1:]))
        target = self.integers("target", [-1, size])
        options = schema.ReshapeOptionsT()
        return self._operator("RESHAPE", [x, target], (1, size), options, schema.BuiltinOptions.ReshapeOptions)

    def dense(self, x, units, activation="relu"):
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = RELU[activation]
        name = f"net/dense{self.count}"
        inputs = [x, self.weights(f"{name}/MatMul", units, self.shape(x)[-1]), self.weights(f"{name}/bias", units)]
        kind = schema.BuiltinOptions.FullyConnectedOptions
        return self._operator("FULLY_CONNECTED", inputs, (1, units), options, kind)

    @staticmethod
    def _plain(kind):
        return getattr(schema, f"{kind}OptionsT")(), getattr(schema.BuiltinOptions, f"{kind}Options")

    def tflite(self, output):
        self.graph.inputs, self.graph.outputs = np.array([self.input], np.int32), np.array([output], np.int32)
        self.model.subgraphs = [self.graph]
        names = [tensor.name for tensor in self.graph.tensors]
        for index, tensor in enumerate(self.graph.tensors):
            if names.count(tensor.name) > 1:
                tensor.name = tensor.name + f"_{index}".encode()
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def random_network(seed):
    """A small network by chance: convolutions, depthwise ones, residual additions, norms, pools, a head."""
    chance = np.random.default_rng([7, seed])
    side = int(chance.integers(6, 13))
    net = FloatNetwork((side, side, int(chance.integers(1, 4))), seed)
    x = net.conv(net.input, int(chance.integers(3, 9)), activation=str(chance.choice(["relu", "relu6", "none"])))
    for _ in range(int(chance.integers(1, 5))):
        kind = chance.choice(["conv", "depthwise", "residual", "norm", "pool", "tanh", "multiplied"])
        if kind == "conv":
            size, stride = int(chance.choice([1, 3])), int(chance.choice([1, 2]))
            x = net.conv(x, int(chance.integers(2, 9)), size, stride)
        elif kind == "depthwise":
            x = net.depthwise(x, int(chance.choice([1, 2])))
        elif kind == "residual":
            branch = net.conv(x, net.shape(x)[-1], 3, activation="none")
            x = net.unary("RELU", net.add(x, branch))
        elif kind == "norm":
            x = net.unary("RELU", net.scale_and_shift(net.conv(x, int(chance.integers(2, 9)), 1, activation="none")))
        elif kind == "pool" and min(net.shape(x)[1:3]) >= 4:
            x = net.pool(x, str(chance.choice(["MAX_POOL_2D", "AVERAGE_POOL_2D"])))
        elif kind == "tanh":
            x = net.unary("TANH", x)
        elif kind == "multiplied" and chance.integers(3) == 0:
            x = net.depthwise(x, multiplier=2)
    x = net.flatten(x) if chance.integers(2) else net.mean(x)
    if chance.integers(2):
        x = net.dense(x, int(chance.integers(3, 12)))
    return net.tflite(net.dense(x, 10, activation="none"))
