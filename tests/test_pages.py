"""The pages for users: README, the tutorials and the how-to guides. Their commands and their Python run as they stand.

Blocks marked `sh` run line by line, and Python is executed, each page in a folder of its own. Training makes two of three
steps. All other commands that a page names, such as those that want a GPU, have names and flags that exist.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bptt
from bptt import cli
from bptt.cli.parser import app
from bptt.display import plots

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*/*.md"))
GUIDES = [page for page in PAGES if page.parent.name in ("tutorials", "how-to")]
NAMES = "philippa quentin yvonne wolf zoe xaver jack victor anna bella carla dora emma frida greta hanna ida julia klara"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHERS = re.compile(r"\bimport .*\b(torch|onnxruntime)\b|^def ", re.MULTILINE)  # of blocks that other tests run or compare
PROGRAMS = [path.read_text("utf-8") for path in sorted((ROOT / "examples").rglob("*.py"))]  # which other tests run
SHORT = ("--steps", "3", "--stop-after", "2")


def commands(text: str) -> list[str]:
    """The commands of a page: in blocks of code and between backticks, behind mpiexec, too."""
    code = [line.strip() for line in re.findall(r"(?m)^(?:    |\$ )?(?:\$ )?(.*)$", text)] + re.findall(r"`([^`\n]+)`", text)
    found = [re.search(r"(?:^|&& |mpiexec .*?)(bptt [a-z].*)", line) for line in code]
    return [re.split(r"`| # | \| | & ", match[1])[0].strip() for match in found if match]


def unknown(command: str) -> list[str]:
    """What of a command does not exist: its name, or flags."""
    _, name, *words = command.split()
    if name not in app:
        return [name]
    known = {flag for argument in app[name].assemble_argument_collection() for flag in argument.names} | {"--help"}
    return [word for word in words if re.match(r"--[a-z]", word) and word.partition("=")[0].rstrip(".,") not in known]


def shortened(words: list[str]) -> list[str]:
    """The words of a command that trains for two of three steps instead of for minutes."""
    if words[0] != "train" or "--dry-run" in words:
        return words
    if "--resume" in words:
        return [*words, "--stop-after", "1"]
    for flag in ("--budget", "--steps", "--stop-after"):
        if flag in words:
            at = words.index(flag)
            words = words[:at] + words[at + 2 :]
    end = words.index("--") if "--" in words else len(words)
    small = [] if {"--from", "--hidden"} & set(words) else ["--hidden", "16"]
    return [*words[:end], *SHORT, *small, *words[end:]]


def quick_train(*args: Any, **settings: Any) -> Any:
    """Train for two of three steps."""
    short = {} if "resume" in settings else {"steps": 3, "stop_after": 2}
    return TRAIN(*args, **{**settings, **short})


TRAIN = bptt.train


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the texts and runs that pages take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_KERNELS", "0")
    monkeypatch.setattr(plots, "available", lambda: False)
    monkeypatch.setattr(bptt, "train", quick_train)
    for name in ("names.txt", "more.txt", "others.txt", "other.txt", "book.txt"):
        (tmp_path / name).write_text(NAMES.replace(" ", "\n") + "\n", "utf-8")
    return tmp_path


def make_runs(code: str) -> None:
    """Train the runs that a line or a block names, but for those that it makes itself."""
    made = re.findall(r"""out(?: |=")(runs/[\w-]+)""", code)
    for place in re.findall(r"\bruns/[\w-]+", code):
        if not Path(place).exists() and place not in made:
            TRAIN("names.txt", out=place, report=None, steps=3, stop_after=2)


def run_line(line: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a line of a shell block and return what it prints."""
    words = shlex.split(line)
    make_runs(line)
    if words[0] == "bptt" and not {"|", "<", ">", "&&"} & set(words):
        assert cli.main(shortened(words[1:])) == 0, line
    else:
        python = f'bptt() {{ "{sys.executable}" -m bptt "$@"; }}\n'
        subprocess.run(["bash", "-e", "-o", "pipefail", "-c", python + line], check=True)
    shown, errors = capfd.readouterr()
    assert "Traceback" not in errors
    return shown


@pytest.mark.parametrize("page", [README, *GUIDES], ids=lambda path: path.stem)
def test_the_code_of_a_page_runs(folder, capfd, page):
    scope: dict[str, Any] = {}
    for kind, code in BLOCK.findall(page.read_text("utf-8")):
        if OTHERS.search(code) or any(code in program for program in PROGRAMS):
            continue
        if "bptt train" not in code:
            make_runs(code)
        if kind == "python":
            exec(compile(code, str(page), "exec"), scope)
            capfd.readouterr()
            continue
        shown = ""
        for line in code.splitlines():
            if line.startswith("# text"):
                assert line.removeprefix("# ") == shown.splitlines()[0]
            elif line and not line.startswith("#"):
                shown = run_line(line, capfd)


def test_the_next_tasks_of_the_readme_run(folder, capfd):
    tasks = re.findall(r"^\| \[.*\| `(bptt .*)` \|$", README.read_text("utf-8"), re.MULTILINE)
    assert len(tasks) >= 9  # the tenth wants mpiexec
    for task in tasks:
        if "cupy" not in task:
            assert run_line(task, capfd), task


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.stem)
def test_commands_of_a_page_exist(page):
    assert [(command, wrong) for command in commands(page.read_text("utf-8")) if (wrong := unknown(command))] == []


def test_a_command_that_does_not_exist_is_noticed():
    for text in ("    bptt trane\n", "see `bptt train --hiden 3`", "    mpiexec -n 2 bptt train --sted=5\n"):
        (command,) = commands(text)
        assert len(unknown(command)) == 1
