"""Check a learner's answer against the reference, and say what is wrong with it.

An exercise is a row of data: the reference, the inputs to try, and the wrong answers that people really give, each
with what to say about it. `check` runs the learner's function on all inputs. A wrong answer that agrees with one of the
known mistakes wherever it was tried is told which one it is; any other is told on which input it went wrong, what came,
and what was expected, with a drawing where that helps.

The exercises of lesson NN are in `lesson_NN.py`, in a mapping `EXERCISES`; they are looked up as ``"NN.name"``.
"""

from __future__ import annotations

import copy
import html
import importlib
import importlib.util
import inspect
import linecache
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from compresskit.course import sketch

Case = tuple[Any, ...]
State = Literal["right", "wrong", "unsolved"]

_MARKS: dict[State, tuple[str, str]] = {
    "right": ("✓", "Right"),
    "wrong": ("✗", "Not yet"),
    "unsolved": ("○", "Not solved yet"),
}
_LARGEST_DRAWING = 32 * 32  # cells of a matrix that is still worth drawing


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people really give.

    Attributes
    ----------
    answer
        What someone who makes it would hand in: a function like the reference, or a value.
    hint
        What to say to them.
    """

    answer: Any
    hint: str


@dataclass(frozen=True)
class Exercise:
    """What is asked, what is right, and what goes wrong.

    Attributes
    ----------
    reference
        The right function, or the right value.
    cases
        Given a random generator, the argument tuples to try: first plain ones, then edge cases, then random ones.
        Not used where the answer is a value.
    mistakes
        Known wrong answers. Where several agree with an answer, the first one is told.
    praise
        What a right answer shows; said when it is right.
    tolerance
        Largest relative difference between numbers that still counts as equal.
    draw
        Makes an SVG of one wrong answer from its arguments, what came and what was expected.
    examine
        Judges a value of which more than one is right, such as a recipe that reaches a goal: gives whether it does,
        and what to say. It takes the place of the comparison with `reference` and `mistakes`.
    """

    reference: Any
    cases: Callable[[np.random.Generator], Iterable[Case]] | None = None
    mistakes: tuple[Mistake, ...] = ()
    praise: str = ""
    tolerance: float = 1e-6
    draw: Callable[[Case, Any, Any], str] | None = None
    examine: Callable[[Any], tuple[bool, tuple[str, ...]]] | None = None

    @property
    def is_function(self) -> bool:
        """Whether a function is asked for, and not a value."""
        return callable(self.reference)


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes
    ----------
    name
        The exercise.
    state
        ``"right"``, ``"wrong"`` or ``"unsolved"``.
    lines
        What to tell the learner, a sentence or two each.
    drawing
        An SVG, or nothing.
    """

    name: str
    state: State
    lines: tuple[str, ...]
    drawing: str = field(default="", repr=False)

    def __str__(self) -> str:
        mark, word = _MARKS[self.state]
        return "\n  ".join([f"{mark} {word}: {self.name}", *self.lines])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        mark, word = _MARKS[self.state]
        told = "".join(f"<p style='margin:.3em 0 0 1.4em'>{_with_code(line)}</p>" for line in self.lines)
        picture = f"<div style='margin:.5em 0 0 1.4em'>{self.drawing}</div>" if self.drawing else ""
        return {
            "text/plain": str(self),
            "text/html": f"<div role='status'><b>{mark} {word}: {self.name}</b>{told}{picture}</div>",
        }


@dataclass(frozen=True)
class _Raised:
    """Stands for the answer where a function raised instead of answering."""

    error: Exception


def check(name: str, answer: Any) -> None:
    """Check an answer and show what was found.

    Parameters
    ----------
    name
        Lesson and exercise, for instance ``"01.conv_parameters"``.
    answer
        The learner's function (the function itself, without parentheses) or value.

    Raises
    ------
    ValueError
        If there is no exercise of that name.
    """
    from IPython.display import display

    display(verdict(name, answer))


def verdict(name: str, answer: Any) -> Verdict:
    """Find out what is right and wrong about an answer; see `check`."""
    return judge(name, exercise(name), answer)


def exercise(name: str) -> Exercise:
    """Look an exercise up.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists those of the lesson.
    """
    lesson, _, short = name.partition(".")
    known = exercises(lesson)
    if short not in known:
        raise ValueError(f"name: lesson {lesson} has no exercise {short!r}; it has {', '.join(known)}")
    return known[short]


def exercises(lesson: str) -> Mapping[str, Exercise]:
    """Give all exercises of a lesson, by short name.

    Parameters
    ----------
    lesson
        Its number, two digits.

    Raises
    ------
    ValueError
        If the lesson has none.
    """
    module = f"compresskit.course.lesson_{lesson}"
    if not (lesson.isdigit() and importlib.util.find_spec(module)):
        raise ValueError(f"name: there are no exercises for lesson {lesson!r}; a name is like '01.conv_parameters'")
    found: Mapping[str, Exercise] = importlib.import_module(module).EXERCISES
    return found


def judge(name: str, task: Exercise, answer: Any) -> Verdict:
    """Compare an answer with an exercise's reference.

    Parameters
    ----------
    name
        What to call the exercise.
    task
        The exercise.
    answer
        A function or a value.

    Returns
    -------
    Verdict
        Never just "wrong": it says on which input, what came, what was expected, and the likeliest reason.
    """
    if _is_blank(answer):
        return Verdict(name, "unsolved", ("The notebook goes on without it.",))
    if task.is_function:
        return _judge_function(name, task, answer)
    return _judge_value(name, task, answer)


def same(got: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    """Tell whether two answers are equal.

    Numbers and arrays may differ by `tolerance`, relative; tuples and lists are the same thing; the type of a number
    does not matter, but a string is no number and a shape is a shape.
    """
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and got.keys() == expected.keys()
            and all(same(got[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, tuple | list):
        return (
            isinstance(got, tuple | list | np.ndarray)
            and len(got) == len(expected)
            and all(same(one, other, tolerance) for one, other in zip(got, expected, strict=True))
        )
    if isinstance(expected, str | bytes) or expected is None:
        return type(got) is type(expected) and bool(got == expected)
    one, other = _as_numbers(got), _as_numbers(expected)
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(np.allclose(one, other, rtol=tolerance, atol=1e-12, equal_nan=True))


def _judge_value(name: str, task: Exercise, answer: Any) -> Verdict:
    if callable(answer):
        return Verdict(
            name, "wrong", ("This exercise wants a value; a function came. Call it, and check what it gives.",)
        )
    if task.examine is not None:
        right, lines = task.examine(answer)
        return Verdict(name, "right" if right else "wrong", (*lines, task.praise) if right else lines)
    if isinstance(answer, str):
        answer = answer.strip().lower()  # a choice: "B" is as good as "b"
    if same(answer, task.reference, task.tolerance):
        return Verdict(name, "right", (task.praise,) if task.praise else ())
    for mistake in task.mistakes:
        if same(answer, mistake.answer, task.tolerance):
            return Verdict(name, "wrong", (f"You answered {shown(answer)}.", mistake.hint))
    return Verdict(name, "wrong", (f"You answered {shown(answer)}. {_about_value(answer, task.reference)}",))


def _judge_function(name: str, task: Exercise, answer: Any) -> Verdict:
    if not callable(answer):
        return Verdict(name, "wrong", (f"Give the function itself, without parentheses; {shown(answer)} came.",))
    misfit = _misfit(answer, task.reference)
    if misfit:
        return Verdict(name, "wrong", (misfit,))
    assert task.cases is not None, "an exercise whose answer is a function has cases"
    cases = list(task.cases(np.random.default_rng(zlib.crc32(name.encode()))))
    answers, changed = [], None
    for case in cases:
        given = copy.deepcopy(case)
        answers.append(_call(answer, given))
        if not answers[1:] and _is_blank(answers[0]):
            return Verdict(name, "unsolved", ("It gives nothing back. If you have written it: is a return missing?",))
        if changed is None and not same(given, case, 0.0):
            changed = case
    expected = [task.reference(*copy.deepcopy(case)) for case in cases]
    wrong = [i for i in range(len(cases)) if not same(answers[i], expected[i], task.tolerance)]
    if wrong:
        return _explain(name, task, cases, answers, expected, wrong)
    if changed is not None:
        told = f"The answers are right, but the function changes its input: {_called(task, changed)}. Work on a copy."
        return Verdict(name, "wrong", (told,))
    tried = f"It agrees with the reference on all {len(cases)} inputs tried."
    return Verdict(name, "right", (tried, task.praise) if task.praise else (tried,))


def _explain(
    name: str, task: Exercise, cases: list[Case], answers: list[Any], expected: list[Any], wrong: list[int]
) -> Verdict:
    """Put into words, and into a picture, what is wrong with a function."""
    first = wrong[0]
    lines = [f"For {_called(task, cases[first])} {_came(answers[first], expected[first])}"]
    hint = _recognised(task, cases, answers) or _about_all(answers, expected) or _nearly(task, cases, answers, wrong)
    if hint:
        lines.append(hint)
    if len(wrong) < len(cases):
        lines.append(f"It was right on {len(cases) - len(wrong)} of the {len(cases)} inputs tried.")
    return Verdict(name, "wrong", tuple(lines), _picture(task, cases[first], answers[first], expected[first]))


def _recognised(task: Exercise, cases: list[Case], answers: list[Any]) -> str:
    for mistake in task.mistakes:
        if all(
            _agrees(answer, _call(mistake.answer, copy.deepcopy(case)), task.tolerance)
            for case, answer in zip(cases, answers, strict=True)
        ):
            return mistake.hint
    return ""


def _nearly(task: Exercise, cases: list[Case], answers: list[Any], wrong: list[int]) -> str:
    """Name the known mistake behind most of the wrong answers: it often comes with a second one, in an edge case."""
    alike, hint = 0, ""
    for mistake in task.mistakes:
        found = sum(
            not isinstance(answers[i], _Raised)
            and _agrees(answers[i], _call(mistake.answer, copy.deepcopy(cases[i])), task.tolerance)
            for i in wrong
        )
        if found > alike:
            alike, hint = found, mistake.hint
    enough = alike >= 3 and 3 * alike >= 2 * len(wrong)  # fewer may be chance
    return f"{alike} of the {len(wrong)} wrong answers look like this: {hint}" if enough else ""


def _agrees(answer: Any, other: Any, tolerance: float) -> bool:
    if isinstance(answer, _Raised) or isinstance(other, _Raised):
        return isinstance(answer, _Raised) and isinstance(other, _Raised)
    return same(answer, other, tolerance)


def _call(function: Callable[..., Any], case: Case) -> Any:
    try:
        return function(*case)
    except NotImplementedError:
        return NotImplemented
    except Exception as error:  # a learner's code may raise anything; it is reported, not lost
        return _Raised(error)


def _came(answer: Any, expected: Any) -> str:
    if isinstance(answer, _Raised):
        return f"it raised {type(answer.error).__name__}: {answer.error}{_line_of(answer.error)}"
    if _is_blank(answer):
        return f"it gives nothing back; {shown(expected)} was expected."
    return f"your answer is {shown(answer)}; {shown(expected)} was expected.{_about_form(answer, expected)}"


def _line_of(error: Exception) -> str:
    """Say which line of the learner's cell raised: the deepest one that is not in an installed package."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if "site-packages" not in filename and filename != __file__:
            source = linecache.getline(filename, trace.tb_lineno).strip()
            place = f" (line {trace.tb_lineno} of your cell{f': `{source}`' if source else ''})"
        trace = trace.tb_next
    return place


def _about_form(got: Any, expected: Any) -> str:
    """Say what is wrong with the type or the shape, where that is the trouble."""
    if isinstance(got, str) and not isinstance(expected, str):
        return " A text came where a number was asked for."
    if isinstance(expected, tuple | list) and not isinstance(got, tuple | list | np.ndarray):
        return f" {len(expected)} values belong in the answer, as a tuple."
    one, other = _as_numbers(got), _as_numbers(expected)
    if one is None or other is None:
        return ""
    if one.shape != other.shape:
        transposed = " It is transposed." if one.T.shape == other.shape and np.allclose(one.T, other) else ""
        return f" Its shape is {one.shape}; {other.shape} was expected.{transposed}"
    if np.isnan(one).any() and not np.isnan(other).any():
        return " It holds NaN: look for 0 / 0 or the root of a negative number."
    if one.ndim == 2 and one.shape[0] == one.shape[1] and np.allclose(one.T, other):
        return " It is transposed."
    return ""


def _about_all(answers: Sequence[Any], expected: Sequence[Any]) -> str:
    """Look for one factor or one difference that all answers share."""
    got, want = [_as_numbers(answer) for answer in answers], [_as_numbers(answer) for answer in expected]
    pairs = [(a, b) for a, b in zip(got, want, strict=True) if a is not None and b is not None and a.shape == b.shape]
    if len(pairs) < len(got):
        return ""
    one = np.concatenate([a.ravel() for a, _ in pairs])
    other = np.concatenate([b.ravel() for _, b in pairs])
    if len(np.unique(other)) < 3 or not np.isfinite(one).all():
        return ""
    nonzero = other != 0
    factors = one[nonzero] / other[nonzero]
    if np.allclose(factors, factors[0], rtol=1e-6) and np.allclose(one[~nonzero], 0):
        return _about_factor(float(factors[0]))
    differences = one - other
    if np.allclose(differences, differences[0], rtol=1e-6):
        size = abs(float(differences[0]))
        return f"Every answer is {size:.6g} too {'large' if differences[0] > 0 else 'small'}."
    return ""


_FACTORS = {
    -1.0: "Every answer has the wrong sign.",
    0.0: "Every answer is zero.",
    1000 / 1024: "Every answer is 1000/1024 of the right one: a kB is 1000 bytes here; 1024 bytes are a KiB.",
    8.0: "Every answer is 8 times too large: are those bits where bytes are asked for?",
    1 / 8: "Every answer is 8 times too small: are those bytes where bits are asked for?",
    100.0: "Every answer is 100 times too large: are those percent where a fraction is asked for?",
    0.01: "Every answer is 100 times too small: is that a fraction where percent are asked for?",
    1000.0: "Every answer is 1000 times too large: look at the unit.",
    1e-3: "Every answer is 1000 times too small: look at the unit.",
}


def _about_factor(factor: float) -> str:
    for known, text in _FACTORS.items():
        if math.isclose(factor, known, rel_tol=1e-6, abs_tol=1e-9):
            return text
    return f"Every answer is {factor:.6g} times the right one."


def _about_value(got: Any, expected: Any) -> str:
    form = _about_form(got, expected)
    if form:
        return form.strip()
    one, other = _as_numbers(got), _as_numbers(expected)
    if one is not None and other is not None and one.shape == other.shape == ():
        return f"That is too {'large' if one > other else 'small'}."
    return "That is not it."


def _picture(task: Exercise, case: Case, got: Any, expected: Any) -> str:
    if isinstance(got, _Raised) or _is_blank(got):
        return ""
    if task.draw is not None:
        try:
            return task.draw(case, got, expected)
        except (TypeError, ValueError, IndexError):
            return ""  # the answer has a form that cannot be drawn; the text says so already
    one, other = _as_numbers(got), _as_numbers(expected)
    if one is not None and other is not None and one.shape == other.shape and one.ndim == 2:
        return sketch.compare_grids(one, other) if one.size <= _LARGEST_DRAWING else ""
    return ""


def _misfit(answer: Callable[..., Any], reference: Callable[..., Any]) -> str:
    """Say when the learner's function cannot be called like the reference."""
    wanted = inspect.signature(reference)
    try:
        signature = inspect.signature(answer)
    except ValueError:
        return ""  # some built-in functions do not tell; the call will
    try:
        signature.bind(*wanted.parameters)
    except TypeError:
        theirs = getattr(answer, "__name__", "Your function")
        return f"{theirs} is called with {len(wanted.parameters)} arguments: {', '.join(wanted.parameters)}."
    return ""


def _called(task: Exercise, case: Case) -> str:
    names = inspect.signature(task.reference).parameters
    return ", ".join(f"{name} = {shown(value)}" for name, value in zip(names, case, strict=False))


def shown(value: Any) -> str:
    """Write a value so that it fits into a sentence."""
    if isinstance(value, np.ndarray):
        if value.size > 16:
            return f"an array {value.shape} of {value.dtype}"
        return np.array2string(value, separator=", ", precision=6).replace("\n", "")
    if isinstance(value, bytes):
        return f"{value[:16].hex(' ')}{' …' if len(value) > 16 else ''}" if value else "no bytes"
    if isinstance(value, tuple | list):
        inside = ", ".join(shown(one) for one in value[:6])
        return f"({inside}{', …' if len(value) > 6 else ''})"
    if isinstance(value, bool | np.bool_ | str):
        return repr(value)
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_blank(answer: Any) -> bool:
    return answer is None or answer is ... or answer is NotImplemented


def _as_numbers(value: Any) -> Any:
    """Make a float64 array, or None of what holds no numbers."""
    if isinstance(value, str | bytes | Mapping) or value is None:
        return None
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _with_code(line: str) -> str:
    """Escape a line for HTML and set what stands between backticks as code."""
    parts = html.escape(line).split("`")
    if len(parts) % 2 == 0:
        return html.escape(line)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
