"""Whether the default settings suit texts of all sizes: nats per held-out character, beside four fixed sizes at equal seconds.

The peer is one of four fixed sizes, by the number of characters, with one learning rate for all tensors, no weight decay and no
averaged weights. Each text is trained on with it first. Then `--budget` has a share of its seconds for the default settings.
Seconds, also those of a budget, are processor time of the training, without the start of Python. All runs are measured as users
see them: the best of ten measurements of a tenth that is held out, which is drawn by another seed than the one that the default
settings were chosen with.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/defaults.py dinosaurs names.txt tinyshakespeare.txt [--shares 1 0.33 0.11]
"""

import argparse
import math
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from machine import report

import bptt
from bptt.training import budget, trainer

SPLIT = 100  # seed of the split of lines
# characters up to which a size is used, units, dropout, batch of lines and of a stream, steps, rate
FIXED_SIZES = (
    (2_000, 64, 0.5, 8, 8, 500, 8e-3),
    (20_000, 128, 0.5, 8, 8, 2000, 8e-3),
    (150_000, 128, 0.3, 32, 16, 3000, 4e-3),
    (math.inf, 256, 0.3, 128, 32, 6000, 4e-3),
)


def train(text: str, **flags: Any) -> tuple[dict[str, Any], float, float]:
    """The record of a run, its nats per held-out character, and its seconds."""
    began, clock = time.process_time(), SimpleNamespace(perf_counter=time.process_time)
    with patch.object(budget, "time", clock), patch.object(trainer, "time", clock):
        model = bptt.train(text, backend="numpy", report=None, split_seed=SPLIT, **flags)
    return model.record, model.record["held_out"], time.process_time() - began


def fixed_size(record: dict[str, Any], characters: int) -> dict[str, Any]:
    """The fixed settings for a text; its record says whether it is one of lines."""
    _, hidden, dropout, lines, stream, steps, rate = next(size for size in FIXED_SIZES if characters <= size[0])
    batch = lines if record["settings"]["mode"] == "lines" else stream
    shape = {"hidden": hidden, "dropout": dropout, "batch": batch, "steps": steps}
    return {"parametrization": "standard", "weight_decay": 0.0, "average": 0.0, "learning_rate": rate, **shape}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", metavar="TEXT", nargs="*", default=["dinosaurs"])
    parser.add_argument("--shares", type=float, nargs="*", default=[1.0, 0.33, 0.11], help="of the seconds of the fixed size")
    parser.add_argument("--scale", type=float, default=1.0, help="of the steps of the fixed size")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shares = arguments.shares
    heads = "".join(f"{f'{share:g} of them':>26}" for share in shares)
    print(f"{'text':16}{'characters':>11}{'fixed size':>12}{'seconds':>9}" + heads)
    rows = []
    for text in arguments.texts:
        record, *_ = train(text, steps=1)  # compiles
        characters = record["targets"]
        flags = fixed_size(record, characters)
        flags["steps"] = max(10, round(flags["steps"] * arguments.scale))
        _, nats, seconds = train(text, **flags, seed=arguments.seed)
        row: dict[str, Any] = {"text": Path(text).stem, "characters": characters, "fixed": [round(nats, 4), round(seconds, 1)]}
        words = f"{row['text']:16}{characters:11,}{nats:12.4f}{seconds:7.1f} s"
        row["budgets"] = []
        for share in shares:
            record, after, used = train(text, budget=f"{share * seconds:.3f}s", seed=arguments.seed)
            plan = {name: record["plan"][name] for name in ("hidden", "steps")}
            row["budgets"].append({"share": share, **plan, "nats": round(after, 4), "seconds": round(used, 1)})
            words += f"{after:10.4f}{used:7.1f} s ({after - nats:+.3f})"
        print(words, flush=True)
        rows.append(row)
    for number, share in enumerate(shares):
        gains = [row["fixed"][0] - row["budgets"][number]["nats"] for row in rows]
        better = sum(gain >= 0 for gain in gains)
        print(
            f"{share:g} of the seconds: better than the fixed size on {better} of {len(rows)} texts; gain {min(gains):.3f} to "
            f"{max(gains):.3f} nats, median {statistics.median(gains):.3f}"
        )
    print(report(rows))


if __name__ == "__main__":
    main()
