"""What a teacher costs: a distillation epoch with kept logits, against one that runs the teacher on every batch."""

from __future__ import annotations

import importlib
import threading
import time
from dataclasses import replace
from typing import Any, Final

import compresskit as ck
from compresskit.data import Digits
from tests.benchmarks.row import Row, compare

DIGITS: Final = 6000
BATCH: Final = 128
TEACHER: Final = "big_teacher"
STUDENT: Final = "small_student"
PAIRS: Final = 3


class Epoch:
    """One epoch of a student: a network, compiled once, that is trained on again and again.

    Parameters
    ----------
    digits
        Trained on ``train``.
    teaching
        Kept logits, or None.
    loss
        A loss that asks the teacher on every batch, or None.
    """

    def __init__(self, digits: Digits, *, teaching: Any = None, loss: Any = None) -> None:
        room = importlib.import_module("compresskit.training.fit")
        model = importlib.import_module("compresskit.training.architectures").build(STUDENT)
        asked = loss or room.cross_entropy(model)
        self.run = room._Run(model, digits, 1, BATCH, 0.005, "shift", 0, None, asked, teaching, {}, weight_decay=0.0)

    def __call__(self, _pair: int) -> float:
        """Train for an epoch; give the seconds that its steps take, without validation."""
        started = time.perf_counter()
        for images, labels, *more in self.run._batches(0, 0):
            self.run._train_step(images, labels, *more)
        return time.perf_counter() - started


def kept(digits: Digits, alpha: float) -> Any:
    """Keep the teacher's logits, for shifted digits."""
    room = importlib.import_module("compresskit.training.distill")
    return room.KeptLogits(
        (ck.load_model(TEACHER),), digits, 4.0, alpha, "kl", "shift", 1, probabilities=False, cancel=threading.Event()
    )


def asked_each_time() -> Any:
    """Give a loss that runs the teacher, in Keras, on every batch: the way of the Keras example."""
    room = importlib.import_module("compresskit.training.distill")
    teacher = importlib.import_module("compresskit.training.convert").to_keras(ck.load_model(TEACHER))
    tf = importlib.import_module("tensorflow")

    def loss(images: Any, labels: Any, outputs: Any) -> Any:
        hard = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=outputs))
        said = tf.stop_gradient(teacher(images, training=False))
        return 0.1 * hard + 0.9 * room.teacher_loss("kl", said, outputs, 4.0)

    return loss


def rows() -> list[Row]:
    """Compare an epoch with kept logits with one that asks each time, and with one without a teacher."""
    digits = ck.load_mnist()
    digits = replace(digits, train=digits.train.take(DIGITS), validation=digits.validation.take(500))
    teaching = kept(digits, 0.9)
    started = time.perf_counter()
    teaching.training(0)
    once = time.perf_counter() - started
    ours, asking, plain = Epoch(digits, teaching=teaching), Epoch(digits, loss=asked_each_time()), Epoch(digits)
    name = f"distillation epoch, {DIGITS:,} digits"
    against_asking = compare(f"{name}, kept / asked each time", ours, asking, pairs=PAIRS, unit="s")
    against_plain = compare(f"{name}, kept / no teacher", ours, plain, pairs=PAIRS, unit="s")
    return [
        against_asking,
        against_plain,
        Row(f"asking {TEACHER} once, {DIGITS:,} digits", once, None, None, "s"),
    ]
