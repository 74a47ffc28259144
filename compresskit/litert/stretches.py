"""Where a `.tflite` file keeps its numbers, for the packed container."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compresskit.container import Stretch
from compresskit.litert.model import DTYPES

_BITS = {
    "float16": 16, "float32": 32, "float64": 64,
    "int2": 2, "int4": 4, "int8": 8, "int16": 16, "int32": 32, "int64": 64,
    "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64,
}  # fmt: skip


def stretches(tflite: bytes) -> tuple[Stretch, ...]:
    """Find the constant tensors of a `.tflite` file.

    Parameters
    ----------
    tflite
        The bytes of the file; its buffers inside the flatbuffer (as `litert.model.write` leaves them) are found, those
        behind it are not.

    Returns
    -------
    tuple of Stretch
        One for each buffer that a tensor of numbers has, in the order of the file. Tensors of two or more axes are
        matrices with a row for each place on their first axis, an output channel.
    """
    data = np.frombuffer(tflite, dtype=np.uint8)
    start = data.__array_interface__["data"][0]
    model = schema.Model.GetRootAs(tflite, 0)
    found: dict[int, Stretch] = {}
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
            bits, buffer = _BITS.get(DTYPES[tensor.Type()]), model.Buffers(tensor.Buffer())
            if bits is None or not buffer.DataLength() or buffer.DataLength() * 8 % bits:
                continue
            offset = buffer.DataAsNumpy().__array_interface__["data"][0] - start
            shape = tensor.ShapeAsNumpy().tolist() if tensor.ShapeLength() else []
            columns = math.prod(shape[1:]) if len(shape) > 1 else 0
            found[offset] = Stretch(offset, buffer.DataLength(), bits, columns)
    return tuple(found[offset] for offset in sorted(found))
