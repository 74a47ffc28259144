"""Which points of a plot nothing beats: the frontier, for any two things of which less is better."""

from __future__ import annotations

from collections.abc import Sequence

Place = tuple[float, float]


def unbeaten(places: Sequence[Place]) -> tuple[int, ...]:
    """Choose the places that no other beats.

    One place beats another if it is at most as large in both coordinates, and smaller in one (Pareto's order).

    Parameters
    ----------
    places
        Pairs of which less is better, such as bytes and errors.

    Returns
    -------
    tuple of int
        Positions in `places`, from the smallest first coordinate to the largest; of equal places the first.
    """
    kept: list[int] = []
    lowest = float("inf")
    for position in sorted(range(len(places)), key=lambda each: (places[each], each)):
        if places[position][1] < lowest:
            kept.append(position)
            lowest = places[position][1]
    return tuple(kept)


def staircase(places: Sequence[Place]) -> tuple[list[float], list[float]]:
    """Join a frontier by steps: at each place across, the least that can be had for so much or less.

    Parameters
    ----------
    places
        Places in the order of `unbeaten`.

    Returns
    -------
    (list of float, list of float)
        The corners' two coordinates.
    """
    across, down = [], []
    for position, (x, y) in enumerate(places):
        if position:
            across.append(x)
            down.append(places[position - 1][1])
        across.append(x)
        down.append(y)
    return across, down
