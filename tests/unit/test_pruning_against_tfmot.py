"""The same masks and the same sparsities as TensorFlow Model Optimization, on random cases."""

import numpy as np
import pytest

from compresskit.pruning import patterns
from compresskit.pruning.schedules import Constant, Polynomial

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def tfmot_pruning():
    pytest.importorskip("tf_keras")
    pytest.importorskip("tensorflow_model_optimization")
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

    return pruning_impl


def tfmot_mask(tf, pruning_impl, weights, sparsity=0.5, block=(1, 1), m_by_n=None):
    """Run TFMOT's own mask update; weights as Keras has them, output channel last."""
    pruning = pruning_impl.Pruning(
        training_step_fn=lambda: 0,
        pruning_vars=[(tf.Variable(weights), None, None)],
        pruning_schedule=lambda step: (True, sparsity),
        block_size=block,
        block_pooling_type="AVG",
        sparsity_m_by_n=m_by_n,
    )
    return pruning._maybe_update_block_mask(tf.constant(weights))[1].numpy().astype(bool)


@pytest.mark.parametrize("seed", range(25))
def test_unstructured(tf, tfmot_pruning, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=rng.integers(1, 30, size=rng.integers(1, 5))).astype(np.float32)
    kept = int(rng.integers(1, weights.size + 1))
    sparsity = 1 - kept / weights.size
    ours = patterns.unstructured_mask(np.abs(weights), sparsity)
    np.testing.assert_array_equal(ours, tfmot_mask(tf, tfmot_pruning, weights, sparsity))


@pytest.mark.parametrize("seed", range(25))
def test_n_m(tf, tfmot_pruning, seed):
    """TFMOT takes Keras's (height, width, in, out) and (in, out), groups input channels, and counts the zeros."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(2, 9))
    n = int(rng.integers(1, m))
    weights = rng.normal(size=(3, 2, m * rng.integers(1, 4), 5) if seed % 2 else (m * 3, 7)).astype(np.float32)
    if seed % 3 == 0:
        weights = np.round(weights)  # many ties
    as_litert = np.moveaxis(weights, -1, 0)
    ours = patterns.n_m_mask(np.abs(as_litert), n, m)
    np.testing.assert_array_equal(np.moveaxis(ours, 0, -1), tfmot_mask(tf, tfmot_pruning, weights, m_by_n=(m - n, m)))


@pytest.mark.parametrize("seed", range(25))
def test_blocks(tf, tfmot_pruning, seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 6, size=2)
    down, across = rng.integers(2, 6, size=2)  # TFMOT fails on a single row of blocks
    weights = rng.normal(size=(rows * down, columns * across)).astype(np.float32)
    sparsity = 1 - int(rng.integers(1, down * across + 1)) / (down * across)
    ours = patterns.block_mask(np.abs(weights), (int(rows), int(columns)), sparsity)
    theirs = tfmot_mask(tf, tfmot_pruning, weights, sparsity, block=(int(rows), int(columns)))
    np.testing.assert_array_equal(ours, theirs)


def compare(ours, theirs, steps):
    """Compare decision and sparsity at every step; TFMOT computes in float32."""
    for step in range(steps):
        prune, sparsity = theirs(step)
        assert ours.prunes_at(step) == bool(prune), step
        assert ours(step) == pytest.approx(float(sparsity), abs=3e-7), step


@pytest.mark.parametrize("seed", range(15))
def test_polynomial(tfmot_pruning, seed):
    from tensorflow_model_optimization.sparsity import keras as sparsity

    rng = np.random.default_rng(seed)
    initial, final = (float(s) for s in rng.uniform(0, 0.99, size=2))
    begin, frequency = int(rng.integers(0, 40)), int(rng.integers(1, 20))
    end = begin + int(rng.integers(1, 150))
    power = float(rng.choice([1, 2, 3, 0.5, 4.5]))
    theirs = sparsity.PolynomialDecay(initial, final, begin, end, power=power, frequency=frequency)
    compare(Polynomial(initial, final, begin, end, frequency, power), theirs, 220)


@pytest.mark.parametrize("seed", range(10))
def test_constant(tfmot_pruning, seed):
    from tensorflow_model_optimization.sparsity import keras as sparsity

    rng = np.random.default_rng(seed)
    target, begin, frequency = float(rng.uniform(0, 0.99)), int(rng.integers(0, 40)), int(rng.integers(1, 20))
    end = None if seed % 2 else begin + int(rng.integers(0, 100))
    theirs = sparsity.ConstantSparsity(target, begin, -1 if end is None else end, frequency)
    compare(Constant(target, begin, end, frequency), theirs, 200)
