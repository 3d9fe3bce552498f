"""Lines that occur more than once: hashes of lines, a split that keeps copies together, and lines that two sets share.

A hash depends on the UTF-8 bytes of a line alone, not on the vocabulary that encodes it, nor on where the line stands.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bptt.backend import HostArray
from bptt.data import token_store
from bptt.data.sequences import Sequences
from bptt.data.vocabulary import Vocabulary

BASE = 0x9E3779B97F4A7C15 | 3  # of the polynomial; 3 modulo 4, so that its powers are different from each other
MODULUS = 1 << 64
NEAR = 20  # a validation set may lack one line in so many


class Coefficients:
    """What a token adds to the hash of its line: the polynomial of the bytes of its character, in random numbers."""

    def __init__(self, vocabulary: Vocabulary, key: int) -> None:
        if vocabulary.symbols is None:
            encoded = [bytes([byte]) for byte in range(256)]
        else:
            encoded = [symbol.encode("utf-8", "surrogatepass") for symbol in vocabulary.symbols]
        of_byte = np.random.default_rng(key).integers(MODULUS, size=256, dtype=np.uint64).tolist()
        sums = [sum(of_byte[byte] * pow(BASE, place, MODULUS) for place, byte in enumerate(raw)) for raw in encoded]
        self.values = np.array([value % MODULUS for value in sums], np.uint64)  # (V,)
        self.widths = np.array([len(raw) for raw in encoded], np.int64)  # (V,) bytes
        self.powers = _powers(BASE, 1)
        self.inverse_powers = _powers(pow(BASE, -1, MODULUS), 1)

    def prefix_sums(self, ids: HostArray) -> tuple[HostArray, HostArray]:
        """Return the polynomial of the first 0, 1, ... n of these ids, (n + 1,), and the number of their bytes, (n + 1,)."""
        places = np.arange(len(ids) + 1)
        if self.widths.max() > 1:
            np.cumsum(self.widths[ids], out=places[1:])
        if places[-1] >= len(self.powers):
            self.powers = _powers(BASE, int(places[-1]) + 1)
            self.inverse_powers = _powers(pow(BASE, -1, MODULUS), int(places[-1]) + 1)
        sums = np.zeros(len(ids) + 1, np.uint64)
        np.cumsum(self.values[ids] * self.powers[places[:-1]], out=sums[1:])
        return sums, places


def hashes(lines: Sequences, vocabulary: Vocabulary, key: int = 0) -> Iterator[HostArray]:
    """Yield the hashes of lines in order, an array (n,) of 64-bit numbers for some lines at a time.

    Equal lines have equal hashes; two different ones have the same with a probability of about 2**-64. Another key gives
    other hashes.
    """
    coefficients, read = Coefficients(vocabulary, key), token_store.reader(lines.ids)
    i = 0
    while i < len(lines):
        block = lines[i : i + token_store.CHUNK]  # at least as many ids
        starts = block.starts.astype(np.int64) + 1  # behind the newline
        ends = starts + block.lengths.astype(np.int64) - 1  # without the one at the end
        begin = int(starts[0])
        count = max(1, int(np.searchsorted(ends, begin + token_store.CHUNK, "right")))
        starts, ends = starts[:count], ends[:count]
        if ends[-1] - begin <= token_store.CHUNK:
            sums, places = coefficients.prefix_sums(read(begin, int(ends[-1])))
            first, last = starts - begin, ends - begin
            values = (sums[last] - sums[first]) * coefficients.inverse_powers[places[first]]
            yield _mixed(values, places[last] - places[first])
        else:
            yield _of_long_line(coefficients, lines.ids, begin, int(ends[-1]))
        i += count


def split_together(
    lines: Sequences, vocabulary: Vocabulary, fraction: float, rng: np.random.Generator
) -> tuple[Sequences, Sequences]:
    """Split off a validation set of lines as `sequences.split` does, with all copies of a line on one side.

    Lines are drawn by a hash of their characters with a key from `rng`: which ones are held out does not depend on their
    order, and hardly on lines that are added. A line with more copies than are still missing is left to training, unless
    this leaves nothing to validate on.
    """
    count = min(round(fraction * len(lines)), max(0, len(lines) - 1))
    if not count:
        return lines, lines[:0]
    validation = _drawn(_short_hashes(lines, vocabulary, int(rng.integers(MODULUS, dtype=np.uint64))), count)
    return lines.take(~validation), lines.take(validation)


def count_shared(lines: Sequences, others: Sequences, vocabulary: Vocabulary) -> int:
    """Count the lines that are also among others."""
    if not lines:
        return 0
    distinct, copies = np.unique(np.concatenate(list(hashes(lines, vocabulary))), return_counts=True)
    shared = np.zeros(len(distinct), bool)
    for part in hashes(others, vocabulary):
        places = np.minimum(np.searchsorted(distinct, part), len(distinct) - 1)
        shared[places[distinct[places] == part]] = True
    return int(copies[shared].sum())


def _short_hashes(lines: Sequences, vocabulary: Vocabulary, key: int) -> HostArray:
    """Return hashes of 32 bits, (S,) in half the memory: different lines that share one just go together, too."""
    result, i = np.empty(len(lines), np.uint32), 0
    for part in hashes(lines, vocabulary, key):
        result[i : i + len(part)] = part >> np.uint64(32)
        i += len(part)
    return result


def _drawn(numbers: HostArray, count: int) -> HostArray:
    """Draw about `count` of the numbers (n,), the smallest ones, equal ones together; a mask (n,)."""
    bound = (1 << 32) * 2 * count // len(numbers)
    below = numbers[numbers < bound]  # nearly always enough, and less to sort
    drawn = _ascending(below, count, len(numbers))
    if drawn.missing * NEAR > count and len(below) < len(numbers):
        drawn = _ascending(numbers.copy(), count, len(numbers))
    left_out = drawn.left_out
    if 2 * drawn.missing > count and left_out:  # most lines have many copies
        fewest = min(left_out, key=left_out.__getitem__)
        if 2 * (count - drawn.missing + left_out[fewest]) <= len(numbers):
            del left_out[fewest]
    chosen: HostArray = numbers <= drawn.last
    for i in range(0, len(numbers) if left_out else 0, token_store.CHUNK):  # isin takes many times its memory
        part = slice(i, i + token_store.CHUNK)
        chosen[part] &= ~np.isin(numbers[part], list(left_out))
    return chosen


class _Ascending(NamedTuple):
    """Numbers drawn in ascending order."""

    last: int  # the largest one that was looked at, -1 without one
    left_out: dict[int, int]  # those that occur too often, and how often
    missing: int  # how many more were to be drawn; negative if there are too many


def _ascending(numbers: HostArray, count: int, total: int) -> _Ascending:
    """Draw `count` numbers (n,) in ascending order, equal ones together, which are sorted in place.

    Numbers that occur too often for those that are missing are left out; some of the `total` numbers always are.
    """
    numbers.sort()
    position, missing, left_out = 0, count, dict[int, int]()
    while position < len(numbers) and missing * NEAR > count:
        end = min(position + missing, len(numbers))
        value = numbers[end - 1]  # its copies may go on beyond the end
        first, last = (int(np.searchsorted(numbers, value, side)) for side in ("left", "right"))
        if last - end <= end - first and count - missing + last - position < total:
            missing -= last - position
        else:
            missing -= first - position
            left_out[int(value)] = last - first
        position = last
    return _Ascending(int(numbers[position - 1]) if position else -1, left_out, missing)


def _of_long_line(coefficients: Coefficients, ids: HostArray, begin: int, end: int) -> HostArray:
    """Return the hash (1,) of one line, whose ids are not in memory at the same time."""
    read, value, width = token_store.reader(ids), 0, 0
    for start in range(begin, end, token_store.CHUNK):
        sums, places = coefficients.prefix_sums(read(start, min(end, start + token_store.CHUNK)))
        value += int(sums[-1]) * pow(BASE, width, MODULUS)
        width += int(places[-1])
    return _mixed(np.array([value % MODULUS], np.uint64), np.array([width], np.int64))


def _powers(base: int, count: int) -> HostArray:
    """Return base**0, base**1, ... modulo 2**64: at least `count` of them."""
    size = max(count, token_store.CHUNK + 1)
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _mixed(values: HostArray, widths: HostArray) -> HostArray:
    """Spread polynomials and the bytes of their lines over all 64 bits (the finalizer of SplitMix64)."""
    values = values + widths.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: HostArray = values ^ (values >> np.uint64(31))
    return mixed
