"""A prediction is kept, compared and never stands in the way."""

from __future__ import annotations

from importlib import import_module

import pytest

from compresskit.course.predict import comparison, predict, reveal

module = import_module("compresskit.course.predict")  # as an attribute of the package, the name is the function's
LAYERS = ("conv1", "conv2", "dense", "head")


@pytest.fixture(autouse=True)
def forget():
    module._asked.clear()


def browser_sends(prediction, answer: str) -> None:
    """What the page sends when the button is pressed."""
    prediction.widget()._handle_msg(
        {"content": {"data": {"method": "update", "state": {"answer": answer}}}, "buffers": []}
    )


def test_a_choice(capsys):
    guess = predict("Where are the bytes?", choices=LAYERS)
    assert guess.answer is None
    assert "Predict: Where are the bytes?\n  - conv1" in capsys.readouterr().out
    browser_sends(guess, "conv2")
    assert guess.answer == "conv2"
    reveal(guess, "dense", "It has the most weights.")
    assert "✗ You said: conv2. It is: dense. It has the most weights." in capsys.readouterr().out
    assert "✓ You said: conv2. So it is." in comparison(guess, "conv2")["text/plain"]


@pytest.mark.parametrize(
    ("answer", "truth", "said"),
    [
        ("1690", 1689.912, "✓ You said 1,690 kB; it is 1,690 kB. Close."),
        ("400", 1600.0, "✗ You said 400 kB; it is 1,600 kB, 4 times more."),
        ("2500", 1000, "✗ You said 2,500 kB; it is 1,000 kB, 2.50 times less."),
        ("0", 3, "✗ You said 0 kB; it is 3 kB."),
        ("-1.5", 0.25, "✗ You said -1.50 kB; it is 0.25 kB."),
    ],
)
def test_a_number(answer, truth, said):
    guess = predict("How many?", unit="kB")
    browser_sends(guess, answer)
    assert said in comparison(guess, truth)["text/plain"]


def test_no_prediction_says_so_and_folds_the_answer(capsys):
    guess = predict("How many?", unit="kB")
    capsys.readouterr()
    reveal(guess, 1689.912, "Four bytes each.")
    assert "You made no prediction. It is: 1,690 kB. Four bytes each." in capsys.readouterr().out
    page = comparison(guess, 1689.912, "Four bytes each.")["text/html"]
    assert page.index("<details>") < page.index("1,690 kB")


def test_running_the_cell_again_keeps_the_answer():
    first = predict("Where?", choices=LAYERS)
    browser_sends(first, "head")
    again = predict("Where?", choices=LAYERS)
    assert again is first and again.widget() is first.widget()
    assert predict("Where?", choices=LAYERS[:2]).answer is None, "other choices are another question"


def test_commit_by_code_reaches_the_page():
    guess = predict("Where?", choices=LAYERS)
    guess.commit("dense")
    assert guess.widget().answer == "dense" and guess.answer == "dense"
    with pytest.raises(ValueError, match="'pool' is none of the choices"):
        guess.commit("pool")
    number = predict("How many?")
    with pytest.raises(ValueError, match="not a finite number"):
        number.commit(float("nan"))
    number.commit(0)
    assert number.answer == 0


def test_faulty_questions_are_refused():
    for choices in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="two or more different answers"):
            predict("?", choices=choices)
    guess = predict("Where?", choices=LAYERS)
    with pytest.raises(ValueError, match="'pool' is none of the choices"):
        reveal(guess, "pool")


def test_a_reader_without_a_kernel_sees_the_question():
    found = predict("Is a < b?", choices=["yes", "<no>"]).fallback()
    assert "<li>&lt;no&gt;</li>" in found["text/html"] and "a &lt; b" in found["text/html"]
    assert found["text/plain"].endswith("Run this cell to answer.")
