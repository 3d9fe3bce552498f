"""Runs that get no further: a full disk, too little memory, numbers that are no numbers. What was saved stays, and goes on."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
import weakref

import numpy as np
import pytest

import bptt
from bptt.checkpoint import store
from bptt.display import plots
from bptt.errors import SaveError
from bptt.nn import model, optimizers, tree
from runs import MAIN, NAMES, PLAIN, newest_checkpoint, outcome, replace_adam, saved_steps, uninterrupted_outcome
from runs import run_bptt_forked as run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets the limits of a Linux process")

SMALL = ("--hidden", "4", "--batch", "6", "--steps", "60", "--checkpoint-every", "5", "--backend", "numpy")
LONG = tuple("300" if flag == "60" else flag for flag in SMALL)  # with a row of the history every third step
LIMIT = "import functools, os, resource\n"
LIMIT += "def limit(what, most): resource.setrlimit(what, (most, resource.getrlimit(what)[1]))\n"
# no file grows beyond so many bytes
FILES = "limit(resource.RLIMIT_FSIZE, {most})\n"
# after so many updates no file gets any longer than so many bytes
FILES_LATER = """
from bptt.nn import gradient
whole, calls = gradient.loss_and_grad, []
def limited(*arguments):
    calls.append(None)
    if len(calls) == {step} + 1:
        limit(resource.RLIMIT_FSIZE, {most})
    return whole(*arguments)
gradient.loss_and_grad = functools.wraps(gradient.loss_and_grad)(limited)
"""
# after three updates there are so many bytes of memory more
MEMORY = """
from bptt.train_step import threads
whole, calls = threads.loss_and_grad, []
def limited(*arguments, **options):
    calls.append(None)
    if len(calls) == 4:
        pages = int(open("/proc/self/statm").read().split()[0])
        limit(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + {more})
    return whole(*arguments, **options)
threads.loss_and_grad = limited
"""


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder with a text, and one for what is saved elsewhere."""
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # which Python finds out once
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def disk(workdir):
    """A disk of a megabyte."""
    path = workdir / "disk"
    path.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {shlex.quote(str(path))}"  # by a shell, which says it if there is no such command
    done = subprocess.run(mount, shell=True, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted: {done.stderr.strip()}")  # only root may; the limits below stand in
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill_disk(disk, left):
    """Fill a disk with a file, but for so many bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(free - left))


def lines(errors):
    assert "Traceback" not in errors
    return errors.splitlines()


def with_limit(*code):
    return "".join([LIMIT, *code, PLAIN])


def same_as_whole(out, flags=SMALL):
    """Whether a run, once it goes on without a limit, ends in the bits of one that never had any."""
    assert run("train", "--resume", out)[0] == 0
    return outcome(out) == uninterrupted_outcome(*flags)


# No space on the disk


def test_a_full_disk_stops_the_run_and_it_can_be_resumed(workdir, disk):
    out = disk / "run"
    assert run("train", "names.txt", *SMALL, "--out", out, "--stop-after", "12")[0] == 0
    fill_disk(disk, 10_000)
    code, words, errors = run("train", "--resume", out)
    assert code == 5
    found = re.fullmatch(
        r"bptt: warning: cannot save the model in (.*/step-\d+): No space left on device: "
        r"([\d,]+) bytes are needed, ([\d,]+) are free; "
        r"where the run stands is saved in (.*) instead\n",
        errors,
    )
    needed, free = (int(number.replace(",", "")) for number in found.group(2, 3))
    assert found[1] == str(out / "checkpoints" / "step-00000015")
    assert free < needed
    assert needed == pytest.approx(sum(path.stat().st_size for path in (workdir / "elsewhere" / "bptt-run").iterdir()), abs=50)
    assert found[4] == str(workdir / "elsewhere" / "bptt-run")
    assert "saved in" not in words
    assert saved_steps(out)[-1] == 12
    store.read(newest_checkpoint(out), run=True)
    assert run("sample", out)[0] == 0
    assert run("train", "--resume", found[4], "--out", "new")[0] == 0  # what was saved elsewhere goes on, too
    (disk / "filler").unlink()
    assert same_as_whole(out)
    assert all(outcome(workdir / "new")[name] == outcome(out)[name] for name in ("model", "optimizer", "metrics", "samples"))


def test_a_disk_without_free_space_is_reported(workdir, disk):
    out = disk / "run"
    assert run("train", "names.txt", *SMALL, "--out", out, "--stop-after", "12")[0] == 0
    fill_disk(disk, 0)
    code, words, errors = run("train", "--resume", out)
    assert (code, words) == (5, "")
    assert errors == f"bptt: cannot write in {out}: No space left on device\n"
    store.read(newest_checkpoint(out), run=True)
    code, _, errors = run("train", "names.txt", *SMALL, "--out", disk / "other")
    assert (code, len(lines(errors))) == (5, 1)
    assert errors.endswith("No space left on device\n")
    (disk / "filler").unlink()
    assert same_as_whole(out)
    assert sorted(path.name for path in disk.iterdir()) == ["run"]


@pytest.mark.parametrize("free_bytes", range(0, 90_112, 8192))
def test_a_disk_that_fills_at_any_point_leaves_a_valid_checkpoint(disk, monkeypatch, free_bytes):
    """The disk fills in a file, between two or at a link: what was saved is valid, and the run resumes bit for bit."""
    monkeypatch.setattr(plots, "available", lambda: False)
    flags = {"hidden": 4, "steps": 20, "checkpoint_every": 2, "backend": "numpy"}
    bptt.train(NAMES, report=None, out=disk / "run", stop_after=5, **flags)
    fill_disk(disk, free_bytes)
    with warnings.catch_warnings(record=True) as warned, contextlib.suppress(SaveError):
        warnings.simplefilter("always")
        trained = bptt.train(NAMES, report=None, resume=disk / "run")
        assert bool(warned) == ("unsaved" in trained.record)
    assert all("No space left on device" in str(warning.message) for warning in warned)
    store.read(newest_checkpoint(disk / "run"), run=True)
    assert np.isfinite(bptt.load(disk / "run").score("ban"))
    (disk / "filler").unlink()
    if saved_steps(disk / "run")[-1] < 20:
        bptt.train(NAMES, report=None, resume=disk / "run")
    words = (word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value)))
    assert outcome(disk / "run") == uninterrupted_outcome(*words)


def test_a_file_size_limit_stops_the_run_like_a_full_disk(workdir):
    """As on a disk with a quota: a checkpoint does not fit any more."""
    code, _, errors = run("train", "names.txt", *LONG, "--out", "run", code=with_limit(FILES_LATER.format(step=12, most=1000)))
    assert (code, len(lines(errors))) == (5, 1)
    assert re.match(
        r"bptt: warning: cannot save the model in run/checkpoints/step-00000015: File too large: [\d,]+ bytes are", errors
    )
    assert errors.endswith("; it is not saved\n")  # for the limit holds everywhere
    assert saved_steps(workdir / "run")[-1] == 10
    store.read(newest_checkpoint(workdir / "run"), run=True)
    assert same_as_whole(workdir / "run", LONG)


def test_a_history_that_cannot_be_written_is_reported(workdir):
    flags = ("--hidden", "2", "--batch", "6", "--steps", "60", "--evaluate-every", "60", "--backend", "numpy")
    code, _, errors = run("train", "names.txt", *flags, "--out", "run", code=with_limit(FILES_LATER.format(step=6, most=2000)))
    assert code == 5
    assert (
        errors
        == (
            "bptt: warning: cannot write in run: File too large; where the run stands is saved in {} instead\n".format(
                workdir / "elsewhere" / "bptt-run"
            )
        )
        or errors == "bptt: warning: cannot write in run: File too large; it is not saved\n"
    )
    rows = (workdir / "run" / "metrics.jsonl").read_text().splitlines()
    assert 6 < len(rows) < 20
    ended = json.loads((workdir / "run" / "env.json").read_text())["sessions"][0]
    assert (ended["ended"], ended["step"]) == ("unsaved", len(rows))  # the last one of them in part
    assert same_as_whole(workdir / "run", flags)


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed: pip install '.[plot]'")
def test_a_curve_that_cannot_be_drawn_does_not_stop_a_run(workdir):
    code, _, errors = run("train", "names.txt", *SMALL, "--out", "run", code=LIMIT + FILES.format(most=30_000) + MAIN)
    assert code == 0
    assert {re.sub(r"\(.*\)", "", line) for line in lines(errors)} == {
        "bptt: warning: run/curve.png could not be drawn: [Errno 27] File too large"
    }
    assert outcome(workdir / "run") == uninterrupted_outcome(*SMALL)


# No memory


@pytest.mark.parametrize("more", [0, 4_000_000, 10_000_000])
def test_running_out_of_memory_keeps_the_last_checkpoint(workdir, more):
    """The limit holds from the fourth update on: the libraries, which end the process without it, have theirs by then."""
    flags = ("--hidden", "1024", "--batch", "30", "--length", "9", "--steps", "60", "--checkpoint-every", "2", "--quiet")
    flags += ("--average", "0")  # or the memory of evaluations, which is free by then, would do
    code, words, errors = run("train", "names.txt", *flags, "--out", "run", code=with_limit(MEMORY.format(more=more)))
    assert (code, words) == (4, "")
    assert re.fullmatch(
        r"bptt: warning: the run failed \(MemoryError\): resume it with: bptt train --resume run\n"
        r"bptt: out of memory: --hidden 1024, --layers 1: [\d,]+ parameters need about [\d.]+ GB, "
        r"this machine has [\d.,]+ GB: choose fewer units or layers\n",
        errors,
    )
    store.read(newest_checkpoint(workdir / "run"), run=True)
    assert saved_steps(workdir / "run")[-1] >= 2
    assert run("train", "--resume", "run", "--stop-after", "1")[0] == 0


def test_the_python_api_raises_out_of_memory(tmp_path, monkeypatch):
    calls, held = [], []

    def update(*arguments, **options):
        calls.append(None)
        if len(calls) == 7:
            large = np.zeros(9)
            held.append(weakref.ref(large))
            raise MemoryError
        return optimizers.adam(*arguments, **options)

    monkeypatch.setattr(plots, "available", lambda: False)
    replace_adam(monkeypatch, update)
    flags = {"report": None, "hidden": 4, "steps": 20, "backend": "numpy"}
    with pytest.warns(bptt.TrainingWarning, match="resume it with"), pytest.raises(bptt.OutOfMemory, match="hidden=4") as got:
        bptt.train(NAMES, out=tmp_path / "run", **flags)
    assert isinstance(got.value.__cause__, MemoryError)
    assert held[0]() is None  # what the update held freed memory for the save
    assert saved_steps(tmp_path / "run")[-1] == 6
    bptt.train(NAMES, report=None, resume=tmp_path / "run")
    bptt.train(NAMES, out=tmp_path / "whole", **flags)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


# No numbers


def test_a_diverging_run_keeps_the_last_finite_checkpoint(workdir):
    """Its rate rises to what makes the third update overflow."""
    flags = ["--optimizer", "sgd", "--learning-rate", "1e30", "--clip-norm", "0", "--hidden", "4", "--dropout", "0"]
    flags += ["--steps", "2000", "--checkpoint-every", "1", "--evaluate-every", "1000", "--backend", "numpy"]
    code, _, errors = run("train", "names.txt", *flags, "--out", "run")
    found = re.fullmatch(
        r"bptt: warning: step (\d+): NaN or infinity in (the .*): try --learning-rate 1e\+29; "
        r"the best model before that, from step (\d+), is kept in run\n",
        errors,
    )
    assert code == 3
    assert saved_steps(workdir / "run")[-1] == int(found[3]) == int(found[1]) - 1
    assert all(np.isfinite(array).all() for array in store.read(newest_checkpoint(workdir / "run"), run=True).weights.values())
    again = run("train", "--resume", "run")
    assert (again[0], again[2]) == (code, errors)


@pytest.mark.parametrize("name", ["layers.0.Wax", "layers.1.b", "Wya", "by"])
@pytest.mark.parametrize(("every", "seen"), [(4, 7), (3, 6)])
def test_the_first_weights_that_are_not_finite_are_named(tmp_path, monkeypatch, name, every, seen):
    """They are made in update 6: that is seen before a checkpoint there, or else in the update after it."""
    calls, leaves = [], tree.named_leaves(model.shapes(model.Config("gru", 11, 4, 2)))
    there = np.concatenate([np.full(int(np.prod(shape)), leaf == name) for leaf, shape in leaves])

    def update(*arguments, **options):
        calls.append(None)
        theta, memory = optimizers.adam(*arguments, **options)
        return (np.where(there, np.nan, theta) if len(calls) == 6 else theta), memory

    monkeypatch.setattr(plots, "available", lambda: False)
    replace_adam(monkeypatch, update)
    with pytest.warns(bptt.TrainingWarning, match=f"^step {seen}: NaN or infinity in the weights {name}: try learning_rate="):
        bptt.train(
            NAMES, report=None, hidden=4, layers=2, steps=100, out=tmp_path / "run", backend="numpy", checkpoint_every=every
        )
    assert saved_steps(tmp_path / "run") == [every]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_the_first_gradient_that_is_not_finite_is_named(tmp_path, monkeypatch, number):
    real, calls = model.loss_and_grad, []

    def loss_and_gradient(*arguments, **options):
        calls.append(None)
        loss, gradient, states = real(*arguments, **options)
        return loss, gradient._replace(Wya=gradient.Wya * (number if len(calls) > 5 else 1.0)), states

    monkeypatch.setattr(plots, "available", lambda: False)
    monkeypatch.setattr(model, "loss_and_grad", loss_and_gradient)
    monkeypatch.setenv("BPTT_KERNELS", "0")  # a compiled gradient does not call it
    with pytest.warns(
        bptt.TrainingWarning, match=r"^step 6: NaN or infinity in the gradient of Wya: .* from step 4, is kept in"
    ):
        trained = bptt.train(
            NAMES, report=None, hidden=4, steps=100, out=tmp_path / "run", backend="numpy", validation=0, checkpoint_every=2
        )
    assert trained.record["ended"] == "diverged"
    assert saved_steps(tmp_path / "run") == [2, 4]
    assert '"ended": "diverged"' in (tmp_path / "run" / "env.json").read_text()
