"""In which order the shares of a batch are added up: one that does not depend on how many processes have them.

Shares 0 to `count` are dealt out in turn. Of an even number every second one is added up, and then the others, each half in
the same way; an odd number of such sums is added up one after the other. So what each of 2 processes adds up of 8 shares, every
second one, and then the sum of the two, is what one process adds up; and so with 4 and 8.
"""

from collections.abc import Callable
from functools import reduce
from typing import TypeVar

from bptt.backend import Array

Arrays = TypeVar("Arrays", bound=tuple[Array, ...])


def is_divisible(count: int, processes: int) -> bool:
    """Whether so many shares can be dealt out to processes, and the order of the sums stay."""
    return round_up(count, processes) == count


def round_up(count: int, processes: int) -> int:
    """So many shares, or the next larger number that processes can divide: as many each, and that a power of two."""
    return count if processes == 1 else processes << (-(-count // processes) - 1).bit_length()


def pairwise_sum(
    share: Callable[[int], Arrays | None], count: int, first: int = 0, step: int | None = None, end: int | None = None
) -> Arrays | None:
    """What shares `first`, `first` + `step` and so on give, element by element, added up; None for nothing.

    Without `step` it is that of all of them. Those from `end` on give nothing.
    """
    end = count if end is None else end
    if step is None:
        step = count // (count & -count)  # without its factors of 2
        return reduce(_plus, (pairwise_sum(share, count, one, step, end) for one in range(min(step, end))))
    if first >= end:
        return None
    if step == count:
        return share(first)
    return _plus(pairwise_sum(share, count, first, 2 * step, end), pairwise_sum(share, count, first + step, 2 * step, end))


def _plus(one: Arrays | None, other: Arrays | None) -> Arrays | None:
    if one is None or other is None:
        return other if one is None else one
    return type(one)(a + b for a, b in zip(one, other))
