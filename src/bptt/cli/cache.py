"""The command `bptt cache`."""

from collections.abc import Sequence
from pathlib import Path

from bptt import acceleration, files, system
from bptt.cli.console import print_line
from bptt.data import token_store
from bptt.display import table
from bptt.display.text import printable
from bptt.errors import InputError


def cache(*, clear: bool = False) -> int:
    """Show the cache on this machine, which makes a start faster: token ids of large texts, and compiled kernels.

    $BPTT_CACHE names another folder.

    Parameters
    ----------
    clear
        Clear the cache. No other file is removed, and runs that use the cache continue.
    """
    folder = system.cache_folder()
    if clear:
        with files.locked_folder(folder, shared=False) as free:
            if not free:
                raise InputError(f"{folder}: another bptt writes a text there: wait for it, and clear the cache then")
            freed = files.remove_files(token_store.stored_files())
        freed += files.remove_files(acceleration.stored_kernels())
        print_line(f"freed {freed:,} bytes")
        return 0
    width = table.columns()
    _print("token ids", folder, token_store.stored_files(), width)
    _print("kernels", folder, acceleration.stored_kernels(), width)
    return 0


def _print(name: str, folder: Path, stored: Sequence[Path], width: int) -> None:
    """Print where files are kept, how many, and how large they are."""
    size = sum(path.lstat().st_size for path in stored)
    words = f"{len(stored):,} file{'s' * (len(stored) != 1)}, {size:,} bytes in {folder}"
    print_line("\n".join(table.wrap(printable(words), width, f"{name:<10} ", " " * 11)))
