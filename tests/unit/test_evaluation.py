"""Scores: LiteRT's answers counted, the interval against SciPy's, the batches against single runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import binomtest

import compresskit as ck
from compresskit.data import Digits, Split
from compresskit.evaluation import complete, cross_entropy, wilson_interval
from compresskit.litert import runtime
from compresskit.litert.runtime import TensorForm, encode, outputs


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_that_of_scipy(case: tuple[int, int]) -> None:
    correct, n = case
    other = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((other.low, other.high), abs=1e-6)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 10), (11, 10)])
def test_an_interval_of_impossible_counts_is_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="give 0 <= correct <= n"):
        wilson_interval(correct, n)


@pytest.fixture(scope="module")
def int8(digits: Digits) -> ck.Compressed:
    return ck.compress(ck.load_model("digit_reader"), ck.Recipe(ck.Prune(0.6), ck.Quantize()), digits.train)


@pytest.fixture(scope="module")
def rounded(int8: ck.Compressed) -> ck.Compressed:
    return ck.compress(int8.checkpoint, ck.Recipe(ck.Quantize(activations=32)))


def one_by_one(tflite: bytes, images: np.ndarray) -> np.ndarray:
    """Run single images the plain way, as the documentation of LiteRT shows it."""
    interpreter = Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    details, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = details["quantization"]
    answers = []
    for image in images:
        values = image.astype(np.float32)[None, ..., None] / 255
        if scale:
            values = np.clip(np.rint(values / scale) + zero, -128, 127).astype(details["dtype"])
        interpreter.set_tensor(details["index"], values)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(result["index"])[0].argmax())
    return np.array(answers)


def test_the_score_is_what_single_runs_give(int8: ck.Compressed, digits: Digits) -> None:
    part = digits.test.take(1003)  # not a multiple of any batch
    score = ck.evaluate(int8, part)
    expected = one_by_one(int8.tflite, np.asarray(part.images))
    np.testing.assert_array_equal(score.predictions, expected)
    assert score.accuracy == (expected == part.labels).mean()
    assert score.n == 1003
    assert score.errors == (expected != part.labels).sum()
    assert all(replace(score, accuracy=right / 100, n=100).errors == 100 - right for right in range(101))
    assert score.size == len(int8.tflite) > score.deflated_size


@settings(max_examples=10, deadline=None)
@given(st.sets(st.integers(0, 299), min_size=1))
def test_going_on_from_some_digits_is_reading_all(int8: ck.Compressed, digits: Digits, chosen: set[int]) -> None:
    test = digits.test.take(300)
    positions = np.array(sorted(chosen, reverse=True))
    some = ck.evaluate(int8, Split(test.images[positions], test.labels[positions], notice=test.notice))
    whole, expected = complete(some, positions, test), ck.evaluate(int8, test)
    np.testing.assert_array_equal(whole.predictions, expected.predictions)
    assert whole == expected


def test_what_was_read_is_not_read_again(int8: ck.Compressed, digits: Digits) -> None:
    test = digits.test.take(20)
    some = replace(ck.evaluate(int8, test.take(5)), predictions=np.full(5, -1))
    assert (complete(some, np.arange(5), test).predictions[:5] == -1).all()


@pytest.mark.parametrize("positions", [[0, 1], [0, 1, 1], [0, 1, 20], [-1, 0, 1]])
def test_positions_that_are_not_those_of_the_digits_read_are_refused(
    int8: ck.Compressed, digits: Digits, positions: list[int]
) -> None:
    some = ck.evaluate(int8, digits.test.take(3))
    with pytest.raises(ValueError, match="give each one's, once"):
        complete(some, np.array(positions), digits.test.take(20))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 300), workers=st.integers(1, 4), while_running=st.booleans())
def test_batches_and_workers_change_nothing(
    int8: ck.Compressed, rounded: ck.Compressed, digits: Digits, count: int, workers: int, while_running: bool
) -> None:
    tflite = (rounded if while_running else int8).tflite
    images = np.asarray(digits.test.images[:count])
    np.testing.assert_array_equal(outputs(tflite, images, workers=workers), outputs(tflite, images, workers=1))


def test_rows_are_those_of_the_images_in_their_order(int8: ck.Compressed, digits: Digits) -> None:
    images, rows = np.asarray(digits.test.images[:90]), np.random.default_rng(0).permutation(90)[:55]
    np.testing.assert_array_equal(outputs(int8.tflite, images, rows=rows), outputs(int8.tflite, images)[rows])
    with pytest.raises(ValueError, match="there are none"):
        outputs(int8.tflite, images, rows=rows[:0])


def test_what_stops_one_of_two_threads_is_an_error(
    int8: ck.Compressed, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_there = threading.Barrier(2, timeout=60)

    class Failing(runtime.Session):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            both_there.wait()
            if threading.current_thread().name.endswith("_1"):
                raise RuntimeError("no memory")
            super().__init__(*arguments, **settings)

    monkeypatch.setattr(runtime, "Session", Failing)
    with pytest.raises(RuntimeError, match="no memory"):
        outputs(int8.tflite, np.asarray(digits.test.images[:100]), workers=2)


@given(scale=st.floats(1e-4, 0.1) | st.just(1 / 255), zero=st.integers(-128, 127), kind=st.sampled_from("bB"))
@example(scale=1 / 255, zero=-128, kind="b")
@example(scale=1 / 255, zero=0, kind="B")
@example(scale=1 / 255, zero=-127, kind="b")
def test_pixels_are_coded_as_the_formula_says(scale: float, zero: int, kind: str) -> None:
    form = TensorForm((16, 16, 1), np.dtype(kind), scale, zero)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16).T[None]
    limits = np.iinfo(kind)
    real = pixels.astype(np.float32) / np.float32(255)
    exact = np.clip(np.rint(real / np.float32(scale)) + zero, limits.min, limits.max)
    np.testing.assert_array_equal(encode(pixels, form)[0, ..., 0], exact[0])
    assert encode(pixels, form).dtype == form.dtype


def test_latency_and_memory_come_on_request(int8: ck.Compressed, digits: Digits) -> None:
    plain = ck.evaluate(int8, digits.test.take(10))
    assert plain.latency is None
    assert plain.memory is None
    assert ck.evaluate(int8, digits.test.take(10), latency=True).memory is None
    full = ck.evaluate(int8, digits.test.take(10), latency=True, memory=True, threads=2)
    assert full.latency is not None and full.memory is not None
    assert 0 < full.latency.low <= full.latency.median <= full.latency.high
    assert (full.latency.runs, full.latency.threads) == (200, 2)
    assert full.memory > int8.size / 2
    assert "2 threads" in str(full)


def test_the_notice_of_the_digits_stands_in_the_score(int8: ck.Compressed, digits: Digits) -> None:
    part = Split(digits.test.images[:10], digits.test.labels[:10], "mine", notice="only a sample")
    assert (ck.evaluate(int8, part).notice, ck.evaluate(int8, part).split) == ("only a sample", "mine")
    said = str(ck.evaluate(int8, part))
    assert said.endswith("only a sample") and " of 10 images (95 %" in said, "only MNIST's are called digits"


def test_digits_that_do_not_fit_are_refused(int8: ck.Compressed) -> None:
    wrong = Split(np.zeros((3, 30, 30), np.uint8), np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="resize them first"):
        ck.evaluate(int8, wrong)


@pytest.mark.parametrize("spread", [0.1, 5.0, 500.0])
@pytest.mark.parametrize("probabilities", [False, True])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_the_loss_is_that_of_scipy(seed: int, spread: float, probabilities: bool) -> None:
    generator = np.random.default_rng(seed)
    z = generator.normal(0, spread, (50, 7)).astype(np.float32)
    labels = generator.integers(0, 7, 50).astype(np.uint8)
    exact = log_softmax(z.astype(np.float64), axis=1)
    if probabilities:
        given_ = np.exp(exact).astype(np.float32)
        floored = np.clip(given_.astype(np.float64), 1e-7, None)[np.arange(50), labels]
        assert cross_entropy(given_, labels, True) == pytest.approx(-np.log(floored).mean(), rel=1e-5, abs=1e-7)
        return
    assert cross_entropy(z, labels) == pytest.approx(-exact[np.arange(50), labels].mean(), rel=1e-5, abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", [np.inf, -np.inf, np.nan])
def test_answers_without_end_have_no_loss_and_no_warning(answer: float) -> None:
    """A file is read while it is checked: LiteRT's 2-bit convolutions between floats, which are refused, give these."""
    answers = np.zeros((3, 10), np.float32)
    answers[1, 4] = answer
    assert np.isnan(cross_entropy(answers, np.zeros(3, np.uint8)))


def test_the_loss_of_a_file_goes_on_from_some_digits_to_all(int8: ck.Compressed, digits: Digits) -> None:
    whole = ck.evaluate(int8, digits.test)
    few = np.arange(0, len(digits.test), 3)
    some = replace(digits.test, images=digits.test.images[few], labels=digits.test.labels[few])
    assert complete(ck.evaluate(int8, some), few, digits.test).loss == pytest.approx(whole.loss, rel=1e-6)
    answers = outputs(int8.tflite, digits.test.images).astype(np.float64)
    expected = -log_softmax(answers, axis=1)[np.arange(len(answers)), digits.test.labels].mean()
    assert whole.loss == pytest.approx(expected, rel=1e-5)
    for label in (-1, 10):
        assert np.isnan(cross_entropy(answers.astype(np.float32), np.full(len(answers), label)))
