"""The panels of lesson 05 in a real JupyterLab: rows that appear, bits that are set by a click and by keyboard."""

from __future__ import annotations

import json

import pytest

SCHEMES = """import dataclasses
import compresskit as ck
from compresskit.widgets.schemes import schemes
digits = ck.load_mnist()
panel = schemes("small_student", dataclasses.replace(digits, test=digits.test.take(500)))
panel"""

LAYERS = """import dataclasses
import compresskit as ck
from compresskit.widgets.layer_by_layer import layer_by_layer
digits = ck.load_mnist()
few = dataclasses.replace(digits, test=digits.test.take(1500), validation=digits.validation.take(300))
panel = layer_by_layer("digit_reader", few)
panel"""

IDLE = "print(panel.wait_idle(180))"


@pytest.mark.parametrize("width", [1000, 1440])
def test_the_table_of_schemes_fills_and_is_sorted(open_notebook, width):
    notebook = open_notebook([SCHEMES], width=width, height=1100)
    notebook.run_all()
    page = notebook.page
    page.get_by_text("7 files measured; 2 schemes do not exist for it").wait_for()
    rows = page.locator(".ck-schemes tbody tr")
    assert rows.count() == 9 and page.get_by_text("not in LiteRT:").count() == 2
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[1]?.x?.length === 5")
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"schemes-{width}-{'dark' if dark else 'light'}", ".compresskit")
    height = page.locator(".compresskit").bounding_box()["height"]
    page.get_by_role("button", name="size", exact=True).click()
    notebook.wait("() => document.querySelector('.ck-schemes tbody tr').textContent.startsWith('int8, per tensor')")
    assert page.locator(".compresskit").bounding_box()["height"] == height
    shown = notebook.chart(".ck-grow")["data"]
    sizes = json.loads(
        notebook.kernel("import json; print(json.dumps([row.size / 1000 for row in panel.rows.values() if row.size]))")
    )
    assert sorted([*shown[0]["x"], *shown[1]["x"], *shown[2]["x"]]) == sorted(sizes)
    for role, name in (("combobox", "Model"), ("group", "Order of the rows"), ("button", "Time again")):
        assert page.get_by_role(role, name=name).count() == 1, (role, name)
    page.get_by_role("button", name="Time again").click()
    assert notebook.kernel(IDLE) == "True\n"
    page.get_by_text("7 files measured").wait_for()


@pytest.mark.parametrize("width", [1000, 1440])
def test_bits_are_set_by_a_button_and_by_a_bar(open_notebook, width):
    notebook = open_notebook([LAYERS], width=width, height=1100)
    notebook.run_all()
    page = notebook.page
    assert notebook.kernel(IDLE) == "True\n"
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[3]?.y?.length === 4")
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"layers-{width}-{'dark' if dark else 'light'}", ".compresskit")
    height = page.locator(".compresskit").bounding_box()["height"]
    page.locator(".ck-bits-2").get_by_role("button", name="4", exact=True).click()
    assert notebook.kernel(IDLE) == "True\n"
    assert notebook.kernel("print(dict(panel.choice.bits)['dense'], panel.measured.compressed.size)") == "4 227320\n"
    page.get_by_text("227,320 bytes").wait_for()
    bar = page.locator(".js-plotly-plot .barlayer .trace").nth(2).locator(".point").nth(2).bounding_box()
    x, y = bar["x"] + bar["width"] / 2, bar["y"] + 8  # near its top: on a logarithmic axis a bar has no bottom
    notebook.click_point(x, y)
    notebook.wait("() => document.querySelector('.ck-bits-2 .mod-active').textContent.trim() === '2'")
    assert notebook.kernel(IDLE) == "True\n"
    page.locator(".ck-table").get_by_text("int2").wait_for()
    for place, name in enumerate(("conv1", "conv2", "dense", "head")):
        assert page.locator(f".ck-bits-{place}").get_by_role("group", name=f"Bits of {name}").count() <= 1
    assert page.get_by_role("group", name="Bits of dense").count() == 1
    assert page.locator(".compresskit").bounding_box()["height"] == height
    page.locator(".ck-bits-1").get_by_role("button", name="2", exact=True).click()
    page.get_by_role("alert").get_by_text("layer 'conv2'").wait_for()
    assert page.locator(".ck-status").bounding_box()["height"] == 62
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.compresskit .widget-label, .compresskit button, .compresskit td')]"
        ".filter((e) => e.offsetWidth > 0 && e.scrollWidth > e.offsetWidth + 1).map((e) => e.textContent)"
    )
    assert cut == []
