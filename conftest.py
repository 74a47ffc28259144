"""What pytest needs to know of every test: the order of the files, and how nbval compares the notebooks' outputs.

It stands in the root because `pytest --nbval notebooks` reads no conftest.py of another folder.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter

import pytest

NOT_COMPARED = (
    "application/vnd.plotly.v1+json",  # compared as one exact dict and never sanitized; tests assert on its numbers
    "image/svg+xml",  # pictures, like PNG, which nbval leaves out already: fonts and rasters differ by machine
)

# Files that take longest (seconds of a processor, roughly). Begun first, they leave no worker alone at the end; where
# the order is out of date, the run is a little longer and nothing else.
DEAREST = (
    "01_train_a_digit_reader",  # 75
    "05_post_training_quantization",  # 45
    "07_pruning_weights",  # 45
    "06_quantization_aware_training",  # 35
    "03_choosing_ranges",  # 35
    "08_pruning_structure",  # 30
    "09_sharing_and_coding_weights",  # 30
    "10_low_rank",  # 30
    "11_distillation",  # 25
    "test_data_sources",  # 35
    "test_integer_against_litert",  # 25
    "test_training_quantize",
    "test_training_prune",
    "test_training_distill",
    "test_training_fit",
    "test_training_cluster",  # 15
    "test_training_convert",  # 15
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files into order, and tell nbval what not to compare."""
    tests = Counter(item.path for item in items)
    place = {name: number for number, name in enumerate(DEAREST)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(DEAREST)), -tests[item.path], str(item.path)))
    compare_what_can_be(items)


def compare_what_can_be(items: list[pytest.Item]) -> None:
    """Leave pictures out, and, where full MNIST could not be had, compare nothing: other digits, other numbers."""
    cells = [item for item in items if type(item).__name__ == "IPyNbCell"]
    if not cells:
        return
    # As where they are built: a panel's still picture is compared, and on a busy machine it comes late.
    os.environ["COMPRESSKIT_PICTURE_PATIENCE"] = "120"
    for notebook in {id(cell.parent): cell.parent for cell in cells}.values():
        notebook.skip_compare = (*notebook.skip_compare, *NOT_COMPARED)
    from compresskit.data import load_mnist

    digits = load_mnist()
    if not digits.complete:
        warnings.warn(f"notebooks are run, but their outputs are not compared: {digits.notice}", stacklevel=1)
        for cell in cells:
            cell.options["check"] = False
