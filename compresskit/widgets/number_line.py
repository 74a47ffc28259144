"""The number line of lesson 02: a range, a bit width, a kind of grid, and the error of each weight.

`measure` is the arithmetic and has no widget in it; the panel draws what it gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import ArrayLike, NDArray

from compresskit.quantization.affine import Grid, affine_grid, dequantize, fake_quantize, symmetric_grid
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import sentence
from compresskit.widgets.panel import Panel, Status, choice_of, classed, number_slider
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE

HEIGHT: Final = 340
BINS: Final = 160
MOST_TICKS: Final = 64
"""Levels that are still drawn one by one; of more, only the ends are."""


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    low, high
        The range that the grid is made for. A symmetric grid takes the larger distance from zero.
    bits
        2 to 16.
    symmetric
        Zero in the middle, or a zero point.
    """

    low: float
    high: float
    bits: int
    symmetric: bool

    def grid(self) -> Grid:
        """Make the grid."""
        if self.symmetric:
            return symmetric_grid(max(abs(self.low), abs(self.high)), self.bits)
        return affine_grid(self.low, self.high, self.bits)


@dataclass(frozen=True)
class Measured:
    """What a grid does to values.

    Attributes
    ----------
    grid
        The grid.
    levels
        The real numbers on it, ascending; all 2^bits of them, less one where the grid is its own mirror image.
    errors
        Value on the grid minus value, for each value.
    clipped
        Fraction of the values that are moved by more than half a step: they lie outside the grid and go to its end.
    rms
        Root of the mean squared error.
    snr
        Signal-to-noise ratio in decibels, 10 log10(sum of squares of the values / of the errors); infinite where there
        is no error.
    used
        How many different levels the values fall on.
    """

    grid: Grid
    levels: NDArray[np.float32]
    errors: NDArray[np.float64]
    clipped: float
    rms: float
    snr: float
    used: int


def measure(values: ArrayLike, setting: Setting) -> Measured:
    """Put values on a grid and measure the error.

    Parameters
    ----------
    values
        Real numbers, any shape, finite and not empty.
    setting
        The grid.

    Returns
    -------
    Measured
        Errors in the order of the flattened values.

    Raises
    ------
    ValueError
        If there are no values, one is not finite, or the setting makes no grid.
    """
    x = np.asarray(values, np.float32).ravel()
    if not x.size or not np.isfinite(x).all():
        raise ValueError(f"values: {x.size} numbers, of which {int(np.isfinite(x).sum())} are finite; give finite ones")
    grid = setting.grid()
    on_grid = fake_quantize(x, grid)
    errors = on_grid.astype(np.float64) - x
    beyond = np.maximum(float(grid.low) - x.astype(np.float64), x - float(grid.high))  # the errors carry float32's own
    outside = beyond > float(grid.scale) / 2 * (1 + 1e-5)
    noise, signal = float(np.square(errors).sum()), float(np.square(x, dtype=np.float64).sum())
    return Measured(
        grid=grid,
        levels=dequantize(np.arange(grid.lowest, grid.highest + 1), grid),
        errors=errors,
        clipped=float(outside.mean()),
        rms=math.sqrt(noise / x.size),
        snr=math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise),
        used=len(np.unique(on_grid)),
    )


class NumberLine(Panel):
    """The panel: sliders for the range and the bits, the values with the grid under them, the errors beside.

    Parameters
    ----------
    values
        Real numbers, such as a layer's weights.
    name
        What they are, for the titles.
    """

    def __init__(self, values: ArrayLike, name: str) -> None:
        super().__init__()
        self.values = np.asarray(values, np.float32).ravel()
        self.name = name
        self.reach = float(np.abs(self.values).max()) or 1.0
        step = 10.0 ** (math.floor(math.log10(self.reach)) - 2)
        most = math.ceil(1.25 * self.reach / step) * step
        start_low, start_high = (
            math.floor(float(self.values.min()) / step),
            math.ceil(float(self.values.max()) / step),
        )
        form = f".{max(0, -math.floor(math.log10(step)))}f"
        self.low = number_slider("Range from", -most, 0.0, step, start_low * step, "ck-low", form)
        self.high = number_slider("Range to", 0.0, most, step, start_high * step, "ck-high", form)
        self.bits = number_slider("Bits", 2, 16, 1, 4, "ck-bits", ".0f")
        self.kind = choice_of("Grid", [("zero in the middle", True), ("with a zero point", False)], True, "ck-kind")
        self.status = Status()
        self.result = measure(self.values, self.setting())
        self.chart = Chart(
            self._figure(), height=HEIGHT, label=f"{name}: values on the grid, and errors", lock=self.lock
        )
        self.facts = classed(ipywidgets.HTML(), "ck-note")
        for control in (self.low, self.high, self.bits, self.kind):
            self._watch(control, self._on_change)
        controls = classed(ipywidgets.VBox([self.low, self.high, self.bits, self.kind, self.facts]), "ck-controls")
        plots = classed(ipywidgets.VBox([self.status, self.chart]), "ck-grow", "ck-stack")
        self._frame(
            [classed(ipywidgets.HBox([controls, plots]), "ck-row")],
            {".ck-low": "Lower end of the range", ".ck-high": "Upper end of the range", ".ck-bits": "Bits"},
        )
        self._show()

    def setting(self) -> Setting:
        """Read the controls."""
        return Setting(float(self.low.value), float(self.high.value), int(self.bits.value), bool(self.kind.value))

    def _on_change(self, _change: Any) -> None:
        with self.lock:
            self.result = measure(self.values, self.setting())
            self._show()

    def _show(self) -> None:
        self.chart.show(self._figure())
        self.status.say("exact", *self._words())
        grid = self.result.grid
        self.facts.value = (
            f"Scale S = {float(grid.scale):.4g}<br>Zero point Z = {int(grid.zero_point)}<br>"
            f"Integers {grid.lowest} to {grid.highest}<br>"
            f"Reaches from {float(grid.low):.4g} to {float(grid.high):.4g}"
        )

    def _words(self) -> tuple[str, str]:
        found = self.result
        snr = "no error at all" if math.isinf(found.snr) else f"{found.snr:.1f} dB signal to noise"
        return (
            f"{snr}, {found.clipped:.2%} clipped",
            f"error {found.rms:.3g} (rms), step {float(found.grid.scale):.3g}; "
            f"{found.used:,} of {len(found.levels):,} levels are used",
        )

    def _say_error(self, error: Exception) -> None:
        self.status.say("error", sentence(error))

    def _figure(self) -> dict[str, Any]:
        found, low, high = self.result, float(self.result.grid.low), float(self.result.grid.high)
        x, counts = _histogram(self.values, -1.3 * self.reach, 1.3 * self.reach)
        top = float(counts.max()) * 1.5
        data = [_bars(x, counts, "values", AFTER, "", f"{self.name}: %{{x:.4g}}, %{{y:,}} of them"), *self._ticks(top)]
        widest = max(float(np.abs(found.errors).max()), 1e-12)
        error_x, error_counts = _histogram(found.errors, -widest, widest, 81)
        data.append(_bars(error_x, error_counts, "errors", BEFORE, "2", "error %{x:.4g}: %{y:,} values"))
        step = float(found.grid.scale)
        wide = max(widest, step / 2) * 1.1
        layout = {
            "height": HEIGHT,
            "bargap": 0,
            "barmode": "overlay",
            "xaxis": {"domain": [0, 0.62], "range": [-1.3 * self.reach, 1.3 * self.reach],
                      "title": {"text": self.name}},
            "yaxis": {"type": "log", "range": [-0.6, math.log10(top)], "title": {"text": "how many"}, "dtick": 1},
            "xaxis2": {"domain": [0.72, 1], "anchor": "y2", "range": [-wide, wide],
                       "title": {"text": "error", "standoff": 10, "font": {"size": 12}},
                       "gridcolor": "#e0e0e0", "zeroline": False, **_error_ticks(step, widest)},
            "yaxis2": {"anchor": "x2", "type": "log", "gridcolor": "#e0e0e0", "zeroline": False, "dtick": 1,
                       "range": [-0.6, math.log10(float(error_counts.max()) * 1.5)]},
            "shapes": [
                *(_shade(*ends) for ends in ((-1.3 * self.reach, low), (high, 1.3 * self.reach)) if ends[0] < ends[1]),
                *(_dashes(sign * step / 2) for sign in (-1, 1)),
            ],
        }  # fmt: skip
        return figure(data, layout)

    def _ticks(self, top: float) -> list[dict[str, Any]]:
        """Draw the levels as upright lines; where there are too many, the two ends alone."""
        levels = self.result.levels.astype(float)
        drawn = levels if len(levels) <= MOST_TICKS else levels[[0, -1]]
        label = "levels of the grid" if len(levels) <= MOST_TICKS else f"ends of the grid ({len(levels):,} levels)"
        gaps: list[Any] = [value for level in drawn.tolist() for value in (level, level, None)]
        return [
            {"type": "scatter", "mode": "lines", "x": gaps, "y": [0.1, top, None] * len(drawn), "name": label,
             "line": {"color": BEFORE, "width": 1.2 if len(drawn) > 2 else 2}, "hoverinfo": "skip"}
        ]  # fmt: skip

    def _summary(self) -> str:
        setting = self.setting()
        kind = "symmetric" if setting.symmetric else "with a zero point"
        return f"{self.name} on a grid of {setting.bits} bits ({kind}): {'; '.join(self._words())}"

    def _picture(self) -> Picture:
        found = self.result
        picture = Picture(760, 270, self._summary())
        picture.text(0, 14, self._words()[0], size=13, bold=True)
        picture.text(0, 32, self._words()[1], size=12, ink="muted")
        _, counts = _histogram(self.values, -1.3 * self.reach, 1.3 * self.reach)
        left, width, top, bottom = 10, 460, 50, 225

        def place(value: float) -> float:
            return left + width * (value / (1.3 * self.reach) + 1) / 2

        for start, end in ((-1.3 * self.reach, float(found.grid.low)), (float(found.grid.high), 1.3 * self.reach)):
            if start < end:
                picture.rectangle(place(start), top, place(end) - place(start), bottom - top, fill="sunken")
        _draw_bars(picture, counts, left, width, top, bottom, "after")
        levels = found.levels.tolist()
        for level in levels if len(levels) <= MOST_TICKS else (levels[0], levels[-1]):
            if abs(level) <= 1.3 * self.reach:
                picture.line([(place(level), top), (place(level), bottom)], stroke="before", width=1)
        picture.text(left + width / 2, bottom + 34, self.name, anchor="middle")
        for value in (-self.reach, 0.0, self.reach):
            picture.text(place(value), bottom + 16, f"{value:.3g}", size=11, anchor="middle")
        widest = max(float(np.abs(found.errors).max()), 1e-12)
        _, error_counts = _histogram(found.errors, -widest, widest, 81)
        _draw_bars(picture, error_counts, 520, 230, top, bottom, "before")
        picture.text(635, bottom + 34, "error", anchor="middle")
        for value, x in ((-widest, 545), (0.0, 635), (widest, 725)):
            picture.text(x, bottom + 16, f"{value:.2g}", size=11, anchor="middle")
        return picture


def number_line(values: ArrayLike, name: str) -> NumberLine:
    """Show values on a number line, with a grid that the learner shapes.

    Parameters
    ----------
    values
        Real numbers, such as a layer's weights.
    name
        What they are.
    """
    return NumberLine(values, name)


def _histogram(
    values: NDArray[Any], low: float, high: float, bins: int = BINS
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count values in equal bins; give the bins' middles and the counts."""
    counts, edges = np.histogram(values, bins, (low, high))
    return (edges[:-1] + edges[1:]) / 2, counts


def _bars(x: NDArray[Any], y: NDArray[Any], name: str, ink: str, axis: str, hover: str) -> dict[str, Any]:
    return {
        "type": "bar", "x": x.tolist(), "y": y.tolist(), "name": name, "marker": {"color": ink, "line": {"width": 0}},
        "xaxis": f"x{axis}", "yaxis": f"y{axis}", "hovertemplate": f"{hover}<extra></extra>",
    }  # fmt: skip


def _shade(start: float, end: float) -> dict[str, Any]:
    """Shade what lies outside the grid: those values are clipped."""
    return {"type": "rect", "xref": "x", "yref": "y domain", "x0": start, "x1": end, "y0": 0, "y1": 1,
            "fillcolor": "rgba(128,128,128,0.18)", "line": {"width": 0}, "layer": "below"}  # fmt: skip


def _error_ticks(step: float, widest: float) -> dict[str, Any]:
    """Label half a step, in the formula's own letter; once clipping goes far beyond it, the largest error instead."""
    end, name = (widest, f"{widest:.2g}") if widest > 2 * step else (step / 2, "S/2")
    return {"tickvals": [-end, 0, end], "ticktext": [f"−{name}", "0", name], "tickangle": 0}


def _dashes(x: float) -> dict[str, Any]:
    """Mark half a step in the plot of errors: what rounding alone cannot exceed."""
    return {"type": "line", "xref": "x2", "yref": "y2 domain", "x0": x, "x1": x, "y0": 0, "y1": 1,
            "line": {"dash": "dot", "width": 1.5, "color": AFTER}}  # fmt: skip


def _draw_bars(
    picture: Picture, counts: NDArray[Any], left: float, width: float, top: float, bottom: float, ink: str
) -> None:
    """Draw counts on a logarithmic scale, so that a single clipped value is still seen."""
    heights = np.log10(counts + 1.0)
    heights = heights / (heights.max() or 1.0)
    step = width / len(counts)
    for place in np.flatnonzero(heights):
        tall = float(heights[place]) * (bottom - top)
        picture.rectangle(left + step * float(place), bottom - tall, step, tall, fill=ink)
    picture.line([(left, bottom), (left + width, bottom)], stroke="line")
