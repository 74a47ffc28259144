"""Vary digits while training: shifts, and small rotations and stretchings.

What is random is drawn in NumPy, from a generator that the caller seeds, and applied to the whole batch at once in
TensorFlow; so a step's digits depend on its seed alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Augmentation = Literal["none", "shift", "affine"]
AUGMENTATIONS: tuple[Augmentation, ...] = ("none", "shift", "affine")

LARGEST_SHIFT = 2  # pixels, each way: MNIST centres its digits to about that
LARGEST_ANGLE = 10.0  # degrees
LARGEST_STRETCH = 0.1  # 10 percent larger or smaller, in each direction for itself
LARGEST_SHEAR = 0.1  # pixels sideways for each pixel down


def draw(augment: Augmentation, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Draw a random 2x3 matrix for each of ``count`` images: where in the old image each new pixel is taken from.

    Returns
    -------
    ndarray, float32 (count, 2, 3)
        ``[x', y'] = m @ [x, y, 1]`` in pixels from the image's centre: x to the right, y down.
    """
    matrix = np.zeros((count, 2, 3), np.float32)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1
    if augment == "none":
        return matrix
    if augment == "shift":
        matrix[:, :, 2] = generator.integers(-LARGEST_SHIFT, LARGEST_SHIFT + 1, size=(count, 2))
        return matrix
    angle = np.deg2rad(generator.uniform(-LARGEST_ANGLE, LARGEST_ANGLE, count))
    stretch = 1 + generator.uniform(-LARGEST_STRETCH, LARGEST_STRETCH, (count, 2))
    shear = generator.uniform(-LARGEST_SHEAR, LARGEST_SHEAR, count)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix[:, 0, 0] = stretch[:, 0] * cosine
    matrix[:, 0, 1] = stretch[:, 0] * (shear * cosine - sine)
    matrix[:, 1, 0] = stretch[:, 1] * sine
    matrix[:, 1, 1] = stretch[:, 1] * (shear * sine + cosine)
    matrix[:, :, 2] = generator.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, (count, 2))
    return matrix


def transform(augment: Augmentation, images: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Move the pixels of images, float32 (n, h, w, c), as :func:`draw` said; pixels from outside are 0.

    Whole-pixel shifts move pixels exactly; the rest is bilinear.
    """
    if augment == "none":
        return images
    height, width = images.shape[1], images.shape[2]
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2], tf.float32)
    turn, shift = matrix[:, :, :2], matrix[:, :, 2]
    offset = shift + centre - tf.linalg.matvec(turn, centre)
    rows = tf.concat([turn, offset[:, :, None]], axis=2)
    flat = tf.concat([tf.reshape(rows, (-1, 6)), tf.zeros((tf.shape(rows)[0], 2))], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=flat,
        output_shape=tf.constant([height, width]),
        fill_value=0.0,
        interpolation="NEAREST" if augment == "shift" else "BILINEAR",
        fill_mode="CONSTANT",
    )
