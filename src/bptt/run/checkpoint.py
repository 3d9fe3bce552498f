"""A model in a folder: configuration, vocabulary and weights, and a manifest that says what belongs to it.

The folder appears by one rename after all its files are on the disk, and an existing one is never written over.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from bptt.backend import HostArray
from bptt.errors import InputError

FORMAT = 1
MANIFEST, CONFIG, VOCABULARY, WEIGHTS = "manifest.json", "config.json", "vocabulary.json", "model.safetensors"
LARGEST_HEADER = 1 << 20  # bytes; a forged header of 76 MB would cost seconds and a gigabyte


class CheckpointError(InputError):
    """A folder that does not hold a model, or whose files are not what its manifest says."""


def refuse_existing(folder: Path) -> None:
    """Raise an InputError where something stands at a path that a model is to be saved in."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"--out {folder}: something is there already: name a new folder, or move the old one away")


def write(folder: Path, config: dict[str, Any], vocabulary: Any, weights: dict[str, HostArray]) -> None:
    """Save a model; `config` and `vocabulary` are JSON values, `weights` host arrays by name.

    Raises:
        InputError: the folder exists, or cannot be written.
    """
    refuse_existing(folder)
    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.items()}  # safetensors scrambles others
    files = {
        CONFIG: _json({"format": FORMAT, **config}),
        VOCABULARY: _json(vocabulary),
        WEIGHTS: safetensors.numpy.save(contiguous),
    }
    files[MANIFEST] = _json({name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in files.items()})
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        temporary.chmod(0o777 & ~_umask())
        for name, data in files.items():
            with open(temporary / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(folder)  # takes the place of an empty folder, never of a full one
        _fsync_folder(folder.parent)
    except OSError as error:
        raise InputError(f"cannot save the model in {folder}: {error.strerror or error}") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path) -> tuple[dict[str, Any], Any, dict[str, HostArray]]:
    """The configuration, the vocabulary and the weights that `write` saved, every file checked against the manifest.

    Raises:
        CheckpointError: no such folder, a file that is missing or changed, or a format of the future.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder: expected one that bptt train or model.save made")
    manifest = _parse(folder, MANIFEST, _bytes(folder, MANIFEST, LARGEST_HEADER))
    files = {}
    for name in (CONFIG, VOCABULARY, WEIGHTS):
        try:
            expected, size = str(manifest[name]["sha256"]), int(manifest[name]["bytes"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{folder / MANIFEST}: has no checksum and size of {name}") from None
        files[name] = _bytes(folder, name, size)
        if len(files[name]) != size or _sha256(files[name]) != expected:
            raise CheckpointError(f"{folder / name}: does not match its checksum: the file is damaged, use another copy")
    config = _parse(folder, CONFIG, files[CONFIG])
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise CheckpointError(f"{folder / CONFIG}: format {found!r}, expected {FORMAT}: use the bptt version that wrote it")
    return config, _parse(folder, VOCABULARY, files[VOCABULARY]), _tensors(folder, files[WEIGHTS])


def _tensors(folder: Path, data: bytes) -> dict[str, HostArray]:
    if int.from_bytes(data[:8], "little") > LARGEST_HEADER:
        raise CheckpointError(f"{folder / WEIGHTS}: its header is larger than {LARGEST_HEADER} bytes")
    try:
        return dict(safetensors.numpy.load(data))
    except Exception as error:  # half a dozen types, depending on what is wrong with the header
        raise CheckpointError(f"{folder / WEIGHTS}: not a safetensors file ({error})") from None


def _bytes(folder: Path, name: str, most: int) -> bytes:
    """A file's content, of which one byte more than `most` is read at most."""
    try:
        with open(folder / name, "rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise CheckpointError(f"{folder / name}: {error.strerror}: expected a folder that bptt train made") from None


def _parse(folder: Path, name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{folder / name}: not JSON") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fsync_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
