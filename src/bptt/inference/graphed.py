"""A function of arrays that is recorded on a device and repeated from there on, whatever arrays it is given."""

import contextlib
from collections.abc import Callable
from typing import Any

from bptt.backend import Array, namespace
from bptt.errors import CaptureError
from bptt.nn import tree

Action = Callable[[], None]


def replayed(function: Callable[..., Any], record: Callable[[Action], Action]) -> Callable[..., Any]:
    """A function of trees of arrays that gives a tree; for each shape it is called the first time, and recorded the second.

    `record` makes of an action, done once before, one that repeats it. What cannot be recorded is called each time.
    """
    seen: set[Any] = set()
    known: dict[Any, tuple[Any, Any, Action]] = {}  # by the shapes: the trees that an action reads and writes, and the action

    def call(*trees: Any) -> Any:
        shapes = tuple(array.shape for array in tree.flat(trees))
        if shapes not in seen:
            seen.add(shapes)
            return function(*trees)
        if shapes not in known:
            given = _copy(trees)
            found = _copy(function(*given))

            def action() -> None:
                _fill(found, function(*given))

            action()
            known[shapes] = given, found, action
            with contextlib.suppress(CaptureError):  # it is called as it is, then
                known[shapes] = given, found, record(action)
        given, found, action = known[shapes]
        _fill(given, trees)
        action()
        return _copy(found)

    return call


def _copy(nested: Any) -> Any:
    return tree.transform(lambda array: namespace(array).asarray(array, copy=True), nested)


def _fill(to: Any, nested: Any) -> None:
    """Write the arrays of one tree into those of another."""
    one: Array
    for one, other in zip(tree.flat(to), tree.flat(nested)):
        one[...] = other
