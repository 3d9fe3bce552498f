"""Measuring what is held out in parts: each column is in one of them, and each process gets the sum of all."""

import pytest

from bptt.config.settings import from_flags
from bptt.data.dataset import validation_windows
from bptt.inference.evaluation import evaluate
from bptt.nn import model, tree
from bptt.training import memory_estimate, setup, validation
from process_groups import run_processes
from runs import NAMES, PROSE

LINES = [*NAMES, "a long name " * 60] * 9
TEXTS = pytest.mark.parametrize("text", [LINES, PROSE * 20], ids=["lines", "stream"])
PARTS = pytest.mark.parametrize("count", [1, 2, 3, 16, 40])


def prepare_run(text, **flags):
    flags = {"hidden": 5, "steps": 9, "backend": "numpy", "dtype": "float64", "validation": 0.4, **flags}
    flags["mode"] = "lines" if text is LINES else "stream"
    return setup.from_scratch(text, from_flags(flags))


def params_of(task, now):
    return tree.unravel(now.state.params_vector, model.shapes(task.config))


def target_places(windows):
    """Every target, by its place in the ids."""
    return [
        place
        for window in windows
        for first, steps in zip(window.columns[0].tolist(), window.lengths.tolist())
        for place in range(first + 1, first + 1 + steps)
    ]


@TEXTS
@PARTS
def test_every_validation_target_is_in_one_micro_batch(text, count):
    task = prepare_run(text, micro_batches=count).task
    parts = [list(validation.windows(task, part)) for part in range(validation.parts(task))]
    assert len(parts) == min(count, 16)
    assert all(window.targets == window.lengths.sum() > 0 for part in parts for window in part)
    assert all(part[0].start for part in parts if part)
    found = target_places(window for part in parts for window in part)
    assert len(set(found)) == len(found)
    assert sorted(found) == sorted(target_places(validation_windows(task.data)))


@TEXTS
@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_the_sum_of_micro_batches_is_the_whole_loss(text, count, cell):
    task, _, now = prepare_run(text, micro_batches=count, cell=cell, layers=2)
    params = params_of(task, now)
    whole = evaluate(task.config, params, task.backend, map(task.read, validation_windows(task.data)))
    found = validation.evaluate(task, params)
    assert found.characters == whole.characters
    assert found.nats == pytest.approx(whole.nats, rel=1e-12)


@TEXTS
@pytest.mark.parametrize("size", [2, 3, 18])
def test_processes_equal_micro_batches_in_validation_bit_for_bit(text, size):
    task, _, now = prepare_run(text, micro_batches=size)
    params = params_of(task, now)
    expected = validation.evaluate(task, params)
    for found in run_processes(size, lambda group: validation.evaluate(task._replace(group=group), params)):
        assert found == expected


def test_micro_batches_need_less_memory_in_validation():
    whole, parts = (
        memory_estimate.evaluation_numbers(prepare_run(PROSE * 20, micro_batches=count, batch=16).task) for count in (1, 4)
    )
    assert parts < 0.6 * whole
