"""The IDX format, in which MNIST and its relatives are published.

    byte 0, 1      0
    byte 2         the type of the numbers: 0x08 uint8, 0x09 int8, 0x0B int16, 0x0C int32, 0x0D float32, 0x0E float64
    byte 3         the number of dimensions, d
    byte 4 ...     d sizes, each a big-endian unsigned 32-bit number
    then           the numbers, big-endian, last dimension fastest, and nothing after them

So `00 00 08 03  00 00 EA 60  00 00 00 1C  00 00 00 1C` begins 60,000 images of 28x28 bytes. Files may be gzipped.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", file formats.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 8
_MOST_BYTES = 2**31  # ten times the largest relative of MNIST; a gzip bomb stops here
_CHUNK = 2**20


class IdxError(ValueError):
    """A file that is not the IDX file it should be.

    Parameters
    ----------
    path : Path
        The file.
    offset : int
        The byte at which it goes wrong, counted from 0; in a gzipped file, of the unpacked contents.
    problem : str
        What is wrong there, and what to do.
    """

    def __init__(self, path: Path, offset: int, problem: str) -> None:
        super().__init__(f"{path}, byte {offset}: {problem}")
        self.path, self.offset, self.problem = path, offset, problem


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read one IDX file, gzipped or not (its first bytes tell, not its name).

    Parameters
    ----------
    path : path

    Returns
    -------
    ndarray
        Of the type and shape that the header names, in this machine's byte order.

    Raises
    ------
    IdxError
        When the header is no IDX header, or the file is shorter or longer than its header says, or is damaged gzip;
        the message names the file and the byte.
    OSError
        When the file cannot be opened or read.
    """
    path = Path(path)
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not gzipped:
            return _read(path, file)
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            return _read(path, cast(IO[bytes], unpacked))


def write_idx(path: str | os.PathLike[str], array: Array) -> None:
    """Write one IDX file, gzipped when its name ends in `.gz`; what `read_idx` reads back.

    Parameters
    ----------
    path : path
    array : ndarray
        Of one of the six types that IDX knows, 1 to 8 dimensions.

    Raises
    ------
    ValueError
        For an array of another type or with other dimensions.
    """
    codes = [code for code, name in _TYPES.items() if np.dtype(name) == array.dtype.newbyteorder(">")]
    if not codes or not 1 <= array.ndim <= _MOST_DIMENSIONS:
        raise ValueError(f"array of type {array.dtype} with {array.ndim} dimensions: IDX files cannot hold it")
    header = bytes([0, 0, codes[0], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    contents = header + array.astype(_TYPES[codes[0]]).tobytes()
    path = Path(path)
    # mtime=0, so that equal arrays make equal files.
    path.write_bytes(gzip.compress(contents, mtime=0) if path.name.endswith(".gz") else contents)


def _read(path: Path, stream: IO[bytes]) -> Array:
    dtype, shape, header = _read_header(path, stream)
    expected = math.prod(shape) * dtype.itemsize
    # A size of 0 must not hide the others: NumPy counts them without it too.
    if math.prod(size or 1 for size in shape) * dtype.itemsize > _MOST_BYTES:
        raise IdxError(
            path,
            4,
            f"the header announces {'x'.join(map(str, shape))} numbers of type {dtype.name}; "
            f"more than {_MOST_BYTES:,} bytes are not read: the sizes are damaged, or this is another kind of file",
        )
    # One byte more than expected is asked for, to find what trails; it also makes gzip check its own checksum.
    body = _read_up_to(path, stream, expected + 1, start=header)
    if len(body) < expected:
        raise IdxError(
            path,
            header + len(body),
            f"the file ends here, {expected - len(body):,} bytes too early for "
            f"{'x'.join(map(str, shape))} numbers of type {dtype.name}: it was cut off, get it again",
        )
    if len(body) > expected:
        raise IdxError(
            path,
            header + expected,
            f"the file goes on after its {'x'.join(map(str, shape))} numbers of type "
            f"{dtype.name}: the header is of another file, or something was appended; get it again",
        )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(path: Path, stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return type, shape, and the length of the header in bytes."""
    magic = _read_up_to(path, stream, 4, start=0)
    if len(magic) < 4:
        raise IdxError(path, len(magic), "the file ends within its 4-byte magic number: it is empty or was cut off")
    zeros, code, dimensions = bytes(magic[:2]), magic[2], magic[3]
    if zeros != b"\0\0":
        raise IdxError(
            path,
            0 if magic[0] else 1,
            f"an IDX file begins with two zero bytes, this one with {bytes(magic)!r}: it is another kind of file",
        )
    if code not in _TYPES:
        known = ", ".join(f"0x{known:02x} {np.dtype(name).name}" for known, name in _TYPES.items())
        raise IdxError(path, 2, f"0x{code:02x} is no IDX type ({known}): the file is damaged or of another kind")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise IdxError(path, 3, f"{dimensions} dimensions; 1 to {_MOST_DIMENSIONS} are read: the file is damaged")
    sizes = _read_up_to(path, stream, 4 * dimensions, start=4)
    if len(sizes) < 4 * dimensions:
        raise IdxError(path, 4 + len(sizes), f"the file ends within the sizes of its {dimensions} dimensions")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    return np.dtype(_TYPES[code]), shape, 4 + 4 * dimensions


def _read_up_to(path: Path, stream: IO[bytes], n: int, start: int) -> bytearray:
    """Read `n` bytes, fewer at the end of the file. Memory grows with what the file holds, not with what it claims."""
    body = bytearray()
    try:
        while len(body) < n and (chunk := stream.read(min(_CHUNK, n - len(body)))):
            body += chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IdxError(path, start + len(body), f"damaged gzip ({error}): get the file again") from error
    return body
