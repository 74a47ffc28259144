"""Exercises of lesson 09: a step of k-means, the lengths of Huffman codes, gaps between weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from compresskit.course.checks import Case, Exercise, Mistake
from compresskit.entropy import gap_encode
from compresskit.entropy import huffman_lengths as lengths_of

# -- k-means ------------------------------------------------------------------------------------------------------


def kmeans_step(weights: Any, values: Any) -> Any:
    """Move each shared value to the mean of the weights that are nearest to it; one without weights stays."""
    nearest = _nearest(weights, values)
    return np.array([weights[nearest == k].mean() if (nearest == k).any() else values[k] for k in range(len(values))])


def _nearest(weights: Any, values: Any) -> Any:
    return np.abs(np.asarray(weights)[:, None] - np.asarray(values)[None, :]).argmin(axis=1)


def _weights(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([0.0, 0.1, 0.2, 0.9, 1.1]), np.array([0.2, 0.8]))
    yield (np.array([-0.3, -0.2, 0.4]), np.array([-0.25, 0.3, 5.0]))  # nothing is nearest to 5
    yield (np.array([1.0, 2.0, 6.0]), np.array([-1.0]))
    for count in (2, 4, 4, 8):
        weights = rng.normal(0, 0.1, 60).round(4)
        yield (weights, np.linspace(weights.min(), weights.max(), count).round(4))


def _empty_is_zero(weights: Any, values: Any) -> Any:
    nearest = _nearest(weights, values)
    return np.array([weights[nearest == k].sum() / max(1, (nearest == k).sum()) for k in range(len(values))])


def _empty_is_nan(weights: Any, values: Any) -> Any:
    nearest = _nearest(weights, values)
    with np.errstate(invalid="ignore"):
        return np.array([np.float64(weights[nearest == k].sum()) / (nearest == k).sum() for k in range(len(values))])


def _medians(weights: Any, values: Any) -> Any:
    nearest = _nearest(weights, values)
    return np.array(
        [np.median(weights[nearest == k]) if (nearest == k).any() else values[k] for k in range(len(values))]
    )


def _signed(weights: Any, values: Any) -> Any:
    nearest = (weights[:, None] - values[None, :]).argmin(axis=1)
    return np.array([weights[nearest == k].mean() if (nearest == k).any() else values[k] for k in range(len(values))])


def _sums(weights: Any, values: Any) -> Any:
    nearest = _nearest(weights, values)
    return np.array([weights[nearest == k].sum() if (nearest == k).any() else values[k] for k in range(len(values))])


KMEANS_STEP = Exercise(
    reference=kmeans_step,
    cases=_weights,
    mistakes=(
        Mistake(
            _empty_is_nan,
            "A value that no weight is nearest to has no mean: 0 / 0. Leave it where it is.",
        ),
        Mistake(_empty_is_zero, "A value that no weight is nearest to became 0. Leave it where it is."),
        Mistake(_medians, "Those are medians. The mean makes the sum of squared errors smallest."),
        Mistake(
            _signed,
            "The nearest value is the one with the smallest *absolute* difference; without it the largest value wins.",
        ),
        Mistake(_sums, "Those are sums; divide by the number of weights."),
        Mistake(
            _nearest,
            "That is which value is nearest to each weight: the codes. Now move each value to the mean of its weights.",
        ),
        Mistake(
            lambda weights, values: np.asarray(values)[_nearest(weights, values)],
            "Those are the weights after sharing. The step asks for the new values.",
        ),
        Mistake(
            lambda weights, values: kmeans_step(weights, kmeans_step(weights, values)),
            "Those are two steps; one is asked for.",
        ),
    ),
    praise="Do it again until nothing moves, and the squared error can no longer fall: that is k-means.",
)


# -- Huffman codes ------------------------------------------------------------------------------------------------


def huffman_lengths(counts: Any) -> list[int]:
    """Give the number of bits of each symbol's code word; 0 for a symbol that does not occur."""
    return [int(length) for length in lengths_of(np.asarray(counts))]


def _counts(rng: np.random.Generator) -> Iterator[Case]:
    # Counts for which only one set of lengths is best: no two that are to be joined next are equal.
    yield ([8, 4, 2, 1, 1],)
    yield ([45, 13, 12, 16, 9, 5],)
    yield ([5, 6, 7, 8],)
    yield ([3, 0, 2, 0, 9],)
    yield ([0, 7, 0],)  # one symbol only: 1 bit
    for size in (4, 6, 9):
        yield ([int(count) for count in rng.choice(np.arange(1, 10**6), size, replace=False)],)


def _one_length(counts: Any) -> list[int]:
    present = sum(count > 0 for count in counts)
    return [max(1, math.ceil(math.log2(present))) if count else 0 for count in counts]


def _shannon(counts: Any) -> list[int]:
    total = sum(counts)
    return [max(1, math.ceil(-math.log2(count / total))) if count else 0 for count in counts]


def _in_a_row(counts: Any) -> list[int]:
    """Join the rarest with the next rarest, that with the next, and so on, without looking for the two rarest again."""
    order = sorted((s for s in range(len(counts)) if counts[s]), key=lambda s: counts[s])
    lengths = [0] * len(counts)
    below = [order[0]]
    if len(order) == 1:
        lengths[order[0]] = 1
    for symbol in order[1:]:
        below.append(symbol)
        for each in below:
            lengths[each] += 1
    return lengths


def _alone_is_zero(counts: Any) -> list[int]:
    lengths = huffman_lengths(counts)
    return [0] * len(lengths) if sum(count > 0 for count in counts) == 1 else lengths


def _all_symbols(counts: Any) -> list[int]:
    return [int(length) for length in lengths_of(np.maximum(np.asarray(counts, float), 1e-9))]


def _largest(counts: Any) -> list[int]:
    top = max(counts) + 1
    return [int(length) for length in lengths_of(np.array([top - count if count else 0 for count in counts]))]


HUFFMAN = Exercise(
    reference=huffman_lengths,
    cases=_counts,
    mistakes=(
        Mistake(_one_length, "All code words have the same length. The rare symbols are to have longer ones."),
        Mistake(
            _shannon,
            "That is ceil(-log2 p), Shannon's code of 1948: correct, but longer than need be. Join the two rarest, "
            "again and again.",
        ),
        Mistake(
            _in_a_row,
            "The joined symbol has to go back among the others: the two rarest may next be two *others*. Sort again, "
            "or use a heap.",
        ),
        Mistake(
            _alone_is_zero, "A single kind of symbol gets 1 bit here: a stream of no bits would not tell how many."
        ),
        Mistake(_all_symbols, "A symbol that does not occur needs no code word: 0 bits. Leave it out of the tree."),
        Mistake(_largest, "The two *rarest* are joined, not the two commonest."),
        Mistake(
            lambda counts: sum(n * c for n, c in zip(huffman_lengths(counts), counts, strict=True)),
            "That is the length of the whole stream. The bits of each symbol are asked for, a list.",
        ),
    ),
    praise="Nothing that gives each symbol whole bits is shorter. The course's own is as long, and no longer.",
)


# -- gaps ---------------------------------------------------------------------------------------------------------


def gap_code(row: Any, bits: int) -> tuple[list[int], list[float]]:
    """Give the zeros skipped before each entry, and the entries; a gap that is too long is broken by an entry 0."""
    coded = gap_encode(np.asarray(row), bits)
    return [int(gap) for gap in coded.gaps], [float(value) for value in coded.values]


def _rows(rng: np.random.Generator) -> Iterator[Case]:
    yield ([0, 0, 0.5, 0, 1.5, 0], 3)
    yield ([0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.25], 2)  # 9 zeros, gaps up to 3
    yield ([0, 0, 0, 0, 1.0], 2)
    yield ([0, 0, 0, 1.0], 2)
    yield ([1.0, 2.0], 4)
    yield ([0, 0, 0], 3)
    for bits in (2, 3, 5):
        row = rng.integers(1, 9, 60) * (rng.random(60) < 0.12)
        yield ([float(value) for value in row], bits)


def _positions(row: Any, bits: int) -> tuple[list[int], list[float]]:
    places = [i for i, value in enumerate(row) if value]
    return places, [float(row[i]) for i in places]


def _steps(row: Any, bits: int) -> tuple[list[int], list[float]]:
    gaps, values = gap_code(row, bits)
    return [gap + 1 for gap in gaps], values


def _no_fillers(row: Any, bits: int) -> tuple[list[int], list[float]]:
    return gap_code(row, 30)


def _one_too_many(row: Any, bits: int) -> tuple[list[int], list[float]]:
    gaps: list[int] = []
    values: list[float] = []
    skipped = 0
    for value in row:
        if value or skipped == 2**bits:
            gaps.append(skipped)
            values.append(float(value))
            skipped = 0
        else:
            skipped += 1
    return gaps, values


def _filler_takes_no_place(row: Any, bits: int) -> tuple[list[int], list[float]]:
    gaps: list[int] = []
    values: list[float] = []
    skipped = 0
    for value in row:
        if not value:
            skipped += 1
            continue
        while skipped > 2**bits - 1:
            gaps.append(2**bits - 1)
            values.append(0.0)
            skipped -= 2**bits - 1
        gaps.append(skipped)
        values.append(float(value))
        skipped = 0
    return gaps, values


def _fillers_at_the_end(row: Any, bits: int) -> tuple[list[int], list[float]]:
    gaps: list[int] = []
    values: list[float] = []
    skipped = 0
    for place, value in enumerate(row):
        if value or skipped == 2**bits - 1 or place == len(row) - 1:
            gaps.append(skipped)
            values.append(float(value))
            skipped = 0
        else:
            skipped += 1
    return gaps, values


GAPS = Exercise(
    reference=gap_code,
    cases=_rows,
    mistakes=(
        Mistake(
            _positions, "Those are positions. A gap counts the zeros since the entry before: small numbers, few bits."
        ),
        Mistake(_steps, "Every gap is one too large: count the zeros *between* entries; neighbours have a gap of 0."),
        Mistake(
            _no_fillers,
            "Some gaps do not fit into their bits. Break a gap of more than 2**bits - 1 zeros by an entry that is 0.",
        ),
        Mistake(_one_too_many, "The largest gap that fits is 2**bits - 1, not 2**bits."),
        Mistake(
            _filler_takes_no_place,
            "A filler stands in the row itself: it uses up 2**bits - 1 zeros as its gap and one more as its value.",
        ),
        Mistake(_fillers_at_the_end, "The zeros behind the last entry need no code: the length of the row is known."),
    ),
    praise="Few bits for a gap mean many fillers, many bits are spent on every short gap: somewhere between is best.",
)


EXERCISES = {"kmeans_step": KMEANS_STEP, "huffman_lengths": HUFFMAN, "gap_code": GAPS}
