"""A plotly figure that lives: `Chart`, an anywidget that draws plotly's own JSON.

Why not plotly's `FigureWidget`: each one sends five megabytes of JavaScript again, importing it takes two seconds (it
brings nbformat and jsonschema along), after a page reload it shows its first data instead of its last, and it is not
safe to update from two threads. A `Chart` keeps the figure as one trait, so the page always has the newest whole state;
plotly.js goes over the wire once a page, compressed to a third, and only when a page asks for it. The JavaScript itself
is the one that plotly's Python package carries.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import anywidget
import traitlets

from compresskit.widgets.style import AFTER, BEFORE, CURRENT, script

FONT: Final = 'system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif'
CONFIG: Final[dict[str, Any]] = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "modeBarButtons": ["zoom2d", "pan2d"],  # chart.js adds the way back and the picture
    "doubleClick": False,
    "showTips": False,
}


@functools.cache
def plotly_source() -> bytes:
    """Read plotly.js from plotly's Python package, without importing that package.

    Returns
    -------
    bytes
        gzip-compressed JavaScript, about 1.6 MB.

    Raises
    ------
    ValueError
        When plotly is not installed, or carries no JavaScript.
    """
    found = importlib.util.find_spec("plotly")
    places = list(found.submodule_search_locations or []) if found else []
    for place in places:
        file = Path(place) / "package_data" / "plotly.min.js"
        if file.is_file():
            return gzip.compress(file.read_bytes(), 4, mtime=0)
    raise ValueError("plotly is not installed in this environment; run `make setup`, or `pip install plotly`.")


class Chart(anywidget.AnyWidget):  # type: ignore[misc]
    """A plotly figure whose state is one value.

    Parameters
    ----------
    figure
        ``{"data": [...], "layout": {...}, "config": {...}}`` in plotly's JSON; build it with `figure`.
    height
        Pixels, fixed, so that nothing jumps while plotly loads.
    label
        Accessible name: what the plot shows.
    lock
        The panel's re-entrant lock, shared with `Live`.
    """

    _esm = script("chart")
    figure = traitlets.Dict().tag(sync=True)
    height = traitlets.Int(360).tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        figure: Mapping[str, Any],
        *,
        height: int = 360,
        label: str = "",
        lock: AbstractContextManager[bool] | None = None,
    ) -> None:
        self.lock: AbstractContextManager[bool] = lock if lock is not None else threading.RLock()
        self._clicked: list[Callable[[int, int], None]] = []
        self._shift_clicked: list[Callable[[int, int], None]] = []
        super().__init__(figure=dict(figure), height=height, label=label)
        self.on_msg(self._on_message)

    def on_click(self, callback: Callable[[int, int], None]) -> None:
        """Register ``callback(curve, point)``: the indices of the trace and of the point that were clicked."""
        self._clicked.append(callback)

    def on_shift_click(self, callback: Callable[[int, int], None]) -> None:
        """Register a callback for clicks with the Shift key; without one, they are clicks."""
        self._shift_clicked.append(callback)

    def show(self, figure: Mapping[str, Any]) -> None:
        """Replace the whole figure; thread-safe.

        Parameters
        ----------
        figure
            As in the constructor. It is not copied: do not change it afterwards.
        """
        with self.lock:
            self.figure = dict(figure)

    def close(self) -> None:
        """Close the widget and forget who listens."""
        with self.lock:
            self._clicked.clear()
            self._shift_clicked.clear()
            super().close()

    def _on_message(self, _widget: object, content: Mapping[str, Any], _buffers: object) -> None:
        if content.get("type") == "plotly":
            try:
                self.send({"type": "plotly"}, buffers=[plotly_source()])
            except ValueError as error:
                self.send({"type": "failed", "text": str(error)})
        elif content.get("type") == "click":
            for callback in list((self._shift_clicked if content.get("shift") else []) or self._clicked):
                callback(int(content["curve"]), int(content["point"]))


def figure(data: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> dict[str, Any]:
    """Put traces into the course's layout: transparent, calm, the theme's colours by the style sheet.

    Parameters
    ----------
    data
        Plotly traces as plain dicts of plain lists (no NumPy arrays: the page reads them as they are).
    layout
        What this figure needs on top; nested dicts are merged.

    Returns
    -------
    dict
        For `Chart`.
    """
    base: dict[str, Any] = {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12},
        "margin": {"l": 62, "r": 16, "t": 12, "b": 48},
        "colorway": [AFTER, BEFORE, CURRENT],
        "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 12}},
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "font": {"size": 12}},
        "xaxis": _axis(),
        "yaxis": _axis(),
        "uirevision": "kept",
    }
    return {"data": [dict(trace) for trace in data], "layout": _merged(base, layout), "config": dict(CONFIG)}


def _axis() -> dict[str, Any]:
    return {"showline": False, "zeroline": False, "gridcolor": "#e0e0e0", "ticks": "", "automargin": False,
            "title": {"standoff": 10, "font": {"size": 12}}, "fixedrange": False}  # fmt: skip


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in extra.items():
        present = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(present, Mapping)
        merged[name] = _merged(present, value) if both else value  # type: ignore[arg-type]
    return merged
