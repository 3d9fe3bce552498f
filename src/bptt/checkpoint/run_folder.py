"""The folder of a run: settings, metrics, samples, and the latest and the best checkpoints.

config.toml, env.json, metrics.jsonl, samples.txt, curve.png
checkpoints/step-00000200/ ..., and the links latest and best to two of them
"""

import contextlib
import errno
import heapq
import itertools
import json
import operator
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock

from bptt import errors, files
from bptt.checkpoint import store
from bptt.checkpoint.format import EVALUATION_FIELDS, MANIFEST, ROW_FIELDS, Checkpoint, check_row
from bptt.display import cross_entropy
from bptt.errors import CheckpointError, CheckpointWarning, InputError, InvalidFile, SaveError
from bptt.nn.cells import Cell

CONFIG, ENVIRONMENT, METRICS, SAMPLES, CURVE = "config.toml", "env.json", "metrics.jsonl", "samples.txt", "curve.png"
CHECKPOINTS, LATEST, BEST, LOCK = "checkpoints", "latest", "best", ".lock"
MAX_ROW_BYTES = 1 << 20  # of a line of metrics.jsonl: texts, and a few numbers for each layer
STEP = re.compile(r"step-(\d{8,18})")


def create(folder: Path, config: str, environment: dict[str, Any]) -> None:
    """Create the folder of a new run.

    Raises:
        AlreadyExists: the folder already exists.
        SaveError: the folder cannot be made.
    """
    try:
        files.write_folder(folder, {ENVIRONMENT: files.to_json(environment), CONFIG: config.encode("utf-8", "surrogateescape")})
        folder.joinpath(CHECKPOINTS).mkdir()
    except FileExistsError:
        raise store.already_exists(folder) from None
    except (OSError, ValueError) as error:
        raise SaveError(f"{folder}: cannot be made: {files.describe_os_error(error)}") from error


def write_config(folder: Path, config: str) -> None:
    """Write the current settings of a run into `config.toml`."""
    with _writing(folder):
        files.replace(folder / CONFIG, config.encode("utf-8", "surrogateescape"))


def discard(folder: Path) -> None:
    """Remove the folder of a run that has not saved a checkpoint."""
    if not has_saved(folder):
        shutil.rmtree(folder, ignore_errors=True)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, not a checkpoint or something else."""
    has_files = os.path.isfile(folder / CONFIG) or os.path.isdir(folder / CHECKPOINTS)
    return has_files and not os.path.lexists(folder / MANIFEST)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder against other writers; the system releases the lock of a process that ends.

    Raises:
        InputError: another process writes in this folder, no lock can be had there, or a part of it is a link elsewhere.
    """
    for path in (folder / LOCK, folder / CHECKPOINTS):
        if path.is_symlink():  # what it leads to is not this run's to write or to remove
            raise InputError(f"{path}: is a link, expected a part of the run itself: put what it leads to in its place")
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        last = read_environment(folder).get("sessions", [{}])[-1]
        who = f"process {last.get('pid', '?')} on {last.get('host', '?')}" if isinstance(last, dict) else "another process"
        raise InputError(f"{folder}: {who} is writing there: wait for it, or end it") from None
    except (OSError, NotImplementedError) as error:  # the latter from filelock, on a disk that knows no locks
        raise InputError(f"{folder}: cannot be locked ({files.describe_os_error(error)}): copy it to another disk") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process writes in the folder of a run, which must not begin to do so at this very moment."""
    with contextlib.suppress(OSError, InvalidFile), files.open_regular(folder / LOCK) as file:
        return not files.lock(file.fileno(), shared=True)
    return False


def read_environment(folder: Path) -> dict[str, Any]:
    """Read `env.json`, the sessions of a run; empty if it cannot be read."""
    with contextlib.suppress(InvalidFile):
        value = files.parse_json(files.read(folder / ENVIRONMENT, 1 << 24), 100_000)
        if isinstance(value, dict) and isinstance(value.get("sessions", []), list) and value.get("sessions"):
            return value
    return {}


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, newest first; CheckpointError if the folder cannot be read."""
    try:
        paths = [path for path in (folder / CHECKPOINTS).iterdir() if STEP.fullmatch(path.name) and not path.is_symlink()]
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not os.path.islink(folder / CHECKPOINTS):
            return []
        # as if there were none, a run would begin anew and write over its metrics
        raise CheckpointError(f"{folder / CHECKPOINTS}: cannot be read: {files.describe_os_error(error)}") from None
    return sorted(paths, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def has_saved(folder: Path) -> bool:
    """Whether a run has checkpoints, or a folder of them that cannot be read."""
    try:
        return bool(checkpoints(folder))
    except CheckpointError:
        return True


def read_checkpoint(path: Path, *, run: bool = False, cell: Cell | None = None) -> tuple[Path, Checkpoint]:
    """Read a checkpoint: `path` itself, or a run's best one, or with `run` the newest one to resume.

    One that does not verify is passed over, with a CheckpointWarning, for the newest one that does.

    Raises:
        CheckpointError: there is none that can be used.
    """
    if not is_run(path):
        if path.name in (LATEST, BEST) and path.parent.name == CHECKPOINTS:
            target = _pointed(path)
            if target is None and (path.is_symlink() or not os.path.isfile(path / MANIFEST)):
                raise CheckpointError(f"{path}: names no checkpoint: name another one, or the run {path.parent.parent}")
            path = target or path
        return path, store.read(path, run=run, cell=cell)
    best = None if run else _pointed(path / CHECKPOINTS / BEST)
    candidates = list(dict.fromkeys([*([best] if best else []), *checkpoints(path)]))
    problems: list[CheckpointError] = []
    for candidate in candidates:
        try:
            checkpoint = store.read(candidate, run=run, cell=cell)
        except CheckpointError as error:
            problems.append(error)
            continue
        for problem in problems:
            errors.warn(f"{problem}; {candidate.name} is used instead", CheckpointWarning)
        return candidate, checkpoint
    if problems:
        raise problems[0]
    raise CheckpointError(f"{path}: the run has saved nothing yet: resume it with bptt train --resume {path}")


def save_checkpoint(folder: Path, saved: Checkpoint, step: int, best: int, most: int) -> Path:
    """Save a checkpoint, and remove all but the newest `most` ones and the best one, that of step `best`.

    Raises:
        SaveError: it cannot be written; those that were there still are.
    """
    target = folder / CHECKPOINTS / checkpoint_name(step)
    with _writing(folder):
        if not os.path.isfile(folder / CONFIG):
            raise FileNotFoundError(errno.ENOENT, f"{CONFIG} is not there any more")
        target.parent.mkdir(exist_ok=True)
    store.write(target, saved)
    with _writing(folder / CHECKPOINTS):
        update_links(folder, target.name, checkpoint_name(best))
    old: list[Path] = []
    with contextlib.suppress(CheckpointError):  # they go the next time
        old = checkpoints(folder)[most:]
    for path in old:
        if path.name != checkpoint_name(best):
            with contextlib.suppress(OSError):
                files.remove_folder(path)
    return target


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"step-{step:08d}"


def update_links(folder: Path, latest: str, best: str) -> None:
    """Point the links latest and best to checkpoints; on a system without links, files hold their names."""
    for link, target in [(LATEST, latest), (BEST, best)]:
        path = folder / CHECKPOINTS / link
        if _pointed(path) == path.with_name(target) or not path.with_name(target).is_dir():
            continue
        partial = files.temporary_path(path)
        if path.is_dir() and not path.is_symlink():  # a copy of the run, by a tool that follows links
            files.remove_folder(path)
        try:
            if os.name == "nt":  # where a link to a folder cannot be replaced
                raise OSError
            partial.symlink_to(target, target_is_directory=True)
        except (OSError, NotImplementedError):  # the latter from pathlib, on a system that knows no links
            files.replace(path, target.encode())
        else:
            files.rename(partial, path)


def repair(folder: Path, start: Path | None, history: Iterable[dict[str, Any]]) -> None:
    """Clean the folder after a killed session, before training resumes from the checkpoint `start` with its history.

    What was half written goes; newer checkpoints, which do not verify, are moved aside.
    """
    with _writing(folder):
        for path in (folder, folder / CHECKPOINTS):
            path.mkdir(exist_ok=True)
            files.remove_leftovers(path)
        for path in checkpoints(folder):
            if path == start:
                break
            aside = (path.with_name(f"{path.name}.damaged{number or ''}") for number in itertools.count())
            files.rename(path, next(other for other in aside if not os.path.lexists(other)))
    write_history(folder, history)


def write_history(folder: Path, history: Iterable[dict[str, Any]]) -> None:
    """Write a history into `metrics.jsonl` and `samples.txt`, in place of what they hold.

    The history of a checkpoint may leave rows out, see `format.MAX_HISTORY_BYTES`: those that `metrics.jsonl` has stay there.
    """
    rows = list(history)
    with _writing(folder):
        for file, form in [(SAMPLES, _samples), (METRICS, _metrics)]:  # in this order, as both are made of the metrics
            complete = heapq.merge(_rows_left_out(folder / METRICS, rows), rows, key=operator.itemgetter("step"))
            files.replace(folder / file, (form(row).encode("utf-8", "surrogatepass") for row in complete))


def _rows_left_out(metrics: Path, history: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of `metrics.jsonl` before the last one of a history that it does not have; torn ones are passed over."""
    last, steps = -1, {row["step"] for row in history}
    with contextlib.suppress(InvalidFile), files.open_regular(metrics) as file:
        while 0 < len(line := file.readline(MAX_ROW_BYTES)) < MAX_ROW_BYTES:
            with contextlib.suppress(InvalidFile):
                row = check_row(files.parse_json(line, len(line)))
                if last <= row["step"] < max(steps, default=0) and row["step"] not in steps:
                    last = row["step"]
                    yield row


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """Append a row of the history to `metrics.jsonl` and `samples.txt`."""
    with _writing(folder):
        for file, form in [(METRICS, _metrics), (SAMPLES, _samples)]:
            if text := form(row):
                files.append(folder / file, text)


def record_session(folder: Path, session: dict[str, Any], *, new: bool) -> None:
    """Add a session to `env.json`, or update the last one."""
    sessions = read_environment(folder).get("sessions", [])
    with _writing(folder):
        files.replace(folder / ENVIRONMENT, files.to_json({"sessions": [*(sessions if new else sessions[:-1]), session]}))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = files.describe_os_error(error) if os.path.lexists(folder) else "it has been moved or removed"
        raise SaveError(f"cannot write in {folder}: {reason}") from error


def _metrics(row: dict[str, Any]) -> str:
    return json.dumps({name: row[name] for name in (*ROW_FIELDS, *EVALUATION_FIELDS) if name in row}) + "\n"


def _samples(row: dict[str, Any]) -> str:
    if "sample" not in row:
        return ""
    measured = f", {cross_entropy.per_held_out(row['held_out'])}" if "held_out" in row else ""
    return f"step {row['step']}{measured}\n" + "".join(f"{text}\n" for text in row["sample"]) + "\n"


def _pointed(link: Path) -> Path | None:
    """Return the checkpoint that a link, or a file with its name, points to; None unless it is in the same folder."""
    try:
        target = os.readlink(link) if link.is_symlink() else files.read(link, 64).decode()
    except (OSError, ValueError, InvalidFile):
        return None
    beside = link.with_name(target) if STEP.fullmatch(target) else None
    return beside if beside and beside.is_dir() and not beside.is_symlink() else None
