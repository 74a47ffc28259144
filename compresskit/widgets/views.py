"""The parts of a workbench as plain functions: results in, plotly's JSON, HTML or a `Picture` out."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.litert.inspect import Layer
from compresskit.widgets.figures import figure
from compresskit.widgets.frontier import staircase, unbeaten
from compresskit.widgets.picture import Picture, data_uri
from compresskit.widgets.pieces import as_one, pieces_of
from compresskit.widgets.points import WeightView
from compresskit.widgets.style import AFTER, BEFORE, CURRENT

ACCURACY_TICKS: Final = (0.0, 50.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95)
_LOW_ENDS: Final = (95.0, 80.0, 50.0, 0.0)  # the accuracy axis reaches down to one of these, so that it seldom moves
SIZE_TICKS: Final = tuple(float(f"{step}e{power}") for power in range(-4, 7) for step in (1, 2, 5))
SHOWN_DIGITS: Final = 40
_NOTE_LINES: Final = 6
_LEAST_LOSS: Final = 1e-5  # a logarithm has to be taken
NAME_LETTERS: Final = 11
_NAMED_ABSENT: Final = 2
_ABSENT_LETTERS: Final = 60
_GAP: Final = 3 * "\N{NO-BREAK SPACE}"  # between a point and its name
FRONTIER: Final = "#7d7d7d"  # three to one on the light and on the dark ground
NOTHING_MISREAD: Final = "None: it reads all that the original reads."


def kilobytes(size: float) -> str:
    """Write bytes as kB of 1,000 bytes."""
    return f"{size / 1000:,.1f} kB"


def percent(fraction: float) -> str:
    """Write a fraction as a percentage with two decimals."""
    return f"{100 * fraction:.2f} %"


def times_smaller(before: float, after: float) -> str:
    """Say how a size compares with the original's, in words that hold in both directions."""
    if after == before:
        return "as large as the original"
    return f"{before / after:.1f} times smaller" if after < before else f"{after / before:.2f} times larger"


@dataclass(frozen=True)
class Mark:
    """A point of a plot of size against accuracy.

    Attributes
    ----------
    size : int
        Bytes.
    accuracy, low, high : float
        Fractions; the ends of the interval.
    n : int
        Digits read.
    exact : bool
        Whether these are all the digits.
    label : str
        What was done to the model.
    at : float or None
        Place on the axis of sizes, where that shows something else than kB of the file.
    trained : bool
        Whether the model was trained for it.
    name, note : str
        What someone called it, and noted; often empty.
    loss : float
        Mean cross-entropy in nats; nan where it is not known.
    """

    size: int
    accuracy: float
    low: float
    high: float
    n: int
    exact: bool
    label: str
    at: float | None = None
    trained: bool = False
    name: str = ""
    note: str = ""
    loss: float = math.nan

    @property
    def across(self) -> float:
        """Place on the axis of sizes."""
        return self.size / 1000 if self.at is None else self.at

    @property
    def error(self) -> float:
        """Misread digits in per cent, at least half a digit, since a logarithm has to be taken."""
        return 100 * max(1 - self.accuracy, 0.5 / self.n)

    def height(self, upward: str) -> float:
        """Place on the upward axis, of which less is better: the loss in nats, or the error in per cent."""
        return max(self.loss, _LEAST_LOSS) if upward == "loss" else self.error

    def hover(self, original: int, noun: str) -> str:
        """Text of the mark in plotly's markup; `noun` is what was read."""
        kind = "all" if self.exact else "preview of"
        loss = "" if math.isnan(self.loss) else f", loss {self.loss:.4f}"
        called = f"<b>{html.escape(self.name)}</b><br>" if self.name else ""
        noted = "".join(f"<br><i>{html.escape(line)}</i>" for line in _lines(self.note))
        return (
            f"{called}<b>{percent(self.accuracy)}</b> ({percent(self.low)} to {percent(self.high)})<br>"
            f"<b>{kilobytes(self.size)}</b>, {times_smaller(original, self.size)}<br>{html.escape(self.label)}<br>"
            f"{kind} {self.n:,} {noun}{loss}{noted}"
        )


def _lines(note: str) -> list[str]:
    """Break a note into the lines that fit beside the mouse."""
    lines = [line for part in note.splitlines() for line in textwrap.wrap(part, 56)]
    return lines if len(lines) <= _NOTE_LINES else [*lines[: _NOTE_LINES - 1], "…"]


def tradeoff_figure(
    original: Mark | None,
    marks: Sequence[Mark],
    current: Mark | None,
    axis: str,
    *,
    unit: str = "kB",
    upward: str = "accuracy",
    compared: Sequence[tuple[str, Mark]] = (),
    noun: str = "digits",
) -> dict[str, Any]:
    """Plot size against accuracy.

    The accuracy axis is stretched towards 100 %: its unit is the logarithm of the error, so that 98.9 % and 99.0 % stay
    apart while a collapse to 11 % is in the plot too.

    Parameters
    ----------
    original
        The star; None before it is known.
    marks
        Everything visited; previews are drawn hollow with their interval.
    current
        Where the sliders stand: a ring.
    axis
        Title of the axis of sizes.
    unit
        Of the axis of sizes.
    upward
        "accuracy", "misread" (the same axis, named by how many are misread), or "loss".
    compared
        Marks that are held side by side, with the letters that they get.
    noun
        What is read, in the plural.

    Returns
    -------
    dict
        For `Chart`. Trace 0 is the original, 1 the exact points, 2 the previews, 3 the ring, and 4, if there are any,
        the exact points of trained models; ``y`` is the error in per cent or the loss, ``customdata`` holds ``[position
        in marks, accuracy]``. Then come, without points to click, the frontier, the names, and the letters.
    """
    exact = [(place, mark) for place, mark in enumerate(marks) if mark.exact and not mark.trained]
    trained = [(place, mark) for place, mark in enumerate(marks) if mark.exact and mark.trained]
    hollow = [(place, mark) for place, mark in enumerate(marks) if not mark.exact]
    base = original.size if original else 1
    traces = [
        _marks("original", [(-1, original)] if original else [], base, BEFORE, "star", 17, upward, noun),
        _marks(f"all {noun}", exact, base, AFTER, "circle", 11, upward, noun),
        _marks("preview", hollow, base, AFTER, "circle-open", 11, upward, noun)
        | ({"error_y": _intervals([mark for _, mark in hollow])} if upward != "loss" else {}),
        _marks("here", [(-2, current)] if current else [], base, CURRENT, "circle-open", 23, upward, noun)
        | {"hoverinfo": "skip", "hovertemplate": None},
    ]
    traces[2]["marker"]["line"] = {"width": 2}
    traces[3]["marker"]["line"] = {"width": 2.5}
    if trained:
        traces.append(_marks("trained", trained, base, AFTER, "diamond", 13, upward, noun))
    every = [mark for mark in (original, current, *marks) if mark is not None]
    low, high = size_range(every)
    bottom, top = loss_range(every) if upward == "loss" else error_range(every)
    middle = math.sqrt(low * high), math.sqrt(bottom * top)
    traces += [*_frontier(every, upward), *_names(marks, middle, upward), *_letters(compared, upward)]
    layout = {
        "xaxis": {
            "type": "log", "range": [math.log10(low), math.log10(high)], "title": {"text": axis},
            "tickvals": [tick for tick in SIZE_TICKS if low <= tick <= high],
            "ticktext": [f"{_number(tick)} {unit}" for tick in SIZE_TICKS if low <= tick <= high],
        },
        "yaxis": {
            "type": "log", "range": [math.log10(bottom), math.log10(top)],
            **_upward_axis(upward, max((mark.n for mark in every), default=0), noun),
        },
        "margin": {"l": 66, "r": 30, "t": 54, "b": 46},  # room for two lines of legend: nothing jumps
    }  # fmt: skip
    return figure(traces, layout)


def _frontier(marks: Sequence[Mark], upward: str) -> list[dict[str, Any]]:
    """Draw the steps between the exact points that nothing beats; one point alone has no steps."""
    places = [(mark.across, mark.height(upward)) for mark in marks if mark.exact]
    best = [places[each] for each in unbeaten(places)]
    if len(best) < 2:
        return []
    x, y = staircase(best)
    line = {"color": FRONTIER, "width": 1.6, "dash": "dot"}
    return [_silent("frontier", x, y) | {"mode": "lines", "line": line, "showlegend": True}]


def _names(marks: Sequence[Mark], middle: tuple[float, float], upward: str) -> list[dict[str, Any]]:
    """Write the names of points beside them: on the side where there is more room, and under the frontier's steps."""
    named = [mark for mark in marks if mark.name]
    if not named:
        return []
    sides = ["left" if mark.across > middle[0] else "right" for mark in named]
    rows = ["middle" if mark.height(upward) > middle[1] else "bottom" for mark in named]
    words = [f"{_GAP}{html.escape(shortened(mark.name, 24))}{_GAP}" for mark in named]
    side = {"textposition": [f"{row} {side}" for row, side in zip(rows, sides, strict=True)], "cliponaxis": False}
    places = [mark.across for mark in named], [mark.height(upward) for mark in named]
    return [_silent("names", *places) | {"mode": "text", "text": words} | side]


def _letters(compared: Sequence[tuple[str, Mark]], upward: str) -> list[dict[str, Any]]:
    """Frame the points that are compared, and write their letters beside them."""
    if not compared:
        return []
    places = [mark.across for _, mark in compared], [mark.height(upward) for _, mark in compared]
    frame = {"symbol": "square-open", "size": 19, "color": FRONTIER, "line": {"width": 1.6}}
    text = {"mode": "markers+text", "text": [f"<b>{letter}</b>" for letter, _ in compared], "marker": frame}
    return [_silent("compared", *places) | text | {"textposition": "top right", "cliponaxis": False}]


def _silent(name: str, x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """Begin a trace that neither the mouse nor the legend speaks of."""
    return {"type": "scatter", "name": name, "x": list(x), "y": list(y), "hoverinfo": "skip", "showlegend": False}


def shortened(name: str, room: int) -> str:
    """Cut a name in the middle, so that it has at most `room` letters."""
    head = (room - 1) // 2
    return name if len(name) <= room else f"{name[:head]}…{name[len(name) - (room - 1 - head) :]}"


def told_apart(names: Sequence[str], room: int) -> tuple[str, ...]:
    """Cut names in the middle so that they still differ.

    Parameters
    ----------
    names
        Names, each once.
    room
        Letters that there is room for, at least 3.

    Returns
    -------
    tuple of str
        At most `room` letters each, where that tells them apart; else as many more as it takes.
    """
    longest = max(map(len, names), default=0)
    for letters in range(min(room, longest), longest):
        for tail in range(min(2, letters - 2), letters - 1):  # names begin with what tells most
            head = letters - 1 - tail
            cut = tuple(name if len(name) <= letters else f"{name[:head]}…{name[-tail:]}" for name in names)
            if len(set(cut)) == len(set(names)):
                return cut
    return tuple(names)


_ACCURACY_AXIS: Final = {
    "title": {"text": "accuracy (stretched towards 100 %)"},
    "tickvals": [100 - tick for tick in ACCURACY_TICKS],
    "ticktext": [f"{tick:g} %" for tick in ACCURACY_TICKS],
}


def _number(tick: float) -> str:
    return f"{tick:,.0f}" if tick >= 1 else f"{tick:g}"


def _upward_axis(upward: str, n: int, noun: str) -> dict[str, Any]:
    """Name the marks of the upward axis; `n` is how many digits, or whatever `noun` says, there are."""
    if upward == "loss":
        ticks = [tick for tick in SIZE_TICKS if _LEAST_LOSS <= tick <= 100]
        title = "loss: mean cross-entropy (less is up)"
        return {"title": {"text": title}, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return _misread_axis(n, noun) if upward == "misread" else _ACCURACY_AXIS


def _misread_axis(n: int, noun: str) -> dict[str, Any]:
    """Name errors in per cent by the digits, or whatever `noun` says, that they are, of so many."""
    counts = [count for count in SIZE_TICKS if 1 <= count <= n]
    return {
        "title": {"text": f"{noun} misread, of {n:,}"},
        "tickvals": [100 * count / n for count in counts],
        "ticktext": [_number(count) for count in counts],
    }


def size_range(marks: Sequence[Mark]) -> tuple[float, float]:
    """Choose the ends of the axis of sizes: from a twentieth of the original, and farther only where needed."""
    sizes = [mark.across for mark in marks] or [1.0]
    return min(max(sizes) / 20, min(sizes) * 0.8), max(sizes) * 1.3


def error_range(marks: Sequence[Mark]) -> tuple[float, float]:
    """Choose the ends of the accuracy axis as errors in per cent: bottom (large), top (small)."""
    accuracies = [100 * mark.accuracy for mark in marks] or [100.0]
    reach = next((end for end in _LOW_ENDS if min(accuracies) >= end + 0.02 * (100 - end)), 0.0)
    return (100 - reach) * 1.1, min([mark.error for mark in marks] or [1.0]) / 1.8


def loss_range(marks: Sequence[Mark]) -> tuple[float, float]:
    """Choose the ends of the axis of losses: bottom (large), top (small), at least a decade apart."""
    losses = [mark.height("loss") for mark in marks] or [1.0]
    return max(max(losses) * 1.2, min(losses) * 10), min(losses) / 1.5


def _marks(
    name: str,
    places: Sequence[tuple[int, Mark]],
    original: int,
    colour: str,
    symbol: str,
    size: int,
    upward: str,
    noun: str,
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [mark.across for _, mark in places],
        "y": [mark.height(upward) for _, mark in places],
        "customdata": [[place, mark.accuracy] for place, mark in places],
        "text": [mark.hover(original, noun) for _, mark in places],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour, "symbol": symbol, "size": size},
    }  # fmt: skip


def _intervals(marks: Sequence[Mark]) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "thickness": 1.2, "width": 4, "color": AFTER,
        "array": [100 * (1 - mark.low) - mark.error for mark in marks],
        "arrayminus": [max(0.0, mark.error - 100 * max(1 - mark.high, 0.25 / mark.n)) for mark in marks],
    }  # fmt: skip


def weights_figure(view: WeightView | None) -> dict[str, Any]:
    """Draw a layer's weights before (line) and after (bars), and the grid as ticks along the bottom."""
    traces: list[dict[str, Any]] = []
    top = 10.0
    if view is not None:
        middles = ((view.edges[:-1] + view.edges[1:]) / 2).tolist()
        width = float(view.edges[1] - view.edges[0])
        top = float(max(view.before.max(), view.after.max(), 10)) * 1.6
        traces = [
            {"type": "bar", "name": "after", "x": middles, "y": view.after.tolist(), "width": [width] * len(middles),
             "marker": {"color": AFTER, "line": {"width": 0}}, "opacity": 0.75,
             "hovertemplate": "%{y:,} weights near %{x:.3f} after<extra></extra>"},
            {"type": "scatter", "mode": "lines", "name": "before", "x": view.edges.tolist(),
             "y": [*view.before.tolist(), 0], "line": {"shape": "hv", "color": BEFORE, "width": 1.8},
             "hovertemplate": "%{y:,} weights near %{x:.3f} before<extra></extra>"},
            {"type": "scatter", "mode": "markers", "name": "values a weight can take", "x": view.grid.tolist(),
             "y": [0.62] * len(view.grid), "hovertemplate": "a weight can be %{x:.4f}<extra></extra>",
             "marker": {"symbol": "line-ns-open", "size": 9, "color": CURRENT,
                        "line": {"width": 1.6 if len(view.grid) < 64 else 0.8}}},
        ]  # fmt: skip
    powers = range(math.ceil(math.log10(top)))
    layout = {
        "xaxis": {"title": {"text": "value of a weight"}, "nticks": 7},
        "yaxis": {"type": "log", "range": [math.log10(0.45), math.log10(top)], "title": {"text": "weights"},
                  "tickvals": [10**power for power in powers], "ticktext": [f"{10**power:,}" for power in powers]},
        "margin": {"l": 62, "r": 12, "t": 8, "b": 44},
        "bargap": 0,
        "showlegend": False,
    }  # fmt: skip
    return figure(traces, layout)


def weights_note(view: WeightView | None, bits: int) -> str:
    """Say in a sentence what the histogram shows."""
    if view is None:
        return ""
    share = f"{100 * view.zeros / view.total:.1f} % of {view.total:,} weights are exactly zero and not drawn."
    if view.shared:
        whose = (
            f" They are those of channel {view.channel}; each channel has its own." if view.channel is not None else ""
        )
        return f"{share} The weights share {len(view.grid):,} values.{whose}"
    if bits >= 16:
        return (
            f"{share} The weights stay {'floating-point numbers' if bits == 32 else '16-bit floating point'}: no grid."
        )
    whose = f" It is the grid of channel {view.channel}; each channel has its own." if view.channel is not None else ""
    step = float(view.grid[1] - view.grid[0]) if len(view.grid) > 1 else 0.0
    return f"{share} Step of the grid: {step:.4f}.{whose}"


def product_note(view: WeightView) -> str:
    """Say what the histogram shows of a layer that low rank has cut."""
    return f"Low rank made thinner layers of this one. Drawn is their product: {view.total:,} weights, on no grid."


def layers_table(before: Sequence[Layer], after: Sequence[Layer], files: tuple[int, int]) -> str:
    """Make an HTML table of the bytes of each layer, before and after, as numbers and as bars.

    Parameters
    ----------
    before, after
        The layers of the original and of the small file. What low rank made of a layer is one row.
    files
        Bytes of the two files, for the last row.

    Returns
    -------
    str
        HTML; kB are 1,000 bytes.
    """
    largest = max(layer.bytes for layer in before)
    names = told_apart([layer.name for layer in before], NAME_LETTERS)
    rows = []
    for name, old, pieces in zip(names, before, pieces_of(before, after), strict=True):
        new = as_one(pieces)
        cut = f", now {' and '.join(piece.name for piece in pieces)}" if len(pieces) > 1 else ""
        bars = "".join(
            f'<span class="ck-bar ck-{kind}" style="width:{max(0.6, 100 * layer.bytes / largest):.2f}%"></span>'
            for kind, layer in (("before", old), ("after", new))
        )
        rows.append(
            f'<tr><td class="ck-layer-name" title="{html.escape(f"{old.name} ({old.op}){cut}")}">'
            f"<b>{html.escape(name)}</b>{f' in {len(pieces)}' if cut else ''}</td>"
            f'<td><span class="ck-bars" aria-hidden="true">{bars}</span></td>'
            f'<td class="ck-number">{old.bytes / 1000:,.1f}</td><td class="ck-number">{new.bytes / 1000:,.1f}</td>'
            f'<td class="ck-number">{html.escape(new.dtype)}</td>'
            f'<td class="ck-number">{100 * new.sparsity:.0f} %</td></tr>'
        )
    widths = "".join(f'<col style="width:{width}">' for width in ("24%", "14%", "18%", "17%", "16%", "11%"))
    head = "".join(
        f'<th scope="col"{" class=ck-number" if place > 1 else ""}>{name}</th>'
        for place, name in enumerate(("layer", "", "before, kB", "after, kB", "as", "zero"))
    )
    rows.append(
        '<tr><td colspan="2">the whole file</td>'
        + "".join(f'<td class="ck-number"><b>{size / 1000:,.1f}</b></td>' for size in files)
        + "<td></td><td></td></tr>"
    )
    return (
        f'<div class="ck-many"><table class="ck-table"><colgroup>{widths}</colgroup><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def pixels_of(image: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Turn an example into grey or colour pixels; None if it is no image."""
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim != 2 and not (image.ndim == 3 and image.shape[-1] == 3):
        return None
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    stretched = (image - low) / max(high - low, 1e-12) if low < 0 or high > 1 else image
    return np.rint(255 * stretched).astype(np.uint8)


def misread_strip(digits: Split, positions: NDArray[np.int64], read: NDArray[np.int64]) -> str:
    """Show misread digits with what they are and what they were read as.

    Parameters
    ----------
    digits
        The digits that were read.
    positions
        Which of them to show; the first `SHOWN_DIGITS` are.
    read
        (n,) what was read in each of `digits`.

    Returns
    -------
    str
        HTML of a fixed height.
    """
    if not len(positions):
        return f'<div class="ck-digits"><div class="ck-empty">{NOTHING_MISREAD}</div></div>'
    tiles = []
    for position in positions[:SHOWN_DIGITS]:
        label, seen = int(digits.labels[position]), int(read[position])
        pixels = pixels_of(digits.images[position])
        alt = f"A {label} that was read as {seen}"
        title = f"number {position} of the {digits.noun}"
        picture = f'<img alt="{alt}" title="{title}" src="{data_uri(pixels)}">' if pixels is not None else ""
        tiles.append(f'<figure class="ck-digit">{picture}<b>{label}</b> read {seen}</figure>')
    return f'<div class="ck-digits">{"".join(tiles)}</div>'


def absence_note(absent: Sequence[str], lacking: Sequence[str]) -> str:
    """Say which points are not on the plot, what is not known of them, and how it gets known; empty without any."""
    if not absent:
        return ""
    named = ", ".join(f"‘{shortened(name, _ABSENT_LETTERS)}’" for name in absent[:_NAMED_ABSENT])
    more = f" and {len(absent) - _NAMED_ABSENT} more" if len(absent) > _NAMED_ABSENT else ""
    without = " and ".join(f"‘{each}’" for each in lacking)
    return f"Not on the plot, for nobody asked them for {without} yet: {named}{more}. Go back to one, and it is asked."


def misread_note(count: int, digits: Split, exact: bool) -> str:
    """Say how many of `digits` are newly misread."""
    of = f"of {len(digits):,} {digits.noun}{'' if exact else ' (preview)'}"
    return f"{count:,} {of}. The original reads them right."


def tradeoff_picture(original: Mark, marks: Sequence[Mark], axis: str, width: float, height: float) -> Picture:
    """Draw size against accuracy as a still picture; see `tradeoff_figure`."""
    made = Picture(width, height, "Size against accuracy")
    every = [original, *marks]
    low, high = size_range(every)
    bottom, top = error_range(every)
    left, right, upper, lower = 64.0, width - 14, 30.0, height - 44

    def across(kilo: float) -> float:
        return left + (right - left) * math.log(kilo / low) / math.log(high / low)

    def down(error: float) -> float:
        return lower - (lower - upper) * math.log(bottom / error) / math.log(bottom / top)

    for tick in SIZE_TICKS:
        if low <= tick <= high:
            made.line([(across(tick), upper), (across(tick), lower)], stroke="grid")
            made.text(across(tick), lower + 17, f"{_number(tick)} kB", anchor="middle", size=11, ink="muted")
    for accuracy in ACCURACY_TICKS:
        if top <= 100 - accuracy <= bottom:
            made.line([(left, down(100 - accuracy)), (right, down(100 - accuracy))], stroke="grid")
            made.text(left - 8, down(100 - accuracy) + 4, f"{accuracy:g} %", anchor="end", size=11, ink="muted")
    made.text((left + right) / 2, height - 8, axis, anchor="middle", size=12)
    for place, (shape, ink, name) in enumerate((("star", "before", "original"), ("disc", "after", "after"))):
        made.mark(left + 8 + 90 * place, 13, shape, 12, ink)  # type: ignore[arg-type]
        made.text(left + 20 + 90 * place, 17, name, size=12)
    places = [(mark.across, mark.error) for mark in every if mark.exact]
    best = [places[each] for each in unbeaten(places)]
    if len(best) > 1:
        corners = [(across(x), down(y)) for x, y in zip(*staircase(best), strict=True)]
        made.line(corners, stroke=FRONTIER, dash=True)
        made.line([(left + 200, 13), (left + 222, 13)], stroke=FRONTIER, dash=True)
        made.text(left + 228, 17, "frontier", size=12)
    for mark in marks:
        if mark.name:
            made.text(
                across(mark.size / 1000), down(mark.error) + 20, shortened(mark.name, 24), anchor="middle", size=11
            )
        shape = ("diamond" if mark.trained else "disc") if mark.exact else "circle"
        made.mark(across(mark.size / 1000), down(mark.error), shape, 11, "after")  # type: ignore[arg-type]
    made.mark(across(original.size / 1000), down(original.error), "star", 17, "before")
    return made


def layers_picture(before: Sequence[Layer], after: Sequence[Layer], width: float) -> Picture:
    """Draw the bytes of each layer, before and after, as bars."""
    row = 34.0
    made = Picture(width, row * len(before) + 8, "Bytes by layer, before and after")
    largest = max(layer.bytes for layer in before)
    name_width, number_width = 90.0, 190.0
    room = width - name_width - number_width
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        top = row * place + 4
        made.text(0, top + 17, old.name, bold=True)
        made.rectangle(name_width, top + 3, max(2, room * old.bytes / largest), 9, stroke="before", stroke_width=1.5)
        made.rectangle(name_width, top + 15, max(2, room * new.bytes / largest), 9, fill="after")
        text = f"{kilobytes(old.bytes)} to {kilobytes(new.bytes)}"
        made.text(width, top + 17, text, anchor="end")
    return made
