"""Scores are what their formulas say, and pooled as their names say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compresskit.pruning import importance

NUMBERS = st.floats(-100, 100, width=32)
WEIGHTS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=5), elements=NUMBERS)


@given(WEIGHTS)
def test_magnitude_is_the_absolute_value(weights):
    scores = importance.magnitude(weights)
    assert scores.dtype == weights.dtype
    assert scores.ravel().tolist() == [abs(w) for w in weights.ravel().tolist()]


class TestActivation:
    @given(st.data())
    def test_is_the_mean_contribution_to_the_output(self, data):
        """The mean over samples of |w_ij x_j|, computed one product at a time."""
        weights = data.draw(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=NUMBERS))
        inputs = data.draw(hnp.arrays(np.float64, (data.draw(st.integers(1, 5)), weights.shape[1]), elements=NUMBERS))
        scores = importance.activation(weights, importance.mean_absolute_input(inputs))
        contributions = np.abs(weights[None] * inputs[:, None, :]).mean(axis=0)
        np.testing.assert_allclose(scores, contributions, rtol=1e-9, atol=1e-9)

    def test_input_channel_of_a_convolution_is_last(self):
        inputs = np.zeros((2, 5, 5, 3))
        inputs[..., 1] = -2
        scores = importance.activation(np.ones((4, 3, 3, 3), np.float32), importance.mean_absolute_input(inputs))
        np.testing.assert_array_equal(scores[..., 1], np.full((4, 3, 3), 2))
        assert not scores[..., [0, 2]].any()
        assert scores.dtype == np.float32

    def test_differs_from_magnitude_where_it_should(self):
        scores = importance.activation(np.array([[1.0, 2.0]]), [10.0, 1.0])
        assert scores[0, 0] > scores[0, 1]

    def test_refuses_another_number_of_channels(self):
        with pytest.raises(ValueError, match=r"layer 'dense': input_scale has shape \(3,\).* 4 input channels"):
            importance.activation(np.ones((2, 4)), np.ones(3), name="dense")

    @pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
    def test_refuses_a_scale_that_is_none(self, bad):
        with pytest.raises(ValueError, match="negative or not finite"):
            importance.activation(np.ones((2, 2)), [1.0, bad])

    def test_refuses_no_samples(self):
        with pytest.raises(ValueError, match=r"layer 'conv1': inputs has shape \(0, 28, 28, 1\).*at least one sample"):
            importance.mean_absolute_input(np.ones((0, 28, 28, 1)), name="conv1")

    def test_refuses_inputs_that_are_not_finite(self):
        with pytest.raises(ValueError, match="not finite"):
            importance.mean_absolute_input(np.array([[1.0, np.inf]]))


class TestTaylor:
    def test_is_the_change_of_a_linear_loss(self):
        """On a linear loss the first order is all there is: remove each weight and look."""
        rng = np.random.default_rng(0)
        weights, gradients = rng.normal(size=(2, 3, 4))
        loss = np.sum(weights * gradients)
        for place in np.ndindex(weights.shape):
            without = weights.copy()
            without[place] = 0
            change = abs(np.sum(without * gradients) - loss)
            np.testing.assert_allclose(importance.taylor(weights, gradients)[place], change)
        for channel in range(3):
            without = weights.copy()
            without[channel] = 0
            change = abs(np.sum(without * gradients) - loss)
            np.testing.assert_allclose(importance.taylor_channel(weights, gradients)[channel], change)

    def test_changes_that_cancel_count_for_nothing_in_a_channel(self):
        weights, gradients = np.array([[1.0, 1.0]]), np.array([[3.0, -3.0]])
        assert importance.taylor_channel(weights, gradients)[0] == 0
        assert importance.per_channel(importance.taylor(weights, gradients))[0] == 6

    @pytest.mark.parametrize("score", [importance.taylor, importance.taylor_channel])
    def test_refuses_other_shapes(self, score):
        with pytest.raises(ValueError, match=r"layer 'head': gradients has shape \(1, 2\)"):
            score(np.ones((2, 2)), np.ones((1, 2)), name="head")


class TestChance:
    def test_seed_repeats_it_and_another_seed_does_not(self):
        weights = np.ones((5, 7))
        first = importance.chance(weights, seed=3)
        assert first.shape == weights.shape
        np.testing.assert_array_equal(first, importance.chance(weights, seed=3))
        assert not np.array_equal(first, importance.chance(weights, seed=4))


class TestBatchNormScale:
    def test_sign_does_not_count(self):
        np.testing.assert_array_equal(importance.batch_norm_scale([-2.0, 0.5]), [2.0, 0.5])

    def test_refuses_a_matrix(self):
        with pytest.raises(ValueError, match="one value for each channel"):
            importance.batch_norm_scale(np.ones((2, 2)), name="conv1")


NAIVE_POOLS = {
    "l1": lambda values: sum(abs(v) for v in values),
    "l2": lambda values: sum(v * v for v in values) ** 0.5,
    "mean": lambda values: sum(values) / len(values),
    "max": max,
}


class TestPooling:
    @given(st.data(), st.sampled_from(sorted(NAIVE_POOLS)))
    def test_per_channel_equals_a_loop(self, data, pool):
        scores = np.abs(data.draw(WEIGHTS))
        axis = data.draw(st.integers(-scores.ndim, scores.ndim - 1))
        pooled = importance.per_channel(scores, axis=axis, pool=pool)
        channels = np.moveaxis(scores, axis, 0).reshape(scores.shape[axis], -1)
        expected = [NAIVE_POOLS[pool](channel.tolist()) for channel in channels]
        np.testing.assert_allclose(pooled, expected, rtol=1e-6)

    @given(st.data(), st.sampled_from(sorted(NAIVE_POOLS)))
    def test_per_block_equals_a_loop(self, data, pool):
        rows, columns, down, across = data.draw(st.tuples(*[st.integers(1, 3)] * 4))
        scores = np.abs(data.draw(hnp.arrays(np.float32, (rows * down, columns * across), elements=NUMBERS)))
        pooled = importance.per_block(scores, (rows, columns), pool=pool)
        for i, j in np.ndindex(down, across):
            block = scores[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            np.testing.assert_allclose(pooled[i, j], NAIVE_POOLS[pool](block.ravel().tolist()), rtol=1e-6)
        assert pooled.shape == (down, across)

    def test_l2_of_large_float16_does_not_overflow(self):
        scores = np.full((2, 4), 60_000, np.float16)
        assert np.isfinite(importance.per_channel(scores, pool="l2")).all()

    def test_refuses_another_pool(self):
        with pytest.raises(ValueError, match="pool is 'median'"):
            importance.per_channel(np.ones((2, 2)), pool="median")

    def test_refuses_an_axis_that_is_not_there(self):
        with pytest.raises(ValueError, match="axis is 2"):
            importance.per_channel(np.ones((2, 2)), axis=2)

    def test_block_refuses_what_does_not_divide_and_what_is_no_matrix(self):
        with pytest.raises(ValueError, match=r"layer 'head': block 4x4 does not divide the 10x128"):
            importance.per_block(np.ones((10, 128)), (4, 4), name="head")
        with pytest.raises(ValueError, match="cut from a matrix"):
            importance.per_block(np.ones(4), (1, 4))
