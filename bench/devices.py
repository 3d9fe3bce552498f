"""The same training step, by the same functions, on every array library and device that is usable here.

A step is forward, loss, backward, norm clip and Adam on a batch of random tokens; a time is the median over the repeats, the
device waited for before the clock is read. The losses of all backends must agree before a time is printed.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/devices.py [--hidden 64 256] [--plot devices.svg]
"""

import argparse
import itertools
import statistics
import time
from typing import Any

import contenders
import numpy as np
from machine import report

from bptt import backend as backends
from bptt.errors import InputError
from bptt.nn import model

STEPS, VOCABULARY = 32, 27
LIBRARIES = ["numpy", "cupy", "torch", "jax"]


def usable(named: list[str] | None) -> list[backends.Backend]:
    """The backends that are named, which must be there, or all that are there."""
    found = []
    for name in named or LIBRARIES:
        try:
            found.append(backends.select(name, "float32", require=True))
        except InputError as error:
            if named:
                raise SystemExit(str(error)) from None
            print(f"left out: {error}")
    return found


def device_name(where: backends.Backend) -> str:
    """What a backend runs on."""
    if where.name == "cupy":
        import cupy

        return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())
    return "cpu"


def prepare(where: backends.Backend, config: model.Config, batch: int) -> Any:
    """A function that makes one training step, waits for the device and returns the loss before the update."""
    rng = np.random.default_rng(0)
    params = model.init(config, rng)
    x, y = rng.integers(0, VOCABULARY, (2, STEPS, batch))
    return contenders.ours(config, params, x, y, where).step


def measure(steps: list[Any], repeats: int) -> list[float]:
    """Microseconds of each step, median over the repeats; the steps take turns, so that a noisy moment hits all of them."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for step, own in zip(steps, times):
            began = time.perf_counter()
            step()
            own.append(time.perf_counter() - began)
    return [statistics.median(own) * 1e6 for own in times]


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """One panel a cell, one line a backend: the time of a step over hidden units, both axes logarithmic."""
    from matplotlib.figure import Figure

    cells = list(dict.fromkeys(row["cell"] for row in rows))
    sizes = sorted({row["hidden"] for row in rows})
    figure = Figure(figsize=(3.6 * len(cells), 3.6), layout="constrained")
    for cell, axes in zip(cells, figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]):
        for key in dict.fromkeys((row["backend"], row["device"]) for row in rows):
            line = [row for row in rows if row["cell"] == cell and (row["backend"], row["device"]) == key]
            axes.loglog([row["hidden"] for row in line], [row["us"] for row in line], marker="o", label=" on ".join(key))
        axes.set_xticks(sizes, map(str, sizes))
        axes.set_xticks([], minor=True)
        axes.set(title=cell, xlabel="hidden units")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("µs per training step")
    figure.axes[0].legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=LIBRARIES, help="those that must be there; by default all that are")
    parser.add_argument("--cell", nargs="+", default=["vanilla", "gru", "lstm"], choices=list(model.CELLS))
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--batch", nargs="+", type=int, default=[32])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--plot", metavar="FILE", help="draw the times, after the last line is printed (needs matplotlib)")
    arguments = parser.parse_args()
    where = usable(arguments.backend)
    rows = []
    print(f"{'cell':8} {'H':>4} {'B':>4}  " + "  ".join(f"{b.name:>10}" for b in where) + "   µs per step")
    for cell, hidden, batch in itertools.product(arguments.cell, arguments.hidden, arguments.batch):
        config = model.Config(cell, VOCABULARY, hidden)
        steps = [prepare(backend, config, batch) for backend in where]
        losses = [[step() for _ in range(3)] for step in steps]  # the warm-up, too
        np.testing.assert_allclose(losses, np.broadcast_to(losses[0], np.shape(losses)), rtol=1e-4)
        times = measure(steps, arguments.repeats)
        print(f"{cell:8} {hidden:4} {batch:4}  " + "  ".join(f"{us:10.0f}" for us in times), flush=True)
        for backend, us in zip(where, times):
            size = {"cell": cell, "hidden": hidden, "batch": batch, "steps": STEPS, "vocabulary": VOCABULARY}
            rows.append({"backend": backend.name, "device": device_name(backend), **size, "us": round(us, 1)})
    print(report(rows, *(backend.name for backend in where)))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
