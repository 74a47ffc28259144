"""Read, edit and write `.tflite` files as plain flatbuffers.

A `.tflite` file is a table of operators, a table of tensors and a list of buffers
(`tensorflow/compiler/mlir/lite/schema/schema.fbs`). Newer tools may store a large buffer behind the flatbuffer and
keep only its offset and size; the microcontroller runtime reads garbage from such a file. What is written here
always has its buffers inside.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

ModelT = Any
"""The object form of a model, `schema_py_generated.ModelT`: plain Python objects, arrays as views."""

_OUTPUTS, _SIGNATURES = 8, 18
"""Where the layout of a graph names the place of its outputs, and that of a model the place of its signatures."""

MARK = b"TFL3"
"""What stands at byte 4 of every `.tflite` file."""

DTYPES: dict[int, str] = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")
}
"""Tensor type codes of the schema to names such as `"int8"`."""

OPERATORS: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}
"""Operator codes of the schema to names such as `"CONV_2D"`."""


def read(tflite: bytes) -> ModelT:
    """Unpack a `.tflite` file into objects whose buffers are all held inside.

    Parameters
    ----------
    tflite
        The bytes of the file.

    Returns
    -------
    ModelT
        The unpacked model. Its buffers are read-only views on `tflite`; replace them, do not write into them.

    Raises
    ------
    ValueError
        If the bytes are not a `.tflite` flatbuffer.
    """
    check_mark(tflite)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))
    data = np.frombuffer(tflite, np.uint8)
    for buffer in model.buffers:
        if buffer.size:  # stored behind the flatbuffer
            buffer.data = data[buffer.offset : buffer.offset + buffer.size]
        buffer.offset = buffer.size = 0
    return model


def check_mark(tflite: bytes) -> None:
    """Refuse bytes that are no `.tflite` flatbuffer.

    Raises
    ------
    ValueError
        If the mark of such a file is not at byte 4.
    """
    if len(tflite) < 8 or tflite[4:8] != MARK:
        raise ValueError(
            f"tflite: the bytes (length {len(tflite)}) do not carry the mark 'TFL3' of a .tflite file at byte 4; "
            "give the contents of a .tflite file"
        )


def write(model: ModelT) -> bytes:
    """Pack a model into a plain flatbuffer.

    Parameters
    ----------
    model
        An unpacked model, as `read` gives it.

    Returns
    -------
    bytes
        The `.tflite` file.
    """
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(size + 64 * 1024)
    builder.Finish(model.Pack(builder), file_identifier=MARK)
    return bytes(builder.Output())


def deflated_size(tflite: bytes) -> int:
    """Measure a file in an archive: its length after DEFLATE, as zip and gzip apply it unless told otherwise (level 6).

    Level 9 would find one percent less in seven times the time.

    Parameters
    ----------
    tflite
        The bytes of the file.

    Returns
    -------
    int
        Bytes.
    """
    return len(zlib.compress(tflite, 6))


def twin(model: ModelT) -> ModelT:
    """Copy an unpacked model, or a part of one, so that the copy can be edited; bytes and arrays are shared."""
    if isinstance(model, list):
        return [twin(each) for each in model]
    if not hasattr(model, "__dict__"):
        return model
    made = object.__new__(type(model))
    made.__dict__.update({name: twin(value) for name, value in vars(model).items()})
    return made


def replace_buffers(model: ModelT, arrays: Mapping[int, NDArray[Any]]) -> None:
    """Give constant tensors of an unpacked model other data.

    Parameters
    ----------
    model
        The unpacked model; its buffers are exchanged, not written into.
    arrays
        Tensor index in the main graph to the new numbers, of the stored type and size.

    Raises
    ------
    ValueError
        If an array has another number of bytes than the tensor it is to replace.
    """
    for index, array in arrays.items():
        buffer = model.buffers[model.subgraphs[0].tensors[index].buffer]
        new = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        _same_size(index, 0 if buffer.data is None else len(buffer.data), new.size)
        buffer.data = new


def _same_size(index: int, held: int, given: int) -> None:
    """Refuse numbers that do not take the place of those in the file."""
    if held != given:
        raise ValueError(f"tensor {index} holds {held} bytes but {given} were given; keep its type and shape")


def operator_name(model: ModelT, op: Any) -> str:
    """Name the kind of an operator, such as `"FULLY_CONNECTED"`.

    The schema keeps codes above 126 in a second field; the larger of the two counts.
    """
    code = model.operatorCodes[op.opcodeIndex]
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def tensor_name(tensor: Any) -> str:
    """Give the name of a tensor as text."""
    name = tensor.name
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def shape(tensor: Any) -> tuple[int, ...]:
    """Give the shape of a tensor as the file states it (the batch dimension is usually 1)."""
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()


def is_constant(model: ModelT, index: int) -> bool:
    """Tell whether the tensor at `index` of the main graph holds data in the file."""
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def stored(model: ModelT, tensor: Any) -> NDArray[Any]:
    """Decode the numbers of a constant tensor as they are stored: integers stay integers.

    Parameters
    ----------
    model
        The unpacked model.
    tensor
        One of its tensors.

    Returns
    -------
    ndarray
        The numbers in the tensor's shape; int4 and int2 are unpacked to int8, low bits first.

    Raises
    ------
    ValueError
        If the tensor's type is not one that weights have.
    """
    data = np.frombuffer(memoryview(model.buffers[tensor.buffer].data), np.uint8)
    kind = DTYPES[tensor.type]
    dims = shape(tensor)
    if kind in ("int4", "int2"):
        return unpack_bits(data, 4 if kind == "int4" else 2, int(np.prod(dims))).reshape(dims)
    if kind not in ("float32", "float16", "int8", "uint8", "int16", "int32", "int64"):
        raise ValueError(f"tensor {tensor_name(tensor)!r} has the type {kind}, which no weight of a layer has")
    return data.view(np.dtype(kind)).reshape(dims)


def unpack_bits(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int8]:
    """Unpack signed integers of 2 or 4 bits, stored low bits first.

    Parameters
    ----------
    data
        The packed bytes.
    bits
        2 or 4.
    count
        How many integers there are; the last byte may be partly filled.

    Returns
    -------
    ndarray of int8, shape (count,)
        The integers, sign extended.
    """
    per_byte = 8 // bits
    wide = np.empty((len(data), per_byte), np.int8)
    for position in range(per_byte):
        # Push the field to the top of the byte, then shift back arithmetically: this extends the sign.
        wide[:, position] = (data << np.uint8(8 - bits * (position + 1))).view(np.int8) >> np.int8(8 - bits)
    return wide.ravel()[:count]


def dequantized(model: ModelT, tensor: Any) -> NDArray[np.float32]:
    """Decode a constant tensor to the real numbers it stands for.

    `r = S (q - Z)` with the tensor's own scales `S` and zero points `Z`, per tensor, per channel along its quantized
    dimension, or per block (Jacob et al. 2018, equation 1; LiteRT 8-bit quantization specification).

    Returns
    -------
    ndarray of float32
        Real values in the tensor's shape. A float tensor is returned as float32, unchanged in value.
    """
    values = stored(model, tensor)
    parameters = tensor.quantization
    if parameters is None or values.dtype.kind == "f":
        return values.astype(np.float32)
    blocks = block_scales(model, tensor)
    if blocks is not None:
        return np.asarray(values * blocks, np.float32)
    if parameters.scale is None or len(parameters.scale) == 0:
        return values.astype(np.float32)
    scale = np.asarray(parameters.scale, np.float32)
    zero_point = np.asarray(parameters.zeroPoint if parameters.zeroPoint is not None else [0], np.int64)
    if len(scale) > 1:
        along = [1] * values.ndim
        along[parameters.quantizedDimension] = len(scale)
        scale = scale.reshape(along)
        zero_point = zero_point.reshape(along if len(zero_point) > 1 else [1] * values.ndim)
    if not zero_point.any():
        return values * scale
    return ((values.astype(np.int64) - zero_point) * scale).astype(np.float32)


def block_scales(model: ModelT, tensor: Any) -> NDArray[np.float32] | None:
    """Spread the scales of a matrix whose rows are cut into blocks to a scale for each weight; None if it is not.

    The scales are a float16 tensor of the file, one for each block.
    """
    parameters = tensor.quantization
    if parameters is None or parameters.detailsType != schema.QuantizationDetails.BlockwiseQuantization:
        return None
    details = parameters.details
    rows = shape(tensor)[0]
    scales = stored(model, model.subgraphs[0].tensors[details.scales]).astype(np.float32).reshape(rows, -1)
    return np.repeat(scales, details.blockSize, axis=1)


def replace_constants(tflite: bytes, arrays: Mapping[int, NDArray[Any]]) -> bytes:
    """Overwrite the data of constant tensors, size for size, without unpacking the file.

    Parameters
    ----------
    tflite
        A plain flatbuffer, as `write` gives it.
    arrays
        Tensor index in the main graph to the new numbers, of the stored type and size.

    Returns
    -------
    bytes
        The new file, of the same length.

    Raises
    ------
    ValueError
        If an array has another number of bytes than the tensor it is to replace.
    """
    edited = bytearray(tflite)
    packed = schema.Model.GetRootAs(edited, 0)
    graph = packed.Subgraphs(0)
    for index, array in arrays.items():
        tensor = graph.Tensors(index)
        target = packed.Buffers(tensor.Buffer()).DataAsNumpy()
        new = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        _same_size(index, 0 if isinstance(target, int) else target.size, new.size)
        target[:] = new
    return bytes(edited)


def expose(tflite: bytes, tensors: Sequence[int]) -> bytes:
    """Give a file other graph outputs without unpacking it: the tensors named, in their order.

    The new list of outputs is put behind the file, and the graph made to point there. Signatures are emptied, since
    theirs would no longer hold.

    Parameters
    ----------
    tflite
        A plain flatbuffer, as `write` gives it.
    tensors
        Indices in the main graph.

    Returns
    -------
    bytes
    """
    edited = bytearray(tflite) + bytes(-len(tflite) % 4)
    packed = schema.Model.GetRootAs(edited, 0)
    graph = packed.Subgraphs(0)._tab
    place = graph.Pos + graph.Offset(_OUTPUTS)
    struct.pack_into("<I", edited, place, len(edited) - place)
    signatures = packed._tab.Offset(_SIGNATURES)
    if signatures:
        struct.pack_into("<I", edited, packed._tab.Vector(signatures) - 4, 0)
    return bytes(edited) + struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors)
