"""Attention transfer: a student that also looks where its teacher looks.

The attention map of a layer is, for each place of the image, the sum of the squares of its channels, and the whole map
divided by its length: ``Q = F / ||F||_2`` with ``F_yx = Σ_c A_yxc²``. The loss gains ``β ||Q_student - Q_teacher||²``,
averaged over the digits (Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928). Teacher and student may have
any number of channels; a map of another size is brought to the student's by averaging areas.

The teacher's maps are computed once and kept, as its logits are. The student's cost one more pass through its layers up
to the one looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.runtime import outputs
from compresskit.training.augment import Augmentation
from compresskit.training.distill import TEACHER_BATCH, KeptLogits, Logits, Model, moved

SMALLEST_LENGTH = 1e-6  # of a map: a layer that is silent everywhere looks nowhere


class LogitsAndAttention(KeptLogits):
    """What a teacher says, and where it looks; a :class:`~.fit.Teaching`.

    Parameters
    ----------
    *arguments, **settings
        As for :class:`KeptLogits`, with a single teacher.
    student : tf_keras.Model
        The one that is trained.
    layers : tuple of two str
        A layer of the student, and the layer of the teacher that it is to look like. Both give maps (height, width,
        channels). The teacher's is one of those that hold weights; its output has passed the rectifier.
    beta : float
        Weight of the maps' distance.

    Raises
    ------
    ValueError
        If there are several teachers, a layer is not there, or does not give maps.
    """

    def __init__(
        self, *arguments: Any, student: tf_keras.Model, layers: tuple[str, str], beta: float, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.layers, self.beta = layers, beta
        self._look = looking(student, layers[0])
        if len(self.teachers) != 1:
            raise ValueError(f"attention takes one teacher, not {len(self.teachers)}: several look at different places")
        self._shown = showing(self.teachers[0], layers[1])
        self._size = tuple(int(size) for size in self._look.output_shape[1:3])
        self._classes = int(student.output_shape[-1])
        self._maps: dict[int, NDArray[np.float32]] = {}

    def settings(self) -> dict[str, Any]:
        """Give what two runs must have in common so that one may go on from the other."""
        return {**super().settings(), "attention": list(self.layers), "beta": self.beta}

    def training(self, epoch: int) -> tuple[Logits, NDArray[np.float32]]:
        """Give logits and maps, (n, k + h w), and the matrices (n, 2, 3) of the digits' places."""
        logits, matrices = super().training(epoch)
        view = epoch % self.views
        if view not in self._maps:
            self._maps[view] = self._teachers_maps(self.digits.train, self.augment, matrices)
        wide = np.broadcast_to(logits, (len(logits), self._classes))  # without weight there is one column of zeros
        return np.concatenate([wide, self._maps[view]], axis=1), matrices

    def loss(self, images: tf.Tensor, labels: tf.Tensor, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Add the maps' distance while training; validation digits come without maps."""
        mixed = super().loss(images, labels, outputs, targets[:, : self._classes])
        if targets.shape[1] is None or targets.shape[1] <= self._classes:
            return mixed
        distance = attention_map(self._look(images, training=True)) - targets[:, self._classes :]
        return mixed + self.beta * tf.reduce_mean(tf.reduce_sum(tf.square(distance), axis=1))

    def _teachers_maps(self, split: Split, augment: Augmentation, matrices: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(split), TEACHER_BATCH):
            images = split.images[start : start + TEACHER_BATCH]
            if self.cancel.is_set():
                parts.append(np.zeros((len(images), int(np.prod(self._size))), np.float32))
                continue
            if augment != "none":
                images = moved(images, augment, matrices[start : start + TEACHER_BATCH])
            energy = np.square(outputs(self._shown, images)).sum(axis=-1, keepdims=True)
            resized = tf.image.resize(energy, self._size, method="area")
            parts.append(_unit(resized).numpy())
        return np.concatenate(parts)


def attention_map(activations: tf.Tensor) -> tf.Tensor:
    """Compute where a layer looks.

    Parameters
    ----------
    activations : float32 tensor (n, height, width, channels)
        What the layer gives.

    Returns
    -------
    float32 tensor (n, height * width)
        Rows of length 1.
    """
    return _unit(tf.reduce_sum(tf.square(activations), axis=-1, keepdims=True))


def _unit(energy: tf.Tensor) -> tf.Tensor:
    """Flatten maps (n, h, w, 1) and bring each to length 1."""
    flat = tf.reshape(energy, (tf.shape(energy)[0], energy.shape[1] * energy.shape[2]))
    return flat / tf.maximum(tf.norm(flat, axis=1, keepdims=True), SMALLEST_LENGTH)


def looking(student: tf_keras.Model, layer: str) -> tf_keras.Model:
    """Give the part of a student that ends in a layer; it shares the weights.

    Raises
    ------
    ValueError
        If there is no such layer, or it does not give maps.
    """
    maps = [each.name for each in student.layers[1:] if len(each.output.shape) == 4]
    if layer not in maps:
        raise ValueError(f"attention: {layer!r} is no layer of {student.name!r} that gives maps; choose of {maps}")
    return tf_keras.Model(student.inputs, student.get_layer(layer).output)


def showing(teacher: Model, layer: str) -> bytes:
    """Give a file that answers with what a layer of the teacher gives.

    Raises
    ------
    ValueError
        If there is no such layer, or it does not give maps.
    """
    model = files.read(teacher.tflite)
    graph = model.subgraphs[0]
    ends = {site.name: int(graph.operators[site.operator].outputs[0]) for site in sites(model)}
    maps = {name: end for name, end in ends.items() if len(files.shape(graph.tensors[end])) == 4}
    if layer not in maps:
        raise ValueError(f"attention: {layer!r} is no layer of the teacher that gives maps; choose of {list(maps)}")
    return files.expose(teacher.tflite, [maps[layer]])
