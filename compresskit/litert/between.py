"""What flows between the layers of a file, as LiteRT's own kernels computed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.inspect import sites

BATCH: Final = 25
"""Examples at a time: every tensor of the network is kept for so many."""


@dataclass(frozen=True, eq=False)
class Flow:
    """What one layer was given and what it gave.

    Attributes
    ----------
    taken, given : ndarray, shape (n, ...)
        The tensors before and behind the layer, in the file's own types.
    """

    taken: NDArray[Any]
    given: NDArray[Any]


def layer_flows(tflite: bytes, x: NDArray[Any]) -> dict[str, Flow]:
    """Run a file with LiteRT's reference kernels, and keep what goes into each layer with weights and comes out.

    Parameters
    ----------
    tflite
        The bytes of the file.
    x : ndarray, shape (n, *input)
        Examples in the type of the file's input.

    Returns
    -------
    dict of str to Flow
        By layer, in the order of computation.

    Raises
    ------
    ValueError
        If there are no examples, or they have another type than the input.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if len(x) == 0:
        raise ValueError("x: there are no examples; give at least one")
    graph = files.read(tflite)
    operators = {site.name: graph.subgraphs[0].operators[site.operator] for site in sites(graph)}
    interpreter = Interpreter(
        model_content=tflite,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    entry = interpreter.get_input_details()[0]
    if entry["dtype"] != x.dtype:
        raise ValueError(
            f"x: it is {x.dtype}, but the file reads {np.dtype(entry['dtype'])}; encode the examples first"
        )
    parts: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {name: [] for name in operators}
    for start in range(0, len(x), BATCH):
        part = x[start : start + BATCH]
        interpreter.resize_tensor_input(entry["index"], part.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], part)
        interpreter.invoke()
        for name, operator in operators.items():
            ends = operator.inputs[0], operator.outputs[0]
            parts[name].append((interpreter.get_tensor(ends[0]), interpreter.get_tensor(ends[1])))
    return {
        name: Flow(np.concatenate([taken for taken, _ in pairs]), np.concatenate([given for _, given in pairs]))
        for name, pairs in parts.items()
    }
