"""The command `bptt runs`, and the run that a command takes if none is named."""

import datetime
import json as json_
import os
from pathlib import Path

from bptt.checkpoint import run_summary
from bptt.checkpoint.run_summary import RunSummary
from bptt.cli.console import complain, print_line
from bptt.cli.parser import RUNS, Json
from bptt.display import table
from bptt.display.cross_entropy import bits
from bptt.display.text import printable
from bptt.errors import InputError

HEADS = ("run", "text", "cell", "units", "steps", "nats", "bits", "seconds", "state")


def newest() -> Path:
    """Return the newest run and name it on standard error.

    Raises:
        InputError: there is none.
    """
    run = run_summary.newest_run(RUNS)
    if run is None:
        raise InputError(f"no run in {RUNS}: name a run or a saved model, or train one with bptt train")
    complain(f"using {run}, the newest run")
    return run


def runs(folder: Path = RUNS, /, *, as_json: Json = False) -> int:  # noqa: D417
    """List the runs in a folder, the newest last: progress, best loss, and how to resume those that were stopped.

    Nats and bits are the best ones per held-out character: the lower, the better. Compare them on one text only. The newest run
    is the one that saved a checkpoint last.

    Parameters
    ----------
    folder
        A folder with runs, or one run.
    """
    folders = [] if folder == RUNS and not os.path.lexists(RUNS) else run_summary.list_runs(folder)
    summaries = [run_summary.summarize(run) for run in folders]
    if as_json:
        for summary in summaries:
            print_line(json_.dumps(_fields(summary)))
        return 0
    if not summaries:
        return complain(f"no run in {folder}: bptt train makes one in {RUNS}")
    width = table.columns()
    rows = [tuple(printable(cell) for cell in _row(summary)) for summary in summaries]
    print_line("\n".join(table.lay_out(HEADS, rows, "lllrrrrrl", width)))
    for summary in summaries:
        if summary.problem:
            place = "" if summary.problem.startswith(str(summary.folder)) else f"{summary.folder}: "
            problem = f"{place}{summary.problem}"
            print_line("\n".join(table.wrap(printable(problem), width)))
        if summary.resume:
            print_line(printable(f"{summary.folder}: {summary.state}, resume with"))
            print_line(printable(f"  {summary.resume}"))
    return 0


def _name(summary: RunSummary) -> str:
    return summary.folder.name or summary.folder.resolve().name


def _row(summary: RunSummary) -> tuple[str, ...]:
    """The cells of a run; empty where its files do not say so."""
    layers = f"{summary.layers} x " if (summary.layers or 1) > 1 else ""
    planned = "" if summary.steps is None else f"/{summary.steps:,}"
    nats = None if summary.best is None else summary.best[1]
    return (
        _name(summary),
        summary.text or "",
        summary.cell or "",
        "" if summary.hidden is None else f"{layers}{summary.hidden:,}",
        f"{summary.step:,}{planned}" if summary.state != "damaged" else "",
        "" if nats is None else f"{nats:.4f}",
        "" if nats is None else f"{bits(nats):.4f}",
        f"{summary.seconds:,.1f}" if summary.state != "damaged" else "",
        summary.state,
    )


def _fields(summary: RunSummary) -> dict[str, object]:
    """What JSON says of a run."""
    step, nats = summary.best or (None, None)
    saved = datetime.datetime.fromtimestamp(min(max(summary.saved, 0.0), 253e9), datetime.UTC)
    return {
        "run": str(summary.folder),
        "saved": saved.isoformat(timespec="seconds"),
        "state": summary.state,
        "problem": summary.problem or None,
        "text": summary.text,
        "cell": summary.cell,
        "units": summary.hidden,
        "layers": summary.layers,
        "step": summary.step,
        "steps": summary.steps,
        "best_step": step,
        "nats_per_char": nats,
        "bits_per_char": None if nats is None else bits(nats),
        "seconds": summary.seconds,
        "resume": summary.resume or None,
    }
