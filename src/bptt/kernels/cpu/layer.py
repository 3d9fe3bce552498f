"""What the kernels of all cells share: what a layer reads, the table of tokens, and the sums of its gradients.

A layer reads tokens, `ids` (T, B), where I is 0, or vectors x (T, B, I). A row of pre-activations is a row of Waa a_{t-1}, plus
one of Wax x_t for vectors, plus one of a table (V, G*H): the columns of Wax (G*H, V) for tokens, with the bias in each, or the
bias alone for vectors.
"""

from typing import NamedTuple

from bptt.kernels.cpu.gemm import BLOCK, clear, fill, is_padded, multiply, outer_sum, pack_transposed, padded, space
from bptt.kernels.cpu.llvm import allocate, compiled, free, minimum, select, steps, when
from bptt.kernels.cpu.simd import load, store, width
from bptt.kernels.cpu.values import Int, Ints, Numbers


class Layer(NamedTuple):
    """What a layer reads, and its weights."""

    Wax: Numbers  # (N, V) for tokens, (N, I) for vectors
    Waa: Numbers  # (N, H)
    b: Numbers  # (N,)
    ids: Ints  # (T, B)
    x: Numbers  # (T, B, I)
    V: Int
    I: Int
    T: Int
    B: Int
    H: Int


@compiled
def table(Wax: Numbers, b: Numbers, rows: Numbers, V: Int, I: Int, N: Int) -> None:
    """Make what is added to each pre-activation (V, N), by token; or one row, (1, N), where the layer reads vectors."""
    with when(I > 0):
        fill(rows, N, b, N, 1, N)
    for i in steps(0, select(I > 0, 0, V)):
        for j in steps(0, N):
            rows[i * N + j] = Wax[j * V + i] + b[j]


def token(layer: Layer, place: Int, N: Int) -> Int:
    """The row of the table that a token adds, as a place; the first one where the layer reads vectors."""
    row = select(layer.I > 0, 0, place)  # vectors have no ids: read the first one of them
    made: Int = select(layer.I > 0, 0, layer.ids[row] * N)
    return made


def packed(layer: Layer, N: Int) -> tuple[Numbers, Numbers, Numbers]:
    """The panels of Waa and of Wax for a product with each, and the table."""
    panels, inputs = allocate(padded(N) * layer.H), allocate(padded(N) * layer.I)
    added = allocate(select(layer.I > 0, 1, layer.V) * N)
    pack_transposed(layer.Waa, layer.H, N, layer.H, panels)
    pack_transposed(layer.Wax, layer.I, N, layer.I, inputs)
    table(layer.Wax, layer.b, added, layer.V, layer.I, N)
    return panels, inputs, added


class Sums(NamedTuple):
    """Where gradients are added up."""

    dx: Numbers  # (T * B, I), padded
    dWaa: Numbers  # (N, H), padded
    dWax: Numbers  # (N, I), padded
    by_token: Numbers  # (V, N) for tokens, (1, N) for vectors: db, by token
    spare: Numbers  # the memory of dWaa, if it is none of the caller's


def sums_of(layer: Layer, N: Int, dWaa: Numbers) -> Sums:
    """Room for the sums; that of dWaa is the array itself, where `outer_sum` touches nothing beside it."""
    tokens, size = select(layer.I > 0, 1, layer.V), (N + width(N)) * padded(layer.H)
    by_token = allocate(tokens * N)
    clear(by_token, tokens * N)
    spare = allocate(select(is_padded(N, layer.H), 0, size))
    sums = select(is_padded(N, layer.H), dWaa, spare)
    return Sums(allocate(layer.T * layer.B * padded(layer.I)), sums, space(N, layer.I), by_token, spare)


def block_of(layer: Layer) -> Int:
    """The steps whose gradients are added at a time."""
    return minimum(layer.T, select(layer.B > BLOCK, 1, BLOCK // layer.B))


def finish(layer: Layer, N: Int, sums: Sums, dx: Numbers, dWax: Numbers, dWaa: Numbers, db: Numbers) -> None:
    """Enter dx (T, B, I), dWax (N, V) or (N, I), dWaa (N, H) and db (N,)."""
    I, V, H = layer.I, layer.V, layer.H
    fill(dWaa, H, sums.dWaa, padded(H), select(is_padded(N, H), 0, N), H)
    fill(dWax, I, sums.dWax, padded(I), select(I > 0, N, 0), I)
    fill(dx, I, sums.dx, padded(I), select(I > 0, layer.T * layer.B, 0), I)
    clear(db, N)
    for i in steps(0, select(I > 0, 1, V)):
        for j in steps(0, N, width(db)):
            store(load(db, j, N - j) + load(sums.by_token, i * N + j, N - j), db, j, N - j)
    for j in steps(0, N):
        for i in steps(0, select(I > 0, 0, V)):
            dWax[j * V + i] = sums.by_token[i * N + j]
    free(sums.dx, sums.dWax, sums.by_token, sums.spare)


@compiled
def gather(
    layer: Layer,
    sums: Sums,
    dz: Numbers,
    dq: Numbers,
    M: Int,
    row: Int,
    t: Int,
    count: Int,
    Wax_panels: Numbers,
    N: Int,
    a: Numbers,
) -> None:
    """Add the gradients of some steps from t on: dz and dq (T, B, M), of some rows of z = Wax x + b and of q = Waa a_{t-1}."""
    T, B, I, H = layer.T, layer.B, layer.I, layer.H
    add, first, rows, ldw, ldx = t + count < T, t * B, count * B, padded(H), padded(I)
    outer_sum(dq + first * M, M, M, a + first * H, H, H, rows, sums.dWaa + row * ldw, ldw, add)
    with when(I > 0):
        outer_sum(dz + first * M, M, M, layer.x + first * I, I, I, rows, sums.dWax + row * ldx, ldx, add)
        multiply(dz + first * M, M, rows, M, Wax_panels, I, sums.dx + first * ldx, ldx, row > 0, t < 0)
    for k in steps(first, first + rows):
        into = sums.by_token + (token(layer, k, N) + row)
        for j in steps(0, M, width(dz)):
            store(load(into, j, M - j) + load(dz, k * M + j, M - j), into, j, M - j)
