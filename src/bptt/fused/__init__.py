"""Compiled twins of pure functions of the maths: the same result, sooner. None is needed for anything.

Twins exist for NumPy arrays on a CPU, where Numba is installed, and for CuPy arrays. They are used from `start` on.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

LIBRARIES = ("numpy", "cupy")  # whose arrays they take


class Unrecordable(Exception):
    """Something that a function asks of a device and that no recording can repeat."""


_twins: dict[type, dict[str, Callable[..., Any]]] = {}  # by the type of array
_given_up: dict[str, str] = {}  # why, by the library


def twinned(pure: Function) -> Function:
    """The function, or its twin where one is loaded for the type of the first argument; positional arguments only.

    A twin that cannot do what is asked gives NotImplemented, and the function itself is called.
    """
    name = f"{pure.__module__.rpartition('.')[2]}_{pure.__name__}"

    @functools.wraps(pure)
    def either(*arguments: Any) -> Any:
        twins = _twins.get(type(arguments[0]))
        if twins and name in twins:
            result = twins[name](*arguments)
            if result is not NotImplemented:
                return result
        return pure(*arguments)

    return cast(Function, either)


def start(library: str = "numpy") -> str:
    """Load the twins for arrays of a library, unless something is in the way; what is used now, in words, or nothing."""
    stop()
    if not obstacle(library):
        twins = _room(library)
        _twins[twins.ARRAY] = twins.TWINS
    return name()


def stop() -> None:
    """Use the pure functions from now on."""
    _twins.clear()


def give_up(library: str, why: str) -> None:
    """Use none for arrays of a library any more in this process."""
    stop()
    _given_up[library] = why


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
    return "".join(_room(array.__module__.partition(".")[0]).NAME for array in _twins)


def fits(cell: str, hidden: int, batch: int, size: int) -> bool:
    """Whether the loops over time of a layer, in numbers of so many bytes, are one call of the twins that are used each."""
    if not name().startswith("nvrtc"):
        return True
    from bptt.fused import cuda

    return bool(cuda.fits(cell, hidden, batch, size))


def recorder() -> Callable[[Callable[[], None]], Callable[[], None]] | None:
    """What makes of a function one that repeats what it asks of a device; None where the twins that are used cannot."""
    if not name().startswith("nvrtc"):
        return None
    from bptt.fused import graphs

    found: Callable[[Callable[[], None]], Callable[[], None]] = graphs.recorder()
    return found


def wires() -> Any:
    """The module with what carries numbers between GPUs: an obstacle, the name of a device, a communicator."""
    from bptt.fused import nccl

    return nccl


def new() -> bool:
    """Whether nothing is kept yet of the twins for NumPy that are used, so that their first calls have to compile them."""
    if not name().startswith("numba"):
        return False
    from bptt.fused import compiling

    return not compiling.kept()


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
        from bptt.fused import cuda

        return cuda
    from bptt.fused import cpu

    return cpu
