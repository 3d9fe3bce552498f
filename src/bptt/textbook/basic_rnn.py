"""The tanh network of the course "Sequence Models" (deeplearning.ai), every step and its mirror: column vectors, dictionaries.

Parameters are Wax (n_a, n_x), Waa (n_a, n_a), Wya (n_y, n_a), b (n_a, 1) and by (n_y, 1); gradients are dWax, dWaa, dWya, db,
dby, each shaped as its parameter, and da_next (n_a, 1). The arrays may belong to any library; results belong to the same.
"""

from collections.abc import Sequence

import numpy as np

from bptt.backend import Array, HostArray, device, namespace
from bptt.errors import InputError

Arrays = dict[str, Array]  # parameters or gradients, by name
Steps = dict[int, Array]  # one array per time step t
Cache = tuple[Steps, Steps, Steps]  # y_hat, a, x


def initialize_parameters(n_a: int, n_x: int, n_y: int) -> dict[str, HostArray]:
    """The course's small random weights and zero biases, as NumPy float64, the same on every call."""
    random = np.random.RandomState(1)  # the numbers of numpy.random.seed(1), without touching the global generator
    return {
        "Wax": random.randn(n_a, n_x) * 0.01,
        "Waa": random.randn(n_a, n_a) * 0.01,
        "Wya": random.randn(n_y, n_a) * 0.01,
        "b": np.zeros((n_a, 1)),
        "by": np.zeros((n_y, 1)),
    }


def softmax(x: Array) -> Array:
    """Probabilities exp(x) / sum(exp(x)) down each column (n, ...)."""
    xp = namespace(x)
    e = xp.exp(x - xp.max(x, axis=0))  # the largest exponent of a column is 0: exp cannot overflow, nor the sum vanish
    return e / xp.sum(e, axis=0)


def one_hot(index: int | None, size: int, like: Array) -> Array:
    """The column (size, 1) with a 1 at `index`, or of zeros for None, with the type and device of `like`."""
    xp = namespace(like)
    if index is None:
        return xp.zeros((size, 1), dtype=like.dtype, device=device(like))
    rows = xp.arange(size, dtype=xp.int64, device=device(like))[:, None]
    return xp.astype(rows == known(index, size), like.dtype)


def known(index: int, size: int) -> int:
    """The token id, or an InputError where there is no such token."""
    if not 0 <= index < size:
        raise InputError(f"token id {index}: expected 0 to {size - 1}")
    return index


def rnn_step_forward(parameters: Arrays, a_prev: Array, x: Array) -> tuple[Array, Array]:
    """One step: the next state a = tanh(Wax x + Waa a_prev + b) (n_a, 1) and the probabilities softmax(Wya a + by) (n_y, 1)."""
    xp = namespace(a_prev)
    a_next = xp.tanh(parameters["Wax"] @ x + parameters["Waa"] @ a_prev + parameters["b"])  # (n_a, 1)
    p_t = softmax(parameters["Wya"] @ a_next + parameters["by"])  # (n_y, 1)
    return a_next, p_t


def rnn_step_backward(dy: Array, gradients: Arrays, parameters: Arrays, x: Array, a: Array, a_prev: Array) -> Arrays:
    """The mirror of one step: adds its share to `gradients`, given dy (n_y, 1), the gradient w.r.t. Wya a + by.

    As in the course, it adds in place, to the arrays themselves (in libraries whose arrays can change).
    On the way in `gradients["da_next"]` is the gradient w.r.t. a from the step after; on the way out, w.r.t. a_prev.
    """
    gradients["dWya"] += dy @ a.T
    gradients["dby"] += dy
    da = parameters["Wya"].T @ dy + gradients["da_next"]  # (n_a, 1): a is read by y and by the next step
    daraw = (1 - a * a) * da  # (n_a, 1): through tanh, whose derivative is 1 - tanh²
    gradients["db"] += daraw
    gradients["dWax"] += daraw @ x.T
    gradients["dWaa"] += daraw @ a_prev.T
    gradients["da_next"] = parameters["Waa"].T @ daraw
    return gradients


def rnn_forward(
    X: Sequence[int | None], Y: Sequence[int], a0: Array, parameters: Arrays, vocab_size: int = 27
) -> tuple[Array, Cache]:
    """The loss sum over t of -log y_hat[t][Y[t]] (nats) of one sequence, and the cache (y_hat, a, x) for the way back.

    X and Y are token ids; None in X is the zero vector. a0 (n_a, 1) is the state before the first step; a[-1] is a copy of it.
    """
    xp = namespace(a0)
    x: Steps = {}
    y_hat: Steps = {}
    a: Steps = {-1: 1 * a0}  # a copy, by an operation that the autograd of other libraries follows
    loss: Array = 0.0
    for t in range(len(X)):
        x[t] = one_hot(X[t], vocab_size, a0)
        a[t], y_hat[t] = rnn_step_forward(parameters, a[t - 1], x[t])
        loss = loss - xp.log(y_hat[t][known(Y[t], y_hat[t].shape[0]), 0])
    return loss, (y_hat, a, x)


def rnn_backward(X: Sequence[int | None], Y: Sequence[int], parameters: Arrays, cache: Cache) -> tuple[Arrays, Steps]:
    """The gradients of that loss w.r.t. every parameter and, as da_next, w.r.t. a0; and the states a."""
    y_hat, a, x = cache
    xp = namespace(a[-1])
    gradients = {"d" + name: xp.zeros_like(parameters[name]) for name in ("Wax", "Waa", "Wya", "b", "by")}
    gradients["da_next"] = xp.zeros_like(a[-1])  # no step comes after the last
    for t in reversed(range(len(X))):
        dy = y_hat[t] - one_hot(Y[t], y_hat[t].shape[0], y_hat[t])  # softmax and -log in one: probabilities minus target
        gradients = rnn_step_backward(dy, gradients, parameters, x[t], a[t], a[t - 1])
    return gradients, a


def update_parameters(parameters: Arrays, gradients: Arrays, lr: float) -> Arrays:
    """One step of gradient descent, W = W - lr dW, in place as in the course."""
    for name in ("Wax", "Waa", "Wya", "b", "by"):
        parameters[name] += -lr * gradients["d" + name]
    return parameters
