"""The command line, and the lab that it starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import compresskit as ck
from compresskit import cli
from compresskit.data import Digits, Split
from compresskit.recipe import Prune, Quantize, Recipe

ROOT = Path(__file__).resolve().parents[2]


# ---- small commands -------------------------------------------------------------------------------------------------


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("lab", "fetch", "compress", "evaluate", "build", "doctor"))


def test_starting_up_imports_nothing_heavy():
    program = (
        "import sys, compresskit.cli as c; c.parser(); print([m for m in ('numpy', 'plotly') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def options(*words: str) -> Any:
    return cli.parser().parse_args(["compress", "digit_reader", "-o", "out.tflite", *words])


def test_options_make_a_recipe():
    assert cli.recipe_of(options("--sparsity", "0.6")) == Recipe(Prune(0.6))
    given = cli.recipe_of(options("--sparsity=0.6", "--weights=4", "--activations=32"))
    assert given == Recipe(Prune(0.6), Quantize(weights=4, activations=32))
    assert cli.recipe_of(options("--weights=4")) == Recipe(Quantize(weights=4))


def test_a_recipe_comes_from_a_file_or_from_options(tmp_path: Path):
    recipe = Recipe(Prune(0.3, scope="global"), Quantize(weights=4))
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json())
    assert cli.recipe_of(options("--recipe", str(path))) == recipe
    with pytest.raises(ValueError, match=r"leave out --weights"):
        cli.recipe_of(options("--recipe", str(path), "--weights", "8"))
    with pytest.raises(ValueError, match="nothing to do"):
        cli.recipe_of(options())


@pytest.mark.parametrize("words", [("--sparsity", "1.2"), ("--weights", "9"), ("--recipe", "missing.json")])
def test_what_makes_no_sense_is_a_sentence_and_exit_1(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert cli.main(["compress", "digit_reader", "-o", str(tmp_path / "x.tflite"), *words]) == 1
    said = capsys.readouterr().err
    assert words[1] in said
    assert "Traceback" not in said
    assert not (tmp_path / "x.tflite").exists()


def test_a_file_is_written_that_does_what_was_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], digits: Digits):
    path = tmp_path / "small.tflite"
    assert cli.main(["compress", "digit_reader", "-o", str(path), "--sparsity", "0.6", "--weights", "8"]) == 0
    said = capsys.readouterr().out
    model = ck.load_model("digit_reader")
    small = ck.compress(model, Recipe(Prune(0.6), Quantize(weights=8)), calibration=digits.train)
    assert path.read_bytes() == small.tflite
    before, after = ck.evaluate(model, digits.test), ck.evaluate(small, digits.test)
    assert f"before: {before}\nafter:  {after}\n" in said
    assert after.n == 10_000
    assert cli.main(["evaluate", str(path)]) == 0
    assert capsys.readouterr().out == f"{after}\n"


def test_a_damaged_file_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "damaged.tflite"
    path.write_bytes(ck.load_model("digit_reader").tflite[:5000])
    assert cli.main(["evaluate", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_fetch_says_what_there_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], digits: Digits):
    monkeypatch.setattr(ck.data, "load_mnist", lambda **_: digits)
    assert cli.main(["fetch"]) == 0
    assert "full MNIST: 54,000 train, 5,000 validation, 10,000 test" in capsys.readouterr().out


def test_fetch_fails_where_only_the_sample_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], digits: Digits, tmp_path: Path
):
    few = Split(digits.test.images[:5], digits.test.labels[:5], "test")
    sample = Digits(few, few, few, source="nowhere", complete=False, notice="Offline sample: five digits")
    monkeypatch.setattr(ck.data, "load_mnist", lambda **_: sample)
    monkeypatch.setattr(cli, "FETCHED", tmp_path / "fetched")
    assert cli.main(["fetch"]) == 1
    assert "Offline sample: five digits" in capsys.readouterr().out
    assert not cli.still_fetched()


def test_the_lab_looks_for_the_digits_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, digits: Digits
):
    monkeypatch.setenv("COMPRESSKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(ck.data, "load_mnist", lambda **_: digits)
    monkeypatch.setattr(cli, "FETCHED", tmp_path / "fetched")
    assert not cli.still_fetched()
    kept = ck.data.cache.cache_folder() / ck.data.cache.FILE_NAME
    kept.touch()
    cli.fetch_digits()
    assert cli.still_fetched()
    kept.unlink()
    assert not cli.still_fetched()


# ---- the lab --------------------------------------------------------------------------------------------------------


def test_a_browser_needs_a_screen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cli.webbrowser, "get", lambda: object())
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not cli.has_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    assert cli.has_browser()

    def none() -> None:
        raise cli.webbrowser.Error

    monkeypatch.setattr(cli.webbrowser, "get", none)
    assert not cli.has_browser()


def test_a_missing_notebook_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["lab", "notebooks/99_nothing.ipynb"]) == 1
    assert "notebooks/99_nothing.ipynb" in capsys.readouterr().err


class Lab:
    """A running `compresskit lab`."""

    def __init__(self, home: Path) -> None:
        (home / ".cache").mkdir(parents=True)
        self.home = home
        self.log = home / "log.txt"
        environment = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(home / "wrong"),
            "COMPRESSKIT_OFFLINE": "1",
            "COMPRESSKIT_CACHE": str(ck.data.cache.cache_folder()),
        }
        command = [str(Path(sys.executable).with_name("compresskit")), "lab", "README.md", "--port", "18000"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=home)
        self.address, self.path, self.token = self._read_address()

    def _read_address(self) -> tuple[str, str, str]:
        end = time.monotonic() + 90
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"^\s+(http://\S+?:\d+)(/\S*)\?token=(\w+)", self.log.read_text(), re.MULTILINE)
            if found:
                return found[1], found[2], found[3]
            time.sleep(0.1)
        raise AssertionError(f"no address was printed:\n{self.log.read_text()}")

    def call(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.address + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Iterator[Lab]:
    """The lab, in a home whose kernel of the same name is not the course's."""
    home = tmp_path_factory.mktemp("home")
    kernel = home / ".local/share/jupyter/kernels/python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    running = Lab(home)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        try:
            running.process.wait(20)
        except subprocess.TimeoutExpired:
            running.process.kill()


@pytest.mark.skipif(os.name == "nt", reason="reads processes as POSIX systems have them")
class TestLab:
    def test_the_address_is_printed_where_there_is_no_browser(self, lab: Lab):
        assert lab.path == "/lab/tree/README.md"
        assert "open the address below in a browser" in lab.log.read_text()
        assert lab.call("GET", "/api/contents/README.md")["name"] == "README.md"

    def test_it_listens_on_this_computer_only(self, lab: Lab):
        import psutil

        listening = [each for each in psutil.Process(lab.process.pid).net_connections() if each.status == "LISTEN"]
        assert listening
        assert {each.laddr.ip for each in listening} == {"127.0.0.1"}

    def test_the_kernel_is_of_the_lab_s_own_environment(self, lab: Lab):
        import psutil

        specs = lab.call("GET", "/api/kernelspecs")
        assert specs["kernelspecs"]["python3"]["spec"]["display_name"] == "Python 3 (ipykernel)"
        kernel = lab.call("POST", "/api/kernels")
        try:
            children = psutil.Process(lab.process.pid).children()
            started = [child for child in children if "ipykernel_launcher" in child.cmdline()]
            assert len(started) == 1
            assert started[0].cmdline()[0] == sys.executable
            assert "PYTHONPATH" not in started[0].environ()
            assert started[0].environ()["MALLOC_ARENA_MAX"], "a kernel kept small"
            assert started[0].environ()["COMPRESSKIT_LAB"] == sys.prefix
            (connection,) = lab.home.rglob(f"kernel-{kernel['id']}.json")
            assert "curve_publickey" in json.loads(connection.read_text())
        finally:
            lab.call("DELETE", f"/api/kernels/{kernel['id']}")

    def test_it_asks_the_network_for_nothing(self, lab: Lab):
        setting = lab.call("GET", "/lab/api/settings/@jupyterlab/apputils-extension:notification")
        defaults = {name: about["default"] for name, about in setting["schema"]["properties"].items()}
        assert defaults["fetchNews"] == "false"
        assert defaults["checkForUpdates"] is False
        assert "Extension Manager" not in lab.log.read_text()

    @pytest.mark.skipif(sys.platform != "linux", reason="reads a file of Linux")
    def test_saving_a_notebook_leaves_its_lesson_alone(self, lab: Lab):
        loaded = Path(f"/proc/{lab.process.pid}/cmdline").read_text()
        assert '{"jupyterlab_jupytext":False}' in loaded
        assert "Jupytext" not in lab.log.read_text()
