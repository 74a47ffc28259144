"""What factorizing steps make of a float model: a graph in which layers are products of thinner ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.splice import Part, replace_layers
from compresskit.lowrank import (
    Factors,
    SpatialSVD,
    Tucker2,
    rank_by_energy,
    ranks_by_budget,
    spatial_svd,
    svd,
    tucker2,
    tucker2_spectra,
)
from compresskit.pruned import float_weights, layer_sites
from compresskit.recipe import Factorize

Weights = NDArray[np.float32]
Pieces = Factors | SpatialSVD | Tucker2


@dataclass(frozen=True)
class Factorized:
    """A factorized float model.

    Attributes
    ----------
    base : bytes
        The float `.tflite` with the thinner layers.
    composed : bytes
        The original `.tflite` with the products of the thinner layers as weights: it computes the same.
    pieces : mapping of str to Factors, SpatialSVD or Tucker2
        What the layers that were cut became.
    """

    base: bytes
    composed: bytes
    pieces: Mapping[str, Pieces]


@functools.lru_cache(maxsize=16)
def factorize(tflite: bytes, steps: tuple[Factorize, ...]) -> Factorized:
    """Factorize a float model.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    steps
        The steps, no layer in two of them.

    Returns
    -------
    Factorized
        Layer `dense` becomes `dense_in` and `dense_out`; a convolution `conv_in`, `conv_core` and `conv_out` (Tucker-2)
        or `conv_down` and `conv_across` (spatial).

    Raises
    ------
    ValueError
        If a layer cannot be cut, a rank is out of its range, or no layer would become smaller; the sentence names it.
    """
    pieces: dict[str, Pieces] = {}
    for step in steps:
        pieces |= _cut(tflite, step)
    if not pieces:
        return Factorized(tflite, tflite, {})
    composed = {site.weights: pieces[site.name] for site in layer_sites(tflite) if site.name in pieces}
    return Factorized(
        replace_layers(tflite, {name: _parts(each) for name, each in pieces.items()}),
        files.replace_constants(
            tflite, {index: np.ascontiguousarray(each.compose(), np.float32) for index, each in composed.items()}
        ),
        pieces,
    )


@functools.lru_cache(maxsize=64)
def spectrum(tflite: bytes, name: str) -> NDArray[np.float64]:
    """Compute the singular values of a layer: of its matrix, or of a convolution laid out as columns by rows.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    name
        A dense layer or a convolution.

    Returns
    -------
    ndarray of float64
        Descending; not to be written to.
    """
    array = float_weights(tflite)[name].astype(np.float64)
    if array.ndim == 4:
        array = array.transpose(1, 3, 2, 0).reshape(_matrix_shape(array))
    thin = array if array.shape[0] <= array.shape[1] else array.T
    # The eigenvalues of A·Aᵀ are their squares, and many times faster to find than LAPACK's svd of a wide matrix.
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(thin @ thin.T)[::-1], 0.0)))


def _cut(tflite: bytes, step: Factorize) -> dict[str, Pieces]:
    """Cut the layers that a step asks for."""
    kinds = {site.name: site.op for site in layer_sites(tflite)}
    wanted = ("FULLY_CONNECTED",) if step.convolutions == "keep" else ("FULLY_CONNECTED", "CONV_2D")
    for name in step.layers or ():
        if kinds[name] not in wanted:
            how = "choose convolutions='tucker2' or 'spatial'" if kinds[name] == "CONV_2D" else "leave it out"
            raise ValueError(f"Factorize: layer {name!r} is a {kinds[name]}, which stays as it is; {how}")
    chosen = step.layers or tuple(name for name, kind in kinds.items() if kind in wanted)
    weights = {name: float_weights(tflite)[name] for name in chosen}
    ranks = _ranks(tflite, step, weights)
    pieces = {name: _pieces(tflite, step, name, ranks[name]) for name in chosen if name in ranks}
    if step.layers is None:
        pieces = {name: each for name, each in pieces.items() if each.parameters < weights[name].size}
    if not pieces:
        raise ValueError(
            f"Factorize: with {_how_far(step)} no layer would have fewer weights; choose a lower rank, energy or budget"
        )
    return pieces


def _how_far(step: Factorize) -> str:
    """Say what a step asks for."""
    name = next(each for each in ("rank", "energy", "budget") if getattr(step, each) is not None)
    return f"{name}={getattr(step, name)}"


def _ranks(tflite: bytes, step: Factorize, weights: Mapping[str, Weights]) -> dict[str, tuple[int, ...]]:
    """Choose the ranks of each layer: two for Tucker-2, one otherwise. A layer that is to stay whole has none."""
    by_window = {name for name, array in weights.items() if array.ndim == 4 and step.convolutions == "tucker2"}
    if step.rank is not None:
        return {
            name: ranks
            for name, array in weights.items()
            if (ranks := _same_rank(step, name, array, name in by_window)) is not None
        }
    if step.energy is not None:
        plain = {
            name: (rank_by_energy(spectrum(tflite, name), step.energy),) for name in weights if name not in by_window
        }
        return plain | {
            name: tuple(rank_by_energy(each, step.energy) for each in tucker2_spectra(weights[name], name=name))
            for name in by_window
        }
    budget = step.budget or 0.0
    windows = _window_ranks({name: weights[name] for name in by_window}, budget)
    rest = {name: array for name, array in weights.items() if name not in by_window}
    if not rest:
        return dict(windows)
    try:
        shared = ranks_by_budget(
            {name: spectrum(tflite, name) for name in rest},
            {name: _cost(array) for name, array in rest.items()},
            int(budget * sum(array.size for array in rest.values())),
        )
    except ValueError as error:
        raise ValueError(f"Factorize: budget is {budget}: {error}") from error
    return windows | {name: (rank,) for name, rank in shared.items()}


def _same_rank(step: Factorize, name: str, array: Weights, by_window: bool) -> tuple[int, ...] | None:
    """Give every layer the same rank; None where that cannot be and the layer was not asked for by name."""
    rank = step.rank or 0
    if by_window:
        return min(rank, array.shape[0]), min(rank, array.shape[3])
    highest = min(_matrix_shape(array))
    if rank <= highest:
        return (rank,)
    if step.layers is None:
        return None
    raise ValueError(f"Factorize: layer {name!r}: rank is {rank}; choose from 1 to {highest}")


def _matrix_shape(array: NDArray[Any]) -> tuple[int, int]:
    """Shape of the matrix whose rank is cut: that of a dense layer, or (height in, width out) of a convolution."""
    if array.ndim == 2:
        return array.shape[0], array.shape[1]
    out, height, width, into = array.shape
    return height * into, width * out


def _cost(array: Weights) -> int:
    """Weights that each rank takes."""
    return sum(_matrix_shape(array))


def _window_ranks(weights: Mapping[str, Weights], budget: float) -> dict[str, tuple[int, int]]:
    """Find the most energy that every Tucker-2 may keep so that all together keep to a budget; give the ranks."""
    spectra = {name: tucker2_spectra(array, name=name) for name, array in weights.items()}
    allowed = budget * sum(array.size for array in weights.values())
    for energy in np.linspace(1, 0.01, 200).tolist():
        ranks = {
            name: (rank_by_energy(out, energy), rank_by_energy(into, energy)) for name, (out, into) in spectra.items()
        }
        if sum(min(_window_cost(weights[name], *ranks[name]), weights[name].size) for name in weights) <= allowed:
            return ranks
    if weights:
        raise ValueError(f"Factorize: budget is {budget}; even the lowest ranks take more: raise it")
    return {}


def _window_cost(array: Weights, wide: int, narrow: int) -> int:
    """Weights of a Tucker-2 with so many channels behind and before its window."""
    out, height, width, into = array.shape
    return int(into * narrow + wide * height * width * narrow + out * wide)


@functools.lru_cache(maxsize=32)
def _whole(tflite: bytes, name: str) -> Factors | SpatialSVD:
    """Decompose a layer at full rank, once; lower ranks are cut from it."""
    array = float_weights(tflite)[name]
    full = min(_matrix_shape(array))
    return svd(array, full, name=name) if array.ndim == 2 else spatial_svd(array, full, name=name)


def _pieces(tflite: bytes, step: Factorize, name: str, ranks: tuple[int, ...]) -> Pieces:
    """Cut one layer."""
    if len(ranks) == 2:
        return tucker2(float_weights(tflite)[name], *ranks, name=name)
    whole, rank = _whole(tflite, name), ranks[0]
    if isinstance(whole, Factors):
        return Factors(whole.first[:rank], np.ascontiguousarray(whole.second[:, :rank]))
    return SpatialSVD(whole.vertical[:rank], np.ascontiguousarray(whole.horizontal[..., :rank]))


def _parts(pieces: Pieces) -> tuple[Part, ...]:
    """Say how the pieces stand in the graph."""
    if isinstance(pieces, Factors):
        return Part("in", pieces.first), Part("out", pieces.second)
    if isinstance(pieces, SpatialSVD):
        return Part("down", pieces.vertical, across=False), Part("across", pieces.horizontal, down=False)
    stay = {"down": False, "across": False}
    return Part("in", pieces.first, **stay), Part("core", pieces.core), Part("out", pieces.last, **stay)
