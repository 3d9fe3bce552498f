"""What carries sums between processes; here they are threads, and a GPU's memory is the host's by another name."""

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
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.errors import InputError
from test_process_group import together


def drawn(size, n, present=None):
    """Vectors (size, n) whose sum depends on the order, and that sum; only `present` ones have a part in it."""
    vectors = (np.random.default_rng(n).normal(size=(size, n)) * 10.0 ** np.arange(size)[:, None]).astype(np.float32)
    present = list(range(size)) if present is None else present
    vectors[[rank for rank in range(size) if rank not in present]] = np.nan
    (expected,) = reduction.pairwise_sum(lambda number: (vectors[number],) if number in present else None, size)
    return vectors, expected


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 23), st.data())
def test_all_reduce_adds_in_the_order_of_the_processes_bit_for_bit(size, n, data):
    present = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    vectors, expected = drawn(size, n, present)
    here = backends.select("numpy")
    for found in together(
        size, lambda own: allreduce.all_reduce(allreduce.connect(own, here, n), [vectors[own.rank]], present)
    ):
        assert found.tobytes() == expected.tobytes()


def test_all_reduce_does_not_overwrite_its_earlier_results(lab):
    vectors = drawn(3, 10)[0].astype(lab.backend.dtype)
    (expected,) = reduction.pairwise_sum(lambda number: (vectors[number],), 3)

    def work(own):
        link, (d, loss) = (
            allreduce.connect(own, lab.backend, 10),
            map(lab.backend.put, (vectors[own.rank, :9], vectors[own.rank, 9])),
        )
        one = allreduce.all_reduce(link, [d, loss], [0, 1, 2])
        alone = allreduce.all_reduce(link, [] if own.rank else [d, loss], [0])  # the others have no part in it
        return lab.backend.get(one), lab.backend.get(alone)

    for one, alone in together(3, work):
        assert one.tobytes() == expected.tobytes()
        assert alone.tobytes() == vectors[0].tobytes()


class OnDevice(np.ndarray):
    """An array in the memory of a pretended GPU, with what is used of CuPy's."""

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
    """NCCL among threads: what is sent and asked for is done when a group ends, in the memory that pointers name."""

    available, NCCL_FLOAT32, NCCL_FLOAT64 = True, 7, 8

    def __init__(self, size):
        super().__init__("cupy.cuda.nccl")
        self.size, self.barrier, self.sent, self.own = size, threading.Barrier(size), {}, threading.local()
        self.left = []

    def get_unique_id(self):
        return b"one of all"

    def groupStart(self):
        self.own.asked = []

    def groupEnd(self):
        self.barrier.wait(10)
        for communicator, into, other in self.own.asked:
            into[...] = self.sent.pop((other, communicator.rank))
        self.own.asked = None
        self.barrier.wait(10)

    def memory(self, pointer, count, kind):
        number = {7: ctypes.c_float, 8: ctypes.c_double}[kind]
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(number)), (count,))

    def NcclCommunicator(self, size, name, rank):
        assert (size, name) == (self.size, b"one of all")

        def send(pointer, count, kind, other, stream):
            assert stream == 5
            self.sent[rank, other] = self.memory(pointer, count, kind).copy()

        def recv(pointer, count, kind, other, stream):
            assert stream == 5
            self.own.asked.append((communicator, self.memory(pointer, count, kind), other))

        def all_gather(pointer, into, count, kind, stream):
            self.sent[rank] = self.memory(pointer, count, kind).copy()
            self.barrier.wait(10)
            self.memory(into, size * count, kind)[...] = np.concatenate([self.sent[one] for one in range(size)])
            self.barrier.wait(10)

        leave = functools.partial(self.left.append, rank)
        communicator = types.SimpleNamespace(rank=rank, send=send, recv=recv, allGather=all_gather, destroy=leave)
        return communicator


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU for each of three threads, as a Backend; `waits` counts how often one waits for its device."""
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
@pytest.mark.parametrize("way", ["pinned", "direct", "nccl"])
def test_all_transports_between_gpus_give_the_same_bits(way, dtype, gpu):
    vectors = drawn(3, 10)[0].astype(dtype)
    (expected,) = reduction.pairwise_sum(lambda number: (vectors[number],), 3)
    backend = CuPy("cupy", gpu.backend.xp, None, dtype)

    def work(own):
        link = allreduce.connect_all(own._replace(cuda=way == "direct"), backend, 10, nccl=way == "nccl")
        d, loss = vectors[own.rank, :9].view(OnDevice), vectors[own.rank, 9:].reshape(()).view(OnDevice)
        assert str(link) == {"pinned": "MPI by way of pinned memory", "direct": "MPI from the GPU", "nccl": "NCCL"}[way]
        found = [allreduce.all_reduce(link, given, [0, 1, 2]) for given in ((d, loss), (2 * d, 2 * loss))]
        allreduce.close(link)
        return found

    for one, twice in together(3, work):
        assert type(one) is type(twice) is OnDevice
        assert one.tobytes() == expected.tobytes()
        assert twice.tobytes() == (2 * expected).tobytes()
    assert len(gpu.waits) == {"pinned": 6, "direct": 12, "nccl": 0}[way]  # for a copy; before each of two calls of MPI
    assert len(gpu.pinned) == {"pinned": 9, "direct": 0, "nccl": 0}[way]
    assert sorted(gpu.nccl.left) == ([0, 1, 2] if way == "nccl" else [])


@pytest.mark.parametrize(("status", "error"), [(2, MemoryError), (700, RuntimeError)])
def test_pageable_memory_replaces_missing_pinned_memory(gpu, monkeypatch, status, error):
    def empty_pinned(*_):
        problem = RuntimeError("cudaError")  # as CuPy's CUDARuntimeError
        problem.status = status
        raise problem

    monkeypatch.setattr(sys.modules["cupyx"], "empty_pinned", empty_pinned)
    with pytest.raises(error) as failed:
        gpu.backend.pinned_buffer((2, 3))
    assert isinstance(failed.value, MemoryError) == (status == 2)


def test_nccl_needs_a_gpu_and_the_library_in_each_process(gpu, monkeypatch):
    two = ProcessGroup(0, 2)
    allreduce.refuse_nccl(two, gpu.backend)
    with pytest.raises(InputError, match=r"^--nccl: the backend is numpy, and NCCL needs a GPU for each process: give"):
        allreduce.refuse_nccl(two, backends.select("numpy"))
    allreduce.refuse_nccl(SINGLE_PROCESS, backends.select("numpy"))  # nothing is to be added up
    assert allreduce.connect_all(SINGLE_PROCESS, gpu.backend, 10, nccl=True) is None
    monkeypatch.setattr(gpu.nccl, "available", False, raising=False)
    with pytest.raises(InputError, match=r"^--nccl: NCCL cannot be loaded \(remedy: pip install nvidia-nccl-cu13\), or give"):
        allreduce.refuse_nccl(two, gpu.backend)


def test_every_process_refuses_two_processes_on_one_gpu(gpu, monkeypatch):
    wires = importlib.import_module("bptt.distributed.nccl")
    monkeypatch.setattr(wires, "device_id", lambda: "node1 0000:1B:00.0")
    errors = together(3, lambda own: allreduce.connect_all(own, gpu.backend, 10, nccl=True))
    words = "--nccl: processes 0 and 1 have the same GPU: start one process for each GPU, or with --nccl=false"
    assert [str(error) for error in errors] == [words] * 3
    assert [(error.agreed, error.told) for error in errors] == [(True, False), (True, True), (True, True)]


@pytest.mark.gpu
def test_nccl_with_one_process_returns_its_input():
    """Of more it wants as many GPUs."""
    import cupy

    wires = importlib.import_module("bptt.distributed.nccl")
    if reason := wires.unavailable_reason():
        required = os.environ.get("BPTT_REQUIRE_BACKEND") == "1"  # nox -s gpu, which installs it
        (pytest.fail if required else pytest.skip)(reason)  # without its 300 MB: the simulated one above stands in
    backend = backends.select("cupy")
    vector = np.random.default_rng(0).normal(size=101).astype(np.float32)
    link = allreduce.connect(ProcessGroup(), backend, 101, wires.Communicator(0, 1, lambda value: value))
    found = allreduce.all_reduce(link, [cupy.asarray(vector)], [0])
    np.testing.assert_array_equal(backend.get(found), vector)
    allreduce.close(link)
