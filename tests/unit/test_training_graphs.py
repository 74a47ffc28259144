"""Models rebuilt layer by layer compute what they computed before."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.train

tf_keras = pytest.importorskip("tf_keras")
keras = pytest.importorskip("keras")

from compresskit.training.architectures import build  # noqa: E402
from compresskit.training.graphs import fold_normalization, from_keras3  # noqa: E402

GENERATOR = np.random.default_rng(7)


def stirred(model):
    """Give biases and running statistics values of their own, as training would."""
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(GENERATOR.uniform(0.5, 1.5, weight.shape).astype(np.float32))
    return model


def answers(model, shape=(28, 28, 1)):
    images = np.random.default_rng(1).random((5, *shape), np.float32)
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize(("name", "parameters"), [("small_student", 3_746), ("big_teacher", 452_970)])
def test_normalization_folds_into_the_layer_before_it(name, parameters):
    model = stirred(build(name))
    folded = fold_normalization(model)
    assert np.allclose(answers(folded), answers(model), rtol=1e-4, atol=1e-4)
    assert folded.count_params() == parameters
    assert not [layer for layer in folded.layers if type(layer).__name__ in ("BatchNormalization", "ReLU")]
    assert {layer.name for layer in folded.layers} <= {layer.name for layer in model.layers}


def test_a_normalization_that_stands_elsewhere_stays():
    layers = tf_keras.layers
    image = tf_keras.Input((8, 8, 3))
    once = layers.Conv2D(4, 3, padding="same", name="shared")(image)
    folded = layers.BatchNormalization(scale=False)(layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep")(once))
    kept = layers.BatchNormalization(center=False)(once)  # another layer needs what comes before it as well
    x = layers.Concatenate()([layers.Flatten()(folded), layers.Flatten()(layers.ReLU(6.0)(kept))])
    x = layers.BatchNormalization()(layers.Dense(5, activation="relu", name="bent")(x))  # not linear before it
    model = stirred(tf_keras.Model(image, x))
    rebuilt = fold_normalization(model)
    assert sum(type(layer).__name__ == "BatchNormalization" for layer in rebuilt.layers) == 2
    assert np.allclose(answers(rebuilt, (8, 8, 3)), answers(model, (8, 8, 3)), rtol=1e-4, atol=1e-4)


def test_a_layer_used_twice_is_refused_by_name():
    image = tf_keras.Input((4,))
    dense = tf_keras.layers.Dense(4, name="again")
    with pytest.raises(ValueError, match="layer 'again' is used more than once"):
        fold_normalization(tf_keras.Model(image, dense(dense(image))))


def test_a_keras_3_model_comes_over_with_its_weights_and_names():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 3, strides=2, use_bias=False, name="first"),
            layers.BatchNormalization(epsilon=0.01),
            layers.LeakyReLU(negative_slope=0.1),
            layers.Dropout(0.3),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
            layers.SeparableConv2D(6, 3, activation="elu"),
            layers.ReLU(max_value=6.0),
            layers.ZeroPadding2D(((1, 0), (0, 2))),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="last"),
        ]
    )
    twin = from_keras3(stirred(model))
    assert isinstance(twin, tf_keras.Model)
    assert np.allclose(answers(twin), answers(model), atol=1e-6)
    assert [layer.name for layer in twin.layers][1:] == [layer.name for layer in model.layers]


def test_a_keras_3_graph_with_branches_comes_over():
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    a, b = layers.Conv2D(4, 3, padding="same")(image), layers.Conv2D(4, 1)(image)
    x = layers.Concatenate()([layers.Subtract()([a, b]), a])
    model = stirred(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    assert np.allclose(answers(from_keras3(model), (8, 8, 3)), answers(model, (8, 8, 3)), atol=1e-6)


def test_what_has_no_exact_twin_is_refused_by_name():
    model = keras.Sequential([keras.Input((8, 8)), keras.layers.GRU(4, name="memory"), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"no exact twin in Keras 2: 'memory' \(GRU\)"):
        from_keras3(model)
