"""The reference of the settings, taken from the code: for `bptt train --help` and for the documentation."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from bptt.config.settings import SETTING_NAMES, Settings
from bptt.errors import flag
from bptt.nn.cells import Cell

# the groups of `bptt train --help`, and the settings of each, those that are used most first
GROUPS = {
    "Model": ("cell", "hidden", "layers", "dropout", "from_"),
    "Training": (
        *("steps", "epochs", "budget", "batch", "length", "learning_rate", "optimizer", "seed", "patience", "stop_after"),
        *("schedule", "warmup", "weight_decay", "clip_norm"),
    ),
    "Data": ("mode", "validation", "vocabulary", "separator", "encoding", "glob", "new_symbols"),
    "Output": ("out", "quiet", "json", "evaluate_every", "checkpoint_every", "keep"),
    "Hardware": ("backend", "device", "require_backend", "dtype", "distributed", "nccl", "graph"),
    "Advanced": (
        *("micro_batches", "recompute_every", "init", "parametrization", "final_rate", "beta1", "beta2", "average"),
        *("split_seed", "duplicates"),
    ),
}

TYPE_NAMES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", Cell: "FILE.py"}  # others have no value: switches


class SettingReference(NamedTuple):
    """What a user can know about a setting."""

    setting: str  # its name in Python and in TOML, where `from_` is also `from`
    flag: str
    type: str  # of its value, as in INT or FLOAT|PATH; empty for a switch
    choices: tuple[str, ...]
    default: Any  # None: the description says what the value is by default
    group: str
    description: str


def settings_reference() -> Iterator[SettingReference]:
    """Describe every setting, group by group in the order of the help."""
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    hints, texts = get_type_hints(Settings), descriptions()
    for group, names in GROUPS.items():
        for name in names:
            choices, hint = literals(hints[name]), hints[name]
            yield SettingReference(name, flag(name), type_name(hint), choices, fields[name].default, group, texts[name])


def descriptions() -> dict[str, str]:
    """The text under each field of Settings, as one line; empty where Python has no source, as in some bundled programs."""
    texts = dict.fromkeys(SETTING_NAMES, "")
    try:
        module = ast.parse(textwrap.dedent(inspect.getsource(Settings)))
    except OSError:
        return texts
    for pair in itertools.pairwise(ast.walk(module)):  # a class comes before its statements, and these in order
        match pair:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                texts[name] = " ".join(text.split())
    return texts


def literals(hint: Any) -> tuple[str, ...]:
    """The choices of a type, those of its parts included."""
    return get_args(hint) if get_origin(hint) is Literal else tuple(word for part in get_args(hint) for word in literals(part))


def type_name(hint: Any) -> str:
    """The name of the type of a value, with | between alternatives."""
    if get_origin(hint) is Literal:
        words = get_args(hint)
        return "CHOICE" if len(words) > 1 else words[0]
    parts = [type_name(part) for part in get_args(hint)]
    return "|".join(filter(None, parts)) if parts else TYPE_NAMES.get(hint, "")
