"""The pages in docs/: what they name is there, and what they quote is what runs."""

import ast
import functools
import importlib.util
import re
from pathlib import Path

import pytest

import bptt
from bptt import cli
from bptt.config.settings import SETTING_NAMES
from bptt.errors import flag

ROOT = Path(__file__).parents[1]  # the checkout, or the source distribution
PAGES = sorted((ROOT / "docs").rglob("*.md"))
README = ROOT / "README.md"
TREE = "\n## What is where\n"  # the heading over the tree of files in architecture.md
EQUATIONS = ROOT / "docs" / "explanation" / "equations.md"
ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"
CODE = [path for folder in ("src", "examples", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
FILE = r"[\w.-]+(?:/[\w.-]+)*\.(?:py|cu|hpp|md)"
DATA = {"txt", "toml", "json", "jsonl", "safetensors", "png", "svg", "lock", "html", "onnx"}  # endings of names of files
OTHERS = {"cupy", "jax", "mpi4py", "numpy", "sys", "torch", "lab"}  # libraries and a fixture: not looked into


def defined(place: Path | ast.ClassDef) -> set[str]:
    """The names at the top of a module or class: functions, classes, what is assigned or imported."""
    found = set()
    for node in (place if isinstance(place, ast.ClassDef) else ast.parse(place.read_text("utf-8"))).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return found


@functools.cache
def classes() -> dict[str, set[str]]:
    """The names of the fields and methods of every class at the top of a module of the package."""
    members: dict[str, set[str]] = {}
    for path in CODE:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and "src" in path.parts:
                members.setdefault(node.name, set()).update(defined(node))
    return members


def modules(name: str) -> list[Path]:
    """The files of the modules and packages of that name."""
    return [path for path in CODE if (path.parent.name if path.name == "__init__.py" else path.stem) == name]


def place(name: str) -> Path | None:
    """A file or folder as a page names it: from the top of the checkout, or from the top of the package or its maths."""
    return next((ROOT / top / name for top in ("", "src/bptt", "src/bptt/nn") if (ROOT / top / name).exists()), None)


def is_there(name: str) -> bool:
    """Whether a dotted name leads to something: bptt.train, gru.recurrence, LanguageModel.save."""
    first, second = name.split(".")[:2]
    if first == "bptt":
        return hasattr(bptt, second) or bool(modules(second))
    return first in OTHERS or any(second in defined(path) for path in modules(first)) or second in classes().get(first, ())


def split(text: str) -> tuple[str, list[str], list[str]]:
    """The prose of a page, its blocks that are indented, line by line, and those of Python."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return prose, re.findall(r"^    .*", prose, re.MULTILINE), blocks


def wrong(text: str) -> list[str]:
    """What a page names that is not there."""
    prose, indented, _ = split(text)
    found = []
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^    .*", "", prose, flags=re.MULTILINE)):
        if functions := re.fullmatch(rf"({FILE}): (\w+(?:, \w+)*)", span):
            path = place(functions[1])
            found += [span for name in functions[2].split(", ") if path is None or name not in defined(path)]
        elif re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", span) and not re.fullmatch(FILE, span):
            found += [span] if span.rpartition(".")[2] not in DATA and not is_there(span) else []
        else:
            named = [word for word in span.split() if re.fullmatch(FILE, word) and Path(word).stem not in ("NAME", "FILE")]
            named += [span] if re.fullmatch(r"(src|tests|examples|docs|bench)(/\w+)*", span) else []
            found += [name for name in named if place(name) is None]
    for name, file in re.findall(rf"`(\w+)` (?:in|of)\s`({FILE})`", prose):
        path = place(file)
        found += [f"{name} in {file}"] if path is None or name not in defined(path) else []
    for line in indented:
        found += [name for name in re.findall(rf"(?<!\S)[\w-]+/{FILE}", line) if place(name) is None]
        names = re.findall(r"(?<![\w/.'\"-])[A-Za-z_]+\.[A-Za-z_]+\b(?![/-])", line)
        found += [name for name in names if name.rpartition(".")[2] not in DATA | {"py"} and not is_there(name)]
    return found


@pytest.mark.parametrize("page", [*PAGES, README, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_names_in_the_docs_exist_in_the_code(page):
    assert not wrong(page.read_text("utf-8").partition(TREE)[0])


@pytest.mark.parametrize(
    "text",
    [
        "see `nn/gru.py: recurrence_backwards`",
        "see `nn/gruu.py: recurrence`",
        "see `gru.recurrent`",
        "see `gruu.recurrence`",
        "see `bptt.trane`",
        "see `LanguageModel.safe`",
        "see `examples/nothing.py`, and more",
        "run `python bench/nothing.py --steps 3`",
        "see `src/bptt/nothing`",
        "`centrale_differences` in `tests/gradcheck.py`",
        "so\n\n    d = da + da_next      gru.recurrent\n",
        "so\n\n    python examples/nothing.py\n",
    ],
)
def test_a_missing_name_is_reported(text):
    assert len(wrong(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "see `nn/gru.py: recurrence_backward, run`, `gru.recurrence`, `textbook.clip`, `bptt.train` and `cells.CELLS`",
        "`runs/names`, `names.txt`, `config.toml`, `torch.nn`, `LanguageModel.save`, `--length` and `0.5 tanh(v/2)`",
        "`central_differences` in `tests/gradcheck.py`, `src/bptt/nn` and `python bench/memory.py --steps 3`",
        "so\n\n    d = da + da_next      gru.recurrence_backward, by ops.outer_sum\n    python bench/memory.py 1.5 names.txt\n",
    ],
)
def test_an_existing_name_is_not_reported(text):
    assert not wrong(text)


def test_equations_md_names_every_backward_pass_and_recurrence():
    named = set(re.findall(r"\b[a-z]+\.[a-z_]+\b", EQUATIONS.read_text("utf-8")))
    for path in sorted((ROOT / "src" / "bptt" / "nn").glob("*.py")):
        wanted = {f"{path.stem}.{name}" for name in defined(path) if name.endswith("backward") or name == "recurrence"}
        assert wanted <= named, path.name


QUOTING = [page for page in PAGES if page.parent.name != "how-to"]  # the Python of the guides is run by tests/test_pages.py


@pytest.mark.parametrize("page", QUOTING, ids=lambda path: path.name)
def test_python_code_in_the_docs_is_quoted_from_a_file(page):
    files = [path.read_text("utf-8") for path in CODE]
    for block in split(page.read_text("utf-8"))[2]:
        assert any(block in text for text in files), block


@pytest.mark.parametrize("page", [*PAGES, README, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_in_the_docs_have_targets(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", split(page.read_text("utf-8"))[0]):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], anchor


def files_of_tree(text: str) -> dict[Path, str]:
    """The files and folders that the tree of files names, each with its line."""
    tree = text.partition(TREE)[2]
    folders: list[tuple[int, Path]] = []  # that the next line may be in, with their indents
    paths = {}
    for line in re.findall(r"^    .*", tree, re.MULTILINE):
        indent = len(line) - len(line.lstrip())
        folders = [(column, folder) for column, folder in folders if column < indent]
        parent = folders[-1][1] if folders else ROOT
        names = re.match(r"\s*((?:[\w./-]+, )*[\w./-]+)", line)[1].split(", ")
        paths |= {parent / name: line for name in names}
        if names[0].endswith("/"):
            folders.append((indent, parent / names[0]))
        described = re.findall(r"(?<![\w/.-])([\w.-]+\.(?:py|cu|html|md)):", line[len(names[0]) + indent :])
        paths |= {folders[-1][1] / name: line for name in described}
    return paths


def test_the_tree_of_files_is_that_of_the_package():
    paths = files_of_tree(ARCHITECTURE.read_text("utf-8"))
    assert [line for path, line in paths.items() if not path.exists()] == []
    package = ROOT / "src" / "bptt"
    missing = {path for path in package.rglob("*.py") if path.stem != "__init__"} - paths.keys()
    assert sorted(path.relative_to(package).as_posix() for path in missing) == []
    assert {path for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"} <= paths.keys()


def section(title: str) -> str:
    """A section of architecture.md, by a word of its heading."""
    return next(part for part in ARCHITECTURE.read_text("utf-8").split("\n## ") if title in part.partition("\n")[0])


def table(text: str) -> list[list[str]]:
    """The cells of the rows of a table, without its heading."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_layers_in_the_architecture_are_those_that_the_imports_are_held_to():
    source = ast.parse((ROOT / "tests" / "test_imports.py").read_text("utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in source.body if isinstance(node, ast.Assign)}
    lines = re.findall(r"^    (\S.*?)  +\S", section("Layers"), re.MULTILINE)
    assert [set(line.split(", ")) for line in lines] == ast.literal_eval(assigned["LAYERS"])


def test_the_path_of_a_batch_has_a_function_for_each_stage():
    text = section("path of one batch")
    stages = re.search(r"^    (text -> .*)", text, re.MULTILINE)[1].split(" -> ")
    rows = table(text)
    assert [row[0] for row in rows if row[0]] == stages
    assert all(re.fullmatch(r"`[\w./]+[.:] ?\w+`(, `[\w./]+[.:] ?\w+`)*", row[2]) for row in rows)


def test_every_row_of_what_to_open_names_a_file():
    rows = table(section("To see or change"))
    assert len(rows) >= 25
    for what, where in rows:
        for span in where.split(", `"):
            assert re.fullmatch(rf"`?{FILE}(: \w+(, \w+)*)?`", span), what


def test_flags_in_the_architecture_exist():
    known = {flag(name) for name in SETTING_NAMES} | {"--resume", "--dry-run", "--to"}
    assert set(re.findall(r"--[a-z][\w-]*", ARCHITECTURE.read_text("utf-8"))) <= known


@pytest.fixture
def build():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "loading",
    [
        '<script src="https://cdn.example/x.js"></script>',
        "<img alt='' src='//example.org/a.png'>",
        '<link rel="stylesheet" href="http://fonts.example/a.css">',
        "<style>@import 'https://fonts.example/a.css';</style>",
        "<style>a { background: url(https://example.org/a.png) }</style>",
    ],
)
def test_a_page_that_loads_from_the_network_is_noticed(build, tmp_path, loading):
    (tmp_path / "index.html").write_text(f"<html>{loading}</html>")
    assert len(build.loads_from_network(tmp_path)) == 1


def test_links_and_files_of_a_site_are_no_loading_from_the_network(build, tmp_path):
    (tmp_path / "index.html").write_text(
        '<a href="https://example.org">x</a><img src="a.png"><script src="_static/x.js"></script>'
    )
    assert build.loads_from_network(tmp_path) == []


def test_every_page_is_in_the_contents_of_the_site(build):
    listed = set(re.findall(r"^[\w-]+(?:/[\w-]+)?$", (ROOT / "docs" / "index.md").read_text("utf-8"), re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES} - {"index"}
    assert listed == pages | {"gallery", "reference/command-line", "reference/settings"}  # these two are generated


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
    errors = defined(ROOT / "src" / "bptt" / "errors.py")
    names = {name for name in bptt.__all__ if name not in errors} - {"__version__"}
    assert [name for name in sorted(names) if not re.search(rf"auto\w+:: bptt\.{name}\b", page)] == []
    maths = (ROOT / "docs" / "reference" / "nn.md").read_text("utf-8")
    modules = {path.stem for path in (ROOT / "src" / "bptt" / "nn").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"automodule:: bptt\.nn\.(\w+)", maths)) == modules


def test_every_environment_variable_is_in_the_reference():
    code = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    page = (ROOT / "docs" / "reference" / "environment.md").read_text("utf-8")
    assert [name for name in sorted(set(re.findall(r"\bBPTT_[A-Z_]+\b", code))) if f"`{name}`" not in page] == []


def test_every_exit_code_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    told = cli.main.__doc__.partition("\n")[2]
    assert {int(row[0]) for row in table(page)} == {int(code) for code in re.findall(r"\b\d+\b", told)}
