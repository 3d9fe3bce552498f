"""Micro-batches: the updates of the whole batch but for the rounding of sums, in less memory."""

import tracemalloc

import numpy as np
import pytest

import bptt
from bptt import dispatch
from bptt.config.settings import from_flags
from bptt.data.batches import Window
from bptt.nn import tree
from bptt.train_step import microbatches, stepper
from bptt.training import setup
from runs import NAMES, PROSE

CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


@pytest.fixture(autouse=True)
def _pure(monkeypatch):
    monkeypatch.setenv("BPTT_KERNELS", "0")
    with dispatch.restored():
        dispatch.disable()
        yield


def prepare_run(text, **flags):
    small = {"hidden": 6, "steps": 40, "batch": 7, "length": 9, "backend": "numpy", "validation": 0}
    return setup.from_scratch(text, from_flags({**small, **flags}))


def window(*pairs, steps, start=True):
    places = np.array(pairs).T
    return Window(places, steps, int(np.minimum(places[1] - places[0], steps).clip(0).sum()), start)


def test_each_column_with_targets_is_in_one_micro_batch():
    whole = window((0, 9), (20, 28), (40, 45), (60, 64), (80, 80), (90, 92), steps=6)
    first, second = microbatches.split(whole, 2)
    assert first.columns.tolist() == [0, 2]
    assert second.columns.tolist() == [1, 3, 5]
    assert (first.window.steps, first.window.targets, first.window.start) == (6, 11, True)
    assert (second.window.steps, second.window.targets) == (6, 12)
    np.testing.assert_array_equal(second.window.columns, [[20, 60, 90], [28, 64, 92]])
    assert [own.columns.tolist() for own in microbatches.split(whole, 9)] == [[0], [1], [2], [3], [5]]
    assert [own.window.steps for own in microbatches.split(whole, 9)] == [6, 6, 5, 4, 2]


@CELLS
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (
            NAMES,
            {"layers": 2, "dropout": 0.3, "length": 3, "parametrization": "standard"},
        ),  # states from one window to the next, columns that are over
        (PROSE, {"dropout": 0.3, "parametrization": "standard"}),
        (PROSE, {"recompute_every": 4, "optimizer": "momentum"}),
    ],
)
def test_updates_with_micro_batches_equal_those_of_whole_batches(cell, dtype, text, flags):
    ends = []
    for count in (1, 6):
        run = prepare_run(text, cell=cell, dtype=dtype, micro_batches=count, **flags)
        pairs = list(stepper.run_updates(run.task, run.now.state))
        ends.append((pairs[-1][0], [(float(trace.loss), float(trace.grad_norm)) for _, traces in pairs for trace in traces]))
    (whole, numbers), (parts, others) = ends
    np.testing.assert_allclose(parts.params_vector, whole.params_vector, rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(others, numbers, rtol=0, atol=20 * TOLERANCE[dtype])
    if text is PROSE:  # in lines, the states after those that are over are nobody's
        np.testing.assert_allclose(parts.states, whole.states, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_there_may_be_more_micro_batches_than_columns(backend):
    run = prepare_run(NAMES, micro_batches=100, backend=backend, steps=5, dtype="float64")
    whole = prepare_run(NAMES, steps=5, dtype="float64")
    found, expected = (list(stepper.run_updates(one.task, one.now.state))[-1][0].params_vector for one in (run, whole))
    np.testing.assert_allclose(run.task.backend.get(found), expected, rtol=0, atol=1e-12)


@CELLS
def test_a_resumed_run_keeps_its_micro_batches(tmp_path, cell):
    flags = {
        "cell": cell,
        "micro_batches": 3,
        "steps": 20,
        "evaluate_every": 20,
        "length": 7,
        "hidden": 5,
        "report": None,
        "backend": "numpy",
    }
    whole = bptt.train(PROSE, **flags)
    bptt.train(PROSE, **flags, out=tmp_path / "run", stop_after=9)
    parts = bptt.train(PROSE, resume=tmp_path / "run", report=None)
    np.testing.assert_array_equal(tree.ravel(parts.params), tree.ravel(whole.params))


def test_micro_batches_take_less_memory():
    peaks = []
    for count in (1, 8):
        run = prepare_run(PROSE * 20, micro_batches=count, hidden=32, batch=64, length=64, steps=2)
        tracemalloc.start()
        list(stepper.run_updates(run.task, run.now.state))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] / 4


def test_a_loss_that_is_not_finite_stops_a_run_with_micro_batches(tmp_path):
    flags = {"optimizer": "sgd", "learning_rate": 1e300, "clip_norm": 1e6, "dtype": "float64", "backend": "numpy"}
    with pytest.raises(bptt.Diverged, match="NaN or infinity in"):
        bptt.train(PROSE, micro_batches=2, hidden=5, batch=6, steps=30, report=None, **flags)
