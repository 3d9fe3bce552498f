"""Sums of micro-batches in an order that does not depend on the number of processes.

Process r of n has the micro-batches r, r + n, r + 2n, ... An even number of micro-batches is split in two, the even ones and
the odd ones; both halves are summed in the same way, then added. An odd number of such sums is added from left to right. So
each of 2 processes computes one half, and the sum of both has the bits that one process gets; the same holds for 4 and 8.
"""

from collections.abc import Callable
from functools import reduce
from typing import TypeVar

from bptt.backend import Array

Arrays = TypeVar("Arrays", bound=tuple[Array, ...])


def is_divisible(count: int, processes: int) -> bool:
    """Return whether the processes can divide so many micro-batches without a change in the order of the sum."""
    return round_up(count, processes) == count


def round_up(count: int, processes: int) -> int:
    """Round a number of micro-batches up so that the processes can divide it: a power of two for each process."""
    return count if processes == 1 else processes << (-(-count // processes) - 1).bit_length()


def pairwise_sum(
    term: Callable[[int], Arrays | None], count: int, start: int = 0, step: int = 1, end: int | None = None
) -> Arrays | None:
    """Sum term(start), term(start + step), ... element by element, out of `count` terms in all; None if each term is None.

    A `step` other than 1 is a number of processes that can divide `count`. Terms from `end` on are None, and not asked for.
    """
    end = count if end is None else end
    if step > 1:
        return _strided_sum(term, count, start, step, end)
    odd = count // (count & -count)  # without the factors of 2
    return reduce(_add, (_strided_sum(term, count, offset, odd, end) for offset in range(min(odd, end))))


def _strided_sum(term: Callable[[int], Arrays | None], count: int, start: int, step: int, end: int) -> Arrays | None:
    """Sum term(start), term(start + step), ... where `count` is `step` times a power of two."""
    if start >= end:
        return None
    if step == count:
        return term(start)
    return _add(_strided_sum(term, count, start, 2 * step, end), _strided_sum(term, count, start + step, 2 * step, end))


def _add(a: Arrays | None, b: Arrays | None) -> Arrays | None:
    if a is None or b is None:
        return b if a is None else a
    return type(a)(left + right for left, right in zip(a, b))
