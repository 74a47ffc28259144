r"""Make this folder's environment: `.venv`, with exactly the packages that requirements.lock pins.

`make setup` and `make lab` call this; without make (on Windows, say) it is called by hand:

    py -3.12 install.py
    .venv\Scripts\compresskit lab

It needs a Python and nothing else, may be run again at any time (with nothing to do it is back at once), may be run
twice at once (the second run waits for the first), and mends what an earlier run that was killed left behind.

How: `.venv/ready.json`, written last, says from which pins, by which Python and in which folder the environment was
made. `.venv.lock` is locked by the operating system while a set-up works, so no lock outlives its process; its text
says that work has begun, which tells a half-made environment from one that somebody made by hand.
"""

# Read by whatever Python a person has: the syntax is that of 3.8, so that an old one can say that it is too old.
from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
READY = VENV / "ready.json"
PINS = ROOT / "requirements.lock"
LOCK_FILE = ROOT / ".venv.lock"

VERSIONS = ("3.11", "3.12", "3.13")
DISK_NEEDED = 4e9  # bytes: the environment takes about 3 GB, and its wheels pass through the cache
BEGUN = b"a set-up is working\n"
OFFLINE = (
    "{} could not install; its own words are above. Is there a network? Behind a mirror or a proxy, set pip up for "
    "it (pip config set global.index-url ...): uv is given the same settings. Then run this again."
)


class Refused(Exception):
    """The set-up cannot go on; the message is a sentence for the person who started it."""


def main(arguments: list[str]) -> int:
    """Run the set-up; return the exit code.

    Parameters
    ----------
    arguments : list of str
        Empty, or ``--this-python``: use the Python that runs this, even if `.venv` is of another one and whole.
    """
    if arguments == ["--probe"]:
        print(json.dumps(why_not_this_python()))
        return 0
    chosen = arguments == ["--this-python"]
    if arguments and not chosen:
        print(f"usage: python install.py [--this-python]\n\n{__doc__}")
        return 0 if arguments[0] in ("-h", "--help") else 2
    try:
        if is_ready(chosen):
            return 0
        base = choose_python(chosen)
        with Lock(LOCK_FILE) as lock:
            if not is_ready(chosen):  # else another set-up finished while this one waited
                set_up(base, chosen, lock)
    except Refused as reason:
        print(f"compresskit: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncompresskit: the set-up was interrupted; run it again and it starts over.", file=sys.stderr)
        return 130
    return 0


# ---- which Python ---------------------------------------------------------------------------------------------------


def why_not_this_python() -> str:
    """Say in a sentence why the running interpreter cannot be used, or "" if it can."""
    if short(platform.python_version()) not in VERSIONS:
        return f"Python {platform.python_version()} is not supported: it must be 3.11, 3.12 or 3.13."
    if platform.python_implementation() != "CPython":
        return f"this is {platform.python_implementation()}, and the pinned packages are built for CPython only."
    if struct.calcsize("P") != 8:
        return "this is a 32-bit Python, and the pinned packages are built for 64 bits only."
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this is a free-threaded Python, and the pinned packages are built for the usual one only."
    machine = platform.machine().lower()
    if platform.system() == "Darwin" and machine != "arm64":
        return "LiteRT has no build for Intel Macs, nor for an Intel Python on another Mac."
    if platform.system() == "Windows" and machine == "arm64":
        return "LiteRT has no build for Windows on arm64: install the x86-64 Python, which Windows runs there too."
    if platform.system() == "Linux" and platform.libc_ver()[0] != "glibc":
        return "LiteRT has no build for this C library: use a Linux with glibc (Debian, Ubuntu, Fedora and others)."
    return ""


def choose_python(chosen: bool) -> str:
    """Return the path of the interpreter to make the environment from.

    Parameters
    ----------
    chosen : bool
        A person named the Python that runs this, so no other is looked for.
    """
    reason = why_not_this_python()
    if not reason:
        return str(getattr(sys, "_base_executable", None) or sys.executable)  # the one below `.venv`, if in it
    if not chosen:
        for candidate in (shutil.which(f"python{version}") for version in VERSIONS):
            if candidate is not None and works(candidate):
                return candidate
    ask = "Name one with `make setup PYTHON=python3.12`; on Windows with `py -3.12 install.py`."
    raise Refused(f"{reason} ({sys.executable})\n{ask}")


def works(python: str) -> bool:
    """Ask another interpreter whether it can be used."""
    return output_of([python, "-I", str(Path(__file__).resolve()), "--probe"]) == '""'


def version_of(python: str | Path) -> str:
    """Return the version of an interpreter, "3.11.7"; "" if it does not run."""
    return output_of([str(python), "-I", "-c", "import platform; print(platform.python_version())"])


def short(version: str) -> str:
    """Return "3.11" for "3.11.7"."""
    return ".".join(version.split(".")[:2])


# ---- what there is already ------------------------------------------------------------------------------------------


def wanted() -> dict[str, str]:
    """Describe the environment that should be there: what it is made from, and where."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "pyproject.toml", "install.py"):
        digest.update((ROOT / name).read_bytes() + b"\0")
    return {"made from": digest.hexdigest(), "folder": str(ROOT)}


def read_ready() -> dict[str, str]:
    """Return what `.venv/ready.json` says, or {} where there is none that can be read."""
    try:
        return dict(json.loads(READY.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def is_ready(chosen: bool) -> bool:
    """Tell whether the environment is there, whole, up to date, and of the Python that a person chose, if one did."""
    ready = read_ready()
    same = all(ready.get(key) == value for key, value in wanted().items())
    right_python = not chosen or ready.get("python") == short(platform.python_version())
    return same and right_python and VENV_PYTHON.exists()


class Lock:
    """An exclusive lock on a file, let go by the operating system when the last process that holds it ends.

    The processes that the set-up starts inherit it on Linux and macOS: if the set-up alone is killed, the next one
    waits until the installer that it had started is gone too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def __enter__(self) -> Lock:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        if not self.take():
            say("another set-up is working in this folder; waiting for it")
            while not self.take():
                time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def take(self) -> bool:
        """Take the lock if it is free; tell whether it was."""
        try:
            if sys.platform == "win32":
                import msvcrt

                os.lseek(self.descriptor, 1 << 20, os.SEEK_SET)  # a byte far behind the text, which stays readable
                msvcrt.locking(self.descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def write(self, text: bytes) -> None:
        """Replace the text of the file; it is on the disk when this returns."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        os.ftruncate(self.descriptor, 0)
        os.write(self.descriptor, text)
        os.fsync(self.descriptor)

    def read(self) -> bytes:
        """Return the text of the file."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return os.read(self.descriptor, len(BEGUN))

    def heirs(self) -> tuple[int, ...]:
        """Return the descriptors that a process started under the lock is given."""
        return () if os.name == "nt" else (self.descriptor,)


# ---- making it ------------------------------------------------------------------------------------------------------


def set_up(base: str, chosen: bool, lock: Lock) -> None:
    """Make the environment, or bring it up to date, with the Python at `base`."""
    started = time.monotonic()
    reason = why_not_this_environment(base, chosen, lock)
    if reason:
        say(f"{reason}; making it anew")
        remove_environment()
    fresh = not VENV_PYTHON.exists()
    if fresh:
        check_disk()
    lock.write(BEGUN)
    READY.unlink(missing_ok=True)
    try:
        if fresh:
            say(f"making .venv with Python {version_of(base)}")
            make_environment(base, lock)
        say("installing what requirements.lock pins")
        install_uv(lock)
        install_pins(lock)
    except Refused:
        if not fresh:  # no network, most likely: keep what is there, and go on from it the next time
            lock.write(b"")
        raise
    write_ready()
    lock.write(b"")
    say(f"ready in {time.monotonic() - started:.0f} s: {VENV}")


def why_not_this_environment(base: str, chosen: bool, lock: Lock) -> str:
    """Say why what stands in `.venv` has to be made anew, or "" if it can be used or is not there."""
    if not VENV.exists() and not VENV.is_symlink():
        return ""
    if lock.read() == BEGUN:
        return "an earlier set-up was cut off"
    if read_ready().get("folder", str(ROOT)) != str(ROOT):
        return "this folder was moved or copied, which .venv does not survive"
    version = version_of(VENV_PYTHON)
    if not version:
        return "the Python of .venv is gone"
    if short(version) not in VERSIONS or (chosen and short(version) != short(version_of(base))):
        return f"the .venv here is of Python {version}"
    return ""


def remove_environment() -> None:
    """Delete `.venv`."""
    if os.name == "nt" and Path(sys.prefix) == VENV:
        raise Refused("run this with the system's Python (py -3.12 install.py): Windows does not delete a running one.")
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    else:
        shutil.rmtree(VENV)


def check_disk() -> None:
    """Refuse to begin what the disk has no room for."""
    free = shutil.disk_usage(ROOT).free
    if free < DISK_NEEDED:
        raise Refused(
            f"{free / 1e9:.1f} GB are free on the disk of {ROOT}, and the environment needs "
            f"{DISK_NEEDED / 1e9:.0f} GB. Make room, or clone to a larger disk."
        )


def make_environment(base: str, lock: Lock) -> None:
    """Make an empty virtual environment with pip in it.

    Debian and Ubuntu keep the part of `venv` that brings pip in a package of its own. Where that is missing, pip is
    borrowed: from the system if it has one, else from the package, which everyone may download, root or not.
    """
    sentence = "Python could not make a virtual environment; its own words are above."
    if succeeds([base, "-I", "-c", "import ensurepip; assert ensurepip.version()"]):
        run([base, "-I", "-m", "venv", str(VENV)], lock, sentence)
        return
    run([base, "-I", "-m", "venv", "--without-pip", str(VENV)], lock, sentence)
    if succeeds([base, "-I", "-m", "pip", "--version"]):
        pip = [base, "-I", "-m", "pip", "--python", str(VENV_PYTHON), "install", "--quiet", "pip"]
        run(pip, lock, OFFLINE.format("pip"))
        return
    wheel = debian_wheel_of_pip()
    if wheel is None:
        raise Refused(
            f"this Python has neither ensurepip nor pip. On Debian and Ubuntu: sudo apt-get install "
            f"python{short(version_of(base))}-venv; elsewhere install your system's package for Python's venv. "
            "Then run this again."
        )
    pip = [str(VENV_PYTHON), str(wheel / "pip"), "install", "--quiet", "--no-index", str(wheel)]
    run(pip, lock, "Debian's pip could not install itself; its own words are above.")


def debian_wheel_of_pip() -> Path | None:
    """Download Debian's package of pip and unpack it into `.venv`; None where that cannot be done."""
    say("this Python has no ensurepip: taking pip from the package python3-pip-whl")
    folder = VENV / "debian"
    folder.mkdir()
    if shutil.which("apt-get") and os.geteuid() == 0:
        succeeds(["apt-get", "update", "-qq"])  # a fresh container has no list of packages, and only root can get it
    if not succeeds(["apt-get", "download", "-qq", "python3-pip-whl"], folder):
        return None
    for package in folder.glob("*.deb"):
        succeeds(["dpkg-deb", "--extract", str(package), str(folder)])
    return next(folder.glob("usr/share/python-wheels/pip-*.whl"), None)


def install_uv(lock: Lock) -> None:
    """Install the pinned uv with pip; uv installs the rest in a fraction of the time that pip takes."""
    version = pin_of("uv").split()[0].replace("==", " ")
    if output_of([str(VENV_PYTHON), "-m", "uv", "--version"]).startswith(f"{version} "):
        return
    pin = VENV / "uv.txt"
    pin.write_text(pin_of("uv"), encoding="utf-8")
    flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    run([str(VENV_PYTHON), "-m", "pip", "install", *flags, "-r", str(pin)], lock, OFFLINE.format("pip"))


def pin_of(package: str) -> str:
    """Return the lines of requirements.lock that pin one package: the version, and the hashes on the lines after."""
    block: list[str] = []
    for line in PINS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{package}==") or (block and block[-1].endswith("\\")):
            block.append(line)
    return "\n".join(block) + "\n"


def install_pins(lock: Lock) -> None:
    """Install every pin with its hash checked, then this folder itself as an editable package."""
    found = pip_configuration()
    settings = uv_settings(found)
    no_index = ["--no-index"] if found.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    uv = [str(VENV_PYTHON), "-m", "uv", "pip", "install", "--python", str(VENV_PYTHON), *no_index]
    run([*uv, "--require-hashes", "-r", str(PINS)], lock, OFFLINE.format("uv"), settings)
    editable = ["--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    run([*uv, *editable], lock, "uv could not install compresskit itself; its own words are above.", settings)


def pip_configuration() -> dict[str, str]:
    """Return how pip is set up for installing, by its files and its variables."""
    found = {}
    for line in output_of([str(VENV_PYTHON), "-m", "pip", "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in ("global", "install", ":env:"):  # in this order, and the later one wins
            found[name] = str(ast.literal_eval(value))
    return found


def uv_settings(found: dict[str, str]) -> dict[str, str]:
    """Return pip's network settings as environment variables for uv, which does not read pip's configuration.

    Settings made for uv win. They are handed over in the environment and not as arguments, which everyone on the
    machine can read: an address may hold a password.
    """
    folders = [folder for folder in found.get("find-links", "").split() if "://" in folder or Path(folder).is_dir()]
    settings = {
        "UV_DEFAULT_INDEX": "" if "UV_INDEX_URL" in os.environ else found.get("index-url", ""),
        "UV_INDEX": " ".join(found.get("extra-index-url", "").split()),
        "UV_INDEX_STRATEGY": "unsafe-best-match",  # pip's way with several indexes; the hashes make it safe
        "UV_FIND_LINKS": ",".join(folders),
        "UV_INSECURE_HOST": " ".join(found.get("trusted-host", "").split()),
        "SSL_CERT_FILE": found.get("cert", ""),
        "ALL_PROXY": found.get("proxy", ""),
    }
    return {name: value for name, value in settings.items() if value and name not in os.environ}


def write_ready() -> None:
    """Write `.venv/ready.json`, whole or not at all."""
    part = READY.with_suffix(".part")
    part.write_text(json.dumps({**wanted(), "python": short(version_of(VENV_PYTHON))}, indent=2), encoding="utf-8")
    part.replace(READY)


# ---- processes ------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print a line of progress, at once."""
    print(f"compresskit: {text}", flush=True)


def output_of(command: list[str]) -> str:
    """Run a command in silence and return what it printed; "" if it failed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def succeeds(command: list[str], folder: Path = ROOT) -> bool:
    """Run a command in silence; tell whether it is there and ended well."""
    try:
        return subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def run(command: list[str], lock: Lock, on_failure: str, settings: dict[str, str] | None = None) -> None:
    """Run a command whose output the person sees; a failure becomes the given sentence."""
    environment = {**os.environ, **(settings or {})}
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"):  # these belong to another environment
        environment.pop(name, None)
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=lock.heirs())
    if done.returncode != 0:
        raise Refused(on_failure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
