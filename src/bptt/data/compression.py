"""Compressed texts: detect the format by the first bytes, and unpack them piece by piece."""

import bz2
import contextlib
import functools
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from bptt.errors import InputError
from bptt.files import describe_os_error

BEGINNING = 16  # bytes that tell the format
ZSTD, ZIP = b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
END_OF_ZIP, END_OF_ZIP64 = b"PK\x05\x06", b"PK\x06\x06"  # the records that count the members
_END = 22  # bytes of the former without a comment
_APPENDED = "{} has other bytes behind its compressed ones: was something appended to it?"
_PIECE = 1 << 18  # bytes unpacked at a time
_INPUT = 1 << 13  # read for that: what follows one of many small members is copied for each of them
_MOST_LISTED = 1 << 19  # bytes of the list of members in a ZIP file: Python takes 10 µs and 500 bytes for each of them
_FORMATS: dict[bytes, Callable[[], Any]] = {  # the decompressor of what begins like this
    b"\x1f\x8b\x08": functools.partial(zlib.decompressobj, 16 + zlib.MAX_WBITS),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lzma.LZMADecompressor,
}
_OTHERS = {  # which no reader of Python unpacks, or not by the first bytes alone
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x1f\x9d": "compressed by compress (.Z)",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"LZIP\x01": "compressed by lzip",
}
_LZMA = re.compile(rb"\x5d\x00\x00[\x00-\xff][\x00-\x08](?:\xff{8}|.{5}\x00{3})", re.DOTALL)  # of .lzma, which has no magic
_BLOCKS_OF_BZIP2 = (b"1AY&SY", b"\x17rE8P\x90")  # what follows BZh and a digit: pi, or the root of pi where nothing is packed
# what the readers of Python raise for damaged files, and for methods that they do not have
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError, LookupError, struct.error)
_UNSUPPORTED = (NotImplementedError, RuntimeError)  # from zipfile: an unknown method, and a file with a password
_DOCUMENTS = {  # by a member that all of them have
    "word/document.xml": "a Word document",
    "content.xml": "an OpenDocument file",
    "META-INF/container.xml": "an e-book",
}


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins like this is compressed, in a format that Python knows."""
    if head.startswith(b"BZh"):
        return head[4:10] in _BLOCKS_OF_BZIP2
    return head.startswith((*_FORMATS, ZSTD, ZIP, END_OF_ZIP))


def packed_kind(head: bytes) -> str:
    """What a file is that begins like this and has to be unpacked by another program, in words; empty for others."""
    if _LZMA.match(head):
        return "compressed by lzma"
    return next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), "")


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
    if head.startswith((ZIP, END_OF_ZIP)):
        return _member(file, shown, stack)
    for magic, decompressor in _FORMATS.items():
        if head.startswith(magic):
            return io.BufferedReader(_Unpacked(_unpacked_pieces(file, magic, decompressor, shown)), _PIECE)
    if (zstd := _zstd()) is None:
        raise InputError(f"{shown} is compressed by zstd, which Python has since 3.14: unpack it (zstd -d)")
    content: IO[bytes] = zstd.open(file)
    return content


class _Unpacked(io.RawIOBase):
    """Bytes that come in pieces, as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer)
        self.rest = self.rest or memoryview(next(self.pieces, b""))
        size = min(len(target), len(self.rest))
        target[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


def _unpacked_pieces(file: IO[bytes], magic: bytes, decompressor: Callable[[], Any], shown: str) -> Iterator[bytes]:
    """Yield what a compressed file holds, or several behind each other, which zeros may follow; no piece is empty."""
    data = b""
    while True:
        while len(data) < len(magic) and (more := file.read(_INPUT)):
            data = (data + more).lstrip(b"\0")
        if not data:
            return
        if not data.startswith(magic):
            raise InputError(_APPENDED.format(shown))
        unpacker = decompressor()
        while not unpacker.eof:
            if piece := unpacker.decompress(data, _PIECE):
                yield piece
            data = getattr(unpacker, "unconsumed_tail", b"")  # of zlib; the others keep it
            if not piece and not unpacker.eof and not data:
                data = file.read(_INPUT)
                if not data:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        data = unpacker.unused_data.lstrip(b"\0")


def _member(file: IO[bytes], shown: str, stack: contextlib.ExitStack) -> IO[bytes]:
    _refuse_long_list(file, shown)
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [member for member in archive.infolist() if _is_file(member.filename)]
    names = {member.filename for member in archive.infolist()}
    for name, kind in _DOCUMENTS.items():
        if name in names:
            raise InputError(f"{shown} is {kind}: save it as plain text first, and name that file")
    if len(members) != 1:
        raise InputError(_several(shown, f"{len(members):,}" if members else "no"))
    if members[0].flag_bits & 1:
        raise InputError(f"{shown} is encrypted: unpack it, and name its file")
    return archive.open(members[0])


def _refuse_long_list(file: IO[bytes], shown: str) -> None:
    """Raise an InputError for a ZIP file with too many members for `ZipFile`, which lists all of them, or with other bytes."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _END - (1 << 16)))  # a comment has fewer bytes
    tail = file.read(size - start)
    alone = tail[-_END:].startswith(END_OF_ZIP) and tail.endswith(b"\0\0")  # without a comment
    place = len(tail) - _END if alone else tail.rfind(END_OF_ZIP)
    if place < 0 or len(tail) < place + _END:
        return  # `ZipFile` says that it is damaged
    listed, comment = struct.unpack_from("<12xL4xH", tail, place)
    sizes = [listed if listed < 0xFFFFFFFF else 0, *_sizes_of_zip64(file, start + place)]
    if max(sizes) > _MOST_LISTED:
        raise InputError(_several(shown, "thousands of"))
    if tail[place + _END + comment :].strip(b"\0"):
        raise InputError(_APPENDED.format(shown))


def _sizes_of_zip64(file: IO[bytes], end: int) -> Iterator[int]:
    """Yield the bytes of the list of members by the records of ZIP64, where versions of Python look for one."""
    file.seek(max(0, end - 20))
    locator = file.read(20)
    if locator.startswith(b"PK\x06\x07") and len(locator) == 20:
        for offset in (struct.unpack("<8xQ4x", locator)[0], end - 76):
            if 0 <= offset < end:
                file.seek(offset)
                record = file.read(56)
                if record.startswith(END_OF_ZIP64) and len(record) == 56:
                    yield struct.unpack("<40xQ8x", record)[0]


def _several(shown: str, count: str) -> str:
    return f"{shown} holds {count} files: {'name a text' if count == 'no' else 'unpack it and give the folder'}"


def _is_file(name: str) -> bool:
    """Whether a member is a file that is not hidden; macOS keeps the attributes of each file in __MACOSX/._NAME."""
    return not name.endswith("/") and not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


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
