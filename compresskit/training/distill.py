"""Distillation: train a small network on what a large one answers, wrong classes included.

The loss is that of :mod:`compresskit.distillation`, computed in TensorFlow: ``alpha`` times a distance between the
teacher's and the student's softened answers, plus ``1 - alpha`` times the cross-entropy with the labels (Hinton,
Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531).

The teacher is not part of the training step. LiteRT runs it over all digits once, its logits are kept, and a step only
looks them up; so an epoch costs what an epoch of the student alone costs, however large the teacher is. A digit that
is moved while training is another digit to the teacher (Beyer et al. 2021, https://arxiv.org/abs/2106.05237, call it
consistent teaching). So that the kept logits stay true, moving is rationed: each digit has ``views`` places, drawn
once, and epoch ``e`` uses place ``e mod views``. The teacher sees each digit in each of its places once.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from compresskit.compression import Compressed
from compresskit.data import Digits, Split
from compresskit.data.splits import as_float
from compresskit.distillation import LOSSES, missing_classes
from compresskit.litert.inspect import ends_in_softmax as gives_probabilities
from compresskit.litert.runtime import outputs
from compresskit.recipe import Quantize
from compresskit.training.architectures import build
from compresskit.training.augment import AUGMENTATIONS, Augmentation, draw, transform
from compresskit.training.convert import to_checkpoint, to_keras
from compresskit.training.fit import Epoch, Progress, TrainingDiverged, ends_in_softmax, fit
from compresskit.training.quantize import train_quantized
from compresskit.zoo import Checkpoint

Model: TypeAlias = Checkpoint | Compressed
Teacher: TypeAlias = Model | Sequence[Model]
Logits: TypeAlias = NDArray[np.float32]

VIEWS = 4
TEACHER_BATCH = 2000  # digits between two looks at ``cancel``
SMALLEST_PROBABILITY = 1e-6  # below it a softmax output is noise; its logarithm would dominate every loss
VIEW_SEED = 11  # of the places of a digit: not the run's, so that runs with other seeds share the teacher's answers
KEPT = 32  # arrays of logits kept in this process, 2 MB each for MNIST


@dataclass(frozen=True)
class Distilled:
    """What a distillation came to.

    Attributes
    ----------
    checkpoint : Checkpoint
        The student, in float.
    compressed : Compressed or None
        Its file, if it was distilled into a quantized self; its weights lie on their grids.
    history : tuple of Epoch
        Losses and accuracies of the finished epochs; the losses are distillation losses.
    cancelled : bool
        True if the run was cancelled: the student is what was reached by then.
    missing : tuple of int
        Classes of which the transfer set has no example.
    teacher_accuracy : float or None
        Fraction of the validation digits that the teacher reads rightly; None where alpha was 0.
    teacher_seconds : float
        Time spent running the teacher; 0 where its answers were known from before.
    seconds : float
        Time spent in all.
    """

    checkpoint: Checkpoint
    compressed: Compressed | None
    history: tuple[Epoch, ...]
    cancelled: bool
    missing: tuple[int, ...]
    teacher_accuracy: float | None
    teacher_seconds: float
    seconds: float


class DistillationDiverged(TrainingDiverged):
    """The loss is no number any more.

    Attributes
    ----------
    checkpoint : Checkpoint
        The student of the last finished epoch.
    """

    def __init__(self, message: str, checkpoint: Checkpoint) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


def distill(
    teacher: Teacher,
    student: Checkpoint | tf_keras.Model | str,
    digits: Digits,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    loss: str = "kl",
    epochs: int = 5,
    batch_size: int = 128,
    learning_rate: float = 0.005,
    augment: Augmentation = "shift",
    views: int = VIEWS,
    seed: int = 0,
    into: Quantize | None = None,
    keep_zeros: bool = False,
    attention: tuple[str, str] | None = None,
    beta: float = 1.0,
    weight_decay: float = 0.0,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    resume: Path | None = None,
) -> Distilled:
    """Train a student on a teacher's answers.

    Parameters
    ----------
    teacher : Checkpoint, Compressed, or a sequence of them
        Any file that reads these digits; of several, the mean of the logits is taken. The float checkpoint itself may
        teach its own quantized or pruned self.
    student : Checkpoint, tf_keras.Model or str
        A model to go on from (it is copied), or the name of one to build, as
        :func:`compresskit.training.architectures.build` takes it.
    digits : Digits
        ``train`` is the transfer set; ``validation`` is measured.
    temperature : float, default 4
        T > 0. The losses "kl" and "cross-entropy" carry the factor T².
    alpha : float, default 0.9
        Weight of the teacher, 0 to 1. With 0 the teacher is not even run: this is the control, trained on the
        same digits in the same places and order.
    loss : {"kl", "cross-entropy", "logits", "probabilities"}, default "kl"
        As in ``compresskit.distillation.LOSSES``.
    epochs, batch_size, learning_rate, augment, seed, on_progress, cancel
        As :func:`compresskit.training.fit.fit` takes them. ``seed`` also builds a student given by name.
    views : int, default 4
        Places that each digit is moved to in turn. More vary the digits more, and cost one run of the teacher each.
    into : Quantize, optional
        Train while rounding as this step says, see :func:`compresskit.training.quantize.train_quantized`.
    keep_zeros : bool, default False
        Weights of the student that are zero stay zero, to the last bit: for a pruned student.
    attention : tuple of two str, optional
        A layer of the student, and the one of the teacher that it is to look like: attention transfer, see
        :mod:`compresskit.training.attention`.
    beta : float, default 1
        Weight of that.
    weight_decay : float, default 0
        As :func:`compresskit.training.fit.fit` takes it; not together with ``into``.
    resume : Path, optional
        File from which a run that was broken off goes on.

    Returns
    -------
    Distilled

    Raises
    ------
    ValueError
        For settings outside their range, and if teacher, student and digits do not fit together. Before training.
    DistillationDiverged
        If the loss becomes NaN or infinite; the error names the step and holds the last sound student.

    Warns
    -----
    UserWarning
        If a class is missing from the transfer set.
    """
    started = time.monotonic()
    _check_loss(temperature, alpha, loss, views, augment)
    if into is not None and keep_zeros:
        raise ValueError("keep_zeros is True and into is a Quantize: choose one; rounding may move a zero")
    if into is not None and weight_decay:
        raise ValueError(
            f"weight_decay is {weight_decay!r} and into is a Quantize: choose one; training while rounding has no decay"
        )
    if attention is not None and into is not None:
        raise ValueError("attention is given and into is a Quantize: choose one; the layers are wrapped while rounding")
    if isinstance(beta, bool) or not isinstance(beta, int | float | np.number) or not 0 <= beta < np.inf:
        raise ValueError(f"beta is {beta!r}: give a number of at least 0, such as 1")
    model, name = _student(student, seed)
    teachers = as_teachers(teacher)
    missing = _check_fit(teachers, model, digits, needed=alpha > 0 or attention is not None)
    stop = cancel or threading.Event()
    shared = (teachers, digits, temperature, alpha, loss, augment, views)
    probabilities = ends_in_softmax(model)
    if attention is None:
        teaching = KeptLogits(*shared, probabilities=probabilities, cancel=stop)
    else:
        from compresskit.training.attention import LogitsAndAttention

        teaching = LogitsAndAttention(
            *shared, probabilities=probabilities, cancel=stop, student=model, layers=attention, beta=beta
        )
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "augment": augment,
        "seed": seed,
        "on_progress": on_progress,
        "cancel": stop,
        "teaching": teaching,
    }
    compressed = None
    if into is not None:
        trained = train_quantized(to_checkpoint(model, name), into, digits, resume=resume, **settings)
        checkpoint, compressed = trained.checkpoint, trained.compressed
        history, cancelled = trained.history, trained.cancelled
    else:
        zeros = _Zeros(model) if keep_zeros else None
        try:
            result = fit(model, digits, checkpoint=resume, after_step=zeros, weight_decay=weight_decay, **settings)
        except TrainingDiverged as error:
            raise DistillationDiverged(str(error), to_checkpoint(model, name)) from error
        checkpoint, history, cancelled = to_checkpoint(model, name), result.history, result.cancelled
    return Distilled(
        checkpoint=checkpoint,
        compressed=compressed,
        history=history,
        cancelled=cancelled,
        missing=missing,
        teacher_accuracy=teaching.accuracy() if not stop.is_set() else None,
        teacher_seconds=teaching.seconds,
        seconds=time.monotonic() - started,
    )


# -- the teacher's answers ----------------------------------------------------------------------------------------


class KeptLogits:
    """What a teacher says of every digit in each of its places, asked once; a :class:`~.fit.Teaching`.

    Parameters
    ----------
    teachers : tuple of Checkpoint or Compressed
        One or more.
    digits : Digits
        ``train`` and ``validation`` are answered.
    temperature, alpha, loss, augment, views
        As for :func:`distill`.
    probabilities : bool
        Whether the student gives probabilities in place of logits.
    cancel : threading.Event
        When it is set, the teacher stops at once, and what it gives from then on means nothing.
    """

    def __init__(
        self,
        teachers: tuple[Model, ...],
        digits: Digits,
        temperature: float,
        alpha: float,
        loss: str,
        augment: Augmentation,
        views: int,
        *,
        probabilities: bool,
        cancel: threading.Event,
    ) -> None:
        self.teachers, self.digits, self.cancel = teachers, digits, cancel
        self.temperature, self.alpha, self.kind = temperature, alpha, loss
        self.augment, self.views = augment, 1 if augment == "none" else views
        self.probabilities = probabilities
        self.seconds = 0.0

    def settings(self) -> dict[str, Any]:
        """Give what two runs must have in common so that one may go on from the other."""
        taught = [each.digest for each in self.teachers] if self.alpha > 0 else []
        return {
            "teacher": taught,
            "temperature": self.temperature,
            "alpha": self.alpha,
            "loss": self.kind,
            "views": self.views,
        }

    def training(self, epoch: int) -> tuple[Logits, NDArray[np.float32]]:
        """Give the teacher's logits (n, k) in an epoch, and the matrices (n, 2, 3) of the digits' places."""
        split, view = self.digits.train, epoch % self.views
        matrices = draw(self.augment, len(split), np.random.default_rng([VIEW_SEED, view]))
        return self._logits(split, self.augment, view, matrices), matrices

    def validation(self) -> Logits:
        """Give the teacher's logits (n, k) of the validation digits."""
        return self._logits(self.digits.validation, "none", 0, None)

    def accuracy(self) -> float | None:
        """Give the fraction of the validation digits that the teacher reads rightly."""
        if self.alpha == 0:
            return None
        return float(np.mean(self.validation().argmax(axis=1) == self.digits.validation.labels))

    def loss(self, images: tf.Tensor, labels: tf.Tensor, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Mix what the teacher says with what the labels say: ``compresskit.distillation.distillation_loss``."""
        logits = tf.math.log(tf.maximum(outputs, SMALLEST_PROBABILITY)) if self.probabilities else outputs
        mixed = tf.constant(0.0)
        if self.alpha < 1:
            by_labels = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            mixed += (1 - self.alpha) * tf.reduce_mean(by_labels)
        if self.alpha > 0:
            mixed += self.alpha * teacher_loss(self.kind, targets, logits, self.temperature)
        return mixed

    def _logits(self, split: Split, augment: Augmentation, view: int, matrices: NDArray[np.float32] | None) -> Logits:
        """Give the mean of the teachers' logits."""
        if self.alpha == 0:
            return np.zeros((len(split), 1), np.float32)  # the loss does not look at them
        total: Logits | None = None
        for teacher in self.teachers:
            started = time.monotonic()
            found = kept_logits(teacher, split, augment, view, matrices, self.cancel)
            self.seconds += time.monotonic() - started
            total = found if total is None else total + found
        assert total is not None
        return cast(Logits, total / np.float32(len(self.teachers)))


_kept: OrderedDict[tuple[Any, ...], Logits] = OrderedDict()
_keeping = threading.Lock()


def kept_logits(
    teacher: Model,
    split: Split,
    augment: Augmentation = "none",
    view: int = 0,
    matrices: NDArray[np.float32] | None = None,
    cancel: threading.Event | None = None,
) -> Logits:
    """Run a teacher over digits with LiteRT, or remember what it said of them before in this process.

    Parameters
    ----------
    teacher : Checkpoint or Compressed
        A file that ends in logits, or in a softmax: then the logarithms of its probabilities are its logits.
    split : Split
        Digits.
    augment : {"none", "shift", "affine"}
        How they are moved.
    view : int
        Which of the places of each digit; ``matrices`` says where it is, as ``draw`` gives them.
    cancel : threading.Event, optional
        Once it is set, the rest of the answers is zeros, and nothing is remembered.

    Returns
    -------
    ndarray of float32, shape (n, classes)

    Raises
    ------
    ValueError
        If the teacher answers with something that is no finite number.
    """
    key = (teacher.digest, split.fingerprint, augment, view)
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    parts: list[Logits] = []
    for start in range(0, len(split), TEACHER_BATCH):
        if cancel is not None and cancel.is_set():
            classes = parts[0].shape[1] if parts else 1
            return np.concatenate([*parts, np.zeros((len(split) - start, classes), np.float32)])
        images = split.images[start : start + TEACHER_BATCH]
        if augment != "none" and matrices is not None:
            images = moved(images, augment, matrices[start : start + TEACHER_BATCH])
        parts.append(outputs(teacher.tflite, images).reshape(len(images), -1))
    found = np.concatenate(parts)
    if gives_probabilities(teacher.tflite):
        found = np.log(np.maximum(found, np.float32(SMALLEST_PROBABILITY)))
    if not np.isfinite(found).all():
        bad = int(np.argmin(np.isfinite(found).all(axis=1)))
        raise ValueError(
            f"teacher answers image {bad} of {split.name or 'the digits'} with {found[bad].tolist()}: its weights are "
            "broken; take another teacher"
        )
    found.flags.writeable = False
    with _keeping:
        _kept[key] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def moved(images: NDArray[Any], augment: Augmentation, matrices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move digits as the training step will.

    Parameters
    ----------
    images : ndarray, uint8 or float32, (n, h, w) or (n, h, w, c)
        Digits.
    augment : {"shift", "affine"}
        How.
    matrices : ndarray of float32, (n, 2, 3)
        Where to, as ``draw`` gives them.

    Returns
    -------
    ndarray of float32, (n, h, w, c)
    """
    values = as_float(np.asarray(images))
    shaped = values if values.ndim == 4 else values[..., None]
    return np.asarray(transform(augment, tf.constant(shaped), tf.constant(matrices)).numpy())


def as_teachers(teacher: Any) -> tuple[Model, ...]:
    """Make a tuple of one or several teachers."""
    several = (teacher,) if isinstance(teacher, Checkpoint | Compressed) else teacher
    if isinstance(several, str) or not isinstance(several, Sequence) or not several:
        raise ValueError(
            f"teacher is {teacher!r}: give a checkpoint (compresskit.load_model), a compressed model, or a list of them"
        )
    for each in several:
        if not isinstance(each, Checkpoint | Compressed):
            raise ValueError(
                f"teacher holds a {type(each).__name__}: give checkpoints (compresskit.load_model) or compressed models"
            )
    return tuple(several)


# -- the loss, in TensorFlow --------------------------------------------------------------------------------------


def teacher_loss(loss: str, v: tf.Tensor, z: tf.Tensor, temperature: float) -> tf.Tensor:
    """Compute one of ``compresskit.distillation.LOSSES`` with a gradient.

    Parameters
    ----------
    loss : str
        "kl", "cross-entropy", "logits" or "probabilities".
    v, z : float32 tensor (n, k)
        Logits of teacher and student.
    temperature : float
        T.

    Returns
    -------
    float32 scalar
        Averaged over samples.
    """
    if loss == "logits":
        return tf.reduce_mean(tf.square(z - v))
    log_p, log_q = tf.nn.log_softmax(v / temperature), tf.nn.log_softmax(z / temperature)
    p = tf.exp(log_p)
    if loss == "probabilities":
        return tf.reduce_mean(tf.square(tf.exp(log_q) - p))
    surprise = -log_q if loss == "cross-entropy" else log_p - log_q
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(p * surprise, axis=1))


class _Zeros:
    """Called after each step: puts back the zeros that a student had before."""

    def __init__(self, model: tf_keras.Model) -> None:
        kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
        self._kept = [(variable, tf.constant(variable.numpy() != 0)) for variable in kernels]
        self._apply = tf.function(self._put_back)

    def __call__(self, steps: int) -> None:
        self._apply()

    def _put_back(self) -> None:
        for variable, alive in self._kept:
            variable.assign(tf.where(alive, variable, tf.zeros_like(variable)))


# -- bad input ----------------------------------------------------------------------------------------------------


def _student(student: Any, seed: int) -> tuple[tf_keras.Model, str]:
    """Build, load or copy the student; give it and its name."""
    if isinstance(student, str):
        return build(student, seed), student
    if isinstance(student, Checkpoint):
        return to_keras(student), student.name
    if not isinstance(student, tf_keras.Model):
        raise ValueError(
            f"student is a {type(student).__name__}: give the name of an architecture, a checkpoint or a tf_keras model"
        )
    copy = tf_keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    return copy, str(student.name)


def _check_loss(temperature: float, alpha: float, loss: str, views: int, augment: str) -> None:
    if isinstance(temperature, bool) or not isinstance(temperature, int | float | np.number):
        raise ValueError(f"temperature is {temperature!r}: give a number above 0, such as 4")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"temperature is {temperature!r}: choose a number above 0 (1 changes nothing, 20 is very soft)"
        )
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.number) or not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha!r}: choose a number from 0 (labels only) to 1 (teacher only)")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}: choose one of {', '.join(map(repr, LOSSES))}")
    if isinstance(views, bool) or not isinstance(views, int | np.integer) or views < 1:
        raise ValueError(f"views is {views!r}: give a whole number of at least 1")
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment is {augment!r}: choose one of {', '.join(map(repr, AUGMENTATIONS))}")


def _check_fit(teachers: tuple[Model, ...], model: tf_keras.Model, digits: Digits, *, needed: bool) -> tuple[int, ...]:
    """Hold teachers, student and digits against one another; give the classes that no training digit has."""
    classes, image = int(model.output_shape[-1]), tuple(int(size) for size in model.input_shape[1:])
    for teacher in teachers if needed else ():
        source = teacher if isinstance(teacher, Checkpoint) else teacher.checkpoint
        if source.classes != classes:
            raise ValueError(
                f"teacher {source.name!r} tells {source.classes} classes apart, student {model.name!r} {classes}: give "
                "two that answer alike"
            )
        if int(np.prod(source.input_shape)) != int(np.prod(image)):
            raise ValueError(
                f"teacher {source.name!r} reads images of {source.input_shape}, student {model.name!r} of {image}: "
                "give two that read the same images"
            )
    missing = missing_classes(digits.train.labels, classes)
    if missing:
        listed = ", ".join(map(str, missing))
        warnings.warn(
            f"digits.train has no example of class {listed}: the student learns of it only what the teacher's answers "
            "to other digits tell",
            UserWarning,
            stacklevel=3,
        )
    return missing
