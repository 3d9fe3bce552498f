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
]
