"""Two buttons, and two keys, that take back what the controls of a panel were told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import anywidget
import ipywidgets

from compresskit.widgets.history import History
from compresskit.widgets.panel import button_of, classed
from compresskit.widgets.points import Setting
from compresskit.widgets.style import script


class Keys(anywidget.AnyWidget):  # type: ignore[misc]
    """Invisible; hears Ctrl+Z, Ctrl+Shift+Z and Ctrl+Y anywhere in its panel but in text fields."""

    _esm = script("keys")


class Undo:
    """The history of a workbench's settings, with its buttons.

    Parameters
    ----------
    first
        Where the controls stand at the beginning.
    go
        ``go(setting)`` puts the controls somewhere, which must not be noted again.
    usable
        Tells whether the controls can stand somewhere; steps where they cannot are passed over.

    Attributes
    ----------
    box : ipywidgets.HBox
        The buttons.
    """

    def __init__(
        self, first: Setting, go: Callable[[Setting], None], usable: Callable[[Setting], bool] = lambda _: True
    ) -> None:
        self._history = History(first, _what_changed)
        self._go, self._usable = go, usable
        self._lock = threading.RLock()
        self._undo, self._redo = button_of("Undo", "ck-undo"), button_of("Redo", "ck-redo")
        self._undo.tooltip, self._redo.tooltip = "Undo (Ctrl+Z)", "Redo (Ctrl+Shift+Z)"
        self._undo.on_click(lambda _: self.undo())
        self._redo.on_click(lambda _: self.redo())
        keys = classed(Keys(), "ck-style")
        keys.on_msg(self._on_key)
        self.box = classed(ipywidgets.HBox([self._undo, self._redo, keys]), "ck-row", "ck-buttons", "ck-undo-redo")
        self._show()

    @property
    def steps(self) -> tuple[tuple[Setting, ...], int]:
        """All settings, and which of them is the current one."""
        return self._history.steps

    def put(self, steps: Sequence[Setting], at: int) -> None:
        """Take over a history that was kept; see `History.put`."""
        with self._lock:
            self._history.put(steps, at)
            self._show()

    def note(self, setting: Setting, *, drag: bool = False) -> None:
        """Take down where the controls stand now; a drag goes on until another control is moved, or the hand rests."""
        with self._lock:
            self._history.note(setting, time.monotonic() if drag else None)
            self._show()

    def undo(self) -> None:
        """Put the controls where they stood before, if anywhere."""
        self._step(self._history.undo, lambda: self._history.can_undo)

    def redo(self) -> None:
        """Put the controls where they stood before the last undo, if there was one."""
        self._step(self._history.redo, lambda: self._history.can_redo)

    def _step(self, move: Callable[[], Setting], possible: Callable[[], bool]) -> None:
        with self._lock:
            if not possible():
                return
            stood = self._history.steps
            setting = move()
            while not self._usable(setting) and possible():
                setting = move()
            if not self._usable(setting):
                self._history.put(*stood)  # none that way can be gone to: the controls stay, and the history with them
            self._show()
        if self._usable(setting):
            self._go(setting)

    def _show(self) -> None:
        self._undo.disabled, self._redo.disabled = not self._history.can_undo, not self._history.can_redo

    def _on_key(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content.get("type") == "undo":
            self.undo()
        elif content.get("type") == "redo":
            self.redo()


def _what_changed(before: Setting, after: Setting) -> tuple[str, ...]:
    """Name the controls that were moved."""
    return tuple(each.name for each in fields(Setting) if getattr(before, each.name) != getattr(after, each.name))
