"""The course's training loop: gradients clipped, one name per step, names sampled on the way."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bptt.backend import Array, HostArray, namespace, select, to_host
from bptt.errors import InputError
from bptt.textbook.basic_rnn import (
    Arrays,
    initialize_parameters,
    one_hot,
    rnn_backward,
    rnn_forward,
    rnn_step_forward,
    update_parameters,
)

LONGEST = 50  # characters in a sampled name


def clip(gradients: Arrays, maxValue: float) -> Arrays:
    """A new dictionary with every parameter's gradient limited to [-maxValue, maxValue], element by element."""
    clipped = dict(gradients)  # da_next passes through
    for key in ("dWaa", "dWax", "dWya", "db", "dby"):
        xp = namespace(gradients[key])
        clipped[key] = xp.minimum(xp.maximum(gradients[key], -maxValue), maxValue)
    return clipped


def sample(parameters: Arrays, char_to_ix: Mapping[str, int], seed: int) -> list[int]:
    """The token ids of one name drawn from the model, at most 50 characters and then a newline.

    The same parameters and seed give the same name: every character has a generator of its own.
    """
    newline = char_to_ix["\n"]
    vocab_size = parameters["by"].shape[0]
    x = one_hot(None, vocab_size, parameters["by"])
    a_prev = namespace(parameters["b"]).zeros_like(parameters["b"])
    indices: list[int] = []
    for counter in range(LONGEST):
        a_prev, p_t = rnn_step_forward(parameters, a_prev, x)
        random = np.random.RandomState(seed + 2 * counter)  # the course adds seed and counter, and counts up both
        index = int(random.choice(vocab_size, p=_on_host(p_t)))
        indices.append(index)
        if index == newline:
            break
        x = one_hot(index, vocab_size, parameters["by"])
    if len(indices) == LONGEST:  # as in the course, even where the last character is a newline already
        indices.append(newline)
    return indices


def _on_host(p_t: Array) -> HostArray:
    """Probabilities (n_y, 1) of any library as float64 (n_y,) that sum to 1 closely enough for NumPy's `choice`."""
    host = to_host(p_t)[:, 0]
    p = host.astype(np.float64)
    return p if host.dtype == np.float64 else p / np.sum(p)


def optimize(
    X: Sequence[int | None], Y: Sequence[int], a_prev: Array, parameters: Arrays, learning_rate: float = 0.01
) -> tuple[Array, Arrays, Array]:
    """One training step on one name: the loss, the clipped gradients and the last state (n_a, 1); `parameters` is updated."""
    loss, cache = rnn_forward(X, Y, a_prev, parameters, vocab_size=parameters["by"].shape[0])
    gradients, a = rnn_backward(X, Y, parameters, cache)
    gradients = clip(gradients, 5)
    update_parameters(parameters, gradients, learning_rate)
    return loss, gradients, a[len(X) - 1]


def smooth(loss: Array, cur_loss: Array) -> Array:
    """The running mean of the loss: 0.999 times the old mean plus 0.001 times the loss of this name."""
    return 0.999 * loss + 0.001 * cur_loss


def get_initial_loss(vocab_size: int, seq_length: int) -> float:
    """The loss (nats) of guessing `seq_length` characters with equal chances."""
    return -math.log(1 / vocab_size) * seq_length


def model(
    data: str | Iterable[str],
    ix_to_char: Mapping[int, str],
    char_to_ix: Mapping[str, int],
    num_iterations: int = 35000,
    n_a: int = 50,
    dino_names: int = 7,
    vocab_size: int = 27,
    *,
    backend: str = "numpy",
) -> Arrays:
    """Train on one name per iteration and return the parameters, printing the loss and some names every 2000 iterations.

    `data` is the text or its lines, one name per line. `ix_to_char` and `char_to_ix` map token ids to characters and back;
    `n_a` is the number of units, `dino_names` the number of names to print, `vocab_size` the number of characters. The numbers
    are the course's, in float64 on any backend.

    Raises:
        InputError: no line at all.
        KeyError: a character, made lower case, that is not in `char_to_ix`.
    """
    lines = data.splitlines() if isinstance(data, str) else data
    names = [line.lower().strip() for line in lines]
    if not names:
        raise InputError("data holds no line: expected names, one per line")
    np.random.RandomState(0).shuffle(names)
    put = select(backend, "float64").put
    parameters = {name: put(value) for name, value in initialize_parameters(n_a, vocab_size, vocab_size).items()}
    a_prev = namespace(parameters["b"]).zeros_like(parameters["b"])  # (n_a, 1), carried from one name to the next
    loss = get_initial_loss(vocab_size, dino_names)
    for j in range(num_iterations):
        ids = [char_to_ix[character] for character in names[j % len(names)]]
        X, Y = [None, *ids], [*ids, char_to_ix["\n"]]  # at every step, the character before and the character to come
        cur_loss, _, a_prev = optimize(X, Y, a_prev, parameters)
        loss = smooth(loss, cur_loss)
        if j % 2000 == 0:
            print(f"Iteration: {j}, Loss: {float(loss):f}\n")
            for seed in range(dino_names):
                text = "".join(ix_to_char[index] for index in sample(parameters, char_to_ix, seed))
                print(text[0].upper() + text[1:], end="")  # the text ends with its own newline
            print("\n")
    return parameters
