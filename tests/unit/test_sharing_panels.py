"""The panels of lesson 09: what they measure is what the files are, and the tree is the code's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compresskit as ck
from compresskit.entropy import canonical_codes, gap_encode, huffman_lengths, unpack
from compresskit.widgets import huffman, sharing


@pytest.fixture(scope="module")
def digits():
    return ck.load_mnist()


@pytest.fixture(scope="module")
def model():
    return ck.load_model("lenet5")


def test_what_is_measured_is_the_file(model, digits):
    some = digits.validation.take(500)
    measured = sharing.measure(model, sharing.Setting(8, pruned=50), some)
    small = ck.compress(model, ck.Recipe(ck.Prune(0.5, scope="global"), ck.Share(8)))
    assert measured.sizes["packed"] == len(small.pack()) and unpack(small.pack()) == small.tflite
    assert measured.sizes["float"] == small.size and measured.misread == ck.evaluate(small, some).errors
    for name, layer in measured.layers.items():
        values = np.unique(small.weights(name))
        np.testing.assert_array_equal(layer.values, values)
        assert layer.floor <= layer.huffman <= layer.floor + 1 and layer.huffman <= layer.fixed == 3
        assert layer.weights == small.weights(name).size
    assert measured.sizes["packed"] < measured.sizes["huffman"] + 3000 < measured.sizes["fixed"]


@pytest.mark.parametrize("method", sharing.METHODS)
def test_every_method_makes_sense_at_every_number_of_values(method):
    for levels in sharing.LEVELS:
        step = sharing.Setting(levels, method).recipe.shares[0]
        assert step.method == method and (step.levels or 0) >= 2
        if method in ("kmeans", "exact"):
            assert step.levels == levels


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=16))
def test_the_tree_is_that_of_the_code(counts):
    lengths = huffman_lengths(np.array(counts))
    words = tuple(f"{int(w):0{n}b}" for w, n in zip(canonical_codes(lengths), lengths.tolist(), strict=True))
    nodes = {node.word: node for node in huffman.tree(words)}
    assert {node.symbol: word for word, node in nodes.items() if node.symbol is not None} == dict(enumerate(words))
    for word, node in nodes.items():
        if word:
            assert word[:-1] in nodes and node.depth == nodes[word[:-1]].depth + 1
        if node.symbol is None and len(counts) > 1:
            assert nodes[word + "0"].x < node.x < nodes[word + "1"].x, "0 goes left, and no branch leads nowhere"
    assert len({node.x for node in nodes.values() if node.symbol is not None}) == len(counts)


def test_coders_are_set_beside_the_floor(model):
    coded = huffman.code_layer(model, huffman.Setting("dense", 8))
    assert coded.bits("one length") == 3 and coded.weights == 400_000
    assert coded.floor <= coded.bits("range coder") < coded.floor + 0.002
    assert coded.floor < coded.bits("Huffman") < 3
    assert coded.bits("Huffman") == pytest.approx((coded.lengths * coded.counts).sum() / 400_000, abs=1e-4)
    assert "gaps, Huffman" not in coded.streams
    sparse = huffman.code_layer(model, huffman.Setting("dense", 8, pruned=95))
    assert sparse.bits("Huffman") > 1 > sparse.bits("gaps, Huffman") > sparse.floor * 0.9
    assert (sparse.counts[sparse.values == 0] / sparse.weights) == pytest.approx(0.95, abs=1e-3)
    with pytest.raises(ValueError, match="layer 'nowhere' is not in this model; its layers are conv1"):
        huffman.code_layer(model, huffman.Setting("nowhere"))


def test_gap_coded_bytes_are_those_of_both_streams():
    row = np.zeros(800, np.float32)
    row[::10] = 0.5
    row[5] = -0.5
    coded = gap_encode(row, 4)
    bits = 8 * huffman.gap_coded_bytes(row, 4)
    assert 2 * coded.gaps.size <= bits <= 4 * coded.gaps.size


def slide(control, value) -> None:
    """What the page sends when a control is moved; an index for selections."""
    control._handle_msg({"content": {"data": {"method": "update", "state": {"index": value}}}, "buffers": []})


def test_the_sharing_panel_follows_its_controls(digits):
    panel = sharing.share_weights("small_student", digits)
    try:
        assert panel.wait_idle(120) and "bytes packed; misreads" in panel.status.text
        assert panel.tried[panel.setting][2], "exact"
        first = panel.result.sizes["packed"]
        slide(panel.levels, sharing.LEVELS.index(4))
        assert panel.wait_idle(120)
        assert panel.setting.levels == 4 and panel.result.sizes["packed"] < first
        assert all(len(layer.values) <= 4 for layer in panel.result.layers.values())
        drawn = panel.chart.figure
        assert drawn["data"][-1]["x"] == [panel.result.sizes["packed"]], "the ring is where you stand"
        assert drawn["data"][2]["x"] == panel.result.layers[panel.layer.value].values.tolist()
        slide(panel.layer, 0)
        shown = panel.layer.value
        assert panel.chart.figure["data"][2]["x"] == panel.result.layers[shown].values.tolist()
        assert f"<td>{shown}</td>" in panel.table.value
        slide(panel.method, list(sharing.METHODS).index("binary"))
        slide(panel.pruned, sharing.PRUNED.index(50))
        assert panel.wait_idle(120)
        assert panel.start.disabled and "it has no zero" in panel.status.text and "ck-error" in panel.status.value
        slide(panel.method, list(sharing.METHODS).index("kmeans"))
        assert panel.wait_idle(120) and "ck-error" not in panel.status.value
        assert panel._picture().png().startswith(b"\x89PNG") and "misreads" in panel._picture().title
        assert repr(panel) == "Shared weights of small_student: 50 % pruned, 4 values, k-means"
    finally:
        panel.close()


def test_the_tree_panel_follows_its_controls(model):
    panel = huffman.huffman_tree(model)
    try:
        assert panel.wait_idle(120) and "Huffman: " in panel.status.text
        slide(panel.levels, huffman.LEVELS.index(5))
        slide(panel.pruned, huffman.PRUNED.index(90))
        assert panel.wait_idle(120)
        assert len(panel.result.values) == 5 and 0.0 in panel.result.values
        drawn = panel.chart.figure
        assert len(drawn["data"][1]["x"]) == 5 and set(drawn["data"][2]["y"]) == set(panel.result.streams)
        assert panel._picture().png().startswith(b"\x89PNG")
        assert repr(panel) == "Huffman tree of lenet5: dense, 5 values, 90 % pruned"
    finally:
        panel.close()
