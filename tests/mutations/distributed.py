"""Mistakes in `bptt.distributed`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "shares: added up one after the other, however many there are",
        "distributed.reduction.pairwise_sum",
        "step = count // (count & -count)",
        "step = count",
        "test_process_group.py::test_each_process_has_its_columns_and_all_have_equal_weights",
    ),
    Mutation(
        "shares: the first half of them twice",
        "distributed.reduction.pairwise_sum",
        "first + step, 2 * step",
        "first, 2 * step",
        "test_microbatches.py::test_updates_with_micro_batches_equal_those_of_whole_batches",
    ),
    Mutation(
        "processes: sums of those that have no part",
        "distributed.allreduce.all_reduce",
        "if number in present else None",
        "",
        "test_allreduce.py::test_all_reduce_adds_in_the_order_of_the_processes_bit_for_bit",
    ),
    Mutation(
        "processes: MPI reads a GPU that is at work",
        "distributed.allreduce.connect",
        "direct, direct and mpi, length",
        "direct, False, length",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: a sum is written over by the next",
        "distributed.allreduce.all_reduce",
        "link.backend.xp.asarray(whole, copy=True) if link.direct",
        "whole if link.direct",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: NCCL sends each other one what is its own",
        "distributed.nccl.Communicator.Alltoall",
        "self.nccl.send(given[other]",
        "self.nccl.send(given[0]",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: NCCL takes doubles for floats",
        "distributed.nccl._what",
        "nccl.NCCL_FLOAT64 if array.dtype == cupy.float64 else nccl.NCCL_FLOAT32",
        "nccl.NCCL_FLOAT32",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: two of them at one GPU",
        "distributed.allreduce.connect_all",
        "(first := devices.index(device)) < number",
        "False and (first := 0)",
        "test_allreduce.py::test_every_process_refuses_two_processes_on_one_gpu",
    ),
    Mutation(
        "processes: an end of one is not told to the others",
        "distributed.process_group.abort_all_on_error",
        "ranks.comm.Abort(",
        "(lambda code: None)(",
        "test_process_group.py::test_an_error_of_one_process_aborts_all",
    ),
    Mutation(
        "processes: the others begin though the first one cannot",
        "distributed.process_group.rank_0_then_others",
        "if problem is None and ranks.rank:",
        "if ranks.rank:",
        "test_process_group.py::test_rank_0_then_others_raises_the_first_error_everywhere",
    ),
]
