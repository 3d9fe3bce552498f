"""Long short-term memory of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000).

i, f, o = sigmoid and g = tanh of the blocks of Wax x_t + Waa a_{t-1} + b, in the order i, f, g, o
c_t = f_t c_{t-1} + i_t g_t
a_t = o_t tanh(c_t)
"""

from typing import Any, NamedTuple

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated
from bptt.nn import initializers, linear
from bptt.nn.ops import contiguous_transpose, outer_sum, sigmoid

GATES = {"input": "sigmoid", "forget": "sigmoid", "cell": "tanh", "output": "sigmoid"}  # blocks of H rows in Wax, Waa and b
MEMORY = ((15.0, 7), (10.2, 6))  # numbers alive per step and unit: see cells.py
RATE_FACTOR = 2.0  # its best learning rate is about twice that of the other cells


class Params(NamedTuple):
    """What is learned; 4H rows hold the blocks i, f, g, o."""

    Wax: Array  # (4H, I)
    Waa: Array  # (4H, H)
    b: Array  # (4H,)


class State(NamedTuple):
    """What one step hands to the next."""

    a: Array  # (B, H)
    c: Array  # (B, H)


class Cache(NamedTuple):
    """What backward needs from forward."""

    x: Array  # (T, B) tokens or (T, B, I) vectors
    a: Array  # (T+1, B, H): a[0] is the initial state
    c: Array  # (T+1, B, H): c[0] is the initial cell state
    gates: Array  # (T, B, 4H)


def shapes(inputs: int, hidden: int) -> Params:
    """The shape of each parameter, a list, in its place."""
    return Params([4 * hidden, inputs], [4 * hidden, hidden], [4 * hidden])


def init(rng: Any, inputs: int, hidden: int, kind: initializers.Kind = "uniform") -> Params:
    """Host arrays in float64 drawn from a `numpy.random.Generator`: weights as `kind` says, biases zero, forget bias 1.

    The forget bias is that of Jozefowicz et al. (2015).
    """
    Wax = initializers.uniform(rng, (4 * hidden, inputs), hidden)
    Waa = initializers.recurrent(rng, 4, hidden, kind)
    xp = namespace(Wax)
    zero, one = xp.zeros_like(Wax[:hidden, 0]), xp.ones_like(Wax[:hidden, 0])
    return Params(Wax, Waa, xp.concat([zero, one, zero, zero]))


def forward(params: Params, x: Array, state: State) -> tuple[Array, State, Cache]:
    """States a_1 .. a_T (T, B, H), the last ones as the next State, and the Cache."""
    a, c, gates = run(*params, x, *state)
    return a[1:, ...], State(a[-1, ...], c[-1, ...]), Cache(x, a, c, gates)


def backward(params: Params, cache: Cache, da: Array, dafter: State | None = None) -> tuple[Array | None, State, Params]:
    """Gradients with respect to x, the initial state and the parameters, given da (T, B, H).

    `dafter` is the gradient with respect to the state after the last step; without it the gradient is truncated there.
    """
    zero = namespace(da).zeros_like(cache.a[0, ...])
    dx, da0, dc0, *dparams = run_backward(*params, *cache, da, *(dafter or State(zero, zero)))
    return dx, State(da0, dc0), Params(*dparams)


def gate_activations(cache: Cache) -> Array:
    """The gates i, f, g, o (T, B, 4H) of a forward pass."""
    return cache.gates


@accelerated
def run(Wax: Array, Waa: Array, b: Array, x: Array, a0: Array, c0: Array) -> tuple[Array, ...]:
    """a and c (T+1, B, H) and the gates i, f, g, o (T, B, 4H)."""
    return recurrence(linear.forward(Wax, x, b), Waa, a0, c0)


@accelerated
def run_backward(
    Wax: Array, Waa: Array, b: Array, x: Array, a: Array, c: Array, gates: Array, da: Array, da_next: Array, dc_next: Array
) -> tuple[Array | None, ...]:
    """Gradients with respect to x, a0, c0, Wax, Waa and b, given da (T, B, H) and, from after T, da_next, dc_next (B, H)."""
    dz, da0, dc0 = recurrence_backward(da, c, gates, da_next, dc_next, Waa)  # the only sequential part
    dx, dWax, db = linear.backward(Wax, x, dz)
    return dx, da0, dc0, dWax, outer_sum(dz, a[:-1, ...]), db


@accelerated
def recurrence(z: Array, Waa: Array, a0: Array, c0: Array) -> tuple[Array, Array, Array]:
    """a and c (T+1, B, H) and the gates i, f, g, o (T, B, 4H), given z (T, B, 4H), a0 and c0 (B, H)."""
    xp, H = namespace(z), a0.shape[1]
    WaaT = contiguous_transpose(Waa, z.shape[0])
    a: list[Array] = [a0]
    c: list[Array] = [c0]
    gates: list[Array] = []
    for t in range(z.shape[0]):
        q = z[t, ...] + a[-1] @ WaaT
        i_f, g, o = sigmoid(q[:, : 2 * H]), xp.tanh(q[:, 2 * H : 3 * H]), sigmoid(q[:, 3 * H :])
        gates.append(xp.concat([i_f, g, o], axis=1))
        i, f = i_f[:, :H], i_f[:, H:]
        c.append(f * c[-1] + i * g)
        a.append(o * xp.tanh(c[-1]))
    return xp.stack(a), xp.stack(c), xp.stack(gates)


@accelerated
def recurrence_backward(
    da: Array, c: Array, gates: Array, da_next: Array, dc_next: Array, Waa: Array
) -> tuple[Array, Array, Array]:
    """Gradients with respect to z (T, B, 4H), a0 and c0 (B, H).

    Given are da (T, B, H) from above and da_next, dc_next (B, H) from after the last step.
    """
    xp, (T, B, H) = namespace(da), da.shape
    i, f, g, o = (gates[:, :, k * H : (k + 1) * H] for k in range(4))
    tanh_c = xp.tanh(c[1:, ...])
    # dc_t times slope_ifg is dz of the blocks i, f, g; da_t times slope_o is dz of block o, and times slope_c reaches c_t
    slope_ifg = xp.stack([g * i * (1.0 - i), c[:-1, ...] * f * (1.0 - f), i * (1.0 - g * g)], axis=2)  # (T, B, 3, H)
    slope_o = tanh_c * o * (1.0 - o)
    slope_c = o * (1.0 - tanh_c * tanh_c)
    dz: list[Array] = []
    for t in reversed(range(T)):
        d = da[t, ...] + da_next
        dc = dc_next + d * slope_c[t, ...]
        dz_ifg = xp.reshape(dc[:, None, :] * slope_ifg[t, ...], (B, 3 * H))
        dz.append(xp.concat([dz_ifg, d * slope_o[t, ...]], axis=1))
        da_next = dz[-1] @ Waa
        dc_next = dc * f[t, ...]
    return xp.stack(dz[::-1]), da_next, dc_next
