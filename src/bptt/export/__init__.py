"""Models as files for other programs: PyTorch, ONNX, a web page."""

import os
from collections.abc import Callable
from typing import Literal, NamedTuple

from bptt.checkpoint.format import Checkpoint
from bptt.export import onnx, pytorch, web_page

ExportFormat = Literal["torch", "onnx", "page"]


class Exporter(NamedTuple):
    """A file format for other programs."""

    suffix: str  # of the file
    write: Callable[[Checkpoint, str | os.PathLike[str]], None]  # writes a new file
    description: str  # one sentence for the help of `bptt export`


EXPORTERS: dict[str, Exporter] = {
    "torch": Exporter(".safetensors", pytorch.to_torch, "Weights that a PyTorch network loads with strict=True."),
    "onnx": Exporter(".onnx", onnx.to_onnx, "A graph: tokens and states in, logits and states out."),
    "page": Exporter(".html", web_page.to_page, "A page that runs the model in a browser, without a network."),
}
