"""Sharing on the file: as many values as asked for, packed and unpacked the same, grids that integers can hold."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import compresskit as ck
from compresskit import entropy, sharing
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.pruned import Pruned, float_weights
from compresskit.recipe import SHARE_METHODS
from compresskit.shared import share, share_array


@pytest.fixture(scope="module")
def reader() -> ck.Checkpoint:
    return ck.load_model("digit_reader")


def edited(checkpoint: ck.Checkpoint, **changes) -> ck.Checkpoint:
    """The model with other weights in some layers."""
    model = files.read(checkpoint.tflite)
    arrays_ = {}
    for site in sites(model):
        if site.name in changes:
            array = files.stored(model, model.subgraphs[0].tensors[site.weights]).copy()
            arrays_[site.weights] = changes[site.name](array).astype(np.float32)
    return ck.Checkpoint("edited", files.replace_constants(checkpoint.tflite, arrays_))


@pytest.mark.parametrize("method", SHARE_METHODS)
def test_a_layer_takes_as_many_values_as_asked_for_and_no_more(reader, method) -> None:
    step = ck.Share(method=method) if method in ("binary", "ternary") else ck.Share(8, method)
    small = ck.compress(reader, ck.Recipe(step))
    for layer in small.layers:
        values = np.unique(small.weights(layer.name))
        assert 1 < len(values) <= step.count, layer.name
    assert small.size == reader.size - 476 or small.size == reader.size, "the file does not shrink; the packed one does"
    assert small.packed_size < reader.size / 8


def test_only_the_layers_named_are_shared_each_in_its_own_way(reader) -> None:
    recipe = ck.Recipe(ck.Share(32, layers=["dense"]), ck.Share(200, layers=["conv1", "conv2"]))
    small = ck.compress(reader, recipe)
    counts = {layer.name: len(np.unique(small.weights(layer.name))) for layer in small.layers}
    assert counts["dense"] == 32 and counts["head"] == 1280 and 100 < counts["conv1"] < counts["conv2"] <= 200


def test_by_channel_is_each_channel_by_itself(reader) -> None:
    dense = float_weights(reader.tflite)["dense"]
    small = ck.compress(reader, ck.Recipe(ck.Share(4, granularity="channel", layers=["dense"])))
    for row in (0, 77):
        alone = sharing.kmeans(dense[row], 4, keep_zero=True)
        np.testing.assert_array_equal(small.weights("dense")[row], alone.decode())


def test_what_was_pruned_stays_pruned(reader) -> None:
    pruned = ck.compress(reader, ck.Recipe(ck.Prune(0.8)))
    for method in ("kmeans", "exact", "uniform", "ternary", "powers"):
        both = ck.compress(reader, ck.Recipe(ck.Prune(0.8), ck.Share(method=method)))
        for layer in pruned.layers:
            gone = pruned.weights(layer.name) == 0
            assert not both.weights(layer.name)[gone].any(), (method, layer.name)
            if method in ("kmeans", "exact"):
                assert both.weights(layer.name)[~gone].all()


def test_the_start_and_the_seed_reach_the_method(reader) -> None:
    found = {
        start: ck.compress(reader, ck.Recipe(ck.Share(8, start=start))).digest
        for start in ("linear", "density", "k-means++")
    }
    assert len(set(found.values())) == 3
    again = [ck.compress(reader, ck.Recipe(ck.Share(8, start="k-means++", seed=seed))).digest for seed in (0, 1)]
    assert again[0] == found["k-means++"] != again[1]


DENSE_IN_TWO = ck.Quantize(8, 32, layers={"dense": {"weights": 2}})
INT2 = ["int8", "int8", "int2", "int8"]


@pytest.mark.parametrize(
    ("step", "quantize", "kinds"),
    [
        (ck.Share(method="uniform"), ck.Quantize(4, 32), ["int4"] * 4),
        (ck.Share(method="uniform", granularity="channel"), ck.Quantize(4, 32), ["int4"] * 4),
        (ck.Share(4, "uniform", layers=["dense"]), DENSE_IN_TWO, INT2),
        (ck.Share(method="ternary", layers=["dense"]), DENSE_IN_TWO, INT2),
        (ck.Share(method="binary", granularity="channel", layers=["dense"]), DENSE_IN_TWO, INT2),
        (ck.Share(method="ternary"), ck.Quantize(granularity="tensor"), ["int8"] * 4),
    ],
)
def test_values_on_a_uniform_grid_are_stored_as_integers_without_loss(reader, step, quantize, kinds) -> None:
    digits = ck.load_mnist()
    shared = ck.compress(reader, ck.Recipe(step))
    small = ck.compress(reader, ck.Recipe(step, quantize), digits.train)
    assert [layer.dtype for layer in small.layers] == kinds
    for name in step.layers or ("conv1", "conv2", "dense", "head"):
        want = shared.weights(name)
        np.testing.assert_allclose(small.weights(name), want, atol=1e-5 * np.abs(want).max())


def test_a_codebook_of_channels_is_not_forced_on_one_scale(reader) -> None:
    small = ck.compress(
        reader, ck.Recipe(ck.Share(method="ternary", granularity="channel"), ck.Quantize(8, 32, granularity="tensor"))
    )
    assert all(layer.dtype == "int8" for layer in small.layers)


@pytest.mark.parametrize("method", SHARE_METHODS)
def test_a_layer_of_zeros_and_a_layer_of_one_value_are_shared_exactly(reader, method) -> None:
    odd = edited(reader, dense=lambda w: w * 0, head=lambda w: w * 0 + 0.25)
    small = ck.compress(odd, ck.Recipe(ck.Share(method=method)))
    assert not small.weights("dense").any()
    if method != "uniform":
        assert np.unique(np.abs(small.weights("head"))).tolist() == [0.25]
    assert entropy.unpack(small.pack()) == small.tflite
    digits = ck.load_mnist()
    ck.compress(odd, ck.Recipe(ck.Share(method=method), ck.Quantize()), digits.train)


def test_more_levels_than_weights_change_nothing(reader) -> None:
    small = ck.compress(reader, ck.Recipe(ck.Share(60_000, layers=["conv1", "head"])))
    for name in ("conv1", "head"):
        np.testing.assert_array_equal(small.weights(name), float_weights(reader.tflite)[name])


def test_weights_that_are_not_finite_and_layers_that_are_not_there_are_named(reader) -> None:
    broken = edited(reader, conv2=lambda w: np.where(w == w.max(), np.nan, w))
    with pytest.raises(ValueError, match="layer 'conv2': 1 of its weights are infinite or undefined"):
        ck.compress(broken, ck.Recipe(ck.Share()))
    with pytest.raises(ValueError, match="Share: layer 'dense9' is not in 'digit_reader'; its layers are conv1"):
        ck.compress(reader, ck.Recipe(ck.Share(layers=["dense9"])))
    pruned = edited(reader, dense=lambda w: np.where(np.abs(w) < 0.05, 0, w))
    with pytest.raises(ValueError, match="layer 'dense': levels is 1; with zeros kept, choose at least 2"):
        ck.compress(pruned, ck.Recipe(ck.Share(1)))


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.floats(-4, 4, width=32)),
    st.sampled_from(SHARE_METHODS), st.sampled_from([2, 4, 16]), st.sampled_from(["layer", "channel"]),
)  # fmt: skip
def test_whatever_the_weights_there_are_no_more_values_than_levels(weights, method, levels, granularity) -> None:
    fixed = {"binary": None, "ternary": None, "powers": max(3, levels)}
    step = ck.Share(fixed.get(method, levels), method, granularity=granularity)
    shared = share_array(weights, step)
    decoded = shared.decode()
    assert decoded.shape == weights.shape and np.isfinite(decoded).all()
    rows = decoded if granularity == "channel" else [decoded]
    assert all(len(np.unique(row)) <= step.count for row in rows)
    assert np.abs(decoded - weights).max() <= 2 * np.abs(weights).max() + 1e-6


@pytest.mark.parametrize("recipe", [
    ck.Recipe(), ck.Recipe(ck.Share()), ck.Recipe(ck.Prune(0.9), ck.Share(32)), ck.Recipe(ck.Quantize(4, 32)),
])  # fmt: skip
def test_a_packed_file_is_the_same_file(reader, recipe) -> None:
    small = ck.compress(reader, recipe)
    packed = small.pack()
    again = entropy.unpack(packed)
    assert again == small.tflite and hashlib.sha256(again).hexdigest() == small.digest
    assert small.packed_size == len(packed) < small.deflated_size
    assert small.pack() is packed, "computed once"


def test_sharing_makes_the_packed_file_smaller_by_the_entropy(reader) -> None:
    shared = share(Pruned(reader.tflite, {}), (ck.Share(),))
    floor = sum(
        entropy.entropy(entropy.count_symbols(each.codes)) * each.codes.size / 8 for each in shared.layers.values()
    )
    packed = ck.compress(reader, ck.Recipe(ck.Share())).packed_size
    assert floor < packed < 1.02 * floor + 2500
