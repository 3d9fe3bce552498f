"""Models as ONNX graphs: onnxruntime and the reference of the standard compute what the model does.

`nox -s onnx` installs both. A run that names these tests (-m onnx) fails where they are missing; any other skips them.
"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt import cli
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError
from bptt.export import onnx
from bptt.inference.language_model import LanguageModel
from bptt.nn import cells, model, tree

pytestmark = pytest.mark.onnx
SYMBOLS = "\nabcdef"
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
LAYERS = pytest.mark.parametrize("layers", [1, 2, 3])


@pytest.fixture(autouse=True)
def _needed(request):
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        give_up = pytest.fail if request.config.option.markexpr == "onnx" else pytest.skip
        give_up(f"{', '.join(missing)} not installed: nox -s onnx runs these")


def trained(cell="gru", layers=1, hidden=9, initial="learned", dtype="float32"):
    rng = np.random.default_rng(2)
    config = model.Config(cell, len(SYMBOLS), hidden, layers, initial)
    # more, and rounding would grow from step to step in a tanh network
    params = tree.tree_map(lambda a: a + 0.1 * rng.normal(size=a.shape), model.init(config, rng))
    here = backends.select("numpy", dtype)
    record = {"text": "a text", "source": "/home/somebody/text", "step": 7}
    return LanguageModel(config, Vocabulary(tuple(SYMBOLS)), "lines", tree.tree_map(here.put, params), here, record)


def exported(one, folder):
    one.export("onnx", folder / "model.onnx")
    return str(folder / "model.onnx")


def runtime(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def graph_inputs(one, x, states):
    """The inputs of a graph: tokens (T, B), and the State of each layer."""
    found = {"tokens": x}
    for layer, state in enumerate(states):
        found |= {f"states.{layer}.{name}": np.ascontiguousarray(array[None]) for name, array in state._asdict().items()}
    return found


def states_of(one, outputs, names):
    """The State of each layer from the outputs of a graph."""
    found = dict(zip(names, outputs))
    State = cells.CELLS[one.config.cell].State
    return [State(*(found[f"next.{layer}.{name}"][0] for name in State._fields)) for layer in range(one.config.layers)]


@CELLS
@LAYERS
@pytest.mark.parametrize("run", ["onnxruntime", "onnx.reference"])
@pytest.mark.parametrize("hidden", [9, 1], ids=["more units than symbols", "fewer units than symbols"])
def test_an_onnx_graph_gives_the_logits_and_states_of_the_model(tmp_path, cell, layers, run, hidden):
    import onnx.reference

    one = trained(cell, layers, hidden)
    path = exported(one, tmp_path)
    session = runtime(path) if run == "onnxruntime" else onnx.reference.ReferenceEvaluator(path)
    names = ["logits", *(f"next.{n}.{name}" for n in range(layers) for name in cells.CELLS[cell].State._fields)]
    rng = np.random.default_rng(0)
    for T, B in ((1, 1), (12, 3), (5, 1)):  # both sizes are free
        x = rng.integers(0, len(SYMBOLS), (T, B))
        start = model.initial_states(one.config, one.params, B)
        for _ in range(2):  # the second time it goes on from what came out
            logits, after, _ = model.forward(one.config, one.params, x, start)
            got = session.run(names, graph_inputs(one, x, start))
            np.testing.assert_allclose(got[0], logits, rtol=0, atol=1e-6)
            for here, there in zip(states_of(one, got, names), after):
                for a, b in zip(here, there):
                    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
            start = after


@CELLS
def test_an_onnx_graph_predicts_the_same_10000_characters(tmp_path, cell):
    one = trained(cell, 2, hidden=32)
    x = np.random.default_rng(0).integers(0, len(SYMBOLS), (10_000, 1))
    start = model.initial_states(one.config, one.params, 1)
    logits, _, _ = model.forward(one.config, one.params, x, start)
    (got,) = runtime(exported(one, tmp_path)).run(["logits"], graph_inputs(one, x, start))
    assert np.array_equal(got.argmax(axis=2), logits.argmax(axis=2))


@CELLS
@pytest.mark.parametrize("initial", ["learned", "zero"])
def test_the_metadata_describes_the_model(tmp_path, cell, initial):
    one = trained(cell, 2, initial=initial)
    found = json.loads(runtime(exported(one, tmp_path)).get_modelmeta().custom_metadata_map["bptt"])
    assert (found["cell"], found["mode"], found["symbols"]) == (cell, "lines", list(SYMBOLS))
    assert found["record"] == {"text": "a text", "step": 7}  # no path of anybody
    fields = cells.CELLS[cell].State._fields
    if initial == "zero":
        assert found["states"] is None
    else:
        for layer, state in enumerate(one.params.initial):
            for name in fields:
                np.testing.assert_array_equal(np.array(found["states"][name][layer], np.float32), getattr(state, name))


def test_the_export_is_deterministic_and_rounds_to_float32(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        trained("lstm", 2, dtype="float64").export("onnx", path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    trained("lstm", 2, dtype="float32").export("onnx", tmp_path / "c")
    one = trained("lstm", 2)
    inputs = graph_inputs(one, np.zeros((3, 1), np.int64), model.initial_states(one.config, one.params, 1))
    (single,), (double,) = (runtime(str(tmp_path / name)).run(["logits"], inputs) for name in "ca")
    np.testing.assert_allclose(double, single, rtol=0, atol=1e-6)


def test_the_command_exports_an_onnx_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained().save("names")
    assert cli.main(["export", "names", "--to", "onnx"]) == 0
    assert capsys.readouterr().out == "saved in names.onnx\n"
    assert cli.main(["export", "names", "--to", "onnx"]) == 2
    assert "names.onnx: already exists" in capsys.readouterr().err


def test_the_example_in_the_docs_runs(tmp_path, capsys, monkeypatch):
    page = Path(__file__).parents[1] / "docs" / "how-to" / "export.md"
    parts = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    code = next(part for part in parts if "onnxruntime" in part)
    monkeypatch.chdir(tmp_path)
    one = bptt.train(["anna", "bob", "carol"] * 5, report=None, hidden=8, steps=40, backend="numpy")
    one.export("onnx", "dinosaurs.onnx")
    exec(compile(code, "export.md", "exec"), {})
    likeliest = max(one.next("")[:1], key=lambda pair: pair[1])[0]
    assert capsys.readouterr().out.strip() == likeliest


def test_a_model_that_cannot_be_exported_gives_a_clear_error(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(onnx, "MOST", 2000)
        with pytest.raises(
            InputError, match="2,428 bytes of weights: an ONNX file holds at most 2,000: export it for PyTorch instead"
        ):
            trained().export("onnx", tmp_path / "model.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx, which is not installed: pip install 'bptt\[onnx\]'"):
        trained().export("onnx", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
