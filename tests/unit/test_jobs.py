"""Trainings in a process of their own: what they say, what they leave, and that they end when they are told to."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

import compresskit as ck
from compresskit.training import job
from compresskit.widgets import jobs
from compresskit.widgets.jobs import Job, Training

PATIENCE = 300.0


@pytest.fixture(scope="module")
def few(digits):
    return replace(digits, train=digits.train.take(256), validation=digits.validation.take(100))


@pytest.fixture
def told():
    """A job, and what it told."""
    progress, ends, begun = [], [], threading.Event()

    def on_progress(each):
        progress.append(each)
        begun.set()

    return Job(on_progress, ends.append), progress, ends, begun


@pytest.mark.train
def test_a_fine_tuning_runs_elsewhere_and_ends_early_when_cancelled(told, few):
    pytest.importorskip("tensorflow")
    job, progress, ends, begun = told
    model = ck.load_model("lenet_300_100")
    job.start(model, Training("fine-tune", ck.Recipe(ck.Prune(0.9)), {"epochs": 500, "batch_size": 64}), few)
    with pytest.raises(ValueError, match="under way"):
        job.start(model, Training("fine-tune"), few)
    assert begun.wait(PATIENCE)
    job.cancel()
    assert job.wait(PATIENCE)
    (result,) = ends
    assert result.cancelled and result.checkpoint.keras and result.facts["steps"] < 500 * 4
    assert 0 < progress[0].done <= 1 and progress[0].sparsity is not None
    assert result.checkpoint.tflite != model.tflite
    assert ck.evaluate(result.checkpoint, few.test.take(200)).n == 200


def test_what_cannot_be_trained_is_refused_at_once(told, few):
    job, _, ends, _ = told
    with pytest.raises(ValueError, match=r"came as a \.tflite file"):
        job.start(replace(ck.load_model("digit_reader"), keras=None), Training("fine-tune"), few)
    with pytest.raises(ValueError, match="kind is 'guess'"):
        Training("guess")
    with pytest.raises(ValueError, match="'distill' needs one"):
        Training("distill")
    assert not ends


def test_without_tensorflow_a_sentence_says_what_to_install(told, few, monkeypatch):
    monkeypatch.setattr(jobs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="install the extra 'train'"):
        told[0].start(ck.load_model("digit_reader"), Training("fine-tune"), few)


def program(text, start=subprocess.Popen):
    """Give what takes the place of the training program."""
    return lambda command, **settings: start([sys.executable, "-c", text], **settings)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('print(\'{"error": "layer dense: no"}\')', "layer dense: no"),
        ("import sys; sys.exit('Segmentation of something')", r"exit code 1\). Segmentation of something"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "without a result"),
    ],
)
def test_whatever_happens_there_is_a_sentence_here(told, few, monkeypatch, text, sentence):
    monkeypatch.setattr(jobs.subprocess, "Popen", program(text))
    job, _, ends, _ = told
    job.start(ck.load_model("digit_reader"), Training("fine-tune"), few)
    assert job.wait(PATIENCE)
    with pytest.raises(ValueError, match=sentence):
        raise ends[0]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
def test_an_interrupt_of_the_kernel_is_not_for_the_training(told, few, monkeypatch):
    """Jupyter sends it to the kernel's whole process group; tests/browser interrupts a real one."""
    text = "import json, os; print(json.dumps({'error': f'groups {os.getpgrp()} {os.getpgid(os.getppid())}'}))"
    monkeypatch.setattr(jobs.subprocess, "Popen", program(text))
    job, _, ends, _ = told
    job.start(ck.load_model("digit_reader"), Training("fine-tune"), few)
    assert job.wait(PATIENCE)
    _, own, kernels = str(ends[0]).split()
    assert own != kernels


def test_a_training_does_not_outlive_the_panel(told, few, monkeypatch):
    monkeypatch.setattr(jobs.subprocess, "Popen", program("import time\nprint('{}', flush=True)\ntime.sleep(600)"))
    job, _, ends, _ = told
    job.start(ck.load_model("digit_reader"), Training("fine-tune"), few)
    while job._process is None:
        assert job.busy
    job.close()
    assert job.wait(PATIENCE) and not ends


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("name", ["compresskit-job-x", "my_own_folder"])
def test_the_folder_of_a_killed_kernel_is_taken_away(killed, name, tmp_path, monkeypatch, capsys):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "request.json").write_text('{"kind": "none such"}')
    parents = iter([7, 1 if killed else 7])
    monkeypatch.setattr(job.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(job.sys, "stdin", io.StringIO())
    assert job.main([str(folder)]) == 1 and "kind is 'none such'" in capsys.readouterr().out
    assert folder.exists() == (not killed or name == "my_own_folder")


def test_progress_counts_over_all_epochs():
    said = {"epoch": 2, "step": 5, "steps": 10, "epochs": 3, "loss": 0.5, "validation_accuracy": None, "seconds": 6.0}
    found = jobs._progress(json.loads(json.dumps({**said, "seconds_left": 6.0})))
    assert found.done == pytest.approx(0.5) and found.sparsity is None
