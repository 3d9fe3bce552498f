"""The live panel of a training run in a terminal."""

import contextlib
import datetime
import math
import sys
import textwrap
import time
from typing import IO, TYPE_CHECKING, Any, Self

from bptt.display import plots
from bptt.display.text import printable

if TYPE_CHECKING:  # imported where it is used: every start of the command would pay for it
    from rich.console import Console, Group
    from rich.text import Text

OFTEN = 1 / 8  # seconds from one drawing to the next
RECENT = 10  # rows that say how fast a run is
TALLEST, SHORTEST = 12, 3  # lines of the curve
LINES = 4  # of samples


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


class Panel:
    """Heading, loss curve, progress and samples of a run of `steps` steps, on a console of `terminal`.

    Inside `with` its methods redraw it, eight times a second at most, never from another thread. However the block ends, the
    cursor is there again and the last panel stays on the screen.

    Raises:
        OSError: from the methods, where the terminal cannot be written to any more. The end of the block does not raise it.
    """

    def __init__(self, console: "Console", steps: int) -> None:
        from rich.live import Live

        self._console, self._steps, self._header = console, steps, ""
        self._history: list[dict[str, Any]] = []
        self._drawn = -math.inf
        self._live = Live(
            console=console,
            auto_refresh=False,
            redirect_stdout=_is_terminal(sys.stdout),  # what others print goes above the panel, or into their file
            redirect_stderr=_is_terminal(sys.stderr),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            try:
                self._live.update(self._view())
            finally:
                self._live.stop()  # draws once more

    def set_header(self, text: str) -> None:
        """Set the header: model and text, in one line or more."""
        self._header = text
        self._draw()

    def show(self, row: dict[str, Any]) -> None:
        """Add a row of the history: step, loss, rate, norm, seconds, characters; after an evaluation held_out, sample."""
        self._history.append(row)
        if time.monotonic() - self._drawn >= OFTEN:
            self._draw()

    def print_above(self, text: str) -> None:
        """Print lines above the panel, where they stay."""
        self._console.print(self._safe(text, "\n\t"), soft_wrap=True, markup=False, highlight=False, emoji=False)

    def _draw(self) -> None:
        self._live.start()  # does nothing from the second time on
        self._live.update(self._view(), refresh=True)
        self._drawn = time.monotonic()

    def _view(self) -> "Group":
        """Lay out the panel for the size of the terminal: the header is dropped first, then samples and curve."""
        from rich.console import Group

        width, height = self._console.width, max(1, self._console.height - 1)  # the cursor wants a line, too
        header = [part for line in self._header.splitlines() for part in self._wrapped(line, width)]
        texts: list[str] = next((row["sample"] for row in reversed(self._history) if row.get("sample")), [])
        samples = self._wrapped("  ".join(filter(str.strip, texts)), width)[:LINES]
        state = [self._bar(width), *map(self._text, _flow(_numbers(self._history, self._steps), width))]
        for above, below in (header, samples), ([], samples), ([], samples[:1]):
            room = height - len(above) - len(state) - len(below) - 1  # the last for the legend
            if room >= SHORTEST:
                break
        else:
            above, below = [], samples
        curve = self._curve(width, min(room, TALLEST)) if room >= SHORTEST else []
        return Group(*[*above, *curve, *state, *below][:height])

    def _curve(self, width: int, height: int) -> "list[Text]":
        lines = plots.text_chart(self._history, width, height, plain=self._console.options.ascii_only)
        if not lines:
            return []
        texts = [self._text(line.rstrip(), "cyan") for line in lines]
        for text in texts:
            text.highlight_words("o", "bold yellow")
        steps = f"steps {self._history[0]['step']:,} to {self._history[-1]['step']:,}"
        return [*texts, self._text(f"nats per character, {steps}, o: held out", "dim")]

    def _bar(self, width: int) -> "Text":
        step = self._history[-1]["step"] if self._history else 0
        share = min(1.0, step / max(1, self._steps))
        text = self._text(f"step {step:,}/{self._steps:,}  {int(100 * share)} %  ")
        room = max(0, width - len(text))
        done = int(share * room)
        full, empty = "#." if self._console.options.ascii_only else "█░"
        return text.append(full * done, "green").append(empty * (room - done), "dim")

    def _wrapped(self, line: str, width: int) -> "list[Text]":
        return list(self._text(line).wrap(self._console, width, no_wrap=False, overflow="fold")) if line else []

    def _text(self, line: str, style: str = "") -> "Text":
        """A line without markup, cut off at the edge of the terminal."""
        from rich.text import Text

        return Text(self._safe(line), style, no_wrap=True, overflow="crop")

    def _safe(self, text: str, fine: str = "") -> str:
        """Replace what the terminal cannot encode by ? and control characters by a space, except those of `fine`."""
        encoding = self._console.encoding
        return printable(text, fine).encode(encoding, "replace").decode(encoding)


def _numbers(history: list[dict[str, Any]], steps: int) -> list[str]:
    """Format the last row, the best evaluation and the speed."""
    if not history:
        return []
    row = history[-1]
    numbers = [f"loss {row['loss']:.4f}"]
    if measured := [row for row in history if row.get("held_out") is not None]:
        best = min(measured, key=lambda row: row["held_out"])
        numbers.append(f"held out {measured[-1]['held_out']:.4f}")
        numbers.append(f"best {best['held_out']:.4f} ({best['held_out'] / math.log(2):.4f} bits) at step {best['step']:,}")
    numbers += [f"rate {row['rate']:.3g}", f"gradient norm {row['norm']:.3g}"]
    before = history[-RECENT - 1] if len(history) > RECENT else {"seconds": 0.0, "characters": 0}
    if (seconds := row["seconds"] - before["seconds"]) > 0:
        numbers.append(f"{(row['characters'] - before['characters']) / seconds:,.0f} characters/s")
    if 0 < row["step"] < steps:
        left = row["seconds"] * (steps - row["step"]) / row["step"]
        numbers.append(f"{datetime.timedelta(seconds=round(left))} left")
    return numbers


def _flow(items: list[str], width: int) -> list[str]:
    """Wrap items into lines without breaking one."""
    text = "  ".join(item.replace(" ", "\xa0") for item in items)
    return [line.replace("\xa0", " ") for line in textwrap.wrap(text, width, break_long_words=False)]


def _is_terminal(stream: IO[str] | None) -> bool:
    """Whether a file is a terminal; without a console, standard output is None."""
    return stream is not None and stream.isatty()
