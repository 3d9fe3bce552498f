"""The minimal gated unit of Zhou et al. (2016, arXiv 1603.09420): a cell with one gate, in the style of `bptt/nn`.

f_t = sigmoid(Wax_f x_t + Waa_f a_{t-1} + b_f)
n_t = tanh(Wax_n x_t + Waa_n (f_t a_{t-1}) + b_n)
a_t = (1 - f_t) a_{t-1} + f_t n_t
"""

from typing import Any, NamedTuple

from bptt.backend import Array, namespace
from bptt.nn import initializers, linear
from bptt.nn.ops import outer_sum, sigmoid
from bptt.nn.vanilla import Params as Params  # Wax (2H, I), Waa (2H, H), b (2H,); "as": they belong to this module, too
from bptt.nn.vanilla import State as State  # a (B, H)

GATES = {"forget": "sigmoid", "new": "tanh"}  # blocks of H rows in Wax, Waa and b


class Cache(NamedTuple):
    """What backward needs from forward."""

    x: Array  # (T, B) tokens or (T, B, I) vectors
    a: Array  # (T+1, B, H): a[0] is the initial state
    f: Array  # (T, B, H)
    n: Array  # (T, B, H)


def shapes(inputs: int, hidden: int) -> Params:
    """The shape of each parameter, a list, in its place."""
    return Params([2 * hidden, inputs], [2 * hidden, hidden], [2 * hidden])


def init(rng: Any, inputs: int, hidden: int, kind: initializers.Kind = "uniform") -> Params:
    """Host arrays in float64 drawn from a `numpy.random.Generator`: weights as `kind` says, biases zero."""
    Wax, Waa = initializers.uniform(rng, (2 * hidden, inputs), hidden), initializers.recurrent(rng, 2, hidden, kind)
    return Params(Wax, Waa, namespace(Wax).zeros_like(Wax[:, 0]))


def forward(params: Params, x: Array, state: State) -> tuple[Array, State, Cache]:
    """States a_1 .. a_T (T, B, H), the last one as the next State, and the Cache."""
    a, f, n = recurrence(linear.forward(params.Wax, x, params.b), params.Waa, state.a)
    return a[1:, ...], State(a[-1, ...]), Cache(x, a, f, n)


def backward(params: Params, cache: Cache, da: Array, dafter: State | None = None) -> tuple[Array | None, State, Params]:
    """Gradients with respect to x, the initial state and the parameters, given da (T, B, H) and `dafter` from after T."""
    xp, (x, a, f, n), H = namespace(da), cache, params.Waa.shape[1]
    da_next = xp.zeros_like(a[0, ...]) if dafter is None else dafter.a
    dz, da0 = recurrence_backward(da, a, f, n, da_next, params.Waa)  # the only sequential part
    dx, dWax, db = linear.backward(params.Wax, x, dz)
    dWaa = xp.concat([outer_sum(dz[:, :, :H], a[:-1, ...]), outer_sum(dz[:, :, H:], f * a[:-1, ...])])
    return dx, State(da0), Params(dWax, dWaa, db)


def recurrence(z: Array, Waa: Array, a0: Array) -> tuple[Array, Array, Array]:
    """a (T+1, B, H), f and n (T, B, H), given z (T, B, 2H) and a0 (B, H)."""
    xp, H, a, f, n = namespace(z), a0.shape[1], [a0], [], []
    for t in range(z.shape[0]):
        f.append(sigmoid(z[t, :, :H] + a[-1] @ Waa[:H, :].T))
        n.append(xp.tanh(z[t, :, H:] + (f[-1] * a[-1]) @ Waa[H:, :].T))
        a.append(a[-1] + f[-1] * (n[-1] - a[-1]))
    return xp.stack(a), xp.stack(f), xp.stack(n)


def recurrence_backward(da: Array, a: Array, f: Array, n: Array, da_next: Array, Waa: Array) -> tuple[Array, Array]:
    """Gradients with respect to z (T, B, 2H) and a0 (B, H), given da (T, B, H) from above and da_next (B, H) from after T."""
    xp, H = namespace(da), n.shape[2]
    dz: list[Array] = []
    for t in reversed(range(n.shape[0])):
        d, a_prev = da[t, ...] + da_next, a[t, ...]
        dz_n = d * f[t, ...] * (1.0 - n[t, ...] * n[t, ...])
        ds = dz_n @ Waa[H:, :]
        dz_f = (d * (n[t, ...] - a_prev) + ds * a_prev) * f[t, ...] * (1.0 - f[t, ...])
        dz.append(xp.concat([dz_f, dz_n], axis=1))
        da_next = d * (1.0 - f[t, ...]) + ds * f[t, ...] + dz_f @ Waa[:H, :]
    return xp.stack(dz[::-1]), da_next
