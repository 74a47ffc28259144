"""The shipped models are what their cards say; what comes from elsewhere is taken, or refused in a sentence."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from forked_probe import forked

import compresskit as ck
from compresskit import zoo
from compresskit.data import Digits
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.probe import look
from compresskit.zoo import manifest, model_names

FLOORS = {"digit_reader": 0.99, "lenet5": 0.992, "big_teacher": 0.995}
COPIES = int(os.environ.get("COMPRESSKIT_FUZZ", "100"))


def test_the_five_models_ship() -> None:
    assert set(model_names()) >= {"digit_reader", "lenet_300_100", "lenet5", "big_teacher", "small_student"}
    folder = resources.files("compresskit").joinpath("models")
    total = sum(len(each.read_bytes()) for each in folder.iterdir() if each.is_file())
    assert total < 25_000_000


@pytest.mark.parametrize("name", ["digit_reader", "lenet_300_100", "lenet5", "big_teacher", "small_student"])
def test_a_card_tells_the_truth(name: str, digits: Digits) -> None:
    card, checkpoint = manifest()[name], ck.load_model(name)
    assert (checkpoint.size, checkpoint.digest) == (card.tflite_bytes, card.tflite_sha256)
    assert hashlib.sha256(checkpoint.keras).hexdigest() == card.keras_sha256
    assert tuple(row.name for row in checkpoint.layers) == card.layers
    assert sum(row.macs for row in checkpoint.layers) == card.macs
    assert checkpoint.input_shape == (28, 28, 1)
    assert checkpoint.classes == 10
    score = ck.evaluate(checkpoint, digits.test)
    assert score.errors == card.test_errors
    assert score.accuracy == pytest.approx(card.test_accuracy)
    assert score.accuracy >= FLOORS.get(name, 0.98)
    assert ck.evaluate(checkpoint, digits.validation).accuracy == pytest.approx(card.validation_accuracy)


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    original = ck.load_model("small_student")
    again = ck.load_model(original.save(tmp_path / "mine.tflite"))
    assert (again.name, again.tflite, again.keras) == ("mine", original.tflite, original.keras)
    assert ck.load_model(again) is again


def test_tensor_names_that_repeat_are_made_unique(tmp_path: Path, digits: Digits) -> None:
    model = files.read(ck.load_model("small_student").tflite)
    for tensor in model.subgraphs[0].tensors[-4:]:
        tensor.name = b"same"
    (tmp_path / "twins.tflite").write_bytes(files.write(model))
    twins = ck.load_model(tmp_path / "twins.tflite")
    assert ck.evaluate(ck.compress(twins, ck.Recipe(ck.Quantize()), digits.train), digits.test.take(500)).accuracy > 0.9


@pytest.mark.parametrize("name", ["nothing_such", "missing.tflite", "missing.keras"])
def test_a_name_of_nothing_lists_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match="digit_reader, lenet_300_100"):
        ck.load_model(name)


def test_what_is_not_a_model_is_refused(tmp_path: Path, digits: Digits) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.tflite").write_bytes(b"TFL3" * 100)
    for source, words in [
        (tmp_path / "notes.txt", "give a .tflite"),
        (tmp_path / "broken.tflite", "broken.tflite cannot be used"),
        (3.14, "source is a float"),
        (object(), "source is a object"),
    ]:
        with pytest.raises(ValueError) as refused:
            ck.load_model(source)
        assert words in str(refused.value)
    small = ck.compress(ck.load_model("digit_reader"), ck.Recipe(ck.Quantize()), digits.train)
    with pytest.raises(ValueError, match="compressed already"):
        ck.load_model(small.save(tmp_path / "int8.tflite"))


def changed(tflite: bytes, change: Callable[[Any, Any], object]) -> bytes:
    """A file whose first input and output were changed."""
    model = files.read(tflite)
    graph = model.subgraphs[0]
    change(graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]])
    return files.write(model)


def any_size(given: Any, _: Any) -> None:
    given.shapeSignature = np.array([-1, -1, -1, 1], np.int32)


def eight_at_once(given: Any, _: Any) -> None:
    given.shape = np.array([8, *given.shape[1:]], np.int32)
    given.shapeSignature = None


def test_weights_that_are_no_numbers_are_refused_by_layer(tmp_path: Path) -> None:
    model = files.read(ck.load_model("small_student").tflite)
    site = sites(model)[2]
    buffer = model.buffers[model.subgraphs[0].tensors[site.weights].buffer]
    values = np.array(buffer.data, np.uint8).view(np.float32)
    values[3] = np.inf
    buffer.data = values.view(np.uint8)
    (tmp_path / "inf.tflite").write_bytes(files.write(model))
    with pytest.raises(ValueError, match=rf"inf.tflite cannot be used: layer '{site.name}' holds weights that are NaN"):
        ck.load_model(tmp_path / "inf.tflite")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tflite")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(ValueError, match=r"pipe\.tflite', which is no file"):
        ck.load_model(tmp_path / "pipe.tflite")
    with pytest.raises(ValueError, match=r"folder\.tflite', a folder without saved_model\.pb"):
        ck.load_model(tmp_path / "folder.tflite")


def test_what_a_model_reads_and_answers_is_looked_at_first(tmp_path: Path) -> None:
    whole = ck.load_model("small_student").tflite
    for name, content, words in [
        ("sizes", changed(whole, any_size), "inputs of any size (any x any x 1); make the model again with one size"),
        ("eight", changed(whole, eight_at_once), "reads 8 examples at a time"),
    ]:
        (tmp_path / f"{name}.tflite").write_bytes(content)
        with pytest.raises(ValueError) as refused:
            ck.load_model(tmp_path / f"{name}.tflite")
        assert f"{name}.tflite cannot be used: it reads" in str(refused.value) and words in str(refused.value)
    for shape, words in [
        ((1, 1), "gives one number; bring a model with one for each class"),
        ((1, 7, 7, 3), "(7, 7, 3)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            zoo._refuse_answers(shape, "mine.tflite")
    zoo._refuse_answers((1, 1, 1, 10), "mine.tflite")
    words_read = changed(whole, lambda given, _: setattr(given, "type", schema.TensorType.INT32))
    with pytest.raises(ValueError, match=r"mine\.tflite reads whole numbers"):
        zoo._refuse_inputs(words_read, "mine.tflite")
    deep = changed(whole, lambda given, _: setattr(given, "shape", np.array([1, 4, 4, 4, 1], np.int32)))
    with pytest.raises(ValueError, match=r"reads examples of shape \(4, 4, 4, 1\)"):
        zoo._refuse_inputs(deep, "mine.tflite")


def corrupted(whole: bytes, number: int) -> bytes:
    """Flip bytes, cut the end off, splice in noise, or damage the tables; the same copy for the same number."""
    chance = np.random.default_rng([2026, number])
    data = bytearray(whole)
    if number % 4 == 1:
        del data[int(chance.integers(0, len(data))) :]
    elif number % 4 == 2:
        start = int(chance.integers(0, len(data) - 64))
        data[start : start + 64] = chance.bytes(64)
    else:
        lowest = 0 if number % 4 == 0 else len(data) * 3 // 4  # the tables stand at the end
        for place in chance.integers(lowest, len(data), chance.integers(1, 20)):
            data[place] = chance.integers(0, 256)
    return bytes(data)


def test_corrupt_copies_are_refused_or_run_and_the_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ck.load_model("small_student").tflite

    def refused(number: int) -> str:
        """What is said of a copy; nothing if it runs."""
        try:
            found = look(corrupted(whole, number), f"copy {number}")
        except ValueError as error:
            assert f"copy {number}" in str(error)
            return str(error)
        assert found.outputs
        return ""

    few = [refused(number) for number in range(COPIES // 10)]  # each look is a process of its own
    with forked(monkeypatch) if hasattr(os, "fork") else nullcontext():
        said = [refused(number) for number in range(COPIES)]
    assert said[: len(few)] == few
    count = sum(map(bool, said))
    assert COPIES // 4 < count < COPIES
