"""Rebuild a Keras model layer by layer: fold its batch normalization, or bring it over from Keras 3.

Both walk through the model's layers in the order of computation and make a twin of each, on the twins of its inputs.
What comes out is compared with the original on random inputs before it is given back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

LARGEST_DIFFERENCE = 1e-4  # of the largest output: float32 sums in another order

# What a normalization can be folded into, and the axes of the kernel that its channels lie on.
FOLDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "Conv2D": ("kernel", (-1,)),
    "DepthwiseConv2D": ("depthwise_kernel", (-2, -1)),
    "Dense": ("kernel", (-1,)),
}

# The layers whose Keras 2 and Keras 3 forms compute the same from the same settings and weights.
SAME_IN_BOTH = (
    "Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Cropping2D",
    "Dense", "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer",
    "LeakyReLU", "MaxPooling2D", "Maximum", "Multiply", "Permute", "ReLU", "Reshape", "SeparableConv2D", "Softmax",
    "Subtract", "UpSampling2D", "ZeroPadding2D",
)  # fmt: skip


def fold_normalization(model: tf_keras.Model) -> tf_keras.Model:
    """Rebuild a model with each batch normalization folded into the layer before it, and rectifiers with it.

    ``gamma (W x - mean) / sqrt(variance + epsilon) + beta`` is a layer with weights
    ``W gamma / sqrt(variance + epsilon)`` (Jacob et al. 2018, section 3.2). A normalization that follows something
    else stays as it is.

    Parameters
    ----------
    model : tf_keras.Model
        Sequential or functional, each layer used once.

    Returns
    -------
    tf_keras.Model
        A new model of the same name that computes the same in inference; layers keep their names.

    Raises
    ------
    ValueError
        If the model is subclassed, nested, or uses a layer twice.
    """
    followers = _followers(model)
    absorbed: set[str] = set()

    def twin(layer: Any, inputs: list[Any]) -> Any:
        if layer.name in absorbed:
            return inputs[0]
        chain = _foldable(layer, followers)
        absorbed.update(each.name for each in chain)
        return _folded(layer, chain)(_one_or_all(inputs))

    rebuilt = rebuild(model, twin)
    _compare(model, rebuilt)
    return rebuilt


def from_keras3(model: Any) -> tf_keras.Model:
    """Make the Keras 2 twin of a Keras 3 model, so that it can be trained here.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional, made of the layers in ``SAME_IN_BOTH``, each used once.

    Returns
    -------
    tf_keras.Model
        With the same names and weights; it was seen to compute the same on random inputs.

    Raises
    ------
    ValueError
        If a layer has no exact twin; the message names it.
    """
    foreign = [layer for layer in model.layers if type(layer).__name__ not in SAME_IN_BOTH]
    if foreign:
        names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in foreign)
        raise ValueError(
            f"model {model.name!r} is a Keras 3 model with layers that have no exact twin in Keras 2: {names}. Replace "
            "them, or build the model with tf_keras."
        )

    def twin(layer: Any, inputs: list[Any]) -> Any:
        made = _keras2_layer(layer)
        output = made(_one_or_all(inputs))
        made.set_weights([np.asarray(weight) for weight in layer.weights if "seed_generator" not in weight.path])
        return output

    rebuilt = rebuild(model, twin)
    _compare(model, rebuilt)
    return rebuilt


def rebuild(model: Any, twin: Callable[[Any, list[Any]], Any]) -> tf_keras.Model:
    """Make a model of the twins of a model's layers; ``twin`` is given a layer and the tensors that it takes."""
    if not getattr(model, "inputs", None) or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"model {model.name!r} is not a Sequential or functional model with one input and one output: build it so."
        )
    start = tf_keras.Input(tuple(model.inputs[0].shape[1:]), name=model.inputs[0].name.split(":")[0].split("/")[0])
    tensors = {id(model.inputs[0]): start}
    nodes = _nodes(model)
    for layer in model.layers:
        if layer.name in nodes:
            arriving, leaving = nodes[layer.name]
            tensors[leaving] = twin(layer, [tensors[each] for each in arriving])
    return tf_keras.Model(start, tensors[id(model.outputs[0])], name=model.name)


def _nodes(model: Any) -> dict[str, tuple[list[int], int]]:
    """Find where each layer stands in the model, going back from its output.

    Returns
    -------
    dict
        Layer name to the identities of the tensors that it takes, and of the one that it gives. A layer may stand in
        other models too; those places are not listed.
    """
    found: dict[str, tuple[list[int], int]] = {}
    waiting = [model.outputs[0]]
    while waiting:
        tensor = waiting.pop()
        if tensor is model.inputs[0]:
            continue
        layer, place, _ = tensor._keras_history
        arriving = _arriving(layer._inbound_nodes[place])
        here = ([id(each) for each in arriving], id(tensor))
        if layer.name not in found:
            found[layer.name] = here
            waiting.extend(arriving)
        elif found[layer.name] != here:
            raise ValueError(
                f"layer {layer.name!r} is used more than once in model {model.name!r}: only models in which each layer "
                "is used once can be rebuilt."
            )
    return found


def _arriving(node: Any) -> list[Any]:
    return list(node.keras_inputs) if hasattr(node, "keras_inputs") else list(node.input_tensors)


def _one_or_all(inputs: list[Any]) -> Any:
    return inputs[0] if len(inputs) == 1 else inputs


def _followers(model: tf_keras.Model) -> dict[str, list[Any]]:
    """List, for each layer, the layers that take its output."""
    nodes = _nodes(model)
    givers = {leaving: name for name, (_, leaving) in nodes.items()}
    found: dict[str, list[Any]] = {name: [] for name in nodes}
    for layer in model.layers:
        for each in nodes.get(layer.name, ([], 0))[0]:
            if each in givers:
                found[givers[each]].append(layer)
    return found


def normalizations(model: tf_keras.Model) -> dict[str, Any]:
    """Find, for each layer that one can be folded into, the batch normalization behind it."""
    followers = _followers(model)
    chains = {layer.name: _foldable(layer, followers) for layer in model.layers if layer.name in followers}
    return {name: chain[0] for name, chain in chains.items() if chain and _is_normalization(chain[0])}


def _foldable(layer: Any, followers: dict[str, list[Any]]) -> list[Any]:
    """List the layers behind ``layer`` that can be drawn into it: a normalization, a rectifier, or both."""
    chain: list[Any] = []
    if type(layer).__name__ not in FOLDS or not _is_linear(layer):
        return chain
    last = layer
    for accepts in (_is_normalization, _is_rectifier):
        behind = followers[last.name]
        if len(behind) == 1 and accepts(behind[0]):
            last = behind[0]
            chain.append(last)
    return chain


def _is_linear(layer: Any) -> bool:
    return getattr(layer.activation, "__name__", "") == "linear"


def _is_normalization(layer: Any) -> bool:
    return type(layer).__name__ == "BatchNormalization" and list(layer.axis) == [len(layer.input_shape) - 1]


def _is_rectifier(layer: Any) -> bool:
    if type(layer).__name__ == "Activation":
        return getattr(layer.activation, "__name__", "") == "relu"
    config = layer.get_config() if type(layer).__name__ == "ReLU" else {"max_value": 1}
    return config["max_value"] is None and not config["negative_slope"] and not config["threshold"]


def _folded(layer: Any, chain: list[Any]) -> Callable[[Any], Any]:
    """Make the twin of a layer that computes what it and the chain behind it compute."""
    config = layer.get_config()
    weights = layer.get_weights()
    for behind in chain:
        if _is_normalization(behind):
            weights = _fold(layer, behind)
            config["use_bias"] = True
        else:
            config["activation"] = "relu"
    made = type(layer).from_config(config)

    def call(inputs: Any) -> Any:
        output = made(inputs)
        made.set_weights(weights)
        return output

    return call


def _fold(layer: Any, normalization: Any) -> list[NDArray[np.float32]]:
    """Compute kernel and bias of a layer with the normalization behind it folded in."""
    attribute, axes = FOLDS[type(layer).__name__]
    kernel = getattr(layer, attribute).numpy().astype(np.float64)
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else 0.0
    mean, variance = normalization.moving_mean.numpy(), normalization.moving_variance.numpy().astype(np.float64)
    gamma = normalization.gamma.numpy() if normalization.scale else np.ones_like(mean)
    beta = normalization.beta.numpy() if normalization.center else np.zeros_like(mean)
    factor = gamma / np.sqrt(variance + normalization.epsilon)
    scaled = kernel * factor.reshape([kernel.shape[axis] for axis in axes])
    return [scaled.astype(np.float32), ((bias - mean) * factor + beta).astype(np.float32)]


def _keras2_layer(layer: Any) -> Any:
    """Make the Keras 2 layer with the settings of a Keras 3 layer."""
    twin = getattr(tf_keras.layers, type(layer).__name__)
    known = {name for ancestor in twin.__mro__ for name in inspect.signature(ancestor.__init__).parameters}
    settings = {}
    for name, value in layer.get_config().items():
        if name in {"dtype", "seed", "trainable"} or name.endswith(("_initializer", "_regularizer", "_constraint")):
            continue  # how it was made and is trained, not what it computes
        renamed = "alpha" if twin is tf_keras.layers.LeakyReLU and name == "negative_slope" else name
        if renamed in known:
            settings[renamed] = value
    return twin(**settings)


def _compare(original: Any, rebuilt: tf_keras.Model) -> None:
    """Raise ValueError if the twin computes something else than the original."""
    shape = tuple(size or 8 for size in rebuilt.input_shape[1:])
    inputs = np.random.default_rng(0).random((4, *shape), np.float32)
    expected = np.asarray(original(inputs, training=False))
    got = np.asarray(rebuilt(inputs, training=False))
    difference = float(np.abs(expected - got).max())
    if not difference <= LARGEST_DIFFERENCE * max(float(np.abs(expected).max()), 1e-6):
        raise ValueError(f"model {original.name!r} cannot be rebuilt exactly: its twin differs by {difference:.2g}.")
