"""Rules that the test modules follow."""

import ast
import re
from pathlib import Path

import pytest

TEST_MODULES = sorted(Path(__file__).parent.glob("test_*.py"))
NOXFILE = Path(__file__).parents[1] / "noxfile.py"  # in the checkout and in the source distribution
OWN_WORDS = {"twin", "twins", "piece", "pieces", "rehearsal", "session", "told", "plan"}  # kernel, segment, warm-up, run ...

VAGUE_HELPERS = {"go", "ready", "case", "value", "same", "told", "said", "here", "whole", "piece", "given", "found", "together"}


def imported_test_modules(source: str) -> list[str]:
    """The names of the test modules that a source imports."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module or "", *(alias.name for alias in node.names)]
    return [name for name in names if name.rpartition(".")[2].startswith("test_")]


@pytest.mark.parametrize("path", TEST_MODULES, ids=lambda path: path.stem)
def test_no_test_module_imports_another(path):
    assert not imported_test_modules(path.read_text("utf-8")), "move what both need into a helper module"


@pytest.mark.parametrize("source", ["import test_a", "from test_a import b", "from tests import test_a", "import tests.test_a"])
def test_an_import_of_a_test_module_is_recognized(source):
    assert imported_test_modules(source)
    assert not imported_test_modules(source.replace("test_a", "helpers"))


@pytest.mark.parametrize("path", TEST_MODULES, ids=lambda path: path.stem)
def test_names_of_tests_are_short_and_in_the_terms_of_the_field(path):
    names = re.findall(r"^def test_(\w+)", path.read_text("utf-8"), re.MULTILINE)
    assert [name for name in names if len(name) > 70 or OWN_WORDS & set(name.split("_"))] == []


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_names_of_helpers_say_what_they_do(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert not {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} & VAGUE_HELPERS


def test_the_tests_that_run_in_every_python_are_there():
    """A name without a test module would select nothing, and nobody would notice."""
    tables = {
        node.targets[0].id: node.value
        for node in ast.parse(NOXFILE.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    everywhere = ast.literal_eval(tables["EVERYWHERE"])
    assert everywhere.keys() <= {path.stem.removeprefix("test_") for path in TEST_MODULES}
    assert all(everywhere.values()), "each says why"
