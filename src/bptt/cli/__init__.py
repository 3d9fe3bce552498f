"""The command line of bptt; bad input is one line on standard error and exit code 2."""

import contextlib
import io
import re
import sys
import warnings

from cyclopts import CycloptsError

from bptt.cli import help
from bptt.cli.console import Output, complain, warn
from bptt.cli.parser import explain, parse
from bptt.distributed.launcher import launched_processes
from bptt.errors import BpttWarning, Diverged, InputError, OutOfMemory, SaveError, SharedError, command_line
from bptt.training import signals


def main(arguments: list[str] | None = None, began: float | None = None) -> int:
    """Run the command line and return its exit code; `began` is when the process began, by `time.perf_counter`.

    0, 1 for gradients that `bptt check` finds wrong, 2 for bad input or output that cannot be written, 3 for a diverged run,
    4 for too little memory, 5 for a run that could not be saved, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 138
    after SIGUSR1, 149 after Ctrl-Break on Windows.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a console that cannot print a character shows ? in its place; files and pipes get UTF-8 in any locale
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="bptt")
    output = Output(sys.stdout)
    words = sys.argv[1:] if arguments is None else arguments
    ending = contextlib.nullcontext() if words[:1] == ["train"] else signals.exit_on_termination()  # a run saves first
    with warnings.catch_warnings(), contextlib.redirect_stdout(output), ending, help.layout(words), command_line():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, on overflow: what is not finite in the end is an error
        warnings.simplefilter("always", BpttWarning)
        warnings.simplefilter("ignore", append=True)  # of other packages, unless python -W or PYTHONWARNINGS asks for them
        warnings.showwarning = warn
        code = attempt(arguments, began)
    output.flush()
    if output.error is None or isinstance(output.error, BrokenPipeError):
        return code
    return complain(f"cannot write to standard output: {output.error.strerror or output.error}", code or 2)


def attempt(arguments: list[str] | None, began: float | None = None) -> int:
    """Run a command and return its exit code; every error is one line."""
    try:
        return int(parse(arguments, began)() or 0)
    except Diverged as error:
        return _refused(error, 3)
    except InputError as error:
        return _refused(error, 5 if isinstance(error, SaveError) else 2)
    except CycloptsError as error:
        return _refused(_of_all(InputError(explain(error, sys.argv[1:] if arguments is None else arguments)), arguments), 2)
    except MemoryError as error:
        lower = "try a smaller --hidden, --layers, --batch, --length or --count"
        return complain(str(error) if isinstance(error, OutOfMemory) else f"out of memory: {error}: {lower}", 4)
    except KeyboardInterrupt as error:
        code = complain(str(error) or "interrupted", 130)
        if launched_processes() > 1:  # the others may not have met this process yet, and would wait for it
            signals.die_by_interrupt()
        return code
    except OSError as error:
        return complain(str(error), 2)


def _of_all(error: InputError, arguments: list[str] | None) -> InputError:
    """Return the error of a command line as all processes of a launcher raise it."""
    words = sys.argv[1:] if arguments is None else arguments
    alone = re.search(r"--distributed[= ](false|no|n|f|0)\b", " ".join(words).lower()) is not None
    if words[:1] != ["train"]:
        return error
    from bptt.training import launch  # which imports all of the training

    return launch.error_for_all(error, alone=alone)


def _refused(error: SharedError, code: int) -> int:
    """Print an error, if no other process does, and return the exit code."""
    return code if error.rank > 0 else complain(str(error), code)
