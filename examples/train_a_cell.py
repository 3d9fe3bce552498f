"""Train on dinosaurs with a cell that is not in the package, the one of minimal_gated_unit.py beside this file."""

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

import minimal_gated_unit
from bptt import LanguageModel
from bptt.backend import select
from bptt.data import batches, corpus
from bptt.data.sequences import Sequences
from bptt.nn import gradient, model, optimizers, tree

CELL: Any = "mgu"  # whatever is in the table of cells has layers, dropout, sampling and scores
model.CELLS[CELL] = minimal_gated_unit


def windows(lines: Sequences, rng: np.random.Generator) -> Iterator[batches.Window]:
    """Batches of 8 lines without end, each time around in another order; more than 256 characters are cut off."""
    while True:
        yield from (window for window in batches.lines(lines, 8, 256, rng) if window.start)


def train(steps: int, rng: np.random.Generator) -> tuple[LanguageModel, float]:
    """A model after so many updates, and its nats per character of names that it never saw."""
    backend, text = select("numpy"), corpus.read("dinosaurs")
    training, held_out = corpus.split(corpus.sequences(text, "lines"), 0.1, rng)
    read = batches.batch_reader(text.ids, backend)  # what makes x, y and mask (T, B) of a window
    config = model.Config(CELL, len(text.vocabulary), hidden=64)
    theta = tree.ravel(tree.tree_map(backend.put, model.init(config, rng)))  # all parameters as a vector (P,)
    memory = optimizers.init_adam(theta)
    for step, window in enumerate(islice(windows(training, rng), steps)):
        x, y, mask, _ = read(window)
        loss, d, _ = gradient.loss_and_grad(theta, config, x, y, mask, None, (), None)
        d, _ = optimizers.clip_by_norm(d, 1.0)
        rate = optimizers.warmup_cosine(step, 0.008, warmup=steps // 10, total=steps)
        theta, memory = optimizers.adam(theta, d, memory, rate)
        if (step + 1) % 200 == 0:
            print(f"step {step + 1:5d}  loss {float(loss):.4f} nats per character")
    params = tree.unravel(theta, model.shapes(config))
    trained = LanguageModel(config, text.vocabulary, "lines", params, backend, {"text": "dinosaurs"})
    names = "".join(text.vocabulary.decode(ids[1:]) for ids in held_out)
    return trained, trained.evaluate(names).nats_per_char


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="updates of the weights")
    trained, nats = train(parser.parse_args().steps, np.random.default_rng(0))
    print(f"{nats:.4f} nats per character of the names held out")
    print("\n".join(trained.sample(10)))
