"""Limits that keep the package readable: sizes of files, functions, signatures and packages."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bptt

SOURCE = Path(bptt.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60  # without signature and docstring
MAX_POSITIONAL = 7  # parameters; kernels and accelerated functions take the arrays of an equation one by one
MAX_MODULES = 16  # in a package, with its sub-packages; the top level counts its own modules only
MAX_SHARE = 0.2  # of all lines, in one top-level package or module

# What may exceed a limit, as "file" or "file: function", and why.
EXCEPTIONS: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Excess = tuple[str, int, str]  # an entry of EXCEPTIONS, a line, and what there is too much of


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Each function of a file with its name in the module, those inside of other functions and of classes included."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            inner = f"{prefix}{child.name}." if isinstance(child, Function | ast.ClassDef) else prefix
            if isinstance(child, Function):
                yield inner[:-1], child
            yield from walk(child, inner)

    return walk(ast.parse(path.read_text("utf-8")), "")


def body_lines(function: Function) -> int:
    """The lines of a function after its signature and docstring."""
    statements = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (function.end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def positional(function: Function) -> int:
    """The parameters that can be passed by position, without self and cls."""
    names = [parameter.arg for parameter in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def may_take_many(path: Path, function: Function) -> bool:
    return "kernels/" in name_of(path) or any("accelerated" in ast.unparse(decorator) for decorator in function.decorator_list)


def too_large(path: Path) -> Iterator[Excess]:
    """What in a file is beyond a limit."""
    name, lines = name_of(path), len(path.read_text("utf-8").splitlines())
    if lines > MAX_FILE_LINES:
        yield name, 1, f"{lines} lines, at most {MAX_FILE_LINES}"
    for function, node in functions(path):
        if (count := body_lines(node)) > MAX_FUNCTION_LINES:
            yield f"{name}: {function}", node.lineno, f"{count} lines, at most {MAX_FUNCTION_LINES}"
        if (count := positional(node)) > MAX_POSITIONAL and not may_take_many(path, node):
            yield f"{name}: {function}", node.lineno, f"{count} positional parameters, at most {MAX_POSITIONAL}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_functions_and_signatures_keep_their_limits(path):
    excesses = [(key, line, problem) for key, line, problem in too_large(path) if key not in EXCEPTIONS]
    if excesses:
        pytest.fail("\n".join(f"{path}:{line}: {key}: {problem}" for key, line, problem in excesses), pytrace=False)


def test_every_exception_is_needed_and_has_a_reason():
    assert {key for path in FILES for key, _, _ in too_large(path)} >= EXCEPTIONS.keys()
    assert all(EXCEPTIONS.values())


@pytest.mark.parametrize("package", sorted({path.parent for path in FILES}), ids=name_of)
def test_a_package_has_few_modules(package):
    modules = [path for path in package.iterdir() if path.suffix == ".py" and path.stem != "__init__"]
    packages = [path for path in package.iterdir() if (path / "__init__.py").exists()]
    assert len(modules) + len(packages) * (package != SOURCE) <= MAX_MODULES, sorted(path.name for path in modules + packages)


def test_no_package_holds_more_than_a_fifth_of_all_lines():
    lines: dict[str, int] = {}
    for path in FILES:
        top = path.relative_to(SOURCE).parts[0]
        lines[top] = lines.get(top, 0) + len(path.read_text("utf-8").splitlines())
    total = sum(lines.values())
    large = {name: f"{count} of {total} lines" for name, count in lines.items() if count > MAX_SHARE * total}
    assert not large


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a, b, c, d, e, f, g): pass", []),
        ("def f(a, b, c, /, d, e, f, g, h): pass", [("x.py: f", 1, "8 positional parameters, at most 7")]),
        ("class C:\n    def f(self, a, b, c, d, e, f, g, *, h): pass", []),
        ("class C:\n    def f(self, a, b, c, d, e, f, g, h): pass", [("x.py: C.f", 2, "8 positional parameters, at most 7")]),
        ("@accelerated\ndef f(a, b, c, d, e, f, g, h): pass", []),
        ('def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n' + "    a = 1\n" * 60, []),
        ("def f():\n    def g():\n" + "        a = 1\n" * 61, [("x.py: f", 1, "62"), ("x.py: f.g", 2, "61")]),
        ("a = 1\n" * 301, [("x.py", 1, "301 lines, at most 300")]),
    ],
)
def test_what_is_too_large_is_found(tmp_path, monkeypatch, source, expected):
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "x.py").write_text(source)
    excesses = list(too_large(tmp_path / "x.py"))
    assert [(key, line) for key, line, _ in excesses] == [(key, line) for key, line, _ in expected]
    assert all(problem.startswith(start) for (_, _, problem), (_, _, start) in zip(excesses, expected))
