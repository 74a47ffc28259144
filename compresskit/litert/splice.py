"""Put a row of layers where one layer was: what a factorized layer becomes in a `.tflite` file.

Nothing stands between the new layers, no bias and no activation; the last of them takes over those of the old one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.inspect import Site, sites
from compresskit.litert.model import ModelT
from compresskit.litert.surgery import tidy


@dataclass(frozen=True)
class Part:
    """One of the layers that take an old one's place.

    Attributes
    ----------
    suffix : str
        Its name is that of the old layer, an underscore, and this.
    weights : ndarray of float32
        (out, in) for a dense layer, (out, height, width, in) for a convolution.
    down, across : bool
        Whether a convolution moves down and across the picture as the old one did, with its stride, its padding and its
        dilation; where not, it stays on the spot. Of no meaning for a dense layer.
    """

    suffix: str
    weights: NDArray[np.float32]
    down: bool = True
    across: bool = True


def replace_layers(tflite: bytes, parts: Mapping[str, Sequence[Part]]) -> bytes:
    """Put rows of layers where single layers were.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    parts
        Layer name to the layers that take its place, of the same kind, the first one reading the input.

    Returns
    -------
    bytes
        A plain `.tflite` with the same inputs and outputs.

    Raises
    ------
    ValueError
        If there is no such layer, it is neither dense nor a convolution, or the weights do not follow each other.
    """
    model = files.read(tflite)
    found = {site.name: site for site in sites(model)}
    rows = {}
    for name, row in parts.items():
        if name not in found:
            raise ValueError(f"layer {name!r} is not in this model; its layers are {', '.join(found)}")
        rows[found[name].operator] = _operators(model, found[name], row)
    graph = model.subgraphs[0]
    graph.operators = [new for index, old in enumerate(graph.operators) for new in rows.get(index, [old])]
    tidy(model)
    return files.write(model)


def _operators(model: ModelT, site: Site, row: Sequence[Part]) -> list[Any]:
    """Make the operators of a row, and their tensors."""
    graph = model.subgraphs[0]
    old = graph.operators[site.operator]
    if site.op not in ("FULLY_CONNECTED", "CONV_2D"):
        raise ValueError(f"layer {site.name!r} is a {site.op}; only dense layers and convolutions can be cut in parts")
    _check_row(site, row, files.shape(graph.tensors[site.weights]))
    made, flowing = [], int(old.inputs[0])
    for part in row:
        last = part is row[-1]
        op = copy.copy(old)
        op.builtinOptions = copy.copy(old.builtinOptions)
        weights = _constant(model, site, part, _kernel(site), part.weights)
        if last and len(old.inputs) > 2:
            bias = int(old.inputs[2])
        else:  # a convolution wants a bias, if only of zeros; a dense layer does without
            zeros = np.zeros(len(part.weights), np.float32)
            bias = _constant(model, site, part, "bias", zeros) if site.op == "CONV_2D" else -1
        op.inputs = np.array([flowing, weights, bias], np.int32)
        if not last:
            op.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
            flowing = _between(graph, site, part, flowing, int(old.outputs[0]))
            op.outputs = np.array([flowing], np.int32)
        if site.op == "CONV_2D":
            _stay(op.builtinOptions, part)
        made.append(op)
    return made


def _check_row(site: Site, row: Sequence[Part], old: tuple[int, ...]) -> None:
    """Refuse weights that do not follow each other."""
    widths = [old[-1], *(part.weights.shape[0] for part in row)]
    fits = all(
        part.weights.ndim == len(old) and part.weights.shape[-1] == n for part, n in zip(row, widths, strict=False)
    )
    if not row or not fits or widths[-1] != old[0]:
        shapes = ", ".join(str(part.weights.shape) for part in row)
        raise ValueError(f"layer {site.name!r} of shape {old} cannot become layers of shapes {shapes or 'none'}")


def _kernel(site: Site) -> str:
    """Give the name that the converter has for weights, so that the layer's name is found in the tensor's."""
    return "MatMul" if site.op == "FULLY_CONNECTED" else "Conv2D"


def _constant(model: ModelT, site: Site, part: Part, kind: str, values: NDArray[np.float32]) -> int:
    """Store weights, or a bias, of a part; give the tensor's index."""
    graph = model.subgraphs[0]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    buffer.offset = buffer.size = 0
    model.buffers.append(buffer)
    tensor = copy.copy(graph.tensors[site.weights])
    tensor.name = f"{site.name}_{part.suffix}/{kind}".encode()
    tensor.buffer = len(model.buffers) - 1
    tensor.shape = np.array(values.shape, np.int32)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _between(graph: Any, site: Site, part: Part, before: int, after: int) -> int:
    """Make the tensor that a part puts out: as high as what it moves down to, as wide as what it moves across to."""
    tensor = copy.copy(graph.tensors[after])
    tensor.name = f"{site.name}_{part.suffix}/output".encode()
    for name in ("shape", "shapeSignature"):
        ends = getattr(graph.tensors[after], name)
        starts = getattr(graph.tensors[before], name)
        if ends is None or not len(ends):
            continue
        dims = np.array(ends)
        if len(dims) == 4 and starts is not None and len(starts) == 4:
            dims[1] = ends[1] if part.down else starts[1]
            dims[2] = ends[2] if part.across else starts[2]
        dims[-1] = part.weights.shape[0]
        setattr(tensor, name, dims)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _stay(options: Any, part: Part) -> None:
    """Let a convolution move only where it is to."""
    if not part.down:
        options.strideH = options.dilationHFactor = 1
    if not part.across:
        options.strideW = options.dilationWFactor = 1
