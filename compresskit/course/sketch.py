"""Small drawings for checks, as SVG: they follow the notebook's theme and need no library.

Colour never stands alone: what is wrong also carries a cross or a dashed line, and a label.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_WRONG = "#d55e00"  # vermilion and blue of Okabe and Ito: told apart by every kind of eye
_RIGHT = "#0072b2"
_FONT = "font-size='12' fill='currentColor' font-family='sans-serif'"


def compare_grids(got: Any, expected: Any) -> str:
    """Draw two matrices side by side and cross out the cells that differ.

    Parameters
    ----------
    got, expected
        Arrays (rows, columns) of the same shape.

    Returns
    -------
    str
        An SVG.
    """
    rows, columns = expected.shape
    cell = max(5, min(28, 220 // max(rows, columns)))
    width, height = columns * cell, rows * cell
    everything = np.concatenate([got.ravel(), expected.ravel()])
    finite = everything[np.isfinite(everything)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    wrong = ~np.isclose(got, expected, equal_nan=True)
    parts = []
    for left, title, grid, marked in ((0, "yours", got, wrong), (width + 40, "expected", expected, None)):
        parts.append(f"<text x='{left}' y='12' {_FONT}>{title}</text>")
        for row, column in np.ndindex(rows, columns):
            x, y = left + column * cell, 20 + row * cell
            parts.append(_cell(x, y, cell, float(grid[row, column]), low, high))
            if marked is not None and marked[row, column]:
                parts.append(
                    f"<path d='M{x + 2} {y + 2}l{cell - 4} {cell - 4}m0 {4 - cell}l{4 - cell} {cell - 4}' "
                    f"stroke='{_WRONG}' stroke-width='2'/>"
                )
    note = f"{int(wrong.sum())} of {wrong.size} cells differ (crossed)"
    parts.append(f"<text x='0' y='{height + 38}' {_FONT}>{note}</text>")
    return _svg(2 * width + 40, height + 44, parts, note)


def compare_intervals(got: Sequence[float], expected: Sequence[float], point: float) -> str:
    """Draw two intervals over one axis, and the value that they are about.

    Parameters
    ----------
    got, expected
        Lower and upper end of each.
    point
        The measured value, drawn as a dot on both.

    Returns
    -------
    str
        An SVG.
    """
    ends = [*map(float, got), *map(float, expected), float(point)]
    if not np.isfinite(ends).all():
        raise ValueError(f"got: {got!r} cannot be drawn: the ends of an interval are finite numbers")
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    low, high = low - 0.1 * span, high + 0.1 * span

    def x(value: float) -> float:
        return 80 + 340 * (value - low) / (high - low)

    parts = []
    for y, title, (start, end), colour, dashes in (
        (24, "yours", got, _WRONG, "6 4"),
        (58, "expected", expected, _RIGHT, "none"),
    ):
        start, end = float(start), float(end)
        parts.append(f"<text x='0' y='{y + 4}' {_FONT}>{title}</text>")
        parts.append(
            f"<path d='M{x(start):.1f} {y}H{x(end):.1f}' stroke='{colour}' stroke-width='4' "
            f"stroke-dasharray='{dashes}'/>"
            f"<path d='M{x(start):.1f} {y - 6}v12M{x(end):.1f} {y - 6}v12' stroke='{colour}' stroke-width='2'/>"
            f"<circle cx='{x(float(point)):.1f}' cy='{y}' r='4' fill='currentColor'/>"
        )
        parts.append(f"<text x='{x(start):.1f}' y='{y + 19}' text-anchor='middle' {_FONT}>{start:.5g}</text>")
        if end != start:
            parts.append(f"<text x='{x(end):.1f}' y='{y + 19}' text-anchor='middle' {_FONT}>{end:.5g}</text>")
    return _svg(470, 88, parts, "your interval above the expected one; the dot is the measured value")


def bars(title: str, values: Mapping[str, float], marked: str = "") -> str:
    """Draw one bar a name, the largest filled, one marked as the answer that came.

    Parameters
    ----------
    title
        What the bars show, with the unit.
    values
        Heights by name, not negative.
    marked
        The name that was answered.

    Returns
    -------
    str
        An SVG.
    """
    most = max(values.values()) or 1.0
    parts = [f"<text x='0' y='12' {_FONT}>{html.escape(title)}</text>"]
    for row, (name, value) in enumerate(values.items()):
        y = 22 + 22 * row
        full = "0.9" if value == most else "0.35"
        parts.append(f"<text x='0' y='{y + 12}' {_FONT}>{html.escape(name)}</text>")
        width = 240 * value / most
        parts.append(f"<rect x='70' y='{y}' width='{width:.1f}' height='15' fill='{_RIGHT}' fill-opacity='{full}'/>")
        yours = " ← your answer" if name == marked else ""
        parts.append(f"<text x='{76 + width:.1f}' y='{y + 12}' {_FONT}>{value:,.0f}{yours}</text>")
    return _svg(480, 26 + 22 * len(values), parts, title)


def _cell(x: int, y: int, size: int, value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return f"<text x='{x + 2}' y='{y + size - 3}' {_FONT}>?</text>"
    shade = (value - low) / (high - low) if high > low else 0.5
    # A theme may be dark or light: the shade is ink of the text's own colour, so it is readable in both.
    return (
        f"<rect x='{x}' y='{y}' width='{size}' height='{size}' fill='currentColor' fill-opacity='{shade:.2f}' "
        "stroke='currentColor' stroke-opacity='0.3'/>"
    )


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f"<svg role='img' aria-label='{html.escape(label, quote=True)}' width='{width:.0f}' height='{height:.0f}' "
        f"viewBox='0 0 {width:.0f} {height:.0f}' xmlns='http://www.w3.org/2000/svg'>{''.join(parts)}</svg>"
    )
