"""Parsing of the command line: the app, types of flags, and messages about mistakes."""

import contextlib
import decimal
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import cyclopts
from cyclopts import (
    App,
    ArgumentCollection,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from bptt import __version__
from bptt.backend import BackendName, DtypeName
from bptt.config import toml
from bptt.config.settings import closest_match
from bptt.errors import flag
from bptt.nn.cells import Cell


def converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert the value of a flag; cyclopts would round 8.5 to a whole number."""
    if tokens and tokens[0].keyword == "--separator" and tokens[0].source == "cli":
        return unescaped(tokens[0].value)
    kinds = (kind, *get_args(kind))
    if Cell in kinds:  # the name of one, or its file, which `settings.validate` loads
        return expand_home(tokens[0].value)
    if int not in kinds:
        return converted_path(kind, tokens) if Path in kinds else cyclopts.convert(kind, tokens)
    typed, words = tokens[0].value, [word for part in get_args(kind) for word in get_args(part)]
    try:
        return typed if typed in words else whole_number(typed)
    except ValueError:
        raise ValueError(" or ".join([f"{typed!r} is not a whole number", *words])) from None


def whole_number(typed: str) -> int:
    """The number that digits stand for, with _ between them or with an exponent, as in 10000, 10_000 or 1e4."""
    with contextlib.suppress(ValueError):
        return int(typed)
    number = float(typed)  # digits may be lost: a large number is written without an exponent
    if not number.is_integer() or abs(number) >= MAX_FLOAT or decimal.Decimal(typed) != int(number):
        raise ValueError(typed)
    return int(number)


def unescaped(typed: str) -> str:
    r"""A text with the characters that \n, \t, \r, \\, \x1e or \u2028 stand for."""
    named = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    return ESCAPE.sub(lambda match: named.get(match[1]) or chr(int(match[1][1:], 16)), typed)


def converted_path(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert what names a file or a folder."""
    return cyclopts.convert(kind, [token.evolve(value=expand_home(token.value)) for token in tokens])


def expand_home(path: str) -> str:
    """Replace a leading ~/ by the home folder, as shells do, but neither after a = nor in quotes."""
    return os.path.expanduser(path) if path.startswith("~/") and "\n" not in path else path  # with a newline it is a text


def shown_default(value: Any) -> Any:
    """The default value that the help shows: none for a switch, which is off unless its text says more, or for None."""
    return None if value is None or isinstance(value, bool) else value


class MistakenFlag(CycloptsError):
    """An unknown flag in the place of a text, or of the value of the flag `after`; `explain` has the message."""

    def __init__(self, word: str, after: str | None) -> None:
        super().__init__(msg=word)
        self.after = after


BackendFlag = Annotated[BackendName, Parameter(help="Array library; auto is CuPy if a CUDA device responds, else NumPy.")]
DeviceFlag = Annotated[
    str | None, Parameter(help="Device in the words of the array library, such as cuda:1. By default the one that it prefers.")
]
RequireFlag = Annotated[
    bool, Parameter(help="Stop with an error if the backend cannot be used, instead of falling back to NumPy.")
]
DtypeFlag = Annotated[
    DtypeName | None, Parameter(help="Floating-point type of the arithmetic. By default that of the training.")
]
CellFile = Annotated[
    Path | None,
    Parameter(name="--cell", help="Python file of the model's cell, which is executed. Built-in cells need none."),
]
Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object per line, for other programs.")]
Prompt = Annotated[str, Parameter(allow_leading_hyphen=True)]  # `_refuse_flags` allows only what cannot be a mistake
PromptFile = Annotated[Path, Parameter(allow_leading_hyphen=True)]  # - is standard input
Text = Annotated[str, Parameter(allow_leading_hyphen=True, converter=converted_path)]

Encoding = Annotated[
    str, Parameter(help="Encoding of the text, such as cp1252, gb18030 or utf-16. By default that of the training text.")
]
Separator = Annotated[str, Parameter(help=r"Text between two records, as in '\n---\n'. By default that of the training text.")]
Glob = Annotated[str, Parameter(help="Files of a folder to read, as in '*.py'.")]
MAX_FLOAT = 1 << 53  # from which on a float may be another whole number than the typed one
ESCAPE = re.compile(r"\\([ntr\\]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")

RUNS = Path("runs")
COMMANDS = {  # in the order of use: where each is, for it is imported when it is called or its help is shown
    "train": "train:train",
    "sample": "inference:sample",
    "next": "inference:following",
    "score": "evaluation:score",
    "evaluate": "evaluation:evaluate",
    "report": "report:report",
    "runs": "runs:runs",
    "compare": "compare:compare",
    "export": "export:export",
    "import": "export:import_",
    "check": "check:check",
    "cache": "cache:cache",
    "info": "info:info",
    "help": "help:show_help",
    "textbook": "textbook:run_textbook",
    "--install-completion": "completion:install_completion",
}

app = App(
    name="bptt",
    version=__version__,
    help="Train small recurrent language models on text, one character at a time, and write with them.",
    default_parameter=Parameter(converter=converted, negative=(), show_default=shown_default),
    suppress_keyboard_interrupt=False,
)


for _name, _place in COMMANDS.items():
    app.command(f"bptt.cli.{_place}", name=_name)


def import_command(words: Sequence[str]) -> None:
    """Import the command that a command line begins with; else it is imported when it is called."""
    if words and words[0] in COMMANDS:
        app[words[0]]  # cyclopts imports it to return it


def parse(words: list[str] | None, began: float | None = None) -> Callable[[], Any]:
    """Return the command for the words (default: those of the process) with all its arguments.

    `explicit` of `bptt train` gets the settings that were typed or are in the TOML file, and the name of the text there;
    its `began` gets the time at which the process began.
    """
    explicit: dict[str, Any] = {}
    app.config = [
        _respell,
        functools.partial(_refuse_flags, sys.argv[1:] if words is None else words),
        functools.partial(_read_file, explicit),
    ]
    command, arguments, contexts = app.parse_args(words, exit_on_error=False, print_error=False)
    context = {"explicit": explicit, "began": began}
    return functools.partial(command, *arguments.args, **arguments.kwargs, **{name: context[name] for name in contexts})


def commands() -> list[str]:
    """The names of all commands, in the order of use."""
    return [name for name in COMMANDS if not name.startswith("-")]


def _respell(app: App, command: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Replace choices in another case, as in --cell GRU, by the choices themselves."""
    for argument in arguments:
        spelling = {choice.lower(): choice for choice in argument.get_choices(force=True) or ()}
        argument.tokens = [token.evolve(value=spelling.get(token.value.lower(), token.value)) for token in argument.tokens]


def _refuse_flags(words: Sequence[str], app: App, command: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raise an error for a misspelt flag in the place of a text.

    What begins with a hyphen is a text after --, after the = of a flag, or if it is - alone.
    """
    for argument in arguments:
        if argument.parameter.allow_leading_hyphen:
            for token in argument.tokens:
                meant = token.value in no_flags(words) if token.keyword is None else f"{token.keyword}={token.value}" in words
                if token.value.startswith("-") and token.value != "-" and not meant:
                    raise MistakenFlag(token.value, token.keyword)


def no_flags(words: Sequence[str]) -> Sequence[str]:
    """Return the words from -- on, which are no flags."""
    return words[words.index("--") :] if "--" in words else []


def _read_file(explicit: dict[str, Any], app: App, command: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Let `bptt train` take the settings that were not typed from a TOML file, and list all of these in `explicit`."""
    if command != ("train",):
        return
    typed = {argument.field_info.name: argument.tokens[0].value for argument in arguments if argument.tokens}
    explicit.update(typed)
    named = expand_home(typed["config"]) if "config" in typed else None
    path = toml.find_file(named, new="resume" not in typed)
    if path is not None:
        table = toml.read_beneath(typed, path)
        explicit.update(table | typed)
        flags = {flag(name).removeprefix("--"): _as_typed(value) for name, value in table.items() if name != "text"}
        cyclopts.config.Dict(flags, use_commands_as_keys=False, source=str(path))(app, command, arguments)


def _as_typed(value: Any) -> Any:
    """Return the value of a setting as it would be typed: a path that reads as a number begins with ./."""
    return f".{os.sep}{value}" if isinstance(value, Path) and not value.is_absolute() else value


def explain(error: CycloptsError, words: Sequence[str]) -> str:
    """Return the message for a mistake in the words of a command line."""
    if isinstance(error, UnknownOptionError):
        word = error.token.keyword or error.token.value
    elif isinstance(error, MistakenFlag):
        word = str(error)
    elif isinstance(error, UnknownCommandError | UnusedCliTokensError):
        word = (error.unused_tokens or [""])[0]
    elif isinstance(error, MissingArgumentError):
        return _missing(error, words)
    elif isinstance(error, CoercionError) and error.token and error.target_type is bool:
        return f"{error.token.keyword} {error.token.value!r}: expected true or false"
    else:
        return str(error)
    command = (error.command_chain or [""])[0]
    is_flag = words.count(word) != no_flags(words).count(word) or word not in words
    if word.startswith("-") and word != "-" and is_flag:
        all_flags = f"{' '.join(filter(None, ('bptt', command)))} --help lists all options."
        arguments = app[command].assemble_argument_collection() if command else []
        general = ("--help", "--version") if command else app
        flags = [*general, *(name for argument in arguments for name in argument.names)]
        names = [setting_name(name) for name in flags if name.startswith("--")]
        positive, off = [name for name in names if not name.startswith("no_")], setting_name(word).removeprefix("no_")
        if f"no_{off}" in names and setting_name(word) != off:  # cyclopts knows such a name for what is on or off
            return f"Unknown option: {word}. Did you mean {flag(off)}=false?"
        if isinstance(error, MistakenFlag) and setting_name(word) in names:  # bptt evaluate RUN --text --dynamic
            return f"{word} is in the place of a text: expected a file, - for standard input, or a built-in text"
        near = closest_match(setting_name(word), positive)
        if near or not isinstance(error, MistakenFlag):
            return f"Unknown option: {word}. " + (f"Did you mean {flag(near)}?" if near else all_flags)
        if error.after:
            return _flaglike(error.after, word)
        return f"Unknown option: {word}. {all_flags} If it is no option, write -- before it."
    if not command:
        return unknown_command(word)
    if word:
        return f"unexpected {word!r}"
    return str(error)


def unknown_command(word: str) -> str:
    """Return the message for a word that is no command."""
    near = closest_match(word, commands())
    hint = f"Did you mean bptt {near}?" if near else f"The commands are {', '.join(commands())}."
    return f"Unknown command: {word!r}. {hint}"


def _missing(error: MissingArgumentError, words: Sequence[str]) -> str:
    """Return the message for a flag without a value, perhaps because its value looks like a flag."""
    names = error.argument.names if error.argument else ()
    for name, value in itertools.pairwise(words):
        if name in names and value.startswith("-"):
            return _flaglike(name, value)
    if not names or any(name in words for name in names):
        return str(error)
    return f"{names[0]} is missing: bptt {' '.join(error.command_chain or ())} --help describes it"


def _flaglike(name: str, value: str) -> str:
    """Return the message for a value of a flag that looks like another flag."""
    return f"{name} requires a value: {value} looks like a flag; if it is the value, write {name}={value}"


def setting_name(typed: str) -> str:
    """Return the name of the setting of a flag."""
    return typed.partition("=")[0].lstrip("-").replace("-", "_")
