"""A workbench in rough hands: every control, two tabs, an interrupt, a slow network, a restart, and anything at random.

``make monkey`` lets the random hands go on for ten minutes (COMPRESSKIT_HANDS_SECONDS, COMPRESSKIT_HANDS_SEED). When
they break something, the test names a file with what they did; COMPRESSKIT_HANDS_REPLAY=FILE does the same again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_driver import ROOT
from rough_hands import Hands, read, written

READ = 2000
CELL = f"""import dataclasses
import compresskit as ck
from compresskit.widgets.points import Setting
digits = ck.load_mnist()
few = dataclasses.replace(digits, test=digits.test.take({READ}), train=digits.train.take(3000),
                          validation=digits.validation.take(500))
bench = ck.Workbench("digit_reader", few)
bench"""
TRAINS_FOR_EVER = """
import subprocess, sys, types
from compresskit.widgets import jobs
program = '''
import json, sys, threading, time
ended, step = threading.Event(), 0
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.wait(0.1):
    step += 1
    told = dict(epoch=1, epochs=2, step=step, steps=10**6, loss=1 / step, validation_accuracy=None, seconds=1.0)
    print(json.dumps({"progress": told | {"seconds_left": 1.0}}), flush=True)
print(json.dumps({"error": "It ended when it was told to"}), flush=True)
'''
start = lambda command, **settings: subprocess.Popen([sys.executable, "-c", program], **settings)
jobs.subprocess = types.SimpleNamespace(Popen=start, PIPE=subprocess.PIPE)
"""
TRAIN = """
import time
bench.train()
while bench._training.job._process is None: time.sleep(0.01)  # what is started while a cell runs hears interrupts
"""
PLOT = "document.querySelector('.ck-grow .js-plotly-plot')"
SHOWN = f"() => {PLOT}?.data?.[1]?.x?.length >= 1"
NUMBER = f"(n) => {PLOT}?.data?.[1]?.x?.length === n"
KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
READOUT = "() => document.querySelector('.ck-weights .widget-readout').textContent"
HEAR = f"""() => {{
  window.ckSaid = [];
  {KERNEL}.iopubMessage.connect((_, {{ header, content }}) => {{
    if (header.msg_type === "error") window.ckSaid.push(content.ename + ": " + content.evalue);
    if (header.msg_type === "stream" && content.name === "stderr") window.ckSaid.push(content.text);
  }});
}}"""
FRESH = """
import json, sys, compresskit as ck
from compresskit.widgets.points import preview_of
program, read, preview = sys.stdin.read(), int(sys.argv[1]), sys.argv[2] == "preview"
made = program.partition("print(ck.evaluate")[0]
names = {}
exec(made, names)
digits = names["digits"].test.take(read)
score = ck.evaluate(names["small"], preview_of(digits) if preview else digits)
print(json.dumps([names["small"].size, score.accuracy]))
"""


@pytest.fixture(scope="module")
def shared(open_shared):
    """One notebook with a workbench and two more cells."""
    notebook = open_shared([CELL, "below = 1", "further_below = 2"])
    notebook.run_all()
    notebook.wait(SHOWN)
    return notebook


@pytest.fixture
def workbench(shared):
    """The shared notebook, its workbench as at the beginning."""
    begin_again(shared)
    return shared


def begin_again(notebook, setting="Setting()"):
    """Put the controls somewhere and leave one point on the plot."""
    notebook.kernel(f"bench.move_to({setting}); bench.wait_idle(120); bench.clear()")
    notebook.wait(f"() => {PLOT}.data[1].x.length === 1 && {PLOT}.data[2].x.length === 0")


def tab(notebook, name):
    """Bring a tab of the controls to the front."""
    notebook.page.locator(".ck-tabs").get_by_role("tab", name=name, exact=True).click()


def sources(notebook):
    """What kinds of cells the notebook has, and what stands in them."""
    return notebook.page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.widgets.map("
        "(cell) => [cell.model.type, cell.model.sharedModel.getSource()])"
    )


def agrees_with_a_fresh_process(notebook, folder):
    """Compare the ring on the plot, and the line above it, with the program that the page shows, run elsewhere."""
    page = notebook.page
    program = page.locator("textarea.ck-code").first.input_value()
    ring = notebook.chart(".ck-grow")["data"][3]
    read = "preview" if "<br>preview of" in ring["text"][0] else "all"
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(READ), read], input=program, capture_output=True, text=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"{program}\n{done.stderr[-2000:]}"
    size, accuracy = json.loads(done.stdout.splitlines()[-1])
    assert (ring["x"], ring["customdata"][0][1]) == ([size / 1000], accuracy), program
    line = page.locator(".ck-grow .ck-status").first
    if line.get_attribute("role") == "alert":
        return  # it says why the controls, as they stand, make no file; the ring is the last that there was
    assert read == "all", program
    told = line.inner_text()
    shown = re.search(r"([\d,]+) bytes", told)
    assert shown and int(shown[1].replace(",", "")) == size, (told, program)
    assert f"{100 * accuracy:.2f} % right" in told.replace("\xa0", " "), (told, program)


# Each control, and what a hand does to it: a slider's keys, a list's value, the label of one of several buttons.
MOVES = [
    ("", "sparsity", "PageUp"), ("", "weights", "ArrowLeft"),
    ("Prune", "importance", "by lot"), ("Prune", "scope", "whole network"), ("Prune", "own-sparsity-2", "PageUp"),
    ("Grid", "granularity", "whole layer"), ("Grid", "ranges", "OCTAV"),
    ("Grid", "activation-ranges", "percentile"), ("Grid", "io", "uint8"), ("", "layer-bits", "8"),
    ("", "pattern", "channels, removed"), ("", "activations", "float"),
]  # fmt: skip


# The same, for what does something only once values are shared and layers cut.
SHARED_MOVES = [
    ("Share, rank", "shared", "ArrowRight"), ("Share, rank", "share-method", "ternary: -a, 0, a"),
    ("Share, rank", "share-granularity", "each channel"), ("Share, rank", "low-rank", "ArrowLeft"),
    ("Share, rank", "convolutions", "become two"),
]  # fmt: skip


def move(notebook, name, what):
    """Do to a control what `MOVES` says."""
    field = notebook.page.locator(f".ck-{name}").first
    if field.locator(".noUi-handle").count():
        notebook.press(f".ck-{name}", what)
    elif field.locator("select").count():
        field.locator("select").select_option(what)
    else:
        field.get_by_role("button", name=what, exact=True).click()


def test_each_control_moves_the_plot(workbench):
    notebook = workbench
    starts = {"Setting(0.3, weights=4)": MOVES, "Setting(0.3, shared=8, low_rank=0.25)": SHARED_MOVES}
    for start, (behind, name, what) in ((start, each) for start, moves in starts.items() for each in moves):
        begin_again(notebook, start)
        if behind:
            tab(notebook, behind)
        move(notebook, name, what)
        notebook.until(f"bench.setting != {start} and bench.wait_idle(120)")
        assert notebook.page.locator(".ck-grow").get_by_role("alert").count() == 0, name
        notebook.wait(NUMBER, 2)
    # The model is the one control that needs a training first: its test is in test_panels.


def test_each_axis_moves_the_points(workbench):
    notebook = workbench
    tab(notebook, "Plot")
    axis = notebook.page.locator(".ck-axis select")
    seen = set()
    for place in range(axis.locator("option").count()):
        axis.select_option(index=place)
        notebook.until("bench.wait_idle(120)")
        notebook.wait(f"(seen) => {PLOT}.data[3].x.length === 1 && !seen.includes({PLOT}.data[3].x[0])", list(seen))
        seen.add(notebook.chart(".ck-grow")["data"][3]["x"][0])
    axis.select_option(index=0)
    upward = f"JSON.stringify({PLOT}.layout.yaxis)"
    for button in notebook.page.locator(".ck-upward button").all()[::-1]:
        before = notebook.page.evaluate(upward)
        button.click()
        notebook.wait(f"(before) => {upward} !== before", before)


def test_plain_keys_stay_in_the_panel(workbench):
    notebook, page = workbench, workbench.page
    before = sources(notebook)
    pattern = page.locator(".ck-pattern select")
    pattern.focus()
    page.keyboard.press("ArrowDown")
    assert pattern.evaluate("(list) => list.selectedIndex") == 1, "the arrow chooses, and does not leave the cell"
    page.keyboard.press("c")
    assert pattern.evaluate("(list) => list.selectedIndex") == 5, "a letter chooses by name"
    notebook.press(".ck-weights", "x", "d", "d", "m", "b", "0", "0")
    page.locator(".ck-clear").focus()
    page.keyboard.press("Enter")
    page.locator(".ck-title").click()
    for key in ("ArrowDown", "b", "x", "Control+z"):
        page.keyboard.press(key)
    notebook.until("bench._undo._history.can_redo")
    page.locator(".ck-grow .nsewdrag").first.click()
    page.keyboard.press("d")
    page.keyboard.press("d")
    assert sources(notebook) == before
    assert page.evaluate("() => Boolean(document.activeElement.closest('.compresskit'))")


def test_the_keys_of_a_slider_that_stands_still_do_not_scroll_the_notebook(workbench):
    notebook, page = workbench, workbench.page
    begin_again(notebook, "Setting(pattern='2:4')")
    handle = page.locator(".ck-sparsity .noUi-handle")
    handle.scroll_into_view_if_needed()
    stands = "() => document.querySelector('.ck-sparsity .noUi-handle').getBoundingClientRect().y"
    before = page.evaluate(stands)
    notebook.press(".ck-sparsity", "PageDown", "End", "Space")
    page.wait_for_timeout(400)  # the page scrolls softly
    assert page.evaluate(stands) == before
    assert page.locator(".ck-sparsity [disabled]").count() == 1


def test_the_panel_answers_while_a_cell_runs(workbench):
    notebook = workbench
    notebook.page.evaluate(
        f"() => {{ window.ckBusy = true; const code = 'import time\\nwhile not ended: time.sleep(0.05)';"
        f" {KERNEL}.requestExecute({{ code: 'ended = False' }});"
        f" {KERNEL}.requestExecute({{ code }}).done.then(() => {{ window.ckBusy = false; }}); }}"
    )
    notebook.wait(f"() => {KERNEL}.status === 'busy'")
    notebook.press(".ck-weights", "ArrowLeft")
    notebook.wait(NUMBER, 2)
    still_busy = notebook.page.evaluate("() => window.ckBusy")
    notebook.page.evaluate(f"() => {KERNEL}.interrupt()")
    notebook.wait("() => window.ckBusy === false")
    assert still_busy


def test_an_interrupt_leaves_a_living_panel(workbench):
    notebook = workbench
    notebook.press(".ck-sparsity", "PageUp", "PageUp")
    notebook.page.evaluate(f"() => {KERNEL}.interrupt()")
    notebook.until("bench.wait_idle(120)")
    notebook.press(".ck-weights", "ArrowLeft")
    notebook.until("bench.setting.weights == 7 and bench.wait_idle(120) and bench.point.setting == bench.setting")
    assert notebook.page.locator(".compresskit").get_by_role("alert").count() == 0


def test_an_interrupt_is_not_for_the_training(workbench):
    notebook, page = workbench, workbench.page
    notebook.kernel(TRAINS_FOR_EVER)
    try:
        tab(notebook, "Train")
        notebook.kernel(TRAIN)
        told = page.locator(".ck-tab .ck-status").first
        told.get_by_text("Epoch 1 of 2").wait_for()
        notebook.press(".ck-weights", "ArrowLeft")
        page.evaluate(f"() => {KERNEL}.interrupt()")
        before = told.inner_text()
        notebook.wait("(before) => document.querySelector('.ck-tab .ck-status').innerText !== before", before)
        notebook.until("bench._training.job.busy and bench.point.setting.weights == 7")
        page.locator(".ck-cancel").first.click()
        told.get_by_text("ended when it was told to").wait_for()
        assert page.locator(".ck-train").is_enabled()
    finally:
        notebook.kernel("jobs.subprocess = subprocess; bench._training.job.cancel()")
        tab(notebook, "Prune")


def test_two_tabs_show_one_workbench(workbench):
    first = workbench
    first.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    second = first.beside()
    second.wait(NUMBER, 1)
    second.press(".ck-weights", "ArrowLeft")
    first.wait(NUMBER, 2)
    first.press(".ck-weights", "ArrowLeft")
    second.wait(NUMBER, 3)
    assert first.page.evaluate(READOUT) == second.page.evaluate(READOUT) == "6 bits, stored as 8"
    assert first.chart(".ck-grow")["data"] == second.chart(".ck-grow")["data"]
    second.page.close()
    assert second.errors == []
    first.press(".ck-weights", "ArrowLeft")
    first.wait(NUMBER, 4)


def test_a_slow_network_ends_where_the_hand_let_go(workbench):
    notebook = workbench
    notebook.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    slow = notebook.page.context.new_cdp_session(notebook.page)
    received: list[int] = []
    slow.on("Network.webSocketFrameReceived", lambda event: received.append(len(event["response"]["payloadData"])))
    slow.send("Network.enable")
    speed = {"offline": False, "latency": 200, "downloadThroughput": 400_000, "uploadThroughput": 50_000}
    slow.send("Network.emulateNetworkConditions", speed)
    notebook.page.reload()
    notebook.wait(NUMBER, 1)
    assert sum(size > 1_000_000 for size in received) == 1, "plotly.js once, however long it takes"
    notebook.press(".ck-weights", *["ArrowLeft"] * 3)
    notebook.press(".ck-sparsity", *["ArrowRight"] * 20)
    notebook.until("bench.setting == Setting(0.2, weights=5) and bench.wait_idle(120)")
    size = float(notebook.kernel("print(bench.point.compressed.size / 1000)"))
    notebook.wait(f"(x) => {PLOT}.data[3].x[0] === x", size)
    slow.detach()


def test_random_hands_leave_a_living_panel(workbench, tmp_path):
    notebook, page = workbench, workbench.page
    seconds = float(os.environ.get("COMPRESSKIT_HANDS_SECONDS", "20"))
    seed = int(os.environ.get("COMPRESSKIT_HANDS_SEED", "7"))
    replay = os.environ.get("COMPRESSKIT_HANDS_REPLAY", "")
    before = sources(notebook)
    page.evaluate(HEAR)
    hands = Hands(notebook, seed, trains=seconds > 60)
    try:
        end = time.monotonic() + seconds
        for deed in read(Path(replay).read_text("utf-8")) if replay else ():
            hands.do(deed)
        while not replay and time.monotonic() < end:
            hands.act()
        come_to_rest(notebook)
        assert notebook.errors == []
        assert page.evaluate("() => window.ckSaid") == [], "the kernel complained"
        assert sources(notebook) == before, "the notebook was changed"
        agrees_with_a_fresh_process(notebook, tmp_path)
        notebook.kernel("bench.move_to(Setting(0.3, weights=4)); bench.wait_idle(120)")
        agrees_with_a_fresh_process(notebook, tmp_path)
        print(f"seed {seed}: {len(hands.done):,} deeds broke nothing")
    except BaseException as error:
        kept = ROOT / "build" / f"hands-{seed}.jsonl"
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(written(hands.done), "utf-8")
        notebook.screenshot(f"hands-{seed}")
        last = written(hands.done[-15:])
        error.add_note(f"seed {seed}, {len(hands.done)} deeds, written to {kept}; the last:\n{last}")
        raise


def come_to_rest(notebook):
    """Let go: end a training, wait for what is computed, and put the axes and the model back, as a hand would."""
    page = notebook.page
    page.keyboard.press("Escape")
    page.wait_for_timeout(1000)  # what the page still has to send would move the controls again
    if notebook.kernel("print(bench._training.job.busy)") == "True\n":
        tab(notebook, "Train")
        page.locator(".ck-cancel").first.click()
    notebook.until("bench.wait_idle(1)", minutes=5)
    page.locator(".ck-model select").select_option(index=0)
    tab(notebook, "Plot")
    page.locator(".ck-axis select").select_option(index=0)
    page.locator(".ck-upward button").first.click()
    notebook.kernel("import dataclasses; bench.move_to(dataclasses.replace(bench.setting, activations=8))")
    page.wait_for_timeout(500)
    notebook.until("bench.wait_idle(1)", minutes=5)


def test_a_restarted_kernel_is_told_and_the_cell_brings_the_panel_back(workbench):
    notebook, page = workbench, workbench.page
    page.evaluate(f"async () => {{ await {KERNEL}.restart(); }}")
    told = "() => getComputedStyle(document.querySelector('.compresskit'), '::before').content"
    notebook.wait(f"() => ({told})().includes('run this cell again')")
    notebook.screenshot("restarted", ".compresskit")
    notebook.run_all()
    notebook.wait(SHOWN)
    assert page.locator(".compresskit").count() == 1 and page.evaluate(told) == "none"
    notebook.press(".ck-weights", "ArrowLeft")
    notebook.wait(NUMBER, 2)
