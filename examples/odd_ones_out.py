"""The odd ones out: learns what names of dinosaurs look like, and shows which strings of a list look least like them."""

import argparse

import bptt

STRINGS = ["velociraptor", "stegosaurus", "qwertyuiop", "megalosaurus", "keyboard", "pteranodon", "zzzzzz", "triceratops"]

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("strings", nargs="*", default=STRINGS, help="what to judge")
parser.add_argument("--steps", type=int, default=2000, help="updates of the weights")
parser.add_argument("--show", type=int, default=3, help="how many of the least likely")
arguments = parser.parse_args()

model = bptt.train("dinosaurs", steps=arguments.steps, report=None)
strange = [text for text in arguments.strings if model.vocabulary.unknown(text)]
for text in strange:  # with characters that no name has, which the model could only refuse
    print(f"     inf  {text}")
known = [text for text in arguments.strings if text not in strange]
scores = sorted(model.scores(known), key=lambda score: -score.nats_per_char)  # per character: a long string is not odd
for score in scores[: max(0, arguments.show - len(strange))]:
    worst = max(range(len(score.each)), key=lambda i: score.each[i])
    print(f"{score.nats_per_char:8.3f}  {score.text}  (least expected: {score.symbols[worst]!r}, number {worst + 1})")
