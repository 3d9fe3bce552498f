"""Mistakes in `bptt.inference`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "state not carried in evaluation",
        "inference.evaluation.batch_nats",
        "None if batch.window.start else states",
        "None",
        "test_evaluation.py::test_the_window_length_does_not_change_the_loss_of_a_stream",
    ),
    Mutation(
        "padding measured, too",
        "inference.evaluation.batch_nats",
        " * batch.mask",
        "",
        "test_evaluation.py",
    ),
    Mutation(
        "all states kept while those of the next window are computed",
        "inference.evaluation.batch_nats",
        "tree.tree_map(lambda a: namespace(a).asarray(a, copy=True), states)",
        "tree.tree_map(lambda a: a, states)",
        "test_memory_estimate.py::test_the_estimate_of_an_evaluation_fits_its_allocations",
    ),
    Mutation(
        "state lost while sampling",
        "inference.generate.sample_character",
        "(1, -1)), state.states)",
        "(1, -1)), None)",
        "test_sampling.py::test_each_character_is_fed_back_and_the_state_is_carried",
    ),
    Mutation(
        "states of other texts, once some have ended",
        "inference.generate.generate",
        "_rows(state, rows, backend)",
        "_rows(state, np.arange(len(rows)), backend)",
        "test_sampling.py::test_a_text_depends_only_on_the_seed_and_its_number",
    ),
    Mutation(
        "random numbers of other texts, once some have ended",
        "inference.generate.generate",
        "sampler, state, next(numbers)[active])",
        "sampler, state, next(numbers)[: len(active)])",
        "test_sampling.py::test_a_text_depends_only_on_the_seed_and_its_number",
    ),
    Mutation(
        "temperature ignored",
        "inference.sampling.unnormalized_probabilities",
        "if options.temperature != 1.0:",
        "if False:",
        "test_sampling.py",
    ),
    Mutation(
        "top_p of what top_k takes away, too",
        "inference.sampling.unnormalized_probabilities",
        "options.top_p * xp.sum(heaviest,",
        "options.top_p * xp.sum(w,",
        "test_sampling.py::test_temperature_is_applied_before_top_k_and_top_p",
    ),
    Mutation(
        "top_p without the one that reaches it",
        "inference.sampling.unnormalized_probabilities",
        "xp.cumulative_sum(heaviest, axis=1) - heaviest",
        "xp.cumulative_sum(heaviest, axis=1)",
        "test_sampling.py::test_top_p_keeps_the_fewest",
    ),
    Mutation(
        "what was held back for the stop string given away whole",
        "inference.generate.hold_back_stop",
        "yield held.pop(0)",
        "yield from held; held.clear()",
        "test_sampling.py::test_hold_back_keeps_the_characters_that_cannot_be_removed",
    ),
    Mutation(
        "scores in the order of their lengths",
        "inference.scoring.token_nats",
        "nats[i] = columns",
        "nats[first + b] = columns",
        "test_scoring.py::test_every_target_is_scored_by_itself",
    ),
    Mutation(
        "looks: at the numbers for a character",
        "inference.generate._block_sampler.sample_block",
        "sample_character(sampler, state, u[k, ...])",
        "sample_character(sampler, state, u[k, ...] if bool(u[k, 0] < 2) else u)",
        "test_no_host_reads.py::test_sampling_reads_arrays_on_the_host_only_between_blocks",
    ),
    Mutation(
        "a pickled model keeps the arrays of its library",
        "inference.language_model.LanguageModel.__reduce__",
        "return model_from_checkpoint, (self.to_checkpoint(), self.backend)",
        "return object.__reduce_ex__(self, 4)",
        "test_public_api.py::test_model_pickled_with_a_gpu",
    ),
]
