"""Validation of a PyTorch file before it is imported: header, metadata and shapes.

Files may come from strangers: nothing in them is executed, and nothing is read that their header does not bear out.
"""

import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_args

from bptt import files
from bptt.checkpoint import format as checkpoint_format
from bptt.config import rules
from bptt.config.settings import Mode
from bptt.data.vocabulary import BOUNDARIES, NEWLINE, Vocabulary
from bptt.errors import InputError, InvalidFile, ModelFileError, option
from bptt.export.common import FORMAT, METADATA_KEY, SHAPE, public_record
from bptt.export.pytorch_names import Shapes, refusal
from bptt.nn import model
from bptt.nn.cells import CELLS

MODULES = {"vanilla": "RNN", "gru": "GRU", "lstm": "LSTM"}  # of torch.nn
BYTES_PER_NUMBER = {"F32": 4, "F64": 8}  # bytes of a number
MAX_NESTING = 3 * 4 * 1001  # lists and objects: three a tensor, four tensors a layer, a thousand layers and the output layer
EXPECTED_FILE = "expected a file of bptt export, or of safetensors.torch.save_file(network.state_dict(), FILE)"


class Metadata(NamedTuple):
    """Properties of a model that its tensors do not show."""

    symbols: list[str] | None  # in the order of their ids; None: the 256 bytes of UTF-8
    mode: Mode
    record: dict[str, Any]
    states: Any  # a value of JSON: of each field of a State, a list of numbers a layer; None: texts begin at zero
    shape: tuple[Any, ...] | None  # what the file claims of `SHAPE`


def read_header(place: Path) -> tuple[bytes, dict[str, str], Shapes, str | None]:
    """Read the header of a file: its bytes, the types and shapes of the tensors, and the metadata of bptt export."""
    try:
        with _open(place) as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or length > checkpoint_format.MAX_HEADER_BYTES:
                raise InvalidFile(f"does not begin like a safetensors file, or has too large a header: {EXPECTED_FILE}")
            head += file.read(length)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InvalidFile(f"cannot be read: {files.describe_os_error(error)}") from None
    try:
        header = files.parse_json(head[8:], MAX_NESTING)
        if not isinstance(header, dict):
            raise InvalidFile("is no object")
    except InvalidFile as problem:
        raise InvalidFile(f"its header {problem}: {EXPECTED_FILE}") from None
    metadata = header.pop("__metadata__", None)
    metadata = metadata if isinstance(metadata, dict) else {}
    about = metadata.get(METADATA_KEY)
    if "relu" in str(metadata.get("nonlinearity", "")).lower():  # nothing else shows it
        raise InvalidFile("says that its nonlinearity is relu: expected a torch.nn.RNN with tanh, a GRU or an LSTM")
    kinds, shapes = dict[str, str](), Shapes()
    for name, entry in header.items():
        match entry:
            case {"dtype": str(kind), "shape": list(shape)} if all(type(n) is int and n >= 0 for n in shape):
                kinds[name], shapes[name] = kind, tuple(shape)
            case _:
                raise InvalidFile(f"its header says nothing usable of {name!r:.60}: {checkpoint_format.DAMAGED}")
    return head, kinds, shapes, None if about is None else str(about)


def parse_metadata(about: str) -> Metadata:
    """Validate the metadata of bptt export."""
    try:
        value = files.parse_json(about.encode("utf-8", "surrogatepass"), MAX_NESTING)
        if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
            raise InvalidFile(f"has format {value['format']!r:.40}, expected {FORMAT}: use the bptt version that wrote it")
        match value:
            case {"format": _, "mode": mode, "symbols": symbols, "states": states, "record": dict(record)}:
                if mode not in get_args(Mode):
                    raise InvalidFile(f"mode {mode!r:.40} is unknown")
                Vocabulary.from_json(symbols, BOUNDARIES[mode])
                return Metadata(symbols, mode, public_record(record), states, tuple(value.get(name) for name in SHAPE))
        raise InvalidFile(f"is not what bptt export says: {checkpoint_format.DAMAGED}")
    except (InvalidFile, InputError) as problem:
        raise InvalidFile(f"its metadata: {problem}") from None


def symbol_order(symbols: str | os.PathLike[str]) -> list[str] | None:
    """Return symbols in the order of their ids, None for bytes; from a str or a JSON file, as in `from_torch`.

    Raises:
        ModelFileError: not distinct single characters with the newline among them.
    """
    if symbols == "bytes":
        return None
    shown, order = option("symbols"), list[Any](symbols) if isinstance(symbols, str) else []
    if NEWLINE not in order:
        place = rules.check_path(option("symbols"), symbols)
        shown = option("symbols", place)
        try:
            order = files.parse_json(files.read(place, checkpoint_format.MAX_JSON_BYTES, named=True), 1)
        except (InvalidFile, ValueError) as problem:  # ValueError: a NUL in the path
            expected = "expected a JSON file with a list of them, bytes, or the symbols themselves, the newline among them"
            raise ModelFileError(f"{shown}: {problem}: {expected}") from None
    if order is None:
        return None
    if not isinstance(order, list) or not all(isinstance(symbol, str) and len(symbol) == 1 for symbol in order):
        raise ModelFileError(f"{shown}: expected a list of single characters, in the order of their ids")
    for symbol, times in Counter(order).items():
        if times > 1:
            raise ModelFileError(f"{shown}: {symbol!r} is there {times} times, expected each once, in the order of their ids")
    if NEWLINE not in order:
        raise ModelFileError(f"{shown}: expected the newline, too, in the place of what texts or lines begin and end with")
    return order


def infer_config(shapes: Shapes, names: dict[str, str], known: Metadata) -> model.Config:
    """Infer the model configuration from the shapes of the tensors, given the names in the file of `find_tensors`."""
    waa, wya = shapes[names["rnn.weight_hh_l0"]], shapes[names["decoder.weight"]]
    cells = [name for name in MODULES if waa[0] == len(CELLS[name].GATES) * waa[1] > 0]
    if not cells:
        build = "[H, H] of a torch.nn.RNN, [3H, H] of a GRU or [4H, H] of an LSTM"
        raise refusal(f"{names['rnn.weight_hh_l0']!r:.60} is {list(waa)}, expected {build}", shapes)
    symbols = 256 if known.symbols is None else len(known.symbols)
    if wya[:1] != (symbols,):
        rows = f"expected a row for each of {symbols:,} symbols"
        raise refusal(f"{names['decoder.weight']!r:.60} is {list(wya)!s:.40}, {rows}", shapes)
    layers = next(layer for layer in itertools.count() if f"rnn.weight_hh_l{layer}" not in names)
    shape = {"cell": cells[0], "hidden": waa[1], "layers": layers}
    if known.shape not in (None, tuple(shape.values())):
        raise InvalidFile(f"its metadata is of another model than its tensors: {checkpoint_format.DAMAGED}")
    fields = {**shape, "vocabulary": symbols, "initial": "zero" if known.states is None else "learned"}
    return checkpoint_format.configuration({"model": fields, "mode": known.mode, "record": known.record})[0]


def check_tensors(kinds: dict[str, str], shapes: Shapes, expected: Shapes) -> None:
    """Refuse tensors that are not those of the expected model."""
    first = kinds[next(name for name in expected if name in kinds)]
    for name in sorted(expected.keys() | shapes.keys()):
        if name not in shapes:
            raise refusal(f"has no {name:.60}", shapes)
        if name not in expected:
            raise refusal(f"has {name!r:.60}, too", shapes)
        if shapes[name] != expected[name]:
            raise refusal(f"{name!r:.60} is {list(shapes[name])!s:.40}, expected {list(expected[name])}", shapes)
        if kinds[name] not in BYTES_PER_NUMBER or kinds[name] != first:
            raise InvalidFile(
                f"{name!r:.60} is {kinds[name]:.20}, expected all F32 or all F64: call network.float() before it is saved"
            )


def _open(place: Path) -> BinaryIO:
    try:
        return files.open_regular(place, links=True)
    except InvalidFile as problem:
        raise InvalidFile(f"{problem}: {EXPECTED_FILE}") from None
