"""The training loop: evaluations, checkpoints, messages, the files of a run folder, and how a run ends."""

import io
import itertools
import json
import math
import os
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import errors
from bptt.backend import CuPy
from bptt.checkpoint import run_folder
from bptt.config.settings import Settings, from_flags
from bptt.display import plots
from bptt.errors import InputError
from bptt.inference.evaluation import Evaluation
from bptt.nn import model, optimizers, tree
from bptt.train_step import stepper
from bptt.training import checkpoints, intervals, loop, setup
from runs import replace_adam

NAMES = [a + b + c for a in "bdk" for b in "aeiou" for c in ("nn", "r")]  # 30 lines of 3 or 4 characters
PROSE = "the cat sat on the mat, and the dog did not. " * 8 + "\n"  # a stream of 361 characters


def train(text: Any = NAMES, news: Any = None, **flags: Any) -> bptt.LanguageModel:
    small = {"hidden": 5, "steps": 4, "batch": 6, "backend": "numpy", **flags}
    return bptt.train(text, report=[].append if news is None else news.append, **small)


def theta(trained: bptt.LanguageModel) -> Any:
    return tree.ravel(trained.params)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the curves takes longer than all the rest."""
    monkeypatch.setattr(plots, "available", lambda: False)


def saved_steps(out: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in run_folder.checkpoints(out))


@pytest.fixture
def at_update(monkeypatch):
    """Let something happen in place of update number n; adam otherwise."""

    def do(n, what):
        calls = []

        def update(*arguments, **options):
            calls.append(None)
            return what(*arguments) if len(calls) == n else optimizers.adam(*arguments, **options)

        replace_adam(monkeypatch, update)

    return do


def raises(error):
    def update(*_):
        raise error

    return update


@pytest.fixture
def validation_losses(monkeypatch):
    """Let the evaluations on the validation set give these losses; the list of the weights evaluated."""

    def set_losses(*numbers):
        seen, left = [], list(numbers)

        def measure(task, params):
            seen.append(tree.ravel(params))
            return Evaluation(left.pop(0), 1)

        monkeypatch.setattr(loop.validation, "evaluate", measure)
        return seen

    return set_losses


# What is kept


def test_the_best_model_is_kept(validation_losses):
    seen = validation_losses(3.0, 1.0, 2.0, 1.0)
    trained = train(steps=4)
    assert (trained.record["step"], trained.record["held_out"], trained.record["ended"]) == (2, 1.0, "")
    np.testing.assert_array_equal(theta(trained), seen[1])


def test_the_best_and_the_newest_checkpoints_stay(validation_losses, tmp_path):
    validation_losses(4.0, 1.0, *[2.0] * 8)
    trained = train(steps=10, out=tmp_path / "m", keep=2)
    assert saved_steps(tmp_path / "m") == [2, 9, 10]
    links = {name: os.readlink(tmp_path / "m" / "checkpoints" / name) for name in ("latest", "best")}
    assert links == {"latest": "step-00000010", "best": "step-00000002"}
    for place in ("m", "m/checkpoints/best", "m/checkpoints/step-00000002"):
        np.testing.assert_array_equal(theta(bptt.load(tmp_path / place, backend="numpy")), theta(trained))
    assert bptt.load(tmp_path / "m").record["held_out"] == 1.0


def test_a_new_best_is_saved_between_two_checkpoints(validation_losses, tmp_path):
    validation_losses(3.0, 2.0, 1.0, 5.0)
    train(steps=40, checkpoint_every=16, out=tmp_path / "m", evaluate_every=10, keep=9)
    assert saved_steps(tmp_path / "m") == [10, 16, 20, 30, 32, 40]
    assert run_folder.read_checkpoint(tmp_path / "m")[0].name == "step-00000030"


def test_a_run_without_improvement_stops_when_patience_runs_out(validation_losses, tmp_path):
    validation_losses(3.0, 2.0, 2.5, 2.4, 2.3)
    news = []
    trained = train(steps=100, patience=3, out=tmp_path / "m", news=news)
    assert (trained.record["step"], trained.record["ended"]) == (20, "patience")
    assert saved_steps(tmp_path / "m") == [20, 30, 40, 50]
    assert "stopped early at step 50: no lower validation loss in 3 evaluations" in news[-1]


def test_patience_without_a_validation_set_warns():
    with pytest.warns(errors.TrainingWarning, match="patience=2 waits for nothing: no part of the text is held out") as seen:
        bptt.train(NAMES, report=None, hidden=4, steps=1, backend="numpy", validation=0, patience=2)
    assert seen[0].filename == __file__  # the line of the caller


def test_the_last_model_is_kept_without_a_validation_set(tmp_path):
    trained = train(steps=4, validation=0, out=tmp_path / "m")
    assert (trained.record["step"], trained.record["held_out"]) == (4, None)
    assert run_folder.read_checkpoint(tmp_path / "m")[0].name == "step-00000004"


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    news = []
    train(news=news)
    assert os.listdir(tmp_path) == []
    assert "saved" not in news[-1]


# What lies in the folder


@pytest.mark.parametrize("text", [NAMES, PROSE], ids=["lines", "stream"])
def test_a_run_folder_holds_its_files(tmp_path, text):
    out = tmp_path / "m"
    train(text, steps=30, out=out, evaluate_every=7)
    names = {"config.toml", "env.json", "metrics.jsonl", "samples.txt", "checkpoints", ".lock"}
    assert {path.name for path in out.iterdir()} == names
    history = rows(out)
    assert [row["step"] for row in history] == list(range(1, 31))
    assert [row["step"] for row in history if "held_out" in row] == [7, 14, 21, 28, 30]
    assert all(list(row)[:6] == ["step", "loss", "rate", "norm", "characters", "seconds"] for row in history)
    assert [len(row["sample"]) for row in history if "sample" in row] == [10 if text is NAMES else 1] * 5
    assert (out / "samples.txt").read_text().startswith(f"step 7, {history[6]['held_out']:.4f} nats per held-out character (")
    (only,) = json.loads((out / "env.json").read_text())["sessions"]
    assert (only["pid"], only["ended"], only["step"], only["backend"]) == (os.getpid(), "done", 30, "numpy float32")
    assert only["versions"]["numpy"] == np.__version__


def test_a_row_is_the_mean_of_its_steps(tmp_path, monkeypatch):
    seen = []
    real = model.loss_and_grad

    def spy(*arguments, **options):
        result = real(*arguments, **options)
        seen.append((float(result[0]), float(np.linalg.norm(tree.ravel(result[1]))), arguments[4].sum()))
        return result

    monkeypatch.setattr(model, "loss_and_grad", spy)
    monkeypatch.setenv("BPTT_KERNELS", "0")  # a compiled gradient does not call it
    train(PROSE, steps=250, out=tmp_path / "m", length=5, dtype="float64")
    history = rows(tmp_path / "m")
    assert [row["step"] for row in history][:4] == [2, 4, 6, 8]
    for n, row in enumerate(history[:12]):
        losses, norms, _ = zip(*seen[2 * n : 2 * n + 2])
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-12)
        assert row["norm"] == pytest.approx(max(norms), rel=1e-9)
        assert row["characters"] == sum(targets for _, _, targets in seen[: 2 * n + 2])


def test_config_toml_holds_all_that_was_chosen(tmp_path):
    train("dinosaurs", steps=3, out=tmp_path / "m", learning_rate=0.01, layers=2)
    table = tomllib.loads((tmp_path / "m" / "config.toml").read_text())
    assert table["text"] == "dinosaurs"
    assert table | {"hidden": 5, "layers": 2, "learning_rate": 0.01, "mode": "lines", "dropout": 0.01, "length": 256} == table
    assert table.keys() - {"text"} <= {name.rstrip("_") for name in vars(Settings())}
    assert not table.keys() & {"out", "epochs"}


def test_config_toml_repeats_the_run(tmp_path):
    path = tmp_path / 'the "names" \\ é.txt'
    path.write_text("\n".join(NAMES))
    first = train(path, out=tmp_path / "m", cell="lstm", dropout=0.2, steps=7)
    again = bptt.train(config=tmp_path / "m" / "config.toml", report=None)
    np.testing.assert_array_equal(theta(first), theta(again))


def test_the_record_holds_every_setting_and_what_was_chosen(tmp_path):
    trained = train(PROSE, out=tmp_path / "m", layers=2, validation=0, dropout=0.0, length=9)
    record = json.loads(json.dumps(trained.record))
    assert record == trained.record
    assert record["settings"].keys() == vars(Settings()).keys()
    settings = {"hidden": 5, "steps": 4, "batch": 6, "layers": 2, "out": str(tmp_path / "m")}
    assert record["settings"] | settings == record["settings"]
    assert record["plan"] | {"hidden": 5, "steps": 4, "batch": 6, "length": 9, "dropout": 0.0} == record["plan"]
    assert (record["text"], record["source"], record["targets"]) == ("text", "", 361)
    assert record["backend"] == {"asked": "numpy", "ran": "numpy"}
    assert train().record["settings"]["out"] is None


def test_a_curve_that_cannot_be_drawn_gives_a_warning(tmp_path, monkeypatch):
    def curve(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "available", lambda: True)
    monkeypatch.setattr(plots, "save_curve", curve)
    with pytest.warns(errors.TrainingWarning, match=r"curve.png could not be drawn: .*No space left"):
        assert train(out=tmp_path / "m").record["ended"] == ""


def test_the_curve_is_drawn_at_each_evaluation_and_at_the_end(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "available", lambda: True)
    monkeypatch.setattr(plots, "save_curve", lambda history, *_: drawn.append(history[-1]["step"]) or "a figure")
    monkeypatch.setattr(loop, "CURVE_SECONDS", 0.0)
    train(steps=100, evaluate_every=30, stop_after=70, out=tmp_path / "m")
    assert drawn == [30, 60, 70]
    monkeypatch.setattr(
        loop, "CURVE_SECONDS", 3600.0
    )  # as if they came so soon after each other that drawing would take longer
    bptt.train(NAMES, resume=tmp_path / "m", report=None, steps=130)
    assert drawn[3:] == [90, 130]


# What is reported


def test_about_ten_evaluations_are_made_with_one_at_the_last_step():
    for count, lines in [(1, 1), (4, 4), (25, 13), (40, 10)]:
        news = []
        train(steps=count, news=news)
        measured = [line for line in news if " s  step" in line]
        assert len(measured) == lines
        assert f"step {count}  loss" in measured[-1]


def test_progress_is_reported_as_json(tmp_path):
    news = []
    trained = train(steps=8, json=True, news=news, out=tmp_path / "m", evaluate_every=4)
    events = [json.loads(line) for line in news]
    assert [row["event"] for row in events] == ["start", *["log"] * 3, "measurement", *["log"] * 3, "measurement", "end"]
    assert events[0]["record"]["plan"]["steps"] == 8
    assert [row["step"] for row in events[1:-1]] == list(range(1, 9))
    end = {"ended": "done", "step": 8, "best": trained.record["step"], "out": str(tmp_path / "m")}
    assert events[-1] | end == events[-1]


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock that is 0.3 s further each time that it is read."""
    now = itertools.count(1)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: 0.3 * next(now))


@pytest.mark.usefixtures("slow_clock")
def test_progress_is_reported_every_few_seconds():
    news = []
    train(steps=300, news=news, validation=0)
    events = [line for line in news if "to go" in line]
    assert len(events) > 5
    assert all("characters/s, about " in line for line in events)


@pytest.mark.usefixtures("slow_clock")
def test_progress_between_two_rows_is_an_event_of_its_own():
    news = []
    train(steps=300_000, stop_after=299, news=news, validation=0, json=True)  # a row comes at each 3,000th step
    rows = [json.loads(line) for line in news]
    steps = [row["step"] for row in rows if row["event"] == "progress"]
    assert len(steps) > 1
    assert steps == sorted(set(steps))
    assert [row["event"] for row in rows if row["event"] != "progress"] == ["start", "end"]


@pytest.mark.parametrize("late", [1, 4])
def test_metrics_are_read_every_sync_every_updates(monkeypatch, late):
    looked, look = [], loop._read_metrics
    monkeypatch.setattr(
        loop, "_read_metrics", lambda task, state, *rest: looked.append(state.state.step) or look(task, state, *rest)
    )
    monkeypatch.setattr(intervals, "max_unread_updates", lambda task: stepper.SYNC_EVERY * late)
    train(steps=100_000, stop_after=130)
    assert looked == [*range(16 * late, 130, 16 * late), 130]


def test_metrics_are_read_less_often_from_a_gpu():
    task = setup.from_scratch(NAMES, from_flags({"steps": 3, "backend": "numpy"})).task
    assert intervals.max_unread_updates(task) == stepper.SYNC_EVERY
    on_gpu = task._replace(backend=CuPy("cupy", None, None, "float32"))
    assert intervals.max_unread_updates(on_gpu) == stepper.SYNC_EVERY * intervals.GPU_FACTOR > stepper.SYNC_EVERY


def test_a_long_run_keeps_few_metrics_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(intervals, "MAX_ROW_INTERVAL", 5)
    train(steps=1_000_000_000, stop_after=17, out=tmp_path / "m")
    assert [row["step"] for row in rows(tmp_path / "m")] == [5, 10, 15]
    saved = json.loads((tmp_path / "m" / "checkpoints" / "latest" / "training.json").read_text())
    assert (len(saved["losses"]), len(saved["norms"])) == (2, 2)


def test_quiet_reports_nothing(tmp_path):
    news = []
    train(news=news, quiet=True)
    train(news=news, quiet=True, out=tmp_path / "m")
    assert news == []


def test_report_none_prints_nothing(capsys):
    bptt.train(NAMES, report=None, hidden=4, steps=2, backend="numpy")
    assert capsys.readouterr() == ("", "")


def test_an_ascii_console_does_not_stop_a_run(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", console)
    bptt.train(["привет", "мир"] * 9, hidden=4, steps=3, backend="numpy")
    assert b"??" in console.buffer.getvalue()


# How a run ends


def test_ctrl_c_keeps_the_best_model(at_update, validation_losses):
    at_update(28, raises(KeyboardInterrupt()))
    seen = validation_losses(1.0, 2.0)
    news = []
    trained = train(steps=100, news=news)
    assert (trained.record["step"], trained.record["ended"]) == (10, "SIGINT")
    np.testing.assert_array_equal(theta(trained), seen[0])
    assert "interrupted (SIGINT) at step 27: keeping the best model so far" in news[-1]


def test_ctrl_c_before_the_first_evaluation_keeps_the_last_step(at_update, tmp_path):
    at_update(4, raises(KeyboardInterrupt()))
    trained = train(steps=1000, out=tmp_path / "m")
    assert trained.record["step"] == 3
    assert saved_steps(tmp_path / "m") == [3]
    np.testing.assert_array_equal(theta(bptt.load(tmp_path / "m", backend="numpy")), theta(trained))


def test_ctrl_c_before_the_first_step_raises_keyboard_interrupt(at_update):
    at_update(1, raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt, match="interrupted; nothing was learnt, nothing is saved"):
        train()


@pytest.mark.parametrize("failure", [MemoryError("no memory"), OSError(28, "No space left on device"), SystemExit(1)])
def test_a_run_that_fails_is_saved_and_can_be_resumed(at_update, monkeypatch, tmp_path, failure):
    whole = train(steps=50, out=tmp_path / "whole")
    at_update(28, raises(failure))
    with (
        pytest.warns(
            errors.TrainingWarning, match=r"the run failed \(\w+\): resume it with: bptt.train\(TEXT, resume='.*m'\)$"
        ),
        pytest.raises(errors.OutOfMemory if isinstance(failure, MemoryError) else type(failure)),
    ):
        train(steps=50, out=tmp_path / "m")
    assert saved_steps(tmp_path / "m")[-1] == 27
    monkeypatch.undo()
    np.testing.assert_array_equal(theta(bptt.train(resume=tmp_path / "m", text=NAMES, report=None)), theta(whole))


def test_missing_checkpoints_do_not_hide_the_error_of_a_run(tmp_path):
    place = tmp_path / "m" / "checkpoints"

    def report(words):
        if " loss " in words and place.exists():
            place.rename(tmp_path / "gone")
            place.symlink_to("another disk")
            raise ValueError("of the report")

    with pytest.warns(errors.TrainingWarning), pytest.raises(ValueError, match="of the report"):
        bptt.train(NAMES, report=report, hidden=4, steps=9, backend="numpy", out=tmp_path / "m")


def test_a_failing_report_function_loses_no_updates(tmp_path):
    def report(line):
        if " s  step" in line:
            raise RuntimeError("no listener")

    with pytest.warns(errors.TrainingWarning, match="RuntimeError"), pytest.raises(RuntimeError, match="no listener"):
        bptt.train(NAMES, report=report, hidden=5, steps=100, backend="numpy", out=tmp_path / "m")
    assert bptt.load(tmp_path / "m").record["step"] == 10


def spoilt(part):
    """A spy of loss_and_gradient whose 27th gradient, or loss, is not a number in one place."""
    calls = []
    real = model.loss_and_grad

    def spy(config, params, *rest, **options):
        loss, gradient, states = real(config, params, *rest, **options)
        calls.append(tree.ravel(params))
        if len(calls) < 27:
            return loss, gradient, states
        if part == "loss":
            return loss * math.nan, gradient, states
        bad = gradient.layers[0]._replace(Waa=gradient.layers[0].Waa * math.inf)
        return loss, gradient._replace(layers=(bad,)), states

    return spy, calls


@pytest.mark.parametrize("validation", [0, 0.2])
@pytest.mark.parametrize(("part", "words"), [("loss", "the loss"), ("gradient", "the gradient of layers.0.Waa")])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(monkeypatch, tmp_path, part, words, validation):
    spy, calls = spoilt(part)
    monkeypatch.setattr(model, "loss_and_grad", spy)
    monkeypatch.setenv("BPTT_KERNELS", "0")  # a compiled gradient does not call it
    expected = rf"^step 27: NaN or infinity in {words}: try learning_rate=0.001; the best model before that, from step"
    with pytest.warns(errors.TrainingWarning, match=expected):
        trained = train(steps=100, validation=validation, learning_rate=0.01, out=tmp_path / "m")
    assert (trained.record["step"] in (10, 20), trained.record["ended"]) == (True, "diverged")
    assert all((before == calls[26]).all() for before in calls[27:])  # frozen from the bad one on
    assert saved_steps(tmp_path / "m") == [10, 20]
    assert np.isfinite(theta(bptt.load(tmp_path / "m"))).all()


def test_weights_that_are_not_finite_are_not_saved(at_update, tmp_path):
    at_update(20, lambda theta, d, memory, rate: (theta * math.inf, memory))
    with pytest.warns(
        errors.TrainingWarning, match=r"^step 20: NaN or infinity in the weights layers.0.Wax: .* from step 10, is kept in .*m$"
    ):
        train(steps=100, validation=0, out=tmp_path / "m")
    assert saved_steps(tmp_path / "m") == [10]


def test_a_run_that_was_never_finite_saves_nothing(tmp_path):
    with pytest.raises(bptt.Diverged, match=r"try learning_rate=100000; nothing was learnt, nothing is saved"):
        train(optimizer="sgd", learning_rate=1e6, clip_norm=0, dropout=0.5, steps=100, out=tmp_path / "m")
    assert saved_steps(tmp_path / "m") == []


# Where it is saved


def test_an_existing_out_path_is_refused_before_training(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "file").write_text("mine")
    for out, words in [("m", "already exists"), ("file/m", "no folder can be made there")]:
        news = []
        with pytest.raises(InputError, match=words):
            train(out=str(tmp_path / out), news=news)
        assert news == []


def test_an_existing_run_is_refused_with_the_resume_command(tmp_path):
    train(out=tmp_path / "m")
    with pytest.raises(InputError, match=r"already exists: resume it with bptt train --resume .*m, or name a new"):
        train(out=tmp_path / "m")


def test_a_model_that_cannot_be_saved_is_returned(tmp_path, monkeypatch):
    real = run_folder.save_checkpoint

    def keep(out, saved, step, *rest):
        if step == 3:
            raise run_folder.SaveError("cannot save the model: No space left on device")
        return real(out, saved, step, *rest)

    monkeypatch.setattr(run_folder, "save_checkpoint", keep)
    monkeypatch.setattr(checkpoints, "save_elsewhere", lambda *_: None)
    with pytest.warns(errors.TrainingWarning, match="No space left on device; it is not saved"):
        trained = train(out=tmp_path / "m", validation=0)
    assert trained.record["unsaved"].endswith("it is not saved")
    assert trained.record["step"] == 3
    assert saved_steps(tmp_path / "m") == [1, 2]


def test_a_model_that_does_not_fit_the_disk_is_saved_elsewhere(tmp_path, monkeypatch):
    whole = train(steps=6)
    real = run_folder.save_checkpoint

    def keep(out, saved, step, *rest):
        if step == 3:
            raise run_folder.SaveError("full")
        return real(out, saved, step, *rest)

    monkeypatch.setattr(run_folder, "save_checkpoint", keep)
    monkeypatch.setattr(checkpoints.tempfile, "tempdir", str(tmp_path))
    with pytest.warns(errors.TrainingWarning, match=r"full; where the run stands is saved in .*bptt-m instead"):
        train(steps=6, out=tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    again = bptt.train(NAMES, resume=tmp_path / "bptt-m", report=None)
    np.testing.assert_array_equal(theta(again), theta(whole))


def test_weights_are_not_saved_if_their_metrics_cannot_be_read(at_update, monkeypatch, tmp_path):
    """The weights would be newer than what is said of them, and a run that goes on would make some steps twice."""
    at_update(28, raises(RuntimeError("lost")))
    real = loop._read_metrics

    def look(*arguments):
        if arguments[1].state.step == 27:
            raise OSError("the device is gone")
        return real(*arguments)

    monkeypatch.setattr(loop, "_read_metrics", look)
    with pytest.warns(errors.TrainingWarning, match="resume it with"), pytest.raises(RuntimeError, match="lost"):
        train(steps=1000, evaluate_every=10, out=tmp_path / "m")
    assert saved_steps(tmp_path / "m")[-1] == 20


def test_an_unread_loss_that_is_not_finite_counts_when_a_run_fails(at_update, monkeypatch, tmp_path):
    spy, _ = spoilt("gradient")
    monkeypatch.setattr(model, "loss_and_grad", spy)
    monkeypatch.setenv("BPTT_KERNELS", "0")  # a compiled gradient does not call it
    at_update(29, raises(RuntimeError("lost")))
    with pytest.warns(errors.TrainingWarning, match=r"^step 27: NaN or infinity in the gradient of layers.0.Waa"):
        trained = train(steps=1000, evaluate_every=10, keep=1, out=tmp_path / "m")
    assert trained.record["ended"] == "diverged"
    assert saved_steps(tmp_path / "m")[-1] == 20
    monkeypatch.undo()
    monkeypatch.setenv("BPTT_KERNELS", "0")  # as the run began
    assert bptt.train(NAMES, resume=tmp_path / "m", stop_after=1, report=None).record["ended"] == "paused"


def test_an_old_checkpoint_that_cannot_be_removed_stops_nothing(monkeypatch, tmp_path):
    real = os.replace

    def rename(path, target):
        if run_folder.STEP.fullmatch(Path(path).name):
            raise PermissionError(13, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(os, "replace", rename)
    assert train(steps=6, keep=1, out=tmp_path / "m").record["ended"] == ""
    assert saved_steps(tmp_path / "m") == [1, 2, 3, 4, 5, 6]


def test_a_failure_in_the_first_update_leaves_nothing(at_update, tmp_path):
    at_update(1, raises(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        train(out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_refused_resume_changes_nothing(tmp_path):
    out = tmp_path / "m"
    train(steps=20, stop_after=9, out=out, evaluate_every=20)
    (out / "metrics.jsonl").write_bytes((out / "metrics.jsonl").read_bytes() + b'{"step": 10')
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="its text has changed"):
        bptt.train([*NAMES, "bann"], resume=out, report=None)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_json_event_says_how_a_run_ended(monkeypatch, tmp_path):
    spy, _ = spoilt("loss")
    monkeypatch.setattr(model, "loss_and_grad", spy)
    monkeypatch.setenv("BPTT_KERNELS", "0")  # a compiled gradient does not call it
    news = []
    with pytest.warns(errors.TrainingWarning):
        train(steps=100, json=True, news=news, out=tmp_path / "m")
    last = json.loads(news[-1])
    assert (last["event"], last["ended"], last["out"]) == ("end", "diverged", str(tmp_path / "m"))


def test_a_checkpoint_is_saved_after_a_long_time_without_one(tmp_path, monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 20.0
        return now[0]

    monkeypatch.setattr(loop.time, "perf_counter", clock)
    seen = []
    real = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda run, now: seen.append(now.state.step) or real(run, now))
    train(steps=300, validation=0, evaluate_every=300, out=tmp_path / "m", keep=99)
    assert 3 < len(seen) < 60
    assert seen[-1] == 300


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed")
def test_a_paused_run_has_its_curve(tmp_path, monkeypatch):
    monkeypatch.undo()  # pictures are drawn
    train(steps=100, stop_after=25, out=tmp_path / "m")  # on the figure of two measurements before
    names = {"config.toml", "env.json", "metrics.jsonl", "samples.txt", "curve.png", "checkpoints", ".lock"}
    assert set(os.listdir(tmp_path / "m")) == names


def test_config_toml_follows_the_settings_of_a_resumed_run(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    train(path, steps=4, out=tmp_path / "m")
    bptt.train(resume=tmp_path / "m", steps=6, report=None)
    table = tomllib.loads((tmp_path / "m" / "config.toml").read_text())
    assert (table["steps"], table["validation"]) == (6, 0.1)


@pytest.mark.parametrize(
    ("source", "words"), [("", "bptt.train(TEXT, resume='{out}')"), ("-", "bptt train TEXT --resume {out}")]
)
def test_the_resume_command_depends_on_the_source_of_the_text(tmp_path, monkeypatch, source, words):
    if source:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(NAMES).encode())))
    news = []
    train("-" if source else NAMES, steps=20, stop_after=3, news=news, out=tmp_path / "m")
    assert words.format(out=tmp_path / "m") in news[-1]
