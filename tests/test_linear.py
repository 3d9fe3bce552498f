"""W x + b for tokens and for vectors, and its gradient."""

import numpy as np
import pytest

from bptt.nn import linear
from bptt.nn.ops import flatten_time, one_hot, sigmoid


@pytest.fixture
def arrays(rng):
    return rng.normal(size=(4, 5)), rng.integers(0, 5, (3, 2)), rng.normal(size=4), rng.normal(size=(3, 2, 4))


def test_tokens_select_columns_of_the_weights(lab, arrays):
    W, x, b, _ = arrays
    lab.close(lab.call(linear.forward, W, x, b), W.T[x] + b)


def test_vectors_are_multiplied_by_the_weights(lab, arrays, rng):
    W, _, b, _ = arrays
    x = rng.normal(size=(3, 2, 5))
    lab.close(lab.call(linear.forward, W, x, b), np.einsum("ni,tbi->tbn", W, x) + b)


def test_gradients_of_a_repeated_token_add_up(lab, arrays):
    W, x, _, dz = arrays
    dW = np.zeros_like(W)
    for t in range(3):
        for b in range(2):
            dW[:, x[t, b]] += dz[t, b]
    dx, got_dW, db = lab.call(linear.backward, W, x, dz)
    assert dx is None
    lab.close((got_dW, db), (dW, dz.sum((0, 1))))


def test_gradients_of_vectors_are_matrix_products(lab, arrays, rng):
    W, _, _, dz = arrays
    x = rng.normal(size=(3, 2, 5))
    expected = np.einsum("ni,tbn->tbi", W, dz), np.einsum("tbn,tbi->ni", dz, x), dz.sum((0, 1))
    lab.close(lab.call(linear.backward, W, x, dz), expected)


def test_one_hot_flatten_time_and_sigmoid(lab, rng):
    ids = np.array([2, 0, 2])
    lab.close(lab.call(lambda ids, like: one_hot(ids, 4, like), ids, np.zeros(1)), np.eye(4)[ids])
    x = rng.normal(size=(2, 3, 4))
    lab.close(lab.call(flatten_time, x), x.reshape(6, 4))
    z = np.array([-1e3, -2.0, 0.0, 2.0, 1e3])
    lab.close(lab.call(sigmoid, z), np.array([0.0, 1 / (1 + np.exp(2.0)), 0.5, 1 / (1 + np.exp(-2.0)), 1.0]))
