"""How panels look: colours that the colour-blind can tell apart, marks that need no colour, and one style sheet.

The three signal colours are from Okabe and Ito's set (Color Universal Design, 2008); each has a contrast of at least
3 to 1 on the light and on the dark background of JupyterLab. Everything else takes JupyterLab's own theme variables, so
a panel follows the theme while it is switched, without a message to the kernel.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final

BLUE: Final = "#0072b2"
VERMILLION: Final = "#d55e00"
GREEN: Final = "#009e73"

BEFORE: Final = VERMILLION
"""The original: a star in plots, an outline or a hatched bar elsewhere."""
AFTER: Final = BLUE
"""The small model: a disc in plots, a filled bar elsewhere."""
CURRENT: Final = GREEN
"""The setting that the sliders stand on: a ring."""

DARK_BACKGROUND: Final = "#111111"
LIGHT_BACKGROUND: Final = "#ffffff"

ROLES: Final = {
    "ink": ("--jp-ui-font-color1", "#1f1f1f"),
    "muted": ("--jp-ui-font-color2", "#5f5f5f"),
    "grid": ("--jp-border-color2", "#e0e0e0"),
    "line": ("--jp-border-color1", "#bdbdbd"),
    "surface": ("--jp-layout-color1", "#ffffff"),
    "sunken": ("--jp-layout-color2", "#f3f3f3"),
    "before": (None, BEFORE),
    "after": (None, AFTER),
    "current": (None, CURRENT),
    "none": (None, "none"),
}
"""Role of a colour: the theme variable it follows (None for a fixed one), and the colour where there is no theme."""


def colour(role: str) -> str:
    """Give the colour of a role as a page understands it.

    Parameters
    ----------
    role
        A name in `ROLES`, or a hexadecimal colour, which is returned as it is.

    Returns
    -------
    str
        CSS, with the light theme's colour where the page has no theme variables.

    Raises
    ------
    ValueError
        For a role that does not exist.
    """
    variable, fixed = _role(role)
    return fixed if variable is None else f"var({variable}, {fixed})"


def fixed_colour(role: str) -> str:
    """Give the colour of a role for a picture that cannot follow a theme; see `colour`."""
    return _role(role)[1]


def _role(role: str) -> tuple[str | None, str]:
    if re.fullmatch(r"#[0-9a-f]{6}", role):
        return None, role
    if role not in ROLES:
        raise ValueError(f"colour is {role!r}; use one of {', '.join(ROLES)} or six hexadecimal digits after a #.")
    return ROLES[role]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours after WCAG 2.2, section 1.4.3.

    Parameters
    ----------
    first, second
        Hexadecimal colours such as ``"#0072b2"``.

    Returns
    -------
    float
        From 1.0 (the same) to 21.0 (black on white).
    """
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour_: str) -> float:
    channels = (int(colour_[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@functools.cache
def style_tag() -> str:
    """Give the style sheet as an HTML element; a panel holds it once."""
    sheet = (Path(__file__).parent / "panel.css").read_text(encoding="utf-8")
    signals = f".compresskit {{ --ck-before: {BEFORE}; --ck-after: {AFTER}; --ck-current: {CURRENT}; }}"
    return f"<style>{signals}\n{sheet}</style>"


def script(name: str) -> str:
    """Read a widget's JavaScript, the file ``name.js`` beside this one.

    As text, not as a path: anywidget watches a path for changes, and what watches it keeps every widget alive that was
    ever made.
    """
    return (Path(__file__).parent / f"{name}.js").read_text(encoding="utf-8")
