"""Data sets as folders of four IDX files: MNIST, Fashion-MNIST, KMNIST and their like."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from compresskit.data import mnist
from compresskit.data.idx import Array, IdxError, read_idx
from compresskit.data.mnist import Arrays
from compresskit.data.splits import Digits, Split

# How the four files are called where MNIST is published; some sites write a dot for the second dash.
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load_idx(folder: str | os.PathLike[str], classes: int = 10) -> Digits:
    """Load a data set published as MNIST is, such as Fashion-MNIST.

    Parameters
    ----------
    folder : path
        Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
        `t10k-labels-idx1-ubyte`, each with or without `.gz`.
    classes : int
        How many classes there are: labels lie between 0 and classes - 1. EMNIST's letters have 27.

    Returns
    -------
    Digits
        Validation is the last twelfth of the training images, so the last 5,000 of 60,000. A folder that holds MNIST
        itself gives what `load_mnist` gives, the set-aside digits left out.

    Raises
    ------
    FileNotFoundError
        When a file is missing; the message names it.
    IdxError
        When a file is damaged, holds no images or no labels, has another number of labels than images, or a label out
        of range.
    """
    folder = Path(folder)
    arrays = read_four(folder, classes)
    source = f"IDX files in {folder}"
    if not mnist.difference(arrays):
        return mnist.unpack(mnist.pack(arrays), source)
    x, y, x_test, y_test = arrays
    held = len(x) // 12
    if not held:
        raise ValueError(f"{folder}: {len(x)} training images are too few, 12 or more leave some for validation")
    train, validation = Split(x[:-held], y[:-held], "train"), Split(x[-held:], y[-held:], "validation")
    return Digits(train, validation, Split(x_test, y_test, "test"), source)


def read_four(folder: Path, classes: int = 10) -> Arrays:
    """Read the four files and check that they fit together; errors as `load_idx`."""
    paths = [find(folder, name) for name in FILES]
    train_images, train_labels = _read_pair(paths[0], paths[1], classes)
    test_images, test_labels = _read_pair(paths[2], paths[3], classes)
    if train_images.shape[1:] != test_images.shape[1:] or train_images.dtype != test_images.dtype:
        raise IdxError(
            paths[2],
            2,
            f"test images are {_kind(test_images)}, training images {_kind(train_images)} "
            f"({paths[0].name}): the files are of two data sets",
        )
    return Arrays(train_images, train_labels, test_images, test_labels)


def any_of_four(folder: Path) -> bool:
    """Tell whether the folder holds at least one of the four files."""
    return any(_spelled(folder, name) for name in FILES)


def find(folder: Path, name: str) -> Path:
    """Return the path of one of the four files, whichever way it is spelled.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    found = _spelled(folder, name)
    if not found:
        raise FileNotFoundError(f"{folder} has no {name} and no {name}.gz")
    return found[0]


def _spelled(folder: Path, name: str) -> list[Path]:
    names = (name, name.replace("-idx", ".idx"))
    return [path for path in (folder / f"{stem}{end}" for stem in names for end in ("", ".gz")) if path.is_file()]


def _read_pair(images_path: Path, labels_path: Path, classes: int) -> tuple[Array, Array]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim not in (3, 4) or images.dtype not in (np.uint8, np.float32) or 0 in images.shape:
        raise IdxError(
            images_path, 2, f"{_kind(images)}: images have 3 or 4 dimensions, none of size 0, of type uint8 or float32"
        )
    if images.dtype == np.float32 and not np.isfinite(images).all():
        first = int(np.flatnonzero(~np.isfinite(images))[0])
        raise IdxError(images_path, 4 + 4 * images.ndim + 4 * first, f"a pixel is {images.flat[first]}: damaged")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise IdxError(labels_path, 2, f"{_kind(labels)}: labels are one dimension of integers")
    if len(labels) != len(images):
        raise IdxError(
            labels_path,
            4,
            f"{len(labels):,} labels, but {images_path.name} has {len(images):,} images: "
            "the files are of two data sets",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        first = int(wrong[0])
        raise IdxError(
            labels_path,
            8 + first * labels.itemsize,
            f"label {labels[first]} (of image {first}) is not between 0 and {classes - 1}; load_idx(folder, classes=N) "
            "takes a data set with more classes",
        )
    return images, labels


def _kind(array: Array) -> str:
    return f"{array.dtype.name} of shape {array.shape}"
