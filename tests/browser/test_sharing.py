"""The panels of lesson 09 in a real JupyterLab: the sliders, what they draw, both themes."""

from __future__ import annotations

PANEL = """from compresskit.widgets.sharing import share_weights
panel = share_weights()
panel"""
TREE = """from compresskit.widgets.huffman import huffman_tree
panel = huffman_tree()
panel"""
DRAWN = "(n) => document.querySelector('.js-plotly-plot')?.data?.[2]?.x?.length == n"


def test_a_key_takes_values_away(open_notebook):
    notebook = open_notebook([PANEL], height=1000)
    notebook.run_all()
    notebook.wait(DRAWN, 16)
    notebook.press(".ck-levels", *["ArrowLeft"] * 3)
    notebook.until("panel.wait_idle(120) and panel.setting.levels == 6")
    notebook.wait(DRAWN, 6)
    drawn = notebook.chart()
    packed = int(notebook.kernel("print(panel.result.sizes['packed'])"))
    assert drawn["data"][-1]["x"] == [packed]
    for role, name in (
        ("slider", "Shared values in each layer"), ("combobox", "Which values"), ("combobox", "k-means begins"),
        ("slider", "Pruned before"), ("combobox", "Layer shown"),
    ):  # fmt: skip
        assert notebook.page.get_by_role(role, name=name).count() == 1, (role, name)
    notebook.kernel("panel.method.value = 'uniform'")
    notebook.until("panel.wait_idle(120)")
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"sharing-{'dark' if dark else 'light'}", ".compresskit")


def test_the_tree_grows_with_the_values(open_notebook):
    notebook = open_notebook([TREE], height=900)
    notebook.run_all()
    leaves = "(n) => document.querySelector('.js-plotly-plot')?.data?.[1]?.x?.length == n"
    notebook.wait(leaves, 8)
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"huffman-{'dark' if dark else 'light'}", ".compresskit")
    notebook.press(".ck-levels", "End")
    notebook.press(".ck-pruned", "End")
    notebook.until("panel.wait_idle(120) and panel.setting.levels == 16 and panel.setting.pruned == 95")
    notebook.wait("() => document.querySelector('.js-plotly-plot').data[2].y.includes('gaps, Huffman')")
    notebook.screenshot("huffman-pruned-dark", ".compresskit")
