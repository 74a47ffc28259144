"""How long pruning takes: masks, channels cut out and rebuilt, a slider to its score, and an epoch of training."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import compresskit as ck
from compresskit.litert.gradients import weight_gradients
from compresskit.litert.surgery import remove_channels
from compresskit.pruned import GRADIENT_DIGITS, kept_channels, prune
from compresskit.pruning import importance, patterns
from compresskit.widgets.points import compute_point
from compresskit.widgets.workbench import Setting
from tests.benchmarks.row import Row, compare

WEIGHTS: Final = (3200, 3200)
"""A little over ten million weights."""
SPARSITY: Final = 0.9
TRAINED_DIGITS: Final = 12_800
PAIRS: Final = 3
PATTERNS: Final = ("unstructured", "2:4", "block 1x4", "block 4x4", "channel")


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def masks() -> list[Row]:
    """Make masks of ten million weights: against a bare `np.partition`, and against TFMOT's pruning op."""
    scores = importance.magnitude(np.random.default_rng(0).standard_normal(WEIGHTS, np.float32))
    removed = round(SPARSITY * scores.size)
    found = [
        compare(
            "mask of 10 M weights, reference np.partition",
            lambda _: 1000 * seconds(lambda: patterns.unstructured_mask(scores, SPARSITY)),
            lambda _: 1000 * seconds(lambda: np.partition(scores.reshape(-1), removed - 1)[removed - 1]),
            pairs=PAIRS,
            unit="ms",
        )
    ]
    tf: Any = importlib.import_module("tensorflow")
    weights = tf.Variable(scores)
    for pattern in PATTERNS:
        theirs = _tfmot(tf, weights, pattern)
        if theirs is None:
            took = min(seconds(lambda: patterns.pattern_mask(scores, pattern, SPARSITY)) for _ in range(PAIRS))  # noqa: B023
            found.append(Row(f"mask of 10 M weights, {pattern}", 1000 * took, None, None, "ms"))
            continue
        found.append(_against(scores, pattern, theirs))
    return found


def _against(scores: NDArray[np.float32], pattern: str, theirs: Callable[[], object]) -> Row:
    sparsity = None if ":" in pattern else SPARSITY
    return compare(
        f"mask of 10 M weights, {pattern}, reference TFMOT",
        lambda _: 1000 * seconds(lambda: patterns.pattern_mask(scores, pattern, sparsity)),
        lambda _: 1000 * seconds(theirs),
        pairs=PAIRS,
        unit="ms",
    )


def _tfmot(tf: Any, weights: Any, pattern: str) -> Callable[[], object] | None:
    """Give TFMOT's mask update, compiled, for a pattern that it has; as Keras has them, output channels come last."""
    implementation: Any = importlib.import_module(
        "tensorflow_model_optimization.python.core.sparsity.keras.pruning_impl"
    )
    blocks = {"unstructured": (1, 1), "2:4": (1, 1), "block 1x4": (4, 1), "block 4x4": (4, 4)}
    if pattern not in blocks:
        return None
    pruning = implementation.Pruning(
        training_step_fn=lambda: 0,
        pruning_vars=[(weights, None, None)],
        pruning_schedule=lambda step: (True, SPARSITY),
        block_size=blocks[pattern],
        block_pooling_type="AVG",
        sparsity_m_by_n=(2, 4) if pattern == "2:4" else None,
    )
    update = tf.function(lambda: pruning._maybe_update_block_mask(weights)[1])
    update()  # traced
    return lambda: update().numpy()


def channels() -> list[Row]:
    """Cut 30 % of the channels of the digit reader out of its file, and out of the model that can be trained."""
    model, step = ck.load_model("digit_reader"), ck.Prune(0.3, pattern="channel")
    kept = kept_channels(model.tflite, step, None)
    cut: Any = importlib.import_module("compresskit.training.channels").cut
    return [
        Row(
            "channels cut out of a .tflite", 1000 * _best(lambda: remove_channels(model.tflite, kept)), None, None, "ms"
        ),
        Row("channels cut, Keras model rebuilt", 1000 * _best(lambda: cut(model, (step,))), None, None, "ms"),
    ]


def sliders() -> list[Row]:
    """Move the workbench's slider for each pattern: a file is made, checked, and reads all 10,000 test digits."""
    digits, model = ck.load_mnist(), ck.load_model("digit_reader")
    named = tuple((layer.name, None if layer.name in ("conv2", "dense") else 0.0) for layer in model.layers)
    found = []
    for pattern in PATTERNS:
        times = []
        for turn in range(PAIRS):
            setting = Setting(0.3 + 0.05 * turn, pattern=pattern, sparsities=() if pattern == "channel" else named)
            prune.cache_clear()
            times.append(seconds(lambda: compute_point(model, setting, digits.test, digits.train, squeeze=False)))  # noqa: B023
        found.append(Row(f"slider to exact score, {pattern}", 1000 * min(times), None, None, "ms"))
    sample = digits.train.take(GRADIENT_DIGITS)

    def afresh() -> None:
        weight_gradients.cache_clear()
        weight_gradients(model.tflite, sample)

    return [*found, Row(f"gradients in NumPy, {GRADIENT_DIGITS} digits", 1000 * _best(afresh), None, None, "ms")]


def training() -> list[Row]:
    """Fine-tune for an epoch under masks made by schedule, against TFMOT's wrappers in the same plain loop."""
    room: Any = importlib.import_module("compresskit.training.prune")
    fit: Any = importlib.import_module("compresskit.training.fit").fit
    to_keras: Any = importlib.import_module("compresskit.training.convert").to_keras
    sparsity: Any = importlib.import_module("tensorflow_model_optimization").sparsity.keras
    whole = ck.load_mnist()
    digits = replace(whole, train=whole.train.take(TRAINED_DIGITS), validation=whole.validation.take(500))
    model, steps = ck.load_model("digit_reader"), TRAINED_DIGITS // 128

    def ours(_: int) -> float:
        return float(room.train_pruned(model, ck.Prune(SPARSITY), digits, epochs=1).seconds)

    def theirs(_: int) -> float:
        end = int(0.6 * steps)
        schedule = sparsity.PolynomialDecay(0.0, SPARSITY, 1, end, frequency=max(1, end // 40))
        wrapped = sparsity.prune_low_magnitude(to_keras(model), pruning_schedule=schedule)
        wrappers = [layer for layer in wrapped.layers if hasattr(layer, "pruning_step")]

        def at(step: int) -> None:
            for layer in wrappers:
                layer.pruning_step.assign(step)

        at(0)
        return float(fit(wrapped, digits, epochs=1, learning_rate=0.001, augment="shift", after_step=at).seconds)

    return [compare(f"pruning epoch of {TRAINED_DIGITS:,} digits, reference TFMOT", ours, theirs, pairs=2, unit="s")]


def _best(work: Callable[[], object], runs: int = PAIRS) -> float:
    """Time several calls and take the fastest: what the work itself takes, on a machine that is never quiet."""
    return min(seconds(work) for _ in range(runs))


def rows() -> list[Row]:
    """Measure everything."""
    return [*sliders(), *masks(), *channels(), *training()]
