"""docs/how-to/texts.md: each of its examples runs as it stands, and reads the text as the page says."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bptt import cli
from bptt.display import plots

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "texts.md"
SECTIONS = {
    title: script
    for section in PAGE.read_text("utf-8").split("\n## ")[1:]
    for title, script in re.findall(r"\A(.*?)\n.*^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
}


def test_there_are_ten_examples():
    assert len(SECTIONS) == 10


@pytest.mark.parametrize("script", SECTIONS.values(), ids=SECTIONS.keys())
def test_an_example_runs_and_its_text_is_read_as_shown(tmp_path, monkeypatch, capfd, script):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_KERNELS", "0")
    monkeypatch.setattr(plots, "available", lambda: False)
    shown = ""
    for line in script.splitlines():
        if line.startswith("# "):
            assert line.removeprefix("# ") == shown.splitlines()[0]
        elif line.startswith("bptt "):
            words = shlex.split(line)[1:]
            few = ["--steps", "3"] if words[0] == "train" else []
            first = next((i for i, word in enumerate(words) if word == "--"), len(words))
            assert cli.main([*words[:first], *few, *words[first:]]) == 0, line
            shown, errors = capfd.readouterr()
            assert "Traceback" not in errors
            assert shown, line
        else:
            subprocess.run(["bash", "-c", line], check=True)
