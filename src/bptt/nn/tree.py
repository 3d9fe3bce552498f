"""Parameters as one flat vector and back, with their names: for clipping, the optimizer, all-reduce and checkpoints."""

import math
from collections.abc import Callable
from typing import Any

from bptt.backend import Array, namespace
from bptt.dispatch import accelerated


def named_leaves(tree: Any, name: str = "") -> list[tuple[str, Array]]:
    """Every array of nested tuples with its dotted name, in their order: `layers.0.Waa`."""
    if not isinstance(tree, tuple):
        return [(name, tree)]
    keys = getattr(tree, "_fields", range(len(tree)))
    return [leaf for key, branch in zip(keys, tree) for leaf in named_leaves(branch, f"{name}.{key}" if name else str(key))]


def leaves(tree: Any) -> list[Array]:
    """Every array of nested tuples, in their order."""
    if not isinstance(tree, tuple):
        return [tree]
    return [array for branch in tree for array in leaves(branch)]


def unflatten(tree: Any, arrays: Any) -> Any:
    """A tree of the same build whose arrays are the next ones of the iterator `arrays`."""
    if not isinstance(tree, tuple):
        return next(arrays)
    branches = [unflatten(branch, arrays) for branch in tree]
    return tree._make(branches) if hasattr(tree, "_make") else tuple(branches)


def tree_map(function: Callable[..., Array], *trees: Any) -> Any:
    """The tree with `function` applied to every array; or several of the same build, to the arrays in the same place."""
    return unflatten(trees[0], map(function, *map(leaves, trees)))


def ravel(tree: Any) -> Array:
    """All arrays of a tree as one vector (P,)."""
    return concatenate(*leaves(tree))


@accelerated
def concatenate(*arrays: Array) -> Array:
    """The elements of all arrays in a row."""
    xp = namespace(arrays[0])
    return xp.concat([xp.reshape(array, (-1,)) for array in arrays])


def unravel(vector: Array, shapes: Any) -> Any:
    """The tree whose arrays are slices of the vector (P,), given the tree of their shapes (lists)."""
    xp, start, arrays = namespace(vector), 0, []
    for shape in leaves(shapes):
        stop = start + math.prod(shape)
        elements = vector[start:stop]
        arrays.append(xp.reshape(elements, tuple(shape)) if len(shape) > 1 else elements)
        start = stop
    return unflatten(shapes, iter(arrays))


def num_elements(shapes: Any) -> int:
    """The number of elements of all arrays, given the tree of their shapes (lists)."""
    return sum(math.prod(shape) for shape in leaves(shapes))
