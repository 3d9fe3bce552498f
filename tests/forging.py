"""Checkpoints of real runs, small ones, and ways to forge them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import bptt
from bptt.checkpoint import store
from bptt.checkpoint.format import Checkpoint
from bptt.display import plots
from bptt.errors import CheckpointError
from bptt.files import to_json

MODEL = ["config.json", "vocabulary.json", "model.safetensors"]
RUN = [*MODEL, "training.json", "optimizer.safetensors"]
ALL = [*RUN, "manifest.json"]
NAMES = ["anna", "bob", "carol", "dave", "eve"] * 4
STREAM = "the cat sat on the mat and the dog sat on the cat\n" * 3
FLAGS: dict[str, Any] = {
    "lines": {"hidden": 5},
    "stream": {"hidden": 4, "layers": 2, "cell": "lstm", "mode": "stream", "batch": 3, "length": 6},
}


def training_text(mode: str) -> Any:
    """What the run of a mode learns."""
    return NAMES if mode == "lines" else STREAM


def train(folder: Path, mode: str = "lines", **flags: Any) -> Path:
    """A run in a new folder, a short one unless the flags say otherwise, without its curve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "available", lambda: False)  # a second, the first time
        settings = {"steps": 9, "out": folder, "backend": "numpy", "report": None, **FLAGS[mode], **flags}
        bptt.train(training_text(mode), **settings)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def restore(folder: Path, files: dict[str, bytes]) -> None:
    """A folder of these files."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).unlink(missing_ok=True)  # ext4 takes milliseconds to empty a file, and none to make one
        (folder / name).write_bytes(data)


def forge(folder: Path, name: str, data: bytes, size: int | None = None) -> None:
    """Replace a file of a checkpoint, and say so in the manifest as if it had been saved like that, or of another size."""
    restore(folder, {name: data})
    manifest = json.loads((folder / "manifest.json").read_bytes())
    digest = hashlib.sha256(data).hexdigest()
    manifest["files"][name] = {"sha256": digest, "bytes": len(data) if size is None else size}
    restore(folder, {"manifest.json": to_json(manifest)})


def reseal(folder: Path) -> None:
    """Say in the manifest of a checkpoint that its files were saved as they are now, those that are regular files."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in manifest["files"]:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    restore(folder, {"manifest.json": to_json(manifest)})


def tensor_file(header: Any, data: bytes = b"") -> bytes:
    """A file of tensors with any header, an object or as it is."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def refusal(folder: Path, *, run: bool = True) -> str:
    """Why a checkpoint is refused."""
    with pytest.raises(CheckpointError) as error:
        store.read(folder, run=run)
    message = str(error.value)
    assert message.startswith(str(folder))
    assert message.isprintable()
    return message


def equal_checkpoints(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether two checkpoints hold the same, array by array and bit by bit."""

    def plain(saved: Checkpoint) -> list[Any]:
        arrays = [*saved.weights.items(), *(saved.training_arrays or {}).items()]
        numbers = [(name, array.dtype, array.shape, array.tobytes()) for name, array in arrays]
        return [saved._replace(weights={}, training_arrays=None), sorted(numbers)]

    return plain(first) == plain(second)
