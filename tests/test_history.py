"""The history of a run, the settings of a model, and what both and other results look like in a notebook."""

import copy
import importlib.util
import json
import pickle
import sys
import types
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

import bptt
from bptt.display import html, plots
from bptt.errors import InputError
from bptt.inference import history
from runs import NAMES

SMALL = {"hidden": 5, "steps": 12, "batch": 6, "backend": "numpy", "evaluate_every": 4, "report": None}
COLUMNS = {
    "step": "step",
    "seconds": "seconds",
    "characters": "characters",
    "loss": "loss",
    "validation_loss": "held_out",
    "learning_rate": "rate",
    "gradient_norm": "norm",
}
EVIL = "<script>alert('&\"')</script>\x1b[2J"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def run(tmp_path):
    bptt.train(NAMES, out=tmp_path / "run", **SMALL)
    return tmp_path / "run"


def written_rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def equal(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in COLUMNS)


# Columns


def test_columns_are_those_of_metrics_jsonl(run):
    rows = written_rows(run)
    past = bptt.load(run, backend="numpy").history
    assert len(past) == len(rows) == 12
    assert list(past.rows) == rows
    for name, key in COLUMNS.items():
        expected = np.array([row.get(key, np.nan) for row in rows])
        np.testing.assert_array_equal(getattr(past, name), expected)
    assert np.flatnonzero(np.isfinite(past.validation_loss)).tolist() == [3, 7, 11]


def test_trained_model_has_the_history_of_the_run_in_memory():
    rows = []
    trained = bptt.train(NAMES, callbacks=[lambda event: rows.append(event.row)], **SMALL)
    assert list(trained.history.rows) == rows[1:-1]


def test_history_goes_beyond_the_best_model(tmp_path):
    wild = {"optimizer": "sgd", "learning_rate": 30.0, "clip_norm": 1e6, "steps": 40}
    trained = bptt.train(NAMES, out=tmp_path / "run", **{**SMALL, **wild})
    assert trained.record["step"] < 40
    for one in (trained, *(bptt.load(tmp_path / "run" / part) for part in ("", "checkpoints/best"))):
        assert one.record["step"] == trained.record["step"]
        assert one.history.step[-1] == 40


def test_resumed_run_has_all_of_its_history(tmp_path):
    bptt.train(NAMES, out=tmp_path / "run", stop_after=6, **SMALL)
    resumed = bptt.train(NAMES, resume=tmp_path / "run", report=None)
    assert resumed.history.step.tolist() == list(range(1, 13))


def test_model_that_was_saved_alone_has_no_history(run, tmp_path):
    bptt.load(run, backend="numpy").save(tmp_path / "checkpoints" / "model")
    (tmp_path / "run" / "sub").mkdir()
    bptt.load(run, backend="numpy").save(tmp_path / "run" / "sub" / "model")
    for place in ("checkpoints/model", "run/sub/model"):
        alone = bptt.load(tmp_path / place, backend="numpy").history
        assert (len(alone), alone.rows, alone.loss.shape) == (0, (), (0,))
        assert repr(alone) == "<bptt.History: no rows>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copy_of_a_model_has_its_history(run, duplicate):
    for original in (bptt.load(run, backend="numpy"), bptt.train(NAMES, **SMALL)):
        assert equal(duplicate(original).history, original.history)


def test_rows_that_are_damaged_are_left_out(run):
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines()
    forged = [lines[2], '{"step": 7}', "[" * 3000, "\x00", lines[5], lines[4], lines[7][:20]]
    file.write_text("\n".join(forged))
    assert bptt.load(run, backend="numpy").history.step.tolist() == [3, 6]
    file.unlink()
    assert len(bptt.load(run, backend="numpy").history) == 0


def test_no_more_than_a_bound_is_read(run, monkeypatch):
    size = len((run / "metrics.jsonl").read_bytes().splitlines()[0])
    monkeypatch.setattr(history, "MAX_BYTES", size)
    assert bptt.load(run, backend="numpy").history.step.tolist() == [1]


def test_settings_of_a_model_are_those_of_its_run(run):
    trained = bptt.load(run, backend="numpy")
    assert trained.settings == {**trained.record["settings"], **trained.record["plan"]}
    assert (trained.settings["hidden"], trained.settings["steps"], trained.settings["cell"]) == (5, 12, "gru")
    assert trained.settings["learning_rate"] > 0
    assert (trained.config.cell, trained.config.hidden, trained.config.layers, trained.config.vocabulary) == ("gru", 5, 1, 11)
    record = {"settings": 3}
    assert bptt.LanguageModel(*[None] * 5, record).settings == {}


# pandas and matplotlib


def hide(monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *parts: None if name == package else find(name, *parts))


@pytest.mark.parametrize(("method", "package"), [("plot", "matplotlib"), ("to_pandas", "pandas")])
def test_missing_package_is_one_line(run, monkeypatch, method, package):
    hide(monkeypatch, package)
    past = bptt.load(run, backend="numpy").history
    with pytest.raises(InputError, match=rf"^history\.{method} needs {package}, which is not installed: pip install .+$"):
        getattr(past, method)()


def test_to_pandas_makes_a_table_of_the_columns(run, monkeypatch):
    try:
        import pandas  # noqa: F401
    except ImportError:
        fake = types.SimpleNamespace(DataFrame=lambda columns: columns, __spec__=object())
        monkeypatch.setitem(sys.modules, "pandas", fake)
    past = bptt.load(run, backend="numpy").history
    table = past.to_pandas()
    assert list(table.keys()) == list(COLUMNS)
    assert all(np.array_equal(np.asarray(table[name]), getattr(past, name), equal_nan=True) for name in COLUMNS)


def test_plot_draws_the_losses_the_rates_and_the_norms(run):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (nox -s tests installs it)")
    past = bptt.load(run, backend="numpy").history
    figure = past.plot()
    losses, rates, norms = figure.axes[:3]
    drawn = [losses.lines[0], rates.lines[0], norms.lines[0]]
    for line, name in zip(drawn, ("loss", "learning_rate", "gradient_norm"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), past.step)
        np.testing.assert_array_equal(line.get_ydata(), getattr(past, name))
    assert norms.get_xlabel() == "step"
    with pytest.raises(InputError, match="the history is empty"):
        history.from_rows([]).plot()


# HTML


class Checked(HTMLParser):
    """Whether tags are balanced, and what text and which tags there are."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def shown(value):
    page = value._repr_html_()
    checked = Checked(page)
    assert "script" not in checked.tags
    assert not {character for character in page if not character.isprintable()}
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is loaded from elsewhere
    assert "background:#" not in page.replace(" ", "")  # dark notebooks have theirs
    return checked


def test_model_in_a_notebook_says_what_it_is(run):
    text = shown(bptt.load(run, backend="numpy")).text
    for words in ("gru", "1 x 5", "numpy float32", "(lines)", "nats per character", "training", "validation"):
        assert words in text
    assert "12" in text


def test_what_a_file_says_is_escaped(run):
    trained = bptt.load(run, backend="numpy")
    trained.record["text"] = EVIL
    checked = shown(trained)
    assert "<script>alert('&\"')</script> [2J" in checked.text


def test_history_in_a_notebook_is_a_chart(run):
    past = bptt.load(run, backend="numpy").history
    checked = shown(past)
    assert checked.tags.count("polyline") == 2
    assert checked.tags.count("circle") == 3  # evaluations
    assert "12 rows to step 12" in checked.text
    assert "polyline" not in shown(history.from_rows([])).tags


def test_evaluation_in_a_notebook_is_a_table(run):
    evaluation = bptt.load(run, backend="numpy").evaluate("ban\nbir")
    text = shown(evaluation).text
    for number in (f"{evaluation.nats_per_char:.4f}", f"{evaluation.bits_per_char:.4f}", f"{evaluation.perplexity:.4g}"):
        assert number in text


def test_gradient_flow_in_a_notebook_has_a_line_for_each_layer():
    trained = bptt.train(NAMES, layers=2, **SMALL)
    checked = shown(bptt.inspect.gradient_flow(trained, "ban"))
    assert checked.tags.count("polyline") == 2
    assert "layer 1" in checked.text
    assert "layer 2" in checked.text
    assert "over 4 steps" in checked.text


def places(chart):
    svg = ElementTree.fromstring(chart)
    lines = [line.get("points") for line in svg.iter("{http://www.w3.org/2000/svg}polyline")]
    return [[tuple(map(float, place.split(","))) for place in line.split()] for line in lines]


def test_chart_puts_points_in_their_places():
    ((left, top), (middle, half), (right, bottom)) = places(html.line_chart([html.Line("a", [0, 5, 10], [2, 1, 0])], "x", "y"))[
        0
    ]
    assert (left, right) == (html.LEFT, html.WIDTH - 10)
    assert (top, bottom) == (html.TOP, html.HEIGHT - html.BOTTOM)
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert half == pytest.approx((top + bottom) / 2, abs=0.1)


def test_logarithmic_chart_has_equal_distances_for_equal_factors():
    line = html.Line("a", [0, 1, 2, 3, 4], [1, 0.1, 0.01, 0, np.nan])
    ((_, first), (_, second), (_, third)) = places(html.line_chart([line], "x", "y", logarithmic=True))[0]
    assert second - first == pytest.approx(third - second, abs=0.2)


def test_chart_leaves_out_what_is_not_finite():
    line = html.Line("a", [0, 1, 2, 3], [1, np.inf, np.nan, 3])
    assert len(places(html.line_chart([line], "x", "y"))[0]) == 2
    assert html.line_chart([html.Line("a", [0], [np.nan])], "x", "y") == ""


def test_chart_of_a_long_run_is_short():
    n = 99_999  # so that equal strides miss the last one
    chart = html.line_chart([html.Line("a", range(n), range(n))], "x", "y")
    assert len(chart) < 20_000
    assert places(chart)[0][-1] == (html.WIDTH - 10, html.TOP)
    assert ">99,998<" in chart


def test_chart_of_one_point_is_a_dot():
    assert "<circle" in html.line_chart([html.Line("a", [3], [1])], "x", "y")
