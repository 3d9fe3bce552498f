"""Callbacks of `bptt.train`: their events, what stops a run, and that a run is the same with them and without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt.checkpoint import run_folder
from bptt.display import plots
from bptt.errors import Diverged, InputError
from bptt.nn import tree
from runs import NAMES, outcome, replace_adam, saved_steps

SMALL = {"hidden": 5, "steps": 12, "batch": 6, "backend": "numpy", "evaluate_every": 4, "report": None}
LOGGED = {"step", "loss", "rate", "norm", "characters", "seconds"}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)


def train(callback: Any, **flags: Any) -> bptt.LanguageModel:
    return bptt.train(NAMES, callbacks=[callback], **{**SMALL, **flags})


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def stop_at(step: int, kind: str = "evaluation", answer: Any = True) -> Any:
    return lambda event: answer if (event.kind, event.step) == (kind, step) else None


# Events


def test_events_come_in_order(tmp_path):
    events: list[bptt.Event] = []
    train(events.append, out=tmp_path / "run")
    steps = [n for n in range(1, 13) for _ in range(2 if n % 4 == 0 else 1)]
    kinds = [*["log"] * 3, "evaluation", "checkpoint"] * 3
    assert [(event.kind, event.step) for event in events] == [("start", 0), *zip(kinds, steps, strict=True), ("end", 12)]
    assert {event.steps for event in events} == {12}


def test_event_has_the_row_of_metrics_jsonl(tmp_path):
    events: list[bptt.Event] = []
    train(events.append, out=tmp_path / "run")
    assert [event.row for event in events if event.kind in ("log", "evaluation")] == rows(tmp_path / "run")
    for event in events:
        more = {"evaluation": {"held_out", "sample", "radii"}}.get(event.kind, set())
        assert event.row.keys() == (LOGGED | more if event.kind in ("log", "evaluation") else event.row.keys())
        assert bool(event.row) == (event.kind not in ("start", "checkpoint"))
    assert events[-1].row == {
        "ended": "done",
        "step": 12,
        "best": 12,
        "held_out": events[-3].row["held_out"],
        "out": str(tmp_path / "run"),
    }


def test_checkpoint_event_comes_after_the_checkpoint(tmp_path):
    seen = []

    def look(event: bptt.Event) -> None:
        if event.kind == "checkpoint":
            seen.append(bptt.load(event.folder, backend="numpy").score("ban") == event.model.score("ban"))
        else:
            assert event.folder == tmp_path / "run"

    train(look, out=tmp_path / "run", average=0)
    assert seen == [True] * 3


def test_run_in_memory_has_no_checkpoint_event():
    events: list[bptt.Event] = []
    train(events.append)
    assert {event.kind for event in events} == {"start", "log", "evaluation", "end"}
    assert {event.folder for event in events} == {None}


def test_event_has_the_settings_and_what_was_chosen():
    events: list[bptt.Event] = []
    trained = train(events.append, seed=3)
    record = trained.record
    assert all(event.settings == {**record["settings"], **record["plan"]} for event in events)
    assert events[0].settings["seed"] == 3
    assert events[0].settings["learning_rate"] == record["plan"]["learning_rate"] is not None


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_model_of_an_event_is_that_of_its_step_also_later(average, tmp_path):
    events: list[bptt.Event] = []
    trained = train(events.append, average=average, out=tmp_path / "run", keep=9)
    for event in events:
        if event.kind == "checkpoint":
            saved = bptt.load(event.folder, backend="numpy")
            np.testing.assert_array_equal(tree.ravel(event.model.params), tree.ravel(saved.params))
            assert event.model.record["step"] == event.step
            assert event.model is event.model
    assert events[-1].model is trained


def test_model_is_made_only_when_it_is_asked_for(monkeypatch):
    made = []
    make = bptt.training.checkpoints.current_model
    monkeypatch.setattr("bptt.training.events.checkpoints.current_model", lambda *parts: made.append(parts) or make(*parts))
    count = []
    train(lambda event: count.append(len(made)) if event.kind == "log" else None)
    assert count == [0, 0, 0, 1, 1, 1, 2, 2, 2]  # the evaluations of the loop need one
    made.clear()
    train(lambda event: event.model and None)
    assert len(made) == 3 + 1 + 12


def test_repr_of_an_event_is_one_line():
    lines: list[str] = []
    train(lambda event: lines.append(repr(event)))
    assert lines[0] == "<bptt.Event: start at step 0 of 12, row {}>"
    assert lines[1].startswith("<bptt.Event: log at step 1 of 12, row {'step': 1, 'loss': ")


# Bit for bit


def test_run_with_callbacks_equals_one_without(tmp_path):
    def meddle(event: bptt.Event) -> bool:
        np.random.default_rng(0).random(3)
        event.row.clear()
        event.settings.clear()
        event.model.sample(2)
        event.model.score("ban")
        return False

    callbacks = [meddle, lambda event: None]
    with_callbacks = bptt.train(NAMES, out=tmp_path / "with", callbacks=callbacks, **SMALL)
    without = bptt.train(NAMES, out=tmp_path / "without", **SMALL)
    np.testing.assert_array_equal(tree.ravel(with_callbacks.params), tree.ravel(without.params))
    assert outcome(tmp_path / "with") == outcome(tmp_path / "without")
    assert "callbacks" not in (tmp_path / "with" / "config.toml").read_text()
    assert "callbacks" not in with_callbacks.record["settings"]


# Stopping


@pytest.mark.parametrize(("kind", "step"), [("log", 5), ("evaluation", 8), ("checkpoint", 8)])
def test_true_stops_the_run_and_it_can_be_resumed(kind, step, tmp_path):
    events: list[bptt.Event] = []
    lines: list[str] = []
    callbacks = [stop_at(step, kind), events.append]
    trained = bptt.train(NAMES, callbacks=callbacks, **{**SMALL, "report": lines.append, "out": tmp_path / "run"})
    assert trained.record["ended"] == "callback"
    assert rows(tmp_path / "run")[-1]["step"] == saved_steps(tmp_path / "run")[-1] == step
    assert [(event.kind, event.step) for event in events[-2:]] == [("checkpoint", step), ("end", step)]
    assert events[-1].row["ended"] == "callback"
    assert lines[-1].startswith(f"stopped by a callback at step {step}: saved in {tmp_path / 'run'}, resume with")
    sessions = json.loads((tmp_path / "run" / "env.json").read_text())["sessions"]
    assert (sessions[-1]["ended"], sessions[-1]["step"]) == ("callback", step)
    bptt.train(NAMES, resume=tmp_path / "run", report=None)
    bptt.train(NAMES, out=tmp_path / "whole", **SMALL)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_true_stops_a_run_in_memory_with_the_best_model():
    trained = train(stop_at(5, "log"))
    assert (trained.record["ended"], trained.record["step"]) == ("callback", 4)


@pytest.mark.parametrize("answer", [False, None, 1, "yes", [1]])
def test_other_answers_do_not_stop_the_run(answer):
    assert train(lambda event: answer).record["ended"] == ""


def test_answer_of_numpy_stops_the_run():
    assert train(stop_at(4, answer=np.float32(1) < np.float32(2))).record["ended"] == "callback"


@pytest.mark.parametrize(("kind", "step"), [("start", 0), ("evaluation", 12), ("end", 12)])
def test_true_at_the_start_or_after_the_last_update_stops_nothing(kind, step):
    trained = train(stop_at(step, kind))
    assert (trained.record["ended"], trained.record["step"]) == ("", 12)


def test_every_callback_gets_the_event_that_stops_the_run():
    events: list[bptt.Event] = []
    bptt.train(NAMES, callbacks=[stop_at(4), events.append], **SMALL)
    assert [event.kind for event in events[-2:]] == ["evaluation", "end"]


# Exceptions


@pytest.mark.parametrize(("kind", "step"), [("log", 5), ("evaluation", 8), ("checkpoint", 8)])
def test_exception_is_raised_after_the_weights_are_saved(kind, step, tmp_path):
    events: list[bptt.Event] = []

    def fail(event: bptt.Event) -> None:
        events.append(event)
        if (event.kind, event.step) == (kind, step):
            raise ZeroDivisionError("of the callback")

    with pytest.warns(bptt.TrainingWarning, match="the run failed"), pytest.raises(ZeroDivisionError, match="of the callback"):
        train(fail, out=tmp_path / "run")
    assert (events[-1].kind, events[-1].row["ended"], events[-1].step) == ("end", "failed", step)
    bptt.train(NAMES, resume=tmp_path / "run", report=None)
    bptt.train(NAMES, out=tmp_path / "whole", **SMALL)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_exception_at_the_start_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError):
        train(lambda event: 1 / event.step, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_exception_at_the_end_is_raised_and_the_run_is_there(tmp_path):
    def fail(event: bptt.Event) -> None:
        if event.kind == "end":
            raise KeyError("of the callback")

    with pytest.raises(KeyError, match="of the callback"):
        train(fail, out=tmp_path / "run")
    assert bptt.load(tmp_path / "run").record["step"] == 12


def test_first_exception_is_raised_if_the_end_fails_too():
    kinds: list[str] = []

    def fail(event: bptt.Event) -> None:
        kinds.append(event.kind)
        if event.kind != "start":
            raise KeyError(event.kind)

    with pytest.raises(KeyError, match="log"):
        train(fail)
    assert kinds == ["start", "log", "end"]


def test_run_that_diverges_sends_its_end(monkeypatch):
    replace_adam(monkeypatch, lambda vector, grad, state, *_, **__: (vector * np.float32(np.nan), state))
    events: list[bptt.Event] = []
    with pytest.raises(Diverged):
        train(events.append)
    assert (events[-1].kind, events[-1].row["ended"]) == ("end", "diverged")


# What is refused, and what is public


@pytest.mark.parametrize("callbacks", [print, 3, [3], [None]])
def test_what_is_no_list_of_functions_is_refused(callbacks):
    with pytest.raises(InputError, match=r"expected .*functions"):
        bptt.train(NAMES, callbacks=callbacks, **SMALL)


def test_nothing_is_trained_before_callbacks_are_checked(tmp_path):
    with pytest.raises(InputError):
        bptt.train(NAMES, callbacks=[3], out=tmp_path / "run", **SMALL)
    assert not run_folder.is_run(tmp_path / "run")
