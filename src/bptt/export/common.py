"""Functions that all export formats share: writing a new file, and the metadata of a model."""

import json
import os
from pathlib import Path
from typing import Any

from bptt import files
from bptt.checkpoint.format import Checkpoint
from bptt.config import rules
from bptt.errors import InputError, SaveError
from bptt.nn import model, tree

FORMAT = 1  # of the metadata
METADATA_KEY = "bptt"  # the only key of the metadata: of several, safetensors changes the order from file to file
SHAPE = ("cell", "hidden", "layers")  # fields of model.Config that the metadata repeats
RECORD = ("text", "step", "held_out")  # of the record of the training, which has the paths of its user, too
SETTINGS = ("separator", "encoding")  # of its settings: how a text is read for the model


def new_file(path: str | os.PathLike[str]) -> Path:
    """Return a path as a Path, or raise an InputError if the file exists."""
    target = rules.check_path("path", path)
    if os.path.lexists(target):
        raise InputError(f"{target}: already exists: name a new file, or move the old one away")
    return target


def write_file(target: Path, data: bytes) -> None:
    """Write a file atomically; SaveError if that fails."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.replace(target, data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise SaveError(f"{target}: {len(data):,} bytes cannot be written: {files.describe_os_error(error)}") from error


def host_params(saved: Checkpoint) -> model.Params:
    """Return the parameters of a checkpoint as a tree of host arrays."""
    shapes = model.shapes(saved.config)
    params: model.Params = tree.unflatten(shapes, iter([saved.weights[name] for name, _ in tree.named_leaves(shapes)]))
    return params


def public_record(record: dict[str, Any]) -> dict[str, Any]:
    """The part of the record of a training that an exported model has; a record may hold anything."""
    settings = record.get("settings")
    reading = {name: settings[name] for name in SETTINGS if settings.get(name)} if isinstance(settings, dict) else {}
    return {name: record[name] for name in RECORD if name in record} | ({"settings": reading} if reading else {})


def metadata_json(saved: Checkpoint) -> str:
    """Return the metadata that the weights do not contain, as JSON: symbols, mode, initial states."""
    config, initial = saved.config, host_params(saved).initial
    fields = config.definition.State._fields
    known = {
        "format": FORMAT,
        **{name: getattr(config, name) for name in SHAPE},
        "mode": saved.mode,
        "symbols": saved.vocabulary.to_json(),
        "states": {name: [getattr(state, name).tolist() for state in initial] for name in fields} if initial else None,
        "record": public_record(saved.record),
    }
    return json.dumps(known, sort_keys=True)
