"""The compiled kernels in a run: chosen, named, switched off, missing; the same bits whether it was stopped or not.

Where llvmlite is not installed, a run gets kernels that do nothing.
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import accelerated
import bptt
from bptt import acceleration, dispatch, system
from bptt import backend as backends
from bptt.config.settings import from_flags
from bptt.display import plots
from bptt.errors import KernelWarning
from bptt.nn import gru, linear, model, tree, vanilla
from bptt.training import dry_run
from process_groups import run_processes
from runs import NAMES, PROSE, outcome

REAL = pytest.mark.skipif(
    importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed: pip install '.[fast]'"
)
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
SMALL = {
    "hidden": 5,
    "layers": 2,
    "dropout": 0.3,
    "steps": 12,
    "batch": 4,
    "length": 3,
    "evaluate_every": 4,
    "backend": "numpy",
}
TEXT = "\n".join(NAMES) + "\n"


@pytest.fixture(autouse=True)
def _pure(monkeypatch):
    """Start without kernels, and without the pictures that take longer than all the rest."""
    dispatch.disable()
    monkeypatch.delenv("BPTT_KERNELS", raising=False)
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def pretend_kernels(monkeypatch):
    """A function that makes kernels available, or not."""

    def pretend(name):
        monkeypatch.setattr(acceleration, "enable", lambda *_: name)
        monkeypatch.setattr(
            acceleration,
            "compiled_by",
            lambda backend=None: name if backend is None or backend.kernel_compiler else "",
        )
        monkeypatch.setattr(acceleration, "cache_is_empty", lambda: False)

    pretend("llvmlite 9")
    return pretend


def train(text=TEXT, **flags):
    said = []
    return bptt.train(text, report=said.append, **{**SMALL, **flags}), "\n".join(said)


def resume_run(place, text=TEXT, **flags):
    return bptt.train(text, resume=place, report=None, **flags)


def recorded_sessions(run):
    return json.loads((run / "env.json").read_text())["sessions"]


# What is said


def test_a_run_reports_what_compiled_its_kernels(tmp_path, pretend_kernels):
    trained, said = train(out=tmp_path / "run")
    assert ", numpy float32, compiled by llvmlite 9\n" in said
    assert trained.record["compiled"] == recorded_sessions(tmp_path / "run")[0]["compiled"] == "llvmlite 9"
    assert str(trained.backend) == "numpy float32"


def test_a_run_reports_loops_that_launch_a_kernel_per_step(pretend_kernels, monkeypatch):
    monkeypatch.setattr(acceleration, "single_launch", lambda cell, hidden, batch, size: (cell, size) != ("gru", 8))
    assert ", compiled by llvmlite 9\n" in train()[1]
    assert (
        "9, one kernel launch per time step: the weights or the batch are too large to stay on the chip\n"
        in train(dtype="float64")[1]
    )


def test_a_micro_batch_not_the_whole_batch_must_fit_on_the_chip(pretend_kernels, monkeypatch):
    monkeypatch.setattr(acceleration, "single_launch", lambda cell, hidden, batch, size: batch <= 3)
    words = "one kernel launch per time step"
    assert words in train(batch=6)[1]
    assert words not in train(batch=6, micro_batches=2)[1]
    assert words in train(batch=7, micro_batches=2)[1]


def test_kernels_that_fail_in_one_process_are_used_by_none(monkeypatch):
    """A process alone without them would round in another way than the others."""
    given_up, config, here = [], model.Config("gru", 3, 4), backends.select("numpy")
    monkeypatch.setattr(acceleration, "compiled_by", lambda backend: "llvmlite 9")
    monkeypatch.setattr(acceleration, "give_up", lambda library, why: given_up.append((library, why)))
    thread, real = threading.local(), model.forward

    def forward(*arguments):
        if thread.rank == 1:
            raise MemoryError("on this one")
        return real(*arguments)

    monkeypatch.setattr(model, "forward", forward)

    def work(group):
        thread.rank = group.rank
        with warnings.catch_warnings(action="ignore"):
            acceleration.warm_up(config, here, group)

    run_processes(3, work)
    assert given_up == [("numpy", "MemoryError: on this one")] * 3


def test_a_run_without_kernels_does_not_mention_them(tmp_path, pretend_kernels):
    pretend_kernels("")
    trained, said = train(out=tmp_path / "run")
    assert "compiled" not in said
    assert trained.record["compiled"] == recorded_sessions(tmp_path / "run")[0]["compiled"] == ""


def test_the_first_run_says_that_it_waits_for_the_compiler(pretend_kernels, monkeypatch):
    message = "\ncompiling kernels, once on this machine, about a second\n"
    assert message not in train()[1]
    monkeypatch.setattr(acceleration, "cache_is_empty", lambda: True)
    assert message in train()[1]
    pretend_kernels("")
    monkeypatch.setattr(acceleration, "cache_is_empty", lambda: True)
    assert message not in train()[1]


def test_the_pure_function_runs_where_a_kernel_is_not_implemented(monkeypatch, rng):
    z, Waa, a0 = rng.normal(size=(3, 2, 4)), rng.normal(size=(4, 4)), rng.normal(size=(2, 4))
    asked = []
    accelerated.use_only(monkeypatch, {vanilla.recurrence: lambda *given: asked.append(given) or NotImplemented})
    np.testing.assert_array_equal(vanilla.recurrence(z, Waa, a0), vanilla.recurrence.__wrapped__(z, Waa, a0))
    assert len(asked) == 1


def test_other_backends_have_no_kernels(monkeypatch, pretend_kernels):
    strict = backends.select("strict")
    assert acceleration.compiled_by(strict) == ""
    assert acceleration.compiled_by(backends.select("numpy")) == "llvmlite 9"
    asked = []
    monkeypatch.setattr(acceleration, "enable", asked.append)
    acceleration.enable_for(strict)
    assert asked == ["strict"]
    assert acceleration.unavailable_reason("strict") == "there are none for strict"
    trained, said = train(backend="strict", steps=2)
    assert trained.record["compiled"] == ""
    assert "compiled" not in said


# Going on


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("llvmlite 9", "", "with compiled kernels before and is resumed without"),
        ("", "llvmlite 9", "without compiled kernels before and is resumed with"),
    ],
)
def test_resuming_with_other_kernels_warns(tmp_path, pretend_kernels, before, after, words):
    pretend_kernels(before)
    train(out=tmp_path / "run", stop_after=4)
    pretend_kernels(after)
    with pytest.warns(KernelWarning, match=f"^the run was {words} them: .*not bit for bit$"):
        resume_run(tmp_path / "run", stop_after=4)
    assert [one["compiled"] for one in recorded_sessions(tmp_path / "run")] == [before, after]
    resume_run(tmp_path / "run")  # no warning: with the kernels of the last start


def test_resuming_on_another_backend_does_not_warn(tmp_path, pretend_kernels):
    train(out=tmp_path / "run", stop_after=4, backend="strict")
    assert resume_run(tmp_path / "run", backend="numpy").record["compiled"] == "llvmlite 9"


@pytest.mark.parametrize("record", [{}, {"compiled": 3, "backend": 5}, {"compiled": [], "backend": {"ran": ["numpy"]}}])
def test_a_record_without_kernels_is_not_compared(pretend_kernels, record):
    acceleration.warn_if_changed(record, backends.select("numpy"))


@REAL
@CELLS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("mode", "text"), [("lines", TEXT), ("stream", PROSE)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, cell, dtype, mode, text):
    flags = {"cell": cell, "dtype": dtype, "mode": mode}
    whole, said = train(text, out=tmp_path / "whole", **flags)
    assert ", compiled by llvmlite " in said
    train(text, out=tmp_path / "parts", stop_after=5, **flags)
    parts = resume_run(tmp_path / "parts", text)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    np.testing.assert_array_equal(tree.ravel(parts.params), tree.ravel(whole.params))


@REAL
@CELLS
def test_a_run_without_kernels_is_equal_up_to_rounding(monkeypatch, cell):
    compiled, _ = train(cell=cell, dtype="float64")
    monkeypatch.setenv("BPTT_KERNELS", "0")
    pure, said = train(cell=cell, dtype="float64")
    assert "compiled" not in said
    assert pure.record["compiled"] == ""
    np.testing.assert_allclose(tree.ravel(compiled.params), tree.ravel(pure.params), rtol=0, atol=1e-9)
    assert (tree.ravel(compiled.params) != tree.ravel(pure.params)).any()


# Loaded, called for the first time, and left as it was


@REAL
def test_a_run_leaves_kernels_disabled_as_before(monkeypatch):
    seen = []
    monkeypatch.setattr(system, "keep_freed_memory", lambda: seen.append(acceleration.compiled_by()))
    train()
    assert seen == [seen[0]]
    assert seen[0].startswith("llvmlite ")
    assert acceleration.compiled_by() == ""
    dry_run.report_plan(TEXT, from_flags({**SMALL, "steps": 3}), lambda *_: seen.append(acceleration.compiled_by()))
    assert seen == [seen[0]] * 3
    assert acceleration.compiled_by() == ""
    acceleration.enable()
    train()
    assert acceleration.compiled_by() == seen[0]


@REAL
@CELLS
def test_the_warm_up_compiles_every_kernel_that_a_run_calls(monkeypatch, cell):
    from bptt.kernels.cpu import jit

    counts = []
    warm_up = acceleration.warm_up
    monkeypatch.setattr(jit, "_functions", {})
    monkeypatch.setattr(acceleration, "warm_up", lambda *given: (warm_up(*given), counts.append({*jit._functions})))
    train(cell=cell)
    assert counts == [{*jit._functions}]
    names = {name for name, _ in jit._functions}
    assert {cell, f"{cell}_gradient", "affine", "adam"} <= names
    assert "cross_entropy" not in names  # of another library, which would take longer


@REAL
def test_kernels_that_fail_are_not_used(monkeypatch):
    def fails(*_):
        raise RuntimeError("no pointers any more")

    expected, _ = train()
    monkeypatch.setenv("BPTT_KERNELS", "0")
    pure, _ = train()
    monkeypatch.delenv("BPTT_KERNELS")
    unused = "vanilla", "lstm", "loss", "gradient.segment_loss_and_grad"  # by this run
    for name, function in accelerated.functions().items():
        if np.ndarray not in function.kernels:
            continue
        acceleration._given_up.clear()  # by the run before
        with monkeypatch.context() as patch:
            patch.setitem(function.kernels, np.ndarray, fails)
            if name.startswith(unused) or name.endswith("_backward"):
                np.testing.assert_array_equal(tree.ravel(train()[0].params), tree.ravel(expected.params))
                continue
            with pytest.warns(
                KernelWarning, match=r"^the compiled kernels failed on this machine: RuntimeError: no pointers any more: "
            ):
                trained, _ = train()
            np.testing.assert_array_equal(tree.ravel(trained.params), tree.ravel(pure.params))


# What is in the way


@pytest.mark.parametrize("value", ["0", ""])
def test_the_environment_can_switch_kernels_off(monkeypatch, value):
    monkeypatch.setenv("BPTT_KERNELS", value)
    assert acceleration.enable() == acceleration.compiled_by() == ""
    assert acceleration.unavailable_reason() == "BPTT_KERNELS=0 switches them off"
    assert not acceleration.cache_is_empty()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ModuleNotFoundError(name='llvmlite')", "llvmlite is not installed (remedy: pip install llvmlite)"),
        ("raise ImportError('needs NumPy 1.2')", "llvmlite cannot be imported: needs NumPy 1.2 (remedy: upgrade it)"),
        ("raise OSError('no LLVM')", "llvmlite cannot be used: OSError: no LLVM (remedy: another version of it)"),
    ],
)
def test_a_missing_or_broken_compiler_is_reported(tmp_path, source, reason):
    (tmp_path / "llvmlite.py").write_text(source)
    assert subprocess_kernels(PYTHONPATH=str(tmp_path)) == ("", reason)


def subprocess_kernels(**env):
    """What a process of its own uses, and what is in the way there."""
    code = "from bptt import acceleration as a; print(a.enable(), a.unavailable_reason(), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False)
    return tuple(done.stdout.splitlines())


def test_only_training_imports_the_compiler_and_the_trainer(tmp_path):
    train(steps=2)[0].save(tmp_path / "model")
    for command in ("sample", "score", "evaluate", "next"):
        words = [command, str(tmp_path / "model"), *{"score": ["-"], "evaluate": ["-"], "next": ["a"]}.get(command, [])]
        code = f"import sys; from bptt.cli import main; assert main({words!r}) == 0; print(*sorted(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], input=TEXT, capture_output=True, text=True, check=False)
        imported = done.stdout.splitlines()[-1].split()
        assert "bptt.cli" in imported, done.stderr
        assert not {"llvmlite", "bptt.training.trainer", "bptt.cli.train"} & {*imported}


def test_sampling_uses_no_cpu_kernels(monkeypatch):
    def never(*_):
        pytest.fail("a kernel that packs its weights for each character")

    model, _ = train()
    alone = model.sample(3, seed=1)
    with dispatch.restored():
        accelerated.use_only(monkeypatch, {vanilla.run: never, gru.run: never, linear.affine: never})
        assert model.sample(3, seed=1) == alone
        assert dispatch.enabled() == {np.ndarray}, "they are there again afterwards"


@REAL
def test_gradient_kernels_are_enabled_inside_the_block_only():
    trained, _ = train()
    with acceleration.gradient_kernels(trained.config, trained.backend):
        assert dispatch.enabled() == {np.ndarray}
    assert not dispatch.enabled()
