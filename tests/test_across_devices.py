"""Whole runs on another library and device than NumPy's: the same numbers, the same bits twice, and files that go anywhere."""

import json

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt.display import plots
from bptt.nn import cells, tree
from bptt.train_step import graphed
from runs import NAMES, PROSE

CELLS = list(cells.CELLS)
TOLERANCES = {"float64": 1e-9, "float32": 2e-4}


def pytest_generate_tests(metafunc):
    if "there" in metafunc.fixturenames:
        named = metafunc.config.getoption("--backend") or ("strict", *([] if backends.cupy_unavailable_reason() else ["cupy"]))
        marks = {"cupy": [pytest.mark.gpu]}
        metafunc.parametrize(
            "there", [pytest.param(name, marks=marks.get(name, ())) for name in named if name in ("strict", "cupy")]
        )


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)


def train(text, backend, **flags):
    return bptt.train(text, report=None, backend=backend, **{"hidden": 4, "steps": 4, "batch": 6, "evaluate_every": 2, **flags})


def theta(trained):
    return trained.backend.get(tree.ravel(trained.params))


@pytest.mark.parametrize("text", [NAMES, PROSE], ids=["lines", "stream"])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("cell", CELLS)
def test_training_on_a_gpu_equals_training_with_numpy(there, cell, dtype, text):
    flags = {"cell": cell, "dtype": dtype, "layers": 2, "dropout": 0.2, "length": 20}
    np.testing.assert_allclose(
        theta(train(text, there, **flags)), theta(train(text, "numpy", **flags)), rtol=0, atol=TOLERANCES[dtype]
    )


@pytest.mark.parametrize("cell", CELLS)
def test_two_runs_are_equal_bit_for_bit(there, cell):
    first, second = (theta(train(NAMES, there, cell=cell, steps=12)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("back", [False, True], ids=["there-to-numpy", "numpy-to-there"])
def test_a_run_resumes_on_the_other_device(there, back, tmp_path):
    begins, ends = ("numpy", there) if back else (there, "numpy")
    flags = {"dtype": "float64", "steps": 8}
    train(NAMES, begins, out=tmp_path / "run", stop_after=3, **flags)
    resumed = bptt.train(resume=tmp_path / "run", text=NAMES, report=None, backend=ends)
    assert resumed.record["backend"]["ran"] == ends
    np.testing.assert_allclose(theta(resumed), theta(train(NAMES, "numpy", **flags)), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "how"), [(NAMES, {}), (PROSE, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}), (PROSE, {})], ids=range(3)
)
def test_a_model_samples_the_same_texts_on_the_other_device(there, text, how, tmp_path):
    trained = train(text, there, dtype="float64", out=tmp_path / "run", steps=12)
    here, away = (bptt.load(tmp_path / "run", backend=name) for name in ("numpy", there))
    given = {"seed": 3, "length": 40, **how}  # a stream is written in several goes, from the second one on by a CUDA graph
    assert trained.sample(9, **given) == away.sample(9, **given) == here.sample(9, **given)
    texts = ["ban", "ker", "dir"] if text is NAMES else ["the cat", "a mat"]
    got = [[one.score(text) for text in texts] for one in (here, away)]
    np.testing.assert_allclose(*got, rtol=0, atol=1e-9)


@pytest.mark.gpu
def test_a_device_without_free_memory_gives_a_clear_error(tmp_path):
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes() + 2**20)
    try:
        with pytest.raises(bptt.OutOfMemory, match=r"^out of memory: --hidden 900 .* choose"):
            train(NAMES, "cupy", hidden=900)
    finally:
        pool.set_limit(size=0)


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["1", "0"], ids=["kernels", "pure"])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("cell", CELLS)
def test_updates_without_a_cuda_graph_equal_those_of_numpy(cell, dtype, kernels, monkeypatch):
    monkeypatch.setenv("BPTT_KERNELS", kernels)
    flags = {"cell": cell, "dtype": dtype, "layers": 2, "dropout": 0.2, "length": 20, "graph": False}
    trained = train(PROSE, "cupy", **flags)
    assert bool(trained.record["compiled"]) == (kernels == "1")
    np.testing.assert_allclose(theta(trained), theta(train(PROSE, "numpy", **flags)), rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("text", [NAMES, PROSE], ids=["lines", "stream"])
@pytest.mark.parametrize("cell", CELLS)
def test_captured_updates_give_the_losses_of_updates_without_a_graph(cell, text, tmp_path, monkeypatch):
    made, desk = [], graphed.make_runner

    def counting(task, state, most, record):
        def counted(action):
            made.append(action)
            return record(action)

        return desk(task, state, most, counted)

    monkeypatch.setattr(graphed, "make_runner", counting)
    losses = []
    for graph in (True, False):
        flags = {"cell": cell, "graph": graph, "steps": 1000, "dropout": 0.2, "layers": 2, "dtype": "float64", "length": 20}
        trained = train(text, "cupy", out=tmp_path / str(graph), evaluate_every=500, **flags)
        rows = (tmp_path / str(graph) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
        assert trained.record["backend"]["ran"] == "cupy"
        assert bool(made) == graph
        made.clear()
    np.testing.assert_allclose(*losses, rtol=1e-6)
