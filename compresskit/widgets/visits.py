"""A point on the plot of a workbench, as data: it is drawn, kept on disk, and exported from here."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from compresskit.recipe import Recipe
from compresskit.widgets.points import Setting
from compresskit.widgets.views import Mark, kilobytes, percent

_MOST_LETTERS = 20_000
"""Of a name and a note together; more comes from no hand."""


@dataclass(frozen=True)
class Visit:
    """A point on the plot. The file is not kept: a hundred of them would fill the memory of a small machine.

    Attributes
    ----------
    setting : Setting
        Where the controls stood.
    recipe : Recipe
        What was done.
    size : int
        Bytes of the file.
    measured : mapping of str to float
        Place on each axis of the plot that was asked for, in its unit.
    accuracy, interval, n : float, (float, float), int
        As in `Score`.
    exact : bool
        Whether all digits were read.
    digest : str
        sha256 of the file, in hexadecimal.
    name, note : str
        What someone called the point, and noted; empty where nobody did.
    """

    setting: Setting
    recipe: Recipe
    size: int
    measured: Mapping[str, float]
    accuracy: float
    interval: tuple[float, float]
    n: int
    exact: bool
    digest: str = ""
    name: str = ""
    note: str = ""

    @property
    def entry(self) -> str:
        """A line for a list of points."""
        called = f"{self.name}: " if self.name else ""
        return f"{called}{kilobytes(self.size)}, {percent(self.accuracy)}: {self.setting.describe()}"

    def mark(self, axis: str) -> Mark:
        """Place the point on the plot; on an axis that was not measured, where the file's size would be."""
        return Mark(
            self.size, self.accuracy, *self.interval, self.n, self.exact, self.setting.describe(),
            self.measured.get(axis), bool(self.setting.model), self.name, self.note,
            self.measured.get("loss", math.nan),
        )  # fmt: skip


def to_plain(visit: Visit) -> dict[str, Any]:
    """Turn a visit into what JSON can hold."""
    plain = {each.name: getattr(visit, each.name) for each in fields(visit)}
    return {
        **plain,
        "setting": asdict(visit.setting),
        "recipe": visit.recipe.to_json(),
        "measured": dict(visit.measured),
    }


def from_plain(plain: Mapping[str, Any]) -> Visit:
    """Make the visit that `to_plain` was given.

    Raises
    ------
    ValueError
        If something is missing or of another kind.
    """
    try:
        low, high = plain["interval"]
        visit = Visit(
            setting_from_plain(plain["setting"]),
            Recipe.from_json(plain["recipe"]),
            int(plain["size"]),
            {str(axis): float(place) for axis, place in plain["measured"].items()},
            float(plain["accuracy"]),
            (float(low), float(high)),
            int(plain["n"]),
            bool(plain["exact"]),
            str(plain["digest"]),
            str(plain.get("name", "")),  # points that were kept before they could be named have none
            str(plain.get("note", "")),
        )
        _check(visit)
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"this is no point of a workbench ({type(error).__name__}: {error})") from error
    return visit


def _check(visit: Visit) -> None:
    """Refuse figures that no file has: a session may come from elsewhere."""
    low, high = visit.interval
    for said, holds in (
        ("size", 0 < visit.size < 2**40),
        ("n", 0 < visit.n < 2**40),
        ("accuracy", 0 <= low <= visit.accuracy <= high <= 1),
        ("measured", all(math.isfinite(place) for place in visit.measured.values())),
        ("digest", re.fullmatch("([0-9a-f]{64})?", visit.digest)),
        ("name", len(visit.name) + len(visit.note) < _MOST_LETTERS),
        ("recipe", visit.setting.recipe() == visit.recipe),
    ):
        if not holds:
            raise ValueError(f"this is no point of a workbench: {said} cannot be {str(getattr(visit, said))[:80]}")


def setting_from_plain(plain: Mapping[str, Any]) -> Setting:
    """Make the setting that `dataclasses.asdict` was given; TypeError or AttributeError if it is none."""
    made = Setting(**{name: _tuples(value) for name, value in plain.items()})
    with contextlib.suppress(ValueError):  # controls may stand where no recipe is
        made.recipe()
    return made


def _tuples(value: Any) -> Any:
    """JSON knows lists only; settings are compared and hashed, so they hold tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
