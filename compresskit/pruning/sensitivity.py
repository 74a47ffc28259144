"""Which layers can be pruned, how far, and how to spend a budget on them.

First each layer is pruned alone, over a grid of sparsities, and the network is scored (`scan`). Then a sparsity is
chosen for every layer at once, under the assumption that *the drops in accuracy add up*: `allocate` and `cheapest`
find the best choice under that assumption, `allocate_greedily` a good one where costs do not add up. The assumption
holds roughly for mild pruning and fails for hard pruning, so the network that comes out must be scored again.

How a layer is pruned and scored, and what it costs, is passed in as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Score = Callable[[str, float], float]
Cost = Callable[[str, float], float]


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy of the network with one layer pruned and the others whole.

    Parameters
    ----------
    layers : tuple of str
        Names of the layers, L of them.
    sparsities : tuple of float
        The grid, ascending, S values; the first is 0.
    accuracy : ndarray of float64, shape (L, S)
        Column 0 is the accuracy of the whole network, the same in every row.
    """

    layers: tuple[str, ...]
    sparsities: tuple[float, ...]
    accuracy: NDArray[np.float64]

    @property
    def drops(self) -> NDArray[np.float64]:
        """Accuracy lost, shape (L, S); where pruning gained some, 0: such a gain is more likely luck than merit."""
        return np.maximum(self.accuracy[:, :1] - self.accuracy, 0.0)


@dataclass(frozen=True)
class Allocation:
    """A sparsity for each layer.

    Parameters
    ----------
    sparsities : dict of str to float
        Layer name to sparsity.
    cost : float
        Cost of the network, in the unit of the cost function (bytes, MACs).
    expected_drop : float
        Sum of the layers' own drops in accuracy: an expectation, not a measurement.
    """

    sparsities: dict[str, float]
    cost: float
    expected_drop: float


def scan(
    layers: Sequence[str],
    sparsities: Sequence[float],
    score: Score,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Score the network with each layer pruned alone.

    Parameters
    ----------
    layers : sequence of str
        Names of the layers; at least one, each once.
    sparsities : sequence of float
        The grid, in [0, 1), in any order. 0 is always added.
    score : callable (layer, sparsity) -> accuracy
        Prunes one layer and returns the accuracy of the network. Called once for each layer and sparsity above 0, and
        once for the whole network, as ``score(layers[0], 0.0)``.
    progress : callable (done, total) -> None, optional
        Called after each score. An exception from it ends the scan: that is how to cancel.

    Returns
    -------
    Sensitivity

    Raises
    ------
    ValueError
        If there is no layer, a layer is named twice, a sparsity is outside [0, 1), or an accuracy is not finite (the
        message names the layer and the sparsity).

    Notes
    -----
    Li et al. (2016), arXiv:1608.08710, section 3.3; Han et al. (2015), arXiv:1506.02626, figure 6.
    """
    if not layers:
        raise ValueError("layers is empty: there is no layer to prune; name at least one layer with weights")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers is {list(layers)!r}; name each layer once")
    for sparsity in sparsities:
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"sparsities holds {sparsity!r}; choose sparsities from 0 up to, but not including, 1")
    grid = sorted({0.0, *map(float, sparsities)})
    accuracy = np.empty((len(layers), len(grid)))
    cells = [(row, column) for row in range(len(layers)) for column in range(1, len(grid))]
    for done, (row, column) in enumerate([(0, 0), *cells], start=1):
        accuracy[row, column] = _finite(score(layers[row], grid[column]), layers[row], grid[column])
        if progress is not None:
            progress(done, len(cells) + 1)
    accuracy[:, 0] = accuracy[0, 0]
    return Sensitivity(tuple(layers), tuple(grid), accuracy)


def allocate(sensitivity: Sensitivity, cost: Cost, budget: float, *, fixed: float = 0.0) -> Allocation:
    """Choose the sparsities that lose the least accuracy within a budget.

    Minimises the sum over layers of the drop that each layer causes alone, over all choices of one sparsity from the
    grid for each layer, subject to ``fixed + Σ cost(layer, sparsity) <= budget``. Among choices of equal drop (to 12
    digits) the cheapest is taken. The result is the exact optimum, found by dynamic programming.

    Parameters
    ----------
    sensitivity : Sensitivity
        Result of `scan`.
    cost : callable (layer, sparsity) -> cost
        Cost of one layer, in bytes or MACs; the costs of the layers add up. Where they do not (removing channels makes
        the next layer cheaper as well), use `allocate_greedily`.
    budget : float
        The most that the network may cost, in the unit of ``cost``.
    fixed : float, optional
        What the network costs besides these layers.

    Returns
    -------
    Allocation

    Raises
    ------
    ValueError
        If the grid does not reach the budget (the message says the least that it reaches), or a cost is not finite.
    """
    totals, drops, choices = _frontier(_cost_table(sensitivity, cost), sensitivity.drops)
    if not totals[0] + fixed <= budget:
        raise _out_of_reach(float(totals[0] + fixed), budget)
    best = int(np.searchsorted(totals + fixed, budget, side="right")) - 1
    return Allocation(_named(sensitivity, choices[best]), float(totals[best] + fixed), float(drops[best]))


def cheapest(sensitivity: Sensitivity, cost: Cost, most_drop: float, *, fixed: float = 0.0) -> Allocation:
    """Choose the sparsities that cost the least while losing no more accuracy than allowed.

    Minimises ``fixed + Σ cost(layer, sparsity)`` over all choices of one sparsity from the grid for each layer, where
    the drops that the layers cause alone may add up to at most ``most_drop``. Exact, as `allocate` is.

    Parameters
    ----------
    sensitivity : Sensitivity
        Result of `scan`.
    cost : callable (layer, sparsity) -> cost
        Cost of one layer, in bytes or MACs; the costs of the layers add up.
    most_drop : float
        The most accuracy that may be lost, >= 0, in the unit of the scores: 0.01 for one point, if those are fractions.
    fixed : float, optional
        What the network costs besides these layers.

    Returns
    -------
    Allocation

    Raises
    ------
    ValueError
        If ``most_drop`` is negative, or a cost is not finite.
    """
    if not most_drop >= 0:
        raise ValueError(f"most_drop is {most_drop!r}; choose 0 or more, such as 0.01 for one point of accuracy")
    totals, drops, choices = _frontier(_cost_table(sensitivity, cost), sensitivity.drops)
    # Drops fall along the frontier; a sum of decimal fractions may stand a hair above the limit that it equals.
    best = int(np.argmax(drops <= most_drop + 1e-12))
    return Allocation(_named(sensitivity, choices[best]), float(totals[best] + fixed), float(drops[best]))


def allocate_greedily(
    sensitivity: Sensitivity, total_cost: Callable[[Mapping[str, float]], float], budget: float
) -> Allocation:
    """Prune step by step, always where accuracy is lost the slowest, until the network fits the budget.

    Starts from the whole network. Each step raises the sparsity of one layer to some higher value of the grid: the one
    with the smallest (added drop) / (saved cost). It stops at the first network within the budget. This minimises
    nothing exactly, but the cost may be anything, such as the length of a compressed file, or the MACs after channels
    went from a layer and the next.

    Parameters
    ----------
    sensitivity : Sensitivity
        Result of `scan`.
    total_cost : callable (sparsities) -> cost
        Cost of the whole network when each layer has the sparsity given.
    budget : float
        The most that the network may cost.

    Returns
    -------
    Allocation

    Raises
    ------
    ValueError
        If no step saves anything more and the budget is not met (the message says the least that was reached), or a
        cost is not finite.
    """
    drops = sensitivity.drops
    choice = [0] * len(sensitivity.layers)
    cost = _finite_total(total_cost, _named(sensitivity, choice))
    while not cost <= budget:
        steps = []
        for layer, now in enumerate(choice):
            for higher in range(now + 1, len(sensitivity.sparsities)):
                raised = [*choice[:layer], higher, *choice[layer + 1 :]]
                lower_cost = _finite_total(total_cost, _named(sensitivity, raised))
                if lower_cost < cost:
                    rate = (drops[layer, higher] - drops[layer, now]) / (cost - lower_cost)
                    steps.append((rate, lower_cost, raised))
        if not steps:
            raise _out_of_reach(cost, budget)
        _, cost, choice = min(steps)
    return Allocation(_named(sensitivity, choice), cost, float(sum(drops[i, c] for i, c in enumerate(choice))))


def _frontier(
    costs: NDArray[np.float64], drops: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Find all choices that are worth making: no other one is both as cheap and as accurate.

    Layers are added one by one, and only choices worth making are carried on: a choice that is beaten stays beaten
    whatever is chosen for the layers to come.

    Parameters
    ----------
    costs, drops : ndarray of float64, shape (L, S)
        Cost and drop of each layer at each sparsity of the grid.

    Returns
    -------
    totals, drops : ndarray of float64, shape (P,)
        Ascending costs and strictly descending drops (to 12 digits).
    choices : ndarray of int, shape (P, L)
        For each choice, the place in the grid for each layer.
    """
    total, drop, choices = np.zeros(1), np.zeros(1), np.zeros((1, 0), dtype=np.intp)
    for layer_costs, layer_drops in zip(costs, drops, strict=True):
        grid = len(layer_costs)
        all_totals = np.add.outer(total, layer_costs).ravel()
        all_drops = np.add.outer(drop, layer_drops).ravel().round(12)
        order = np.lexsort((all_drops, all_totals))
        best_so_far = np.minimum.accumulate(all_drops[order])
        worth = order[np.concatenate([[True], best_so_far[1:] < best_so_far[:-1]])]
        total, drop = all_totals[worth], all_drops[worth]
        choices = np.column_stack([choices[worth // grid], worth % grid])
    return total, drop, choices


def _cost_table(sensitivity: Sensitivity, cost: Cost) -> NDArray[np.float64]:
    """Ask what each layer costs at each sparsity, shape (L, S)."""
    return np.array(
        [[_finite_cost(cost, layer, s) for s in sensitivity.sparsities] for layer in sensitivity.layers], dtype=float
    )


def _named(sensitivity: Sensitivity, choice: Sequence[int] | NDArray[np.intp]) -> dict[str, float]:
    """Turn places in the grid into sparsities by layer name."""
    return {layer: sensitivity.sparsities[c] for layer, c in zip(sensitivity.layers, choice, strict=True)}


def _finite(accuracy: float, layer: str, sparsity: float) -> float:
    """Pass an accuracy on, unless it is not a number."""
    if not np.isfinite(accuracy):
        raise ValueError(f"layer {layer!r} at sparsity {sparsity:g} scored {accuracy!r}; look at its weights")
    return float(accuracy)


def _finite_cost(cost: Cost, layer: str, sparsity: float) -> float:
    """Ask for the cost of a layer, which must be a number."""
    value = float(cost(layer, sparsity))
    if not np.isfinite(value):
        raise ValueError(f"layer {layer!r} at sparsity {sparsity:g} costs {value!r}; return a finite number")
    return value


def _finite_total(total_cost: Callable[[Mapping[str, float]], float], sparsities: dict[str, float]) -> float:
    """Ask for the cost of a network, which must be a number."""
    value = float(total_cost(sparsities))
    if not np.isfinite(value):
        raise ValueError(f"total_cost of {sparsities!r} is {value!r}; return a finite number")
    return value


def _out_of_reach(least: float, budget: float) -> ValueError:
    """Say that a budget cannot be met."""
    return ValueError(
        f"budget is {budget:,.12g}, but the least that these layers and sparsities reach is {least:,.12g}; "
        "raise the budget, or add higher sparsities to the grid"
    )
