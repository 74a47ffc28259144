"""Undo and redo against a model: a list and a place in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit.widgets.history import MOST_STEPS, TOGETHER_SECONDS, History
from compresskit.widgets.points import Setting
from compresskit.widgets.undo import Undo

ACTS = st.lists(st.sampled_from(["undo", "redo", 1, 2, 3]), max_size=60)


def alike(_before: int, _after: int) -> str:
    """Every move is of the same control."""
    return "the same"


@given(ACTS)
def test_it_is_a_list_with_a_place_in_it(acts):
    history, steps, at = History(0, alike), [0], 0
    for second, act in enumerate(acts):
        if act == "undo":
            at = max(0, at - 1)
            assert history.undo() == steps[at]
        elif act == "redo":
            at = min(len(steps) - 1, at + 1)
            assert history.redo() == steps[at]
        else:
            history.note(act, 10.0 * second)
            if act != steps[at]:
                steps = [*steps[: at + 1], act]
                at += 1
        assert (history.steps, history.current) == ((tuple(steps), at), steps[at])
        assert (history.can_undo, history.can_redo) == (at > 0, at < len(steps) - 1)
    other = History(9, alike)
    other.put(*history.steps)
    assert other.steps == history.steps


def test_a_drag_is_one_step_and_another_control_is_another():
    history = History((0, 0), lambda before, after: tuple(a != b for a, b in zip(before, after, strict=True)))
    for move in range(1, 6):
        history.note((move, 0), move * TOGETHER_SECONDS / 2)
    history.note((5, 1), 6 * TOGETHER_SECONDS / 2)
    assert history.steps[0] == ((0, 0), (5, 0), (5, 1))
    history.note((5, 2), 100.0)
    assert history.steps[0] == ((0, 0), (5, 0), (5, 1), (5, 2)), "a pause ends a drag"
    assert history.undo() == (5, 1)
    history.note((5, 3), 100.1)
    assert history.steps == (((0, 0), (5, 0), (5, 1), (5, 3)), 3), "after an undo a new step begins"
    assert history.undo() == (5, 1) and history.redo() == (5, 3)
    history.note((5, 4), 100.2)
    assert history.steps[0][-2:] == ((5, 3), (5, 4)), "after a redo too"
    kept = list(history.steps[0])
    history.put(kept, len(kept) - 1)
    history.note((5, 5), 100.3)
    assert history.steps[0][-2:] == ((5, 4), (5, 5)), "and in a history that was taken over"
    assert len(kept) == 5, "of which the list is left alone"


def test_a_click_is_a_step_of_its_own():
    history = History(0, alike)
    for move, seconds in ((1, 0.0), (2, None), (3, 0.1), (4, 0.2)):
        history.note(move, seconds)
    assert history.steps[0] == (0, 1, 2, 4)


def test_very_old_steps_are_forgotten():
    history = History(-1, alike)
    for move in range(3 * MOST_STEPS):
        history.note(move, float(move))
    steps, at = history.steps
    assert len(steps) == MOST_STEPS and at == MOST_STEPS - 1 and steps[-1] == 3 * MOST_STEPS - 1


@pytest.mark.parametrize("at", [-1, 2])
def test_a_place_outside_is_refused(at):
    with pytest.raises(ValueError, match="from 0 to 1"):
        History(0, alike).put([1, 2], at)


def test_steps_that_cannot_be_gone_to_are_passed_over_or_stayed_before():
    lost, gone_to = {Setting(0.1, model="lost"), Setting(0.2, model="lost")}, []
    undo = Undo(Setting(0.1, model="lost"), gone_to.append, lambda step: step not in lost)
    undo.note(Setting(0.3))
    undo.undo()
    assert gone_to == [] and undo.steps[1] == 1, "the controls stay, and the history with them"
    undo.note(Setting(0.2, model="lost"))
    undo.note(Setting(0.4))
    undo.undo()
    assert gone_to == [Setting(0.3)] and undo.steps[1] == 1
    undo.redo()
    assert gone_to == [Setting(0.3), Setting(0.4)] and undo.steps[1] == 3
