"""The part of a panel that trains: what, how long, a button, and how far it is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets

from compresskit.recipe import Recipe
from compresskit.widgets.jobs import Job, JobProgress, Trained, Training
from compresskit.widgets.live import sentence
from compresskit.widgets.panel import (
    Status,
    button_of,
    choice_of,
    classed,
    list_of,
    markup,
    number_box,
    slider_of,
)
from compresskit.widgets.points import Setting
from compresskit.zoo import Checkpoint, load_model, model_names

WHAT: Final = (("zeros", "fine-tune"), ("rounding", "quantize"), ("a teacher", "distill"))
BUTTONS: Final = {"fine-tune": "Fine-tune", "quantize": "Train with rounding (QAT)", "distill": "Distil"}
RATES: Final = tuple((f"{rate:g}", rate) for rate in (0.0003, 0.0005, 0.001, 0.002, 0.005))
USUAL_RATES: Final = {"fine-tune": 0.001, "quantize": 0.0005, "distill": 0.002}
TOOLTIPS: Final = {
    "kind": "What the training keeps up: the zeros of the controls, their rounding, or the answers of a teacher",
    "epochs": "How often each training digit is seen",
    "rate": "How far a step of the training goes, at most",
    "teacher": "The model whose answers the student learns",
    "temperature": "What the teacher's logits are divided by: the higher, the more its doubts count",
    "alpha": "Weight of the teacher, 0 to 1; the labels have the rest",
}
ORIGINAL_TEACHES: Final = ""
USUAL_TEMPERATURE: Final = 4.0
USUAL_ALPHA: Final = 0.9
HELD: Final = 0.05
"""A layer with more zeros than this was pruned; a few come of themselves."""


@dataclass(frozen=True)
class Wish:
    """Where the controls of a training stand.

    Attributes
    ----------
    kind : str
        "fine-tune", "quantize" or "distill".
    epochs : int
        How often each training digit is seen.
    learning_rate : float
        The highest of the run.
    teacher : str
        Name of a shipped model; empty for the original. For "distill", as the two that follow.
    temperature : float
        What the logits are divided by, above 0.
    alpha : float
        Weight of the teacher against the labels, 0 to 1.

    Raises
    ------
    ValueError
        For a distillation with a temperature or a weight outside these ranges.
    """

    kind: str
    epochs: int
    learning_rate: float
    teacher: str
    temperature: float = USUAL_TEMPERATURE
    alpha: float = USUAL_ALPHA

    def __post_init__(self) -> None:
        if self.kind != "distill":
            return
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"temperature is {self.temperature:g}; choose a number above 0, such as {USUAL_TEMPERATURE:g} (1 "
                "changes nothing, 20 is very soft)"
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(
                f"alpha is {self.alpha:g}; choose the weight of the teacher from 0 (labels only) to 1 (teacher only)"
            )

    @property
    def settings(self) -> dict[str, float]:
        """Arguments of the training function."""
        common = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        return common | ({"temperature": self.temperature, "alpha": self.alpha} if self.kind == "distill" else {})


def training_of(wish: Wish, setting: Setting, model: Checkpoint, original: Checkpoint) -> Training:
    """Say what is to be trained.

    Parameters
    ----------
    wish
        Where the controls of the training stand.
    setting
        Where those of the workbench stand: what is pruned or rounded is trained with.
    model
        What is trained.
    original
        Who teaches, where the wish names nobody else.

    Raises
    ------
    ValueError
        If the training would lose what the controls ask for, or what the model holds.
    """
    settings = wish.settings
    if wish.kind == "quantize" and (setting.factorizes() or setting.shares()):
        raise ValueError(
            "The controls share values or cut layers, which this training does not: switch both off first."
        )
    if wish.kind == "fine-tune" and setting.factorizes() and setting.pattern != "channel" and setting.prunes():
        raise ValueError(
            "Low rank would not keep the zeros that this training keeps: switch it off, or set nothing to zero."
        )
    if wish.kind == "fine-tune":
        return Training("fine-tune", Recipe(*setting.prunes()), settings)
    if setting.prunes():
        raise ValueError("The controls prune, which this training does not: fine-tune first, or set nothing to zero.")
    if wish.kind == "distill":
        return Training("distill", Recipe(), settings, load_model(wish.teacher) if wish.teacher else original)
    if any(layer.sparsity > HELD for layer in model.layers):
        raise ValueError("This model holds zeros, and training with rounding would lose them; distil or fine-tune it.")
    step = setting.recipe().quantize
    if step is None:
        raise ValueError("The weights are float: choose 8 bits or fewer, so that there is rounding to live with.")
    return Training("quantize", Recipe(step), settings)


class TrainingTab:
    """Controls for one training at a time.

    Parameters
    ----------
    begin
        Called under the lock with the `Wish` and the `Job` when the button is pressed: it starts the job, or raises
        ValueError.
    finished
        Called with the result under the lock; gives the sentence to show.
    lock
        The panel's.

    Attributes
    ----------
    box : ipywidgets.VBox
        To be put into the panel.
    job : Job
        The training under way.
    """

    def __init__(
        self, begin: Callable[[Wish, Job], None], finished: Callable[[Trained], str], lock: threading.RLock
    ) -> None:
        self._begin, self._finished, self._lock = begin, finished, lock
        self.job = Job(self._on_progress, self._on_end)
        self._closed = False
        self.kind = choice_of("Learn to live with", WHAT, "fine-tune", "ck-train-kind")
        self.epochs = slider_of("Epochs", [(str(count), count) for count in range(1, 11)], 2, "ck-epochs")
        self.rate = list_of("Learning rate", RATES, USUAL_RATES["fine-tune"], "ck-rate")
        teachers = [("the original", ORIGINAL_TEACHES), *((name, name) for name in model_names())]
        self.teacher = list_of("Teacher", teachers, ORIGINAL_TEACHES, "ck-teacher")
        self.temperature = number_box("Temperature", USUAL_TEMPERATURE, 1, "ck-temperature")
        self.alpha = number_box("Weight alpha", USUAL_ALPHA, 0.1, "ck-alpha")
        for name, tooltip in TOOLTIPS.items():
            getattr(self, name).tooltip = tooltip
        self._of_distilling = (self.teacher, self.temperature, self.alpha)
        self._enable(False)
        self.button = button_of(BUTTONS["fine-tune"], "ck-train", primary=True)
        self.cancel_button = button_of("Cancel", "ck-cancel")
        self.cancel_button.disabled = True
        self.status, self._bar = Status(), markup()
        self.kind.observe(self._on_kind, "value")
        self.button.on_click(lambda _: self.start())
        self.cancel_button.on_click(lambda _: self.cancel())
        buttons = classed(ipywidgets.HBox([self.button, self.cancel_button]), "ck-row", "ck-buttons")
        how = classed(ipywidgets.HBox([self.epochs, self.rate]), "ck-pair")
        softly = classed(ipywidgets.HBox(list(self._of_distilling)), "ck-pair")
        rows = [self.kind, how, softly, buttons, self._bar, self.status]
        self.box = classed(ipywidgets.VBox(rows), "ck-tab")
        self._tell("exact", "Nothing trained yet", "The sliders stay live meanwhile.", 0.0)

    @property
    def wish(self) -> Wish:
        """Where the controls stand."""
        return Wish(
            self.kind.value,
            int(self.epochs.value),
            float(self.rate.value),
            self.teacher.value,
            float(self.temperature.value),
            float(self.alpha.value),
        )

    def start(self) -> None:
        """Begin, as the button does; what is wrong is said below it."""
        with self._lock:  # the job has a thread of its own, and may have ended before the next line
            try:
                self._begin(self.wish, self.job)
            except Exception as error:
                self._tell("error", "", sentence(error), 0.0)
                return
            self.button.disabled, self.cancel_button.disabled = True, False
            self._tell("busy", "Starting", "Loading TensorFlow in another process takes some seconds.", 0.0)

    def cancel(self) -> None:
        """End the training under way after its present step; what it reached is kept."""
        with self._lock:
            self.job.cancel()
            self.cancel_button.disabled = True

    def close(self) -> None:
        """End the training under way, at once."""
        self._closed = True
        self.job.close()

    def _on_kind(self, change: Any) -> None:
        kind = change["new"]
        self.rate.value = USUAL_RATES[kind]
        self._enable(kind == "distill")
        with self._lock:
            if not self.button.disabled:  # while a training is under way, the button says which
                self.button.description = BUTTONS[kind]

    def _enable(self, distilling: bool) -> None:
        for control in self._of_distilling:
            control.disabled = not distilling

    def _on_progress(self, progress: JobProgress) -> None:
        with self._lock:
            if self._closed:
                return
            left = "cancelling" if self.job.cancelling else f"about {progress.seconds_left:.0f} s left"
            parts = [f"loss {progress.loss:.3f}"]
            if progress.sparsity is not None:
                parts.append(f"{100 * progress.sparsity:.0f} % zero")
            if progress.validation_accuracy is not None:
                parts.append(f"validation {100 * progress.validation_accuracy:.2f} %")
            epoch = f"Epoch {progress.epoch} of {progress.epochs}, {left}"
            self._tell("busy", epoch, ", ".join(parts), progress.done)

    def _on_end(self, result: Trained | Exception) -> None:
        with self._lock:
            if self._closed:
                return
            self.button.disabled, self.cancel_button.disabled = False, True
            self.button.description = BUTTONS[self.kind.value]
            if isinstance(result, Exception):
                self._tell("error", "", sentence(result), 0.0)
                return
            words = self._finished(result)
            self._tell("preview" if result.cancelled else "exact", words, "Under Model you can go back.", 1.0)

    def _tell(self, kind: str, title: str, small: str, done: float) -> None:
        self.status.say(kind, title, small)
        self._bar.value = (
            f"<progress max='1' value='{done:.3f}' aria-label='Progress of the training' "
            "style='width:100%;height:8px;accent-color:var(--ck-after)'></progress>"
        )
