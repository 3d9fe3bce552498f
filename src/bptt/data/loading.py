"""Opening texts: files, folders, standard input, built-in texts, str and bytes; large ones stay on the disk."""

import contextlib
import dataclasses
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

from bptt import files
from bptt.data import compression, file_lists, token_store
from bptt.data.source import AS_USUAL, BUILT_IN, CHUNK, Names, Reading, Source, Texts
from bptt.errors import InputError, InvalidFile, TextChanged
from bptt.files import FileReference

LARGE = 1 << 24  # bytes; texts above are read in pieces and their ids mapped from the disk
VALIDATION_EXPECTED = "expected a share of the training text such as 0.1, or a file of text"
RECORDED_EXPECTED = "expected a file of text"
_LINES = 1 << 16  # lines of an iterable joined at a time
_PATH = re.compile(r"([A-Za-z]:|~|\.{0,2}[/\\])[^\n]*\n.*\.\w{1,5}", re.DOTALL)  # with a newline in it
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
_LONGEST_PATH = 260


@contextlib.contextmanager
def fetch(source: Any, reading: Reading = AS_USUAL) -> Iterator[Texts]:
    """Open the source that `corpus.read` is called with, for the length of the context."""
    with contextlib.ExitStack() as stack:
        opening = _Opening(stack, reading)
        if isinstance(source, Names):
            several = len(source.names) > 1
            parts = [part for name in source.names for part in opening.named(name, several=several)]
        elif isinstance(source, os.PathLike):
            parts = opening.path(os.fsdecode(source))
        elif isinstance(source, FileReference):
            parts = opening.recorded(source)
        elif isinstance(source, str) and "\n" not in source:
            parts = opening.named(source)
        elif isinstance(source, str | bytes):
            _refuse_path(source)
            parts = [Source("text", "", "the text", source, encoding=reading.encoding)]
        else:
            yield _several(source, opening, reading)
            return
        yield _texts(parts, source, reading)


@contextlib.contextmanager
def open_validation_file(path: Path | FileReference, reading: Reading = AS_USUAL) -> Iterator[Texts]:
    """Open the file of a validation set, for the length of the context; no name stands for anything but a file."""
    with contextlib.ExitStack() as stack:
        opening = _Opening(stack, reading, validation=True)
        part = opening.recorded(path) if isinstance(path, FileReference) else [opening.file(os.fsdecode(path))]
        yield _texts(part, path, reading)


class _Opening:
    """Opens texts one after the other; together they have `LARGE` bytes of memory, and what is more stays on the disk."""

    def __init__(self, stack: contextlib.ExitStack, reading: Reading, *, validation: bool = False) -> None:
        self.stack, self.reading, self.validation = stack, reading, validation
        self.room = LARGE

    def named(self, name: str, *, several: bool = False) -> list[Source]:
        """The text of a name that a user gave, or the texts of a folder or a pattern; - is no part of `several`."""
        if name in BUILT_IN:
            return [self.built_in(name)]
        if name == "-":
            if several:
                raise InputError("standard input (-) is a text alone: leave out the others, or give all of them as files")
            return [self.standard_input()]
        return self.path(name, several=several)

    def built_in(self, name: str) -> Source:
        return Source(name, name, name, BUILT_IN[name]())

    def standard_input(self) -> Source:
        try:
            content, unpacked = self.content(sys.stdin.buffer, "standard input")
        except (OSError, AttributeError):  # sys.stdin is None where the caller closed it
            raise InputError("standard input cannot be read: pipe a text into it, or name a file") from None
        return Source("stdin", "-", "standard input", content, unpacked=unpacked, encoding=self.reading.encoding)

    def path(self, path: str, *, several: bool = False) -> list[Source]:
        """The file at a path, or the files of a folder or a pattern."""
        expanded = file_lists.expand(path, self.reading.pattern)
        if expanded is None:
            return [self.file(path, several=several)]
        return [dataclasses.replace(self.file(one, several=True), listed=True) for one in expanded]

    def file(self, path: str, *, several: bool = False) -> Source:
        """Open a file that a user named, which may also be a pipe.

        Raises:
            InputError: it cannot be read, or is a folder.
        """
        if os.path.isdir(path):
            raise InputError(f"{self.shown(path)} is a folder, expected a file of text: name one of its files")
        expected = (
            f"expected a file, - for standard input, a built-in text ({', '.join(BUILT_IN)}), "
            "or in Python a text with a newline in it"
        )
        return self.opened(path, lambda: open(path, "rb"), expected, several=several)

    def recorded(self, file: FileReference, *, several: bool = False) -> list[Source]:
        """Open the file that a run or a model names.

        Raises:
            InputError: it is not a regular file, or cannot be read.
            TextChanged: it is not as long as it was.
        """
        if file.place in BUILT_IN and not self.validation:
            return [self.built_in(file.place)]
        path = os.path.join(file.folder, os.path.expanduser(file.place))
        if file.folders and (expanded := file_lists.expand(path, self.reading.pattern)) is not None:
            return [source for one in expanded for source in self.recorded(FileReference(one), several=True)]
        regular = partial(files.open_regular, Path(path), links=True)
        return [self.opened(path, regular, RECORDED_EXPECTED, file, several=several)]

    def opened(
        self,
        path: str,
        open_file: Callable[[], IO[bytes]],
        expected: str,
        recorded: FileReference | None = None,
        *,
        several: bool = False,
    ) -> Source:
        """Open a file and read what there is memory for; `expected` says what should have been there."""
        shown = self.shown(path)
        try:
            with contextlib.ExitStack() as closing:
                file = closing.enter_context(open_file())
                status = os.fstat(file.fileno())
                size = status.st_size if stat.S_ISREG(status.st_mode) else None
                if recorded and recorded.size not in (None, size):
                    self.raise_changed(shown, f"{size:,} bytes now, {recorded.size:,} before")
                place = None if size is None else Path(path)
                content, unpacked = self.content(file, shown, place, reopen=several, most=recorded and recorded.unpacked)
                if content is file:
                    self.stack.enter_context(closing.pop_all())
            return Source(
                _name(path), os.path.abspath(path), shown, content, "", size, unpacked, self.validation, self.reading.encoding
            )
        except InputError:
            raise
        except (OSError, ValueError, InvalidFile) as error:  # ValueError: a NUL in the path
            missing = isinstance(error, FileNotFoundError | InvalidFile) and not os.path.exists(path)
            reason = str(error) if isinstance(error, InvalidFile) else f"cannot be read ({files.describe_os_error(error)})"
        if missing:
            reason = "does not exist" + file_lists.hint(path, [] if self.validation else BUILT_IN)
        raise InputError(f"{shown} {reason}: {VALIDATION_EXPECTED if self.validation else expected}")

    def content(
        self, file: IO[bytes], shown: str, path: Path | None = None, *, reopen: bool = False, most: int | None = None
    ) -> tuple[bytes | IO[bytes] | Path, int | None]:
        """Return the bytes of a small file, else the file, its path or a copy; and the size of what a compressed one holds.

        A file without a `path` can be read once. With `reopen`, a large one is closed until it is read. Of a compressed one
        `most` is the number of bytes that it may hold.
        """
        head = file.read(compression.BEGINNING)
        if not compression.is_compressed(head):
            if path is not None:
                file.seek(0)
                head = b""
            rest = file.read(max(0, self.room + 1 - len(head)))
            piece = head + rest if head else rest  # without a copy of what may be 16 megabytes
            if len(piece) <= self.room:
                self.room -= len(piece)
                return piece, None
            if path is not None:
                return (path if reopen else file), None
            return self.copy(piece, file, shown), None
        packed = self.copy(head, file, shown) if path is None else file
        packed.seek(0)
        with compression.unpacked(packed, head, shown) as unpacked:
            piece = unpacked.read(self.room + 1)
            held: bytes | IO[bytes] = piece if len(piece) <= self.room else self.copy(piece, unpacked, shown, most)
        size = len(held) if isinstance(held, bytes) else held.tell()
        if most is not None and size != most:
            self.raise_changed(shown, f"it holds {size:,} bytes now, {most:,} before")
        self.room -= len(held) if isinstance(held, bytes) else 0
        return held, size

    def copy(self, piece: bytes, file: IO[bytes], shown: str, most: int | None = None) -> IO[bytes]:
        """Copy the piece that was read of a file and its rest, up to a byte more than `most`, to a file of the cache folder."""
        with token_store.input_error_if_full(shown, len(piece)):
            copy = self.stack.enter_context(token_store.temporary_file())
        while piece and (most is None or copy.tell() <= most):
            with token_store.input_error_if_full(shown, copy.tell() + len(piece)):
                copy.write(piece)
            piece = file.read(CHUNK)
        return copy

    def raise_changed(self, shown: str, change: str) -> NoReturn:
        raise TextChanged(f"{'' if self.validation else 'text '}{shown} has changed: {change}")

    def shown(self, path: str) -> str:
        """What an error message calls a file."""
        return "validation set " * self.validation + repr(path if len(path) <= 100 else path[:97] + "...")


def _texts(parts: list[Source], source: Any, reading: Reading) -> Texts:
    """One text, or several with a name that stands for all."""
    first = parts[0]
    if len(parts) == 1:
        return Texts(first.name, first.shown, parts, reading)
    names = [os.fsdecode(source)] if isinstance(source, os.PathLike) else getattr(source, "names", [source])
    folder = names[0] if len(names) == 1 and isinstance(names[0], str) and os.path.isdir(names[0]) else ""
    name = Path(os.path.abspath(folder)).name if folder else f"{first.name}-and-{len(parts) - 1}-more"
    return Texts(name or "text", f"the text ({len(parts):,} files)", parts, reading)


def _several(source: Any, opening: "_Opening", reading: Reading) -> Texts:
    """The texts of an iterable: of paths, or of lines, which are texts of their own if one of them holds a newline."""
    try:
        items = None if isinstance(source, bytearray | memoryview | Mapping) else iter(source)
    except TypeError:
        items = None
    if items is None:
        raise InputError(f"got {type(source).__name__}, expected a path, several paths, a text or lines of text, as str")
    first = next(items, "")
    if isinstance(first, os.PathLike | FileReference):
        parts = []
        for item in (first, *items):
            if isinstance(item, FileReference):
                parts += opening.recorded(item, several=True)
            elif isinstance(item, os.PathLike):
                parts += opening.path(os.fsdecode(item), several=True)
            else:
                raise InputError(f"got {item!r:.100} among paths, expected a path: give pathlib.Path({item!r:.100})")
        return _texts(parts, None, reading)
    if isinstance(source, list | tuple) and source and all(isinstance(item, str) and os.path.isfile(item) for item in source):
        raise InputError(f"got the names of {len(source):,} files, and a str is a line of text: give each as pathlib.Path(...)")
    lines, several = _join(first, items)
    if several and reading.mode == "lines":
        raise InputError("a text of the list holds a newline, and in mode lines each line is a text: leave out the mode")
    if several and reading.mode is None:
        reading = reading._replace(mode="records")
    return Texts("text", "the text", [Source("text", "", "the text", line) for line in lines], reading)


def _join(first: object, items: Iterator[object]) -> tuple[list[str], bool]:
    """Join lines to one text; as soon as an item has a newline inside, each of them is a text, and the result true."""
    parts, part = list[str](), list[str]()  # joined now and then: a list of all lines would be many times the text
    several, number, item = False, 0, first
    while True:
        number += 1
        if not isinstance(item, str):
            raise InputError(f"line {number} of the text is {type(item).__name__}, expected str")
        line = item.removesuffix("\n")
        if not several and "\n" in line:
            several, parts = True, [one for joined in (*parts, "\n".join(part)) for one in joined.split("\n")][: number - 1]
            part = []
        part.append(line)
        if len(part) == _LINES:
            parts += part if several else ["\n".join(part)]
            part = []
        try:
            item = next(items)
        except StopIteration:
            break
    return (parts + part, True) if several else (["\n".join([*parts, *part])], False)


def _refuse_path(text: str | bytes) -> None:
    r"""Raise an InputError for a path in which Python read a newline, as in "C:\\new\\names.txt"."""
    if not isinstance(text, str) or len(text) > _LONGEST_PATH or text.endswith("\n"):
        return
    written = text.replace("\n", "\\n")
    if os.path.exists(written) or _PATH.fullmatch(text):
        raise InputError(f"got {text!r}, which looks like a path with a newline in it: write r'{written}', or pathlib.Path")


def _name(path: str) -> str:
    stem = Path(path).stem
    if Path(path).suffix.lower() in _SUFFIXES:
        stem = Path(stem).stem
    return stem.strip(".") or "text"
