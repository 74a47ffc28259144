"""The number line: what it measures is right, and what it draws is what it measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit.widgets.number_line import MOST_TICKS, Setting, measure, number_line

NUMBERS = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50)


@given(NUMBERS, st.floats(0.5, 50), st.integers(2, 16), st.booleans())
def test_rounding_moves_a_value_by_half_a_step_and_clipping_counts_the_rest(values, bound, bits, symmetric):
    found = measure(values, Setting(-bound, bound, bits, symmetric))
    x, step = np.asarray(values, np.float32).astype(float), float(found.grid.scale)
    beyond = np.maximum(float(found.grid.low) - x, x - float(found.grid.high)) / step  # in steps; below 0 inside
    assert (beyond > 0.5001).mean() <= found.clipped <= (beyond > 0.4999).mean()
    assert np.abs(found.errors[beyond <= 0]).max(initial=0) <= step * 0.5001
    assert found.rms == pytest.approx(math.sqrt(np.mean(found.errors**2)))
    assert 1 <= found.used <= min(len(values), len(found.levels))


def test_nothing_inside_the_range_is_clipped_however_fine_the_grid():
    x = np.random.default_rng(0).uniform(-0.7, 0.7, 20_000)
    assert {bits: measure(x, Setting(-0.7, 0.7, bits, True)).clipped for bits in (4, 8, 12, 16)} == dict.fromkeys(
        (4, 8, 12, 16), 0.0
    ), "float32's own rounding, against a step of 2^-16, is no clipping"


def test_a_bit_is_worth_six_decibels():
    x = np.random.default_rng(0).uniform(-1, 1, 200_000)
    snr = [measure(x, Setting(-1, 1, bits, False)).snr for bits in range(4, 13)]
    assert np.allclose(np.diff(snr), 20 * math.log10(2), atol=0.6)
    assert np.allclose(np.diff(snr)[3:], 20 * math.log10(2), atol=0.1)


def test_the_levels_are_those_of_the_grid():
    found = measure([0.1, 0.6], Setting(0.0, 3.0, 2, False))
    assert found.levels.tolist() == [0.0, 1.0, 2.0, 3.0] and found.used == 2
    assert measure([0.0, 0.0], Setting(-1, 1, 4, True)).snr == math.inf
    assert len(measure([1.0], Setting(-1, 1, 8, True)).levels) == 255, (
        "-128 is left out, so that the grid is its own mirror"
    )


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_without_a_measure_are_refused(values):
    with pytest.raises(ValueError, match="give finite ones"):
        measure(values, Setting(-1, 1, 8, True))


def slide(control, value) -> None:
    """What the page sends when a slider is dragged."""
    control._handle_msg({"content": {"data": {"method": "update", "state": {"value": value}}}, "buffers": []})


def test_the_panel_follows_its_controls():
    weights = np.random.default_rng(1).normal(0, 0.05, 5000)
    panel = number_line(weights, "weights")
    before = panel.chart.figure["data"][1]["x"]
    assert len(before) == 3 * 16
    assert panel.chart.figure["layout"]["xaxis2"]["ticktext"] == ["−S/2", "0", "S/2"]
    slide(panel.bits, 8.0)
    assert len(panel.result.levels) == 255 > MOST_TICKS
    assert len(panel.chart.figure["data"][1]["x"]) == 3 * 2, "too many to draw: the ends alone"
    rounding = panel.result.snr
    slide(panel.low, -0.05)
    slide(panel.high, 0.05)
    assert panel.result.clipped > 0.2 and panel.result.snr < rounding and "clipped" in panel.status.text
    assert panel.chart.figure["layout"]["xaxis2"]["ticktext"][2] != "S/2", "the clipped ones lie far beyond half a step"
    shaded = [shape for shape in panel.chart.figure["layout"]["shapes"] if shape["type"] == "rect"]
    assert len(shaded) == 2
    panel.close()


def test_a_range_without_width_does_not_break_the_panel():
    panel = number_line([-0.5, 0.25], "two weights")
    slide(panel.low, 0.0)
    slide(panel.high, 0.0)
    assert panel.result.clipped == 1.0
    assert panel._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")
    slide(panel.high, 0.5)
    assert panel.result.clipped == 0.0 and "symmetric" in repr(panel), "a symmetric grid reaches as far down as up"
    panel.kind.value = False
    assert panel.result.clipped == 0.5 and "with a zero point" in repr(panel)
    panel.close()


def test_controls_have_names():
    panel = number_line([1.0, -1.0], "weights")
    names = panel.box.children[1].names
    assert set(names) == {".ck-low", ".ck-high", ".ck-bits"} and all(names.values())
    panel.close()
