"""Schedules of pruning compared, and lottery tickets with their controls, over several seeds.

    python -m compresskit.training.pruning_curves

writes the numbers that lesson 07 draws to ``compresskit/course/data/pruning_curves.json``, with all settings beside
them. Two experiments on LeNet-300-100:

- *schedules*: the shipped model loses 95 % of its weights while it is trained on, by each schedule. Beside them stand
  the model pruned and not trained, and the *control*: trained on for as long, nothing pruned. Scored on test digits.
- *tickets*: networks from nothing, trained, pruned, rewound and trained again, round after round. Beside each stand two
  controls: the same masks on other first weights, and as many weights removed by lot. Scored on validation digits.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compresskit.atomic import write_atomically
from compresskit.compression import compress
from compresskit.data import Digits, load_mnist
from compresskit.evaluation import evaluate
from compresskit.recipe import Prune, Recipe
from compresskit.zoo import load_model

COMMAND = "python -m compresskit.training.pruning_curves"
RESULTS = Path(__file__).resolve().parents[1] / "course" / "data" / "pruning_curves.json"
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Settings:
    """What all runs have in common.

    Attributes
    ----------
    model : str
        A shipped model, and the architecture of that name.
    digits : int
        Training digits, from the first on.
    epochs : int
        How often each of them is seen, in each training.
    sparsity : float
        Where schedules end; one threshold for all layers.
    ticket_sparsity : float
        Where the search for a ticket ends; the same share of each layer.
    rounds : int
        Of the search.
    """

    model: str = "lenet_300_100"
    digits: int = 10_000
    epochs: int = 3
    sparsity: float = 0.95
    ticket_sparsity: float = 0.98
    rounds: int = 5

    def shorten(self, digits: Digits) -> Digits:
        """Leave the training digits that are used; the others stay whole."""
        return replace(digits, train=digits.train.take(self.digits))


@dataclass(frozen=True)
class Point:
    """One accuracy.

    Attributes
    ----------
    experiment : str
        "schedule" or "ticket".
    way : str
        A schedule, "pruned" (not trained) or "control" (trained, not pruned); for tickets "ticket", "reinitialized" or
        "shuffled".
    sparsity : float
        Fraction of the weights that is gone.
    seed : int or None
        Of the training; None where nothing is trained.
    accuracy : float
        On test digits for schedules, on validation digits for tickets.
    """

    experiment: str
    way: str
    sparsity: float
    seed: int | None
    accuracy: float


def schedule_points(settings: Settings, seeds: Sequence[int], digits: Digits) -> Iterator[Point]:
    """Train under each schedule with each seed, and measure the files."""
    from compresskit.training.prune import SCHEDULES, fine_tune, train_pruned

    model, step, few = load_model(settings.model), Prune(settings.sparsity, scope="global"), settings.shorten(digits)
    pruned = compress(model, Recipe(step))
    yield Point("schedule", "pruned", step.sparsity or 0.0, None, evaluate(pruned, digits.test).accuracy)
    for seed in seeds:
        whole = fine_tune(model, few, epochs=settings.epochs, augment="none", seed=seed)
        yield Point("schedule", "control", 0.0, seed, evaluate(whole.checkpoint, digits.test).accuracy)
        for schedule in SCHEDULES:
            made = train_pruned(
                model, step, few, schedule=schedule, epochs=settings.epochs, augment="none", seed=seed
            )  # fmt: skip
            yield Point("schedule", schedule, made.sparsity, seed, evaluate(made.checkpoint, digits.test).accuracy)


def ticket_points(settings: Settings, seeds: Sequence[int], digits: Digits) -> Iterator[Point]:
    """Search for a ticket with each seed, beside each control."""
    from compresskit.training.prune import CONTROLS, lottery_ticket

    for seed in seeds:
        for control in CONTROLS:
            found = lottery_ticket(
                settings.model,
                settings.shorten(digits),
                sparsity=settings.ticket_sparsity,
                rounds=settings.rounds,
                control=control,
                epochs=settings.epochs,
                seed=seed,
            )
            for row in found.rounds:
                if control == CONTROLS[0]:  # the second search trains the same tickets again
                    yield Point("ticket", "ticket", row.sparsity, seed, row.accuracy)
                if row.control is not None:
                    yield Point("ticket", control, row.sparsity, seed, row.control)


def load_points(path: Path = RESULTS) -> tuple[dict[str, Any], tuple[Point, ...]]:
    """Read what the command wrote.

    Parameters
    ----------
    path : Path
        The JSON file.

    Returns
    -------
    dict, tuple of Point
        How it was measured (``command``, ``settings``, ``seeds``, ``test_digits``, ``validation_digits``,
        ``float_accuracy``), and the points.

    Raises
    ------
    ValueError
        If there is no such file, or it is not one of these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        points = tuple(Point(**point) for point in content.pop("points"))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"path is {path}: not the results of `{COMMAND}` ({error}); run it to make them") from error
    return content, points


def spread(
    points: Sequence[Point], experiment: str, way: str, sparsity: float | None = None
) -> tuple[float, float, float]:
    """Give the lowest, the mean and the highest accuracy over the seeds.

    Parameters
    ----------
    points
        As `load_points` gives them.
    experiment, way
        Which of them.
    sparsity
        Only at this sparsity, to three digits; by default at all.

    Raises
    ------
    ValueError
        If nothing was measured there.
    """
    found = [
        point.accuracy
        for point in points
        if (point.experiment, point.way) == (experiment, way)
        and (sparsity is None or abs(point.sparsity - sparsity) < 5e-4)
    ]
    if not found:
        raise ValueError(f"no point of {experiment!r}, way {way!r} at sparsity {sparsity} was measured")
    return min(found), float(np.mean(found)), max(found)


def sparsities(points: Sequence[Point], experiment: str, way: str) -> tuple[float, ...]:
    """List the sparsities at which something was measured, ascending, to four digits."""
    found = {round(point.sparsity, 4) for point in points if (point.experiment, point.way) == (experiment, way)}
    return tuple(sorted(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the file; each point is printed as it comes."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write (default: the course's own)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--digits", type=int, default=Settings.digits, help="training digits")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--rounds", type=int, default=Settings.rounds, help="of the search for a ticket")
    options = parser.parse_args(arguments)
    settings = Settings(digits=options.digits, epochs=options.epochs, rounds=options.rounds)
    digits = load_mnist()
    started = time.monotonic()
    points: list[Point] = []
    for measured in (schedule_points(settings, options.seeds, digits), ticket_points(settings, options.seeds, digits)):
        for point in measured:
            points.append(point)
            seed = "" if point.seed is None else f"seed {point.seed}"
            place = f"{point.experiment:9}{point.way:14}{point.sparsity:6.1%}  {seed:7}"
            print(f"{place} {point.accuracy:.2%}  {time.monotonic() - started:5.0f} s", flush=True)
    content = {
        "command": COMMAND,
        "settings": asdict(settings),
        "seeds": options.seeds,
        "test_digits": len(digits.test),
        "validation_digits": len(digits.validation),
        "float_accuracy": evaluate(load_model(settings.model), digits.test).accuracy,
        "points": [asdict(point) for point in points],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(options.out) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
