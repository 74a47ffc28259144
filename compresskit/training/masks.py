"""Masks on the weights of a Keras model: which weights are held at zero, and which would go next.

A mask is kept as a boolean weight of the layer it belongs to, so that it is saved and loaded with the model's own
weights: a training that is broken off goes on with the masks that it had. Scores and masks are computed in LiteRT's
shapes, on the weights that the file will hold (batch normalization folded in), by the functions of
:mod:`compresskit.pruning`: a mask made here is the one that a slider would make of the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.pruning import importance
from compresskit.pruning.patterns import global_masks, parse_pattern, pattern_mask
from compresskit.recipe import Prune
from compresskit.training.fit import cross_entropy, to_inputs
from compresskit.training.graphs import FOLDS, normalizations

Array = NDArray[Any]


@dataclass(frozen=True)
class MaskedWeight:
    """A weight of a layer, and the mask that it is held under.

    Attributes
    ----------
    layer : tf_keras layer
        Whose weight it is.
    values : tf.Variable
        The weight, float32.
    mask : tf.Variable
        Boolean, of its shape; ``True`` where a weight is kept.
    """

    layer: Any
    values: Any
    mask: Any

    @property
    def name(self) -> str:
        """Name of the layer."""
        return str(self.layer.name)


class Masks:
    """The masks of a model.

    Parameters
    ----------
    model : tf_keras.Model
        Built. Every trained weight with two axes or more gets a mask, which its layer holds as a weight that is not
        trained.
    """

    def __init__(self, model: tf_keras.Model) -> None:
        self.model = model
        self._plain = tf_keras.models.clone_model(model)
        self.weights = [_masked(layer, kernel) for layer in model.layers for kernel in _kernels(layer)]
        self._normalizations = normalizations(model)
        self._apply = tf.function(self._zero)

    def take_zeros(self) -> None:
        """Make the masks of the weights that are not exactly zero."""
        for each in self.weights:
            each.mask.assign(each.values != 0)

    def set(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Put masks, given by layer in LiteRT's shapes, in place, and set what they remove to zero."""
        for each in self.weights:
            if each.name in masks:
                each.mask.assign(from_litert(masks[each.name], each.layer, each.values.shape))
        self.apply()

    def get(self) -> dict[str, NDArray[np.bool_]]:
        """Give the masks by layer, in LiteRT's shapes."""
        return {each.name: to_litert(each.mask.numpy(), each.layer) for each in self.weights}

    def apply(self) -> None:
        """Set the weights that masks remove to +0.0, whatever an optimizer's momentum has made of them."""
        self._apply()

    def _zero(self) -> None:
        for each in self.weights:
            each.values.assign(tf.where(each.mask, each.values, tf.zeros_like(each.values)))

    def sparsity(self, layers: Iterable[str] = ()) -> float:
        """Give the fraction of the weights under masks that are removed, of some layers or of all."""
        chosen = set(layers) or {each.name for each in self.weights}
        masks = [each.mask.numpy() for each in self.weights if each.name in chosen]
        total = sum(mask.size for mask in masks)
        return sum(int(np.count_nonzero(~mask)) for mask in masks) / total if total else 0.0

    def plain(self) -> tf_keras.Model:
        """Copy the weights into a model without masks, to be archived and converted."""
        for layer in self.model.layers:
            held = [id(each.mask) for each in self.weights if each.layer is layer]
            self._plain.get_layer(layer.name).set_weights(
                [variable.numpy() for variable in layer.weights if id(variable) not in held]
            )
        return self._plain

    def folded(self, name: str) -> Array:
        """Give a layer's kernel as the file holds it: normalization folded in, in LiteRT's shape."""
        each = next(each for each in self.weights if each.name == name)
        kernel = to_litert(each.values.numpy(), each.layer)
        behind = self._normalizations.get(name)
        if behind is None:
            return kernel
        gamma = behind.gamma.numpy() if behind.scale else 1.0
        factor = gamma / np.sqrt(behind.moving_variance.numpy() + behind.epsilon)
        along = (1, 1, 1, -1) if type(each.layer).__name__ == "DepthwiseConv2D" else (-1, *[1] * (kernel.ndim - 1))
        return np.asarray(kernel * np.reshape(factor, along), np.float32)

    def chosen(self, step: Prune, sparsity: float, sample: Split | None) -> dict[str, NDArray[np.bool_]]:
        """Make the masks that a step asks for, of the weights as they are now.

        Parameters
        ----------
        step : Prune
            Which layers, which pattern, which importance.
        sparsity : float
            In the place of the step's own, which is where a schedule ends. N:M has its own at any time.
        sample : Split
            Digits on which activations or gradients are measured, if the importance needs them.

        Returns
        -------
        dict of str to ndarray of bool
            In LiteRT's shapes.
        """
        scores = self._scores(step, list(step.layers or dict.fromkeys(each.name for each in self.weights)), sample)
        if step.scope == "global":
            return global_masks(scores, sparsity)
        pattern = parse_pattern(step.pattern)
        wanted = sparsity if pattern.sparsity is None else None
        return {name: pattern_mask(array, pattern, wanted, name=name) for name, array in scores.items()}

    def _scores(self, step: Prune, names: list[str], sample: Split | None) -> dict[str, Array]:
        if step.importance == "random":
            return {
                name: importance.chance(self.folded(name), seed=step.seed + index) for index, name in enumerate(names)
            }
        if step.importance == "magnitude":
            return {name: importance.magnitude(self.folded(name)) for name in names}
        if sample is None:
            raise ValueError(f"sample: importance={step.importance!r} looks at digits, and there are none; give some")
        if step.importance == "activation":
            scales = mean_inputs(self.model, names, sample)
            return {name: importance.activation(self.folded(name), scales[name], name=name) for name in names}
        slopes = gradients(self.model, names, sample)
        kernels = {each.name: to_litert(each.values.numpy(), each.layer) for each in self.weights}
        return {name: importance.taylor(kernels[name], slopes[name], name=name) for name in names}


def to_litert(values: Array, layer: Any) -> Array:
    """Turn an array in the shape of a Keras kernel into LiteRT's.

    Dense (in, out) to (out, in); convolution (height, width, in, out) to (out, height, width, in); depthwise (height,
    width, in, multiplier) to (1, height, width, in * multiplier).
    """
    if type(layer).__name__ == "DepthwiseConv2D":
        return np.ascontiguousarray(values.reshape(1, *values.shape[:2], -1))
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def from_litert(values: Array, layer: Any, shape: tuple[int, ...]) -> Array:
    """Undo :func:`to_litert`; ``shape`` is that of the kernel."""
    if type(layer).__name__ == "DepthwiseConv2D":
        return np.ascontiguousarray(values.reshape(tuple(shape)))
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))


def mean_inputs(model: tf_keras.Model, names: Iterable[str], sample: Split) -> dict[str, NDArray[np.float64]]:
    """Average the absolute input of each layer over digits, for each input channel."""
    wanted = list(names)
    look = tf_keras.Model(model.inputs, [model.get_layer(name).input for name in wanted])
    flowing = look(to_inputs(tf.constant(sample.images), model), training=False)
    return {
        name: importance.mean_absolute_input(values.numpy(), name=name)
        for name, values in zip(wanted, flowing if len(wanted) > 1 else [flowing], strict=True)
    }


def gradients(model: tf_keras.Model, names: Iterable[str], sample: Split) -> dict[str, Array]:
    """Compute the gradient of the mean cross-entropy over digits with respect to the kernel of each layer.

    Returns
    -------
    dict of str to ndarray of float32
        In LiteRT's shapes. Normalization counts as it does in inference; the gradient is with respect to the kernel as
        Keras has it, so that ``w * gradient`` is that of the file's weights, the scale cancelling out.
    """
    wanted = {name: model.get_layer(name) for name in names}
    kernels = {name: _kernels(layer)[0] for name, layer in wanted.items()}
    inputs, labels = to_inputs(tf.constant(sample.images), model), tf.constant(sample.labels.astype(np.int64))
    with tf.GradientTape() as tape:
        mean = cross_entropy(model)(inputs, labels, model(inputs, training=False))
    found = tape.gradient(mean, list(kernels.values()))
    return {name: to_litert(each.numpy(), wanted[name]) for name, each in zip(kernels, found, strict=True)}


def _kernels(layer: Any) -> list[Any]:
    """List the trained weights of a layer that a mask can lie on: its kernel, or all with two axes or more."""
    kind = type(layer).__name__
    if kind in FOLDS:
        return [getattr(layer, FOLDS[kind][0])]
    return [variable for variable in layer.trainable_weights if len(variable.shape) >= 2]


def _masked(layer: Any, values: Any) -> MaskedWeight:
    place = values.name.rsplit("/", 1)[-1].split(":")[0]
    mask = layer.add_weight(
        f"mask_of_{place}", shape=values.shape, dtype=tf.bool, initializer=tf_keras.initializers.Ones(), trainable=False
    )
    return MaskedWeight(layer, values, mask)
