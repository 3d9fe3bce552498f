"""What a model does inside: against the definition of its equations, finite differences, and its own backward pass."""

import tracemalloc

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt import inspect
from bptt.data.vocabulary import Vocabulary, characters
from bptt.errors import InputError
from bptt.inference.language_model import LanguageModel
from bptt.nn import cells, loss, model, tree

MODELS = pytest.mark.parametrize(("cell", "layers"), [(cell, n) for cell in ("vanilla", "gru", "lstm") for n in (1, 2)])
TEXT = "abacabad"
H, EPSILON = 4, 1e-5


def trained(cell="gru", layers=1, mode="lines", dtype="float64", hidden=H):
    rng = np.random.default_rng(1)
    config = model.Config(cell, 5, hidden, layers)
    params = tree.tree_map(lambda a: a + 0.4 * rng.normal(size=a.shape), model.init(config, rng))
    here = backends.select("numpy", dtype)
    return LanguageModel(config, Vocabulary(tuple("\nabcd")), mode, tree.tree_map(here.put, params), here, {})


def by_steps(one, x, y, nudged=None):
    """The states of all layers after each step, and -log p of each target, layer by layer and step by step.

    `nudged` is a layer, a step, and what is added to the a of that layer there, which goes on to the layer above and in time.
    """
    cell, states = cells.CELLS[one.config.cell], model.initial_states(one.config, one.params, 1)
    seen, nats = [], []
    for t in range(len(x)):
        above, after = x[t : t + 1], []
        for layer, params in enumerate(one.params.layers):
            above, state, _ = cell.forward(params, above, states[layer])
            if nudged and nudged[:2] == (layer, t):
                above, state = above + nudged[2], state._replace(a=state.a + nudged[2])
            after.append(state)
        states = tuple(after)
        seen.append(states)
        logits = above @ one.params.Wya.T + one.params.by
        nats.append(float(loss.nats(logits, y[t : t + 1])[0, 0]))
    return seen, np.array(nats)


def read(one, text):
    ids = np.concatenate([[0], one.vocabulary.encode(text), [0] if one.mode == "lines" else []]).astype(np.int64)
    return ids[:-1, None], ids[1:, None]


@MODELS
@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_activations_equal_those_of_single_steps(cell, layers, mode):
    one = trained(cell, layers, mode)
    found = inspect.activations(one, TEXT)
    seen, nats = by_steps(one, *read(one, TEXT))
    T = len(TEXT) + (mode == "lines")
    assert found.inputs == ["\n", *TEXT][:T]
    assert found.targets == [*TEXT, "\n"][:T]
    np.testing.assert_allclose(found.a, [[state.a[0] for state in states] for states in seen], atol=1e-14)
    np.testing.assert_allclose(found.nats, nats, atol=1e-13)
    assert found.nats.sum() == pytest.approx(one.score(TEXT), rel=1e-12)
    likely = dict(one.next(TEXT[:3]))
    np.testing.assert_allclose(found.p[3], [likely[name] for name in "\nabcd"], atol=1e-12)
    if cell == "lstm":
        np.testing.assert_allclose(found.cells, [[state.c[0] for state in states] for states in seen], atol=1e-14)
        i, f, g, o = np.moveaxis(found.gates, 2, 0)
        np.testing.assert_allclose(found.cells[1:], f[1:] * found.cells[:-1] + i[1:] * g[1:], atol=1e-14)
        np.testing.assert_allclose(found.a, o * np.tanh(found.cells), atol=1e-14)
    elif cell == "gru":
        _, u, n = np.moveaxis(found.gates, 2, 0)
        np.testing.assert_allclose(found.a[1:], u[1:] * found.a[:-1] + (1 - u[1:]) * n[1:], atol=1e-14)
    else:
        assert found.gates is None
    assert found.cells is None or cell == "lstm"


@MODELS
def test_gradients_of_losses_equal_finite_differences(cell, layers):
    one = trained(cell, layers)
    x, y = read(one, TEXT)
    T = len(x)
    expected = np.zeros((layers, T, T, H))
    for layer in range(layers):
        for s in range(T):
            for h in range(H):
                step = EPSILON * np.eye(H)[h]
                more, less = (by_steps(one, x, y, (layer, s, sign * step))[1] for sign in (1, -1))
                for t in range(s, T):
                    expected[layer, t, t - s, h] = (more[t] - less[t]) / (2 * EPSILON)
    np.testing.assert_allclose(inspect.gradients_of_losses(one, TEXT, 99), expected, atol=1e-8)
    np.testing.assert_allclose(inspect.gradients_of_losses(one, TEXT, 3), expected[:, :, :4], atol=1e-8)


@MODELS
def test_gradients_of_losses_add_up_to_the_backward_pass(cell, layers):
    """In each layer, times the slope of what the state is made of, summed over the steps: the gradient of a bias."""
    one = trained(cell, layers)
    x, y = read(one, TEXT)
    T = len(x)
    vectors, found = inspect.gradients_of_losses(one, TEXT, T), inspect.activations(one, TEXT)
    _, gradient, _ = model.loss_and_grad(one.config, one.params, x, y, np.ones(x.shape))
    total = np.zeros((T, layers, H))
    for t in range(T):
        for k in range(t + 1):
            total[t - k] += vectors[:, t, k]
    if cell == "vanilla":
        slope = 1 - found.a**2
    elif cell == "gru":
        slope = (1 - found.gates[:, :, 1]) * (1 - found.gates[:, :, 2] ** 2)
    else:
        slope = np.tanh(found.cells) * found.gates[:, :, 3] * (1 - found.gates[:, :, 3])
    for layer in range(layers):
        np.testing.assert_allclose((total * slope)[:, layer].sum(axis=0), T * gradient.layers[layer].b[-H:], atol=1e-12)


@pytest.mark.parametrize("together", [1, 3, 64])
def test_gradient_flow_is_the_norm_and_its_mean(monkeypatch, together):
    monkeypatch.setattr(inspect, "TOGETHER", together)
    one = trained("lstm", 2)
    vectors, flow = inspect.gradients_of_losses(one, TEXT, 5), inspect.gradient_flow(one, TEXT, 5)
    assert flow.norms.shape == (2, 9, 6)
    assert flow.decay.shape == (2, 6)
    for t in range(9):
        for k in range(6):
            if k > t:
                assert np.isnan(flow.norms[:, t, k]).all()
            else:
                np.testing.assert_allclose(flow.norms[:, t, k], np.linalg.norm(vectors[:, t, k], axis=1), rtol=1e-12)
    np.testing.assert_allclose(flow.decay[:, 4], flow.norms[:, 4:, 4].mean(axis=1), rtol=1e-12)
    assert inspect.gradient_flow(one, TEXT, 0).norms.shape == (2, 9, 1)
    assert inspect.gradient_flow(one, TEXT, 10**6).norms.shape == (2, 9, 9)


@MODELS
def test_the_spectrum_is_that_of_the_numerical_jacobian(cell, layers):
    one = trained(cell, layers)
    x, y = read(one, TEXT)
    seen, _ = by_steps(one, x, y)
    found, Cell = inspect.jacobian_spectrum(one, TEXT), cells.CELLS[cell]
    S = len(Cell.State._fields)
    assert found.shape == (len(x), layers, S * H)
    below = one.params.layers[0]
    for t in (0, 3, 8):
        start = model.initial_states(one.config, one.params, 1) if t == 0 else seen[t - 1]

        def step(flat, layer, start=start, t=t):
            state = Cell.State(*np.split(flat[None, :], S, axis=1))
            inputs = x[t : t + 1] if layer == 0 else Cell.forward(below, x[t : t + 1], start[0])[0]
            return np.concatenate(Cell.forward(one.params.layers[layer], inputs, state)[1], axis=1)[0]

        for layer in range(layers):
            flat = np.concatenate(start[layer], axis=1)[0]
            nudges = EPSILON * np.eye(S * H)
            rows = [(step(flat + nudge, layer) - step(flat - nudge, layer)) / (2 * EPSILON) for nudge in nudges]
            expected = np.linalg.eigvals(np.array(rows).T)
            assert (np.diff(np.abs(found[t, layer])) <= 1e-12).all()
            for value in expected:
                assert np.abs(found[t, layer] - value).min() < 1e-5
    if cell == "vanilla":
        a = inspect.activations(one, TEXT).a[5, 0]
        radius = np.abs(np.linalg.eigvals((1 - a**2)[:, None] * one.params.layers[0].Waa)).max()
        assert abs(found[5, 0, 0]) == pytest.approx(radius, rel=1e-10)


def test_a_float32_model_is_inspected_in_float64():
    single = inspect.activations(trained(dtype="float32"), TEXT)
    assert single.a.dtype == single.p.dtype == np.float64


def test_bad_input_gives_a_clear_error():
    for function in (inspect.activations, inspect.gradient_flow, inspect.jacobian_spectrum):
        with pytest.raises(InputError, match="text '': expected at least one character"):
            function(trained(), "")
        with pytest.raises(InputError, match="'x'") as error:
            function(trained(), "abx")
        assert "--unknown" not in str(error.value)  # a flag of sampling
        with pytest.raises(InputError, match=r"text 'ab\\nba': expected one line without its end"):
            function(trained(), "ab\nba")
    assert inspect.activations(trained(mode="stream"), "ab\nba").inputs == ["\n", "a", "b", "\n", "b"]
    with pytest.raises(InputError, match="horizon -1: expected a whole number, at least 0"):
        inspect.gradient_flow(trained(), "ab", -1)


def test_inspect_is_an_attribute_of_the_package():
    assert bptt.inspect is inspect


def test_a_path_is_refused_as_a_model():
    with pytest.raises(InputError, match=r"model 'runs/names': expected what bptt\.load or bptt\.train gives"):
        inspect.activations("runs/names", TEXT)


@pytest.mark.parametrize("together", [1, 12, 10**9])
def test_logits_of_some_steps_at_a_time_give_the_same_numbers(monkeypatch, together):
    one = trained()
    whole, vectors = inspect.activations(one, TEXT), inspect.gradients_of_losses(one, TEXT)
    monkeypatch.setattr(inspect, "LOGITS_TOGETHER", together)
    parts = inspect.activations(one, TEXT)
    np.testing.assert_allclose(parts.p, whole.p, rtol=1e-12)
    np.testing.assert_allclose(parts.nats, whole.nats, rtol=1e-12)
    np.testing.assert_allclose(inspect.gradients_of_losses(one, TEXT), vectors, atol=1e-15)
    few = inspect.activations(one, TEXT, predicted=3)
    np.testing.assert_allclose(few.p, whole.p[:3], rtol=1e-12)
    np.testing.assert_allclose(few.nats, whole.nats, rtol=1e-12)


def test_tens_of_thousands_of_symbols_take_little_memory():
    """Their logits at all steps, in float64, would take 192 MB, and what is computed of them as much again each."""
    vocabulary = characters(map(chr, range(0x4E00, 0x4E00 + 40_000)))
    config = model.Config("gru", len(vocabulary), 4)
    params = model.init(config, np.random.default_rng(0))
    one = LanguageModel(config, vocabulary, "stream", params, backends.select("numpy", "float64"), {})
    text = chr(0x4E00) * 600
    tracemalloc.start()
    try:
        seen = inspect.activations(one, text, predicted=80)
        inspect.gradient_flow(one, text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen.p.shape == (80, 40_001)
    assert peak < 150e6
