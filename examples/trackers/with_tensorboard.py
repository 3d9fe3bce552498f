"""TensorBoard: the numbers of a run as curves. See them with: tensorboard --logdir logs."""

from tensorboard.summary import Writer

import bptt

writer = Writer("logs")


def log(event: bptt.Event) -> None:
    """Write each number of a row under its name."""
    for name, value in event.row.items():
        if event.kind in ("log", "evaluation") and isinstance(value, float):
            writer.add_scalar(name, value, step=event.step)


bptt.train("dinosaurs", steps=300, callbacks=[log])
writer.close()
