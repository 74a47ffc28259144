"""The long runs of lesson 07: what is saved is whole, what is drawn is what is saved, a short run makes such a file."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

import compresskit as ck
from compresskit.course.pruning_pictures import show_schedules, show_tickets
from compresskit.pruning.schedules import Constant, OneShot, Polynomial
from compresskit.training.pruning_curves import (
    COMMAND,
    Point,
    Settings,
    load_points,
    main,
    schedule_points,
    sparsities,
    spread,
    ticket_points,
)

SCHEDULES = ("one-shot", "constant", "iterative", "cosine", "polynomial")


def test_the_saved_results_are_whole_and_say_what_the_lesson_says():
    about, points = load_points()
    seeds = about["seeds"]
    assert about["command"] == COMMAND and len(seeds) >= 3
    for way in (*SCHEDULES, "control"):
        assert [p.seed for p in points if (p.experiment, p.way) == ("schedule", way)] == seeds, way
    cut = spread(points, "schedule", "pruned")[1]
    for way in SCHEDULES:
        assert spread(points, "schedule", way)[0] > cut + 0.3, "training brings back most of what the cut took"
    assert spread(points, "schedule", "polynomial")[0] > spread(points, "schedule", "one-shot")[2]
    grid = sparsities(points, "ticket", "ticket")
    assert grid[0] == 0 and grid[-1] == pytest.approx(about["settings"]["ticket_sparsity"], abs=1e-3)
    assert len(grid) == about["settings"]["rounds"] + 1
    for way in ("ticket", "reinitialized", "shuffled"):
        own = grid if way == "ticket" else grid[1:]
        for share in own:
            found = [p.seed for p in points if p.way == way and abs(p.sparsity - share) < 5e-4]
            assert found == seeds, (way, share)
    for share in grid[1:]:
        ticket, other, lot = (spread(points, "ticket", way, share) for way in ("ticket", "reinitialized", "shuffled"))
        assert ticket[1] > other[1] > lot[1], share
        assert ticket[0] > other[2] or share > 0.95, "first values matter by more than seeds lie apart, but at the end"
        assert other[0] > lot[2] or share < 0.9, "where the weights are tells only once few are left"
    assert spread(points, "schedule", "constant") == spread(points, "schedule", "one-shot"), "no zero comes back"


def test_the_cut_can_be_made_again(digits):
    about, points = load_points()
    if len(digits.test) != about["test_digits"]:
        pytest.skip("full MNIST is not here")
    settings = Settings(**about["settings"])
    step = ck.Prune(settings.sparsity, scope="global")
    again = ck.evaluate(ck.compress(ck.load_model(settings.model), ck.Recipe(step)), digits.test)
    assert spread(points, "schedule", "pruned")[1] == pytest.approx(again.accuracy, abs=0.002)


@pytest.fixture(scope="module")
def few(digits):
    return dataclasses.replace(
        digits, train=digits.train.take(200), validation=digits.validation.take(100), test=digits.test.take(100)
    )


def test_schedules_end_at_the_sparsity_asked_for(few):
    settings = Settings(digits=200, epochs=1, sparsity=0.8)
    pruned, control, trained = itertools.islice(schedule_points(settings, [7], few), 3)
    assert (pruned.way, pruned.seed, control.way, control.sparsity) == ("pruned", None, "control", 0.0)
    assert trained.way == "polynomial" and trained.sparsity == pytest.approx(0.8, abs=1e-4) and trained.seed == 7


def test_a_ticket_has_its_control_beside_it(few):
    settings = Settings(digits=200, epochs=1, rounds=1, ticket_sparsity=0.6)
    found = list(itertools.islice(ticket_points(settings, [7], few), 3))
    assert [(p.way, round(p.sparsity, 2)) for p in found] == [("ticket", 0), ("ticket", 0.6), ("reinitialized", 0.6)]


def test_the_command_writes_what_can_be_read(tmp_path, few, monkeypatch):
    home = "compresskit.training.pruning_curves"
    made = [Point("schedule", "pruned", 0.95, None, 0.5), Point("ticket", "ticket", 0.98, 7, 0.75)]
    asked: list[tuple[int, list[int]]] = []

    def measured(settings, seeds, digits):
        asked.append((settings.rounds, seeds))
        yield made[len(asked) - 1]

    for name in ("schedule_points", "ticket_points"):
        monkeypatch.setattr(f"{home}.{name}", measured)
    monkeypatch.setattr(f"{home}.load_mnist", lambda: few)
    path = tmp_path / "curves.json"
    main(["--out", str(path), "--seeds", "7", "--rounds", "3"])
    about, points = load_points(path)
    assert points == tuple(made) and asked == [(3, [7]), (3, [7])]
    assert about["settings"]["rounds"] == 3 and about["seeds"] == [7] and about["validation_digits"] == 100


def test_a_spread_is_lowest_mean_highest():
    points = [Point("ticket", "ticket", 0.5, seed, accuracy) for seed, accuracy in enumerate((0.9, 0.6, 0.9))]
    assert spread(points, "ticket", "ticket") == (0.6, pytest.approx(0.8), 0.9)
    assert spread(points, "ticket", "ticket", 0.5004) == spread(points, "ticket", "ticket")
    with pytest.raises(ValueError, match=r"way 'ticket' at sparsity 0\.6"):
        spread(points, "ticket", "ticket", 0.6)


@pytest.mark.parametrize("text", ["", "{}", '{"points": [{"way": 1}]}', None])
def test_a_file_that_is_not_one_of_these_is_refused(tmp_path, text):
    path = tmp_path / "curves.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match="not the results"):
        load_points(path)


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_schedules_are_drawn_as_stairs_and_told_in_words():
    schedules = {"polynomial": Polynomial(0, 0.8, 0, 100, frequency=10), "one-shot": OneShot(0.8, begin=60)}
    still = show_schedules(schedules, 120)
    half = schedules["polynomial"].applied_at(60)
    assert f"polynomial {half:.0%}" in still.picture.title and "one-shot 80%" in still.picture.title
    assert still.picture.png().startswith(b"\x89PNG")
    for wrong in ({}, {str(number): Constant(0.5) for number in range(6)}):
        with pytest.raises(ValueError, match="give from 1 to 5"):
            show_schedules(wrong, 10)


def test_tickets_are_drawn_with_their_controls():
    about, points = load_points()
    still = show_tickets(about, points)
    grid = sparsities(points, "ticket", "ticket")
    mean = spread(points, "ticket", "shuffled", grid[-1])[1]
    assert f"mask by lot {100 * mean:.2f} %" in still.picture.title
    with pytest.raises(ValueError, match="'shuffled'"):
        show_tickets(about, [point for point in points if point.way != "shuffled"])
