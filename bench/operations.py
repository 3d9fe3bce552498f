"""How many operations on arrays a training step asks a library for: on a GPU each takes the host some time, whatever its size.

One layer, loss and gradient alone and with norm clip and Adam, counted on array-api-strict: operators and calls of functions,
but for those that only look at an array in another way. No compiled twin takes part.

    python bench/operations.py [--steps 32]
"""

import argparse
import functools
from typing import Any

import numpy as np
from machine import report

from bptt import backend as backends
from bptt.nn import gradient, model, optimizers, packing

ARITHMETIC = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow", "matmul", "neg")
LOGIC = ("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "invert")
VIEWS = ("reshape", "broadcast_to", "asarray", "isdtype", "result_type")
count = 0


def counting(function: Any) -> Any:
    """The function, which counts its calls."""

    @functools.wraps(function)
    def counted(*arguments: Any, **keywords: Any) -> Any:
        global count
        count += 1
        return function(*arguments, **keywords)

    return counted


def watch(xp: Any) -> None:
    """Count from now on what is asked of array-api-strict."""
    array = type(xp.asarray(0.0))
    for name in ARITHMETIC + LOGIC:
        setattr(array, f"__{name}__", counting(getattr(array, f"__{name}__")))
    for name in xp.__all__:
        function = getattr(xp, name)
        if hasattr(function, "__code__") and name not in VIEWS:
            setattr(xp, name, counting(function))


def operations(cell: model.Cell, steps: int) -> dict[str, int]:
    """Those of a step."""
    global count
    where, rng = backends.select("strict"), np.random.default_rng(0)
    config = model.Config(cell, 27, 8)
    theta = packing.pack(packing.transform(where.put, model.init(config, rng)))
    x, y = (where.put(ids) for ids in rng.integers(0, 27, (2, steps, 4)))
    mask, memory = where.put(np.ones((steps, 4))), optimizers.start(theta)
    count = 0
    _, d, _ = gradient.whole(theta, config, x, y, mask, None, (), None)
    found = {"gradient": count}
    d, _ = optimizers.clip_by_norm(d, 1.0)
    optimizers.adam(theta, d, memory, 1e-3)
    return {**found, "step": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=32)
    T = parser.parse_args().steps
    watch(backends.select("strict").xp)
    rows: list[dict[str, Any]] = []
    print(f"{'cell':8}{'gradient':>10}{'of them in a step of time':>28}{'whole step':>12}   (T = {T})")
    for cell in model.CELLS:
        found, longer = operations(cell, T), operations(cell, T + 1)
        each = longer["gradient"] - found["gradient"]
        rows.append({"cell": cell, "steps": T, **found, "each": each})
        print(f"{cell:8}{found['gradient']:10}{each:28}{found['step']:12}")
    print(report(rows, "array_api_strict"))


if __name__ == "__main__":
    main()
