"""Disks that are full or broken, and users who press Ctrl-C, at any call that touches the disk."""

import builtins
import io
import os
from collections.abc import Callable
from typing import Any

import pytest

from bptt import files

ERRORS = [OSError(28, "No space left on device"), OSError(5, "Input/output error"), KeyboardInterrupt()]
CALLS = ("mkdir", "open", "fsync", "rename", "replace", "symlink", "unlink", "rmdir")


class Failing:
    """A context that notes each call that changes the disk, and lets number `place` of them raise an error.

    A write that fails leaves half of its data.
    """

    def __init__(self, place: int = -1, error: BaseException | None = None):
        self.made: list[str] = []
        self.place, self.error = place, error
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> "Failing":
        for name in CALLS:
            self.patch.setattr(os, name, self.counted(name, getattr(os, name)))
        self.patch.setattr(files, "open", self.opened, raising=False)
        return self

    def __exit__(self, *_: Any) -> None:
        self.patch.undo()

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.made.append(name)
            if len(self.made) == self.place + 1 and self.error is not None:
                raise self.error
            return function(*arguments, **keywords)

        return call

    def opened(self, path: Any, mode: str, *arguments: Any, **keywords: Any) -> Any:
        if mode == "rb":
            return builtins.open(path, mode)
        file = self.counted("open", builtins.open)(path, mode, *arguments, **keywords)
        return File(file, self)


class File:
    """A file that is being written."""

    def __init__(self, file: io.BufferedWriter, calls: Failing):
        self.file, self.calls = file, calls

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        half = self.file.write(data[: len(data) // 2])
        self.file.flush()
        return half + self.calls.counted("write", self.file.write)(data[len(data) // 2 :])

    def flush(self) -> None:
        self.calls.counted("flush", self.file.flush)()

    def fileno(self) -> int:
        return self.file.fileno()
