"""Watch a network train: loss and misread digits as they fall, the time that is left, and a button that cancels.

    with watch(epochs=4) as training:
        fit(model, digits, epochs=4, on_progress=training.update, cancel=training.cancel)

The cell runs until training ends, so that the cells below find a trained network. The button works all the same:
JupyterLab handles it on a thread of its own while the cell is busy.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import ipywidgets

from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import sentence
from compresskit.widgets.panel import Panel, Status, button_of, classed, markup
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE

HEIGHT = 300
_MOST_POINTS = 400  # on a curve; when there are more, every second one goes and the next come half as often
_FLOOR = 1e-4  # where an error of 0 is drawn on a logarithmic axis


class Progress(Protocol):
    """Where a run stands; `compresskit.training.fit.Progress` is one. Accuracies are fractions, times are seconds."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Point:
    """A point of both curves: how many epochs in, the mean loss, the fraction of digits misread."""

    epoch: float
    loss: float
    error: float


class Training(Panel):
    """The panel of one run.

    Parameters
    ----------
    epochs
        How many there will be; the plots are that wide from the start.
    target
        Accuracy to reach, drawn as a line; a fraction.
    """

    def __init__(self, epochs: int, target: float | None = None) -> None:
        super().__init__()
        self.epochs, self.target = epochs, target
        self.cancel = threading.Event()
        self.points: list[Point] = []
        self.validation: list[Point] = []
        self._spacing = 1e-9  # epochs between two points: more than nothing, so that none is drawn twice
        self._chart = Chart(
            self._figure(), height=HEIGHT, label="Training: loss, and digits misread, by epoch", lock=self.lock
        )
        self._bar = markup()
        self._status = classed(Status(), "ck-grow")
        self._button = button_of("Cancel", "ck-cancel")
        self._button.tooltip = "End the training after the present step"
        self._button.on_click(self._on_cancel)
        self._tell("busy", "Training begins", "The first step takes a moment.", 0.0)
        head = classed(ipywidgets.HBox([self._status, self._button]), "ck-row")
        head.layout.align_items = "center"
        self._frame([head, self._bar, self._chart], {})

    def update(self, progress: Progress) -> None:
        """Draw where a run stands; give it to the run as ``on_progress``."""
        done = progress.epoch - 1 + progress.step / progress.steps
        if not self.points or done >= self.points[-1].epoch + self._spacing:
            self.points.append(Point(done, progress.loss, 1 - progress.accuracy))
        if len(self.points) > _MOST_POINTS:
            self._spacing = 2 * done / len(self.points)
            self.points = self.points[::2]
        finished = progress.epoch if progress.step == progress.steps else progress.epoch - 1
        if progress.validation_accuracy is not None and len(self.validation) < finished:
            loss = progress.validation_loss if progress.validation_loss is not None else progress.loss
            self.validation.append(Point(finished, loss, 1 - progress.validation_accuracy))
        self._chart.show(self._figure())
        read = f"validation digits read right: {1 - self.validation[-1].error:.2%}" if self.validation else ""
        stopping = "cancelling" if self.cancel.is_set() else f"about {progress.seconds_left:.0f} s left"
        self._tell(
            "busy",
            f"Epoch {progress.epoch} of {self.epochs}",
            f"{progress.seconds:.0f} s, {stopping} · loss {progress.loss:.3f}{' · ' if read else ''}{read}",
            done / self.epochs,
        )

    def finish(self, error: BaseException | None = None) -> None:
        """Say how it ended; no button is left."""
        self._button.disabled = True
        done = self.points[-1].epoch if self.points else 0.0
        read = f"Validation digits read right: {1 - self.validation[-1].error:.2%}." if self.validation else ""
        if error is not None:
            text = sentence(error) if isinstance(error, Exception) else "The cell was interrupted."
            self._tell("error", "Training failed.", text, done / self.epochs)
        elif self.cancel.is_set() and done < self.epochs:
            self._button.description = "Cancelled"
            self._tell("preview", "Cancelled", f"After {done:.1f} of {self.epochs} epochs. {read}", done / self.epochs)
        else:
            self._tell("exact", "Trained", read, 1.0)

    def _summary(self) -> str:
        words = f"{len(self.validation)} of {self.epochs} epochs trained"
        if self.validation:
            words += f", {1 - self.validation[-1].error:.2%} of the validation digits read right"
        return words

    def _picture(self) -> Picture:
        words = self._summary()
        picture = Picture(760, 260, f"Training curves: {words}")
        picture.text(0, 14, words, size=13, bold=True)
        picture.text(750, 14, "line: training · diamonds: validation", size=12, anchor="end", ink="muted")
        for left, title, pick in ((60, "loss", _loss), (450, "digits misread (%)", _percent)):
            drawn = [(point.epoch, pick(point)) for point in self.points]
            checked = [(point.epoch, pick(point)) for point in self.validation]
            _draw_plot(picture, left, title, drawn, checked, self.epochs)
        return picture

    def _figure(self) -> dict[str, Any]:
        """Write both plots in plotly's JSON: the loss on the left, misread digits on the right, logarithmic."""
        traces = [
            _trace(points, name, axis, pick)
            for axis, pick in (("", _loss), ("2", _percent))
            for name, points in (("training, last 50 batches", self.points), ("validation", self.validation))
        ]
        small = {"standoff": 10, "font": {"size": 12}}
        across = {
            "range": [0, 1.03 * self.epochs],  # the last diamond whole
            "title": {"text": "epochs", **small},
            "gridcolor": "#e0e0e0",
            "zeroline": False,
        }
        upward = {"type": "log", "gridcolor": "#e0e0e0", "zeroline": False, "dtick": 1}
        layout: dict[str, Any] = {
            "height": HEIGHT,
            "xaxis": {**across, "domain": [0, 0.44]},
            "xaxis2": {**across, "domain": [0.56, 1], "anchor": "y2"},
            "yaxis": {**upward, "title": {"text": "loss", **small}, "range": [-2.1, 0.5]},
            "yaxis2": {**upward, "title": {"text": "digits misread (%)", **small}, "range": [-0.5, 2], "anchor": "x2"},
        }
        if self.target is not None:
            layout["shapes"] = [
                {"type": "line", "xref": "x2", "yref": "y2", "x0": 0, "x1": self.epochs,
                 "y0": 100 * (1 - self.target), "y1": 100 * (1 - self.target),
                 "line": {"dash": "dot", "width": 1.5, "color": "#808080"}}
            ]  # fmt: skip
            layout["annotations"] = [
                {"xref": "x2", "yref": "y2", "x": self.epochs, "y": math.log10(100 * (1 - self.target)),
                 "text": f"target: {self.target:.0%} right", "showarrow": False, "xanchor": "right", "yanchor": "top"}
            ]  # fmt: skip
        return figure(traces, layout)

    def _tell(self, kind: str, title: str, small: str, done: float) -> None:
        self._status.say(kind, title, small)
        self._bar.value = (
            f"<progress max='1' value='{done:.3f}' aria-label='Progress of the training' "
            "style='width:100%;height:8px;accent-color:var(--ck-after)'></progress>"
        )

    def _on_cancel(self, _button: object) -> None:
        self.cancel.set()
        self._button.disabled = True
        self._button.description = "Cancelling"


def _loss(point: Point) -> float:
    return max(point.loss, _FLOOR)


def _percent(point: Point) -> float:
    """Give the digits misread, in percent, as a logarithmic axis can show them."""
    return 100 * max(point.error, _FLOOR)


def _trace(points: Sequence[Point], name: str, axis: str, pick: Callable[[Point], float]) -> dict[str, Any]:
    """Write one curve: a line for training, hollow diamonds for validation."""
    line = name != "validation"
    return {
        "type": "scatter",
        "mode": "lines" if line else "markers",
        "x": [point.epoch for point in points],
        "y": [pick(point) for point in points],
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "name": name,
        "legendgroup": name,
        "showlegend": axis == "",
        "line": {"width": 2, "color": AFTER},
        "marker": {"size": 11, "symbol": "diamond-open", "color": BEFORE, "line": {"width": 2.5}},
        "hovertemplate": "epoch %{x:.2f}: %{y:.3g}<extra></extra>",
    }


@contextmanager
def watch(epochs: int, target: float | None = None) -> Iterator[Training]:
    """Show a training run while the body of the ``with`` runs it.

    Parameters
    ----------
    epochs
        As given to the run.
    target
        Accuracy to reach, a fraction; drawn as a line.

    Yields
    ------
    Training
        Its `update` is the run's ``on_progress``, its `cancel` the run's ``cancel``.

    Raises
    ------
    Exception
        Whatever the run raises; the panel says so as well.
    """
    from IPython.display import display

    panel = Training(epochs, target)
    handle = display(panel, display_id=True)
    try:
        yield panel
    except BaseException as error:
        panel.finish(error)
        raise
    else:
        panel.finish()
    finally:
        if handle is not None:
            handle.update(panel)  # now with the curves as a picture, for those who open the saved notebook


def _draw_plot(
    picture: Picture,
    left: float,
    title: str,
    drawn: Sequence[tuple[float, float]],
    checked: Sequence[tuple[float, float]],
    epochs: int,
) -> None:
    """Draw one plot of `Training.picture`: a logarithmic axis upward, epochs across."""
    top, bottom, width = 50, 220, 290
    values = [value for _, value in (*drawn, *checked)] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        epoch, value = point
        share = (math.log10(value) - low) / (high - low)
        return left + width * epoch / epochs, bottom - (bottom - top) * share

    picture.text(left, 38, title, size=12, bold=True)
    for power in range(low, high + 1):
        y = place((0, 10.0**power))[1]
        picture.line([(left, y), (left + width, y)], stroke="grid")
        picture.text(left - 6, y + 4, f"{10.0**power:g}", size=11, anchor="end")
    for epoch in range(epochs + 1):
        picture.text(place((epoch, 1.0))[0], bottom + 16, str(epoch), size=11, anchor="middle")
    picture.text(left + width / 2, bottom + 34, "epochs", size=11, anchor="middle")
    if len(drawn) > 1:
        picture.line([place(point) for point in drawn], stroke="after", width=2)
    for point in checked:
        picture.mark(*place(point), "diamond", 9, "before", tip=f"validation: {point[1]:.3g}")
