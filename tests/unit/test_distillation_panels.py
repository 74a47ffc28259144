"""The panels of lesson 11: bars are the arithmetic's, pairs are fair, a training ends however it ends."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

import compresskit as ck
from compresskit import distillation as arithmetic
from compresskit.evaluation import evaluate
from compresskit.litert.runtime import outputs
from compresskit.widgets import distiller as room
from compresskit.widgets.dark_knowledge import EXAMPLES, dark_knowledge, examples, study
from compresskit.widgets.distiller import DEPTHS, WIDTHS, Length, Pair, distiller, train_pair


@pytest.fixture(scope="module")
def few(digits):
    return dataclasses.replace(
        digits, train=digits.train.take(300), validation=digits.validation.take(400), test=digits.test.take(300)
    )


# -- soft labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("alpha", [0.0, 0.35, 1.0])
def test_what_is_drawn_is_the_arithmetic(temperature, alpha):
    logits = np.random.default_rng(3).normal(0, 6, 10)
    found = study(logits, 4, temperature, alpha)
    assert np.allclose(found.soft, arithmetic.softmax(logits, temperature))
    assert found.entropy == pytest.approx(float(arithmetic.entropy(found.soft)))
    assert found.wrong == tuple(int(k) for k in np.argsort(-logits) if k != 4)
    soft = arithmetic.softmax(logits, temperature)
    assert np.allclose(found.by_teacher, alpha * temperature * (soft - 0.1)), "T² (p - q) / T where q = 1/10"
    assert np.allclose(found.by_labels, (1 - alpha) * (np.eye(10)[4] - 0.1))


def test_examples_run_from_doubtful_to_sure(few):
    logits = outputs(ck.load_model("lenet_300_100").tflite, few.validation.images)
    chosen = examples(logits, few.validation, 8)
    assert len(chosen) == EXAMPLES and set(few.validation.labels[chosen]) == {8}
    doubt = arithmetic.entropy(arithmetic.softmax(logits[chosen], 4.0))
    assert np.all(np.diff(doubt) <= 0)
    assert doubt[0] == max(arithmetic.entropy(arithmetic.softmax(logits[few.validation.labels == 8], 4.0)))
    with pytest.raises(ValueError, match="digit is 3: there is none"):
        examples(logits[few.validation.labels != 3], few.validation.only(0, 1, 2, 4, 5, 6, 7, 8, 9), 3)


def test_the_soft_labels_follow_the_controls(few):
    panel = dark_knowledge("lenet_300_100", few)
    assert panel.wait_idle(60)
    for temperature, bits in ((1.0, None), (40.0, 3.0)):
        panel.temperature.value = temperature
        assert panel.wait_idle(60)
        soft = panel.chart.figure["data"][0]["y"]
        assert sum(soft) == pytest.approx(1)
        assert f"{panel.result.entropy:.2f} bits" in panel._status.text
        assert bits is None or panel.result.entropy > bits
        pulls, (low, high) = (
            panel.result.by_teacher + panel.result.by_labels,
            panel._figure()["layout"]["yaxis2"]["range"],
        )
        assert low < pulls.min() and pulls.max() < high, "no bar is cut off"
    panel.digit.value, panel.example.value = 8, EXAMPLES - 1
    assert panel.wait_idle(60)
    assert "An 8 at T = 40" in panel._status.text and "handwritten 8" in panel._image.value
    assert few.validation.labels[panel.place(panel.setting())] == 8
    panel.alpha.value = 0.0
    assert panel.wait_idle(60)
    assert np.allclose(panel.chart.figure["data"][1]["y"], 0)
    assert panel._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")
    panel.close()


# -- with and without -------------------------------------------------------------------------------------------------


@pytest.fixture
def panel(few):
    made = distiller(few, 300, Length(epochs=2))
    yield made
    made.close()


@pytest.fixture
def pretend(monkeypatch, few):
    """Train nothing; give these errors to students with and without their teacher."""
    score = evaluate(ck.load_model("lenet_300_100"), few.test)
    seen = []

    def quick(setting, seed, digits, length, on_progress, cancel):
        seen.append((setting, seed))
        taught, alone = (dataclasses.replace(score, accuracy=a + 0.002 * seed) for a in (0.93, 0.90 + 0.001 * seed))
        return Pair(seed, taught, alone)

    monkeypatch.setattr(room, "train_pair", quick)
    return seen


def test_pairs_are_kept_and_the_next_takes_another_seed(panel, pretend):
    assert "No pair trained" in panel._status.text
    panel.train()
    assert panel.wait_idle(60)
    assert "one pair says nothing of the spread" in panel._status.text
    panel._train_button.click()
    assert panel.wait_idle(60)
    assert [seed for _, seed in pretend] == [0, 1]
    assert "2 pairs: +2.95 points" in panel._status.text
    data = panel.chart.figure["data"]
    assert len(data[2]["x"]) == len(data[3]["x"]) == 2 and data[4]["text"] == ["big_teacher"]
    assert data[2]["y"][0] < data[3]["y"][0], "fewer errors with the teacher"
    panel.temperature.value = 2.0
    assert "No pair trained" in panel._status.text
    assert len(panel.chart.figure["data"][2]["x"]) == 2, "the points stay"
    assert panel._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")


def test_the_width_slider_follows_the_kind(panel):
    for kind in ("plain", "separable", "dense"):
        widths = WIDTHS[kind]
        panel.kind.value = kind
        assert panel.setting().student == f"{kind}-{widths[len(widths) // 2]}x{DEPTHS[kind]}"


def test_half_a_pair_is_not_kept(panel, monkeypatch):
    begun = threading.Event()

    def patient(setting, seed, digits, length, on_progress, cancel):
        begun.set()
        assert cancel.wait(30)

    monkeypatch.setattr(room, "train_pair", patient)
    panel.train()
    assert begun.wait(30) and panel._train_button.disabled
    panel._guard(panel.train)
    assert "under way" in panel._told.text
    panel._cancel_button.click()
    assert panel.wait_idle(60)
    assert "Half a pair is not kept" in panel._told.text and panel.pairs == {} and not panel._train_button.disabled


def test_an_error_stands_in_the_panel(panel, monkeypatch):
    def fails(*_):
        raise ValueError("temperature is 0: choose a number above 0")

    monkeypatch.setattr(room, "train_pair", fails)
    panel.train()
    assert panel.wait_idle(60)
    assert "choose a number above 0" in panel._told.text and not panel._train_button.disabled


def test_without_tensorflow_the_button_says_what_to_install(panel, monkeypatch):
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    panel.train()
    assert "install the extra 'train'" in panel._told.text and not panel._job.busy


@pytest.mark.train
def test_a_real_pair_draws_two_curves(panel, few):
    pytest.importorskip("tensorflow")
    panel.width.value = 10
    panel.train()
    assert panel.wait_idle(300)
    assert "misread with" in panel._told.text, panel._told.text
    taught, alone = panel.chart.figure["data"][:2]
    assert taught["x"] == alone["x"] == [1, 2]
    (pair,) = panel.pairs[panel.setting()]
    assert pair.with_teacher.n == len(few.test)
    cancel = threading.Event()
    cancel.set()
    assert train_pair(panel.setting(), 0, few, panel.length, lambda *_: None, cancel) is None
