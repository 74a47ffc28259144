"""How long quantization takes: integers in NumPy, ranges, the scan of all layers, and a recipe to a checked file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

import compresskit as ck
from compresskit.analysis import quantization_sensitivity
from compresskit.litert.integer_layers import integer_model
from compresskit.litert.runtime import outputs
from compresskit.quantization.histogram import Histogram
from compresskit.quantization.ranges import choose_range
from tests.benchmarks.row import Row, compare

DIGITS: Final = 1000
VALUES: Final = 1_000_000
METHODS: Final = ("minmax", "moving", "percentile", "mse", "octav", "entropy")
PAIRS: Final = 3


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(work: Callable[[], object], runs: int = 3) -> float:
    """Time several calls and take the fastest: what the work itself takes, on a machine that is never quiet."""
    return min(seconds(work) for _ in range(runs))


def integers_against_reference_kernels() -> list[Row]:
    """Compute the same digits in NumPy's integers and with LiteRT's reference kernels; both must agree exactly."""
    digits, model = ck.load_mnist(), ck.load_model("digit_reader")
    tflite = ck.compress(model, ck.Recipe(ck.Quantize()), digits.train).tflite
    images = np.asarray(digits.test.images[:DIGITS])
    ours = integer_model(tflite)
    encoded = ours.encode(images)
    assert np.array_equal(ours.decode(ours.run(encoded)), outputs(tflite, images, reference=True))
    row = compare(
        f"integer network, {DIGITS:,} digits",
        lambda _: seconds(lambda: ours.run(encoded)),
        lambda _: seconds(lambda: outputs(tflite, images, reference=True)),
        pairs=PAIRS,
        unit="s",
    )
    assert row.reference is not None
    rate = Row("integer network", DIGITS / row.ours, DIGITS / row.reference, row.ratio, "/s")
    return [row, rate]


def range_searches() -> list[Row]:
    """Choose a range for a million activations, the histogram included, by each calibrator."""
    values = np.maximum(np.random.default_rng(0).normal(0, 1, VALUES), 0).astype(np.float32)
    counted = Row("histogram of 1,000,000 values", 1000 * best(lambda: Histogram.of(values)), None, None, "ms")
    return [
        counted,
        *(
            Row(
                f"range of 1,000,000 values, {method}",
                1000 * best(lambda method=method: choose_range(Histogram.of(values), method, 8)),
                None,
                None,
                "ms",
            )
            for method in METHODS
        ),
    ]


def sensitivity_scan() -> Row:
    """Score every layer of the digit reader in 8, 4 and 2 bits on 10,000 digits; at most 10 s on two idle cores."""
    digits, model = ck.load_mnist(), ck.load_model("digit_reader")
    took = best(lambda: quantization_sensitivity(model, digits.test, bits=(8, 4, 2)), runs=2)
    return Row("sensitivity scan, 12 files x 10,000 digits", took, 10.0, 10.0 / took, "s")


def recipe_to_file() -> list[Row]:
    """Make a file and check it, operator by operator; what depends on the float model alone is cached."""
    digits, model = ck.load_mnist(), ck.load_model("digit_reader")
    recipes = {
        "int8": ck.Recipe(ck.Quantize()),
        "dynamic int4, OCTAV": ck.Recipe(ck.Quantize(weights=4, activations=32, ranges="octav")),
        "float16": ck.Recipe(ck.Quantize(weights=16, activations=32)),
    }
    ck.compress(model, recipes["int8"], digits.train)
    return [
        Row(
            f"recipe to checked file, {name}",
            1000 * best(lambda recipe=recipe: ck.compress(model, recipe, digits.train), runs=5),
            None,
            None,
            "ms",
        )
        for name, recipe in recipes.items()
    ]


def rows() -> list[Row]:
    """Measure everything in this file."""
    return [*integers_against_reference_kernels(), *range_searches(), sensitivity_scan(), *recipe_to_file()]
