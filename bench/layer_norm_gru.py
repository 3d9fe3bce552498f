"""A GRU with layer normalisation (Ba et al. 2016, arXiv 1607.06450) of each gate's Wax x_t + Waa a_{t-1}: a cell for `--cell`.

N takes the mean of a gate's H numbers away and divides by their standard deviation. The gains, 1 + GAIN g, and the biases come
after it:

r_t = sigmoid((1 + GAIN g_r) N(Wax_r x_t + Waa_r a_{t-1}) + b_r),  u_t in the same way
n_t = tanh((1 + GAIN g_n) N(Wax_n x_t + r_t (Waa_n a_{t-1} + ban)) + b_n)
a_t = u_t a_{t-1} + (1 - u_t) n_t
"""

from typing import Any, NamedTuple

import numpy as np

from bptt.backend import Array
from bptt.nn import gru, initializers, linear
from bptt.nn.ops import bias_grad, outer_sum, sigmoid

GATES = gru.GATES
EPS = 1e-5  # added to the variance
GAIN = 0.1  # of the learning rate of a bias, for the gains
State = gru.State


class Params(NamedTuple):
    Wax: Array  # (3H, I)
    Waa: Array  # (3H, H)
    b: Array  # (3H,)
    ban: Array  # (H,)
    g: Array  # (3H,)


class Cache(NamedTuple):
    x: Array  # (T, B) tokens or (T, B, I) vectors
    a: Array  # (T+1, B, H)
    ru: Array  # (T, B, 2, H)
    n: Array  # (T, B, H)
    p: Array  # (T, B, H): Waa_n a_{t-1} + ban
    normal: Array  # (T, B, 3, H): N of the gates
    inverse: Array  # (T, B, 3, 1): 1 / standard deviation


def shapes(inputs: int, hidden: int) -> Params:
    return Params(*gru.shapes(inputs, hidden), [3 * hidden])


def init(rng: Any, inputs: int, hidden: int, kind: initializers.Kind = "uniform") -> Params:
    params = gru.init(rng, inputs, hidden, kind)
    return Params(*params, np.zeros_like(params.b))


def normalise(s: Array) -> tuple[Array, Array]:
    """N(s) and 1 / standard deviation, over the last axis."""
    centred = s - s.mean(-1, keepdims=True)
    inverse = 1.0 / np.sqrt((centred * centred).mean(-1, keepdims=True) + EPS)
    return centred * inverse, inverse


def normalise_backward(d: Array, normal: Array, inverse: Array) -> Array:
    """The gradient with respect to s, given that with respect to N(s)."""
    return inverse * (d - d.mean(-1, keepdims=True) - normal * (d * normal).mean(-1, keepdims=True))


def forward(params: Params, x: Array, state: State) -> tuple[Array, State, Cache]:
    Wax, Waa, b, ban, g = params
    H, WaaT = Waa.shape[1], np.ascontiguousarray(Waa.T)
    gain, bias, z = (1.0 + GAIN * g).reshape(3, H), b.reshape(3, H), linear.forward(Wax, x, np.zeros_like(b))
    z = z.reshape(*z.shape[:2], 3, H)
    a, steps = [state.a], []
    for t in range(z.shape[0]):
        q = (a[-1] @ WaaT).reshape(-1, 3, H)
        p = q[:, 2] + ban
        normal_ru, inverse_ru = normalise(z[t, :, :2] + q[:, :2])
        ru = sigmoid(gain[:2] * normal_ru + bias[:2])
        normal_n, inverse_n = normalise(z[t, :, 2:] + ru[:, :1] * p[:, None])
        n = np.tanh(gain[2] * normal_n[:, 0] + bias[2])
        a.append(n + ru[:, 1] * (a[-1] - n))
        normal, inverse = (np.concatenate(pair, 1) for pair in ((normal_ru, normal_n), (inverse_ru, inverse_n)))
        steps.append((ru, n, p, normal, inverse))
    states = np.stack(a)
    return states[1:], State(a[-1]), Cache(x, states, *map(np.stack, zip(*steps)))


def backward(params: Params, cache: Cache, da: Array, dafter: State | None = None) -> tuple[Array | None, State, Params]:
    Wax, Waa, _, _, g = params
    x, a, ru, n, p, normal, inverse = cache
    T, B, H = n.shape
    gain, da_next = (1.0 + GAIN * g).reshape(3, H), np.zeros_like(a[0]) if dafter is None else dafter.a
    steps = []
    for t in reversed(range(T)):
        (r, u), d = (ru[t, :, 0], ru[t, :, 1]), da[t] + da_next
        dn = d * (1.0 - u) * (1.0 - n[t] * n[t])  # with respect to g N + b, as dru below
        ds_n = normalise_backward(gain[2] * dn, normal[t, :, 2], inverse[t, :, 2])
        dru = np.stack([ds_n * p[t] * r * (1.0 - r), d * (a[t] - n[t]) * u * (1.0 - u)], 1)
        ds_ru = normalise_backward(gain[:2] * dru, normal[t, :, :2], inverse[t, :, :2])
        dq, dz = (np.concatenate([ds_ru, last[:, None]], 1).reshape(B, 3 * H) for last in (ds_n * r, ds_n))
        da_next = d * u + dq @ Waa
        steps.append((dq, dz, np.concatenate([dru, dn[:, None]], 1)))
    dq, dz, dgates = (np.stack(each) for each in zip(*steps[::-1]))
    dx, dWax, _ = linear.backward(Wax, x, dz)
    dgates = dgates.reshape(T, B, 3 * H)
    db, dg = bias_grad(dgates), GAIN * bias_grad(dgates * normal.reshape(T, B, 3 * H))
    return dx, State(da_next), Params(dWax, outer_sum(dq, a[:-1]), db, bias_grad(dq[:, :, 2 * H :]), dg)
