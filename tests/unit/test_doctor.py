"""The doctor finds what is wrong, says what to do, and breaks on nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from compresskit import cli, doctor
from compresskit.data import Digits
from compresskit.doctor import NOTE, OK, PROBLEM, Finding


def only(findings: Iterator[Finding], state: str) -> Finding:
    """The one finding of a state."""
    (found,) = [finding for finding in findings if finding.state == state]
    return found


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Let packages be missing."""
    version = metadata.version

    def look_up(name: str) -> str:
        if name in missing:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", look_up)


# ---- this environment -----------------------------------------------------------------------------------------------


def test_this_environment_is_well(digits: Digits):
    findings = doctor.examine()
    assert {finding.about for finding in findings} >= {"Python", "packages", "processor", "memory", "disk", "digits"}
    wrong = [finding for finding in findings if finding.state == PROBLEM and finding.about != "memory"]
    assert wrong == []


def test_it_starts_with_the_standard_library_only():
    program = """
import sys
before = set(sys.modules)
sys.modules.update(dict.fromkeys(("numpy", "psutil", "packaging", "plotly", "compresskit.data")))
from compresskit import doctor
print(doctor.report(doctor.examine()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "problem  digits" in done.stdout


def test_the_command_fails_only_on_a_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    fine = Finding("kernel", OK, "fine"), Finding("memory", NOTE, "little memory.", "Close something.")
    monkeypatch.setattr(doctor, "examine", lambda: fine)
    assert cli.main(["doctor"]) == 0
    assert "Nothing is wrong." in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda: (*fine, Finding("disk", PROBLEM, "Full.", "Make room.")))
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "problem  disk    Full.\n                 Make room." in shown
    assert "One problem." in shown


def test_a_look_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    def look_at_the_moon() -> Iterator[Finding]:
        yield Finding("moon", OK, "half")
        raise KeyError("clouds")

    monkeypatch.setattr(doctor, "LOOKS", (look_at_the_moon, doctor.look_at_disk))
    found = doctor.examine()
    assert [finding.state for finding in found[:2]] == [OK, PROBLEM]
    assert found[1].sentence == "Looking at the the moon failed: KeyError: 'clouds'."
    assert found[-1].about == "disk"


def test_every_problem_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """All that can be wrong at once, wrong at once."""
    without(monkeypatch, "anywidget", "plotly", "jupyterlab", "tensorflow")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("COMPRESSKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(doctor, "has_avx", lambda: False)
    monkeypatch.setattr(doctor, "available_memory", lambda: 3e8)
    monkeypatch.setattr(doctor, "find_chromium", lambda: None)
    monkeypatch.setattr(doctor, "DISK", 1e18)
    findings = doctor.examine()
    assert sum(finding.state == PROBLEM for finding in findings) >= 6
    for finding in findings:
        assert finding.sentence
        if finding.state == PROBLEM:
            assert finding.remedy, finding
        if finding.state != OK:
            assert finding.sentence.endswith("."), finding


# ---- one look after another -----------------------------------------------------------------------------------------


def test_a_missing_package_is_named_with_what_it_is_for(monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "anywidget")
    found = only(doctor.look_at_packages(), PROBLEM)
    assert found.sentence == "anywidget is not installed: figures and drawing pads stay blank."
    assert "make clean setup" in found.remedy or "pip install" in found.remedy


def test_no_tensorflow_is_fine_for_the_live_half(monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "tensorflow", "tf-keras", "tensorflow-model-optimization")
    found = only(doctor.look_at_packages(), NOTE)
    assert found.about == "training"
    assert "everything live works" in found.sentence


def test_a_package_for_other_platforms_is_not_missed(monkeypatch: pytest.MonkeyPatch):
    lines = [
        "numpy>=2",
        "elsewhere>=1; sys_platform == 'plan9'",
        "ruff; extra == 'dev'",
        "rough; extra == 'dev' and os_name == 'x'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert doctor.requirements() == {"": ("numpy",), "dev": ("ruff",)}
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert doctor.requirements()[""] == ("numpy",)


def test_an_uninstalled_clone_is_told_what_to_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "requirements", dict)
    assert "make setup" in only(doctor.look_at_packages(), PROBLEM).remedy


def test_what_is_older_than_its_pin_is_named(monkeypatch: pytest.MonkeyPatch):
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.26.4" if name == "numpy" else version(name))
    found = only(doctor.look_at_packages(), PROBLEM)
    assert "numpy 1.26.4 (pinned: 2." in found.sentence


def test_what_is_newer_than_its_pin_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "version", lambda name: "9999.1")
    assert all(finding.state == OK for finding in doctor.look_at_packages())


@pytest.mark.parametrize(
    ("older", "newer"),
    [("2.4.6", "2.10.0"), ("2.4", "2.4.1"), ("5.21.0", "25.1.0"), ("2.4.6rc1", "2.4.7"), ("0.8.1", "0.8.1.1")],
)
def test_versions_are_compared_as_numbers(older: str, newer: str):
    assert doctor.numbers(older) < doctor.numbers(newer)


@pytest.mark.parametrize(
    ("gigabytes", "state"), [(0.4, PROBLEM), (0.99, PROBLEM), (1.5, NOTE), (2.9, NOTE), (3.1, OK), (64, OK)]
)
def test_memory(monkeypatch: pytest.MonkeyPatch, gigabytes: float, state: str):
    monkeypatch.setattr(doctor, "available_memory", lambda: gigabytes * 1e9)
    (found,) = doctor.look_at_memory()
    assert found.state == state
    assert f"{gigabytes:.1f} GB" in found.sentence


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "2000", "memory.current": "500", "memory.stat": "anon 1\ninactive_file 100\nx 3"}, 1600),
        ({"memory.max": "2000", "memory.current": "500", "memory.stat": ""}, 1500),
        ({"memory.max": "max", "memory.current": "500", "memory.stat": ""}, None),
        (
            {
                "memory/memory.limit_in_bytes": "2000",
                "memory/memory.usage_in_bytes": "500",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 20",
            },
            1501,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "500",
                "memory/memory.stat": "",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_a_container_s_limit_counts(tmp_path: Path, files: dict[str, str], expected: float | None):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert doctor.cgroup_memory(tmp_path) == expected


def test_the_smaller_of_system_and_container_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "system_memory", lambda: 8e9)
    monkeypatch.setattr(doctor, "cgroup_memory", lambda: 5e8)
    assert doctor.available_memory() == 5e8
    monkeypatch.setattr(doctor, "cgroup_memory", lambda: None)
    assert doctor.available_memory() == 8e9


@pytest.mark.skipif(sys.platform != "linux", reason="compares with a file of Linux")
def test_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch):
    with_psutil = doctor.system_memory()
    monkeypatch.setitem(sys.modules, "psutil", None)
    without_psutil = doctor.system_memory()
    assert with_psutil is not None
    assert without_psutil is not None
    assert abs(with_psutil - without_psutil) < 2e9  # two moments, on a machine where others work


@pytest.mark.parametrize(("tensorflow", "state"), [("2.21.0", PROBLEM), (None, NOTE)])
def test_no_avx_stops_training_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tensorflow: str | None, state: str):
    monkeypatch.setattr(doctor, "has_avx", lambda: False)
    monkeypatch.setattr(doctor, "installed", lambda name: tensorflow)
    (found,) = doctor.look_at_processor()
    assert found.state == state
    assert "the live half works" in found.sentence


def test_digits_that_are_not_there_are_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from compresskit.data import mirrors, package_index

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(mirrors, "answering", refuse)
    monkeypatch.setattr(package_index, "fetch", refuse)
    for name in ("COMPRESSKIT_CACHE", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("COMPRESSKIT_DATA", "COMPRESSKIT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    found = only(doctor.look_at_digits(), NOTE)
    assert "compresskit fetch" in found.remedy
    monkeypatch.setenv("COMPRESSKIT_OFFLINE", "1")
    found = only(doctor.look_at_digits(), PROBLEM)
    assert "Offline sample" in found.sentence


def test_no_chromium_is_a_note(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "find_chromium", lambda: None)
    assert "apt-get install chromium" in only(doctor.look_at_browser(), NOTE).remedy


# ---- in a notebook --------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[Finding]]:
    """Look as from a kernel whose lab is in the given environment."""

    def look(lab: Path) -> list[Finding]:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
        monkeypatch.setenv("JPY_PARENT_PID", "1")
        monkeypatch.setenv("COMPRESSKIT_LAB", str(lab))
        return list(doctor.look_at_kernel())

    return look


def test_outside_a_notebook_there_is_no_kernel_to_look_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert list(doctor.look_at_kernel()) == []


def test_one_environment_for_both_is_right(in_a_kernel):
    assert [finding.state for finding in in_a_kernel(Path(sys.prefix))] == [OK]


def test_another_lab_is_named(in_a_kernel, tmp_path: Path):
    for name in doctor.FRONT_ENDS:
        (tmp_path / "share/jupyter/labextensions" / name).mkdir(parents=True)
    (found,) = in_a_kernel(tmp_path)
    assert found.state == PROBLEM
    assert str(tmp_path) in found.sentence
    assert sys.prefix in found.sentence


def test_a_lab_without_anywidget_shows_blanks(in_a_kernel, tmp_path: Path):
    (tmp_path / "share/jupyter/labextensions" / doctor.FRONT_ENDS[0]).mkdir(parents=True)
    (found,) = in_a_kernel(tmp_path)
    assert found.state == PROBLEM
    assert "lacks anywidget" in found.sentence


@pytest.mark.skipif(sys.platform == "win32", reason="reads commands as POSIX systems have them")
def test_of_a_lab_that_says_nothing_the_command_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("COMPRESSKIT_LAB", raising=False)
    import psutil

    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.symlink_to("/bin/sleep")  # a Python in a place that is no environment would not start
    running = subprocess.Popen([str(program), "60"])
    try:
        while not psutil.Process(running.pid).cmdline():  # between fork and exec
            time.sleep(0.01)
        monkeypatch.setenv("JPY_PARENT_PID", str(running.pid))
        assert doctor.lab_prefix() == tmp_path
    finally:
        running.kill()
        running.wait()
    assert doctor.lab_prefix() is None  # gone
