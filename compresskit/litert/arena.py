"""How much working memory a file needs while it runs: what flows and is alive at the same time.

A runtime for small devices keeps all intermediate results in one block of memory, the *arena*, and gives a place in it
anew as soon as nobody reads what lies there. So the arena is at least as large as the largest sum of results that are
alive at once, each in a place of its own. That sum is a property of the file and is computed here. What a runtime
takes differs a little: places begin at multiples of 16 or 64 bytes and leave gaps, some kernels want scratch space, and
LiteRT, unlike the runtime for microcontrollers, lets an addition write over one of its terms.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from compresskit.litert import model as files

_BITS = {"int4": 4, "int2": 2, "bfloat16": 16}  # of the types that NumPy does not know


@dataclass(frozen=True)
class Peak:
    """Where a file needs the most working memory.

    Attributes
    ----------
    bytes : int
        Sum of the results that are alive at once there, for one example.
    operator : int
        Index of the operator that runs then.
    kind : str
        Its name, such as `"CONV_2D"`.
    """

    bytes: int
    operator: int
    kind: str


@functools.lru_cache(maxsize=64)
def peak_activations(tflite: bytes) -> Peak:
    """Find the largest sum of results that are alive at the same time.

    A result is alive from the operator that writes it to the last that reads it; inputs from the beginning, outputs to
    the end. Weights that the file holds in another type than the kernel takes are unpacked by a DEQUANTIZE before
    the first run and stay, as LiteRT does it: they are alive throughout. Other constants lie in the file.

    Parameters
    ----------
    tflite
        The bytes of the file.

    Returns
    -------
    Peak
        For one example; the first such operator where there are several.

    Raises
    ------
    ValueError
        If the file has no operators.
    """
    model = files.read(tflite)
    graph = model.subgraphs[0]
    operators = graph.operators
    if not operators:
        raise ValueError("tflite: the graph has no operators; give a model that computes something")
    alive = np.zeros(len(operators), np.int64)
    for index, (first, last) in _lifetimes(model).items():
        alive[first : last + 1] += _bytes(graph.tensors[index])
    place = int(alive.argmax())
    return Peak(int(alive[place]), place, files.operator_name(model, operators[place]))


def _lifetimes(model: files.ModelT) -> dict[int, tuple[int, int]]:
    """Give the first and the last operator during which each result is alive."""
    graph = model.subgraphs[0]
    end = len(graph.operators) - 1
    found: dict[int, tuple[int, int]] = {}
    kept = {int(index) for index in graph.outputs}
    for place, op in enumerate(graph.operators):
        flows = [int(index) for index in op.inputs if index >= 0 and not files.is_constant(model, int(index))]
        for index in flows:
            found[index] = (
                found.get(index, (0, 0))[0],
                place,
            )  # what nobody wrote, such as an input, is there at once
        unpacks = not flows and files.operator_name(model, op) == "DEQUANTIZE"
        for index in map(int, op.outputs):
            found[index] = (0 if unpacks else place, place)
            kept |= {index} if unpacks else set()
    return {index: (first, end if index in kept else last) for index, (first, last) in found.items()}


def _bytes(tensor: Any) -> int:
    """Give the size of a result for one example; an unknown dimension counts as one."""
    kind = files.DTYPES[tensor.type]
    count = int(np.prod([max(1, size) for size in files.shape(tensor)], dtype=np.int64))
    bits = _BITS[kind] if kind in _BITS else 8 * np.dtype(kind).itemsize
    return -(-count * bits // 8)
