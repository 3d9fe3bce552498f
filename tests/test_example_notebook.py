"""The example notebook: short, without outputs, public names only; `nox -s notebook` executes it.

A run that names the test of the execution (-m notebook) fails where a package is missing; any other run skips it.
"""

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

import bptt

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def code_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_notebook_is_stored_without_outputs():
    assert len(cells("code")) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))


def used(source: str) -> set[str]:
    """The names that a program uses of bptt, of its modules, and of a model, its history and its settings."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bptt"):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if re.fullmatch(r"(bptt|model)(\.\w+)+", name)}


def unknown(source: str) -> set[str]:
    """The names in a program that are not public."""
    bad = set()
    for name in used(source):
        first, second, *rest = name.split(".")
        place = bptt.History if (first, second, bool(rest)) == ("model", "history", True) else None
        if first == "bptt":
            public = second in bptt.__all__ and (not rest or hasattr(getattr(bptt, second), rest[0]))
        else:
            fields = {*dir(bptt.LanguageModel), *bptt.LanguageModel.__dataclass_fields__}
            public = second in fields and (place is None or hasattr(place, rest[0]) or rest[0] in place.__dataclass_fields__)
        if not public or any(part.startswith("_") for part in (second, *rest)):
            bad.add(name)
    return bad


def test_code_of_the_notebook_parses_and_uses_public_names_only():
    sources = [code_of(cell) for cell in cells("code")]
    assert unknown("\n".join(sources)) == set()
    names = set().union(*map(used, sources))
    assert {"bptt.train", "bptt.inspect.gradient_flow", "model.history.plot", "model.export"} <= names


def test_names_that_are_not_public_are_found():
    code = "bptt.nothing, model.unsample(3), model.history.draw(), bptt.inspect.nothing, model._records, model.history.loss"
    wrong = {"bptt.nothing", "model.unsample", "model.history.draw", "bptt.inspect.nothing", "model._records"}
    assert unknown(code) == wrong
    assert unknown("from bptt.inference import generate") == {"bptt.inference.generate"}


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore")  # of Jupyter's packages
def test_notebook_runs_from_top_to_bottom(request, tmp_path, monkeypatch):
    needed = ("nbclient", "nbformat", "ipykernel", "matplotlib", "pandas")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        give_up = pytest.fail if request.config.option.markexpr == "notebook" else pytest.skip
        give_up(f"{missing[0]} is not installed: nox -s notebook runs this")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    page = nbformat.read(NOTEBOOK, 4)
    NotebookClient(page, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {code_of(cell): cell["outputs"] for cell in page["cells"] if cell["cell_type"] == "code"}
    kinds = {code: {kind for output in those for kind in output.get("data", {})} for code, those in outputs.items()}
    (training,) = [those for code, those in outputs.items() if "bptt.train(" in code]
    (shown,) = training  # one output, which was updated
    assert '<progress value="600" max="600"' in shown["data"]["text/html"]
    assert "<polyline" in shown["data"]["text/html"]
    assert "text/html" in kinds["model"]
    assert "image/png" in kinds["model.history.plot()"]
    assert ["text/html" in those for code, those in kinds.items() if "gradient_flow" in code] == [True]
    assert len([those for those in outputs.values() if len(those) > 1]) == 0
    assert (tmp_path / "notebook-page.html").stat().st_size > 10_000
