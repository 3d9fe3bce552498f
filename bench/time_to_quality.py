"""How soon a model is good: nats per held-back character over the seconds of the whole command, beside PyTorch.

TEXT is trained on as a whole (`--validation 0`), HELD_BACK is a file that no run sees, or a tenth of TEXT. Each row is a run
of `bptt train` as a command of its own, on one core. Its seconds are processor time, from the start of the process, with
compiled code in its cache: on an idle core they are the seconds that one waits, and other load does not count. The model is
measured at twenty checkpoints after the run. A text of lines uses the settings of names, a stream those of a long text. The
peer is PyTorch with an embedding, a GRU, AdamW and a cosine schedule, in a process of its own; measuring it does not count.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/time_to_quality.py TEXT HELD_BACK [--rows 0 1] [--seeds 0 1 2] [--peer]
    python bench/time_to_quality.py --result bench/results/time_to_quality_*.json --plot time_to_quality.svg

The last one measures nothing and draws the curves of results, a panel for each text.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import report

import bptt
from bptt.config.settings import Settings
from bptt.data import corpus
from bptt.data.dataset import make_rng, prepare

MEASUREMENTS = 20
SPLIT = 100  # seed of the split of lines
# One rate for all tensors, no weight decay and no average, with the settings that suit it best
ONE_RATE = "--parametrization standard --weight-decay 0 --average 0 --hidden 256 --steps 6000 --learning-rate 0.004"
RUNS: dict[str, list[str]] = {  # flags by mode
    "lines": [
        "",
        "--cell vanilla",
        "--hidden 384 --steps 6000",
        f"{ONE_RATE} --batch 128 --dropout 0.3",
        f"{ONE_RATE} --batch 128 --cell vanilla",
    ],
    "stream": [
        "",
        "--cell vanilla",
        "--hidden 448 --steps 9000",
        f"{ONE_RATE} --batch 32 --dropout 0.3",
        f"{ONE_RATE} --batch 32 --cell vanilla",
    ],
}
LEVELS = {"lines": (2.0, 1.95, 1.9), "stream": (1.6, 1.5, 1.4697)}  # nats per character
Curve = list[tuple[float, float]]  # seconds and nats


def processor_seconds() -> float:
    """The processor time of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(text: str, held_back: str, flags: list[str], keep: str) -> Curve:
    """Train by the command line and measure the checkpoints of the run, which a folder keeps if one is named."""
    words = Path(held_back).read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(keep or folder, "_".join(flags).replace("/", "-") or "default")
        command = [sys.executable, "-m", "bptt", "train", text, "--backend", "numpy", "--validation", "0", "--out", str(out)]
        command += ["--json", "--keep", "1000", *flags]
        plan = json.loads(subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True).stdout)["plan"]
        every = str(max(1, plan["steps"] // MEASUREMENTS))
        command += ["--evaluate-every", every, "--checkpoint-every", every]
        began, used = time.perf_counter(), processor_seconds()
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        total = time.perf_counter() - began
        share = (processor_seconds() - used) / total  # of the time in which the core was this run's
        rows = [event for event in map(json.loads, lines) if event["event"] == "measurement"]
        before = total - rows[-1]["seconds"]  # before the first update and after the last one
        return [
            (
                share * (before + row["seconds"]),
                bptt.load(out / "checkpoints" / f"step-{row['step']:08d}").evaluate(words).nats_per_char,
            )
            for row in rows
        ]


def peer(text: str, held_back: str, seed: int) -> Curve:
    """PyTorch at the best settings that are known for it."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = prepare(text, Settings(validation=0.0), make_rng(0, 0))
    held = corpus.read(held_back, data.vocabulary)
    lines, V = data.mode == "lines", len(data.vocabulary)
    units, batch, steps, decay = (256, 128, 6000, 0.05) if lines else (384, 64, 4000, 0.01)
    network = torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(V, units), "rnn": torch.nn.GRU(units, units), "output": torch.nn.Linear(units, V)}
    )
    dropout = torch.nn.Dropout(0.3)
    adam = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda n: min(1.0, (n + 1) / 200) * (0.02 + 0.49 * (1 + math.cos(math.pi * n / steps)))
    )

    def losses(x: Any, y: Any, state: Any, drop: Any) -> tuple[Any, Any]:
        a, state = network["rnn"](network["embedding"](x), state)
        return cross_entropy(network["output"](drop(a)).flatten(0, 1), y.flatten(), ignore_index=-1, reduction="none"), state

    def pad(rows: list[Any]) -> Any:
        width = max(map(len, rows))
        return torch.tensor(np.array([[*row, *[-1] * (width - len(row))] for row in rows])).T

    def measure() -> float:
        with torch.no_grad():
            parts, state = [], None
            for x, y in evaluation_batches:
                loss, state = losses(x, y, state, lambda a: a)
                parts.append((float(loss.sum()), int((y >= 0).sum())))
                state = None if lines else state
        return sum(nats for nats, _ in parts) / sum(count for _, count in parts)

    ids, rng = np.asarray(data.training.ids).astype(np.int64), np.random.default_rng(seed)
    if lines:
        starts, lengths = data.training.starts, data.training.lengths
        rows = [ids[start : start + length + 1] for start, length in zip(starts, lengths)]
        test_ids = np.asarray(held.ids).astype(np.int64)
        ends = np.flatnonzero(test_ids == 0)
        test_rows = [test_ids[a : b + 1] for a, b in itertools.pairwise(ends) if b > a + 1]
        evaluation_batches = [
            (pad([row[:-1] for row in part]).clamp(min=0), pad([row[1:] for row in part]))
            for part in (test_rows[start : start + 256] for start in range(0, len(test_rows), 256))
        ]
    else:
        streams = torch.tensor(ids[: len(ids) // batch * batch].reshape(batch, -1).T.copy())
        test = torch.tensor(np.asarray(held.ids).astype(np.int64))[:, None]
        evaluation_batches = [(test[t : t + 512], test[t + 1 : t + 513]) for t in range(0, len(test) - 1, 512)]
        evaluation_batches[-1] = (evaluation_batches[-1][0][: len(evaluation_batches[-1][1])], evaluation_batches[-1][1])
    curve, measuring, place, state = [], 0.0, 0, None
    for step in range(1, steps + 1):
        if lines:
            chosen = [rows[number] for number in rng.integers(0, len(rows), batch)]
            x, y, state = pad([row[:-1] for row in chosen]).clamp(min=0), pad([row[1:] for row in chosen]), None
        else:
            if place + 65 > len(streams):
                place, state = 0, None
            x, y = streams[place : place + 64], streams[place + 1 : place + 65]
            place += 64
        loss, state = losses(x, y, state, dropout)
        state = state.detach()
        adam.zero_grad()
        (loss.sum() / (y >= 0).sum()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % (steps // MEASUREMENTS) == 0:
            paused = time.process_time()
            curve.append((paused - measuring, measure()))
            measuring += time.process_time() - paused
    return curve


def split(text: str, folder: Path) -> tuple[str, str]:
    """Write a text without a tenth of it, and that tenth: lines drawn at random, or the end of a stream; returns the paths.

    The defaults were chosen on other splits, and on the first nine tenths of streams.
    """
    data = prepare(text, Settings(validation=0.1, split_seed=SPLIT), make_rng(SPLIT, 0))
    symbols = data.vocabulary
    paths = str(folder / "text.txt"), str(folder / "held_back.txt")
    for path, part in zip(paths, (data.training, data.validation)):
        pieces = (symbols.decode(part[number][1:]) for number in range(len(part)))
        Path(path).write_text("".join(pieces), "utf-8")
    return paths


def seconds_to(curve: Curve, level: float) -> float | None:
    """The first seconds at which the loss is at most a level."""
    return next((round(seconds, 1) for seconds, nats in curve if nats <= level), None)


def plot(results: list[str], path: str) -> None:
    """A panel for each result, a line for each row: the loss of its first seed over seconds, these on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(results), 4), layout="constrained")
    for result, axes in zip(results, figure.subplots(1, len(results), squeeze=False).flat):
        rows = json.loads(Path(result).read_text("utf-8"))["rows"]
        for row in rows:
            label = row["flags"].replace(ONE_RATE, "one rate")
            style = {"color": "black", "linestyle": "--"} if label == "PyTorch" else {"marker": "o", "markersize": 3}
            axes.semilogx(*zip(*row["curves"][0]), label=label, **style)
        lowest = min(nats for row in rows for _, nats in row["curves"][0])
        axes.set_ylim(lowest - 0.01, lowest + 0.3)
        axes.set_title(Path(result).stem.removeprefix("time_to_quality_"), fontsize=9)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=7)
    figure.supxlabel("seconds of one core, from the start of the process")
    figure.supylabel("nats per held-back character")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", metavar="TEXT", nargs="?", default="dinosaurs")
    parser.add_argument("held_back", metavar="HELD_BACK", nargs="?", help="by default a tenth of TEXT, which is held back")
    parser.add_argument("--rows", type=int, nargs="*", help="runs to make, counted from 0; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--flags", nargs=argparse.REMAINDER, help="instead of the rows: one run with these flags of bptt train")
    parser.add_argument("--peer", action="store_true", help="PyTorch, too")
    parser.add_argument("--keep", metavar="FOLDER", default="", help="keep the runs, and the parts of the text, in this folder")
    parser.add_argument("--result", metavar="JSON", nargs="+", help="draw the curves of results; nothing is measured")
    parser.add_argument("--plot", metavar="FILE", default="time_to_quality.svg", help="where they are drawn")
    arguments = parser.parse_args()
    if arguments.result:
        plot(arguments.result, arguments.plot)
        return
    if arguments.held_back is None:
        folder = Path(arguments.keep or tempfile.mkdtemp())
        folder.mkdir(parents=True, exist_ok=True)
        arguments.text, arguments.held_back = split(arguments.text, folder)
    mode = prepare(arguments.text, Settings(validation=0.0), make_rng(0, 0)).mode
    runs = [RUNS[mode][number].split() for number in (range(len(RUNS[mode])) if arguments.rows is None else arguments.rows)]
    contenders: list[tuple[str, Any]] = [
        (
            " ".join(flags) or "default",
            lambda seed, flags=flags: run(arguments.text, arguments.held_back, [*flags, "--seed", str(seed)], arguments.keep),
        )
        for flags in ([arguments.flags] if arguments.flags else runs)
    ]
    if arguments.peer:
        pool = multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1)  # a process for each run
        contenders.append(("PyTorch", lambda seed: pool.apply(peer, (arguments.text, arguments.held_back, seed))))
    levels, rows = LEVELS[mode], []
    print(f"{'flags':48}{'nats':>8}{'seconds':>9}" + "".join(f"{f'to {level:g}':>11}" for level in levels))
    for name, train in contenders:
        curves = [train(seed) for seed in arguments.seeds]
        nats = statistics.mean(curve[-1][1] for curve in curves)
        seconds = statistics.mean(curve[-1][0] for curve in curves)
        reached = [[seconds_to(curve, level) for curve in curves] for level in levels]
        medians = [f"{statistics.median(filter(None, each)):.1f} s" if all(each) else "" for each in reached]
        print(f"{name:48}{nats:8.4f}{seconds:9.1f}" + "".join(f"{median:>11}" for median in medians), flush=True)
        rounded = [[(round(seconds, 1), round(nats, 4)) for seconds, nats in curve] for curve in curves]
        rows.append({"flags": name, "seeds": arguments.seeds, "curves": rounded})
    print(report(rows, *(["torch"] if arguments.peer else [])))


if __name__ == "__main__":
    main()
