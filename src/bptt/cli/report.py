"""The command `bptt report`."""

from pathlib import Path

from bptt.checkpoint import run_folder
from bptt.cli.console import print_line
from bptt.cli.parser import CellFile, Encoding, Text, app
from bptt.cli.runs import newest
from bptt.cli.texts import reading_for
from bptt.errors import InputError
from bptt.inference.language_model import load
from bptt.report import page


@app.command
def report(  # noqa: D417
    run: Path | None = None,
    text: Text | None = None,
    /,
    *,
    out: Path | None = None,
    encoding: Encoding | None = None,
    cell: CellFile = None,
) -> int:
    """Write a page about a model: how it was trained, what its units follow, how far back its gradients reach.

    One file that needs no network and no scripts.

    Parameters
    ----------
    run
        A run, of which the best checkpoint is taken, or one checkpoint, or a saved model; by default the newest run in runs/.
    text
        What to look at: a file, - for standard input, or a built-in text; by default what the run held out.
    out
        The file, which is replaced; by default report.html in the folder of the run, or here for a model alone.
    """
    if encoding is not None and text is None:
        raise InputError("--encoding is that of TEXT: give both, or neither")
    run = run or newest()
    model = load(run, backend="numpy", cell=cell)
    target = out or (run if run_folder.is_run(run) else Path()) / "report.html"
    page.write(model, run, text, target, reading_for(model, encoding, None, "*"))
    print_line(f"written: {target}")
    return 0
