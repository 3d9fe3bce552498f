"""Texts for tests of what is read: written into files, and refused in one line."""

from pathlib import Path

import pytest

from bptt.data import corpus
from bptt.errors import InputError


def write(path, text):
    """Write a str, as UTF-8, or bytes into a file, whose folders are made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Path(path)


def complaint(*arguments, **flags):
    """The message, of one line, about a text that cannot be read."""
    with pytest.raises(InputError) as error:
        corpus.read(*arguments, **flags)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)
