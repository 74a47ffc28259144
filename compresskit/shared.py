"""What sharing steps make of a float model's weights: a codebook for each layer, or for each of its channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from compresskit import sharing
from compresskit.litert.inspect import CHANNEL_AXIS
from compresskit.pruned import Pruned, float_weights, layer_sites
from compresskit.recipe import Share

BINS = 4096
"""Places at which intervals may begin for method="exact"; without this it would take seconds a layer."""

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class SharedLayers:
    """Float weights after sharing.

    Attributes
    ----------
    weights : mapping of int to ndarray of float32
        All edited weights, those that were pruned before among them: tensor index to array.
    layers : mapping of str to sharing.Shared
        Codebook and codes of each layer that was shared.
    grids : mapping of str to tuple of float
        Where the values of a layer are whole multiples of one scale: that scale, or those of its channels.
    """

    weights: Mapping[int, Weights]
    layers: Mapping[str, sharing.Shared]
    grids: Mapping[str, tuple[float, ...]]


def share(pruned: Pruned, steps: tuple[Share, ...]) -> SharedLayers:
    """Share the weights of a float model.

    Parameters
    ----------
    pruned
        The float model, and its weights as far as they were edited.
    steps
        The steps, no layer in two of them.

    Returns
    -------
    SharedLayers
        A layer with fewer distinct weights than levels, with zeros only or with a single weight has a shorter codebook,
        and is exact.

    Raises
    ------
    ValueError
        If a layer cannot be shared as asked; the sentence names it.
    """
    weights = dict(pruned.weights)
    layers: dict[str, sharing.Shared] = {}
    grids: dict[str, tuple[float, ...]] = {}
    source = float_weights(pruned.base)
    for step in steps:
        for site in layer_sites(pruned.base):
            if step.layers is not None and site.name not in step.layers:
                continue
            array = weights.get(site.weights, source[site.name])
            layers[site.name] = share_array(array, step, axis=CHANNEL_AXIS[site.op], name=site.name)
            weights[site.weights] = np.asarray(layers[site.name].decode(), np.float32)
            if step.on_a_grid:
                grids[site.name] = _scales(layers[site.name].codebook, step.count)
    return SharedLayers(weights, layers, {name: scales for name, scales in grids.items() if scales})


def share_array(weights: Weights, step: Share, *, axis: int = 0, name: str = "") -> sharing.Shared:
    """Share the weights of one layer.

    Parameters
    ----------
    weights : ndarray of float32, any shape
        The weights.
    step : Share
        How; its `layers` are not looked at.
    axis : int, optional
        Of the output channels, for granularity="channel".
    name : str, optional
        Of the layer, for error messages.

    Returns
    -------
    sharing.Shared

    Raises
    ------
    ValueError
        If the weights are none, or not finite, or there are too few levels for them.
    """

    def one(part: Weights) -> sharing.Shared:
        return _codebook(part, step, name)

    return one(weights) if step.granularity == "layer" else sharing.by_channel(weights, one, axis=axis)


def _codebook(weights: Weights, step: Share, name: str) -> sharing.Shared:
    """Share weights that have one codebook."""
    if step.method == "exact":
        return sharing.exact_kmeans(weights, step.count, keep_zero=step.keep_zero, bins=BINS, name=name)
    if step.method == "uniform":
        return sharing.uniform(weights, step.count, name=name)
    if step.method == "binary":
        return sharing.binary(weights, name=name)
    if step.method == "ternary":
        return sharing.ternary(weights, name=name)
    if step.method == "powers":
        return sharing.powers_of_two(weights, (step.count - 1) // 2, name=name)
    start = cast(sharing.Start, step.start)
    return sharing.kmeans(weights, step.count, start=start, keep_zero=step.keep_zero, seed=step.seed, name=name)


def _scales(codebook: Weights, levels: int) -> tuple[float, ...]:
    """Find the scale, or the scales of the channels, of a grid's values; none if a channel holds nothing but zeros."""
    rows = np.atleast_2d(codebook)
    if rows.shape[1] < levels or (rows[:, -1] <= rows[:, 0]).any():
        return ()
    steps = 2 if levels == 2 and np.allclose(rows[:, 0], -rows[:, 1]) else levels - 1  # binary: -1 and 1, without 0
    return tuple(((rows[:, -1].astype(np.float64) - rows[:, 0]) / steps).tolist())
