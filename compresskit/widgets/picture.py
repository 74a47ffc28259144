"""Still pictures drawn by plain code: as SVG, which follows the theme, and as PNG, which every reader shows.

A saved notebook has no kernel and no widgets. What it shows instead of a panel is the picture that the panel draws of
itself (`image/png` in its display bundle): JupyterLab shows PNG in untrusted notebooks too, where it drops SVG, and so
do GitHub and nbviewer.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from compresskit.widgets.style import colour, fixed_colour

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

Anchor = Literal["start", "middle", "end"]
Shape = Literal["disc", "circle", "star", "square", "diamond", "ring"]


@dataclass(frozen=True)
class _Polygon:
    points: tuple[tuple[float, float], ...]
    fill: str
    stroke: str
    width: float
    closed: bool
    opacity: float
    tip: str
    dash: bool


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    text: str
    size: float
    anchor: Anchor
    fill: str
    bold: bool


@dataclass(frozen=True)
class _Raster:
    x: float
    y: float
    width: float
    height: float
    pixels: NDArray[np.uint8]
    tip: str


@dataclass
class Picture:
    """A list of shapes in a coordinate system whose unit is a CSS pixel and whose y axis points down.

    Parameters
    ----------
    width, height
        Pixels.
    title
        What it shows, in words: its accessible name.
    """

    width: float
    height: float
    title: str
    _shapes: list[_Polygon | _Text | _Raster] = field(default_factory=list, repr=False)

    def rectangle(
        self, x: float, y: float, width: float, height: float, *, fill: str = "none", stroke: str = "none",
        stroke_width: float = 1.0, opacity: float = 1.0, tip: str = "",
    ) -> None:  # fmt: skip
        """Draw a rectangle; `tip` is shown on hover. Colours are roles of `style.ROLES` or hexadecimal."""
        corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
        self._shapes.append(_Polygon(corners, fill, stroke, stroke_width, True, opacity, tip, False))

    def line(
        self, points: Sequence[tuple[float, float]], *, stroke: str = "line", width: float = 1.0, dash: bool = False,
        opacity: float = 1.0,
    ) -> None:  # fmt: skip
        """Draw a line through points."""
        self._shapes.append(_Polygon(tuple(points), "none", stroke, width, False, opacity, "", dash))

    def area(
        self, points: Sequence[tuple[float, float]], *, fill: str = "none", stroke: str = "none", width: float = 1.0,
        opacity: float = 1.0, tip: str = "",
    ) -> None:  # fmt: skip
        """Draw a closed polygon."""
        self._shapes.append(_Polygon(tuple(points), fill, stroke, width, True, opacity, tip, False))

    def mark(self, x: float, y: float, shape: Shape, size: float, ink: str, *, tip: str = "") -> None:
        """Draw a mark of a given diameter: filled disc, star, square or diamond; hollow circle or ring."""
        hollow = shape in ("circle", "ring")
        self._shapes.append(
            _Polygon(
                _outline(x, y, shape, size / 2), "surface" if shape == "circle" else "none" if hollow else ink, ink,
                2.0 if hollow else 1.0, True, 1.0, tip, False,
            )
        )  # fmt: skip

    def text(
        self, x: float, y: float, text: str, *, size: float = 12.0, anchor: Anchor = "start", ink: str = "ink",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """Write a line of text whose baseline is at y."""
        self._shapes.append(_Text(x, y, text, size, anchor, ink, bold))

    def raster(self, x: float, y: float, width: float, height: float, pixels: NDArray[np.uint8], tip: str = "") -> None:
        """Place an image, (h, w) or (h, w, 3) uint8, its pixels drawn as sharp squares."""
        self._shapes.append(_Raster(x, y, width, height, np.ascontiguousarray(pixels), tip))

    def place(self, other: Picture, x: float, y: float) -> None:
        """Copy another picture's shapes into this one, its corner at (x, y)."""
        self._shapes.extend(_moved(shape, x, y) for shape in other._shapes)

    def svg(self) -> str:
        """Give the picture as an SVG element that takes its colours from the theme."""
        body = "".join(_svg(shape) for shape in self._shapes)
        name = html.escape(self.title, quote=True)
        return (
            f'<svg class="ck-picture" role="img" aria-label="{name}" viewBox="0 0 {_number(self.width)} '
            f'{_number(self.height)}" style="max-width:{_number(self.width)}px" xmlns="http://www.w3.org/2000/svg">{body}</svg>'
        )

    def png(self, scale: int = 2) -> bytes:
        """Draw the picture in the light theme's colours.

        Parameters
        ----------
        scale
            Pixels of the image for each pixel of the picture; 2 is sharp on most screens.

        Returns
        -------
        bytes
            A PNG file.
        """
        from PIL import Image, ImageDraw

        smooth = 2  # drawn larger, then reduced: Pillow's lines have hard edges otherwise
        factor = scale * smooth
        size = (round(self.width * factor), round(self.height * factor))
        image = Image.new("RGB", size, fixed_colour("surface"))
        for shape in self._shapes:
            if isinstance(shape, _Polygon) and shape.opacity < 1:
                layer = image.copy()
                _draw(ImageDraw.Draw(layer), layer, shape, factor)
                image = Image.blend(image, layer, shape.opacity)
            else:
                _draw(ImageDraw.Draw(image), image, shape, factor)
        image = image.resize((size[0] // smooth, size[1] // smooth), Image.Resampling.BOX)
        file = io.BytesIO()
        # 128 colours are enough for flat shapes, and a third of the bytes in a saved notebook.
        image.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        return file.getvalue()


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Write pixels as a PNG file, without any imaging library.

    Parameters
    ----------
    pixels
        (h, w) grey or (h, w, 3) colour, uint8.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    ValueError
        For another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"pixels are {pixels.dtype} of shape {pixels.shape}; give uint8 of shape (h, w) or (h, w, 3).")
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()  # filter type 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Give pixels as the address of an image that a page can show at once; see `png_bytes`."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode("ascii")


def _outline(x: float, y: float, shape: Shape, radius: float) -> tuple[tuple[float, float], ...]:
    if shape == "square":
        half = radius * 0.886  # the area of the disc
        return ((x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half))
    if shape == "diamond":
        return ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    if shape == "star":
        radii = (radius, radius * 0.45)
        angles = [math.pi * step / 5 - math.pi / 2 for step in range(10)]
        return tuple(
            (x + radii[step % 2] * math.cos(angle), y + radii[step % 2] * math.sin(angle))
            for step, angle in enumerate(angles)
        )
    return tuple(
        (x + radius * math.cos(2 * math.pi * step / 32), y + radius * math.sin(2 * math.pi * step / 32))
        for step in range(32)
    )


def _moved(shape: _Polygon | _Text | _Raster, x: float, y: float) -> _Polygon | _Text | _Raster:
    if isinstance(shape, _Polygon):
        return replace(shape, points=tuple((px + x, py + y) for px, py in shape.points))
    return replace(shape, x=shape.x + x, y=shape.y + y)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _svg(shape: _Polygon | _Text | _Raster) -> str:
    if isinstance(shape, _Text):
        weight = ' font-weight="600"' if shape.bold else ""
        return (
            f'<text x="{_number(shape.x)}" y="{_number(shape.y)}" font-size="{_number(shape.size)}" '
            f'text-anchor="{shape.anchor}" style="fill:{colour(shape.fill)}"{weight}>{html.escape(shape.text)}</text>'
        )
    tip = f"<title>{html.escape(shape.tip)}</title>" if shape.tip else ""
    if isinstance(shape, _Raster):
        place = f'x="{_number(shape.x)}" y="{_number(shape.y)}"'
        size = f'width="{_number(shape.width)}" height="{_number(shape.height)}"'
        address = data_uri(shape.pixels)
        return f'<image {place} {size} style="image-rendering:pixelated" href="{address}">{tip}</image>'
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
    element = "polygon" if shape.closed else "polyline"
    style = f"fill:{colour(shape.fill)};stroke:{colour(shape.stroke)};stroke-width:{_number(shape.width)}"
    style += ";stroke-dasharray:4 3" if shape.dash else ""
    style += f";opacity:{_number(shape.opacity)}" if shape.opacity < 1 else ""
    return f'<{element} points="{points}" style="{style}">{tip}</{element}>'


def _draw(pen: ImageDraw.ImageDraw, image: object, shape: _Polygon | _Text | _Raster, factor: int) -> None:
    if isinstance(shape, _Raster):
        from PIL import Image

        size = (round(shape.width * factor), round(shape.height * factor))
        tile = Image.fromarray(shape.pixels).resize(size, Image.Resampling.NEAREST)
        image.paste(tile.convert("RGB"), (round(shape.x * factor), round(shape.y * factor)))  # type: ignore[attr-defined]
    elif isinstance(shape, _Text):
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
        pen.text(
            (shape.x * factor, shape.y * factor), shape.text, fixed_colour(shape.fill), _font(shape.size * factor),
            anchor=anchor, stroke_width=round(factor * 0.25) if shape.bold else 0,
        )  # fmt: skip
    else:
        _draw_polygon(pen, shape, factor)


def _draw_polygon(pen: ImageDraw.ImageDraw, shape: _Polygon, factor: int) -> None:
    points = [(x * factor, y * factor) for x, y in shape.points]
    if shape.fill != "none" and shape.closed:
        pen.polygon(points, fill=fixed_colour(shape.fill))
    if shape.stroke == "none":
        return
    if shape.closed:
        points = [*points, points[0], points[1]]  # the second point again, to join the last corner
    width = max(1, round(shape.width * factor))
    for part in _dashes(points, 4 * factor, 3 * factor) if shape.dash else [points]:
        pen.line(part, fill=fixed_colour(shape.stroke), width=width, joint="curve")


def _dashes(points: list[tuple[float, float]], on: float, off: float) -> list[list[tuple[float, float]]]:
    """Cut a line into dashes, each segment for itself."""
    parts = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        start = 0.0
        while start < length:
            end = min(start + on, length)
            ends = [(x0 + (x1 - x0) * at / length, y0 + (y1 - y0) * at / length) for at in (start, end)]
            parts.append(ends)
            start += on + off
    return parts


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
