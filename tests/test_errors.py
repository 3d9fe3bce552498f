"""Messages: arguments are named as their reader writes them, and warnings of other packages are not printed."""

import warnings
from pathlib import Path

import pytest

import bptt
from bptt.cli import main
from bptt.errors import command_line, option


@pytest.mark.parametrize(
    ("name", "value", "as_flag", "in_python"),
    [
        ("new_symbols", "add", "--new-symbols add", "new_symbols='add'"),
        ("from_", Path("runs/a"), "--from runs/a", "from_='runs/a'"),
        ("patience", 1, "--patience 1", "patience=1"),
        ("warmup", 0, "--warmup 0", "warmup=0"),
        ("learning_rate", 0.0001, "--learning-rate 0.0001", "learning_rate=0.0001"),
        ("nccl", False, "--nccl=false", "nccl=False"),
        ("changed_text", True, "--changed-text", "changed_text=True"),
        ("encoding", None, "--encoding", "encoding"),
    ],
)
def test_options_are_flags_on_the_command_line_alone(name, value, as_flag, in_python):
    assert option(name, value) == in_python
    with command_line():
        assert option(name, value) == as_flag


BAD = {
    "hidden": {"hidden": 0},
    "two lengths": {"steps": 5, "epochs": 1},
    "an optimizer without it": {"optimizer": "sgd", "beta2": 0.9},
    "a separator for lines": {"separator": "%", "mode": "lines"},
    "a separator that is missing": {"separator": "%"},
    "one record": {"mode": "records"},
    "new symbols without a model": {"new_symbols": "add"},
    "epochs without end": {"epochs": 1e300},
}


@pytest.mark.parametrize("settings", BAD.values(), ids=BAD)
def test_errors_in_python_name_no_flags(settings):
    with pytest.raises(bptt.InputError) as caught:
        bptt.train("anna\nbob\ncarl\n", report=None, **settings)
    assert not {"--"} & {word[:2] for word in str(caught.value).split()}
    assert any(name in str(caught.value) for name in settings)


def test_unknown_characters_in_python_name_no_flags(tmp_path):
    model = bptt.train("anna\nbob\n", report=None, steps=1, hidden=2, validation=0)
    (tmp_path / "other.txt").write_text("zoe\n")
    for attempt in (
        lambda: model.sample(prompt="z"),
        lambda: model.score("z"),
        lambda: model.evaluate(tmp_path / "other.txt"),
        lambda: list(model.scores(["z"])),
    ):
        with pytest.raises(bptt.UnknownCharacters) as caught:
            attempt()
        assert "--" not in str(caught.value)


@pytest.mark.parametrize("category", [UserWarning, FutureWarning, DeprecationWarning, RuntimeWarning])
def test_warnings_of_other_packages_are_not_printed(category, monkeypatch, capsys):
    def noisy(*_):
        warnings.warn("from elsewhere", category, stacklevel=1)
        bptt.errors.warn("from here", bptt.TrainingWarning)
        return lambda: 0

    monkeypatch.setattr("bptt.cli.parse", noisy)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        assert main([]) == 0
    assert capsys.readouterr().err == "bptt: warning: from here\n"
