"""Layer by layer: the panel's numbers are the engine's, a click sets bits, and what cannot be is a sentence."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compresskit as ck
from compresskit.analysis import LayerError, layer_errors, quantization_sensitivity
from compresskit.course.lesson_05 import examine_mixed, uneven
from compresskit.litert.runtime import outputs
from compresskit.widgets.layer_by_layer import Choice, decibels_text, layer_by_layer, measure, shown_decibels

NAMES = ("conv1", "conv2", "dense", "head")


def choice(*bits: int, **settings) -> Choice:
    return Choice(tuple(zip(NAMES, bits, strict=True)), **settings)


@pytest.fixture(scope="module")
def few(digits):
    return dataclasses.replace(
        digits, test=digits.test.take(1200), validation=digits.validation.take(200), train=digits.train.take(100)
    )


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


@given(st.lists(st.sampled_from([2, 4, 8, 32]), min_size=4, max_size=4), st.sampled_from(["minmax", "octav", "mse"]))
def test_the_recipe_gives_each_layer_its_bits(bits, ranges):
    recipe = choice(*bits, ranges=ranges).recipe()
    if set(bits) == {32}:
        assert recipe == ck.Recipe()
        return
    for name, wanted in zip(NAMES, bits, strict=True):
        layer = recipe.quantize.for_layer(name)
        assert layer.weights == wanted
        if wanted < 8:
            assert layer.ranges == ranges


def test_with_bits_changes_one_layer():
    assert choice(8, 8, 8, 8).with_bits("dense", 2) == choice(8, 8, 2, 8)


def test_what_is_measured_is_what_the_engine_gives(model, few):
    wanted = choice(8, 4, 2, 8)
    found = measure(model, wanted, few.test, None, flow=few.test)
    by_hand = ck.compress(
        model,
        ck.Recipe(
            ck.Quantize(
                activations=32,
                layers={"conv2": {"weights": 4, "ranges": "octav"}, "dense": {"weights": 2, "ranges": "octav"}},
            )
        ),
    )
    assert found.compressed.tflite == by_hand.tflite and by_hand.size < 120_000
    assert found.score.errors == ck.evaluate(by_hand, few.test).errors
    assert found.errors == layer_errors(by_hand, few.test)


@pytest.mark.parametrize(
    ("ratio", "shown", "text"),
    [(np.inf, 60.0, "no error"), (-np.inf, -60.0, "-inf dB"), (33.33, 33.33, "33.3 dB"), (-3.0, -3.0, "-3.0 dB")],
)
def test_ratios_without_an_end_can_be_drawn(ratio, shown, text):
    error = LayerError("conv1", ratio, 1.0, 0.0)
    assert shown_decibels(error) == shown and decibels_text(error) == text


def test_the_panel_follows_buttons_and_bars(model, few):
    scan = quantization_sensitivity(model, few.validation, ranges="octav")
    panel = layer_by_layer(model, few, sensitivity=scan)
    assert panel.wait_idle(120)
    assert panel.measured.score.n == 1200 and panel.choice == choice(8, 8, 8, 8)
    before = panel.measured.compressed.size
    bars = panel._chart.figure["data"]
    assert [trace["name"] for trace in bars[:3]] == ["8 bits", "4 bits", "2 bits"]
    assert bars[2]["y"][2] == max(0.5, next(r.errors for r in scan if (r.name, r.bits) == ("dense", 2)))
    panel._chart._on_message(None, {"type": "click", "curve": 2, "point": 2}, [])
    assert panel.choice == choice(8, 8, 2, 8)
    assert panel.wait_idle(120) and panel.measured.compressed.size < before / 2
    assert panel._chart.figure["data"][3]["y"] == [shown_decibels(row) for row in panel.measured.errors]
    assert "int2" in panel._table.value
    panel._chart._on_message(None, {"type": "click", "curve": 3, "point": 1}, [])
    assert panel.choice == choice(8, 8, 2, 8), "the line is no button"
    panel.move_to(choice(32, 32, 32, 32))
    assert panel.wait_idle(120) and panel.measured.compressed.size == model.size
    assert panel._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")
    panel.close()


def test_what_litert_does_not_have_is_said_and_the_panel_goes_on(model, few):
    panel = layer_by_layer(model, few, sensitivity=())
    panel.wait_idle(120)
    panel.move_to(choice(8, 2, 8, 8))
    assert panel.wait_idle(120)
    assert "layer 'conv2'" in panel._status.text and "choose other bits" in panel._status.text
    panel.move_to(choice(8, 4, 8, 8, activations=8))
    assert panel.wait_idle(120) and "bytes" in panel._status.text
    assert "conv2 4" in repr(panel)
    panel.close()


def test_the_panel_scans_by_itself_and_again_for_other_ranges(few):
    panel = layer_by_layer("small_student", few)
    assert panel.wait_idle(240)
    first = panel._scan
    assert len(first) == 3 * len(panel.checkpoint.layers) and "validation digits, ranges: octav" in panel._note.value
    panel._common["ranges"].value = "minmax"
    assert panel.wait_idle(240)
    assert panel._scan != first and "ranges: minmax" in panel._note.value
    panel.close()


def test_controls_have_names(model, few):
    panel = layer_by_layer(model, few.test, sensitivity=())
    names = panel.box.children[1].names
    assert names[".ck-bits-2"] == "Bits of dense" and all(names.values()) and len(names) == 7
    panel.close()


@pytest.mark.parametrize("factor", [1.0, 64.0, 0.125])
def test_an_uneven_model_computes_the_same(digits, factor):
    student = ck.load_model("small_student")
    twisted = uneven(student, factor)
    images = digits.test.images[:300]
    assert np.array_equal(outputs(student.tflite, images), outputs(twisted.tflite, images))
    assert (twisted.tflite == student.tflite) == (factor == 1)


def test_an_uneven_model_collapses_per_tensor_alone(digits):
    twisted = uneven(ck.load_model("small_student"))
    some = digits.test.take(1000)
    errors = {
        granularity: ck.evaluate(
            ck.compress(twisted, ck.Recipe(ck.Quantize(granularity=granularity)), digits.train), some
        ).errors
        for granularity in ("channel", "tensor")
    }
    assert errors["channel"] < 40 and errors["tensor"] > 300


@pytest.mark.parametrize("factor", [0.0, -2.0, 3.0, float("nan"), float("inf")])
def test_factors_that_are_not_exact_are_refused(factor):
    with pytest.raises(ValueError, match="give a power of two"):
        uneven(ck.load_model("small_student"), factor)


def test_a_model_without_depthwise_layers_is_refused(model):
    with pytest.raises(ValueError, match="no depthwise layer"):
        uneven(model)


def test_the_check_of_the_mixed_recipe_says_what_came(digits):
    right, lines = examine_mixed(
        {"conv2": {"weights": 4, "ranges": "octav"}, "dense": {"weights": 2, "ranges": "octav"}}
    )
    assert right and "117,752 bytes" in lines[0]
    right, lines = examine_mixed({"conv2": {"weights": 4}, "dense": {"weights": 2}, "head": {"weights": 2}})
    assert not right and "The size is right; at least 98.8%" in lines[0]
