"""Compiled twins of pure functions of the maths: the same result, sooner. None is needed for anything.

Twins exist for NumPy arrays on a CPU, where Numba is installed, and are used from `start` on.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

_twins: dict[str, Callable[..., Any]] = {}


def twinned(pure: Function) -> Function:
    """The function, or its twin where that is loaded and the first argument is a NumPy array; positional arguments only."""
    name = f"{pure.__module__.rpartition('.')[2]}_{pure.__name__}"

    @functools.wraps(pure)
    def either(*arguments: Any) -> Any:
        twin = _twins.get(name)
        return (twin if twin and type(arguments[0]) is np.ndarray else pure)(*arguments)

    return either  # type: ignore[return-value]


def start() -> str:
    """Load the twins, unless BPTT_FUSED is 0 or there is no Numba; what is used from now on, in words, or nothing."""
    if os.environ.get("BPTT_FUSED", "1") in ("0", ""):
        return ""
    try:
        from bptt.fused import cpu
    except ImportError:
        return ""
    _twins.update(cpu.TWINS)
    return str(cpu.NAME)


def stop() -> None:
    """Use the pure functions from now on."""
    _twins.clear()
