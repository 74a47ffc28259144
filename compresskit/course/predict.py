"""Commit to an answer before seeing it.

`predict` asks; the learner answers in the notebook. Later `reveal` sets the answer beside the computed value and says
why. Whoever did not answer is told so, and finds the value folded away, so that a glance does not give it away.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

CLOSE_ENOUGH = 0.1
"""A predicted number this close to the right one, relative, counts as right."""


class _Question(anywidget.AnyWidget):  # type: ignore[misc]
    """What the learner sees. Its state is text, so that nothing is lost on the way through the browser."""

    _esm = Path(__file__).parent / "predict.js"
    question = traitlets.Unicode().tag(sync=True)
    choices = traitlets.List(traitlets.Unicode()).tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    answer = traitlets.Unicode().tag(sync=True)


class Prediction:
    """A question and, once it was given, the learner's answer.

    Parameters
    ----------
    question
        What is asked.
    choices
        The answers to choose from; empty where a number is asked for.
    unit
        The unit of the number.
    """

    def __init__(self, question: str, choices: Sequence[str], unit: str) -> None:
        self.question, self.choices, self.unit = question, tuple(choices), unit
        self._widget: _Question | None = None
        self._answer = ""

    def __repr__(self) -> str:
        return f"Prediction({self.question!r}, answer={self.answer!r})"

    @property
    def answer(self) -> str | float | None:
        """The choice or the number, or None as long as there is none."""
        text = self._widget.answer if self._widget is not None else self._answer
        if not text:
            return None
        return text if self.choices else float(text)

    def commit(self, answer: str | float) -> None:
        """Answer by code instead of in the notebook.

        Parameters
        ----------
        answer
            One of the choices, or a finite number.

        Raises
        ------
        ValueError
            If it is neither.
        """
        if self.choices and answer not in self.choices:
            raise ValueError(f"answer: {answer!r} is none of the choices: {', '.join(self.choices)}")
        if not self.choices and not (isinstance(answer, int | float) and math.isfinite(answer)):
            raise ValueError(f"answer: {answer!r} is not a finite number")
        self._answer = str(answer)
        if self._widget is not None:
            self._widget.answer = self._answer

    def widget(self) -> _Question:
        """Give the widget, the same one each time."""
        if self._widget is None:
            self._widget = _Question(
                question=self.question, choices=list(self.choices), unit=self.unit, answer=self._answer
            )
        return self._widget

    def fallback(self) -> dict[str, str]:
        """Write the question out for a reader without a kernel, as text and as HTML."""
        options = self.choices or (f"a number ({self.unit})" if self.unit else "a number",)
        bullets = "".join(f"<li>{html.escape(option)}</li>" for option in options)
        note = "Run this cell to answer."
        return {
            "text/plain": "\n".join([f"Predict: {self.question}", *(f"  - {option}" for option in options), note]),
            "text/html": f"<p><b>Predict: {html.escape(self.question)}</b></p><ul>{bullets}</ul><p><i>{note}</i></p>",
        }


_asked: dict[str, Prediction] = {}
"""What was asked in this kernel, by question: a cell that is run again keeps its answer."""


def predict(question: str, choices: Sequence[str] = (), unit: str = "") -> Prediction:
    """Ask a question and show it.

    Parameters
    ----------
    question
        What to predict, a full sentence.
    choices
        Two or more answers to choose from. Without them a number is asked for.
    unit
        What the number counts, for instance ``"kB"``.

    Returns
    -------
    Prediction
        For `reveal`. Asked again in the same kernel, the question keeps its answer.

    Raises
    ------
    ValueError
        If there is a single choice, or one occurs twice.
    """
    if choices and (len(choices) < 2 or len(set(choices)) < len(choices)):
        raise ValueError(f"choices: {list(choices)} are not two or more different answers")
    asked = _asked.get(question)
    if asked is None or asked.choices != tuple(choices) or asked.unit != unit:
        asked = _asked[question] = Prediction(question, choices, unit)
    _show(asked)
    return asked


def reveal(prediction: Prediction, truth: str | float, because: str = "") -> None:
    """Set a prediction beside the computed value.

    Parameters
    ----------
    prediction
        What `predict` gave.
    truth
        The right choice, or the right number in the unit asked for.
    because
        Why, in a sentence or two.

    Raises
    ------
    ValueError
        If the truth is none of the choices.
    """
    from IPython.display import display

    if prediction.choices and truth not in prediction.choices:
        raise ValueError(f"truth: {truth!r} is none of the choices: {', '.join(prediction.choices)}")
    display(_Shown(comparison(prediction, truth, because)))


def comparison(prediction: Prediction, truth: str | float, because: str = "") -> dict[str, str]:
    """Write what `reveal` shows, as text and as HTML."""
    value = f"{_number(truth)} {prediction.unit}".strip()
    if prediction.answer is None:
        opening = "You made no prediction."
        plain = f"{prediction.question}\n  {opening} It is: {value}. {because}".rstrip()
        page = (
            f"<p><b>{html.escape(prediction.question)}</b></p><p>{opening} You can still go back and make one.</p>"
            f"<details><summary>Show the answer</summary><p><b>{html.escape(value)}</b>. {html.escape(because)}</p>"
            "</details>"
        )
        return {"text/plain": plain, "text/html": page}
    told = f"{_verdict(prediction, truth, value)} {because}".rstrip()
    return {
        "text/plain": f"{prediction.question}\n  {told}",
        "text/html": f"<p><b>{html.escape(prediction.question)}</b></p><p>{html.escape(told)}</p>",
    }


def _verdict(prediction: Prediction, truth: str | float, value: str) -> str:
    answer = prediction.answer
    said = f"{_number(answer)} {prediction.unit}".strip()
    if isinstance(answer, str) or isinstance(truth, str):
        return f"✓ You said: {said}. So it is." if answer == truth else f"✗ You said: {said}. It is: {value}."
    assert answer is not None
    if math.isclose(answer, truth, rel_tol=CLOSE_ENOUGH):
        return f"✓ You said {said}; it is {value}. Close."
    if answer > 0 and truth > 0:
        factor = max(answer, truth) / min(answer, truth)
        return f"✗ You said {said}; it is {value}, {_number(factor)} times {'more' if truth > answer else 'less'}."
    return f"✗ You said {said}; it is {value}."


def _number(value: str | float | None) -> str:
    """Write a number to four digits, with thousands apart; text stays as it is."""
    if not isinstance(value, int | float):
        return str(value)
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"


def _show(prediction: Prediction) -> None:
    from IPython.display import display

    view: dict[str, Any] = (prediction.widget()._repr_mimebundle_() or ({},))[0]
    display(_Shown({**view, **prediction.fallback()}))


@dataclass(frozen=True)
class _Shown:
    """What a cell puts out, by kind; where there is no notebook, its text."""

    bundle: dict[str, Any]

    def __repr__(self) -> str:
        return str(self.bundle["text/plain"])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return self.bundle
