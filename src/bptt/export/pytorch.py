"""Export to and import from PyTorch: safetensors files with the names of torch.nn modules.

They hold a torch.nn.RNN (tanh), GRU or LSTM named `rnn`, which sees symbols one-hot, and a torch.nn.Linear named `decoder`.
What PyTorch has no names for, such as the symbols, is JSON in the metadata. Files of other networks of this kind may have other
names, no biases, and a torch.nn.Embedding. Files may come from strangers: nothing in them is executed, and nothing is read that
their header does not bear out.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from bptt import files, system
from bptt.backend import HostArray
from bptt.checkpoint import format as checkpoint_format
from bptt.checkpoint.format import Checkpoint
from bptt.config import rules
from bptt.config.settings import Mode
from bptt.data.vocabulary import BOUNDARIES, Vocabulary
from bptt.errors import InputError, InvalidFile, ModelFileError, option
from bptt.export import pytorch_header, pytorch_names
from bptt.export.common import METADATA_KEY, host_params, metadata_json, new_file, write_file
from bptt.export.pytorch_header import BYTES_PER_NUMBER, Metadata
from bptt.export.pytorch_names import EMBEDDING, Shapes
from bptt.nn import model, tree

TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of a layer


def to_torch(saved: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write a model into a new file that a PyTorch network loads with `strict=True`; equal models give equal bytes.

    The bias of bptt is PyTorch's `bias_ih`; `bias_hh` is zero, but for the `ban` of a GRU.

    Raises:
        InputError: the file already exists, or symbols and initial states are more than a header can hold.
        SaveError: the file cannot be written; nothing of it is left.
    """
    target = new_file(path)
    named = _torch_names(host_params(saved)).items()
    arrays = {name: np.asarray(array, order="C") for name, array in named}  # safetensors scrambles others
    np.empty(3 * sum(array.nbytes for array in arrays.values()), np.uint8)  # a MemoryError, where safetensors ends the process
    data = bytes(safetensors.numpy.save(arrays, {METADATA_KEY: metadata_json(saved)}))
    header = int.from_bytes(data[:8], "little")
    if header > checkpoint_format.MAX_HEADER_BYTES:
        most = f"at most {checkpoint_format.MAX_HEADER_BYTES:,} can be read again"
        raise InputError(f"{target}: symbols and initial states take {header:,} bytes, {most}: export a smaller model")
    write_file(target, data)


def from_torch(
    path: str | os.PathLike[str], *, symbols: str | os.PathLike[str] | None = None, mode: Mode | None = None
) -> Checkpoint:
    r"""Read the model of a file that `to_torch` wrote, or that was saved from such a PyTorch network.

    The modules of a network may have any names, its biases may be missing, and a torch.nn.Embedding may come first: names and
    shapes show which tensor is which. A torch.nn.RNN is taken to have tanh: only metadata could say that it has relu.
    PyTorch's two biases are added where that changes nothing: everywhere but in the n part of a GRU, whose `bias_hh` is `ban`.
    A file of somebody else needs `mode`, lines or stream, and `symbols`, in the order of their ids: a str with a newline in
    it is the symbols themselves, "bytes" the 256 bytes of UTF-8, and any other str the path of a JSON file with a list of
    them (the `vocabulary.json` of a saved model is one). The newline stands before every text and after every line.

    Raises:
        ModelFileError: no such file, one that is damaged or forged, numbers other than float32 or float64, symbols that are
            missing, unusable, or not as many as the network has; another network, such as a bidirectional one.
    """
    place = rules.check_path("path", path)
    try:
        return _read(place, symbols, mode)
    except InvalidFile as problem:
        raise ModelFileError(f"{place}: {problem}") from None
    except MemoryError:
        raise ModelFileError(f"{place}: there is no memory for it") from None


def _read(place: Path, symbols: str | os.PathLike[str] | None, mode: Mode | None) -> Checkpoint:
    """Read a model and check all claims of the header before the rest of the file."""
    head, kinds, shapes, about = pytorch_header.read_header(place)
    if "layers.0.Waa" in shapes:
        raise InvalidFile("holds weights by the names of bptt, not of PyTorch: load the folder that it is in")
    if about is not None:
        if symbols is not None or mode is not None:
            raise InvalidFile(f"says its symbols and mode itself: leave out {option('symbols')} and {option('mode')}")
        known = pytorch_header.parse_metadata(about)
    elif symbols is None or mode is None:
        both = f"{option('symbols')} in the order of their ids, {option('mode')} lines or stream"
        raise InvalidFile(f"does not say its symbols and mode: give both, {both}")
    else:
        known = Metadata(pytorch_header.symbol_order(symbols), mode, {}, None, None)
    names = pytorch_names.find_tensors(shapes)
    config = pytorch_header.infer_config(shapes, names, known)
    expected = _expected_shapes(config, names, shapes)
    pytorch_header.check_tensors(kinds, shapes, expected)
    size = len(head) + BYTES_PER_NUMBER[kinds[names["decoder.weight"]]] * sum(map(math.prod, expected.values()))
    if size > system.physical_memory():
        raise InvalidFile(f"has {size:,} bytes, more than this machine has memory")
    data = files.read(place, size, size, named=True)
    if not data.startswith(head):
        raise InvalidFile("changed while it was read: try again")
    arrays = checkpoint_format.tensors(data)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InvalidFile(f"{name} holds numbers that are not finite")
    with np.errstate(over="ignore", invalid="ignore"):  # of a sum of biases, a product or a forged state: told in words
        weights = dict(tree.named_leaves(_params(_folded(arrays, names, config), config, known)))
    checkpoint_format.check_weights(weights, config)
    vocabulary = Vocabulary(None if known.symbols is None else tuple(sorted(known.symbols)), BOUNDARIES[known.mode])
    return Checkpoint(config, known.mode, vocabulary, known.record, weights)


def _torch_names(params: model.Params) -> dict[str, Any]:
    """Return each array of a model, or each shape of a tree of shapes, by PyTorch's name."""
    named: dict[str, Any] = {}
    for layer, p in enumerate(params.layers):
        second = p.b if isinstance(p.b, list) else np.zeros_like(p.b)
        if hasattr(p, "ban") and second is not p.b:
            second[-len(p.ban) :] = p.ban
        named |= {f"rnn.{part}_l{layer}": array for part, array in zip(TORCH_NAMES, (p.Wax, p.Waa, p.b, second))}
    return {**named, "decoder.weight": params.Wya, "decoder.bias": params.by}


def _expected_shapes(config: model.Config, names: dict[str, str], shapes: Shapes) -> Shapes:
    """The shapes of the tensors of a network by their names in its file, those of biases and of an embedding if it has them."""
    expected: Shapes = {name: tuple(shape) for name, shape in _torch_names(model.shapes(config)).items()}
    if not any(name.startswith("rnn.bias") for name in names):
        expected = {name: shape for name, shape in expected.items() if not name.startswith("rnn.bias")}
    if "decoder.bias" not in names:
        del expected["decoder.bias"]
    if EMBEDDING in names:
        size = shapes[names[EMBEDDING]][1]
        expected |= {EMBEDDING: (config.vocabulary, size), "rnn.weight_ih_l0": (expected["rnn.weight_ih_l0"][0], size)}
    prefix = names["rnn.weight_hh_l0"].removesuffix("weight_hh_l0")
    return {names.get(name, name.replace("rnn.", prefix)): shape for name, shape in expected.items()}


def _folded(arrays: dict[str, HostArray], names: dict[str, str], config: model.Config) -> dict[str, HostArray]:
    """The tensors of a network by the names of `to_torch`: zeros for biases that it does not have, and no embedding.

    With an embedding E (V, I) and input weights W (G H, I), symbol i adds W E[i] to the gates. Column i of W Eᵀ (G H, V) adds
    the same where symbols enter one-hot.
    """
    tensors = {name: arrays[file] for name, file in names.items()}
    weight = tensors["rnn.weight_ih_l0"]
    if EMBEDDING in tensors:
        product = weight.astype(np.float64) @ tensors.pop(EMBEDDING).astype(np.float64).T
        tensors["rnn.weight_ih_l0"] = product.astype(weight.dtype)
    shapes = _torch_names(model.shapes(config))
    return {name: tensors[name] if name in tensors else np.zeros(shape, weight.dtype) for name, shape in shapes.items()}


def _params(arrays: dict[str, HostArray], config: model.Config, known: Metadata) -> model.Params:
    """Make the parameters of a model from the arrays of a PyTorch network; the symbols are sorted."""
    cell, layers = config.definition, []
    symbols = range(256) if known.symbols is None else known.symbols
    order = np.array(sorted(range(len(symbols)), key=symbols.__getitem__))
    for layer in range(config.layers):
        Wax, Waa, first, second = (arrays[f"rnn.{part}_l{layer}"] for part in TORCH_NAMES)
        Wax = Wax if layer else Wax[:, order]
        b = np.where(second == 0, first, first + second)  # where nothing is added, not even the sign of a zero changes
        if "ban" in cell.Params._fields:
            n = 2 * config.hidden  # where the block n begins, whose second bias is inside of the reset product
            layers.append(cell.Params(Wax, Waa, np.concatenate([b[:n], first[n:]]), second[n:]))
        else:
            layers.append(cell.Params(Wax, Waa, b))
    initial = () if known.states is None else _initial_states(known.states, config, Waa.dtype)
    return model.Params(tuple(layers), initial, arrays["decoder.weight"][order], arrays["decoder.bias"][order])


def _initial_states(states: Any, config: model.Config, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Make the initial states of all layers from lists of numbers."""
    State, H = config.definition.State, config.hidden

    def fits(row: Any) -> bool:
        return isinstance(row, list) and len(row) == H and all(map(checkpoint_format.is_number, row))

    tables = [states.get(name) for name in State._fields] if isinstance(states, dict) else [None]
    if not all(isinstance(table, list) and len(table) == config.layers and all(map(fits, table)) for table in tables):
        expected = f"{' and '.join(State._fields)}, each {config.layers} lists of {H} finite numbers"
        raise InvalidFile(f"its metadata: states are not as expected: {expected}")
    return tuple(State(*(np.array(row, dtype) for row in rows)) for rows in zip(*tables))
