"""The figures of a report, as SVG with a transparent background in the text colour of the page."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np  # what matplotlib draws is on the host

from bptt.backend import HostArray
from bptt.display import plots
from bptt.display.plots import BLUE, GREEN, ORANGE, VERMILION
from bptt.inspect import Activations, Flow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the colour of the text of the page
STYLE = {
    "svg.fonttype": "none",  # letters, not their outlines
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
SIZE = (4.5, 3.0)  # inches of a panel
COLOURS = (BLUE, ORANGE, GREEN, VERMILION)
LOW, HIGH = 0.1, 0.9  # a gate below or above is as good as closed or open
LAYERS = 4  # that are drawn at most: their pictures fit a sheet of paper
POINTS = 256  # that are drawn one by one; more become a picture of dots
LEAST = 1e-8  # of a norm that is drawn


def svgs(name: str, count: int, draw: Callable[[list["Axes"]], None]) -> list[str]:
    """Draw each panel as a separate SVG, so that a page can arrange them; equal input gives equal SVG."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        drawings = [Figure(figsize=SIZE, layout="constrained") for _ in range(count)]
        draw([figure.subplots() for figure in drawings])
        return [_svg(figure, f"{name}{number}") for number, figure in enumerate(drawings)]


def _svg(figure: "Figure", name: str) -> str:
    """A figure as SVG, whose names are its own in a page of several."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True)
    picture = file.getvalue()
    picture = picture[picture.index("<svg") :].replace(INK, "currentColor")
    picture = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", picture))
    return re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", picture)


def drawn(layers: int) -> list[int]:
    """Return the layers that are drawn: all, or at most four from the first to the last."""
    return [int(layer) for layer in np.linspace(0, layers - 1, min(layers, LAYERS))]


def curves(history: list[dict[str, Any]], clip: float | None) -> list[str]:
    """The curves of `display.plots`: losses, learning rate, gradient norms and where they are clipped."""

    def draw(panels: list["Axes"]) -> None:
        plots.label_curves(panels)
        plots.draw_curves(panels, history, clip, columns=1)
        for axes in panels:
            axes.set_xlabel("steps")

    return svgs("curves", 3, draw)


def saturation(cell_gates: dict[str, str], seen: Activations) -> list[str]:
    """Histograms of activations and, for GRU and LSTM, scatter plots of saturated gates, by layer."""
    gates, (_, L, H) = seen.gates, seen.a.shape
    layers = drawn(L)

    def draw(panels: list["Axes"]) -> None:
        for layer, states, open_ in zip(layers, panels[::2], panels[1::2]):
            states.hist(seen.a[:, layer, :].ravel(), bins=np.linspace(-1, 1, 41).tolist(), color=BLUE)
            states.set_title(f"layer {layer + 1}: activations", fontsize=10)
            states.set_yticks([])
            if gates is None:
                far = np.mean(np.abs(seen.a[:, layer, :]) > HIGH, axis=0)
                open_.hist(far, bins=np.linspace(0, 1, 21).tolist(), color=ORANGE)
                open_.set_title(f"layer {layer + 1}: share of steps with |a| above {HIGH}, by unit", fontsize=10)
                continue
            for number, (name, activation) in enumerate(cell_gates.items()):
                if activation == "sigmoid":
                    values = gates[:, layer, number, :]
                    places = np.mean(values < LOW, axis=0), np.mean(values > HIGH, axis=0)
                    (points,) = open_.plot(*places, "o", markersize=3, alpha=0.5, color=COLOURS[number % 4], label=name)
                    points.set_rasterized(POINTS < H)
            open_.set_title(f"layer {layer + 1}: gates", fontsize=10)
            open_.set_xlabel(f"share of steps below {LOW}")
            open_.set_ylabel(f"above {HIGH}")
            open_.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
            open_.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    return svgs("saturation", 2 * len(layers), draw)


def flow(result: Flow) -> list[str]:
    """A heat map of gradient norms by step and distance for each layer, and their means."""
    layers = drawn(len(result.norms))
    L = len(layers)

    def draw(panels: list["Axes"]) -> None:
        for layer, axes in zip(layers, panels):
            levels = np.log10(np.maximum(result.norms[layer].T, LEAST))  # (K+1, T); NaN stays
            image = axes.imshow(levels, aspect="auto", origin="lower", cmap="viridis", interpolation="nearest")
            axes.set_title(f"layer {layer + 1}", fontsize=10)
            axes.set_xlabel("step t")
            axes.set_ylabel("steps back, k")
            axes.figure.colorbar(image, ax=axes, label="log10 of the norm")
        for layer, colour in zip(layers, COLOURS):
            panels[L].semilogy(np.maximum(result.decay[layer], LEAST), color=colour, label=f"layer {layer + 1}")
        panels[L].set_xlabel("steps back, k")
        panels[L].set_ylabel("mean norm over t")
        panels[L].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=L, borderaxespad=0.0)

    return svgs("flow", L + 1, draw)


def radii(steps: list[int], values: HostArray, names: tuple[str, ...]) -> list[str]:
    """The spectral radius of each block of Waa, (steps, L, G), over the steps of a run."""

    def draw(panels: list["Axes"]) -> None:
        (axes,) = panels
        for layer, style in zip(drawn(values.shape[1]), ("-", "--", ":", "-.")):
            for number, name in enumerate(names):
                label = f"layer {layer + 1} {name}".strip()
                (line,) = axes.plot(steps, values[:, layer, number], label=label, marker="o", markersize=3)
                line.set(color=COLOURS[number % 4], linestyle=style)
        axes.axhline(1.0, color=INK, linewidth=0.5)
        axes.set_xlabel("steps")
        axes.set_ylabel("spectral radius of Waa")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    return svgs("radii", 1, draw)
