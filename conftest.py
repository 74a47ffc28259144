"""What pytest needs to know of every test: the order of the files, and how nbval compares the notebooks' outputs.

It stands in the root because `pytest --nbval notebooks` reads no conftest.py of another folder.

Where a lesson has a copy with solutions, that copy is run with TensorFlow, and the learner's as on the plain install:
a lesson has to work in both, and what is trained in both copies is the same (`tests/notebook` sees to that). What one
copy asked LiteRT, the other need not ask again (`tests/notebook/kernel`).
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import pytest

NOT_COMPARED = (
    "application/vnd.plotly.v1+json",  # compared as one exact dict and never sanitized; tests assert on its numbers
    "image/svg+xml",  # pictures, like PNG, which nbval leaves out already: fonts and rasters differ by machine
)

KERNEL = Path(__file__).parent / "tests" / "notebook" / "kernel"
ONLY_WITH_TENSORFLOW = re.compile(r"^if (trained_here|has_tensorflow)\b.*:$", re.MULTILINE)

# Files that take longest (seconds of a processor, roughly). Begun first, they leave no worker alone at the end; where
# the order is out of date, the run is a little longer and nothing else.
DEAREST = (
    "01_train_a_digit_reader",  # 80
    "11_distillation",  # 60
    "06_quantization_aware_training",  # 50
    "05_post_training_quantization",  # 50
    "07_pruning_weights",  # 45
    "03_choosing_ranges",  # 35
    "08_pruning_structure",  # 35
    "09_sharing_and_coding_weights",  # 30
    "10_low_rank",  # 30
    "own_models",  # 25
    "test_training_prune",  # 45
    "test_zoo",  # 45
    "test_data_sources",  # 35
    "test_training_quantize",  # 35
    "test_training_convert",  # 35
    "test_integer_against_litert",  # 25
    "test_training_distill",  # 20
    "test_jobs",  # 20
    "test_training_fit",
    "test_training_cluster",
    "test_lessons",  # 85
    "test_panels",  # 85
    "test_rough_hands",  # 85
    "test_quantization_panels",  # 35
    "test_widgets",  # 30
    "test_qat",  # 20
    "test_course",
    "test_patterns",
    "test_distillation",
    "test_sharing",
    "test_integers",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that the kernels of this run share, xdist's workers' too."""
    if getattr(config.option, "nbval", False) and "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="compresskit-answers-")
        os.environ["COMPRESSKIT_ANSWERS"] = folder.name
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(KERNEL), os.environ.get("PYTHONPATH"))))
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files into order, solutions first, since they train; and tell nbval what not to compare."""
    tests = Counter(item.path for item in items)
    place = {name: number for number, name in enumerate(DEAREST)}
    plain = {path: is_plain(item) for path, item in {item.path: item for item in items}.items()}
    items.sort(
        key=lambda item: (
            plain[item.path],
            place.get(item.path.stem, len(DEAREST)),
            -tests[item.path],
            str(item.path),
        )
    )
    compare_what_can_be(items)


def is_cell(item: pytest.Item) -> bool:
    """Tell whether a test is a notebook's cell."""
    return type(item).__name__ == "IPyNbCell"


def is_plain(item: pytest.Item) -> bool:
    """Tell whether a cell belongs to a notebook that is run as on the plain install."""
    return is_cell(item) and (item.path.parent / "solutions" / item.path.name).exists()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Choose what the kernel will find: nbval starts it when the first cell of a notebook is set up."""
    if is_cell(item):
        os.environ["COMPRESSKIT_PLAIN_INSTALL"] = str(int(is_plain(item)))


def compare_what_can_be(items: list[pytest.Item]) -> None:
    """Leave pictures out, and, where full MNIST could not be had, compare nothing: other digits, other numbers."""
    cells = [item for item in items if is_cell(item)]
    if not cells:
        return
    # As where they are built: a panel's still picture is compared, and on a busy machine it comes late.
    os.environ["COMPRESSKIT_PICTURE_PATIENCE"] = "120"
    for notebook in {id(cell.parent): cell.parent for cell in cells}.values():
        notebook.skip_compare = (*notebook.skip_compare, *NOT_COMPARED)
    for cell in cells:
        if is_plain(cell) and ONLY_WITH_TENSORFLOW.search(cell.cell.source):
            cell.options["check"] = False  # the saved output is TensorFlow's
    from compresskit.data import load_mnist

    digits = load_mnist()
    if not digits.complete:
        warnings.warn(f"notebooks are run, but their outputs are not compared: {digits.notice}", stacklevel=1)
        for cell in cells:
            cell.options["check"] = False
