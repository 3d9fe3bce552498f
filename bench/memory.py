"""Backpropagation through a million steps, none of them cut off, in memory that hardly grows, for less than 1.6 times the time.

For each cell and number of steps T, loss and gradient of one sequence, once with all states stored (up to T = 100,000) and once
with those of every k-th step, the rest recomputed, in a process of its own:

peak      what the process came to hold, in MB; `before` the call it held Python, NumPy, the compiled kernels, x, y and the mask
stored    what the states and gates of all steps take, by their shapes: what backward needs, without its own working room
time      of the processor, per step: the median of three calls or more
ratio     of that time to the one per step of T = 1000, all stored, which takes turns with it
apart     the largest difference from the gradient with all stored, as a share of its largest element, both in float64

Each segment of k steps costs some 60 microseconds by itself: where sqrt(T) is small, a larger k is faster.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/memory.py [--recompute-every 1000] [--steps 1000 1000000] [--pure]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from machine import report

from bptt import acceleration, system
from bptt.backend import HostArray
from bptt.nn import model, segments, tree
from bptt.nn.cells import CELLS

LARGEST = 100_000  # steps whose states are all stored here
BASE = 1000  # steps that a time is compared with
WORK = 1_000_000  # steps to measure the time of, in three calls at least


def peak() -> int:
    """Bytes that this process has come to hold at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(cell: str, T: int, every: int | str | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak and time of loss and gradient, in this process."""
    rng, V, dtype = np.random.default_rng(0), arguments.vocabulary, np.dtype(arguments.dtype)
    config = model.Config(cell, V, arguments.hidden)
    exact = tree.ravel(model.init(config, rng))
    theta = exact.astype(dtype)
    tokens = rng.integers(0, V, (T + 1, 1))
    x, y, mask = tokens[:-1], tokens[1:], np.ones((T, 1), dtype)

    def gradient(theta: HostArray, T: int, every: Any) -> model.Params:
        inputs = theta, config, x[:T], y[:T], mask[:T].astype(theta.dtype, copy=False)
        params: model.Params = tree.unravel(segments.loss_and_grad(*inputs, recompute_every=every)[1], model.shapes(config))
        return params

    def seconds_a_step(T: int, every: Any, calls: int = 1) -> float:
        began = time.process_time()
        for _ in range(calls):
            gradient(theta, T, every)
        return (time.process_time() - began) / T / calls

    gradient(theta, 20, every)  # what is compiled or loaded at the first call does not count
    before, times, base = system.resident_memory(), list[float](), list[float]()
    while len(times) < 3 or len(times) * T < WORK:
        times.append(seconds_a_step(T, every))
        base.append(seconds_a_step(min(BASE, T), None, min(100, max(1, T // BASE))))
    row = {"before_MB": before / 1e6, "peak_MB": peak() / 1e6, "us_per_step": statistics.median(times) * 1e6}
    row["ratio"] = statistics.median(times) / statistics.median(base)
    if every is not None and T <= LARGEST:
        pairs = zip(*(tree.leaves(gradient(exact, T, k)) for k in (every, None)))
        row["apart"] = max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)
    params = tree.unravel(theta, model.shapes(config))
    _, _, cache = CELLS[cell].forward(params.layers[0], x[:1], model.initial_states(config, params, 1)[0])
    states = tree.tree_map(lambda a: a[-1, ...], tuple(cache)[1:])  # of one step
    row["stored_MB"] = sum(array.nbytes for array in tree.leaves(states)) * T / 1e6
    return {name: float(f"{value:.4g}") for name, value in row.items()}


def number(every: str) -> segments.RecomputeEvery | None:
    return "sqrt" if every == "sqrt" else int(every) or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--steps", nargs="+", type=int, default=[1000, 10_000, 100_000, 1_000_000], metavar="T")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=27)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--recompute-every", default="sqrt", metavar="K", help="a number of steps, or sqrt: the root of T")
    parser.add_argument("--pure", action="store_true", help="without kernels")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # cell, T and K (0: all stored), in this process
    arguments = parser.parse_args()
    system.keep_freed_memory()
    used = "" if arguments.pure else acceleration.enable()
    if arguments.one:
        cell, T, every = arguments.one
        print(json.dumps(measure(cell, int(T), number(every), arguments)))
        return
    print(f"H = {arguments.hidden}, B = 1, {arguments.dtype}, {used or 'no kernels'}")
    print(f"{'cell':8}{'T':>10}{'k':>7}{'before':>9}{'peak':>8}{'stored':>9} MB{'us/step':>9}{'ratio':>7}{'apart':>9}")

    def child(cell: str, T: int, every: str) -> dict[str, Any]:
        command = [sys.executable, *sys.argv, "--one", cell, str(T), str(every)]
        row: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return row

    rows = []
    for cell in arguments.cell:
        child(cell, 20, "0")  # the kernels are compiled now, if they were not before: that takes memory
        for T in arguments.steps:
            for every in ["0", arguments.recompute_every] if T <= LARGEST else [arguments.recompute_every]:
                row, chosen = child(cell, T, every), number(every)
                k = segments.segment_length(chosen, T) if chosen else None
                row["ratio"] = round(row["ratio"], 2)
                print(
                    f"{cell:8}{T:10,}{k or 'all':>7}{row['before_MB']:9.0f}{row['peak_MB']:8.0f}{row['stored_MB']:9.1f} MB"
                    f"{row['us_per_step']:9.2f}{row['ratio']:7.2f}{row.get('apart', ''):>9.1}",
                    flush=True,
                )
                how = {name: vars(arguments)[name] for name in ("hidden", "vocabulary", "dtype")}
                rows.append({"cell": cell, "T": T, "recompute_every": k, **how, "kernels": used, **row})
    print(report(rows))


if __name__ == "__main__":
    main()
