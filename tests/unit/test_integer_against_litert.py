"""The NumPy network against LiteRT's kernels, integer for integer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from small_networks import SmallNetwork

import compresskit as ck
from compresskit.litert import model as files
from compresskit.litert.integer_layers import integer_model
from compresskit.quantization.affine import Grid, quantize
from compresskit.quantization.integer import trace

FAN_IN_SPREAD = 74.0  # standard deviation of an evenly drawn int8


def litert(tflite, x, *, reference=True):
    """What LiteRT computes for a batch of integers."""
    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=tflite, num_threads=1, experimental_op_resolver_type=kernels)
    first = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(first, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(first, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def random_network(rng):
    """A chain of two to five layers with random grids, strides, paddings, dilations and activations."""
    dtype = str(rng.choice(["int8", "int8", "uint8"]))
    zero = int(rng.integers(0, 256)) - (128 if dtype == "int8" else 0)
    height, width, channels = (int(n) for n in rng.integers([5, 5, 1], [12, 12, 6]))
    network = SmallNetwork((height, width, channels), float(rng.uniform(0.002, 0.1)), zero, dtype)
    if dtype == "uint8":
        network.requantize(*random_grid(rng, network.grid[0]))
    for _ in range(int(rng.integers(1, 4))):
        add_spatial_layer(rng, network)
    if rng.random() < 0.3:
        network.mean(*random_grid(rng, network.grid[0]))
    else:
        network.reshape((int(np.prod(network.shape[1:])),))
    add_dense(rng, network)
    if rng.random() < 0.3:
        scale, zero_point = random_grid(rng, network.grid[0])
        network.requantize(scale, zero_point + 128, "uint8")
    return network


def random_grid(rng, around):
    """Scale near `around`, any zero point of int8."""
    return around * float(rng.uniform(0.4, 2.5)), int(rng.integers(-128, 128))


def add_spatial_layer(rng, network):
    """A convolution, plain or depthwise, or a pool."""
    height, width, channels = network.shape[1:]
    size = tuple(int(rng.integers(1, min(4, n) + 1)) for n in (height, width))
    moves = {
        "stride": tuple(int(s) for s in rng.integers(1, 4, 2)),
        "padding": str(rng.choice(["same", "valid"])),
        "activation": str(rng.choice(["none", "relu", "relu6", "relu_n1_to_1"])),
    }
    kind = rng.choice(["conv", "depthwise", "average", "max"])
    if kind in ("average", "max"):
        network.pool(kind, size, **moves)
        return
    fits = min((n - 1) // (k - 1) if k > 1 else 3 for n, k in zip((height, width), size, strict=True))
    if moves["stride"] == (1, 1) or rng.random() < 0.3:
        moves["dilation"] = tuple(int(rng.integers(1, min(3, fits) + 1)) for _ in range(2))
    out = int(rng.integers(1, 9)) if kind == "conv" else channels * int(rng.integers(1, 4))
    shape = (out, *size, channels) if kind == "conv" else (1, *size, out)
    fan_in = int(np.prod(size)) * (channels if kind == "conv" else 1)
    add_weights = network.conv if kind == "conv" else network.depthwise
    add_weights(*random_weights(rng, network, shape, out, fan_in), **moves)


def add_dense(rng, network):
    """A dense layer."""
    out, fan_in = int(rng.integers(1, 12)), network.shape[1]
    parameters = random_weights(rng, network, (out, fan_in), out, fan_in)
    network.dense(*parameters, activation=str(rng.choice(["none", "relu", "relu6"])))


def random_weights(rng, network, shape, out, fan_in):
    """Weights, scales, bias, and an output grid that the sums fill and sometimes overrun."""
    weights = rng.integers(-127, 128, shape).astype(np.int8)
    scales = rng.uniform(0.0005, 0.02, out if rng.random() < 0.7 else 1).astype(np.float32)
    spread = FAN_IN_SPREAD * FAN_IN_SPREAD * np.sqrt(fan_in)
    dense = len(shape) == 2  # LiteRT's quantized convolutions insist on a bias
    bias = None if dense and rng.random() < 0.3 else rng.normal(0, spread, out).astype(np.int32)
    scale = float(network.grid[0] * scales.mean() * spread / rng.uniform(20, 90))
    return weights, scales, bias, scale, int(rng.integers(-128, 128))


def test_two_hundred_random_networks_equal_the_reference_kernels_bit_for_bit():
    rng = np.random.default_rng(20261121)
    seen, varied = set(), 0
    for number in range(200):
        network = random_network(rng)
        tflite = network.bytes()
        limits = (0, 256) if network.graph.tensors[0].type == 3 else (-128, 128)
        x = rng.integers(*limits, (6, *network.graph.tensors[0].shape[1:])).astype(
            np.uint8 if limits[0] == 0 else np.int8
        )
        model = integer_model(tflite)
        ours, theirs = model.run(x), litert(tflite, x)
        seen.update(type(layer).__name__ for layer in model.layers)
        varied += len(np.unique(theirs)) > 3
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=f"network {number}: {model.layers}")
    assert len(seen) == 8, f"not every layer was met: {seen}"
    assert varied > 100, f"only {varied} networks give more than three different outputs: too little is tested"


def int8_file(name, digits, **settings):
    """A model of the course in integers, as `compress` makes it."""
    step = ck.Quantize(**{"weights": 8, "activations": 8, **settings})
    return ck.compress(ck.load_model(name), ck.Recipe(step), calibration=digits.train).tflite


def litert_in_batches(tflite, x, *, reference, workers=2):
    """What LiteRT computes for all digits, two interpreters sharing them."""
    parts = [x[start : start + 125] for start in range(0, len(x), 125)]
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(lambda part: litert(tflite, part, reference=reference), parts)))


def test_the_digit_reader_equals_both_kinds_of_kernels_on_all_test_digits(digits):
    """All ten outputs: the reference kernels on 10,000 digits, and XNNPACK, rounding in float32, on 2,000."""
    tflite = int8_file("digit_reader", digits)
    model = integer_model(tflite)
    x = model.encode(digits.test.images)
    assert x.shape == (10_000, 28, 28, 1)
    ours = model.run(x)
    assert ours.shape == (10_000, 10)
    assert len(np.unique(ours)) > 100
    reference = litert_in_batches(tflite, x, reference=True)
    np.testing.assert_array_equal(ours, reference)
    xnnpack = litert_in_batches(tflite, x, reference=False)
    np.testing.assert_array_equal(model.run(x[:2000], rounding="float32"), xnnpack[:2000])
    units = np.abs(xnnpack.astype(int) - reference)
    assert 0.005 < np.mean(units != 0) < 0.2, "the kernels should differ in some outputs, or the test sees nothing"
    assert units.max() == 1


@pytest.mark.parametrize("name", ["lenet5", "lenet_300_100", "small_student", "big_teacher"])
def test_the_other_models_equal_the_reference_kernels(name, digits):
    tflite = int8_file(name, digits)
    model = integer_model(tflite)
    x = model.encode(digits.test.images[:100])
    np.testing.assert_array_equal(model.run(x), litert(tflite, x))


@pytest.mark.parametrize(
    "settings", [{"granularity": "tensor"}, {"weights": 4, "ranges": "octav"}, {"io": "uint8"}, {"io": "float32"}]
)
def test_other_schemes_equal_the_reference_kernels(settings, digits):
    tflite = int8_file("digit_reader", digits, **settings)
    model = integer_model(tflite)
    images = digits.test.images[:200]
    x = model.encode(images)
    if settings.get("io") == "float32":
        pixels = images.reshape(-1, 28, 28, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(model.decode(model.run(x)), litert(tflite, pixels))
    else:
        assert x.dtype == (np.uint8 if settings.get("io") == "uint8" else np.int8)
        np.testing.assert_array_equal(model.run(x), litert(tflite, x))


def test_each_layer_gives_what_litert_gives(digits):
    """Every tensor on the way, not only the last."""
    tflite = int8_file("digit_reader", digits)
    model = integer_model(tflite)
    x = model.encode(digits.test.images[:1])
    interpreter = Interpreter(
        model_content=tflite,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    theirs = [interpreter.get_tensor(op.outputs[0]) for op in files.read(tflite).subgraphs[0].operators]
    ours = trace(model.layers, x)
    assert [layer.name for layer in model.layers if hasattr(layer, "weights")] == ["conv1", "conv2", "dense", "head"]
    assert len(ours) == len(theirs) == 7
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (ck.Recipe(), "computes in float32"),
        (ck.Recipe(ck.Quantize(weights=8, activations=32)), "computes in float32"),
        (ck.Recipe(ck.Quantize(weights=8, activations=16)), "has the type int16"),
    ],
)
def test_what_is_not_int8_is_refused_by_name(recipe, message, digits):
    tflite = ck.compress(ck.load_model("digit_reader"), recipe, calibration=digits.train).tflite
    with pytest.raises(ValueError, match=message):
        integer_model(tflite)


def test_an_unknown_operator_is_refused_by_name():
    network = SmallNetwork((4, 4, 1))
    network.pool("max", (2, 2))
    tflite = network.bytes()
    model = files.read(tflite)
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 25
    with pytest.raises(ValueError, match="SOFTMAX has no integer layer here"):
        integer_model(files.write(model))


def test_halves_of_float_inputs_go_away_from_zero_in_one_kernel_and_to_even_in_the_other():
    network = SmallNetwork((8,), 1.0, 0, "float32")
    network.graph.tensors[0].quantization = None
    network.requantize(1.0, 0)
    x = np.float32([[0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, np.nextafter(np.float32(0.5), np.float32(0))]])
    grid = Grid(np.float32(1), np.int32(0))
    np.testing.assert_array_equal(litert(network.bytes(), x), quantize(x, grid, "away"))
    np.testing.assert_array_equal(litert(network.bytes(), x, reference=False), quantize(x, grid, "even"))
