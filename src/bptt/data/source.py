"""A text before it is decoded, or several: where it comes from, its bytes, and how a record names it."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, NamedTuple

from bptt import files
from bptt.config.rules import check_encoding
from bptt.config.settings import Mode, NewSymbols
from bptt.errors import InputError, InvalidFile
from bptt.files import FileReference

CHUNK = 1 << 20  # bytes read at a time
_LONGEST_NAME = 200  # bytes
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")


def dinosaurs() -> str:
    """Names of dinosaurs, a to z, one per line."""
    return resources.files("bptt.data").joinpath("builtin", "dinosaurs.txt").read_text("utf-8")


def python_help() -> str:
    """The help texts of Python's standard library, about 465,000 characters of English; they vary between versions."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


BUILT_IN: dict[str, Callable[[], str]] = {"dinosaurs": dinosaurs, "python-help": python_help}


class Reading(NamedTuple):
    """How the bytes of texts become characters and records."""

    encoding: str = "utf-8"
    pattern: str = "*"  # of the names of files in a folder
    separator: str | None = None  # between the records of a text
    mode: Mode | None = None  # None: to be chosen
    unknown: NewSymbols | None = None  # what to do with characters that a given vocabulary lacks; None: refuse them
    without: frozenset[str] = frozenset()  # real paths of files in a folder that are none of its texts

    @property
    def records(self) -> bool:
        """Whether a text is a record, or holds several."""
        return self.separator is not None or self.mode == "records"


DEFAULT_READING = Reading()


class Names(NamedTuple):
    """Texts as they are named on the command line: paths, built-in names, or - alone."""

    names: tuple[str, ...]


class Section(NamedTuple):
    """A part of an open file, which may hold other texts, too."""

    file: IO[bytes]
    start: int  # offset of its first byte
    size: int  # bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes in order, `CHUNK` at a time."""
        for offset in range(0, self.size, CHUNK):
            self.file.seek(self.start + offset)  # each time: readers of other sections move on in the same file
            yield self.file.read(min(CHUNK, self.size - offset))


@dataclass
class Source:
    """A text before it is decoded, which can be read several times."""

    name: str  # a built-in name, the stem of a file, "stdin" or "text"
    place: str  # what finds it again: a built-in name, an absolute path, "-", or "" for text given in Python
    shown: str  # what an error message calls it
    content: str | bytes | Path | Section  # the path or a copy where it is large
    sha256: str = ""  # of a large file, known after the first reading, or of any after `checksum`
    size: int | None = None  # bytes of a regular file
    unpacked: int | None = None  # bytes of what a compressed file holds
    validation: bool = False  # whether it is a validation set, of which errors expect something else
    encoding: str = "utf-8"
    listed: bool = False  # whether it was found in a folder or by a pattern

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
                for piece in self._from_disk(self.content):
                    digest.update(piece)
                    yield piece
            except (OSError, InvalidFile) as error:
                raise InputError(f"{self.shown} cannot be read ({files.describe_os_error(error)})") from None
            if self.sha256 not in ("", digest.hexdigest()):
                raise InputError(f"{self.shown} changed while it was read: try again")
            self.sha256 = digest.hexdigest()

    def checksum(self) -> str:
        """SHA-256 of the bytes of the file, of a compressed one of those that it holds."""
        if not self.sha256:
            digest = hashlib.sha256()
            for piece in self.pieces():
                digest.update(piece)
            self.sha256 = digest.hexdigest()
        return self.sha256

    @staticmethod
    def _from_disk(content: Path | Section) -> Iterator[bytes]:
        if isinstance(content, Section):
            yield from content.pieces()
            return
        with files.open_regular(content, links=True) as file:
            while piece := file.read(CHUNK):
                yield piece


@dataclass
class Texts:
    """What is read as one: a text, or several in their order."""

    name: str
    shown: str
    parts: list[Source]
    reading: Reading
    left_out: int = 0  # files in a folder that are the validation set

    @property
    def large(self) -> bool:
        """Whether one of the texts stays on the disk, and with it the ids of all."""
        return any(part.large for part in self.parts)

    @property
    def validation(self) -> bool:
        """Whether they are a validation set."""
        return self.parts[0].validation


def joined_texts(parts: list[Source], source: Any, reading: Reading) -> Texts:
    """One text, or several with a name that stands for all."""
    filled = [part for part in parts if part.content] or parts
    first = filled[0]
    if len(parts) == 1:
        return Texts(first.name, first.shown, parts, reading)
    names = [os.fsdecode(source)] if isinstance(source, os.PathLike) else getattr(source, "names", [source])
    folder = names[0] if len(names) == 1 and isinstance(names[0], str) and os.path.isdir(names[0]) else ""
    if folder:
        name = typable(Path(os.path.abspath(folder)).name)
    else:
        name = first.name if len(filled) == 1 else f"{first.name}-and-{len(filled) - 1}-more"
    return Texts(name or "text", f"the text ({len(parts):,} files)", parts, reading)


def stem(path: str) -> str:
    """What a text in a file is called: its name without a suffix, and without that of a compressed file."""
    stem = Path(path).stem
    if Path(path).suffix.lower() in _SUFFIXES:
        stem = Path(stem).stem
    return typable(stem).strip(".") or "text"


def typable(name: str) -> str:
    """A name that a message can show and a user can type, short enough for that of a folder with a number behind it."""
    shown = "".join(character if character.isprintable() else "_" for character in name)
    return shown.encode()[:_LONGEST_NAME].decode("utf-8", "ignore")


def recorded_texts(record: Mapping[str, Any]) -> tuple[FileReference, ...] | None:
    """The texts that the record of a model names, which may hold anything; None where they were no files."""
    place, listed = record.get("source"), record.get("files")
    places = place if isinstance(place, list) else [place]
    columns = listed if isinstance(listed, dict) else {}

    def column(name: str) -> list[Any]:
        values = columns.get(name)
        return values if isinstance(values, list) and len(values) == len(places) else [None] * len(places)

    sizes = column("bytes") if isinstance(place, list) else [record.get("bytes")]
    references = [_recorded_file(*facts) for facts in zip(places, sizes, column("unpacked")) if facts[0] not in ("", "-")]
    named = tuple(reference for reference in references if reference is not None)
    return named if named and len(named) == len(places) else None


def recorded_reading(record: Mapping[str, Any], mode: Mode) -> Reading:
    """How to read a text for a model: with the encoding and the separator of its record, which may hold anything.

    Raises:
        InputError: there is no encoding of that name.
    """
    settings = record.get("settings")
    facts = settings if isinstance(settings, dict) else {}
    encoding, separator = check_encoding("the encoding of the model", facts.get("encoding", "utf-8")), facts.get("separator")
    return Reading(encoding, separator=separator if mode == "records" and isinstance(separator, str) else None, mode=mode)


def recorded_validation_files(record: Mapping[str, Any], setting: object) -> tuple[FileReference, ...] | None:
    """The files of the validation set of a recorded run, given its setting `validation`; None where that is no file."""
    file = record.get("validation")
    facts = file if isinstance(file, dict) else {}
    if not isinstance(setting, Path):
        return None
    if isinstance(facts.get("source"), list):
        return recorded_texts(facts)
    return (FileReference(str(setting), _count(facts.get("bytes")), unpacked=_count(facts.get("unpacked"))),)


def _recorded_file(place: object, size: object, unpacked: object) -> FileReference | None:
    if not isinstance(place, str | Path):
        return None
    return FileReference(str(place), _count(size), unpacked=_count(unpacked))


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
