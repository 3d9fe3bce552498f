"""The textbook as oracle of the engine: the same sequence, two programs, one result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt import textbook
from bptt.nn import linear, loss, model, optimizers, tree, vanilla


def textbook_parameters(rng, n_a, n_x):
    shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "Wya": (n_x, n_a), "b": (n_a, 1), "by": (n_x, 1)}
    return {name: 0.5 * rng.normal(size=shape) for name, shape in shapes.items()}


def engine_parameters(p, a0):
    layer = vanilla.Params(p["Wax"], p["Waa"], p["b"][:, 0])
    return model.Params((layer,), (vanilla.State(a0[:, 0]),), p["Wya"], p["by"][:, 0])


def textbook_results(p, X, Y, a0):
    """Loss per target, and gradients as the engine arranges them."""
    total, cache = textbook.rnn_forward(X, Y, a0, p, vocab_size=p["by"].shape[0])
    d, a = textbook.rnn_backward(X, Y, p, cache)
    gradients = {name: d["d" + name] / len(X) for name in p}
    return total / len(X), engine_parameters(gradients, d["da_next"] / len(X)), a[len(X) - 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_the_engine_equals_the_textbook_on_random_sequences(T, n_a, n_x, seed):
    rng = np.random.default_rng(seed)
    p, a0 = textbook_parameters(rng, n_a, n_x), rng.normal(size=(n_a, 1))
    X, Y = rng.integers(0, n_x, (T, 1)), rng.integers(0, n_x, (T, 1))
    config = model.Config("vanilla", n_x, n_a)
    got = model.loss_and_grad(config, engine_parameters(p, a0), X, Y, np.ones((T, 1)))
    expected = textbook_results(p, X[:, 0].tolist(), Y[:, 0].tolist(), a0)
    assert float(got[0]) == pytest.approx(float(expected[0]), rel=1e-12)
    for (name, d), (_, e) in zip(tree.named_leaves(got[1]), tree.named_leaves(expected[1])):
        np.testing.assert_allclose(d, e, rtol=0, atol=1e-12 * max(1.0, np.abs(e).max()), err_msg=name)
    np.testing.assert_allclose(got[2][0].a[0, :], expected[2][:, 0], atol=1e-12)


def test_every_backend_equals_the_textbook(lab, rng):
    p, a0 = textbook_parameters(rng, 4, 6), rng.normal(size=(4, 1))
    X, Y = rng.integers(0, 6, (7, 1)), rng.integers(0, 6, (7, 1))
    config = model.Config("vanilla", 6, 4)
    got = lab.call(
        lambda *arguments: model.loss_and_grad(config, *arguments)[:2], engine_parameters(p, a0), X, Y, np.ones((7, 1))
    )
    lab.close(got, tuple(np.asarray(e) if i == 0 else e for i, e in enumerate(textbook_results(p, X[:, 0], Y[:, 0], a0)[:2])))


def test_a_zero_vector_as_first_input_equals_the_textbook(lab, rng):
    """The course begins a name with None, the zero vector: the engine's layer takes it as a vector input."""
    p, a0 = textbook_parameters(rng, 4, 6), rng.normal(size=(4, 1))
    X, Y = [None, 3, 1, 3], [3, 1, 3, 0]
    vectors = np.stack([np.zeros(6) if i is None else np.eye(6)[i] for i in X])[:, None, :]
    layer = vanilla.Params(p["Wax"], p["Waa"], p["b"][:, 0])

    def run(layer, Wya, by, x, y, mask, state):
        a, _, cache = vanilla.forward(layer, x, state)
        mean, loss_cache = loss.forward(linear.forward(Wya, a, by), y, mask)
        da, dWya, dby = linear.backward(Wya, a, loss.backward(loss_cache))
        _, dstate, dlayer = vanilla.backward(layer, cache, da)
        return mean, dlayer, dWya, dby, dstate

    state = vanilla.State(a0.T)
    mean, dlayer, dWya, dby, dstate = lab.call(
        run, layer, p["Wya"], p["by"][:, 0], vectors, np.array(Y)[:, None], np.ones((4, 1)), state
    )
    total, d, _ = textbook_results(p, X, Y, a0)
    lab.close((mean, (dlayer,), (dstate.a[0],), dWya, dby), (np.asarray(total), d.layers, (d.initial[0].a,), d.Wya, d.by))


def test_fifty_updates_equal_those_of_the_course(rng):
    """Clip by value and plain descent, name by name with the state carried, as the course's `optimize` does."""
    p, a = textbook_parameters(rng, 5, 6), np.zeros((5, 1))
    config = model.Config("vanilla", 6, 5, initial="zero")
    shapes = model.shapes(config)
    theta = tree.ravel(engine_parameters(p, a)._replace(initial=()))
    memory, states = optimizers.init_sgd(theta), (vanilla.State(np.zeros((1, 5))),)
    for _ in range(50):
        T = int(rng.integers(1, 8))
        X, Y = rng.integers(0, 6, (T, 1)), rng.integers(0, 6, (T, 1))
        _, _, a = textbook.optimize(X[:, 0].tolist(), Y[:, 0].tolist(), a, p, learning_rate=0.05)
        _, d, states = model.loss_and_grad(config, tree.unravel(theta, shapes), X, Y, np.ones((T, 1)), states)
        clipped = optimizers.clip_by_value(tree.ravel(d) * T, 5.0)
        theta, memory = optimizers.sgd(theta, clipped, memory, 0.05)
    np.testing.assert_allclose(theta, tree.ravel(engine_parameters(p, a)._replace(initial=())), rtol=0, atol=1e-12)
