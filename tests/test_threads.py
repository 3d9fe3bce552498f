"""Parts of a batch: the whole batch as oracle, one thread as oracle of many."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import bptt
from bptt import backend as backends
from bptt.nn import cells, gradient, model, tree
from bptt.train_step import threads

CELLS = pytest.mark.parametrize("cell", cells.CELLS)
HERE = backends.select("numpy", "float64")
T, B, V, H = 5, 70, 6, 4


def inputs(cell: str, layers: int = 1, *, carried: bool = True) -> Any:
    rng = np.random.default_rng(layers)
    config = model.Config(cell, V, H, layers)
    params = tree.tree_map(lambda a: a + 0.3 * rng.normal(size=a.shape), model.init(config, rng))
    State = cells.CELLS[cell].State
    states = tuple(State(*(rng.normal(size=(B, H)) for _ in State._fields)) for _ in range(layers))
    lengths = rng.integers(0, T + 1, B)
    lengths[0], lengths[40:] = T, 0  # the last ones are over
    mask = (np.arange(T)[:, None] < lengths).astype(float)
    x, y = rng.integers(0, V, (2, T, B))
    return (config, params, x, y, mask, states if carried else None, model.dropout_masks(config, rng, 0.3, B)), lengths


@pytest.fixture
def small(monkeypatch: Any) -> None:
    """Let small batches be dealt out, too."""
    monkeypatch.setattr(threads, "LARGE", 1.0)
    monkeypatch.setattr(threads, "WIDTH", 8)


def in_parts(executor: Any, given: Any, lengths: Any, every: Any = None) -> Any:
    """What gives in parts what `model.loss_and_grad` gives, of the same arguments."""
    config, params, x, y, mask, states, keep = given
    start = gradient.stack_states(states) if states else None
    found = threads.loss_and_grad(
        tree.ravel(params),
        config,
        x,
        y,
        mask,
        start,
        keep,
        count=None,
        lengths=lengths,
        recompute_every=every,
        executor=executor,
    )
    return found[0], tree.unravel(found[1], model.shapes(config)), gradient.unstack_states(config, found[2])


@CELLS
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("every", [None, 2])
def test_slices_of_a_batch_add_up_to_the_whole_gradient(small, cell, layers, carried, every):
    given, lengths = inputs(cell, layers, carried=carried)
    assert len(threads.split_columns(given[0], lengths)) > 4
    expected = model.loss_and_grad(*given)
    got = in_parts(None, given, lengths, every)
    for (name, a), (other, b) in zip(tree.named_leaves(got[:2]), tree.named_leaves(expected[:2]), strict=True):
        assert name == other
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=name)
    for a, b in zip(tree.leaves(got[2]), tree.leaves(expected[2]), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a[lengths == T], b[lengths == T], rtol=0, atol=1e-12)


@CELLS
def test_several_threads_give_the_bits_of_one(small, cell):
    given, lengths = inputs(cell)
    one = in_parts(None, given, lengths)
    with ThreadPoolExecutor(3) as executor:
        many = in_parts(executor, given, lengths)
    for (name, a), (_, b) in zip(tree.named_leaves(one), tree.named_leaves(many), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(
    ("cell", "hidden", "batch", "steps", "expected"),
    [
        ("gru", 512, 1, 32, 1),
        ("gru", 512, 31, 32, 1),  # too few columns
        ("gru", 512, 32, 32, 2),
        ("gru", 512, 64, 32, 2),
        ("gru", 512, 96, 32, 3),
        ("gru", 512, 300, 32, 9),
        ("vanilla", 50, 256, 32, 1),  # too little to do
        ("gru", 128, 64, 16, 2),
        ("vanilla", 128, 64, 16, 1),
    ],
)
def test_the_number_of_slices_depends_only_on_the_sizes(cell, hidden, batch, steps, expected):
    found = threads.split_columns(model.Config(cell, 27, hidden), np.full(batch, steps))
    assert len(found) == expected
    widths = [part.stop - part.start for part in found]
    assert (sum(widths), found[0].start, found[-1].stop) == (batch, 0, batch)
    assert max(widths) - min(widths) <= 1


def test_slices_have_about_the_same_number_of_steps():
    lengths = np.sort(np.random.default_rng(0).integers(1, 30, 128))[::-1]
    steps = [lengths[part].sum() for part in threads.split_columns(model.Config("gru", 27, 512), lengths)]
    assert len(steps) == 4
    assert max(steps) - min(steps) < 60


@pytest.mark.parametrize("lengths", [[9] + [0] * 63, [0] * 63 + [9], [9, *[0] * 62, 9]])
def test_no_slice_is_empty(small, lengths):
    config, lengths = model.Config("gru", 27, 512), np.array(lengths)
    parts = threads.split_columns(config, lengths)
    assert all(lengths[part].any() for part in parts)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(64))


def test_blas_uses_one_thread_while_the_package_uses_several(monkeypatch):
    def blas() -> list[int]:
        return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, "blas"):
        before = blas()
        monkeypatch.setattr(threads, "workers", lambda: 2)
        with threads.thread_pool(HERE) as executor:
            assert executor._max_workers == 2
            assert blas() == [1] * len(before)
        assert blas() == before
        with threads.thread_pool(backends.select("strict", "float64")) as executor:
            assert executor is None
            assert blas() == before
        monkeypatch.setattr(threads, "workers", lambda: 1)
        with threads.thread_pool(HERE) as executor:
            assert executor is None


@pytest.mark.parametrize(("cores", "blas", "expected"), [(4, [8], 4), (8, [2, 64], 2), (3, [], 3)])
def test_workers_are_limited_by_cores_and_blas_threads(monkeypatch, cores, blas, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(threads, "threadpool_info", lambda: [{"user_api": "openmp", "num_threads": 1}, *map(as_blas, blas)])
    assert threads.workers() == expected


def as_blas(threads: int) -> dict[str, Any]:
    return {"user_api": "blas", "num_threads": threads}


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_a_training_run_is_the_same_on_one_core_and_on_two(small, monkeypatch, mode):
    def theta(workers: int) -> Any:
        monkeypatch.setattr(threads, "workers", lambda: workers)
        flags = {"hidden": 8, "batch": 40, "length": 30, "steps": 6, "seed": 3, "mode": mode, "backend": "numpy"}
        return tree.ravel(bptt.train("dinosaurs", report=None, **flags).params)

    pools = []
    monkeypatch.setattr(threads, "ThreadPoolExecutor", lambda n, **how: pools.append(n) or ThreadPoolExecutor(n, **how))
    one, two = theta(1), theta(2)
    assert pools == [2]
    np.testing.assert_array_equal(one, two)


def test_overflow_in_a_thread_gives_no_warning(small, monkeypatch):
    """A thread does not inherit the error settings of NumPy in another; a warning would be an error here."""
    monkeypatch.setattr(threads, "workers", lambda: 2)
    flags = {
        "hidden": 8,
        "batch": 40,
        "steps": 20,
        "evaluate_every": 20,
        "optimizer": "sgd",
        "learning_rate": 1e200,
        "clip_norm": 0,
        "cell": "lstm",
    }
    with pytest.raises(bptt.Diverged):
        bptt.train("dinosaurs", report=None, backend="numpy", **flags)
