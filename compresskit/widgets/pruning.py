"""The panel of lesson 07: a layer's weights, the threshold below which they go, and what that does to the file.

`recipe_of` turns a setting into a recipe, `look` counts what was kept and what went, and `try_out` makes the file and
reads digits with it; none of them has a widget in it. The panel draws what they give.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed, compress
from compresskit.data import Digits, Split, load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert.sizes import Sizes, file_sizes
from compresskit.pruned import float_weights
from compresskit.pruning.patterns import global_masks
from compresskit.recipe import IMPORTANCES, Prune, Recipe
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, classed, list_of, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.points import preview_of
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.zoo import Checkpoint, load_model

RULES: Final = {
    "global": "one threshold for all layers",
    "spread": "a threshold for each layer, in units of its spread",
    "layer": "the same share of every layer",
}
AMOUNTS: Final = (*(round(0.02 * step, 2) for step in range(50)), 0.99)
"""Where the slider can stand: fraction of all weights that goes."""
START: Final = 0.6
BARS: Final = 81
HEIGHT: Final = 360
KINDS: Final = (
    ("tflite", "the .tflite"),
    ("deflated", "deflated"),
    ("entropy", "entropy (estimated)"),
    ("packed", "packed container"),
)
"""The four sizes, and what they are called."""
_SHAPES: Final = {"magnitude": "circle", "activation": "square", "gradient": "diamond", "random": "x"}
_SIGNS: Final = {"magnitude": "●", "activation": "■", "gradient": "◆", "random": "✕"}
_LOOKS: Final = {"global": (AFTER, "solid"), "spread": (CURRENT, "dash"), "layer": (BEFORE, "dot")}


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    amount
        Fraction of all weights together that goes.
    rule
        How it is shared out to the layers, a key of `RULES`.
    importance
        What decides within a layer, as `Prune` takes it.
    layer
        The layer that is drawn.
    """

    amount: float
    rule: str = "global"
    importance: str = "magnitude"
    layer: str = ""


@dataclass(frozen=True)
class Cut:
    """What was done to one layer.

    Attributes
    ----------
    name
        The layer.
    size, removed
        Its weights, and how many of them are zero now.
    threshold
        Largest absolute value that was removed; 0 if none was.
    spread
        Root of the mean square of its weights before.
    """

    name: str
    size: int
    removed: int
    threshold: float
    spread: float


@dataclass(frozen=True)
class Histogram:
    """A layer's weights in equal bins.

    Attributes
    ----------
    edges : ndarray of float64, shape (bins + 1,)
        Borders of the bins.
    kept, removed : ndarray of int64, shape (bins,)
        How many in each bin stayed, and how many went.
    """

    edges: NDArray[np.float64]
    kept: NDArray[np.int64]
    removed: NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """Everything that one setting gives.

    Attributes
    ----------
    compressed
        The file.
    cuts
        A row for each layer.
    histogram
        Of the layer that is drawn.
    misread, n
        How many of `n` digits the file misreads.
    misread_float
        How many of the same digits the float model misreads.
    sizes
        Of the file, and of the float file; None in a preview.
    """

    compressed: Compressed
    cuts: tuple[Cut, ...]
    histogram: Histogram
    misread: int
    n: int
    misread_float: int
    sizes: tuple[Sizes, Sizes] | None

    @property
    def sparsity(self) -> float:
        """Fraction of all weights that is zero."""
        return sum(cut.removed for cut in self.cuts) / sum(cut.size for cut in self.cuts)


def recipe_of(checkpoint: Checkpoint, setting: Setting) -> Recipe:
    """Write a setting as a recipe.

    Parameters
    ----------
    checkpoint
        The float model.
    setting
        What is asked for. By the rule "spread", a weight is divided by the spread of its layer before one threshold
        cuts them all: Han and others (2015), arXiv:1506.02626, whose threshold is a multiple of a layer's standard
        deviation.

    Returns
    -------
    Recipe

    Raises
    ------
    ValueError
        If the rule is not known, or is one of magnitudes and the importance another.
    """
    if setting.rule not in RULES:
        raise ValueError(f"rule is {setting.rule!r}; choose one of {', '.join(RULES)}")
    if not setting.amount:
        return Recipe()
    if setting.rule != "spread":
        return Recipe(Prune(setting.amount, scope=setting.rule, importance=setting.importance))
    if setting.importance != "magnitude":
        raise ValueError(
            f"importance is {setting.importance!r}, but a threshold in units of the spread is one of magnitudes; "
            "choose magnitude, or another rule"
        )
    scaled = {name: np.abs(w) / max(_spread(w), 1e-30) for name, w in float_weights(checkpoint.tflite).items()}
    masks = global_masks(scaled, setting.amount)
    shares = {name: np.count_nonzero(~mask) / mask.size for name, mask in masks.items()}
    return Recipe(*(Prune(share, layers=(name,)) for name, share in shares.items() if 0 < share < 1))


def look(checkpoint: Checkpoint, compressed: Compressed, layer: str) -> tuple[tuple[Cut, ...], Histogram]:
    """Compare a pruned file with the model that it was made from: what went in each layer, and one layer's weights.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    before = float_weights(checkpoint.tflite)
    if layer not in before:
        raise ValueError(f"layer {layer!r} is not in this model; its layers are {', '.join(before)}")
    cuts = []
    for name, weights in before.items():
        gone = (weights != 0) & (compressed.weights(name) == 0)
        largest = float(np.abs(weights[gone]).max(initial=0.0))
        cuts.append(Cut(name, weights.size, int(np.count_nonzero(gone)), largest, _spread(weights)))
        if name == layer:
            reach = float(np.abs(weights).max()) or 1.0
            edges = np.linspace(-reach, reach, BARS + 1)
            kept, removed = (np.histogram(weights[part], edges)[0].astype(np.int64) for part in (~gone, gone))
            histogram = Histogram(edges, kept, removed)
    return tuple(cuts), histogram


def try_out(checkpoint: Checkpoint, setting: Setting, digits: Split, calibration: Split | None) -> Shown:
    """Make the file of a setting, measure it in all ways, and read digits with it.

    Parameters
    ----------
    checkpoint
        The float model.
    setting
        What is asked for.
    digits
        Digits to read.
    calibration
        Digits on which an importance looks at what flows.

    Returns
    -------
    Shown

    Raises
    ------
    ValueError
        As `recipe_of`, `look` and `compress` do.
    """
    small = compress(checkpoint, recipe_of(checkpoint, setting), calibration)
    cuts, histogram = look(checkpoint, small, setting.layer)
    errors, before = evaluate(small, digits).errors, evaluate(checkpoint, digits).errors
    sizes = file_sizes(small.tflite), file_sizes(checkpoint.tflite)
    return Shown(small, cuts, histogram, errors, len(digits), before, sizes)


def _spread(weights: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(weights, dtype=np.float64))))


class PruneWeights(StatusPanel):
    """The panel; `prune_weights` makes it.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default.

    Attributes
    ----------
    result : Shown or None
        What is shown.
    tried : dict
        For each rule and importance, the sparsities tried: misread per cent, and whether of all digits.
    """

    def __init__(self, model: Any = "digit_reader", data: Digits | None = None) -> None:
        super().__init__()
        self.checkpoint = load_model(model)
        digits = load_mnist() if data is None else data
        self.validation, self._train = digits.validation, digits.train
        self._sample = preview_of(self.validation)
        self.result: Shown | None = None
        self._sized: Shown | None = None  # the last one whose sizes are known: a preview comes without
        self.tried: dict[tuple[str, str], dict[float, tuple[float, bool]]] = {}
        self._misread = functools.lru_cache(maxsize=128)(
            lambda recipe, whole: evaluate(self._file(recipe), self.validation if whole else self._sample).errors
        )
        self._file = functools.lru_cache(maxsize=4)(lambda recipe: compress(self.checkpoint, recipe, self._train))
        self._build()
        live: Live[Setting, Shown] = Live(
            self._preview if self._sample is not self.validation else None, self._exact, self._on_result,
            self._on_error, lock=self.lock, cache_entries=64,
        )  # fmt: skip
        self._live = live
        self._lives.append(live)
        live.submit(self.setting)

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        return Setting(
            float(self.amount.value), str(self.rule.value), str(self.importance.value), str(self.layer.value)
        )

    # -- what is computed ----------------------------------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Shown:
        return self._shown(setting, whole=False)

    def _exact(self, setting: Setting, stop: Stop) -> Shown:
        return self._shown(setting, whole=True)

    def _shown(self, setting: Setting, *, whole: bool) -> Shown:
        recipe = recipe_of(self.checkpoint, setting)
        small = self._file(recipe)
        cuts, histogram = look(self.checkpoint, small, setting.layer)
        count = len(self.validation if whole else self._sample)
        with ThreadPoolExecutor(max_workers=1) as beside:  # packing takes as long as reading, on another core
            measured = beside.submit(self._sizes, small) if whole else None
            misread, before = self._misread(recipe, whole), self._misread(Recipe(), whole)
            return Shown(small, cuts, histogram, misread, count, before, measured.result() if measured else None)

    def _sizes(self, small: Compressed) -> tuple[Sizes, Sizes]:
        return file_sizes(small.tflite), file_sizes(self.checkpoint.tflite)

    # -- what is shown -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        layers = sorted(self.checkpoint.layers, key=lambda layer: -layer.parameters)
        self.amount = slider_of("Remove, of all weights", [(f"{a:.0%}", a) for a in AMOUNTS], START, "ck-amount")
        self.rule = list_of("Shared out by", [(text, rule) for rule, text in RULES.items()], "global", "ck-shared-by")
        self.importance = list_of("What is kept", [(name, name) for name in IMPORTANCES], "magnitude", "ck-importance")
        names = [layer.name for layer in self.checkpoint.layers]
        self.layer = list_of("Layer drawn", [(name, name) for name in names], layers[0].name, "ck-layer")
        self.status, self.table, self.sizes = Status(), ipywidgets.HTML(), ipywidgets.HTML(sizes_table(None))
        self.chart = Chart(
            figure([], {"height": HEIGHT, "showlegend": False}), height=HEIGHT, lock=self.lock,
            label="Weights of the layer, kept and removed; digits misread against the share removed",
        )  # fmt: skip
        for control in (self.amount, self.rule, self.importance, self.layer):
            self._watch(control, lambda _change: self._live.submit(self.setting))
        controls = [self.amount, self.rule, self.importance, self.layer, self.table]
        plots = classed(
            ipywidgets.VBox([self.status, self.chart, ipywidgets.HTML(_key()), self.sizes]), "ck-grow", "ck-stack"
        )
        row = classed(ipywidgets.HBox([classed(ipywidgets.VBox(controls), "ck-controls"), plots]), "ck-row")
        names_of = {
            ".ck-amount": "Remove, of all weights", ".ck-shared-by": "Shared out by", ".ck-importance": "What is kept",
            ".ck-layer": "Layer drawn",
        }  # fmt: skip
        self._frame([row], names_of)

    def _on_result(self, outcome: Outcome[Setting, Shown]) -> None:
        setting, shown = outcome.setting, outcome.value
        points = self.tried.setdefault((setting.rule, setting.importance), {})
        known = points.get(setting.amount)
        if outcome.exact or known is None or not known[1]:
            points[setting.amount] = (100 * shown.misread / shown.n, outcome.exact)
        if outcome.outdated and setting.layer != self.layer.value:
            return
        self.result = shown
        self.status.say("exact" if outcome.exact else "preview", *words(setting, shown))
        self.table.value = cuts_table(shown.cuts, setting.layer)
        self.chart.show(drawing(setting, shown, self.tried))
        if shown.sizes is not None:
            self._sized = shown
        if self._sized is not None:
            outdated = self._sized.compressed.tflite != shown.compressed.tflite
            self.sizes.value = sizes_table(self._sized.sizes, outdated=outdated)

    # -- without a kernel ----------------------------------------------------------------------------------------

    def _summary(self) -> str:
        where = self.setting
        return f"Pruning {self.checkpoint.name}: {where.amount:.0%} of the weights removed, {RULES[where.rule]}"

    def _picture(self) -> Picture:
        if self.result is None:
            picture = Picture(780, 300, self._summary())
            picture.text(10, 30, "Run the cell to prune weights.", size=14)
            return picture
        title = f"{self._summary()}. {'. '.join(words(self.setting, self.result))}"
        return still(Picture(780, 300, title), self.setting, self.result)


def prune_weights(model: Any = "digit_reader", data: Digits | None = None) -> PruneWeights:
    """Show a model's weights with a threshold under the hand, and the file that is left: accuracy and four sizes.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default. Files are scored on validation digits.

    Returns
    -------
    PruneWeights
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return PruneWeights(model, data)


def words(setting: Setting, shown: Shown) -> tuple[str, str]:
    """Say what was removed, and what it cost."""
    cut = next(each for each in shown.cuts if each.name == setting.layer)
    lost, threshold = f"loses {cut.removed / cut.size:.1%}" if cut.removed else "loses none", ""
    if cut.removed and setting.importance == "magnitude":
        threshold = f" below {cut.threshold:.3g}, {cut.threshold / max(cut.spread, 1e-30):.2g} times its spread"
    return (
        f"{shown.misread:,} of {shown.n:,} digits misread, {shown.sparsity:.1%} removed",
        f"The float file misreads {shown.misread_float:,}. {cut.name} {lost} of its weights{threshold}.",
    )


def cuts_table(cuts: Sequence[Cut], chosen: str) -> str:
    """Set the layers side by side, the one that is drawn in bold."""
    rows = []
    for cut in cuts:
        weight = ' style="font-weight:600"' if cut.name == chosen else ""
        cells = (f"{cut.size:,}", f"{cut.removed / cut.size:.1%}", f"{cut.threshold:.3f}")
        numbers = "".join(f'<td class="ck-number">{cell}</td>' for cell in cells)
        rows.append(f'<tr{weight}><td title="{html.escape(cut.name)}">{html.escape(cut.name)}</td>{numbers}</tr>')
    head = '<th scope="col">layer</th>' + "".join(
        f'<th scope="col" class="ck-number">{text}</th>' for text in ("weights", "removed", "up to |w|")
    )
    return f'<table class="ck-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def sizes_table(sizes: tuple[Sizes, Sizes] | None, goal: float | None = None, *, outdated: bool = False) -> str:
    """Set the four sizes of a file side by side with those of the float file.

    Parameters
    ----------
    sizes
        Of the file and of the float file; None while they are measured.
    goal
        A fraction of the float `.tflite` at which the bars get a mark.
    outdated
        Whether they are those of the file before, and the new ones are being measured.

    Returns
    -------
    str
        HTML of the same height, whatever is known.
    """
    rows = []
    for kind, text in KINDS:
        size = getattr(sizes[0], kind) if sizes else 0
        share = size / sizes[1].tflite if sizes else 0.0
        cells = (f"{size:,}", f"{share:.0%}") if sizes else ("...", "...")
        numbers = "".join(f'<td class="ck-number">{cell}</td>' for cell in cells)
        mark = "" if goal is None else (
            f'<span style="position:absolute;left:{100 * goal:.1f}%;top:-3px;bottom:-3px;border-left:2px dotted '
            'var(--ck-before)"></span>'
        )  # fmt: skip
        look = "border:1.5px dashed var(--ck-after);background:none" if kind == "entropy" else ""
        bar = (
            f'<div style="position:relative"><span class="ck-bar ck-after" style="width:{100 * min(share, 1):.1f}%;'
            f'{look}"></span>{mark}</div>'
        )
        rows.append(f"<tr><td>{text}</td>{numbers}<td>{bar}</td></tr>")
    what = "the file before this" if outdated else "size of the file"
    head = (
        f'<th scope="col" style="width:29%">{what}</th><th scope="col" class="ck-number" style="width:14%">'
        'bytes</th><th scope="col" class="ck-number" style="width:20%">of float</th><th scope="col"></th>'
    )
    kind = "ck-table ck-outdated" if outdated else "ck-table"
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def drawing(
    setting: Setting, shown: Shown, tried: Mapping[tuple[str, str], Mapping[float, tuple[float, bool]]]
) -> dict[str, Any]:
    """Draw the weights of the layer, and the files tried so far, as plotly's JSON."""
    bins = shown.histogram
    middles = ((bins.edges[:-1] + bins.edges[1:]) / 2).tolist()
    cut = next(each for each in shown.cuts if each.name == setting.layer)
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": middles, "y": bins.kept.tolist(), "name": "kept",
         "marker": {"color": AFTER, "line": {"width": 0}},
         "hovertemplate": "about %{x:.3f}: %{y:,} kept<extra></extra>"},
        {"type": "bar", "x": middles, "y": bins.removed.tolist(), "name": "removed",
         "marker": {"color": BEFORE, "opacity": 0.55, "pattern": {"shape": "/", "fillmode": "overlay"},
                    "line": {"width": 0}},
         "hovertemplate": "about %{x:.3f}: %{y:,} removed<extra></extra>"},
        _here(setting, shown),
        *(_trail(rule, importance, points) for (rule, importance), points in tried.items()),
    ]  # fmt: skip
    most = max(1, int((bins.kept + bins.removed).max()))
    lines = [] if setting.importance != "magnitude" else [
        {"type": "line", "xref": "x", "yref": "y domain", "x0": side * cut.threshold, "x1": side * cut.threshold,
         "y0": 0, "y1": 1, "line": {"dash": "dash", "width": 1.5, "color": CURRENT}} for side in (-1, 1)
    ]  # fmt: skip
    layout = {
        "height": HEIGHT, "bargap": 0, "barmode": "stack", "showlegend": False, "margin": {"t": 26, "l": 62},
        "xaxis": {"domain": [0, 0.45], "title": {"text": f"weights of {setting.layer}"},
                  "range": [float(bins.edges[0]), float(bins.edges[-1])]},
        "yaxis": {"title": {"text": "how many"}, "range": [0, 1.06 * most]},
        "xaxis2": {"domain": [0.58, 1], "anchor": "y2", "range": [-3, 102], "gridcolor": "#e0e0e0",
                   "zeroline": False, "title": {"text": "removed, % of all weights", "font": {"size": 12},
                                                "standoff": 10}},
        "yaxis2": {"anchor": "x2", "type": "log", "range": [-0.7, 2.03], "dtick": 1, "gridcolor": "#e0e0e0",
                   "title": {"text": "misread, %", "font": {"size": 12}, "standoff": 6}},
        "shapes": [*lines, _level(100 * shown.misread_float / shown.n)],
        "annotations": [
            {"text": "kept is filled, removed is hatched", "xref": "x domain", "yref": "y domain", "x": 0, "y": 1.01,
             "xanchor": "left", "yanchor": "bottom", "showarrow": False, "font": {"size": 11}},
            {"text": "the files tried so far", "xref": "x2 domain", "yref": "y2 domain", "x": 0, "y": 1.01,
             "xanchor": "left", "yanchor": "bottom", "showarrow": False, "font": {"size": 11}},
        ],
    }  # fmt: skip
    return figure(data, layout)


def still(picture: Picture, setting: Setting, shown: Shown) -> Picture:
    """Draw what a reader without a kernel sees: the weights, kept and removed, and the sizes."""
    first, second = words(setting, shown)
    picture.text(0, 14, first, size=13, bold=True)
    picture.text(0, 32, second, ink="muted")
    bins, left, width, top, bottom = shown.histogram, 10.0, 350.0, 54.0, 250.0
    most = max(1, int((bins.kept + bins.removed).max()))
    step = width / len(bins.kept)
    for place, (kept, removed) in enumerate(zip(bins.kept.tolist(), bins.removed.tolist(), strict=True)):
        x, high, above = left + place * step, (bottom - top) * kept / most, (bottom - top) * removed / most
        if kept:
            picture.rectangle(x, bottom - high, step, high, fill="after")
        if removed:
            picture.rectangle(x, bottom - high - above, step, above, fill="none", stroke="before")
    picture.line([(left, bottom), (left + width, bottom)])
    picture.text(left, bottom + 16, f"{bins.edges[0]:.3g}", size=11)
    picture.text(left + width, bottom + 16, f"{bins.edges[-1]:.3g}", size=11, anchor="end")
    picture.text(left + width / 2, bottom + 34, f"weights of {setting.layer}; outlined ones went", anchor="middle")
    if shown.sizes is None:
        return picture
    picture.text(410, 66, "size of the file", size=11, ink="muted")
    picture.text(620, 66, "bytes", size=11, ink="muted", anchor="end")
    for row, (kind, text) in enumerate(KINDS):
        y, size = 92 + 34 * row, getattr(shown.sizes[0], kind)
        picture.text(410, y, text)
        picture.text(620, y, f"{size:,}", anchor="end")
        fill, stroke = ("none", "after") if kind == "entropy" else ("after", "none")
        picture.rectangle(634, y - 10, 140 * size / shown.sizes[1].tflite, 11, fill=fill, stroke=stroke)
    return picture


def _here(setting: Setting, shown: Shown) -> dict[str, Any]:
    """Draw a ring where the controls stand."""
    return {"type": "scatter", "mode": "markers", "x": [100 * setting.amount], "xaxis": "x2", "yaxis": "y2",
            "y": [max(100 * shown.misread / shown.n, 0.02)], "name": "yours", "hoverinfo": "skip", "cliponaxis": False,
            "marker": {"symbol": "circle-open", "size": 17, "color": CURRENT, "line": {"width": 3}}}  # fmt: skip


def _trail(rule: str, importance: str, points: Mapping[float, tuple[float, bool]]) -> dict[str, Any]:
    """Draw the files tried with one rule and importance: full when all digits were read, hollow for a preview."""
    rows = sorted(points.items())
    ink, dash = _LOOKS[rule]
    shape = _SHAPES.get(importance, "triangle-up")
    return {"type": "scatter", "mode": "lines+markers", "xaxis": "x2", "yaxis": "y2", "name": f"{importance}, {rule}",
            "x": [100 * amount for amount, _ in rows], "y": [max(share, 0.02) for _, (share, _) in rows],
            "line": {"color": ink, "dash": dash, "width": 1.5},
            "marker": {"symbol": [shape if whole else f"{shape}-open" for _, (_, whole) in rows], "size": 8,
                       "color": ink},
            "hovertemplate": f"{importance}, {RULES[rule]}<br>%{{x:.0f}} % removed: %{{y:.2f}} % misread"
                             "<extra></extra>"}  # fmt: skip


def _level(share: float) -> dict[str, Any]:
    """Mark what the float file misreads."""
    return {"type": "line", "xref": "x2 domain", "yref": "y2", "x0": 0, "x1": 1, "y0": max(share, 0.02),
            "y1": max(share, 0.02), "line": {"dash": "dot", "width": 1.5, "color": BEFORE}}  # fmt: skip


def _key() -> str:
    """Explain lines and marks of the trail, which no colour alone tells apart."""
    marks = "; ".join(f"{_SIGNS.get(name, '▲')} {name}" for name in IMPORTANCES)
    return (
        f'<div class="ck-note">Marks: {marks}; hollow: a preview on 1,000 digits. Lines: solid for one threshold, '
        "dashed in units of the spread, dotted for the same share. The level dotted line is the float file.</div>"
    )
