"""Training of shared values and of factorized networks: what is shared stays shared, what is zero stays zero."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit import sharing
from compresskit.data import Digits

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def few():
    digits = ck.load_mnist()
    return Digits(digits.train.take(2000), digits.validation.take(500), digits.test.take(500), digits.source)


@pytest.fixture(scope="module")
def model():
    return ck.load_model("lenet_300_100")


def weights_of(checkpoint: ck.Checkpoint) -> dict[str, np.ndarray]:
    small = ck.compress(checkpoint, ck.Recipe())
    return {layer.name: small.weights(layer.name) for layer in small.layers}


def test_the_gradient_of_a_value_is_that_of_the_arithmetic_room():
    import tensorflow as tf

    from compresskit.training.cluster import look_up

    rng = np.random.default_rng(0)
    shared = sharing.kmeans(rng.normal(size=(6, 5)).astype(np.float32), 4)
    slopes = rng.normal(size=(6, 5)).astype(np.float32)
    codebook = tf.Variable(shared.codebook)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(look_up(codebook, tf.constant(shared.codes.astype(np.int32))) * slopes)
    ours = sharing.codebook_gradient(shared, slopes, average=False)
    np.testing.assert_allclose(tape.gradient(loss, codebook).numpy(), ours, rtol=1e-5)


@pytest.mark.parametrize("way", ["codebook", "tfmot"])
def test_values_learn_and_zeros_stay(few, model, way):
    from compresskit.training.cluster import train_shared
    from compresskit.training.convert import to_checkpoint, to_keras

    sparse = ck.compress(model, ck.Recipe(ck.Prune(0.8))).tflite
    keras = to_keras(model)
    held = weights_of(ck.Checkpoint("sparse", sparse))
    for layer in keras.layers:
        if layer.name in held:
            layer.set_weights([held[layer.name].T, layer.get_weights()[1]])
    start = to_checkpoint(keras, "sparse")
    step = ck.Share(8)
    trained = train_shared(start, step, few, way=way, epochs=1)
    assert len(trained.history) == 1 and not trained.cancelled
    for name, before in held.items():
        after = weights_of(trained.checkpoint)[name]
        assert not after[before == 0].any(), "what was pruned stays pruned"
        assert len(np.unique(after)) <= 8
        np.testing.assert_array_equal(np.unique(after), trained.codebooks[name])
    # The same step finds the trained codebook again: nothing is lost on the way to the file.
    again = ck.compress(trained.checkpoint, ck.Recipe(step))
    for name, after in weights_of(trained.checkpoint).items():
        np.testing.assert_array_equal(again.weights(name), after)
    if way == "codebook":
        untrained = ck.compress(start, ck.Recipe(step))
        gain = ck.evaluate(untrained, few.validation).errors - ck.evaluate(trained.checkpoint, few.validation).errors
        assert gain > 0, "training helps"
        codes = {name: untrained.weights(name) for name in held}
        for name, after in weights_of(trained.checkpoint).items():
            for value in np.unique(codes[name]):
                assert len(np.unique(after[codes[name] == value])) == 1, "a weight keeps its place in the codebook"


def test_what_cannot_be_shared_is_said_before_training(few, model):
    from compresskit.training.cluster import train_shared

    for step, words in (
        (ck.Share(8, layers=["flatten"]), "layer 'flatten' holds no weights to share"),
        ([ck.Share(8), ck.Share(4, layers=["head"])], "layer 'head' stands in two steps"),
    ):
        with pytest.raises(ValueError, match=words):
            train_shared(model, step, few)
    with pytest.raises(ValueError, match="TFMOT has k-means with one codebook a layer"):
        train_shared(model, ck.Share(method="ternary"), few, way="tfmot")
    with pytest.raises(ValueError, match="way is 'mean'"):
        train_shared(model, ck.Share(8), few, way="mean")


def test_a_factorized_network_is_trained_as_it_stands_in_the_file(few):
    from compresskit.factorized import factorize
    from compresskit.litert.runtime import outputs
    from compresskit.training.convert import to_checkpoint, to_keras
    from compresskit.training.graphs import fold_normalization
    from compresskit.training.lowrank import train_factorized, with_factors

    model = ck.load_model("lenet5")
    images = few.validation.images[:50]
    for step in (ck.Factorize(6, convolutions="spatial"), ck.Factorize(8, convolutions="tucker2")):
        cut = factorize(model.tflite, (step,))
        keras = to_checkpoint(with_factors(fold_normalization(to_keras(model)), cut.pieces), "cut")
        np.testing.assert_allclose(outputs(keras.tflite, images), outputs(cut.base, images), atol=2e-3)
        assert [layer.name for layer in keras.layers] == [layer.name for layer in ck.Checkpoint("c", cut.base).layers]
    small = ck.load_model("lenet_300_100")
    step = ck.Factorize(8)
    trained = train_factorized(small, step, few, epochs=1)
    before = ck.evaluate(ck.compress(small, ck.Recipe(step)), few.validation).errors
    assert ck.evaluate(trained.checkpoint, few.validation).errors < before
