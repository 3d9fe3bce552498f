"""The tensors of a PyTorch network, whatever its modules are called: which is which, by names that PyTorch gives and by shapes.

A network has a torch.nn.RNN, GRU or LSTM, a torch.nn.Linear after it and perhaps a torch.nn.Embedding before it. Their biases
may be missing (`bias=False`).
"""

import itertools
import re

from bptt.errors import InvalidFile

Shapes = dict[str, tuple[int, ...]]

EMBEDDING = "encoder.weight"  # of a torch.nn.Embedding, beside the names of a file of bptt export
EXPECTED_NETWORK = (
    "expected a torch.nn.RNN (tanh), GRU or LSTM in one direction, a torch.nn.Linear after it, and nothing else but a "
    "torch.nn.Embedding before it"
)
RECURRENT = re.compile(r"(.*\.|)((?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l\d+)(_reverse|)", re.DOTALL)
AFTER = ("decoder", "fc", "linear", "head", "out")  # words in names of a torch.nn.Linear
BEFORE = ("emb", "encoder")  # and of a torch.nn.Embedding
MAX_REASON = 600  # characters of a message that lists tensors


def refusal(problem: str, shapes: Shapes) -> InvalidFile:
    """The error for a file with another network: what is wrong, what was expected, and the tensors of the file."""
    listed = ", ".join(f"{name!r:.40} {list(shape)!s:.40}".replace("'", "") for name, shape in shapes.items())
    error = InvalidFile(f"{problem}: {EXPECTED_NETWORK}; the file has {listed}")
    error.longest = MAX_REASON
    return error


def find_tensors(shapes: Shapes) -> dict[str, str]:
    """The name in a file of each tensor, by its name in a file of bptt export: rnn.weight_ih_l0, decoder.weight and so on.

    Raises:
        InvalidFile: another network, or one of which names and shapes do not say what is what.
    """
    tensors, rnn = _recurrent_tensors(shapes)
    modules: dict[str, dict[str, str]] = {}  # the other modules: weight and bias by their names in the file
    known = set(tensors.values())
    for name in shapes:
        if name not in known:
            module, _, parameter = name.rpartition(".")
            modules.setdefault(module, {})[parameter] = name
    weights = {module: shapes[names["weight"]] for module, names in modules.items() if "weight" in names}
    biased = {module for module, names in modules.items() if "bias" in names}
    embedding, decoder = _around(weights, biased, shapes, rnn)
    if embedding is not None:
        tensors[EMBEDDING] = modules[embedding].pop("weight")
    for parameter in ("weight", "bias"):
        if parameter in modules[decoder]:
            tensors[f"decoder.{parameter}"] = modules[decoder].pop(parameter)
    if others := sorted(name for names in modules.values() for name in names.values()):
        raise refusal(f"has {others[0]!r:.60}, too", shapes)
    return tensors


def _recurrent_tensors(shapes: Shapes) -> tuple[dict[str, str], str]:
    """The tensors of the recurrent module, and its name in the file."""
    tensors, modules = {}, set()
    for name in shapes:
        if match := RECURRENT.fullmatch(name):
            module, parameter, reverse = match.groups()
            if reverse:
                raise refusal(f"has {name!r:.60}: it is bidirectional", shapes)
            if parameter.startswith("weight_hr"):
                raise refusal(f"has {name!r:.60}: it is an LSTM with a projection (proj_size)", shapes)
            modules.add(module)
            tensors[f"rnn.{parameter}"] = name
    if len(modules) != 1:
        raise refusal("has several recurrent modules" if modules else "has no recurrent module", shapes)
    (module,) = modules
    for parameter in ("weight_ih_l0", "weight_hh_l0"):
        if len(shapes.get(module + parameter, ())) != 2:
            what = list(shapes.get(module + parameter, ())) or "nothing"
            raise refusal(f"{module + parameter!r:.60} is {what!s:.40}, expected a matrix", shapes)
    return tensors, module


def _around(weights: Shapes, biased: set[str], shapes: Shapes, rnn: str) -> tuple[str | None, str]:
    """The modules before (None: symbols enter one-hot) and after the recurrent module, given the weights (rows, columns)."""
    inputs, hidden = shapes[f"{rnn}weight_ih_l0"][1], shapes[f"{rnn}weight_hh_l0"][1]
    if not weights:
        raise refusal("has no torch.nn.Linear", shapes)
    if len(weights) == 1:
        return None, next(iter(weights))
    pairs = [
        (before, after)
        for before, after in itertools.permutations(sorted(weights), 2)
        if len(weights) == 2
        and before not in biased
        and weights[before] == (*weights[after][:1], inputs)
        and weights[after][1:] == (hidden,)
    ]
    if len(pairs) > 1:  # equal shapes, no biases
        pairs = [pair for pair in pairs if _is_named(pair[0], BEFORE) > _is_named(pair[1], BEFORE)] or [
            pair for pair in pairs if _is_named(pair[1], AFTER) > _is_named(pair[0], AFTER)
        ]
    if len(pairs) != 1:
        raise refusal("does not show what comes before and after the recurrent module", shapes)
    return pairs[0]


def _is_named(module: str, words: tuple[str, ...]) -> bool:
    """Whether one of the words is in the last part of the name of a module."""
    return any(word in module.rpartition(".")[2].lower() for word in words)
