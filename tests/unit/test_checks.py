"""Checks can fail: each known mistake gets its hint, and no answer is ever told just that it is wrong."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import compresskit.course
from compresskit.course import lesson_01
from compresskit.course.checks import Exercise, Mistake, check, exercises, judge, same, shown, verdict

LESSONS = sorted(
    found.name.removeprefix("lesson_")
    for found in pkgutil.iter_modules(compresskit.course.__path__)
    if found.name.startswith("lesson_")
)
ALL = [(f"{lesson}.{short}", task) for lesson in LESSONS for short, task in exercises(lesson).items()]
MISTAKES = [
    pytest.param(name, mistake, id=f"{name}-{number}")
    for name, task in ALL
    for number, mistake in enumerate(task.mistakes)
]
FUNCTIONS = [pytest.param(name, task, id=name) for name, task in ALL if task.is_function]


@pytest.mark.parametrize(("name", "task"), ALL, ids=[name for name, _ in ALL])
def test_the_reference_is_right(name, task):
    found = verdict(name, task.reference)
    assert found.state == "right", str(found)
    assert task.praise in str(found)


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_known_mistake_gets_its_own_hint(name, mistake):
    found = verdict(name, mistake.answer)
    assert found.state == "wrong"
    assert mistake.hint in found.lines, str(found)


@pytest.mark.parametrize("blank", [None, ..., NotImplemented])
@pytest.mark.parametrize(("name", "task"), ALL, ids=[name for name, _ in ALL])
def test_an_unsolved_exercise_says_so(name, task, blank):
    assert verdict(name, blank).state == "unsolved"
    if task.is_function:
        assert verdict(name, lambda *_: blank).state == "unsolved"


def raise_not_implemented(*_: Any) -> None:
    raise NotImplementedError


def raise_something(*_: Any) -> None:
    raise KeyError("weights")


@pytest.mark.parametrize(("name", "task"), FUNCTIONS)
@pytest.mark.parametrize("nonsense", ["text", -12345, np.nan, (), {}, np.zeros((2, 3)), b"\0"], ids=repr)
def test_nonsense_is_wrong_and_told_why(name, task, nonsense):
    found = verdict(name, lambda *_: nonsense)
    assert found.state == "wrong"
    assert "was expected" in str(found) and "For " in str(found)


@pytest.mark.parametrize(("name", "task"), FUNCTIONS)
def test_an_error_in_the_answer_is_reported(name, task):
    assert verdict(name, raise_not_implemented).state == "unsolved"
    found = verdict(name, raise_something)
    assert found.state == "wrong" and "KeyError: 'weights' (line " in str(found)
    assert 'raise KeyError("weights")' in str(found)


@pytest.mark.parametrize(("name", "task"), FUNCTIONS)
def test_a_result_instead_of_the_function(name, task):
    assert "without parentheses" in str(verdict(name, 3))
    assert "is called with" in str(verdict(name, lambda: 3))


def test_a_function_instead_of_a_value():
    assert "wants a value" in str(verdict("01.why", lambda: "b"))
    assert verdict("01.why", " B ").state == "right"


def double(x):
    return 2.0 * x


DOUBLE = Exercise(double, cases=lambda rng: ((x,) for x in (1.0, 2.0, 5.0, 10.0)))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: -2 * x, "wrong sign"),
        (lambda x: 2 * x * 1000 / 1024, "KiB"),
        (lambda x: 16 * x, "bits where bytes"),
        (lambda x: x / 4, "bytes where bits"),
        (lambda x: 200 * x, "percent"),
        (lambda x: 6 * x, "3 times the right one"),
        (lambda x: 2 * x + 1, "1 too large"),
        (lambda x: 2 * x - 0.5, "0.5 too small"),
        (lambda x: x * x, "right on 1 of the 4"),
        (lambda x: None if x > 2 else 2 * x, "gives nothing back"),
        (lambda x: [2 * x], "Its shape is (1,)"),
        (lambda x: "2", "A text came"),
        (lambda x: float("nan"), "NaN"),
    ],
)
def test_what_is_said_about_unforeseen_answers(answer, said):
    found = judge("double", DOUBLE, answer)
    assert found.state == "wrong" and said in str(found), str(found)


def test_a_changed_input_is_noticed():
    def negate(x):
        return -x

    def in_place(x):
        x *= -1
        return x

    task = Exercise(negate, cases=lambda rng: [(np.ones(3),), (np.arange(3.0),)])
    assert judge("negate", task, negate).state == "right"
    assert "changes its input" in str(judge("negate", task, in_place))


def test_matrices_are_drawn():
    def flip(matrix):
        return matrix[::-1]

    task = Exercise(flip, cases=lambda rng: [(np.arange(6.0).reshape(2, 3),)])
    found = judge("flip", task, lambda matrix: matrix)
    assert "6 of 6 cells differ" in found.drawing and "<svg" in found._repr_mimebundle_()["text/html"]
    assert judge("flip", task, lambda matrix: matrix[::-1]).drawing == ""
    assert "transposed" in str(judge("flip", task, lambda matrix: matrix[::-1].T))


def test_what_came_is_escaped():
    task = Exercise(double, cases=lambda rng: [(1.0,)])
    page = judge("double", task, lambda x: "<script>`x`")._repr_mimebundle_()["text/html"]
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_the_interval_and_the_bars_are_drawn():
    assert "<svg" in verdict("01.wilson_interval", lambda right, n: (0.2, 0.3)).drawing
    assert verdict("01.wilson_interval", lambda right, n: (0.2, np.inf)).drawing == ""
    assert "your answer" in verdict("01.first_to_shrink", lambda layers, goal: layers[0][0]).drawing


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"no exercise 'nothing'; it has idx_shape"):
        verdict("01.nothing", 1)
    for name in ("97.x", "nonsense", "01/../x.y"):
        with pytest.raises(ValueError, match="no exercises for lesson"):
            verdict(name, 1)


def test_check_shows_the_verdict(capsys):
    check("01.why", "a")
    assert "Not yet: 01.why" in capsys.readouterr().out


@given(st.integers(1, 100_000), st.data())
def test_the_interval_is_scipys(n, data):
    right = data.draw(st.integers(0, n))
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert lesson_01.wilson_interval(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
def test_the_header_comes_back(shape):
    assert lesson_01.idx_shape(lesson_01.idx_header(*shape) + b"pixels") == tuple(shape)


def test_equality():
    assert same((1, 2.0), [1.0, 2]) and same(np.float32(1), 1) and same(np.array([1, 2]), (1, 2))
    assert same({"a": 1}, {"a": 1.0}) and not same({"a": 1}, {"b": 1})
    assert not same("1", 1) and not same(1, "1") and not same([1], 1) and not same(None, 0)
    assert same(np.nan, np.nan) and not same(np.nan, 0.0)
    assert same(1.0 + 1e-9, 1.0) and not same(1.0 + 1e-9, 1.0, 0.0)


def test_values_fit_into_a_sentence():
    assert shown(1234567) == "1,234,567" and shown(np.zeros((100, 2))) == "an array (100, 2) of float64"
    assert shown(bytes(20)).endswith(" …") and shown((1, "a")) == "(1, 'a')" and shown(b"") == "no bytes"


def test_a_mistake_needs_cases_that_tell_it_apart():
    """Were the cases too few, a mistake could pass for right: the test above would then fail."""
    task = Exercise(double, cases=lambda rng: [(2.0,)], mistakes=(Mistake(lambda x: x * x, "that is the square"),))
    assert judge("double", task, lambda x: x * x).state == "right"


def test_a_known_mistake_is_told_when_it_comes_with_another_one():
    numbers = [(float(number),) for number in range(8)]
    task = Exercise(double, cases=lambda rng: numbers, mistakes=(Mistake(lambda x: x * x, "that is the square"),))
    told = judge("double", task, lambda x: x * x if x < 7 else -1.0).lines
    assert "5 of the 6 wrong answers look like this: that is the square" in told
    for answer in (lambda x: x * x if x in (0, 1, 2, 3, 4) else -1.0, lambda x: 1 / 0 if x else 0.0):
        assert "square" not in str(judge("double", task, answer)), "two of six, or a traceback, may be chance"


@pytest.mark.parametrize("lesson", LESSONS)
def test_names_are_plain(lesson):
    module = importlib.import_module(f"compresskit.course.lesson_{lesson}")
    assert all(name.isidentifier() for name in module.EXERCISES)
