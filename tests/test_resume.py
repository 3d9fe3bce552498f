"""Going on: a run that is stopped and resumed, wherever and however often, ends in the bits of one that never was."""

import io
import json
import os
import re
import shutil
import sys
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import bptt
from bptt.checkpoint import format as checkpoint_format
from bptt.checkpoint import run_folder, store
from bptt.config.settings import SETTING_NAMES as SETTINGS
from bptt.display import plots
from bptt.errors import CheckpointError, CheckpointWarning, InputError, option
from bptt.inference.evaluation import Evaluation
from bptt.nn import tree
from bptt.nn.optimizers import OPTIMIZERS
from bptt.nn.schedules import SCHEDULES
from bptt.training import loop
from runs import NAMES, PROSE, flip_last_bit, newest_checkpoint, outcome, saved_steps

LONG = [name * 3 for name in NAMES]  # lines of 9 or 12 characters: four windows or five, of three steps each
TEXTS = {"lines": "\n".join(LONG) + "\n", "stream": PROSE}
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
MODES = pytest.mark.parametrize("mode", ["lines", "stream"])
STEPS = 12

# settings that may change on resume; the others belong to the run
ANEW = {"backend", "device", "require_backend", "graph", "distributed", "nccl"}
ANEW |= {"steps", "evaluate_every", "patience", "checkpoint_every", "keep"}
ANEW |= {"stop_after", "quiet", "json"}
OTHERS = {
    "out": "elsewhere",
    "from_": "elsewhere",
    "new_symbols": "add",
    "dtype": "float64",
    "cell": "lstm",
    "hidden": 7,
    "layers": 3,
    "dropout": 0.1,
    "init": "orthogonal",
    "batch": 5,
    "length": 9,
    "micro_batches": 3,
    "recompute_every": 2,
    "mode": "stream",
    "separator": "!",
    "encoding": "cp1252",
    "glob": "texts",
    "vocabulary": "bytes",
    "epochs": 3,
    "budget": "5m",
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "parametrization": "mup",
    "schedule": "linear",
    "warmup": 3,
    "final_rate": 0.5,
    "beta1": 0.8,
    "beta2": 0.8,
    "weight_decay": 0.3,
    "average": 0.7,
    "clip_norm": 2.0,
    "seed": 4,
    "split_seed": 4,
    "duplicates": "independent",
    "validation": 0.3,
}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the curve takes longer than all the rest."""
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def text(tmp_path):
    """A file of lines."""
    path = tmp_path / "text.txt"
    path.write_text(TEXTS["lines"])
    return path


@pytest.fixture
def validation_losses(monkeypatch):
    """Let the evaluations on the validation set give these losses."""

    def set_losses(*numbers):
        left = list(numbers)
        monkeypatch.setattr(loop.validation, "evaluate", lambda *_: Evaluation(left.pop(0), 1))

    return set_losses


def train(text: Any, **flags: Any) -> bptt.LanguageModel:
    small = {"hidden": 3, "layers": 2, "dropout": 0.3, "steps": STEPS, "batch": 4, "length": 3, "evaluate_every": 4}
    if flags.get("config"):
        small = {}
    return bptt.train(text, report=None, **{"backend": "numpy", **small, **flags})


def resume(place: Any, text: Any = None, **flags: Any) -> bptt.LanguageModel:
    return bptt.train(text, report=None, resume=place, **flags)


def train_with_interruptions(text: Any, out: Any, *stops: int, **flags: Any) -> bptt.LanguageModel:
    """Train for stops[0] steps, resume for stops[1] steps and so on, and then to the end."""
    first, *others = [*stops, None]
    trained = train(text, out=out, stop_after=first, **flags)
    for count in others:
        trained = resume(out, stop_after=count)
    return trained


def theta(trained: bptt.LanguageModel) -> Any:
    return tree.ravel(trained.params)


def progress(run: Any) -> dict[str, Any]:
    return json.loads((newest_checkpoint(run) / "training.json").read_text())


# The same bits


@CELLS
@MODES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, cell, mode, dtype):
    (tmp_path / "text").write_text(TEXTS[mode])
    flags = {"cell": cell, "mode": mode, "dtype": dtype}
    whole = train(tmp_path / "text", out=tmp_path / "whole", **flags)
    parts = train_with_interruptions(tmp_path / "text", tmp_path / "parts", 5, 4, **flags)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert theta(whole).dtype == dtype
    np.testing.assert_array_equal(theta(parts), theta(whole))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_averaged_runs_of_every_schedule_are_resumed_bit_for_bit(tmp_path, text, schedule, micro_batches):
    flags = {"schedule": schedule, "average": 0.8, "parametrization": "mup", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.9}
    flags |= {"warmup": 4, "final_rate": 0.1, "micro_batches": micro_batches}
    whole = train(text, out=tmp_path / "whole", **flags)
    parts = train_with_interruptions(text, tmp_path / "parts", 5, 4, **flags)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    np.testing.assert_array_equal(theta(parts), theta(whole))


def test_the_averaged_weights_are_measured_and_saved_and_the_raw_ones_resumed(tmp_path, text):
    """The reference is a run without an average, whose parameters after each step are known."""
    flags = {"average": 0.5, "evaluate_every": 1, "keep": 20, "validation": 0}
    train(text, out=tmp_path / "raw", **{**flags, "average": 0})
    train(text, out=tmp_path / "run", **flags)
    path = "checkpoints/step-{:08d}/"
    raw = [load_file(tmp_path / "raw" / path.format(step) / "model.safetensors")["Wya"] for step in range(1, STEPS + 1)]
    for step in (1, 2, 7):
        folder = tmp_path / "run" / path.format(step)
        weights = 0.5 ** np.arange(step - 1, -1, -1)
        mean = np.average(raw[:step], axis=0, weights=weights)
        np.testing.assert_allclose(load_file(folder / "model.safetensors")["Wya"], mean, rtol=0, atol=1e-6)
        arrays = load_file(folder / "optimizer.safetensors")
        np.testing.assert_array_equal(arrays["params"][-raw[0].size - len(raw[0]) : -len(raw[0])], raw[step - 1].ravel())
    tuned = train(
        text, from_=tmp_path / "run" / path.format(7), steps=1, learning_rate=1e-30, hidden=None, layers=1, dropout=0.0
    )
    saved = load_file(tmp_path / "run" / path.format(7) / "model.safetensors")["Wya"]
    np.testing.assert_allclose(tuned.params.Wya, saved, rtol=0, atol=1e-6)  # --from starts from the average


def test_an_average_missing_in_a_checkpoint_is_refused_in_one_line(tmp_path, text):
    train(text, out=tmp_path / "run", average=0.5, stop_after=5)
    place = newest_checkpoint(tmp_path / "run")
    _, saved = run_folder.read_checkpoint(place, run=True)
    arrays = {name: array for name, array in saved.training_arrays.items() if name not in ("average", "params")}
    store.write(tmp_path / "forged", saved._replace(training_arrays=arrays))
    with pytest.raises(CheckpointError, match=r"has no average of the weights: use another checkpoint$"):
        resume(tmp_path / "forged")


@MODES
def test_a_run_can_be_stopped_after_any_step(tmp_path, mode):
    """Of twelve steps some are inside an epoch, some at its end, some where the next batch goes on from states."""
    (tmp_path / "text").write_text(TEXTS[mode])
    flags = {"mode": mode, "batch": 16, "length": 6}
    train(tmp_path / "text", out=tmp_path / "whole", **flags)
    places = []
    for step in range(1, STEPS):
        out = tmp_path / str(step)
        train(tmp_path / "text", out=out, stop_after=step, **flags)
        assert (saved_steps(out)[-1], progress(out)["step"]) == (step, step)
        places.append(progress(out)["batch"])
        resume(out)
        assert outcome(out) == outcome(tmp_path / "whole")
    assert {0, 1, 2, 3} <= set(places)


@CELLS
def test_a_run_can_be_stopped_after_every_step(tmp_path, text, cell):
    train(text, out=tmp_path / "whole", cell=cell)
    train_with_interruptions(text, tmp_path / "parts", *[1] * (STEPS - 1), cell=cell)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    sessions = json.loads((tmp_path / "parts" / "env.json").read_text())["sessions"]
    assert [(one["ended"], one["step"]) for one in sessions] == [("paused", n) for n in range(1, STEPS)] + [("done", STEPS)]


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_the_optimizer_state_is_resumed(tmp_path, text, optimizer):
    train(text, out=tmp_path / "whole", optimizer=optimizer)
    train_with_interruptions(text, tmp_path / "parts", 3, 5, optimizer=optimizer)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(("optimizer", "fields"), [("sgd", ""), ("rmsprop", "v"), ("adam", "tmv")])
def test_a_file_has_t_m_and_v_of_every_optimizer(tmp_path, text, optimizer, fields):
    """The format has them; what an optimizer does not remember is zero."""
    train(text, out=tmp_path / "run", optimizer=optimizer)
    arrays = run_folder.read_checkpoint(tmp_path / "run", run=True)[1].training_arrays
    assert {name for name in "tmv" if arrays[name].any()} == set(fields)
    assert arrays["t"].shape == ()
    assert arrays["m"].shape == arrays["v"].shape


@pytest.mark.parametrize("stop", [100, 101, 119, 120])  # a row of the history every second step, a measurement at step 120
def test_metrics_between_two_history_rows_are_resumed(tmp_path, text, stop):
    flags = {"steps": 240, "evaluate_every": 60, "layers": 1}
    train(text, out=tmp_path / "whole", **flags)
    train_with_interruptions(text, tmp_path / "parts", stop, **flags)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert len(outcome(tmp_path / "whole")["metrics"]) == 120


def test_evaluations_and_checkpoints_do_not_change_the_weights(tmp_path, text):
    train(text, out=tmp_path / "whole", validation=0)
    train(text, out=tmp_path / "parts", validation=0, stop_after=4, checkpoint_every=1, keep=1)
    resume(tmp_path / "parts", evaluate_every=1, checkpoint_every=5, keep=2, stop_after=5)
    trained = resume(tmp_path / "parts")
    ends = [outcome(tmp_path / name) for name in ("whole", "parts")]
    assert ends[0]["model"] == ends[1]["model"]
    assert ends[0]["optimizer"] == ends[1]["optimizer"]
    assert trained.record["held_out"] is None
    assert trained.record["step"] == STEPS


@MODES
def test_a_run_without_a_validation_set_is_resumed(tmp_path, mode):
    (tmp_path / "text").write_text(TEXTS[mode])
    train(tmp_path / "text", out=tmp_path / "whole", validation=0)
    train_with_interruptions(tmp_path / "text", tmp_path / "parts", 7, validation=0)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_run_of_bytes_is_resumed(tmp_path):
    (tmp_path / "any").write_bytes(np.random.default_rng(0).bytes(300))
    train(tmp_path / "any", out=tmp_path / "whole", vocabulary="bytes")
    train_with_interruptions(tmp_path / "any", tmp_path / "parts", 5, vocabulary="bytes")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_config_toml_repeats_a_run(tmp_path, text):
    whole = train(text, out=tmp_path / "whole", cell="lstm", seed=3, optimizer="rmsprop")
    again = bptt.train(report=None, config=tmp_path / "whole" / "config.toml", out=tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(tmp_path / "whole")
    np.testing.assert_array_equal(theta(again), theta(whole))


def test_a_run_is_resumed_on_another_backend(tmp_path):
    text = "\n".join(LONG[:8])
    flags = {"backend": "strict", "dtype": "float64", "steps": 6, "hidden": 2, "validation": 0}
    whole = train(text, **flags)
    train(text, out=tmp_path / "run", stop_after=3, **flags)
    moved = resume(tmp_path / "run", text, backend="numpy")
    assert moved.record["backend"] == {"asked": "numpy", "ran": "numpy"}
    np.testing.assert_allclose(theta(moved), whole.backend.get(theta(whole)), rtol=0, atol=1e-6)


# The best model, and when to give up


def test_the_best_model_before_a_resume_is_still_the_best(tmp_path, text, validation_losses):
    for out, stops in [("whole", ()), ("parts", (6,))]:
        validation_losses(3.0, 1.0, 2.0, 2.5, 2.6, 2.7)
        flags = {"evaluate_every": 2, "keep": 1}
        trained = train_with_interruptions(text, tmp_path / out, *stops, **flags)
        assert (trained.record["step"], trained.record["held_out"], trained.record["ended"]) == (4, 1.0, "")
    np.testing.assert_array_equal(theta(trained), theta(bptt.load(tmp_path / "whole", backend="numpy")))
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert saved_steps(tmp_path / "parts") == [4, 12]


def test_resuming_does_not_reset_patience(tmp_path, text, validation_losses):
    for out, stops in [("whole", ()), ("parts", (3, 2, 2))]:
        validation_losses(*[3.0, 1.0] + [2.0] * 9)
        flags = {"evaluate_every": 1, "patience": 6}
        trained = train_with_interruptions(text, tmp_path / out, *stops, **flags)
        assert (trained.record["step"], trained.record["ended"], saved_steps(tmp_path / out)[-1]) == (2, "patience", 8)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_run_stopped_early_resumes_until_its_next_evaluation(tmp_path, text, validation_losses):
    validation_losses(1.0, 2.0, 0.5, 0.7, 0.4)
    assert train(text, out=tmp_path / "run", evaluate_every=2, patience=1).record["ended"] == "patience"
    assert progress(tmp_path / "run")["step"] == 4
    trained = resume(tmp_path / "run")  # to a new best one, and to one that is not
    assert (trained.record["ended"], progress(tmp_path / "run")["step"], trained.record["step"]) == ("patience", 8, 6)
    assert resume(tmp_path / "run", patience=9, stop_after=3).record["step"] == 10


# More of the same


def test_a_finished_run_resumes_only_with_more_steps(tmp_path, text):
    train(text, out=tmp_path / "run")
    done = outcome(tmp_path / "run")
    for flags in ({}, {"steps": STEPS}, {"steps": 3}):
        with pytest.raises(InputError, match=r"its [\d,]+ steps are done: give more with steps, or start a new run with from_"):
            resume(tmp_path / "run", **flags)
    assert outcome(tmp_path / "run") == done
    assert resume(tmp_path / "run", steps=20).record["ended"] == ""
    assert saved_steps(tmp_path / "run")[-1] == 20
    assert [row["step"] for row in outcome(tmp_path / "run")["metrics"]] == list(range(1, 21))


def test_more_steps_change_the_learning_rate_schedule_from_there_on(tmp_path, text):
    train(text, out=tmp_path / "run", stop_after=6)
    resume(tmp_path / "run", steps=24)
    train(text, out=tmp_path / "long", steps=24)
    rates = [[row["rate"] for row in outcome(tmp_path / name)["metrics"]] for name in ("run", "long")]
    assert rates[0][6:] == rates[1][6:]
    assert rates[0][5] != rates[1][5]


def test_settings_of_the_model_cannot_change_on_resume(tmp_path, text):
    train(text, out=tmp_path / "run", stop_after=4)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert set(SETTINGS) - ANEW == OTHERS.keys()
    for name, value in OTHERS.items():
        asked = re.escape(option(name, value))
        with pytest.raises(InputError, match=f"^{asked}: a resumed run keeps this setting: leave it out, or start a new run"):
            resume(tmp_path / "run", **{name: value})
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_settings_changed_on_resume_are_kept_except_stop_after(tmp_path, text):
    assert train(text, out=tmp_path / "run", stop_after=2, nccl=True).record["settings"]["nccl"]
    resume(tmp_path / "run", stop_after=2, evaluate_every=3, checkpoint_every=1, keep=5, patience=9)
    trained = resume(tmp_path / "run")
    settings = trained.record["settings"] | trained.record["plan"]
    assert not settings["nccl"]  # the next one may have no GPU
    assert [settings[name] for name in ("evaluate_every", "checkpoint_every", "keep", "patience")] == [3, 1, 5, 9]
    assert [row["step"] for row in outcome(tmp_path / "run")["metrics"] if "held_out" in row] == [3, 6, 9, 12]
    assert saved_steps(tmp_path / "run")[-5:] == [8, 9, 10, 11, 12]


# The text


def test_a_text_from_python_must_be_given_again(tmp_path):
    whole = train(LONG)
    train(LONG, out=tmp_path / "run", stop_after=5)
    with pytest.raises(InputError, match=r"the text of this run was given in Python: give it again, beside resume$"):
        resume(tmp_path / "run")
    np.testing.assert_array_equal(theta(resume(tmp_path / "run", LONG)), theta(whole))


def test_a_text_from_standard_input_must_be_given_again(tmp_path, text, monkeypatch):
    whole = train(text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    train("-", out=tmp_path / "run", stop_after=5)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    command = rf"give it again: bptt train TEXT --resume {re.escape(str(tmp_path))}/run$"
    with pytest.raises(InputError, match=rf"run: the text of this run came from standard input or a pipe: {command}"):
        resume(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"came from standard input or a pipe: give it again: bptt train TEXT --resume .*/latest$"
    ):
        resume(tmp_path / "run" / "checkpoints" / "latest")
    np.testing.assert_array_equal(theta(resume(tmp_path / "run", text)), theta(whole))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    np.testing.assert_array_equal(theta(resume(tmp_path / "copy", "-")), theta(whole))


def test_a_moved_text_is_the_same_text(tmp_path, text):
    train(text, out=tmp_path / "run", stop_after=5)
    whole = train(text)
    text.rename(tmp_path / "moved.txt")
    with pytest.raises(InputError, match=r"text\.txt"):
        resume(tmp_path / "run")
    np.testing.assert_array_equal(theta(resume(tmp_path / "run", tmp_path / "moved.txt")), theta(whole))


@MODES
def test_a_changed_text_is_refused_without_changed_text(tmp_path, text, mode):
    text.write_text(TEXTS[mode])
    train(text, out=tmp_path / "run", stop_after=5, mode=mode)
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    learnt = len(TEXTS[mode])  # of lines, each one's end as well
    now = TEXTS[mode][:-1] * 2 + "\n"
    text.write_text(now)
    with pytest.raises(
        InputError,
        match=rf"step-00000005: its text '.*text.txt' has changed: {len(now):,} bytes now, {len(TEXTS[mode]):,} before: "
        "give it as it was, or changed_text=True to resume all the same$",
    ):
        resume(tmp_path / "run")
    with pytest.raises(
        InputError,
        match=rf"its text has changed: {len(now):,} characters to learn and to measure now, {learnt:,} before: "
        "give the text as it was, or changed_text=True to resume all the same$",
    ):
        resume(tmp_path / "run", text)
    text.write_text(TEXTS[mode].replace("a", "~").replace("e", "a").replace("~", "e"))
    with pytest.raises(InputError, match="its text has changed: it is as long as before, but not the same: give"):
        resume(tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files
    trained = resume(tmp_path / "run", changed_text=True)
    assert trained.record["ended"] == ""
    assert progress(tmp_path / "run")["step"] == STEPS
    text.write_text(TEXTS[mode])
    with pytest.raises(InputError, match="its text has changed"):  # what the run learns from now is the other one
        resume(tmp_path / "run", steps=20)


def test_a_changed_text_resets_the_best_loss(tmp_path, text, validation_losses):
    validation_losses(1.0, 8.0, 9.0)
    train(text, out=tmp_path / "run", stop_after=5)
    text.write_text(TEXTS["lines"] * 2)
    trained = resume(tmp_path / "run", changed_text=True)
    assert (trained.record["step"], trained.record["held_out"]) == (8, 8.0)
    assert (tmp_path / "run" / "checkpoints" / "best").resolve().name == "step-00000008"


def test_a_text_with_new_characters_is_refused_with_their_list(tmp_path, text):
    train(text, out=tmp_path / "run", stop_after=5)
    text.write_text(TEXTS["lines"] + "büß\n")
    for given, flags in ((text, {}), (None, {"changed_text": True})):
        with pytest.raises(InputError, match=r"step-00000005: the run cannot be resumed with its text: .*'ü'.*'ß'"):
            resume(tmp_path / "run", given, **flags)


# Checkpoints that are damaged or alone


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.safetensors", "training.json", "manifest.json", "config.json"]
)
def test_the_newest_undamaged_checkpoint_is_resumed(tmp_path, text, file):
    train(text, out=tmp_path / "whole", checkpoint_every=1)
    train(text, out=tmp_path / "run", checkpoint_every=1, stop_after=7)
    flip_last_bit(newest_checkpoint(tmp_path / "run") / file)
    (tmp_path / "run" / "checkpoints" / "step-00000006" / file).unlink()
    with pytest.warns(CheckpointWarning, match=r"step-0000000[76].*; step-00000005 is used instead$") as warned:
        resume(tmp_path / "run")
    assert len(warned) == 2
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    aside = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.damaged"))
    assert aside == ["step-00000006.damaged", "step-00000007.damaged"]


def test_a_run_with_only_damaged_checkpoints_is_refused(tmp_path, text):
    train(text, out=tmp_path / "run", checkpoint_every=1, stop_after=2)
    for step in (1, 2):
        flip_last_bit(tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"step-00000002/model\.safetensors: does not match its checksum: the file is damaged"
    ):
        resume(tmp_path / "run")


def test_a_damaged_best_checkpoint_does_not_change_the_weights(tmp_path, text, validation_losses):
    numbers = [1.0, 4.0, 3.0, 3.5, 2.0, 2.5]
    validation_losses(*numbers)
    train(text, out=tmp_path / "whole", evaluate_every=2)
    validation_losses(*numbers)
    train(text, out=tmp_path / "run", evaluate_every=2, stop_after=5)
    flip_last_bit(tmp_path / "run" / "checkpoints" / "step-00000002" / "model.safetensors")
    with pytest.warns(CheckpointWarning, match="does not match its checksum.*; the best from here on takes its place$"):
        trained = resume(tmp_path / "run")
    assert (trained.record["step"], trained.record["held_out"]) == (10, 2.0)
    run, whole = outcome(tmp_path / "run"), outcome(tmp_path / "whole")
    assert all(run[name] == whole[name] for name in ("model", "optimizer", "metrics", "samples"))
    assert (run["best"], whole["best"]) == ("step-00000010", "step-00000002")


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_a_lone_checkpoint_is_resumed_in_a_new_run(tmp_path, text, place):
    slow = {"learning_rate": 1e-3}  # the last measurement is the best one
    train(text, out=tmp_path / "whole", **slow)
    train(text, out=tmp_path / "run", stop_after=7, **slow)
    shutil.move(newest_checkpoint(tmp_path / "run"), tmp_path / "alone")
    shutil.rmtree(tmp_path / "run")
    whole = outcome(tmp_path / "whole")
    if place == "memory":
        trained = resume(tmp_path / "alone")
        assert trained.record["ended"] == ""
    else:
        trained = resume(tmp_path / "alone", out=tmp_path / "new")
        new = outcome(tmp_path / "new")
        assert all(new[name] == whole[name] for name in ("model", "optimizer", "metrics", "samples"))
    np.testing.assert_array_equal(theta(trained), theta(bptt.load(newest_checkpoint(tmp_path / "whole"), backend="numpy")))
    assert trained.record["step"] == STEPS
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == sorted(
        path.name for path in newest_checkpoint(tmp_path / "whole").iterdir()
    )


def test_a_lone_checkpoint_is_not_compared_with_a_missing_best_one(tmp_path, text, validation_losses):
    validation_losses(1.0, 3.0, 4.0)
    train(text, out=tmp_path / "run", stop_after=7)
    shutil.move(newest_checkpoint(tmp_path / "run"), tmp_path / "alone")
    trained = resume(tmp_path / "alone", out=tmp_path / "new")
    assert (trained.record["step"], trained.record["held_out"]) == (8, 3.0)
    assert outcome(tmp_path / "new")["best"] == "step-00000008"
    assert bptt.load(tmp_path / "new", backend="numpy").record["step"] == 8


def test_a_run_from_a_lone_checkpoint_is_resumed_when_killed_at_once(tmp_path, text):
    """The checkpoint is the first one of the new run, too: without it the run would begin again with other weights."""

    def report(news):
        raise RuntimeError("killed")

    train(text, out=tmp_path / "whole")
    train(text, out=tmp_path / "run", stop_after=7)
    shutil.move(newest_checkpoint(tmp_path / "run"), tmp_path / "alone")
    with pytest.raises(RuntimeError, match="killed"):
        bptt.train(report=report, resume=tmp_path / "alone", out=tmp_path / "new")
    assert saved_steps(tmp_path / "new") == [7]
    resume(tmp_path / "new")
    ends = [outcome(tmp_path / name) for name in ("whole", "new")]
    assert all(ends[0][name] == ends[1][name] for name in ("model", "optimizer", "metrics", "samples"))


def test_the_best_checkpoint_stays_the_best_in_a_new_run(tmp_path, text, validation_losses):
    validation_losses(1.0, 3.0, 4.0)
    train(text, out=tmp_path / "run")
    alone = tmp_path / "run" / "checkpoints" / "best"
    for flags in ({}, {"out": tmp_path / "new"}):
        validation_losses(3.0, 4.0)
        trained = resume(alone, **flags)
        assert (trained.record["step"], trained.record["held_out"]) == (4, 1.0)
    assert bptt.load(tmp_path / "new", backend="numpy").record["step"] == 4


def test_resuming_an_older_checkpoint_leaves_the_old_run_unchanged(tmp_path, text):
    train(text, out=tmp_path / "run", checkpoint_every=1)
    before = outcome(tmp_path / "run")
    resume(tmp_path / "run" / "checkpoints" / "step-00000010", out=tmp_path / "new")
    after = outcome(tmp_path / "new")
    assert all(after[name] == before[name] for name in ("model", "optimizer", "metrics", "samples"))
    assert outcome(tmp_path / "run") == before


def test_a_model_alone_cannot_be_resumed(tmp_path, text):
    train(text).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"lists a model alone and no run to resume: start a new run with from_$"):
        resume(tmp_path / "model")
    with pytest.raises(CheckpointError, match="no such folder"):
        resume(tmp_path / "nothing")


# What a kill leaves behind


@pytest.mark.parametrize("given", ["file", "Python"])
def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, text, given):
    source = text if given == "file" else LONG
    train(source, out=tmp_path / "whole", seed=5)
    train(source, out=tmp_path / "run", seed=5, stop_after=1, nccl=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    if given == "Python":
        with pytest.raises(InputError, match="the text of this run was given in Python: give it again, beside resume"):
            resume(tmp_path / "run")
        resume(tmp_path / "run", LONG)
    else:
        assert not resume(tmp_path / "run").record["settings"]["nccl"]
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("missing", ["unreadable", "a link to a disk that is gone"])
def test_an_unreadable_checkpoint_folder_is_not_taken_for_empty(tmp_path, text, monkeypatch, missing):
    train(text, out=tmp_path / "run", stop_after=5)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("metrics.jsonl", "samples.txt")}
    place = tmp_path / "run" / "checkpoints"
    if missing == "unreadable":
        iterdir = type(place).iterdir

        def denied(path):
            if path == place:
                raise PermissionError(13, "Permission denied")
            return iterdir(path)

        monkeypatch.setattr(type(place), "iterdir", denied)
    else:
        place.rename(tmp_path / "gone")
        place.symlink_to("disk")
    words = "checkpoints: cannot be read: " if missing == "unreadable" else "checkpoints: is a link, expected a part of the run"
    with pytest.raises(InputError, match=words):
        resume(tmp_path / "run")
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}


def test_a_run_with_a_path_that_is_not_utf8_starts_again(tmp_path):
    source = tmp_path / os.fsdecode(b"bad\xff.txt")
    source.write_text(TEXTS["lines"])
    train(source, out=tmp_path / "run", stop_after=1)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    resume(tmp_path / "run")
    assert saved_steps(tmp_path / "run")[-1] == STEPS


def test_a_deep_network_is_resumed(tmp_path, text):
    train(text, out=tmp_path / "run", stop_after=2, cell="vanilla", hidden=2, layers=100)
    assert resume(tmp_path / "run", stop_after=1).record["step"] == 3


def test_a_setting_of_none_keeps_its_value_on_resume(tmp_path, text):
    train(text, out=tmp_path / "run", steps=7, stop_after=1)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert resume(tmp_path / "run", steps=None, stop_after=2).record["plan"]["steps"] == 7
    assert resume(tmp_path / "run", steps=None).record["step"] == 7


def test_config_toml_repeats_a_resumed_run_from_weights(tmp_path, text):
    train(text, out=tmp_path / "old")
    train(text, out=tmp_path / "run", from_=tmp_path / "old", stop_after=5)
    resume(tmp_path / "run")
    bptt.train(config=tmp_path / "run" / "config.toml", out=tmp_path / "again", report=None)
    assert outcome(tmp_path / "again") == outcome(tmp_path / "run")


def test_a_run_from_weights_killed_before_a_checkpoint_starts_again(tmp_path, text):
    train(text, out=tmp_path / "old")
    train(text, out=tmp_path / "whole", from_=tmp_path / "old", seed=1)
    train(text, out=tmp_path / "run", from_=tmp_path / "old", seed=1, stop_after=1)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_run_killed_after_its_last_checkpoint_is_completed(tmp_path, text, validation_losses):
    """Its links and its history are written after the checkpoint: a run that is done does not go on, but gets them."""
    validation_losses(3.0, 2.0, 1.0)
    train(text, out=tmp_path / "run", checkpoint_every=1)
    before = outcome(tmp_path / "run")
    run_folder.update_links(tmp_path / "run", "step-00000011", "step-00000008")
    for name in ("metrics.jsonl", "samples.txt"):
        (tmp_path / "run" / name).write_bytes((tmp_path / "run" / name).read_bytes()[:-40])
    (tmp_path / "run" / "checkpoints" / ".bptt-half-written").mkdir()
    with pytest.raises(InputError, match="steps are done"):
        resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == before


def test_a_half_written_history_is_rewritten(tmp_path, text):
    train(text, out=tmp_path / "whole")
    train(text, out=tmp_path / "run", stop_after=7)
    for name in ("metrics.jsonl", "samples.txt"):
        with open(tmp_path / "run" / name, "a") as file:
            file.write('{"step": 8, "loss": 2.')
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_history_beyond_its_limit_loses_no_row(tmp_path, text, monkeypatch):
    train(text, out=tmp_path / "whole")
    monkeypatch.setattr(checkpoint_format, "MAX_HISTORY_BYTES", 900)
    train(text, out=tmp_path / "run", stop_after=7)
    kept = [row["step"] for row in json.loads((newest_checkpoint(tmp_path / "run") / "training.json").read_text())["history"]]
    assert len(kept) < kept[-1] == 7
    resume(tmp_path / "run")
    for name in ("metrics", "samples"):
        assert outcome(tmp_path / "run")[name] == outcome(tmp_path / "whole")[name]


# One at a time


def test_a_lock_keeps_a_second_writer_out(tmp_path, text):
    train(text, out=tmp_path / "run", stop_after=5)
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with (
        run_folder.locked(tmp_path / "run"),
        pytest.raises(InputError, match=r"run: process \d+ on .* is writing there: wait for it, or end it$"),
    ):
        resume(tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files
    resume(tmp_path / "run")


def test_a_run_is_locked_while_it_trains(tmp_path, text):
    refused = []

    def report(news):
        with pytest.raises(InputError, match="is writing there") as problem:
            resume(tmp_path / "run")
        refused.append(str(problem.value))

    bptt.train(text, report=report, out=tmp_path / "run", hidden=3, steps=4, stop_after=3, backend="numpy")
    first = len(refused)
    bptt.train(report=report, resume=tmp_path / "run")
    assert len(refused) > first > 1


# --from is something else


def test_a_new_run_starts_from_the_weights_of_another(tmp_path, text):
    """Its first batch is the whole text, and so its first loss is what the old model makes of that."""
    old = train(text, out=tmp_path / "old", dtype="float64", validation=0, cell="lstm")
    flags = {"dtype": "float64", "validation": 0, "dropout": 0.0, "batch": 100, "length": 100, "mode": "lines", "seed": 9}
    for source in (tmp_path / "old", newest_checkpoint(tmp_path / "old")):
        new = tmp_path / f"from-{source.name}"
        bptt.train(["dab", "bad", "ban"], report=None, from_=source, out=new, steps=3, backend="numpy", **flags)
        rows = outcome(new)["metrics"]
        assert [row["step"] for row in rows] == [1, 2, 3]
        assert rows[0]["loss"] == pytest.approx(old.evaluate("dab\nbad\nban").nats_per_char, rel=1e-12)
        assert bptt.load(new).vocabulary == old.vocabulary
    assert saved_steps(tmp_path / "old")[-1] == STEPS


def test_a_new_run_starts_from_a_saved_model(tmp_path, text):
    train(text, cell="vanilla").save(tmp_path / "model")
    trained = bptt.train(text, report=None, from_=tmp_path / "model", steps=2, backend="numpy")
    assert (trained.config.cell, trained.config.hidden, trained.config.layers) == ("vanilla", 3, 2)


@pytest.mark.parametrize(
    ("name", "value", "has"),
    [
        ("cell", "vanilla", "lstm"),
        ("hidden", 4, "3"),
        ("layers", 3, "2"),
        ("mode", "stream", "lines"),
        ("vocabulary", "bytes", "characters"),
    ],
)
def test_a_new_run_from_weights_cannot_have_another_shape(tmp_path, text, name, value, has):
    train(text, out=tmp_path / "old", cell="lstm")
    with pytest.raises(
        InputError, match=rf"^{name}={value!r}: the model in .*step-\d+ has {has}: leave it out, or begin without from_$"
    ):
        bptt.train(text, report=None, from_=tmp_path / "old", backend="numpy", out=tmp_path / "new", **{name: value})
    assert not (tmp_path / "new").exists()


def test_a_new_run_from_weights_cannot_have_other_characters(tmp_path, text):
    train(text, out=tmp_path / "old")
    with pytest.raises(InputError, match="'ü'"):
        bptt.train(["bün", "dar"], report=None, from_=tmp_path / "old", backend="numpy")
