"""A model and data of one's own in the workbench: colours with branches, a table of numbers, and what does not fit."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from float_networks import FloatNetwork
from sklearn.datasets import load_digits

import compresskit as ck
from compresskit import pruned
from compresskit.course.build import read_lesson
from compresskit.data import Split
from compresskit.data.folders import FILES
from compresskit.data.idx import write_idx
from compresskit.widgets.points import Setting, compute_point

ROOT = Path(__file__).resolve().parents[2]
RANDOM = np.random.default_rng(5)


def colour_network() -> bytes:
    """Convolutions, depthwise ones, a residual addition: the form of MobileNet, small."""
    net = FloatNetwork((24, 24, 3), seed=1)
    x = net.conv(net.input, 16, stride=2)
    for _ in range(2):
        x = net.add(x, net.conv(net.depthwise(x), 16, size=1, activation="relu6"))
    x = net.conv(net.depthwise(x, stride=2), 32, size=1)
    return net.tflite(net.dense(net.mean(x), 4, activation="none"))


def table_network() -> bytes:
    net = FloatNetwork((12,), seed=2)
    return net.tflite(net.dense(net.dense(net.input, 40), 3, activation="none"))


@pytest.fixture(scope="module", params=["colour", "table"])
def own(request, tmp_path_factory):
    """A file and an archive, labelled as the float file reads them: the original is always right."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "colour":
        tflite, examples = colour_network(), RANDOM.integers(0, 256, (120, 24, 24, 3), np.uint8)
    else:
        tflite, examples = table_network(), RANDOM.normal(size=(120, 12)).astype(np.float32)
    (folder / "mine.tflite").write_bytes(tflite)
    checkpoint = ck.load_model(folder / "mine.tflite")
    labels = ck.evaluate(checkpoint, Split(examples, np.zeros(len(examples), int))).predictions
    np.savez(folder / "mine.npz", x=examples, y=labels)
    return folder


def test_the_workbench_opens_it(own):
    bench = ck.Workbench(own / "mine.tflite", own / "mine.npz")
    try:
        assert bench.wait_idle(120)
        assert bench.point is not None and bench._live.last_error is None
        assert "guessing" not in bench._about.value
        before = ck.evaluate(bench.checkpoint, bench.test)
        assert before.accuracy == 1.0
        assert bench.point.score.accuracy > 0.6, "eight bits change little"
        assert bench.point.compressed.size < bench.checkpoint.size
    finally:
        bench.close()


@pytest.mark.parametrize(
    "setting",
    [
        Setting(0.5, weights=32, activations=32),
        Setting(0.5),
        Setting(sparsity=0.25, pattern="channel"),
        Setting(0.5, importance="activation", scope="global"),
        Setting(0.5, importance="gradient"),
        Setting(0.5, pattern="2:4"),
        Setting(weights=16, activations=32),
        Setting(weights=8, activations=32),
        Setting(weights=8, activations=16),
        Setting(weights=5),
    ],
    ids=lambda setting: setting.describe().replace(" ", "-")[:40],
)
def test_each_setting_gives_a_file_or_a_sentence(own, setting):
    model, data = ck.load_model(own / "mine.tflite"), ck.load_data(own / "mine.npz")
    try:
        point = compute_point(model, setting, data.test, data.train)
    except ValueError as error:
        assert "choose" in str(error)
        assert any(layer.name in str(error) for layer in model.layers) or "Prune" in str(error), error
    else:
        assert point.compressed.size < model.size or setting.weights == 32
        assert np.isfinite(point.score.accuracy)


def test_fewer_examples_are_asked_for_gradients_where_the_network_is_large(own, monkeypatch):
    model, data = ck.load_model(own / "mine.tflite"), ck.load_data(own / "mine.npz")
    few = pruned.prune(model.tflite, (ck.Prune(0.5, importance="gradient"),), data.train.take(16))
    monkeypatch.setattr(pruned, "_GRADIENT_MACS", 1)
    pruned.prune.cache_clear()
    all_of_them = pruned.prune(model.tflite, (ck.Prune(0.5, importance="gradient"),), data.train)
    for index, array in few.weights.items():
        np.testing.assert_array_equal(array, all_of_them.weights[index])


def test_a_model_that_guesses_is_doubted(own):
    data = ck.load_data(own / "mine.npz")
    turned = (data.test.labels + 1) % (data.test.labels.max() + 1)
    bench = ck.Workbench(own / "mine.tflite", Split(data.test.images, turned))
    try:
        assert bench.wait_idle(120)
        assert "reads only 0.00 % right, no more than guessing would" in bench._about.value
        assert ("from 0 to 1" in bench._about.value) == (data.test.images.dtype == np.uint8)
    finally:
        bench.close()


def test_data_of_another_form_is_refused_before_anything_runs(own):
    with pytest.raises(ValueError, match="resize the images first"):
        ck.Workbench(own / "mine.tflite", (np.zeros((60, 9, 9), np.uint8), np.arange(60) % 3))


def test_labels_that_the_model_does_not_know_are_refused(own):
    data = ck.load_data(own / "mine.npz")
    with pytest.raises(ValueError, match=r"labels up to \d+, but the model"):
        ck.Workbench(
            own / "mine.tflite", ((data.train.images, data.train.labels + 7), (data.test.images, data.test.labels + 7))
        )


@pytest.fixture(scope="module")
def page():
    """The code cells of the page about own models by heading, in order."""
    cells, heading = {}, ""
    for cell in read_lesson(ROOT / "lessons" / "own_models.md").cells:
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^## (.+)$", cell.source, re.MULTILINE)][-1]
        else:
            cells.setdefault(heading, []).append(cell.source)
    return cells


def run_clothes(page, trained_here):
    """Run the page's part on Fashion-MNIST in the working folder, with the functions that an earlier part defines."""
    names = {"np": np, "ck": ck, "Path": Path, "dataclasses": dataclasses, "trained_here": False}
    exec(next(source for source in page["A table of numbers"] if "def train_dense" in source), names)
    names["trained_here"] = trained_here
    for source in page["Clothes instead of digits"]:
        exec(source, names)
    return names


def test_the_page_says_where_fashion_mnist_belongs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_clothes(page, trained_here=True)["wardrobe"] is None
    assert capsys.readouterr().out.startswith("No folder data/fashion: put the four files")


@pytest.mark.train
def test_the_page_works_on_files_as_those_of_fashion_mnist(page, tmp_path, monkeypatch, capsys):
    images, labels = load_digits(return_X_y=True)  # 8 x 8 pixels of 0 to 16, for want of the clothes themselves
    images = np.kron(images.reshape(-1, 8, 8), np.ones((3, 3))) * 15
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    again = np.tile(np.arange(1500), 5)
    folder = tmp_path / "data" / "fashion"
    folder.mkdir(parents=True)
    arrays = (images[again], labels[again], images[1500:], labels[1500:])
    for name, array in zip(FILES, arrays, strict=True):
        write_idx(folder / name, array.astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    names = run_clothes(page, trained_here=True)
    bench = names["wardrobe"]
    try:
        assert bench.wait_idle(120) and bench.point.score.accuracy > 0.8
        assert len(names["clothes"].train) == 6000 and len(bench.test) == 297
        assert bench.point.compressed.size < bench.checkpoint.size / 3
    finally:
        bench.close()
    rows = capsys.readouterr().out.splitlines()
    assert "6,000 images to train on, 297 to test" in rows and rows[-1].startswith("80 % zeros, int8")
