"""`@accelerated`: a pure function that calls a kernel instead, where one is registered and enabled for its type of array.

A kernel is a faster implementation of the same function; the results of both are equal up to rounding, and the pure function
is the reference. Each accelerated function owns its kernels, so both can be found from each other: `gru.run.kernels` lists
those of a function, and `@kernel_for(gru.run, ...)` stands above each of them. This module holds which types are enabled.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
Result = TypeVar("Result", covariant=True)
Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Action = Callable[[], None]  # what can be captured in a CUDA graph


_enabled: set[type] = set()  # the types of arrays whose kernels are called


class Accelerated(Protocol[P, Result]):
    """A pure function that may have kernels."""

    kernels: dict[type, Callable[..., Any]]  # by the type of the first argument

    @property
    def __wrapped__(self) -> Callable[P, Result]:
        """The pure function."""

    def __call__(self, *arguments: P.args, **_: P.kwargs) -> Result:
        """What the kernel of the first argument's type returns, or else the pure function."""


def accelerated(pure: Callable[P, Result]) -> Accelerated[P, Result]:
    """Let the function be replaced by a kernel, chosen by the type of its first argument; positional arguments only.

    A kernel that cannot do what is asked returns NotImplemented, and the pure function is called.
    """
    kernels: dict[type, Callable[..., Any]] = {}

    @functools.wraps(pure)
    def call(*arguments: Any) -> Any:
        kind = type(arguments[0])
        if kind in _enabled and kind in kernels:
            result = kernels[kind](*arguments)
            if result is not NotImplemented:
                return result
        return pure(*arguments)  # type: ignore[call-arg]  # a ParamSpec has no form for positional arguments alone

    call.kernels = kernels  # type: ignore[attr-defined]  # mypy knows no attributes of functions
    return cast(Accelerated[P, Result], call)


def kernel_for(function: Accelerated[..., Any], array_type: type) -> Callable[[Kernel], Kernel]:
    """Register the decorated function as the kernel of an accelerated function, with the same parameters."""

    def register(kernel: Kernel) -> Kernel:
        function.kernels[array_type] = kernel
        return kernel

    return register


def enable(array_type: type) -> None:
    """Call the kernels for this type of array from now on."""
    _enabled.add(array_type)


def disable() -> None:
    """Call the pure functions from now on."""
    _enabled.clear()


def enabled() -> frozenset[type]:
    """The types of arrays whose kernels are called."""
    return frozenset(_enabled)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Enable the same kernels afterwards as before."""
    before = set(_enabled)
    try:
        yield
    finally:
        _enabled.clear()
        _enabled.update(before)
