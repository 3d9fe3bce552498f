"""Gradient descent on one flat vector: clipping, the update rules of the papers, and schedules of the rate.

Every rule is (theta, d, state, rate) -> (theta, state): parameters and gradient (P,), the rate a float or a 0-d array.
"""

import math
from typing import NamedTuple

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated


class State(NamedTuple):
    """What an update rule remembers; a rule leaves alone what it does not use."""

    t: Array  # (): updates so far
    m: Array  # (P,): running mean of the gradient; of momentum its decaying sum
    v: Array  # (P,): running mean, or sum, of its square


def init_state(theta: Array) -> State:
    """The state before the first update."""
    zero = namespace(theta).zeros_like(theta)
    return State(namespace(theta).sum(zero), zero, zero)  # a sum of zeros: a 0-d zero of their type and device


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


def sgd(theta: Array, d: Array, state: State, rate: Array | float) -> tuple[Array, State]:
    """Plain stochastic gradient descent."""
    return sgd_update(theta, d, rate), State(state.t + 1.0, state.m, state.v)


@accelerated
def sgd_update(theta: Array, d: Array, rate: Array | float) -> Array:
    """A step from theta against d."""
    return theta - rate * d


def momentum(theta: Array, d: Array, state: State, rate: Array | float, *, mu: float = 0.9) -> tuple[Array, State]:
    """Heavy-ball momentum (Polyak 1964): Sutskever et al. (2013), equations 1 and 2, but the rate outside of the memory."""
    m = mu * state.m + d
    return sgd_update(theta, m, rate), State(state.t + 1.0, m, state.v)


def adagrad(theta: Array, d: Array, state: State, rate: Array | float, *, eps: float = 1e-10) -> tuple[Array, State]:
    """Adagrad (Duchi et al. 2011)."""
    v = state.v + d * d
    return theta - rate * d / (namespace(d).sqrt(v) + eps), State(state.t + 1.0, state.m, v)


def rmsprop(
    theta: Array, d: Array, state: State, rate: Array | float, *, rho: float = 0.99, eps: float = 1e-8
) -> tuple[Array, State]:
    """RMSprop (Tieleman and Hinton 2012)."""
    v = rho * state.v + (1.0 - rho) * (d * d)
    return theta - rate * d / (namespace(d).sqrt(v) + eps), State(state.t + 1.0, state.m, v)


def adam(
    theta: Array,
    d: Array,
    state: State,
    rate: Array | float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, State]:
    """Adam (Kingma and Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Both betas are above 0 and below 1.
    """
    t = state.t + 1.0
    theta, m, v = adam_update(theta, d, state.m, state.v, t, rate, beta1, beta2, eps, weight_decay)
    return theta, State(t, m, v)


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
