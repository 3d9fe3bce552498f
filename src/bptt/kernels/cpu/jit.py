"""Functions that Numba compiles at their first call, and their code on disk, which may be damaged or written by two processes.

Numba keeps code where it can write: in $NUMBA_CACHE_DIR, in __pycache__ beside the source, or in the user's cache. It takes a
function to be as it was while its own file has not changed; here a function has code from other files in it. Of two processes
that compile at the same time, one may find under its own name what the other made for another type. And a file that is cut off
ends the program. So a function has a file here for each kind of arguments and processor, under a name that stands for all of
the source, with a checksum.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import re
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from bptt import files
from bptt.errors import InvalidFile

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

_folders: set[Path] = set()  # where code is kept


def source_key(folder: Path) -> str:
    """A key of the compiled code: it changes with Numba and with the Python files in a folder, and with nothing else."""
    sources = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"\0".join([numba.__version__.encode(), *sources])).hexdigest()[:12]


SOURCE = source_key(Path(__file__).parent)  # compiled functions call only those of this folder


class Files:
    """The code of one function in a folder, a file for each key: kinds of arguments, processor, bytecode."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def path(self, key: Any) -> Path:
        """Where the code of a key is, or would be."""
        return self._folder / f"{self._name}-{SOURCE}-{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}.nbc"

    def load(self, key: Any) -> Any:
        """The code; None where there is none, a damaged one, or one that another user could have put there."""
        with contextlib.suppress(OSError, InvalidFile):
            if not files.only_this_user_writes(os.stat(self._folder)):
                return None
            with files.open_regular(self.path(key)) as file:
                if not files.only_this_user_writes(os.fstat(file.fileno())):
                    return None
                checksum, data = file.read(32), file.read()
            return pickle.loads(data) if hashlib.sha256(data).digest() == checksum else None
        return None

    def save(self, key: Any, code: Any) -> None:
        """Keep the code, and none of what other versions of the source left here."""
        data, temporary = dumps(code), self._folder / f"{uuid.uuid4().hex}.tmp"
        try:
            temporary.write_bytes(hashlib.sha256(data).digest() + data)
            os.replace(temporary, self.path(key))
        finally:
            temporary.unlink(missing_ok=True)
        for path in self._folder.glob(f"{self._name}-*.nbc"):
            if not path.name.startswith(f"{self._name}-{SOURCE}-"):
                path.unlink(missing_ok=True)


def kept() -> bool:
    """Whether there is code of this source on disk."""
    return any(next(folder.glob(f"*-{SOURCE}-*.nbc"), None) for folder in _folders)


def stored_files() -> list[Path]:
    """List the files with compiled code, of this source and of others."""
    names = re.compile(r"bptt\..*-[0-9a-f]{12}-[0-9a-f]{12}\.nbc")
    return [path for folder in sorted(_folders) for path in files.regular_files(folder, names)]


class Cache(FunctionCache):
    """Numba's cache of a compiled function, with files of our own format."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        name = f"{function.__module__}.{function.__qualname__}.{sys.implementation.cache_tag}"
        _folders.add(Path(self.cache_path))
        self._cache_file = Files(Path(self.cache_path), name)

    def save_overload(self, signature: Any, code: Any) -> None:
        """Keep the code if the disk lets it; else the next process compiles again."""
        with contextlib.suppress(OSError):
            super().save_overload(signature, code)


def compiled(
    function: Callable[..., Any], fastmath: frozenset[str] = frozenset({"contract"}), inline: str = "never"
) -> Callable[..., Any]:
    """The function as machine code that lets other threads run meanwhile, and that is kept if any folder can be written to.

    A compiled function that calls it holds its code, which is optimised once more there; with `inline` "always" it is compiled
    there alone, and a second time by itself only where Python calls it.
    """
    made: Any = numba.njit(nogil=True, error_model="numpy", fastmath=set(fastmath), inline=inline)(function)
    with contextlib.suppress(RuntimeError):  # "no locator available"
        made._cache = Cache(function)  # what `cache=True` does, with Numba's own
    return cast(Callable[..., Any], made)


inlined = functools.partial(compiled, inline="always")
