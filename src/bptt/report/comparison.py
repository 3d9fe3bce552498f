"""Several runs side by side: their best held-out losses, the settings that differ, and their curves as text or as a picture."""

import importlib.util
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np  # what is drawn is on the host

from bptt import errors
from bptt.checkpoint import run_summary
from bptt.checkpoint.store import RunRecords
from bptt.config.compatibility import complete_format_1
from bptt.config.settings import SETTING_NAMES
from bptt.display.cross_entropy import bits
from bptt.display.plots import BLUE, GREEN, ORANGE, VERMILION
from bptt.display.text import printable
from bptt.errors import CheckpointWarning, InputError
from bptt.export import common

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")  # of a picture, by the end of its name
# settings that do not change what is learnt, but where it is kept and how it is shown
NOT_COMPARED = {"out", "quiet", "json", "keep", "checkpoint_every", "stop_after", "require_backend", "distributed"}
COLOURS, STYLES = (BLUE, VERMILION, GREEN, ORANGE), ("-", "--", ":", "-.")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MEETING = "*"  # in a chart, where two curves meet


class Curve(NamedTuple):
    """The held-out loss of a run where it was measured."""

    label: str  # a letter for charts
    run: str
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    nats: tuple[float, ...]  # per held-out character


class Comparison(NamedTuple):
    """Several runs, in the order in which they were named."""

    runs: tuple[RunRecords, ...]
    curves: tuple[Curve, ...]
    settings: dict[str, tuple[str, ...]]  # those that differ, with their value in each run
    held_out_differs: tuple[str, ...]  # what of the held-out sets differs: without it, the losses compare


def read(places: Sequence[Path]) -> Comparison:
    """Read what the newest checkpoints of runs say of them.

    Raises:
        InputError: fewer than two runs or more than there are letters, or one that cannot be read.
    """
    if not 2 <= len(places) <= len(LETTERS):
        raise InputError(f"{len(places)} run{'s' * (len(places) != 1)}: expected 2 to {len(LETTERS)} runs to compare")
    runs = tuple(run_summary.read_run(place) for place in places)
    for place, run in zip(places, runs):
        if run.problem:
            errors.warn(f"{run.problem}; an older checkpoint of {place} is used instead", CheckpointWarning)
    curves = tuple(_curve(*pair) for pair in zip(LETTERS, places, runs))
    differing = {name: tuple(map(_shown, values)) for name, values in _differing([_settings(run) for run in runs]).items()}
    return Comparison(runs, curves, differing, tuple(_differing([_held_out_set(run) for run in runs])))


def chart(curves: Sequence[Curve], axis: str, width: int, height: int) -> list[str]:
    """Draw the losses over "steps" or "seconds" in `height` lines of `width` characters: nats on the left, bits on the right.

    Each curve is drawn in its letter. No lines where there is nothing to draw or no room.
    """
    curves = [curve for curve in curves if curve.nats]
    if not curves or height < 2:
        return []
    bottom, top = (bound(value for curve in curves for value in curve.nats) for bound in (min, max))
    left = [f"{top:.2f}", *[""] * (height - 2), f"{bottom:.2f}"]
    right = [f"{bits(top):.2f}", *[""] * (height - 2), f"{bits(bottom):.2f}"]
    margins = max(map(len, left)), max(map(len, right))
    columns = width - sum(margins) - 2
    if columns < 4:
        return []
    x = [np.array(getattr(curve, axis), np.float64) for curve in curves]
    first, last = min(float(values[0]) for values in x), max(float(values[-1]) for values in x)
    places = first + (last - first) * np.arange(columns) / (columns - 1)
    cells = [[" "] * columns for _ in range(height)]
    half = (last - first) / (columns - 1) / 2 or 1.0
    for curve, values in zip(curves, x):
        loss = np.interp(places, values, curve.nats)
        rows = np.rint((top - loss) / ((top - bottom) or 1.0) * (height - 1)).astype(int)
        for j in np.flatnonzero((places >= values[0] - half) & (places <= values[-1] + half)).tolist():
            cells[rows[j]][j] = curve.label if cells[rows[j]][j] == " " else MEETING
    lines = zip(left, cells, right)
    return [f"{nats:>{margins[0]}}|{''.join(line)}|{bit:>{margins[1]}}" for nats, line, bit in lines]


def check_picture(out: Path) -> None:
    """Raise an InputError if a picture cannot be written there."""
    if out.suffix.lower() not in FORMATS:
        raise InputError(f"{str(out)!r}: expected the name of a picture that ends in {' or '.join(FORMATS)}")
    if out.exists() and not out.is_file():  # a file would take the place of a device
        raise InputError(f"{str(out)!r} is no file: name one for the picture")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("a picture needs matplotlib, which is not installed: pip install 'bptt[plot]'")


def save_picture(curves: Sequence[Curve], out: Path) -> None:
    """Draw the losses over steps and over seconds as PNG or SVG; a file that is there is replaced.

    Raises:
        SaveError: it cannot be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    kind, file = out.suffix.lower().removeprefix("."), io.BytesIO()
    with style.context(["default", {"svg.hashsalt": "compare"}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a name may be in any script
        figure = Figure(figsize=(10, 4.5), dpi=100, layout="constrained")
        over_steps, over_seconds = figure.subplots(1, 2, sharey=True)
        for axes, axis in ((over_steps, "steps"), (over_seconds, "seconds")):
            _draw(axes, curves, axis)
        over_steps.set_ylabel("held-out loss (nats per character)")
        over_seconds.secondary_yaxis("right", functions=(lambda n: n / np.log(2), lambda b: b * np.log(2))).set_ylabel(
            "bits per character"
        )
        over_steps.legend(loc="upper right", fontsize=8)
        figure.savefig(file, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
    common.write_file(out, file.getvalue())


def _draw(axes: "Axes", curves: Sequence[Curve], axis: str) -> None:
    for number, curve in enumerate(curves):
        name = printable(curve.run)[-60:].replace("$", r"\$")  # which begins a formula
        style = STYLES[number // len(COLOURS) % len(STYLES)]
        axes.plot(
            getattr(curve, axis),
            curve.nats,
            style,
            color=COLOURS[number % len(COLOURS)],
            marker=".",
            label=f"{curve.label}  {name}",
        )
    axes.grid(linewidth=0.5, alpha=0.4)
    axes.set_xlabel(axis.removesuffix("s") if axis == "steps" else axis)


def _curve(label: str, place: Path, run: RunRecords) -> Curve:
    rows = [row for row in run.progress.history if row.get("held_out") is not None]
    steps, seconds, nats = (tuple(row[name] for row in rows) for name in ("step", "seconds", "held_out"))
    return Curve(label, str(place), steps, seconds, nats)


def _settings(run: RunRecords) -> dict[str, Any]:
    """The settings of a run and what was chosen by them, by a record that may hold anything."""
    settings, plan = (part if isinstance(part, dict) else {} for part in (run.record.get("settings"), run.record.get("plan")))
    known = complete_format_1({**settings, **plan})
    shape = {"cell": run.cell, "hidden": run.config.hidden, "layers": run.config.layers, "mode": run.mode}
    compared = {name: known[name] for name in SETTING_NAMES if name not in NOT_COMPARED and known.get(name) is not None}
    return {"text": run.record.get("text"), **compared, **shape}


def _held_out_set(run: RunRecords) -> dict[str, Any]:
    """What says which characters a run was measured on."""
    settings, file = _settings(run), run.record.get("validation")
    if isinstance(file, dict):
        return {"mode": run.mode, "validation file": file.get("sha256")}
    split = () if run.mode == "stream" else ("split_seed", "duplicates")  # of a stream the end is held out
    parts = {name.replace("_", " "): settings.get(name) for name in ("validation", *split)}
    return {"mode": run.mode, "text": run.record.get("sha256"), **parts}


def _differing(records: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The entries that are not the same in all records."""
    names = dict.fromkeys(name for record in records for name in record)
    values = {name: tuple(record.get(name) for record in records) for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else f"{printable(str(value)):.60}"
