"""Character-level recurrent language models, trained by backpropagation through time written by hand.

import bptt
model = bptt.train("names.txt", cell="gru", hidden=128)
model.sample(10, temperature=0.8, seed=0)
model.save("names-model")
"""

from typing import TYPE_CHECKING

from bptt.errors import (
    AlreadyExists,
    BackendWarning,
    BpttWarning,
    CaptureError,
    CheckpointError,
    CheckpointWarning,
    Diverged,
    ForcedInterrupt,
    InputError,
    InvalidFile,
    KernelWarning,
    ModelFileError,
    OutOfMemory,
    OutOfSync,
    RunFinished,
    SaveError,
    SharedError,
    TextChanged,
    TrainingWarning,
    UnknownCharacters,
)

__all__ = [
    "AlreadyExists",
    "BackendWarning",
    "BpttWarning",
    "CaptureError",
    "CheckpointError",
    "CheckpointWarning",
    "Diverged",
    "Ensemble",
    "Evaluation",
    "Event",
    "ForcedInterrupt",
    "History",
    "InputError",
    "InvalidFile",
    "KernelWarning",
    "LanguageModel",
    "ModelFileError",
    "OutOfMemory",
    "OutOfSync",
    "RunFinished",
    "SaveError",
    "Score",
    "SharedError",
    "TextChanged",
    "TrainingWarning",
    "UnknownCharacters",
    "__version__",
    "from_torch",
    "inspect",
    "load",
    "train",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from bptt import inspect
    from bptt.inference.ensemble import Ensemble
    from bptt.inference.evaluation import Evaluation
    from bptt.inference.history import History
    from bptt.inference.language_model import LanguageModel, from_torch, load
    from bptt.inference.scoring import Score
    from bptt.training.api import train
    from bptt.training.events import Event
else:  # or a type checker would accept every name

    def __getattr__(name):
        """Import the public names when one is first used, so that `bptt --version` need not wait for NumPy."""
        if name not in __all__:
            raise AttributeError(f"module 'bptt' has no attribute {name!r}")
        import bptt.inspect  # noqa: F401  # an import sets the attribute `inspect`
        from bptt.inference.ensemble import Ensemble
        from bptt.inference.evaluation import Evaluation
        from bptt.inference.history import History
        from bptt.inference.language_model import LanguageModel, from_torch, load
        from bptt.inference.scoring import Score
        from bptt.training.api import train
        from bptt.training.events import Event

        public = (Ensemble, Evaluation, Event, History, LanguageModel, Score, from_torch, load, train)
        globals().update({value.__name__: value for value in public})  # the next use does not come here
        return globals()[name]

    def __dir__():
        """List the public names without importing them, and without the modules that happen to be loaded."""
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
