"""Which learning rate is best, by size, cell and number of layers: with `--parametrization mup` it should stay the same.

TEXT is one long text. Twelve configurations are trained for a few hundred updates at each rate, without dropout, weight decay
or an average, and measured on the end of the text. The best rate is where a parabola through the three points around the
lowest loss, over the logarithm of the rate, has its minimum. The last line compares the best rates of all configurations.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/learning_rate.py tinyshakespeare.txt [--parametrization mup standard]
"""

import argparse
import math
from typing import Any

import numpy as np
from machine import report

import bptt

# cell, units, layers
CONFIGURATIONS = (
    ("vanilla", 32, 1),
    ("vanilla", 128, 1),
    ("vanilla", 1024, 1),
    ("gru", 32, 1),
    ("gru", 64, 1),
    ("gru", 256, 1),
    ("gru", 512, 1),
    ("gru", 1024, 1),
    ("gru", 64, 2),
    ("gru", 64, 4),
    ("lstm", 64, 1),
    ("lstm", 256, 1),
)
RATES = (0.0015, 0.003, 0.006, 0.012, 0.024)
TRAINING = {"mode": "stream", "batch": 16, "length": 64, "dropout": 0.0, "weight_decay": 0.0, "average": 0.0, "report": None}


def losses(text: str, steps: int, **flags: Any) -> list[float]:
    """The loss at each rate, in nats per held-out character; NaN for a run that diverged."""
    found = []
    for rate in RATES:
        settings = {**TRAINING, "steps": steps, "evaluate_every": steps, "backend": "numpy", "learning_rate": rate, **flags}
        try:
            found.append(round(bptt.train(text, **settings).record["held_out"], 4))
        except bptt.Diverged:
            found.append(math.nan)
    return found


def best_rate(nats: list[float]) -> float:
    """The rate at the minimum of a parabola through the lowest loss and its neighbours; at an end, that end."""
    lowest = int(np.nanargmin(nats))
    if not 0 < lowest < len(RATES) - 1 or not np.isfinite(nats[lowest - 1 : lowest + 2]).all():
        return RATES[lowest]
    before, middle, after = nats[lowest - 1 : lowest + 2]
    shift = 0.5 * (before - after) / (before - 2 * middle + after)
    return float(RATES[lowest] * (RATES[1] / RATES[0]) ** shift)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", metavar="TEXT", nargs="?", default="python-help")
    parser.add_argument("--parametrization", nargs="*", default=["mup"], choices=["mup", "standard"])
    parser.add_argument("--steps", type=int, default=600, help="updates of each run")
    parser.add_argument("--rows", type=int, nargs="*", default=list(range(len(CONFIGURATIONS))), help="counted from 0")
    arguments = parser.parse_args()
    print(f"{'':32}" + "".join(f"{rate:>9g}" for rate in RATES) + f"{'best rate':>12}")
    rows = []
    for parametrization in arguments.parametrization:
        for cell, hidden, layers in (CONFIGURATIONS[number] for number in arguments.rows):
            flags = {"cell": cell, "hidden": hidden, "layers": layers, "parametrization": parametrization}
            nats = losses(arguments.text, arguments.steps, **flags)
            rows.append({**flags, "nats_per_char": dict(zip(RATES, nats)), "best_rate": round(best_rate(nats), 5)})
            name = f"{parametrization} {cell} {hidden} x {layers}"
            print(f"{name:32}" + "".join(f"{one:9.4f}" for one in nats) + f"{rows[-1]['best_rate']:12g}", flush=True)
        best = [row["best_rate"] for row in rows if row["parametrization"] == parametrization]
        spread = f"from {min(best):g} to {max(best):g}, a factor of {max(best) / min(best):.2f}"
        print(f"{parametrization}: the best rates lie {spread}")
    print(report(rows))


if __name__ == "__main__":
    main()
