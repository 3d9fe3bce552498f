"""Weights & Biases without an account: the numbers of a run in the folder wandb. Upload them with: wandb sync --sync-all.

WANDB_ERROR_REPORTING=false in the environment keeps it off the network until then.
"""

import wandb

import bptt

run = wandb.init(project="bptt", mode="offline")


def log(event: bptt.Event) -> None:
    """Log the settings at the start, then the numbers of each row."""
    if event.kind == "start":
        run.config.update(event.settings)
    elif event.kind in ("log", "evaluation"):
        run.log({name: value for name, value in event.row.items() if isinstance(value, float)}, step=event.step)


model = bptt.train("dinosaurs", steps=300, callbacks=[log])
run.summary["validation_loss"] = model.record["held_out"]
run.finish()
