"""The building blocks in a real JupyterLab: charts and the drawing pad."""

from __future__ import annotations

import base64
import json

import nbformat

from compresskit.widgets.picture import Picture

CHARTS = """
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.style import style_tag
import ipywidgets as w
charts = [Chart(figure([{"type": "scatter", "mode": "markers", "name": f"chart {i}", "x": [1, 2, 3], "y": [i, 1, 4]}],
          {"xaxis": {"title": {"text": "size"}}}), height=200, label=f"chart number {i}") for i in range(8)]
clicks = []
charts[0].on_click(lambda curve, point: clicks.append((curve, point)))
box = w.VBox([w.HTML(style_tag()), *charts])
box.add_class("compresskit")
box
"""


def test_eight_charts_load_plotly_once_and_go_from_under_the_mouse(open_notebook):
    notebook = open_notebook([CHARTS], height=2200)
    received: list[int] = []
    notebook.page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    notebook.run_all()
    notebook.wait("() => document.querySelectorAll('.js-plotly-plot').length === 8")
    notebook.wait("() => [...document.querySelectorAll('.js-plotly-plot')].every((p) => p.dataset.drawn)")
    heights = notebook.page.evaluate("() => [...document.querySelectorAll('.ck-chart')].map((e) => e.offsetHeight)")
    assert heights == [200] * 8
    assert sum(received) < 3_000_000, "one copy of plotly.js is 1.6 MB"
    # plotly answers a moving mouse a little later; by then the chart may be gone.
    notebook.page.evaluate(
        "() => { let x = 0; window.ckMoving = setInterval(() => {"
        " x = (x + 7) % 200;"
        " for (const each of document.querySelectorAll('.js-plotly-plot .nsewdrag')) {"
        " const at = each.getBoundingClientRect();"
        " const where = { bubbles: true, clientX: at.x + 20 + x, clientY: at.y + 20 };"
        " each.dispatchEvent(new MouseEvent('mousemove', where));"
        " } }, 4); }"
    )
    for left in range(8)[::-1]:
        notebook.kernel(f"box.children = [box.children[0], *charts[:{left}]]")
        notebook.wait("(n) => document.querySelectorAll('.js-plotly-plot').length === n", left)
    notebook.page.wait_for_timeout(200)
    notebook.page.evaluate("() => clearInterval(window.ckMoving)")  # the page is passed on to the next test
    assert notebook.errors == []


def test_a_reloaded_page_shows_the_last_state(open_notebook):
    notebook = open_notebook([CHARTS], fresh=True)
    notebook.run_all()
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.dataset.drawn")
    notebook.kernel("charts[0].show(figure([{'type': 'scatter', 'x': [1, 2], 'y': [7, 8]}], {}))")
    notebook.wait("() => document.querySelector('.js-plotly-plot').data[0].y[0] === 7")
    notebook.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    notebook.page.reload()
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[0]?.y?.[0] === 7")


def test_a_click_reaches_python_and_what_is_new_is_seen_whatever_was_zoomed(open_notebook):
    notebook = open_notebook([CHARTS])
    notebook.run_all()
    notebook.wait("() => document.querySelector('.js-plotly-plot')?.dataset.drawn")

    def show(lowest, bottom):
        notebook.kernel(
            f"data = [dict(type='scatter', mode='markers', x=[1, 2, 3], y=[9, 8, {lowest}])]\n"
            f"charts[0].show(figure(data, dict(xaxis=dict(range=[0, 4]), yaxis=dict(range=[{bottom}, 10]))))"
        )

    def shown(lowest):
        notebook.wait("(y) => document.querySelector('.js-plotly-plot').data[0].y[2] === y", lowest)

    def ranges(wanted):
        notebook.wait(
            "(wanted) => { const { xaxis, yaxis } = document.querySelector('.js-plotly-plot')._fullLayout;"
            " return JSON.stringify([xaxis.range, yaxis.range]) === wanted; }",
            json.dumps(wanted, separators=(",", ":")),
        )

    show(7, 6)
    shown(7)
    box = notebook.page.evaluate(
        "() => { const b = document.querySelectorAll('.js-plotly-plot .point')[1].getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; }"
    )
    notebook.click_point(*box)
    notebook.until("clicks == [(0, 1)]")
    show(5, 4)
    shown(5)
    area = notebook.page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    notebook.page.mouse.dblclick(area["x"] + 50, area["y"] + 10)  # plotly's own way back leads to what it drew first
    show(2, 1)
    ranges([[0, 4], [1, 10]])
    notebook.page.mouse.down()
    notebook.page.mouse.move(area["x"] + 200, area["y"] + area["height"] / 2, steps=5)
    show(3, 1)
    notebook.page.wait_for_timeout(200)
    shown(2)  # what is new waits for the button: under it a drag would be lost
    notebook.page.mouse.up()
    shown(3)
    notebook.wait("() => document.querySelector('.js-plotly-plot')._fullLayout.yaxis.range[0] > 3")
    notebook.page.locator(".js-plotly-plot").first.hover()
    notebook.page.locator(".modebar-btn[data-title='Reset axes']").first.click()
    ranges([[0, 4], [1, 10]])


PAD = """
from compresskit.widgets.drawing import DrawingPad
pad = DrawingPad()
pad
"""


def test_a_drawn_stroke_reaches_python(open_notebook):
    notebook = open_notebook([PAD])
    notebook.run_all()
    canvas = notebook.page.get_by_role("img", name="Draw a digit here")
    canvas.wait_for()
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2
    notebook.page.mouse.move(middle, box["y"] + 40)
    notebook.page.mouse.down()
    for step in range(20):
        notebook.page.mouse.move(middle, box["y"] + 40 + 8 * step)
    notebook.page.mouse.up()
    notebook.page.wait_for_timeout(300)
    rows = notebook.kernel("print(sum(pad.digit.any(axis=1)))")
    assert rows == "20\n", "the stroke fills the box"
    notebook.page.keyboard.press("Delete")
    notebook.page.wait_for_timeout(300)
    assert notebook.kernel("print(pad.digit.any())") == "False\n"


def test_a_saved_panel_whose_kernel_is_gone_is_a_still_picture(open_notebook):
    """What a learner saved holds the address of a widget that no longer exists; JupyterLab then takes the picture."""
    made = Picture(200, 100, "still")
    made.rectangle(20, 20, 100, 50, fill="after")
    data = {
        "text/plain": "a panel",
        "image/png": base64.b64encode(made.png()).decode(),
        "application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": "gone"},
    }
    shown = {"image/png": {"alt": "a still panel", "width": 200}}
    output = nbformat.v4.new_output("execute_result", data=data, metadata=shown, execution_count=1)
    notebook = open_notebook([nbformat.v4.new_code_cell("panel", outputs=[output], execution_count=1)])
    image = notebook.page.locator(".jp-OutputArea-output img")
    image.wait_for()
    notebook.wait("() => jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
    notebook.page.wait_for_timeout(1000)
    assert image.is_visible() and image.bounding_box()["width"] == 200
    assert notebook.page.get_by_text("model not found").count() == 0
