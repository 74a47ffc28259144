"""A stamp inside a `.tflite`: how the file was made, how it scored, and seals that show whether it was altered.

The format has room for named metadata; the stamp is the entry `compresskit`, JSON text. It is written without touching
what is there: a new head, with a root table of its own, is put *before* the file, and points into it. So the file
without its stamp is the rest of the stamped one, byte for byte, and runs the same. LiteRT and other readers pass over
metadata that they do not know.

Two seals, both sha256. `file`: of the file without the stamp, the name under which a session keeps it. `seal`: of the
whole stamped file, the 64 digits of this seal itself taken as zeros. They show damage and changes made by accident or
in haste; they are no signature, since whoever alters a file can seal it anew.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from typing import Any, Final

from ai_edge_litert import schema_py_generated as schema

from compresskit.litert.model import MARK, check_mark
from compresskit.recipe import Recipe

NAME: Final = b"compresskit"
_FORMAT: Final = 1
_ALIGNED: Final = 16  # what the format asks of weights
_NO_SEAL: Final = "0" * 64
_SEAL_KEY: Final = b'"seal": "'  # quotes in a name are escaped, so nothing that a model is called looks like it
_VERSION, _BUFFERS, _METADATA = 0, 4, 6  # fields of the root table, in the order of the schema
_FIELDS: Final = 8
_BROKEN = (struct.error, IndexError, KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Marks:
    """How a file scored.

    Attributes
    ----------
    accuracy : float
        Fraction of the examples read rightly.
    interval : (float, float)
        The 95 % interval of the accuracy.
    n : int
        Examples read.
    split : str
        Which: "test", "validation" and so on.
    notice : str
        What has to be known about them; often empty.
    """

    accuracy: float
    interval: tuple[float, float]
    n: int
    split: str
    notice: str = ""


@dataclass(frozen=True)
class Stamp:
    """What a stamp tells.

    Attributes
    ----------
    model : str
        Name of the original model.
    original : str
        sha256 of the original's float `.tflite`, in hexadecimal.
    recipe : Recipe
        What was done.
    training : tuple of str
        Lines of Python that trained the model between the original and the recipe; often none.
    marks : Marks or None
        How the file scored, if that was measured.
    made_with : str
        Version of compresskit.
    file : str
        sha256 of the file without the stamp.
    """

    model: str
    original: str
    recipe: Recipe
    training: tuple[str, ...] = ()
    marks: Marks | None = None
    made_with: str = field(default_factory=lambda: version("compresskit"))
    file: str = ""


def stamp(tflite: bytes, told: Stamp) -> bytes:
    """Write a stamp into a file; one that is there already is replaced.

    Parameters
    ----------
    tflite
        A plain `.tflite`, its buffers inside.
    told
        What to write; its `file` is filled in here.

    Returns
    -------
    bytes
        The stamped file: about a kilobyte longer, computing the same. `strip` gives `tflite` back.

    Raises
    ------
    ValueError
        If the bytes are not a plain `.tflite`.
    """
    bare = strip(tflite)
    try:
        model = schema.Model.GetRootAs(bare, 0)
        if any(model.Buffers(index).Offset() > 1 for index in range(model.BuffersLength())):
            raise ValueError("it keeps weights outside the flatbuffer")
        head, start = _head(bare, _text(told, bare))
    except _BROKEN as error:
        raise ValueError(f"tflite: no stamp can be put into it ({error}); give a plain .tflite file") from error
    whole = head + bare
    seal = hashlib.sha256(whole).hexdigest().encode()
    return whole[:start] + seal + whole[start + len(seal) :]


def read_stamp(tflite: bytes) -> Stamp | None:
    """Read the stamp of a file, and hold the file against its seals.

    Parameters
    ----------
    tflite
        The bytes of a file, from wherever it comes.

    Returns
    -------
    Stamp or None
        None if the file has none.

    Raises
    ------
    ValueError
        If the bytes are not a `.tflite`, or the file or its stamp was altered; the sentence says which.
    """
    found = _opened(tflite)
    return None if found is None else found[0]


def strip(tflite: bytes) -> bytes:
    """Give a file without its stamp: the very bytes that were stamped. One without a stamp is returned as it is.

    Raises
    ------
    ValueError
        If the bytes are not a `.tflite`, or its stamp is damaged.
    """
    found = _opened(tflite)
    return tflite if found is None else found[1]


def _opened(tflite: bytes) -> tuple[Stamp, bytes] | None:
    """Read the stamp, and the file without it; None if there is no stamp."""
    entry = _entry(tflite)
    if entry is None:
        return None
    start, size = entry
    text = tflite[start : start + size]
    try:
        told = json.loads(text)
        form, seal, length = int(told["format"]), str(told["seal"]), int(told["bytes"])
        place = start + text.index(_SEAL_KEY) + len(_SEAL_KEY)
    except _BROKEN as error:
        raise ValueError(f"The stamp of this file is damaged ({type(error).__name__}); get the file again") from error
    if form > _FORMAT:
        raise ValueError(f"The stamp is of format {form}; this compresskit reads {_FORMAT}: update it")
    blank = tflite[:place] + _NO_SEAL.encode() + tflite[place + len(_NO_SEAL) :]
    bare = tflite[-length:]
    if hashlib.sha256(bare).hexdigest() != told.get("file"):
        raise ValueError("The file is not the one that was stamped: it was altered or damaged; get it again")
    if hashlib.sha256(blank).hexdigest() != seal:
        raise ValueError("The stamp is not as it was written: it was altered or damaged; get the file again")
    try:
        return _told(told), bare
    except _BROKEN as error:
        raise ValueError(f"The stamp of this file cannot be understood ({error}); update compresskit") from error


def _text(told: Stamp, bare: bytes) -> bytes:
    """Write the stamp as JSON, with zeros for its seal."""
    marks = None if told.marks is None else {each.name: getattr(told.marks, each.name) for each in fields(Marks)}
    plain: Mapping[str, Any] = {
        "format": _FORMAT,
        "seal": _NO_SEAL,
        "compresskit": told.made_with,
        "model": told.model,
        "original": told.original,
        "file": hashlib.sha256(bare).hexdigest(),
        "bytes": len(bare),
        "recipe": json.loads(told.recipe.to_json()),
        "training": list(told.training),
        "score": marks,
    }
    return json.dumps(plain).encode()


def _told(plain: Mapping[str, Any]) -> Stamp:
    """Read what `_text` wrote."""
    score = plain["score"]
    if score is not None:
        low, high = score["interval"]
        score = Marks(
            float(score["accuracy"]), (float(low), float(high)), int(score["n"]), str(score["split"]),
            str(score["notice"]),
        )  # fmt: skip
    return Stamp(
        str(plain["model"]),
        str(plain["original"]),
        Recipe.from_json(json.dumps(plain["recipe"])),
        tuple(str(line) for line in plain["training"]),
        score,
        str(plain["compresskit"]),
        str(plain["file"]),
    )


def _entry(tflite: bytes) -> tuple[int, int] | None:
    """Find where the stamp's text begins, and its length."""
    check_mark(tflite)
    try:
        model = schema.Model.GetRootAs(tflite, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == NAME:
                buffer = model.Buffers(entry.Buffer())
                return buffer._tab.Vector(buffer._tab.Offset(4)), buffer.DataLength()
    except _BROKEN as error:
        raise ValueError(f"tflite: the file is damaged ({error}); save or download it again") from error
    return None


def _head(bare: bytes, text: bytes) -> tuple[bytes, int]:
    """Write the new head; give it, and the place of the seal in it.

    In the order of their bytes: where the root is, the mark; the root table with its layout before it; the list of
    buffers, the old ones and the stamp's; the list of metadata; the stamp's entry, its name and its buffer. Offsets in
    a flatbuffer count forward from where they stand, so all may point into the old file behind the head.
    """
    table = schema.Model.GetRootAs(bare, 0)._tab
    layout = table.Pos - struct.unpack_from("<i", bare, table.Pos)[0]
    if (struct.unpack_from("<H", bare, layout)[0] - 4) // 2 > _FIELDS:
        raise ValueError("its root table has fields that this schema does not know")
    buffers, entries = _listed(bare, table, _BUFFERS), _listed(bare, table, _METADATA)
    first, root = 8, 28  # the root's layout: two sizes and a place for each of eight fields; then the root itself
    lists = root + 4 + 4 * _FIELDS
    listed = lists + 4 + 4 * (len(buffers) + 1)
    entry = listed + 4 + 4 * (len(entries) + 1)
    name = entry + 8 + 12
    holder = _up(name + 4 + len(NAME) + 1, 4)
    data = _up(holder + 8 + 8 + 4, _ALIGNED)
    size = _up(data + len(text), _ALIGNED)
    head = bytearray(size)

    def point(place: int, target: int) -> None:
        struct.pack_into("<I", head, place, target - place)

    def behind(place: int, old: int) -> None:
        point(place, old + size)

    point(0, root)
    head[4:8] = MARK
    places = [0] * _FIELDS
    for number in range(_FIELDS):
        place = root + 4 + 4 * number
        found = table.Offset(4 + 2 * number)
        if number == _BUFFERS:
            point(place, lists)
        elif number == _METADATA:
            point(place, listed)
        elif found and number == _VERSION:
            head[place : place + 4] = bare[table.Pos + found : table.Pos + found + 4]
        elif found:
            behind(place, _target(bare, table.Pos + found))
        else:
            continue
        places[number] = place - root
    struct.pack_into(f"<{2 + _FIELDS}H", head, first, 4 + 2 * _FIELDS, 4 + 4 * _FIELDS, *places)
    struct.pack_into("<i", head, root, root - first)
    struct.pack_into("<I", head, lists, len(buffers) + 1)
    for index, old in enumerate(buffers):
        behind(lists + 4 + 4 * index, old)
    point(lists + 4 + 4 * len(buffers), holder + 8)
    struct.pack_into("<I", head, listed, len(entries) + 1)
    for index, old in enumerate(entries):
        behind(listed + 4 + 4 * index, old)
    point(listed + 4 + 4 * len(entries), entry + 8)
    struct.pack_into("<4Hi", head, entry, 8, 12, 4, 8, 8)  # its layout: name at 4, buffer at 8; back to the layout
    point(entry + 12, name)
    struct.pack_into("<I", head, entry + 16, len(buffers))
    struct.pack_into(f"<I{len(NAME)}s", head, name, len(NAME), NAME)
    struct.pack_into("<3H2xi", head, holder, 6, 8, 4, 8)  # its layout: data at 4
    point(holder + 12, data - 4)
    struct.pack_into("<I", head, data - 4, len(text))
    head[data : data + len(text)] = text
    return bytes(head), data + text.index(_SEAL_KEY) + len(_SEAL_KEY)


def _listed(tflite: bytes, table: Any, number: int) -> list[int]:
    """Find where the tables of a list begin; none if the root has no such list."""
    found = table.Offset(4 + 2 * number)
    if not found:
        return []
    start = table.Vector(found)
    return [_target(tflite, start + 4 * index) for index in range(table.VectorLen(found))]


def _target(tflite: bytes, place: int) -> int:
    """Follow an offset."""
    return int(place + struct.unpack_from("<I", tflite, place)[0])


def _up(place: int, step: int) -> int:
    """Go up to the next multiple."""
    return -(-place // step) * step
