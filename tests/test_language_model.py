"""A trained model in use: texts of the shape that was asked for, scores that fit them, and the same again after a save."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt.config.defaults import TEMPERATURE
from bptt.data.vocabulary import BYTES, characters
from bptt.errors import InputError
from bptt.inference import generate, text_model
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree

NAMES = "anna\nbella\ncarl\ndora\nemil\nfrida\ngustav\nhanna\nida\njan\n"

TEXT = "anna\nbo\ncarla\n"


def make_model(mode="lines", vocabulary=None, backend=None, cell="gru", layers=1, scale=2.0, seed=0):
    """A model with random weights, large enough for its characters to be of very different chances."""
    vocabulary = vocabulary or characters(TEXT)
    backend = backend or backends.select("numpy", "float64")
    config = model.Config(cell, len(vocabulary), 6, layers)
    params = tree.tree_map(lambda a: backend.put(scale * a), model.init(config, np.random.default_rng(seed)))
    return LanguageModel(config, vocabulary, mode, params, backend, {"text": "names", "held_out": 1.25})


def refusal(function, *arguments, **keywords):
    with pytest.raises(InputError) as error:
        function(*arguments, **keywords)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


# Sampling


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_texts_are_sampled_as_often_as_their_scores_say(mode):
    """What `sample` writes and what `score` thinks of it are one distribution."""
    m = make_model(mode, characters("ab"))
    count = 20_000
    drawn = m.sample(count, length=3, temperature=1)
    # in lines mode the third character of a line of two letters is its end
    texts = [a + b + ("" if mode == "lines" else c) for a in "ab" for b in "ab" for c in ("a" if mode == "lines" else "a\n")]
    for text in texts:
        expected = count * math.exp(-m.score(text))
        assert abs(drawn.count(text) - expected) < 4.5 * math.sqrt(expected), text
    assert mode == "stream" or {"a", "b", "aaa", "bbb"} <= set(drawn)


def test_the_same_seed_gives_the_same_texts():
    m = make_model("stream")
    assert m.sample(3, length=30, seed=1) == m.sample(3, length=30, seed=1) != m.sample(3, length=30, seed=2)
    assert m.sample(3, length=30) == m.sample(3, length=30, seed=0, temperature=TEMPERATURE)
    assert "".join(m.stream(length=30)) == m.sample(length=30, temperature=TEMPERATURE)[0]
    assert m.sample(3, length=30) != m.sample(3, length=30, temperature=1)
    assert m.sample(3, length=30, temperature=0.7) != m.sample(3, length=30, temperature=1.3)


def test_a_lower_temperature_gives_more_likely_texts():
    m = make_model("stream")
    scores = [np.mean([m.score(text) for text in m.sample(40, length=20, temperature=t)]) for t in (0.0, 0.5, 1.0, 2.0)]
    assert scores == sorted(scores)


def test_temperature_zero_gives_the_same_text_for_every_seed():
    m = make_model("stream")
    assert len({text for seed in range(3) for text in m.sample(2, length=30, temperature=0, seed=seed)}) == 1


@pytest.mark.parametrize(("mode", "longest"), [("lines", 200), ("stream", 500)])
def test_length_limits_the_length_of_a_text(mode, longest):
    m = make_model(mode)
    never = dataclasses.replace(m, params=m.params._replace(by=m.params.by + np.where(np.arange(len(m.vocabulary)), 0, -1e3)))
    assert {len(text) for text in never.sample(2)} == {longest}
    for length in (1, 5, 300):
        assert {len(text) for text in never.sample(3, length=length)} == {length}
        assert {len(text) for text in never.sample(3, length=length, prompt="ab")} == {length + 2}


def test_texts_of_lines_end_at_a_newline_and_those_of_streams_do_not():
    m, n = make_model("lines"), make_model("stream")
    assert all("\n" not in text for text in m.sample(50))
    assert len({len(text) for text in m.sample(50)}) > 5
    assert any("\n" in text for text in n.sample(50, length=50))
    assert {len(text) for text in n.sample(50, length=50)} == {50}


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_a_text_starts_with_the_prompt(mode):
    m = make_model(mode)
    texts = m.sample(30, prompt="carl", length=20)
    assert all(text.startswith("carl") for text in texts)
    assert len(set(texts)) > 10
    ids = m.vocabulary.encode("\ncarl").astype(int)
    logits = model.forward(m.config, m.params, ids[:, None])[0][-1, 0]
    assert m.sample(1, prompt="carl", length=1, temperature=0)[0] == ("carl" + m.vocabulary.decode([logits.argmax()])).strip(
        "\n"
    )


def test_a_prompt_of_bytes_may_be_any_text():
    texts = make_model("stream", BYTES).sample(3, prompt="é日", length=9)
    assert all(text.startswith("é日") for text in texts)


def test_texts_do_not_depend_on_the_batch_size(monkeypatch):
    m = make_model()
    whole = m.sample(150)
    monkeypatch.setattr(text_model, "BATCH_SIZE", 4)
    sizes = []
    real = generate.generate_texts
    monkeypatch.setattr(generate, "generate_texts", lambda *a: sizes.append(len(a[-1])) or real(*a))
    assert m.sample(150) == whole
    assert sizes == [4] * 37 + [2]
    assert len(set(whole)) > 100


def test_a_text_depends_only_on_the_seed_and_its_index():
    m = make_model()
    many = m.sample(200, seed=3)
    for count in (1, 10, 65):
        assert m.sample(count, seed=3) == many[:count]
    known = set(many[::2])
    new = m.sample(40, seed=3, exclude=known)
    assert m.sample(7, seed=3, exclude=known) == new[:7]
    assert new == list(dict.fromkeys(text for text in many if text not in known))[:40]


def test_excluded_texts_and_duplicates_are_left_out():
    m = make_model("lines", characters("ab"))
    known = set(m.sample(40))
    new = m.sample(20, exclude=known)
    assert len(new) == len(set(new)) == 20
    assert not known & set(new)
    assert m.sample(20, exclude=list(known)) == new
    assert m.sample(20, exclude=lambda texts: [text for text in texts if text in known]) == new
    assert len(m.sample(200, exclude={"no such"}, length=2)) <= 2 + 4 + 8  # all there are, and then no more
    greedy = m.sample(1, temperature=0)[0]
    assert m.sample(5, temperature=0, exclude={greedy}) == []
    assert m.sample(3, exclude=lambda texts: texts) == []


@pytest.mark.parametrize("mode", ["lines", "stream"])
@pytest.mark.parametrize(
    "how", [{}, {"prompt": "carl", "temperature": 0.7, "seed": 4}, {"stop": "a"}, {"length": 3, "top_k": 3}]
)
def test_stream_gives_the_first_text_of_sample(mode, how):
    m = make_model(mode)
    assert "".join(m.stream(**how)) == m.sample(3, **how)[0]


def test_stream_generates_as_it_is_consumed(monkeypatch):
    steps = []
    real = model.forward
    monkeypatch.setattr(model, "forward", lambda *a: steps.append(1) or real(*a))
    streamed = make_model("stream").stream(length=100)
    assert not steps
    for n in range(1, 5):
        next(streamed)
        assert len(steps) == n


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_a_stop_string_ends_a_text(mode):
    m = make_model(mode)
    whole, cut = m.sample(60, length=40), m.sample(60, length=40, stop="ar")
    assert cut == [text.partition("ar")[0] for text in whole]
    assert cut != whole
    assert m.sample(60, length=40, stop="a", prompt="anna") == [
        "anna" + text[4:].partition("a")[0] for text in m.sample(60, length=40, prompt="anna")
    ]


def test_a_stop_string_works_for_bytes():
    m = make_model("stream", BYTES, scale=0.0)
    whole, cut = m.sample(20, length=3000), m.sample(20, length=3000, stop="ab")
    assert all("ab" not in text for text in cut)
    assert all(text.startswith(short) for text, short in zip(whole, cut))
    assert sum(text != short for text, short in zip(whole, cut)) == sum("ab" in text for text in whole)


def test_top_k_and_top_p_keep_the_most_likely_symbols():
    m = make_model("stream")
    greedy = m.sample(2, temperature=0, length=40)
    assert m.sample(2, top_k=1, length=40) == m.sample(2, top_p=1e-6, length=40) == greedy
    for how in ({"top_k": 8}, {"top_p": 1.0}, {"top_k": 1000, "top_p": 1.0}):
        assert m.sample(20, length=40, **how) == m.sample(20, length=40)
    first = [symbol for symbol, _ in m.next()]
    assert {text[0] for text in m.sample(300, top_k=3, length=1)} == set(first[:3])
    for top_p in (0.2, 0.5, 0.9):
        kept = len({text[0] for text in m.sample(500, top_p=top_p, length=1)})
        p = np.cumsum([p for _, p in m.next()])
        assert kept == np.searchsorted(p, top_p) + 1


def test_unknown_characters_of_a_prompt_can_be_skipped():
    m = make_model()
    assert m.sample(5, prompt="xaxnn", unknown="skip") == m.sample(5, prompt="ann")
    assert "".join(m.stream(prompt="xaxnn", unknown="skip")) == m.sample(prompt="ann")[0]
    assert m.next("xaxnn", unknown="skip") == m.next("ann")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "count 0: expected a whole number from 1 to 1,000,000,000"),
        ({"count": -1}, "count -1"),
        ({"temperature": -0.1}, "temperature -0.1: expected a finite number, at least 0"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"temperature": math.inf}, "temperature inf"),
        ({"seed": -1}, "seed -1: expected a whole number, at least 0"),
        ({"length": 0}, "length 0: expected a whole number from 1 to 1,000,000,000"),
        ({"count": "10"}, "count '10': expected a whole number"),
        ({"count": 2.5}, "count 2.5: expected a whole number"),
        ({"temperature": "a"}, "temperature 'a': expected a finite number"),
        ({"prompt": 3}, "prompt 3: expected str"),
        ({"seed": None}, "seed None: expected a whole number"),
        ({"length": 3.5}, "length 3.5: expected a whole number"),
        ({"length": -5}, "length -5"),
        ({"prompt": "an\nbo"}, "'an\\nbo': expected the beginning of one line"),
        ({"prompt": "xenia"}, "'x' (U+0078), 'e' (U+0065), 'i' (U+0069), first at line 1, column 1"),
        ({"prompt": "xenia"}, "leave them out with unknown='skip'"),
        ({"unknown": "ignore"}, "unknown 'ignore': expected one of error, skip"),
        ({"top_k": 0}, "top_k 0: expected a whole number from 1 to 1,000,000,000"),
        ({"top_k": 2.5}, "top_k 2.5"),
        ({"top_p": 0}, "top_p 0: expected a number above 0, at most 1"),
        ({"top_p": 1.1}, "top_p 1.1"),
        ({"top_p": math.nan}, "top_p nan"),
        ({"stop": ""}, "stop '': expected at least one character"),
        ({"stop": 3}, "stop 3: expected at least one character, as str"),
        ({"stop": "ax"}, "stop 'ax': not in the vocabulary: 'x' (U+0078)"),
    ],
)
def test_a_bad_argument_is_a_one_line_error(arguments, words):
    assert words in refusal(make_model().sample, **arguments)
    if "count" not in arguments:
        assert words in refusal(make_model().stream, **arguments)
    if arguments.keys() <= {"temperature", "prompt", "unknown"}:
        assert words in refusal(make_model().next, **arguments)


def test_whole_numbers_of_any_type_are_accepted():
    m = make_model("stream")
    assert m.sample(2.0, length=np.int64(5), seed=3.0, temperature=np.float64(TEMPERATURE)) == m.sample(2, length=5, seed=3)


# Scores


@pytest.mark.parametrize("mode", ["lines", "stream"])
@pytest.mark.parametrize("prompt", ["", "b", "carl"])
def test_next_agrees_with_score(mode, prompt):
    m = make_model(mode)
    after = m.next(prompt)
    assert math.fsum(p for _, p in after) == pytest.approx(1, abs=1e-14)
    assert sorted(symbol for symbol, _ in after) == list(m.vocabulary.symbols)
    assert [p for _, p in after] == sorted((p for _, p in after), reverse=True)
    so_far = math.fsum(next(m.scores([prompt])).each[: len(prompt)]) if prompt else 0.0
    for symbol, p in after:
        if mode == "stream":
            assert m.score(prompt + symbol) - so_far == pytest.approx(-math.log(p), rel=1e-12)
        elif symbol == "\n" and prompt:
            assert m.score(prompt) - so_far == pytest.approx(-math.log(p), rel=1e-12)
    assert after[0][0] == (m.sample(1, prompt=prompt, temperature=0, length=1)[0][len(prompt) :] or "\n")


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_each_line_has_a_score_of_its_own(mode):
    m = make_model(mode, layers=2)
    got = list(m.scores("anna\n\nbo\ncarla\n"))
    assert [(score.number, score.text) for score in got] == [(1, "anna"), (3, "bo"), (4, "carla")]
    for score in got:
        assert "".join(score.symbols) == score.text + "\n" * (mode == "lines")
        assert math.fsum(score.each) == score.nats == pytest.approx(m.score(score.text), rel=1e-12)
        assert score.nats_per_char == pytest.approx(m.evaluate(score.text).nats_per_char, rel=1e-12)
    assert list(m.scores(["anna", "", "bo", "carla"])) == got


@pytest.mark.parametrize("layers", [1, 2])
def test_lines_are_scored_one_by_one_with_their_newlines(layers):
    m = make_model(layers=layers)
    whole = m.evaluate("anna\n\ncarla\nbo\n\n")
    parts = [m.evaluate(line) for line in ("anna", "carla\n", "bo")]
    assert whole.characters == sum(part.characters for part in parts) == len("anna.carla.bo.")
    assert whole.nats == pytest.approx(math.fsum(part.nats for part in parts), rel=1e-12)
    assert m.score("bo") == parts[2].nats


def test_a_stream_is_scored_as_one_text(monkeypatch):
    m = make_model("stream")
    assert m.evaluate("anna\n\nbo\n").characters == 9
    assert m.score("annabo") != pytest.approx(m.score("anna") + m.score("bo"), rel=1e-3)
    long = m.score("anna" * 100)  # longer than a window
    assert long > m.score("anna" * 99)
    monkeypatch.setattr(text_model, "WINDOW", 3)
    assert m.score("anna" * 100) == pytest.approx(long, rel=1e-12)


def test_bytes_are_scored_as_they_are():
    m = make_model("stream", BYTES)
    assert m.evaluate("é\n".encode()).nats == m.evaluate("é\n").nats
    assert m.evaluate("é\n").characters == 3
    assert m.evaluate(b"\xff\0").characters == 2


@pytest.mark.parametrize(("mode", "text"), [("lines", ""), ("lines", " \n\n"), ("stream", "")])
def test_a_text_without_characters_cannot_be_scored(mode, text):
    m = make_model(mode, characters(TEXT + " "))
    assert "nothing to evaluate" in refusal(m.score, text)


def test_unknown_characters_are_not_scored():
    assert "'x' (U+0078), first at line 2, column 3" in refusal(make_model().score, "anna\nboxx\n")
    assert "got bytes, expected str" in refusal(make_model().evaluate, b"anna")
    assert "got int, expected the text itself, as str" in refusal(make_model().score, 3)


# Files


def test_a_saved_model_is_the_same_on_every_backend(lab, tmp_path):
    m = make_model(backend=lab.backend, cell="vanilla")
    m.save(tmp_path / "model")
    same = bptt.load(tmp_path / "model", backend="numpy")
    assert (same.config, same.vocabulary, same.mode, same.record) == (m.config, m.vocabulary, m.mode, m.record)
    assert same.backend.dtype == lab.backend.dtype
    lab.close(same.params, lab.get(m.params), 1e-300)
    on_lab = bptt.load(tmp_path / "model", backend=lab.backend.name)
    assert on_lab.backend.name == lab.backend.name
    for other in (same, on_lab):
        assert other.score("anna") == pytest.approx(m.score("anna"), rel=lab.tolerance)


def test_load_converts_to_the_dtype_asked_for(tmp_path):
    m = make_model()
    m.save(tmp_path / "model")
    half = bptt.load(tmp_path / "model", dtype="float32")
    assert {array.dtype for _, array in tree.named_leaves(half.params)} == {np.dtype(np.float32)}
    assert half.score(TEXT) == pytest.approx(m.score(TEXT), rel=1e-5)
    half.save(tmp_path / "half")
    assert bptt.load(tmp_path / "half").backend.dtype == "float32"


def test_load_and_save_refuse_what_is_not_a_path():
    assert "folder 5: expected a path" in refusal(bptt.load, 5)
    assert "folder None: expected a path" in refusal(make_model().save, None)


def test_save_does_not_overwrite_a_model(tmp_path):
    m = make_model()
    m.save(str(tmp_path / "model"))
    assert "already exists" in refusal(m.save, tmp_path / "model")


def test_an_unknown_backend_or_dtype_is_refused(tmp_path):
    make_model().save(tmp_path / "model")
    assert "backend 'numpie' is unknown" in refusal(bptt.load, tmp_path / "model", backend="numpie")
    assert "dtype 'float16' is unknown" in refusal(bptt.load, tmp_path / "model", dtype="float16")


# What it is


def test_repr_describes_the_model():
    parameters = 3 * 6 * (8 + 6) + 3 * 6 + 6 + 3 * 6 * (6 + 6) + 3 * 6 + 6 + 2 * 6 + 8 * 6 + 8
    assert str(make_model(layers=2)) == repr(make_model(layers=2))
    assert repr(make_model(layers=2)) == (
        f"<bptt.LanguageModel: gru, 2 x 6 units, {parameters} parameters, 8 symbols, trained on 'names' (lines), "
        "1.2500 nats per held-out character (1.8034 bits); numpy float64>"
    )
    assert repr(dataclasses.replace(make_model(), record={})).endswith("trained on '?' (lines); numpy float64>")


def test_models_can_be_compared_and_hashed():
    m = make_model()
    assert m == m
    assert m != make_model()
    assert len({m, m}) == 1


def test_the_record_is_json(tmp_path):
    m = bptt.train(["ab", "ba"] * 4, steps=2, hidden=np.int64(4), learning_rate=np.float64(0.01), quiet=True, out=None)
    assert json.loads(json.dumps(m.record)) == m.record
    m.save(tmp_path / "model")
    assert bptt.load(tmp_path / "model").record == m.record


def test_a_score_is_shown_in_one_line():
    model = bptt.train(NAMES, report=None, steps=1, hidden=2, backend="numpy")
    (score,) = model.scores([NAMES.split()[0] * 30])
    assert repr(score) == str(score)
    assert repr(score).startswith(f"<bptt.Score of line 1: {score.nats:.4f} nats (")
    assert repr(score).endswith(f"nats each: {score.text[:60] + '...'!r}>")


def test_the_name_of_a_file_that_is_evaluated_as_a_text_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = bptt.train(NAMES, report=None, steps=1, hidden=2, backend="numpy")
    name = NAMES.split()[0]
    assert model.evaluate(name).characters == len(name) + 1
    Path(name).write_text(NAMES)
    with pytest.warns(bptt.BpttWarning, match=f"^'{name}' is read as the text itself: for the file of this name, give Path"):
        assert model.evaluate(name).characters == len(name) + 1
    assert model.evaluate(Path(name)).characters == len(NAMES)


@pytest.mark.parametrize("report", [3, "print"])
def test_a_report_that_is_no_function_is_refused(report):
    with pytest.raises(bptt.InputError, match=f"^report {report!r}: expected a function that takes a line, or None"):
        bptt.train(NAMES, report=report, steps=1, hidden=2, backend="numpy")
