"""A square to draw a digit on, and what MNIST's makers did to turn a scan into 28 x 28 pixels.

LeCun, Cortes and Burges: the digit is scaled, keeping its proportions, to fit a 20 x 20 box; the scaling gives grey
levels; the box is placed in 28 x 28 pixels so that the centre of mass of the pixels lies in the middle. A network that
has only seen such digits reads a drawing well only if it went the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray

from compresskit.widgets.style import script

BOX: Final = 20
SIDE: Final = 28
MIDDLE: Final = 14
"""Index of the pixel that the centre of mass lies on: 13.98 on average over MNIST, not the 13.5 of the exact middle."""
PAD_SIDE: Final = 168
"""Pixels of the drawing, in each direction: six for each pixel of a digit."""

_INK: Final = 32  # grey level from which a pixel counts as drawn on


def preprocess(bitmap: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn a drawing into a digit as MNIST has them.

    Parameters
    ----------
    bitmap
        (h, w) uint8, the strokes bright on 0.

    Returns
    -------
    NDArray[np.uint8]
        (28, 28); all 0 for an empty drawing.

    Raises
    ------
    ValueError
        If `bitmap` is not two-dimensional uint8.
    """
    if bitmap.ndim != 2 or bitmap.dtype != np.uint8:
        raise ValueError(f"bitmap is {bitmap.dtype} of shape {bitmap.shape}; give uint8 of shape (h, w).")
    rows, columns = np.flatnonzero((bitmap >= _INK).any(axis=1)), np.flatnonzero((bitmap >= _INK).any(axis=0))
    if not len(rows):
        return np.zeros((SIDE, SIDE), np.uint8)
    drawn = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)
    scale = BOX / max(drawn.shape)
    height, width = (max(1, round(side * scale)) for side in drawn.shape)
    small = _area_average(drawn.shape[0], height) @ drawn @ _area_average(drawn.shape[1], width).T
    return _centred(np.clip(np.rint(small), 0, 255).astype(np.uint8))


def _area_average(before: int, after: int) -> NDArray[np.float64]:
    """Give the (after, before) matrix that averages a line of pixels over equal stretches; its rows sum to 1."""
    edges = np.arange(after + 1) * before / after
    pixels = np.arange(before)
    starts = np.maximum(edges[:-1, None], pixels[None, :])
    ends = np.minimum(edges[1:, None], pixels[None, :] + 1)
    shares: NDArray[np.float64] = np.clip(ends - starts, 0, None) * after / before
    return shares


def _centred(box: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Place a box of at most 20 x 20 in 28 x 28, its centre of mass in the middle, as far as whole pixels allow."""
    digit = np.zeros((SIDE, SIDE), np.uint8)
    mass = box.sum(dtype=np.float64)
    corner = []
    for axis, side in enumerate(box.shape):
        positions = np.arange(side)
        centre = float(box.sum(axis=1 - axis, dtype=np.float64) @ positions / mass)
        corner.append(int(np.clip(round(MIDDLE - centre), 0, SIDE - side)))
    top, left = corner
    digit[top : top + box.shape[0], left : left + box.shape[1]] = box
    return digit


def enlarge(digit: NDArray[np.uint8], side: int = PAD_SIDE) -> NDArray[np.uint8]:
    """Draw a (28, 28) digit with larger pixels; `side` is a multiple of 28. Returns (side, side) uint8."""
    if digit.shape != (SIDE, SIDE) or side % SIDE:
        raise ValueError(f"digit has shape {digit.shape} and side is {side}; give (28, 28) and a multiple of 28.")
    return np.kron(digit, np.ones((side // SIDE, side // SIDE), np.uint8))


class DrawingPad(anywidget.AnyWidget):  # type: ignore[misc]
    """A black square on which one draws with the mouse, a pen or a finger; Delete clears it.

    Drawing needs a hand; what it is for does not: `show_digit` puts a digit of a data set there, and a panel offers
    that as a button.

    Parameters
    ----------
    label
        Accessible name.
    pen
        Width of the strokes as a fraction of the side.
    """

    _esm = script("drawing")
    size = traitlets.Int(PAD_SIDE).tag(sync=True)
    pen = traitlets.Float(0.085).tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    bitmap = traitlets.Bytes(b"").tag(sync=True, from_json=lambda buffer, _: bytes(buffer))
    painted = traitlets.Bytes(b"").tag(sync=True)
    showing_digit = traitlets.Bool(False).tag(sync=True)

    def __init__(self, label: str = "Draw a digit here; press Delete to clear", pen: float = 0.085) -> None:
        self._digit: NDArray[np.uint8] = np.zeros((SIDE, SIDE), np.uint8)
        self._drawn: list[Callable[[NDArray[np.uint8]], None]] = []
        super().__init__(label=label, pen=pen)
        self.observe(self._on_bitmap, "bitmap")

    @property
    def digit(self) -> NDArray[np.uint8]:
        """The drawing as MNIST would have it, (28, 28) uint8; all 0 when nothing is drawn."""
        return self._digit.copy()

    def on_draw(self, callback: Callable[[NDArray[np.uint8]], None]) -> None:
        """Register ``callback(digit)``; it is called with (28, 28) uint8 after each change."""
        self._drawn.append(callback)

    def show_digit(self, digit: NDArray[np.uint8]) -> None:
        """Put a (28, 28) uint8 digit on the pad, unchanged; the next stroke starts a new drawing."""
        self._paint(np.asarray(digit, np.uint8), True)

    def clear(self) -> None:
        """Wipe the pad."""
        self._paint(np.zeros((SIDE, SIDE), np.uint8), False)

    def close(self) -> None:
        """Close the widget and forget who listens."""
        self._drawn.clear()
        super().close()

    def _paint(self, digit: NDArray[np.uint8], shown: bool) -> None:
        with self.hold_sync():
            self.showing_digit = shown
            self.painted = enlarge(digit).tobytes()
            self.bitmap = b""
        self.send({"type": "paint"})  # the same digit twice is no change of state, but has to be painted twice
        self._tell(digit)

    def _on_bitmap(self, change: Any) -> None:
        pixels = np.frombuffer(change["new"], np.uint8)
        if pixels.size == self.size**2:
            self._tell(preprocess(pixels.reshape(self.size, self.size)))

    def _tell(self, digit: NDArray[np.uint8]) -> None:
        self._digit = digit.copy()
        for callback in list(self._drawn):
            callback(self._digit.copy())
