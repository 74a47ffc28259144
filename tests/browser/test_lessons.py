"""Lessons as a learner runs them: opened in JupyterLab, all cells run, no error in a cell or in the console."""

from __future__ import annotations

import nbformat
import pytest
from lab_driver import ROOT

LESSONS = ("00_start_here", "01_train_a_digit_reader", "workbench")


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_learner_copy_runs_from_top_to_bottom(open_notebook, lab, lesson):
    book = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    notebook = open_notebook([cell for cell in book.cells if cell.cell_type == "code"], height=2200)
    notebook.run_all(minutes=10)  # lesson 01 trains a network: one minute on two idle cores
    panels = notebook.page.locator(".compresskit")
    panels.first.wait_for()
    assert panels.count() >= 1
    assert notebook.page.get_by_role("alert").count() == 0
    notebook.screenshot(f"lesson-{lesson}", ".jp-WindowedPanel-outer")
