"""The history of a training run: its numbers by name, as a picture, as a table of pandas, and in a notebook."""

import contextlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt import files
from bptt.backend import HostArray
from bptt.checkpoint import run_folder
from bptt.checkpoint.format import check_row
from bptt.display import html, plots
from bptt.display.notebook import in_notebook
from bptt.errors import InputError, InvalidFile

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

MAX_BYTES = 1 << 27  # of a file of metrics that is read; a run writes some hundred rows


@dataclass(frozen=True, repr=False, eq=False)
class History:
    """The numbers of a training run, an array (N,) each with an element for each of its N rows.

    A row holds the mean loss and the largest gradient norm of the updates since the row before. Losses are in nats per
    character. `len(history)` is N.
    """

    step: HostArray  # number of updates so far
    seconds: HostArray  # seconds of training so far
    characters: HostArray  # number of characters trained on so far
    loss: HostArray  # mean training loss
    validation_loss: HostArray  # NaN in rows without an evaluation
    learning_rate: HostArray  # that of the last update
    gradient_norm: HostArray  # largest norm, before clipping
    rows: tuple[dict[str, Any], ...]  # the lines of metrics.jsonl, with the samples of each evaluation

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def plot(self) -> "Figure":
        """Draw losses, learning rate and gradient norm over the steps, as a figure of matplotlib.

        Raises:
            InputError: matplotlib is not installed, or there are no rows.
        """
        _need("plot", "matplotlib", "pip install 'bptt[plot]'")
        if not self.rows:
            raise InputError("history.plot: the history is empty, for this model was saved without its run: load the run")
        from matplotlib.figure import Figure

        if in_notebook():
            from matplotlib import pyplot

            pyplot.switch_backend(pyplot.get_backend())  # loads the one that shows figures as pictures
        figure = Figure(figsize=(9, 9), layout="constrained")
        panels = list(figure.subplots(3, sharex=True, height_ratios=(2, 1, 1)))
        plots.label_curves(panels)
        plots.draw_curves(panels, list(self.rows), None)
        panels[-1].set_xlabel("step")
        return figure

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a table of pandas with a column for each array.

        Raises:
            InputError: pandas is not installed.
        """
        _need("to_pandas", "pandas", "pip install pandas")
        import pandas

        return pandas.DataFrame(self._columns())

    def _columns(self) -> dict[str, HostArray]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "rows"}

    def __repr__(self) -> str:
        """How many rows, up to which step, and the last losses."""
        if not self.rows:
            return "<bptt.History: no rows>"
        measured = self.validation_loss[np.isfinite(self.validation_loss)]
        validation = f", lowest validation loss {measured.min():.4f}" if len(measured) else ""
        return f"<bptt.History: {len(self)} rows to step {self.step[-1]}, loss {self.loss[-1]:.4f}{validation}>"

    def _repr_html_(self) -> str:
        """The losses as a chart, for notebooks."""
        return html.card(repr(self).strip("<>"), (), html.loss_chart(self.rows))


def from_rows(rows: Iterable[dict[str, Any]]) -> History:
    """The history that these rows of `metrics.jsonl` make up."""
    rows = tuple(rows)

    def column(name: str, dtype: type = np.float64) -> HostArray:
        return np.array([row.get(name, np.nan) for row in rows], dtype)

    return History(
        step=column("step", np.int64),
        seconds=column("seconds"),
        characters=column("characters", np.int64),
        loss=column("loss"),
        validation_loss=column("held_out"),
        learning_rate=column("rate"),
        gradient_norm=column("norm"),
        rows=rows,
    )


def read(folder: Path) -> tuple[dict[str, Any], ...]:
    """The rows in the `metrics.jsonl` of a run; those that are torn, forged or out of order are left out."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(InvalidFile, OSError), files.open_regular(folder / run_folder.METRICS) as file:
        while file.tell() < MAX_BYTES and 0 < len(line := file.readline(run_folder.MAX_ROW_BYTES)):
            with contextlib.suppress(InvalidFile):
                row = check_row(files.parse_json(line, len(line)))
                if not rows or rows[-1]["step"] < row["step"]:
                    rows.append(row)
    return tuple(rows)


def _need(method: str, package: str, remedy: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"history.{method} needs {package}, which is not installed: {remedy}")
