"""All exceptions and warnings of bptt, in groups: bad input, files, training, and warnings.

Wrong input raises an `InputError`. Its message is one line: what was given, what was expected, what to do.
"""

import collections.abc
import contextlib
import contextvars
import os
import sys
import warnings

PACKAGE = os.path.dirname(__file__) + os.sep
_on_command_line = contextvars.ContextVar("on_command_line", default=False)


@contextlib.contextmanager
def command_line() -> collections.abc.Iterator[None]:
    """Let messages name flags, and nothing of Python, for the length of the context."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def is_command_line() -> bool:
    """Whether messages are for somebody who typed a command."""
    return _on_command_line.get()


def flag(name: str) -> str:
    """The flag of an argument on the command line."""
    return "--" + name.rstrip("_").replace("_", "-")


def option(name: str, value: object = None) -> str:
    """An argument as the reader of a message writes it: `--mode lines` in a command, mode='lines' in Python.

    Without a value it is the name alone.
    """
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if is_command_line():
        return flag(name) + ("=false" if value is False else "" if value is None or value is True else f" {shown}")
    return name if value is None else f"{name}={shown if isinstance(value, int | float) else repr(shown)}"


class SharedError(Exception):
    """An error that all processes of a group may raise, so that none of them waits for another.

    Each of them raises its own copy, with `on_all_ranks` and its `rank`; process 0 prints it.
    """

    def __init__(self, *args: object, on_all_ranks: bool = False, rank: int = 0) -> None:
        super().__init__(*args)
        self.on_all_ranks, self.rank = on_all_ranks, rank


class InputError(SharedError, ValueError):
    """Input that cannot be used.

    The command line prints its line and exits with code 2.
    """


class UnknownCharacters(InputError):
    """Text with characters that a vocabulary does not have."""


# Files


class CheckpointError(InputError):
    """A folder that holds no model, or whose files do not match their manifest."""


class AlreadyExists(InputError):
    """A path to save at where something exists already."""


class SaveError(InputError):
    """A checkpoint or file that could not be written, for example because the disk is full."""


class ModelFileError(InputError):
    """A file to import that holds no model, or one that cannot be converted."""


class InvalidFile(Exception):
    """A file whose content cannot be used; the reason is one short line, whatever the file holds."""

    longest = 300  # characters of the reason

    def __str__(self) -> str:
        """The reason, without what could move a cursor."""
        text = super().__str__()
        text = text if len(text) <= self.longest else f"{text[: self.longest]}..."
        return "".join(character if character.isprintable() else " " for character in text)


class TextChanged(InputError):
    """The text or the validation set of a run that is no longer as long as it was."""


# Training


class RunFinished(InputError):
    """A run to resume that has made all its steps."""


class Diverged(SharedError, ArithmeticError):
    """A loss, a gradient or a weight that is not finite; the last good checkpoint is kept.

    All processes raise it, because all of them have the same numbers.
    """

    def __init__(self, *args: object, on_all_ranks: bool = True, rank: int = 0) -> None:
        super().__init__(*args, on_all_ranks=on_all_ranks, rank=rank)


class OutOfMemory(MemoryError):
    """A run that needs more memory than there is; the message says how much, and which flag to lower."""


class ForcedInterrupt(KeyboardInterrupt):
    """A second Ctrl-C: the run ends without a save and leaves its folder as it is."""


class OutOfSync(RuntimeError):
    """Processes that train one model whose parameters are not the same bits any more."""


class CaptureError(Exception):
    """An operation on a GPU that cannot be captured in a CUDA graph."""


# Warnings


class BpttWarning(UserWarning):
    """The base class of all warnings of bptt."""


class BackendWarning(BpttWarning):
    """The backend that was asked for cannot be used, and another one takes its place."""


class KernelWarning(BpttWarning):
    """Kernels that cannot be used, or that were used before the run was resumed and are not now, or the reverse."""


class CheckpointWarning(BpttWarning):
    """A damaged checkpoint that was skipped, or a training text that has changed since."""


class TrainingWarning(BpttWarning):
    """A run that ended early, a validation set that says little, or a model that could not be saved where it should be."""


def warn(message: str, category: type[BpttWarning]) -> None:
    """Issue a warning at the line outside of bptt that led to it, however many functions of bptt lie between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
