"""Scores of single lines: the model's own probabilities, whatever is scored beside them, and taken as they come."""

import dataclasses
import pickle
import tracemalloc

import numpy as np
import pytest

from bptt import backend as backends
from bptt.data.vocabulary import BYTES, characters
from bptt.errors import InputError
from bptt.inference import prediction, scoring
from bptt.nn import model, tree
from conftest import make_sequences, variant

CELLS = pytest.mark.parametrize("cell", [variant("vanilla"), "gru", variant("lstm")])
HERE = backends.select("numpy", "float64")
LETTERS = characters("abcd")


def random_model(cell="gru", vocabulary=5, layers=2):
    rng = np.random.default_rng(0)
    config = model.Config(cell, vocabulary, 4, layers)
    return config, tree.tree_map(lambda a: a + 0.5 * rng.normal(size=a.shape), model.init(config, rng)), rng


def by_hand(config, params, sequence):
    """The nats of every target of one sequence, straight from the definition."""
    logits, _, _ = model.forward(config, params, np.asarray(sequence[:-1], np.int64)[:, None])
    u = logits[:, 0, :]
    return [float(np.log(np.exp(u[t]).sum()) - u[t, y]) for t, y in enumerate(sequence[1:])]


def scores(lines, vocabulary=LETTERS, mode="lines", unknown="error", together=100):
    config, params, _ = random_model(vocabulary=len(vocabulary))
    return scoring.score_lines(config, params, HERE, vocabulary, mode, lines, unknown=unknown, batch_size=together)


@CELLS
@pytest.mark.parametrize(("batch", "window"), [variant(64, 256), (2, 4), variant(1, 1)])
def test_every_target_is_scored_by_itself(lab, cell, batch, window, monkeypatch):
    config, params, rng = random_model(cell)
    sequences = [rng.integers(0, 5, n) for n in (3, 12, 2, 9, 9, 5)]
    monkeypatch.setattr(scoring, "BATCH", batch)
    monkeypatch.setattr(scoring, "WINDOW", window)
    got = scoring.token_nats(config, lab.put(params), lab.backend, make_sequences(sequences))
    assert [len(nats) for nats in got] == [2, 11, 1, 8, 8, 4]
    for nats, sequence in zip(got, sequences):
        np.testing.assert_allclose(nats, by_hand(config, params, sequence), rtol=10 * lab.tolerance)


def test_empty_input_gives_no_scores():
    config, params, _ = random_model()
    assert scoring.token_nats(config, params, HERE, make_sequences([])) == []
    assert list(scores([])) == []
    assert list(scores(["", "  "], characters("ab "))) == []


def test_the_batch_size_does_not_change_order_and_line_numbers():
    lines = ["abca", "", "d", "ab" * 30, "c", "\t", "dd"]
    vocabulary = characters("abcd\t")
    whole = list(scores(lines, vocabulary))
    assert [(score.number, score.text) for score in whole] == [(1, "abca"), (3, "d"), (4, "ab" * 30), (5, "c"), (7, "dd")]
    assert ["".join(score.symbols) for score in whole] == [f"{score.text}\n" for score in whole]
    for together in (1, 2, 3):
        few = list(scores(lines, vocabulary, together=together))
        assert [(one.number, one.text, one.ids) for one in few] == [(one.number, one.text, one.ids) for one in whole]
        for one, other in zip(few, whole):
            np.testing.assert_allclose(one.each, other.each, rtol=1e-12)


def test_columns_that_have_ended_are_not_computed(monkeypatch):
    """One line of 40 characters among short ones: after the first window it is alone."""
    config, params, rng = random_model()
    shapes, forward = [], model.forward
    monkeypatch.setattr(scoring, "WINDOW", 8)
    monkeypatch.setattr(model, "forward", lambda *a: shapes.append(a[2].shape) or forward(*a))
    sequences = [rng.integers(0, 5, n) for n in (3, 41, 2, 12, 9, 5)]
    got = scoring.token_nats(config, params, HERE, make_sequences(sequences))
    assert shapes == [(8, 6), (8, 2), (8, 1), (8, 1), (8, 1)]
    for nats, sequence in zip(got, sequences):
        np.testing.assert_allclose(nats, by_hand(config, params, sequence), rtol=1e-11)


def test_a_long_line_takes_a_few_bytes_a_character(monkeypatch):
    """Lists of symbols and of numbers, and pairs of them, would take 127."""

    def nothing(config, params, batch, states):
        return np.zeros(batch.x.shape), states

    monkeypatch.setattr(prediction, "target_nats", nothing)
    monkeypatch.setattr(scoring, "WINDOW", 1 << 14)
    line = "abcd" * 250_000
    tracemalloc.start()
    try:
        (score,) = scores([line])
        assert score.nats == 0.0
        assert sum(nats for _, nats in score.pairs()) == 0.0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30 * len(line)  # 8 of them twice for the nats in float64
    assert len(score.each) == len(score.symbols) == len(line) + 1


def test_a_score_is_a_value():
    (first,), (second,) = scores(["ab"]), scores(["ab"])
    assert first == second == pickle.loads(pickle.dumps(first))
    assert first.each is first.each  # made once: a loop over the places would make it for each
    assert list(first.pairs()) == list(zip(first.symbols, first.each))
    assert {type(nats) for nats in first.each} == {float}


def test_lines_are_consumed_as_they_are_needed():
    taken = []

    def lines():
        for line in ["ab", "cd", "a", "b", "c"]:
            taken.append(line)
            yield line

    first = scores(lines(), together=2)
    next(first)
    assert taken == ["ab", "cd"]
    assert len(list(first)) == 4


def test_a_model_of_lines_also_scores_the_newline():
    (line,), (stream,) = scores(["ab"]), scores(["ab"], mode="stream")
    assert line.symbols == ["a", "b", "\n"]
    assert stream.symbols == ["a", "b"]
    assert line.each[:2] == pytest.approx(stream.each, rel=1e-12)
    assert line.nats == pytest.approx(sum(line.each))
    assert line.nats_per_char == pytest.approx(sum(line.each) / 3)


def test_bytes_and_str_are_scored_alike_by_a_model_of_bytes():
    (text,), (raw,) = scores(["é"], BYTES), scores([b"\xc3\xa9"], BYTES)
    assert text == dataclasses.replace(raw, text="é")
    assert (raw.symbols, raw.text) == (["\\xc3", "\\xa9", "\n"], "é")
    assert next(scores([b"a\xff"], BYTES)).text == "a\\xff"


def refusal(lines, **keywords):
    with pytest.raises(InputError) as error:
        list(scores(lines, **keywords))
    return str(error.value)


def test_lines_with_unknown_characters_are_refused_or_skipped():
    assert "line 3: not in the vocabulary: 'é' (U+00E9), 'x' (U+0078): leave such lines out" in refusal(["a", "", "béxé"])
    assert refusal(["".join(map(chr, range(0x100, 0x120)))]).count("U+") == 10
    assert "and 22 more" in refusal(["".join(map(chr, range(0x100, 0x120)))])
    assert [score.number for score in scores(["a", "béx", "c"], unknown="skip")] == [1, 3]


def test_input_that_is_not_a_line_is_refused():
    assert "line 2 is int, expected str" in refusal(["a", 5])
    assert "line 1 is bytes, expected str" in refusal([b"a"])
    assert "line 1 is 'a\\nb', expected one line" in refusal(["a\nb"])


def test_file_lines_are_split_at_any_line_end(tmp_path, monkeypatch):
    file = tmp_path / "text"
    file.write_bytes("\ufeffanna\r\nbö\n\nend".encode())
    for size in (1, 2, 3, 5, 1 << 20):
        monkeypatch.setattr("bptt.data.source.CHUNK", size)
        assert list(scoring.read_lines(str(file), LETTERS)) == ["anna", "bö", "", "end"]
        assert list(scoring.read_lines(str(file), BYTES)) == [b"\xef\xbb\xbfanna\r", "bö".encode(), b"", b"end"]
    file.write_bytes(b"a\n\n")
    assert list(scoring.read_lines(str(file), LETTERS)) == ["a", ""]
    file.write_bytes(b"ab\xff\n")
    with pytest.raises(InputError, match="is not UTF-8"):
        list(scoring.read_lines(str(file), LETTERS))
