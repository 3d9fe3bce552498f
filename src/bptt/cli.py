"""The command line: a thin shell over the package; bad input is one line on standard error and exit code 2."""

import dataclasses
import io
import itertools
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from bptt import __version__, textbook
from bptt.errors import InputError
from bptt.run.language_model import load
from bptt.run.settings import Settings, check
from bptt.run.training import TrainingStopped, fit
from bptt.text import corpus, vocabulary

BackendName = Literal["auto", "numpy", "cupy", "torch", "jax", "strict"]
Text = Annotated[str, Parameter(allow_leading_hyphen=True)]

app = App(
    name="bptt",
    version=__version__,
    help="Train small recurrent language models on text, one character at a time, and write with them.",
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
    if settings.out is None:
        settings = dataclasses.replace(settings, out=free_folder(text))
    trained = fit(text, check(settings), say)
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
    say("\n".join(model.sample(count, temperature=temperature, seed=seed, prompt=prompt, length=length)))
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
    warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that cannot print a character shows ? in its place
    try:
        return int(app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0)
    except (InputError, CycloptsError) as error:
        complain(" ".join(str(error).split()))
        return 2
    except TrainingStopped as error:
        complain(str(error))
        return 130 if "interrupted" in str(error) else 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def say(line: str) -> None:
    """Print for people and pipes alike, at once."""
    print(line, flush=True)


def complain(line: str) -> None:
    """One line on standard error."""
    print(f"bptt: {line}", file=sys.stderr)


def free_folder(text: str) -> Path:
    """A folder below runs/ named after a text, with a number if there is one already."""
    stem = "stdin" if text == "-" else Path(text).stem or "text"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(folder for folder in (Path("runs") / name for name in names) if not folder.exists())


if __name__ == "__main__":
    sys.exit(main())
