"""The second panel of lesson 11: a student trained with its teacher and without, side by side, as you watch.

`train_pair` trains two students that differ in nothing but the teacher, and has no widget in it; `Job` runs it on a
thread of its own. The panel draws the curves as they come, and keeps every finished pair on the plot of size and
accuracy, with what all pairs of a setting say together.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ipywidgets

from compresskit.data import Digits
from compresskit.evaluation import Score, evaluate
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import sentence
from compresskit.widgets.panel import Panel, Status, button_of, choice_of, classed, list_of, markup, number_slider
from compresskit.widgets.panel import slider_of as choices_slider
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.widgets.views import ACCURACY_TICKS, kilobytes, percent
from compresskit.widgets.worker import Worker
from compresskit.zoo import Checkpoint, load_model, model_names

HEIGHT: Final = 360
WIDTHS: Final = {
    "dense": (10, 20, 30, 60, 100, 300, 800),
    "plain": (4, 6, 8, 12, 16, 24),
    "separable": (8, 12, 16, 24, 32, 48),
}
"""Where the dial of the width can stand, for each kind of student."""
DEPTHS: Final = {"dense": 1, "plain": 3, "separable": 4}
TEMPERATURES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 20.0, 40.0)
LOWEST: Final = 60.0
"""Accuracy, in per cent, at which the axes begin; what lies below stands on the edge."""
NO_TENSORFLOW: Final = (
    "Training needs TensorFlow, which is not installed here: install the extra 'train' (make setup; or pip install "
    "'compresskit[train]'), then restart the kernel."
)


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    teacher : str
        Name of a shipped model.
    student : str
        As ``compresskit.training.architectures.build`` takes it.
    temperature, alpha : float
        Of the loss.
    """

    teacher: str
    student: str
    temperature: float
    alpha: float


@dataclass(frozen=True)
class Pair:
    """Two students of one seed.

    Attributes
    ----------
    seed : int
        Of both.
    with_teacher, without : Score
        Of their float files, over all test digits.
    """

    seed: int
    with_teacher: Score
    without: Score


@dataclass
class Curves:
    """Accuracies on the validation digits after each epoch, of the pair under way."""

    with_teacher: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Length:
    """How long a student is trained.

    Attributes
    ----------
    epochs, batch_size : int
        As ``fit`` takes them.
    learning_rate : float
        The highest.
    """

    epochs: int = 20
    batch_size: int = 50
    learning_rate: float = 0.002


def train_pair(
    setting: Setting,
    seed: int,
    digits: Digits,
    length: Length,
    on_progress: Callable[[bool, Any], None],
    cancel: threading.Event,
) -> Pair | None:
    """Train a student with its teacher, then the same one without.

    Parameters
    ----------
    setting
        Teacher, student, temperature and alpha.
    seed
        Of both: the same start, the same order of the digits.
    digits
        ``train`` is what the students learn from, unmoved; their files read ``test``.
    length
        Of the training.
    on_progress
        Called with whether the teacher is there, and a ``compresskit.training.fit.Progress``.
    cancel
        Set it from another thread to end.

    Returns
    -------
    Pair or None
        None if it was cancelled.

    Raises
    ------
    ValueError
        As ``compresskit.training.distill.distill`` does.
    """
    importlib.import_module("compresskit.training.quiet").load()
    room = importlib.import_module("compresskit.training.distill")
    scores: list[Score] = []
    for alpha in (setting.alpha, 0.0):
        result = room.distill(
            load_model(setting.teacher),
            setting.student,
            digits,
            temperature=setting.temperature,
            alpha=alpha,
            epochs=length.epochs,
            batch_size=length.batch_size,
            learning_rate=length.learning_rate,
            augment="none",
            seed=seed,
            on_progress=functools.partial(on_progress, len(scores) == 0),
            cancel=cancel,
        )
        if result.cancelled:
            return None
        scores.append(evaluate(result.checkpoint, digits.test))
    return Pair(seed, scores[0], scores[1])


class Distiller(Panel):
    """The panel: teacher, student, temperature, alpha; two curves, and the plot on which all pairs are kept.

    Parameters
    ----------
    digits
        Students learn from the first of `train`, and are read from all of `test`.
    training_digits
        How many they learn from.
    length
        Of each training.

    Attributes
    ----------
    pairs : dict of Setting to list of Pair
        What was trained so far.
    """

    def __init__(self, digits: Digits, training_digits: int = 1000, length: Length | None = None) -> None:
        super().__init__()
        self.length = length or Length()
        self.digits = replace(digits, train=digits.train.take(training_digits), validation=digits.validation.take(1000))
        self.pairs: dict[Setting, list[Pair]] = {}
        self._curves, self._running = Curves(), ""
        self.teacher = list_of("Teacher", [(name, name) for name in model_names()], "big_teacher", "ck-teacher")
        self.kind = choice_of("Student", [(kind, kind) for kind in WIDTHS], "dense", "ck-kind")
        self.width = choices_slider("Width", [(str(each), each) for each in WIDTHS["dense"]], 300, "ck-width")
        self.temperature = choices_slider(
            "Temperature T", [(f"{each:g}", each) for each in TEMPERATURES], 8.0, "ck-train-heat"
        )
        self.alpha = number_slider("Alpha, the teacher's weight", 0.05, 1.0, 0.05, 0.9, "ck-train-alpha", ".2f")
        self._train_button = button_of("Train both", "ck-train", primary=True)
        self._cancel_button = button_of("Cancel", "ck-cancel")
        self._cancel_button.disabled = True
        self._train_button.on_click(lambda _: self._guard(self.train))
        self._cancel_button.on_click(lambda _: self.cancel())
        self._status, self._told, self._bar = Status(), Status(), markup()
        self.chart = Chart(
            self._figure(), height=HEIGHT, label="Accuracy while training; size and accuracy of all students",
            lock=self.lock,
        )  # fmt: skip
        self._job = Worker(self._on_end, "compresskit-distiller")
        self._watch(self.kind, self._on_kind)
        for control in (self.teacher, self.width, self.temperature, self.alpha):
            self._watch(control, lambda _: self._show())
        buttons = classed(ipywidgets.HBox([self._train_button, self._cancel_button]), "ck-row")
        controls = classed(
            ipywidgets.VBox(
                [self.teacher, self.kind, self.width, self.temperature, self.alpha, buttons, self._bar, self._told]
            ),
            "ck-controls",
        )
        plot = classed(ipywidgets.VBox([self._status, self.chart]), "ck-grow", "ck-stack")
        self._frame(
            [classed(ipywidgets.HBox([controls, plot]), "ck-row")],
            {
                ".ck-teacher": "Teacher",
                ".ck-kind": "Kind of student",
                ".ck-width": "Width of the student",
                ".ck-train-heat": "Temperature of the training",
                ".ck-train-alpha": "Weight of the teacher",
            },
        )
        count = len(self.digits.train)
        self._tell("exact", "Nothing trained yet", f"A pair: {count:,} digits, {self.length.epochs} epochs, twice", 0)
        self._show()

    def setting(self) -> Setting:
        """Read the controls."""
        kind = self.kind.value
        student = f"{kind}-{self.width.value}x{DEPTHS[kind]}"
        return Setting(self.teacher.value, student, float(self.temperature.value), float(self.alpha.value))

    def _on_kind(self, _change: Any) -> None:
        """Put the widths of the kind on the slider."""
        widths = WIDTHS[self.kind.value]
        self.width.options = [(str(each), each) for each in widths]
        self.width.value = widths[len(widths) // 2]
        self._show()

    # -- training -------------------------------------------------------------------------------------------------

    def _guard(self, action: Callable[[], None]) -> None:
        """Do what a button asks for; an error appears beside the button."""
        try:
            action()
        except Exception as error:
            self._tell("error", "", sentence(error), 0)

    def train(self) -> None:
        """Train a pair at the present setting; each further pair of the same setting takes the next seed.

        Raises
        ------
        ValueError
            If a training is under way.
        """
        if [name for name in ("tensorflow", "tf_keras") if importlib.util.find_spec(name) is None]:
            self._tell("error", "", NO_TENSORFLOW, 0)
            return
        with self.lock:
            setting = self.setting()
            seed = len(self.pairs.get(setting, ()))
            self._job.start(
                lambda: (
                    setting,
                    train_pair(setting, seed, self.digits, self.length, self._on_progress, self._job.cancel),
                )
            )
            self._curves, self._running = Curves(), f"{setting.student}, seed {seed}"
            self._train_button.disabled, self._cancel_button.disabled = True, False
            self._tell("busy", f"Training {self._running}", "Loading TensorFlow takes some seconds.", 0)

    def cancel(self) -> None:
        """End the training under way; half a pair is not kept."""
        self._job.cancel.set()
        self._cancel_button.disabled = True

    def _on_progress(self, taught: bool, progress: Any) -> None:
        with self.lock:
            if self.closed or not self._running:
                return
            curve = self._curves.with_teacher if taught else self._curves.without
            ended = progress.step == progress.steps and progress.validation_accuracy is not None
            if ended and len(curve) < progress.epoch:
                curve.append(float(progress.validation_accuracy))
                self.chart.show(self._figure())
            part = (progress.epoch - 1 + progress.step / progress.steps) / progress.epochs
            who = "with the teacher" if taught else "without"
            self._tell(
                "busy",
                f"Training {self._running}",
                f"{who}, epoch {progress.epoch} of {progress.epochs}",
                part / 2 + (not taught) / 2,
            )

    def _on_end(self, result: Any) -> None:
        with self.lock:
            if self.closed:
                return
            self._running = ""
            self._train_button.disabled, self._cancel_button.disabled = False, True
            if isinstance(result, Exception):
                self._tell("error", "", sentence(result), 0)
                return
            setting, pair = result
            if pair is None:
                self._tell("exact", "Cancelled", "Half a pair is not kept.", 0)
                return
            self.pairs.setdefault(setting, []).append(pair)
            small = (
                f"{pair.with_teacher.errors:,} of {pair.with_teacher.n:,} misread with, {pair.without.errors:,} without"
            )
            self._tell("exact", f"{setting.student}, seed {pair.seed}", small, 1)
            self._show()

    def _tell(self, kind: str, title: str, small: str, done: float) -> None:
        """Say where the training stands."""
        self._told.say(kind, title, small)
        self._bar.value = (
            f"<progress max='1' value='{done:.3f}' aria-label='Progress of the training' "
            "style='width:100%;height:8px;accent-color:var(--ck-after)'></progress>"
        )

    def close(self) -> None:
        """End the training, too."""
        self._job.cancel.set()
        super().close()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until the training, if any, has ended."""
        return self._job.wait(timeout)

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _show(self) -> None:
        with self.lock:
            self.chart.show(self._figure())
            self._status.say("exact", *self._words())

    def _say_error(self, error: Exception) -> None:
        self._status.say("error", "", sentence(error))

    def _words(self) -> tuple[str, str]:
        setting = self.setting()
        here = self.pairs.get(setting, [])
        about = f"{setting.student} from {setting.teacher}, T = {setting.temperature:g}, alpha = {setting.alpha:g}"
        if not here:
            return about, f"No pair trained at this setting. {self.digits.notice}".strip()
        comparison = importlib.import_module("compresskit.training.comparison")
        gain = comparison.paired_gain(
            [pair.with_teacher.accuracy for pair in here], [pair.without.accuracy for pair in here]
        )
        size = kilobytes(here[0].with_teacher.size)
        if len(here) == 1:
            told = (
                f"{100 * gain.mean:+.2f} points with the teacher; one pair says nothing of the spread: train another."
            )
        else:
            verdict = {"better": "better with the teacher", "worse": "worse with the teacher"}.get(
                gain.verdict, "a difference inside the noise"
            )
            told = (
                f"{len(here)} pairs: {100 * gain.mean:+.2f} points (95 % interval {100 * gain.low:+.2f} to "
                f"{100 * gain.high:+.2f}): {verdict}."
            )
        return about, f"{size}. {told} {self.digits.notice}".strip()

    def _points(self, taught: bool) -> list[tuple[Setting, Score]]:
        return [
            (setting, pair.with_teacher if taught else pair.without)
            for setting, pairs in self.pairs.items()
            for pair in pairs
        ]

    def _figure(self) -> dict[str, Any]:
        """Draw misread digits on a logarithm, labelled as accuracy.

        Traces 0 and 1 are the curves with and without the teacher, 2 and 3 the points of all pairs, 4 the teachers.
        ``y`` is the error in per cent.
        """
        taught, alone = self._points(True), self._points(False)
        teachers = sorted({setting.teacher for setting in self.pairs})
        traces = [
            _curve("with the teacher", self._curves.with_teacher, AFTER, "diamond", "solid"),
            _curve("without", self._curves.without, BEFORE, "circle-open", "dot"),
            _scatter(taught, AFTER, "diamond"),
            _scatter(alone, BEFORE, "circle-open"),
            {
                "type": "scatter", "mode": "markers", "name": "teacher", "xaxis": "x2", "yaxis": "y2",
                "x": [load_model(name).size for name in teachers],
                "y": [_error(1 - _teacher_errors(name, self.digits) / len(self.digits.test)) for name in teachers],
                "text": teachers, "hovertemplate": "%{text}: %{x:,} bytes<extra></extra>",
                "marker": {"color": CURRENT, "symbol": "star", "size": 13}, "showlegend": bool(teachers),
            },
        ]  # fmt: skip
        axis = {
            "type": "log", "range": [math.log10(100 - LOWEST), math.log10(0.25)],
            "tickvals": [100 - tick for tick in ACCURACY_TICKS], "ticktext": [f"{tick:g} %" for tick in ACCURACY_TICKS],
        }  # fmt: skip
        layout = {
            "height": HEIGHT,
            "margin": {"l": 58, "r": 14, "t": 40, "b": 46},
            "xaxis": {"domain": [0, 0.42], "range": [0.5, self.length.epochs + 0.5], "title": {"text": "epoch"}},
            "yaxis": {**axis, "title": {"text": "accuracy (stretched towards 100 %)"}},
            "xaxis2": {
                "domain": [0.54, 1], "type": "log", "range": [3.3, 6.6], "tickangle": 0,
                "title": {"text": "bytes of the float file", "standoff": 10, "font": {"size": 12}},
                "tickvals": [10_000, 100_000, 1_000_000], "ticktext": ["10 kB", "100 kB", "1 MB"],
            },
            "yaxis2": {**axis, "anchor": "x2", "title": {"text": ""}},
        }  # fmt: skip
        return figure(traces, layout)

    def _summary(self) -> str:
        return " ".join(self._words())

    def _picture(self) -> Picture:
        picture = Picture(760, 320, self._summary())
        words = self._words()
        picture.text(0, 14, words[0], size=13, bold=True)
        picture.text(0, 32, words[1], size=12, ink="muted")
        low, high, top, bottom = math.log10(100 - LOWEST), math.log10(0.25), 60, 260

        def down(accuracy: float) -> float:
            share = (math.log10(_error(accuracy)) - low) / (high - low)
            return bottom - (bottom - top) * min(max(share, 0.0), 1.0)

        for left, right in ((60, 340), (440, 740)):
            for tick in ACCURACY_TICKS:
                if LOWEST <= tick <= 99.75:
                    picture.line([(left, down(tick / 100)), (right, down(tick / 100))], stroke="grid")
                    picture.text(left - 6, down(tick / 100) + 4, f"{tick:g} %", size=11, anchor="end")
        picture.text(200, bottom + 34, "epoch", size=12, anchor="middle")
        picture.text(590, bottom + 34, "bytes of the float file", size=12, anchor="middle")
        for label, size in (("10 kB", 1e4), ("100 kB", 1e5), ("1 MB", 1e6)):
            picture.text(_across(size), bottom + 16, label, size=11, anchor="middle")
        for curve, ink, dash in (
            (self._curves.with_teacher, "after", False),
            (self._curves.without, "before", True),
        ):
            points = [(60 + 280 * (k + 1) / self.length.epochs, down(each)) for k, each in enumerate(curve)]
            if len(points) > 1:
                picture.line(points, stroke=ink, width=2, dash=dash)
        for taught, shape, ink in ((True, "diamond", "after"), (False, "circle", "before")):
            for _, score in self._points(taught):
                picture.mark(_across(score.size), down(score.accuracy), shape, 9, ink)  # type: ignore[arg-type]
        picture.mark(70, 50, "diamond", 9, "after")
        picture.text(80, 54, "with the teacher", size=12)
        picture.mark(200, 50, "circle", 9, "before")
        picture.text(210, 54, "without", size=12)
        return picture


def distiller(digits: Digits, training_digits: int = 1000, length: Length | None = None) -> Distiller:
    """Show students trained with and without a teacher.

    Parameters
    ----------
    digits
        Students learn from the first of `train`, and are read from all of `test`.
    training_digits
        How many they learn from.
    length
        Of each training.
    """
    return Distiller(digits, training_digits, length)


_teachers_read: dict[tuple[str, str], int] = {}


def _teacher_errors(name: str, digits: Digits) -> int:
    """Count the test digits that a teacher misreads, once."""
    key = (name, digits.test.fingerprint)
    if key not in _teachers_read:
        model: Checkpoint = load_model(name)
        _teachers_read[key] = evaluate(model, digits.test).errors
    return _teachers_read[key]


def _across(size: float) -> float:
    """Place a file's size in the still picture's right plot."""
    return 440 + 300 * (math.log10(size) - 3.3) / 3.3


def _error(accuracy: float) -> float:
    """Give the misread digits in per cent, between what the axes show."""
    return min(max(100 * (1 - accuracy), 0.26), 100 - LOWEST)


def _curve(name: str, accuracies: Sequence[float], ink: str, symbol: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name,
        "x": list(range(1, len(accuracies) + 1)), "y": [_error(each) for each in accuracies],
        "text": [percent(each) for each in accuracies],
        "hovertemplate": f"{name}, epoch %{{x}}: %{{text}}<extra></extra>",
        "line": {"color": ink, "width": 2, "dash": dash}, "marker": {"color": ink, "symbol": symbol, "size": 7},
    }  # fmt: skip


def _scatter(points: Sequence[tuple[Setting, Score]], ink: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "xaxis": "x2", "yaxis": "y2", "showlegend": False,
        "x": [score.size for _, score in points], "y": [_error(score.accuracy) for _, score in points],
        "text": [
            f"{setting.student}, T = {setting.temperature:g}: {percent(score.accuracy)}" for setting, score in points
        ],
        "hovertemplate": "%{text}, %{x:,} bytes<extra></extra>",
        "marker": {"color": ink, "symbol": symbol, "size": 11, "line": {"width": 2 * symbol.endswith("open")}},
    }  # fmt: skip
