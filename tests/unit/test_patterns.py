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
