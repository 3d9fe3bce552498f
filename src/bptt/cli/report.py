"""The command `bptt report`."""

from pathlib import Path

from bptt.checkpoint import run_folder
from bptt.cli.console import print_line
from bptt.cli.parser import CellFile, Encoding, Text
from bptt.cli.runs import newest
from bptt.cli.texts import reading_for
from bptt.errors import InputError
from bptt.inference.language_model import load
from bptt.report import page


def report(  # noqa: D417
    run: Path | None = None,
    text: Text | None = None,
    /,
    *,
    out: Path | None = None,
    encoding: Encoding | None = None,
    cell: CellFile = None,
) -> int:
    """Write a page about a model: its training, what its units respond to, and how far back its gradients reach.

    The page is one file, which needs no network and no scripts.

    Parameters
    ----------
    run
        A run (its best checkpoint), one checkpoint, or a saved model. By default the newest run in runs/.
    text
        Text that the model reads: a file, - for standard input, or a built-in text. By default the validation set of the run.
    out
        File to write or replace. By default report.html in the run folder, or in the current folder for a model without a run.
    """
    if encoding is not None and text is None:
        raise InputError("--encoding is that of TEXT: give both, or neither")
    run = run or newest()
    model = load(run, backend="numpy", cell=cell)
    target = out or (run if run_folder.is_run(run) else Path()) / "report.html"
    page.write(model, run, text, target, reading_for(model, encoding, None, "*"))
    print_line(f"written: {target}")
    return 0
