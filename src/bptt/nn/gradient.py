"""The loss and its gradient as a function of one vector: what the updates of a run are made of.

Here the states of a model are one array, too, (L, S, B, H): of each layer the S fields of its cell's State.
"""

from typing import Any

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated
from bptt.nn import loss, model, tree


def unstack_states(config: model.Config, states: Array) -> tuple[Any, ...]:
    """The State of each layer, given all states (L, S, B, H)."""
    State = model.CELLS[config.cell].State
    fields = range(len(State._fields))
    return tuple(State(*(states[layer, field, ...] for field in fields)) for layer in range(config.layers))


def stack_states(states: tuple[Any, ...]) -> Array:
    """All states (L, S, B, H), given the State of each layer: a copy, where views would keep those of all steps."""
    vector, shape = tree.ravel(states), states[0][0].shape
    return namespace(vector).reshape(vector, (len(states), len(states[0]), *shape))


@accelerated
def loss_and_grad(
    theta: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None,
    keep: tuple[Array, ...],
    count: Array | None,
) -> tuple[Array, Array, Array]:
    """What `model.loss_and_grad` gives, for the parameters as a vector (P,): the gradient is one, too.

    The states before and after are (L, S, B, H).
    """
    params = tree.unravel(theta, model.shapes(config))
    start = None if states is None else unstack_states(config, states)
    mean, d, after = model.loss_and_grad(config, params, x, y, mask, start, keep, count)
    return mean, tree.ravel(d), stack_states(after)


@accelerated
def segment_loss_and_grad(
    theta: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None,
    keep: tuple[Array, ...],
    count: Array | None,
    dafter: Array | None,
) -> tuple[Array, Array, Array, Array]:
    """What `whole` gives for some steps of more, and then the gradient with respect to the states before them.

    `dafter` is the gradient with respect to the states after them, None where nothing follows; both are (L, S, B, H).
    """
    params = tree.unravel(theta, model.shapes(config))
    logits, after, cache = model.forward(config, params, x, None if states is None else unstack_states(config, states), keep)
    mean, loss_cache = loss.forward(logits, y, mask, count)
    del logits  # they would take memory as long as the backward pass
    following = None if dafter is None else unstack_states(config, dafter)
    d, dbefore = model.backward(config, params, cache, loss.backward(loss_cache), following)
    return mean, tree.ravel(d), stack_states(after), stack_states(dbefore)
