"""Exercises of lesson 05: bytes of blocks, cosines, rules by regular expression, the guilty layer, a mixed recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from compresskit.compression import Compressed, compress
from compresskit.course.checks import Case, Exercise, Mistake
from compresskit.data import load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.recipe import Quantize, Recipe
from compresskit.zoo import Checkpoint, load_model

# -- a model on which one scale a layer is not enough ---------------------------------------------------------------


def uneven(model: Checkpoint, factor: float = 64.0) -> Checkpoint:
    """Make the last channel of each depthwise layer large and what flows into it small: the answers stay bit for bit.

    A rectifier lets a positive factor through, so the channel can be divided by it in the layer before (weights and
    bias) and multiplied by it in the depthwise layer. Training with batch normalization leaves such channels behind.

    Parameters
    ----------
    model
        A chain in which every depthwise layer follows a convolution with a rectifier.
    factor
        A power of two, so that no float is rounded.

    Returns
    -------
    Checkpoint
        The same function, called "uneven_student".

    Raises
    ------
    ValueError
        If `factor` is not a power of two, or the model has no depthwise layer.
    """
    if factor <= 0 or math.frexp(factor)[0] != 0.5:
        raise ValueError(f"factor is {factor!r}; give a power of two, such as 64, so that every float stays exact")
    graph = files.read(model.tflite)
    tensors, found = graph.subgraphs[0].tensors, sites(graph)
    arrays: dict[int, Any] = {}

    def array(index: int) -> Any:
        return arrays.setdefault(index, files.stored(graph, tensors[index]).copy())

    for before, site in pairwise(found):
        if site.op != "DEPTHWISE_CONV_2D":
            continue
        depthwise = array(site.weights)
        depthwise[..., -1] *= np.float32(factor)
        for index in (before.weights, before.bias):
            if index is not None:
                array(index)[-1] /= np.float32(factor)
    if not arrays:
        raise ValueError(f"model {model.name!r} has no depthwise layer after another layer; take small_student")
    return Checkpoint("uneven_student", files.replace_constants(model.tflite, arrays))


# -- what blocks cost -----------------------------------------------------------------------------------------------


def block_bytes(outputs: int, inputs: int, bits: int, block: int) -> int:
    """Count the bytes of a dense layer's weights in blocks, each with a scale of 16 bits."""
    weights = outputs * inputs * bits // 8
    scales = outputs * inputs // block * 2
    return weights + scales


def _layers(rng: np.random.Generator) -> Iterator[Case]:
    yield (128, 3136, 4, 32)
    yield (128, 3136, 4, 64)
    yield (10, 128, 4, 128)
    for _ in range(6):
        block = int(rng.choice([32, 64, 128, 256]))
        yield (int(rng.integers(1, 64)) * 2, block * int(rng.integers(1, 12)), int(rng.choice([2, 4, 8])), block)


BLOCKS = Exercise(
    reference=block_bytes,
    cases=_layers,
    mistakes=(
        Mistake(
            lambda outputs, inputs, bits, block: outputs * inputs * bits // 8,
            "Those are the weights. Each block brings a scale along, of 2 bytes.",
        ),
        Mistake(
            lambda outputs, inputs, bits, block: outputs * inputs * bits // 8 + 2 * outputs,
            "That is one scale for each output. Each output has inputs / block of them.",
        ),
        Mistake(
            lambda outputs, inputs, bits, block: outputs * inputs * bits // 8 + outputs * inputs // block * 4,
            "The scales of blocks are stored as float16: 2 bytes each, not 4.",
        ),
        Mistake(
            lambda outputs, inputs, bits, block: outputs * inputs * bits // 8 + outputs * inputs // block,
            "A scale has 16 bits, and those are 2 bytes.",
        ),
        Mistake(
            lambda outputs, inputs, bits, block: outputs * inputs * bits // 8 + outputs * inputs // block * 16,
            "A scale has 16 bits, not 16 bytes.",
        ),
        Mistake(
            lambda outputs, inputs, bits, block: outputs * inputs * bits + outputs * inputs // block * 16,
            "These are bits; eight of them make a byte.",
        ),
        Mistake(
            lambda outputs, inputs, bits, block: outputs * inputs + outputs * inputs // block * 2,
            "This takes a byte for each weight, whatever its bits are.",
        ),
    ),
    praise="In blocks of 32 a 4-bit weight costs four and a half bits.",
    tolerance=0.0,
)


# -- do two outputs point the same way? ------------------------------------------------------------------------------


def mean_cosine(before: Any, after: Any) -> float:
    """Give the mean, over the examples, of the cosine between the rows of two arrays (examples, values)."""
    dots = (before * after).sum(axis=1)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return float(np.mean(dots / lengths))


def _outputs(rng: np.random.Generator) -> Iterator[Case]:
    yield (np.array([[3.0, 4.0]]), np.array([[6.0, 8.0]]))
    yield (np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    for _ in range(5):
        before = rng.normal(0.5, 1, (int(rng.integers(2, 6)), 8)) * rng.uniform(0.2, 5, 8)
        yield (before.round(4), (before + rng.normal(0, 0.3, before.shape)).round(4))


def _flat_cosine(before: Any, after: Any) -> float:
    return float((before * after).sum() / np.linalg.norm(before) / np.linalg.norm(after))


def _centred(before: Any, after: Any) -> float:
    return mean_cosine(before - before.mean(axis=1, keepdims=True), after - after.mean(axis=1, keepdims=True))


COSINE = Exercise(
    reference=mean_cosine,
    cases=_outputs,
    mistakes=(
        Mistake(
            _flat_cosine,
            "This is one cosine of all examples laid end to end: those with large outputs decide. Take the cosine of "
            "each row, then the mean.",
        ),
        Mistake(
            lambda before, after: float((before * after).sum(axis=1).mean()),
            "Those are inner products. Divide each by the lengths of its two rows.",
        ),
        Mistake(
            lambda before, after: mean_cosine(before.T, after.T),
            "The axes are turned round: an example is a row, so sum along axis 1.",
        ),
        Mistake(
            lambda before, after: 1 - mean_cosine(before, after),
            "That is the cosine distance; the cosine is 1 where both point the same way.",
        ),
        Mistake(
            lambda before, after: float(
                np.mean((before * after).sum(axis=1) / np.linalg.norm(before, axis=1) ** 2),
            ),
            "Divide by the length of both rows, not by the square of one of them.",
        ),
        Mistake(
            _centred, "The mean was taken off first: that is a correlation. The cosine takes the rows as they are."
        ),
    ),
    praise="A cosine does not see a factor; signal to noise does. Together they tell a wrong scale from noise.",
)


# -- rules by regular expression ---------------------------------------------------------------------------------------


def bits_for(rules: list[tuple[str, int]], tensor: str) -> int:
    """Give the bits that ai-edge-quantizer's rules choose for an operator, known by its output tensor."""
    bits = 32
    for expression, width in rules:
        if re.search(expression, tensor):
            bits = width
    return bits


_TENSORS = ("digit_reader/conv1/output", "digit_reader/dense/output", "StatefulPartitionedCall_1:0")


def _rules(rng: np.random.Generator) -> Iterator[Case]:
    yield ([(".*", 8)], _TENSORS[0])
    yield ([(".*", 8), ("dense", 4)], _TENSORS[1])
    yield ([("dense", 4), (".*", 8)], _TENSORS[1])
    yield ([("^dense", 4)], _TENSORS[1])
    yield ([("conv", 4)], _TENSORS[1])
    yield ([("head", 8)], _TENSORS[2])
    yield ([("reader/dense", 2), ("conv", 8), ("d", 4)], _TENSORS[1])
    yield ([], _TENSORS[0])
    parts = (".*", "conv", "dense", "^digit", "output$", "conv[12]", "head", "Stateful")
    for _ in range(8):
        count = int(rng.integers(1, 4))
        rules = [(str(rng.choice(parts)), int(rng.choice([2, 4, 8]))) for _ in range(count)]
        yield (rules, str(rng.choice(_TENSORS)))


def _first(rules: list[tuple[str, int]], tensor: str) -> int:
    return next((bits for expression, bits in rules if re.search(expression, tensor)), 32)


def _with(finds: Any, otherwise: Any = 32) -> Any:
    def answer(rules: list[tuple[str, int]], tensor: str) -> Any:
        bits = otherwise
        for expression, width in rules:
            if finds(expression, tensor):
                bits = width
        return bits

    return answer


RULES = Exercise(
    reference=bits_for,
    cases=_rules,
    mistakes=(
        Mistake(_first, "The first rule that fits decides here. In ai-edge-quantizer it is the last: go on looking."),
        Mistake(
            _with(re.match),
            "`re.match` looks at the beginning of the name only; ai-edge-quantizer searches all of it: `re.search`.",
        ),
        Mistake(
            _with(re.fullmatch),
            "`re.fullmatch` wants the whole name to fit; ai-edge-quantizer is content with a part: `re.search`.",
        ),
        Mistake(
            _with(lambda expression, tensor: expression in tensor),
            "The rules are regular expressions: `.*` and `^` are no plain text.",
        ),
        Mistake(
            _with(re.search, 8), "Where no rule fits, nothing is quantized: the layer stays float, 32 bits, silently."
        ),
        Mistake(
            _with(re.search, None),
            "Where no rule fits, nothing is quantized: the layer stays float, 32 bits, silently.",
        ),
    ),
    praise="And a rule that fits nothing is no error. So look into the file.",
    tolerance=0.0,
)


# -- which layer breaks first ----------------------------------------------------------------------------------------

GUILTY = Exercise(
    reference="a",
    mistakes=(
        Mistake(
            "b",
            "`block4_pointwise` has the lowest ratio, but it is fed with the errors of all before it. With one scale "
            "for that layer alone, the file reads as well as before: try it.",
        ),
        Mistake("c", "After `conv` the ratio is still high: the layer does what it did. Look where it falls off."),
        Mistake("d", "The float file reads as well as ever: the weights are all there. It is the grid that is wrong."),
    ),
    praise="Go along the network and stop where the ratio falls off. What comes after is fed with the damage.",
)


# -- a mixed recipe, by hand -----------------------------------------------------------------------------------------

BUDGET = 120_000
"""Bytes that the file must stay below."""
GOAL = 0.988
"""Fraction of the test digits that it must read rightly."""

_NARROWEST = {"CONV_2D": 4, "FULLY_CONNECTED": 2, "DEPTHWISE_CONV_2D": 8}
"""Bits of the narrowest weights that LiteRT computes rightly, with float activations."""
_WIDTHS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4, "int2": 2}


def examine_mixed(answer: Any) -> tuple[bool, tuple[str, ...]]:
    """Judge settings by layer for the digit reader: small enough, right enough, and in LiteRT at all.

    Parameters
    ----------
    answer
        A mapping of layer names to settings, as `Quantize` takes them.

    Returns
    -------
    (bool, tuple of str)
        Whether it reaches the goal, and what to say.
    """
    if not isinstance(answer, Mapping):
        return False, ('Give a dict of layers, such as {"conv1": {"weights": 8}}.',)
    try:
        recipe = Recipe(Quantize(weights=8, activations=32, layers=answer))
        small = compress(load_model("digit_reader"), recipe, load_mnist().train)
    except (ValueError, TypeError) as error:
        return False, ("There is no such file in LiteRT:", f"{error}.")
    if small.size >= BUDGET:
        return False, (f"The file has {small.size:,} bytes; fewer than {BUDGET:,} are wanted.", _where_to_save(small))
    score = evaluate(small, load_mnist().test)
    told = f"{small.size:,} bytes, {score.accuracy:.2%} of {score.n:,} digits."
    if score.accuracy < GOAL:
        return False, (
            f"{told} The size is right; at least {GOAL:.1%} of the digits are wanted.",
            _where_it_hurts(small),
        )
    return True, (told,)


def _where_to_save(small: Compressed) -> str:
    """Name the layer from which narrower weights would take most."""
    rows = [(row, _NARROWEST.get(row.op, 8)) for row in small.layers]
    savings = [math.prod(row.shape) * max(0, _WIDTHS[row.dtype] - narrowest) // 8 for row, narrowest in rows]
    row, narrowest = rows[int(np.argmax(savings))]
    return (
        f"Look at `{row.name}`: its weights take {math.prod(row.shape) * _WIDTHS[row.dtype] // 8:,} of these bytes, as "
        f"{row.dtype}, and LiteRT has {narrowest} bits for a {row.op}."
    )


def _where_it_hurts(small: Compressed) -> str:
    """Name the layer of few bits whose grid loses most of its weights' own signal."""
    step = small.recipe.quantize
    assert step is not None
    original = Compressed(small.checkpoint.tflite, Recipe(), small.checkpoint)

    def noise(name: str) -> float:
        before = original.weights(name).astype(np.float64)
        return float(np.square(small.weights(name) - before).sum() / np.square(before).sum())

    worst = max((row.name for row in small.layers), key=noise)
    settings = step.for_layer(worst)
    why = f"Look at `{worst}`: {settings.weights} bits, ranges={settings.ranges!r}. "
    if settings.weights < 8 and settings.ranges == "minmax":
        return why + "Its grid reaches to the largest weight, so most weights are rounded to zero: choose other ranges."
    return why + "Its grid keeps least of its weights: give it more bits, or save them in another layer."


MIXED = Exercise(
    reference={
        "conv1": {"weights": 8},
        "conv2": {"weights": 4, "ranges": "octav"},
        "dense": {"weights": 2, "ranges": "octav"},
        "head": {"weights": 8},
    },
    examine=examine_mixed,
    mistakes=(
        Mistake(
            {},
            "Look at `dense`: its weights take 401,408 of these bytes, as int8, and LiteRT has 2 bits for a "
            "FULLY_CONNECTED.",
        ),
        Mistake(
            {"dense": {"weights": 2, "ranges": "octav"}, "conv2": {"weights": 32}},
            "Look at `conv2`: its weights take 73,728 of these bytes, as float32, and LiteRT has 4 bits for a CONV_2D.",
        ),
        Mistake(
            {"conv2": {"weights": 4}, "dense": {"weights": 2}},
            "Look at `dense`: 2 bits, ranges='minmax'. Its grid reaches to the largest weight, so most weights are "
            "rounded to zero: choose other ranges.",
        ),
        Mistake(
            {"conv2": {"weights": 2, "ranges": "octav"}, "dense": {"weights": 2, "ranges": "octav"}},
            "There is no such file in LiteRT:",
        ),
        Mistake({"dense": {"weights": 2, "activations": 8}}, "There is no such file in LiteRT:"),
        Mistake({"conv3": {"weights": 4}}, "There is no such file in LiteRT:"),
        Mistake({"dense": 2}, "There is no such file in LiteRT:"),
        Mistake(2, 'Give a dict of layers, such as {"conv1": {"weights": 8}}.'),
    ),
    praise="Without training, a fourteenth of the float file. The large layer bears little precision, the small ones "
    "cost nothing.",
)

EXERCISES = {
    "block_bytes": BLOCKS,
    "mean_cosine": COSINE,
    "mixed": MIXED,
    "guilty": GUILTY,
    "bits_for": RULES,
}
