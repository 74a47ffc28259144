"""Factors come as near as theory says, and the layers they make compute what the one layer would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compresskit import lowrank

NUMBERS = st.floats(-10, 10, width=32)
MATRICES = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=NUMBERS)
FILTERS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=4, max_dims=4, max_side=4), elements=NUMBERS)


def convolve(images, filters, strides=(1, 1)):
    """Convolve (n, H, W, in) images with (out, h, w, in) filters, zeros around ("same"), by the definition."""
    _, height, width, _ = filters.shape
    above, left = (height - 1) // 2, (width - 1) // 2
    around = ((0, 0), (above, height - 1 - above), (left, width - 1 - left), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, around), (height, width), axis=(1, 2))
    return np.einsum("nxyihw,ohwi->nxyo", windows[:, :: strides[0], :: strides[1]], filters)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class TestSVD:
    @given(MATRICES, st.data())
    def test_error_is_what_is_left_out(self, matrix, data):
        rank = data.draw(st.integers(1, min(matrix.shape)))
        factors = lowrank.svd(matrix, rank)
        error = np.square(matrix - factors.compose()).sum()
        left_out = np.square(lowrank.singular_values(matrix)[rank:]).sum()
        assert error == pytest.approx(left_out, abs=1e-8 + 1e-9 * np.square(matrix).sum())
        assert factors.first.shape == (rank, matrix.shape[1])
        assert factors.second.shape == (matrix.shape[0], rank)
        assert factors.parameters == rank * sum(matrix.shape)
        assert factors.rank == rank

    def test_two_layers_compute_what_one_did(self):
        matrix = random(6, 4) @ random(4, 9, seed=1)
        factors = lowrank.svd(matrix, 4)
        inputs = random(5, 9, seed=2)
        np.testing.assert_allclose(inputs @ factors.first.T @ factors.second.T, inputs @ matrix.T, atol=1e-12)

    def test_both_factors_are_of_like_size(self):
        factors = lowrank.svd(1000 * random(8, 8), 3)
        assert np.linalg.norm(factors.first) == pytest.approx(np.linalg.norm(factors.second))

    def test_keeps_the_dtype(self):
        assert lowrank.svd(random(3, 3).astype(np.float32), 2).compose().dtype == np.float32

    def test_zeros_and_one_weight(self):
        np.testing.assert_array_equal(lowrank.svd(np.zeros((3, 4)), 2).compose(), np.zeros((3, 4)))
        assert lowrank.svd(np.array([[-2.0]]), 1).compose() == pytest.approx(-2)

    @pytest.mark.parametrize("rank", [0, -1, 4])
    def test_refuses_a_rank(self, rank):
        with pytest.raises(ValueError, match=f"layer 'dense': rank is {rank}; choose from 1 to 3"):
            lowrank.svd(np.ones((3, 5)), rank, name="dense")

    def test_refuses_what_is_no_matrix_or_not_finite(self):
        with pytest.raises(ValueError, match=r"shape \(2, 2, 2\); give a matrix"):
            lowrank.svd(np.ones((2, 2, 2)), 1)
        with pytest.raises(ValueError, match="NaN or infinity"):
            lowrank.svd(np.array([[np.nan, 1]]), 1)
        with pytest.raises(ValueError, match="at least one weight"):
            lowrank.singular_values(np.ones((0, 3)))


class TestTucker2:
    @given(FILTERS, st.data())
    def test_error_is_within_the_bounds_of_theory(self, filters, data):
        """At least what each side alone leaves out, at most the sum of both (De Lathauwer et al., 2000)."""
        rank_out = data.draw(st.integers(1, filters.shape[0]))
        rank_in = data.draw(st.integers(1, filters.shape[3]))
        cut = lowrank.tucker2(filters, rank_out, rank_in)
        error = np.square(filters - cut.compose()).sum()
        by_out, by_in = lowrank.tucker2_spectra(filters)
        left_out = np.square(by_out[rank_out:]).sum(), np.square(by_in[rank_in:]).sum()
        slack = 1e-8 + 1e-9 * np.square(filters).sum()
        assert max(left_out) - slack <= error <= sum(left_out) + slack
        assert cut.core.shape == (rank_out, *filters.shape[1:3], rank_in)

    def test_iterations_improve_the_guess(self):
        filters = random(8, 3, 3, 6)
        errors = [
            np.square(filters - lowrank.tucker2(filters, 3, 2, iterations=i).compose()).sum() for i in (0, 1, 5, 20)
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < errors[0]

    def test_ends_where_neither_side_can_be_improved_alone(self):
        filters = random(8, 3, 3, 6)
        cut = lowrank.tucker2(filters, 3, 2, iterations=500)
        kept = np.square(cut.core).sum()
        for side, axis, rank in ((cut.last[:, 0, 0], 3, 2), (cut.first[:, 0, 0].T, 0, 3)):
            narrowed = np.tensordot(filters, side, (3 - axis, 0))
            unfolded = np.moveaxis(narrowed, 0 if axis == 0 else 2, 0)
            best = np.linalg.svd(unfolded.reshape(len(unfolded), -1), compute_uv=False)[:rank]
            assert kept == pytest.approx(np.square(best).sum(), rel=1e-9)

    @pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
    def test_three_layers_compute_what_one_would(self, strides):
        filters, images = random(5, 3, 3, 4), random(2, 8, 7, 4, seed=1)
        cut = lowrank.tucker2(filters, 3, 2)
        narrow = convolve(images, cut.first)
        result = convolve(convolve(narrow, cut.core, strides), cut.last)
        np.testing.assert_allclose(result, convolve(images, cut.compose(), strides), atol=1e-10)
        assert cut.parameters == 2 * 4 + 3 * 9 * 2 + 5 * 3

    def test_full_rank_is_exact(self):
        filters = random(4, 3, 3, 2).astype(np.float32)
        cut = lowrank.tucker2(filters, 4, 2)
        np.testing.assert_allclose(cut.compose(), filters, atol=1e-5)
        assert cut.core.dtype == np.float32

    @pytest.mark.parametrize(
        ("ranks", "message"), [((5, 1), "rank_out is 5"), ((1, 3), "rank_in is 3"), ((1, 0), "rank_in is 0")]
    )
    def test_refuses_a_rank(self, ranks, message):
        with pytest.raises(ValueError, match=f"layer 'conv2': {message}"):
            lowrank.tucker2(np.ones((4, 3, 3, 2)), *ranks, name="conv2")

    def test_refuses_a_matrix(self):
        with pytest.raises(ValueError, match="give filters"):
            lowrank.tucker2(np.ones((4, 3)), 1, 1)


class TestSpatialSVD:
    @given(FILTERS, st.data())
    def test_no_column_and_row_come_nearer(self, filters, data):
        out, height, width, into = filters.shape
        rank = data.draw(st.integers(1, min(into * height, width * out)))
        cut = lowrank.spatial_svd(filters, rank)
        as_matrix = np.array(
            [
                [filters[o, h, w, i] for w in range(width) for o in range(out)]
                for h in range(height)
                for i in range(into)
            ]
        )
        left_out = np.square(np.linalg.svd(as_matrix, compute_uv=False)[rank:]).sum()
        error = np.square(filters - cut.compose()).sum()
        assert error == pytest.approx(left_out, abs=1e-8 + 1e-9 * np.square(filters).sum())
        assert cut.vertical.shape == (rank, height, 1, into)
        assert cut.horizontal.shape == (out, 1, width, rank)
        assert cut.parameters == rank * (height * into + width * out)

    @pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2)])
    def test_two_layers_compute_what_one_would(self, strides):
        filters, images = random(5, 3, 5, 4), random(2, 9, 8, 4, seed=1)
        cut = lowrank.spatial_svd(filters, 6)
        result = convolve(convolve(images, cut.vertical, (strides[0], 1)), cut.horizontal, (1, strides[1]))
        np.testing.assert_allclose(result, convolve(images, cut.compose(), strides), atol=1e-10)

    def test_refuses_a_rank(self):
        with pytest.raises(ValueError, match="rank is 10; choose from 1 to 6"):
            lowrank.spatial_svd(np.ones((4, 3, 3, 2)), 10)


class TestRanks:
    @given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 100)), st.floats(0.01, 1))
    def test_by_energy_is_the_smallest_that_keeps_enough(self, values, energy):
        spectrum = np.sort(values)[::-1]
        rank = lowrank.rank_by_energy(spectrum, energy)
        squares = np.square(spectrum)
        assert squares[:rank].sum() >= energy * squares.sum() * (1 - 1e-9)
        assert rank == 1 or squares[: rank - 1].sum() < energy * squares.sum() * (1 + 1e-9)

    def test_by_energy_at_its_ends(self):
        assert lowrank.rank_by_energy([3.0, 2.0, 1e-9, 0.0], 1.0) == 3
        assert lowrank.rank_by_energy([0.0, 0.0], 0.9) == 1
        assert lowrank.rank_by_energy([5.0, 1e-3], 1e-6) == 1

    @pytest.mark.parametrize("energy", [0, -0.5, 1.01, float("nan")])
    def test_refuses_an_energy(self, energy):
        with pytest.raises(ValueError, match="energy is"):
            lowrank.rank_by_energy([1.0], energy)

    def test_refuses_what_is_no_spectrum(self):
        with pytest.raises(ValueError, match="descending"):
            lowrank.rank_by_energy([1.0, 2.0], 0.5)

    @given(st.integers(1, 300), st.integers(1, 300))
    def test_break_even(self, m, n):
        rank = lowrank.break_even_rank(m, n)
        assert rank * (m + n) < m * n <= (rank + 1) * (m + n)

    def test_break_even_of_the_course_network(self):
        assert lowrank.break_even_rank(128, 3136) == 122
        assert lowrank.break_even_rank(10, 128) == 9
        assert lowrank.break_even_rank(1, 50) == 0

    def test_by_budget_is_never_more_than_full(self):
        assert lowrank.rank_by_budget(4, 6, 10**6) == 4
        assert lowrank.rank_by_budget(4, 6, 29) == 2
        assert lowrank.rank_by_budget(4, 6, 9) == 0
        with pytest.raises(ValueError, match=r"shape \(0, 3\)"):
            lowrank.rank_by_budget(0, 3, 5)

    @given(st.data())
    def test_shared_budget_keeps_the_most_at_its_own_cost(self, data):
        """Against every choice of ranks that costs no more than what the result costs."""
        lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
        spectra = {
            str(i): np.sort(data.draw(hnp.arrays(np.float64, k, elements=st.floats(0.1, 10))))[::-1]
            for i, k in enumerate(lengths)
        }
        costs = {name: data.draw(st.integers(1, 9)) for name in spectra}
        budget = sum(costs.values()) + data.draw(st.integers(0, 60))
        ranks = lowrank.ranks_by_budget(spectra, costs, budget)

        def kept(choice):
            return sum(
                np.square(s[:r]).sum() / np.square(s).sum() for s, r in zip(spectra.values(), choice, strict=True)
            )

        def cost(choice):
            return sum(c * r for c, r in zip(costs.values(), choice, strict=True))

        chosen = tuple(ranks.values())
        assert cost(chosen) <= budget
        for index in np.ndindex(*lengths):
            other = tuple(i + 1 for i in index)
            if cost(other) <= cost(chosen):
                assert kept(other) <= kept(chosen) + 1e-9

    def test_shared_budget_of_everything_is_full_rank(self):
        spectra = {"a": [3.0, 2.0, 1.0], "b": [1.0, 0.0]}
        assert lowrank.ranks_by_budget(spectra, {"a": 5, "b": 7}, 29) == {"a": 3, "b": 2}

    @pytest.mark.parametrize(
        ("spectra", "costs", "budget", "message"),
        [
            ({}, {}, 5, "no layer"),
            ({"a": [1.0]}, {}, 5, "layer 'a': weights_per_rank is None"),
            ({"a": [1.0], "b": [1.0]}, {"a": 3, "b": 4}, 6, "rank 1 in every layer takes 7"),
        ],
    )
    def test_refuses_a_budget(self, spectra, costs, budget, message):
        with pytest.raises(ValueError, match=message):
            lowrank.ranks_by_budget(spectra, costs, budget)
