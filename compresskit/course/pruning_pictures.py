"""Still pictures of lesson 07: how sparsity grows by each schedule, and lottery tickets with their controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compresskit.course.show import Still
from compresskit.pruning.schedules import Schedule
from compresskit.training.pruning_curves import Point, sparsities, spread
from compresskit.widgets.picture import Picture, Shape
from compresskit.widgets.views import ACCURACY_TICKS, percent

_LOOKS: tuple[tuple[str, Shape, bool], ...] = (
    ("after", "disc", False),
    ("before", "square", False),
    ("current", "diamond", False),
    ("ink", "star", True),
    ("muted", "disc", True),
)
"""Colour, mark and whether the line is dashed; no two lines share a mark and a dash."""
_LEFT, _WIDTH, _TOP, _BOTTOM = 60.0, 480.0, 20.0, 250.0
_WAYS = {
    "ticket": "ticket: rewound to its own first weights",
    "reinitialized": "control: same mask, other first weights",
    "shuffled": "control: same first weights, mask by lot",
}


def show_schedules(schedules: Mapping[str, Schedule], steps: int) -> Still:
    """Draw the sparsity in use at each step of a training.

    Parameters
    ----------
    schedules
        By name; five at most.
    steps
        Of the training.

    Returns
    -------
    Still
        For the last line of a cell.

    Raises
    ------
    ValueError
        If there are none, or more than can be told apart.
    """
    if not 0 < len(schedules) <= len(_LOOKS):
        raise ValueError(f"schedules: there are {len(schedules)}; give from 1 to {len(_LOOKS)}")
    half = {name: schedule.applied_at(steps // 2) for name, schedule in schedules.items()}
    words = "; ".join(f"{name} {share:.0%}" for name, share in half.items())
    picture = Picture(760, 300, f"Sparsity against the step of training. Half way: {words}")
    most = max(schedule.applied_at(steps - 1) for schedule in schedules.values())

    def upward(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * share

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        picture.line([(_LEFT, upward(tick)), (_LEFT + _WIDTH, upward(tick))], stroke="grid")
        picture.text(_LEFT - 8, upward(tick) + 4, f"{tick:.0%}", size=11, anchor="end")
    for tick in range(0, steps + 1, max(1, steps // 4)):
        picture.text(_LEFT + _WIDTH * tick / steps, _BOTTOM + 18, f"{tick}", size=11, anchor="middle")
    picture.text(_LEFT + _WIDTH / 2, _BOTTOM + 38, "step of the training", anchor="middle")
    for place, (name, schedule) in enumerate(schedules.items()):
        ink, shape, dash = _LOOKS[place]
        found = [schedule.applied_at(step) for step in range(steps)]
        points: list[tuple[float, float]] = []
        for step, share in enumerate(found):  # a stair, of its corners alone: masks stay until the next turn
            x = _LEFT + _WIDTH * step / steps
            if not points:
                points.append((x, upward(share)))
            elif points[-1][1] != upward(share):
                points += [(x, points[-1][1]), (x, upward(share))]
        picture.line([*points, (_LEFT + _WIDTH, points[-1][1])], stroke=ink, width=2, dash=dash)
        at = round(steps * (0.12 + 0.09 * place))
        picture.mark(_LEFT + _WIDTH * at / steps, upward(found[at]), shape, 11, ink)
        y = 40 + 26 * place
        picture.line([(566, y - 4), (596, y - 4)], stroke=ink, width=2, dash=dash)
        picture.mark(581, y - 4, shape, 11, ink)
        picture.text(606, y, name)
    picture.text(566, 40 + 26 * len(schedules), f"all end at {most:.0%}", size=12, ink="muted")
    return Still(picture)


def show_tickets(about: Mapping[str, Any], points: Sequence[Point]) -> Still:
    """Draw what is read against what is left; a mark is the mean over the seeds, the bar reaches from worst to best.

    Parameters
    ----------
    about, points
        As `compresskit.training.pruning_curves.load_points` gives them.

    Returns
    -------
    Still
        For the last line of a cell.

    Raises
    ------
    ValueError
        If a way was not measured.
    """
    grid = sparsities(points, "ticket", "ticket")
    last = {way: spread(points, "ticket", way, grid[-1])[1] for way in _WAYS}
    words = "; ".join(f"{_WAYS[way]} {percent(share)}" for way, share in last.items())
    picture = Picture(760, 330, f"Accuracy against the weights left, over {len(about['seeds'])} seeds. Last: {words}")
    found = [spread(points, "ticket", way, share) for way in _WAYS for share in grid[1:]]
    worst, best = min(low for low, _, _ in found), max(high for _, _, high in found)
    reach = max(tick for tick in ACCURACY_TICKS if tick <= 100 * worst)
    low, high = math.log10(100 - reach), math.log10(100 * (1 - best) / 1.4)

    def upward(accuracy: float) -> float:  # the logarithm of the misread digits, or all that is good lies on one line
        return _BOTTOM - (_BOTTOM - _TOP) * (math.log10(100 * (1 - accuracy)) - low) / (high - low)

    def across(place: int, order: int) -> float:
        return _LEFT + _WIDTH * (place + 0.5) / len(grid) + 11 * (order - 1)  # side by side: no bar hides another

    for tick in (tick for tick in ACCURACY_TICKS if reach <= tick <= 100 - 10**high):
        y = upward(tick / 100)
        picture.line([(_LEFT, y), (_LEFT + _WIDTH, y)], stroke="grid")
        picture.text(_LEFT - 8, y + 4, f"{tick:g} %", size=11, anchor="end")
    for place, share in enumerate(grid):
        picture.text(across(place, 1), _BOTTOM + 18, f"{1 - share:.1%}", size=11, anchor="middle")
    picture.text(_LEFT + _WIDTH / 2, _BOTTOM + 38, "of the weights are left", anchor="middle")
    for order, (way, text) in enumerate(_WAYS.items()):
        ink, shape, dash = _LOOKS[order]
        own = [place for place, share in enumerate(grid) if share in sparsities(points, "ticket", way)]
        rows = {place: spread(points, "ticket", way, grid[place]) for place in own}
        picture.line([(across(p, order), upward(rows[p][1])) for p in own], stroke=ink, width=1.5, dash=dash)
        for place in own:
            worst, mean, best = rows[place]
            x = across(place, order)
            picture.line([(x, upward(worst)), (x, upward(best))], stroke=ink, width=3)
            picture.mark(x, upward(mean), shape, 10, ink, tip=f"{text}: {percent(mean)}")
        name, _, more = text.partition(": ")
        picture.mark(572, 44 + 44 * order, shape, 11, ink)
        picture.text(586, 48 + 44 * order, name)
        picture.text(586, 65 + 44 * order, more, size=11, ink="muted")
    return Still(picture)
