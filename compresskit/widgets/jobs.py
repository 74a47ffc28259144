"""Trainings that a panel starts: in a process of their own, with progress and a way to cancel, one at a time.

The kernel stays small and the sliders stay live: TensorFlow is loaded by `compresskit.training.job`, and is gone with
its process when the training is over.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final

import numpy as np

from compresskit.data import Digits
from compresskit.recipe import Recipe
from compresskit.widgets.worker import Worker
from compresskit.zoo import Checkpoint

KINDS: Final = ("fine-tune", "quantize", "distill")
NO_TENSORFLOW: Final = (
    "Training needs TensorFlow, which is not installed here: install the extra 'train' (make setup; or pip install "
    "'compresskit[train]'). Everything else in this panel works without it."
)


@dataclass(frozen=True)
class Training:
    """What is to be trained.

    Attributes
    ----------
    kind : str
        "fine-tune": prune as the recipe's steps say while training, or train on under the zeros that there are;
        "quantize": with rounding, as the recipe says; "distill": on the answers of a teacher.
    recipe : Recipe
        Steps of the kind that is trained with; the others are not looked at.
    settings : mapping
        Arguments of the training function as JSON holds them: epochs, learning_rate and so on.
    teacher : Checkpoint or None
        For "distill".
    """

    kind: str
    recipe: Recipe = field(default_factory=Recipe)
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    teacher: Checkpoint | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; choose one of {', '.join(KINDS)}")
        if (self.kind == "distill") != (self.teacher is not None):
            wanted = "needs one" if self.teacher is None else "has none"
            raise ValueError(f"teacher: a training of kind {self.kind!r} {wanted}")


@dataclass(frozen=True)
class JobProgress:
    """Where a training stands; see `compresskit.training.fit.Progress`.

    Attributes
    ----------
    done : float
        Part of the training that is done, 0 to 1.
    loss : float
        Mean over the latest batches.
    validation_accuracy : float or None
        After the latest finished epoch.
    seconds, seconds_left : float
        Spent, and an estimate of what remains.
    sparsity : float or None
        Fraction of the weights under masks that are gone, where there are masks.
    epoch, epochs : int
        The present epoch, from 1, and how many there are.
    """

    done: float
    loss: float
    validation_accuracy: float | None
    seconds: float
    seconds_left: float
    sparsity: float | None
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes
    ----------
    training : Training
        What was asked for.
    checkpoint : Checkpoint
        The trained model; the sliders can go on from it, and so can another training.
    cancelled : bool
        Whether it was ended early; the checkpoint is what was reached by then.
    facts : mapping
        What else the training tells.
    """

    training: Training
    checkpoint: Checkpoint
    cancelled: bool
    facts: Mapping[str, Any]


class Job:
    """One training at a time.

    Parameters
    ----------
    on_progress
        Called with a `JobProgress`, on a thread of the job's own.
    on_end
        Called with a `Trained`, or with the exception, on that thread.
    """

    def __init__(
        self, on_progress: Callable[[JobProgress], None], on_end: Callable[[Trained | Exception], None]
    ) -> None:
        self._on_progress, self._on_end = on_progress, on_end
        self._lock = threading.Lock()
        self._worker = Worker(lambda result: self._on_end(result), "compresskit-job")
        self._process: subprocess.Popen[str] | None = None

    @property
    def busy(self) -> bool:
        """Whether a training is under way."""
        return self._worker.busy

    @property
    def cancelling(self) -> bool:
        """Whether the training under way was told to end."""
        return self._worker.cancel.is_set()

    def start(self, model: Checkpoint, training: Training, digits: Digits) -> None:
        """Begin; the result is told to `on_end`.

        Raises
        ------
        ValueError
            If a training is under way, the model cannot be trained, or TensorFlow is not installed.
        """
        if self.busy:
            raise ValueError("A training is under way; cancel it, or wait for its end.")
        if any(importlib.util.find_spec(name) is None for name in ("tensorflow", "tf_keras")):
            raise ValueError(NO_TENSORFLOW)
        if model.keras is None:
            raise ValueError(
                f"The model {model.name!r} came as a .tflite file, which cannot be trained; bring the Keras model that "
                "it was made of."
            )
        self._worker.start(lambda: self._train(model, training, digits))

    def cancel(self) -> None:
        """End the training under way after its present step; what it reached is told to `on_end`."""
        with self._lock:
            self._worker.cancel.set()
            if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
                self._process.stdin.close()

    def close(self) -> None:
        """End the training under way, at once; nothing is told any more."""
        with self._lock:
            self._on_end, self._on_progress = (lambda _: None), (lambda _: None)
            self._worker.cancel.set()
            if self._process is not None:
                self._process.kill()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; False when the time was up first."""
        return self._worker.wait(timeout)

    def _train(self, model: Checkpoint, training: Training, digits: Digits) -> Trained:
        with tempfile.TemporaryDirectory(prefix="compresskit-job-") as name:
            folder = Path(name)
            _write_request(folder, model, training, digits)
            with (folder / "errors.txt").open("w+", encoding="utf-8", errors="replace") as errors:
                facts = self._follow(folder, errors)
            trained = load_trained(folder, model.name)
        return Trained(training, trained, bool(facts["cancelled"]), MappingProxyType(facts))

    def _follow(self, folder: Path, errors: IO[str]) -> dict[str, Any]:
        """Start the program, pass on what it says, and give what it says last."""
        command = [sys.executable, "-m", "compresskit.training.job", str(folder)]
        with self._lock:
            if self._worker.cancel.is_set():
                raise ValueError("Cancelled before the training began.")
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8",
                start_new_session=True,  # Jupyter's interrupt, meant for a cell, goes to all of the kernel's group
            )  # fmt: skip
        last: dict[str, Any] = {}
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                last = json.loads(line)
                if "progress" in last:
                    self._on_progress(_progress(last["progress"]))
        with self._lock:
            self._process = None
        if "error" in last:
            raise ValueError(last["error"])
        if "done" not in last:
            errors.seek(0)
            said = [line.strip() for line in errors if line.strip()]
            raise ValueError(
                f"The training ended without a result (exit code {process.returncode}). {said[-1] if said else ''}"
            )
        return dict(last["done"])


def load_trained(folder: Path, name: str) -> Checkpoint:
    """Read the model that a training left in its folder."""
    path = folder / "trained.tflite"
    return Checkpoint(name, path.read_bytes(), path.with_suffix(".keras").read_bytes())


def _write_request(folder: Path, model: Checkpoint, training: Training, digits: Digits) -> None:
    """Put everything that the program needs into its folder."""
    request = {
        "kind": training.kind,
        "name": model.name,
        "recipe": training.recipe.to_json(),
        "settings": dict(training.settings),
    }
    model.save(folder / "model.tflite")
    if training.teacher is not None:
        (folder / "teacher.tflite").write_bytes(training.teacher.tflite)
    for split in (digits.train, digits.validation):
        name = "train" if split is digits.train else "validation"
        np.save(folder / f"{name}_images.npy", split.images)
        np.save(folder / f"{name}_labels.npy", split.labels)
    (folder / "request.json").write_text(json.dumps(request), "utf-8")


def _progress(said: Mapping[str, Any]) -> JobProgress:
    done = (said["epoch"] - 1 + said["step"] / said["steps"]) / said["epochs"]
    return JobProgress(
        done,
        said["loss"],
        said["validation_accuracy"],
        said["seconds"],
        said["seconds_left"],
        said.get("sparsity"),
        said["epoch"],
        said["epochs"],
    )
