"""Build the notebooks that learners open from the lessons that authors write.

An author edits `lessons/NN_name.md` (MyST Markdown, solutions inside) and nothing else. From it come
`notebooks/NN_name.ipynb`, in which the exercises are blank, and, where there are exercises,
`notebooks/solutions/NN_name.ipynb`. Both are run, and saved without anything that a reader without a
kernel could not see or that changes from run to run: widget state, widget views, timings.

What an author can write beside Markdown and code cells:

- front matter with `title`, `minutes`, `needs` (lesson names) and `seeds`; the heading of the notebook is made from it;
- in a code cell, lines between `# >>> solution` and `# <<< solution`: the learner copy has `...  # your code here` in
  their place, or, after `# >>> solution: answer = ...`, that stub;
- a cell tagged `solution`: not in the learner copy at all;
- `<!-- course map -->`: replaced by the table of lessons;
- links to `glossary.md#term` and `NN_name.md`: in the notebooks they point to the notebooks; links to other files
  (`../compresskit/...`) are kept right in the solutions, which lie one folder further down;
- a cell tagged `nbval-ignore-output`: run by the tests, but its output, which differs by machine, is not compared.
"""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compresskit.course.contents import course_map

Notebook = Any  # nbformat's NotebookNode, which has no types
Cell = Any

CELL_TIMEOUT = 900  # seconds: training on a slow laptop
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
READABLE_WITHOUT_KERNEL = ("image/png", "image/jpeg", "image/svg+xml", "text/html", "text/markdown")
IGNORED = "nbval-ignore-output"
COURSE_MAP = "<!-- course map -->"

_OPEN = re.compile(r"^(?P<indent>\s*)# >>> solution(?::\s*(?P<stub>.*\S))?\s*$")
_CLOSE = re.compile(r"^\s*# <<< solution\s*$")
_LESSON = re.compile(r"^(\d\d_\w+|glossary|own_models|workbench)$")
_LINK = re.compile(r"\]\((?P<page>(?:\d\d_\w+|glossary|own_models|workbench))\.md(?P<anchor>#[^)\s]*)?\)")
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class LessonError(ValueError):
    """A lesson that cannot be built; the message names the file and what to change."""


@dataclass(frozen=True)
class Lesson:
    """A lesson as its author wrote it.

    Attributes
    ----------
    name
        File name without its ending, for instance ``"01_train_a_digit_reader"``.
    title, minutes, needs, seeds
        The front matter. `needs` names other lessons; `seeds` are those that the cells use.
    cells
        The notebook cells of the source, solutions inside.
    """

    name: str
    title: str
    minutes: int
    needs: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...] = field(repr=False)

    @property
    def has_exercises(self) -> bool:
        """Whether a solutions copy would differ from the learner copy."""
        return any(_is_solution(cell) or _has_marker(cell) for cell in self.cells)


def read_lesson(path: Path) -> Lesson:
    """Read one lesson source.

    Parameters
    ----------
    path
        A MyST Markdown file with front matter.

    Returns
    -------
    Lesson
        Its cells and front matter.

    Raises
    ------
    LessonError
        If jupytext is missing, the front matter is incomplete, or a solution marker has no partner.
    """
    try:
        import jupytext
    except ImportError as error:
        raise LessonError("jupytext is not installed: building notebooks needs the extra 'dev' (make setup)") from error

    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst")
    header = notebook.metadata
    for key, kind in (("title", str), ("minutes", int)):
        if not isinstance(header.get(key), kind):
            raise LessonError(f"{path.name}: the front matter needs '{key}' ({kind.__name__}), got {header.get(key)!r}")
    lesson = Lesson(
        name=path.stem,
        title=header["title"],
        minutes=header["minutes"],
        needs=tuple(header.get("needs", ())),
        seeds=tuple(header.get("seeds", ())),
        cells=tuple(notebook.cells),
    )
    for cell in lesson.cells:
        if cell.cell_type == "code":
            _solve_or_blank(cell.source, solved=True, where=path.name)
        elif _is_solution(cell) and len(_at_headings(cell.source)) > 1:
            raise LessonError(f"{path.name}: the solution {cell.source[:40]!r} runs into a heading; end it with '+++'")
    return lesson


def blank(source: str) -> str:
    r"""Take the solutions out of a code cell and leave the stubs.

    Examples
    --------
    >>> print(blank("def f(x):\n    # >>> solution\n    return x\n    # <<< solution"))
    def f(x):
        ...  # your code here
    """
    return _solve_or_blank(source, solved=False, where="cell")


def solve(source: str) -> str:
    """Take the markers out of a code cell and leave the solutions."""
    return _solve_or_blank(source, solved=True, where="cell")


def notebook_of(lesson: Lesson, *, solved: bool, titles: dict[str, str], minutes: dict[str, int]) -> Notebook:
    """Make the notebook of a lesson, not yet run.

    Parameters
    ----------
    lesson
        The lesson as read from its source.
    solved
        Whether the solutions stay.
    titles, minutes
        Title and length of every lesson there is, for the heading and the course map.

    Returns
    -------
    nbformat.NotebookNode
        A notebook whose cell ids depend only on the headings and the order of cells.
    """
    import nbformat

    cells = [_new_cell("markdown", _heading(lesson, solved=solved, titles=titles), ())]
    for cell in lesson.cells:
        if _is_solution(cell) and not solved:
            continue
        tags = [tag for tag in cell.metadata.get("tags", ()) if tag != "solution"]
        if cell.cell_type == "code":
            cells.append(_new_cell("code", _solve_or_blank(cell.source, solved=solved, where=lesson.name), tags))
        else:
            source = cell.source.replace(COURSE_MAP, course_map(minutes))
            source = source.replace("](../", "](../../") if solved else source  # one folder further down
            source = _LINK.sub(lambda match: _notebook_link(match, solved=solved), source)
            cells += [_new_cell("markdown", part, tags) for part in _at_headings(source)]
    _name_cells(cells)
    return nbformat.v4.new_notebook(cells=cells, metadata=copy.deepcopy(_METADATA))


def run(notebook: Notebook, folder: Path) -> Notebook:
    """Run a notebook from top to bottom and clean what it put out.

    Parameters
    ----------
    notebook
        The notebook to run; it is not changed.
    folder
        The directory that its cells run in.

    Returns
    -------
    nbformat.NotebookNode
        The same cells with their outputs.

    Raises
    ------
    LessonError
        If a cell fails, or shows a widget that a reader without a kernel would not see.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    done = copy.deepcopy(notebook)
    client = NotebookClient(
        done,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env={**os.environ, "COMPRESSKIT_PICTURE_PATIENCE": "120"})
    except CellExecutionError as error:
        raise LessonError(f"a cell failed while the notebook was run:\n{error}") from error
    done.metadata = type(done.metadata)(copy.deepcopy(_METADATA))
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.outputs = clean_outputs(cell)
    return done


def clean_outputs(cell: Cell) -> list[Any]:
    """Keep of a cell's outputs what a reader without a kernel can see.

    Parameters
    ----------
    cell
        A code cell that has been run.

    Returns
    -------
    list of nbformat.NotebookNode
        The outputs without widget views.

    Raises
    ------
    LessonError
        If a widget carries nothing else to look at. Cells whose outputs are not compared may show such widgets
        (progress bars): there they are left out.
    """
    kept: list[Any] = []
    for output in cell.outputs:
        data = output.get("data", {})
        if data.pop(WIDGET_VIEW, None) is not None and not any(kind in data for kind in READABLE_WITHOUT_KERNEL):
            if IGNORED in cell.metadata.get("tags", ()):
                continue
            raise LessonError(
                f"cell {cell.id}: the widget {data.get('text/plain', '')[:60]!r} has no picture for readers without a "
                f"kernel; give it one of {', '.join(READABLE_WITHOUT_KERNEL)}, or tag the cell {IGNORED}"
            )
        output.get("metadata", {}).pop(WIDGET_VIEW, None)
        last = kept[-1] if kept else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text  # a cell that takes its time sends its lines one by one
        else:
            kept.append(output)
    return kept


def build_all(
    root: str | Path, names: Sequence[str] | None = None, check: bool = False, force: bool = False
) -> list[Path]:
    """Bring the notebooks in step with the lessons.

    Parameters
    ----------
    root
        The folder that holds `lessons` and `notebooks`.
    names
        Lessons to build, by file name with or without ending, or by number; all by default.
    check
        Only compare: nothing is run or written.
    force
        Run again also those whose source has not changed.

    Returns
    -------
    list of pathlib.Path
        The notebooks written; with `check`, those that are missing, out of step or left over.

    Raises
    ------
    LessonError
        If a lesson is faulty or unknown, or a cell fails.
    """
    root = Path(root)
    lessons = {
        path.stem: read_lesson(path) for path in sorted((root / "lessons").glob("*.md")) if _LESSON.match(path.stem)
    }
    titles = {name: lesson.title for name, lesson in lessons.items()}
    minutes = {name: lesson.minutes for name, lesson in lessons.items()}
    changed = []
    for name in _chosen(names, lessons):
        for solved in (False, True) if lessons[name].has_exercises else (False,):
            target = _target(root, name, solved=solved)
            fresh = notebook_of(lessons[name], solved=solved, titles=titles, minutes=minutes)
            if not force and same_inputs(fresh, target):
                continue
            if not check:
                _write(_run_named(fresh, target), target)
            changed.append(target)
    if names is None:
        changed += _remove_leftovers(root, lessons.values(), check=check)
    return changed


def same_inputs(fresh: Notebook, target: Path) -> bool:
    """Tell whether a notebook file holds the cells of a freshly made one, whatever its outputs are."""
    import nbformat

    if not target.is_file():
        return False
    saved = nbformat.read(target, as_version=4)
    return _inputs(fresh) == _inputs(saved) and dict(fresh.metadata) == dict(saved.metadata)


def _run_named(fresh: Notebook, target: Path) -> Notebook:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        return run(fresh, target.parent)
    except LessonError as error:
        raise LessonError(f"{target.parent.name}/{target.name}: {error}") from error


def _inputs(notebook: Notebook) -> list[tuple[str, str, str, dict[str, Any]]]:
    return [(cell.id, cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


def _chosen(names: Sequence[str] | None, lessons: dict[str, Lesson]) -> list[str]:
    if names is None:
        return list(lessons)
    chosen = []
    for wanted in names:
        stem = Path(wanted).stem
        found = [name for name in lessons if stem == name or (stem.isdigit() and name.startswith(f"{int(stem):02d}_"))]
        if not found:
            raise LessonError(f"names: there is no lesson {wanted!r}; there are {', '.join(lessons)}")
        chosen += found
    return chosen


def _target(root: Path, name: str, *, solved: bool) -> Path:
    return root / "notebooks" / ("solutions" if solved else "") / f"{name}.ipynb"


def _remove_leftovers(root: Path, lessons: Iterable[Lesson], *, check: bool) -> list[Path]:
    wanted = set()
    for lesson in lessons:
        wanted.add(_target(root, lesson.name, solved=False))
        if lesson.has_exercises:
            wanted.add(_target(root, lesson.name, solved=True))
    folder = root / "notebooks"
    leftovers = [
        path
        for path in sorted([*folder.glob("*.ipynb"), *folder.glob("solutions/*.ipynb")])
        if _LESSON.match(path.stem) and path not in wanted
    ]
    if not check:
        for path in leftovers:
            path.unlink()
    return leftovers


def _write(notebook: Notebook, target: Path) -> None:
    """Write in one step, so that a killed build leaves the old notebook or the new one."""
    import nbformat

    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".build-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            nbformat.write(notebook, stream)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _heading(lesson: Lesson, *, solved: bool, titles: dict[str, str]) -> str:
    number = lesson.name[:2]
    title = f"# {number} · {lesson.title}" if number.isdigit() else f"# {lesson.title}"
    facts = []
    if number.isdigit():
        needs = [_lesson_link(name, lesson.name, titles) for name in lesson.needs]
        facts = [f"**Time:** {lesson.minutes} minutes", f"**You need first:** {', '.join(needs) or 'nothing'}"]
        if lesson.seeds:
            facts.append(f"**{'Seeds' if len(lesson.seeds) > 1 else 'Seed'}:** {', '.join(map(str, lesson.seeds))}")
    lines = [title, " · ".join(facts)] if facts else [title]
    if solved:
        lines.append(f"*With solutions. The copy to work in is [here](../{lesson.name}.ipynb).*")
    return "\n\n".join(lines)


def _lesson_link(name: str, wanted_by: str, titles: dict[str, str]) -> str:
    if name not in titles:
        raise LessonError(f"{wanted_by}.md: needs: there is no lesson {name!r}; there are {', '.join(titles)}")
    return f"[{titles[name]}]({name}.ipynb)"


def _notebook_link(match: re.Match[str], *, solved: bool) -> str:
    # Pages without a number have no solutions copy, so from the solutions folder they are one level up.
    up = "../" if solved and not match["page"][:2].isdigit() else ""
    return f"]({up}{match['page']}.ipynb{match['anchor'] or ''})"


def _at_headings(source: str) -> list[str]:
    """Split Markdown before each heading, so that JupyterLab can fold the sections."""
    parts: list[list[str]] = [[]]
    fenced = False
    for line in source.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if re.match(r"#+ ", line) and not fenced:
            parts.append([])
        parts[-1].append(line)
    return [text for text in ("\n".join(part).strip() for part in parts) if text]


def _new_cell(kind: str, source: str, tags: Iterable[str]) -> Cell:
    import nbformat

    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    tags = list(tags)
    return make(source=source, metadata={"tags": tags} if tags else {})


def _name_cells(cells: Iterable[Cell]) -> None:
    """Give each cell the id `heading-count`: an edit renames only the cells that follow it under the same heading."""
    slug, seen = "top", Counter[str]()
    for cell in cells:
        heading = re.match(r"#+ +(.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            slug = re.sub(r"[^a-z0-9]+", "-", heading[1].lower()).strip("-")[:48] or "top"
        seen[slug] += 1
        cell.id = f"{slug}-{seen[slug]}"


def _is_solution(cell: Cell) -> bool:
    return "solution" in cell.metadata.get("tags", ())


def _has_marker(cell: Cell) -> bool:
    return cell.cell_type == "code" and any(_OPEN.match(line) for line in cell.source.splitlines())


def _solve_or_blank(source: str, *, solved: bool, where: str) -> str:
    lines: list[str] = []
    opened: re.Match[str] | None = None
    for line in source.splitlines():
        start, end = _OPEN.match(line), bool(_CLOSE.match(line))
        if (start and opened) or (end and not opened):
            raise LessonError(f"{where}: {line.strip()!r} has no partner")
        if start:
            opened = start
            if not solved:
                lines.append(f"{start['indent']}{start['stub'] or '...'}  # your code here")
        elif end:
            opened = None
        elif solved or not opened:
            lines.append(line)
    if opened:
        raise LessonError(f"{where}: {opened[0].strip()!r} is not closed by '# <<< solution'")
    return "\n".join(lines)
