"""Progress of a training run in the output of a notebook cell."""

import datetime
import math
import sys
import time
from typing import Any

from bptt.display import html
from bptt.display.text import print_safe

REDRAW_SECONDS = 0.25  # least time between two drawings


def in_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class ProgressDisplay:
    """What a run reports, in one output that is updated: its header, progress, remaining time, losses and last message."""

    def __init__(self) -> None:
        self._steps, self._header, self._message = 0, "", ""
        self._rows: list[dict[str, Any]] = []
        self._handle: Any = None  # of IPython's display, once the run has started
        self._drawn = -math.inf

    def report(self, text: str, row: dict[str, Any]) -> None:
        """Show a message and a row of numbers of the run; before its start, print the message."""
        event = row.get("event")
        if event in ("start", "resume"):
            self._steps, self._header = row["record"]["plan"]["steps"], text
            self._rows += row.get("history", ())
        elif self._handle is None:
            if text:
                print_safe(text)
            return
        else:
            self._message = text or self._message
            if event in ("log", "measurement"):
                self._rows.append(row)
        if event not in ("log", "measurement") or time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw(ended=event == "end")

    def _draw(self, *, ended: bool) -> None:
        from IPython.display import display

        step = self._rows[-1]["step"] if self._rows else 0
        data = {"text/plain": self._message or self._header, "text/html": self._html(step, ended=ended)}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
        self._drawn = time.monotonic()

    def _html(self, step: int, *, ended: bool) -> str:
        numbers = [f"step {step:,} of {self._steps:,}"]
        if 0 < step < self._steps and not ended:
            left = self._rows[-1]["seconds"] * (self._steps - step) / step
            numbers.append(f"{datetime.timedelta(seconds=round(left))} left")
        bar = f'<progress value="{step}" max="{self._steps}" style="width:60%"></progress> {html.escape(", ".join(numbers))}'
        return (
            f"<div>{html.preformatted(self._header)}{bar}{html.card('', (), html.loss_chart(self._rows))}"
            f"{html.preformatted(self._message)}</div>"
        )
