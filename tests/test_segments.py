"""Segments: the gradient of the whole batch in less time and memory, in the pure functions, in kernels and in training."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import acceleration, dispatch
from bptt.display import plots
from bptt.nn import gradient, model, segments, tree
from conftest import variant

CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
T, B, V, H = 5, 3, 6, 4
EVERY = pytest.mark.parametrize("every", [variant(1), 2, variant(3), variant(T)])  # others come to one of these, see below
NAMES = [a + b + c for a in "bdk" for b in "aeiou" for c in ("nn", "r")]  # 30 lines of 3 or 4 characters
PROSE = "the cat sat on the mat, and the dog did not. " * 8 + "\n"  # a stream of 361 characters


def random_batch(cell: str, layers: int, initial: str = "learned", *, carried: bool = False, rate: float = 0.0) -> Any:
    """A config, and parameters of which none is zero, a batch whose mask ends two steps early, states and masks."""
    rng = np.random.default_rng(layers)
    config = model.Config(cell, V, H, layers, initial)
    params = tree.tree_map(lambda array: array + 0.4 * rng.normal(size=array.shape), model.init(config, rng))
    x, y = rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B))
    mask = (np.arange(T)[:, None] < np.array([T - 2, 1, T - 3])).astype(float)
    states = model.forward(config, params, rng.integers(0, V, (3, B)))[1] if carried else None
    return config, (params, x, y, mask, states, model.dropout_masks(config, rng, rate, B))


def in_segments(config: model.Config, lengths: Any = None, every: segments.RecomputeEvery | None = None) -> Any:
    """A function of the arguments of `model.loss_and_grad` that computes its results in segments."""

    def run(params: Any, x: Any, y: Any, mask: Any, states: Any = None, keep: Any = ()) -> Any:
        start = gradient.stack_states(states) if states else None
        found = segments.loss_and_grad(
            tree.ravel(params), config, x, y, mask, start, keep, lengths=lengths, recompute_every=every
        )
        return found[0], tree.unravel(found[1], model.shapes(config)), gradient.unstack_states(config, found[2])

    return run


def recomputed(config: model.Config, every: segments.RecomputeEvery) -> Any:
    return in_segments(config, every=every)


# The same gradient


@pytest.mark.compiled
@CELLS
@EVERY
@pytest.mark.parametrize("kind", ["new text", "carried state, dropout and two layers"])
def test_recomputing_gives_the_same_loss_gradient_and_states(lab, cell, every, kind):
    config, arguments = random_batch(cell, 1) if kind == "new text" else random_batch(cell, 2, carried=True, rate=0.4)
    lab.close(lab.call(recomputed(config, every), *arguments), model.loss_and_grad(config, *arguments))


@pytest.mark.compiled
@CELLS
def test_recomputing_works_with_two_layers_and_dropout(lab, cell):
    """The learned states at the beginning get a gradient from the first segment alone."""
    config, arguments = random_batch(cell, 2, rate=0.4)
    expected = model.loss_and_grad(config, *arguments)
    assert tree.ravel(expected[1].initial).all()
    lab.close(lab.call(recomputed(config, "sqrt"), *arguments), expected)


@pytest.mark.parametrize("every", [None, 1, 2])
def test_the_learned_initial_state_of_each_field_begins_a_text(short_segments, every):
    """Those of an LSTM are two per layer: each has its gradient, from the first segment alone."""
    config, arguments = random_batch("lstm", 2)
    expected = model.loss_and_grad(config, *arguments)
    gradients = [array for _, array in tree.named_leaves(expected[1].initial)]
    assert len(gradients) == 4
    assert all(array.all() for array in gradients)
    got = in_segments(config, lengths=[3, 1, 2], every=every)(*arguments)
    for (name, one), (_, other) in zip(tree.named_leaves(got[1]), tree.named_leaves(expected[1])):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.compiled
@CELLS
def test_recomputing_works_with_a_zero_initial_state(lab, cell):
    config, arguments = random_batch(cell, 1, "zero")
    lab.close(lab.call(recomputed(config, 2), *arguments), model.loss_and_grad(config, *arguments))


@CELLS
@pytest.mark.parametrize("every", [T, T + 2])
def test_a_single_segment_gives_the_same_bits(cell, every):
    config, arguments = random_batch(cell, 2, rate=0.4)
    pair = model.loss_and_grad(config, *arguments), recomputed(config, every)(*arguments)
    for (name, a), (_, b) in zip(*map(tree.named_leaves, pair)):
        np.testing.assert_array_equal(a, b, err_msg=name)


@CELLS
def test_the_final_states_are_equal_bit_for_bit(cell):
    config, arguments = random_batch(cell, 1)
    after = model.loss_and_grad(config, *arguments)[2]
    for every in (2, 3, "sqrt"):
        for a, b in zip(tree.leaves(after), tree.leaves(recomputed(config, every)(*arguments)[2])):
            np.testing.assert_array_equal(a, b)
            assert b.base.size == sum(c.size for c in tree.leaves(after))  # no view of the states of a whole segment


@CELLS
def test_the_gradient_is_not_truncated_between_segments(cell):
    """The only target is the last one, and the gradient reaches the first token, many segments before."""
    config, (params, x, y, mask, *_) = random_batch(cell, 1)
    x, mask = np.minimum(x, V - 2), np.zeros_like(mask)
    x[0], mask[-1, 0] = V - 1, 1.0
    _, gradient, _ = recomputed(config, 2)(params, x, y, mask)
    assert gradient.layers[0].Wax[:, V - 1].all()


@pytest.mark.parametrize(("every", "T", "k"), [(1, 9, 1), (4, 9, 4), (99, 9, 9), ("sqrt", 1, 1), ("sqrt", 2, 2)])
def test_segment_length_follows_the_setting(every, T, k):
    assert segments.segment_length(every, T) == k


def test_sqrt_is_the_square_root_rounded_up():
    for steps in (*range(1, 300), 10**6 - 1, 10**6, 10**6 + 1, 10**30 + 1):
        k = segments.segment_length("sqrt", steps)
        assert (k - 1) ** 2 < steps <= k**2


@CELLS
def test_kernels_recompute_with_the_same_results(cell):
    pytest.importorskip("llvmlite", reason="llvmlite is not installed: pip install '.[fast]'")
    config, arguments = random_batch(cell, 2, carried=True, rate=0.4)
    expected = model.loss_and_grad(config, *arguments)
    assert acceleration.enable()
    try:
        for every in (1, 2, 3, T, "sqrt"):
            for (name, a), (_, b) in zip(tree.named_leaves(recomputed(config, every)(*arguments)), tree.named_leaves(expected)):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=f"{every} {name}")
    finally:
        dispatch.disable()


# Past columns that are over


def ragged_batch(cell: str, layers: int, lengths: list[int], *, carried: bool) -> Any:
    """A config, and a batch whose columns have so many steps."""
    rng = np.random.default_rng(sum(lengths))
    config = model.Config(cell, V, H, layers)
    params = tree.tree_map(lambda array: array + 0.4 * rng.normal(size=array.shape), model.init(config, rng))
    columns = len(lengths)
    x, y = rng.integers(0, V, (2, max(lengths), columns))
    mask = (np.arange(max(lengths))[:, None] < np.array(lengths)).astype(float)
    states = model.forward(config, params, rng.integers(0, V, (3, columns)))[1] if carried else None
    return config, (params, x, y, mask, states, model.dropout_masks(config, rng, 0.4, columns))


@pytest.fixture
def short_segments(monkeypatch):
    """Let a segment end at the end of each column, however little that saves."""
    monkeypatch.setattr(segments, "MIN_SAVING", 0.0)
    monkeypatch.setattr(segments, "MAX_FINISHED", 0.0)


@pytest.mark.compiled
@CELLS
@pytest.mark.parametrize("lengths", [variant([5, 4, 2, 2, 1]), variant([3, 1, 0]), [1, 4, 4, 2]])
@pytest.mark.parametrize("every", [None, 2])
def test_finished_columns_cost_nothing_and_change_nothing(lab, monkeypatch, short_segments, cell, lengths, every):
    config, given = ragged_batch(cell, 2, lengths, carried=len(lengths) != 5)
    expected = model.loss_and_grad(config, *given)
    computed, outer = [], []

    def spy(real, place):
        def counting(*arguments):
            if not outer:  # of a function that calls the other, or whose kernel does not
                computed.append(arguments[place].shape[0] * arguments[place].shape[1])
            outer.append(real)
            try:
                return real(*arguments)
            finally:
                outer.pop()

        return counting

    monkeypatch.setattr(model, "forward", spy(model.forward, 2))
    monkeypatch.setattr(gradient, "segment_loss_and_grad", spy(gradient.segment_loss_and_grad, 2))
    got = lab.call(in_segments(config, lengths, every), *given)
    lab.close(got[:2], expected[:2])
    if lengths == sorted(lengths, reverse=True):
        assert sum(computed) == sum(lengths)
        for column, steps in enumerate(lengths):  # that of a column that is over is the one at its end
            if steps:
                _, after, _ = model.forward(config, given[0], given[1][:steps], given[4], given[5])
                for a, b in zip(tree.leaves(got[2]), tree.leaves(after)):
                    lab.close(a[column], b[column])
    whole = [column for column, steps in enumerate(lengths) if steps == max(lengths)]
    assert [a.shape for a in tree.leaves(got[2])] == [b.shape for b in tree.leaves(expected[2])]
    lab.close(*(tree.tree_map(lambda a: a[whole], states) for states in (got[2], expected[2])))


@pytest.mark.parametrize(
    ("lengths", "most", "expected"),
    [
        ([5, 5, 5], 9, [(0, 5, 3)]),
        ([5, 5, 5], 2, [(0, 2, 3), (2, 4, 3), (4, 5, 3)]),
        ([5, 4, 2, 2, 1], 9, [(0, 1, 5), (1, 2, 4), (2, 4, 2), (4, 5, 1)]),
        ([5, 4, 2, 2, 1], 1, [(0, 1, 5), (1, 2, 4), (2, 3, 2), (3, 4, 2), (4, 5, 1)]),
        ([2, 0, 4, 0], 9, [(0, 4, 3)]),
        ([0, 0], 9, []),
    ],
)
def test_a_segment_ends_where_a_column_ends(short_segments, lengths, most, expected):
    assert segments.split(model.Config("gru", V, H), lengths, most) == expected


def test_a_segment_ends_where_half_its_columns_end_if_that_pays():
    lengths = [9] * 16 + [6] * 8 + [4] * 8
    assert segments.split(model.Config("gru", V, 512), lengths, 99) == [(0, 6, 32), (6, 9, 16)]
    assert segments.split(model.Config("gru", V, 64), lengths, 99) == [(0, 9, 32)]


@pytest.mark.parametrize(("saved", "ends"), [(48, True), (49, False)])
def test_the_saving_of_a_segment_end_counts_steps_of_columns(monkeypatch, saved, ends):
    """16 columns are over after 6 steps of 9: 48 steps of a column, each of them through all gates of both layers."""
    config, lengths = model.Config("gru", V, 10, layers=2), [9] * 16 + [6] * 8 + [4] * 8
    monkeypatch.setattr(segments, "MIN_SAVING", saved * 2 * 3 * 10**2)
    assert segments.split(config, lengths, 99) == ([(0, 6, 32), (6, 9, 16)] if ends else [(0, 9, 32)])


@CELLS
@pytest.mark.parametrize("every", [1, 2, 3])
def test_all_steps_except_the_last_segment_are_computed_twice(monkeypatch, cell, every):
    config, arguments = random_batch(cell, 1)
    computed, real = [], model.run_layers

    def counting(config, params, x, *rest):
        computed.append(x.shape[0])
        return real(config, params, x, *rest)

    monkeypatch.setattr(model, "run_layers", counting)
    with dispatch.restored():
        dispatch.disable()  # a kernel would run the steps of a segment by itself
        recomputed(config, every)(*arguments)
    assert sum(computed) == 2 * T - (T % every or every)


# In less memory


@CELLS
def test_memory_grows_with_the_square_root_of_the_steps(cell):
    """Beside parameters, tokens and mask, which are there before: for four times the steps no more than about twice as much."""
    config = model.Config(cell, V, 16, 2)
    rng = np.random.default_rng(0)
    params = model.init(config, rng)

    def peak(steps: int, function: Any) -> int:
        x, y, mask = rng.integers(0, V, (steps, 1)), rng.integers(0, V, (steps, 1)), np.ones((steps, 1))
        tracemalloc.start()
        try:
            function(config, params, x, y, mask)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with dispatch.restored():
        dispatch.disable()  # Python does not see what the kernels take
        function = lambda config, *given: in_segments(config, every="sqrt")(*given)  # noqa: E731
        peak(16, function)  # what a first call keeps for ever
        short, long = (peak(steps, function) for steps in (256, 1024))
        assert long < 2.2 * short
        assert long < peak(1024, model.loss_and_grad) / 10


# In training


def train(text: Any, **flags: Any) -> bptt.LanguageModel:
    small = {"hidden": 5, "layers": 2, "dropout": 0.3, "steps": 6, "batch": 4, "length": 9, "backend": "numpy"}
    return bptt.train(text, report=None, **{**small, "dtype": "float64", **flags})


@CELLS
@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_a_run_that_recomputes_gives_the_same_weights(monkeypatch, cell, mode):
    text, settings_seen = (NAMES if mode == "lines" else PROSE), []
    real = segments.loss_and_grad

    def spy(*arguments, recompute_every, **rest):
        settings_seen.append(recompute_every)
        return real(*arguments, recompute_every=recompute_every, **rest)

    plain = train(text, cell=cell, mode=mode)
    monkeypatch.setattr(segments, "loss_and_grad", spy)
    train(text, cell=cell, mode=mode)
    assert settings_seen == [None] * 6
    settings_seen.clear()
    for every in (2, "sqrt"):
        trained = train(text, cell=cell, mode=mode, recompute_every=every)
        assert settings_seen == [every] * 6
        assert trained.record["settings"]["recompute_every"] == every
        np.testing.assert_allclose(tree.ravel(trained.params), tree.ravel(plain.params), rtol=0, atol=1e-9)
        assert trained.record["loss"] == pytest.approx(plain.record["loss"], rel=1e-9)
        settings_seen.clear()
    many = train(text, cell=cell, mode=mode, recompute_every=9)  # as many steps as there are
    np.testing.assert_array_equal(tree.ravel(many.params), tree.ravel(plain.params))


def test_values_that_are_not_finite_are_found_segment_by_segment(monkeypatch):
    """As where all are stored; and no more steps than those of a segment are in memory."""
    real, seen = model.run_layers, []

    def spy(config, params, x, *rest):
        seen.append(x.shape[0])
        return real(config, params, x, *rest)

    flags = {"optimizer": "sgd", "learning_rate": 1e200, "clip_norm": 0, "validation": 0, "dropout": 0.0, "steps": 20}
    words = []
    for every in (None, 2):
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(model, "run_layers", spy)
            patch.setattr("bptt.training.messages.sample_preview", lambda *_: [])
            with pytest.warns(bptt.TrainingWarning, match="NaN or infinity in the states of layer 0") as warned:
                train(PROSE, mode="stream", recompute_every=every, **flags)
        words.append(str(warned[0].message))
        assert max(seen) == (every or 9)
    assert words[0] == words[1]


def test_a_resumed_run_recomputes_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)  # drawing takes longer than all the rest
    flags = {"mode": "stream", "recompute_every": 4, "dtype": "float32", "evaluate_every": 2}
    (tmp_path / "text.txt").write_text(PROSE)
    whole = train(tmp_path / "text.txt", out=tmp_path / "whole", **flags)
    train(tmp_path / "text.txt", out=tmp_path / "parts", stop_after=3, **flags)
    assert "recompute_every = 4\n" in (tmp_path / "parts" / "config.toml").read_text()
    parts = bptt.train(report=None, resume=tmp_path / "parts")
    assert parts.record["settings"]["recompute_every"] == 4
    np.testing.assert_array_equal(tree.ravel(parts.params), tree.ravel(whole.params))
    plain = train(tmp_path / "text.txt", **{**flags, "recompute_every": None})
    assert (tree.ravel(plain.params) != tree.ravel(whole.params)).any()  # rounding tells which of the two it was
