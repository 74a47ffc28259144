"""Exercises of lesson 01: the file of digits, parameters, multiplications, bytes, and how sure an accuracy is."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from compresskit.course import sketch
from compresskit.course.checks import Case, Exercise, Mistake

Z95 = 1.959963984540054
"""Half-width of the middle 95 % of the normal distribution, in standard deviations."""


# -- reading an IDX header ----------------------------------------------------------------------------------------


def idx_shape(header: bytes) -> tuple[int, ...]:
    """Read the shape out of an IDX file's first bytes: two zeros, a type, the number of axes, then the axes."""
    axes = header[3]
    return struct.unpack(f">{axes}I", header[4 : 4 + 4 * axes])


def idx_header(*shape: int) -> bytes:
    """Write the header of an IDX file of unsigned bytes."""
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def _headers(rng: np.random.Generator) -> Iterator[Case]:
    yield (idx_header(60_000, 28, 28),)
    yield (idx_header(60_000),)
    yield (idx_header(10_000, 28, 28) + bytes(range(16)),)  # pixels follow the header
    for axes in (1, 2, 3, 4):
        shape = rng.integers(1, 2**24, size=axes).tolist()
        yield (idx_header(*shape) + rng.bytes(int(rng.integers(0, 9))),)


IDX_SHAPE = Exercise(
    reference=idx_shape,
    cases=_headers,
    mistakes=(
        Mistake(
            lambda header: struct.unpack(f"<{header[3]}I", header[4 : 4 + 4 * header[3]]),
            "The bytes of each number are read in the wrong order. IDX is big-endian (`>I`): the first counts most.",
        ),
        Mistake(
            lambda header: struct.unpack(">3I", header[4:16]),
            "This reads three axes always. A file of labels has one: the fourth byte says how many there are.",
        ),
        Mistake(
            lambda header: struct.unpack(f">{header[3]}I", header[: 4 * header[3]]),
            "This starts at byte 0, but the first four bytes are the magic number; the axes begin at byte 4.",
        ),
        Mistake(
            lambda header: struct.unpack(f">{1 + header[3]}I", header[: 4 + 4 * header[3]]),
            "The first number here is the magic number, not an axis: leave it out.",
        ),
        Mistake(
            lambda header: struct.unpack(">I", header[4:8])[0],
            "This is the first axis only. Give all of them, as a tuple.",
        ),
        Mistake(
            lambda header: tuple(header[4 : 4 + header[3]]),
            "Each axis takes four bytes; this reads one byte for each.",
        ),
        Mistake(
            lambda header: struct.unpack(f">{len(header[4:]) // 4}I", header[4 : 4 + len(header[4:]) // 4 * 4]),
            "This reads pixels as axes, as far as the bytes go. The fourth byte says how many axes there are.",
        ),
    ),
    praise="Sixteen bytes are all that stands between you and the pixels.",
    tolerance=0.0,
)


# -- parameters and multiplications of a convolution --------------------------------------------------------------


def conv_parameters(kernel: int, inputs: int, outputs: int) -> int:
    """Count the numbers that a convolution learns: its filters and one bias for each of them."""
    return kernel * kernel * inputs * outputs + outputs


def conv_macs(kernel: int, inputs: int, outputs: int, height: int, width: int) -> int:
    """Count the multiply-accumulates of a convolution with an output of height x width x outputs."""
    return kernel * kernel * inputs * outputs * height * width


def _convolutions(rng: np.random.Generator) -> Iterator[Case]:
    yield (3, 1, 32)
    yield (3, 32, 64)
    yield (1, 1, 1)
    yield (5, 7, 1)
    for _ in range(12):
        yield (int(rng.choice([1, 3, 5, 7])), int(rng.integers(1, 65)), int(rng.integers(1, 65)))


def _convolutions_on_images(rng: np.random.Generator) -> Iterator[Case]:
    yield (3, 1, 32, 28, 28)
    yield (3, 32, 64, 14, 14)
    yield (1, 4, 8, 1, 1)
    for case in _convolutions(rng):
        yield (*case, int(rng.integers(8, 33)), int(rng.integers(8, 33)))


CONV_PARAMETERS = Exercise(
    reference=conv_parameters,
    cases=_convolutions,
    mistakes=(
        Mistake(lambda kernel, inputs, outputs: kernel**2 * inputs * outputs, "The biases are missing: one a filter."),
        Mistake(
            lambda kernel, inputs, outputs: kernel**2 * inputs * outputs + 1,
            "There is one bias for each filter (each output channel), not one for the whole layer.",
        ),
        Mistake(
            lambda kernel, inputs, outputs: kernel**2 * inputs * outputs + inputs,
            "The biases are added to the outputs: there are as many as output channels, not as input channels.",
        ),
        Mistake(
            lambda kernel, inputs, outputs: kernel**2 * outputs + outputs,
            "A filter is as deep as its input has channels: the input channels are missing from the product.",
        ),
        Mistake(
            lambda kernel, inputs, outputs: kernel * inputs * outputs + outputs,
            "A filter is a square of kernel x kernel weights; the kernel counts twice.",
        ),
        Mistake(
            lambda kernel, inputs, outputs: (kernel**2 * inputs + outputs) * outputs,
            "Each filter has a single bias; this gives each as many as there are filters.",
        ),
    ),
    praise="The size of the image is nowhere in it: the same filter slides over all positions.",
    tolerance=0.0,
)

CONV_MACS = Exercise(
    reference=conv_macs,
    cases=_convolutions_on_images,
    mistakes=(
        Mistake(
            lambda kernel, inputs, outputs, height, width: kernel**2 * inputs * outputs,
            "That is the number of weights. Each is used once at every position of the output, height x width times.",
        ),
        Mistake(
            lambda kernel, inputs, outputs, height, width: (kernel**2 * inputs * outputs + outputs) * height * width,
            "Adding the bias is no multiplication: count the weights alone.",
        ),
        Mistake(
            lambda kernel, inputs, outputs, height, width: 2 * kernel**2 * inputs * outputs * height * width,
            "That counts a multiplication and an addition as two operations (FLOPs). A MAC is the pair of them.",
        ),
        Mistake(
            lambda kernel, inputs, outputs, height, width: kernel**2 * outputs * height * width,
            "Each filter multiplies all input channels: they are missing from the product.",
        ),
        Mistake(
            lambda kernel, inputs, outputs, height, width: kernel**2 * inputs * height * width,
            "All filters slide over the image: the output channels are missing from the product.",
        ),
        Mistake(
            lambda kernel, inputs, outputs, height, width: (
                kernel**2 * inputs * outputs * max(height - kernel + 1, 0) * max(width - kernel + 1, 0)
            ),
            "height and width are those of the output already; the border need not be taken off again.",
        ),
    ),
    praise="Parameters do not know the size of the image, multiplications do: so they sit in different layers.",
    tolerance=0.0,
)


# -- bytes --------------------------------------------------------------------------------------------------------


def kilobytes(parameters: int) -> float:
    """Give the kB (1000 bytes) that float32 parameters take."""
    return parameters * 4 / 1000


KILOBYTES = Exercise(
    reference=kilobytes,
    cases=lambda rng: ((count,) for count in (1000, 421_642, 0, *rng.integers(1, 10**7, size=8).tolist())),
    mistakes=(
        Mistake(
            lambda parameters: parameters * 4 / 1024, "Those are KiB (1024 bytes). In this course a kB is 1000 bytes."
        ),
        Mistake(lambda parameters: parameters / 1000, "A float32 takes four bytes (32 bits), not one."),
        Mistake(lambda parameters: parameters * 32 / 1000, "Those are kilobits: a byte is eight bits."),
        Mistake(lambda parameters: parameters * 4, "Those are bytes; kB were asked for."),
        Mistake(lambda parameters: parameters * 8 / 1000, "Eight bytes is a float64. The weights are float32."),
        Mistake(lambda parameters: parameters * 4 // 1000, "`//` cuts off what is left over: use `/`."),
    ),
    praise="And so the file can hardly be smaller, as long as each weight is a float32.",
)


# -- how sure an accuracy is --------------------------------------------------------------------------------------


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Give Wilson's 95 % interval (Wilson 1927) of a fraction measured as `right` out of `n`."""
    return _wilson(right, n, Z95)


def _wilson(right: int, n: int, z: float) -> tuple[float, float]:
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def _wald(right: int, n: int) -> tuple[float, float]:
    p = right / n
    half = Z95 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def _without_denominator(right: int, n: int) -> tuple[float, float]:
    p = right / n
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    return p + Z95**2 / (2 * n) - half, p + Z95**2 / (2 * n) + half


def _around_p(right: int, n: int) -> tuple[float, float]:
    low, high = _wilson(right, n, Z95)
    return right / n - (high - low) / 2, right / n + (high - low) / 2


def _percent(right: int, n: int) -> tuple[float, float]:
    low, high = _wilson(right, n, Z95)
    return 100 * low, 100 * high


def _draw_interval(case: Case, got: Any, expected: Any) -> str:
    right, n = case
    return sketch.compare_intervals(got, expected, right / n)


WILSON = Exercise(
    reference=wilson_interval,
    cases=lambda rng: (
        (9_900, 10_000),
        (990, 1_000),
        (10, 10),
        (0, 7),
        (1, 1),
        *((int(rng.integers(0, n + 1)), int(n)) for n in rng.integers(1, 20_000, size=12)),
    ),
    mistakes=(
        Mistake(
            _wald,
            "That is the textbook's p ± z sqrt(p (1 - p) / n). Near 0 % and 100 % it is wrong: with 10 of 10 right it "
            "has no width at all, as if nothing were left to chance. Wilson's formula holds there too.",
        ),
        Mistake(
            _around_p,
            "The width is right, but the middle is not p: Wilson's interval is drawn a little towards one half.",
        ),
        Mistake(_without_denominator, "The division by 1 + z² / n is missing, of the middle and of the half-width."),
        Mistake(_percent, "Those are percent; fractions between 0 and 1 were asked for."),
        Mistake(
            lambda right, n: _wilson(right, n, 1.6448536269514722),
            "That z (1.645) leaves out 10 %. For 95 % it is 1.96.",
        ),
        Mistake(
            lambda right, n: _wilson(right, n, 1.0), "That is one standard deviation (68 %). For 95 % use z = 1.96."
        ),
        Mistake(
            lambda right, n: _wilson(right, n, 2.5758293035489004),
            "That z (2.576) is the one for 99 %. For 95 % it is 1.96.",
        ),
        Mistake(
            lambda right, n: _wilson(n - right, n, Z95),
            "That is the interval of the errors. Count those that are right.",
        ),
        Mistake(
            lambda right, n: tuple(reversed(_wilson(right, n, Z95))),
            "The ends are the wrong way round: the lower one first.",
        ),
    ),
    praise="Two models whose intervals overlap widely may well be equally good.",
    tolerance=2e-4,  # 1.96 instead of 1.95996...
    draw=_draw_interval,
)


# -- which layer to shrink first ----------------------------------------------------------------------------------

LayerRow = tuple[str, int, int]


def first_to_shrink(layers: list[LayerRow], goal: str) -> str:
    """Name the layer where most can be saved, for a smaller file (`"bytes"`) or a faster one (`"macs"`)."""
    column = 1 if goal == "bytes" else 2
    return max(layers, key=lambda layer: layer[column])[0]


def _networks(rng: np.random.Generator) -> Iterator[Case]:
    course = [
        ("conv1", 1_280, 225_792),
        ("conv2", 73_984, 3_612_672),
        ("dense", 1_606_144, 401_408),
        ("head", 5_160, 1_280),
    ]
    for goal in ("bytes", "macs"):
        yield (course, goal)
    for _ in range(8):
        sizes = rng.choice(1_000_000, size=(int(rng.integers(2, 7)), 2), replace=False).tolist()
        names = rng.permutation([f"layer{row}" for row in range(1, len(sizes) + 1)]).tolist()
        layers = [(name, 4 * one, 3 * other) for name, (one, other) in zip(names, sizes, strict=True)]
        for goal in ("bytes", "macs"):
            yield (layers, goal)


def _draw_layers(case: Case, got: Any, expected: Any) -> str:
    layers, goal = case
    column = 1 if goal == "bytes" else 2
    title = "bytes of each layer" if goal == "bytes" else "multiply-accumulates of each layer, for one image"
    return sketch.bars(title, {layer[0]: layer[column] for layer in layers}, marked=str(got))


FIRST_TO_SHRINK = Exercise(
    reference=first_to_shrink,
    cases=_networks,
    mistakes=(
        Mistake(
            lambda layers, goal: max(layers, key=lambda layer: layer[1])[0],
            "This looks at the bytes whatever the goal is. For speed the multiply-accumulates count.",
        ),
        Mistake(
            lambda layers, goal: max(layers, key=lambda layer: layer[2])[0],
            "This looks at the multiply-accumulates whatever the goal is. For a small file the bytes count.",
        ),
        Mistake(
            lambda layers, goal: max(layers, key=lambda layer: layer[2 if goal == "bytes" else 1])[0],
            "The two columns are exchanged: a row is (name, bytes, macs).",
        ),
        Mistake(
            lambda layers, goal: min(layers, key=lambda layer: layer[1 if goal == "bytes" else 2])[0],
            "That is the layer where least can be saved.",
        ),
        Mistake(
            lambda layers, goal: max(layers, key=lambda layer: layer[1 if goal == "bytes" else 2]),
            "That is the whole row; its name alone was asked for.",
        ),
        Mistake(
            lambda layers, goal: max(range(len(layers)), key=lambda row: layers[row][1 if goal == "bytes" else 2]),
            "That is the number of the row; the layer's name was asked for.",
        ),
        Mistake(lambda layers, goal: layers[0][0], "That is simply the first layer."),
        Mistake(lambda layers, goal: layers[-1][0], "That is simply the last layer."),
        Mistake(
            lambda layers, goal: max(layers)[0],
            "`max(layers)` compares the names first. Tell it what to compare, with `key=`.",
        ),
    ),
    praise="Half of the largest layer is worth more than all of the small ones: look before you shrink.",
    draw=_draw_layers,
)

_REASON = (
    "The layer with the most parameters need not be the one with the most multiplications. Look at both columns again."
)

WHY = Exercise(
    reference="b",
    mistakes=(
        Mistake("a", "Depth has no part in it: a dense layer at the start of a network would be just as large."),
        Mistake("c", f"A convolution has fewer weights here, but it uses each of them many times. {_REASON}"),
        Mistake(
            "d", f"Both layers hold float32 numbers of four bytes; what differs is how often each is used. {_REASON}"
        ),
    ),
    praise="Each weight of a convolution works at every position of the image, each weight of a dense layer once.",
)

EXERCISES = {
    "idx_shape": IDX_SHAPE,
    "conv_parameters": CONV_PARAMETERS,
    "conv_macs": CONV_MACS,
    "kilobytes": KILOBYTES,
    "first_to_shrink": FIRST_TO_SHRINK,
    "why": WHY,
    "wilson_interval": WILSON,
}
