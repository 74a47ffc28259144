"""The panel of lesson 09: how many values the weights share, and what that does to the digits and to the packed file.

`measure` makes the file, counts its values and packs it; it has no widget in it. The panel draws what it gives.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed, compress
from compresskit.data import Digits, Split, load_mnist
from compresskit.entropy import entropy, huffman_lengths
from compresskit.evaluation import evaluate
from compresskit.pruned import float_weights
from compresskit.recipe import Prune, Recipe, Share
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, classed, list_of, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.zoo import Checkpoint, load_model

LEVELS: Final = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
PRUNED: Final = (0, 30, 50, 60, 70, 80, 90)
METHODS: Final = {
    "kmeans": "k-means", "exact": "k-means, the best there is", "uniform": "at equal distances",
    "binary": "binary: -a, +a", "ternary": "ternary: -a, 0, +a", "powers": "0 and powers of two",
}  # fmt: skip
STARTS: Final = {"linear": "linear", "density": "by density", "k-means++": "by lot (k-means++)"}
SYMBOLS: Final = {
    "kmeans": "circle", "exact": "diamond", "uniform": "square", "binary": "cross", "ternary": "triangle-up",
    "powers": "x",
}  # fmt: skip
PREVIEW_DIGITS: Final = 1000
BARS: Final = 120
HEIGHT: Final = 560


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    levels
        Values that a layer may have; binary and ternary have their own number.
    method, start
        As for `Share`.
    pruned
        Per cent of all weights that are set to zero first, those of least magnitude.
    """

    levels: int = 16
    method: str = "kmeans"
    start: str = "linear"
    pruned: int = 0

    @property
    def recipe(self) -> Recipe:
        """What is done: prune, then share."""
        levels: int | None = self.levels
        if self.method in ("binary", "ternary"):
            levels = None
        elif self.method == "uniform":
            levels = self.levels + self.levels % 2
        elif self.method == "powers":
            levels = max(3, self.levels)
        prune = (Prune(self.pruned / 100, scope="global"),) if self.pruned else ()
        return Recipe(*prune, Share(levels, self.method, start=self.start))


@dataclass(frozen=True)
class LayerCodes:
    """What became of one layer.

    Attributes
    ----------
    name
        The layer.
    values, counts
        Its codebook, ascending, and how many weights have each value.
    """

    name: str
    values: NDArray[np.float32]
    counts: NDArray[np.int64]

    @property
    def weights(self) -> int:
        """How many weights there are."""
        return int(self.counts.sum())

    @property
    def fixed(self) -> int:
        """Bits of a code when all codes are of one length."""
        return max(1, (len(self.values) - 1).bit_length())

    @property
    def huffman(self) -> float:
        """Bits a weight with a Huffman code."""
        return float((huffman_lengths(self.counts) * self.counts).sum() / self.weights)

    @property
    def floor(self) -> float:
        """Entropy: bits a weight that no code of single weights gets below."""
        return entropy(self.counts)


@dataclass(frozen=True)
class Measured:
    """Everything that one setting gives.

    Attributes
    ----------
    layers
        The layers, by name.
    sizes
        Bytes: the "float" file, that file "deflated", codes of "fixed" length and "huffman" codes (both estimated:
        weights and codebooks only), and the "packed" file.
    misread, n
        How many of `n` validation digits the file misreads.
    """

    layers: Mapping[str, LayerCodes]
    sizes: Mapping[str, int]
    misread: int
    n: int


@functools.lru_cache(maxsize=64)
def make(checkpoint: Checkpoint, recipe: Recipe) -> tuple[Compressed, Mapping[str, LayerCodes], Mapping[str, int]]:
    """Make the file of a recipe, count the values in it, and pack it."""
    small = compress(checkpoint, recipe)
    layers = {}
    for name, weights in float_weights(small.tflite).items():
        values, counts = np.unique(weights, return_counts=True)
        layers[name] = LayerCodes(name, values, counts)
    books = sum(32 * len(layer.values) for layer in layers.values())
    sizes = {
        "float": small.size,
        "deflated": small.deflated_size,
        "fixed": (books + sum(layer.fixed * layer.weights for layer in layers.values())) // 8,
        "huffman": int(books + sum(layer.huffman * layer.weights for layer in layers.values())) // 8,
        "packed": small.packed_size,
    }
    return small, layers, sizes


def measure(checkpoint: Checkpoint, setting: Setting, digits: Split) -> Measured:
    """Share the weights of a model, and see what the file reads and what it takes.

    Parameters
    ----------
    checkpoint
        The float model.
    setting
        What to do.
    digits
        Digits to read.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If the setting makes no sense, such as binary weights after pruning.
    """
    small, layers, sizes = make(checkpoint, setting.recipe)
    score = evaluate(small, digits)
    return Measured(layers, sizes, score.errors, score.n)


class ShareWeights(StatusPanel):
    """The panel; `share_weights` makes it.

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
        self.tried: dict[Setting, tuple[int, float, bool]] = {}
        self.result: Measured | None = None
        self._misread_float = functools.lru_cache(maxsize=4)(
            lambda n: evaluate(self.checkpoint, self.validation.take(n)).errors
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
        return Setting(
            int(self.levels.value), str(self.method.value), str(self.start.value), int(self.pruned.value)
        )  # fmt: skip

    # -- what is computed ----------------------------------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Measured:
        return measure(self.checkpoint, setting, self.validation.take(PREVIEW_DIGITS))

    def _exact(self, setting: Setting, stop: Stop) -> Measured:
        return measure(self.checkpoint, setting, self.validation)

    # -- what is shown -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        names = [layer.name for layer in self.checkpoint.layers]
        largest = max(self.checkpoint.layers, key=lambda layer: layer.parameters).name
        self.levels = slider_of("Shared values in each layer", [(str(n), n) for n in LEVELS], 16, "ck-levels")
        self.method = list_of("Which values", [(text, name) for name, text in METHODS.items()], "kmeans", "ck-method")
        self.start = list_of("k-means begins", [(text, name) for name, text in STARTS.items()], "linear", "ck-start")
        self.pruned = slider_of("Pruned before", [(f"{n} %", n) for n in PRUNED], 0, "ck-pruned")
        self.layer = list_of("Layer shown", [(name, name) for name in names], largest, "ck-layer")
        self.status = Status()
        self.table = ipywidgets.HTML()
        self.chart = Chart(
            figure([], {"height": HEIGHT, "showlegend": False}), height=HEIGHT, lock=self.lock,
            label="Weights of the layer and the values they share; digits misread against bytes of the packed file",
        )  # fmt: skip
        for control in (self.levels, self.method, self.start, self.pruned):
            self._watch(control, self._on_choice)
        self._watch(self.layer, self._on_layer)
        controls = [self.levels, self.method, self.start, self.pruned, self.layer, self.table]
        plots = classed(ipywidgets.VBox([self.status, self.chart]), "ck-grow", "ck-stack")
        row = classed(ipywidgets.HBox([classed(ipywidgets.VBox(controls), "ck-controls"), plots]), "ck-row")
        called = {
            ".ck-levels": "Shared values in each layer", ".ck-method": "Which values", ".ck-start": "k-means begins",
            ".ck-pruned": "Pruned before", ".ck-layer": "Layer shown",
        }  # fmt: skip
        self._frame([row], called)

    def _on_choice(self, _change: Any) -> None:
        self.start.disabled = self.method.value != "kmeans"
        self._live.submit(self.setting)

    def _on_layer(self, _change: Any) -> None:
        with self.lock:
            if self.result is not None:
                self._draw(self.setting, self.result)

    def _on_result(self, outcome: Outcome[Setting, Measured]) -> None:
        setting, measured = outcome.setting, outcome.value
        known = self.tried.get(setting)
        if outcome.exact or known is None or not known[2]:
            self.tried[setting] = (measured.sizes["packed"], 100 * measured.misread / measured.n, outcome.exact)
        self.result = measured
        self.status.say("exact" if outcome.exact else "preview", *self._words(setting, measured))
        self.table.value = table(measured, str(self.layer.value))
        self._draw(setting, measured)

    def _draw(self, setting: Setting, measured: Measured) -> None:
        name = str(self.layer.value)
        original = float_weights(self.checkpoint.tflite)[name]
        level = 100 * self._misread_float(measured.n) / measured.n
        self.table.value = table(measured, name)
        self.chart.show(drawing(setting, measured.layers[name], original, self.tried, level, self.checkpoint.size))

    def _words(self, setting: Setting, measured: Measured) -> tuple[str, str]:
        return words(measured, self._misread_float(measured.n))

    # -- without a kernel ----------------------------------------------------------------------------------------

    def _summary(self) -> str:
        where = self.setting
        pruned = f"{where.pruned} % pruned, " if where.pruned else ""
        return f"Shared weights of {self.checkpoint.name}: {pruned}{where.levels} values, {METHODS[where.method]}"

    def _picture(self) -> Picture:
        if self.result is None:
            picture = Picture(780, 290, self._summary())
            picture.text(10, 30, "Run the cell to share weights.", size=14)
            return picture
        name = str(self.layer.value)
        told = self._words(self.setting, self.result)
        picture = Picture(780, 290, f"{self._summary()}. {'. '.join(told)}")
        return still(picture, told, self.result, name, float_weights(self.checkpoint.tflite)[name])


def share_weights(model: Any = "digit_reader", data: Digits | None = None) -> ShareWeights:
    """Show the weights of a model as they share fewer and fewer values.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default. Files are scored on validation digits.

    Returns
    -------
    ShareWeights
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return ShareWeights(model, data)


def words(measured: Measured, misread_float: int) -> tuple[str, str]:
    """Say what became of the digits, and of the bytes."""
    packed, whole = measured.sizes["packed"], measured.sizes["float"]
    return (
        f"{packed:,} bytes packed; misreads {measured.misread:,} of {measured.n:,} digits",
        f"The float model misreads {misread_float:,}. The .tflite keeps its {whole:,} bytes; packed it is "
        f"{whole / packed:.1f} times smaller",
    )


def table(measured: Measured, shown: str) -> str:
    """Set the layers side by side in bits a weight, the one that is drawn in bold; and the bytes below."""
    rows = []
    for layer in measured.layers.values():
        bold = ' style="font-weight:600"' if layer.name == shown else ""
        cells = (f"{len(layer.values)}", f"{layer.fixed}", f"{layer.huffman:.2f}", f"{layer.floor:.2f}")
        numbers = "".join(f'<td class="ck-number">{cell}</td>' for cell in cells)
        rows.append(f"<tr{bold}><td>{layer.name}</td>{numbers}</tr>")
    heads = ("values", "fixed", "Huffman", "entropy")
    head = "".join(f'<th scope="col" class="ck-number">{text}</th>' for text in heads)
    names = {
        "float": "the .tflite", "deflated": "deflated", "fixed": "codes of one length *", "huffman": "Huffman codes *",
        "packed": "the packed file",
    }  # fmt: skip
    sizes = "".join(
        f'<tr><td>{text}</td><td class="ck-number">{measured.sizes[key]:,}</td></tr>' for key, text in names.items()
    )
    return (
        f'<table class="ck-table"><thead><tr><th scope="col">bits a weight</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<table class="ck-table"><thead><tr><th scope="col">bytes</th><th></th></tr></thead><tbody>{sizes}</tbody>'
        '</table><div class="ck-note">* estimated: weights and codebooks only, no file</div>'
    )


def bars(weights: NDArray[np.float32]) -> tuple[list[float], list[int], float]:
    """Count weights in even bins: middles, counts, and the width of a bin."""
    reach = float(np.abs(weights).max()) or 1.0
    counts, edges = np.histogram(weights, BARS, (-reach, reach))
    return ((edges[:-1] + edges[1:]) / 2).tolist(), counts.tolist(), float(edges[1] - edges[0])


def drawing(
    setting: Setting,
    layer: LayerCodes,
    original: NDArray[np.float32],
    tried: Mapping[Setting, tuple[int, float, bool]],
    level: float,
    whole: int,
) -> dict[str, Any]:
    """Draw the weights, the values they share, and all files made so far, as plotly's JSON."""
    x, counts, width = bars(original)
    stems_x: list[float | None] = []
    stems_y: list[float | None] = []
    for value, count in zip(layer.values.tolist(), layer.counts.tolist(), strict=True):
        stems_x += [value, value, None]
        stems_y += [0.5, count, None]
    here = tried.get(setting, (whole, level, True))
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": x, "y": counts, "width": width, "marker": {"color": BEFORE, "opacity": 0.45},
         "hovertemplate": "%{x:.3f}: %{y:,} weights before<extra></extra>", "name": "before"},
        {"type": "scatter", "mode": "lines", "x": stems_x, "y": stems_y, "line": {"color": AFTER, "width": 2},
         "hoverinfo": "skip", "name": "shared"},
        {"type": "scatter", "mode": "markers", "x": layer.values.tolist(), "y": layer.counts.tolist(),
         "marker": {"color": AFTER, "size": 8 if len(layer.values) <= 64 else 4}, "name": "values",
         "hovertemplate": "%{y:,} weights are %{x:.4f}<extra></extra>"},
        *(_tried(tried, method, exact) for method in METHODS for exact in (True, False)),
        {"type": "scatter", "mode": "markers", "x": [here[0]], "y": [max(here[1], 0.01)], "xaxis": "x2", "yaxis": "y2",
         "hoverinfo": "skip", "name": "yours",
         "marker": {"symbol": "circle-open", "size": 16, "color": CURRENT, "line": {"width": 3}}, "cliponaxis": False},
    ]  # fmt: skip
    top = math.log10(2.5 * max(*counts, int(layer.counts.max()), 1))
    layout = {
        "height": HEIGHT, "bargap": 0, "margin": {"t": 14, "l": 66}, "showlegend": False,
        "xaxis": {"domain": [0, 0.5], "title": {"text": f"weights of {layer.name}"}},
        "yaxis": {"type": "log", "range": [-0.3, top], "dtick": 1, "title": {"text": "how many"}},
        "xaxis2": {"domain": [0.62, 1], "type": "log", "range": [math.log10(2e4), math.log10(2 * whole)],
                   "anchor": "y2", "gridcolor": "#e0e0e0", "zeroline": False,
                   "tickvals": [2e4, 1e5, 5e5, 2e6],
                   "ticktext": ["20", "100", "500", "2,000"], "tickangle": 0,
                   "title": {"text": "packed file, kB", "standoff": 10, "font": {"size": 12}}},
        "yaxis2": {"type": "log", "range": [-0.75, 2.05], "anchor": "x2", "gridcolor": "#e0e0e0", "zeroline": False,
                   "tickvals": [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100],
                   "title": {"text": "misread, %", "font": {"size": 12}}},
        "shapes": [{"type": "line", "xref": "x2 domain", "yref": "y2", "x0": 0, "x1": 1, "y0": max(level, 0.01),
                    "y1": max(level, 0.01), "line": {"dash": "dot", "width": 1.5, "color": BEFORE}}],
        "annotations": [{"text": "float", "xref": "x2 domain", "yref": "y2", "x": 1, "y": math.log10(max(level, 0.01)),
                         "xanchor": "right", "yanchor": "top", "showarrow": False, "font": {"size": 12}}],
    }  # fmt: skip
    return figure(data, layout)


def _tried(tried: Mapping[Setting, tuple[int, float, bool]], method: str, exact: bool) -> dict[str, Any]:
    """Draw the files made so far by one method: solid when all validation digits were read, hollow for a preview."""
    points = [
        (size, max(share, 0.01), setting)
        for setting, (size, share, whole) in tried.items()
        if setting.method == method and whole == exact
    ]
    return {"type": "scatter", "mode": "markers", "x": [size for size, _, _ in points],
            "y": [share for _, share, _ in points], "xaxis": "x2", "yaxis": "y2", "name": METHODS[method],
            "text": [_called(setting) for _, _, setting in points],
            "hovertemplate": "%{text}<br>%{x:,} bytes, misread %{y:.2f} %<extra></extra>",
            "marker": {"symbol": SYMBOLS[method] + ("" if exact else "-open"), "size": 9, "color": AFTER}}  # fmt: skip


def _called(setting: Setting) -> str:
    """Name a setting in a few words."""
    pruned = f", {setting.pruned} % pruned" if setting.pruned else ""
    start = f", {STARTS[setting.start]}" if setting.method == "kmeans" else ""
    return f"{setting.levels} values, {METHODS[setting.method]}{start}{pruned}"


def still(
    picture: Picture, told: Iterable[str], measured: Measured, name: str, original: NDArray[np.float32]
) -> Picture:
    """Draw what a reader without a kernel sees: the weights, the values they share, and the bytes."""
    first, second = told
    picture.text(0, 14, first, size=13, bold=True)
    picture.text(0, 32, second, size=12, ink="muted")
    left, wide, top, bottom = 10.0, 400.0, 50.0, 245.0
    x, counts, width = bars(original)
    layer = measured.layers[name]
    tallest = math.log10(max(*counts, int(layer.counts.max())) + 1.0)
    low, high = x[0] - width / 2, x[-1] + width / 2

    def place(value: float) -> float:
        return left + wide * (value - low) / (high - low)

    def height(count: int) -> float:
        return bottom - (bottom - top) * math.log10(count + 1.0) / tallest

    for middle, count in zip(x, counts, strict=True):
        picture.rectangle(
            place(middle - width / 2), height(count), wide / BARS, bottom - height(count), fill="before", opacity=0.45
        )
    for value, count in zip(layer.values.tolist(), layer.counts.tolist(), strict=True):
        picture.line([(place(value), bottom), (place(value), height(count))], stroke="after", width=2)
        picture.mark(place(value), height(count), "disc", 7, "after")
    picture.line([(left, bottom), (left + wide, bottom)], stroke="line")
    picture.text(left, bottom + 16, f"{low:.2f}", size=11)
    picture.text(left + wide, bottom + 16, f"{high:.2f}", size=11, anchor="end")
    picture.text(left + wide / 2, bottom + 34, f"weights of {name}, and the values they share", anchor="middle")
    for column, head in ((470, "bits a weight"), (640, "Huffman"), (720, "entropy")):
        picture.text(column, 66, head, size=11, ink="muted", anchor="start" if column == 470 else "end")
    for row, each in enumerate(measured.layers.values()):
        y = 90 + 24 * row
        picture.text(470, y, each.name, bold=each.name == name)
        picture.text(640, y, f"{each.huffman:.2f}", anchor="end")
        picture.text(720, y, f"{each.floor:.2f}", anchor="end")
    return picture
