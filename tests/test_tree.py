"""Parameters to one vector and back."""

import numpy as np
import pytest

from bptt.nn import model, tree


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("initial", ["learned", "zero"])
def test_ravel_and_unravel_round_trip(lab, rng, cell, layers, initial):
    config = model.Config(cell, 5, 3, layers, initial)
    params = tree.tree_map(lambda array: rng.normal(size=array.shape), model.init(config, rng))
    shapes = model.shapes(config)
    assert tree.tree_map(lambda array: list(array.shape), params) == shapes
    vector, back = lab.call(lambda nested: (tree.ravel(nested), tree.unravel(tree.ravel(nested), shapes)), params)
    assert vector.shape == (tree.num_elements(shapes),)
    lab.close(back, params, 1e-12 if lab.backend.dtype == "float64" else 1e-6)


def test_names_of_leaves_are_paths():
    names = [name for name, _ in tree.named_leaves(model.shapes(model.Config("lstm", 5, 3, 2)))]
    assert names == [
        *("layers.0.Wax", "layers.0.Waa", "layers.0.b", "layers.1.Wax", "layers.1.Waa", "layers.1.b"),
        *("initial.0.a", "initial.0.c", "initial.1.a", "initial.1.c", "Wya", "by"),
    ]


def test_ravel_keeps_the_order_of_the_leaves():
    vector = tree.ravel((np.array([[1.0, 2.0], [3.0, 4.0]]), (np.array([5.0]),)))
    np.testing.assert_array_equal(vector, [1, 2, 3, 4, 5])
