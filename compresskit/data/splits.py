"""What the rest of the package knows of a data set: a `Split` of images and labels, and three of them as `Digits`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and their labels, the same number of each; neither can be written to.

    Parameters
    ----------
    images : ndarray, uint8 or float32, shape (n, height, width) or (n, height, width, channels), or (n, features)
        uint8 means brightness from 0 to 255; float32 is taken as it is and must be finite.
    labels : ndarray of integers, shape (n,)
        Classes, counted from 0.
    name : str
        "train", "validation", "test": how the split is called in tables.
    notice : str
        What every number computed on this split has to say beside itself; empty for full MNIST.
    noun : str
        What one of them is called in panels, in the plural; "images" or, without a height and a width, "rows", where
        nothing is said.

    Raises
    ------
    ValueError
        When the arrays do not fit together, are empty, are of another type, or hold NaN or infinity.
    """

    images: Array
    labels: Array
    name: str = ""
    notice: str = ""
    noun: str = ""

    def __post_init__(self) -> None:
        # Views, so that the caller's own arrays stay writable while these do not.
        object.__setattr__(self, "images", _read_only(_checked_images(np.asarray(self.images))))
        object.__setattr__(self, "labels", _read_only(_checked_labels(np.asarray(self.labels), len(self.images))))
        object.__setattr__(self, "noun", self.noun or ("images" if self.images.ndim > 2 else "rows"))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, n: int) -> Split:
        """Return the first `n` digits, or all of them when there are fewer: always the same ones."""
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(f"n={n!r}: take needs a whole number of images, 1 or more")
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def only(self, *labels: int) -> Split:
        """Return the images of these labels, in their order here: `test.only(4, 9)`."""
        present = np.unique(self.labels).tolist()
        absent = [label for label in labels if label not in present]
        if absent or not labels:
            raise ValueError(f"labels={labels!r}: name one or more of the labels that this split has: {present}")
        chosen = np.isin(self.labels, labels)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the types, shapes and bytes of images and labels: equal for equal data, whatever its name."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Split) and self.fingerprint == other.fingerprint)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.images.shape[1:]))
        return f"Split({self.name!r}: {len(self):,} {self.noun} of {size}, {self.images.dtype})"


@dataclass(frozen=True)
class Digits:
    """A data set in its three parts.

    Parameters
    ----------
    train, validation, test : Split
        What weights are fitted on; what every choice (a recipe, a temperature, when to stop) is made on; what is
        reported. The three share no image.
    source : str
        Where the digits came from this time.
    complete : bool
        False for the offline sample, which stands in for full MNIST.
    notice : str
        What an incomplete set has to say beside every score; empty for a complete one.

    Raises
    ------
    ValueError
        When the splits hold images of different shapes or types, or an incomplete set comes without a notice.
    """

    train: Split
    validation: Split
    test: Split
    source: str
    complete: bool = True
    notice: str = ""

    def __post_init__(self) -> None:
        kinds = {(part.images.shape[1:], part.images.dtype.str) for part in (self.train, self.validation, self.test)}
        if len(kinds) > 1:
            raise ValueError(
                f"train, validation and test must hold images of one shape and type; found {sorted(kinds)}"
            )
        if self.complete == bool(self.notice):
            raise ValueError(
                f"notice={self.notice!r}: an incomplete set needs one, and a complete set (complete=True) has none"
            )

    def __repr__(self) -> str:
        parts = ", ".join(f"{part.name} {len(part):,}" for part in (self.train, self.validation, self.test))
        return f"Digits({parts}; from {self.source})"


def as_float(images: Array) -> NDArray[np.float32]:
    """Turn images into what a network reads.

    Parameters
    ----------
    images : ndarray, uint8 or float32, any shape

    Returns
    -------
    ndarray, float32, same shape
        uint8 divided by 255, so between 0 and 1; float32 unchanged.

    Raises
    ------
    ValueError
        For another type, and for NaN or infinity: one of those in calibration data spoils every range.
    """
    checked = _checked_pixels(np.asarray(images))
    if checked.dtype == np.uint8:
        return np.divide(checked, np.float32(255), dtype=np.float32)
    return checked


def _checked_pixels(images: Array) -> Array:
    if images.dtype == np.uint8:
        return images
    if images.dtype != np.float32:
        raise ValueError(
            f"images of type {images.dtype}: give uint8 (brightness 0 to 255) or float32 (used as it is); "
            "images.astype('float32') converts"
        )
    if not np.isfinite(images).all():
        first = np.argwhere(~np.isfinite(images))[0].tolist()
        raise ValueError(f"images{first} is {images[tuple(first)]}: every pixel must be a finite number")
    return images


def _checked_images(images: Array) -> Array:
    if images.ndim not in (2, 3, 4) or 0 in images.shape:
        raise ValueError(
            f"images of shape {images.shape}: give (n, height, width), (n, height, width, channels) or (n, features), "
            "with at least one image"
        )
    return _checked_pixels(images)


def _checked_labels(labels: Array, n: int) -> Array:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels of type {labels.dtype}: give integers, the classes counted from 0")
    if labels.shape != (n,):
        raise ValueError(f"labels of shape {labels.shape}: give one label for each of the {n:,} images, shape ({n},)")
    if labels.min() < 0:
        raise ValueError(f"labels[{int(labels.argmin())}] is {labels.min()}: classes are counted from 0")
    return labels


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
