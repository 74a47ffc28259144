"""Every test there is: `make test`.

Stages that leave a core waiting for something share it with others; each prints what it has to say in one piece. A
stage that fails does not stop the next, so that one run shows all there is to mend. The last line counts the tests of
all stages, a check like the linter's as one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, NamedTuple

from compresskit.doctor import find_chromium

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "tests"

NO_CHROMIUM = "browser tests skipped: there is no Chromium (Debian and Ubuntu: sudo apt-get install chromium)"


class Counts(NamedTuple):
    """How many tests of a stage passed, failed and were skipped."""

    passed: int
    failed: int
    skipped: int


Out = IO[str] | None  # where a stage writes; None is where this process writes
Stage = Callable[[Out], Counts]


def run(command: tuple[str, ...], out: Out) -> int:
    """Run a command in the project's folder; return its exit code."""
    return subprocess.run(command, cwd=ROOT, stdout=out, stderr=out and subprocess.STDOUT).returncode


def check(*command: str, out: Out = None) -> Counts:
    """Run a command that counts as one test."""
    ended_well = run(command, out) == 0
    return Counts(int(ended_well), int(not ended_well), 0)


def tests(folder: str, *arguments: str, out: Out = None) -> Counts:
    """Run pytest over a folder. It can fail in more ways than by a test: a folder without tests is one."""
    report = REPORTS / f"{folder.replace('/', '-')}.xml"
    report.unlink(missing_ok=True)
    plugins = () if "--nbval" in arguments else WITHOUT_NBVAL
    code = run((sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *plugins, folder, *arguments), out)
    passed, failed, skipped = read_report(report)
    return Counts(passed, max(failed, int(code != 0)), skipped)


def read_report(report: Path) -> Counts:
    """Return what pytest's own report counts; nothing where pytest did not come to write one."""
    if not report.exists():
        return Counts(0, 0, 0)
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return Counts(total - failures - errors - skipped, failures + errors, skipped)


WITHOUT_NBVAL = ("-p", "no:nbval")  # each pytest, and each of its workers, takes a second to load it

# A file stays on one worker, since what it made is shared by its tests; files come in the order they are collected in:
# the conftest files put the dearest first, so that no worker begins a long one when the others have ended.
TWO_WORKERS = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def notebooks(out: Out = None) -> Counts:
    """Run every notebook and compare each output with the saved one."""
    sanitize = "--nbval-sanitize-with=tests/notebook/sanitize.cfg"
    compare = ("--nbval", "--nbval-current-env", sanitize, "--nbval-cell-timeout=600")
    return tests("notebooks", *compare, *TWO_WORKERS, out=out)


def browser(out: Out = None) -> Counts:
    """Run the browser tests; without Chromium say what to install, and fail where the run must have them."""
    required = os.environ.get("COMPRESSKIT_REQUIRE_BROWSER") == "1"
    if find_chromium() is None:
        print(NO_CHROMIUM, file=out)
        return Counts(0, int(required), int(not required))
    found = tests("tests/browser", *TWO_WORKERS, out=out)
    if required and found.skipped:
        print(f"{found.skipped} browser tests were skipped, and this run must have them all", file=out)
        return Counts(found.passed, found.failed + found.skipped, 0)
    return found


# One after another; the stages of one wave run at once. The checks are short, and leave no core waiting beside the unit
# tests. Notebooks and browser tests beside each other took as long as one after the other, and a starved browser loses
# clicks.
WAVES: tuple[dict[str, Stage], ...] = (
    {
        "lint": lambda out: check("ruff", "check", ".", out=out),
        "format": lambda out: check("ruff", "format", "--check", ".", out=out),
        "import rules": lambda out: check("lint-imports", out=out),
        "types": lambda out: check("mypy", out=out),
        "notebook tests": lambda out: tests("tests/notebook", out=out),
        "unit tests": lambda out: tests("tests/unit", *TWO_WORKERS, out=out),
    },
    {"notebooks": notebooks},
    {"browser tests": browser},
)


def side_by_side(wave: dict[str, Stage]) -> Iterator[tuple[str, Counts, float]]:
    """Run the stages of a wave; yield the name, the counts and the seconds of each, after its output was printed.

    A stage that is alone prints as it goes; of several, each prints into a file, which is shown when its turn has come.
    """

    def timed(stage: Stage, log: Path | None) -> tuple[Counts, float]:
        started = time.monotonic()
        if log is None:
            return stage(None), time.monotonic() - started
        with log.open("w", encoding="utf-8") as out:
            return stage(out), time.monotonic() - started

    logs = {name: REPORTS / f"{name.replace(' ', '-')}.log" if len(wave) > 1 else None for name in wave}
    for log in filter(None, logs.values()):
        log.write_bytes(b"")  # an earlier run may have left one
    with ThreadPoolExecutor(len(wave)) as pool:
        running = {name: pool.submit(timed, stage, logs[name]) for name, stage in wave.items()}
        for name, stage in running.items():
            print(f"\n---- {name}", flush=True)
            if log := logs[name]:
                follow(log, stage)
            yield name, *stage.result()


def follow(log: Path, stage: Future[tuple[Counts, float]]) -> None:
    """Print what a stage writes into its file, as it comes, until the stage has ended."""
    with log.open(encoding="utf-8", errors="replace") as written:
        ended = False
        while not ended:
            ended = bool(wait([stage], timeout=0.2).done)  # asked first: what comes before the end is read below
            print(written.read(), end="", flush=True)


def main() -> int:
    """Run all stages; return the exit code."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Dozens of processes begin here, and images for containers often have Python keep no bytecode: each process would
    # compile the libraries again, TensorFlow alone for six seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    table = []
    results = []
    for name, result, seconds in (done for wave in WAVES for done in side_by_side(wave)):
        results.append(result)
        table.append(f"{name:<16} {result.passed:7} {result.failed:7} {result.skipped:8} {seconds:8.1f}")
    passed, failed, skipped = map(sum, zip(*results, strict=True))
    print("\nstage             passed  failed  skipped  seconds", *table, sep="\n")
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
