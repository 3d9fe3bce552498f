"""One configuration in three places: flags, keywords of Python and TOML mean the same, and mistakes are named."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as quickly
from hypothesis import strategies as st

import bptt
from bptt import cli
from bptt.config import toml
from bptt.config.defaults import resolve
from bptt.config.settings import Settings
from bptt.data import dataset
from bptt.display import plots
from bptt.errors import InputError
from bptt.files import FileReference

NAMES = "".join(f"{a}{b}{c}\n" for a in "bdk" for b in "aeiou" for c in ("nn", "r"))
DINOSAURS = dataset.prepare("dinosaurs", Settings(), np.random.default_rng(0))
posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
TABLE = 'hidden = 3\nlearning-rate = 0.01\nsteps = 2\nbackend = "numpy"\nquiet = true\n'


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "available", lambda: False)  # drawing takes longer than all the rest
    Path("names.txt").write_text(NAMES)
    return tmp_path


def recorded_settings(name="new"):
    return bptt.load(name).record["settings"]


def test_flags_keywords_and_toml_are_equivalent(workdir, capsys):
    Path("mine.toml").write_text('text = "names.txt"\n' + TABLE)
    flags = "train names.txt --hidden 3 --learning-rate 0.01 --steps 2 --backend numpy --quiet --out a"
    assert cli.main(flags.split()) == 0
    assert cli.main(["train", "--config", "mine.toml", "--out", "b"]) == 0
    bptt.train("names.txt", hidden=3, learning_rate=0.01, steps=2, backend="numpy", quiet=True, out="c")
    bptt.train(config="mine.toml", out="d")
    assert capsys.readouterr() == ("", "")
    assert all({**recorded_settings(name), "out": ""} == {**recorded_settings("a"), "out": ""} for name in "bcd")
    assert all(bptt.load(name).score("ban") == bptt.load("a").score("ban") for name in "bcd")


def test_flags_override_the_file(workdir):
    Path("mine.toml").write_text('text = "nowhere"\n' + TABLE)
    assert cli.main(["train", "names.txt", "--config", "mine.toml", "--hidden", "4", "--out", "new"]) == 0
    assert (recorded_settings()["hidden"], recorded_settings()["steps"]) == (4, 2)
    bptt.train("names.txt", config="mine.toml", hidden=5, out="other")
    assert (recorded_settings("other")["hidden"], recorded_settings("other")["steps"]) == (5, 2)


def test_steps_and_epochs_override_each_other(workdir):
    Path("mine.toml").write_text('text = "names.txt"\n' + TABLE)
    assert cli.main(["train", "--config", "mine.toml", "--epochs", "2", "--batch", "27", "--out", "new"]) == 0
    assert bptt.load("new").record["plan"]["steps"] == 2
    bptt.train(config="mine.toml", epochs=3, batch=27, out="other")
    assert bptt.load("other").record["plan"]["steps"] == 3
    assert bptt.train("names.txt", config="mine.toml", epochs=None).record["plan"]["steps"] == 2  # nothing that was told
    Path("mine.toml").write_text('backend = "numpy"\nepochs = 2\nbatch = 27\nquiet = true')
    assert bptt.train("names.txt", config="mine.toml", steps=None).record["plan"]["steps"] == 2


def test_an_optimizer_replaces_the_options_that_it_lacks(workdir):
    words = "train names.txt --hidden 3 --steps 2 --backend numpy --quiet --beta1 0.8 --out first"
    assert cli.main(words.split()) == 0
    repeated = ["train", "--config", "first/config.toml", "--optimizer"]
    assert cli.main([*repeated, "sgd", "--out", "second"]) == 0
    assert recorded_settings("second")["beta1"] is None
    assert cli.main([*repeated, "adam", "--out", "third"]) == 0
    assert recorded_settings("third")["beta1"] == 0.8
    bptt.train(config="first/config.toml", optimizer="momentum", out="fourth")
    assert recorded_settings("fourth")["weight_decay"] is None


def test_a_configuration_file_is_read_once(workdir, monkeypatch):
    """A pipe could not be read twice."""
    read, paths = toml.read, []
    monkeypatch.setattr(toml, "read", lambda path, *rest: paths.append(path) or read(path, *rest))
    Path("mine.toml").write_text('text = "names.txt"\n' + TABLE)
    assert cli.main(["train", "--config", "mine.toml", "--out", "new"]) == 0
    assert paths == [Path("mine.toml")]
    assert bptt.load("new").record["source"] == str(workdir / "names.txt")


def test_bptt_toml_is_read_by_default(workdir):
    Path("bptt.toml").write_text(TABLE)
    assert cli.main(["train", "names.txt", "--out", "new"]) == 0
    assert recorded_settings()["hidden"] == 3
    Path("other.toml").write_text("hidden = 4\nsteps = 1\nquiet = true")
    assert cli.main(["train", "names.txt", "--config", "other.toml", "--out", "other"]) == 0
    assert recorded_settings("other")["hidden"] == 4
    assert cli.main(["train", "--resume", "new", "--stop-after", "1", "--steps", "4"]) == 0  # a resumed run keeps this setting
    assert recorded_settings()["hidden"] == 3


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("hiden = 3", "m.toml: 'hiden' is unknown: did you mean 'hidden'?"),
        (
            "batch = 3\nlearning_rate = 0.1\nlearning-rate = 0.2",
            "m.toml: 'learning-rate' is set twice, in two spellings: leave",
        ),
        ("learningrate = 3", "did you mean 'learning_rate'?"),
        ("zzz = 3", "m.toml: 'zzz' is unknown: the keys are text, out, from_, new_symbols, backend"),
        ("hidden = 0", "m.toml: hidden = 0: expected a whole number from 1 to 1,000,000,000"),
        ("hidden = 'many'", "m.toml: hidden = 'many': expected a whole number"),
        (
            "recompute-every = 'root'",
            "m.toml: recompute_every = 'root': expected a whole number from 1 to 1,000,000,000, or sqrt",
        ),
        ("cell = 'grru'", "m.toml: cell = 'grru': expected one of vanilla, gru, lstm"),
        ("validation = '/dev/zero'", "m.toml: validation = '/dev/zero': is not a regular file: name a file of text"),
        ("cell = {a = 1}", "m.toml: cell = {'a': 1}: expected one of vanilla, gru, lstm"),
        ("steps = 2\nepochs = 3", "m.toml: steps = 2 and m.toml: epochs = 3: give one of the two"),
        ("budget = 5", "m.toml: budget = 5: expected a number above 0 and its unit, s, m or h, as in 30s, 5m or 1.5h"),
        ("text = 5", "m.toml: text = 5: expected a path, a list of paths, - or the name of a built-in text"),
        ("text = ''", "m.toml: text = '': expected"),
        ("hidden = [3]", "m.toml: hidden = [3]: expected a whole number"),
        ("[train]\nhidden = 3", "m.toml: 'train' is unknown"),
        ("hidden", "m.toml: Expected '=' after a key"),
        ("a = " + "[" * 5000, "m.toml: "),
    ],
)
def test_an_error_names_the_file_the_key_and_similar_keys(workdir, capsys, table, words):
    Path("m.toml").write_text(table)
    with pytest.raises(InputError) as error:
        bptt.train(config="m.toml")
    assert words in str(error.value)
    assert cli.main(["train", "names.txt", "--config", "m.toml"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert words.split(" = ")[0] in captured.err
    assert not Path("runs").exists()


def test_a_missing_or_invalid_file_is_refused(workdir):
    Path("raw.toml").write_bytes(b"\xff\xfe")
    for name, words in [("nowhere.toml", "no such file"), ("raw.toml", "Invalid statement"), (".", "is not a regular file")]:
        with pytest.raises(InputError, match=rf"{name}: .*{words}.*: expected settings in TOML"):
            toml.read(Path(name))


def test_a_byte_order_mark_is_dropped(workdir):
    Path("marked.toml").write_bytes(b"\xef\xbb\xbfhidden = 3\n")
    assert toml.read(Path("marked.toml")) == {"hidden": 3}


@posix
@pytest.mark.parametrize("kind", ["device", "pipe", "hole"])
@pytest.mark.parametrize("where", ["named", "found", "in a run"])
def test_a_file_without_an_end_is_refused_at_once(where, kind, workdir, capsys):
    place = {"named": Path("mine.toml"), "found": Path("bptt.toml"), "in a run": Path("runs/one/config.toml")}[where]
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        with place.open("wb") as file:
            file.truncate(3 * 10**9)
    if where == "in a run":
        place.parent.joinpath("checkpoints").mkdir()
    flags = {"named": ["--config", "mine.toml"], "found": [], "in a run": ["--resume", "runs/one"]}[where]
    assert cli.main(["train", *flags]) == 2
    problem = "has 3,000,000,000 bytes, expected at most 4,259,840" if kind == "hole" else "is not a regular file"
    assert capsys.readouterr().err == f"bptt: {place}: {problem}: expected settings in TOML, as in: hidden = 128\n"


@posix
def test_a_link_and_the_pipe_of_a_shell_are_read(workdir):
    Path("mine.toml").write_text('text = "names.txt"\n' + TABLE)
    Path("bptt.toml").symlink_to("mine.toml")
    assert cli.main(["train", "--out", "linked"]) == 0
    Path("bptt.toml").unlink()
    command = f"{sys.executable} -m bptt train --out piped --config <(cat mine.toml)"
    subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "BPTT_KERNELS": "0"})
    assert recorded_settings("linked")["hidden"] == recorded_settings("piped")["hidden"] == 3


def test_files_are_looked_for_beside_the_toml_file(workdir, monkeypatch):
    Path("sub").mkdir()
    monkeypatch.setenv("HOME", str(workdir / "sub"))
    Path("sub/own.txt").write_text(NAMES * 2)
    Path("sub/val.txt").write_text("nabi\nrekon\n")
    for number, folder in enumerate(["", "~/"]):
        Path("sub/mine.toml").write_text(f'text = "{folder}own.txt"\nvalidation = "{folder}val.txt"\n{TABLE}')
        assert cli.main(["train", "--config", "sub/mine.toml", "--out", f"cli{number}"]) == 0
        bptt.train(config="sub/mine.toml", out=f"python{number}")
        for name in (f"cli{number}", f"python{number}"):
            record = bptt.load(name).record
            assert record["source"] == str(workdir / "sub" / "own.txt")
            assert record["validation"]["source"] == str(workdir / "sub" / "val.txt")


@pytest.mark.parametrize("text", [r"C:\new\names.txt", "nowhere.txt", "nowhere\n"])
def test_a_text_in_a_toml_file_is_never_the_text_itself(text, workdir, capsys):
    Path("mine.toml").write_text("text = " + json.dumps(text).replace(r"\\", "\\") + "\n" + TABLE)
    assert cli.main(["train", "--config", "mine.toml"]) == 2
    assert "does not exist: expected a file of text" in capsys.readouterr().err


@posix
@pytest.mark.parametrize("line", ['text = "/dev/zero"', 'text = "dinosaurs"\nvalidation = "/dev/zero"'])
def test_a_run_without_a_checkpoint_leads_to_no_device(line, workdir, capsys):
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/config.toml").write_text(f"{toml.HEADER}\n{line}\n{TABLE}")
    assert cli.main(["train", "--resume", "run"]) == 2
    assert "'/dev/zero' is not a regular file" in capsys.readouterr().err


@quickly(deadline=None, max_examples=200)
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.floats(1e-300, 1e300), st.integers(1, 10**9))
def test_written_settings_are_read_back(tmp_path_factory, source, rate, steps):
    flags = {"dropout": 0.25, "recompute_every": "sqrt", "quiet": True, "from_": Path("/a b/\"c'")}
    settings = Settings(learning_rate=rate, steps=steps, **flags)
    plan = resolve(settings, "lines", 100, lambda batch, length: 1)
    text = toml.to_toml(settings, plan, DINOSAURS.mode, source, 0.1)
    assert tomllib.loads(text)["text"] == source
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_bytes(text.encode("utf-8"))
    table = toml.read(path)
    expected = {
        "learning_rate": rate,
        "steps": steps,
        "dropout": 0.25,
        "recompute_every": "sqrt",
        "quiet": True,
        "text": source if source == "-" else FileReference(source, folder=str(path.parent), by_user=True),
        "mode": "lines",
        "validation": 0.1,
    }
    assert table | expected == table
    assert table["from_"] == settings.from_


def test_a_configuration_file_applies_to_resume(workdir, capsys):
    assert cli.main(["train", "names.txt", "--hidden=3", "--steps=4", "--stop-after=2", "--quiet", "--out=new"]) == 0
    Path("other.toml").write_text("cell = 'lstm'")
    assert cli.main(["train", "--resume", "new", "--config", "other.toml"]) == 2
    assert "--cell lstm: a resumed run keeps this setting" in capsys.readouterr().err
    Path("more.toml").write_text("steps = 6")
    assert cli.main(["train", "--resume", "new", "--config", "more.toml", "--quiet"]) == 0
    assert bptt.load("new/checkpoints/latest").record["step"] == 6


@pytest.mark.parametrize("before", ["", "x = ['''\n"])
def test_a_key_of_many_dots_takes_no_time(tmp_path, before):
    """Not even where the list of the texts hides it from the parser of JSON."""
    path, dots = tmp_path / "bptt.toml", ".".join("a" * 30_000)
    path.write_text(f"{dots} = 1\n" if not before else f"{before}text = [\"''', {{{dots} = 1}}, '''\"]\n''']\n")
    with pytest.raises(InputError, match=r"has a line with more than 2,000 dots|is unknown"):
        toml.read(path)
    path.write_text(f'text = ["{dots}.txt"]\n')
    assert toml.read(path)["text"][0].place == f"{dots}.txt"
