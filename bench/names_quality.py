"""How well names are predicted, and how soon: held-out nats per character, the end of each name included, and wall time.

TEXT is a file of one name a line, or built in. Each row is a run of `bptt train` with its default settings but for the flags
shown, on one split for each seed: 1,000 names are held out, or a tenth of a short list. The settings were chosen on the split
of seed 0, so others are measured here. The best of ten measurements counts, on the same held-out names.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/names_quality.py names.txt [--seeds 20 21] [--rows 0 1]
"""

import argparse
import statistics
import time
from typing import Any

from machine import report

import bptt
from bptt.config.settings import Settings
from bptt.data.dataset import make_rng, prepare

HELD_OUT = 1000  # names
RUNS: tuple[dict[str, Any], ...] = (
    {"cell": "vanilla"},
    {"cell": "gru"},
    {"cell": "lstm", "layers": 2, "dropout": 0.4},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", metavar="TEXT", nargs="?", default="dinosaurs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22], help="splits to measure on")
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(RUNS))), help="runs to make, counted from 0")
    parser.add_argument("--steps", type=int, help="instead of the default, for a look at what this script does")
    arguments = parser.parse_args()
    data = prepare(arguments.text, Settings(mode="lines", validation=0.0), make_rng(0, 0))
    share = min(0.1, HELD_OUT / len(data.training))
    steps = {"steps": arguments.steps} if arguments.steps else {}
    rows = []
    print(f"{'flags':40}{'held out':>10}{'each':>24}{'seconds':>10}")
    for flags in (RUNS[row] for row in arguments.rows):
        nats, seconds = [], []
        for seed in arguments.seeds:
            began = time.perf_counter()
            split = {"validation": share, "seed": seed, "split_seed": seed}
            model = bptt.train(arguments.text, report=None, backend="numpy", **split, **flags, **steps)
            seconds.append(round(time.perf_counter() - began, 1))
            nats.append(round(model.record["held_out"], 4))
        rows.append({"flags": {**flags, **steps}, "seeds": arguments.seeds, "nats_per_char": nats, "seconds": seconds})
        words = " ".join(f"--{name} {value}" for name, value in rows[-1]["flags"].items())
        each = " ".join(f"{value:.4f}" for value in nats)
        print(f"{words:40}{statistics.mean(nats):10.4f}{each:>24}{statistics.mean(seconds):10.1f}", flush=True)
    print(report(rows))


if __name__ == "__main__":
    main()
