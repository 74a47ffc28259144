"""Cut channels out of a model that can be trained: the Keras model is rebuilt smaller, and its file made anew.

Which channels hang together, and which cannot be cut, is found on the float file (:mod:`compresskit.litert.surgery`);
here the same channels go from the Keras model, layer by layer in the order of computation, so that the network can be
fine-tuned and is a checkpoint like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.litert.runtime import outputs
from compresskit.litert.surgery import groups, remove_channels
from compresskit.pruned import kept_channels
from compresskit.recipe import Prune
from compresskit.training.convert import to_checkpoint, to_keras
from compresskit.training.graphs import rebuild
from compresskit.zoo import Checkpoint

LARGEST_DIFFERENCE = 1e-4  # between the rebuilt model's file and the cut file, of the largest output
COMPARED = 16

Kept = NDArray[np.bool_]

# Layers that work on each channel by itself and have no weights.
PASS_ON = (
    "Activation", "Add", "Average", "AveragePooling2D", "Cropping2D", "Dropout", "GlobalAveragePooling2D",
    "GlobalMaxPooling2D", "LeakyReLU", "MaxPooling2D", "Maximum", "Minimum", "Multiply", "ReLU", "SpatialDropout2D",
    "Subtract", "UpSampling2D", "ZeroPadding2D",
)  # fmt: skip


def cut(checkpoint: Checkpoint, steps: Sequence[Prune], sample: Split | None = None) -> Checkpoint:
    """Cut channels out of a checkpoint, its Keras model included.

    Parameters
    ----------
    checkpoint : Checkpoint
        A model that can be trained.
    steps : sequence of Prune
        With ``pattern="channel"``, one after the other; none gives the checkpoint back.
    sample : Split, optional
        Digits, for importances that look at them (`compresskit.pruned.sample_of`).

    Returns
    -------
    Checkpoint
        Smaller, and trainable; its file was seen to compute what the cut file computes.

    Raises
    ------
    ValueError
        If the model cannot be trained, or the channels cannot be cut; the message names the layer.
    """
    for step in steps:
        kept = kept_channels(checkpoint.tflite, step, sample)
        by_layer = {
            name: kept[group.name] for group in groups(checkpoint.tflite) if group.name in kept for name in group.layers
        }
        smaller = to_checkpoint(without_channels(to_keras(checkpoint), by_layer), checkpoint.name)
        _compare(remove_channels(checkpoint.tflite, kept), smaller)
        checkpoint = smaller
    return checkpoint


def without_channels(model: tf_keras.Model, kept: Mapping[str, Kept]) -> tf_keras.Model:
    """Rebuild a model without some of its channels.

    Parameters
    ----------
    model : tf_keras.Model
        Sequential or functional, each layer used once.
    kept : mapping of str to ndarray of bool
        Name of a convolution or dense layer to a mask over what it puts out; True stays. Layers that share their
        channels, by an addition, need equal masks.

    Returns
    -------
    tf_keras.Model
        Smaller. With zero in all that made or shifted the channels, the original computes the same.

    Raises
    ------
    ValueError
        If channels flow into a layer that cannot go without them; the message names it.
    """
    flowing: dict[int, tuple[Any, Kept]] = {}  # the tensor is kept so that its identity stays its own

    def twin(layer: Any, inputs: list[Any]) -> Any:
        arriving = [flowing[id(each)][1] if id(each) in flowing else None for each in inputs]
        made, weights, leaving = _cut_layer(layer, arriving, kept.get(layer.name))
        output = made(inputs[0] if len(inputs) == 1 else inputs)
        made.set_weights(weights)
        if leaving is not None:
            flowing[id(output)] = (output, leaving)
        return output

    return rebuild(model, twin)


def _cut_layer(layer: Any, arriving: list[Kept | None], kept: Kept | None) -> tuple[Any, list[Any], Kept | None]:
    """Make the smaller twin of a layer, its weights, and the mask of what it puts out."""
    kind, config, weights = type(layer).__name__, layer.get_config(), layer.get_weights()
    before = next((each for each in arriving if each is not None), None)
    rule = _RULES.get(kind)
    if rule is not None:
        weights, after = rule(layer, config, weights, before, kept)
        return type(layer).from_config(config), weights, after
    if before is None:
        return type(layer).from_config(config), weights, None
    if kind not in PASS_ON or any(each is None or not np.array_equal(each, before) for each in arriving):
        raise ValueError(f"layer {layer.name!r} is a {kind}: channels that flow into it cannot be cut here.")
    return type(layer).from_config(config), weights, before


_Rule = Callable[[Any, dict[str, Any], list[Any], "Kept | None", "Kept | None"], tuple[list[Any], "Kept | None"]]


def _with_outputs(units: str) -> _Rule:
    """Give the rule of a layer whose kernel ends in (in, out); ``units`` is the setting that counts the outputs."""

    def rule(
        layer: Any, config: dict[str, Any], weights: list[Any], before: Kept | None, kept: Kept | None
    ) -> tuple[list[Any], Kept | None]:
        kernel, *bias = weights
        if before is not None:
            if kernel.shape[-2] != before.size:
                raise ValueError(f"layer {layer.name!r} reads its channels in groups: they cannot be cut here.")
            kernel = kernel[..., before, :]
        if kept is not None:
            kernel, bias = kernel[..., kept], [each[kept] for each in bias]
            config[units] = int(kept.sum())
        return [kernel, *bias], kept

    return rule


def _depthwise(
    layer: Any, config: dict[str, Any], weights: list[Any], before: Kept | None, kept: Kept | None
) -> tuple[list[Any], Kept | None]:
    """Filter each channel by itself: what arrives decides."""
    if before is None:
        return weights, None
    kernel, *bias = weights
    if kernel.shape[3] != 1:
        raise ValueError(f"layer {layer.name!r} makes several channels of each: they cannot be cut here.")
    return [kernel[:, :, before], *(each[before] for each in bias)], before


def _normalization(
    layer: Any, config: dict[str, Any], weights: list[Any], before: Kept | None, kept: Kept | None
) -> tuple[list[Any], Kept | None]:
    """Scale and shift each channel by itself."""
    return (weights if before is None else [each[before] for each in weights]), before


def _flatten(
    layer: Any, config: dict[str, Any], weights: list[Any], before: Kept | None, kept: Kept | None
) -> tuple[list[Any], Kept | None]:
    """Put places outside and channels inside: the mask repeats for every place."""
    return weights, None if before is None else np.tile(before, int(np.prod(layer.input_shape[1:-1])))


_RULES: dict[str, _Rule] = {
    "BatchNormalization": _normalization,
    "Conv2D": _with_outputs("filters"),
    "Dense": _with_outputs("units"),
    "DepthwiseConv2D": _depthwise,
    "Flatten": _flatten,
}


def _compare(cut_file: bytes, smaller: Checkpoint) -> None:
    """Raise ValueError if the rebuilt model's file computes something else than the cut file."""
    images = np.random.default_rng(0).random((COMPARED, *smaller.input_shape), np.float32)
    expected, got = outputs(cut_file, images), outputs(smaller.tflite, images)
    difference = float(np.abs(expected - got).max())
    if not difference <= LARGEST_DIFFERENCE * max(float(np.abs(expected).max()), 1e-6):
        raise ValueError(
            f"model {smaller.name!r} cannot be rebuilt without these channels: its outputs differ by {difference:.2g}."
        )
