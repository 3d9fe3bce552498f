"""The contents of a checkpoint, and the validation of its files, which may be damaged or come from strangers.

Every check raises `InvalidFile` with the reason, and allocates nothing by a size that the file merely claims.
"""

import math
import operator
from typing import Any, NamedTuple, get_args

import numpy as np
import safetensors.numpy

from bptt.backend import HostArray
from bptt.config import rules, settings, user_cells
from bptt.data.vocabulary import BOUNDARIES, Vocabulary
from bptt.errors import InputError, InvalidFile
from bptt.files import checksum, describe_os_error, to_json
from bptt.nn import model, tree
from bptt.nn.cells import CELLS, Cell

FORMAT = 2  # of what is written; 1 has no average of the weights
READABLE = (1, 2)
CONFIG, VOCABULARY, WEIGHTS = MODEL = ("config.json", "vocabulary.json", "model.safetensors")
TRAINING, OPTIMIZER = RUN = ("training.json", "optimizer.safetensors")  # of a run, besides
MANIFEST = "manifest.json"
AVERAGING = ("average", "params")  # arrays of a run that averages its weights
DAMAGED = "the file is damaged, use another copy"
MAX_JSON_BYTES = 1 << 20  # bytes
MAX_CONFIG_BYTES = 1 << 23  # bytes of config.json, which names the files of a text (`data.file_lists.MOST_CHARACTERS`)
MAX_HISTORY_BYTES = 1 << 24  # bytes; of a longer history a checkpoint holds every second row, `metrics.jsonl` holds all
MAX_NESTING = 500  # lists and objects, but for those of a history
MAX_HEADER_BYTES = 1 << 20  # bytes, of safetensors; a forged one of 76 MB would cost seconds and a gigabyte
MAX_BATCH = 1 << 20  # columns of saved hidden states
MAX_UNITS = 1_000_000  # of a layer: Waa alone would take 4 TB
MAX_SECONDS = 1e10  # of a run: three hundred years
MAX_SYMBOLS = 0x110000  # there are no more code points
HEX = set("0123456789abcdef")
ROW_FIELDS = ("step", "loss", "rate", "norm", "characters", "seconds")  # of an entry of the history: numbers
EVALUATION_FIELDS = ("held_out", "sample", "radii")  # of some, too: a number, texts, and numbers by layer
COUNTS: dict[str, rules.Rule] = {
    "hidden": (f"a whole number from 1 to {MAX_UNITS}", int, lambda value: 1 <= value <= MAX_UNITS),
    "layers": rules.LAYERS,
    "vocabulary": (f"a whole number from 1 to {MAX_SYMBOLS}", int, lambda value: 1 <= value <= MAX_SYMBOLS),
}


class Progress(NamedTuple):
    """The numbers that training resumes from, and the history of the run."""

    step: int  # updates so far
    epoch: int  # of the next batch
    batch: int  # the next one's place in its epoch
    characters: int  # targets learnt from so far
    seconds: float  # of training so far
    best: tuple[int, float] | None  # step and nats per held-out character of the best measurement
    waited: int  # measurements since the best one
    losses: tuple[float, ...]  # of the batches since the last entry of the history, nats per character
    norms: tuple[float, ...]  # of their gradients
    history: tuple[dict[str, Any], ...]  # an entry a log step


class Checkpoint(NamedTuple):
    """A model and, in a run, the state that training resumes from; weights and training arrays are host arrays by name."""

    config: model.Config
    mode: settings.Mode
    vocabulary: Vocabulary
    record: dict[str, Any]  # settings, resolved defaults and results of the run; JSON values
    weights: dict[str, HostArray]
    progress: Progress | None = None  # None: a model alone
    training_arrays: dict[str, HostArray] | None = None  # the optimizer's state, and the hidden states of the next batch


def manifest(value: Any, raw: bytes) -> dict[str, Any]:
    """Validate a manifest and return the size and checksum of each file."""
    if not isinstance(value, dict) or "format" not in value:
        raise InvalidFile(f"is not as it was written: {DAMAGED}")
    if value["format"] not in READABLE or type(value["format"]) is not int:
        expected = " or ".join(map(str, READABLE))
        raise InvalidFile(f"format {value['format']!r:.40}, expected {expected}: use the bptt version that wrote it")
    if to_json(value) != raw:  # the manifest has no checksum; its JSON is canonical, so other bytes mean damage
        raise InvalidFile(f"is not as it was written: {DAMAGED}")
    listed = value.get("files")
    for name in MODEL:
        if not isinstance(listed, dict) or name not in listed:
            raise InvalidFile(f"has no checksum and size of {name}")
    for name, entry in dict(listed or {}).items():
        if name not in MODEL + RUN:
            raise InvalidFile(f"lists {name!r:.40}, which is no file of a checkpoint")
        match entry:
            case {"sha256": str(digest), "bytes": int(size)} if (
                len(digest) == 64 and set(digest) <= HEX and 0 <= size < 1 << 62
            ):
                pass
            case _:
                raise InvalidFile(f"has no checksum and size of {name}")
    return dict(listed or {})


def configuration(value: Any, cell: Cell | None = None) -> tuple[model.Config, settings.Mode, dict[str, Any]]:
    """Validate config.json and return the model configuration, the mode and the record of the training.

    `cell` is the cell of the model, where it is not a built-in one.
    """
    try:
        config, mode, record = model.Config(**value["model"], user_cell=cell), value["mode"], value["record"]
    except (KeyError, TypeError) as error:
        raise InvalidFile(f"is not the configuration of a model ({error})") from None
    for name, choice, known in [
        ("cell", config.cell, tuple(CELLS) if cell is None else (user_cells.name_of(cell),)),
        ("mode", mode, get_args(settings.Mode)),
        ("initial state", config.initial, get_args(model.InitialState)),
    ]:
        if choice not in known:
            raise InvalidFile(f"{name} {choice!r:.40} is unknown")
    for name, (wanted, kind, fine) in COUNTS.items():
        number = getattr(config, name)
        if type(number) is not kind or not fine(number):
            raise InvalidFile(f"{name} {number!r:.40}: expected {wanted}")
    if not isinstance(record, dict) or not isinstance(record.get("text", ""), str):
        raise InvalidFile("the record of its training is malformed")
    for name in ("loss", "held_out", "targets", "step"):
        if not (record.get(name) is None or is_number(record[name])):
            raise InvalidFile(f"{name} {record[name]!r:.40}: expected a number")
    return config, mode, record


def vocabulary(value: Any, config: model.Config, mode: settings.Mode) -> Vocabulary:
    """Validate vocabulary.json and return the symbols of a model."""
    try:
        symbols = Vocabulary.from_json(value, BOUNDARIES[mode])
    except InputError as error:
        raise InvalidFile(str(error)) from None
    if len(symbols) != config.vocabulary:
        raise InvalidFile(f"has {len(symbols)} symbols, the model has {config.vocabulary}")
    return symbols


def check_size(size: int, numbers: int, more: int = 0) -> None:
    """Refuse a file of tensors whose size does not fit `numbers` elements, and at most `more` others."""
    if not any(8 + width * numbers <= size <= 8 + MAX_HEADER_BYTES + width * (numbers + more) for width in (4, 8)):
        raise InvalidFile(f"has {size:,} bytes, expected those of {numbers:,} numbers")


def tensors(data: bytes) -> dict[str, HostArray]:
    """Return the arrays of a safetensors file, by name."""
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise InvalidFile(f"its header is larger than {MAX_HEADER_BYTES:,} bytes")
    try:
        return dict(safetensors.numpy.load(data))
    except Exception as error:  # half a dozen types, depending on what is wrong with the header
        raise InvalidFile(f"is not a safetensors file ({describe_os_error(error)})") from None


def check_weights(arrays: dict[str, HostArray], config: model.Config) -> None:
    """Refuse arrays that are not the parameters of a model."""
    expected = {name: tuple(shape) for name, shape in tree.named_leaves(model.shapes(config))}
    _check_arrays(arrays, expected, {array.dtype for array in arrays.values()})


def state_shapes(config: model.Config, rows: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each recurrent state of a batch."""
    fields = config.definition.State._fields
    return {f"states.{layer}.{field}": (rows, config.hidden) for layer in range(config.layers) for field in fields}


def check_optimizer_state(arrays: dict[str, HostArray], parameters: int, config: model.Config, dtype: np.dtype[Any]) -> None:
    """Refuse arrays that are not the optimizer's state and, within an epoch, the recurrent states.

    A run that averages its weights has the average and the parameters of the last update, too.
    """
    expected: dict[str, tuple[int, ...]] = {"t": (), "m": (parameters,), "v": (parameters,)}
    if not arrays.keys().isdisjoint(AVERAGING):
        expected |= dict.fromkeys(AVERAGING, (parameters,))
    if arrays.keys() - expected.keys():
        first = arrays.get(next(iter(state_shapes(config, 0))))
        expected |= state_shapes(config, len(first) if first is not None and first.ndim else 0)
    _check_arrays(arrays, expected, {dtype})


def progress(value: Any) -> Progress:
    """Validate training.json and return the progress of a run."""
    try:
        result = Progress(**value)
        best = None if result.best is None else (result.best[0], result.best[1])
        lists = tuple(result.losses), tuple(result.norms), tuple(result.history)
        result = result._replace(best=best, losses=lists[0], norms=lists[1], history=lists[2])
    except (TypeError, IndexError, KeyError) as error:
        raise InvalidFile(f"is not the progress of a run ({error})") from None
    counts = (result.step, result.epoch, result.batch, result.characters, result.waited, *(best[:1] if best else ()))
    numbers = (result.seconds, *result.losses, *result.norms, *(best[1:] if best else ()))
    valid = all(type(count) is int and 0 <= count < 1 << 62 for count in counts) and all(map(is_number, numbers))
    if not valid or not 0 <= result.seconds < MAX_SECONDS:
        raise InvalidFile("holds an invalid count or number")
    steps = [check_row(row)["step"] for row in result.history]
    if any(map(operator.gt, steps, steps[1:])):
        raise InvalidFile("holds a history whose steps fall")
    return result


def check_row(row: Any) -> dict[str, Any]:
    """Return a row of a history, or refuse a malformed one."""
    known = isinstance(row, dict) and row.keys() <= {*ROW_FIELDS, *EVALUATION_FIELDS}
    if not known or not all(is_number(row.get(name)) for name in ROW_FIELDS) or not is_number(row.get("held_out", 0)):
        raise InvalidFile(f"{row!r:.80} is no entry of a history")
    texts = row.get("sample", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidFile(f"{texts!r:.80} is no sample")
    layers = row.get("radii", [])
    if not isinstance(layers, list) or not all(isinstance(one, list) and all(map(is_number, one)) for one in layers):
        raise InvalidFile(f"{layers!r:.80} are no spectral radii")
    if not all(type(row[name]) is int and 0 <= row[name] < 1 << 62 for name in ("step", "characters")):
        raise InvalidFile(f"{row!r:.80} holds an invalid count")
    if not 0 <= row["seconds"] < MAX_SECONDS:
        raise InvalidFile(f"{row!r:.80} holds an invalid time")
    return dict(row)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number; booleans are not."""
    return type(value) in (int, float) and abs(value) < 1e300


def make_manifest(content: dict[str, bytes]) -> bytes:
    """Return the manifest of files as JSON."""
    return to_json({"format": FORMAT, "files": {name: checksum(data) for name, data in content.items()}})


def _check_arrays(arrays: dict[str, HostArray], expected: dict[str, tuple[int, ...]], types: set[np.dtype[Any]]) -> None:
    if arrays.keys() != expected.keys():
        odd = min(arrays.keys() ^ expected.keys())
        wrong = "is not expected" if odd in arrays else f"is missing, expected floats {list(expected[odd])}"
        raise InvalidFile(f"{odd if odd in expected else repr(odd):.40} {wrong}")
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape or str(array.dtype) not in ("float32", "float64") or {array.dtype} != types:
            raise InvalidFile(f"{name} is {array.dtype} {list(array.shape)}, expected floats {list(shape)}, all of one type")
        if not all(math.isfinite(bound) for bound in (array.min(initial=0), array.max(initial=0))):  # without a copy
            raise InvalidFile(f"{name} holds numbers that are not finite")
