"""What each technique is worth at equal time: nats per held-out character with it, less those without it.

Each technique is a setting, or several, that the baseline does not have: the default settings, or with `--flags` others. Its
number of updates is that of the baseline, divided by how much longer one of its updates takes, so that both train for the same
seconds. Below zero, the technique helps. The mean and each single difference are over the seeds, on one split.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/what_helps.py dinosaurs python-help names.txt [--seeds 0 1 2] [--scale 0.2]
"""

import argparse
import statistics
import time
from typing import Any

from machine import report

import bptt

TECHNIQUES: dict[str, dict[str, Any]] = {
    "one learning rate for all tensors": {"parametrization": "standard"},
    "no average of the weights": {"average": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "no dropout": {"dropout": 0.0},
    "linear schedule": {"schedule": "linear"},
    "wsd schedule": {"schedule": "wsd"},
    "beta2 0.99": {"beta2": 0.99},
    "beta1 0.8, beta2 0.99": {"beta1": 0.8, "beta2": 0.99},
    "orthogonal recurrent weights": {"init": "orthogonal"},
    "two layers": {"layers": 2},
    "lstm": {"cell": "lstm"},
    "half the batch": {"batch": 0.5},  # these three multiply what the baseline has
    "twice the learning rate": {"learning_rate": 2.0},
    "1.5 times the units": {"hidden": 1.5},
}
RELATIVE = ("batch", "learning_rate", "hidden")
TRIAL = 30  # updates


def seconds_per_update(text: str, flags: dict[str, Any]) -> float:
    """How long an update takes: what 90 take longer than 30, the better of two trials."""

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        bptt.train(text, **{**flags, "steps": steps, "evaluate_every": steps, "validation": 0.0})
        return time.perf_counter() - began

    seconds(1)  # compiles
    return max(1e-5, min(seconds(3 * TRIAL) - seconds(TRIAL) for _ in range(2)) / (2 * TRIAL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", metavar="TEXT", nargs="*", default=["dinosaurs"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of updates of the baseline")
    parser.add_argument("--only", nargs="*", help="techniques whose names contain one of these words")
    arguments = parser.parse_args()
    names = [name for name in TECHNIQUES if not arguments.only or any(word in name for word in arguments.only)]
    rows = []
    for text in arguments.texts:
        fixed: dict[str, Any] = {"backend": "numpy", "report": None}
        plan = bptt.train(text, **fixed, steps=1).record["plan"]
        base = {**fixed, **{name: plan[name] for name in (*RELATIVE, "length", "dropout", "weight_decay", "average")}}
        steps = max(10, round(plan["steps"] * arguments.scale))

        def nats(flags: dict[str, Any], text: str = text) -> list[float]:
            runs = [{**flags, "seed": seed, "evaluate_every": flags["steps"]} for seed in arguments.seeds]
            return [bptt.train(text, **run).record["held_out"] for run in runs]

        pace, before = seconds_per_update(text, base), nats({**base, "steps": steps})
        print(f"{text}: {statistics.mean(before):.4f} nats after {steps} updates of {1000 * pace:.1f} ms", flush=True)
        for name in names:
            changes = {key: value * base[key] if key in RELATIVE else value for key, value in TECHNIQUES[name].items()}
            changes = {key: round(value) if key in ("batch", "hidden") else value for key, value in changes.items()}
            flags = {**base, **changes}
            flags["steps"] = max(10, round(steps * pace / seconds_per_update(text, flags)))
            differences = [round(after - one, 4) for after, one in zip(nats(flags), before)]
            rows.append({"text": text, "technique": name, "changes": changes, "steps": flags["steps"], "nats": differences})
            each = " ".join(f"{one:+.4f}" for one in differences)
            print(f"  {name:36}{statistics.mean(differences):+9.4f}   {each}   {flags['steps']} updates", flush=True)
    print(report(rows))


if __name__ == "__main__":
    main()
