"""Data of one's own: every form it may come in, three parts that share nothing, and what is refused."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compresskit.data import Digits, Split, load_data
from compresskit.data import bring as module

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (60, 6, 5), np.uint8)
LABELS = np.arange(60) % 3


def everything(data: Digits) -> list[tuple[bytes, int]]:
    """All examples with their labels, in an order that does not depend on the parts."""
    parts = (data.train, data.validation, data.test)
    return sorted(
        (image.tobytes(), int(label)) for part in parts for image, label in zip(part.images, part.labels, strict=True)
    )


def expected(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


class Dataset:
    """Behaves as a `tf.data.Dataset` where `load_data` looks."""

    def __init__(self, elements):
        self.elements = elements

    def as_numpy_iterator(self):
        return iter(self.elements)


class Endless(Dataset):
    """Says that it has no end, as `tf.data` does of what is repeated."""

    def cardinality(self):
        return -1


HOLED = np.where(np.arange(240).reshape(60, 4) == 30, np.nan, 0)


def test_what_is_ready_stays_as_it_is():
    split = Split(IMAGES, LABELS)
    assert load_data(split) is split


@settings(deadline=None, max_examples=40)
@given(st.integers(24, 200))
def test_one_pair_becomes_three_parts_that_share_nothing(n):
    images = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    data = load_data((images, np.arange(n) % 2))
    assert everything(data) == expected(images, np.arange(n) % 2)
    assert len(data.test) == n // 6 and len(data.validation) == (n - n // 6) // 12 > 0
    assert load_data((images, np.arange(n) % 2)).test == data.test, "always the same"


def test_two_pairs_keep_their_test_part():
    data = load_data(((IMAGES[:48], LABELS[:48]), (IMAGES[48:], LABELS[48:])))
    assert np.array_equal(data.test.images, IMAGES[48:]) and everything(data) == expected()


@pytest.mark.parametrize(
    "form", ["examples", "batches", "uneven batches", "one-hot, as many classes as rows", "parts", "named parts"]
)
def test_data_sets(form):
    pairs = list(zip(IMAGES, LABELS, strict=True))
    batches = [(IMAGES[i : i + 7], LABELS[i : i + 7]) for i in range(0, 60, 7)]
    source = {
        "examples": Dataset(pairs),
        "batches": Dataset([*batches[:-1], (IMAGES[56:58], LABELS[56:58]), (IMAGES[58:], LABELS[58:])]),
        "uneven batches": Dataset(batches),
        "one-hot, as many classes as rows": Dataset([(image, np.eye(6)[label]) for image, label in pairs]),
        "parts": (Dataset(pairs[:48]), Dataset(pairs[48:])),
        "named parts": {"train": Dataset(pairs[:48]), "test": Dataset(pairs[48:])},
    }[form]
    assert everything(load_data(source)) == expected()


def test_a_real_data_set_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    made = tf.data.Dataset.from_tensor_slices((IMAGES[..., None], LABELS))
    assert everything(load_data(made.batch(9))) == expected(IMAGES[..., None])
    assert everything(load_data((made.take(48), made.skip(48)))) == expected(IMAGES[..., None])


@pytest.mark.parametrize(
    "labels",
    [np.eye(3)[LABELS], LABELS[:, None], LABELS.astype(np.float64), LABELS.astype(np.uint8), LABELS.tolist()],
    ids=["one-hot", "column", "float", "uint8", "list"],
)
def test_forms_of_labels(labels):
    assert everything(load_data((IMAGES, labels))) == expected()


def test_forms_of_images():
    assert everything(load_data((IMAGES.astype(np.int64), LABELS))) == expected()
    assert load_data((IMAGES / 255, LABELS)).train.images.dtype == np.float32
    assert load_data((IMAGES > 99, LABELS)).train.images.max() == 255


def test_a_table_of_whole_numbers_is_no_brightness():
    table = RANDOM.integers(0, 100, (60, 4))
    assert everything(load_data((table, LABELS))) == expected(table.astype(np.float32))
    assert load_data((table.astype(np.uint8), LABELS)).train.images.dtype == np.uint8
    assert load_data((table - 5000, LABELS)).train.images.min() < -4900


def test_a_data_set_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "MOST_ELEMENTS", 50)
    with pytest.raises(ValueError, match=r"more than 50 elements; give dataset.take"):
        load_data(Dataset(itertools.repeat((IMAGES[0], 1))))


def test_archives_of_arrays(tmp_path):
    np.savez(tmp_path / "one.npz", x=IMAGES, y=LABELS)
    np.savez_compressed(
        tmp_path / "two.npz", x_train=IMAGES[:48], y_train=LABELS[:48], x_test=IMAGES[48:], y_test=LABELS[48:]
    )
    assert everything(load_data(tmp_path / "one.npz")) == expected()
    assert everything(load_data(str(tmp_path / "two.npz"))) == expected()


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("bird", "cat", "dog")):
        (tmp_path / name).mkdir()
        for index, image in enumerate(IMAGES[label == LABELS]):
            Image.fromarray(image).save(tmp_path / name / f"{index}.png")
        (tmp_path / name / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_of_images(folder):
    assert everything(load_data(folder, grey=True)) == expected()
    coloured = load_data(folder, size=(8, 9))
    assert coloured.train.images.shape[1:] == (8, 9, 3) and coloured.train.images.dtype == np.uint8


def test_folders_for_training_and_test(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    folder.rename(root / "train")
    (root / "test" / "cat").mkdir(parents=True)
    Image.fromarray(IMAGES[0]).save(root / "test" / "cat" / "a.jpg")
    data = load_data(root, grey=True)
    assert len(data.test) == 1 and data.test.labels.tolist() == [1]
    (root / "test" / "horse").mkdir()
    with pytest.raises(ValueError, match="a class 'horse' that the training folder has not"):
        load_data(root)


def test_images_of_different_sizes_ask_for_a_size(folder):
    Image.fromarray(IMAGES[0, :5]).save(folder / "dog" / "wide.png")
    with pytest.raises(ValueError, match=r"give size=\(height, width\)"):
        load_data(folder)
    assert load_data(folder, size=(6, 5)).train.images.shape[1:] == (6, 5, 3)


def test_what_lies_about_in_folders(folder):
    (folder / "cat" / "._0.png").write_bytes(b"what macOS puts beside a file")
    (folder / "cat" / "folder.png").mkdir()
    (folder / "cat" / "loop").symlink_to(folder)
    (folder / "loop").symlink_to(folder)
    assert len(everything(load_data(folder, grey=True))) == 60
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe.png is no file"):
        load_data(folder)


def test_sixteen_bits_become_eight(folder):
    values = (np.arange(30, dtype=np.uint16) * 2184).reshape(6, 5)
    Image.fromarray(values).save(folder / "cat" / "deep.png")
    data = load_data(folder, grey=True)
    assert ((values / 257).round().astype(np.uint8).tobytes(), 1) in everything(data)


def test_classes_one_folder_deeper_are_pointed_at(folder):
    (folder / "photos").mkdir()
    for name in ("bird", "cat", "dog"):
        (folder / name).rename(folder / "photos" / name)
    with pytest.raises(ValueError, match=r"one deeper, as in .*photos/bird.*: give the folder that holds the classes"):
        load_data(folder)


@pytest.mark.parametrize("size", [16, (0, 14), (-3, 5), (12.5, 12), (100_000, 100_000)])
def test_sizes_that_cannot_be(folder, size):
    with pytest.raises(ValueError, match=r"size is .*give \(height, width\)|more than 4 GB"):
        load_data(folder, size=size)


class Payload:
    """Shows that it was unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_pickled_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.array([Payload()] * 30, object), y=LABELS[:30])
    with pytest.raises(ValueError, match=r"bad.npz: x holds pickled objects"):
        load_data(tmp_path / "bad.npz")


def test_damaged_files_are_named(folder, tmp_path):
    np.savez(tmp_path / "cut.npz", x=IMAGES, y=LABELS)
    whole = (tmp_path / "cut.npz").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.npz"):
            load_data(tmp_path / "cut.npz")
    (folder / "cat" / "broken.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"broken.png cannot be read as an image"):
        load_data(folder)


def test_an_archive_that_claims_more_than_fits_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BYTES", 1000)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((30, 100), np.uint8), y=np.zeros(30, int))
    with pytest.raises(ValueError, match="take a part"):
        load_data(tmp_path / "bomb.npz")
    with pytest.raises(ValueError, match="take a part"):
        load_data(Dataset([(IMAGES, LABELS)]))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, "data is a int"),
        ((IMAGES, LABELS[:-1]), "60 examples and 59 labels"),
        ((IMAGES[:10], LABELS[:10]), "10 examples are too few"),
        ((IMAGES, LABELS - 1), "classes are counted from 0"),
        ((IMAGES, LABELS + 0.5), "labels are whole numbers, and classes"),
        ((IMAGES, RANDOM.random((60, 3))), "not one-hot"),
        ((IMAGES, np.array(["cat"] * 60)), r"words or objects such as .*'cat'.*np.unique"),
        ((IMAGES, np.where(LABELS, LABELS, np.nan)), "label nan of example 0"),
        ((IMAGES, LABELS.astype(np.uint64) + 2**63), "label 9223372036854775808 of example 0"),
        ((np.full((60, 4), 1e300), LABELS), r"example 0 holds 1e\+300 at \[0\]"),
        ((HOLED, LABELS), r"example 7 holds nan at \[2\]"),
        ((np.ma.masked_array(np.zeros((60, 4)), HOLED != 0), LABELS), "masked in 1 places"),
        (([[1, 2], [3]] * 30, LABELS), "the examples are not all of one length"),
        ((np.zeros((60, 4), object), LABELS), r"astype\('float32'\)"),
        ((np.zeros((60, 2, 2, 2, 2)), LABELS), r"the shape \(2, 2, 2, 2\); give"),
        (Dataset([((IMAGES[0], IMAGES[0]), 1)]), "2 parts, one of which has 2 of its own"),
        (Dataset([(IMAGES[0], 1, 1)]), "one is of 3 parts"),
        (Dataset([{"image": IMAGES[0], "label": 1}]), "a dict of image, label"),
        (Endless(itertools.repeat((IMAGES[0], 1))), "repeats without end"),
        (Dataset(map(int, ["no"])), "failed at element 0 \\(ValueError\\): invalid literal"),
        ((IMAGES.astype(int) * 2, LABELS), "no brightness from 0 to 255"),
        ((np.full((60, 4), np.nan), LABELS), "finite"),
        ((np.array(["a"] * 60), LABELS), "give numbers, an example a row"),
        (((IMAGES, LABELS), (IMAGES[:, :3], LABELS)), "bring both into one form"),
        ({"train": (IMAGES, LABELS)}, "give it 'train' and 'test'"),
        (Dataset([]), "the data set is empty"),
        (Dataset([IMAGES]), "must be"),
        (Dataset([(IMAGES[0], 1), (IMAGES[0, :2], 1)]), "resize them first"),
        ("nowhere", "no folder and no .npz file"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(source, words):
    with pytest.raises(ValueError, match=words):
        load_data(source)


@pytest.mark.parametrize("shape", ["(60, 100000000, 28)", "(-1, 28)", f"({2**62}, {2**62})", "__import__('os')"])
def test_an_array_that_says_it_is_another_is_refused(tmp_path, shape):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    held = io.BytesIO()
    np.save(held, LABELS)
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(99))
        archive.writestr("y.npy", held.getvalue())
    with pytest.raises(ValueError, match=r"big\.npz: (x .*damaged|more than 4 GB)"):
        load_data(tmp_path / "big.npz")


def test_what_is_called_an_archive_and_is_none(tmp_path):
    np.save(tmp_path / "one.npy", IMAGES)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "two.npz").write_text("x, y")
    for name in ("one.npz", "two.npz"):
        with pytest.raises(ValueError, match=rf"{name} is no \.npz archive"):
            load_data(tmp_path / name)


def test_a_missing_idx_file_is_named(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no train-labels-idx1-ubyte|train-images-idx3-ubyte"):
        load_data(tmp_path)


def test_an_empty_folder_says_what_belongs_into_it(tmp_path):
    with pytest.raises(ValueError, match="images of each class into a folder of its own"):
        load_data(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="no images in it"):
        load_data(tmp_path)


def test_other_archives_name_what_they_hold(tmp_path):
    np.savez(tmp_path / "other.npz", a=IMAGES)
    with pytest.raises(ValueError, match=r"other.npz: it holds a; name the arrays"):
        load_data(tmp_path / "other.npz")


def test_a_path_that_climbs_out_of_an_archive_goes_nowhere(tmp_path):
    held = io.BytesIO()
    np.save(held, IMAGES)
    with zipfile.ZipFile(tmp_path / "climb.npz", "w") as archive:
        archive.writestr("../../x.npy", held.getvalue())
        archive.writestr("y.npy", pickle.dumps([1]))
    with pytest.raises(ValueError, match=r"climb\.npz"):
        load_data(tmp_path / "climb.npz")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["climb.npz"]
