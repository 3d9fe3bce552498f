"""The pictures of a report: what is drawn are the numbers that were given, in the units that their titles say."""

import re

import numpy as np
import pytest

from bptt.inspect import Activations, Flow
from bptt.nn import cells
from bptt.report import figures

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[plot]'")


@pytest.fixture
def recorded_panels(monkeypatch):
    """Let each picture give its panels instead of its SVG."""
    from matplotlib.figure import Figure

    def panels(name, count, draw):
        axes = [Figure().subplots() for _ in range(count)]
        draw(axes)
        return axes

    monkeypatch.setattr(figures, "svgs", panels)


def lines(axes):
    """What stands in the legend, and the points of each line."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines() if line.get_linestyle() != ":"}


def activations_of(a, gates=None):
    return Activations([], [], np.asarray(a), None, gates, np.ones(0), np.ones(0))


@pytest.mark.usefixtures("recorded_panels")
def test_curves_are_those_of_the_run_and_show_the_clipping_threshold():
    rows = [
        {"step": 10, "loss": 3.0, "rate": 0.1, "norm": 4.0},
        {"step": 20, "loss": 2.0, "rate": 0.2, "norm": 0.5, "held_out": 5.0},
    ]
    losses, rates, norms = figures.curves(rows, 1.0)
    assert lines(losses) == {
        "training": [[10, 3], [20, 2]],
        "held out": [[20, 5]],
        "best: 5.0000 nats (7.2135 bits) at step 20": [[20, 5]],
    }
    assert [axes.get_ylabel() for axes in losses.child_axes] == ["bits per character"]
    assert [line.get_xydata().tolist() for line in rates.get_lines()] == [[[10, 0.1], [20, 0.2]]]
    assert lines(norms) == {"before clipping": [[10, 4], [20, 0.5]], "clipped to 1": [[0, 1], [1, 1]]}
    assert len(figures.curves(rows, None)[2].get_lines()) == 1
    assert [axes.get_xlabel() for axes in (losses, rates, norms)] == ["steps"] * 3


@pytest.mark.usefixtures("recorded_panels")
@pytest.mark.parametrize(
    ("cell", "names"), [("gru", {"reset": 0, "update": 1}), ("lstm", {"input": 0, "forget": 1, "output": 3})]
)
def test_gates_are_plotted_by_how_often_they_close_and_open(cell, names):
    T, L, H = 20, 2, 3
    gates = np.random.default_rng(0).random((T, L, 3 if cell == "gru" else 4, H)) ** 3
    panels = figures.saturation(cells.CELLS[cell].GATES, activations_of(np.zeros((T, L, H)), gates))
    for layer in range(L):
        expected = {}
        for name, number in names.items():
            values = gates[:, layer, number, :]
            expected[name] = [[np.mean(v < 0.1), np.mean(v > 0.9)] for v in values.T]  # x: nearly closed, y: nearly open
        assert lines(panels[2 * layer + 1]) == expected


@pytest.mark.usefixtures("recorded_panels")
def test_saturated_units_are_counted_by_layer():
    a = np.zeros((4, 2, 3))
    a[:, 1, 0], a[:2, 1, 1] = -0.95, 0.95  # in layer 2: always, every other step, never
    first, far_first, second, far_second = figures.saturation(cells.CELLS["vanilla"].GATES, activations_of(a))
    assert [p.get_height() for p in first.patches if p.get_height()] == [12]
    assert [p.get_height() for p in second.patches if p.get_height()] == [4, 6, 2]
    assert [p.get_x() for p in far_first.patches if p.get_height()] == pytest.approx([0])
    assert [p.get_x() for p in far_second.patches if p.get_height()] == pytest.approx([0, 0.5, 0.95])
    assert "above 0.9" in far_second.get_title()
    assert [axes.get_title()[:7] for axes in (first, far_first, second, far_second)] == ["layer 1"] * 2 + ["layer 2"] * 2


@pytest.mark.usefixtures("recorded_panels")
def test_gradient_flow_has_time_to_the_right_and_the_past_upwards():
    L, T, K = 2, 7, 4
    norms = np.exp(np.random.default_rng(0).normal(size=(L, T, K + 1)))
    norms[:, [0, 0], [1, 2]] = np.nan
    first, second, means = figures.flow(Flow(norms, np.nanmean(norms, axis=1)))
    for layer, axes in enumerate((first, second)):
        np.testing.assert_allclose(axes.images[0].get_array().filled(np.nan), np.log10(norms[layer].T))
        assert axes.get_title() == f"layer {layer + 1}"
    np.testing.assert_allclose([y for _, y in lines(means)["layer 1"]], np.nanmean(norms[0], axis=0))
    np.testing.assert_allclose([y for _, y in lines(means)["layer 2"]], np.nanmean(norms[1], axis=0))


@pytest.mark.usefixtures("recorded_panels")
def test_spectral_radii_are_labelled_and_have_a_line_at_one():
    found = np.arange(12.0).reshape(2, 2, 3)
    (axes,) = figures.radii([4, 8], found, ("r", "u", "n"))
    (border,) = [line for line in axes.get_lines() if line.get_label().startswith("_")]
    assert list(border.get_ydata()) == [1, 1]
    named = {label: points for label, points in lines(axes).items() if not label.startswith("_")}
    assert named == {
        f"layer {layer + 1} {name}": [[4, found[0, layer, k]], [8, found[1, layer, k]]]
        for layer in range(2)
        for k, name in enumerate("run")
    }


def test_a_figure_has_text_no_date_and_the_colour_of_the_page():
    (picture,) = figures.radii([4, 8], np.ones((2, 1, 1)), ("",))
    assert ">spectral radius of Waa</text>" in picture
    assert "<metadata>" not in picture
    assert "dc:date" not in picture
    assert figures.INK not in picture


def test_names_in_a_picture_are_used_and_its_own():
    rows = [{"step": n, "loss": 3.0 / n, "rate": 0.1, "norm": 4.0} for n in range(1, 5)]
    pictures = figures.curves(rows, 1.0)
    names = [re.findall(r' id="([^"]+)"', picture) for picture in pictures]
    for picture, ids in zip(pictures, names):
        assert all(f"#{name}" in picture for name in ids)
        assert {*re.findall(r"(?:url\(|href=\")#([\w-]+)", picture)} == {*ids}
    flat = [name for ids in names for name in ids]
    assert len(flat) == len(set(flat)) > 3


@pytest.mark.usefixtures("recorded_panels")
def test_of_five_layers_the_fourth_is_left_out():
    a, norms = np.zeros((4, 5, 2)), np.ones((5, 3, 3)) * np.arange(1, 6)[:, None, None]
    a[:, 4, :] = 0.5
    panels = figures.saturation(cells.CELLS["vanilla"].GATES, activations_of(a))
    assert [axes.get_title() for axes in panels[::2]] == [f"layer {layer}: activations" for layer in (1, 2, 3, 5)]
    assert [[p.get_x() for p in axes.patches if p.get_height()] == pytest.approx([0.5], abs=0.06) for axes in panels[::2]] == [
        *[False] * 3,
        True,
    ]
    panels = figures.flow(Flow(norms, norms.mean(axis=1)))
    assert [axes.get_title() for axes in panels[:4]] == [f"layer {layer}" for layer in (1, 2, 3, 5)]
    np.testing.assert_allclose(panels[3].images[0].get_array(), np.log10(5.0))
    (axes,) = figures.radii([4, 8], np.arange(10.0).reshape(2, 5, 1), ("",))
    assert lines(axes)["layer 5"] == [[4, 4], [8, 9]]
