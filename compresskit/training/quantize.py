"""Quantization-aware training: round the weights and activations while training, so that the network gets used to it.

A rounded weight has a gradient of zero almost everywhere. The *straight-through estimator* (Bengio et al. 2013,
https://arxiv.org/abs/1308.3432) acts as if rounding were not there on the way back: the forward pass computes with
``S round(w / S)``, the gradient goes to ``w`` as it is. Jacob et al. 2018 (https://arxiv.org/abs/1712.05877) train
whole networks so, weights and activations alike.

The layers are wrapped by TensorFlow Model Optimization, which has a place for that; what is put there is
:class:`WeightRounding`, because TFMOT's own quantizers cannot give a depthwise convolution a scale for each channel.
Its grid is the one of ``compresskit.quantization``: after training, the weights lie on it, and the file that
``compress`` makes of them holds just these weights.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from numpy.typing import NDArray
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from compresskit.compression import Compressed, compress
from compresskit.data import Digits, Split
from compresskit.litert.runtime import outputs
from compresskit.quantization.affine import SMALLEST_WIDTH
from compresskit.quantization.ranges import WeightMethod, weight_grid
from compresskit.recipe import Quantize, Recipe
from compresskit.training.augment import Augmentation
from compresskit.training.convert import refuse_non_finite, shorten_names, to_checkpoint, to_keras
from compresskit.training.fit import Epoch, Progress, Teaching, cross_entropy, fit, to_inputs
from compresskit.training.graphs import FOLDS, fold_normalization
from compresskit.zoo import Checkpoint

MOMENTUM = 0.95  # of the ranges of activations: half is forgotten in fourteen steps
CALIBRATION_DIGITS = 500  # from which the ranges of activations are taken before they follow the training
COMPARED_DIGITS = 1000
LARGEST_DIFFERENCE = 0.2  # between file and trained model; 0.02 to 0.1 is usual, as their ranges differ a little

# Layers without weights whose output LiteRT puts on a grid of its own; the others pass on the grid of their input.
REGRIDS = ("Activation", "Add", "Concatenate", "GlobalAveragePooling2D", "LeakyReLU", "Multiply", "ReLU", "Subtract")


@dataclass(frozen=True)
class TrainedQuantized:
    """What quantization-aware training came to.

    Attributes
    ----------
    checkpoint : Checkpoint
        The trained model, in float, its weights on their grids.
    compressed : Compressed
        The file made of it, by the recipe ``Recipe(step)`` with ``ranges="minmax"``: the trained weights lie on the
        grid that reaches to the largest, and another choice of ranges would move them off it.
    history : tuple of Epoch
        Losses and accuracies of the finished epochs, measured with rounding.
    cancelled : bool
        True if the run was cancelled: checkpoint and file hold what was reached by then.
    difference : float
        Root mean square of the difference between the file's outputs and the trained model's on 1,000 validation
        digits, relative to the standard deviation of the latter.
    agreement : float
        Fraction of these digits that both read as the same.
    """

    checkpoint: Checkpoint
    compressed: Compressed
    history: tuple[Epoch, ...]
    cancelled: bool
    difference: float
    agreement: float


def train_quantized(
    checkpoint: Checkpoint,
    step: Quantize,
    digits: Digits,
    *,
    epochs: int = 2,
    batch_size: int = 128,
    learning_rate: float = 0.0005,
    augment: Augmentation = "shift",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    resume: Path | None = None,
    teaching: Teaching | None = None,
) -> TrainedQuantized:
    """Train a model while its weights and activations are rounded as ``step`` says, and make the file.

    Parameters
    ----------
    checkpoint : Checkpoint
        A model that can be trained: shipped, or made from Keras.
    step : Quantize
        Weights of 2 to 8 bits (a layer each, if ``layers`` says so) and activations of 8 bits or float. Layers of 16 or
        32 bits, and those in ``skip``, are trained along without rounding. ``ranges`` decides where weights are
        clipped before training; from then on the grid reaches to the largest weight.
    digits : Digits
        Trained on ``train``; ``validation`` is measured.
    epochs, batch_size, learning_rate, augment, seed, on_progress, cancel
        As :func:`compresskit.training.fit.fit` takes them.
    resume : Path, optional
        File from which a run that was broken off goes on.
    teaching : Teaching, optional
        What to learn from besides the labels, as ``fit`` takes it (:mod:`compresskit.training.distill`).

    Returns
    -------
    TrainedQuantized

    Raises
    ------
    ValueError
        Before training, if the model cannot be trained or a layer cannot be quantized so (the message names it); after
        it, if the file does not do what the trained model does.
    """
    folded = fold_normalization(to_keras(checkpoint))
    chosen = _chosen(folded, checkpoint, step)
    # A file of the untrained model: LiteRT's and ai-edge-quantizer's own refusals come before an hour of training.
    compress(to_checkpoint(folded, checkpoint.name), Recipe(step), digits.train)
    _clip(folded, step, chosen)
    rounded = with_rounding(folded, step, chosen, digits.train)
    result = fit(
        rounded,
        digits,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augment=augment,
        seed=seed,
        on_progress=on_progress,
        cancel=cancel,
        checkpoint=resume,
        loss=cross_entropy(folded),
        teaching=teaching,
    )
    trained = to_checkpoint(_with_rounded_weights(folded, rounded), checkpoint.name)
    compressed = compress(trained, Recipe(_on_trained_grid(step)), digits.train)
    difference, agreement = _compare(rounded, compressed, digits.validation.take(COMPARED_DIGITS))
    return TrainedQuantized(trained, compressed, result.history, result.cancelled, difference, agreement)


# -- rounding with a gradient -----------------------------------------------------------------------------------------


def round_straight_through(w: tf.Tensor, bits: int, axes: tuple[int, ...] | None) -> tf.Tensor:
    """Put weights on the symmetric grid that reaches to the largest; the gradient passes as if nothing were done.

    ``S = max|w| / (2^(bits-1) - 1)``, ``w' = S round(w / S)``.

    Parameters
    ----------
    w : float32 tensor
        Weights.
    bits : int
        Width of the grid, 2 to 8.
    axes : tuple of int or None
        The axes that share a scale: all but the output channels; None for all.

    Returns
    -------
    float32 tensor of the shape of ``w``
    """
    largest = tf.reduce_max(tf.abs(w), axis=axes, keepdims=True)
    scale = tf.maximum(largest, SMALLEST_WIDTH) / (2 ** (bits - 1) - 1)
    rounded = tf.round(w / scale) * scale
    return w + tf.stop_gradient(rounded - w)


class WeightRounding(tfmot.quantization.keras.quantizers.Quantizer):  # type: ignore[misc]
    """Where TFMOT's wrapper asks for a quantizer of weights, round them straight through."""

    def __init__(self, bits: int, axes: tuple[int, ...] | None) -> None:
        self.bits = bits
        self.axes = axes

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Need no variables: the scale follows the weights."""
        return {}

    def __call__(self, inputs: tf.Tensor, training: Any, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        """Round."""
        return round_straight_through(inputs, self.bits, self.axes)

    def get_config(self) -> dict[str, Any]:
        """Give what makes an equal one."""
        return {"bits": self.bits, "axes": self.axes}


class ActivationRounding(tfmot.quantization.keras.quantizers.Quantizer):  # type: ignore[misc]
    """Round what flows to 8 bits, on a range that follows the extremes of the batches as a moving average.

    TFMOT's own forgets a thousandth a step, which is too slow here: where rounding the weights changes what flows, a
    range would still be the old one when a short training is over.
    """

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Make the two ends of the range."""
        ends = {"low": -1.0, "high": 1.0}
        return {
            end: layer.add_weight(
                f"{name}_{end}", initializer=tf_keras.initializers.Constant(value), trainable=False, dtype=tf.float32
            )
            for end, value in ends.items()
        }

    def __call__(self, inputs: tf.Tensor, training: Any, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        """Move the range while training, then round; the gradient passes inside the range and is 0 outside."""
        if training:
            extremes = {"low": tf.minimum(tf.reduce_min(inputs), 0.0), "high": tf.maximum(tf.reduce_max(inputs), 0.0)}
            for end, value in extremes.items():
                weights[end].assign(MOMENTUM * weights[end] + (1 - MOMENTUM) * value)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, weights["low"], weights["high"], num_bits=8)

    def get_config(self) -> dict[str, Any]:
        """Give what makes an equal one: nothing."""
        return {}


class Rounding(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc]
    """What TFMOT's wrapper is to round in a layer.

    Parameters
    ----------
    weights : WeightRounding or None
        For the kernel; biases are not rounded (LiteRT has 32 bits for them).
    activations : bool
        Whether the layer's output is rounded to 8 bits, on a range that is the moving average of its extremes.
    """

    def __init__(self, weights: WeightRounding | None, activations: bool) -> None:
        self.weights = weights
        self.activations = activations

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Name the kernel."""
        return [] if self.weights is None else [(getattr(layer, _kernel_of(layer)), self.weights)]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Put the rounded kernel in the layer's place for it, to compute with."""
        if quantize_weights:
            setattr(layer, _kernel_of(layer), quantize_weights[0])

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Leave the activation function alone: what is rounded is its result."""
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Have nothing to put in place."""
        del quantize_activations

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Round the output on an affine 8-bit grid, as LiteRT does."""
        if not self.activations:
            return []
        return [ActivationRounding()]

    def get_config(self) -> dict[str, Any]:
        """Give what makes an equal one."""
        return {"weights": self.weights, "activations": self.activations}


def with_rounding(model: tf_keras.Model, step: Quantize, chosen: tuple[str, ...], calibration: Split) -> tf_keras.Model:
    """Wrap the layers of a model so that it computes with rounded weights and activations.

    Parameters
    ----------
    model : tf_keras.Model
        Normalization folded. It is copied.
    step : Quantize
        Bits and granularity.
    chosen : tuple of str
        The layers whose weights are rounded.
    calibration : Split
        The first 500 images give the ranges of activations to start from.

    Returns
    -------
    tf_keras.Model
        Layers keep their names.
    """

    def wrapped(layer: Any) -> Any:
        copy = type(layer).from_config(layer.get_config())
        own = step.for_layer(layer.name) if layer.name in chosen else None
        regrids = own.activations == 8 if own else type(layer).__name__ in REGRIDS and step.activations == 8
        if own is None and not regrids:
            return copy
        weights = None if own is None else WeightRounding(own.weights, _shared_axes(layer, own.granularity))
        return QuantizeWrapperV2(copy, Rounding(weights, regrids), name=layer.name)

    rounded = tf_keras.models.clone_model(model, clone_function=wrapped)
    for layer in model.layers:
        for variable, value in zip(_variables(rounded.get_layer(layer.name)), layer.get_weights(), strict=True):
            variable.assign(value)
    plain = tf_keras.models.clone_model(model)
    _start_ranges(rounded, _with_rounded_weights(plain, rounded), calibration)
    return rounded


def _variables(layer: Any) -> list[Any]:
    """List a layer's own weights, wrapped or not, in the order of the layer's ``get_weights``."""
    if not isinstance(layer, QuantizeWrapperV2):
        return list(layer.weights)
    inner = layer.layer
    if type(inner).__name__ not in FOLDS:
        return list(inner.weights)
    kernel = [variable for variable, _, _ in layer._weight_vars]
    return [*kernel, *([inner.bias] if inner.use_bias else [])]


def _start_ranges(rounded: tf_keras.Model, model: tf_keras.Model, calibration: Split) -> None:
    """Set the ranges of activations to what flows in the plain model."""
    names = [layer.name for layer in rounded.layers if getattr(layer, "_output_quantizers", None)]
    if not names:
        return
    look = tf_keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    flowing = look(to_inputs(tf.constant(calibration.take(CALIBRATION_DIGITS).images), model), training=False)
    for name, values in zip(names, flowing if len(names) > 1 else [flowing], strict=True):
        variables = rounded.get_layer(name)._output_quantizer_vars
        variables["low"].assign(min(float(tf.reduce_min(values)), 0.0))
        variables["high"].assign(max(float(tf.reduce_max(values)), 0.0))


def _kernel_of(layer: Any) -> str:
    """Name the attribute that holds a layer's kernel."""
    return FOLDS[type(layer).__name__][0]


def _shared_axes(layer: Any, granularity: str) -> tuple[int, ...] | None:
    """List the axes of a layer's kernel along which weights share a scale."""
    if granularity == "tensor":
        return None
    kernel = getattr(layer, _kernel_of(layer))
    channels = {axis % len(kernel.shape) for axis in FOLDS[type(layer).__name__][1]}
    return tuple(axis for axis in range(len(kernel.shape)) if axis not in channels)


# -- before training ----------------------------------------------------------------------------------------------


def _chosen(model: tf_keras.Model, checkpoint: Checkpoint, step: Quantize) -> tuple[str, ...]:
    """Find the layers to round, and refuse what cannot be trained so."""
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    known = [layer.name for layer in checkpoint.layers]
    for name in step.exceptions:
        if name not in known:
            raise ValueError(f"step: layer {name!r} is not in {checkpoint.name!r}; its layers are {', '.join(known)}")
    chosen = tuple(name for name in known if step.for_layer(name).weights <= 8)
    if not chosen:
        raise ValueError(
            "step: no layer has weights of 8 bits or fewer; there is nothing to round: give weights=8 or less"
        )
    for name in chosen:
        own = step.for_layer(name)
        if kinds.get(name) not in FOLDS:
            kind = kinds.get(name, "operator that is no Keras layer of that name")
            raise ValueError(
                f"layer {name!r} is a {kind}: quantization-aware training covers {', '.join(FOLDS)}. Leave it float, "
                f"with Quantize(skip=({name!r},)), or quantize after training."
            )
        if own.granularity.startswith("block"):
            raise ValueError(
                f"layer {name!r}: granularity is {own.granularity!r}; training rounds per channel or per tensor: "
                "choose granularity='channel'"
            )
        if own.activations == 16:
            raise ValueError(
                f"layer {name!r}: activations of 16 bits lose nothing that training could mend: choose "
                "activations=8, or quantize after training"
            )
    return chosen


def _clip(model: tf_keras.Model, step: Quantize, chosen: tuple[str, ...]) -> None:
    """Clip the weights to where the chosen ranges end, so that the grid, which reaches to the largest, starts there."""
    for name in chosen:
        own, layer = step.for_layer(name), model.get_layer(name)
        if own.ranges == "minmax":
            continue
        weights = layer.get_weights()
        rows = _rows(weights[0], layer)
        axis = 0 if own.granularity == "channel" else None
        bound = weight_grid(rows, own.weights, axis=axis, method=cast(WeightMethod, own.ranges)).high
        limit = _unrows(np.broadcast_to(bound.reshape(-1, 1), rows.shape), weights[0].shape, layer)
        layer.set_weights([np.clip(weights[0], -limit, limit), *weights[1:]])


def _rows(kernel: NDArray[np.float32], layer: Any) -> NDArray[np.float32]:
    """Arrange a kernel as (channels, weights of a channel)."""
    channels = int(np.prod([kernel.shape[axis] for axis in FOLDS[type(layer).__name__][1]]))
    return np.ascontiguousarray(kernel.reshape(-1, channels).T)


def _unrows(rows: NDArray[np.float32], shape: tuple[int, ...], layer: Any) -> NDArray[np.float32]:
    """Undo :func:`_rows`; the channels are the last axes of every kernel here."""
    return np.ascontiguousarray(rows.T).reshape(shape)


def _on_trained_grid(step: Quantize) -> Quantize:
    """Give the step that stores weights as they were trained: on grids that reach to the largest."""
    layers = {name: {**settings, "ranges": "minmax"} for name, settings in step.layers.items()}
    return replace(step, ranges="minmax", layers=layers)


# -- after training -----------------------------------------------------------------------------------------------


def _with_rounded_weights(plain: tf_keras.Model, rounded: tf_keras.Model) -> tf_keras.Model:
    """Copy the trained weights, put on their grids, into the plain model."""
    for layer in plain.layers:
        wrapper = rounded.get_layer(layer.name)
        weights = [variable.numpy() for variable in _variables(wrapper)]
        config = getattr(wrapper, "quantize_config", None)
        if config is not None and config.weights is not None:
            weights[0] = round_straight_through(
                tf.constant(weights[0]), config.weights.bits, config.weights.axes
            ).numpy()
        layer.set_weights(weights)
    return plain


def _compare(rounded: tf_keras.Model, compressed: Compressed, split: Split) -> tuple[float, float]:
    """Measure how far the file's outputs are from the trained model's, and how often both read the same digit.

    Raises ValueError if they are too far apart.
    """
    batches = [split.images[start : start + 250] for start in range(0, len(split), 250)]
    trained = np.concatenate(
        [rounded(to_inputs(tf.constant(batch), rounded), training=False).numpy() for batch in batches]
    )
    found = outputs(compressed.tflite, split.images).reshape(trained.shape)
    difference = float(np.sqrt(np.mean(np.square(found - trained)) / trained.var()))
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"the file's outputs are off by {difference:.0%} of what the trained model puts out (at most "
            f"{LARGEST_DIFFERENCE:.0%} is expected): it computes something else than was trained. Try "
            "activation_ranges='percentile', or more calibration_digits."
        )
    return difference, float(np.mean(found.argmax(axis=1) == trained.argmax(axis=1)))


def convert_quantized(model: tf_keras.Model) -> bytes:
    """Convert a model that TFMOT's ``quantize_model`` made, with TFLiteConverter, to an int8 ``.tflite``.

    The other way to a file, for comparison: ranges come from training, and no digits are needed.

    Parameters
    ----------
    model : tf_keras.Model
        From ``tensorflow_model_optimization.quantization.keras.quantize_model``, trained. 8 bits only.

    Returns
    -------
    bytes
        Float input and output, int8 inside.

    Raises
    ------
    ValueError
        If a weight is not finite, or the converter gives up.
    """
    refuse_non_finite(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Statistics for quantized inputs")  # input is float here
            converted = converter.convert()
    except Exception as error:
        raise ValueError(f"model {model.name!r} cannot be converted: {type(error).__name__}: {error}") from error
    return shorten_names(converted, model.name, [layer.name for layer in model.layers])
