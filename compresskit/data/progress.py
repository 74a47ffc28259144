"""How a long fetch tells what it is doing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

# Called with what is being done, and how much of it is done: 0 to 1, or None where that cannot be known.
# A callback may raise to cancel the fetch; nothing half-done is left then.
Progress = Callable[[str, float | None], None]

_INTERVAL = 0.1  # seconds between two redrawings of the line


class TextProgress:
    r"""Progress as one line of text that rewrites itself, in a terminal as in a notebook.

    Where a line cannot be rewritten (a log file), each new activity gets one line of its own instead.

    Parameters
    ----------
    stream : text file, optional
        Where to write; standard output as it is at the time of writing when left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._text = ""
        self._width = 0
        self._begun = self._drawn = 0.0

    def __call__(self, text: str, fraction: float | None = None) -> None:
        """Show that `text` is being done and how far it is."""
        now = time.monotonic()
        new = text != self._text
        if new:
            self._text, self._begun = text, now
        if not _rewrites(self._out):
            if new:
                self._write(f"{text}\n")
            return
        if not new and fraction != 1 and now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        line = f"{text}: {now - self._begun:.0f} s" if fraction is None else f"{text}: {fraction:4.0%}"
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def close(self) -> None:
        """Wipe the line, so that what is printed next begins on a clean one."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    @property
    def _out(self) -> TextIO | None:
        # pythonw and some services have no standard output at all.
        return self._stream or sys.stdout

    def _write(self, text: str) -> None:
        if self._out is not None:
            self._out.write(text)
            self._out.flush()


def _rewrites(stream: TextIO | None) -> bool:
    """Tell whether a carriage return goes back to the start of the line there: in terminals and in notebooks."""
    if stream is None:
        return False
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")
