"""All-reduce between threads, on the host and on a simulated GPU whose memory is that of the host."""

import ctypes
import functools
import importlib
import os
import sys
import threading
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt import backend as backends
from bptt import distributed
from bptt.backend import CuPy
from bptt.distributed import allreduce, reduction
from bptt.distributed.process_group import SINGLE_PROCESS, MPIGroup
from bptt.errors import InputError
from process_groups import run_processes


def vectors_and_sum(size, n, contributing=None):
    """Vectors (size, n) whose sum depends on the order, and the sum of the contributing ones; the others are NaN."""
    vectors = (np.random.default_rng(n).normal(size=(size, n)) * 10.0 ** np.arange(size)[:, None]).astype(np.float32)
    contributing = list(range(size)) if contributing is None else contributing
    vectors[[rank for rank in range(size) if rank not in contributing]] = np.nan
    (expected,) = reduction.pairwise_sum(lambda rank: (vectors[rank],) if rank in contributing else None, size)
    return vectors, expected


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 23), st.data())
def test_all_reduce_adds_in_the_order_of_the_processes_bit_for_bit(size, n, data):
    contributing = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    vectors, expected = vectors_and_sum(size, n, contributing)
    backend = backends.select("numpy")

    def work(group):
        all_reduce = allreduce.connect(group, backend, n, nccl=False)
        assert all_reduce.transport == "MPI"
        return all_reduce([vectors[group.rank]], contributing)

    for total in run_processes(size, work):
        assert total.tobytes() == expected.tobytes()


def test_all_reduce_does_not_overwrite_its_earlier_results(lab):
    vectors = vectors_and_sum(3, 10)[0].astype(lab.backend.dtype)
    (expected,) = reduction.pairwise_sum(lambda rank: (vectors[rank],), 3)

    def work(group):
        all_reduce = allreduce.connect(group, lab.backend, 10, nccl=False)
        grad, loss = lab.backend.put(vectors[group.rank, :9]), lab.backend.put(vectors[group.rank, 9])
        total = all_reduce([grad, loss], [0, 1, 2])
        of_rank_0 = all_reduce([] if group.rank else [grad, loss], [0])
        return lab.backend.get(total), lab.backend.get(of_rank_0)

    for total, of_rank_0 in run_processes(3, work):
        assert total.tobytes() == expected.tobytes()
        assert of_rank_0.tobytes() == vectors[0].tobytes()


class OnDevice(np.ndarray):
    """An array in the memory of a simulated GPU, with what is used of CuPy's arrays."""

    data = property(lambda self: types.SimpleNamespace(ptr=self.ctypes.data))

    def get(self, out=None):
        copy = np.array(self)
        if out is not None:
            assert out.shape == self.shape
            assert out.dtype == self.dtype
            assert type(out) is np.ndarray
            out[...] = copy
        return copy

    def set(self, host):
        assert host.shape == self.shape
        assert host.dtype == self.dtype
        self[...] = host


class Nccl(types.ModuleType):
    """NCCL between threads: the end of a group copies what was sent to the memory that the pointers of `recv` name."""

    available, NCCL_FLOAT32, NCCL_FLOAT64 = True, 7, 8

    def __init__(self, size):
        super().__init__("cupy.cuda.nccl")
        self.size, self.barrier, self.sent, self.thread = size, threading.Barrier(size), {}, threading.local()
        self.left = []

    def get_unique_id(self):
        return b"one of all"

    def groupStart(self):
        self.thread.receiving = []

    def groupEnd(self):
        self.barrier.wait(10)
        for communicator, memory, peer in self.thread.receiving:
            memory[...] = self.sent.pop((peer, communicator.rank))
        self.thread.receiving = None
        self.barrier.wait(10)

    def memory(self, pointer, count, kind):
        c_type = {7: ctypes.c_float, 8: ctypes.c_double}[kind]
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(c_type)), (count,))

    def NcclCommunicator(self, size, name, rank):
        assert (size, name) == (self.size, b"one of all")

        def send(pointer, count, kind, peer, stream):
            assert stream == 5
            self.sent[rank, peer] = self.memory(pointer, count, kind).copy()

        def recv(pointer, count, kind, peer, stream):
            assert stream == 5
            self.thread.receiving.append((communicator, self.memory(pointer, count, kind), peer))

        def all_gather(pointer, target, count, kind, stream):
            self.sent[rank] = self.memory(pointer, count, kind).copy()
            self.barrier.wait(10)
            self.memory(target, size * count, kind)[...] = np.concatenate([self.sent[peer] for peer in range(size)])
            self.barrier.wait(10)

        leave = functools.partial(self.left.append, rank)
        communicator = types.SimpleNamespace(rank=rank, send=send, recv=recv, allGather=all_gather, destroy=leave)
        return communicator


@pytest.fixture
def gpu(monkeypatch):
    """A simulated GPU for each of three threads, as a backend; `waits` has an entry for each wait for the device."""
    nccl, waits = Nccl(3), []
    stream = types.SimpleNamespace(ptr=5, synchronize=lambda: waits.append(1))
    cuda = types.SimpleNamespace(
        nccl=nccl,
        get_current_stream=lambda: stream,
        Device=lambda: types.SimpleNamespace(pci_bus_id=f"0000:{threading.get_ident()}"),
        runtime=types.SimpleNamespace(runtimeGetVersion=lambda: 13020),
    )
    made = {name: lambda *a, make=getattr(np, name), **k: make(*a, **k).view(OnDevice) for name in ("zeros", "empty", "array")}
    xp = types.SimpleNamespace(**made, asarray=made["array"], cuda=cuda, float64=np.float64)
    for name, module in {"cupy": xp, "cupy.cuda": cuda, "cupy.cuda.nccl": nccl}.items():
        monkeypatch.setitem(sys.modules, name, module)
    pinned = []
    fake = types.SimpleNamespace(empty_pinned=lambda *a: pinned.append(np.full(*a[:1], np.nan, *a[1:])) or pinned[-1])
    monkeypatch.setitem(sys.modules, "cupyx", fake)
    monkeypatch.delitem(sys.modules, "bptt.distributed.nccl", raising=False)
    monkeypatch.delattr(distributed, "nccl", raising=False)
    yield types.SimpleNamespace(backend=CuPy("cupy", xp, None, "float32"), waits=waits, nccl=nccl, pinned=pinned)
    sys.modules.pop("bptt.distributed.nccl", None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transport", ["MPI by way of pinned memory", "MPI from the GPU", "NCCL"])
def test_all_transports_between_gpus_give_the_same_bits(transport, dtype, gpu):
    vectors = vectors_and_sum(3, 10)[0].astype(dtype)
    (expected,) = reduction.pairwise_sum(lambda rank: (vectors[rank],), 3)
    backend = CuPy("cupy", gpu.backend.xp, None, dtype)

    def work(group):
        all_reduce = allreduce.connect(group, backend, 10, nccl=transport == "NCCL")
        assert all_reduce.transport == transport
        grad, loss = vectors[group.rank, :9].view(OnDevice), vectors[group.rank, 9:].reshape(()).view(OnDevice)
        totals = [all_reduce(arrays, [0, 1, 2]) for arrays in ((grad, loss), (2 * grad, 2 * loss))]
        all_reduce.close()
        return totals

    for total, double in run_processes(3, work, reads_gpu_memory=transport == "MPI from the GPU"):
        assert type(total) is type(double) is OnDevice
        assert total.tobytes() == expected.tobytes()
        assert double.tobytes() == (2 * expected).tobytes()
    waits = {"MPI by way of pinned memory": 6, "MPI from the GPU": 12, "NCCL": 0}  # a copy; each of two calls of MPI
    assert len(gpu.waits) == waits[transport]
    assert len(gpu.pinned) == (9 if transport == "MPI by way of pinned memory" else 0)
    assert sorted(gpu.nccl.left) == ([0, 1, 2] if transport == "NCCL" else [])


@pytest.mark.parametrize(("status", "error"), [(2, MemoryError), (700, RuntimeError)])
def test_missing_pinned_memory_is_a_memory_error(gpu, monkeypatch, status, error):
    def empty_pinned(*_):
        problem = RuntimeError("cudaError")  # as CuPy's CUDARuntimeError
        problem.status = status
        raise problem

    monkeypatch.setattr(sys.modules["cupyx"], "empty_pinned", empty_pinned)
    with pytest.raises(error) as failed:
        gpu.backend.pinned_buffer((2, 3))
    assert isinstance(failed.value, MemoryError) == (status == 2)


def test_nccl_needs_a_gpu_and_the_library_in_each_process(gpu, monkeypatch):
    two = MPIGroup(0, 2)
    allreduce.refuse_nccl(two, gpu.backend)
    with pytest.raises(InputError, match=r"^nccl: the backend is numpy, and NCCL needs a GPU for each process: give"):
        allreduce.refuse_nccl(two, backends.select("numpy"))
    allreduce.refuse_nccl(SINGLE_PROCESS, backends.select("numpy"))  # nothing is to be added up
    assert allreduce.connect(SINGLE_PROCESS, gpu.backend, 10, nccl=True) is None
    monkeypatch.setattr(gpu.nccl, "available", False, raising=False)
    with pytest.raises(InputError, match=r"^nccl: NCCL cannot be loaded \(remedy: pip install nvidia-nccl-cu13\), or give"):
        allreduce.refuse_nccl(two, gpu.backend)


def test_every_process_refuses_two_processes_on_one_gpu(gpu, monkeypatch):
    nccl = importlib.import_module("bptt.distributed.nccl")
    monkeypatch.setattr(nccl, "device_id", lambda: "node1 0000:1B:00.0")
    errors = run_processes(3, lambda group: allreduce.connect(group, gpu.backend, 10, nccl=True))
    words = "nccl: processes 0 and 1 have the same GPU: start one process for each GPU, or with nccl=False"
    assert [str(error) for error in errors] == [words] * 3
    assert [(error.on_all_ranks, error.rank) for error in errors] == [(True, 0), (True, 1), (True, 2)]


@pytest.mark.gpu
def test_nccl_with_one_process_returns_its_input():
    """Several processes need as many GPUs."""
    import cupy

    nccl = importlib.import_module("bptt.distributed.nccl")
    if reason := nccl.unavailable_reason():
        required = os.environ.get("BPTT_REQUIRE_BACKEND") == "1"  # nox -s gpu, which installs it
        (pytest.fail if required else pytest.skip)(reason)  # without its 300 MB: the simulated one above stands in
    backend = backends.select("cupy")
    vector = np.random.default_rng(0).normal(size=101).astype(np.float32)
    all_reduce = allreduce.connect_nccl(SINGLE_PROCESS, backend, 101)
    total = all_reduce([cupy.asarray(vector)], [0])
    np.testing.assert_array_equal(backend.get(total), vector)
    all_reduce.close()
