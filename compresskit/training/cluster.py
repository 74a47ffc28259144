"""Train shared values: each weight keeps its place in the codebook, and the codebook learns.

The gradient of a shared value is the sum of the gradients of the weights that share it (Han, Mao and Dally 2015,
https://arxiv.org/abs/1510.00149, equation 3). Zeros stay zeros: where a pruned layer is shared, zero is a value that
does not learn. Beside it stands the way of TensorFlow Model Optimization, which assigns each weight anew at every step.

After training every layer holds no more values than the step says, so that `compress` with the same step changes
nothing any more: it finds the codebook that was trained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from numpy.typing import NDArray
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from compresskit.data import Digits
from compresskit.recipe import Share
from compresskit.shared import share_array
from compresskit.sharing import Shared
from compresskit.training.augment import Augmentation
from compresskit.training.convert import to_checkpoint, to_keras
from compresskit.training.fit import Epoch, Progress, Teaching, cross_entropy, fit
from compresskit.training.graphs import FOLDS, fold_normalization
from compresskit.training.masks import from_litert, to_litert
from compresskit.training.quantize import Rounding
from compresskit.zoo import Checkpoint

Way = Literal["codebook", "tfmot"]
WAYS: tuple[Way, ...] = ("codebook", "tfmot")
_STARTS = {"linear": "LINEAR", "density": "DENSITY_BASED", "k-means++": "KMEANS_PLUS_PLUS"}


@dataclass(frozen=True)
class TrainedShared:
    """What training shared values came to.

    Attributes
    ----------
    checkpoint : Checkpoint
        The trained model in float; its layers hold shared values only.
    history : tuple of Epoch
        Losses and accuracies of the finished epochs, measured with shared values.
    cancelled : bool
        True if the run was cancelled: the checkpoint holds what was reached by then.
    codebooks : mapping of str to ndarray of float32
        The values of each layer, ascending; with a codebook for each channel, all of them.
    """

    checkpoint: Checkpoint
    history: tuple[Epoch, ...]
    cancelled: bool
    codebooks: Mapping[str, NDArray[np.float32]]


def train_shared(
    checkpoint: Checkpoint,
    steps: Share | Sequence[Share],
    digits: Digits,
    *,
    way: Way = "codebook",
    epochs: int = 1,
    batch_size: int = 128,
    learning_rate: float = 0.001,
    augment: Augmentation = "shift",
    seed: int = 0,
    teaching: Teaching | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    resume: Path | None = None,
) -> TrainedShared:
    """Share the weights of a model, and train the values that they share.

    Parameters
    ----------
    checkpoint : Checkpoint
        A model that can be trained: shipped, made from Keras, or what pruning with training gave.
    steps : Share or sequence of Share
        Which layers, and how many values; no layer in two of them.
    digits : Digits
        Trained on ``train``; ``validation`` is measured.
    way : {"codebook", "tfmot"}, default "codebook"
        The values learn, and each weight keeps its own; or TensorFlow Model Optimization's clustering, in which
        weights learn too and are assigned anew (k-means only, one codebook a layer).
    epochs, batch_size, learning_rate, augment, seed, on_progress, cancel
        As :func:`compresskit.training.fit.fit` takes them.
    teaching : Teaching, optional
        What a teacher says of the digits, moved as ``augment`` says: :class:`compresskit.training.distill.KeptLogits`.
    resume : Path, optional
        File from which a run that was broken off goes on.

    Returns
    -------
    TrainedShared

    Raises
    ------
    ValueError
        If the model cannot be trained, a layer is not there or stands in two steps, or TFMOT has no such method.

    Notes
    -----
    Biases are trained along and not shared.
    """
    if way not in WAYS:
        raise ValueError(f"way is {way!r}; choose 'codebook' or 'tfmot'")
    plain = fold_normalization(to_keras(checkpoint))
    chosen = _chosen(plain, (steps,) if isinstance(steps, Share) else tuple(steps))
    clustered = _with_codebooks(plain, chosen) if way == "codebook" else _with_tfmot(plain, chosen)
    result = fit(
        clustered, digits, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, augment=augment,
        seed=seed, on_progress=on_progress, cancel=cancel, checkpoint=resume, loss=cross_entropy(plain),
        teaching=teaching,
        about={"sharing": [repr(step) for step in chosen.values()], "way": way},
    )  # fmt: skip
    trained = (
        _read_codebooks(plain, clustered) if way == "codebook" else tfmot.clustering.keras.strip_clustering(clustered)
    )
    books = {name: np.unique(_kernel(trained.get_layer(name))) for name in chosen}
    return TrainedShared(to_checkpoint(trained, checkpoint.name), result.history, result.cancelled, books)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def look_up(codebook: tf.Tensor, codes: tf.Tensor) -> Any:
    """Give the weights that codes stand for; the gradient of a value is the sum over the weights that have it.

    Parameters
    ----------
    codebook : tensor of float32, shape (K,)
        The values.
    codes : tensor of int32, any shape
        The place of each weight's value.
    """

    def gradient(of_weights: tf.Tensor) -> tuple[tf.Tensor, None]:
        summed = tf.math.unsorted_segment_sum(
            tf.reshape(of_weights, [-1]), tf.reshape(codes, [-1]), tf.shape(codebook)[0]
        )
        return summed, None

    return tf.gather(codebook, codes), gradient


class Codebook(tfmot.quantization.keras.quantizers.Quantizer):  # type: ignore[misc]
    """Put shared values in the place of a kernel.

    Parameters
    ----------
    values : ndarray of float32, shape (K,)
        To start from. A value that is exactly 0 stays 0.
    codes : ndarray of int32, shape of the kernel
        The place of each weight's value.
    """

    def __init__(self, values: NDArray[np.float32], codes: NDArray[np.int32]) -> None:
        self.values, self.codes = values, codes

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Make the values, which learn, and the codes, which do not."""
        constant = tf_keras.initializers.Constant
        codes = layer.add_weight(
            f"{name}_codes", shape=self.codes.shape, dtype=tf.int32, trainable=False, initializer=constant(self.codes)
        )
        values = layer.add_weight(
            f"{name}_values", shape=self.values.shape, dtype=tf.float32, initializer=constant(self.values)
        )
        return {"codes": codes, "values": values}

    def __call__(self, inputs: tf.Tensor, training: Any, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        """Look the kernel up."""
        return look_up(self.held(weights["values"]), weights["codes"])

    def held(self, values: tf.Tensor) -> tf.Tensor:
        """Give the values, zero where zero was."""
        return values * tf.constant(self.values != 0, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Give what makes an equal one."""
        return {"values": self.values, "codes": self.codes}


def _chosen(model: tf_keras.Model, steps: tuple[Share, ...]) -> dict[str, Share]:
    """Say which layer is shared by which step."""
    able = [layer.name for layer in model.layers if type(layer).__name__ in FOLDS]
    chosen: dict[str, Share] = {}
    for step in steps:
        for name in step.layers or able:
            if name not in able:
                raise ValueError(f"Share: layer {name!r} holds no weights to share; the layers are {', '.join(able)}")
            if name in chosen:
                raise ValueError(f"Share: layer {name!r} stands in two steps; leave it out of one of them")
            chosen[name] = step
    return chosen


def _kernel(layer: Any) -> NDArray[np.float32]:
    """Read a layer's kernel."""
    return np.asarray(getattr(layer, FOLDS[type(layer).__name__][0]).numpy(), np.float32)


def _book(shared: Shared) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Give one row of values, and codes into it, also where each channel has a codebook of its own."""
    codes = shared.codes.astype(np.int32)
    if shared.channel_axis is not None:
        along = [1] * codes.ndim
        along[shared.channel_axis] = -1
        codes = codes + shared.levels * np.arange(codes.shape[shared.channel_axis], dtype=np.int32).reshape(along)
    return np.asarray(shared.codebook, np.float32).reshape(-1), codes


def _with_codebooks(model: tf_keras.Model, chosen: Mapping[str, Share]) -> tf_keras.Model:
    """Wrap layers so that they compute with shared values."""

    def wrapped(layer: Any) -> Any:
        copy = type(layer).from_config(layer.get_config())
        if layer.name not in chosen:
            return copy
        kernel = to_litert(_kernel(layer), layer)
        axis = 3 if type(layer).__name__ == "DepthwiseConv2D" else 0
        values, codes = _book(share_array(kernel, chosen[layer.name], axis=axis, name=layer.name))
        shape = getattr(layer, FOLDS[type(layer).__name__][0]).shape
        book = Codebook(values, from_litert(codes, layer, shape))
        return QuantizeWrapperV2(copy, Rounding(book, False), name=layer.name)

    shared = tf_keras.models.clone_model(model, clone_function=wrapped)
    for layer in model.layers:
        twin = shared.get_layer(layer.name)
        if layer.name not in chosen:
            twin.set_weights(layer.get_weights())
            continue
        kernels = [variable for variable, _, _ in twin._weight_vars]
        for kernel in kernels:  # it is not computed with, so there is nothing for it to learn
            twin._trainable_weights = [each for each in twin._trainable_weights if each is not kernel]
            twin._non_trainable_weights.append(kernel)
        if layer.use_bias:
            twin.layer.bias.assign(layer.bias)
    return shared


def _read_codebooks(plain: tf_keras.Model, shared: tf_keras.Model) -> tf_keras.Model:
    """Write the trained values into a model of plain layers."""
    for layer in plain.layers:
        twin = shared.get_layer(layer.name)
        if not isinstance(twin, QuantizeWrapperV2):
            layer.set_weights(twin.get_weights())
            continue
        _, book, variables = twin._weight_vars[0]
        kernel = tf.gather(book.held(variables["values"]), variables["codes"]).numpy()
        layer.set_weights([kernel, *([twin.layer.bias.numpy()] if layer.use_bias else [])])
    return plain


def _with_tfmot(model: tf_keras.Model, chosen: Mapping[str, Share]) -> tf_keras.Model:
    """Wrap layers in TFMOT's clustering, which keeps zeros."""
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    for name, step in chosen.items():
        if step.method != "kmeans" or step.granularity != "layer":
            raise ValueError(
                f"Share: layer {name!r}: method {step.method!r} with a codebook for each {step.granularity}; TFMOT has "
                "k-means with one codebook a layer: choose way='codebook'"
            )

    def wrapped(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        step = chosen[layer.name]
        start = tfmot.clustering.keras.CentroidInitialization[_STARTS[step.start]]
        # Without a zero among the weights TFMOT would take the middle of them for zeros, and lose them.
        sparse = step.keep_zero and bool((_kernel(layer) == 0).any())
        return cluster.cluster_weights(
            layer, number_of_clusters=step.count, cluster_centroids_init=start, preserve_sparsity=sparse
        )

    return tf_keras.models.clone_model(model, clone_function=wrapped)
