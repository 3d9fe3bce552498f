"""Models as files that PyTorch reads, and files of PyTorch as models: safetensors with the names of torch.nn's modules.

They hold a torch.nn.RNN (tanh), GRU or LSTM named `rnn`, which sees symbols one-hot, and a torch.nn.Linear named `decoder`.
What PyTorch has no names for, such as the symbols, is JSON in the metadata. Files may come from strangers: nothing in them is
executed, and nothing is read that their header does not bear out.
"""

import itertools
import json
import math
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from bptt import backend as backends
from bptt.backend import HostArray
from bptt.errors import InputError
from bptt.nn import model, packing
from bptt.run import checkpoint, contents, environment, files, settings
from bptt.run.contents import Checkpoint
from bptt.run.files import Unusable
from bptt.run.language_model import LanguageModel, restored
from bptt.text.corpus import Mode
from bptt.text.vocabulary import START, Vocabulary

FORMAT = 1
KEY = "bptt"  # the only key of the metadata: of several, safetensors changes the order from file to file
SHAPE = ("cell", "hidden", "layers")
RECORD = ("text", "step", "held_out")  # what goes along of the record of the training, which has the paths of its user, too
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of a layer
CELLS = {module.GATES: name for name, module in model.CELLS.items()}  # by the blocks of rows
WIDTH = {"F32": 4, "F64": 8}  # bytes of a number
MOST_NESTED = 3 * 4 * 1001  # lists and objects: three a tensor, four tensors a layer, a thousand layers and the read-out
MADE = "expected a file of bptt export, or of safetensors.torch.save_file(network.state_dict(), FILE)"
BUILD = "expected rnn, a torch.nn.RNN, GRU or LSTM with biases and in one direction, and decoder, a torch.nn.Linear, alone"
Shapes = dict[str, tuple[int, ...]]


class ExchangeError(InputError):
    """A file that holds no model, or none that can be taken over as it is."""


class Known(NamedTuple):
    """What the tensors do not say of a model."""

    symbols: list[str] | None  # in the order of their ids; None: the 256 bytes of UTF-8
    mode: Mode
    record: dict[str, Any]
    states: Any  # a value of JSON: of each field of a State, a list of numbers a layer; None: texts begin at zero
    shape: tuple[Any, ...] | None  # what the file claims of `SHAPE`


def to_torch(trained: LanguageModel, path: str | os.PathLike[str]) -> None:
    """Write a model into a new file, which a PyTorch network loads with `strict=True`; the same model gives the same bytes.

    The bias of bptt is PyTorch's `bias_ih`; `bias_hh` is zero, but for the `ban` of a GRU.

    Raises:
        InputError: something is there already, or symbols and initial states are more than a header can hold.
        Unsaved: the file cannot be written; nothing of it is left.
    """
    target = settings.path("path", path)
    if os.path.lexists(target):
        raise InputError(f"{target}: something is there already: name a new file, or move the old one away")
    config, host = trained.config, packing.transform(trained.backend.get, trained.params)
    fields = model.CELLS[config.cell].State._fields
    about = {
        "format": FORMAT,
        **{name: getattr(config, name) for name in SHAPE},
        "mode": trained.mode,
        "symbols": trained.vocabulary.to_json(),
        "states": {name: [getattr(s, name).tolist() for s in host.initial] for name in fields} if host.initial else None,
        "record": {name: trained.record[name] for name in RECORD if name in trained.record},
    }
    arrays = {name: np.asarray(array, order="C") for name, array in _named(host).items()}  # safetensors scrambles others
    np.empty(3 * sum(array.nbytes for array in arrays.values()), np.uint8)  # a MemoryError, where safetensors ends the process
    data = bytes(safetensors.numpy.save(arrays, {KEY: json.dumps(about, sort_keys=True)}))
    header = int.from_bytes(data[:8], "little")
    if header > contents.LARGEST_HEADER:
        most = f"at most {contents.LARGEST_HEADER:,} can be read again"
        raise InputError(f"{target}: symbols and initial states take {header:,} bytes, {most}: export a smaller model")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.replace(target, data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise checkpoint.Unsaved(f"{target}: {len(data):,} bytes cannot be written: {files.reason(error)}") from error


def from_torch(
    path: str | os.PathLike[str], *, symbols: str | os.PathLike[str] | None = None, mode: Mode | None = None
) -> LanguageModel:
    r"""The model of a file that `to_torch` wrote, or that was saved from such a network of PyTorch; on NumPy.

    PyTorch's two biases are added where that changes nothing: everywhere but in the n part of a GRU, whose `bias_hh` is `ban`.
    A file of somebody else needs `mode`, lines or stream, and `symbols`, in the order of their ids: a str with a newline in
    it is the symbols themselves, "bytes" the 256 bytes of UTF-8, and any other str the path of a JSON file with a list of
    them (the `vocabulary.json` of a saved model is one). The newline stands before every text and after every line.

    Raises:
        ExchangeError: no such file, one that is damaged or forged, numbers other than float32 or float64, symbols that are
            missing, unusable, or not as many as the network has.
    """
    place = settings.path("path", path)
    try:
        saved = _read(place, symbols, mode)
    except Unusable as problem:
        raise ExchangeError(f"{place}: {problem}") from None
    except MemoryError:
        raise ExchangeError(f"{place}: there is no memory for it") from None
    return restored(saved, backends.select("numpy", str(saved.weights["Wya"].dtype)))


def _read(place: Path, symbols: str | os.PathLike[str] | None, mode: Mode | None) -> Checkpoint:
    """The model of a file, every claim of its header checked before the rest is read."""
    head, kinds, shapes, about = _header(place)
    if about is not None:
        if symbols is not None or mode is not None:
            raise Unusable("says its symbols and mode itself: leave out --symbols and --mode")
        known = _told(about)
    elif symbols is None or mode is None:
        raise Unusable(
            "does not say its symbols and mode: give both, --symbols in the order of their ids, --mode lines or stream"
        )
    else:
        known = Known(ordered(symbols), mode, {}, None, None)
    config = _config(shapes, known)
    expected: Shapes = {name: tuple(shape) for name, shape in _named(model.shapes(config)).items()}
    _check(kinds, shapes, expected)
    whole = len(head) + WIDTH[kinds["decoder.bias"]] * sum(map(math.prod, expected.values()))
    if whole > environment.physical():
        raise Unusable(f"has {whole:,} bytes, more than this machine has memory")
    data = files.read(Path(os.path.realpath(place)), whole, whole)
    if not data.startswith(head):
        raise Unusable("changed while it was read: try again")
    arrays = contents.tensors(data)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise Unusable(f"{name} holds numbers that are not finite")
    with np.errstate(over="ignore"):  # of a sum of biases or a forged state: told in words
        weights = dict(packing.leaves(_params(arrays, config, known)))
    contents.check_weights(weights, config)
    vocabulary = Vocabulary(None if known.symbols is None else tuple(sorted(known.symbols)))
    return Checkpoint(config, known.mode, vocabulary, known.record, weights)


def _header(place: Path) -> tuple[bytes, dict[str, str], Shapes, str | None]:
    """The first bytes of a file, up to its tensors, the types and shapes of these, and what bptt export said about them."""
    try:
        if not stat.S_ISREG(os.stat(place).st_mode):
            raise Unusable(f"is not a regular file: {MADE}")
        with open(place, "rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or length > contents.LARGEST_HEADER:
                raise Unusable(f"does not begin like a safetensors file, or has too large a header: {MADE}")
            head += file.read(length)
    except (FileNotFoundError, NotADirectoryError):
        raise Unusable(f"no such file: {MADE}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unusable(f"cannot be read: {files.reason(error)}") from None
    try:
        header = files.parse(head[8:], MOST_NESTED)
        if not isinstance(header, dict):
            raise Unusable("is no object")
    except Unusable as problem:
        raise Unusable(f"its header {problem}: {MADE}") from None
    metadata = header.pop("__metadata__", None)
    about = metadata.get(KEY) if isinstance(metadata, dict) else None
    kinds, shapes = dict[str, str](), Shapes()
    for name, entry in header.items():
        match entry:
            case {"dtype": str(kind), "shape": list(shape)} if all(type(n) is int and n >= 0 for n in shape):
                kinds[name], shapes[name] = kind, tuple(shape)
            case _:
                raise Unusable(f"its header says nothing usable of {name!r:.60}: {contents.DAMAGED}")
    return head, kinds, shapes, None if about is None else str(about)


def _told(about: str) -> Known:
    """What bptt export said about the tensors."""
    try:
        value = files.parse(about.encode("utf-8", "surrogatepass"), MOST_NESTED)
        if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
            raise Unusable(f"has format {value['format']!r:.40}, expected {FORMAT}: use the bptt version that wrote it")
        match value:
            case {"format": _, "mode": mode, "symbols": symbols, "states": states, "record": dict(record)}:
                Vocabulary.from_json(symbols)
                few = {name: record[name] for name in RECORD if name in record}
                return Known(symbols, mode, few, states, tuple(value.get(name) for name in SHAPE))
        raise Unusable(f"is not what bptt export says: {contents.DAMAGED}")
    except (Unusable, InputError) as problem:
        raise Unusable(f"its metadata: {problem}") from None


def ordered(symbols: str | os.PathLike[str]) -> list[str] | None:
    """Symbols in the order of their ids, None for the 256 bytes: given as they are, or in a JSON file, as in `from_torch`.

    Raises:
        ExchangeError: not distinct single characters with the newline among them.
    """
    if symbols == "bytes":
        return None
    shown, found = "--symbols", list[Any](symbols) if isinstance(symbols, str) else []
    if START not in found:
        place = settings.path("--symbols", symbols)
        shown = f"--symbols {place}"
        try:
            found = files.parse(files.read(Path(os.path.realpath(place)), contents.LARGEST_JSON), 1)
        except (Unusable, ValueError) as problem:  # ValueError: a NUL in the path
            given = "expected a JSON file with a list of them, bytes, or the symbols themselves, the newline among them"
            raise ExchangeError(f"{shown}: {problem}: {given}") from None
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(symbol, str) and len(symbol) == 1 for symbol in found):
        raise ExchangeError(f"{shown}: expected a list of single characters, in the order of their ids")
    for symbol, times in Counter(found).items():
        if times > 1:
            raise ExchangeError(f"{shown}: {symbol!r} is there {times} times, expected each once, in the order of their ids")
    if START not in found:
        raise ExchangeError(f"{shown}: expected the newline, too, in the place of what texts or lines begin and end with")
    return found


def _config(shapes: Shapes, known: Known) -> model.Config:
    """The model that has such tensors."""
    waa, wya = shapes.get("rnn.weight_hh_l0", ()), shapes.get("decoder.weight", ())
    cells = [name for gates, name in CELLS.items() if len(waa) == 2 and waa[0] == gates * waa[1] > 0]
    if not cells:
        build = "[H, H] of a torch.nn.RNN, [3H, H] of a GRU or [4H, H] of an LSTM"
        raise Unusable(f"rnn.weight_hh_l0 is {list(waa) or 'nothing'}, expected {build}: {BUILD}")
    symbols = 256 if known.symbols is None else len(known.symbols)
    if wya[:1] != (symbols,):
        raise Unusable(f"decoder.weight is {list(wya) or 'nothing'}, expected a row for each of {symbols:,} symbols: {BUILD}")
    layers = next(layer for layer in itertools.count() if f"rnn.weight_hh_l{layer}" not in shapes)
    shape = {"cell": cells[0], "hidden": waa[1], "layers": layers}
    if known.shape not in (None, tuple(shape.values())):
        raise Unusable(f"its metadata is of another model than its tensors: {contents.DAMAGED}")
    whole = {**shape, "vocabulary": symbols, "initial": "zero" if known.states is None else "learned"}
    return contents.configuration({"model": whole, "mode": known.mode, "record": known.record})[0]


def _check(kinds: dict[str, str], shapes: Shapes, expected: Shapes) -> None:
    """Refuse tensors that are not those of a model."""
    for name in sorted(expected.keys() | shapes.keys()):
        if name not in shapes:
            raise Unusable(f"has no {name}: {BUILD}")
        if name not in expected:
            raise Unusable(f"has {name!r:.60}, too: {BUILD}")
        if shapes[name] != expected[name]:
            raise Unusable(f"{name} is {list(shapes[name])}, expected {list(expected[name])}")
        if kinds[name] not in WIDTH or kinds[name] != kinds["decoder.bias"]:
            raise Unusable(f"{name} is {kinds[name]:.20}, expected all F32 or all F64: call network.float() before it is saved")


def _named(params: model.Params) -> dict[str, Any]:
    """PyTorch's name of each array of a model or, given the tree of their shapes (lists), of each shape."""
    found: dict[str, Any] = {}
    for layer, p in enumerate(params.layers):
        second = p.b if isinstance(p.b, list) else np.zeros_like(p.b)
        if hasattr(p, "ban") and second is not p.b:
            second[-len(p.ban) :] = p.ban
        found |= {f"rnn.{part}_l{layer}": array for part, array in zip(PARTS, (p.Wax, p.Waa, p.b, second))}
    return {**found, "decoder.weight": params.Wya, "decoder.bias": params.by}


def _params(arrays: dict[str, HostArray], config: model.Config, known: Known) -> model.Params:
    """The arrays of a model, given those of PyTorch's network; symbols come into sorted order."""
    cell, layers = model.CELLS[config.cell], []
    symbols = range(256) if known.symbols is None else known.symbols
    order = np.array(sorted(range(len(symbols)), key=symbols.__getitem__))
    for layer in range(config.layers):
        Wax, Waa, first, second = (arrays[f"rnn.{part}_l{layer}"] for part in PARTS)
        Wax = Wax if layer else Wax[:, order]
        b = np.where(second == 0, first, first + second)  # where nothing is added, not even the sign of a zero changes
        if config.cell == "gru":
            n = 2 * config.hidden  # where the block n begins, whose second bias is inside of the reset product
            layers.append(cell.Params(Wax, Waa, np.concatenate([b[:n], first[n:]]), second[n:]))
        else:
            layers.append(cell.Params(Wax, Waa, b))
    initial = () if known.states is None else _initial(known.states, config, Waa.dtype)
    return model.Params(tuple(layers), initial, arrays["decoder.weight"][order], arrays["decoder.bias"][order])


def _initial(states: Any, config: model.Config, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """The initial states, one per layer, given the lists of their numbers."""
    State, H = model.CELLS[config.cell].State, config.hidden

    def fits(row: Any) -> bool:
        return isinstance(row, list) and len(row) == H and all(map(contents.is_number, row))

    tables = [states.get(name) for name in State._fields] if isinstance(states, dict) else [None]
    if not all(isinstance(table, list) and len(table) == config.layers and all(map(fits, table)) for table in tables):
        expected = f"{' and '.join(State._fields)}, each {config.layers} lists of {H} finite numbers"
        raise Unusable(f"its metadata: states are not as expected: {expected}")
    return tuple(State(*(np.array(row, dtype) for row in rows)) for rows in zip(*tables))
