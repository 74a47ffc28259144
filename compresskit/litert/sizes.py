"""How large a file is, four ways: as it lies on a disk, deflated, by its entropy, and in the packed container.

A `.tflite` file stores a zero in as many bits as any other weight, so pruning alone does not make it shorter. The other
three say what is gained once zeros are written more shortly. Three are lengths of real bytes that are read back without
loss; the entropy is an *estimate*, and has to be called so wherever it stands.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compresskit.entropy import Stretch, entropy, pack
from compresskit.litert.model import deflated_size
from compresskit.litert.stretches import stretches


@dataclass(frozen=True)
class Sizes:
    """One file, four sizes in bytes.

    Attributes
    ----------
    tflite : int
        Length of the file.
    deflated : int
        Length after DEFLATE: what a zip archive or a download holds.
    entropy : int
        Estimated: what is not numbers as it is, and the numbers by `entropy_bytes`. No such file is written.
    packed : int
        Length of the packed container (`compresskit.entropy.pack`), which is unpacked to the same file.
    """

    tflite: int
    deflated: int
    entropy: int
    packed: int


@functools.lru_cache(maxsize=64)
def file_sizes(tflite: bytes) -> Sizes:
    """Measure a file in all four ways.

    Parameters
    ----------
    tflite
        The bytes of the file.

    Returns
    -------
    Sizes
    """
    with ThreadPoolExecutor(max_workers=1) as beside:  # zlib lets go of the interpreter, so packing goes on meanwhile
        deflated = beside.submit(deflated_size, tflite)
        packed = len(pack(tflite, stretches(tflite)))
        return Sizes(len(tflite), deflated.result(), estimated_size(tflite), packed)


def estimated_size(tflite: bytes) -> int:
    """Estimate a file's size from the entropy of its numbers.

    Parameters
    ----------
    tflite
        The bytes of the file.

    Returns
    -------
    int
        Bytes: each constant tensor by its entropy, or as it is if that is less; the rest of the file as it is.
    """
    found = stretches(tflite)
    rest = len(tflite) - sum(stretch.size for stretch in found)
    return rest + round(sum(min(entropy_bytes(_numbers(tflite, each)), each.size) for each in found))


def entropy_bytes(numbers: NDArray[np.generic]) -> float:
    """Estimate how many bytes an array takes, from the entropies of what it holds; nothing is written.

    Numbers of one byte: the entropy of their values, ``-Σ p log2 p`` bits each. Wider ones (floats hardly ever repeat,
    so a table of their values would be as long as they are): a flag for each, zero or not, and for those that are not
    zero the entropy of their first bytes, second bytes and so on.

    Parameters
    ----------
    numbers : ndarray, any shape
        Of any type with bytes; those of 1 byte are taken as values.

    Returns
    -------
    float
        Bytes. The tables of how likely each value is are not counted.

    Notes
    -----
    Shannon (1948), *A mathematical theory of communication*.
    """
    flat = np.ascontiguousarray(numbers).reshape(-1)
    if flat.dtype.itemsize == 1:
        return float(flat.size * _bits(flat.view(np.uint8)) / 8)
    kept = flat[flat != 0]
    flags = entropy([kept.size, flat.size - kept.size]) * flat.size
    planes = kept.view(np.uint8).reshape(-1, flat.dtype.itemsize).T
    return float(flags + sum(kept.size * _bits(plane) for plane in planes)) / 8


def _bits(octets: NDArray[np.uint8]) -> float:
    """Entropy of bytes, in bits for each."""
    return float(entropy(np.bincount(octets, minlength=256)))


def _numbers(tflite: bytes, stretch: Stretch) -> NDArray[np.generic]:
    """Read a stretch as numbers of its width; two or four to a byte are taken apart."""
    data = np.frombuffer(tflite, dtype=np.uint8, count=stretch.size, offset=stretch.offset)
    if stretch.bits < 8:
        shifts = np.arange(0, 8, stretch.bits, dtype=np.uint8)
        return ((data[:, None] >> shifts) & np.uint8((1 << stretch.bits) - 1)).reshape(-1)
    return data.view(f"<u{stretch.bits // 8}")
