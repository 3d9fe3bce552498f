"""The command line: a thin shell over the package; bad input is one line on standard error and exit code 2."""

import dataclasses
import difflib
import io
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, CycloptsError, Parameter, Token

from bptt import __version__, textbook
from bptt.errors import InputError
from bptt.run.language_model import load
from bptt.run.settings import Settings, check, flag
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


def refuse_flag(kind: Any, text: str) -> None:
    """Raise an error for a misspelt flag in the place of a text: of words that begin with a hyphen, only - is a text."""
    if text.startswith("-") and text != "-":
        flags = [flag(field.name) for field in dataclasses.fields(Settings)]
        near = difflib.get_close_matches(text.partition("=")[0], flags, 1)
        raise CycloptsError(msg=f"Unknown option: {text}. " + (f"Did you mean {near[0]}?" if near else "Ask --help for all."))


BackendName = Literal["auto", "numpy", "cupy", "torch", "jax", "strict"]
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
        One flag each.
    """
    trained = fit(text, check(settings), say, Path("runs"))
    return {"interrupted": 130, "diverged": 3}.get(trained.record["stopped"], 0)


@app.command
def sample(
    run: Path,
    /,
    *,
    count: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    prompt: str = "",
    length: int | None = None,
    backend: BackendName = "auto",
    require_backend: bool = False,
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
        Characters at most; by default 200 for lines and 500 for a stream.
    backend
        Array library; auto is CuPy where a CUDA device answers, else NumPy.
    require_backend
        Fail, rather than fall back to NumPy, where the backend cannot run.
    """
    model = load(run, backend=backend, require_backend=require_backend or None)
    texts = model.sample(count, temperature=temperature, seed=seed, prompt=prompt, length=length)
    say(("\n" if model.mode == "lines" else "\n\n").join(texts))
    return 0


@app.command
def evaluate(
    run: Path,
    text: Text,
    /,
    *,
    backend: BackendName = "auto",
    require_backend: bool = False,
) -> int:
    """Measure how well a saved model predicts a text.

    Parameters
    ----------
    run
        The folder of the model.
    text
        A file, - for standard input, or a built-in text: dinosaurs or python-help.
    backend
        Array library; auto is CuPy where a CUDA device answers, else NumPy.
    require_backend
        Fail, rather than fall back to NumPy, where the backend cannot run.
    """
    model = load(run, backend=backend, require_backend=require_backend or None)
    source = corpus.read(text, "bytes" if model.vocabulary.symbols is None else "characters")
    result = model.evaluate(source.text)
    say(str(result))
    numbers = {name: getattr(result, name) for name in ("nats_per_char", "bits_per_char", "perplexity", "characters")}
    say(json.dumps(numbers))
    return 0


@app.command(name="textbook")
def run_textbook(*, data: Text = "dinosaurs", iterations: int = 35000, backend: BackendName = "numpy") -> int:
    """Train as the course does, by the functions of bptt.textbook, and print what the course prints.

    Parameters
    ----------
    data
        A file of names, one a line, - for standard input, or a built-in text.
    iterations
        Names to learn from, one at a time.
    backend
        Array library.
    """
    if iterations < 1:
        raise InputError(f"--iterations {iterations}: expected at least 1")
    text = str(corpus.read(data).text).lower()
    symbols = vocabulary.characters(text).symbols or ()
    ix_to_char = dict(enumerate(symbols))
    char_to_ix = {character: ix for ix, character in ix_to_char.items()}
    textbook.model(text, ix_to_char, char_to_ix, num_iterations=iterations, vocab_size=len(symbols), backend=backend)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 3 for a diverged run, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that cannot print a character shows ? in its place
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = warn
        try:
            code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            print(end="", flush=True)
            return int(code or 0)
        except (InputError, CycloptsError) as error:
            return complain(str(error), 2)
        except Diverged as error:
            return complain(str(error), 3)
        except MemoryError as error:
            return complain(f"out of memory: {error}: try a smaller --hidden, --layers, --batch, --length or --count", 2)
        except KeyboardInterrupt as error:
            return complain(str(error) or "interrupted", 130)
        except BrokenPipeError:
            drop_output()
            return 0
        except OSError as error:
            drop_output()
            return complain(f"cannot write to standard output: {error.strerror}", 2)


def say(line: str) -> None:
    """Print for people and pipes alike, at once; the work goes on where the reader of a pipe has left, as head does."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        drop_output()


def complain(line: str, code: int = 0) -> int:
    """One line on standard error; gives the exit code back."""
    print(f"bptt: {' '.join(line.split())}", file=sys.stderr)
    return code


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line for a warning, without the line of code that it comes from."""
    complain(f"warning: {message}")


def drop_output() -> None:
    """Send standard output nowhere from now on, what waits in its buffer included."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
