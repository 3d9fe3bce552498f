"""Runs of earlier versions: their settings are completed as these versions behaved, and they go on bit for bit."""

import json
import shutil

import pytest

import bptt
from bptt.config import toml
from bptt.config.compatibility import complete_format_1
from bptt.data import corpus, sequences
from bptt.data.dataset import make_rng
from bptt.display import plots
from bptt.files import to_json
from forging import forge
from runs import NAMES, newest_checkpoint, outcome

pytestmark = pytest.mark.filterwarnings("ignore:.* validation lines are also:bptt.errors.TrainingWarning")
ADDED = ("split_seed", "duplicates")  # settings that runs of the first version did not have
# what such a run with --seed 4 did, in the settings of today
AS_BEFORE = {"seed": 4, "split_seed": 4, "duplicates": "independent"}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the curve takes longer than all the rest."""
    monkeypatch.setattr(plots, "available", lambda: False)


def train(folder, **flags):
    small = {"hidden": 3, "steps": 9, "batch": 4, "length": 3, "evaluate_every": 2, "backend": "numpy"}
    text = folder.parent / "names.txt"
    text.write_text("\n".join(NAMES * 2))  # no line is unique
    return bptt.train(text, report=None, out=folder, **{**small, **flags})


def make_old(run):
    """Take from a run all that runs of the first version did not write."""
    path = run / "config.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(ADDED)]
    path.write_text("\n".join(lines) + "\n")
    for checkpoint in (run / "checkpoints").glob("step-*"):
        config = json.loads((checkpoint / "config.json").read_text())
        for name in ADDED:
            del config["record"]["settings"][name]
        forge(checkpoint, "config.json", to_json(config))


def test_settings_of_format_1_are_completed_and_kept():
    assert complete_format_1({"seed": 3, "hidden": 5})["split_seed"] == 3
    assert complete_format_1({}) == {
        "split_seed": 0,
        "duplicates": "independent",
        "parametrization": "standard",
        "weight_decay": 0.0,
        "average": 0.0,
    }
    assert complete_format_1({"seed": 3, "split_seed": 7}) == {**complete_format_1({"seed": 3}), "split_seed": 7}


def test_an_old_run_resumes_bit_for_bit_with_its_split(tmp_path):
    train(tmp_path / "whole", **AS_BEFORE)
    train(tmp_path / "old", **AS_BEFORE, stop_after=5)
    make_old(tmp_path / "old")
    assert "split_seed" not in bptt.load(newest_checkpoint(tmp_path / "old")).record["settings"]
    trained = bptt.train(resume=tmp_path / "old", report=None)
    assert outcome(tmp_path / "old") == outcome(tmp_path / "whole")
    assert AS_BEFORE.items() <= trained.record["settings"].items()
    bptt.train(config=tmp_path / "old" / "config.toml", out=tmp_path / "again", report=None)  # written anew on resume
    assert outcome(tmp_path / "again") == outcome(tmp_path / "whole")


def test_an_old_run_without_a_checkpoint_starts_again_with_its_split(tmp_path):
    train(tmp_path / "whole", **AS_BEFORE)
    train(tmp_path / "old", **AS_BEFORE, stop_after=1)
    make_old(tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "checkpoints")
    bptt.train(resume=tmp_path / "old", report=None)
    assert outcome(tmp_path / "old") == outcome(tmp_path / "whole")


def test_the_split_of_an_old_run_is_that_of_its_seed(tmp_path):
    """By the function that drew it, so that it cannot change in the runs that are compared above."""
    sizes = []
    text = corpus.read(NAMES * 2)
    _, held_out = sequences.split(corpus.sequences(text, "lines"), 0.1, make_rng(4, 0), "lines")
    run = train(tmp_path / "run", **AS_BEFORE, steps=1)
    sizes.append(run.evaluate("\n".join(text.vocabulary.decode(line[1:-1]) for line in held_out)).nats_per_char)
    assert sizes == [pytest.approx(run.record["held_out"], rel=1e-6)]


def test_only_a_file_that_a_run_wrote_is_taken_for_an_old_one(tmp_path):
    path = tmp_path / "bptt.toml"
    path.write_text("seed = 4\n")
    assert toml.read(path) == {"seed": 4}
    path.write_text(toml.HEADER + "\nseed = 4\n")
    assert toml.read(path)["split_seed"] == 4
    path.write_text(path.read_text() + "split-seed = 0\n")
    assert toml.read(path)["split_seed"] == 0
