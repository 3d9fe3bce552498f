"""The help: order of the commands, usage lines, examples, and the command `bptt help`."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence

from cyclopts import App, Group
from cyclopts.help import format_usage

from bptt.cli.parser import app, commands, unknown_command
from bptt.errors import InputError

EXAMPLES = {
    "": """
bptt train names.txt              # train on a text, in the folder runs/names
bptt sample runs/names --count 5  # write five new names
bptt help train                   # describe all flags of a command
""",
    "train": """
bptt train                             # the built-in names of dinosaurs
bptt train names.txt --cell lstm --hidden 256
bptt train books/ --glob '*.txt' --budget 10m
bptt train names.txt --dry-run         # the plan, its memory and time
bptt train --resume runs/names --steps 5000
bptt train more.txt --from runs/names  # fine-tuning
""",
    "sample": """
bptt sample runs/names --count 10
bptt sample runs/names --prompt Al --temperature 0.7
bptt sample runs/names --count 10 --novel  # only what is new
""",
    "score": """
bptt score runs/names names.txt
bptt score runs/names names.txt | sort -n | head  # the most likely lines
echo Alice | bptt score runs/names --per-char
""",
    "evaluate": """
bptt evaluate runs/names others.txt
bptt evaluate runs/a runs/b --text others.txt  # two models as an ensemble
""",
    "export": """
bptt export runs/names --to page                        # names.html
bptt export runs/names --to torch --out my.safetensors
""",
    "import": """
bptt import my.safetensors --out mine
bptt import theirs.safetensors --out mine --symbols symbols.json --mode lines
""",
}

USAGES = {"evaluate": "Usage: bptt evaluate [OPTIONS] RUN TEXT...\n       bptt evaluate [OPTIONS] RUN... --text TEXT"}


def is_asked(words: Sequence[str]) -> bool:
    """Whether a command line shows the help, as far as its words say: more rather than less often."""
    return not words or words[0] == "help" or not {"--help", "-h"}.isdisjoint(words)


@contextlib.contextmanager
def layout(words: Sequence[str]) -> Iterator[None]:
    """Lay the help out in 20 to 1000 columns: on a terminal of one column, rich works for minutes."""
    if not is_asked(words):
        yield
        return
    arrange()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(min(max(shutil.get_terminal_size().columns, 20), 1000))
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def arrange() -> None:
    """Give each command its place in the list, its usage line and its examples."""
    for place, name in enumerate(commands()):
        command = app[name]
        command.sort_key, command.help_epilogue = place, epilogue(name)
        command.usage = USAGES.get(name) or usage(name, command)
    options = Group("Options")
    for name in app:
        if name.startswith("-"):
            app[name].group, app[name].help_epilogue = options, ""
    app.help_epilogue = epilogue("")


def usage(name: str, command: App) -> str:
    """The usage line of a command, with the names of its optional arguments, for which cyclopts says only ARGS."""
    names = []
    for argument in command.assemble_argument_collection():
        if argument.field_info.is_positional_only and not argument.required:
            dots = "..." if argument.field_info.kind is argument.field_info.VAR_POSITIONAL else ""
            names.append(f"[{argument.name.lstrip('-').upper()}{dots}]")
    line = f"Usage: {str(format_usage(app, [name])).rstrip()}"
    return line.replace("[ARGS...]", " ".join(names)).replace("[ARGS]", " ".join(names))


def epilogue(name: str) -> str:
    """The examples of a command as a block of code in Markdown; empty without any."""
    return f"```text\nExamples:\n{EXAMPLES[name]}```" if name in EXAMPLES else ""


def show_help(command: str | None = None, /) -> int:
    """Show the help of bptt, or of one command.

    Parameters
    ----------
    command
        The command, as in bptt help train; bptt train --help shows the same.
    """
    if command is not None and (command.startswith("-") or command not in app):
        raise InputError(unknown_command(command))
    app.help_print([] if command is None else [command])
    return 0
