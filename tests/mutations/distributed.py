"""Mistakes in `bptt.distributed`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "shares: added up one after the other, however many there are",
        "distributed.reduction.pairwise_sum",
        "odd = count // (count & -count)",
        "odd = count",
        "test_process_group.py::test_each_process_has_its_columns_and_all_have_equal_weights",
    ),
    Mutation(
        "shares: the first half of them twice",
        "distributed.reduction._strided_sum",
        "first + step, 2 * step",
        "first, 2 * step",
        "test_microbatches.py::test_updates_with_micro_batches_equal_those_of_whole_batches",
    ),
    Mutation(
        "processes: sums of those that have no part",
        "distributed.allreduce.AllReduce.__call__",
        "if rank in contributing else None",
        "",
        "test_allreduce.py::test_all_reduce_adds_in_the_order_of_the_processes_bit_for_bit",
    ),
    Mutation(
        "processes: MPI reads a GPU that is at work",
        "distributed.allreduce.connect_mpi",
        "synchronize, buffers = on_device,",
        "synchronize, buffers = False,",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: a sum is written over by the next",
        "distributed.allreduce.AllReduce.__call__",
        "self.backend.xp.asarray(total, copy=True) if self.on_device",
        "total if self.on_device",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: NCCL sends each other one what is its own",
        "distributed.nccl.Communicator.Alltoall",
        "self.nccl.send(sent[peer]",
        "self.nccl.send(sent[0]",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: NCCL takes doubles for floats",
        "distributed.nccl._size_and_type",
        "nccl.NCCL_FLOAT64 if array.dtype == cupy.float64 else nccl.NCCL_FLOAT32",
        "nccl.NCCL_FLOAT32",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "processes: two of them at one GPU",
        "distributed.allreduce.connect_nccl.check",
        "(first := devices.index(device)) < rank",
        "False and (first := 0)",
        "test_allreduce.py::test_every_process_refuses_two_processes_on_one_gpu",
    ),
    Mutation(
        "processes: an end of one is not told to the others",
        "distributed.process_group.MPIGroup.abort_all_on_error",
        "self.communicator.Abort(",
        "(lambda code: None)(",
        "test_process_group.py::test_an_error_of_one_process_aborts_all",
    ),
    Mutation(
        "processes: the others begin though the first one cannot",
        "distributed.process_group.MPIGroup.rank_0_then_others",
        "if error is None and self.rank:",
        "if self.rank:",
        "test_process_group.py::test_rank_0_then_others_raises_the_first_error_everywhere",
    ),
]
