"""The commands `bptt export` and `bptt import`."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bptt.cli.console import print_line
from bptt.cli.parser import CellFile, app, converted_path
from bptt.config.settings import Mode
from bptt.export import EXPORTERS, ExportFormat
from bptt.inference.language_model import from_torch, load

FORMATS = "; ".join(f"{name} ({exporter.suffix}): {exporter.description}" for name, exporter in EXPORTERS.items())
Format = Annotated[ExportFormat, Parameter(help=f"The file format. {FORMATS}.")]
Symbols = Annotated[str, Parameter(converter=converted_path)]


@app.command
def export(run: Path, /, *, to: Format, out: Path | None = None, cell: CellFile = None) -> int:  # noqa: D417
    """Write a saved model to a file for PyTorch, ONNX or a web browser.

    The PyTorch network has a torch.nn.RNN, GRU or LSTM named rnn and a torch.nn.Linear named decoder. Symbols, mode and the
    states that texts begin with are JSON in the metadata of safetensors and ONNX files.

    Parameters
    ----------
    run
        A run, of which the best checkpoint is taken, or one checkpoint, or a saved model.
    out
        The file, which must not exist yet; by default the name of the model with the suffix of the format, here.
    """
    out = Path(os.path.basename(os.path.abspath(run)) + EXPORTERS[to].suffix) if out is None else out
    load(run, backend="numpy", cell=cell).export(to, out)
    print_line(f"saved in {out}")
    return 0


@app.command(name="import")
def import_(file: Path, /, *, out: Path, symbols: Symbols | None = None, mode: Mode | None = None) -> int:
    r"""Make a model from a file of PyTorch weights.

    The file is one that bptt export wrote, or that was saved from a network of your own: a torch.nn.RNN (taken to have tanh),
    GRU or LSTM, which sees symbols one-hot or behind a torch.nn.Embedding, and a torch.nn.Linear, with or without biases and by
    any names, in float32 or float64, saved by safetensors.torch.save_file(network.state_dict(), FILE).

    Parameters
    ----------
    file
        The file.
    out
        Folder of the model, which must not exist yet.
    symbols
        Of a file that does not say its symbols: these in the order of their ids, the newline among them, as they are or in a
        JSON file that holds a list of them; or bytes.
    mode
        Of a file that does not say so: whether the network knows lines, or one stream.
    """
    trained = from_torch(file, symbols=symbols, mode=mode)
    trained.save(out)
    zero = "" if trained.params.initial else "texts begin from states of zero, since the file says no others\n"
    print_line(f"saved in {out}\n{zero}more: bptt sample {out} --count 10")
    return 0
