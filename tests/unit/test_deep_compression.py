"""The table of Deep Compression: its rows belong together, and its packed files decode and read digits as it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import compresskit as ck
from compresskit import entropy
from compresskit.litert import model as files
from compresskit.litert.runtime import outputs
from compresskit.training.deep_compression import (
    BIAS_VALUES,
    SETTINGS,
    STAGES,
    bfloat16,
    coded,
    load_rows,
    packed,
    packed_path,
)

PUBLISHED = {  # bytes, misread test digits
    ("accurate", "lenet_300_100"): (27_000, 158),  # Han, Mao and Dally 2015
    ("accurate", "lenet5"): (44_000, 74),
    ("smallest", "lenet_300_100"): (8_560, 190),  # Oktay and others 2020
    ("smallest", "lenet5"): (2_840, 100),
}
CONTENT, ROWS = load_rows()


def last_of(aim, model):
    """Give the last stage of each seed."""
    return [row for row in ROWS if (row.aim, row.model, row.stage) == (aim, model, "coded")]


@pytest.mark.parametrize(("aim", "model"), PUBLISHED)
def test_every_run_went_through_all_stages_and_each_made_the_file_smaller(aim, model):
    seeds = {row.seed for row in last_of(aim, model)}
    assert len(seeds) == 3
    for seed in seeds:
        run = [row for row in ROWS if (row.aim, row.model, row.seed) == (aim, model, seed)]
        assert [row.stage for row in run] == list(STAGES)
        sizes = [row.packed for row in run]
        assert sizes == sorted(sizes, reverse=True)
        assert all(row.packed < row.file for row in run)
    assert CONTENT["settings"][aim][model]["levels"] == SETTINGS[aim][model].levels


@pytest.mark.parametrize(("aim", "model"), PUBLISHED)
def test_every_seed_is_better_than_what_was_published(aim, model):
    most_bytes, most_errors = PUBLISHED[aim, model]
    assert all(row.packed < most_bytes and row.errors <= most_errors for row in last_of(aim, model))


@pytest.mark.parametrize(("aim", "model"), PUBLISHED)
def test_the_packed_file_decodes_and_reads_all_test_digits_as_the_table_says(aim, model):
    digits = ck.load_mnist()
    content = packed_path(aim, model).read_bytes()
    tflite = entropy.unpack(content)
    best = min(last_of(aim, model), key=lambda row: row.validation_errors)
    assert (len(content), len(tflite)) == (best.packed, best.file)
    assert packed(tflite) == content
    if digits.complete:
        assert ck.evaluate(ck.Checkpoint(model, tflite), digits.test).errors == best.errors
        assert ck.evaluate(ck.Checkpoint(model, tflite), digits.validation).errors == best.validation_errors


def test_the_last_file_has_few_biases_and_answers_nearly_the_same():
    model = ck.load_model("lenet5")
    small = coded(model)
    read = files.read(small)
    held = [files.stored(read, tensor) for tensor in read.subgraphs[0].tensors if len(files.shape(tensor)) == 1]
    assert all(len(np.unique(values)) <= BIAS_VALUES for values in held if values.dtype == np.float32)
    images = ck.load_mnist().validation.images[:100]
    np.testing.assert_allclose(outputs(small, images), outputs(model.tflite, images), atol=0.5)
    assert len(small) < model.size


def test_bfloat16_is_tensorflows():
    import tensorflow as tf

    values = np.concatenate([np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-30, 20).repeat(20), [0.0]])
    expected = tf.cast(tf.cast(values.astype(np.float32), tf.bfloat16), tf.float32).numpy()
    np.testing.assert_array_equal(bfloat16(values), expected)
    np.testing.assert_array_equal(bfloat16(-values), -expected)


def test_a_file_that_is_not_the_table_is_named(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"points": []}))
    for name in ("x.json", "missing.json"):
        with pytest.raises(ValueError, match=r"not the results of `python -m compresskit.training.deep_compression`"):
            load_rows(tmp_path / name)
