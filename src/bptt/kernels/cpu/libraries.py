"""The functions of the machine code that Python calls, by the library that they are compiled in."""

from bptt.kernels.cpu.cells import gru, gru_backward, lstm, lstm_backward, vanilla, vanilla_backward
from bptt.kernels.cpu.gradient import gru_gradient, lstm_gradient, vanilla_gradient
from bptt.kernels.cpu.llvm import Function
from bptt.kernels.cpu.loss import affine, affine_backward, cross_entropy, cross_entropy_backward
from bptt.kernels.cpu.optimizers import adam, average_update, sgd_update, squared_norm

LIBRARIES: dict[str, tuple[Function, ...]] = {
    "vanilla": (vanilla, vanilla_backward, vanilla_gradient, affine),
    "gru": (gru, gru_backward, gru_gradient, affine),
    "lstm": (lstm, lstm_backward, lstm_gradient, affine),
    "loss": (affine, affine_backward, cross_entropy, cross_entropy_backward),
    "optimizers": (squared_norm, sgd_update, adam, average_update),
}
