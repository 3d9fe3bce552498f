"""Which module may import which: the table of layers below is the rule, and these tests hold the package to it.

Imports inside functions and for types only count like any other.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import bptt
from bptt.backend import BACKENDS

# From top to bottom. A module imports strictly lower lines only, or modules of its own package.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"__init__"},  # the public API
    {"report", "training"},
    {"inspect"},
    {"inference"},
    {"export", "train_step", "gradcheck"},
    {"acceleration"},
    {"distributed"},
    {"checkpoint"},
    {"kernels"},
    {"data"},
    {"config"},
    {"nn"},
    {"display", "textbook", "dispatch", "system"},
    {"backend", "files"},
    {"devices"},
    {"errors"},
]
LEVEL = {package: number for number, packages in enumerate(reversed(LAYERS)) for package in packages}
ONLY_BY_ACCELERATION = {"kernels"}  # imported lazily, for a kernel needs a library that may be missing

# Inside nn, from top to bottom. The optimizers know vectors, not models.
NN_LAYERS = [
    {"segments"},
    {"gradient", "parametrization"},
    {"model"},
    {"cells"},
    {"vanilla", "gru", "lstm"},
    {"linear", "loss"},
    {"initializers", "optimizers", "schedules"},
    {"ops", "tree", "__init__"},
]
NN_LEVEL = {module: number for number, modules in enumerate(reversed(NN_LAYERS)) for module in modules}

# Array libraries: the backend chooses one, the maths names none, and the rest may use NumPy as what it is on the host.
ARRAY_LIBRARIES = {
    "numpy",
    "cupy",
    "cupyx",
    "torch",
    "jax",
    "llvmlite",
    "scipy",
    "array_api_compat",
    "array_api_strict",
}
NAMES_LIBRARIES = {
    "backend": ARRAY_LIBRARIES,
    "devices": {"cupy", "jax", "torch"},
    "kernels": {"numpy", "llvmlite", "cupy", "cupyx"},
    "distributed": {"numpy", "cupy"},  # NCCL, as CuPy presents it
    "nn": set(),
    "errors": set(),
    "dispatch": set(),
    "files": set(),
    "cli": set(),
    "config": set(),
    "__init__": set(),
    "__main__": set(),
}

SOURCE = Path(bptt.__file__).parent
MODULES = sorted(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in SOURCE.rglob("*.py"))


def imports(module: str, source: str) -> Iterator[tuple[int, str]]:
    """The line and the full name of everything that a module imports: bptt.nn.gru, or bptt.nn.gru.forward."""
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            yield node.lineno, ast.unparse(node)


def package_of(name: str) -> str:
    """The line of the table that a full name belongs to; what the package itself exports is the public API."""
    parts = name.split(".")
    return parts[1] if parts[1:] and parts[1] in LEVEL else "__init__"


def problem(module: str, name: str) -> str:
    """Why a module may not import a name; empty if it may."""
    here, library = package_of(module), name.partition(".")[0]
    if "(" in name:  # import_module(...): what it imports cannot be read off
        return "" if here == "backend" else "only backend.py imports a module by its name"
    if library in ARRAY_LIBRARIES:
        allowed = NAMES_LIBRARIES.get(here, {"numpy"})
        return "" if library in allowed else f"{here} may not name {library}"
    if library != "bptt":
        return ""
    there = package_of(name)
    if here == there == "nn":
        inner = [full.split(".")[2] if full.count(".") > 1 else "__init__" for full in (module, name)]
        ok = NN_LEVEL[inner[0]] > NN_LEVEL.get(inner[1], 99)
        return "" if ok else f"nn.{inner[0]} is not above nn.{inner[1]}"
    if here == there and here != "__init__":
        return ""
    if there in ONLY_BY_ACCELERATION and here != "acceleration":
        return f"only acceleration imports {there}"
    return "" if LEVEL[here] > LEVEL[there] else f"{here} is not above {there}"


def problems(module: str, source: str) -> list[str]:
    """What a module imports and may not, each with its line."""
    found = ((line, name, problem(module, name)) for line, name in imports(module, source))
    return [f"{module}, line {line}: {name}: {why}" for line, name, why in found if why]


def source_of(module: str) -> str:
    return SOURCE.parent.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_lower_layers(module):
    name = module.split(".")[1]
    assert name in LEVEL, f"{module}: add {name} to LAYERS"
    found = problems(module, source_of(module))
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def compared_names(source: str) -> list[int]:
    """The lines that compare something with the name of a backend."""
    words = [
        (node.lineno, child)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        for child in ast.walk(node)
    ]
    return [line for line, child in words if isinstance(child, ast.Constant) and child.value in BACKENDS]


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ("bptt.backend", "bptt.devices")])
def test_no_module_compares_the_name_of_a_backend(module):
    """It asks for a capability: a new library then needs no change."""
    assert not compared_names(source_of(module))


def test_every_package_has_a_layer():
    assert {module.split(".")[1] for module in MODULES} == LEVEL.keys()
    assert {module.split(".")[2] for module in MODULES if module.startswith("bptt.nn.")} == NN_LEVEL.keys()


def test_there_is_no_import_cycle():
    """Not even between modules of one package, imports inside functions included."""
    known = {module.removesuffix(".__init__") for module in MODULES}
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        here = module.removesuffix(".__init__")
        names = (name if name in known else name.rpartition(".")[0] for _, name in imports(module, source_of(module)))
        graph[here] = {name for name in names if name in known and name not in (here, "bptt")}
    removed = True
    while removed:  # modules that import none of the rest
        removed = {module for module, targets in graph.items() if not targets & graph.keys()}
        graph = {module: targets - removed for module, targets in graph.items() if module not in removed}
    assert not graph, f"modules that import each other, or import such: {graph}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bptt.nn.gru", "import numpy as np"),
        ("bptt.nn.gru", "from numpy.linalg import norm"),
        ("bptt.nn.gru", "import array_api_compat"),
        ("bptt.nn.gru", "def f():\n    import cupy"),
        ("bptt.nn.gru", "def f():\n    return importlib.import_module('cupy')"),
        ("bptt.nn.gru", "if TYPE_CHECKING:\n    from bptt.config.settings import Settings"),
        ("bptt.nn.gru", "from bptt.nn import linear, lstm"),
        ("bptt.nn.gru", "from . import lstm"),
        ("bptt.nn.gru", "from .lstm import forward"),
        ("bptt.nn.gru", "from ..config import settings"),
        ("bptt.nn.gru", "from bptt.kernels import cpu"),
        ("bptt.nn.linear", "from bptt.nn import model"),
        ("bptt.nn.ops", "from bptt.nn.linear import forward"),
        ("bptt.nn.optimizers", "from bptt.nn.model import Config"),
        ("bptt.nn.optimizers", "from bptt.nn import model"),
        ("bptt.nn.__init__", "from bptt.nn import gru"),
        ("bptt.kernels.cpu.cells", "import torch"),
        ("bptt.kernels.cpu.cells", "from bptt.distributed import reduction"),
        ("bptt.train_step.update", "from bptt.kernels import cpu"),
        ("bptt.textbook.basic_rnn", "from bptt.nn import vanilla"),
        ("bptt.textbook.basic_rnn", "import torch"),
        ("bptt.data.corpus", "from bptt.checkpoint import store"),
        ("bptt.data.corpus", "import cupy as cp"),
        ("bptt.train_step.update", "from bptt import cli"),
        ("bptt.train_step.update", "from bptt import train"),
        ("bptt.train_step.update", "import bptt"),
        ("bptt.train_step.update", "from bptt.training import loop"),
        ("bptt.train_step.update", "from bptt.export import onnx"),
        ("bptt.train_step.update", "import jax.numpy as jnp"),
        ("bptt.cli.train", "import numpy"),
        ("bptt.backend", "from bptt.data import corpus"),
        ("bptt.errors", "import bptt.backend"),
    ],
)
def test_a_forbidden_import_is_reported(module, source):
    assert len(problems(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "bptt.nn.gru",
            "import math\nfrom bptt.nn import linear\nfrom bptt.nn.ops import rows",
        ),
        ("bptt.nn.gru", "from bptt.dispatch import accelerated\nfrom bptt.errors import InputError"),
        ("bptt.nn.gru", "from . import linear\nfrom .ops import rows\nfrom ..backend import Array"),
        ("bptt.nn.model", "from bptt.nn import gru, initializers, linear, loss, lstm, tree, vanilla"),
        ("bptt.kernels.cuda.gemm", "import cupy\nfrom bptt.backend import Array\nfrom bptt.nn import gru"),
        ("bptt.acceleration", "def f():\n    from bptt.kernels import cuda"),
        ("bptt.textbook.__init__", "import numpy\nfrom bptt.textbook.basic_rnn import clip\nfrom bptt.backend import select"),
        (
            "bptt.data.corpus",
            "import numpy as np\nfrom bptt.data.vocabulary import Vocabulary",
        ),
        ("bptt.training.loop", "import safetensors.numpy\nfrom bptt import backend\nfrom bptt.train_step import update"),
        ("bptt.cli.train", "from bptt import __version__, textbook\nfrom bptt.training.trainer import fit"),
        ("bptt.backend", "import torch, jax\nimportlib.import_module(name)"),
        ("bptt.__init__", "from bptt.errors import InputError\nfrom bptt.training.trainer import train"),
    ],
)
def test_an_allowed_import_is_not_reported(module, source):
    assert problems(module, source) == []


def products(node: ast.AST) -> list[int]:
    """The lines with a @ that is in no loop."""
    found = [node.lineno] if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) else []
    return found + [line for child in ast.iter_child_nodes(node) if not isinstance(child, ast.For) for line in products(child)]


def test_products_outside_the_time_loops_are_written_as_matmul():
    """A captured CUDA graph has to supply its own."""
    for path in sorted((SOURCE / "nn").glob("*.py")):
        assert not products(ast.parse(path.read_text("utf-8"))), path.name
