"""Memory: the estimate is near the truth, of the numbers in a step and of the peak of a whole run."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import bptt
from bptt import dispatch, errors, system
from bptt.config.settings import from_flags
from bptt.data.dataset import validation_windows
from bptt.distributed import allreduce
from bptt.distributed.process_group import MPIGroup
from bptt.inference.evaluation import evaluate
from bptt.nn import model, tree
from bptt.train_step import threads
from bptt.train_step.stepper import run_updates
from bptt.training import memory_estimate, setup

pytestmark = pytest.mark.usefixtures("_pure")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process is read from Linux")


@pytest.fixture
def _pure(monkeypatch):
    """Compiled kernels take less, and tracemalloc does not count it."""
    monkeypatch.setenv("BPTT_KERNELS", "0")
    dispatch.disable()


def prepare_run(text="python-help", **flags):
    return setup.from_scratch(text, from_flags({"backend": "numpy", "validation": 0, **flags}))


class Echo:
    """All other processes, which do what this one does."""

    size = 2

    def Alltoall(self, given, found):
        found[...] = given

    def Allgather(self, given, found):
        found[...] = given

    def allgather(self, value):
        return [value] * self.size


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden": 64, "batch": 64, "length": 64, "layers": 1},
        {"hidden": 160, "batch": 32, "length": 128, "layers": 3},
        {"hidden": 400, "batch": 2, "length": 4, "layers": 2},  # where the weights are what counts
        {"hidden": 400, "batch": 2, "length": 4, "layers": 2, "average": 0.9},
        {"hidden": 64, "batch": 8, "length": 1024, "layers": 1, "recompute_every": "sqrt"},
        {"hidden": 160, "batch": 32, "length": 128, "layers": 3, "recompute_every": 64},
    ],
)
def test_the_estimate_of_an_update_fits_its_allocations(cell, sizes, processes):
    run = prepare_run(cell=cell, dropout=0.3, micro_batches=processes, **sizes)
    if processes > 1:
        run = run._replace(task=run.task._replace(group=MPIGroup(0, processes, 0, processes, communicator=Echo())))
    tracemalloc.start()
    all_reduce = allreduce.connect(run.task.group, run.task.backend, 1 + np.size(run.now.state.params_vector), nccl=False)
    rows = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    run = run._replace(task=run.task._replace(all_reduce=all_reduce))
    following = run_updates(run.task, run.now.state)
    next(following)
    arrays = 4 if run.task.plan.average else 3
    held = 4 * arrays * np.size(run.now.state.params_vector)  # the state before, which was there before the trace began
    tracemalloc.start()
    try:
        next(following)
        next(following)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ratio = 4 * memory_estimate.update_numbers(run.task) / (peak + held + rows)
    assert 0.85 < ratio < (1.15 if processes == 1 else 1.25)  # parts are counted as if each were an update


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_estimate_of_an_evaluation_fits_its_allocations(cell, layers):
    run = prepare_run("a bb ab " * 3000 + "\n", mode="stream", validation=0.4, cell=cell, hidden=64, layers=layers)
    task, params = run.task, tree.unravel(run.now.state.params_vector, model.shapes(run.task.config))
    windows = list(validation_windows(task.data))
    assert len(windows) > 2
    tracemalloc.start()
    try:
        evaluate(task.config, params, task.backend, map(task.read, windows))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 4 * memory_estimate.evaluation_numbers(task) == pytest.approx(
        peak + 4 * 3 * np.size(run.now.state.params_vector), rel=0.15
    )


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@pytest.mark.parametrize("sizes", [(128, 64), (20, 200), (64, 8), (64, 3000)])
def test_the_estimate_of_the_largest_update_of_lines_fits(cell, sizes):
    """In segments, and in a single one where segments do not pay."""
    hidden, batch = sizes
    run = prepare_run("dinosaurs", cell=cell, hidden=hidden, batch=batch, length=64, steps=12, dropout=0.3)
    following = run_updates(run.task, run.now.state)
    next(following)
    held = 4 * 3 * np.size(run.now.state.params_vector)
    tracemalloc.start()
    try:
        for _ in following:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 4 * memory_estimate.update_numbers(run.task) == pytest.approx(
        peak + held, rel=0.2
    )  # what is promised; 15 % but for one of these


@LINUX
@pytest.mark.endurance
@pytest.mark.parametrize(
    "flags",
    [
        "dinosaurs --steps 60",
        "dinosaurs --steps 10 --cell lstm --hidden 128 --batch 400 --dtype float64",
        "python-help --validation 0 --steps 10",
        "python-help --validation 0.01 --steps 4 --evaluate-every 2 --hidden 384 --batch 64",
        "python-help --validation 0.01 --steps 4 --evaluate-every 2 --cell vanilla --hidden 300 --batch 300 --dtype float64",
        "python-help --validation 0.01 --steps 4 --evaluate-every 2 --cell lstm --hidden 256 --layers 2 --batch 64",
        # where measuring is most
        "python-help --validation 0.1 --steps 4 --evaluate-every 2 --cell vanilla --hidden 1024 --layers 1 --batch 8",
        "python-help --validation 0 --steps 4 --cell gru --hidden 700 --batch 2 --length 8",  # where the weights are
    ],
)
def test_the_estimate_is_within_a_fifth_of_the_peak(tmp_path, flags):
    """Both in processes of their own, as a user would see it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path)}

    def run(code):
        main = f"import sys; sys.argv = ['bptt', 'train', *'{flags} --backend numpy --json'.split(), *sys.argv[1:]]; {code}"
        command = [sys.executable, "-c", main, *(["--dry-run"] if "peak" not in code else [])]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    output = run("from bptt.cli import main; main()")
    estimate = float(output.split('"memory_bytes": ')[1].split(",")[0])
    peak = run("from bptt.cli import main; main(); print('peak', open('/proc/self/status').read().split('VmHWM:')[1])")
    measured = 1024 * float(peak.split("peak ")[-1].split()[0])  # ru_maxrss would begin with the memory of pytest
    assert estimate == pytest.approx(measured, rel=0.2)


def test_a_run_that_does_not_fit_is_refused_before_memory_is_taken(monkeypatch):
    for hidden in (10**6, 10**8, 10**9):
        with pytest.raises(errors.OutOfMemory, match=rf"^out of memory: hidden={hidden}, layers=3: [\d,]+ parameters need"):
            prepare_run(hidden=hidden, layers=3)
    monkeypatch.setattr(system, "physical_memory", lambda: 1e6)
    monkeypatch.setattr(model, "init", lambda *_: pytest.fail("memory was taken"))
    words = r"batch=64, length=64 need about .* GB, this machine has 0.0 GB: choose a smaller batch or length"
    with pytest.raises(bptt.OutOfMemory, match=words):
        prepare_run(batch=64)
    with pytest.raises(bptt.OutOfMemory, match="choose fewer units or layers"):
        prepare_run(hidden=2000, batch=1)


def test_processes_on_one_machine_divide_its_cores_and_memory(monkeypatch):
    task = prepare_run("python-help", hidden=128, batch=512, length=64).task
    eight = MPIGroup(0, 8, 0, 8)
    monkeypatch.setattr(threads, "workers", lambda: 1)
    alone = memory_estimate.update_numbers(task._replace(group=eight))
    monkeypatch.setattr(threads, "workers", lambda: 8)
    assert memory_estimate.update_numbers(task._replace(group=eight)) == alone < 0.3 * memory_estimate.update_numbers(task)
    each = memory_estimate.needed_bytes(task._replace(group=eight), plotting=False)
    monkeypatch.setattr(system, "physical_memory", lambda: 7 * each)
    memory_estimate.refuse_too_large(task._replace(group=MPIGroup(0, 8, 0, 6)))
    with pytest.raises(bptt.OutOfMemory, match="GB in each of 8 processes, this machine has"):
        memory_estimate.refuse_too_large(task._replace(group=eight))


def test_the_limits_of_the_own_cgroup_and_of_those_around_it_count(tmp_path):
    member, root = tmp_path / "cgroup", tmp_path / "root"
    member.write_text("0::/slurm/job_7/step_0\n")
    limits = list(system.cgroup_limits(member, root))
    assert limits[0] == root / "memory.max"
    assert limits[2:] == [root / part / "memory.max" for part in ("slurm/job_7/step_0", "slurm/job_7", "slurm")]
    member.write_text("12:cpu:/a\n4:memory,hugetlb:/slurm/job_7\n1:name=systemd:/b\n")
    limits = list(system.cgroup_limits(member, root))
    assert limits[2:] == [root / "memory" / part / "memory.limit_in_bytes" for part in ("slurm/job_7", "slurm")]
    assert len(list(system.cgroup_limits(tmp_path / "absent", root))) == 2
