"""The table of Deep Compression: its rows belong together, and its packed files decode and read digits as it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import compresskit as ck
from compresskit import entropy
from compresskit.evaluation import wilson_interval
from compresskit.litert import model as files
from compresskit.litert.runtime import outputs
from compresskit.training.deep_compression import BIAS_VALUES, STAGES, coded, load_rows, packed, packed_path

PUBLISHED = {"lenet_300_100": (27_000, 158), "lenet5": (44_000, 74)}  # Han, Mao and Dally 2015: bytes, test errors

CONTENT, ROWS = load_rows()
MODELS = sorted({row.model for row in ROWS})


@pytest.mark.parametrize("model", MODELS)
def test_every_run_went_through_all_stages_and_each_made_the_file_smaller(model):
    for seed in {row.seed for row in ROWS if row.model == model}:
        run = [row for row in ROWS if (row.model, row.seed) == (model, seed)]
        assert [row.stage for row in run] == list(STAGES)
        sizes = [row.packed for row in run]
        assert sizes == sorted(sizes, reverse=True)
        assert all(row.packed < row.file for row in run)
    assert set(CONTENT["settings"]) >= set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_the_packed_file_decodes_and_reads_all_test_digits_as_the_table_says(model):
    digits = ck.load_mnist()
    content = packed_path(model).read_bytes()
    tflite = entropy.unpack(content)
    best = min(
        (row for row in ROWS if (row.model, row.stage) == (model, "coded")), key=lambda row: row.validation_errors
    )
    assert (len(content), len(tflite)) == (best.packed, best.file)
    assert packed(tflite) == content
    if digits.complete:
        assert ck.evaluate(ck.Checkpoint(model, tflite), digits.test).errors == best.errors
        assert ck.evaluate(ck.Checkpoint(model, tflite), digits.validation).errors == best.validation_errors
    most_bytes, most_errors = PUBLISHED[model]
    assert best.packed < most_bytes
    fewest = 1 - wilson_interval(10_000 - best.errors, 10_000)[1]
    assert fewest <= most_errors / 10_000, "not worse than the paper's, as far as 10,000 digits can tell"


def test_the_last_file_has_few_biases_and_answers_nearly_the_same():
    model = ck.load_model("lenet5")
    small = coded(model)
    read = files.read(small)
    held = [files.stored(read, tensor) for tensor in read.subgraphs[0].tensors if len(files.shape(tensor)) == 1]
    assert all(len(np.unique(values)) <= BIAS_VALUES for values in held if values.dtype == np.float32)
    images = ck.load_mnist().validation.images[:100]
    np.testing.assert_allclose(outputs(small, images), outputs(model.tflite, images), atol=0.5)
    assert len(small) < model.size


def test_a_file_that_is_not_the_table_is_named(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"points": []}))
    for name in ("x.json", "missing.json"):
        with pytest.raises(ValueError, match=r"not the results of `python -m compresskit.training.deep_compression`"):
            load_rows(tmp_path / name)
