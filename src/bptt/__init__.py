"""Character-level recurrent language models, trained by backpropagation through time written by hand.

import bptt
model = bptt.train("names.txt", cell="gru", hidden=128)
model.sample(10, temperature=0.8, seed=0)
model.save("names-model")
"""

TYPE_CHECKING = False  # as in typing, whose import would take time in which Ctrl-C is not told in words
if TYPE_CHECKING:
    from typing import Any

    from bptt import inspect
    from bptt.errors import CheckpointError, Diverged, InputError, OutOfMemory, TrainingWarning
    from bptt.inference.language_model import LanguageModel, from_torch, load
    from bptt.training.trainer import train

__all__ = [
    "CheckpointError",
    "Diverged",
    "InputError",
    "LanguageModel",
    "OutOfMemory",
    "TrainingWarning",
    "__version__",
    "from_torch",
    "inspect",
    "load",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> "Any":
    """Import the public names when one is first asked for: so `bptt --version` and an early Ctrl-C need not wait for NumPy."""
    if name not in __all__:
        raise AttributeError(f"module 'bptt' has no attribute {name!r}")
    import bptt.inspect  # noqa: F401  # a module is found in here as soon as it is imported
    from bptt.errors import CheckpointError, Diverged, InputError, OutOfMemory, TrainingWarning
    from bptt.inference.language_model import LanguageModel, from_torch, load
    from bptt.training.trainer import train

    public = (CheckpointError, Diverged, InputError, LanguageModel, OutOfMemory, TrainingWarning, from_torch, load, train)
    globals().update({thing.__name__: thing for thing in public})  # the next time, nothing has to be asked
    return globals()[name]
