"""What a second core is worth: the time of a training step by one thread and by two, of the same sums, bit for bit.

The step is the trainer's, on the built-in stream of text: loss, gradient, norm clip, Adam. The two take turns; a time is the
median. Small steps are not dealt out: they take the same time.

    env OMP_NUM_THREADS=2 python bench/cores.py [--cell gru --hidden 512 --batch 64]
"""

import argparse
import itertools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from machine import report
from threadpoolctl import threadpool_limits

from bptt import system
from bptt.config.settings import from_flags
from bptt.data.dataset import epochs
from bptt.train_step import threads, update
from bptt.training import setup

STEPS = 32


def row(cell: str, hidden: int, batch: int, repeats: int, cores: int) -> dict[str, Any]:
    """Milliseconds of a step by one thread and by many."""
    flags = {"cell": cell, "hidden": hidden, "batch": batch, "length": STEPS, "backend": "numpy", "validation": 0.0}
    task, _, now = setup.from_scratch("python-help", from_flags(flags))
    windows = epochs(task.data, batch, STEPS, 0)
    state = now.state
    times: dict[int, list[float]] = {1: [], cores: []}
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores) as pool:
        for count in (1, cores) * (repeats + 1):
            position, window = next(windows)
            began = time.perf_counter()
            state, _ = update.update(task, state, window, position, None if count == 1 else pool)
            times[count].append(1e3 * (time.perf_counter() - began))
    one_core, all_cores = (statistics.median(times[count][1:]) for count in (1, cores))
    parts = len(threads.split_columns(task.config, np.full(batch, STEPS)))
    size = {"cell": cell, "hidden": hidden, "batch": batch, "steps": STEPS}
    return {**size, "parts": parts, "one_ms": one_core, "many_ms": all_cores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs="+", default=["vanilla", "gru", "lstm"])
    parser.add_argument("--hidden", nargs="+", type=int, default=[50, 128, 256, 512])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32, 64])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    system.keep_freed_memory()
    cores = threads.workers()
    if cores == 1:
        print("nothing to compare: there is one core, or one thread is allowed (OMP_NUM_THREADS, taskset)")
        return
    rows = []
    print(f"{'cell':8}{'H':>4}{'B':>4}{'parts':>6}{'one':>10}{f'{cores} threads':>12}{'ratio':>7}   (ms)")
    for cell, hidden, batch in itertools.product(arguments.cell, arguments.hidden, arguments.batch):
        rows.append(row(cell, hidden, batch, arguments.repeats, cores))
        one_core, all_cores = rows[-1]["one_ms"], rows[-1]["many_ms"]
        print(
            f"{cell:8}{hidden:4}{batch:4}{rows[-1]['parts']:6}{one_core:10.2f}{all_cores:12.2f}{one_core / all_cores:7.2f}",
            flush=True,
        )
    print(report(rows))


if __name__ == "__main__":
    main()
