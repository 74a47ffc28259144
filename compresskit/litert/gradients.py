"""Backpropagation through a float `.tflite`, in NumPy: what the loss says of each weight, without TensorFlow.

LiteRT runs the file and keeps what flows; from there the chain rule goes back, operator by operator, in the reverse of
the running order (Rumelhart, Hinton and Williams 1986). A convolution is done tap by tap: for each place of its kernel,
the inputs seen there are one matrix, and two products of matrices give what the tap's weights and the inputs get.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.litert import model as files
from compresskit.litert.calibration import tensor_values
from compresskit.litert.inspect import sites

BATCH = 100
"""Digits at a time: everything that flows is kept for so many."""

Array = NDArray[np.float32]

_NONE, _RELU, _RELU6 = (getattr(schema.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6"))
_RELU_N1_TO_1, _TANH = schema.ActivationFunctionType.RELU_N1_TO_1, schema.ActivationFunctionType.TANH


@functools.lru_cache(maxsize=4)
def weight_gradients(tflite: bytes, digits: Split) -> Mapping[str, Array]:
    """Compute the gradient of the mean cross-entropy with respect to the weights of each layer.

    Parameters
    ----------
    tflite
        A plain float `.tflite` that answers with logits, or with probabilities behind a softmax.
    digits
        The digits with their labels.

    Returns
    -------
    mapping of str to ndarray of float32
        Layer name to an array of the shape of its weights, as LiteRT stores them; not to be written to.

    Raises
    ------
    ValueError
        If an operator has no derivative here; the sentence names it.
    """
    graph = _Graph(tflite)
    total: dict[str, Array] = {}
    for start in range(0, len(digits), BATCH):
        chosen = slice(start, start + BATCH)
        for name, part in graph.backward(digits.images[chosen], digits.labels[chosen]):
            total[name] = total[name] + part if name in total else part
    mean = {name: np.asarray(part / len(digits), np.float32) for name, part in total.items()}
    for array in mean.values():
        array.flags.writeable = False
    return MappingProxyType(mean)


@dataclass(frozen=True)
class _Step:
    """One operator on the way back.

    Attributes
    ----------
    op : object
        The operator.
    kind : str
        Its name.
    inputs : list of ndarray or None
        What it read; None where nothing was given.
    constant : list of bool
        Which of these are held in the file.
    output : ndarray
        What it gave.
    slope : ndarray
        Gradient of the summed loss with respect to the output, the operator's own rectifier gone back through.
    wanted : bool
        Whether anyone asks for the gradient of the first input.
    """

    op: Any
    kind: str
    inputs: list[Any]
    constant: list[bool]
    output: Array
    slope: Array
    wanted: bool

    @property
    def options(self) -> Any:
        """Strides, padding and the like."""
        return self.op.builtinOptions


_Found = tuple[dict[int, Array], Array | None]
"""Gradients of the inputs by position, and that of the weights."""


class _Graph:
    """A float file, ready to be gone through backward."""

    def __init__(self, tflite: bytes) -> None:
        self.tflite = tflite
        self.model = files.read(tflite)
        self.graph = self.model.subgraphs[0]
        self.names = {site.operator: site.name for site in sites(self.model)}
        self.constants = {
            index: files.dequantized(self.model, tensor) if tensor.type == schema.TensorType.FLOAT32 else
            files.stored(self.model, tensor)
            for index, tensor in enumerate(self.graph.tensors)
            if files.is_constant(self.model, index)
        }  # fmt: skip
        self.behind_weights = self._behind_weights()
        self._check()

    def _behind_weights(self) -> set[int]:
        """Find the tensors that a layer with weights lies before: the gradient of no other is of use."""
        found: set[int] = set()
        for number, op in enumerate(self.graph.operators):
            if number in self.names or found & {int(index) for index in op.inputs}:
                found |= {int(index) for index in op.outputs}
        return found

    def _check(self) -> None:
        """Refuse operators without a rule, before anything is computed."""
        last = len(self.graph.operators) - 1
        for number, op in enumerate(self.graph.operators):
            kind = files.operator_name(self.model, op)
            fused = getattr(op.builtinOptions, "fusedActivationFunction", _NONE)
            known = kind in _RULES and fused in (_NONE, _RELU, _RELU6, _RELU_N1_TO_1, _TANH)
            if int(op.outputs[0]) in self.behind_weights and not known and (kind != "SOFTMAX" or number != last):
                where = f"layer {self.names[number]!r}" if number in self.names else f"operator {number}"
                raise ValueError(
                    f"{where}: {kind} has no derivative here, which importance='gradient' needs; choose "
                    "importance='magnitude' or 'activation'"
                )

    def backward(self, images: NDArray[Any], labels: NDArray[Any]) -> Iterator[tuple[str, Array]]:
        """Give, layer by layer from the last on, the gradient of the summed cross-entropy of some digits."""
        flowing = tensor_values(self.tflite, images)
        operators = list(enumerate(self.graph.operators))
        end = int(self.graph.outputs[0])
        if files.operator_name(self.model, operators[-1][1]) == "SOFTMAX":
            end = int(operators.pop()[1].inputs[0])
        slopes = {end: _cross_entropy_slope(self._value(end, flowing), labels)}
        for number, op in reversed(operators):
            slope = slopes.pop(int(op.outputs[0]), None)
            if slope is None:
                continue
            step = self._step(op, slope, flowing)
            found, weights = _RULES[step.kind](step)
            for position, gradient in found.items():
                index = int(op.inputs[position])
                if index in self.behind_weights:
                    slopes[index] = slopes[index] + gradient if index in slopes else gradient
            if number in self.names and weights is not None:
                yield self.names[number], weights

    def _step(self, op: Any, slope: Array, flowing: Mapping[str, Array]) -> _Step:
        output = self._value(int(op.outputs[0]), flowing)
        fused = getattr(op.builtinOptions, "fusedActivationFunction", _NONE)
        return _Step(
            op,
            files.operator_name(self.model, op),
            [self._value(int(index), flowing) if index >= 0 else None for index in op.inputs],
            [int(index) in self.constants for index in op.inputs],
            output,
            slope.reshape(output.shape) * _fused_slope(fused, output),
            int(op.inputs[0]) in self.behind_weights,
        )

    def _value(self, index: int, flowing: Mapping[str, Array]) -> Any:
        if index in self.constants:
            return self.constants[index]
        return flowing[files.tensor_name(self.graph.tensors[index])]


def _cross_entropy_slope(logits: Array, labels: NDArray[Any]) -> Array:
    """Differentiate the summed cross-entropy: probability minus one for the right class, probability elsewhere."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    slope = powers / powers.sum(axis=1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    return np.asarray(slope, np.float32)


def _fused_slope(activation: int, output: Array) -> Any:
    """Differentiate a rectifier that is part of an operator, from what came out."""
    if activation == _NONE:
        return np.float32(1)
    if activation == _TANH:
        return 1 - output**2
    low, high = {_RELU: (0, np.inf), _RELU6: (0, 6), _RELU_N1_TO_1: (-1, 1)}[activation]
    return (output > low) & (output < high)


# -- layers with weights ----------------------------------------------------------------------------------------------


def _dense(step: _Step) -> _Found:
    """Y = X Wᵀ + b: dW = dYᵀ X, dX = dY W."""
    x, w = step.inputs[0], step.inputs[1]
    slope = step.slope.reshape(-1, w.shape[0])
    before = {0: (slope @ w).reshape(x.shape)} if step.wanted else {}
    return before, slope.T @ x.reshape(-1, w.shape[1])


def _convolution(step: _Step) -> _Found:
    """Differentiate a convolution, tap by tap: at each, Y += X_tap W_tapᵀ."""
    x, w = step.inputs[0], step.inputs[1]
    if w.shape[3] != x.shape[3]:
        raise ValueError("CONV_2D in groups has no derivative here, which importance='gradient' needs; choose another")
    window = _Window.of(step, w.shape[1:3])
    slope = step.slope.reshape(-1, w.shape[0])
    weights, before = np.empty_like(w), np.zeros(window.padded, np.float32)
    padded = window.pad(x)
    for row, column, place in window.taps():
        seen = padded[place]
        weights[:, row, column] = slope.T @ seen.reshape(-1, w.shape[3])
        if step.wanted:
            before[place] += (slope @ w[:, row, column]).reshape(seen.shape)
    return ({0: window.crop(before)} if step.wanted else {}), weights


def _depthwise(step: _Step) -> _Found:
    """Differentiate a depthwise convolution; each input channel makes one or several of the output's."""
    x, w = step.inputs[0], step.inputs[1]
    window = _Window.of(step, w.shape[1:3])
    channels, several = x.shape[3], w.shape[3] // x.shape[3]
    slope = step.slope.reshape(*step.slope.shape[:3], channels, several)
    weights, before = np.empty_like(w), np.zeros(window.padded, np.float32)
    padded = window.pad(x)
    for row, column, place in window.taps():
        seen = padded[place]
        weights[0, row, column] = np.einsum("nhwcm,nhwc->cm", slope, seen).reshape(-1)
        if step.wanted:
            before[place] += np.einsum("nhwcm,cm->nhwc", slope, w[0, row, column].reshape(channels, several))
    return ({0: window.crop(before)} if step.wanted else {}), weights


@dataclass(frozen=True)
class _Window:
    """How a kernel slides over an image, its border padded."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    padded: tuple[int, ...]
    image: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, step: _Step, size: tuple[int, int]) -> _Window:
        """Read strides and padding; SAME pads so that the places are the image's, one more behind than before."""
        options, image, places = step.options, step.inputs[0].shape, step.output.shape[1:3]
        stride = (options.strideH, options.strideW)
        dilation = (getattr(options, "dilationHFactor", 1) or 1, getattr(options, "dilationWFactor", 1) or 1)
        reach = [
            (count - 1) * each + (side - 1) * far + 1
            for count, each, side, far in zip(places, stride, size, dilation, strict=True)
        ]
        same = options.padding == schema.Padding.SAME
        missing = [max(needed - had, 0) if same else 0 for needed, had in zip(reach, image[1:3], strict=True)]
        padded = [max(needed, had + more) for needed, had, more in zip(reach, image[1:3], missing, strict=True)]
        return cls(
            (int(size[0]), int(size[1])),
            stride,
            dilation,
            (missing[0] // 2, missing[1] // 2),
            (image[0], *padded, image[3]),
            image,
            places,
        )

    def taps(self) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
        """Go through the places of the kernel: row, column, and what of the padded image each of them sees."""
        for row in range(self.size[0]):
            for column in range(self.size[1]):
                first = (row * self.dilation[0], column * self.dilation[1])
                across = [
                    slice(start, start + (count - 1) * each + 1, each)
                    for start, count, each in zip(first, self.places, self.stride, strict=True)
                ]
                yield row, column, (slice(None), *across)

    def pad(self, x: Array, value: float = 0.0) -> Array:
        """Put the image into its border."""
        made = np.full((len(x), *self.padded[1:3], x.shape[3]), value, np.float32)
        self._inner(made)[...] = x
        return made

    def crop(self, padded: Array) -> Array:
        """Cut the border off."""
        return self._inner(padded)

    def _inner(self, padded: Array) -> Array:
        top, left = self.before
        return padded[:, top : top + self.image[1], left : left + self.image[2]]


# -- layers without weights -------------------------------------------------------------------------------------------


def _max_pool(step: _Step) -> _Found:
    """Give the slope to the first of the largest in each window."""
    window = _Window.of(step, (step.options.filterHeight, step.options.filterWidth))
    padded = window.pad(step.inputs[0], -np.inf)
    before, waiting = np.zeros(window.padded, np.float32), np.ones(step.output.shape, bool)
    for _, _, place in window.taps():
        here = waiting & (padded[place] == step.output)
        before[place] += step.slope * here
        waiting &= ~here
    return {0: window.crop(before)}, None


def _average_pool(step: _Step) -> _Found:
    """Share the slope among the pixels of each window; the border is not counted."""
    window = _Window.of(step, (step.options.filterHeight, step.options.filterWidth))
    inside = window.pad(np.ones((1, *window.image[1:3], 1), np.float32))
    counted = sum(inside[place] for _, _, place in window.taps())
    before = np.zeros(window.padded, np.float32)
    for _, _, place in window.taps():
        before[place] += step.slope / counted
    return {0: window.crop(before)}, None


def _mean(step: _Step) -> _Found:
    """Share the slope among what the mean was taken over."""
    shape = step.inputs[0].shape
    axes = tuple(int(axis) % len(shape) for axis in step.inputs[1].ravel())
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    count = int(np.prod([shape[axis] for axis in axes]))
    return {0: np.broadcast_to(step.slope.reshape(kept) / np.float32(count), shape)}, None


def _reshape(step: _Step) -> _Found:
    """Put the slope back into the old shape."""
    return {0: step.slope.reshape(step.inputs[0].shape)}, None


def _pad(step: _Step) -> _Found:
    """Leave out what was padded."""
    around = step.inputs[1].reshape(-1, 2)
    inner = tuple(
        slice(int(low), int(low) + size) for (low, _), size in zip(around[1:], step.inputs[0].shape[1:], strict=True)
    )
    return {0: step.slope[(slice(None), *inner)]}, None


def _concatenation(step: _Step) -> _Found:
    """Cut the slope where the pieces meet."""
    axis = step.options.axis % step.output.ndim
    ends = np.cumsum([each.shape[axis] for each in step.inputs])[:-1]
    return dict(enumerate(np.split(step.slope, ends, axis=axis))), None


def _addition(step: _Step) -> _Found:
    return _of_two(step, lambda one, other: (step.slope, step.slope))


def _subtraction(step: _Step) -> _Found:
    return _of_two(step, lambda one, other: (step.slope, -step.slope))


def _multiplication(step: _Step) -> _Found:
    return _of_two(step, lambda one, other: (step.slope * other, step.slope * one))


def _larger(step: _Step) -> _Found:
    return _of_two(step, lambda one, other: (step.slope * (one >= other), step.slope * (one < other)))


def _of_two(step: _Step, slopes: Callable[[Array, Array], tuple[Array, Array]]) -> _Found:
    """Differentiate an operator of two inputs, of which one may be a constant, or be repeated along some axes."""
    pairs = zip(step.inputs, step.constant, slopes(*step.inputs), strict=True)
    return {
        place: _summed(slope, each.shape) for place, (each, constant, slope) in enumerate(pairs) if not constant
    }, None


def _summed(slope: Array, shape: tuple[int, ...]) -> Array:
    """Add up a slope along the axes along which a value was repeated."""
    extra = slope.ndim - len(shape)
    repeated = (*range(extra), *(extra + axis for axis, size in enumerate(shape) if size == 1))
    return np.asarray(slope.sum(axis=repeated, keepdims=True).reshape(shape))


def _each(derivative: Callable[[_Step], Any]) -> Callable[[_Step], _Found]:
    """Give the rule of a function of single numbers."""
    return lambda step: ({0: step.slope * derivative(step)}, None)


_RULES: dict[str, Callable[[_Step], _Found]] = {
    "ADD": _addition,
    "AVERAGE_POOL_2D": _average_pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "LEAKY_RELU": _each(lambda step: np.where(step.inputs[0] > 0, np.float32(1), np.float32(step.options.alpha))),
    "LOGISTIC": _each(lambda step: step.output * (1 - step.output)),
    "MAX_POOL_2D": _max_pool,
    "MAXIMUM": _larger,
    "MEAN": _mean,
    "MUL": _multiplication,
    "PAD": _pad,
    "RELU": _each(lambda step: step.output > 0),
    "RELU6": _each(lambda step: (step.output > 0) & (step.output < 6)),
    "RESHAPE": _reshape,
    "SUB": _subtraction,
    "TANH": _each(lambda step: 1 - step.output**2),
}
