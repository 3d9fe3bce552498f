"""Build the documentation site: `nox -s docs`, or `python docs/build.py [OUT]` with the packages of the group `docs`.

Some pages are generated: the command line from its help, and the gallery from what the examples print. A warning is an
error, and so is a page that loads something from the network.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
GALLERY = {  # the examples in their order, and what they are run with
    "names": [],
    "style": [],
    "odd_ones_out": [],
    "from_scratch": [],
}
LOADED = re.compile(  # by a page as it opens; a link loads nothing
    r"""<(?:script|img|iframe|source|video|object|embed)\b[^>]*?\s(?:src|data)=["'](?:https?:)?//|<link\b[^>]*\bhref=["'](?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|@import\s+["'](?:https?:)?//""",
    re.IGNORECASE,
)


def command_line() -> str:
    """The page about all commands and flags, from the same source as their help."""
    from bptt import cli  # noqa: F401  # it adds the commands to the app
    from bptt.cli.parser import app

    return str(app.generate_docs(output_format="markdown", heading_level=1))


def gallery() -> str:
    """The page of the examples, each with its code and what it prints."""
    parts = ["# Gallery\n\nThe programs in `examples/`, each with what it printed when these pages were built.\n"]
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in GALLERY.items():
            script = ROOT / "examples" / f"{name}.py"
            code = script.read_text("utf-8")
            title, _, about = (ast.get_docstring(ast.parse(code)) or "").partition(": ")
            print(f"running {script.name}", flush=True)
            env = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", "BPTT_KERNELS": "0"}
            command = [sys.executable, str(script), *arguments]
            done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
            parts.append(f"## {title}\n\n{about[:1].upper()}{about[1:]}\n\n```python\n{code}```\n\n```text\n{done.stdout}```\n")
    return "\n".join(parts)


def loads_from_network(site: Path) -> list[str]:
    """The files of a site that would load something from another address as they open, each with what it loads."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            found += [f"{path.relative_to(site)}: {match[0]}" for match in LOADED.finditer(path.read_text("utf-8"))]
    return found


def main() -> int:
    """Build the site and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "build" / "docs", help="folder of the site")
    parser.add_argument("--external", action="store_true", help="check links to other sites, too; needs a network")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "docs"
        shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        shutil.copy(ROOT / "pyproject.toml", folder)  # conf.py takes the address of the repository from it
        (source / "reference" / "command-line.md").write_text(command_line(), "utf-8")
        (source / "gallery.md").write_text(gallery(), "utf-8")
        sphinx = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]
        shutil.rmtree(arguments.out, ignore_errors=True)
        for builder in ["html", *(["linkcheck"] if arguments.external else [])]:
            target = arguments.out if builder == "html" else Path(folder) / builder
            if code := subprocess.run([*sphinx, "-b", builder, str(source), str(target)], check=False).returncode:
                return code
    found = loads_from_network(arguments.out)
    print("\n".join([*found, f"{arguments.out / 'index.html'}: {'it loads files from the network' if found else 'built'}"]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
