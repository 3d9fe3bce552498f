"""Kernels of the output layer and of the loss: logits of the next token, softmax cross-entropy, and back."""

import functools
import math
from typing import Any

import numpy as np

from bptt.kernels.cpu.gemm import multiply, outer_sum, pack, pack_transposed, padded, space, trimmed
from bptt.kernels.cpu.jit import compiled
from bptt.kernels.cpu.simd import exp, load, store, width


@compiled
def matmul_add(A: Any, panels: Any, added: Any) -> Any:
    """A W + added (T, B, N) for A (T, B, K) and the panels of W (K, N), by as many rows as a near cache holds."""
    (T, B, K), N = A.shape, added.size
    out, block = np.empty((T * B, N), A.dtype), np.empty((64, padded(N, A)), A.dtype)
    for first in range(0, T * B, 64):
        count = min(64, T * B - first)
        multiply(A, first * K, count, K, panels, block, False)
        for i in range(count):
            for j in range(N):
                out[first + i, j] = block[i, j] + added[j]
    return out.reshape(T, B, N)


@compiled
def affine(W: Any, x: Any, b: Any) -> Any:
    """W x + b (T, B, N) for vectors x (T, B, I)."""
    return matmul_add(x, pack_transposed(W), b)


@compiled
def affine_backward(W: Any, x: Any, dz: Any) -> Any:
    """dx (T, B, I), dW (N, I), db (N,), given dz (T, B, N)."""
    (T, B, I), N = x.shape, W.shape[0]
    d, db, dW = dz.reshape(T * B, N), np.zeros(N, W.dtype), space(N, I, W)
    for row in d:
        db += row
    outer_sum(d, x.reshape(T * B, I), 0, T * B, dW, False)
    return matmul_add(dz, pack(W), np.zeros(I, W.dtype)), trimmed(dW, N, I), db


@functools.partial(compiled, fastmath=frozenset({"contract", "reassoc"}))
def row_sum(row: Any) -> Any:
    """The sum of some numbers (V,)."""
    total = row.dtype.type(0)
    for v in range(row.size):
        total += row[v]
    return total


@compiled
def cross_entropy(logits: Any, y: Any, mask: Any, of: float) -> Any:
    """The mean of -log p(y), p (T, B, V), and the weight of each target (T, B); all of them `of`, or -1: those here."""
    T, B, V = logits.shape
    p, weight, mean = np.empty_like(logits), np.empty_like(mask), np.empty((), logits.dtype)
    count = loss = 0.0
    for t in range(T):
        for b in range(B):
            count += mask[t, b]
            row, largest = p[t, b], logits[t, b, 0]
            for v in range(1, V):
                largest = max(largest, logits[t, b, v])
            for v in range(V):
                row[v] = logits[t, b, v] - largest
            weight[t, b] = row[y[t, b]]
    if of >= 0:  # the targets here are not all
        count = of
    count = max(count, 1.0)
    flat = p.reshape(-1)
    for i in range(0, flat.size, width(flat)):
        store(exp(load(flat, i, flat.size - i)), flat, i, flat.size - i)
    for t in range(T):
        for b in range(B):
            row = p[t, b]
            normalizer = row_sum(row)
            for v in range(V):
                row[v] /= normalizer
            loss += (math.log(normalizer) - weight[t, b]) * mask[t, b]
            weight[t, b] = mask[t, b] / count
    mean[()] = loss / count
    return mean, p, weight


@compiled
def cross_entropy_backward(p: Any, y: Any, weight: Any) -> Any:
    """(p - one_hot(y)) times the weight of each target, (T, B, V)."""
    T, B, V = p.shape
    d = np.empty_like(p)
    for t in range(T):
        for b in range(B):
            for v in range(V):
                d[t, b, v] = p[t, b, v] * weight[t, b]
            d[t, b, y[t, b]] -= weight[t, b]
    return d
