"""The panel of integers in a real JupyterLab: keys, the chain, the chart, both themes."""

from __future__ import annotations

PANEL = """from compresskit.widgets.integers import integers
panel = integers()
panel"""
DRAWN = "() => document.querySelector('.js-plotly-plot')?.data?.[4]?.x?.length === 1"


def test_a_key_narrows_the_multiplier_and_the_layer_is_compared(open_notebook):
    notebook = open_notebook([PANEL], height=1100)
    notebook.run_all()
    notebook.wait(DRAWN)
    notebook.until("panel.wait_idle(120)")
    assert notebook.chart()["data"][4]["x"] == [31]
    notebook.screenshot("integers-first-light", ".compresskit")
    notebook.press(".ck-width", *["PageDown"] * 8)
    notebook.until("panel.wait_idle(120) and panel.setting.width < 20 and panel.result.changed > 0")
    width = int(notebook.kernel("print(panel.setting.width)"))
    notebook.wait("(x) => document.querySelector('.js-plotly-plot').data[4].x[0] === x", width)
    drawn = notebook.chart()
    assert drawn["data"][4]["y"] == [
        float(notebook.kernel("print(100 * panel.result.changed / panel.result.outputs)"))
    ]  # fmt: skip
    for role, name in (
        ("slider", "Test digit"), ("combobox", "Layer"), ("combobox", "Output value"),
        ("spinbutton", "Number of the output"), ("slider", "Bits of the multiplier"), ("combobox", "Rounding"),
    ):  # fmt: skip
        assert notebook.page.get_by_role(role, name=name).count() == 1, (role, name)
    notebook.page.locator(".ck-kind select").select_option("a negative sum")
    notebook.page.get_by_text("clamped to -128 to 127").wait_for()
    notebook.page.locator(".ck-layer select").select_option("conv2")
    notebook.kernel("panel.width.value = 5")
    notebook.until("panel.wait_idle(120) and panel.result.changed > 0 and panel.setting.layer == 'conv2'")
    assert notebook.kernel("print(panel.kind.value)").strip() == "negative", "the page must not answer for the hand"
    for size in (1280, 1920):
        notebook.page.set_viewport_size({"width": size, "height": 1100})
        for dark in (False, True):
            notebook.theme(dark)
            notebook.screenshot(f"integers-{size}-{'dark' if dark else 'light'}", ".compresskit")
    notebook.page.locator(".ck-way select").select_option("cut off (>>)")
    notebook.kernel("panel.width.value = 31")
    notebook.until("panel.wait_idle(120) and panel.setting.way == 'down'")
    notebook.until("panel.result.differences[3] == 0 < panel.result.differences[2]")
    notebook.screenshot("integers-down-dark", ".compresskit")
