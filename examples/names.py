"""A generator of names: learns from the built-in dinosaurs, prints ten names that are not among them, saves the model."""

import argparse
from pathlib import Path

import bptt

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2000, help="updates of the weights")
parser.add_argument("--out", type=Path, default=Path("dinosaur-names"), help="a new folder for the model")
arguments = parser.parse_args()
if arguments.out.exists():
    parser.error(f"{arguments.out} already exists: name another folder with --out")

model = bptt.train("dinosaurs", steps=arguments.steps, report=None)
for name in model.sample(10, temperature=0.8, novel=True):
    print(name.capitalize())
model.save(arguments.out)
print(f"saved: bptt sample {arguments.out} --count 10 --seed 1")
