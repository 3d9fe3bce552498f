"""JAX as a witness: `jax.grad` through our forward gives what our backward gives, eager and compiled."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed: nox -s jax runs these")

from bptt.backend import select  # noqa: E402
from bptt.nn import loss, model, tree  # noqa: E402

T, B, V, H = 5, 3, 7, 4


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_jax_grad_through_forward_equals_backward(cell, layers, compiled):
    rng = np.random.default_rng(1)
    config = model.Config(cell, V, H, layers)
    put = select("jax", "float64").put
    params = tree.tree_map(lambda a: put(a + 0.3 * rng.normal(size=a.shape)), model.init(config, rng))
    x, y, mask = put(rng.integers(0, V, (T, B))), put(rng.integers(0, V, (T, B))), put((rng.random((T, B)) < 0.8).astype(float))
    keep = tree.tree_map(put, model.dropout_masks(config, rng, 0.3, B))

    def mean(params):
        return loss.forward(model.forward(config, params, x, None, keep)[0], y, mask)[0]

    def ours(params):
        return model.loss_and_grad(config, params, x, y, mask, None, keep)[1]

    wrap = jax.jit if compiled else lambda function: function
    expected, gradient = wrap(jax.grad(mean))(params), wrap(ours)(params)
    for (name, d), (_, e) in zip(tree.named_leaves(gradient), tree.named_leaves(expected)):
        np.testing.assert_allclose(np.asarray(d), np.asarray(e), rtol=0, atol=1e-12, err_msg=name)
