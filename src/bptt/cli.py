"""The command line: a thin shell over the package; bad input is one line on standard error and exit code 2."""

import contextlib
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import cyclopts
from cyclopts import App, CycloptsError, Parameter, Token, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from bptt import __version__, textbook
from bptt import backend as backends
from bptt.errors import InputError
from bptt.run.language_model import load
from bptt.run.progress import printable
from bptt.run.settings import Settings, check, flag, nearest
from bptt.run.training import Diverged, fit
from bptt.text import corpus, vocabulary


def converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """The value of what was typed after a flag; cyclopts alone would round 8.5 to a whole number."""
    if kind not in (int, int | None):
        return cyclopts.convert(kind, tokens)
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


class MistakenFlag(CycloptsError):
    """A flag that the command does not have, in the place of a text; `explain` has the words for it."""


def refuse_flag(kind: Any, text: str) -> None:
    """Raise an error for a misspelt flag in the place of a text: of words that begin with a hyphen, only - is a text."""
    if text.startswith("-") and text != "-":
        raise MistakenFlag(msg=text)


if TYPE_CHECKING:
    Name = str
    Type = str
else:  # the words that the settings take
    Name, Type = (get_type_hints(Settings)[name] for name in ("backend", "dtype"))

BackendName = Annotated[Name, Parameter(help="Array library; auto is CuPy where a CUDA device answers, else NumPy.")]
Require = Annotated[bool, Parameter(help="Fail, rather than fall back to NumPy, where the backend cannot run.")]
Dtype = Annotated[Type | None, Parameter(help="Floating-point type of the arithmetic; by default as the model was trained.")]
Text = Annotated[str, Parameter(allow_leading_hyphen=True, validator=refuse_flag)]

app = App(
    name="bptt",
    version=__version__,
    help="Train small recurrent language models on text, one character at a time, and write with them.",
    default_parameter=Parameter(converter=converted, negative=()),
    suppress_keyboard_interrupt=False,
)


@app.command
def train(text: Text = "dinosaurs", /, *, settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> int:
    """Train a model on a text and save it.

    Parameters
    ----------
    text
        A file, - for standard input, or a built-in text: dinosaurs or python-help.
    settings
        One flag for each.
    """
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # keeps the best model, too
    trained = fit(text, check(settings), say, Path("runs"))
    if "unsaved" in trained.record:
        return 5
    return {"interrupted": 130, "diverged": 3}.get(trained.record["stopped"], 0)


@app.command
def sample(  # noqa: D417  # BackendName and the like bring their help
    run: Path,
    /,
    *,
    count: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    prompt: str = "",
    length: int | None = None,
    backend: BackendName = "auto",
    require_backend: Require = False,
    dtype: Dtype = None,
) -> int:
    """Write new texts with a saved model.

    Parameters
    ----------
    run
        The folder of the model.
    count
        How many texts.
    temperature
        Below 1 more likely characters are preferred, above 1 less; 0 takes the most likely one.
    seed
        Another seed gives other texts.
    prompt
        What every text begins with.
    length
        New characters at most, after the prompt; by default 200 for lines and 500 for a stream.
    """
    model = load(run, backend=backend, dtype=dtype, require_backend=require_backend or None)
    texts = model.sample(count, temperature=temperature, seed=seed, prompt=prompt, length=length)
    text = ("\n" if model.mode == "lines" else "\n\n").join(texts)
    say(printable(text, "\n\t") if sys.stdout and sys.stdout.isatty() else text)
    return 0


@app.command
def evaluate(  # noqa: D417
    run: Path,
    text: Text,
    /,
    *,
    backend: BackendName = "auto",
    require_backend: Require = False,
    dtype: Dtype = None,
) -> int:
    """Measure how well a saved model predicts a text.

    Parameters
    ----------
    run
        The folder of the model.
    text
        A file, - for standard input, or a built-in text: dinosaurs or python-help.
    """
    model = load(run, backend=backend, dtype=dtype, require_backend=require_backend or None)
    source = corpus.read(text, "bytes" if model.vocabulary.symbols is None else "characters")
    try:
        result = model.evaluate(source.text)
    except InputError as error:
        raise InputError(f"{source.shown}: {error}") from None
    say(str(result))
    numbers = {name: getattr(result, name) for name in ("nats_per_char", "bits_per_char", "perplexity", "characters")}
    say(json.dumps(numbers))
    return 0


@app.command(name="textbook")
def run_textbook(  # noqa: D417
    *, data: Text = "dinosaurs", iterations: int = 35000, backend: BackendName = "numpy", require_backend: Require = False
) -> int:
    """Train as the course does, by the functions of bptt.textbook, and print what the course prints.

    Parameters
    ----------
    data
        A file of names, one per line, - for standard input, or a built-in text.
    iterations
        Names to learn from, one at a time.
    """
    if iterations < 1:
        raise InputError(f"--iterations {iterations}: expected at least 1")
    if require_backend:
        backends.select(backend, "float64", require=True)
    text = str(corpus.read(data).text).lower()
    symbols = vocabulary.characters(text).symbols or ()
    ix_to_char = dict(enumerate(symbols))
    char_to_ix = {character: ix for ix, character in ix_to_char.items()}
    with printing():
        textbook.model(text, ix_to_char, char_to_ix, num_iterations=iterations, vocab_size=len(symbols), backend=backend)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0, 2 for bad input or output that cannot be written, 3 for a diverged run, 5 for a model that could not be saved where it
    should be, 130 after Ctrl-C.
    """
    unwritten.clear()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that cannot print a character shows ? in its place
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = warn
        code = attempt(arguments)
    with printing():
        print(end="", flush=True)
    for error in unwritten:
        if not isinstance(error, BrokenPipeError):
            code = complain(f"cannot write to standard output: {error.strerror or error}", code or 2)
    return code


def attempt(arguments: list[str] | None) -> int:
    """The exit code of a command, with one line for whatever goes wrong."""
    try:
        return int(app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0)
    except InputError as error:
        return complain(str(error), 2)
    except CycloptsError as error:
        return complain(explain(error), 2)
    except Diverged as error:
        return complain(str(error), 3)
    except MemoryError as error:
        return complain(f"out of memory: {error}: try a smaller --hidden, --layers, --batch, --length or --count", 2)
    except KeyboardInterrupt as error:
        return complain(str(error) or "interrupted", 130)
    except OSError as error:
        words = sys.argv[1:] if arguments is None else arguments
        if words and not {"--help", "-h", "--version"} & set(words):
            return complain(str(error), 2)
        with printing():  # the help could not be printed
            raise
        return 0


def explain(error: CycloptsError) -> str:
    """What is wrong with the words that were typed."""
    if isinstance(error, UnknownOptionError):
        word = error.token.keyword or error.token.value
    elif isinstance(error, MistakenFlag):
        word = str(error)
    elif isinstance(error, UnknownCommandError | UnusedCliTokensError):
        word = (error.unused_tokens or [""])[0]
    else:
        return str(error)
    command = (error.command_chain or [""])[0]
    if word.startswith("-") and word != "-":
        arguments = app[command].assemble_argument_collection() if command else []
        flags = ["--help", "--version", *(name for argument in arguments for name in argument.names)]
        near = nearest(plain(word), [plain(name) for name in flags if name.startswith("--")])
        return f"Unknown option: {word}. " + (f"Did you mean {flag(near)}?" if near else "Ask --help for all.")
    if command and word:
        return f"unexpected {word!r}" + ": one text at a time (cat a b | bptt train -)" * (command == "train")
    return str(error)


def plain(typed: str) -> str:
    """The name of the setting that a flag stands for."""
    return typed.partition("=")[0].lstrip("-").replace("-", "_")


unwritten: list[OSError] = []  # why standard output was given up


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Give up standard output, what waits in its buffer included, where it cannot be written; `main` says so in the end."""
    try:
        yield
    except OSError as error:
        unwritten.append(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """Print for people and pipes alike, at once; the work goes on where that fails, as when a reader leaves."""
    with printing():
        print(line, flush=True)


def complain(line: str, code: int = 0) -> int:
    """One line on standard error; gives the exit code back."""
    with contextlib.suppress(OSError):
        print(f"bptt: {' '.join(line.split())}", file=sys.stderr)
    return code


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line for a warning, without the line of code that it comes from."""
    complain(f"warning: {message}")
