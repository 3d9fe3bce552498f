"""The loss on the validation set, measured in as many parts as a batch has micro-batches, divided among the processes."""

import math
from collections.abc import Callable, Iterator

from bptt.data import batches
from bptt.data.batches import Batch, Window
from bptt.data.dataset import VALIDATION_STREAMS, validation_windows
from bptt.inference.evaluation import Evaluation, batch_nats
from bptt.nn import model
from bptt.train_step import microbatches
from bptt.train_step.state import TrainTask


def parts(task: TrainTask) -> int:
    """The number of parts of the validation set: the micro-batches of a batch, at most the columns that there are."""
    return min(VALIDATION_STREAMS, task.settings.micro_batches)


def windows(task: TrainTask, part: int) -> Iterator[Window]:
    """The windows of a part of the validation set."""
    return microbatches.rank_windows(validation_windows(task.data), parts(task), part)


def reader(task: TrainTask) -> Callable[[Window], Batch]:
    """Return the function that makes the batches of the validation set; those of a file have ids of their own."""
    ids = task.data.validation.ids
    if ids is task.data.training.ids:
        return task.read
    return batches.batch_reader(ids, task.backend)


def evaluate(task: TrainTask, params: model.Params) -> Evaluation:
    """The cross-entropy of a model on the validation set; all processes of the group call this."""
    group, count, read = task.group, parts(task), reader(task)
    rank_parts = range(group.rank, count, group.size)
    sums = [batch_nats(task.config, params, task.backend, map(read, windows(task, part))) for part in rank_parts]
    all_sums = [part for process in group.all_gather(sums) for part in process]
    return Evaluation(math.fsum(nats for losses, _ in all_sums for nats in losses), sum(targets for _, targets in all_sums))
