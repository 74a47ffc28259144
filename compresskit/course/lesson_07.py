"""Exercises of lesson 07: thresholds, scores, bytes of zeros, a budget, a schedule, a formula that is wrong."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from compresskit.compression import Compressed, compress
from compresskit.course.checks import Case, Exercise, Mistake
from compresskit.data import load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert.sizes import file_sizes
from compresskit.recipe import Prune, Recipe
from compresskit.zoo import load_model

BUDGET = 0.25
"""Part of the float `.tflite` that the deflated file may take."""
ALLOWED = 0.01
"""Accuracy that may be lost on the validation digits."""

# -- a mask with an exact count -------------------------------------------------------------------------------------


def magnitude_mask(w: Any, sparsity: float) -> Any:
    """Keep the weights of largest absolute value; exactly round(sparsity * size) go."""
    removed = round(sparsity * w.size)
    order = np.argsort(np.abs(w).reshape(-1), kind="stable")
    mask = np.ones(w.size, bool)
    mask[order[:removed]] = False
    return mask.reshape(w.shape)


def _weights(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([0.1, -0.9, 0.4, -0.2, 2.0]), 0.4)
    yield (np.array([[-3.0, 0.1], [0.2, -0.3]]), 0.5)
    yield (np.array([0.5, -1.5, 0.25]), 0.0)
    for sparsity in (0.1, 0.9, 0.25, 0.6, 0.75):
        # No two are of equal size, so that there is one right mask only.
        w = rng.permutation(np.arange(1, 25)) * rng.choice([-1, 1], 24) / 10 * rng.choice([0.7, 1.0, 1.3])
        yield (w.reshape(4, 6), sparsity)


def _by_value(w: Any, sparsity: float) -> Any:
    mask = np.ones(w.size, bool)
    mask[np.argsort(w.reshape(-1))[: round(sparsity * w.size)]] = False
    return mask.reshape(w.shape)


def _each_row(w: Any, sparsity: float) -> Any:
    if w.ndim == 1:
        return magnitude_mask(w, sparsity)
    return np.stack([magnitude_mask(row, sparsity) for row in w])


MAGNITUDE_MASK = Exercise(
    reference=magnitude_mask,
    cases=_weights,
    mistakes=(
        Mistake(
            _by_value,
            "Sorted by value, the large negative weights go first. It is the absolute value that counts: `np.abs(w)`.",
        ),
        Mistake(
            lambda w, sparsity: ~magnitude_mask(w, sparsity),
            "True stands for a weight that is *kept*; yours is the other way round.",
        ),
        Mistake(
            lambda w, sparsity: np.abs(w) > sparsity * np.abs(w).max(),
            "That is a part of the largest *weight*. A sparsity counts weights: sort them, and see which one stands "
            "there.",
        ),
        Mistake(
            lambda w, sparsity: np.abs(w) > sparsity,
            "The sparsity is not a threshold: 0.4 says that 40 % of the weights go, whatever their size.",
        ),
        Mistake(
            lambda w, sparsity: magnitude_mask(w, 1 - sparsity),
            "Sparsity is the part that goes; this keeps so much.",
        ),
        Mistake(
            lambda w, sparsity: w * magnitude_mask(w, sparsity),
            "Those are the weights that are left. The mask is asked for: True where a weight is kept.",
        ),
        Mistake(
            lambda w, sparsity: np.abs(w) > np.quantile(np.abs(w), sparsity),
            "A quantile lies between two weights or on one, and with > that one goes as well: the count is now and "
            "then one too many. Sort, and take exactly `round(sparsity * w.size)`.",
        ),
        Mistake(
            lambda w, sparsity: np.abs(w) >= np.quantile(np.abs(w), sparsity),
            "A quantile lies between two weights, or on one: the count is now and then one off. Sort, and take exactly "
            "`round(sparsity * w.size)`.",
        ),
        Mistake(
            _each_row,
            "This takes the same number from each row. The smallest of the whole layer go, wherever they stand.",
        ),
    ),
    praise="Exactly as many as asked for. The course's own also says which of two equal weights goes.",
)  # fmt: skip

# -- scores that look at what flows ---------------------------------------------------------------------------------


def activation_scores(w: Any, x: Any) -> Any:
    """Score each weight (out, in) by its absolute value times the mean absolute input of its column; x (n, in)."""
    return np.abs(w) * np.abs(x).mean(axis=0)


def _flows(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[0.0, 1.0], [2.0, -1.0]]))
    for rows, columns in ((2, 3), (3, 3), (4, 6), (5, 2)):
        yield (rng.normal(0, 1, (rows, columns)).round(2), rng.normal(0.2, 1, (7, columns)).round(2))


ACTIVATION_SCORES = Exercise(
    reference=activation_scores,
    cases=_flows,
    mistakes=(
        Mistake(
            lambda w, x: np.abs(w) * np.abs(x.mean(axis=0)),
            "The mean is taken before the absolute value: an input that is as often -1 as +1 would count for nothing. "
            "First `np.abs(x)`, then the mean.",
        ),
        Mistake(
            lambda w, x: w * np.abs(x).mean(axis=0),
            "A large negative weight matters as much as a large positive one: take the absolute value of `w`.",
        ),
        Mistake(
            lambda w, x: np.abs(w) * np.abs(x).mean(),
            "Each input has a mean of its own: `axis=0`. One number for all changes nothing in the order of the "
            "weights.",
        ),
        Mistake(
            lambda w, x: np.abs(w) * np.abs(x).sum(axis=0),
            "That is the sum over the samples. The order of the weights is the same, but scores would grow with the "
            "number of samples: take the mean.",
        ),
        Mistake(
            lambda w, x: np.abs(w) * np.abs(x).max(axis=0),
            "That is the largest input. One odd sample would decide; take the mean.",
        ),
        Mistake(lambda w, x: np.abs(w), "That is magnitude; what flows has not been looked at."),
        Mistake(
            lambda w, x: np.abs(x @ w.T).mean(axis=0),
            "Those are the outputs, one for each row of `w`. A score for each single weight is asked for.",
        ),
    ),
    praise="The border of an MNIST image is black: whatever the weights there are, they do nothing.",
)

# -- what zeros cost ------------------------------------------------------------------------------------------------


def sparse_bytes(total: int, kept: int, value_bits: int, gap_bits: int) -> float:
    """Give the bytes of a sparse layer that stores, for each kept weight, its value and the gap before it."""
    return kept * (value_bits + gap_bits) / 8


def _layers(rng: np.random.Generator) -> Iterator[Case]:
    yield (1000, 100, 32, 16)
    yield (1000, 1000, 8, 4)
    yield (64, 0, 8, 5)
    for _ in range(6):
        total = int(rng.integers(100, 10_000))
        yield (total, int(rng.integers(1, total)), int(rng.choice([4, 8, 16, 32])), int(rng.choice([4, 5, 8, 16])))


SPARSE_BYTES = Exercise(
    reference=sparse_bytes,
    cases=_layers,
    mistakes=(
        Mistake(
            lambda total, kept, value_bits, gap_bits: kept * value_bits / 8,
            "Nobody knows where these values belong. Each of them needs its gap as well.",
        ),
        Mistake(
            lambda total, kept, value_bits, gap_bits: kept * (value_bits + gap_bits),
            "Those are bits; eight of them are a byte.",
        ),
        Mistake(
            lambda total, kept, value_bits, gap_bits: (kept * value_bits + total * gap_bits) / 8,
            "A gap is stored for each *kept* weight; the zeros themselves are not written at all. (A flag for each "
            "weight, kept or not, is another format: a bitmap. It takes 1 bit each.)",
        ),
        Mistake(
            lambda total, kept, value_bits, gap_bits: (total - kept) * (value_bits + gap_bits) / 8,
            "Those are the zeros. It is the other weights that are stored.",
        ),
        Mistake(
            lambda total, kept, value_bits, gap_bits: total * value_bits / 8,
            "That is the dense layer.",
        ),
        Mistake(
            lambda total, kept, value_bits, gap_bits: total * (value_bits + gap_bits) / 8,
            "This stores every weight, the zeros included.",
        ),
    ),
    praise="(What is left out: a gap too long for its bits. Lesson 09 deals with it.)",
)


def break_even(value_bits: int, gap_bits: int) -> float:
    """Give the sparsity from which on values with gaps are smaller than the dense layer."""
    return gap_bits / (value_bits + gap_bits)


BREAK_EVEN = Exercise(
    reference=break_even,
    cases=lambda rng: [(32, 16), (8, 8), (8, 5), (4, 4), (32, 5), (2, 4), (16, 8)],
    mistakes=(
        Mistake(
            lambda value_bits, gap_bits: value_bits / (value_bits + gap_bits),
            "That is the part that may be *kept* at most; the sparsity is what goes.",
        ),
        Mistake(
            lambda value_bits, gap_bits: gap_bits / value_bits,
            "At this sparsity the gaps weigh as much as ... what? Set (1 - s)(value + gap) equal to value, and solve "
            "for s.",
        ),
        Mistake(
            lambda value_bits, gap_bits: 0.5,
            "It depends on the bits. Set (1 - s)(value + gap) equal to value, and solve for s.",
        ),
        Mistake(
            lambda value_bits, gap_bits: 0.0,
            "With few zeros the gaps take more than the zeros did. Set (1 - s)(value + gap) equal to value.",
        ),
    ),
    praise="The narrower a value, the more its gap weighs: after quantization, pruning has to go further to pay.",
)

# -- the wrong formula ----------------------------------------------------------------------------------------------


def hard_threshold(w: Any, t: float) -> Any:
    """Set what lies below the threshold to zero, and leave the rest as it is."""
    return np.where(np.abs(w) < t, 0.0, w)


def _thresholds(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([0.05, -0.3, 0.8, -0.01, -1.2]), 0.1)
    yield (np.array([[0.5, -0.5], [0.1, 2.0]]), 0.4)
    yield (np.array([0.5, -0.25]), 0.0)
    for _ in range(5):
        yield (rng.normal(0, 1, (3, 5)).round(3), round(float(rng.uniform(0.2, 1.2)), 2) + 0.0005)


HARD_THRESHOLD = Exercise(
    reference=hard_threshold,
    cases=_thresholds,
    mistakes=(
        Mistake(
            lambda w, t: np.where(np.abs(w) < t, 0, np.sign(w) * t),
            "That is the tutorial's formula still: every weight that stays becomes +t or -t, and what it had learned "
            "is gone. A weight that stays, stays as it is.",
        ),
        Mistake(
            lambda w, t: np.sign(w) * np.maximum(np.abs(w) - t, 0),
            "This is soft thresholding, the formula that the tutorial misread: zero below t, and t taken off all "
            "others. It is right for other ends (an L1 penalty), but pruning leaves what stays as it is.",
        ),
        Mistake(
            lambda w, t: np.where(w < t, 0, w),
            "All negative weights go. It is the absolute value that is compared with t.",
        ),
        Mistake(
            lambda w, t: np.where(np.abs(w) < t, w, 0),
            "The other way round: the small ones are to go.",
        ),
        Mistake(
            lambda w, t: np.abs(w) >= t,
            "That is the mask. Multiply the weights by it.",
        ),
        Mistake(
            lambda w, t: np.where(np.abs(w) < t, 0, np.abs(w)),
            "The signs are lost.",
        ),
        Mistake(
            lambda w, t: np.clip(w, -t, t),
            "This clips the *large* weights to t and leaves the small ones: that is quantization's clipping, not "
            "pruning.",
        ),
    ),
    praise="Nothing but zeros is new in the weights. That can be tested: `np.isin(pruned, [0, *w])`.",
)

# -- a schedule -----------------------------------------------------------------------------------------------------


def polynomial_sparsity(step: int, begin: int, end: int, final: float) -> float:
    """Give Zhu and Gupta's sparsity at a step: from 0 at `begin` to `final` at `end`, cubic."""
    progress = min(1.0, max(0.0, (step - begin) / (end - begin)))
    return final - final * (1 - progress) ** 3


def _steps(rng: np.random.Generator) -> Iterator[Case]:
    for step in (0, 100, 150, 300, 500, 501, 900):
        yield (step, 100, 500, 0.8)
    for _ in range(4):
        begin = int(rng.integers(0, 50))
        yield (int(rng.integers(0, 200)), begin, begin + int(rng.integers(10, 100)), round(float(rng.uniform(0, 1)), 2))


POLYNOMIAL = Exercise(
    reference=polynomial_sparsity,
    cases=_steps,
    mistakes=(
        Mistake(
            lambda step, begin, end, final: final - final * (1 - (step - begin) / (end - begin)) ** 3,
            "Before `begin` and after `end` the cube runs on: sparsities below 0, or above the final one. Hold the "
            "progress between 0 and 1.",
        ),
        Mistake(
            lambda step, begin, end, final: final * min(1.0, max(0.0, (step - begin) / (end - begin))) ** 3,
            "This is the cube of the progress: slow at first, and fastest at the end, when the network has no time "
            "left to recover. The cube belongs to what is still to be done: (1 - progress)**3.",
        ),
        Mistake(
            lambda step, begin, end, final: final * min(1.0, max(0.0, (step - begin) / (end - begin))),
            "That is a straight line. The paper takes the third power of what is still to be done.",
        ),
        Mistake(
            lambda step, begin, end, final: final * (1 - min(1.0, max(0.0, (step - begin) / (end - begin)))) ** 3,
            "That is what is still to be done. It begins at the final sparsity and ends at 0: subtract it from "
            "`final`.",
        ),
        Mistake(
            lambda step, begin, end, final: 1 - (1 - min(1.0, max(0.0, (step - begin) / (end - begin)))) ** 3,
            "This ends at 1: nothing would be left. Multiply by `final`.",
        ),
        Mistake(
            lambda step, begin, end, final: final - final * (1 - min(1.0, step / end)) ** 3,
            "The way begins at `begin`, not at 0: progress is (step - begin) / (end - begin).",
        ),
    ),
    praise="Fast while there is much to remove, slow where each weight counts.",
)

# -- two questions --------------------------------------------------------------------------------------------------

REASON = Exercise(
    reference="c",
    mistakes=(
        Mistake("a", "It has the largest weights of all; look at the column of spreads."),
        Mistake("b", "It is the other layers' business how many weights they have; look at what one of 288 has to do."),
        Mistake("d", "Rounding is another lesson: all files here are float32."),
    ),
    praise="Few weights, each used at every place of the image: they are cheap to keep and dear to lose.",
)

CONTROL = Exercise(
    reference="b",
    mistakes=(
        Mistake(
            "a",
            "The whole network has ten times the weights. This says what the zeros cost, not whether *these first "
            "values* are special.",
        ),
        Mistake(
            "c",
            "Here two things change at once: which weights there are, and their first values. If it is worse, you do "
            "not know by which of the two.",
        ),
        Mistake("d", "One run is luck: two seeds lie apart by as much. Several seeds, and the spread beside the mean."),
    ),
    praise="One thing changed, everything else equal, several seeds: that is a control.",
)

# -- the budget -----------------------------------------------------------------------------------------------------


def examine_budget(answer: Any) -> tuple[bool, tuple[str, ...]]:
    """Judge sparsities by layer for the digit reader: small enough when deflated, and right enough.

    Parameters
    ----------
    answer
        A mapping of layer names to sparsities.

    Returns
    -------
    (bool, tuple of str)
        Whether it reaches the goal, and what to say.
    """
    if not isinstance(answer, Mapping):
        return False, ('Give a dict of sparsities, such as {"dense": 0.5}.',)
    model, digits = load_model("digit_reader"), load_mnist().validation
    percents = [name for name, share in answer.items() if isinstance(share, int | float) and share > 1]
    if percents:
        return False, (f"{percents[0]}: {answer[percents[0]]} is above 1. Give fractions: 0.9 removes 90 %.",)
    try:
        small = compress(model, Recipe(*(Prune(share, layers=(name,)) for name, share in answer.items())))
    except (ValueError, TypeError) as error:
        return False, ("There is no such file:", f"{error}.")
    sizes = file_sizes(small.tflite)
    told = (
        f"{sizes.deflated:,} bytes deflated, {sizes.deflated / model.size:.1%} of the float file "
        f"({sizes.packed:,} packed, {sizes.tflite:,} as .tflite)"
    )
    if sizes.deflated > BUDGET * model.size:
        return False, (f"{told}; at most {BUDGET:.0%} is wanted.", _where_bytes_are(small))
    lost = evaluate(small, digits).errors - _misread_by_float()
    told = f"{told}; {100 * lost / len(digits):.2f} points lost."
    if lost > ALLOWED * len(digits):
        return False, (f"{told} The size is right; at most 1 point is to be lost.", _where_it_hurts(small))
    return True, (told,)


@functools.cache
def _misread_by_float() -> int:
    """Count the validation digits that the float model misreads."""
    return evaluate(load_model("digit_reader"), load_mnist().validation).errors


def _where_bytes_are(small: Compressed) -> str:
    """Name the layer that holds the most weights still."""
    row = max(small.layers, key=lambda layer: math.prod(layer.shape) * (1 - layer.sparsity))
    kept = round(math.prod(row.shape) * (1 - row.sparsity))
    return f"Look at `{row.name}`: {kept:,} of the weights that are left are its own."


def _where_it_hurts(small: Compressed) -> str:
    """Make the file with each layer pruned alone, and name the one that loses most."""
    model, digits = small.checkpoint, load_mnist().validation.take(1000)
    alone = {
        layer.name: evaluate(compress(model, Recipe(Prune(layer.sparsity, layers=(layer.name,)))), digits).errors
        for layer in small.layers
        if 0 < layer.sparsity < 1
    }
    worst = max(alone, key=lambda name: alone[name])
    sizes = {layer.name: math.prod(layer.shape) for layer in small.layers}
    small_layer = 2 * sizes[worst] < sum(sizes.values())
    advice = "how many bytes are they?" if small_layer else "take fewer of them, and some from other layers."
    return (
        f"Look at `{worst}`: pruned alone as far as this, it misreads {alone[worst]} of the first 1,000 digits, the "
        f"most of all layers. It has {sizes[worst]:,} weights: {advice}"
    )


BUDGET_KEPT = Exercise(
    reference={"conv2": 0.5, "dense": 0.82, "head": 0.2},
    examine=examine_budget,
    mistakes=(
        Mistake({}, "Look at `dense`: 401,408 of the weights that are left are its own."),
        Mistake(
            {"conv1": 0.8, "conv2": 0.8, "dense": 0.82, "head": 0.8},
            "Look at `conv1`: pruned alone as far as this, it misreads 169 of the first 1,000 digits, the most "
            "of all layers. It has 288 weights: how many bytes are they?",
        ),
        Mistake(
            {"dense": 0.95},
            "Look at `dense`: pruned alone as far as this, it misreads 96 of the first 1,000 digits, the most of all "
            "layers. It has 401,408 weights: take fewer of them, and some from other layers.",
        ),
        Mistake({"dense": 83}, "dense: 83 is above 1. Give fractions: 0.9 removes 90 %."),
        Mistake({"dense": 1.0}, "There is no such file:"),
        Mistake({"conv9": 0.5}, "There is no such file:"),
        Mistake(0.83, 'Give a dict of sparsities, such as {"dense": 0.5}.'),
    ),
    praise="A quarter of the bytes, without training. Nine tenths of the weights stand in one layer; that is where "
    "bytes are.",
)

EXERCISES = {
    "magnitude_mask": MAGNITUDE_MASK,
    "activation_scores": ACTIVATION_SCORES,
    "reason": REASON,
    "hard_threshold": HARD_THRESHOLD,
    "sparse_bytes": SPARSE_BYTES,
    "break_even": BREAK_EVEN,
    "budget": BUDGET_KEPT,
    "polynomial_sparsity": POLYNOMIAL,
    "control": CONTROL,
}
