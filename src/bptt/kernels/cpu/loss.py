"""Kernels of the output layer and of the loss: logits of the next token, softmax cross-entropy, and back."""

from bptt.kernels.cpu.gemm import clear, fill, is_padded, multiply, outer_sum, pack, pack_transposed, padded
from bptt.kernels.cpu.llvm import Variable, allocate, compiled, free, minimum, select, steps
from bptt.kernels.cpu.simd import (
    as_double,
    as_number,
    everywhere,
    exp,
    lane_max,
    lane_sum,
    load,
    log,
    maximum,
    store,
    width,
    zeros,
)
from bptt.kernels.cpu.values import DOUBLE, Double, Int, Ints, Numbers

ROWS = 64  # of a product at a time, which a near cache holds


@compiled
def matmul_add(A: Numbers, rows: Int, K: Int, panels: Numbers, added: Numbers, N: Int, out: Numbers) -> None:
    """Compute A W + added (rows, N) for A (rows, K) and the panels of W (K, N)."""
    ldb = padded(N)
    block = allocate(ldb * ROWS)
    for first in steps(0, rows, ROWS):
        count = minimum(rows - first, ROWS)
        multiply(A + first * K, K, count, K, panels, N, block, ldb, False, first < 0)
        for i in steps(0, count):
            for j in steps(0, N, width(A)):
                store(load(block, i * ldb + j, N - j) + load(added, j, N - j), out, (first + i) * N + j, N - j)
    free(block)


@compiled
def affine(W: Numbers, x: Numbers, b: Numbers, rows: Int, I: Int, N: Int, out: Numbers) -> None:
    """Compute W x + b (rows, N) for vectors x (rows, I)."""
    panels = allocate(padded(N) * I)
    pack_transposed(W, I, N, I, panels)
    matmul_add(x, rows, I, panels, b, N, out)
    free(panels)


@compiled
def affine_backward(
    W: Numbers, x: Numbers, dz: Numbers, rows: Int, I: Int, N: Int, dx: Numbers, dW: Numbers, db: Numbers
) -> None:
    """Compute dx (rows, I), dW (N, I), db (N,), given dz (rows, N)."""
    clear(db, N)
    for i in steps(0, rows):
        for j in steps(0, N, width(x)):
            store(load(db, j, N - j) + load(dz, i * N + j, N - j), db, j, N - j)
    ld, panels, none = padded(I), allocate(padded(I) * N), allocate(I)
    spare = allocate(select(is_padded(N, I), 0, (N + width(N)) * ld))
    sums = select(is_padded(N, I), dW, spare)
    outer_sum(dz, N, N, x, I, I, rows, sums, ld, False)
    fill(dW, I, sums, ld, select(is_padded(N, I), 0, N), I)
    pack(W, I, N, I, panels)
    clear(none, I)
    matmul_add(dz, rows, N, panels, none, I, dx)
    free(spare, panels, none)


@compiled
def cross_entropy(
    logits: Numbers, y: Ints, mask: Numbers, rows: Int, V: Int, count: Double, mean: Numbers, p: Numbers, weight: Numbers
) -> None:
    """Compute the mean of -log p(y), p (rows, V), and the weight of each target (rows,).

    All targets are `count`, or -1: those here.
    """
    code = rows.code
    num_targets = Variable(Double(code, DOUBLE(0.0)))
    for k in steps(0, rows):
        num_targets.set(num_targets.get() + as_double(mask[k]))
    negative = count < 0.0
    targets = select(negative, num_targets.get(), count)
    targets = select(targets < 1.0, Double(code, DOUBLE(1.0)), targets)
    loss = Variable(Double(code, DOUBLE(0.0)))
    for k in steps(0, rows):
        row, into = logits + k * V, p + k * V
        top = Variable(everywhere(row[0]))
        for v in steps(0, V, width(p)):
            top.set(maximum(top.get(), load(row, v, V - v, float("-inf"))))
        most = lane_max(top.get())
        chosen = as_double(row[y[k]] - most)
        sums = Variable(zeros(rows))
        for v in steps(0, V, width(p)):
            e = exp(load(row, v, V - v, float("-inf")) - most)
            store(e, into, v, V - v)
            sums.set(sums.get() + load(into, v, V - v))
        normalizer = lane_sum(sums.get())
        for v in steps(0, V, width(p)):
            store(load(into, v, V - v) / normalizer, into, v, V - v)
        loss.set(loss.get() + (log(as_double(normalizer)) - chosen) * as_double(mask[k]))
        weight[k] = as_number(as_double(mask[k]) / targets)
    mean[0] = as_number(loss.get() / targets)


@compiled
def cross_entropy_backward(p: Numbers, y: Ints, weight: Numbers, rows: Int, V: Int, d: Numbers) -> None:
    """Compute (p - one_hot(y)) times the weight of each target, (rows, V)."""
    for k in steps(0, rows):
        of = weight[k]
        for v in steps(0, V, width(p)):
            store(load(p, k * V + v, V - v) * of, d, k * V + v, V - v)
        d[k * V + y[k]] = d[k * V + y[k]] - of
