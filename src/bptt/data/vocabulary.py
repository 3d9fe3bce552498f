"""The tokenizer: text to token ids and back, with the characters of a text or the 256 bytes of UTF-8."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bptt.backend import HostArray
from bptt.config.settings import VocabularyName
from bptt.errors import InputError, UnknownCharacters, option

NEWLINE = "\n"  # before every text and after every line
RECORD = "\x1e"  # before and after every record, which may have several lines: the record separator of ASCII

BOUNDARIES = {"lines": NEWLINE, "records": RECORD, "stream": NEWLINE}  # by mode

# characters encoded at a time: the temporary arrays stay in the cache (19 ms -> 2 ms a megabyte with the table)
_PIECE = 1 << 16
SHOWN = 100  # unknown characters that an error message lists


@dataclass(frozen=True)
class Vocabulary:
    """The symbols that a model knows; the id of a symbol is its index.

    A character is one Unicode code point, nothing is normalised: a combining mark is a character of its own.

    Raises:
        InputError: symbols that are not distinct single characters in sorted order with the boundary among them.
    """

    symbols: tuple[str, ...] | None  # sorted characters; None: the 256 bytes of UTF-8
    boundary: str = NEWLINE  # the symbol before every text, and after every line or record

    def __post_init__(self) -> None:
        if self.symbols is None:
            return
        for symbol in self.symbols:
            if not isinstance(symbol, str) or len(symbol) != 1:
                raise InputError(f"vocabulary holds {symbol!r}, expected single characters: is the file damaged?")
        if self.symbols != tuple(sorted(set(self.symbols))) or self.boundary not in self.symbols:
            boundary = "newline" if self.boundary == NEWLINE else "end of a record, U+001E,"
            raise InputError(f"vocabulary is out of order, expected distinct sorted characters with the {boundary} among them")

    def __len__(self) -> int:
        return 256 if self.symbols is None else len(self.symbols)

    @property
    def kind(self) -> VocabularyName:
        """What the symbols are."""
        return "bytes" if self.symbols is None else "characters"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type for the ids."""
        return np.min_scalar_type(len(self) - 1)

    @property
    def start(self) -> int:
        """The id of the boundary, which is the start symbol of every text."""
        return ord(self.boundary) if self.symbols is None else self.symbols.index(self.boundary)

    def encode(self, text: str | bytes) -> HostArray:
        """Encode a text as ids (n,) in `dtype`.

        The byte vocabulary takes anything: a str as its UTF-8, bytes as they are.

        Raises:
            UnknownCharacters: characters that the vocabulary does not have.
            InputError: bytes for a vocabulary of characters.
        """
        if self.symbols is None:
            raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            return np.frombuffer(raw, np.uint8)
        if not isinstance(text, str):
            raise InputError(f"got {type(text).__name__}, expected str: a vocabulary of characters does not encode bytes")
        ids = np.empty(len(text), self.dtype)
        for i in range(0, len(text), _PIECE):
            piece = self._table.take(code_points(text[i : i + _PIECE]), mode="clip")
            if piece.min() < 0:
                raise UnknownCharacters(self.complaint([text]))
            ids[i : i + _PIECE] = piece
        return ids

    def decode(self, ids: ArrayLike) -> str:
        """Decode ids (n,); bytes that are not UTF-8 become U+FFFD.

        Raises:
            InputError: an id outside the vocabulary.
        """
        ids = np.asarray(ids)
        if not ids.size:
            return ""
        if not (ids.min() >= 0 and ids.max() < len(self)):
            raise InputError(
                f"ids run from {ids.min()} to {ids.max()}, expected 0 to {len(self) - 1}: is it another vocabulary?"
            )
        if self.symbols is None:
            return ids.astype(np.uint8).tobytes().decode("utf-8", "replace")
        codes: HostArray = code_points("".join(self.symbols))[ids]
        return codes.tobytes().decode("utf-32-le", "surrogatepass")

    def unknown(self, text: str) -> list[str]:
        """Return the distinct characters of a text that are not in the vocabulary, in order of appearance."""
        if self.symbols is None:
            return []
        known = set(self.symbols)
        return [character for character in dict.fromkeys(text) if character not in known]

    @cached_property
    def _table(self) -> HostArray:
        """The id of each code point, or -1; the last entry stands for all larger ones."""
        known = code_points("".join(self.symbols or ()))
        table = np.full(int(known[-1]) + 2, -1, np.int32)
        table[known] = np.arange(len(self))
        return table

    def to_json(self) -> list[str] | None:
        """Return a value for `json.dumps`, whose ASCII output keeps lone surrogates; see `from_json`."""
        return None if self.symbols is None else list(self.symbols)

    @classmethod
    def from_json(cls, value: Any, boundary: str = NEWLINE) -> "Vocabulary":
        """Make the vocabulary of a value of `to_json`.

        Raises:
            InputError: anything but null or a list of distinct sorted characters with the boundary among them.
        """
        if value is not None and not isinstance(value, list):
            raise InputError(
                f"vocabulary is {type(value).__name__}, expected a list of characters or null: is the file damaged?"
            )
        return cls(None if value is None else tuple(value), boundary)

    def complaint(self, pieces: Iterable[str], most: int = SHOWN, remedy: str = "") -> str:
        """Return the message of `encode` about unknown characters in the pieces of a text; it lists `most` of them."""
        known, foreign, advice = frozenset(self.symbols or ()), dict[str, None](), ""
        line = column = 1  # of the first unknown one, in the end
        for piece in pieces:
            new = sorted(set(piece) - known - foreign.keys(), key=piece.index)
            if not foreign:
                before = piece[: piece.index(new[0])] if new else piece
                line += before.count("\n")
                column = len(before) - before.rfind("\n") if "\n" in before else column + len(before)
                advice = self.advice(piece, remedy) if new else ""
            foreign.update(dict.fromkeys(new))
        return f"not in the vocabulary: {listed(list(foreign), most)}, first at line {line}, column {column}: {advice}"

    def advice(self, text: str, otherwise: str = "") -> str:
        """Return what to do about the unknown characters of a text: one that is as é has two forms in Unicode."""
        unknown = self.unknown(text)
        for form in ("NFC", "NFD"):
            normalized = unicodedata.normalize(form, text)
            left = self.unknown(normalized)
            if len(left) < len(unknown) and not set(normalized) <= {*text, *left}:
                convert = f"uconv -x any-{form.lower()}, or unicodedata.normalize in Python"
                return f"the model knows more of them in the Unicode normal form {form}: convert the text with {convert}"
        remedy = f"use characters of the training text, or train a new model with {option('vocabulary', 'bytes')}"
        return otherwise or remedy


BYTES = Vocabulary(None)


def characters(text: Iterable[str], boundary: str = NEWLINE) -> Vocabulary:
    """Make the vocabulary of the characters of a text, and of the boundary."""
    return Vocabulary(tuple(sorted({boundary, *text})), boundary)


def listed(characters: Sequence[str], most: int) -> str:
    """Name `most` characters, and say how many there are besides."""
    shown = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in characters[:most])
    return shown + (f" and {len(characters) - most} more" if len(characters) > most else "")


def code_points(text: str) -> HostArray:
    """Return the code points (n,) of the characters of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
