"""Train networks of which layers were factorized: thin layers are layers like any others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from compresskit.data import Digits
from compresskit.factorized import Pieces, factorize
from compresskit.lowrank import Factors, SpatialSVD
from compresskit.recipe import Factorize
from compresskit.training.augment import Augmentation
from compresskit.training.convert import to_checkpoint, to_keras
from compresskit.training.fit import Epoch, Progress, cross_entropy, fit
from compresskit.training.graphs import fold_normalization, rebuild
from compresskit.zoo import Checkpoint


@dataclass(frozen=True)
class TrainedFactorized:
    """What training a factorized network came to.

    Attributes
    ----------
    checkpoint : Checkpoint
        The trained network with its thinner layers.
    history : tuple of Epoch
        Losses and accuracies of the finished epochs.
    cancelled : bool
        True if the run was cancelled: the checkpoint holds what was reached by then.
    """

    checkpoint: Checkpoint
    history: tuple[Epoch, ...]
    cancelled: bool


def train_factorized(
    checkpoint: Checkpoint,
    step: Factorize,
    digits: Digits,
    *,
    epochs: int = 1,
    batch_size: int = 128,
    learning_rate: float = 0.0005,
    augment: Augmentation = "shift",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    resume: Path | None = None,
) -> TrainedFactorized:
    """Factorize a network, and train its thinner layers.

    Parameters
    ----------
    checkpoint : Checkpoint
        A model that can be trained: shipped, or made from Keras.
    step : Factorize
        Which layers, and how far.
    digits : Digits
        Trained on ``train``; ``validation`` is measured.
    epochs, batch_size, learning_rate, augment, seed, on_progress, cancel
        As :func:`compresskit.training.fit.fit` takes them.
    resume : Path, optional
        File from which a run that was broken off goes on.

    Returns
    -------
    TrainedFactorized

    Raises
    ------
    ValueError
        If the model cannot be trained, or a layer cannot be cut; the message names it.
    """
    model = with_factors(fold_normalization(to_keras(checkpoint)), factorize(checkpoint.tflite, (step,)).pieces)
    result = fit(
        model, digits, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, augment=augment, seed=seed,
        on_progress=on_progress, cancel=cancel, checkpoint=resume, loss=cross_entropy(model),
        about={"factorized": repr(step)},
    )  # fmt: skip
    return TrainedFactorized(to_checkpoint(model, checkpoint.name), result.history, result.cancelled)


def with_factors(model: tf_keras.Model, pieces: Mapping[str, Pieces]) -> tf_keras.Model:
    """Put the thinner layers in the place of those that were cut; they are called as in the file."""

    def twin(layer: Any, inputs: list[Any]) -> Any:
        if layer.name not in pieces:
            made = type(layer).from_config(layer.get_config())
            output = made(inputs[0] if len(inputs) == 1 else inputs)
            made.set_weights(layer.get_weights())
            return output
        flowing = inputs[0]
        row = _layers(layer, pieces[layer.name])
        for made, kernel in row:
            flowing = made(flowing)
            bias = [layer.get_weights()[1]] if made is row[-1][0] and layer.use_bias else []
            made.set_weights([np.moveaxis(kernel, 0, -1), *bias])
        return flowing

    return rebuild(model, twin)


def _layers(layer: Any, pieces: Pieces) -> list[tuple[Any, Any]]:
    """Make the layers that a layer becomes, each with its kernel in LiteRT's shape."""
    last = {"activation": layer.activation, "use_bias": layer.use_bias}
    bare: dict[str, Any] = {"use_bias": False}
    name = layer.name
    if isinstance(pieces, Factors):
        dense = tf_keras.layers.Dense
        return [
            (dense(pieces.rank, name=f"{name}_in", **bare), pieces.first),
            (dense(layer.units, name=f"{name}_out", **last), pieces.second),
        ]
    conv, (down, across) = tf_keras.layers.Conv2D, layer.strides
    height, width = layer.kernel_size
    if isinstance(pieces, SpatialSVD):
        column = conv(pieces.rank, (height, 1), strides=(down, 1), padding=layer.padding, name=f"{name}_down", **bare)
        row = conv(layer.filters, (1, width), strides=(1, across), padding=layer.padding, name=f"{name}_across", **last)
        return [(column, pieces.vertical), (row, pieces.horizontal)]
    core = conv(
        len(pieces.core), (height, width), strides=(down, across), padding=layer.padding, name=f"{name}_core", **bare
    )
    return [
        (conv(len(pieces.first), 1, name=f"{name}_in", **bare), pieces.first),
        (core, pieces.core),
        (conv(layer.filters, 1, name=f"{name}_out", **last), pieces.last),
    ]
