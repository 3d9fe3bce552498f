"""Models as files for other programs: PyTorch, ONNX, a web page."""

import importlib.util
import os
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

from bptt.checkpoint.format import Checkpoint
from bptt.errors import InputError
from bptt.export import onnx, pytorch, pytorch_header, web_page

ExportFormat = Literal["torch", "onnx", "page"]


class Exporter(NamedTuple):
    """A file format for other programs."""

    suffix: str  # of the file
    write: Callable[[Checkpoint, str | os.PathLike[str]], None]  # writes a new file
    description: str  # a phrase for the help of `bptt export`
    layouts: Collection[str] | None = None  # built-in cells that the format has a layout for; None: it takes any cell
    extra: str = ""  # extra of this package that the format needs, named like the package that it installs


EXPORTERS: dict[str, Exporter] = {
    "torch": Exporter(
        ".safetensors",
        pytorch.to_torch,
        "weights that a PyTorch network loads with strict=True",
        layouts=pytorch_header.MODULES,
    ),
    "onnx": Exporter(
        ".onnx",
        onnx.to_onnx,
        "a graph, tokens and states in, logits and states out",
        layouts=onnx.OPERATORS,
        extra="onnx",
    ),
    "page": Exporter(
        ".html",
        web_page.to_page,
        "a page that runs the model in a browser, without a network",
        layouts=web_page.CELLS,
    ),
}


def export(saved: Checkpoint, format: str, path: str | os.PathLike[str]) -> None:
    """Write a model into a new file of a format.

    Raises:
        InputError: an unknown format, a package that is not installed, a cell that the format has no layout for, a file that
            exists already, or a model that is too large for the format.
        SaveError: the file cannot be written.
    """
    if format not in EXPORTERS:
        raise InputError(f"format {format!r} is unknown: use one of {', '.join(EXPORTERS)}")
    layouts, extra, cell = EXPORTERS[format].layouts, EXPORTERS[format].extra, saved.config.cell
    if layouts is not None and (saved.config.user_cell is not None or cell not in layouts):
        raise InputError(f"the {format} format has no layout for the cell {cell}: it knows {', '.join(layouts)}")
    if extra and importlib.util.find_spec(extra) is None:
        raise InputError(f"the {format} format needs {extra}, which is not installed: pip install 'bptt[{extra}]'")
    EXPORTERS[format].write(saved, path)
