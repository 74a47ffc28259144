"""From Keras to a float ``.tflite`` file, and between models and checkpoints.

Run as a program, ``python -m compresskit.training.convert IN OUT`` turns a ``.keras`` or ``.h5`` file or a SavedModel
folder into a ``.tflite`` and, if the model can be trained further here, a ``.keras`` beside it. The live half starts it
in a process of its own, so that a crash of the converter is an error message there. It prints one line of JSON:
``{"error": ...}`` on failure, and exits with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras
from ai_edge_litert.tools import flatbuffer_utils

from compresskit.atomic import write_atomically
from compresskit.training import keras_files, saved_models
from compresskit.training.graphs import from_keras3

if TYPE_CHECKING:
    from compresskit.zoo import Checkpoint


def to_tflite(model: Any) -> bytes:
    """Convert a model to a float32 ``.tflite`` file with a free batch dimension and short tensor names.

    Batch normalization is folded into the layer before it by the converter.

    Parameters
    ----------
    model : tf_keras.Model or keras.Model
        Built, with one input.

    Returns
    -------
    bytes
        A plain flatbuffer. Tensors are called ``model/layer/...``, see :func:`shorten_names`.

    Raises
    ------
    ValueError
        If a weight is NaN or infinite (the converter would end the process), or the converter gives up.
    """
    refuse_non_finite(model)
    try:
        converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    except Exception as error:
        raise ValueError(f"model {model.name!r} cannot be converted: {_reason(error, model)}") from error
    return shorten_names(converted, model.name, [layer.name for layer in model.layers])


def refuse_non_finite(model: Any) -> None:
    """Raise ValueError, naming the weight, if a weight of the model is NaN or infinite."""
    for weight in model.weights:
        values = np.asarray(weight)
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            name = getattr(weight, "path", weight.name)
            raise ValueError(f"weight {name} holds {bad} values that are NaN or infinite: train the model again.")


def shorten_names(tflite: bytes, model_name: str, layer_names: Iterable[str]) -> bytes:
    """Give the tensors of a converted model short names that start with ``model/layer/``.

    The converter calls the output of a folded layer ``m/relu1/Relu;m/norm1/FusedBatchNormV3;m/conv1/Conv2D``, a
    bias ``arith.constant3`` and the answer ``StatefulPartitionedCall:0``. Here, of each operator with weights, the
    weights become ``m/conv1/Conv2D``, the bias ``m/conv1/bias`` and the output ``m/conv1/output``. Tools that choose
    layers by the names of tensors need that, and people who read them.
    """
    layers = set(layer_names)
    root = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    graph = root.subgraphs[0]
    names: dict[int, str] = {}
    for operator in graph.operators:
        inputs = [index for index in operator.inputs if index >= 0]
        parameters = [index for index in inputs if root.buffers[graph.tensors[index].buffer].data is not None]
        outputs = [graph.tensors[index].name.decode() for index in operator.outputs]
        if len(operator.outputs) == 1 and parameters and len(graph.tensors[parameters[0]].shape) >= 2:
            found = _layer_of([graph.tensors[parameters[0]].name.decode(), *outputs], layers)
            if found:
                layer, operation = found
                for index, last in zip([*parameters, operator.outputs[0]], [operation, "bias", "output"], strict=False):
                    names[index] = f"{model_name}/{layer}/{last}"
                if len(parameters) == 1:
                    names[operator.outputs[0]] = f"{model_name}/{layer}/output"
    for index in graph.inputs:
        names[index] = graph.tensors[index].name.decode().removeprefix("serving_default_").removesuffix(":0")
    _rename(graph, names)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(root))


def _layer_of(tensor_names: list[str], layers: set[str]) -> tuple[str, str] | None:
    """Find the Keras layer, and its operation, that a tensor's name tells of: the last part is where it was made."""
    for name in tensor_names:
        parts = name.rsplit(";", 1)[-1].split("/")
        for part in parts[:-1]:
            for layer in (part, part.rsplit("_", 1)[0]):  # Keras 3 counts its calls: conv1_1
                if layer in layers:
                    return layer, parts[-1].rstrip("0123456789") if parts[-1].startswith("MatMul") else parts[-1]
    return None


def _rename(graph: Any, names: dict[int, str]) -> None:
    """Rename tensors, each to a name that no other one has."""
    taken = {tensor.name.decode() for index, tensor in enumerate(graph.tensors) if index not in names}
    for index, wanted in names.items():
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}_{count}"
        taken.add(name)
        graph.tensors[index].name = name.encode()


def to_checkpoint(model: tf_keras.Model, name: str) -> Checkpoint:
    """Make a checkpoint of a trained model: its ``.tflite`` file, and the Keras archive that training goes on from."""
    from compresskit.zoo import Checkpoint

    return Checkpoint(name=name, tflite=to_tflite(model), keras=keras_files.to_archive(model))


def to_keras(checkpoint: Checkpoint) -> tf_keras.Model:
    """Load the Keras model of a checkpoint, to train it further.

    Raises
    ------
    ValueError
        If the checkpoint came from a ``.tflite`` file: that cannot be trained.
    """
    if checkpoint.keras is None:
        raise ValueError(
            f"checkpoint {checkpoint.name!r} was made from a .tflite file, which cannot be trained: load the Keras "
            "model that it came from."
        )
    return keras_files.from_archive(checkpoint.keras)


def convert_path(source: Path) -> tuple[bytes, bytes | None]:
    """Convert a ``.keras`` or ``.h5`` file or a SavedModel folder.

    Returns
    -------
    tuple of bytes and (bytes or None)
        The float ``.tflite``, and a Keras 2 archive that training can go on from: None for a SavedModel, and for a
        Keras 3 model that has no exact twin in Keras 2.

    Raises
    ------
    ValueError
        If the source is no model, carries code, or cannot be converted.
    """
    if source.is_dir():
        if not (source / "saved_model.pb").is_file():
            raise ValueError(
                f"{source} is a folder without saved_model.pb: give a SavedModel, a .keras or an .h5 file."
            )
        saved_models.refuse_programs(source)
        try:
            return bytes(tf.lite.TFLiteConverter.from_saved_model(str(source)).convert()), None
        except Exception as error:
            raise ValueError(f"{source.name} cannot be converted: {_reason(error)}") from error
    model = keras_files.load(source)
    refuse_non_finite(model)
    if not isinstance(model, tf_keras.Model):
        try:
            model = from_keras3(model)
        except ValueError:  # it can be compressed all the same, only not trained
            return to_tflite(model), None
    return to_tflite(model), keras_files.to_archive(model)


def _reason(error: Exception, model: Any = None) -> str:
    """Say why the converter gave up; it calls a loop by the name of an operator."""
    if "TensorList" not in str(error):
        return _first_line(error)
    layers = [] if model is None else [layer for layer in model.layers if _is_recurrent(layer)]
    named = f"layer {layers[0].name!r} ({type(layers[0]).__name__})" if layers else "a layer such as LSTM or GRU"
    return f"{named} goes through its input in a loop, for which LiteRT has no operators; bring one without"


def _is_recurrent(layer: Any) -> bool:
    return bool({"RNN", "Bidirectional"} & {kind.__name__ for kind in type(layer).__mro__})


def _first_line(error: Exception) -> str:
    """Give the first line that says something: Keras 3 says first, and in colours, where it was."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return f"{type(error).__name__}: {(telling or lines or ['no reason given'])[0][:300]}"


def main(arguments: list[str] | None = None) -> int:
    """Run the program; see the head of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m compresskit.training.convert", description="Keras to float .tflite"
    )
    parser.add_argument("source", type=Path, help="a .keras or .h5 file, or a SavedModel folder")
    parser.add_argument("target", type=Path, help="the .tflite file to write; a .keras archive goes beside it")
    given = parser.parse_args(arguments)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras 3 and TensorFlow are talkative
            tflite, archive = convert_path(given.source)
        for path, content in ((given.target.with_suffix(".keras"), archive), (given.target, tflite)):
            if content is not None:
                with write_atomically(path) as file:
                    file.write(content)
    except Exception as error:  # whatever it is, the parent process gets a sentence
        message = str(error) if isinstance(error, ValueError) else _first_line(error)
        print(json.dumps({"error": message}))
        return 1
    print(json.dumps({"bytes": len(tflite)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
