"""The engine behind every live panel: one worker thread, and the latest setting wins.

A slider sends settings faster than they can be computed. `Live` keeps the one that is being computed and, of those that
wait, only the newest. Each setting is computed twice: a quick preview first, then exactly. A preview that was overtaken
while it ran is still shown (the hand sees something move), but the exact pass of an overtaken setting is not started.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")
R = TypeVar("R")

Stop = Callable[[], bool]

ABANDON_AFTER_SECONDS = 1.0
"""A job that already took this long may be abandoned for a newer setting. Shorter ones always finish: a drag that
cancelled each of them would show nothing until the hand rests."""


class AbandonedError(Exception):
    """Raised by a compute function which saw that its setting is outdated, to end without a result."""


@dataclass(frozen=True)
class Outcome(Generic[S, R]):
    """One result on its way to a panel.

    Parameters
    ----------
    setting
        What was asked for.
    value
        What the compute function returned.
    exact
        False for a preview.
    outdated
        True when a newer setting was already waiting as this one finished.
    seconds
        Time the compute function took; 0.0 for a result out of the cache.
    cached
        Whether the result was computed earlier.
    """

    setting: S
    value: R
    exact: bool
    outdated: bool
    seconds: float
    cached: bool


def sentence(error: BaseException) -> str:
    """Turn an error into a sentence for a panel.

    The package's own errors are sentences already. Others get the name of their type, since a bare ``'conv3'`` (a
    KeyError) tells a learner nothing.

    Parameters
    ----------
    error
        Any exception.

    Returns
    -------
    str
        Not empty, one line, ending with a full stop.
    """
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        text = "There is not enough memory for this setting"
    elif not isinstance(error, ValueError | FileNotFoundError) or not text:
        text = f"{type(error).__name__}: {text}" if text else f"{type(error).__name__} without a message"
    return text if text.endswith((".", "?")) else f"{text}."


class Live(Generic[S, R]):
    """Compute settings on one worker thread; the latest wins.

    Parameters
    ----------
    compute_preview
        ``compute_preview(setting, stop) -> value``, quick; None when there is nothing quicker than the exact pass.
    compute_exact
        ``compute_exact(setting, stop) -> value``. ``stop()`` says that a newer setting waits and this job has taken
        more than a second: a long computation asks now and then and raises `AbandonedError`.
    on_result
        Called with each `Outcome`, on the worker thread, while `lock` is held.
    on_error
        Called with ``(setting, sentence)``, on the worker thread, while `lock` is held.
    on_start
        Called with ``(setting, exact)`` before a computation that is not cached, while `lock` is held.
    key
        What a result is remembered by; by default the setting itself, which then must be hashable.
    lock
        The re-entrant lock that guards the panel's figures; share it with the `Figure` objects of the panel.
    cache_entries
        How many results of each kind are remembered (least recently used go first).
    name
        Of the thread, to be recognised in a debugger.

    Attributes
    ----------
    lock
        The lock above.
    last_error
        The last exception as it was raised, for the one who has to find out why; None before the first.
    """

    def __init__(
        self,
        compute_preview: Callable[[S, Stop], R] | None,
        compute_exact: Callable[[S, Stop], R],
        on_result: Callable[[Outcome[S, R]], None],
        on_error: Callable[[S, str], None],
        *,
        on_start: Callable[[S, bool], None] | None = None,
        key: Callable[[S], Hashable] | None = None,
        lock: AbstractContextManager[bool] | None = None,
        cache_entries: int = 32,
        name: str = "compresskit-live",
    ) -> None:
        if cache_entries < 0:
            raise ValueError(f"cache_entries is {cache_entries}; it must be 0 (remember nothing) or more.")
        self._compute_preview = compute_preview
        self._compute_exact = compute_exact
        self._on_result = on_result
        self._on_error = on_error
        self._on_start = on_start
        self._key: Callable[[S], Hashable] = key if key is not None else lambda setting: setting
        self.lock: AbstractContextManager[bool] = lock if lock is not None else threading.RLock()
        self.last_error: BaseException | None = None
        self._cache: OrderedDict[tuple[bool, Hashable], R] = OrderedDict()
        self._cache_entries = cache_entries
        self._state = threading.Condition()
        self._waiting: list[S] = []  # empty, or the one newest setting
        self._busy = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether something is being computed or waits."""
        with self._state:
            return self._busy or bool(self._waiting)

    def submit(self, setting: S) -> None:
        """Ask for a setting; it replaces the one that waits. Returns at once.

        Parameters
        ----------
        setting
            Passed on to the compute functions.

        Raises
        ------
        RuntimeError
            After `close`.
        """
        with self._state:
            if self._closed:
                raise RuntimeError("This panel was closed; run its cell again to get a live one.")
            self._waiting[:] = [setting]
            self._state.notify_all()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being computed and nothing waits.

        Parameters
        ----------
        timeout
            Seconds; None waits for as long as it takes.

        Returns
        -------
        bool
            False when the time was up first. On the worker thread itself this is False at once.
        """
        if threading.current_thread() is self._thread:
            return False
        with self._state:
            return self._state.wait_for(lambda: not self._busy and not self._waiting, timeout)

    def known(self, setting: S) -> R | None:
        """Give the exact result of a setting if it is remembered, without computing anything.

        A setting whose key cannot be made has none.
        """
        try:
            found = self._remembered(True, setting)
        except ValueError:
            return None
        return None if found is None else found[0]

    def forget(self) -> None:
        """Empty the cache."""
        with self._state:
            self._cache.clear()

    def close(self, timeout: float | None = 0.0) -> None:
        """End the worker; no callback runs once it has ended. Safe to call twice, and from a callback.

        Parameters
        ----------
        timeout
            Seconds to wait for the computation under way; 0.0 leaves it to end by itself, None waits for it.
        """
        with self._state:
            self._closed = True
            self._waiting.clear()
            self._cache.clear()
            self._state.notify_all()
        if threading.current_thread() is not self._thread and timeout != 0.0:
            self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return
                setting = self._waiting.pop()
                self._busy = True
            try:
                self._serve(setting)
            finally:
                with self._state:
                    self._busy = False
                    self._state.notify_all()

    def _serve(self, setting: S) -> None:
        """Show what is known of a setting, and compute the rest of it."""
        try:
            exact_is_known = self._remembered(True, setting) is not None
            if self._compute_preview is not None and not exact_is_known:
                self._run(setting, False, self._compute_preview)
                if self._overtaken():
                    return
            self._run(setting, True, self._compute_exact)
        except AbandonedError:
            return
        except BaseException as error:
            # The thread must outlive whatever a compute function or a callback does: a dead one is a frozen panel.
            self.last_error = error
            self._report(setting, error)

    def _run(self, setting: S, exact: bool, compute: Callable[[S, Stop], R]) -> None:
        remembered = self._remembered(exact, setting)
        started = time.perf_counter()
        if remembered is not None:
            value = remembered[0]
        else:
            if self._on_start is not None:
                self._call(self._on_start, setting, exact)
            value = compute(setting, lambda: self._abandon(started))
            self._remember(exact, setting, value)
        seconds = 0.0 if remembered is not None else time.perf_counter() - started
        outcome = Outcome(setting, value, exact, self._overtaken(), seconds, remembered is not None)
        self._call(self._on_result, outcome)

    def _report(self, setting: S, error: BaseException) -> None:
        try:
            self._call(self._on_error, setting, sentence(error))
        except BaseException as second:
            self.last_error = second

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        with self.lock:
            if not self._closed:
                callback(*arguments)

    def _overtaken(self) -> bool:
        with self._state:
            return self._closed or bool(self._waiting)

    def _abandon(self, started: float) -> bool:
        return self._closed or (self._overtaken() and time.perf_counter() - started > ABANDON_AFTER_SECONDS)

    def _remembered(self, exact: bool, setting: S) -> tuple[R] | None:
        """Return the cached result in a tuple, since a result may itself be None."""
        key = (exact, self._key(setting))
        with self._state:
            if key not in self._cache:
                return None
            self._cache.move_to_end(key)
            return (self._cache[key],)

    def _remember(self, exact: bool, setting: S, value: R) -> None:
        key = (exact, self._key(setting))
        with self._state:
            if self._closed:
                return
            self._cache[key] = value
            self._cache.move_to_end(key)
            kind = [each for each in self._cache if each[0] == exact]
            for each in kind[: max(0, len(kind) - self._cache_entries)]:
                del self._cache[each]
