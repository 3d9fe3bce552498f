"""Batches: every target exactly once, true contexts, and the count known beforehand; the same on any device."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt import backend as backends
from bptt.backend import Backend
from bptt.data import batches, token_store
from bptt.data.sequences import Sequences
from bptt.errors import InputError
from conftest import forbid_host_reads, make_sequences


def some_of(count):
    """Some numbers below a count: the first ones, the last ones and one between."""
    return sorted({0, 1, 2, count // 2, count - 3, count - 2, count - 1} & set(range(count)))


quick = settings(deadline=None, max_examples=100)
lengths = st.lists(st.integers(0, 60), max_size=60)
sizes = st.integers(1, 9)
seeds = st.none() | st.integers(0, 99)
HERE = backends.select("numpy", "float64")


def generator(seed):
    return None if seed is None else np.random.default_rng(seed)


def sequences_of(targets):
    """Sequences in which every symbol occurs once in the whole corpus, from 1 upwards (0 is the padding)."""
    ends = np.cumsum([0, *(n + 1 for n in targets)]) + 1
    return make_sequences([np.arange(a, b, dtype=np.uint16) for a, b in pairwise(ends)])


def read_batches(sequences, epoch, backend=HERE):
    """The batches of the windows of an epoch."""
    return list(map(batches.batch_reader(sequences.ids, backend), epoch))


def batch_values(sequences, epoch):
    return [
        (b.x.tolist(), b.y.tolist(), b.mask.tolist(), b.window.targets, b.window.start) for b in read_batches(sequences, epoch)
    ]


def widths(targets, batch):
    return [window.columns.shape[1] for window in batches.lines(sequences_of(targets), batch, 100, None)]


def groups(epoch):
    """The windows of an epoch, from one start to the next."""
    found = []
    for batch in epoch:
        if batch.window.start:
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
        assert (x[1:n, b] == y[: max(0, n - 1), b]).all()  # x is y one step later, across the windows too
        found.append([*x[:1, b].tolist(), *y[:n, b].tolist()])
    return found


def check_form(batch, width, length):
    assert batch.x.shape == batch.y.shape == batch.mask.shape
    assert 1 <= batch.x.shape[0] <= length
    assert 1 <= batch.x.shape[1] <= width
    assert (batch.x.dtype, batch.y.dtype, batch.mask.dtype) == (np.int64, np.int64, np.float64)
    assert batch.x.flags.c_contiguous
    assert batch.y.flags.c_contiguous
    assert batch.window.targets == batch.mask.sum()
    assert batch.window.lengths.tolist() == batch.mask.sum(axis=0).tolist()
    assert (batch.y[batch.mask == 0] == 0).all()
    assert (batch.x[1:][batch.mask[:-1] == 0] == 0).all()


@quick
@given(lengths, sizes, sizes, seeds)
@pytest.mark.parametrize("together", [1, 20, batches.GROUPED_AT_A_TIME])
def test_batches_of_lines_hold_each_sequence_once_longest_first(together, targets, width, length, seed):
    sequences = sequences_of(targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "GROUPED_AT_A_TIME", together)  # sequences of which the places are computed at a time
        epoch = read_batches(sequences, batches.lines(sequences, width, length, generator(seed)))
    for batch in epoch:
        check_form(batch, width, length)
    for group in groups(epoch):
        steps = sum(batch.window.lengths for batch in group).tolist()
        assert steps == sorted(steps, reverse=True)
        assert all(batch.x.shape[0] == length for batch in group[:-1])
    found = sorted(column for group in groups(epoch) for column in columns(group) if len(column) > 1)
    assert found == sorted(s.tolist() for s in sequences if len(s) > 1)
    assert batches.lines_count(sequences, width, length, generator(seed)) == len(epoch)


@quick
@given(lengths, sizes, sizes, seeds)
def test_an_epoch_of_lines_can_start_at_any_batch(targets, width, length, seed):
    sequences = sequences_of(targets)
    epoch = batch_values(sequences, batches.lines(sequences, width, length, generator(seed)))
    for first in some_of(len(epoch) + 2):
        assert batch_values(sequences, batches.lines(sequences, width, length, generator(seed), first)) == epoch[first:]


@quick
@given(st.lists(st.integers(1, 99), min_size=1, max_size=20) | st.just([0]), sizes, sizes, seeds)
def test_an_epoch_of_streams_can_start_at_any_batch(targets, width, length, seed):
    texts = sequences_of(targets)
    epoch = batch_values(texts, batches.stream(texts, width, length, generator(seed)))
    for first in some_of(len(epoch) + 2):
        assert batch_values(texts, batches.stream(texts, width, length, generator(seed), first)) == epoch[first:]


@quick
@given(st.lists(st.integers(1, 99), min_size=2, max_size=20), sizes, sizes, seeds)
def test_streams_of_several_texts_give_each_target_once_and_cross_no_border(targets, width, length, seed):
    texts = sequences_of(targets)
    windows = list(batches.stream(texts, width, length, generator(seed)))
    epoch = read_batches(texts, iter(windows))
    for batch in epoch:
        check_form(batch, width, length)
        counts = batch.mask == 1
        assert (batch.y[counts] == batch.x[counts] + 1).all()  # no target of one text follows an input of another
    found = Counter(int(y) for batch in epoch for y in batch.y[batch.mask == 1])
    assert found == Counter(id for sequence in texts for id in sequence[1:].tolist())
    assert batches.stream_count(texts, width, length) == len(epoch)
    assert batches.stream_width(texts, width, length) == max(window.columns.shape[1] for window in windows)
    begins = {int(begin) for window in windows if window.start for begin in window.columns[0]}
    assert begins >= set(texts.starts.tolist())  # each text begins at the initial state


def test_texts_of_about_one_length_are_side_by_side():
    """A window of a long text beside short ones would be nearly all padding."""
    lengths = np.random.default_rng(0).permutation([1000] * 8 + [10] * 80).tolist()
    texts = sequences_of(lengths)
    epoch = list(batches.stream(texts, 8, 10, generator(1)))
    assert sum(window.targets for window in epoch) / sum(window.steps * window.columns.shape[1] for window in epoch) > 0.9
    firsts = {tuple(next(batches.stream(texts, 8, 10, generator(seed))).columns[0].tolist()) for seed in range(9)}
    assert len(firsts) > 1  # which group comes first is drawn


@pytest.mark.parametrize("start", [batches.lines, batches.stream])
def test_skipped_windows_are_not_built(monkeypatch, start):
    rows, built = sequences_of([9] * 1000 if start is batches.lines else [9999]), []
    monkeypatch.setattr(batches, "Window", lambda *_: built.append(None))
    batch, length = (10, 3) if start is batches.lines else (10, 9)
    next(start(rows, batch, length, generator(0), 100))
    assert len(built) == 1


def test_every_order_of_lines_is_equally_likely():
    rng = np.random.default_rng(0)
    counts = Counter(tuple(batches._order(np.array([1, 2, 1, 3], np.uint8), rng).tolist()) for _ in range(2400))
    assert len(counts) == 24
    assert all(60 < count < 140 for count in counts.values())


def test_a_batch_mixes_lines_of_all_lengths():
    """As in the text: were lengths sorted, the mean length of a batch would vary as that of a line does."""
    lengths = np.random.default_rng(0).integers(1, 30, 4000)
    epoch = batches.lines(sequences_of(lengths.tolist()), 50, 99, generator(0))
    means = [window.targets / window.columns.shape[1] for window in epoch]
    assert np.std(means) == pytest.approx(np.std(lengths) / np.sqrt(50), rel=0.25)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1]), (4, [4]), (5, [2, 3]), (9, [3, 3, 3]), (16, [4, 4, 4, 4]), (17, [3, 3, 4, 3, 4])]
)
def test_batches_of_lines_have_nearly_equal_sizes(count, expected):
    """A small last one would weigh as much as the others."""
    assert widths([7] * count, 4) == expected


@quick
@given(st.integers(0, 300), sizes, sizes)
def test_a_stream_gives_each_target_once_after_its_true_input(targets, width, length):
    text = sequences_of([targets])
    (sequence,) = text
    epoch = read_batches(text, batches.stream(text, width, length))
    for batch in epoch:
        check_form(batch, width, length)
        counts = batch.mask == 1
        assert (batch.y[counts] == batch.x[counts] + 1).all()  # from the first step of every stream on
    found = Counter(int(y) for batch in epoch for y in batch.y[batch.mask == 1])
    assert found == Counter(sequence[1:].tolist())
    assert [batch.window.start for batch in epoch] == [True] * (targets > 0) + [False] * (len(epoch) - 1)
    assert batches.stream_count(text, width, length) == len(epoch)
    if epoch:
        streams = columns(epoch)
        assert len(streams) == min(width, max(1, targets // length))
        assert max(map(len, streams)) - min(map(len, streams)) <= 1
        assert [y for s in streams for y in s[1:]] == sequence[1:].tolist()


def test_long_lines_are_split_into_successive_windows():
    sequences = make_sequences([np.array([1, 2, 3, 4, 5, 6]), np.array([7, 8, 9])])
    assert batch_values(sequences, batches.windows(sequences, 3)) == [
        ([[1, 7], [2, 8], [3, 9]], [[2, 8], [3, 9], [4, 0]], [[1, 1], [1, 1], [1, 0]], 5, True),
        ([[4, 0], [5, 0]], [[5, 0], [6, 0]], [[1, 0], [1, 0]], 2, False),
    ]


def column_by_column(sequences, length):
    """What `windows` and `gather` come to, by a loop over the columns that knows nothing of places."""
    targets = [len(sequence) - 1 for sequence in sequences]
    for t in range(0, max(targets), length):
        steps = min(length, max(targets) - t)
        ids, mask = np.zeros((steps + 1, len(sequences)), np.int64), np.zeros((steps, len(sequences)))
        for b, sequence in enumerate(sequences):
            window = sequence[t : t + steps + 1]
            ids[: len(window), b] = window
            mask[: max(0, len(window) - 1), b] = 1
        yield ids[:-1].tolist(), ids[1:].tolist(), mask.tolist(), int(mask.sum()), t == 0


@quick
@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), sizes, st.integers(0, 10), st.randoms())
def test_windows_equal_those_of_a_loop_over_the_columns(targets, length, first, random):
    sequences = sequences_of(targets).take(np.array(random.sample(range(len(targets)), len(targets))))
    assert (
        batch_values(sequences, batches.windows(sequences, length, first)) == list(column_by_column(sequences, length))[first:]
    )


KINDS = pytest.mark.parametrize("dtype", ["uint8", "<u2", "<u4"])


def mixed_windows(dtype):
    """Sequences of all lengths, ids up to the largest that the type can hold in a vocabulary, and the windows of an epoch."""
    rng = np.random.default_rng(0)
    largest = min(np.iinfo(dtype).max, 0x10FFFF)
    sequences = make_sequences([rng.integers(largest - 9, largest + 1, n, dtype) for n in (5, 1, 9, 3, 30, 8)])
    return sequences, list(batches.windows(sequences, 7))


@KINDS
@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("large", [True, False])
def test_a_batch_does_not_depend_on_where_the_ids_are_stored(lab, tmp_path, monkeypatch, dtype, fits, large):
    sequences, epoch = mixed_windows(dtype)
    expected = list(column_by_column(sequences, 7))
    if not fits:
        monkeypatch.setattr(type(lab.backend), "text_capacity", lambda _: 0)
    if large:
        sequences = sequences_in_file(tmp_path, sequences)
    got = read_batches(sequences, epoch, lab.backend)
    for batch, (x, y, mask, targets, start) in zip(got, expected, strict=True):
        arrays = lab.get((batch.x, batch.y, batch.mask))  # checks type and device, too
        assert [a.tolist() for a in arrays] == [x, y, mask]
        assert [str(a.dtype) for a in arrays] == ["int64", "int64", lab.backend.dtype]
        assert (batch.window.targets, batch.window.start) == (targets, start)


@pytest.fixture
def transfers(monkeypatch):
    """The shape and type of everything that is put on a device."""
    seen = []
    real = Backend.put

    def spy(self, host, *integers):
        array = real(self, host, *integers)
        seen.append((host.shape, str(array.dtype).rpartition(".")[2]))
        return array

    monkeypatch.setattr(Backend, "put", spy)
    return seen


@KINDS
def test_ids_are_transferred_once_and_two_numbers_per_column_per_batch(monkeypatch, transfers, dtype):
    monkeypatch.setattr(token_store, "CHUNK", 20)
    sequences, epoch = mixed_windows(dtype)
    small = "uint8" if dtype == "uint8" else "int32"
    make_batch = batches.batch_reader(sequences.ids, backends.select("strict"))
    assert transfers == [((20,), small), ((20,), small), ((16,), small)]
    transfers.clear()
    with forbid_host_reads():
        for window in epoch:
            make_batch(window)
    assert transfers == [((2, 6), "int64")] * 5


@pytest.mark.parametrize(("capacity", "fit"), [(56, True), (55, False)])
def test_ids_that_do_not_fit_stay_on_the_host(monkeypatch, transfers, capacity, fit):
    monkeypatch.setattr(Backend, "text_capacity", lambda _: capacity)
    sequences, epoch = mixed_windows("uint8")
    read_batches(sequences, epoch[:1], backends.select("strict"))
    floats = backends.select("strict").dtype
    here = [((7, 6), "int64"), ((7, 6), "int64"), ((7, 6), floats)]
    assert transfers == ([((56,), "uint8"), ((2, 6), "int64")] if fit else here)


def test_numpy_needs_no_copy(transfers):
    sequences, epoch = mixed_windows("uint8")
    make_batch = batches.batch_reader(sequences.ids, HERE)
    before = make_batch(epoch[0]).x.copy()
    sequences.ids[:] = 1
    assert (make_batch(epoch[0]).x != before).any()
    assert not transfers


@quick
@given(lengths, sizes, sizes, st.integers(0, 99))
def test_the_seed_determines_the_epoch(targets, width, length, seed):
    sequences = sequences_of(targets)
    once, again = (batch_values(sequences, batches.lines(sequences, width, length, generator(seed))) for _ in range(2))
    assert once == again


def test_epochs_of_one_generator_differ_in_order_and_grouping():
    sequences = sequences_of([5] * 40 + [9] * 40)
    rng = np.random.default_rng(0)

    def epoch():
        return [frozenset(window.columns[0].tolist()) for window in batches.lines(sequences, 8, 20, rng)]

    once, again = epoch(), epoch()
    assert once != again
    assert set(once) != set(again)


def test_a_generator_shuffles_long_and_short_batches():
    steps = [window.steps for window in batches.lines(sequences_of(list(range(1, 31))), 1, 99, generator(0))]
    assert sorted(steps) == list(range(1, 31))
    assert steps not in (sorted(steps), sorted(steps, reverse=True))


def test_without_a_generator_batches_are_ordered_by_length():
    epoch = list(batches.lines(sequences_of([3, 9, 5, 9]), 2, 100, None))
    assert [window.steps for window in epoch] == [9, 5]


def one_text(ids, start, targets):
    return Sequences(ids, np.array([start]), np.array([targets]))


def sequences_in_file(folder, sequences):
    """The same sequences in a memory map of a file."""
    (folder / "ids").write_bytes(sequences.ids.tobytes())
    with (folder / "ids").open("rb") as file:
        return Sequences(token_store.memory_map(file, sequences.ids.dtype), sequences.starts, sequences.lengths)


def test_an_epoch_from_a_file_equals_one_from_memory(tmp_path):
    sequences = sequences_of([5, 9, 9, 30, 2, 5])
    large = sequences_in_file(tmp_path, sequences)
    for some in (lambda s: batches.stream(one_text(s.ids, 3, 50), 4, 7), lambda s: batches.lines(s, 2, 7, generator(0))):
        assert batch_values(large, some(large)) == batch_values(sequences, some(sequences))


def test_only_the_tokens_of_a_window_are_read_from_a_file(tmp_path, monkeypatch):
    """A column of a stream goes on to the end of the text, nearly."""
    large, seen, real = sequences_in_file(tmp_path, sequences_of([5000])), [], token_store.reader

    def spy(ids):
        read = real(ids)
        return lambda start, stop: seen.append(stop - start) or read(start, stop)

    monkeypatch.setattr(token_store, "reader", spy)
    read_batches(large, batches.stream(large, 4, 7))
    assert max(seen) == 8


@pytest.mark.parametrize(("width", "length"), [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_batch_size_or_length_is_refused(width, length):
    sequences = sequences_of([3, 4])
    calls = [
        lambda: list(batches.lines(sequences, width, length, None)),
        lambda: list(batches.stream(sequences, width, length)),
        lambda: batches.lines_count(sequences, width, length, None),
        lambda: batches.stream_count(sequences, width, length),
    ]
    for call in calls:
        with pytest.raises(InputError, match="at least 1"):
            call()
