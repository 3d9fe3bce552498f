"""Tables of text that stay readable on a narrow terminal."""

import shutil
import textwrap
from collections.abc import Sequence

GAP = 2  # spaces between two columns
UNLIMITED = 1 << 20  # columns of a pipe or a file


def columns() -> int:
    """Return the columns that a line may take: those of the terminal or of $COLUMNS; of a pipe or a file any number."""
    return shutil.get_terminal_size((UNLIMITED, 24)).columns


def lay_out(heads: Sequence[str], rows: Sequence[Sequence[str]], align: str, width: int) -> list[str]:
    """Lay a table out in lines of at most `width` columns.

    `align` has an l or an r for each column. Where a row does not fit, each becomes a block: its first cell, and below it the
    others with their heads. A word that is longer than a line stays in one piece, which a terminal wraps.
    """
    widths = [max(map(cells, column)) for column in zip(heads, *rows, strict=True)]
    if sum(widths) + GAP * (len(widths) - 1) <= width:
        return [(" " * GAP).join(map(pad, row, widths, align)).rstrip() for row in (heads, *rows)]
    return [line for row in rows for line in _block(heads, row, width)]


def _block(heads: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """Return the lines of a row by itself; cells without a value are left out."""
    items = [f"{head} {cell}".replace(" ", "\xa0") for head, cell in zip(heads[1:], row[1:]) if cell]
    return [*wrap(row[0], width), *(line.replace("\xa0", " ") for line in wrap("  ".join(items), width, "  ", "  "))]


def wrap(text: str, width: int, first: str = "", indent: str = "  ") -> list[str]:
    """Wrap a text between words."""
    return textwrap.wrap(
        text,
        max(width, len(indent) + 1),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def cells(text: str) -> int:
    """Return the columns that a text takes on a terminal, where some characters take two and others none."""
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, width: int, side: str = "l") -> str:
    """Fill a text up to a width: l keeps it on the left, r moves it to the right."""
    space = " " * (width - cells(text))
    return space + text if side == "r" else text + space
