"""Batches: every target exactly once, true contexts, little padding, and the count known beforehand."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bptt.errors import InputError
from bptt.text import batches, tokens
from bptt.text.sequences import Sequences

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


def pack(sequences):
    """The same sequences in one array."""
    lengths = np.array([len(s) - 1 for s in sequences], np.uint8)
    starts = np.cumsum([0, *(len(s) for s in sequences)])[:-1].astype(np.uint16)
    return Sequences(np.concatenate([*sequences, np.zeros(0, np.uint16)]), starts, lengths)


def values(epoch):
    return [(b.x.tolist(), b.y.tolist(), b.mask.tolist(), b.start) for b in epoch]


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


@quick
@given(lengths, sizes, sizes, seeds, st.integers(1, 20))
def test_lines_in_one_array_are_lines_in_many(targets, width, length, seed, piece):
    with pytest.MonkeyPatch.context() as patch:
        expected = values(batches.lines(make(targets), width, length, generator(seed)))
        patch.setattr(tokens, "PIECE", piece)
        patch.setattr(batches, "_READ", piece)
        assert values(batches.lines(pack(make(targets)), width, length, generator(seed))) == expected


@quick
@given(lengths, sizes, sizes, seeds, st.integers(1, 20))
def test_an_epoch_of_lines_can_begin_anywhere(targets, width, length, seed, piece):
    sequences = pack(make(targets))
    epoch = values(batches.lines(sequences, width, length, generator(seed)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "PIECE", piece)
        for first in range(len(epoch) + 2):
            assert values(batches.lines(sequences, width, length, generator(seed), first)) == epoch[first:]


@quick
@given(st.integers(0, 300), sizes, sizes)
def test_an_epoch_of_a_stream_can_begin_anywhere(targets, width, length):
    (sequence,) = make([targets])
    epoch = values(batches.stream(sequence, width, length))
    for first in range(len(epoch) + 2):
        assert values(batches.stream(sequence, width, length, first)) == epoch[first:]


@pytest.mark.parametrize("start", [batches.lines, batches.stream])
def test_what_is_left_out_is_not_built(monkeypatch, start):
    rows, built = pack(make([9] * 1000)), []
    monkeypatch.setattr(batches, "Batch", lambda *_, **__: built.append(None))
    batch, length = (10, 3) if start is batches.lines else (10, 9)
    arguments = (rows, batch, length, generator(0)) if start is batches.lines else (rows.ids, batch, length)
    with pytest.raises(AttributeError):  # None has no x
        list(start(*arguments, 100))
    assert len(built) == 1


@quick
@given(lengths, sizes)
def test_the_most_lines_in_a_batch_are_known_beforehand(targets, width):
    epoch = list(batches.lines(make(targets), width, 100, None))
    found = batches.lines_width(make(targets), width)
    assert found == max((b.x.shape[1] for b in epoch), default=found)


@quick
@given(lengths, sizes)
def test_groups_are_those_of_a_walk_from_the_longest_to_the_shortest(targets, width):
    descending, first, padding, borders = sorted(targets, reverse=True), 0, 0, [0]
    for i, n in enumerate(descending):
        padding += descending[first] - n
        if i - first == width or (i > first and 20 * padding >= descending[first] * (i - first + 1)):
            borders.append(i)
            first, padding = i, 0
    expected = [*borders, len(descending)] if targets else [0]
    if 0 not in targets:
        assert batches._borders(np.array(descending, np.uint8), width).tolist() == expected


def test_each_order_of_lines_of_one_length_is_as_likely_as_any_other():
    rng = np.random.default_rng(0)
    counts = Counter(tuple(batches._order(np.array([1, 2, 1, 2, 1]), rng).tolist()) for _ in range(1200))
    assert len(counts) == 12
    assert all(60 < count < 140 for count in counts.values())
    assert {order[:2] for order in counts} == {(1, 3), (3, 1)}


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


@pytest.mark.parametrize("short", [0, 1000])
def test_an_epoch_may_come_from_a_file(tmp_path, monkeypatch, short):
    monkeypatch.setattr(tokens, "_SHORT", short)
    monkeypatch.setattr(batches, "_READ", 3)
    sequences = pack(make([5, 9, 9, 30, 2, 5]))
    (tmp_path / "ids").write_bytes(sequences.ids.tobytes())
    with (tmp_path / "ids").open("rb") as file:
        stored = Sequences(tokens.mapped(file, sequences.ids.dtype), sequences.starts, sequences.lengths)
    for some in (lambda s: batches.stream(s.ids, 4, 7), lambda s: batches.lines(s, 2, 7, generator(0))):
        assert values(some(stored)) == values(some(sequences))


@pytest.mark.parametrize(("width", "length"), [(0, 5), (5, 0), (-1, 5)])
def test_a_batch_of_nothing_is_refused(width, length):
    sequences = make([3, 4])
    calls = [
        lambda: list(batches.lines(sequences, width, length, None)),
        lambda: list(batches.stream(sequences[0], width, length)),
        lambda: batches.lines_count(sequences, width, length),
        lambda: batches.stream_count(sequences[0], width, length),
        lambda: batches.lines_width(sequences, min(width, length)),
    ]
    for call in calls:
        with pytest.raises(InputError, match="at least 1"):
            call()
