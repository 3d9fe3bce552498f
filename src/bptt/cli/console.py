"""What the command line prints: results on standard output, one line for what is wrong on standard error."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

unwritten: list[OSError] = []  # why standard output was given up


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Give up standard output, what waits in its buffer included, where it cannot be written; `main` says so in the end."""
    try:
        yield
    except OSError as error:
        unwritten.append(error)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def say(line: str) -> None:
    """Print for people and pipes alike, at once; the work goes on where that fails, as when a reader leaves."""
    with printing():
        print(line, flush=True)


def complain(line: str, code: int = 0) -> int:
    """One line on standard error; gives the exit code back."""
    with contextlib.suppress(OSError):
        print(f"bptt: {' '.join(line.split())}", file=sys.stderr)
    return code


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line for a warning, without the line of code that it comes from."""
    complain(f"warning: {message}")
