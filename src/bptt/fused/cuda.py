"""Twins on a CUDA device: each recurrence as one kernel for all its steps (recurrence.cu), and what else is many small ones.

Where the weights fit on no number of blocks that run at the same time, or a thread would have to look after too much, a
recurrence gives NotImplemented and the pure function runs.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import cupy

from bptt.backend import Array
from bptt.fused.layouts import APART, Layout, Limits, layout, source

NAME = "nvrtc " + ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
ARRAY = cupy.ndarray


@functools.cache
def _limits(number: int) -> Limits:
    attributes = cupy.cuda.Device(number).attributes
    return Limits(attributes["MultiProcessorCount"], attributes["MaxSharedMemoryPerBlockOptin"])


@functools.lru_cache(256)
def _kernel(number: int, cell: int, backward: bool, hidden: int, batch: int, size: int) -> tuple[Any, Layout] | None:
    """The kernel of a device for a batch of so many columns, compiled or from CuPy's cache, and its layout."""
    how = layout(cell, backward, hidden, batch, size, _limits(number))
    if how is None:
        return None
    code = source(cell, backward, hidden, size, how, _limits(number).threads)
    kernel = cupy.RawKernel(code, "backward" if backward else "forward", ("-std=c++17",), enable_cooperative_groups=True)
    kernel.max_dynamic_shared_size_bytes = how.memory
    return kernel, how


def _run(cell: int, backward: bool, Waa: Array, T: int, B: int, *arrays: Array) -> bool:
    """Launch the kernel on arrays, None among them for those that its cell has not; False where there is none."""
    found = _kernel(Waa.device.id, cell, backward, Waa.shape[1], B, Waa.itemsize)
    if found is None:
        return False
    kernel, how = found
    counters = cupy.zeros(how.groups * APART, cupy.uint32)
    given = [cupy.ascontiguousarray(Waa), *arrays, counters, T, B]
    arguments = [0 if one is None else cupy.int32(one) if isinstance(one, int) else one for one in given]
    kernel((how.groups * how.G,), (_limits(Waa.device.id).threads,), tuple(arguments), shared_mem=how.memory)
    return True


def _begun(T: int, start: Array) -> Array:
    """An array (T+1, B, H) that begins with the state before the first step."""
    states = cupy.empty((T + 1, *start.shape), start.dtype)
    states[0] = start
    return states


def vanilla(z: Array, Waa: Array, a0: Array) -> Array:
    """`vanilla.recurrence`."""
    T, B, _ = z.shape
    a = _begun(T, a0)
    return a if _run(0, False, Waa, T, B, cupy.ascontiguousarray(z), a, None, None, None, None) else NotImplemented


def vanilla_backward(da: Array, a: Array, da_next: Array, Waa: Array) -> Any:
    """`vanilla.recurrence_backward`."""
    (T, B, _), da0 = da.shape, cupy.array(da_next)
    dz = cupy.empty(da.shape, da.dtype)
    given = cupy.ascontiguousarray(da), cupy.ascontiguousarray(a), None, None, None, None, dz, da0, None
    return (dz, da0) if _run(0, True, Waa, T, B, *given) else NotImplemented


def gru(z: Array, Waa: Array, ban: Array, a0: Array) -> Any:
    """`gru.recurrence`."""
    T, B, N = z.shape
    a, ru = _begun(T, a0), cupy.empty((T, B, N // 3 * 2), z.dtype)
    n, p = (cupy.empty((T, B, N // 3), z.dtype) for _ in range(2))
    given = cupy.ascontiguousarray(z), a, cupy.ascontiguousarray(ban), ru, n, p
    return (a, ru, n, p) if _run(1, False, Waa, T, B, *given) else NotImplemented


def gru_backward(da: Array, a: Array, ru: Array, n: Array, p: Array, da_next: Array, Waa: Array) -> Any:
    """`gru.recurrence_backward`."""
    (T, B, H), da0 = da.shape, cupy.array(da_next)
    dz, dq = (cupy.empty((T, B, 3 * H), da.dtype) for _ in range(2))
    given = (*map(cupy.ascontiguousarray, (da, a, ru, n, p)), dz, dq, da0, None)
    return (dz, dq, da0) if _run(1, True, Waa, T, B, *given) else NotImplemented


def lstm(z: Array, Waa: Array, a0: Array, c0: Array) -> Any:
    """`lstm.recurrence`."""
    T, B, _ = z.shape
    a, c, gates = _begun(T, a0), _begun(T, c0), cupy.empty(z.shape, z.dtype)
    return (a, c, gates) if _run(2, False, Waa, T, B, cupy.ascontiguousarray(z), a, c, gates, None, None) else NotImplemented


def lstm_backward(da: Array, c: Array, gates: Array, da_next: Array, dc_next: Array, Waa: Array) -> Any:
    """`lstm.recurrence_backward`."""
    (T, B, H), da0, dc0 = da.shape, cupy.array(da_next), cupy.array(dc_next)
    dz = cupy.empty((T, B, 4 * H), da.dtype)
    given = (*map(cupy.ascontiguousarray, (da, c, gates)), None, None, None, dz, da0, dc0)
    return (dz, da0, dc0) if _run(2, True, Waa, T, B, *given) else NotImplemented


SOFTMAX = cupy.ElementwiseKernel(
    "raw T logits, I y, T mask, raw T count, int32 V",
    "T share, T weight, raw T p",
    """
    const T* u = &logits[i * V];
    T top = u[0], total = 0;
    for (int k = 1; k < V; ++k) top = max(top, u[k]);
    for (int k = 0; k < V; ++k) total += exp(u[k] - top);
    for (int k = 0; k < V; ++k) p[i * V + k] = exp(u[k] - top) / total;
    weight = mask / count[0];
    share = (log(total) - (u[y] - top)) * weight;
    """,
    "bptt_softmax",
)
SOFTMAX_BACKWARD = cupy.ElementwiseKernel(
    "T p, raw I y, raw T weight, int32 V", "T d", "d = (p - T(i % V == y[i / V])) * weight[i / V]", "bptt_softmax_backward"
)
NORM = cupy.ReductionKernel("T d", "T norm", "d * d", "a + b", "norm = sqrt(a)", "0", "bptt_norm")
SCALED = cupy.ElementwiseKernel(  # by a norm that is no number: to no numbers
    "T d, raw T norm, T limit", "T c", "c = d * (norm[0] <= limit ? T(1) : limit / norm[0])", "bptt_scaled"
)
ADAM = cupy.ElementwiseKernel(
    "T theta, T d, T m, T v, raw T t, T rate, T beta1, T beta2, T log1, T log2, T eps, T decay",
    "T theta_new, T m_new, T v_new",
    """
    m_new = beta1 * m + (1 - beta1) * d;
    v_new = beta2 * v + (1 - beta2) * (d * d);
    const T m_hat = m_new / -expm1(t[0] * log1), v_hat = v_new / -expm1(t[0] * log2);
    theta_new = theta * (1 - rate * decay) - rate * m_hat / (sqrt(v_hat) + eps);
    """,
    "bptt_adam",
)


def cross_entropy(logits: Array, y: Array, mask: Array, count: Array | None) -> tuple[Array, Array, Array]:
    """`loss.cross_entropy`."""
    logits, p = cupy.ascontiguousarray(logits), cupy.empty(logits.shape, logits.dtype)
    total = mask.sum() if count is None else count
    share, weight = (cupy.empty(y.shape, p.dtype) for _ in range(2))
    SOFTMAX(logits, y, mask, total, logits.shape[2], share, weight, p)
    return share.sum(), p, weight


def cross_entropy_backward(p: Array, y: Array, weight: Array) -> Array:
    """`loss.cross_entropy_backward`."""
    return SOFTMAX_BACKWARD(p, cupy.ascontiguousarray(y), cupy.ascontiguousarray(weight), p.shape[2])


def clip_by_norm(d: Array, limit: float) -> tuple[Array, Array]:
    """`optimizers.clip_by_norm`."""
    norm = NORM(d)
    return SCALED(d, norm, limit), norm


def moments(
    theta: Array,
    d: Array,
    m: Array,
    v: Array,
    t: Array,
    rate: Any,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    """`optimizers.moments`."""
    logs = math.log(beta1), math.log(beta2)
    found: tuple[Array, Array, Array] = ADAM(theta, d, m, v, t, rate, beta1, beta2, *logs, eps, weight_decay)
    return found


TWINS: dict[str, Callable[..., Any]] = {
    "vanilla_recurrence": vanilla,
    "vanilla_recurrence_backward": vanilla_backward,
    "gru_recurrence": gru,
    "gru_recurrence_backward": gru_backward,
    "lstm_recurrence": lstm,
    "lstm_recurrence_backward": lstm_backward,
    "loss_cross_entropy": cross_entropy,
    "loss_cross_entropy_backward": cross_entropy_backward,
    "optimizers_clip_by_norm": clip_by_norm,
    "optimizers_moments": moments,
}
