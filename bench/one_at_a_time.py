"""The course's own workload, 35,000 updates of a tanh network of 50 units by one name each: by its functions and by the engine.

Both learn from the same names with plain gradient descent, clip, and hand the new weights to the next update. The engine also
measures its loss ten times, looks for numbers that are not finite, and keeps what it would need to go on.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/one_at_a_time.py [--updates 35000]
"""

import argparse
import contextlib
import io
import time

from machine import report

import bptt
from bptt import fused, textbook
from bptt.run.data import generator, prepare
from bptt.run.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=35000)
    updates = parser.parse_args().updates
    data = prepare("dinosaurs", Settings(validation=0.0), generator(0, 0))
    names = [data.vocabulary.decode(s[1:-1]) for s in data.training]
    ix = {character: i for i, character in enumerate(data.vocabulary.symbols or ())}

    def course() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            textbook.model(names, dict(enumerate(ix)), ix, updates, vocab_size=len(ix))

    def engine() -> None:
        flags = {"cell": "vanilla", "hidden": 50, "batch": 1, "optimizer": "sgd", "learning_rate": 0.1, "validation": 0}
        bptt.train("dinosaurs", report=None, backend="numpy", steps=updates, **flags)

    bptt.train("dinosaurs", report=None, backend="numpy", steps=2)  # what is compiled or loaded once does not count
    seconds = {}
    for who in (course, engine):
        began = time.perf_counter()
        who()
        seconds[who.__name__] = round(time.perf_counter() - began, 2)
        print(
            f"{who.__name__:8}{seconds[who.__name__]:8.2f} s{1e6 * seconds[who.__name__] / updates:8.0f} µs an update",
            flush=True,
        )
    print(f"course / engine: {seconds['course'] / seconds['engine']:.1f}")
    print(report([{"updates": updates, **seconds}], *(["numba"] if not fused.obstacle() else [])))


if __name__ == "__main__":
    main()
