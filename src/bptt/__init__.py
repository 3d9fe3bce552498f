"""Character-level recurrent language models, trained by backpropagation through time written by hand.

import bptt
model = bptt.train("names.txt", cell="gru", hidden=128)
model.sample(10, temperature=0.8, seed=0)
model.save("names-model")
"""

from bptt.errors import InputError
from bptt.run.checkpoint import CheckpointError
from bptt.run.language_model import LanguageModel, load
from bptt.run.training import Diverged, TrainingWarning, train

__all__ = [
    "CheckpointError",
    "Diverged",
    "InputError",
    "LanguageModel",
    "TrainingWarning",
    "__version__",
    "load",
    "train",
]
__version__ = "0.1.0"
