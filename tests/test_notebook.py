"""Progress of a run in a notebook: one output that is updated, by a stand-in for IPython."""

import sys
import types
from typing import Any

import pytest

import bptt
from bptt.display import notebook, plots
from runs import NAMES

SMALL = {"hidden": 5, "steps": 12, "batch": 6, "backend": "numpy", "evaluate_every": 4}


class Handle:
    """An output of a cell, with all that was displayed in it."""

    def __init__(self):
        self.shown: list[dict[str, str]] = []

    def update(self, data, raw):
        assert raw
        self.shown.append(data)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a cell in the kernel of a notebook."""
    handles: list[Handle] = []

    def display(data, *, raw, display_id):
        assert display_id is True
        handles.append(Handle())
        handles[-1].update(data, raw)
        return handles[-1]

    shell: Any = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setattr(notebook, "REDRAW_SECONDS", 0.0)
    return handles


def test_run_in_a_notebook_has_one_output_that_is_updated(outputs, capsys):
    trained = bptt.train(NAMES, **SMALL)
    assert capsys.readouterr().out == ""
    (handle,) = outputs
    pages = [data["text/html"] for data in handle.shown]
    assert len(pages) == 1 + 12 + 1
    steps = [int(page.partition('<progress value="')[2].partition('"')[0]) for page in pages]
    assert steps == [*range(13), 12]
    assert all('max="12"' in page for page in pages)
    assert "step 7 of 12, 0:00:0" in pages[7]
    assert "left" not in pages[0] + pages[-1]
    assert "gru, 1 x 5 units" in pages[0]
    assert "<polyline" in pages[4]
    last = handle.shown[-1]
    assert f"best at step {trained.record['step']}" in last["text/html"]
    assert "best at step" in last["text/plain"]


def test_resumed_run_shows_what_was_before(outputs, tmp_path):
    bptt.train(NAMES, out=tmp_path / "run", stop_after=6, report=None, **SMALL)
    bptt.train(NAMES, resume=tmp_path / "run")
    (handle,) = outputs
    assert '<progress value="6" max="12"' in handle.shown[0]["text/html"]
    assert "<polyline" in handle.shown[0]["text/html"]


def test_what_people_read_is_escaped(outputs):
    display = notebook.ProgressDisplay()
    display.report("<b>&\x1b[2J</b>", {"event": "start", "record": {"plan": {"steps": 3}}})
    display.report("<i>", {})
    page = outputs[0].shown[-1]["text/html"]
    assert "&lt;b&gt;&amp; [2J&lt;/b&gt;" in page
    assert "&lt;i&gt;" in page


def test_rows_in_quick_succession_are_drawn_once(outputs, monkeypatch):
    monkeypatch.setattr(notebook, "REDRAW_SECONDS", 1e9)
    bptt.train(NAMES, **SMALL)
    assert len(outputs[0].shown) == 2  # the start and the end


@pytest.mark.parametrize("flags", [{"report": print}, {"report": None}, {"quiet": True}, {"json": True}])
def test_other_reports_are_as_elsewhere(flags, outputs, capsys, tmp_path):
    bptt.train(NAMES, **SMALL, **flags)
    assert outputs == []
    lines = capsys.readouterr().out
    assert bool(lines) == (flags not in ({"report": None}, {"quiet": True}))


def test_messages_before_the_start_are_printed(outputs, capsys):
    notebook.ProgressDisplay().report("a trial", {})
    assert capsys.readouterr().out == "a trial\n"
    assert outputs == []


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch, capsys):
    shell: Any = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert not notebook.in_notebook()
    bptt.train(NAMES, **SMALL)
    assert "held out" in capsys.readouterr().out


def test_program_without_ipython_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not notebook.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not notebook.in_notebook()
