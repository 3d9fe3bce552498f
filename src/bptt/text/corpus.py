"""Where text comes from: files, standard input, built-in texts, lines; and how it is cut into sequences and parts."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from bptt.backend import HostArray
from bptt.errors import InputError
from bptt.text.vocabulary import Vocabulary

Mode = Literal["lines", "stream"]


@dataclass(frozen=True)
class Corpus:
    """A text and the name to call it by."""

    name: str  # a built-in name, the stem of a file, "stdin" or "text"
    text: str | bytes  # bytes only where it was read for the byte vocabulary
    shown: str = field(default="the text", compare=False)  # what an error message calls it


def dinosaurs() -> str:
    """Names of dinosaurs, a to z, one per line."""
    return resources.files("bptt.text").joinpath("data", "dinosaurs.txt").read_text("utf-8")


def python_help() -> str:
    """The help texts inside every Python, about 465,000 characters of English; they differ a little between versions."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


BUILT_IN: dict[str, Callable[[], str]] = {"dinosaurs": dinosaurs, "python-help": python_help}
AS_BYTES = "train with --vocabulary bytes"
CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r\x1b"})  # that texts do not have
EXPECTED = f"expected text of at least two different characters, or a built-in text ({', '.join(BUILT_IN)})"


def read(source: str | os.PathLike[str] | Iterable[str], vocabulary: Literal["characters", "bytes"] = "characters") -> Corpus:
    r"""The text of a source.

    A str with a newline in it is the text itself, "-" is standard input, a name in `BUILT_IN` that text (write ./dinosaurs
    for a file of that name), and any other str a path. An iterable gives lines. For the byte vocabulary the bytes are taken
    as they are; otherwise they must be UTF-8 without NULs, a byte order mark is dropped, and "\r\n" and "\r" become "\n".

    Raises:
        InputError: a source that cannot be read, is not UTF-8, or holds nothing but white space.
    """
    if vocabulary not in ("characters", "bytes"):
        raise InputError(f"vocabulary {vocabulary!r} is unknown: use characters or bytes")
    name, shown, content = _fetch(source)
    text: str | bytes
    if vocabulary == "bytes":
        text = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    else:
        text = _decode(content, shown) if isinstance(content, bytes) else content
        text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"{shown} holds {'nothing but white space' if text else 'nothing'}: {EXPECTED}")
    return Corpus(name, text, shown)


def check_learnable(source: Corpus) -> None:
    """Raise an InputError for a text in which there is nothing to learn: fewer than two different symbols and the newline."""
    distinct: set[str | int] = set(source.text)
    if len(distinct - {"\n", ord("\n")}) < 2:
        raise InputError(f"{source.shown} holds one character only: {EXPECTED}")


def choose_mode(text: str | bytes) -> Mode:
    """How to read a text: as lines that have nothing to do with one another, such as names, or as one stream.

    Lines are two or more, with hardly a blank one between them, and on average at most 40 characters and 4 words long.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text.strip()
    every, full = text.count("\n") + 1, lines(text)
    short = sum(map(len, full)) <= 40 * len(full) and len(text.split()) <= 4 * len(full)
    return "lines" if len(full) > 1 and every - len(full) <= 0.01 * every and short else "stream"


def lines(text: str | bytes) -> list[str] | list[bytes]:
    """The lines of a text without their newlines; lines of nothing but white space are left out."""
    if isinstance(text, str):
        return [line for line in text.split("\n") if line.strip()]
    return [line for line in text.split(b"\n") if line.strip()]


def sequences(text: str | bytes, vocabulary: Vocabulary, mode: Mode) -> list[HostArray]:
    """Sequences s of ids (n + 1,), to be learnt as inputs s[:-1] and targets s[1:]; s[0] is the start symbol.

    In mode "lines" there is one for each line that is not blank, its newline at both ends; in mode "stream" there is one
    for the whole text, every character of which is a target.

    Raises:
        InputError: an unknown mode, or a character that the vocabulary does not have.
    """
    if mode not in ("lines", "stream"):
        raise InputError(f"mode {mode!r} is unknown: use lines or stream")
    ids = vocabulary.encode(text)  # all at once, so that a complaint knows the line; cut afterwards
    newline = np.array([vocabulary.start], ids.dtype)
    if mode == "stream":
        return [np.concatenate([newline, ids])]
    ids = np.concatenate([newline, ids, newline])
    cuts = np.flatnonzero(ids == newline).tolist()
    every: Sequence[str | bytes] = text.split("\n") if isinstance(text, str) else text.split(b"\n")  # one between two cuts
    return [ids[a : b + 1] for line, a, b in zip(every, cuts, cuts[1:]) if line.strip()]


def split(sequences: Sequence[HostArray], fraction: float, rng: np.random.Generator) -> tuple[list[HostArray], list[HostArray]]:
    """Sequences for training, and a share of them held out: whole lines, or a block of one long text.

    Every target is in one part or the other. A single sequence gives one of its 1/fraction blocks away and closes the gap;
    a share that rounds to no line, or to less than two targets of a text, leaves everything to training.

    Raises:
        InputError: a fraction below 0, or of 1 and more.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"held-out fraction is {fraction}, expected at least 0 and less than 1, such as 0.1")
    if len(sequences) == 1:
        return _split_stream(sequences[0], fraction, rng)
    count = min(round(fraction * len(sequences)), max(0, len(sequences) - 1))
    held = set(rng.permutation(len(sequences))[:count].tolist())
    return (
        [s for i, s in enumerate(sequences) if i not in held],
        [s for i, s in enumerate(sequences) if i in held],
    )


def _split_stream(s: HostArray, fraction: float, rng: np.random.Generator) -> tuple[list[HostArray], list[HostArray]]:
    targets = len(s) - 1
    size = min(round(fraction * targets), targets - 1)
    if size < 2:
        return [s], []
    blocks = round(1 / fraction)
    a = int(rng.integers(blocks)) * (targets - size) // max(1, blocks - 1)
    b = a + size  # the block's targets are s[a + 1 : b + 1]; s[a] is the character before them and stays in training, too
    return [np.concatenate([s[: a + 1], s[b + 1 :]])], [s[a : b + 1]]


def _fetch(source: str | os.PathLike[str] | Iterable[str]) -> tuple[str, str, str | bytes]:
    """A source's name, what an error message calls it, and what it holds."""
    if isinstance(source, os.PathLike):
        return _open(os.fsdecode(source))
    if isinstance(source, str):
        if "\n" in source:
            return "text", "the text", source
        if source in BUILT_IN:
            return source, source, BUILT_IN[source]()
        return _stdin() if source == "-" else _open(source)
    try:
        items = None if isinstance(source, bytes | bytearray) else list(source)
    except TypeError:
        items = None
    if items is None:
        raise InputError(f"got {type(source).__name__}, expected a path, a text or lines of text, as str")
    for number, item in enumerate(items, 1):
        if not isinstance(item, str):
            raise InputError(f"line {number} of the text is {type(item).__name__}, expected str")
    return "text", "the text", "\n".join(item.removesuffix("\n") for item in items)


def _stdin() -> tuple[str, str, bytes]:
    try:
        return "stdin", "standard input", sys.stdin.buffer.read()
    except (OSError, AttributeError):  # sys.stdin is None where the caller closed it
        raise InputError("standard input cannot be read: pipe a text into it, or name a file") from None


def _open(path: str) -> tuple[str, str, bytes]:
    shown = repr(path if len(path) <= 100 else path[:97] + "...")
    if os.path.isdir(path):
        raise InputError(f"{shown} is a folder, expected a file of text: name one of its files")
    try:
        with open(path, "rb") as file:
            return Path(path).stem, shown, file.read()
    except FileNotFoundError:
        reason = "does not exist" + _hint(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    raise InputError(
        f"{shown} {reason}: expected a file, - for standard input, a built-in text ({', '.join(BUILT_IN)}), "
        "or in Python a text with a newline in it"
    )


def _hint(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".") + ([] if folder else list(BUILT_IN))
    except OSError:
        return ""
    close = difflib.get_close_matches(name, names, 1, 0.75)
    return f" (did you mean {os.path.join(folder, close[0])!r}?)" if close else ""


def _decode(raw: bytes, shown: str) -> str:
    def refuse(problem: str, offset: int, reason: str, remedy: str) -> InputError:
        place = f"byte 0x{raw[offset]:02x} at offset {offset}, line {raw.count(10, 0, offset) + 1}{reason}"
        return InputError(f"{shown} {problem}: {place}: {remedy}")

    encoding = _wide_encoding(raw)
    if encoding and _is_text(raw, encoding) and not _is_text(raw, "utf-8"):  # ASCII in pairs can look like Chinese
        offset = 0 if raw[0] > 0xF0 else raw.index(0)  # of the byte order mark, or of a NUL
        raise refuse(f"looks like {encoding}, expected UTF-8", offset, "", _convert(encoding))
    if 0 in raw:
        raise refuse("looks like a binary file, expected UTF-8", raw.index(0), "", AS_BYTES)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problem, remedy = "is not UTF-8", f"{_convert('LATIN1')}, or {AS_BYTES}"
        if len(raw.translate(None, CONTROLS)) < 0.98 * len(raw):
            problem, remedy = "looks like a binary file, expected UTF-8", AS_BYTES
        elif error.reason == "unexpected end of data":
            problem = "is not UTF-8 to its end, but cut off in the middle of a character"
            remedy = f"get the whole file, or {AS_BYTES}"
        raise refuse(problem, error.start, f" ({error.reason})", remedy) from None


def _convert(encoding: str) -> str:
    return f"convert it with iconv -f {encoding} -t UTF-8 OLD > NEW"


def _is_text(raw: bytes, encoding: str) -> bool:
    """Whether bytes make sense in an encoding: hardly a character that is not printable."""
    text = raw[:100_000].decode(encoding, "replace")
    return sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text) <= 0.02 * len(text)


def _wide_encoding(raw: bytes) -> str:
    """UTF-16 or UTF-32 by its byte order mark or its NULs, as iconv calls it; nothing for a file without them."""
    if raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    if 0 not in raw:
        return ""
    if 5 * raw.count(0) < len(raw):  # Cyrillic, say, has NULs in its spaces and newlines only
        return "UTF-16LE" if raw.index(0) % 2 else "UTF-16BE"
    return ("UTF-32" if 5 * raw.count(0) > 3 * len(raw) else "UTF-16") + ("BE" if raw[0] == 0 else "LE")
