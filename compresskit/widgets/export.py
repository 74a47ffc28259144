"""What can be taken out of a workbench: a table, a report that opens anywhere, a notebook that makes a point again."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from compresskit.data import Split
from compresskit.widgets.frontier import unbeaten
from compresskit.widgets.views import Mark, kilobytes, percent, times_smaller, tradeoff_picture
from compresskit.widgets.visits import Visit

_COLUMNS = (
    "what", "name", "note", "bytes", "deflated_bytes", "packed_bytes", "million_macs", "latency_us",
    "activation_bytes", "accuracy", "low", "high", "loss", "misread", "digits", "all_digits", "sha256", "recipe",
)  # fmt: skip
_MEASURED = {
    "zipped": "deflated_bytes", "packed": "packed_bytes", "macs": "million_macs", "latency": "latency_us",
    "memory": "activation_bytes", "loss": "loss",
}  # fmt: skip
_PACKAGES = ("ai-edge-litert", "ai-edge-quantizer", "numpy")


def points_csv(original: Mark, visits: Sequence[Visit]) -> str:
    """Write the points as a table, the original first.

    Parameters
    ----------
    original
        The original model's point.
    visits
        The others.

    Returns
    -------
    str
        CSV with a line of names. Sizes in bytes; accuracy and its interval as fractions; what was not measured is
        empty; the recipe as JSON. Words that a spreadsheet would compute begin with an apostrophe.
    """
    written = io.StringIO()
    table = csv.DictWriter(written, _COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    loss = {} if math.isnan(original.loss) else {"loss": original.loss}
    table.writerow({"what": original.label, **_scored(original, (original.low, original.high)), **loss})
    for visit in visits:
        table.writerow(
            {
                "what": _as_words(visit.setting.describe()),
                "name": _as_words(visit.name),
                "note": _as_words(visit.note),
                **_scored(visit, visit.interval),
                **_measured(visit.measured),
                "sha256": visit.digest,
                "recipe": visit.recipe.to_json(),
            }
        )
    return written.getvalue()


def _as_words(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula, and a line's end for that of a row."""
    plain = "\n".join(text.replace("\0", "").splitlines())
    return f"'{plain}" if plain.lstrip().startswith(("=", "+", "-", "@")) else plain


def _scored(point: Mark | Visit, interval: tuple[float, float]) -> dict[str, object]:
    low, high = interval
    return {
        "bytes": point.size,
        "accuracy": point.accuracy,
        "low": low,
        "high": high,
        "misread": point.n - round(point.accuracy * point.n),
        "digits": point.n,
        "all_digits": point.exact,
    }


def _measured(places: Mapping[str, float]) -> dict[str, float]:
    """Give what was measured by the columns' names; kB become bytes."""
    return {
        column: round(1000 * places[axis]) if column.endswith("_bytes") else places[axis]
        for axis, column in _MEASURED.items()
        if axis in places
    }


def frontier(original: Mark, visits: Sequence[Visit]) -> tuple[Visit, ...]:
    """Choose the points that no other beats: none is at most as large and more accurate, or smaller and as accurate.

    Parameters
    ----------
    original
        The original model's point, which may beat others.
    visits
        Points; previews are left out.

    Returns
    -------
    tuple of Visit
        From the smallest to the largest.
    """
    exact = [visit for visit in visits if visit.exact]
    places = [(original.size, -original.accuracy), *((visit.size, -visit.accuracy) for visit in exact)]
    return tuple(exact[place - 1] for place in unbeaten(places) if place > 0)


def report_html(model: str, original: Mark, visits: Sequence[Visit], test: Split) -> str:
    """Write a report: the plot, the frontier, every point with its recipe; one file that needs nothing else.

    Parameters
    ----------
    model
        Name of the model.
    original, visits
        As for `points_csv`.
    test
        What the points are scored on: what it is called, and what has to be said about it.

    Returns
    -------
    str
        HTML without scripts, which asks the network for nothing.
    """
    marks = [visit.mark("file") for visit in visits]
    picture = tradeoff_picture(original, marks, "size of the file (kB)", 860, 420).svg() if marks else ""
    best = frontier(original, visits)
    versions = ", ".join(f"{name} {version(name)}" for name in ("compresskit", *_PACKAGES))
    about = f"Sizes are lengths of files; accuracy is LiteRT's answer on {original.n:,} {test.noun}. {test.notice}"
    body = [
        f"<h1>{html.escape(model)}: size against accuracy</h1>",
        f"<p>{html.escape(about.strip())}</p>",
        f"<figure>{picture}</figure>",
        "<h2>Points that no other beats</h2>",
        _table(original, best) if best else "<p>None yet: the original beats all of them.</p>",
        "<h2>All points</h2>",
        _table(original, visits),
        f"<p class='small'>Made with {html.escape(versions)}.</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(model)}: report</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )


_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.3em .6em;border-bottom:1px solid #ddd}"
    "th:first-child,td:first-child{text-align:left}.small{color:#666;font-size:13px}.note{white-space:pre-wrap}"
    "pre{white-space:pre-wrap;font-size:12px;margin:.3em 0}summary{cursor:pointer}svg{width:100%;height:auto}"
)


def _table(original: Mark, visits: Sequence[Visit]) -> str:
    head = "<tr><th>what was done</th><th>file</th><th></th><th>accuracy</th><th>95 % interval</th><th>read</th></tr>"
    rows = [_row(original.label, original.size, original.accuracy, (original.low, original.high), original.n, "", "")]
    for visit in visits:
        smaller = times_smaller(original.size, visit.size)
        rows.append(
            _row(
                visit.setting.describe(),
                visit.size,
                visit.accuracy,
                visit.interval,
                visit.n,
                smaller,
                visit.recipe.to_python(),
                (visit.name, visit.note),
            )
        )
    return f"<table>{head}{''.join(rows)}</table>"


def _row(
    what: str,
    size: int,
    accuracy: float,
    interval: tuple[float, float],
    n: int,
    smaller: str,
    recipe: str,
    words: tuple[str, str] = ("", ""),
) -> str:
    name, note = (html.escape(each) for each in words)
    told = f"<b>{name}</b>: {html.escape(what)}" if name else html.escape(what)
    if recipe:
        told = f"<details><summary>{told}</summary><pre>{html.escape(recipe)}</pre></details>"
    told += f"<div class='small note'>{note}</div>" if note else ""
    low, high = (percent(each) for each in interval)
    return (
        f"<tr><td>{told}</td><td>{kilobytes(size)}</td><td>{smaller}</td><td>{percent(accuracy)}</td>"
        f"<td>{low} to {high}</td><td>{n:,}</td></tr>"
    )


def notebook_json(model: str, program: str, visit: Visit, noun: str, sha256: str = "") -> str:
    """Write a notebook that makes a point again from the original, and says whether it is the same.

    Parameters
    ----------
    model
        Name of the model.
    program
        The Python that makes the file, one statement a line; it leaves it in ``small``.
    visit
        The point.
    noun
        What it was scored on, in the plural.
    sha256
        Of the original's `.tflite`, for a model that is not the course's: where another one lies at its path by then,
        the notebook says so.

    Returns
    -------
    str
        A notebook in version 4 of the format, without outputs.
    """
    called = f"{visit.name}, {visit.setting.describe()}" if visit.name else visit.setting.describe()
    told = (
        f"# {model}: {called}\n\n{visit.size:,} bytes, {percent(visit.accuracy)} of {visit.n:,} "
        f"{noun} (95 % interval {percent(visit.interval[0])} to {percent(visit.interval[1])})."
    )
    told += f"\n\n{visit.note}" if visit.note else ""
    original = (
        f"if not model.digest == {sha256!r}:\n"
        '    print("The model is not the one that this notebook was written for.")\n'
    )
    check = (
        f"import hashlib\n\n{original if sha256 else ''}"
        f"same = hashlib.sha256(small.tflite).hexdigest() == {visit.digest!r}\n"
        'print("The same file, byte for byte." if same else "Another file: a package, or the model, is another.")'
    )
    cells = [
        {"cell_type": "markdown", "id": "about", "metadata": {}, "source": told.splitlines(keepends=True)},
        *(
            {
                "cell_type": "code", "id": name, "metadata": {}, "execution_count": None, "outputs": [],
                "source": source.splitlines(keepends=True),
            }
            for name, source in (("program", program), ("check", check))
        ),
    ]  # fmt: skip
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return json.dumps(
        {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )
