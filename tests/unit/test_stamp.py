"""The stamp inside a file: it tells what was done, changes nothing that is computed, comes off, and shows tampering."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from float_networks import random_network
from hypothesis import given, settings
from hypothesis import strategies as st

import compresskit as ck
from compresskit import cli
from compresskit.litert import model as files
from compresskit.litert import stamp as module
from compresskit.litert.inspect import layers
from compresskit.litert.runtime import outputs
from compresskit.litert.stamp import Marks, Stamp, read_stamp, stamp, strip

RECIPES = (
    ck.Recipe(),
    ck.Recipe(ck.Prune(0.6, scope="global"), ck.Quantize(8, 32)),
    ck.Recipe(ck.Share(4, method="uniform"), ck.Quantize(4, 32, layers={"dense3": {"weights": 8}})),
)
MARKS = st.builds(
    Marks,
    accuracy=st.floats(0, 1),
    interval=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    n=st.integers(1, 10_000),
    split=st.text(max_size=8),
    notice=st.text(max_size=20),
)
STAMPS = st.builds(
    Stamp,
    model=st.text(max_size=30) | st.just('"seal": "'),
    original=st.just("a" * 64),
    recipe=st.sampled_from(RECIPES),
    training=st.lists(st.text(max_size=40), max_size=3).map(tuple),
    marks=st.none() | MARKS,
    made_with=st.sampled_from(("1.2.3", "2.0")),
)


@functools.cache
def file(seed: int) -> bytes:
    return random_network(seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), STAMPS, STAMPS)
def test_what_is_written_is_read_and_comes_off_again(seed, told, other):
    bare = file(seed)
    stamped = stamp(bare, told)
    read = read_stamp(stamped)
    assert read is not None and replace(read, file="") == told
    assert strip(stamped) == bare and stamped.endswith(bare)
    assert stamp(stamp(bare, other), told) == stamped, "a new stamp takes the place of the old"


@pytest.mark.parametrize("name", ["digit_reader", "small_student"])
@pytest.mark.parametrize("quantize", [ck.Quantize(32, 32), ck.Quantize(8, 32), ck.Quantize(io="uint8")])
def test_a_stamped_file_answers_bit_for_bit_as_before(name, quantize, digits):
    small = ck.compress(ck.load_model(name), ck.Recipe(quantize), digits.train)
    stamped = small.stamped(ck.evaluate(small, digits.test.take(20)), ["model = fine_tune(model, digits)"])
    images = np.asarray(digits.test.images[:20])
    np.testing.assert_array_equal(outputs(stamped, images), outputs(small.tflite, images))
    assert layers(stamped) == small.layers
    model = files.read(stamped)
    assert {b"min_runtime_version", b"compresskit"} <= {entry.name for entry in model.metadata}
    assert read_stamp(stamped).marks.split == "test"
    assert read_stamp(stamped).training == ("model = fine_tune(model, digits)",)
    assert read_stamp(stamped).file == small.digest and read_stamp(stamped).original == small.checkpoint.digest


@pytest.mark.parametrize("seed", range(3))
def test_weights_stay_where_the_format_wants_them(seed):
    """Inside, and at multiples of 16; a flatbuffer that another program writes anew computes the same."""
    stamped = stamp(file(seed), Stamp("name"[seed:], "", RECIPES[0]))  # texts of three lengths
    schema = files.schema.Model.GetRootAs(stamped, 0)
    for index in range(schema.BuffersLength()):
        buffer = schema.Buffers(index)
        assert buffer.Offset() == buffer.Size() == 0
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            before = files.schema.Model.GetRootAs(file(seed), 0)
            if index < before.BuffersLength():
                old = before.Buffers(index)
                assert (start - old._tab.Vector(old._tab.Offset(4))) % 16 == 0
            else:
                assert start % 16 == 0, "the stamp itself"
    shape = files.shape(files.read(stamped).subgraphs[0].tensors[0])[1:]
    images = np.random.default_rng(0).random((4, *shape), np.float32)
    again = files.write(files.read(stamped))
    np.testing.assert_array_equal(outputs(again, images), outputs(file(seed), images))
    with pytest.raises(ValueError, match="altered"):
        read_stamp(again)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3), st.integers(0, 10**9), st.integers(1, 255))
def test_no_byte_can_be_changed_unseen(seed, place, change):
    """A file whose stamp cannot be found any more has none; it is never said to be whole."""
    stamped = bytearray(stamp(file(seed), Stamp("model", "b" * 64, RECIPES[1])))
    place %= len(stamped) if place % 2 else 900  # half of them in the head
    stamped[place] ^= change
    try:
        assert read_stamp(bytes(stamped)) is None
    except ValueError as error:
        assert len(str(error)) < 300


def restamped(stamped: bytes, old: bytes, new: bytes) -> bytes:
    """Change the text of a stamp, whose length must stay, and seal it anew, as somebody could."""
    assert len(old) == len(new) and stamped.count(old) == 1
    changed = stamped.replace(old, new)
    place = changed.index(b'"seal": "') + len(b'"seal": "')
    seal = hashlib.sha256(changed[:place] + b"0" * 64 + changed[place + 64 :]).hexdigest().encode()
    return changed[:place] + seal + changed[place + 64 :]


def test_what_was_altered_is_named_and_what_comes_later_says_update():
    stamped = stamp(file(0), Stamp("model", "b" * 64, RECIPES[1], marks=Marks(0.91, (0.9, 0.92), 100, "test")))
    with pytest.raises(ValueError, match=r"The file is not the one that was stamped.* get it again"):
        read_stamp(stamped[:-1] + bytes([stamped[-1] ^ 1]))
    for old, new in ((b"0.91", b"0.99"), (b"b" * 64, b"c" * 64), (b'"sparsity": 0.6', b'"sparsity": 0.5')):
        with pytest.raises(ValueError, match="The stamp is not as it was written"):
            read_stamp(stamped.replace(old, new))
        assert read_stamp(restamped(stamped, old, new)) is not None, "a seal is no signature"
    other = hashlib.sha256(b"another file").hexdigest().encode()
    with pytest.raises(ValueError, match="The file is not the one"):
        read_stamp(restamped(stamped, hashlib.sha256(file(0)).hexdigest().encode(), other))
    for old, new, told in (
        (b'"format": 1', b'"format": 2', "of format 2; this compresskit reads 1: update"),
        (b'"format": 1', b'"farmat": 1', "damaged .KeyError.; get the file again"),
        (b'"seal": "', b'"seal" :"', "damaged .ValueError.; get the file again"),
        (b'"sparsity"', b'"sparsety"', "cannot be understood .*update compresskit"),
    ):
        with pytest.raises(ValueError, match=told):
            read_stamp(stamped.replace(old, new) if b"seal" in old else restamped(stamped, old, new))


def test_a_stamp_that_is_brackets_only_is_damaged():
    stamped = stamp(file(0), Stamp("model", "b" * 64, RECIPES[1], ("x" * 100_000,)))
    start, size = module._entry(stamped)
    with pytest.raises(ValueError, match="is damaged"):
        read_stamp(stamped[:start] + b"[" * size + stamped[start + size :])


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200) | st.integers(1, 9999).map(lambda cut: stamp(file(0), Stamp("m", "", RECIPES[0]))[:-cut])
)
def test_whatever_else_it_is_given_is_a_sentence(content):
    try:
        assert read_stamp(content) is None
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("place", [1, -1])
def test_a_file_that_keeps_weights_outside_is_refused(place):
    model = files.read(file(1))
    model.buffers[place].offset, model.buffers[place].size = 4096, 12
    with pytest.raises(ValueError, match="outside the flatbuffer"):
        stamp(files.write(model), Stamp("x", "", RECIPES[0]))


def test_a_file_of_a_later_schema_is_refused(monkeypatch):
    """What its root table holds beyond the fields known here would be lost in the new head."""
    monkeypatch.setattr(module, "_FIELDS", 4)
    with pytest.raises(ValueError, match="fields that this schema does not know"):
        stamp(file(0), Stamp("x", "", RECIPES[0]))


def test_the_command_line_reads_it_and_takes_it_off(tmp_path, capsys, digits):
    small = ck.compress(ck.load_model("small_student"), RECIPES[1])
    path = small.save(tmp_path / "small.tflite", ck.evaluate(small, digits.test.take(50)))
    assert cli._stamp_told(path, small.size).startswith(f", and {path.stat().st_size - small.size:,} bytes more")
    assert cli._stamp_told(small.save(tmp_path / "plain.tflite"), small.size) == ""
    assert cli.main(["inspect", str(path), "--strip", str(tmp_path / "bare.tflite")]) == 0
    told = capsys.readouterr().out
    added = path.stat().st_size - small.size
    assert f"of which {added:,} are the stamp" in told and 500 < added < 1500
    assert small.recipe.to_python() in told and small.digest in told and "of 50 test digits" in told
    assert (tmp_path / "bare.tflite").read_bytes() == small.tflite
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert cli.main(["inspect", str(path)]) == 1
    assert "altered or damaged" in capsys.readouterr().err
    assert cli.main(["inspect", str(tmp_path / "bare.tflite")]) == 1
    assert "without a stamp" in capsys.readouterr().out
    assert cli.main(["inspect", str(tmp_path / "gone.tflite")]) == 1
    assert "gone.tflite; give the path of a .tflite file" in capsys.readouterr().err
