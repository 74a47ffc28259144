"""Write a `.tflite` file with nothing in it that running does not need.

In a file of a few thousand weights, most bytes are not weights: names of tensors, a description, signatures, and for
each channel a zero point of eight bytes that is 0. Here the names and notes are left out, and whatever a file holds
several times (vectors of zeros, shapes, the settings of operators) is written once and pointed to from each place: a
flatbuffer is a table of offsets, and two offsets may lead to the same bytes.

What is computed does not change, bit for bit. What gets lost is what people and tools read: layers are then called by
their kind and number, and there is no signature. So it is the last step, on the way to the device.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files


def slim(tflite: bytes) -> bytes:
    """Leave out of a file what running does not need, and write once what it holds several times.

    Parameters
    ----------
    tflite
        A `.tflite` file of any number types.

    Returns
    -------
    bytes
        A plain flatbuffer that computes the same, never longer than the file given. Slimming it again changes nothing.

    Raises
    ------
    ValueError
        If the bytes are not a `.tflite` flatbuffer.
    """
    model = files.read(tflite)
    model.description = None
    model.metadata = model.metadataBuffer = None
    model.signatureDefs = None
    _renumber_operator_codes(model)
    _renumber_buffers(model)
    shared: dict[Any, _Once] = {}
    for graph in model.subgraphs:
        graph.name = None
        for tensor in graph.tensors:
            tensor.name = None
            _slim_tensor(tensor)
            tensor.quantization = _once(tensor.quantization, shared)
        for operator in graph.operators:
            operator.builtinOptions = _once(operator.builtinOptions, shared)
    model.buffers = [_once(buffer, shared) for buffer in model.buffers]
    builder = _SharingBuilder(len(tflite) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=files.MARK)
    slimmed = bytes(builder.Output())
    return slimmed if len(slimmed) < len(tflite) else tflite


def _slim_tensor(tensor: Any) -> None:
    """Drop the extremes seen while calibrating: the scale says what they led to."""
    quantization = tensor.quantization
    if quantization is None:
        return
    quantization.min = quantization.max = None
    if (quantization.scale is None or len(quantization.scale) == 0) and quantization.details is None:
        tensor.quantization = None


def _renumber_operator_codes(model: Any) -> None:
    """Keep the operator codes that are used, each once."""
    places: dict[tuple[Any, ...], int] = {}
    kept: list[Any] = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            key = (code.builtinCode, code.deprecatedBuiltinCode, code.customCode, code.version)
            if key not in places:
                places[key] = len(kept)
                kept.append(code)
            operator.opcodeIndex = places[key]
    model.operatorCodes = kept


def _renumber_buffers(model: Any) -> None:
    """Keep the buffers that tensors use, each content once; buffer 0 is the empty one, by the format's rule."""
    empty = model.buffers[0]
    empty.data = None
    kept, places = [empty], {b"": 0}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            content = b"" if data is None else np.asarray(data, np.uint8).tobytes()
            if content not in places:
                places[content] = len(kept)
                kept.append(model.buffers[tensor.buffer])
            tensor.buffer = places[content]
    model.buffers = kept


class _Once:
    """A table that is packed the first time it is asked for, and pointed to from then on."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._offset: int | None = None

    def Pack(self, builder: Any) -> int:
        """Give the place of the table in the builder."""
        if self._offset is None:
            self._offset = int(self._table.Pack(builder))
        return self._offset


def _once(table: Any, shared: dict[Any, _Once]) -> _Once | None:
    """Give the one stand-in for all tables with this content."""
    if table is None:
        return None
    return shared.setdefault(_content(table), _Once(table))


def _content(value: Any) -> Any:
    """Turn a table, with everything below it, into something that can be compared."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, (list, tuple)):
        return tuple(map(_content, value))
    if hasattr(value, "__dict__"):
        return (type(value).__name__, *((name, _content(held)) for name, held in sorted(vars(value).items())))
    return value


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """A flatbuffer builder that writes equal vectors, and equal strings, once."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:
        """Write a vector, or point to the equal one written before."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._vectors:
            self._vectors[key] = int(super().CreateNumpyVector(x))
        return self._vectors[key]

    def CreateString(self, s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Write a string, or point to the equal one written before."""
        return int(self.CreateSharedString(s, encoding, errors))
