"""The pages in docs/: what they name is there, and what they quote is what runs."""

import ast
import re
from pathlib import Path

import pytest

import bptt

ROOT = Path(__file__).parents[1]  # the checkout, or the source distribution
PAGES = sorted((ROOT / "docs").glob("*.md"))
EQUATIONS = ROOT / "docs" / "equations.md"
CODE = [path for folder in ("src", "examples", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
FILE = r"[\w.-]+(?:/[\w.-]+)*\.(?:py|cu|hpp|md)"
DATA = {"txt", "toml", "json", "jsonl", "safetensors", "png", "svg", "lock"}  # endings of names that are no functions
OTHERS = {"cupy", "jax", "mpi4py", "numba", "numpy", "sys", "torch"}  # libraries, whose functions are not looked for


def defined(path: Path) -> set[str]:
    """The names at the top of a module: functions, classes, what is assigned or imported."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return found


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
    if first in bptt.__all__:
        return hasattr(getattr(bptt, first), second)
    return first in OTHERS or any(second in defined(path) for path in modules(first))


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
            named = [word for word in span.split() if re.fullmatch(FILE, word)]
            named += [span] if re.fullmatch(r"(src|tests|examples|docs|bench)(/\w+)*", span) else []
            found += [name for name in named if place(name) is None]
    for name, file in re.findall(rf"`(\w+)` in\s`({FILE})`", prose):
        path = place(file)
        found += [f"{name} in {file}"] if path is None or name not in defined(path) else []
    for line in indented:
        found += [name for name in re.findall(rf"(?<!\S)[\w-]+/{FILE}", line) if place(name) is None]
        names = re.findall(r"(?<![\w/.'\"-])[A-Za-z_]+\.[A-Za-z_]+\b(?![/-])", line)
        found += [name for name in names if name.rpartition(".")[2] not in DATA | {"py"} and not is_there(name)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_a_page_names_is_there(page):
    assert not wrong(page.read_text("utf-8"))


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
def test_what_is_not_there_is_found(text):
    assert len(wrong(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "see `nn/gru.py: recurrence_backward, run`, `gru.recurrence`, `textbook.clip`, `bptt.train` and `model.CELLS`",
        "`runs/names`, `names.txt`, `config.toml`, `torch.nn`, `LanguageModel.save`, `--length` and `0.5 tanh(v/2)`",
        "`central_differences` in `tests/gradcheck.py`, `src/bptt/nn` and `python bench/memory.py --steps 3`",
        "so\n\n    d = da + da_next      gru.recurrence_backward, by ops.outer_sum\n    python bench/memory.py 1.5 names.txt\n",
    ],
)
def test_what_is_there_is_not_found(text):
    assert not wrong(text)


def test_every_backward_pass_and_recurrence_is_in_the_equations():
    named = set(re.findall(r"\b[a-z]+\.[a-z_]+\b", EQUATIONS.read_text("utf-8")))
    for path in sorted((ROOT / "src" / "bptt" / "nn").glob("*.py")):
        wanted = {f"{path.stem}.{name}" for name in defined(path) if name.endswith("backward") or name == "recurrence"}
        assert wanted <= named, path.name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_in_a_page_stands_in_a_file(page):
    files = [path.read_text("utf-8") for path in CODE]
    for block in split(page.read_text("utf-8"))[2]:
        assert any(block in text for text in files), block


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", split(page.read_text("utf-8"))[0]):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], anchor
