"""Several small updates at a time: the bits of one after the other, and nothing that is due is passed over."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bptt
from bptt import acceleration, dispatch
from bptt.config.settings import from_flags
from bptt.nn import optimizers, segments, tree
from bptt.train_step import stepper
from bptt.training import intervals, setup
from runs import replace_adam

NAMES = [a + b + c for a in "bdk" for b in "aeiou" for c in ("nn", "r")]  # 30 lines of 3 or 4 characters
PROSE = "the cat sat on the mat, and the dog did not. " * 8 + "\n"  # a stream of 361 characters
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])


@pytest.fixture(params=["pure", "kernels"], autouse=True)
def _both(request, monkeypatch):
    """Each test without compiled kernels, and with them where they can be."""
    with dispatch.restored():
        dispatch.disable()
        monkeypatch.setenv("BPTT_KERNELS", "0")
        if request.param == "kernels":
            pytest.importorskip("llvmlite", reason="llvmlite is not installed: pip install '.[fast]'")
            monkeypatch.setenv("BPTT_KERNELS", "1")
            assert acceleration.enable()
        yield


def prepare_run(text: Any = NAMES, **flags: Any) -> setup.Prepared:
    small = {"hidden": 5, "steps": 12, "batch": 4, "length": 9, "backend": "numpy", "validation": 0}
    return setup.from_scratch(text, from_flags({**small, **flags}))


def run_grouped(run: setup.Prepared, many: int) -> tuple[Any, list[Any], list[int]]:
    """The state at the end, all traces, and how many came at a time where up to `many` may."""
    pairs = list(stepper.run_updates(run.task, run.now.state, lambda _: many))
    return pairs[-1][0], [trace for _, traces in pairs for trace in traces], [len(traces) for _, traces in pairs]


@CELLS
@pytest.mark.parametrize("mode", ["lines", "stream"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer": "adam", "layers": 2, "dropout": 0.4, "length": 2},  # states from one window to the next
        {"optimizer": "sgd", "hidden": 33, "dropout": 0.0, "batch": 7},
        {"optimizer": "adam", "hidden": 16, "dropout": 0.0, "batch": 1, "clip_norm": 0.1},
    ],
)
def test_grouped_updates_equal_single_updates_bit_for_bit(cell, mode, dtype, flags):
    run = prepare_run(NAMES if mode == "lines" else PROSE, mode=mode, cell=cell, dtype=dtype, **flags)
    many, traces, groups = run_grouped(run, 5)
    one, others, singles = run_grouped(run, 1)
    assert set(singles) == {1}
    assert max(groups) == (4 if mode == "lines" and flags.get("length") == 2 else 5)  # there some windows begin in padding
    for (name, a), (_, b) in zip(tree.named_leaves(tuple(many)), tree.named_leaves(tuple(one)), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert [trace._replace(start_states=None) for trace in traces] == [trace._replace(start_states=None) for trace in others]


@CELLS
def test_grouping_does_not_depend_on_where_a_run_is_interrupted(tmp_path, cell):
    (tmp_path / "names").write_text("\n".join(NAMES) + "\n")
    flags = {"cell": cell, "hidden": 6, "steps": 37, "batch": 4, "backend": "numpy", "report": None, "dropout": 0.2}
    whole = bptt.train(tmp_path / "names", **flags)
    bptt.train(tmp_path / "names", **flags, stop_after=5, out=tmp_path / "run")
    for stop in (7, 11, 99):
        parts = bptt.train(resume=tmp_path / "run", stop_after=stop, report=None)
    np.testing.assert_array_equal(tree.ravel(parts.params), tree.ravel(whole.params))


def never_grouped(run: setup.Prepared) -> bool:
    return set(run_grouped(run, 4)[2]) == {1}


def test_unsupported_settings_are_updated_one_at_a_time(monkeypatch):
    assert not never_grouped(prepare_run())
    assert not never_grouped(prepare_run(clip_norm=0, optimizer="rmsprop"))
    assert never_grouped(prepare_run(recompute_every=2))
    assert never_grouped(prepare_run(backend="strict"))  # a look at its numbers would wait for a device
    monkeypatch.setattr(segments, "MIN_SAVING", 4 * 5 * 5.0)  # less than one batch
    assert never_grouped(prepare_run())


def test_a_window_with_a_finished_column_is_not_grouped():
    run = prepare_run(["a" * 9, "b"], batch=2, length=4)
    assert run_grouped(run, 4)[2] == [1] * 12  # but the first of three windows has nothing to be together with
    assert max(run_grouped(prepare_run(["a" * 9, "b" * 9], batch=2, length=4), 4)[2]) == 4


@pytest.mark.parametrize("rate", [1e25, 1e38])
@np.errstate(all="ignore")
def test_a_failing_update_in_a_group_is_found_as_if_single(monkeypatch, rate):
    flags = {"steps": 40, "optimizer": "sgd", "learning_rate": rate, "clip_norm": 1e6, "validation": 0, "backend": "numpy"}
    run = prepare_run(**{**flags, "hidden": 8, "steps": 12})
    many, one = run_grouped(run, 12)[0], run_grouped(run, 1)[0]
    assert not many.finite
    np.testing.assert_array_equal(many.params_vector, one.params_vector)
    words = []
    for most in (16, 1):
        monkeypatch.setattr(intervals, "SYNC_EVERY", most)
        with pytest.raises((bptt.Diverged, bptt.TrainingWarning)) as failed:
            bptt.train(NAMES, hidden=8, report=None, **flags)
        words.append(str(failed.value))
    assert words[0] == words[1]


@pytest.mark.parametrize("error", [MemoryError("too much"), KeyboardInterrupt()])
def test_an_exception_keeps_the_updates_before_it(monkeypatch, error):
    run, calls = prepare_run(), []

    def adam(*arguments, **options):
        calls.append(None)
        if len(calls) == 6:
            raise error
        return optimizers.adam(*arguments, **options)

    expected = [state.params_vector for state, _ in stepper.run_updates(run.task, run.now.state)]
    replace_adam(monkeypatch, adam)
    following = stepper.run_updates(run.task, run.now.state, lambda _: 4)
    found = [next(following), next(following)]
    with pytest.raises(type(error)):
        next(following)
    assert [len(traces) for _, traces in found] == [4, 1]
    np.testing.assert_array_equal(found[1][0].params_vector, expected[4])


def test_a_bad_update_stops_learning():
    run = prepare_run()
    dead = run.now.state._replace(finite=np.bool_(False))
    after, _ = list(stepper.run_updates(run.task, dead, lambda _: 4))[-1]
    np.testing.assert_array_equal(after.params_vector, dead.params_vector)


counts = st.integers(1, 60)


@settings(deadline=None, max_examples=200)
@given(evaluate=counts, save=counts, steps=st.integers(1, 400), first=st.integers(0, 50), stop=st.none() | counts)
def test_no_evaluation_or_checkpoint_is_skipped(evaluate, save, steps, first, stop):
    """From any step on, a run arrives at every update after which there is something to do."""
    plan = SimpleNamespace(steps=steps, evaluate_every=evaluate, checkpoint_every=save)
    task = SimpleNamespace(plan=plan, settings=SimpleNamespace(stop_after=stop))
    end = steps if stop is None else min(steps, first + stop)

    def due(step: int) -> bool:
        return any(intervals.due(task, step, first, []))

    step, arrived = first, []
    while step < end:
        free = intervals.updates_until_due(task, step, first)
        assert 1 <= free <= stepper.SYNC_EVERY
        step = min(step + free, steps)
        arrived.append(step)
    assert [step for step in range(first + 1, end + 1) if due(step)] == [step for step in arrived if due(step)]
