"""The panel of lesson 03: a layer's activations, how far the grid reaches, and what that does to the int8 file.

`look` gathers what the calibration digits show, `judge` measures a range, `score` makes the file and reads digits with
it; none of them has a widget in it. The panel draws what they give.
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

from compresskit.data import Digits, Split, load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert.calibration import activation_ranges, tensor_histograms
from compresskit.litert.clipped import int8_file, layer_outputs, with_range
from compresskit.quantization.affine import affine_grid
from compresskit.quantization.histogram import Histogram
from compresskit.quantization.ranges import Method, choose_range, range_error
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, classed, list_of, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.zoo import Checkpoint, load_model

METHODS: Final[tuple[Method, ...]] = ("minmax", "moving", "percentile", "mse", "octav", "entropy")
HAND: Final = "by hand"
FACTORS: Final = tuple(2.0 ** (step / 4) for step in range(-20, 25))
"""Where the slider can stand: from 1/32 of the largest value seen to 64 times as far."""
PREVIEW_DIGITS: Final = 1000
HOT_PIXEL: Final = 50.0
"""What the broken pixel shows, where 1 is white."""
BARS: Final = 128
HEIGHT: Final = 470


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    layer
        Whose output is clipped; all other layers keep what was seen.
    digits
        The calibration digits, a key of `calibration_sets`.
    method
        The calibrator that chooses, or `HAND`.
    factor
        How far the hand lets the range reach, as a multiple of what was seen; not used with a calibrator.
    """

    layer: str
    digits: str = "100"
    method: str = HAND
    factor: float = 1.0


@dataclass(frozen=True)
class Judged:
    """A range, and the error that an int8 grid over it makes on the calibration digits.

    Attributes
    ----------
    low, high
        The range.
    rounding, clipping
        Mean squared error by rounding what lies inside and by clipping what lies outside.
    clipped
        Fraction of the values that lie outside.
    """

    low: float
    high: float
    rounding: float
    clipping: float
    clipped: float

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low

    @property
    def rms(self) -> float:
        """Root of the mean squared error, in the unit of the values."""
        return math.sqrt(self.rounding + self.clipping)


@dataclass(frozen=True)
class Seen:
    """What the calibration digits show of one layer.

    Attributes
    ----------
    histogram
        The values that the float model's layer puts out.
    choices
        What each calibrator makes of them.
    sweep
        All positions of the slider.
    """

    histogram: Histogram
    choices: Mapping[str, Judged]
    sweep: tuple[Judged, ...]


@dataclass(frozen=True)
class Shown:
    """Everything that one setting gives.

    Attributes
    ----------
    seen, judged
        The layer's values, and the range chosen.
    misread, n
        How many of `n` validation digits the int8 file misreads.
    misread_float
        How many of the same digits the float model misreads.
    """

    seen: Seen
    judged: Judged
    misread: int
    n: int
    misread_float: int


def calibration_sets(train: Split) -> dict[str, NDArray[Any]]:
    """Choose calibration digits: 1, 10, 100 or 1,000; 100 sevens; 100 of which one has a broken pixel.

    Returns
    -------
    dict of str to ndarray
        Images as they are, uint8; with the broken pixel, float32.
    """
    images = train.images
    broken = np.asarray(images[:100], np.float32) / 255
    broken[0, 14, 14] = HOT_PIXEL
    sizes = {f"{count:,}": images[:count] for count in (1, 10, 100, 1000)}
    return {**sizes, "100 sevens": train.only(7).images[:100], "100, one broken pixel": broken}


def judge(histogram: Histogram, low: float, high: float) -> Judged:
    """Measure a range on a histogram of values; low below high."""
    rounding, clipping = range_error(histogram, low, high)
    grid = affine_grid(low, high)
    x = histogram.centers
    half = float(grid.scale) / 2  # what lies less than half a step outside is not wrong by more than by rounding
    outside = (x < float(grid.low) - half) | (x > float(grid.high) + half)
    clipped = float(histogram.counts[outside].sum()) / histogram.count
    return Judged(float(low), float(high), rounding, clipping, clipped)


def look(tflite: bytes, layer: str, images: NDArray[Any]) -> Seen:
    """Run calibration digits through a float model and gather what one layer puts out.

    Raises
    ------
    ValueError
        If there is no such layer, there are no digits, or the layer puts out nothing but zeros.
    """
    outputs = layer_outputs(tflite)
    if layer not in outputs:
        raise ValueError(f"layer {layer!r} is not in this model; its layers are {', '.join(outputs)}")
    tensor = outputs[layer][0]
    histogram = tensor_histograms(tflite, images, tensors=(tensor,))[tensor]
    if histogram.low == histogram.high:
        raise ValueError(f"layer {layer!r} puts out {histogram.low} throughout; there is no range to choose")
    ends = min(histogram.low, 0.0), max(histogram.high, 0.0)
    choices: dict[str, Judged] = {name: judge(histogram, *choose_range(histogram, name)) for name in METHODS}
    sweep = tuple(judge(histogram, ends[0] * factor, ends[1] * factor) for factor in FACTORS)
    return Seen(histogram, choices, sweep)


def chosen(seen: Seen, setting: Setting) -> Judged:
    """Give the range that a setting asks for."""
    if setting.method != HAND:
        return seen.choices[setting.method]
    ends = min(seen.histogram.low, 0.0), max(seen.histogram.high, 0.0)
    return judge(seen.histogram, ends[0] * setting.factor, ends[1] * setting.factor)


def score(
    checkpoint: Checkpoint, layer: str, judged: Judged, ranges: Mapping[str, tuple[float, float]], digits: Split
) -> int:
    """Make the int8 file in which one layer has this range, and count the digits that it misreads."""
    changed = with_range(ranges, checkpoint.tflite, layer, judged.low, judged.high)
    small = int8_file(checkpoint.tflite, changed, np.asarray(digits.images[:8]))
    return evaluate(Checkpoint(f"{checkpoint.name}, {layer} clipped", small), digits).errors


class ChooseRanges(StatusPanel):
    """The panel; `choose_ranges` makes it.

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
        self.sets = calibration_sets(digits.train)
        self.validation = digits.validation
        self.tried: dict[tuple[str, str], dict[float, tuple[float, bool]]] = {}
        self.result: Shown | None = None
        self._following = False
        self._seen = functools.lru_cache(maxsize=64)(
            lambda layer, name: look(self.checkpoint.tflite, layer, self.sets[name])
        )
        self._ranges = functools.lru_cache(maxsize=16)(
            lambda name: activation_ranges(self.checkpoint.tflite, self.sets[name])
        )
        self._misread_float = functools.lru_cache(maxsize=4)(
            lambda n: evaluate(self.checkpoint, self.validation.take(n)).errors
        )
        self._build()
        live: Live[Setting, Shown] = Live(
            self._preview, self._exact, self._on_result, self._on_error, lock=self.lock, cache_entries=128
        )
        self._live = live
        self._lives.append(live)
        live.submit(self.setting)

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        return Setting(
            str(self.layer.value), str(self.digits.value), str(self.method.value), float(self.reach.value)
        )  # fmt: skip

    # -- what is computed ----------------------------------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Shown:
        return self._shown(setting, PREVIEW_DIGITS)

    def _exact(self, setting: Setting, stop: Stop) -> Shown:
        return self._shown(setting, len(self.validation))

    def _shown(self, setting: Setting, count: int) -> Shown:
        seen = self._seen(setting.layer, setting.digits)
        judged, some = chosen(seen, setting), self.validation.take(min(count, len(self.validation)))
        misread = score(self.checkpoint, setting.layer, judged, self._ranges(setting.digits), some)
        return Shown(seen, judged, misread, len(some), self._misread_float(len(some)))

    # -- what is shown -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        layers = [layer.name for layer in self.checkpoint.layers]
        self.layer = list_of("Output of layer", [(name, name) for name in layers], layers[0], "ck-layer")
        self.digits = list_of("Calibration digits", [(name, name) for name in self.sets], "100", "ck-digits-chosen")
        self.method = list_of("Range chosen", [(name, name) for name in (HAND, *METHODS)], HAND, "ck-method")
        steps = [(f"{factor:.3g} x the largest seen", factor) for factor in FACTORS]
        self.reach = slider_of("Range reaches to", steps, 1.0, "ck-reach")
        self.status = Status()
        self.table = ipywidgets.HTML()
        self.chart = Chart(
            figure([], {"height": HEIGHT, "showlegend": False}), height=HEIGHT, lock=self.lock,
            label="Values of the layer with the range; error against range; digits misread against range",
        )  # fmt: skip
        for control in (self.layer, self.digits, self.method):
            self._watch(control, self._on_choice)
        self._watch(self.reach, self._on_hand)
        controls = [self.layer, self.digits, self.method, self.reach, self.table]
        plots = classed(ipywidgets.VBox([self.status, self.chart]), "ck-grow", "ck-stack")
        row = classed(ipywidgets.HBox([classed(ipywidgets.VBox(controls), "ck-controls"), plots]), "ck-row")
        names = {
            ".ck-layer": "Output of layer", ".ck-digits-chosen": "Calibration digits",
            ".ck-method": "Range chosen", ".ck-reach": "Range reaches to",
        }  # fmt: skip
        self._frame([row], names)

    def _on_choice(self, _change: Any) -> None:
        self._live.submit(self.setting)

    def _on_hand(self, _change: Any) -> None:
        """Take over from the calibrator as soon as the slider is moved."""
        if self._following:
            return
        if self.method.value != HAND:
            self.method.value = HAND  # submits
        else:
            self._live.submit(self.setting)

    def _on_result(self, outcome: Outcome[Setting, Shown]) -> None:
        setting, shown = outcome.setting, outcome.value
        tried = self.tried.setdefault((setting.layer, setting.digits), {})
        known = tried.get(shown.judged.width)
        if outcome.exact or known is None or not known[1]:
            tried[shown.judged.width] = (100 * shown.misread / shown.n, outcome.exact)
        if outcome.outdated and not outcome.exact and setting.layer != self.layer.value:
            return
        self.result = shown
        if setting.method != HAND and not outcome.outdated:
            self._follow(shown)
        self.status.say("exact" if outcome.exact else "preview", *words(setting, shown))
        self.table.value = table(shown, setting.method)
        self.chart.show(drawing(setting, shown, tried))

    def _follow(self, shown: Shown) -> None:
        """Put the slider where the calibrator's range ends."""
        widest = shown.seen.choices["minmax"].width
        self._following = True
        try:
            self.reach.value = min(FACTORS, key=lambda factor: abs(math.log(factor * widest / shown.judged.width)))
        finally:
            self._following = False

    # -- without a kernel ----------------------------------------------------------------------------------------

    def _summary(self) -> str:
        where = self.setting
        return f"Ranges of {self.checkpoint.name}: {where.layer}, calibrated on {where.digits}"

    def _picture(self) -> Picture:
        if self.result is None:
            picture = Picture(780, 300, self._summary())
            picture.text(10, 30, "Run the cell to choose ranges.", size=14)
            return picture
        title = f"{self._summary()}. {'. '.join(words(self.setting, self.result))}"
        return still(Picture(780, 300, title), self.setting, self.result)


def choose_ranges(model: Any = "digit_reader", data: Digits | None = None) -> ChooseRanges:
    """Show the activations of a model's layers, with a range that the learner or a calibrator chooses.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default. Ranges are measured on training digits, files scored on validation digits.

    Returns
    -------
    ChooseRanges
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return ChooseRanges(model, data)


def words(setting: Setting, shown: Shown) -> tuple[str, str]:
    """Say what a range does: to the values, and to the file."""
    judged = shown.judged
    return (
        f"The int8 file misreads {shown.misread:,} of {shown.n:,} digits",
        f"The float file: {shown.misread_float:,}. {setting.layer} from {_real(judged.low)} to {_real(judged.high)}: "
        f"{judged.clipped:.2%} clipped; error {judged.rms:.2g}",
    )


def _real(value: float) -> str:
    """Write a value of a layer: three digits, and none of them as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(shown: Shown, method: str) -> str:
    """Set the calibrators' choices side by side, the one that is used in bold; and the two errors of the range."""
    rows = []
    for name, judged in shown.seen.choices.items():
        cells = (_real(judged.high), f"{judged.clipped:.2%}", f"{judged.rms:.2g}")
        weight = ' style="font-weight:600"' if name == method else ""
        numbers = "".join(f'<td class="ck-number">{cell}</td>' for cell in cells)
        rows.append(f"<tr{weight}><td>{name}</td>{numbers}</tr>")
    head = "".join(
        f'<th scope="col"{kind}>{text}</th>'
        for text, kind in (("calibrator", ""), *((t, ' class="ck-number"') for t in ("up to", "clipped", "error")))
    )
    rounding, clipping = math.sqrt(shown.judged.rounding), math.sqrt(shown.judged.clipping)
    note = f"Your range: error {rounding:.2g} by rounding, {clipping:.2g} by clipping."
    return (
        f'<table class="ck-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<div class="ck-note">{note}</div>'
    )


def drawing(setting: Setting, shown: Shown, tried: Mapping[float, tuple[float, bool]]) -> dict[str, Any]:
    """Draw the values with the range, the calibrators, the errors and the files tried, as plotly's JSON."""
    seen, judged = shown.seen, shown.judged
    x, counts = bars(seen.histogram)
    left, right = float(x[0]), float(x[-1])
    margin = 0.06 * (right - left)
    span = [left - margin, right + margin]
    names = list(METHODS)[::-1]
    sweep = [each.width for each in seen.sweep]
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": x.tolist(), "y": counts.tolist(), "marker": {"color": AFTER, "line": {"width": 0}},
         "hovertemplate": "%{x:.3g}: %{y:,} values<extra></extra>", "name": "values", "showlegend": False},
        {"type": "scatter", "mode": "markers", "x": [seen.choices[name].high for name in names], "y": names,
         "xaxis": "x", "yaxis": "y2", "marker": {"symbol": "diamond", "size": 9, "color": BEFORE}, "cliponaxis": False,
         "hovertemplate": "%{y}: up to %{x:.4g}<extra></extra>", "name": "calibrators' choices", "showlegend": False},
        *(_curve(sweep, values, name, line) for name, values, line in (
            ("both", [each.rounding + each.clipping for each in seen.sweep],
             {"color": CURRENT, "width": 7}),  # below the others, and wide: each of them runs along it on one side
            ("by rounding", [each.rounding for each in seen.sweep], {"color": AFTER, "dash": "dash", "width": 2}),
            ("by clipping", [each.clipping for each in seen.sweep], {"color": BEFORE, "dash": "dot", "width": 2}))),
        {"type": "scatter", "mode": "markers", "x": [seen.choices[name].width for name in names],
         "y": [seen.choices[name].rms for name in names], "text": names, "xaxis": "x2", "yaxis": "y3",
         "marker": {"symbol": "diamond", "size": 8, "color": BEFORE}, "showlegend": False,
         "hovertemplate": "%{text}: error %{y:.3g}<extra></extra>", "name": "calibrators"},
        _ring(judged.width, judged.rms, "y3"),
        *(_tried(tried, exact) for exact in (True, False)),
        _ring(judged.width, max(tried.get(judged.width, (0.0, True))[0], 0.01), "y4"),
    ]  # fmt: skip
    wide = [math.log10(sweep[0]) - 0.08, math.log10(sweep[-1]) + 0.08]
    errors = [each.rms for each in seen.sweep]
    few = {"gridcolor": "#e0e0e0", "zeroline": False, "title": {"standoff": 8, "font": {"size": 12}}}
    layout = {
        "height": HEIGHT, "bargap": 0, "margin": {"t": 14, "l": 76}, "showlegend": False,
        "xaxis": {"domain": [0, 0.46], "range": span, "anchor": "y",
                  "title": {"text": f"what {setting.layer} puts out"}},
        "yaxis": {"domain": [0, 0.58], "type": "log", "range": [-0.3, math.log10(counts.max() * 2)], "dtick": 1,
                  "title": {"text": "how many"}},
        "yaxis2": {**few, "domain": [0.66, 1], "type": "category", "anchor": "x", "range": [-0.6, len(names) - 0.4]},
        "xaxis2": {**few, "domain": [0.6, 1], "type": "log", "range": wide, "anchor": "y4",
                   "title": {"text": "width of the range", "standoff": 8, "font": {"size": 12}}, "dtick": 1},
        "yaxis3": {**few, "domain": [0.5, 1], "type": "log", "anchor": "x2", "dtick": 1,
                   "range": [math.log10(min(errors)) - 1.3, math.log10(max(errors)) + 0.9],
                   "title": {"text": "error (rms)", "font": {"size": 12}}},
        "yaxis4": {**few, "domain": [0, 0.4], "type": "log", "anchor": "x2", "range": [-0.7, 2.05], "dtick": 1,
                   "title": {"text": "misread, %", "font": {"size": 12}}},
        "shapes": [
            *(_shade(*ends) for ends in ((span[0], judged.low), (judged.high, span[1])) if ends[0] < ends[1]),
            _level(100 * shown.misread_float / shown.n),
        ],
        "annotations": [_label("clipping", 0.02, "left"), _label("rounding", 0.98, "right")],
    }  # fmt: skip
    return figure(data, layout)


def bars(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Join the bins of a histogram until there are few enough to draw; middles and counts."""
    step = -(-histogram.counts.size // BARS)
    first = histogram.first // step
    bins = (histogram.first + np.arange(histogram.counts.size)) // step - first
    counts = np.bincount(bins, histogram.counts).astype(np.int64)
    return np.asarray((first + np.arange(counts.size) + 0.5) * step * histogram.width, np.float64), counts


def still(picture: Picture, setting: Setting, shown: Shown) -> Picture:
    """Draw what a reader without a kernel sees: the values, the range, and the errors."""
    first, second = words(setting, shown)
    picture.text(0, 14, first, size=13, bold=True)
    picture.text(0, 32, second, size=12, ink="muted")
    x, counts = bars(shown.seen.histogram)
    left, width, top, bottom = 10.0, 400.0, 50.0, 250.0
    low, high = float(x[0]), float(x[-1])

    def place(value: float) -> float:
        return left + width * (min(max(value, low), high) - low) / (high - low)

    for start, end in ((low, shown.judged.low), (shown.judged.high, high)):
        if start < end:
            picture.rectangle(place(start), top, place(end) - place(start), bottom - top, fill="sunken")
    tall = np.log10(counts + 1.0)
    for middle, height in zip(x.tolist(), (tall / tall.max() * (bottom - top)).tolist(), strict=True):
        picture.rectangle(place(middle), bottom - height, width / len(x), height, fill="after")
    picture.line([(left, bottom), (left + width, bottom)], stroke="line")
    ends = shown.seen.histogram.low, shown.seen.histogram.high
    picture.text(left, bottom + 16, f"{ends[0]:.3g}", size=11)
    picture.text(left + width, bottom + 16, f"{ends[1]:.3g}", size=11, anchor="end")
    picture.text(left + width / 2, bottom + 34, f"what {setting.layer} puts out; grey is clipped", anchor="middle")
    picture.text(470, 66, "calibrator", size=11, ink="muted")
    for column, head in ((610, "up to"), (690, "clipped"), (770, "error")):
        picture.text(column, 66, head, size=11, anchor="end", ink="muted")
    for row, (name, judged) in enumerate(shown.seen.choices.items()):
        y = 92 + 26 * row
        picture.text(470, y, name, bold=name == setting.method)
        for column, text in ((610, _real(judged.high)), (690, f"{judged.clipped:.2%}"), (770, f"{judged.rms:.2g}")):
            picture.text(column, y, text, anchor="end")
    return picture


def _curve(x: list[float], squares: list[float], name: str, line: dict[str, Any]) -> dict[str, Any]:
    roots = [math.sqrt(value) if value > 0 else None for value in squares]
    return {"type": "scatter", "mode": "lines", "x": x, "y": roots, "name": name, "xaxis": "x2", "yaxis": "y3",
            "showlegend": False, "line": line, "opacity": 0.35 if name == "both" else 1,
            "hovertemplate": f"{name}: %{{y:.3g}}<extra></extra>"}  # fmt: skip


def _ring(x: float, y: float, axis: str) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "xaxis": "x2", "yaxis": axis, "name": "yours",
            "showlegend": False, "hoverinfo": "skip", "cliponaxis": False,
            "marker": {"symbol": "circle-open", "size": 15, "color": CURRENT, "line": {"width": 3}}}  # fmt: skip


def _tried(tried: Mapping[float, tuple[float, bool]], exact: bool) -> dict[str, Any]:
    """Draw the files made so far: solid when all validation digits were read, hollow for a preview."""
    points = sorted((width, max(share, 0.01)) for width, (share, whole) in tried.items() if whole == exact)
    return {"type": "scatter", "mode": "markers", "x": [point[0] for point in points],
            "y": [point[1] for point in points], "xaxis": "x2", "yaxis": "y4", "showlegend": False,
            "name": "file" if exact else "preview", "hovertemplate": "misread %{y:.2f} %<extra></extra>",
            "marker": {"symbol": "circle" if exact else "circle-open", "size": 7, "color": AFTER}}  # fmt: skip


def _shade(start: float, end: float) -> dict[str, Any]:
    """Shade what lies outside the range: those values are clipped."""
    return {"type": "rect", "xref": "x", "yref": "y domain", "x0": start, "x1": end, "y0": 0, "y1": 1,
            "fillcolor": "rgba(128,128,128,0.22)", "line": {"width": 0}, "layer": "below"}  # fmt: skip


def _label(text: str, x: float, side: str) -> dict[str, Any]:
    """Name the error that rules on one side of the valley."""
    return {"text": text, "xref": "x2 domain", "yref": "y3 domain", "x": x, "y": 1.0, "xanchor": side, "yanchor": "top",
            "showarrow": False, "font": {"size": 12}}  # fmt: skip


def _level(share: float) -> dict[str, Any]:
    """Mark what the float file misreads."""
    return {"type": "line", "xref": "x2 domain", "yref": "y4", "x0": 0, "x1": 1, "y0": max(share, 0.01),
            "y1": max(share, 0.01), "line": {"dash": "dot", "width": 1.5, "color": BEFORE}}  # fmt: skip
