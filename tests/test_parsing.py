"""How the command line reads values: choices in any case, whole numbers in any notation, and complete lists in errors."""

from pathlib import Path
from typing import get_args

import pytest

import bptt
from bptt import cli
from bptt.backend import BackendName
from bptt.cli import parser
from bptt.config import reference

QUICK = ("--hidden", "3", "--backend", "numpy", "--quiet")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the command line in an empty folder; the exit code, what is printed, and the errors."""
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("anna\nbob\ncarol\ndave\n" * 5)

    def run(*words):
        code = cli.main(list(words))
        return code, *capsys.readouterr()

    return run


def flags(*words):
    """The settings of `bptt train` with these words."""
    return vars(parser.parse(["train", "names.txt", *words]).keywords["flags"])


@pytest.mark.parametrize("row", [row for row in reference.settings_reference() if row.choices], ids=lambda row: row.setting)
@pytest.mark.parametrize("spelling", [str.upper, str.title])
def test_a_choice_in_another_case_is_that_choice(row, spelling):
    for choice in row.choices:
        assert flags(row.flag, spelling(choice))[row.setting] == choice


def test_a_run_records_the_spelling_of_the_choice(call):
    words = "--cell", "GRU", "--optimizer", "SGD", "--steps", "2", "--out", "run"
    assert call("train", "names.txt", "--hidden", "3", "--quiet", "--backend", "NumPy", *words) == (0, "", "")
    recorded = bptt.load("run").record["settings"]
    assert (recorded["cell"], recorded["optimizer"], recorded["backend"]) == ("gru", "sgd", "numpy")
    assert 'cell = "gru"' in Path("run/config.toml").read_text()


def test_a_choice_in_another_case_ranks_above_the_file_like_any_other(call):
    """An optimizer that is typed replaces the options of the file that it does not have."""
    Path("bptt.toml").write_text("optimizer = 'adam'\nbeta1 = 0.5\n")
    assert call("train", "names.txt", *QUICK, "--optimizer", "SGD", "--steps", "1", "--out", "run")[0] == 0


def test_choices_of_other_commands_are_read_in_any_case():
    arguments = parser.parse(["score", "run", "names.txt", "--unknown", "Skip", "--backend", "NUMPY"]).keywords
    assert (arguments["unknown"], arguments["backend"]) == ("skip", "numpy")


def test_the_case_of_what_is_no_choice_is_kept():
    assert flags("--out", "GRU", "--cell", "My.py")["out"] == Path("GRU")
    assert flags("--out", "GRU", "--cell", "My.py")["cell"] == "My.py"


def test_choices_in_files_are_spelled_exactly(call):
    Path("bptt.toml").write_text("optimizer = 'SGD'\n")
    code, _, err = call("train", "names.txt")
    assert (code, err) == (2, "bptt: bptt.toml: optimizer = 'SGD': expected one of adam, rmsprop, adagrad, momentum, sgd\n")


@pytest.mark.parametrize(
    ("typed", "number"),
    [("1e4", 10_000), ("1_000", 1000), ("1e+04", 10_000), ("12.0", 12), ("1.5e1", 15), ("1E2", 100), ("7", 7), ("30e-1", 3)],
)
def test_a_whole_number_may_have_an_exponent(typed, number):
    for name in ("--steps", "--seed", "--recompute-every"):
        value = flags(name, typed)[name[2:].replace("-", "_")]
        assert (value, type(value)) == (number, int)


@pytest.mark.parametrize(
    "typed", ["1.5", "1e-1", "nan", "inf", "1e400", "1e", "1__0", "", "0.99999999999999999999", "9007199254740993.0", "1e99"]
)
def test_what_is_no_whole_number_is_refused(call, typed):
    code, _, err = call("train", "names.txt", f"--steps={typed}")
    assert (code, err) == (2, f"bptt: Invalid value for --steps: {typed!r} is not a whole number\n")


def test_long_integers_are_exact():
    assert flags("--seed", "9007199254740993")["seed"] == 9007199254740993


def test_whole_floats_in_toml_and_python_are_whole_numbers(call):
    Path("bptt.toml").write_text("steps = 2e0\nhidden = 3.0\n")
    assert call("train", "names.txt", "--backend", "numpy", "--quiet", "--out", "run") == (0, "", "")
    assert bptt.load("run").record["plan"]["steps"] == 2
    trained = bptt.train(["anna", "bob"] * 9, steps=2e0, hidden=3.0, backend="numpy", report=None)
    assert trained.record["plan"]["steps"] == 2
    Path("bptt.toml").write_text("steps = 1.5\n")
    assert call("train", "names.txt")[2].startswith("bptt: bptt.toml: steps = 1.5: expected a whole number")
    with pytest.raises(bptt.InputError, match=r"steps 1\.5: expected a whole number"):
        bptt.train(["anna", "bob"], steps=1.5)


def test_an_unknown_command_lists_all(call):
    code, _, err = call("xyz")
    assert code == 2
    assert err == f"bptt: Unknown command: 'xyz'. The commands are {', '.join(parser.commands())}.\n"
    assert set(parser.commands()) == {name for name in parser.app if not name.startswith("-")}
    assert parser.commands()[:2] == ["train", "sample"]


@pytest.mark.parametrize("flag", ["--nccl", "--graph", "--distributed"])
def test_what_is_no_switch_position_is_refused(call, flag):
    assert call("train", f"{flag}=maybe") == (2, "", f"bptt: {flag} 'maybe': expected true or false\n")
    assert flags(f"{flag}=False")[flag[2:]] is False


@pytest.mark.parametrize("words", [("train", "--backend", "x"), ("sample", "run", "--backend", "x")])
def test_an_unknown_choice_lists_all(call, words):
    code, _, err = call(*words)
    assert code == 2
    assert all(f'"{name}"' in err for name in get_args(BackendName))
