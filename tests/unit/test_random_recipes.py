"""Recipes drawn by lot, on networks made by chance and on those that come with the course.

Each gives a file that LiteRT runs and that is what the recipe asks for, or a sentence that names the step. What a file
should be is worked out here again, from the recipe and from the bytes, without the checks that `compress` makes itself.
`make fuzz` draws ten thousand of them.
"""

from __future__ import annotations

import functools
import os

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from float_networks import FloatNetwork, random_network
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import compresskit as ck
from compresskit.data import Split
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.runtime import outputs
from compresskit.pruning.patterns import parse_pattern
from compresskit.recipe import (
    ACTIVATION_RANGES,
    CONVOLUTIONS,
    IMPORTANCES,
    INTERFACES,
    RANGES,
    SHARE_METHODS,
    STARTS,
    WEIGHT_BITS,
)

LONG = "COMPRESSKIT_FUZZ" in os.environ
RECIPES = 10 * int(os.environ["COMPRESSKIT_FUZZ"]) if LONG else 200
NETWORKS = 200 if LONG else 12
IMAGES = 4
SHIPPED = ("small_student", "lenet5", "lenet_300_100", "digit_reader")
ADVICE = ("choose", "give", "leave", "bring", "put", "remove", "raise", "its layers are")
STEPS = ("Prune", "Factorize", "Share", "Quantize")
PATTERNS = ("unstructured", "unstructured", "2:4", "1:4", "3:8", "block 1x4", "block 4x4", "block 2x2", "channel")
STORED = {32: "float32", 16: "float16", 8: "int8", 7: "int8", 6: "int8", 5: "int8", 3: "int8", 4: "int4", 2: "int2"}
FLOWS = {32: np.float32, 16: np.int16, 8: np.int8}


@functools.lru_cache(maxsize=16)
def network(name: str) -> ck.Checkpoint:
    return ck.load_model(name) if name in SHIPPED else ck.Checkpoint(name, random_network(int(name)))


@functools.lru_cache(maxsize=16)
def examples(name: str) -> Split:
    chance = np.random.default_rng(3)
    shape = network(name).input_shape
    return Split(chance.random((24, *shape), np.float32), chance.integers(0, 10, 24))


@functools.cache
def names_of(name: str) -> tuple[str, ...]:
    return tuple(layer.name for layer in network(name).layers)


def rarely(draw, thing, other=None, once_in=4):
    """Draw a thing once in so many times; a value in the middle decides, since hypothesis likes ends."""
    return draw(thing) if draw(st.integers(0, once_in - 1)) == once_in // 2 else other


def parts(low=0.0, high=1.0):
    return st.floats(low, high, allow_nan=False).map(lambda part: round(part, 3))


@st.composite
def prunes(draw, layers, channels):
    pattern = "channel" if channels else draw(st.sampled_from(PATTERNS[:-1]))
    fixed = parse_pattern(pattern).sparsity is not None
    return ck.Prune(
        None if fixed else draw(parts(0, 0.999)),
        scope=draw(st.sampled_from(("layer", "global"))) if pattern == "unstructured" else "layer",
        layers=rarely(draw, layers, once_in=2 if pattern != "unstructured" else 4),
        importance=draw(st.sampled_from(IMPORTANCES)),
        pattern=pattern,
        seed=draw(st.integers(0, 3)),
    )


@st.composite
def factorizes(draw, layers):
    how = draw(st.sampled_from(("rank", "energy", "budget")))
    far = {"rank": st.integers(1, 12), "energy": parts(0.3, 1), "budget": parts(0.05, 0.95)}[how]
    return ck.Factorize(
        **{how: draw(far)}, convolutions=draw(st.sampled_from(CONVOLUTIONS)), layers=rarely(draw, layers)
    )


@st.composite
def shares(draw, layers):
    method = draw(st.sampled_from(SHARE_METHODS))
    levels = {"binary": None, "ternary": None, "uniform": draw(st.sampled_from((2, 4, 8, 16, 256)))}
    return ck.Share(
        levels.get(method, draw(st.integers(3, 40))),
        method=method,
        start=draw(st.sampled_from(STARTS)),
        granularity=draw(st.sampled_from(("layer", "channel"))),
        keep_zero=draw(st.booleans()),
        layers=rarely(draw, layers),
        seed=draw(st.integers(0, 3)),
    )


@st.composite
def schemes(draw, activations):
    """Settings of weights; most go with the activations, some do not."""
    fitting = {32: WEIGHT_BITS, 16: (8,), 8: (3, 4, 5, 6, 7, 8)}[activations]
    scheme = {
        "weights": draw(st.sampled_from(rarely(draw, st.just(WEIGHT_BITS), fitting, 20))),
        "granularity": draw(st.sampled_from(("channel", "tensor"))),
        "ranges": draw(st.sampled_from(RANGES)),
    }
    if activations == 32 and scheme["weights"] > 2:
        scheme["compute"] = rarely(draw, st.just("float"), "integer", 3)
    if scheme["weights"] == 4 and scheme.get("compute") == "integer":
        scheme["granularity"] = draw(st.sampled_from(("channel", "tensor", "block32", "block64")))
    elif activations < 32:
        scheme["store"] = rarely(draw, st.just("int8"), "auto")
    return scheme


@st.composite
def quantizes(draw, names):
    activations = draw(st.sampled_from((8, 8, 16, 32, 32)))
    own = rarely(draw, st.lists(st.sampled_from(names), max_size=2, unique=True), [], 2)
    skip = rarely(draw, st.lists(st.sampled_from(names), max_size=1), [])
    return ck.Quantize(
        **draw(schemes(activations)),
        activations=activations,
        layers={name: draw(schemes(activations)) for name in own if name not in skip},
        calibration_digits=draw(st.integers(1, 24)),
        activation_ranges=draw(st.sampled_from(ACTIVATION_RANGES)),
        io=draw(st.sampled_from(INTERFACES)) if activations < 32 else "same",
        skip=skip,
    )


@st.composite
def recipes(draw, name):
    """A recipe, or the sentence that refuses it."""
    cut = rarely(draw, st.just(True), False, 3)
    names = [*names_of(name), *((f"{each}_in" for each in names_of(name)) if cut else ())]
    names += rarely(draw, st.just(["elsewhere"]), [], 20)
    layers = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)
    whole = st.lists(st.sampled_from(names_of(name)), min_size=1, max_size=2, unique=True)
    kinds = {
        "channels": prunes(whole, True), "cut": factorizes(whole), "weights": prunes(layers, False),
        "share": shares(layers), "quantize": quantizes(names if cut else names_of(name)),
    }  # fmt: skip
    once_in = {"channels": 3, "cut": 1 if cut else 0, "weights": 2, "share": 2, "quantize": 1}
    wanted = [kind for kind in kinds if once_in[kind] and rarely(draw, st.just(True), False, once_in[kind])]
    wanted = rarely(draw, st.permutations(wanted), wanted, 30)
    try:
        return ck.Recipe(*(draw(kinds[kind]) for kind in wanted))
    except ValueError as error:
        return str(error)


def check_sentence(told: str) -> None:
    assert told.startswith(tuple(f"{step}: " for step in (*STEPS, "Recipe", "calibration"))) or "layer '" in told, told
    assert any(what in told for what in ("choose", "give", "leave", "bring", "put", "remove", "raise", "its layers")), (
        told
    )
    assert len(told) < 600 and "\n" not in told, told


def check_file(small: ck.Compressed, data: Split) -> None:
    """Run it, and hold types, zeros and answers against what the recipe says."""
    step = small.recipe.quantize or ck.Quantize(32, 32)
    model = files.read(small.tflite)
    assert small.tflite[4:8] == b"TFL3" and not any(buffer.size for buffer in model.buffers)
    for layer in small.layers:
        asked = step.for_layer(layer.name)
        wanted = "int8" if asked.store == "int8" and asked.weights < 8 else STORED[asked.weights]
        assert layer.dtype == wanted, f"{layer.name} is {layer.dtype}, not {wanted}"
    interpreter = Interpreter(model_content=small.tflite, num_threads=1)
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outside = {"same": FLOWS[step.activations], "uint8": np.uint8, "float32": np.float32}[step.io]
    assert into["dtype"] == outside and out["dtype"] == outside
    answers = []
    for image in data.images[:IMAGES]:
        interpreter.set_tensor(into["index"], quantized(image[None], into))
        interpreter.invoke()
        answers.append(real(interpreter.get_tensor(out["index"]), out))
    check_zeros(small, step)
    check_answers(small, step, data, np.concatenate(answers))


def quantized(image, details):
    scale, zero = details["quantization"]
    if not scale:
        return image.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(image / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def real(values, details):
    scale, zero = details["quantization"]
    return (values.astype(np.float64) - zero) * scale if scale else values.astype(np.float64)


def check_zeros(small: ck.Compressed, step: ck.Quantize) -> None:
    """What was pruned layer by layer last, and not shared without a zero, is still zero in the file."""
    single = [each for each in small.recipe.prunes if each.pattern != "channel"]
    if not single or single[-1].scope == "global" or any(not each.keep_zero for each in small.recipe.shares):
        return
    for layer in small.layers:
        if single[-1].layers is None or layer.name in single[-1].layers:
            weights = layer.parameters and int(np.prod(layer.shape))
            assert layer.sparsity * weights >= np.floor(single[-1].sparsity * weights) - 1, layer


def check_answers(small: ck.Compressed, step: ck.Quantize, data: Split, answers) -> None:
    """The file's answers are those of the same graph in float with the file's own weights, but for rounding."""
    assert np.isfinite(answers).all()
    if step.needs_calibration and (step.activation_ranges != "minmax" or step.calibration_digits < IMAGES):
        return  # what these answers reach may be clipped
    before = ck.compress(small.checkpoint, ck.Recipe(*(each for each in small.recipe.steps if each is not step)), data)
    graph = files.read(before.tflite)
    arrays = {site.weights: small.weights(site.name) for site in sites(graph)}
    twin = Interpreter(model_content=files.replace_constants(before.tflite, arrays), num_threads=1)
    twin.allocate_tensors()
    into, out = twin.get_input_details()[0], twin.get_output_details()[0]
    wanted = []
    for image in data.images[:IMAGES]:
        twin.set_tensor(into["index"], image[None])
        twin.invoke()
        wanted.append(twin.get_tensor(out["index"]).astype(np.float64))
    wanted = np.concatenate(wanted)
    difference = np.sqrt(np.mean((answers - wanted) ** 2)) / (np.sqrt(np.mean(wanted**2)) + 1e-6)
    assert difference <= (0.5 if step.activations == 8 else 0.1), difference


def test_random_recipes_give_a_file_or_a_sentence_fuzz():
    outcomes = {"file": 0, "refused": 0, "made no sense": 0}

    @settings(
        max_examples=RECIPES, deadline=None, derandomize=not LONG, database=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def draw_one(data):
        common = data.draw(st.integers(0, 11)) != 6
        name = data.draw(st.integers(0, NETWORKS - 1).map(str) if common else st.sampled_from(SHIPPED))
        recipe = data.draw(recipes(name))
        if isinstance(recipe, str):
            check_sentence(recipe)
            outcomes["made no sense"] += 1
            return
        note(f"network {name}: {recipe.to_python()}")
        try:
            small = ck.compress(network(name), recipe, examples(name))
        except ValueError as error:
            check_sentence(str(error))
            outcomes["refused"] += 1
            return
        check_file(small, examples(name))
        outcomes["file"] += 1

    draw_one()
    assert outcomes["file"] > RECIPES / 4, outcomes
    assert outcomes["refused"] > 0, outcomes


# ---- what the lot has found -----------------------------------------------------------------------------------------


def test_a_layer_that_is_silent_on_all_digits_still_makes_a_file():
    """Its outputs are 0 throughout, and a grid of no width cannot be multiplied with."""
    net = FloatNetwork((4, 4, 1), seed=0)
    x = net.conv(net.input, 3)
    bias = net.graph.tensors[net.graph.operators[-1].inputs[2]].buffer
    net.model.buffers[bias].data = np.full(3, -50, np.float32).view(np.uint8)
    silent = ck.Checkpoint("silent", net.tflite(net.dense(net.mean(x), 10, activation="none")))
    data = Split(np.random.default_rng(0).random((8, 4, 4, 1), np.float32), np.arange(8))
    wanted = ck.compress(silent, ck.Recipe()).tflite
    for activations in (8, 16):
        small = ck.compress(silent, ck.Recipe(ck.Quantize(8, activations, io="float32")), data)
        biases = outputs(wanted, data.images)
        np.testing.assert_allclose(outputs(small.tflite, data.images), biases, atol=np.abs(biases).max() / 100)
        assert np.count_nonzero(small.weights("dense2")) > 20, "the weights behind it are still there"


def test_a_file_without_signatures_may_have_another_interface():
    net = FloatNetwork((4, 4, 1), seed=1)
    plain = ck.Checkpoint("plain", net.tflite(net.dense(net.flatten(net.input), 10, activation="none")))
    data = Split(np.random.default_rng(0).random((8, 4, 4, 1), np.float32), np.arange(8))
    check_file(ck.compress(plain, ck.Recipe(ck.Quantize(io="uint8")), data), data)


def test_the_inputs_of_a_depthwise_layer_are_weighed_for_each_of_its_channels():
    """One with a multiplier makes several channels of each, side by side."""
    net = FloatNetwork((4, 4, 2), seed=2)
    x = net.depthwise(net.input, multiplier=3)
    own = ck.Checkpoint("depthwise", net.tflite(net.dense(net.mean(x), 10, activation="none")))
    images = np.random.default_rng(0).random((8, 4, 4, 2), np.float32) * np.array([1, 1e-6], np.float32)
    name = own.layers[0].name
    recipe = ck.Recipe(ck.Prune(0.5, importance="activation", layers=[name]))
    left = ck.compress(own, recipe, Split(images, np.arange(8))).weights(name)
    assert np.count_nonzero(left[..., :3]) == 27 and not left[..., 3:].any(), "what reads the faint channel goes"
