"""The panels of lesson 08 in a real JupyterLab: patterns by slider and list, the table, the stopwatch, both themes."""

from __future__ import annotations

PANEL = """from compresskit.widgets.patterns import draw_patterns
panel = draw_patterns()
panel"""
BLANK = "document.querySelector('.js-plotly-plot').data[0].z.flat().filter((each) => each === null).length"
DRAWN = "() => document.querySelector('.js-plotly-plot')?.data?.[0]?.z?.length === 64"
WATCH = """import compresskit as ck
from compresskit.widgets.stopwatch import stopwatch
model = ck.load_model("digit_reader")
half = ck.compress(model, ck.Recipe(ck.Prune(0.5, pattern="channel")))
watch = stopwatch({"float": model, "half of the channels": half})
watch"""


def test_a_key_thins_the_matrix_and_a_list_changes_the_pattern(open_notebook):
    notebook = open_notebook([PANEL], height=1100)
    notebook.run_all()
    notebook.wait(DRAWN)
    before = notebook.page.evaluate(BLANK)
    assert 0.3 * 64 * 96 < before < 0.7 * 64 * 96
    notebook.press(".ck-sparsity", *["ArrowRight"] * 6)
    notebook.until("panel.wait_idle(120) and panel.setting.sparsity == 0.8")
    notebook.wait(f"(x) => {BLANK} > 1.3 * x", before)
    for role, name in (
        ("combobox", "Weights of layer"), ("combobox", "Pattern"), ("slider", "Weights that go"),
        ("combobox", "Chosen by"),
    ):  # fmt: skip
        assert notebook.page.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    notebook.press(".ck-sparsity", *["ArrowLeft"] * 6)
    notebook.page.locator(".ck-pattern select").select_option("channel")
    notebook.page.get_by_text("29 % of the channels are removed").wait_for()
    notebook.page.locator(".ck-all").click()
    notebook.until("panel.wait_idle(120) and len(panel.rows) >= 6")
    notebook.wait("() => !document.querySelector('.ck-table').textContent.includes('…')")
    for width in (1280, 1920):
        notebook.page.set_viewport_size({"width": width, "height": 1100})
        for dark in (False, True):
            notebook.theme(dark)
            notebook.screenshot(f"patterns-{width}-{'dark' if dark else 'light'}", ".compresskit")


def test_the_stopwatch_times_again(open_notebook):
    notebook = open_notebook([WATCH], height=800)
    notebook.run_all()
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[1]?.x?.length === 2")
    notebook.until("watch.wait_idle(60)")
    before = notebook.chart()["data"][0]["x"]
    notebook.page.locator(".ck-again").click()
    notebook.wait("(x) => document.querySelector('.js-plotly-plot').data[0].x[0] !== x", before[0])
    notebook.until("watch.wait_idle(60)")
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"stopwatch-{'dark' if dark else 'light'}", ".compresskit")
