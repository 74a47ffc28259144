"""Data of your own: arrays, a `tf.data.Dataset`, an archive of arrays, a folder of images, IDX files.

Whatever it is, it becomes `Digits` of three splits: what is calibrated and trained on, what choices are made on, and
what is reported are never the same examples.
"""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from compresskit.atomic import write_atomically
from compresskit.data.folders import any_of_four, load_idx
from compresskit.data.splits import Array, Digits, Split

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
LARGEST_BYTES = 4 * 10**9
"""More than this is not taken into memory; a few thousand examples are enough to compress and score a model."""

_HELD = 12
"""A twelfth of the training examples is held out for validation, as with MNIST."""
_FEWEST = 24
_PARTS = ("train", "validation", "test")

Pair = tuple[Any, Any]


def load_data(source: Any, *, size: tuple[int, int] | None = None, grey: bool = False) -> Digits | Split:
    """Take examples and labels from wherever they are.

    Parameters
    ----------
    source
        One of: `Digits` or a `Split`, which are returned as they are; `(images, labels)`;
        `((images, labels), (test images, test labels))`, as `keras.datasets` gives them; a `tf.data.Dataset` of such
        pairs, batched or not, or a dict or tuple of two of them for training and test; the path of an `.npz` with
        `x_train`, `y_train`, `x_test`, `y_test` (and `x_validation`, `y_validation` if there are any), with `x`, `y`,
        or as `save_data` wrote it; a folder of IDX files; a folder that holds a folder of images for each class, or
        two such folders called `train` and `test`.
    size : (int, int), optional
        Height and width that images from a folder are brought to; needed where they differ.
    grey : bool
        Whether images from a folder are made grey, shape (n, height, width); else they have three colours.

    Returns
    -------
    Digits or Split
        Classes of a folder are numbered in the order of their names. Where there is no test part, the examples are
        shuffled (always alike) and a sixth becomes the test split; a twelfth of the others is for validation.

    Raises
    ------
    ValueError
        If the data cannot be used; the sentence names the part, the value and what to do. Nothing that a file holds
        is executed: no pickled objects are read.
    """
    if isinstance(source, (Digits, Split)):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source), size, grey)
    if isinstance(source, Mapping):
        parts = {str(name): part for name, part in source.items()}
        if not {"train", "test"} <= set(parts):
            raise ValueError(f"data is a dict with {', '.join(parts) or 'nothing'}; give it 'train' and 'test'")
        return _two(_pair(parts["train"], "train"), _pair(parts["test"], "test"), "the data given")
    if _is_dataset(source):
        return _one(_pair(source, "data"), "the data set given")
    if isinstance(source, Sequence) and len(source) == 2:
        first, second = source
        if _is_dataset(first) or _is_pair(first):
            return _two(_pair(first, "train"), _pair(second, "test"), "the arrays given")
        return _one(_pair((first, second), "data"), "the arrays given")
    raise ValueError(
        f"data is a {type(source).__name__}; give (images, labels), ((images, labels), (test images, test labels)), "
        "a tf.data.Dataset, the path of an .npz or of a folder, or Digits"
    )


# -- three splits out of one or two pairs ----------------------------------------------------------------------------


def _two(train: Pair, test: Pair, source: str) -> Digits:
    images, labels = _arrays(train, "train")
    test_images, test_labels = _arrays(test, "test")
    if images.shape[1:] != test_images.shape[1:] or images.dtype != test_images.dtype:
        raise ValueError(
            f"data: training examples are {images.dtype} of shape {images.shape[1:]}, test examples "
            f"{test_images.dtype} of shape {test_images.shape[1:]}; bring both into one form"
        )
    held = len(images) // _HELD
    if not held:
        raise ValueError(f"data: {len(images)} training examples are too few; {_HELD} or more leave some to choose on")
    order = np.random.default_rng(0).permutation(len(images))
    kept, chosen = np.sort(order[held:]), np.sort(order[:held])
    return Digits(
        Split(images[kept], labels[kept], "train"),
        Split(images[chosen], labels[chosen], "validation"),
        Split(test_images, test_labels, "test"),
        source,
    )


def _one(pair: Pair, source: str) -> Digits:
    images, labels = _arrays(pair, "data")
    if len(images) < _FEWEST:
        raise ValueError(f"data: {len(images)} examples are too few; give {_FEWEST} or more, or Digits of your own")
    order = np.random.default_rng(0).permutation(len(images))
    held = len(images) // 6
    test, train = np.sort(order[:held]), np.sort(order[held:])
    return _two((images[train], labels[train]), (images[test], labels[test]), source)


# -- arrays -----------------------------------------------------------------------------------------------------------


def _arrays(pair: Pair, name: str) -> tuple[Array, Array]:
    images, labels = _examples(np.asarray(pair[0]), name), _labels(np.asarray(pair[1]), name)
    if len(images) != len(labels):
        raise ValueError(f"{name}: {len(images):,} examples and {len(labels):,} labels; give one label for each")
    return images, labels


def _examples(images: Array, name: str) -> Array:
    """Bring numbers into uint8 (brightness) or float32 (as it is)."""
    if images.dtype.kind not in "biuf" or images.ndim < 2 or 0 in images.shape:
        raise ValueError(
            f"{name}: the examples are {images.dtype} of shape {images.shape}; give numbers, an example a row"
        )
    if images.dtype.kind == "f":
        return images.astype(np.float32)
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(255)
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"{name}: whole numbers from {low} to {high} are no brightness from 0 to 255; give float32 for other values"
        )
    return images.astype(np.uint8)


def _labels(labels: Array, name: str) -> Array:
    """Bring labels into whole numbers, from a column or from one-hot rows if they come so."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise ValueError(f"{name}: labels of shape {labels.shape} are not one-hot; give the class of each example")
        return np.asarray(labels.argmax(axis=1), np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "biuf" or (labels != np.floor(labels)).any():
        raise ValueError(
            f"{name}: labels are {labels.dtype} of shape {labels.shape}; give one whole number for each example, "
            "classes counted from 0"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"{name}: label {labels.min()} of example {int(labels.argmin())}; classes are counted from 0")
    return np.asarray(labels, np.int64)


# -- data sets --------------------------------------------------------------------------------------------------------


def _is_dataset(source: Any) -> bool:
    """Tell a `tf.data.Dataset`, or what behaves like one, without TensorFlow."""
    return hasattr(source, "as_numpy_iterator")


def _is_pair(source: Any) -> bool:
    return isinstance(source, (tuple, list)) and len(source) == 2


def _pair(source: Any, name: str) -> Pair:
    if _is_dataset(source):
        return _from_dataset(source.as_numpy_iterator(), name)
    if _is_pair(source):
        return source[0], source[1]
    raise ValueError(f"{name} is a {type(source).__name__}; give (images, labels) or a tf.data.Dataset of such pairs")


def _from_dataset(elements: Iterable[Any], name: str) -> Pair:
    """Collect the pairs of a data set, an example or a batch each."""
    images, labels, held = [], [], 0
    for element in elements:
        if not _is_pair(element):
            raise ValueError(f"{name}: each element of the data set must be (image, label), and one is not")
        image, label = np.asarray(element[0]), np.asarray(element[1])
        held += image.nbytes
        _refuse_too_large(held, name)
        images.append(image)
        labels.append(label)
    if not images:
        raise ValueError(f"{name}: the data set is empty; give at least {_FEWEST} examples")
    batched = all(label.ndim and len(label) == len(image) for image, label in zip(images, labels, strict=True))
    join = np.concatenate if batched else np.stack
    try:
        return join(images), join(labels)
    except ValueError as error:
        shapes = sorted({image.shape[1:] if batched else image.shape for image in images})
        raise ValueError(f"{name}: the examples have different shapes ({shapes[:3]}); resize them first") from error


def _refuse_too_large(held: int, name: str) -> None:
    if held > LARGEST_BYTES:
        raise ValueError(
            f"{name}: more than {LARGEST_BYTES / 1e9:.0f} GB; take a part, such as dataset.take(n), or smaller images"
        )


# -- files ------------------------------------------------------------------------------------------------------------


def save_data(path: str | os.PathLike[str], data: Digits | Split) -> Path:
    """Write data to an `.npz` file from which `load_data` reads the same images, labels and parts; notices stay behind.

    Parameters
    ----------
    path
        A name that ends in `.npz`.
    data
        Three splits, or one.

    Returns
    -------
    Path
        The file, written whole or not at all.

    Raises
    ------
    ValueError
        If the name does not end in `.npz`.
    """
    target = Path(path)
    if target.suffix != ".npz":
        raise ValueError(f"path is {str(path)!r}; give a name that ends in .npz")
    if isinstance(data, Split):
        arrays = {"images": data.images, "labels": data.labels}
    else:
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        arrays = {f"x_{name}": part.images for name, part in parts.items()}
        arrays |= {f"y_{name}": part.labels for name, part in parts.items()}
    with write_atomically(target) as file:
        np.savez(file, **cast(Any, arrays))
    return target


def _from_path(path: Path, size: tuple[int, int] | None, grey: bool) -> Digits | Split:
    if path.suffix == ".npz" and path.is_file():
        return _from_archive(path)
    if not path.is_dir():
        raise ValueError(f"data is {str(path)!r}: no folder and no .npz file of that name")
    if any_of_four(path):
        return load_idx(path)
    if (path / "train").is_dir() and (path / "test").is_dir():
        classes = _classes(path / "train")
        if unknown := sorted(set(_classes(path / "test")) - set(classes)):
            raise ValueError(f"{path}: the test folder has a class {unknown[0]!r} that the training folder has not")
        train, test = (_from_images(path / part, classes, size, grey) for part in ("train", "test"))
        return _two(train, test, f"images in {path}")
    return _one(_from_images(path, _classes(path), size, grey), f"images in {path}")


def _from_archive(path: Path) -> Digits | Split:
    """Read an `.npz`; pickled objects in it are refused by NumPy."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            sizes = [info.file_size for info in zipfile.ZipFile(path).infolist()]
            _refuse_too_large(sum(sizes), path.name)
            if {f"{axis}_{part}" for axis in "xy" for part in _PARTS} <= names:
                train, validation, test = (
                    Split(*_arrays((archive[f"x_{part}"], archive[f"y_{part}"]), part), part) for part in _PARTS
                )
                return Digits(train, validation, test, str(path))
            if {"images", "labels"} <= names:
                return Split(*_arrays((archive["images"], archive["labels"]), "data"), "data")
            if {"x_train", "y_train", "x_test", "y_test"} <= names:
                return _two((archive["x_train"], archive["y_train"]), (archive["x_test"], archive["y_test"]), str(path))
            if {"x", "y"} <= names:
                return _one((archive["x"], archive["y"]), str(path))
    except (OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    raise ValueError(f"{path.name} holds {', '.join(sorted(names)) or 'nothing'}; name the arrays x_train, y_train, "
                     "x_test and y_test, or x and y")  # fmt: skip


def _classes(folder: Path) -> list[str]:
    found = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not found:
        raise ValueError(f"{folder} has no folders; put the images of each class into a folder of its own")
    return found


def _from_images(folder: Path, classes: Sequence[str], size: tuple[int, int] | None, grey: bool) -> Pair:
    """Read a folder of images for each class."""
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    held = 0
    for label, name in enumerate(classes):
        inside = sorted((folder / name).iterdir()) if (folder / name).is_dir() else []
        for path in (each for each in inside if each.suffix.lower() in IMAGE_ENDINGS):
            images.append(_read_image(path, size, grey))
            labels.append(label)
            held += images[-1].nbytes
            _refuse_too_large(held, str(folder))
    if not images:
        raise ValueError(f"{folder}: no images in it ({', '.join(IMAGE_ENDINGS)}); put them into a folder a class")
    for one, other in itertools.pairwise(images):
        if one.shape != other.shape:
            raise ValueError(
                f"{folder}: images of {one.shape[1]} x {one.shape[0]} and {other.shape[1]} x {other.shape[0]} pixels; "
                "give size=(height, width)"
            )
    return np.stack(images), np.asarray(labels, np.int64)


def _read_image(path: Path, size: tuple[int, int] | None, grey: bool) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if grey else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {' '.join(str(error).split())[:200]}") from error
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)
