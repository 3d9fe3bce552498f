"""Mistakes in `bptt.distributed`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "micro-batches: added from left to right, however many there are",
        "distributed.reduction.pairwise_sum",
        "odd = count // (count & -count)",
        "odd = count",
        "test_process_group.py::test_each_process_has_its_columns_and_all_have_equal_weights",
    ),
    Mutation(
        "micro-batches: the even half of them twice",
        "distributed.reduction._strided_sum",
        "start + step, 2 * step",
        "start, 2 * step",
        "test_microbatches.py::test_updates_with_micro_batches_equal_those_of_whole_batches",
    ),
    Mutation(
        "all-reduce: processes that do not contribute are added, too",
        "distributed.allreduce.AllReduce.__call__",
        "if rank in contributing else None",
        "",
        "test_allreduce.py::test_all_reduce_adds_in_the_order_of_the_processes_bit_for_bit",
    ),
    Mutation(
        "all-reduce: MPI reads buffers before the GPU is done",
        "distributed.allreduce.connect_mpi",
        "synchronize, buffers = on_device,",
        "synchronize, buffers = False,",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "all-reduce: the next sum overwrites the last one",
        "distributed.allreduce.AllReduce.__call__",
        "self.backend.xp.asarray(reduced, copy=True) if self.on_device",
        "reduced if self.on_device",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "NCCL: every process is sent the first row",
        "distributed.nccl.Communicator.Alltoall",
        "self.nccl.send(sent[peer]",
        "self.nccl.send(sent[0]",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "NCCL: doubles are sent as floats",
        "distributed.nccl._size_and_type",
        "nccl.NCCL_FLOAT64 if array.dtype == cupy.float64 else nccl.NCCL_FLOAT32",
        "nccl.NCCL_FLOAT32",
        "test_allreduce.py::test_all_transports_between_gpus_give_the_same_bits",
    ),
    Mutation(
        "NCCL: two processes on one GPU",
        "distributed.allreduce.connect_nccl.check",
        "(other := devices.index(device)) < rank",
        "False and (other := 0)",
        "test_allreduce.py::test_every_process_refuses_two_processes_on_one_gpu",
    ),
    Mutation(
        "processes: an error of one does not end the others",
        "distributed.process_group.MPIGroup.abort_all_on_error",
        "self.communicator.Abort(",
        "(lambda code: None)(",
        "test_process_group.py::test_an_error_of_one_process_aborts_all",
    ),
    Mutation(
        "processes: the others start although process 0 fails",
        "distributed.process_group.MPIGroup.rank_0_then_others",
        "if error is None and self.rank:",
        "if self.rank:",
        "test_process_group.py::test_rank_0_then_others_raises_the_first_error_everywhere",
    ),
    Mutation(
        "processes: all of them print an error that they share",
        "distributed.process_group.MPIGroup.copy_for_rank",
        "on_all_ranks=True, rank=self.rank",
        "on_all_ranks=True",
        "test_process_group.py::test_rank_0_then_others_raises_the_first_error_everywhere",
    ),
    Mutation(
        "processes: all of them print that the loss diverged",
        "distributed.process_group.MPIGroup.abort_all_on_error",
        "raise self.copy_for_rank(error, str(error)) from error",
        "raise",
        "test_process_group.py::test_an_error_that_all_processes_raise_does_not_abort",
    ),
    Mutation(
        "processes: those with other parameters go on",
        "distributed.process_group.MPIGroup.assert_in_sync",
        "if len(set(checksums)) > 1:",
        "if False:",
        "test_process_group.py::test_assert_in_sync_compares_the_parameters",
    ),
]
