"""The course map in README.md, kept in step with the lessons by `make notebooks`."""

from __future__ import annotations

import re
from pathlib import Path

from compresskit.course.build import read_lesson
from compresskit.course.contents import COURSE, course_map

BEGIN, END = "<!-- course map, written by `make notebooks` -->", "<!-- end of course map -->"


def with_map(text: str, minutes: dict[str, int]) -> str:
    """Put the course map between its two marks.

    Parameters
    ----------
    text : str
        README.md as it is.
    minutes : dict of str to int
        For each lesson that exists, by file name without ending, how long it takes.

    Returns
    -------
    str
        README.md as it should be.

    Raises
    ------
    ValueError
        If the two marks are not there, in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: the lines {BEGIN!r} and {END!r} must both be there; the map goes between them")
    table = re.sub(r"\]\((\d\d_\w+)\.md\)", r"](notebooks/\1.ipynb)", course_map(minutes))
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def update(root: Path, check: bool) -> list[Path]:
    """Write the course map into the README of a course.

    Parameters
    ----------
    root : pathlib.Path
        The folder with README.md, `lessons` and `notebooks`; a lesson is there once its notebook is.
    check : bool
        Only compare.

    Returns
    -------
    list of pathlib.Path
        README.md if it was out of step, else nothing.
    """
    readme = root / "README.md"
    built = [planned.file for planned in COURSE if (root / "notebooks" / f"{planned.file}.ipynb").is_file()]
    minutes = {name: read_lesson(root / "lessons" / f"{name}.md").minutes for name in built}
    text = readme.read_text(encoding="utf-8")
    wanted = with_map(text, minutes)
    if wanted == text:
        return []
    if not check:
        readme.write_text(wanted, encoding="utf-8")
    return [readme]
