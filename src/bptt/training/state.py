"""What the training loop works on: what stays the same, and where the run stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bptt.checkpoint.format import Progress
from bptt.inference.language_model import LanguageModel
from bptt.train_step.update import TrainState, TrainTask

Reporter = Callable[[str, dict[str, Any]], None]  # gets a message for people, or "", and the same as values for programs


class RunContext(NamedTuple):
    """What stays the same while the training loop runs."""

    task: TrainTask
    record: dict[str, Any]  # of every model to come, besides where it stood
    folder: Path | None
    report: Reporter


class LoopState(NamedTuple):
    """Where the training loop stands, and why it ended."""

    state: TrainState
    progress: Progress
    best: LanguageModel | None = None  # so far, where it is at hand
    ended: str = ""  # empty: by itself; "patience", "paused", the name of a signal, "diverged", "unsaved" or "failed"
    error: BaseException | None = None
