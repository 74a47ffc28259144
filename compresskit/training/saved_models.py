"""Look into a SavedModel before TensorFlow loads it: loading runs what the folder says is to be run.

A SavedModel is a program. Its graphs may write files, and it names operations that loading starts: to initialize, to
fill tables, to restore what variables alone do not hold. A model of layers needs none of these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

KINDS = {"user_object", "function", "bare_concrete_function", "variable", "constant", "captured_tensor"}
"""What a SavedModel of layers is made of. Not among them: resources, which bring functions that loading runs."""

STATEFUL = {
    "AssignVariableOp", "CudnnRNNBackpropV3", "CudnnRNNV3", "DisableCopyOnRead", "If", "MergeV2Checkpoints",
    "MultinomialV2", "RandomStandardNormal", "RandomUniform", "RandomUniformInt", "ReadVariableOp", "RestoreV2",
    "SaveV2", "StatefulPartitionedCall", "TruncatedNormal", "VarHandleOp", "VarIsInitializedOp", "While",
}  # fmt: skip
"""Operations with an effect that every model of layers has; those that save are there to be called, and not called."""

FILES = {"ReadFile", "MatchingFiles"}
_AT_START = "__saved_model_init_op"
_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")


def refuse_programs(folder: Path) -> None:
    """Raise ValueError if loading a SavedModel would run more than the reading of its weights.

    Parameters
    ----------
    folder : Path
        Holds ``saved_model.pb``.

    Raises
    ------
    ValueError
        If the file is damaged, of TensorFlow 1, or names what is run on loading; the sentence says which operation.
    """
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (DecodeError, OSError) as error:
        raise ValueError(f"{folder.name} is damaged: its saved_model.pb cannot be read.") from error
    if not model.meta_graphs or not all(graph.HasField("object_graph_def") for graph in model.meta_graphs):
        raise ValueError(
            f"{folder.name} is a SavedModel of TensorFlow 1: convert it to .tflite yourself and load that."
        )
    for graph in model.meta_graphs:
        _refuse_graph(graph, folder.name)


def _refuse_graph(graph: Any, name: str) -> None:
    nodes = {node.name: node for node in graph.graph_def.node}
    inner = [node for function in graph.graph_def.library.function for node in function.node_def]
    for node in (*nodes.values(), *inner):
        if not _harmless(node.op):
            raise ValueError(
                f"{name} calls {node.op}, which does more than compute: convert the model to .tflite yourself and load "
                "that."
            )
    starts = [_start_of(graph), *(each for key in _COLLECTIONS for each in graph.collection_def[key].node_list.value)]
    for start in filter(None, starts):
        first = nodes.get(start.split(":")[0])
        if first is None or first.op != "NoOp" or first.input:
            raise ValueError(f"{name} names an operation that is run on loading ({start}): save the model without it.")
    for node in graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        if kind not in KINDS or node.saveable_objects or node.registered_saver:
            raise ValueError(
                f"{name} holds a {kind} whose code is run on loading, such as a table of words: save the layers alone."
            )


def _start_of(graph: Any) -> str:
    """Name the operation that is run first; empty if there is none."""
    if _AT_START not in graph.signature_def:
        return ""
    return next((str(output.name) for output in graph.signature_def[_AT_START].outputs.values()), "")


def _harmless(operation: str) -> bool:
    """Tell whether an operation only computes, or belongs to every model."""
    known = op_def_registry.get(operation)
    return known is not None and operation not in FILES and (operation in STATEFUL or not known.is_stateful)
