"""The help of the command line: the groups of the flags, their defaults, and the reference that documentation is made of."""

import dataclasses
import re
import shlex

import pytest

from bptt import cli
from bptt.cli import help, parser
from bptt.config import defaults, reference
from bptt.config.reference import GROUPS
from bptt.config.settings import SETTING_NAMES, Settings
from bptt.data import dataset
from bptt.errors import flag


@pytest.fixture
def shown(capsys, monkeypatch):
    """Call the command line; the lines of what it prints, without frames, that fit into 80 columns."""

    def lines(*words):
        monkeypatch.setenv("COLUMNS", "80")
        assert cli.main(list(words)) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert max(map(len, out.splitlines())) <= 80
        return [line.strip("│ ") for line in out.splitlines()]

    return lines


def test_every_setting_is_in_one_group():
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(SETTING_NAMES)


def test_train_shows_its_flags_in_groups(shown):
    lines = shown("train", "--help")
    titles = [line.strip("╭─╮ ") for line in lines if line.startswith("╭")]
    assert titles == ["Arguments", *GROUPS]
    starts = [lines.index(line) for line in lines if line.startswith("╭")]
    for title, start, end in zip(titles[1:], starts[1:], [*starts[2:], len(lines)], strict=True):
        flags = [line.split()[0] for line in lines[start:end] if line.startswith("--")]
        assert [name for name in flags if name in map(flag, SETTING_NAMES)] == [*map(flag, GROUPS[title])]


def test_the_help_has_the_reference_of_every_setting(shown):
    text = " ".join(shown("train", "--help"))
    text = " ".join(text.split()).replace("- ", "-")  # lines break after a hyphen, too
    for each in reference.settings_reference():
        entry = f"{each.flag} {each.type} {each.description}" if each.type else f"{each.flag} {each.description}"
        entry += f" [choices: {', '.join(each.choices)}]" if len(each.choices) > 1 else ""
        entry += f" [default: {each.default}]" if each.default is not None and each.type else ""
        assert f" {entry} " in text.replace("╰" + "─" * 78 + "╯", "") + " ", each.setting


def test_the_reference_has_the_facts_of_settings():
    rows = {row.setting: row for row in reference.settings_reference()}
    assert {name: row.default for name, row in rows.items()} == vars(Settings())
    assert rows["from_"][:4] == ("from_", "--from", "PATH", ())
    assert rows["cell"][2:6] == ("CHOICE|FILE.py", ("vanilla", "gru", "lstm"), "gru", "Model")
    assert rows["recompute_every"][2:4] == ("INT|sqrt", ("sqrt",))
    assert rows["validation"].type == "FLOAT|PATH"
    assert rows["distributed"].type == rows["quiet"].type == ""
    assert all(row.description.endswith(".") and row.description.count(". ") <= 1 for row in rows.values())


def test_without_source_a_setting_has_no_text(monkeypatch):
    def no_source(_):
        raise OSError

    monkeypatch.setattr("inspect.getsource", no_source)
    assert reference.descriptions() == dict.fromkeys(SETTING_NAMES, "")


def test_the_defaults_in_words_are_those_of_the_presets():
    """By default 64 to 320, and so on: over all presets, as `resolve` rounds them."""
    texts = reference.descriptions()
    sizes = [10, *(round(preset.targets) for presets in defaults.PRESETS.values() for preset in presets), 10**9]
    plans = [defaults.resolve(Settings(), mode, size, lambda *_: 1) for mode in ("lines", "stream") for size in sizes]
    for name in ("hidden", "batch", "steps", "learning_rate", "weight_decay"):
        values = [getattr(plan, name) for plan in plans]
        assert f"By default {min(values):,} to {max(values):,}" in texts[name]
    lengths = {plan.length for plan in plans}
    assert f"By default {max(lengths)} for lines, else {min(lengths)}." in texts["length"]
    assert max(plan.dropout for plan in plans) == 0.5
    assert "at most 0.5" in texts["dropout"]
    assert all(plan.evaluate_every == plan.checkpoint_every == plan.steps // 10 for plan in plans)
    limit = dataset.MAX_VALIDATION * 10
    assert f"By default 0.1, or less for texts over {limit:,} characters." in texts["validation"]
    assert [dataset.validation_share(Settings(), size) for size in (limit, 2 * limit)] == [0.1, 0.05]


@pytest.mark.parametrize("command", [name for name in parser.app if not name.startswith("-")])
def test_no_switch_shows_its_default(shown, command):
    assert not re.search(r"\[default:\s(True|False|None)", " ".join(shown(command, "--help")))


def test_a_setting_keeps_its_type_as_a_flag():
    code = parser.parse(["train", "names.txt", "--seed", "3", "--quiet"])
    flags = code.keywords["flags"]
    assert dataclasses.asdict(flags) == dataclasses.asdict(Settings(seed=3, quiet=True))


def test_commands_stand_in_the_order_of_use(shown):
    lines = shown("--help")
    listed = [line.split()[0] for line in lines if line and line.split()[0] in parser.app]
    assert listed == [*parser.commands(), "--help", "--install-completion", "--version"]
    assert listed[:2] == ["train", "sample"]
    assert listed.index("textbook") == len(parser.commands()) - 1


@pytest.mark.parametrize("name", parser.commands())
def test_help_of_a_command_is_that_of_its_flag(shown, name):
    assert shown("help", name) == shown(name, "--help") == shown(name, "-h")


def test_help_alone_is_that_of_no_words(shown):
    assert shown("help") == shown() == shown("--help")


@pytest.mark.parametrize("name", ["trian", "-x", ""])
def test_help_of_an_unknown_command_is_one_line(capsys, name):
    assert cli.main(["help", name]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("train", "bptt train [OPTIONS] [TEXT...]"),
        ("sample", "bptt sample [OPTIONS] [RUN]"),
        ("next", "bptt next [OPTIONS] RUN [PROMPT]"),
        ("score", "bptt score [OPTIONS] RUN [TEXT...]"),
        ("evaluate", "bptt evaluate [OPTIONS] RUN TEXT..."),
        ("export", "bptt export --to CHOICE [OPTIONS] RUN"),
        ("help", "bptt help [COMMAND]"),
    ],
)
def test_the_usage_names_the_arguments(shown, name, usage):
    lines = shown(name, "--help")
    assert lines[0] == f"Usage: {usage}"
    assert not any("ARGS" in line for line in lines)


@pytest.mark.parametrize("name", parser.commands())
def test_a_command_has_one_sentence_in_the_list(name):
    summary = parser.app[name].help.partition("\n\n")[0]
    assert summary.endswith(".")
    assert ". " not in summary


@pytest.mark.parametrize("name", ["--install-completion", *(name for name in parser.commands() if name not in help.EXAMPLES)])
def test_a_command_without_examples_shows_none(shown, name):
    assert "Examples:" not in shown(name, "--help")


def test_examples_are_commands(shown):
    """Each line is shown as it is written, and parses."""
    for name, text in help.EXAMPLES.items():
        lines = shown("help", *([name] if name else []))
        assert 2 <= len(text.splitlines()) - 1 <= 6
        for line in text.strip().splitlines():
            assert line in lines
            words = shlex.split(line.partition("|")[2] if line.startswith("echo") else line.partition("|")[0], comments=True)
            assert words[0] == "bptt"
            assert callable(parser.parse(words[1:]))
