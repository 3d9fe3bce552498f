"""Optimizers on one flat vector, gradient clipping, and the running mean of the parameters.

Every optimizer is (params_vector, grad, state, learning_rate) -> (params_vector, state): parameters and gradient are (P,), the
learning rate is a float or a 0-d array. Each optimizer has its own state; its fields are some of t, m and v.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated
from bptt.nn.tree import concatenate


class NoState(NamedTuple):
    """The state of plain gradient descent: nothing."""


class MomentumState(NamedTuple):
    """The state of heavy-ball momentum."""

    m: Array  # (P,): the decaying sum of the gradients


class SquareState(NamedTuple):
    """The state of Adagrad and RMSprop."""

    v: Array  # (P,): the sum, or the running mean, of the squared gradients


class AdamState(NamedTuple):
    """The state of Adam."""

    t: Array  # (): updates so far
    m: Array  # (P,): running mean of the gradient
    v: Array  # (P,): running mean of its square


class Optimizer(NamedTuple):
    """An optimizer with its own state: `init` makes it, `update` takes it and returns the next one."""

    init: Callable[[Array], Any]  # params_vector (P,) -> state
    update: Callable[..., tuple[Array, Any]]  # (params_vector, grad, state, learning_rate, **options) -> (params_vector, state)
    learning_rate: float | None  # the default peak; None: it depends on the size of the text
    options: tuple[str, ...] = ()  # keyword arguments of `update` that a training run gives


class ParamGroup(NamedTuple):
    """A part of the parameter vector, from the end of the group before it to `end`, with its own factors."""

    end: int  # the index after its last parameter
    learning_rate: float  # factor of the learning rate
    weight_decay: float  # factor of the weight decay, which the learning rate of the group multiplies, too


def clip_by_value(grad: Array, limit: float) -> Array:
    """The gradient (P,) with every element limited to [-limit, limit]."""
    xp = namespace(grad)
    return xp.minimum(xp.maximum(grad, -limit), limit)


def norm(grad: Array) -> Array:
    """The Euclidean norm () of a vector (P,)."""
    xp = namespace(grad)
    return xp.sqrt(xp.sum(grad * grad))


@accelerated
def clip_by_norm(grad: Array, limit: float) -> tuple[Array, Array]:
    """The vector (P,) scaled down to norm `limit`, above 0, where it is longer, and its norm () before.

    Pascanu et al. (2013, arXiv 1211.5063), algorithm 1.
    """
    length = norm(grad)
    return grad * (limit / namespace(grad).maximum(length, limit)), length


def sgd(params_vector: Array, grad: Array, state: NoState, learning_rate: Array | float) -> tuple[Array, NoState]:
    """Plain stochastic gradient descent: params_vector - learning_rate * grad."""
    return sgd_update(params_vector, grad, learning_rate), state


def init_sgd(params_vector: Array) -> NoState:
    """The state of `sgd` before the first update."""
    return NoState()


@accelerated
def sgd_update(params_vector: Array, grad: Array, learning_rate: Array | float) -> Array:
    """A step against the gradient."""
    return params_vector - learning_rate * grad


def momentum(
    params_vector: Array, grad: Array, state: MomentumState, learning_rate: Array | float, *, mu: float = 0.9
) -> tuple[Array, MomentumState]:
    """Heavy-ball momentum (Polyak 1964): Sutskever et al. (2013), equations 1 and 2, but the learning rate outside of m."""
    m = mu * state.m + grad
    return sgd_update(params_vector, m, learning_rate), MomentumState(m)


def init_momentum(params_vector: Array) -> MomentumState:
    """The state of `momentum` before the first update."""
    return MomentumState(namespace(params_vector).zeros_like(params_vector))


def adagrad(
    params_vector: Array, grad: Array, state: SquareState, learning_rate: Array | float, *, eps: float = 1e-10
) -> tuple[Array, SquareState]:
    """Adagrad (Duchi et al. 2011): the learning rate divided by the root of the sum of the squared gradients."""
    v = state.v + grad * grad
    return params_vector - learning_rate * grad / (namespace(grad).sqrt(v) + eps), SquareState(v)


def rmsprop(
    params_vector: Array, grad: Array, state: SquareState, learning_rate: Array | float, *, rho: float = 0.99, eps: float = 1e-8
) -> tuple[Array, SquareState]:
    """RMSprop (Tieleman and Hinton 2012): as Adagrad, with a running mean of decay `rho` in place of the sum."""
    v = rho * state.v + (1.0 - rho) * (grad * grad)
    return params_vector - learning_rate * grad / (namespace(grad).sqrt(v) + eps), SquareState(v)


def init_square(params_vector: Array) -> SquareState:
    """The state of `adagrad` and `rmsprop` before the first update."""
    return SquareState(namespace(params_vector).zeros_like(params_vector))


def adam(
    params_vector: Array,
    grad: Array,
    state: AdamState,
    learning_rate: Array | float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    groups: tuple[ParamGroup, ...] = (),
) -> tuple[Array, AdamState]:
    """Adam (Kingma and Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    `beta1` and `beta2`, above 0 and below 1, are the decays of the running means of the gradient and of its square. The groups
    cover all parameters, in their order; without groups, all parameters have the same factors.
    """
    t = state.t + 1.0
    params_vector, m, v = adam_update(
        params_vector, grad, state.m, state.v, t, learning_rate, beta1, beta2, eps, weight_decay, groups
    )
    return params_vector, AdamState(t, m, v)


def init_adam(params_vector: Array) -> AdamState:
    """The state of `adam` before the first update."""
    zero = namespace(params_vector).zeros_like(params_vector)
    return AdamState(namespace(params_vector).sum(zero), zero, zero)  # a sum of zeros: a 0-d zero of their type and device


@accelerated
def adam_update(
    params_vector: Array,
    grad: Array,
    m: Array,
    v: Array,
    t: Array,
    learning_rate: Array | float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    groups: tuple[ParamGroup, ...],
) -> tuple[Array, Array, Array]:
    """The parameters and both running means, all (P,), after update t () of Adam."""
    xp = namespace(grad)
    m = beta1 * m + (1.0 - beta1) * grad
    v = beta2 * v + (1.0 - beta2) * (grad * grad)
    m_hat = m / -xp.expm1(t * math.log(beta1))  # 1 - beta**t without cancellation in float32
    v_hat = v / -xp.expm1(t * math.log(beta2))
    root, start, updated = xp.sqrt(v_hat) + eps, 0, []
    for end, rate_factor, decay_factor in groups or (ParamGroup(grad.shape[0], 1.0, 1.0),):
        group_rate = learning_rate * rate_factor
        kept = params_vector[start:end] * (1.0 - group_rate * (weight_decay * decay_factor))
        updated.append(kept - group_rate * m_hat[start:end] / root[start:end])
        start = end
    return concatenate(*updated), m, v


@accelerated
def average_update(average: Array, params_vector: Array, decay: float) -> Array:
    """The exponential moving average (P,) after an update, not yet divided by what `debiased` divides it by."""
    return average + (1.0 - decay) * (params_vector - average)  # in float32, decay itself would be rounded


def debiased(average: Array, decay: float, steps: int) -> Array:
    """The mean of the parameters after so many updates, at least 1, of an average that began at zero.

    Recent parameters have more weight. The correction is that of Adam (Kingma and Ba 2015, section 3); on averages of weights
    see Morales-Brotons et al. (2024, arXiv 2411.18704).
    """
    return average / -math.expm1(steps * math.log(decay))


OptimizerName = Literal["adam", "rmsprop", "adagrad", "momentum", "sgd"]
OPTIMIZERS: dict[OptimizerName, Optimizer] = {
    "adam": Optimizer(init_adam, adam, None, ("beta1", "beta2", "weight_decay", "groups")),
    "rmsprop": Optimizer(init_square, rmsprop, 2e-3),
    "adagrad": Optimizer(init_square, adagrad, 3e-2),
    "momentum": Optimizer(init_momentum, momentum, 1e-1),
    "sgd": Optimizer(init_sgd, sgd, 1.0),
}
