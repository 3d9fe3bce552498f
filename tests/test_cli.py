"""The command line: what it does, and one clear line with the right exit code for everything it cannot do."""

import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt import cli, textbook
from bptt.checkpoint import run_folder
from bptt.cli import parser
from bptt.cli.parser import app
from bptt.config.settings import Settings
from bptt.data import corpus
from bptt.display import panel, plots
from bptt.errors import flag
from bptt.nn import model, optimizers
from bptt.nn.cells import Cell
from bptt.training import setup
from runs import replace_adam

NAMES = "".join(f"{a}{b}{c}\n" for a in "bdk" for b in "aeiou" for c in ("nn", "r"))
SMALL = ["--hidden", "4", "--steps", "3", "--backend", "numpy"]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the curves takes longer than all the rest."""
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a model of lines, and one with a model of a stream."""
    folder = tmp_path_factory.mktemp("models")
    for mode in ("lines", "stream"):
        flags = {"hidden": 4, "steps": 3, "dtype": "float64", "backend": "numpy", "quiet": True}
        bptt.train(NAMES, mode=mode, **flags).save(folder / mode)
    return folder


@pytest.fixture
def workdir(tmp_path, monkeypatch, trained):
    """An own folder to work in, with some names, and copies of the models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)
    Path("names.txt").write_text(NAMES)
    shutil.copytree(trained / "lines", "m")
    shutil.copytree(trained / "stream", "s")
    return tmp_path


def everything():
    return sorted((str(path), path.stat().st_size) for path in Path().rglob("*"))


def set_stdin(monkeypatch, raw):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


# What it does


def test_train_then_sample_then_evaluate(run):
    code, out, err = run("train", "names.txt", *SMALL)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("text   names: 27 lines to train on, 3 held out")
    assert [line.split("step")[1].split()[0] for line in lines if " s  step" in line] == ["1", "2", "3"]
    new = [line.strip() for line in lines[lines.index("10 new lines, not in the training text:") + 1 :][:10]]
    assert len(set(new) - set(NAMES.split())) == 10
    assert lines[-2:] == ["saved in runs/names", "more: bptt sample runs/names --count 10 --seed 1"]
    code, out, err = run(*lines[-1].removeprefix("more: bptt ").split())
    assert (code, err, len(out.splitlines())) == (0, "", 10)
    assert out.splitlines() == bptt.load("runs/names").sample(10, seed=1)
    code, out, err = run("evaluate", "runs/names", "names.txt")
    assert (code, err) == (0, "")
    numbers = json.loads(out.splitlines()[-1])
    assert list(numbers) == ["nats_per_char", "bits_per_char", "perplexity", "characters"]
    assert numbers["characters"] == len(NAMES)
    assert numbers["nats_per_char"] * len(NAMES) == pytest.approx(bptt.load("runs/names").score(NAMES), rel=1e-6)
    assert numbers["bits_per_char"] == pytest.approx(numbers["nats_per_char"] / math.log(2))
    assert numbers["perplexity"] == pytest.approx(math.exp(numbers["nats_per_char"]))


def test_each_run_has_a_folder_of_its_own(run):
    for number in ("", "-2", "-3"):
        assert run("train", "names.txt", *SMALL, "--quiet") == (0, f"runs/names{number}\n", "")
    code, out, _ = run("train", "names.txt", *SMALL, "--quiet", "--json")
    assert (code, json.loads(out)["out"]) == (0, "runs/names-4")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["names", "names-2", "names-3", "names-4"]


def test_the_dinosaurs_are_the_default(run):
    code, out, _ = run("train", "--hidden", "2", "--steps", "1", "--out", "d")
    assert code == 0
    assert out.startswith("text   dinosaurs: ")
    assert bptt.load("d").record["text"] == "dinosaurs"


FLAGS = {
    "out": "new",
    "backend": "numpy",
    "device": "cpu",
    "require_backend": True,
    "dtype": "float64",
    "cell": "lstm",
    "hidden": 3,
    "layers": 2,
    "dropout": 0.25,
    "init": "orthogonal",
    "batch": 7,
    "length": 5,
    "micro_batches": 2,
    "recompute_every": "sqrt",
    "graph": False,
    "nccl": True,
    "mode": "stream",
    "vocabulary": "bytes",
    "steps": 2,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "clip_norm": 0.5,
    "parametrization": "mup",
    "schedule": "linear",
    "warmup": 1,
    "final_rate": 0.1,
    "beta1": 0.8,
    "beta2": 0.99,
    "weight_decay": 0.01,
    "average": 0.5,
    "seed": 9,
    "split_seed": 3,
    "duplicates": "independent",
    "validation": 0.2,
    "glob": "*",
    "evaluate_every": 1,
    "patience": 2,
    "checkpoint_every": 3,
    "keep": 1,
    "stop_after": 4,
    "quiet": True,
    "json": True,
}


def test_flags_are_the_keywords_of_train_and_the_words_of_the_record(run, workdir):
    assert (
        FLAGS.keys() | {"epochs", "budget", "from_", "new_symbols", "distributed", "separator", "encoding"}
        == vars(Settings()).keys()
    )  # the last ones rule others out
    switches = {True: "", False: "=false"}
    words = [
        word
        for name, value in FLAGS.items()
        for word in ([flag(name) + switches[value]] if isinstance(value, bool) else [flag(name), value])
    ]
    assert run("train", "names.txt", *words) == (0, "", "")
    by_flags = bptt.load("new")
    by_keywords = bptt.train("names.txt", **{**FLAGS, "out": "other"})
    assert by_flags.record["settings"] == {
        **FLAGS,
        "out": str(workdir / "new"),
        "epochs": None,
        "budget": None,
        "from_": None,
        "new_symbols": "error",
        "distributed": None,
        "separator": None,
        "encoding": "utf-8",
    }
    assert by_flags.score("ban") == by_keywords.score("ban")
    run("train", "names.txt", "--epochs", "1.5", "--out", "third", "--quiet", "--hidden", "2")
    assert bptt.load("third").record["settings"]["epochs"] == 1.5


def test_train_and_evaluate_read_standard_input(run, monkeypatch):
    set_stdin(monkeypatch, NAMES.encode())
    code, out, _ = run("train", "-", *SMALL, "--out", "new")
    assert (code, out[:12]) == (0, "text   stdin")
    set_stdin(monkeypatch, NAMES.encode())
    by_stdin = run("evaluate", "m", "-")
    assert by_stdin[0] == 0
    assert by_stdin == run("evaluate", "m", "names.txt")
    set_stdin(monkeypatch, b"ban\nker\n")
    assert run("textbook", "--data", "-", "--iterations", "1")[0] == 0


def test_sample_passes_its_flags_to_the_model(run):
    m, s = bptt.load("m"), bptt.load("s")
    assert run("sample", "m") == (0, m.sample()[0] + "\n", "")
    code, out, _ = run("sample", "m", "--count", 3, "--temperature", "0.5", "--seed", "4", "--prompt", "ba", "--length", "6")
    assert (code, out.splitlines()) == (0, m.sample(3, temperature=0.5, seed=4, prompt="ba", length=6))
    code, out, _ = run("sample", "s", "--count", "2", "--length", "30")
    assert out == "\n\n".join(s.sample(2, length=30)) + "\n"


def test_sample_and_evaluate_take_a_dtype(run, monkeypatch):
    asked = []

    def load(folder, **flags):
        asked.append(flags["dtype"])
        return bptt.load(folder, **flags)

    for module in (cli.inference, cli.evaluation):
        monkeypatch.setattr(module, "load", load)
    for command in (["sample", "m"], ["evaluate", "m", "names.txt"]):
        double, single, same = (run(*command, *more) for more in (["--dtype", "float64"], ["--dtype", "float32"], []))
        assert double == same
        assert single[0] == 0
        assert (single != double) is (command[0] == "evaluate")  # in its last digits
    assert asked == ["float64", "float32", None] * 2


def test_a_model_of_bytes_evaluates_any_file(run):
    Path("any.bin").write_bytes(bytes(range(256)) * 2)
    assert run("train", "any.bin", *SMALL, "--vocabulary", "bytes", "--out", "b")[0] == 0
    code, out, _ = run("evaluate", "b", "any.bin")
    assert (code, json.loads(out.splitlines()[-1])["characters"]) == (0, 512)


def test_the_textbook_command_prints_what_the_function_prints(run, capsys):
    text = "Abel\nBea\ncarl\n"
    Path("n.txt").write_text(text)
    code, out, err = run("textbook", "--data", "n.txt", "--iterations", "4")
    symbols = sorted(set(text.lower()))
    ids = {symbol: number for number, symbol in enumerate(symbols)}
    textbook.model(text.lower(), dict(enumerate(symbols)), ids, num_iterations=4, vocab_size=len(symbols))
    assert (code, out, err) == (0, capsys.readouterr().out, "")
    assert out.startswith("Iteration: 0, Loss: ")


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "textbook"])
def test_help_describes_every_flag(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    shown = " ".join(out.replace("│", " ").replace("|", " ").split())
    assert "--no-" not in shown
    if command == "train":
        for name in get_type_hints(Settings):
            after = shown.split(f"{flag(name)} ", 1)[1]
            assert after.split(" --", 1)[0].count(". ") + after.split(" --", 1)[0].endswith(".") >= 1, name
    for name in ("backend", "require-backend", *(["dtype"] if command != "textbook" else [])):
        assert f"--{name} " in shown
    if command == "sample":
        assert "Maximum number of new characters" in shown
    assert "{" not in shown


def test_no_command_prints_the_help_and_version_the_version(run):
    assert "train" in run()[1]
    assert run("--version") == (0, bptt.__version__ + "\n", "")


TITLE = "\x1b]0;title\x07\x9b2J"  # sets the title of a terminal, and clears it


@posix
def test_no_name_reaches_the_terminal_as_a_command(run, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(panel, "terminal", lambda: None)
    name, folder = f"a{TITLE}.txt", f"b{TITLE}"
    Path(name).write_text(Path("names.txt").read_text())
    small = "--hidden", "3", "--steps", "2", "--backend", "numpy"
    printed = [
        run("train", name, *small, "--out", folder),
        run("train", name, *small, "--out", folder),  # it is there
        run("train", "names.txt", f"--{TITLE}", "3"),
        run("train", f"no{TITLE}", "--config", f"no{TITLE}"),
        run("train", "names.txt", "--from", f"no{TITLE}"),
        run("sample", f"no{TITLE}"),
        run(f"co{TITLE}"),
        run("evaluate", folder, f"no{TITLE}"),
        run("export", folder, "--to", "torch", "--out", f"c{TITLE}"),
        run("train", "--resume", folder, "--steps", "2"),
        run("textbook", "--data", name, "--iterations", "1"),
    ]
    session = {"host": TITLE, "pid": TITLE}
    Path(folder, "env.json").write_text(json.dumps({"sessions": [session]}))
    with run_folder.locked(Path(folder)):
        printed.append(run("train", "--resume", folder, "--steps", "9"))
    assert [code for code, _, _ in printed] == [0, 2, 2, 2, 2, 2, 2, 2, 0, 2, 0, 2]
    assert "is writing there" in printed[-1][2]
    for _, out, err in printed:
        assert not set("\x1b\x07\x9b") & set(out + err)


# What it cannot do


def run_refused(run, *arguments, code=2, words=()):
    before = everything()
    got, out, err = run(*arguments)
    assert got == code
    assert len(err.splitlines()) == 1, err
    assert err.startswith("bptt: ")
    for word in [words] if isinstance(words, str) else words:
        assert word in err
    assert everything() == before
    return out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("trian names.txt", ["Unknown command: 'trian'. Did you mean bptt train?"]),
        ("xyz", ["Unknown command: 'xyz'. The commands are train, sample, next, score, evaluate, ", ", textbook."]),
        ("-- train", ["Unknown command: '--'. The commands are train, "]),
        ("train --config=", ["is not a regular file: expected settings in TOML"]),
        ("train names.txt --hiden 5", ["--hiden", "Did you mean --hidden?"]),
        ("train --hiden 5", ["--hiden", "Did you mean --hidden?"]),
        ("train --hiden=5", ["--hiden=5", "Did you mean --hidden?"]),
        ("train -x", ["Unknown option: -x. bptt train --help lists all options."]),
        ("-x", ["Unknown option: -x. bptt --help lists all options."]),
        ("train names.txt --lr 1", ["--lr", "Did you mean --learning-rate?"]),
        ("evaluate m --hidden 3", ["Unknown option: --hidden. bptt evaluate --help lists all options."]),
        ("evaluate m names.txt --hidden 3", ["Unknown option: --hidden. bptt evaluate --help lists all options."]),
        ("textbook --iteration 3", ["--iteration.", "Did you mean --iterations?"]),
        ("textbook --data --iteration", ["--iteration.", "Did you mean --iterations?"]),
        ("sample m --no-novel", ["Unknown option: --no-novel. Did you mean --novel=false?"]),
        ("--verison", ["Unknown option: --verison. Did you mean --version?"]),
        ("--help=3", ["Unknown option: --help=3. Did you mean --help?"]),
        ("train names.txt --no-graph", ["Unknown option: --no-graph. Did you mean --graph=false?"]),
        ("train names.txt --no-hidden", ["Unknown option: --no-hidden. Did you mean --hidden?"]),
        ("train names.txt -", ["standard input (-) is a text alone"]),
        ("train names.txt more.txt", ["'more.txt' does not exist"]),
        ("evaluate m --bakend numpy names.txt", ["Did you mean --backend?"]),
        ("sample", ["no run in runs: name a run or a saved model, or train one with bptt train"]),
        ("export", ["RUN is missing: bptt export --help describes it"]),
        ("export m", ["--to is missing: bptt export --help describes it"]),
        ("sample m names.txt", ["unexpected 'names.txt'"]),
        ("evaluate m", ["TEXT"]),
        ("train names.txt --hidden", ["--hidden", "requires an argument"]),
        ("train names.txt --budget -4s", ["--budget requires a value: -4s looks like a flag", "write --budget=-4s"]),
        ("sample m --prompt -C", ["--prompt requires a value: -C looks like a flag", "write --prompt=-C"]),
        ("train names.txt --validation=-", ["--validation -: expected a fraction", "or the path of a file"]),
        ("train names.txt --validation=", ["--validation .: expected a fraction", "or the path of a file"]),
        ("train names.txt --hidden many", ["--hidden", "'many' is not a whole number"]),
        ("train names.txt --hidden 4.5", ["--hidden", "'4.5' is not a whole number"]),
        ("train names.txt --recompute-every 4.5", ["--recompute-every", "'4.5' is not a whole number or sqrt"]),
        (
            "train names.txt --recompute-every 0",
            ["--recompute-every 0: expected a whole number from 1 to 1,000,000,000, or sqrt"],
        ),
        ("train names.txt --hidden 0", ["--hidden 0: expected a whole number from 1 to 1,000,000,000"]),
        ("train names.txt --hidden -4", ["--hidden -4: expected"]),
        ("train names.txt --layers 1001", ["--layers 1001: expected a whole number from 1 to 1000"]),
        ("train names.txt --learning-rate nan", ["--learning-rate nan: expected a finite number above 0"]),
        ("train names.txt --learning-rate inf", ["--learning-rate inf: expected a finite number above 0"]),
        ("train names.txt --learning-rate fast", ["--learning-rate", "fast"]),
        ("train names.txt --dropout 1", ["--dropout 1.0: expected a fraction"]),
        ("train names.txt --validation 1", ["--validation 1.0: expected a fraction"]),
        ("train names.txt --epochs inf", ["--epochs inf: expected"]),
        ("train names.txt --steps 2 --epochs 3", ["--steps 2 and --epochs 3.0: give one of the two"]),
        ("train names.txt --budget 30", ["--budget '30': expected a number above 0 and its unit, s, m or h, as in 30s"]),
        ("train names.txt --steps 2 --budget 3s", ["--steps 2 and --budget 3s: give one of the two"]),
        ("train names.txt --cell grru", ["grru", "vanilla", "did you mean gru?"]),
        ("train names.txt --backend numpie", ["numpie", "numpy"]),
        ("train nmaes.txt", ["'nmaes.txt' does not exist", "did you mean 'names.txt'?", "- for standard input"]),
        (
            "train m",
            ["'m' is a folder of a run or a model, expected texts: to train it further, use bptt train --resume or --from"],
        ),
        (
            "train m --out new",
            ["'m' is a folder of a run or a model, expected texts: to train it further, use bptt train --resume or --from"],
        ),
        ("train empty", ["'empty' holds nothing"]),
        ("train blank", ["nothing but white space"]),
        ("train same", ["'same' holds one character only"]),
        ("train utf16", ["looks like UTF-16", "give --encoding utf-16"]),
        ("train cut", ["is not UTF-8", "--vocabulary bytes"]),
        ("train binary", ["looks like a binary file", ": train with --vocabulary bytes"]),
        ("train names.txt --out m", ["m: already exists: name a new folder, or move the old one away"]),
        ("train names.txt --out names.txt", ["names.txt: already exists"]),
        ("train names.txt --out names.txt/new", ["no folder can be made there", "names.txt"]),
        ("sample nowhere", ["nowhere: no such folder", "bptt train"]),
        ("sample names.txt", ["names.txt: is a file, expected a folder that bptt train"]),
        ("sample .", ["name one of them, as m, s"]),
        ("sample mm", ["mm: no such folder (did you mean m?)"]),
        ("sample none", ["none: is not a model: expected a folder that bptt train or model.save made"]),
        ("sample m --count 0", ["count 0: expected a whole number from 1 to 1,000,000,000"]),
        ("sample m --count 2.5", ["'2.5' is not a whole number"]),
        ("sample m --temperature -1", ["temperature -1.0: expected a finite number, at least 0"]),
        ("sample m --temperature nan", ["temperature nan: expected"]),
        ("sample m --seed -1", ["seed -1: expected"]),
        ("sample m --length 0", ["length 0: expected a whole number from 1 to 1,000,000,000"]),
        ("sample m --prompt xyz", ["not in the vocabulary: 'x' (U+0078), 'y' (U+0079), 'z' (U+007A)", "--vocabulary bytes"]),
        ("evaluate m empty", ["'empty' holds nothing"]),
        ("evaluate m unknown", ["'unknown': not in the vocabulary: 'z' (U+007A), first at line 2, column 1"]),
        ("evaluate m --text=", ["'' does not exist"]),
        ("evaluate m nowhere", ["'nowhere' does not exist"]),
        ("evaluate nowhere names.txt", ["nowhere: no such folder"]),
        ("textbook --iterations 0", ["--iterations 0: expected at least 1"]),
        ("textbook --data nowhere", ["'nowhere' does not exist"]),
        ("sample m --dtype float16", ["float16", "float32"]),
        ("textbook --data empty", ["'empty' holds nothing"]),
    ],
)
def test_bad_input_is_a_one_line_error_and_changes_nothing(run, arguments, words):
    files = {
        "empty": b"",
        "blank": b" \n",
        "same": b"aa\na\n",
        "cut": "né".encode()[:-1],
        "binary": b"\x80\xff\x81\x01\x02",
        "unknown": b"ban\nzz",
    }
    for name, raw in {**files, "utf16": NAMES.encode("utf-16")}.items():
        Path(name).write_bytes(raw)
    Path("none").mkdir()
    assert run_refused(run, *arguments.split(), words=words) == ""


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "vocabulary.json", "model.safetensors"])
def test_a_damaged_model_is_a_one_line_error(run, name):
    path = Path("m", name)
    whole = path.read_bytes()
    for raw in (b"", whole[: len(whole) // 2], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        path.write_bytes(raw)
        run_refused(run, "sample", "m", words=str(path))
        run_refused(run, "evaluate", "m", "names.txt", words=str(path))
    path.unlink()
    run_refused(run, "sample", "m", words=f"{path}: no such file")


def test_empty_standard_input_is_refused(run, monkeypatch):
    set_stdin(monkeypatch, b"")
    run_refused(run, "train", "-", words="standard input holds nothing")
    set_stdin(monkeypatch, b"")
    run_refused(run, "evaluate", "m", "-", words="standard input holds nothing")


def test_running_out_of_memory_is_a_one_line_error(run, monkeypatch):
    words = ["out of memory: --hidden 1000000, --layers 1: 3,0", "GB, this machine has", ": choose fewer units or layers"]
    run_refused(run, "train", "names.txt", "--hidden", "1000000", code=4, words=words)

    def fails(*_, **__):
        raise MemoryError("Unable to allocate 9.9 GiB")

    monkeypatch.setattr(model, "init", fails)
    run_refused(
        run,
        "train",
        "names.txt",
        *SMALL,
        code=4,
        words=["out of memory: --hidden 4, --layers 1: 255 parameters", "choose fewer"],
    )
    monkeypatch.setattr(setup, "prepare", fails)
    run_refused(run, "train", "names.txt", *SMALL, code=4, words=["out of memory: Unable to allocate 9.9 GiB", "--hidden"])


def test_cupy_without_a_device_is_a_one_line_warning_or_error(run, monkeypatch):
    monkeypatch.setattr(backends, "cupy_unavailable_reason", lambda: "no device answers (remedy: a device)")
    code, out, err = run("train", "names.txt", "--hidden", "4", "--steps", "2", "--backend", "cupy", "--out", "new")
    assert (code, err.splitlines()) == (
        0,
        ["bptt: warning: backend 'cupy' is not usable: no device answers (remedy: a device); going on with numpy"],
    )
    assert "numpy float32 (cupy was asked for)" in out
    assert bptt.load("new").record["backend"] == {"asked": "cupy", "ran": "numpy"}
    for command in (["sample", "m"], ["evaluate", "m", "names.txt"]):
        code, _, err = run(*command, "--backend", "cupy")
        assert (code, len(err.splitlines())) == (0, 1)
        run_refused(run, *command, "--backend", "cupy", "--require-backend", words="'cupy' is required but no device answers")
    run_refused(run, "train", "names.txt", "--backend", "cupy", "--require-backend", words="is required but")
    assert run_refused(run, "textbook", "--backend", "cupy", "--require-backend", words="is required but") == ""
    monkeypatch.setenv("BPTT_REQUIRE_BACKEND", "1")
    run_refused(run, "train", "names.txt", "--backend", "cupy", words="is required but")


def test_other_os_errors_are_not_blamed_on_standard_output(run, monkeypatch):
    def init(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(model, "init", init)
    assert run("train", "names.txt", *SMALL) == (2, "", "bptt: [Errno 5] Input/output error\n")


# Words that look like flags, and paths beneath the home folder

STRINGS = ("--prompt", "--stop", "--separator", "--encoding", "--glob", "--device")
POSITIONALS = {"evaluate": ["m", "names.txt"], "report": ["m", "names.txt"], "import": ["file"], "check": [], "textbook": []}
VALUES = [  # each flag that takes a string or a path
    (command, name, "string" if name in STRINGS else "path")
    for command in app
    if not command.startswith("-")
    for argument in app[command].assemble_argument_collection()
    for name, kinds in [(argument.names[0], (argument.hint, *get_args(argument.hint)))]
    if name.startswith("--") and argument.parse and {str, Path, Cell} & set(kinds) and name != "--budget"
]


def test_all_flags_with_a_string_or_a_path_are_tested_below():
    assert {("sample", "--prompt", "string"), ("train", "--validation", "path"), ("check", "--cell", "path")} <= set(VALUES)
    assert len(VALUES) > 20


@pytest.mark.parametrize(("command", "name", "kind"), VALUES)
def test_a_value_that_looks_like_a_flag_needs_an_equals_sign(run, command, name, kind):
    words = [command, *POSITIONALS.get(command, ["m"])]
    expected = f"bptt: {name} requires a value: -C looks like a flag; if it is the value, write {name}=-C\n"
    assert run(*words, name, "-C") == (2, "", expected)
    assert "looks like a flag" not in run(*words, f"{name}=-C")[2]


@pytest.mark.parametrize(("command", "name", "kind"), [one for one in VALUES if one[2] == "path"])
def test_a_path_after_an_equals_sign_may_lie_in_the_home_folder(workdir, monkeypatch, command, name, kind):
    monkeypatch.setenv("HOME", str(workdir / "home"))
    monkeypatch.setenv("USERPROFILE", str(workdir / "home"))
    Path("home").mkdir()
    Path("home", "x").write_text("seed = 7\n")
    required = {"export": ["--to=torch"], "import": ["--out=new"] if name != "--out" else []}
    words = [command, *POSITIONALS.get(command, ["m"]), *required.get(command, [])]
    bound = str(parser.parse([*words, f"{name}=~/x"]))
    assert "seed=7" in bound if name == "--config" else str(workdir / "home" / "x") in bound


def test_only_quoted_paths_are_looked_for_at_home(workdir, monkeypatch):
    monkeypatch.setenv("HOME", str(workdir))
    monkeypatch.setenv("USERPROFILE", str(workdir))
    for command in ("train", "score", "evaluate", "report", "export", "next", "sample", "import"):
        words = ["~/m", "~/names.txt"] if command in ("score", "evaluate", "report") else ["~/m"]
        bound = parser.parse([command, *words, *{"export": ["--to=page"], "import": ["--out=new"]}.get(command, [])])
        assert [str(word) for word in bound.args] == [str(workdir / word[2:]) for word in words]
    assert parser.parse(["train", "~/x\ny"]).args == ("~/x\ny",)
    assert parser.parse(["next", "m", "~/x"]).args[1] == "~/x"
    assert parser.parse(["sample", "m", "--prompt=~/x"]).keywords["prompt"] == "~/x"


def test_two_hyphens_end_the_flags(run):
    assert parser.parse(["next", "--top", "3", "m", "--", "-C"]).args == (Path("m"), "-C")
    assert parser.parse(["next", "--", "m", "--top"]).args == (Path("m"), "--top")
    assert parser.parse(["sample", "--", "-x"]).args == (Path("-x"),)
    assert parser.parse(["train", "--", "--x"]).args == ("--x",)
    assert (
        run("evaluate", "--", "m", "names.txt") == run("evaluate", "m", "--", "names.txt") == run("evaluate", "m", "names.txt")
    )
    run_refused(run, "next", "m", "-C", words="Unknown option: -C. bptt next --help lists all options. If")
    run_refused(run, "next", "-C", "m", "--", "-C", words="Unknown option: -C.")
    run_refused(run, "sample", "m", "--", "-C", words="unexpected '-C'")
    run_refused(run, "score", "m", "--", "-C", words="'-C' does not exist")
    run_refused(run, "evaluate", "m", "--text=-C", words="'-C' does not exist")


# How a run ends


def test_a_run_that_diverges_at_once_exits_with_code_3(run):
    arguments = ["--optimizer", "sgd", "--learning-rate", "1e6", "--clip-norm", "0", "--hidden", "8", "--steps", "100"]
    words = ["NaN or infinity in the", "--learning-rate 100000", "nothing is saved"]
    code, _, err = run("train", "names.txt", *arguments)
    assert (code, len(err.splitlines())) == (3, 1)
    for word in words:
        assert word in err
    assert not any(Path("runs").iterdir())


def test_a_run_that_diverges_later_keeps_the_model_before_that(run, monkeypatch):
    rates = iter([0.01] * 25 + [math.nan] * 75)
    replace_adam(monkeypatch, lambda theta, d, memory, rate, **_: optimizers.sgd(theta, d, memory, next(rates)))
    code, _, err = run("train", "names.txt", "--hidden", "4", "--steps", "100", "--quiet")
    assert (code, len(err.splitlines())) == (3, 1)
    assert "warning: step 27: NaN or infinity in the weights layers.0.Wax" in err
    assert "is kept in runs/names" in err
    assert bptt.load("runs/names").record["step"] in (10, 20)


def test_ctrl_c_before_the_first_step_exits_with_code_130(run, monkeypatch):
    def read(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "read", read)
    run_refused(run, "train", "names.txt", code=130, words="interrupted")


# The same from outside


def process(*arguments, **keywords):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **keywords.pop("env", {})}
    # a shell that runs the tests in the background has them ignore SIGINT, and so would this process
    main = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from bptt.cli import main"
    command = [sys.executable, "-c", f"{main}; sys.exit(main())", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)


@posix
def test_a_closed_output_pipe_does_not_stop_training(workdir):
    with process("train", "names.txt", *SMALL) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 0
    assert np.isfinite(bptt.load("runs/names").score("ban"))


@posix
def test_a_closed_output_pipe_is_no_error(workdir):
    with process("textbook", "--data", "names.txt", "--iterations", "2001") as running:
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 0


@posix
def test_a_closed_output_pipe_is_no_error_for_the_help(workdir):
    with process("train", "--help") as running:
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full to write to")
@pytest.mark.parametrize(
    "arguments",
    [["sample", "m"], ["train", "names.txt", *SMALL, "--out", "new"], ["--help"], ["textbook", "--iterations", "1"]],
)
def test_an_unwritable_standard_output_is_a_one_line_error(workdir, arguments):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "bptt", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"bptt: cannot write to standard output: No space left on device\n")
    if arguments[0] == "train":
        assert bptt.load("new").record["step"] > 0


def test_train_and_sample_write_utf8_into_a_pipe_whatever_the_console_shows(workdir):
    Path("names.txt").write_text("naïve\ncafé\n日本\n" * 4, encoding="utf-8")
    with process("train", "names.txt", *SMALL, env={"PYTHONIOENCODING": "ascii"}) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, b"")
    assert not out.isascii()
    assert b"?" not in out
    with process("sample", "runs/names", "--prompt", "ö", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (2, b"")
    assert err.decode().startswith("bptt: not in the vocabulary: 'ö' (U+00F6)")


@posix
def test_without_standard_error_a_message_does_not_reach_standard_output(workdir):
    command = f"{sys.executable} -m bptt sample nowhere 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of files that are not UTF-8")
def test_the_name_of_a_file_is_printed_in_the_bytes_that_it_has(workdir):
    with process("export", "m", "--to", "torch", "--out", os.fsdecode(b"na\xffme")) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (0, b"saved in na\xffme\n", b"")
    assert os.path.isfile(b"na\xffme")


def test_what_no_encoding_has_is_printed_as_a_question_mark():
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "utf-8", "bptt")
    stream.write("a\ud800b\udcffc")
    stream.flush()
    assert written.getvalue() == b"a?b\xffc"
    assert "a\xe9\udcff".encode("ascii", "bptt") == b"a??"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", "bptt")


def test_a_long_name_does_not_fill_the_screen(run):
    for words in (["sample", "x" * 5000], ["train", "names.txt", "--hidden", "1" * 5000], ["y" * 5000]):
        code, _, err = run(*words)
        assert (code, len(err.splitlines()), len(err) < 2100) == (2, 1, True)
        assert " ... " in err


@pytest.mark.parametrize("columns", ["1", "99999999"])
def test_the_help_is_readable_on_any_terminal(workdir, columns):
    with process("sample", "--help", env={"COLUMNS": columns}) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, b"")
    assert 20 <= max(map(len, out.decode().splitlines())) <= 1000


def test_the_help_leaves_the_environment_as_it_was(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "7")
    assert run("sample", "--help")[0] == 0
    assert os.environ["COLUMNS"] == "7"
    monkeypatch.delenv("COLUMNS")
    run("--help")
    assert "COLUMNS" not in os.environ
