"""Layers of the original beside what low rank made of them, against the steps of the engine themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import compresskit as ck
from compresskit.compression import compress
from compresskit.factorized import factorize
from compresskit.recipe import Factorize, Prune, Recipe
from compresskit.widgets.pieces import as_one, composed, pieces_of


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


@pytest.mark.parametrize("convolutions", ["keep", "tucker2", "spatial"])
def test_each_layer_meets_its_pieces_and_their_product(model, convolutions):
    step = Factorize(budget=0.3, convolutions=convolutions)
    small = compress(model, Recipe(step))
    found = pieces_of(model.layers, small.layers)
    assert [layer for pieces in found for layer in pieces] == list(small.layers), "all of them, each once, in order"
    assert len(found) == len(model.layers)
    cut = factorize(model.tflite, (step,)).pieces
    assert set(cut) == {old.name for old, new in zip(model.layers, found, strict=True) if len(new) > 1}
    for layer in model.layers:
        weights = composed(small, layer.name)
        assert weights.shape == layer.shape
        expected = cut[layer.name].compose() if layer.name in cut else small.weights(layer.name)
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


def test_pieces_add_up_to_one_row(model):
    small = compress(model, Recipe(Factorize(budget=0.3), Prune(0.4, scope="global")))
    whole = pieces_of(model.layers, small.layers)
    rows = [as_one(pieces) for pieces in whole]
    zeros = [sum(np.sum(small.weights(piece.name) == 0) for piece in pieces) for pieces in whole]
    weights = [sum(small.weights(piece.name).size for piece in pieces) for pieces in whole]
    assert [row.sparsity for row in rows] == pytest.approx([z / n for z, n in zip(zeros, weights, strict=True)])
    assert sum(row.parameters for row in rows) == sum(layer.parameters for layer in small.layers)
    assert sum(row.bytes for row in rows) == sum(layer.bytes for layer in small.layers)
    assert sum(row.macs for row in rows) == sum(layer.macs for layer in small.layers)
    assert [row.dtype for row in rows] == ["float32", "float32", "float32", "float32"]

    mixed = [replace(small.layers[0], dtype=dtype) for dtype in ("int4", "int8", "int4")]
    assert as_one(mixed).dtype == "int4/int8"


def test_a_layer_that_is_there_is_not_looked_for_in_others(model):
    layer = model.layers[-1]
    alike = [replace(layer, name=name) for name in ("a", "a_in", "a_out")]
    assert pieces_of(alike, alike) == tuple((each,) for each in alike)


def test_a_layer_that_is_gone_is_named(model):
    with pytest.raises(ValueError, match="'head' is not in the file"):
        pieces_of(model.layers, model.layers[:-1])
    with pytest.raises(ValueError, match="nothing"):
        composed(compress(model, Recipe()), "nothing")
