"""Gradient descent on one flat vector: clipping, the update rules of the papers, and schedules of the rate.

Every rule is (theta, d, state, rate) -> (theta, state): parameters and gradient (P,), the rate a float or a 0-d array. Its
state is its own; a state has fields among t, m and v, the names in the file of a checkpoint.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated


class NoState(NamedTuple):
    """What plain gradient descent remembers: nothing."""


class MomentumState(NamedTuple):
    """What heavy-ball momentum remembers."""

    m: Array  # (P,): the decaying sum of the gradients


class SquareState(NamedTuple):
    """What Adagrad and RMSprop remember."""

    v: Array  # (P,): the sum, or the running mean, of the squared gradients


class AdamState(NamedTuple):
    """What Adam remembers."""

    t: Array  # (): updates so far
    m: Array  # (P,): running mean of the gradient
    v: Array  # (P,): running mean of its square


class Optimizer(NamedTuple):
    """An update rule with its own state: `init` makes it, `update` takes it and gives the next one."""

    init: Callable[[Array], Any]  # theta (P,) -> state
    update: Callable[[Array, Array, Any, Array | float], tuple[Array, Any]]  # (theta, d, state, rate) -> (theta, state)
    learning_rate: float | None  # the default peak; None: it depends on the size of the text


def clip_by_value(d: Array, limit: float) -> Array:
    """Every element into [-limit, limit]."""
    xp = namespace(d)
    return xp.minimum(xp.maximum(d, -limit), limit)


def norm(d: Array) -> Array:
    """The Euclidean norm of a vector."""
    xp = namespace(d)
    return xp.sqrt(xp.sum(d * d))


@accelerated
def clip_by_norm(d: Array, limit: float) -> tuple[Array, Array]:
    """The vector (P,) scaled down to norm `limit`, above 0, where it is longer, and its norm () before.

    Pascanu et al. (2013, arXiv 1211.5063), algorithm 1.
    """
    length = norm(d)
    return d * (limit / namespace(d).maximum(length, limit)), length


def sgd(theta: Array, d: Array, state: NoState, rate: Array | float) -> tuple[Array, NoState]:
    """Plain stochastic gradient descent."""
    return sgd_update(theta, d, rate), state


def init_sgd(theta: Array) -> NoState:
    """The state of `sgd` before the first update."""
    return NoState()


@accelerated
def sgd_update(theta: Array, d: Array, rate: Array | float) -> Array:
    """A step from theta against d."""
    return theta - rate * d


def momentum(
    theta: Array, d: Array, state: MomentumState, rate: Array | float, *, mu: float = 0.9
) -> tuple[Array, MomentumState]:
    """Heavy-ball momentum (Polyak 1964): Sutskever et al. (2013), equations 1 and 2, but the rate outside of the memory."""
    m = mu * state.m + d
    return sgd_update(theta, m, rate), MomentumState(m)


def init_momentum(theta: Array) -> MomentumState:
    """The state of `momentum` before the first update."""
    return MomentumState(namespace(theta).zeros_like(theta))


def adagrad(
    theta: Array, d: Array, state: SquareState, rate: Array | float, *, eps: float = 1e-10
) -> tuple[Array, SquareState]:
    """Adagrad (Duchi et al. 2011)."""
    v = state.v + d * d
    return theta - rate * d / (namespace(d).sqrt(v) + eps), SquareState(v)


def rmsprop(
    theta: Array, d: Array, state: SquareState, rate: Array | float, *, rho: float = 0.99, eps: float = 1e-8
) -> tuple[Array, SquareState]:
    """RMSprop (Tieleman and Hinton 2012)."""
    v = rho * state.v + (1.0 - rho) * (d * d)
    return theta - rate * d / (namespace(d).sqrt(v) + eps), SquareState(v)


def init_square(theta: Array) -> SquareState:
    """The state of `adagrad` and `rmsprop` before the first update."""
    return SquareState(namespace(theta).zeros_like(theta))


def adam(
    theta: Array,
    d: Array,
    state: AdamState,
    rate: Array | float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, AdamState]:
    """Adam (Kingma and Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Both betas are above 0 and below 1.
    """
    t = state.t + 1.0
    theta, m, v = adam_update(theta, d, state.m, state.v, t, rate, beta1, beta2, eps, weight_decay)
    return theta, AdamState(t, m, v)


def init_adam(theta: Array) -> AdamState:
    """The state of `adam` before the first update."""
    zero = namespace(theta).zeros_like(theta)
    return AdamState(namespace(theta).sum(zero), zero, zero)  # a sum of zeros: a 0-d zero of their type and device


@accelerated
def adam_update(
    theta: Array,
    d: Array,
    m: Array,
    v: Array,
    t: Array,
    rate: Array | float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    """The parameters and both running means after update t of Adam."""
    xp = namespace(d)
    m = beta1 * m + (1.0 - beta1) * d
    v = beta2 * v + (1.0 - beta2) * (d * d)
    m_hat = m / -xp.expm1(t * math.log(beta1))  # 1 - beta**t without cancellation in float32
    v_hat = v / -xp.expm1(t * math.log(beta2))
    return theta * (1.0 - rate * weight_decay) - rate * m_hat / (xp.sqrt(v_hat) + eps), m, v


OptimizerName = Literal["adam", "rmsprop", "adagrad", "momentum", "sgd"]
OPTIMIZERS: dict[OptimizerName, Optimizer] = {
    "adam": Optimizer(init_adam, adam, None),
    "rmsprop": Optimizer(init_square, rmsprop, 2e-3),
    "adagrad": Optimizer(init_square, adagrad, 3e-2),
    "momentum": Optimizer(init_momentum, momentum, 1e-1),
    "sgd": Optimizer(init_sgd, sgd, 1.0),
}


def constant(step: int, peak: float) -> float:
    """The same rate at every step."""
    return peak


def warmup_cosine(step: int, peak: float, *, warmup: int, total: int, floor: float = 0.02) -> float:
    """Up to the peak in `warmup` equal steps, then half a cosine down to `floor` of it (Loshchilov and Hutter 2017)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def step_decay(step: int, peak: float, *, every: int, factor: float = 0.5) -> float:
    """The peak times `factor` to the number of whole periods of `every` steps."""
    return peak * factor ** (step // every)
