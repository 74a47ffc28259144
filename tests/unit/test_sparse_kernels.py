"""The network of lesson 08 that is made for sparse kernels: it reads digits, has the form, and is timed by zeros."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit.course.sparse_kernels import sparse_reader, times_by_zeros, with_zeros
from compresskit.litert import model as files
from compresskit.litert.runtime import outputs
from compresskit.litert.sparse import without_zeros


def test_it_reads_digits_with_a_tenth_of_its_weights():
    reader = sparse_reader()
    digits = ck.load_mnist().test.take(2000)
    assert ck.evaluate(reader, digits).accuracy > 0.98
    pointwise = [layer for layer in reader.layers if layer.shape[1:3] == (1, 1)]
    assert len(pointwise) == 3 and all(layer.sparsity == pytest.approx(0.9, abs=1e-3) for layer in pointwise)
    small = without_zeros(reader.tflite)
    assert len(small) < 0.3 * reader.size
    assert np.array_equal(outputs(small, digits.images[:50]), outputs(reader.tflite, digits.images[:50]))


def test_it_has_the_form_that_xnnpack_asks_for():
    """Three channels, a border on all sides, a 3x3 convolution of stride 2, depthwise and 1x1, then a mean."""
    graph = files.read(sparse_reader().tflite)
    kinds = [files.operator_name(graph, op) for op in graph.subgraphs[0].operators]
    assert kinds[:3] == ["CONCATENATION", "PAD", "CONV_2D"] and kinds[-2:] == ["MEAN", "FULLY_CONNECTED"]
    assert kinds[3:-2] == ["DEPTHWISE_CONV_2D", "CONV_2D"] * 3
    first = graph.subgraphs[0].operators[2].builtinOptions
    assert (first.strideH, first.strideW, first.padding) == (2, 2, 1), "VALID: the border is the PAD's"
    paddings = files.stored(graph, graph.subgraphs[0].tensors[graph.subgraphs[0].operators[1].inputs[1]])
    assert paddings.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize("part", [0.0, 0.5, 0.95])
def test_so_many_zeros_as_asked_for(part):
    filled = ck.Checkpoint("filled", with_zeros(sparse_reader(), part))
    for layer in filled.layers:
        if layer.shape[1:3] == (1, 1):
            assert layer.sparsity == pytest.approx(part, abs=1e-4), layer.name
    with pytest.raises(ValueError, match=r"layer 'block1_pointwise': sparsity is 1\.0"):
        with_zeros(sparse_reader(), 1.0)


def test_times_are_by_part():
    found = times_by_zeros(sparse_reader(), (0.5, 0.9), runs=10)
    assert list(found) == [0.5, 0.9]
    for dense, sparse in found.values():
        assert dense.runs == sparse.runs == 10 and min(dense.low, sparse.low) > 0
