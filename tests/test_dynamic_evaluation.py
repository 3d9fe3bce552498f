"""Dynamic evaluation: each segment is scored before the model learns from it, and the model itself stays as it was."""

import math

import numpy as np
import pytest

from bptt import acceleration
from bptt import backend as backends
from bptt.data.vocabulary import characters
from bptt.errors import Diverged
from bptt.inference import dynamic_evaluation
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree
from conftest import forbid_host_reads, make_sequences, variant

CELLS = pytest.mark.parametrize("cell", [variant("vanilla"), "gru", variant("lstm")])
V = 5
HERE = backends.select("numpy", "float64")


def random_model(cell="gru", layers=2):
    rng = np.random.default_rng(0)
    config = model.Config(cell, V, 4, layers)
    return config, tree.tree_map(lambda a: a + 0.5 * rng.normal(size=a.shape), model.init(config, rng)), rng


def make_model(mode="stream", dtype="float64"):
    config, params, _ = random_model()
    backend = backends.select("numpy", dtype)
    return LanguageModel(config, characters("abcd"), mode, tree.tree_map(backend.put, params), backend, {})


def by_hand(config, params, groups):
    """The nats of sequences, group by group, by the equations of the module: a separate forward pass scores each segment."""
    size, rate, decay = dynamic_evaluation.SEGMENT, dynamic_evaluation.LEARNING_RATE, dynamic_evaluation.DECAY
    shapes, saved = model.shapes(config), tree.ravel(params)
    deviation, v, t, nats = np.zeros_like(saved), np.zeros_like(saved), 0, 0.0
    for group in groups:
        longest = max(len(sequence) - 1 for sequence in group)
        x, y, mask = (np.zeros((longest, len(group)), kind) for kind in (np.int64, np.int64, np.float64))
        for b, sequence in enumerate(group):
            n = len(sequence) - 1
            x[:n, b], y[:n, b], mask[:n, b] = sequence[:-1], sequence[1:], 1.0
        states = None
        for first in range(0, longest, size):
            adapted, part = tree.unravel(saved + deviation, shapes), slice(first, first + size)
            logits, after, _ = model.forward(config, adapted, x[part], states)
            p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
            nats -= float((np.log(np.take_along_axis(p, y[part][:, :, None], axis=2)[:, :, 0]) * mask[part]).sum())
            _, grad, _ = model.loss_and_grad(config, adapted, x[part], y[part], mask[part], states)
            g, t = tree.ravel(grad), t + 1
            v = 0.999 * v + 0.001 * g * g
            deviation = (1 - decay) * deviation - rate * g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            states = after
    return nats


@CELLS
def test_a_stream_is_scored_and_then_learned_from(lab, cell, monkeypatch):
    monkeypatch.setattr(dynamic_evaluation, "SEGMENT", 7)
    monkeypatch.setattr(dynamic_evaluation, "LEARNING_RATE", 0.02)
    monkeypatch.setattr(dynamic_evaluation, "DECAY", 0.1)
    config, params, rng = random_model(cell)
    text = rng.integers(0, V, 40)
    got = dynamic_evaluation.evaluate(config, lab.put(params), lab.backend, make_sequences([text]))
    assert got.characters == 39
    assert got.nats == pytest.approx(by_hand(config, params, [[text]]), rel=20 * lab.tolerance)


@pytest.mark.variant
@CELLS
def test_lines_of_a_segment_are_scored_side_by_side_in_their_order(lab, cell, monkeypatch):
    monkeypatch.setattr(dynamic_evaluation, "SEGMENT", 7)
    monkeypatch.setattr(dynamic_evaluation, "LEARNING_RATE", 0.02)
    config, params, rng = random_model(cell)
    a, b, c, d, e, f = (rng.integers(0, V, n) for n in (3, 6, 2, 17, 4, 5))
    got = dynamic_evaluation.evaluate(config, lab.put(params), lab.backend, make_sequences([a, b, c, d, e, f]))
    assert got.characters == 2 + 5 + 1 + 16 + 3 + 4
    assert got.nats == pytest.approx(by_hand(config, params, [[a, b], [c], [d], [e, f]]), rel=20 * lab.tolerance)


@pytest.mark.parametrize("lengths", [[1], [64], [65], [200], [3, 9, 64, 65, 1, 1, 30, 33, 2], [1] * 150])
def test_every_target_is_in_one_segment_in_the_order_of_the_text(lengths):
    sequences = make_sequences([np.zeros(n + 1, np.uint8) for n in lengths])
    seen = []
    for window in dynamic_evaluation.segments(sequences):
        assert window.targets <= dynamic_evaluation.SEGMENT
        assert window.start == (window.columns[0][0] in sequences.starts)
        for first, steps in zip(window.columns[0].tolist(), window.lengths.tolist()):
            seen += range(first + 1, first + steps + 1)
    expected = [i for start, n in zip(sequences.starts.tolist(), lengths) for i in range(start + 1, start + n + 1)]
    assert seen == expected


def test_the_first_segment_costs_what_it_costs_without_learning():
    m = make_model()
    text = "abcd" * 16
    assert m.evaluate(text, dynamic=True).nats == pytest.approx(m.evaluate(text).nats, rel=1e-12)
    assert m.evaluate(text + "a", dynamic=True).nats != pytest.approx(m.evaluate(text + "a").nats, rel=1e-6)


def test_what_follows_does_not_change_what_a_segment_costs():
    m = make_model()
    begin, ends = "abcdbca" * 32, ["a" * 64, "bd" * 32]  # 224 characters: three segments and a half
    segments = [m.evaluate(begin[:192] + end, dynamic=True).nats for end in ends]
    before = m.evaluate(begin[:192], dynamic=True).nats
    assert min(segments) > before
    assert abs(segments[0] - segments[1]) > 1
    assert m.evaluate(begin, dynamic=True).nats > before


def test_a_text_that_repeats_itself_is_predicted_better_and_better():
    m = make_model()
    text = "abacabad" * 200
    dynamic, static = m.evaluate(text, dynamic=True), m.evaluate(text)
    assert dynamic.characters == static.characters == 1600
    assert dynamic.nats < 0.98 * static.nats
    half = m.evaluate(text[:800], dynamic=True).nats
    assert dynamic.nats - half < half


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_the_model_stays_as_it_is_bit_for_bit(mode, dtype):
    m = make_model(mode, dtype)
    before = [array.tobytes() for _, array in tree.named_leaves(m.params)]
    first = m.evaluate("abcd\ndcba\n" * 30, dynamic=True)
    assert [array.tobytes() for _, array in tree.named_leaves(m.params)] == before
    assert m.evaluate("abcd\ndcba\n" * 30, dynamic=True) == first


def test_kernels_change_only_the_rounding(monkeypatch):
    m = make_model()
    text = "abcdadcb" * 40
    compiled = m.evaluate(text, dynamic=True)
    monkeypatch.setenv(acceleration.SWITCH, "0")
    assert m.evaluate(text, dynamic=True).nats == pytest.approx(compiled.nats, rel=1e-9)


@CELLS
def test_dynamic_evaluation_does_not_read_arrays_on_the_host(cell):
    strict = backends.select("strict", "float64")
    config, params, rng = random_model(cell)
    params = tree.tree_map(strict.put, params)
    sequences = make_sequences([rng.integers(0, V, 150)])
    before = dynamic_evaluation.evaluate(config, params, strict, sequences)
    with forbid_host_reads():
        assert dynamic_evaluation.evaluate(config, params, strict, sequences) == before


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_is_reported():
    config, params, rng = random_model()
    text = make_sequences([rng.integers(0, V, 100)])
    with pytest.raises(Diverged, match="dynamic evaluation: the loss is not a finite number"):
        dynamic_evaluation.evaluate(config, tree.tree_map(lambda a: a * math.nan, params), HERE, text)
