"""The command `bptt`, also `python -m bptt`. Ctrl-C prints one line, even during the slow imports."""

import contextlib
import os
import signal
import sys
import time
from typing import Any, NoReturn

from bptt import __version__
from bptt.distributed.launcher import LAUNCHER_VARIABLES


def leave(number: int, frame: Any) -> NoReturn:
    """End the process at once, because Python ignores an exception in a callback of an import, and the command would go on.

    Under a launcher, the signal itself ends the process, so that the launcher ends the other processes.
    """
    os.write(2, b"bptt: interrupted\n")
    if os.name == "posix" and any(name in os.environ for name in LAUNCHER_VARIABLES):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(130)


def main() -> int:
    """Run the command line and return its exit code."""
    began = time.perf_counter()
    if sys.argv[1:] == ["--version"]:
        with contextlib.suppress(OSError, AttributeError):  # no standard output: the command line below says so
            sys.stdout.write(f"{__version__}\n")
            sys.stdout.flush()
            return 0
    default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if default_handler:
            signal.signal(signal.SIGINT, leave)
        from bptt.cli import main as run
        from bptt.cli.parser import import_command

        import_command(sys.argv[1:])
        if default_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run(began=began)
    except KeyboardInterrupt:
        sys.stderr.write("bptt: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
