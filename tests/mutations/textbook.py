"""Mistakes in `bptt.textbook`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "textbook: missing + da_next",
        "textbook.basic_rnn.rnn_step_backward",
        ' + gradients["da_next"]',
        "",
        "test_textbook.py",
    ),
    Mutation(
        "textbook: a instead of a_prev",
        "textbook.basic_rnn.rnn_step_backward",
        "daraw @ a_prev.T",
        "daraw @ a.T",
        "test_textbook.py",
    ),
    Mutation(
        "the first state is that of the caller",
        "textbook.basic_rnn.rnn_forward",
        "1 * a0",
        "a0",
        "test_textbook.py::test_the_first_state_of_the_cache_is_a_copy",
    ),
    Mutation(
        "new arrays of gradients",
        "textbook.basic_rnn.rnn_step_backward",
        'gradients["dWaa"] += ',
        'gradients["dWaa"] = gradients["dWaa"] + ',
        "test_textbook.py::test_gradients_and_parameters_are_changed_in_place",
    ),
    Mutation(
        "new arrays of parameters",
        "textbook.basic_rnn.update_parameters",
        "parameters[name] += -lr",
        "parameters[name] = parameters[name] - lr",
        "test_textbook.py::test_gradients_and_parameters_are_changed_in_place",
    ),
]
