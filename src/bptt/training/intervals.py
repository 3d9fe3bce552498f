"""When to evaluate, log, save and stop early, and how many updates can be made until then."""

from typing import NamedTuple

from bptt.config.defaults import Hyperparameters
from bptt.train_step.state import TrainTask
from bptt.train_step.stepper import SYNC_EVERY

GPU_FACTOR = 4  # so many times more updates between two reads on a GPU, which is idle meanwhile
HISTORY_ROWS = 100  # rows in the history of a run besides those of evaluations; more where MAX_ROW_INTERVAL is shorter
MAX_ROW_INTERVAL = 10_000  # most updates between two rows: a checkpoint holds the numbers of each update since the last row


class Due(NamedTuple):
    """What is due after an update."""

    ended: str  # why the loop stops after it; empty if it goes on
    evaluate: bool
    log: bool  # a row of the history is complete
    save: bool  # a checkpoint


def due(task: TrainTask, step: int, first: int, signals: list[str]) -> Due:
    """What is due after update `step`, if training started or resumed after `first` updates and these signals came."""
    plan = task.plan
    last = step == plan.steps
    ended = "" if last else signals[0] if signals else "paused" if step - first == task.settings.stop_after else ""
    evaluate = last or step % plan.evaluate_every == 0
    log = evaluate or step % _row_every(plan) == 0
    return Due(ended, evaluate, log, save=last or step % plan.checkpoint_every == 0)


def updates_until_due(task: TrainTask, step: int, first: int) -> int:
    """The number of updates after update `step` until something is due or metrics are read."""
    plan, pause = task.plan, task.settings.stop_after
    periods = plan.evaluate_every, plan.checkpoint_every, _row_every(plan)
    until = [SYNC_EVERY, *(period - step % period for period in periods)]
    return min(until if pause is None else [*until, first + pause - step])


def max_unread_updates(task: TrainTask) -> int:
    """The largest number of updates whose metrics are not read from the device yet."""
    return SYNC_EVERY * GPU_FACTOR if task.backend.is_gpu else SYNC_EVERY


def out_of_patience(task: TrainTask, step: int, waited: int) -> str:
    """Early stopping: "patience" after as many evaluations without a lower validation loss as the settings say, else empty."""
    patience = task.settings.patience
    return "patience" if patience and waited >= patience and step != task.plan.steps else ""


def _row_every(plan: Hyperparameters) -> int:
    return max(1, min(MAX_ROW_INTERVAL, plan.steps // HISTORY_ROWS))
