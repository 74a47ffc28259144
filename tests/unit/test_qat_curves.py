"""The curves of lesson 06: what is saved is what is drawn, and the control is trained like the others."""

from __future__ import annotations

import dataclasses
import json

import pytest

import compresskit as ck
from compresskit.course.curves import show_curves
from compresskit.training.qat_curves import (
    BITS,
    GRANULARITIES,
    Point,
    Settings,
    control,
    load_points,
    rounded_points,
    spread,
)


def test_the_saved_results_are_whole_and_say_what_the_lesson_says():
    about, points = load_points()
    assert about["command"] == "python -m compresskit.training.qat_curves" and len(about["seeds"]) >= 2
    for granularity in GRANULARITIES:
        for bits in BITS:
            for way, seeds in (("rounded", [None]), ("control", about["seeds"]), ("trained", about["seeds"])):
                found = [p.seed for p in points if (p.way, p.bits, p.granularity) == (way, bits, granularity)]
                assert found == seeds, (way, bits, granularity)
        assert spread(points, "trained", 2, granularity)[0] > spread(points, "control", 2, granularity)[2]
        assert spread(points, "trained", 2, granularity)[0] > spread(points, "rounded", 2, granularity)[2]


def test_rounded_points_of_the_file_can_be_made_again(digits):
    about, points = load_points()
    if len(digits.test) != about["test_digits"]:
        pytest.skip("full MNIST is not here")
    settings = Settings(**about["settings"])
    again = list(rounded_points(ck.load_model(settings.model), settings, None, digits, [3]))
    saved = [point for point in points if point.way == "rounded" and point.bits == 3]
    assert [point.accuracy for point in again] == pytest.approx([point.accuracy for point in saved], abs=0.002)


def test_a_spread_is_lowest_mean_highest():
    points = [Point("trained", 2, "tensor", seed, accuracy) for seed, accuracy in enumerate((0.9, 0.6, 0.9))]
    assert spread(points, "trained", 2, "tensor") == (0.6, pytest.approx(0.8), 0.9)
    with pytest.raises(ValueError, match="3 bits per tensor"):
        spread(points, "trained", 3, "tensor")


@pytest.mark.parametrize("text", ["", "{}", '{"points": [{"way": 1}]}', None])
def test_a_file_that_is_not_one_of_these_is_refused(tmp_path, text):
    path = tmp_path / "curves.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match="not the results"):
        load_points(path)


def test_the_picture_says_in_words_what_it_shows():
    about, points = load_points()
    still = show_curves(about, points)
    assert "2 bits per tensor: rounded" in still.picture.title
    assert still.picture.png().startswith(b"\x89PNG")
    assert json.dumps(still.picture.title)


@pytest.mark.train
def test_the_control_is_trained_without_rounding(digits):
    pytest.importorskip("tensorflow")
    few = dataclasses.replace(digits, train=digits.train.take(600), validation=digits.validation.take(100))
    model = ck.load_model("lenet_300_100")
    other = control(model, dataclasses.replace(Settings(), digits=600), 0, few)
    assert other.digest != model.digest
    assert ck.evaluate(other, few.test.take(1000)).accuracy > 0.9
