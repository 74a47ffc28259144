"""One piece of work at a time, on a thread of its own, for what a panel's button starts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Worker:
    """One piece of work at a time, on a thread of its own.

    JupyterLab presses a panel's buttons on another thread than the one that runs cells: a cell may ask how the work
    stands at the very moment in which a button begins it.

    Parameters
    ----------
    on_end
        Called with the result, or with the exception, on the thread of the work.
    name
        Of the thread, to be recognised in a debugger.

    Attributes
    ----------
    cancel : threading.Event
        Set it to end the work under way; the work has to look at it.
    """

    def __init__(self, on_end: Callable[[Any], None], name: str = "compresskit-worker") -> None:
        self.cancel = threading.Event()
        self._on_end, self._name = on_end, name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        with self._lock:
            return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], Any]) -> None:
        """Begin.

        Parameters
        ----------
        work
            Its result, or what it raises, goes to `on_end`.

        Raises
        ------
        ValueError
            If it is at work already.
        """

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # told to the panel: a thread that dies in silence is a frozen panel
                result = error
            self._on_end(result)

        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise ValueError("A training is under way; cancel it, or wait for its end.")
            self.cancel.clear()
            self._thread = threading.Thread(target=run, name=self._name, daemon=True)
            self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the work.

        Parameters
        ----------
        timeout
            Seconds; None waits for as long as it takes.

        Returns
        -------
        bool
            False when the time was up first. On the thread of the work itself this is False at once.
        """
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return not self.busy
