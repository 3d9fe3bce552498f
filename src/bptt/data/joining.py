"""Several texts, or the records of a text, as the pieces of one: a boundary stands where one of them ends."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, AnyStr

from bptt.data import decoding
from bptt.data.source import Reading, Source, Texts
from bptt.data.vocabulary import NEWLINE, RECORD
from bptt.errors import InputError

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


def _joined(
    texts: Texts, boundary: str, empty: AnyStr, read: Callable[[Source], Iterator[AnyStr]]
) -> Iterator[tuple[int, AnyStr]]:
    separator, end = _like(empty, texts.reading.separator), _like(empty, boundary)
    records = boundary != NEWLINE
    for number, part in enumerate(texts.parts):
        pieces = read(part)
        if records:
            pieces = _replaced(_without(pieces, end, separator, part), separator, end)
        last = end
        for piece in pieces:
            if piece:
                yield number, piece
                last = piece[-1:]
        if number < len(texts.parts) - 1 and last != end:
            yield number, end


def _like(kind: AnyStr, text: str | None) -> AnyStr:
    """A text as str or as bytes."""
    encoded: AnyStr = (text or "") if isinstance(kind, str) else (text or "").encode("utf-8", "surrogatepass")
    return encoded


def _without(pieces: Iterable[AnyStr], end: AnyStr, separator: AnyStr, part: Source) -> Iterator[AnyStr]:
    """Yield the pieces of a text that does not have the boundary."""
    for piece in pieces:
        if end in piece and separator != end:
            problem = f"{part.shown} holds the character U+{ord(RECORD):04X}, which ends a record here"
            raise InputError(f"{problem}: remove it, or separate the records by it: --separator '\\x1e'")
        yield piece


def _replaced(pieces: Iterable[AnyStr], separator: AnyStr, end: AnyStr) -> Iterator[AnyStr]:
    r"""Yield the pieces with the boundary in the place of each separator.

    At the end of the text, a newline is one where the separator begins with a newline: files end with a newline, and what
    is before "\n---\n" does not.
    """
    if not separator:
        yield from pieces
        return
    held = len(separator) - 1  # characters that can be the beginning of a separator
    rest = separator[:0]
    for piece in pieces:
        *complete, tail = (rest + piece).split(separator)
        keep = min(held, len(tail))
        rest = tail[len(tail) - keep :]
        yield end.join([*complete, tail[: len(tail) - keep]])
    newline = _like(separator, NEWLINE)
    yield rest.removesuffix(newline) if separator.startswith(newline) else rest


def lines(first: object, items: Iterator[object], *, several: bool) -> tuple[list[str], bool]:
    """Join lines to one text; if `several`, or as soon as one has a newline inside, each is a text, and the result true."""
    parts, part = list[str](), list[str]()  # joined now and then: a list of all lines would be many times the text
    number, item = 0, first
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
