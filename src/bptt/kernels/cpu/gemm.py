"""Matrix products that reuse their weights: packed once into panels, with sums in vector registers.

A panel holds two vectors of each row of a matrix (K, N), one row after the other, so that the kernel reads it in order; the
last panel is filled up with zeros. After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008).
"""

from typing import Any

import numpy as np

from bptt.kernels.cpu.jit import compiled
from bptt.kernels.cpu.microkernel import VECTOR, WIDE, at, copy, kernel, transpose

BLOCK = 256  # rows that `outer_sum` multiplies at a time: their panels stay in the second cache
ROWS = 8 if WIDE else 4  # of a block: 8 x 2 sums; 12 x 2 ran at half the speed on Zen 4

_full, _four, _two, _two_by_two, _one, _one_by_four = (
    kernel(rows, panels) for rows, panels in [(ROWS, 1), (4, 1), (2, 1), (2, 2), (1, 1), (1, 4)]
)


@compiled
def padded(columns: int, like: Any) -> Any:
    """So many columns, rounded up to whole panels of the type of an array."""
    n = 2 * VECTOR // like.itemsize
    return (columns + n - 1) // n * n


@compiled
def fill(C: Any, A: Any) -> None:
    """Copy A (M, N) into C from its beginning; to compile `C[:M, :N] = A` takes seconds, for the words of an error."""
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            C[i, j] = A[i, j]


@compiled
def pack(W: Any) -> Any:
    """The panels (ceil(N / width), K, width) of a matrix (K, N)."""
    K, N = W.shape
    lanes = VECTOR // W.itemsize
    n = 2 * lanes
    panels = np.empty(((N + n - 1) // n, K, n), W.dtype)
    for p in range(N // n):
        for k in range(K):
            copy(at(W, k * N + p * n), at(panels, (p * K + k) * n))
            copy(at(W, k * N + p * n + lanes), at(panels, (p * K + k) * n + lanes))
    if N % n:
        last, begin = panels[N // n], N // n * n
        for k in range(K):
            for j in range(n):
                last[k, j] = W[k, begin + j] if begin + j < N else 0
    return panels


@compiled
def pack_transposed(W: Any) -> Any:
    """The panels (ceil(N / width), K, width) of W.T (K, N), given W (N, K)."""
    N, K = W.shape
    lanes = VECTOR // W.itemsize
    n = 2 * lanes
    panels = np.empty(((N + n - 1) // n, K, n), W.dtype)
    for p in range(panels.shape[0]):
        for j in range(p * n, p * n + n, lanes):
            square = K // lanes * lanes if j + lanes <= N else 0  # the part of these rows that vectors can transpose
            for k in range(0, square, lanes):
                transpose(at(W, j * K + k), K, at(panels, (p * K + k) * n + j - p * n), n)
            for k in range(square, K):
                for i in range(lanes):
                    panels[p, k, j - p * n + i] = W[j + i, k] if j + i < N else 0
    return panels


@compiled
def turned(i: int, count: int, back: bool) -> Any:
    """Return index i of `count` indices, counted from the end if `back`."""
    return count - 1 - i if back else i


@compiled
def multiply(A: Any, first: int, rows: int, K: int, panels: Any, C: Any, add: bool) -> None:
    """C = A W, or C += A W, for the panels of W (K, N) and rows of K elements, from element `first` of A on; C is padded.

    Every second block of so many rows goes through the panels from the last to the first: what the block before has read last
    is still in a near cache. For weights of twice its size and one row that is one and a half times as fast.
    """
    P, n, ldc = panels.shape[0], panels.shape[2], C.shape[1]
    full_rows, back = rows // ROWS * ROWS, first // (rows * K) % 2 == 1
    for j in range(P):
        p = turned(j, P, back)
        for i in range(0, full_rows, ROWS):
            _full(K, at(A, first + i * K), K, 1, at(panels, p * K * n), at(C, i * ldc + p * n), ldc, add)
    a, c = first + full_rows * K, full_rows * ldc
    if rows - full_rows >= 4:
        for j in range(P):
            p = turned(j, P, back)
            _four(K, at(A, a), K, 1, at(panels, p * K * n), at(C, c + p * n), ldc, add)
        a, c = a + 4 * K, c + 4 * ldc
    if rows % 4 >= 2:
        for j in range(P // 2):
            p = 2 * turned(j, P // 2, back)
            _two_by_two(K, at(A, a), K, 1, at(panels, p * K * n), at(C, c + p * n), ldc, add)
        if P % 2:
            _two(K, at(A, a), K, 1, at(panels, (P - 1) * K * n), at(C, c + (P - 1) * n), ldc, add)
        a, c = a + 2 * K, c + 2 * ldc
    if rows % 2:
        for j in range(P // 4):
            p = 4 * turned(j, P // 4, back)
            _one_by_four(K, at(A, a), K, 1, at(panels, p * K * n), at(C, c + p * n), ldc, add)
        for p in range(P // 4 * 4, P):
            _one(K, at(A, a), K, 1, at(panels, p * K * n), at(C, c + p * n), ldc, add)


@compiled
def outer_sum(D: Any, X: Any, first: int, rows: int, C: Any, add: bool) -> None:
    """C = D.T X, or C += D.T X: the sum of the outer products of as many rows of D (K, M) and of X (K, N), from `first` on.

    C (M, N) is padded to whole vectors below and whole panels to the right. Zeros are entered or added there below, and what
    stands there to the right means nothing.
    """
    M, ldc = D.shape[1], C.shape[1]
    lanes, block = VECTOR // X.itemsize, min(rows, BLOCK)
    columns = np.zeros((block, lanes), X.dtype)  # columns of D
    for start in range(0, rows, block):
        depth = min(block, rows - start)
        begin = first + start
        panels = pack(X[begin : begin + depth])
        n = panels.shape[2]
        for m in range(0, M, lanes):
            for k in range(depth):
                if m + lanes <= M:
                    copy(at(D, (begin + k) * M + m), at(columns, k * lanes))
                else:
                    for i in range(lanes):
                        columns[k, i] = D[begin + k, m + i] if m + i < M else 0
            for p in range(panels.shape[0]):
                for i in range(0, min(lanes, M - m), ROWS):
                    c = (m + i) * ldc + p * n
                    _full(depth, at(columns, i), 1, lanes, at(panels, p * depth * n), at(C, c), ldc, add or start > 0)


@compiled
def space(M: int, N: int, like: Any) -> Any:
    """Room for what `outer_sum` makes of M and N columns, all at once or some of M after others."""
    return np.empty((M + VECTOR // like.itemsize, padded(N, like)), like.dtype)


@compiled
def room(C: Any) -> Any:
    """C (M, N) itself where `outer_sum` can make it without touching what is beside it, else `space` for it."""
    M, N = C.shape
    return C if M % ROWS == 0 and N == padded(N, C) else space(M, N, C)


@compiled
def trimmed(C: Any, M: int, N: int) -> Any:
    """What `outer_sum` made, (M, N)."""
    return C[:M] if C.shape[1] == N else C[:M, :N].copy()
