"""CONTRIBUTING's recipes for a cell, an optimizer, an export format and a flag, followed in a scratch copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = "anna\nbob\ncarol\ndave\neve\n" * 4
SMALL = ("--hidden", "4", "--steps", "4", "--backend", "numpy", "--quiet")


class Copy:
    """A copy of the package, in which files are edited and commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.package = folder, folder / "src" / "bptt"
        shutil.copytree(ROOT / "src" / "bptt", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "names.txt").write_text(NAMES)

    def edit(self, file: str, *changes: tuple[str, str]) -> None:
        """Replace texts in a file of the package, each of which stands there once."""
        path = self.package / file
        source = path.read_text("utf-8")
        for old, new in changes:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {file}"
            source = source.replace(old, new)
        path.write_text(source, "utf-8")

    def python(self, *arguments: str) -> str:
        """What Python prints in the folder, with the copy as the package."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "BPTT_KERNELS": "0", "COLUMNS": "200"}
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def bptt(self, *arguments: str) -> str:
        """What a command of bptt prints."""
        return self.python("-m", "bptt", *arguments)


@pytest.fixture
def scratch(tmp_path):
    """A scratch copy of the package."""
    return Copy(tmp_path)


def test_recipe_for_a_cell(scratch):
    shutil.copy(ROOT / "examples" / "minimal_gated_unit.py", scratch.package / "nn" / "mgu.py")
    scratch.edit(
        "nn/cells.py",
        ('CellName = Literal["vanilla", "gru", "lstm"]', 'CellName = Literal["vanilla", "gru", "lstm", "mgu"]'),
        ('"lstm": lstm}', '"lstm": lstm, "mgu": mgu}'),
        ("import gru, initializers, lstm, vanilla", "import gru, initializers, lstm, mgu, vanilla"),
    )
    assert "mgu" in scratch.bptt("train", "--help")
    assert "WRONG" not in scratch.bptt("check", "--cell", "mgu", "--backend", "numpy")
    scratch.bptt("train", "names.txt", "--cell", "mgu", *SMALL, "--out", "run")
    scratch.bptt("train", "--resume", "run", "--steps", "6", "--quiet")
    assert scratch.bptt("sample", "run", "--count", "2").count("\n") == 2


def test_recipe_for_an_optimizer(scratch):
    scratch.edit(
        "nn/optimizers.py",
        ('"sgd"]', '"sgd", "sign"]'),
        ('    "sgd": Optimizer(', '    "sign": Optimizer(init_sgd, sign, 1e-3),\n    "sgd": Optimizer('),
        (
            "def init_sgd(",
            "def sign(params_vector, grad, state, learning_rate):\n"
            '    """Sign descent."""\n'
            "    return params_vector - learning_rate * namespace(grad).sign(grad), state\n\n\n"
            "def init_sgd(",
        ),
    )
    assert "sign" in scratch.bptt("train", "--help")
    scratch.bptt("train", "names.txt", "--optimizer", "sign", *SMALL, "--out", "run")
    scratch.bptt("train", "--resume", "run", "--steps", "6", "--quiet")
    code = "import bptt; print(bptt.load('run').record['plan']['learning_rate'])"
    assert scratch.python("-c", code) == "0.001\n"


def test_recipe_for_an_export_format(scratch):
    (scratch.package / "export" / "listing.py").write_text(
        '"""The names and shapes of the weights as text."""\n\n'
        "from bptt.export.common import new_file, write_file\n\n\n"
        "def to_listing(saved, path):\n"
        '    """Write a model into a new file."""\n'
        '    lines = [f"{name} {list(array.shape)}\\n" for name, array in saved.weights.items()]\n'
        '    write_file(new_file(path), "".join(lines).encode())\n'
    )
    scratch.edit(
        "export/__init__.py",
        ('"page"]', '"page", "listing"]'),
        ("import onnx, pytorch", "import listing, onnx, pytorch"),
        (
            '    "page": Exporter(',
            '    "listing": Exporter(".txt", listing.to_listing, "names and shapes"),\n    "page": Exporter(',
        ),
    )
    assert "listing (.txt): names and shapes" in " ".join(scratch.bptt("export", "--help").replace("│", " ").split())
    scratch.bptt("train", "names.txt", *SMALL, "--cell", "vanilla", "--out", "run")
    scratch.bptt("export", "run", "--to", "listing")
    assert "layers.0.Waa [4, 4]\n" in (scratch.folder / "run.txt").read_text()


def test_recipe_for_a_flag(scratch):
    scratch.edit(
        "config/settings.py",
        (
            "    quiet: bool =",
            '    burn_in: int = 0\n    """Steps at the beginning of a text that count for nothing."""\n    quiet: bool =',
        ),
        ('    "seed": SEED,\n', '    "seed": SEED,\n    "burn_in": SEED,\n'),
    )
    scratch.edit("config/reference.py", ('    "Output": (', '    "Output": ("burn_in", '))
    scratch.edit("training/api.py", ("    quiet: bool =", "    burn_in: int = 0,\n    quiet: bool ="))
    assert "--burn-in" in scratch.bptt("train", "--help")
    scratch.bptt("train", "names.txt", *SMALL, "--burn-in", "3", "--out", "run")
    assert "burn_in = 3\n" in (scratch.folder / "run" / "config.toml").read_text()
    code = "import bptt; print(bptt.train(['anna', 'bob'] * 9, burn_in=2, steps=2, report=None).record['settings']['burn_in'])"
    assert scratch.python("-c", code) == "2\n"
    with pytest.raises(AssertionError, match=r"--burn-in -1: expected a whole number, at least 0"):
        scratch.bptt("train", "names.txt", *SMALL, "--burn-in=-1")
