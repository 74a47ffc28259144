"""The panels of lesson 08: the pattern that is drawn is that of the file, and the table holds what the file does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import compresskit as ck
from compresskit.litert.sizes import file_sizes
from compresskit.widgets.live import AbandonedError
from compresskit.widgets.patterns import (
    PATTERNS,
    Row,
    Setting,
    cells,
    channel_part,
    draw_patterns,
    gone,
    inner_layers,
    key_of,
    look,
    measure,
    shades,
    step_of,
    table,
    window,
)
from compresskit.widgets.stopwatch import stopwatch, time_files


@pytest.fixture(scope="module")
def digits():
    return ck.load_mnist()


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


def test_the_layers_between_the_first_and_the_last(model):
    assert inner_layers(model) == ("conv2", "dense")
    assert "block1_depthwise" not in inner_layers(ck.load_model("small_student"))
    with pytest.raises(ValueError, match=r"layer 'head' is none of those that are pruned: conv2, dense"):
        look(model, Setting("head"), ck.load_mnist())


@pytest.mark.parametrize("layer", ["conv2", "dense"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_takes_half_and_has_its_form(model, digits, layer, pattern):
    matrix, kept = look(model, Setting(layer, pattern, 0.5), digits)
    assert kept.shape == matrix.shape and kept.mean() == pytest.approx(0.5, abs=0.02)
    if pattern == "2:4":
        assert set(kept.reshape(-1, 4).sum(axis=1)) == {2}
    elif pattern.startswith("block"):
        rows, columns = map(int, pattern.removeprefix("block ").split("x"))
        blocks = kept.reshape(kept.shape[0] // rows, rows, -1, columns).sum(axis=(1, 3))
        assert set(blocks.ravel()) == {0, rows * columns}
    elif pattern == "channel":
        assert np.array_equal(kept, np.logical_and.outer(kept.any(axis=1), kept.any(axis=0)))
        assert kept.any(axis=1).mean() == pytest.approx(1 - channel_part(0.5), abs=0.02)


def test_the_channels_drawn_are_those_of_the_file(model, digits):
    """The file's smaller matrices are those parts of the original that are drawn as kept."""
    for layer in ("conv2", "dense"):
        setting = Setting(layer, "channel", 0.6)
        matrix, kept = look(model, setting, digits)
        small = ck.compress(model, ck.Recipe(step_of(model, setting)), digits.train).weights(layer)
        expected = matrix[kept].reshape(kept.any(axis=1).sum(), kept.any(axis=0).sum())
        assert np.array_equal(small.reshape(len(small), -1), expected)


def test_a_row_is_what_the_file_does(model, digits, few):
    setting = Setting("conv2", "block 4x4", 0.5)
    row = measure(model, setting, few)
    small = ck.compress(model, ck.Recipe(ck.Prune(0.5, pattern="block 4x4", layers=("conv2", "dense"))))
    assert row.sizes == file_sizes(small.tflite) and row.macs == 4_241_152
    assert row.errors == ck.evaluate(small, few.validation).errors and row.gone == pytest.approx(0.5)
    assert row.time.runs == 100 and 0 < row.time.low <= row.time.median
    preview = measure(model, setting, digits, 200)
    assert (preview.n, preview.sizes, preview.time) == (200, None, None) and cells(preview)[2:6] == ("…",) * 4
    channels = measure(model, Setting("conv2", "channel", 0.5), digits, 200)
    assert channels.gone == pytest.approx(0.5, abs=0.01) and channels.macs < 0.53 * row.macs
    assert gone(model, ck.compress(model, ck.Recipe())) == 0


def test_nothing_can_hide_in_the_drawing():
    matrix = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
    kept = np.array([[True, True], [False, True]])
    drawn = shades(matrix, kept)
    assert drawn[1][0] is None and drawn[0][0] < drawn[0][1] < drawn[1][1] == 1.0
    assert window(np.zeros((64, 288))) == (slice(0, 64), slice(96, 192))
    assert window(np.zeros((10, 40))) == (slice(0, 10), slice(0, 40))


def test_rows_are_kept_by_what_they_depend_on():
    assert key_of(Setting("conv2", "2:4", 0.9)) == key_of(Setting("dense", "2:4", 0.1)) == ("2:4", 0.5, "magnitude")
    assert key_of(Setting("conv2", "channel", 0.9)) != key_of(Setting("conv2", "channel", 0.1))


def test_the_table_names_what_does_not_fit():
    shown = table({"unstructured": Row(0.5, 37, 5000, 4_241_152)}, {"2:4": "layer <b>: no"}, "2:4")
    assert "layer &lt;b&gt;: no" in shown and shown.count("<tr") == 1 + len(PATTERNS)
    assert ">37<" in shown and ">4.24<" in shown and "entropy (estimated)" in shown


def slide(control, index) -> None:
    """What the page sends when a control is moved."""
    control._handle_msg({"content": {"data": {"method": "update", "state": {"index": index}}}, "buffers": []})


@pytest.fixture
def few(digits):
    return dataclasses.replace(digits, validation=digits.validation.take(500))


@pytest.fixture
def panel(few):
    made = draw_patterns("digit_reader", few)
    assert made.wait_idle(120)
    yield made
    made.close()


def test_the_panel_follows_its_controls(panel):
    row = panel.rows["unstructured", 0.5, "magnitude"]
    assert panel.setting == Setting("conv2") and f"misreads {row.errors} of 500" in panel.status.text
    blank = sum(value is None for row in panel.chart.figure["data"][0]["z"] for value in row)
    slide(panel.sparsity, 18)
    slide(panel.pattern, PATTERNS.index("channel"))
    assert panel.wait_idle(120)
    assert panel.setting == Setting("conv2", "channel", 0.9) and "68 % of the channels" in panel.status.text
    assert sum(value is None for row in panel.chart.figure["data"][0]["z"] for value in row) > 1.5 * blank
    assert repr(panel) == "Patterns of pruning: digit_reader, layer conv2"
    assert panel._picture().png().startswith(b"\x89PNG") and "million MACs" in panel.status.text
    panel.measure_all()
    assert panel.wait_idle(120)
    assert {key[0] for key in panel.rows} == set(PATTERNS) and panel.result.row.macs < 600_000
    assert "…" not in panel.table.value and panel.table.value.count("µs") == len(PATTERNS)


def test_a_pattern_that_does_not_fit_is_a_sentence_in_the_table(few):
    panel = draw_patterns("lenet5", few)
    panel.measure_all()
    assert panel.wait_idle(120)
    assert "block 16x1 does not divide the 50x500 weight matrix" in panel.table.value
    assert panel.result is not None and "unstructured" in panel.status.text
    panel.close()


def test_files_are_timed_by_turns(model, digits):
    small = ck.compress(model, ck.Recipe(ck.Prune(0.5, pattern="channel")))
    timed = time_files({"float": model, "half": small}, digits.test.images[:1], rounds=2)
    assert list(timed.times) == [("float", 1), ("half", 1), ("float", 2), ("half", 2)]
    assert timed.ratio("float", "float", 1) == 1 and timed.macs["half"] < timed.macs["float"] == 4_241_152
    with pytest.raises(AbandonedError):
        time_files({"float": model}, digits.test.images[:1], stop=lambda: True)
    with pytest.raises(ValueError, match="files is empty"):
        stopwatch({}, digits.test.images[:1])


def test_the_stopwatch_shows_what_it_measured(model, digits):
    panel = stopwatch({"float": model, "<half>": ck.compress(model, ck.Recipe(ck.Prune(0.5, pattern="channel")))})
    assert panel.wait_idle(60)
    one = panel.chart.figure["data"][0]
    assert one["x"] == [panel.result.times[name, 1].median * 1e6 for name in ("float", "<half>")]
    assert one["error_x"]["array"][0] == pytest.approx(
        1e6 * (panel.result.times["float", 1].high - panel.result.times["float", 1].median)
    )
    assert "&lt;half&gt;" in panel.table.value and panel.table.value.count("µs") == 4
    before = panel.result
    panel.time_again()
    assert panel.wait_idle(60) and panel.result is not before
    assert repr(panel) == "Time of one digit: float, <half>" and panel._picture().png().startswith(b"\x89PNG")
    panel.close()
