"""Asymmetric numeral systems: a range coder in whole numbers, the same on every machine.

All symbols so far are one large number x, the *state*. To write a symbol that has f of every 2^16 slots, starting at
slot c, x becomes ``(x // f) · 2^16 + c + x % f``: it grows by log2(2^16 / f) bits, as many as the symbol is worth.
Reading undoes that, last symbol first; so the writer begins at the end. When x would become too large, its low 32 bits
are moved to the stream; when the reader's x becomes too small, it takes them back.

Each symbol has its own *table* of slots, known to writer and reader beforehand. With more than one *lane*, that many
states take turns, which NumPy advances all at once; each lane costs the 8 bytes of its last state.

Duda (2013), *Asymmetric numeral systems*, arXiv:1311.2540; the streaming form follows Giesen (2014), *Interleaved
entropy coders*, arXiv:1402.3392.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Slots: TypeAlias = NDArray[np.uint64]

PRECISION = 16
SLOTS = 1 << PRECISION
LOWEST = 1 << 31
WORD = 32
ROOM = WORD + 31 - PRECISION  # a state below f << ROOM has room for a symbol of f slots


def slots_for(counts: ArrayLike) -> NDArray[np.int64]:
    """Share 2^16 slots out to symbols, at least one to each that occurs.

    Parameters
    ----------
    counts : array_like, shape (K,)
        How often each symbol occurs.

    Returns
    -------
    ndarray of int64, shape (K,)
        Adds up to 2^16; 0 where the count is 0. After rounding, single slots are given or taken where that costs the
        fewest bits.

    Raises
    ------
    ValueError
        If no symbol occurs, more than 2^16 do, or a count is negative.
    """
    amounts = np.asarray(counts, dtype=np.float64)
    present = amounts > 0
    if amounts.ndim != 1 or np.any(amounts < 0) or not 0 < np.count_nonzero(present) <= SLOTS:
        raise ValueError(
            f"counts of shape {amounts.shape} must hold from 1 to {SLOTS} symbols, with counts not negative"
        )
    slots = np.where(present, np.maximum(1, np.rint(amounts / amounts.sum() * SLOTS)), 0.0)
    while slots.sum() < SLOTS:
        gain = np.where(present, amounts * np.log1p(1 / np.maximum(slots, 1)), -np.inf)
        slots[np.argmax(gain)] += 1
    while slots.sum() > SLOTS:
        loss = np.where(slots > 1, -amounts * np.log1p(-1 / np.maximum(slots, 2)), np.inf)
        slots[np.argmin(loss)] -= 1
    return slots.astype(np.int64)


@dataclass(frozen=True)
class Tables:
    """Slots of all tables, one after the other.

    Parameters
    ----------
    slots : ndarray of uint64, shape (sum of K,)
        f of each symbol of each table.
    starts : ndarray of uint64, shape (sum of K,)
        c of each symbol: the slots of those before it in its table.
    begins : ndarray of int64, shape (tables,)
        Where each table's symbols begin in the two rows above.
    """

    slots: Slots
    starts: Slots
    begins: NDArray[np.int64]

    @classmethod
    def of(cls, tables: list[NDArray[np.int64]]) -> Tables:
        """Join tables, each of which adds up to 2^16.

        Parameters
        ----------
        tables : list of ndarray of int64
            Slots of each symbol, table by table (`slots_for`).

        Returns
        -------
        Tables

        Raises
        ------
        ValueError
            If a table does not add up.
        """
        for place, table in enumerate(tables):
            if table.size == 0 or table.min() < 0 or table.sum() != SLOTS:
                raise ValueError(f"tables[{place}] does not add up to {SLOTS} slots")
        sizes = np.array([table.size for table in tables], dtype=np.int64)
        starts = [np.cumsum(table) - table for table in tables]
        return cls(
            np.concatenate([*tables, np.zeros(0)]).astype(np.uint64),
            np.concatenate([*starts, np.zeros(0)]).astype(np.uint64),
            np.cumsum(sizes) - sizes,
        )

    def row_of_slot(self) -> NDArray[np.int32]:
        """Return where in the rows above each slot's symbol stands, 2^16 slots for each table, one after the other."""
        return np.repeat(np.arange(self.slots.size, dtype=np.int32), self.slots.astype(np.int64))


def encode(symbols: NDArray[Any], which: NDArray[Any], tables: Tables, lanes: int = 1) -> bytes:
    """Write symbols.

    Parameters
    ----------
    symbols : ndarray of int, shape (n,)
        Each with at least one slot in its table.
    which : ndarray of int, shape (n,)
        The table of each symbol.
    tables : Tables
        All tables.
    lanes : int, optional
        States that take turns, >= 1. More are faster on long rows and cost 8 bytes each.

    Returns
    -------
    bytes
        The last states, then the words, little-endian.

    Raises
    ------
    ValueError
        If a symbol has no slot.
    """
    places = tables.begins[which] + symbols
    slots, starts = tables.slots[places], tables.starts[places]
    if slots.size and slots.min() == 0:
        raise ValueError(f"symbols holds {symbols[slots.argmin()]}, which has no slot in its table")
    if lanes == 1:
        states, words = _encode_one_lane(slots.tolist(), starts.tolist())
    else:
        states, words = _encode_lanes(slots, starts, lanes)
    return bytes(states.astype("<u8").tobytes() + words.astype("<u4").tobytes())


def decode(stream: bytes, which: NDArray[Any], tables: Tables, lanes: int = 1) -> NDArray[np.uint16]:
    """Read symbols.

    Parameters
    ----------
    stream : bytes
        As `encode` wrote it.
    which : ndarray of int, shape (n,)
        The table of each symbol.
    tables : Tables
        The tables that it was written with.
    lanes : int, optional
        The number that it was written with.

    Returns
    -------
    ndarray of uint16, shape (n,)

    Raises
    ------
    ValueError
        If the stream is too short, too long, or does not end in the states that every writer begins with. An altered
        stream is almost always found out, but not surely: keep a checksum.
    """
    if lanes < 1 or len(stream) < 8 * lanes or (len(stream) - 8 * lanes) % 4:
        raise ValueError(f"stream is {len(stream)} bytes long, which {lanes} states and words cannot be; it is cut off")
    states = np.frombuffer(stream, dtype="<u8", count=lanes).astype(np.uint64)
    words = np.frombuffer(stream, dtype="<u4", offset=8 * lanes).astype(np.uint64)
    if lanes == 1:
        return _decode_one_lane(int(states[0]), words.tolist(), which, tables)
    return _decode_lanes(states, words, which, tables)


def _encode_one_lane(slots: list[int], starts: list[int]) -> tuple[Slots, NDArray[np.uint64]]:
    """Write with one state, in plain Python: NumPy is of no use where each step needs the one before."""
    state, words = LOWEST, []
    for f, c in zip(reversed(slots), reversed(starts), strict=True):
        if state >= f << ROOM:
            words.append(state & 0xFFFFFFFF)
            state >>= WORD
        state = (state // f << PRECISION) + c + state % f
    return np.array([state], dtype=np.uint64), np.array(words[::-1], dtype=np.uint64)


def _decode_one_lane(state: int, words: list[int], which: NDArray[Any], tables: Tables) -> NDArray[np.uint16]:
    """Read with one state."""
    row_of_slot = tables.row_of_slot()
    slots, starts, begins = tables.slots.tolist(), tables.starts.tolist(), tables.begins.tolist()
    symbols = np.empty(which.size, dtype=np.uint16)
    mask, used = SLOTS - 1, 0
    # Rows of one table each: neighbouring symbols nearly always share it.
    edges = [0, *(np.flatnonzero(np.diff(which)) + 1).tolist(), which.size]
    for begin, end in pairwise(edges):
        if begin == end:
            continue
        table = int(which[begin])
        of_slot, first = row_of_slot[table * SLOTS : (table + 1) * SLOTS].tolist(), begins[table]
        found = []
        for _ in range(end - begin):
            slot = state & mask
            row = of_slot[slot]
            found.append(row - first)
            state = slots[row] * (state >> PRECISION) + slot - starts[row]
            if state < LOWEST:
                if used == len(words):
                    raise ValueError("stream ends too early; it is cut off")
                state = state << WORD | words[used]
                used += 1
        symbols[begin:end] = found
    if state != LOWEST or used != len(words):
        raise ValueError("stream does not end where it must; it was altered")
    return symbols


def _encode_lanes(slots: Slots, starts: Slots, lanes: int) -> tuple[Slots, NDArray[np.uint64]]:
    """Write with many states: lane i has the symbols i, i + lanes, i + 2 lanes and so on."""
    states = np.full(lanes, LOWEST, dtype=np.uint64)
    words: list[NDArray[np.uint64]] = []
    for begin in range((max(slots.size, 1) - 1) // lanes * lanes, -1, -lanes):
        f, c = slots[begin : begin + lanes], starts[begin : begin + lanes]
        x = states[: f.size]
        full = x >= f << np.uint64(ROOM)
        words.append(x[full] & np.uint64(0xFFFFFFFF))
        x = np.where(full, x >> np.uint64(WORD), x)
        quotient, remainder = np.divmod(x, f)
        states[: f.size] = (quotient << np.uint64(PRECISION)) + c + remainder
    return states, np.concatenate([*words[::-1], np.zeros(0, dtype=np.uint64)])


def _decode_lanes(states: Slots, words: Slots, which: NDArray[Any], tables: Tables) -> NDArray[np.uint16]:
    """Read with many states; in signed integers, which NumPy need not convert to look something up with them."""
    if states.size and states.max() >= 1 << 63:
        raise ValueError("stream holds a state that no writer leaves; it was altered")
    row_of_slot, slots, starts = tables.row_of_slot(), tables.slots.astype(np.int64), tables.starts.astype(np.int64)
    x, incoming = states.astype(np.int64), words.astype(np.int64)
    first = which.astype(np.int64) << PRECISION
    rows = np.empty(which.size, dtype=np.int32)
    lanes, used = states.size, 0
    for begin in range(0, which.size, lanes):
        offset = first[begin : begin + lanes]
        state = x[: offset.size]
        slot = state & (SLOTS - 1)
        row = row_of_slot[offset + slot]
        rows[begin : begin + lanes] = row
        state >>= PRECISION
        state *= slots[row]
        state += slot - starts[row]
        low = (state < LOWEST).nonzero()[0]
        if used + low.size > words.size:
            raise ValueError("stream ends too early; it is cut off")
        state[low] = state[low] << WORD | incoming[used : used + low.size]
        used += low.size
    if np.any(x != LOWEST) or used != words.size:
        raise ValueError("stream does not end where it must; it was altered")
    symbols: NDArray[np.uint16] = (rows - tables.begins[which]).astype(np.uint16)
    return symbols
