"""The IDX reader: every good file is read, every bad one is an error that names the file and the byte."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compresskit.data import Digits, IdxError, load_idx, read_idx, write_idx
from compresskit.data.folders import FILES

CODES = {"uint8": (0x08, "B"), "int8": (0x09, "b"), "int16": (0x0B, "h"), "int32": (0x0C, "i")}
CODES |= {"float32": (0x0D, "f"), "float64": (0x0E, "d")}
DTYPES = st.sampled_from([np.dtype(name) for name in CODES])


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file, packed with struct alone, so that nothing is shared with the code under test."""
    code, letter = CODES[array.dtype.name]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + struct.pack(f">{array.size}{letter}", *array.ravel().tolist())


IMAGES = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))


@pytest.fixture(params=["images", "images.gz"])
def write(tmp_path, request):
    """Write bytes as a file, plain or gzipped, and return its path."""

    def to_file(contents: bytes) -> Path:
        path = tmp_path / request.param
        path.write_bytes(gzip.compress(contents) if path.suffix == ".gz" else contents)
        return path

    return to_file


def problem_of(path: Path) -> IdxError:
    with pytest.raises(IdxError) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert f"byte {caught.value.offset}" in str(caught.value)
    return caught.value


class TestReading:
    @given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=4))), st.booleans())
    def test_what_struct_packs(self, tmp_path_factory, array, zipped):
        path = tmp_path_factory.getbasetemp() / "any.idx"
        path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
        got = read_idx(path)
        assert got.dtype == array.dtype
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, array)

    @given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=4))))
    def test_writing_makes_what_struct_packs(self, tmp_path_factory, array):
        path = tmp_path_factory.getbasetemp() / "written.idx"
        write_idx(path, array)
        if array.dtype.kind == "f":  # the bytes of a NaN may differ
            np.testing.assert_array_equal(read_idx(path), array)
        else:
            assert path.read_bytes() == idx_bytes(array)

    def test_a_gzipped_file_is_known_by_its_contents(self, tmp_path):
        (tmp_path / "images").write_bytes(gzip.compress(IMAGES))
        assert read_idx(tmp_path / "images").shape == (3, 2, 2)
        (tmp_path / "plain.gz").write_bytes(IMAGES)
        assert read_idx(tmp_path / "plain.gz").shape == (3, 2, 2)

    @pytest.mark.parametrize("sizes", [(0,), (0, 28, 28), (5, 0), (0, 2**32 - 1, 2**32 - 1)])
    def test_nothing_is_an_array_too(self, write, sizes):
        path = write(struct.pack(f">BBBB{len(sizes)}I", 0, 0, 0x08, len(sizes), *sizes))
        try:
            assert read_idx(path).shape == sizes
        except IdxError as error:
            assert error.offset == 4  # more than NumPy can count, even of nothing

    def test_the_array_can_be_written_to(self, write):
        read_idx(write(IMAGES))[0] = 1

    def test_gzipped_writing_is_repeatable(self, tmp_path):
        for name in ("a.gz", "b.gz"):
            write_idx(tmp_path / name, np.arange(5, dtype=np.int16))
        assert (tmp_path / "a.gz").read_bytes()[10:] == (tmp_path / "b.gz").read_bytes()[10:]
        assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == idx_bytes(np.arange(5, dtype=np.int16))

    @pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros(3, np.uint16), np.zeros(3, bool), np.uint8(1)])
    def test_writing_refuses_what_idx_cannot_hold(self, tmp_path, array):
        with pytest.raises(ValueError, match="cannot hold"):
            write_idx(tmp_path / "x", np.asarray(array))

    def test_mnist_as_mlxtend_reads_it(self, digits, tmp_path):
        from mlxtend.data import loadlocal_mnist

        write_idx(tmp_path / "images", digits.test.images)
        write_idx(tmp_path / "labels", digits.test.labels)
        images, labels = loadlocal_mnist(str(tmp_path / "images"), str(tmp_path / "labels"))
        np.testing.assert_array_equal(images.reshape(-1, 28, 28), read_idx(tmp_path / "images"))
        np.testing.assert_array_equal(labels, read_idx(tmp_path / "labels"))


class TestBadFiles:
    @pytest.mark.parametrize("length", range(len(IMAGES)))
    def test_truncated_anywhere(self, write, length):
        problem = problem_of(write(IMAGES[:length]))
        assert problem.offset == length
        assert "end" in problem.problem

    @pytest.mark.parametrize("extra", [b"\0", b"more" * 100_000])
    def test_oversized(self, write, extra):
        problem = problem_of(write(IMAGES + extra))
        assert problem.offset == len(IMAGES)
        assert "goes on" in problem.problem

    @pytest.mark.parametrize(
        ("at", "value", "message"),
        [
            (0, 1, "two zero bytes"),
            (1, 1, "two zero bytes"),
            (2, 0x07, "0x07 is no IDX type"),
            (2, 0x0A, "0x0a is no IDX type"),
            (3, 0, "0 dimensions"),
            (3, 9, "9 dimensions"),
            (3, 255, "255 dimensions"),
        ],
    )
    def test_mislabelled(self, write, at, value, message):
        contents = bytearray(IMAGES)
        contents[at] = value
        problem = problem_of(write(bytes(contents)))
        assert problem.offset == at
        assert message in problem.problem

    def test_a_web_page_instead_of_the_file(self, write):
        assert "<!DO" in problem_of(write(b"<!DOCTYPE html><title>Log in</title>")).problem

    @pytest.mark.parametrize(
        "sizes", [(2**32 - 1,) * 3, (2**32 - 1, 1, 1), (2**16, 2**16, 2**16), (0, 2**32 - 1, 0, 5)]
    )
    def test_absurd_sizes_allocate_nothing(self, write, sizes):
        path = write(struct.pack(f">BBBB{len(sizes)}I", 0, 0, 0x0E, len(sizes), *sizes) + b"1234")
        tracemalloc.start()
        try:
            problem_of(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 5_000_000

    def test_sizes_just_below_the_limit_allocate_only_what_is_there(self, write):
        path = write(struct.pack(">BBBBI", 0, 0, 0x08, 1, 2**31 - 1) + b"1234")
        tracemalloc.start()
        try:
            assert problem_of(path).offset == 12
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10_000_000

    def test_a_gzip_bomb_stops_at_the_size_it_announces(self, tmp_path):
        bomb = tmp_path / "bomb.gz"
        with gzip.open(bomb, "wb", compresslevel=1) as file:
            file.write(struct.pack(">BBBBI", 0, 0, 0x08, 1, 1000))
            for _ in range(300):
                file.write(bytes(2**20))
        tracemalloc.start()
        try:
            assert problem_of(bomb).offset == 1008
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10_000_000

    def test_truncated_gzip(self, tmp_path):
        path = tmp_path / "cut.gz"
        path.write_bytes(gzip.compress(IMAGES)[:-9])
        assert "gzip" in problem_of(path).problem

    def test_damaged_gzip_checksum(self, tmp_path):
        contents = bytearray(gzip.compress(IMAGES))
        contents[-5] ^= 255
        (tmp_path / "x.gz").write_bytes(contents)
        assert "CRC" in problem_of(tmp_path / "x.gz").problem

    def test_garbage_after_gzip(self, tmp_path):
        (tmp_path / "x.gz").write_bytes(gzip.compress(IMAGES) + b"garbage")
        assert "gzip" in problem_of(tmp_path / "x.gz").problem

    @given(st.data())
    @settings(max_examples=300)
    def test_any_damage_is_an_idx_error_or_an_array(self, tmp_path_factory, data):
        contents = bytearray(data.draw(st.sampled_from([IMAGES, gzip.compress(IMAGES, mtime=0)])))
        for _ in range(data.draw(st.integers(1, 4))):
            contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.getbasetemp() / "damaged"
        path.write_bytes(contents[: data.draw(st.integers(0, len(contents)))])
        try:
            assert isinstance(read_idx(path), np.ndarray)
        except IdxError as error:
            assert str(path) in str(error)

    def test_a_missing_file_is_told_by_name(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.gz"):
            read_idx(tmp_path / "nowhere.gz")


@pytest.fixture
def fashion(tmp_path):
    """A folder of four files with another data set than MNIST; and what is in them."""
    generator = np.random.default_rng(7)
    arrays = {
        FILES[0]: generator.integers(0, 256, (120, 5, 4), np.uint8),
        FILES[1]: np.arange(120, dtype=np.uint8) % 10,
        FILES[2]: generator.integers(0, 256, (30, 5, 4), np.uint8),
        FILES[3]: np.arange(30, dtype=np.uint8) % 10,
    }
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx_bytes(array))
    return tmp_path, arrays


def replace(folder: Path, name: str, array: np.ndarray) -> None:
    (folder / name).write_bytes(idx_bytes(array))


class TestFolders:
    def test_the_last_twelfth_is_validation(self, fashion):
        folder, arrays = fashion
        found = load_idx(folder)
        assert (len(found.train), len(found.validation), len(found.test)) == (110, 10, 30)
        np.testing.assert_array_equal(found.train.images, arrays[FILES[0]][:110])
        np.testing.assert_array_equal(found.validation.labels, arrays[FILES[1]][110:])
        np.testing.assert_array_equal(found.test.images, arrays[FILES[2]])
        assert found.complete
        assert str(folder) in found.source

    @pytest.mark.parametrize("spelling", ["{}.gz", "dot", "dot.gz"])
    def test_every_spelling_of_the_names(self, fashion, tmp_path_factory, spelling):
        folder, arrays = fashion
        other = tmp_path_factory.mktemp("spelled")
        for name, array in arrays.items():
            stem = name if "{}" in spelling else name.replace("-idx", ".idx")
            zipped = spelling.endswith(".gz")
            (other / (stem + ".gz" * zipped)).write_bytes(
                gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array)
            )
        assert load_idx(other).train == load_idx(folder).train

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, fashion, name):
        (fashion[0] / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            load_idx(fashion[0])

    @pytest.mark.parametrize("pair", [0, 2])
    def test_counts_must_agree(self, fashion, pair):
        folder, arrays = fashion
        replace(folder, FILES[pair + 1], arrays[FILES[pair + 1]][:-1])
        with pytest.raises(IdxError, match=f"{FILES[pair + 1]}, byte 4: .*labels, but {FILES[pair]} has"):
            load_idx(folder)

    def test_a_label_out_of_range_is_placed(self, fashion):
        folder, arrays = fashion
        labels = arrays[FILES[3]].copy()
        labels[17] = 10
        replace(folder, FILES[3], labels)
        with pytest.raises(IdxError, match=r"label 10 \(of image 17\)") as caught:
            load_idx(folder)
        assert caught.value.offset == 8 + 17
        assert (folder / FILES[3]).read_bytes()[caught.value.offset] == 10
        assert load_idx(folder, classes=11).test.labels[17] == 10

    def test_negative_labels_are_placed(self, fashion):
        folder, arrays = fashion
        labels = arrays[FILES[1]].astype(np.int32)
        labels[3] = -2
        replace(folder, FILES[1], labels)
        with pytest.raises(IdxError, match="label -2") as caught:
            load_idx(folder)
        assert caught.value.offset == 8 + 3 * 4

    def test_train_and_test_must_be_alike(self, fashion):
        folder, arrays = fashion
        replace(folder, FILES[2], arrays[FILES[2]][:, :4])
        with pytest.raises(IdxError, match="two data sets"):
            load_idx(folder)

    @pytest.mark.parametrize(
        ("name", "array"),
        [
            (FILES[0], np.zeros((120, 20), np.uint8)),
            (FILES[0], np.zeros((120, 5, 4), np.int16)),
            (FILES[2], np.zeros((0, 5, 4), np.uint8)),
            (FILES[2], np.zeros((30, 0, 4), np.uint8)),
            (FILES[1], np.zeros((120, 1), np.uint8)),
            (FILES[1], np.zeros(120, np.float32)),
        ],
    )
    def test_images_and_labels_swapped_or_of_another_kind(self, fashion, name, array):
        replace(fashion[0], name, array)
        with pytest.raises(IdxError, match=f"{name}, byte 2"):
            load_idx(fashion[0])

    def test_a_pixel_that_is_no_number_is_placed(self, fashion):
        folder, arrays = fashion
        for name in (FILES[0], FILES[2]):
            replace(folder, name, arrays[name].astype(np.float32))
        assert load_idx(folder).train.images.dtype == np.float32
        spoiled = arrays[FILES[2]].astype(np.float32)
        spoiled[1, 0, 2] = np.nan
        replace(folder, FILES[2], spoiled)
        with pytest.raises(IdxError, match="a pixel is nan") as caught:
            load_idx(folder)
        assert caught.value.offset == 16 + 4 * 22

    def test_too_few_images(self, fashion):
        folder, arrays = fashion
        replace(folder, FILES[0], arrays[FILES[0]][:11])
        replace(folder, FILES[1], arrays[FILES[1]][:11])
        with pytest.raises(ValueError, match="too few"):
            load_idx(folder)

    def test_colour_images(self, fashion):
        folder, _ = fashion
        for name, n in ((FILES[0], 120), (FILES[2], 30)):
            replace(folder, name, np.zeros((n, 4, 4, 3), np.uint8))
        found = load_idx(folder)
        assert isinstance(found, Digits)
        assert found.test.images.shape == (30, 4, 4, 3)
