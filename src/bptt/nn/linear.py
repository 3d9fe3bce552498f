"""W x + b for every step of every sequence: columns of W where x is tokens, one matrix product where it is vectors."""

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated
from bptt.nn.ops import bias_grad, flatten_time, one_hot, outer_sum


def forward(W: Array, x: Array, b: Array) -> Array:
    """z = W x + b, (T, B, N), for W (N, I), b (N,) and x: token ids (T, B) below I, or vectors (T, B, I)."""
    return affine(W, x, b) if x.ndim == 3 else embedded(W, x, b)


def backward(W: Array, x: Array, dz: Array) -> tuple[Array | None, Array, Array]:
    """Gradients with respect to x (None for tokens), W and b, given dz (T, B, N)."""
    if x.ndim == 3:
        return affine_backward(W, x, dz)
    dW = outer_sum(dz, one_hot(x, W.shape[1], W))
    return None, dW, namespace(W).sum(dW, axis=1)  # every step is in one column of dW: a shorter sum than that of dz


@accelerated
def embedded(W: Array, x: Array, b: Array) -> Array:
    """W x + b (T, B, N) for tokens x (T, B), an embedding lookup: W times a one-hot vector is a column of W (N, I)."""
    xp = namespace(W)
    return xp.reshape(xp.take(W.T, xp.reshape(x, (-1,)), axis=0) + b, (x.shape[0], x.shape[1], W.shape[0]))


@accelerated
def affine(W: Array, x: Array, b: Array) -> Array:
    """W x + b (T, B, N) for vectors x (T, B, I), W (N, I) and b (N,)."""
    xp = namespace(W)
    return xp.reshape(xp.matmul(flatten_time(x), W.T) + b, (x.shape[0], x.shape[1], W.shape[0]))


@accelerated
def affine_backward(W: Array, x: Array, dz: Array) -> tuple[Array, Array, Array]:
    """Gradients with respect to x, W and b for vectors x (T, B, I), given dz (T, B, N)."""
    xp = namespace(W)
    dx = xp.reshape(xp.matmul(flatten_time(dz), W), x.shape)
    return dx, outer_sum(dz, x), bias_grad(dz)
