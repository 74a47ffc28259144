"""Temperatures, teachers and narrow selves: the trainings that lesson 11 draws, over several seeds.

    python -m compresskit.training.distillation_runs

writes them to ``compresskit/course/data/distillation_runs.json``, with all settings beside them. Each finished run is
written at once, and a run that is there is not made again: the command can be stopped and given again. Three groups:

- *temperature*: two students on 1,000 digits, without a teacher and with one at several temperatures;
- *teacher*: the smaller student with teachers of several sizes, and with all of them together;
- *narrow*: a network distilled into itself with few bits, against the same training without a teacher.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compresskit.atomic import write_atomically
from compresskit.data import Digits, load_mnist
from compresskit.evaluation import evaluate
from compresskit.recipe import Quantize
from compresskit.training.comparison import Gain, paired_gain
from compresskit.zoo import load_model

COMMAND = "python -m compresskit.training.distillation_runs"
RESULTS = Path(__file__).resolve().parents[1] / "course" / "data" / "distillation_runs.json"
SEEDS = (0, 1, 2)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0, 40.0)
STUDENTS = ("dense-30x1", "dense-300x1")
TEACHERS = ("lenet_300_100", "lenet5", "digit_reader", "big_teacher", "lenet5+digit_reader+big_teacher")
ALONE = "none"
FIXED_TEMPERATURE = 8.0  # where only the teacher changes
BITS = (4, 2)


@dataclass(frozen=True)
class Settings:
    """What all runs of the first two groups have in common.

    Attributes
    ----------
    digits : int
        Training digits, from the first on; they are not moved.
    epochs, batch_size : int
        As ``fit`` takes them.
    learning_rate : float
        The highest.
    alpha : float
        Weight of the teacher, where there is one.
    """

    digits: int = 1000
    epochs: int = 20
    batch_size: int = 50
    learning_rate: float = 0.002
    alpha: float = 0.9

    def shorten(self, digits: Digits) -> Digits:
        """Leave the training digits that are used."""
        return replace(digits, train=digits.train.take(self.digits))


NARROW = Settings(digits=5000, epochs=1, batch_size=128, learning_rate=0.001)


@dataclass(frozen=True)
class Run:
    """One training, and what came of it.

    Attributes
    ----------
    group : str
        "temperature", "teacher" or "narrow".
    student, teacher : str
        Names; several teachers are joined by ``+``, and ``none`` is the control.
    temperature : float
        T; 1 for the control.
    bits : int
        Of the student's weights: 32, or fewer in the group "narrow".
    seed : int
        Of the training.
    validation, test : float
        Accuracies on the 5,000 validation and the 10,000 test digits; NaN before it is made.
    """

    group: str
    student: str
    teacher: str
    temperature: float
    bits: int
    seed: int
    validation: float = float("nan")
    test: float = float("nan")

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it the same run."""
        return (self.group, self.student, self.teacher, self.temperature, self.bits, self.seed)


def plan(seeds: Sequence[int] = SEEDS) -> Iterator[Run]:
    """List all runs, a whole round for each seed before the next one."""
    for seed in seeds:
        for student in STUDENTS:
            yield Run("temperature", student, ALONE, 1.0, 32, seed)
            for temperature in TEMPERATURES:
                yield Run("temperature", student, "big_teacher", temperature, 32, seed)
        for teacher in TEACHERS:
            yield Run("teacher", STUDENTS[0], teacher, FIXED_TEMPERATURE, 32, seed)
        for bits in BITS:
            for teacher in (ALONE, "lenet_300_100"):
                yield Run("narrow", "lenet_300_100", teacher, 1.0 if teacher == ALONE else 4.0, bits, seed)


def make(run: Run, digits: Digits) -> Run:
    """Train, and measure.

    Parameters
    ----------
    run : Run
        What to train.
    digits : Digits
        Whole; the settings say how much of them is used.

    Returns
    -------
    Run
        With its accuracies.

    Raises
    ------
    ValueError
        As :func:`compresskit.training.distill.distill` does.
    """
    from compresskit.training.distill import distill

    narrow = run.group == "narrow"
    settings = NARROW if narrow else Settings()
    alone = run.teacher == ALONE
    names = ("big_teacher",) if alone else tuple(run.teacher.split("+"))
    step = Quantize(weights=run.bits, granularity="tensor", ranges="mse", store="int8") if narrow else None
    result = distill(
        [load_model(name) for name in names],
        load_model(run.student) if narrow else run.student,
        settings.shorten(digits),
        temperature=run.temperature,
        alpha=0.0 if alone else settings.alpha,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        augment="none",
        seed=run.seed,
        into=step,
    )
    file = result.compressed or result.checkpoint
    return replace(
        run, validation=evaluate(file, digits.validation).accuracy, test=evaluate(file, digits.test).accuracy
    )


def load_runs(path: Path = RESULTS) -> tuple[dict[str, Any], tuple[Run, ...]]:
    """Read what the command wrote.

    Parameters
    ----------
    path : Path
        The JSON file.

    Returns
    -------
    dict, tuple of Run
        How it was measured (``command``, ``settings``, ``narrow``), and the finished runs.

    Raises
    ------
    ValueError
        If there is no such file, or it is not one of these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = tuple(Run(**run) for run in content.pop("runs"))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"path is {path}: not the results of `{COMMAND}` ({error}); run it to make them") from error
    return content, runs


def chosen(runs: Sequence[Run], *, measure: str = "test", **settings: Any) -> list[float]:
    """Pick the accuracies of all seeds of one setting, in the order of the seeds.

    Parameters
    ----------
    runs : sequence of Run
        From `load_runs`.
    measure : {"test", "validation"}
        On which digits.
    **settings
        Fields of `Run` that must be so.

    Raises
    ------
    ValueError
        If nothing was measured there.
    """
    found = [run for run in runs if all(getattr(run, name) == value for name, value in settings.items())]
    if not found:
        raise ValueError(f"settings are {settings}: no run with them is among the results")
    return [float(getattr(run, measure)) for run in sorted(found, key=lambda run: run.seed)]


def gain_over_control(runs: Sequence[Run], student: str, temperature: float) -> Gain:
    """Compute what the teacher brought a student at a temperature, on the test digits, in pairs of equal seeds."""
    of_student = {"group": "temperature", "student": student}
    taught = chosen(runs, **of_student, teacher="big_teacher", temperature=temperature)
    return paired_gain(taught, chosen(runs, **of_student, teacher=ALONE))


def go_on(path: Path, digits: Digits, seeds: Sequence[int], tell: Callable[[str], None]) -> None:
    """Make all runs that the file does not hold yet, and write each one at once."""
    done = {run.key: run for run in load_runs(path)[1]} if path.exists() else {}
    started = time.monotonic()
    for run in plan(seeds):
        if run.key in done:
            continue
        done[run.key] = make(run, digits)
        write(path, tuple(done.values()))
        made = done[run.key]
        place = f"{run.group:12} {run.student:14} {run.teacher:32} T={run.temperature:<4g} {run.bits:2} bits"
        tell(f"{place} seed {run.seed}  {made.test:.2%}  {time.monotonic() - started:5.0f} s")


def write(path: Path, runs: Sequence[Run]) -> None:
    """Write runs with the settings that they were made with."""
    content = {
        "command": COMMAND,
        "settings": asdict(Settings()),
        "narrow": asdict(NARROW),
        "runs": [asdict(run) for run in runs],
    }
    with write_atomically(path) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())


def mean(values: Sequence[float]) -> float:
    """Average over seeds."""
    return float(np.mean(values))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; see the head of this module."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to go on with (default: the course's own)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args(arguments)
    go_on(options.out, load_mnist(), options.seeds, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
