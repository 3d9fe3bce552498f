"""The same training step, by the same functions, on every array library and device that is usable here.

A step is forward, loss, backward, norm clip and Adam on a batch of random tokens; a time is the median over the repeats, each
of some steps in a row that are waited for together: what a training run waits for, the host's share included. The losses must
agree before a time is printed. Peers are `torch.nn` where PyTorch finds a CUDA device, as it is and captured as a CUDA graph,
and the one program of JAX's jit.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/devices.py [--hidden 64 256] [--plot devices.svg]
    python bench/devices.py --backend cupy --peer torch torch-graph jax --hidden 64 512 --batch 1 64 --steps 64 [--tf32]
    python bench/devices.py --result bench/results/devices_h200_steps64.json --plot devices.svg

The last one measures nothing and draws what is in a result.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import contenders
import numpy as np
from machine import report

from bptt import acceleration, dispatch
from bptt import backend as backends
from bptt.errors import InputError
from bptt.nn import model, tree
from bptt.nn.cells import CELLS

VOCABULARY = 27
LIBRARIES = ["numpy", "cupy", "torch", "jax"]
PEERS: dict[str, Callable[..., contenders.Contender]] = {
    "torch": partial(contenders.torch, device="cuda"),
    "torch-graph": partial(contenders.torch, device="cuda", graph=True),
    "jax": contenders.jax,
}


class Runner(NamedTuple):
    """Who makes the steps."""

    name: str
    device: str
    make: Callable[..., contenders.Contender]


def usable(named: list[str] | None, tf32: bool) -> list[Runner]:
    """The backends that are named, which must be there, or all that are there."""
    runners = []
    for name in named or LIBRARIES:
        try:
            where = backends.select(name, "float32", require=True)
        except InputError as error:
            if named:
                raise SystemExit(str(error)) from None
            print(f"left out: {error}")
        else:
            device = jax_precision(tf32) if name == "jax" else device_name(where)
            runners.append(Runner(name, device, partial(switched, where, dispatch.disable, contenders.ours)))
            if not acceleration.unavailable_reason(name):
                start = partial(acceleration.enable, name)
                runners.append(Runner(f"{name} kernels", device, partial(switched, where, start, contenders.ours)))
                if where.is_gpu:
                    runners.append(Runner(f"{name} graph", device, partial(switched, where, start, contenders.replayed)))
    return runners


def switched(
    where: backends.Backend, before: Callable[[], Any], make: Callable[..., contenders.Contender], *arguments: Any
) -> contenders.Contender:
    """This package on a backend, its kernels enabled or not."""
    return make(*arguments, where)._replace(before=before)


def peers(named: list[str], tf32: bool) -> list[Runner]:
    """The programs of others that are named."""
    runners = []
    for name in named:
        if name == "jax":
            device = jax_precision(tf32)
        else:
            import torch

            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            device = torch.cuda.get_device_name()
        runners.append(Runner(f"{name} itself", device, PEERS[name]))
    return runners


def jax_precision(tf32: bool) -> str:
    """Let JAX multiply as precisely as all others do; the device that it uses."""
    import jax

    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
    kind: str = jax.devices()[0].device_kind
    return kind


def device_name(where: backends.Backend) -> str:
    """What a backend runs on."""
    if where.is_gpu:
        import cupy

        return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())
    return "cpu"


def prepare(runner: Runner, config: model.Config, batch: int, steps: int) -> contenders.Contender:
    """What makes the training steps; the same numbers for all."""
    rng = np.random.default_rng(0)
    params = tree.tree_map(lambda a: a.astype(np.float32), model.init(config, rng))
    x, y = rng.integers(0, VOCABULARY, (2, steps, batch))
    return runner.make(config, params, x, y)


def agree(runners: list[Runner], losses: list[list[float]], tolerance: float) -> None:
    """Raise where the first losses differ, or any of this package: PyTorch learns a bias more, so its later ones do."""
    ours = [each for runner, each in zip(runners, losses) if not runner.name.endswith("itself")]
    np.testing.assert_allclose(ours, np.broadcast_to(ours[0], np.shape(ours)), rtol=1e-4)
    np.testing.assert_allclose([first for first, *_ in losses], np.full(len(losses), losses[0][0]), rtol=tolerance)


def warmed(one: contenders.Contender) -> list[float]:
    """The losses of some steps."""
    one.before()
    return [one.step() for _ in range(3)]


def summary(rows: list[dict[str, Any]], reference: str) -> str:
    """How many times as long as one of the runners the others take, over all sizes."""
    times: dict[str, list[float]] = {}
    for row in rows:
        times.setdefault(row["backend"], []).append(row["us"])
    lines = []
    for name in times.keys() - {reference}:
        ratios = sorted(us / least for us, least in zip(times[name], times[reference]))
        sooner = sum(ratio > 1 for ratio in ratios)
        spread = f"median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}"
        lines.append(f"{name} / {reference}: {spread}; {reference} is sooner at {sooner} of {len(ratios)} sizes")
    return "\n".join(sorted(lines))


def measure(those: list[contenders.Contender], repeats: int, together: int) -> list[float]:
    """Microseconds of a step, median over the repeats; all take turns, so that a noisy moment hits all of them."""
    times: list[list[float]] = [[] for _ in those]
    for _ in range(repeats):
        for one, seconds in zip(those, times):
            one.before()
            began = time.perf_counter()
            for _ in range(together):
                one.begin()
            one.wait()
            seconds.append((time.perf_counter() - began) / together)
    return [statistics.median(seconds) * 1e6 for seconds in times]


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """One panel a cell and batch, one line a backend: the time of a step over hidden units, both axes logarithmic."""
    from matplotlib.figure import Figure

    cells, batches = (list(dict.fromkeys(row[name] for row in rows)) for name in ("cell", "batch"))
    sizes = sorted({row["hidden"] for row in rows})
    figure = Figure(figsize=(3.6 * len(cells), 0.6 + 3 * len(batches)), layout="constrained")
    grid = figure.subplots(len(batches), len(cells), sharex=True, sharey=True, squeeze=False)
    for (batch, cell), axes in zip(itertools.product(batches, cells), grid.flat):
        panel_rows = [row for row in rows if (row["batch"], row["cell"]) == (batch, cell)]
        for key in dict.fromkeys((row["backend"], row["device"]) for row in rows):
            line = [row for row in panel_rows if (row["backend"], row["device"]) == key]
            axes.loglog([row["hidden"] for row in line], [row["us"] for row in line], marker="o", ms=4, label=" on ".join(key))
        axes.set_xticks(sizes, map(str, sizes), rotation=45 if len(sizes) > 5 else 0)
        axes.set_xticks([], minor=True)
        axes.set(title=f"{cell}, batch of {batch}")
        axes.grid(alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("hidden units")
    figure.supylabel("µs per training step")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=LIBRARIES, help="those that must be there; by default all that are")
    parser.add_argument("--peer", nargs="+", default=[], choices=list(PEERS), help="programs of others to measure, too")
    parser.add_argument("--tf32", action="store_true", help="let all round the factors of products on a GPU to 10 bits")
    parser.add_argument("--cell", nargs="+", default=["vanilla", "gru", "lstm"], choices=list(CELLS))
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--batch", nargs="+", type=int, default=[32])
    parser.add_argument("--steps", type=int, default=32, help="time steps of a batch")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--together", type=int, default=1, help="training steps in a row before the device is waited for")
    parser.add_argument("--plot", metavar="FILE", help="draw the times, after the last line is printed (needs matplotlib)")
    parser.add_argument("--result", metavar="JSON", help="draw the times of a result; nothing is measured")
    arguments = parser.parse_args()
    if arguments.result:
        plot(json.loads(Path(arguments.result).read_text("utf-8"))["rows"], arguments.plot or "devices.svg")
        return
    os.environ["CUPY_TF32"] = str(int(arguments.tf32))  # before CuPy is imported
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX takes most of a GPU's memory else
    runners = usable(arguments.backend, arguments.tf32) + peers(arguments.peer, arguments.tf32)
    rows = []
    print(f"{'cell':8} {'H':>4} {'B':>4}  " + "  ".join(f"{r.name:>18}" for r in runners) + "   µs a step (of time)")
    for cell, hidden, batch in itertools.product(arguments.cell, arguments.hidden, arguments.batch):
        config = model.Config(cell, VOCABULARY, hidden, 1, "zero")
        those = [prepare(runner, config, batch, arguments.steps) for runner in runners]
        losses = [warmed(one) for one in those]
        agree(runners, losses, 1e-3 if arguments.tf32 else 1e-5)
        times = measure(those, arguments.repeats, arguments.together)
        words = (f"{us:.0f} ({us / arguments.steps:.2f})" for us in times)
        print(f"{cell:8} {hidden:4} {batch:4}  " + "  ".join(f"{word:>18}" for word in words), flush=True)
        for runner, us in zip(runners, times):
            size = {"cell": cell, "hidden": hidden, "batch": batch, "steps": arguments.steps, "vocabulary": VOCABULARY}
            rows.append({"backend": runner.name, "device": runner.device, "tf32": arguments.tf32, **size, "us": round(us, 1)})
    fast = [runner.name for runner in runners if runner.name.endswith(("kernels", "graph"))]
    print(summary(rows, fast[-1] if fast else runners[0].name))
    libraries = dict.fromkeys(runner.name.split()[0].split("-")[0] for runner in runners)
    print(report(rows, *libraries))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
