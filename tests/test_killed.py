"""Runs that are killed, by SIGKILL, at any moment: what is there loads, and goes on to the bits of a run that never was."""

import os
import random
import signal
import time

import numpy as np
import pytest

import bptt
from bptt.checkpoint import store
from runs import NAMES, PLAIN, bptt_process, outcome, saved_steps, wait_until
from runs import run_bptt_forked as run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")

FLAGS = ["--cell", "lstm", "--layers", "2", "--hidden", "6", "--dropout", "0.3", "--batch", "6", "--length", "3"]
FLAGS += ["--evaluate-every", "24", "--checkpoint-every", "4", "--backend", "numpy", "--quiet"]
# before the call of that number that changes something on the disk the process kills itself
DEADLY = """
import os, signal, sys
left = int(sys.argv.pop(1))
def deadly(call):
    def wrapped(*arguments, **keywords):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **keywords)
    return wrapped
for name in ("fsync", "rename", "replace", "symlink", "mkdir", "rmdir", "unlink"):
    setattr(os, name, deadly(getattr(os, name)))
"""
# the same before a sync of that number in which a checkpoint is half written
TEARING = """
import glob, os, signal, sys
left = int(sys.argv.pop(1))
fsync = os.fsync
def deadly(descriptor):
    global left
    left -= bool(glob.glob(f"{sys.argv[-1]}/checkpoints/.bptt-*"))
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = deadly
"""
CALLS_TO_START = 16  # calls until a run has started, about
SAVE = 14  # calls for a checkpoint, about


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder with a text."""
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(out, count):
    """Begin a run, or go on with it once there is something of it."""
    if (out / "config.toml").exists():
        return ["train", "--resume", out]
    return ["train", "names.txt", *FLAGS, "--steps", count, "--out", out]


def killed_from_outside(chance, out, count):
    """Whether a run could be killed at a random moment of its next steps."""
    target = (saved_steps(out) or [0])[-1] + chance.randrange(4, 13)
    with bptt_process(*command(out, count)) as running:
        wait_until(running, lambda: (saved_steps(out) or [0])[-1] >= target)
        time.sleep(chance.uniform(0, 0.03))
        running.kill()
        return running.wait() == -signal.SIGKILL


def killed_from_inside(chance, out, count):
    """Whether a run killed itself before a random one of its next calls that write, sync, name or remove something."""
    left = chance.randrange(1, CALLS_TO_START + 3 * SAVE)
    code, _, errors = run(left, *command(out, count), code=DEADLY + PLAIN)
    assert errors == ""
    return code == -signal.SIGKILL


def killed_in_a_save(chance, out, count):
    """Whether a run killed itself while one of its next checkpoints was half written."""
    code, _, errors = run(chance.randrange(1, 22), *command(out, count), code=TEARING + PLAIN)
    assert errors == ""
    assert code == 0 or list(out.glob("checkpoints/.bptt-*"))
    return code == -signal.SIGKILL


WAYS = [killed_from_outside, killed_from_inside, killed_in_a_save]


def check_run_folder(out):
    """Whatever has a name is whole."""
    for step in saved_steps(out):
        store.read(out / "checkpoints" / f"step-{step:08d}", run=True)
    if saved_steps(out):
        assert np.isfinite(bptt.load(out, backend="numpy").score("ban"))


def train_with_kills(workdir, out, count, ways, seed):
    """What a run is like after a kill in each of these ways, as far as it lasts; and what it comes to in the end."""
    chance, torn = random.Random(seed), []
    for way in ways:
        if not way(chance, out, count):
            break
        check_run_folder(out)
        torn.append(bool(list(out.rglob(".bptt-*"))))
    code, _, errors = run(*command(out, count))
    assert (code, errors) == (0, "") or (code == 2 and "steps are done" in errors)  # killed after its last checkpoint
    return torn, outcome(out)


def uninterrupted(workdir, count):
    assert run(*command(workdir / "whole", count))[0] == 0
    return outcome(workdir / "whole")


def test_a_run_killed_three_times_equals_an_undisturbed_one(workdir):
    torn, came_to = train_with_kills(workdir, workdir / "run", 96, WAYS, seed=0)
    assert len(torn) == 3
    assert any(torn)
    assert came_to == uninterrupted(workdir, 96)


@pytest.mark.endurance
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_run_killed_many_times_equals_an_undisturbed_one(workdir, seed):
    """25 times, or $BPTT_KILLS: at random moments, and before random ones of the calls that save, some of which are torn."""
    count = int(os.environ.get("BPTT_KILLS", "25"))
    expected, torn, runs = uninterrupted(workdir, 400), [], 0
    while len(torn) < count:
        ways = [random.Random(seed + kill).choice(WAYS) for kill in range(len(torn), count)]
        kills, came_to = train_with_kills(workdir, workdir / f"run-{runs}", 400, ways, seed=100 * seed + runs)
        torn, runs = torn + kills, runs + 1
        assert came_to == expected
    assert len(torn) == count
    assert 0 < sum(torn) < count


@pytest.mark.endurance
@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_kill_before_any_file_system_call_loses_nothing(workdir, first):
    """From the first file to the last link: of a run that begins, and of one that goes on. A third of the calls at a time."""
    expected = uninterrupted(workdir, 8)
    for left in range(first, 200, 3):
        out = workdir / f"run-{left}"
        code, _, errors = run(left, *command(out, 8), code=DEADLY + PLAIN)
        assert errors == ""
        check_run_folder(out)
        again = run(left, *command(out, 8), code=DEADLY + PLAIN)[0]
        check_run_folder(out)
        if again != 0:
            code_of_end, _, errors = run(*command(out, 8))
            assert (code_of_end, errors) == (0, "") or "steps are done" in errors
        assert outcome(out) == expected
        if code == 0:
            break
    assert CALLS_TO_START + SAVE < left < 197
