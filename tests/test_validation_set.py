"""The validation set of a run: which lines are held out, or which file takes their place, and what the run says of it."""

import pytest

from bptt.config.settings import from_flags
from bptt.display import plots
from bptt.training import setup
from runs import NAMES


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the curve takes longer than all the rest."""
    monkeypatch.setattr(plots, "available", lambda: False)


def prepared(text, **flags):
    """A run before its first update."""
    return setup.from_scratch(text, from_flags({"hidden": 2, "steps": 1, "backend": "numpy", **flags}))


def held_out(text, **flags):
    """The held-out lines of a run."""
    data = prepared(text, **flags).task.data
    return [data.vocabulary.decode(ids[1:-1]) for ids in data.validation]


def test_the_split_seed_alone_chooses_the_lines_that_are_held_out():
    first = held_out(NAMES, validation=0.2)
    assert first == held_out(NAMES, validation=0.2, seed=1)
    assert first != held_out(NAMES, validation=0.2, split_seed=1) == held_out(NAMES, validation=0.2, split_seed=1, seed=5)
