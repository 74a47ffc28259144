"""Sizes of a file: real lengths are those of bytes that can be read back, estimates are Shannon's."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import compresskit as ck
from compresskit.entropy import pack, unpack
from compresskit.litert.sizes import entropy_bytes, estimated_size, file_sizes
from compresskit.litert.stretches import stretches


@pytest.mark.parametrize("sparsity", [0.0, 0.7])
def test_real_sizes_are_lengths_of_bytes_that_can_be_read_back(sparsity):
    small = ck.compress(ck.load_model("small_student"), ck.Recipe(ck.Prune(sparsity)))
    found = file_sizes(small.tflite)
    assert found.tflite == small.size and found.deflated == small.deflated_size
    assert zlib.decompress(zlib.compress(small.tflite, 9)) == small.tflite
    packed = pack(small.tflite, stretches(small.tflite))
    assert found.packed == len(packed) and unpack(packed) == small.tflite
    assert found.entropy == estimated_size(small.tflite)


def test_pruning_leaves_the_file_as_long_and_shortens_the_rest():
    model = ck.load_model("lenet_300_100")
    whole, pruned = (file_sizes(ck.compress(model, ck.Recipe(ck.Prune(s))).tflite) for s in (0.0, 0.9))
    assert pruned.tflite == whole.tflite
    for kind in ("deflated", "entropy", "packed"):
        assert getattr(pruned, kind) < 0.25 * getattr(whole, kind), kind


def test_the_estimate_is_near_what_packing_reaches():
    """Of numbers; the container also has tables, and deflates what is not numbers."""
    small = ck.compress(ck.load_model("lenet_300_100"), ck.Recipe(ck.Prune(0.8), ck.Quantize(activations=32)))
    for file in (small.tflite, small.checkpoint.tflite):
        found = file_sizes(file)
        assert found.entropy == pytest.approx(found.packed, rel=0.06)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60))
def test_bytes_take_their_entropy(values):
    row = np.array(values, np.int8)
    expected = row.size * stats.entropy(np.unique(row, return_counts=True)[1], base=2) / 8
    assert entropy_bytes(row) == pytest.approx(expected, abs=1e-9)


def test_floats_take_flags_and_the_bytes_of_what_is_left():
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, 50_000).astype(np.float32) * (rng.random(50_000) < 0.1)
    kept = np.count_nonzero(weights)
    flags = 50_000 * stats.entropy([0.1, 0.9], base=2) / 8
    assert flags + 3 * kept < entropy_bytes(weights) < flags + 4 * kept, "a float's exponent is not any byte"
    assert entropy_bytes(np.zeros(100, np.float32)) == 0.0


def test_four_weights_to_a_byte_are_taken_apart():
    small = ck.compress(
        ck.load_model("lenet_300_100"),
        ck.Recipe(ck.Prune(0.9), ck.Quantize(weights=4, activations=32, ranges="octav")),
    )
    whole = file_sizes(small.tflite)
    assert whole.entropy < 0.6 * whole.tflite and whole.entropy == pytest.approx(whole.packed, rel=0.15)


def test_there_is_one_kind_of_zero_in_a_pruned_file():
    """A negative weight times 0 is -0.0: read as bytes, another number, and a bit for each zero to tell them apart."""
    small = ck.compress(ck.load_model("lenet_300_100"), ck.Recipe(ck.Prune(0.9)))
    for layer in small.layers:
        weights = small.weights(layer.name)
        assert not np.signbit(weights[weights == 0]).any(), layer.name
