"""Quantization-aware training: the rounding is the file's, the gradient passes, and what was trained is what ships."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import compresskit as ck
from compresskit.litert.runtime import outputs
from compresskit.quantization.affine import fake_quantize
from compresskit.quantization.ranges import weight_grid

pytestmark = pytest.mark.train

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")
tfmot = pytest.importorskip("tensorflow_model_optimization")

from compresskit.training import quantize as room  # noqa: E402
from compresskit.training.architectures import build  # noqa: E402
from compresskit.training.convert import to_checkpoint, to_keras  # noqa: E402
from compresskit.training.fit import fit  # noqa: E402
from compresskit.training.quantize import convert_quantized, round_straight_through, train_quantized  # noqa: E402


@pytest.fixture(scope="module")
def few(digits):
    return replace(digits, train=digits.train.take(2000), validation=digits.validation.take(500))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("per_channel", [True, False])
def test_rounding_is_that_of_the_file_and_of_tensorflow(bits, per_channel):
    w = np.random.default_rng(bits).normal(0, 0.1, (5, 40)).astype(np.float32)
    w[2] *= 300
    ours = round_straight_through(tf.constant(w.T), bits, (0,) if per_channel else None).numpy().T
    grid = weight_grid(w, bits, axis=0 if per_channel else None)
    assert np.allclose(ours, fake_quantize(w, grid), rtol=1e-6, atol=0)
    largest = np.abs(w).max(axis=1) if per_channel else np.full(5, np.abs(w).max())
    theirs = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        w.T, -largest, largest, num_bits=bits, narrow_range=True
    )
    off = np.abs(ours - theirs.numpy().T) / (largest / (2 ** (bits - 1) - 1))[:, None]
    assert np.mean(off > 1e-3) < 0.02  # they differ where a weight lies half way between two steps


def test_the_gradient_passes_as_if_nothing_were_rounded():
    w = tf.Variable([[0.3, -0.9], [0.1, 0.5]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(round_straight_through(w, 2, None) * [[1.0, 2.0], [3.0, 4.0]])
    assert tape.gradient(loss, w).numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_training_mends_what_rounding_broke_and_ships_its_own_weights(few):
    model, step = ck.load_model("lenet_300_100"), ck.Quantize(weights=3, granularity="tensor")
    broken = ck.evaluate(ck.compress(model, ck.Recipe(step), few.train), few.test).accuracy
    result = train_quantized(model, step, few, epochs=3, learning_rate=0.001)
    mended = ck.evaluate(result.compressed, few.test).accuracy
    assert mended > broken + 0.02
    assert not result.cancelled
    assert len(result.history) == 3
    assert result.agreement > 0.95
    keras = to_keras(result.checkpoint)
    for layer in result.checkpoint.layers:
        kernel = keras.get_layer(layer.name).kernel.numpy()
        assert len(np.unique(kernel)) <= 7
        assert np.allclose(result.compressed.weights(layer.name), kernel.T, rtol=1e-5, atol=0)
    expected = keras(few.test.images[:50, :, :, None].astype(np.float32) / 255, training=False).numpy()
    assert np.allclose(outputs(result.checkpoint.tflite, few.test.images[:50]), expected, atol=1e-3)


def test_each_layer_is_rounded_as_its_own_settings_say(few):
    step = ck.Quantize(
        weights=8, skip=("conv",), layers={"block2_depthwise": {"weights": 5}, "block4_pointwise": {"weights": 3}}
    )
    result = train_quantized(ck.load_model("small_student"), step, few, epochs=1)
    keras = to_keras(result.checkpoint)
    assert not [layer for layer in keras.layers if type(layer).__name__ == "BatchNormalization"]
    levels = {}
    for name in ("conv", "block1_pointwise", "block2_depthwise", "block4_pointwise"):
        kernel = keras.get_layer(name).get_weights()[0]
        channels = kernel.reshape(-1, kernel.shape[2] if "depthwise" in name else kernel.shape[3]).T
        levels[name] = max(len(np.unique(np.rint(row / np.abs(row).max() * 1e6))) for row in channels)
    assert levels["block4_pointwise"] <= 7
    for name, steps in (("block2_depthwise", 15), ("block4_pointwise", 3)):
        kernel = keras.get_layer(name).get_weights()[0]
        axes = (0, 1) if "depthwise" in name else (0, 1, 2)
        multiples = kernel / np.abs(kernel).max(axis=axes, keepdims=True) * steps
        assert np.abs(multiples - np.rint(multiples)).max() < 1e-4
    kept = keras.get_layer("conv").get_weights()[0]
    multiples = kept / np.abs(kept).max(axis=(0, 1, 2), keepdims=True) * 127
    assert np.abs(multiples - np.rint(multiples)).max() > 0.1
    stored = {layer.name: layer.dtype for layer in result.compressed.layers}
    assert (stored["conv"], stored["block2_depthwise"], stored["head"]) == ("float32", "int8", "int8")


def test_a_broken_off_run_goes_on_to_the_same_file(few, tmp_path):
    model, step, settings = ck.load_model("lenet_300_100"), ck.Quantize(weights=4), {"epochs": 2, "seed": 3}
    whole = train_quantized(model, step, few, **settings)
    cancel = threading.Event()
    stopped = train_quantized(
        model,
        step,
        few,
        **settings,
        resume=tmp_path / "run.npz",
        cancel=cancel,
        on_progress=lambda progress: cancel.set(),
    )
    assert stopped.cancelled
    assert stopped.compressed.tflite != whole.compressed.tflite
    resumed = train_quantized(model, step, few, **settings, resume=tmp_path / "run.npz")
    assert not resumed.cancelled
    assert resumed.compressed.tflite == whole.compressed.tflite


@pytest.fixture
def no_training(monkeypatch):
    """Fail a test that gets as far as training."""

    def started(*arguments, **settings):
        raise AssertionError("training has started")

    monkeypatch.setattr(room, "fit", started)


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (ck.Quantize(weights=32, activations=32), "no layer has weights of 8 bits or fewer"),
        (ck.Quantize(layers={"conv9": {"weights": 4}}), "layer 'conv9' is not in 'digit_reader'; its layers are conv1"),
        (ck.Quantize(weights=8, activations=16), "layer 'conv1': activations of 16 bits lose nothing"),
        (
            ck.Quantize(activations=32, skip=("conv1", "conv2"), weights=4, granularity="block32"),
            "layer 'dense': granularity is 'block32'",
        ),
        (ck.Quantize(weights=2, activations=32), "layer 'conv1'"),  # the engine knows that this computes nonsense
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(few, step, sentence, no_training):
    with pytest.raises(ValueError, match=sentence):
        train_quantized(ck.load_model("digit_reader"), step, few)


def test_layers_and_models_that_cannot_be_trained_are_refused_before_training(few, no_training):
    separable = tf_keras.Sequential(
        [
            tf_keras.Input((28, 28, 1)),
            tf_keras.layers.SeparableConv2D(4, 3, strides=4, name="both"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(10, name="head"),
        ]
    )
    with pytest.raises(ValueError, match=r"'both\S* is a .*: quantization-aware training covers Conv2D.*skip="):
        train_quantized(to_checkpoint(separable, "separable"), ck.Quantize(), few)
    with pytest.raises(ValueError, match=r"was made from a \.tflite file"):
        train_quantized(replace(ck.load_model("digit_reader"), keras=None), ck.Quantize(), few)


def test_a_file_that_computes_something_else_is_refused(few, monkeypatch):
    real, calls = room.compress, []

    def exchanged(checkpoint, recipe, calibration):
        calls.append(checkpoint)
        return real(
            checkpoint if len(calls) == 1 else to_checkpoint(build("lenet_300_100"), "other"), recipe, calibration
        )

    monkeypatch.setattr(room, "compress", exchanged)
    with pytest.raises(ValueError, match="computes something else than was trained"):
        train_quantized(ck.load_model("lenet_300_100"), ck.Quantize(), few, epochs=1)


def test_tfmots_own_model_trains_and_converts(few):
    model = tfmot.quantization.keras.quantize_model(to_keras(ck.load_model("lenet_300_100")))
    fit(model, few, epochs=1, learning_rate=0.0003)
    tflite = convert_quantized(model)
    images = few.test.images[:500]
    expected = model(images[..., None].astype(np.float32) / 255, training=False).numpy().argmax(axis=1)
    assert np.mean(outputs(tflite, images).argmax(axis=1) == expected) > 0.98
    assert np.mean(expected == few.test.labels[:500]) > 0.95
    assert len(tflite) < 0.3 * ck.load_model("lenet_300_100").size
