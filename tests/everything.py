"""Every test there is, one stage after another: `make test`.

A stage that fails does not stop the next, so that one run shows all there is to mend. The last line counts the tests
of all stages, a check like the linter's as one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from compresskit.doctor import find_chromium

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "tests"

NO_CHROMIUM = "browser tests skipped: there is no Chromium (Debian and Ubuntu: sudo apt-get install chromium)"


class Counts(NamedTuple):
    """How many tests of a stage passed, failed and were skipped."""

    passed: int
    failed: int
    skipped: int


def check(*command: str) -> Counts:
    """Run a command that counts as one test."""
    ended_well = subprocess.run(command, cwd=ROOT).returncode == 0
    return Counts(int(ended_well), int(not ended_well), 0)


def tests(folder: str, *arguments: str) -> Counts:
    """Run pytest over a folder. It can fail in more ways than by a test: a folder without tests is one."""
    report = REPORTS / f"{folder.replace('/', '-')}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", folder, *arguments]
    code = subprocess.run(command, cwd=ROOT).returncode
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


def notebooks() -> Counts:
    """Run every notebook and compare each output with the saved one; a notebook stays on one worker."""
    sanitize = "--nbval-sanitize-with=tests/notebook/sanitize.cfg"
    compare = ("--nbval", "--nbval-current-env", sanitize, "--nbval-cell-timeout=300")
    return tests("notebooks", *compare, "-n", "2", "--dist", "loadfile")


def browser() -> Counts:
    """Run the browser tests; without Chromium say what to install, and fail where the run must have them."""
    required = os.environ.get("COMPRESSKIT_REQUIRE_BROWSER") == "1"
    if find_chromium() is None:
        print(NO_CHROMIUM)
        return Counts(0, int(required), int(not required))
    found = tests("tests/browser", "-n", "2", "--dist", "loadfile")
    if required and found.skipped:
        print(f"{found.skipped} browser tests were skipped, and this run must have them all")
        return Counts(found.passed, found.failed + found.skipped, 0)
    return found


STAGES: dict[str, Callable[[], Counts]] = {
    "lint": lambda: check("ruff", "check", "."),
    "format": lambda: check("ruff", "format", "--check", "."),
    "types": lambda: check("mypy"),
    "import rules": lambda: check("lint-imports"),
    "unit tests": lambda: tests("tests/unit", "-n", "2", "--dist", "loadfile"),
    "notebook tests": lambda: tests("tests/notebook"),
    "notebooks": notebooks,
    "browser tests": browser,
}


def main() -> int:
    """Run all stages; return the exit code."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Dozens of processes begin here, and images for containers often have Python keep no bytecode: each process would
    # compile the libraries again, TensorFlow alone for six seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    table = []
    results = []
    for name, stage in STAGES.items():
        print(f"\n---- {name}", flush=True)
        started = time.monotonic()
        result = stage()
        results.append(result)
        table.append(
            f"{name:<16} {result.passed:7} {result.failed:7} {result.skipped:8} {time.monotonic() - started:8.1f}"
        )
    passed, failed, skipped = map(sum, zip(*results, strict=True))
    print("\nstage             passed  failed  skipped  seconds", *table, sep="\n")
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
