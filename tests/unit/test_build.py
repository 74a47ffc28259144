"""Lessons become notebooks: exercises blank, solutions complete, nothing that a reader without a kernel cannot see."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from compresskit.course.build import LessonError, blank, build_all, clean_outputs, read_lesson, solve
from compresskit.course.contents import COURSE, course_map

LESSON = '''---
title: Counting
minutes: 5
needs: []
seeds: [7]
---

The word [scale](glossary.md#scale), and [counting](01_counting.md), and [code](../compresskit/data/idx.py).

## Count

```{code-cell}
def count(x):
    """Count."""
    # >>> solution
    return len(x)
    # <<< solution
```

```{code-cell}
# >>> solution: answer = ...
answer = 3
# <<< solution
print(answer)
```

+++ {"tags": ["solution"]}

Because there are three.

+++

## Look

```{code-cell}
:tags: [nbval-ignore-output]
import random
print(random.random())
```
'''

GLOSSARY = """---
title: Glossary
minutes: 1
---

## scale

A step.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "01_counting.md").write_text(LESSON)
    (tmp_path / "lessons" / "glossary.md").write_text(GLOSSARY)
    (tmp_path / "lessons" / "instructors.md").write_text("No front matter: for people who teach.\n")
    return tmp_path


def sources(path: Path) -> str:
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def test_blank_leaves_the_stub_at_the_depth_of_the_solution():
    source = "def f(x):\n    if x:\n        # >>> solution\n        y = x\n        # <<< solution\n    return 0"
    assert blank(source) == "def f(x):\n    if x:\n        ...  # your code here\n    return 0"
    assert solve(source) == "def f(x):\n    if x:\n        y = x\n    return 0"


def test_a_stub_can_name_the_answer():
    assert blank("# >>> solution: answer = ...\nanswer = 3\n# <<< solution") == "answer = ...  # your code here"


@pytest.mark.parametrize(
    "source",
    ["# >>> solution\nx", "x\n# <<< solution", "# >>> solution\n# >>> solution\n# <<< solution"],
)
def test_a_marker_without_partner_is_named(source):
    with pytest.raises(LessonError, match=r"partner|closed"):
        blank(source)


def test_learner_copy_and_solutions(root):
    written = build_all(root)
    assert [path.relative_to(root / "notebooks").as_posix() for path in written] == [
        "01_counting.ipynb",
        "solutions/01_counting.ipynb",
        "glossary.ipynb",
    ]
    learner, solved = sources(written[0]), sources(written[1])
    assert "return len(x)" in solved and "Because there are three." in solved
    assert "return len(x)" not in learner and "Because" not in learner and "# >>>" not in learner + solved
    assert "(glossary.ipynb#scale)" in learner and "(../glossary.ipynb#scale)" in solved
    assert "(01_counting.ipynb)" in solved
    assert "(../compresskit/data/idx.py)" in learner and "(../../compresskit/data/idx.py)" in solved
    assert learner.startswith("# 01 · Counting\n\n**Time:** 5 minutes · **You need first:** nothing · **Seed:** 7")
    outputs = [cell.outputs for cell in nbformat.read(written[0], as_version=4).cells if cell.cell_type == "code"]
    assert outputs[1][0].text == "Ellipsis\n"

    notebook = json.loads(written[0].read_text())
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert all("execution" not in cell["metadata"] for cell in notebook["cells"])
    ids = [cell["id"] for cell in notebook["cells"]]
    assert ids == ["01-counting-1", "01-counting-2", "count-1", "count-2", "count-3", "look-1", "look-2"]

    before = {path: path.read_bytes() for path in written}
    assert build_all(root) == []
    assert {path: path.read_bytes() for path in written} == before


def test_drift_is_seen_without_running_or_writing(root):
    everything = build_all(root, check=True)
    assert len(everything) == 3 and not (root / "notebooks").exists()
    build_all(root)
    assert build_all(root, check=True) == []

    lesson = root / "lessons" / "01_counting.md"
    lesson.write_text(LESSON.replace("There are three", "x").replace("Because there are three", "Count them"))
    assert [path.parent.name for path in build_all(root, check=True)] == ["solutions"], "the learner copy is the same"

    learner = root / "notebooks" / "01_counting.ipynb"
    learner.write_text(learner.read_text().replace("def count", "def counted"))
    assert learner in build_all(root, check=True)

    lesson.unlink()
    assert set(build_all(root, check=True)) == {learner, root / "notebooks" / "solutions" / "01_counting.ipynb"}
    assert learner.exists()
    build_all(root)
    assert not learner.exists()


def test_a_failing_cell_leaves_the_old_notebook(root):
    (root / "lessons" / "01_counting.md").write_text(LESSON + "\n```{code-cell}\n1 / 0\n```\n")
    with pytest.raises(LessonError, match=r"01_counting.ipynb.*(\n.*)*ZeroDivisionError"):
        build_all(root, names=["01"])
    assert list((root / "notebooks").iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("minutes: 5", "minutes: long", "'minutes'"),
        ("title: Counting\n", "", "'title'"),
        ("needs: []", "needs: [99_none]", "no lesson '99_none'"),
        ("# <<< solution", "# <<< solved", "solution"),
        ("three.\n\n+++", "three.\n", "runs into a heading"),
    ],
)
def test_a_faulty_lesson_is_named(root, old, new, message):
    (root / "lessons" / "01_counting.md").write_text(LESSON.replace(old, new))
    with pytest.raises(LessonError, match=message) as raised:
        build_all(root, check=True)
    assert "01_counting" in str(raised.value)


def test_an_unknown_lesson_is_refused(root):
    with pytest.raises(LessonError, match="no lesson '42'"):
        build_all(root, names=["42"])


def widget_output(**more: str) -> nbformat.NotebookNode:
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "VBox()", **more}
    return nbformat.v4.new_output("display_data", data=data)


def test_widget_views_go_and_pictures_stay():
    cell = nbformat.v4.new_code_cell("show()", outputs=[widget_output(**{"image/png": "aGk="})])
    cell.outputs[0].metadata = {"image/png": {"width": 300}}
    (output,) = clean_outputs(cell)
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.metadata == {"image/png": {"width": 300}}, "half of its pixels: it is drawn for sharp screens"


def test_lines_that_came_one_by_one_are_one_output():
    outputs = [
        nbformat.v4.new_output("stream", name=name, text=text)
        for name, text in (("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"))
    ]
    found = clean_outputs(nbformat.v4.new_code_cell("print()", outputs=outputs))
    assert [(output.name, output.text) for output in found] == [("stdout", "a\nb\n"), ("stderr", "c\n")]


def test_a_widget_without_a_picture_is_refused_unless_the_cell_is_not_compared():
    cell = nbformat.v4.new_code_cell("show()", outputs=[widget_output()])
    with pytest.raises(LessonError, match="no picture"):
        clean_outputs(cell)
    cell = nbformat.v4.new_code_cell("show()", outputs=[widget_output()], metadata={"tags": ["nbval-ignore-output"]})
    assert clean_outputs(cell) == []


def test_the_course_map_links_only_what_exists(root):
    table = course_map({"01_train_a_digit_reader": 45})
    assert table.count("](") == 1 and "| 45 |" in table
    assert table.count("not yet written") == len(COURSE) - 1
    assert [planned.number for planned in COURSE] == [f"{number:02d}" for number in range(16)]

    (root / "lessons" / "01_counting.md").write_text(LESSON + "\n<!-- course map -->\n")
    build_all(root)
    assert "| 15 | Other toolchains |" in sources(root / "notebooks" / "01_counting.ipynb")


def test_a_lesson_knows_whether_it_has_exercises(root):
    assert read_lesson(root / "lessons" / "01_counting.md").has_exercises
    assert not read_lesson(root / "lessons" / "glossary.md").has_exercises
