"""Distillation: the loss is the textbook's, the teacher is asked once, the comparison is fair, nonsense is refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import compresskit as ck
from compresskit import distillation as textbook
from compresskit.litert.runtime import outputs
from compresskit.training.comparison import Comparison, compare, paired_gain
from tests.benchmarks import distillation as benchmark

pytestmark = pytest.mark.train

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")

from compresskit.training import distill as room  # noqa: E402
from compresskit.training.architectures import STUDENT_KINDS, build, student  # noqa: E402
from compresskit.training.augment import draw, transform  # noqa: E402
from compresskit.training.cluster import train_shared  # noqa: E402
from compresskit.training.convert import to_checkpoint, to_keras  # noqa: E402
from compresskit.training.distill import (  # noqa: E402
    DistillationDiverged,
    KeptLogits,
    distill,
    kept_logits,
    teacher_loss,
)
from compresskit.training.prune import train_pruned  # noqa: E402

STUDENT = "dense-16x1"


@pytest.fixture(scope="module")
def few(digits):
    return replace(digits, train=digits.train.take(600), validation=digits.validation.take(200))


@pytest.fixture(scope="module")
def teacher():
    return ck.load_model("lenet_300_100")


@pytest.fixture
def asked(monkeypatch):
    """Count the images that a teacher was asked about, and forget what it said before."""
    room._kept.clear()
    counted = []
    real = room.outputs

    def counting(tflite, images, **settings):
        counted.append(len(images))
        return real(tflite, images, **settings)

    monkeypatch.setattr(room, "outputs", counting)
    return counted


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", textbook.LOSSES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_losses_and_gradients_are_the_textbooks(loss, temperature):
    rng = np.random.default_rng(5)
    v, z = rng.normal(0, 6, (7, 10)).astype(np.float32), tf.Variable(rng.normal(0, 3, (7, 10)).astype(np.float32))
    with tf.GradientTape() as tape:
        ours = teacher_loss(loss, tf.constant(v), z, temperature)
    gradient = tape.gradient(ours, z).numpy()
    assert float(ours) == pytest.approx(textbook.LOSSES[loss].value(v, z.numpy(), temperature), rel=1e-4)
    assert np.allclose(gradient, textbook.LOSSES[loss].gradient(v, z.numpy(), temperature), atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("softmax", [False, True])
def test_teacher_and_labels_are_mixed_as_in_the_textbook(few, teacher, alpha, softmax):
    rng = np.random.default_rng(6)
    v, z = rng.normal(0, 3, (9, 10)).astype(np.float32), rng.normal(0, 2, (9, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 9)
    teaching = KeptLogits((teacher,), few, 4.0, alpha, "kl", "none", 1, probabilities=softmax, cancel=threading.Event())
    given = tf.nn.softmax(z) if softmax else tf.constant(z)
    ours = teaching.loss(tf.constant(0.0), tf.constant(labels), given, tf.constant(v))
    assert float(ours) == pytest.approx(textbook.distillation_loss(v, z, labels, 4.0, alpha, "kl"), rel=1e-4)


# -- the teacher ------------------------------------------------------------------------------------------------------


def test_the_teacher_sees_each_digit_once_however_long_the_training_is(few, teacher, asked):
    first = distill(teacher, STUDENT, few, epochs=7, augment="shift", views=3)
    assert sum(asked) == 200 + 3 * 600, "once for each place"
    assert first.teacher_accuracy == pytest.approx(ck.evaluate(teacher, few.validation).accuracy)
    distill(teacher, STUDENT, few, epochs=3, augment="shift", views=3, temperature=2, alpha=0.5, seed=1)
    assert sum(asked) == 200 + 3 * 600, "another temperature or seed asks nothing anew"


def test_without_weight_the_teacher_is_not_asked_at_all(few, teacher, asked):
    teaching = KeptLogits((teacher,), few, 4.0, 0, "kl", "shift", 2, probabilities=False, cancel=threading.Event())
    assert len(teaching.training(1)[0]) == 600 and len(teaching.validation()) == 200
    assert asked == [] and teaching.accuracy() is None and teaching.seconds == 0


@pytest.mark.parametrize("train", [
    lambda model, *given, **more: train_pruned(model, ck.Prune(0.9), *given, schedule="one-shot", **more),
    lambda model, *given, **more: train_shared(model, ck.Share(4), *given, **more),
], ids=["pruned", "shared"])  # fmt: skip
def test_a_teacher_can_be_listened_to_while_pruning_and_sharing(few, teacher, train):
    teaching = KeptLogits((teacher,), few, 4.0, 0.9, "kl", "shift", 1, probabilities=False, cancel=threading.Event())
    trained = train(ck.load_model("lenet_300_100"), few, epochs=1, augment="shift", teaching=teaching)
    given = outputs(trained.checkpoint.tflite, few.validation.images)
    expected = textbook.distillation_loss(teaching.validation(), given, few.validation.labels, 4.0, 0.9, "kl")
    assert trained.history[-1].validation_loss == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("augment", ["shift", "affine"])
def test_what_is_kept_is_what_the_teacher_says_of_the_moved_digit(few, teacher, augment):
    """Compared with the Keras model of the teacher, on the images that the training step computes."""
    teaching = KeptLogits((teacher,), few, 4.0, 1.0, "kl", augment, 2, probabilities=False, cancel=threading.Event())
    logits, matrices = teaching.training(3)
    assert np.array_equal(matrices, draw(augment, 600, np.random.default_rng([room.VIEW_SEED, 1])))
    images = few.train.images[:50, :, :, None].astype(np.float32) / 255
    moved = transform(augment, tf.constant(images), tf.constant(matrices[:50]))
    assert np.allclose(logits[:50], to_keras(teacher)(moved, training=False).numpy(), atol=2e-3)
    assert not np.allclose(logits, teaching.training(0)[0])
    assert np.array_equal(logits, teaching.training(1)[0])


def test_a_compressed_teacher_and_several(few, teacher):
    small = ck.compress(ck.load_model("small_student"), ck.Recipe(ck.Quantize()), few.train)
    teaching = KeptLogits(
        (teacher, small), few, 4.0, 1.0, "kl", "none", 1, probabilities=False, cancel=threading.Event()
    )
    expected = (outputs(teacher.tflite, few.validation.images) + outputs(small.tflite, few.validation.images)) / 2
    assert np.allclose(teaching.validation(), expected, atol=1e-6)
    assert teaching.accuracy() > 0.95


def test_a_teacher_that_gives_probabilities_teaches_their_logarithms(few):
    image = tf_keras.Input((28, 28, 1))
    sure = tf_keras.layers.Dense(10, activation="softmax", name="head")(tf_keras.layers.Flatten()(image))
    model = tf_keras.Model(image, sure, name="sure")
    softmax = to_checkpoint(model, "sure")
    found = kept_logits(softmax, few.validation)
    said = np.log(np.maximum(model(few.validation.images[..., None] / np.float32(255)).numpy(), 1e-6))
    assert np.allclose(found, said, atol=1e-4)
    assert not room.gives_probabilities(ck.load_model("lenet5").tflite)


def test_a_broken_teacher_is_named(few, monkeypatch):
    room._kept.clear()
    monkeypatch.setattr(room, "outputs", lambda tflite, images, **_: np.full((len(images), 10), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"teacher answers image 0 of .* its weights are broken"):
        distill(ck.load_model("lenet5"), STUDENT, few, epochs=1)


# -- training ---------------------------------------------------------------------------------------------------------


def test_a_student_learns_what_the_teacher_says_and_not_what_the_labels_say(few, teacher):
    """With alpha = 1 the labels have no say: turned into nonsense, they change nothing."""
    nonsense = replace(few.train, labels=(few.train.labels + 1) % 10)
    wrong = replace(few, train=nonsense)
    settings = {"alpha": 1.0, "epochs": 12, "batch_size": 50, "augment": "none", "learning_rate": 0.01}
    taught = distill(teacher, "dense-32x1", wrong, **settings)
    assert ck.evaluate(taught.checkpoint, few.test).accuracy > 0.75
    misled = distill(teacher, "dense-32x1", wrong, **{**settings, "alpha": 0.0})
    assert ck.evaluate(misled.checkpoint, few.test).accuracy < 0.1


def test_a_pair_differs_in_nothing_but_the_teacher(few, teacher):
    """A teacher of weight 1e-9 leaves the control's weights: same start, same digits, same order, same places."""
    control = distill(teacher, STUDENT, few, epochs=2, alpha=0, seed=4)
    nearly = distill(teacher, STUDENT, few, epochs=2, alpha=1e-9, seed=4)
    for a, b in zip(*(to_keras(each.checkpoint).get_weights() for each in (control, nearly)), strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_a_broken_off_run_goes_on_to_the_same_student(few, teacher, tmp_path):
    settings = {"epochs": 2, "seed": 3, "batch_size": 100}
    whole = distill(teacher, STUDENT, few, **settings)
    cancel, file = threading.Event(), tmp_path / "run.npz"
    stopped = distill(
        teacher, STUDENT, few, **settings, resume=file, cancel=cancel, on_progress=lambda progress: cancel.set()
    )
    assert stopped.cancelled
    with pytest.raises(ValueError, match="belongs to a run with other temperature"):
        distill(teacher, STUDENT, few, **settings, temperature=2.0, resume=file)
    resumed = distill(teacher, STUDENT, few, **settings, resume=file)
    assert not resumed.cancelled and resumed.checkpoint.digest == whole.checkpoint.digest


def test_cancel_reaches_the_teacher_too(few, teacher):
    room._kept.clear()
    cancel = threading.Event()
    cancel.set()
    result = distill(teacher, STUDENT, few, cancel=cancel)
    assert result.cancelled and result.history == ()
    assert not room._kept, "half an answer is not kept"


def test_zeros_stay_zero_to_the_last_bit_and_the_model_given_is_copied(few, teacher):
    model = build(STUDENT, 1)
    rng = np.random.default_rng(0)
    model.set_weights([w * (rng.random(w.shape) < 0.5) if w.ndim > 1 else w for w in model.get_weights()])
    given = model.get_weights()
    kept = to_keras(distill(teacher, model, few, epochs=1, keep_zeros=True).checkpoint).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(given, model.get_weights(), strict=True))
    for before, after in zip(given, kept, strict=True):
        if before.ndim > 1:
            assert np.array_equal(before == 0, after == 0)
    free = to_keras(distill(teacher, model, few, epochs=1).checkpoint).get_weights()
    assert np.mean(free[0] == 0) < np.mean(kept[0] == 0), "without it they come back"


def test_the_float_model_teaches_its_own_narrow_self(digits):
    some = replace(digits, train=digits.train.take(2000), validation=digits.validation.take(300))
    model, step = (
        ck.load_model("lenet_300_100"),
        ck.Quantize(weights=2, granularity="tensor", ranges="mse", store="int8"),
    )
    result = distill(model, model, some, into=step, epochs=2, learning_rate=0.001, augment="none")
    rounded = ck.evaluate(ck.compress(model, ck.Recipe(step), some.train), some.test).accuracy
    assert result.compressed is not None
    assert ck.evaluate(result.compressed, some.test).accuracy > rounded + 0.02
    kernel = to_keras(result.checkpoint).get_layer("dense1").kernel.numpy()
    assert len(np.unique(kernel)) <= 3


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": 0}, "temperature is 0: choose a number above 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"alpha": 1.1}, "alpha is 1.1: choose a number from 0"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": True}, "alpha is True"),
        ({"loss": "hinge"}, "loss is 'hinge': choose one of 'kl'"),
        ({"views": 0}, "views is 0"),
        ({"augment": "mirror"}, "augment is 'mirror'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"into": ck.Quantize(), "keep_zeros": True}, "keep_zeros is True and into is a Quantize"),
        ({"into": ck.Quantize(), "weight_decay": 0.1}, r"weight_decay is 0\.1 and into is a Quantize"),
    ],
)
def test_settings_that_make_no_sense_are_refused(few, teacher, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        distill(teacher, STUDENT, few, **settings)


def test_teachers_and_students_that_do_not_fit_are_refused(few, teacher):
    image = tf_keras.Input((28, 28, 1))
    flat = tf_keras.layers.Flatten()(image)
    eleven = tf_keras.Model(image, tf_keras.layers.Dense(11)(flat), name="eleven")
    with pytest.raises(ValueError, match=r"'lenet_300_100' tells 10 classes apart, student 'eleven' 11"):
        distill(teacher, eleven, few)
    small = tf_keras.Input((14, 14, 1))
    narrow = tf_keras.Model(small, tf_keras.layers.Dense(10)(tf_keras.layers.Flatten()(small)), name="narrow")
    with pytest.raises(ValueError, match=r"reads images of \(28, 28, 1\), student 'narrow' of \(14, 14, 1\)"):
        distill(teacher, narrow, few)
    for nobody in ((), "lenet5", None, [teacher, "lenet5"]):
        with pytest.raises(ValueError, match="teacher"):
            distill(nobody, STUDENT, few)
    with pytest.raises(ValueError, match="there is no such model"):
        distill(teacher, "dense-16", few)
    with pytest.raises(ValueError, match="student is a int"):
        distill(teacher, 3, few)


def test_an_empty_transfer_set_cannot_be_made(few):
    with pytest.raises(ValueError, match="at least one image"):
        replace(few.train, images=few.train.images[:0], labels=few.train.labels[:0])


def test_a_class_that_is_missing_is_named(few, teacher):
    without = replace(few, train=few.train.only(0, 1, 2, 4, 5, 6, 7, 8))
    cancel = threading.Event()
    cancel.set()  # what is tested comes before training
    with pytest.warns(UserWarning, match="no example of class 3, 9"):
        assert distill(teacher, STUDENT, without, cancel=cancel).missing == (3, 9)


def test_a_loss_that_is_no_number_ends_the_run_with_the_last_sound_student(few, teacher):
    steps = []

    def watch(progress):
        steps.append(progress)

    broken = replace(
        few, train=replace(few.train, images=(few.train.images / np.float32(255)).astype(np.float32) * 1e30),
        validation=replace(few.validation, images=few.validation.images.astype(np.float32) * 1e30),
        test=replace(few.test, images=few.test.images.astype(np.float32)),
    )  # fmt: skip
    with pytest.raises(DistillationDiverged, match=r"at step \d+ of epoch 1.*Lower learning_rate") as caught:
        distill(teacher, build(STUDENT, 2), broken, alpha=0, augment="none", learning_rate=1e30, on_progress=watch)
    kept = to_keras(caught.value.checkpoint).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kept, build(STUDENT, 2).get_weights(), strict=True))


# -- students by a dial -----------------------------------------------------------------------------------------------


def parameters(model) -> int:
    """Count weights and biases as they are once normalization is folded in."""
    scales = sum(int(np.prod(v.shape)) for v in model.trainable_variables if "gamma" in v.name)
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables) - scales


@pytest.mark.parametrize("kind", STUDENT_KINDS)
def test_wider_and_deeper_students_are_larger(kind):
    for one, other in (((4, 2), (8, 2)), ((8, 2), (8, 3))):
        assert parameters(student(kind, *one)) < parameters(student(kind, *other))


def test_the_dial_reaches_from_500_to_50000_parameters():
    for kind, small, large in (("plain", (4, 2), (24, 4)), ("separable", (8, 2), (48, 6))):
        assert parameters(student(kind, *small)) < 500
        assert 45_000 < parameters(student(kind, *large)) < 55_000


def test_a_student_by_name_is_the_same_and_converts():
    model = build("separable-8x3", 7)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(model.get_weights(), student("separable", 8, 3, 7).get_weights(), strict=True)
    )
    model.get_layer("head").bias.assign(np.ones(10))  # the converter leaves out a bias that is all zero
    made = to_checkpoint(model, model.name)
    assert [layer.name for layer in made.layers] == [
        "conv1", "block2_depthwise", "block2_pointwise", "block3_depthwise", "block3_pointwise", "head"
    ]  # fmt: skip
    assert sum(layer.parameters for layer in made.layers) == parameters(model)


@pytest.mark.parametrize(
    ("kind", "width", "depth", "sentence"),
    [
        ("wide", 8, 2, "kind is 'wide'"),
        ("plain", 1, 2, "width is 1: give a whole number from 2 to 64"),
        ("plain", 65, 2, "width is 65"),
        ("dense", 2001, 2, "width is 2001"),
        ("plain", 8, 9, "depth is 9"),
        ("separable", 8.0, 2, "width is 8.0"),
    ],
)
def test_students_out_of_range_are_refused(kind, width, depth, sentence):
    with pytest.raises(ValueError, match=sentence):
        student(kind, width, depth)


# -- with and without -------------------------------------------------------------------------------------------------


def test_the_gain_is_scipys_paired_t_interval():
    rng = np.random.default_rng(1)
    taught, alone = rng.normal(0.97, 0.01, 6), rng.normal(0.96, 0.01, 6)
    theirs = stats.ttest_rel(taught, alone).confidence_interval(0.95)
    found = paired_gain(taught, alone)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found.mean == pytest.approx(np.mean(taught - alone))


@pytest.mark.parametrize(
    ("taught", "verdict"),
    [([0.97, 0.98, 0.975], "better"), ([0.93, 0.92, 0.925], "worse"), ([0.97, 0.94, 0.951], "inside the noise")],
)
def test_a_difference_inside_the_noise_is_called_that(taught, verdict):
    comparison = Comparison("student", (0, 1, 2), tuple(taught), (0.95, 0.951, 0.949), 10_000)
    assert comparison.gain.verdict == verdict
    assert verdict.split()[-1] in str(comparison)
    assert paired_gain([0.99], [0.5]).verdict == "inside the noise", "one pair says nothing"


def test_runs_are_made_in_pairs(few, teacher, monkeypatch):
    calls, told = [], []
    students = [ck.load_model(name) for name in ("lenet5", "small_student", "lenet_300_100", "digit_reader")]

    def pretend(teacher, student, digits, **settings):
        calls.append(settings)
        return SimpleNamespace(cancelled=settings["cancel"].is_set(), checkpoint=students[(len(calls) - 1) % 4])

    monkeypatch.setattr(room, "distill", pretend)
    short = replace(few, test=few.test.take(500))
    found = compare(teacher, STUDENT, short, seeds=(3, 8), epochs=1, on_run=lambda *each: told.append(each))
    assert [(seed, taught) for seed, taught, _ in told] == [(3, True), (3, False), (8, True), (8, False)]
    assert found.with_teacher == (told[0][2], told[2][2]) and found.without == (told[1][2], told[3][2])
    assert found.without[1] == ck.evaluate(students[3], short.test).accuracy
    for taught, alone in (calls[:2], calls[2:]):
        assert {name for name in taught if taught[name] != alone[name]} == {"alpha"}
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(teacher, STUDENT, short, cancel=cancel)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seeds": (1,)}, "give two or more"),
        ({"seeds": (1, 1)}, "each once"),
        ({"alpha": 0}, "alpha is 0: that is the run without a teacher"),
    ],
)
def test_comparisons_that_prove_nothing_are_refused(few, teacher, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare(teacher, STUDENT, few, **settings)
    with pytest.raises(ValueError, match="one of each"):
        paired_gain([0.9], [])


def test_what_is_measured_of_it_still_runs(few, monkeypatch):
    """`make bench` reaches into a run to time its steps; only this test notices at once when a run has changed."""
    monkeypatch.setattr(ck, "load_mnist", lambda: replace(few, train=few.train.take(benchmark.BATCH)))
    monkeypatch.setattr(benchmark, "PAIRS", 1)
    assert all(row.ours > 0 for row in benchmark.rows())
