"""How sparsity grows while a network trains.

A schedule is called with a training step, counted from 0, and returns the sparsity that masks made at that step should
have. Masks are not made at every step: `Schedule.turns` are the steps that make them, and in between they stay as
they are, so what the network really has at a step is `Schedule.applied_at`.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Schedule(ABC):
    """A sparsity for each step, and the steps at which masks are made."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the sparsity, in [0, 1), that masks made at this step should have."""

    @property
    @abstractmethod
    def turns(self) -> range:
        """The steps at which masks are made."""

    def prunes_at(self, step: int) -> bool:
        """Say whether masks are made at a step.

        Parameters
        ----------
        step : int
            Training step, from 0.

        Returns
        -------
        bool
        """
        return step in self.turns

    def applied_at(self, step: int) -> float:
        """Return the sparsity of the masks in use at a step: that of the last turn so far, or 0 before the first.

        Parameters
        ----------
        step : int
            Training step, from 0.

        Returns
        -------
        float
            In [0, 1).
        """
        if step < self.turns.start:
            return 0.0
        passed = (step - self.turns.start) // self.turns.step
        return self(self.turns[min(passed, len(self.turns) - 1)])


@dataclass(frozen=True)
class Constant(Schedule):
    """The same sparsity from the first turn to the last.

    Parameters
    ----------
    sparsity : float
        In [0, 1).
    begin : int, optional
        First step that prunes, >= 0.
    end : int or None, optional
        Last step that may prune; ``None`` goes on for ever (TFMOT writes -1).
    frequency : int, optional
        Masks are made every so many steps from ``begin`` on, >= 1.

    Notes
    -----
    TFMOT's ``ConstantSparsity``, number for number.
    """

    sparsity: float
    begin: int = 0
    end: int | None = None
    frequency: int = 100

    def __post_init__(self) -> None:
        _check_sparsity("sparsity", self.sparsity)
        _check_steps(self.begin, self.end, self.frequency)

    def __call__(self, step: int) -> float:
        """Return the sparsity; it does not depend on the step."""
        return self.sparsity

    @property
    def turns(self) -> range:
        """``begin``, ``begin + frequency`` and so on, up to ``end``."""
        return range(self.begin, sys.maxsize if self.end is None else self.end + 1, self.frequency)


@dataclass(frozen=True)
class _Ramp(Schedule):
    """A way from one sparsity to another between two steps; before and after, the sparsity stays."""

    initial: float
    final: float
    begin: int
    end: int
    frequency: int = 100

    def __post_init__(self) -> None:
        _check_sparsity("initial", self.initial)
        _check_sparsity("final", self.final)
        _check_steps(self.begin, self.end, self.frequency)
        if self.end == self.begin:
            raise ValueError(f"end is {self.end}, the same as begin; choose a later end, or the schedule OneShot")

    @property
    def turns(self) -> range:
        """``begin``, ``begin + frequency`` and so on, up to ``end``."""
        return range(self.begin, self.end + 1, self.frequency)

    def progress(self, step: int) -> float:
        """Return the part of the way that is done at a step: 0 up to ``begin``, 1 from ``end`` on."""
        return min(1.0, max(0.0, (step - self.begin) / (self.end - self.begin)))


@dataclass(frozen=True)
class Polynomial(_Ramp):
    """Fast at first, while there is much to remove, then slower and slower.

    ``sparsity = final + (initial - final) · (1 - progress) ** power``

    Parameters
    ----------
    initial, final : float
        Sparsity at ``begin`` and at ``end``, both in [0, 1).
    begin, end : int
        First step that prunes and last that may, 0 <= begin < end.
    frequency : int, optional
        Masks are made every so many steps from ``begin`` on, >= 1. Unless it divides ``end - begin``, the last turn
        comes before ``end`` and the final sparsity is not quite reached.
    power : float, optional
        Above 0. 3 is the paper's; 1 is a straight line.

    Notes
    -----
    Zhu and Gupta (2017), *To prune, or not to prune*, arXiv:1710.01878. TFMOT's ``PolynomialDecay``, number for number.
    """

    power: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.power > 0 and math.isfinite(self.power)):
            raise ValueError(f"power is {self.power!r}; choose a number above 0 (3 is the paper's)")

    def __call__(self, step: int) -> float:
        """Return the sparsity that masks made at this step should have."""
        return self.final + (self.initial - self.final) * math.pow(1 - self.progress(step), self.power)


@dataclass(frozen=True)
class Cosine(_Ramp):
    """Slow at first, slow at the end, and fast between: half a wave.

    ``sparsity = final + (initial - final) · (1 + cos(π · progress)) / 2``

    Parameters
    ----------
    initial, final : float
        Sparsity at ``begin`` and at ``end``, both in [0, 1).
    begin, end : int
        First step that prunes and last that may, 0 <= begin < end.
    frequency : int, optional
        Masks are made every so many steps from ``begin`` on, >= 1.

    Notes
    -----
    The annealing of Loshchilov and Hutter (2016), *SGDR*, arXiv:1608.03983, applied to sparsity.
    """

    def __call__(self, step: int) -> float:
        """Return the sparsity that masks made at this step should have."""
        return self.final + (self.initial - self.final) * (1 + math.cos(math.pi * self.progress(step))) / 2


@dataclass(frozen=True)
class OneShot(Schedule):
    """Everything at once, then train on under the mask.

    Parameters
    ----------
    sparsity : float
        In [0, 1).
    begin : int, optional
        The one step that prunes, >= 0.
    """

    sparsity: float
    begin: int = 0

    def __post_init__(self) -> None:
        _check_sparsity("sparsity", self.sparsity)
        _check_steps(self.begin, None, 1)

    def __call__(self, step: int) -> float:
        """Return 0 before the step that prunes, the sparsity from it on."""
        return self.sparsity if step >= self.begin else 0.0

    @property
    def turns(self) -> range:
        """The one step that prunes."""
        return range(self.begin, self.begin + 1)


@dataclass(frozen=True)
class Iterative(Schedule):
    """Prune, train on, prune again: each round takes the same part of the weights that are left.

    After round k of K the sparsity is ``1 - (1 - final) ** (k / K)``.

    Parameters
    ----------
    final : float
        Sparsity after the last round, in [0, 1).
    rounds : int
        How many times the network is pruned, >= 1.
    every : int
        Steps of training from one round to the next, >= 1.
    begin : int, optional
        Step of the first round, >= 0.

    Notes
    -----
    Han, Pool, Tran and Dally (2015), arXiv:1506.02626; with a rewind to early weights at each round it is the search
    for a lottery ticket (Frankle and Carbin, 2018, arXiv:1803.03635).
    """

    final: float
    rounds: int
    every: int
    begin: int = 0

    def __post_init__(self) -> None:
        _check_sparsity("final", self.final)
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; choose at least 1")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; choose at least 1 step from one round to the next")
        _check_steps(self.begin, None, self.every)

    def __call__(self, step: int) -> float:
        """Return the sparsity of the round that a step belongs to, 0 before the first."""
        if step < self.begin:
            return 0.0
        passed = min((step - self.begin) // self.every + 1, self.rounds)
        return self.final if passed == self.rounds else 1 - math.pow(1 - self.final, passed / self.rounds)

    @property
    def turns(self) -> range:
        """The first step of each round."""
        return range(self.begin, self.begin + self.rounds * self.every, self.every)


def _check_sparsity(parameter: str, sparsity: float) -> None:
    """Raise if a sparsity is not one."""
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"{parameter} is {sparsity!r}; choose a sparsity from 0 up to, but not including, 1")


def _check_steps(begin: int, end: int | None, frequency: int) -> None:
    """Raise if there are no turns, or some before the training begins."""
    if begin < 0:
        raise ValueError(f"begin is {begin}; choose a step from 0 on")
    if end is not None and end < begin:
        raise ValueError(f"end is {end}, before begin at {begin}; choose a later step")
    if frequency < 1:
        raise ValueError(f"frequency is {frequency}; choose at least 1 step from one turn to the next")
