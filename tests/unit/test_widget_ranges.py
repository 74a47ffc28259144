"""The panel of ranges: what it measures is right, and what it draws is what it measures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import compresskit as ck
from compresskit.litert.calibration import activation_ranges, tensor_values
from compresskit.quantization.affine import affine_grid, fake_quantize
from compresskit.quantization.histogram import Histogram
from compresskit.widgets.ranges import (
    BARS,
    FACTORS,
    HAND,
    METHODS,
    Setting,
    bars,
    calibration_sets,
    choose_ranges,
    chosen,
    judge,
    look,
    score,
)


@pytest.fixture(scope="module")
def digits():
    return ck.load_mnist()


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


@pytest.mark.parametrize("bound", [0.5, 2.0, 5.0, 40.0])
def test_a_range_is_judged_as_by_quantizing_every_value(bound):
    x = np.abs(np.random.default_rng(0).normal(0, 1.2, 200_000)).astype(np.float32)
    judged = judge(Histogram.of(x), 0.0, bound)
    error = fake_quantize(x, affine_grid(0.0, bound)).astype(float) - x
    assert judged.rms == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.02)
    assert judged.clipped == pytest.approx((x > bound).mean(), abs=2e-3), "right to a bin"
    assert (judged.clipping > judged.rounding) == (bound < 4)


def test_clipping_falls_and_rounding_rises_with_the_range(model, digits):
    seen = look(model.tflite, "conv2", digits.train.images[:20])
    clipping = [each.clipping for each in seen.sweep]
    assert all(one >= other for one, other in itertools.pairwise(clipping))
    assert clipping[FACTORS.index(1.0)] == 0 == seen.sweep[-1].clipped
    assert seen.sweep[-1].rounding > 100 * seen.sweep[20].rounding
    best = min(each.rms for each in seen.sweep)
    assert seen.choices["mse"].rms <= 1.01 * best <= 1.01 * seen.choices["minmax"].rms
    assert {name: seen.choices[name].high <= seen.histogram.high for name in METHODS} == dict.fromkeys(METHODS, True)


def test_what_is_seen_is_what_flows(model, digits):
    images = digits.train.images[:10]
    values = tensor_values(model.tflite, images)["digit_reader/head/output"]
    histogram = look(model.tflite, "head", images).histogram
    assert (histogram.low, histogram.high) == (pytest.approx(float(values.min())), pytest.approx(float(values.max())))
    assert histogram.count == 100
    x, counts = bars(histogram)
    assert counts.sum() == 100 and len(x) <= BARS + 1
    ends = np.flatnonzero(counts)[[0, -1]]
    half = (x[1] - x[0]) / 2
    assert np.abs(x[ends] - [values.min(), values.max()]).max() <= half * 1.0001


def test_the_hand_and_the_calibrators(model, digits):
    seen = look(model.tflite, "conv1", digits.train.images[:10])
    assert chosen(seen, Setting("conv1", factor=0.5)).high == pytest.approx(seen.histogram.high / 2)
    assert chosen(seen, Setting("conv1", method="entropy")) == seen.choices["entropy"]


def test_calibration_sets_are_what_they_say(digits):
    sets = calibration_sets(digits.train)
    assert [len(images) for images in sets.values()] == [1, 10, 100, 1000, 100, 100]
    assert np.array_equal(sets["100 sevens"], digits.train.only(7).images[:100])
    broken = sets["100, one broken pixel"]
    assert (broken > 1).sum() == 1 and np.allclose(broken[1:], sets["100"][1:] / np.float32(255))


def test_a_narrow_range_misreads_digits(model, digits):
    ranges = activation_ranges(model.tflite, digits.train.images[:50])
    some = digits.validation.take(500)
    seen = look(model.tflite, "head", digits.train.images[:50])
    plain, narrow = (score(model, "head", chosen(seen, Setting("head", factor=f)), ranges, some) for f in (1.0, 1 / 32))
    recipe = ck.Recipe(ck.Quantize(calibration_digits=50))
    assert plain == ck.evaluate(ck.compress(model, recipe, digits.train), some).errors
    assert narrow > 50 > plain


def test_no_layer_and_no_range_are_sentences(model, digits):
    with pytest.raises(ValueError, match="'conv9' is not in this model; its layers are conv1"):
        look(model.tflite, "conv9", digits.train.images[:1])
    with pytest.raises(ValueError, match="there are no digits"):
        look(model.tflite, "conv1", digits.train.images[:0])


def slide(control, value) -> None:
    """What the page sends when a control is moved; an index for selections."""
    control._handle_msg({"content": {"data": {"method": "update", "state": {"index": value}}}, "buffers": []})


@pytest.fixture
def panel(digits):
    made = choose_ranges("small_student", digits)
    assert made.wait_idle(120)
    yield made
    made.close()


def test_the_panel_follows_its_controls(panel):
    assert panel.result.judged.clipped == 0 and "of 5,000 digits" in panel.status.text
    slide(panel.reach, FACTORS.index(0.5))
    assert panel.wait_idle(120)
    assert (
        panel.result.judged.clipped > 0 and len(panel.tried["conv", "100"]) == 2 and "by rounding" in panel.table.value
    )
    drawn = panel.chart.figure
    assert drawn["data"][6]["x"] == [panel.result.judged.width] and len(drawn["data"][7]["x"]) == 2
    assert [shape["type"] for shape in drawn["layout"]["shapes"]].count("rect") == 2, "below and above"
    slide(panel.method, 1 + METHODS.index("entropy"))
    assert panel.wait_idle(120)
    assert panel.setting.method == "entropy" and panel.result.judged == panel.result.seen.choices["entropy"]
    nearest = math.log(panel.reach.value * panel.result.seen.choices["minmax"].width / panel.result.judged.width)
    assert abs(nearest) <= math.log(2) / 8 + 1e-9, "the slider stands where the calibrator's range ends"
    slide(panel.reach, 0)
    assert panel.wait_idle(120)
    assert panel.setting == Setting("conv", "100", HAND, FACTORS[0]) and panel.result.misread > 1000
    slide(panel.layer, 9)
    assert panel.wait_idle(120)
    assert panel.setting.layer == "head" and panel.result.judged.low < 0


def test_a_still_picture_and_names(panel):
    assert panel._picture().png().startswith(b"\x89PNG")
    assert repr(panel) == "Ranges of small_student: conv, calibrated on 100", "the same, however far it has come"
    assert "misreads" in panel._picture().title and set(panel.box.children[1].names) == {
        ".ck-layer", ".ck-digits-chosen", ".ck-method", ".ck-reach",
    }  # fmt: skip
