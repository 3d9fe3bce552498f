"""Data: a text becomes sequences to learn from and to measure on, and batches that hold all of them."""

import itertools

import numpy as np
import pytest

from bptt import backend as backends
from bptt.config.settings import Settings
from bptt.data import batches, dataset, loading, source, token_store
from bptt.data.dataset import Position
from bptt.data.vocabulary import BYTES, characters
from bptt.errors import InputError

NAMES = "".join(f"{a}{b}o\n" for a in "abcd" for b in "aeiou")  # 20 lines of 3 characters and their end
HERE = backends.select("numpy", "float64")
PROSE = "the cat sat on the mat, and the dog did not. " * 20


def prepare(text, seed=0, **flags):
    return dataset.prepare(text, Settings(**flags), np.random.default_rng(seed))


def batches_by_epoch(ready, batch, length, seed, position=Position(0, 0)):
    """What `dataset.epochs` gives, with the batches instead of their windows."""
    read = batches.batch_reader(ready.training.ids, HERE)
    return ((after, read(window)) for after, window in dataset.epochs(ready, batch, length, seed, position))


def validation_batches(ready):
    """The batches of the validation set."""
    return list(map(batches.batch_reader(ready.validation.ids, HERE), dataset.validation_windows(ready)))


def decode_all(ready, sequences):
    return [ready.vocabulary.decode(sequence) for sequence in sequences]


def test_lines_stay_whole_and_a_tenth_of_them_is_for_validation():
    ready = prepare(NAMES)
    assert (ready.mode, ready.name, ready.source) == ("lines", "text", "")
    assert sorted(decode_all(ready, [*ready.training, *ready.validation])) == [f"\n{line}\n" for line in NAMES.split()]
    assert (len(ready.training), len(ready.validation)) == (18, 2)
    assert dataset.count_targets(ready.training) == 18 * 4


def test_a_stream_is_split_once():
    ready = prepare(PROSE + "\n")
    assert ready.mode == "stream"
    assert dataset.count_targets(ready.training) + dataset.count_targets(ready.validation) == len(PROSE) + 1
    assert dataset.count_targets(ready.validation) == round(0.1 * (len(PROSE) + 1))
    assert decode_all(ready, ready.training)[0] + decode_all(ready, ready.validation)[0][1:] == "\n" + PROSE + "\n"


def test_a_generator_draws_the_validation_set():
    held_out = [decode_all(ready, ready.validation) for ready in (prepare(NAMES), prepare(NAMES), prepare(NAMES, seed=1))]
    assert held_out[0] == held_out[1] != held_out[2]


def test_the_settings_choose_mode_validation_fraction_and_vocabulary(tmp_path):
    assert prepare(NAMES, mode="stream").mode == "stream"
    assert len(prepare(NAMES, validation=0.0).validation) == 0
    assert len(prepare(NAMES, validation=0.5).validation) == 10
    path = tmp_path / "any.bin"
    path.write_bytes(bytes(range(256)) * 4)
    ready = prepare(path, vocabulary="bytes")
    assert (ready.name, ready.mode, len(ready.vocabulary)) == ("any", "stream", 256)
    assert dataset.count_targets(ready.training) + dataset.count_targets(ready.validation) == 1024


@pytest.mark.parametrize("validation", [0.1, 0.5, 0.9])
def test_a_line_is_never_split(validation):
    ready = prepare("the only line\n", mode="lines", validation=validation)
    assert decode_all(ready, ready.training) == ["\nthe only line\n"]
    assert len(ready.validation) == 0
    assert len(prepare("one\ntwo\n", mode="lines", validation=validation).training) > 0


@pytest.mark.parametrize(("text", "mode"), [(NAMES, "lines"), (PROSE + "\n", "stream")])
@pytest.mark.parametrize(("batch", "length"), [(4, 2), (7, 100), (1000, 1000)])
def test_an_epoch_has_each_target_once_in_batches_in_epoch_batches(text, mode, batch, length):
    ready = prepare(text, mode=mode)
    count = dataset.batches_in_epoch(ready, batch, length, 0)
    assert dataset.batches_in_epoch(ready, batch, length, 0, 1) == count  # for these texts
    two = [one for _, one in itertools.islice(batches_by_epoch(ready, batch, length, 0), 2 * count)]
    for one in (two[:count], two[count:]):
        assert sum(part.mask.sum() for part in one) == dataset.count_targets(ready.training)
        assert one[0].window.start
    widths = {part.x.shape[1] for part in two}
    assert 0 <= dataset.max_columns(ready, batch, length) - max(widths) < count
    assert max(widths) <= batch
    assert max(part.x.shape[0] for part in two) <= length


def test_the_order_of_lines_is_drawn_anew_for_each_epoch():
    ready = prepare(NAMES)

    def first_epochs(seed):
        return [one.x.tolist() for _, one in itertools.islice(batches_by_epoch(ready, 18, 10, seed), 3)]

    orders = [*first_epochs(0), *first_epochs(1)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))
    assert first_epochs(0) == orders[:3]


@pytest.mark.parametrize(("text", "mode"), [(NAMES + "a longer one\n", "lines"), (PROSE + "\n", "stream")])
@pytest.mark.parametrize(("batch", "length"), [(4, 2), (7, 100), (3, 5)])
def test_batches_can_resume_from_any_position(text, mode, batch, length):
    ready = prepare(text, mode=mode)
    count = dataset.batches_in_epoch(ready, batch, length, 5)
    run = list(itertools.islice(batches_by_epoch(ready, batch, length, 5), 3 * count))
    assert [position for position, _ in run] == [Position(k // count, k % count) for k in range(1, 3 * count + 1)]

    def values(part):
        return [(position, one.x.tolist(), one.y.tolist(), one.mask.tolist(), one.window.start) for position, one in part]

    for k, (position, _) in enumerate(run, 1):
        again = batches_by_epoch(ready, batch, length, 5, position)
        assert values(itertools.islice(again, min(4, 3 * count - k))) == values(run[k : k + 4])
    assert (
        next(dataset.epochs(ready, batch, length, 5, Position(0, count)))[0]
        == next(dataset.epochs(ready, batch, length, 5, Position(1, 0)))[0]
    )


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_a_given_vocabulary_overrides_the_setting(mode):
    known = characters(NAMES + "xyz")
    ready = dataset.prepare(NAMES, Settings(mode=mode, vocabulary="bytes"), np.random.default_rng(0), known)
    assert ready.vocabulary == known
    assert ready.sha256 != prepare(NAMES, mode=mode).sha256
    assert dataset.prepare(NAMES, Settings(mode=mode), np.random.default_rng(0), BYTES).vocabulary == BYTES
    with pytest.raises(InputError, match="line 1, column 1"):
        dataset.prepare(NAMES, Settings(mode=mode), np.random.default_rng(0), characters("bo"))


def test_a_dataset_has_the_name_and_source_of_its_text(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text(NAMES)
    ready = prepare(path)
    assert (ready.name, ready.source, ready.sha256) == ("names", str(path), prepare(NAMES).sha256)
    assert prepare("dinosaurs").source == "dinosaurs"


def test_contained_finds_the_texts_that_occur_in_the_dataset():
    assert dataset.contained(prepare(NAMES), ["aao", "aa", "", "duo", "zzz"]) == {"aao", "duo"}
    ready = prepare(PROSE + "\n", validation=0.5)
    border = PROSE[len(PROSE) // 2 - 10 : len(PROSE) // 2 + 10]
    assert dataset.contained(ready, ["the cat", border, PROSE, "the dog sat"]) == {"the cat", border, PROSE}


@pytest.mark.parametrize(("text", "mode"), [(NAMES, "lines"), (PROSE + "é\n", "stream")])
@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_large_text_gives_the_batches_of_a_small_one(tmp_path, monkeypatch, text, mode, vocabulary):
    path = tmp_path / "text.txt"
    path.write_text(text, "utf-8")
    small = prepare(path, vocabulary=vocabulary)
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    for module, name, value in [(loading, "LARGE", 9), (source, "CHUNK", 5), (token_store, "CHUNK", 3)]:
        monkeypatch.setattr(module, name, value)
    large = prepare(path, vocabulary=vocabulary)
    assert large[:5] == small[:5]
    assert large.mode == mode
    assert decode_all(large, [*large.training, *large.validation]) == decode_all(small, [*small.training, *small.validation])
    for (there, a), (here, b) in itertools.islice(zip(batches_by_epoch(large, 4, 3, 0), batches_by_epoch(small, 4, 3, 0)), 50):
        assert (there, a.x.tolist(), a.mask.tolist()) == (here, b.x.tolist(), b.mask.tolist())


@pytest.mark.parametrize(("text", "mode"), [(NAMES, "lines"), (PROSE + "\n", "stream")])
def test_validation_windows_cover_the_whole_validation_set(text, mode):
    ready = prepare(text, mode=mode)
    batches = validation_batches(ready)
    assert sum(part.mask.sum() for part in batches) == dataset.count_targets(ready.validation)
    first = batches[0]
    if mode == "lines":
        assert [ready.vocabulary.decode(column) for column in first.y.T] == [s[1:] for s in decode_all(ready, ready.validation)]


@pytest.mark.parametrize(
    ("text", "mode", "batch", "length", "widest"),
    [
        (NAMES, "lines", 18, 3, 18),
        (NAMES, "lines", 19, 3, 18),
        ("ab" * 50 + "\n", "stream", 5, 20, 4),
        ("ab\n", "stream", 5, 20, 1),
    ],
)
def test_a_short_text_limits_the_batch_size(text, mode, batch, length, widest):
    assert dataset.max_columns(prepare(text, mode=mode), batch, length) == widest


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_validation_windows_hold_the_targets_of_the_validation_set(mode):
    ready = prepare(NAMES, mode=mode, validation=0.5)
    got = np.concatenate([batch.y.T[batch.mask.T == 1.0] for batch in validation_batches(ready)])
    held_out = np.concatenate([sequence[1:] for sequence in ready.validation])
    assert sorted(got) == sorted(held_out)
    assert sorted(got) != sorted(np.concatenate([sequence[1:] for sequence in ready.training]))


def test_the_validation_set_is_a_tenth_up_to_a_maximum(monkeypatch):
    assert dataset.count_targets(prepare("ab" * 500 + "\n", mode="stream").validation) == 100
    monkeypatch.setattr(dataset, "MAX_VALIDATION", 60)
    assert dataset.count_targets(prepare("ab" * 500 + "\n", mode="stream").validation) == 60
    assert dataset.count_targets(prepare("ab" * 500 + "\n", mode="stream", validation=0.2).validation) == 200
