"""The panels of lesson 07 in a real JupyterLab: the threshold by keyboard, four sizes, a plan by a click."""

from __future__ import annotations

FEW = """import dataclasses
import compresskit as ck
digits = ck.load_mnist()
few = dataclasses.replace(digits, validation=digits.validation.take(1500))
"""
PRUNE = f"""{FEW}from compresskit.widgets.pruning import prune_weights
panel = prune_weights("digit_reader", few)
panel"""
BUDGET = f"""{FEW}import numpy as np
from compresskit.pruning.sensitivity import Sensitivity
from compresskit.widgets.sensitivity import keep_a_budget
grid = (0.0, 0.5, 0.8, 0.9)
rows = [[0.99, 0.96, 0.8, 0.3], [0.99, 0.989, 0.96, 0.9], [0.99, 0.989, 0.986, 0.97], [0.99, 0.988, 0.9, 0.7]]
scan = Sensitivity(("conv1", "conv2", "dense", "head"), grid, np.array(rows))
panel = keep_a_budget("digit_reader", few, sensitivity=scan)
panel"""
IDLE = "print(panel.wait_idle(180))"


def cut_off(page) -> list[str]:
    """Texts that do not fit where they stand."""
    return page.evaluate(
        "() => [...document.querySelectorAll('.compresskit .widget-label, .compresskit button, .compresskit td, "
        ".compresskit th')].filter((e) => e.offsetWidth > 0 && e.scrollWidth > e.offsetWidth + 1)"
        ".map((e) => e.textContent)"
    )


def test_the_threshold_moves_and_the_file_does_not_shrink(open_notebook):
    notebook = open_notebook([PRUNE], height=1000)
    notebook.run_all()
    page = notebook.page
    assert notebook.kernel(IDLE) == "True\n"
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[3]?.x?.length === 1")
    height = page.locator(".compresskit").bounding_box()["height"]
    notebook.press(".ck-amount", *["ArrowRight"] * 15)
    assert notebook.kernel(IDLE) == "True\n"
    notebook.until("panel.setting.amount == 0.9 and panel.result.sizes is not None")
    page.get_by_text("90.0% removed").wait_for()
    tflite, packed = notebook.kernel("s = panel.result.sizes[0]; print(f'{s.tflite:,} {s.packed:,}')").split()
    table = page.locator(".ck-table").last
    assert tflite == "1,689,436" and packed != tflite
    table.get_by_text(tflite).wait_for()
    table.get_by_text(packed).wait_for()
    for _ in range(3):
        page.wait_for_timeout(100)
        assert page.locator(".compresskit").bounding_box()["height"] == height
    for role, name in (
        ("slider", "Remove, of all weights"), ("combobox", "Shared out by"), ("combobox", "What is kept"),
        ("combobox", "Layer drawn"),
    ):  # fmt: skip
        assert page.get_by_role(role, name=name).count() == 1, (role, name)
    page.locator(".ck-shared-by select").select_option("the same share of every layer")
    page.locator(".ck-importance select").select_option("activation")
    notebook.until("panel.wait_idle(120) and ('layer', 'activation') in panel.tried")
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"pruning-{'dark' if dark else 'light'}", ".compresskit")
    page.locator(".ck-shared-by select").select_option("a threshold for each layer, in units of its spread")
    page.get_by_role("alert").get_by_text("choose magnitude").wait_for()
    assert page.locator(".compresskit").bounding_box()["height"] == height and cut_off(page) == []


def test_a_budget_is_shared_out_by_hand_and_by_the_button(open_notebook):
    notebook = open_notebook([BUDGET], height=1000)
    notebook.run_all()
    page = notebook.page
    assert notebook.kernel(IDLE) == "True\n"
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.length === 9")
    height = page.locator(".compresskit").bounding_box()["height"]
    notebook.press(".ck-share-2", *["ArrowRight"] * 11)
    assert notebook.kernel(IDLE) == "True\n"
    notebook.until("dict(panel.choice.sparsities)['dense'] == 0.8 and panel.measured.sizes is not None")
    assert notebook.chart()["data"][5]["x"] == [80], "the ring of dense is where its slider is"
    page.get_by_role("button", name="Share the budget out").click()
    notebook.until("panel.wait_idle(120) and panel.measured.sizes is not None and panel.measured.share <= 0.25")
    wanted = notebook.kernel("print(f'deflated to {panel.measured.share:.1%}')").strip()
    page.get_by_text(wanted).wait_for()
    for place, name in enumerate(("conv1", "conv2", "dense", "head")):
        assert page.locator(f".ck-share-{place}").count() == 1
        assert page.get_by_role("slider", name=f"Removed from {name}").count() == 1
    assert page.locator(".compresskit").bounding_box()["height"] == height and cut_off(page) == []
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"budget-{'dark' if dark else 'light'}", ".compresskit")
