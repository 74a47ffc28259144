"""Store weights without their zeros: a float `.tflite` whose pruned layers hold only what is left, and where it stands.

The format of a `.tflite` has a place for this (`SparsityParameters` in the schema): each row of weights as its numbers
that are not zero and their columns, compressed sparse rows. An operator `DENSIFY` in front of the layer fills the zeros
in again, once, when the file is loaded. The file is smaller without being unpacked first; it is also the only sign by
which XNNPACK is told that sparse kernels might be worth trying.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.inspect import Site, sites
from compresskit.litert.model import ModelT


def without_zeros(tflite: bytes, layers: Collection[str] | None = None) -> bytes:
    """Write the weights of some layers as compressed sparse rows.

    Parameters
    ----------
    tflite
        A plain float32 `.tflite`.
    layers
        Names of the layers; None for each convolution and dense layer that gets smaller by it.

    Returns
    -------
    bytes
        A plain `.tflite` that computes the same, to the last bit.

    Raises
    ------
    ValueError
        If a layer is not in the file, or does not hold float32 weights of its own.
    """
    model = copy.deepcopy(files.read(tflite))
    found = {site.name: site for site in sites(model)}
    for name in layers or ():
        if name not in found:
            raise ValueError(f"layer {name!r} is not in this file; its layers are {', '.join(found)}")
    chosen = [found[name] for name in layers] if layers is not None else [
        site for site in found.values() if site.op in ("CONV_2D", "FULLY_CONNECTED") and _gains(model, site)
    ]  # fmt: skip
    if chosen:
        _densify(model, [(site, _float_weights(model, site)) for site in chosen])
    return files.write(model)


def sparse_rows(matrix: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Compress a matrix row by row.

    Parameters
    ----------
    matrix : ndarray, shape (rows, columns)
        Any numbers.

    Returns
    -------
    values : ndarray, shape (n,)
        What is not zero, row after row.
    ends : ndarray of int64, shape (rows + 1,)
        Row i holds ``values[ends[i]:ends[i + 1]]``.
    columns : ndarray of int64, shape (n,)
        The column of each value.

    Notes
    -----
    The format called CSR; `scipy.sparse.csr_array` calls the three data, indptr and indices.
    """
    kept = matrix != 0
    ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return matrix[kept], ends, np.nonzero(kept)[1]


def _gains(model: ModelT, site: Site) -> bool:
    """Tell whether rows without zeros take fewer bytes."""
    tensor = model.subgraphs[0].tensors[site.weights]
    if files.DTYPES[tensor.type] != "float32":
        return False
    weights = files.stored(model, tensor)
    values, ends, columns = sparse_rows(weights.reshape(-1, weights.shape[-1]))
    return values.nbytes + _narrow(ends).nbytes + _narrow(columns).nbytes < weights.nbytes


def _float_weights(model: ModelT, site: Site) -> NDArray[np.float32]:
    """Read a layer's weights, which have to be float32 and read by this layer alone."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[site.weights]
    kind = files.DTYPES[tensor.type]
    if kind != "float32" or site.weights not in [int(index) for index in graph.operators[site.operator].inputs]:
        raise ValueError(f"layer {site.name!r} holds {kind} weights; only float32 weights are stored without zeros")
    return np.asarray(files.stored(model, tensor), np.float32)


def _densify(model: ModelT, layers: list[tuple[Site, NDArray[np.float32]]]) -> None:
    """Put sparse tensors, and operators that fill their zeros in, before everything else."""
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    code.version = 1
    model.operatorCodes = [*model.operatorCodes, code]
    operators = []
    for site, weights in layers:
        dense = graph.tensors[site.weights]
        sparse = copy.copy(dense)
        sparse.name = dense.name + b"/sparse"
        matrix = weights.reshape(-1, weights.shape[-1])
        values, ends, columns = sparse_rows(matrix)
        sparse.sparsity = _rows_format(weights.shape, ends, columns)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        buffer.offset = buffer.size = 0
        _drop(model, dense)
        model.buffers.append(buffer)
        sparse.buffer = len(model.buffers) - 1
        graph.tensors.append(sparse)
        op = schema.OperatorT()
        op.opcodeIndex = len(model.operatorCodes) - 1
        op.inputs = np.array([len(graph.tensors) - 1], np.int32)
        op.outputs = np.array([site.weights], np.int32)
        op.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
        op.builtinOptions = schema.DensifyOptionsT()
        operators.append(op)
    graph.operators = [*operators, *graph.operators]


def _drop(model: ModelT, tensor: Any) -> None:
    """Let a tensor be computed instead of stored; its buffer is emptied if nothing else reads it."""
    held, tensor.buffer = tensor.buffer, 0
    if all(other.buffer != held for other in model.subgraphs[0].tensors):
        model.buffers[held].data = None


def _rows_format(shape: tuple[int, ...], ends: NDArray[np.int64], columns: NDArray[np.int64]) -> Any:
    """Describe the last axis as sparse and those before it as dense, traversed in order."""
    found = schema.SparsityParametersT()
    found.traversalOrder = np.arange(len(shape), dtype=np.int32)
    found.dimMetadata = []
    for size in shape[:-1]:
        axis = schema.DimensionMetadataT()
        axis.format, axis.denseSize = schema.DimensionType.DENSE, size
        found.dimMetadata.append(axis)
    last = schema.DimensionMetadataT()
    last.format = schema.DimensionType.SPARSE_CSR
    last.arraySegmentsType, last.arraySegments = _vector(_narrow(ends))
    last.arrayIndicesType, last.arrayIndices = _vector(_narrow(columns))
    found.dimMetadata.append(last)
    return found


def _narrow(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Store whole numbers, none negative, in the narrowest type that the schema has for them."""
    most = int(numbers.max(initial=0))
    return numbers.astype(np.uint8 if most < 2**8 else np.uint16 if most < 2**16 else np.int32)


def _vector(numbers: NDArray[Any]) -> tuple[int, Any]:
    """Wrap an array as the schema's union of index vectors."""
    name = {"uint8": "Uint8Vector", "uint16": "Uint16Vector", "int32": "Int32Vector"}[numbers.dtype.name]
    vector = getattr(schema, f"{name}T")()
    vector.values = numbers
    return getattr(schema.SparseIndexVector, name), vector
