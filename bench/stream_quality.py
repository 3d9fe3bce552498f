"""How well a long text is predicted, and how soon: held-out nats per character and wall time, beside PyTorch.

TEXT is one long text. Each row is a run of `bptt train` with its default settings but for the flags shown, on one split: the
end is held out. The best of ten measurements counts, on the same held-out part. The peer is `torch.nn.GRU` with 384
units, dropout 0.3 anew at each step, AdamW and 4000 steps of 64 x 64 characters, measured as often, on the same split.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/stream_quality.py tinyshakespeare.txt [--rows 0 1] [--peer]
"""

import argparse
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from machine import report

import bptt
from bptt.config.settings import Settings
from bptt.data.dataset import VALIDATION_STREAMS, make_rng, prepare

RUNS: tuple[dict[str, Any], ...] = (
    {"cell": "vanilla"},
    {"cell": "gru"},
    {"cell": "gru", "hidden": 512, "batch": 64, "steps": 5000, "dropout": 0.5},
)
STEPS, WARM_UP, RATE, SIDE, MEASUREMENTS = 4000, 200, 2e-3, 64, 10


def peer(text: str, steps: int) -> float:
    """Held-out nats of PyTorch's network at the best measurement."""
    import torch
    from torch.nn.utils import clip_grad_norm_

    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = prepare(text, Settings(mode="stream"), make_rng(0, 0))
    V = len(data.vocabulary)

    def streams(part: Any, count: int) -> Any:
        first, length = int(part.starts[0]), int(part.lengths[0]) // count
        ids = np.asarray(part.ids[first : first + count * length]).reshape(count, length)
        return torch.from_numpy(ids.T.astype(np.int64).copy())

    training, held_out = streams(data.training, SIDE), streams(data.validation, VALIDATION_STREAMS)
    rnn, dropout, output_layer = torch.nn.GRU(V, 384), torch.nn.Dropout(0.3), torch.nn.Linear(384, V)
    network = torch.nn.ModuleList([rnn, dropout, output_layer])
    adam = torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    warm_up = min(WARM_UP, steps // 10)
    share: Callable[[int], float] = lambda n: 0.02 + 0.49 * (1 + math.cos(math.pi * (n - warm_up) / (steps - warm_up)))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda n: (n + 1) / warm_up if n < warm_up else share(n))

    def nats(ids: Any, t: int, length: int, state: Any) -> tuple[Any, Any, int]:
        x, y = ids[t : t + length], ids[t + 1 : t + length + 1]
        a, state = rnn(torch.nn.functional.one_hot(x[: len(y)], V).float(), state)
        return torch.nn.functional.cross_entropy(output_layer(dropout(a)).reshape(-1, V), y.reshape(-1)), state, y.numel()

    @torch.no_grad()
    def measure() -> float:
        network.eval()
        total, count, state = 0.0, 0, None
        for t in range(0, len(held_out) - 1, 512):
            loss, state, n = nats(held_out, t, 512, state)
            total, count = total + float(loss) * n, count + n
        network.train()
        return total / count

    best, state, t = math.inf, None, 0
    for step in range(1, steps + 1):
        if t + SIDE >= len(training):
            state, t = None, 0
        loss, state, _ = nats(training, t, SIDE, state)
        state, t = state.detach(), t + SIDE
        adam.zero_grad()
        loss.backward()
        clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % max(1, steps // MEASUREMENTS) == 0:
            best = min(best, measure())
    return best


def held_out(text: str, flags: dict[str, Any]) -> float:
    """Nats of the best model of a run."""
    loss: float = bptt.train(text, **flags).record["held_out"]
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", metavar="TEXT", nargs="?", default="python-help")
    parser.add_argument("--rows", type=int, nargs="*", default=list(range(len(RUNS))), help="runs to make, counted from 0")
    parser.add_argument("--steps", type=int, help="instead of the default, for a look at what this script does")
    parser.add_argument("--peer", action="store_true", help="PyTorch, too")
    arguments = parser.parse_args()
    steps = {"steps": arguments.steps} if arguments.steps else {}
    rows = []

    def row(flags: dict[str, Any], words: str, train: Callable[[], float]) -> None:
        began = time.perf_counter()
        nats = train()
        rows.append({"flags": flags, "nats_per_char": round(nats, 4), "seconds": round(time.perf_counter() - began, 1)})
        print(f"{words:64}{nats:8.4f} nats{rows[-1]['seconds']:9.1f} s", flush=True)

    for chosen in (RUNS[number] for number in arguments.rows):
        flags = {**chosen, **steps}
        words = " ".join(f"--{name} {value}" for name, value in flags.items())
        run = {"mode": "stream", "report": None, "backend": "numpy", **flags}
        row(flags, words, functools.partial(held_out, arguments.text, run))
    if arguments.peer:
        row({"peer": "torch", **steps}, "PyTorch, GRU 384", lambda: peer(arguments.text, arguments.steps or STEPS))
    print(report(rows, *(["torch"] if arguments.peer else [])))


if __name__ == "__main__":
    main()
