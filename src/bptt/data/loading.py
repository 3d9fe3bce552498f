"""Opening texts: files, folders, standard input, built-in texts, str and bytes; large ones stay on the disk."""

import contextlib
import dataclasses
import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

from bptt import files
from bptt.data import compression, file_lists, joining, token_store
from bptt.data.source import BUILT_IN, CHUNK, DEFAULT_READING, Names, Reading, Section, Source, Texts, joined_texts, stem
from bptt.errors import InputError, InvalidFile, TextChanged, is_command_line
from bptt.files import FileReference

LARGE = 1 << 24  # bytes; texts above are read in pieces and their ids mapped from the disk
VALIDATION_EXPECTED = "expected a fraction of the training text such as 0.1, or a file or a folder of text"
MOST_TIMES = 100  # its size that a text may unpack to which a record alone names; English does three times
RECORDED_EXPECTED = "expected a file of text"


@contextlib.contextmanager
def fetch(source: Any, reading: Reading = DEFAULT_READING) -> Iterator[Texts]:
    """Open the source that `corpus.read` is called with, for the length of the context."""
    with contextlib.ExitStack() as stack:
        opening = _Opening(stack, reading)
        if isinstance(source, Names):
            if "-" in source.names and len(source.names) > 1:
                raise InputError("standard input (-) is a text alone: leave out the others, or give all of them as files")
            parts = [part for name in source.names for part in opening.named(name)]
        elif isinstance(source, os.PathLike):
            parts = opening.path(os.fsdecode(source))
        elif isinstance(source, FileReference):
            parts = opening.recorded(source)
        elif isinstance(source, str) and ("\n" not in source or (is_command_line() and file_lists.exists(source))):
            parts = opening.named(source)
        elif isinstance(source, str | bytes):
            file_lists.refuse_path(source)
            parts = [Source("text", "", "the text", source, encoding=reading.encoding)]
        else:
            yield _from_iterable(source, opening, reading)
            return
        yield dataclasses.replace(joined_texts(parts, source, reading), left_out=opening.left_out)


@contextlib.contextmanager
def open_validation_set(source: Path | tuple[FileReference, ...], reading: Reading = DEFAULT_READING) -> Iterator[Texts]:
    """Open the files of a validation set, for the length of the context; no name stands for a built-in text."""
    with contextlib.ExitStack() as stack:
        opening = _Opening(stack, reading, validation=True)
        if isinstance(source, tuple):
            file_lists.refuse_many(source)
            parts = [part for file in source for part in opening.recorded(file)]
        else:
            parts = opening.path(os.fsdecode(source))
        opened = joined_texts(parts, source, reading)
        yield opened if len(parts) == 1 else dataclasses.replace(opened, shown=f"the validation set ({len(parts):,} files)")


class _Opening:
    """Opens texts one after the other; together they have `LARGE` bytes of memory, and what is more stays on the disk."""

    def __init__(self, stack: contextlib.ExitStack, reading: Reading, *, validation: bool = False) -> None:
        self.stack, self.reading, self.validation = stack, reading, validation
        self.memory_left = LARGE  # bytes
        self.left_out = 0  # files of the validation set
        self.copies: IO[bytes] | None = None  # of large texts
        self.limits = file_lists.Limits()

    def named(self, name: str) -> list[Source]:
        """The text of a name that a user gave, or the texts of a folder or a pattern."""
        if name in BUILT_IN:
            return [self.built_in(name)]
        if name == "-":
            return [self.standard_input()]
        return self.path(name)

    def built_in(self, name: str) -> Source:
        return Source(name, name, name, BUILT_IN[name]())

    def standard_input(self) -> Source:
        try:
            content, unpacked = self.content(sys.stdin.buffer, "standard input")
        except (OSError, AttributeError):  # sys.stdin is None where the caller closed it
            raise InputError("standard input cannot be read: pipe a text into it, or name a file") from None
        return Source("stdin", "-", "standard input", content, unpacked=unpacked, encoding=self.reading.encoding)

    def path(self, path: str) -> list[Source]:
        """The file at a path, or the files of a folder or a pattern."""
        expanded = self.expand(path)
        if expanded is None:
            return [self.file(path)]
        return [dataclasses.replace(self.file(one), listed=True) for one in expanded]

    def expand(self, path: str) -> list[str] | None:
        """The files of a folder or a pattern but for those of the validation set; None for a file."""
        try:
            expanded = file_lists.expand(path, self.reading.pattern)
        except InputError as error:
            raise InputError(f"{'validation set ' * self.validation}{error}") from None
        if expanded is None or self.validation or not self.reading.without:
            return expanded
        kept = [one for one in expanded if os.path.realpath(one) not in self.reading.without]
        self.left_out += len(expanded) - len(kept)
        if not kept:
            raise InputError(f"{self.shown(path)} holds no files but those of the validation set: name texts to train on")
        return kept

    def file(self, path: str) -> Source:
        """Open a file that a user named, which may also be a pipe.

        Raises:
            InputError: it cannot be read, or is a folder.
        """
        if os.path.isdir(path):
            raise InputError(f"{self.shown(path)} is a folder, expected a file of text: name one of its files")
        text = "" if is_command_line() else ", or a text with a newline in it"
        expected = f"expected a file, - for standard input, or a built-in text ({', '.join(BUILT_IN)}){text}"
        return self.opened(path, lambda: open(path, "rb"), expected)

    def recorded(self, file: FileReference) -> list[Source]:
        """Open the file that a run or a model names.

        Raises:
            InputError: it is not a regular file, or cannot be read.
            TextChanged: it is not as long as it was.
        """
        if file.place in BUILT_IN and not self.validation:
            return [self.built_in(file.place)]
        path = os.path.join(file.folder, os.path.expanduser(file.place))
        if file.by_user and (expanded := self.expand(path)) is not None:
            return [source for one in expanded for source in self.recorded(FileReference(one, by_user=True))]
        regular = partial(files.open_regular, Path(path), links=True)
        return [self.opened(path, regular, RECORDED_EXPECTED, file)]

    def opened(
        self, path: str, open_file: Callable[[], IO[bytes]], expected: str, recorded: FileReference | None = None
    ) -> Source:
        """Open a file and read what there is memory for; `expected` says what should have been there."""
        shown = self.shown(path)
        try:
            with open_file() as file:
                status = os.fstat(file.fileno())
                size = status.st_size if stat.S_ISREG(status.st_mode) else None
                if recorded and recorded.size not in (None, size):
                    self.raise_changed(shown, f"{size:,} bytes now, {recorded.size:,} before")
                content, unpacked = self.content(file, shown, None if size is None else Path(path), recorded)
            once = not self.validation and (size is None or path.startswith(files.OPEN_PIPES))  # as standard input is
            name = "pipe" if path.startswith(files.OPEN_PIPES) else stem(path)
            place = "-" if once else os.path.abspath(path)
            self.limits.count_name(place)
            if recorded and not recorded.by_user:
                self.limits.count_recorded(shown, status, unpacked or status.st_size, LARGE)
            return Source(name, place, shown, content, "", size, unpacked, self.validation, self.reading.encoding)
        except InputError:
            raise
        except (OSError, ValueError, InvalidFile) as error:  # ValueError: a NUL in the path
            missing = isinstance(error, FileNotFoundError | InvalidFile) and not os.path.exists(path)
            reason = str(error) if isinstance(error, InvalidFile) else f"cannot be read ({files.describe_os_error(error)})"
        if missing:
            reason = "does not exist" + file_lists.hint(path, [] if self.validation else BUILT_IN)
        raise InputError(f"{shown} {reason}: {VALIDATION_EXPECTED if self.validation else expected}")

    def content(
        self, file: IO[bytes], shown: str, path: Path | None = None, recorded: FileReference | None = None
    ) -> tuple[bytes | Path | Section, int | None]:
        """Return the bytes of a small file, else its path or a copy; and the size of what a compressed one holds.

        A file without a `path` can be read once.

        Raises:
            InputError: a compressed file that cannot be unpacked, or no space for a copy.
            TextChanged: a compressed file does not hold as much as was `recorded`.
        """
        head = file.read(compression.BEGINNING)
        if not compression.is_compressed(head):
            if path is not None:
                file.seek(0)
                head = b""
            rest = file.read(max(0, self.memory_left + 1 - len(head)))
            piece = head + rest if head else rest  # without a copy of what may be 16 megabytes
            if self.fits(piece):
                return piece, None
            return path or self.copy(piece, file, shown), None
        with contextlib.ExitStack() as closing:
            packed = file
            if path is None:  # its reader goes back and forth
                packed = closing.enter_context(self.temporary_file(shown, len(head)))
                self.write(packed, head, file, shown)
            packed.seek(0)
            content = closing.enter_context(compression.unpacked(packed, head, shown))
            piece = content.read(self.memory_left + 1)
            if self.fits(piece):
                unpacked: bytes | Section = piece
                size = len(piece)
            else:
                most = self.most_unpacked(recorded, packed, shown) if recorded and not recorded.by_user else None
                unpacked = self.copy(piece, content, shown, most)
                size = unpacked.size
                if most is not None and size > most and recorded and recorded.unpacked is None:
                    raise InputError(_too_large(shown))
        if recorded and recorded.unpacked not in (None, size):
            self.raise_changed(shown, f"it holds {size:,} bytes now, {recorded.unpacked:,} before")
        return unpacked, size

    def most_unpacked(self, recorded: FileReference, packed: IO[bytes], shown: str) -> int:
        """The bytes that a copy may have of a text that a record alone names, which may come from a stranger.

        Raises:
            InputError: the record claims more than that.
            TextChanged: the file was not compressed.
        """
        if recorded.size is not None and recorded.unpacked is None:
            self.raise_changed(shown, "it is compressed now, and was not before")
        most = min(MOST_TIMES * os.fstat(packed.fileno()).st_size, token_store.free_space())
        if recorded.unpacked is None:
            return most
        if recorded.unpacked > most:
            raise InputError(_too_large(shown))
        return recorded.unpacked

    def fits(self, piece: bytes) -> bool:
        """Whether a text can stay in memory, which it takes from those to come."""
        fits = len(piece) <= self.memory_left
        self.memory_left -= len(piece) if fits else 0
        return fits

    def copy(self, piece: bytes, file: IO[bytes], shown: str, most: int | None = None) -> Section:
        """Copy the piece that was read of a file and its rest behind the copies of other texts, in one temporary file."""
        if self.copies is None:
            self.copies = self.stack.enter_context(self.temporary_file(shown, len(piece)))
        start = self.copies.seek(0, os.SEEK_END)
        return Section(self.copies, start, self.write(self.copies, piece, file, shown, most))

    def temporary_file(self, shown: str, size: int) -> IO[bytes]:
        with token_store.input_error_if_full(shown, size):
            return token_store.temporary_file()

    def write(self, target: IO[bytes], piece: bytes, file: IO[bytes], shown: str, most: int | None = None) -> int:
        """Write a piece and the rest of a file, up to a piece more than `most` bytes; returns their number."""
        size = 0
        while piece and (most is None or size <= most):
            size += len(piece)
            with token_store.input_error_if_full(shown, size):
                target.write(piece)
            piece = file.read(CHUNK)
        return size

    def raise_changed(self, shown: str, change: str) -> NoReturn:
        raise TextChanged(f"{'' if self.validation else 'text '}{shown} has changed: {change}")

    def shown(self, path: str) -> str:
        """What an error message calls a file."""
        return "validation set " * self.validation + repr(path if len(path) <= 100 else path[:97] + "...")


def _from_iterable(source: Any, opening: "_Opening", reading: Reading) -> Texts:
    """The texts of an iterable: of paths, or of lines, which are texts of their own if one of them holds a newline."""
    try:
        items = None if isinstance(source, bytearray | memoryview | Mapping) else iter(source)
    except TypeError:
        items = None
    if items is None:
        raise InputError(f"got {type(source).__name__}, expected a path, several paths, a text or lines of text, as str")
    if isinstance(source, tuple):
        file_lists.refuse_many(source)
    first = next(items, "")
    if isinstance(first, os.PathLike | FileReference):
        parts = []
        for item in (first, *items):
            if isinstance(item, FileReference):
                parts += opening.recorded(item)
            elif isinstance(item, os.PathLike):
                parts += opening.path(os.fsdecode(item))
            else:
                raise InputError(f"got {item!r:.100} among paths, expected a path: give pathlib.Path({item!r:.100})")
        return dataclasses.replace(joined_texts(parts, None, reading), left_out=opening.left_out)
    head = [first, *itertools.islice(items, file_lists.SHORT_LIST)]
    file_lists.refuse_names(head)
    items = itertools.chain(head[1:], items)
    lines, with_newlines = joining.lines(first, items, separate=reading.mode == "records")
    if with_newlines and reading.mode == "lines":
        raise InputError("a text of the list holds a newline, and in mode lines each line is a text: leave out the mode")
    if reading.mode is None and with_newlines:
        reading = reading._replace(mode="records")
    elif reading.mode is None and not reading.records and not str(first).endswith("\n"):  # as those of a file do
        reading = reading._replace(mode="lines")
    return Texts("text", "the text", [Source("text", "", "the text", line) for line in lines], reading)


def _too_large(shown: str) -> str:
    return f"{shown} unpacks to more than {MOST_TIMES} times its size, or than the disk has room for: name it, or unpack it"
