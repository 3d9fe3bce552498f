"""A text as token ids: its vocabulary, its mode, its sequences and the split into training and validation set."""

import codecs
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from bptt.backend import HostArray
from bptt.config.settings import Mode, VocabularyName
from bptt.data import decoding, token_store
from bptt.data.sequences import Sequences, lines, marks, shuffled, single, split_lines
from bptt.data.source import BUILT_IN, VALIDATION_EXPECTED, Source, fetch, open_validation_file
from bptt.data.token_store import Tokens
from bptt.data.vocabulary import BYTES, Vocabulary, characters, code_points
from bptt.errors import InputError
from bptt.files import FileReference

EXPECTED = f"expected text of at least two different characters, or a built-in text ({', '.join(BUILT_IN)})"
SPACES = np.array([chr(code).isspace() for code in range(0x3002)])  # by code point; beyond the last one: none


@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """The token ids of a text, and where it comes from."""

    name: str  # a built-in name, the stem of a file, "stdin" or "text"
    source: str  # what finds the text again: a built-in name, an absolute path, "-", or "" for text given in Python
    shown: str  # what an error message calls it
    tokens: Tokens
    size: int | None = None  # bytes of a file

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the ids."""
        return self.tokens.vocabulary

    @property
    def ids(self) -> HostArray:
        """The ids (N,) of the start symbol and of the text; a memory map if the text is large."""
        ids: HostArray = self.tokens.ids[:-1]
        return ids

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the vocabulary and the ids."""
        return self.tokens.sha256

    @property
    def text(self) -> str:
        """The decoded text; only for texts that fit into memory."""
        return self.vocabulary.decode(self.ids[1:])

    def contains(self, texts: Iterable[str], mode: Mode) -> set[str]:
        """Return the texts that are lines of this one, or substrings of it in mode "stream"."""
        return contained(self.ids, self.vocabulary, mode, texts)


def read(
    source: str | os.PathLike[str] | Iterable[str] | FileReference, vocabulary: VocabularyName | Vocabulary = "characters"
) -> Corpus:
    r"""Read a source and encode it with its own characters, with bytes, or with an existing vocabulary.

    A str with a newline in it is the text itself, "-" is standard input, a name in `BUILT_IN` that text (write ./dinosaurs
    for a file of that name), and any other str a path. An iterable gives lines. For the byte vocabulary the bytes are taken
    as they are; otherwise they must be UTF-8 without NULs, a byte order mark is dropped, and "\r\n" and "\r" become "\n".
    The ids of a large file are written into the cache folder, `token_store.cache_folder()`, and found there the next time.

    Raises:
        InputError: a source that cannot be read, is not UTF-8, holds nothing but white space, or has a character that the
            given vocabulary does not have; a cache folder that cannot be written.
    """
    if not isinstance(vocabulary, Vocabulary) and vocabulary not in get_args(VocabularyName):
        raise InputError(f"vocabulary {vocabulary!r} is unknown: use characters or bytes")
    known = BYTES if vocabulary == "bytes" else vocabulary if isinstance(vocabulary, Vocabulary) else None
    with fetch(source) as opened:
        return _read(opened, known)


def read_validation_file(path: Path | FileReference, vocabulary: Vocabulary) -> Corpus:
    """Read the file of a validation set as `read` does, with the vocabulary of the training text.

    Raises:
        InputError: what `read` raises; symbols that the training text does not have are listed, at most ten.
    """
    with open_validation_file(path) as opened:
        return _read(opened, vocabulary)


def from_text(text: str | bytes, vocabulary: Vocabulary) -> Corpus:
    """Encode a str, which may be short or blank.

    Raises:
        InputError: a character that the vocabulary does not have.
    """
    return Corpus("text", "", "the text", token_store.in_memory([vocabulary.encode(text)], vocabulary))


def check_learnable(source: Corpus) -> None:
    """Raise an InputError unless a text has at least two different symbols besides the newline."""
    seen = np.zeros(len(source.vocabulary), bool)
    for piece in token_store.chunks(source.ids):  # with a newline at the beginning
        seen[piece] = True
    if seen.sum() < 3:
        raise InputError(f"{source.shown} holds one character only: {EXPECTED}")


def choose_mode(source: Corpus) -> Mode:
    """Choose between lines, which are independent of each other like names, and one stream.

    Lines are two or more, with hardly a blank one between them, and on average at most 40 characters and 4 words long;
    white space before and after the whole text does not count.
    """
    ink = Ink()
    every = full = size = 0  # lines so far, those that are not blank, the characters in these
    top = bottom = begin = end = 0  # numbers of the first and the last that are not blank, and where they begin and end
    for starts, lengths, inked in split_lines(ink.watch(_marks(source))):
        which = np.flatnonzero(inked)
        if len(which):
            if not full:
                top, begin = every + int(which[0]), int(starts[which[0]])
            bottom, end = every + int(which[-1]), int(starts[which[-1]] + lengths[which[-1]])
        every += len(inked)
        full += len(which)
        size += int(lengths[which].sum())
    every = bottom - top + 1
    size -= ink.first - begin + end - (ink.last + 1)
    short = size <= 40 * full and ink.words <= 4 * full
    return "lines" if full > 1 and every - full <= 0.01 * every and short else "stream"


class Ink:
    """Counts the characters of a text that are not white space while it passes through."""

    first = -1  # place of the first one
    last = -1
    words = 0

    def watch(self, pieces: Iterable[tuple[HostArray, HostArray]]) -> Iterator[tuple[HostArray, HostArray]]:
        """Yield the pieces of `marks` unchanged, and count."""
        position, before = 0, False  # characters so far, and whether the last one was ink
        for newline, ink in pieces:
            yield newline, ink
            places = np.flatnonzero(ink)
            if len(places):
                self.first = position + int(places[0]) if self.first < 0 else self.first
                self.last = position + int(places[-1])
            self.words += int(np.count_nonzero(ink[1:] & ~ink[:-1])) + (bool(ink[0]) and not before)
            position, before = position + len(ink), bool(ink[-1])


def sequences(source: Corpus, mode: Mode) -> Sequences:
    """Split a text into sequences s of ids (n + 1,): inputs s[:-1] and targets s[1:], where s[0] is the start symbol.

    In mode "lines" there is one for each line that is not blank, its newline at both ends; in mode "stream" there is one
    for the whole text, every character of which is a target.

    Raises:
        InputError: an unknown mode.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode {mode!r} is unknown: use lines or stream")
    return lines(source.tokens) if mode == "lines" else single(source.ids, 0, len(source.ids) - 1)


def split(sequences: Sequences, fraction: float, rng: np.random.Generator) -> tuple[Sequences, Sequences]:
    """Split off a validation set: lines that `rng` draws, or the end of one long text.

    Every target is in one part or the other. A share that rounds to no line, or to less than two targets of a text, leaves
    everything to training.

    Raises:
        InputError: a fraction below 0, or of 1 and more.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"held-out fraction is {fraction}, expected at least 0 and less than 1, such as 0.1")
    if len(sequences) == 1:
        targets = int(sequences.lengths[0])
        size = min(round(fraction * targets), targets - 1)
        start, rest = int(sequences.starts[0]), targets - size
        if size < 2:
            return sequences, sequences[:0]
        return single(sequences.ids, start, rest), single(sequences.ids, start + rest, size)
    count = min(round(fraction * len(sequences)), max(0, len(sequences) - 1))
    held = np.zeros(len(sequences), bool)
    held[shuffled(len(sequences), rng)[:count]] = True
    return sequences.take(~held), sequences.take(held)


def contained(ids: HostArray, vocabulary: Vocabulary, mode: Mode, texts: Iterable[str]) -> set[str]:
    """Return the texts that are lines of another text, or substrings of it in mode "stream"; its ids are (N,).

    Blank lines are no lines.
    """
    wanted = {text for text in texts if mode == "stream" or text.strip()}
    longest = max(map(len, wanted), default=0)
    matches: set[str] = set()
    tail = ""  # of the pieces before: what can still be the beginning of one that is wanted
    for piece in _texts(ids[1:], vocabulary):
        text = tail + piece
        if mode == "lines":
            *complete, tail = text.split("\n")
            tail = tail[: longest + 1]  # too long to be wanted stays too long
            matches |= wanted.intersection(complete)
        else:
            matches |= {one for one in wanted - matches if one in text}
            tail = text[max(0, len(text) - longest + 1) :]
    return matches | (wanted & {tail})


def _read(opened: Source, known: Vocabulary | None) -> Corpus:
    if known != BYTES and not isinstance(opened.content, str):  # a NUL in a str is a character like others
        decoding.refuse_binary(opened)
    kept = _kept(opened, known) if opened.large else None
    return Corpus(opened.name, opened.place, opened.shown, kept or _encoded(opened, known), opened.size)


def _kept(opened: Source, known: Vocabulary | None) -> Tokens | None:
    """Return the ids of a large file from the cache, if an earlier run wrote them."""
    if not opened.sha256:
        for _ in opened.pieces():
            pass
    for key in (_key(opened, None), _key(opened, known)):
        if kept := token_store.load(key, known):
            return kept
    return None


def _encoded(opened: Source, vocabulary: Vocabulary | None) -> Tokens:
    def pieces() -> Iterator[str] | Iterator[bytes]:
        return opened.pieces() if vocabulary == BYTES else decoding.characters(opened)

    seen, size = np.zeros(0x110000, bool), 0
    for piece in pieces():
        seen[np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else code_points(piece)] = True
        size += len(piece)
    codes = np.flatnonzero(seen).tolist()
    distinct = "".join(map(chr, codes))
    if not (bytes(codes) if vocabulary == BYTES else distinct).strip():
        expected = VALIDATION_EXPECTED if opened.validation else EXPECTED
        raise InputError(f"{opened.shown} holds {'nothing but white space' if size else 'nothing'}: {expected}")
    characters_used = characters(distinct)
    encoder = vocabulary or characters_used
    if encoder.unknown(distinct):
        foreign = (10,) if opened.validation else ()  # how many are listed
        raise InputError(f"{opened.shown}: {encoder.complaint(decoding.characters(opened), *foreign)}")
    ids = map(encoder.encode, pieces())
    if not opened.large:
        return token_store.in_memory(ids, encoder)
    return token_store.save(_key(opened, None if encoder == characters_used else encoder), ids, size, encoder, opened.shown)


def _key(opened: Source, vocabulary: Vocabulary | None) -> str:
    """The cache key of a large file's ids; vocabulary None stands for its own characters."""
    if vocabulary is None:
        return f"{opened.sha256}-characters"
    symbols = json.dumps(vocabulary.to_json()).encode()
    return f"{opened.sha256}-bytes" if vocabulary == BYTES else f"{opened.sha256}-{hashlib.sha256(symbols).hexdigest()}"


def _marks(source: Corpus) -> Iterator[tuple[HostArray, HostArray]]:
    """Yield the masks of `sequences.marks`, for bytes as for characters."""
    if source.vocabulary.symbols is not None:
        yield from marks(source.tokens.ids[1:], source.vocabulary)
        return
    for text in _texts(source.tokens.ids[1:], source.vocabulary):
        codes = code_points(text)
        yield codes == ord("\n"), ~SPACES.take(codes, mode="clip")


def _texts(ids: HostArray, vocabulary: Vocabulary) -> Iterator[str]:
    """Yield the decoded text in pieces, none of them empty."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # for bytes: a character may begin in the piece before
    for piece in itertools.chain(token_store.chunks(ids), [ids[:0]]):
        if vocabulary.symbols is None:
            text = decoder.decode(piece.tobytes(), final=not len(piece))
        else:
            text = vocabulary.decode(piece)
        if text:
            yield text
