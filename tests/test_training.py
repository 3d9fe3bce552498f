"""Training: the loop does what its parts say, the same seed gives the same bits, and no way to end loses what was learnt."""

import contextlib
import io
import json
import math
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt.backend import BackendWarning
from bptt.errors import InputError
from bptt.nn import model, optimizers, packing
from bptt.run import training
from bptt.run.evaluation import Evaluation
from bptt.run.settings import Settings
from bptt.run.training import UPDATES, Diverged, TrainingWarning
from conftest import no_host_looks

NAMES = [a + b + c for a in "bdk" for b in "aeiou" for c in ("nn", "r")]  # 30 lines of 3 or 4 characters
PROSE = "the cat sat on the mat, and the dog did not. " * 8 + "\n"  # a stream of 361 characters
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
OPTIMIZERS = pytest.mark.parametrize("optimizer", list(UPDATES))


def train(text: Any = NAMES, news: Any = None, **flags: Any) -> bptt.LanguageModel:
    small = {"hidden": 5, "steps": 4, "batch": 6, "backend": "numpy", **flags}
    if "epochs" in flags:
        del small["steps"]
    return bptt.train(text, report=[].append if news is None else news.append, **small)


def theta(trained: bptt.LanguageModel) -> Any:
    return packing.pack(trained.params)


@pytest.fixture
def steps(monkeypatch):
    """What `model.loss_and_gradient` is given and gives back, step by step."""
    seen = []
    real = model.loss_and_gradient

    def spy(config, params, x, y, mask, states, keep):
        result = real(config, params, x, y, mask, states, keep)
        seen.append({"theta": packing.pack(params), "x": x, "states": states, "keep": keep, "after": result[2]})
        return result

    monkeypatch.setattr(model, "loss_and_gradient", spy)
    return seen


@pytest.fixture
def interrupt(monkeypatch):
    """Let Ctrl-C be pressed in update number n."""

    def at(n):
        calls = []

        def update(*arguments):
            calls.append(None)
            if len(calls) == n:
                raise KeyboardInterrupt
            return optimizers.adam(*arguments)

        monkeypatch.setitem(UPDATES, "adam", update)

    return at


@pytest.fixture
def held_out(monkeypatch):
    """Let the measurements of the held-out part give these numbers, and see what was measured."""

    def give(*numbers):
        seen, left = [], list(numbers)

        def evaluate(config, params, backend, batches):
            seen.append(packing.pack(params))
            return Evaluation(left.pop(0), 1)

        monkeypatch.setattr(training, "evaluate", evaluate)
        return seen

    return give


# What is learnt


@CELLS
@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_every_cell_learns_both_kinds_of_text(cell, mode):
    text, best = (NAMES, 1.05) if mode == "lines" else (PROSE, 0.7)
    trained = train(text, cell=cell, mode=mode, hidden=16, steps=150, dropout=0.0, learning_rate=0.02, validation=0.2)
    assert trained.record["held_out"] < best  # nats; an untrained model has about log 12 = 2.5, or log 16 = 2.8


@OPTIMIZERS
def test_every_optimizer_lowers_the_loss(optimizer):
    untrained = math.log(len(train().vocabulary))
    assert train(optimizer=optimizer, steps=60, dropout=0.0, validation=0).record["loss"] < untrained - 0.15


# What a step is


def test_a_whole_step_is_never_looked_at_by_the_host(lab):
    config = model.Config("vanilla", 4, 3, 2)
    rng = np.random.default_rng(0)
    params = model.init(config, rng)
    batch = rng.integers(0, 4, (3, 2)), rng.integers(0, 4, (3, 2)), np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    keep = model.dropout_masks(config, rng, 0.5, 2)

    def step(params, x, y, mask, keep):
        loss, gradient, states = model.loss_and_gradient(config, params, x, y, mask, None, keep)
        d, norm = optimizers.clip_by_norm(packing.pack(gradient), 0.1)
        before = packing.pack(params)
        return loss, norm, states, tuple(update(before, d, optimizers.start(before), 0.01) for update in UPDATES.values())

    got = lab.call(step, params, *batch, keep)
    lab.close(got, step(params, *batch, keep), 1e-12 if lab.backend.dtype == "float64" else 1e-3)


def test_the_trainer_does_not_look_either(monkeypatch):
    """A step as the trainer makes it, its transfers included; the first one has to be allowed to import what it needs."""
    real, looked = training._updates, []

    def guarded(*arguments):
        updates = real(*arguments)
        yield next(updates)
        while True:
            with no_host_looks():
                snapshot = next(updates, None)
            if snapshot is None:
                return
            looked.append(snapshot.step)
            yield snapshot

    monkeypatch.setattr(training, "_updates", guarded)
    train(backend="strict", hidden=2, layers=2, steps=4)
    assert looked == [2, 3, 4]


def test_a_step_is_as_long_as_the_schedule_and_the_clip_say(steps):
    train(optimizer="sgd", learning_rate=0.5, clip_norm=1e-3, steps=30, dtype="float64")
    lengths = [np.linalg.norm(b["theta"] - a["theta"]) for a, b in pairwise(steps)]
    expected = [1e-3 * optimizers.warmup_cosine(step, 0.5, warmup=3, total=30) for step in range(29)]
    np.testing.assert_allclose(lengths, expected, rtol=1e-9)


def test_the_rate_of_a_long_run_rises_for_200_steps(steps):
    train(optimizer="sgd", learning_rate=0.5, clip_norm=1e-3, steps=2100, dtype="float64", hidden=1, batch=30, validation=0)
    lengths = [1e3 * np.linalg.norm(b["theta"] - a["theta"]) for a, b in pairwise(steps)]
    assert int(np.argmax(lengths)) in (199, 200)
    assert max(lengths) == pytest.approx(0.5, rel=1e-6)


def test_no_clip_leaves_the_gradient_as_it_is(steps):
    for clip_norm in (0, 1e6):
        train(optimizer="sgd", clip_norm=clip_norm, steps=3)
    np.testing.assert_array_equal(steps[2]["theta"], steps[5]["theta"])


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_the_state_is_carried_to_the_next_window_and_to_no_other_text(steps, mode):
    train(NAMES if mode == "lines" else PROSE, mode=mode, batch=2, length=3, epochs=2, layers=2)
    assert steps[0]["states"] is None
    carried = [step["states"] is before["after"] for before, step in pairwise(steps)]
    fresh = [step["states"] is None for step in steps[1:]]
    assert all(a != b for a, b in zip(carried, fresh))
    assert any(carried)
    if mode == "stream":
        assert sum(fresh) == 1  # the second pass
    else:
        assert sum(fresh) > 10


@pytest.mark.parametrize("layers", [1, 3])
def test_dropout_hides_units_of_each_layer_anew_at_each_step(steps, layers):
    train(dropout=0.5, layers=layers, hidden=8)
    for step in steps:
        assert [mask.shape for mask in step["keep"]] == [(step["x"].shape[1], 8)] * layers
        assert set(np.unique(step["keep"])) == {0.0, 2.0}
    same_width = [step["keep"][0] for step in steps if step["keep"][0].shape == steps[0]["keep"][0].shape]
    assert len(same_width) == 1 or (same_width[0] != same_width[1]).any()
    steps.clear()
    train(dropout=0.0, layers=layers)
    assert {step["keep"] for step in steps} == {()}


def test_epochs_are_passes(steps):
    train(batch=6, length=3, validation=0, epochs=2)
    whole = len(steps)
    steps.clear()
    train(batch=6, length=3, validation=0, epochs=1)
    assert whole == 2 * len(steps)
    assert sum(step["x"].shape[1] for step in steps if step["states"] is None) == len(NAMES)


# The same seed, the same bits


@CELLS
@pytest.mark.parametrize("mode", ["lines", "stream"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_gives_the_same_bits(cell, mode, dtype):
    flags = {"cell": cell, "mode": mode, "dtype": dtype, "layers": 2, "dropout": 0.3}
    text = NAMES if mode == "lines" else PROSE
    first, again, other = (theta(train(text, **flags, seed=seed)) for seed in (0, 0, 1))
    assert first.dtype == dtype
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_each_use_of_chance_has_numbers_of_its_own(steps):
    runs = []
    for flags in ({}, {"dropout": 0.5}, {"init": "orthogonal"}):
        news = []
        train(news=news, **{"dropout": 0.0, **flags})
        runs.append([step["x"].tolist() for step in steps])
        steps.clear()
    assert runs[0] == runs[1] == runs[2]


def test_a_path_a_text_and_lines_are_the_same(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    models = [train(text) for text in (path, str(path), "\n".join(NAMES), NAMES, iter(NAMES), (f"{n}\n" for n in NAMES))]
    assert [m.record["text"] for m in models] == ["names", "names", "text", "text", "text", "text"]
    for other in models[1:]:
        np.testing.assert_array_equal(theta(models[0]), theta(other))


def test_every_backend_takes_the_same_steps(lab, monkeypatch):
    if lab.name == "jax-jit":
        pytest.skip("the trainer does not compile")  # eager jax stands for both
    flags = {"cell": "vanilla", "mode": "stream", "length": 5, "dropout": 0.4, "validation": 0, "quiet": True}
    text = [PROSE[:60]]  # six streams in two windows of the same shape, for JAX compiles every shape anew
    expected = train(text, **flags, dtype=lab.backend.dtype)
    monkeypatch.setattr(backends, "select", lambda *_, **__: lab.backend)
    got = train(text, **flags, dtype=lab.backend.dtype)
    tolerance = 1e-6 if lab.backend.dtype == "float64" else 1e-3
    assert got.record["loss"] == pytest.approx(expected.record["loss"], rel=tolerance)
    lab.close(lab.get(got.params), expected.params, tolerance)


# How a run ends


def test_the_best_model_is_kept(held_out):
    seen = held_out(3.0, 1.0, 2.0, 1.0)
    trained = train(steps=4)
    assert (trained.record["step"], trained.record["held_out"], trained.record["stopped"]) == (2, 1.0, "")
    np.testing.assert_array_equal(theta(trained), seen[1])


def test_the_last_model_is_kept_where_nothing_is_held_out(steps):
    trained = train(steps=4, validation=0)
    assert trained.record["step"] == 4
    assert trained.record["held_out"] is None
    assert (theta(trained) != steps[3]["theta"]).any()


def test_measurements_are_about_ten_and_the_last_step_is_one():
    for count, lines in [(1, 1), (4, 4), (25, 13), (40, 10)]:
        news = []
        train(steps=count, news=news)
        measured = [line for line in news if " s  step" in line]
        assert len(measured) == lines
        assert f"step {count}  loss" in measured[-1]


def test_ctrl_c_keeps_the_best_model(interrupt, held_out, tmp_path):
    interrupt(28)
    seen = held_out(1.0, 2.0)
    news = []
    trained = train(steps=100, news=news, out=tmp_path / "m")
    assert (trained.record["step"], trained.record["stopped"]) == (10, "interrupted")
    np.testing.assert_array_equal(theta(trained), seen[0])
    assert "interrupted: keeping the best model so far, of step 10" in news
    assert bptt.load(tmp_path / "m").record == trained.record


def test_ctrl_c_keeps_the_last_step_where_nothing_is_held_out(interrupt):
    interrupt(28)
    assert train(steps=100, validation=0).record["step"] == 27


def test_a_second_ctrl_c_keeps_what_there_is(interrupt, monkeypatch):
    def again(*_):
        raise KeyboardInterrupt

    real = training._measure
    interrupt(28)
    monkeypatch.setattr(training, "_measure", lambda *a: real(*a) if a[1].step % 10 == 0 else again())
    assert train(steps=100, validation=0).record["step"] == 20
    interrupt(4)
    with pytest.raises(KeyboardInterrupt, match="nothing was learnt"):
        train(steps=100)


def test_ctrl_c_before_the_first_measurement_keeps_the_last_step(interrupt):
    interrupt(4)
    assert train(steps=1000).record["step"] == 3


def test_ctrl_c_before_the_first_step_is_ctrl_c(interrupt, tmp_path):
    interrupt(1)
    with pytest.raises(KeyboardInterrupt, match="interrupted; nothing was learnt, nothing is saved"):
        train(out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [MemoryError("no room"), OSError(28, "No space left on device"), SystemExit(1)])
def test_whatever_ends_a_run_the_best_model_is_saved(monkeypatch, tmp_path, failure):
    calls = []

    def update(*arguments):
        calls.append(None)
        if len(calls) == 28:
            raise failure
        return optimizers.adam(*arguments)

    monkeypatch.setitem(UPDATES, "adam", update)
    with (
        pytest.warns(TrainingWarning, match=f"{type(failure).__name__}.* is saved in .*m$"),
        pytest.raises(type(failure)) as got,
    ):
        train(steps=100, out=tmp_path / "m")
    assert got.value is failure
    record = bptt.load(tmp_path / "m").record
    assert (record["step"] in (10, 20), record["stopped"]) == (True, "failed")


def test_a_report_that_fails_loses_nothing(tmp_path):
    def report(line):
        if " s  step" in line:
            raise RuntimeError("no listener")

    with pytest.warns(TrainingWarning, match="RuntimeError"), pytest.raises(RuntimeError, match="no listener"):
        bptt.train(NAMES, report=report, hidden=5, steps=100, backend="numpy", out=tmp_path / "m")
    assert bptt.load(tmp_path / "m").record["step"] == 10


def test_a_failure_before_the_first_measurement_keeps_the_last_step_and_before_the_first_step_nothing(monkeypatch, tmp_path):
    for n, learnt in [(4, ["m"]), (1, [])]:
        calls = []

        def update(*arguments, n=n, calls=calls):
            calls.append(None)
            if len(calls) == n:
                raise ZeroDivisionError
            return optimizers.adam(*arguments)

        monkeypatch.setitem(UPDATES, "adam", update)
        folder = tmp_path / str(n)
        with pytest.warns(TrainingWarning) if learnt else contextlib.nullcontext(), pytest.raises(ZeroDivisionError):
            train(steps=100, out=folder / "m")
        assert sorted(path.name for path in folder.glob("*")) == learnt


def test_a_console_that_knows_ascii_only_does_not_end_a_run(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", console)
    bptt.train(["привет", "мир"] * 9, hidden=4, steps=3, backend="numpy")
    assert b"??" in console.buffer.getvalue()


def nan_from(monkeypatch, n):
    calls = []

    def update(*arguments):
        calls.append(None)
        after, memory = optimizers.adam(*arguments)
        return (after * math.nan if len(calls) >= n else after), memory

    monkeypatch.setitem(UPDATES, "adam", update)


@pytest.mark.parametrize("validation", [0, 0.2])
@pytest.mark.parametrize("n", [27, 30])
def test_a_loss_or_weight_that_is_not_finite_ends_the_run_with_the_model_before(monkeypatch, tmp_path, n, validation):
    """The weights of step 30 may be bad while its loss, measured before the update, is still fine."""
    nan_from(monkeypatch, n)
    with pytest.warns(
        TrainingWarning, match=r"^step 30: the loss \(.*\) or a weight is not finite: try --learning-rate 0.001; the best"
    ):
        trained = train(steps=100, validation=validation, learning_rate=0.01, out=tmp_path / "m")
    assert (trained.record["step"] in (10, 20), trained.record["stopped"]) == (True, "diverged")
    assert validation or trained.record["step"] == 20
    assert np.isfinite(theta(trained)).all()
    assert bptt.load(tmp_path / "m").record == trained.record


def test_a_run_that_was_never_finite_saves_nothing(tmp_path):
    with pytest.raises(Diverged, match=r"try --learning-rate 100000; nothing was learnt, nothing is saved"):
        train(optimizer="sgd", learning_rate=1e6, clip_norm=0, steps=100, out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_after_the_loss_was_lost_does_not_keep_that(monkeypatch):
    nan_from(monkeypatch, 12)
    bad = UPDATES["adam"]
    calls = []

    def update(*arguments):
        calls.append(None)
        if len(calls) == 16:
            raise KeyboardInterrupt
        return bad(*arguments)

    monkeypatch.setitem(UPDATES, "adam", update)
    assert train(steps=100, validation=0).record["step"] == 10


# Where it is saved


def test_what_is_there_already_is_refused_before_training(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "file").write_text("mine")
    for out, words in [("m", "something is there already"), ("file/m", "no folder can be made there")]:
        news = []
        with pytest.raises(InputError, match=words):
            train(out=str(tmp_path / out), news=news)
        assert news == []


def test_a_name_that_is_taken_meanwhile_gets_a_number(tmp_path, monkeypatch):
    """One name is taken during the training, and the next one between the look and the rename."""
    real = os.rename

    def rename(source, target):
        if Path(target) == tmp_path / "m-2":
            (tmp_path / "m-2").mkdir(exist_ok=True)
            (tmp_path / "m-2" / "theirs").touch()
        return real(source, target)

    class News(list):
        def append(self, line):
            (tmp_path / "m").mkdir(exist_ok=True)
            super().append(line)

    monkeypatch.setattr(os, "rename", rename)
    news = News()
    trained = train(out=tmp_path / "m", news=news)
    assert bptt.load(tmp_path / "m-3").record == trained.record
    assert f"saved in {tmp_path / 'm-3'}" in news[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "m-2", "m-3"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), MemoryError("no room"), KeyboardInterrupt()])
def test_a_model_that_cannot_be_saved_is_returned(tmp_path, monkeypatch, failure):
    def fsync(_):
        raise failure

    monkeypatch.setattr(os, "fsync", fsync)
    news = []
    with pytest.warns(TrainingWarning, match="No space|no room|KeyboardInterrupt") as warned:
        trained = train(out=tmp_path / "m", news=news)
    assert trained.record["unsaved"] == str(warned[0].message)
    assert trained.record["unsaved"].endswith("; it is not saved")
    assert "saved in" not in news[-1]
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    trained.save(tmp_path / "m")
    np.testing.assert_array_equal(theta(bptt.load(tmp_path / "m", backend="numpy")), theta(trained))


def test_without_a_folder_nothing_is_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    news = []
    train(news=news)
    assert os.listdir(tmp_path) == []
    assert "saved" not in news[-1]


def test_the_record_holds_every_setting_and_what_was_chosen(tmp_path):
    trained = train(PROSE, out=tmp_path / "m", layers=2, validation=0, dropout=0.0, length=9)
    record = json.loads(json.dumps(trained.record))
    assert record == trained.record
    assert record["settings"].keys() == vars(Settings()).keys()
    assert (
        record["settings"] | {"hidden": 5, "steps": 4, "batch": 6, "layers": 2, "out": str(tmp_path / "m")}
        == record["settings"]
    )
    assert record["plan"] | {"hidden": 5, "steps": 4, "batch": 6, "length": 9, "dropout": 0.0} == record["plan"]
    assert (record["text"], record["backend"], record["stopped"]) == ("text", {"asked": "numpy", "ran": "numpy"}, "")
    assert record["seconds"] > 0
    assert train().record["settings"]["out"] is None


def test_a_model_too_large_for_the_machine_is_refused_at_once():
    for hidden in (10**6, 10**12, 10**30):
        with pytest.raises(
            InputError, match=rf"^--hidden {hidden} --layers 3: [\d,]+ parameters want at least [\d,]+ GB of memory"
        ):
            train(hidden=hidden, layers=3)


# Backends that are not there


def test_cupy_without_a_device_falls_back_and_both_are_recorded(monkeypatch):
    monkeypatch.setattr(backends, "cupy_obstacle", lambda: "no CUDA device answers (remedy: check the driver)")
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)
    with pytest.warns(BackendWarning, match=r"no CUDA device answers \(remedy: check the driver\)") as warned:
        trained = train(backend="cupy")
    assert len(warned) == 1
    assert trained.record["backend"] == {"asked": "cupy", "ran": "numpy"}
    assert "(cupy was asked for)" in repr(trained)
    with pytest.raises(InputError, match="'cupy' is required but no CUDA device answers"):
        train(backend="cupy", require_backend=True)
    monkeypatch.setenv("BPTT_REQUIRE_BACKEND", "1")
    with pytest.raises(InputError, match="'cupy' is required but no CUDA device answers"):
        train(backend="cupy")


# Small texts


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (["ab", "cd"], {}),
        (["ab"], {"mode": "lines"}),
        ("one line of text only", {}),
        ("ab\n", {"mode": "stream", "length": 1000, "batch": 1000}),
        ("ab\n", {"mode": "stream", "validation": 0.9}),
        (["ab"] * 10, {"layers": 3, "dropout": 0.9, "batch": 10**6}),
    ],
)
def test_small_texts_train(text, flags):
    news = []
    trained = train([text] if isinstance(text, str) else text, news=news, **flags)
    assert trained.record["step"] >= 1
    assert len(trained.sample(3, length=9)) == 3


def test_any_file_trains_as_bytes(tmp_path):
    path = Path(tmp_path, "any.bin")
    path.write_bytes(np.random.default_rng(0).bytes(500))
    trained = train(path, vocabulary="bytes", length=20)
    assert (trained.mode, len(trained.vocabulary)) == ("stream", 256)
    assert trained.evaluate(path.read_bytes()).characters == 500


def test_quiet_says_nothing_and_writes_nothing_to_say(monkeypatch, tmp_path):
    monkeypatch.delattr(bptt.LanguageModel, "sample")
    news = []
    train(news=news, quiet=True)
    assert news == []
    train(news=news, quiet=True, out=tmp_path / "m")
    assert news == []


def test_no_report_is_silence(capsys, monkeypatch):
    monkeypatch.delattr(bptt.LanguageModel, "sample")
    bptt.train(NAMES, report=None, hidden=4, steps=2, backend="numpy")
    assert capsys.readouterr() == ("", "")
