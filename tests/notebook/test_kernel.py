"""What the kernels of tested notebooks run first: TensorFlow can be hidden, and LiteRT is not asked twice."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parent / "kernel" / "sitecustomize.py"
IMAGES = np.zeros((3, 2, 2), np.uint8)


@pytest.fixture(scope="module")
def kernel():
    spec = importlib.util.spec_from_file_location("tested_sitecustomize", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def litert(answer: float, size: int = 10):
    """Stand in for LiteRT: it gives one number and counts how often it was asked."""

    def outputs(tflite, images, **_):
        outputs.asked += 1
        return np.full((len(images), size), answer, np.float32)

    outputs.asked = 0
    return outputs


def test_each_question_is_asked_once_but_for_the_first_of_a_kernel(kernel, tmp_path):
    one, other = litert(1.0), litert(1.0)
    first, second = kernel.remembering(one, tmp_path), kernel.remembering(other, tmp_path)
    for ask in (first, first, second, second):
        assert ask(b"a", IMAGES).tolist() == first(b"b", IMAGES).tolist() == [[1.0] * 10] * 3
    assert (one.asked, other.asked) == (2, 1)


def test_another_answer_in_another_kernel_is_a_failure(kernel, tmp_path):
    kernel.remembering(litert(1.0), tmp_path)(b"a", IMAGES)
    with pytest.raises(AssertionError, match="differently"):
        kernel.remembering(litert(2.0), tmp_path)(b"a", IMAGES)


@pytest.mark.parametrize(
    "question",
    [
        (b"b", IMAGES, {}),
        (b"a", IMAGES + np.uint8(1), {}),
        (b"a", IMAGES.reshape(3, 4), {}),
        (b"a", IMAGES.astype(np.int8), {}),
        (b"a", IMAGES, {"reference": True}),
        (b"a", IMAGES, {"rows": np.array([2, 0])}),
    ],
)
def test_other_questions_are_asked(kernel, tmp_path, question):
    tflite, images, settings = question
    counted = litert(1.0)
    ask = kernel.remembering(counted, tmp_path)
    ask(b"a", IMAGES)
    ask(tflite, images, **settings)
    assert counted.asked == 2


def test_what_is_large_is_not_kept(kernel, tmp_path):
    counted = litert(1.0, size=100_000)
    ask = kernel.remembering(counted, tmp_path)
    ask(b"a", IMAGES)
    ask(b"a", IMAGES)
    assert counted.asked == 2 and list(tmp_path.iterdir()) == []


def test_a_kernel_of_the_plain_install_finds_no_tensorflow_and_shares_answers(tmp_path):
    program = """
from importlib.util import find_spec
import compresskit.litert.runtime as runtime
found = [find_spec(name) is not None for name in ("tensorflow", "tf_keras", "keras", "numpy")]
print(found, runtime.outputs.__name__)
"""
    told = []
    for settings in ({}, {"COMPRESSKIT_PLAIN_INSTALL": "1", "COMPRESSKIT_ANSWERS": str(tmp_path)}):
        unset = {name: value for name, value in os.environ.items() if not name.startswith("COMPRESSKIT_")}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**unset, **settings, "PYTHONPATH": str(FILE.parent)},
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(done.stdout.strip())
    assert told == ["[True, True, True, True] outputs", "[False, False, False, True] remembered"]
