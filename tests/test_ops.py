"""The array functions that the standard lacks."""

import numpy as np
import pytest

from bptt.nn import ops


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_the_spectral_radius_is_the_largest_absolute_eigenvalue(lab, rng, size, scale):
    W = scale * rng.normal(size=(size, size))
    expected = np.abs(np.linalg.eigvals(W)).max()
    assert float(lab.call(ops.spectral_radius, W)) == pytest.approx(expected, rel=0.003)


@pytest.mark.parametrize(
    ("W", "radius"),
    [
        ([[0.0, -3.0], [3.0, 0.0]], 3.0),  # a rotation, whose eigenvalues have no real part
        ([[0.5, 1000.0], [0.0, -0.5]], 0.5),  # it grows by a thousand before it shrinks
        ([[2.0, 1.0], [0.0, 2.0]], 2.0),  # one eigenvector for two eigenvalues
        ([[0.0, 5.0], [0.0, 0.0]], 0.0),
        ([[0.0]], 0.0),
    ],
)
def test_the_spectral_radius_of_difficult_matrices(lab, W, radius):
    found = lab.call(ops.spectral_radius, np.array(W))
    assert float(found) == pytest.approx(radius, rel=0.003, abs=1e-6)
