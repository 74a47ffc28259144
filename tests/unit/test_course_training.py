"""A notebook finds out whether it can train, and says what to install; TensorFlow's notices stay out of it."""

from __future__ import annotations

import os

import pytest

from compresskit.course import training
from compresskit.training.quiet import held_back


@pytest.mark.parametrize(
    ("absent", "said"),
    [({"tensorflow", "tf_keras"}, "TensorFlow and tf-keras are not installed"), ({"tf_keras"}, "tf-keras is not")],
)
def test_what_is_missing_is_said(monkeypatch, capsys, absent, said):
    monkeypatch.setattr(training, "find_spec", lambda name: None if name in absent else object())
    assert training.can_train() is False
    told = capsys.readouterr().out
    assert said in told and "compresskit[train]" in told


def test_notices_are_held_back_and_errors_keep_them(capfd):
    with held_back():
        os.write(2, b"a notice\n")
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
    with pytest.raises(ImportError, match="no such library\na reason"), held_back():
        os.write(2, b"a reason\n")
        raise ImportError("no such library")
    os.write(2, b"heard again\n")
    assert capfd.readouterr().err == "heard again\n"


@pytest.mark.train
def test_tensorflow_loads_without_a_word(capfd):
    assert training.can_train() is True
    assert capfd.readouterr() == ("", "")
