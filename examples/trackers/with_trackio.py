"""Trackio: the numbers of a run in a database on this machine. See them with: trackio show --project bptt."""

import trackio

import bptt


def log(event: bptt.Event) -> None:
    """Begin with the settings, log the numbers of each row, and finish."""
    if event.kind == "start":
        trackio.init(project="bptt", config=event.settings)
    elif event.kind in ("log", "evaluation"):
        trackio.log({name: value for name, value in event.row.items() if isinstance(value, float)}, step=event.step)
    elif event.kind == "end":
        trackio.finish()


bptt.train("dinosaurs", steps=300, callbacks=[log])
