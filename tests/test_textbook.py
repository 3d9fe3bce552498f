"""The course's functions: its published numbers, gradients against central differences, the same results on every library."""

import math

import numpy as np
import pytest

from bptt import textbook
from bptt.backend import device, namespace, select
from bptt.errors import InputError

NAMES = ("Wax", "Waa", "Wya", "b", "by")
LETTERS = "\nabcdefghijklmnopqrstuvwxyz"
CHAR_TO_IX = {character: index for index, character in enumerate(LETTERS)}
IX_TO_CHAR = dict(enumerate(LETTERS))
LINES = ["Aachenosaurus", "  velociRAPTOR  ", "Mei", "Zby"]


def draw(n_a, n_x, n_y, seed=0):
    """Parameters and a0 large enough that no term of the gradient drowns in another."""
    random = np.random.default_rng(seed)
    shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "Wya": (n_y, n_a), "b": (n_a, 1), "by": (n_y, 1), "a0": (n_a, 1)}
    parameters = {name: random.normal(size=shape) * 0.7 for name, shape in shapes.items()}
    return parameters, parameters.pop("a0")


def freeze(arrays):
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def copies(arrays):
    return {name: array.copy() for name, array in arrays.items()}


def on_host(array):
    return np.from_dlpack(array, device="cpu")


def global_generator():
    state = np.random.get_state()  # noqa: NPY002 - the legacy generator is what must stay untouched
    return state[1].tobytes(), *state[2:]


# The course's published numbers


def test_clip_gives_the_published_numbers():
    random = np.random.RandomState(3)
    shapes = {"dWax": (5, 3), "dWaa": (5, 5), "dWya": (2, 5), "db": (5, 1), "dby": (2, 1)}
    clipped = textbook.clip({key: random.randn(*shape) * 10 for key, shape in shapes.items()}, 10)
    assert clipped["dWaa"][1][2] == 10
    assert clipped["dWax"][3][1] == -10
    assert clipped["dWya"][1][2] == 0.2971381536101662
    assert clipped["db"][4] == 10
    assert clipped["dby"][1] == pytest.approx(8.45833407, abs=5e-9)


def test_model_prints_the_published_losses_and_names(capsys, real_text):
    file = real_text("dinos.txt")
    textbook.model(file.read_text(encoding="utf-8"), IX_TO_CHAR, CHAR_TO_IX, num_iterations=6001)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("Iteration")] == [
        "Iteration: 0, Loss: 23.087336",
        "Iteration: 2000, Loss: 27.884160",
        "Iteration: 4000, Loss: 25.901815",
        "Iteration: 6000, Loss: 24.608779",
    ]
    start = printed.index("Iteration: 2000, Loss: 27.884160")
    assert printed[start + 1 : start + 11] == [
        "",
        "Liusskeomnolxeros",
        "Hmdaairus",
        "Hytroligoraurus",
        "Lecalosapaus",
        "Xusicikoraurus",
        "Abalpsamantisaurus",
        "Tpraneronxeros",
        "",
        "",
    ]


# The training loop and its small functions


def test_model_prints_sampled_names_every_2000_iterations(capsys):
    parameters = textbook.model(LINES, IX_TO_CHAR, CHAR_TO_IX, num_iterations=1, n_a=6, dino_names=3)
    printed = capsys.readouterr().out
    sampled = ["".join(IX_TO_CHAR[i] for i in textbook.sample(parameters, CHAR_TO_IX, seed)) for seed in range(3)]
    heading, names = printed.split("\n\n", 1)
    assert heading.startswith("Iteration: 0, Loss: 9.")  # 3 log 27 = 9.89: the course counts dino_names, not characters
    assert names == "".join(name[0].upper() + name[1:] for name in sampled) + "\n\n"
    textbook.model(LINES, IX_TO_CHAR, CHAR_TO_IX, num_iterations=2000, n_a=2, dino_names=1)
    assert capsys.readouterr().out.count("Iteration") == 1


@pytest.mark.parametrize("data", ["\n".join(LINES), "\n".join(LINES) + "\n", iter(LINES), [line + "\n" for line in LINES]])
def test_model_takes_a_text_or_its_lines(data, capsys):
    run = {"num_iterations": 9, "n_a": 5, "dino_names": 2}
    expected = textbook.model(LINES, IX_TO_CHAR, CHAR_TO_IX, **run)
    expected_print = capsys.readouterr().out
    got = textbook.model(data, IX_TO_CHAR, CHAR_TO_IX, **run)
    assert capsys.readouterr().out == expected_print
    assert all(np.array_equal(got[name], expected[name]) for name in NAMES)


def test_model_runs_optimize_on_shuffled_names_and_carries_the_state():
    names = ["aachenosaurus", "velociraptor", "mei", "zby"]
    np.random.RandomState(0).shuffle(names)
    parameters = textbook.initialize_parameters(5, 27, 27)
    a_prev = np.zeros((5, 1))
    for name in (names * 2)[:6]:
        ids = [CHAR_TO_IX[character] for character in name]
        _, _, a_prev = textbook.optimize([None] + ids, ids + [0], a_prev, parameters, learning_rate=0.01)
    got = textbook.model(LINES, IX_TO_CHAR, CHAR_TO_IX, num_iterations=6, n_a=5, dino_names=0)
    assert all(np.array_equal(got[name], parameters[name]) for name in NAMES)


def test_model_takes_a_smaller_vocabulary(capsys):
    small = {"\n": 0, "a": 1, "b": 2}
    parameters = textbook.model("ab\nba\n", dict(enumerate("\nab")), small, num_iterations=2, n_a=4, vocab_size=3)
    assert parameters["Wax"].shape == (4, 3)
    assert parameters["Wya"].shape == (3, 4)
    assert len(capsys.readouterr().out.splitlines()) == 2 + 7 + 2


def test_initialize_parameters_draws_in_the_order_of_the_course():
    parameters = textbook.initialize_parameters(5, 3, 2)
    drawn = np.random.RandomState(1).randn(5 * 3 + 5 * 5 + 2 * 5) * 0.01
    assert np.array_equal(np.concatenate([parameters[name].ravel() for name in ("Wax", "Waa", "Wya")]), drawn)
    assert [parameters[name].shape for name in NAMES] == [(5, 3), (5, 5), (2, 5), (5, 1), (2, 1)]
    assert not parameters["b"].any()
    assert not parameters["by"].any()
    assert all(parameters[name].dtype == np.float64 for name in NAMES)


def test_the_global_random_generator_is_not_changed(capsys):
    before = global_generator()
    parameters = textbook.initialize_parameters(4, 27, 27)
    assert global_generator() == before
    textbook.sample(parameters, CHAR_TO_IX, 0)
    assert global_generator() == before
    textbook.model(LINES, IX_TO_CHAR, CHAR_TO_IX, num_iterations=2, n_a=4)
    assert global_generator() == before


def test_clip_returns_new_arrays_and_does_not_change_its_input():
    gradients, _ = draw(3, 4, 5)
    gradients = {"d" + name: 100 * array for name, array in gradients.items()} | {"da_next": np.full((3, 1), 1000.0)}
    before = copies(gradients)
    clipped = textbook.clip(freeze(gradients), 5)
    assert all(np.array_equal(gradients[key], before[key]) for key in before)
    assert clipped.keys() == gradients.keys()
    assert clipped["da_next"] is gradients["da_next"]
    for name in NAMES:
        assert np.array_equal(clipped["d" + name], np.clip(before["d" + name], -5, 5))
        assert np.max(clipped["d" + name]) == 5 or np.min(clipped["d" + name]) == -5


def test_smooth_and_initial_loss():
    assert textbook.smooth(20.0, 10.0) == pytest.approx(19.99, abs=1e-14)
    assert textbook.get_initial_loss(27, 7) == pytest.approx(7 * math.log(27), rel=1e-15)


def test_update_parameters_is_plain_gradient_descent():
    parameters, _ = draw(3, 4, 5)
    gradients = {"d" + name: array for name, array in draw(3, 4, 5, seed=1)[0].items()}
    before = freeze(copies(parameters))
    updated = textbook.update_parameters(parameters, freeze(gradients), 0.1)
    assert updated is parameters
    for name in NAMES:
        assert np.array_equal(updated[name], before[name] - 0.1 * gradients["d" + name])


def test_optimize_clips_at_5_updates_and_returns_the_last_state():
    parameters, a0 = draw(4, 6, 6)
    parameters["Wya"] *= 20  # gradients far beyond 5
    X, Y = [None, 3, 1, 3], [3, 1, 3, 0]
    expected_loss, cache = textbook.rnn_forward(X, Y, a0, parameters, vocab_size=6)
    raw, a = textbook.rnn_backward(X, Y, parameters, cache)
    before = freeze(copies(parameters))
    loss, gradients, last = textbook.optimize(X, Y, a0, parameters, learning_rate=0.02)
    assert loss == expected_loss
    assert np.array_equal(last, a[3])
    assert max(np.max(np.abs(raw["d" + name])) for name in NAMES) > 5
    for name in NAMES:
        assert np.array_equal(gradients["d" + name], np.clip(raw["d" + name], -5, 5))
        assert np.array_equal(parameters[name], before[name] - 0.02 * gradients["d" + name])


# Forward


def test_softmax_normalizes_columns():
    p = textbook.softmax(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    assert np.allclose(p[:, 0], np.exp([1, 2, 3]) / np.sum(np.exp([1, 2, 3])), rtol=1e-15)
    assert np.allclose(p[:, 1], 1 / 3, rtol=1e-15)
    assert np.array_equal(textbook.softmax(np.array([[1000.0], [0.0]])), [[1.0], [0.0]])  # no overflow
    assert np.array_equal(textbook.softmax(np.array([[1000.0, 0.0], [0.0, 0.0]])), [[1.0, 0.5], [0.0, 0.5]])  # of no column


def test_rnn_step_forward_follows_the_equations():
    parameters, a0 = draw(3, 4, 5)
    x = np.array([[0.5], [-1.0], [2.0], [0.25]])
    a, p = textbook.rnn_step_forward(parameters, a0, x)
    Wax, Waa, Wya, b, by = (parameters[name] for name in NAMES)
    assert a.shape == (3, 1)
    assert p.shape == (5, 1)
    for i in range(3):
        total = b[i, 0] + sum(Wax[i, k] * x[k, 0] for k in range(4)) + sum(Waa[i, k] * a0[k, 0] for k in range(3))
        assert a[i, 0] == pytest.approx(math.tanh(total), rel=1e-13)
    scores = [math.exp(by[i, 0] + sum(Wya[i, k] * a[k, 0] for k in range(3))) for i in range(5)]
    assert p[:, 0].tolist() == pytest.approx([score / sum(scores) for score in scores], rel=1e-13)


def test_rnn_forward_sums_minus_log_p_and_none_is_the_zero_vector():
    parameters, a_prev = draw(3, 4, 5)
    X, Y = [None, 2, 0], [1, 4, 1]
    loss, (y_hat, a, x) = textbook.rnn_forward(X, Y, a_prev, parameters, vocab_size=4)
    assert np.array_equal(a[-1], a_prev)
    assert np.array_equal(x[0], np.zeros((4, 1)))
    assert np.array_equal(x[1], [[0.0], [0.0], [1.0], [0.0]])
    assert np.array_equal(x[2], [[1.0], [0.0], [0.0], [0.0]])
    total = 0.0
    for t in range(3):
        a_prev, p = textbook.rnn_step_forward(parameters, a_prev, x[t])
        assert np.array_equal(a[t], a_prev)
        assert np.array_equal(y_hat[t], p)
        total -= math.log(p[Y[t], 0])
    assert loss == pytest.approx(total, rel=1e-15)


@pytest.mark.parametrize("X", [[5], [-1]])
def test_a_token_outside_the_vocabulary_is_refused(X):
    parameters, a0 = draw(3, 5, 5)
    with pytest.raises(InputError, match=f"token id {X[0]}: expected 0 to 4"):
        textbook.rnn_forward(X, [0], a0, parameters, vocab_size=5)
    with pytest.raises(InputError, match=f"token id {X[0]}: expected 0 to 4"):
        textbook.rnn_forward([0], X, a0, parameters, vocab_size=5)


def test_a_text_without_names_is_refused():
    with pytest.raises(InputError, match="data holds no line"):
        textbook.model("", IX_TO_CHAR, CHAR_TO_IX)


# Backward


@pytest.mark.parametrize(
    ("X", "Y"), [([None, 2, 4, 2], [1, 5, 0, 5]), ([None], [3]), ([4], [0])], ids=["T = 4", "T = 1, None", "T = 1"]
)
def test_rnn_backward_equals_central_differences(X, Y):
    parameters, a0 = draw(3, 5, 6)
    _, cache = textbook.rnn_forward(X, Y, a0, parameters, vocab_size=5)
    gradients, a = textbook.rnn_backward(X, Y, parameters, cache)
    assert gradients.keys() == {"dWax", "dWaa", "dWya", "db", "dby", "da_next"}
    assert np.array_equal(a[len(X) - 1], cache[1][len(X) - 1])
    leaves = parameters | {"a0": a0}
    step = 1e-5
    for name, leaf in leaves.items():
        gradient = gradients["da_next" if name == "a0" else "d" + name]
        assert gradient.shape == leaf.shape
        for index in np.ndindex(leaf.shape):
            losses = []
            for sign in (1, -1):
                moved = copies(leaves)
                moved[name][index] += sign * step
                losses.append(textbook.rnn_forward(X, Y, moved["a0"], moved, vocab_size=5)[0])
            difference = (losses[0] - losses[1]) / (2 * step)
            assert gradient[index] == pytest.approx(difference, rel=1e-7, abs=1e-9), (name, index)


def test_rnn_backward_does_not_change_parameters_and_cache():
    parameters, a0 = draw(3, 5, 5)
    X, Y = [None, 2, 4], [2, 4, 0]
    _, cache = textbook.rnn_forward(X, Y, a0, freeze(parameters), vocab_size=5)
    before = [copies(steps) for steps in cache]
    first, _ = textbook.rnn_backward(X, Y, parameters, cache)
    second, _ = textbook.rnn_backward(X, Y, parameters, cache)
    for old, new in zip(before, cache, strict=True):
        assert all(np.array_equal(old[t], new[t]) for t in old)
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_rnn_step_backward_adds_to_the_gradients_and_reads_da_next():
    parameters, a_prev = draw(3, 4, 5)
    x = np.array([[0.5], [-1.0], [2.0], [0.25]])
    a, _ = textbook.rnn_step_forward(parameters, a_prev, x)
    dy = np.array([[0.1], [-0.4], [0.2], [0.3], [-0.2]])
    start = freeze({"d" + name: np.ones_like(parameters[name]) for name in NAMES} | {"da_next": np.full((3, 1), 0.5)})
    gradients = textbook.rnn_step_backward(dy, copies(start), freeze(parameters), x, a, a_prev)
    daraw = (1 - a**2) * (parameters["Wya"].T @ dy + 0.5)
    expected = {
        "dWya": np.outer(dy, a),
        "dby": dy,
        "db": daraw,
        "dWax": np.outer(daraw, x),
        "dWaa": np.outer(daraw, a_prev),
        "da_next": parameters["Waa"].T @ daraw - 1,  # replaced, not added to
    }
    for key in expected:
        assert np.allclose(gradients[key], 1 + expected[key], rtol=1e-14, atol=1e-15), key


def test_rnn_backward_equals_the_autograd_of_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed: its autograd is a second witness, not a requirement")
    parameters, a0 = draw(3, 5, 6)
    X, Y = [None, 2, 4, 2], [1, 5, 0, 5]
    _, cache = textbook.rnn_forward(X, Y, a0, parameters, vocab_size=5)
    gradients, _ = textbook.rnn_backward(X, Y, parameters, cache)
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in (parameters | {"a0": a0}).items()}
    loss, _ = textbook.rnn_forward(X, Y, leaves["a0"], leaves, vocab_size=5)
    loss.backward()
    for name, leaf in leaves.items():
        gradient = gradients["da_next" if name == "a0" else "d" + name]
        assert np.allclose(leaf.grad.numpy(), gradient, rtol=0, atol=1e-12), name


# Sampling


def test_sample_seeds_a_new_generator_for_each_character():
    parameters, _ = draw(6, 27, 27)
    a, x = np.zeros((6, 1)), np.zeros((27, 1))
    seed, counter, index, expected = 4, 0, -1, []
    while index != 0 and counter != 50:
        a, p = textbook.rnn_step_forward(parameters, a, x)
        index = int(np.random.RandomState(counter + seed).choice(27, p=p[:, 0]))
        expected.append(index)
        x = np.eye(27)[:, index : index + 1]
        seed, counter = seed + 1, counter + 1
    expected += [0] if counter == 50 else []
    assert len(expected) > 3
    assert textbook.sample(parameters, CHAR_TO_IX, 4) == expected


def test_sample_ends_with_a_newline_and_is_repeatable():
    parameters, _ = draw(6, 27, 27)
    drawn = [textbook.sample(parameters, CHAR_TO_IX, seed) for seed in range(20)]
    assert all(type(index) is int and 0 <= index < 27 for indices in drawn for index in indices)
    assert all(indices[-1] == 0 and 0 not in indices[:-1] and len(indices) <= 51 for indices in drawn)
    assert len({tuple(indices) for indices in drawn}) > 5
    assert drawn == [textbook.sample(parameters, CHAR_TO_IX, seed) for seed in range(20)]


def test_sample_stops_after_50_characters_and_appends_a_newline():
    parameters, _ = draw(6, 27, 27)
    parameters["by"][0, 0] = -1000.0  # a newline never comes
    indices = textbook.sample(parameters, CHAR_TO_IX, 0)
    assert len(indices) == 51
    assert indices[50] == 0
    assert 0 not in indices[:50]
    parameters["by"][0, 0] = 1000.0  # nothing else comes
    assert textbook.sample(parameters, CHAR_TO_IX, 0) == [0]


def test_sample_appends_a_second_newline_after_a_50th_character_newline():
    parameters = {name: 0 * array for name, array in draw(4, 27, 27)[0].items()}
    indices = textbook.sample(parameters, CHAR_TO_IX, 118)  # at equal chances, its first newline is the 50th character
    assert indices[49:] == [0, 0]
    assert 0 not in indices[:49]


def test_sample_works_in_float32():
    parameters, _ = draw(6, 27, 27)
    parameters = {name: array.astype(np.float32) for name, array in parameters.items()}
    for seed in range(20):  # many a float32 softmax misses 1 by more than NumPy's choice tolerates
        assert textbook.sample(parameters, CHAR_TO_IX, seed)[-1] == 0


# Every library


@pytest.fixture(params=["strict", "torch", "jax", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request):
    """A backend in float64; on array-api-strict the device is not the default one."""
    if request.param == "torch":
        pytest.importorskip("torch", reason="torch is not installed: it is one of several libraries, not a requirement")
    if request.param == "jax":
        pytest.importorskip("jax", reason="jax is not installed: it is one of several libraries, not a requirement")
    return select(request.param, "float64")


def test_every_library_gives_the_numbers_of_numpy_in_its_own_arrays(library):
    host, host_a0 = draw(5, 27, 27)
    parameters, a0 = {name: library.put(array) for name, array in host.items()}, library.put(host_a0)
    X, Y = [None, 2, 26, 2], [2, 26, 2, 0]

    def assert_same(got, expected):
        assert namespace(got) is namespace(a0)
        assert device(got) == device(a0)
        assert got.dtype == a0.dtype
        assert got.shape == np.shape(expected)
        assert np.allclose(on_host(got), expected, rtol=0, atol=1e-12)

    host_loss, host_cache = textbook.rnn_forward(X, Y, host_a0, host)
    loss, cache = textbook.rnn_forward(X, Y, a0, parameters)
    assert_same(loss, host_loss)
    for steps, host_steps in zip(cache, host_cache, strict=True):
        assert steps.keys() == host_steps.keys()
        for t in steps:
            assert_same(steps[t], host_steps[t])

    host_gradients, _ = textbook.rnn_backward(X, Y, host, host_cache)
    gradients, a = textbook.rnn_backward(X, Y, parameters, cache)
    assert gradients.keys() == host_gradients.keys()
    assert_same(a[3], host_cache[1][3])
    for key in gradients:
        assert_same(gradients[key], host_gradients[key])

    for seed in range(3):
        assert textbook.sample(parameters, CHAR_TO_IX, seed) == textbook.sample(host, CHAR_TO_IX, seed)

    host_loss, host_gradients, host_a = textbook.optimize(X, Y, host_a0, host)
    loss, gradients, a = textbook.optimize(X, Y, a0, parameters)
    assert_same(loss, host_loss)
    assert_same(a, host_a)
    for name in NAMES:
        assert_same(gradients["d" + name], host_gradients["d" + name])
        assert_same(parameters[name], host[name])


def test_model_runs_on_every_library(library, capsys):
    run = {"num_iterations": 5, "n_a": 5, "dino_names": 2}
    expected = textbook.model(LINES, IX_TO_CHAR, CHAR_TO_IX, **run)
    expected_print = capsys.readouterr().out
    got = textbook.model(LINES, IX_TO_CHAR, CHAR_TO_IX, **run, backend=library.name)
    assert capsys.readouterr().out == expected_print
    for name in NAMES:
        assert device(got[name]) == device(library.put(np.zeros(1)))
        assert np.allclose(on_host(got[name]), expected[name], rtol=0, atol=1e-12)


def test_optimize_does_not_read_arrays_on_the_host(monkeypatch):
    library = select("strict", "float64")
    host, host_a0 = draw(5, 6, 6)
    parameters, a0 = {name: library.put(array) for name, array in host.items()}, library.put(host_a0)

    def look(self):
        raise AssertionError("an array was read from the host")

    for method in ("__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(type(a0), method, look)
    textbook.optimize([None, 2], [2, 0], a0, parameters)


def test_float32_stays_float32():
    host, a0 = draw(5, 6, 6)
    parameters = {name: array.astype(np.float32) for name, array in host.items()}
    loss, gradients, a = textbook.optimize([None, 2], [2, 0], a0.astype(np.float32), parameters)
    assert {array.dtype for array in (loss, a, *gradients.values(), *parameters.values())} == {np.dtype(np.float32)}


# In place, as in the course


def test_gradients_and_parameters_are_changed_in_place():
    parameters, a0 = draw(3, 4, 5)
    gradients = {"d" + name: np.zeros_like(array) for name, array in parameters.items()} | {"da_next": np.zeros_like(a0)}
    arrays = {**gradients, **parameters}
    x, dy = np.eye(4)[:, :1], np.ones((5, 1))
    assert textbook.rnn_step_backward(dy, gradients, parameters, x, a0, a0) is gradients
    for name in NAMES:
        assert gradients["d" + name] is arrays["d" + name]
        assert gradients["d" + name].any()
    assert textbook.update_parameters(parameters, gradients, 0.1) is parameters
    assert all(parameters[name] is arrays[name] for name in NAMES)


def test_the_first_state_of_the_cache_is_a_copy():
    parameters, a0 = draw(3, 4, 4)
    _, (_, a, _) = textbook.rnn_forward([None, 1], [1, 0], a0, parameters, 4)
    assert not np.shares_memory(a[-1], a0)
    np.testing.assert_array_equal(a[-1], a0)
    a0 += 1.0
    assert not (a[-1] == a0).any()
