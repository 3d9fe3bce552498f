r"""Bytes to characters, piece by piece: no byte order mark, no "\r"; errors say where, and name likely encodings."""

import codecs
import io
import itertools
from collections.abc import Iterator

from bptt.data import encodings
from bptt.data.encodings import CONTROLS, HEAD, Look
from bptt.data.source import Source
from bptt.errors import InputError

AS_BYTES = "train with --vocabulary bytes"


def characters(source: Source) -> Iterator[str]:
    r"""Decode the pieces of a text; "\r\n" and "\r" become "\n".

    Raises:
        InputError: bytes that are not of its encoding.
    """
    mark = True  # still to come, if there is one
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for text in itertools.chain(_decoded(source), [""]):
        if mark and text:
            text, mark = text.removeprefix("\ufeff"), False
        if text := newlines.decode(text, final=not text):
            yield text


def refuse_binary(source: Source) -> None:
    """Raise an InputError for bytes that are UTF-16, UTF-32 or not text, where UTF-8 is expected."""
    if source.encoding != "utf-8":
        return
    look = _look(source)
    if encoding := encodings.wide(look):
        offset = 0 if look.head[0] > 0xF0 else look.first  # of the byte order mark, or of a NUL
        raise _refusal(source, f"looks like {encoding.upper()}, expected UTF-8", offset, "", f"give --encoding {encoding}")
    if not look.nuls:
        return
    if 100 * look.nuls < look.size and encodings.is_text(look.head, "utf-8"):
        count = f"{look.nuls:,} NUL byte{'s' * (look.nuls > 1)}"
        remedy = rf"remove {'them' if look.nuls > 1 else 'it'} (tr -d '\0' < OLD > NEW), or {AS_BYTES}"
        raise _refusal(source, f"holds {count}, which no text has", look.first, "", remedy)
    raise _refusal(source, "looks like a binary file, expected UTF-8", look.first, "", _bytes_or_others(source))


def _bytes_or_others(source: Source) -> str:
    return f"{AS_BYTES}, or choose files with --glob, as in --glob '*.txt'" if source.listed else AS_BYTES


def _decoded(source: Source) -> Iterator[str]:
    if isinstance(source.content, str):
        yield source.content
        return
    decoder = codecs.getincrementaldecoder(source.encoding)()
    offset = 0
    for piece in itertools.chain(source.pieces(), [b""]):
        held = len(decoder.getstate()[0])  # the beginning of a character at the end of the piece before
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeError as error:
            start, reason = getattr(error, "start", held), getattr(error, "reason", str(error))
            raise _undecodable(source, max(0, offset - held + start), reason) from None
        offset += len(piece)
        if text:
            yield text


def _undecodable(source: Source, offset: int, reason: str) -> InputError:
    if source.encoding != "utf-8":
        remedy = f"give the encoding of the text (--encoding), or {AS_BYTES}"
        return _refusal(source, f"is not in the encoding {source.encoding}", offset, f" ({reason})", remedy)
    size = plain = 0
    for piece in source.pieces():
        size += len(piece)
        plain += len(piece.translate(None, CONTROLS))
    if plain < 0.98 * size:
        return _refusal(source, "looks like a binary file, expected UTF-8", offset, f" ({reason})", _bytes_or_others(source))
    if reason == "unexpected end of data":
        problem = "is not UTF-8 to its end, but cut off in the middle of a character"
        return _refusal(source, problem, offset, f" ({reason})", f"get the whole file, or {AS_BYTES}")
    names = encodings.likely(_look(source).head)
    if names == (encodings.WESTERN,):
        remedy = f"it looks like Windows-1252: give --encoding {names[0]}, or {AS_BYTES}"
    else:
        listed = f", such as {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}" if names else ""
        remedy = f"its encoding has to be known: give it as --encoding NAME{listed}, or {AS_BYTES}"
    return _refusal(source, "is not UTF-8", offset, f" ({reason})", remedy)


def _refusal(source: Source, problem: str, offset: int, reason: str, remedy: str) -> InputError:
    line, rest, piece = 1, offset, b""
    for piece in source.pieces():
        line += piece.count(b"\n", 0, rest)
        if rest < len(piece):
            break
        rest -= len(piece)
    byte = f"byte 0x{piece[rest]:02x} at offset {offset}, line {line}" if rest < len(piece) else "its end"
    return InputError(f"{source.shown} {problem}: {byte}{reason}: {remedy}")


def _look(source: Source) -> Look:
    size, head, nuls, first = 0, b"", 0, -1
    for piece in source.pieces():
        head += piece[: HEAD - len(head)]
        if first < 0 and 0 in piece:
            first = size + piece.index(0)
        nuls += piece.count(0)
        size += len(piece)
    return Look(size, head, nuls, first)
