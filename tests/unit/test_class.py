"""The course for a class: a copied folder without a network, a server with read-only data, files of Binder and TLJH."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from traitlets.config import Config

from compresskit import cli
from compresskit.app import memory_settings
from compresskit.data import cache
from compresskit.data.sources import copy_mnist

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ("postBuild", "start", "deploy/tljh.sh")

LESSON = """
import socket

def refuse(*_, **__):
    raise OSError("there is no network here")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import subprocess
subprocess.Popen = refuse  # no pip either
import compresskit as ck
digits = ck.load_mnist()
print(digits.complete, len(digits.train), digits.source)
"""


@pytest.fixture
def nobody_home(tmp_path):
    """Variables of a learner who never had a network: an empty home, no settings of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMPRESSKIT", "XDG", "KERAS"))}
    (tmp_path / "home").mkdir()
    return {**kept, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def copied(tmp_path_factory, digits):
    """A folder as `make class` leaves it, as far as the digits go; read-only, as on a medium that goes round."""
    folder = tmp_path_factory.mktemp("course")
    assert cli.main(["fetch", "--into", str(folder / "data" / "mnist")]) == 0
    (folder / "notebooks" / "solutions").mkdir(parents=True)
    for path in (folder / "data" / "mnist", *(folder / "data" / "mnist").iterdir()):
        path.chmod(path.stat().st_mode & ~0o222)
    return folder


@pytest.mark.parametrize("lessons", ["notebooks", "notebooks/solutions"])
def test_a_copied_folder_needs_no_network(copied, nobody_home, lessons):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LESSON],
        cwd=copied / lessons, env=nobody_home, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True 54000 the file") and str(copied / "data" / "mnist") in done.stdout
    assert not list((copied / "data").rglob("*.part")) and not (Path(nobody_home["HOME"]) / ".cache").exists()


def test_learners_share_one_copy_that_none_can_write(copied, nobody_home, tmp_path):
    """The folder is named in the environment, as deploy/tljh.sh does; a learner who is not root cannot write there."""
    shared = copied / "data" / "mnist"
    assert not any(path.stat().st_mode & 0o222 for path in (shared, *shared.iterdir()))
    before = {path.name: path.stat().st_mtime_ns for path in shared.iterdir()}
    learners = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", LESSON], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            env={**nobody_home, "COMPRESSKIT_DATA": str(shared), "COMPRESSKIT_OFFLINE": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    for learner in learners:
        said, _ = learner.communicate(timeout=120)
        assert learner.returncode == 0 and said.startswith("True 54000")
    assert {path.name: path.stat().st_mtime_ns for path in shared.iterdir()} == before


def test_a_copy_is_made_once_and_mended(tmp_path, digits):
    path = copy_mnist(tmp_path)
    written = path.stat().st_mtime_ns
    assert copy_mnist(tmp_path) == path and path.stat().st_mtime_ns == written
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    assert cache.read(copy_mnist(tmp_path)).size > 50_000_000
    assert [each.name for each in tmp_path.iterdir()] == [cache.FILE_NAME]


def test_where_there_is_nothing_to_copy_a_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("compresskit.data.sources._find", lambda *_, **__: ["the network is down"])
    assert cli.main(["fetch", "--into", str(tmp_path / "here")]) == 1
    assert "MNIST cannot be copied" in capsys.readouterr().err and not (tmp_path / "here").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_bash_that_stops_at_the_first_error(script):
    text = (ROOT / script).read_text()
    assert text.startswith("#!/bin/bash\n") and "set -euo pipefail" in text
    assert subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True).returncode == 0
    assert (ROOT / script).stat().st_mode & stat.S_IXUSR, "repo2docker and people run it"


def test_binder_takes_the_environment_of_the_root():
    """repo2docker looks into `binder` alone where there is one; and pip finds `-e .` from the root only."""
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"][-1]["pip"][-1] == "-e ."
    words = [line.split() for line in (ROOT / "postBuild").read_text().splitlines() if line.startswith("compresskit")]
    for line in words:
        end = next((place for place, word in enumerate(line) if word in ("||", "&&")), len(line))
        cli.parser().parse_args(line[1:end])


def test_the_start_of_a_container_hands_over(tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / "start"), "sh", "-c", "echo $COMPRESSKIT_OFFLINE-$1", "x", "given"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "1-given\n"


FAKE_PYTHON = """#!/bin/bash
case "$1" in
-c) exec {python} "$@" ;;
-m) echo "$@" >>{log}; if [ "$2" = compresskit.cli ]; then echo digits >"${{@: -1}}/mnist-1.npy"; fi ;;
esac
"""


def test_the_hub_is_set_up_as_the_script_says(tmp_path):
    """With a hub that only writes down what it is told."""
    log, hub = tmp_path / "log", tmp_path / "tljh"
    for path, text in {
        hub / "user" / "bin" / "python": FAKE_PYTHON.format(python=sys.executable, log=log),
        hub / "hub" / "bin" / "tljh-config": f'#!/bin/bash\necho tljh-config "$@" >>{log}\n',
    }.items():
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    folders = {"TLJH": str(hub), "SHARED": str(tmp_path / "shared"), "SKELETON": str(tmp_path / "skel")}
    stale = tmp_path / "skel" / "compresskit" / "notebooks" / "a_lesson_of_last_year.ipynb"
    for _ in range(2):  # it can be run again
        done = subprocess.run(
            ["bash", str(ROOT / "deploy" / "tljh.sh")], env={**os.environ, **folders}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for path in (tmp_path / "shared").iterdir():
            assert path.stat().st_mode & 0o777 == 0o444
            path.chmod(0o644)  # the fake one is not root
        assert not stale.exists()
        stale.touch()
    told = log.read_text().splitlines()
    assert told[0] == f"-m pip install --require-hashes --requirement {ROOT}/requirements.lock"
    assert told[1] == f"-m pip install --no-deps {ROOT}"
    assert told[2] == f"-m compresskit.cli fetch --into {tmp_path / 'shared'}"
    assert told[3:6] == [
        "tljh-config set limits.memory 2G", "tljh-config set services.cull.timeout 3600", "tljh-config reload",
    ]  # fmt: skip
    cli.parser().parse_args(told[2].split()[2:])
    c = Config()
    c.Spawner.environment = {"THEIRS": "stays"}
    exec((hub / "config" / "jupyterhub_config.d" / "compresskit.py").read_text(), {"c": c})
    expected = {"THEIRS": "stays", "COMPRESSKIT_DATA": str(tmp_path / "shared"), "COMPRESSKIT_OFFLINE": "1"}
    expected |= memory_settings()
    assert c.Spawner.environment == expected
    first = tmp_path / "skel" / c.Spawner.default_url.removeprefix("/lab/tree/")
    assert first.is_file() and (first.parent / "solutions").is_dir()


def test_without_a_hub_the_script_says_what_is_missing(tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / "deploy" / "tljh.sh")], env={**os.environ, "TLJH": str(tmp_path)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "install The Littlest JupyterHub first" in done.stderr


def test_make_class_gathers_what_is_needed():
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    told = subprocess.run(["make", "--dry-run", "class"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "fetch --into data/mnist" in told and "--requirement requirements.lock --dest wheels" in told
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/wheels/" in ignored and "/data/" in ignored
