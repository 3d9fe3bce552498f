"""The commands that measure what a saved model predicts: `bptt score` and `bptt evaluate`."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bptt.cli.console import complain, print_line, quoted
from bptt.cli.parser import (
    BackendFlag,
    CellFile,
    DeviceFlag,
    DtypeFlag,
    Encoding,
    Glob,
    Json,
    RequireFlag,
    Separator,
    Text,
)
from bptt.cli.texts import as_source, in_one_field, reading_for, runs_and_texts
from bptt.data import corpus, dataset, new_symbols
from bptt.data.corpus import Corpus
from bptt.data.source import Reading
from bptt.data.vocabulary import Vocabulary
from bptt.display.cross_entropy import bits, in_words, nats_and_bits
from bptt.errors import InputError, UnknownCharacters
from bptt.inference import ensemble, scoring
from bptt.inference.ensemble import Ensemble
from bptt.inference.language_model import LanguageModel, load
from bptt.inference.request import Unknown
from bptt.inference.scoring import Score

FIGURES = ("nats_per_char", "bits_per_char", "perplexity", "characters")  # of an `Evaluation`, as JSON has them
PIECE = 4096  # characters of a line that are printed at a time


def score(  # noqa: D417
    run: Path,
    /,
    *text: Text,
    per_char: bool = False,
    unknown: Unknown = "error",
    encoding: Encoding | None = None,
    separator: Separator | None = None,
    glob: Glob = "*",
    as_json: Json = False,
    backend: BackendFlag = "auto",
    device: DeviceFlag = None,
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    """Print how likely each line or record of a text is, according to a saved model.

    The columns are nats, nats per character, bits per character, and the line or record, with newlines and tabs escaped. Nats
    are -log p, so the most likely line has the fewest; p is the probability of the model, at temperature 1. The end of a line
    or record counts as a character. A model of a stream reads each line as the beginning of a text. Blank lines are left out.
    The sum goes to standard error.

    Parameters
    ----------
    run
        A run (its best checkpoint), one checkpoint, or a saved model.
    text
        Files, folders or patterns, - for standard input (the default), or a built-in text: dinosaurs or python-help.
    per_char
        Print each character instead: nats, bits, number of the line, position in the line, and the character.
    unknown
        Lines with characters that the model does not know: stop with an error, or skip them.
    """
    model = load(run, backend=backend, device=device, dtype=dtype, require_backend=require_backend or None, cell=cell)
    lines = characters = 0
    nats = 0.0
    reading = reading_for(model, encoding, separator, glob)
    for line in model.scores(scoring.read_lines(as_source(text or ("-",), glob), model.vocabulary, reading), unknown=unknown):
        lines, characters, nats = lines + 1, characters + len(line.costs), nats + line.nats
        if not all(print_line(piece, end="") for piece in _row(line, per_char=per_char, as_json=as_json)):
            return 0
    if not characters:
        raise InputError("nothing to score: expected lines that are more than white space, of characters that the model knows")
    mean = nats / characters
    unit, symbols = "record" if model.mode == "records" else "line", model.vocabulary.kind
    each = f"{mean:.4f} nats per {symbols.removesuffix('s')} ({bits(mean):.4f} bits)"
    complain(f"{lines:,} {unit}{'s' * (lines != 1)}, {characters:,} {symbols}, {nats_and_bits(nats)}, {each}")
    return 0


def _row(line: Score, *, per_char: bool, as_json: bool) -> Iterator[str]:
    """What is printed of a line, in pieces, as it may have millions of characters."""
    pairs = line.pairs() if per_char else iter(())
    pieces = enumerate(iter(lambda: list(islice(pairs, PIECE)), []))
    if as_json:
        sums = {"line": line.number, "text": line.text, "nats": line.nats, "nats_per_char": line.nats_per_char}
        sums["bits_per_char"] = bits(line.nats_per_char)
        yield json.dumps(sums)[:-1] + (', "each": [' if per_char else "}\n")
        for k, piece in pieces:
            yield ", " * (k > 0) + json.dumps(piece)[1:-1]
        yield "]}\n" if per_char else ""
    elif per_char:
        for k, piece in pieces:
            numbered = enumerate(piece, 1 + k * PIECE)
            yield "".join(
                f"{nats:.4f}\t{bits(nats):.4f}\t{line.number}\t{i}\t{quoted(symbol)}\n" for i, (symbol, nats) in numbered
            )
    else:
        yield f"{line.nats:.4f}\t{line.nats_per_char:.4f}\t{bits(line.nats_per_char):.4f}\t{in_one_field(line.text)}\n"


def evaluate(  # noqa: D417
    run: Path,
    /,
    *others: Text,
    text: Text | None = None,
    dynamic: bool = False,
    unknown: Unknown = "error",
    encoding: Encoding | None = None,
    separator: Separator | None = None,
    glob: Glob = "*",
    backend: BackendFlag = "auto",
    device: DeviceFlag = None,
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    """Measure how well a saved model predicts a text, or several texts.

    Each line, record, or text of a stream is predicted by itself. With --text, several models predict together, as an ensemble:
    by the mean of their probabilities.

    Parameters
    ----------
    run
        A run (its best checkpoint), one checkpoint, or a saved model.
    others
        Files, folders or patterns, - for standard input, or a built-in text: dinosaurs or python-help; with --text, more runs.
    text
        The text of several runs: a file, a folder or a pattern, - for standard input, or a built-in text.
    dynamic
        Also measure a copy of the model that learns from each part of the text after predicting it (dynamic evaluation). The
        saved model does not change.
    unknown
        Characters of the text that the model does not know: stop with an error, or skip them.
    """
    runs, texts = runs_and_texts([str(run), *others], text)
    if dynamic and len(runs) > 1:
        raise InputError(f"--dynamic: {len(runs)} runs, expected one: a dynamic evaluation is that of one model")
    models = _load_each(runs, cell, backend=backend, device=device, dtype=dtype, require_backend=require_backend or None)
    ensemble.check(models, runs)
    reading = reading_for(models[0], encoding, separator, glob)
    source = _read(texts, models[0].vocabulary, reading._replace(unknown="skip" if unknown == "skip" else None))
    if separator is not None:
        dataset.check_separated(source, separator)
    try:
        result = Ensemble(models).evaluate(source)
    except InputError as error:
        raise InputError(f"{source.shown}: {error}") from None
    figures = {name: getattr(result, name) for name in FIGURES}
    figures |= {"skipped": source.skipped.total()} if unknown == "skip" else {}
    if dynamic:
        adapted = models[0].evaluate(source, dynamic=True)
        static = f"{nats_and_bits(result.nats_per_char)} per {result.symbols.removesuffix('s')}"
        print_line(f"dynamic evaluation: {adapted}; static: {static}")
        figures["dynamic"] = {name: getattr(adapted, name) for name in FIGURES}
    else:
        print_line(str(result))
    if sys.stdout.isatty():
        print_line(f"{nats_and_bits(result.nats_per_char)}: {in_words(result.nats_per_char, result.symbols)}")
    print_line(json.dumps(figures))
    return 0


def _read(texts: tuple[str, ...], vocabulary: Vocabulary, reading: Reading) -> Corpus:
    """The text to evaluate; one line says which of its characters are left out."""
    try:
        source = corpus.read(as_source(texts, reading.pattern), vocabulary, reading)
    except UnknownCharacters as error:
        raise UnknownCharacters(f"{error}, or leave them out with --unknown skip") from None
    if source.skipped:
        complain(new_symbols.skipped_message(source.shown, source.skipped))
    return source


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
