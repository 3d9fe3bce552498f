"""Updates captured as CUDA graphs equal those of `update`; the graph is a stand-in that calls the function."""

import numpy as np
import pytest

import bptt
from bptt import acceleration, dispatch, errors
from bptt.backend import select
from bptt.config.settings import from_flags
from bptt.data import batches
from bptt.nn import gradient, tree
from bptt.train_step import graphed, stepper
from bptt.training import setup
from runs import NAMES, PROSE

CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])


class Recorder:
    """A recorder that repeats by calling, and counts."""

    def __init__(self, error=None):
        self.recorded, self.repeated, self.error = 0, 0, error

    def __call__(self, action):
        self.recorded += 1
        if self.error:
            raise self.error

        def repeat():
            self.repeated += 1
            action()

        return repeat


@pytest.fixture(autouse=True)
def _pure():
    with dispatch.restored():
        dispatch.disable()
        yield


def prepare_run(text=NAMES, **flags):
    small = {"hidden": 5, "steps": 24, "batch": 6, "length": 9, "backend": "strict", "validation": 0, "dtype": "float64"}
    return setup.from_scratch(text, from_flags({**small, **flags}))


def run_captured(monkeypatch, run, recorder, many=5):
    monkeypatch.setattr(acceleration, "graph_recorder", lambda: recorder)
    pairs = list(stepper.run_updates(run.task, run.now.state, lambda _: many))
    return pairs[-1][0], [trace for _, traces in pairs for trace in traces], [len(traces) for _, traces in pairs]


@CELLS
@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (NAMES, {"layers": 2, "dropout": 0.3, "length": 3}),  # states from one window to the next
        (NAMES, {"optimizer": "sgd", "clip_norm": 0}),
        (PROSE, {"layers": 2, "dropout": 0.3}),
        (PROSE, {"average": 0.8, "parametrization": "mup", "weight_decay": 0.1, "schedule": "wsd", "beta2": 0.9}),
        (PROSE, {"mode": "stream", "length": 7, "optimizer": "rmsprop"}),
    ],
)
def test_captured_updates_equal_those_of_update(monkeypatch, cell, text, flags):
    run, recorder = prepare_run(text, cell=cell, **flags), Recorder()
    got, traces, groups = run_captured(monkeypatch, run, recorder)
    expected, others, singles = run_captured(monkeypatch, run, None)
    assert (set(singles), max(groups)) == ({1}, 5)
    assert recorder.recorded
    assert recorder.repeated > 8
    assert got[:2] == expected[:2]
    for field in (
        "params_vector",
        "opt_state",
        "finite",
        *(["states"] if text is PROSE else []),
        *(["average"] if "average" in flags else []),
    ):  # those after padding are nobody's
        for pair in zip(*(tree.leaves(getattr(one, field)) for one in (got, expected)), strict=True):
            a, b = map(run.task.backend.get, pair)
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=field)
    for trace, other in zip(traces, others, strict=True):
        assert (trace.position, trace.learning_rate, trace.targets) == (other.position, other.learning_rate, other.targets)
        for a, b in ((trace.loss, other.loss), (trace.grad_norm, other.grad_norm)):
            np.testing.assert_allclose(*map(run.task.backend.get, (a, b)), rtol=1e-9)


def test_captured_updates_do_not_change_states_already_returned(monkeypatch):
    run = prepare_run(PROSE)
    monkeypatch.setattr(acceleration, "graph_recorder", lambda: Recorder())
    get, seen = run.task.backend.get, []
    for state, traces in stepper.run_updates(run.task, run.now.state, lambda _: 4):
        arrays = [state.params_vector, *state.opt_state, state.states, state.finite, *(trace.loss for trace in traces)]
        seen.append((arrays, [get(array).copy() for array in arrays]))
    assert len(seen) == 6
    for arrays, before in seen:
        for array, then in zip(arrays, before):
            np.testing.assert_array_equal(get(array), then)


def test_updates_that_cannot_be_captured_run_without_a_graph(monkeypatch):
    run, recorder = prepare_run(), Recorder(errors.CaptureError("a matrix product"))
    got, expected = (run_captured(monkeypatch, run, one)[0] for one in (recorder, None))
    assert (recorder.recorded, recorder.repeated) == (1, 0)  # one shape, tried once
    np.testing.assert_allclose(
        run.task.backend.get(got.params_vector), run.task.backend.get(expected.params_vector), rtol=0, atol=1e-12
    )


def test_an_exception_keeps_the_updates_before_it(monkeypatch):
    run, calls, act = prepare_run(), [], acceleration.GraphCache.run

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 8:
            raise KeyboardInterrupt
        act(*arguments)

    monkeypatch.setattr(acceleration.GraphCache, "run", failing)
    monkeypatch.setattr(acceleration, "graph_recorder", lambda: Recorder())
    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(stepper.run_updates(run.task, run.now.state, lambda _: 5))
    assert [len(traces) for _, traces in found] == [5, 2]
    expected = list(stepper.run_updates(run.task._replace(settings=from_flags({"graph": False})), run.now.state))[6][0]
    assert found[-1][0][:2] == expected[:2]
    np.testing.assert_allclose(
        *(run.task.backend.get(one.params_vector) for one in (found[-1][0], expected)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("text", [NAMES, PROSE], ids=["lines", "stream"])
@np.errstate(all="ignore")
def test_a_bad_update_is_found_as_without_a_graph(monkeypatch, text):
    flags = {"steps": 40, "optimizer": "sgd", "learning_rate": 1e300, "clip_norm": 1e6, "dtype": "float64", "backend": "strict"}
    words = []
    for recorder in (Recorder(), None):
        monkeypatch.setattr(acceleration, "graph_recorder", lambda recorder=recorder: recorder)
        with pytest.raises((bptt.Diverged, bptt.TrainingWarning)) as failed:
            bptt.train(text, hidden=8, batch=6, report=None, **flags)
        words.append(str(failed.value))
    assert words[0] == words[1]


def test_a_bad_update_leaves_the_state_unchanged(monkeypatch):
    run, real = prepare_run(PROSE, hidden=4), gradient.loss_and_grad
    found = []
    for recorder in (Recorder(), None):
        calls = []

        def seventh_is_bad(*arguments, calls=calls):
            calls.append(arguments)
            loss, d, states = real(*arguments)
            return loss * (np.inf if len(calls) == 7 else 1.0), d, states

        monkeypatch.setattr(gradient, "loss_and_grad", seventh_is_bad)
        state, traces, _ = run_captured(monkeypatch, run, recorder)
        found.append([run.task.backend.get(array) for array in (state.params_vector, traces[6].start_states, traces[6].loss)])
    for got, expected in zip(*found):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert np.isinf(found[0][2])


def window(*columns, steps, start=True):
    places = np.array(columns).T
    return batches.Window(places, steps, int(np.minimum(places[1] - places[0], steps).sum()), start)


def test_graph_keys_pad_to_few_shapes_without_adding_targets():
    assert graphed.graph_key(window((0, 9), (20, 25), steps=9)) == (16, 2, True, False)
    assert graphed.graph_key(window((0, 9), (20, 29), steps=9)) == (16, 2, True, False)  # in spite of being full
    assert graphed.graph_key(window((0, 8), (20, 28), steps=8)) == (8, 2, True, True)
    assert graphed.graph_key(window((0, 90), (20, 25), steps=9, start=False)) == (9, 2, False, False)  # the first one goes on


@pytest.mark.parametrize("flags", [{"graph": False}, {"recompute_every": 3}, {"backend": "numpy"}])
def test_unsupported_settings_are_not_captured(monkeypatch, flags):
    recorder = Recorder()
    run_captured(monkeypatch, prepare_run(**flags), recorder)
    assert not recorder.recorded


def test_a_text_that_does_not_fit_the_device_is_not_captured(monkeypatch):
    monkeypatch.setattr(type(select("strict")), "text_capacity", lambda self: 0)
    recorder = Recorder()
    run_captured(monkeypatch, prepare_run(), recorder)
    assert not recorder.recorded
    assert stepper.SYNC_EVERY > 5
