"""Data: a text becomes sequences to learn from and to measure on, and batches that hold all of them."""

import itertools

import numpy as np
import pytest

from bptt.run import data
from bptt.run.settings import Settings

NAMES = "".join(f"{a}{b}o\n" for a in "abcd" for b in "aeiou")  # 20 lines of 3 characters and their end
PROSE = "the cat sat on the mat, and the dog did not. " * 20


def prepare(text, seed=0, **flags):
    return data.prepare(text, Settings(**flags), np.random.default_rng(seed))


def decoded(ready, sequences):
    return [ready.vocabulary.decode(sequence) for sequence in sequences]


def test_lines_are_whole_lines_and_a_tenth_of_them_is_held_out():
    ready = prepare(NAMES)
    assert (ready.mode, ready.name) == ("lines", "text")
    assert sorted(decoded(ready, ready.training + ready.held_out)) == [f"\n{line}\n" for line in NAMES.split()]
    assert (len(ready.training), len(ready.held_out)) == (18, 2)
    assert data.lines(ready) == set(NAMES.split())
    assert data.targets(ready.training) == 18 * 4


def test_a_stream_is_cut_once():
    ready = prepare(PROSE + "\n")
    assert ready.mode == "stream"
    assert data.targets(ready.training) + data.targets(ready.held_out) == len(PROSE) + 1
    assert data.targets(ready.held_out) == round(0.1 * (len(PROSE) + 1))
    assert decoded(ready, ready.held_out)[0] in PROSE


def test_the_seed_draws_what_is_held_out():
    held_out = [decoded(ready, ready.held_out) for ready in (prepare(NAMES), prepare(NAMES), prepare(NAMES, seed=1))]
    assert held_out[0] == held_out[1] != held_out[2]


def test_the_settings_choose_mode_share_and_vocabulary(tmp_path):
    assert prepare(NAMES, mode="stream").mode == "stream"
    assert prepare(NAMES, validation=0.0).held_out == []
    assert len(prepare(NAMES, validation=0.5).held_out) == 10
    path = tmp_path / "any.bin"
    path.write_bytes(bytes(range(256)) * 4)
    ready = prepare(path, vocabulary="bytes")
    assert (ready.name, ready.mode, len(ready.vocabulary)) == ("any", "stream", 256)
    assert data.targets(ready.training) + data.targets(ready.held_out) == 1024


@pytest.mark.parametrize("validation", [0.1, 0.5, 0.9])
def test_a_line_is_never_cut(validation):
    ready = prepare("the only line\n", mode="lines", validation=validation)
    assert decoded(ready, ready.training) == ["\nthe only line\n"]
    assert ready.held_out == []
    assert len(prepare("one\ntwo\n", mode="lines", validation=validation).training) > 0


@pytest.mark.parametrize(("text", "mode"), [(NAMES, "lines"), (PROSE + "\n", "stream")])
@pytest.mark.parametrize(("batch", "length"), [(4, 2), (7, 100), (1000, 1000)])
def test_a_pass_holds_every_target_in_the_number_of_batches_that_was_told(text, mode, batch, length):
    ready = prepare(text, mode=mode)
    count = data.batches_in_epoch(ready, batch, length)
    passes = list(itertools.islice(data.epochs(ready, batch, length, np.random.default_rng(0)), 2 * count))
    for one in (passes[:count], passes[count:]):
        assert sum(part.mask.sum() for part in one) == data.targets(ready.training)
        assert one[0].start
    widths = {part.x.shape[1] for part in passes}
    assert max(widths) == data.widest(ready, batch, length) <= batch
    assert max(part.x.shape[0] for part in passes) <= length


def test_the_order_of_lines_is_drawn_anew_for_each_pass():
    ready = prepare(NAMES)
    batches = data.epochs(ready, 18, 10, np.random.default_rng(0))
    first, second = next(batches), next(batches)
    assert (first.x != second.x).any()


@pytest.mark.parametrize(("text", "mode"), [(NAMES, "lines"), (PROSE + "\n", "stream")])
def test_the_held_out_part_is_measured_whole(text, mode):
    ready = prepare(text, mode=mode)
    batches = list(data.held_out_batches(ready))
    assert sum(part.mask.sum() for part in batches) == data.targets(ready.held_out)
    first = batches[0]
    if mode == "lines":
        assert [ready.vocabulary.decode(column) for column in first.y.T] == [s[1:] for s in decoded(ready, ready.held_out)]


@pytest.mark.parametrize(
    ("text", "mode", "batch", "length", "widest"),
    [
        (NAMES, "lines", 18, 3, 18),
        (NAMES, "lines", 19, 3, 18),
        ("ab" * 50 + "\n", "stream", 5, 20, 4),
        ("ab\n", "stream", 5, 20, 1),
    ],
)
def test_a_short_text_narrows_the_batch(text, mode, batch, length, widest):
    assert data.widest(prepare(text, mode=mode), batch, length) == widest


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_what_is_measured_is_what_is_held_out(mode):
    ready = prepare(NAMES, mode=mode, validation=0.5)
    batches = list(data.held_out_batches(ready))
    measured = np.concatenate([batch.y.T[batch.mask.T == 1.0] for batch in batches])
    held_out = np.concatenate([sequence[1:] for sequence in ready.held_out])
    assert sorted(measured) == sorted(held_out)
    assert sorted(measured) != sorted(np.concatenate([sequence[1:] for sequence in ready.training]))


def test_a_tenth_is_held_out_but_of_a_long_text_less(monkeypatch):
    assert data.targets(prepare("ab" * 500 + "\n", mode="stream").held_out) == 100
    monkeypatch.setattr(data, "MOST_HELD_OUT", 60)
    assert data.targets(prepare("ab" * 500 + "\n", mode="stream").held_out) == 60
    assert data.targets(prepare("ab" * 500 + "\n", mode="stream", validation=0.2).held_out) == 200
