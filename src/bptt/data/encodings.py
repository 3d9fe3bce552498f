"""Which encoding the bytes of a text could have, where they are not what was expected."""

import codecs
from typing import NamedTuple

WESTERN = "cp1252"
MULTIBYTE = ("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr")  # which hardly any other text keeps to
SINGLE_BYTE = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256")  # Cyrillic twice, Greek, Hebrew, Arabic
EUROPEAN = ("cp1252", "cp1250", "iso8859_15", "mac_roman")
CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r\x1b"})  # that texts do not have
HEAD = 100_000  # bytes from which an encoding is guessed
_C1 = bytes(range(0x80, 0xA0))  # controls in ISO 8859, punctuation in Windows-1252
_HIGH = bytes(range(0x80, 0x100))


class Look(NamedTuple):
    """What the bytes of a text reveal about their encoding."""

    size: int
    head: bytes
    nuls: int
    first: int  # offset of the first NUL, -1 without one


def wide(look: Look) -> str:
    """Return UTF-16 or UTF-32, as Python calls it, by byte order mark or NULs; empty for other texts."""
    name = _wide(look)
    if name and is_text(look.head, name) and not is_text(look.head, "utf-8"):  # ASCII in pairs can look Chinese
        return name
    return ""


def likely(head: bytes) -> tuple[str, ...]:
    """Encodings that a text which is not UTF-8 could have, of those that people use, the likeliest first."""
    high = len(head) - len(head.translate(None, _HIGH))
    if 10 * high < 3 * len(head):
        punctuation = high == len(head) - len(head.translate(None, _C1))
        return (WESTERN,) if punctuation and decodes(head, WESTERN) else _of(EUROPEAN, head)
    return _of(MULTIBYTE, head) or _of(SINGLE_BYTE, head)


def is_text(head: bytes, encoding: str) -> bool:
    """Whether bytes decode in an encoding to mostly printable characters."""
    text = head.decode(encoding, "replace")
    return sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text) <= 0.02 * len(text)


def decodes(head: bytes, encoding: str) -> bool:
    """Whether the beginning of a text is valid in an encoding; its last character may be cut off."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeError:
        return False
    return True


def _of(names: tuple[str, ...], head: bytes) -> tuple[str, ...]:
    return tuple(name for name in names if decodes(head, name))


def _wide(look: Look) -> str:
    if look.head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if look.head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if not look.nuls:
        return ""
    if 5 * look.nuls < look.size:  # Cyrillic, say, has NULs in its spaces and newlines only
        return "utf-16-le" if look.first % 2 else "utf-16-be"
    return ("utf-32" if 5 * look.nuls > 3 * look.size else "utf-16") + ("-be" if look.head[0] == 0 else "-le")
