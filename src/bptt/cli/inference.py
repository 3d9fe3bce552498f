"""The commands that use a saved model: `bptt sample`, `bptt next`, `bptt score` and `bptt evaluate`."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bptt.cli.console import complain, print_line
from bptt.cli.parser import BackendFlag, CellFile, DtypeFlag, Encoding, Prompt, RequireFlag, Text, app
from bptt.config import rules
from bptt.data import corpus
from bptt.data.source import recorded_reading
from bptt.errors import InputError
from bptt.inference import ensemble, scoring
from bptt.inference.ensemble import Ensemble
from bptt.inference.language_model import LanguageModel, load
from bptt.inference.request import Unknown
from bptt.inference.scoring import Score

FIGURES = ("nats_per_char", "bits_per_char", "perplexity", "characters")  # of an `Evaluation`, as JSON has them
PIECE = 4096  # characters of a line that are printed at a time

Json = Annotated[bool, Parameter(name="--json", help="Print a JSON object a line, for other programs.")]


@app.command
def sample(  # noqa: D417  # BackendFlag and the like bring their help
    run: Path,
    /,
    *,
    count: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    prompt: str = "",
    unknown: Unknown = "error",
    length: int | None = None,
    stop: str | None = None,
    novel: bool = False,
    backend: BackendFlag = "auto",
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    """Write new texts with a saved model; a single one is shown while it is written.

    Parameters
    ----------
    run
        A run, of which the best checkpoint is taken, or one checkpoint, or a saved model.
    count
        How many texts.
    temperature
        Below 1 more likely characters are preferred, above 1 less; 0 takes the most likely one.
    top_k
        Choose among so many of the most likely characters only; by default among all.
    top_p
        Choose among the fewest characters whose probability reaches this share only; by default among all.
    seed
        Another seed gives other texts.
    prompt
        What every text begins with.
    unknown
        What to do with characters of the prompt that the model does not know: complain, or skip them.
    length
        New characters at most, after the prompt, or bytes of a model of bytes; by default 200 for lines and 500 for a stream.
    stop
        End a text before this string, where that is newly written.
    novel
        Leave out texts that the training text contains, repeated ones and blank ones; there may be fewer than asked for.
    """
    model = load(run, backend=backend, dtype=dtype, require_backend=require_backend or None, cell=cell)
    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    how |= {"prompt": prompt, "unknown": unknown, "length": length, "stop": stop}
    if count == 1 and not novel:
        show(model.stream(**how))
        return 0
    texts = model.sample(count, **how, novel=novel)
    if texts:
        separator = recorded_reading(model.record, model.mode).separator
        print_line(("\n" if model.mode == "lines" else separator or "\n\n").join(texts))
    if len(texts) < count:
        complain(f"{len(texts)} of {count} texts are new: try a higher --temperature")
    return 0


@app.command(name="next")
def following(  # noqa: D417
    run: Path,
    prompt: Prompt = "",
    /,
    *,
    top: int = 10,
    temperature: float = 1.0,
    unknown: Unknown = "error",
    as_json: Json = False,
    backend: BackendFlag = "auto",
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    r"""Show what may come next: characters, their probabilities and the nats of these, the most likely first.

    In a model of lines \'\\n\' is the end of the line.

    Parameters
    ----------
    run
        A run, of which the best checkpoint is taken, or one checkpoint, or a saved model.
    prompt
        The text so far; none for the beginning of a text.
    top
        How many characters to show.
    temperature
        Below 1 more likely characters are preferred, above 1 less; 0 takes the most likely one.
    unknown
        What to do with characters of the prompt that the model does not know: complain, or skip them.
    """
    top = rules.check_number("--top", rules.COUNT, top)
    model = load(run, backend=backend, dtype=dtype, require_backend=require_backend or None, cell=cell)
    for symbol, p in model.next(prompt, temperature=temperature, unknown=unknown)[:top]:
        nats = -math.log(p) + 0.0 if p else None
        if as_json:
            print_line(json.dumps({"character": symbol, "probability": p, "nats": nats}))
        else:
            print_line(f"{quoted(symbol)}\t{p:.6f}\t{math.inf if nats is None else nats:.4f}")
    return 0


@app.command
def score(  # noqa: D417
    run: Path,
    text: Text = "-",
    /,
    *,
    per_char: bool = False,
    unknown: Unknown = "error",
    encoding: Encoding = "utf-8",
    as_json: Json = False,
    backend: BackendFlag = "auto",
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    """Show how likely lines are, each by itself: nats, nats per character, and the line.

    Nats are -log p, so the most likely line has the fewest. A model of lines counts the end of a line as a character; for a
    model of a stream a line is the beginning of a text. Blank lines are left out. The sum is on standard error.

    Parameters
    ----------
    run
        A run, of which the best checkpoint is taken, or one checkpoint, or a saved model.
    text
        A file, - for standard input, or a built-in text: dinosaurs or python-help.
    per_char
        Show each character instead: nats, number of the line, place in the line, and the character.
    unknown
        What to do with a line that has characters the model does not know: complain, or skip it.
    """
    model = load(run, backend=backend, dtype=dtype, require_backend=require_backend or None, cell=cell)
    lines = characters = 0
    nats = 0.0
    reading = recorded_reading(model.record, model.mode, rules.check_encoding("--encoding", encoding))
    for line in model.scores(scoring.read_lines(text, model.vocabulary, reading), unknown=unknown):
        lines, characters, nats = lines + 1, characters + len(line.costs), nats + line.nats
        if not all(print_line(piece, end="") for piece in _row(line, per_char=per_char, as_json=as_json)):
            return 0
    if not characters:
        raise InputError("nothing to score: expected lines that are more than white space, of characters that the model knows")
    mean = nats / characters
    complain(f"{lines:,} line{'s' * (lines != 1)}, {characters:,} characters, {nats:.4f} nats, {mean:.4f} per character")
    return 0


def _row(line: Score, *, per_char: bool, as_json: bool) -> Iterator[str]:
    """What is printed of a line, in pieces, as it may have millions of characters."""
    pairs = line.pairs() if per_char else iter(())
    pieces = enumerate(iter(lambda: list(islice(pairs, PIECE)), []))
    if as_json:
        sums = {"line": line.number, "text": line.text, "nats": line.nats, "nats_per_char": line.nats_per_char}
        yield json.dumps(sums)[:-1] + (', "each": [' if per_char else "}\n")
        for k, piece in pieces:
            yield ", " * (k > 0) + json.dumps(piece)[1:-1]
        yield "]}\n" if per_char else ""
    elif per_char:
        for k, piece in pieces:
            numbered = enumerate(piece, 1 + k * PIECE)
            yield "".join(f"{nats:.4f}\t{line.number}\t{i}\t{quoted(symbol)}\n" for i, (symbol, nats) in numbered)
    else:
        yield f"{line.nats:.4f}\t{line.nats_per_char:.4f}\t{line.text}\n"


@app.command
def evaluate(  # noqa: D417
    run: Path,
    /,
    *others: Text,
    text: Text | None = None,
    encoding: Encoding = "utf-8",
    dynamic: bool = False,
    backend: BackendFlag = "auto",
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    """Measure how well a saved model predicts a text: bptt evaluate RUN TEXT.

    Several models predict together, as an ensemble, by the mean of their probabilities: bptt evaluate RUN RUN --text TEXT.

    Parameters
    ----------
    run
        A run, of which the best checkpoint is taken, or one checkpoint, or a saved model.
    others
        The text; with --text, more runs.
    text
        A file, - for standard input, or a built-in text: dinosaurs or python-help.
    dynamic
        Also measure how well a model predicts it that learns from each part of the text after predicting it (dynamic
        evaluation). The saved model does not change.
    """
    runs, text = _runs_and_text([str(run), *others], text)
    if dynamic and len(runs) > 1:
        raise InputError(f"--dynamic: {len(runs)} runs, expected one: a dynamic evaluation is that of one model")
    models = _load_each(runs, cell, backend=backend, dtype=dtype, require_backend=require_backend or None)
    ensemble.check(models, runs)
    reading = recorded_reading(models[0].record, models[0].mode, rules.check_encoding("--encoding", encoding))
    source = corpus.read(text, models[0].vocabulary, reading)
    try:
        result = Ensemble(models).evaluate(source)
    except InputError as error:
        raise InputError(f"{source.shown}: {error}") from None
    figures = {name: getattr(result, name) for name in FIGURES}
    if dynamic:
        adapted = models[0].evaluate(source, dynamic=True)
        print_line(f"dynamic evaluation: {adapted}; static: {result.nats_per_char:.4f} nats per character")
        figures["dynamic"] = {name: getattr(adapted, name) for name in FIGURES}
    else:
        print_line(str(result))
    print_line(json.dumps(figures))
    return 0


def _load_each(runs: list[str], cell: Path | None, **flags: Any) -> list[LanguageModel]:
    """Load the models; of several, those with a built-in cell do without `cell`."""
    if cell is None or len(runs) == 1:
        return [load(run, cell=cell, **flags) for run in runs]
    models = []
    for run in runs:
        try:
            models.append(load(run, **flags))
        except InputError:
            models.append(load(run, cell=cell, **flags))
    if not any(model.config.user_cell for model in models):
        raise InputError(f"--cell {cell}: all of these models have built-in cells: leave it out")
    return models


def _runs_and_text(words: list[str], text: str | None) -> tuple[list[str], str]:
    """The runs and the text that the words of `bptt evaluate` name: without --text, the second and last one is the text."""
    if text is not None:
        return words, text
    if len(words) != 2:
        raise InputError(f"{' '.join(words)}: expected RUN TEXT, or one or more runs and --text TEXT")
    if Path(words[1]).is_dir():
        raise InputError(f"{words[1]!r} is a folder, expected a file of text; for several runs, name the text with --text")
    return words[:1], words[1]


def show(pieces: Iterator[str]) -> None:
    """Print a text while it is generated, and end its line in any case."""
    try:
        for piece in pieces:
            if not print_line(piece, end=""):
                break
    finally:
        print_line("")


def quoted(symbol: str) -> str:
    """Quote a character, with a name for one that cannot be seen."""
    return repr(symbol) if len(symbol) == 1 else f"'{symbol}'"
