"""The networks of the course, untrained: plain Keras models that answer with ten logits.

Every model takes float32 images (n, 28, 28, 1) between 0 and 1 and gives float32 logits (n, 10), without a
softmax: the largest logit is the answer, and the losses of :mod:`compresskit.training.fit` and of distillation
are computed from logits. Layers carry the short names that the lessons use (``conv1``, ``dense``, ``head``).

Initial weights come from initializers with a seed each, so the same seed builds the same model whatever else the
process has drawn from TensorFlow's global generator.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any

import tf_keras

layers = tf_keras.layers


class _Seeds:
    """Hands every weight of a model an initializer with a seed of its own."""

    def __init__(self, seed: int) -> None:
        self._next = count(1000 * seed)

    def glorot(self) -> Any:
        """Glorot and Bengio 2010: uniform in +-sqrt(6 / (fan_in + fan_out)), for layers without rectifier."""
        return tf_keras.initializers.GlorotUniform(seed=next(self._next))

    def he(self) -> Any:
        """He et al. 2015: normal of variance 2 / fan_in, for layers that a rectifier follows."""
        return tf_keras.initializers.HeNormal(seed=next(self._next))


def digit_reader(seeds: _Seeds) -> tf_keras.Model:
    """Build the course's main model: two convolutions, two pools, two dense layers; 421,642 parameters."""
    image = tf_keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu", kernel_initializer=seeds.he(), name="conv1")(image)
    x = layers.MaxPooling2D(name="pool1")(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu", kernel_initializer=seeds.he(), name="conv2")(x)
    x = layers.MaxPooling2D(name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", kernel_initializer=seeds.he(), name="dense")(x)
    logits = layers.Dense(10, kernel_initializer=seeds.glorot(), name="head")(x)
    return tf_keras.Model(image, logits, name="digit_reader")


def lenet_300_100(seeds: _Seeds) -> tf_keras.Model:
    """Build LeNet-300-100 (LeCun et al. 1998): three dense layers, 266,610 parameters."""
    image = tf_keras.Input((28, 28, 1), name="image")
    x = layers.Flatten(name="flatten")(image)
    x = layers.Dense(300, activation="relu", kernel_initializer=seeds.he(), name="dense1")(x)
    x = layers.Dense(100, activation="relu", kernel_initializer=seeds.he(), name="dense2")(x)
    logits = layers.Dense(10, kernel_initializer=seeds.glorot(), name="head")(x)
    return tf_keras.Model(image, logits, name="lenet_300_100")


def lenet5(seeds: _Seeds) -> tf_keras.Model:
    """Build LeNet-5 as Caffe ships it, the one the compression literature measures: 431,080 parameters.

    No rectifier follows the convolutions, as in Caffe's ``lenet_train_test.prototxt``.
    """
    image = tf_keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(20, 5, kernel_initializer=seeds.glorot(), name="conv1")(image)
    x = layers.MaxPooling2D(name="pool1")(x)
    x = layers.Conv2D(50, 5, kernel_initializer=seeds.glorot(), name="conv2")(x)
    x = layers.MaxPooling2D(name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(500, activation="relu", kernel_initializer=seeds.he(), name="dense")(x)
    logits = layers.Dense(10, kernel_initializer=seeds.glorot(), name="head")(x)
    return tf_keras.Model(image, logits, name="lenet5")


def big_teacher(seeds: _Seeds) -> tf_keras.Model:
    """Build the teacher of lesson 11: five convolutions with batch normalization, 452,970 parameters once folded."""
    image = tf_keras.Input((28, 28, 1), name="image")
    x = image
    for number, (channels, size, stride) in enumerate([(32, 3, 1), (32, 5, 2), (64, 3, 1), (64, 3, 1)], start=1):
        x = _normalized(_convolution(channels, size, stride, seeds, name=f"conv{number}"), x)
    x = layers.MaxPooling2D(name="pool1")(x)
    x = _normalized(_convolution(128, 3, 1, seeds, name="conv5"), x)
    x = layers.MaxPooling2D(name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(256, activation="relu", kernel_initializer=seeds.he(), name="dense")(x)
    logits = layers.Dense(10, kernel_initializer=seeds.glorot(), name="head")(x)
    return tf_keras.Model(image, logits, name="big_teacher")


def small_student(seeds: _Seeds) -> tf_keras.Model:
    """Build the depthwise-separable student (Howard et al. 2017, MobileNets): about 3,600 weights.

    A separable block is a depthwise 3x3 convolution and a pointwise 1x1 convolution, each followed by batch
    normalization and a rectifier, which the converter folds into the convolutions.
    """
    image = tf_keras.Input((28, 28, 1), name="image")
    x = _normalized(_convolution(8, 3, 2, seeds, name="conv"), image)
    for number, (channels, stride) in enumerate([(16, 1), (32, 2), (32, 1), (24, 1)], start=1):
        depthwise = layers.DepthwiseConv2D(
            3,
            strides=stride,
            padding="same",
            depthwise_initializer=seeds.he(),
            use_bias=False,
            name=f"block{number}_depthwise",
        )
        pointwise = _convolution(channels, 1, 1, seeds, name=f"block{number}_pointwise")
        x = _normalized(pointwise, _normalized(depthwise, x))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    logits = layers.Dense(10, kernel_initializer=seeds.glorot(), name="head")(x)
    return tf_keras.Model(image, logits, name="small_student")


def student(kind: str, width: int, depth: int, seed: int = 0) -> tf_keras.Model:
    """Build a student of any size: the dial of lesson 11, from about 500 to 50,000 parameters and beyond.

    Parameters
    ----------
    kind : {"plain", "separable", "dense"}
        3x3 convolutions; depthwise-separable ones (Howard et al. 2017); or dense layers (as Hinton et al. 2015 have).
    width : int
        Channels of the first convolution, 2 to 64, and half of those of the later ones; units of a dense layer, 2 to
        2,000.
    depth : int
        Convolutions (of separable ones: blocks), or dense layers, before the head; 1 to 8.
    seed : int, default 0
        The same seed gives the same initial weights.

    Returns
    -------
    tf_keras.Model
        Called ``kind-WIDTHxDEPTH``, a name that :func:`build` takes too.

    Raises
    ------
    ValueError
        For another kind, and a width or depth out of range.
    """
    if kind not in STUDENT_KINDS:
        raise ValueError(f"kind is {kind!r}: choose one of {', '.join(map(repr, STUDENT_KINDS))}.")
    widest = 2000 if kind == "dense" else 64
    for name, value, low, high in (("width", width, 2, widest), ("depth", depth, 1, 8)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}: give a whole number from {low} to {high} for a {kind} student.")
    seeds, image = _Seeds(seed), tf_keras.Input((28, 28, 1), name="image")
    x = _dense_layers(image, width, depth, seeds) if kind == "dense" else _blocks(image, kind, width, depth, seeds)
    logits = layers.Dense(10, kernel_initializer=seeds.glorot(), name="head")(x)
    return tf_keras.Model(image, logits, name=f"{kind}-{width}x{depth}")


def _dense_layers(image: Any, width: int, depth: int, seeds: _Seeds) -> Any:
    x = layers.Flatten(name="flatten")(image)
    for number in range(1, depth + 1):
        x = layers.Dense(width, activation="relu", kernel_initializer=seeds.he(), name=f"dense{number}")(x)
    return x


def _blocks(image: Any, kind: str, width: int, depth: int, seeds: _Seeds) -> Any:
    """Lay convolutions behind one another: the first two halve the image, the second doubles the channels."""
    x = _normalized(_convolution(width, 3, 2, seeds, name="conv1"), image)
    for number in range(2, depth + 1):
        stride = 2 if number == 2 else 1
        if kind == "plain":
            x = _normalized(_convolution(2 * width, 3, stride, seeds, name=f"conv{number}"), x)
        else:
            x = _separable(x, 2 * width, stride, seeds, name=f"block{number}")
    return layers.GlobalAveragePooling2D(name="mean")(x)


def _separable(x: Any, channels: int, stride: int, seeds: _Seeds, *, name: str) -> Any:
    """Apply a depthwise 3x3 and a pointwise 1x1 convolution, each normalized."""
    depthwise = layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="same",
        depthwise_initializer=seeds.he(),
        use_bias=False,
        name=f"{name}_depthwise",
    )
    return _normalized(_convolution(channels, 1, 1, seeds, name=f"{name}_pointwise"), _normalized(depthwise, x))


def _convolution(channels: int, size: int, stride: int, seeds: _Seeds, *, name: str) -> Any:
    """Make a convolution that keeps the image's borders and leaves its bias to the normalization behind it."""
    return layers.Conv2D(
        channels, size, strides=stride, padding="same", use_bias=False, kernel_initializer=seeds.he(), name=name
    )


def _normalized(layer: Any, x: Any) -> Any:
    """Apply ``layer``, batch normalization (Ioffe and Szegedy 2015) and a rectifier.

    A momentum of 0.9 lets the running mean and variance follow within a few dozen steps: the runs here are short.
    """
    x = layers.BatchNormalization(momentum=0.9, name=f"{layer.name}_norm")(layer(x))
    return layers.ReLU(name=f"{layer.name}_relu")(x)


STUDENT_KINDS = ("plain", "separable", "dense")
_STUDENT_NAME = re.compile(rf"({'|'.join(STUDENT_KINDS)})-(\d+)x(\d+)")

ARCHITECTURES: dict[str, Callable[[_Seeds], tf_keras.Model]] = {
    "digit_reader": digit_reader,
    "lenet_300_100": lenet_300_100,
    "lenet5": lenet5,
    "big_teacher": big_teacher,
    "small_student": small_student,
}


def build(name: str, seed: int = 0) -> tf_keras.Model:
    """Build one of the course's models, untrained.

    Parameters
    ----------
    name : str
        One of ``ARCHITECTURES``, or a student such as ``separable-8x4`` (:func:`student`).
    seed : int, default 0
        The same seed gives the same initial weights.

    Returns
    -------
    tf_keras.Model
        Input float32 (n, 28, 28, 1), output float32 logits (n, 10).

    Raises
    ------
    ValueError
        If there is no model of that name.
    """
    dialled = _STUDENT_NAME.fullmatch(name)
    if dialled:
        return student(dialled[1], int(dialled[2]), int(dialled[3]), seed)
    if name not in ARCHITECTURES:
        raise ValueError(
            f"name is {name!r}: there is no such model; choose one of {', '.join(ARCHITECTURES)}, or a student such as "
            "separable-8x4 or plain-4x3."
        )
    return ARCHITECTURES[name](_Seeds(seed))
