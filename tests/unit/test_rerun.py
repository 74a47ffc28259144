"""What a workbench leaves behind: little in a saved notebook, next to nothing in a kernel that runs its cell again."""

from __future__ import annotations

import json
import os

import nbformat
import pytest
from nbclient import NotebookClient

from compresskit.app import memory_settings

LARGEST_NOTEBOOK = 200_000
WARM = 2
TIMES = 10 if "COMPRESSKIT_FUZZ" in os.environ else 3
LARGEST_LEAK = 20_000_000 if TIMES == 10 else 12_000_000  # bytes; a short run is less even

FIRST = """
import ctypes, gc, psutil, sys
import compresskit as ck
from compresskit.widgets import panel
from compresskit.widgets.points import Setting
panel.running_cell = lambda: "the cell"  # a notebook's own cell, run again and again; not every front end names it
def resident():
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the allocator keeps in reserve is no leak
    return psutil.Process().memory_info().rss
"""
AGAIN = """
bench = ck.Workbench("digit_reader", setting=Setting(0.6, "global"))
bench.wait_idle(120)
bench
"""


@pytest.fixture(scope="module")
def book():
    """One cell run again and again in a kernel as the lab starts it, with what each run left resident."""
    codes = [FIRST, *([AGAIN, "resident()"] * (WARM + TIMES))]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in memory_settings().items():
            patch.setenv(name, value)
        NotebookClient(made, timeout=300, store_widget_state=False).execute()
    return made


def test_running_the_cell_again_leaks_next_to_nothing(book):
    """The first runs fill caches that stay; from then on each earlier workbench is let go."""
    found = [int(cell.outputs[0]["data"]["text/plain"]) for cell in book.cells if cell.source == "resident()"]
    told = ", ".join(f"{each / 1e6:.0f}" for each in found)
    assert found[-1] - found[WARM - 1] <= LARGEST_LEAK, f"MB after each run: {told}"


def test_a_saved_notebook_with_a_workbench_is_small(book):
    cell = next(cell for cell in book.cells if cell.source == AGAIN)
    assert "application/vnd.jupyter.widget-view+json" in cell.outputs[-1]["data"], "it is the live one"
    saved = nbformat.v4.new_notebook(cells=[cell], metadata=book.metadata)
    assert len(json.dumps(saved)) < LARGEST_NOTEBOOK
