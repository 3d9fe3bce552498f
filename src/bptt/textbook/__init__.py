"""The course's "Dinosaurus land": a recurrent network one step and one name at a time, for reading and as an oracle."""

from bptt.textbook.basic_rnn import (
    initialize_parameters,
    rnn_backward,
    rnn_forward,
    rnn_step_backward,
    rnn_step_forward,
    softmax,
    update_parameters,
)
from bptt.textbook.dinosaurus import clip, get_initial_loss, model, optimize, sample, smooth

__all__ = [
    "clip",
    "get_initial_loss",
    "initialize_parameters",
    "model",
    "optimize",
    "rnn_backward",
    "rnn_forward",
    "rnn_step_backward",
    "rnn_step_forward",
    "sample",
    "smooth",
    "softmax",
    "update_parameters",
]
