"""A deliberate mistake, and where it is made."""

import ast
from pathlib import Path
from typing import NamedTuple


class Mutation(NamedTuple):
    """A mistake: in a function, `right` becomes `wrong`, and `test` notices."""

    mistake: str
    function: str  # below bptt: "nn.gru.recurrence"; a module for what is in none; or a file: "kernels/cuda/cells.cu"
    right: str  # stands there once
    wrong: str
    test: str  # a file, and a pytest expression behind ::


def file_of(function: str, package: Path) -> tuple[Path, list[str]]:
    """The file of a function in a package folder, and the names inside the file."""
    if "/" in function:
        return package / function, []
    parts = function.split(".")
    for count in range(len(parts), 0, -1):
        path = package.joinpath(*parts[:count])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file, parts[count:]
    raise ValueError(f"{function}: no such module")


def span(source: str, names: list[str]) -> tuple[int, int]:
    """Where a function or class begins and ends in a source, decorators included; all of it without names."""
    body = ast.parse(source).body if names else []
    start, end = 0, len(source)
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    for name in names:
        found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
        if len(found) != 1:
            raise ValueError(f"{'.'.join(names)}: there are {len(found)} of that name")
        (node,) = found
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        start, end, body = offsets[first - 1], offsets[node.end_lineno or node.lineno], node.body
    return start, end


def mutated(mutation: Mutation, package: Path) -> tuple[Path, str]:
    """The file of a mutation and its source with the mistake.

    Raises:
        ValueError: there is no such function, or `right` does not stand in it exactly once.
    """
    file, names = file_of(mutation.function, package)
    source = file.read_text("utf-8")
    start, end = span(source, names)
    count = source.count(mutation.right, start, end)
    if count != 1:
        raise ValueError(f"{mutation.mistake}: {mutation.right!r} stands {count} times in {mutation.function}")
    return file, source[:start] + source[start:end].replace(mutation.right, mutation.wrong) + source[end:]
