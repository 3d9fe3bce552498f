"""Characters of a text that the vocabulary of a model lacks: refused, left out, or new symbols of it (`--new-symbols`)."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator

from bptt.data.vocabulary import Vocabulary
from bptt.errors import option

_SHOWN = 10  # characters that were left out that a message lists


def remedy() -> str:
    """What to do about characters that the vocabulary lacks."""
    add = f"{option('new_symbols', 'add')} gives the model these symbols"
    return f"{add}, skip leaves them out of the text, error (the default) refuses them"


def extended(vocabulary: Vocabulary, text: str) -> Vocabulary:
    """The vocabulary with the characters of a text, in sorted order; that of bytes lacks none."""
    known = vocabulary.symbols
    return vocabulary if known is None else dataclasses.replace(vocabulary, symbols=tuple(sorted({*known, *text})))


def skip(pieces: Iterable[tuple[int, str]], vocabulary: Vocabulary, skipped: Counter[str]) -> Iterator[tuple[int, str]]:
    """Yield the pieces of `joining.characters` without the characters that the vocabulary lacks.

    `skipped` counts them, from zero on.
    """
    skipped.clear()
    known = frozenset(vocabulary.symbols or ())
    for number, piece in pieces:
        unknown = set(piece) - known
        if unknown:
            counts = Counter(piece)  # in one pass: thousands of characters may be unknown
            skipped.update({character: counts[character] for character in unknown})
        if kept := piece.translate(dict.fromkeys(map(ord, unknown))) if unknown else piece:
            yield number, kept


def skipped_message(shown: str, skipped: Counter[str]) -> str:
    """That characters of a text were left out, how many and which, the most frequent first."""
    ranked = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    times = [
        (f"{character!r} (U+{ord(character):04X})", f"{n:,} times" if n > 1 else "once") for character, n in ranked[:_SHOWN]
    ]
    listed = ", ".join(map(" ".join, times))
    more = f" and {len(ranked) - _SHOWN:,} other characters" if len(ranked) > _SHOWN else ""
    total = skipped.total()
    count = f"{total:,} characters that the model lacks are" if total > 1 else "1 character that the model lacks is"
    return f"{shown}: {count} left out: {listed}{more}"
