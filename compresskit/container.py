"""The packed container: a file with its numbers coded in as few bits as they take, to be read back byte for byte.

`pack` is told where in the file numbers lie (a weight matrix, say) and cuts these *stretches* out. The rest, the
*skeleton*, is deflated with a dictionary: what some of the course's `.tflite` files hold besides numbers, so that such
files take some 500 bytes less. A stretch is written in one of two ways, whichever is shorter, or stays in the skeleton:

- *book*: a codebook of its distinct values, then a symbol for each number. If it is a matrix, rows and columns that
  hold nothing but the commonest value (after pruning: neurons without inputs, inputs nobody reads) are left out first.
- *planes*: a flag for each number, whether it is the commonest value; then first bytes, second bytes and so on of the
  others, which suits floats that were not quantized.

All symbols of all stretches go into one stream of `rans`, each with the slots that its table gives it.

Layout (integers little-endian; *v* is a variable-length integer, 7 bits a byte, low bits first)::

    "CKP" | version: 1 byte | crc32 of all that follows, begun with version - 1: 4 bytes
    length of the file: v | first 8 bytes of its sha256
    length of the header: v | length of the deflated header: v | deflated header
    lanes: v, 0 if there are no symbols | states and words of the stream

The version says which dictionary: 1, of files as the converter makes them; 2, of files that `litert.slim` made. The
writer takes the one that makes the container shorter.

Whatever does not check is an error: an altered container never becomes another file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compresskit import rans

Numbers: TypeAlias = NDArray[np.unsignedinteger[Any]]
Slots: TypeAlias = NDArray[np.int64]

MAGIC = b"CKP"
VERSIONS = (1, 2)
WIDTHS = (2, 4, 8, 16, 32, 64)
LARGEST_BOOK = 4096
MOST_TABLES = 256
# A container may claim to unpack to this many bytes, or to this many times its own length, before it is refused.
ALWAYS_ALLOWED = 4_000_000
MOST_TIMES = 1000

_BOOK, _PLANES = 0, 1


@dataclass(frozen=True)
class Stretch:
    """Where numbers of one kind lie in a file.

    Parameters
    ----------
    offset, size : int
        First byte, and number of bytes.
    bits : {2, 4, 8, 16, 32, 64}
        Bits of a number; smaller ones are packed low bits first. The size is a whole number of numbers.
    columns : int, optional
        Numbers in a row, if they form a matrix; 0 if not.
    """

    offset: int
    size: int
    bits: int
    columns: int = 0


def pack(file: bytes, stretches: Iterable[Stretch] = ()) -> bytes:
    """Write a container.

    Parameters
    ----------
    file : bytes
        Any file.
    stretches : iterable of Stretch, optional
        Where it holds numbers worth coding, in any order, without overlap. Without any, it is only deflated.

    Returns
    -------
    bytes
        The container. It has been unpacked and compared before it is returned.

    Raises
    ------
    ValueError
        If a stretch lies outside the file, overlaps another or has a width that is none; or if the file shrinks more
        than 1000 times, so that no reader would believe it.
    """
    skeleton, coded = [], []
    position = tables = 0
    for stretch in _in_order(file, stretches):
        part = _shortest(_numbers(file, stretch), stretch)
        if part is None or tables + len(part.slots) > MOST_TABLES:
            continue
        skeleton.append(file[position : stretch.offset])
        coded.append((len(skeleton[-1]), stretch, part))
        position, tables = stretch.offset + stretch.size, tables + len(part.slots)
    skeleton.append(file[position:])

    header = bytearray(_varint(len(coded)))
    for gap, stretch, part in coded:
        header += _varint(gap) + _varint(stretch.size) + bytes([WIDTHS.index(stretch.bits), part.kind]) + part.header
    header += b"".join(skeleton)
    version, deflated = min(
        ((version, _deflated(bytes(header), version)) for version in VERSIONS), key=lambda written: len(written[1])
    )
    body = _varint(len(file)) + hashlib.sha256(file).digest()[:8]
    body += _varint(len(header)) + _varint(len(deflated)) + deflated
    body += _stream([part for _, _, part in coded])
    packed = MAGIC + bytes([version]) + struct.pack("<I", _checksum(body, version)) + body
    if len(file) > _allowed(len(packed)):
        raise ValueError(
            f"file of {len(file):,} bytes packs to {len(packed):,}; a container unpacks to at most {MOST_TIMES} times "
            "its own length, so that a forged one cannot fill the memory: is the file anything but zeros?"
        )
    if unpack(packed) != file:
        raise AssertionError("the container does not unpack to the file that was packed: this is a bug in compresskit")
    return packed


def unpack(packed: bytes) -> bytes:
    """Read a container.

    Parameters
    ----------
    packed : bytes
        As `pack` wrote it.

    Returns
    -------
    bytes
        The file, byte for byte.

    Raises
    ------
    ValueError
        If it is no container, is of a later version, was cut off or altered, or claims an absurd size.
    """
    if len(packed) < 8 or packed[:3] != MAGIC:
        raise ValueError("these bytes do not begin as a packed container does; give what pack returned")
    version = packed[3]
    if version not in VERSIONS:
        raise ValueError(
            f"this container is of version {version}; this compresskit reads versions {VERSIONS[0]} to {VERSIONS[-1]}: "
            "update compresskit"
        )
    if _checksum(packed[8:], version) != struct.unpack("<I", packed[4:8])[0]:
        raise ValueError("the container's checksum does not fit: it was cut off or altered; get it again")
    reader = _Reader(packed, 8)
    length = reader.varint()
    if length > _allowed(len(packed)):
        raise ValueError(f"the container of {len(packed):,} bytes claims to hold {length:,}; that is not believable")
    digest = reader.take(8)
    header = _Reader(_inflated(reader, 2 * length + 65_536, version), 0)
    file = _assembled(header, reader, length)
    if len(file) != length or hashlib.sha256(file).digest()[:8] != digest:
        raise ValueError("the container does not hold the file that it says it holds; it was altered")
    return file


@dataclass(frozen=True)
class _Part:
    """A stretch as it will be written: its header, and symbols with the slots of each table that they need."""

    kind: int
    header: bytes
    symbols: list[NDArray[Any]]
    slots: list[Slots]

    @property
    def estimated_bytes(self) -> float:
        """Header and entropy of the symbols."""
        bits = 0.0
        for symbols in self.symbols:
            counts = np.bincount(symbols)
            counts = counts[counts > 0]
            bits += float(-(counts * np.log2(counts / symbols.size)).sum())
        return len(self.header) + bits / 8


def _in_order(file: bytes, stretches: Iterable[Stretch]) -> list[Stretch]:
    """Sort stretches by place, and refuse those that cannot be."""
    ordered = sorted(stretches, key=lambda stretch: stretch.offset)
    position = 0
    for stretch in ordered:
        if stretch.bits not in WIDTHS or stretch.size < 0 or stretch.size * 8 % stretch.bits:
            raise ValueError(f"{stretch}: choose bits from {WIDTHS}, and a whole number of numbers")
        if stretch.offset < position or stretch.offset + stretch.size > len(file):
            raise ValueError(f"{stretch} overlaps another stretch, or the end of the file of {len(file)} bytes")
        position = stretch.offset + stretch.size
    return ordered


def _numbers(file: bytes, stretch: Stretch) -> Numbers:
    """Read the numbers of a stretch as unsigned integers, whatever they mean."""
    data = np.frombuffer(file, dtype=np.uint8, count=stretch.size, offset=stretch.offset)
    if stretch.bits >= 8:
        return data.view(f"<u{stretch.bits // 8}")
    shifts = np.arange(0, 8, stretch.bits, dtype=np.uint8)
    return ((data[:, None] >> shifts) & np.uint8((1 << stretch.bits) - 1)).reshape(-1)


def _bytes_of(numbers: Numbers, bits: int) -> bytes:
    """Undo `_numbers`."""
    if bits >= 8:
        return bytes(numbers.astype(f"<u{bits // 8}").tobytes())
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return bytes(np.bitwise_or.reduce(numbers.astype(np.uint8).reshape(-1, 8 // bits) << shifts, axis=1).tobytes())


def _shortest(numbers: Numbers, stretch: Stretch) -> _Part | None:
    """Return the best way to write a stretch, or ``None`` if it is best left where it is."""
    if numbers.size == 0:
        return None
    values, symbols, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ways = []
    if values.size <= LARGEST_BOOK:
        ways.append(_book(values, symbols.reshape(-1), counts, stretch, cut=False))
        if stretch.columns > 0 and numbers.size % stretch.columns == 0:
            ways.append(_book(values, symbols.reshape(-1), counts, stretch, cut=True))
    if stretch.bits >= 16:
        ways.append(_planes(numbers, values[np.argmax(counts)], stretch.bits))
    best = min(ways, key=lambda part: part.estimated_bytes, default=None)
    # Half a dozen bytes say where a stretch is.
    return best if best is not None and best.estimated_bytes + 6 < stretch.size else None


def _book(values: Numbers, symbols: NDArray[np.intp], counts: Slots, stretch: Stretch, *, cut: bool) -> _Part:
    """Write codebook and symbols; ``cut`` leaves out rows and columns of nothing but the commonest value."""
    header = bytearray(_varint(values.size))
    if stretch.bits >= 16:
        header += _bytes_of(values, stretch.bits)
    else:
        header += b"".join(map(_varint, np.diff(values.astype(np.int64), prepend=0).tolist()))
    if cut:
        common = int(np.argmax(counts))
        matrix = symbols.reshape(-1, stretch.columns)
        rows, columns = (matrix != common).any(axis=1), (matrix != common).any(axis=0)
        header += _varint(stretch.columns) + _varint(common)
        header += np.packbits(rows).tobytes() + np.packbits(columns).tobytes()
        symbols = matrix[np.ix_(rows, columns)].reshape(-1)
    else:
        header += _varint(0)
    if symbols.size == 0:
        return _Part(_BOOK, bytes(header), [], [])
    slots = rans.slots_for(np.bincount(symbols, minlength=values.size))
    return _Part(_BOOK, bytes(header) + _table(slots), [symbols], [slots])


def _planes(numbers: Numbers, common: np.unsignedinteger[Any], bits: int) -> _Part:
    """Write flags, and the bytes of the numbers that are not the commonest."""
    flags = (numbers != common).astype(np.uint8)
    others = numbers[flags.astype(bool)]
    planes = others.astype(f"<u{bits // 8}").view(np.uint8).reshape(-1, bits // 8)
    symbols: list[NDArray[Any]] = [flags, *(np.ascontiguousarray(plane) for plane in planes.T if plane.size)]
    slots = [
        rans.slots_for(np.bincount(row, minlength=size)) for row, size in zip(symbols, (2, *[256] * 8), strict=False)
    ]
    header = _bytes_of(np.array([common]), bits) + _varint(others.size) + b"".join(map(_table, slots))
    return _Part(_PLANES, header, symbols, slots)


def _table(slots: Slots) -> bytes:
    """Write a table: slots of each symbol."""
    return b"".join(map(_varint, slots.tolist()))


def _stream(parts: Sequence[_Part]) -> bytes:
    """Write the symbols of all parts."""
    rows = [row for part in parts for row in part.symbols]
    if not rows:
        return _varint(0)
    tables = rans.Tables.of([slots for part in parts for slots in part.slots])
    symbols = np.concatenate([row.astype(np.int64) for row in rows])
    # Each lane takes 8 bytes; so many that they add 0.3 %, unless that is too few to be faster than one.
    expected = sum(part.estimated_bytes for part in parts)
    lanes = min(512, int(expected * 0.003 / 8))
    lanes = lanes if lanes >= 48 else 1
    return _varint(lanes) + rans.encode(symbols, _which([row.size for row in rows]), tables, lanes)


def _which(counts: list[int]) -> NDArray[np.uint8]:
    """Return the table of each symbol: each table has its symbols in a row."""
    return np.repeat(np.arange(len(counts), dtype=np.uint8), counts)


@dataclass(frozen=True)
class _Pending:
    """A stretch whose header has been read and whose symbols have not."""

    gap: int
    bits: int
    counts: list[int]
    slots: list[Slots]
    rebuild: Callable[[list[Numbers]], Numbers]


def _assembled(header: _Reader, reader: _Reader, length: int) -> bytes:
    """Read what the header says of all stretches, then their symbols, and set them into the skeleton."""
    pending: list[_Pending] = []
    room = length
    for _ in range(header.varint(most=length)):
        gap, size = header.varint(most=room), header.varint(most=room)
        room -= gap + size
        width, kind = header.take(2)
        if width >= len(WIDTHS) or kind not in (_BOOK, _PLANES) or size * 8 % WIDTHS[width]:
            raise _altered()
        read = _read_book if kind == _BOOK else _read_planes
        pending.append(_Pending(gap, WIDTHS[width], *read(header, size * 8 // WIDTHS[width], WIDTHS[width])))
    rows = _read_symbols(reader, pending)
    pieces = []
    for part in pending:
        own = [rows.pop() for _ in part.counts]
        pieces += [header.take(part.gap), _bytes_of(part.rebuild(own), part.bits)]
    return b"".join([*pieces, header.rest()])


def _read_symbols(reader: _Reader, pending: list[_Pending]) -> list[Numbers]:
    """Read the stream and return the symbols of each table, the first table's last, to be popped."""
    lanes = reader.varint()
    counts = [count for part in pending for count in part.counts]
    stream = reader.rest()
    if not counts:
        if lanes or stream:
            raise _altered()
        return []
    if len(counts) > MOST_TABLES:
        raise _altered()
    tables = rans.Tables.of([slots for part in pending for slots in part.slots])
    symbols = rans.decode(stream, _which(counts), tables, lanes)
    return list(np.split(symbols, np.cumsum(counts)[:-1]))[::-1]


def _read_book(header: _Reader, total: int, bits: int) -> tuple[list[int], list[Slots], Callable[..., Numbers]]:
    """Undo `_book`: how many symbols, their slots, and how numbers are made of them."""
    size = header.varint(most=LARGEST_BOOK)
    if bits >= 16:
        values = _numbers(header.take(size * bits // 8), Stretch(0, size * bits // 8, bits))
    else:
        values = np.cumsum([header.varint(most=255) for _ in range(size)]).astype(np.uint8)
    columns = header.varint(most=total)
    if not columns:
        return [total], [_read_table(header, size)], lambda rows: values[rows[0]]
    common = header.varint(most=size - 1)
    if total % columns:
        raise _altered()
    kept_rows, kept_columns = (_read_bits(header, n) for n in (total // columns, columns))
    places = np.full((total // columns, columns), common, dtype=np.uint16)
    inside = np.ix_(kept_rows, kept_columns)
    count = int(np.count_nonzero(kept_rows) * np.count_nonzero(kept_columns))

    def rebuild(rows: list[Numbers]) -> Numbers:
        if rows:
            places[inside] = rows[0].reshape(np.count_nonzero(kept_rows), -1)
        return np.asarray(values[places.reshape(-1)])

    return ([count], [_read_table(header, size)], rebuild) if count else ([], [], rebuild)


def _read_planes(header: _Reader, total: int, bits: int) -> tuple[list[int], list[Slots], Callable[..., Numbers]]:
    """Undo `_planes`: how many symbols, their slots, and how numbers are made of them."""
    if bits < 16:
        raise _altered()
    common = _numbers(header.take(bits // 8), Stretch(0, bits // 8, bits))[0]
    others = header.varint(most=total)
    planes = bits // 8 if others else 0

    def rebuild(rows: list[Numbers]) -> Numbers:
        numbers = np.full(total, common)
        chosen = rows[0] > 0
        if np.count_nonzero(chosen) != others:
            raise _altered()
        if others:
            octets = np.stack([row.astype(np.uint8) for row in rows[1:]], axis=1)
            numbers[chosen] = octets.view(numbers.dtype).reshape(-1)
        return numbers

    slots = [_read_table(header, size) for size in (2, *[256] * planes)]
    return [total, *[others] * planes], slots, rebuild


def _read_table(header: _Reader, size: int) -> Slots:
    """Undo `_table`."""
    slots = np.array([header.varint(most=rans.SLOTS) for _ in range(size)], dtype=np.int64)
    if slots.sum() != rans.SLOTS:
        raise _altered()
    return slots


def _read_bits(header: _Reader, count: int) -> NDArray[np.bool_]:
    """Read so many bits, and the rest of their last byte."""
    octets = np.frombuffer(header.take((count + 7) // 8), dtype=np.uint8)
    return np.unpackbits(octets, count=count).astype(bool)


class _Reader:
    """Bytes that are taken one piece after the other, and never beyond their end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = memoryview(data)
        self._position = position

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > len(self._data) - self._position:
            raise ValueError("the container ends in the middle of its contents; it was cut off or altered")
        self._position += count
        return bytes(self._data[self._position - count : self._position])

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.take(len(self._data) - self._position)

    def varint(self, most: int = 2**63) -> int:
        """Return the next variable-length integer, which may not be above ``most``."""
        value = 0
        for shift in range(0, 70, 7):
            octet = self.take(1)[0]
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value > most:
                    raise _altered()
                return value
        raise _altered()


def _varint(value: int) -> bytes:
    """Write a variable-length integer: 7 bits a byte, the low ones first, the high bit set on all but the last."""
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _deflated(header: bytes, version: int) -> bytes:
    """Deflate with a version's dictionary."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _dictionary(version))
    return compressor.compress(header) + compressor.flush()


def _inflated(reader: _Reader, most: int, version: int) -> bytes:
    """Undo `_deflated`, for no more bytes than are stated, and these no more than allowed."""
    length, deflated = reader.varint(most=most), reader.take(reader.varint())
    decompressor = zlib.decompressobj(-15, zdict=_dictionary(version))
    try:
        header = decompressor.decompress(deflated, length + 1)
    except zlib.error as broken:
        raise _altered() from broken
    if len(header) != length or not decompressor.eof or decompressor.unused_data:
        raise _altered()
    return header


@functools.cache
def _dictionary(version: int) -> bytes:
    """Bytes that skeletons have in common: part of the format, never to be changed within a version."""
    return (importlib.resources.files("compresskit") / f"container_v{version}.dictionary").read_bytes()


def _checksum(body: bytes, version: int) -> int:
    """Return the crc32; another version begins with another number, so that an altered version is found out too."""
    return zlib.crc32(body, version - 1)


def _allowed(packed: int) -> int:
    """Most bytes that a container of this length may unpack to."""
    return max(ALWAYS_ALLOWED, MOST_TIMES * packed)


def _altered() -> ValueError:
    """Say that what was read makes no sense."""
    return ValueError("the container's contents contradict each other; it was altered")
