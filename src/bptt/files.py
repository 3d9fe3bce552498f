"""Atomic writes, and bounded reads of files that may come from strangers."""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bptt.errors import InvalidFile

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy takes the name for a module

TEMPORARY = ".bptt-"  # what is being written begins with this; after a crash it may be left behind
OPEN_PIPES = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # of JSON


def temporary_path(beside: Path) -> Path:
    """Return an unused name in the same folder."""
    return beside.with_name(TEMPORARY + secrets.token_hex(8))


def write_folder(folder: Path, files: dict[str, bytes], *, private: bool = False) -> None:
    """Create a folder with files atomically: it is renamed into place once all files are on the disk.

    A `private` one can be read by this user alone.

    Raises:
        FileExistsError: the path already exists.
        OSError, ValueError: it cannot be written; nothing is left behind.
    """
    if os.path.lexists(folder):
        raise FileExistsError(folder)
    partial = temporary_path(folder)
    try:
        missing = [parent for parent in folder.parents if not parent.exists()]
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # it, and not the folder, is there and is none
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        partial.mkdir(0o700 if private else 0o777)
        for name, data in files.items():
            _write(partial / name, data)
        _fsync_folder(partial)
        try:
            rename(partial, folder)
        except OSError:
            if os.path.lexists(folder):  # since a moment ago
                raise FileExistsError(folder) from None
            raise
        for parent in (folder.parent, *(made.parent for made in missing)):
            _fsync_folder(parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # nothing is there after the rename


def replace(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file atomically, at once or in parts: a reader sees either the old content or the new one.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    partial = temporary_path(path)
    try:
        _write(partial, data)
        rename(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()  # nothing is there after the replacement
    _fsync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder at once: under its name it is there whole or not at all, also after a power failure."""
    aside = temporary_path(folder)
    rename(folder, aside)
    _fsync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, also onto a file; on Windows try for a second, as scanners of viruses hold new files open."""
    for seconds in (0.01, 0.03, 0.1, 0.3, 0.6) if os.name == "nt" else ():
        with contextlib.suppress(PermissionError):
            return os.replace(source, target)
        time.sleep(seconds)
    return os.replace(source, target)


def append(path: Path, text: str) -> None:
    """Append text to a file, flushed to the system, in one write if possible; not to what a link leads to.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    data = text.encode("utf-8", "surrogatepass")
    no_links = getattr(os, "O_NOFOLLOW", 0)
    with open(path, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags | no_links, 0o666)) as file:
        while data:
            data = data[file.write(data) :]  # a disk that becomes full takes a part


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that a killed writer left in a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def read(path: Path, most: int, least: int = 0, *, named: bool = False) -> bytes:
    """Read a regular file of `least` to `most` bytes; any other is refused unread.

    What a user `named` may also be a link to one, or a pipe that is open, as of a shell's <(command).

    Raises:
        InvalidFile: no such file, a link, a pipe, another size, or unreadable.
    """
    try:
        with open_regular(path, links=named, pipes=named) as file:
            size = os.fstat(file.fileno()).st_size  # 0 of a pipe
            if not least <= size <= most:
                raise InvalidFile(f"has {size:,} bytes, expected {_range(least, most)}")
            data = file.read(most + 1)
            if len(data) > most:
                raise InvalidFile(f"has more bytes than {most:,}, expected {_range(least, most)}")
            return data
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InvalidFile(f"cannot be read: {describe_os_error(error)}") from None


def open_regular(path: Path, *, links: bool = False, pipes: bool = False) -> BinaryIO:
    """Open a regular file for reading; anything else is refused and not opened, because a pipe or a device may never end.

    With `links` it may be a link to one; with `pipes` it may be a pipe that this process was started with.

    Raises:
        InvalidFile: no such file, or not a regular one.
        OSError, ValueError: it cannot be opened.
    """
    pipe = pipes and str(path).startswith(OPEN_PIPES)

    def refuse(mode: int) -> None:
        if not stat.S_ISREG(mode) and not (pipe and stat.S_ISFIFO(mode)):
            raise InvalidFile("is not a regular file")

    def opener(name: str, flags: int) -> int:  # it may be something else by now: a link is not followed, a pipe not waited for
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0) | (0 if links else getattr(os, "O_NOFOLLOW", 0)))

    try:
        refuse((os.stat if links else os.lstat)(path).st_mode)
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(open(path, "rb", opener=opener))
            refuse(os.fstat(file.fileno()).st_mode)
            if pipe:
                os.set_blocking(file.fileno(), True)
            closing.pop_all()
            return file
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidFile("no such file") from None


def lock(descriptor: int, *, shared: bool, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed; False if another process holds a lock in the way.

    With `wait` that lock is waited for. True also where the system or the disk knows no such locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (AttributeError, OSError):  # the former where there is no fcntl
        return True
    return True


@contextlib.contextmanager
def locked_folder(folder: Path, *, shared: bool) -> Iterator[bool]:
    """Lock a folder inside the block: a shared lock is waited for; of another one the value says whether it was free."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        yield True
        return
    try:
        yield lock(descriptor, shared=shared, wait=shared)
    finally:
        os.close(descriptor)


def regular_files(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """List the regular files of a folder whose names match, no links; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            listed = [entry.name for entry in entries if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(listed)]


def remove_files(paths: Iterable[Path]) -> int:
    """Remove files that may be in use; those that the system keeps because of that stay. Returns the bytes that are free."""
    freed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            size = path.lstat().st_size
            path.unlink()
            freed += size
    return freed


def only_this_user_writes(status: os.stat_result) -> bool:
    """Whether a file or folder is this user's or the superuser's, and nobody else may write to it.

    A group that has the number of the user counts as the user alone: so are they where everybody has one of their own.
    """
    if not hasattr(os, "getuid"):
        return True
    user = os.getuid()
    own_group = status.st_gid == os.getgid() == user
    others = stat.S_IWOTH | (0 if own_group else stat.S_IWGRP)
    return status.st_uid in (user, 0) and not status.st_mode & others


class FileReference(NamedTuple):
    """A text that another file names, such as the record of a model, which may come from strangers.

    It is opened only if it is a regular file, of its size if that is known: no record leads to a device or a pipe.
    """

    place: str  # a path, or the name of a built-in text
    size: int | None = None  # bytes; None where it may have changed, or was not recorded
    folder: str = ""  # that the path is relative to
    unpacked: int | None = None  # bytes of what it holds, where it is compressed
    by_user: bool = False  # whether the user wrote the file that names it: it may be a folder or a pattern, for its files


def parse_json(data: bytes, most: int) -> Any:
    """Parse JSON with at most `most` lists and objects, which bounds memory (seventy bytes each) and stack depth.

    Raises:
        InvalidFile: it is not JSON, or has more of them.
    """
    bare = _STRING.sub(b"", data)
    if (count := bare.count(b"[") + bare.count(b"{")) > most:
        raise InvalidFile(f"holds {count:,} lists and objects, expected at most {most:,}")
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidFile("is not JSON") from None


def to_json(value: Any) -> bytes:
    """Serialize a value as JSON with sorted keys and an indent of 1."""
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def checksum(data: bytes) -> dict[str, Any]:
    """Return the entry of a file in a manifest: SHA-256 and size."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def describe_os_error(error: BaseException) -> str:
    """Return the system's message of an error, or else the exception's own."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _range(least: int, most: int) -> str:
    return f"{most:,}" if least == most else f"at most {most:,}" if least == 0 else f"{least:,} to {most:,}"


def _write(path: Path, data: bytes | Iterable[bytes]) -> None:
    with open(path, "xb") as file:
        for part in [data] if isinstance(data, bytes) else data:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk, if the system can."""
    with contextlib.suppress(OSError):  # Windows cannot open a folder, some network disks cannot sync one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
