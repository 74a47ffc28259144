"""Which layer loses the accuracy: planted faults are found where they were planted."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit.analysis import layer_errors, quantization_sensitivity
from compresskit.data import Digits


@pytest.fixture(scope="module")
def reader() -> ck.Checkpoint:
    return ck.load_model("digit_reader")


def test_an_unchanged_file_has_no_error(reader: ck.Checkpoint, digits: Digits) -> None:
    rows = layer_errors(ck.compress(reader, ck.Recipe()), digits.test, examples=20)
    assert [row.name for row in rows] == ["conv1", "conv2", "dense", "head"]
    assert all(row.signal_to_noise == np.inf and row.cosine == pytest.approx(1) and row.largest == 0 for row in rows)


@pytest.mark.parametrize("guilty", ["conv1", "conv2", "dense", "head"])
def test_errors_begin_at_the_layer_that_makes_them(reader: ck.Checkpoint, digits: Digits, guilty: str) -> None:
    step = ck.Quantize(32, 32, layers={guilty: {"weights": 2, "compute": "float", "store": "int8"}})
    rows = layer_errors(ck.compress(reader, ck.Recipe(step)), digits.test, examples=20)
    clean = [row.name for row in rows if row.signal_to_noise > 60]
    assert clean == [row.name for row in rows][: [row.name for row in rows].index(guilty)]


def test_int8_loses_little_and_more_bits_lose_less(reader: ck.Checkpoint, digits: Digits) -> None:
    noise = [
        layer_errors(ck.compress(reader, ck.Recipe(ck.Quantize(bits, 8)), digits.train), digits.test)[-1]
        for bits in (8, 4)
    ]
    assert noise[0].signal_to_noise > 25
    assert noise[0].signal_to_noise > noise[1].signal_to_noise
    assert noise[0].cosine > noise[1].cosine > 0.9


def test_layers_that_lost_channels_are_left_out(reader: ck.Checkpoint, digits: Digits) -> None:
    small = ck.compress(reader, ck.Recipe(ck.Prune(0.25, pattern="channel", layers=["conv2"])))
    assert [row.name for row in layer_errors(small, digits.test, examples=5)] == ["conv1", "dense", "head"]


def test_the_scan_gives_the_scores_of_single_recipes(reader: ck.Checkpoint, digits: Digits) -> None:
    part = digits.validation.take(500)
    rows = quantization_sensitivity(reader, part, bits=(8, 2))
    assert [(row.name, row.bits) for row in rows] == [
        (n, b) for n in ("conv1", "conv2", "dense", "head") for b in (8, 2)
    ]
    step = ck.Quantize(32, 32, layers={"conv2": {"weights": 2, "compute": "float", "store": "int8"}})
    alone = ck.evaluate(ck.compress(reader, ck.Recipe(step)), part)
    row = next(row for row in rows if (row.name, row.bits) == ("conv2", 2))
    assert (row.accuracy, row.errors) == (alone.accuracy, alone.errors)
    assert row.saved == 64 * 9 * 32 * 30 // 8


def test_a_scan_can_be_ended(reader: ck.Checkpoint, digits: Digits) -> None:
    rows = quantization_sensitivity(reader, digits.validation.take(50), on_progress=lambda done, total: done == 3)
    assert len(rows) == 3
