"""TensorFlow's fake quantization, and the weights and biases that its converter writes."""

from __future__ import annotations

import numpy as np
import pytest

from compresskit.litert import model as files
from compresskit.litert.inspect import CHANNEL_AXIS, sites
from compresskit.litert.integer_layers import integer_model
from compresskit.quantization.affine import affine_grid, fake_quantize, quantize
from compresskit.quantization.integer import quantize_bias
from compresskit.quantization.ranges import weight_grid

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def converted(tf):
    """A small network with each kind of layer, as float and as int8 file, by TFLiteConverter."""
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(3)
    image = tf_keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="relu", bias_initializer="random_normal", name="conv")(image)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", bias_initializer="random_normal", name="depthwise")(x)
    x = layers.AveragePooling2D(name="pool")(layers.ReLU(6.0, name="relu6")(x))
    x = layers.Dense(10, bias_initializer="random_normal", name="dense")(layers.Flatten(name="flatten")(x))
    model = tf_keras.Model(image, x)
    digits = np.random.default_rng(4).random((40, 1, 12, 12, 3)).astype(np.float32)
    plain = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[digit] for digit in digits]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return plain, converter.convert()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("ends", [(-1.0, 2.0), (0.0, 6.0), (-0.31, 0.7), (-5.0, 0.0), (-100.0, 1.0)])
def test_fake_quantization_is_tensorflows(tf, bits, ends):
    """Equal, but for a value half way between two numbers of the grid: ours goes to the even one, theirs up."""
    low, high = ends
    x = np.random.default_rng(bits).uniform(low - 1, high + 1, 100_000).astype(np.float32)
    theirs = tf.quantization.fake_quant_with_min_max_vars(x, low, high, bits).numpy()
    grid = affine_grid(low, high, bits, signed=False)
    ours = fake_quantize(x, grid)
    half = np.abs(np.abs(x / grid.scale % 1) - 0.5) < 1e-4
    np.testing.assert_allclose(ours[~half], theirs[~half], rtol=0, atol=1e-5 * grid.scale)
    assert np.abs(ours - theirs).max() <= 1.001 * grid.scale


def test_where_fake_quantization_differs(tf):
    """A zero point half way between integers goes to the even one here, away from 0 there; and they do not add 0."""
    x = np.float32([-0.5, 0.0, 0.9])
    theirs = tf.quantization.fake_quant_with_min_max_vars(x, -0.3, 0.7, 4).numpy()
    grid = affine_grid(-0.3, 0.7, 4, signed=False)
    assert grid.zero_point == 4  # of 4.5; theirs is 5
    np.testing.assert_allclose(theirs, np.float32([-5, 0, 10]) / 15, rtol=1e-6)
    np.testing.assert_allclose(fake_quantize(x, grid), np.float32([-4, 0, 11]) / 15, rtol=1e-6)
    far = tf.quantization.fake_quant_with_min_max_vars(np.float32([2.0]), 0.5, 2.0, 8).numpy()
    np.testing.assert_allclose(far, 1.5, rtol=1e-6)  # the range moved to 0..1.5, and 2 is cut off
    np.testing.assert_allclose(fake_quantize([2.0], affine_grid(0.5, 2.0)), 2.0, rtol=1e-6)


def test_weights_and_biases_are_the_converters(converted):
    plain, small = (files.read(each) for each in converted)
    kinds = set()
    for before, after in zip(sites(plain), sites(small), strict=True):
        kinds.add(after.op)
        graph = small.subgraphs[0]
        weights = files.stored(plain, plain.subgraphs[0].tensors[before.weights])
        stored = graph.tensors[after.weights]
        scales = np.asarray(stored.quantization.scale, np.float32)
        grid = weight_grid(weights, 8, axis=CHANNEL_AXIS[after.op] if len(scales) > 1 else None)
        np.testing.assert_array_equal(grid.scale.ravel(), scales)
        np.testing.assert_array_equal(quantize(weights, grid, "away"), files.stored(small, stored))
        bias = files.stored(plain, plain.subgraphs[0].tensors[before.bias])
        input_scale = graph.tensors[graph.operators[after.operator].inputs[0]].quantization.scale[0]
        theirs = files.stored(small, graph.tensors[after.bias])
        difference = np.abs(quantize_bias(bias, input_scale, scales).astype(np.int64) - theirs)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.1  # theirs is divided in double precision
    assert kinds == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def test_the_converters_file_runs_in_integers_too(converted):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = integer_model(converted[1])
    interpreter = Interpreter(
        model_content=converted[1], experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    first = interpreter.get_input_details()[0]["index"]
    x = np.random.default_rng(5).integers(-128, 128, (64, 12, 12, 3)).astype(np.int8)
    interpreter.resize_tensor_input(first, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(first, x)
    interpreter.invoke()
    np.testing.assert_array_equal(model.run(x), interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def test_the_converter_rounds_halves_away_from_zero(tf):
    tf_keras = pytest.importorskip("tf_keras")
    layer = tf_keras.layers.Dense(2)
    image = tf_keras.Input((4,))
    model = tf_keras.Model(image, layer(image))
    weights = np.float32([[127, 127], [0.5, -0.5], [1.5, -1.5], [2.5, -2.5]])
    layer.set_weights([weights, np.zeros(2, np.float32)])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[np.ones((1, 4), np.float32)]] * 3
    small = files.read(converter.convert())
    stored = files.stored(small, small.subgraphs[0].tensors[sites(small)[0].weights])
    np.testing.assert_array_equal(stored, quantize(weights.T, weight_grid(weights.T, 8, axis=0), "away"))
    np.testing.assert_array_equal(stored[0], [127, 1, 2, 3])
