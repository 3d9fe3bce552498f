"""Sequences: an array of ids behaves like a list of arrays, wherever it is."""

import numpy as np
import pytest

from bptt.data import sequences, token_store
from bptt.data.sequences import Sequences
from bptt.data.vocabulary import BYTES


@pytest.fixture(params=["memory", "map"])
def all_sequences(request, tmp_path):
    """Five sequences of which the third begins beyond what a byte can hold, and only the sum with its length would not fit."""
    ids = np.arange(600, dtype="<u2")
    if request.param == "map":
        (tmp_path / "ids").write_bytes(ids.tobytes())
        with (tmp_path / "ids").open("rb") as file:
            ids = token_store.memory_map(file, ids.dtype)
    return Sequences(ids, np.array([0, 5, 9, 250, 251], np.uint8), np.array([4, 2, 255, 0, 200], np.uint8))


EXPECTED = [range(5), range(5, 8), range(9, 265), range(250, 251), range(251, 452)]


def as_lists(some):
    return [s.tolist() for s in some]


def test_each_sequence_is_a_slice_of_the_ids(all_sequences):
    expected = [list(one) for one in EXPECTED]
    assert len(all_sequences) == 5
    assert as_lists(all_sequences) == expected
    assert all_sequences[-1].tolist() == expected[-1]
    assert (all_sequences.lengths.tolist(), all_sequences[0].dtype) == ([4, 2, 255, 0, 200], "uint16")
    with pytest.raises(IndexError):
        all_sequences[5]


def test_slices_and_take_select_sequences(all_sequences):
    expected = [list(one) for one in EXPECTED]
    assert as_lists(all_sequences[1:4:2]) == expected[1:4:2]
    assert as_lists(all_sequences.take(np.array([4, 0, 0]))) == [expected[4], expected[0], expected[0]]
    assert as_lists(all_sequences.take(np.array([True, False, False, True, False]))) == [expected[0], expected[3]]
    assert len(all_sequences[:0]) == 0
    assert all_sequences[1:].ids is all_sequences.ids


@pytest.mark.parametrize(("longest", "dtype"), [(254, "uint8"), (255, "uint16"), (70_000, "uint32")])
def test_starts_and_lengths_have_the_smallest_dtype(longest, dtype):
    raw = b"a\n" + b"b" * longest
    found = sequences.lines(token_store.in_memory([BYTES.encode(raw)], BYTES))
    assert (found.starts.tolist(), found.lengths.tolist()) == ([0, 2], [2, longest + 1])
    assert found.lengths.dtype == dtype
    assert found.starts.dtype == np.min_scalar_type(len(raw) + 2)


def test_shuffled_gives_the_order_of_a_permutation():
    for count in (0, 1, 255, 256, 1000):
        order = sequences.shuffled(count, np.random.default_rng(7))
        assert order.tolist() == np.random.default_rng(7).permutation(count).tolist()
        assert sequences.shuffled(count, None).tolist() == list(range(count))
