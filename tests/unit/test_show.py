"""Still pictures: right places, right shares, words for those who do not see them."""

from __future__ import annotations

import numpy as np
import pytest

from compresskit.course.show import show_bars, show_digits


def test_digits_lie_in_rows_with_their_captions():
    shown = show_digits(np.zeros((12, 28, 28), np.uint8), np.arange(12), columns=10)
    bundle, metadata = shown._repr_mimebundle_()
    assert bundle["text/plain"] == "[picture: 12 digits: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]"
    assert bundle["image/png"].startswith(b"\x89PNG") and shown.picture.svg().count("<image") == 12
    assert shown.picture.width == 660 and shown.picture.height == 2 * 84
    assert metadata["image/png"]["width"] == 660
    assert show_digits(np.zeros((3, 28, 28), np.uint8)).picture.height == 66


def test_bars_are_shares_of_their_own_group():
    shown = show_bars({"bytes": {"a": 1, "b": 3}, "work": {"a": 10, "b": 0}}, "Where it sits")
    svg = shown.picture.svg()
    assert "3 (75.0%)" in svg and "10 (100.0%)" in svg and "0 (0.0%)" in svg
    assert 'aria-label="Where it sits"' in svg


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: show_digits(np.zeros((0, 28, 28), np.uint8)), "at least one image"),
        (lambda: show_digits(np.zeros((28, 28), np.uint8)), "shape"),
        (lambda: show_digits(np.zeros((2, 28, 28), np.uint8), ["a"]), "1 for 2 images"),
        (lambda: show_bars({"a": {"x": 1}, "b": {"y": 1}}, ""), "'b' needs the names"),
        (lambda: show_bars({"a": {"x": 0}}, ""), "above zero"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
