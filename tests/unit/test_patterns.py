"""Masks hold exactly the zeros that were asked for, on the lowest scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compresskit.pruning import patterns

SPARSITIES = st.floats(0.0, 1.0, exclude_max=True)
# Few distinct values, so that ties are the rule and not the exception.
TIED_SCORES = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int16]),
    hnp.array_shapes(max_dims=4, max_side=7),
    elements=st.integers(-2, 4),
)
SCORES = st.one_of(
    TIED_SCORES,
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=7), elements=st.floats(allow_nan=False, width=32)),
)


def naive_unstructured(scores, sparsity):
    """Sort everything from best to worst, first come first kept, and keep the head of the list."""
    order = sorted(range(scores.size), key=lambda i: (-float(scores.flat[i]), i))
    mask = np.zeros(scores.size, dtype=bool)
    mask[order[: scores.size - round(sparsity * scores.size)]] = True
    return mask.reshape(scores.shape)


class TestUnstructured:
    @given(SCORES, SPARSITIES)
    def test_equals_sorting(self, scores, sparsity):
        np.testing.assert_array_equal(
            patterns.unstructured_mask(scores, sparsity), naive_unstructured(scores, sparsity)
        )

    @given(SCORES, SPARSITIES)
    def test_zeros_are_exactly_as_many_as_asked(self, scores, sparsity):
        mask = patterns.unstructured_mask(scores, sparsity)
        assert mask.dtype == bool
        assert mask.shape == scores.shape
        assert np.count_nonzero(~mask) == round(sparsity * scores.size)

    @given(SCORES, SPARSITIES, SPARSITIES)
    def test_higher_sparsity_removes_more_of_the_same(self, scores, one, other):
        low, high = sorted((one, other))
        assert not np.any(patterns.unstructured_mask(scores, high) & ~patterns.unstructured_mask(scores, low))

    def test_first_of_equal_scores_is_kept(self):
        np.testing.assert_array_equal(
            patterns.unstructured_mask(np.array([1.0, 2.0, 1.0, 1.0]), 0.5), [True, True, False, False]
        )

    def test_does_not_change_its_input(self):
        scores = np.array([3.0, 1.0, 2.0])
        patterns.unstructured_mask(scores, 0.4)
        np.testing.assert_array_equal(scores, [3.0, 1.0, 2.0])

    def test_takes_scores_of_any_memory_order(self):
        scores = np.arange(12.0).reshape(3, 4).T
        np.testing.assert_array_equal(patterns.unstructured_mask(scores, 0.5), scores >= 6)

    def test_infinite_scores_are_never_removed_before_finite_ones(self):
        np.testing.assert_array_equal(
            patterns.unstructured_mask(np.array([np.inf, 1.0, 2.0]), 0.6), [True, False, False]
        )

    @pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
    def test_refuses_sparsity_outside_the_range(self, sparsity):
        with pytest.raises(ValueError, match=r"layer 'conv1': sparsity is .*from 0 up to"):
            patterns.unstructured_mask(np.ones(4), sparsity, name="conv1")

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match=r"layer 'dense': scores holds 2 NaN among 3"):
            patterns.unstructured_mask(np.array([np.nan, 1.0, np.nan]), 0.5, name="dense")


class TestThreshold:
    @given(SCORES, st.integers(-3, 5))
    def test_keeps_what_reaches_the_threshold(self, scores, threshold):
        kept = [value >= threshold for value in scores.ravel().tolist()]
        np.testing.assert_array_equal(patterns.threshold_mask(scores, threshold).ravel(), kept)

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match="threshold is nan"):
            patterns.threshold_mask(np.ones(2), float("nan"))


class TestGlobal:
    @given(st.lists(TIED_SCORES, min_size=1, max_size=4), SPARSITIES)
    def test_equals_sorting_all_layers_together(self, layers, sparsity):
        scores = {f"layer{i}": layer for i, layer in enumerate(layers)}
        masks = patterns.global_masks(scores, sparsity)
        together = naive_unstructured(np.concatenate([layer.ravel() for layer in layers]), sparsity)
        np.testing.assert_array_equal(np.concatenate([mask.ravel() for mask in masks.values()]), together)
        assert {name: mask.shape for name, mask in masks.items()} == {name: s.shape for name, s in scores.items()}

    def test_one_layer_can_lose_everything(self):
        masks = patterns.global_masks({"small": np.full(4, 0.1), "large": np.full(4, 1.0)}, 0.5)
        assert not masks["small"].any()
        assert masks["large"].all()

    def test_names_the_layer_with_nan(self):
        with pytest.raises(ValueError, match="layer 'bad'"):
            patterns.global_masks({"good": np.ones(2), "bad": np.array([np.nan])}, 0.5)

    def test_refuses_no_layer(self):
        with pytest.raises(ValueError, match="no layer to prune"):
            patterns.global_masks({}, 0.5)


class TestNM:
    @given(st.data())
    def test_equals_sorting_each_group(self, data):
        m = data.draw(st.integers(1, 9))
        n = data.draw(st.integers(1, m))
        shape = list(data.draw(hnp.array_shapes(max_dims=4, max_side=3)))
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        shape[axis] *= m
        scores = data.draw(hnp.arrays(np.float32, tuple(shape), elements=st.integers(-2, 4)))
        mask = patterns.n_m_mask(scores, n, m, axis=axis)

        lines = np.moveaxis(scores, axis, -1).reshape(-1, m)
        expected = np.array([naive_unstructured(line, (m - n) / m) for line in lines])
        np.testing.assert_array_equal(np.moveaxis(mask, axis, -1).reshape(-1, m), expected)
        assert mask.shape == scores.shape
        assert mask.dtype == bool

    def test_two_of_four_by_hand(self):
        scores = np.array([[1.0, 4.0, 3.0, 2.0, 7.0, 7.0, 7.0, 7.0]])
        np.testing.assert_array_equal(patterns.n_m_mask(scores, 2, 4), [[0, 1, 1, 0, 1, 1, 0, 0]])

    def test_group_of_more_than_255(self):
        scores = np.arange(600.0).reshape(2, 300)
        np.testing.assert_array_equal(patterns.n_m_mask(scores, 1, 300).sum(axis=1), [1, 1])

    def test_refuses_an_axis_that_is_not_divided(self):
        with pytest.raises(ValueError, match=r"layer 'conv1': pattern 2:4 does not divide axis -1 .* is 9 long"):
            patterns.n_m_mask(np.ones((32, 9)), 2, 4, name="conv1")

    @pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (-1, 2)])
    def test_refuses_what_is_no_pattern(self, n, m):
        with pytest.raises(ValueError, match=f"pattern is {n}:{m}"):
            patterns.n_m_mask(np.ones((4, 4)), n, m)

    def test_refuses_an_axis_that_is_not_there(self):
        with pytest.raises(ValueError, match="axis is 2"):
            patterns.n_m_mask(np.ones((4, 4)), 2, 4, axis=2)

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match="holds 1 NaN"):
            patterns.n_m_mask(np.array([1.0, np.nan]), 1, 2)


class TestMatrixView:
    def test_dense_is_itself(self):
        dense = np.arange(6).reshape(2, 3)
        np.testing.assert_array_equal(patterns.matrix_view(dense), dense)

    def test_convolution_has_a_row_for_each_filter(self):
        filters = np.arange(2 * 3 * 3 * 4).reshape(2, 3, 3, 4)
        matrix = patterns.matrix_view(filters)
        assert matrix.shape == (2, 36)
        np.testing.assert_array_equal(matrix[1, :4], filters[1, 0, 0])
        assert np.shares_memory(matrix, filters)

    def test_depthwise_has_a_row_for_each_channel(self):
        filters = np.arange(9 * 5).reshape(1, 3, 3, 5)
        matrix = patterns.matrix_view(filters, channel_axis=-1)
        np.testing.assert_array_equal(matrix[2], filters[0, :, :, 2].ravel())


class TestBlocks:
    @given(st.data(), SPARSITIES)
    def test_equals_sorting_the_blocks(self, data, sparsity):
        rows, columns = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        down, across = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        scores = data.draw(hnp.arrays(np.float32, (rows * down, columns * across), elements=st.integers(0, 4)))
        mask = patterns.block_mask(scores, (rows, columns), sparsity)

        totals = np.zeros((down, across))
        for row, column in np.ndindex(scores.shape):
            totals[row // rows, column // columns] += scores[row, column]
        kept = naive_unstructured(totals, sparsity)
        np.testing.assert_array_equal(mask, np.kron(kept, np.ones((rows, columns))).astype(bool))

    @pytest.mark.parametrize("block", [(1, 4), (4, 4), (16, 1)])
    def test_course_blocks_on_a_convolution(self, block):
        scores = np.random.default_rng(0).random((16, 3, 3, 4))
        mask = patterns.block_mask(scores, block, 0.5, name="conv2")
        assert mask.shape == scores.shape
        assert mask.sum() == scores.size // 2
        matrix = patterns.matrix_view(mask)
        for row in range(0, 16, block[0]):
            for column in range(0, 36, block[1]):
                assert len(np.unique(matrix[row : row + block[0], column : column + block[1]])) == 1

    def test_depthwise_channels_are_rows(self):
        scores = np.zeros((1, 2, 2, 4))
        scores[..., 2] = 1
        mask = patterns.block_mask(scores, (1, 4), 0.75, channel_axis=-1)
        np.testing.assert_array_equal(mask, scores.astype(bool))

    def test_refuses_a_matrix_that_is_not_divided(self):
        with pytest.raises(ValueError, match=r"layer 'conv1': block 1x4 does not divide the 32x9"):
            patterns.block_mask(np.ones((32, 3, 3, 1)), (1, 4), 0.5, name="conv1")


class TestChannels:
    @given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 5)), SPARSITIES)
    def test_equals_sorting_or_says_that_none_is_left(self, scores, sparsity):
        if round(sparsity * scores.size) == scores.size:
            with pytest.raises(ValueError, match=f"every one of the {scores.size} channels"):
                patterns.channel_mask(scores, sparsity)
        else:
            np.testing.assert_array_equal(patterns.channel_mask(scores, sparsity), naive_unstructured(scores, sparsity))

    @pytest.mark.parametrize("channels", [1, 2, 3, 7, 32, 1000])
    def test_the_sparsity_that_the_message_offers_works(self, channels):
        scores = np.ones(channels)
        with pytest.raises(ValueError, match="layer 'conv2'") as refused:
            patterns.channel_mask(scores, 0.99999, name="conv2")
        offered = float(str(refused.value).split("choose at most ")[1].split(",")[0])
        assert patterns.channel_mask(scores, offered).any()

    def test_refuses_scores_of_single_weights(self):
        with pytest.raises(ValueError, match=r"shape \(3, 2\); give one score for each channel"):
            patterns.channel_mask(np.ones((3, 2)), 0.5)

    def test_spread_over_filters_and_input_channels(self):
        kept = np.array([True, False])
        np.testing.assert_array_equal(patterns.spread(kept, (2, 3)), [[1, 1, 1], [0, 0, 0]])
        np.testing.assert_array_equal(patterns.spread(kept, (3, 2), axis=-1), [[1, 0]] * 3)

    def test_spread_refuses_another_length(self):
        with pytest.raises(ValueError, match="axis 0"):
            patterns.spread(np.array([True, False]), (3, 2))


class TestErdosRenyiKernel:
    SHAPES = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6)

    @staticmethod
    def rigged_lottery_densities(shapes, sparsity):
        """Follow the search of the paper: a layer that would get more than everything is made dense, and so on."""
        dense = set()
        while True:
            free = [i for i in range(len(shapes)) if i not in dense]
            budget = (1 - sparsity) * sum(map(np.prod, shapes)) - sum(np.prod(shapes[i]) for i in dense)
            epsilon = budget / sum(sum(shapes[i]) for i in free) if free else 0.0
            density = [1.0 if i in dense else epsilon * sum(s) / np.prod(s) for i, s in enumerate(shapes)]
            over = {i for i in free if density[i] > 1}
            if not over:
                return density
            dense |= over

    @given(SHAPES, SPARSITIES)
    def test_exact_in_total_and_near_the_paper_in_each_layer(self, shapes, sparsity):
        named = {str(i): shape for i, shape in enumerate(shapes)}
        sizes = [int(np.prod(shape)) for shape in shapes]
        kept = sum(sizes) - round(sparsity * sum(sizes))
        if kept < len(shapes):
            with pytest.raises(ValueError, match="choose a lower one"):
                patterns.erdos_renyi_kernel(named, sparsity)
            return
        sparsities = patterns.erdos_renyi_kernel(named, sparsity)
        masks = [
            patterns.unstructured_mask(np.ones(shape), s) for shape, s in zip(shapes, sparsities.values(), strict=True)
        ]
        assert sum(int(mask.sum()) for mask in masks) == kept
        assert all(mask.any() for mask in masks)
        ideal = self.rigged_lottery_densities(shapes, 1 - kept / sum(sizes))
        if all(density * size >= 1 for density, size in zip(ideal, sizes, strict=True)):
            for mask, density, size in zip(masks, ideal, sizes, strict=True):
                assert abs(int(mask.sum()) - density * size) < 1 + 1e-6

    def test_course_network_by_hand(self):
        """42,141 weights stay: 1,568 in the two small layers, the others as 102 to 3,264 (the sums of the shapes)."""
        shapes = {"conv1": (32, 3, 3, 1), "conv2": (64, 3, 3, 32), "dense": (128, 3136), "head": (10, 128)}
        sparsities = patterns.erdos_renyi_kernel(shapes, 0.9)
        assert sparsities["conv1"] == sparsities["head"] == 0
        assert sparsities["conv2"] == pytest.approx(1 - 40_573 * 102 / 3_366 / 18_432, abs=1 / 18_432)
        assert sparsities["dense"] == pytest.approx(1 - 40_573 * 3_264 / 3_366 / 401_408, abs=1 / 401_408)

    def test_names_the_layer_without_weights(self):
        with pytest.raises(ValueError, match="layer 'empty'"):
            patterns.erdos_renyi_kernel({"full": (3, 3), "empty": (0, 3)}, 0.5)

    def test_refuses_no_layer(self):
        with pytest.raises(ValueError, match="no layer to prune"):
            patterns.erdos_renyi_kernel({}, 0.5)


class TestPattern:
    @pytest.mark.parametrize("text", ["unstructured", "channel", "2:4", "1:4", "block 1x4", "block 16x1"])
    def test_text_there_and_back(self, text):
        assert str(patterns.parse_pattern(text)) == text

    @pytest.mark.parametrize("text", ["", "blocks", "block", "block 0x4", "block 4", "2:", "4:2", "0:4", "2:4 ", "٢:٤"])
    def test_refuses_other_text(self, text):
        with pytest.raises(ValueError, match="pattern is"):
            patterns.parse_pattern(text)

    def test_dispatches(self):
        scores = np.random.default_rng(1).random((4, 8))
        same = np.testing.assert_array_equal
        same(patterns.pattern_mask(scores, "unstructured", 0.3), patterns.unstructured_mask(scores, 0.3))
        same(patterns.pattern_mask(scores, "1:4"), patterns.n_m_mask(scores, 1, 4))
        same(patterns.pattern_mask(scores, "1:4", 0.75), patterns.n_m_mask(scores, 1, 4))
        same(patterns.pattern_mask(scores, "block 2x4", 0.5), patterns.block_mask(scores, (2, 4), 0.5))
        kept = patterns.channel_mask(scores.sum(axis=1), 0.5)
        same(patterns.pattern_mask(scores, "channel", 0.5), np.tile(kept[:, None], 8))

    def test_refuses_a_sparsity_that_n_m_does_not_have(self):
        with pytest.raises(
            ValueError, match=r"layer 'dense': sparsity is 0.6, but the pattern 2:4 removes exactly 0.5"
        ):
            patterns.pattern_mask(np.ones((4, 4)), "2:4", 0.6, name="dense")

    def test_refuses_a_missing_sparsity(self):
        with pytest.raises(ValueError, match="block 1x4 needs a sparsity"):
            patterns.pattern_mask(np.ones((4, 4)), "block 1x4")
