"""A text as token ids: its vocabulary, its mode, its sequences and the split into training and validation set."""

import codecs
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bptt.backend import HostArray
from bptt.config.settings import Mode, VocabularyName
from bptt.data import decoding, joining, new_symbols, token_store
from bptt.data.loading import VALIDATION_EXPECTED, fetch, open_validation_set
from bptt.data.sequences import Sequences, lines, marks, measure_lines, texts
from bptt.data.source import BUILT_IN, DEFAULT_READING, Reading, Texts
from bptt.data.token_store import Tokens
from bptt.data.vocabulary import NEWLINE, RECORD, SHOWN, Vocabulary, characters, code_points
from bptt.errors import InputError, UnknownCharacters
from bptt.files import FileReference

EXPECTED = f"expected text of at least two different characters, or a built-in text ({', '.join(BUILT_IN)})"
SPACES = np.array([chr(code).isspace() for code in range(0x3002)])  # by code point; beyond the last one: none


@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """The token ids of a text, and where it comes from."""

    name: str  # a built-in name, the stem of a file, "stdin" or "text"
    source: str | list[str]  # what finds a text again: a built-in name, an absolute path, "-", or "" for one given in Python
    shown: str  # what an error message calls it
    tokens: Tokens
    size: int | None = None  # bytes of a file, where it is one alone
    mode: Mode | None = None  # that lines of a program imply
    left_out: int = 0  # files in its folder that are the validation set
    files: dict[str, list[Any]] | None = None  # of texts with a place: their sizes, and checksums of what they hold
    skipped: Counter[str] = field(default_factory=Counter)  # how often each character was left out of the text

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


def read(source: Any, vocabulary: VocabularyName | Vocabulary = "characters", reading: Reading = DEFAULT_READING) -> Corpus:
    r"""Read a source and encode it with its own characters, with bytes, or with an existing vocabulary.

    A str with a newline in it is the text itself, as are bytes. "-" is standard input, a name in `BUILT_IN` that text (write
    ./dinosaurs for a file of that name), and any other str a path: of a file, of a folder, whose files are read, or a pattern
    such as texts/*.txt. An iterable gives lines, or, if one of them holds a newline, texts; an iterable of `pathlib.Path`
    files. What is compressed is unpacked. For the byte vocabulary the bytes are taken as they are; otherwise they must be
    UTF-8 without NULs, or of the encoding of `reading`, a byte order mark is dropped, and "\r\n" and "\r" become "\n".
    The ids of a large file are written into the cache folder, `system.cache_folder()`, and found there the next time.
    Characters that an existing vocabulary lacks are an error; the `unknown` "add" of `reading` adds them, and "skip" leaves
    them out.

    Raises:
        InputError: a source that cannot be read, is not UTF-8, holds nothing but white space, or has a character that the
            given vocabulary does not have; a cache folder that cannot be written.
    """
    if not isinstance(vocabulary, Vocabulary) and vocabulary not in get_args(VocabularyName):
        raise InputError(f"vocabulary {vocabulary!r} is unknown: use characters or bytes")
    with fetch(source, reading) as opened:
        known = vocabulary if isinstance(vocabulary, Vocabulary) else None
        boundary = (RECORD if opened.reading.records else NEWLINE) if known is None else known.boundary
        return _read(opened, Vocabulary(None, boundary) if vocabulary == "bytes" else known, boundary)


def read_validation_set(
    source: Path | tuple[FileReference, ...], vocabulary: Vocabulary, reading: Reading = DEFAULT_READING
) -> Corpus:
    """Read the validation set, a file, a folder or a pattern, as `read` does, with the vocabulary of the training text.

    Raises:
        InputError: what `read` raises; symbols that the training text does not have are listed, at most ten.
    """
    with open_validation_set(source, reading) as opened:
        return _read(opened, vocabulary, vocabulary.boundary)


def from_text(text: str | bytes, vocabulary: Vocabulary, reading: Reading = DEFAULT_READING) -> Corpus:
    """Encode a str, which may be short or blank.

    Raises:
        InputError: a character that the vocabulary does not have.
    """
    text, skipped = joining.with_boundaries(text, vocabulary.boundary, reading), Counter[str]()
    if reading.unknown == "skip" and isinstance(text, str) and vocabulary.symbols is not None:
        text = "".join(piece for _, piece in new_symbols.skip([(0, text)], vocabulary, skipped))
    tokens = token_store.in_memory([vocabulary.encode(text)], vocabulary)
    return Corpus("text", "", "the text", tokens, skipped=skipped)


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
    white space before and after each text does not count.
    """
    ids = source.tokens.ids[1:]  # with a newline at the end, as each text has that another one follows
    borders = [0, *itertools.accumulate(source.tokens.parts[:-1]), len(ids)]
    layouts = [measure_lines(_marks(ids[start:end], source.vocabulary)) for start, end in itertools.pairwise(borders)]
    every, full, size, words = np.sum(layouts, axis=0).tolist()
    short = size <= 40 * full and words <= 4 * full
    return "lines" if full > 1 and every - full <= 0.01 * every and short else "stream"


def sequences(source: Corpus, mode: Mode) -> Sequences:
    """Split a text into sequences s of ids (n + 1,): inputs s[:-1] and targets s[1:], where s[0] is the start symbol.

    In mode "lines" there is one for each line that is not blank, its newline at both ends, and so it is for records. In mode
    "stream" there is one for each text, every character of which is a target.

    Raises:
        InputError: an unknown mode.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode {mode!r} is unknown: use lines, records or stream")
    return texts(source.tokens) if mode == "stream" else lines(source.tokens)


def contained(ids: HostArray, vocabulary: Vocabulary, mode: Mode, texts: Iterable[str]) -> set[str]:
    """Return the texts that are lines or records of another text, or substrings of it in mode "stream"; its ids are (N,).

    Blank lines are no lines.
    """
    wanted = {text for text in texts if mode == "stream" or text.strip()}
    longest = max(map(len, wanted), default=0)
    matches: set[str] = set()
    tail = ""  # of the pieces before: what can still be the beginning of one that is wanted
    for piece in _texts(ids[1:], vocabulary):
        text = tail + piece
        if mode != "stream":
            *complete, tail = text.split(vocabulary.boundary)
            tail = tail[: longest + 1]  # too long to be wanted stays too long
            matches |= wanted.intersection(complete)
        else:
            matches |= {one for one in wanted - matches if one in text}
            tail = text[max(0, len(text) - longest + 1) :]
    return matches | (wanted & {tail})


def _read(opened: Texts, known: Vocabulary | None, boundary: str) -> Corpus:
    for part in opened.parts:
        if (known is None or known.symbols is not None) and not isinstance(part.content, str):  # a NUL in a str is a character
            decoding.refuse_binary(part)
    skips = opened.reading.unknown == "skip"  # what is left out is counted each time
    kept = _kept(opened, known, boundary) if opened.large and not skips else None
    skipped = Counter[str]()
    tokens = kept or _encoded(opened, known, boundary, skipped)
    parts, places = opened.parts, [part.place for part in opened.parts]
    one = parts[0] if len(parts) == 1 else None
    files: dict[str, list[Any]] = {
        "bytes": [part.size for part in parts],
        "unpacked": [part.unpacked for part in parts],
        "raw_sha256": [part.checksum() for part in parts] if all(places) else [],
    }
    source = one.place if one else "-" if "-" in places else places if all(places) else ""
    size = None if one is None else one.size
    return Corpus(
        opened.name,
        source,
        opened.shown,
        tokens,
        size,
        opened.reading.mode,
        opened.left_out,
        files if source else None,
        skipped,
    )


def _kept(opened: Texts, known: Vocabulary | None, boundary: str) -> Tokens | None:
    """Return the ids of large texts from the cache, if an earlier run wrote them."""
    for part in opened.parts:
        part.checksum()
    for key in (_key(opened, None, boundary), _key(opened, known, boundary)):
        if kept := token_store.load(key, known):
            return kept
    return None


def _encoded(opened: Texts, vocabulary: Vocabulary | None, boundary: str, skipped: Counter[str]) -> Tokens:
    as_bytes, unknown = vocabulary is not None and vocabulary.symbols is None, opened.reading.unknown

    def pieces() -> Iterator[tuple[int, Any]]:  # str, or bytes
        if as_bytes:
            return joining.raw(opened, boundary)
        text = joining.characters(opened, boundary)
        return new_symbols.skip(text, vocabulary, skipped) if vocabulary and unknown == "skip" else text

    seen, counts = np.zeros(0x110000, bool), [0] * len(opened.parts)

    def counted() -> Iterator[Any]:
        for number, piece in pieces():
            counts[number] += len(piece)
            yield piece

    for batch in joining.batched(counted()):
        seen[np.frombuffer(batch, np.uint8) if isinstance(batch, bytes) else code_points(batch)] = True
    parts = tuple(counts)
    codes = np.flatnonzero(seen).tolist()
    distinct = "".join(map(chr, codes))
    inside = distinct.replace(boundary, "")
    if not (inside.encode("latin-1") if as_bytes else inside).strip():
        expected = VALIDATION_EXPECTED if opened.validation else EXPECTED
        nothing = "nothing that the model knows" if skipped else "nothing but white space" if sum(counts) else "nothing"
        raise InputError(f"{opened.shown} holds {nothing}: {expected}")
    alone = characters(distinct, boundary)
    encoder = new_symbols.extended(vocabulary, distinct) if vocabulary and unknown == "add" else vocabulary or alone
    if encoder.unknown(distinct):
        most, remedy = 10 if opened.validation else SHOWN, new_symbols.remedy() if unknown == "error" else ""
        first = next(number for number, piece in pieces() if encoder.unknown(str(piece)))
        of_first = (str(piece) for number, piece in pieces() if number == first)
        raise UnknownCharacters(f"{opened.parts[first].shown}: {encoder.complaint(of_first, most, remedy)}")
    ids = map(encoder.encode, joining.batched(piece for _, piece in pieces()))
    if not opened.large:
        return token_store.in_memory(ids, encoder, parts)
    key = _key(opened, None if encoder == alone and not skipped else encoder, boundary)
    return token_store.save(f"{key}-skip" if skipped else key, ids, parts, encoder, opened.shown)


def _key(opened: Texts, vocabulary: Vocabulary | None, boundary: str) -> str:
    """The cache key of the ids of large texts; vocabulary None stands for their own characters."""
    kind = "characters" if vocabulary is None else "bytes" if vocabulary.symbols is None else None
    if kind is None:
        kind = hashlib.sha256(json.dumps(vocabulary.to_json()).encode()).hexdigest() if vocabulary else ""
    checksums = [part.checksum() for part in opened.parts]
    usual = boundary == NEWLINE and len(checksums) == 1 and opened.reading.encoding == "utf-8"
    if usual:
        return f"{checksums[0]}-{kind}"
    facts = [checksums, boundary, opened.reading.encoding, opened.reading.separator]
    return f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}-{kind}"


def _marks(ids: HostArray, vocabulary: Vocabulary) -> Iterator[tuple[HostArray, HostArray]]:
    """Yield the masks of `sequences.marks`, for bytes as for characters."""
    if vocabulary.symbols is not None:
        yield from marks(ids, vocabulary)
        return
    for text in _texts(ids, vocabulary):
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
