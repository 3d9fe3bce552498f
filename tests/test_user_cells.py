"""Cells from files of the user: trained with, supplied again, recognized by their content, and executed only where named."""

import copy
import hashlib
import importlib.util
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt import cli, dispatch
from bptt.config import user_cells
from bptt.display import plots
from bptt.errors import InputError
from bptt.nn import cells, gru, model, tree
from runs import NAMES, outcome

FILE = Path(__file__).parents[1] / "examples" / "minimal_gated_unit.py"
TEXT = "\n".join(NAMES) + "\n"
FLAGS = {"hidden": 5, "steps": 8, "batch": 4, "evaluate_every": 4, "backend": "numpy"}
RIGHT = " + ds * f[t, ...]"  # in the backward pass
SPY = "\nimport pathlib\npathlib.Path('executed').touch()\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """A folder with a text and the file of a cell, without kernels."""
    shutil.copy(FILE, tmp_path / "mgu.py")
    (tmp_path / "names.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_KERNELS", "0")
    monkeypatch.setattr(plots, "available", lambda: False)  # drawing takes longer than all the rest


@pytest.fixture
def module(monkeypatch, tmp_path):
    """The cell as an imported module."""
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mgu", None)
    import mgu

    yield mgu
    sys.modules.pop("mgu", None)


def train(**flags):
    return bptt.train(TEXT, report=None, **{**FLAGS, "cell": "mgu.py", **flags})


def command(capsys, *arguments):
    """The exit code and both outputs of a command."""
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def refused(capsys, *arguments):
    """The one line that a command ends with."""
    code, out, err = command(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


# From training to sampling


def test_every_command_works_with_the_cell(capsys):
    cell = "--cell", "mgu.py"
    small = "--hidden", 5, "--batch", 4, "--backend", "numpy"
    assert command(capsys, "train", "names.txt", *cell, *small, "--steps", 8, "--stop-after", 4, "--out", "run")[0] == 0
    code, out, _ = command(capsys, "train", "--resume", "run", *cell)
    assert code == 0
    assert "more: bptt sample run --cell mgu.py --count 10" in out
    assert command(capsys, "train", "names.txt", "--from", "run", *cell, *small[2:], "--steps", 2, "--out", "next")[0] == 0
    assert command(capsys, "sample", "run", *cell, "--count", 2)[1].count("\n") == 2
    assert command(capsys, "next", "run", *cell, "--top", 3)[1].count("\n") == 4
    assert command(capsys, "score", "run", "names.txt", *cell)[1].count("\n") == len(NAMES)
    assert "nats per character" in command(capsys, "evaluate", "run", "names.txt", *cell)[1]


def test_an_ensemble_may_have_a_model_with_a_built_in_cell(capsys):
    train(out="run")
    train(cell="gru", out="built-in")
    runs = "built-in", "run", "--text", "names.txt"
    assert "nats per character" in command(capsys, "evaluate", *runs, "--cell", "mgu.py")[1]
    assert "give its file 'mgu.py', with --cell FILE.py" in refused(capsys, "evaluate", *runs)
    line = refused(capsys, "evaluate", "built-in", "built-in", "--text", "names.txt", "--cell", "mgu.py")
    assert "--cell mgu.py: all of these models have built-in cells: leave it out" in line


def test_a_report_names_the_blocks_of_the_cell(capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the extra plot brings it")
    train(out="run")
    assert command(capsys, "report", "run", "names.txt", "--cell", "mgu.py", "--out", "page.html")[0] == 0
    page = Path("page.html").read_text("utf-8")
    assert "layer 1 forget" in page
    assert "layer 1 new" in page


def test_a_resumed_run_has_the_bits_of_one_that_did_not_stop():
    train(out="whole", layers=2, dropout=0.3)
    train(out="parts", layers=2, dropout=0.3, stop_after=3)
    bptt.train(TEXT, resume="parts", report=None, cell="mgu.py")
    assert outcome(Path("parts")) == outcome(Path("whole"))


def test_a_run_stopped_before_its_first_checkpoint_resumes(capsys):
    train(out="run")
    shutil.rmtree("run/checkpoints")
    Path("run/metrics.jsonl").write_text("")
    assert "add --cell FILE.py" in refused(capsys, "train", "names.txt", "--resume", "run")
    Path("other").mkdir()
    Path("other/mgu.py").write_text(Path("mgu.py").read_text() + "\n")
    line = refused(capsys, "train", "names.txt", "--resume", "run", "--cell", "other/mgu.py")
    assert "the cell 'mgu' is not the one of the model" in line
    assert command(capsys, "train", "names.txt", "--resume", "run", "--cell", "mgu.py")[0] == 0


def test_a_module_and_its_file_are_the_same_cell(module):
    trained = train(cell=module, out="run")
    assert bptt.load("run", cell="mgu.py").sample(3) == bptt.load("run", cell=module).sample(3) == trained.sample(3)
    assert train().sample(3) == trained.sample(3)


@pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed: pip install '.[fast]'")
def test_kernels_give_the_same_up_to_rounding(monkeypatch):
    pure = tree.ravel(train(dtype="float64").params)
    monkeypatch.setenv("BPTT_KERNELS", "1")
    with dispatch.restored():
        fast = train(dtype="float64")
        assert fast.record["compiled"].startswith("llvmlite")
        np.testing.assert_allclose(tree.ravel(fast.params), pure, rtol=0, atol=1e-9)


def test_a_cell_that_looks_like_a_built_in_one_gets_its_own_gradient(module):
    """With the fields and gates of a GRU, but other equations."""
    kernels = pytest.importorskip("bptt.kernels.cpu", reason="llvmlite is not installed: pip install '.[fast]'")
    module.GATES = gru.GATES
    config = model.Config("mgu", 5, 4, user_cell=module)
    assert kernels.gradient_loss_and_grad(np.zeros(3), config, *[None] * 6) is NotImplemented


# bptt check


def test_check_passes_the_example_and_finds_a_mistake(capsys):
    assert command(capsys, "check", "--cell", "mgu.py", "--backend", "numpy")[0] == 0
    source = Path("mgu.py").read_text()
    assert source.count(RIGHT) == 1
    Path("wrong.py").write_text(source.replace(RIGHT, ""))
    code, out, err = command(capsys, "check", "--cell", "wrong.py", "--backend", "numpy")
    assert code == 1
    assert "WRONG" in out
    assert "gradients of wrong differ" in err


def test_check_takes_one_built_in_cell(capsys):
    _, out, _ = command(capsys, "check", "--cell", "lstm", "--backend", "numpy")
    assert {line.split()[1] for line in out.splitlines()[1:-1]} == {"lstm"}


# What is stored, and what is refused


def test_a_run_stores_the_name_and_the_checksum_of_the_file():
    record = train(out="run").record
    digest = hashlib.sha256(Path("mgu.py").read_bytes()).hexdigest()
    assert record["cell_file"] == {"name": "mgu.py", "sha256": digest}
    assert record["settings"]["cell"] == "mgu"
    (stored,) = Path("run/checkpoints/best").resolve().glob("config.json")
    assert json.loads(stored.read_text())["model"]["cell"] == "mgu"


@pytest.mark.parametrize(
    "arguments", ["sample run", "score run names.txt", "evaluate run names.txt", "train --resume run", "report run"]
)
def test_without_the_cell_a_model_is_refused(capsys, arguments):
    train(out="run")
    line = refused(capsys, *arguments.split())
    assert "the model has a user-defined cell, which is not saved with it: give its file 'mgu.py', with --cell" in line


def test_another_file_or_another_name_is_refused(capsys):
    train(out="run")
    Path("other.py").write_text(Path("mgu.py").read_text())
    assert "the cell 'other' is not the one of the model: expected 'mgu.py'" in refused(
        capsys, "sample", "run", "--cell", "other.py"
    )
    Path("mgu.py").write_text(Path("mgu.py").read_text() + "\n")
    for arguments in (["sample", "run"], ["train", "names.txt", "--resume", "run"]):
        assert "the cell 'mgu' is not the one of the model" in refused(capsys, *arguments, "--cell", "mgu.py")


def test_a_built_in_cell_takes_no_file(capsys):
    train(cell="gru", out="run")
    assert "the model has the built-in cell gru: leave out --cell mgu.py" in refused(
        capsys, "sample", "run", "--cell", "mgu.py"
    )
    with pytest.raises(InputError, match="expected the module or the file of a user-defined cell"):
        bptt.load("run", cell="gru")


@pytest.mark.parametrize("name", list(cells.CELLS))
def test_names_of_built_in_cells_are_refused(capsys, name):
    Path(f"{name}.py").write_text(SPY)
    line = refused(capsys, "train", "names.txt", "--cell", f"{name}.py")
    assert f"{name} is the name of a built-in cell: rename the file" in line
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.py", None, "no such file: expected the file of a cell"),
        ("empty.py", "", "it has no GATES: a cell has GATES, Params, State, Cache, shapes, init, forward, backward"),
        ("bad.py", "x = (", "it cannot be run: SyntaxError"),
        ("fails.py", "1 / 0", "it cannot be run: ZeroDivisionError: division by zero"),
        ("my-cell.py", "", "expected a file whose name can be that of a module"),
        (
            "number.py",
            "GATES = 3\nParams = State = Cache = shapes = init = forward = backward = None",
            "GATES is 3, expected a dict",
        ),
    ],
)
def test_a_file_that_is_no_cell_is_refused_in_one_line(capsys, name, content, words):
    if content is not None:
        Path(name).write_text(content)
    assert words in refused(capsys, "train", "names.txt", "--cell", name)
    assert not Path("runs").exists()


def test_a_misspelt_name_lists_the_built_in_cells(capsys):
    line = refused(capsys, "train", "names.txt", "--cell", "gruu")
    assert "--cell 'gruu': expected one of vanilla, gru, lstm, or the file of a cell, FILE.py (did you mean gru?)" in line


@pytest.mark.parametrize("target", ["torch", "onnx", "page"])
def test_an_export_format_without_a_layout_for_the_cell_is_refused(capsys, target):
    train(out="run")
    line = refused(capsys, "export", "run", "--to", target, "--cell", "mgu.py")
    assert f"the {target} format has no layout for the cell mgu: it knows vanilla, gru, lstm" in line
    assert not list(Path().glob("run.*"))


# Only --cell and cell= execute a file


def test_no_toml_file_executes_a_cell(capsys):
    Path("spy.py").write_text(SPY)
    Path("settings.toml").write_text('cell = "spy.py"\n')
    line = refused(capsys, "train", "names.txt", "--config", "settings.toml")
    assert "cell = 'spy.py': expected one of vanilla, gru, lstm; for a file of your own, add --cell FILE.py" in line
    assert not Path("executed").exists()
    settings = "names.txt", "--config", "settings.toml", "--steps", 2, "--hidden", 4, "--backend", "numpy"
    assert command(capsys, "train", *settings, "--cell", "mgu.py", "--out", "run")[0] == 0
    assert not Path("executed").exists()


@pytest.mark.parametrize("field", ["settings", "model", "cell_file"])
def test_no_record_executes_a_cell(capsys, field):
    """A forged one that names a file, with checksums that fit."""
    train(cell="gru", out="run")
    Path("spy.py").write_text(SPY)
    folder = Path("run/checkpoints/best").resolve()
    config = json.loads((folder / "config.json").read_text())
    config["record"]["cell_file"] = {"name": "spy.py", "sha256": hashlib.sha256(SPY.encode()).hexdigest()}
    if field == "settings":
        config["record"]["settings"]["cell"] = "spy.py"
    elif field == "model":
        config["model"]["cell"] = "spy.py"
    (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "config.json").read_bytes()
    manifest["files"]["config.json"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for arguments in (["sample", folder], ["train", "names.txt", "--resume", folder, "--out", "again"]):
        cli.main([str(argument) for argument in arguments])
        assert "Traceback" not in capsys.readouterr().err
    assert not Path("executed").exists()


def test_a_file_is_executed_once(capsys):
    Path("counted.py").write_text(Path("mgu.py").read_text() + "\nwith open('count', 'a') as file:\n    file.write('x')\n")
    train(cell="counted.py", out="run", stop_after=2)
    assert Path("count").read_text() == "x"
    bptt.train(TEXT, resume="run", report=None, cell="counted.py")
    assert Path("count").read_text() == "xx"


# Pickling


def test_a_model_with_an_imported_cell_can_be_pickled(module):
    trained = train(cell=module)
    for again in (pickle.loads(pickle.dumps(trained)), copy.deepcopy(trained)):
        assert again.sample(3) == trained.sample(3)
        assert again.config.user_cell is module


def test_a_model_with_a_cell_from_a_file_says_why_it_cannot_be_pickled():
    trained = train()
    with pytest.raises(pickle.PicklingError, match="the cell mgu was read from a file and cannot be pickled: import"):
        pickle.dumps(trained)
    assert copy.deepcopy(trained).sample(3) == trained.sample(3)


def test_the_checksum_is_of_what_was_executed():
    cell = user_cells.resolve("cell", "mgu.py")
    digest = user_cells.file_record(cell)["sha256"]
    Path("mgu.py").write_text("")
    assert user_cells.file_record(cell)["sha256"] == digest
