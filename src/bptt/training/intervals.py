"""What there is to do between two updates of a run, and how many updates may be made until then."""

from typing import NamedTuple

from bptt.config.defaults import Hyperparameters
from bptt.train_step.stepper import SYNC_EVERY
from bptt.train_step.update import TrainTask

GPU_FACTOR = 4  # times as many on a GPU, which would have nothing to do meanwhile
HISTORY_ROWS = 100  # of the history of a run, besides its measurements; more where WAITING asks for them
MAX_ROW_INTERVAL = 10_000  # updates at most from one row to the next: a checkpoint holds the numbers of each


class Due(NamedTuple):
    """What there is to do after an update."""

    ended: str  # why the session ends here; nothing: it does not
    measured: bool  # on what is held out
    logged: bool  # a row of the history is complete
    saved: bool


def due(task: TrainTask, step: int, first: int, signals: list[str]) -> Due:
    """What there is to do after update `step`, in a session that began after `first` updates and has had these signals."""
    plan = task.plan
    last = step == plan.steps
    ended = "" if last else signals[0] if signals else "paused" if step - first == task.settings.stop_after else ""
    measured = last or step % plan.evaluate_every == 0
    logged = measured or step % _row_every(plan) == 0
    return Due(ended, measured, logged, saved=last or step % plan.checkpoint_every == 0)


def updates_until_due(task: TrainTask, step: int, first: int) -> int:
    """How many updates there are after update `step` until something is due, or until the next look at the device."""
    plan, pause = task.plan, task.settings.stop_after
    periods = plan.evaluate_every, plan.checkpoint_every, _row_every(plan)
    until = [SYNC_EVERY, *(period - step % period for period in periods)]
    return min(until if pause is None else [*until, first + pause - step])


def max_unread_updates(task: TrainTask) -> int:
    """How many updates there may be from one look at their numbers to the next."""
    return SYNC_EVERY * GPU_FACTOR if task.backend.is_gpu else SYNC_EVERY


def out_of_patience(task: TrainTask, step: int, waited: int) -> str:
    """Why the run ends after so many measurements in which its loss has not fallen; nothing: it does not."""
    patience = task.settings.patience
    return "patience" if patience and waited >= patience and step != task.plan.steps else ""


def _row_every(plan: Hyperparameters) -> int:
    return max(1, min(MAX_ROW_INTERVAL, plan.steps // HISTORY_ROWS))
