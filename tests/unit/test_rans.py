"""What is written is read, in as many bits as theory says, with one lane and with many."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compresskit import entropy, rans


@st.composite
def messages(draw):
    """Draw symbols, the table of each, tables in which each has slots, and a number of lanes."""
    counts = draw(
        st.lists(hnp.arrays(np.int64, st.integers(1, 7), elements=st.integers(1, 1000)), min_size=1, max_size=3)
    )
    which = draw(hnp.arrays(np.int64, st.integers(0, 80), elements=st.integers(0, len(counts) - 1)))
    symbols = np.array([draw(st.integers(0, counts[table].size - 1)) for table in which], dtype=np.int64)
    return (
        symbols,
        which,
        rans.Tables.of([rans.slots_for(c) for c in counts]),
        draw(st.sampled_from([1, 2, 3, 16, 100])),
    )


class TestSlots:
    @given(hnp.arrays(np.int64, st.integers(1, 300), elements=st.integers(0, 10**9)).filter(np.any))
    def test_add_up_and_leave_nobody_out(self, counts):
        slots = rans.slots_for(counts)
        assert slots.sum() == rans.SLOTS
        np.testing.assert_array_equal(slots > 0, counts > 0)

    @given(hnp.arrays(np.int64, st.integers(2, 12), elements=st.sampled_from([1, 2, 9, 77, 10**5, 10**6, 3 * 10**6])))
    @example(np.array([9, 1, 10**5, 10**5, 10**5, 10**5]))
    def test_moving_a_slot_saves_next_to_nothing(self, counts):
        """A symbol worth 1.5 slots that is rounded to one would gain 1.5 bits, for 1.443 that the slot costs elsewhere.

        The unit is a bit for every 2^16 symbols; to search for these bits would change what is written.
        """
        slots = rans.slots_for(counts)

        def bits(slots):
            return -(counts * np.log2(slots / rans.SLOTS)).sum()

        for giver, taker in np.ndindex(slots.size, slots.size):
            moved = slots.copy()
            moved[giver] -= 1
            moved[taker] += 1
            if moved.min() > 0:
                assert bits(moved) >= bits(slots) * (1 - 1e-12) - 0.06 * counts.sum() / rans.SLOTS - 1e-6

    @pytest.mark.parametrize("counts", [[], [0, 0], [-1, 5], np.ones(rans.SLOTS + 1)])
    def test_refuses(self, counts):
        with pytest.raises(ValueError, match="counts of shape"):
            rans.slots_for(counts)

    def test_tables_that_do_not_add_up_are_refused(self):
        with pytest.raises(ValueError, match=r"tables\[1\]"):
            rans.Tables.of([np.array([rans.SLOTS]), np.array([5, 6])])


class TestCoder:
    @given(messages())
    def test_there_and_back(self, message):
        symbols, which, tables, lanes = message
        stream = rans.encode(symbols, which, tables, lanes)
        np.testing.assert_array_equal(rans.decode(stream, which, tables, lanes), symbols)

    @given(messages())
    def test_one_lane_in_plain_python_and_in_numpy_write_the_same(self, message):
        symbols, which, tables, _ = message
        places = tables.begins[which] + symbols
        slots, starts = tables.slots[places], tables.starts[places]
        plain, arrays = rans._encode_one_lane(slots.tolist(), starts.tolist()), rans._encode_lanes(slots, starts, 1)
        for one, other in zip(plain, arrays, strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9, 0.999])
    @pytest.mark.parametrize("lanes", [1, 64])
    def test_length_is_the_entropy_and_the_states(self, zeros, lanes):
        rng = np.random.default_rng(0)
        symbols = rng.integers(1, 16, size=50_000) * (rng.random(50_000) >= zeros)
        counts = entropy.count_symbols(symbols)
        tables = rans.Tables.of([rans.slots_for(counts)])
        stream = rans.encode(symbols, np.zeros_like(symbols), tables, lanes)
        floor = entropy.entropy(counts) * symbols.size / 8
        assert floor <= len(stream) <= floor * 1.001 + 8 * lanes + 4

    @pytest.mark.parametrize("lanes", [1, 2])
    def test_a_state_that_is_just_too_large_moves_a_word_out(self, lanes):
        """One slot of 2^16 takes the first state, 2^31, to 2^47: exactly where the next such symbol has no room."""
        symbols, tables = np.zeros(2 * lanes, int), rans.Tables.of([np.array([1, rans.SLOTS - 1])])
        stream = rans.encode(symbols, symbols, tables, lanes)
        assert len(stream) == (8 + 4) * lanes
        assert not rans.decode(stream, symbols, tables, lanes).any()

    def test_one_kind_takes_its_states_only(self):
        tables = rans.Tables.of([np.array([0, rans.SLOTS])])
        stream = rans.encode(np.ones(1000, int), np.zeros(1000, int), tables)
        assert len(stream) == 8
        assert rans.decode(stream, np.zeros(1000, int), tables).all()

    def test_refuses_a_symbol_without_slot(self):
        with pytest.raises(ValueError, match="holds 0, which has no slot"):
            rans.encode(np.array([1, 0]), np.zeros(2, int), rans.Tables.of([np.array([0, rans.SLOTS])]))

    @given(messages(), st.data())
    def test_corrupt_streams_are_refused_or_read_as_symbols_with_slots(self, message, data):
        symbols, which, tables, lanes = message
        stream = bytearray(rans.encode(symbols, which, tables, lanes))
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            decoded = rans.decode(bytes(stream), which, tables, lanes)
        except ValueError as refused:
            assert "cut off" in str(refused) or "altered" in str(refused)
            return
        assert tables.slots[tables.begins[which] + decoded].all()

    @given(messages())
    def test_cut_and_lengthened_streams_are_refused(self, message):
        symbols, which, tables, lanes = message
        stream = rans.encode(symbols, which, tables, lanes)
        for wrong in (stream[:-1], stream[:-4], stream + b"\0\0\0\0", b""):
            with pytest.raises(ValueError, match=r"cut off|altered"):
                rans.decode(wrong, which, tables, lanes)
