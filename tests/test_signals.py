"""Signals: the first one saves at the next step and says how to go on, the second leaves at once, none is a traceback."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import bptt
from bptt.display import plots
from bptt.nn import optimizers, tree
from runs import MAIN, NAMES, PLAIN, bptt_process, outcome, replace_adam, saved_steps, uninterrupted_outcome, wait_until
from runs import run_bptt as run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")

FLAGS = ("--hidden", "4", "--batch", "6", "--steps", "120", "--checkpoint-every", "5", "--backend", "numpy")
SLOW = f"""
import functools, time
from bptt.nn import gradient
real = gradient.loss_and_grad
gradient.loss_and_grad = functools.wraps(real)(lambda *arguments: time.sleep(0.05) or real(*arguments))
{PLAIN}
"""
HANGING = f"""
import os, pathlib, time
fsync = os.fsync
def hang(descriptor):
    if os.path.exists("hang"):
        pathlib.Path("hanging").touch()
        time.sleep(600)
    fsync(descriptor)
os.fsync = hang
{SLOW}
"""
SHELL = 'bptt() { "$PYTHON" -m bptt "$@"; }\n'
ENDS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138}


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder with a text."""
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ctrl_c(monkeypatch):
    """Let a signal arrive in some updates of a training in this process; its numbers begin with 1."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in its background
    monkeypatch.setattr(plots, "available", lambda: False)

    def at(*numbers):
        calls = []

        def update(*arguments, **options):
            calls.append(None)
            if len(calls) in numbers:
                signal.raise_signal(signal.SIGINT)
            return optimizers.adam(*arguments, **options)

        replace_adam(monkeypatch, update)
        return calls

    yield at
    signal.signal(signal.SIGINT, before)


def train(**flags):
    return bptt.train(NAMES, **{"report": None, "hidden": 4, "batch": 6, "backend": "numpy", **flags})


# To a process


@pytest.mark.parametrize("name", ENDS)
def test_a_signal_saves_and_prints_the_resume_command(workdir, name):
    out = workdir / "my run"
    with bptt_process("train", "names.txt", *FLAGS, "--out", "my run", code=SLOW) as running:
        assert wait_until(running, lambda: bool(saved_steps(out)))
        running.send_signal(getattr(signal, name))
        words, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (ENDS[name], "")
    step = saved_steps(out)[-1]
    command = "  bptt train --resume 'my run'\n"
    assert f"interrupted ({name}) at step {step}: saved in my run, resume with\n{command}" in words
    assert f'"ended": "{name}"' in (out / "env.json").read_text()
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["/bin/sh", "-c", SHELL + command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"resuming my run after step {step}\n" in done.stdout
    assert outcome(out) == uninterrupted_outcome(*FLAGS)


def test_a_second_ctrl_c_exits_at_once_even_if_a_save_hangs(workdir):
    with bptt_process("train", "names.txt", *FLAGS, "--out", "run", code=HANGING) as running:
        assert wait_until(running, lambda: bool(saved_steps(workdir / "run")))
        (workdir / "hang").touch()
        assert wait_until(running, (workdir / "hanging").exists)
        running.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # it is noted, and the save goes on
            running.wait(0.5)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
        assert time.monotonic() - began < 10
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert errors == "bptt: interrupted; what was saved before is in run: bptt train --resume run\n"
    (workdir / "hang").unlink()
    assert np.isfinite(bptt.load(workdir / "run").score("ban"))
    assert run("train", "--resume", "run")[0] == 0
    assert outcome(workdir / "run") == uninterrupted_outcome(*FLAGS)


def test_sigterm_while_a_file_is_written_leaves_nothing(workdir):
    train(steps=1).save("model")
    (workdir / "hang").touch()
    with bptt_process("export", "model", "--to", "torch", "--out", "model.safetensors", code=HANGING) as running:
        assert wait_until(running, (workdir / "hanging").exists)
        assert list(workdir.glob(".bptt-*"))
        running.send_signal(signal.SIGTERM)
        assert running.communicate(timeout=60) == ("", "")
    assert running.returncode == 143
    assert sorted(path.name for path in workdir.iterdir()) == ["hang", "hanging", "model", "names.txt"]


@pytest.mark.parametrize("imports", [1, 10, 60, 120, 200, 300])
def test_ctrl_c_during_the_imports_prints_one_line(workdir, imports):
    """With -X importtime Python says what it has imported: as soon as our code runs, and so many imports later."""
    with bptt_process(
        "train", "names.txt", "--steps", "1000000", "--quiet", code=MAIN, options=("-X", "importtime")
    ) as running:
        seen = None
        for line in running.stderr:
            seen = 0 if "bptt.__main__" in line else None if seen is None else seen + 1
            if seen == imports:
                break
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    said = [line for line in errors.splitlines() if not line.startswith("import time:")]
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert len(said) <= 1
    assert "".join(said) in ("", "bptt: interrupted", "bptt: interrupted; nothing was learnt, nothing is saved")


IGNORING = """
import os, signal, sys, weakref

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "bptt.system":
            thing = type("Thing", (), {})()
            called = weakref.ref(thing, lambda gone: os.kill(os.getpid(), signal.SIGINT))
            del thing

sys.meta_path.insert(0, Finder())
"""


def test_ctrl_c_during_an_import_that_ignores_exceptions_exits(workdir):
    with bptt_process("train", "names.txt", "--steps", "1000000", "--quiet", code=IGNORING + MAIN) as running:
        _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (130, "bptt: interrupted\n")


# To a program that trains


@pytest.mark.parametrize("validation", [0, 0.2])
def test_ctrl_c_returns_the_best_model_to_a_python_program(tmp_path, ctrl_c, validation):
    ctrl_c(28)
    news = []
    trained = train(steps=100, validation=validation, out=tmp_path / "run", report=news.append)
    assert trained.record["ended"] == "SIGINT"
    assert trained.record["step"] in ((10, 20) if validation else (28,))
    assert saved_steps(tmp_path / "run")[-1] == 28
    assert f"interrupted (SIGINT) at step 28: saved in {tmp_path / 'run'}, resume with" in news[-1]
    best = bptt.load(tmp_path / "run", backend="numpy")
    np.testing.assert_array_equal(tree.ravel(best.params), tree.ravel(trained.params))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_interrupted_by_ctrl_c_resumes_bit_for_bit(tmp_path, ctrl_c):
    train(steps=30, out=tmp_path / "whole")
    ctrl_c(17)
    train(steps=30, out=tmp_path / "run")
    assert saved_steps(tmp_path / "run")[-1] == 17
    bptt.train(NAMES, report=None, resume=tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_ctrl_c_without_a_folder_keeps_the_best_model_in_memory(ctrl_c):
    ctrl_c(28)
    news = []
    assert train(steps=100, report=news.append).record["step"] in (10, 20)
    assert news[-1].startswith("interrupted (SIGINT) at step 28: keeping the best model so far\n")


def test_ctrl_c_in_the_last_update_leaves_the_run_finished(tmp_path, ctrl_c):
    ctrl_c(30)
    assert train(steps=30, out=tmp_path / "run").record["ended"] == ""
    assert '"ended": "done"' in (tmp_path / "run" / "env.json").read_text()


def test_a_second_ctrl_c_raises_keyboard_interrupt(tmp_path, ctrl_c, monkeypatch):
    calls = ctrl_c(28)
    monkeypatch.setattr(os, "fsync", lambda _: len(calls) < 28 or signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted; what was saved before is in .*run: bptt"):
        train(steps=100, out=tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [10, 20]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_a_signal_handler_of_the_program_is_not_replaced(ctrl_c, handler):
    ctrl_c(7)
    signal.signal(signal.SIGINT, handler)
    assert train(steps=30, validation=0).record["step"] == 30
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_handler_that_raises_stops_the_run_like_ctrl_c(tmp_path, ctrl_c):
    def handler(*_):
        raise KeyboardInterrupt

    train(steps=30, out=tmp_path / "whole")
    ctrl_c(7)
    signal.signal(signal.SIGINT, handler)
    trained = train(steps=30, out=tmp_path / "run")
    assert (trained.record["ended"], saved_steps(tmp_path / "run")[-1]) == ("SIGINT", 6)  # the update was not finished
    assert signal.getsignal(signal.SIGINT) is handler
    bptt.train(NAMES, report=None, resume=tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_training_in_another_thread_sets_no_signal_handlers(tmp_path, ctrl_c):
    before, seen, models = signal.getsignal(signal.SIGINT), [], []

    def work():
        models.append(train(steps=30, out=tmp_path / "run", report=lambda _: seen.append(signal.getsignal(signal.SIGINT))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert set(seen) == {before}
    assert models[0].record["ended"] == ""
    train(steps=30, out=tmp_path / "whole")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
