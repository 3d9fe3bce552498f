"""`bptt train`."""

import contextlib
import signal
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bptt.cli.console import say
from bptt.cli.parser import Text, app
from bptt.run.settings import Settings, check
from bptt.run.training import fit


@app.command
def train(text: Text = "dinosaurs", /, *, settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> int:
    """Train a model on a text and save it.

    Parameters
    ----------
    text
        A file, - for standard input, or a built-in text: dinosaurs or python-help.
    settings
        One flag for each.
    """
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # keeps the best model, too
    trained = fit(text, check(settings), say, Path("runs"))
    if "unsaved" in trained.record:
        return 5
    return {"interrupted": 130, "diverged": 3}.get(trained.record["stopped"], 0)
