"""The validation set of a run: which lines are held out, or which file takes their place, and what the run says of it."""

import shutil

import pytest

import bptt
from bptt import cli
from bptt.config.settings import from_flags
from bptt.data import dataset, loading
from bptt.display import plots
from bptt.errors import InputError
from bptt.report import page
from bptt.training import launch, setup
from runs import NAMES, PROSE, outcome


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the curve takes longer than all the rest."""
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """The current folder, with a text of names and a validation set of two."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "val.txt").write_text("dadad\n\nkad\n")
    return tmp_path


def train(text, **flags):
    """A short run."""
    return bptt.train(text, report=None, **{"hidden": 3, "steps": 6, "backend": "numpy", "evaluate_every": 2, **flags})


def refusal(text, **flags):
    """The one line that refuses a run."""
    with pytest.raises(InputError) as error:
        bptt.train(text, report=None, **flags)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def prepared(text, **flags):
    """A run before its first update."""
    return setup.from_scratch(text, from_flags({"hidden": 2, "steps": 1, "backend": "numpy", **flags}))


def held_out(text, **flags):
    """The held-out lines of a run."""
    data = prepared(text, **flags).task.data
    return [data.vocabulary.decode(ids[1:-1]) for ids in data.validation]


def test_the_split_seed_alone_chooses_the_lines_that_are_held_out():
    first = held_out(NAMES, validation=0.2)
    assert first == held_out(NAMES, validation=0.2, seed=1)
    assert first != held_out(NAMES, validation=0.2, split_seed=1) == held_out(NAMES, validation=0.2, split_seed=1, seed=5)


# A file


@pytest.mark.parametrize("backend", ["numpy", "strict"])
@pytest.mark.parametrize(("mode", "count"), [("lines", 2), ("stream", 1)])
def test_a_file_is_measured_and_all_of_the_text_is_trained_on(workdir, backend, mode, count):
    trained = train("names.txt", validation="val.txt", mode=mode, backend=backend, steps=1)
    data = prepared("names.txt", validation="val.txt", mode=mode).task.data
    assert (data.mode, len(data.validation)) == (mode, count)
    assert dataset.count_targets(data.training) == trained.record["targets"] == len("\n".join(NAMES)) + (mode == "lines")
    text = (workdir / "val.txt").read_text()
    assert trained.record["held_out"] == pytest.approx(trained.evaluate(text).nats_per_char, rel=1e-5)


def test_a_file_of_one_character_is_a_validation_set(workdir):
    (workdir / "val.txt").write_text("a")
    assert train("names.txt", validation="val.txt", mode="stream").record["held_out"] > 0


def test_a_large_file_is_read_as_a_small_one(workdir, monkeypatch):
    small = train("names.txt", validation="val.txt").record
    monkeypatch.setenv("BPTT_CACHE", str(workdir / "cache"))
    monkeypatch.setattr(loading, "LARGE", 5)
    for _ in range(2):  # the second time from the cache
        large = train("names.txt", validation="val.txt").record
        assert (large["held_out"], large["validation"]) == (small["held_out"], small["validation"])


def test_a_number_is_a_share_and_a_path_is_a_file(workdir, capsys):
    (workdir / "0.1").write_text("dadad\n")
    (workdir / "a.toml").write_text('validation = "./0.1"\n')
    small = ["--hidden", "2", "--steps", "1", "--backend", "numpy", "--quiet"]
    for number, words in enumerate([["--validation", "./0.1"], ["--config", "a.toml"], ["--validation", "0.1"]]):
        assert cli.main(["train", "names.txt", *small, *words, "--out", f"run{number}"]) == 0
    train("names.txt", validation=workdir / "0.1", out="run3")
    train("names.txt", config="a.toml", out="run4")
    train("names.txt", validation=0.1, out="run5")
    file, share = str(workdir / "0.1"), 0.1
    settings = [bptt.load(f"run{number}").record["settings"]["validation"] for number in range(6)]
    assert settings == [file, file, share, file, file, share]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nowhere",
            "validation set 'nowhere' does not exist: expected a fraction of the training text such as 0.1, or a file or a",
        ),
        ("dinosaurs", "validation set 'dinosaurs' does not exist: expected a fraction"),
        ("-", "validation -: expected a fraction, at least 0 and below 1, or the path of a file"),
        ("folder", "validation set 'folder' holds no files: expected texts in the folder"),
        ("empty", "validation set 'empty' holds nothing: expected a fraction"),
        ("white", "validation set 'white' holds nothing but white space: expected a fraction"),
        ("zero", "validation set 'zero'"),
        ("latin", "validation set 'latin'"),
        ("1.5", "validation '1.5': expected a fraction, at least 0 and below 1, or the path of a file (./0.1 for one"),
        ("", "validation '': expected a fraction, at least 0 and below 1, or the path of a file"),
    ],
)
def test_what_cannot_be_a_validation_set_is_refused_in_one_line(workdir, capsys, name, words):
    (workdir / "folder").mkdir()
    for file, content in {"empty": b"", "white": b" \n\n", "zero": b"a\0b", "latin": b"caf\xe9\n"}.items():
        (workdir / file).write_bytes(content)
    assert refusal("names.txt", validation=name).startswith(words)
    assert cli.main(["train", "names.txt", "--validation", name]) == 2
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert not (workdir / "runs").exists()


def test_symbols_that_only_the_validation_file_has_are_listed(workdir):
    (workdir / "val.txt").write_text("ban\nxyz\n")
    words = "validation set 'val.txt': not in the vocabulary: 'x' (U+0078), 'y' (U+0079), 'z' (U+007A), first"
    assert refusal("names.txt", validation="val.txt").startswith(words)
    (workdir / "val.txt").write_text("ABCDEFGHIJKLM\n")
    message = refusal("names.txt", validation="val.txt")
    assert "'J' (U+004A) and 3 more" in message
    assert "'K'" not in message
    assert train("names.txt", validation="val.txt", vocabulary="bytes").record["held_out"] > 0


@pytest.mark.parametrize("text", ["names.txt", "prose.txt"])
def test_a_run_with_a_validation_file_resumes_bit_for_bit_and_is_repeated(workdir, text):
    (workdir / "prose.txt").write_text(PROSE)
    (workdir / "val.txt").write_text("the cat and the dog\n" if text == "prose.txt" else "dadad\nkad\n")
    train(text, validation="val.txt", out="whole")
    train(text, validation="val.txt", out="parts", stop_after=3)
    bptt.train(resume="parts", report=None)
    bptt.train(config="whole/config.toml", out="again", report=None)
    assert outcome(workdir / "parts") == outcome(workdir / "again") == outcome(workdir / "whole")


def test_a_changed_validation_file_is_refused_without_changed_text(workdir):
    trained = train("names.txt", validation="val.txt", out="run", stop_after=3)
    assert trained.record["validation"]["source"] == str(workdir / "val.txt")
    (workdir / "val.txt").write_text("dadad\nbaker\n")
    message = refusal(None, resume="run")
    file = repr(str(workdir / "val.txt"))
    assert f"its validation set {file} has changed: 12 bytes now, 11 before: give it as it was, or changed_text=True" in message
    message = refusal(None, resume="run", validation="val.txt")  # of a file that the user names, the size may be any
    assert (
        f"its validation set {file} has changed: give the file as it was, or changed_text=True to resume all the same"
        in message
    )
    assert bptt.train(resume="run", report=None, changed_text=True, stop_after=1).record["ended"] == "paused"
    assert bptt.train(resume="run", report=None).record["ended"] == ""  # what is measured from now on is the other one


def test_a_changed_validation_file_resets_the_best_loss_but_not_the_epoch(workdir):
    train("names.txt", validation="val.txt", out="run", stop_after=3, batch=4)
    (workdir / "val.txt").write_text("dadad\nbaker\n")
    bptt.train(resume="run", report=None, changed_text=True)
    train("names.txt", validation="val.txt", out="other", batch=4)
    here, there = (bptt.load(f"{name}/checkpoints/latest", backend="numpy") for name in ("run", "other"))
    assert here.score("ban") == there.score("ban")
    assert bptt.load("run").record["step"] > 3


def test_a_validation_file_may_move(workdir):
    train("names.txt", validation="val.txt", out="whole")
    train("names.txt", validation="val.txt", out="run", stop_after=3)
    (workdir / "val.txt").rename(workdir / "moved.txt")
    message = refusal(None, resume="run")
    assert "give the path of the text, or validation, beside resume if it is elsewhere now" in message
    bptt.train(resume="run", validation="moved.txt", report=None)
    assert outcome(workdir / "run") == outcome(workdir / "whole")


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_resumed_run_keeps_its_kind_of_validation_set(workdir, checkpoint):
    for name, validation in [("share", 0.1), ("file", "val.txt")]:
        train("names.txt", validation=validation, out=name, stop_after=1)
        if not checkpoint:
            shutil.rmtree(workdir / name / "checkpoints")
    words = "validation='val.txt': the validation set of this run is a part of its text: leave it out"
    assert words in refusal(None, resume="share", validation="val.txt")
    assert "validation=0.1: a resumed run keeps this setting" in refusal(None, resume="file", validation=0.1)


def test_processes_that_train_together_compare_the_validation_file(workdir):
    settings = from_flags({"hidden": 2, "steps": 1, "backend": "numpy", "validation": "val.txt"})
    facts = [launch._facts(setup.from_scratch("names.txt", settings), settings)]
    (workdir / "val.txt").write_text("dadad\nbaker\n")
    facts += [launch._facts(setup.from_scratch("names.txt", settings), settings)]
    assert {name for name in facts[0] if facts[0][name] != facts[1][name]} == {"validation set"}


def test_a_report_looks_at_the_validation_file(workdir):
    train("names.txt", validation="val.txt", out="run")
    looked = page._looked(bptt.load("run"), None)
    assert looked == ("Text that was held out", ["dadad", "kad"], "30 lines to train on, 2 of val.txt held out")
    (workdir / "val.txt").write_text("dadad\nbaker\n")
    with pytest.raises(InputError, match=r"validation set '.*val\.txt' has changed: 12 bytes now, 11 before: give one"):
        page._looked(bptt.load("run"), None)


def test_the_header_says_what_the_validation_set_is(workdir):
    def header(text, **flags):
        lines = []
        bptt.train(text, report=lines.append, **{"hidden": 2, "steps": 1, "backend": "numpy", **flags})
        return lines[0].splitlines()[0]

    assert (
        header("names.txt", validation="val.txt")
        == "text   names: 30 lines to train on, 2 of val.txt to validate on, 11 symbols"
    )
    assert header("names.txt", validation=0.2) == "text   names: 24 lines to train on, 6 held out, 11 symbols"
    assert "107 characters to train on, the last 20 % (27) held out" in header("names.txt", validation=0.2, mode="stream")
    assert "30 lines to train on, no validation set (as requested); the last weights" in header("names.txt", validation=0)


def test_without_a_validation_set_the_last_weights_are_kept(workdir):
    trained = train("names.txt", validation=0, out="run")
    assert (trained.record["step"], trained.record.get("held_out")) == (6, None)
    assert (workdir / "run" / "checkpoints" / "best").resolve().name == "step-00000006"
