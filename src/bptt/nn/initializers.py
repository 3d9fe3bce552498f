"""Initial weights: host arrays in float64, drawn from a `numpy.random.Generator` that the caller passes."""

from typing import Any, Literal

from bptt.backend import Array, namespace

Kind = Literal["uniform", "orthogonal", "identity"]


def uniform(rng: Any, shape: tuple[int, ...], hidden: int) -> Array:
    """Uniform between ±1/sqrt(H)."""
    return rng.uniform(-(hidden**-0.5), hidden**-0.5, shape)


def recurrent(rng: Any, gates: int, hidden: int, kind: Kind) -> Array:
    """Waa (gates*H, H), one block (H, H) per gate.

    `uniform` is ±1/sqrt(H); `orthogonal` a random orthogonal matrix (Saxe et al. 2014, arXiv 1312.6120); `identity` that of
    Le et al. 2015 (arXiv 1504.00941).
    """
    if kind == "uniform":
        return uniform(rng, (gates * hidden, hidden), hidden)
    blocks = [orthogonal(rng, hidden) for _ in range(gates)]
    xp = namespace(blocks[0])
    if kind == "identity":
        blocks = [xp.eye(hidden, dtype=blocks[0].dtype)] * gates
    return xp.concat(blocks)


def orthogonal(rng: Any, hidden: int) -> Array:
    """An orthogonal matrix (H, H), a rotation or a reflection, uniform over all of them.

    Q of a normal matrix with the signs of R's diagonal (Mezzadri 2007, arXiv math-ph/0609050).
    """
    normal = rng.standard_normal((hidden, hidden))
    xp = namespace(normal)
    Q, R = xp.linalg.qr(normal)
    return Q * xp.sign(xp.linalg.diagonal(R))
