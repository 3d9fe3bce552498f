"""New text at 200,000 characters a second and more, for every cell with 128 units, from 64 texts at a time on one core.

A time is that of `model.sample`, from the call to the texts: the best of the repeats, which take turns, so that a noisy
moment hits all cells. The texts of a stream of 27 random characters all have the same length, 500 characters.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/sampling.py [--batch 1 64 512] [--top-p 0.9]
"""

import argparse
import itertools
import string
import time

import numpy as np
from machine import report

from bptt import LanguageModel
from bptt import backend as backends
from bptt.data.vocabulary import characters
from bptt.nn import model, tree
from bptt.nn.cells import CELLS

LENGTH = 500


def prepare(cell: str, hidden: int, layers: int, where: backends.Backend) -> LanguageModel:
    """A model of random weights that writes streams."""
    vocabulary = characters(string.ascii_lowercase)
    config = model.Config(cell, len(vocabulary), hidden, layers)
    params = tree.tree_map(where.put, model.init(config, np.random.default_rng(0)))
    return LanguageModel(config, vocabulary, "stream", params, where, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy", choices=backends.NAMES)
    parser.add_argument("--dtype", default="float32", choices=backends.DTYPES)
    parser.add_argument("--cell", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64, 512])
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    where = backends.select(arguments.backend, arguments.dtype, require=True)
    models = {cell: prepare(cell, arguments.hidden, arguments.layers, where) for cell in arguments.cell}
    best = dict.fromkeys(itertools.product(models, arguments.batch), 0.0)  # characters a second
    for _, (cell, batch) in itertools.product(range(arguments.repeats), best):
        began = time.perf_counter()
        texts = models[cell].sample(batch, length=LENGTH, temperature=1, top_k=arguments.top_k, top_p=arguments.top_p)
        seconds = time.perf_counter() - began
        best[cell, batch] = max(best[cell, batch], sum(map(len, texts)) / seconds)
    print(f"{'cell':8}" + "".join(f"{f'B={batch}':>12}" for batch in arguments.batch) + "   characters per second")
    for cell in models:
        print(f"{cell:8}" + "".join(f"{best[cell, batch]:12,.0f}" for batch in arguments.batch))
    how = {name: value for name, value in vars(arguments).items() if name not in ("cell", "batch", "repeats")}
    rows = [{"cell": cell, "batch": batch, **how, "characters_per_second": round(n)} for (cell, batch), n in best.items()]
    print(report(rows, *([] if where.is_host else [where.name])))


if __name__ == "__main__":
    main()
