"""The course's models, and how a model from elsewhere comes in.

Shipped in `compresskit/models`: for each model a float `.tflite`, the Keras archive from which training goes on, and a
card in `manifest.json` that says what it is and which command made it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from compresskit.atomic import write_atomically
from compresskit.litert import model as files
from compresskit.litert.inspect import Layer, layers
from compresskit.litert.probe import look

_CONVERTER_TIMEOUT = 600.0


@dataclass(frozen=True)
class ModelCard:
    """What a shipped model is, and how it was made.

    Attributes
    ----------
    name, title, architecture : str
        The name that `load_model` takes, a title, and the layers in a line.
    parameters, macs : int
        Number of weights and biases; multiply-accumulate operations for one digit.
    validation_accuracy, test_accuracy : float
        Fractions of the 5,000 validation and 10,000 test digits that the float file reads rightly.
    test_errors : int
        Misread test digits.
    seed, epochs : int
        Of the training.
    command : str
        What remakes it.
    tflite_bytes : int
        Length of the float file.
    tflite_sha256, keras_sha256 : str
        Of the two files, in hexadecimal.
    layers : tuple of str
        Names of the layers that hold weights.
    """

    name: str
    title: str
    architecture: str
    parameters: int
    macs: int
    validation_accuracy: float
    test_accuracy: float
    test_errors: int
    seed: int
    epochs: int
    command: str
    tflite_bytes: int
    tflite_sha256: str
    keras_sha256: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A float model: the file that is compressed, and what training needs to go on.

    Attributes
    ----------
    name : str
        What the model is called.
    tflite : bytes
        The float `.tflite`, a plain flatbuffer.
    keras : bytes or None
        A Keras 2 `.keras` archive with the same weights; None for a model that came as a `.tflite`.
    """

    name: str
    tflite: bytes = field(repr=False)
    keras: bytes | None = field(default=None, repr=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the `.tflite`, in hexadecimal."""
        return hashlib.sha256(self.tflite).hexdigest()

    @property
    def size(self) -> int:
        """Length of the `.tflite` in bytes."""
        return len(self.tflite)

    @cached_property
    def deflated_size(self) -> int:
        """Length of the `.tflite` in bytes after DEFLATE."""
        return files.deflated_size(self.tflite)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """A row for each layer that holds weights."""
        return layers(self.tflite)

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, such as (28, 28, 1)."""
        return _graph_shapes(self.tflite)[0]

    @cached_property
    def classes(self) -> int:
        """How many classes the model tells apart: the last dimension of its output."""
        return _graph_shapes(self.tflite)[1][-1]

    def save(self, path: str | Path) -> Path:
        """Write the `.tflite`, and beside it the `.keras` archive if there is one.

        Parameters
        ----------
        path
            A file name that ends in `.tflite`.

        Returns
        -------
        Path
            The `.tflite` written; `load_model` takes it, and finds the archive beside it.

        Raises
        ------
        ValueError
            If the name does not end in `.tflite`.
        """
        target = save_tflite(path, self.tflite)
        if self.keras is not None:
            with write_atomically(target.with_suffix(".keras")) as file:
                file.write(self.keras)
        return target


def save_tflite(path: str | Path, tflite: bytes) -> Path:
    """Write a `.tflite`, beside its place first and then moved there.

    Parameters
    ----------
    path
        A file name that ends in `.tflite`.
    tflite
        The bytes.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the name does not end in `.tflite`.
    """
    target = Path(path)
    if target.suffix != ".tflite":
        raise ValueError(f"path is {str(path)!r}; give a name that ends in .tflite")
    with write_atomically(target) as file:
        file.write(tflite)
    return target


def _graph_shapes(tflite: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Read the shapes of the first input and the first output, without the batch dimension."""
    graph = files.read(tflite).subgraphs[0]
    first_input, first_output = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    return files.shape(first_input)[1:], files.shape(first_output)[1:]


@functools.cache
def manifest() -> dict[str, ModelCard]:
    """Read the cards of the shipped models, by name."""
    text = resources.files("compresskit").joinpath("models/manifest.json").read_text("utf-8")
    return {
        name: ModelCard(name=name, **{**card, "layers": tuple(card["layers"])})
        for name, card in json.loads(text).items()
    }


def model_names() -> tuple[str, ...]:
    """List the shipped models."""
    return tuple(manifest())


def load_model(source: Any) -> Checkpoint:
    """Take a model from wherever it is.

    Parameters
    ----------
    source
        The name of a shipped model (`model_names()` lists them), the path of a float `.tflite`, of a `.keras` or `.h5`
        file or of a SavedModel folder, a Keras 2 or Keras 3 model object, or a checkpoint, which is returned as it is.

    Returns
    -------
    Checkpoint
        The model. A file from elsewhere is first read and run in a process of its own, and a Keras model is converted
        in one, so that neither can end this process.

    Raises
    ------
    ValueError
        If there is no such model, or it cannot be used; the sentence says why.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, str) and source in manifest():
        return _shipped(source)
    if isinstance(source, (str, Path)):
        return _from_path(Path(source))
    if _is_keras(source):
        return _from_keras(source)
    raise ValueError(
        f"source is a {type(source).__name__}; give one of {', '.join(model_names())}, the path of a .tflite, .keras "
        "or .h5 file, or a Keras model"
    )


@functools.cache
def _shipped(name: str) -> Checkpoint:
    """Read a shipped model and hold it against its card."""
    folder = resources.files("compresskit").joinpath("models")
    card = manifest()[name]
    checkpoint = Checkpoint(
        name, folder.joinpath(f"{name}.tflite").read_bytes(), folder.joinpath(f"{name}.keras").read_bytes()
    )
    if checkpoint.digest != card.tflite_sha256:
        raise ValueError(f"the shipped model {name!r} is not the one of the manifest; install compresskit again")
    return checkpoint


def _from_path(path: Path) -> Checkpoint:
    """Take a model from a file or a folder."""
    if not path.exists():
        raise ValueError(
            f"source is {str(path)!r}: no shipped model and no file of that name; the shipped models are "
            f"{', '.join(model_names())}"
        )
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"source is {str(path)!r}, which is no file; give the path of a model")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise ValueError(f"source is {str(path)!r}, a folder without saved_model.pb; give a SavedModel or a file")
    if path.suffix == ".tflite" and path.is_file():
        beside = path.with_suffix(".keras")
        checkpoint = _checked(path.stem, path.read_bytes(), str(path))
        return replace(checkpoint, keras=beside.read_bytes()) if beside.is_file() else checkpoint
    if path.suffix in (".keras", ".h5") or path.is_dir():
        return _converted(path, path.stem)
    raise ValueError(f"source is {str(path)!r}; give a .tflite, .keras or .h5 file, or a SavedModel folder")


def _is_keras(source: Any) -> bool:
    """Tell a Keras model, of either generation, without importing Keras."""
    names = {f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in type(source).__mro__}
    return bool(names & {"tf_keras.Model", "keras.Model"})


def _from_keras(model: Any) -> Checkpoint:
    """Save a Keras model and convert the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return _converted(path, str(model.name))


def _converted(path: Path, name: str) -> Checkpoint:
    """Convert a Keras file in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.tflite"
        command = [sys.executable, "-m", "compresskit.training.convert", str(path), str(target)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_CONVERTER_TIMEOUT,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"{path.name}: the conversion took more than {_CONVERTER_TIMEOUT / 60:.0f} minutes"
            ) from error
        if done.returncode != 0:
            raise ValueError(f"{path.name} cannot be used: {_reason(done)}")
        checkpoint = _checked(name, target.read_bytes(), path.name)
        archive = target.with_suffix(".keras")  # missing if Keras 2, which training uses, has no twin of the model
        return replace(checkpoint, keras=archive.read_bytes() if archive.is_file() else None)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Find out why the converter gave up."""
    lines = done.stdout.strip().splitlines()
    try:
        return str(json.loads(lines[-1])["error"])
    except (IndexError, KeyError, TypeError, json.JSONDecodeError):
        if "No module named 'tensorflow'" in done.stderr or "No module named 'tf_keras'" in done.stderr:
            return "converting a Keras model needs TensorFlow: install compresskit[train], or bring a .tflite"
        return f"the converter crashed (exit code {done.returncode})"


def _checked(name: str, tflite: bytes, called: str) -> Checkpoint:
    """Look a file over in a process of its own, then bring it into our form."""
    found = look(tflite, called)
    if not found.layers:
        raise ValueError(f"{called} holds no layer with weights; there is nothing to compress")
    if len(found.inputs) != 1 or len(found.outputs) != 1:
        raise ValueError(
            f"{called} has {len(found.inputs)} inputs and {len(found.outputs)} outputs; bring a model with one of each"
        )
    _refuse_answers(found.outputs[0], called)
    rows = layers(tflite)
    stored = sorted({row.dtype for row in rows} - {"float32"})
    if stored:
        raise ValueError(
            f"{called}: layer {next(row.name for row in rows if row.dtype != 'float32')!r} has {stored[0]} weights; "
            "it is compressed already: bring the float model"
        )
    _refuse_inputs(tflite, called)
    return Checkpoint(name, _plain(tflite))


def _refuse_answers(shape: tuple[int, ...], called: str) -> None:
    """Refuse a model that does not give a number for each class; `shape` is that of its answer to one example."""
    if math.prod(shape[1:]) == 1:
        raise ValueError(
            f"{called} gives one number; bring a model with one for each class. Dense(1, activation='sigmoid') becomes "
            "Dense(2, activation='softmax') with the weights [0, w] and [0, b]"
        )
    if math.prod(shape[1:]) != shape[-1]:
        raise ValueError(f"{called} answers with {shape[1:]} numbers; bring a model that gives one for each class")


def _refuse_inputs(tflite: bytes, called: str) -> None:
    """Refuse a model that reads something else than float numbers."""
    graph = files.read(tflite).subgraphs[0]
    given = graph.tensors[graph.inputs[0]]
    if given.type != schema.TensorType.FLOAT32:
        raise ValueError(
            f"{called} reads whole numbers, such as those of words for an Embedding; bring a model that reads float32"
        )
    if len(given.shape) > 4:
        raise ValueError(f"{called} reads examples of shape {files.shape(given)[1:]}; bring one for images or rows")


def _plain(tflite: bytes) -> bytes:
    """Put buffers inside and make tensor names unique, which ai-edge-quantizer needs; else the file stays as it is."""
    model = files.read(tflite)
    tensors = model.subgraphs[0].tensors
    names = [files.tensor_name(tensor) or "tensor" for tensor in tensors]
    packed = schema.Model.GetRootAs(tflite, 0)
    outside = any(packed.Buffers(index).Size() for index in range(packed.BuffersLength()))
    if len(set(names)) == len(names) and not outside:
        return tflite
    taken = Counter(names)
    for index, (tensor, name) in enumerate(zip(tensors, names, strict=True)):
        if taken[name] > 1:
            tensor.name = f"{name}_{index}".encode()
    return files.write(model)
