"""Loss and gradient as functions of one parameter vector (P,), for the optimizer and for kernels.

The states of a model are one array here, (L, S, B, H): S fields of the cell's State for each of L layers.
"""

from typing import Any

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated
from bptt.nn import loss, model, tree


def unstack_states(config: model.Config, states: Array) -> tuple[Any, ...]:
    """The State of each layer, given all states (L, S, B, H)."""
    State = config.definition.State
    fields = range(len(State._fields))
    return tuple(State(*(states[layer, field, ...] for field in fields)) for layer in range(config.layers))


def stack_states(states: tuple[Any, ...]) -> Array:
    """All states (L, S, B, H), given the State of each layer: a copy, as views would keep the states of all steps in memory."""
    vector, shape = tree.ravel(states), states[0][0].shape
    return namespace(vector).reshape(vector, (len(states), len(states[0]), *shape))


@accelerated
def loss_and_grad(
    params_vector: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None,
    keep: tuple[Array, ...],
    count: Array | None,
) -> tuple[Array, Array, Array]:
    """`model.loss_and_grad` with parameters and gradient as vectors (P,) and states (L, S, B, H)."""
    params = tree.unravel(params_vector, model.shapes(config))
    start = None if states is None else unstack_states(config, states)
    mean, grad, after = model.loss_and_grad(config, params, x, y, mask, start, keep, count=count)
    return mean, tree.ravel(grad), stack_states(after)


@accelerated
def segment_loss_and_grad(
    params_vector: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None,
    keep: tuple[Array, ...],
    count: Array | None,
    dafter: Array | None,
) -> tuple[Array, Array, Array, Array]:
    """`loss_and_grad` of one segment of a batch, and the gradient with respect to the states before it, (L, S, B, H).

    `dafter` is the gradient with respect to the states after it, (L, S, B, H), None after the last segment.
    """
    params = tree.unravel(params_vector, model.shapes(config))
    logits, after, cache = model.forward(config, params, x, None if states is None else unstack_states(config, states), keep)
    mean, loss_cache = loss.forward(logits, y, mask, count)
    del logits  # they would take memory as long as the backward pass
    dafter_states = None if dafter is None else unstack_states(config, dafter)
    grad, dbefore = model.backward(config, params, cache, loss.backward(loss_cache), dafter_states)
    return mean, tree.ravel(grad), stack_states(after), stack_states(dbefore)
