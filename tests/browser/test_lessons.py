"""Lessons as a learner runs them: opened in JupyterLab, all cells run, no error in a cell or in the console."""

from __future__ import annotations

import nbformat
import pytest
from lab_driver import ROOT

LESSONS = ("00_start_here", "02_the_arithmetic_of_int8", "workbench")


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_learner_copy_runs_from_top_to_bottom(open_notebook, lab, lesson):
    book = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    notebook = open_notebook([cell for cell in book.cells if cell.cell_type == "code"], height=2200)
    notebook.run_all()
    panels = notebook.page.locator(".compresskit")
    panels.first.wait_for()
    assert panels.count() >= 1
    assert notebook.page.get_by_role("alert").count() == 0
    notebook.screenshot(f"lesson-{lesson}", ".jp-WindowedPanel-outer")


def test_a_learner_who_stops_the_training_of_lesson_01_goes_on(open_notebook):
    """To its end it is trained where the notebook's outputs are compared; here the button is pressed."""
    book = nbformat.read(ROOT / "notebooks" / "01_train_a_digit_reader.ipynb", as_version=4)
    notebook = open_notebook([cell for cell in book.cells if cell.cell_type == "code"], height=2200)
    notebook.start_all()
    cancel = notebook.page.get_by_role("button", name="Cancel", exact=True)
    cancel.wait_for()
    notebook.wait("() => (document.querySelector('.js-plotly-plot')?.data?.[0]?.x?.length ?? 0) > 2")
    cancel.click()
    notebook.page.get_by_role("button", name="Cancelled", exact=True).wait_for()
    notebook.finish_all(minutes=5)
    assert notebook.page.get_by_role("alert").count() == 0
    notebook.screenshot("lesson-01_train_a_digit_reader", ".jp-WindowedPanel-outer")
