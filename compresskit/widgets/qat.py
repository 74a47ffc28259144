"""The panel of lesson 06: accuracy against bits, rounded after training as you look, and trained with rounding.

`curve` makes and reads the real files of one setting and has no widget in it; `Trainer` runs the training on a thread
of its own. The panel draws what both give: sliders stay live while a network is being trained.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import ipywidgets

from compresskit.compression import compress
from compresskit.data import Digits, Split
from compresskit.evaluation import Score, evaluate
from compresskit.recipe import Quantize, Recipe
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import AbandonedError, Live, Outcome, Stop, sentence
from compresskit.widgets.panel import Panel, Status, button_of, choice_of, classed, list_of, markup, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.widgets.views import ACCURACY_TICKS, kilobytes, percent
from compresskit.widgets.worker import Worker
from compresskit.zoo import Checkpoint, load_model

HEIGHT: Final = 340
BITS: Final = (2, 3, 4, 6, 8)
PREVIEW_DIGITS: Final = 1000
EVERY_LAYER: Final = "all layers"
LEARNING_RATE: Final = 0.001
NO_TENSORFLOW: Final = (
    "Training needs TensorFlow, which is not installed here: install the extra 'train' (make setup; or pip install "
    "'compresskit[train]'), then restart the kernel. Everything else in this panel works without it."
)


@dataclass(frozen=True)
class Setting:
    """Where the controls stand, but for the bits.

    Attributes
    ----------
    layer : str
        The layer that gets few bits, the others having 8; or "all layers".
    granularity : str
        "channel" or "tensor".
    ranges : str
        Where weights are clipped: "minmax" or "mse".
    """

    layer: str
    granularity: str
    ranges: str

    def step(self, bits: int) -> Quantize:
        """Give the recipe's step for a width. Narrow weights lie in bytes, since activations are integers."""
        store = "int8" if bits < 8 else "auto"
        if self.layer == EVERY_LAYER:
            return Quantize(weights=bits, granularity=self.granularity, ranges=self.ranges, store=store)
        own = {self.layer: {"weights": bits, "store": store}}
        return Quantize(granularity=self.granularity, ranges=self.ranges, layers=own)


@dataclass(frozen=True)
class Rounded:
    """What came of rounding after training.

    Attributes
    ----------
    scores : mapping of int to Score
        By bits: accuracy of each file, over the digits that were read.
    """

    scores: Mapping[int, Score]


@dataclass(frozen=True)
class Trained:
    """What came of a training with rounding.

    Attributes
    ----------
    bits : int
        Of a weight.
    seed : int
        Of the training.
    score : Score
        Of the file made after it, over all test digits.
    agreement : float
        Fraction of 1,000 validation digits that the file and the trained model read as the same.
    cancelled : bool
        Whether the training was ended early.
    """

    bits: int
    seed: int
    score: Score
    agreement: float
    cancelled: bool


def curve(model: Checkpoint, setting: Setting, calibration: Split, split: Split, stop: Stop = lambda: False) -> Rounded:
    """Round a model to each width, make the files, and read digits with them.

    Parameters
    ----------
    model
        In float.
    setting
        What is rounded, and how.
    calibration
        The first 100 of them give the ranges of activations.
    split
        The digits that are read.
    stop
        Says that nobody waits for the result any more.

    Returns
    -------
    Rounded

    Raises
    ------
    AbandonedError
        If `stop` says so.
    ValueError
        If LiteRT has no such file.
    """
    scores = {}
    for bits in BITS:
        if stop():
            raise AbandonedError
        scores[bits] = evaluate(compress(model, Recipe(setting.step(bits)), calibration), split)
    return Rounded(scores)


def train_rounded(
    model: Checkpoint,
    setting: Setting,
    bits: int,
    seed: int,
    digits: Digits,
    test: Split,
    epochs: int,
    on_progress: Callable[[Any], None],
    cancel: threading.Event,
) -> Trained:
    """Train a model with rounding, make the file, and read digits with it.

    Parameters
    ----------
    model
        In float.
    setting, bits
        What is rounded, how, and to how many bits.
    seed
        Of the training.
    digits
        ``train`` and ``validation`` are trained on and looked at.
    test
        The digits that the file reads.
    epochs
        How often the training sees each digit.
    on_progress
        Called with `compresskit.training.fit.Progress`.
    cancel
        Set it from another thread to end early.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        As ``compresskit.training.quantize.train_quantized`` does.
    """
    importlib.import_module("compresskit.training.quiet").load()
    room = importlib.import_module("compresskit.training.quantize")
    result = room.train_quantized(
        model, setting.step(bits), digits, epochs=epochs, learning_rate=LEARNING_RATE, seed=seed,
        on_progress=on_progress, cancel=cancel,
    )  # fmt: skip
    return Trained(bits, seed, evaluate(result.compressed, test), result.agreement, result.cancelled)


class Qat(Panel):
    """The panel: which layer, how many bits, which grid; the curve of rounding, and a button that trains.

    Parameters
    ----------
    model
        What `load_model` takes.
    digits
        Accuracies are measured on `test`; trained on `train`.
    training_digits
        How many of the training digits a training uses.
    epochs
        How often it sees each of them.

    Attributes
    ----------
    trained : dict of Setting to list of Trained
        The trainings so far.
    """

    def __init__(self, model: Any, digits: Digits, training_digits: int = 10_000, epochs: int = 1) -> None:
        super().__init__()
        self.model = load_model(model)
        self.digits = digits
        self.epochs = epochs
        self._short = replace(
            digits, train=digits.train.take(training_digits), validation=digits.validation.take(PREVIEW_DIGITS)
        )
        self._few = digits.test.take(PREVIEW_DIGITS)
        self._original = evaluate(self.model, digits.test)
        self.trained: dict[Setting, list[Trained]] = {}
        self._rounded: tuple[Setting, Rounded, bool] | None = None
        self._training: tuple[Setting, int] | None = None
        names = [EVERY_LAYER, *(layer.name for layer in self.model.layers)]
        self.layer = list_of("Few bits in", [(name, name) for name in names], EVERY_LAYER, "ck-layer")
        self.bits = slider_of("Bits", [(str(bits), bits) for bits in BITS], 3, "ck-bits")
        self.granularity = choice_of(
            "A scale for", [("each channel", "channel"), ("each layer", "tensor")], "channel", "ck-granularity"
        )
        self.ranges = choice_of(
            "The grid ends at", [("the largest weight", "minmax"), ("the least error", "mse")], "minmax", "ck-ranges"
        )
        self._train_button = button_of("Train with rounding", "ck-train", primary=True)
        self._cancel_button = button_of("Cancel", "ck-cancel")
        self._cancel_button.disabled = True
        self._train_button.on_click(lambda _: self._guard(self.train))
        self._cancel_button.on_click(lambda _: self.cancel())
        self._status, self._told = Status(), Status()
        self._bar = markup()
        self.chart = Chart(
            self._figure(), height=HEIGHT, label="Accuracy against bits: rounded after training, and trained",
            lock=self.lock,
        )  # fmt: skip
        self._worker = Worker(self._on_end, "compresskit-qat")
        for control in (self.layer, self.bits, self.granularity, self.ranges):
            self._watch(control, self._on_change)
        buttons = classed(ipywidgets.HBox([self._train_button, self._cancel_button]), "ck-row")
        controls = classed(
            ipywidgets.VBox([self.layer, self.bits, self.granularity, self.ranges, buttons, self._bar, self._told]),
            "ck-controls",
        )
        plot = classed(ipywidgets.VBox([self._status, self.chart]), "ck-grow", "ck-stack")
        self._frame(
            [classed(ipywidgets.HBox([controls, plot]), "ck-row")],
            {
                ".ck-layer": "Layer with few bits",
                ".ck-bits": "Bits of a weight",
                ".ck-granularity": "What shares a scale",
                ".ck-ranges": "Where the grid ends",
            },
        )
        self._live: Live[Setting, Rounded] = Live(
            self._preview, self._exact, self._on_result, self._on_error, on_start=self._on_start, lock=self.lock
        )
        self._lives.append(self._live)
        self._tell(
            "exact",
            "Nothing trained yet",
            f"A training: {len(self._short.train):,} digits, {epochs} epoch{'s' * (epochs > 1)}",
            0,
        )
        self._live.submit(self.setting())

    def setting(self) -> Setting:
        """Read the controls."""
        return Setting(self.layer.value, self.granularity.value, self.ranges.value)

    # -- rounding after training ------------------------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Rounded:
        return curve(self.model, setting, self.digits.train, self._few, stop)

    def _exact(self, setting: Setting, stop: Stop) -> Rounded:
        return curve(self.model, setting, self.digits.train, self.digits.test, stop)

    def _on_change(self, change: Any) -> None:
        with self.lock:
            if change["owner"] is self.bits:
                self._show()
            else:
                self._live.submit(self.setting())

    def _on_start(self, _setting: Setting, exact: bool) -> None:
        if not exact:
            self._status.say("busy", "Making and reading files", "One for each number of bits")

    def _on_result(self, outcome: Outcome[Setting, Rounded]) -> None:
        self._rounded = (outcome.setting, outcome.value, outcome.exact)
        self._show()

    def _on_error(self, _setting: Setting, message: str) -> None:
        self._status.say("error", "", message)

    def _say_error(self, error: Exception) -> None:
        self._status.say("error", "", sentence(error))

    # -- training -------------------------------------------------------------------------------------------------

    def _guard(self, action: Callable[[], None]) -> None:
        """Do what a button asks for; an error appears beside the button."""
        try:
            action()
        except Exception as error:
            self._tell("error", "", sentence(error), 0)

    def train(self) -> None:
        """Train at the present setting; each further training of the same setting takes the next seed.

        Raises
        ------
        ValueError
            If a training is under way.
        """
        missing = [name for name in ("tensorflow", "tf_keras") if importlib.util.find_spec(name) is None]
        if missing:
            self._tell("error", "", NO_TENSORFLOW, 0)
            return
        with self.lock:
            setting, bits = self.setting(), int(self.bits.value)
            seed = sum(each.bits == bits for each in self.trained.get(setting, ()))
            self._worker.start(
                lambda: train_rounded(
                    self.model, setting, bits, seed, self._short, self.digits.test, self.epochs, self._on_progress,
                    self._worker.cancel,
                )
            )  # fmt: skip
            self._training = (setting, bits)
            self._train_button.disabled, self._cancel_button.disabled = True, False
            self._tell("busy", f"Training with {bits} bits, seed {seed}", "Loading TensorFlow takes some seconds.", 0)

    def cancel(self) -> None:
        """End the training under way after its present step; its point is drawn all the same."""
        self._worker.cancel.set()
        self._cancel_button.disabled = True

    def _on_progress(self, progress: Any) -> None:
        with self.lock:
            if self.closed or self._training is None:
                return
            done = (progress.epoch - 1 + progress.step / progress.steps) / progress.epochs
            left = "cancelling" if self._worker.cancel.is_set() else f"about {progress.seconds_left:.0f} s left"
            self._tell("busy", f"Training with {self._training[1]} bits", f"loss {progress.loss:.3f}, {left}", done)

    def _on_end(self, result: Any) -> None:
        with self.lock:
            if self.closed or self._training is None:
                return
            setting, self._training = self._training[0], None
            self._train_button.disabled, self._cancel_button.disabled = False, True
            if isinstance(result, Exception):
                self._tell("error", "", sentence(result), 0)
                return
            self.trained.setdefault(setting, []).append(result)
            ended = "Cancelled early" if result.cancelled else "Trained"
            words = f"{ended}: {result.bits} bits, {percent(result.score.accuracy)}"
            self._tell("exact", words, f"File and trained model read {result.agreement:.1%} of 1,000 digits alike.", 1)
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
        self._worker.cancel.set()
        super().close()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until the files are read and the training, if any, has ended."""
        return super().wait_idle(timeout) and self._worker.wait(timeout)

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _here(self) -> list[Trained]:
        """Give the trainings of the setting shown."""
        return self.trained.get(self.setting(), [])

    def _show(self) -> None:
        self.chart.show(self._figure())
        if self._rounded is not None:
            self._status.say("exact" if self._rounded[2] else "preview", *self._words())

    def _words(self) -> tuple[str, str]:
        bits = int(self.bits.value)
        if self._rounded is None:
            return "Nothing measured yet", ""
        score = self._rounded[1].scores[bits]
        kind = "all" if self._rounded[2] else "preview of"
        trained = [each.score.accuracy for each in self._here() if each.bits == bits]
        low, high = score.interval
        told = f"{bits} bits, rounded after training: {percent(score.accuracy)}"
        if trained:  # both have to fit into one line, however many trainings there were
            ends = sorted({percent(min(trained)), percent(max(trained))})
            told = f"{bits} bits: {percent(score.accuracy)} rounded, {' to '.join(ends)} trained"
        return (
            told,
            f"{percent(low)} to {percent(high)} ({kind} {score.n:,} digits), {kilobytes(score.size)}; "
            f"float: {percent(self._original.accuracy)}. {self.digits.notice}".strip(),
        )

    def _figure(self) -> dict[str, Any]:
        """Draw misread digits on a logarithm, labelled as accuracy, so that 98 and 99 % lie as far apart as 0 and 50.

        Trace 0 is rounding on all digits, 1 its preview, 2 the trainings, 3 the ring; ``y`` is the error in per cent.
        """
        scores = dict(self._rounded[1].scores) if self._rounded else {}
        exact = bool(self._rounded and self._rounded[2])
        rounded = [(bits, score.accuracy, score.n) for bits, score in scores.items()]
        trained = [(each.bits, each.score.accuracy, each.score.n) for each in self._here()]
        bits = int(self.bits.value)
        ring = [point for point in rounded if point[0] == bits]
        floor = _error(self._original.accuracy, self._original.n)
        traces = [
            _trace("rounded after training", rounded if exact else [], BEFORE, "lines+markers", "circle", 10),
            _trace("the same, preview", [] if exact else rounded, BEFORE, "lines+markers", "circle-open", 10),
            _trace("trained with rounding", trained, AFTER, "markers", "diamond", 13),
            _trace("where the slider stands", ring, CURRENT, "markers", "circle-open", 22)
            | {"hoverinfo": "skip", "cliponaxis": False},
        ]
        layout = {
            "height": HEIGHT,
            "margin": {"l": 66, "r": 16, "t": 50, "b": 46},  # two rows of the legend have room: the plot does not jump
            "xaxis": {"range": [1.7, 8.3], "dtick": 1, "title": {"text": "bits of a weight"}},
            "yaxis": {
                "type": "log", "range": [2.05, math.log10(floor / 1.8)],
                "title": {"text": "accuracy (stretched towards 100 %)"},
                "tickvals": [100 - tick for tick in ACCURACY_TICKS],
                "ticktext": [f"{tick:g} %" for tick in ACCURACY_TICKS],
            },
            "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": floor, "y1": floor,
                        "line": {"dash": "dot", "width": 1.5, "color": "#808080"}}],
            "annotations": [{"xref": "paper", "x": 0, "y": math.log10(floor), "text": "float", "showarrow": False,
                             "xanchor": "left", "yanchor": "bottom", "xshift": 8}],
        }  # fmt: skip
        return figure(traces, layout)

    def _summary(self) -> str:
        setting = self.setting()
        return f"{self.model.name}, {setting.layer}, per {setting.granularity}: {'; '.join(self._words())}"

    def _picture(self) -> Picture:
        picture = Picture(760, 300, self._summary())
        picture.text(0, 14, self._words()[0], size=13, bold=True)
        picture.text(0, 32, self._words()[1], size=12, ink="muted")
        left, right, top, bottom = 70, 740, 60, 250
        low, high = math.log10(110), math.log10(_error(self._original.accuracy, self._original.n) / 1.8)

        def place(bits: float, error: float) -> tuple[float, float]:
            share = (math.log10(error) - low) / (high - low)
            return left + (right - left) * (bits - 1.7) / 6.6, bottom - (bottom - top) * share

        for tick in (*ACCURACY_TICKS,):
            if high <= math.log10(100 - tick) <= low:
                y = place(2, 100 - tick)[1]
                picture.line([(left, y), (right, y)], stroke="grid")
                picture.text(left - 6, y + 4, f"{tick:g} %", size=11, anchor="end")
        for bits in BITS:
            picture.text(place(bits, 100)[0], bottom + 16, str(bits), size=11, anchor="middle")
        picture.text((left + right) / 2, bottom + 34, "bits of a weight", size=12, anchor="middle")
        scores = self._rounded[1].scores if self._rounded else {}
        points = [place(bits, _error(score.accuracy, score.n)) for bits, score in scores.items()]
        if points:
            picture.line(points, stroke="before", width=2)
        for point in points:
            picture.mark(*point, "disc", 8, "before", tip="rounded after training")
        for each in self._here():
            picture.mark(
                *place(each.bits, _error(each.score.accuracy, each.score.n)), "diamond", 10, "after",
                tip=f"trained with {each.bits} bits: {percent(each.score.accuracy)}",
            )  # fmt: skip
        return picture


def qat(model: Any, digits: Digits, training_digits: int = 10_000, epochs: int = 1) -> Qat:
    """Show accuracy against bits, rounded after training and trained with rounding.

    Parameters
    ----------
    model
        What `load_model` takes.
    digits
        Accuracies are measured on `test`.
    training_digits
        How many digits a training uses.
    epochs
        How often it sees each of them.
    """
    return Qat(model, digits, training_digits, epochs)


def _error(accuracy: float, n: int) -> float:
    """Give the misread digits in per cent, at least half a digit, since a logarithm has to be taken."""
    return 100 * max(1 - accuracy, 0.5 / n)


def _trace(
    name: str, points: list[tuple[int, float, int]], ink: str, mode: str, symbol: str, size: int
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": mode, "name": name,
        "x": [bits for bits, _, _ in points],
        "y": [_error(accuracy, n) for _, accuracy, n in points],
        "text": [percent(accuracy) for _, accuracy, _ in points],
        "hovertemplate": "%{x} bits: %{text}<extra></extra>",
        "line": {"color": ink, "width": 2},
        "marker": {"color": ink, "symbol": symbol, "size": size, "line": {"width": 2.5 * symbol.endswith("open")}},
    }  # fmt: skip
