"""A notebook finds out whether it can train, and says what to install; TensorFlow's notices stay out of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compresskit.course import training
from compresskit.quiet import stderr_held_back
from compresskit.training import quiet


@pytest.mark.parametrize(
    ("absent", "said"),
    [({"tensorflow", "tf_keras"}, "TensorFlow and tf-keras are not installed"), ({"tf_keras"}, "tf-keras is not")],
)
def test_what_is_missing_is_said(monkeypatch, capsys, absent, said):
    monkeypatch.setattr(training, "find_spec", lambda name: None if name in absent else object())
    assert training.can_train() is False
    told = capsys.readouterr().out
    assert said in told and "compresskit[train]" in told


def test_notices_are_held_back_and_nothing_after(capfd):
    with stderr_held_back() as written:
        os.write(2, b"a notice\n")
        assert written() == "a notice"
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
    with pytest.raises(KeyError), stderr_held_back():
        os.write(2, b"another\n")
        raise KeyError
    os.write(2, b"heard again\n")
    assert capfd.readouterr().err == "heard again\n"


def test_an_import_that_fails_says_what_was_written(monkeypatch, capfd):
    class Failing:
        def find_spec(self, name, path=None, target=None):
            if name == "tensorflow":
                os.write(2, b"no AVX here\n")
                raise ImportError("cannot load")

    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    with pytest.raises(ImportError, match="cannot load\nno AVX here"):
        quiet.load()
    assert capfd.readouterr().err == ""


def test_litert_greets_nobody():
    """LiteRT says once in a process, on standard error, which kernels it uses."""
    code = (
        "import compresskit as ck; from compresskit.litert.runtime import Session;"
        "Session(ck.load_model('digit_reader').tflite); Session(ck.load_model('digit_reader').tflite)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.train
def test_tensorflow_loads_without_a_word(capfd):
    assert training.can_train() is True
    assert capfd.readouterr() == ("", "")
