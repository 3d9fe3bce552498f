"""What more processes are worth: characters per second of `mpiexec -n N bptt train`, each process with one core.

The efficiency is the speed over N times that of one process. Beside it is that of N processes which train N models, each with
as many columns as it has otherwise: what is lost there is lost by narrow batches and by cores that share a memory, not between
processes. The share of the sums is the time that N processes take to add up vectors as long as a gradient, over that of an
update. Times are those of metrics.jsonl, from a third of the run on; all take turns, and the median of several runs of each
counts.

    python bench/parallel.py [--ranks 1 2] [--hidden 128 512 1024]
    python bench/parallel.py --predict bench/results/parallel.json

The second one computes from such a result what as many more machines would do, each with one process and a batch of the same
width; docs/explanation/scaling.md says how, and what it leaves out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import report

from bptt import backend
from bptt.distributed import allreduce, process_group
from bptt.nn import model, tree
from bptt.nn.cells import CELLS

BATCH, LENGTH, SYMBOLS = 64, 64, 100  # of a run; its text has about so many symbols
NETWORKS = {"10 Gbit/s, 30 µs": (1.1e9, 30e-6), "100 Gbit/s, 3 µs": (11e9, 3e-6)}  # bytes a second and seconds a message
HERE = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{HERE}{os.pathsep}{os.environ['PATH']}"}


def launched(*commands: list[str]) -> str:
    """What commands print that mpiexec starts together."""
    words = ["mpiexec", *commands[0], *(word for command in commands[1:] for word in (":", *command))]
    return subprocess.run(words, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout


def trained(count: int, hidden: int, steps: int, cell: str, *, apart: bool = False) -> tuple[float, float]:
    """Characters per second of all, and seconds of an update; `apart`: of so many models, each with its share of a batch."""
    batch = BATCH // count if apart else BATCH
    size = ["--hidden", str(hidden), "--batch", str(batch), "--length", str(LENGTH), "--steps", str(steps), "--cell", cell]
    quick = ["--dropout", "0", "--evaluate-every", str(steps), "--backend", "numpy", "--seed", "1", "--quiet"]
    command = [sys.executable, "-m", "bptt", "train", "python-help", *size, *quick]
    with tempfile.TemporaryDirectory() as folder:
        if apart:
            each = [["-n", "1", *command, "--distributed=false", "--out", f"{folder}/{number}"] for number in range(count)]
            launched(*each)
        else:
            launched(["-n", str(count), *command, "--out", f"{folder}/0"])
        runs = [path.read_text("utf-8").splitlines() for path in Path(folder).glob("*/metrics.jsonl")]
    speed = seconds = 0.0
    for rows in ([json.loads(line) for line in lines] for lines in runs):
        first, last = rows[len(rows) // 3], rows[-2]  # the last one is measured on what is held out
        seconds = last["seconds"] - first["seconds"]
        speed += (last["characters"] - first["characters"]) / seconds
    return speed, seconds / (last["step"] - first["step"])


def sums(count: int) -> None:
    """Print the seconds that one sum of vectors takes, as one of the processes."""
    group = process_group.init_process_group(distributed=True)
    if not isinstance(group, process_group.MPIGroup):
        raise SystemExit("a sum takes several processes: start them with mpiexec")
    all_reduce, vector, times = allreduce.connect_mpi(group, backend.select("numpy"), count), np.ones(count, np.float32), []
    for _ in range(50):
        group.communicator.Barrier()
        began = time.perf_counter()
        all_reduce([vector], list(range(group.size)))
        times.append(time.perf_counter() - began)
    if group.rank == 0:
        print(statistics.median(times))


def length(cell: Any, hidden: int) -> int:
    """How many numbers are added up: the gradient and the loss."""
    return 1 + tree.num_elements(model.shapes(model.Config(cell, SYMBOLS, hidden)))


def predict(rows: list[dict[str, Any]]) -> None:
    """Print the efficiency that a model of the time of what is exchanged gives for 8 and 64 machines.

    A sum of n bytes takes 2 (N-1) messages, and each process sends 2 (N-1)/N n bytes. To the network's time for these comes
    what two processes of one machine were measured to need for the same bytes of a sum, which is copying and adding.
    """
    print(f"{'H':>5}{'bytes':>12}{'update':>10}{'network':>18}{'machines':>10}{'sums':>10}{'efficiency':>12}")
    by = {(row["hidden"], row["ranks"]): row for row in rows}
    for one, two in [(by[hidden, 1], by[hidden, 2]) for hidden, count in by if count == 1]:
        update = BATCH * LENGTH / one["characters_per_second"]
        gradient = 4 * length(one["cell"], one["hidden"])
        seconds = two["share_of_sums"] * BATCH * LENGTH / two["characters_per_second"]  # of the sums of two processes
        seconds_per_byte = seconds / gradient  # each process sends 2 (2 - 1) / 2 = 1 gradient
        for name, (speed, latency) in NETWORKS.items():
            for machines in (8, 64):
                sent = 2 * (machines - 1) / machines * gradient
                seconds = 2 * (machines - 1) * latency + sent * (seconds_per_byte + 1 / speed)
                print(
                    f"{one['hidden']:5}{gradient:12,}{1e3 * update:7.0f} ms{name:>18}{machines:10}{1e3 * seconds:7.1f} ms"
                    f"{update / (update + seconds):12.2f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ranks", nargs="+", type=int, default=[1, 2], help="numbers of processes, the first one to compare with"
    )
    parser.add_argument("--hidden", nargs="+", type=int, default=[128, 512, 1024])
    parser.add_argument("--cell", default="gru", choices=list(CELLS))
    parser.add_argument("--steps", type=int, help="updates of a run; by default as many as take some seconds")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--predict", metavar="RESULT", help="what this result says of 8 and 64 machines; nothing is measured")
    parser.add_argument("--sum", type=int, metavar="LENGTH", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.predict:
        predict(json.loads(Path(arguments.predict).read_text("utf-8"))["rows"])
        return
    if arguments.sum:
        sums(arguments.sum)
        return
    rows: list[dict[str, Any]] = []
    print(f"{'H':>5}{'processes':>11}{'characters/s':>14}{'efficiency':>12}{'apart':>8}{'share of sums':>15}")
    for hidden in arguments.hidden:
        steps = arguments.steps or max(40, 15_000 // hidden)
        ways = [(count, apart) for count in arguments.ranks for apart in (False, True) if count > 1 or not apart]
        runs = [
            [trained(count, hidden, steps, arguments.cell, apart=apart) for count, apart in ways]
            for _ in range(arguments.repeats)
        ]
        medians = {way: [statistics.median(numbers) for numbers in zip(*those)] for way, those in zip(ways, zip(*runs))}
        alone = medians[ways[0]][0] / ways[0][0]
        for count in arguments.ranks:
            speed, update = medians[count, False]
            adding = ["-n", str(count), sys.executable, __file__, "--sum", str(length(arguments.cell, hidden))]
            share = float(launched(adding)) / update if count > 1 else 0.0
            most = medians.get((count, True), medians[count, False])[0]
            row = {"cell": arguments.cell, "hidden": hidden, "ranks": count, "characters_per_second": round(speed)}
            ratios = {"efficiency": round(speed / count / alone, 3), "efficiency_apart": round(most / count / alone, 3)}
            rows.append({**row, **ratios, "share_of_sums": round(share, 4)})
            ratio_words = f"{speed / count / alone:12.2f}{most / count / alone:8.2f}"
            print(f"{hidden:5}{count:11}{speed:14,.0f}{ratio_words}{share:15.1%}", flush=True)
    print(report(rows, "mpi4py"))


if __name__ == "__main__":
    main()
