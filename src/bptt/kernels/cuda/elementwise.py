"""Small kernels on a CUDA device, each of which does what would take several of CuPy's own functions."""

import functools
import math
from typing import Any

import cupy

from bptt.backend import Array
from bptt.data import graph_inputs
from bptt.dispatch import kernel_for
from bptt.nn import linear, loss, ops, optimizers, tree

MOST = 48  # arrays that one kernel takes: its parameters have 4 KiB
MAX_GROUPS = 48  # of parameters, likewise
SOFTMAX = cupy.ElementwiseKernel(  # a warp does a row: lane k its elements k, k + 32 and so on
    "raw T logits, raw I y, raw T mask, raw T count, int32 V",
    "raw T share, raw T weight, raw T p",
    """
    const ptrdiff_t row = i / 32;
    const int lane = i % 32;
    const T* u = &logits[row * V];
    T top = u[lane < V ? lane : 0], total = 0;
    for (int k = lane + 32; k < V; k += 32) top = max(top, u[k]);
    for (int other = 16; other; other /= 2) top = max(top, __shfl_xor_sync(0xffffffffu, top, other));
    for (int k = lane; k < V; k += 32) total += exp(u[k] - top);
    for (int other = 16; other; other /= 2) total += __shfl_xor_sync(0xffffffffu, total, other);
    for (int k = lane; k < V; k += 32) p[row * V + k] = exp(u[k] - top) / total;
    if (lane == 0) {
        weight[row] = mask[row] / max(count[0], T(1));
        share[row] = (log(total) - (u[y[row]] - top)) * weight[row];
    }
    """,
    "bptt_softmax",
)
SOFTMAX_BACKWARD = cupy.ElementwiseKernel(
    "T p, raw I y, raw T weight, int32 V", "T d", "d = (p - T(i % V == y[i / V])) * weight[i / V]", "bptt_softmax_backward"
)
EMBEDDED = cupy.ElementwiseKernel(  # of columns laid out one after the other; dividing 64 bits would take most of the time
    "raw T columns, raw I x, raw T b, uint32 N",
    "T z",
    "const unsigned row = unsigned(i) / N, n = unsigned(i) % N; z = columns[x[row] * N + n] + b[n]",
    "bptt_embedded",
)
EMBEDDED_FOURS = cupy.ElementwiseKernel(  # the same, 16 bytes or more at a time
    "raw T columns, raw I x, raw T b, uint32 N",
    "raw T z",
    """
    struct alignas(16) Four { T v[4]; };
    const unsigned row = unsigned(i) / (N / 4), n = unsigned(i) % (N / 4) * 4;
    Four four = *reinterpret_cast<const Four*>(&columns[x[row] * N + n]);
    for (int k = 0; k < 4; ++k) four.v[k] += b[n + k];
    *reinterpret_cast<Four*>(&z[ptrdiff_t(row) * N + n]) = four;
    """,
    "bptt_embedded_fours",
)
ONE_HOT = cupy.ElementwiseKernel("raw I x, int32 V", "T hot", "hot = T(i % V == x[i / V])", "bptt_one_hot")
NORM = cupy.ReductionKernel("T d", "T norm", "d * d", "a + b", "norm = sqrt(a)", "0", "bptt_norm")
SCALED = cupy.ElementwiseKernel(  # by a norm that is no number: to no numbers
    "T d, raw T norm, T limit", "T c", "c = d * (norm[0] <= limit ? T(1) : limit / norm[0])", "bptt_scaled"
)
AVERAGE = cupy.ElementwiseKernel(
    "T average, T params, T rest", "T updated", "updated = average + rest * (params - average)", "bptt_average"
)
BATCH = cupy.ElementwiseKernel(
    "raw I ids, raw P columns, raw P at, int32 B, int32 W",
    "P x, P y, T mask",
    """
    const P* own = &columns[at[0] * 2 * W + i % B];
    const P place = own[0] + i / B;
    x = place <= own[W] ? P(ids[place]) : P(0);
    y = place < own[W] ? P(ids[place + 1]) : P(0);
    mask = T(place < own[W]);
    """,
    "bptt_batch",
)
FINISH = cupy.ElementwiseKernel(
    "T loss, T norm",
    "raw bool finite, raw T measured, raw P at",
    """
    measured[2 * at[0]] = loss;
    measured[2 * at[0] + 1] = norm;
    finite[0] = finite[0] && isfinite(loss) && isfinite(norm);
    at[0] += 1;
    """,
    "bptt_finish",
)
REPLACE = cupy.ElementwiseKernel("raw bool finite, T now", "T before", "before = finite[0] ? now : before", "bptt_replace")


@kernel_for(loss.cross_entropy, cupy.ndarray)
def cross_entropy(logits: Array, y: Array, mask: Array, count: Array | None) -> tuple[Array, Array, Array]:
    """`loss.cross_entropy`."""
    logits, p = cupy.ascontiguousarray(logits), cupy.empty(logits.shape, logits.dtype)
    total = mask.sum() if count is None else count
    share, weight = (cupy.empty(y.shape, p.dtype) for _ in range(2))
    arguments = (cupy.ascontiguousarray(array) for array in (y, mask, total))
    SOFTMAX(logits, *arguments, logits.shape[2], share, weight, p, size=32 * y.size)
    return share.sum(), p, weight


@kernel_for(loss.cross_entropy_backward, cupy.ndarray)
def cross_entropy_backward(p: Array, y: Array, weight: Array) -> Array:
    """`loss.cross_entropy_backward`."""
    return SOFTMAX_BACKWARD(p, cupy.ascontiguousarray(y), cupy.ascontiguousarray(weight), p.shape[2])


@kernel_for(linear.embedded, cupy.ndarray)
def embedded(W: Array, x: Array, b: Array) -> Array:
    """`linear.embedded`."""
    if x.size * W.shape[0] >= 2**32:
        return NotImplemented
    z = cupy.empty((*x.shape, W.shape[0]), W.dtype)
    columns, x, b = map(cupy.ascontiguousarray, (W.T, x, b))
    if W.shape[0] % 4 or columns.data.ptr % 16:
        return EMBEDDED(columns, x, b, W.shape[0], z)
    return EMBEDDED_FOURS(columns, x, b, W.shape[0], z, size=z.size // 4)


@kernel_for(ops.one_hot, cupy.ndarray)
def one_hot(ids: Array, size: int, like: Array) -> Array:
    """`ops.one_hot`."""
    return ONE_HOT(cupy.ascontiguousarray(ids), size, cupy.empty((ids.size, size), like.dtype))


@kernel_for(optimizers.clip_by_norm, cupy.ndarray)
def clip_by_norm(grad: Array, limit: float) -> tuple[Array, Array]:
    """`optimizers.clip_by_norm`."""
    norm = NORM(grad)
    return SCALED(grad, norm, limit), norm


@kernel_for(optimizers.adam_update, cupy.ndarray)
def adam_update(
    params_vector: Array,
    grad: Array,
    m: Array,
    v: Array,
    t: Array,
    learning_rate: Any,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    groups: tuple[optimizers.ParamGroup, ...],
) -> Any:
    """`optimizers.adam_update`."""
    if len(groups) > MAX_GROUPS:
        return NotImplemented
    groups = groups or (optimizers.ParamGroup(grad.size, 1.0, 1.0),)
    # 1 - beta of a float32 beta would be off by up to 6e-8
    betas = (number for beta in (beta1, beta2) for number in (beta, 1.0 - beta, math.log(beta)))
    factors = (number for end, rate, decay in groups for number in (end, rate, weight_decay * decay))
    return _adam(len(groups))(params_vector, grad, m, v, t, learning_rate, *betas, eps, *factors)


@functools.cache
def _adam(groups: int) -> Any:
    """The kernel of Adam for so many groups of parameters, given for each its end and its factors of rate and decay."""
    numbers = "T params, T grad, T m, T v, raw T t, T learning_rate, T beta1, T rest1, T log1, T beta2, T rest2, T log2, T eps"
    factors = "".join(f", int64 end{k}, T rate{k}, T decay{k}" for k in range(groups))
    rate, decay = (
        "".join(f"i < end{k} ? {name}{k} : " for k in range(groups - 1)) + f"{name}{groups - 1}" for name in ("rate", "decay")
    )
    return cupy.ElementwiseKernel(
        numbers + factors,
        "T params_new, T m_new, T v_new",
        f"""
        m_new = beta1 * m + rest1 * grad;
        v_new = beta2 * v + rest2 * (grad * grad);
        const T m_hat = m_new / -expm1(t[0] * log1), v_hat = v_new / -expm1(t[0] * log2);
        const T rate = learning_rate * ({rate}), decay = {decay};
        params_new = params * (1 - rate * decay) - rate * m_hat / (sqrt(v_hat) + eps);
        """,
        f"bptt_adam_{groups}",
    )


@kernel_for(optimizers.average_update, cupy.ndarray)
def average_update(average: Array, params_vector: Array, decay: float) -> Array:
    """`optimizers.average_update`."""
    updated: Array = AVERAGE(average, params_vector, 1.0 - decay)
    return updated


@functools.cache
def _concatenate(count: int) -> Any:
    """The kernel that puts so many arrays in a row, given each with the place of its end."""
    parameters = ", ".join(f"raw T a{k}, int64 end{k}" for k in range(count))
    choices = "".join(f"i < end{k} ? a{k}[i - {f'end{k - 1}' if k else 0}] : " for k in range(count - 1))
    last = f"a{count - 1}[i - end{count - 2}]" if count > 1 else "a0[i]"
    return cupy.ElementwiseKernel(parameters, "T y", f"y = {choices}{last}", f"bptt_concatenate_{count}")


@kernel_for(tree.concatenate, cupy.ndarray)
def concatenate(*arrays: Array) -> Array:
    """`tree.concatenate`: CuPy would bring their places to the device first, which a recorded graph would not repeat."""
    vector, arguments, end = cupy.empty(sum(array.size for array in arrays), arrays[0].dtype), [], 0
    if len(arrays) > MOST:
        parts = [concatenate(*arrays[i : i + MOST]) for i in range(0, len(arrays), MOST)]
        return concatenate(*parts)
    for array in arrays:
        end += array.size
        arguments += [array, end]
    result: Array = _concatenate(len(arrays))(*arguments, vector)
    return result


@kernel_for(graph_inputs.batch, cupy.ndarray)
def batch(ids: Array, columns: Array, at: Array, ramp: Array, ones: Array, full: bool) -> tuple[Array, Array, Array]:
    """`graph_inputs.batch`."""
    x, y = (cupy.empty(ones.shape, columns.dtype) for _ in range(2))
    result: tuple[Array, Array, Array] = BATCH(
        ids, columns, at, ones.shape[1], columns.shape[2], x, y, cupy.empty(ones.shape, ones.dtype)
    )
    return result


@kernel_for(graph_inputs.finish, cupy.ndarray)
def finish(finite: Array, loss: Array, norm: Array, measured: Array, at: Array) -> None:
    """`graph_inputs.finish`."""
    FINISH(loss, norm, finite, measured, at)


@kernel_for(graph_inputs.replace, cupy.ndarray)
def replace(finite: Array, array: Array, updated: Array) -> None:
    """`graph_inputs.replace`."""
    REPLACE(finite, updated, array)
