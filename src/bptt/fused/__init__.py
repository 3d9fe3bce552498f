"""Compiled twins of pure functions of the maths: the same result, sooner. None is needed for anything.

Twins exist for NumPy arrays on a CPU, where Numba is installed, and are used from `start` on.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

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

    return cast(Function, either)


def start() -> str:
    """Load the twins, unless something is in the way; what is used from now on, in words, or nothing."""
    stop()
    if not obstacle():
        from bptt.fused import cpu

        _twins.update(cpu.TWINS)
    return name()


def stop() -> None:
    """Use the pure functions from now on."""
    _twins.clear()


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Use afterwards what was used before."""
    before = dict(_twins)
    try:
        yield
    finally:
        stop()
        _twins.update(before)


def name() -> str:
    """What compiled the twins that are used, with its version; nothing where none are."""
    if not _twins:
        return ""
    from bptt.fused import cpu

    return cpu.NAME


def new() -> bool:
    """Whether nothing is kept yet of the twins that are used, so that their first calls have to compile them."""
    if not _twins:
        return False
    from bptt.fused import compiling

    return not compiling.kept()


def obstacle() -> str:
    """Why there are no twins here, with the remedy; empty where there are."""
    if os.environ.get("BPTT_FUSED", "1") in ("0", ""):
        return "BPTT_FUSED=0 switches them off"
    return _obstacle()


@functools.cache
def _obstacle() -> str:
    try:
        import bptt.fused.cpu  # noqa: F401
    except ImportError as error:
        if error.name == "numba":
            return "Numba is not installed (remedy: pip install numba)"
        return f"Numba cannot be imported: {error} (remedy: upgrade it)"
    except Exception as error:  # a Numba that this was not written for, or half of one
        return f"Numba cannot be used: {type(error).__name__}: {error} (remedy: another version of it)"
    return ""
