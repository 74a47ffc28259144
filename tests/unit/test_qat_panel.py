"""The panel of lesson 06: its points are what the engine gives, and its training ends however it ends."""

from __future__ import annotations

import dataclasses
import threading

import pytest

import compresskit as ck
from compresskit.evaluation import evaluate
from compresskit.widgets import qat as room
from compresskit.widgets.live import AbandonedError
from compresskit.widgets.qat import BITS, EVERY_LAYER, Setting, Trained, curve, qat


@pytest.fixture(scope="module")
def few(digits):
    return dataclasses.replace(
        digits, train=digits.train.take(600), validation=digits.validation.take(200), test=digits.test.take(300)
    )


@pytest.fixture(scope="module")
def model():
    return ck.load_model("lenet_300_100")


@pytest.fixture
def panel(few):
    made = qat("lenet_300_100", few, training_digits=600)
    yield made
    made.close()


def test_a_curve_is_what_the_engine_gives(model, few):
    setting = Setting("dense1", "tensor", "minmax")
    found = curve(model, setting, few.train, few.test)
    assert tuple(found.scores) == BITS
    recipe = ck.Recipe(ck.Quantize(granularity="tensor", layers={"dense1": {"weights": 3, "store": "int8"}}))
    same = evaluate(ck.compress(model, recipe, few.train), few.test)
    assert (found.scores[3].accuracy, found.scores[3].size) == (same.accuracy, same.size)
    with pytest.raises(AbandonedError):
        curve(model, setting, few.train, few.test, stop=lambda: True)


def test_rounding_breaks_at_two_bits_and_less_so_on_a_better_grid(model, few):
    plain = curve(model, Setting(EVERY_LAYER, "tensor", "minmax"), few.train, few.test).scores
    better = curve(model, Setting(EVERY_LAYER, "tensor", "mse"), few.train, few.test).scores
    assert plain[8].accuracy > 0.95 > 0.5 > plain[2].accuracy
    assert better[2].accuracy > plain[2].accuracy + 0.3


def test_the_panel_follows_its_controls(panel):
    assert panel.wait_idle(120)
    assert panel.chart.figure["data"][0]["x"] == list(BITS) and panel.chart.figure["data"][1]["x"] == []
    assert "3 bits" in panel._words()[0]
    panel.bits.value = 2
    assert panel.chart.figure["data"][3]["x"] == [2] and "2 bits" in panel._status.text
    before = list(panel.chart.figure["data"][0]["y"])
    panel.granularity.value = "tensor"
    assert panel.wait_idle(120)
    assert panel.chart.figure["data"][0]["y"] != before
    assert panel._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")


def test_a_training_adds_its_point_and_the_next_takes_another_seed(panel, monkeypatch):
    assert panel.wait_idle(120)
    seeds = []

    def quick(model, setting, bits, seed, *_):
        seeds.append(seed)
        return Trained(bits, seed, panel._original, 1.0, False)

    monkeypatch.setattr(room, "train_rounded", quick)
    panel.train()
    assert panel.wait_idle(60)
    panel.train()
    assert panel.wait_idle(60)
    assert seeds == [0, 1]
    assert panel.chart.figure["data"][2]["x"] == [3, 3]
    assert f"{panel._original.accuracy:.2%} trained".replace("%", " %") in panel._status.text
    panel.ranges.value = "mse"
    assert panel.wait_idle(120)
    assert panel.chart.figure["data"][2]["x"] == [], "trained at another setting"


def test_cancel_reaches_the_training_and_a_second_one_is_refused(panel, monkeypatch):
    assert panel.wait_idle(120)
    begun = threading.Event()

    def patient(model, setting, bits, seed, digits, test, epochs, on_progress, cancel):
        begun.set()
        assert cancel.wait(30)
        return Trained(bits, seed, panel._original, 1.0, True)

    monkeypatch.setattr(room, "train_rounded", patient)
    panel._train_button.click()
    assert begun.wait(30) and panel._train_button.disabled and not panel._cancel_button.disabled
    panel._guard(panel.train)
    assert "under way" in panel._told.text
    panel._cancel_button.click()
    assert panel.wait_idle(60)
    assert "Cancelled early" in panel._told.text and not panel._train_button.disabled


def test_an_error_of_the_training_stands_in_the_panel(panel, monkeypatch):
    assert panel.wait_idle(120)

    def fails(*_):
        raise ValueError("the file computes something else than was trained")

    monkeypatch.setattr(room, "train_rounded", fails)
    panel.train()
    assert panel.wait_idle(60)
    assert "something else than was trained" in panel._told.text
    assert panel.trained == {} and not panel._train_button.disabled


def test_without_tensorflow_the_button_says_what_to_install(panel, monkeypatch):
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    panel.train()
    assert "install the extra 'train'" in panel._told.text and not panel._worker.busy


@pytest.mark.train
def test_a_real_training_mends_what_rounding_broke(few, digits):
    pytest.importorskip("tensorflow")
    pytest.importorskip("tensorflow_model_optimization")
    more = dataclasses.replace(few, train=digits.train.take(3000), validation=digits.validation.take(1000))
    panel = qat("lenet_300_100", more, training_digits=3000)
    panel.granularity.value, panel.ranges.value, panel.bits.value = "tensor", "mse", 2
    panel.train()
    assert panel.wait_idle(400)
    assert "Trained" in panel._told.text, panel._told.text
    (trained,) = panel.trained[panel.setting()]
    assert trained.score.accuracy > panel._rounded[1].scores[2].accuracy
    assert trained.agreement > 0.95 and not trained.cancelled
    panel.close()
