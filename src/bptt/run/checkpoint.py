"""A model in a folder: configuration, vocabulary and weights, and a manifest that says what belongs to it.

The folder appears by one rename after all its files are on the disk, and an existing one is never written over.
"""

import contextlib
import difflib
import hashlib
import itertools
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from bptt.backend import HostArray
from bptt.errors import InputError

FORMAT = 1
MANIFEST, CONFIG, VOCABULARY, WEIGHTS = "manifest.json", "config.json", "vocabulary.json", "model.safetensors"
MADE = "expected a folder that bptt train or model.save made"
DAMAGED = "the file is damaged, use another copy"
LARGEST_HEADER = 1 << 20  # bytes; a forged header of 76 MB would cost seconds and a gigabyte


class CheckpointError(InputError):
    """A folder that does not hold a model, or whose files are not what its manifest says."""


class Taken(InputError):
    """A path that a model is to be saved at, where something is already."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: something is there already: name a new folder, or move the old one away")


def refuse_unusable(folder: Path) -> None:
    """Raise an InputError where a model cannot be saved: something is there already, or no folder can be made there."""
    if os.path.lexists(folder):
        raise Taken(folder)
    trial = None
    try:  # to make it is the only sure test; to make it elsewhere leaves alone what other runs are about to make
        around = next(path for path in folder.parents if path.exists())
        trial = around / _temporary_name()
        (trial / folder.relative_to(around)).mkdir(parents=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{folder}: no folder can be made there ({_reason(error)}): name another one") from None
    finally:
        if trial is not None:
            shutil.rmtree(trial, ignore_errors=True)


def free(folder: Path) -> Path:
    """The folder, or where something is there already the first of folder-2, folder-3 ... where nothing is."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], numbered) if not os.path.lexists(path))


def write(folder: Path, config: dict[str, Any], vocabulary: Any, weights: dict[str, HostArray]) -> None:
    """Save a model; `config` and `vocabulary` are JSON values, `weights` host arrays by name.

    Raises:
        Taken: something is there already.
        InputError: the folder cannot be written.
    """
    if os.path.lexists(folder):
        raise Taken(folder)
    contiguous = {name: np.asarray(array, order="C") for name, array in weights.items()}  # safetensors scrambles others
    files = {CONFIG: _json(config), VOCABULARY: _json(vocabulary), WEIGHTS: safetensors.numpy.save(contiguous)}
    files[MANIFEST] = _json({"format": FORMAT, "files": {name: _fingerprint(data) for name, data in files.items()}})
    temporary = folder.with_name(_temporary_name())
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, data in files.items():
            with open(temporary / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _fsync_folder(temporary)
        temporary.rename(folder)
        _fsync_folder(folder.parent)
    except (OSError, ValueError) as error:
        if os.path.lexists(folder):  # since a moment ago
            raise Taken(folder) from None
        raise InputError(f"cannot save the model in {folder}: {_reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # nothing is there after the rename


def read(folder: Path) -> tuple[Any, Any, dict[str, HostArray]]:
    """The configuration, the vocabulary and the weights that `write` saved, every file checked against the manifest.

    Raises:
        CheckpointError: no such folder, a file that is missing or changed, or a format of the future.
    """
    if os.path.isfile(folder):
        raise CheckpointError(f"{folder}: is a file, {MADE}")
    if not os.path.isdir(folder):
        near = difflib.get_close_matches(folder.name, [path.name for path in _models(folder.parent)], 1)
        hint = f" (did you mean {folder.with_name(near[0])}?)" if near else ""
        raise CheckpointError(f"{folder}: no such folder{hint}: {MADE}")
    if not os.path.lexists(folder / MANIFEST) and (models := _models(folder)):
        raise CheckpointError(
            f"{folder}: is not a model but holds some: name one of them, as {', '.join(map(str, models[:5]))}"
        )
    raw = _bytes(folder, MANIFEST)
    manifest = _parse(folder, MANIFEST, raw)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise CheckpointError(f"{folder / MANIFEST}: not as it was written: {DAMAGED}")
    if manifest["format"] != FORMAT:
        found = manifest["format"]
        raise CheckpointError(f"{folder / MANIFEST}: format {found!r}, expected {FORMAT}: use the bptt version that wrote it")
    if _json(manifest) != raw:  # it has no checksum, but one way only to be written
        raise CheckpointError(f"{folder / MANIFEST}: not as it was written: {DAMAGED}")
    files = {}
    for name in (CONFIG, VOCABULARY, WEIGHTS):
        try:
            expected = manifest["files"][name]
            size = int(expected["bytes"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise CheckpointError(f"{folder / MANIFEST}: has no checksum and size of {name}") from None
        files[name] = _bytes(folder, name, size)
        if _fingerprint(files[name]) != expected:
            raise CheckpointError(f"{folder / name}: does not match its checksum: {DAMAGED}")
    return (
        _parse(folder, CONFIG, files[CONFIG]),
        _parse(folder, VOCABULARY, files[VOCABULARY]),
        _tensors(folder, files[WEIGHTS]),
    )


def _tensors(folder: Path, data: bytes) -> dict[str, HostArray]:
    if int.from_bytes(data[:8], "little") > LARGEST_HEADER:
        raise CheckpointError(f"{folder / WEIGHTS}: its header is larger than {LARGEST_HEADER} bytes")
    try:
        return dict(safetensors.numpy.load(data))
    except Exception as error:  # half a dozen types, depending on what is wrong with the header
        raise CheckpointError(f"{folder / WEIGHTS}: not a safetensors file ({error})") from None


def _temporary_name() -> str:
    return f".bptt-{secrets.token_hex(8)}"


def _models(folder: Path) -> list[Path]:
    """The models in a folder."""
    try:
        return sorted(path for path in folder.iterdir() if os.path.isfile(path / MANIFEST))
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return []


def _bytes(folder: Path, name: str, size: int | None = None) -> bytes:
    """A file's content; nothing is read of one that has not this size, or is too large for a manifest."""
    path = folder / name
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file: {MADE}")
        found = path.stat().st_size
        if size is None and found > LARGEST_HEADER:
            raise CheckpointError(f"{path}: larger than any manifest: {DAMAGED}")
        if size is not None and found != size:
            raise CheckpointError(f"{path}: does not have the size its manifest says: {DAMAGED}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {_reason(error)}") from None


def _parse(folder: Path, name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{folder / name}: not JSON: {DAMAGED}") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _fsync_folder(folder: Path) -> None:
    """Ask for the folder's entries to be on the disk; systems that cannot do that do without."""
    with contextlib.suppress(OSError):  # Windows cannot open a folder, some network disks cannot sync one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
