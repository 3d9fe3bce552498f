"""The gated recurrent unit of Cho et al. (2014), with the reset after the product as in cuDNN and PyTorch.

r_t = sigmoid(Wax_r x_t + Waa_r a_{t-1} + b_r)
u_t = sigmoid(Wax_u x_t + Waa_u a_{t-1} + b_u)
n_t = tanh(Wax_n x_t + b_n + r_t (Waa_n a_{t-1} + ban))
a_t = u_t a_{t-1} + (1 - u_t) n_t

(Some courses let their update gate multiply the new value instead: theirs is 1 - u.) Below, q = Waa a_{t-1} without biases and
p = q_n + ban, what the reset gate multiplies; `ru` holds both gates.
"""

from typing import Any, NamedTuple

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated
from bptt.nn import initializers, linear
from bptt.nn.ops import bias_grad, contiguous_transpose, outer_sum, sigmoid

GATES = {"reset": "sigmoid", "update": "sigmoid", "new": "tanh"}  # blocks of H rows in Wax, Waa and b
MEMORY = ((18.0, 6), (8.2, 5))  # numbers alive per step and unit: see cells.py


class Params(NamedTuple):
    """What is learned; 3H rows hold the blocks r, u, n."""

    Wax: Array  # (3H, I)
    Waa: Array  # (3H, H)
    b: Array  # (3H,)
    ban: Array  # (H,)


class State(NamedTuple):
    """What one step hands to the next."""

    a: Array  # (B, H)


class Cache(NamedTuple):
    """What backward needs from forward."""

    x: Array  # (T, B) tokens or (T, B, I) vectors
    a: Array  # (T+1, B, H): a[0] is the initial state
    ru: Array  # (T, B, 2H)
    n: Array  # (T, B, H)
    p: Array  # (T, B, H): Waa_n a_{t-1} + ban


def shapes(inputs: int, hidden: int) -> Params:
    """The shape of each parameter, a list, in its place."""
    return Params([3 * hidden, inputs], [3 * hidden, hidden], [3 * hidden], [hidden])


def init(rng: Any, inputs: int, hidden: int, kind: initializers.Kind = "uniform") -> Params:
    """Host arrays in float64 drawn from a `numpy.random.Generator`: weights as `kind` says, biases zero."""
    Wax = initializers.uniform(rng, (3 * hidden, inputs), hidden)
    Waa = initializers.recurrent(rng, 3, hidden, kind)
    zeros = namespace(Wax).zeros_like
    return Params(Wax, Waa, zeros(Wax[:, 0]), zeros(Wax[:hidden, 0]))


def forward(params: Params, x: Array, state: State) -> tuple[Array, State, Cache]:
    """States a_1 .. a_T (T, B, H), the last one as the next State, and the Cache."""
    a, ru, n, p = run(*params, x, state.a)
    return a[1:, ...], State(a[-1, ...]), Cache(x, a, ru, n, p)


def backward(params: Params, cache: Cache, da: Array, dafter: State | None = None) -> tuple[Array | None, State, Params]:
    """Gradients with respect to x, the initial state and the parameters, given da (T, B, H).

    `dafter` is the gradient with respect to the state after the last step; without it the gradient is truncated there.
    """
    zero = namespace(da).zeros_like(cache.a[0, ...])
    dx, da0, *dparams = run_backward(*params, *cache, da, *(dafter or State(zero)))
    return dx, State(da0), Params(*dparams)


def gate_activations(cache: Cache) -> Array:
    """The gates r, u, n (T, B, 3H) of a forward pass."""
    return namespace(cache.n).concat([cache.ru, cache.n], axis=2)


@accelerated
def run(Wax: Array, Waa: Array, b: Array, ban: Array, x: Array, a0: Array) -> tuple[Array, ...]:
    """States a_0 .. a_T (T+1, B, H), the gates r, u (T, B, 2H), n and p (T, B, H)."""
    return recurrence(linear.forward(Wax, x, b), Waa, ban, a0)


@accelerated
def run_backward(
    Wax: Array, Waa: Array, b: Array, ban: Array, x: Array, a: Array, ru: Array, n: Array, p: Array, da: Array, da_next: Array
) -> tuple[Array | None, ...]:
    """Gradients with respect to x, a0, Wax, Waa, b and ban, given da (T, B, H) and, from after T, da_next (B, H)."""
    dz, dq, da0 = recurrence_backward(da, a, ru, n, p, da_next, Waa)  # the only sequential part
    dx, dWax, db = linear.backward(Wax, x, dz)
    return dx, da0, dWax, outer_sum(dq, a[:-1, ...]), db, bias_grad(dq[:, :, 2 * n.shape[2] :])


@accelerated
def recurrence(z: Array, Waa: Array, ban: Array, a0: Array) -> tuple[Array, Array, Array, Array]:
    """a (T+1, B, H), the gates r, u (T, B, 2H), n and p = Waa_n a_{t-1} + ban (T, B, H), given z (T, B, 3H) and a0 (B, H)."""
    xp, H = namespace(z), a0.shape[1]
    WaaT = contiguous_transpose(Waa, z.shape[0])
    a: list[Array] = [a0]
    ru: list[Array] = []
    n: list[Array] = []
    p: list[Array] = []
    for t in range(z.shape[0]):
        q = a[-1] @ WaaT
        ru.append(sigmoid(z[t, :, : 2 * H] + q[:, : 2 * H]))
        r, u = ru[-1][:, :H], ru[-1][:, H:]
        p.append(q[:, 2 * H :] + ban)
        n.append(xp.tanh(z[t, :, 2 * H :] + r * p[-1]))
        a.append(n[-1] + u * (a[-1] - n[-1]))  # = u a + (1 - u) n
    return xp.stack(a), xp.stack(ru), xp.stack(n), xp.stack(p)


@accelerated
def recurrence_backward(
    da: Array, a: Array, ru: Array, n: Array, p: Array, da_next: Array, Waa: Array
) -> tuple[Array, Array, Array]:
    """Gradients with respect to z and to q = Waa a_{t-1} (T, B, 3H), and to a0 (B, H).

    Given are da (T, B, H) from above and da_next (B, H) from after the last step.
    """
    xp, (T, B, H) = namespace(da), n.shape
    r, u = ru[:, :, :H], ru[:, :, H:]
    # da_t times these is dz_n, dz_r and dz_u, for all steps at once; q_n reaches a_t through the reset gate, z_n does not
    slope_n = (1.0 - u) * (1.0 - n * n)
    slope_r = slope_n * p * r * (1.0 - r)
    slope_u = (a[:-1, ...] - n) * u * (1.0 - u)
    slope_q = xp.stack([slope_r, slope_u, slope_n * r], axis=2)  # (T, B, 3, H)
    d: list[Array] = []  # the whole gradient of a_t: from above and from the step after
    dq: list[Array] = []
    for t in reversed(range(T)):
        d.append(da[t, ...] + da_next)
        dq.append(xp.reshape(d[-1][:, None, :] * slope_q[t, ...], (B, 3 * H)))
        da_next = d[-1] * u[t, ...] + dq[-1] @ Waa
    dq_all = xp.stack(dq[::-1])
    dz_n = xp.stack(d[::-1]) * slope_n
    return xp.concat([dq_all[:, :, : 2 * H], dz_n], axis=2), dq_all, da_next
