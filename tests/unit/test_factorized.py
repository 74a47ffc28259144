"""Low rank on the file: a graph with thinner layers computes what the products of its layers say."""

from __future__ import annotations

import numpy as np
import pytest
from float_networks import FloatNetwork
from hypothesis import given, settings
from hypothesis import strategies as st

import compresskit as ck
from compresskit.factorized import factorize, spectrum
from compresskit.litert.inspect import layers
from compresskit.litert.runtime import outputs
from compresskit.litert.splice import Part, replace_layers
from compresskit.litert.verify import check_same
from compresskit.lowrank import Factors, break_even_rank
from compresskit.pruned import float_weights


@pytest.fixture(scope="module")
def reader() -> ck.Checkpoint:
    return ck.load_model("digit_reader")


def names(small: ck.Compressed) -> list[str]:
    return [layer.name for layer in small.layers]


def test_a_dense_layer_becomes_two_and_the_head_stays(reader) -> None:
    small = ck.compress(reader, ck.Recipe(ck.Factorize(16)))
    assert names(small) == ["conv1", "conv2", "dense_in", "dense_out", "head"], "16 is more than the head can have"
    rows = {layer.name: layer for layer in small.layers}
    assert rows["dense_in"].shape == (16, 3136) and rows["dense_out"].shape == (128, 16)
    assert rows["dense_in"].macs + rows["dense_out"].macs == 16 * (3136 + 128)
    dense = float_weights(reader.tflite)["dense"]
    u, s, vt = np.linalg.svd(dense.astype(np.float64), full_matrices=False)
    product = small.weights("dense_out") @ small.weights("dense_in")
    np.testing.assert_allclose(product, (u[:, :16] * s[:16]) @ vt[:16], atol=2e-6)
    assert reader.size - small.size == pytest.approx(4 * (128 * 3136 - 16 * (128 + 3136)), abs=2000)


@pytest.mark.parametrize("convolutions", ["tucker2", "spatial"])
@pytest.mark.parametrize("model", ["digit_reader", "lenet5"])  # padded, and not
def test_at_full_rank_the_file_answers_as_before(model, convolutions) -> None:
    reader = ck.load_model(model)
    digits = ck.load_mnist().test.take(200)
    step = ck.Factorize(energy=1.0, convolutions=convolutions, layers=["conv1", "conv2", "dense", "head"])
    small = ck.compress(reader, ck.Recipe(step))
    assert len(names(small)) == (10 if convolutions == "tucker2" else 8)
    np.testing.assert_allclose(outputs(small.tflite, digits.images), outputs(reader.tflite, digits.images), atol=2e-4)


def test_energy_and_budget_say_how_far_to_go(reader) -> None:
    whole = float_weights(reader.tflite)["dense"]
    squares = np.linalg.svd(whole.T.astype(np.float64), compute_uv=False) ** 2
    least = int(np.argmax(np.cumsum(squares) >= 0.6 * squares.sum())) + 1
    found = factorize(reader.tflite, (ck.Factorize(energy=0.6),)).pieces["dense"]
    assert isinstance(found, Factors) and found.rank == least
    small = ck.compress(reader, ck.Recipe(ck.Factorize(budget=0.2)))
    dense = sum(int(np.prod(row.shape)) for row in small.layers if row.op == "FULLY_CONNECTED")
    assert 0.19 < dense / (whole.size + 1280) <= 0.2
    for convolutions in ("tucker2", "spatial"):
        small = ck.compress(reader, ck.Recipe(ck.Factorize(budget=0.4, convolutions=convolutions)))
        assert sum(int(np.prod(row.shape)) for row in small.layers) < 0.45 * 421_408


def test_the_spectrum_is_numpys(reader) -> None:
    dense = float_weights(reader.tflite)["dense"].astype(np.float64)
    np.testing.assert_allclose(
        spectrum(reader.tflite, "dense"), np.linalg.svd(dense, compute_uv=False), rtol=1e-9, atol=1e-7
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 2]), st.sampled_from(["tucker2", "spatial"]), st.integers(1, 9))
def test_any_convolution_cut_computes_the_product_of_its_parts(seed, stride, convolutions, rank) -> None:
    network = FloatNetwork((9, 8, 3), seed)
    first = network.conv(network.input, 6, size=3, stride=stride, activation="relu")
    tflite = network.tflite(network.dense(network.flatten(first), 4))
    names_ = [layer.name for layer in layers(tflite)]
    step = ck.Factorize(rank, convolutions=convolutions, layers=names_[:1])
    cut = factorize(tflite, (step,))
    images = np.random.default_rng(seed).normal(size=(5, 9, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(outputs(cut.base, images), outputs(cut.composed, images), atol=1e-4)


def test_later_steps_name_the_new_layers(reader) -> None:
    digits = ck.load_mnist()
    recipe = ck.Recipe(
        ck.Factorize(16),
        ck.Prune(0.5, layers=["dense_in"]),
        ck.Share(32),
        ck.Quantize(8, 8, layers={"dense_in": {"weights": 4}}, granularity="tensor"),
    )
    small = ck.compress(reader, recipe, digits.train)
    assert {row.name: row.dtype for row in small.layers}["dense_in"] == "int4"
    assert {row.name: row.sparsity for row in small.layers}["dense_in"] >= 0.5
    with pytest.raises(ValueError, match=r"Prune: layer 'dense' is cut into thinner ones by Factorize.*dense_in"):
        ck.compress(reader, ck.Recipe(ck.Factorize(16), ck.Prune(0.5, layers=["dense"])))
    assert ck.compress(reader, ck.Recipe(ck.Prune(0.5, pattern="channel"), ck.Factorize(8))).size < small.size * 3


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (ck.Factorize(200, layers=["dense"]), "layer 'dense': rank is 200; choose from 1 to 128"),
        (ck.Factorize(11, layers=["head"]), "layer 'head': rank is 11; choose from 1 to 10"),
        (ck.Factorize(500), "with rank=500 no layer would have fewer weights"),
        (ck.Factorize(energy=1.0), "with energy=1.0 no layer would have fewer weights"),
        (ck.Factorize(4, layers=["conv1"]), "layer 'conv1' is a CONV_2D, which stays as it is; choose convolutions="),
        (ck.Factorize(4, layers=["nowhere"]), "Factorize: layer 'nowhere' is not in 'digit_reader'"),
        (ck.Factorize(budget=0.001), "budget is 0.001: parameters is 402, but rank 1 in every layer"),
        (ck.Factorize(budget=0.0001, convolutions="tucker2"), "budget is 0.0001"),
    ],
)
def test_what_cannot_be_cut_is_said(reader, step, words) -> None:
    with pytest.raises(ValueError, match=words):
        ck.compress(reader, ck.Recipe(step))


def test_a_depthwise_convolution_is_left_and_named() -> None:
    student = ck.load_model("small_student")
    depthwise = next(layer.name for layer in student.layers if layer.op == "DEPTHWISE_CONV_2D")
    with pytest.raises(ValueError, match=f"layer '{depthwise}' is a DEPTHWISE_CONV_2D, which stays as it is; leave it"):
        ck.compress(student, ck.Recipe(ck.Factorize(1, convolutions="spatial", layers=[depthwise])))


def test_beyond_break_even_a_layer_is_left_whole_unless_it_is_named(reader) -> None:
    edge = break_even_rank(128, 3136)
    assert "dense_in" in names(ck.compress(reader, ck.Recipe(ck.Factorize(edge))))
    with pytest.raises(ValueError, match="fewer weights"):
        ck.compress(reader, ck.Recipe(ck.Factorize(edge + 1)))
    larger = ck.compress(reader, ck.Recipe(ck.Factorize(edge + 1, layers=["dense"])))
    assert larger.size > reader.size - 1000


def test_a_layer_of_zeros_has_rank_one(reader) -> None:
    from test_shared import edited

    empty = edited(reader, dense=lambda w: w * 0)
    small = ck.compress(empty, ck.Recipe(ck.Factorize(energy=0.9, layers=["dense"])))
    assert small.weights("dense_in").shape == (1, 3136) and not small.weights("dense_in").any()


def test_parts_that_do_not_follow_each_other_are_refused(reader) -> None:
    thin = np.zeros((4, 3136), np.float32)
    with pytest.raises(ValueError, match=r"layer 'dense' of shape \(128, 3136\) cannot become layers of shapes"):
        replace_layers(reader.tflite, {"dense": [Part("in", thin), Part("out", np.zeros((128, 5), np.float32))]})
    with pytest.raises(ValueError, match="layer 'x' is not in this model"):
        replace_layers(reader.tflite, {"x": [Part("in", thin)]})


def test_a_file_that_computes_something_else_is_refused(reader) -> None:
    cut = factorize(reader.tflite, (ck.Factorize(8),))
    images = np.random.default_rng(0).random((8, 28, 28, 1), np.float32)
    check_same(cut.base, cut.composed, images)
    with pytest.raises(ValueError, match="computes something else than the products of its layers"):
        check_same(cut.base, reader.tflite, images)
