"""The curves of a training run: loss, learning rate and gradient norm over its steps, as a picture or as text."""

import importlib.util
import math
import statistics
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt import files
from bptt.display.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHED = 30  # rows, beyond which the loss gets a running median
MARKED = 30  # rows, up to which each is a dot on its line

# told apart by the colour-blind (Okabe and Ito, "Color universal design", 2008)
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"

# Where the panels lie in the picture, and at them the names of their axes, so that 0.000025 and 100000 find room beside those.
# For matplotlib to find that out takes as long again as the drawing, which comes at each evaluation.
SIZE, PIXELS = 6.6, 900  # inches, so that letters can be read in a small picture, and what they become
PANELS = {"left": 0.155, "right": 0.87, "bottom": 0.07, "hspace": 0.19}
LABEL_PLACE = (-0.165, 0.5)
HEADING, LINE = 0.02, 0.03  # of the height: around a heading, and of each of its lines
LEGEND: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}  # above a panel: nothing lies on a curve
LEGEND |= {"frameon": False, "fontsize": 9, "borderaxespad": 0.0, "columnspacing": 1.2, "handlelength": 1.4}

FEW = 10  # rows, up to which a text chart has room for the first losses too

DOTS = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])  # the bit of each dot in a braille character, 4 x 2


def available() -> bool:
    """Whether matplotlib is installed, which pictures need (the extra `plot`)."""
    return importlib.util.find_spec("matplotlib") is not None


def save_curve(
    history: list[dict[str, Any]], path: Path, title: str, clip: float | None = None, figure: "Figure | None" = None
) -> "Figure":
    """Draw a run as a PNG of 900 x 900 pixels: losses in nats and bits per character, learning rate, gradient norm.

    `history` holds a dict for each log step, with `step`, `loss`, `rate`, `norm` and, where it was measured, `held_out`;
    `clip` is the norm that longer gradients are cut to. Equal input gives equal bytes with one version of matplotlib. The file
    appears by one rename; what was there before stays until then.

    Returns the figure, on which the next curve of the run is drawn sooner.

    Raises:
        ImportError: there is no matplotlib, see `available`.
        OSError: the file cannot be written.
    """
    from matplotlib import style

    temporary = files.temporary_path(path)
    try:
        # not what a user's matplotlibrc says; and hinting would take a tenth of the time
        with style.context(["default", {"text.hinting": "none"}]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # the title may be in any script
            figure = figure or _blank()
            _wipe(figure)
            heading = _heading(title)
            figure.suptitle("\n".join(heading), y=1 - HEADING / 2, parse_math=False, fontsize=9.5)
            figure.subplots_adjust(**PANELS, top=1 - HEADING - LINE * (len(heading) + 2))  # two lines of a legend below it
            draw_curves(figure.axes, history, clip)
            how = {"compress_level": 2}  # a twentieth larger than the usual 6, in two thirds of the time
            figure.savefig(temporary, format="png", dpi=PIXELS / SIZE, metadata={"Software": None}, pil_kwargs=how)
        files.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return figure


def text_chart(history: list[dict[str, Any]], width: int, height: int, plain: bool = False) -> list[str]:
    """Draw the loss in `height` lines of `width` characters, with an o for each validation loss.

    The axis holds all values but those of the first tenth of the steps, which would leave no room for the others; the curve
    comes in from above. Where many values share a column it spans them all. It is drawn in braille dots, or if `plain` in
    asterisks. No lines where there is nothing to draw or no room.
    """
    if not history or height < 2:
        return []
    measured = [row for row in history if row.get("held_out") is not None]
    steps, loss = (np.array([row[key] for row in history], np.float64) for key in ("step", "loss"))
    at, validation_loss = (np.array([row[key] for row in measured], np.float64) for key in ("step", "held_out"))
    later = np.concatenate([loss[_after_start(steps, steps)], validation_loss[_after_start(at, steps)]])
    bottom, top = min(later), max(later)
    labels = [f"{top:.2f}", *[""] * (height - 2), f"{bottom:.2f}"]
    margin = max(map(len, labels))
    columns, rows = 2 * (width - margin - 1), 4 * height
    if columns < 8:
        return []

    def across(steps: Any) -> Any:  # 0 .. columns
        return (steps - history[0]["step"]) / max(1, history[-1]["step"] - history[0]["step"]) * columns

    def down(values: Any) -> Any:  # 0 .. rows - 1
        return (top - values) / ((top - bottom) or 1.0) * (rows - 1)

    # what the line passes in each column of dots: where it enters, where it leaves, and the values between
    x, y = across(steps), down(loss)
    edges = np.interp(np.arange(columns + 1), x, y, left=np.nan, right=np.nan)
    high, low = np.fmin(edges[:-1], edges[1:]), np.fmax(edges[:-1], edges[1:])
    column = np.minimum(x, columns - 1).astype(int)
    np.fmin.at(high, column, y)
    np.fmax.at(low, column, y)
    row = np.arange(rows)[:, None]
    dots = (np.rint(high) <= row) & (row <= np.rint(low))  # (rows, columns)

    codes = np.sum(dots.reshape(height, 4, -1, 2) * DOTS[:, None, :], axis=(1, 3))
    cells = [[" " if code == 0 else "*" if plain else chr(0x2800 + code) for code in line] for line in codes.tolist()]
    drawn = (bottom <= validation_loss) & (validation_loss <= top)
    marks = np.rint(down(validation_loss[drawn])) // 4, np.minimum(across(at[drawn]), columns - 1) // 2
    for i, j in zip(*marks):
        cells[int(i)][int(j)] = "o"
    return [f"{label:>{margin}}{'|' if plain else '│'}{''.join(line)}" for label, line in zip(labels, cells)]


def _after_start(at: Any, steps: Any) -> Any:
    """Which of the steps `at` come after the first tenth of the logged steps; all of them while only a few are logged."""
    first = steps[0] + 0.1 * (steps[-1] - steps[0]) if len(steps) > FEW else steps[0]
    return at >= first


def label_curves(panels: list["Axes"]) -> None:
    """Name the axes of the three panels: losses in nats and bits, learning rates, gradient norms."""
    losses, rates, norms = panels
    for axes, name in [(losses, "loss (nats per character)"), (rates, "learning rate"), (norms, "gradient norm")]:
        axes.grid(linewidth=0.5, alpha=0.4)
        axes.margins(0.02, 0.1)
        axes.set_ylabel(name)
    losses.locator_params(axis="y", nbins=6)
    losses.secondary_yaxis("right", functions=(_bits, _nats)).set_ylabel("bits per character")


def draw_curves(panels: list["Axes"], history: list[dict[str, Any]], clip: float | None, columns: int = 2) -> None:
    """Draw the rows of a run, as `save_curve` describes them, into three panels; a legend has so many columns."""
    losses, rates, norms = panels
    _losses(losses, history)
    _rates(rates, history)
    _norms(norms, history, clip)
    for axes in (losses, norms):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(**LEGEND, ncols=columns)


def _heading(title: str) -> list[str]:
    """Return at most three printable lines that fit the picture."""
    return [printable(line)[:80] for line in title.splitlines()[:3]]


def _blank() -> "Figure":
    """Make a figure of three panels that share the steps, without anything that depends on the run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(SIZE, SIZE), dpi=PIXELS / SIZE)
    FigureCanvasAgg(figure)  # else each savefig makes one, and the garbage collector leaves their 3 MB for a while
    _, _, norms = figure.subplots(3, sharex=True, height_ratios=(2, 1, 1))
    label_curves(figure.axes)
    for axes in figure.axes:
        axes.yaxis.set_label_coords(*LABEL_PLACE)
    norms.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))
    norms.xaxis.set_major_formatter("{x:,.0f}")
    norms.set_xlabel("steps")
    return figure


def _wipe(figure: "Figure") -> None:
    """Remove the lines, texts and limits of an earlier curve."""
    for axes in figure.axes:
        for artist in [*axes.lines, *axes.texts, *filter(None, [axes.get_legend()])]:
            artist.remove()
        axes.relim()
        axes.autoscale()


def _losses(axes: "Axes", history: list[dict[str, Any]]) -> None:
    """Draw the loss, its running median if there are many rows, and the validation loss with its best point."""
    steps, loss = _column(history, "step"), _column(history, "loss")
    axes.set_ylim(*_loss_limits(history))
    smoothed = len(history) > SMOOTHED
    axes.plot(steps, loss, **_line(history, BLUE), alpha=0.4 if smoothed else 1.0, label="training")
    if smoothed:
        median, window = _running_median(loss)
        axes.plot(steps, median, color=BLUE, label=f"training, median of {window} rows")
    measured = [row for row in history if row.get("held_out") is not None]
    if measured:
        axes.plot(_column(measured, "step"), _column(measured, "held_out"), ".-", color=VERMILION, label="held out")
        best = min(measured, key=lambda row: row["held_out"])
        nats, step = best["held_out"], best["step"]
        label = f"best: {nats:.4f} nats ({_bits(nats):.4f} bits) at step {step:,}"
        axes.plot(step, nats, "*", color=VERMILION, markersize=14, markeredgecolor="white", linestyle="", label=label)
        axes.axvline(step, color=VERMILION, linewidth=0.8, linestyle=":")


def _loss_limits(history: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """The ends of the axis of the losses: like that of `text_chart` it leaves out the first tenth of the steps."""
    if not history:
        return None, None
    steps = _column(history, "step")
    later = [row for row in history if _after_start(row["step"], steps)]
    values = [row["loss"] for row in later] + [row["held_out"] for row in later if row.get("held_out") is not None]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * (abs(high) or 1.0)
    return low - room, high + room


def _rates(axes: "Axes", history: list[dict[str, Any]]) -> None:
    axes.plot(_column(history, "step"), _column(history, "rate"), **_line(history, GREEN))
    axes.set_ylim(bottom=0)


def _norms(axes: "Axes", history: list[dict[str, Any]], clip: float | None) -> None:
    """Draw the norms on a logarithmic axis, which has no place for zero."""
    from matplotlib.ticker import LogLocator, NullLocator

    rows = [row for row in history if row["norm"] > 0]
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.plot(_column(rows, "step"), _column(rows, "norm"), **_line(rows, ORANGE), label="before clipping" if clip else None)
    if clip:
        axes.axhline(clip, color=axes.xaxis.label.get_color(), linestyle="--", linewidth=1, label=f"clipped to {clip:g}")
    shown = _column(rows, "norm") + ([clip] if clip else []) or [1.0]
    low, high = min(shown), max(shown)
    middle = math.sqrt(low * high)
    axes.set_ylim(min(low / 1.5, middle / 4), max(high * 1.5, middle * 4))  # more than a decade, so that it has labels


def _column(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [row[key] for row in rows]


def _line(rows: list[dict[str, Any]], color: str) -> dict[str, Any]:
    """Return the style of a line; a few points are marked with dots."""
    return {"color": color, "linewidth": 1.2, "marker": "." if len(rows) <= MARKED else ""}


def _running_median(values: list[float]) -> tuple[list[float], int]:
    """Return the median of each value and its neighbours, and the window: a tenth of all rows, at most 51."""
    most = max(2, min(25, len(values) // 20))
    reach = [min(most, i, len(values) - 1 - i) for i in range(len(values))]  # as far back as ahead
    return [statistics.median(values[i - n : i + n + 1]) for i, n in enumerate(reach)], 2 * most + 1


def _bits(nats: Any) -> Any:
    return nats / math.log(2)


def _nats(bits: Any) -> Any:
    return bits * math.log(2)
