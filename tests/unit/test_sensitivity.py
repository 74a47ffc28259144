"""Scans ask for what they must, and allocations are the best that the grid holds."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit.pruning import sensitivity
from compresskit.pruning.sensitivity import Sensitivity


@st.composite
def problems(draw):
    """Draw a scan of up to four layers, with costs in whole bytes that fall as sparsity rises, or not."""
    layers = tuple("abcd"[: draw(st.integers(1, 4))])
    grid = (0.0, *sorted(draw(st.sets(st.sampled_from([0.3, 0.5, 0.7, 0.9]), max_size=4))))
    accuracy = np.array([[0.9, *(draw(st.integers(0, 10)) / 10 for _ in grid[1:])] for _ in layers])
    costs = {(layer, s): draw(st.integers(0, 20)) for layer in layers for s in grid}
    return Sensitivity(layers, grid, accuracy), costs


def every_choice(scanned, costs):
    """List (cost, drop) of all choices, by brute force."""
    drops = scanned.drops
    for choice in itertools.product(range(len(scanned.sparsities)), repeat=len(scanned.layers)):
        cost = sum(costs[name, scanned.sparsities[c]] for name, c in zip(scanned.layers, choice, strict=True))
        yield cost, sum(drops[row, c] for row, c in enumerate(choice))


def check_consistent(allocation, scanned, costs, fixed=0):
    """The allocation's own figures are those of its sparsities."""
    assert allocation.cost == fixed + sum(costs[item] for item in allocation.sparsities.items())
    places = [scanned.sparsities.index(s) for s in allocation.sparsities.values()]
    assert allocation.expected_drop == pytest.approx(sum(scanned.drops[i, c] for i, c in enumerate(places)))
    assert tuple(allocation.sparsities) == scanned.layers


class TestScan:
    def test_asks_once_for_each_cell_and_once_for_the_whole_network(self):
        asked, steps = [], []

        def score(layer, sparsity):
            asked.append((layer, sparsity))
            return 0.9 - sparsity * (0.1 if layer == "a" else 0.5)

        scanned = sensitivity.scan(["a", "b"], [0.8, 0.4], score, progress=lambda *step: steps.append(step))
        assert asked == [("a", 0.0), ("a", 0.4), ("a", 0.8), ("b", 0.4), ("b", 0.8)]
        assert steps == [(i, 5) for i in range(1, 6)]
        assert scanned.sparsities == (0.0, 0.4, 0.8)
        np.testing.assert_allclose(scanned.accuracy, [[0.9, 0.86, 0.82], [0.9, 0.7, 0.5]])
        np.testing.assert_allclose(scanned.drops, [[0, 0.04, 0.08], [0, 0.2, 0.4]])

    def test_gain_is_no_drop(self):
        scanned = sensitivity.scan(["a"], [0.5], lambda layer, sparsity: 0.9 + sparsity / 10)
        np.testing.assert_array_equal(scanned.drops, [[0, 0]])

    def test_an_exception_from_progress_ends_it(self):
        def cancel(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sensitivity.scan(["a"], [0.5], lambda layer, sparsity: 1.0, progress=cancel)

    @pytest.mark.parametrize(
        ("layers", "grid", "message"),
        [([], [0.5], "no layer to prune"), (["a", "a"], [0.5], "each layer once"), (["a"], [0.5, 1.0], "holds 1.0")],
    )
    def test_refuses(self, layers, grid, message):
        with pytest.raises(ValueError, match=message):
            sensitivity.scan(layers, grid, lambda layer, sparsity: 1.0)

    def test_names_the_cell_that_scored_nan(self):
        with pytest.raises(ValueError, match=r"layer 'b' at sparsity 0\.5 scored nan"):
            sensitivity.scan(["a", "b"], [0.5], lambda layer, s: float("nan") if layer == "b" else 1.0)


class TestAllocate:
    @given(problems(), st.integers(0, 80), st.integers(0, 5))
    def test_is_the_best_of_all_choices(self, problem, budget, fixed):
        scanned, costs = problem
        within = [(drop, cost + fixed) for cost, drop in every_choice(scanned, costs) if cost + fixed <= budget]
        if not within:
            least = fixed + min(cost for cost, _ in every_choice(scanned, costs))
            with pytest.raises(ValueError, match=f"least that these layers and sparsities reach is {least};"):
                sensitivity.allocate(scanned, lambda *cell: costs[cell], budget, fixed=fixed)
            return
        allocation = sensitivity.allocate(scanned, lambda *cell: costs[cell], budget, fixed=fixed)
        check_consistent(allocation, scanned, costs, fixed)
        least_drop = min(drop for drop, _ in within)
        assert allocation.expected_drop == pytest.approx(least_drop, abs=1e-9)
        assert allocation.cost == min(cost for drop, cost in within if drop < least_drop + 1e-9)

    @given(problems(), st.integers(0, 30))
    def test_cheapest_is_the_cheapest_of_all_choices(self, problem, tenths):
        scanned, costs = problem
        allocation = sensitivity.cheapest(scanned, lambda *cell: costs[cell], tenths / 10)
        check_consistent(allocation, scanned, costs)
        assert allocation.expected_drop <= tenths / 10 + 1e-9
        assert allocation.cost == min(c for c, drop in every_choice(scanned, costs) if drop <= tenths / 10 + 1e-9)

    def test_refuses_a_negative_drop(self):
        with pytest.raises(ValueError, match=r"most_drop is -0\.1"):
            sensitivity.cheapest(Sensitivity(("a",), (0.0,), np.ones((1, 1))), lambda *cell: 1, -0.1)

    def test_refuses_a_cost_that_is_none(self):
        with pytest.raises(ValueError, match="layer 'a' at sparsity 0 costs nan"):
            sensitivity.allocate(Sensitivity(("a",), (0.0,), np.ones((1, 1))), lambda *cell: float("nan"), 5)

    def test_refuses_a_budget_of_nan(self):
        scanned = Sensitivity(("a",), (0.0,), np.ones((1, 1)))
        with pytest.raises(ValueError, match="budget is nan"):
            sensitivity.allocate(scanned, lambda *cell: 1, float("nan"))
        with pytest.raises(ValueError, match="budget is nan"):
            sensitivity.allocate_greedily(scanned, lambda sparsities: 1, float("nan"))


class TestAllocateGreedily:
    @given(problems(), st.integers(0, 80))
    def test_fits_whenever_anything_fits(self, problem, budget):
        """As long as more sparsity never costs more; no better than the best, and within the budget."""
        scanned, drawn = problem
        costs = {}
        for layer in scanned.layers:
            falling = sorted((drawn[layer, s] for s in scanned.sparsities), reverse=True)
            costs |= {(layer, s): cost for s, cost in zip(scanned.sparsities, falling, strict=True)}

        def total(sparsities):
            return sum(costs[item] for item in sparsities.items())

        if budget < min(cost for cost, _ in every_choice(scanned, costs)):
            with pytest.raises(ValueError, match="the least that these layers and sparsities reach"):
                sensitivity.allocate_greedily(scanned, total, budget)
            return
        allocation = sensitivity.allocate_greedily(scanned, total, budget)
        check_consistent(allocation, scanned, costs)
        assert allocation.cost <= budget
        best = sensitivity.allocate(scanned, lambda *cell: costs[cell], budget)
        assert allocation.expected_drop >= best.expected_drop - 1e-9

    def test_takes_the_cheap_drop_first(self):
        scanned = Sensitivity(("soft", "hard"), (0.0, 0.5), np.array([[0.9, 0.5], [0.9, 0.89]]))
        allocation = sensitivity.allocate_greedily(scanned, lambda s: 20 - 10 * s["soft"] - 10 * s["hard"], 15)
        assert allocation.sparsities == {"soft": 0.0, "hard": 0.5}

    def test_knows_costs_that_multiply(self):
        """Channels that go from one layer make the next cheaper: the MACs of b depend on what is left of a."""
        scanned = Sensitivity(("a", "b"), (0.0, 0.5), np.array([[0.9, 0.8], [0.9, 0.8]]))

        def macs(sparsities):
            return 100 * (1 - sparsities["a"]) + 400 * (1 - sparsities["a"]) * (1 - sparsities["b"])

        allocation = sensitivity.allocate_greedily(scanned, macs, 250)
        assert allocation.sparsities == {"a": 0.5, "b": 0.0}
        assert allocation.cost == 250

    def test_says_the_least_it_reached(self):
        scanned = Sensitivity(("a",), (0.0, 0.5), np.array([[0.9, 0.8]]))
        with pytest.raises(ValueError, match=r"budget is 1, .*reach is 1,500;"):
            sensitivity.allocate_greedily(scanned, lambda s: 3000 * (1 - s["a"]), 1)
