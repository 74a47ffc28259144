"""Train a Keras model on digits: one plain loop with live progress, cancel and resume.

The loop is Adam (Kingma and Ba 2014) with the learning rate warmed up over the first twentieth of the run and then
taken down to zero along a cosine (Loshchilov and Hutter 2016). The order of the digits and the random
augmentation of a step depend on the seed and on the number of the step only, so a run that was cancelled, or that
died, goes on from its checkpoint file to the weights that it would have had without the interruption. (Dropout is the
exception: TensorFlow draws its masks from a state of its own. The course's models have none.)

It is written as a loop, and not as ``model.fit`` with callbacks, because this way a learner can read what training
is, and because it is as fast: a step is one compiled TensorFlow function.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from compresskit.atomic import write_atomically
from compresskit.training.augment import AUGMENTATIONS, Augmentation, draw, transform

if TYPE_CHECKING:
    from compresskit.data import Digits, Split

REPORT_SECONDS = 0.12  # between two calls of on_progress: about eight a second, enough for a curve that moves
RECENT_STEPS = 50  # the running loss and accuracy are means over that many batches
WARM_UP = 0.05  # of all steps
VALIDATION_BATCH = 500


class Loss(Protocol):
    """Anything that scores a batch: distillation passes one that also asks the teacher."""

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Give the mean loss, a float32 scalar, of images (n, h, w, c), labels (n,) and the model's outputs (n, k)."""


class Teaching(Protocol):
    """What is known of every digit besides its label, and the loss that uses it: distillation keeps logits so.

    The digits are moved as the teaching says, since its targets hold for digits that were moved in just that way.
    """

    def settings(self) -> dict[str, Any]:
        """Give what a resumed run must have in common with the one it goes on from, as JSON holds it."""

    def training(self, epoch: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give, for all training digits in an epoch, targets (n, ...) and how each is moved (n, 2, 3), see ``draw``."""

    def validation(self) -> NDArray[np.float32]:
        """Give the targets of the validation digits, which are not moved."""

    def loss(self, images: tf.Tensor, labels: tf.Tensor, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Give the mean loss of a batch, a float32 scalar; the first three as :class:`Loss` takes them."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands; what ``on_progress`` is called with.

    Attributes
    ----------
    epoch, epochs : int
        The present epoch, counted from 1, and how many there will be.
    step, steps : int
        Batches done in this epoch, and batches in an epoch.
    loss, accuracy : float
        Means over the latest 50 training batches, measured while the weights still move.
    validation_loss, validation_accuracy : float or None
        After the latest finished epoch; None during the first.
    seconds, seconds_left : float
        Spent in this run (a resumed run counts on from before), and an estimate of what remains.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Epoch:
    """What one finished epoch came to. Losses are mean cross-entropies in nats, accuracies fractions."""

    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. The weights are in the model itself.

    Attributes
    ----------
    history : tuple of Epoch
        One entry for each finished epoch.
    cancelled : bool
        True if ``cancel`` was set before the last step.
    steps : int
        Steps done in all, over all epochs.
    seconds : float
        Time spent training, in all sittings together.
    """

    history: tuple[Epoch, ...]
    cancelled: bool
    steps: int
    seconds: float


class TrainingDiverged(ArithmeticError):
    """The loss is no number any more; the model has its weights of the last finished epoch."""


@dataclass
class _State:
    """What changes while a run goes on, and what its checkpoint file holds besides weights and optimizer."""

    step: int = 0  # over all epochs
    loss_sum: float = 0.0  # over the present epoch
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)


def fit(
    model: tf_keras.Model,
    digits: Digits,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 0.002,
    augment: Augmentation = "none",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    checkpoint: Path | None = None,
    loss: Loss | None = None,
    after_step: Callable[[int], None] | None = None,
    teaching: Teaching | None = None,
    about: Mapping[str, Any] | None = None,
    weight_decay: float = 0.0,
) -> TrainingResult:
    """Train ``model`` in place on ``digits.train``; ``digits.validation`` is only measured.

    Parameters
    ----------
    model : tf_keras.Model
        Gives (n, k) logits, or probabilities if its last layer ends in a softmax. It need not be compiled.
    digits : Digits
        Splits of uint8 images (divided by 255 here) or float32 images between 0 and 1 (used as they are).
    epochs : int
        How often every training digit is seen.
    batch_size : int, default 128
        Digits a step.
    learning_rate : float, default 0.002
        The highest learning rate; see the schedule above.
    augment : {"none", "shift", "affine"}, default "none"
        See :mod:`compresskit.training.augment`.
    seed : int, default 0
        Decides the order of the digits and the augmentation. The initial weights are the model's own matter.
    on_progress : callable, optional
        Called with a :class:`Progress` about eight times a second, and at the end of each epoch, in this thread.
    cancel : threading.Event, optional
        Set it from another thread: the run ends after the present step, with the latest weights in the model.
    checkpoint : Path, optional
        File that the run's state is written to after each epoch and on cancel, and from which it goes on if it is
        there. A finished run's file gives its weights back without training.
    loss : callable, optional
        Replaces the cross-entropy; see :class:`Loss`.
    after_step : callable, optional
        Called with the number of steps done after each of them, as pruning schedules need it.
    teaching : Teaching, optional
        Kept targets for every digit, and the loss that compares with them; takes the place of ``loss``.
    about : mapping, optional
        Settings of the caller's own, as JSON holds them, that a resumed run must have in common with its file.
    weight_decay : float, default 0
        By what share of the learning rate each step shrinks the weights, biases apart (AdamW: Loshchilov and Hutter
        2019, https://arxiv.org/abs/1711.05101). At 0.1 and a learning rate of 0.003, by 0.03 percent a step.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ValueError
        For settings or digits that cannot be trained on, before anything starts.
    TrainingDiverged
        If the loss becomes NaN or infinite; the message names the step.

    Notes
    -----
    Memory: the training images stay uint8; only the batch is float.
    """
    _check_settings(epochs, batch_size, learning_rate, augment, seed, weight_decay)
    _check_model(model)
    for split, name in ((digits.train, "train"), (digits.validation, "validation")):
        _check_split(split, name, model)
    run = _Run(
        model,
        digits,
        epochs,
        batch_size,
        learning_rate,
        augment,
        seed,
        checkpoint,
        loss or cross_entropy(model),
        teaching,
        about or {},
        weight_decay,
    )
    if checkpoint is not None and checkpoint.exists():
        run.load()
    return run.go(on_progress or _say_nothing, cancel or threading.Event(), after_step)


def cross_entropy(model: tf_keras.Model) -> Loss:
    """Choose the cross-entropy that fits what the model gives: logits, or probabilities behind a softmax."""
    measure = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=not ends_in_softmax(model))

    def loss(images: tf.Tensor, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return measure(labels, outputs)

    return loss


class _Run:
    """One training run: the compiled step, the order of the digits, the checkpoint file."""

    def __init__(
        self,
        model: tf_keras.Model,
        digits: Digits,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        augment: Augmentation,
        seed: int,
        checkpoint: Path | None,
        loss: Loss,
        teaching: Teaching | None,
        about: Mapping[str, Any],
        weight_decay: float,
    ) -> None:
        self.model, self.digits, self.checkpoint, self.loss = model, digits, checkpoint, loss
        self.teaching, self.about = teaching, about
        self.epochs, self.batch_size, self.peak = epochs, batch_size, learning_rate
        self.augment, self.seed = augment, seed
        self.count = len(digits.train)
        self.steps = math.ceil(self.count / batch_size)
        self.state = _State()
        self.weight_decay = weight_decay
        self.optimizer = AdamW(learning_rate, weight_decay) if weight_decay else tf_keras.optimizers.Adam(learning_rate)
        self.optimizer.build(model.trainable_variables)
        self._train_step = tf.function(self._step, reduce_retracing=True)
        self._measure = tf.function(self._score, reduce_retracing=True)

    # -- the loop ---------------------------------------------------------------------------------------------

    def go(
        self,
        on_progress: Callable[[Progress], None],
        cancel: threading.Event,
        after_step: Callable[[int], None] | None,
    ) -> TrainingResult:
        """Train until all epochs are done or ``cancel`` is set."""
        state, total = self.state, self.epochs * self.steps
        recent: deque[tuple[float, int, int]] = deque(maxlen=RECENT_STEPS)
        clock = _Clock(state.seconds)
        sound_weights = self.model.get_weights()
        reported = -math.inf
        while len(state.history) < self.epochs and not cancel.is_set():
            epoch = len(state.history)
            for images, labels, *more in self._batches(epoch, state.step - epoch * self.steps):
                if cancel.is_set():
                    break
                self.optimizer.learning_rate.assign(learning_rate_at(state.step, total, self.peak))
                mean, correct = (float(value) for value in self._train_step(images, labels, *more))
                if not math.isfinite(mean):
                    self._diverge(f"the loss became {mean}", sound_weights)
                self._count(mean, int(correct), len(labels))
                clock.stepped(state.step)
                recent.append((mean * len(labels), int(correct), len(labels)))
                if after_step is not None:
                    after_step(state.step)
                if clock.now() - reported >= REPORT_SECONDS and state.step % self.steps:
                    reported = clock.now()
                    on_progress(self._progress(recent, clock))
            if state.step == (epoch + 1) * self.steps:
                if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
                    self._diverge("a weight became infinite or NaN", sound_weights)  # a rectifier turns NaN into 0
                if not self._finish_epoch(clock, cancel):
                    break
                sound_weights = self.model.get_weights()
                if recent:  # empty if the run was cancelled before it measured this epoch
                    on_progress(self._progress(recent, clock))
        state.seconds = clock.now()
        cancelled = len(state.history) < self.epochs
        if cancelled and self.checkpoint is not None:
            self.save()
        return TrainingResult(tuple(state.history), cancelled, state.step, state.seconds)

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield the batches of an epoch from step ``first`` on: images, labels, what augmentation drew, and targets."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        taught = None if self.teaching is None else self.teaching.training(epoch)
        for step in range(first, self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            images, labels = self.digits.train.images[chosen], self.digits.train.labels[chosen].astype(np.int64)
            if taught is None:
                yield (
                    images,
                    labels,
                    draw(self.augment, len(chosen), np.random.default_rng([self.seed, epoch, step + 1])),
                )
            else:
                targets, matrices = taught
                yield images, labels, matrices[chosen], targets[chosen]

    def _step(
        self, images: tf.Tensor, labels: tf.Tensor, drawn: tf.Tensor, targets: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Move the weights once against the gradient; give the loss before the step and the number read right."""
        inputs = transform(self.augment, to_inputs(images, self.model), drawn)
        with tf.GradientTape() as tape:
            outputs = self.model(inputs, training=True)
            mean = self._loss(inputs, labels, outputs, targets)
            objective = tf.add_n([mean, *self.model.losses])
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(objective, variables), variables, strict=True))
        return mean, _number_right(outputs, labels)

    def _loss(self, inputs: tf.Tensor, labels: tf.Tensor, outputs: tf.Tensor, targets: tf.Tensor | None) -> tf.Tensor:
        if self.teaching is None:
            return self.loss(inputs, labels, outputs)
        return self.teaching.loss(inputs, labels, outputs, targets)

    # -- validation -------------------------------------------------------------------------------------------

    def _finish_epoch(self, clock: _Clock, cancel: threading.Event) -> bool:
        """Measure the validation digits and file the epoch. False if ``cancel`` was set meanwhile."""
        state = self.state
        measured = self._validate(cancel)
        if cancel.is_set():
            return False
        loss, accuracy = state.loss_sum / state.seen, state.correct / state.seen
        state.seconds = clock.now()
        state.history.append(Epoch(loss, accuracy, *measured, state.seconds))
        state.loss_sum, state.correct, state.seen = 0.0, 0, 0
        if self.checkpoint is not None:
            self.save()
        return True

    def _validate(self, cancel: threading.Event) -> tuple[float, float]:
        split = self.digits.validation
        targets = None if self.teaching is None else self.teaching.validation()
        total = len(split)
        loss_sum, right = 0.0, 0
        for start in range(0, total, VALIDATION_BATCH):
            if cancel.is_set():
                break
            part = slice(start, start + VALIDATION_BATCH)
            labels = split.labels[part].astype(np.int64)
            mean, correct = self._measure(split.images[part], labels, *(() if targets is None else (targets[part],)))
            loss_sum += float(mean) * len(labels)
            right += int(correct)
        return loss_sum / total, right / total

    def _score(
        self, images: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        inputs = to_inputs(images, self.model)
        outputs = self.model(inputs, training=False)
        return self._loss(inputs, labels, outputs, targets), _number_right(outputs, labels)

    # -- bookkeeping ------------------------------------------------------------------------------------------

    def _count(self, mean: float, correct: int, size: int) -> None:
        self.state.step += 1
        self.state.loss_sum += mean * size
        self.state.correct += correct
        self.state.seen += size

    def _progress(self, recent: deque[tuple[float, int, int]], clock: _Clock) -> Progress:
        state = self.state
        seen = sum(size for _, _, size in recent)
        epoch, step = divmod(state.step - 1, self.steps)
        last = state.history[-1] if state.history else None
        return Progress(
            epoch=epoch + 1,
            epochs=self.epochs,
            step=step + 1,
            steps=self.steps,
            loss=sum(loss for loss, _, _ in recent) / seen,
            accuracy=sum(correct for _, correct, _ in recent) / seen,
            validation_loss=last.validation_loss if last else None,
            validation_accuracy=last.validation_accuracy if last else None,
            seconds=clock.now(),
            seconds_left=clock.left(state.step, self.epochs * self.steps),
        )

    def _diverge(self, what: str, sound_weights: list[NDArray[Any]]) -> NoReturn:
        """Put the weights of the last finished epoch back, and say what happened where."""
        self.model.set_weights(sound_weights)
        epoch = len(self.state.history)
        step = min(self.state.step - epoch * self.steps + 1, self.steps)
        kept = f"those of the end of epoch {epoch}" if epoch else "those from before training"
        raise TrainingDiverged(
            f"{what} at step {step} of epoch {epoch + 1}: training has diverged. Lower learning_rate (it is "
            f"{self.peak:g}). The model's weights are {kept}."
        )

    # -- the checkpoint file ----------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """Everything that a resumed run must have in common with the one it goes on from."""
        settings = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.peak,
            "augment": self.augment,
            "seed": self.seed,
            "digits": self.digits.train.fingerprint,
            "shapes of weights": [list(weight.shape) for weight in self.model.weights],
            **({"weight_decay": self.weight_decay} if self.weight_decay else {}),
            **self.about,
        }
        return settings if self.teaching is None else {**settings, **self.teaching.settings()}

    def save(self) -> None:
        """Write the state of the run, replacing the file in one move so that a crash leaves the old one whole."""
        assert self.checkpoint is not None
        state = {**asdict(self.state), "settings": self._settings()}
        arrays = {f"weight_{i}": array for i, array in enumerate(self.model.get_weights())}
        arrays |= {f"optimizer_{i}": variable.numpy() for i, variable in enumerate(self.optimizer.variables)}
        with write_atomically(self.checkpoint) as file:
            np.savez(file, state=np.array(json.dumps(state)), **arrays)

    def load(self) -> None:
        """Go on from the checkpoint file."""
        assert self.checkpoint is not None
        path = self.checkpoint
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            state = json.loads(str(arrays.pop("state")))
        except Exception as error:
            raise ValueError(
                f"checkpoint is {path}: it is not the file of a training run ({type(error).__name__}: {error}). "
                "Delete it, or choose another name."
            ) from error
        theirs, ours = state.pop("settings"), json.loads(json.dumps(self._settings()))
        different = [name for name in ours if ours[name] != theirs.get(name)]
        if different:
            raise ValueError(
                f"checkpoint is {path}: it belongs to a run with other {', '.join(different)}. Delete it to start "
                "afresh, or choose another name."
            )
        history = [Epoch(**epoch) for epoch in state.pop("history")]
        self.state = _State(**state, history=history)
        self.model.set_weights([arrays[f"weight_{i}"] for i in range(len(self.model.weights))])
        for i, variable in enumerate(self.optimizer.variables):
            variable.assign(arrays[f"optimizer_{i}"])


class AdamW(tf_keras.optimizers.Adam):  # type: ignore[misc]  # tf_keras has no types
    """Adam with weights that shrink, and biases that do not; each array is moved by one kernel in one pass.

    Keras writes the step as a dozen operations, each of which reads and writes arrays as large as the weights; for wide
    dense layers that is half of the time of a training step.

    Parameters
    ----------
    learning_rate : float
        Of the first step.
    weight_decay : float
        A step first takes ``weight_decay * learning_rate`` of each weight away.
    """

    def __init__(self, learning_rate: float, weight_decay: float) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.exclude_from_weight_decay(var_names=["bias"])

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Move one array; Keras calls this for each."""
        step = tf.cast(self.iterations + 1, variable.dtype)
        number = self._index_dict[self._var_key(variable)]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].handle,
            v=self._velocities[number].handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, variable.dtype), step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class _Clock:
    """Seconds spent on a run, counting on from an earlier sitting."""

    def __init__(self, before: float) -> None:
        self._start = time.monotonic() - before
        self._first: tuple[int, float] | None = None

    def now(self) -> float:
        return time.monotonic() - self._start

    def stepped(self, step: int) -> None:
        """Note when the first step of this sitting was done: it waits for the compiler, and says little of the rest."""
        self._first = self._first or (step, self.now())

    def left(self, step: int, total: int) -> float:
        """Estimate the seconds until step ``total`` by those since the first step; by all of them after only one."""
        before, seconds = self._first or (step, self.now())
        if step == before:
            before, seconds = 0, 0.0
        return (self.now() - seconds) * (total - step) / (step - before)


# -- the arithmetic around a step ---------------------------------------------------------------------------------


def learning_rate_at(step: int, total: int, peak: float) -> float:
    """Give the learning rate of a step: linear warm-up to ``peak``, then half a cosine down to zero.

    Parameters
    ----------
    step, total : int
        The step, counted from 0, and the number of steps of the whole run.
    peak : float
        The highest learning rate.

    Returns
    -------
    float
        Above 0 at every step.
    """
    warm_up = max(1, round(WARM_UP * total))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up)))


def to_inputs(images: tf.Tensor, model: tf_keras.Model) -> tf.Tensor:
    """Turn images (n, h, w) or (n, h, w, c), uint8 or float, into the model's float32 input, uint8 divided by 255."""
    scaled = tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else tf.cast(images, tf.float32)
    return tf.reshape(scaled, (-1, *model.input_shape[1:]))


def _number_right(outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(outputs, axis=-1) == labels, tf.int32))


def ends_in_softmax(model: tf_keras.Model) -> bool:
    """Tell whether a model gives probabilities: its last layer is a softmax, or has one as its activation."""
    last = model.layers[-1]
    if isinstance(last, tf_keras.layers.Softmax):
        return True
    inner = getattr(last, "layer", last)  # TFMOT wraps layers
    return getattr(getattr(inner, "activation", None), "__name__", "") == "softmax"


def _say_nothing(progress: Progress) -> None:
    """Stand in for on_progress."""


# -- bad input ----------------------------------------------------------------------------------------------------


def _check_settings(
    epochs: int, batch_size: int, learning_rate: float, augment: str, seed: int, weight_decay: float
) -> None:
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} is {value!r}: give a whole number of at least {least}.")
    if not isinstance(learning_rate, int | float | np.floating) or not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate!r}: give a number above 0, such as 0.002.")
    if isinstance(weight_decay, bool) or not isinstance(weight_decay, int | float | np.floating):
        raise ValueError(f"weight_decay is {weight_decay!r}: give a number of at least 0, such as 0.1.")
    if not 0 <= weight_decay * learning_rate < 1:
        raise ValueError(f"weight_decay is {weight_decay!r}: give 0 or more, and less than 1 / learning_rate.")
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment is {augment!r}: choose one of {', '.join(map(repr, AUGMENTATIONS))}.")


def _check_model(model: Any) -> None:
    if not isinstance(model, tf_keras.Model):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise ValueError(
            f"model is a {kind}: training takes tf_keras models; build it with tf_keras, or bring it in with "
            "compresskit.training.convert.to_keras."
        )
    if not model.built or not isinstance(model.output_shape, tuple) or len(model.output_shape) != 2:
        raise ValueError(
            f"model {model.name!r} does not give one row of class scores for each image: it needs one output of "
            "shape (None, classes), and must be built (give its first layer an input shape)."
        )


def _check_split(split: Split, name: str, model: tf_keras.Model) -> None:
    """Hold a split against the model; that images and labels fit together, Split itself has seen to."""
    found, expected = tuple(split.images.shape[1:]), tuple(model.input_shape[1:])
    if found != expected and (*found, 1) != expected:
        raise ValueError(
            f"digits.{name}.images are {found}, but the model takes {expected}: give images of that shape."
        )
    classes = model.output_shape[-1]
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"digits.{name}.labels run from {low} to {high}, but the model has {classes} classes: give labels from 0 "
            f"to {classes - 1}."
        )
