"""The command line: `compresskit lab | app | fetch | compress | evaluate | inspect | build | hinton | doctor`."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compresskit.data import Digits
    from compresskit.recipe import Recipe
    from compresskit.zoo import Checkpoint

PACKAGE = Path(__file__).resolve().parent
FIRST_LESSON = "notebooks/00_start_here.ipynb"
SETTINGS = PACKAGE / "jupyter"  # the lab's defaults for the course: no news, no pop-ups
FETCHED = Path(sys.prefix) / "digits-fetched"  # written when full MNIST was there: the next start need not look


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after the program's name; those it was started with when left out.
    """
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"compresskit {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Describe the commands and their options."""
    top = argparse.ArgumentParser(prog="compresskit", description="Make neural networks small, and see what it costs.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    lab = commands.add_parser("lab", help="open the course in JupyterLab, on this computer only")
    lab.add_argument("notebook", nargs="?", help=f"what to open (default: {FIRST_LESSON})")
    lab.add_argument("--port", type=int, default=8888, help="first port to try (default: 8888)")
    lab.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    lab.set_defaults(run=run_lab)

    app = commands.add_parser("app", help="show the workbench as a page of its own")
    app.add_argument("model", nargs="?", default="digit_reader", help="a model of the course, or a file of your own")
    app.add_argument("--data", help="data of your own: a folder or an .npz file (default: MNIST)")
    app.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this computer only)")
    app.add_argument("--port", type=int, default=8866, help="first port to try (default: 8866)")
    app.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    app.set_defaults(run=run_app)

    fetch = commands.add_parser("fetch", help="fetch MNIST, or say where it already is")
    fetch.add_argument(
        "--into", type=Path, metavar="FOLDER", help="put a copy there: data/mnist of a course to be copied to a class"
    )
    fetch.set_defaults(run=run_fetch)

    squeeze = commands.add_parser("compress", help="make a small .tflite file")
    squeeze.add_argument("model", help="a model of the course, or a .tflite, .keras or .h5 file")
    squeeze.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    squeeze.add_argument("--recipe", type=Path, help="a recipe as JSON, in place of the options below")
    squeeze.add_argument("--sparsity", type=float, help="fraction of the weights to set to zero, such as 0.6")
    squeeze.add_argument("--weights", type=int, help="bits of a weight: 2 to 8, 16 or 32")
    squeeze.add_argument("--activations", type=int, help="bits of an activation: 8, 16 or 32")
    squeeze.add_argument("--stamp", action="store_true", help="write recipe and score into the file (see inspect)")
    squeeze.set_defaults(run=run_compress)

    evaluate = commands.add_parser("evaluate", help="run a model over the test digits")
    evaluate.add_argument("model", help="a model of the course, or a .tflite, .keras or .h5 file")
    evaluate.add_argument("--latency", action="store_true", help="time single digits as well")
    evaluate.set_defaults(run=run_evaluate)

    inspect = commands.add_parser("inspect", help="read the stamp of a .tflite file, and tell whether it still holds")
    inspect.add_argument("file", type=Path, help="a .tflite file that the workbench or `compress --stamp` wrote")
    inspect.add_argument("--strip", type=Path, metavar="OUTPUT", help="write the file without its stamp")
    inspect.set_defaults(run=run_inspect)

    build = commands.add_parser("build", help="build the notebooks from the lessons (for authors)")
    build.add_argument("lessons", nargs="*", help="lessons by name or number; all when left out")
    build.add_argument("--check", action="store_true", help="only tell what is out of step; exit 1 if anything is")
    build.add_argument("--force", action="store_true", help="run again what has not changed, too")
    build.set_defaults(run=run_build)

    hinton = commands.add_parser("hinton", help="rebuild the distillation experiment of 2015 (hours; can be stopped)")
    hinton.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="a training of each row for each")
    hinton.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="rows of the table; all when left out")
    hinton.add_argument("--table", action="store_true", help="only print the table of what is finished")
    hinton.add_argument("--teacher-epochs", type=int, help="how long the large net is trained (default: 80)")
    hinton.add_argument("--student-epochs", type=int, help="how long the others are (default: 60 or 30)")
    hinton.set_defaults(run=run_hinton)

    doctor = commands.add_parser("doctor", help="say what is wrong with this environment")
    doctor.set_defaults(run=run_doctor)
    return top


# ---- hinton ---------------------------------------------------------------------------------------------------------


def run_hinton(options: argparse.Namespace) -> int:
    """Go on with the experiment, and print its table."""
    room = importlib.import_module("compresskit.training.hinton")
    given = {"teacher_epochs": options.teacher_epochs, "student_epochs": options.student_epochs}
    changes = {name: value for name, value in given.items() if value is not None}
    if not options.table:
        from compresskit.data import load_mnist

        room.run(load_mnist(), seeds=options.seeds, names=options.rows, changes=changes)
    print(room.table(room.load_results()))
    return 0


# ---- lab ------------------------------------------------------------------------------------------------------------


def run_lab(options: argparse.Namespace) -> int:
    """Fetch the digits if need be, then become the lab."""
    folder = course_folder()
    notebook = options.notebook or FIRST_LESSON
    if not (folder / notebook).exists():
        raise ValueError(f"notebook: there is no {notebook} in {folder}; start this in the folder of the course")
    if not still_fetched():
        tell_of_digits(fetch_digits())
    browser = not options.no_browser and has_browser()
    if not browser:
        print("compresskit: open the address below in a browser; Control-C ends the lab.", flush=True)
    return become(lab_command(folder, notebook, options.port, browser), lab_environment())


def become(command: list[str], environment: dict[str, str]) -> int:
    """Let another program take the place of this one, with further environment variables."""
    os.environ.update(environment)
    for name in ("PYTHONPATH", "PYTHONHOME"):  # another environment's packages would take the place of the pinned
        os.environ.pop(name, None)
    if os.name == "nt":  # where exec leaves the shell behind, fighting for the keyboard
        return subprocess.run(command).returncode
    return os.execv(command[0], command)  # does not return


def lab_command(folder: Path, notebook: str, port: int, browser: bool) -> list[str]:
    """Return the command that starts the lab.

    Parameters
    ----------
    folder : pathlib.Path
        What the lab shows; nothing above it can be reached.
    notebook : str
        What it opens, as a path below `folder` with forward slashes.
    port : int
        First port to try; the next ones are tried where it is taken.
    browser : bool
        Open a browser; else the address is printed and nothing more.
    """
    return [
        sys.executable,
        *("-m", "jupyterlab"),
        "--ServerApp.ip=127.0.0.1",  # this computer only
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.open_browser={browser}",
        f"--ServerApp.allow_root={hasattr(os, 'geteuid') and os.geteuid() == 0}",
        f"--LabApp.default_url=/lab/tree/{notebook}",
        "--LabApp.extension_manager=readonly",  # the other kind asks the network
        '--ServerApp.jpserver_extensions={"jupyterlab_jupytext":False}',  # saving a notebook leaves its lesson alone
        "--KernelManager.transport_encryption=auto",  # others on this computer cannot listen in
        "--Application.log_level=WARN",  # prints the address, and what goes wrong
    ]


def lab_environment() -> dict[str, str]:
    """Return the variables that the lab is started with."""
    from compresskit.app import memory_settings

    paths = [str(SETTINGS), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    return {
        "JUPYTER_CONFIG_PATH": os.pathsep.join(paths),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, and not one of the same name in the home
        "COMPRESSKIT_LAB": sys.prefix,  # for the doctor
        **memory_settings(),
    }


# ---- app ------------------------------------------------------------------------------------------------------------


def run_app(options: argparse.Namespace) -> int:
    """Look at model and data, then become the server of the page."""
    import compresskit as ck
    from compresskit.app import app_command, app_environment, warning
    from compresskit.data import Split
    from compresskit.widgets.workbench import check_fit

    note = warning(options.host)
    model = ck.load_model(options.model)
    if options.data:
        data = ck.load_data(options.data)
    elif still_fetched():
        data = ck.load_mnist()
    else:
        tell_of_digits(data := fetch_digits())
    check_fit(model, data if isinstance(data, Split) else data.test)
    if note:
        print(note, flush=True)
    browser = not options.no_browser and has_browser()
    if not browser:
        print("compresskit: open the address below in a browser; Control-C ends the page.", flush=True)
    return become(app_command(options.host, options.port, browser), app_environment(options.model, options.data))


def course_folder() -> Path:
    """Return the folder of the course: the clone that this package lies in, else the working folder."""
    clone = PACKAGE.parent
    return clone if (clone / "notebooks").is_dir() else Path.cwd()


def has_browser() -> bool:
    """Tell whether a browser with windows can be opened; one in the terminal cannot show the lab."""
    on_screen = sys.platform in ("win32", "darwin") or any(
        map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    )
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return on_screen


# ---- digits ---------------------------------------------------------------------------------------------------------


def run_fetch(options: argparse.Namespace) -> int:
    """Fetch MNIST; exit 1 where only the offline sample is to be had."""
    if options.into is not None:
        from compresskit.data.sources import copy_mnist

        print(f"compresskit: full MNIST, for whoever gets a copy of this folder: {copy_mnist(options.into)}")
        return 0
    digits = fetch_digits(retry=True)
    tell_of_digits(digits)
    return int(not digits.complete)


def fetch_digits(retry: bool = False) -> Digits:
    """Load MNIST from wherever it is, and remember where."""
    import warnings

    from compresskit.data import cache, load_mnist

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the notice is printed as a sentence
        digits = load_mnist(retry=retry)
    kept = cache.cache_folder() / cache.FILE_NAME
    if digits.complete and kept.is_file() and os.access(FETCHED.parent, os.W_OK):
        FETCHED.write_text(str(kept), encoding="utf-8")
    return digits


def still_fetched() -> bool:
    """Tell without loading anything whether the digits that were fetched once are still in their place."""
    return FETCHED.is_file() and Path(FETCHED.read_text(encoding="utf-8")).is_file()


def tell_of_digits(digits: Digits) -> None:
    """Say in a line what digits there are."""
    parts = ", ".join(f"{len(part):,} {part.name}" for part in (digits.train, digits.validation, digits.test))
    print(f"compresskit: {digits.notice or 'full MNIST'}: {parts} ({digits.source})", flush=True)


# ---- compress, evaluate ---------------------------------------------------------------------------------------------


def run_compress(options: argparse.Namespace) -> int:
    """Make a small file, and say what it holds."""
    import compresskit as ck

    recipe = recipe_of(options)
    digits = ck.load_mnist()
    model = ck.load_model(options.model)
    small = ck.compress(model, recipe, calibration=digits.train)
    before = ck.evaluate(model, digits.test)
    after = ck.evaluate(small, digits.test)
    small.save(options.output, after if options.stamp else None)
    print(f"{'layer':<16} {'operator':<18} {'type':<8} {'bytes':>10} {'zeros':>7}")
    for layer in small.layers:
        print(f"{layer.name:<16} {layer.op:<18} {layer.dtype:<8} {layer.bytes:>10,} {layer.sparsity:>7.1%}")
    print(f"\nbefore: {before}\nafter:  {after}\nwritten: {options.output}{_stamp_told(options.output, small.size)}")
    return 0


def _stamp_told(path: Path, size: int) -> str:
    """Say how long the stamp of a file is, if it has one."""
    more = path.stat().st_size - size
    return f", and {more:,} bytes more for the stamp (compresskit inspect {path})" if more else ""


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Make the recipe that the options of `compress` ask for."""
    from compresskit.recipe import Prune, Quantize, Recipe

    given = [name for name in ("sparsity", "weights", "activations") if getattr(options, name) is not None]
    if options.recipe is not None:
        if given:
            raise ValueError(f"--recipe: the file says everything; leave out --{' --'.join(given)}")
        return Recipe.from_json(options.recipe.read_text(encoding="utf-8"))
    steps: list[Prune | Quantize] = []
    if options.sparsity is not None:
        steps.append(Prune(sparsity=options.sparsity))
    bits = {name: getattr(options, name) for name in ("weights", "activations") if name in given}
    if bits:
        steps.append(Quantize(**bits))
    if not steps:
        raise ValueError("recipe: nothing to do; give --recipe, or one of --sparsity, --weights, --activations")
    return Recipe(*steps)


def run_evaluate(options: argparse.Namespace) -> int:
    """Run a model over the test digits, and say how many it reads."""
    import compresskit as ck

    score = ck.evaluate(model_to_evaluate(options.model), ck.load_mnist().test, latency=options.latency)
    print(score)
    return 0


def model_to_evaluate(source: str) -> Checkpoint:
    """Load a model as it is: a `.tflite` may be compressed already, which `load_model` refuses to start from."""
    import compresskit as ck
    from compresskit.litert.probe import look

    if not source.endswith(".tflite"):
        return ck.load_model(source)
    tflite = Path(source).read_bytes()
    look(tflite, source)  # in a process of its own: a damaged file may crash it
    return ck.Checkpoint(Path(source).stem, tflite)


# ---- inspect --------------------------------------------------------------------------------------------------------


def run_inspect(options: argparse.Namespace) -> int:
    """Say what the stamp of a file tells; exit 1 if it has none, or does not hold."""
    from compresskit.litert.stamp import read_stamp, strip

    if not options.file.is_file():
        raise ValueError(f"file: there is no {options.file}; give the path of a .tflite file")
    tflite = options.file.read_bytes()
    told = read_stamp(tflite)
    if told is None:
        print(f"{options.file}: {len(tflite):,} bytes, without a stamp of compresskit")
        return 1
    bare = strip(tflite)
    score = "not measured"
    if told.marks is not None:
        low, high = told.marks.interval
        of = f"{told.marks.n:,} {told.marks.split} digits".replace("  ", " ")
        score = f"{told.marks.accuracy:.2%} of {of} (95 % interval {low:.2%} to {high:.2%})"
        score += f". {told.marks.notice}" if told.marks.notice else ""
    lines = {
        "bytes": f"{len(tflite):,}, of which {len(tflite) - len(bare):,} are the stamp",
        "original": f"{told.model}, sha256 {told.original}",
        **({"training": "\n          ".join(told.training)} if told.training else {}),
        "recipe": told.recipe.to_python(),
        "score": score,
        "made with": f"compresskit {told.made_with}",
        "sha256": f"{told.file} (without the stamp)",
    }
    print("\n".join(f"{name + ':':<10}{line}" for name, line in lines.items()))
    print("Both seals hold: the file and its stamp are as they were written.")
    if options.strip is not None:
        from compresskit.zoo import save_tflite

        print(f"written: {save_tflite(options.strip, bare)}, {len(bare):,} bytes")
    return 0


# ---- build, doctor --------------------------------------------------------------------------------------------------


def run_build(options: argparse.Namespace) -> int:
    """Bring the notebooks, and the course map in README.md, in step with the lessons; or tell which are not."""
    from compresskit.course import readme
    from compresskit.course.build import build_all

    root = course_folder()
    changed = build_all(root, options.lessons or None, check=options.check, force=options.force)
    changed += readme.update(root, options.check)
    for path in changed:
        print(f"{'out of step' if options.check else 'written'}: {path}")
    if options.check and changed:
        print("Build them: make notebooks")
        return 1
    return 0


def run_doctor(options: argparse.Namespace) -> int:
    """Say what is wrong with this environment; exit 1 if anything is."""
    from compresskit.doctor import PROBLEM, examine, report

    findings = examine()
    print(report(findings))
    return int(any(finding.state == PROBLEM for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
