"""Text that is safe to print: no control characters, nothing that the terminal cannot encode."""

import sys


def print_safe(text: str) -> None:
    """Print at once, without control characters and with ? for each character that standard output cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = printable(text, "\n\t")
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def printable(text: str, allowed: str = "") -> str:
    """Replace control characters by spaces, except for the allowed ones."""
    allowed += "\u200c\u200d"  # joiners, which scripts and emoji need
    return "".join(character if character.isprintable() or character in allowed else " " for character in text)
