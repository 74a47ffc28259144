"""The frontier against the definition, pair by pair."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from compresskit.widgets.frontier import staircase, unbeaten

PLACES = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), max_size=25)


def beats(one, other):
    return one[0] <= other[0] and one[1] <= other[1] and one != other


@given(PLACES)
def test_those_that_no_other_beats_and_no_others(places):
    chosen = unbeaten(places)
    assert {places[each] for each in chosen} == {p for p in places if not any(beats(q, p) for q in places)}
    assert len({places[each] for each in chosen}) == len(chosen), "of equal places one"
    assert [places.index(places[each]) for each in chosen] == list(chosen), "the first of them"
    assert [places[each][0] for each in chosen] == sorted(places[each][0] for each in chosen)


@given(PLACES.filter(len))
def test_the_steps_are_the_best_that_can_be_had_for_so_much(places):
    best = [places[each] for each in unbeaten(places)]
    across, down = staircase(best)
    assert across == sorted(across) and down == sorted(down, reverse=True)
    corners = list(zip(across, down, strict=True))
    assert all(x == x2 or y == y2 for (x, y), (x2, y2) in pairwise(corners)), "level or upright, never aslant"
    for x in range(10):
        affordable = [y for each, y in places if each <= x]
        reached = [y for each, y in zip(across, down, strict=True) if each <= x]
        assert (min(affordable) if affordable else None) == (reached[-1] if reached else None)


def test_no_places_have_no_frontier():
    assert unbeaten([]) == () and staircase([]) == ([], [])
