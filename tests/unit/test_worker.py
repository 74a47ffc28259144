"""Work on a thread of its own: asked how it stands from other threads, at any moment."""

from __future__ import annotations

import threading

import pytest

from compresskit.widgets import worker as room
from compresskit.widgets.worker import Worker

PATIENCE = 30.0


def test_results_and_errors_are_told_and_only_one_works_at_a_time():
    told, go = [], threading.Event()
    worker = Worker(told.append)
    assert not worker.busy and worker.wait(0)
    worker.start(lambda: go.wait(PATIENCE) and "done")
    with pytest.raises(ValueError, match="under way"):
        worker.start(lambda: "second")
    assert worker.busy and not worker.wait(0.01)
    go.set()
    assert worker.wait(PATIENCE) and told == ["done"]
    worker.start(lambda: 1 / 0)
    assert worker.wait(PATIENCE) and isinstance(told[1], ZeroDivisionError)


def test_cancel_holds_for_the_work_under_way_only():
    told = []
    worker = Worker(told.append)
    worker.start(lambda: worker.cancel.wait(PATIENCE))
    worker.cancel.set()
    assert worker.wait(PATIENCE) and told == [True]
    worker.start(worker.cancel.is_set)
    assert worker.wait(PATIENCE) and told == [True, False]


def test_on_its_own_thread_waiting_ends_at_once():
    told = []
    worker = Worker(told.append)
    worker.start(lambda: worker.wait(PATIENCE))
    assert worker.wait(PATIENCE) and told == [False]


def test_another_thread_may_wait_while_the_work_is_being_begun(monkeypatch):
    """A button begins the work on one thread while a cell waits on another."""
    starting, asked, answers = threading.Event(), threading.Event(), []

    class Slow(threading.Thread):
        def start(self):
            starting.set()
            asked.wait(0.2)  # the other thread asks in here
            super().start()

    done = threading.Event()
    worker = Worker(lambda _: done.set())

    def ask():
        assert starting.wait(PATIENCE)
        asked.set()
        answers.append(worker.wait(PATIENCE))
        answers.append(done.is_set())

    other = threading.Thread(target=ask)
    other.start()
    monkeypatch.setattr(room.threading, "Thread", Slow)
    worker.start(lambda: None)
    other.join(PATIENCE)
    assert answers == [True, True]
