"""Cells from files of the user: loaded, checked, and recognized again by their SHA-256.

A file is code: it is executed only where the user names it, with `--cell FILE.py` on the command line or `cell=` in Python. No
checkpoint, record or TOML file does that.
"""

import difflib
import hashlib
import importlib.util
import inspect
import os
from pathlib import Path
from typing import Any, TypeGuard

from bptt import files
from bptt.errors import InputError, InvalidFile, is_command_line, option
from bptt.nn.cells import CELLS, REQUIRED, Cell

MAX_BYTES = 1 << 20  # of a file


def resolve(called: str, value: Any) -> str | Cell:
    """The name of a built-in cell, or the module of a user-defined one: given itself, or as the path of its file, FILE.py.

    Raises:
        InputError: neither; a file that cannot be read or run, or that lacks what a cell needs; a built-in name.
    """
    if isinstance(value, str) and value in CELLS:
        return value
    if inspect.ismodule(value):
        return _checked(f"{called} {value.__name__}", value)
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.endswith(".py")):
        return _load(called, Path(value))
    near = difflib.get_close_matches(str(value), CELLS, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"{called} {value!r:.80}: expected one of {', '.join(CELLS)}, or the file of a cell, FILE.py{hint}")


def name_of(cell: str | Cell) -> str:
    """The name of a cell: that of its file."""
    return cell if isinstance(cell, str) else str(getattr(cell, "__name__", "")).rpartition(".")[2]


def is_user_cell(cell: str | Cell) -> TypeGuard[Cell]:
    """Whether a cell is user-defined."""
    return not isinstance(cell, str)


def file_record(cell: Cell) -> dict[str, str]:
    """What the record of a run says of a user-defined cell: the name of its file and the SHA-256 of its content."""
    path = Path(str(getattr(cell, "__file__", "")))
    content = getattr(cell, "__source__", None) or path.read_bytes()
    return {"name": path.name, "sha256": hashlib.sha256(content).hexdigest()}


def match(where: Path, name: str, record: dict[str, Any], cell: Cell | None) -> None:
    """Raise an InputError unless `cell` is what a saved model needs besides its files: None for a built-in cell."""
    file = record.get("cell_file")
    if name in CELLS:
        if cell is not None:
            raise InputError(
                f"{where}: the model has the built-in cell {name}: leave out {option('cell', name_of(cell) + '.py')}"
            )
        return
    match file:
        case {"name": str(file_name), "sha256": str(digest)}:
            pass
        case _:
            if cell is None:
                return  # an unknown name, as `checkpoint.format` says
            raise InputError(f"{where}: cell {name!r:.40} is unknown: leave out {option('cell', name_of(cell) + '.py')}")
    if cell is None:
        needs = f"the model has a user-defined cell, which is not saved with it: give its file {file_name!r:.80}"
        raise InputError(f"{where}: {needs}, with {'--cell FILE.py' if is_command_line() else 'cell=module'}")
    if (name_of(cell), file_record(cell)["sha256"]) != (name, digest):
        expected = f"expected {file_name!r:.80} as it was, of SHA-256 {digest:.12}..."
        raise InputError(f"{where}: the cell {name_of(cell)!r:.80} is not the one of the model: {expected}")


def _load(called: str, path: Path) -> Cell:
    """The module of a file, executed."""
    shown = f"{called} {path}"
    try:
        source = files.read(path, MAX_BYTES, named=True)
    except InvalidFile as problem:
        raise InputError(f"{shown}: {problem}: expected the file of a cell") from None
    _refuse_name(shown, path.stem)
    spec = importlib.util.spec_from_file_location(path.stem, path.absolute())
    if spec is None:
        raise InputError(f"{shown}: expected a Python file, FILE.py")
    module = importlib.util.module_from_spec(spec)
    vars(module)["__source__"] = source  # what is executed is what the record of the run has the checksum of
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:
        raise InputError(f"{shown}: it cannot be run: {type(error).__name__}: {error!s:.200}") from error
    return _checked(shown, module)


def _checked(shown: str, module: Any) -> Cell:
    """The module as a cell."""
    _refuse_name(shown, name_of(module))
    if missing := [name for name in REQUIRED if not hasattr(module, name)]:
        raise InputError(f"{shown}: it has no {missing[0]}: a cell has {', '.join(REQUIRED)} (see docs/tutorials/new-cell.md)")
    gates = module.GATES
    if not isinstance(gates, dict) or not gates:
        raise InputError(
            f"{shown}: GATES is {gates!r:.80}, expected a dict of names and activations, as in {{'state': 'tanh'}}"
        )
    for kind in (module.Params, module.State, module.Cache):
        if not hasattr(kind, "_fields"):
            raise InputError(f"{shown}: {kind!r:.80}: expected a NamedTuple")
    for kind in (module.State, module.Cache):
        if "a" not in kind._fields:
            raise InputError(f"{shown}: {kind.__name__} has no field a, the hidden state")
    if not os.path.isfile(str(getattr(module, "__file__", ""))):
        raise InputError(f"{shown}: expected a module that has a file")
    cell: Cell = module
    return cell


def _refuse_name(shown: str, name: str) -> None:
    if name in CELLS:
        raise InputError(f"{shown}: {name} is the name of a built-in cell: rename the file")
    if not name.isidentifier():
        raise InputError(f"{shown}: expected a file whose name can be that of a module, as in my_cell.py")
