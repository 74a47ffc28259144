"""Train a model while its weights go: fine-tuning under a mask, gradual pruning by a schedule, and lottery tickets.

A weight under a mask is zero before every step; the step moves it all the same, by its gradient and by what is left of
its momentum, and then it is set to zero again. So where a schedule makes new masks, a weight that is gone can come back
if that one step makes it larger than one that stayed: TFMOT prunes so, and with the same settings the masks are the
same. When the training is over, what is gone is +0.0 to the last bit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tf_keras
from numpy.typing import NDArray

from compresskit.data import Digits
from compresskit.pruned import prune, sample_of
from compresskit.pruning.patterns import parse_pattern
from compresskit.pruning.schedules import Constant, Cosine, Iterative, OneShot, Polynomial, Schedule
from compresskit.recipe import Prune, Recipe
from compresskit.training.architectures import build
from compresskit.training.augment import Augmentation
from compresskit.training.channels import cut
from compresskit.training.convert import to_checkpoint, to_keras
from compresskit.training.fit import Epoch, Progress, Teaching, TrainingResult, fit
from compresskit.training.graphs import FOLDS
from compresskit.training.masks import Masks
from compresskit.zoo import Checkpoint

ScheduleName = Literal["polynomial", "cosine", "constant", "iterative", "one-shot"]
SCHEDULES: tuple[ScheduleName, ...] = ("polynomial", "cosine", "constant", "iterative", "one-shot")
Control = Literal["reinitialized", "shuffled"]
CONTROLS: tuple[Control, ...] = ("reinitialized", "shuffled")

RAMP = 0.6  # of the run: after that the masks stay, and what is left recovers
TURNS = 40  # how often masks are made on the way
ROUNDS = 4  # of the iterative schedule
OTHER_SEED = 1000  # is added for the first weights of a control


@dataclass(frozen=True)
class PruningProgress(Progress):
    """Where a pruning run stands: a :class:`compresskit.training.fit.Progress`, and how far the pruning is.

    Attributes
    ----------
    sparsity : float
        Fraction removed of the weights under masks, at this step.
    """

    sparsity: float


@dataclass(frozen=True)
class TrainedPruned:
    """What training with pruning came to.

    Attributes
    ----------
    checkpoint : Checkpoint
        The trained model in float, with exact zeros in both of its files, or with its channels cut out. It can be
        trained further.
    history : tuple of Epoch
        Losses and accuracies of the finished epochs, measured under the masks.
    cancelled : bool
        True if the run was cancelled: the checkpoint holds what was reached by then.
    sparsity : float
        Fraction of the weights of the chosen layers that are zero in the file; for cut channels, fraction of the
        original's weights that are gone.
    layers : mapping of str to float
        The same for each layer of the file.
    turns : tuple of (int, float)
        The steps at which masks were made, and the sparsity that they came to; of this sitting only.
    steps : int
        Training steps done in all.
    seconds : float
        Time spent training, in all sittings together.
    """

    checkpoint: Checkpoint
    history: tuple[Epoch, ...]
    cancelled: bool
    sparsity: float
    layers: Mapping[str, float]
    turns: tuple[tuple[int, float], ...]
    steps: int
    seconds: float


def fine_tune(
    checkpoint: Checkpoint,
    digits: Digits,
    *,
    epochs: int = 1,
    batch_size: int = 128,
    learning_rate: float = 0.001,
    augment: Augmentation = "shift",
    seed: int = 0,
    on_progress: Callable[[PruningProgress], None] | None = None,
    cancel: threading.Event | None = None,
    resume: Path | None = None,
) -> TrainedPruned:
    """Train a model further; weights that are exactly zero stay so.

    Parameters
    ----------
    checkpoint : Checkpoint
        A model that can be trained: shipped, made from Keras, or what :func:`train_pruned` gave. Zero biases are
        trained; the masks lie on every weight with two axes or more.
    digits : Digits
        Trained on ``train``; ``validation`` is measured.
    epochs, batch_size, learning_rate, augment, seed, cancel
        As :func:`compresskit.training.fit.fit` takes them.
    on_progress : callable, optional
        Called with a :class:`PruningProgress` about eight times a second, in this thread.
    resume : Path, optional
        File from which a run that was broken off goes on.

    Returns
    -------
    TrainedPruned

    Raises
    ------
    ValueError
        If the model cannot be trained, or a setting makes no sense.
    """
    run = _Run(checkpoint, checkpoint, (), digits, on_progress, cancel)
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    return run.go({**settings, "augment": augment, "seed": seed}, {}, resume)


def train_pruned(
    checkpoint: Checkpoint,
    step: Prune | Sequence[Prune],
    digits: Digits,
    *,
    schedule: ScheduleName | Schedule | None = None,
    epochs: int = 2,
    batch_size: int = 128,
    learning_rate: float = 0.001,
    augment: Augmentation = "shift",
    seed: int = 0,
    teaching: Teaching | None = None,
    on_progress: Callable[[PruningProgress], None] | None = None,
    cancel: threading.Event | None = None,
    resume: Path | None = None,
) -> TrainedPruned:
    """Prune a model while it is trained.

    Parameters
    ----------
    checkpoint : Checkpoint
        A model that can be trained: shipped, or made from Keras.
    step : Prune or sequence of Prune
        What is to go. Several steps give layers sparsities of their own, each layer in one of them. Steps with
        ``pattern="channel"`` cut channels out before the training begins, and come first.
    digits : Digits
        Trained on ``train``; ``validation`` is measured. Importances that look at digits see the first of ``train``.
    schedule : {"polynomial", "cosine", "constant", "iterative", "one-shot"} or Schedule, optional
        How the sparsity grows. "polynomial" (the default; Zhu and Gupta 2017) and "cosine" reach the step's sparsity
        after 60 % of the run and make masks 40 times on the way; "constant" has it from the first step on and makes
        new masks as often; "iterative" takes four bites; "one-shot" prunes once and trains on. N:M masks are made
        once, at the schedule's first turn. Channels go at once: there it is "one-shot", or left out.
    epochs, batch_size, learning_rate, augment, seed, cancel
        As :func:`compresskit.training.fit.fit` takes them.
    teaching : Teaching, optional
        What a teacher says of the digits, moved as ``augment`` says: :class:`compresskit.training.distill.KeptLogits`.
    on_progress : callable, optional
        Called with a :class:`PruningProgress` about eight times a second, in this thread.
    resume : Path, optional
        File from which a run that was broken off goes on.

    Returns
    -------
    TrainedPruned

    Raises
    ------
    ValueError
        Before training, if the model cannot be trained, a layer cannot be pruned so (the message names it), or the
        schedule does not come to the step's sparsity within the run.
    """
    steps = (step,) if isinstance(step, Prune) else tuple(step)
    channels, weights = _sorted(steps, checkpoint, schedule)
    sample = sample_of(steps, digits.train)
    prune(checkpoint.tflite, steps, sample)  # what a file cannot have is refused here, before an hour of training
    smaller = cut(checkpoint, channels, sample)
    run = _Run(checkpoint, smaller, weights, digits, on_progress, cancel)
    total = epochs * -(-len(digits.train) // batch_size)
    plans = {each: _plan(each, schedule, total, run.sparsity(each)) for each in weights}
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    return run.go({**settings, "augment": augment, "seed": seed, "teaching": teaching}, plans, resume)


class _Run:
    """One training under masks.

    Parameters
    ----------
    original, checkpoint : Checkpoint
        The model as it came, and the one that is trained: its channels may be cut.
    steps : tuple of Prune
        Those that set weights to zero.
    """

    def __init__(
        self,
        original: Checkpoint,
        checkpoint: Checkpoint,
        steps: tuple[Prune, ...],
        digits: Digits,
        on_progress: Callable[[PruningProgress], None] | None,
        cancel: threading.Event | None,
    ) -> None:
        self.original, self.checkpoint, self.digits = original, checkpoint, digits
        self.masks = Masks(to_keras(checkpoint))
        self.masks.take_zeros()
        self._pruned = _pruned_layers(self.masks.model, checkpoint, steps)
        self._on_progress, self._cancel = on_progress, cancel
        self._turns: list[tuple[int, float]] = []

    def sparsity(self, step: Prune | None = None) -> float:
        """Give the fraction that masks remove of the layers of a step, or of all that are pruned."""
        return self.masks.sparsity(step.layers if step is not None and step.layers else self._pruned)

    def go(self, settings: Mapping[str, Any], plans: Mapping[Prune, Schedule], resume: Path | None) -> TrainedPruned:
        """Train to the end; ``plans`` says when each step makes its masks, and with what sparsity."""
        sample = sample_of(tuple(plans), self.digits.train)
        total = settings["epochs"] * -(-len(self.digits.train) // settings["batch_size"])

        def turn(done: int) -> None:
            for step, plan in plans.items():
                if plan.prunes_at(done):
                    self.masks.set(self.masks.chosen(step, plan(done), sample))
                    self._turns.append((done, self.sparsity()))

        def after(done: int) -> None:
            if done < total:  # masks made after the last step would have nothing to recover in
                turn(done)
            self.masks.apply()

        turn(0)
        result = fit(
            self.masks.model,
            self.digits,
            **settings,
            on_progress=self._tell if self._on_progress is not None else None,
            cancel=self._cancel,
            checkpoint=resume,
            after_step=after,
            about={"pruning": [f"{step!r} {plan!r}" for step, plan in plans.items()]},
        )
        return self._finished(result)

    def _tell(self, progress: Progress) -> None:
        assert self._on_progress is not None
        self._on_progress(PruningProgress(**asdict(progress), sparsity=self.sparsity()))

    def _finished(self, result: TrainingResult) -> TrainedPruned:
        self.masks.apply()  # a diverged or cancelled run may have stopped between a step and its mask
        trained = to_checkpoint(self.masks.plain(), self.checkpoint.name)
        rows = {layer.name: layer for layer in trained.layers}
        before = {layer.name: int(np.prod(layer.shape)) for layer in self.original.layers}
        left = {name: np.prod(rows[name].shape) * (1 - rows[name].sparsity) for name in before}
        chosen = before if self.original is not self.checkpoint or not self._pruned else self._pruned
        return TrainedPruned(
            checkpoint=trained,
            history=result.history,
            cancelled=result.cancelled,
            sparsity=float(1 - sum(left[name] for name in chosen) / sum(before[name] for name in chosen)),
            layers={name: float(1 - left[name] / before[name]) for name in before},
            turns=tuple(self._turns),
            steps=result.steps,
            seconds=result.seconds,
        )


# -- lottery tickets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TicketRound:
    """One round of the search.

    Attributes
    ----------
    sparsity : float
        Fraction of the chosen layers' weights that the masks of this round remove.
    accuracy : float
        On the validation digits, of the network trained under the masks from its own first weights.
    control : float or None
        The same of the control; None in the first round, where nothing is masked, and where none was asked for.
    """

    sparsity: float
    accuracy: float
    control: float | None


@dataclass(frozen=True)
class Ticket:
    """What the search for a lottery ticket came to.

    Attributes
    ----------
    rounds : tuple of TicketRound
        The finished rounds; the first is the whole network.
    masks : mapping of str to ndarray of bool
        The sparsest masks that were trained, by layer, in LiteRT's shapes; True is kept.
    checkpoint : Checkpoint
        The network trained under them.
    cancelled : bool
        True if the search was cancelled.
    """

    rounds: tuple[TicketRound, ...]
    masks: Mapping[str, NDArray[np.bool_]]
    checkpoint: Checkpoint
    cancelled: bool


def lottery_ticket(
    architecture: str | Callable[[int], tf_keras.Model],
    digits: Digits,
    *,
    sparsity: float = 0.9,
    rounds: int = 4,
    scope: str = "layer",
    layers: Sequence[str] | None = None,
    control: Control | None = None,
    epochs: int = 1,
    batch_size: int = 128,
    learning_rate: float = 0.002,
    augment: Augmentation = "none",
    seed: int = 0,
    on_progress: Callable[[PruningProgress], None] | None = None,
    cancel: threading.Event | None = None,
    resume: Path | None = None,
) -> Ticket:
    """Train, prune the smallest weights, rewind the others to where they began, and train again, round after round.

    Parameters
    ----------
    architecture : str or callable
        A name in ``compresskit.training.architectures.ARCHITECTURES``, or what builds an untrained model from a seed:
        the same model for the same seed.
    digits : Digits
        Trained on ``train``; ``validation`` is what the accuracies are measured on.
    sparsity : float, default 0.9
        After the last round. Each round takes the same part of what is left.
    rounds : int, default 4
        How often the network is pruned; it is trained once more than that.
    scope, layers : str, sequence of str, optional
        As in `Prune`.
    control : {"reinitialized", "shuffled"}, optional
        Trains another network beside each ticket, which shows what the luck was in: with the same masks on other first
        weights, or with the same first weights and as many weights removed of each layer by lot.
    epochs, batch_size, learning_rate, augment, seed, cancel
        Of each training, as :func:`compresskit.training.fit.fit` takes them; ``seed`` is that of the first weights too.
    on_progress : callable, optional
        Called with a :class:`PruningProgress` whose epochs and seconds count over all trainings.
    resume : Path, optional
        A file name; each training keeps a file beside it, with its number in the name, and the search goes on from
        these.

    Returns
    -------
    Ticket

    Raises
    ------
    ValueError
        If a setting makes no sense, or the model cannot be pruned so.

    Notes
    -----
    Frankle and Carbin (2018), *The lottery ticket hypothesis*, arXiv:1803.03635: iterative magnitude pruning, rewound
    to the weights from before the first step.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds is {rounds!r}: give a whole number of at least 1.")
    if control is not None and control not in CONTROLS:
        raise ValueError(f"control is {control!r}: choose one of {', '.join(map(repr, CONTROLS))}, or None.")
    step = Prune(sparsity, scope, None if layers is None else tuple(layers))
    plan = Iterative(sparsity, rounds, 1)
    trainings = rounds + 1 + (rounds if control else 0)
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "augment": augment}
    search = _Search(architecture, digits, step, {**settings, "seed": seed}, trainings, on_progress, cancel, resume)
    kept: Mapping[str, NDArray[np.bool_]] = {}
    found: list[TicketRound] = []
    best: tuple[_Candidate, Mapping[str, NDArray[np.bool_]]] | None = None
    for number in range(rounds + 1):
        ticket = search.train(seed, kept)
        if best is None or not ticket.cancelled:
            best = ticket, kept
        other = search.control(control, seed, kept) if control and number and not ticket.cancelled else None
        if ticket.cancelled or (other is not None and other.cancelled):
            break
        found.append(TicketRound(ticket.sparsity, ticket.accuracy, other.accuracy if other else None))
        if number < rounds:
            kept = ticket.masks.chosen(step, plan(number), None)
    assert best is not None
    trained, masks = best
    return Ticket(tuple(found), masks, to_checkpoint(trained.masks.plain(), search.name), len(found) <= rounds)


@dataclass(frozen=True)
class _Candidate:
    """A network of the search, trained."""

    masks: Masks
    sparsity: float
    accuracy: float
    cancelled: bool


class _Search:
    """The trainings of one search, counted through for whoever looks on."""

    def __init__(
        self,
        architecture: str | Callable[[int], tf_keras.Model],
        digits: Digits,
        step: Prune,
        settings: Mapping[str, Any],
        trainings: int,
        on_progress: Callable[[PruningProgress], None] | None,
        cancel: threading.Event | None,
        resume: Path | None,
    ) -> None:
        self._architecture, self._digits, self._step, self._settings = architecture, digits, step, settings
        self._trainings, self._resume = trainings, resume
        self._on_progress, self._cancel = on_progress, cancel
        self._done, self._seconds = 0, 0.0
        self.name = ""

    def control(self, kind: Control, seed: int, kept: Mapping[str, NDArray[np.bool_]]) -> _Candidate:
        """Train what a ticket is compared with."""
        if kind == "shuffled":
            return self.train(seed, _shuffled(kept, seed))
        return self.train(seed + OTHER_SEED, kept)

    def train(self, seed: int, kept: Mapping[str, NDArray[np.bool_]]) -> _Candidate:
        """Train the network that a seed makes, under masks."""
        model = build(self._architecture, seed) if isinstance(self._architecture, str) else self._architecture(seed)
        self.name = str(model.name)
        masks = Masks(model)
        chosen = self._step.layers or tuple(dict.fromkeys(each.name for each in masks.weights))
        masks.set(kept)
        file = None if self._resume is None else self._resume.with_stem(f"{self._resume.stem}-{self._done}")
        removed = {name: int(np.count_nonzero(~mask)) for name, mask in kept.items()}
        result = fit(
            model,
            self._digits,
            **self._settings,
            on_progress=(lambda progress: self._tell(progress, masks.sparsity(chosen))) if self._on_progress else None,
            cancel=self._cancel,
            checkpoint=file,
            after_step=lambda done: masks.apply(),
            about={"ticket": f"{self._step!r} from seed {seed}, removed {removed}"},
        )
        self._done += 1
        self._seconds += result.seconds
        accuracy = result.history[-1].validation_accuracy if result.history else 0.0
        return _Candidate(masks, masks.sparsity(chosen), accuracy, result.cancelled)

    def _tell(self, progress: Progress, sparsity: float) -> None:
        assert self._on_progress is not None
        each = self._settings["epochs"]
        steps = (self._done * each + progress.epoch - 1) * progress.steps + progress.step
        seconds = self._seconds + progress.seconds
        counted = {
            "epoch": self._done * each + progress.epoch,
            "epochs": self._trainings * each,
            "seconds": seconds,
            "seconds_left": seconds * (self._trainings * each * progress.steps / steps - 1),
        }
        self._on_progress(PruningProgress(**{**asdict(progress), **counted}, sparsity=sparsity))


def _shuffled(kept: Mapping[str, NDArray[np.bool_]], seed: int) -> dict[str, NDArray[np.bool_]]:
    """Draw masks that remove as much of each layer, by lot."""
    generator = np.random.default_rng([seed, len(kept)])
    return {name: generator.permutation(mask.reshape(-1)).reshape(mask.shape) for name, mask in kept.items()}


# -- before training ------------------------------------------------------------------------------------------------


def _sorted(
    steps: tuple[Prune, ...], checkpoint: Checkpoint, schedule: ScheduleName | Schedule | None
) -> tuple[tuple[Prune, ...], tuple[Prune, ...]]:
    """Check the steps, and part those that cut channels from those that set weights to zero."""
    if not steps:
        raise ValueError("step: there is none; give a Prune step, or several.")
    Recipe(*steps)
    known = [layer.name for layer in checkpoint.layers]
    for name in (name for step in steps for name in step.layers or ()):
        if name not in known:
            raise ValueError(f"step: layer {name!r} is not in {checkpoint.name!r}; its layers are {', '.join(known)}")
    channels = tuple(step for step in steps if step.pattern == "channel")
    weights = tuple(step for step in steps if step.pattern != "channel")
    if not isinstance(schedule, Schedule) and schedule is not None and schedule not in SCHEDULES:
        raise ValueError(
            f"schedule is {schedule!r}: choose one of {', '.join(map(repr, SCHEDULES))}, or give a Schedule."
        )
    if not weights and schedule not in (None, "one-shot"):
        raise ValueError(
            f"schedule is {schedule!r} with pattern 'channel': channels are cut out before the training begins; leave "
            "the schedule out."
        )
    named = [name for step in weights for name in step.layers or ()]
    twice = [name for name in named if named.count(name) > 1]
    if twice or (len(weights) > 1 and any(step.layers is None for step in weights)):
        which = f"layer {twice[0]!r} is" if twice else "layers are"
        raise ValueError(f"step: {which} in more than one step; name each layer in one of them.")
    return channels, weights


def _pruned_layers(model: tf_keras.Model, checkpoint: Checkpoint, steps: tuple[Prune, ...]) -> tuple[str, ...]:
    """List the layers that steps prune, and refuse those whose weights a mask cannot lie on."""
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    known = [layer.name for layer in checkpoint.layers]
    chosen = tuple(name for step in steps for name in step.layers or known)
    for name in chosen:
        if kinds.get(name) not in FOLDS:
            kind = kinds.get(name, "operator that is no Keras layer of that name")
            raise ValueError(
                f"layer {name!r} is a {kind}: pruning while training covers {', '.join(FOLDS)}. Name the others with "
                "Prune(layers=...), or prune after training."
            )
    return chosen


def _plan(step: Prune, schedule: ScheduleName | Schedule | None, total: int, present: float) -> Schedule:
    """Make the schedule of a step for a run of so many training steps, from the sparsity that there is already."""
    final = step.sparsity or 0.0
    fixed = parse_pattern(step.pattern).sparsity is not None
    if isinstance(schedule, Schedule):
        if schedule.turns[0] >= total or not (fixed or math.isclose(schedule.applied_at(total - 1), final)):
            raise ValueError(
                f"schedule: it comes to a sparsity of {schedule.applied_at(total - 1):g} in the {total:,} steps of "
                f"this run, but the step asks for {final:g}; let its last turn come before {total:,}, and end there"
            )
        return OneShot(final, schedule.turns[0]) if fixed else schedule
    end = min(max(1, int(RAMP * total)), total - 1)
    if schedule == "one-shot" or fixed or end < 1:
        return OneShot(final)
    if schedule == "iterative":
        return Iterative(final, min(ROUNDS, end), max(1, end // ROUNDS))
    frequency = max(1, end // TURNS)
    end -= end % frequency
    if schedule == "constant":
        return Constant(final, 0, end, frequency)
    ramp = Cosine if schedule == "cosine" else Polynomial
    return ramp(min(present, final), final, 0, end, frequency)
