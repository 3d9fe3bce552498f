"""The commands `bptt export` and `bptt import`."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bptt.cli.console import print_line
from bptt.cli.parser import CellFile, converted_path
from bptt.config.settings import Mode
from bptt.export import EXPORTERS, ExportFormat
from bptt.inference.language_model import from_torch, load

FORMATS = "; ".join(f"{name} ({exporter.suffix}): {exporter.description}" for name, exporter in EXPORTERS.items())
Format = Annotated[ExportFormat, Parameter(help=f"The file format. {FORMATS}.")]
Symbols = Annotated[str, Parameter(converter=converted_path)]


def export(run: Path, /, *, to: Format, out: Path | None = None, cell: CellFile = None) -> int:  # noqa: D417
    """Write a saved model to a file for PyTorch, ONNX or a web browser.

    The PyTorch network has a torch.nn.RNN, GRU or LSTM named rnn and a torch.nn.Linear named decoder. Symbols, mode and the
    states that texts begin with are JSON in the metadata of safetensors and ONNX files.

    Parameters
    ----------
    run
        A run (its best checkpoint), one checkpoint, or a saved model.
    out
        New file. By default the name of the model with the suffix of the format, in the current folder.
    """
    out = Path(os.path.basename(os.path.abspath(run)) + EXPORTERS[to].suffix) if out is None else out
    load(run, backend="numpy", cell=cell).export(to, out)
    print_line(f"saved in {out}")
    return 0


def import_(file: Path, /, *, out: Path, symbols: Symbols | None = None, mode: Mode | None = None) -> int:
    r"""Make a model from a file of PyTorch weights.

    The file comes from bptt export, or from a network of your own by safetensors.torch.save_file(network.state_dict(), FILE).
    The network has a torch.nn.RNN (assumed to have tanh), GRU or LSTM, and a torch.nn.Linear. Its input is one-hot, or goes
    through a torch.nn.Embedding. Biases are optional, modules can have any names, and weights are float32 or float64.

    Parameters
    ----------
    file
        The safetensors file.
    out
        New folder for the model.
    symbols
        Symbols in the order of their ids, including the newline, for a file that does not name them: as a text, as a JSON file
        with a list of them, or bytes.
    mode
        Whether the network writes lines, records or one stream, for a file that does not say so.
    """
    trained = from_torch(file, symbols=symbols, mode=mode)
    trained.save(out)
    zero = "" if trained.params.initial else "texts begin from states of zero, since the file says no others\n"
    print_line(f"saved in {out}\n{zero}more: bptt sample {out} --count 10")
    return 0
