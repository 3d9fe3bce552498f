"""Hold the backward pass of a cell against central differences of its forward pass, element by element, in float64."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minimal_gated_unit as cell
from bptt.nn import tree

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from gradcheck import central_differences

T, B, I, H = 4, 3, 5, 2  # all different: no axis can stand in for another


class Inputs(NamedTuple):
    """Everything that there is a gradient of."""

    params: cell.Params
    x: Any  # (T, B, I)
    state: cell.State


rng = np.random.default_rng(0)
params = tree.tree_map(lambda array: array + 0.3 * rng.normal(size=array.shape), cell.init(rng, I, H))  # no bias is zero
state = cell.State(0.5 * rng.normal(size=(B, H)))  # carried over from somewhere, not zero
inputs = Inputs(params, rng.normal(size=(T, B, I)), state)
shapes = tree.tree_map(lambda array: list(array.shape), inputs)
da, dafter = rng.normal(size=(T, B, H)), cell.State(rng.normal(size=(B, H)))


def loss(theta: Any) -> float:
    """A loss whose gradient is da with respect to the states a_1 .. a_T, and dafter with respect to the state after them."""
    a, after, _ = cell.forward(*tree.unravel(theta, shapes))
    return float(np.sum(a * da) + np.sum(after.a * dafter.a))


_, _, cache = cell.forward(*inputs)
dx, dstate, dparams = cell.backward(inputs.params, cache, da, dafter)
differences = tree.unravel(central_differences(loss, tree.ravel(inputs)), shapes)
errors = tree.tree_map(lambda d, e: np.max(np.abs(d - e)), Inputs(dparams, dx, dstate), differences)
for name, error in tree.named_leaves(errors):
    print(f"d{name.rpartition('.')[2]:4} {error:.1e}  {'fine' if error < 1e-8 else 'WRONG'}")
sys.exit(not all(error < 1e-8 for error in tree.leaves(errors)))  # one that is no number is not fine
