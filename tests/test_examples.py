"""The examples: each runs as it stands, and the cell in them is right."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt.data.vocabulary import characters
from bptt.errors import InputError
from bptt.inference.language_model import LanguageModel
from bptt.nn import cells, model, tree
from bptt.report import page
from conftest import variant
from gradcheck import central_differences

EXAMPLES = Path(__file__).parents[1] / "examples"  # in the checkout and in the source distribution
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
RIGHT = " + ds * f[t, ...]"  # what the state before gets through the gate, in minimal_gated_unit.py


def load_example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mgu = load_example("minimal_gated_unit")


def run_example(script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an example here, with every warning an error."""
    command = [sys.executable, "-W", "error", str(script), *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "BPTT_KERNELS": "0", "PYTHONIOENCODING": "utf-8", **env}
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8", env=env)


def printed_lines(name: str, *arguments: str) -> list[str]:
    done = run_example(EXAMPLES / f"{name}.py", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_example_is_short(script):
    assert sum(bool(line.strip()) for line in script.read_text("utf-8").splitlines()) < 60


def test_the_names_example_trains_saves_and_samples(tmp_path):
    *names, saved = printed_lines("names", "--steps", "3")
    assert len(names) == 10
    assert saved == "saved: bptt sample dinosaur-names --count 10 --seed 1"
    assert bptt.load("dinosaur-names").config.cell == "gru"
    again = run_example(EXAMPLES / "names.py", "--steps", "3")
    assert (again.returncode, again.stdout) == (2, "")
    assert "dinosaur-names already exists" in again.stderr


@pytest.mark.parametrize("text", [[], ["own.txt"]], ids=["built-in", "file"])
def test_the_style_example_samples_at_two_temperatures(text):
    Path("own.txt").write_text("the rain in spain stays mainly in the plain. " * 40)
    lines = printed_lines("style", *text, "--steps", "2")
    assert lines[0].startswith("<bptt.LanguageModel: gru")
    assert [line for line in lines if line.startswith("---")] == ["--- temperature 0.5", "--- temperature 1.0"]


def test_the_odd_ones_out_example_finds_the_unlikely_names():
    assert len(printed_lines("odd_ones_out", "--steps", "2")) == 3
    strange, least = printed_lines("odd_ones_out", "rex", "t-rex", "mei", "--steps", "2", "--show", "2")
    assert strange.split() == ["inf", "t-rex"]
    assert float(least.split()[0]) > 0
    assert least.split()[1] in ("rex", "mei")


def test_from_scratch_learns():
    """A model that sees only the character before stays above 2.17 nats on this text."""
    lines = printed_lines("from_scratch", "--steps", "300")
    assert [line.split()[:3] for line in lines[:3]] == [["step", number, "loss"] for number in ("100", "200", "300")]
    assert 1.2 < float(lines[2].split()[3]) < 1.8  # what copies its input comes below
    assert len("\n".join(lines[3:])) == 200


def test_from_scratch_refuses_a_text_without_a_batch():
    Path("short.txt").write_text("abc" * 100)
    done = run_example(EXAMPLES / "from_scratch.py", "short.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the text has 300 characters, expected at least 528" in done.stderr


# the minimal gated unit


def random_inputs(T: int, B: int, I: int, H: int, tokens: bool) -> tuple[Any, ...]:
    """Parameters, x, the state before, and the gradients da from above and dafter from the state after, as NumPy arrays."""
    rng = np.random.default_rng(0)
    params = tree.tree_map(lambda array: array + 0.3 * rng.normal(size=array.shape), mgu.init(rng, I, H))
    x = rng.integers(0, I, (T, B)) if tokens else rng.normal(size=(T, B, I))
    state, dafter = mgu.State(0.5 * rng.normal(size=(B, H))), mgu.State(rng.normal(size=(B, H)))
    return params, x, state, rng.normal(size=(T, B, H)), dafter


@pytest.mark.parametrize(
    ("T", "B", "I", "H"), [(4, 3, 5, 2), variant(1, 3, 5, 2), variant(4, 1, 5, 2), variant(4, 3, 5, 1), variant(3, 2, 4, 6)]
)
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "vectors"])
@pytest.mark.parametrize("truncated", [True, False], ids=["truncated", "whole"])
def test_the_gradient_of_the_example_cell_equals_differences(lab, T, B, I, H, tokens, truncated):
    params, x, state, da, dafter = random_inputs(T, B, I, H, tokens)

    def gradients(params: Any, x: Any, state: Any, da: Any, dafter: Any) -> Any:
        return mgu.backward(params, mgu.forward(params, x, state)[2], da, None if truncated else dafter)

    nested = (params, state, () if tokens else x)
    shapes = tree.tree_map(lambda array: list(array.shape), nested)

    def loss(theta: np.ndarray) -> float:
        params, state, vectors = tree.unravel(theta, shapes)
        a, after, _ = mgu.forward(params, x if tokens else vectors, state)
        return float(np.sum(a * da) + (0.0 if truncated else np.sum(after.a * dafter.a)))

    dx, dstate, dparams = lab.call(gradients, params, x, state, da, dafter)
    expected = tree.unravel(central_differences(loss, tree.ravel(nested)), shapes)
    assert (dx is None) == tokens
    tolerance = 1e-8 if lab.backend.dtype == "float64" else 1e-4
    lab.close((dparams, dstate, () if tokens else dx), expected, tolerance)


def test_the_example_cell_follows_its_equations(lab):
    """One step, one sequence and one gate at a time."""
    T, B, I, H = 4, 3, 5, 2
    params, x, state, _, _ = random_inputs(T, B, I, H, tokens=True)
    (Wax_f, Wax_n), (Waa_f, Waa_n), (b_f, b_n) = (np.split(array, 2) for array in params)
    expected = np.zeros((T, B, H))
    for k in range(B):
        a = state.a[k]
        for t in range(T):
            f = 1 / (1 + np.exp(-(Wax_f[:, x[t, k]] + Waa_f @ a + b_f)))
            n = np.tanh(Wax_n[:, x[t, k]] + Waa_n @ (f * a) + b_n)
            expected[t, k] = a = (1 - f) * a + f * n
    a, after = lab.call(lambda *given: mgu.forward(*given)[:2], params, x, state)
    lab.close((a, after.a), (expected, expected[-1]))


@pytest.fixture
def extended_table(monkeypatch):
    """The cell in the table of cells, as one line puts it there."""
    monkeypatch.setitem(cells.CELLS, "mgu", mgu)


def test_a_cell_added_to_the_table_works_in_a_model(lab, extended_table):
    """Two layers, dropout, a padded batch and a learned initial state, with the gradient of every parameter."""
    rng = np.random.default_rng(1)
    config = model.Config("mgu", 5, 3, layers=2)
    params = tree.tree_map(lambda array: array + 0.3 * rng.normal(size=array.shape), model.init(config, rng))
    x, y, mask = rng.integers(0, 5, (4, 2)), rng.integers(0, 5, (4, 2)), np.ones((4, 2))
    mask[2:, 1] = 0.0
    keep = model.dropout_masks(config, rng, 0.4, 2)

    def gradient(params: Any, x: Any, y: Any, mask: Any, keep: Any) -> Any:
        return model.loss_and_grad(config, params, x, y, mask, None, keep)[1]

    def loss(theta: np.ndarray) -> float:
        return float(model.loss_and_grad(config, tree.unravel(theta, model.shapes(config)), x, y, mask, None, keep)[0])

    expected = tree.unravel(central_differences(loss, tree.ravel(params)), model.shapes(config))
    got = lab.call(gradient, params, x, y, mask, keep)
    lab.close(got, expected, 1e-8 if lab.backend.dtype == "float64" else 1e-4)


def test_a_cell_added_to_the_table_is_saved_and_loaded(extended_table):
    config, backend, vocabulary = model.Config("mgu", 4, 3), backends.select("numpy"), characters("\nabc")
    params = tree.tree_map(backend.put, model.init(config, np.random.default_rng(0)))
    before = LanguageModel(config, vocabulary, "lines", params, backend, {})
    before.save("m")
    after = bptt.load("m", backend="numpy")
    assert after.sample(3) == before.sample(3)
    assert after.score("abc") == before.score("abc")
    Path("t.txt").write_text("abc\ncab\n")
    if importlib.util.find_spec("matplotlib"):
        page.write(after, Path("m"), "t.txt", Path("m.html"))
        assert "layer 1 new" in Path("m.html").read_text("utf-8")  # the second block of its weights
    cells.CELLS.pop("mgu")
    with pytest.raises(InputError, match="cell 'mgu' is unknown"):
        bptt.load("m")


def test_a_cell_in_the_table_is_a_choice_of_train(extended_table):
    """It has no kernel of its own, and the one of a whole gradient leaves it alone."""
    trained = bptt.train("dinosaurs", cell="mgu", steps=1, hidden=4, report=None, backend="numpy")
    assert trained.config.cell == "mgu"
    assert trained.config.user_cell is None
