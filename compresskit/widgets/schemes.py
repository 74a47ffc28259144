"""The schemes of post-training quantization side by side: each row is a file made, checked, run and timed here.

`measure` makes one row and has no widget in it; the panel asks for one row after the other on its worker thread.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np

from compresskit.compression import compress
from compresskit.data import Digits
from compresskit.evaluation import evaluate
from compresskit.litert.inspect import Layer
from compresskit.litert.runtime import Latency
from compresskit.recipe import Quantize, Recipe
from compresskit.widgets.figures import Chart
from compresskit.widgets.live import Live, Outcome, Stop, sentence
from compresskit.widgets.panel import Panel, Status, button_of, choice_of, classed, list_of, markup
from compresskit.widgets.picture import Picture
from compresskit.widgets.views import Mark, kilobytes, percent, tradeoff_figure
from compresskit.zoo import Checkpoint, load_model, model_names

SLOW_DIGITS: Final = 1000
"""Digits that are read where LiteRT has slow reference kernels only."""

ORDERS: Final = (("as listed", "listed"), ("size", "size"), ("misread", "errors"), ("time", "time"))
_HEIGHT: Final = 330


@dataclass(frozen=True)
class Scheme:
    """A way to quantize a model after training.

    Attributes
    ----------
    name : str
        What the course calls it.
    about : str
        What is stored and computed, in a few words.
    step : Quantize or None
        The recipe's step; None for the float model itself.
    digits : int or None
        How many test digits are read; None for all of them.
    """

    name: str
    about: str
    step: Quantize | None
    digits: int | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe that makes the file."""
        return Recipe(self.step) if self.step else Recipe()


@dataclass(frozen=True)
class Row:
    """What came of a scheme.

    Attributes
    ----------
    scheme : Scheme
        What was done.
    size, deflated : int
        Bytes of the file, and of the file in an archive.
    accuracy : float
        Fraction of the `n` digits that it reads rightly.
    interval : (float, float)
        95 % interval of the accuracy.
    errors, n : int
        Misread digits, and how many were read.
    latency : Latency
        Time of a single digit on this machine, on one thread.
    types : tuple of str
        Type of the stored weights, layer by layer.
    refused : str
        Why there is no such file; empty where there is one, and all numbers are 0 where there is none.
    """

    scheme: Scheme
    size: int
    deflated: int
    accuracy: float
    interval: tuple[float, float]
    errors: int
    n: int
    latency: Latency | None
    types: tuple[str, ...]
    refused: str = ""


def schemes_for(model: Checkpoint) -> tuple[Scheme, ...]:
    """List the schemes, the last ones fitted to the model's own layers.

    Parameters
    ----------
    model
        The float model. Blocks need a dense layer whose inputs can be cut into blocks of 32; the mixed scheme gives the
        largest dense layer 2 bits, the layers between the first and the last 4, and those two 8.

    Returns
    -------
    tuple of Scheme
        Some of them may not exist in LiteRT for this model: `measure` says so.
    """
    found = [
        Scheme("float32", "as trained", None),
        Scheme("float16", "half floats, turned back into floats before use", Quantize(weights=16, activations=32)),
        Scheme("dynamic", "int8 weights; activations rounded while running", Quantize(activations=32)),
        Scheme("int8", "integers throughout, a scale for each channel", Quantize()),
        Scheme("int8, per tensor", "one scale for all weights of a layer", Quantize(granularity="tensor")),
        Scheme("int8, uint8 in and out", "pixels go in as they are", Quantize(io="uint8")),
        Scheme("16x8", "int8 weights, int16 activations", Quantize(activations=16), SLOW_DIGITS),
        Scheme("int4, dynamic", "int4 weights; activations rounded while running", Quantize(weights=4, activations=32)),
        Scheme("int4, int8 activations", "integers throughout", Quantize(weights=4)),
    ]
    layers = model.layers
    blocks = _blocks(layers)
    if blocks:
        found.append(Scheme("int4 blocks", "dense layers: a scale for each 32 weights; the rest int8", blocks))
    mixed = _mixed(layers)
    if mixed:
        found.append(Scheme("mixed", "8, 4 and 2 bits, by layer; activations rounded while running", mixed))
    return tuple(found)


def _blocks(layers: Sequence[Layer]) -> Quantize | None:
    """Put every dense layer that can be cut into blocks of 32 into int4 blocks."""
    fitting = [layer.name for layer in layers if layer.op == "FULLY_CONNECTED" and layer.shape[-1] % 32 == 0]
    settings = {name: {"weights": 4, "granularity": "block32"} for name in fitting}
    return Quantize(activations=32, layers=settings) if settings else None


def _mixed(layers: Sequence[Layer]) -> Quantize | None:
    """Give the largest dense layer 2 bits, the rest between the ends 4."""
    inner = layers[1:-1]
    dense = [layer for layer in inner if layer.op == "FULLY_CONNECTED"]
    if not dense:
        return None
    largest = max(dense, key=lambda layer: layer.parameters).name
    settings = {layer.name: {"weights": 2 if layer.name == largest else 4, "ranges": "octav"} for layer in inner}
    return Quantize(activations=32, layers=settings)


def measure(model: Checkpoint, scheme: Scheme, digits: Digits) -> Row:
    """Make the file of a scheme, read the test digits with it, and time it.

    Parameters
    ----------
    model
        The float model.
    scheme
        What to do.
    digits
        Ranges are measured on the first training digits, accuracy on the test digits.

    Returns
    -------
    Row
        With `refused` set where LiteRT has no such file for this model.
    """
    try:
        small = compress(model, scheme.recipe, digits.train)
    except ValueError as error:
        return Row(scheme, 0, 0, 0.0, (0.0, 0.0), 0, 0, None, (), sentence(error))
    some = digits.test if scheme.digits is None else digits.test.take(scheme.digits)
    score = evaluate(small, some, latency=True)
    types = tuple(layer.dtype for layer in small.layers)
    counts = (score.accuracy, score.interval, score.errors, score.n)
    return Row(scheme, small.size, small.deflated_size, *counts, score.latency, types)


class Schemes(Panel):
    """The panel: a table that fills row by row, and the same rows as points of size against accuracy.

    Parameters
    ----------
    model
        What `load_model` takes.
    digits
        Where ranges and accuracies are measured.

    Attributes
    ----------
    rows : dict of str to Row
        What was measured of the model shown, by scheme name.
    """

    def __init__(self, model: Any, digits: Digits) -> None:
        super().__init__()
        self.model = load_model(model)
        self.digits = digits
        self.rows: dict[str, Row] = {}
        self._schemes = schemes_for(self.model)
        names = dict.fromkeys((self.model.name, *model_names()))
        self._models = list_of("Model", [(name, name) for name in names], self.model.name, "ck-model")
        self._order = choice_of("Order of the rows", ORDERS, "listed", "ck-order")
        self._again = button_of("Time again", "ck-again")
        self._given = self.model
        self._status = Status()
        self._table = classed(markup(), "ck-scroll")
        self._chart = Chart(
            tradeoff_figure(None, [], None, "size of the file"),
            height=_HEIGHT,
            lock=self.lock,
            label="Plot of size against accuracy; the table holds the same numbers",
        )
        self._watch(self._models, self._on_model)
        self._watch(self._order, self._on_order)
        self._again.on_click(lambda _: self.measure_again())
        controls = classed(ipywidgets.VBox([self._models, self._order, self._again]), "ck-controls")
        plot = classed(ipywidgets.VBox([self._status, self._chart]), "ck-grow", "ck-stack")
        self._frame(
            [classed(ipywidgets.HBox([controls, plot]), "ck-row"), self._table],
            {".ck-model": "Model", ".ck-order": "Order of the rows"},
        )
        live: Live[tuple[Checkpoint, Scheme], Row] = Live(
            None, self._compute, self._on_result, self._on_error, on_start=self._on_start, lock=self.lock,
            cache_entries=0,
        )  # fmt: skip
        self._live = live
        self._lives.append(live)
        self._draw()
        self._next()

    # -- what is computed, on the worker thread ----------------------------------------------------------------

    def _compute(self, setting: tuple[Checkpoint, Scheme], _stop: Stop) -> Row:
        return measure(*setting, self.digits)

    def _next(self) -> None:
        """Ask for the first row that is missing."""
        for scheme in self._schemes:
            if scheme.name not in self.rows:
                self._live.submit((self.model, scheme))
                return

    # -- what the hand does ------------------------------------------------------------------------------------

    def measure_again(self) -> None:
        """Forget all rows of this model and measure them again: times differ from run to run."""
        with self.lock:
            self.rows.clear()
            self._draw()
            self._next()

    def _on_model(self, change: Any) -> None:
        with self.lock:
            self.model = self._given if change["new"] == self._given.name else load_model(change["new"])
            self._schemes = schemes_for(self.model)
            self.measure_again()

    def _on_order(self, _change: Any) -> None:
        with self.lock:
            self._draw()

    # -- what comes back, on the worker thread, the lock held ----------------------------------------------------

    def _on_start(self, setting: tuple[Checkpoint, Scheme], _exact: bool) -> None:
        self._status.say("busy", f"{len(self.rows)} of {len(self._schemes)} rows", f"Now: {setting[1].name}")

    def _on_error(self, setting: tuple[Checkpoint, Scheme], message: str) -> None:
        self._status.say("error", "", f"{setting[1].name}: {message}")

    def _say_error(self, error: Exception) -> None:
        self._status.say("error", "", sentence(error))

    def _on_result(self, outcome: Outcome[tuple[Checkpoint, Scheme], Row]) -> None:
        model, scheme = outcome.setting
        if model is not self.model:
            return  # another model was chosen while this row was computed
        self.rows[scheme.name] = outcome.value
        self._draw()
        self._next()

    # -- what is shown -------------------------------------------------------------------------------------------

    def in_order(self) -> list[Row]:
        """Give the rows measured so far, sorted as the control says; those without a file come last."""
        rows = [self.rows[scheme.name] for scheme in self._schemes if scheme.name in self.rows]
        keys: dict[str, Callable[[Row], float]] = {
            "listed": lambda row: 0.0,
            "size": lambda row: row.size,
            "errors": lambda row: row.errors / max(1, row.n),
            "time": lambda row: row.latency.median if row.latency else 0.0,
        }
        return sorted(rows, key=lambda row: (bool(row.refused), keys[self._order.value](row)))

    def _draw(self) -> None:
        rows = self.in_order()
        waiting = [scheme for scheme in self._schemes if scheme.name not in self.rows]
        self._table.value = table(rows, waiting)
        marks = [_mark(row) for row in rows if not row.refused and row.scheme.step]
        star = next((_mark(row) for row in rows if not row.scheme.step), None)
        self._chart.show(tradeoff_figure(star, marks, None, "size of the file"))
        if not waiting:
            self._status.say("exact", *self._words())

    def _words(self) -> tuple[str, str]:
        made = [row for row in self.rows.values() if not row.refused]
        smallest = min(made, key=lambda row: row.size)
        fastest = min(made, key=lambda row: row.latency.median if row.latency else np.inf)
        refused = len(self.rows) - len(made)
        told = f"; {refused} schemes do not exist for it" if refused else ""
        return (
            f"{self.model.name}: {len(made)} files measured{told}",
            f"Smallest: {smallest.scheme.name}, {kilobytes(smallest.size)}. Fastest on this machine: "
            f"{fastest.scheme.name}. {self.digits.notice}".strip(),
        )

    def _summary(self) -> str:
        """Say what is shown; nothing that depends on how far the measuring has come, since notebooks keep it."""
        return f"Schemes of quantization: {self.model.name}"

    def _picture(self) -> Picture:
        height = 26.0
        made = Picture(820, 76 + height * len(self._schemes), self._summary())
        made.text(16, 28, f"Schemes of quantization: {self.model.name}", size=16, bold=True)
        for x, head in ((430, "file, bytes"), (560, "deflated"), (670, "misread"), (790, "read")):
            made.text(x, 52, head, size=11, anchor="end", ink="muted")
        largest = max((row.size for row in self.rows.values()), default=1)
        for place, scheme in enumerate(self._schemes):
            y, row = 74 + height * place, self.rows.get(scheme.name)
            made.text(16, y, scheme.name, size=12)
            if row is None or row.refused:
                made.text(430, y, "does not exist for this model" if row else "not measured yet", size=11,
                          anchor="end", ink="muted")  # fmt: skip
                continue
            made.rectangle(180, y - 10, max(2.0, 150 * row.size / largest), 11, fill="after")
            for x, text in ((430, row.size), (560, row.deflated), (670, row.errors), (790, row.n)):
                made.text(x, y, f"{text:,}", size=12, anchor="end")
        return made


def schemes(model: Any, digits: Digits) -> Schemes:
    """Show the table of schemes for a model, made live.

    Parameters
    ----------
    model
        What `load_model` takes.
    digits
        Where ranges and accuracies are measured.
    """
    return Schemes(model, digits)


def _mark(row: Row) -> Mark:
    return Mark(row.size, row.accuracy, *row.interval, row.n, row.scheme.digits is None, row.scheme.name)


def table(rows: Sequence[Row], waiting: Sequence[Scheme] = ()) -> str:
    """Write rows as an HTML table; bars beside the sizes, reasons where there is no file.

    Parameters
    ----------
    rows
        What was measured, in the order to be shown.
    waiting
        Schemes that are still to be measured; a row of dots each, so that the height does not jump.

    Returns
    -------
    str
        HTML.
    """
    largest = max((row.size for row in rows), default=1)
    columns = ("scheme", "weights stored as", "file", "", "deflated", "read right", "misread", "one digit")
    numbers = (2, 4, 5, 6, 7)
    widths = ("21%", "17%", "9.5%", "12%", "10%", "10%", "11.5%", "9%")
    head = "".join(
        f'<th scope="col"{" class=ck-number" if place in numbers else ""}>{name}</th>'
        for place, name in enumerate(columns)
    )
    body = "".join(_table_row(row, largest) for row in rows)
    body += "".join(
        f'<tr><td><b>{html.escape(scheme.name)}</b></td><td colspan="7" class="ck-note">not measured yet</td></tr>'
        for scheme in waiting
    )
    sizes = "".join(f'<col style="width:{width}">' for width in widths)
    return (
        f'<table class="ck-table ck-schemes" style="min-width:780px"><colgroup>{sizes}</colgroup>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _table_row(row: Row, largest: int) -> str:
    name = f'<td title="{html.escape(row.scheme.about)}"><b>{html.escape(row.scheme.name)}</b></td>'
    if row.refused:
        reason = html.escape(row.refused)
        cell = f'<td colspan="7" class="ck-note" style="white-space: normal">not in LiteRT: {reason}</td>'
        return f"<tr>{name}{cell}</tr>"
    bar = f'<span class="ck-bar ck-after" style="width:{max(1.0, 100 * row.size / largest):.1f}%"></span>'
    kind = "ck-before" if row.scheme.step is None else "ck-after"
    bar = bar.replace("ck-after", kind)
    of = f" of {row.n:,}" if row.scheme.digits else ""
    time = f"{row.latency.median * 1e6:,.0f} µs" if row.latency else ""
    cells = (f"{row.size:,}", bar, f"{row.deflated:,}", percent(row.accuracy), f"{row.errors:,}{of}", time)
    numbers = "".join(f"<td{'' if place == 1 else ' class=ck-number'}>{cell}</td>" for place, cell in enumerate(cells))
    return f"<tr>{name}<td>{html.escape(_types(row.types))}</td>{numbers}</tr>"


def _types(types: Sequence[str]) -> str:
    """Write the types of all layers: one word where they agree."""
    if len(set(types)) == 1:
        return types[0]
    runs: list[list[Any]] = []
    for kind in types:
        if runs and runs[-1][0] == kind:
            runs[-1][1] += 1
        else:
            runs.append([kind, 1])
    return ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in runs)
