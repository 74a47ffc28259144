"""The view of two points side by side: two lists, a table of the layers, and the digits that only one of them reads."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import ipywidgets

from compresskit.data import Split
from compresskit.widgets.comparison import Comparison, LayerPair, Readings
from compresskit.widgets.live import Live, Outcome, Stop
from compresskit.widgets.panel import Status, classed, list_of, markup
from compresskit.widgets.points import Point, Setting
from compresskit.widgets.views import kilobytes, misread_strip, percent, told_apart

LETTERS: Final = ("A", "B")
NOBODY: Final = ("choose a point", "")
SURE: Final = 0.05
"""A difference that would come up more rarely than this by chance is called more than noise."""
NAME_LETTERS: Final = 24
_ROW_PIXELS, _HEAD_PIXELS, _MOST_ROWS = 25, 54, 12

Pair = tuple[Setting, Setting]
Entry = tuple[str, Setting]


class CompareView:
    """Two points side by side.

    Parameters
    ----------
    compute
        ``compute(pair, stop)`` makes the comparison, on a thread of the view's own.
    digits
        The test digits.
    lock
        The panel's.
    chosen
        Called when other points were chosen.
    room
        How many layers to leave room for.

    Attributes
    ----------
    box : ipywidgets.VBox
        To be put into the panel.
    lists : tuple
        The two lists of points, for the panel to watch.
    status : Status
        What the digits tell, or what to do.
    comparison : Comparison or None
        What is shown; None without two points.
    """

    def __init__(
        self,
        compute: Callable[[Pair, Stop], Comparison],
        digits: Split,
        lock: threading.RLock,
        chosen: Callable[[], None],
        room: int,
    ) -> None:
        self._compute, self._digits, self._lock, self._chosen = compute, digits, lock, chosen
        self._room = room
        self._live: Live[Pair, Comparison] | None = None
        self._filling = False
        self._oldest = 0  # which of the two a third choice on the plot replaces
        self.comparison: Comparison | None = None
        self.lists = tuple(list_of(letter, [NOBODY], NOBODY[1], f"ck-compare-{letter.lower()}") for letter in LETTERS)
        self.status = Status()
        self._table, self._strips = markup(), (markup(), markup())
        self._titles = (markup(), markup())
        halves = [
            classed(ipywidgets.VBox([title, strip]), "ck-card")
            for title, strip in zip(self._titles, self._strips, strict=True)
        ]
        rows = [
            markup('<h4 class="ck-heading">Two points side by side</h4>'),
            classed(ipywidgets.HBox(list(self.lists)), "ck-pair"),
            self.status,
            classed(self._table, "ck-scroll"),
            classed(ipywidgets.HBox(halves), "ck-row"),
        ]
        self.box = classed(ipywidgets.VBox(rows), "ck-stack", "ck-compare")
        self.clear()

    @property
    def pair(self) -> tuple[Setting | None, Setting | None]:
        """The points chosen, as settings; None where none is yet."""
        first, second = (each.value if isinstance(each.value, Setting) else None for each in self.lists)
        return first, second

    def offer(self, entries: Sequence[Entry]) -> None:
        """Put points into the lists; what was chosen stays chosen."""
        known = [setting for _, setting in entries]
        for each in self.lists:
            gone = [(each.label, each.value)] if isinstance(each.value, Setting) and each.value not in known else []
            self._fill(each, [NOBODY, *entries, *gone], each.value)

    def choose(self, setting: Setting) -> None:
        """Take a point that was pointed at: the first that is missing, or else in the place of the older one."""
        if setting in self.pair:
            return
        missing = [place for place, each in enumerate(self.pair) if each is None]
        place = missing[0] if missing else self._oldest
        self._oldest = 1 - place
        self.lists[place].value = setting

    def put(self, pair: tuple[Setting | None, Setting | None], entries: Sequence[Entry]) -> None:
        """Choose two points at once, of those that the lists have."""
        known = [setting for _, setting in entries]
        for each, setting in zip(self.lists, pair, strict=True):
            self._fill(each, [NOBODY, *entries], setting if setting in known else NOBODY[1])
        self.start()

    def start(self) -> None:
        """Compare the two that are chosen; without two, say what to do."""
        first, second = self.pair
        if first is None or second is None or first == second:
            self.clear()
        else:
            with self._lock:  # a list and a cell may ask at once
                if self._live is None:
                    self._live = Live(
                        None, self._compute, self._on_result, self._on_error, on_start=self._on_start, lock=self._lock,
                        cache_entries=4, name="compresskit-compare",
                    )  # fmt: skip
            self._live.submit((first, second))
        self._chosen()

    def on_list(self, _change: Any) -> None:
        """Begin, when another point was chosen in a list; for the panel to call."""
        if not self._filling:
            self.start()

    def clear(self) -> None:
        """Show an empty comparison."""
        with self._lock:
            self.comparison = None
            self.status.say("preview", "Choose two points", "In the lists above, or Shift and a click in the plot.")
            self._table.value = layers_table((), ("", ""), self._room)
            for title, strip in zip(self._titles, self._strips, strict=True):
                title.value, strip.value = _title("&nbsp;"), '<div class="ck-digits"></div>'

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until the comparison is shown; False when `timeout` seconds were not enough."""
        return self._live is None or self._live.wait_idle(timeout)

    def close(self) -> None:
        """End the thread."""
        if self._live is not None:
            self._live.close()

    def _fill(self, field: Any, options: list[Any], value: Any) -> None:
        """Change a list without taking that for a choice."""
        if list(field.options) == options and field.value == value:
            return
        self._filling = True
        try:
            field.options = options
            field.value = value
        finally:
            self._filling = False

    def _on_start(self, _pair: Pair, _exact: bool) -> None:
        self.status.say("busy", "Comparing", f"both read all {len(self._digits):,} {self._digits.noun}")

    def _on_error(self, _pair: Pair, message: str) -> None:
        self.status.say("error", "", message)

    def _on_result(self, outcome: Outcome[Pair, Comparison]) -> None:
        if outcome.setting != self.pair:
            return
        made = self.comparison = outcome.value
        found = made.readings
        self.status.say("exact", *verdict(found, self._digits.noun))
        sizes = kilobytes(made.first.compressed.size), kilobytes(made.second.compressed.size)
        self._table.value = layers_table(made.layers, sizes, self._room)
        only = ((found.only_first, made.second), (found.only_second, made.first))
        for place, (positions, reader) in enumerate(only):
            letter, other = LETTERS[place], LETTERS[1 - place]
            self._titles[place].value = _title(f"Only {letter} reads {len(positions):,}; what {other} read")
            self._strips[place].value = _strip(self._digits, positions, reader)


def _title(text: str) -> str:
    return f'<h4 class="ck-heading">{text}</h4>'


def _strip(digits: Split, positions: Any, reader: Point) -> str:
    if not len(positions):
        return '<div class="ck-digits"><div class="ck-empty">None.</div></div>'
    return misread_strip(digits, positions, reader.score.predictions)


def verdict(found: Readings, noun: str) -> tuple[str, str]:
    """Say in two sentences what was read by two points, `noun` in the plural: how many, and is that noise."""
    first, second = len(found.only_first), len(found.only_second)
    n = first + second + found.both + found.neither
    if not first + second:
        return f"Both read the same {noun}", f"{found.both:,} of {n:,} {noun} rightly, {found.neither:,} wrongly"
    more = "more than noise" if found.p < SURE else "it may be noise"
    chance = "less than 0.01 %" if found.p < 0.0001 else percent(found.p)
    return (
        f"Only A reads {first:,}, only B {second:,}: {more}",
        f"Two equally good models would differ as much in {chance} of such tests (McNemar's exact test). Of {n:,} "
        f"{noun}, both read {found.both:,}, neither {found.neither:,}.",
    )


_TABLE: Final = '<table class="ck-table ck-side-by-side" aria-label="The layers of A and B side by side">'
_HEAD: Final = (
    '<tr><th scope="col" rowspan="2">layer</th><th scope="colgroup" colspan="2" class="ck-number">stored as</th>'
    '<th scope="colgroup" colspan="2" class="ck-number">kB</th>'
    '<th scope="colgroup" colspan="2" class="ck-number">zero</th>'
    '<th scope="colgroup" colspan="2" class="ck-number" title="||W - W0|| / ||W0||">off the original</th>'
    '<th scope="col" rowspan="2" class="ck-number" title="||A - B|| / ||W0||">A off B</th></tr>'
    f"<tr>{4 * ''.join(f'<th scope=col class=ck-number>{letter}</th>' for letter in LETTERS)}</tr>"
)


def layers_table(pairs: Sequence[LayerPair], sizes: tuple[str, str], room: int) -> str:
    """Make an HTML table of layers side by side.

    Parameters
    ----------
    pairs
        The layers.
    sizes
        Of the two files, in words.
    room
        Layers to leave room for; of very many, some are to be scrolled to.

    Returns
    -------
    str
        HTML; kB are 1,000 bytes, distances of weights are parts of the original's length.
    """
    names = told_apart([pair.name for pair in pairs], NAME_LETTERS)
    rows = [_row(name, pair) for name, pair in zip(names, pairs, strict=True)]
    if pairs:
        total = "".join(f'<td class="ck-number"><b>{size}</b></td>' for size in sizes)
        rows.append(f'<tr><td colspan="3">the whole file</td>{total}<td colspan="5"></td></tr>')
    columns = '<col style="width:19%">' + 9 * '<col style="width:9%">'
    table = f"<colgroup>{columns}</colgroup><thead>{_HEAD}</thead><tbody>{''.join(rows)}</tbody>"
    height = min(_MOST_ROWS, room + 1) * _ROW_PIXELS + _HEAD_PIXELS
    return f'<div class="ck-many" style="height:{height}px">{_TABLE}{table}</table></div>'


def _row(name: str, pair: LayerPair) -> str:
    layers = (pair.first, pair.second)
    cells = [
        *("" if layer is None else layer.dtype for layer in layers),
        *("" if layer is None else f"{layer.bytes / 1000:,.1f}" for layer in layers),
        *("" if layer is None else f"{100 * layer.sparsity:.0f} %" for layer in layers),
    ]
    distances = "".join(_part(error) for error in (*pair.errors, pair.between))
    kind = next(layer.op for layer in layers if layer is not None)
    told = html.escape(f"{pair.name} ({kind})")
    numbers = "".join(f'<td class="ck-number">{html.escape(cell)}</td>' for cell in cells)
    return f'<tr><td class="ck-layer-name" title="{told}"><b>{html.escape(name)}</b></td>{numbers}{distances}</tr>'


def _part(distance: float | None) -> str:
    if distance is None:
        return '<td class="ck-number" title="of another shape: nothing to subtract">–</td>'
    return f'<td class="ck-number">{100 * distance:.1f} %</td>'
