"""The claim: `bptt train` with no argument predicts names it has not seen better than the course's network does.

Both learn from the same nine tenths of the built-in dinosaurs and are measured on the same tenth: the course's loop as it is
published (50 units, 35,000 names one at a time), and the defaults of `bptt train`. The course's network is measured as it was
trained, its state carried from one name to the next, and from the zero state; the better of the two counts. What `bptt train`
keeps is the best of its ten measurements on the same tenth. The defaults were chosen on other splits than the ones measured
here. Seconds are processor time.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/dinosaurs_quality.py [--iterations 35000]
"""

import argparse
import contextlib
import io
import statistics
import time

import numpy as np
from machine import report

import bptt
from bptt import textbook
from bptt.config.settings import Settings
from bptt.data.dataset import make_rng, prepare

WHO = ("course", "bptt")


def course(training: list[str], held_out: list[str], iterations: int) -> dict[str, float]:
    """Held-out nats per character, end of name included, of the course's network."""
    symbols = sorted({"\n", *"".join(training + held_out)})
    char_to_ix = {character: ix for ix, character in enumerate(symbols)}
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        parameters = textbook.model(training, dict(enumerate(symbols)), char_to_ix, iterations, vocab_size=len(symbols))
    seconds = time.process_time() - began
    nats = {"carried": 0.0, "zero": 0.0}
    state = zero = np.zeros_like(parameters["b"])
    for name in held_out:
        ids = [char_to_ix[character] for character in name]
        X, Y = [None, *ids], [*ids, char_to_ix["\n"]]
        loss, (_, a, _) = textbook.rnn_forward(X, Y, state, parameters, len(symbols))
        state = a[len(X) - 1]
        nats["carried"] += float(loss)
        nats["zero"] += float(textbook.rnn_forward(X, Y, zero, parameters, len(symbols))[0])
    characters = sum(len(name) + 1 for name in held_out)
    return {"nats_per_char": min(nats.values()) / characters, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=35000, help="names that the course's network learns from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22], help="splits to measure on")
    arguments = parser.parse_args()
    rows = []
    print(f"{'seed':>4}  {'course':>14}  {'bptt train':>14}   nats per held-out character, seconds")
    for seed in arguments.seeds:
        data = prepare("dinosaurs", Settings(split_seed=seed), make_rng(seed, 0))
        training, held_out = ([data.vocabulary.decode(s[1:-1]) for s in part] for part in (data.training, data.validation))
        theirs = course(training, held_out, arguments.iterations)
        began = time.process_time()
        model = bptt.train("dinosaurs", seed=seed, split_seed=seed, backend="numpy", quiet=True)
        ours = {"nats_per_char": model.evaluate("\n".join(held_out)).nats_per_char, "seconds": time.process_time() - began}
        rows.append({"seed": seed, "course": theirs, "bptt": ours})
        print(f"{seed:>4}  " + "  ".join(f"{r['nats_per_char']:.4f} {r['seconds']:5.1f} s" for r in (theirs, ours)), flush=True)
    means = [[statistics.mean(row[who][what] for row in rows) for what in ("nats_per_char", "seconds")] for who in WHO]
    print("mean  " + "  ".join(f"{nats:.4f} {seconds:5.1f} s" for nats, seconds in means))
    print(report(rows))


if __name__ == "__main__":
    main()
