"""Mistakes in `bptt.distributed`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "shares: added up one after the other, however many there are",
        "distributed.reduction.added",
        "step = count // (count & -count)",
        "step = count",
        "test_together.py::test_each_has_its_columns",
    ),
    Mutation(
        "shares: the first half of them twice",
        "distributed.reduction.added",
        "first + step, 2 * step",
        "first, 2 * step",
        "test_shares.py::test_the_updates_are_those",
    ),
    Mutation(
        "processes: sums of those that have no part",
        "distributed.allreduce.total",
        "if number in present else None",
        "",
        "test_links.py::test_a_total",
    ),
    Mutation(
        "processes: MPI reads a GPU that is at work",
        "distributed.allreduce.link",
        "direct, direct and mpi, length",
        "direct, False, length",
        "test_links.py::test_all_ways",
    ),
    Mutation(
        "processes: a sum is written over by the next",
        "distributed.allreduce.total",
        "link.backend.xp.asarray(whole, copy=True) if link.direct",
        "whole if link.direct",
        "test_links.py::test_all_ways",
    ),
    Mutation(
        "processes: NCCL sends each other one what is its own",
        "distributed.nccl.Communicator.Alltoall",
        "self.nccl.send(given[other]",
        "self.nccl.send(given[0]",
        "test_links.py::test_all_ways",
    ),
    Mutation(
        "processes: NCCL takes doubles for floats",
        "distributed.nccl._what",
        "nccl.NCCL_FLOAT64 if array.dtype == cupy.float64 else nccl.NCCL_FLOAT32",
        "nccl.NCCL_FLOAT32",
        "test_links.py::test_all_ways",
    ),
    Mutation(
        "processes: two of them at one GPU",
        "distributed.allreduce.between",
        "(first := devices.index(device)) < number",
        "False and (first := 0)",
        "test_links.py::test_two_processes",
    ),
    Mutation(
        "processes: an end of one is not told to the others",
        "distributed.process_group.ending_together",
        "ranks.comm.Abort(",
        "(lambda code: None)(",
        "test_together.py::test_an_end_of_one",
    ),
    Mutation(
        "processes: the others begin though the first one cannot",
        "distributed.process_group.one_after_another",
        "if problem is None and ranks.rank:",
        "if ranks.rank:",
        "test_together.py::test_one_after_another",
    ),
]
