"""Read and write Keras model files, from Keras 2 and Keras 3, without ever running code that a file carries.

A model file is a description (JSON) and weights (HDF5). The description may name any Python function, or carry the
byte code of one (a Lambda layer), which Keras would run while loading. Here the description is read first, and a
model that is not made of Keras's own layers alone is refused by name.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import tf_keras

# Layers that hold code, or load it from elsewhere.
CARRIES_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"}

# The parts of Keras that a model is described with. Not among them: keras.utils (which can fetch files), keras.saving.
KERAS_ROOMS = {
    "activations", "constraints", "dtype_policies", "engine", "initializers", "layers", "losses", "metrics",
    "mixed_precision", "models", "optimizers", "regularizers",
}  # fmt: skip
FUNCTION_ROOMS = {"activations", "constraints", "initializers", "losses", "metrics", "regularizers"}

# TensorFlow functions written into a Keras 2 model, as in ``x * 2``: those that only compute.
COMPUTES_ONLY = (
    "__operators__.", "math.", "nn.", "linalg.", "cast", "clip_by_value", "concat", "expand_dims", "identity",
    "pad", "reshape", "shape", "split", "squeeze", "stack", "tile", "transpose", "unstack",
)  # fmt: skip

_OF_ONES_OWN = re.compile(r"(?:Could not locate class|Unknown layer:?) '([\w>]+)'")

LARGEST_RATIO = 100
"""An archive of a trained model unpacks to hardly more than its size; of zeros alone, to a thousand times."""

# Every entry of a zip file is dated; a fixed date makes the same model the same bytes.
EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def load(path: Path) -> Any:
    """Load a ``.keras`` or ``.h5`` model with the Keras that wrote it, uncompiled.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    tf_keras.Model or keras.Model
        A tf_keras model if Keras 2 wrote the file, else a Keras 3 model; the other one is tried if that fails.

    Raises
    ------
    ValueError
        If the file is no Keras model, carries code, or can be read by neither Keras.
    """
    config, version = describe(path)
    refuse_code(config)
    readers = [_load_with_keras2, _load_with_keras3]
    if not version.startswith("2."):
        readers.reverse()
    failures = []
    for reader in readers:
        try:
            return reader(path)
        except Exception as error:  # Keras raises nearly every type there is
            failures.append(error)
    first = str(failures[0]).strip().splitlines()[0][:300]
    if unknown := _OF_ONES_OWN.search(first):
        raise ValueError(
            f"{path.name} has a class of your own, {unknown.group(1)!r}: a file is loaded only if it is made of "
            "Keras's own layers. Convert the model to .tflite yourself and load that."
        ) from failures[0]
    raise ValueError(
        f"{path.name} was written by Keras {version} and cannot be read: {type(failures[0]).__name__}: {first}"
    ) from failures[0]


def _load_with_keras2(path: Path) -> Any:
    return tf_keras.models.load_model(path, compile=False, safe_mode=True)


def _load_with_keras3(path: Path) -> Any:
    import keras  # takes a second, and most files are from Keras 2 here

    return keras.models.load_model(path, compile=False, safe_mode=True)


def describe(path: Path) -> tuple[dict[str, Any], str]:
    """Read a model's description and the version of Keras that wrote it, and nothing else of the file.

    Returns
    -------
    tuple of dict and str
        The model's configuration and a version such as "2.21.0" ("?" if the file does not say).

    Raises
    ------
    ValueError
        If the file is no Keras model, or holds weights only.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _refuse_bombs(archive, path)
                config = json.loads(archive.read("config.json"))
                version = json.loads(archive.read("metadata.json")).get("keras_version", "?")
        else:
            with h5py.File(path, "r") as file:
                if "model_config" not in file.attrs:
                    raise ValueError(f"{path.name} holds weights only: save the whole model, with model.save(...).")
                config, version = (
                    json.loads(_text(file.attrs["model_config"])),
                    _text(file.attrs.get("keras_version", "?")),
                )
    except (KeyError, OSError, json.JSONDecodeError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} is not a Keras model file ({type(error).__name__}: {error}).") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path.name} is not a Keras model file: its description is no JSON object.")
    return config, str(version)


def _refuse_bombs(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an archive that unpacks to far more than it is; weights hardly shrink."""
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > LARGEST_RATIO * path.stat().st_size + 5 * 10**7:
        raise ValueError(
            f"{path.name} would unpack to {unpacked / 1e9:.1f} GB: it is damaged, or made to fill the disk."
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def refuse_code(config: dict[str, Any]) -> None:
    """Raise ValueError if a model's description names anything but Keras's own layers and functions.

    The message names the layer class or function, and says what to do.
    """
    for part in _parts(config):
        name = str(part["class_name"]).replace(">", ".").rsplit(".", 1)[-1]
        if name in CARRIES_CODE:
            raise ValueError(
                f"the model has a {name} layer, which holds code that would run on loading: replace it with Keras's "
                "own layers, or convert the model to .tflite yourself and load that."
            )
        inner = part.get("config")
        if name in {"TFOpLambda", "SlicingOpLambda"} and isinstance(inner, dict):
            function = str(inner.get("function", ""))
            if not function.startswith(COMPUTES_ONLY):
                raise ValueError(f"the model calls the TensorFlow function {function}, which is not allowed here.")
        if not _is_from_keras(part, name):
            raise ValueError(
                f"the model uses {part.get('module')}.{name}, which is not part of Keras: a file is loaded only if it "
                "is made of Keras's own layers. Convert the model to .tflite yourself and load that."
            )


def _is_from_keras(part: dict[str, Any], name: str) -> bool:
    module = part.get("module")
    if module is None:
        return True  # Keras 2's older format: names are looked up among Keras's own classes
    rooms = str(module).split(".")
    if name == "function":
        return rooms == ["builtins"] or (rooms[0] in {"keras", "tf_keras"} and rooms[-1] in FUNCTION_ROOMS)
    if rooms[0] not in {"keras", "tf_keras"}:
        return False
    rest = rooms[2:] if rooms[1:2] == ["src"] else rooms[1:]
    return not rest or rest[0] in KERAS_ROOMS


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every described object in a configuration: layers, initializers, functions, and what they hold."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _parts(value)


def to_archive(model: tf_keras.Model) -> bytes:
    """Write a tf_keras model as a ``.keras`` archive without optimizer state; the same model gives the same bytes."""
    if getattr(model, "optimizer", None) is not None:  # a compiled model takes its optimizer along
        plain = tf_keras.models.clone_model(model)
        plain.set_weights(model.get_weights())
        model = plain
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        # Said outright: tf-keras guesses by a flag of the thread, and in any but the one that imported it writes HDF5.
        model.save(path, save_format="keras_v3")
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(members["metadata.json"])
    metadata["date_saved"] = "1980-01-01@00:00:00"
    members["metadata.json"] = json.dumps(metadata).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, EPOCH_OF_ZIP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return written.getvalue()


def from_archive(archive: bytes) -> tf_keras.Model:
    """Load a tf_keras model from the bytes of a ``.keras`` archive."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(archive)
        model = load(path)
    if not isinstance(model, tf_keras.Model):
        raise ValueError(f"the archive holds {model.name!r}, a Keras 3 model: training takes tf_keras models.")
    return model
