"""Compressed texts: which format their first bytes are of, and what they hold, piece by piece."""

import bz2
import contextlib
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any

from bptt.errors import InputError

BEGINNING = 16  # bytes that tell the format
ZSTD, ZIP = b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_FORMATS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b\x08": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_BLOCKS_OF_BZIP2 = (b"1AY&SY", b"\x17rE8P\x90")  # what follows BZh and a digit: pi, or the root of pi where nothing is packed
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError)  # what readers raise


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins like this is compressed, in a format that Python knows."""
    if head.startswith(b"BZh"):
        return head[4:10] in _BLOCKS_OF_BZIP2
    return head.startswith((*_FORMATS, ZSTD, ZIP))


def opened(file: IO[bytes], head: bytes, shown: str, stack: contextlib.ExitStack) -> IO[bytes]:
    """Return the content of a compressed file as a file, which closes with the stack.

    Its first bytes are `head`, and it is at its beginning.

    Raises:
        InputError: an archive of several files, or a format that this Python does not have.
    """
    if head.startswith(ZIP):
        return _member(file, shown, stack)
    if head.startswith(ZSTD):
        try:
            from compression import zstd  # type: ignore[import-not-found]  # Python 3.14 has it, mypy looks at 3.11
        except ImportError:
            raise InputError(f"{shown} is compressed by zstd, which Python has since 3.14: unpack it (zstd -d)") from None
        reader = zstd.open
    else:
        reader = next(reader for magic, reader in _FORMATS.items() if head.startswith(magic))
    content: IO[bytes] = stack.enter_context(reader(file))
    return content


def _member(file: IO[bytes], shown: str, stack: contextlib.ExitStack) -> IO[bytes]:
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise InputError(f"{shown} is an archive of {len(members):,} files, expected one: unpack it, and name its folder")
    if members[0].flag_bits & 1:
        raise InputError(f"{shown} is encrypted: unpack it, and name its file")
    return stack.enter_context(archive.open(members[0]))
