"""What lesson 08 shows of kernels that skip zeros: a network made for them, and when they are faster."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np

from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.runtime import Latency
from compresskit.litert.sparse import without_zeros
from compresskit.litert.turns import latencies
from compresskit.litert.without_avx import latencies_without_avx
from compresskit.pruning import importance
from compresskit.pruning.patterns import unstructured_mask
from compresskit.zoo import Checkpoint


def sparse_reader() -> Checkpoint:
    """Load the network of `compresskit.training.sparse_reader`, whose 1x1 convolutions are zeros to 90 %."""
    file = resources.files("compresskit").joinpath("models", "sparse_reader.tflite")
    return Checkpoint("sparse_reader", file.read_bytes())


def with_zeros(model: Checkpoint, part: float, *, seed: int = 0) -> bytes:
    """Fill the 1x1 convolutions of a model with random numbers, of which a part is exactly zero.

    For timing only: it matters how many zeros there are, not which.

    Parameters
    ----------
    model
        A float model.
    part
        Part of the weights of each 1x1 convolution that is zero, in [0, 1).
    seed
        Of the random numbers.

    Returns
    -------
    bytes
        A `.tflite` with zeros written out.

    Raises
    ------
    ValueError
        If the part is outside [0, 1).
    """
    found, rng = files.read(model.tflite), np.random.default_rng(seed)
    new = {}
    for site in sites(found):
        shape = files.shape(found.subgraphs[0].tensors[site.weights])
        if site.op == "CONV_2D" and shape[1:3] == (1, 1):
            weights = rng.normal(0, 0.1, shape).astype(np.float32)
            new[site.weights] = weights * unstructured_mask(importance.magnitude(weights), part, name=site.name)
    return files.replace_constants(model.tflite, new)


def times_by_zeros(
    model: Checkpoint, parts: Sequence[float], *, hidden: str | None = None, runs: int = 100
) -> dict[float, tuple[Latency, Latency]]:
    """Time a model with more and more zeros: once written out, and once not stored.

    Parameters
    ----------
    model
        A float model.
    parts
        Parts of its 1x1 convolutions that are zero.
    hidden
        None: as this processor is. "avx" or "simd": see `latencies_without_avx`.
    runs
        Timed runs of each file, by turns, on one thread.

    Returns
    -------
    dict of float to (Latency, Latency)
        For each part, the file with its zeros written out, and the file that does not store them.

    Raises
    ------
    ValueError
        If this computer cannot hide AVX.
    """
    dense = {part: with_zeros(model, part) for part in parts}
    tflites = {f"{part} dense": file for part, file in dense.items()}
    tflites |= {f"{part} sparse": without_zeros(file) for part, file in dense.items()}
    if hidden is None:
        example = np.zeros((1, *model.input_shape), np.float32)
        found = latencies(tflites, example, rounds=-(-runs // 10), runs=10)
    else:
        found = latencies_without_avx(tflites, hidden=hidden, runs=runs)
    return {part: (found[f"{part} dense"], found[f"{part} sparse"]) for part in parts}
