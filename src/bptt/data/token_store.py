"""Token ids: their checksum, and a cache of memory-mapped files for those of large texts."""

import contextlib
import functools
import hashlib
import itertools
import json
import mmap
import os
import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np

from bptt import files, system
from bptt.backend import HostArray
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError, InvalidFile

CHUNK = 1 << 18  # ids worked on at a time
_FORMAT = 4  # of the files; 1 does not have their key, 2 not the texts, 3 has checksums of these
_STORED = re.compile(r"[0-9a-f]{64}-(characters|bytes|[0-9a-f]{64})(-skip)?\.(ids|json)(\.[0-9a-f]{16}\.tmp)?")
_MAX_JSON, _MAX_NESTING = 1 << 25, 100  # bytes, lists and objects, of a vocabulary of all code points and more


class Tokens(NamedTuple):
    """The ids of a text between two start symbols, so that streams and all lines have both their ends."""

    ids: HostArray  # (N + 1,) in the smallest unsigned type; a read-only memory map of a file where the text is large
    vocabulary: Vocabulary
    sha256: str  # of the vocabulary, the ids and, of several texts, where each ends: equal for equal texts
    parts: tuple[int, ...] = ()  # the number of ids of each text, where these were read from somewhere


def in_memory(ids: Iterable[HostArray], vocabulary: Vocabulary, parts: tuple[int, ...] = ()) -> Tokens:
    """Encode the pieces of a text into an array in memory."""
    tokens = np.concatenate(list(_between(ids, vocabulary)))
    return Tokens(tokens, vocabulary, _sha256(_digest(vocabulary, chunks(tokens)), parts), parts)


def load(key: str, vocabulary: Vocabulary | None) -> Tokens | None:
    """Load the ids cached under a key, if they match a vocabulary (or any).

    None if they are missing, damaged, those of another text, or if somebody else could have written them.
    """
    try:
        path = system.cache_folder() / key
        if not files.only_this_user_writes(os.stat(path.parent)):
            return None
        with _open_if_private(path.with_suffix(".json")) as file:
            fields = files.parse_json(file.read(_MAX_JSON), _MAX_NESTING)
        stored, count, sha256 = Vocabulary.from_json(fields["symbols"], fields["boundary"]), fields["count"], fields["sha256"]
        parts = tuple(map(int, fields["parts"]))
        if (fields["format"], fields["key"], fields["dtype"]) != (_FORMAT, key, stored.dtype.name):
            return None
        if vocabulary not in (None, stored):
            return None
        with _open_if_private(
            path.with_suffix(".ids")
        ) as file:  # what is verified is what is mapped, whoever replaces the file
            if _sha256(_digest(stored, iter(lambda: file.read(CHUNK), b"")), parts) != sha256:
                return None
            ids = memory_map(file, _little(stored))
        return Tokens(ids, stored, sha256, parts) if len(ids) == count else None
    except (InvalidFile, OSError, ValueError, KeyError, TypeError):
        return None


def _open_if_private(path: Path) -> BinaryIO:
    """Open a file for reading that only this user can have written."""
    file = files.open_regular(path)
    if not files.only_this_user_writes(os.fstat(file.fileno())):
        file.close()
        raise InvalidFile("belongs to somebody else")
    return file


def save(key: str, ids: Iterable[HostArray], parts: tuple[int, ...], vocabulary: Vocabulary, shown: str) -> Tokens:
    """Write the ids of the pieces of texts into the cache, or into a temporary file, and map the file.

    Raises:
        InputError: the folder cannot be written, or not by this user alone.
    """
    size = (sum(parts) + 2) * vocabulary.dtype.itemsize
    with input_error_if_full(shown, size):
        folder = writable_folder()
        if folder is None:
            with temporary_file() as file:
                sha256 = _sha256(_write_ids(file, _between(ids, vocabulary), vocabulary), parts)
                file.flush()
                return Tokens(memory_map(file, _little(vocabulary)), vocabulary, sha256, parts)
    if not files.only_this_user_writes(os.stat(folder)):
        remedy = "chmod go-w it, or set BPTT_CACHE to a folder of your own"
        raise InputError(f"{shown}: other users could change the ids of the text in {str(folder)!r}: {remedy}")
    with input_error_if_full(shown, size), files.locked_folder(folder, shared=True):  # until it is read, nobody clears it
        try:
            _write(folder / key, _between(ids, vocabulary), parts, vocabulary)
        except PermissionError:  # also where another process was faster: Windows replaces no file that is mapped
            tokens = load(key, vocabulary)
            if tokens is None:
                raise
            return tokens
        tokens = load(key, vocabulary)
        if tokens is None:
            raise OSError("what is written there does not come back")
        return tokens


@contextlib.contextmanager
def input_error_if_full(shown: str, size: int) -> Iterator[None]:
    """Raise an InputError if `size` bytes cannot be written into the cache folder."""
    try:
        yield
    except OSError as error:
        folder = system.cache_folder() if os.environ.get("BPTT_CACHE") else writable_folder() or tempfile.gettempdir()
        raise InputError(
            f"{shown}: {size:,} bytes cannot be written into {str(folder)!r} ({error.strerror or error}): "
            "set BPTT_CACHE to a folder that has room for them"
        ) from None


def temporary_file() -> IO[bytes]:
    """Open a file in the cache folder, or else in one for temporary files, that is removed when it is closed."""
    return tempfile.TemporaryFile(dir=writable_folder())


def free_space() -> int:
    """The bytes that the disk of `temporary_file` has room for."""
    return shutil.disk_usage(writable_folder() or tempfile.gettempdir()).free


def writable_folder() -> Path | None:
    """Make the cache folder; None where a user has none, as without a home folder that can be written.

    Raises:
        OSError: the folder that $BPTT_CACHE names cannot be made.
    """
    try:
        folder = system.cache_folder()
        folder.mkdir(0o700, parents=True, exist_ok=True)
    except (OSError, InputError):
        if os.environ.get("BPTT_CACHE"):
            raise
        return None
    return folder if os.access(folder, os.W_OK) or os.environ.get("BPTT_CACHE") else None


def stored_files() -> list[Path]:
    """List the files of the cache folder that `save` wrote, and those that it left half written when it was killed."""
    return files.regular_files(system.cache_folder(), _STORED)


class Map(mmap.mmap):
    """A memory-mapped file that can be read, too."""

    file: int  # descriptor


def memory_map(file: IO[bytes], dtype: np.dtype[Any]) -> HostArray:
    """Map a file as a read-only array (n,)."""
    made = Map(file.fileno(), 0, access=mmap.ACCESS_READ)
    made.file = os.dup(file.fileno())
    weakref.finalize(made, os.close, made.file)
    return np.frombuffer(made, dtype)


def reader(ids: HostArray) -> Callable[[int, int], HostArray]:
    """Return a function that gives ids[start:stop]; those of a map are read from its file.

    To look at them would bring up to two megabytes around them into this process.
    """
    base = _map(ids)
    if base is None or not hasattr(os, "pread"):
        return lambda start, stop: ids[start:stop]
    file, size, skipped = base.file, ids.itemsize, ids.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data

    def read(start: int, stop: int) -> HostArray:
        data = os.pread(file, (stop - start) * size, skipped + start * size)
        if len(data) != (stop - start) * size:
            raise InputError(
                f"the ids of the text were cut off in {str(system.cache_folder())!r} while they were in use: try again"
            )
        return np.frombuffer(data, ids.dtype)

    return read


def chunks(ids: HostArray) -> Iterator[HostArray]:
    """Yield an array in chunks and release the pages of a map after each one."""
    for i in range(0, len(ids), CHUNK):
        yield ids[i : i + CHUNK]
        release_pages(ids)


def release_pages(ids: HostArray) -> None:
    """Release the memory of a map's pages; the system reads them again when they are needed."""
    base = _map(ids)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def is_map(ids: HostArray) -> bool:
    """Whether an array is a view of a memory-mapped file."""
    return _map(ids) is not None


def _map(ids: HostArray) -> Map | None:
    """The map that an array is a view of."""
    base: object = ids
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, Map) else None


def _between(ids: Iterable[HostArray], vocabulary: Vocabulary) -> Iterator[HostArray]:
    newline = np.array([vocabulary.start], vocabulary.dtype)
    return itertools.chain([newline], ids, [newline])


def _write(path: Path, ids: Iterable[HostArray], parts: tuple[int, ...], vocabulary: Vocabulary) -> None:
    with _replacing(path.with_suffix(".ids")) as file:
        digest = _write_ids(file, ids, vocabulary)
    fields = {
        "format": _FORMAT,
        "key": path.name,
        "dtype": vocabulary.dtype.name,
        "count": sum(parts) + 2,
        "sha256": _sha256(digest, parts),
        "symbols": vocabulary.to_json(),
        "boundary": vocabulary.boundary,
        "parts": list(parts),
    }
    with _replacing(path.with_suffix(".json")) as file:  # last: it says that the other one is there
        file.write(json.dumps(fields).encode())


def _write_ids(file: IO[bytes], ids: Iterable[HostArray], vocabulary: Vocabulary) -> "hashlib._Hash":
    """Write ids into a file; returns their digest."""
    digest = _digest(vocabulary)
    for piece in ids:
        raw = piece.astype(_little(vocabulary), copy=False).tobytes()
        digest.update(raw)
        file.write(raw)
    return digest


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is renamed into place when it is complete."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb", opener=functools.partial(os.open, mode=0o600)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        files.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _digest(vocabulary: Vocabulary, ids: Iterable[bytes | HostArray] = ()) -> "hashlib._Hash":
    """SHA-256 of the symbols, and of the ids as little-endian bytes."""
    digest = hashlib.sha256(json.dumps(vocabulary.to_json()).encode() + b"\n")
    for piece in ids:
        digest.update(piece if isinstance(piece, bytes) else piece.astype(_little(vocabulary), copy=False).tobytes())
    return digest


def _sha256(digest: "hashlib._Hash", parts: tuple[int, ...]) -> str:
    """The checksum of ids, given the digest of the ids, which is changed: of several texts it says where each ends."""
    if len(parts) > 1:
        digest.update(json.dumps(list(parts)).encode())
    return digest.hexdigest()


def _little(vocabulary: Vocabulary) -> np.dtype[Any]:
    return vocabulary.dtype.newbyteorder("<")
