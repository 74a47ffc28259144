"""Make the course's models from MNIST: ``python -m compresskit.training.zoo [names]``.

Each model is trained on the training digits, scored with LiteRT on its float file, and written to
``compresskit/models`` with a card in ``manifest.json``. The settings below were chosen on the validation digits. A run
that is broken off goes on from ``build/zoo`` when the command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compresskit.atomic import write_atomically
from compresskit.data import Digits, load_mnist
from compresskit.evaluation import evaluate
from compresskit.training.architectures import ARCHITECTURES, build
from compresskit.training.augment import Augmentation
from compresskit.training.convert import to_checkpoint
from compresskit.training.fit import Progress, fit
from compresskit.zoo import Checkpoint

MODELS = Path(__file__).resolve().parents[1] / "models"
SCRATCH = Path("build/zoo")


@dataclass(frozen=True)
class Training:
    """How a shipped model is trained, and what its card says of it."""

    title: str
    architecture: str
    epochs: int
    learning_rate: float
    augment: Augmentation
    seed: int


TRAININGS = {
    "digit_reader": Training(
        "Digit reader: the course's main model",
        "conv 32 3x3, pool 2, conv 64 3x3, pool 2, dense 128, dense 10",
        epochs=8,
        learning_rate=0.002,
        augment="shift",
        seed=1,
    ),
    "lenet_300_100": Training(
        "LeNet-300-100: dense layers only",
        "dense 300, dense 100, dense 10",
        epochs=20,
        learning_rate=0.002,
        augment="shift",
        seed=1,
    ),
    "lenet5": Training(
        "LeNet-5 as in Caffe: the one that compression papers measure",
        "conv 20 5x5, pool 2, conv 50 5x5, pool 2, dense 500, dense 10",
        epochs=10,
        learning_rate=0.002,
        augment="shift",
        seed=1,
    ),
    "big_teacher": Training(
        "Big teacher: the model to distil from",
        "conv 32 3x3, conv 32 5x5 stride 2, 2 x conv 64 3x3, pool 2, conv 128 3x3, pool 2, dense 256, dense 10",
        epochs=12,
        learning_rate=0.003,
        augment="affine",
        seed=1,
    ),
    "small_student": Training(
        "Small student: depthwise-separable convolutions",
        "conv 8 3x3 stride 2, depthwise-separable 16, 32 stride 2, 32 and 24, mean, dense 10",
        epochs=30,
        learning_rate=0.01,
        augment="shift",
        seed=1,
    ),
}


def make(name: str, digits: Digits) -> tuple[Checkpoint, dict[str, Any]]:
    """Train one model and score it.

    Parameters
    ----------
    name : str
        One of ``TRAININGS``.
    digits : Digits
        Full MNIST.

    Returns
    -------
    tuple of Checkpoint and dict
        The model, and its card for the manifest.
    """
    training = TRAININGS[name]
    model = build(name, training.seed)
    scratch = SCRATCH / f"{name}.npz"
    fit(
        model,
        digits,
        epochs=training.epochs,
        learning_rate=training.learning_rate,
        augment=training.augment,
        seed=training.seed,
        on_progress=_Teller(name),
        checkpoint=scratch,
    )
    checkpoint = to_checkpoint(model, name)
    card = _card(checkpoint, training, digits)
    scratch.unlink()
    return checkpoint, card


def _card(checkpoint: Checkpoint, training: Training, digits: Digits) -> dict[str, Any]:
    """Fill in a model's card; the accuracies are LiteRT's, on the float file."""
    test = evaluate(checkpoint, digits.test)
    assert checkpoint.keras is not None
    return {
        "title": training.title,
        "architecture": training.architecture,
        "parameters": sum(layer.parameters for layer in checkpoint.layers),
        "macs": sum(layer.macs for layer in checkpoint.layers),
        "validation_accuracy": evaluate(checkpoint, digits.validation).accuracy,
        "test_accuracy": test.accuracy,
        "test_errors": test.errors,
        "seed": training.seed,
        "epochs": training.epochs,
        "command": f"python -m compresskit.training.zoo {checkpoint.name}",
        "tflite_bytes": len(checkpoint.tflite),
        "tflite_sha256": checkpoint.digest,
        "keras_sha256": hashlib.sha256(checkpoint.keras).hexdigest(),
        "layers": [layer.name for layer in checkpoint.layers],
    }


def ship(checkpoint: Checkpoint, card: dict[str, Any], folder: Path = MODELS) -> None:
    """Write a model's two files, then its card: the manifest never names a file that is not there."""
    checkpoint.save(folder / f"{checkpoint.name}.tflite")
    path = folder / "manifest.json"
    cards = json.loads(path.read_text("utf-8")) if path.exists() else {}
    cards[checkpoint.name] = card
    ordered = {name: cards[name] for name in ARCHITECTURES if name in cards}
    with write_atomically(path) as file:
        file.write((json.dumps(ordered, indent=2) + "\n").encode())


class _Teller:
    """Prints a line an epoch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, progress: Progress) -> None:
        if progress.step == progress.steps and progress.validation_accuracy is not None:
            print(
                f"{self.name}  epoch {progress.epoch} of {progress.epochs}  loss {progress.loss:.4f}  "
                f"validation {progress.validation_accuracy:.2%}  {progress.seconds_left:.0f} s left",
                flush=True,
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the program; see the head of this module."""
    parser = argparse.ArgumentParser(prog="python -m compresskit.training.zoo", description="Make the course's models")
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(TRAININGS)}; all if none is given")
    names = parser.parse_args(arguments).names or list(TRAININGS)
    unknown = [name for name in names if name not in TRAININGS]
    if unknown:
        print(f"There is no model {unknown[0]!r}: choose from {', '.join(TRAININGS)}.", file=sys.stderr)
        return 2
    digits = load_mnist()
    if not digits.complete:
        print(f"The models are made from full MNIST only. {digits.notice}", file=sys.stderr)
        return 1
    for name in names:
        started = time.monotonic()
        checkpoint, card = make(name, digits)
        ship(checkpoint, card)
        print(
            f"{name}  {card['test_accuracy']:.2%} on test ({card['test_errors']} errors), "
            f"{card['tflite_bytes']:,} bytes, {time.monotonic() - started:.0f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
