"""What pytest needs to know of every test: here, how nbval compares the notebooks' outputs.

It stands in the root because `pytest --nbval notebooks` reads no conftest.py of another folder.
"""

from __future__ import annotations

import warnings

import pytest

NOT_COMPARED = (
    "application/vnd.plotly.v1+json",  # compared as one exact dict and never sanitized; tests assert on its numbers
    "image/svg+xml",  # pictures, like PNG, which nbval leaves out already: fonts and rasters differ by machine
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave pictures out, and, where full MNIST could not be had, compare nothing: other digits, other numbers."""
    cells = [item for item in items if type(item).__name__ == "IPyNbCell"]
    if not cells:
        return
    for notebook in {id(cell.parent): cell.parent for cell in cells}.values():
        notebook.skip_compare = (*notebook.skip_compare, *NOT_COMPARED)
    from compresskit.data import load_mnist

    digits = load_mnist()
    if not digits.complete:
        warnings.warn(f"notebooks are run, but their outputs are not compared: {digits.notice}", stacklevel=1)
        for cell in cells:
            cell.options["check"] = False
