"""What processes that train together tell each other; here they are threads, with what is used of MPI between them."""

import copy
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import bptt
from bptt.config.settings import from_flags
from bptt.distributed import allreduce, process_group, reduction
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.errors import InputError, OutOfSync
from bptt.train_step import microbatches, stepper
from bptt.training import launch, messages, setup
from runs import NAMES, PROSE


class Comm:
    """A communicator among threads."""

    def __init__(self, rank, board, barrier):
        self.rank, self.board, self.barrier = rank, board, barrier

    def allgather(self, value):
        self.board[self.rank] = value
        self.barrier.wait(10)
        found = copy.deepcopy(self.board)  # as what is sent to another process
        self.barrier.wait(10)
        return found

    def bcast(self, value):
        return self.allgather(value)[0]

    def gather(self, value):
        found = self.allgather(value)
        return None if self.rank else found

    def Alltoall(self, given, found):
        found[...] = [rows[self.rank] for rows in self.allgather(given)]

    def Allgather(self, given, found):
        found[...] = self.allgather(given)


def together(size, work):
    """What `work` gives, or raises, in each of so many threads."""
    board, barrier = [None] * size, threading.Barrier(size)

    def one(rank):
        try:
            return work(ProcessGroup(rank, size, rank, size, Comm(rank, board, barrier)))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def test_pairwise_sum_adds_in_a_fixed_order():
    def words(count, first=0, step=None, end=None):
        def share(number):
            asked.append(number)
            return (Words(number),)

        asked = []
        (found,) = reduction.pairwise_sum(share, count, first, step, end)
        assert len(set(asked)) == len(asked)
        return found

    class Words(str):
        def __add__(self, other):
            return Words(f"({self}{other})")

    assert [words(count) for count in (1, 2, 3, 4)] == ["0", "(01)", "((01)2)", "((02)(13))"]
    assert words(6) == "(((03)(14))(25))"
    assert words(8) == "(((04)(26))((15)(37)))"
    assert words(8) == f"({words(8, 0, 2)}{words(8, 1, 2)})"
    assert words(10**9, end=3) == "((01)2)"
    assert reduction.pairwise_sum(lambda number: None, 7) is None
    assert [reduction.round_up(count, 3) for count in (1, 3, 4, 6, 7, 16)] == [3, 3, 6, 6, 12, 24]
    fitting = {count: [n for n in range(1, 13) if reduction.is_divisible(count, n)] for count in (1, 2, 6, 8, 12)}
    assert fitting == {1: [1], 2: [1, 2], 6: [1, 3, 6], 8: [1, 2, 4, 8], 12: [1, 3, 6, 12]}


@pytest.mark.parametrize(("size", "count"), [(2, 2), (3, 3), (9, 9), (2, 8), (4, 8), (3, 6)])  # 8 and 9: more than columns
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@pytest.mark.parametrize(
    ("text", "length"), [(NAMES, 3), (PROSE, 17)]
)  # some columns are over before others; between them, too
def test_each_process_has_its_columns_and_all_have_equal_weights(size, count, cell, text, length):
    flags = {"cell": cell, "hidden": 5, "batch": 7, "length": length, "steps": 30, "backend": "numpy", "validation": 0}
    run = setup.from_scratch(text, from_flags({**flags, "micro_batches": count, "dropout": 0.2, "layers": 2}))
    alone = [state for state, _ in stepper.run_updates(run.task, run.now.state)]

    def work(own):
        all_reduce = allreduce.connect(own, run.task.backend, 1 + run.now.state.params_vector.shape[0])
        task = run.task._replace(group=own, all_reduce=all_reduce)
        states = []
        for state, traces in stepper.run_updates(task, alone[9]):  # from the states of all on
            assert all(trace.loss.base is None for trace in traces)  # or it would keep the whole sum in memory
            states.append(state)
        return states, microbatches.gather_states(states[-1].states, own, task.backend)

    results = together(size, work)
    np.testing.assert_array_equal(results[0][1], alone[-1].states)
    for rank, (states, gathered) in enumerate(results):
        assert (gathered is None) == (rank > 0)
        for here, expected in zip(states, alone[10:], strict=True):
            np.testing.assert_array_equal(here.params_vector, expected.params_vector)
            np.testing.assert_array_equal(here.states, expected.states[:, :, rank::size, :])


@pytest.mark.parametrize(("text", "count"), [(NAMES, 10), (PROSE, 1)])
@pytest.mark.parametrize("size", [2, 3, 12])
def test_all_processes_generate_a_preview_together(text, count, size):
    here = bptt.train(text, hidden=6, steps=30, report=None)
    alone = messages.sample_preview(here)
    assert len(alone) == count
    parts = together(size, lambda own: messages.sample_preview(here, own))
    assert [text for texts in parts for text in texts] == alone
    assert len(parts[0]) == -(-count // size)


def test_rank_0_then_others_raises_the_first_error_everywhere():
    calls = []

    def work(own, broken):
        def function():
            calls.append(own.rank)
            if own.rank in broken:
                raise InputError(f"no file at {own.rank}")
            return own.rank

        return process_group.rank_0_then_others(own, function)

    assert together(3, lambda own: work(own, ())) == [0, 1, 2]
    assert calls[0] == 0
    assert [str(error) for error in together(3, lambda own: work(own, (1, 2)))] == ["process 1 of 3: no file at 1"] * 3
    calls.clear()
    errors = together(3, lambda own: work(own, (0,)))
    assert [(str(error), error.told) for error in errors] == [
        ("no file at 0", False),
        ("no file at 0", True),
        ("no file at 0", True),
    ]
    assert calls == [0]


def test_assert_same_compares_the_processes():
    assert together(3, lambda own: process_group.assert_same(own, {"numpy": "2", "--seed": "1"})) == [None] * 3
    errors = together(3, lambda own: process_group.assert_same(own, {"numpy": "2", "--seed": str(own.rank // 2)}))
    words = "process 2 of 3 has --seed 1, process 0 has 0: start all of them with the same command, packages and files"
    assert list(map(str, errors)) == [words] * 3
    theta = np.arange(3.0)
    assert together(2, lambda own: process_group.assert_in_sync(own, theta)) == [None] * 2
    assert all(
        isinstance(error, OutOfSync) for error in together(2, lambda own: process_group.assert_in_sync(own, theta + own.rank))
    )


def test_signals_and_decisions_are_shared_by_all_processes():
    assert together(3, lambda own: process_group.all_signals(own, ["SIGTERM"] * (own.rank > 0))) == [["SIGTERM", "SIGTERM"]] * 3
    assert together(3, lambda own: process_group.broadcast(own, own.rank + 5)) == [5] * 3


def test_a_single_process_communicates_nothing():
    assert process_group.broadcast(SINGLE_PROCESS, 3) == 3
    assert process_group.all_gather(SINGLE_PROCESS, 3) == [3]
    assert process_group.all_signals(SINGLE_PROCESS, ["SIGINT"]) == ["SIGINT"]
    assert process_group.rank_0_then_others(SINGLE_PROCESS, lambda: 4) == 4


def test_mpi_is_not_imported_without_a_launcher(monkeypatch):
    for name in process_group.LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # an import of it is an ImportError
    assert process_group.init_process_group(asked=None) is SINGLE_PROCESS
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert process_group.init_process_group(asked=None) is SINGLE_PROCESS
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert process_group.init_process_group(asked=False) is SINGLE_PROCESS
    for setting, asked in (("1", True), ("2", None)):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", setting)
        with pytest.raises(
            InputError, match=r"^several processes need MPI, which cannot be used: .*remedy: pip install mpi4py"
        ):
            process_group.init_process_group(asked=asked)


@pytest.mark.parametrize("kinds", [None, "mpi,system", "mpi,cuda:host", "system,cuda:host:managed"])
def test_reads_cuda_follows_the_memory_kinds_of_mpi(kinds):
    assert not process_group.reads_cuda(types.SimpleNamespace(Get={"mpi_memory_alloc_kinds": kinds}.get))
    for more in ("cuda", "cuda:device", "cuda:managed:device"):
        assert process_group.reads_cuda(types.SimpleNamespace(Get={"mpi_memory_alloc_kinds": f"{kinds},{more}"}.get))


def test_an_error_is_unchanged_without_other_processes(monkeypatch):
    for name in process_group.LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for alone, started in ((False, "1"), (True, "2")):
        monkeypatch.setenv("PMI_SIZE", started)
        with pytest.raises(InputError, match=r"^no file$") as caught, launch.fail_on_all(alone=alone):
            raise InputError("no file") from FileNotFoundError("there")
        assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_an_error_of_one_process_aborts_all(capsys):
    class Aborted(Exception):
        pass

    class World:
        def Abort(self, code):
            raise Aborted(code)

    def end(error):
        with process_group.abort_all_on_error(ProcessGroup(1, 2, 1, 2, World())):
            raise error

    for error, code in ((InputError("no"), 2), (KeyboardInterrupt(), 130), (ValueError("lost"), 1), (SystemExit(3), 1)):
        with pytest.raises(Aborted) as aborted:
            end(error)
        assert aborted.value.args == (code,)
        assert "bptt: process 1 of 2 ends all: " in capsys.readouterr().err
    own = process_group.agreed(ProcessGroup(1, 2), InputError("all say so"))
    with pytest.raises(InputError, match="all say so"):
        end(own)
    with pytest.raises(ValueError, match="alone"), process_group.abort_all_on_error(SINGLE_PROCESS):
        raise ValueError("alone")
