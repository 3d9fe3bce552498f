"""Several texts from folders and patterns, as the list of their files."""

import difflib
import fnmatch
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bptt.errors import InputError, TrainingWarning, is_command_line, option, warn

MOST_FILES = 10_000  # which a run keeps the names of
MOST_CHARACTERS = 3_500_000  # of the names of files, as JSON has them, which config.toml and config.json have room for
TOO_MANY = "choose some by a pattern such as 'texts/*.txt', or join them into one text"
MAGIC = ("*", "?", "[")
_PATH = re.compile(r"([A-Za-z]:|~|\.{0,2}[/\\])[^\n]*\n.*\.\w{1,5}", re.DOTALL)  # with a newline in it
_LONGEST_PATH, _LONGEST_NAME = 260, 4096  # characters of a path with a newline by mistake, and of any path
SHORT_LIST = 100  # items of a list; a longer one of words may have the name of a file by chance


def expand(place: str, pattern: str) -> list[str] | None:
    """Return the files of a folder that match a pattern, or those that match the place itself; None for a file.

    In both, * and ? and [...] match within a name, and **/ any number of folders, none included. A pattern without / matches
    names in the folder and in all folders in it. Hidden files and folders are left out unless the pattern names the dot, and
    so are the folders of runs and models; ** does not follow links. The files are sorted by their paths.

    Raises:
        InputError: no file matches, or more than a run keeps the names of.
    """
    if os.path.isdir(place):
        if is_run_or_model(place):
            problem = f"{place!r} is a folder of a run or a model, expected texts"
            how = "bptt train --resume or --from" if is_command_line() else "resume or from_"
            raise InputError(f"{problem}: to train it further, use {how}")
        paths = _limited(_matching(place, _components(pattern if "/" in pattern else f"**/{pattern}")), place)
        if not paths:
            nothing = f"has no file, in it or below, that matches {option('glob')} {pattern!r}"
            which = "holds no files" if pattern == "*" else nothing
            raise InputError(f"{place!r} {which}: expected texts in the folder or in folders in it")
        return paths
    if os.path.lexists(place) or not any(character in place for character in MAGIC):
        return None
    names = place.replace(os.sep, "/").split("/")
    first = next(i for i, name in enumerate(names) if any(character in name for character in MAGIC))
    folder = "".join(name + os.sep for name in names[:first])
    paths = _limited(_matching(folder, _components("/".join(names[first:]))), place)
    if not paths:
        raise InputError(f"{place!r} matches no file: expected a file, or a pattern such as 'texts/*.txt'")
    return paths


def is_run_or_model(folder: str) -> bool:
    """Whether a folder has what a run has, or a saved model."""
    model, run = ("manifest.json", "model.safetensors"), ("config.toml", "checkpoints")
    return any(all(os.path.exists(os.path.join(folder, name)) for name in names) for names in (model, run))


def warn_of_unused_pattern(texts: Iterable[object], pattern: str) -> None:
    """Warn if a pattern for the files of folders does nothing, because a user named texts and none of them is a folder.

    Texts that are no names, such as lists and what a configuration names, are taken to use it.
    """
    names = [text for text in texts if isinstance(text, str | os.PathLike)]
    others = any(not isinstance(text, str | os.PathLike | float | None) for text in texts)
    if pattern != "*" and not others and not any(map(os.path.isdir, names)):
        problem = f"{option('glob')} {pattern!r} does nothing"
        warn(f"{problem}: it chooses files of a folder, and no text is a folder", TrainingWarning)


def hint(path: str, other_names: Iterable[str]) -> str:
    """Why a file does not exist, or which name beside it was probably meant, in words, or nothing."""
    if path.startswith(("http://", "https://")):
        return " (it is a URL: download it first)"
    if os.path.islink(path):
        return f" (it is a link to {os.readlink(path)!r}, which leads nowhere)"
    if path in other_names:
        return f" (as a path; the built-in text is the str {path!r})"
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".") + ([] if folder else list(other_names))
    except OSError:
        return ""
    close = difflib.get_close_matches(name, set(names) - {name}, 1, 0.75)
    return f" (did you mean {os.path.join(folder, close[0])!r}?)" if close else ""


def _components(pattern: str) -> list[str]:
    """The parts of a pattern between slashes; after a slash or ** at its end any name follows."""
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    names += ["**"] * pattern.endswith("/")
    return [*names, "*"] if names[-1:] == ["**"] else names


def _matching(folder: str, components: list[str]) -> Iterator[str]:
    """Yield the files in a folder that match the components of a pattern, some of them more than once."""
    left = [(folder, components)]  # to be searched
    while left:
        folder, (first, *rest) = left.pop()
        if first == "**":
            left.append((folder, rest))
        try:
            entries = list(os.scandir(folder or os.curdir))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if entry.name.startswith(".") and not first.startswith("."):
                continue
            if first == "**":
                if entry.is_dir(follow_symlinks=False) and not is_run_or_model(path):
                    left.append((path, [first, *rest]))
            elif fnmatch.fnmatchcase(entry.name, first):
                if not rest and os.path.isfile(path):
                    yield path
                elif rest and os.path.isdir(path) and not is_run_or_model(path):
                    left.append((path, rest))


def _limited(paths: Iterable[str], place: str) -> list[str]:
    distinct = set[str]()
    for path in paths:
        distinct.add(path)
        if len(distinct) > MOST_FILES:
            raise InputError(f"{place!r} holds more than {MOST_FILES:,} files: {TOO_MANY}")
    return sorted(distinct)


def exists(text: str) -> bool:
    """Whether a text is the path of a file, or of a folder."""
    return len(text) <= _LONGEST_NAME and "\0" not in text and os.path.lexists(text)


def refuse_path(text: str | bytes) -> None:
    r"""Raise an InputError for the path of a file, or for one in which Python read a newline, as in "C:\\new.txt"."""
    if len(text) <= _LONGEST_NAME and exists(os.fsdecode(text)):
        raise InputError(
            f"got {text!r:.100}, which is a text here and the name of a file, too: give a file as pathlib.Path(...)"
        )
    if not isinstance(text, str) or len(text) > _LONGEST_PATH or text.endswith("\n"):
        return
    written = text.replace("\n", "\\n")
    if os.path.exists(written) or _PATH.fullmatch(text):
        raise InputError(f"got {text!r}, which looks like a path with a newline in it: write r'{written}', or pathlib.Path")


class Limits:
    """Counts the names of the files of a text, and how much of what a record names is read again, and refuses too many."""

    def __init__(self) -> None:
        self.names_left, self.characters_left = MOST_FILES, MOST_CHARACTERS
        self.recorded, self.read_again = set[tuple[int, int]](), 0

    def count_name(self, place: str) -> None:
        """Raise an InputError if there are more names, or longer ones, than the record of a run may hold."""
        self.names_left -= 1
        self.characters_left -= len(json.dumps(place))
        if self.names_left < 0 or self.characters_left < 0:
            raise InputError(_too_many_names())

    def count_recorded(self, shown: str, status: os.stat_result, size: int, most: int) -> None:
        """Raise an InputError if a record, which may come from a stranger, names one file many times.

        A user may have trained on a file twice; files that are read again may hold `most` bytes in all.
        """
        file = (status.st_dev, status.st_ino)
        self.read_again += size if file in self.recorded else 0
        self.recorded.add(file)
        if self.read_again > most:
            raise InputError(
                f"{shown} is recorded several times, and more than {most:,} bytes would be read again: name the texts"
            )


def refuse_many(references: Sequence[object]) -> None:
    """Raise an InputError for more files than the record of a run may name, before one is opened."""
    if len(references) > MOST_FILES:
        raise InputError(_too_many_names())


def _too_many_names() -> str:
    return f"the text has more than {MOST_FILES:,} files, or their names more than {MOST_CHARACTERS:,} characters: {TOO_MANY}"


def refuse_names(items: Sequence[Any]) -> None:
    """Raise an InputError for the first lines of a text that are file names: one of a few, or most of `SHORT_LIST` and more."""
    names = [item for item in items if isinstance(item, str) and item]
    existing = [name for name in names if exists(name)]
    if existing and (len(items) <= SHORT_LIST or 2 * len(existing) > len(items)):
        kind = "folder" if os.path.isdir(existing[0]) else "file"
        what = f"{existing[0]!r} is a {kind}, and a str of several is a line of text"
        raise InputError(f"{what}: give files as pathlib.Path(...), or lines as one str: '\\n'.join(...)")
