"""Data of your own: arrays, a `tf.data.Dataset`, an archive of arrays, a folder of images, IDX files.

Whatever it is, it becomes `Digits` of three splits: what is calibrated and trained on, what choices are made on, and
what is reported are never the same examples.
"""

from __future__ import annotations

import itertools
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from compresskit.atomic import write_atomically
from compresskit.data.folders import any_of_four, load_idx
from compresskit.data.splits import Array, Digits, Split

if TYPE_CHECKING:
    from PIL import Image

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
LARGEST_BYTES = 4 * 10**9
"""More than this is not taken into memory; a few thousand examples are enough to compress and score a model."""

MOST_ELEMENTS = 1_000_000
"""Elements of a `tf.data.Dataset` that are taken in; one that is generated may have no end, and does not say so."""

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
        uint8 is brightness, and so are whole numbers from 0 to 255 in images; a table of whole numbers of another type
        is taken as it is. Classes of a folder are numbered in the order of their names. Where there is no test part,
        the examples are shuffled (always alike) and a sixth becomes the test split; a twelfth of the others is for
        validation.

    Raises
    ------
    ValueError
        If the data cannot be used; the sentence names the part, the value and what to do. Nothing that a file holds
        is executed: no pickled objects are read.
    """
    if isinstance(source, (Digits, Split)):
        return source
    if size is not None:
        size = _checked_size(size)
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
    images = _examples(_array(pair[0], f"{name}: the examples"), name)
    labels = _labels(_array(pair[1], f"{name}: the labels"), name)
    if len(images) != len(labels):
        raise ValueError(f"{name}: {len(images):,} examples and {len(labels):,} labels; give one label for each")
    return images, labels


def _array(values: Any, what: str) -> Array:
    """Make an array; what has no value, or no shape, is said."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{what} are masked in {int(values.mask.sum()):,} places; fill those, or leave the rows out")
    try:
        return np.asarray(values)
    except ValueError as error:  # NumPy speaks of a sequence and a dimension
        raise ValueError(f"{what} are not all of one length; bring them into one shape") from error


def _examples(images: Array, name: str) -> Array:
    """Bring numbers into uint8 (brightness) or float32 (as it is)."""
    if images.dtype.kind not in "biuf" or images.ndim < 2 or 0 in images.shape:
        more = "; images.astype('float32') makes them of objects that are numbers" if images.dtype.kind == "O" else ""
        raise ValueError(
            f"{name}: the examples are {images.dtype} of shape {images.shape}; give numbers, an example a row{more}"
        )
    if images.ndim > 4:
        raise ValueError(
            f"{name}: the examples have the shape {images.shape[1:]}; give (features,), (height, width) or (height, "
            "width, channels) for each"
        )
    if images.dtype.kind == "f" or (images.ndim == 2 and images.dtype.kind in "iu" and images.dtype != np.uint8):
        return _finite(images, name)
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(255)
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"{name}: whole numbers from {low} to {high} are no brightness from 0 to 255; give float32 for other values"
        )
    return images.astype(np.uint8)


def _finite(values: Array, name: str) -> NDArray[np.float32]:
    """Bring numbers into float32; one that is none there is named by its place in what was given."""
    with np.errstate(over="ignore"):  # said below
        made = values.astype(np.float32)
    if not np.isfinite(made).all():
        place = tuple(np.argwhere(~np.isfinite(made))[0].tolist())
        raise ValueError(
            f"{name}: example {place[0]} holds {values[place]} at {list(place[1:])}; every value must be a finite "
            "number that float32 holds: fill it, or leave the example out"
        )
    return made


def _labels(labels: Array, name: str) -> Array:
    """Bring labels into whole numbers, from a column or from one-hot rows if they come so."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise ValueError(f"{name}: labels of shape {labels.shape} are not one-hot; give the class of each example")
        return np.asarray(labels.argmax(axis=1), np.int64)
    if labels.ndim == 1 and labels.size and labels.dtype.kind in "SUOT":
        raise ValueError(
            f"{name}: labels are words or objects such as {labels[0]!r}; give one whole number for each example, in "
            "the model's order of classes: np.unique(labels, return_inverse=True)[1] counts in that of the alphabet"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: labels are {labels.dtype} of shape {labels.shape}; give one whole number for each example, "
            "classes counted from 0"
        )
    wrong = (labels != np.floor(labels)) | (labels < 0) | (labels > np.iinfo(np.int32).max)
    if wrong.any():
        first = int(wrong.argmax())
        whole = "" if labels[first] < 0 else "labels are whole numbers, and "
        raise ValueError(f"{name}: label {labels[first]} of example {first}; {whole}classes are counted from 0")
    return np.asarray(labels, np.int64)


# -- data sets --------------------------------------------------------------------------------------------------------


def _is_dataset(source: Any) -> bool:
    """Tell a `tf.data.Dataset`, or what behaves like one, without TensorFlow."""
    return hasattr(source, "as_numpy_iterator")


def _is_pair(source: Any) -> bool:
    return isinstance(source, (tuple, list)) and len(source) == 2


def _pair(source: Any, name: str) -> Pair:
    if _is_dataset(source):
        endless = -1  # what tf.data calls INFINITE_CARDINALITY
        if hasattr(source, "cardinality") and int(source.cardinality()) == endless:
            raise ValueError(f"{name}: the data set repeats without end; give dataset.take(n), or leave repeat() out")
        return _from_dataset(source.as_numpy_iterator(), name)
    if _is_pair(source):
        return source[0], source[1]
    raise ValueError(f"{name} is a {type(source).__name__}; give (images, labels) or a tf.data.Dataset of such pairs")


def _from_dataset(elements: Iterable[Any], name: str) -> Pair:
    """Collect the pairs of a data set, an example or a batch each."""
    images: list[Array] = []
    labels: list[Array] = []
    held = 0
    for element in _told(elements, name):
        if not _is_pair(element) or any(isinstance(part, (tuple, list, dict)) for part in element):
            raise ValueError(
                f"{name}: each element of the data set must be (image, label), and one is {_described(element)}"
            )
        image, label = np.asarray(element[0]), np.asarray(element[1])
        held += image.nbytes
        _refuse_too_large(held, name)
        if len(images) == MOST_ELEMENTS:
            raise ValueError(f"{name}: more than {MOST_ELEMENTS:,} elements; give dataset.take(n)")
        images.append(image)
        labels.append(label)
    if not images:
        raise ValueError(f"{name}: the data set is empty; give at least {_FEWEST} examples")
    batched = _batched(images, labels)
    join = np.concatenate if batched else np.stack
    try:
        return join(images), join(labels)
    except ValueError as error:
        shapes = sorted({image.shape[1:] if batched else image.shape for image in images})
        raise ValueError(f"{name}: the examples have different shapes ({shapes[:3]}); resize them first") from error


def _told(elements: Iterable[Any], name: str) -> Iterator[Any]:
    """Go through a data set; what its own functions raise becomes a sentence."""
    walk = iter(elements)
    for place in itertools.count():
        try:
            yield next(walk)
        except StopIteration:
            return
        except Exception as error:  # TensorFlow has a type for each of its own
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{name}: the data set failed at element {place} ({type(error).__name__}): {reason}"
            ) from error


def _batched(images: Sequence[Array], labels: Sequence[Array]) -> bool:
    """Tell batches from single examples, whose labels may be one-hot and by chance as long as the image is high."""
    if not all(
        label.ndim and image.ndim and len(label) == len(image) for image, label in zip(images, labels, strict=True)
    ):
        return False
    one_hot = all(
        label.ndim == 1 and label.dtype.kind in "biuf" and np.isin(label, (0, 1)).all() and label.sum() == 1
        for label in labels
    )
    return not (one_hot and len(images) >= _FEWEST and len(labels[0]) > 1)


def _described(element: Any) -> str:
    if isinstance(element, dict):
        return f"a dict of {', '.join(map(str, element))}"
    if not isinstance(element, (tuple, list)):
        return f"a {type(element).__name__} alone"
    several = [part for part in element if isinstance(part, (tuple, list, dict))]
    return f"of {len(element)} parts" + (f", one of which has {len(several[0])} of its own" if several else "")


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
        try:
            return load_idx(path)
        except FileNotFoundError as error:
            raise ValueError(f"{error}; put the four IDX files there") from error
    if (path / "train").is_dir() and (path / "test").is_dir():
        classes = _classes(path / "train")
        if unknown := sorted(set(_classes(path / "test")) - set(classes)):
            raise ValueError(f"{path}: the test folder has a class {unknown[0]!r} that the training folder has not")
        train, test = (_from_images(path / part, classes, size, grey) for part in ("train", "test"))
        return _two(train, test, f"images in {path}")
    return _one(_from_images(path, _classes(path), size, grey), f"images in {path}")


def _from_archive(path: Path) -> Digits | Split:
    """Read an `.npz`; a pickled object in it is refused, and so is what says that it is larger than it is."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path.name} is no .npz archive, or is damaged; np.savez(name, x=images, y=labels) writes one"
        )
    try:
        with zipfile.ZipFile(path) as members:
            names = {member.removesuffix(".npy") for member in members.namelist()}
            wanted = _wanted(names)
            _refuse_too_large(sum(_declared(members, name) for name in wanted), path.name)
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in wanted}
        return _parts_of(found, str(path))
    except (OSError, zipfile.BadZipFile, EOFError, KeyError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _wanted(names: set[str]) -> list[str]:
    """Choose the arrays to be read."""
    for form in (
        [f"{axis}_{part}" for axis in "xy" for part in _PARTS],
        ["images", "labels"],
        ["x_train", "y_train", "x_test", "y_test"],
        ["x", "y"],
    ):
        if set(form) <= names:
            return form
    raise ValueError(
        f"it holds {', '.join(sorted(names)) or 'nothing'}; name the arrays x_train, y_train, x_test and y_test, or x "
        "and y"
    )


def _declared(members: zipfile.ZipFile, name: str) -> int:
    """Give the bytes that an array takes, by its own head, held against the length of its member."""
    info = members.getinfo(f"{name}.npy")
    with members.open(info) as file:
        try:
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
            shape, _, dtype = read(file)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{name} is no array, or is damaged") from error
        if dtype.hasobject:
            raise ValueError(f"{name} holds pickled objects, which are not read; give an array of numbers")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - file.tell():
            raise ValueError(f"{name} says that it is {shape} of {dtype}, which its length is not; it is damaged")
    return size


def _parts_of(found: Mapping[str, Array], source: str) -> Digits | Split:
    if "x_validation" in found:
        train, validation, test = (
            Split(*_arrays((found[f"x_{part}"], found[f"y_{part}"]), part), part) for part in _PARTS
        )
        return Digits(train, validation, test, source)
    if "images" in found:
        return Split(*_arrays((found["images"], found["labels"]), "data"), "data")
    if "x" in found:
        return _one((found["x"], found["y"]), source)
    return _two((found["x_train"], found["y_train"]), (found["x_test"], found["y_test"]), source)


def _classes(folder: Path) -> list[str]:
    found = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not found:
        raise ValueError(f"{folder} has no folders; put the images of each class into a folder of its own")
    return found


def _checked_size(size: Any) -> tuple[int, int]:
    whole = isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, (int, np.integer)) for side in size)
    if not whole or min(size) < 1:
        raise ValueError(f"size is {size!r}; give (height, width) in pixels, such as size=(96, 96)")
    return int(size[0]), int(size[1])


def _from_images(folder: Path, classes: Sequence[str], size: tuple[int, int] | None, grey: bool) -> Pair:
    """Read a folder of images for each class."""
    paths = [(path, label) for label, name in enumerate(classes) for path in _images_in(folder / name)]
    if not paths:
        deeper = next((each for name in classes for each in (folder / name).glob("*/") if _images_in(each)), None)
        raise ValueError(
            f"{folder}: no images in its folders ({', '.join(IMAGE_ENDINGS)}); "
            + (f"they lie one deeper, as in {deeper}: " if deeper else "put them into a folder a class; ")
            + "give the folder that holds the classes, or call the parts train and test"
        )
    if size is not None:
        _refuse_too_large(len(paths) * size[0] * size[1] * (1 if grey else 3), str(folder))
    images: list[NDArray[np.uint8]] = []
    held = 0
    for path, _ in paths:
        images.append(_read_image(path, size, grey))
        held += images[-1].nbytes
        _refuse_too_large(held, str(folder))
    for one, other in itertools.pairwise(images):
        if one.shape != other.shape:
            raise ValueError(
                f"{folder}: images of {one.shape[1]} x {one.shape[0]} and {other.shape[1]} x {other.shape[0]} pixels; "
                "give size=(height, width)"
            )
    return np.stack(images), np.asarray([label for _, label in paths], np.int64)


def _images_in(folder: Path) -> list[Path]:
    """List the images of a class; hidden files, such as those that macOS puts beside others, are none."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = (each for each in inside if each.suffix.lower() in IMAGE_ENDINGS and not each.name.startswith("."))
    return [each for each in found if not each.is_dir()]


def _read_image(path: Path, size: tuple[int, int] | None, grey: bool) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():  # a pipe would be waited for without end
        raise ValueError(f"{path} is no file (a pipe, or a link to nothing); take it out of the folder")
    try:
        with Image.open(path) as opened:
            image = _eight_bits(opened, path).convert("L" if grey else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image: {' '.join(str(error).split())[:200]}") from error
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """Bring 16 bits of brightness to 8; Pillow would cut off what is above 255."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"{path} has brightness of mode {image.mode}, which has no fixed range; save it with 8 bits")
    return image
