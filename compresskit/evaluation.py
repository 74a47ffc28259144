"""Score a file: LiteRT's answers on real digits, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.litert.inspect import ends_in_softmax
from compresskit.litert.probe import resident_memory
from compresskit.litert.runtime import Latency, outputs
from compresskit.litert.runtime import latency as measure_latency
from compresskit.litert.stamp import Marks

if TYPE_CHECKING:
    from compresskit.compression import Compressed
    from compresskit.zoo import Checkpoint

_Z = 1.959964
"""Quantile of the normal distribution that leaves 2.5 % on either side."""
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True, kw_only=True)
class Score(Marks):
    """How well a file reads digits.

    Attributes
    ----------
    accuracy : float
        Fraction of the digits read rightly.
    interval : (float, float)
        The 95 % Wilson interval of the accuracy: what the true accuracy may be, for other digits of the same kind.
    n : int
        How many digits were read.
    split : str
        How the digits are called, such as "test".
    notice : str
        What has to be known about the digits, such as that they are an offline sample; often empty.
    predictions : ndarray of int64, shape (n,)
        The digit that the file reads in each image.
    latency : Latency or None
        Time of a single image, if it was asked for.
    memory : int or None
        Bytes of memory that a process needs more for loading and running the file, if it was asked for.
    loss : float
        Mean cross-entropy of the answers, in nats, or nan where it is not known; see `cross_entropy`.
    noun : str
        What was read, in the plural; see `Split`.
    """

    predictions: NDArray[np.int64] = field(repr=False, compare=False)
    model: Compressed | Checkpoint = field(repr=False, compare=False)
    latency: Latency | None = None
    memory: int | None = None
    loss: float = field(default=math.nan, compare=False)
    noun: str = "digits"

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return len(self.model.tflite)

    @property
    def deflated_size(self) -> int:
        """Length of the file in bytes after DEFLATE; computed when it is first asked for."""
        return self.model.deflated_size

    @property
    def errors(self) -> int:
        """How many digits were misread."""
        return self.n - round(self.accuracy * self.n)

    def __str__(self) -> str:
        low, high = self.interval
        text = (
            f"{self.accuracy:.2%} of {self.n:,} {self.noun} (95 % interval {low:.2%} to {high:.2%}), "
            f"{self.size:,} bytes, {self.deflated_size:,} deflated"
        )
        if self.latency is not None:
            text += f", {self.latency.median * 1e6:,.0f} µs each on {self.latency.threads} thread"
            text += "s" if self.latency.threads > 1 else ""
        return f"{text}. {self.notice}" if self.notice else text


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Compute the 95 % interval of a proportion.

    `(p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)` with z = 1.96 (Wilson 1927).

    Parameters
    ----------
    correct
        How many of the trials succeeded.
    n
        How many trials there were, at least 1.

    Returns
    -------
    (float, float)
        Lower and upper end, within [0, 1].

    Raises
    ------
    ValueError
        If `n` is below 1 or `correct` is not between 0 and `n`.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct is {correct} and n is {n}; give 0 <= correct <= n, and n of at least 1")
    p = correct / n
    centre = p + _Z**2 / (2 * n)
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def evaluate(
    model: Compressed | Checkpoint, digits: Split, *, latency: bool = False, memory: bool = False, threads: int = 1
) -> Score:
    """Run a file over digits with LiteRT and count the right answers.

    Parameters
    ----------
    model
        A compressed model, or a checkpoint for its float file.
    digits
        Images and labels, such as `digits.test`. All of them are read.
    latency
        Also time single images: median and spread of 200 runs.
    memory
        Also measure what memory a fresh process needs for the file.
    threads
        Threads that LiteRT is given while single images are timed.

    Returns
    -------
    Score
        Accuracy with its interval, sizes in bytes, and what else was asked for.

    Raises
    ------
    ValueError
        If the digits do not fit the model.
    """
    images = np.asarray(digits.images)
    predictions, loss = _read(model, images, digits.labels)
    return _counted(
        model,
        predictions,
        digits,
        loss,
        latency=measure_latency(model.tflite, images[:1], threads=threads) if latency else None,
        memory=resident_memory(model.tflite) if memory else None,
    )


def complete(score: Score, positions: NDArray[np.int64], digits: Split) -> Score:
    """Go on from the score on some digits to the score on all; what was read is not read again.

    Parameters
    ----------
    score
        Of the file on some of the digits.
    positions : ndarray of int, shape (score.n,)
        Where these stand in `digits`, each once.
    digits
        All of them.

    Returns
    -------
    Score
        What `evaluate` gives for `digits`, without latency and memory.

    Raises
    ------
    ValueError
        If there is not one position for each digit that was read, or one is outside `digits`.
    """
    known = np.unique(positions)
    if not len(positions) == len(known) == score.n or known[0] < 0 or known[-1] >= len(digits):
        raise ValueError(
            f"positions: {len(positions)} are given for {score.n} digits read of {len(digits)}; give each one's, once"
        )
    rest = np.setdiff1d(np.arange(len(digits)), known)
    predictions = np.empty(len(digits), np.int64)
    predictions[positions] = score.predictions
    loss = score.loss
    if len(rest):
        predictions[rest], others = _read(score.model, np.asarray(digits.images), digits.labels[rest], rest)
        loss = (score.n * loss + len(rest) * others) / len(digits)
    return _counted(score.model, predictions, digits, loss)


def _read(
    model: Compressed | Checkpoint, images: NDArray[Any], labels: NDArray[Any], rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], float]:
    """Give the class that the file finds most likely in each image, or in some rows of them, and the loss."""
    answers = outputs(model.tflite, images, rows=rows)
    answers = answers.reshape(len(answers), -1)
    original = getattr(model, "checkpoint", model)  # looked at once: every file made of a model ends as the model does
    return answers.argmax(axis=1), cross_entropy(answers, labels, ends_in_softmax(original.tflite))


def cross_entropy(answers: NDArray[np.float32], labels: NDArray[Any], probabilities: bool = False) -> float:
    """Compute the mean cross-entropy `-log p[label]` of a file's answers, as real numbers.

    Parameters
    ----------
    answers : ndarray of float32, shape (n, classes)
        What the file gives.
    labels : ndarray of int, shape (n,)
        What is right, from 0.
    probabilities
        Whether the answers are probabilities; else they are logits, and `p` is their softmax. A probability of zero,
        to which an integer file rounds the smallest ones, counts as 1e-7, as in Keras.

    Returns
    -------
    float
        In nats; nan if a label is none of the classes, or an answer is no finite number.
    """
    if labels.min() < 0 or labels.max() >= answers.shape[1] or not np.isfinite(answers).all():
        return math.nan
    z = np.ascontiguousarray(answers.T)  # an operation over ten rows is several times quicker than over ten columns
    own = (labels.astype(np.int64), np.arange(len(labels)))
    if probabilities:
        return float(-np.log(np.maximum(z[own], _LEAST_PROBABILITY)).mean(dtype=np.float64))
    z = z - z.max(axis=0)
    right = z[own]
    return float((np.log(np.exp(z).sum(axis=0)) - right).mean(dtype=np.float64))


def _counted(
    model: Compressed | Checkpoint,
    predictions: NDArray[np.int64],
    digits: Split,
    loss: float,
    latency: Latency | None = None,
    memory: int | None = None,
) -> Score:
    """Compare answers with labels."""
    correct = int((predictions == digits.labels).sum())
    return Score(
        accuracy=correct / len(digits),
        interval=wilson_interval(correct, len(digits)),
        n=len(digits),
        predictions=predictions,
        model=model,
        latency=latency,
        memory=memory,
        notice=digits.notice,
        loss=loss,
        split=digits.name,
        noun=digits.noun,
    )
