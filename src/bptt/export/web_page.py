"""Export to a web page: one HTML file that runs the model in a browser without a server."""

import base64
import json
import os
from importlib import resources
from importlib.metadata import PackageNotFoundError, metadata

import numpy as np

from bptt.checkpoint.format import Checkpoint
from bptt.config.defaults import TEMPERATURE
from bptt.export import common
from bptt.nn import model, tree

CELLS = ("vanilla", "gru", "lstm")  # those that web_page.html computes
WRITTEN = {"lines": "lines", "records": "texts", "stream": "text"}
LONGEST = {"lines": 100, "records": 500, "stream": 300}  # characters that are written, if a line does not end before


def home() -> str:
    """The address of the project, as the installed package says it; empty if it says none, or its owner has not filled it in."""
    try:
        addresses = metadata("bptt").get_all("Project-URL", [])
    except PackageNotFoundError:  # the source alone
        return ""
    places = dict(address.split(", ", 1) for address in addresses if ", https://" in address and "/OWNER/" not in address)
    return places.get("Homepage") or next(iter(places.values()), "")


def to_page(saved: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write a model into a new HTML file that continues what one types; its weights are float32.

    Raises:
        InputError: the file already exists.
        SaveError: the file cannot be written; nothing of it is left.
    """
    target = common.new_file(path)
    config = saved.config
    leaves = [(name, np.asarray(saved.weights[name], "<f4")) for name, _ in tree.named_leaves(model.shapes(config))]
    size = f"{config.layers} x {config.hidden} units, {tree.num_elements(model.shapes(config)):,} parameters"
    known = {
        "title": f"{saved.record.get('text', 'bptt')}: {WRITTEN[saved.mode]} that a network invents",
        "about": f"{config.cell}, {size}, {config.vocabulary} symbols. It runs in this page; nothing is sent anywhere.",
        "cell": config.cell,
        "hidden": config.hidden,
        "layers": config.layers,
        "mode": saved.mode,
        "symbols": saved.vocabulary.to_json(),
        "start": saved.vocabulary.start,
        "longest": LONGEST[saved.mode],
        "home": home(),
        "leaves": [[name, list(array.shape)] for name, array in leaves],
        "weights": base64.b64encode(b"".join(array.tobytes() for _, array in leaves)).decode(),
    }
    text = json.dumps(known, sort_keys=True).replace("<", "\\u003c")  # nothing in it ends the script that it stands in
    page = resources.files(__package__).joinpath("web_page.html").read_text("utf-8")
    page = page.replace('"TEMPERATURE"', f'"{TEMPERATURE}"').replace(">MODEL<", f">{text}<")
    common.write_file(target, page.encode())
