"""Compiled twins of pure functions of the maths: the same result, sooner. None is needed for anything.

Twins exist for NumPy arrays on a CPU, where Numba is installed, and for CuPy arrays. They are used from `start` on.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from bptt import dispatch

LIBRARIES = ("numpy", "cupy")  # whose arrays they take

_given_up: dict[str, str] = {}  # why, by the library


def start(library: str = "numpy") -> str:
    """Load the twins for arrays of a library, unless something is in the way; what is used now, in words, or nothing."""
    stop()
    if not obstacle(library):
        dispatch.enable(_room(library).ARRAY)
    return name()


def stop() -> None:
    """Use the pure functions from now on."""
    dispatch.disable()


def give_up(library: str, why: str) -> None:
    """Use none for arrays of a library any more in this process."""
    stop()
    _given_up[library] = why


def name() -> str:
    """What compiled the twins that are used, with its version; nothing where none are."""
    return "".join(_room(array.__module__.partition(".")[0]).NAME for array in dispatch.enabled())


def fits(cell: str, hidden: int, batch: int, size: int) -> bool:
    """Whether the loops over time of a layer, in numbers of so many bytes, are one call of the twins that are used each."""
    if not name().startswith("nvrtc"):
        return True
    from bptt.kernels.cuda import recurrence

    return bool(recurrence.fits(cell, hidden, batch, size))


def recorder() -> Callable[[Callable[[], None]], Callable[[], None]] | None:
    """What makes of a function one that repeats what it asks of a device; None where the twins that are used cannot."""
    if not name().startswith("nvrtc"):
        return None
    from bptt.kernels.cuda import graphs

    found: Callable[[Callable[[], None]], Callable[[], None]] = graphs.recorder()
    return found


def new() -> bool:
    """Whether nothing is kept yet of the twins for NumPy that are used, so that their first calls have to compile them."""
    if not name().startswith("numba"):
        return False
    from bptt.kernels.cpu import jit

    return not jit.kept()


def obstacle(library: str = "numpy") -> str:
    """Why there are no twins for arrays of a library here, with the remedy; empty where there are."""
    if os.environ.get("BPTT_FUSED", "1") in ("0", ""):
        return "BPTT_FUSED=0 switches them off"
    if library in _given_up:
        return f"they fail here: {_given_up[library]}"
    return _obstacle(library) if library in LIBRARIES else f"there are none for {library}"


@functools.cache
def _obstacle(library: str) -> str:
    compiler = {"numpy": "Numba", "cupy": "CuPy"}[library]
    try:
        _room(library)
    except ImportError as error:
        if error.name == "numba":
            return "Numba is not installed (remedy: pip install numba)"
        return f"{compiler} cannot be imported: {error} (remedy: upgrade it)"
    except Exception as error:  # a library that this was not written for, or half of one
        return f"{compiler} cannot be used: {type(error).__name__}: {error} (remedy: another version of it)"
    return ""


def _room(library: str) -> Any:
    """The module with the twins for arrays of a library."""
    if library == "cupy":
        from bptt.kernels.cuda import recurrence

        return recurrence
    from bptt.kernels import cpu

    return cpu
