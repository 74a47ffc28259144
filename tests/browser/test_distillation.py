"""The panels of lesson 11 in a real JupyterLab: soft labels under the slider, a pair trained at a button."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

SOFT = """import compresskit as ck
from compresskit.widgets.dark_knowledge import dark_knowledge
panel = dark_knowledge("lenet5", ck.load_mnist())
panel"""

TRAIN = """import compresskit as ck
from compresskit.widgets.distiller import Length, distiller
panel = distiller(ck.load_mnist(), 500, Length(epochs=5))
panel.teacher.value = "lenet5"
panel"""

CUT = (
    "() => [...document.querySelectorAll('.compresskit .widget-label, .compresskit button')]"
    ".filter((e) => e.offsetWidth > 0 && e.scrollWidth > e.offsetWidth + 1).map((e) => e.textContent)"
)


def both_themes(notebook, name):
    for dark in (True, False):
        notebook.theme(dark)
        notebook.screenshot(f"{name}-{'dark' if dark else 'light'}", ".compresskit")


def test_soft_labels_follow_the_temperature(open_notebook):
    notebook = open_notebook([SOFT], width=1280, height=900)
    notebook.run_all()
    notebook.until("panel.wait_idle(120)")
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[0]?.y?.length === 10")
    before = notebook.chart()["data"][0]["y"]
    both_themes(notebook, "dark-knowledge")
    notebook.press(".ck-heat", *["ArrowRight"] * 4)
    notebook.until("panel.wait_idle(120) and panel.temperature.value == 20.0")
    notebook.wait("(y) => Math.max(...document.querySelector('.js-plotly-plot').data[0].y) < y", max(before) - 0.05)
    drawn = notebook.chart()["data"][0]["y"]
    assert abs(sum(drawn) - 1) < 1e-6
    height = notebook.page.locator(".compresskit").bounding_box()["height"]
    notebook.press(".ck-alpha", "Home")
    notebook.until("panel.wait_idle(120) and panel.alpha.value == 0")
    notebook.wait("() => document.querySelector('.js-plotly-plot').data[1].y.every((v) => Math.abs(v) < 1e-12)")
    notebook.press(".ck-which", "ArrowRight")
    notebook.until("panel.wait_idle(120) and panel.digit.value == 8")
    notebook.page.get_by_text("An 8 at T = 20").wait_for()
    assert notebook.page.locator(".compresskit").bounding_box()["height"] == height
    for role, name in (
        ("slider", "Which digit"), ("slider", "Example, from doubtful to sure"), ("slider", "Temperature"),
        ("slider", "Alpha"),
    ):  # fmt: skip
        assert notebook.page.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    assert notebook.page.evaluate(CUT) == []
    both_themes(notebook, "dark-knowledge-hot")


def test_a_pair_is_trained_and_kept(open_notebook):
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    notebook = open_notebook([TRAIN], width=1280, height=900)
    notebook.run_all()
    page = notebook.page
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.length === 5")
    height = page.locator(".compresskit").bounding_box()["height"]
    page.get_by_role("button", name="Train both", exact=True).click()
    notebook.until("panel.wait_idle(300) and len(panel.pairs) == 1")
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[3]?.x?.length === 1")
    data = notebook.chart()["data"]
    assert data[0]["x"] == data[1]["x"] == [1, 2, 3, 4, 5]
    assert data[4]["text"] == ["lenet5"]
    assert page.locator(".compresskit").bounding_box()["height"] == height
    for role, name in (
        ("combobox", "Teacher"), ("group", "Kind of student"), ("slider", "Width of the student"),
        ("slider", "Temperature of the training"), ("slider", "Weight of the teacher"), ("button", "Cancel"),
    ):  # fmt: skip
        assert page.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    assert page.evaluate(CUT) == []
    both_themes(notebook, "distiller")
