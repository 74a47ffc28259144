"""Pruning while training: TFMOT's masks, zeros to the last bit, channels cut exactly, and tickets that are rewound."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import compresskit as ck
from compresskit.litert.gradients import weight_gradients
from compresskit.litert.runtime import outputs
from compresskit.litert.surgery import remove_channels, zero_channels
from compresskit.pruned import float_weights, kept_channels, layer_sites, prune, sample_of
from compresskit.pruning.schedules import Constant, OneShot, Polynomial

pytestmark = pytest.mark.train

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")
tfmot = pytest.importorskip("tensorflow_model_optimization")

from compresskit.training import prune as room  # noqa: E402
from compresskit.training.architectures import _Seeds  # noqa: E402
from compresskit.training.channels import cut  # noqa: E402
from compresskit.training.convert import to_checkpoint, to_keras  # noqa: E402
from compresskit.training.fit import fit  # noqa: E402
from compresskit.training.masks import Masks, gradients, to_litert  # noqa: E402
from compresskit.training.prune import fine_tune, lottery_ticket, train_pruned  # noqa: E402


@pytest.fixture(scope="module")
def few(digits):
    return replace(digits, train=digits.train.take(1280), validation=digits.validation.take(200))


def tiny(seed=0):
    """A network in which training takes no time: a convolution, a normalization, a depthwise layer, two dense."""
    seeds = _Seeds(seed)
    return tf_keras.Sequential(
        [
            tf_keras.Input((28, 28, 1), name="image"),
            tf_keras.layers.Conv2D(8, 3, strides=4, activation="relu", kernel_initializer=seeds.he(), name="conv"),
            tf_keras.layers.DepthwiseConv2D(3, strides=2, depthwise_initializer=seeds.he(), name="each"),
            tf_keras.layers.BatchNormalization(name="norm"),
            tf_keras.layers.ReLU(name="relu"),
            tf_keras.layers.Flatten(name="flatten"),
            tf_keras.layers.Dense(16, activation="relu", kernel_initializer=seeds.he(), name="dense"),
            tf_keras.layers.Dense(10, kernel_initializer=seeds.glorot(), name="head"),
        ],
        name="tiny",
    )


@pytest.fixture(scope="module")
def small(few):
    """The tiny network, trained a little, so that its normalization is not the identity."""
    model = tiny()
    fit(model, few, epochs=3, learning_rate=0.005)
    return to_checkpoint(model, "tiny")


@pytest.fixture(scope="module")
def small_masks(small):
    return Masks(to_keras(small))


def bits(array):
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def kernels(checkpoint):
    model = to_keras(checkpoint)
    return {layer.name: to_litert(layer.get_weights()[0], layer) for layer in model.layers if layer.name in NAMES}


NAMES = ("conv", "each", "dense", "head")


# -- against TFMOT ------------------------------------------------------------------------------------------------


def test_training_gives_the_masks_that_tfmot_gives(few):
    """Both are trained by the same loop on the same digits: one step apart, the masks would differ.

    TFMOT's wrapper counts the first step as 1. Its blocks are of matrices, input channels first.
    """
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 1, 13, frequency=2)
    options = {"conv": {}, "dense": {"block_size": (4, 1)}, "head": {"sparsity_m_by_n": (2, 4)}}

    def wrapped(layer):
        if layer.name not in options:
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule, **options[layer.name])

    theirs = tf_keras.models.clone_model(tiny(3), clone_function=wrapped)
    wrappers = [layer for layer in theirs.layers if hasattr(layer, "pruning_step")]

    def at(step):
        for layer in wrappers:
            layer.pruning_step.assign(step)

    at(0)
    settings = {"epochs": 1, "batch_size": 64, "learning_rate": 0.01, "augment": "none", "seed": 1}
    fit(theirs, few, **settings, after_step=at)
    steps = [
        ck.Prune(0.8, layers=("conv",)),
        ck.Prune(0.8, pattern="block 1x4", layers=("dense",)),
        ck.Prune(pattern="2:4", layers=("head",)),
    ]
    ours = train_pruned(to_checkpoint(tiny(3), "tiny"), steps, few, **settings, schedule=Polynomial(0.0, 0.8, 0, 12, 2))
    assert ours.steps == 20
    for layer, sparsity in zip(wrappers, (0.8, 0.8, 0.5), strict=True):
        mask = to_litert(layer.pruning_vars[0][1].numpy(), layer.layer)
        kernel = kernels(ours.checkpoint)[layer.layer.name]
        np.testing.assert_array_equal(kernel != 0, mask != 0)
        assert 1 - mask.mean() == pytest.approx(sparsity, abs=0.01)
        np.testing.assert_allclose(kernel, to_litert(layer.layer.kernel.numpy(), layer.layer) * mask, atol=2e-4)


# -- zeros --------------------------------------------------------------------------------------------------------


def test_zeros_stay_zeros_to_the_last_bit_in_both_files(few, small):
    pruned = train_pruned(small, ck.Prune(0.75), few, epochs=1)
    assert pruned.sparsity == pytest.approx(0.75, abs=0.005)
    before = kernels(pruned.checkpoint)
    tuned = fine_tune(pruned.checkpoint, few, epochs=2, learning_rate=0.01)
    after, stored = kernels(tuned.checkpoint), float_weights(tuned.checkpoint.tflite)
    for name in NAMES:
        gone = before[name] == 0
        assert gone.mean() == pytest.approx(0.75, abs=0.01)
        assert not bits(after[name])[gone].any(), "not -0.0 either"
        assert not stored[name][gone].any(), "the normalization is folded in, and zero stays zero"
        assert np.count_nonzero(stored[name]) == np.count_nonzero(~gone)
        assert not np.array_equal(after[name], before[name]), "the others are trained"
    assert tuned.sparsity == pruned.sparsity and tuned.turns == ()
    free = to_keras(pruned.checkpoint)
    fit(free, few, epochs=1)
    assert np.mean(free.get_layer("dense").get_weights()[0] == 0) < 0.5, "without masks they would not stay"
    images = few.test.images[:40]
    expected = to_keras(tuned.checkpoint)(images[..., None].astype(np.float32) / 255, training=False).numpy()
    assert np.allclose(outputs(tuned.checkpoint.tflite, images), expected, atol=1e-4)


@pytest.mark.parametrize("importance", ["magnitude", "activation", "gradient", "random"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_first_mask_is_the_one_that_the_slider_makes(few, small, small_masks, importance, scope):
    """On the file the normalization is folded in, in Keras it is not: the same weights have to go all the same."""
    step = ck.Prune(0.6, scope, importance=importance)
    sample = sample_of((step,), few.train)
    made = prune(small.tflite, (step,), sample)
    live = {site.name: made.weights[site.weights] != 0 for site in layer_sites(made.base)}
    trained = small_masks.chosen(step, 0.6, sample)
    assert set(trained) == set(live)
    for name in live:
        assert np.mean(trained[name] != live[name]) < 0.003, "equal but for scores that differ in the last bit"


def test_layers_get_sparsities_of_their_own(few, small):
    steps = [ck.Prune(0.25, layers=("conv",)), ck.Prune(pattern="1:4", layers=("dense",))]
    result = train_pruned(small, steps, few, epochs=1, schedule="cosine")
    assert result.layers == pytest.approx({"conv": 0.25, "each": 0.0, "dense": 0.75, "head": 0.0}, abs=0.01)
    dense = kernels(result.checkpoint)["dense"].reshape(16, -1, 4)
    assert (np.count_nonzero(dense, axis=2) <= 1).all()


@pytest.mark.parametrize("schedule", room.SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 20, 1000])
def test_each_schedule_comes_to_the_sparsity_within_the_run(schedule, total):
    plan = room._plan(ck.Prune(0.7), schedule, total, 0.2)
    turns = [step for step in range(total) if plan.prunes_at(step)]
    reached = [plan(step) for step in turns]
    assert reached == sorted(reached) and plan.applied_at(total - 1) == pytest.approx(0.7)
    assert turns[-1] <= 0.6 * total or total < 4, "what is left has time to recover"
    if total == 1000:
        assert {"one-shot": 1, "iterative": 4}.get(schedule, 41) == len(turns)


def test_what_is_sparse_already_does_not_grow_back(few, small):
    model = to_keras(small)
    kernel, bias = model.get_layer("dense").get_weights()
    model.get_layer("dense").set_weights([kernel * (np.arange(kernel.size).reshape(kernel.shape) % 2), bias])
    half = to_checkpoint(model, "tiny")
    assert room._plan(ck.Prune(0.8), None, 100, 0.5)(0) == 0.5
    seen = []
    other = train_pruned(half, ck.Prune(0.5, layers=("head",)), few, epochs=1, on_progress=seen.append)
    assert other.layers["dense"] == pytest.approx(0.5, abs=0.001), "layers that no step names keep their zeros"
    assert seen[-1].sparsity == other.turns[-1][1] == pytest.approx(0.5, abs=0.001)


# -- breaking off -------------------------------------------------------------------------------------------------


def test_a_broken_off_run_goes_on_to_the_same_weights(few, small, tmp_path):
    step, settings = ck.Prune(0.8), {"epochs": 2, "seed": 3}
    whole = train_pruned(small, step, few, **settings)
    cancel, file = threading.Event(), tmp_path / "run.npz"

    def stop(progress):
        if progress.epoch == 2:
            cancel.set()

    stopped = train_pruned(small, step, few, **settings, resume=file, cancel=cancel, on_progress=stop)
    assert stopped.cancelled and len(stopped.history) < 2
    resumed = train_pruned(small, step, few, **settings, resume=file)
    assert not resumed.cancelled
    assert resumed.checkpoint.tflite == whole.checkpoint.tflite
    with pytest.raises(ValueError, match="belongs to a run with other pruning"):
        train_pruned(small, ck.Prune(0.7), few, **settings, resume=file)


# -- channels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digit_reader", "small_student"])
def test_channels_are_cut_from_both_files_alike(name):
    model = ck.load_model(name)
    step = ck.Prune(0.4, pattern="channel")
    smaller = cut(model, (step,))
    kept = kept_channels(model.tflite, step, None)
    images = np.random.default_rng(0).random((20, *model.input_shape), np.float32)
    got = outputs(smaller.tflite, images)
    for file in (remove_channels(model.tflite, kept), zero_channels(model.tflite, kept)):
        assert np.allclose(got, outputs(file, images), atol=1e-5 * np.abs(got).max())
    twin = to_keras(smaller)
    assert np.allclose(got, twin(images, training=False).numpy(), atol=1e-4)
    assert sum(layer.macs for layer in smaller.layers) < 0.55 * sum(layer.macs for layer in model.layers)
    assert smaller.size < 0.6 * model.size


def test_channels_go_through_additions_and_sharing_paths():
    image = tf_keras.Input((12, 12, 2))
    x = tf_keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    branch = tf_keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="second")(x)
    branch = tf_keras.layers.BatchNormalization(name="norm")(branch)
    x = tf_keras.layers.Add(name="sum")([x, branch])
    x = tf_keras.layers.AveragePooling2D()(tf_keras.layers.ReLU()(x))
    x = tf_keras.layers.Dense(5, name="head")(tf_keras.layers.Flatten()(x))
    model = to_checkpoint(tf_keras.Model(image, x, name="residual"), "residual")
    smaller = cut(model, (ck.Prune(0.5, pattern="channel"),))
    assert [layer.shape for layer in smaller.layers] == [(4, 3, 3, 2), (4, 3, 3, 4), (5, 144)]


def test_a_network_is_cut_first_then_pruned_while_it_is_trained(few, small):
    steps = [ck.Prune(0.5, pattern="channel", importance="gradient"), ck.Prune(0.5, layers=("dense",))]
    result = train_pruned(small, steps, few, epochs=1)
    assert [layer.shape[0] for layer in result.checkpoint.layers] == [4, 1, 8, 10]
    assert 0.5 < result.sparsity < 1


# -- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digit_reader", "small_student"])
def test_numpys_gradients_are_those_of_the_tape(digits, name):
    model, sample = ck.load_model(name), digits.train.take(60)
    found, keras = weight_gradients(model.tflite, sample), to_keras(model)
    masks = Masks(keras)
    theirs = gradients(keras, [layer.name for layer in model.layers], sample)
    for each in masks.weights:
        expected = theirs[each.name] * to_litert(each.values.numpy(), each.layer)
        got = found[each.name] * masks.folded(each.name)
        assert np.abs(got - expected).max() < 1e-3 * np.abs(expected).max() + 1e-9, each.name


# -- tickets ------------------------------------------------------------------------------------------------------


def test_a_ticket_is_rewound_to_the_first_weights_and_its_masks_are_nested(few, monkeypatch):
    starts, real = [], room.fit

    def watched(model, *arguments, **settings):
        starts.append({layer.name: layer.get_weights()[0].copy() for layer in model.layers if layer.name in NAMES})
        return real(model, *arguments, **settings)

    monkeypatch.setattr(room, "fit", watched)
    ticket = lottery_ticket(tiny, few, sparsity=0.75, rounds=2, seed=5, learning_rate=0.005)
    assert [each.sparsity for each in ticket.rounds] == pytest.approx([0, 0.5, 0.75], abs=0.01)
    assert [each.control for each in ticket.rounds] == [None] * 3 and not ticket.cancelled
    first, middle, last = starts
    for name in NAMES:
        for later in (middle, last):
            kept = later[name] != 0
            np.testing.assert_array_equal(later[name][kept], first[name][kept])
        assert not (last[name] != 0)[middle[name] == 0].any()
    final = kernels(ticket.checkpoint)
    for name in NAMES:
        np.testing.assert_array_equal(final[name] != 0, ticket.masks[name])


def test_a_search_goes_on_where_it_was_broken_off_and_counts_its_controls(few, tmp_path):
    settings = {"sparsity": 0.5, "rounds": 1, "control": "reinitialized", "resume": tmp_path / "search.npz"}
    cancel, seen = threading.Event(), []
    stopped = lottery_ticket(
        tiny, few, **settings, cancel=cancel, on_progress=lambda progress: progress.epoch == 2 and cancel.set()
    )
    assert stopped.cancelled and len(stopped.rounds) == 1
    resumed = lottery_ticket(tiny, few, **settings, on_progress=seen.append)
    assert resumed.rounds[0] == stopped.rounds[0] and not resumed.cancelled
    assert resumed.rounds[1].control is not None
    assert (seen[-1].epoch, seen[-1].epochs) == (3, 3) and seen[-1].seconds_left == 0


def test_controls_have_as_many_weights_and_another_luck():
    kept = {"a": np.arange(100).reshape(10, 10) % 3 == 0, "b": np.arange(20) < 5}
    drawn = room._shuffled(kept, 1)
    for name in kept:
        assert np.count_nonzero(drawn[name]) == np.count_nonzero(kept[name])
        assert not np.array_equal(drawn[name], kept[name])


# -- refused ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    """Fail a test that gets as far as training."""

    def started(*arguments, **settings):
        raise AssertionError("training has started")

    monkeypatch.setattr(room, "fit", started)


@pytest.mark.parametrize(
    ("step", "schedule", "sentence"),
    [
        ([], None, "step: there is none"),
        (ck.Prune(0.5), "linear", "schedule is 'linear': choose one of 'polynomial'"),
        (
            ck.Prune(0.5, layers=("conv9",)),
            None,
            "layer 'conv9' is not in 'tiny'; its layers are conv, each",
        ),
        (ck.Prune(0.5, pattern="channel"), "cosine", "channels are cut out before the training begins"),
        (ck.Prune(0.99, pattern="channel"), None, "removes every one of the 8 channels"),
        (ck.Prune(pattern="2:4"), None, "layer 'conv': pattern 2:4 does not divide axis -1"),
        ([ck.Prune(0.5), ck.Prune(0.6, layers=("dense",))], None, "layers are in more than one step"),
        ([ck.Prune(0.5, layers=("head",)), ck.Prune(0.6, layers=("head",))], None, "layer 'head' is in more than one"),
        (ck.Prune(0.5), Polynomial(0, 0.5, 0, 900), "comes to a sparsity of .* in the 20 steps of this run"),
        (ck.Prune(0.5), OneShot(0.6), "comes to a sparsity of 0.6 in the 20 steps"),
        (
            [ck.Prune(0.5, layers=("head",)), ck.Prune(0.6, layers=("conv",))],
            Constant(0.5),
            "asks for 0.6",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_training(few, small, step, schedule, sentence, no_training):
    with pytest.raises(ValueError, match=sentence):
        train_pruned(small, step, few, schedule=schedule, epochs=1, batch_size=64)


def test_models_and_searches_that_cannot_be_are_refused(few, small, no_training):
    with pytest.raises(ValueError, match=r"was made from a \.tflite file"):
        train_pruned(replace(small, keras=None), ck.Prune(0.5), few)
    with pytest.raises(ValueError, match="rounds is 0"):
        lottery_ticket(tiny, few, rounds=0)
    with pytest.raises(ValueError, match="control is 'other'"):
        lottery_ticket(tiny, few, control="other")
    separable = tf_keras.Sequential(
        [
            tf_keras.Input((28, 28, 1)),
            tf_keras.layers.SeparableConv2D(4, 3, strides=4, name="both"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(10, name="head"),
        ]
    )
    with pytest.raises(ValueError, match=r"is a .*: pruning while training covers Conv2D.*layers="):
        train_pruned(to_checkpoint(separable, "separable"), ck.Prune(0.5), few)
