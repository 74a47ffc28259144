"""Files without zeros compute the same, hold what the format says, and get smaller; some kernels do skip zeros."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

import compresskit as ck
from compresskit.litert import model as files
from compresskit.litert.runtime import outputs
from compresskit.litert.sparse import sparse_rows, without_zeros
from compresskit.litert.turns import latencies
from compresskit.litert.without_avx import latencies_without_avx

NOISE = np.random.default_rng(0).random((5, 28, 28, 1)).astype(np.float32)


def pruned(name: str, sparsity: float) -> bytes:
    return ck.compress(ck.load_model(name), ck.Recipe(ck.Prune(sparsity))).tflite


@pytest.mark.parametrize("name", ["digit_reader", "lenet_300_100", "small_student"])
@pytest.mark.parametrize("reference", [False, True])
def test_a_file_without_zeros_computes_the_same_to_the_last_bit(name, reference):
    dense = pruned(name, 0.9)
    small = without_zeros(dense)
    assert len(small) < 0.7 * len(dense)
    assert np.array_equal(*(outputs(each, NOISE, reference=reference) for each in (dense, small)))


def test_only_what_gets_smaller_is_stored_so():
    whole = ck.load_model("digit_reader").tflite
    assert len(without_zeros(whole)) == len(files.write(files.read(whole))), "no zeros, nothing to gain"
    part = ck.compress(ck.load_model("digit_reader"), ck.Recipe(ck.Prune(0.9, layers=["dense"]))).tflite
    model = files.read(without_zeros(part))
    sparse = [tensor for tensor in model.subgraphs[0].tensors if tensor.sparsity is not None]
    assert [files.tensor_name(tensor).split("/")[1] for tensor in sparse] == ["dense"]
    named = files.read(without_zeros(whole, ["conv1"]))
    assert sum(tensor.sparsity is not None for tensor in named.subgraphs[0].tensors) == 1, "asked for by name"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 400), st.floats(0, 1), st.integers(0, 99))
def test_rows_are_those_of_scipy(rows, columns, density, seed):
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < density)).astype(np.float32)
    theirs = csr_array(matrix)
    values, ends, places = sparse_rows(matrix)
    assert np.array_equal(values, theirs.data)
    assert np.array_equal(ends, theirs.indptr) and np.array_equal(places, theirs.indices)


def test_rows_are_those_of_litert():
    """LiteRT's own converter between the formats agrees about what stands in the file."""
    from ai_edge_litert import format_converter_wrapper_pybind11 as converter

    matrix = np.random.default_rng(1).normal(size=(6, 10)).astype(np.float32)
    matrix[np.abs(matrix) < 0.9] = 0
    matrix[2] = 0
    kinds = [converter.TF_LITE_DIM_DENSE, converter.TF_LITE_DIM_SPARSE_CSR]
    theirs = converter.FormatConverterFp32([6, 10], [0, 1], kinds, [], [])
    theirs.DenseToSparse(matrix.ravel())
    values, ends, places = sparse_rows(matrix)
    assert theirs.GetData() == values.tolist()
    assert theirs.GetDimMetadata()[2:] == [ends.tolist(), places.tolist()]


def test_what_cannot_be_stored_so_is_said():
    with pytest.raises(ValueError, match="layer 'conv9' is not in this file; its layers are conv1"):
        without_zeros(ck.load_model("digit_reader").tflite, ["conv9"])
    recipe = ck.Recipe(ck.Prune(0.9), ck.Quantize(activations=32))
    small = ck.compress(ck.load_model("digit_reader"), recipe).tflite
    with pytest.raises(ValueError, match="layer 'dense' holds int8 weights"):
        without_zeros(small, ["dense"])
    assert len(without_zeros(small)) == len(files.write(files.read(small)))


def test_by_turns_all_files_are_timed():
    two = {"whole": ck.load_model("small_student").tflite, "pruned": pruned("small_student", 0.5)}
    found = latencies(two, NOISE[:1], threads=2, rounds=3, runs=4)
    assert list(found) == ["whole", "pruned"] and {each.runs for each in found.values()} == {12}
    for each in found.values():
        assert 0 < each.low <= each.median <= each.high and each.threads == 2
    assert latencies(two, NOISE[:1], rounds=3, stop=lambda: True) == {}
    with pytest.raises(ValueError, match="rounds is 0"):
        latencies(two, NOISE[:1], rounds=0)


def test_avx_is_hidden_or_it_is_said_why_not():
    file = {"a name / with signs": pruned("small_student", 0.5)}
    try:
        found = latencies_without_avx(file, runs=10)
    except ValueError as error:
        assert "AVX" in str(error)
    else:
        assert list(found) == list(file) and found["a name / with signs"].runs == 10
    with pytest.raises(ValueError, match="hidden is 'sse'"):
        latencies_without_avx(file, hidden="sse")


def test_another_processor_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(ValueError, match=r"Linux and x86-64 only; this is .* on arm64"):
        latencies_without_avx({"a": b""})
