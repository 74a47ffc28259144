"""The panel of ranges in a real JupyterLab: the slider, the calibrators, both themes."""

from __future__ import annotations

PANEL = """from compresskit.widgets.ranges import choose_ranges
panel = choose_ranges()
panel"""
DRAWN = "() => document.querySelector('.js-plotly-plot')?.data?.[7]?.x?.length >= 1"


def test_a_key_moves_the_range_and_a_file_is_made(open_notebook):
    notebook = open_notebook([PANEL], height=1000)
    notebook.run_all()
    notebook.wait(DRAWN)
    before = notebook.chart()["data"][6]["x"][0]
    notebook.press(".ck-reach", *["ArrowLeft"] * 8)
    notebook.until("panel.wait_idle(120) and panel.result.judged.clipped > 0")
    notebook.wait("(x) => document.querySelector('.js-plotly-plot').data[6].x[0] < x / 3", before)
    drawn = notebook.chart()
    assert drawn["data"][6]["x"][0] == float(notebook.kernel("print(panel.result.judged.width)"))
    assert len(drawn["layout"]["shapes"]) == 3
    for role, name in (
        ("combobox", "Output of layer"), ("combobox", "Calibration digits"), ("combobox", "Range chosen"),
        ("slider", "Range reaches to"),
    ):  # fmt: skip
        assert notebook.page.get_by_role(role, name=name).count() == 1, (role, name)
    notebook.press(".ck-reach", *["ArrowRight"] * 4)
    notebook.until("panel.wait_idle(120)")
    for factor in ("0.0625", "0.125", "2.0", "16.0", "64.0", "0.25"):
        notebook.kernel(f"panel.reach.value = {factor}")
        notebook.until("panel.wait_idle(120)")
    for width in (1280, 1920):
        notebook.page.set_viewport_size({"width": width, "height": 1000})
        for dark in (False, True):
            notebook.theme(dark)
            notebook.screenshot(f"ranges-{width}-{'dark' if dark else 'light'}", ".compresskit")
    notebook.page.locator(".ck-digits-chosen select").select_option("100, one broken pixel")
    notebook.page.locator(".ck-method select").select_option("percentile")
    notebook.until("panel.wait_idle(120) and panel.setting.method == 'percentile'")
    notebook.page.locator(".ck-layer select").select_option("head")
    notebook.until("panel.wait_idle(120) and panel.result.judged.low < 0")
    notebook.page.get_by_text("head from -").wait_for()
    notebook.screenshot("ranges-head-dark", ".compresskit")
