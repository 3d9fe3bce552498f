r"""Bytes to characters, piece by piece: UTF-8 without byte order mark, NULs and "\r"; errors name the likely encoding."""

import codecs
import io
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from bptt.data.source import Source
from bptt.errors import InputError

AS_BYTES = "train with --vocabulary bytes"
CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r\x1b"})  # that texts do not have
_HEAD = 100_000  # bytes from which an encoding is guessed


class Look(NamedTuple):
    """What the bytes of a text reveal about their encoding."""

    size: int
    head: bytes
    nuls: int
    first: int  # offset of the first NUL, -1 without one


def characters(source: Source) -> Iterator[str]:
    r"""Decode the pieces of a text; "\r\n" and "\r" become "\n".

    Raises:
        InputError: bytes that are not UTF-8.
    """
    mark = True  # still to come, if there is one
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for text in itertools.chain(_decoded(source), [""]):
        if mark and text:
            text, mark = text.removeprefix("\ufeff"), False
        if text := newlines.decode(text, final=not text):
            yield text


def refuse_binary(source: Source) -> None:
    """Raise an InputError for bytes that are UTF-16, UTF-32 or not text."""
    look = _look(source)
    encoding = _wide_encoding(look)
    if encoding and _is_text(look.head, encoding) and not _is_text(look.head, "utf-8"):  # ASCII in pairs can look Chinese
        offset = 0 if look.head[0] > 0xF0 else look.first  # of the byte order mark, or of a NUL
        raise _refusal(source, f"looks like {encoding}, expected UTF-8", offset, "", _convert(encoding))
    if look.nuls:
        raise _refusal(source, "looks like a binary file, expected UTF-8", look.first, "", AS_BYTES)


def _decoded(source: Source) -> Iterator[str]:
    if isinstance(source.content, str):
        yield source.content
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    for piece in itertools.chain(source.pieces(), [b""]):
        held = len(decoder.getstate()[0])  # the beginning of a character at the end of the piece before
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise _not_utf8(source, offset - held + error.start, error.reason) from None
        offset += len(piece)
        if text:
            yield text


def _not_utf8(source: Source, offset: int, reason: str) -> InputError:
    size = plain = 0
    for piece in source.pieces():
        size += len(piece)
        plain += len(piece.translate(None, CONTROLS))
    problem, remedy = "is not UTF-8", f"{_convert('LATIN1')}, or {AS_BYTES}"
    if plain < 0.98 * size:
        problem, remedy = "looks like a binary file, expected UTF-8", AS_BYTES
    elif reason == "unexpected end of data":
        problem = "is not UTF-8 to its end, but cut off in the middle of a character"
        remedy = f"get the whole file, or {AS_BYTES}"
    return _refusal(source, problem, offset, f" ({reason})", remedy)


def _refusal(source: Source, problem: str, offset: int, reason: str, remedy: str) -> InputError:
    line, rest = 1, offset
    for piece in source.pieces():
        line += piece.count(b"\n", 0, rest)
        if rest < len(piece):
            break
        rest -= len(piece)
    place = f"byte 0x{piece[rest]:02x} at offset {offset}, line {line}{reason}"
    return InputError(f"{source.shown} {problem}: {place}: {remedy}")


def _look(source: Source) -> Look:
    size, head, nuls, first = 0, b"", 0, -1
    for piece in source.pieces():
        head += piece[: _HEAD - len(head)]
        if first < 0 and 0 in piece:
            first = size + piece.index(0)
        nuls += piece.count(0)
        size += len(piece)
    return Look(size, head, nuls, first)


def _convert(encoding: str) -> str:
    return f"convert it with iconv -f {encoding} -t UTF-8 OLD > NEW"


def _is_text(head: bytes, encoding: str) -> bool:
    """Whether bytes decode in an encoding to mostly printable characters."""
    text = head.decode(encoding, "replace")
    return sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text) <= 0.02 * len(text)


def _wide_encoding(look: Look) -> str:
    """Return UTF-16 or UTF-32, as iconv calls it, by byte order mark or NULs; empty for other files."""
    if look.head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if look.head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    if not look.nuls:
        return ""
    if 5 * look.nuls < look.size:  # Cyrillic, say, has NULs in its spaces and newlines only
        return "UTF-16LE" if look.first % 2 else "UTF-16BE"
    return ("UTF-32" if 5 * look.nuls > 3 * look.size else "UTF-16") + ("BE" if look.head[0] == 0 else "LE")
