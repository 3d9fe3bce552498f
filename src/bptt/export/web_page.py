"""A model as a page that runs in a browser: one file, the weights inside, without a server and without a network."""

import base64
import json
import os
from importlib import resources

import numpy as np

from bptt.export import pytorch
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree

WRITTEN = {"lines": "lines", "stream": "text"}
LONGEST = {"lines": 100, "stream": 300}  # characters that are written, if a line does not end before


def to_page(trained: LanguageModel, path: str | os.PathLike[str]) -> None:
    """Write a model into a new file, a page that lets one type the beginning of a text and writes on; its weights in float32.

    Raises:
        InputError: something is there already.
        SaveError: the file cannot be written; nothing of it is left.
    """
    target = pytorch.unused(path)
    config = trained.config
    leaves = [(name, np.asarray(trained.backend.get(array), "<f4")) for name, array in tree.leaves(trained.params)]
    size = f"{config.layers} x {config.hidden} units, {tree.count(model.shapes(config)):,} parameters"
    known = {
        "title": f"{trained.record.get('text', 'bptt')}: {WRITTEN[trained.mode]} that a network invents",
        "about": f"{config.cell}, {size}, {config.vocabulary} symbols. It runs in this page; nothing is sent anywhere.",
        "cell": config.cell,
        "hidden": config.hidden,
        "layers": config.layers,
        "mode": trained.mode,
        "symbols": trained.vocabulary.to_json(),
        "longest": LONGEST[trained.mode],
        "leaves": [[name, list(array.shape)] for name, array in leaves],
        "weights": base64.b64encode(b"".join(array.tobytes() for _, array in leaves)).decode(),
    }
    text = json.dumps(known, sort_keys=True).replace("<", "\\u003c")  # nothing in it ends the script that it stands in
    page = resources.files(__package__).joinpath("player.html").read_text("utf-8").replace(">MODEL<", f">{text}<")
    pytorch.write(target, page.encode())
