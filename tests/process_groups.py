"""Process groups of threads, with what is used of MPI between them."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

from bptt.distributed.process_group import MPIGroup


class ThreadCommunicator:
    """What is used of an mpi4py communicator, between threads."""

    def __init__(self, rank, values, barrier):
        self.rank, self.values, self.barrier = rank, values, barrier

    def allgather(self, value):
        self.values[self.rank] = value
        self.barrier.wait(10)
        values = copy.deepcopy(self.values)  # as a message to another process
        self.barrier.wait(10)
        return values

    def bcast(self, value):
        return self.allgather(value)[0]

    def gather(self, value):
        values = self.allgather(value)
        return None if self.rank else values

    def Alltoall(self, sent, received):
        received[...] = [rows[self.rank] for rows in self.allgather(sent)]

    def Allgather(self, sent, received):
        received[...] = self.allgather(sent)


def run_processes(size, work, *, reads_gpu_memory=False):
    """Call work(group) in each of `size` threads; the list of what each returns or raises."""
    values, barrier = [None] * size, threading.Barrier(size)

    def run_rank(rank):
        try:
            return work(MPIGroup(rank, size, rank, size, reads_gpu_memory, ThreadCommunicator(rank, values, barrier)))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run_rank, range(size)))
