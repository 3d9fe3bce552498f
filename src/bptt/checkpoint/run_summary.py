"""A summary of each run, read from its records without its weights; damaged files are reported in the summary."""

import contextlib
import os
import shlex
import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bptt import files
from bptt.checkpoint import run_folder, store
from bptt.checkpoint.format import COUNTS, MANIFEST, Progress, check_row, is_number
from bptt.checkpoint.store import RunRecords
from bptt.config import toml
from bptt.errors import CheckpointError, InputError, InvalidFile
from bptt.nn.cells import CELLS

State = Literal["finished", "stopped early", "paused", "interrupted", "diverged", "failed", "running now", "damaged"]
ENDED: dict[Any, State] = {
    "done": "finished",
    "patience": "stopped early",
    "paused": "paused",
    "diverged": "diverged",
    "unsaved": "failed",
    "failed": "failed",
}
RESUMABLE = ("paused", "interrupted", "failed")


class RunSummary(NamedTuple):
    """What is known of a run; None where its files do not say so."""

    folder: Path
    saved: float  # when its newest checkpoint was written, in seconds since 1970; of none, when its folder was
    state: State
    problem: str = ""  # what is wrong with its files
    text: str | None = None
    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    step: int = 0
    steps: int | None = None  # planned
    best: tuple[int, float] | None = None  # step and nats per held-out character
    seconds: float = 0.0
    resume: str = ""  # the command that resumes it, of a run that can be


def list_runs(folder: Path) -> list[Path]:
    """List the runs in a folder, or the folder itself if it is one, the newest one last.

    Raises:
        InputError: the folder does not exist or cannot be read.
    """
    if run_folder.is_run(folder):
        return [folder]
    try:
        runs = [path for path in folder.iterdir() if run_folder.is_run(path)]
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(
            f"{folder}: {files.describe_os_error(error)}: expected a folder with runs, as bptt train makes it"
        ) from None
    return sorted(runs, key=lambda path: (_saved(path), path.name))


def newest_run(folder: Path) -> Path | None:
    """Return the run in a folder whose newest checkpoint was written last; None if there is none."""
    runs = list_runs(folder) if folder.is_dir() else []
    return next((run for run in reversed(runs) if run_folder.has_saved(run)), None)


def read_run(folder: Path) -> RunRecords:
    """Read the records of the newest checkpoint of a run that is not damaged, or of one checkpoint.

    Raises:
        CheckpointError: there is none that can be used.
    """
    if not run_folder.is_run(folder):
        return store.read_records(folder)
    problem: CheckpointError | None = None
    for path in run_folder.checkpoints(folder):
        try:
            records = store.read_records(path)
        except CheckpointError as error:
            problem = problem or error
            continue
        return records._replace(problem="" if problem is None else str(problem))
    raise problem or CheckpointError(f"{folder}: the run has saved nothing yet: resume it with bptt train --resume {folder}")


def summarize(folder: Path) -> RunSummary:
    """Summarize a run; a damaged one, too."""
    saved = _saved(folder)
    try:
        if not run_folder.checkpoints(folder):
            return _before_first_checkpoint(folder, saved)
        records = read_run(folder)
    except CheckpointError as error:
        return RunSummary(folder, saved, "damaged", str(error))
    record, progress = records.record, records.progress
    plan = record.get("plan")
    steps = plan.get("steps") if isinstance(plan, dict) else None
    state = _state(folder, progress.step, steps if type(steps) is int else None)
    if state == "running now":
        progress = _with_newest_rows(folder, progress)
    return RunSummary(
        folder,
        saved,
        state,
        records.problem,
        text=record.get("text"),
        cell=records.cell,
        hidden=records.config.hidden,
        layers=records.config.layers,
        step=progress.step,
        steps=steps if type(steps) is int and steps > 0 else None,
        best=progress.best,
        seconds=progress.seconds,
        resume=_resume_command(folder, record.get("source"), "cell_file" in record) if state in RESUMABLE else "",
    )


def _before_first_checkpoint(folder: Path, saved: float) -> RunSummary:
    """Summarize a run that has no checkpoint yet, by its settings and its metrics."""
    try:
        table = tomllib.loads(files.read(folder / run_folder.CONFIG, toml.MAX_BYTES).decode("utf-8", "surrogateescape"))
    except (InvalidFile, ValueError, RecursionError) as error:
        return RunSummary(folder, saved, "damaged", f"{folder / run_folder.CONFIG}: {files.describe_os_error(error)}")
    progress = _with_newest_rows(folder, Progress(0, 0, 0, 0, 0.0, None, 0, (), (), ()))
    sizes = {name: table.get(name) if _is_count(name, table.get(name)) else None for name in ("hidden", "layers")}
    steps, cell, text = table.get("steps"), table.get("cell"), table.get("text")
    state = _state(folder, progress.step, None)
    return RunSummary(
        folder,
        saved,
        state,
        "has saved nothing yet",
        text=Path(text).stem if isinstance(text, str) else None,
        cell=cell if isinstance(cell, str) else None,
        **sizes,
        step=progress.step,
        steps=steps if type(steps) is int and steps > 0 else None,
        best=progress.best,
        seconds=progress.seconds,
        resume=_resume_command(folder, text, cell not in tuple(CELLS)) if state in RESUMABLE else "",
    )


def _is_count(name: str, value: Any) -> bool:
    _, kind, fine = COUNTS[name]
    return type(value) is kind and bool(fine(value))


def _with_newest_rows(folder: Path, progress: Progress) -> Progress:
    """The progress with the rows of `metrics.jsonl` that a checkpoint does not have yet."""
    rows = _newest_rows(folder, max([progress.step, *(row["step"] for row in progress.history[-1:])]))
    if not rows:
        return progress
    measured = [(row["step"], row["held_out"]) for row in rows if "held_out" in row]
    best = min([*([progress.best] if progress.best else []), *measured], key=lambda one: one[1], default=None)
    last = rows[-1]
    return progress._replace(step=last["step"], seconds=last["seconds"], best=best, history=(*progress.history, *rows))


def _newest_rows(folder: Path, after: int) -> list[dict[str, Any]]:
    """The rows at the end of `metrics.jsonl` that are of later steps, at most a megabyte of them; torn ones are passed over."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, InvalidFile), files.open_regular(folder / run_folder.METRICS) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - run_folder.MAX_ROW_BYTES))
        for line in file.read(run_folder.MAX_ROW_BYTES).splitlines():
            with contextlib.suppress(InvalidFile):
                row = check_row(files.parse_json(line, len(line)))
                if row["step"] > (rows[-1]["step"] if rows else after):
                    rows.append(row)
    return rows


def _state(folder: Path, step: int, steps: int | None) -> State:
    """How a run ended by its last session, or that it has not."""
    session = run_folder.read_environment(folder).get("sessions", [{}])[-1]
    ended = session.get("ended") if isinstance(session, dict) else None
    if isinstance(ended, str):
        return ENDED.get(ended, "interrupted")
    if run_folder.is_locked(folder):  # only a run that has not ended is looked at: one that begins is not disturbed
        return "running now"
    return "finished" if steps is not None and step >= steps else "interrupted"


def _resume_command(folder: Path, source: Any, user_cell: bool) -> str:
    """The command that resumes a run, in Python if its text was passed in Python."""
    if not source:
        return f"bptt.train(TEXT, resume={str(folder)!r}{', cell=CELL' * user_cell})"
    words = shlex.quote(str(folder)) + " --cell FILE.py" * user_cell
    return f"bptt train {'TEXT ' * (source == '-')}--resume {words}"


def _saved(folder: Path) -> float:
    """When the newest checkpoint of a run was written, or else its folder."""
    newest: list[Path] = []
    with contextlib.suppress(CheckpointError):
        newest = run_folder.checkpoints(folder)[:1]
    for path in (*(path / MANIFEST for path in newest), *newest, folder):
        with contextlib.suppress(OSError):
            time = os.lstat(path).st_mtime
            return time if is_number(time) else 0.0
    return 0.0
