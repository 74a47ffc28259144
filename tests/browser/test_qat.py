"""The panel of lesson 06 in a real JupyterLab: the curve follows the controls, a training adds its point."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

CELL = """import dataclasses
import compresskit as ck
from compresskit.widgets.qat import qat
digits = ck.load_mnist()
few = dataclasses.replace(digits, test=digits.test.take(1000))
panel = qat("lenet_300_100", few, training_digits=3000)
panel"""

IDLE = "print(panel.wait_idle(300))"


def test_the_curve_follows_the_controls_and_a_training_adds_its_point(open_notebook):
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    notebook = open_notebook([CELL], width=1280, height=900)
    notebook.run_all()
    page = notebook.page
    assert notebook.kernel(IDLE) == "True\n"
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[0]?.y?.length === 5")
    for dark in (True, False):
        notebook.theme(dark)
        notebook.screenshot(f"qat-rounded-{'dark' if dark else 'light'}", ".compresskit")
    height = page.locator(".compresskit").bounding_box()["height"]
    before = notebook.chart()["data"][0]["y"]
    page.get_by_role("button", name="each layer", exact=True).click()
    page.get_by_role("button", name="the least error", exact=True).click()
    assert notebook.kernel(IDLE) == "True\n"
    notebook.wait("(before) => document.querySelector('.js-plotly-plot').data[0].y[0] !== before", before[0])
    notebook.press(".ck-bits", "ArrowLeft")
    notebook.wait("() => document.querySelector('.js-plotly-plot').data[3].x[0] === 2")
    page.get_by_role("button", name="Train with rounding", exact=True).click()
    assert notebook.kernel(IDLE) == "True\n"
    notebook.wait("() => document.querySelector('.js-plotly-plot').data[2].x.length === 1")
    data = notebook.chart()["data"]
    assert data[2]["x"] == [2] and data[2]["y"][0] < data[0]["y"][0], "trained reads more digits than rounded"
    assert page.locator(".compresskit").bounding_box()["height"] == height
    for role, name in (
        ("combobox", "Layer with few bits"),
        ("slider", "Bits of a weight"),
        ("group", "What shares a scale"),
        ("group", "Where the grid ends"),
        ("button", "Cancel"),
    ):
        assert page.get_by_role(role, name=name).count() == 1, (role, name)
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.compresskit .widget-label, .compresskit button')]"
        ".filter((e) => e.offsetWidth > 0 && e.scrollWidth > e.offsetWidth + 1).map((e) => e.textContent)"
    )
    assert cut == []
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"qat-{'dark' if dark else 'light'}", ".compresskit")
