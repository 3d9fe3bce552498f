"""Several texts from folders and patterns, as the list of their files."""

import difflib
import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator

from bptt.errors import InputError

MOST_FILES = 10_000  # which a run keeps the names of
MOST_CHARACTERS = 2_000_000  # of these names
OF_A_RUN = ("checkpoints", "manifest.json")
MAGIC = ("*", "?", "[")
_PATH = re.compile(r"([A-Za-z]:|~|\.{0,2}[/\\])[^\n]*\n.*\.\w{1,5}", re.DOTALL)  # with a newline in it
_LONGEST_PATH = 260


def expand(place: str, pattern: str) -> list[str] | None:
    """Return the files of a folder that match a pattern, or those that match the place itself; None for a file.

    Hidden files and folders are left out, and links to folders are not followed. The files are sorted by their paths.

    Raises:
        InputError: no file matches, or more than a run keeps the names of.
    """
    if os.path.isdir(place):
        if any(os.path.exists(os.path.join(place, name)) for name in OF_A_RUN):
            raise InputError(f"{place!r} is a folder of a run or a model, expected texts: for the run, give --resume or --from")
        paths = _limited(_in_folder(place, pattern), place)
        if not paths:
            which = "holds no files" if pattern == "*" else f"holds no files that match --glob {pattern!r}"
            raise InputError(f"{place!r} {which}: expected texts in the folder or in folders in it")
        return paths
    if os.path.lexists(place) or not any(character in place for character in MAGIC):
        return None
    paths = _limited(filter(os.path.isfile, glob.iglob(place)), place)
    if not paths:
        raise InputError(f"{place!r} matches no file: expected a file, or a pattern such as 'texts/*.txt'")
    return paths


def hint(path: str, other_names: Iterable[str]) -> str:
    """Which name beside a file that does not exist was probably meant, in words, or nothing."""
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".") + ([] if folder else list(other_names))
    except OSError:
        return ""
    close = difflib.get_close_matches(name, names, 1, 0.75)
    return f" (did you mean {os.path.join(folder, close[0])!r}?)" if close else ""


def _in_folder(folder: str, pattern: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(parent, name)
            matched = os.path.relpath(path, folder).replace(os.sep, "/") if "/" in pattern else name
            if not name.startswith(".") and fnmatch.fnmatchcase(matched, pattern) and os.path.isfile(path):
                yield path


def _limited(paths: Iterable[str], place: str) -> list[str]:
    listed, size = [], 0
    for path in paths:
        listed.append(path)
        size += len(path)
        if len(listed) > MOST_FILES or size > MOST_CHARACTERS:
            problem = f"{place!r} holds more than {MOST_FILES:,} files, or files with very long names"
            raise InputError(f"{problem}: choose some with --glob, or join them into one text")
    return sorted(listed)


def refuse_path(text: str | bytes) -> None:
    r"""Raise an InputError for a path in which Python read a newline, as in "C:\\new\\names.txt"."""
    if not isinstance(text, str) or len(text) > _LONGEST_PATH or text.endswith("\n"):
        return
    written = text.replace("\n", "\\n")
    if os.path.exists(written) or _PATH.fullmatch(text):
        raise InputError(f"got {text!r}, which looks like a path with a newline in it: write r'{written}', or pathlib.Path")
