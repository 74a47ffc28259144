"""README.md tells the truth: its map is the lessons', its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import compresskit as ck
from compresskit.cli import parser
from compresskit.course import readme

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md")
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_course_map_is_that_of_the_lessons():
    assert readme.update(ROOT, check=True) == [], "make notebooks writes it"


def test_a_map_goes_between_its_marks_and_changes_nothing_else():
    empty = f"above\n{readme.BEGIN}\nold\n{readme.END}\nbelow\n"
    text = readme.with_map(empty, {"01_train_a_digit_reader": 45})
    assert text.startswith(f"above\n{readme.BEGIN}\n\n| | lesson")
    assert text.endswith(f"|\n\n{readme.END}\nbelow\n")
    assert "old" not in text
    assert "| 01 | [Train a digit reader](notebooks/01_train_a_digit_reader.ipynb) | 45 |" in text
    assert "| 02 | The arithmetic of int8 | not yet written |" in text
    assert readme.with_map(text, {"01_train_a_digit_reader": 45}) == text


@pytest.mark.parametrize("text", ["nothing", readme.BEGIN, f"{readme.END} {readme.BEGIN}"])
def test_missing_marks_are_named(text: str):
    with pytest.raises(ValueError, match="course map"):
        readme.with_map(text, {})


def test_the_map_is_written_once(tmp_path: Path):
    (tmp_path / "lessons").mkdir()
    lesson = ROOT / "lessons" / "00_start_here.md"
    (tmp_path / "lessons" / lesson.name).write_text(lesson.read_text())
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}{readme.END}")
    assert readme.update(tmp_path, check=False) == [page]
    assert "notebooks/00_start_here.ipynb" not in page.read_text()  # only the lesson is there yet
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_start_here.ipynb").touch()
    page.write_text(f"{readme.BEGIN}{readme.END}")
    assert readme.update(tmp_path, check=True) == [page]
    assert page.read_text() == f"{readme.BEGIN}{readme.END}"
    assert readme.update(tmp_path, check=False) == [page]
    assert "notebooks/00_start_here.ipynb" in page.read_text()
    assert readme.update(tmp_path, check=True) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_of_this_repository(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert links or page != "README.md"
    tracked = set(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines())
    for link in links:
        assert (ROOT / link).exists(), f"{page} links to {link}"
        assert not tracked or any(name == link or name.startswith(f"{link}/") for name in tracked), link


def test_the_commands_it_names_exist():
    typed = "\n".join(line for line in re.findall(r"^    .*|`[^`]*`", TEXT, re.MULTILINE) if "import" not in line)
    commands = set(re.findall(r"compresskit (\w+)", typed)) - {"compresskit"}
    assert {"lab", "doctor", "compress", "evaluate"} <= commands
    for command in commands:
        with pytest.raises(SystemExit) as left:
            parser().parse_args([command, "--help"])
        assert left.value.code == 0, command
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make (\w+)", TEXT)) <= targets | {"it"}


def test_its_example_runs(tmp_path: Path):
    example = re.search(r"(?:^    import compresskit as ck\n(?:^    .*\n|^\n)+)", TEXT, re.MULTILINE)
    assert example is not None
    program = re.sub(r"^    ", "", example[0], flags=re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "reader.tflite").stat().st_size
    assert f"{size:,} bytes" in done.stdout
    assert size < ck.load_model("digit_reader").size / 3
