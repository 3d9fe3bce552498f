"""Dynamic evaluation: the model keeps learning from the text that it predicts, each segment after it has been scored.

Krause et al. (2018, arXiv 1709.07432) and (2019, arXiv 1904.08378): the text is scored in order, segment by segment. After a
segment has been scored, the weights take a step against its gradient, divided by the root mean square of the gradients (RMS),
and decay towards the saved ones. No character is predicted with weights that have seen it.

The papers take the mean squares from the training text. Here they are those of the segments so far, since the training text
may be gone: with g the gradient of a segment and d the deviation of the weights from the saved ones,

    v = beta2 v + (1 - beta2) g^2
    d = (1 - DECAY) d - LEARNING_RATE g / (sqrt(v / (1 - beta2^t)) + eps)

which is Adam without momentum, applied to the deviation, with decoupled weight decay.
"""

import math
from collections.abc import Iterator

import numpy as np

from bptt import acceleration
from bptt.backend import Array, Backend, namespace
from bptt.data import batches
from bptt.data.batches import Window
from bptt.data.sequences import Sequences
from bptt.errors import Diverged
from bptt.inference.evaluation import Evaluation
from bptt.nn import gradient, model, optimizers, tree

# chosen on the validation parts of bench/dynamic_evaluation.py
SEGMENT = 64  # characters between two steps, at most
LEARNING_RATE = 1e-3
DECAY = 1e-3  # share of the deviation that each step takes back
NO_MOMENTUM = 1e-9  # beta1 of Adam, which has to be above 0


def segments(sequences: Sequences) -> Iterator[Window]:
    """The windows of the segments, in the order of the text, every target in exactly one.

    A stream is split into windows of `SEGMENT` characters. Lines stand side by side as long as they have so many targets
    together; a longer line is split like a stream.
    """
    ends = np.cumsum(sequences.lengths, dtype=np.int64)
    first = 0
    while first < len(sequences):
        targets_before = int(ends[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(ends, targets_before + SEGMENT, side="right")))
        yield from batches.windows(sequences[first:end], SEGMENT)
        first = end


def evaluate(config: model.Config, params: model.Params, backend: Backend, sequences: Sequences) -> Evaluation:
    """The cross-entropy of a model that learns from each segment of a text once it is scored; `params` stay as they are.

    Raises:
        Diverged: a loss that is not finite.
    """
    saved = tree.ravel(params)  # (P,): a copy
    deviation = namespace(saved).zeros_like(saved)  # (P,)
    opt_state, states = optimizers.init_adam(saved), None
    nats: list[Array] = []
    characters = 0
    with acceleration.gradient_kernels(config, backend):
        for batch in map(batches.batch_reader(sequences.ids, backend), segments(sequences)):
            # 1. Score the segment, and compute the gradient of the same loss
            start = None if batch.window.start else states
            mean, grad, states = gradient.loss_and_grad(
                saved + deviation, config, batch.x, batch.y, batch.mask, start, (), None
            )

            # 2. Learn from it, for the segments that follow
            deviation, opt_state = optimizers.adam(
                deviation, grad, opt_state, LEARNING_RATE, beta1=NO_MOMENTUM, weight_decay=DECAY / LEARNING_RATE
            )
            nats.append(mean * batch.window.targets)
            characters += batch.window.targets
    total = math.fsum(backend.get(backend.xp.stack(nats)).tolist())  # one look at the device
    if not math.isfinite(total):
        raise Diverged("dynamic evaluation: the loss is not a finite number: evaluate the model without it")
    return Evaluation(total, characters)
