"""The package as it is installed: its version, its files, its public names, its start-up and its help."""

import importlib.metadata
import importlib.resources
import inspect
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import bptt
from bptt import cli
from bptt.cli import parser
from bptt.nn import vanilla

COMMAND = Path(sysconfig.get_path("scripts")) / "bptt"
COMMANDS = [name for name in parser.app if not name.startswith("-")]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


def test_the_version_is_that_of_the_metadata():
    assert bptt.__version__ == importlib.metadata.version("bptt")
    assert run(COMMAND, "--version").stdout.strip() == bptt.__version__


@pytest.mark.parametrize("module", ["bptt", "bptt.training.trainer", "bptt.cli"])
def test_importing_loads_no_heavy_libraries(module):
    """What costs seconds or is optional is imported where it is used; the command line's parser by the command line alone."""
    done = run(sys.executable, "-W", "error", "-c", f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout))
    heavy = {"cupy", "torch", "jax", "llvmlite", "matplotlib", "scipy", "mpi4py", "array_api_strict", "pytest"}
    heavy |= {"bptt": {"numpy", "bptt.training"}, "bptt.cli": set()}.get(module, {"cyclopts", "rich"})
    assert module in imported
    assert not imported & heavy


def test_the_version_is_printed_without_the_command_line():
    code = "import bptt.__main__, sys; sys.argv[1:] = ['--version']; code = bptt.__main__.main(); print(code, *sys.modules)"
    version, rest = run(sys.executable, "-c", code).stdout.splitlines()
    assert version == bptt.__version__
    assert rest.startswith("0 ")
    assert not {"numpy", "cyclopts", "rich", "bptt.cli"} & set(rest.split())


def test_data_files_are_installed():
    """From a wheel, as nox installs the package, this reads what the wheel holds."""
    files = importlib.resources.files("bptt")
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("data", "builtin", "dinosaurs.txt").read_text("utf-8").startswith("aardonyx\n")


def test_only_the_package_is_installed():
    installed = importlib.metadata.files("bptt")
    assert installed
    names = {path.parts[0] for path in installed if path.parts[0] != ".." and path.suffix != ".pth"}
    assert names - {"__pycache__"} <= {"bptt", f"bptt-{bptt.__version__}.dist-info"}
    assert any(path.name == "LICENSE" for path in installed)


def test_public_names_exist_and_are_sorted():
    assert bptt.__all__ == sorted(bptt.__all__)
    assert all(hasattr(bptt, name) for name in bptt.__all__)


def documented():
    """The public functions, the public classes and their public members, by name."""
    for name in bptt.__all__:
        thing = getattr(bptt, name)
        if inspect.isclass(thing) or callable(thing):
            yield name, thing
        if inspect.isclass(thing):
            classes = [base for base in reversed(thing.__mro__) if base.__module__.startswith("bptt")]
            members = {key: member for base in classes for key, member in vars(base).items() if not key.startswith("_")}
            yield from ((f"{name}.{key}", it) for key, it in members.items() if callable(it) or isinstance(it, property))


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in documented()])
def test_every_public_name_has_a_docstring(name, thing):
    first, _, rest = (thing.__doc__ or "").partition("\n")
    assert first.endswith((".", ":")), f"{name}: the first line is to be a sentence that would do alone"
    assert not first.startswith(f"{name}("), f"{name}: has only the docstring that a dataclass makes up"
    assert not rest or rest.startswith("\n"), f"{name}: a blank line belongs below the first"


def test_the_docstring_test_sees_the_public_names():
    assert {
        "train",
        "load",
        "LanguageModel",
        "LanguageModel.sample",
        "InputError",
        "TrainingWarning",
        "Diverged",
        "CheckpointError",
    } <= {name for name, _ in documented()}


def test_help_lists_the_commands():
    done = run(COMMAND, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"train", "sample", "evaluate"} <= set(COMMANDS)
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name, capsys):
    assert cli.main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"bptt {name}" in out


def test_the_readme_quotes_the_real_backward_pass():
    readme = Path(__file__).parents[1] / "README.md"  # in the checkout and in the source distribution
    block = readme.read_text("utf-8").partition("```python\ndef recurrence_backward")[2].partition("```")[0]
    assert block.count("\n") > 8
    assert inspect.getsource(vanilla.recurrence_backward).endswith(f"def recurrence_backward{block}")


def test_the_readme_is_short():
    readme = Path(__file__).parents[1] / "README.md"
    assert len(readme.read_text("utf-8").splitlines()) <= 150


def test_the_readme_of_a_package_index_has_absolute_links_only():
    shown = importlib.metadata.metadata("bptt").get_payload()
    links = re.findall(r"\]\(([^)]*)\)", shown)
    assert len(links) > 20
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert sum("/raw/main/docs/" in link for link in links) == shown.count("![")
