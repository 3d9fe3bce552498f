"""Join several texts, or the records of one, with a boundary at the end of each."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, AnyStr

from bptt.data import decoding
from bptt.data.source import Reading, Source, Texts
from bptt.data.vocabulary import NEWLINE, RECORD
from bptt.errors import InputError, option

_BATCH = 1 << 16  # characters or bytes
_LINES = 1 << 16  # lines of an iterable joined at a time


def characters(texts: Texts, boundary: str) -> Iterator[tuple[int, str]]:
    """Yield the decoded pieces of the texts, each with the number of its text; one text by itself is not changed.

    Where the boundary is the newline, a text that another follows ends with one. Otherwise each text ends with the boundary,
    which also takes the place of the separator.

    Raises:
        InputError: a text that cannot be decoded, or that has the boundary in it.
    """
    return _joined(texts, boundary, "", decoding.characters)


def raw(texts: Texts, boundary: str) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces of `characters` as the bytes that they are, not decoded."""
    return _joined(texts, boundary, b"", Source.pieces)


def with_boundaries(text: str | bytes, boundary: str, reading: Reading) -> str | bytes:
    """A text with the boundary in the place of each separator, unless it has boundaries already."""
    end: Any = boundary if isinstance(text, str) else boundary.encode()
    if reading.separator is None or end in text:
        return text
    opened = Texts("text", "the text", [Source("text", "", "the text", text)], reading)
    if isinstance(text, bytes):
        return b"".join(piece for _, piece in raw(opened, boundary))
    return "".join(piece for _, piece in characters(opened, boundary))


def batched(pieces: Iterable[AnyStr]) -> Iterator[AnyStr]:
    """Join pieces that follow each other, so that a list of many short texts is not worked on one by one."""
    batch, size = list[AnyStr](), 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH:
            yield piece[:0].join(batch)
            batch, size = [], 0
    if batch:
        yield batch[0][:0].join(batch)


def _joined(
    texts: Texts, boundary: str, empty: AnyStr, read: Callable[[Source], Iterator[AnyStr]]
) -> Iterator[tuple[int, AnyStr]]:
    separator, end = texts.reading.separator or "", _like(empty, boundary)
    if isinstance(empty, str):  # the newlines of a decoded text are all the same
        separator = separator.replace("\r\n", NEWLINE).replace("\r", NEWLINE)
    for number, part in enumerate(texts.parts):
        pieces = read(part)
        if boundary != NEWLINE:
            pieces = _trimmed(_replaced(pieces, _like(empty, separator), end, part.shown), end)
        last = end
        for piece in pieces:
            if piece:
                yield number, piece
                last = piece[-1:]
        if number < len(texts.parts) - 1 and last != end:
            yield number, end


def _like(kind: AnyStr, text: str) -> AnyStr:
    """A text as str or as bytes."""
    encoded: AnyStr = text if isinstance(kind, str) else text.encode("utf-8", "surrogatepass")
    return encoded


def _replaced(pieces: Iterable[AnyStr], separator: AnyStr, end: AnyStr, shown: str = "the text") -> Iterator[AnyStr]:
    r"""Yield the pieces with the boundary in the place of each separator.

    Where the separator begins or ends with a newline, the text is taken to do so, too, and so is what follows a separator:
    "\n---\n" also stands at the beginning of "---\na", and twice in "a\n---\n---\nb".

    Raises:
        InputError: the text has the boundary in it.
    """
    if not separator:
        for piece in pieces:
            _refuse_boundary(end in piece, shown)
            yield piece
        return
    newlines = [_like(separator, newline) for newline in ("\r\n", "\n")]
    first = last = separator[:0]
    if separator.strip(newlines[0]):
        first = next((newline for newline in newlines if separator.startswith(newline)), first)
        last = next((newline for newline in newlines if separator.endswith(newline)), last)
    again = _like(separator, "(?:") + re.escape(separator[len(first) :]) + _like(separator, ")*") if first else first
    pattern, rest = re.compile(re.escape(separator) + again), first
    for piece in itertools.chain(pieces, [last]):
        *complete, tail = pattern.split(rest + piece)
        tail = first + tail if complete else tail
        keep = min(len(separator) - 1, len(tail))  # characters that can be the beginning of a separator
        rest = tail[len(tail) - keep :]
        replaced = end.join([*complete, tail[: len(tail) - keep]])
        _refuse_boundary(replaced.count(end) > len(complete), shown)
        yield replaced
    _refuse_boundary(end in rest, shown)
    yield rest


def _refuse_boundary(present: bool, shown: str) -> None:
    if present:
        problem = f"{shown} holds the character U+{ord(RECORD):04X}, which ends a record here"
        raise InputError(f"{problem}: remove it, or train with {option('separator')}='\\x1e'")


def _trimmed(pieces: Iterable[AnyStr], end: AnyStr) -> Iterator[AnyStr]:
    """Yield the pieces without newlines at both ends of each record, and without empty records."""
    trimmed, before = _like(end, "\r\n") + end, _like(end, r"(?:(?<![\r\n])[\r\n]++)?")
    begun, rest = False, end[:0]  # whether there was a record; what is trimmed unless a record goes on
    for piece in pieces:
        text = rest + piece
        if end in text:
            text = re.sub(before + end + _like(end, "[") + trimmed + _like(end, "]*+"), end, text)
        text = text if begun else text.lstrip(trimmed)
        record = text.rstrip(trimmed)
        rest = text[len(record) :]
        if record:
            begun = True
            yield record
    if end in rest:
        yield end


def lines(first: object, items: Iterator[object], *, separate: bool) -> tuple[list[str], bool]:
    """Join lines to one text; if `separate`, or as soon as one has a newline inside, each is a text, and the result true."""
    parts, part = list[str](), list[str]()  # joined now and then: a list of all lines would be many times the text
    number, item = 0, first
    while True:
        number += 1
        if not isinstance(item, str):
            remedy = ": decode it, or join all of them to one bytes object" if isinstance(item, bytes) else ""
            raise InputError(f"line {number} of the text is {type(item).__name__}, expected str{remedy}")
        line = item.removesuffix("\n")
        if not separate and "\n" in line:
            separate, parts = True, [one for joined in (*parts, "\n".join(part)) for one in joined.split("\n")][: number - 1]
            part = []
        part.append(line)
        if len(part) == _LINES:
            parts += part if separate else ["\n".join(part)]
            part = []
        try:
            item = next(items)
        except StopIteration:
            break
    return (parts + part, True) if separate else (["\n".join([*parts, *part])], False)
