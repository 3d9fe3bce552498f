"""The tanh network of Elman (1990): a_t = tanh(Wax x_t + Waa a_{t-1} + b)."""

from typing import Any, NamedTuple

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated
from bptt.nn import initializers, linear
from bptt.nn.ops import contiguous_transpose, outer_sum

GATES = {"state": "tanh"}  # blocks of H rows in Wax, Waa and b
MEMORY = ((4.0, 2), (2.2, 1))  # numbers alive per step and unit: see cells.py
DROPOUT = 0.0  # dropout harms this cell on texts of any size


class Params(NamedTuple):
    """What is learned."""

    Wax: Array  # (H, I)
    Waa: Array  # (H, H)
    b: Array  # (H,)


class State(NamedTuple):
    """What one step hands to the next."""

    a: Array  # (B, H)


class Cache(NamedTuple):
    """What backward needs from forward."""

    x: Array  # (T, B) tokens or (T, B, I) vectors
    a: Array  # (T+1, B, H): a[0] is the initial state


def shapes(inputs: int, hidden: int) -> Params:
    """The shape of each parameter, a list, in its place."""
    return Params([hidden, inputs], [hidden, hidden], [hidden])


def init(rng: Any, inputs: int, hidden: int, kind: initializers.Kind = "uniform") -> Params:
    """Host arrays in float64 drawn from a `numpy.random.Generator`: weights as `kind` says, biases zero."""
    Wax = initializers.uniform(rng, (hidden, inputs), hidden)
    Waa = initializers.recurrent(rng, 1, hidden, kind)
    return Params(Wax, Waa, namespace(Wax).zeros_like(Wax[:, 0]))


def forward(params: Params, x: Array, state: State) -> tuple[Array, State, Cache]:
    """States a_1 .. a_T (T, B, H), the last one as the next State, and the Cache."""
    a = run(*params, x, state.a)
    return a[1:, ...], State(a[-1, ...]), Cache(x, a)


def backward(params: Params, cache: Cache, da: Array, dafter: State | None = None) -> tuple[Array | None, State, Params]:
    """Gradients with respect to x, the initial state and the parameters, given da (T, B, H).

    `dafter` is the gradient with respect to the state after the last step; without it the gradient is truncated there.
    """
    zero = namespace(da).zeros_like(cache.a[0, ...])
    dx, da0, *dparams = run_backward(*params, *cache, da, *(dafter or State(zero)))
    return dx, State(da0), Params(*dparams)


@accelerated
def run(Wax: Array, Waa: Array, b: Array, x: Array, a0: Array) -> Array:
    """States a_0 .. a_T (T+1, B, H)."""
    return recurrence(linear.forward(Wax, x, b), Waa, a0)


@accelerated
def run_backward(Wax: Array, Waa: Array, b: Array, x: Array, a: Array, da: Array, da_next: Array) -> tuple[Array | None, ...]:
    """Gradients with respect to x, a0, Wax, Waa and b, given da (T, B, H) and, from after the last step, da_next (B, H)."""
    dz, da0 = recurrence_backward(da, a, da_next, Waa)  # the only sequential part
    dx, dWax, db = linear.backward(Wax, x, dz)
    return dx, da0, dWax, outer_sum(dz, a[:-1, ...]), db


@accelerated
def recurrence(z: Array, Waa: Array, a0: Array) -> Array:
    """States a_0 .. a_T (T+1, B, H) of a_t = tanh(z_t + Waa a_{t-1}), given z (T, B, H) and a0 (B, H)."""
    xp = namespace(z)
    WaaT = contiguous_transpose(Waa, z.shape[0])
    a = [a0]
    for t in range(z.shape[0]):
        a.append(xp.tanh(z[t, ...] + a[-1] @ WaaT))
    return xp.stack(a)


@accelerated
def recurrence_backward(da: Array, a: Array, da_next: Array, Waa: Array) -> tuple[Array, Array]:
    """Gradients with respect to z (T, B, H) and a0 (B, H), given da (T, B, H) from above and da_next (B, H) from after T."""
    xp, T = namespace(da), da.shape[0]
    slope = 1.0 - a[1:, ...] * a[1:, ...]  # the derivative of tanh, for all steps at once
    dz: list[Array] = []
    for t in reversed(range(T)):
        dz.append((da[t, ...] + da_next) * slope[t, ...])
        da_next = dz[-1] @ Waa
    return xp.stack(dz[::-1]), da_next
