"""Ensembles: the mean of the probabilities of their models, in everything that one model can do."""

import copy
import dataclasses
import math
import pickle
import string

import numpy as np
import pytest

import bptt
from bptt import Ensemble, LanguageModel, acceleration
from bptt import backend as backends
from bptt.data.vocabulary import BYTES, characters
from bptt.errors import InputError
from bptt.inference import generate, prediction, text_model
from bptt.nn import model, tree
from conftest import forbid_host_reads

TEXT = "anna\nbo\ncarla\n"
MODES = pytest.mark.parametrize("mode", ["lines", "stream"])


def make_model(cell="gru", hidden=6, layers=1, mode="lines", vocabulary=None, backend=None, seed=0, **record):
    """A model with random weights, large enough for its characters to have very different probabilities."""
    vocabulary = vocabulary or characters(TEXT)
    backend = backend or backends.select("numpy", "float64")
    config = model.Config(cell, len(vocabulary), hidden, layers)
    params = tree.tree_map(lambda a: backend.put(2 * a), model.init(config, np.random.default_rng(seed)))
    return LanguageModel(config, vocabulary, mode, params, backend, record)


def three_models(mode="lines", backend=None):
    """Models of different cells, sizes and layers."""
    how = {"mode": mode, "backend": backend}
    return [make_model("gru", 6, 1, **how), make_model("lstm", 4, 2, seed=1, **how), make_model("vanilla", 5, seed=2, **how)]


def refusal(function, *arguments):
    with pytest.raises(InputError) as error:
        function(*arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# The mean of probabilities


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_logits_are_the_logarithm_of_the_mean_probability(lab, rng, count):
    logits = tuple(3 * rng.normal(size=(4, 2, 7)) for _ in range(count))
    got = lab.call(lambda *each: prediction.log_mean_probabilities(each), *logits)
    lab.close(got, np.log(np.mean(np.exp([log_softmax(each) for each in logits]), axis=0)))


def test_extreme_logits_neither_overflow_nor_vanish(lab):
    def row(*numbers):
        return np.array([[numbers]], np.float64)

    def mean(*logits):
        return lab.call(lambda *each: prediction.log_mean_probabilities(each), *logits)[0, 0]

    half = -math.log(2)
    np.testing.assert_allclose(mean(row(1e4, -1e4), row(-1e4, 1e4)), [half, half], rtol=1e-6)
    np.testing.assert_allclose(mean(row(1e4, -1e4), row(1e4, -1e4)), [0, -2e4], atol=1e-6)
    np.testing.assert_allclose(mean(row(500, 0), row(700, 0)), [0, -500 + half], atol=1e-3)  # both exp are 0 in float32
    np.testing.assert_allclose(mean(row(1e38, -1e38), row(-1e38, 1e38)), [half, half], rtol=1e-6)
    np.testing.assert_allclose(mean(row(1e38, -1e38), row(0, 0)), [math.log(0.75), math.log(0.25)], rtol=1e-6)


@pytest.mark.compiled
def test_every_backend_predicts_with_an_ensemble_alike(lab, rng):
    members = three_models()
    configs, params = tuple(one.config for one in members), tuple(one.params for one in members)
    x = rng.integers(0, len(members[0].vocabulary), (5, 3))
    expected, states = prediction.forward(configs, params, x)

    def forward(params, x):
        logits, states = prediction.forward(configs, params, x[:2, :])
        more, states = prediction.forward(configs, params, x[2:, :], states)
        return logits, more, states

    logits, more, after = lab.call(forward, params, x)
    lab.close(np.concatenate([logits, more]), expected, 10 * lab.tolerance)
    lab.close(after, states, 10 * lab.tolerance)


@MODES
@pytest.mark.parametrize("prompt", ["", "carl"])
def test_next_is_the_mean_of_the_probabilities(mode, prompt):
    members = three_models(mode)
    each = [dict(one.next(prompt)) for one in members]
    after = Ensemble(members).next(prompt)
    assert [p for _, p in after] == sorted((p for _, p in after), reverse=True)
    for symbol, p in after:
        assert p == pytest.approx(sum(probabilities[symbol] for probabilities in each) / 3, rel=1e-12)


@MODES
def test_each_character_is_scored_by_the_mean_of_the_probabilities(mode, monkeypatch):
    members = three_models(mode)
    together, each = list(Ensemble(members).scores(TEXT)), [list(one.scores(TEXT)) for one in members]
    for score, *alone in zip(together, *each, strict=True):
        assert all((score.number, score.symbols) == (one.number, one.symbols) for one in alone)
        expected = -np.log(np.mean(np.exp([-np.array(one.each) for one in alone]), axis=0))
        np.testing.assert_allclose(score.each, expected, rtol=1e-11)
    monkeypatch.setattr(text_model, "WINDOW", 2)
    for score in together:
        result = Ensemble(members).evaluate(score.text)
        assert result.nats == pytest.approx(score.nats, rel=1e-12)
        assert result.nats == Ensemble(members).score(score.text)
        assert result.characters == len(score.each)
    if mode == "lines":
        assert Ensemble(members).score(TEXT) == pytest.approx(math.fsum(score.nats for score in together), rel=1e-12)


def test_an_ensemble_is_never_worse_than_the_mean_of_its_models():
    members = three_models("stream")
    assert Ensemble(members).score(TEXT) < np.mean([one.score(TEXT) for one in members])


# What it does


@MODES
def test_an_ensemble_of_one_model_is_that_model(mode):
    one = make_model(mode=mode)
    alone = Ensemble([one])
    assert alone.evaluate(TEXT) == one.evaluate(TEXT)
    assert list(alone.scores(TEXT)) == list(one.scores(TEXT))
    assert alone.next("an") == one.next("an")
    assert alone.sample(5, seed=3, temperature=0.7, top_p=0.9) == one.sample(5, seed=3, temperature=0.7, top_p=0.9)
    assert list(alone.stream(prompt="an")) == list(one.stream(prompt="an"))


@MODES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_ensemble_of_two_copies_is_the_model_up_to_rounding(mode, dtype):
    one = make_model(mode=mode, backend=backends.select("numpy", dtype))
    twice = Ensemble([one, copy.deepcopy(one)])
    assert twice.score(TEXT) == pytest.approx(one.score(TEXT), rel=1e-5 if dtype == "float32" else 1e-13)
    assert dict(twice.next("an")) == pytest.approx(dict(one.next("an")), rel=1e-5)
    assert twice.sample(5, seed=3) == one.sample(5, seed=3)
    assert "".join(twice.stream(seed=4)) == "".join(one.stream(seed=4)) == twice.sample(1, seed=4)[0]


@MODES
def test_texts_are_sampled_as_often_as_their_scores_say(mode):
    members = [make_model(mode=mode, vocabulary=characters("ab"), seed=seed) for seed in (0, 1)]
    both, count = Ensemble(members), 20_000
    drawn = both.sample(count, length=3)
    texts = [a + b + ("" if mode == "lines" else c) for a in "ab" for b in "ab" for c in ("a" if mode == "lines" else "a\n")]
    for text in texts:
        expected = count * math.exp(-both.score(text))
        assert abs(drawn.count(text) - expected) < 4.5 * math.sqrt(expected), text


def test_sampling_with_a_captured_graph_does_not_read_arrays_on_the_host(monkeypatch):
    strict, options = backends.select("strict", "float64"), {"count": 70, "length": 40, "seed": 5}
    expected = Ensemble(three_models("stream")).sample(**options)

    def recorded(action):
        def repeat():
            with forbid_host_reads():
                action()

        return repeat

    monkeypatch.setattr(acceleration, "graph_recorder", lambda: recorded)
    monkeypatch.setattr(generate, "CHARACTERS_PER_READ", 4)
    assert Ensemble(three_models("stream", strict)).sample(**options) == expected


def test_models_of_both_types_predict_in_float64():
    single = backends.select("numpy", "float32")
    members = [make_model(backend=single, seed=seed) for seed in (0, 1)]
    wide = dataclasses.replace(members[1], backend=backends.select("numpy", "float64"))
    wide = dataclasses.replace(wide, params=tree.tree_map(lambda a: a.astype(np.float64), wide.params))
    for pair in ([members[0], wide], [wide, members[0]]):
        both = Ensemble(pair)
        assert both.backend.dtype == "float64"
        assert both.score(TEXT) == pytest.approx(Ensemble(members).score(TEXT), rel=1e-5)
        assert both.sample(3) == Ensemble(members).sample(3)
        logits, _ = prediction.forward(both.config, both.params, np.zeros((1, 1), np.int64))
        assert logits.dtype == np.float64


def test_novel_texts_are_in_the_training_text_of_no_model(tmp_path):
    texts = list(dict.fromkeys(text for text in Ensemble(three_models()).sample(40) if text.strip()))
    members = []
    for number, one in enumerate(three_models()):
        file = tmp_path / f"{number}.txt"
        file.write_text("\n".join(texts[number:3:3]) + "\n")
        members.append(dataclasses.replace(one, record={"source": str(file)}))
    new = Ensemble(members).sample(10, novel=True)
    assert len(new) == 10
    assert not set(new) & set(texts[:3])
    assert new == texts[3:13]


def test_models_of_several_texts_are_an_ensemble(tmp_path):
    for name, text in (("a.txt", "anna\nbob\n"), ("b.txt", "nora\nbart\n")):
        (tmp_path / name).write_text(text * 5)
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    models = [bptt.train(paths, hidden=4, steps=3, seed=seed, backend="numpy", report=None) for seed in (0, 1)]
    both = Ensemble(models)
    assert both.score("nora") <= np.mean([model.score("nora") for model in models]) + 1e-6
    assert not {"anna", "bob", "nora", "bart"} & set(both.sample(20, novel=True, length=5))


def test_an_ensemble_can_be_copied_and_pickled():
    original = Ensemble(three_models())
    for same in (copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert isinstance(same, Ensemble)
        assert same.sample(3, seed=1) == original.sample(3, seed=1)
        assert same.evaluate(TEXT) == original.evaluate(TEXT)


def test_repr_describes_the_models():
    layers = "gru 1 x 6, lstm 2 x 4, vanilla 1 x 5"
    assert repr(Ensemble(three_models())) == f"<bptt.Ensemble of 3: {layers}; 8 symbols (lines); numpy float64>"
    assert Ensemble(iter(three_models())).models[1].config.cell == "lstm"


# What cannot be one


def test_models_that_cannot_predict_together_are_refused():
    one = make_model()
    assert "no models: expected at least one" in refusal(Ensemble, [])
    assert "model 2 of the ensemble is str, expected a LanguageModel: bptt.load reads one" in refusal(Ensemble, [one, "runs/a"])
    assert "model 1 of the ensemble is int" in refusal(Ensemble, 5)
    assert refusal(Ensemble, [one, one, make_model(vocabulary=characters(TEXT + "xyz"))]) == (
        "model 1 and model 3 have different vocabularies (8 and 11 characters, only in one of them: 'x', 'y', 'z'): "
        "an ensemble needs models with the same one"
    )
    assert "(4 and 27 characters, only in one of them: 'A', 'B', 'C', 'a', 'b' and 24 more)" in refusal(
        Ensemble, [make_model(vocabulary=characters(text)) for text in ("ABC", string.ascii_lowercase)]
    )
    assert "(8 characters and bytes)" in refusal(Ensemble, [one, make_model(vocabulary=BYTES)])
    assert "model 1 and model 2 have different modes (lines and stream)" in refusal(Ensemble, [one, make_model(mode="stream")])
    strict = make_model(backend=backends.select("strict", "float64"))
    assert "different devices (numpy float64 and strict float64): load both with the same backend" in refusal(
        Ensemble, [one, strict]
    )


def test_bad_texts_are_refused_as_by_one_model():
    both = Ensemble(three_models()[:2])
    assert "nothing to evaluate" in refusal(both.evaluate, "\n")
    assert "not in the vocabulary: 'x' (U+0078)" in refusal(both.score, "x")
    assert "got int, expected the text itself" in refusal(both.evaluate, 3)
    assert "temperature -1" in refusal(lambda: both.sample(temperature=-1))
    with pytest.raises(TypeError, match="dynamic"):
        both.evaluate(TEXT, dynamic=True)
    assert bptt.Ensemble is Ensemble
