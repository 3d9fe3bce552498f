"""How well the model of a run predicts what is held out, measured in as many parts as a batch has, or by as many processes."""

import math
from collections.abc import Iterator

from bptt.data.batches import Window
from bptt.data.dataset import VALIDATION_STREAMS, validation_windows
from bptt.inference.evaluation import Evaluation, batch_nats
from bptt.nn import model
from bptt.train_step import microbatches
from bptt.train_step.update import TrainTask


def parts(task: TrainTask) -> int:
    """How many parts the columns of what is held out are dealt out in: those of a batch, but no more than there are columns."""
    return min(VALIDATION_STREAMS, task.settings.micro_batches)


def windows(task: TrainTask, part: int) -> Iterator[Window]:
    """The windows of a part."""
    return microbatches.rank_windows(validation_windows(task.data), parts(task), part)


def evaluate(task: TrainTask, params: model.Params) -> Evaluation:
    """The cross-entropy of a model on what is held out; every process that trains with this one has to call it."""
    group, count = task.group, parts(task)
    rank_parts = range(group.rank, count, group.size)
    sums = [batch_nats(task.config, params, task.backend, map(task.read, windows(task, part))) for part in rank_parts]
    all_sums = [part for process in group.all_gather(sums) for part in process]
    return Evaluation(math.fsum(nats for losses, _ in all_sums for nats in losses), sum(targets for _, targets in all_sums))
