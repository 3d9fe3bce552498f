"""W x + b for every step of every sequence: columns of W where x is tokens, one matrix product where it is vectors."""

from bptt.backend import Array, namespace
from bptt.nn.arrays import one_hot, rows


def forward(W: Array, x: Array, b: Array) -> Array:
    """z = W x + b, (T, B, N), for W (N, I), b (N,) and x: token ids (T, B) below I, or vectors (T, B, I)."""
    xp = namespace(W)
    if x.ndim == 2:  # W times a one-hot vector is a column of W
        z = xp.take(W.T, xp.reshape(x, (-1,)), axis=0)
    else:
        z = xp.matmul(rows(x), W.T)
    return xp.reshape(z + b, (x.shape[0], x.shape[1], W.shape[0]))


def backward(W: Array, x: Array, dz: Array) -> tuple[Array | None, Array, Array]:
    """Gradients with respect to x (None for tokens), W and b, given dz (T, B, N)."""
    xp = namespace(W)
    d = rows(dz)
    db = xp.sum(d, axis=0)
    if x.ndim == 2:
        return None, xp.matmul(d.T, one_hot(x, W.shape[1], W)), db
    dx = xp.reshape(xp.matmul(d, W), x.shape)
    return dx, xp.matmul(d.T, rows(x)), db
