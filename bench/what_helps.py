"""What each technique is worth at equal time: nats per held-out character with it, less those without it.

Each technique is a setting, or several, that the default settings do not have, or a prototype of what the package does not have
(techniques.py). Its number of updates is that of the default settings, divided by how much longer one of its updates takes, so
that both train for the same seconds of processor time. A run keeps the best of ten measurements: that counts. Below zero, the
technique helps. The mean and each single difference are over the seeds, on one split; "last" is the mean after the last update.

    env OMP_NUM_THREADS=1 python bench/what_helps.py dinosaurs python-help names.txt [--seeds 0 1 2] [--scale 0.2]
        [--only "no dropout" layers] [--results bench/results/what_helps.json]
"""

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from machine import report
from techniques import PROTOTYPES, Prototype, check

import bptt
from bptt import acceleration, dispatch
from bptt.config.settings import from_flags
from bptt.train_step import stepper, update
from bptt.training import setup

TECHNIQUES: dict[str, dict[str, Any]] = {
    "one learning rate for all tensors": {"parametrization": "standard"},
    "no average of the weights": {"average": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "no dropout": {"dropout": 0.0},
    "1.5 times the dropout": {"dropout": 1.5},
    "linear schedule": {"schedule": "linear"},
    "wsd schedule": {"schedule": "wsd"},
    "beta2 0.99": {"beta2": 0.99},
    "beta1 0.8, beta2 0.99": {"beta1": 0.8, "beta2": 0.99},
    "orthogonal recurrent weights": {"init": "orthogonal"},
    "two layers": {"layers": 2},
    "lstm": {"cell": "lstm"},
    "half the batch": {"batch": 0.5},
    "twice the learning rate": {"learning_rate": 2.0},
    "1.5 times the units, the same dropout": {"hidden": 1.5},
}
ALL = {name: Prototype(contextlib.nullcontext, settings) for name, settings in TECHNIQUES.items()} | PROTOTYPES
RELATIVE = ("batch", "dropout", "hidden", "learning_rate")  # settings of a technique that multiply the default ones
BY_SIZE = (*RELATIVE, "length", "weight_decay")  # what depends on the size of the text stays as it is for the whole text
TRIAL, TURNS = 0.3, 4  # seconds of updates that are timed at a time, and how often
MAX_ERROR = 1e-6  # of the gradient of a prototype, relative


def nats(text: str, flags: dict[str, Any], prototype: Prototype, seeds: list[int]) -> list[tuple[float, float]]:
    """What each seed reaches: the lowest of the ten measurements of a run, which is what it keeps, and the last one."""
    reached = []
    for seed in seeds:
        lines: list[str] = []
        with prototype.context():
            bptt.train(text, **{**flags, "seed": seed, "json": True, "report": lines.append})
        measured = [row["held_out"] for row in map(json.loads, lines) if row["event"] == "measurement"]
        reached.append((min(measured), measured[-1]))
    return reached


def relative_time(text: str, base: dict[str, Any], flags: dict[str, Any], prototype: Prototype) -> float:
    """How much longer an update takes with a technique: of the same updates, each the fastest of some turns."""
    plain = Prototype(contextlib.nullcontext, kernels=prototype.kernels)
    updates = max(10, min(200, round(TRIAL / statistics.median(update_seconds(text, base, plain, 10)))))
    turns = [[update_seconds(text, *pair, updates) for pair in ((flags, prototype), (base, plain))] for _ in range(TURNS)]
    after, before = (sum(map(min, zip(*runs))) for runs in zip(*turns))
    return float(after / before)


def update_seconds(text: str, flags: dict[str, Any], prototype: Prototype, updates: int) -> list[float]:
    """The processor time of each of some updates."""
    seconds = []

    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        result = update.update(*arguments)
        seconds.append(time.process_time() - began)
        return result

    alone = patch.object(stepper, "fits_group", lambda task, window: False)
    kernels = contextlib.nullcontext() if prototype.kernels else patch.object(acceleration, "enable_for")
    with dispatch.restored(), kernels, prototype.context(), alone, patch.object(stepper, "update", timed):
        if not prototype.kernels:
            dispatch.disable()
        bptt.train(text, **{**flags, "steps": updates, "evaluate_every": updates, "validation": 0.0})
    return seconds


def changed(base: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a technique, given those of the baseline."""
    changes = {name: value * base[name] if name in RELATIVE else value for name, value in settings.items()}
    return {name: round(value) if name in ("batch", "hidden") else value for name, value in changes.items()}


def measure(text: str, names: list[str], seeds: list[int], scale: float) -> list[dict[str, Any]]:
    """A row for the default settings, with the nats of each seed, and one for each technique, with the differences."""
    plan = setup.from_scratch(text, from_flags({"backend": "numpy"})).task.plan
    base: dict[str, Any] = {"backend": "numpy", "report": None, **{name: getattr(plan, name) for name in BY_SIZE}}
    bptt.train(text, **{**base, "steps": 1})  # compiles
    base["steps"], began, plain = max(10, round(plan.steps * scale)), time.process_time(), Prototype(contextlib.nullcontext)
    before = nats(text, base, plain, seeds)
    seconds = (time.process_time() - began) / len(seeds)
    best, last = ([round(run[k], 4) for run in before] for k in (0, 1))
    means = f"{statistics.mean(best):.4f} nats, {statistics.mean(last):.4f} after the last update"
    print(f"{text}: {means} of {base['steps']}, in {seconds:.0f} s", flush=True)
    default = {"technique": "default", "changes": {}, "steps": base["steps"], "seconds": round(seconds, 1)}
    rows: list[dict[str, Any]] = [default | {"nats": best, "last": last}]
    for name in names:
        prototype = ALL[name]
        flags = {**base, **changed(base, prototype.settings)}
        if prototype.timed_as is None:
            slower = relative_time(text, base, flags, prototype)
        elif prototype.timed_as:
            slower = relative_time(text, base, {**base, **changed(base, prototype.timed_as)}, plain)
        else:
            slower = 1.0
        flags["steps"] = max(10, round(base["steps"] / slower))
        after = nats(text, flags, prototype, seeds)
        best, last = ([round(one[k] - other[k], 4) for one, other in zip(after, before)] for k in (0, 1))
        changes = {key: getattr(value, "name", value) for key, value in changed(base, prototype.settings).items()}
        rows.append({"technique": name, "changes": changes, "steps": flags["steps"], "nats": best, "last": last})
        each = f"{' '.join(f'{one:+.4f}' for one in best)}   last {statistics.mean(last):+.4f}"
        print(f"  {name:40}{statistics.mean(best):+9.4f}   {each}   {flags['steps']} updates", flush=True)
    return rows


def collect(path: Path, text: str, measured: dict[str, Any]) -> None:
    """Add the report on a text to a file of reports by text; its rows replace those of the same techniques and scale."""
    texts = json.loads(path.read_text("utf-8")) if path.exists() else {}
    replaced = {(row["technique"], row["scale"]) for row in measured["rows"]}
    for old in texts.get(text, []):
        old["rows"] = [row for row in old["rows"] if (row["technique"], row["scale"]) not in replaced]
    texts[text] = [*(old for old in texts.get(text, []) if old["rows"]), measured]
    path.write_text(json.dumps(texts) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", metavar="TEXT", nargs="*", default=["dinosaurs"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of updates of the default settings")
    parser.add_argument("--only", nargs="*", help="techniques whose names contain one of these words")
    parser.add_argument("--results", type=Path, metavar="FILE.json", help="collect the results by text there")
    arguments = parser.parse_args()
    names = [name for name in ALL if not arguments.only or any(word in name for word in arguments.only)]
    for name in PROTOTYPES.keys() & names:
        if (error := check(PROTOTYPES[name])) > MAX_ERROR:
            raise SystemExit(f"{name}: its gradient is wrong by {error:.0e}")
    for text in arguments.texts:
        rows = measure(text, names, arguments.seeds, arguments.scale)
        measured = report([{**row, "seeds": arguments.seeds, "scale": arguments.scale} for row in rows])
        print(measured)
        if arguments.results:
            collect(arguments.results, Path(text).name, json.loads(measured))


if __name__ == "__main__":
    main()
