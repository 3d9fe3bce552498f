"""TOML files: `bptt.toml`, which people write, and `config.toml`, which a run writes."""

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bptt import files
from bptt.config.compatibility import complete_format_1
from bptt.config.defaults import Hyperparameters
from bptt.config.settings import LENGTHS_OF_A_RUN, OPTIMIZER_OPTIONS, SETTING_NAMES, Settings, closest_match, validate
from bptt.config.user_cells import name_of
from bptt.errors import InputError, InvalidFile, flag
from bptt.nn.cells import CELLS
from bptt.nn.optimizers import OPTIMIZERS

DEFAULT = Path("bptt.toml")  # read by the command line where it lies in the current folder
HEADER = "# the settings of this run; bptt train --config with the path of this file repeats it"  # of every config.toml
MAX_BYTES = 1 << 16  # but for the list of the texts, see `data.file_lists.MOST_CHARACTERS`
MAX_LISTED_BYTES = 1 << 22
MAX_DOTS = 2000  # in a line: tomllib takes time by the square of those in a key, 38 seconds for 32,000
_LISTED = re.compile(r'^text = (\[".*"\])$', re.MULTILINE)  # as `to_toml` writes several texts
NOT_REPEATED = ("out", "epochs", "budget", "stop_after")  # of one session, or said in other words


def find_file(named: str | Path | None, *, new: bool) -> Path | None:
    """Return the file that the command line reads: the named one, or for a new run bptt.toml if it exists."""
    return Path(named) if named is not None else DEFAULT if new and DEFAULT.exists() else None


def read(path: Path, without: Collection[str] = (), *, named: bool = True) -> dict[str, Any]:
    """The table of a TOML file: `text`, and settings by their names, with _ or with - between words, but for some.

    The files of the text and of the validation set are looked for in the folder of the TOML file.

    `named` says whether a user named the file, see `files.open_regular`.

    Raises:
        InputError: no such file, one that is too large or not TOML, a key that is unknown or a value out of its range; names
            the file and the key.
    """
    try:
        raw = files.read(path, MAX_BYTES + MAX_LISTED_BYTES, named=named)
        source = raw.decode("utf-8", "surrogateescape")  # in a path, as written below
        source = source.removeprefix("\ufeff")  # editors on Windows begin a file with a byte order mark
        table = _parse(source)
    except (InvalidFile, ValueError, RecursionError) as error:  # not UTF-8 and not TOML are ValueErrors
        raise InputError(f"{path}: {files.describe_os_error(error)}: expected settings in TOML, as in: hidden = 128") from None
    names = {
        "text": "text",
        **{flag(name).removeprefix("--"): name for name in SETTING_NAMES},
        **{name: name for name in SETTING_NAMES},
    }
    settings = {}
    for key, value in table.items():
        if key not in names:
            near = closest_match(key, list(names))
            hint = f"did you mean {near!r}?" if near else f"the keys are text, {', '.join(SETTING_NAMES)}"
            raise InputError(f"{path}: {key!r} is unknown: {hint}")
        if names[key] in settings:
            raise InputError(f"{path}: {key!r} is set twice, in two spellings: leave out one of the two")
        settings[names[key]] = value
    if source.startswith(HEADER):  # a run wrote it
        settings = complete_format_1(settings)
    settings = {name: value for name, value in settings.items() if name not in without}
    folder = Path() if str(path).startswith(files.OPEN_PIPES) else path.parent
    text = _texts(path, settings.pop("text", None), str(folder), named=named)
    if (cell := settings.get("cell", "gru")) not in tuple(CELLS):  # no file executes another one; a table has no hash
        setting = f"{path}: cell = {cell!r:.80}"
        raise InputError(
            f"{setting}: expected one of {', '.join(CELLS)}; for a file of your own, add --cell FILE.py on the command line"
        )
    plain = validate(Settings(**settings), lambda name: f"{path}: {name.rstrip('_')} =")
    settings = {name: getattr(plain, name) for name in settings} | ({} if text is None else {"text": text})
    if isinstance(file := settings.get("validation"), Path):
        settings["validation"] = file = folder / file.expanduser()
        if named and os.path.exists(file) and not (os.path.isfile(file) or os.path.isdir(file)):  # a device may never end
            raise InputError(f"{path}: validation = {str(file)!r}: is not a regular file: name a file of text")
    return settings


def _parse(source: str) -> dict[str, Any]:
    """Parse TOML; a list of texts in one line is parsed as the JSON that it is, for it may be long.

    Raises:
        InvalidFile: what is beside that list is too large.
        ValueError, RecursionError: it is not TOML.
    """
    texts, rest = None, source
    if listed := _LISTED.search(source):
        with contextlib.suppress(ValueError):
            texts = json.loads(listed[1])
            rest = source[: listed.start(1)] + "[]" + source[listed.end(1) :]
    if len(rest) > MAX_BYTES:
        raise InvalidFile(f"has {len(rest):,} characters beside a list of texts, expected at most {MAX_BYTES:,}")
    if max(line.count(".") for line in rest.split("\n")) > MAX_DOTS:
        raise InvalidFile(f"has a line with more than {MAX_DOTS:,} dots")
    table = tomllib.loads(rest)
    return table | {"text": texts} if texts is not None and table.get("text") == [] else table


def _texts(
    path: Path, text: Any, folder: str, *, named: bool
) -> str | files.FileReference | tuple[files.FileReference, ...] | None:
    """What the value of `text` names; a file that a user named may also name a folder or a pattern."""
    places = text if isinstance(text, list) else [text]
    if text is None or text == "-":
        return None if text is None else "-"
    if not places or "-" in places or not all(isinstance(place, str) and place for place in places):
        raise InputError(f"{path}: text = {text!r}: expected a path, a list of paths, - or the name of a built-in text")
    references = tuple(files.FileReference(place, folder=folder, by_user=named) for place in places)
    return references if isinstance(text, list) else references[0]


def read_beneath(explicit: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Read a TOML file whose values rank below explicit settings.

    Explicit steps, epochs or budget replace all three; an explicit optimizer also replaces the options that it does not have.
    """
    lengths = LENGTHS_OF_A_RUN if any(explicit.get(name) is not None for name in LENGTHS_OF_A_RUN) else ()
    cell = ("cell",) if explicit.get("cell") is not None else ()
    options = next((entry.options for name, entry in OPTIMIZERS.items() if name == explicit.get("optimizer")), None)
    lacking = () if options is None else (name for name, option in OPTIMIZER_OPTIONS.items() if option not in options)
    return read(path, (*lengths, *cell, *lacking))


def to_toml(settings: Settings, plan: Hyperparameters, mode: str, source: str | list[str], validation: float | Path) -> str:
    """Write the TOML that repeats a run: the settings that were made and those that were chosen.

    `source` finds the text again, or each of several, or is empty; `validation` is the share of the text that is held out,
    or a file.

    Raises:
        InputError: `read` would refuse it.
    """
    lines = [HEADER]
    if source:
        lines.append(f"text = {_value(source)}")
    else:
        lines.append("# the text was given in Python and has to be named: bptt train TEXT --config ...")
    resolved = vars(settings) | plan._asdict() | {"cell": name_of(settings.cell), "mode": mode, "validation": validation}
    for name, value in resolved.items():
        if value is not None and name not in NOT_REPEATED:
            lines.append(f"{name.rstrip('_')} = {_value(value)}")
    written = "\n".join(lines) + "\n"
    try:
        _parse(written)
    except InvalidFile as problem:
        raise InputError(f"the settings of this run could not be read again: {problem}: shorten --separator") from None
    return written


def _value(value: Any) -> str:
    """Format a value of TOML; strings are JSON's, with only control characters escaped."""
    if isinstance(value, Path):
        value = str(value.absolute())
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
