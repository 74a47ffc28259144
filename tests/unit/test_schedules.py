"""Schedules begin, end, grow and turn where they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit.pruning.schedules import Constant, Cosine, Iterative, OneShot, Polynomial

SPARSITY = st.floats(0.0, 0.99)
BEGIN = st.integers(0, 50)
LENGTH = st.integers(1, 60)
FREQUENCY = st.integers(1, 20)
POWER = st.floats(0.25, 6)


def constants():
    return st.builds(lambda s, b, n, f: Constant(s, b, b + n, f), SPARSITY, BEGIN, LENGTH, FREQUENCY)


def polynomials():
    return st.builds(
        lambda s, t, b, n, f, p: Polynomial(s, t, b, b + n, f, p), SPARSITY, SPARSITY, BEGIN, LENGTH, FREQUENCY, POWER
    )


def cosines():
    return st.builds(lambda s, t, b, n, f: Cosine(s, t, b, b + n, f), SPARSITY, SPARSITY, BEGIN, LENGTH, FREQUENCY)


def one_shots():
    return st.builds(OneShot, SPARSITY, BEGIN)


def iteratives():
    return st.builds(Iterative, SPARSITY, st.integers(1, 8), st.integers(1, 12), BEGIN)


SCHEDULES = st.one_of(constants(), polynomials(), cosines(), one_shots(), iteratives())


@given(SCHEDULES)
def test_applied_is_what_a_training_loop_would_have(schedule):
    """Walk through the steps and make masks whenever the schedule says so."""
    sparsity_of_masks = 0.0
    for step in range(130):
        if schedule.prunes_at(step):
            sparsity_of_masks = schedule(step)
        assert schedule.applied_at(step) == sparsity_of_masks
        assert 0 <= schedule(step) < 1


@given(st.one_of(polynomials(), cosines()))
def test_ramp_starts_ends_and_never_turns_back(ramp):
    assert ramp(ramp.begin) == pytest.approx(ramp.initial, abs=1e-12)
    assert ramp(ramp.end) == ramp(ramp.end + 1000) == pytest.approx(ramp.final, abs=1e-12)
    assert ramp(0) == ramp(ramp.begin)
    upwards = 1 if ramp.final >= ramp.initial else -1
    for step in range(ramp.begin, ramp.end):
        assert upwards * (ramp(step + 1) - ramp(step)) >= -1e-12


def test_polynomial_by_hand():
    schedule = Polynomial(0.5, 0.9, begin=10, end=20, frequency=5)
    assert schedule(15) == pytest.approx(0.9 - 0.4 / 8)
    assert [step for step in range(30) if schedule.prunes_at(step)] == [10, 15, 20]


def test_polynomial_that_misses_its_end():
    schedule = Polynomial(0.0, 0.8, begin=0, end=10, frequency=4, power=1)
    assert schedule.applied_at(100) == pytest.approx(0.64)


def test_cosine_by_hand():
    schedule = Cosine(0.0, 0.8, begin=0, end=100)
    assert schedule(50) == pytest.approx(0.4)
    assert schedule(25) == pytest.approx(0.8 * (1 - 0.5**0.5) / 2)


def test_constant_without_end():
    schedule = Constant(0.7, begin=3, frequency=10)
    assert [step for step in range(40) if schedule.prunes_at(step)] == [3, 13, 23, 33]
    assert schedule.prunes_at(3 + 10 * 10**12)


def test_constant_with_end_prunes_at_it_and_not_after():
    schedule = Constant(0.7, begin=10, end=30, frequency=10)
    assert [step for step in range(60) if schedule.prunes_at(step)] == [10, 20, 30]


def test_one_shot_prunes_once():
    schedule = OneShot(0.7, begin=5)
    assert [step for step in range(40) if schedule.prunes_at(step)] == [5]
    assert (schedule(4), schedule(5)) == (0.0, 0.7)


def test_iterative_takes_the_same_part_of_what_is_left():
    schedule = Iterative(1 - 0.8**4, rounds=4, every=10)
    left = [1 - schedule(step) for step in (0, 9, 10, 20, 30, 40, 1000)]
    assert left == pytest.approx([0.8, 0.8, 0.8**2, 0.8**3, 0.8**4, 0.8**4, 0.8**4])
    assert list(schedule.turns) == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(1.0), "sparsity is 1.0"),
        (lambda: Constant(float("nan")), "sparsity is nan"),
        (lambda: Constant(0.5, begin=-1), "begin is -1"),
        (lambda: Constant(0.5, begin=5, end=4), "end is 4, before begin at 5"),
        (lambda: Constant(0.5, frequency=0), "frequency is 0"),
        (lambda: Polynomial(-0.1, 0.5, 0, 10), "initial is -0.1"),
        (lambda: Polynomial(0.1, 1.5, 0, 10), "final is 1.5"),
        (lambda: Polynomial(0.1, 0.5, 10, 10), "same as begin"),
        (lambda: Polynomial(0.1, 0.5, 0, 10, power=0), "power is 0"),
        (lambda: Cosine(0.1, 0.5, 0, 10, frequency=-1), "frequency is -1"),
        (lambda: OneShot(1.0), "sparsity is 1.0"),
        (lambda: Iterative(0.5, rounds=0, every=1), "rounds is 0"),
        (lambda: Iterative(0.5, rounds=1, every=0), "every is 0"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
