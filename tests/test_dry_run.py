"""A dry run: says what would be done, in the words of the run itself, and does nothing."""

import json
import os

import pytest

from bptt import cli
from bptt.config.settings import from_flags
from bptt.training import dry_run, setup


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(dry_run, "TRIAL", 0.05)
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_explains_the_choices_and_their_cost(capsys, tmp_path):
    assert cli.main(["train", "--dry-run", "--backend", "numpy", "--dropout", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["text", "model", "run", "chosen", "memory", "time"]
    chosen = (
        "chosen hidden 160, batch 8, length 256, steps 1700, learning rate 0.0043, weight decay 0.53, "
        "parametrization mup, average 0.9941, evaluate every 170, checkpoint every 170; "
    )
    assert lines[3].startswith(chosen + "for a text of 16,")
    assert "MB, this machine has" in lines[4]
    assert os.listdir(tmp_path) == []


def test_a_dry_run_says_that_nothing_was_chosen(capsys):
    flags = "--hidden 3 --dropout 0 --batch 2 --length 5 --steps 7 --learning-rate 0.1 --evaluate-every 2 --checkpoint-every 3"
    flags += " --weight-decay 0 --average 0 --parametrization mup"
    assert cli.main(f"train --dry-run {flags}".split()) == 0
    assert "\nchosen nothing: every setting is given; " in capsys.readouterr().out


def test_a_dry_run_does_not_count_steps_from_epochs_as_chosen(capsys):
    assert cli.main(["train", "--dry-run", "--hidden", "3", "--epochs", "100000", "--batch", "16"]) == 0
    out = capsys.readouterr().out
    assert ", evaluate every 800000, checkpoint every 800000; " in out
    assert " steps 8" not in out.partition("\nchosen ")[2]


def test_a_dry_run_prints_json(capsys):
    assert cli.main(["train", "python-help", "--dry-run", "--json", "--backend", "numpy", "--hidden", "8"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert event["event"] == "dry_run"
    flags = from_flags({"backend": "numpy", "hidden": 8})
    expected = setup.from_scratch("python-help", flags).task.plan  # the text differs between versions of Python
    assert (event["plan"]["hidden"], event["plan"]["steps"]) == (8, expected.steps)
    assert event["memory_bytes"] > 1e7
    assert event["seconds"] > 0.05
    assert event["parameters"] > 1000


def test_a_longer_run_takes_longer(capsys):
    seconds = []
    for steps in (100, 10_000):
        assert cli.main(f"train --dry-run --json --backend numpy --hidden 8 --steps {steps} --validation 0".split()) == 0
        seconds.append(json.loads(capsys.readouterr().out)["seconds"])
    assert seconds[1] > 10 * seconds[0]


def test_a_dry_run_cannot_resume(capsys):
    assert cli.main(["train", "--dry-run", "--resume", "nowhere"]) == 2
    assert "--dry-run is for a new run" in capsys.readouterr().err
