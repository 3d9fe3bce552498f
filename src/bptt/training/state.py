"""The context and the state of the training loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bptt.checkpoint.format import Progress
from bptt.inference.language_model import LanguageModel
from bptt.train_step.state import StepMetrics, TrainState, TrainTask

Reporter = Callable[[str, dict[str, Any]], None]  # gets a message for people, or "", and the same as JSON values for programs


class RunContext(NamedTuple):
    """What stays the same while the training loop runs."""

    task: TrainTask
    record: dict[str, Any]  # what every checkpoint says of the run
    folder: Path | None  # None: everything stays in memory
    report: Reporter
    callbacks: tuple[Callable[[Any], object], ...] = ()  # see `events.Callback`; of process 0 alone


class LoopState(NamedTuple):
    """Where the training loop stands, and why it ended."""

    state: TrainState
    progress: Progress
    best: LanguageModel | None = None  # the best model so far, if it is in memory
    # empty: by itself; "patience", "callback", "paused", the name of a signal, "diverged", "unsaved" or "failed"
    ended: str = ""
    error: BaseException | None = None
    unread: tuple[StepMetrics, ...] = ()  # of the last updates, not read from the device yet
