"""What is packed comes back byte for byte, and nothing else ever comes back."""

import contextlib
import hashlib
import os
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit import container, entropy, sharing
from compresskit.container import Stretch
from compresskit.litert.model import read, replace_constants, stored
from compresskit.litert.slim import slim
from compresskit.litert.stretches import stretches
from compresskit.zoo import load_model, model_names

# How many altered copies of each container are read; `make fuzz` reads more.
COPIES = int(os.environ.get("COMPRESSKIT_FUZZ", "100"))
DICTIONARIES = {
    1: "d78717886592d00b0c9ced4c29dac5c33cd8f1a1a53951c4fe391237779281b8",
    2: "adcedaab4ce80a8f26a13acb6d7929cfe75b586adc2ed108637b26a8c8b8cfec",
}


@st.composite
def files(draw):
    """Draw a file of stretches with few or many values, of any width, and bytes between them."""
    file, found = b"", []
    for _ in range(draw(st.integers(0, 4))):
        file += draw(st.binary(max_size=9))
        bits = draw(st.sampled_from(container.WIDTHS))
        columns, rows = draw(st.integers(1, 12)), draw(st.integers(0, 12))
        kinds = draw(st.sampled_from([1, 2, 5, 256]))
        seed = draw(st.integers(0, 99))
        rng = np.random.default_rng(seed)
        octets = rng.integers(0, kinds, size=rows * columns * max(bits, 8) // 8).astype(np.uint8)
        octets[rng.random(octets.size) < draw(st.sampled_from([0.0, 0.9]))] = 0
        matrix = columns * max(bits, 8) // bits
        found.append(Stretch(len(file), octets.size, bits, draw(st.sampled_from([0, matrix, 3]))))
        file += octets.tobytes()
    return file + draw(st.binary(max_size=9)), found


def pruned_and_shared(name):
    """Return a course model with a tenth of its weights left and 8 values for them."""
    tflite = load_model(name).tflite
    model = read(tflite)
    arrays = {}
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        data = model.buffers[tensor.buffer].data
        if tensor.type != 0 or data is None or len(data) == 0:
            continue
        weights = stored(model, tensor)
        large = np.abs(weights) >= np.quantile(np.abs(weights), 0.9 if weights.ndim > 1 else 0)
        arrays[index] = sharing.kmeans(weights * large, 8, keep_zero=True).decode()
    return replace_constants(tflite, arrays)


class TestThereAndBack:
    @given(files())
    def test_any_file(self, drawn):
        file, found = drawn
        assert container.unpack(container.pack(file, found)) == file

    @pytest.mark.parametrize("name", model_names())
    def test_course_models(self, name):
        tflite = load_model(name).tflite
        packed = container.pack(tflite, stretches(tflite))
        assert container.unpack(packed) == tflite
        assert packed[3] == 1, "the dictionary of files as the converter makes them"
        assert len(packed) < 0.93 * len(zlib.compress(tflite, 9))

    def test_pruned_and_shared_model_is_near_its_entropy(self):
        tflite = pruned_and_shared("lenet_300_100")
        packed = container.pack(tflite, stretches(tflite))
        assert container.unpack(packed) == tflite
        floor = 0.0
        for stretch in stretches(tflite):
            numbers = np.frombuffer(tflite, np.uint8, stretch.size, stretch.offset).view(f"<u{stretch.bits // 8}")
            counts = np.unique(numbers, return_counts=True)[1]
            floor += entropy.entropy(counts) * numbers.size / 8
        assert len(packed) < 1.01 * floor + 800
        assert len(packed) < 0.75 * len(zlib.compress(tflite, 9))

    def test_many_lanes(self):
        numbers = np.random.default_rng(0).integers(0, 200, size=300_000).astype(np.uint8)
        packed = container.pack(numbers.tobytes(), [Stretch(0, numbers.size, 8)])
        assert container.unpack(packed) == numbers.tobytes()
        assert len(packed) < 300_000 * np.log2(200) / 8 * 1.005
        reader = container._Reader(packed, 8)
        reader.varint(), reader.take(8), container._inflated(reader, 10**6, packed[3])
        assert reader.varint() >= 48

    def test_dead_rows_and_columns_take_next_to_nothing(self):
        weights = np.zeros((300, 784), np.float32)
        weights[::10, ::10] = np.random.default_rng(0).choice([-1.0, 0.5, 2.0], size=(30, 79))
        packed = container.pack(weights.tobytes(), [Stretch(0, weights.nbytes, 32, 784)])
        assert len(packed) < 30 * 79 * np.log2(3) / 8 + 250

    def test_floats_that_are_all_different_and_mostly_zero(self):
        weights = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
        weights[np.random.default_rng(1).random(weights.size) < 0.8] = 0
        packed = container.pack(weights.tobytes(), [Stretch(0, weights.nbytes, 32)])
        assert len(packed) < 0.9 * len(zlib.compress(weights.tobytes(), 9))

    def test_more_tables_than_a_byte_can_number(self):
        parts = [np.random.default_rng(i).integers(0, 3, size=200).astype(np.uint8).tobytes() for i in range(300)]
        found = [Stretch(200 * i, 200, 8) for i in range(300)]
        assert container.unpack(container.pack(b"".join(parts), found)) == b"".join(parts)

    @pytest.mark.parametrize("kinds", [container.LARGEST_BOOK, container.LARGEST_BOOK + 1])
    def test_as_many_values_as_a_book_may_have_and_one_more(self, kinds):
        values = np.unique(np.random.default_rng(0).integers(0, 2**32, kinds + 9, np.uint32))[:kinds]
        numbers = np.concatenate([values, np.random.default_rng(1).choice(values, 16_000)])
        packed = container.pack(numbers.tobytes(), [Stretch(0, numbers.nbytes, 32)])
        assert container.unpack(packed) == numbers.tobytes()
        assert kinds > container.LARGEST_BOOK or len(packed) < 0.8 * numbers.nbytes

    def test_same_bytes_each_time(self):
        tflite = pruned_and_shared("lenet_300_100")
        assert container.pack(tflite, stretches(tflite)) == container.pack(tflite, stretches(tflite))


class TestFormat:
    @pytest.mark.parametrize(("version", "known"), DICTIONARIES.items())
    def test_dictionary_is_part_of_a_version(self, version, known):
        """Containers written with it are out in the world: changing it makes them unreadable."""
        assert hashlib.sha256(container._dictionary(version)).hexdigest() == known

    @pytest.mark.parametrize("name", ["small_student", "lenet_300_100"])
    def test_a_slim_file_is_written_with_the_dictionary_of_slim_files(self, name):
        file = slim(load_model(name).tflite)
        packed = container.pack(file, stretches(file))
        assert packed[3] == 2
        assert container.unpack(packed) == file

    def test_a_container_of_version_1_is_read_for_ever(self):
        assert container.unpack(bytes.fromhex(KNOWN)) == KNOWN_FILE

    @pytest.mark.parametrize(
        "stretch",
        [Stretch(0, 11, 8), Stretch(-1, 2, 8), Stretch(0, 3, 16), Stretch(0, 4, 12), Stretch(0, -8, 8)],
    )
    def test_refuses_a_stretch(self, stretch):
        with pytest.raises(ValueError, match="Stretch"):
            container.pack(bytes(10), [stretch])

    def test_refuses_an_overlap(self):
        with pytest.raises(ValueError, match="overlaps"):
            container.pack(bytes(10), [Stretch(0, 6, 8), Stretch(5, 2, 8)])

    def test_refuses_what_no_reader_would_believe(self):
        with pytest.raises(ValueError, match="at most 1000 times"):
            container.pack(bytes(5_000_000), [Stretch(0, 5_000_000, 8)])


KNOWN_STRETCH = Stretch(3, 64, 8, 8)
KNOWN_FILE = b"abc" + bytes([7, 0, 0, 9, 0, 7, 0, 0] * 8) + b"xyz"
KNOWN = "434b5001f50cf5f346d9035b919cc297371a1b636476600272d8993818fe4f61587d95e9ea2ac6c4a4e48aca2a0001791e13ca07e12000"


def sealed(body: bytes, version: int = 1) -> bytes:
    """Give contents a header and a checksum that fits: what somebody could forge."""
    return container.MAGIC + bytes([version]) + struct.pack("<I", zlib.crc32(body, version - 1)) + body


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    sparse = (rng.integers(0, 7, size=(40, 30)) * (rng.random((40, 30)) < 0.2)).astype(np.float32)
    sparse[::3] = 0
    floats = rng.normal(size=500).astype(np.float32)
    return [
        container.pack(b""),
        container.pack(b"no numbers at all" * 5),
        container.pack(KNOWN_FILE, [KNOWN_STRETCH]),
        container.pack(sparse.tobytes() + b"tail", [Stretch(0, sparse.nbytes, 32, 30)]),
        container.pack(floats.tobytes(), [Stretch(0, floats.nbytes, 32)]),
        container.pack(rng.bytes(50) + bytes(rng.integers(0, 3, 4000).tolist()), [Stretch(50, 4000, 4, 80)]),
        container.pack(container._dictionary(2)[:300] + KNOWN_FILE, [replace(KNOWN_STRETCH, offset=303)]),
    ]


class TestCorrupt:
    @pytest.mark.parametrize("index", range(7))
    def test_corrupt_bytes_are_refused(self, samples, index):
        rng = np.random.default_rng(index)
        for _ in range(COPIES):
            with pytest.raises(ValueError, match=r"container|version"):
                container.unpack(self.altered(samples[index], rng))

    @pytest.mark.parametrize("index", range(7))
    def test_corrupt_contents_with_a_fitting_checksum_never_give_another_file(self, samples, index):
        """The bits that fill up the last byte of what is deflated may be altered without consequence, no others."""
        rng = np.random.default_rng(100 + index)
        file, refused = container.unpack(samples[index]), 0
        for _ in range(3 * COPIES):
            try:
                assert container.unpack(sealed(self.altered(samples[index][8:], rng), samples[index][3])) == file
            except ValueError:
                refused += 1
        assert refused > 2.8 * COPIES

    @pytest.mark.parametrize("index", range(7))
    def test_corrupt_headers_deflated_again_never_give_another_file(self, samples, index):
        """Past checksum and deflate; the bits that fill up a byte may be altered without consequence, no others."""
        rng = np.random.default_rng(200 + index)
        reader = container._Reader(samples[index], 8)
        start = container._varint(reader.varint()) + reader.take(8)
        version = samples[index][3]
        header, rest = container._inflated(reader, 10**6, version), reader.rest()
        file, refused = container.unpack(samples[index]), 0
        for _ in range(3 * COPIES):
            changed = self.altered(header, rng) if header else b"\1"
            deflated = container._deflated(changed, version)
            lengths = container._varint(len(changed)) + container._varint(len(deflated))
            try:
                assert container.unpack(sealed(start + lengths + deflated + rest, version)) == file
            except ValueError:
                refused += 1
        assert refused > 2.8 * COPIES

    @staticmethod
    def altered(data, rng):
        """Change, cut, lengthen, double or overwrite, but never leave as it was."""
        while True:
            new = bytearray(data)
            place = int(rng.integers(0, len(data)))
            kind = rng.integers(0, 5)
            if kind == 0:
                new[place] ^= int(rng.integers(1, 256))
            elif kind == 1:
                del new[place:]
            elif kind == 2:
                new += rng.bytes(int(rng.integers(1, 9)))
            elif kind == 3:
                new[place:place] = new[place : place + int(rng.integers(1, 20))]
            else:
                new[place : place + 4] = b"\xff\xff\xff\xff"
            if bytes(new) != data:
                return bytes(new)

    def test_another_length_than_the_file_has_is_refused(self, samples):
        body = samples[2][8:]
        with pytest.raises(ValueError, match="does not hold the file that it says"):
            container.unpack(sealed(bytes([body[0] + 1]) + body[1:], samples[2][3]))

    def test_a_way_of_writing_that_there_is_not_is_refused(self):
        floats = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
        floats[::2] = 0
        packed = container.pack(floats.tobytes(), [Stretch(0, floats.nbytes, 32)])
        reader = container._Reader(packed, 8)
        start = container._varint(reader.varint()) + reader.take(8)
        header, rest = container._inflated(reader, 10**6, packed[3]), reader.rest()
        assert header[5:7] == bytes([container.WIDTHS.index(32), container._PLANES])
        deflated = container._deflated(header[:6] + b"\2" + header[7:], packed[3])
        lengths = container._varint(len(header)) + container._varint(len(deflated))
        with pytest.raises(ValueError, match="contradict"):
            container.unpack(sealed(start + lengths + deflated + rest, packed[3]))

    def test_what_does_not_unpack_to_the_file_is_not_given_out(self, monkeypatch):
        monkeypatch.setattr(container, "unpack", lambda _: b"another file")
        with pytest.raises(AssertionError, match="a bug in compresskit"):
            container.pack(b"a file")

    def test_every_cut_is_refused(self, samples):
        for packed in samples:
            for length in range(len(packed)):
                with pytest.raises(ValueError, match="container"):
                    container.unpack(packed[:length])

    @pytest.mark.parametrize("data", [b"", b"CKP", b"PK\3\4" + bytes(40), bytes(100)])
    def test_what_is_no_container_is_refused(self, data):
        with pytest.raises(ValueError, match="do not begin as a packed container"):
            container.unpack(data)

    def test_a_later_version_is_refused(self, samples):
        with pytest.raises(ValueError, match="version 3; this compresskit reads versions 1 to 2: update"):
            container.unpack(samples[1][:3] + b"\3" + samples[1][4:])

    def test_another_version_than_the_one_it_was_written_in_is_refused(self, samples):
        assert {packed[3] for packed in samples} == {1, 2}
        for packed in samples:
            with pytest.raises(ValueError, match="container"):
                container.unpack(packed[:3] + bytes([3 - packed[3]]) + packed[4:])


class TestAbsurdClaims:
    def test_length(self):
        body = container._varint(2**60) + bytes(8) + b"\0\0"
        with pytest.raises(ValueError, match="claims to hold 1,152,921,504,606,846,976; that is not believable"):
            container.unpack(sealed(body))

    @pytest.mark.parametrize("claimed", [1000, 10**7, 2**62])
    def test_header_that_inflates_without_end(self, claimed):
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, container._dictionary(1))
        bomb = b"".join(compressor.compress(bytes(10_000_000)) for _ in range(30)) + compressor.flush()
        body = container._varint(4000) + bytes(8) + container._varint(claimed) + container._varint(len(bomb)) + bomb
        with memory_limit(100), pytest.raises(ValueError, match="contradict"):
            container.unpack(sealed(body))

    @pytest.mark.parametrize("total", [2**20, 2**40, 2**62])
    def test_stretch_larger_than_the_file(self, total):
        header = container._varint(1) + container._varint(0) + container._varint(total) + bytes([2, 0])
        header += container._varint(1) + container._varint(0) + container._varint(0) + container._varint(2**16)
        deflated = container._deflated(header, 1)
        body = container._varint(1000) + bytes(8) + container._varint(len(header)) + container._varint(len(deflated))
        with memory_limit(100), pytest.raises(ValueError, match="contradict"):
            container.unpack(sealed(body + deflated + b"\1" + struct.pack("<Q", 1 << 31)))

    @pytest.mark.parametrize(("pieces", "size"), [(257, 1), (200, 4_000_000)])
    def test_more_tables_or_more_bytes_than_there_may_be(self, pieces, size):
        one = container._varint(0) + container._varint(size) + bytes([2, 0])
        one += container._varint(1) + container._varint(0) + container._varint(0) + container._varint(2**16)
        header = container._varint(pieces) + one * pieces
        deflated = container._deflated(header, 1)
        body = container._varint(4_000_000) + bytes(8) + container._varint(len(header))
        body += container._varint(len(deflated)) + deflated + b"\1" + struct.pack("<Q", 1 << 31)
        with memory_limit(100), pytest.raises(ValueError, match="contradict"):
            container.unpack(sealed(body))


@contextlib.contextmanager
def memory_limit(megabytes):
    """Let the process take so many megabytes more and no further, where the system can be told so."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 1_000_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
