"""Predictions, checks and lesson panels in a real JupyterLab, by keyboard where a learner might use it."""

from __future__ import annotations

import pytest

PREDICT = """
from compresskit.course import predict, reveal
guess = predict("Which layer is the largest?", choices=["conv1", "conv2", "dense"])
size = predict("How large is the file?", unit="kB")
"""
CHECK = """
from compresskit.course import check
check("01.wilson_interval", lambda right, n: (right / n - 0.01, right / n + 0.01))
check("01.first_to_shrink", lambda layers, goal: layers[0][0])
"""


def wait_for(notebook, code: str, expected: str) -> None:
    for _ in range(100):
        if notebook.kernel(code).strip() == expected:
            return
        notebook.page.wait_for_timeout(50)
    assert notebook.kernel(code).strip() == expected


def test_predictions_are_made_by_keyboard(open_notebook):
    notebook = open_notebook([PREDICT, "# below"])
    notebook.run_all()
    page = notebook.page
    page.get_by_role("radio", name="conv1").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("radio", name="conv2").is_checked(), "the arrow stays in the question"
    page.keyboard.press("Enter")
    wait_for(notebook, "print(guess.answer)", "conv2")
    field = page.get_by_role("textbox", name="How large is the file? (kB)")
    field.fill("many")
    field.press("Enter")
    page.get_by_text("Please give a number.").wait_for()
    field.fill("1,690.5")
    field.press("Enter")
    wait_for(notebook, "print(size.answer)", "1690.5")
    assert page.get_by_role("radio", name="dense").is_disabled() and field.is_disabled()
    assert page.get_by_role("button", name="Commit").first.is_disabled()
    notebook.screenshot("predict")
    told = notebook.kernel(
        "from compresskit.course.predict import comparison; print(comparison(guess, 'dense', 'Why.')['text/plain'])"
    )
    assert "You said: conv2. It is: dense. Why." in told


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_checks_draw_what_is_wrong(open_notebook, dark):
    notebook = open_notebook([CHECK])
    notebook.run_all()
    notebook.theme(dark)
    notebook.page.get_by_role("img", name="your interval above the expected one").wait_for()
    notebook.page.get_by_text("← your answer").wait_for()
    notebook.screenshot(f"checks-{'dark' if dark else 'light'}")


TRAIN = """
import time
from types import SimpleNamespace
from compresskit.widgets.curves import watch
with watch(3, target=0.99) as training:
    for step in range(1, 3001):
        if training.cancel.is_set():
            break
        epoch, within = divmod(step - 1, 1000)
        done = epoch > 0
        training.update(SimpleNamespace(epoch=epoch + 1, epochs=3, step=within + 1, steps=1000,
            loss=2 / (1 + step / 50), accuracy=1 - 0.9 / (1 + step / 30), validation_loss=0.1 if done else None,
            validation_accuracy=0.97 if done else None, seconds=step / 100, seconds_left=(3000 - step) / 100))
        time.sleep(0.1)
"""


READY = """async () => {
  const pause = () => new Promise((done) => setTimeout(done, 50));
  while (!(window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 0)) await pause();
  const panel = jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  while (panel.sessionContext.session.kernel.status !== "idle") await pause();
}"""


def test_a_training_run_is_cancelled_while_its_cell_is_busy(open_notebook):
    notebook = open_notebook([TRAIN])
    page = notebook.page
    page.evaluate(READY)
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    notebook.wait("() => (document.querySelector('.js-plotly-plot')?.data?.[0]?.x?.length ?? 0) > 9")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancelled", exact=True).wait_for()
    notebook.screenshot("training", ".compresskit")
    x = notebook.chart(".compresskit")["data"][0]["x"]
    assert 0 < x[-1] < 3
    assert page.get_by_role("button", name="Cancelled", exact=True).is_disabled()


def test_the_number_line_follows_the_keyboard(open_notebook):
    notebook = open_notebook(
        ["import numpy as np\nfrom compresskit.widgets.number_line import number_line\n"
         "panel = number_line(np.random.default_rng(0).normal(0, 0.05, 5000), 'weights')\npanel"]
    )  # fmt: skip
    notebook.run_all()
    ticks = len(notebook.chart(".compresskit")["data"][1]["x"])
    notebook.press(".ck-bits", "ArrowRight")
    notebook.wait("(n) => document.querySelector('.js-plotly-plot').data[1].x.length !== n", ticks)
    assert len(notebook.chart(".compresskit")["data"][1]["x"]) == 2 * ticks
    assert notebook.page.get_by_role("slider", name="Bits").count() == 1
    notebook.screenshot("number-line", ".compresskit")
