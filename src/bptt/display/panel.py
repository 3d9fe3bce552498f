"""The live panel of a training run in a terminal."""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, Self

from bptt.display import plots
from bptt.display.cross_entropy import bits
from bptt.display.text import printable

if TYPE_CHECKING:  # imported where it is used: every start of the command would pay for it
    from rich.console import Console, Group
    from rich.text import Text

OFTEN = SPIN = 1 / 8  # seconds from one drawing to the next: of rows, of the spinner
RECENT = 10  # rows that say how fast a run is
TALLEST, SHORTEST = 12, 3  # lines of the curve
LINES = 6  # of samples
INDENT = 7  # of a line of the header that goes on: the width of its labels
LEGEND = ("loss in nats per character", "o: held out")


def terminal(file: IO[str] | None = None) -> "Console | None":
    """Return a console on `file` or standard output; None if that is not a terminal, or a dumb one."""
    file = file or sys.stdout
    if not _is_terminal(file):  # whatever FORCE_COLOR says
        return None
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:  # while a BrokenPipeError is handled; rich would end the process
            raise

    console = Terminal(file=file)
    return console if console.is_interactive else None


class Spinner(threading.Thread):
    """A thread that calls a function eight times a second, until it is stopped or the function fails."""

    def __init__(self, draw: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._draw, self._stopped = draw, threading.Event()

    def run(self) -> None:
        """Draw; the methods of the panel raise the error of a terminal that is lost."""
        with contextlib.suppress(OSError):
            while not self._stopped.wait(SPIN):
                self._draw()

    def stop(self) -> None:
        """Return when the last drawing is done."""
        self._stopped.set()
        self.join()


class Panel:
    """Loss curve, progress, time and samples of a run, on a console of `terminal`; its header stands above.

    Inside `with` the methods redraw it, eight times a second at most; another thread draws only while kernels compile. However
    the block ends, the cursor is there again and the last panel stays on the screen.

    Raises:
        OSError: from the methods, where the terminal cannot be written to any more. The end of the block does not raise it.
    """

    def __init__(self, console: "Console", steps: int = 0) -> None:
        from rich.live import Live

        self._console, self._steps = console, steps
        self._history: list[dict[str, Any]] = []
        self._last: dict[str, Any] = {}  # row
        self._drawn = -math.inf
        self._waiting, self._wait_start = "", 0.0  # for what, and since when
        self._spinner: Spinner | None = None
        self._ended = False
        self._live = Live(
            console=console,
            auto_refresh=False,
            redirect_stdout=_is_terminal(sys.stdout),  # what others print goes above the panel, or into their file
            redirect_stderr=_is_terminal(sys.stderr),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_waiting()
        self._ended = True
        with contextlib.suppress(OSError):
            try:
                self._live.update(self._view())
            finally:
                self._live.stop()  # draws once more

    def start(self, header: str, steps: int) -> None:
        """Print the header, model and text in one line or more, above the panel of a run of so many steps."""
        from rich.text import Text

        self._stop_waiting()
        width = self._console.width
        indent = INDENT if width > 2 * INDENT else 0
        for line in header.splitlines():
            first, *others = self._wrapped(line, width - indent)
            self._console.print(first, *(Text(" " * indent).append(part) for part in others), sep="\n")
        self._steps = steps
        self._draw()

    def wait(self, text: str) -> None:
        """Show a spinner and what the run waits for, until the next call."""
        self._stop_waiting()
        self._waiting, self._wait_start = text, time.monotonic()
        self._draw()
        self._spinner = Spinner(self._draw)
        self._spinner.start()

    def show(self, row: dict[str, Any], *, log: bool = True) -> None:
        """Show a row: step, loss, rate, norm, seconds, characters; after an evaluation held_out, sample.

        A row of the log is also a point of the curve.
        """
        self._stop_waiting()
        self._last = row
        if log:
            self._history.append(row)
        if time.monotonic() - self._drawn >= OFTEN:
            self._draw()

    def print_above(self, text: str) -> None:
        """Print lines above the panel, where they stay."""
        self._console.print(self._safe(text, "\n\t"), soft_wrap=True, markup=False, highlight=False, emoji=False)

    def _stop_waiting(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        self._spinner, self._waiting = None, ""

    def _draw(self) -> None:
        self._live.start()  # does nothing from the second time on
        self._live.update(self._view(), refresh=True)
        self._drawn = time.monotonic()

    def _view(self) -> "Group":
        """Lay out the panel for the size of the terminal: where it is low, samples are dropped first, then the curve."""
        from rich.console import Group

        width, height = self._console.width, max(1, self._console.height - 1)  # the cursor wants a line, too
        state = [self._bar(width)] if self._steps or self._history else []
        if self._waiting:
            state += self._flow(self._waiting_items(), width)
        for items in _numbers(self._history, self._last, self._steps, ended=self._ended):
            state += self._flow(items, width)
        samples = self._samples(width)
        legend = len(self._flow(LEGEND, width))
        for below in (samples, samples[:1], []):
            room = height - len(state) - len(below) - legend
            if room >= SHORTEST:
                break
        else:
            below = samples
        curve = self._curve(width, min(room, TALLEST)) if room >= SHORTEST else []
        return Group(*[*curve, *state, *below][:height])

    def _curve(self, width: int, height: int) -> "list[Text]":
        lines = plots.text_chart(self._history, width, height, plain=self._console.options.ascii_only)
        if not lines:
            return []
        texts = [self._text(line.rstrip(), "cyan") for line in lines]
        for text in texts:
            text.highlight_words("o", "bold yellow")
        return [*texts, *self._flow(LEGEND, width, "dim")]

    def _samples(self, width: int) -> "list[Text]":
        """The texts of the last evaluation that there is room for."""
        row = next((row for row in reversed(self._history) if row.get("sample")), None)
        if row is None:
            return []
        return self._flow([f"samples at step {row['step']:,}:", *filter(str.strip, row["sample"])], width)[:LINES]

    def _bar(self, width: int) -> "Text":
        step = self._last.get("step", 0)
        share = min(1.0, step / max(1, self._steps))
        text = self._text(f"step {step:,}/{self._steps:,}  {int(100 * share)} %  ")
        room = max(0, width - len(text))
        done = int(share * room)
        full, empty = "#." if self._console.options.ascii_only else "█░"
        return text.append(full * done, "green").append(empty * (room - done), "dim")

    def _waiting_items(self) -> list[str]:
        seconds = time.monotonic() - self._wait_start
        marks = "|/-\\" if self._console.options.ascii_only else "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
        return [f"{marks[int(seconds / SPIN) % len(marks)]} {self._waiting}", f"{_clock(seconds)} so far"]

    def _flow(self, items: Iterable[str], width: int, style: str = "") -> "list[Text]":
        """Fill lines with items, and break only an item that is longer than a line."""
        from rich.cells import cell_len

        lines = list[str]()
        for item in map(self._safe, items):
            if lines and cell_len(longer := f"{lines[-1]}  {item}") <= width:
                lines[-1] = longer
            else:
                lines.append(item)
        return [part for line in lines for part in self._wrapped(line, width, style)]

    def _wrapped(self, line: str, width: int, style: str = "") -> "list[Text]":
        return list(self._text(line, style).wrap(self._console, width, no_wrap=False, overflow="fold")) if line else []

    def _text(self, line: str, style: str = "") -> "Text":
        """A line without markup, cut off at the edge of the terminal."""
        from rich.text import Text

        return Text(self._safe(line), style, no_wrap=True, overflow="crop")

    def _safe(self, text: str, fine: str = "") -> str:
        """Replace what the terminal cannot encode by ? and control characters by a space, except those of `fine`."""
        encoding = self._console.encoding
        return printable(text, fine).encode(encoding, "replace").decode(encoding)


def _numbers(history: list[dict[str, Any]], last: dict[str, Any], steps: int, *, ended: bool) -> list[list[str]]:
    """Format the last row, the best evaluation, time and speed: what belongs in a line each."""
    if not last:
        return []
    losses = [f"loss {last['loss']:.4f}"]
    if measured := [row for row in history if row.get("held_out") is not None]:
        best = min(measured, key=lambda row: row["held_out"])
        now, lowest = (f"{row['held_out']:.4f} ({bits(row['held_out']):.2f} bits)" for row in (measured[-1], best))
        losses += [f"held out {now}", f"best {lowest} at step {best['step']:,}"]
    times = [f"{_clock(last['seconds'])} elapsed"]
    before = history[-RECENT - 1] if len(history) > RECENT else {"seconds": 0.0, "characters": 0, "step": 0}
    if (seconds := last["seconds"] - before["seconds"]) > 0 and last["step"] > before["step"]:
        speed = (last["step"] - before["step"]) / seconds
        if last["step"] < steps and not ended:
            times.append(f"about {_clock((steps - last['step']) / speed)} left")
        times.append(f"{speed:,.{0 if speed >= 10 else 2}f} steps/s")
        times.append(f"{(last['characters'] - before['characters']) / seconds:,.0f} characters/s")
    others = [f"rate {last['rate']:.3g}", f"gradient norm {last['norm']:.3g}"]
    if last["step"] < steps and not ended:
        others.append("Ctrl-C stops and saves")
    return [losses, times, others]


def _clock(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _is_terminal(stream: IO[str] | None) -> bool:
    """Whether a file is a terminal; without a console, standard output is None."""
    return stream is not None and stream.isatty()
