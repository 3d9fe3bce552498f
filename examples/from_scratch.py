"""A character RNN from scratch on the functions of `bptt.nn`: batches, gradient, Adam and sampling, on one page.

T steps, B streams of text side by side, V symbols, H units. Arrays are NumPy's; time comes first.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bptt.data.source import dinosaurs
from bptt.nn import model, optimizers, tree

T, B, H = 32, 16, 64
LEARNING_RATE, CLIP_NORM = 0.01, 1.0


def batches(ids: Any) -> Iterator[tuple[Any, Any, bool]]:
    """Inputs x and targets y (T, B), each target the character after its input, and whether an epoch begins; without end."""
    streams = ids[: len(ids) // B * B].reshape(B, -1).T  # (N, B): the text cut into B streams, one per column
    while True:
        for t in range(0, len(streams) - T, T):
            yield streams[t : t + T], streams[t + 1 : t + T + 1], t == 0


def train(config: model.Config, ids: Any, steps: int, rng: np.random.Generator) -> model.Params:
    """The parameters after `steps` updates."""
    shapes, mask, states = model.shapes(config), np.ones((T, B)), None  # the mask is 1 where a target counts: everywhere
    params_vector = tree.ravel(model.init(config, rng))  # all parameters as one vector (P,)
    optimizer_state, losses = optimizers.init_adam(params_vector), []
    for step, (x, y, begins) in enumerate(islice(batches(ids), steps), 1):
        states = None if begins else states  # each window continues from the states of the last one: truncated BPTT
        loss, grads, states = model.loss_and_grad(config, tree.unravel(params_vector, shapes), x, y, mask, states)
        grad, _ = optimizers.clip_by_norm(tree.ravel(grads), CLIP_NORM)
        params_vector, optimizer_state = optimizers.adam(params_vector, grad, optimizer_state, LEARNING_RATE)
        losses.append(float(loss))
        if step % 100 == 0:
            print(f"step {step:5d}  loss {np.mean(losses[-100:]):.4f} nats per character")
    params: model.Params = tree.unravel(params_vector, shapes)
    return params


def sample(config: model.Config, params: model.Params, first: int, length: int, rng: np.random.Generator) -> list[int]:
    """The ids of new text after the id `first`; each comes from a forward pass of one step, T = 1."""
    ids, states = [first], None
    for _ in range(length):
        logits, states, _ = model.forward(config, params, np.array([ids[-1:]]), states)  # x (1, 1), logits (1, 1, V)
        p = np.exp(logits[0, 0] - logits.max())
        ids.append(int(rng.choice(len(p), p=p / p.sum())))
    return ids[1:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", help="a text file; by default the built-in names of dinosaurs")
    parser.add_argument("--steps", type=int, default=1000, help="updates of the parameters")
    arguments = parser.parse_args()
    text = Path(arguments.text).read_text("utf-8") if arguments.text else dinosaurs()
    if len(text) < B * (T + 1):
        parser.error(f"the text has {len(text)} characters, expected at least {B * (T + 1)}")
    symbols, rng = sorted(set(text)), np.random.default_rng(0)
    config = model.Config("gru", vocabulary=len(symbols), hidden=H)
    params = train(config, np.array([symbols.index(symbol) for symbol in text]), arguments.steps, rng)
    print("".join(symbols[i] for i in sample(config, params, symbols.index(text[-1]), 200, rng)))
