"""The command `bptt --install-completion`: Tab completion of commands, flags and choices in a shell."""

from pathlib import Path
from typing import Literal

from cyclopts.completion import detect, install

from bptt.cli.console import print_line
from bptt.cli.parser import app
from bptt.errors import InputError

Shell = Literal["bash", "zsh", "fish", "powershell"]


def install_completion(*, shell: Shell | None = None) -> int:
    """Set up Tab completion in your shell, and print which files that changes.

    The files are in your home folder. An update of bptt may bring new flags: run this again to complete them.

    Parameters
    ----------
    shell
        The shell to set up. By default the one that bptt was started from.
    """
    try:
        shell = shell or detect.detect_shell()
    except detect.ShellDetectionError:
        raise InputError("the shell is not known: name it, as in bptt --install-completion --shell bash") from None
    script = app.install_completion(shell=shell, add_to_startup=False)
    if shell == "bash":
        script.write_text(complete_paths(script.read_text("utf-8")), "utf-8")
    print_line(f"written: {script}")
    if shell != "fish" and install.add_to_rc_file(script, app.name[0], shell):
        print_line(f"changed: {startup_file(shell)}")
    print_line("open a new terminal to use it")
    return 0


def complete_paths(script: str) -> str:
    """Let bash complete the paths of files where no word fits: cyclopts adds a space after a folder, and skips texts."""
    for old, new in (('COMPREPLY=( $(compgen -f -- "${cur}") )', "COMPREPLY=()"), ("complete -F", "complete -o default -F")):
        script = script.replace(old, new)
    return script


def startup_file(shell: Shell) -> Path:
    """The file that a shell runs when it starts."""
    return install.powershell_profile() if shell == "powershell" else Path.home() / f".{shell}rc"
