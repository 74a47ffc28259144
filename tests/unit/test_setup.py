"""The set-up: what install.py decides, mends and waits for, and that pins, extras and conda's file are in step."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = [Requirement(line.removesuffix("\\")) for line in LOCK.splitlines() if re.match(r"[a-z]", line)]
POSIX = pytest.mark.skipif(os.name == "nt", reason="about signals and files of POSIX systems")


# ---- pins -----------------------------------------------------------------------------------------------------------


def asked_for(*extras: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def test_the_lock_pins_everything_that_is_asked_for():
    pinned: dict[str, list[str]] = {}
    for pin in PINS:
        pinned.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    for requirement in asked_for(*PROJECT["optional-dependencies"]):
        versions = pinned.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in requirements.lock: make lock"
        assert all(map(requirement.specifier.contains, versions)), f"{requirement} is pinned to {versions}: make lock"


def test_every_pin_is_one_version_with_hashes_and_no_address_is_named():
    blocks = re.split(r"^(?=[a-z])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PINS) > 100
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==[^ ]+ ", block), block.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\s*$", block), block.splitlines()[0]
    assert "://" not in LOCK
    assert "index" not in LOCK


def test_pip_too_may_install_every_pin_on_this_python():
    """Uv does not look at the upper end of the Pythons that a package says it is for, and pip does."""
    refused = []
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate():
            needs = metadata.metadata(pin.name).get("Requires-Python")
            if needs and not Requirement(f"python{needs}").specifier.contains(platform.python_version()):
                refused.append(f"{pin.name}: {needs}")
    assert not refused


def test_conda_gets_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    name, version = python.split("=")  # one version: repo2docker reads no ranges, and would begin with another
    assert name == "python" and Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)
    assert pip == "pip"
    *pins, itself = from_pip["pip"]
    assert itself == "-e ."
    assert list(map(str, map(Requirement, pins))) == list(map(str, PINS)), "environment.yml is out of step: make lock"


def closure(requirements: list[Requirement]) -> set[str]:
    """Everything that is installed for these requirements, by the packages' own word."""
    found: set[str] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if name in found and not requirement.extras:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            waiting += [(Requirement(line), each) for each in ("", *requirement.extras)]
    return found


def test_the_live_half_does_without_tensorflow():
    live = closure(asked_for())
    assert {"ai-edge-litert", "numpy", "plotly"} <= live
    assert not live & {"tensorflow", "tensorflow-cpu", "tf-keras", "keras", "tensorflow-model-optimization"}
    assert "tensorflow" in closure(asked_for("train"))  # else the line above could not fail


def test_the_live_half_does_without_jupyterlab_and_the_developers_tools():
    assert not closure(asked_for()) & {"jupyterlab", "pytest", "ruff", "uv", "playwright"}


def test_the_package_carries_all_it_needs_and_stays_small(tmp_path: Path):
    """What git tracks below compresskit/ is in the wheel, models and JavaScript too, and the wheel is below 25 MB."""
    program = f"from hatchling.build import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 25e6
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    tracked = set(subprocess.check_output(["git", "ls-files", "compresskit"], cwd=ROOT, text=True).split())
    assert {path for path in tracked if (ROOT / path).exists()} - held == set()
    assert {"compresskit/py.typed", "compresskit/jupyter/labconfig/default_setting_overrides.json"} <= held
    assert not [name for name in held if name.startswith(("tests/", "notebooks/"))]


def test_the_set_up_covers_the_pythons_that_the_project_allows(install: ModuleType):
    allowed = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert tuple(v for v in ("3.10", "3.11", "3.12", "3.13", "3.14") if allowed.contains(v)) == install.VERSIONS


# ---- what install.py decides ----------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path) -> ModuleType:
    """install.py, as a module, in a folder of its own."""
    for name in ("install.py", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    spec = importlib.util.spec_from_file_location("install", tmp_path / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("what", "value", "word"),
    [
        ("platform.python_version", "3.10.14", "3.10.14 is not supported"),
        ("platform.python_version", "3.14.0", "3.14.0 is not supported"),
        ("platform.python_version", "3.9.6", "it must be 3.11, 3.12 or 3.13"),
        ("platform.python_implementation", "PyPy", "PyPy"),
        ("platform.libc_ver", ("", ""), "C library"),
        ("struct.calcsize", 4, "32-bit"),
        ("sysconfig.get_config_var", 1, "free-threaded"),
    ],
)
def test_a_python_that_cannot_work_is_refused_in_a_sentence(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, what: str, value: object, word: str
):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert install.why_not_this_python() == ""
    monkeypatch.setattr(what, lambda *_: value)
    assert word in install.why_not_this_python()
    with pytest.raises(install.Refused, match=r"make setup PYTHON="):
        install.choose_python(chosen=True)


@pytest.mark.parametrize(
    ("system", "machine", "fits"),
    [
        ("Darwin", "arm64", True),
        ("Darwin", "x86_64", False),
        ("Windows", "AMD64", True),
        ("Windows", "ARM64", False),
        ("Linux", "x86_64", True),
        ("Linux", "aarch64", True),
    ],
)
def test_platforms_without_litert_are_refused(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, fits: bool
):
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert (install.why_not_this_python() == "") == fits


@POSIX
def test_another_python_is_looked_for_unless_one_was_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = tmp_path / "path"
    folder.mkdir()
    for name, word in (("python3.11", "echo oh; exit 1"), ("python3.12", "echo '\"\"'")):
        (folder / name).write_text(f"#!/bin/sh\n{word}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(install, "why_not_this_python", lambda: "this one is too old.")
    assert install.choose_python(chosen=False) == str(folder / "python3.12")  # the first that works
    with pytest.raises(install.Refused, match="too old"):
        install.choose_python(chosen=True)


def test_old_pythons_can_read_the_script_far_enough_to_be_refused(install: ModuleType):
    compile((ROOT / "install.py").read_text(), "install.py", "exec", dont_inherit=True)
    import ast

    ast.parse((ROOT / "install.py").read_text(), feature_version=(3, 8))


def test_uv_comes_with_its_hashes(install: ModuleType):
    pin = install.pin_of("uv").splitlines()
    assert re.match(r"uv==[\d.]+ \\$", pin[0])
    assert len(pin) > 10
    assert all("--hash=sha256:" in line for line in pin[1:])
    assert not pin[-1].endswith("\\")


def settings_for(install: ModuleType, monkeypatch: pytest.MonkeyPatch, listing: str) -> dict[str, str]:
    for name in list(os.environ):
        if name.startswith("UV_") or name in ("SSL_CERT_FILE", "ALL_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(install, "output_of", lambda command: textwrap.dedent(listing).strip())
    return dict(install.uv_settings(install.pip_configuration()))


def test_uv_is_given_the_mirror_and_the_certificate_that_pip_uses(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    listing = f"""
        global.cert='/etc/company.pem'
        global.index-url='https://mirror.example/simple'
        global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
        global.find-links='{tmp_path} {tmp_path}/gone'
        :env:.index-url='https://nearer.example/simple'
        :env:.trusted-host='nearer.example'
        download.index-url='https://for-another-command.example'
    """
    assert settings_for(install, monkeypatch, listing) == {
        "UV_DEFAULT_INDEX": "https://nearer.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(tmp_path),
        "UV_INSECURE_HOST": "nearer.example",
        "SSL_CERT_FILE": "/etc/company.pem",
    }


def test_what_is_set_for_uv_wins(install: ModuleType, monkeypatch: pytest.MonkeyPatch):
    settings_for(install, monkeypatch, "")
    found = {"index-url": "https://pip.example/simple"}
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    assert "UV_DEFAULT_INDEX" not in install.uv_settings(found)
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    assert install.uv_settings(found)["UV_DEFAULT_INDEX"] == "https://pip.example/simple"
    monkeypatch.setenv("UV_INDEX_URL", "https://uv.example/simple")
    assert "UV_DEFAULT_INDEX" not in install.uv_settings(found)


def test_a_folder_of_wheels_serves_a_class_without_network(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The real uv, with nothing but a folder; `UV_OFFLINE` makes it fail where it would ask the network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "carried-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("carried.py", "")
        archive.writestr("carried-1.0.dist-info/METADATA", about)
        archive.writestr("carried-1.0.dist-info/WHEEL", kind)
        archive.writestr("carried-1.0.dist-info/RECORD", "carried.py,,\n")
    install.PINS.write_text(f"carried==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(install, "pip_configuration", lambda: {"no-index": "1", "find-links": str(wheels)})
    ran: list[list[str]] = []

    def run(command: list[str], lock: object, on_failure: str, settings: dict[str, str]) -> None:
        ran.append(command)
        if "-r" in command:
            words = [sys.executable if word == str(install.VENV_PYTHON) else word for word in command]
            subprocess.run([*words, "--target", str(tmp_path / "target")], env={**os.environ, **settings}, check=True)

    monkeypatch.setattr(install, "run", run)
    install.install_pins(None)
    assert (tmp_path / "target" / "carried.py").exists()
    assert all("--no-index" in command for command in ran)
    assert len(ran) == 2


def test_too_small_a_disk_is_refused_before_anything_is_made(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10, 5 * 10**8))
    assert install.main([]) == 1
    assert "0.5 GB are free" in capsys.readouterr().err
    assert not install.VENV.exists()


@POSIX
def test_where_pip_cannot_be_had_its_package_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(install, "succeeds", lambda command, folder=None: False)
    monkeypatch.setattr(install, "check_disk", lambda: None)
    assert install.main([]) == 1
    ours = ".".join(platform.python_version_tuple()[:2])
    assert f"sudo apt-get install python{ours}-venv" in capsys.readouterr().err


# ---- what install.py does: real processes and locks, a stand-in for the network --------------------------------------

DRIVER = """
    import os, sys, time
    from pathlib import Path
    import install

    mode = sys.argv[1]
    log = Path("log.txt")

    def note(text):
        with log.open("a") as file:
            file.write(text + "\\n")

    def make_environment(base, lock):
        install.run([base, "-m", "venv", "--without-pip", str(install.VENV)], lock, "no venv")

    def install_pins(lock):
        note("begin")
        (install.VENV / "half-way").touch()
        if mode == "fails":
            raise install.Refused("no network.")
        if mode == "hangs":
            wait = "import time, pathlib\\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)"
            install.run([sys.executable, "-c", wait], lock, "cut")
        time.sleep(0.3)
        note("end")

    install.make_environment = make_environment
    install.install_uv = lambda lock: None
    install.install_pins = install_pins
    install.check_disk = lambda: None
    sys.exit(install.main([]))
"""


@pytest.fixture
def start(install: ModuleType, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start the set-up in a process of its own: it "works", "fails" or "hangs" until there is a file `go`."""
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    started: list[subprocess.Popen[str]] = []

    def run(mode: str) -> subprocess.Popen[str]:
        command = [sys.executable, "driver.py", mode]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield run
    (tmp_path / "go").touch()
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def log_of(folder: Path) -> list[str]:
    path = folder / "log.txt"
    return path.read_text().split() if path.exists() else []


def test_twice_is_once(start, install: ModuleType, tmp_path: Path):
    assert "ready in" in finish(start("works"))
    assert json.loads(install.READY.read_text())["python"] == ".".join(platform.python_version_tuple()[:2])
    assert finish(start("works")) == ""
    assert log_of(tmp_path) == ["begin", "end"]


def test_two_at_once_make_one(start, tmp_path: Path):
    processes = [start("works") for _ in range(3)]
    outputs = [finish(process) for process in processes]
    assert log_of(tmp_path) == ["begin", "end"]
    assert sum("ready in" in output for output in outputs) == 1


def test_new_pins_are_installed_into_what_is_there(start, install: ModuleType, tmp_path: Path):
    finish(start("works"))
    (install.VENV / "a-learners-own").touch()
    with install.PINS.open("a") as lock:
        lock.write("# changed\n")
    assert "ready in" in finish(start("works"))
    assert (install.VENV / "a-learners-own").exists()
    assert log_of(tmp_path) == ["begin", "end"] * 2


@POSIX
def test_a_killed_set_up_is_mended_by_the_next(start, install: ModuleType, tmp_path: Path):
    first = start("hangs")
    wait_for(lambda: log_of(tmp_path) == ["begin"])
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start("works")
    assert second.stdout is not None
    assert "another set-up is working" in second.stdout.readline()  # the installer that the first one left
    assert not install.READY.exists()
    (install.VENV / "left-over").touch()
    (tmp_path / "go").touch()
    output = finish(second)
    assert "an earlier set-up was cut off" in output
    assert not (install.VENV / "left-over").exists()
    assert log_of(tmp_path) == ["begin", "begin", "end"]
    assert finish(start("works")) == ""


def test_a_failure_leaves_a_whole_environment_in_place(start, install: ModuleType, tmp_path: Path):
    finish(start("works"))
    (install.VENV / "whole").touch()
    with install.PINS.open("a") as lock:
        lock.write("# changed\n")
    failed = start("fails")
    assert "no network" in failed.communicate()[0]
    assert failed.returncode == 1
    assert "ready in" in finish(start("works"))
    assert (install.VENV / "whole").exists()


def test_an_environment_made_by_hand_is_used(start, install: ModuleType):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", install.VENV], check=True)
    (install.VENV / "by-hand").touch()
    assert "ready in" in finish(start("works"))
    assert (install.VENV / "by-hand").exists()


@POSIX
@pytest.mark.parametrize("what", ["python is gone", "folder was moved", "ready.json is garbage"])
def test_what_no_longer_works_is_made_anew(start, install: ModuleType, what: str):
    finish(start("works"))
    (install.VENV / "old").touch()
    if what == "python is gone":
        for link in install.VENV_PYTHON.parent.glob("python*"):
            link.unlink()
            link.symlink_to("/nonexistent/python")
    elif what == "folder was moved":
        install.READY.write_text(json.dumps({**json.loads(install.READY.read_text()), "folder": "/elsewhere"}))
    else:
        install.READY.write_text("{")
    assert "ready in" in finish(start("works"))
    assert (install.VENV / "old").exists() == (what == "ready.json is garbage")  # which alone harms nothing
    assert finish(start("works")) == ""


# ---- make -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_names_what_it_can_do():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[1] for line in shown.splitlines()}
    assert {"lab", "setup", "test", "notebooks", "zoo", "lint", "types", "bench", "fuzz", "lock", "clean"} <= targets


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("words", "chosen"), [(["PYTHON=some-python"], True), ([], False)])
def test_a_named_python_is_told_apart_from_the_default(words: list[str], chosen: bool):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    command = ["make", "--dry-run", "setup", *words]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment).stdout
    assert ('if [ -n "yes" ]' in shown) == chosen
    assert ("some-python install.py --this-python" in shown) == chosen
