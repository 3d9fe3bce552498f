"""How Sphinx builds these pages; `nox -s docs` runs it."""

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]

project = "bptt"
author = "the bptt developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
default_role = "code"  # what single backticks mean in docstrings
html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["tables.css"]
smartquotes = False  # -- is the beginning of a flag
html_title = "bptt"
html_show_sphinx = False
html_copy_source = False
html_extra_path = ["extra"]  # the page that docs/build.py exports
html_show_copyright = False
copybutton_prompt_text = "$ "

myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 4  # the same anchors as on GitHub

nitpick_ignore_regex = [  # types in signatures: of Python and NumPy, whose pages would have to be fetched, and of inner modules
    (r"py:.*", r"(array|collections|Figure|numpy|os|pandas|pathlib|typing)\b.*"),
    (r"py:.*", r"bptt\.(backend|checkpoint|data|inference)\..*"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_display_short_literal_types = True
python_maximum_signature_line_length = 80


def link_to_repository(app: Any, docname: str, source: list[str]) -> None:
    """Point links that leave this folder, to a script or a result, to the repository."""
    folder = (Path("docs") / docname).parent

    def absolute(match: re.Match[str]) -> str:
        path = Path(*folder.parts, match[1])
        parts: list[str] = []
        for part in path.parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        return match[0] if parts[0] == "docs" else f"]({REPOSITORY}/blob/main/{'/'.join(parts)})"

    source[0] = re.sub(r"\]\((\.\./[^)#]+)\)", absolute, source[0])


def list_fields(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Add the fields of a class to its description, each with the comment behind it, which has shapes and units."""
    if not inspect.isclass(obj):
        return
    bases = [base for base in reversed(obj.__mro__) if base.__module__.startswith("bptt.")]
    source = "".join(inspect.getsource(base) for base in bases)
    comments = dict(re.findall(r"^    ([a-zA-Z]\w*): [^#\n]*# (.*)", source, re.MULTILINE))
    lines += ["", *(f"- `{field}`: {comment}" for field, comment in comments.items()), ""]


def skip_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which `list_fields` describes."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def show_constants(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Show the values of constants that are defaults of arguments."""
    if signature is None or not inspect.isfunction(obj):
        return None
    names = vars(inspect.getmodule(obj))
    return re.sub(r"(?<== )[A-Z_]{2,}\b", lambda match: repr(names[match[0]]), signature), returns


def escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show stars, backslashes and names such as from_ of docstrings as they are; what is between backticks is safe."""
    special = re.compile(r"[*\\]|(?<=[a-z])_(?=\W|$)")
    lines[:] = [
        "`".join(part if i % 2 else special.sub(r"\\\g<0>", part) for i, part in enumerate(line.split("`"))) for line in lines
    ]


def setup(app: Any) -> None:
    """Connect the functions above, for Sphinx."""
    app.connect("source-read", link_to_repository)
    app.connect("autodoc-process-docstring", list_fields)
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", show_constants)
    app.connect("autodoc-skip-member", skip_fields)
