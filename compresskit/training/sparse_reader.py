"""Train the network that lesson 08 shows to XNNPACK's sparse kernels: ``python -m compresskit.training.sparse_reader``.

It has the one form for which these kernels exist (Elsen, Dukhan, Gale and Simonyan 2020, *Fast sparse ConvNets*): a
3x3 convolution of stride 2 on three channels, then depthwise and 1x1 convolutions, then the mean over all places. The
1x1 convolutions, 95 of 100 of its weights, are pruned while it is trained, by magnitude and the schedule of Zhu and
Gupta (2017). The file is written to ``compresskit/models/sparse_reader.tflite``, zeros and all.

A digit is grey: the network copies it to three channels, since the kernel of the first layer wants three.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from compresskit.data import load_mnist
from compresskit.evaluation import evaluate
from compresskit.pruning.patterns import unstructured_mask
from compresskit.pruning.schedules import Polynomial
from compresskit.training.convert import to_tflite
from compresskit.training.fit import Progress, fit
from compresskit.zoo import Checkpoint, save_tflite

FILE = Path(__file__).resolve().parents[1] / "models" / "sparse_reader.tflite"
CHANNELS = 128
BLOCKS = 3
SPARSITY = 0.9
EPOCHS = 8
SEED = 1

layers = tf_keras.layers


def build() -> tf_keras.Model:
    """Build the network, untrained."""
    tf_keras.utils.set_random_seed(SEED)
    image = tf_keras.Input((28, 28, 1), name="image")
    x = layers.Concatenate(name="grey")([image, image, image])
    x = layers.ZeroPadding2D(1, name="border")(x)  # on all four sides: "same" would pad two of them only
    x = _normalized(layers.Conv2D(CHANNELS // 2, 3, 2, use_bias=False, name="conv"), x)
    for number in range(1, BLOCKS + 1):
        depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"block{number}_depthwise")
        pointwise = layers.Conv2D(CHANNELS, 1, use_bias=False, name=f"block{number}_pointwise")
        x = _normalized(pointwise, _normalized(depthwise, x))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return tf_keras.Model(image, layers.Dense(10, name="head")(x), name="sparse_reader")


def _normalized(layer: Any, x: Any) -> Any:
    """Apply a layer, batch normalization and a rectifier; the converter folds them into one."""
    return layers.ReLU(name=f"{layer.name}_relu")(layers.BatchNormalization(momentum=0.9)(layer(x)))


class Pruner:
    """Called after each training step: sets the smallest weights of the 1x1 convolutions to zero, more and more.

    Parameters
    ----------
    model : tf_keras.Model
        Its 1x1 convolutions are pruned.
    schedule : Polynomial
        The sparsity at each step.
    """

    def __init__(self, model: tf_keras.Model, schedule: Polynomial) -> None:
        self.kernels = [model.get_layer(f"block{number}_pointwise").kernel for number in range(1, BLOCKS + 1)]
        self.masks = [np.ones(kernel.shape, bool) for kernel in self.kernels]
        self.schedule = schedule

    def __call__(self, step: int) -> None:
        """Make new masks if the schedule says so; apply the masks in any case."""
        for number, kernel in enumerate(self.kernels):
            if self.schedule.prunes_at(step):
                self.masks[number] = unstructured_mask(np.abs(kernel.numpy()), self.schedule(step))
            kernel.assign(kernel * self.masks[number])


def tell(progress: Progress) -> None:
    """Print a line an epoch."""
    if progress.step == progress.steps and progress.validation_accuracy is not None:
        print(f"epoch {progress.epoch} of {progress.epochs}, validation {progress.validation_accuracy:.2%}", flush=True)


def main() -> int:
    """Train, prune, write the file and say what it reads."""
    digits = load_mnist()
    if not digits.complete:
        print(f"The model is made from full MNIST only. {digits.notice}", file=sys.stderr)
        return 1
    model = build()
    steps = -(-len(digits.train) // 128)
    schedule = Polynomial(0.0, SPARSITY, begin=steps, end=5 * steps, frequency=steps // 10)
    fit(
        model, digits, epochs=EPOCHS, learning_rate=0.005, augment="shift", seed=SEED, on_progress=tell,
        after_step=Pruner(model, schedule),
    )  # fmt: skip
    checkpoint = Checkpoint("sparse_reader", to_tflite(model))
    save_tflite(FILE, checkpoint.tflite)
    print(evaluate(checkpoint, digits.test))
    print(", ".join(f"{layer.name} {layer.sparsity:.1%}" for layer in checkpoint.layers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
