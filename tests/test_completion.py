"""Tab completion: what bash offers with the files that `bptt --install-completion` writes."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bptt import cli
from bptt.cli import parser
from bptt.config.settings import SETTING_NAMES
from bptt.errors import flag

bash = pytest.mark.skipif(os.name != "posix" or not shutil.which("bash"), reason="no bash")


@pytest.fixture
def install(tmp_path, monkeypatch, capsys):
    """Install the completion in a home folder of its own; the lines that are printed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BASH_VERSION", "FISH_VERSION", "ZSH_VERSION", "ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)

    def call(*words):
        assert cli.main(["--install-completion", *words]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return call


def offered(*words):
    """What a bash that has read its startup file offers for the last word."""
    line = f"COMP_WORDS=({shlex.join(['bptt', *words])}); COMP_CWORD={len(words)}; _bptt; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    command = ["bash", "--norc", "-c", f". ~/.bashrc; {line}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@bash
def test_bash_completes_commands_flags_and_choices(install):
    install("--shell", "bash")
    assert offered("tr") == ["train"]
    assert sorted(offered("")) == sorted(parser.commands())
    assert offered("train", "--hid") == ["--hidden"]
    assert {flag(name) for name in SETTING_NAMES} <= set(offered("train", "--"))
    assert offered("train", "names.txt", "--cell", "g") == ["gru"]
    assert offered("train", "--mode", "") == ["lines", "records", "stream"]
    assert offered("--inst") == ["--install-completion"]


@bash
def test_bash_completes_paths_itself(install):
    """No offer for a text, a run or a file; then bash, by -o default, takes the names of files, and ends folders with a /."""
    install("--shell", "bash")
    for name in ("names.txt", "names-2.txt"):
        Path.home().joinpath(name).touch()
    assert offered("train", "na") == offered("sample", "na") == offered("train", "--out", "na") == []
    command = ["bash", "--norc", "-c", ". ~/.bashrc; complete -p bptt"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "complete -o default -F _bptt bptt\n"


@pytest.mark.parametrize(
    ("shell", "script", "startup"),
    [
        ("bash", ".local/share/bash-completion/completions/bptt", ".bashrc"),
        ("zsh", ".zsh/completions/_cyclopts_bptt", ".zshrc"),
        ("fish", ".config/fish/completions/bptt.fish", None),
    ],
)
def test_the_changed_files_are_printed_and_no_others_change(install, tmp_path, shell, script, startup):
    if startup:
        Path(tmp_path, startup).write_text("alias ll='ls -l'\n")
    lines = install("--shell", shell)
    changed = [f"changed: {tmp_path / startup}"] if startup else []
    assert lines == [f"written: {tmp_path / script}", *changed, "open a new terminal to use it"]
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {script, startup} - {None}
    before = {name: Path(tmp_path, name).read_text() for name in files}
    assert "alias ll='ls -l'\n" in before.get(startup, "alias ll='ls -l'\n")
    assert install("--shell", shell) == [lines[0], lines[-1]]
    assert {name: Path(tmp_path, name).read_text() for name in files} == before


def test_the_shell_is_detected(install, monkeypatch, tmp_path):
    monkeypatch.setenv("FISH_VERSION", "3.7")
    assert install()[0] == f"written: {tmp_path / '.config/fish/completions/bptt.fish'}"


def test_an_unknown_shell_is_one_line(install, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SHELL", "")
    assert cli.main(["--install-completion"]) == 2
    expected = "bptt: the shell is not known: name it, as in bptt --install-completion --shell bash\n"
    assert capsys.readouterr() == ("", expected)
    assert list(tmp_path.iterdir()) == []
