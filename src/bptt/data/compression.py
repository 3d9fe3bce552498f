"""Compressed texts: detect the format by the first bytes, and unpack them piece by piece."""

import bz2
import contextlib
import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from bptt.errors import InputError
from bptt.files import describe_os_error

BEGINNING = 16  # bytes that tell the format
ZSTD, ZIP = b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_FORMATS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b\x08": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_BLOCKS_OF_BZIP2 = (b"1AY&SY", b"\x17rE8P\x90")  # what follows BZh and a digit: pi, or the root of pi where nothing is packed
# what the readers of Python raise for damaged files, and for methods that they do not have
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError, LookupError, struct.error)
_UNSUPPORTED = (NotImplementedError, RuntimeError)
_DOCUMENTS = {  # by a member that all of them have
    "word/document.xml": "a Word document",
    "content.xml": "an OpenDocument file",
    "META-INF/container.xml": "an e-book",
}


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins like this is compressed, in a format that Python knows."""
    if head.startswith(b"BZh"):
        return head[4:10] in _BLOCKS_OF_BZIP2
    return head.startswith((*_FORMATS, ZSTD, ZIP))


@contextlib.contextmanager
def unpacked(file: IO[bytes], head: bytes, shown: str) -> Iterator[IO[bytes]]:
    """Open the content of a compressed file, for the length of the context.

    Its first bytes are `head`, and it is at its beginning.

    Raises:
        InputError: a damaged file, an archive of several files, or a method that this Python does not have.
    """
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(_opened(file, head, shown, stack))
        except InputError:
            raise
        except _UNSUPPORTED:
            problem = "uses a compression method that Python cannot unpack"
            raise InputError(f"{shown} {problem}: unpack it, and name its file") from None
        except _damaged() as error:
            reason = describe_os_error(error)
            raise InputError(f"{shown} is compressed and cannot be unpacked ({reason}): is it complete?") from None


def _opened(file: IO[bytes], head: bytes, shown: str, stack: contextlib.ExitStack) -> IO[bytes]:
    if head.startswith(ZIP):
        return _member(file, shown, stack)
    reader = next((reader for magic, reader in _FORMATS.items() if head.startswith(magic)), None)
    if reader is None:
        if (zstd := _zstd()) is None:
            raise InputError(f"{shown} is compressed by zstd, which Python has since 3.14: unpack it (zstd -d)")
        reader = zstd.open
    content: IO[bytes] = reader(file)
    return content


def _member(file: IO[bytes], shown: str, stack: contextlib.ExitStack) -> IO[bytes]:
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [member for member in archive.infolist() if _is_file(member.filename)]
    names = {member.filename for member in members}
    for name, kind in _DOCUMENTS.items():
        if name in names:
            raise InputError(f"{shown} is {kind}: save it as plain text first, and name that file")
    if len(members) != 1:
        raise InputError(f"{shown} holds {len(members):,} files: unpack it and give the folder")
    if members[0].flag_bits & 1:
        raise InputError(f"{shown} is encrypted: unpack it, and name its file")
    return archive.open(members[0])


def _is_file(name: str) -> bool:
    return not name.endswith("/") and not name.startswith("__MACOSX/")  # where macOS keeps the attributes of each file


def _damaged() -> tuple[type[Exception], ...]:
    zstd = _zstd()
    return _DAMAGED if zstd is None else (*_DAMAGED, zstd.ZstdError)  # which is derived from Exception alone


def _zstd() -> Any:
    """The module of zstd, None before Python 3.14."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # mypy looks at 3.11
    except ImportError:
        return None
    return zstd
