"""Evaluation: the sum over targets does not depend on how they are batched, and it is the model's own probability."""

import itertools
import math

import numpy as np
import pytest

from bptt import backend as backends
from bptt.data import batches
from bptt.inference.evaluation import Evaluation, evaluate
from bptt.nn import model, tree
from conftest import make_sequences

CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
V = 5
HERE = backends.select("numpy", "float64")


def random_model(cell="gru", layers=2):
    rng = np.random.default_rng(0)
    config = model.Config(cell, V, 4, layers)
    return config, tree.tree_map(lambda a: a + 0.5 * rng.normal(size=a.shape), model.init(config, rng)), rng


def by_hand(config, params, sequence):
    """The sum of -log p over one sequence, straight from the definition."""
    logits, _, _ = model.forward(config, params, np.asarray(sequence[:-1], np.int64)[:, None])
    u = logits[:, 0, :]
    return float(sum(np.log(np.exp(u[t]).sum()) - u[t, y] for t, y in enumerate(sequence[1:])))


@CELLS
def test_the_batch_size_does_not_change_the_loss_of_lines(cell):
    config, params, rng = random_model(cell)
    lines = make_sequences([rng.integers(0, V, n) for n in (2, 9, 3, 3, 14, 5)])
    read = batches.batch_reader(lines.ids, HERE)
    expected = sum(by_hand(config, params, line) for line in lines)
    for batch, length in [(1, 100), (6, 4), (2, 1)]:
        got = evaluate(config, params, HERE, map(read, batches.lines(lines, batch, length, None)))
        assert got.characters == sum(len(line) - 1 for line in lines)
        assert got.nats == pytest.approx(expected, rel=1e-12)


@CELLS
def test_the_window_length_does_not_change_the_loss_of_a_stream(cell):
    config, params, rng = random_model(cell)
    text = make_sequences([rng.integers(0, V, 101)])
    read = batches.batch_reader(text.ids, HERE)
    expected = by_hand(config, params, text[0])
    for length in (3, 7, 1000):
        got = evaluate(config, params, HERE, map(read, batches.stream(text, 1, length)))
        assert got.characters == 100
        assert got.nats == pytest.approx(expected, rel=1e-12)


def test_columns_that_have_ended_are_not_computed(monkeypatch):
    config, params, rng = random_model()
    shapes, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda *a: shapes.append(a[2].shape) or forward(*a))
    lines = make_sequences([rng.integers(0, V, n) for n in (41, 2, 12, 9, 5)])
    got = evaluate(config, params, HERE, map(batches.batch_reader(lines.ids, HERE), batches.lines(lines, 5, 8, None)))
    assert shapes == [(8, 5), (8, 2), (8, 1), (8, 1), (8, 1)]
    assert got.nats == pytest.approx(sum(by_hand(config, params, line) for line in lines), rel=1e-12)


def test_columns_in_any_order_give_the_same_evaluation():
    config, params, rng = random_model()
    lines = make_sequences([rng.integers(0, V, n) for n in (2, 12, 3, 9, 5)])
    got = evaluate(config, params, HERE, map(batches.batch_reader(lines.ids, HERE), batches.windows(lines, 2)))
    assert got.nats == pytest.approx(sum(by_hand(config, params, line) for line in lines), rel=1e-12)


def test_every_backend_gives_the_same_evaluation(lab):
    config, params, rng = random_model("vanilla", 1)
    lines = make_sequences([rng.integers(0, V, n) for n in (9, 9, 8, 5)])  # two windows, the second one padded
    read = batches.batch_reader(lines.ids, lab.backend)
    got = evaluate(config, lab.put(params), lab.backend, map(read, batches.windows(lines, 4)))
    assert got.characters == 8 + 8 + 7 + 4
    assert got.nats == pytest.approx(sum(by_hand(config, params, line) for line in lines), rel=lab.tolerance)


def test_a_model_of_zeros_is_uniform():
    config, params, rng = random_model()
    zeros = tree.tree_map(np.zeros_like, params)
    lines = make_sequences([rng.integers(0, V, 9), rng.integers(0, V, 4)])
    got = evaluate(config, zeros, HERE, map(batches.batch_reader(lines.ids, HERE), batches.lines(lines, 2, 3, None)))
    assert got.characters == 11
    assert got.nats_per_char == pytest.approx(math.log(V), rel=1e-14)
    assert got.bits_per_char == pytest.approx(math.log2(V), rel=1e-14)
    assert got.perplexity == pytest.approx(V, rel=1e-13)


@CELLS
def test_probabilities_of_all_texts_of_a_length_sum_to_one(cell):
    config, params, _ = random_model(cell)
    texts = [make_sequences([np.array([0, *text])]) for text in itertools.product(range(V), repeat=3)]
    each = [map(batches.batch_reader(text.ids, HERE), batches.windows(text, 2)) for text in texts]
    assert math.fsum(math.exp(-evaluate(config, params, HERE, text).nats) for text in each) == pytest.approx(1, rel=1e-12)


def test_an_evaluation_has_nats_bits_and_perplexity():
    result = Evaluation(nats=20 * math.log(2), characters=10)
    assert (result.nats_per_char, result.bits_per_char) == pytest.approx((2 * math.log(2), 2))
    assert result.perplexity == pytest.approx(4)
    assert str(result) == "1.3863 nats per character, 2.0000 bits, perplexity 4.000, 10 characters"
    assert math.isfinite(Evaluation(nats=1e9, characters=1).perplexity)


def test_perplexity_is_finite():
    """exp of 710 nats is too large for a float; JSON has no word for infinity."""
    assert Evaluation(1e6, 2).perplexity == math.exp(700.0)
    assert Evaluation(1398.0, 2).perplexity == pytest.approx(math.exp(699.0))
