"""Fewer bits for likelier numbers: entropy, Huffman codes, gaps between weights, a range coder.

Symbols are whole numbers 0..K-1, such as the codes of `sharing.Shared`, and counts say how often each of them occurs.
What the encoders here return is the bare stream; who decodes it must know the counts or code lengths and the number of
symbols, and these take bytes as well. A file with all that in it is the packed container: `pack` and `unpack`, from
`container`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compresskit.container import Stretch, pack, unpack

__all__ = [
    "Gaps",
    "Stretch",
    "canonical_codes",
    "count_symbols",
    "entropy",
    "gap_decode",
    "gap_encode",
    "huffman_decode",
    "huffman_encode",
    "huffman_lengths",
    "pack",
    "range_decode",
    "range_encode",
    "unpack",
]

Symbols: TypeAlias = NDArray[np.integer[Any]]
Counts: TypeAlias = NDArray[np.int64]
Lengths: TypeAlias = NDArray[np.uint8]

LONGEST_CODE = 56


def count_symbols(symbols: Symbols, levels: int | None = None) -> Counts:
    """Count how often each symbol occurs.

    Parameters
    ----------
    symbols : ndarray of int, any shape
        Not negative.
    levels : int, optional
        K, the number of different symbols there could be; by default the largest plus one.

    Returns
    -------
    ndarray of int64, shape (K,)

    Raises
    ------
    ValueError
        If a symbol is negative, not whole, or not below ``levels``.
    """
    flat = symbols.reshape(-1)
    if not np.issubdtype(flat.dtype, np.integer):
        raise ValueError(f"symbols has dtype {flat.dtype}; give whole numbers, such as the codes of a codebook")
    if flat.size and flat.min() < 0:
        raise ValueError(f"symbols holds {flat.min()}; count from 0")
    if levels is not None and flat.size and flat.max() >= levels:
        raise ValueError(f"symbols holds {flat.max()}; with {levels} levels, use 0 to {levels - 1}")
    return np.bincount(flat.astype(np.int64), minlength=levels or 0)


def entropy(counts: ArrayLike) -> float:
    """Return the fewest bits that a symbol takes on average, if each is coded on its own: ``-Σ p log2 p``.

    Parameters
    ----------
    counts : array_like, shape (K,)
        How often each symbol occurs; not negative.

    Returns
    -------
    float
        Bits for each symbol; 0 if there is only one kind, or nothing at all.

    Raises
    ------
    ValueError
        If a count is negative or not finite.

    Notes
    -----
    Shannon (1948), *A mathematical theory of communication*.
    """
    present = _checked_counts(counts)
    present = present[present > 0]
    if present.size < 2:
        return 0.0
    p = present / present.sum()
    return float(-(p * np.log2(p)).sum())


def huffman_lengths(counts: ArrayLike) -> Lengths:
    """Return how many bits each symbol gets in a Huffman code.

    The two rarest symbols become the two branches of a new one, as likely as both; again, until one is left. Each
    branch is a bit. No other code that gives every symbol whole bits is shorter in total.

    Parameters
    ----------
    counts : array_like, shape (K,)
        How often each symbol occurs; not negative.

    Returns
    -------
    ndarray of uint8, shape (K,)
        0 for a symbol that does not occur. If only one kind occurs, it gets 1 bit.

    Raises
    ------
    ValueError
        If a count is negative or not finite.

    Notes
    -----
    Huffman (1952), *A method for the construction of minimum-redundancy codes*.
    """
    amounts = _checked_counts(counts)
    lengths = np.zeros(amounts.size, dtype=np.uint8)
    # (count, tie-breaker, symbols below): equal counts are joined in the order in which they came.
    heap = [(amounts[s].item(), int(s), [int(s)]) for s in np.flatnonzero(amounts)]
    if len(heap) == 1:
        lengths[heap[0][2]] = 1
    heapq.heapify(heap)
    newest = amounts.size
    while len(heap) > 1:
        one_count, _, one = heapq.heappop(heap)
        other_count, _, other = heapq.heappop(heap)
        lengths[one + other] += 1
        heapq.heappush(heap, (one_count + other_count, newest, one + other))
        newest += 1
    return lengths


def canonical_codes(lengths: Lengths) -> NDArray[np.uint64]:
    """Return the code words for given lengths: counting upwards, short ones first, ties by symbol.

    All codes of the same lengths are equally good. This one is known from the lengths alone, so nothing else has to be
    stored.

    Parameters
    ----------
    lengths : ndarray of uint8, shape (K,)
        Bits of each symbol's code word, 0 for a symbol that has none.

    Returns
    -------
    ndarray of uint64, shape (K,)
        The word of a symbol is the last ``lengths[s]`` bits.

    Raises
    ------
    ValueError
        If no code has such lengths (Kraft, 1949), or one is above 56 bits.
    """
    codes = np.zeros(lengths.size, dtype=np.uint64)
    if lengths.size and lengths.max() > LONGEST_CODE:
        raise ValueError(
            f"lengths holds {lengths.max()}; code words of more than {LONGEST_CODE} bits are not supported"
        )
    word, length = 0, 0
    for symbol in np.lexsort((np.arange(lengths.size), lengths)):
        if lengths[symbol] == 0:
            continue
        word <<= int(lengths[symbol]) - length
        length = int(lengths[symbol])
        if word >> length:
            raise ValueError("lengths are too short for so many symbols: no code has them; were they altered?")
        codes[symbol] = word
        word += 1
    return codes


def huffman_encode(symbols: Symbols, lengths: Lengths) -> bytes:
    """Write the code words of symbols one after the other.

    Parameters
    ----------
    symbols : ndarray of int, any shape
        Each with a code word.
    lengths : ndarray of uint8, shape (K,)
        Bits of each symbol's code word (`huffman_lengths`).

    Returns
    -------
    bytes
        The first bit is the highest of the first byte; the last byte is filled up with zeros.

    Raises
    ------
    ValueError
        If a symbol has no code word, or no code has such lengths.
    """
    count_symbols(symbols, lengths.size)
    flat = symbols.reshape(-1)
    words, widths = canonical_codes(lengths)[flat], lengths[flat].astype(np.int64)
    if flat.size and widths.min() == 0:
        raise ValueError(f"symbols holds {flat[widths.argmin()]}, which has no code word; count the symbols that occur")
    begins = np.cumsum(widths) - widths
    bits = np.zeros(int(widths.sum()), dtype=np.uint8)
    for place in range(int(widths.max(initial=0))):
        long_enough = widths > place
        shift = (widths[long_enough] - 1 - place).astype(np.uint64)
        bits[begins[long_enough] + place] = (words[long_enough] >> shift) & np.uint64(1)
    return np.packbits(bits).tobytes()


def huffman_decode(stream: bytes, lengths: Lengths, count: int) -> NDArray[np.int64]:
    """Read code words until there are so many symbols.

    Parameters
    ----------
    stream : bytes
        As `huffman_encode` wrote it.
    lengths : ndarray of uint8, shape (K,)
        The lengths that it was written with.
    count : int
        Number of symbols.

    Returns
    -------
    ndarray of int64, shape (count,)

    Raises
    ------
    ValueError
        If the stream ends too early, has bytes to spare, or holds bits that are no code word.
    """
    words = canonical_codes(lengths)
    table = {(int(lengths[s]), int(words[s])): int(s) for s in np.flatnonzero(lengths)}
    longest = int(lengths.max(initial=0))
    symbols = np.empty(min(count, 8 * len(stream)), dtype=np.int64)
    found, word, length = 0, 0, 0
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8)).tolist()
    used = 0
    while found < count:
        if used == len(bits):
            raise ValueError(f"stream ends after {found} of {count} symbols; it is cut off")
        word, length, used = (word << 1) | bits[used], length + 1, used + 1
        if (length, word) in table:
            symbols[found] = table[length, word]
            found, word, length = found + 1, 0, 0
        elif length >= longest:
            raise ValueError(
                f"stream holds bits that are no code word after {found} of {count} symbols; it was altered"
            )
    if (used + 7) // 8 != len(stream):
        raise ValueError(f"stream is {len(stream)} bytes long, but {count} symbols end in byte {(used + 7) // 8}")
    return symbols


@dataclass(frozen=True)
class Gaps:
    """A sparse row as the distances between what is not zero.

    Parameters
    ----------
    gaps : ndarray of int64, shape (entries,)
        Zeros skipped before each entry, from 0 to ``2 ** bits - 1``.
    values : ndarray, shape (entries,)
        The entries. Where a gap is too long for its bits, it is broken by entries that are 0 themselves.
    size : int
        Length of the row.
    """

    gaps: NDArray[np.int64]
    values: NDArray[Any]
    size: int


def gap_encode(row: NDArray[Any], bits: int) -> Gaps:
    """Write a sparse row as gaps and values.

    Parameters
    ----------
    row : ndarray, any shape
        Read in C order.
    bits : int
        Bits that a gap may take, from 1 to 32. Few bits break long gaps with zeros, many are spent on every short one.

    Returns
    -------
    Gaps

    Raises
    ------
    ValueError
        If the bits are out of range.

    Notes
    -----
    Han, Mao and Dally (2015), *Deep compression*, arXiv:1510.00149, figure 2: 8 bits for convolutions, 5 for dense
    layers.
    """
    if not 1 <= bits <= 32:
        raise ValueError(f"bits is {bits}; choose from 1 to 32 (5 and 8 are the paper's)")
    flat = row.reshape(-1)
    places = np.flatnonzero(flat)
    skipped = np.diff(places, prepend=-1) - 1
    # A filler takes up 2**bits places: the most zeros that can be skipped, and itself.
    fillers, rest = np.divmod(skipped, 1 << bits)
    last = np.cumsum(fillers + 1) - 1
    gaps = np.full(int((fillers + 1).sum()), (1 << bits) - 1, dtype=np.int64)
    values = np.zeros(gaps.size, dtype=flat.dtype)
    gaps[last], values[last] = rest, flat[places]
    return Gaps(gaps, values, flat.size)


def gap_decode(coded: Gaps) -> NDArray[Any]:
    """Return the row that gaps and values stand for.

    Parameters
    ----------
    coded : Gaps
        As `gap_encode` wrote it.

    Returns
    -------
    ndarray, shape (size,), dtype of the values

    Raises
    ------
    ValueError
        If gaps and values differ in number, a gap is negative, or an entry would stand behind the end.
    """
    if coded.gaps.shape != coded.values.shape or coded.gaps.ndim != 1:
        raise ValueError(
            f"gaps has shape {coded.gaps.shape} and values {coded.values.shape}; give a gap for each value"
        )
    if coded.gaps.size and (coded.gaps.min() < 0 or coded.gaps.max() >= coded.size):
        raise ValueError(
            f"gaps holds {coded.gaps.min()} to {coded.gaps.max()} for a row of {coded.size}; it was altered"
        )
    places = np.cumsum(coded.gaps + 1) - 1
    if places.size and places[-1] >= coded.size:
        raise ValueError(f"gaps lead to place {places[-1]} of a row of {coded.size}; it was altered")
    row = np.zeros(coded.size, dtype=coded.values.dtype)
    row[places] = coded.values
    return row


def range_encode(symbols: Symbols, counts: ArrayLike) -> bytes:
    """Write symbols with a range coder: a symbol takes -log2 p bits, also where that is no whole number.

    Parameters
    ----------
    symbols : ndarray of int, any shape
        Each with a count above 0.
    counts : array_like, shape (K,)
        How often each symbol occurs, or any other weights that the decoder knows as well.

    Returns
    -------
    bytes
        A whole number of 4-byte words, little-endian; empty if there is only one kind of symbol.

    Raises
    ------
    ValueError
        If a symbol has no count.
    ImportError
        On Linux with an Arm processor, for which the coder's package is not made.

    Notes
    -----
    Martin (1979), *Range encoding*; Bamler (2022), *constriction*, arXiv:2201.01741, does the work.
    """
    amounts = _checked_counts(counts)
    flat = symbols.reshape(-1)
    seen = count_symbols(flat, amounts.size)
    without = np.flatnonzero((seen > 0) & (amounts == 0))
    if without.size:
        raise ValueError(f"symbols holds {without[0]}, which counts say does not occur")
    present = np.flatnonzero(amounts)
    if present.size < 2 or flat.size == 0:
        return b""
    queue, model = _range_coder(amounts[present])
    encoder = queue.RangeEncoder()
    encoder.encode(np.searchsorted(present, flat).astype(np.int32), model)
    return bytes(encoder.get_compressed().astype("<u4").tobytes())


def range_decode(stream: bytes, counts: ArrayLike, count: int) -> NDArray[np.int64]:
    """Read symbols that a range coder wrote.

    Parameters
    ----------
    stream : bytes
        As `range_encode` wrote it.
    counts : array_like, shape (K,)
        The counts that it was written with.
    count : int
        Number of symbols.

    Returns
    -------
    ndarray of int64, shape (count,)

    Raises
    ------
    ValueError
        If the stream is seen to be altered. Most alterations give other symbols and are not seen: keep a checksum.
    ImportError
        On Linux with an Arm processor, for which the coder's package is not made.
    """
    amounts = _checked_counts(counts)
    present = np.flatnonzero(amounts)
    if count == 0:
        return np.empty(0, dtype=np.int64)
    if present.size == 0:
        raise ValueError(f"counts are all 0, so there cannot be {count} symbols")
    if present.size == 1:
        return np.full(count, present[0], dtype=np.int64)
    if len(stream) % 4:
        raise ValueError(f"stream is {len(stream)} bytes long; it is made of words of 4 bytes, so it is cut off")
    queue, model = _range_coder(amounts[present])
    decoder = queue.RangeDecoder(np.frombuffer(stream, dtype="<u4").astype(np.uint32))
    try:
        places = decoder.decode(model, count)
    except AssertionError as invalid:
        raise ValueError("stream is not what these counts can decode; it was altered") from invalid
    return np.asarray(present[places], dtype=np.int64)


def _range_coder(counts: NDArray[Any]) -> tuple[Any, Any]:
    """Load the coder and give it the counts as its model."""
    try:
        from constriction import stream
    except ImportError as missing:
        raise ImportError(
            "the range coder is the package constriction, which is not installed; there is none for Linux on Arm: "
            "use Huffman codes there"
        ) from missing
    return stream.queue, stream.model.Categorical(counts.astype(np.float64), perfect=False)


def _checked_counts(counts: ArrayLike) -> NDArray[Any]:
    """Return counts as an array, or say why they are none."""
    amounts = np.asarray(counts)
    if amounts.ndim != 1 or not np.all(np.isfinite(amounts)) or np.any(amounts < 0):
        raise ValueError(f"counts of shape {amounts.shape} must be a row of numbers, finite and not negative")
    return amounts
