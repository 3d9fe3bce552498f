"""Output of the command line: results on standard output, one line for each problem on standard error."""

import codecs
import contextlib
import io
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from bptt.display.text import printable

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]  # mypy takes the names for modules

MAX_LINE = 2000  # characters of a problem, of which a longer one loses its middle


def replace_unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode a name of a file as the bytes that it was read from, and what else an encoding lacks as ?, for `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    if error.encoding == "utf-8" and all("\udc80" <= character <= "\udcff" for character in part):
        return part.encode("utf-8", "surrogateescape"), error.end
    return "?" * len(part), error.end


codecs.register_error("bptt", replace_unencodable)


class Output:
    """Standard output that never raises an OSError: where it cannot be written, the rest is discarded and `error` is set.

    So a training outlives a reader that leaves, as `head` does, and a full disk.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: TextIO = stream or io.StringIO()  # None: a program without a console
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write to the stream, or discard the text."""
        with self._discarding():
            self._stream.write(text)
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are to the stream, or discard them."""
        with self._discarding():
            self._stream.flush()
            self._stream.buffer.write(data)

    def flush(self) -> None:
        """Flush the stream, or discard its buffer."""
        with self._discarding():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Everything else, such as `isatty` and `encoding`, is that of the stream."""
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            with open(os.devnull, "wb") as nowhere:  # the buffer goes there, too
                os.dup2(nowhere.fileno(), self._stream.fileno())


def print_line(text: str, end: str = "\n") -> bool:
    """Print at once; False if nobody reads it, because standard output cannot be written any more.

    On a terminal, control characters become spaces: what a file holds, or its name, could move the cursor or set a title.
    """
    print(printable(text, "\n\t") if sys.stdout and sys.stdout.isatty() else text, end=end, flush=True)
    return getattr(sys.stdout, "error", None) is None


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are."""
    if isinstance(sys.stdout, Output):
        sys.stdout.write_bytes(data)


def complain(line: str, code: int = 0) -> int:
    """Print one line on standard error and return the exit code."""
    line = " ".join(line.split())
    line = line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} ... {line[-MAX_LINE // 2 :]}"
    with contextlib.suppress(OSError, AttributeError):  # sys.stderr is None where the caller closed it, and print takes stdout
        sys.stderr.write(f"bptt: {printable(line)}\n")
    return code


def input_waits() -> bool:
    """Whether standard input is a pipe with something in it; False where the system does not tell without a wait."""
    try:
        descriptor = sys.stdin.fileno()
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode) and any(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except (OSError, ValueError, AttributeError):  # AttributeError: no standard input, or Windows
        return False


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line, without the line of code that it comes from."""
    complain(f"warning: {message}")


def quoted(symbol: str) -> str:
    """Quote a character, with a name for one that cannot be seen."""
    return repr(symbol) if len(symbol) == 1 else f"'{symbol}'"
