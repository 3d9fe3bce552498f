"""Writing and reading a checkpoint: a folder with a model, in a run the training state, and a manifest with checksums.

The folder appears by one rename after all its files are on the disk, and an existing one is never written over. Reading one
never executes anything, and takes no memory for what its manifest and its configuration do not bear out.
"""

import contextlib
import difflib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from bptt import files, system
from bptt.backend import HostArray
from bptt.checkpoint import format as checkpoint_format
from bptt.checkpoint.format import CONFIG, MANIFEST, OPTIMIZER, TRAINING, VOCABULARY, WEIGHTS, Checkpoint, Progress
from bptt.config import user_cells
from bptt.config.settings import Mode
from bptt.errors import AlreadyExists, CheckpointError, InputError, InvalidFile, SaveError, option
from bptt.nn import model, tree
from bptt.nn.cells import CELLS, Cell

MADE = "expected a folder that bptt train or model.save made"


def already_exists(folder: Path) -> AlreadyExists:
    """Return the error for a folder that exists already."""
    resume = f": resume it with bptt train --resume {folder}, or name" if os.path.isdir(folder / "checkpoints") else ": name"
    return AlreadyExists(f"{folder}: already exists{resume} a new folder, or move the old one away")


def check_can_save(folder: Path | None) -> None:
    """Raise an InputError if a folder exists already or cannot be created."""
    if folder is None:  # nothing is to be saved
        return
    if os.path.lexists(folder):
        raise already_exists(folder)
    trial = None
    try:  # to make it is the only sure test; to make it elsewhere leaves alone what other runs are about to make
        around = next(path for path in folder.parents if path.exists())
        trial = files.temporary_path(around / "trial")
        (trial / folder.relative_to(around)).mkdir(parents=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(
            f"{folder}: no folder can be made there ({files.describe_os_error(error)}): name another one"
        ) from None
    finally:
        if trial is not None:
            shutil.rmtree(trial, ignore_errors=True)


def check_record(record: dict[str, Any]) -> None:
    """Raise an InputError if the record of a run is too large for `read`."""
    size, most = len(files.to_json(record)), checkpoint_format.MAX_CONFIG_BYTES - checkpoint_format.MAX_JSON_BYTES
    if size > most:
        raise InputError(f"the record of this run has {size:,} bytes, expected at most {most:,}: give fewer or shorter names")


def write(folder: Path, saved: Checkpoint, *, private: bool = False) -> None:
    """Save a checkpoint in a new folder; a `private` one can be read by this user alone.

    Raises:
        AlreadyExists: the folder already exists.
        SaveError: the folder cannot be written; nothing of it is left.
    """
    content = {
        CONFIG: files.to_json({"model": _model_fields(saved.config), "mode": saved.mode, "record": saved.record}),
        VOCABULARY: files.to_json(saved.vocabulary.to_json()),
        WEIGHTS: _tensors(saved.weights),
    }
    if saved.progress is not None and saved.training_arrays is not None:
        content |= {TRAINING: _progress_json(saved.progress), OPTIMIZER: _tensors(saved.training_arrays)}
    content[MANIFEST] = checkpoint_format.make_manifest(content)
    try:
        files.write_folder(folder, content, private=private)
    except FileExistsError:
        raise already_exists(folder) from None
    except (OSError, ValueError) as error:
        needed = sum(map(len, content.values()))
        problem = f"{files.describe_os_error(error)}: {needed:,} bytes are needed{_free_space(folder)}"
        raise SaveError(f"cannot save the model in {folder}: {problem}") from error


class RunRecords(NamedTuple):
    """What a checkpoint of a run says of it, without the weights."""

    cell: str  # its name, as the file claims it; `config` of a user-defined cell has a built-in one in its place
    config: model.Config
    mode: Mode
    record: dict[str, Any]
    progress: Progress
    problem: str = ""  # why a newer checkpoint of the run cannot be read


class Reader:
    """The files of a checkpoint, each verified against the manifest; `name` is the one that an error is about."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.name = folder, MANIFEST
        self.listed: dict[str, Any] = {}

    def manifest(self, *, run: bool) -> None:
        """Read the manifest, of a run one that lists its training state."""
        raw = files.read(self._folder / MANIFEST, checkpoint_format.MAX_JSON_BYTES)
        self.listed = checkpoint_format.manifest(files.parse_json(raw, checkpoint_format.MAX_NESTING), raw)
        if run and not self.listed.keys() >= set(checkpoint_format.RUN):
            raise InvalidFile(f"lists a model alone and no run to resume: start a new run with {option('from_')}")

    def size(self, name: str) -> int:
        """The bytes of a file."""
        self.name = name
        return int(self.listed[name]["bytes"])

    def content(self, name: str) -> bytes:
        """The content of a file."""
        size = self.size(name)
        if size > system.physical_memory():
            raise InvalidFile(f"has {size:,} bytes, more than this machine has memory")
        data = files.read(self._folder / name, size, size)
        if files.checksum(data) != self.listed[name]:
            raise InvalidFile(f"does not match its checksum: {checkpoint_format.DAMAGED}")
        return data

    def json(self, name: str, most: int, nested: int = checkpoint_format.MAX_NESTING) -> Any:
        """The value of a file of JSON."""
        if self.size(name) > most:
            raise InvalidFile(f"has {self.size(name):,} bytes, expected at most {most:,}")
        return files.parse_json(self.content(name), nested)

    def progress(self) -> Progress:
        """The progress of a run."""
        entries = self.size(TRAINING) // 20  # what takes the least is the list of the radius of a layer, 22
        return checkpoint_format.progress(self.json(TRAINING, checkpoint_format.MAX_HISTORY_BYTES, 16 + entries))


@contextlib.contextmanager
def reading(folder: Path, *, run: bool) -> Iterator[Reader]:
    """Provide the files of a checkpoint; what is wrong with one of them inside the block is a CheckpointError."""
    check_is_checkpoint(folder)
    reader = Reader(folder)
    try:
        reader.manifest(run=run)
        yield reader
    except InvalidFile as problem:
        raise CheckpointError(f"{folder / reader.name}: {problem}") from None
    except MemoryError:
        raise CheckpointError(f"{folder / reader.name}: there is no memory for it") from None
    except RecursionError:
        raise CheckpointError(f"{folder / reader.name}: is nested too deeply") from None


def read_records(folder: Path) -> RunRecords:
    """Read what a checkpoint of a run says of it; neither its weights nor a user-defined cell are needed.

    Raises:
        CheckpointError: as `read` does.
    """
    with reading(folder, run=True) as reader:
        value = reader.json(CONFIG, checkpoint_format.MAX_CONFIG_BYTES)
        cell = _claims(value)[0]
        known = value if cell in CELLS else {**value, "model": {**value["model"], "cell": "gru"}}
        config, mode, record = checkpoint_format.configuration(known)
        return RunRecords(cell, config, mode, record, reader.progress())


def read(folder: Path, *, run: bool = False, cell: Cell | None = None) -> Checkpoint:
    """Read a checkpoint and verify each file against the manifest; with `run`, read the training state, too.

    Raises:
        CheckpointError: no such folder, a file that is missing, changed or forged, or a format of the future.
        InputError: the model has a user-defined cell and `cell` is not it, or a built-in one and `cell` is not None.
    """
    with reading(folder, run=run) as reader:
        value = reader.json(CONFIG, checkpoint_format.MAX_CONFIG_BYTES)
        user_cells.match(folder, *_claims(value), cell)
        config, mode, record = checkpoint_format.configuration(value, cell)
        parameters = tree.num_elements(model.shapes(config))
        checkpoint_format.check_size(reader.size(WEIGHTS), parameters)
        symbols = checkpoint_format.vocabulary(reader.json(VOCABULARY, 64 + 20 * config.vocabulary, 1), config, mode)
        weights = checkpoint_format.tensors(reader.content(WEIGHTS))
        checkpoint_format.check_weights(weights, config)
        if not run:
            return Checkpoint(config, mode, symbols, record, weights)
        progress = reader.progress()
        averaging = len(checkpoint_format.AVERAGING) * parameters
        more = (
            1
            + averaging
            + checkpoint_format.MAX_BATCH * sum(shape[1] for shape in checkpoint_format.state_shapes(config, 1).values())
        )
        checkpoint_format.check_size(reader.size(OPTIMIZER), 2 * parameters, more)
        remembered = checkpoint_format.tensors(reader.content(OPTIMIZER))
        checkpoint_format.check_optimizer_state(remembered, parameters, config, next(iter(weights.values())).dtype)
        return Checkpoint(config, mode, symbols, record, weights, progress, remembered)


def check_is_checkpoint(folder: Path) -> None:
    """Raise a CheckpointError if there is no folder, or one that is not a checkpoint but holds some."""
    if os.path.isfile(folder):
        raise CheckpointError(f"{folder}: is a file, {MADE}")
    if not os.path.isdir(folder):
        near = difflib.get_close_matches(folder.name, [path.name for path in list_models(folder.parent)], 1)
        hint = f" (did you mean {folder.with_name(near[0])}?)" if near else ""
        raise CheckpointError(f"{folder}: no such folder{hint}: {MADE}")
    if os.path.lexists(folder / MANIFEST):
        return
    if models := list_models(folder):
        names = ", ".join(map(str, models[:5]))
        raise CheckpointError(f"{folder}: is not a model but holds some: name one of them, as {names}")
    if not os.path.lexists(folder / CONFIG):  # and not a checkpoint that has lost a file
        raise CheckpointError(f"{folder}: is not a model: {MADE}")


def list_models(folder: Path) -> list[Path]:
    """List the checkpoints and runs in a folder."""
    try:
        return sorted(p for p in folder.iterdir() if os.path.isfile(p / MANIFEST) or os.path.isdir(p / "checkpoints"))
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return []


def _model_fields(config: model.Config) -> dict[str, Any]:
    """What a file says of the shapes of a model; a user-defined cell by its name alone."""
    return {name: value for name, value in vars(config).items() if name != "user_cell"}


def _claims(value: Any) -> tuple[str, dict[str, Any]]:
    """The name of the cell and the record that a configuration claims, for the check that comes before all others."""
    match value:
        case {"model": {"cell": str(name)}, "record": dict(record)}:
            return name, record
    return "gru", {}  # refused by `checkpoint_format.configuration`


def _progress_json(progress: Progress) -> bytes:
    """Serialize the progress; of a history that is too long to be read again, every second row is left out.

    The newest one stays: `run_folder.write_history` keeps the rows before it that are in `metrics.jsonl`.
    """
    while len(data := files.to_json(progress._asdict())) > checkpoint_format.MAX_HISTORY_BYTES and len(progress.history) > 1:
        progress = progress._replace(history=progress.history[::-2][::-1])
    return data


def _tensors(arrays: dict[str, HostArray]) -> bytes:
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # safetensors scrambles others
    size = sum(array.nbytes for array in contiguous.values())
    np.empty(3 * size, np.uint8)  # a MemoryError, where safetensors would end the process
    return bytes(safetensors.numpy.save(contiguous))


def _free_space(folder: Path) -> str:
    try:
        return f", {shutil.disk_usage(next(path for path in folder.parents if path.exists())).free:,} are free"
    except (OSError, ValueError, StopIteration):
        return ""


def free_name(folder: Path) -> Path:
    """Return the folder, or if it exists the first of folder-2, folder-3 ... that does not."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], numbered) if not os.path.lexists(path))
