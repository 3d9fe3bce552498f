"""What is done on a device never waits for the host to look at an array: updates of all kinds, measurements, texts."""

import numpy as np
import pytest

from bptt import acceleration
from bptt import backend as backends
from bptt.config.settings import from_flags
from bptt.inference import generate
from bptt.inference.request import GenerationRequest, StopCriteria
from bptt.inference.sampling import SamplingOptions
from bptt.nn import cells, model, tree
from bptt.train_step import stepper
from bptt.training import setup, validation
from conftest import forbid_host_reads
from runs import NAMES, PROSE

CELLS = pytest.mark.parametrize("cell", list(cells.CELLS))
TEXTS = pytest.mark.parametrize("text", [NAMES, PROSE], ids=["lines", "stream"])


def prepare_run(text, **flags):
    small = {"hidden": 5, "layers": 2, "steps": 24, "batch": 6, "length": 3, "backend": "strict", "validation": 0}
    return setup.from_scratch(text, from_flags({**small, **flags}))


def recorded(action):
    """What repeats an action, as it is, without a look."""

    def repeat():
        with forbid_host_reads():
            action()

    return repeat


@CELLS
@TEXTS
@pytest.mark.parametrize("how", [{"graph": False}, {}, {"micro_batches": 2}], ids=["one-by-one", "captured", "micro-batches"])
def test_updates_do_not_read_arrays_on_the_host(monkeypatch, cell, text, how):
    monkeypatch.setattr(acceleration, "graph_recorder", lambda: recorded)
    run = prepare_run(text, cell=cell, dropout=0.2, **how)
    those = stepper.run_updates(run.task, run.now.state, lambda _: 5)
    state, _ = next(those)  # the first one may import what it needs
    while state.step < 24:
        with forbid_host_reads():
            state, _ = next(those)


@CELLS
@TEXTS
def test_evaluations_do_not_read_arrays_on_the_host(cell, text):
    run = prepare_run(text, cell=cell, validation=0.3)
    params = tree.unravel(run.now.state.params_vector, model.shapes(run.task.config))
    before = validation.evaluate(run.task, params)
    with forbid_host_reads():
        assert validation.evaluate(run.task, params) == before


@CELLS
@pytest.mark.parametrize("choice", [SamplingOptions(), SamplingOptions(0.7, 3, 0.9), SamplingOptions(0.0)])
@pytest.mark.parametrize("ending", [StopCriteria(40), StopCriteria(40, boundary=0), StopCriteria(50, stop=np.array([2, 3]))])
def test_sampling_reads_arrays_on_the_host_only_between_blocks(monkeypatch, cell, choice, ending):
    """The characters that are written at a time; between those what was written is read."""
    made = []
    monkeypatch.setattr(acceleration, "graph_recorder", lambda: lambda action: made.append(action) or recorded(action))
    monkeypatch.setattr(generate, "CHARACTERS_PER_READ", 4)
    where, config = backends.select("strict", "float64"), model.Config(cell, 7, 5, 2)
    params = tree.tree_map(lambda a: where.put(3 * a), model.init(config, np.random.default_rng(1)))
    request = GenerationRequest(np.array([0, 4]), choice, ending, 5)
    steps = list(generate.generate(config, params, where, request, generate.uniform_numbers(5, 0, 70)))
    assert {len(ids) for ids in steps} == {70}
    assert made or ending.boundary == 0  # where so many end early that no two batches are of one size
