"""The workbench and the drawing panel in a real JupyterLab, by mouse and by keyboard alone."""

from __future__ import annotations

import hashlib
import importlib.util
import json

import pytest

WORKBENCH = "import compresskit as ck\nbench = ck.Workbench()\nbench"
IDLE = "print(bench.wait_idle(120))"
EXACT = "() => document.querySelector('.js-plotly-plot')?.data?.[1]?.x?.length >= 1"


def tab(notebook, name):
    """Bring a tab of the workbench's controls to the front."""
    notebook.page.locator(".ck-tabs").get_by_role("tab", name=name, exact=True).click()


def points(notebook) -> int:
    """How many points the plot shows, previews and exact ones."""
    data = notebook.chart(".ck-grow")["data"]
    return len(data[1]["x"]) + len(data[2]["x"])


@pytest.fixture(scope="module")
def shared(open_shared):
    """One notebook with a workbench for all tests that leave it as it was."""
    notebook = open_shared([WORKBENCH])
    notebook.run_all()
    notebook.wait(EXACT)
    return notebook


@pytest.fixture
def workbench(shared):
    """The shared notebook, its workbench as at the beginning."""
    shared.kernel("from compresskit.widgets.points import Setting")
    shared.kernel("bench.move_to(Setting()); bench.wait_idle(120); bench.clear()")
    shared.wait("() => { const d = document.querySelector('.ck-grow .js-plotly-plot').data;"
                " return d[1].x.length === 1 && d[2].x.length === 0; }")  # fmt: skip
    return shared


def test_a_key_moves_the_point_and_the_plot_agrees_with_a_fresh_computation(workbench):
    notebook = workbench
    assert points(notebook) == 1
    notebook.press(".ck-weights", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft")
    notebook.wait("() => document.querySelector('.ck-grow .js-plotly-plot').data[3].x[0] < 300")
    assert notebook.kernel(IDLE) == "True\n"
    notebook.press(".ck-sparsity", "PageUp")
    notebook.wait("() => Number(document.querySelector('.ck-sparsity .noUi-handle').ariaValueNow) > 0")
    assert notebook.kernel(IDLE) == "True\n"
    answer = notebook.kernel(
        "import json\n"
        "fresh = ck.compress(bench.checkpoint, bench.setting.recipe(), bench.calibration)\n"
        "score = ck.evaluate(fresh, bench.test)\n"
        "print(json.dumps([fresh.size / 1000, score.accuracy]))"
    )
    size, accuracy = json.loads(answer)
    notebook.wait("(x) => document.querySelector('.ck-grow .js-plotly-plot').data[3].x[0] === x", size)
    ring = notebook.chart(".ck-grow")["data"][3]
    assert ring["customdata"][0][1] == accuracy
    assert size < 300 and points(notebook) >= 3


def test_controls_have_names_and_spoken_values(workbench):
    notebook = workbench
    page = notebook.page
    for role, name in (
        ("slider", "Weights set to zero"), ("slider", "Bits of a weight"), ("combobox", "What goes: the pattern"),
        ("combobox", "Layer whose weights"), ("combobox", "Model that the steps"), ("button", "Download it packed"),
        ("button", "Download the .tflite"), ("button", "Copy the recipe"), ("button", "Clear the plot"),
    ):  # fmt: skip
        assert page.get_by_role(role, name=name).count() == 1, (role, name)
    behind = {
        "Prune": [("combobox", "What stays"), ("slider", "Weights of conv2 set to zero")],
        "Grid": [("combobox", "Range of the grid"), ("group", "One scale for")],
        "Share, rank": [
            ("slider", "Shared values in each layer"), ("combobox", "How the shared values"),
            ("group", "One codebook for"), ("slider", "Part of the weights that low rank keeps"),
            ("combobox", "What low rank does"),
        ],
        "Train": [("group", "What the training"), ("slider", "Epochs"), ("button", "Fine-tune"), ("button", "Cancel")],
        "Plot": [("combobox", "Go back to a point"), ("combobox", "What the plot shows from left")],
    }  # fmt: skip
    height = page.locator(".ck-controls").bounding_box()["height"]
    for name, controls in behind.items():
        tab(notebook, name)
        for role, called in controls:
            assert page.get_by_role(role, name=called).count() == 1, (role, called)
        assert page.locator(".ck-controls").bounding_box()["height"] == height, "nothing jumps"
    notebook.press(".ck-weights", "Home")
    spoken = "() => document.querySelector('.ck-weights .noUi-handle').getAttribute('aria-valuetext')"
    notebook.wait(f"() => ({spoken})() === '2 bits'")


def test_what_cannot_be_is_a_sentence_and_nothing_jumps(workbench):
    notebook = workbench
    height = notebook.page.locator(".compresskit").bounding_box()["height"]
    notebook.press(".ck-weights", "End")
    notebook.page.get_by_text("choose weights=8, or activations=32").wait_for()
    assert notebook.page.get_by_role("alert").count() == 1
    assert notebook.page.locator(".ck-grow .ck-status").bounding_box()["height"] == 62
    between = notebook.page.get_by_role("group", name="Bits between the layers")
    between.get_by_role("button", name="float", exact=True).click()
    notebook.page.get_by_text("as large as the original").wait_for()
    assert notebook.kernel(IDLE) == "True\n"
    assert abs(notebook.page.locator(".compresskit").bounding_box()["height"] - height) < 40


def test_a_click_on_a_point_goes_back(workbench):
    notebook = workbench
    # Not by keys: on a fast machine they leave points of 7, 6 and 5 bits, which hide the one to be clicked.
    notebook.kernel("bench.move_to(Setting(weights=4)); bench.wait_idle(120)")
    notebook.wait("() => document.querySelector('.ck-grow .js-plotly-plot').data[3].x[0] < 300")
    assert notebook.kernel(IDLE) == "True\n"
    place = notebook.page.evaluate(
        "() => { const p = document.querySelector('.ck-grow .js-plotly-plot');"
        " const i = p.data[1].x.indexOf(Math.max(...p.data[1].x));"
        " const points = p.querySelectorAll('.scatterlayer .trace')[1].querySelectorAll('.point');"
        " const b = points[i].getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; }"
    )
    notebook.point_at(*place)
    notebook.page.locator(".hoverlayer .hovertext").wait_for()
    assert "8-bit weights" in notebook.page.locator(".hoverlayer .hovertext").text_content()
    notebook.click_point(*place)
    notebook.wait("() => document.querySelector('.ck-weights .widget-readout').textContent === '8 bits'")
    assert notebook.kernel("print(bench.setting.weights)") == "8\n"


def test_undo_names_and_two_points_side_by_side(workbench):
    """By the keys and the mouse: step back and forth, name a point, hold two against each other."""
    notebook, page = workbench, workbench.page
    undo, redo = (page.get_by_role("button", name=name, exact=True) for name in ("Undo", "Redo"))
    for setting in ("weights=4", "0.95"):
        notebook.kernel(f"bench.move_to(Setting({setting})); bench.wait_idle(120)")
    page.locator(".ck-sparsity .noUi-handle").focus()
    page.keyboard.press("Control+z")
    notebook.wait("() => document.querySelector('.ck-weights .widget-readout').textContent === '4 bits'")
    page.keyboard.press("Control+Shift+z")
    notebook.wait("() => document.querySelector('.ck-sparsity .widget-readout').textContent.startsWith('95')")
    assert redo.is_disabled() and undo.is_enabled()
    undo.click()
    notebook.until("bench.setting == Setting(weights=4) and bench.wait_idle(120) and bench.point.setting.weights == 4")
    height = page.locator(".ck-controls").bounding_box()["height"]
    name = page.get_by_role("textbox", name="Name of this point")
    name.fill("for the watch")
    name.press("Control+z")  # the field's own undo: no control moves
    name.fill("for the watch")
    name.press("Enter")
    page.get_by_role("textbox", name="Notes on this point").fill("charge it daily")
    redo.click()  # the note is written by leaving its field, and belongs to the point that was shown
    notebook.until("[v.note for v in bench.points if v.name == 'for the watch'] == ['charge it daily']")
    notebook.wait("() => document.querySelector('.ck-grow .js-plotly-plot').data.at(-1).text?.[0].includes('watch')")
    notebook.until("bench.setting == Setting(0.95) and bench.wait_idle(120)")
    assert notebook.kernel("print(bench.points[1].setting.weights, bench.points[1].name)") == "4 for the watch\n"

    def place(point):
        return page.evaluate(
            "(i) => { const p = document.querySelector('.ck-grow .js-plotly-plot');"
            " const traces = [...p.querySelectorAll('.scatterlayer .trace')].map((t) => t.querySelectorAll('.point'));"
            " const b = traces.find((t) => t.length === 3)[i].getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; }",
            point,
        )

    for chosen in (1, 2):
        notebook.click_point(*place(chosen), "Shift")
        notebook.until(f"bench._compare.pair[{chosen - 1}] == bench.points[{chosen}].setting")
    page.get_by_text("Only A reads").first.wait_for()
    found = json.loads(
        notebook.kernel("r = bench._compare.comparison.readings; print([len(r.only_first), len(r.only_second)])")
    )
    fresh = (
        "right = [ck.evaluate(ck.compress(bench.checkpoint, s.recipe(), bench.calibration), bench.test).predictions"
        " == bench.test.labels for s in (Setting(weights=4), Setting(0.95))]\n"
        "print([int((a & ~b).sum()) for a, b in (right, right[::-1])])"
    )
    assert found == json.loads(notebook.kernel(fresh))
    for letter in "AB":
        assert page.get_by_role("combobox", name=f"Point {letter} to compare").count() == 1
    assert page.locator(".ck-compare .ck-digit").count() > 10
    assert page.locator(".ck-controls").bounding_box()["height"] == height, "nothing jumps"
    page.set_viewport_size({"width": 1280, "height": 2500})
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"workbench-compare-{'dark' if dark else 'light'}", ".compresskit")
    notebook.theme(False)
    page.set_viewport_size({"width": 1280, "height": 1400})
    page.get_by_role("button", name="Close the comparison").click()
    page.locator(".ck-compare").wait_for(state="detached")


def test_the_file_and_the_recipe_can_be_taken_out(workbench, tmp_path):
    notebook = workbench
    with notebook.page.expect_download() as download:
        notebook.page.get_by_role("button", name="Download the .tflite").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    digest = notebook.kernel("print(bench.point.compressed.digest)").strip()
    assert path.name == "digit_reader_w8a8.tflite"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    notebook.page.get_by_role("button", name="Copy the recipe").click()
    notebook.page.get_by_text("Copied").wait_for()
    text = notebook.page.evaluate("() => navigator.clipboard.readText()")
    assert "ck.compress(model, ck.Recipe(ck.Quantize()), calibration=digits.train)" in text


def test_without_a_clipboard_the_recipe_is_shown_and_selected(workbench):
    notebook = workbench
    notebook.page.evaluate(
        "() => Object.defineProperty(navigator, 'clipboard', { value: { writeText: () => Promise.reject() } })"
    )
    notebook.page.get_by_role("button", name="Copy the recipe").click()
    notebook.page.get_by_text("Ctrl+C").wait_for()
    selected = notebook.page.evaluate(
        "() => { const e = document.activeElement; return e.value.slice(e.selectionStart, e.selectionEnd); }"
    )
    assert "ck.Recipe" in selected


def test_running_the_cell_again_leaves_one_workbench(workbench):
    notebook = workbench
    notebook.kernel("first = bench")
    notebook.run_all()
    notebook.wait(EXACT)
    assert notebook.kernel("print(first.closed, bench.closed)") == "True False\n"
    threads = "import threading; print(sum(t.name == 'compresskit-live' for t in threading.enumerate()))"
    assert notebook.kernel(threads) == "1\n"
    assert notebook.page.locator(".compresskit").count() == 1


@pytest.mark.parametrize("width", [1280, 1920])
def test_screenshots_of_the_workbench(workbench, width):
    """Pictures to look at; what is asserted is that nothing is cut off or lies over something else."""
    notebook = workbench
    notebook.page.set_viewport_size({"width": width, "height": 1750})
    notebook.kernel(
        "from compresskit.widgets.points import Setting\n"
        "for setting in (Setting(0.5), Setting(weights=4), Setting(0.4, weights=4, ranges='octav'),\n"
        "                Setting(0.7, 'global')):\n"
        "    bench.move_to(setting); bench.wait_idle(120)"
    )
    notebook.wait("() => document.querySelector('.ck-grow .js-plotly-plot').data[1].x.length === 5")
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"workbench-{width}-{'dark' if dark else 'light'}", ".compresskit")
    if width == 1280:
        for name in ("Prune", "Train", "Plot"):
            tab(notebook, name)
            notebook.screenshot(f"workbench-{name.lower()}", ".ck-controls")
    cut = notebook.page.evaluate(
        "() => [...document.querySelectorAll('.compresskit .widget-label, .compresskit button, .compresskit td')]"
        ".filter((e) => e.offsetWidth > 0 && e.scrollWidth > e.offsetWidth + 1).map((e) => e.textContent)"
    )
    assert cut == []
    colours = notebook.page.evaluate(
        "() => { const p = document.querySelector('.ck-grow .js-plotly-plot');"
        " return [getComputedStyle(p.querySelector('.xtick text')).fill,"
        " getComputedStyle(document.querySelector('.compresskit')).color]; }"
    )
    assert colours[0] == colours[1], "the plot's text takes the theme's colour"


def test_draw_and_read(open_notebook):
    cell = "from compresskit.widgets.draw_and_read import draw_and_read\npanel = draw_and_read()\npanel"
    notebook = open_notebook([cell], height=900)
    notebook.run_all()
    notebook.page.get_by_text("Both read a 7.").wait_for()
    canvas = notebook.page.get_by_role("img", name="Draw a digit here")
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2
    notebook.page.mouse.move(middle, box["y"] + 50)
    notebook.page.mouse.down()
    for step in range(16):
        notebook.page.mouse.move(middle, box["y"] + 50 + 10 * step)
    notebook.page.mouse.up()
    notebook.page.get_by_text("Both read a 1.").wait_for()
    notebook.press(".ck-sparsity", *["PageUp"] * 3)
    notebook.until("panel.setting.sparsity > 0.1 and panel.wait_idle(120)")
    for width in (1280, 1920):
        notebook.page.set_viewport_size({"width": width, "height": 900})
        for dark in (False, True):
            notebook.theme(dark)
            notebook.screenshot(f"draw-{width}-{'dark' if dark else 'light'}", ".compresskit")
    notebook.page.get_by_role("button", name="Clear").click()
    notebook.page.get_by_text("Draw a digit on the black square.").wait_for()


def test_a_training_goes_on_while_sliders_move_and_the_page_is_loaded_again(workbench):
    """The button, progress, a reload in the middle, cancel: and the trained point on the plot, a diamond."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    notebook, page = workbench, workbench.page
    notebook.kernel(
        "from dataclasses import replace\n"
        "bench._data = replace(bench._data, train=bench._data.train.take(20000),"
        " validation=bench._data.validation.take(500))\n"
        "bench.move_to(Setting(0.8, 'global')); bench.wait_idle(120)"
    )
    tab(notebook, "Train")
    notebook.press(".ck-epochs", "End")
    page.get_by_role("button", name="Fine-tune").click()
    page.get_by_text("Loading TensorFlow").wait_for()
    notebook.press(".ck-weights", "ArrowLeft")
    notebook.wait("() => document.querySelector('.ck-weights .widget-readout').textContent.startsWith('7 bits')")
    notebook.wait("() => document.querySelector('.ck-grow .js-plotly-plot').data[1].x.length === 3")
    epoch = page.locator(".ck-tab .ck-figures", has_text="Epoch")
    epoch.wait_for(timeout=120_000)
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    notebook.wait("() => document.querySelector('.ck-grow .js-plotly-plot')?.data?.[1]?.x?.length === 3")
    notebook.wait("() => document.querySelector('.ck-weights .widget-readout').textContent.startsWith('7 bits')")
    epoch.wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator(".ck-tab .ck-figures", has_text="now on 'fine-tuned 1'").wait_for(timeout=120_000)
    notebook.wait("() => document.querySelector('.ck-grow .js-plotly-plot').data[4]?.x?.length === 1")
    assert page.locator(".ck-model select").evaluate("e => e.selectedIndex") == 1
    for dark in (False, True):
        notebook.theme(dark)
        notebook.screenshot(f"workbench-trained-{'dark' if dark else 'light'}", ".compresskit")
    assert notebook.kernel("import sys; print('tensorflow' in sys.modules)") == "False\n"
    page.locator(".ck-model select").select_option(index=0)
    notebook.wait("() => document.querySelector('.ck-model select').selectedIndex === 0")
