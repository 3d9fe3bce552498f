"""Messages speak to their reader: of flags on the command line, of keywords in Python; what does nothing is said."""

import warnings
from pathlib import Path

import pytest

import bptt
from bptt import cli
from bptt.errors import InputError, TrainingWarning, is_command_line

TEXT = "anna\nbo\nabo\nnab\n"
SMALL = {"hidden": 2, "steps": 1, "report": None, "backend": "numpy"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text(TEXT)
    Path("texts").mkdir()
    Path("texts/names.txt").write_text(TEXT)


def typed(capsys, *words):
    code = cli.main(list(words))
    return code, capsys.readouterr().err


def test_a_missing_file_is_explained_without_python_to_who_typed_it(capsys):
    code, line = typed(capsys, "train", "nowhere")
    assert (code, "Python" in line, "newline" in line) == (2, False, False)
    assert not is_command_line()
    with pytest.raises(InputError, match=r"or a text with a newline in it$"):
        bptt.train("nowhere", **SMALL)


def test_a_url_is_not_looked_for_as_a_file(capsys):
    assert "(it is a URL: download it first)" in typed(capsys, "train", "https://example.org/names.txt")[1]


def test_a_pattern_that_chooses_nothing_is_said(capsys):
    small = ["--steps", "1", "--hidden", "2", "--quiet", "--validation", "0"]
    warning = "--glob '*.txt' does nothing: it chooses files of a folder, and no text is a folder"
    assert warning in typed(capsys, "train", "names.txt", "--glob", "*.txt", "--out", "run", *small)[1]
    for command in ("score", "evaluate"):
        assert warning in typed(capsys, command, "run", "names.txt", "--glob", "*.txt")[1]
        assert typed(capsys, command, "run", "texts", "--glob", "*.txt")[0] == 0
    with pytest.warns(TrainingWarning, match="does nothing"):
        bptt.train(Path("names.txt"), glob="*.txt", **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in (["texts"], [Path("texts"), Path("names.txt")], "texts"):
            bptt.train(Path("texts") if text == ["texts"] else text, glob="*.txt", validation=0, **SMALL)
        bptt.train("texts", glob="*.txt", validation=0, out="other", **SMALL)
        bptt.train(config="other/config.toml", report=None)  # which names the files of the folder


def test_novel_texts_need_a_text_in_the_words_of_the_caller(capsys):
    model = bptt.train(TEXT, **SMALL)
    with pytest.raises(InputError, match=r"name a text with novel='FILE'$"):
        model.sample(novel=True)
    model.save("model")
    assert "name a text with --text\n" in typed(capsys, "sample", "model", "--novel")[1]
