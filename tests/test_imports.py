"""Who may import whom: the tables below are the rule, and these tests hold the package to it.

Imports inside functions and for types only count like any other.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import bptt

# The rooms of the house: a module, or a package with all its modules. Within a package everyone may import everyone, except
# in nn. Everyone may import errors. "__init__" is the face of the package: its public names; "__main__" makes it a command.
ROOMS = {
    "errors": set(),
    "backend": set(),
    "dispatch": set(),
    "fused": {"backend", "dispatch", "nn", "text"},
    "nn": {"backend", "dispatch"},
    "textbook": {"backend"},
    "text": {"backend", "dispatch"},
    "run": {"backend", "dispatch", "fused", "nn", "text"},
    "cli": {"backend", "fused", "nn", "textbook", "text", "run", "inspect", "report", "__init__"},
    "inspect": {"backend", "nn", "run"},
    "report": {"backend", "nn", "text", "run", "inspect"},
    "__init__": {"run", "inspect"},
    "__main__": {"cli"},
}

# Inside nn: tools, then parts of a model, then cells, then the model. The optimizers know vectors, not models.
TOOLS = {"arrays", "initialisation"}
PARTS = {"linear", "loss", "packing"}
CELLS = {"vanilla", "gru", "lstm"}
NN = {
    "__init__": set(),
    "arrays": set(),
    "initialisation": set(),
    "linear": TOOLS,
    "loss": TOOLS,
    "packing": TOOLS,
    "vanilla": TOOLS | PARTS,
    "gru": TOOLS | PARTS,
    "lstm": TOOLS | PARTS,
    "model": TOOLS | PARTS | CELLS,
    "gradient": TOOLS | PARTS | {"model"},
    "pieces": TOOLS | PARTS | {"model", "gradient"},
    "optimizers": {"arrays"},
}

# Array libraries: the backend chooses one, the maths names none, and the rest may use NumPy as what it is on the host.
ARRAY_LIBRARIES = {
    "numpy",
    "cupy",
    "cupyx",
    "torch",
    "jax",
    "numba",
    "llvmlite",
    "scipy",
    "array_api_compat",
    "array_api_strict",
}
MAY_NAME = {
    "backend": ARRAY_LIBRARIES,
    "fused": {"numpy", "numba", "llvmlite", "cupy", "cupyx"},
    "textbook": {"numpy"},
    "text": {"numpy"},
    "run": {"numpy"},
    "inspect": {"numpy"},
    "report": {"numpy"},
}

SOURCE = Path(bptt.__file__).parent
MODULES = sorted(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in SOURCE.rglob("*.py"))


def imports(module: str, source: str) -> Iterator[str]:
    """The full name of everything that a module imports: bptt.nn.gru, or bptt.nn.gru.forward."""
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            yield ast.unparse(node)


def offences(module: str, source: str) -> list[str]:
    """What a module imports and may not."""
    _, room, *inner = module.split(".")
    found = []
    for name in imports(module, source):
        package, *path = name.split(".")
        if "(" in name:  # import_module(...): what it imports cannot be read off
            allowed = room == "backend"
        elif package in ARRAY_LIBRARIES:
            allowed = package in MAY_NAME.get(room, ())
        elif package != "bptt":
            allowed = True
        else:
            target = path[0] if path and path[0] in ROOMS else "__init__"
            if room == target == "nn":
                allowed = path[1] in NN[inner[0]] if path[1:] else False
            else:
                allowed = target in {room, "errors"} | ROOMS[room]
        if not allowed:
            found.append(name)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_it_may(module):
    _, room, *inner = module.split(".")
    assert room in ROOMS, f"{module}: say in ROOMS what it may import"
    assert room != "nn" or inner[0] in NN, f"{module}: say in NN what it may import"
    source = SOURCE.parent.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
    assert not offences(module, source)


def test_every_room_is_there():
    rooms = {module.split(".")[1] for module in MODULES}
    assert rooms >= ROOMS.keys() - {"fused"}  # compiled twins are optional
    assert {module.split(".")[2] for module in MODULES if module.startswith("bptt.nn.")} == NN.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bptt.nn.gru", "import numpy as np"),
        ("bptt.nn.gru", "from numpy.linalg import norm"),
        ("bptt.nn.gru", "import array_api_compat"),
        ("bptt.nn.gru", "def f():\n    import cupy"),
        ("bptt.nn.gru", "def f():\n    return importlib.import_module('cupy')"),
        ("bptt.nn.gru", "if TYPE_CHECKING:\n    from bptt.run.settings import Settings"),
        ("bptt.nn.gru", "from bptt.nn import linear, lstm"),
        ("bptt.nn.gru", "from . import lstm"),
        ("bptt.nn.gru", "from .lstm import forward"),
        ("bptt.nn.gru", "from ..run import settings"),
        ("bptt.nn.gru", "import bptt.nn"),
        ("bptt.nn.linear", "from bptt.nn import model"),
        ("bptt.nn.arrays", "from bptt.nn.linear import forward"),
        ("bptt.nn.optimizers", "from bptt.nn.model import Config"),
        ("bptt.nn.optimizers", "from bptt.nn import packing"),
        ("bptt.nn.__init__", "from bptt.nn import gru"),
        ("bptt.nn.gru", "from bptt.fused import cpu"),
        ("bptt.fused.cpu", "import torch"),
        ("bptt.textbook.basic_rnn", "from bptt.nn import vanilla"),
        ("bptt.textbook.basic_rnn", "import torch"),
        ("bptt.text.corpus", "from bptt.nn import model"),
        ("bptt.text.corpus", "import cupy as cp"),
        ("bptt.run.training", "from bptt import cli"),
        ("bptt.run.training", "from bptt import train"),
        ("bptt.run.training", "import bptt"),
        ("bptt.run.training", "from bptt.textbook import clip"),
        ("bptt.text.corpus", "from bptt.fused import cpu"),
        ("bptt.run.training", "import jax.numpy as jnp"),
        ("bptt.cli", "import numpy"),
        ("bptt.backend", "from bptt.text import corpus"),
        ("bptt.errors", "import bptt.backend"),
        ("bptt.__init__", "from bptt.nn import model"),
    ],
)
def test_forbidden_import_is_found(module, source):
    assert len(offences(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "bptt.nn.gru",
            "import math\nfrom bptt.backend import Array\nfrom bptt.nn import linear\nfrom bptt.nn.arrays import rows",
        ),
        ("bptt.nn.gru", "from bptt import dispatch\nfrom bptt.errors import InputError"),
        ("bptt.nn.gru", "from . import linear\nfrom .arrays import rows\nfrom ..backend import Array"),
        ("bptt.nn.model", "from bptt.nn import gru, initialisation, linear, loss, lstm, packing, vanilla"),
        ("bptt.fused.cuda", "import cupy\nimport numba\nfrom bptt.backend import Array\nfrom bptt.nn import gru"),
        ("bptt.textbook.__init__", "import numpy\nfrom bptt.textbook.basic_rnn import clip\nfrom bptt.backend import select"),
        (
            "bptt.text.corpus",
            "import numpy as np\nfrom importlib import resources\nfrom bptt.text.vocabulary import Vocabulary",
        ),
        ("bptt.run.training", "import safetensors.numpy\nfrom bptt import backend\nfrom bptt.nn import model"),
        ("bptt.cli", "from bptt import __version__, textbook\nfrom bptt.run.training import fit"),
        ("bptt.backend", "import torch, jax\nimportlib.import_module(name)"),
        ("bptt.__init__", "from bptt.errors import InputError\nfrom bptt.run.training import train"),
    ],
)
def test_allowed_import_is_not_found(module, source):
    assert offences(module, source) == []


def products(node: ast.AST) -> list[int]:
    """The lines with a @ that is in no loop."""
    found = [node.lineno] if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) else []
    return found + [line for child in ast.iter_child_nodes(node) if not isinstance(child, ast.For) for line in products(child)]


def test_products_outside_of_the_loops_over_time_are_written_matmul():
    """A captured CUDA graph has to supply its own."""
    for path in sorted((SOURCE / "nn").glob("*.py")):
        assert not products(ast.parse(path.read_text("utf-8"))), path.name
