"""How many operations on arrays a training step asks a library for: on a GPU each takes the host some time, whatever its size.

One layer, loss and gradient alone and with norm clip and Adam, counted on array-api-strict: calls of the namespace's functions,
but for those that only look at an array in another way, and operators (+, *, @ and so on). No kernel takes part.

    python bench/operations.py [--steps 32]
"""

import argparse
import functools
from typing import Any

import numpy as np
from machine import report

from bptt import backend as backends
from bptt.errors import InputError
from bptt.nn import gradient, model, optimizers, tree
from bptt.nn.cells import CELLS

ARITHMETIC = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow", "matmul", "neg")
LOGIC = ("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "invert")
VIEWS = ("reshape", "broadcast_to", "asarray", "isdtype", "result_type")
counts = {"functions": 0, "operators": 0}


def counting(function: Any, kind: str) -> Any:
    """The function, which counts its calls."""

    @functools.wraps(function)
    def counted(*arguments: Any, **keywords: Any) -> Any:
        counts[kind] += 1
        return function(*arguments, **keywords)

    return counted


def watch(xp: Any) -> None:
    """Count from now on what is asked of array-api-strict."""
    array = type(xp.asarray(0.0))
    for name in ARITHMETIC + LOGIC:
        setattr(array, f"__{name}__", counting(getattr(array, f"__{name}__"), "operators"))
    for name in xp.__all__:
        function = getattr(xp, name)
        if hasattr(function, "__code__") and name not in VIEWS:
            setattr(xp, name, counting(function, "functions"))


def operations(cell: str, steps: int) -> dict[str, int]:
    """Those of a gradient and of a whole training step, of each kind."""
    where, rng = backends.select("strict"), np.random.default_rng(0)
    config = model.Config(cell, 27, 8)
    theta = tree.ravel(tree.tree_map(where.put, model.init(config, rng)))
    x, y = (where.put(ids) for ids in rng.integers(0, 27, (2, steps, 4)))
    mask, memory = where.put(np.ones((steps, 4))), optimizers.init_adam(theta)
    counts.update(functions=0, operators=0)
    _, d, _ = gradient.loss_and_grad(theta, config, x, y, mask, None, (), None)
    operation_counts = {f"gradient_{kind}": count for kind, count in counts.items()}
    d, _ = optimizers.clip_by_norm(d, 1.0)
    optimizers.adam(theta, d, memory, 1e-3)
    return {**operation_counts, **{f"step_{kind}": count for kind, count in counts.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=32, metavar="T", help="time steps of a batch")
    T = parser.parse_args().steps
    try:
        watch(backends.select("strict", require=True).xp)
    except InputError as error:
        raise SystemExit(str(error)) from None
    rows: list[dict[str, Any]] = []
    print(f"{'cell':8}{'':12}{'gradient':>10}{'whole step':>12}{'for each step of time':>23}   (T = {T})")
    for cell in CELLS:
        operation_counts, longer = operations(cell, T), operations(cell, T + 1)
        for kind in counts:
            alone, step_count = operation_counts[f"gradient_{kind}"], operation_counts[f"step_{kind}"]
            each = longer[f"gradient_{kind}"] - alone
            rows.append({"cell": cell, "steps": T, "kind": kind, "gradient": alone, "step": step_count, "each": each})
            print(f"{cell:8}{kind:12}{alone:10}{step_count:12}{each:23}")
    print(report(rows, "array_api_strict"))


if __name__ == "__main__":
    main()
