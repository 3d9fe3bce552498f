"""The stack of cells with its output layer: every gradient by central differences, dropout, initial states, carried states."""

from typing import Any

import numpy as np
import pytest

from bptt import dispatch
from bptt.nn import cells, loss, model, tree
from conftest import variant
from gradcheck import along, central_differences

CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
T, B, V, H = 4, 3, 5, 2


def random_batch(cell: str, layers: int, initial: str = "learned", seed: int = 0) -> Any:
    """A config, parameters of which none is zero, tokens, targets and a mask that ends two columns early."""
    rng = np.random.default_rng(seed)
    config = model.Config(cell, V, H, layers, initial)
    params = tree.tree_map(lambda array: array + 0.4 * rng.normal(size=array.shape), model.init(config, rng))
    x, y = rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B))
    mask = (np.arange(T)[:, None] < np.array([T, 2, T - 1])).astype(float)
    return config, params, x, y, mask, rng


def carried_states(config: model.Config, params: Any, rng: Any) -> Any:
    """What some earlier tokens leave behind."""
    return model.forward(config, params, rng.integers(0, V, (3, B)))[1]


def loss_value(config: model.Config, params: Any, x: Any, y: Any, mask: Any, states: Any, keep: Any) -> float:
    return float(loss.forward(model.forward(config, params, x, states, keep)[0], y, mask)[0])


def check(lab: Any, config: model.Config, params: Any, x: Any, y: Any, mask: Any, states: Any = None, keep: Any = ()) -> None:
    """The gradient on the backend against central differences of the loss, every element of every leaf."""
    shapes = model.shapes(config)
    mean, gradient, _ = lab.call(lambda *arguments: model.loss_and_grad(config, *arguments), params, x, y, mask, states, keep)

    def theta_to_loss(theta: np.ndarray) -> float:
        return loss_value(config, tree.unravel(theta, shapes), x, y, mask, states, keep)

    theta = tree.ravel(params)
    expected = tree.unravel(central_differences(theta_to_loss, theta), shapes)
    lab.close(mean, np.asarray(theta_to_loss(theta)))
    lab.close(gradient, expected, 1e-8 if lab.backend.dtype == "float64" else 1e-4)


@CELLS
@pytest.mark.parametrize("layers", [1, 2])
def test_every_gradient_from_the_initial_state(lab, cell, layers):
    config, params, x, y, mask, _ = random_batch(cell, layers)
    check(lab, config, params, x, y, mask)


@CELLS
def test_every_gradient_from_a_carried_state_with_dropout(lab, cell):
    config, params, x, y, mask, rng = random_batch(cell, 2)
    states, keep = carried_states(config, params, rng), model.dropout_masks(config, rng, 0.4, B)
    assert not all(mask.all() for mask in keep)
    check(lab, config, params, x, y, mask, states, keep)


@CELLS
def test_every_gradient_with_a_zero_initial_state(lab, cell):
    config, params, x, y, mask, _ = random_batch(cell, 1, "zero")
    assert params.initial == ()
    check(lab, config, params, x, y, mask)


@pytest.mark.eager
@CELLS
def test_the_gradient_of_a_deep_model_equals_directional_differences(lab, cell):
    rng = np.random.default_rng(2)
    config = model.Config(cell, 27, 24, 3)
    params = model.init(config, rng)
    x, y, mask = rng.integers(0, 27, (20, 6)), rng.integers(0, 27, (20, 6)), (rng.random((20, 6)) < 0.9).astype(float)
    _, gradient, _ = lab.call(lambda *arguments: model.loss_and_grad(config, *arguments), params, x, y, mask)
    theta, shapes = tree.ravel(params), model.shapes(config)
    direction = rng.normal(size=theta.shape)
    direction /= np.linalg.norm(direction)
    with dispatch.restored():
        dispatch.disable()  # the differences are those of the pure functions, also where a kernel computes the gradient
        expected = along(lambda t: loss_value(config, tree.unravel(t, shapes), x, y, mask, None, ()), theta, direction)
    tolerance = 1e-7 if lab.backend.dtype == "float64" else 1e-3
    assert tree.ravel(gradient) @ direction == pytest.approx(expected, rel=tolerance)


@CELLS
def test_a_carried_state_gives_no_gradient_for_the_initial_state(lab, cell):
    config, params, x, y, mask, rng = random_batch(cell, 1)
    states = carried_states(config, params, rng)
    run = lambda *arguments: model.loss_and_grad(config, *arguments)[1].initial  # noqa: E731
    assert not tree.ravel(lab.call(run, params, x, y, mask, states)).any()
    assert tree.ravel(lab.call(run, params, x, y, mask)).all()


@pytest.mark.compiled
@CELLS
def test_two_halves_that_carry_the_states_equal_the_whole_sequence(lab, cell):
    config, params, x, _, _, _ = random_batch(cell, 2)

    def halves(params: Any, first: Any, second: Any) -> Any:
        logits, states, _ = model.forward(config, params, first)
        return logits, *model.forward(config, params, second, states)[:2]

    whole, after = lab.call(lambda params, x: model.forward(config, params, x)[:2], params, x)
    first, second, handed = lab.call(halves, params, x[:1], x[1:])
    lab.close((np.concatenate([first, second]), handed), (whole, after))


@pytest.mark.compiled
@CELLS
def test_a_padded_batch_equals_its_lines_one_at_a_time(lab, cell):
    config, params, x, y, mask, _ = random_batch(cell, 2)
    run = lambda *arguments: model.loss_and_grad(config, *arguments)[:2]  # noqa: E731
    mean, gradient = lab.call(run, params, x, y, mask)
    lengths = mask.sum(0).astype(int)
    total, total_gradient = 0.0, 0.0
    for b, n in enumerate(lengths):
        one, one_gradient = lab.call(run, params, x[:n, b : b + 1], y[:n, b : b + 1], np.ones((n, 1)))
        total = total + one * n
        total_gradient = total_gradient + tree.ravel(one_gradient) * n
    lab.close((mean, tree.ravel(gradient)), (total / lengths.sum(), total_gradient / lengths.sum()))


@CELLS
def test_dropout_scales_the_outputs_of_a_layer(lab, cell):
    """All units of the last layer dropped: the logits are the bias of the output layer; masks of ones change nothing."""
    config, params, x, _, _, _ = random_batch(cell, 2)
    one, zero = np.ones((B, H)), np.zeros((B, H))
    run = lambda params, x, keep: model.forward(config, params, x, None, keep)[0]  # noqa: E731
    lab.close(lab.call(run, params, x, (one, zero)), np.broadcast_to(params.by, (T, B, V)))
    lab.close(lab.call(run, params, x, (one, one)), lab.call(run, params, x, ()))
    dropped = lab.call(run, params, x, (zero, one))
    assert np.abs(dropped - lab.call(run, params, x, ())).max() > 1e-3


def test_dropout_masks_keep_the_mean():
    masks = model.dropout_masks(model.Config("gru", V, 400, 2), np.random.default_rng(0), 0.25, 50)
    assert len(masks) == 2
    for mask in masks:
        assert mask.shape == (50, 400)
        assert set(np.unique(mask)) == {0.0, 1 / 0.75}
        assert mask.mean() == pytest.approx(1.0, abs=0.02)
    assert not np.array_equal(*masks)
    assert model.dropout_masks(model.Config("gru", V, 400, 2), np.random.default_rng(0), 0.0, 50) == ()


@CELLS
def test_init_has_the_shapes_and_depends_on_the_seed(cell):
    config = model.Config(cell, V, 7, 3)
    params = model.init(config, np.random.default_rng(5))
    assert tree.tree_map(lambda array: list(array.shape), params) == model.shapes(config)
    np.testing.assert_array_equal(tree.ravel(params), tree.ravel(model.init(config, np.random.default_rng(5))))
    assert (tree.ravel(params) != tree.ravel(model.init(config, np.random.default_rng(6)))).any()
    assert 0.8 * 7**-0.5 < np.abs(params.Wya).max() <= 7**-0.5
    assert not params.by.any()
    assert not tree.ravel(params.initial).any()


@CELLS
def test_an_initial_state_that_is_not_learned_is_zero(lab, cell):
    """Of each layer and each field, and of the type of the parameters."""
    config, params, *_ = random_batch(cell, 2, "zero")
    states = lab.call(lambda params: model.initial_states(config, params, B), params)
    State = cells.CELLS[cell].State
    lab.close(states, (State(*[np.zeros((B, H))] * len(State._fields)),) * 2)


@CELLS
@pytest.mark.parametrize("kind", ["uniform", "orthogonal", "identity"])
def test_init_supports_every_kind_of_recurrent_weights(cell, kind):
    for layer in model.init(model.Config(cell, V, 6, 2), np.random.default_rng(0), kind).layers:
        blocks = layer.Waa.reshape(-1, 6, 6)
        assert (kind == "identity") == np.array_equal(blocks, np.broadcast_to(np.eye(6), blocks.shape))
        assert (kind != "uniform") == np.allclose(blocks @ blocks.transpose(0, 2, 1), np.eye(6))


@CELLS
@pytest.mark.parametrize(("T", "B", "H"), [variant(1, 3, 2), variant(4, 1, 2), variant(4, 3, 1), (1, 1, 1)])
def test_every_gradient_at_the_smallest_sizes(lab, cell, T, B, H):
    rng = np.random.default_rng(7)
    config = model.Config(cell, V, H, 2)
    params = tree.tree_map(lambda array: array + 0.4 * rng.normal(size=array.shape), model.init(config, rng))
    mask = np.ones((T, B))
    mask[-1, 1:] = 0.0
    check(lab, config, params, rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B)), mask)
