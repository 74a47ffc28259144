"""Still pictures in lessons: rows of digits, bars. They need no kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.widgets.picture import Picture

_SIDE = 56  # two screen pixels for each of the 28
_GAP = 10
_CAPTION = 18


@dataclass(frozen=True)
class Still:
    """A picture as a cell's output: PNG, which every reader shows, trusted or not; else words.

    Parameters
    ----------
    picture
        What to show; its title is the text for those who do not see it.
    """

    picture: Picture

    def __repr__(self) -> str:
        return f"[picture: {self.picture.title}]"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = {"text/plain": repr(self), "image/png": self.picture.png()}
        return bundle, {"image/png": {"alt": self.picture.title, "width": round(self.picture.width)}}


def show_digits(images: NDArray[np.uint8], captions: Iterable[object] = (), columns: int = 10) -> Still:
    """Lay digits out in rows, a caption below each.

    Parameters
    ----------
    images
        (n, 28, 28) uint8.
    captions
        One for each image, or none; written with ``str``.
    columns
        Digits in a row.

    Returns
    -------
    Still
        For the last line of a cell.

    Raises
    ------
    ValueError
        If there are no images, or captions for only some.
    """
    if images.ndim != 3 or not len(images):
        raise ValueError(f"images: shape {images.shape} is not (n, height, width) with at least one image")
    written = [str(caption) for caption in captions]
    if len(written) not in (0, len(images)):
        raise ValueError(f"captions: {len(written)} for {len(images)} images; give one for each, or none")
    step_x, step_y = _SIDE + _GAP, _SIDE + _GAP + (_CAPTION if written else 0)
    rows = -(-len(images) // columns)
    words = f": {', '.join(written)}" if written else ""
    picture = Picture(min(columns, len(images)) * step_x, rows * step_y, f"{len(images)} digits{words}")
    for place, image in enumerate(images):
        x, y = place % columns * step_x, place // columns * step_y
        picture.raster(x, y, _SIDE, _SIDE, image)
        if written:
            picture.text(x + _SIDE / 2, y + _SIDE + 14, written[place], size=12, anchor="middle")
    return Still(picture)


def show_bars(columns: Mapping[str, Mapping[str, float]], title: str) -> Still:
    """Draw one group of horizontal bars beside the other, each as shares of its own total.

    Parameters
    ----------
    columns
        For each group (its heading) the values by name; all groups have the same names.
    title
        What the picture shows, in words.

    Returns
    -------
    Still
        For the last line of a cell.

    Raises
    ------
    ValueError
        If the groups have different names, or nothing is above zero.
    """
    names = list(next(iter(columns.values()), {}))
    for heading, values in columns.items():
        if list(values) != names or not sum(values.values()) > 0:
            raise ValueError(f"columns: {heading!r} needs the names {names} and a total above zero")
    width, left = 300, 70
    picture = Picture(left + len(columns) * width, 34 + 24 * len(names), title)
    for row, name in enumerate(names):
        picture.text(0, 44 + 24 * row, name, size=13)
    for group, (heading, values) in enumerate(columns.items()):
        x, total = left + group * width, sum(values.values())
        picture.text(x, 14, heading, size=13, bold=True)
        for row, value in enumerate(values.values()):
            long = 170 * value / total
            picture.rectangle(x, 31 + 24 * row, max(long, 1), 16, fill="after")
            picture.text(x + long + 6, 44 + 24 * row, f"{value:,.0f} ({value / total:.1%})", size=12)
    return Still(picture)
