"""The panel of lesson 10 in a real JupyterLab: the rank under the hand, both themes."""

from __future__ import annotations

PANEL = """from compresskit.widgets.lowrank import choose_rank
panel = choose_rank()
panel"""


def test_a_key_takes_directions_away(open_notebook):
    notebook = open_notebook([PANEL], height=900)
    notebook.run_all()
    kept = "(n) => document.querySelector('.js-plotly-plot')?.data?.[0]?.x?.length == n"
    notebook.wait(kept, 20)
    notebook.press(".ck-rank", *["ArrowLeft"] * 4)
    notebook.until("panel.wait_idle(120) and panel.setting.rank == 10")
    notebook.wait(kept, 10)
    assert notebook.chart()["data"][-1]["x"] == [int(notebook.kernel("print(panel.result.size)"))]
    for role, name in (("combobox", "Layer"), ("slider", "Rank")):
        assert notebook.page.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    for rank in (4, 6, 32, 128):
        notebook.kernel(f"panel.rank.value = {rank}")
        notebook.until("panel.wait_idle(120)")
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"lowrank-{'dark' if dark else 'light'}", ".compresskit")
