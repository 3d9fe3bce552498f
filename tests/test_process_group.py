"""Groups of processes, simulated by threads: what they exchange, compare and raise together."""

import sys
import types

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt.config.settings import from_flags
from bptt.distributed import allreduce, process_group, reduction
from bptt.distributed.launcher import LAUNCHER_VARIABLES
from bptt.distributed.process_group import SINGLE_PROCESS, MPIGroup
from bptt.errors import Diverged, InputError, OutOfSync
from bptt.train_step import microbatches, stepper
from bptt.training import launch, messages, setup
from process_groups import run_processes
from runs import NAMES, PROSE


def test_pairwise_sum_adds_in_a_fixed_order():
    class Words(str):
        def __add__(self, other):
            return Words(f"({self}{other})")

    def words(count, first=0, step=1, end=None):
        def term(number):
            asked.append(number)
            return (Words(number),)

        asked = []
        (total,) = reduction.pairwise_sum(term, count, first, step, end)
        assert len(set(asked)) == len(asked)
        return total

    assert [words(count) for count in (1, 2, 3, 4)] == ["0", "(01)", "((01)2)", "((02)(13))"]
    assert words(6) == "(((03)(14))(25))"
    assert words(8) == "(((04)(26))((15)(37)))"
    assert words(8) == f"({words(8, 0, 2)}{words(8, 1, 2)})"
    assert words(10**9, end=3) == "((01)2)"
    assert reduction.pairwise_sum(lambda number: None, 7) is None


def test_which_numbers_of_micro_batches_processes_can_divide():
    assert [reduction.round_up(count, 3) for count in (1, 3, 4, 6, 7, 16)] == [3, 3, 6, 6, 12, 24]
    divisible = {count: [n for n in range(1, 13) if reduction.is_divisible(count, n)] for count in (1, 2, 6, 8, 12)}
    assert divisible == {1: [1], 2: [1, 2], 6: [1, 3, 6], 8: [1, 2, 4, 8], 12: [1, 3, 6, 12]}


@pytest.mark.parametrize(("size", "count"), [(2, 2), (3, 3), (9, 9), (2, 8), (4, 8), (3, 6)])  # 8 and 9: more than columns
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@pytest.mark.parametrize(
    ("text", "length"), [(NAMES, 3), (PROSE, 17)]
)  # some columns are over before others; between them, too
def test_each_process_has_its_columns_and_all_have_equal_weights(size, count, cell, text, length):
    flags = {"cell": cell, "hidden": 5, "batch": 7, "length": length, "steps": 30, "backend": "numpy", "validation": 0}
    run = setup.from_scratch(text, from_flags({**flags, "micro_batches": count, "dropout": 0.2, "layers": 2}))
    alone = [state for state, _ in stepper.run_updates(run.task, run.now.state)]

    def work(group):
        vector = 1 + run.now.state.params_vector.shape[0]
        all_reduce = allreduce.connect(group, run.task.backend, vector, nccl=False)
        task = run.task._replace(group=group, all_reduce=all_reduce)
        states = []
        for state, traces in stepper.run_updates(task, alone[9]):  # which has the states of all columns
            assert all(trace.loss.base is None for trace in traces)  # or it would keep the whole sum in memory
            states.append(state)
        return states, microbatches.gather_states(states[-1].states, group, task.backend)

    results = run_processes(size, work)
    np.testing.assert_array_equal(results[0][1], alone[-1].states)
    for rank, (states, gathered) in enumerate(results):
        assert (gathered is None) == (rank > 0)
        for state, expected in zip(states, alone[10:], strict=True):
            np.testing.assert_array_equal(state.params_vector, expected.params_vector)
            np.testing.assert_array_equal(state.states, expected.states[:, :, rank::size, :])


@pytest.mark.parametrize(("text", "count"), [(NAMES, 10), (PROSE, 1)])
@pytest.mark.parametrize("size", [2, 3, 12])
def test_all_processes_generate_a_preview_together(text, count, size):
    model = bptt.train(text, hidden=6, steps=30, report=None)
    alone = messages.sample_preview(model)
    assert len(alone) == count
    parts = run_processes(size, lambda group: messages.sample_preview(model, group))
    assert [text for texts in parts for text in texts] == alone
    assert len(parts[0]) == -(-count // size)


@pytest.mark.parametrize("kind", [InputError, Diverged])
def test_rank_0_then_others_raises_the_first_error_everywhere(kind):
    calls = []

    def work(group, broken):
        def function():
            calls.append(group.rank)
            if group.rank in broken:
                raise kind(f"no file at {group.rank}")
            return group.rank

        return group.rank_0_then_others(function)

    assert run_processes(3, lambda group: work(group, ())) == [0, 1, 2]
    assert calls[0] == 0
    errors = run_processes(3, lambda group: work(group, (1, 2)))
    assert [(type(error), str(error)) for error in errors] == [(kind, "process 1 of 3: no file at 1")] * 3
    calls.clear()
    errors = run_processes(3, lambda group: work(group, (0,)))
    assert [(str(error), error.on_all_ranks, error.rank) for error in errors] == [("no file at 0", True, i) for i in range(3)]
    assert calls == [0]


def test_a_function_for_rank_0_is_called_there_only():
    assert run_processes(3, lambda group: group.on_rank_0(lambda: group.rank + 5)) == [5, None, None]


def test_assert_same_compares_the_processes():
    def work(group, seed):
        return group.assert_same(lambda: {"numpy": "2", "--seed": str(seed)})

    assert run_processes(3, lambda group: work(group, 1)) == [None] * 3
    errors = run_processes(3, lambda group: work(group, group.rank // 2))
    words = "process 2 of 3 has --seed 1, process 0 has 0: start all of them with the same command, packages and files"
    assert list(map(str, errors)) == [words] * 3


def test_assert_in_sync_compares_the_parameters():
    theta, backend = np.arange(3.0), backends.select("numpy", dtype="float64")
    assert run_processes(2, lambda group: group.assert_in_sync(theta, backend)) == [None] * 2
    errors = run_processes(2, lambda group: group.assert_in_sync(theta + group.rank * 1e-15, backend))
    assert [type(error) for error in errors] == [OutOfSync] * 2


def test_signals_and_decisions_are_shared_by_all_processes():
    assert run_processes(3, lambda group: group.all_signals(["SIGTERM"] * (group.rank > 0))) == [["SIGTERM", "SIGTERM"]] * 3
    assert run_processes(3, lambda group: group.broadcast(group.rank + 5)) == [5] * 3
    assert run_processes(3, lambda group: group.gather(group.rank + 5)) == [[5, 6, 7], None, None]


def test_a_single_process_communicates_nothing():
    assert SINGLE_PROCESS.broadcast(3) == 3
    assert SINGLE_PROCESS.all_gather(3) == SINGLE_PROCESS.gather(3) == [3]
    assert SINGLE_PROCESS.all_signals(["SIGINT"]) == ["SIGINT"]
    assert SINGLE_PROCESS.rank_0_then_others(lambda: 4) == SINGLE_PROCESS.on_rank_0(lambda: 4) == 4
    SINGLE_PROCESS.assert_same(lambda: pytest.fail("facts for nobody"))
    SINGLE_PROCESS.assert_in_sync(np.ones(3), None)
    assert SINGLE_PROCESS.all_raise(ValueError("alone"))
    with pytest.raises(ValueError, match="alone"), SINGLE_PROCESS.abort_all_on_error():
        raise ValueError("alone")


def test_mpi_is_not_imported_without_a_launcher(monkeypatch):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # an import of it is an ImportError
    assert process_group.init_process_group(distributed=None) is SINGLE_PROCESS
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert process_group.init_process_group(distributed=None) is SINGLE_PROCESS
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert process_group.init_process_group(distributed=False) is SINGLE_PROCESS
    for tasks, distributed in (("1", True), ("2", None)):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
        with pytest.raises(
            InputError, match=r"^several processes need MPI, which cannot be used: .*remedy: pip install mpi4py"
        ):
            process_group.init_process_group(distributed=distributed)


@pytest.mark.parametrize("kinds", [None, "mpi,system", "mpi,cuda:host", "system,cuda:host:managed"])
def test_mpi_reads_gpu_memory_follows_its_memory_kinds(kinds):
    assert not process_group.mpi_reads_gpu_memory(types.SimpleNamespace(Get={"mpi_memory_alloc_kinds": kinds}.get))
    for cuda in ("cuda", "cuda:device", "cuda:managed:device"):
        info = types.SimpleNamespace(Get={"mpi_memory_alloc_kinds": f"{kinds},{cuda}"}.get)
        assert process_group.mpi_reads_gpu_memory(info)


def test_an_error_is_unchanged_without_other_processes(monkeypatch):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for alone, processes in ((False, "1"), (True, "2")):
        monkeypatch.setenv("PMI_SIZE", processes)
        with pytest.raises(InputError, match=r"^no file$") as caught, launch.fail_on_all(alone=alone):
            raise InputError("no file") from FileNotFoundError("there")
        assert isinstance(caught.value.__cause__, FileNotFoundError)


class Aborted(Exception):
    """What `Abort` of a simulated communicator raises."""


class AbortingCommunicator:
    def Abort(self, code):
        raise Aborted(code)


def end(error):
    """Raise an error in process 1 of 2, in a block whose errors end all processes."""
    with MPIGroup(1, 2, 1, 2, communicator=AbortingCommunicator()).abort_all_on_error():
        raise error


@pytest.mark.parametrize(
    ("error", "code"), [(InputError("no"), 2), (KeyboardInterrupt(), 130), (ValueError("lost"), 1), (SystemExit(3), 1)]
)
def test_an_error_of_one_process_aborts_all(error, code, capsys):
    with pytest.raises(Aborted) as aborted:
        end(error)
    assert aborted.value.args == (code,)
    assert "bptt: process 1 of 2 ends all: " in capsys.readouterr().err


def test_an_error_that_all_processes_raise_does_not_abort():
    shared = InputError("all raise it", on_all_ranks=True)
    for error in (shared, Diverged("the same numbers")):
        with pytest.raises(type(error), match=str(error)) as caught:
            end(error)
        assert caught.value.rank == 1  # so process 0 prints it
