"""The panel of lesson 08: a pattern on the real weight matrix, and what the file of it holds, reads and takes.

`look` finds which weights stay, `measure` makes the file and measures it; neither has a widget in it. The panel draws
what they give.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed, compress
from compresskit.data import Digits, load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert.runtime import Latency, latency
from compresskit.litert.sizes import Sizes, file_sizes
from compresskit.litert.surgery import groups
from compresskit.pruned import float_weights, kept_channels, sample_of
from compresskit.pruning.patterns import matrix_view, parse_pattern
from compresskit.recipe import IMPORTANCES, Prune, Recipe
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, button_of, classed, list_of, markup, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER
from compresskit.zoo import Checkpoint, load_model

PATTERNS: Final = ("unstructured", "2:4", "block 1x4", "block 4x4", "block 16x1", "channel")
SPARSITIES: Final = tuple(step / 20 for step in range(20))
PREVIEW_DIGITS: Final = 1000
WINDOW: Final = (64, 96)
"""Rows and columns of the matrix that are drawn: enough to see a pattern, few enough to see single weights."""
TIMED_RUNS: Final = 100
HEIGHT: Final = 430

Matrix = NDArray[np.float32]
Kept = NDArray[np.bool_]


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    layer : str
        Whose matrix is drawn.
    pattern : str
        One of `PATTERNS`, or any text that `Prune` takes.
    sparsity : float
        Part of the weights that goes. N:M has its own.
    importance : str
        By which weights are chosen; see `Prune`.
    """

    layer: str
    pattern: str = "unstructured"
    sparsity: float = 0.5
    importance: str = "magnitude"


@dataclass(frozen=True)
class Row:
    """What came of a pattern.

    Attributes
    ----------
    gone : float
        Part of the weights of the pruned layers that is zero or cut out.
    errors, n : int
        Misread digits, and how many were read.
    macs : int
        Multiply-accumulates for one digit, those with zeros included.
    sizes : Sizes or None
        Bytes of the file, four ways; None in a preview.
    time : Latency or None
        Of one digit on one thread; None in a preview.
    """

    gone: float
    errors: int
    n: int
    macs: int
    sizes: Sizes | None = None
    time: Latency | None = None


@dataclass(frozen=True)
class Shown:
    """Everything that a setting gives: the matrix, which of its weights stay, and the row of the table."""

    matrix: Matrix
    kept: Kept
    row: Row


def inner_layers(model: Checkpoint) -> tuple[str, ...]:
    """List the layers that patterns are tried on: convolutions and dense layers between the first and the last.

    The first has one input channel, so that no pattern along the inputs fits; the last has to keep its ten outputs.

    Raises
    ------
    ValueError
        If there are none.
    """
    found = tuple(layer.name for layer in model.layers[1:-1] if layer.op in ("CONV_2D", "FULLY_CONNECTED"))
    if not found:
        raise ValueError(f"model {model.name!r} has no convolution or dense layer between its first and its last")
    return found


def channel_part(sparsity: float) -> float:
    """Give the part of the channels to remove so that this part of the weights goes.

    A layer between two others loses rows (its own channels) and columns (those of the layer before): of its weights
    ``(1 - c) (1 - c)`` stay if each layer loses the part c of its channels.
    """
    return 1 - math.sqrt(1 - sparsity)


def step_of(model: Checkpoint, setting: Setting) -> Prune:
    """Give the recipe's step that a setting asks for."""
    pattern, layers = parse_pattern(setting.pattern), inner_layers(model)
    if pattern.kind == "channel":
        return Prune(channel_part(setting.sparsity), pattern="channel", importance=setting.importance)
    sparsity = setting.sparsity if pattern.sparsity is None else None
    return Prune(sparsity, layers=layers, pattern=setting.pattern, importance=setting.importance)


def look(model: Checkpoint, setting: Setting, digits: Digits) -> tuple[Matrix, Kept]:
    """See a layer's weights as a matrix, a row for each output channel, and which of them stay.

    Parameters
    ----------
    model
        The float model.
    setting
        What to do; `layer` is one of `inner_layers`.
    digits
        Importances that look at digits see training digits.

    Returns
    -------
    matrix : ndarray of float32, shape (channels, weights of a channel)
        The weights before.
    kept : ndarray of bool, shape of `matrix`
        For channels, rows and columns that are cut out are False.

    Raises
    ------
    ValueError
        If there is no such layer, or the pattern does not fit a layer.
    """
    if setting.layer not in inner_layers(model):
        raise ValueError(f"layer {setting.layer!r} is none of those that are pruned: {', '.join(inner_layers(model))}")
    matrix = matrix_view(float_weights(model.tflite)[setting.layer])
    step = step_of(model, setting)
    if step.pattern != "channel":
        small = compress(model, Recipe(step), digits.train)
        return matrix, matrix_view(small.weights(setting.layer)) != 0
    stays = kept_channels(model.tflite, step, sample_of((step,), digits.train))
    rows, columns = np.ones(matrix.shape[0], bool), np.ones(matrix.shape[1], bool)
    for group in groups(model.tflite):
        if group.name in stays and setting.layer in group.layers:
            rows = stays[group.name]
        if group.name in stays and setting.layer in group.readers:
            columns = np.tile(stays[group.name], matrix.shape[1] // group.size)
    return matrix, np.logical_and.outer(rows, columns)


def measure(model: Checkpoint, setting: Setting, digits: Digits, count: int | None = None) -> Row:
    """Make the file and measure it on validation digits.

    Parameters
    ----------
    model
        The float model.
    setting
        What to do.
    digits
        Validation digits are read.
    count
        Read so many of them only, and measure neither sizes nor time: a preview.

    Returns
    -------
    Row

    Raises
    ------
    ValueError
        If the pattern does not fit a layer; the sentence names the layer.
    """
    small = compress(model, Recipe(step_of(model, setting)), digits.train)
    score = evaluate(small, digits.validation if count is None else digits.validation.take(count))
    row = Row(gone(model, small), score.errors, score.n, sum(layer.macs for layer in small.layers))
    if count is not None:
        return row
    image = np.asarray(digits.validation.images[:1])
    return replace(row, sizes=file_sizes(small.tflite), time=latency(small.tflite, image, runs=TIMED_RUNS))


def gone(model: Checkpoint, small: Compressed) -> float:
    """Give the part of the weights of the inner layers that is zero or cut out."""
    chosen = set(inner_layers(model))

    def left(layers: Any) -> float:
        return float(sum(np.prod(layer.shape) * (1 - layer.sparsity) for layer in layers if layer.name in chosen))

    return 1 - left(small.layers) / left(model.layers)


def window(matrix: NDArray[Any], rows: int = WINDOW[0], columns: int = WINDOW[1]) -> tuple[slice, slice]:
    """Cut the part that is drawn out of the middle of a matrix, its columns from a multiple of 32 on."""
    first = max(0, (matrix.shape[1] - columns) // 2 // 32 * 32)
    return slice(0, min(rows, matrix.shape[0])), slice(first, min(first + columns, matrix.shape[1]))


class DrawPatterns(StatusPanel):
    """The panel; `draw_patterns` makes it.

    Parameters
    ----------
    model
        What `load_model` takes.
    digits
        Full MNIST by default.

    Attributes
    ----------
    rows : dict of (str, float, str) to Row
        What was measured, by pattern, sparsity and importance.
    result : Shown or None
        What is drawn.
    """

    def __init__(self, model: Any = "digit_reader", digits: Digits | None = None) -> None:
        super().__init__()
        self.checkpoint = load_model(model)
        self.digits = load_mnist() if digits is None else digits
        self.float_errors = evaluate(self.checkpoint, self.digits.validation).errors
        self.rows: dict[tuple[str, float, str], Row] = {}
        self.refused: dict[tuple[str, float, str], str] = {}
        self.result: Shown | None = None
        self._all = False
        self._build()
        live: Live[Setting, Shown] = Live(
            self._preview, self._exact, self._on_result, self._on_error, lock=self.lock, cache_entries=64
        )
        self._live = live
        self._lives.append(live)
        live.submit(self.setting)

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        return Setting(
            str(self.layer.value), str(self.pattern.value), float(self.sparsity.value), str(self.importance.value)
        )  # fmt: skip

    def measure_all(self) -> None:
        """Measure every pattern at this sparsity, one after the other."""
        with self.lock:
            self._all = True
            self._next(self.setting)

    # -- what is computed, on the worker thread ------------------------------------------------------------------

    def _preview(self, setting: Setting, _stop: Stop) -> Shown:
        count = min(PREVIEW_DIGITS, len(self.digits.validation))
        matrix, kept = look(self.checkpoint, setting, self.digits)
        return Shown(matrix, kept, measure(self.checkpoint, setting, self.digits, count))

    def _exact(self, setting: Setting, _stop: Stop) -> Shown:
        matrix, kept = look(self.checkpoint, setting, self.digits)
        known = self.rows.get(key_of(setting))
        return Shown(matrix, kept, known or measure(self.checkpoint, setting, self.digits))

    # -- what comes back, the lock held --------------------------------------------------------------------------

    def _on_choice(self, _change: Any) -> None:
        with self.lock:
            self._all = False
            self._live.submit(self.setting)

    def _on_result(self, outcome: Outcome[Setting, Shown]) -> None:
        setting, shown = outcome.setting, outcome.value
        if outcome.exact:
            self.rows[key_of(setting)] = shown.row
        if setting == self.setting or not self._all:
            self.result = shown
            self.status.say("exact" if outcome.exact else "preview", *words(setting, shown.row, self.float_errors))
            self.chart.show(drawing(setting, shown))
        self._tabulate()
        if outcome.exact and self._all:
            self._next(setting)

    def _on_error(self, setting: Setting, message: str) -> None:
        self.refused[key_of(setting)] = message
        if setting == self.setting:
            self.status.say("error", "", message)
        self._tabulate()
        if self._all:
            self._next(setting)

    def _next(self, setting: Setting) -> None:
        """Ask for the first pattern that is missing at this sparsity; at the end, for where the controls stand."""
        here = self.setting
        for pattern in PATTERNS:
            wanted = replace(here, pattern=pattern)
            if key_of(wanted) not in self.rows and key_of(wanted) not in self.refused:
                self.status.say("busy", "Measuring all patterns", f"Now: {pattern}")
                self._live.submit(wanted)
                return
        self._all = False
        if setting != here:
            self._live.submit(here)

    # -- what is shown -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        layers = inner_layers(self.checkpoint)
        self.layer = list_of("Weights of layer", [(name, name) for name in layers], layers[0], "ck-layer")
        self.pattern = list_of("Pattern", [(name, name) for name in PATTERNS], PATTERNS[0], "ck-pattern")
        steps = [(f"{sparsity:.0%}".replace("%", " %"), sparsity) for sparsity in SPARSITIES]
        self.sparsity = slider_of("Weights that go", steps, 0.5, "ck-sparsity")
        self.importance = list_of("Chosen by", [(name, name) for name in IMPORTANCES], "magnitude", "ck-importance")
        self.button = button_of("Measure all patterns", "ck-all")
        self.button.on_click(lambda _: self.measure_all())
        self.status = Status()
        self.table = classed(markup(), "ck-scroll")
        self.chart = Chart(
            figure([], {"height": HEIGHT, "showlegend": False}), height=HEIGHT, lock=self.lock,
            label="Part of the weight matrix: a row for each output channel; weights that are gone are blank",
        )  # fmt: skip
        for control in (self.layer, self.pattern, self.sparsity, self.importance):
            self._watch(control, self._on_choice)
        controls = [self.layer, self.pattern, self.sparsity, self.importance, self.button, markup(NOTE)]
        plots = classed(ipywidgets.VBox([self.status, self.chart]), "ck-grow", "ck-stack")
        row = classed(ipywidgets.HBox([classed(ipywidgets.VBox(controls), "ck-controls"), plots]), "ck-row")
        names = {
            ".ck-layer": "Weights of layer", ".ck-pattern": "Pattern", ".ck-sparsity": "Weights that go",
            ".ck-importance": "Chosen by",
        }  # fmt: skip
        self._tabulate()
        self._frame([row, self.table], names)

    def _tabulate(self) -> None:
        here = self.setting
        keys = {pattern: key_of(replace(here, pattern=pattern)) for pattern in PATTERNS}
        found = {name: self.rows[key] for name, key in keys.items() if key in self.rows}
        refused = {name: self.refused[key] for name, key in keys.items() if key in self.refused}
        self.table.value = table(found, refused, here.pattern)

    # -- without a kernel ----------------------------------------------------------------------------------------

    def _summary(self) -> str:
        return f"Patterns of pruning: {self.checkpoint.name}, layer {self.setting.layer}"

    def _picture(self) -> Picture:
        picture = Picture(780, 330, self._summary())
        if self.result is None:
            picture.text(10, 30, "Run the cell to draw patterns.", size=14)
            return picture
        return still(picture, self.setting, self.result, self.float_errors)


NOTE: Final = (
    '<div class="ck-note">Light: a small weight. Dark: a large one. Blank: gone.</div>'
    '<div class="ck-note">Channels: so many of each layer go that this part of the weights goes with them. '
    "N:M removes what it removes, wherever the slider stands.</div>"
)


def draw_patterns(model: Any = "digit_reader", digits: Digits | None = None) -> DrawPatterns:
    """Show patterns of pruning on a model's weights, with the file that each of them makes.

    Parameters
    ----------
    model
        What `load_model` takes.
    digits
        Full MNIST by default.

    Returns
    -------
    DrawPatterns
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return DrawPatterns(model, digits)


def key_of(setting: Setting) -> tuple[str, float, str]:
    """Say what a row depends on: not on the layer that is looked at, and for N:M not on the slider."""
    fixed = parse_pattern(setting.pattern).sparsity
    return setting.pattern, setting.sparsity if fixed is None else fixed, setting.importance


def words(setting: Setting, row: Row, float_errors: int) -> tuple[str, str]:
    """Say what a pattern does to the file."""
    part = f"{channel_part(setting.sparsity):.0%} of the channels are removed: " if setting.pattern == "channel" else ""
    text = (
        f"{part}{row.gone:.0%} of the weights are gone; {row.macs / 1e6:.2f} million MACs a digit. "
        f"As trained it misreads {float_errors:,}."
    )
    return f"{setting.pattern}: misreads {row.errors:,} of {row.n:,} digits", text.replace("%", " %")


HEADS: Final = (
    "weights gone", "misread", ".tflite", "deflated", "entropy (estimated)", "packed", "million MACs", "one digit",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """Write a row, in the order of `HEADS`."""
    bytes_: tuple[str, ...] = ("…",) * 4
    if row.sizes is not None:
        four = (row.sizes.tflite, row.sizes.deflated, row.sizes.entropy, row.sizes.packed)
        bytes_ = tuple(f"{size / 1000:,.0f} kB" for size in four)
    time = "…" if row.time is None else f"{row.time.median * 1e6:,.0f} µs"
    return (f"{100 * row.gone:.0f} %", f"{row.errors:,}", *bytes_, f"{row.macs / 1e6:.2f}", time)


def table(rows: Mapping[str, Row], refused: Mapping[str, str], current: str) -> str:
    """Set all patterns side by side; those not measured yet have dots, so that the height does not jump."""
    head = "".join(f'<th scope="col" class="ck-number">{text}</th>' for text in HEADS)
    lines = []
    for name in PATTERNS:
        weight = ' style="font-weight:600"' if name == current else ""
        if name in refused:
            numbers = f'<td colspan="{len(HEADS)}">{html.escape(refused[name])}</td>'
        else:
            found = cells(rows[name]) if name in rows else ("…",) * len(HEADS)
            numbers = "".join(f'<td class="ck-number">{cell}</td>' for cell in found)
        lines.append(f"<tr{weight}><td>{name}</td>{numbers}</tr>")
    return (
        f'<table class="ck-table"><thead><tr><th scope="col" style="width:8em">pattern</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


SHADES: Final = ((0.0, "#a9d3ee"), (1.0, AFTER))
"""Small weights are light, large ones dark; both can be told from a light and from a dark background."""


def shades(matrix: Matrix, kept: Kept) -> list[list[float | None]]:
    """Give the size of each weight as a part of the largest ones drawn, None where it is gone."""
    size = np.abs(matrix)
    most = float(np.percentile(size, 99)) or 1.0
    scaled = np.minimum(size / most, 1).round(2)
    return [
        [float(value) if stays else None for value, stays in zip(row, mask, strict=True)]
        for row, mask in zip(scaled, kept, strict=True)
    ]


def drawing(setting: Setting, shown: Shown) -> dict[str, Any]:
    """Draw part of the matrix as plotly's JSON."""
    rows, columns = window(shown.matrix)
    part = shown.matrix[rows, columns]
    heat = {
        "type": "heatmap", "z": shades(part, shown.kept[rows, columns]), "x0": columns.start, "dx": 1, "y0": 0, "dy": 1,
        "colorscale": [list(shade) for shade in SHADES], "zmin": 0, "zmax": 1, "showscale": False, "xgap": 0.6,
        "ygap": 0.6, "hoverongaps": False, "name": "weights",
        "hovertemplate": "output %{y}, input %{x}: %{z:.2f} of the largest<extra></extra>",
    }  # fmt: skip
    total = shown.matrix.shape
    first = f" (the first {rows.stop} of {total[0]})" if rows.stop < total[0] else ""
    layout = {
        "height": HEIGHT, "showlegend": False, "margin": {"t": 12, "l": 56, "b": 50},
        "xaxis": {"title": {"text": f"weights {columns.start} to {columns.stop - 1} of the {total[1]:,} in each row"},
                  "showgrid": False, "range": [columns.start - 0.5, columns.stop - 0.5], "dtick": 16,
                  "tick0": columns.start},
        "yaxis": {"title": {"text": f"outputs of {setting.layer}{first}"},
                  "showgrid": False, "range": [rows.stop - 0.5, -0.5], "dtick": 8},
    }  # fmt: skip
    return figure([heat], layout)


def still(picture: Picture, setting: Setting, shown: Shown, float_errors: int) -> Picture:
    """Draw what a reader without a kernel sees: the same part of the matrix, and what the file does."""
    first, second = words(setting, shown.row, float_errors)
    picture.text(0, 14, first, size=13, bold=True)
    picture.text(0, 32, second, size=12, ink="muted")
    rows, columns = window(shown.matrix)
    part, kept = np.abs(shown.matrix[rows, columns]), shown.kept[rows, columns]
    scale = np.minimum(part / (np.percentile(part, 99) or 1), 1)[..., None]
    light, dark = (np.array([int(ink[at : at + 2], 16) for at in (1, 3, 5)]) for _, ink in SHADES)
    colours = np.where(kept[..., None], light + (dark - light) * scale, 255).astype(np.uint8)
    pixels = np.full((colours.shape[0] * 4, colours.shape[1] * 6, 3), 255, np.uint8)
    for down in range(3):
        for right in range(5):
            pixels[down::4, right::6] = colours
    picture.raster(56, 46, 576, 256, pixels)
    picture.text(50, 56, "output 0", size=11, anchor="end", ink="muted")
    picture.text(50, 302, str(rows.stop - 1), size=11, anchor="end", ink="muted")
    where = f"{setting.layer}: weights {columns.start} to {columns.stop - 1} of the {shown.matrix.shape[1]:,} in a row"
    picture.text(56, 320, f"{where}; white: gone", size=11, ink="muted")
    if shown.row.sizes is not None:
        for line, (head, cell) in enumerate(zip(HEADS[2:6], cells(shown.row)[2:6], strict=True)):
            picture.text(650, 66 + 44 * line, head, size=11, ink="muted")
            picture.text(650, 84 + 44 * line, cell, size=13, bold=True)
    return picture
