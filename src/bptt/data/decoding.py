r"""Bytes to characters, piece by piece: no byte order mark, no "\r"; errors say where, and name likely encodings."""

import codecs
import io
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from bptt.data import compression
from bptt.data.source import Source
from bptt.errors import InputError, option

WESTERN = "cp1252"
MULTIBYTE = ("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr")  # which hardly any other text keeps to
SINGLE_BYTE = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256")  # Cyrillic twice, Greek, Hebrew, Arabic
EUROPEAN = ("cp1252", "cp1250", "iso8859_15", "mac_roman")
CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r\x1b"})  # that texts do not have
HEAD = 100_000  # bytes from which an encoding is guessed
_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # of documents before .docx
_TAR = slice(257, 262)
_C1 = bytes(range(0x80, 0xA0))  # controls in ISO 8859, punctuation in Windows-1252
_HIGH = bytes(range(0x80, 0x100))


class ByteCounts(NamedTuple):
    """What the bytes of a text reveal about their encoding."""

    size: int
    head: bytes
    nuls: int
    first: int  # offset of the first NUL, -1 without one


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
    """Raise an InputError for bytes that are a document, or UTF-16, UTF-32 or not text where UTF-8 is expected."""
    refuse_document(_head(source), source.shown)
    if source.encoding != "utf-8":
        return
    counts = _count_bytes(source)
    if encoding := _wide_encoding(counts):
        offset = 0 if counts.head[0] > 0xF0 else counts.first  # of the byte order mark, or of a NUL
        raise _refusal(
            source, f"looks like {encoding.upper()}, expected UTF-8", offset, "", f"give {option('encoding', encoding)}"
        )
    if not counts.nuls:
        return
    if 2 * counts.nuls < counts.size and _is_text(_without_nuls(counts.head), "utf-8"):
        count = f"{counts.nuls:,} NUL byte{'s' * (counts.nuls > 1)}"
        remedy = rf"remove {'them' if counts.nuls > 1 else 'it'} (tr -d '\0' < OLD > NEW), or {_as_bytes()}"
        raise _refusal(source, f"holds {count}, which no text has", counts.first, "", remedy)
    raise _refusal(source, "looks like a binary file, expected UTF-8", counts.first, "", _bytes_or_others(source))


def _head(source: Source) -> bytes:
    head = b""
    for piece in source.pieces():
        head += piece
        if len(head) >= _TAR.stop:
            break
    return head


def refuse_document(head: bytes, shown: str) -> None:
    """Raise an InputError for a text inside of another format, of which the first bytes are given."""
    if compression.is_compressed(head):
        raise InputError(f"{shown} holds a compressed file in its turn: unpack it, and name the text in it")
    if kind := compression.packed_kind(head):
        raise InputError(f"{shown} is {kind}: unpack it, and name the text in it")
    if head.startswith(b"%PDF-"):
        raise InputError(f"{shown} is a PDF: extract its text first, as with pdftotext, and name that file")
    if head.startswith(_OFFICE):
        raise InputError(f"{shown} is a document of Microsoft Office: save it as plain text first, and name that file")
    if head[_TAR] == b"ustar":
        raise InputError(f"{shown} is a tar archive: unpack it and give the folder")


def _bytes_or_others(source: Source) -> str:
    return f"{_as_bytes()}, or choose files by a pattern such as 'texts/*.txt'" if source.listed else _as_bytes()


def _decoded(source: Source) -> Iterator[str]:
    if isinstance(source.content, str):
        yield source.content
        return
    decoder = codecs.getincrementaldecoder(source.encoding)()
    offset = 0
    for piece in itertools.chain(source.pieces(), [b""]):
        undecoded = len(decoder.getstate()[0])  # the beginning of a character at the end of the piece before
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeError as error:
            start, reason = getattr(error, "start", undecoded), getattr(error, "reason", str(error))
            raise _undecodable(source, max(0, offset - undecoded + start), reason) from None
        offset += len(piece)
        if text:
            yield text


def _as_bytes() -> str:
    return f"train with {option('vocabulary', 'bytes')}"


def _undecodable(source: Source, offset: int, reason: str) -> InputError:
    if source.encoding != "utf-8":
        other = f"the encoding of the text ({option('encoding')})"
        if offset == 0 and source.encoding in ("utf-16", "utf-32"):  # which a byte order mark begins
            other = f"{option('encoding', source.encoding + '-le')} or {source.encoding}-be"
        problem, remedy = f"is not in the encoding {source.encoding}", f"give {other}, or {_as_bytes()}"
        return _refusal(source, problem, offset, f" ({reason})", remedy)
    size = plain = 0
    for piece in source.pieces():
        size += len(piece)
        plain += len(piece.translate(None, CONTROLS))
    if plain < 0.98 * size:
        return _refusal(source, "looks like a binary file, expected UTF-8", offset, f" ({reason})", _bytes_or_others(source))
    if reason == "unexpected end of data":
        problem = "is not UTF-8 to its end, but cut off in the middle of a character"
        return _refusal(source, problem, offset, f" ({reason})", f"get the whole file, or {_as_bytes()}")
    head = _count_bytes(source).head
    if problem := _flaw_of_utf8(head, offset):
        remedy = f"correct them, or leave them out (iconv -c -f UTF-8 -t UTF-8 OLD > NEW), or {_as_bytes()}"
        return _refusal(source, problem, offset, f" ({reason})", remedy)
    names = likely_encodings(head)
    if names == (WESTERN,):
        remedy = f"it looks like Windows-1252: give {option('encoding', names[0])}, or {_as_bytes()}"
    else:
        listed = f", such as {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}" if names else ""
        remedy = f"say which encoding it has: {option('encoding', 'NAME')}{listed}, or {_as_bytes()}"
    return _refusal(source, "is not UTF-8", offset, f" ({reason})", remedy)


def _flaw_of_utf8(head: bytes, offset: int) -> str:
    """What is wrong with a text that is UTF-8 for the most part, in words; empty for others, such as those in ASCII."""
    if _decodes(head, "utf-8", "surrogatepass") and offset < len(head):
        return "is UTF-8 but for surrogates, halves of characters as in CESU-8"
    text = head.decode("utf-8", "replace")
    others, wrong = sum(character > "\x7f" for character in text), text.count("\ufffd")
    return "is UTF-8 but for a few bytes" if 0 < 10 * wrong < others else ""


def _refusal(source: Source, problem: str, offset: int, reason: str, remedy: str) -> InputError:
    line, rest, piece = 1, offset, b""
    for piece in source.pieces():
        line += piece.count(b"\n", 0, rest)
        if rest < len(piece):
            break
        rest -= len(piece)
    byte = f"byte 0x{piece[rest]:02x} at offset {offset}, line {line}" if rest < len(piece) else "its end"
    return InputError(f"{source.shown} {problem}: {byte}{reason}: {remedy}")


def _count_bytes(source: Source) -> ByteCounts:
    size, head, nuls, first = 0, b"", 0, -1
    for piece in source.pieces():
        head += piece[: HEAD - len(head)]
        if first < 0 and 0 in piece:
            first = size + piece.index(0)
        nuls += piece.count(0)
        size += len(piece)
    return ByteCounts(size, head, nuls, first)


def _wide_encoding(counts: ByteCounts) -> str:
    """Return UTF-16 or UTF-32, as Python calls it, by byte order mark or NULs; empty for other texts."""
    name = _wide_name(counts)
    if name and _is_text(counts.head, name) and not _is_text(counts.head, "utf-8"):  # ASCII in pairs can look Chinese
        marked = counts.head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
        full = max(counts.head[0::2].count(0), counts.head[1::2].count(0)) > 0.4 * len(counts.head)  # of 0.5
        if marked or full or not _is_text(_without_nuls(counts.head), "utf-8"):
            return name
    return ""


def _without_nuls(head: bytes) -> bytes:
    return head.replace(b"\0", b"")


def likely_encodings(head: bytes) -> tuple[str, ...]:
    """Encodings that a text which is not UTF-8 could have, of those that people use, the likeliest first."""
    high = len(head) - len(head.translate(None, _HIGH))
    if 10 * high < 3 * len(head):
        punctuation = high == len(head) - len(head.translate(None, _C1))
        return (WESTERN,) if punctuation and _decodes(head, WESTERN) else _of(EUROPEAN, head)
    return _of(MULTIBYTE, head) or tuple(name for name in _of(SINGLE_BYTE, head) if _is_written(head.decode(name)))


def _is_text(head: bytes, encoding: str) -> bool:
    """Whether bytes decode in an encoding to mostly printable characters."""
    text = head.decode(encoding, "replace")
    return sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text) <= 0.02 * len(text)


def _decodes(head: bytes, encoding: str, errors: str = "strict") -> bool:
    """Whether the beginning of a text is valid in an encoding; its last character may be cut off."""
    try:
        codecs.getincrementaldecoder(encoding)(errors).decode(head)
    except UnicodeError:
        return False
    return True


def _of(names: tuple[str, ...], head: bytes) -> tuple[str, ...]:
    return tuple(name for name in names if _decodes(head, name) and _is_text(head, name))


def _is_written(text: str) -> bool:
    """Whether nearly all characters beyond ASCII are letters."""
    others = [character for character in text if character > "\x7f"]
    return sum(character.isalpha() for character in others) > 0.9 * len(others)


def _wide_name(counts: ByteCounts) -> str:
    if counts.head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if counts.head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if not counts.nuls:
        return ""
    full = [counts.head[place::4].count(0) > 0.2 * len(counts.head) for place in range(4)]  # of 0.25
    if full[2:] == [True, True] or full[:2] == [True, True]:
        return "utf-32-le" if full[3] else "utf-32-be"
    if 5 * counts.nuls < counts.size:  # Cyrillic, say, has NULs in its spaces and newlines only
        return "utf-16-le" if counts.first % 2 else "utf-16-be"
    return "utf-16-be" if counts.head[0] == 0 else "utf-16-le"
