"""Fine-tuning on a text with characters that the model lacks: refused, added to the vocabulary, or left out."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt.checkpoint import new_symbols
from bptt.data import corpus, loading, source, token_store
from bptt.data.new_symbols import skip, skipped_message
from bptt.data.source import Reading
from bptt.data.vocabulary import BYTES, characters
from bptt.display import plots
from bptt.errors import InputError, TrainingWarning
from bptt.inference.language_model import model_from_checkpoint
from bptt.nn import model
from runs import NAMES, outcome

MGU = Path(__file__).parents[1] / "examples" / "minimal_gated_unit.py"
OLD = "\n".join(NAMES) + "\n"
NEW = "\n".join(name + letter for name, letter in zip(NAMES, "ñAø" * 10)) + "\n"  # one sorts before the old ones, two after
FLAGS = {"hidden": 5, "steps": 6, "batch": 4, "backend": "numpy", "report": None, "evaluate_every": 3}
TUNED = {"steps": 6, "batch": 4, "backend": "numpy", "report": None, "evaluate_every": 3, "new_symbols": "add"}


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("BPTT_KERNELS", "0")
    monkeypatch.setattr(plots, "available", lambda: False)  # drawing takes longer than all the rest


def logits(trained, text):
    """The logits (T, V) of what follows each character of a line."""
    ids = trained.vocabulary.encode(text).astype(np.int64)
    return trained.backend.get(model.forward(trained.config, trained.params, trained.backend.put(ids[:, None]))[0])[:, 0, :]


def grown(old, seed=0):
    """The model with the symbols of both texts, before its first update."""
    vocabulary = characters(OLD + NEW)
    config = dataclasses.replace(old.config, vocabulary=len(vocabulary))
    fresh = model.init(config, np.random.default_rng(seed))
    return model_from_checkpoint(new_symbols.with_symbols(old.to_checkpoint(), vocabulary, fresh), old.backend)


# add


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm", str(MGU)], ids=lambda cell: Path(cell).stem)
def test_old_symbols_keep_their_logits_and_new_ones_are_unlikely(cell, dtype):
    old = bptt.train(OLD, cell=cell, dtype=dtype, layers=2, **FLAGS)
    new = grown(old)
    assert "".join(new.vocabulary.symbols) == "\nA" + "".join(old.vocabulary.symbols[1:]) + "ñø"
    before, after = logits(old, "bann\nker"), logits(new, "bann\nker")
    kept = [new.vocabulary.symbols.index(symbol) for symbol in old.vocabulary.symbols]
    np.testing.assert_allclose(after[:, kept], before, rtol=0, atol=1e-6)
    added = [1, -2, -1]
    assert (after[:, added].mean(axis=1) < before.mean(axis=1) + 0.3).all()
    assert np.isfinite(logits(new, "Añø")).all()
    assert len({tuple(row) for row in new.params.Wya[added]}) == 3
    assert {array.dtype for array in (new.params.Wya, new.params.by, new.params.layers[0].Wax)} == {np.dtype(dtype)}


def test_new_symbols_have_the_weights_of_a_new_run():
    """Their columns of the first Wax are those of a new run; their rows of Wya, too, with the mean of the old rows besides."""
    old = bptt.train(OLD, **FLAGS)
    new, added = grown(old, 3), [1, -2, -1]
    fresh = model.init(dataclasses.replace(new.config), np.random.default_rng(3))
    np.testing.assert_array_equal(new.params.layers[0].Wax[:, added], fresh.layers[0].Wax[:, added].astype(np.float32))
    mean = old.params.Wya.mean(axis=0)
    np.testing.assert_allclose(new.params.Wya[added], fresh.Wya[added] + mean, rtol=0, atol=1e-6)
    assert set(new.params.by[added].tolist()) == {old.params.by.min()}


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_a_run_learns_its_new_symbols_and_is_a_model_to_start_from(tmp_path, average):
    bptt.train(OLD, out=tmp_path / "old", average=average, **FLAGS)
    tuned = bptt.train(NEW, from_=tmp_path / "old", out=tmp_path / "new", **{**TUNED, "steps": 60, "learning_rate": 0.05})
    assert tuned.vocabulary == characters(OLD + NEW) == bptt.load(tmp_path / "new").vocabulary
    assert tuned.record["settings"]["new_symbols"] == "add"
    assert sum(probability for symbol, probability in tuned.next("bann") if symbol in "Añø") > 0.1
    again = bptt.train(NEW + "xo\n", from_=tmp_path / "new", **TUNED)
    assert again.vocabulary == characters(OLD + NEW + "xo")
    assert bptt.train(NEW, from_=tmp_path / "new", **TUNED).vocabulary == tuned.vocabulary


def test_a_resumed_run_has_the_bits_of_one_that_did_not_stop(tmp_path):
    (tmp_path / "text.txt").write_text(NEW, "utf-8")
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    for out, stop in (("whole", None), ("later", 4), ("before", 1)):
        bptt.train(tmp_path / "text.txt", from_=tmp_path / "old", out=tmp_path / out, stop_after=stop, seed=1, **TUNED)
    shutil.rmtree(tmp_path / "before" / "checkpoints")  # ended before its first checkpoint
    for out in ("later", "before"):
        bptt.train(resume=tmp_path / out, report=None)
        assert outcome(tmp_path / out) == outcome(tmp_path / "whole")
    bptt.train(config=tmp_path / "whole" / "config.toml", out=tmp_path / "again", report=None)
    assert outcome(tmp_path / "again") == outcome(tmp_path / "whole")


def test_a_resumed_run_adds_no_symbols(tmp_path):
    (tmp_path / "text.txt").write_text(NEW, "utf-8")
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    bptt.train(tmp_path / "text.txt", from_=tmp_path / "old", out=tmp_path / "run", stop_after=4, **TUNED)
    (tmp_path / "text.txt").write_text(NEW + "xyz\n", "utf-8")
    with pytest.raises(InputError, match=r"'x' .*first at line 31, column 1: use characters of the training text"):
        bptt.train(resume=tmp_path / "run", changed_text=True, report=None)


def test_symbols_of_a_validation_file_alone_are_refused(tmp_path):
    (tmp_path / "others.txt").write_text("banñ\nzu\n", "utf-8")
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    with pytest.raises(InputError, match=r"others\.txt'?: not in the vocabulary: 'z' .*: use characters of the training text"):
        bptt.train(NEW, from_=tmp_path / "old", validation=tmp_path / "others.txt", **TUNED)


def test_bytes_have_no_new_symbols(tmp_path):
    bptt.train(OLD, out=tmp_path / "old", vocabulary="bytes", **FLAGS)
    for choice in ("add", "skip"):
        tuned = bptt.train(NEW, from_=tmp_path / "old", **{**TUNED, "new_symbols": choice})
        assert tuned.vocabulary == BYTES
        assert tuned.record["targets"] == len(NEW.encode())


def test_a_cell_that_does_not_grow_along_one_axis_is_refused():
    """A user-defined cell may have parameters of any shape: here the square of the number of its inputs."""
    old = bptt.train(OLD, **FLAGS).to_checkpoint()
    size = len(old.vocabulary)
    odd = old._replace(weights={**old.weights, "layers.0.Wax": np.zeros((size, size))})
    fresh = model.init(dataclasses.replace(old.config, vocabulary=size + 1), np.random.default_rng(0))
    fresh = fresh._replace(layers=(fresh.layers[0]._replace(Wax=np.zeros((size + 1, size + 1))),))
    with pytest.raises(InputError, match=r"^new_symbols='add': layers\.0\.Wax of the cell is \[\d+, \d+\] for .*: use skip$"):
        new_symbols.with_symbols(odd, characters([*old.vocabulary.symbols, "z"]), fresh)


# error


def test_the_error_names_the_three_choices(tmp_path):
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    for flags in ({}, {"new_symbols": "error"}):
        with pytest.raises(InputError) as error:
            bptt.train(NEW, from_=tmp_path / "old", report=None, backend="numpy", **flags)
        assert str(error.value) == (
            "the text: not in the vocabulary: 'ñ' (U+00F1), 'A' (U+0041), 'ø' (U+00F8), first at line 1, column 5: "
            "new_symbols='add' gives the model these symbols, skip leaves them out of the text, "
            "error (the default) refuses them"
        )


@pytest.mark.parametrize("choice", ["add", "skip"])
def test_new_symbols_without_a_model_to_start_from_are_refused(choice):
    with pytest.raises(InputError, match=rf"^new_symbols='{choice}' is for from_: give both, or neither$"):
        bptt.train(OLD, **{**FLAGS, "new_symbols": choice})
    assert bptt.train(OLD, **{**FLAGS, "new_symbols": "error"}).record["settings"]["new_symbols"] == "error"


# skip


def test_a_text_without_its_new_symbols_is_the_text_to_learn(tmp_path):
    (tmp_path / "new.txt").write_text(NEW, "utf-8")
    (tmp_path / "others.txt").write_text("bañnn\nkexr\n", "utf-8")
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    flags = {**TUNED, "new_symbols": "skip", "from_": tmp_path / "old"}
    with pytest.warns(TrainingWarning) as warned:
        skipping = bptt.train(tmp_path / "new.txt", out=tmp_path / "skipping", validation=tmp_path / "others.txt", **flags)
    count = "'A' (U+0041) 10 times, 'ñ' (U+00F1) 10 times, 'ø' (U+00F8) 10 times"
    lines = [str(one.message) for one in warned]
    assert lines[0] == f"{str(tmp_path / 'new.txt')!r}: 30 characters that the model lacks are left out: {count}"
    assert lines[1].endswith(
        "others.txt': 2 characters that the model lacks are left out: 'x' (U+0078) once, 'ñ' (U+00F1) once"
    )
    assert skipping.vocabulary == characters(OLD)
    (tmp_path / "plain.txt").write_text("bann\nker\n", "utf-8")
    with pytest.warns(TrainingWarning):
        plain = bptt.train(OLD, validation=tmp_path / "plain.txt", **flags)
    assert (plain.record["sha256"], plain.record["held_out"]) == (skipping.record["sha256"], skipping.record["held_out"])


def test_a_resumed_run_skips_them_again(tmp_path):
    (tmp_path / "text.txt").write_text(NEW, "utf-8")
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    flags = {**TUNED, "new_symbols": "skip", "from_": tmp_path / "old", "text": tmp_path / "text.txt"}
    for run in ({**flags, "out": tmp_path / "whole"}, {**flags, "out": tmp_path / "run", "stop_after": 4}, None):
        with pytest.warns(TrainingWarning, match="30 characters that the model lacks are left out"):
            bptt.train(**run or {"resume": tmp_path / "run", "report": None})
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    texts = bptt.load(tmp_path / "run").sample(3, novel=True)
    assert not set(texts) & set(NAMES)


def test_a_text_of_new_symbols_alone_is_refused(tmp_path):
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    with pytest.raises(InputError, match=r"^the text holds nothing that the model knows: expected text of at least two"):
        bptt.train("漢字\n漢\n", from_=tmp_path / "old", **{**TUNED, "new_symbols": "skip"})


@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_is_skipped_is_counted_anew_in_each_pass(size):
    counts = Counter("z")
    for _ in range(2):
        kept = list(skip([(0, NEW[i : i + size]) for i in range(0, len(NEW), size)], characters(OLD), counts))
        assert "".join(piece for _, piece in kept) == OLD
        assert all(piece for _, piece in kept)
        assert counts == Counter({"ñ": 10, "A": 10, "ø": 10})


def test_the_message_lists_ten_characters():
    counts = Counter({chr(ord("a") + i): 1 + i for i in range(12)})
    words = skipped_message("x.txt", counts)
    assert words.startswith(
        "x.txt: 78 characters that the model lacks are left out: 'l' (U+006C) 12 times, 'k' (U+006B) 11 times, "
    )
    assert words.endswith("'c' (U+0063) 3 times and 2 other characters")
    assert skipped_message("x", Counter("é")) == "x: 1 character that the model lacks is left out: 'é' (U+00E9) once"


# Large texts, whose ids are cached


def test_cached_ids_are_those_of_the_choice(tmp_path, monkeypatch):
    """The text without the skipped characters may use exactly the old vocabulary: its ids are not those of the file."""
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "LARGE", 1)
    monkeypatch.setattr(source, "CHUNK", 7)
    monkeypatch.setattr(token_store, "CHUNK", 7)
    path, known = tmp_path / "new.txt", characters(OLD)
    path.write_text(NEW, "utf-8")
    expected = {"skip": OLD, "add": NEW}
    for choice in ("skip", "add", "skip", "add", "skip"):
        read = corpus.read(path, known, Reading(unknown=choice))
        assert (read.text, token_store.is_map(read.ids)) == (expected[choice], True)
        assert read.vocabulary == (known if choice == "skip" else characters(OLD + NEW))
        assert read.skipped.total() == (30 if choice == "skip" else 0)
    assert corpus.read(path).text == NEW
    with pytest.raises(InputError, match="'A'"):
        corpus.read(path, known, Reading(unknown="error"))
    assert corpus.read(path, characters(OLD + NEW + "z"), Reading(unknown="skip")).text == NEW


# Other backends


def test_grown_weights_are_put_on_the_backend(tmp_path):
    """As CuPy's: here they may live on a device that is not the host."""
    bptt.train(OLD, out=tmp_path / "old", **FLAGS)
    backend = backends.select("strict")
    tuned = bptt.train(NEW, from_=tmp_path / "old", **{**TUNED, "steps": 2, "backend": "strict"})
    assert type(tuned.params.Wya) is type(backend.put(np.zeros(1)))
