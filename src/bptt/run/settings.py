"""What a user can choose for a training run, and what is chosen from the text where they do not."""

import bisect
import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from bptt.errors import InputError


@dataclass(frozen=True)
class Settings:
    """One field a flag; None means: chosen from the text."""

    out: Path | None = None
    """Folder to save the model in; it must not exist yet."""
    backend: Literal["auto", "numpy", "cupy", "torch", "jax", "strict"] = "auto"
    """Array library; auto is CuPy where a CUDA device answers, else NumPy."""
    require_backend: bool = False
    """Fail, rather than fall back to NumPy, where the backend cannot run."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of weights and arithmetic."""
    cell: Literal["vanilla", "gru", "lstm"] = "gru"
    """Recurrent cell: tanh (vanilla), gated recurrent unit, or long short-term memory."""
    hidden: int | None = None
    """Units in a layer; by default 64 to 384, more for longer texts."""
    layers: int = 1
    """Recurrent layers, one on top of the other."""
    dropout: float | None = None
    """Share of the units of a layer dropped for a whole sequence in training; by default less for longer texts."""
    init: Literal["uniform", "orthogonal", "identity"] = "uniform"
    """How the recurrent weights begin."""
    batch: int | None = None
    """Lines, or parallel streams, in a batch; by default 16 to 128, more for longer texts."""
    length: int | None = None
    """Steps that a gradient goes back at most; by default 256 in lines, 64 in a stream."""
    mode: Literal["lines", "stream"] | None = None
    """Each line a text of its own (names), or one long text; by default told from the text."""
    vocabulary: Literal["characters", "bytes"] = "characters"
    """What a token is: a character of the text, or a byte of its UTF-8 form."""
    steps: int | None = None
    """Updates of the weights; by default a number that suits the size of the text."""
    epochs: float | None = None
    """Passes over the training text, instead of a number of steps."""
    optimizer: Literal["adam", "rmsprop", "adagrad", "momentum", "sgd"] = "adam"
    """Update rule."""
    learning_rate: float | None = None
    """Highest rate, reached after a warm-up and left along a cosine; by default one that suits the optimizer."""
    clip_norm: float = 1.0
    """Longest gradient (Euclidean norm over all parameters); 0 leaves it as it is."""
    seed: int = 0
    """Seed of everything random: the split, the first weights, the order, dropout."""
    validation: float = 0.1
    """Share of the text held out to measure the model on; 0 holds out nothing."""
    quiet: bool = False
    """Print nothing but warnings and errors."""


RATES = {"adam": 4e-3, "rmsprop": 2e-3, "adagrad": 3e-2, "momentum": 1e-1, "sgd": 1.0}

Rule = tuple[str, Callable[[float], bool]]  # what is expected, in words and as a test
COUNT: Rule = ("a whole number, at least 1", lambda value: value >= 1 and value == int(value))
SEED: Rule = ("a whole number, at least 0", lambda value: value >= 0 and value == int(value))
SHARE: Rule = ("a share, at least 0 and below 1", lambda value: 0 <= value < 1)
ABOVE_ZERO: Rule = ("a number above 0", lambda value: value > 0)
NOT_BELOW_ZERO: Rule = ("a number, at least 0", lambda value: value >= 0)
RULES = {
    "hidden": COUNT,
    "layers": COUNT,
    "batch": COUNT,
    "length": COUNT,
    "steps": COUNT,
    "seed": SEED,
    "dropout": SHARE,
    "validation": SHARE,
    "epochs": ABOVE_ZERO,
    "learning_rate": ABOVE_ZERO,
    "clip_norm": NOT_BELOW_ZERO,
}


def flag(name: str) -> str:
    """The flag of a field on the command line."""
    return "--" + name.replace("_", "-")


def from_flags(flags: dict[str, Any]) -> Settings:
    """Settings from keyword arguments that bear the flags' names; an unknown one is an InputError with the nearest name."""
    names = [field.name for field in dataclasses.fields(Settings)]
    for name in flags:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(names)}"
            raise InputError(f"setting {name!r} is unknown: {hint}")
    return check(Settings(**flags))


def check(settings: Settings) -> Settings:
    """The same settings, or an InputError that names the first one out of its range."""
    for name, (expected, fine) in RULES.items():
        value = getattr(settings, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (number and fine(value)):
            raise InputError(f"{flag(name)} {value!r}: expected {expected}")
    for name, kind in get_type_hints(Settings).items():
        choices = [choice for part in (kind, *get_args(kind)) if get_origin(part) is Literal for choice in get_args(part)]
        value = getattr(settings, name)
        if choices and value is not None and value not in choices:
            raise InputError(f"{flag(name)} {value!r}: expected one of {', '.join(choices)}")
    if settings.steps is not None and settings.epochs is not None:
        raise InputError(f"--steps {settings.steps} and --epochs {settings.epochs}: give one of the two")
    return settings


class Plan(NamedTuple):
    """The settings that suit a text, where the user did not choose."""

    hidden: int
    dropout: float
    batch: int
    length: int
    steps: int
    learning_rate: float


def choose(settings: Settings, mode: str, targets: int, batches: Callable[[int, int], int]) -> Plan:
    """The plan for a text of so many targets; `batches(batch, length)` counts the batches of one pass."""
    large = bisect.bisect([20_000, 200_000], targets)  # 0, 1 or 2
    hidden = settings.hidden or (64, 128, 256)[large]
    dropout = (0.3, 0.3, 0.2)[large] if settings.dropout is None else settings.dropout
    batch = settings.batch or (32, 64, 128)[large]
    length = settings.length or (256 if mode == "lines" else 64)
    if settings.epochs is not None:
        steps = math.ceil(settings.epochs * batches(batch, length))
    else:
        steps = settings.steps or (1500, 3000, 4000)[large]
    return Plan(hidden, dropout, batch, length, steps, settings.learning_rate or RATES[settings.optimizer])
