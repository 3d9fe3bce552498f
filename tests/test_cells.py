"""The three recurrent cells: gradients by central differences, and the laws that hold for any recurrence.

The loss is sum(weight * a) + sum(weight' * final state) with random weights of which half are zero, as a mask makes them.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from bptt.nn import gru, initializers, lstm, tree, vanilla
from bptt.nn.ops import contiguous_transpose
from conftest import variant
from gradcheck import along, central_differences

CELLS = pytest.mark.parametrize("cell", [vanilla, gru, lstm], ids=lambda cell: cell.__name__.rpartition(".")[2])
SIZES = pytest.mark.parametrize(
    ("T", "B", "I", "H"),
    [(4, 3, 5, 2), variant(1, 3, 5, 2), variant(4, 1, 5, 2), variant(4, 3, 5, 1), (1, 1, 1, 1), variant(3, 2, 4, 6)],
    ids=lambda n: str(n),
)


class Case(NamedTuple):
    """Inputs of a cell, as NumPy arrays."""

    params: Any
    x: np.ndarray
    state: Any
    weight: np.ndarray  # (T, B, H) of the loss


def random_inputs(cell: ModuleType, T: int, B: int, I: int, H: int, tokens: bool, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    params = cell.init(rng, I, H)
    params = tree.tree_map(lambda array: array + 0.3 * rng.normal(size=array.shape), params)  # no bias is zero
    x = rng.integers(0, I, (T, B)) if tokens else rng.normal(size=(T, B, I))
    state = cell.State(*[0.5 * rng.normal(size=(B, H)) for _ in cell.State._fields])
    weight = rng.normal(size=(T, B, H)) * (rng.random((T, B, 1)) < 0.7)
    return Case(params, x, state, weight)


def weighted_sum(cell: ModuleType, params: Any, x: Any, state: Any, weight: Any) -> float:
    return float(np.sum(cell.forward(params, x, state)[0] * weight))


def gradients(cell: ModuleType) -> Any:
    """A function that a backend can run: dx, dstate, dparams of the loss."""

    def run(params: Any, x: Any, state: Any, weight: Any) -> Any:
        _, _, cache = cell.forward(params, x, state)
        return cell.backward(params, cache, weight)

    return run


@CELLS
@SIZES
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "vectors"])
def test_backward_equals_central_differences(lab, cell, T, B, I, H, tokens):
    params, x, state, weight = random_inputs(cell, T, B, I, H, tokens)
    dx, dstate, dparams = lab.call(gradients(cell), params, x, state, weight)
    tolerance = 1e-8 if lab.backend.dtype == "float64" else 1e-4

    def loss(theta: np.ndarray) -> float:
        p, s, v = unpack(theta)
        return weighted_sum(cell, p, x if tokens else v, s, weight)

    nested = (params, state, () if tokens else x)
    shapes = tree.tree_map(lambda array: list(array.shape), nested)

    def unpack(theta: np.ndarray) -> Any:
        return tree.unravel(theta, shapes)

    expected = unpack(central_differences(loss, tree.ravel(nested)))
    assert (dx is None) == tokens
    lab.close((dparams, dstate, () if tokens else dx), expected, tolerance)


@CELLS
@SIZES
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "vectors"])
def test_backward_with_a_final_state_gradient_equals_differences(lab, cell, T, B, I, H, tokens):
    """Where the loss depends on the state after the last step as well: that is how segments of a sequence are connected."""
    params, x, state, weight = random_inputs(cell, T, B, I, H, tokens)
    rng = np.random.default_rng(1)
    dafter = cell.State(*[rng.normal(size=(B, H)) for _ in cell.State._fields])

    def run(params: Any, x: Any, state: Any, weight: Any, dafter: Any) -> Any:
        return cell.backward(params, cell.forward(params, x, state)[2], weight, dafter)

    dx, dstate, dparams = lab.call(run, params, x, state, weight, dafter)
    nested = (params, state, () if tokens else x)
    shapes = tree.tree_map(lambda array: list(array.shape), nested)

    def loss(theta: np.ndarray) -> float:
        p, s, v = tree.unravel(theta, shapes)
        a, after, _ = cell.forward(p, x if tokens else v, s)
        return float(np.sum(a * weight) + sum(np.sum(e * d) for e, d in zip(after, dafter)))

    expected = tree.unravel(central_differences(loss, tree.ravel(nested)), shapes)
    lab.close((dparams, dstate, () if tokens else dx), expected, 1e-8 if lab.backend.dtype == "float64" else 1e-4)


@pytest.mark.eager
@CELLS
def test_backward_of_a_large_cell_equals_directional_differences(lab, cell):
    params, x, state, weight = random_inputs(cell, 30, 8, 27, 40, tokens=True)
    _, dstate, dparams = lab.call(gradients(cell), params, x, state, weight)
    nested = (params, state)
    shapes = tree.tree_map(lambda array: list(array.shape), nested)
    theta, gradient = tree.ravel(nested), tree.ravel((dparams, dstate))
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = rng.normal(size=theta.shape) / np.sqrt(theta.size)
        expected = along(
            lambda t: weighted_sum(cell, *(tree.unravel(t, shapes)[0], x, tree.unravel(t, shapes)[1], weight)), theta, direction
        )
        tolerance = 1e-6 if lab.backend.dtype == "float64" else 1e-3
        assert gradient @ direction == pytest.approx(expected, rel=tolerance, abs=tolerance)


def logistic(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def by_the_equations(cell: ModuleType, params: Any, x: Any, state: Any) -> np.ndarray:
    """The states a_1 .. a_T as the papers write them: one gate, one step and one sequence at a time."""
    H = params.Waa.shape[1]
    Wax, Waa, b = (np.split(array, len(cell.GATES)) for array in params[:3])  # one block a gate
    out = np.zeros((*x.shape, H))
    for j in range(x.shape[1]):
        a, c = state.a[j], getattr(state, "c", state.a)[j]
        for t in range(x.shape[0]):
            z = [Wax[k][:, x[t, j]] + b[k] for k in range(len(cell.GATES))]
            if cell is vanilla:
                a = np.tanh(z[0] + Waa[0] @ a)
            elif cell is gru:
                r, u = logistic(z[0] + Waa[0] @ a), logistic(z[1] + Waa[1] @ a)
                n = np.tanh(z[2] + r * (Waa[2] @ a + params.ban))
                a = u * a + (1 - u) * n
            else:
                i, f, o = (logistic(z[k] + Waa[k] @ a) for k in (0, 1, 3))
                c = f * c + i * np.tanh(z[2] + Waa[2] @ a)
                a = o * np.tanh(c)
            out[t, j] = a
    return out


@pytest.mark.compiled
@CELLS
def test_forward_follows_the_equations(lab, cell):
    params, x, state, _ = random_inputs(cell, 6, 3, 5, 4, tokens=True)
    lab.close(lab.call(cell.forward, params, x, state)[0], by_the_equations(cell, params, x, state))


@CELLS
def test_forward_agrees_with_numpy(lab, cell):
    params, x, state, _ = random_inputs(cell, 6, 3, 5, 4, tokens=True)
    a, after, _ = cell.forward(params, x, state)
    lab.close(lab.call(lambda *arguments: cell.forward(*arguments)[:2], params, x, state), (a, after))


@pytest.mark.compiled
@CELLS
def test_tokens_give_the_results_of_one_hot_vectors(lab, cell):
    params, x, state, weight = random_inputs(cell, 6, 3, 5, 4, tokens=True)
    vectors = np.eye(5)[x]
    got = lab.call(gradients(cell), params, x, state, weight)
    expected = lab.call(gradients(cell), params, vectors, state, weight)
    lab.close(got[1:], expected[1:])
    lab.close(lab.call(cell.forward, params, x, state)[0], lab.call(cell.forward, params, vectors, state)[0])


@pytest.mark.compiled
@CELLS
def test_two_halves_that_carry_the_state_equal_the_whole_sequence(lab, cell):
    params, x, state, _ = random_inputs(cell, 7, 3, 5, 4, tokens=True)

    def halves(params: Any, first: Any, second: Any, state: Any) -> Any:
        a, state, _ = cell.forward(params, first, state)
        b, state, _ = cell.forward(params, second, state)
        return a, b, state

    a, after, _ = lab.call(cell.forward, params, x, state)
    first, second, handed = lab.call(halves, params, x[:3], x[3:], state)
    lab.close((np.concatenate([first, second]), handed), (a, after))


@pytest.mark.compiled
@CELLS
def test_a_batch_equals_its_columns_one_at_a_time(lab, cell):
    params, x, state, weight = random_inputs(cell, 5, 3, 5, 4, tokens=True)
    _, dstate, dparams = lab.call(gradients(cell), params, x, state, weight)
    single = []
    for b in range(3):
        column = tree.tree_map(lambda array, b=b: array[b : b + 1], state)
        single.append(lab.call(gradients(cell), params, x[:, b : b + 1], column, weight[:, b : b + 1]))
    total = tree.ravel(single[0][2]) + tree.ravel(single[1][2]) + tree.ravel(single[2][2])
    lab.close(tree.ravel(dparams), total)
    for name, d in zip(dstate._fields, dstate):
        lab.close(d, np.concatenate([getattr(one[1], name) for one in single]))


@CELLS
def test_steps_that_the_loss_ignores_give_no_gradient(lab, cell):
    """Padding at the end of a sequence: whatever the tokens there are, the gradients are those of the shorter sequence."""
    params, x, state, weight = random_inputs(cell, 6, 3, 5, 4, tokens=True)
    weight[4:] = 0.0
    padded = x.copy()
    padded[4:] = 0
    got = lab.call(gradients(cell), params, padded, state, weight)
    short = lab.call(gradients(cell), params, x[:4], state, weight[:4])
    lab.close(got[1:], short[1:])


@CELLS
def test_saturated_gates_stay_finite(lab, cell):
    params, x, state, weight = random_inputs(cell, 5, 3, 5, 4, tokens=True)
    params = tree.tree_map(lambda array: 1e4 * array, params)
    for array in (leaf for _, leaf in tree.named_leaves(lab.call(gradients(cell), params, x, state, weight)[1:])):
        assert np.isfinite(array).all()


@CELLS
def test_init_draws_uniform_weights_and_opens_the_gates(cell):
    params = cell.init(np.random.default_rng(3), 7, 16)
    G = len(cell.GATES)
    assert params.Wax.shape == (16 * G, 7)
    assert params.Waa.shape == (16 * G, 16)
    for W in (params.Wax, params.Waa):
        assert 0.9 * 16**-0.5 < np.abs(W).max() <= 16**-0.5
    expected = np.zeros(16 * G)
    if cell is lstm:
        expected[16:32] = 1.0
    np.testing.assert_array_equal(params.b, expected)
    if cell is gru:
        np.testing.assert_array_equal(params.ban, np.zeros(16))
        assert not np.shares_memory(params.ban, params.b)


def test_uniform_weights_reach_both_bounds():
    """A bound 2 % off, or on one side alone, would show."""
    W = initializers.uniform(np.random.default_rng(0), (200, 300), 50)
    assert W.shape == (200, 300)
    np.testing.assert_allclose([W.min(), W.max()], [-(50**-0.5), 50**-0.5], rtol=1e-3)
    assert np.abs(W).max() <= 50**-0.5


@CELLS
def test_init_can_be_orthogonal_or_identity(cell):
    Waa = cell.init(np.random.default_rng(3), 7, 16, "orthogonal").Waa.reshape(len(cell.GATES), 16, 16)
    for block in Waa:
        np.testing.assert_allclose(block @ block.T, np.eye(16), atol=1e-12)
    if len(Waa) > 1:
        assert np.abs(Waa[0] - Waa[1]).max() > 0.1
    identity = cell.init(np.random.default_rng(3), 7, 16, "identity").Waa.reshape(len(cell.GATES), 16, 16)
    np.testing.assert_array_equal(identity, np.broadcast_to(np.eye(16), identity.shape))


def test_orthogonal_matrices_are_uniformly_distributed():
    """The Q of LAPACK has a diagonal that is negative more often than not; a uniform rotation's averages to zero."""
    rng = np.random.default_rng(0)
    diagonals = [np.diag(initializers.orthogonal(rng, 3)) for _ in range(1000)]
    assert abs(np.mean(diagonals)) < 0.05


def test_contiguous_transpose_copies_only_if_that_is_faster():
    W = np.arange(6.0).reshape(2, 3)
    assert contiguous_transpose(W, 2).flags.c_contiguous
    assert np.shares_memory(contiguous_transpose(W, 1), W)
    for uses in (1, 2):
        np.testing.assert_array_equal(contiguous_transpose(W, uses), W.T)
