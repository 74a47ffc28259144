"""The layers of a small file beside those of the original, also where low rank made two or three of one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed
from compresskit.litert.inspect import Layer
from compresskit.lowrank import Factors, SpatialSVD, Tucker2

_SUFFIXES = (("in", "out"), ("in", "core", "out"), ("down", "across"))


def pieces_of(before: Sequence[Layer], after: Sequence[Layer]) -> tuple[tuple[Layer, ...], ...]:
    """Find what each layer of the original became.

    Parameters
    ----------
    before, after
        The layers of the original and of the small file.

    Returns
    -------
    tuple of tuple of Layer
        For each layer of the original, the one of its name, or the two or three that low rank made of it.

    Raises
    ------
    ValueError
        If a layer is gone; the sentence names it.
    """
    there = {layer.name: layer for layer in after}
    found = []
    for layer in before:
        names = _became(layer.name, there)
        if not names:
            raise ValueError(f"layer {layer.name!r} is not in the file, whose layers are {', '.join(there)}")
        found.append(tuple(there[name] for name in names))
    return tuple(found)


def _became(name: str, there: Collection[str]) -> tuple[str, ...]:
    """Name what a layer became: itself, or what low rank made of it, three before two of the same ends; or nothing."""
    ends = sorted(_SUFFIXES, key=len, reverse=True)
    cut = (tuple(f"{name}_{end}" for end in each) for each in ends)
    return next((names for names in ((name,), *cut) if set(names) <= set(there)), ())


def as_one(pieces: Sequence[Layer]) -> Layer:
    """Add layers up to one row: bytes, parameters and multiplications, the zeros among all weights, and the types."""
    weights = [float(np.prod(piece.shape)) for piece in pieces]
    types = dict.fromkeys(piece.dtype for piece in pieces)
    return replace(
        pieces[0],
        dtype="/".join(types),
        bytes=sum(piece.bytes for piece in pieces),
        parameters=sum(piece.parameters for piece in pieces),
        macs=sum(piece.macs for piece in pieces),
        sparsity=float(np.average([piece.sparsity for piece in pieces], weights=weights)),
    )


def composed(small: Compressed, name: str) -> NDArray[np.float32]:
    """Read a layer's weights from a file: those of the layer, or the product of what low rank made of it.

    Parameters
    ----------
    small
        The file.
    name
        Of a layer of the original.

    Returns
    -------
    ndarray of float32
        Real numbers, in the shape that the layer has in the original.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    parts = [small.weights(each) for each in _became(name, {layer.name for layer in small.layers}) or (name,)]
    if len(parts) == 3:
        return Tucker2(*parts).compose()
    if len(parts) == 2:
        return (Factors(*parts) if parts[0].ndim == 2 else SpatialSVD(*parts)).compose()
    return parts[0]
