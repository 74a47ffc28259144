"""Streams decode to what was encoded, are as short as theory says, and broken ones are refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from compresskit import entropy

COUNTS = hnp.arrays(np.int64, st.integers(1, 12), elements=st.integers(0, 50))
SYMBOLS = hnp.arrays(np.uint8, st.integers(0, 60), elements=st.integers(0, 9))


def shortest_total(counts):
    """Try all lengths that a prefix code may have (Kraft's inequality)."""
    present = sorted((c for c in counts if c), reverse=True)
    if len(present) < 2:
        return sum(present)
    candidates = itertools.combinations_with_replacement(range(1, len(present)), len(present))
    return min(
        sum(c * length for c, length in zip(present, lengths, strict=True))
        for lengths in candidates
        if sum(0.5**length for length in lengths) <= 1
    )


class TestCounts:
    def test_counts(self):
        np.testing.assert_array_equal(entropy.count_symbols(np.array([[0, 2], [2, 2]])), [1, 0, 3])
        np.testing.assert_array_equal(entropy.count_symbols(np.array([1]), 3), [0, 1, 0])

    @pytest.mark.parametrize(
        ("symbols", "message"), [([-1], "holds -1"), ([0.5], "dtype float64"), ([4], "holds 4; with 4 levels")]
    )
    def test_refuses(self, symbols, message):
        with pytest.raises(ValueError, match=message):
            entropy.count_symbols(np.array(symbols), 4)


class TestEntropy:
    @given(COUNTS.filter(np.any))
    def test_equals_scipy(self, counts):
        assert entropy.entropy(counts) == pytest.approx(stats.entropy(counts, base=2), abs=1e-12)

    def test_nothing_and_one_kind(self):
        assert entropy.entropy([]) == entropy.entropy([0, 0]) == entropy.entropy([0, 7]) == 0

    @pytest.mark.parametrize("counts", [[-1, 2], [np.nan], [[1, 2]]])
    def test_refuses(self, counts):
        with pytest.raises(ValueError, match="counts of shape"):
            entropy.entropy(counts)


class TestHuffman:
    @given(hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(0, 30)))
    def test_no_prefix_code_is_shorter(self, counts):
        assert (counts * entropy.huffman_lengths(counts)).sum() == shortest_total(counts.tolist())

    @given(COUNTS.filter(lambda counts: np.count_nonzero(counts) > 1))
    def test_within_a_bit_of_the_entropy(self, counts):
        mean = (counts * entropy.huffman_lengths(counts)).sum() / counts.sum()
        assert entropy.entropy(counts) - 1e-9 <= mean < entropy.entropy(counts) + 1

    @given(COUNTS)
    def test_no_word_begins_another(self, counts):
        lengths = entropy.huffman_lengths(counts)
        codes = entropy.canonical_codes(lengths)
        words = [format(int(codes[s]), f"0{lengths[s]}b") for s in np.flatnonzero(lengths)]
        assert not any(a.startswith(b) for a, b in itertools.permutations(words, 2))
        assert len(words) == np.count_nonzero(counts)

    def test_canonical_codes_of_the_deflate_standard(self):
        """RFC 1951, section 3.2.2: A to H with lengths 3, 3, 3, 3, 3, 2, 4, 4."""
        codes = entropy.canonical_codes(np.array([3, 3, 3, 3, 3, 2, 4, 4], np.uint8))
        np.testing.assert_array_equal(codes, [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111])

    def test_textbook_example(self):
        np.testing.assert_array_equal(entropy.huffman_lengths([45, 13, 12, 16, 9, 5]), [1, 3, 3, 3, 4, 4])

    def test_probabilities_do_as_well_as_counts(self):
        np.testing.assert_array_equal(entropy.huffman_lengths([0.5, 0.25, 0.2, 0.05]), [1, 2, 3, 3])

    def test_very_uneven_counts(self):
        fibonacci = [1, 1]
        while len(fibonacci) < 40:
            fibonacci.append(fibonacci[-1] + fibonacci[-2])
        lengths = entropy.huffman_lengths(fibonacci)
        assert lengths.max() == 39
        symbols = np.arange(40)
        np.testing.assert_array_equal(
            entropy.huffman_decode(entropy.huffman_encode(symbols, lengths), lengths, 40), symbols
        )

    @given(SYMBOLS)
    def test_there_and_back(self, symbols):
        lengths = entropy.huffman_lengths(entropy.count_symbols(symbols, 10))
        stream = entropy.huffman_encode(symbols, lengths)
        np.testing.assert_array_equal(entropy.huffman_decode(stream, lengths, symbols.size), symbols)
        assert len(stream) == (int(lengths[symbols].sum()) + 7) // 8

    @given(SYMBOLS.filter(len), st.data())
    def test_corrupt_streams_are_refused_or_give_symbols_that_have_words(self, symbols, data):
        lengths = entropy.huffman_lengths(entropy.count_symbols(symbols, 10))
        stream = bytearray(entropy.huffman_encode(symbols, lengths))
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            decoded = entropy.huffman_decode(bytes(stream), lengths, symbols.size)
        except ValueError:
            return
        assert decoded.size == symbols.size
        assert lengths[decoded].all()

    @given(SYMBOLS.filter(len))
    def test_cut_and_lengthened_streams_are_refused(self, symbols):
        lengths = entropy.huffman_lengths(entropy.count_symbols(symbols, 10))
        stream = entropy.huffman_encode(symbols, lengths)
        with pytest.raises(ValueError, match="it is cut off"):
            entropy.huffman_decode(stream[:-1], lengths, symbols.size)
        with pytest.raises(ValueError, match="bytes long, but"):
            entropy.huffman_decode(stream + b"\0", lengths, symbols.size)

    def test_absurd_count_is_refused_before_memory_is_taken(self):
        with pytest.raises(ValueError, match="cut off"):
            entropy.huffman_decode(b"\0", np.array([1, 1], np.uint8), 10**15)

    def test_bits_that_are_no_word(self):
        with pytest.raises(ValueError, match="no code word after 1 of 2"):
            entropy.huffman_decode(b"\x40", np.array([1, 0], np.uint8), 2)

    def test_refuses_lengths_that_no_code_has(self):
        with pytest.raises(ValueError, match="too short"):
            entropy.canonical_codes(np.array([1, 1, 1], np.uint8))
        with pytest.raises(ValueError, match="holds 57"):
            entropy.canonical_codes(np.array([57], np.uint8))

    def test_refuses_a_symbol_without_a_word(self):
        with pytest.raises(ValueError, match="holds 1, which has no code word"):
            entropy.huffman_encode(np.array([0, 1]), np.array([1, 0], np.uint8))


class TestGaps:
    ROWS = hnp.arrays(np.int16, hnp.array_shapes(max_dims=2, max_side=40), elements=st.sampled_from([0] * 9 + [3]))

    @given(ROWS, st.integers(1, 6))
    def test_there_and_back(self, row, bits):
        coded = entropy.gap_encode(row, bits)
        np.testing.assert_array_equal(entropy.gap_decode(coded), row.ravel())
        assert coded.gaps.size == 0 or 0 <= coded.gaps.min() <= coded.gaps.max() < 2**bits

    @given(ROWS, st.integers(1, 6))
    def test_as_few_entries_as_a_walk_along_the_row(self, row, bits):
        entries, skipped = [], 0
        for value in row.ravel().tolist():
            if value or skipped == 2**bits - 1:
                entries.append((skipped, value))
                skipped = 0
            else:
                skipped += 1
        while entries and entries[-1][1] == 0:
            entries.pop()
        coded = entropy.gap_encode(row, bits)
        assert list(zip(coded.gaps.tolist(), coded.values.tolist(), strict=True)) == entries

    def test_figure_of_deep_compression(self):
        """Entries at places 1, 4 and 15 with 3 bits: the last gap, 10, is broken by a zero after 7."""
        row = np.zeros(16)
        row[[1, 4, 15]] = 3.4, 0.9, 1.7
        coded = entropy.gap_encode(row, 3)
        np.testing.assert_array_equal(coded.gaps, [1, 2, 7, 2])
        np.testing.assert_array_equal(coded.values, [3.4, 0.9, 0, 1.7])

    @pytest.mark.parametrize("bits", [0, 33])
    def test_refuses_bits(self, bits):
        with pytest.raises(ValueError, match=f"bits is {bits}"):
            entropy.gap_encode(np.ones(3), bits)

    @pytest.mark.parametrize(
        ("gaps", "values", "message"),
        [([3, 3], [1, 1], "place 7 of a row of 5"), ([-1], [1], "holds -1"), ([1], [1, 1], "a gap for each value")],
    )
    def test_refuses_what_was_altered(self, gaps, values, message):
        with pytest.raises(ValueError, match=message):
            entropy.gap_decode(entropy.Gaps(np.array(gaps), np.array(values), 5))


class TestRangeCoder:
    @pytest.fixture(autouse=True)
    def coder(self):
        pytest.importorskip("constriction")

    @given(SYMBOLS)
    def test_there_and_back(self, symbols):
        counts = entropy.count_symbols(symbols, 10)
        stream = entropy.range_encode(symbols, counts)
        np.testing.assert_array_equal(entropy.range_decode(stream, counts, symbols.size), symbols)

    @pytest.mark.parametrize("seed", range(5))
    def test_within_two_words_of_the_entropy(self, seed):
        rng = np.random.default_rng(seed)
        symbols = np.minimum(rng.geometric(rng.uniform(0.1, 0.9), size=5000) - 1, 15)
        counts = entropy.count_symbols(symbols, 16)
        stream = entropy.range_encode(symbols, counts)
        floor = entropy.entropy(counts) * symbols.size / 8
        assert floor - 1 <= len(stream) <= floor * 1.001 + 8
        huffman = entropy.huffman_encode(symbols, entropy.huffman_lengths(counts))
        assert len(stream) <= len(huffman) + 8

    def test_one_kind_takes_nothing(self):
        assert entropy.range_encode(np.full(100, 3), [0, 0, 0, 100]) == b""
        np.testing.assert_array_equal(entropy.range_decode(b"", [0, 0, 0, 100], 4), [3] * 4)

    def test_refuses(self):
        with pytest.raises(ValueError, match="holds 1, which counts say does not occur"):
            entropy.range_encode(np.array([0, 1]), [5, 0])
        with pytest.raises(ValueError, match="cut off"):
            entropy.range_decode(b"abc", [1, 1], 4)
        with pytest.raises(ValueError, match="counts are all 0"):
            entropy.range_decode(b"", [0, 0], 4)

    @given(st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4]), st.integers(1, 200))
    def test_corrupt_streams_are_refused_or_give_symbols_that_occur(self, stream, count):
        counts = np.array([5, 0, 90, 1])
        try:
            decoded = entropy.range_decode(stream, counts, count)
        except ValueError:
            return
        assert counts[decoded].all()


def test_range_coder_that_is_not_there_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(ImportError, match="Linux on Arm"):
        entropy.range_encode(np.array([0, 1]), [1, 1])


def test_the_container_is_found_here_too():
    packed = entropy.pack(b"\1\0\0" * 100, [entropy.Stretch(0, 300, 8)])
    assert entropy.unpack(packed) == b"\1\0\0" * 100
