"""Accuracy against bits, rounded after training and trained with rounding, over several seeds.

    python -m compresskit.training.qat_curves

writes the numbers that lesson 06 draws to ``compresskit/course/data/qat_curves.json``, with all settings beside them.
Each number is the accuracy of a file on the test digits. Three ways are compared, so that the gain of rounding while
training is not mistaken for the gain of training on:

- *rounded*: the shipped model, rounded;
- *control*: the shipped model, trained on without rounding, then rounded;
- *trained*: the shipped model, trained on for as long with rounding (:mod:`compresskit.training.quantize`).
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
from compresskit.recipe import Quantize, Recipe
from compresskit.zoo import Checkpoint, load_model

COMMAND = "python -m compresskit.training.qat_curves"
RESULTS = Path(__file__).resolve().parents[1] / "course" / "data" / "qat_curves.json"
BITS = (8, 4, 3, 2)
GRANULARITIES = ("channel", "tensor")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Settings:
    """What all runs have in common.

    Attributes
    ----------
    model : str
        A shipped model.
    digits : int
        Training digits, from the first on.
    epochs : int
        How often each of them is seen.
    learning_rate : float
        The highest.
    ranges : str
        Where weights are clipped before they are rounded; the same for all three ways.
    """

    model: str = "lenet_300_100"
    digits: int = 10_000
    epochs: int = 1
    learning_rate: float = 0.001
    ranges: str = "mse"

    def step(self, bits: int, granularity: str) -> Quantize:
        """Give the recipe's step: weights of so many bits, in bytes where LiteRT has no narrower kernel."""
        store = "int8" if bits < 8 else "auto"
        return Quantize(weights=bits, granularity=granularity, ranges=self.ranges, store=store)

    def shorten(self, digits: Digits) -> Digits:
        """Leave the training digits that are used; the test digits stay whole."""
        return replace(digits, train=digits.train.take(self.digits), validation=digits.validation.take(1000))


@dataclass(frozen=True)
class Point:
    """One accuracy.

    Attributes
    ----------
    way : str
        "rounded", "control" or "trained".
    bits : int
        Of a weight; activations have 8.
    granularity : str
        "channel" or "tensor".
    seed : int or None
        Of the training; None where nothing is trained.
    accuracy : float
        Of the file, on the test digits.
    """

    way: str
    bits: int
    granularity: str
    seed: int | None
    accuracy: float


def trained_point(
    model: Checkpoint, settings: Settings, bits: int, granularity: str, seed: int, digits: Digits
) -> Point:
    """Train with rounding and measure the file.

    Parameters
    ----------
    model : Checkpoint
        Where training starts.
    settings : Settings
        Length and rate of the training.
    bits, granularity, seed
        Of this run.
    digits : Digits
        Whole; `settings` says how much of them is used.

    Returns
    -------
    Point

    Raises
    ------
    ValueError
        As :func:`compresskit.training.quantize.train_quantized` does.
    """
    from compresskit.training.quantize import train_quantized

    result = train_quantized(
        model,
        settings.step(bits, granularity),
        settings.shorten(digits),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        seed=seed,
    )
    return Point("trained", bits, granularity, seed, evaluate(result.compressed, digits.test).accuracy)


def control(model: Checkpoint, settings: Settings, seed: int, digits: Digits) -> Checkpoint:
    """Train a model on for as long, on the same digits in the same order, without rounding."""
    from compresskit.training.convert import to_checkpoint, to_keras
    from compresskit.training.fit import fit

    network = to_keras(model)
    fit(
        network,
        settings.shorten(digits),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        augment="shift",
        seed=seed,
    )
    return to_checkpoint(network, model.name)


def rounded_points(
    model: Checkpoint, settings: Settings, seed: int | None, digits: Digits, bits: Sequence[int] = BITS
) -> Iterator[Point]:
    """Round a model to each width and measure the files; without a seed it is the shipped model."""
    way = "rounded" if seed is None else "control"
    for granularity in GRANULARITIES:
        for width in bits:
            small = compress(model, Recipe(settings.step(width, granularity)), digits.train)
            yield Point(way, width, granularity, seed, evaluate(small, digits.test).accuracy)


def measure(settings: Settings, seeds: Sequence[int], bits: Sequence[int], digits: Digits) -> Iterator[Point]:
    """Run everything, point after point."""
    model = load_model(settings.model)
    yield from rounded_points(model, settings, None, digits, bits)
    for seed in seeds:
        yield from rounded_points(control(model, settings, seed, digits), settings, seed, digits, bits)
        for granularity in GRANULARITIES:
            for width in bits:
                yield trained_point(model, settings, width, granularity, seed, digits)


def load_points(path: Path = RESULTS) -> tuple[dict[str, Any], tuple[Point, ...]]:
    """Read what the command wrote.

    Parameters
    ----------
    path : Path
        The JSON file.

    Returns
    -------
    dict, tuple of Point
        How it was measured (``command``, ``settings``, ``seeds``, ``bits``, ``test_digits``, ``float_accuracy``), and
        the points.

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


def spread(points: Sequence[Point], way: str, bits: int, granularity: str) -> tuple[float, float, float]:
    """Give the lowest, the mean and the highest accuracy over the seeds of one setting.

    Raises
    ------
    ValueError
        If nothing was measured there.
    """
    found = [p.accuracy for p in points if (p.way, p.bits, p.granularity) == (way, bits, granularity)]
    if not found:
        raise ValueError(f"no point of way {way!r} with {bits} bits per {granularity} was measured")
    return min(found), float(np.mean(found)), max(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the file; each point is printed as it comes."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write (default: the course's own)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--bits", type=int, nargs="+", default=list(BITS))
    parser.add_argument("--digits", type=int, default=Settings.digits, help="training digits")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    options = parser.parse_args(arguments)
    settings = Settings(digits=options.digits, epochs=options.epochs)
    digits = load_mnist()
    started = time.monotonic()
    points = []
    for point in measure(settings, options.seeds, options.bits, digits):
        points.append(point)
        seed = "" if point.seed is None else f"seed {point.seed}"
        place = f"{point.way:8} {point.bits} bits per {point.granularity:8}{seed:7}"
        print(f"{place} {point.accuracy:.2%}  {time.monotonic() - started:5.0f} s", flush=True)
    content = {
        "command": COMMAND,
        "settings": asdict(settings),
        "seeds": options.seeds,
        "bits": options.bits,
        "test_digits": len(digits.test),
        "float_accuracy": evaluate(load_model(settings.model), digits.test).accuracy,
        "points": [asdict(point) for point in points],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(options.out) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
