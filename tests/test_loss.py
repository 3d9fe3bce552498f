"""Softmax cross-entropy: its value by hand, its gradient by central differences, its mask by leaving targets out."""

import math

import numpy as np
import pytest

from bptt.nn import loss
from gradcheck import central_differences


def loss_and_gradient(logits, y, mask, count=None):
    mean, cache = loss.forward(logits, y, mask, count)
    return mean, loss.backward(cache)


@pytest.fixture
def arrays(rng):
    mask = np.ones((4, 3))
    mask[2:, 1] = mask[3, 2] = 0.0
    return 2 * rng.normal(size=(4, 3, 5)), rng.integers(0, 5, (4, 3)), mask


def test_the_loss_is_the_mean_over_the_unmasked_targets(lab, arrays):
    logits, y, mask = arrays
    total, count = 0.0, 0
    for t, b in zip(*np.nonzero(mask)):
        p = np.exp(logits[t, b]) / np.exp(logits[t, b]).sum()
        total, count = total - math.log(p[y[t, b]]), count + 1
    assert count == 9
    mean, _ = lab.call(loss_and_gradient, logits, y, mask)
    lab.close(mean, np.asarray(total / count))


def test_nats_gives_the_loss_of_each_target(lab, arrays):
    logits, y, _ = arrays
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    lab.close(lab.call(loss.nats, logits, y), -np.log(np.take_along_axis(p, y[..., None], -1))[..., 0])


def test_the_loss_gradient_equals_central_differences(lab, arrays):
    logits, y, mask = arrays
    expected = central_differences(lambda u: float(loss.forward(u.reshape(4, 3, 5), y, mask)[0]), logits.ravel())
    _, d = lab.call(loss_and_gradient, logits, y, mask)
    lab.close(d, expected.reshape(4, 3, 5), 1e-9 if lab.backend.dtype == "float64" else 1e-4)


def test_a_masked_target_changes_nothing(lab, arrays):
    logits, y, mask = arrays
    other, other_y = logits.copy(), y.copy()
    other[mask == 0], other_y[mask == 0] = 7.0, 0
    lab.close(lab.call(loss_and_gradient, other, other_y, mask), lab.call(loss_and_gradient, logits, y, mask))
    _, d = lab.call(loss_and_gradient, logits, y, mask)
    assert not d[mask == 0].any()
    assert d[mask == 1].any()


def test_large_logits_neither_overflow_nor_vanish(lab):
    logits = np.array([[[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]]])
    mean, d = lab.call(loss_and_gradient, logits, np.array([[0], [0]]), np.ones((2, 1)))
    lab.close(mean, np.asarray(1e4))
    lab.close(d, np.array([[[0.0, 0.0, 0.0]], [[-0.5, 0.5, 0.0]]]))


def test_softmax_subtracts_the_maximum_of_each_row(lab):
    """Were it that of all rows, exp of a row far below the others would vanish, and its loss be infinite."""
    logits = np.array([[[1e4, 0.0, -1e4]], [[-1e4, -1e4, -2e4]], [[0.0, 0.0, -1e4]]])
    mean, d = lab.call(loss_and_gradient, logits, np.array([[0], [1], [1]]), np.ones((3, 1)))
    lab.close(mean, np.asarray(2 * math.log(2) / 3))
    lab.close(d, np.array([[[0.0, 0.0, 0.0]], [[0.5, -0.5, 0.0]], [[0.5, -0.5, 0.0]]]) / 3)


@pytest.mark.parametrize("count", [None, np.asarray(0.0)], ids=["none", "count 0"])
def test_without_targets_loss_and_gradient_are_zero(lab, arrays, count):
    logits, y, mask = arrays
    mean, d = lab.call(loss_and_gradient, logits, y, np.zeros_like(mask), count)
    lab.close(mean, np.asarray(0.0))
    lab.close(d, np.zeros_like(logits))


def test_a_count_gives_the_share_of_all_targets(lab, arrays):
    logits, y, mask = arrays
    mean, cache = loss.forward(logits, y, mask)
    share, d = lab.call(loss_and_gradient, logits, y, mask, np.asarray(36.0))
    lab.close(share, np.asarray(mean / 4))
    lab.close(d, loss.backward(cache) / 4)
