"""Where the model and the data of a workbench come from: the Python that gets them again, in another program.

What the course has is got by its name, what lies in files by its path. An object that was made in a notebook is written
to a file of its own when somebody asks for the program: beside the session, or in the cache where there is none. Such a
file is named after its content, so that none is ever overwritten with another.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compresskit.data import Digits, Split
from compresskit.data.bring import save_data
from compresskit.data.mnist import PARTS, SHA256, sha256
from compresskit.zoo import Checkpoint, manifest


@dataclass(frozen=True)
class Source:
    """Expressions of Python, `compresskit` imported as `ck`.

    Attributes
    ----------
    model : str
        Gives the original model.
    digits : str
        Gives the data.
    sha256 : str
        Of the file that the model comes from; empty for the course's own.
    parts : bool
        Whether the data has a training and a test part (`Digits`), or is one `Split` that serves for both.
    """

    model: str
    digits: str = "ck.load_mnist()"
    sha256: str = ""
    parts: bool = True


class Origin:
    """The model and the data that a workbench was made with.

    Parameters
    ----------
    model, checkpoint
        What was given as the model, and what `load_model` made of it.
    data, digits
        What was given as the data, None for MNIST, and what `load_data` made of it.
    folder
        Where objects are written to that came from no file.
    """

    def __init__(self, model: Any, checkpoint: Checkpoint, data: Any, digits: Digits | Split, folder: Path) -> None:
        self._checkpoint, self._digits, self._folder = checkpoint, digits, folder
        card = manifest().get(checkpoint.name)
        self._shipped = card is not None and card.tflite_sha256 == checkpoint.digest
        self._model_path = Path(model).resolve() if isinstance(model, (str, os.PathLike)) else None
        self._data_path = Path(data).resolve() if isinstance(data, (str, os.PathLike)) else None
        self._is_mnist = data is None or is_mnist(digits)

    @cached_property
    def source(self) -> Source:
        """The Python that gets both again, once `keep` has been called."""
        digits = "ck.load_mnist()" if self._is_mnist else f"ck.load_data({str(self._data_path or self._data_file)!r})"
        parts = isinstance(self._digits, Digits) or self._is_mnist
        if self._shipped:
            return Source(f"ck.load_model({self._checkpoint.name!r})", digits, parts=parts)
        path = self._model_path or self._model_file
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else self._checkpoint.digest
        return Source(f"ck.load_model({str(path)!r})", digits, digest, parts)

    def keep(self) -> None:
        """Write what the program reads and what is in no file yet.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        if not (self._shipped or self._model_path or self._model_file.is_file()):
            self._checkpoint.save(self._model_file)
        if not (self._is_mnist or self._data_path or self._data_file.is_file()):
            save_data(self._data_file, self._digits)

    @cached_property
    def _model_file(self) -> Path:
        name = "".join(each if each.isalnum() or each in "-_" else "_" for each in self._checkpoint.name)
        return self._folder / f"{name}-{self._checkpoint.digest[:12]}.tflite"

    @cached_property
    def _data_file(self) -> Path:
        splits = [self._digits] if isinstance(self._digits, Split) else _splits(self._digits)
        content = hashlib.sha256("".join(split.fingerprint for split in splits).encode()).hexdigest()
        return self._folder / f"data-{content[:12]}.npz"


def _splits(digits: Digits) -> list[Split]:
    return [digits.train, digits.validation, digits.test]


def is_mnist(digits: Digits | Split) -> bool:
    """Tell full MNIST as `load_mnist` gives it, or its offline sample, by its test digits."""
    if isinstance(digits, Split):
        return False
    if not digits.complete:
        return True
    sizes = [len(split) == PARTS.get(split.name) for split in _splits(digits)]
    known = {"test images": digits.test.images, "test labels": digits.test.labels}
    return all(sizes) and all(sha256(array) == SHA256[name] for name, array in known.items())
