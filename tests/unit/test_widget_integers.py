"""The panel of integers: its chain is what LiteRT computes, and what it draws is what it measures."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit.litert.between import layer_flows
from compresskit.quantization.narrow import WAYS
from compresskit.widgets.integers import (
    BY_NUMBER,
    LEAST,
    STEPS,
    Bench,
    Setting,
    accumulators,
    chain,
    compare,
    integers,
    pick,
    rows,
    sweep,
    words,
)
from compresskit.widgets.live import AbandonedError

CONVOLUTIONS = ("conv1", "conv2")
FLOAT = ck.load_model("digit_reader")


@pytest.fixture(scope="module")
def bench():
    return Bench.of(FLOAT, ck.load_mnist(), count=40, looked_at=4)


@pytest.mark.parametrize("name", ["conv1", "conv2", "dense", "head"])
def test_a_chain_ends_where_litert_ends_and_stays_near_the_float_model(bench, name):
    rng = np.random.default_rng(0)
    size = bench.flows[name].given[0].size
    for position in rng.integers(0, size, 40).tolist():
        found = chain(bench, Setting(name), 1, position)
        assert found.output == found.litert
        assert found.litert == bench.flows[name].given[1].ravel()[position]
        assert found.m * found.accumulator << max(found.shift, 0) == found.product
        assert abs(found.m / 2**31 * 2.0**found.shift / found.real - 1) < 1e-9
        assert abs(found.rounded - found.real * found.accumulator) <= 0.51
        real = found.output_scale * (found.output - found.zero_point)
        assert abs(real - found.float_model) < 6 * found.output_scale, "int8 is near the float model, if not at it"


def test_the_chain_of_every_way_is_what_the_layer_computes(bench):
    for way in WAYS:
        found = chain(bench, Setting("conv1", 12, way), 0, pick(bench, "conv1", 0, "half"))
        assert (found.first is None) == (way != "twice")
        assert found.output == np.clip(found.rounded + found.zero_point, found.lowest, found.highest)
        assert abs(found.rounded - found.product / 2.0 ** (12 - found.shift)) <= (1 if way == "down" else 0.502)
        assert [row[0] for row in rows(found)][-2:] == ["LiteRT's reference kernel", "the float model, same place"]


def test_the_outputs_to_look_at_are_what_they_are_called(bench):
    sums, real = accumulators(bench, "conv2", 2), bench.layer("conv2").requantize.real
    moved = (sums * real).ravel()
    assert moved[pick(bench, "conv2", 2, "largest")] == moved.max()
    assert moved[pick(bench, "conv2", 2, "typical")] > 0 > moved[pick(bench, "conv2", 2, "negative")]
    half = moved[pick(bench, "conv2", 2, "half")]
    assert abs(half % 1 - 0.5) < 2e-3
    assert chain(bench, Setting("conv2"), 2, pick(bench, "conv2", 2, "negative")).output == -128


def test_the_reference_convolutions_are_met_and_other_multipliers_are_not(bench):
    for name in CONVOLUTIONS:
        assert compare(bench, Setting(name), 40).changed == 0
    down = compare(bench, Setting("conv1", 31, "down"), 40)
    assert down.differences[STEPS.index(1)] == 0 < down.differences[STEPS.index(-1)], "rounding down moves one way"
    assert down.furthest == 1 and down.changed == sum(down.differences)
    crude = compare(bench, Setting("conv2", 2, "even"), 40)
    assert crude.furthest > 2 and crude.logits > 200 and crude.n == 40
    assert crude.outputs == 40 * 14 * 14 * 64
    assert "by up to" in words(Setting("conv2", 2, "even"), crude)[0]


def test_a_preview_counts_fewer_digits_and_an_overtaken_one_ends(bench):
    assert compare(bench, Setting("head", 4, "even"), 7).n == 7
    assert compare(bench, Setting("head"), 10_000).n == 40, "no more than there are"
    with pytest.raises(AbandonedError):
        compare(bench, Setting("head"), 40, stop=lambda: True)


def test_curves_fall_with_the_width_and_end_at_none_for_the_reference(bench):
    curves = sweep(bench, "conv2")
    assert set(curves) == set(WAYS) and all(len(curve) == 31 for curve in curves.values())
    assert curves["twice"][-1] == 0 < curves["even"][-1] < 0.002 < 0.01 < curves["down"][-1]
    for way in ("twice", "even", "away"):
        assert curves[way][3] > curves[way][7] > curves[way][15]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda bench: chain(bench, Setting("conv9"), 0, 0), "'conv9' is not in this model; its layers are conv1"),
        (lambda bench: chain(bench, Setting("head"), 0, 10), "position is 10; head has the outputs 0 to 9"),
        (lambda bench: chain(bench, Setting("head"), 40, 0), "digit is 40; there are the digits 0 to 39"),
        (lambda bench: pick(bench, "head", 0, "best"), "kind is 'best'; choose 'typical'"),
        (lambda bench: layer_flows(FLOAT.tflite, bench.x[:0]), "give at least one"),
        (lambda bench: layer_flows(FLOAT.tflite, bench.x[:1]), "it is int8, but the file reads float32"),
    ],
)  # fmt: skip
def test_a_sentence_for_each_bad_input(bench, act, message):
    with pytest.raises(ValueError, match=message):
        act(bench)


@pytest.fixture
def panel():
    made = integers()
    assert made.wait_idle(120)
    yield made
    made.close()


def slide(control, value) -> None:
    """What the page sends when a slider is dragged."""
    control._handle_msg({"content": {"data": {"method": "update", "state": {"value": value}}}, "buffers": []})


def test_the_panel_follows_its_controls(panel):
    assert panel.result.changed == 0 and "0 of" in panel.status.text
    drawn = panel.chart.figure["data"]
    assert drawn[4]["x"] == [31] and drawn[4]["y"] == [LEAST]
    assert panel.chart.figure["layout"]["annotations"][0]["text"] == "none differs"
    first = panel.steps.value
    slide(panel.width, 4.0)
    assert panel.wait_idle(120)
    drawn = panel.chart.figure["data"]
    assert drawn[4]["x"] == [4] and drawn[4]["y"] == [100 * panel.result.changed / panel.result.outputs]
    assert panel.result.changed > 0 and panel.steps.value != first
    assert panel.chart.figure["layout"]["annotations"] == []
    panel.kind.value = "largest"
    largest = panel.chain
    assert largest.rounded > 0
    slide(panel.position, panel.position.value - 1)
    assert panel.kind.value == BY_NUMBER and panel.chain != largest
    panel.layer.value = "head"
    assert panel.wait_idle(120)
    assert panel.position.max == 9 and len(panel.chain.place) == 1
    assert panel.chart.figure["layout"]["yaxis"]["title"]["text"].startswith("head")
    data, metadata = panel._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and "head, output (" in data["text/plain"]
    assert metadata["image/png"]["alt"] == data["text/plain"]
    names = panel.box.children[1].names
    assert len(names) == 6 and all(names.values())
