"""The command `bptt textbook`."""

from bptt import backend as backends
from bptt import textbook
from bptt.cli.parser import BackendFlag, RequireFlag, Text
from bptt.data import corpus, vocabulary
from bptt.display.text import printable
from bptt.errors import InputError


def run_textbook(  # noqa: D417
    *, data: Text = "dinosaurs", iterations: int = 35000, backend: BackendFlag = "numpy", require_backend: RequireFlag = False
) -> int:
    """Train with the functions of the course, and print what the course prints.

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
    ix_to_char = {ix: printable(character, "\n\t") for ix, character in enumerate(symbols)}  # to be printed
    char_to_ix = {character: ix for ix, character in enumerate(symbols)}
    textbook.model(text, ix_to_char, char_to_ix, num_iterations=iterations, vocab_size=len(symbols), backend=backend)
    return 0
