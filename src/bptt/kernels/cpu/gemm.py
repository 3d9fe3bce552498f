"""Matrix products that reuse their weights: packed once into panels, with sums in vector registers.

A panel holds two vectors of each row of a matrix (K, N), one row after the other, so that the kernel reads it in order; the
last panel is filled up with zeros. After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008).

A matrix is an address and, as ldc for C, the elements from one of its rows to the next.
"""

from typing import Any

from llvmlite import ir

from bptt.kernels.cpu.llvm import Function, allocate, compiled, free, minimum, select, steps, when
from bptt.kernels.cpu.simd import Lanes, everywhere, load, multiply_add, prefetch, store, width, zeros
from bptt.kernels.cpu.values import INT, Flag, Int, Numbers, Value

BLOCK = 256  # rows that `outer_sum` multiplies at a time: their panels stay in the second cache
AHEAD = 8  # rows of a panel from where it is read to what is fetched: weights beyond the second cache came a quarter sooner


def full_rows(value: Value) -> int:
    """Rows of a block, whose sums fill the registers: 8 x 2 vectors; 12 x 2 ran at half the speed on Zen 4."""
    return 8 if value.code.library.wide else 4


def padded(columns: Int) -> Int:
    """So many columns, rounded up to whole panels."""
    n = 2 * width(columns)
    return (columns + (n - 1)) // n * n


def _block(rows: int, panels: int) -> Function:
    """Return a function for a block of a product, whose sums stay in registers for all K."""
    block = [(i, p, v) for i in range(rows) for p in range(panels) for v in range(2)]

    def multiply_block(K: Int, A: Numbers, row: Int, column: Int, W: Numbers, C: Numbers, ldc: Int, add: Flag) -> None:
        """C (rows, panels * N) = A (rows, K) W or C += A W, for A[i, k] at i * row + k * column and the panels of W."""
        code, n, vector = K.code, width(K), K.code.library.vector
        b = code.b
        firsts = [A + row * i for i in range(rows)]
        streams = [W + K * (2 * n * p) for p in range(panels)]
        outs = [ldc * i + (2 * p + v) * n for i, p, v in block]
        before = b.block
        with b.if_then(add.ir):
            old = [load(C, out).ir for out in outs]
            adding = b.block
        begin = [b.phi(vector) for _ in block]
        for phi, value in zip(begin, old):
            phi.add_incoming(zeros(K).ir, before)
            phi.add_incoming(value, adding)
        entry, loop, done = b.block, b.append_basic_block("multiply"), b.append_basic_block("store")
        b.branch(loop)

        b.position_at_end(loop)
        k, sums = Int(code, b.phi(INT)), [Lanes(code, b.phi(vector)) for _ in block]
        weights = {(p, v): load(streams[p], k * (2 * n) + v * n) for p in range(panels) for v in range(2)}
        for stream in streams:
            for v in range(2):
                prefetch(stream + ((k + AHEAD) * (2 * n) + v * n))
        states = [everywhere(first[k * column]) for first in firsts]
        updated = [multiply_add(states[i], weights[p, v], total) for (i, p, v), total in zip(block, sums)]
        following = k + 1
        for phi, first, last in zip([k, *sums], [INT(0), *begin], [following, *updated]):
            phi.ir.add_incoming(first, entry)
            phi.ir.add_incoming(last.ir, loop)
        b.cbranch((following < K).ir, loop, done)

        b.position_at_end(done)
        for out, total in zip(outs, updated):
            store(total, C, out)

    return Function(multiply_block, f"block_{rows}_{panels}")


_full = {rows: _block(rows, 1) for rows in (4, 8)}
_four, _two, _two_by_two, _one, _one_by_four = (
    _block(rows, panels) for rows, panels in [(4, 1), (2, 1), (2, 2), (1, 1), (1, 4)]
)


@compiled
def fill(C: Numbers, ldc: Int, A: Numbers, lda: Int, M: Int, N: Int) -> None:
    """Copy A (M, N) into C."""
    for i in steps(0, M):
        for j in steps(0, N, width(C)):
            store(load(A, i * lda + j, N - j), C, i * ldc + j, N - j)


@compiled
def clear(C: Numbers, size: Int) -> None:
    """Enter zeros."""
    for i in steps(0, size, width(C)):
        store(zeros(C), C, i, size - i)


@compiled
def pack(W: Numbers, ldw: Int, K: Int, N: Int, panels: Numbers) -> None:
    """Make the panels (ceil(N / width), K, width) of a matrix (K, N)."""
    n = width(W)
    for j in steps(0, padded(N), n):
        into = panels + (j // (2 * n) * K * (2 * n) + j % (2 * n))
        for k in steps(0, K):
            # a vector beyond the matrix is read from its begin, and none of it
            store(load(W, k * ldw + minimum(j, N), N - j), into, k * (2 * n))


def _transposed(rows: list[Lanes]) -> list[Lanes]:
    """Transpose as many vectors as one has numbers: each round is a perfect shuffle of all elements."""
    code, n = rows[0].code, len(rows)
    order = [place for pair in zip(range(n), range(n, 2 * n)) for place in pair]  # one from each of two vectors in turn
    low, high = (ir.Constant(ir.VectorType(ir.IntType(32), n), half) for half in (order[:n], order[n:]))
    values = [row.ir for row in rows]
    for _ in range(n.bit_length() - 1):
        pairs = [(values[i], values[i + n // 2]) for i in range(n // 2)]
        values = [code.b.shuffle_vector(*pair, half) for pair in pairs for half in (low, high)]
    return [Lanes(code, value) for value in values]


@compiled
def pack_transposed(W: Numbers, ldw: Int, N: Int, K: Int, panels: Numbers) -> None:
    """Make the panels (ceil(N / width), K, width) of W.T (K, N), given W (N, K)."""
    n = width(W)
    for j in steps(0, padded(N), n):
        into = panels + (j // (2 * n) * K * (2 * n) + j % (2 * n))
        square = select(j + n <= N, K // n * n, 0)  # the part of these rows that vectors can transpose
        for k in steps(0, square, n):
            for i, row in enumerate(_transposed([load(W, (j + i) * ldw + k) for i in range(n)])):
                store(row, into, (k + i) * (2 * n))
        for k in steps(square, K):
            store(zeros(W), into, k * (2 * n))
            for column in steps(0, minimum(select(j < N, N - j, 0), n)):
                into[k * (2 * n) + column] = W[(j + column) * ldw + k]


@compiled
def multiply(
    A: Numbers, lda: Int, rows: Int, K: Int, panels: Numbers, N: Int, C: Numbers, ldc: Int, add: Flag, back: Flag
) -> None:
    """C = A W, or C += A W, for the panels of W (K, N); C is padded to whole panels.

    With `back`, the panels are read from the last to the first. What the block of rows before has read last is still in a near
    cache then: for weights of twice its size and one row that is one and a half times as fast.
    """
    n, ROWS = 2 * width(A), full_rows(A)
    P = padded(N) // n

    def turned(j: Int, count: Int) -> Any:
        return select(back, count - j - 1, j)

    def remaining(a: Numbers, c: Numbers, blocks: list[tuple[Int, Int, int, Function]]) -> None:
        for begin, count, together, block in blocks:
            for j in steps(0, count):
                p = begin + turned(j, count) * together
                block(K, a, lda, 1, panels + p * K * n, c + p * n, ldc, add)

    full = rows // ROWS * ROWS
    for j in steps(0, P):
        p = turned(j, P)
        for i in steps(0, full, ROWS):
            _full[ROWS](K, A + i * lda, lda, 1, panels + p * K * n, C + (i * ldc + p * n), ldc, add)
    a, c, left, none = A + full * lda, C + full * ldc, rows - full, P * 0
    if ROWS > 4:
        with when(left >= 4):
            remaining(a, c, [(none, P, 1, _four)])
    done = left // 4 * 4
    a, c = a + done * lda, c + done * ldc
    with when(left % 4 >= 2):
        remaining(a, c, [(none, P // 2, 2, _two_by_two), (P // 2 * 2, P % 2, 1, _two)])
    done = left % 4 // 2 * 2
    a, c = a + done * lda, c + done * ldc
    with when((left % 2).is_(1)):
        remaining(a, c, [(none, P // 4, 4, _one_by_four), (P // 4 * 4, P % 4, 1, _one)])


@compiled
def outer_sum(D: Numbers, ldd: Int, M: Int, X: Numbers, ldx: Int, N: Int, rows: Int, C: Numbers, ldc: Int, add: Flag) -> None:
    """C = D.T X, or C += D.T X: the sum of the outer products of the rows of D (rows, M) and of X (rows, N).

    C (M, N) is padded to whole blocks of rows below and whole panels to the right. Zeros are entered or added there below, and
    what stands there to the right means nothing.
    """
    n, ROWS = width(X), full_rows(X)
    depth = minimum(rows, BLOCK)
    columns, panels = allocate(depth * n), allocate(padded(N) * depth)  # of D, of X
    for start in steps(0, rows, BLOCK):
        count = minimum(rows - start, BLOCK)
        pack(X + start * ldx, ldx, count, N, panels)
        more = add | (start > 0)
        for m in steps(0, M, n):
            for k in steps(0, count):
                store(load(D, (start + k) * ldd + m, M - m), columns, k * n)
            for p in steps(0, padded(N) // (2 * n)):
                for i in steps(0, minimum(M - m, n), ROWS):
                    into = C + ((m + i) * ldc + p * (2 * n))
                    _full[ROWS](count, columns + i, 1, n, panels + p * count * (2 * n), into, ldc, more)
    free(columns, panels)


def is_padded(M: Int, N: Int) -> Flag:
    """Whether `outer_sum` can make a matrix (M, N) without touching what is beside it."""
    return (M % full_rows(M) + N % (2 * width(N))).is_(0)


def space(M: Int, N: Int) -> Numbers:
    """Room for what `outer_sum` makes of M and N columns, all at once or some of M after others."""
    return allocate((M + width(M)) * padded(N))
