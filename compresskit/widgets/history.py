"""Undo and redo of what controls say: the settings in their order, and a place among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

TOGETHER_SECONDS = 0.8
"""Moves of one control that follow each other within this time are one step: a drag is undone as a whole."""
MOST_STEPS = 100


class History(Generic[T]):
    """The settings that controls had, in order.

    Parameters
    ----------
    first
        Where they stand at the beginning.
    what_changed
        ``what_changed(before, after)`` tells what a move was of; moves of the same, quickly after one another, are
        one step.
    """

    def __init__(self, first: T, what_changed: Callable[[T, T], object]) -> None:
        self._steps, self._at = [first], 0
        self._what_changed = what_changed
        self._latest: tuple[object, float] | None = None

    @property
    def current(self) -> T:
        """Where the controls stand."""
        return self._steps[self._at]

    @property
    def can_undo(self) -> bool:
        """Whether there is something before."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether something was undone."""
        return self._at < len(self._steps) - 1

    @property
    def steps(self) -> tuple[tuple[T, ...], int]:
        """All settings, and which of them is the current one."""
        return tuple(self._steps), self._at

    def put(self, steps: Sequence[T], at: int) -> None:
        """Take over a history that was kept.

        Raises
        ------
        ValueError
            If `at` is no place in `steps`.
        """
        if not 0 <= at < len(steps):
            raise ValueError(f"at is {at}; with {len(steps)} steps it must be from 0 to {len(steps) - 1}.")
        self._steps, self._at, self._latest = list(steps), at, None

    def note(self, setting: T, seconds: float | None) -> None:
        """Take down a move; what was undone before it cannot be redone any more.

        Parameters
        ----------
        setting
            Where the controls stand now. Where they stood already is no move.
        seconds
            The time, on a clock that only goes forward; None for a move that is a step of its own, such as a click.
        """
        if setting == self.current:
            return
        what = self._what_changed(self.current, setting)
        if self._goes_on(what, seconds):
            self._steps[self._at] = setting
        else:
            self._steps[self._at + 1 :] = [setting]
            del self._steps[:-MOST_STEPS]
            self._at = len(self._steps) - 1
        self._latest = None if seconds is None else (what, seconds)

    def _goes_on(self, what: object, seconds: float | None) -> bool:
        """Tell whether a move belongs to the one before."""
        if seconds is None or self._latest is None:
            return False
        before, then = self._latest
        return before == what and seconds - then <= TOGETHER_SECONDS

    def undo(self) -> T:
        """Go one step back, if there is one; give where the controls belong."""
        self._at = max(0, self._at - 1)
        self._latest = None
        return self.current

    def redo(self) -> T:
        """Go one step forward, if there is one; give where the controls belong."""
        self._at = min(len(self._steps) - 1, self._at + 1)
        return self.current
