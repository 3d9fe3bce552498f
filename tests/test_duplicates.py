"""Copies of lines: hashes tell lines apart in any vocabulary, copies stay together, and shared lines are counted."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as quickly
from hypothesis import strategies as st

import bptt
from bptt.config.settings import Settings, from_flags
from bptt.data import corpus, dataset, duplicates, loading, sequences, token_store
from bptt.data.vocabulary import characters
from bptt.errors import TrainingWarning
from bptt.training import setup

LETTERS = "ab é€😀"
TEXTS = st.lists(st.text(LETTERS, max_size=9), min_size=2, max_size=40).map(lambda lines: "\n".join([*lines, "a", "b"]))


def sequences_of(text, vocabulary="characters"):
    """The lines of a text, and its vocabulary."""
    read = corpus.read(text, vocabulary)
    return corpus.sequences(read, "lines"), read.vocabulary


def decoded(lines, vocabulary):
    return [vocabulary.decode(ids[1:-1]) for ids in lines]


def hashed(text, vocabulary="characters", key=0):
    return np.concatenate([np.zeros(0, np.uint64), *duplicates.hashes(*sequences_of(text, vocabulary), key)]).tolist()


def split(text, fraction, seed=0, vocabulary="characters"):
    """The lines of both sides."""
    lines, symbols = sequences_of(text, vocabulary)
    parts = duplicates.split_together(lines, symbols, fraction, np.random.default_rng(seed))
    return [decoded(part, symbols) for part in parts]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 18])
@quickly(deadline=None, max_examples=60)
@given(TEXTS)
def test_equal_lines_have_equal_hashes_and_others_do_not(chunk, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_store, "CHUNK", chunk)
        numbers = hashed(text)
    lines = [line for line in text.split("\n") if line.strip()]
    assert len(numbers) == len(lines)
    for (a, m), (b, n) in itertools.combinations(zip(lines, numbers), 2):
        assert (a == b) == (m == n)
    assert numbers == hashed(text, "bytes") == hashed(text, characters(LETTERS + "xyz"))
    assert not set(numbers) & set(hashed(text, key=1))


@quickly(deadline=None, max_examples=100)
@given(TEXTS, st.floats(0, 0.99), st.integers(0, 9))
def test_copies_of_a_line_are_on_one_side(text, fraction, seed):
    training, held_out = split(text, fraction, seed)
    lines = [line for line in text.split("\n") if line.strip()]
    assert sorted(training + held_out) == sorted(lines)
    assert training
    assert not set(training) & set(held_out)
    assert (
        [training, held_out] == split(text, fraction, seed, "bytes") == split(text, fraction, seed, characters(LETTERS + "z"))
    )


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_of_lines_without_copies_the_fraction_is_held_out(fraction):
    text = "".join(f"line {number}\n" for number in range(3000))
    assert len(split(text, fraction)[1]) == round(3000 * fraction)
    assert split(text, fraction, 1)[1] != split(text, fraction, 2)[1]


def test_lines_that_are_added_or_moved_leave_most_others_on_their_side():
    lines = [f"line {number}" for number in range(1000)]
    before = set(split("\n".join(lines), 0.2)[1])
    assert set(split("\n".join(reversed(lines)), 0.2)[1]) == before
    assert len(before - set(split("\n".join([*lines, *map(str, range(50))]), 0.2)[1])) < 30


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("copies", "fraction", "least", "most"),
    [
        ([500] + [1] * 500, 0.1, 95, 100),  # the one that half of the lines are does not fit
        ([10] * 100, 0.1, 95, 105),
        ([3] * 333, 0.1, 95, 102),
        ([1000] * 20, 0.01, 1000, 1000),  # each has more copies than are wanted: one of them
        ([1, 1] + [1000] * 20, 0.01, 1000, 1002),
        ([20], 0.1, 0, 0),
        ([19, 1], 0.1, 1, 1),
        ([2, 2], 0.9, 2, 2),
    ],
)
def test_lines_with_many_copies_leave_a_validation_set_of_about_the_wanted_size(seed, copies, fraction, least, most):
    text = "".join(f"line {number}\n" * count for number, count in enumerate(copies))
    training, held_out = split(text, fraction, seed)
    assert training
    assert least <= len(held_out) <= most
    assert not set(training) & set(held_out)


def test_a_large_text_is_split_as_a_small_one(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number % 70} é\n" for number in range(200)), "utf-8")

    def sides():
        ready = dataset.prepare(path, Settings(mode="lines", validation=0.2), dataset.make_rng(0, 0))
        return [decoded(part, ready.vocabulary) for part in (ready.training, ready.validation)]

    small = sides()
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "LARGE", 9)
    monkeypatch.setattr(token_store, "CHUNK", 5)
    assert sides() == small


def test_the_setting_chooses_how_copies_are_drawn():
    lines = ["anna", "bob", "carol", "dave"] * 10
    together, independent = (
        dataset.prepare(lines, Settings(validation=0.3, duplicates=name), dataset.make_rng(0, 0))
        for name in ("together", "independent")
    )
    assert dataset.count_shared_lines(together) == 0
    assert dataset.count_shared_lines(independent) == len(independent.validation) == 12
    old = sequences.split(corpus.sequences(corpus.read(lines), "lines"), 0.3, dataset.make_rng(0, 0), "lines")
    assert independent.validation.starts.tolist() == old[1].starts.tolist()


@quickly(deadline=None, max_examples=100)
@given(TEXTS, st.integers(0, 9))
def test_shared_lines_are_counted(text, seed):
    lines, symbols = sequences_of(text)
    first, second = sequences.split(lines, 0.4, np.random.default_rng(seed), "lines")
    ours, theirs = decoded(first, symbols), set(decoded(second, symbols))
    assert duplicates.count_shared(first, second, symbols) == sum(line in theirs for line in ours)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["anna", "anna", "dora"], "2 of 3 validation lines are also in the training text: the validation loss is lower than"),
        (["bob", "dora"], "1 of 2 validation lines is also in the training text"),
    ],
)
def test_a_warning_says_how_many_validation_lines_are_in_the_training_text(tmp_path, lines, words):
    (tmp_path / "val.txt").write_text("\n".join(lines))
    flags = {"validation": tmp_path / "val.txt", "hidden": 2, "steps": 1, "backend": "numpy"}
    with pytest.warns(TrainingWarning, match=words):
        bptt.train(["anna", "bob", "carol", "odd"], report=None, **flags)


def test_a_validation_file_without_shared_lines_or_of_a_stream_gives_no_warning(tmp_path):
    (tmp_path / "val.txt").write_text("dora\n")
    for mode in ("lines", "stream"):
        flags = from_flags({"validation": tmp_path / "val.txt", "hidden": 2, "steps": 1, "backend": "numpy", "mode": mode})
        setup.from_scratch(["anna", "bob", "carol", "odd"], flags)


def test_a_stream_that_is_its_own_validation_set_gives_a_warning(tmp_path):
    (tmp_path / "text.txt").write_text("anna\nbob\n")
    flags = from_flags({"validation": tmp_path / "text.txt", "hidden": 2, "steps": 1, "backend": "numpy", "mode": "stream"})
    with pytest.warns(TrainingWarning, match=r"the validation set '.*text\.txt' is the training text itself"):
        setup.from_scratch(tmp_path / "text.txt", flags)


def test_a_run_records_how_copies_were_drawn(tmp_path):
    text = ["anna", "bob", "carol", "odd"] * 5
    bptt.train(text, hidden=2, steps=1, backend="numpy", report=None, out=tmp_path / "run")
    assert bptt.load(tmp_path / "run").record["settings"]["duplicates"] == "together"
    assert 'duplicates = "together"\n' in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("text", "reason"), [(["anna", "bob"], "too few lines"), (["anna"] * 20, "most lines are copies of one")]
)
def test_the_header_says_why_no_line_is_held_out(text, reason):
    lines = []
    bptt.train(text, hidden=2, steps=1, backend="numpy", mode="lines", report=lines.append)
    assert f"none held out ({reason})" in lines[0]
