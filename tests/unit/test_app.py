"""`compresskit app`: what it starts, whom it warns, and what its page opens."""

from __future__ import annotations

import json

import numpy as np
import pytest

import compresskit as ck
from compresskit import app
from compresskit.cli import main


def test_the_page_listens_on_this_computer_with_a_new_token():
    command = app.app_command(app.LOOPBACK, 8866, browser=False)
    assert "--Voila.ip=127.0.0.1" in command and "--Voila.auto_token=True" in command
    assert app.warning("127.0.0.1") == app.warning("::1") == ""


@pytest.mark.parametrize(("host", "words"), [("0.0.0.0", "every network"), ("192.168.0.7", "the network of 192.168")])
def test_who_opens_it_to_others_is_told_so(host, words):
    assert words in app.warning(host) and "encrypted" in app.warning(host)


def test_a_host_that_is_no_address_is_refused(capsys):
    assert main(["app", "--host", "everywhere", "--no-browser"]) == 1
    assert "host is 'everywhere'" in capsys.readouterr().err


def test_a_model_that_does_not_exist_is_refused_before_anything_starts(capsys):
    assert main(["app", "no_such_model", "--no-browser"]) == 1
    assert "no shipped model" in capsys.readouterr().err


def test_data_that_does_not_fit_is_refused_before_anything_starts(tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "rows.npz", x=np.zeros((60, 9), np.float32), y=np.arange(60) % 3)
    assert main(["app", "small_student", "--data", str(tmp_path / "rows.npz"), "--no-browser"]) == 1
    assert "(9,), but the model 'small_student' reads (28, 28, 1)" in capsys.readouterr().err
    monkeypatch.setenv(app.DATA, str(tmp_path / "rows.npz"))  # it became so while the page was served
    monkeypatch.setenv(app.MODEL, "small_student")
    assert "There is no workbench here: data: each example has the shape (9,)" in app.page().data


def test_the_page_opens_what_was_asked_for(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    np.savez(tmp_path / "mine.npz", x=images, y=np.arange(60) % 10)
    ck.load_model("small_student").save(tmp_path / "mine.tflite")
    monkeypatch.chdir(tmp_path)
    environment = app.app_environment("mine.tflite", "mine.npz")
    monkeypatch.chdir("/")  # the kernels of the page start elsewhere
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bench = app.page()
    try:
        assert bench.checkpoint.name == "mine" and len(bench.test) == 10
        assert bench.wait_idle(60)
        assert bench.point is not None and bench.point.score.n == 10
    finally:
        bench.close()


def test_the_page_is_a_notebook_of_one_cell_without_outputs():
    book = json.loads(app.PAGE.read_text())
    (cell,) = book["cells"]
    assert cell["outputs"] == [] and "page()" in "".join(cell["source"])
