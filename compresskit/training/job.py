"""Train in a process of its own: ``python -m compresskit.training.job FOLDER``; the live half starts it so.

A live kernel has no TensorFlow in it, and is not to get any: 700 MB that it would never give back. The folder holds
what is asked for: ``request.json``, the model (``model.tflite`` and ``model.keras``), a teacher if there is one
(``teacher.tflite``), and the digits as ``.npy`` files. Lines of JSON go to standard output: ``{"progress": {...}}``
while it trains, then ``{"done": {...}}`` or ``{"error": "a sentence"}``; the trained model lies in the folder as
``trained.tflite`` and ``trained.keras``. A line on standard input cancels; its end too, so that no training outlives
the kernel that asked for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from compresskit.data import Digits, Split
from compresskit.recipe import Prune, Quantize, Recipe
from compresskit.zoo import Checkpoint

Report = Callable[[Any], None]
Outcome = tuple[Checkpoint, dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; see the head of this module."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    cancel, lines, parent = threading.Event(), sys.stdout, os.getppid()
    threading.Thread(target=_listen, args=(sys.stdin, cancel), daemon=True).start()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TensorFlow and Keras are talkative
            done = carry_out(Path(folder), lambda progress: _write(lines, {"progress": asdict(progress)}), cancel)
        _write(lines, {"done": done})
    except Exception as error:  # whatever it is, the live half gets a sentence
        message = str(error) if isinstance(error, ValueError | ArithmeticError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(BrokenPipeError):
            _write(lines, {"error": " ".join(message.split())})
        return 1
    finally:
        if os.getppid() != parent and Path(folder).name.startswith("compresskit-job-"):
            # The kernel was killed, and nobody else takes its folder away.
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def carry_out(folder: Path, report: Report, cancel: threading.Event) -> dict[str, Any]:
    """Do what the request in a folder asks for, and leave the trained model there.

    Parameters
    ----------
    folder : Path
        As the head of this module says.
    report : callable
        Called with a ``compresskit.training.fit.Progress``.
    cancel : threading.Event
        Set it to end the training after its present step.

    Returns
    -------
    dict
        ``cancelled``, ``seconds``, ``steps`` or what else the kind of training tells, as JSON holds it.

    Raises
    ------
    ValueError
        If the request makes no sense, or the model cannot be trained so.
    """
    request = json.loads((folder / "request.json").read_text("utf-8"))
    if request["kind"] not in KINDS:
        raise ValueError(f"kind is {request['kind']!r}: choose one of {', '.join(KINDS)}.")
    archive = folder / "model.keras"
    model = Checkpoint(
        request["name"], (folder / "model.tflite").read_bytes(), archive.read_bytes() if archive.exists() else None
    )
    trained, facts = KINDS[request["kind"]](model, _digits(folder), request, folder, report, cancel)
    trained.save(folder / "trained.tflite")
    return facts


def _fine_tune(
    model: Checkpoint, digits: Digits, request: Mapping[str, Any], folder: Path, report: Report, cancel: threading.Event
) -> Outcome:
    """Prune while training, as the steps of a recipe say; without any, train on under the zeros that there are."""
    from compresskit.training.prune import fine_tune, train_pruned

    settings = {**request["settings"], "on_progress": report, "cancel": cancel}
    steps = _steps(request, Prune)
    result = train_pruned(model, steps, digits, **settings) if steps else fine_tune(model, digits, **settings)
    return result.checkpoint, {
        "cancelled": result.cancelled,
        "seconds": result.seconds,
        "steps": result.steps,
        "sparsity": result.sparsity,
    }


def _quantize(
    model: Checkpoint, digits: Digits, request: Mapping[str, Any], folder: Path, report: Report, cancel: threading.Event
) -> Outcome:
    """Train while weights and activations are rounded."""
    from compresskit.training.quantize import train_quantized

    steps = _steps(request, Quantize)
    if not steps:
        raise ValueError("recipe: there is no Quantize step; choose weights of 8 bits or fewer.")
    result = train_quantized(model, steps[0], digits, **request["settings"], on_progress=report, cancel=cancel)
    return result.checkpoint, {"cancelled": result.cancelled, "agreement": result.agreement}


def _distill(
    model: Checkpoint, digits: Digits, request: Mapping[str, Any], folder: Path, report: Report, cancel: threading.Event
) -> Outcome:
    """Train on what a teacher answers; zeros of the student stay."""
    from compresskit.training.distill import distill

    teacher = Checkpoint("teacher", (folder / "teacher.tflite").read_bytes())
    result = distill(teacher, model, digits, **request["settings"], keep_zeros=True, on_progress=report, cancel=cancel)
    return result.checkpoint, {"cancelled": result.cancelled, "teacher_accuracy": result.teacher_accuracy}


KINDS: dict[str, Callable[..., Outcome]] = {"fine-tune": _fine_tune, "quantize": _quantize, "distill": _distill}


def _steps(request: Mapping[str, Any], kind: type) -> list[Any]:
    """Read the steps of one kind from the request's recipe."""
    return [step for step in Recipe.from_json(request["recipe"]).steps if isinstance(step, kind)]


def _digits(folder: Path) -> Digits:
    """Map the digits from their files; a training reads them batch by batch."""
    parts = {
        name: Split(np.load(folder / f"{name}_images.npy", mmap_mode="r"), np.load(folder / f"{name}_labels.npy"), name)
        for name in ("train", "validation")
    }
    return Digits(parts["train"], parts["validation"], parts["validation"], "the live half")


def _listen(lines: IO[str], cancel: threading.Event) -> None:
    """Wait for a line, or for the end of the process that would write one."""
    lines.readline()
    cancel.set()


def _write(lines: IO[str], message: Mapping[str, Any]) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


if __name__ == "__main__":
    sys.exit(main())
