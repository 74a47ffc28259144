"""The panel of lesson 10: the rank of a layer under the hand, and what follows: digits, bytes, arithmetic and time.

`measure` makes the file and reads digits with it; it has no widget in it. The panel draws what it gives.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.compression import compress
from compresskit.data import Digits, Split, load_mnist
from compresskit.evaluation import evaluate
from compresskit.factorized import spectrum
from compresskit.litert.runtime import Latency, latency
from compresskit.lowrank import break_even_rank
from compresskit.pruned import float_weights
from compresskit.recipe import Factorize, Recipe
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, classed, list_of, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.zoo import Checkpoint, load_model

RANKS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256)
PREVIEW_DIGITS: Final = 1000
HEIGHT: Final = 430


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    layer
        A dense layer, which becomes two, or a convolution, which becomes a column and a row.
    rank
        Width between the two.
    """

    layer: str
    rank: int

    @property
    def recipe(self) -> Recipe:
        """What is done."""
        return Recipe(Factorize(self.rank, convolutions="spatial", layers=(self.layer,)))


@dataclass(frozen=True)
class Measured:
    """Everything that one setting gives.

    Attributes
    ----------
    size
        Bytes of the `.tflite`.
    weights, macs
        Of the layer after it was cut: weights, and multiply-accumulates for a digit.
    whole_weights, whole_macs
        Of the layer as it was.
    energy
        Part of its squared weights that is kept.
    misread, n
        How many of `n` validation digits the file misreads.
    time
        Of a single digit, if it was measured.
    """

    size: int
    weights: int
    macs: int
    whole_weights: int
    whole_macs: int
    energy: float
    misread: int
    n: int
    time: Latency | None = None


def matrix_shape(weights: NDArray[Any]) -> tuple[int, int]:
    """Shape of the matrix that is cut: that of a dense layer, or columns by rows of a convolution's window."""
    if weights.ndim == 2:
        return weights.shape[0], weights.shape[1]
    out, height, width, into = weights.shape
    return height * into, width * out


def measure(checkpoint: Checkpoint, setting: Setting, digits: Split, *, timed: bool = False) -> Measured:
    """Cut a layer, and see what the file reads and what it takes.

    Parameters
    ----------
    checkpoint
        The float model.
    setting
        Layer and rank.
    digits
        Digits to read.
    timed
        Also time single digits.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If there is no such layer, or the rank is out of its range.
    """
    small = compress(checkpoint, setting.recipe)
    before = next(layer for layer in checkpoint.layers if layer.name == setting.layer)
    names = {layer.name for layer in checkpoint.layers}
    new = [layer for layer in small.layers if layer.name not in names]
    squares = np.square(spectrum(checkpoint.tflite, setting.layer))
    score = evaluate(small, digits)
    time = latency(small.tflite, np.asarray(digits.images[:1]), runs=100) if timed else None
    return Measured(
        small.size, sum(math.prod(layer.shape) for layer in new), sum(layer.macs for layer in new),
        math.prod(before.shape), before.macs, float(squares[: setting.rank].sum() / max(squares.sum(), 1e-30)),
        score.errors, score.n, time,
    )  # fmt: skip


class ChooseRank(StatusPanel):
    """The panel; `choose_rank` makes it.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default.
    """

    def __init__(self, model: Any = "digit_reader", data: Digits | None = None) -> None:
        super().__init__()
        self.checkpoint = load_model(model)
        digits = load_mnist() if data is None else data
        self.validation = digits.validation
        self.weights = float_weights(self.checkpoint.tflite)
        self.tried: dict[Setting, tuple[int, float, bool]] = {}
        self.result: Measured | None = None
        self._misread_float = functools.lru_cache(maxsize=4)(
            lambda n: evaluate(self.checkpoint, self.validation.take(n)).errors
        )
        self._time_float = functools.lru_cache(maxsize=1)(
            lambda: latency(self.checkpoint.tflite, np.asarray(self.validation.images[:1]), runs=100)
        )
        self._build()
        live: Live[Setting, Measured] = Live(
            self._preview, self._exact, self._on_result, self._on_error, lock=self.lock, cache_entries=128
        )
        self._live = live
        self._lives.append(live)
        live.submit(self.setting)

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        return Setting(str(self.layer.value), int(self.rank.value))

    # -- what is computed ----------------------------------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Measured:
        return measure(self.checkpoint, setting, self.validation.take(PREVIEW_DIGITS))

    def _exact(self, setting: Setting, stop: Stop) -> Measured:
        return measure(self.checkpoint, setting, self.validation, timed=True)

    # -- what is shown -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        able = [each.name for each in self.checkpoint.layers if each.op in ("FULLY_CONNECTED", "CONV_2D")]
        largest = max(able, key=lambda name: self.weights[name].size)
        self.layer = list_of("Layer", [(name, name) for name in able], largest, "ck-layer")
        self.rank, self._offering = slider_of("Rank", [("1", 1)], 1, "ck-rank"), False
        self._offer_ranks(largest)
        self.status = Status()
        self.table = ipywidgets.HTML()
        self.chart = Chart(
            figure([], {"height": HEIGHT, "showlegend": False}), height=HEIGHT, lock=self.lock,
            label="Singular values of the layer with the rank; digits misread against bytes of the file",
        )  # fmt: skip
        self._watch(self.layer, self._on_layer)
        self._watch(self.rank, self._on_rank)
        plots = classed(ipywidgets.VBox([self.status, self.chart]), "ck-grow", "ck-stack")
        controls = classed(ipywidgets.VBox([self.layer, self.rank, self.table]), "ck-controls")
        row = classed(ipywidgets.HBox([controls, plots]), "ck-row")
        self._frame([row], {".ck-layer": "Layer", ".ck-rank": "Rank"})

    def _offer_ranks(self, name: str) -> None:
        """Let the slider go from 1 to the full rank of a layer, over the break-even rank."""
        m, n = matrix_shape(self.weights[name])
        edge = break_even_rank(m, n)
        offered = sorted({rank for rank in RANKS if rank < min(m, n)} | {min(m, n)} | ({edge} if edge else set()))
        start = min(offered, key=lambda rank: abs(math.log(rank / max(1, edge / 6))))
        self._offering = True  # new options put the slider at the first of them, which nobody asked for
        try:
            self.rank.options = [(str(rank), rank) for rank in offered]
            self.rank.value = start
        finally:
            self._offering = False

    def _on_layer(self, _change: Any) -> None:
        self._offer_ranks(str(self.layer.value))
        self._live.submit(self.setting)

    def _on_rank(self, _change: Any) -> None:
        if not self._offering:
            self._live.submit(self.setting)

    def _on_result(self, outcome: Outcome[Setting, Measured]) -> None:
        setting, measured = outcome.setting, outcome.value
        known = self.tried.get(setting)
        if outcome.exact or known is None or not known[2]:
            self.tried[setting] = (measured.size, 100 * measured.misread / measured.n, outcome.exact)
        if outcome.outdated and setting.layer != self.layer.value:
            return
        self.result = measured
        self.status.say("exact" if outcome.exact else "preview", *self._words(setting, measured))
        shape = matrix_shape(self.weights[setting.layer])
        self.table.value = table(measured, setting, shape, self._time_float() if measured.time else None)
        level = 100 * self._misread_float(measured.n) / measured.n
        values = spectrum(self.checkpoint.tflite, setting.layer)
        edge = break_even_rank(*shape)
        self.chart.show(drawing(setting, measured, values, edge, self.tried, level, self.checkpoint.size))

    def _words(self, setting: Setting, measured: Measured) -> tuple[str, str]:
        return words(setting, measured, self._misread_float(measured.n), self.checkpoint.size)

    # -- without a kernel ----------------------------------------------------------------------------------------

    def _summary(self) -> str:
        where = self.setting
        return f"Low rank of {self.checkpoint.name}: {where.layer} with rank {where.rank}"

    def _picture(self) -> Picture:
        if self.result is None:
            picture = Picture(780, 280, self._summary())
            picture.text(10, 30, "Run the cell to choose a rank.", size=14)
            return picture
        told = self._words(self.setting, self.result)
        picture = Picture(780, 280, f"{self._summary()}. {'. '.join(told)}")
        return still(picture, told, self.setting, self.result, spectrum(self.checkpoint.tflite, self.setting.layer))


def choose_rank(model: Any = "digit_reader", data: Digits | None = None) -> ChooseRank:
    """Show the singular values of a layer, and what becomes of the file with fewer of them.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default. Files are scored on validation digits.

    Returns
    -------
    ChooseRank
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return ChooseRank(model, data)


def words(setting: Setting, measured: Measured, misread_float: int, whole: int) -> tuple[str, str]:
    """Say what became of the digits and of the layer."""
    times = measured.whole_weights / measured.weights
    change = f"{times:.1f} times fewer" if times >= 1 else f"{1 / times:.2f} times as many"
    return (
        f"{measured.size:,} bytes; misreads {measured.misread:,} of {measured.n:,} digits",
        f"The float model: {whole:,} bytes, {misread_float:,}. {setting.layer} at rank {setting.rank} has {change} "
        f"weights and keeps {measured.energy:.1%} of its squared weights",
    )


def table(measured: Measured, setting: Setting, shape: tuple[int, int], whole: Latency | None) -> str:
    """Set the layer before and after side by side."""
    rows = [
        ("weights", f"{measured.whole_weights:,}", f"{measured.weights:,}"),
        ("multiply-adds", f"{measured.whole_macs:,}", f"{measured.macs:,}"),
        (
            "ms a digit",
            "" if whole is None else f"{1000 * whole.median:.3f}",
            "" if measured.time is None else f"{1000 * measured.time.median:.3f}",
        ),
    ]
    body = "".join(
        f'<tr><td>{name}</td><td class="ck-number">{one}</td><td class="ck-number">{other}</td></tr>'
        for name, one, other in rows
    )
    edge = break_even_rank(*shape)
    return (
        f'<table class="ck-table"><thead><tr><th scope="col">{setting.layer}</th><th scope="col" class="ck-number">'
        f'whole</th><th scope="col" class="ck-number">rank {setting.rank}</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
        f'<div class="ck-note">A matrix of {shape[0]:,} x {shape[1]:,}: fewer weights up to rank {edge}. '
        "The time is that of the whole file.</div>"
    )


def drawing(
    setting: Setting,
    measured: Measured,
    values: NDArray[np.float64],
    edge: int,
    tried: Mapping[Setting, tuple[int, float, bool]],
    level: float,
    whole: int,
) -> dict[str, Any]:
    """Draw the singular values, the rank, and all files made so far, as plotly's JSON."""
    ranks = np.arange(1, len(values) + 1)
    kept, lost = ranks <= setting.rank, ranks > setting.rank
    here = tried.get(setting, (measured.size, level, True))
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": ranks[part].tolist(), "y": values[part].tolist(), "name": name, "width": 0.9,
         "marker": {"color": ink, "opacity": opacity}, "hovertemplate": f"%{{x}}: %{{y:.3g}}, {name}<extra></extra>"}
        for part, name, ink, opacity in ((kept, "kept", AFTER, 1.0), (lost, "left out", BEFORE, 0.45))
    ]  # fmt: skip
    for exact in (True, False):
        points = [(size, max(share, 0.01), each) for each, (size, share, whole_) in tried.items() if whole_ == exact]
        data.append(
            {"type": "scatter", "mode": "markers", "x": [size for size, _, _ in points],
             "y": [share for _, share, _ in points], "xaxis": "x2", "yaxis": "y2",
             "text": [f"{each.layer}, rank {each.rank}" for _, _, each in points],
             "name": "file" if exact else "preview",
             "hovertemplate": "%{text}<br>%{x:,} bytes, misread %{y:.2f} %<extra></extra>",
             "marker": {"symbol": "circle" if exact else "circle-open", "size": 9, "color": AFTER}}
        )  # fmt: skip
    data += [
        {"type": "scatter", "mode": "markers", "x": [whole], "y": [max(level, 0.01)], "xaxis": "x2", "yaxis": "y2",
         "name": "float model", "hovertemplate": "whole: %{x:,} bytes, misread %{y:.2f} %<extra></extra>",
         "marker": {"symbol": "star", "size": 13, "color": BEFORE}},
        {"type": "scatter", "mode": "markers", "x": [here[0]], "y": [max(here[1], 0.01)], "xaxis": "x2", "yaxis": "y2",
         "hoverinfo": "skip", "name": "yours",
         "marker": {"symbol": "circle-open", "size": 16, "color": CURRENT, "line": {"width": 3}}, "cliponaxis": False},
    ]  # fmt: skip
    shapes, notes = [], []
    if 0 < edge < len(values):
        shapes.append({"type": "line", "xref": "x", "yref": "y domain", "x0": edge + 0.5, "x1": edge + 0.5, "y0": 0,
                       "y1": 1, "line": {"dash": "dot", "width": 2, "color": CURRENT}})  # fmt: skip
        notes.append({"text": f"break-even: {edge}", "xref": "x", "yref": "y domain", "x": edge, "y": 1,
                      "xanchor": "right", "yanchor": "top", "showarrow": False, "font": {"size": 12}})  # fmt: skip
    smallest = math.log10(min(0.1 * whole, *(size for size, _, _ in tried.values()), measured.size)) - 0.05
    layout = {
        "height": HEIGHT, "bargap": 0, "barmode": "overlay", "margin": {"t": 14, "l": 62}, "showlegend": False,
        "shapes": shapes, "annotations": notes,
        "xaxis": {"domain": [0, 0.5], "range": [0, len(values) + 1],
                  "title": {"text": f"singular values of {setting.layer}"}},
        "yaxis": {"rangemode": "tozero", "title": {"text": "value"}},
        "xaxis2": {"domain": [0.62, 1], "type": "log", "range": [smallest, math.log10(1.6 * whole)], "anchor": "y2",
                   "gridcolor": "#e0e0e0", "zeroline": False, "tickangle": 0,
                   "tickvals": [1e4, 3e4, 1e5, 3e5, 1e6], "ticktext": ["10", "30", "100", "300", "1,000"],
                   "title": {"text": "file, kB", "standoff": 10, "font": {"size": 12}}},
        "yaxis2": {"type": "log", "range": [-0.75, 2.05], "anchor": "x2", "gridcolor": "#e0e0e0", "zeroline": False,
                   "tickvals": [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100],
                   "title": {"text": "misread, %", "font": {"size": 12}}},
    }  # fmt: skip
    return figure(data, layout)


def still(
    picture: Picture, told: tuple[str, str], setting: Setting, measured: Measured, values: NDArray[np.float64]
) -> Picture:
    """Draw what a reader without a kernel sees: the singular values, and the layer before and after."""
    picture.text(0, 14, told[0], size=13, bold=True)
    picture.text(0, 32, told[1], size=12, ink="muted")
    left, wide, top, bottom = 10.0, 430.0, 50.0, 240.0
    step = wide / len(values)
    for place, value in enumerate(values.tolist()):
        tall = (bottom - top) * value / max(float(values[0]), 1e-12)
        kept = place < setting.rank
        picture.rectangle(
            left + step * place,
            bottom - tall,
            step,
            tall,
            fill="after" if kept else "before",
            opacity=1.0 if kept else 0.45,
        )
    picture.line([(left, bottom), (left + wide, bottom)], stroke="line")
    picture.text(left + wide / 2, bottom + 18, f"singular values of {setting.layer}; the first {setting.rank} are kept",
                 anchor="middle")  # fmt: skip
    for column, head in ((640, "whole"), (740, f"rank {setting.rank}")):
        picture.text(column, 70, head, size=11, ink="muted", anchor="end")
    rows = (
        ("weights", measured.whole_weights, measured.weights),
        ("multiply-adds", measured.whole_macs, measured.macs),
    )
    for row, (name, before, after) in enumerate(rows):
        picture.text(470, 96 + 26 * row, name)
        picture.text(640, 96 + 26 * row, f"{before:,}", anchor="end")
        picture.text(740, 96 + 26 * row, f"{after:,}", anchor="end")
    return picture
