"""`Live`: order, latest wins, caching, errors. Deterministic: computations wait for events, never for time."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field

import pytest

from compresskit.widgets import live as live_module
from compresskit.widgets.live import AbandonedError, Live, Outcome, sentence

PATIENCE = 30.0  # seconds until a broken test gives up; no assertion depends on it


@dataclass
class Gate:
    """Computations that start when asked for and end when allowed."""

    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    calls: list[tuple[str, int]] = field(default_factory=list)

    def compute(self, kind: str):
        def run(setting: int, stop) -> tuple[str, int]:
            self.calls.append((kind, setting))
            self.started.release()
            assert self.allowed.acquire(timeout=PATIENCE)
            return kind, setting

        return run

    def wait_started(self) -> None:
        assert self.started.acquire(timeout=PATIENCE)


@dataclass
class Panel:
    results: list[Outcome] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)

    def on_result(self, outcome: Outcome) -> None:
        self.results.append(outcome)

    def on_error(self, setting: int, message: str) -> None:
        self.errors.append((setting, message))


@pytest.fixture
def panel():
    return Panel()


@pytest.fixture
def make(panel):
    opened: list[Live] = []

    def build(preview, exact, **options) -> Live:
        live = Live(preview, exact, panel.on_result, panel.on_error, **options)
        opened.append(live)
        return live

    yield build
    for live in opened:
        live.close()


def plain(kind: str, calls: list | None = None):
    def run(setting, stop):
        if calls is not None:
            calls.append((kind, setting))
        return kind, setting

    return run


def test_preview_comes_before_exact(make, panel):
    live = make(plain("preview"), plain("exact"))
    live.submit(1)
    assert live.wait_idle(PATIENCE)
    assert [(o.value, o.exact, o.outdated, o.cached) for o in panel.results] == [
        (("preview", 1), False, False, False),
        (("exact", 1), True, False, False),
    ]


def test_only_the_newest_waiting_setting_is_kept(make, panel):
    gate = Gate()
    live = make(gate.compute("preview"), gate.compute("exact"))
    live.submit(0)
    gate.wait_started()
    for setting in range(1, 100):
        live.submit(setting)
    for _ in range(3):  # preview 0, preview 99, exact 99
        gate.allowed.release()
    assert live.wait_idle(PATIENCE)
    assert gate.calls == [("preview", 0), ("preview", 99), ("exact", 99)]
    assert [(o.value, o.outdated) for o in panel.results] == [
        (("preview", 0), True),
        (("preview", 99), False),
        (("exact", 99), False),
    ]


def test_an_exact_pass_that_runs_is_finished_and_shown(make, panel):
    gate = Gate()
    live = make(None, gate.compute("exact"))
    live.submit(0)
    gate.wait_started()
    live.submit(1)
    gate.allowed.release()
    gate.allowed.release()
    assert live.wait_idle(PATIENCE)
    assert [(o.value, o.outdated) for o in panel.results] == [(("exact", 0), True), (("exact", 1), False)]


def test_a_known_exact_result_needs_no_computation(make, panel):
    calls: list = []
    live = make(plain("preview", calls), plain("exact", calls), cache_entries=2)  # two of each kind
    for setting in (1, 2, 1):
        live.submit(setting)
        assert live.wait_idle(PATIENCE)
    assert calls == [("preview", 1), ("exact", 1), ("preview", 2), ("exact", 2)]
    last = panel.results[-1]
    assert (last.value, last.exact, last.cached, last.seconds) == (("exact", 1), True, True, 0.0)


def test_a_result_of_none_is_remembered_too(make, panel):
    calls: list = []

    def exact(setting, stop):
        calls.append(setting)

    live = make(None, exact)
    for _ in range(2):
        live.submit(1)
        assert live.wait_idle(PATIENCE)
    assert calls == [1]


def test_known_is_what_was_computed_exactly_and_nothing_else(make, panel):
    gate = Gate()

    def key(setting):
        if setting < 0:
            raise ValueError("No.")
        return setting

    live = make(gate.compute("preview"), gate.compute("exact"), key=key)
    live.submit(1)
    gate.wait_started()
    gate.allowed.release()
    gate.wait_started()  # the preview is done
    assert live.known(1) is None and live.busy and not live.wait_idle(0.0)
    gate.allowed.release()
    assert live.wait_idle(PATIENCE) and not live.busy
    assert live.known(1) == ("exact", 1) and live.known(2) is None and live.known(-1) is None
    assert len(gate.calls) == 2


def test_results_are_cached_by_key(make, panel):
    calls: list = []
    live = make(None, plain("exact", calls), key=lambda setting: setting["bits"])
    live.submit({"bits": 8, "note": "a"})
    assert live.wait_idle(PATIENCE)
    live.submit({"bits": 8, "note": "b"})
    assert live.wait_idle(PATIENCE)
    assert len(calls) == 1


def test_the_cache_forgets_the_least_recently_used(make, panel):
    calls: list = []
    live = make(None, plain("exact", calls), cache_entries=2)
    for setting in (1, 2, 1, 3, 1, 2):  # 3 pushes 2 out, not 1
        live.submit(setting)
        assert live.wait_idle(PATIENCE)
    assert [setting for _, setting in calls] == [1, 2, 3, 2]


def test_forget_computes_again(make, panel):
    calls: list = []
    live = make(None, plain("exact", calls))
    for _ in range(2):
        live.submit(1)
        assert live.wait_idle(PATIENCE)
        live.forget()
    assert len(calls) == 2


def test_a_failed_setting_gives_a_sentence_and_the_next_one_works(make, panel):
    def exact(setting, stop):
        if setting == 1:
            raise ValueError("sparsity is 1.2; give a number from 0 to 0.99.")
        return setting

    live = make(None, exact)
    live.submit(1)
    assert live.wait_idle(PATIENCE)
    live.submit(2)
    assert live.wait_idle(PATIENCE)
    assert panel.errors == [(1, "sparsity is 1.2; give a number from 0 to 0.99.")]
    assert isinstance(live.last_error, ValueError)
    assert [o.value for o in panel.results] == [2]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_whatever_is_raised_the_thread_lives_on(make, panel, kind):
    def exact(setting, stop):
        if setting == 1:
            raise kind("so")
        return setting

    live = make(None, exact)
    live.submit(1)
    assert live.wait_idle(PATIENCE)
    assert panel.errors == [(1, f"{kind.__name__}: so.")]
    live.submit(2)
    assert live.wait_idle(PATIENCE)
    assert [o.value for o in panel.results] == [2]


def test_a_failed_preview_starts_no_exact_pass(make, panel):
    calls: list = []

    def preview(setting, stop):
        raise ValueError("No.")

    live = make(preview, plain("exact", calls))
    live.submit(1)
    assert live.wait_idle(PATIENCE)
    assert calls == [] and panel.errors == [(1, "No.")]


def test_errors_are_not_cached(make, panel):
    def exact(setting, stop):
        raise ValueError("Never.")

    live = make(None, exact)
    for _ in range(2):
        live.submit(1)
        assert live.wait_idle(PATIENCE)
    assert len(panel.errors) == 2


def test_an_error_in_the_callback_is_reported_and_survived(panel):
    seen = threading.Event()

    def on_result(outcome):
        if outcome.value == 1:
            raise KeyError("conv3")
        seen.set()

    live = Live(None, lambda setting, stop: setting, on_result, panel.on_error)
    try:
        live.submit(1)
        assert live.wait_idle(PATIENCE)
        assert panel.errors == [(1, "KeyError: 'conv3'.")]
        live.submit(2)
        assert seen.wait(PATIENCE)
    finally:
        live.close()


def test_even_a_broken_error_callback_leaves_the_thread_alive():
    results: list = []

    def on_error(setting, message):
        raise RuntimeError("the status line is gone")

    def exact(setting, stop):
        if setting == 1:
            raise ValueError("No.")
        return setting

    live = Live(None, exact, results.append, on_error)
    try:
        live.submit(1)
        assert live.wait_idle(PATIENCE)
        assert str(live.last_error) == "the status line is gone"
        live.submit(2)
        assert live.wait_idle(PATIENCE)
        assert [o.value for o in results] == [2]
    finally:
        live.close()


def test_on_start_is_told_what_is_computed_and_only_that(make, panel):
    started: list = []
    live = make(plain("preview"), plain("exact"), on_start=lambda setting, exact: started.append((setting, exact)))
    for _ in range(2):
        live.submit(1)
        assert live.wait_idle(PATIENCE)
    assert started == [(1, False), (1, True)]


def test_a_long_job_is_abandoned_for_a_newer_setting(make, panel, monkeypatch):
    monkeypatch.setattr(live_module, "ABANDON_AFTER_SECONDS", -1.0)  # every job is a long one
    running = threading.Event()

    def exact(setting, stop):
        if setting == 0:
            assert not stop()
            running.set()
            while not stop():
                pass
            raise AbandonedError
        return setting

    live = make(None, exact)
    live.submit(0)
    assert running.wait(PATIENCE)
    live.submit(1)
    assert live.wait_idle(PATIENCE)
    assert [o.value for o in panel.results] == [1] and panel.errors == []


def test_a_short_job_is_never_told_to_stop(make, panel, monkeypatch):
    monkeypatch.setattr(live_module, "ABANDON_AFTER_SECONDS", float("inf"))
    gate = Gate()
    asked: list = []

    def exact(setting, stop):
        value = gate.compute("exact")(setting, stop)
        asked.append(stop())
        return value

    live = make(None, exact)
    live.submit(0)
    gate.wait_started()
    live.submit(1)
    gate.allowed.release()
    gate.allowed.release()
    assert live.wait_idle(PATIENCE)
    assert asked == [False, False]


def test_after_close_nothing_is_called(panel):
    gate = Gate()
    live = Live(None, gate.compute("exact"), panel.on_result, panel.on_error)
    live.submit(0)
    gate.wait_started()
    live.submit(1)
    live.close()
    gate.allowed.release()
    live.close(timeout=PATIENCE)
    assert panel.results == [] and panel.errors == []
    assert live.wait_idle(PATIENCE) and not live.busy, "what waited is forgotten"
    assert not live._cache, "and what was computed is not kept"
    assert not live._thread.is_alive()
    with pytest.raises(RuntimeError, match="run its cell again"):
        live.submit(1)


def test_close_from_a_callback_does_not_hang():
    closed = threading.Event()

    def on_result(outcome):
        live.close(timeout=None)
        closed.set()

    live = Live(None, lambda setting, stop: setting, on_result, lambda setting, message: None)
    live.submit(1)
    assert closed.wait(PATIENCE)
    live.close(timeout=PATIENCE)
    assert not live._thread.is_alive()


def test_close_ends_a_job_that_has_just_begun(monkeypatch):
    monkeypatch.setattr(live_module, "ABANDON_AFTER_SECONDS", float("inf"))
    running = threading.Event()

    def exact(setting, stop):
        running.set()
        while not stop():
            pass
        raise AbandonedError

    live = Live(None, exact, lambda outcome: None, lambda setting, message: None)
    live.submit(0)
    assert running.wait(PATIENCE)
    live.close(timeout=PATIENCE)
    assert not live._thread.is_alive()


def test_wait_idle_on_the_worker_does_not_hang(make, panel):
    answers: list = []

    def exact(setting, stop):
        answers.append(live.wait_idle())

    live = make(None, exact)
    live.submit(1)
    assert live.wait_idle(PATIENCE)
    assert answers == [False]


def test_callbacks_hold_the_lock(make, panel):
    lock = threading.RLock()
    owned: list = []
    live = Live(
        lambda setting, stop: setting,
        lambda setting, stop: setting,
        lambda outcome: owned.append(lock._is_owned()),
        lambda setting, message: None,
        on_start=lambda setting, exact: owned.append(lock._is_owned()),
        lock=lock,
    )
    try:
        live.submit(1)
        assert live.wait_idle(PATIENCE)
        assert owned == [True] * 4
        assert live.lock is lock
    finally:
        live.close()


@pytest.mark.parametrize("seed", range(5))
def test_many_threads_end_with_the_last_setting_exact(seed):
    """Eight threads submit at once; computations are pure, results may come in any order but the last is never lost."""
    computing = 0
    most = 0
    guard = threading.Lock()
    results: list[Outcome] = []
    failures: list = []

    def compute(kind):
        def run(setting, stop):
            nonlocal computing, most
            with guard:
                computing += 1
                most = max(most, computing)
            value = (kind, sum(range(setting % 50)))
            with guard:
                computing -= 1
            if setting % 7 == 3:
                raise ValueError(f"{setting} cannot be.")
            return value

        return run

    live = Live(compute("preview"), compute("exact"), results.append, lambda s, m: failures.append((s, m)))
    try:
        start = threading.Barrier(8)

        def visitor(which: int) -> None:
            generator = random.Random(seed * 100 + which)
            start.wait(PATIENCE)
            for _ in range(200):
                live.submit(generator.randrange(1000))

        threads = [threading.Thread(target=visitor, args=(which,)) for which in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        live.submit(1001)  # 1001 % 7 == 0
        assert live.wait_idle(PATIENCE)
        assert most == 1, "two computations ran at once"
        assert (results[-1].setting, results[-1].exact, results[-1].outdated) == (1001, True, False)
        assert all(o.value[0] == ("exact" if o.exact else "preview") for o in results)
        assert all(o.value[1] == sum(range(o.setting % 50)) for o in results)
        assert all(setting % 7 == 3 and message == f"{setting} cannot be." for setting, message in failures)
        assert live.last_error is None or isinstance(live.last_error, ValueError)
    finally:
        live.close(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bits is 9; use 2, 4 or 8."), "bits is 9; use 2, 4 or 8."),
        (ValueError("bits is 9"), "bits is 9."),
        (ValueError("two\n   lines"), "two lines."),
        (ValueError(), "ValueError without a message."),
        (KeyError("conv3"), "KeyError: 'conv3'."),
        (RuntimeError("node 3 failed to prepare."), "RuntimeError: node 3 failed to prepare."),
        (MemoryError(), "There is not enough memory for this setting."),
    ],
)
def test_errors_become_sentences(error, expected):
    assert sentence(error) == expected


def test_a_negative_cache_is_refused():
    with pytest.raises(ValueError, match="cache_entries is -1"):
        Live(None, lambda s, stop: s, lambda o: None, lambda s, m: None, cache_entries=-1)
