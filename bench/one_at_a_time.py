"""The course's own workload, 35,000 updates of a tanh network of 50 units by one name each: by its functions and by the engine.

Both learn from the same names with plain gradient descent, clip, and hand the new weights to the next update. The engine also
measures its loss ten times, looks for numbers that are not finite, and keeps what it would need to go on. They take turns; a
time is the median.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/one_at_a_time.py [--updates 35000 --repeats 3]
"""

import argparse
import contextlib
import io
import statistics
import time
from typing import Any

from machine import report

import bptt
from bptt import textbook
from bptt.config.settings import Settings
from bptt.data.dataset import make_rng, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=35000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    updates = arguments.updates
    data = prepare("dinosaurs", Settings(validation=0.0), make_rng(0, 0))
    names = [data.vocabulary.decode(s[1:-1]) for s in data.training]
    ix = {character: i for i, character in enumerate(data.vocabulary.symbols or ())}

    def course() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            textbook.model(names, dict(enumerate(ix)), ix, updates, vocab_size=len(ix))

    def engine() -> None:
        flags: dict[str, Any] = {"cell": "vanilla", "hidden": 50, "batch": 1, "optimizer": "sgd", "learning_rate": 0.1}
        bptt.train("dinosaurs", report=None, backend="numpy", validation=0.0, steps=updates, **flags)

    bptt.train("dinosaurs", report=None, backend="numpy", steps=2)  # what is compiled or loaded once does not count
    times: dict[str, list[float]] = {"course": [], "engine": []}
    for who in (course, engine) * arguments.repeats:
        began = time.perf_counter()
        who()
        times[who.__name__].append(time.perf_counter() - began)
        print(f"{who.__name__:8}{times[who.__name__][-1]:8.2f} s", flush=True)
    seconds = {name: round(statistics.median(runs), 2) for name, runs in times.items()}
    for name, median in seconds.items():
        print(f"{name:8}{1e6 * median / updates:8.0f} µs an update")
    print(f"course / engine: {seconds['course'] / seconds['engine']:.1f}")
    print(report([{"updates": updates, **seconds}]))


if __name__ == "__main__":
    main()
