"""`make test` counts right, and cannot pass by testing nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Barrier, Event

import pytest

from tests import everything
from tests.everything import Counts

CASES = {
    "passes": ("def test_one():\n    pass\n", Counts(1, 0, 0)),
    "fails": ("def test_one():\n    assert 1 == 2\n", Counts(0, 1, 0)),
    "skips": ("import pytest\ndef test_one():\n    pytest.skip('so')\ndef test_two():\n    pass\n", Counts(1, 0, 1)),
    "errs": ("import pytest\n@pytest.fixture\ndef bad():\n    1 / 0\ndef test_one(bad):\n    pass\n", Counts(0, 1, 0)),
    "breaks": ("import nothing_of_this_name\n", Counts(0, 1, 0)),
    "holds none": ("x = 1\n", Counts(0, 1, 0)),
}


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(everything, "ROOT", tmp_path)
    monkeypatch.setattr(everything, "REPORTS", tmp_path / "reports")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # none is needed, and they take four times what is tested
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_pytest_is_counted(root: Path, name: str):
    text, expected = CASES[name]
    (root / "checks").mkdir()
    (root / "checks" / "test_it.py").write_text(text)
    assert everything.tests("checks") == expected


def test_a_folder_that_is_not_there_is_a_failure(root: Path):
    assert everything.tests("gone") == Counts(0, 1, 0)


def test_what_an_earlier_run_left_is_not_counted_where_this_one_dies(root: Path):
    (root / "checks").mkdir()
    (root / "checks" / "test_it.py").write_text("def test_one():\n    pass\n")
    assert everything.tests("checks") == Counts(1, 0, 0)
    (root / "checks" / "conftest.py").write_text("import os\nos._exit(3)\n")
    assert everything.tests("checks") == Counts(0, 1, 0)


def test_a_command_counts_as_one(root: Path):
    assert everything.check(sys.executable, "-c", "pass") == Counts(1, 0, 0)
    assert everything.check(sys.executable, "-c", "raise SystemExit(3)") == Counts(0, 1, 0)


@pytest.mark.parametrize(
    ("chromium", "required", "outcome", "expected"),
    [
        (None, "", None, Counts(0, 0, 1)),
        (None, "1", None, Counts(0, 1, 0)),
        ("/usr/bin/chromium", "", Counts(5, 0, 2), Counts(5, 0, 2)),
        ("/usr/bin/chromium", "1", Counts(5, 0, 2), Counts(5, 2, 0)),
        ("/usr/bin/chromium", "1", Counts(7, 0, 0), Counts(7, 0, 0)),
    ],
)
def test_skipped_browser_tests_fail_where_they_must_not_be(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chromium: str | None,
    required: str,
    outcome: Counts | None,
    expected: Counts,
):
    monkeypatch.setattr(everything, "find_chromium", lambda: chromium)
    monkeypatch.setattr(everything, "tests", lambda *_, out: outcome)
    monkeypatch.setenv("COMPRESSKIT_REQUIRE_BROWSER", required)
    assert everything.browser() == expected
    if chromium is None:
        assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("results", "last", "code"),
    [
        ([Counts(3, 0, 0), Counts(1, 0, 0)], "4 passed, 0 failed", 0),
        ([Counts(3, 0, 0), Counts(1, 2, 3)], "4 passed, 2 failed, 3 skipped", 1),
        ([Counts(0, 0, 0)], "0 passed, 0 failed", 1),
    ],
)
def test_the_last_line_is_the_sum(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    results: list[Counts],
    last: str,
    code: int,
):
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    stages = {f"stage {number}": lambda _, result=result: result for number, result in enumerate(results)}
    for waves in ((stages,), tuple({name: stage} for name, stage in stages.items())):
        monkeypatch.setattr(everything, "WAVES", waves)
        assert everything.main() == code
        assert capsys.readouterr().out.splitlines()[-1] == last
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ


def test_stages_side_by_side_run_at_once_and_print_one_after_the_other(root: Path, capfd: pytest.CaptureFixture[str]):
    (root / "reports").mkdir()
    meeting = Barrier(2, timeout=60)  # neither gets past it before the other has come

    def stage(first: str, second: str) -> everything.Stage:
        def run(out: everything.Out) -> Counts:
            assert everything.check(sys.executable, "-c", f"print({first!r})", out=out) == Counts(1, 0, 0)
            meeting.wait()
            return everything.check(sys.executable, "-c", f"raise SystemExit({second!r})", out=out)

        return run

    done = list(everything.side_by_side({"one": stage("a", "b"), "two": stage("c", "d")}))
    assert [(name, counts) for name, counts, _ in done] == [("one", Counts(0, 1, 0)), ("two", Counts(0, 1, 0))]
    assert capfd.readouterr().out.split() == ["----", "one", "a", "b", "----", "two", "c", "d"]


def test_what_a_stage_beside_others_says_is_shown_before_it_ends(root: Path, monkeypatch: pytest.MonkeyPatch):
    (root / "reports").mkdir()
    (root / "reports" / "slow.log").write_text("of an earlier run")
    shown, texts = Event(), []

    def show(text: str, end: str = "\n", **_: object) -> None:
        texts.append(text + end)
        if "first" in "".join(texts):
            shown.set()

    def slow(out: everything.Out) -> Counts:
        assert out is not None
        print("first", file=out, flush=True)
        was_shown = shown.wait(timeout=60)
        print("second", file=out)
        return Counts(int(was_shown), int(not was_shown), 0)

    monkeypatch.setattr(everything, "print", show, raising=False)
    stages = {"quick": lambda _: Counts(1, 0, 0), "slow": slow}
    assert [counts for _, counts, _ in everything.side_by_side(stages)] == [Counts(1, 0, 0)] * 2
    assert "".join(texts).split() == ["----", "quick", "----", "slow", "first", "second"]
