"""The program that a workbench hands out runs unmended in another folder, also for a model and data of one's own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from float_networks import FloatNetwork

import compresskit as ck
from compresskit.data import Digits, Split, load_data, write_idx
from compresskit.data.bring import save_data
from compresskit.litert.stamp import read_stamp, strip
from compresskit.widgets.jobs import Training
from compresskit.widgets.origin import Origin, Source, is_mnist
from compresskit.widgets.points import Setting
from compresskit.widgets.programs import check_code, code_of, python_of
from compresskit.widgets.workbench import Workbench

PATIENCE = 120.0
RANDOM = np.random.default_rng(11)


def network() -> bytes:
    net = FloatNetwork((6, 6, 1), seed=4)
    return net.tflite(net.dense(net.flatten(net.conv(net.input, 4)), 3, activation="none"))


@pytest.fixture(scope="module")
def arrays():
    return RANDOM.integers(0, 256, (60, 6, 6), np.uint8), RANDOM.integers(0, 3, 60)


@pytest.fixture
def own(tmp_path, monkeypatch, messages, arrays):
    """Workbenches over a model and data of one's own, given in several ways."""
    monkeypatch.setenv("COMPRESSKIT_CACHE", str(tmp_path / "cache"))
    made = []

    def workbench(kind):
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "net.tflite").write_bytes(network())
        images, labels = arrays
        if kind == "files":
            np.savez(folder / "data.npz", x=images, y=labels)
            model, data = "mine/net.tflite", "mine/data.npz"
        elif kind == "idx":
            for part in ("train", "t10k"):
                write_idx(folder / f"{part}-images-idx3-ubyte", images)
                write_idx(folder / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
            model, data = folder / "net.tflite", folder
        elif kind == "split":
            model, data = ck.Checkpoint("a net/of mine", network()), Split(images, labels, "test")
        else:
            model, data = ck.Checkpoint("net", network()), (images, labels)
        session = tmp_path / "kept" if kind == "session" else None
        made.append(Workbench(model, data, setting=Setting(0.5), session=session))
        assert made[-1].wait_idle(PATIENCE)
        return made[-1]

    monkeypatch.chdir(tmp_path)
    yield workbench
    for bench in made:
        bench.close()


def run(book, folder, capsys, monkeypatch) -> str:
    """Run a notebook's cells in a fresh folder, as a kernel would."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", ["files", "idx", "split", "arrays", "session"])
def test_the_notebook_makes_the_point_again_in_a_fresh_folder(own, kind, tmp_path, capsys, monkeypatch):
    bench = own(kind)
    kept = tmp_path / ("kept" if kind == "session" else "cache") / "originals"
    assert not kept.exists(), "nothing is written before somebody asks"
    name, text = bench._notebook()
    said = run(json.loads(text), tmp_path / "elsewhere", capsys, monkeypatch)
    assert "The same file, byte for byte." in said and "not the one" not in said
    assert (tmp_path / "elsewhere" / name.replace(".ipynb", ".tflite")).read_bytes() == bench.point.compressed.tflite
    assert kept.exists() == (kind not in ("files", "idx"))
    if kind in ("files", "idx"):
        assert str(tmp_path / "mine" / "net.tflite") in text and bench._origin.source.sha256 in text


def test_another_model_at_the_path_is_noticed(own, tmp_path, capsys, monkeypatch):
    bench = own("files")
    _, text = bench._notebook()
    other = FloatNetwork((6, 6, 1), seed=5)
    head = other.dense(other.flatten(other.conv(other.input, 4)), 3, activation="none")
    (tmp_path / "mine" / "net.tflite").write_bytes(other.tflite(head))
    said = run(json.loads(text), tmp_path / "elsewhere", capsys, monkeypatch)
    assert "The model is not the one" in said and "Another file" in said


def test_the_copied_program_finds_what_it_reads(own, tell, tmp_path):
    """In a process of its own, from another folder; copying is what writes the objects down."""
    bench = own("arrays")
    tell(bench._toolbar, {"type": "copied"})
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", bench._toolbar.code], cwd=tmp_path / "elsewhere", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "elsewhere").glob("*.tflite")
    assert made.read_bytes() == bench.point.compressed.tflite


def test_a_folder_that_cannot_be_written_to_is_told(own, monkeypatch):
    bench = own("arrays")
    said = []
    monkeypatch.setattr(bench._toolbar, "say", said.append)
    monkeypatch.setattr(type(bench._origin), "keep", lambda _: (_ for _ in ()).throw(PermissionError("read-only")))
    bench._hand_over(bench._notebook)
    assert said and "read-only" in said[0]


def test_the_stamped_file_tells_recipe_and_score(own, monkeypatch):
    bench = own("split")
    handed = {}
    monkeypatch.setattr(bench._toolbar, "hand_over", lambda name, content: handed.update({name: content}))
    bench._hand_over(bench._stamped)
    ((name, stamped),) = handed.items()
    told, point = read_stamp(stamped), bench.point
    assert name.endswith("_stamped.tflite") and strip(stamped) == point.compressed.tflite
    assert told.recipe == point.compressed.recipe and told.original == bench.checkpoint.digest
    assert (told.marks.accuracy, told.marks.n, told.marks.split) == (point.score.accuracy, 60, "test")


def test_data_is_read_back_as_it_was(tmp_path, arrays):
    images, labels = arrays
    split = Split(images.astype(np.float32), labels, "test")
    back = load_data(save_data(tmp_path / "one.npz", split))
    assert isinstance(back, Split) and np.array_equal(back.images, split.images)
    digits = load_data((images, labels))
    again = load_data(save_data(tmp_path / "three.npz", digits))
    assert isinstance(again, Digits)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(again, part).images, getattr(digits, part).images)
        np.testing.assert_array_equal(getattr(again, part).labels, getattr(digits, part).labels)
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        save_data(tmp_path / "data.txt", split)


def test_what_the_course_has_is_got_by_name(digits, tmp_path):
    model = ck.load_model("lenet5")
    source = Origin(model, model, digits, digits, tmp_path).source
    assert source == Source("ck.load_model('lenet5')")
    assert is_mnist(digits) and not is_mnist(load_data((digits.test.images[:60], digits.test.labels[:60])))
    assert "sha256" not in python_of(source, ck.Recipe(), "x.tflite")


def test_a_model_that_has_only_the_name_of_a_shipped_one_is_ones_own(digits, tmp_path):
    model = ck.Checkpoint("lenet5", network())
    path = model.save(tmp_path / "mine.tflite")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert Origin(path, model, None, digits, tmp_path).source == Source(f"ck.load_model({str(path)!r})", sha256=sha256)
    assert "originals" in Origin(model, model, None, digits, tmp_path / "originals").source.model


def test_data_that_has_only_the_sizes_of_mnist_is_ones_own(digits):
    assert not is_mnist(replace(digits, train=digits.train.take(100)))
    upside_down = replace(digits.test, images=np.ascontiguousarray(digits.test.images[:, ::-1]))
    assert not is_mnist(replace(digits, test=upside_down))


def test_a_teacher_of_ones_own_is_the_original():
    source = Source("ck.load_model('/mine.tflite')", sha256="0" * 64)
    settings = {"epochs": 2, "temperature": 6.0, "alpha": 0.5}
    for teacher, line in (
        (ck.Checkpoint("lenet5", network()), "distill(ck.load_model('/mine.tflite'), model"),
        (ck.load_model("lenet5"), "distill(ck.load_model('lenet5'), model"),
    ):
        code = code_of(Training("distill", settings=settings, teacher=teacher), source)
        assert line in code[1] and "epochs=2, temperature=6.0, alpha=0.5" in code[1]
        check_code(code)


def test_every_training_is_told_in_lines_that_a_session_takes_back():
    source = Source("ck.load_model('lenet5')")
    steps = (ck.Prune(0.5, layers=("conv1",)), ck.Quantize(4, 8, layers={"head": {"weights": 8}}))
    for training in (
        Training("fine-tune", settings={"epochs": 2, "learning_rate": 1e-3}),
        Training("fine-tune", ck.Recipe(steps[0]), {"epochs": 2}),
        Training("quantize", ck.Recipe(steps[1]), {"epochs": 2}),
    ):
        check_code(code_of(training, source))
