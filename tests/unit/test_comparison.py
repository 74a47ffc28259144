"""Two files side by side, against NumPy and SciPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

import compresskit as ck
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.widgets.comparison import compare_layers, compare_points, compare_readings, mcnemar
from compresskit.widgets.points import Point, Setting


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_the_exact_test_is_scipys(b, c):
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_the_exact_test_stands_ten_thousand_digits():
    assert mcnemar(5000, 5000) == 1.0 and mcnemar(10_000, 0) < 1e-300
    for b, c in ((-1, 3), (3, -1)):
        with pytest.raises(ValueError, match="0 or more"):
            mcnemar(b, c)


@pytest.fixture(scope="module")
def model():
    return ck.load_model("lenet5")


@pytest.fixture(scope="module")
def points(model, digits):
    read = digits.test.take(300)
    files = {
        setting: ck.compress(model, setting.recipe(), digits.train)
        for setting in (Setting(0.7), Setting(weights=4), Setting(0.5, pattern="channel"))
    }
    return read, {setting: Point(setting, small, ck.evaluate(small, read), True) for setting, small in files.items()}


def test_layer_by_layer_is_what_numpy_says(model, points):
    _, made = points
    first, second = made[Setting(0.7)].compressed, made[Setting(weights=4)].compressed
    original = ck.compress(model, ck.Recipe())
    pairs = compare_layers(model, first, second)
    assert [pair.name for pair in pairs] == [layer.name for layer in model.layers]
    for pair in pairs:
        whole, one, other = (small.weights(pair.name) for small in (original, first, second))
        size = np.sqrt(np.square(whole, dtype=np.float64).sum())
        assert pair.errors[0] == pytest.approx(np.sqrt(np.square(one - whole, dtype=np.float64).sum()) / size, rel=1e-5)
        assert pair.errors[1] == pytest.approx(
            np.sqrt(np.square(other - whole, dtype=np.float64).sum()) / size, rel=1e-5
        )
        assert pair.between == pytest.approx(np.sqrt(np.square(one - other, dtype=np.float64).sum()) / size, rel=1e-5)
        assert (pair.first.dtype, pair.first.bytes) != (pair.second.dtype, pair.second.bytes)


def test_layers_of_other_shapes_have_no_distance(model, points):
    _, made = points
    pairs = compare_layers(model, made[Setting(0.5, pattern="channel")].compressed, made[Setting(0.7)].compressed)
    cut = [pair for pair in pairs if pair.first.shape != pair.second.shape]
    assert cut and all(pair.errors[0] is None and pair.between is None and pair.errors[1] for pair in cut)


def test_layers_that_only_one_file_has_stand_behind_the_others(model, points):
    _, made = points
    cut, whole = ck.compress(model, Setting(weights=32, activations=32, low_rank=0.3).recipe()), made[Setting(0.7)]
    pairs = compare_layers(model, cut, whole.compressed)
    names = [layer.name for layer in model.layers]
    assert [pair.name for pair in pairs[: len(names)]] == names
    assert {pair.name for pair in pairs} == {layer.name for layer in (*cut.layers, *whole.compressed.layers)}
    assert any(pair.first is None for pair in pairs) and all(pair.second is None for pair in pairs[len(names) :])
    for pair in pairs:
        first, second = pair.first is not None, pair.second is not None
        assert [error is not None for error in pair.errors] == [first and second, second]
        assert (pair.between is not None) == (first and second)


def test_distances_from_a_layer_of_zeros(model):
    site = model.layers[-1].name
    graph = files.read(model.tflite)
    index = next(each.weights for each in sites(graph) if each.name == site)
    empty = np.zeros(files.shape(graph.subgraphs[0].tensors[index]), np.float32)
    zero = ck.Checkpoint("zero", files.replace_constants(model.tflite, {index: empty}))
    same, other = ck.Compressed(zero.tflite, ck.Recipe(), zero), ck.Compressed(model.tflite, ck.Recipe(), zero)
    pair = compare_layers(zero, same, other)[-1]
    assert pair.name == site and pair.errors == (0.0, np.inf) and pair.between == np.inf


def test_digit_by_digit_is_a_table_of_two_by_two(model, points):
    read, made = points
    first, second = made[Setting(0.7)], made[Setting(weights=4)]
    found = compare_points(model, first, second, read).readings
    counts = {}
    for position, label in enumerate(read.labels):
        right = tuple(bool(point.score.predictions[position] == label) for point in (first, second))
        counts.setdefault(right, []).append(position)
    assert found.only_first.tolist() == counts.get((True, False), [])
    assert found.only_second.tolist() == counts.get((False, True), [])
    assert found.both == len(counts[True, True]) and found.neither == len(counts.get((False, False), []))
    assert found.p == mcnemar(len(found.only_first), len(found.only_second)) and len(found.only_second) > 0
    with pytest.raises(ValueError, match="compare exact points"):
        compare_readings(first.score, replace(second.score, n=17), read)
