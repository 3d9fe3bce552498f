"""Training: the loop does what its parts say, and the same seed gives the same bits."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt.backend import Backend
from bptt.config.settings import from_flags
from bptt.errors import BackendWarning, InputError, TrainingWarning
from bptt.inference import generate
from bptt.nn import gradient, model, optimizers, parametrization, schedules, tree
from bptt.nn.optimizers import OPTIMIZERS
from bptt.training import loop, setup
from conftest import forbid_host_reads

NAMES = [a + b + c for a in "bdk" for b in "aeiou" for c in ("nn", "r")]  # 30 lines of 3 or 4 characters
PROSE = "the cat sat on the mat, and the dog did not. " * 8 + "\n"  # a stream of 361 characters
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
EVERY_OPTIMIZER = pytest.mark.parametrize("optimizer", list(OPTIMIZERS))


def train(text: Any = NAMES, news: Any = None, **flags: Any) -> bptt.LanguageModel:
    small = {"hidden": 5, "steps": 4, "batch": 6, "backend": "numpy", **flags}
    if "epochs" in flags:
        del small["steps"]
    return bptt.train(text, report=[].append if news is None else news.append, **small)


def theta(trained: bptt.LanguageModel) -> Any:
    return tree.ravel(trained.params)


@pytest.fixture
def recorded_steps(monkeypatch):
    """What `gradient.loss_and_grad` is given and gives back, step by step."""
    seen = []
    real = gradient.loss_and_grad

    def spy(theta, config, x, y, mask, states, keep, *rest):
        result = real(theta, config, x, y, mask, states, keep, *rest)
        if config.vocabulary > 1:  # the warm-up of the kernels uses one symbol
            seen.append({"theta": theta, "x": x, "states": states, "keep": keep, "after": result[2]})
        return result

    monkeypatch.setattr(gradient, "loss_and_grad", spy)
    return seen


# What is learnt


@CELLS
@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_every_cell_learns_both_kinds_of_text(cell, mode):
    text, best = (NAMES, 1.05) if mode == "lines" else (PROSE, 0.7)
    rates = {"learning_rate": 0.02, "parametrization": "standard", "weight_decay": 0.0, "average": 0.0}  # the cell alone
    trained = train(text, cell=cell, mode=mode, hidden=16, steps=150, dropout=0.0, validation=0.2, **rates)
    assert trained.record["held_out"] < best  # nats; an untrained model has about log 12 = 2.5, or log 16 = 2.8


@EVERY_OPTIMIZER
def test_every_optimizer_lowers_the_loss(optimizer):
    untrained = math.log(len(train().vocabulary))
    assert train(optimizer=optimizer, steps=60, dropout=0.0, validation=0).record["loss"] < untrained - 0.15


# What a step is


@pytest.mark.compiled
def test_a_training_step_does_not_read_arrays_on_the_host(lab):
    config = model.Config("vanilla", 4, 3, 2)
    rng = np.random.default_rng(0)
    params = model.init(config, rng)
    batch = rng.integers(0, 4, (3, 2)), rng.integers(0, 4, (3, 2)), np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    keep = model.dropout_masks(config, rng, 0.5, 2)

    def step(params, x, y, mask, keep):
        loss, gradient, states = model.loss_and_grad(config, params, x, y, mask, None, keep)
        d, norm = optimizers.clip_by_norm(tree.ravel(gradient), 0.1)
        before = tree.ravel(params)
        return loss, norm, states, tuple(one.update(before, d, one.init(before), 0.01) for one in OPTIMIZERS.values())

    got = lab.call(step, params, *batch, keep)
    lab.close(got, step(params, *batch, keep), 1e-12 if lab.backend.dtype == "float64" else 1e-3)


def test_the_trainer_does_not_read_arrays_on_the_host(monkeypatch):
    """A step as the trainer makes it, its transfers included; the first one has to be allowed to import what it needs."""
    real, looked = loop.run_updates, []

    def guarded(*arguments):
        updates = real(*arguments)
        yield next(updates)
        while True:
            with forbid_host_reads():
                snapshot = next(updates, None)
            if snapshot is None:
                return
            looked.append(snapshot[0].step)
            yield snapshot

    monkeypatch.setattr(loop, "run_updates", guarded)
    train(backend="strict", hidden=2, layers=2, steps=4)
    assert looked == [2, 3, 4]


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_a_text_is_transferred_once_and_batches_as_positions(monkeypatch, mode):
    put = []
    real = Backend.put

    def spy(self, host, *integers):
        array = real(self, host, *integers)
        put.append((host.shape, str(array.dtype)))
        return array

    monkeypatch.setattr(Backend, "put", spy)
    monkeypatch.setattr(bptt.LanguageModel, "sample", lambda *_, **__: ["new"])
    monkeypatch.setattr(
        generate, "generate_texts", lambda *_: [generate.Sample("new", cut=False)]
    )  # would put what it writes on the device
    text = "\n".join(NAMES) if mode == "lines" else PROSE
    flags = {"mode": mode, "steps": 9, "batch": 3, "evaluate_every": 3, "validation": 0.3, "dropout": 0.0, "quiet": True}
    strict = backends.select("strict")
    there = strict.get(theta(train(text, backend="strict", length=3, **flags)))
    integers = [(shape, dtype.rpartition(".")[2]) for shape, dtype in put if "int" in dtype]
    size = len(text) + 1 + (mode == "lines")  # both its ends
    assert integers[0] == ((size,), "uint8")  # also for what is held out
    assert {(shape[0], len(shape), dtype) for shape, dtype in integers[1:]} == {(2, 2, "int64")}
    assert len(integers) >= 1 + 9 + 3  # the updates and the measurements
    first = next(i for i, (_, dtype) in enumerate(put) if "int64" in dtype)
    assert not any("float" in dtype for _, dtype in put[first:])  # no masks: the weights come before
    put.clear()
    monkeypatch.setattr(Backend, "text_capacity", lambda _: 0)
    here = strict.get(theta(train(text, backend="strict", length=3, **flags)))
    assert not any("uint8" in dtype for _, dtype in put)
    np.testing.assert_array_equal(there, here)


def test_step_lengths_follow_the_schedule_and_the_clipping(recorded_steps):
    train(optimizer="sgd", learning_rate=0.5, clip_norm=1e-3, steps=30, dtype="float64")
    lengths = [np.linalg.norm(b["theta"] - a["theta"]) for a, b in pairwise(recorded_steps)]
    expected = [1e-3 * schedules.learning_rate(step, 0.5, warmup=3, total_steps=30) for step in range(29)]
    np.testing.assert_allclose(lengths, expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_a_run_has_the_learning_rates_of_its_settings(schedule):
    """All but the peak differ from the defaults."""
    flags = {"learning_rate": 0.5, "schedule": schedule, "warmup": 4, "final_rate": 0.3, "steps": 12, "evaluate_every": 1}
    lines: list[str] = []
    train(news=lines, json=True, **flags)
    rates = [row["rate"] for row in map(json.loads, lines) if row["event"] == "measurement"]
    expected = [
        schedules.learning_rate(step, 0.5, schedule=schedule, warmup=4, total_steps=12, final_rate=0.3) for step in range(12)
    ]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_a_warm_up_that_does_not_end_gives_a_warning():
    with pytest.warns(TrainingWarning, match="warmup=4: the run has 4 steps, so its learning rate never reaches the peak"):
        train(warmup=4)
    train(warmup=3)


def test_the_optimizer_gets_the_settings_of_a_run():
    flags = {"hidden": 4, "beta1": 0.7, "beta2": 0.8, "weight_decay": 0.6, "backend": "numpy"}
    task = setup.from_scratch(NAMES, from_flags(flags)).task
    groups = parametrization.param_groups(task.config, "mup")
    assert task.optimizer_options == {"beta1": 0.7, "beta2": 0.8, "weight_decay": 0.6, "groups": groups}
    assert len(groups) > 1
    task = setup.from_scratch(NAMES, from_flags({**flags, "parametrization": "standard"})).task
    assert {group.learning_rate for group in task.optimizer_options["groups"]} == {1.0}


def test_the_warm_up_of_a_long_run_takes_200_steps(recorded_steps):
    train(optimizer="sgd", learning_rate=0.5, clip_norm=1e-3, steps=2100, dtype="float64", hidden=1, batch=30, validation=0)
    lengths = [1e3 * np.linalg.norm(b["theta"] - a["theta"]) for a, b in pairwise(recorded_steps)]
    assert int(np.argmax(lengths)) in (199, 200)
    assert max(lengths) == pytest.approx(0.5, rel=1e-6)


def test_without_clipping_the_gradient_is_unchanged(recorded_steps):
    for clip_norm in (0, 1e6):
        train(optimizer="sgd", clip_norm=clip_norm, steps=3)
    np.testing.assert_array_equal(recorded_steps[2]["theta"], recorded_steps[5]["theta"])


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_the_state_is_carried_only_to_the_next_window_of_a_text(recorded_steps, mode):
    train(NAMES if mode == "lines" else PROSE, mode=mode, batch=2, length=3, epochs=2, layers=2)
    assert recorded_steps[0]["states"] is None
    carried = [same_states(step["states"], before["after"]) for before, step in pairwise(recorded_steps)]
    fresh = [step["states"] is None for step in recorded_steps[1:]]
    assert all(a != b for a, b in zip(carried, fresh))
    assert any(carried)
    if mode == "stream":
        assert sum(fresh) == 1  # the second pass
    else:
        assert sum(fresh) > 10


def same_states(states, others):
    if states is None:
        return False
    held = getattr(states.base, "size", states.size)  # a view would keep those of all steps
    return np.array_equal(states, others) and held == states.size


@pytest.mark.parametrize("layers", [1, 3])
def test_dropout_masks_are_drawn_anew_for_each_layer_and_step(recorded_steps, layers):
    train(dropout=0.5, layers=layers, hidden=8)
    for step in recorded_steps:
        assert [mask.shape for mask in step["keep"]] == [(step["x"].shape[1], 8)] * layers
        assert set(np.unique(step["keep"])) == {0.0, 2.0}
    same_width = [step["keep"][0] for step in recorded_steps if step["keep"][0].shape == recorded_steps[0]["keep"][0].shape]
    assert len(same_width) == 1 or (same_width[0] != same_width[1]).any()
    recorded_steps.clear()
    train(dropout=0.0, layers=layers)
    assert {step["keep"] for step in recorded_steps} == {()}


def test_epochs_are_passes_over_the_text(recorded_steps):
    train(batch=6, length=3, validation=0, epochs=2)
    whole = len(recorded_steps)
    recorded_steps.clear()
    train(batch=6, length=3, validation=0, epochs=1)
    assert whole == 2 * len(recorded_steps)
    assert sum(step["x"].shape[1] for step in recorded_steps if step["states"] is None) == len(NAMES)


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


def test_each_use_of_randomness_has_its_own_generator(recorded_steps):
    runs = []
    for flags in ({}, {"dropout": 0.5}, {"init": "orthogonal"}):
        news = []
        train(news=news, **{"dropout": 0.0, **flags})
        runs.append([step["x"].tolist() for step in recorded_steps])
        recorded_steps.clear()
    assert runs[0] == runs[1] == runs[2]


def test_a_path_a_text_and_lines_train_the_same_model(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    models = [train(text) for text in (path, str(path), "\n".join(NAMES), NAMES, iter(NAMES), (f"{n}\n" for n in NAMES))]
    assert [m.record["text"] for m in models] == ["names", "names", "text", "text", "text", "text"]
    for other in models[1:]:
        np.testing.assert_array_equal(theta(models[0]), theta(other))


def test_every_backend_takes_the_same_steps(lab, monkeypatch):
    if lab.name == "jax-jit":
        pytest.skip("the trainer does not compile")  # eager jax stands for both
    flags = {"cell": "vanilla", "mode": "stream", "length": 5, "dropout": 0.4, "validation": 0, "evaluate_every": 1000}
    text = [PROSE[:60]]  # six streams in two windows of the same shape, for JAX compiles every shape anew
    expected = train(text, **flags, dtype=lab.backend.dtype)
    monkeypatch.setattr(backends, "select", lambda *_, **__: lab.backend)
    got = train(text, **flags, dtype=lab.backend.dtype)
    tolerance = 1e-6 if lab.backend.dtype == "float64" else 1e-3
    assert got.record["loss"] == pytest.approx(expected.record["loss"], rel=tolerance)
    lab.close(lab.get(got.params), expected.params, tolerance)


# Backends that are not there


def test_the_fallback_from_cupy_is_recorded(monkeypatch):
    monkeypatch.setattr(backends, "cupy_unavailable_reason", lambda: "no CUDA device answers (remedy: check the driver)")
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
