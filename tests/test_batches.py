"""Batches: every target exactly once, true contexts, little padding, and the count known beforehand."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bptt.errors import InputError
from bptt.text import batches

quick = settings(deadline=None, max_examples=100)
lengths = st.lists(st.integers(0, 60), max_size=60)
sizes = st.integers(1, 9)
seeds = st.none() | st.integers(0, 99)


def generator(seed):
    return None if seed is None else np.random.default_rng(seed)


def make(targets):
    """Sequences in which every symbol occurs once in the whole corpus, from 1 upwards (0 is the padding)."""
    ends = np.cumsum([0, *(n + 1 for n in targets)]) + 1
    return [np.arange(a, b, dtype=np.uint16) for a, b in pairwise(ends)]


def groups(epoch):
    """The windows of an epoch, from one start to the next."""
    found = []
    for batch in epoch:
        if batch.start:
            found.append([])
        found[-1].append(batch)
    return found


def columns(group):
    """The sequences that lie side by side in the windows of a group, each put together again."""
    x, y, mask = (np.concatenate([getattr(batch, name) for batch in group]) for name in ("x", "y", "mask"))
    found = []
    for b in range(x.shape[1]):
        n = int(mask[:, b].sum())
        assert (mask[:n, b] == 1).all()  # the padding is at the end
        assert (x[1:n, b] == y[: n - 1, b]).all()  # x is y one step later, across the windows too
        found.append([*x[:1, b].tolist(), *y[:n, b].tolist()])
    return found


def check_form(batch, width, length):
    assert batch.x.shape == batch.y.shape == batch.mask.shape
    assert 1 <= batch.x.shape[0] <= length
    assert 1 <= batch.x.shape[1] <= width
    assert (batch.x.dtype, batch.y.dtype, batch.mask.dtype) == (np.int64, np.int64, np.float64)
    assert batch.x.flags.c_contiguous
    assert batch.y.flags.c_contiguous


@quick
@given(lengths, sizes, sizes, seeds)
@example([20, 19], 2, 100, None)  # 1 of 40: together
@example([10, 9], 2, 100, None)  # 1 of 20, just 5 %: apart
def test_lines_give_every_sequence_once_with_little_padding(targets, width, length, seed):
    sequences = make(targets)
    epoch = list(batches.lines(sequences, width, length, generator(seed)))
    for batch in epoch:
        check_form(batch, width, length)
    for group in groups(epoch):
        mask = np.concatenate([batch.mask for batch in group])
        assert 20 * (mask == 0).sum() < mask.size
        assert all(batch.x.shape[0] == length for batch in group[:-1])
    found = sorted(column for group in groups(epoch) for column in columns(group) if len(column) > 1)
    assert found == sorted(s.tolist() for s in sequences if len(s) > 1)
    assert batches.lines_count(sequences, width, length) == len(epoch)


@pytest.mark.parametrize(
    ("targets", "widths"), [([20, 19], [2]), ([10, 9], [1, 1]), ([7] * 5, [2, 2, 1]), ([1, 9, 1, 9], [2, 2])]
)
def test_lines_share_a_batch_until_it_is_full_or_unlike(targets, widths):
    assert [batch.x.shape[1] for batch in batches.lines(make(targets), 2, 100, None)] == widths


@quick
@given(st.integers(0, 300), sizes, sizes)
def test_a_stream_gives_every_target_once_after_its_true_character(targets, width, length):
    (sequence,) = make([targets])
    epoch = list(batches.stream(sequence, width, length))
    for batch in epoch:
        check_form(batch, width, length)
        counts = batch.mask == 1
        assert (batch.y[counts] == batch.x[counts] + 1).all()  # from the first step of every stream on
    found = Counter(int(y) for batch in epoch for y in batch.y[batch.mask == 1])
    assert found == Counter(sequence[1:].tolist())
    assert [batch.start for batch in epoch] == [True] * (targets > 0) + [False] * (len(epoch) - 1)
    assert batches.stream_count(sequence, width, length) == len(epoch)
    if epoch:
        streams = columns(epoch)
        assert len(streams) == min(width, max(1, targets // length))
        assert max(map(len, streams)) - min(map(len, streams)) <= 1
        assert [y for s in streams for y in s[1:]] == sequence[1:].tolist()


def test_one_window_after_the_other():
    epoch = list(batches.windows([np.array([1, 2, 3, 4, 5, 6]), np.array([7, 8, 9])], 3))
    assert [(b.x.tolist(), b.y.tolist(), b.mask.tolist(), b.start) for b in epoch] == [
        ([[1, 7], [2, 8], [3, 9]], [[2, 8], [3, 9], [4, 0]], [[1, 1], [1, 1], [1, 0]], True),
        ([[4, 0], [5, 0]], [[5, 0], [6, 0]], [[1, 0], [1, 0]], False),
    ]


@quick
@given(lengths, sizes, sizes, st.integers(0, 99))
def test_the_seed_decides_the_epoch(targets, width, length, seed):
    sequences = make(targets)
    one, two = (list(batches.lines(sequences, width, length, generator(seed))) for _ in range(2))
    assert [b.x.tolist() for b in one] == [b.x.tolist() for b in two]


def test_epochs_of_one_generator_differ_in_order_and_company():
    sequences = make([5] * 40 + [9] * 40)
    rng = np.random.default_rng(0)

    def epoch():
        return [frozenset(b.x[0].tolist()) for b in batches.lines(sequences, 8, 20, rng)]

    one, two = epoch(), epoch()
    assert one != two
    assert set(one) != set(two)


def test_a_generator_mixes_long_and_short_batches():
    steps = [b.x.shape[0] for b in batches.lines(make(list(range(1, 31))), 1, 99, generator(0))]
    assert sorted(steps) == list(range(1, 31))
    assert steps not in (sorted(steps), sorted(steps, reverse=True))


def test_without_a_generator_the_order_is_by_length():
    epoch = list(batches.lines(make([3, 9, 5, 9]), 2, 100, None))
    assert [b.y.shape[0] for b in epoch] == [9, 5, 3]


def test_an_epoch_may_come_from_a_memory_map(tmp_path):
    (sequence,) = make([100])
    stored = np.memmap(tmp_path / "ids", sequence.dtype, "w+", shape=sequence.shape)
    stored[:] = sequence
    for a, b in zip(batches.stream(stored, 4, 7), batches.stream(sequence, 4, 7), strict=True):
        assert a.x.tolist() == b.x.tolist()


@pytest.mark.parametrize(("width", "length"), [(0, 5), (5, 0), (-1, 5)])
def test_a_batch_of_nothing_is_refused(width, length):
    sequences = make([3, 4])
    calls = [
        lambda: list(batches.lines(sequences, width, length, None)),
        lambda: list(batches.stream(sequences[0], width, length)),
        lambda: batches.lines_count(sequences, width, length),
        lambda: batches.stream_count(sequences[0], width, length),
    ]
    for call in calls:
        with pytest.raises(InputError, match="at least 1"):
            call()
