"""Low rank: a large matrix as the product of two thin ones.

A dense layer of shape (m, n) becomes two, (r, n) and then (m, r): ``r (m + n)`` weights where there were ``m n``. A
convolution is a tensor of four axes, ``(out, height, width, in)`` as LiteRT stores it, and can be cut in two ways:
`tucker2` narrows the channels before and after the window, `spatial_svd` splits the window into a column and a row.

Nothing stands between the new layers: no bias and no activation. The last of them takes over those of the old layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compresskit.messages import of_layer

Weights: TypeAlias = NDArray[Any]
Matrix: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """A dense layer as two.

    Parameters
    ----------
    first : ndarray, shape (r, n)
        Weights of the layer that reads the input.
    second : ndarray, shape (m, r)
        Weights of the layer that gives the output.
    """

    first: Weights
    second: Weights

    @property
    def rank(self) -> int:
        """Width r between the two layers."""
        return int(self.first.shape[0])

    @property
    def parameters(self) -> int:
        """Weights of both layers; also their multiply-accumulates for one sample."""
        return int(self.first.size + self.second.size)

    def compose(self) -> Weights:
        """Return the one matrix, shape (m, n), that both together are."""
        return np.asarray(self.second @ self.first)


@dataclass(frozen=True)
class Tucker2:
    """A convolution as three.

    Parameters
    ----------
    first : ndarray, shape (rank in, 1, 1, in)
        A 1x1 convolution that narrows the input channels.
    core : ndarray, shape (rank out, height, width, rank in)
        The window, with the stride and padding of the old layer.
    last : ndarray, shape (out, 1, 1, rank out)
        A 1x1 convolution that widens to the output channels.
    """

    first: Weights
    core: Weights
    last: Weights

    @property
    def parameters(self) -> int:
        """Weights of the three layers."""
        return int(self.first.size + self.core.size + self.last.size)

    def compose(self) -> Weights:
        """Return the one filter tensor, shape (out, height, width, in), that the three together are."""
        return np.asarray(np.einsum("op,phwq,qi->ohwi", self.last[:, 0, 0, :], self.core, self.first[:, 0, 0, :]))


@dataclass(frozen=True)
class SpatialSVD:
    """A convolution as two: down the column, then along the row.

    Parameters
    ----------
    vertical : ndarray, shape (r, height, 1, in)
        With the old layer's stride and padding down, and stride 1 across.
    horizontal : ndarray, shape (out, 1, width, r)
        With the old layer's stride and padding across, and stride 1 down.
    """

    vertical: Weights
    horizontal: Weights

    @property
    def rank(self) -> int:
        """Channels r between the two layers."""
        return int(self.vertical.shape[0])

    @property
    def parameters(self) -> int:
        """Weights of both layers."""
        return int(self.vertical.size + self.horizontal.size)

    def compose(self) -> Weights:
        """Return the one filter tensor, shape (out, height, width, in), that both together are."""
        return np.asarray(np.einsum("owr,rhi->ohwi", self.horizontal[:, 0], self.vertical[:, :, 0]))


def singular_values(matrix: Weights, *, name: str = "") -> Matrix:
    """How much each rank adds to a matrix.

    Parameters
    ----------
    matrix : ndarray, shape (m, n)
        Weights of a dense layer, finite.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    ndarray of float64, shape (min(m, n),)
        Descending. The squares add up to the sum of the squared weights.

    Raises
    ------
    ValueError
        If it is not a matrix, is empty, or holds values that are not finite.
    """
    return np.asarray(np.linalg.svd(_checked(matrix, 2, name), compute_uv=False))


def svd(matrix: Weights, rank: int, *, name: str = "") -> Factors:
    """Cut a dense layer in two by truncated singular value decomposition.

    Parameters
    ----------
    matrix : ndarray, shape (m, n)
        Weights of a dense layer ``(out, in)``, finite.
    rank : int
        r, from 1 to min(m, n).
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Factors
        Of the dtype of the matrix. No two layers of this width come nearer to the matrix; the sum of squared
        differences is that of the singular values left out. Each factor gets the root of the singular values, so that
        both have weights of like size.

    Raises
    ------
    ValueError
        If it is not a matrix, is empty or not finite, or the rank is out of range.

    Notes
    -----
    Eckart and Young (1936), *The approximation of one matrix by another of lower rank*; for networks Denil et al.
    (2013), *Predicting parameters in deep learning*, arXiv:1306.0543.
    """
    left, right = _two_factors(_checked(matrix, 2, name), rank, name)
    return Factors(right.astype(matrix.dtype), left.astype(matrix.dtype))


def tucker2(weights: Weights, rank_out: int, rank_in: int, *, iterations: int = 10, name: str = "") -> Tucker2:
    """Cut a convolution in three: fewer channels in, the window, more channels out.

    Parameters
    ----------
    weights : ndarray, shape (out, height, width, in)
        Filters of a convolution, finite.
    rank_out, rank_in : int
        Channels after and before the window: from 1 to out, and from 1 to in.
    iterations : int, optional
        Rounds of alternating improvement (HOOI, De Lathauwer et al., 2000) after the first guess from the singular
        vectors; 0 keeps the guess.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    Tucker2
        Of the dtype of the weights.

    Raises
    ------
    ValueError
        If there are not four axes, the weights are empty or not finite, or a rank is out of range.

    Notes
    -----
    Kim et al. (2015), *Compression of deep convolutional neural networks for fast and low power mobile applications*,
    arXiv:1511.06530.
    """
    tensor = _checked(weights, 4, name)
    _check_rank("rank_out", rank_out, tensor.shape[0], name)
    _check_rank("rank_in", rank_in, tensor.shape[3], name)
    from_out = _leading_vectors(tensor, 0, rank_out)
    from_in = _leading_vectors(tensor, 3, rank_in)
    for _ in range(iterations):
        from_out = _leading_vectors(tensor @ from_in, 0, rank_out)
        from_in = _leading_vectors(np.einsum("ohwi,op->phwi", tensor, from_out), 3, rank_in)
    core = np.einsum("ohwi,op,iq->phwq", tensor, from_out, from_in)
    kind = weights.dtype
    return Tucker2(from_in.T[:, None, None, :].astype(kind), core.astype(kind), from_out[:, None, None, :].astype(kind))


def tucker2_spectra(weights: Weights, *, name: str = "") -> tuple[Matrix, Matrix]:
    """How much each output channel and each input channel would add to a Tucker-2 core, for `rank_by_energy`.

    Parameters
    ----------
    weights : ndarray, shape (out, height, width, in)
        Filters of a convolution, finite.
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    by_out, by_in : ndarray of float64
        Singular values of the weights unfolded by output channel and by input channel, descending.

    Raises
    ------
    ValueError
        If there are not four axes, or the weights are empty or not finite.
    """
    tensor = _checked(weights, 4, name)
    return singular_values(_unfolded(tensor, 0)), singular_values(_unfolded(tensor, 3))


def spatial_svd(weights: Weights, rank: int, *, name: str = "") -> SpatialSVD:
    """Cut a convolution in two: a column of the window, then a row.

    Parameters
    ----------
    weights : ndarray, shape (out, height, width, in)
        Filters of a convolution, finite.
    rank : int
        r, from 1 to min(in · height, width · out).
    name : str, optional
        Name of the layer, for error messages.

    Returns
    -------
    SpatialSVD
        Of the dtype of the weights, and the nearest of this rank.

    Raises
    ------
    ValueError
        If there are not four axes, the weights are empty or not finite, or the rank is out of range.

    Notes
    -----
    Jaderberg, Vedaldi and Zisserman (2014), *Speeding up convolutional neural networks with low rank expansions*,
    arXiv:1405.3866, scheme 2.
    """
    tensor = _checked(weights, 4, name)
    out, height, width, into = tensor.shape
    rows = tensor.transpose(1, 3, 2, 0).reshape(height * into, width * out)
    column, row = _two_factors(rows, rank, name)
    vertical = column.T.reshape(rank, height, 1, into)
    horizontal = row.reshape(rank, 1, width, out).transpose(3, 1, 2, 0)
    return SpatialSVD(np.ascontiguousarray(vertical, weights.dtype), np.ascontiguousarray(horizontal, weights.dtype))


def rank_by_energy(spectrum: ArrayLike, energy: float) -> int:
    """Return the smallest rank that keeps a part of the energy, the sum of squared singular values.

    Parameters
    ----------
    spectrum : array_like, shape (k,)
        Singular values, descending.
    energy : float
        Part to keep, in (0, 1].

    Returns
    -------
    int
        From 1 to k. 1 for a layer of zeros.

    Raises
    ------
    ValueError
        If the part is out of range, or the singular values are none.
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy is {energy!r}; choose a part above 0 and up to 1 (0.9 keeps 90 %)")
    squares = np.square(_spectrum(spectrum))
    # Summed from the smallest: then the part left out is exact, and energy 1 leaves out nothing but zeros.
    left_out = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    enough = left_out <= (1 - energy) * left_out[0]
    return max(1, int(np.argmax(enough)))


def break_even_rank(m: int, n: int) -> int:
    """Return the largest rank at which two dense layers have fewer weights than the one of shape (m, n).

    Parameters
    ----------
    m, n : int
        Outputs and inputs, >= 1.

    Returns
    -------
    int
        The largest r with ``r (m + n) < m n``; 0 if even rank 1 does not save anything.

    Raises
    ------
    ValueError
        If a side is below 1.
    """
    return rank_by_budget(m, n, m * n - 1)


def rank_by_budget(m: int, n: int, parameters: int) -> int:
    """Return the largest rank at which two dense layers have at most so many weights.

    Parameters
    ----------
    m, n : int
        Outputs and inputs, >= 1.
    parameters : int
        The most weights to have.

    Returns
    -------
    int
        From 0 (even rank 1 is too much) to min(m, n).

    Raises
    ------
    ValueError
        If a side is below 1.
    """
    if m < 1 or n < 1:
        raise ValueError(f"the matrix has shape ({m}, {n}); give sides of at least 1")
    return max(0, min(parameters // (m + n), m, n))


def ranks_by_budget(
    spectra: Mapping[str, ArrayLike], weights_per_rank: Mapping[str, int], parameters: int
) -> dict[str, int]:
    """Share a budget of weights out to the ranks of several layers.

    Every layer starts at rank 1. Then one rank after the other is bought, always the one that adds the largest part of
    its layer's energy for each weight, until the next cannot be paid for. Parts of energy shrink with rank and each
    rank of a layer costs the same, so no other choice that costs as much as the result, or less, keeps more (the sum
    over layers of the part of energy kept); only a rest of the budget, less than one rank, is not put to use.

    Parameters
    ----------
    spectra : mapping of str to array_like
        Layer name to its singular values, descending.
    weights_per_rank : mapping of str to int
        Layer name to the weights that each rank costs: m + n for a dense layer.
    parameters : int
        The most weights to have in all these layers.

    Returns
    -------
    dict of str to int
        Layer name to rank, from 1 to the length of its spectrum.

    Raises
    ------
    ValueError
        If there is no layer, a layer's cost is missing or below 1, or rank 1 everywhere is too much already.
    """
    if not spectra:
        raise ValueError("spectra is empty: there is no layer to factorize")
    for name in spectra:
        if weights_per_rank.get(name, 0) < 1:
            raise ValueError(f"layer {name!r}: weights_per_rank is {weights_per_rank.get(name)}; give at least 1")
    least = sum(weights_per_rank[name] for name in spectra)
    if parameters < least:
        raise ValueError(f"parameters is {parameters}, but rank 1 in every layer takes {least}; raise the budget")
    offers = []
    for place, (name, spectrum) in enumerate(spectra.items()):
        squares = np.square(_spectrum(spectrum))
        gains = squares / max(squares.sum(), np.finfo(float).tiny) / weights_per_rank[name]
        offers += [(-gain, place, name) for gain in gains[1:].tolist()]
    ranks = dict.fromkeys(spectra, 1)
    rest = parameters - least
    for _, _, name in sorted(offers):
        if weights_per_rank[name] > rest:
            break
        rest -= weights_per_rank[name]
        ranks[name] += 1
    return ranks


def _two_factors(matrix: Matrix, rank: int, name: str) -> tuple[Matrix, Matrix]:
    """Return left (m, r) and right (r, n) factors with the singular values shared evenly between them."""
    _check_rank("rank", rank, min(matrix.shape), name)
    if matrix.shape[0] > matrix.shape[1]:
        right, left = _two_factors(matrix.T, rank, name)
        return left.T, right.T
    u = _leading_vectors(matrix, 0, rank)
    rest = u.T @ matrix  # the singular values times the right singular vectors; many times faster than LAPACK's svd
    root = np.sqrt(np.linalg.norm(rest, axis=1))
    return u * root, rest / np.where(root > 0, root, 1)[:, None]


def _leading_vectors(tensor: Matrix, axis: int, rank: int) -> Matrix:
    """Return the first left singular vectors of a tensor unfolded by an axis, shape (length of the axis, rank)."""
    unfolded = _unfolded(tensor, axis)
    # The vectors of A are those of A·Aᵀ, which is as small as the axis is long.
    _, vectors = np.linalg.eigh(unfolded @ unfolded.T)
    return np.asarray(vectors[:, ::-1][:, :rank])


def _unfolded(tensor: Matrix, axis: int) -> Matrix:
    """Lay a tensor out as a matrix with a row for each place on an axis."""
    return np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)


def _spectrum(values: ArrayLike) -> Matrix:
    """Return singular values as float64, or say why they are none."""
    spectrum = np.asarray(values, dtype=np.float64)
    if spectrum.ndim != 1 or spectrum.size == 0 or not np.all(spectrum >= 0) or np.any(np.diff(spectrum) > 0):
        raise ValueError(
            f"spectrum of shape {spectrum.shape} must be a row of singular values, descending and not negative"
        )
    return spectrum


def _checked(weights: Weights, axes: int, name: str) -> Matrix:
    """Return weights as float64, or say why they cannot be cut."""
    if weights.ndim != axes or weights.size == 0:
        kind = "a matrix (out, in)" if axes == 2 else "filters (out, height, width, in)"
        raise ValueError(f"{of_layer(name)}weights has shape {weights.shape}; give {kind} with at least one weight")
    if not np.all(np.isfinite(weights)):
        raise ValueError(f"{of_layer(name)}weights holds NaN or infinity; look at the network they come from")
    return weights.astype(np.float64)


def _check_rank(parameter: str, rank: int, highest: int, name: str) -> None:
    """Raise if a rank is out of range."""
    if not 1 <= rank <= highest:
        raise ValueError(f"{of_layer(name)}{parameter} is {rank}; choose from 1 to {highest}")
