"""The notebooks are those that the lessons make, and what they hold is fit for a reader."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from compresskit.course.build import LessonError, build_all, read_lesson
from compresskit.course.checks import exercises
from compresskit.course.contents import COURSE

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]_*.md"))
LEARNER = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def outputs_of(path: Path) -> str:
    texts = []
    for cell in read(path).cells:
        for output in cell.get("outputs", ()):
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


def anchors(path: Path) -> set[str]:
    """The headings that JupyterLab can jump to: the text with hyphens for spaces."""
    source = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return {heading.strip().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", source, re.MULTILINE)}


def test_notebooks_are_in_step_with_their_lessons():
    stale = [name_of(path) for path in build_all(ROOT, check=True)]
    assert stale == [], "run: make notebooks"


def test_there_are_lessons():
    assert LESSONS and LEARNER and SOLUTIONS


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_a_lesson_is_on_the_course_map_under_its_title(path):
    titles = {planned.file: planned.title for planned in COURSE}
    assert read_lesson(path).title == titles[path.stem]


@pytest.mark.parametrize("path", [*LEARNER, *SOLUTIONS], ids=name_of)
def test_a_notebook_keeps_nothing_that_only_a_kernel_can_show(path):
    text = path.read_text(encoding="utf-8")
    assert "widget-view" not in text and "widget-state" not in text
    notebook = read(path)
    nbformat.validate(notebook)
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        assert cell.execution_count == number
        assert [output for output in cell.outputs if output.output_type == "error"] == []
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.id
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("path", LEARNER, ids=name_of)
def test_the_learner_copy_is_unsolved(path):
    told = outputs_of(path)
    blanks = sum(cell.source.count("# your code here") for cell in read(path).cells)
    assert "✗ Not yet" not in told and "✓ Right" not in told
    assert bool(blanks) == ("○ Not solved yet" in told) == (path.name in {found.name for found in SOLUTIONS})


@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
def test_the_solutions_are_right(path):
    told = outputs_of(path)
    assert told.count("✓ Right") == told.count("✓") > 0
    assert "✗" not in told and "○" not in told
    assert "# your code here" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_every_check_is_used_and_every_use_is_a_check(path):
    number = path.name[:2]
    used = re.findall(r'check\("(\d\d)\.(\w+)"', path.read_text(encoding="utf-8"))
    try:
        there_are = list(exercises(number))
    except ValueError:
        there_are = []
    assert sorted(used) == sorted((number, name) for name in there_are)


def names(source: str, context: type) -> set[str]:
    """The names that a cell reads (ast.Load) or makes (ast.Store, functions too)."""
    tree = ast.parse(source)
    made = (ast.FunctionDef, ast.ClassDef)
    functions = {node.name for node in ast.walk(tree) if isinstance(node, made) and context is ast.Store}
    return functions | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
def test_what_is_trained_is_the_same_in_both_copies(path):
    """Learner copies are run without TensorFlow (see conftest.py), the solutions with it: that must be enough."""
    solved, unsolved = (
        [cell.source for cell in read(each).cells if cell.cell_type == "code"]
        for each in (path, path.parents[1] / path.name)
    )
    blank = set().union(*(names(source, ast.Store) for source in unsolved if "# your code here" in source))
    for source in unsolved:
        if names(source, ast.Load) & {"trained_here", "has_tensorflow"}:
            assert source in solved
            assert names(source, ast.Load) & blank == set(), "a training that depends on an exercise is run nowhere"


@pytest.mark.parametrize("path", [*LEARNER, *SOLUTIONS], ids=name_of)
def test_links_lead_somewhere(path):
    source = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)\s]+)\)", source):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{link}: no such file"
        if anchor and target.suffix == ".ipynb":
            assert anchor in anchors(target), f"{link}: no such heading"


def test_the_glossary_is_in_order_and_says_each_term_once():
    source = (ROOT / "lessons" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^## (.+)$", source, re.MULTILINE)
    assert terms == sorted(set(terms), key=str.casefold)


def test_drift_would_be_seen(tmp_path):
    """The first test here can fail: a lesson without its notebook is reported."""
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "01_x.md").write_text("---\ntitle: X\nminutes: 1\n---\n\nText.\n")
    assert [path.name for path in build_all(tmp_path, check=True)] == ["01_x.ipynb"]
    (tmp_path / "lessons" / "01_x.md").write_text("No front matter.\n")
    with pytest.raises(LessonError, match="front matter"):
        build_all(tmp_path, check=True)
