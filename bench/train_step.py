"""A whole training step, and loss and gradient alone, of all who train small recurrent networks on a CPU, on one core.

For each size the losses of all must agree to 1e-5 before a time is printed. Then they take turns of some milliseconds, and a
time is the median over the rounds. "products" is the time of the step's matrix products alone, through NumPy's BLAS. A ratio
is the best peer's time over ours. PyTorch, JAX and the kernels take part where they are installed.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/train_step.py [--cell gru --hidden 128 --batch 32] [--plot train_step.svg]
"""

import argparse
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import contenders
import numpy as np
from contenders import Contender
from machine import report

from bptt.nn import model, tree
from bptt.nn.cells import CELLS
from bptt.system import keep_freed_memory

STEPS = 32
SECONDS = 0.4  # of measuring, for each size and contender
TURN = 0.004  # seconds, or one call where that takes longer
MAKERS: dict[str, Callable[..., Contender]] = {
    "pure": contenders.pure,
    "kernels": contenders.with_kernels,
    "torch": contenders.torch,
    "jax": contenders.jax,
    "textbook": contenders.course,
}
NAMES = tuple(MAKERS)
NEEDED = {"kernels": "llvmlite", "torch": "torch", "jax": "jax"}


def measure(those: dict[str, Contender], what: str) -> dict[str, float]:
    """Microseconds of the "gradient" or the "step" of each, the median over rounds in which each has its turn."""

    def turn(name: str, calls: int) -> float:
        function = getattr(those[name], what)
        those[name].before()
        began = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - began) / calls

    times: dict[str, list[float]] = {name: [] for name in those}
    calls = {name: max(1, round(TURN / turn(name, 1))) for name in those}
    end = time.perf_counter() + SECONDS * len(those)
    while len(times["pure"]) < 7 or (time.perf_counter() < end and len(times["pure"]) < 301):
        for name in those:
            times[name].append(turn(name, calls[name]))
    return {name: round(statistics.median(seconds) * 1e6, 1) for name, seconds in times.items()}


def row(cell: str, hidden: int, batch: int, vocabulary: int, names: list[str]) -> dict[str, Any]:
    """The times of one size."""
    rng = np.random.default_rng(0)
    config = model.Config(cell, vocabulary, hidden, 1, "zero")
    params = tree.tree_map(lambda a: a.astype(np.float32), model.init(config, rng))
    x, y = rng.integers(0, vocabulary, (2, STEPS, batch))
    names = [name for name in names if name != "textbook" or (cell == "vanilla" and batch == 1)]
    those = {name: MAKERS[name](config, params, x, y) for name in names}
    losses = {}
    for name, one in those.items():
        one.before()
        losses[name] = (one.gradient(), one.step())  # the warm-up, too
    for name, pair in losses.items():
        np.testing.assert_allclose(pair, losses["pure"], rtol=1e-5, err_msg=f"{name} computes something else")
    steps = measure({**those, "gemm": contenders.products(config, params, x, y)}, "step")
    gradients = measure(those, "gradient")
    size = {"cell": cell, "hidden": hidden, "batch": batch, "steps": STEPS, "vocabulary": vocabulary}
    keys = (*NAMES, "gemm")
    return {
        **size,
        **{f"{name}_us": steps.get(name) for name in keys},
        **{f"{name}_gradient_us": gradients.get(name) for name in NAMES},
    }


def ratio(row: dict[str, Any], ours: str = "kernels", against: tuple[str, ...] = ("torch", "jax")) -> float | None:
    """The best peer's time over ours."""
    peers = [row[f"{name}_us"] for name in against if row[f"{name}_us"]]
    return min(peers) / row[f"{ours}_us"] if peers and row[f"{ours}_us"] else None


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    times = "".join(f"{row[f'{name}_us']:10,.0f}" if row[f"{name}_us"] else f"{'-':>10}" for name in (*NAMES, "gemm"))
    ours = row["kernels_us"] or row["pure_us"]
    best = ratio(row) or ratio(row, "pure")
    return (
        f"{row['cell']:8}{row['hidden']:4}{row['batch']:4}{row['vocabulary']:4}{times}"
        f"{f'{best:9.2f}' if best else '        -'}{100 * row['gemm_us'] / ours:9.0f} %"
    )


def summary(rows: list[dict[str, Any]]) -> str:
    """Median and worst ratios."""

    def over(name: str, chosen: list[dict[str, Any]], *how: Any) -> str:
        ratios = sorted(((value, row) for row in chosen if (value := ratio(row, *how))), key=lambda pair: pair[0])
        if not ratios:
            return f"{name}: not measured"
        worst = ratios[0][1]
        size = f"{worst['cell']} H={worst['hidden']} B={worst['batch']} V={worst['vocabulary']}"
        return f"{name}: median {statistics.median(value for value, _ in ratios):.2f}, worst {ratios[0][0]:.2f} ({size})"

    lines = [over("best peer / kernels, all sizes", rows)]
    lines += [over(f"best peer / kernels, {cell}", [row for row in rows if row["cell"] == cell]) for cell in CELLS]
    lines.append(over("best peer / kernels, B = 1", [row for row in rows if row["batch"] == 1]))
    vanilla = [row for row in rows if row["cell"] == "vanilla"]
    lines.append(over("torch / pure, vanilla", vanilla, "pure", ("torch",)))
    large = [row for row in rows if row["kernels_us"] and row["hidden"] >= 128 and row["batch"] >= 8]
    if large:
        ratios = [row["gemm_us"] / row["kernels_us"] for row in large]
        lines.append(
            f"products / kernels, H >= 128 and B >= 8: median {statistics.median(ratios):.2f}, worst {min(ratios):.2f}"
        )
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """One panel a cell and batch, one line a contender: the time of a step over hidden units, both axes logarithmic."""
    from matplotlib.figure import Figure

    vocabulary = rows[0]["vocabulary"]
    cells, batches = (list(dict.fromkeys(row[key] for row in rows)) for key in ("cell", "batch"))
    figure = Figure(figsize=(3.2 * len(batches), 2.8 * len(cells)), layout="constrained")
    panels = figure.subplots(len(cells), len(batches), sharex=True, squeeze=False)
    labels = {
        "pure": "bptt, NumPy alone",
        "kernels": "bptt, kernels",
        "torch": "PyTorch",
        "jax": "JAX",
        "gemm": "matrix products alone",
    }
    for (cell, batch), axes in zip(itertools.product(cells, batches), panels.flat):
        chosen = [row for row in rows if (row["cell"], row["batch"], row["vocabulary"]) == (cell, batch, vocabulary)]
        for name, label in labels.items():
            points = [(row["hidden"], row[f"{name}_us"]) for row in chosen if row[f"{name}_us"]]
            if points:
                style = {"color": "black", "linestyle": ":"} if name == "gemm" else {"marker": "o"}
                axes.loglog(*zip(*points), label=label, markersize=4, **style)
        axes.set_title(f"{cell}, batch {batch}", fontsize=9)
        axes.set_xticks([row["hidden"] for row in chosen], [str(row["hidden"]) for row in chosen])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=7)
    figure.supxlabel("hidden units")
    figure.supylabel("µs per training step")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--hidden", nargs="+", type=int, default=[50, 128, 256, 512])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[27, 65])
    parser.add_argument("--plot", metavar="FILE", help="draw the times for the first vocabulary (needs matplotlib)")
    arguments = parser.parse_args()
    keep_freed_memory()
    names = [name for name in NAMES if importlib.util.find_spec(NEEDED.get(name, "numpy"))]
    heads = "".join(f"{name:>10}" for name in (*NAMES, "products"))
    print(
        f"{'cell':8}{'H':>4}{'B':>4}{'V':>4}{heads}    ratio  products   (µs, and ratios to the best peer and to the products)"
    )
    rows = []
    sizes = itertools.product(arguments.cell, arguments.hidden, arguments.batch, arguments.vocabulary)
    for cell, hidden, batch, vocabulary in sizes:
        rows.append(row(cell, hidden, batch, vocabulary, names))
        print(line(rows[-1]), flush=True)
    print(summary(rows))
    print(report(rows, *(NEEDED[name] for name in names if name in NEEDED)))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
