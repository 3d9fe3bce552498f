"""The command `bptt compare`."""

import json as json_
import shutil
from pathlib import Path

from bptt.cli.console import print_line, warn
from bptt.cli.parser import Json
from bptt.display import table
from bptt.display.cross_entropy import bits
from bptt.display.text import printable
from bptt.report import comparison
from bptt.report.comparison import Comparison, Curve

CHART_WIDTH, CHART_HEIGHT = 80, 10  # columns at most, and lines
HEADS = ("run", "nats", "bits", "at step", "after", "steps", "seconds")


def compare(*runs: Path, out: Path | None = None, as_json: Json = False) -> int:  # noqa: D417
    """Compare runs: best held-out nats and bits, the settings that differ, and curves over steps and seconds.

    Losses on different held-out texts cannot be compared: a warning says where they differ.

    Parameters
    ----------
    runs
        Two or more runs, or checkpoints of runs.
    out
        Picture of the curves to write or replace, .png or .svg (pip install 'bptt[plot]'). By default none.
    """
    if out is not None:
        comparison.check_picture(out)
    compared = comparison.read(runs)
    if compared.held_out_differs:
        differing = ", ".join(compared.held_out_differs)
        warn(f"these runs have different held-out sets (they differ in: {differing}): their losses cannot be compared")
    if out is not None:
        comparison.save_picture(compared.curves, out)
    if as_json:
        for number in range(len(runs)):
            print_line(json_.dumps(_fields(compared, number)))
        return 0
    width = table.columns()
    print_line("\n".join(table.lay_out(HEADS, [_row(compared, number) for number in range(len(runs))], "lrrrrrr", width)))
    if compared.settings:
        heads = ("setting", *(curve.label for curve in compared.curves))
        rows = [(name, *values) for name, values in compared.settings.items()]
        print_line("\n" + "\n".join(table.lay_out(heads, rows, "l" * len(heads), width)))
    for axis in ("steps", "seconds"):
        _print_chart(compared.curves, axis)
    if out is not None:
        print_line(f"\nwritten: {printable(str(out))}")
    return 0


def _print_chart(curves: tuple[Curve, ...], axis: str) -> None:
    """Print the curves over steps or seconds, if there are any, with a line about both axes."""
    width = min(shutil.get_terminal_size((CHART_WIDTH, 24)).columns, CHART_WIDTH)
    lines = comparison.chart(curves, axis, width, CHART_HEIGHT)
    if lines:
        places = [place for curve in curves for place in getattr(curve, axis)]
        first, last = (f"{place:,}" if axis == "steps" else f"{place:,.1f}" for place in (min(places), max(places)))
        legend = f"held-out nats (left) and bits (right), {axis} {first} to {last}"
        print_line("\n" + "\n".join([*lines, *table.wrap(legend, width, indent="")]))


def _row(compared: Comparison, number: int) -> tuple[str, ...]:
    """The cells of a run; empty where it was not measured."""
    curve, progress = compared.curves[number], compared.runs[number].progress
    step, nats = progress.best or (None, None)
    after = _seconds_to_best(curve, step)
    return (
        f"{curve.label} {printable(curve.run)}",
        "" if nats is None else f"{nats:.4f}",
        "" if nats is None else f"{bits(nats):.4f}",
        "" if step is None else f"{step:,}",
        "" if after is None else f"{after:,.1f} s",
        f"{progress.step:,}",
        f"{progress.seconds:,.1f}",
    )


def _seconds_to_best(curve: Curve, step: int | None) -> float | None:
    """After how many seconds the best loss was measured; None where the history does not have its row."""
    return next((seconds for at, seconds in zip(curve.steps, curve.seconds) if at == step), None)


def _fields(compared: Comparison, number: int) -> dict[str, object]:
    """What JSON says of a run."""
    curve, progress = compared.curves[number], compared.runs[number].progress
    step, nats = progress.best or (None, None)
    return {
        "run": curve.run,
        "comparable": not compared.held_out_differs,
        "best_step": step,
        "nats_per_char": nats,
        "bits_per_char": None if nats is None else bits(nats),
        "seconds_to_best": _seconds_to_best(curve, step),
        "step": progress.step,
        "seconds": progress.seconds,
        "settings": {name: values[number] for name, values in compared.settings.items()},
        "curve": [
            {"step": at, "seconds": seconds, "nats_per_char": loss}
            for at, seconds, loss in zip(curve.steps, curve.seconds, curve.nats)
        ],
    }
