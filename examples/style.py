"""A text in a style: learns from a file, by default from Python's own help, and writes on, cautiously and boldly."""

import argparse

import bptt

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("text", nargs="?", default="python-help", help="a file, or a text that is built in")
parser.add_argument("--steps", type=int, default=1000, help="updates of the weights: more of them write better")
parser.add_argument("--seed", type=int, default=2, help="another one writes other texts")
arguments = parser.parse_args()

# what is held out is measured once, at the end, not ten times on the way
model = bptt.train(
    arguments.text, mode="stream", hidden=128, dropout=0.0, steps=arguments.steps, evaluate_every=arguments.steps, report=None
)
print(model)
for temperature in (0.5, 1.0):  # below 1 likely characters become likelier, above 1 unlikely ones
    print(f"\n--- temperature {temperature}\n")
    print(model.sample(length=300, temperature=temperature, seed=arguments.seed)[0])
