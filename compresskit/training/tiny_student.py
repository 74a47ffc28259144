"""The smallest file of the course that reads 99 % of the test digits: distilled, int8, and slim.

    python -m compresskit.training.tiny_student

distils ``small_student`` (3,746 weights) from ``big_teacher``, quantizes it to int8, takes out of the file what running
does not need (:mod:`compresskit.litert.slim`), and writes it with its card, which holds the seconds that it took, to
``compresskit/course/data``. The settings (T = 4, alpha = 0.9, 12 epochs) are usual ones; no others were tried.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compresskit.atomic import write_atomically
from compresskit.compression import compress
from compresskit.data import Digits, load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert.slim import slim
from compresskit.recipe import Quantize, Recipe
from compresskit.zoo import Checkpoint, load_model

COMMAND = "python -m compresskit.training.tiny_student"
FOLDER = Path(__file__).resolve().parents[1] / "course" / "data"
NAME = "tiny_student"


@dataclass(frozen=True)
class Settings:
    """How it is trained; names are those of ``distill``."""

    teacher: str = "big_teacher"
    student: str = "small_student"
    temperature: float = 4.0
    alpha: float = 0.9
    epochs: int = 12
    learning_rate: float = 0.01
    augment: str = "shift"
    seed: int = 0


def make(settings: Settings, digits: Digits, on_progress: Any = None) -> tuple[bytes, dict[str, Any]]:
    """Distil, quantize and slim.

    Parameters
    ----------
    settings : Settings
        Of the training.
    digits : Digits
        Full MNIST.
    on_progress : callable, optional
        As ``distill`` takes it.

    Returns
    -------
    bytes, dict
        The file, and its card: settings, sizes on the way, accuracies, seconds.

    Raises
    ------
    ValueError
        As :func:`compresskit.training.distill.distill` does.
    """
    from compresskit.training.distill import distill

    how = asdict(settings)
    teacher, student = load_model(how.pop("teacher")), how.pop("student")
    result = distill(teacher, student, digits, on_progress=on_progress, **how)
    small = compress(result.checkpoint, Recipe(Quantize()), digits.train)
    file = slim(small.tflite)
    score = evaluate(Checkpoint(NAME, file), digits.test)
    card = {
        "command": COMMAND,
        "settings": asdict(settings),
        "parameters": sum(layer.parameters for layer in result.checkpoint.layers),
        "float_bytes": result.checkpoint.size,
        "int8_bytes": small.size,
        "bytes": len(file),
        "float_test_errors": evaluate(result.checkpoint, digits.test).errors,
        "validation_accuracy": evaluate(Checkpoint(NAME, file), digits.validation).accuracy,
        "test_errors": score.errors,
        "teacher_seconds": round(result.teacher_seconds, 1),
        "seconds": round(result.seconds, 1),
    }
    return file, card


def load(folder: Path = FOLDER) -> tuple[Checkpoint, dict[str, Any]]:
    """Read the file and its card.

    Raises
    ------
    ValueError
        If they are not there.
    """
    try:
        card = json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))
        return Checkpoint(NAME, (folder / f"{NAME}.tflite").read_bytes()), card
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"folder is {folder}: it does not hold the tiny student ({error}); run `{COMMAND}`") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; see the head of this module."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (default: the course's own)")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    file, card = make(Settings(epochs=options.epochs, seed=options.seed), load_mnist())
    with write_atomically(options.out / f"{NAME}.tflite") as target:
        target.write(file)
    with write_atomically(options.out / f"{NAME}.json") as target:
        target.write(f"{json.dumps(card, indent=1)}\n".encode())
    print(f"{len(file):,} bytes, {card['test_errors']} test digits misread, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
