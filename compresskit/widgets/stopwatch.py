"""A stopwatch for files: the time of a single digit, one thread and two, each file by turns, with the spread.

`time_files` measures and has no widget in it; the panel draws what it gives, and measures again at a button.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.data import load_mnist
from compresskit.litert.inspect import layers
from compresskit.litert.runtime import Latency
from compresskit.litert.turns import latencies
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import AbandonedError, Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, button_of, classed, markup
from compresskit.widgets.picture import Picture, Shape
from compresskit.widgets.style import AFTER, BEFORE

THREADS: Final = (1, 2)
ROUNDS: Final = 40
RUNS: Final = 10
_MARKS: Final[dict[int, tuple[str, str, Shape]]] = {1: (AFTER, "circle", "disc"), 2: (BEFORE, "diamond", "diamond")}


class File(Protocol):
    """Anything that holds a `.tflite`: a checkpoint, or a compressed model."""

    @property
    def tflite(self) -> bytes:
        """The bytes of the file."""


@dataclass(frozen=True)
class Timed:
    """What the stopwatch says.

    Attributes
    ----------
    times : dict of (str, int) to Latency
        By name of the file and number of threads.
    macs : dict of str to int
        Multiply-accumulates for one digit.
    """

    times: Mapping[tuple[str, int], Latency]
    macs: Mapping[str, int]

    def ratio(self, name: str, first: str, threads: int) -> float:
        """Give a file's median time as a part of the first file's."""
        return self.times[name, threads].median / self.times[first, threads].median


def time_files(
    files: Mapping[str, File],
    image: NDArray[Any],
    *,
    threads: Sequence[int] = THREADS,
    rounds: int = ROUNDS,
    stop: Stop | None = None,
) -> Timed:
    """Time single digits, each file by turns, for each number of threads.

    Parameters
    ----------
    files
        Name to model.
    image : ndarray, shape (1, ...)
        The digit.
    threads
        Numbers of threads that LiteRT is given.
    rounds
        How often it is each file's turn, of ten runs.
    stop
        Asked between rounds whether to give up.

    Returns
    -------
    Timed

    Raises
    ------
    ValueError
        If there is no file, or the digit does not fit one.
    AbandonedError
        If `stop` said so.
    """
    if not files:
        raise ValueError("files is empty: there is nothing to time; give at least one model with a name")
    tflites = {name: file.tflite for name, file in files.items()}
    times = {}
    for count in threads:
        found = latencies(tflites, image, threads=count, rounds=rounds, runs=RUNS, stop=stop)
        if stop is not None and stop():
            raise AbandonedError
        times.update({(name, count): each for name, each in found.items()})
    return Timed(times, {name: sum(layer.macs for layer in layers(tflite)) for name, tflite in tflites.items()})


class Stopwatch(StatusPanel):
    """The panel; `stopwatch` makes it.

    Parameters
    ----------
    files
        Name to model, the first one the measure of the others.
    image : ndarray, shape (1, ...)
        The digit that is read.

    Attributes
    ----------
    result : Timed or None
        The latest times.
    """

    def __init__(self, files: Mapping[str, File], image: NDArray[Any]) -> None:
        super().__init__()
        if not files:
            raise ValueError("files is empty: there is nothing to time; give at least one model with a name")
        self.files, self.image = dict(files), image
        self.result: Timed | None = None
        self._height = 90 + 38 * len(self.files)
        self.status = Status()
        self.button = button_of("Time again", "ck-again")
        self.button.on_click(lambda _: self.time_again())
        self.chart = Chart(
            figure([], {"height": self._height}), height=self._height, lock=self.lock,
            label="Time of one digit for each file; the table holds the same numbers",
        )  # fmt: skip
        self.table = classed(markup(table(self.files, None)), "ck-scroll")
        buttons = classed(ipywidgets.HBox([self.button]), "ck-buttons")
        self._frame([self.status, self.chart, self.table, buttons], {})
        live: Live[int, Timed] = Live(
            None, self._compute, self._on_result, self._on_error, on_start=self._on_start, lock=self.lock,
            cache_entries=0,
        )  # fmt: skip
        self._live = live
        self._lives.append(live)
        live.submit(0)

    def time_again(self) -> None:
        """Measure all files once more: times differ from run to run."""
        self._live.submit(0)

    def _compute(self, _setting: int, stop: Stop) -> Timed:
        return time_files(self.files, self.image, stop=stop)

    def _on_start(self, _setting: int, _exact: bool) -> None:
        self.status.say("busy", "Timing", f"{len(self.files)} files by turns, with one thread and with two")

    def _on_error(self, _setting: int, message: str) -> None:
        self.status.say("error", "", message)

    def _on_result(self, outcome: Outcome[int, Timed]) -> None:
        self.result = outcome.value
        self.status.say("exact", *words(outcome.value))
        self.chart.show(drawing(outcome.value, self._height))
        self.table.value = table(self.files, outcome.value)

    def _summary(self) -> str:
        return f"Time of one digit: {', '.join(self.files)}"

    def _picture(self) -> Picture:
        picture = Picture(800, 60 + 34 * len(self.files), self._summary())
        if self.result is None:
            picture.text(10, 30, "Run the cell to time these files.", size=14)
            return picture
        return still(picture, self.result)


def stopwatch(files: Mapping[str, File], image: NDArray[Any] | None = None) -> Stopwatch:
    """Time files against each other.

    Parameters
    ----------
    files
        Name to model (anything with a `tflite`), the first one the measure of the others.
    image : ndarray, shape (1, ...), optional
        What is read; the first test digit by default.

    Returns
    -------
    Stopwatch
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return Stopwatch(files, np.asarray(load_mnist().test.images[:1]) if image is None else image)


def _names(timed: Timed) -> list[str]:
    return list(timed.macs)


def words(timed: Timed) -> tuple[str, str]:
    """Say which file is fastest, and what the spread is."""
    names = _names(timed)
    fastest = min(names, key=lambda name: timed.times[name, THREADS[0]].median)
    first = timed.times[names[0], THREADS[0]]
    return (
        f"Fastest on one thread: {fastest}, {timed.ratio(fastest, names[0], THREADS[0]):.2f} of {names[0]}'s time",
        f"Median of {first.runs} runs by turns; the bars hold the middle 80 %. {names[0]}: {_micro(first.median)}, "
        f"from {_micro(first.low)} to {_micro(first.high)}.",
    )


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def table(files: Mapping[str, File], timed: Timed | None) -> str:
    """Set medians, spreads and ratios side by side; dots where nothing was timed yet."""
    heads = ["million MACs"]
    for threads in THREADS:
        heads += [f"{_threads(threads)}, median", "10 % to 90 %", f"of {html.escape(next(iter(files)))}"]
    head = "".join(f'<th scope="col" class="ck-number">{text}</th>' for text in heads)
    rows = []
    for name in files:
        cells = ["…"] * len(heads)
        if timed is not None:
            cells = [f"{timed.macs[name] / 1e6:.2f}"]
            for threads in THREADS:
                found = timed.times[name, threads]
                cells += [_micro(found.median), f"{found.low * 1e6:,.0f} to {found.high * 1e6:,.0f}"]
                cells.append(f"{timed.ratio(name, next(iter(files)), threads):.2f}")
        numbers = "".join(f'<td class="ck-number">{cell}</td>' for cell in cells)
        rows.append(f"<tr><td>{html.escape(name)}</td>{numbers}</tr>")
    return (
        f'<table class="ck-table"><thead><tr><th scope="col" style="width:11em">file</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def drawing(timed: Timed, height: int) -> dict[str, Any]:
    """Draw medians with their spread as plotly's JSON: a trace for each number of threads, a line for each file."""
    names = _names(timed)
    data = []
    for order, threads in enumerate(THREADS):
        found = [timed.times[name, threads] for name in names]
        ink, symbol, _ = _MARKS[threads]
        data.append({
            "type": "scatter", "mode": "markers", "name": _threads(threads), "x": [each.median * 1e6 for each in found],
            "y": [place + 0.16 * (2 * order - 1) for place in range(len(names))], "text": names, "cliponaxis": False,
            "marker": {"symbol": symbol, "size": 11, "color": ink},
            "error_x": {"type": "data", "symmetric": False, "thickness": 2, "width": 4, "color": ink,
                        "array": [(each.high - each.median) * 1e6 for each in found],
                        "arrayminus": [(each.median - each.low) * 1e6 for each in found]},
            "hovertemplate": f"%{{text}}, {_threads(threads)}: %{{x:.0f}} µs<extra></extra>",
        })  # fmt: skip
    layout = {
        "height": height, "margin": {"l": 170, "t": 34, "b": 46},
        "xaxis": {"title": {"text": "one digit, µs"}, "range": [0, 1.08 * _reach(timed)]},
        "yaxis": {"tickvals": list(range(len(names))), "ticktext": names, "range": [len(names) - 0.4, -0.6],
                  "showgrid": False},
    }  # fmt: skip
    return figure(data, layout)


def _reach(timed: Timed) -> float:
    """Say how far the axis of times goes, in microseconds."""
    return max(each.high for each in timed.times.values()) * 1e6


def still(picture: Picture, timed: Timed) -> Picture:
    """Draw what a reader without a kernel sees."""
    left, width, reach = 190.0, 540.0, _reach(timed)
    for place, threads in enumerate(THREADS):
        ink, _, shape = _MARKS[threads]
        picture.mark(left + 8 + 120 * place, 12, shape, 10, ink)
        picture.text(left + 18 + 120 * place, 16, _threads(threads), size=12)
    for line, name in enumerate(_names(timed)):
        y = 44 + 34 * line
        picture.text(left - 12, y + 5, name, anchor="end")
        picture.line([(left, y), (left + width, y)], stroke="grid")
        for order, threads in enumerate(THREADS):
            found, (ink, _, shape) = timed.times[name, threads], _MARKS[threads]
            x, level = (
                [left + width * 1e6 * at / reach for at in (found.low, found.median, found.high)],
                y + 12 * order - 6,
            )
            picture.line([(x[0], level), (x[2], level)], stroke=ink, width=2)
            picture.mark(x[1], level, shape, 9, ink)
            if threads == THREADS[0]:
                picture.text(left + width + 8, y + 5, f"{found.median * 1e3:.3f} ms", size=11)
    note = "one digit; the axis begins at 0, and a bar holds the middle 80 % of the runs"
    picture.text(left, 48 + 34 * len(timed.macs), note, size=11, ink="muted")
    return picture
