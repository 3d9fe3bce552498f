"""Checks of values from a user: numbers, times and paths, each with a one-line error that says what is expected."""

import codecs
import contextlib
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bptt.errors import InputError

# a time, as a number and a unit of so many seconds
DURATION = re.compile(r"(\d+\.?\d*|\.\d+)([smh])", re.ASCII)
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}

Rule = tuple[str, Callable[[Any], Any], Callable[[Any], bool]]  # what is expected, in words, as a type and as a test
MAX_COUNT = 1_000_000_000
COUNT: Rule = (f"a whole number from 1 to {MAX_COUNT:,}", int, lambda value: 1 <= value <= MAX_COUNT)
LAYERS: Rule = ("a whole number from 1 to 1000", int, lambda value: 1 <= value <= 1000)
EVERY: Rule = (
    "a whole number from 1 to 1,000,000,000, or sqrt",
    lambda value: "sqrt" if value == "sqrt" else int(value),
    lambda value: value == "sqrt" or 1 <= value <= 1_000_000_000,
)
SEED: Rule = ("a whole number, at least 0", int, lambda value: value >= 0)
WHOLE: Rule = ("a whole number from 0 to 1,000,000,000", int, lambda value: 0 <= value <= 1_000_000_000)
BETA: Rule = ("a number above 0 and below 1", float, lambda value: 0 < value < 1)
FRACTION: Rule = ("a fraction from 0 to 1", float, lambda value: 0 <= value <= 1)
SHARE: Rule = ("a fraction, at least 0 and below 1", float, lambda value: 0 <= value < 1)
SHARE_OR_FILE: Rule = (f"{SHARE[0]}, or the path of a file (./0.1 for one that is called 0.1)", *SHARE[1:])
PASSES: Rule = ("a number above 0, at most 1e9", float, lambda value: 0 < value <= 1e9)
ABOVE_ZERO: Rule = ("a finite number above 0", float, lambda value: 0 < value < math.inf)
NOT_BELOW_ZERO: Rule = ("a finite number, at least 0", float, lambda value: 0 <= value < math.inf)


# codecs of Python for parts of other formats, some of which take time by the square of a text
NO_ENCODINGS = ("undefined", "charmap", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7")


def check_number(name: str, rule: Rule, value: Any) -> Any:
    """The value as a plain number, or a word that the rule allows; an InputError where it does not keep to the rule."""
    expected, kind, fine = rule
    try:
        plain = kind(value)
        if not isinstance(value, bool) and plain == value and fine(plain):  # a str equals no number, a NaN not even itself
            return plain
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{name} {value!r}: expected {expected}")


def check_duration(name: str, value: Any) -> str:
    """The value as a time above 0 with its unit, or an InputError where it is none."""
    if isinstance(value, str) and DURATION.fullmatch(value) and 0 < duration_seconds(value) < math.inf:
        return str(value)
    raise InputError(f"{name} {value!r}: expected a number above 0 and its unit, s, m or h, as in 30s, 5m or 1.5h")


def duration_seconds(duration: str) -> float:
    """The seconds of a time such as 90s, 5m or 1.5h."""
    return float(duration[:-1]) * UNIT_SECONDS[duration[-1]]


def check_path(name: str, value: Any) -> Path:
    """The value as a path, or an InputError where it is none."""
    if isinstance(value, str | os.PathLike) and value != "":  # Path("") is the current folder
        return Path(os.fsdecode(value))
    raise InputError(f"{name} {value!r}: expected a path")


def check_text(name: str, value: Any) -> str:
    """The value as a str that is not empty, or an InputError where it is none."""
    if isinstance(value, str) and value:
        return str(value)
    raise InputError(f"{name} {value!r}: expected a text of at least one character")


def check_device(name: str, value: Any) -> str:
    """The value, a name or an index, as a str that is not empty, or an InputError where it is neither."""
    if (isinstance(value, str) and value) or (type(value) is int and value >= 0):
        return str(value)
    raise InputError(f"{name} {value!r}: expected a device in the words of the library, as cuda:1, or its index")


def check_encoding(name: str, value: Any) -> str:
    """The usual name of an encoding of texts, or an InputError where it is none."""
    try:
        with contextlib.suppress(UnicodeError):
            b"a".decode(value)  # refuses those that are not for texts, as hex
        usual = codecs.lookup(value).name
    except (LookupError, TypeError, ValueError):
        usual = "undefined"
    if usual in NO_ENCODINGS:
        raise InputError(f"{name} {value!r}: expected an encoding of texts that Python knows, as utf-8, cp1252 or gb18030")
    return usual


def names_a_file(value: Any) -> bool:
    """Whether a value is a path and no number: text that reads as a number is none, here as on the command line."""
    if not isinstance(value, str):
        return isinstance(value, os.PathLike)
    try:
        float(value)
    except ValueError:
        return bool(value)
    return False
