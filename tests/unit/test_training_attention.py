"""Attention transfer: maps are the paper's, kept once, and the student comes to look where the teacher looks."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import compresskit as ck

pytestmark = pytest.mark.train

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")

from compresskit.training.architectures import build  # noqa: E402
from compresskit.training.attention import LogitsAndAttention, attention_map, looking, showing  # noqa: E402
from compresskit.training.convert import to_keras  # noqa: E402
from compresskit.training.distill import distill  # noqa: E402

LAYERS = ("conv2_relu", "conv2")


@pytest.fixture(scope="module")
def few(digits):
    return replace(digits, train=digits.train.take(400), validation=digits.validation.take(100))


@pytest.fixture(scope="module")
def teacher():
    return ck.load_model("digit_reader")


def test_a_map_is_the_papers():
    a = np.random.default_rng(0).normal(0, 1, (3, 4, 5, 6)).astype(np.float32)
    f = np.square(a).sum(axis=3).reshape(3, -1)
    expected = f / np.sqrt(np.square(f).sum(axis=1, keepdims=True))
    assert np.allclose(attention_map(tf.constant(a)).numpy(), expected, atol=1e-6)
    assert np.allclose(attention_map(tf.zeros((1, 4, 5, 6))).numpy(), 0), "a silent layer looks nowhere"


def kept(few, teacher, student, **changed):
    settings = {"layers": LAYERS, "beta": 2.0, **changed}
    return LogitsAndAttention(
        (teacher,), few, 4.0, 0.9, "kl", "shift", 2, probabilities=False, cancel=threading.Event(), student=student,
        **settings,
    )  # fmt: skip


def test_what_is_kept_is_where_the_teachers_keras_model_looks(few, teacher):
    student = build("plain-4x2")
    targets, matrices = kept(few, teacher, student).training(0)
    assert targets.shape == (400, 10 + 7 * 7) and matrices.shape == (400, 2, 3)
    from compresskit.training.augment import transform

    images = transform("shift", tf.constant(few.train.images[:20, ..., None] / np.float32(255)), matrices[:20])
    model = to_keras(teacher)
    inner = tf_keras.Model(model.inputs, model.get_layer("conv2").output)
    energy = np.square(inner(images).numpy()).sum(axis=3).reshape(20, 7, 2, 7, 2).mean(axis=(2, 4)).reshape(20, -1)
    expected = energy / np.linalg.norm(energy, axis=1, keepdims=True)
    assert np.allclose(targets[:20, 10:], expected, atol=1e-4)


def test_the_loss_is_the_sum_of_its_parts(few, teacher):
    student = build("plain-4x2")
    teaching = kept(few, teacher, student)
    targets, _ = teaching.training(0)
    images, labels = few.train.images[:8, ..., None] / np.float32(255), few.train.labels[:8].astype(np.int64)
    given = student(images, training=True)
    whole = float(teaching.loss(tf.constant(images), tf.constant(labels), given, tf.constant(targets[:8])))
    plain = float(teaching.loss(tf.constant(images), tf.constant(labels), given, tf.constant(targets[:8, :10])))
    maps = attention_map(looking(student, LAYERS[0])(images, training=True)).numpy()
    assert whole - plain == pytest.approx(2.0 * np.square(maps - targets[:8, 10:]).sum(axis=1).mean(), rel=1e-3)


def test_a_student_comes_to_look_where_its_teacher_looks(few, teacher):
    def apart(result):
        model = to_keras(result.checkpoint)
        images = few.validation.images[..., None] / np.float32(255)
        seen = attention_map(looking(model, LAYERS[0])(images, training=False)).numpy()
        validation = replace(few, train=few.validation)
        wanted = LogitsAndAttention(
            (teacher,), validation, 4.0, 0.9, "kl", "none", 1, probabilities=False, cancel=threading.Event(),
            student=model, layers=LAYERS, beta=1.0,
        ).training(0)[0][:, 10:]  # fmt: skip
        return float(np.square(seen - wanted).sum(axis=1).mean())

    settings = {"epochs": 6, "batch_size": 50, "learning_rate": 0.01, "augment": "none"}
    led = distill(teacher, "plain-4x2", few, attention=LAYERS, beta=20.0, **settings)
    free = distill(teacher, "plain-4x2", few, **settings)
    assert apart(led) < 0.7 * apart(free)


def test_layers_that_do_not_fit_are_named(few, teacher):
    student = build("plain-4x2")
    with pytest.raises(ValueError, match=r"'mean' is no layer of 'plain-4x2' that gives maps; choose of \['conv1'"):
        looking(student, "mean")
    with pytest.raises(ValueError, match=r"'dense' is no layer of the teacher.*choose of \['conv1', 'conv2'\]"):
        showing(teacher, "dense")
    with pytest.raises(ValueError, match="attention takes one teacher, not 2"):
        distill([teacher, teacher], student, few, attention=LAYERS)
    with pytest.raises(ValueError, match="beta is -1"):
        distill(teacher, student, few, attention=LAYERS, beta=-1)
    with pytest.raises(ValueError, match="attention is given and into is a Quantize"):
        distill(teacher, student, few, attention=LAYERS, into=ck.Quantize())
