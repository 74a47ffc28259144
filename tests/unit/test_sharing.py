"""Codebooks are the best of their kind, decode to what they say, and take every odd layer."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans

from compresskit import sharing

NUMBERS = st.floats(-10, 10, width=32)
WEIGHTS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=NUMBERS)
TIED = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.integers(-3, 3))
ANY = st.one_of(WEIGHTS, TIED)

EVERY_METHOD = {
    "linear": lambda w: sharing.kmeans(w, 4),
    "density": lambda w: sharing.kmeans(w, 4, start="density"),
    "k-means++": lambda w: sharing.kmeans(w, 4, start="k-means++"),
    "zeros kept": lambda w: sharing.kmeans(w, 4, keep_zero=True),
    "exact": lambda w: sharing.exact_kmeans(w, 4),
    "binary": sharing.binary,
    "ternary": sharing.ternary,
    "ternary by the paper": lambda w: sharing.ternary(w, rule="twn"),
    "uniform": lambda w: sharing.uniform(w, 4),
    "powers of two": lambda w: sharing.powers_of_two(w, 2),
    "by channel": lambda w: sharing.by_channel(w, lambda channel: sharing.kmeans(channel, 3)),
    "by last channel": lambda w: sharing.by_channel(w, lambda channel: sharing.uniform(channel, 4), axis=-1),
}
every_method = pytest.mark.parametrize("share", EVERY_METHOD.values(), ids=EVERY_METHOD.keys())


def squared_error(weights, shared):
    return float(np.square(weights.astype(np.float64) - shared.decode().astype(np.float64)).sum())


def least_squared_error(weights, levels):
    """Try every way of cutting the sorted weights into intervals."""
    ascending = np.sort(weights.ravel().astype(np.float64))
    cuts = itertools.combinations(range(1, ascending.size), min(levels, ascending.size) - 1)
    return min(sum(np.square(part - part.mean()).sum() for part in np.split(ascending, cut)) for cut in cuts)


class TestEveryMethod:
    @every_method
    @given(ANY)
    def test_decodes_to_values_of_the_codebook(self, share, weights):
        shared = share(weights)
        decoded = shared.decode()
        assert decoded.shape == shared.codes.shape == weights.shape
        assert decoded.dtype == weights.dtype
        assert np.isin(decoded, shared.codebook).all()
        assert shared.codes.max() < shared.levels
        rows = np.atleast_2d(shared.codebook)
        assert (np.diff(rows, axis=1) >= 0).all()

    @every_method
    @pytest.mark.parametrize("weights", [np.zeros((3, 4), np.float32), np.zeros(1, np.float32)])
    def test_zeros_stay_zeros(self, share, weights):
        shared = share(weights)
        np.testing.assert_array_equal(shared.decode(), weights)
        assert (shared.levels, shared.bits) == (1, 0)

    @every_method
    def test_one_weight(self, share):
        assert share(np.array([-0.5], np.float32)).decode() == pytest.approx(-0.5)

    @every_method
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_refuses_what_is_not_finite(self, share, bad):
        with pytest.raises(ValueError, match="weights holds NaN or infinity"):
            share(np.array([[1.0, bad]], np.float32))


def test_names_the_layer_without_weights():
    with pytest.raises(ValueError, match=r"layer 'dense': weights has shape \(0, 3\)"):
        sharing.kmeans(np.ones((0, 3)), 2, name="dense")


class TestKMeans:
    @given(ANY, st.integers(1, 6), st.sampled_from(["linear", "density", "k-means++"]), st.integers(0, 9))
    def test_each_value_is_the_mean_of_its_weights_and_each_weight_has_the_nearest(self, weights, levels, start, seed):
        shared = sharing.kmeans(weights, levels, start=start, seed=seed, iterations=1000)
        assert shared.levels <= levels
        distances = np.abs(weights[..., None].astype(np.float64) - shared.codebook)
        np.testing.assert_allclose(
            np.abs(weights - shared.decode().astype(np.float64)), distances.min(axis=-1), atol=1e-5
        )
        for code in np.unique(shared.codes):
            assert shared.codebook[code] == pytest.approx(weights[shared.codes == code].mean(dtype=float), abs=1e-4)

    @pytest.mark.parametrize("seed", range(10))
    def test_same_as_scikit_learn_from_the_same_start(self, seed):
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=500).astype(np.float32)
        start = np.linspace(weights.min(), weights.max(), 8).reshape(-1, 1)
        theirs = KMeans(8, init=start, n_init=1, max_iter=1000, tol=0).fit(weights.astype(np.float64).reshape(-1, 1))
        ours = sharing.kmeans(weights, 8, iterations=1000)
        np.testing.assert_allclose(ours.codebook, np.sort(theirs.cluster_centers_.ravel()), atol=1e-6)

    @given(ANY, st.integers(1, 60))
    def test_enough_levels_lose_nothing(self, weights, more):
        distinct = len(np.unique(weights))
        for share in (sharing.kmeans, sharing.exact_kmeans):
            shared = share(weights, distinct + more)
            np.testing.assert_array_equal(shared.decode(), weights)
            assert shared.levels == distinct

    def test_more_than_256_levels(self):
        weights = np.random.default_rng(0).normal(size=3000)
        shared = sharing.kmeans(weights, 300)
        distances = np.abs(weights[:, None] - shared.codebook)
        np.testing.assert_array_equal(shared.codes, distances.argmin(axis=1))
        assert shared.codes.dtype == np.uint16

    def test_starts_are_where_they_say(self):
        weights = np.array([0.0] * 90 + list(range(1, 11)))
        start = {
            name: sharing.kmeans(weights, 5, start=name, iterations=0).codebook
            for name in ("linear", "density", "k-means++")
        }
        np.testing.assert_allclose(start["linear"], [0, 2.5, 5, 7.5, 10])
        np.testing.assert_allclose(start["density"], [0, 1])
        assert len(start["k-means++"]) == 5  # a value that is a centre already is never drawn again

    def test_seed_repeats_the_lot(self):
        weights = np.random.default_rng(0).normal(size=300)
        one, same, other = (sharing.kmeans(weights, 8, start="k-means++", seed=s, iterations=0) for s in (1, 1, 2))
        np.testing.assert_array_equal(one.codebook, same.codebook)
        assert not np.array_equal(one.codebook, other.codebook)

    @given(ANY, st.integers(2, 6))
    def test_zeros_kept_are_exactly_the_zeros(self, weights, levels):
        for share in (sharing.kmeans, sharing.exact_kmeans):
            shared = share(weights, levels, keep_zero=True)
            assert shared.levels <= levels
            assert not shared.decode()[weights == 0].any()
            assert (np.diff(shared.codebook) >= 0).all()

    def test_zero_kept_is_in_the_codebook_once(self):
        shared = sharing.kmeans(np.array([0.0, -1.0, 1.0]), 2, keep_zero=True)
        np.testing.assert_array_equal(shared.codebook, [0.0])

    def test_a_pruned_layer_stays_as_sparse(self):
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(20, 30)).astype(np.float32)
        weights[rng.random(weights.shape) < 0.9] = 0
        kept = sharing.kmeans(weights, 8, keep_zero=True).decode()
        np.testing.assert_array_equal(kept == 0, weights == 0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"levels": 0}, "levels is 0"),
            ({"levels": 1, "keep_zero": True}, "levels is 1; with zeros kept"),
            ({"levels": 2, "start": "random"}, "start is 'random'"),
            ({"levels": 2, "iterations": -1}, "iterations is -1"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=f"layer 'head': {message}"):
            sharing.kmeans(np.array([0.0, 1.0, 2.0]), **arguments, name="head")


class TestExactKMeans:
    @given(st.one_of(hnp.arrays(np.float64, st.integers(1, 9), elements=NUMBERS)), st.integers(1, 5))
    def test_no_way_of_cutting_is_better(self, weights, levels):
        shared = sharing.exact_kmeans(weights, levels)
        assert squared_error(weights, shared) <= least_squared_error(weights, levels) + 1e-9

    @pytest.mark.parametrize("seed", range(5))
    def test_never_worse_than_any_start(self, seed):
        weights = np.random.default_rng(seed).standard_t(3, size=2000)
        exact = squared_error(weights, sharing.exact_kmeans(weights, 7))
        for start in ("linear", "density", "k-means++"):
            assert exact <= squared_error(weights, sharing.kmeans(weights, 7, start=start, seed=seed)) + 1e-9

    def test_far_from_zero_as_exact_as_near(self):
        weights = 1e6 + np.array([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
        np.testing.assert_allclose(sharing.exact_kmeans(weights, 3).codebook, 1e6 + np.array([0.1, 5.05, 9.0]))


class TestBinaryAndTernary:
    @given(ANY.filter(np.any))
    def test_binary_is_the_best_scale_with_the_signs(self, weights):
        shared = sharing.binary(weights)
        error = squared_error(weights, shared)
        alpha = np.abs(weights.astype(np.float64)).mean()
        for other in (0.9 * alpha, 1.1 * alpha):
            assert error <= np.square(np.abs(weights) - other).sum() + 1e-4
        np.testing.assert_array_equal(shared.decode() > 0, weights >= 0)

    @given(ANY.filter(np.any))
    def test_ternary_is_the_best_of_all_counts(self, weights):
        size = np.sort(np.abs(weights.astype(np.float64)).ravel())[::-1]
        least = min(
            np.square(size[:m] - size[:m].mean()).sum() + np.square(size[m:]).sum() for m in range(1, size.size + 1)
        )
        assert squared_error(weights, sharing.ternary(weights)) == pytest.approx(least, rel=1e-4, abs=1e-5)

    def test_ternary_by_the_paper(self):
        shared = sharing.ternary(np.array([1.0, -2.0, 0.1, 0.5]), rule="twn")  # mean 0.9, threshold 0.63
        np.testing.assert_allclose(shared.decode(), [1.5, -1.5, 0, 0])

    def test_refuses_another_rule(self):
        with pytest.raises(ValueError, match="rule is 'worst'"):
            sharing.ternary(np.ones(2), rule="worst")


class TestUniform:
    @given(ANY.filter(np.any), st.sampled_from([2, 4, 8, 16]))
    def test_values_are_whole_multiples_of_a_scale(self, weights, levels):
        shared = sharing.uniform(weights, levels)
        assert shared.levels == levels
        scale = float(shared.codebook[levels // 2 + 1 if levels > 2 else 0]) * (1 if levels > 2 else -1)
        np.testing.assert_allclose(shared.codebook, scale * np.arange(-levels // 2, levels // 2), rtol=1e-5)

    @pytest.mark.parametrize("levels", [4, 8, 16, 256])
    def test_near_the_best_of_a_fine_search(self, levels):
        weights = np.random.default_rng(levels).normal(size=2000)
        error = squared_error(weights, sharing.uniform(weights, levels))
        for scale in np.linspace(0.2, 1.3, 2000) * np.abs(weights).max() * 2 / levels:
            codes = np.clip(np.rint(weights / scale), -levels // 2, levels // 2 - 1)
            assert error <= np.square(weights - scale * codes).sum() * 1.01

    @given(st.integers(1, 4), st.floats(0.01, 10))
    def test_weights_that_are_on_a_grid_already_lose_nothing(self, half, scale):
        weights = scale * np.arange(-half, half, dtype=np.float64)
        np.testing.assert_allclose(sharing.uniform(weights, 2 * half).decode(), weights, rtol=1e-9)

    @pytest.mark.parametrize("levels", [0, 1, 3, -2])
    def test_refuses_odd_and_small(self, levels):
        with pytest.raises(ValueError, match=f"levels is {levels}"):
            sharing.uniform(np.ones(3), levels)


class TestPowersOfTwo:
    @given(ANY.filter(np.any), st.integers(1, 5))
    def test_values_are_powers_and_the_nearest(self, weights, magnitudes):
        shared = sharing.powers_of_two(weights, magnitudes)
        assert shared.levels == 2 * magnitudes + 1
        powers = np.log2(np.abs(shared.codebook[shared.codebook != 0].astype(np.float64)))
        np.testing.assert_array_equal(powers, np.rint(powers))
        distances = np.abs(weights[..., None] - shared.codebook)
        np.testing.assert_array_equal(np.abs(weights - shared.decode()), distances.min(axis=-1))

    def test_largest_by_hand(self):
        assert sharing.powers_of_two(np.array([1.6]), 2).decode() == 2
        assert sharing.powers_of_two(np.array([1.4]), 2).decode() == 1

    def test_refuses_none(self):
        with pytest.raises(ValueError, match="magnitudes is 0"):
            sharing.powers_of_two(np.ones(3), 0)


class TestByChannel:
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_each_channel_as_if_it_were_alone(self, axis):
        weights = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
        weights[0, 0, 0] = 0
        shared = sharing.by_channel(weights, lambda channel: sharing.kmeans(channel, 3), axis=axis)
        alone = [sharing.kmeans(channel, 3).decode() for channel in np.moveaxis(weights, axis, 0)]
        np.testing.assert_array_equal(np.moveaxis(shared.decode(), axis, 0), alone)

    def test_estimate_counts_every_codebook(self):
        weights = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
        shared = sharing.by_channel(weights, lambda channel: sharing.kmeans(channel, 4))
        assert shared.estimated_bits == 400 * 2 + 4 * 4 * 32


class TestCodebookGradient:
    def test_sum_is_the_derivative_of_the_loss_by_the_codebook(self):
        """On a linear loss, moving one value of the codebook moves the loss by the sum."""
        rng = np.random.default_rng(0)
        for axis in (None, 0, -1):
            weights, gradients = rng.normal(size=(2, 6, 7))
            shared = sharing.kmeans(weights, 3)
            if axis is not None:
                shared = sharing.by_channel(weights, lambda channel: sharing.kmeans(channel, 3), axis=axis)
            derivative = sharing.codebook_gradient(shared, gradients, average=False)
            mean = sharing.codebook_gradient(shared, gradients)
            for place in np.ndindex(shared.codebook.shape):
                moved = shared.codebook.copy()
                moved[place] += 1
                change = sharing.Shared(moved, shared.codes, axis).decode() - shared.decode()
                assert derivative[place] == pytest.approx((change * gradients).sum())
                assert mean[place] == pytest.approx((change * gradients).sum() / change.sum())

    def test_a_value_without_weights_has_none(self):
        shared = sharing.Shared(np.array([0.0, 1.0, 2.0]), np.array([0, 2, 2], np.uint8))
        np.testing.assert_array_equal(sharing.codebook_gradient(shared, np.array([1.0, 2.0, 4.0])), [1, 0, 3])

    def test_refuses_other_shapes(self):
        shared = sharing.kmeans(np.arange(4.0), 2)
        with pytest.raises(ValueError, match=r"gradients has shape \(3,\)"):
            sharing.codebook_gradient(shared, np.ones(3))


@given(st.integers(0, 1000), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_a_search_among_bins_comes_close_to_the_best_and_is_never_better(seed, levels):
    weights = np.random.default_rng(seed).standard_t(3, 3000)
    best, near = (sharing.exact_kmeans(weights, levels, bins=bins) for bins in (None, 1024))
    one, other = (float(np.square(each.decode() - weights).sum()) for each in (best, near))
    assert one <= other * (1 + 1e-9) and other <= 1.01 * one


def test_too_few_bins_are_refused():
    with pytest.raises(ValueError, match="layer 'a': bins is 0; choose at least 1"):
        sharing.exact_kmeans(np.ones(3), 2, bins=0, name="a")
