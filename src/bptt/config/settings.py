"""Settings of a training run, each with its default and its help."""

import contextlib
import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from bptt.backend import BackendName, DtypeName
from bptt.config import user_cells
from bptt.config.rules import (
    ABOVE_ZERO,
    BETA,
    COUNT,
    EVERY,
    FRACTION,
    LAYERS,
    NOT_BELOW_ZERO,
    PASSES,
    SEED,
    SHARE,
    SHARE_OR_FILE,
    WHOLE,
    check_device,
    check_duration,
    check_encoding,
    check_number,
    check_path,
    check_text,
    names_a_file,
)
from bptt.errors import InputError, option
from bptt.nn import initializers
from bptt.nn.cells import Cell, CellName
from bptt.nn.optimizers import OPTIMIZERS, OptimizerName
from bptt.nn.parametrization import Parametrization
from bptt.nn.schedules import ScheduleName
from bptt.nn.segments import RecomputeEvery

Mode = Literal["lines", "records", "stream"]
VocabularyName = Literal["characters", "bytes"]
Duplicates = Literal["together", "independent"]
NewSymbols = Literal["error", "add", "skip"]

Value = TypeVar("Value")


def may_change(default: Value) -> Value:
    """A field of Settings that may be given another value when a run is resumed."""
    return dataclasses.field(default=default, metadata={"may_change": True})


@dataclass(frozen=True)
class Settings:
    """One field per flag; None means: chosen from the text.

    Choices are spelled exactly as below, also in TOML; only on the command line can they be in any case, as in GRU.
    """

    out: Path | None = None
    """New folder for the run and its checkpoints. By default runs/NAME, then runs/NAME-2 and so on."""
    from_: Path | None = None
    """Run or checkpoint whose weights and vocabulary a new run starts from (fine-tuning)."""
    new_symbols: NewSymbols = "error"
    """Characters that the model to start from lacks: stop at them, add them to its vocabulary, or skip them."""
    backend: BackendName = may_change("auto")
    """Array library that does the computing; auto is CuPy if a CUDA device responds, else NumPy; strict is for tests."""
    device: str | None = may_change(None)
    """Device in the words of the array library, such as cuda:1, mps or an index. By default the one that it prefers."""
    require_backend: bool = may_change(False)
    """Stop with an error if the backend cannot be used, instead of falling back to NumPy."""
    dtype: DtypeName = "float32"
    """Floating-point type of weights and arithmetic."""
    cell: CellName | Cell = "gru"
    """Recurrent cell, or the Python file of a cell of your own; vanilla is the plain tanh cell."""
    hidden: int | None = None
    """Hidden size: number of units per layer. By default 64 to 320, more for longer texts."""
    layers: int = 1
    """Number of recurrent layers."""
    dropout: float | None = None
    """Fraction of units dropped in training, the same units at every time step. By default at most 0.5, less for longer texts;
    0 for the cell vanilla."""
    init: initializers.Kind = "uniform"
    """Initialization of the recurrent weights."""
    batch: int | None = None
    """Batch size: number of lines, or of parallel pieces of a stream. By default 8 to 128, more for longer texts."""
    length: int | None = None
    """Maximum number of time steps to backpropagate through. By default 256 for lines, else 64."""
    distributed: bool | None = may_change(None)
    """Train data-parallel with the processes that mpiexec or srun started. By default on if there are several;
    --distributed=false trains each by itself."""
    micro_batches: int = 1
    """Number of parts of a batch to accumulate gradients over: less memory, the same updates. Several processes share the
    parts, by default one each."""
    recompute_every: RecomputeEvery | None = None
    """Keep only every N-th state and recompute the others, to save memory (gradient checkpointing). By default all are kept;
    sqrt is the square root of the length."""
    nccl: bool = may_change(False)
    """All-reduce gradients from GPU to GPU with NCCL, where each of several processes has its own GPU."""
    graph: bool = may_change(True)
    """Replay updates as CUDA graphs, which is faster, on a GPU. On by default; --graph=false launches each kernel by itself."""
    mode: Mode | None = None
    """Whether the text is a list of lines (such as names), of records of several lines each, or one long stream. By default
    detected from the text."""
    separator: str | None = None
    r"""Text between two records, which are texts of several lines, as in '\n---\n'."""
    encoding: str = "utf-8"
    """Encoding of the text, by its name in Python, such as cp1252, gb18030 or utf-16."""
    glob: str = "*"
    """Files of a folder to read, as in '*.py'. A pattern with a slash is a path in the folder."""
    vocabulary: VocabularyName = "characters"
    """What a token is: a character of the text, or a byte of its UTF-8 form."""
    steps: int | None = may_change(None)
    """Number of updates. By default 500 to 5,000, more for longer texts."""
    epochs: float | None = None
    """Number of passes over the training text, instead of a number of steps."""
    budget: str | None = None
    """About how long the whole command takes, as in 30s, 5m or 1.5h, instead of a number of steps. A short trial on this
    machine chooses steps and hidden size."""
    optimizer: OptimizerName = "adam"
    """Rule that updates the weights."""
    learning_rate: float | None = None
    """Peak learning rate of the recurrent weights. By default 0.004 to 0.008 for adam, by the length of the text; one fixed
    value for each other optimizer."""
    parametrization: Parametrization | None = None
    """Learning rates and initial weights by the role of each tensor (mup), or alike for all (standard). By default mup for
    adam, else standard."""
    schedule: ScheduleName = "cosine"
    """How the learning rate falls after the warm-up; wsd keeps the peak for 80 % of the run, then falls."""
    warmup: int | None = None
    """Number of updates in which the learning rate rises to its peak. By default 200, or a tenth of a shorter run."""
    final_rate: float = 0.02
    """Learning rate at the end of the schedule, as a fraction of the peak. The schedule constant ignores it."""
    beta1: float | None = None
    """Decay of the running mean of the gradient in adam. By default 0.9."""
    beta2: float | None = None
    """Decay of the running mean of the squared gradient in adam. By default 0.999."""
    weight_decay: float | None = None
    """Decoupled weight decay of the weight matrices in adam (AdamW). By default 0.1 to 1.2, less for longer texts."""
    average: float | None = None
    """Decay of the moving average (EMA) of the weights, which is evaluated, saved and sampled; 0 for none. By default it is
    about as long as a tenth of the run."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient; a larger one is scaled down to it; 0 for no clipping."""
    seed: int = 0
    """Seed of the initial weights, the order of batches and dropout."""
    split_seed: int = 0
    """Seed of the validation split of lines. Runs with the same seed hold out the same lines."""
    duplicates: Duplicates = "together"
    """Copies of a line: together on one side of the validation split, or drawn independently."""
    validation: float | Path | None = None
    """Validation set: the fraction of the text to hold out, 0 for none, or a file or folder. By default 0.1, or less for texts
    over 1,000,000 characters."""
    evaluate_every: int | None = may_change(None)
    """Number of updates from one evaluation on the validation set to the next. By default a tenth of the run."""
    patience: int | None = may_change(None)
    """Number of evaluations without a new best after which to stop (early stopping). By default training never stops early."""
    checkpoint_every: int | None = may_change(None)
    """Number of updates from one checkpoint to the next. By default after each evaluation; a new best is always saved."""
    keep: int = may_change(3)
    """Number of newest checkpoints to keep; the best one is kept too."""
    stop_after: int | None = may_change(None)
    """Pause the run after this many updates of this call. The schedule still covers all steps, and the run can be resumed."""
    quiet: bool = may_change(False)
    """Report only the folder of the run, and only if it was not given. Warnings and errors are still printed."""
    json: bool = may_change(False)
    """Report each event as a line of JSON."""


SETTING_NAMES = tuple(field.name for field in dataclasses.fields(Settings))
MAY_CHANGE_ON_RESUME = tuple(field.name for field in dataclasses.fields(Settings) if "may_change" in field.metadata)

# settings that say how long a run is, of which one is given
LENGTHS_OF_A_RUN = ("steps", "epochs", "budget")

# settings that only some optimizers have, and the keyword argument of the update that each of them gives
OPTIMIZER_OPTIONS = {"beta1": "beta1", "beta2": "beta2", "weight_decay": "weight_decay", "parametrization": "groups"}

RULES = {
    "hidden": COUNT,
    "layers": LAYERS,
    "batch": COUNT,
    "length": COUNT,
    "micro_batches": COUNT,
    "recompute_every": EVERY,
    "steps": COUNT,
    "evaluate_every": COUNT,
    "patience": COUNT,
    "checkpoint_every": COUNT,
    "keep": COUNT,
    "stop_after": COUNT,
    "seed": SEED,
    "split_seed": SEED,
    "dropout": SHARE,
    "validation": SHARE_OR_FILE,
    "epochs": PASSES,
    "learning_rate": ABOVE_ZERO,
    "clip_norm": NOT_BELOW_ZERO,
    "warmup": WHOLE,
    "final_rate": FRACTION,
    "beta1": BETA,
    "beta2": BETA,
    "weight_decay": NOT_BELOW_ZERO,
    "average": SHARE,
}


def closest_match(name: str, names: list[str]) -> str:
    """The name that was probably meant, or nothing."""
    return "".join(difflib.get_close_matches({"lr": "learning_rate"}.get(name, name), names, 1))


def from_flags(flags: dict[str, Any]) -> Settings:
    """Settings from keyword arguments that bear the flags' names; an unknown one is an InputError with the nearest name."""
    for name in flags:
        if name not in SETTING_NAMES:
            near = closest_match(name, list(SETTING_NAMES))
            hint = f"did you mean {near!r}?" if near else f"the settings are {', '.join(SETTING_NAMES)}"
            raise InputError(f"setting {name!r} is unknown: {hint}")
    return validate(Settings(**flags))


def validate(settings: Settings, called: Callable[[str], str] = option) -> Settings:
    """The same settings in plain Python types, or an InputError that names the first one out of its range as it is `called`.

    Plain, because a NumPy float64 would turn float32 weights into float64, and JSON has no word for it.
    """
    plain: dict[str, Any] = {}
    hints = get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        name, value = field.name, getattr(settings, field.name)
        if value is not None or field.default is not None:
            plain[name] = (
                check_number(called(name), RULES[name], value)
                if name in RULES and not (name == "validation" and names_a_file(value))
                else _choice(called(name), name, hints[name], value)
            )
    lengths = [name for name in LENGTHS_OF_A_RUN if getattr(settings, name) is not None]
    if len(lengths) > 1:
        first, second = (f"{called(name)} {getattr(settings, name)}" for name in lengths[:2])
        raise InputError(f"{first} and {second}: give one of the two")
    settings = dataclasses.replace(settings, **plain)
    refuse_contradictions(settings, called)
    return settings


def refuse_contradictions(settings: Settings, called: Callable[[str], str] = option) -> None:
    """Raise an InputError for two settings of which one would do nothing."""
    if settings.separator is not None and settings.mode not in (None, "records"):
        problem = f"{called('separator')} {settings.separator!r} only works with {called('mode')} records"
        raise InputError(f"{problem}, not with {called('mode')} {settings.mode}: leave out one of the two")
    if settings.encoding != "utf-8" and settings.vocabulary == "bytes":
        problem = f"{called('encoding')} {settings.encoding}: {called('vocabulary')} bytes decodes nothing"
        raise InputError(f"{problem}: leave out one of the two")
    for name, needed in OPTIMIZER_OPTIONS.items():
        value = getattr(settings, name)
        if value and value != "standard" and needed not in OPTIMIZERS[settings.optimizer].options:
            users = " or ".join(optimizer for optimizer, entry in OPTIMIZERS.items() if needed in entry.options)
            problem = f"{called(name)} {value}: {called('optimizer')} {settings.optimizer} does not have it"
            raise InputError(f"{problem}: leave it out, or give {called('optimizer')} {users}")


def _choice(called: str, name: str, kind: Any, value: Any) -> Any:
    if name == "validation" and str(value) in ("", ".", "-"):  # "" is . as a path
        raise InputError(f"{called} {value!s}: expected {SHARE_OR_FILE[0]}")
    if name in ("out", "from_", "validation"):
        return check_path(called, value)
    if name == "budget":
        return check_duration(called, value)
    if name == "encoding":
        return check_encoding(called, value)
    if name == "device":
        return check_device(called, value)
    if name in ("glob", "separator"):
        return check_text(called, value)
    if name == "cell":
        return user_cells.resolve(called, value)
    words = [word for part in (kind, *get_args(kind)) for word in get_args(part) if isinstance(word, str)]
    choices = [False, True] if bool in (kind, *get_args(kind)) else words
    with contextlib.suppress(ValueError):  # an array is in no list
        if value in choices:
            return choices[choices.index(value)]
    raise InputError(f"{called} {value!r}: expected one of {', '.join(map(str, choices))}")
