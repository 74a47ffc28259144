"""Draw the curves of lesson 06 as a still picture: accuracy against bits, three ways, with the spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compresskit.course.show import Still
from compresskit.training.qat_curves import GRANULARITIES, Point, spread
from compresskit.widgets.picture import Picture, Shape
from compresskit.widgets.views import ACCURACY_TICKS, percent

_WAYS: tuple[tuple[str, str, str, Shape], ...] = (
    ("rounded", "rounded", "before", "disc"),
    ("control", "control, rounded", "current", "square"),
    ("trained", "trained with rounding", "after", "diamond"),
)
_TITLES = {"channel": "a scale for each channel", "tensor": "a scale for each layer"}
_SIDE, _TOP, _BOTTOM = 300, 64, 270
_LOW = 80.0  # per cent, where the axis begins if no point lies below


def show_curves(about: Mapping[str, Any], points: Sequence[Point]) -> Still:
    """Draw accuracy against bits; a mark is the mean over the seeds, the bar through it reaches from lowest to highest.

    Parameters
    ----------
    about, points
        As `compresskit.training.qat_curves.load_points` gives them.

    Returns
    -------
    Still
        For the last line of a cell.

    Raises
    ------
    ValueError
        If a setting was not measured.
    """
    bits = sorted(about["bits"])
    words = [
        f"{bits[0]} bits per {granularity}: {name} {percent(spread(points, way, bits[0], granularity)[1])}"
        for granularity in GRANULARITIES
        for way, name, _, _ in _WAYS
    ]
    picture = Picture(760, 330, f"Accuracy against bits. {'; '.join(words)}")
    for place, (_, name, ink, shape) in enumerate(_WAYS):
        picture.mark(76 + 190 * place, 12, shape, 10, ink)
        picture.text(88 + 190 * place, 16, name, size=12)
    for place, granularity in enumerate(GRANULARITIES):
        _draw_plot(picture, 70 + 370 * place, _TITLES[granularity], granularity, bits, about, points)
    return Still(picture)


def _draw_plot(
    picture: Picture,
    left: float,
    title: str,
    granularity: str,
    bits: Sequence[int],
    about: Mapping[str, Any],
    points: Sequence[Point],
) -> None:
    """Draw one granularity; upward, the logarithm of the misread digits."""
    lowest = min(_LOW, *(100 * point.accuracy for point in points))
    reach = max(tick for tick in ACCURACY_TICKS if tick <= lowest)
    low, high = math.log10(100 - reach), math.log10(100 * (1 - about["float_accuracy"]) / 1.6)

    def upward(accuracy: float) -> float:
        error = max(100 * (1 - accuracy), 10**high)
        return _BOTTOM - (_BOTTOM - _TOP) * (math.log10(error) - low) / (high - low)

    def across(place: int, way: int) -> float:
        return left + _SIDE * (place + 0.5) / len(bits) + 9 * (way - 1)  # side by side, so that no bar hides another

    picture.text(left, 46, title, size=13, bold=True)
    for tick in ACCURACY_TICKS:
        if reach <= tick <= 100 - 10**high:
            picture.line([(left, upward(tick / 100)), (left + _SIDE, upward(tick / 100))], stroke="grid")
            picture.text(left - 6, upward(tick / 100) + 4, f"{tick:g} %", size=11, anchor="end")
    level = upward(about["float_accuracy"])
    picture.line([(left, level), (left + _SIDE, level)], stroke="muted", width=1)
    picture.text(left + 4, level - 5, "float", size=11, ink="muted")
    for place, width in enumerate(bits):
        picture.text(left + _SIDE * (place + 0.5) / len(bits), _BOTTOM + 18, str(width), size=12, anchor="middle")
    picture.text(left + _SIDE / 2, _BOTTOM + 38, "bits of a weight", size=12, anchor="middle")
    for order, (way, name, ink, shape) in enumerate(_WAYS):
        found = [spread(points, way, width, granularity) for width in bits]
        picture.line([(across(place, order), upward(mean)) for place, (_, mean, _) in enumerate(found)], stroke=ink)
        for place, (worst, mean, best) in enumerate(found):
            x = across(place, order)
            picture.line([(x, upward(worst)), (x, upward(best))], stroke=ink, width=3)
            picture.mark(x, upward(mean), shape, 9, ink, tip=f"{name}, {bits[place]} bits: {percent(mean)}")
