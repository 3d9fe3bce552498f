"""The public API as its users see it: signatures, help(), Tab completion, type checkers, editors, and copies of a model."""

import ast
import copy
import dataclasses
import inspect
import json
import multiprocessing
import os
import pickle
import pydoc
import re
import rlcompleter
import subprocess
import sys
import textwrap
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import numpy as np
import pytest

import bptt
from bptt import LanguageModel, errors
from bptt.backend import DTYPES, BackendName, CuPy, DtypeName, select
from bptt.backend import NAMES as NAMES_OF_BACKENDS
from bptt.config.settings import SETTING_NAMES, Settings
from bptt.data.vocabulary import characters
from bptt.export import EXPORTERS, ExportFormat
from bptt.nn import cells, model, tree
from bptt.training import api

ROOT = Path(__file__).parents[1]  # the checkout, or the source distribution
NAMES = ["anna", "bob", "carol", "dave", "eve"] * 4
BESIDE_SETTINGS = ["text", "report", "config", "resume", "changed_text", "callbacks"]
METHODS = ["evaluate", "export", "next", "sample", "save", "score", "scores", "stream", "to_checkpoint"]
BESIDE_NN = ["bptt.acceleration.enable()", "bptt.system.keep_freed_memory()"]  # for programs that call bptt.nn themselves
SMALL = {"hidden": 3, "steps": 2, "report": None, "backend": "numpy"}


def python(code):
    """What a new interpreter prints, as JSON."""
    command = [sys.executable, "-W", "error", "-c", f"import json\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# The signature of train


def alternatives(hint):
    """The members of a union, with each path also as str or os.PathLike."""
    members = set(get_args(hint)) if NoneType in get_args(hint) or int in get_args(hint) else {hint}
    return members - {Path} | {str, os.PathLike[str]} if Path in members else members


def test_train_has_every_setting_as_a_keyword():
    parameters = list(inspect.signature(bptt.train).parameters.values())
    assert [parameter.name for parameter in parameters] == [*BESIDE_SETTINGS, *SETTING_NAMES]
    assert [parameter.kind for parameter in parameters[1:]] == [inspect.Parameter.KEYWORD_ONLY] * (len(parameters) - 1)


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_keyword_of_train_equals_the_setting(field):
    parameter = inspect.signature(bptt.train).parameters[field.name]
    assert parameter.default == field.default
    assert type(parameter.default) is type(field.default)
    hints = [get_type_hints(owner)[field.name] for owner in (api.train, Settings)]
    assert alternatives(hints[0]) == alternatives(hints[1])


def test_alternatives_tell_types_apart():
    assert alternatives(Path | None) == alternatives(str | os.PathLike[str] | None) != alternatives(str | None)
    assert alternatives(int) != alternatives(int | None) != alternatives(float | None)


@pytest.mark.parametrize(
    ("literal", "table"),
    [
        pytest.param(BackendName, NAMES_OF_BACKENDS, id="backend"),
        pytest.param(DtypeName, DTYPES, id="dtype"),
        pytest.param(cells.CellName, cells.CELLS, id="cell"),
        pytest.param(ExportFormat, EXPORTERS, id="format"),
    ],
)
def test_literal_names_what_the_table_holds(literal, table):
    assert get_args(literal) == tuple(table)


@pytest.mark.parametrize("name", [*BESIDE_SETTINGS, *SETTING_NAMES])
def test_docstring_of_train_has_one_line_for_each_keyword(name):
    lines = [line for line in inspect.getdoc(bptt.train).splitlines() if line.startswith(f"    {name}: ")]
    assert len(lines) == 1
    assert lines[0].endswith(".")


def descriptions():
    """What `bptt train --help` says of each setting, and what help(bptt.train) says."""
    body = ast.parse(textwrap.dedent(inspect.getsource(Settings))).body[0].body
    fields = [i for i, node in enumerate(body) if isinstance(node, ast.AnnAssign)]
    flags = {body[i].target.id: " ".join(ast.literal_eval(body[i + 1].value).split()) for i in fields}
    keywords = dict(re.findall(r"(?m)^    (\w+): (.*)$", inspect.getdoc(bptt.train)))
    return flags, keywords


def first_sentence(text):
    return re.split(r"(?<=\.) (?=[A-Z-])", text)[0]


def agree(one, other):
    """Whether the texts are equal, or one begins with the first sentence of the other."""
    return one.startswith(first_sentence(other)) or other.startswith(first_sentence(one))


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_flag_and_keyword_of_a_setting_are_described_alike(name):
    flags, keywords = descriptions()
    assert agree(flags[name], keywords[name]), (flags[name], keywords[name])


def test_descriptions_that_differ_are_found():
    assert agree("Update rule.", "Update rule. One of five.")
    assert not agree("Units in a layer.", "Hidden size (units per layer).")
    assert not agree("Update rule. One of five.", "Rule of updates. One of five.")


def test_help_of_the_command_has_the_terms_of_the_field():
    text = " ".join(descriptions()[0].values())
    terms = ("Hidden size", "early stopping", "accumulate gradients", "gradient checkpointing", "data-parallel", "Batch size")
    assert [term for term in terms if term not in text] == []


def test_keyword_beside_a_config_file_wins_also_with_its_default(tmp_path):
    file = tmp_path / "bptt.toml"
    file.write_text("layers = 2\nclip_norm = 0.5\n")
    assert bptt.train(NAMES, config=file, **SMALL).config.layers == 2
    trained = bptt.train(NAMES, config=file, layers=1, **SMALL)
    assert trained.config.layers == 1
    assert trained.record["settings"]["clip_norm"] == 0.5


def test_resume_alone_continues_with_the_settings_of_the_run(tmp_path):
    chosen = {"cell": "lstm", "layers": 2, "seed": 5, "clip_norm": 0.5, "keep": 2, "optimizer": "sgd", "hidden": 3, "steps": 4}
    text = tmp_path / "names.txt"
    text.write_text("\n".join(NAMES))
    bptt.train(text, out=tmp_path / "run", stop_after=2, report=None, backend="numpy", **chosen)
    trained = bptt.train(resume=tmp_path / "run")
    assert {name: trained.record["settings"][name] for name in chosen} == chosen
    assert trained.record["plan"]["steps"] == 4
    with pytest.raises(bptt.InputError, match="layers=2: a resumed run keeps this setting"):
        bptt.train(resume=tmp_path / "run", layers=2)


def test_unknown_keyword_of_train_names_the_nearest_setting():
    with pytest.raises(bptt.InputError, match="'hiden' is unknown: did you mean 'hidden'"):
        bptt.train(NAMES, hiden=64)


# Names


def test_all_is_complete():
    exceptions = {name for name, value in vars(errors).items() if isinstance(value, type) and not name.startswith("_")}
    classes = {"Ensemble", "Evaluation", "Event", "History", "LanguageModel", "Score"}
    assert set(bptt.__all__) == exceptions | classes | {"from_torch", "inspect", "load", "train", "__version__"}
    assert all(getattr(bptt, name) is getattr(errors, name) for name in exceptions)


def test_every_exception_is_defined_in_errors():
    """Apart from one of the command line's parser, which the command line catches itself."""
    for path in Path(bptt.__file__).parent.rglob("*.py"):
        classes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)]
        bases = {ast.unparse(base) for node in classes for base in node.bases if node.name != "MistakenFlag"}
        if path.name != "errors.py":
            assert not [base for base in bases if re.search(r"(Error|Exception|Warning|Interrupt)$", base)], path


def test_dir_lists_the_public_names_without_numpy():
    names, loaded = python("import bptt, sys; print(json.dumps([dir(bptt), sorted(sys.modules)]))")
    assert set(bptt.__all__) | {"__doc__", "__file__"} <= set(names)
    assert [name for name in names if name not in bptt.__all__ and not name.startswith("__")] == []
    assert not {"numpy", "bptt.training", "bptt.inference"} & set(loaded)


def test_exceptions_are_available_without_numpy():
    loaded = python("import bptt, sys; bptt.InputError; print(json.dumps(sorted(sys.modules)))")
    assert "numpy" not in loaded


def test_unknown_name_is_an_attribute_error_with_the_nearest_name():
    with pytest.raises(AttributeError, match="module 'bptt' has no attribute 'trian'"):
        _ = bptt.trian
    done = subprocess.run([sys.executable, "-c", "import bptt; bptt.trian"], capture_output=True, text=True, check=False)
    assert "Did you mean: 'train'?" in done.stderr


def private(page):
    """What a page uses of bptt that is not public: imports, bptt.NAME, and in Python code model.NAME."""
    for call in BESIDE_NN:
        page = page.replace(call, "")
    code = "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```", page))
    imported = {name for name in re.findall(r"(?m)(?:^|\s)(?:from|import) (bptt[\w.]*)", page) if name != "bptt"}
    named = set(re.findall(r"\bbptt\.([A-Za-z_]\w*)", page)) - {"toml", "nn", "textbook"} - set(bptt.__all__)
    methods = {name for name in re.findall(r"\bmodel\.(\w+)\(", code) if not hasattr(LanguageModel, name)}
    return imported | named | methods


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/how-to/clusters.md",
        "docs/explanation/scaling.md",
        "docs/explanation/speed.md",
        "examples/names.py",
        "examples/odd_ones_out.py",
        "examples/style.py",
        *(f"examples/trackers/with_{name}.py" for name in ("mlflow", "optuna", "tensorboard", "trackio", "wandb")),
    ],
)
def test_pages_for_users_name_public_names_only(page):
    assert private((ROOT / page).read_text("utf-8")) == set()


def test_private_names_in_a_page_are_found():
    assert private("```python\nfrom bptt.inference import generate\nmodel.unsample(3)\n```") == {
        "bptt.inference",
        "inference",
        "unsample",
    }
    assert private("`to_onnx` of `bptt.export.onnx`") == {"export"}
    assert private("```python\nimport bptt\nbptt.load('run')\nmodel.sample(3)\n```\nin `bptt.toml`") == set()


# help() and Tab completion


def test_help_of_train_shows_every_setting():
    page = pydoc.plain(pydoc.render_doc(bptt.train))
    assert re.search(r"(?m)^train\(\s*text: str \| os\.PathLike\[str\]", page)  # newer Pythons write a parameter a line
    for name, parameter in list(inspect.signature(bptt.train).parameters.items())[2:]:
        assert re.search(rf"\b{name}: .* = {re.escape(repr(parameter.default))}", page), name
        assert re.search(rf"(?m)^        {name}: .*\.$", page), name


def test_help_of_a_model_shows_its_methods():
    page = pydoc.plain(pydoc.render_doc(bptt.LanguageModel))
    assert [name for name in METHODS if not re.search(rf"(?m)^ \|  {name}\(\s*(\|\s+)?self", page)] == []


def completions(text, **namespace):
    """What the Tab key offers in the plain REPL."""
    completer = rlcompleter.Completer(namespace)
    found = []
    while (word := completer.complete(text, len(found))) is not None:
        found.append(word.rstrip("()"))
    return found


def test_tab_completes_the_public_names():
    assert completions("bptt.tr", bptt=bptt) == ["bptt.train"]
    public = {f"bptt.{name}" for name in bptt.__all__ if not name.startswith("_")}
    assert set(completions("bptt.", bptt=bptt)) == public


def test_tab_completes_the_methods_of_a_model():
    trained = bptt.train(NAMES, **SMALL)
    assert set(METHODS) <= {word.removeprefix("trained.") for word in completions("trained.", trained=trained)}


def test_jedi_sees_every_setting_and_method():
    jedi = pytest.importorskip("jedi", reason="jedi is not installed (nox -s lint installs it)")
    offered = [word.name for word in jedi.Script("import bptt\nbptt.").complete()]
    assert {name for name in bptt.__all__ if not name.startswith("_")} <= set(offered)
    signature = jedi.Script("import bptt\nbptt.train(").get_signatures()[0]
    assert [parameter.name for parameter in signature.params] == [*BESIDE_SETTINGS, *SETTING_NAMES]
    assert [word.name for word in jedi.Script("import bptt\nbptt.train(hid").complete()] == ["hidden="]
    for call in ("bptt.train('names.txt')", "bptt.load('run')", "bptt.from_torch('file')"):
        methods = {word.name for word in jedi.Script(f"import bptt\nmodel = {call}\nmodel.").complete()}
        assert set(METHODS) <= methods, call


# Copies of a model


def random_model(backend, cell="gru", mode="lines"):
    vocabulary = characters("abcde\n")
    config = model.Config(cell, len(vocabulary), 6, 2)
    params = tree.tree_map(lambda a: backend.put(2 * a), model.init(config, np.random.default_rng(0)))
    return LanguageModel(config, vocabulary, mode, params, backend, {"text": "names", "plan": {"steps": 3}})


@pytest.fixture(params=["pickle", "copy", "deepcopy"])
def duplicate(request):
    """A way to copy a model."""
    return {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "copy": copy.copy, "deepcopy": copy.deepcopy}[
        request.param
    ]


@pytest.mark.parametrize("cell", get_args(cells.CellName))
def test_copy_of_a_model_gives_the_same_numbers(duplicate, lab, cell):
    original = random_model(lab.backend, cell)
    same = duplicate(original)
    for name in ("config", "vocabulary", "mode", "record"):
        assert getattr(same, name) == getattr(original, name)
    assert str(same.backend) == str(original.backend)
    pairs = zip(tree.named_leaves(same.params), tree.named_leaves(original.params), strict=True)
    for (name, array), (original_name, original_array) in pairs:
        assert name == original_name
        assert type(array) is type(original_array)
        assert lab.backend.get(array).tobytes() == lab.backend.get(original_array).tobytes()
    assert same.sample(3, seed=1) == original.sample(3, seed=1)
    assert same.score("abba") == original.score("abba")


def test_deep_copy_shares_nothing():
    original = random_model(select("numpy"))
    same = copy.deepcopy(original)
    same.record["plan"]["steps"] = 4
    same.params.Wya[...] = 0
    assert original.record["plan"]["steps"] == 3
    assert np.all(original.params.Wya)


def test_model_pickled_with_a_gpu_is_unpickled_without_one(monkeypatch):
    monkeypatch.setattr("bptt.backend.cupy_unavailable_reason", lambda: "it is not here")
    monkeypatch.setattr(CuPy, "get", lambda self, array: np.array(array))
    original = random_model(CuPy("auto", np, None, "float32"))
    with pytest.warns(bptt.BackendWarning, match="it is not here"):
        same = pickle.loads(pickle.dumps(original))
    assert same.backend.name == "numpy"
    assert same.score("abba") == random_model(select("numpy")).score("abba")


def test_pickled_backend_keeps_what_was_requested(duplicate, monkeypatch):
    monkeypatch.setattr("bptt.backend.cupy_unavailable_reason", lambda: "it is not here")
    with pytest.warns(bptt.BackendWarning):
        fallen_back = select("cupy")
    assert str(duplicate(fallen_back)) == str(fallen_back) == "numpy float32 (cupy was asked for)"
    assert str(duplicate(select("auto", "float64"))) == "numpy float64"


def test_methods_of_a_model_run_in_a_pool_of_processes():
    original = random_model(select("numpy"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(original.score, ["abba", "bead"]) == [original.score("abba"), original.score("bead")]
        assert pool.apply(original.sample, (3,), {"seed": 1}) == original.sample(3, seed=1)
        with pytest.raises(bptt.InputError, match="not in the vocabulary"):
            pool.apply(original.score, ("xyz",))


def test_methods_of_a_model_run_in_joblib():
    joblib = pytest.importorskip("joblib", reason="joblib is not installed (the test group brings it)")
    original = random_model(select("numpy"))
    with joblib.parallel_config("loky", n_jobs=2):
        samples = joblib.Parallel()(joblib.delayed(original.sample)(3, seed=seed) for seed in range(2))
    assert samples == [original.sample(3, seed=seed) for seed in range(2)]


def test_train_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(bptt.train)) is bptt.train


@pytest.mark.parametrize("name", [name for name in bptt.__all__ if isinstance(getattr(errors, name, None), type)])
def test_exception_survives_pickling(name):
    """Or a pool of processes would wait forever for the result of a call that raised it."""
    error = getattr(bptt, name)("one line")
    same = pickle.loads(pickle.dumps(error))
    assert (type(same), str(same)) == (type(error), str(error))


# Type checkers


def program():
    """A program of which a type checker has to reject the lines that end with a comment, and no others."""
    keywords = ", ".join(f"{field.name}={field.default!r}" for field in dataclasses.fields(Settings))
    correct = f"""\
        import os
        from pathlib import Path

        import bptt

        folder: os.PathLike[str] = Path("run")
        model: bptt.LanguageModel = bptt.train("names.txt", {keywords})
        bptt.train(["anna", "bob"], report=None, out="run", cell="lstm", hidden=128, recompute_every="sqrt")
        bptt.train(config=folder, resume=folder, changed_text=True, report=print, out=folder, from_=folder)
        model = bptt.load("run", backend="cupy", dtype="float64", require_backend=True)
        model = bptt.from_torch(folder, mode="lines")
        texts: list[str] = model.sample(3, temperature=0.8)
        pieces: list[str] = list(model.stream(prompt="a"))
        chances: list[tuple[str, float]] = model.next("a")
        nats: float = model.score("a")
        scores: list[bptt.Score] = list(model.scores("a"))
        evaluation: bptt.Evaluation = model.evaluate("a", dynamic=True)
        ensemble: bptt.Ensemble = bptt.Ensemble([model, model])
        evaluation, nats, texts = ensemble.evaluate("a"), ensemble.score("a"), ensemble.sample(3)
        models: tuple[bptt.LanguageModel, ...] = ensemble.models
        model.export("page", "page.html")
        model.save(folder)
        model.to_checkpoint()
        flow = bptt.inspect.gradient_flow(model, "a")
        print(bptt.__version__, flow.norms)
        failure: type[Exception] = bptt.InputError
        def stop(event: bptt.Event) -> bool:
            print(event.model.sample(), event.folder)
            return event.kind == "evaluation" and bool(event.row["held_out"] < 2)
        bptt.train("names.txt", callbacks=[stop, print])
    """
    wrong = """\
        bptt.train("names.txt", hiden=64)
        bptt.train("names.txt", cell="gruu")
        bptt.train("names.txt", hidden="128")
        bptt.train("names.txt", 128)
        bptt.train(hidden=64).hidden
        bptt.load("run", backend="numpie")
        bptt.load("run", dtype="float16")
        bptt.nothing
        model.simple()
        model.export("pdf", "page.pdf")
        bptt.Ensemble(["runs/names"])
        bptt.train("names.txt", callbacks=[len])
        stop(model)
    """
    return textwrap.dedent(correct) + textwrap.dedent(wrong).replace("\n", "  # wrong\n")


def wrong_lines(file):
    file.write_text(program())
    lines = file.read_text().splitlines()
    return {number: line for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def rejected(command, pattern, folder, file):
    """The lines that a type checker rejects, each with its first message."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, encoding="utf-8")
    found = re.findall(rf"(?m)^.*{file.name}:(\d+){pattern}", done.stdout)
    assert found, done.stdout + done.stderr
    return {int(number): message for number, message in reversed(found)}


def test_mypy_rejects_wrong_names_and_types_only(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed (nox -s lint installs it)")
    file = tmp_path / "program.py"
    wrong = wrong_lines(file)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=cache", file.name]
    found = rejected(command, r": (error: .*)", tmp_path, file)
    assert found.keys() == wrong.keys(), found


def test_pyright_rejects_wrong_names_and_types_only(tmp_path):
    pytest.importorskip("pyright", reason="pyright is not installed (nox -s lint installs it)")
    file = tmp_path / "program.py"
    wrong = wrong_lines(file)
    found = rejected(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, file.name], r":\d+ - (error: .*)", tmp_path, file
    )
    assert found.keys() == wrong.keys(), found
