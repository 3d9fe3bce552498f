"""Several processes on MPICH train one model: they equal micro-batches bit for bit, and all end together.

`nox -s mpi` installs mpi4py and MPICH. Without them, these tests fail if -m mpi selects them; otherwise they are skipped.
"""

import contextlib
import functools
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt.nn import tree
from runs import NAMES, PROSE, outcome, saved_steps, wait_until

pytestmark = pytest.mark.mpi

STEPS = {"steps": 200, "evaluate_every": 200, "backend": "numpy"}
OTHER = {  # than the default of each setting of the optimizer
    "schedule": "wsd",
    "warmup": 7,
    "final_rate": 0.1,
    "average": 0.8,
    "beta1": 0.8,
    "beta2": 0.9,
    "weight_decay": 0.2,
}
RUNS = [  # lines with masks, columns that end early and states that cross windows; a stream; both with dropout
    (text, {"cell": cell, "dtype": dtype, "hidden": 6, "batch": 7, "length": length, "dropout": 0.2, **STEPS, **options})
    for dtype, options in (("float32", OTHER), ("float64", {}))
    for cell in ("vanilla", "gru", "lstm")
    for text, length in ((NAMES, 3), (PROSE, 9))
]
TRAIN = """
import json, sys, numpy as np, bptt
from bptt.nn import tree
vectors = [tree.ravel(bptt.train(text, report=None, **flags).params) for text, flags in json.loads(sys.argv[2])]
from mpi4py import MPI
np.savez(f"{sys.argv[1]}/{MPI.COMM_WORLD.rank}.npz", *vectors)
"""


@pytest.fixture(autouse=True)
def _needed(request):
    required = request.config.option.markexpr == "mpi" or os.environ.get("BPTT_REQUIRE_BACKEND") == "1"  # nox -s gpu
    give_up = pytest.fail if required else pytest.skip
    if importlib.util.find_spec("mpi4py") is None or not mpiexec():
        give_up("mpi4py and MPICH are not installed: nox -s mpi installs them")


def mpiexec():
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def start_processes(count, *command, **environment):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "BPTT_KERNELS": "0", **environment}
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [mpiexec(), "-n", str(count), sys.executable, *map(str, command)],
        cwd=root,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_processes(count, *command, **environment):
    out, err = (process := start_processes(count, *command, **environment)).communicate(timeout=100)
    return process.returncode, out, err


MAIN = ("-m", "bptt", "train")
TINY = ("--hidden", "5", "--batch", "4", "--backend", "numpy", "--evaluate-every", "40")


@pytest.fixture
def names(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    return tmp_path / "names.txt"


@pytest.mark.parametrize(("count", "numbers"), [(2, [0, 1, 2, 3, 4, 5]), (3, [2, 11]), (4, [8])])
def test_processes_equal_micro_batches_bit_for_bit(count, numbers, tmp_path, monkeypatch):
    monkeypatch.setenv("BPTT_KERNELS", "0")
    runs = [RUNS[number] for number in numbers]
    assert run_processes(count, "-c", TRAIN, tmp_path, json.dumps(runs))[0] == 0
    processes = [np.load(tmp_path / f"{rank}.npz") for rank in range(count)]
    for i, (text, flags) in enumerate(runs):
        expected = tree.ravel(bptt.train(text, report=None, micro_batches=count, **flags).params)
        for vectors in processes:
            np.testing.assert_array_equal(vectors[f"arr_{i}"], expected)


def timeless(words):
    return re.sub(r" +[0-9.]+ s", "", words)


def test_only_one_process_prints_and_writes(names, tmp_path):
    code, out, err = run_processes(2, *MAIN, names, *TINY, "--steps", "80", "--out", tmp_path / "two")
    alone = run_processes(1, *MAIN, names, *TINY, "--steps", "80", "--micro-batches", "2", "--out", tmp_path / "one")
    assert (code, err) == (alone[0], alone[2]) == (0, "")
    assert timeless(out.replace("two", "one")) == timeless(alone[1])
    two, one = (outcome(tmp_path / name) for name in ("two", "one"))
    assert two == one


def test_a_dry_run_is_printed_once_and_counts_all_processes(names):
    code, out, err = run_processes(2, *MAIN, names, *TINY, "--dry-run")
    assert (code, err) == (0, "")
    assert out.count("MB for each of 2 processes, this machine has") == 1
    assert len(out.splitlines()) == 6


def test_processes_measure_a_budget_together(names, tmp_path):
    code, out, err = run_processes(2, *MAIN, names, *TINY, "--budget", "0.3s", "--out", tmp_path / "budget")
    assert (code, err) == (0, "")
    (words,) = [line for line in out.splitlines() if line.startswith("budget 0.3 s: 5 units, ")]
    steps = re.search(r"([0-9,]+) steps", words)[1].replace(",", "")
    assert run_processes(2, *MAIN, names, *TINY, "--steps", steps, "--out", tmp_path / "steps")[::2] == (0, "")
    assert outcome(tmp_path / "budget") == outcome(tmp_path / "steps")


def test_a_run_can_be_resumed_with_another_number_of_processes(names, tmp_path):
    run_processes(2, *MAIN, names, *TINY, "--steps", "80", "--out", tmp_path / "whole")
    run_processes(2, *MAIN, names, *TINY, "--steps", "80", "--out", tmp_path / "run", "--stop-after", "33")
    assert run_processes(2, *MAIN, "--resume", tmp_path / "run")[::2] == (0, "")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    code, _, err = run_processes(3, *MAIN, "--resume", tmp_path / "run", "--steps", "90")
    assert code == 0
    words = (
        "batches had 2 micro-batches before and have 3 micro-batches for 3 processes: the numbers will be equal up to rounding"
    )
    assert err.count(words) == 1
    code, _, err = run_processes(2, *MAIN, "--resume", tmp_path / "run")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "its 90 steps are done" in err


def test_micro_batches_can_resume_on_any_divisor_of_processes(names, tmp_path):
    run_processes(1, *MAIN, names, *TINY, "--steps", "80", "--micro-batches", "4", "--out", tmp_path / "whole")
    run_processes(4, *MAIN, names, *TINY, "--steps", "80", "--out", tmp_path / "run", "--stop-after", "20")
    for count in (2, 1, 4):
        assert run_processes(count, *MAIN, "--resume", tmp_path / "run", "--stop-after", "20")[::2] == (0, "")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_all_processes_return_the_same_model_and_error(tmp_path):
    best = """
import sys, bptt
from mpi4py import MPI
bad = {"optimizer": "sgd", "learning_rate": 50.0, "clip_norm": 1e6, "steps": 60, "evaluate_every": 10, "hidden": 4}
first = bptt.train(NAMES, out=sys.argv[1], stop_after=30, report=None, backend="numpy", **bad)
then = bptt.train(NAMES, resume=sys.argv[1], report=None)
print(MPI.COMM_WORLD.allgather((then.record["step"], then.score("ban"))) == [(then.record["step"], then.score("ban"))] * 2)
"""
    code, out, err = run_processes(2, "-c", f"NAMES = {NAMES}\n{best}", tmp_path / "run")
    assert (code, out.count("True"), out.count("False")) == (0, 2, 0), err


CALLBACKS = """
import sys, bptt
from mpi4py import MPI
rank, kinds = MPI.COMM_WORLD.rank, []
def callback(event):
    kinds.append(event.kind)
    if (event.kind, event.step) == ("log", 12):
        return STOP
callbacks = [callback] if rank == 0 else []  # the processes may have different ones
flags = {"hidden": 4, "steps": 20, "evaluate_every": 5, "micro_batches": 2, "backend": "numpy", "report": None}
trained = bptt.train(NAMES, out=sys.argv[1], callbacks=callbacks, **flags)
print(MPI.COMM_WORLD.gather((trained.record["ended"], len(kinds) > 5)))
"""


def test_callback_of_process_0_stops_all_processes(names, tmp_path, monkeypatch):
    monkeypatch.setenv("BPTT_KERNELS", "0")
    words = f"NAMES = {NAMES}\n{CALLBACKS}"
    code, out, err = run_processes(2, "-c", words.replace("STOP", "True"), tmp_path / "run")
    assert (code, err) == (0, "")
    assert "[('callback', True), ('callback', False)]" in out
    assert saved_steps(tmp_path / "run")[-1] == 12
    assert run_processes(1, "-c", words.replace("STOP", "None"), tmp_path / "whole")[::2] == (0, "")
    bptt.train(NAMES, resume=tmp_path / "run", report=None)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_exception_of_a_callback_ends_all_processes_after_a_save(names, tmp_path):
    words = f"NAMES = {NAMES}\n{CALLBACKS}".replace("return STOP", "raise ZeroDivisionError")
    code, _, err = run_processes(2, "-c", words, tmp_path / "run")
    assert code == 1
    assert "bptt: process 0 of 2 ends all: Traceback" in err
    assert saved_steps(tmp_path / "run")[-1] == 12


def test_weights_that_are_not_finite_on_saving_stop_all_processes(names, tmp_path):
    wild = ("--optimizer", "sgd", "--learning-rate", "1e39", "--checkpoint-every", "1", "--evaluate-every", "9")
    code, _, err = run_processes(
        2, *MAIN, names, "--hidden", "5", "--backend", "numpy", "--steps", "30", *wild, "--out", tmp_path / "run"
    )
    assert code == 3
    assert "NaN or infinity in" in err
    assert len(err.splitlines()) == 1


def test_processes_train_separately_if_asked_to(names, tmp_path):
    code, out, _ = run_processes(2, *MAIN, names, *TINY, "--steps", "5", "--distributed=false")
    assert code == 0
    assert out.count("saved in") == 2


@pytest.mark.parametrize(("flag", "values"), [("--seed", (1, 2)), ("--hidden", (5, 6)), ("--dtype", ("float32", "float64"))])
def test_processes_with_different_settings_are_refused(names, flag, values):
    rest = (sys.executable, *MAIN, names, "--steps", "5", "--backend", "numpy", flag)
    code, out, err = run_processes(
        1, *MAIN, names, "--steps", "5", "--backend", "numpy", flag, values[0], ":", "-n", "1", *rest, values[1]
    )
    assert (code, out) == (2, "")
    assert err.startswith(f"bptt: process 1 of 2 has {flag} {values[1]}, process 0 has {values[0]}: start all")
    assert len(err.splitlines()) == 1


def test_processes_with_different_cell_files_are_refused(names):
    """Each reads the file of its own folder."""
    cell = (Path(__file__).parents[1] / "examples" / "minimal_gated_unit.py").read_text()
    for rank in range(2):
        (names.parent / str(rank)).mkdir()
        (names.parent / str(rank) / "mgu.py").write_text(cell + "\n" * rank)
    program = f"""
import os, bptt
from mpi4py import MPI
os.chdir({str(names.parent)!r} + f"/{{MPI.COMM_WORLD.rank}}")
bptt.train({NAMES!r}, cell="mgu.py", hidden=5, steps=3, batch=4, report=None, backend="numpy", distributed=True)
"""
    code, _, err = run_processes(2, "-c", program)
    assert code != 0
    assert "has --cell" in err
    assert "start all of them with the same command, packages and files" in err


def test_bad_input_is_printed_by_one_process(names):
    assert run_processes(2, *MAIN, "nothing.txt")[::2] == (2, run_processes(1, *MAIN, "nothing.txt")[2])
    code, _, err = run_processes(2, *MAIN, names, "--micro-batches", "3")
    words = "--micro-batches 3 for 2 processes: give 2, 4, 8 and so on, or 1 for one part each"
    assert (code, err) == (2, f"bptt: {words}\n")
    code, _, err = run_processes(1, *MAIN, names, ":", "-n", "1", sys.executable, *MAIN, names, "--micro-batches", "3")
    assert (code, err) == (2, f"bptt: process 1 of 2: {words}\n")


def test_an_error_of_one_process_at_the_start_stops_all(names, tmp_path):
    unknown = "bptt: Unknown option: --nope. bptt train --help lists all options. If it is no option, write -- before it.\n"
    assert run_processes(3, *MAIN, names, "--nope") == (2, "", unknown)
    rest = (":", "-n", "1", sys.executable, *MAIN, names, *TINY, "--steps", "5")
    assert run_processes(1, *MAIN, names, *TINY, *rest, "--nope")[2].startswith("bptt: process 1 of 2: Unknown option: --nope")
    code, _, err = run_processes(1, *MAIN, names, *TINY, "--steps", "5", *rest, "--dry-run")
    assert code == 2
    assert err.startswith("bptt: process 1 of 2 has to do: a dry run, process 0 has a new run: start all")
    for one, other in (("", "--out"), ("--out", "")):
        named = [[flag, tmp_path / "out"] if flag else [] for flag in (one, other)]
        code, _, err = run_processes(1, *MAIN, names, *TINY, "--steps", "5", *named[0], *rest, *named[1])
        assert code == 2
        assert err.startswith("bptt: process 1 of 2 has --out ")
    assert not (tmp_path / "out").exists()
    assert run_processes(1, *MAIN, names, *TINY, "--steps", "5", "--out", tmp_path / "whole")[0] == 0
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-00000005", tmp_path / "lone")
    rest = (":", "-n", "1", sys.executable, *MAIN, "--resume", tmp_path / "lone")
    code, _, err = run_processes(1, *MAIN, "--resume", tmp_path / "whole", *rest)
    assert code == 2
    assert err.startswith("bptt: process 1 of 2 has to do: a checkpoint to resume, process 0 has a run to resume: ")
    code, _, err = run_processes(1, *MAIN, names, *TINY, "--steps", "5", *rest)
    assert (code, "has to do: a checkpoint to resume, process 0 has a new run: start all" in err) == (2, True)
    code, _, err = run_processes(2, *MAIN, "--resume", tmp_path / "nothing", "--seed", "3", "--cell", "gru")
    assert (code, err.count("\n"), err[:16]) == (2, 1, "bptt: --cell gru")  # always the first one of the flags


def test_an_output_error_of_process_0_is_printed_once_and_stops_all(names, tmp_path):
    (tmp_path / "taken").mkdir()
    for more in ((), ("--dry-run",)):
        code, out, err = run_processes(2, *MAIN, names, *TINY, "--out", tmp_path / "taken", *more)
        words = f"bptt: {tmp_path / 'taken'}: already exists: name a new folder, or move the old one away\n"
        assert (code, out, err) == (2, "", words)
    caught = "import bptt, sys\ntry: bptt.train('dinosaurs', out=sys.argv[1])\nexcept bptt.InputError as error: print('caught')"
    code, out, _ = run_processes(2, "-c", caught, tmp_path / "taken")
    assert (code, out.count("caught")) == (0, 2)


INTERRUPTED = """
import os, signal, sys

wanted = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted and os.environ["PMI_RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from bptt.__main__ import main
sys.argv[0] = "bptt"
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["bptt.system", "mpi4py", "mpi4py.MPI"])
def test_ctrl_c_in_one_process_before_they_connect_stops_all(module, names):
    before = time.monotonic()
    code, _, err = run_processes(2, "-c", INTERRUPTED, module, "train", names, *TINY, "--steps", "100000000")
    assert code != 0
    assert "bptt: interrupted\n" in err
    assert "Traceback" not in err
    assert time.monotonic() - before < 20


EARLY = """
import os, signal, sys
from bptt.training import setup

def prepared(*arguments, was=setup.from_scratch):
    if os.environ["PMI_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGUSR1)
    return was(*arguments)

setup.from_scratch = prepared
from bptt.__main__ import main
sys.argv[0] = "bptt"
sys.exit(main())
"""


def test_a_signal_during_setup_is_not_lost(names, tmp_path):
    code, out, err = run_processes(2, "-c", EARLY, "train", names, *TINY, "--steps", "100000000", "--out", tmp_path / "run")
    assert code == 138, err
    assert "interrupted (SIGUSR1) at step 1: saved in" in out
    assert saved_steps(tmp_path / "run") == [1]


def test_nccl_is_refused_without_gpus(names):
    code, out, err = run_processes(2, *MAIN, names, *TINY, "--nccl")
    assert (code, out) == (2, "")
    assert err == "bptt: --nccl: the backend is numpy, and NCCL needs a GPU for each process: give --nccl=false\n"


@pytest.mark.gpu
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_two_processes_on_a_gpu_equal_micro_batches_bit_for_bit(cell, names, tmp_path):
    flags = (names, "--hidden", "5", "--batch", "4", "--cell", cell, "--steps", "60", "--backend", "cupy", "--require-backend")
    for count, more in ((1, ("--micro-batches", "2")), (2, ())):
        code, _, err = run_processes(count, *MAIN, *flags, *more, "--out", tmp_path / f"{count}", BPTT_KERNELS="1")
        assert code == 0, err
    one, two = (outcome(tmp_path / f"{count}") for count in (1, 2))
    assert [two[name] for name in ("model", "optimizer")] == [one[name] for name in ("model", "optimizer")]


def test_a_launcher_of_another_mpi_is_refused(names):
    env = {**os.environ, "OMPI_COMM_WORLD_SIZE": "4"}
    done = subprocess.run([sys.executable, *MAIN, names], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bptt: the launcher started 4 processes, and MPI knows of 1: use the launcher of the MPI")
    assert len(done.stderr.splitlines()) == 1


FAILING = """
import sys, bptt
sys.path.insert(0, "tests")
from mpi4py import MPI
from bptt.nn import optimizers; from bptt.train_step import microbatches; from bptt.train_step import update
from runs import NAMES
calls, real, rank = [], microbatches.split, MPI.COMM_WORLD.rank
update.SYNC_CHECK_EVERY = 4

def spy(*arguments):
    calls.append(arguments)
    if rank == 1 and len(calls) == 9:
        {what}
    return real(*arguments)

microbatches.split = spy
bptt.train(NAMES, report=None, steps=10**6, hidden=4, backend="numpy", distributed=True)
"""


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("raise ValueError('lost')", 1, "process 1 of 2 ends all: Traceback"),
        ("sys.exit(3)", 1, "process 1 of 2 ends all: Traceback"),
        (
            "adam = optimizers.OPTIMIZERS['adam']; "
            "optimizers.OPTIMIZERS['adam'] = adam._replace(update=lambda theta, *rest, **_: (theta + rest[0], rest[1]))",
            1,
            "are not the same any more",
        ),
    ],
)
def test_a_failure_of_one_process_stops_all(what, code, words):
    process = start_processes(2, "-c", FAILING.format(what=what))
    began = time.perf_counter()
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert words in err
    assert time.perf_counter() - began < 15  # the imports included


def wait_for(path, process):
    for _ in range(600):
        if path.is_dir() and any(path.iterdir()):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail(f"{path} does not come")


def workers(launcher):
    """The ids of the processes that train: children of the proxy that MPICH's launcher starts."""
    children = {launcher.pid: []}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    return [worker for proxy in children[launcher.pid] for worker in children.get(proxy, [])]


def reached_by(launcher, out, step):
    return bool(workers(launcher)) and (saved_steps(out) or [0])[-1] >= step


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_to_the_launcher_saves_once_and_stops_all(name, names, tmp_path):
    process = start_processes(
        2, *MAIN, names, *TINY, "--steps", "1000000", "--out", tmp_path / "run", "--checkpoint-every", "50"
    )
    wait_for(tmp_path / "run" / "checkpoints", process)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + getattr(signal, name)
    assert "Traceback" not in err
    assert out.count("--resume") == 1


def test_the_slurm_script_saves_and_resumes(names, tmp_path):
    """The script of docs/how-to/clusters.md, under bash: when its time is up it saves, requeues itself and then resumes."""
    words = (Path(__file__).parents[1] / "docs" / "how-to" / "clusters.md").read_text("utf-8")
    endless = " ".join((*TINY, "--steps", "1000000", "--checkpoint-every", "40"))
    script = words.split("```bash\n")[1].split("```")[0].replace("--batch 512", endless)
    (tmp_path / "job").write_text(script)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text(f"PATH={tmp_path}:{Path(sys.executable).parent}:$PATH")
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BPTT_KERNELS": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    job = subprocess.Popen(["bash", "job"], cwd=tmp_path, env=environment, **pipes)
    assert wait_until(job, lambda: bool(saved_steps(tmp_path / "runs" / "names")))
    job.send_signal(signal.SIGUSR1)
    out, err = job.communicate(timeout=60)
    reached = saved_steps(tmp_path / "runs" / "names")[-1]
    assert f"interrupted (SIGUSR1) at step {reached}" in out, err
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    (tmp_path / "job").write_text(script.replace('"$run")', f'"$run" --steps {reached + 40})'))  # or it would not end
    again = subprocess.run(
        ["bash", "job"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"after step {reached}\n" in again.stdout
    assert saved_steps(tmp_path / "runs" / "names")[-1] == reached + 40


def test_killing_any_process_loses_nothing(names, tmp_path):
    """Ten kills: while a process starts, and at any moment up to three checkpoints later."""
    out, rest = tmp_path / "run", (*TINY, "--steps", "1000", "--checkpoint-every", "40")
    assert run_processes(2, *MAIN, names, *rest, "--out", tmp_path / "whole", "--quiet")[0] == 0
    rng, reached = random.Random(5), []
    command = [names, *rest, "--out", out]
    for _ in range(10):
        process = start_processes(2, *MAIN, *command, "--quiet")
        target = (reached or [0])[-1] + 40 * rng.randrange(0 if reached else 1, 4)
        assert wait_until(process, functools.partial(reached_by, process, out, target))
        time.sleep(0.05 * rng.random())
        os.kill(rng.choice(workers(process)), signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == 9
        reached.append(saved_steps(out)[-1])
        command = ["--resume", out]
    assert reached[-1] > 400  # each resumed what the one before had saved
    assert run_processes(2, *MAIN, *command, "--quiet")[0] == 0
    assert outcome(out) == outcome(tmp_path / "whole")
