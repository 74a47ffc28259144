"""A workbench on disk and taken out of it: nothing lost, nothing mixed up, every export what the plot shows."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import shutil
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient

import compresskit as ck
from compresskit.data import Split
from compresskit.recipe import Recipe
from compresskit.widgets import export
from compresskit.widgets.points import Setting
from compresskit.widgets.programs import check_code
from compresskit.widgets.session import Session
from compresskit.widgets.views import Mark
from compresskit.widgets.visits import Visit, from_plain, to_plain
from compresskit.widgets.workbench import Workbench

PATIENCE = 120.0


@pytest.fixture(scope="module")
def data(digits):
    return digits.test.take(300)


@pytest.fixture(scope="module")
def model():
    return ck.load_model("small_student")


@pytest.fixture
def make(data, model):
    made = []

    def workbench(folder, **more):
        made.append(Workbench(model, data, session=folder, **more))
        return made[-1]

    yield workbench
    for bench in made:
        bench.close()


def visit_of(setting: Setting, size: int = 1000, accuracy: float = 0.9, exact: bool = True, name="", note="") -> Visit:
    measured = {"file": size / 1000, "macs": 0.2, "memory": 1.5, "loss": 0.25}
    return Visit(
        setting, setting.recipe(), size, measured, accuracy, (accuracy - 0.01, accuracy + 0.01), 300, exact, "0" * 64,
        name, note,
    )  # fmt: skip


SETTINGS = st.builds(
    Setting,
    sparsity=st.sampled_from([0.0, 0.3, 0.97]),
    scope=st.sampled_from(["layer", "global"]),
    weights=st.sampled_from([4, 8]),
    sparsities=st.just(()) | st.just((("head", 0.5), ("conv", None))),
    layers=st.just(()) | st.just((("head", 4), ("conv", 8))),
    model=st.sampled_from(["", "fine-tuned 1"]),
    shared=st.sampled_from([0, 16]),
    share_method=st.sampled_from(["kmeans", "uniform"]),
    low_rank=st.sampled_from([1.0, 0.06]),
)


@settings(max_examples=50, deadline=None)
@given(SETTINGS, st.text(max_size=20), st.text(max_size=40))
def test_a_point_comes_back_from_json_as_it_was(setting, name, note):
    visit = visit_of(setting, name=name, note=note)
    plain = json.loads(json.dumps(to_plain(visit)))
    assert from_plain(plain) == visit
    del plain["name"], plain["note"]  # as it was kept before points could be named
    assert from_plain(plain) == visit_of(setting)


@pytest.mark.parametrize("plain", [{}, {"setting": 3}, {"setting": {"no_such": 1}, "interval": [0, 1]}])
def test_what_is_no_point_is_refused(plain):
    with pytest.raises(ValueError, match="no point of a workbench"):
        from_plain(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"size": -5}, {"size": 10**400}, {"n": 0}, {"accuracy": float("nan")}, {"accuracy": 5.0, "interval": [5, 6]},
        {"measured": {"file": float("inf")}}, {"digest": "../../../x"}, {"name": "x" * 30_000},
        {"recipe": Recipe().to_json()},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_figures_that_no_file_has_are_refused(change):
    plain = to_plain(visit_of(Setting(0.5)))
    with pytest.raises(ValueError, match="no point of a workbench"):
        from_plain({**plain, **change})


@pytest.mark.parametrize("change", [{"sparsity": "half"}, {"weights": [1, 2]}, {"layers": 5}, {"evil": 1}])
def test_settings_of_other_kinds_are_refused(change):
    plain = to_plain(visit_of(Setting(0.5)))
    with pytest.raises(ValueError, match="no point of a workbench"):
        from_plain({**plain, "setting": {**plain["setting"], **change}})


def test_a_session_from_elsewhere_opens_without_what_is_damaged_in_it(model, data, tmp_path, make):
    session = Session(tmp_path / "mine", model, data, pytest.fail)
    for name in ("good", "cut", "gone", "junk", "program"):
        code = "model = fine_tune(model, digits, epochs=2).checkpoint"
        session.keep_model(name, model, ("import os" if name == "program" else code,))
    session.close()
    models, points = tmp_path / "mine" / "models", tmp_path / "mine" / "points"
    (models / "002.json").write_text('{"label": "cu')
    (models / "003.tflite").unlink()
    (models / "004.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(50))
    points.mkdir(exist_ok=True)
    (points / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    bench = make(tmp_path / "mine")
    assert bench.wait_idle(PATIENCE) and list(bench.models) == ["", "good"]
    assert bench._session.damaged == ("002.json", "003.json", "004.json", "005.json", "deep.json")
    assert "cannot be read: 002.json, 003.json, 004.json and others" in bench._kept_note.value
    lost = visit_of(Setting(0.5, model="junk"))
    session = Session(tmp_path / "mine", model, data, pytest.fail)
    session.keep(lost, b"its file")
    altered = session.folder / "files" / f"{lost.digest}.tflite"
    session.close()
    altered.write_bytes(b"another")
    session = Session(tmp_path / "mine", model, data, pytest.fail)
    session.keep(lost, b"its file")
    session.close()
    assert altered.read_bytes() == b"its file"
    assert "points of a model that is not here (1), 002.json" in make(tmp_path / "mine")._kept_note.value


@pytest.mark.parametrize(
    "line",
    ["import os", "model = fine_tune(__import__('os')).checkpoint", "model = open('x').checkpoint", "x = 3; y = 4", "(",
     "from os import system", "model = fine_tune(model, digits.__class__).checkpoint", "model = [i for i in digits]",
     "from compresskit.training.fit import os"],
)  # fmt: skip
def test_lines_that_are_no_training_are_refused(line):
    with pytest.raises(ValueError, match="no line of a training"):
        check_code([line])


def test_points_are_there_again_tomorrow(make, tmp_path):
    first = make(tmp_path / "mine")
    assert first.wait_idle(PATIENCE)
    first.move_to(Setting(0.5))
    assert first.wait_idle(PATIENCE)
    assert first.point is not None
    tflite = first.point.compressed.tflite
    first.close()
    second = make(tmp_path / "mine")
    assert second.wait_idle(PATIENCE)
    assert second.points == first.points
    kept = second._session.file(hashlib.sha256(tflite).hexdigest())
    assert kept == tflite
    assert len(second._back.options) == len(first._back.options)


def test_points_from_before_sharing_and_low_rank_are_read():
    kept = json.loads(json.dumps(to_plain(visit_of(Setting(0.3, weights=4)))))
    for name in ("shared", "share_method", "share_granularity", "low_rank", "convolutions"):
        del kept["setting"][name]
    assert from_plain(kept) == visit_of(Setting(0.3, weights=4))


def test_points_of_an_older_session_are_named_where_they_cannot_be_drawn(make, tmp_path):
    """They were kept before memory and loss were measured: nothing is left out of the plot in silence."""
    first = make(tmp_path / "mine")
    for setting in (Setting(0.2), Setting(0.4)):
        first.move_to(setting)
        assert first.wait_idle(PATIENCE)
    first.name_point("the one")
    first.move_to(Setting(0.6))
    assert first.wait_idle(PATIENCE)
    first.close()
    for path in (tmp_path / "mine" / "points").glob("*.json"):
        kept = json.loads(path.read_bytes())
        del kept["measured"]["memory"], kept["measured"]["loss"]
        path.write_text(json.dumps(kept))
    second = make(tmp_path / "mine")
    assert second.wait_idle(PATIENCE)
    for axis, upward, lacking in (
        ("file", "accuracy", None),
        ("memory", "accuracy", "‘memory while it runs’"),
        ("memory", "loss", "‘memory while it runs’ and ‘loss’"),
        ("macs", "loss", "‘loss’"),
    ):
        second._axis.value, second._upward.value = axis, upward
        assert second.wait_idle(PATIENCE)
        data, said = second._tradeoff.figure["data"], html.unescape(second._absent.value)
        assert [len(data[0]["x"]), len(data[3]["x"])] == [1, 1], "the original, and where one stands, are measured"
        assert len(data[1]["x"]) == len(second.points) - (2 if lacking else 0)
        assert lacking is None or f"nobody asked them for {lacking} yet: " in said
        assert ("‘the one’" in said) == bool(lacking)
    for setting in (Setting(0.2), Setting(0.4)):
        second.move_to(setting)
        assert second.wait_idle(PATIENCE)
    assert "Not on the plot" not in second._absent.value
    assert len(second._tradeoff.figure["data"][1]["x"]) == len(second.points)
    for content in (second._table_of_points, second._report, second._notebook):
        assert content()


def test_words_undo_and_what_was_compared_are_there_again(make, tmp_path):
    first = make(tmp_path / "mine")
    assert first.wait_idle(PATIENCE)
    for setting in (Setting(0.2), Setting(0.4)):
        first.move_to(setting)
        assert first.wait_idle(PATIENCE)
    first.name_point("the one", "ask Ada")
    first.compare(Setting(), Setting(0.4))
    first._axis.value, first._upward.value = "memory", "loss"
    first.undo()
    assert first.wait_idle(PATIENCE)
    first._session._writer.submit(lambda: None).result(PATIENCE)
    copied = tmp_path / "after a crash"  # the process ends without closing anything
    shutil.copytree(tmp_path / "mine", copied)
    second = make(copied)
    assert second.wait_idle(PATIENCE)
    assert (second.points[-1].name, second.points[-1].note) == ("the one", "ask Ada")
    assert (second._axis.value, second._upward.value) == ("memory", "loss")
    assert second.setting == Setting(0.2) and second._undo.steps == first._undo.steps
    assert second._compare.pair == (Setting(), Setting(0.4)) and second._compare_box.children
    assert second._compare.status.text == first._compare.status.text
    second.redo()
    assert second.wait_idle(PATIENCE) and second._words.name.value == "the one"
    second.close()
    elsewhere = make(copied, setting=Setting(0.6))
    assert elsewhere.setting == Setting(0.6) and elsewhere._undo.steps[0][-1] == Setting(0.6)


@pytest.mark.parametrize(
    "standing", [b"{", b"[]", b'{"steps": []}', b'{"steps": [{"weights": 5000}], "at": 0, "compared": [null, null]}']
)
def test_where_the_controls_stood_may_be_damaged(standing, model, data, tmp_path, make):
    Session(tmp_path / "mine", model, data, pytest.fail).close()
    (tmp_path / "mine" / "standing.json").write_bytes(standing)
    bench = make(tmp_path / "mine")
    assert bench.wait_idle(PATIENCE) and bench.setting == Setting() and bench.point.exact


def test_a_crash_loses_no_finished_point(make, tmp_path):
    """The process ends between two points, and in the middle of writing a third."""
    bench = make(tmp_path / "mine")
    assert bench.wait_idle(PATIENCE)
    bench.close()
    copied = tmp_path / "after"
    shutil.copytree(tmp_path / "mine", copied)
    (copied / "points" / ".half.json.123.abc").write_bytes(b'{"set')  # what write_atomically leaves behind
    (copied / "points" / "damaged.json").write_bytes(b'{"order": 2')
    again = make(copied)
    assert again.wait_idle(PATIENCE)
    assert again.points == bench.points
    assert again._session.visits() == bench.points and again._session.damaged == ("damaged.json",)


def test_a_trained_model_is_there_again(model, data, tmp_path, make):
    session = Session(tmp_path / "mine", model, data, pytest.fail)
    other = ck.load_model("lenet5")
    session.keep_model("fine-tuned 1", other, ("model = fine_tune(model, digits).checkpoint",))
    session.close()
    bench = make(tmp_path / "mine")
    assert list(bench.models) == ["", "fine-tuned 1"]
    assert bench.models["fine-tuned 1"].checkpoint.tflite == other.tflite
    assert bench.models["fine-tuned 1"].checkpoint.keras == other.keras
    assert ("fine-tuned 1", "fine-tuned 1") in bench._controls["model"].options


def test_a_session_of_something_else_is_refused(model, data, tmp_path, digits):
    Session(tmp_path / "mine", model, data, pytest.fail).close()
    with pytest.raises(ValueError, match="belongs to another model"):
        Session(tmp_path / "mine", ck.load_model("lenet5"), data, pytest.fail)
    with pytest.raises(ValueError, match="belongs to another data"):
        Session(tmp_path / "mine", model, digits.test.take(200), pytest.fail)
    about = json.loads((tmp_path / "mine" / "session.json").read_text())
    (tmp_path / "mine" / "session.json").write_text(json.dumps({**about, "version": 2}))
    with pytest.raises(ValueError, match="newer than this program"):
        Session(tmp_path / "mine", model, data, pytest.fail)
    (tmp_path / "mine" / "session.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        Session(tmp_path / "mine", model, data, pytest.fail)
    for folder in (
        tmp_path / ("x" * 300),
        tmp_path / "mine" / "session.json",
        tmp_path / "mine" / "session.json" / "x",
    ):
        with pytest.raises(ValueError, match=r"session: .* cannot be used \(.*choose another folder"):
            Session(folder, model, data, pytest.fail)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="choose an empty folder"):
        Session(tmp_path / "full", model, data, pytest.fail)
    assert [each.name for each in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_an_altered_file_is_not_given(model, data, tmp_path):
    session = Session(tmp_path / "mine", model, data, pytest.fail)
    small = ck.compress(model, ck.Recipe())
    visit = Visit(Setting(), small.recipe, small.size, {}, 0.9, (0.8, 0.95), 300, True, small.digest)
    session.keep(visit, small.tflite)
    session.close()
    assert session.file(small.digest) == small.tflite
    path = tmp_path / "mine" / "files" / f"{small.digest}.tflite"
    path.write_bytes(small.tflite[:-1] + b"x")
    with pytest.raises(ValueError, match="not what it was"):
        session.file(small.digest)
    path.unlink()
    with pytest.raises(ValueError, match="make the point again"):
        session.file(small.digest)


def test_a_disk_that_takes_nothing_is_told(model, data, tmp_path):
    heard: list[str] = []
    session = Session(tmp_path / "mine", model, data, heard.append)
    (tmp_path / "mine" / "points").write_text("a file where a folder should be")
    session.keep(visit_of(Setting(0.3)), b"")
    session.close()
    assert len(heard) == 1 and "Not kept in" in heard[0]


ORIGINAL = Mark(5000, 0.98, 0.97, 0.99, 300, True, "the original")


def test_the_table_holds_every_point():
    named = visit_of(Setting(0.3), 2000, name="for the watch", note="two\nlines, with a comma")
    visits = (named, visit_of(Setting(0.5, weights=4), 900, 0.5, exact=False))
    rows = list(csv.DictReader(io.StringIO(export.points_csv(ORIGINAL, visits))))
    assert [row["what"] for row in rows] == ["the original", *(visit.setting.describe() for visit in visits)]
    assert [int(row["bytes"]) for row in rows] == [5000, 2000, 900]
    assert [int(row["misread"]) for row in rows] == [6, 30, 150]
    assert [row["all_digits"] for row in rows] == ["True", "True", "False"]
    assert ck.Recipe.from_json(rows[1]["recipe"]) == visits[0].recipe
    assert rows[1]["deflated_bytes"] == ""
    assert (rows[1]["name"], rows[1]["note"]) == ("for the watch", "two\nlines, with a comma")
    assert (rows[1]["activation_bytes"], rows[1]["loss"], rows[0]["loss"]) == ("1500", "0.25", "")


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@example("=cmd|' /C calc'!A0")
@example("\r\n=2")
@example("a\rb")
def test_no_name_breaks_the_table_or_is_computed_by_a_spreadsheet(name):
    visits = (visit_of(Setting(0.3), name=name, note=name), visit_of(Setting(0.5)))
    rows = list(csv.DictReader(io.StringIO(export.points_csv(ORIGINAL, visits))))
    assert len(rows) == 3 and int(rows[1]["bytes"]) == 1000
    assert not rows[1]["name"].lstrip().startswith(("=", "+", "-", "@"))
    assert "".join(rows[1]["note"].split()).endswith("".join(name.replace("\0", "").split()))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=8))
def test_nothing_beats_the_frontier(found):
    visits = [visit_of(Setting(i / 100), 600 * size, accuracy / 10) for i, (size, accuracy) in enumerate(found)]
    best = export.frontier(ORIGINAL, visits)
    every = [(visit.size, visit.accuracy) for visit in visits] + [(ORIGINAL.size, ORIGINAL.accuracy)]

    def beaten(size, accuracy):
        return any(other <= size and more >= accuracy and (other, more) != (size, accuracy) for other, more in every)

    kept = [(visit.size, visit.accuracy) for visit in best]
    assert kept == sorted(set(kept))
    assert not any(beaten(*each) for each in kept)
    expected = {each for each in every[:-1] if not beaten(*each) and each != every[-1]}
    assert set(kept) == expected


class Reader(HTMLParser):
    """Collects the tags and what they ask the network for."""

    def __init__(self):
        super().__init__()
        self.tags, self.asked, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.asked += [value for name, value in attributes if name in ("src", "href") and not value.startswith("data:")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_stands_alone():
    named = visit_of(Setting(0.3), 2000, 0.97, name="<watch>", note="half a <i>day</i>")
    visits = (named, visit_of(Setting(0.5), 900, 0.9))
    test = Split(np.zeros((5, 4), np.float32), np.arange(5), notice="An offline sample.")
    read = Reader()
    read.feed(export.report_html("<my> model", ORIGINAL, visits, test))
    assert read.asked == [] and "script" not in read.tags and "link" not in read.tags
    text = " ".join(read.text)
    assert "i" not in read.tags and "<watch>" in text and "half a <i>day</i>" in text
    assert (
        "300 rows. An offline sample." in text
        and "<my> model" in text
        and "An offline sample." in text
        and visits[0].recipe.to_python() in text
    )
    assert read.tags.count("tr") == 2 * (1 + 1 + 2) and "svg" in read.tags


def test_the_notebook_makes_the_same_file(make, tmp_path, digits):
    bench = make(tmp_path / "mine")
    assert bench.wait_idle(PATIENCE)
    bench.move_to(Setting(0.4, weights=8, activations=32))  # needs no digits to calibrate on: any will do
    assert bench.wait_idle(PATIENCE)
    name, text = bench._notebook()
    assert name.endswith(".ipynb")
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for output in book.cells[-1].outputs)
    assert "The same file, byte for byte." in printed
    assert (tmp_path / bench._toolbar.file_name).read_bytes() == bench.point.compressed.tflite


def test_buttons_hand_files_over(make, tmp_path, monkeypatch):
    bench = make(tmp_path / "mine")
    assert bench.wait_idle(PATIENCE)
    handed = {}
    monkeypatch.setattr(bench._toolbar, "hand_over", lambda name, content: handed.update({name: content}))
    for content in (bench._table_of_points, bench._report, bench._notebook):
        bench._hand_over(content)
    assert sorted(name.rsplit(".", 1)[1] for name in handed) == ["csv", "html", "ipynb"]
    said = []
    monkeypatch.setattr(bench._toolbar, "say", said.append)
    bench.move_to(Setting(weights=32, activations=32))
    assert bench.wait_idle(PATIENCE)
    bench._hand_over(bench._notebook)
    assert said == ["The original needs no notebook; move a slider first."]


def test_preview_points_are_not_kept(model, data, tmp_path):
    many = Split(np.tile(data.images, (5, 1, 1)), np.tile(data.labels, 5), "test")
    bench = Workbench(model, many, session=tmp_path / "mine")
    try:
        assert bench.wait_idle(PATIENCE)
        assert bench.points[0].exact
    finally:
        bench.close()
    assert len(list((tmp_path / "mine" / "points").glob("*.json"))) == 1
