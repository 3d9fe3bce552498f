"""Plots: the picture holds the numbers of the run, whatever they and the title are, and appears whole or not at all."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from bptt.display import plots

needs_matplotlib = pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed: the extra plot brings it")


def history(rows, every=10):
    """A run of a measurement in every third row, its held-out loss least in the middle."""
    made = []
    for n in range(1, rows + 1):
        row = {"step": n * every, "loss": 1.7 + 1.6 / n + 0.1 * (n % 2), "rate": 0.004 / n, "norm": 0.5 + 3 / n}
        row |= {"seconds": 0.1 * n, "characters": 1000 * n}
        if n % 3 == 0:
            row |= {"held_out": 1.8 + abs(2 * n / rows - 1), "sample": ["aba"]}
        made.append(row)
    return made


def without(rows, *keys):
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """What `curve` draws, before it is a picture."""

    def draw(*arguments):
        from matplotlib.figure import Figure

        drawn = []
        save = Figure.savefig
        monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
        plots.save_curve(arguments[0], tmp_path / "curve.png", *arguments[1:])
        return drawn[0]

    return draw


def lines(axes):
    named = [line for line in axes.get_lines() if not line.get_label().startswith("_child") or len(axes.get_lines()) == 1]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in named}


RUNS = [  # history, clip
    ([], None),
    ([], 5.0),
    (history(1), None),
    (history(3), 5.0),
    (without(history(40), "held_out", "sample"), None),
    ([row | {"held_out": None} for row in history(3)], None),
    ([row | {"loss": 0.0, "held_out": 0.0, "norm": 0.0, "rate": 0.0} for row in history(3)], None),
    ([row | {"loss": 3e38, "norm": 1e-30} for row in history(3)], 1e30),
]


@needs_matplotlib
@pytest.mark.parametrize(("rows", "clip"), RUNS)
def test_every_history_gives_a_picture_of_the_stated_size(tmp_path, rows, clip):
    from matplotlib import image

    plots.save_curve(rows, tmp_path / "curve.png", "title", clip)
    pixels = image.imread(tmp_path / "curve.png")
    assert pixels.shape == (900, 900, 4)
    assert pixels.min() < 0.5  # something is drawn
    assert os.listdir(tmp_path) == ["curve.png"]


@needs_matplotlib
def test_the_losses_are_drawn_as_they_are(figure):
    rows = history(30)
    losses, rates, norms = figure(rows, "").axes
    measured = [row for row in rows if "held_out" in row]
    best = "best: 1.8000 nats (2.5969 bits) at step 150"
    assert lines(losses) == {
        "training": ([row["step"] for row in rows], [row["loss"] for row in rows]),
        "held out": ([row["step"] for row in measured], [row["held_out"] for row in measured]),
        best: ([150], [1.8]),
    }
    (mark,) = [line for line in losses.get_lines() if line.get_label().startswith("_child")]
    assert mark.get_xdata() == [150, 150]  # from top to bottom at the best step
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training", "held out", best]
    assert [*lines(rates).values()] == [([row["step"] for row in rows], [row["rate"] for row in rows])]
    assert [*lines(norms).values()] == [([row["step"] for row in rows], [row["norm"] for row in rows])]


@needs_matplotlib
def test_the_axes_have_units(figure):
    losses, rates, norms = figure(history(30), "").axes
    (bits,) = losses.child_axes
    names = ["loss (nats per character)", "bits per character", "learning rate", "gradient norm"]
    assert [axes.get_ylabel() for axes in (losses, bits, rates, norms)] == names
    assert norms.get_xlabel() == "steps"
    assert norms.get_yscale() == "log"
    assert bits.get_ylim() == pytest.approx([nats / math.log(2) for nats in losses.get_ylim()])
    assert all(losses.get_shared_x_axes().joined(losses, axes) for axes in (rates, norms))


@needs_matplotlib
def test_many_rows_get_a_labelled_running_median(figure):
    rows = history(31)
    rows[15]["loss"], rows[-1]["loss"] = 100.0, 50.0
    drawn = lines(figure(rows, "").axes[0])
    assert max(drawn["training"][1]) == 100.0
    steps, median = drawn["training, median of 5 rows"]
    loss = [row["loss"] for row in rows]
    assert steps == [row["step"] for row in rows]
    assert (median[0], median[1], median[-1]) == (loss[0], sorted(loss[:3])[1], loss[-1])
    assert median[15] == sorted(loss[13:18])[2]
    assert len(lines(figure(history(30), "").axes[0])) == 3


@needs_matplotlib
def test_the_median_window_is_a_tenth_of_the_rows_and_at_most_51(figure):
    assert "training, median of 21 rows" in lines(figure(history(200), "").axes[0])
    assert "training, median of 51 rows" in lines(figure(history(900), "").axes[0])


@needs_matplotlib
def test_the_clipping_threshold_is_a_line(figure):
    norms = figure(history(30), "", 0.25).axes[2]
    assert lines(norms)["clipped to 0.25"][1] == [0.25, 0.25]
    assert norms.get_ylim()[0] < 0.25


@needs_matplotlib
@pytest.mark.parametrize(
    ("title", "shown"),
    [
        (r"$x_1$ _b_ % $\frac{$", r"$x_1$ _b_ % $\frac{$"),
        ("日本語 ไทย עברית \U0001f995", "日本語 ไทย עברית \U0001f995"),
        ("a\nb\r\nc\nd", "a\nb\nc"),
        ("\x1b[2J\x00\t.", " [2J  ."),
        ("x" * 500, "x" * 80),
        ("", ""),
    ],
)
def test_a_title_is_not_interpreted_as_markup(figure, capfd, recwarn, title, shown):
    assert figure(history(3), title).get_suptitle() == shown
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@needs_matplotlib
def test_the_curve_does_not_depend_on_matplotlib_settings(tmp_path):
    import matplotlib

    plots.save_curve(history(50), tmp_path / "1.png", "title", 5.0)
    with matplotlib.rc_context({"savefig.dpi": 50, "savefig.bbox": "tight", "lines.linewidth": 7, "font.size": 20}):
        before = dict(matplotlib.rcParams)
        plots.save_curve(history(50), tmp_path / "2.png", "title", 5.0)
        assert dict(matplotlib.rcParams) == before
    plots.save_curve(history(50), tmp_path / "3.png", "another title", 5.0)
    first, second, third = ((tmp_path / f"{n}.png").read_bytes() for n in (1, 2, 3))
    assert first == second != third


@needs_matplotlib
def test_a_reused_figure_gives_the_same_curve(tmp_path):
    figure = plots.save_curve(history(50), tmp_path / "again.png", "one\ntwo", 0.5)
    for rows, clip in [*RUNS[2:], *[(history(rows), 5.0) for rows in (1, 10, 29, 31, 60, 100)]]:
        plots.save_curve(rows, tmp_path / "new.png", "title", clip)
        assert plots.save_curve(rows, tmp_path / "again.png", "title", clip, figure) is figure
        assert (tmp_path / "again.png").read_bytes() == (tmp_path / "new.png").read_bytes()


@needs_matplotlib
@pytest.mark.parametrize("title", ["", "x" * 80, "Åg\nb\nc"])
@pytest.mark.parametrize("scale", [3e-7, 0.000025, 0.00025, 1.0, 3e4, 1e5, 1e30])
def test_labels_fit_and_do_not_overlap(figure, scale, title):
    rows = [row | {key: scale * row[key] for key in ("loss", "rate", "norm")} for row in history(30)]
    drawn = figure(rows, title, scale)
    losses, rates, norms = drawn.axes
    assert drawn.bbox.padded(-1).count_contains(drawn.get_tightbbox().transformed(drawn.dpi_scale_trans).corners()) == 4
    assert all(text.get_window_extent().y0 > losses.bbox.y1 for text in drawn.texts)
    for axes in (losses, rates, norms, *losses.child_axes):
        name = axes.yaxis.label.get_window_extent()
        assert not name.count_overlaps([label.get_window_extent() for label in axes.get_yticklabels() if label.get_text()])


@needs_matplotlib
@pytest.mark.parametrize(("rows", "every"), [(3, 1), (40, 17), (900, 10_000)])
def test_a_legend_lies_on_no_curve_and_in_the_picture(figure, rows, every):
    drawn = figure(history(rows, every), "title", 5.0)
    losses, rates, norms = drawn.axes
    for axes, above in ((losses, drawn.bbox.y1), (norms, rates.bbox.y0)):
        legend = axes.get_legend().get_window_extent()
        assert axes.bbox.y1 < legend.y0 + 0.01
        assert legend.y1 <= above
        assert drawn.bbox.x0 <= legend.x0
        assert legend.x1 <= drawn.bbox.x1
    assert losses.get_legend().get_window_extent().y1 <= min(text.get_window_extent().y0 for text in drawn.texts)


@needs_matplotlib
def test_letters_are_at_least_a_sixtieth_of_the_picture(figure):
    drawn = figure(history(40), "title", 5.0)
    sizes = [text.get_fontsize() for axes in drawn.axes for text in (axes.yaxis.label, *axes.get_yticklabels())]
    sizes += [text.get_fontsize() for axes in drawn.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert min(sizes) / 72 >= drawn.get_figheight() / 60


@needs_matplotlib
def test_the_axis_of_the_losses_leaves_out_the_first_tenth(figure):
    rows = history(40)
    rows[0]["loss"], rows[2]["held_out"] = 50.0, 40.0
    bottom, top = figure(rows, "").axes[0].get_ylim()
    later = [value for row in rows if row["step"] >= 49 for value in (row["loss"], row.get("held_out", row["loss"]))]
    assert bottom < min(later) < max(later) < top < 5
    assert figure(rows[:10], "").axes[0].get_ylim()[1] > 50  # of a few there is room for all


@needs_matplotlib
@pytest.mark.parametrize("where", ["savefig", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_save_keeps_the_old_curve(monkeypatch, tmp_path, where, error):
    from matplotlib.figure import Figure

    def savefig(_, path, **__):
        path.write_bytes(b"half")
        raise error

    def replace(temporary, path):
        assert temporary.parent == path.parent
        assert temporary.stat().st_size > 1000
        raise error

    (tmp_path / "curve.png").write_bytes(b"old")
    monkeypatch.setattr(*{"savefig": (Figure, "savefig", savefig), "replace": (os, "replace", replace)}[where])
    with pytest.raises(type(error)):
        plots.save_curve(history(3), tmp_path / "curve.png", "")
    assert os.listdir(tmp_path) == ["curve.png"]
    assert (tmp_path / "curve.png").read_bytes() == b"old"


@needs_matplotlib
def test_a_missing_folder_raises_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        plots.save_curve(history(3), tmp_path / "no" / "curve.png", "")


@needs_matplotlib
def test_matplotlib_is_imported_late_and_without_pyplot(tmp_path):
    code = (
        "import pathlib, sys; from bptt.display import plots; print('matplotlib' in sys.modules);"
        f"plots.save_curve([], pathlib.Path({str(tmp_path / 'curve.png')!r}), ''); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\nFalse\n", "")


def test_plots_are_unavailable_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not plots.available()
    with pytest.raises(ImportError):
        plots.save_curve([], tmp_path / "curve.png", "")


def points(*losses):
    return [{"step": n, "loss": loss} for n, loss in enumerate(losses)]


def test_a_text_chart_spans_all_steps_and_losses():
    assert plots.text_chart(points(3.5, 1.25), 9, 2) == ["3.50│⠳⣄  ", "1.25│ ⠈⠙⢦"]
    assert plots.text_chart(points(3.5, 1.25), 9, 2, plain=True) == ["3.50|**  ", "1.25| ***"]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("width", "height"), [(9, 2), (20, 3), (80, 12)])
@pytest.mark.parametrize("rows", [1, 2, 3, 500])
def test_a_text_chart_has_the_size_asked_for(rows, width, height, plain):
    drawn = plots.text_chart(history(rows), width, height, plain)
    assert [len(line) for line in drawn] == [width] * height
    assert all(line.isascii() for line in drawn) == plain
    assert any(line[5:].strip() for line in drawn)


@pytest.mark.parametrize("spike", [9.0, -9.0])
def test_a_text_chart_shows_every_spike(spike):
    losses = [1.0] * 5000
    losses[2600] = spike
    drawn = plots.text_chart(points(*losses), 46, 6)
    margin = drawn[0].index("│") + 1
    spiked = [line[margin:].split() for line in drawn][:: 1 if spike > 0 else -1]
    assert all(len(line) == 1 for line in spiked)  # from the spike to the others
    assert [len(line[0]) for line in spiked[:5]] == [1] * 5


def test_a_text_chart_marks_the_evaluations():
    rows = points(3.0, 3.0, 3.0, 3.0, 1.0)
    rows[0]["held_out"], rows[2]["held_out"], rows[4]["held_out"] = 5.0, None, 1.0
    drawn = plots.text_chart(rows, 24, 5)
    assert drawn[0] == "5.00│o" + " " * 18
    assert drawn[-1].startswith("1.00│")
    assert drawn[-1].endswith("o")
    assert "".join(drawn).count("o") == 2


def test_the_axis_leaves_out_the_losses_of_the_first_tenth():
    losses = [9.0, 5.0, *np.linspace(2.0, 1.0, 19)]
    drawn = plots.text_chart(points(*losses), 46, 6)
    assert drawn[0].startswith("2.00│")
    assert not drawn[1][5:9].strip()  # the curve comes in from above, after the first two points
    assert plots.text_chart(points(*losses[:10]), 46, 6)[0].startswith("9.00│")  # of a few there is room for all
    rows = points(*losses)
    rows[1]["held_out"], rows[12]["held_out"] = 7.0, 3.0
    drawn = plots.text_chart(rows, 46, 6)
    assert drawn[0].startswith("3.00│")
    assert "".join(drawn).count("o") == 1


def test_a_text_chart_of_one_loss_is_flat():
    assert plots.text_chart(points(2.0), 9, 2) == ["2.00│⠁   ", "2.00│    "]
    assert plots.text_chart(points(2.0, 2.0), 9, 2) == ["2.00│⠉⠉⠉⠉", "2.00│    "]


@pytest.mark.parametrize(
    ("rows", "width", "height"),
    [([], 80, 10), (history(5), 8, 10), (history(5), 0, 10), (history(5), 80, 1), (history(5), 80, -3)],
)
def test_a_text_chart_without_data_or_space_has_no_lines(rows, width, height):
    assert plots.text_chart(rows, width, height) == []
