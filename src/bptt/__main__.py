"""The command `bptt`, and `python -m bptt`: Ctrl-C is one line, even while the imports still go on."""

import os
import signal
import sys
from typing import Any, NoReturn

LAUNCHED = (
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
)  # as in distributed.process_group, not imported yet


def leave(number: int, frame: Any) -> NoReturn:
    """End at once: an exception that comes while Python calls back from an import is ignored, and the command would go on.

    Beside others it is the end by the signal itself, where there is one, so that the launcher ends them, too.
    """
    os.write(2, b"bptt: interrupted\n")
    if os.name == "posix" and any(name in os.environ for name in LAUNCHED):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(130)


def main() -> int:
    """Run the command line and return its exit code."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if usual:
            signal.signal(signal.SIGINT, leave)
        from bptt.cli import main as run

        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        sys.stderr.write("bptt: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
