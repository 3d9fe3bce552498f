"""What a saved model is good for: `bptt sample` and `bptt evaluate`."""

import json
import sys
from pathlib import Path

from bptt.cli.console import say
from bptt.cli.parser import BackendName, Dtype, Require, Text, app
from bptt.errors import InputError
from bptt.run.language_model import load
from bptt.run.progress import printable
from bptt.text import corpus


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
