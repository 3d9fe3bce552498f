"""Sources of text: files, standard input, built-in texts and str; large files stay on the disk."""

import contextlib
import difflib
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

from bptt import files
from bptt.data import token_store
from bptt.errors import InputError, InvalidFile, TextChanged
from bptt.files import FileReference

LARGE = 1 << 24  # bytes; files above are read in pieces and their ids mapped from the disk
CHUNK = 1 << 20  # bytes read at a time
VALIDATION_EXPECTED = "expected a share of the training text such as 0.1, or a file of text"
RECORDED_EXPECTED = "expected a file of text"
_LINES = 1 << 16  # lines of an iterable joined at a time


def dinosaurs() -> str:
    """Names of dinosaurs, a to z, one per line."""
    return resources.files("bptt.data").joinpath("builtin", "dinosaurs.txt").read_text("utf-8")


def python_help() -> str:
    """The help texts of Python's standard library, about 465,000 characters of English; they vary between versions."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


BUILT_IN: dict[str, Callable[[], str]] = {"dinosaurs": dinosaurs, "python-help": python_help}


@dataclass
class Source:
    """A text before it is decoded, which can be read several times."""

    name: str  # a built-in name, the stem of a file, "stdin" or "text"
    place: str  # what finds it again: a built-in name, an absolute path, "-", or "" for text given in Python
    shown: str  # what an error message calls it
    content: str | bytes | IO[bytes]  # a file where it is large
    sha256: str = ""  # of a large file, known after the first reading
    size: int | None = None  # bytes of a regular file
    validation: bool = False  # whether it is a validation set, of which errors expect something else

    @property
    def large(self) -> bool:
        """Whether the text stays on the disk."""
        return not isinstance(self.content, str | bytes)

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes in order, `CHUNK` at a time.

        Raises:
            InputError: a file that cannot be read, or that changed since it was read before.
        """
        if isinstance(self.content, str):
            yield self.content.encode("utf-8", "surrogatepass")
        elif isinstance(self.content, bytes):
            yield from (self.content[i : i + CHUNK] for i in range(0, len(self.content), CHUNK))
        else:
            digest = hashlib.sha256()
            try:
                self.content.seek(0)
                while piece := self.content.read(CHUNK):
                    digest.update(piece)
                    yield piece
            except OSError as error:
                raise InputError(f"{self.shown} cannot be read ({error.strerror or error})") from None
            if self.sha256 not in ("", digest.hexdigest()):
                raise InputError(f"{self.shown} changed while it was read: try again")
            self.sha256 = digest.hexdigest()


@contextlib.contextmanager
def fetch(source: str | os.PathLike[str] | Iterable[str] | FileReference) -> Iterator[Source]:
    """Open the source that `corpus.read` is called with, for the length of the context."""
    with contextlib.ExitStack() as stack:
        if isinstance(source, os.PathLike):
            yield _file(os.fsdecode(source), stack)
        elif isinstance(source, FileReference):
            yield _built_in(source.place) if source.place in BUILT_IN else _recorded(source, stack)
        elif not isinstance(source, str):
            yield Source("text", "", "the text", _join(source))
        elif "\n" in source:
            yield Source("text", "", "the text", source)
        elif source in BUILT_IN:
            yield _built_in(source)
        elif source == "-":
            yield _stdin(stack)
        else:
            yield _file(source, stack)


@contextlib.contextmanager
def open_validation_file(path: Path | FileReference) -> Iterator[Source]:
    """Open the file of a validation set, for the length of the context; no name stands for anything but a file."""
    with contextlib.ExitStack() as stack:
        if isinstance(path, FileReference):
            yield _recorded(path, stack, validation=True)
        else:
            yield _file(os.fsdecode(path), stack, validation=True)


def recorded_text(record: Mapping[str, Any]) -> FileReference | None:
    """The text that the record of a model names, which may hold anything; None where there is no such file."""
    place = record.get("source")
    return None if place in ("", "-") else _recorded_file(place, record)


def recorded_validation_file(record: Mapping[str, Any], setting: object) -> FileReference | None:
    """The file of the validation set of a recorded run, given its setting `validation`; None where that is no file."""
    file = record.get("validation")
    return _recorded_file(setting, file if isinstance(file, dict) else {}) if isinstance(setting, Path) else None


def _recorded_file(place: object, record: Mapping[str, Any]) -> FileReference | None:
    size = record.get("bytes")
    if not isinstance(place, str | Path):
        return None
    return FileReference(str(place), size if type(size) is int and size >= 0 else None)


def _join(lines: Iterable[str]) -> str:
    try:
        items = None if isinstance(lines, bytes | bytearray) else iter(lines)
    except TypeError:
        items = None
    if items is None:
        raise InputError(f"got {type(lines).__name__}, expected a path, a text or lines of text, as str")
    parts, part = [], []  # joined now and then: a list of all lines would be many times the text
    for number, item in enumerate(items, 1):
        if not isinstance(item, str):
            raise InputError(f"line {number} of the text is {type(item).__name__}, expected str")
        part.append(item.removesuffix("\n"))
        if len(part) == _LINES:
            parts.append("\n".join(part))
            part = []
    return "\n".join([*parts, *part])


def _stdin(stack: contextlib.ExitStack) -> Source:
    try:
        content = _content(sys.stdin.buffer, "standard input", stack, again=False)
    except (OSError, AttributeError):  # sys.stdin is None where the caller closed it
        raise InputError("standard input cannot be read: pipe a text into it, or name a file") from None
    return Source("stdin", "-", "standard input", content)


def _built_in(name: str) -> Source:
    return Source(name, name, name, BUILT_IN[name]())


def _shown(path: str, *, validation: bool) -> str:
    return "validation set " * validation + repr(path if len(path) <= 100 else path[:97] + "...")


def _recorded(file: FileReference, stack: contextlib.ExitStack, *, validation: bool = False) -> Source:
    """Open the file that a run or a model names.

    Raises:
        InputError: it is not a regular file, or cannot be read.
        TextChanged: it is not as long as it was.
    """
    path = os.path.join(file.folder, os.path.expanduser(file.place))
    shown = _shown(path, validation=validation)
    try:
        opened = stack.enter_context(files.open_regular(Path(path), links=True))
        size = os.fstat(opened.fileno()).st_size
        content = opened if size > LARGE else opened.read(LARGE + 1)
    except InvalidFile as problem:
        missing = not os.path.lexists(path)
        reason = "does not exist" + _hint(path, [] if validation else BUILT_IN) if missing else str(problem)
        raise InputError(f"{shown} {reason}: {VALIDATION_EXPECTED if validation else RECORDED_EXPECTED}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{shown} cannot be read ({files.describe_os_error(error)})") from None
    if file.size not in (None, size):
        raise TextChanged(f"{'' if validation else 'text '}{shown} has changed: {size:,} bytes now, {file.size:,} before")
    return Source(_name(path), os.path.abspath(path), shown, content, size=size, validation=validation)


def _name(path: str) -> str:
    return Path(path).stem.strip(".") or "text"


def _file(path: str, stack: contextlib.ExitStack, *, validation: bool = False) -> Source:
    shown = _shown(path, validation=validation)
    if os.path.isdir(path):
        raise InputError(f"{shown} is a folder, expected a file of text: name one of its files")
    try:
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(open(path, "rb"))
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            size = os.fstat(file.fileno()).st_size if regular else None
            content = _content(file, shown, stack, again=regular)
            stack.enter_context(closing.pop_all())
        return Source(_name(path), os.path.abspath(path), shown, content, size=size, validation=validation)
    except FileNotFoundError:
        reason = "does not exist" + _hint(path, [] if validation else BUILT_IN)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if validation:
        raise InputError(f"{shown} {reason}: {VALIDATION_EXPECTED}")
    raise InputError(
        f"{shown} {reason}: expected a file, - for standard input, a built-in text ({', '.join(BUILT_IN)}), "
        "or in Python a text with a newline in it"
    )


def _content(file: IO[bytes], shown: str, stack: contextlib.ExitStack, again: bool) -> bytes | IO[bytes]:
    """Return the bytes of a small file, else the file, or a copy of it if it cannot be read `again`."""
    piece = file.read(LARGE + 1)
    if len(piece) <= LARGE:
        return piece
    if again:
        return file
    with token_store.input_error_if_full(shown, len(piece)):
        copy = stack.enter_context(token_store.temporary_file())
    while piece:
        with token_store.input_error_if_full(shown, copy.tell() + len(piece)):
            copy.write(piece)
        piece = file.read(CHUNK)
    return copy


def _hint(path: str, other_names: Iterable[str]) -> str:
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".") + ([] if folder else list(other_names))
    except OSError:
        return ""
    close = difflib.get_close_matches(name, names, 1, 0.75)
    return f" (did you mean {os.path.join(folder, close[0])!r}?)" if close else ""
