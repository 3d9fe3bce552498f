"""Signals that ask a run to end: the first one is noted, so that the run can save its work; the second one ends it at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

INTERRUPT = ("SIGINT",)
TERMINATION = (
    "SIGINT",
    "SIGTERM",
    "SIGHUP",
    "SIGUSR1",
    "SIGBREAK",
)  # Ctrl-C, a polite end, a terminal that goes, what clusters send before an end, Ctrl-Break on Windows


@contextlib.contextmanager
def catch_signals(names: tuple[str, ...]) -> Iterator[list[str]]:
    """A list that gets the name of the signal that arrives; another one after it raises KeyboardInterrupt.

    A signal that this system does not have, that is ignored (as in a shell's background) or that the program around has a
    handler of its own for is left alone, and so are all where this is not the main thread.
    """
    arrived: list[str] = []
    before = {}

    def note(number: int, _: FrameType | None) -> None:
        arrived.append(signal.Signals(number).name)
        if len(arrived) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, note)
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block; inside a compiled kernel it would end in a SystemError."""
    with catch_signals(INTERRUPT) as arrived:
        yield
    if arrived:
        raise KeyboardInterrupt


@contextlib.contextmanager
def exit_on_termination() -> Iterator[None]:
    """Let SIGTERM end the block by SystemExit, so that what is half written is removed; for commands that train nothing."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        sys.exit(exit_code(signal.Signals(number).name))

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def die_by_interrupt() -> NoReturn:
    """End this process by Ctrl-C itself, where there is such an end, so that a launcher ends all others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(130)


def exit_code(name: str) -> int:
    """What a shell calls the end by a signal of that name: 128 and its number."""
    return 128 + int(getattr(signal, name))
