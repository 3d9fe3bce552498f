"""What dynamic evaluation is worth, and how its learning rate and decay were chosen.

TEXT is a file or a built-in text. A model is trained on its first 80 %. The next 10 % is evaluated with all rates and decays,
the last 10 % with the default ones alone. Characters that the model does not know are left out.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/dynamic_evaluation.py tinyshakespeare.txt --hidden 128 --steps 3000
"""

import argparse
import itertools
import time
from typing import Any

from machine import report

import bptt
from bptt.data import corpus
from bptt.inference import dynamic_evaluation


def split(text: str) -> list[str]:
    """The first 80 % of a text, the next 10 % and the last 10 %, each of whole lines."""
    cuts = [text.rfind("\n", 0, len(text) * tenths // 10) + 1 for tenths in (8, 9)]
    parts = [text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]]
    known = set(parts[0])
    return [parts[0], *("".join(character for character in part if character in known) for part in parts[1:])]


def measure(model: bptt.LanguageModel, part: str, text: str) -> dict[str, Any]:
    """The dynamic evaluation of a text with the present rate and decay."""
    began = time.perf_counter()
    result = model.evaluate(text, dynamic=True)
    rate, decay, nats = dynamic_evaluation.LEARNING_RATE, dynamic_evaluation.DECAY, round(result.nats_per_char, 4)
    speed = round(result.characters / (time.perf_counter() - began))
    print(
        f"{part:10}  rate {rate:<7g} decay {decay:<7g} {nats:.4f} nats per character, {speed:,} characters a second", flush=True
    )
    return {"part": part, "rate": rate, "decay": decay, "nats_per_char": nats, "characters_per_second": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rates", nargs="+", type=float, default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--decays", nargs="+", type=float, default=[1e-3, 3e-3])
    arguments = parser.parse_args()
    training, validation, test = split(corpus.read(arguments.text).text)
    how = {"cell": arguments.cell, "hidden": arguments.hidden, "steps": arguments.steps}
    model = bptt.train(training, backend="numpy", report=None, **how)
    static = {part: round(model.evaluate(text).nats_per_char, 4) for part, text in (("validation", validation), ("test", test))}
    print(f"{model}\nstatic: {static}")
    rows = [measure(model, "test", test)]
    for dynamic_evaluation.LEARNING_RATE, dynamic_evaluation.DECAY in itertools.product(arguments.rates, arguments.decays):
        rows.append(measure(model, "validation", validation))
    print(report([{"text": arguments.text, **how, "static": static}, *rows]))


if __name__ == "__main__":
    main()
