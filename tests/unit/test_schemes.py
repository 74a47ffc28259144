"""The table of schemes: its rows are what the engine gives, what does not exist is said, and the panel fills itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import compresskit as ck
from compresskit.data import Digits
from compresskit.widgets.schemes import Row, Scheme, measure, schemes, schemes_for, table


@pytest.fixture(scope="module")
def few(digits) -> Digits:
    """Digits of which 200 are read."""
    return dataclasses.replace(digits, test=digits.test.take(200))


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


@pytest.mark.parametrize("name", ["float32", "dynamic", "int8", "int4 blocks", "mixed"])
def test_a_row_is_what_the_engine_gives(model, few, name):
    scheme = next(each for each in schemes_for(model) if each.name == name)
    row = measure(model, scheme, few)
    small = ck.compress(model, scheme.recipe, few.train)
    score = ck.evaluate(small, few.test)
    assert (row.size, row.deflated, row.errors, row.n) == (small.size, small.deflated_size, score.errors, 200)
    assert row.types == tuple(layer.dtype for layer in small.layers) and not row.refused
    assert row.latency is not None and row.latency.low <= row.latency.median <= row.latency.high


def test_the_mixed_scheme_is_the_one_of_the_lesson(model):
    mixed = next(scheme for scheme in schemes_for(model) if scheme.name == "mixed").step
    assert [mixed.for_layer(layer.name).weights for layer in model.layers] == [8, 4, 2, 8]
    assert mixed.activations == 32


def test_schemes_fit_the_model():
    student = [scheme.name for scheme in schemes_for(ck.load_model("small_student"))]
    assert "mixed" not in student and "int4 blocks" not in student and "int8, per tensor" in student


def test_what_litert_does_not_have_is_a_row_with_a_reason(few):
    student = ck.load_model("small_student")
    scheme = next(each for each in schemes_for(student) if each.name == "int4, dynamic")
    row = measure(student, scheme, few)
    assert "DEPTHWISE_CONV_2D cannot have 4-bit weights" in row.refused and row.size == 0
    assert "not in LiteRT" in table([row])


def test_every_model_of_the_course_has_schemes():
    for name in ("lenet_300_100", "lenet5", "big_teacher"):
        made = schemes_for(ck.load_model(name))
        assert len({scheme.name for scheme in made}) == len(made) >= 9


def test_text_from_outside_stays_text():
    row = Row(Scheme("<b>", "<i>", None), 0, 0, 0.0, (0.0, 0.0), 0, 0, None, (), "<script>")
    assert "<script>" not in table([row]) and "&lt;script&gt;" in table([row])


def test_the_panel_measures_all_rows_and_sorts_them(few):
    panel = schemes("small_student", few)
    assert panel.wait_idle(120)
    assert set(panel.rows) == {scheme.name for scheme in schemes_for(panel.model)}
    refused = [name for name, row in panel.rows.items() if row.refused]
    assert refused == ["int4, dynamic", "int4, int8 activations"]
    assert "2 schemes do not exist" in panel._status.text
    assert len(panel._chart.figure["data"][0]["x"]) == 1, "the star is the float model"
    full, some = (len(panel._chart.figure["data"][trace]["x"]) for trace in (1, 2))
    assert full == len(panel.rows) - 2 - len(refused) and some == 1, "16x8 is hollow: it reads fewer digits"
    panel._order.value = "size"
    sizes = [row.size for row in panel.in_order() if not row.refused]
    assert sizes == sorted(sizes) and panel.in_order()[-1].refused
    panel._order.value = "time"
    times = [row.latency.median for row in panel.in_order() if row.latency]
    assert times == sorted(times)
    bundle = panel._repr_mimebundle_()[0]
    assert bundle["image/png"].startswith(b"\x89PNG") and "small_student" in bundle["text/plain"]
    panel.close()


def test_another_model_starts_over_and_closing_ends_it(few):
    panel = schemes("small_student", few)
    panel._models.value = "lenet_300_100"
    assert panel.wait_idle(120)
    assert panel.model.name == "lenet_300_100" and all(not row.refused for row in panel.rows.values())
    assert np.all([row.size > 50_000 for row in panel.rows.values()])
    first = panel.rows["int8"]
    panel.measure_again()
    assert panel.wait_idle(120) and panel.rows["int8"] is not first
    assert panel.rows["int8"].size == first.size
    panel.close()
    assert panel.closed


def test_the_errors_of_a_panel_are_sentences(few):
    panel = schemes("small_student", few)
    panel.wait_idle(120)
    panel._say_error(ValueError("it went wrong"))
    assert panel._status.text == "it went wrong."
    panel.close()
