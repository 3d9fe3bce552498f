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
GALLERY: dict[str, tuple[str, ...]] = {"names": (), "style": (), "odd_ones_out": (), "from_scratch": ()}  # and their arguments
LOADED = re.compile(  # by a page as it opens; a link loads nothing
    r"""<(?:script|img|iframe|source|video|object|embed)\b[^>]*?\s(?:src|data)=["'](?:https?:)?//|<link\b[^>]*\bhref=["'](?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|@import\s+["'](?:https?:)?//""",
    re.IGNORECASE,
)


def command_line() -> str:
    """The page about all commands and flags, from the same source as their help."""
    from bptt import cli  # noqa: F401  # it adds the commands to the app
    from bptt.cli import help as cli_help
    from bptt.cli.parser import app, commands

    cli_help.arrange()
    page = str(app.generate_docs(output_format="markdown", heading_level=1))
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    parts = ["# Command line\n\nThe help of all commands. [Settings](settings.md) has the flags of training as a table.\n"]
    for name in [*commands(), "--install-completion"]:
        parts.append("## " + sections[f"bptt {name}"].replace(f"bptt {name} {name} ", f"bptt {name} "))
        if name in cli_help.EXAMPLES:
            parts.append(f"**Examples**:\n\n```sh\n{cli_help.EXAMPLES[name].strip()}\n```\n")
    return "\n".join(parts)


SETTINGS = """# Settings

The settings of a run are flags of `bptt train`, keywords of `bptt.train` and keys of a TOML file. In Python, `from` is written
`from_`, and other names have `_` in place of `-`: `learning_rate`. The description says what is chosen where there is no
default.
"""
HEADING = "| flag | value | default | what it does |\n|---|---|---|---|"


def settings() -> str:
    """The table of the settings of a run: as a flag, in Python and in TOML."""
    from bptt.config.reference import settings_reference

    parts, group = [SETTINGS], ""
    for row in settings_reference():
        if row.group != group:
            group = row.group
            parts.append(f"\n## {group}\n\n{HEADING}")
        others = [kind for kind in row.type.split("|") if kind not in ("", "CHOICE", *row.choices)]
        value = ", ".join(f"`{word}`" for word in (*row.choices, *others)) or "on or off"
        default = "" if row.default is None else f"`{row.default}`"
        cells = (f"`{row.flag}`", value, default, row.description.replace("*", r"\*"))
        parts.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


PROGRAM = """
import runpy, sys
script, picture, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
model = runpy.run_path(script, run_name="__main__").get("model")
if hasattr(model, "history"):
    model.history.plot().savefig(picture)
"""


INTRODUCTION = """# Gallery

The programs in `examples/`. What they print, the curves and the page were made when this site was built.

## A model in your browser

`bptt train && bptt export runs/dinosaurs --to page` made <a href="dinosaurs.html">this page</a>. It runs the model in your
browser and sends nothing anywhere.

![loss, learning rate and gradient norm of that run](dinosaurs.png)
"""


def gallery(folder: Path) -> str:
    """The page of the examples, each with its code, what it prints and its curves; what they write goes into the folder."""
    parts = [INTRODUCTION]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", "BPTT_KERNELS": "0", "MPLBACKEND": "agg"}
    with tempfile.TemporaryDirectory() as work:

        def run(*command: str) -> str:
            print("running", *command[-3:], flush=True)
            done = subprocess.run(
                [sys.executable, *command], cwd=work, env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
            )
            return done.stdout

        (folder / "extra").mkdir()
        run("-m", "bptt", "train", "--quiet")
        run("-m", "bptt", "export", "runs/dinosaurs", "--to", "page", "--out", str(folder / "extra" / "dinosaurs.html"))
        shutil.copy(Path(work) / "runs" / "dinosaurs" / "curve.png", folder / "dinosaurs.png")
        for name in GALLERY:
            script, picture = ROOT / "examples" / f"{name}.py", folder / f"{name}.png"
            code = script.read_text("utf-8")
            title, _, about = (ast.get_docstring(ast.parse(code)) or "").partition(": ")
            printed = run("-c", PROGRAM, str(script), str(picture), *GALLERY[name])
            shown = f"\n![loss, learning rate and gradient norm of this run]({picture.name})\n" if picture.exists() else ""
            parts.append(
                f"## {title}\n\n{about[:1].upper()}{about[1:]}\n\n```python\n{code}```\n\n```text\n{printed}```\n{shown}"
            )
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
        (source / "reference" / "settings.md").write_text(settings(), "utf-8")
        (source / "gallery.md").write_text(gallery(source), "utf-8")
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
