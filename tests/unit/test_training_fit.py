"""Training: that it learns, can be watched, stopped and gone on with, and refuses what cannot be trained."""

from __future__ import annotations

import math
import threading
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit.data import Digits, Split

pytestmark = pytest.mark.train

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")

from compresskit.training import fit as fit_room  # noqa: E402
from compresskit.training.augment import draw, transform  # noqa: E402
from compresskit.training.fit import AdamW, TrainingDiverged, fit, learning_rate_at  # noqa: E402


@pytest.fixture(scope="module")
def few(digits):
    """A few hundred real digits: 3 steps of 100 an epoch."""
    return replace(
        digits, train=digits.train.take(300), validation=digits.validation.take(100), test=digits.test.take(100)
    )


def network(*, normalized: bool = False, softmax: bool = False, seed: int = 0):
    """A network small enough to be trained in a blink, with everything that has state: moments, running means."""
    layers = tf_keras.layers
    image = tf_keras.Input((28, 28, 1))
    x = layers.MaxPooling2D(2)(image)
    x = layers.Conv2D(4, 3, kernel_initializer=tf_keras.initializers.HeNormal(seed=seed))(x)
    if normalized:
        x = layers.BatchNormalization()(x)
    x = layers.Flatten()(layers.ReLU()(x))
    x = layers.Dense(
        10,
        activation="softmax" if softmax else None,
        kernel_initializer=tf_keras.initializers.GlorotUniform(seed=seed + 1),
    )(x)
    return tf_keras.Model(image, x, name="small")


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_it_learns_to_read(digits):
    some = replace(digits, train=digits.train.take(4000), validation=digits.validation.take(500))
    result = fit(network(), some, epochs=4, batch_size=64, learning_rate=0.01)
    assert result.history[-1].validation_accuracy > 0.85  # chance is 0.1
    assert result.history[-1].loss < result.history[0].loss
    assert not result.cancelled
    assert result.steps == 4 * math.ceil(4000 / 64)


def test_probabilities_and_logits_are_the_same_training(few):
    logits, probabilities = network(), network(softmax=True)
    a = fit(logits, few, epochs=2, batch_size=100).history
    b = fit(probabilities, few, epochs=2, batch_size=100).history
    assert [epoch.loss for epoch in a] == pytest.approx([epoch.loss for epoch in b], rel=1e-4)


def test_validation_is_what_keras_measures(few):
    model = network()
    last = fit(model, few, epochs=1, batch_size=100).history[-1]
    model.compile(
        loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["sparse_categorical_accuracy"]
    )
    images = few.validation.images[..., None].astype(np.float32) / 255
    loss, accuracy = model.evaluate(images, few.validation.labels, verbose=0)
    assert last.validation_loss == pytest.approx(loss, rel=1e-5)
    assert last.validation_accuracy == pytest.approx(accuracy)


def test_the_time_left_is_not_that_of_compiling(monkeypatch):
    now = 100.0
    monkeypatch.setattr(fit_room.time, "monotonic", lambda: now)
    clock = fit_room._Clock(50.0)  # an earlier sitting took as long for its 10 steps
    now = 130.0
    clock.stepped(11)
    assert clock.left(11, 21) == pytest.approx(80 * 10 / 11)  # one step is all there is to go by
    now = 131.0
    clock.stepped(13)
    assert clock.left(13, 21) == pytest.approx(0.5 * 8)
    assert clock.left(21, 21) == 0


def test_progress_tells_where_the_run_stands(few):
    heard = []
    result = fit(network(), few, epochs=3, batch_size=100, on_progress=heard.append)
    places = [(progress.epoch, progress.step) for progress in heard]
    assert places == sorted(set(places))
    assert places[-1] == (3, 3)
    last = heard[-1]
    assert (last.epochs, last.steps, last.seconds_left) == (3, 3, 0)
    assert last.validation_accuracy == result.history[-1].validation_accuracy
    assert all(0 <= progress.accuracy <= 1 and progress.seconds_left >= 0 for progress in heard)
    assert [progress.seconds for progress in heard] == sorted(progress.seconds for progress in heard)
    with pytest.raises(FrozenInstanceError):
        last.epoch = 1


def test_cancel_from_another_thread_ends_after_the_present_step(few):
    model, cancel, stepped = network(), threading.Event(), threading.Event()
    before = model.get_weights()
    steps, results = [], []

    def after_step(step):
        steps.append(step)
        if step == 4:
            stepped.set()
            cancel.wait()  # the other thread sets it before this step is over

    worker = threading.Thread(
        target=lambda: results.append(fit(model, few, epochs=50, batch_size=100, cancel=cancel, after_step=after_step))
    )
    worker.start()
    assert stepped.wait(120)
    cancel.set()
    worker.join(120)
    assert steps == [1, 2, 3, 4]
    assert results[0].cancelled
    assert results[0].steps == 4
    assert len(results[0].history) == 1
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    assert not all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_cancelled_before_it_began_changes_nothing(few):
    model, cancel = network(), threading.Event()
    before = model.get_weights()
    cancel.set()
    result = fit(model, few, epochs=1, cancel=cancel)
    assert result.cancelled
    assert result.steps == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(("augment", "stop"), [("none", 2), ("shift", 3), ("affine", 7)])
def test_a_cancelled_run_goes_on_as_if_it_had_not_been_cancelled(few, tmp_path, augment, stop):
    settings = {"epochs": 3, "batch_size": 100, "augment": augment, "seed": 5}
    whole, broken, resumed = (network(normalized=True) for _ in range(3))
    expected = fit(whole, few, **settings)
    cancel, file = threading.Event(), tmp_path / "run.npz"
    first = fit(
        broken,
        few,
        **settings,
        checkpoint=file,
        cancel=cancel,
        after_step=lambda step: cancel.set() if step == stop else None,
    )
    assert first.cancelled
    assert first.steps == stop
    steps = []
    second = fit(resumed, few, **settings, checkpoint=file, after_step=steps.append)
    assert steps == list(range(stop + 1, 10))
    assert not second.cancelled
    assert same(whole, resumed)
    assert [replace(epoch, seconds=0) for epoch in second.history] == [
        replace(epoch, seconds=0) for epoch in expected.history
    ]


def test_a_run_that_died_goes_on_from_its_last_epoch(few, tmp_path):
    settings = {"epochs": 3, "batch_size": 100, "seed": 5, "checkpoint": tmp_path / "run.npz"}

    def die(step):
        if step == 5:
            raise RuntimeError("the machine went away")

    with pytest.raises(RuntimeError, match="went away"):
        fit(network(), few, **settings, after_step=die)
    steps = []
    resumed, whole = network(), network()
    fit(resumed, few, **settings, after_step=steps.append)
    assert steps == [4, 5, 6, 7, 8, 9]
    fit(whole, few, epochs=3, batch_size=100, seed=5)
    assert same(whole, resumed)


def test_a_finished_run_is_not_trained_again(few, tmp_path):
    settings = {"epochs": 2, "batch_size": 100, "checkpoint": tmp_path / "run.npz"}
    trained, fresh = network(), network(seed=9)
    first = fit(trained, few, **settings)
    steps = []
    second = fit(fresh, few, **settings, after_step=steps.append)
    assert steps == []
    assert second.history == first.history
    assert same(trained, fresh)


def test_the_checkpoint_of_another_run_is_refused(few, tmp_path):
    file = tmp_path / "run.npz"
    fit(network(), few, epochs=1, batch_size=100, checkpoint=file)
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"other epochs, learning_rate\. Delete it"):
        fit(model, few, epochs=2, batch_size=100, learning_rate=0.1, checkpoint=file)
    with pytest.raises(ValueError, match="other shapes of weights"):
        fit(network(normalized=True), few, epochs=1, batch_size=100, checkpoint=file)
    with pytest.raises(ValueError, match="other digits"):
        fit(model, replace(few, train=few.train.take(200)), epochs=1, batch_size=100, checkpoint=file)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_refused(few, tmp_path, content):
    file = tmp_path / "run.npz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not the file of a training run"):
        fit(network(), few, epochs=1, checkpoint=file)


@pytest.mark.parametrize(
    ("layer", "where"),
    [(-1, "the loss became nan at step 2"), (2, "a weight became infinite or NaN at step 3")],  # behind the rectifier
)
def test_divergence_names_the_step_and_keeps_the_last_sound_weights(few, layer, where):
    model, at_epoch_end = network(), []

    def spoil(step):
        if step == 3:
            at_epoch_end.extend(model.get_weights())
        if step == 4:
            kernel = model.layers[layer].kernel
            kernel.assign(np.full(kernel.shape, np.nan, np.float32))

    with pytest.raises(TrainingDiverged, match=rf"{where} of epoch 2.*learning_rate.*end of epoch 1"):
        fit(model, few, epochs=3, batch_size=100, after_step=spoil)
    assert all(np.array_equal(a, b) for a, b in zip(at_epoch_end, model.get_weights(), strict=True))


def test_the_same_seed_is_the_same_run(few):
    first, second, other = network(), network(), network()
    for model, seed in ((first, 3), (second, 3), (other, 4)):
        fit(model, few, epochs=2, batch_size=100, augment="shift", seed=seed)
    assert same(first, second)
    assert not same(first, other)


def test_weights_that_shrink_are_moved_as_keras_moves_them():
    ours, theirs = network(), network()
    keras = tf_keras.optimizers.AdamW(0.01, weight_decay=0.5)
    keras.exclude_from_weight_decay(var_names=["bias"])
    draw_gradient = np.random.default_rng(0)
    gradients = [[draw_gradient.normal(size=each.shape).astype("f") for each in ours.weights] for _ in range(3)]
    for model, optimizer in ((ours, AdamW(0.01, 0.5)), (theirs, keras)):
        optimizer.build(model.trainable_variables)
        for each in gradients:
            optimizer.apply_gradients([*zip(map(tf.constant, each), model.trainable_variables, strict=True)])
    for mine, keras_has in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_has, rtol=1e-5, atol=1e-6)


def test_a_run_with_shrinking_weights_goes_on_only_as_one(few, tmp_path):
    shrunk, plain, file = network(), network(), tmp_path / "run.npz"
    fit(shrunk, few, epochs=1, batch_size=100, weight_decay=20.0, checkpoint=file)
    fit(plain, few, epochs=1, batch_size=100)
    size = {id(model): np.linalg.norm(model.get_weights()[-2]) for model in (shrunk, plain)}
    assert size[id(shrunk)] < 0.98 * size[id(plain)]
    with pytest.raises(ValueError, match="other weight_decay"):
        fit(network(), few, epochs=1, batch_size=100, weight_decay=10.0, checkpoint=file)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0: give a whole number of at least 1"),
        ({"epochs": 2.5}, r"epochs is 2\.5"),
        ({"epochs": True}, "epochs is True"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: give a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"augment": "flip"}, "augment is 'flip': choose one of 'none', 'shift', 'affine'"),
        ({"seed": -3}, "seed is -3"),
        ({"weight_decay": "much"}, "weight_decay is 'much'"),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1: give 0 or more"),
        ({"weight_decay": 600.0}, r"weight_decay is 600\.0: give 0 or more, and less than 1 / learning_rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(few, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(network(), few, **{"epochs": 1, **settings})


def test_digits_that_do_not_fit_the_model_are_refused(few):
    narrow = replace(
        few,
        train=Split(few.train.images[:, :, :20], few.train.labels),
        validation=Split(few.validation.images[:, :, :20], few.validation.labels),
        test=Split(few.test.images[:, :, :20], few.test.labels),
    )
    with pytest.raises(ValueError, match=r"digits\.train\.images are \(28, 20\), but the model takes \(28, 28, 1\)"):
        fit(network(), narrow, epochs=1)
    with pytest.raises(ValueError, match=r"digits\.validation\.labels run from \d to 11, but the model has 10 classes"):
        labels = few.validation.labels.copy()
        labels[7] = 11
        fit(network(), replace(few, validation=Split(few.validation.images, labels)), epochs=1)


def test_models_that_cannot_be_trained_are_refused(few):
    keras = pytest.importorskip("keras")
    with pytest.raises(ValueError, match=r"keras\.src\.models.*training takes tf_keras models"):
        fit(keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]), few, epochs=1)
    image = tf_keras.Input((28, 28, 1), name="picture")
    with pytest.raises(ValueError, match="does not give one row of class scores"):
        fit(tf_keras.Model(image, tf_keras.layers.ReLU()(image)), few, epochs=1)


def test_float_images_are_used_as_they_are(few):
    def scaled(split):
        return Split(split.images.astype(np.float32) / 255, split.labels)

    as_float = Digits(scaled(few.train), scaled(few.validation), scaled(few.test), source="a test")
    first, second = network(), network()
    fit(first, few, epochs=1, batch_size=100)
    fit(second, as_float, epochs=1, batch_size=100)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


@given(total=st.integers(1, 100_000), peak=st.floats(1e-6, 10))
def test_the_learning_rate_rises_to_its_peak_and_falls_towards_zero(total, peak):
    steps = sorted({0, 1, total // 20, total // 3, total // 2, total - 1} & set(range(total)))
    rates = [learning_rate_at(step, total, peak) for step in steps]
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    top = max(1, round(0.05 * total)) - 1
    assert learning_rate_at(top, total, peak) == pytest.approx(peak)
    if total > 100:
        assert rates[-1] < 0.01 * peak


def test_a_shift_moves_whole_pixels(few):
    images = few.train.images[:20, :, :, None].astype(np.float32)
    matrix = draw("shift", 20, np.random.default_rng(0))
    moved = transform("shift", images, matrix).numpy()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    assert len({tuple(shift) for shift in matrix[:, :, 2].tolist()}) > 5
    for image, drawn, result in zip(padded, matrix, moved, strict=True):
        dx, dy = (int(value) for value in drawn[:, 2])
        assert np.array_equal(result, image[2 + dy : 30 + dy, 2 + dx : 30 + dx])


def test_a_turned_digit_turns_about_its_centre_and_keeps_its_ink(few):
    from scipy import ndimage

    images = few.train.images[:20, :, :, None].astype(np.float32) / 255
    turn = np.zeros((20, 2, 3), np.float32)
    angle = np.deg2rad(10.0)
    turn[:, :, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    ours = transform("affine", images, turn).numpy()[..., 0]
    theirs = np.stack([ndimage.rotate(image[..., 0], 10, reshape=False, order=1) for image in images])
    assert np.abs(ours - theirs).max() < 0.02
    drawn = draw("affine", 1000, np.random.default_rng(0))
    assert np.linalg.det(drawn[:, :, :2]).min() > 0.8
    assert np.linalg.det(drawn[:, :, :2]).max() < 1.25
