"""Records, texts of several lines: which separator is used, by the run and by what is made of its model."""

from pathlib import Path

import pytest

import bptt
from bptt.errors import InputError

POEMS = ["roses are red\nviolets are blue", "sugar is sweet\nand so are you", "the cat sat\non the mat", "dogs bark\nall day"]
SEPARATED = "\n%\n".join(POEMS) + "\n"
NAMES = "\n".join(a + b + c for a in "abc" for b in "aei" for c in "lmnr") + "\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("poems.txt").write_text(SEPARATED)
    Path("names.txt").write_text(NAMES)


def train(text, **flags):
    settings = {"hidden": 4, "steps": 2, "report": None, "backend": "numpy", "validation": 0.0, **flags}
    return bptt.train(text, **settings)


def finetune(text, run, **flags):
    return train(text, from_=run, hidden=None, new_symbols="add", **flags)


def header(text, **flags):
    lines = []
    train(text, **{"report": lines.append, **flags})
    return lines[0].splitlines()[0]


# Fine-tuning


def test_a_separator_is_refused_for_a_model_of_lines():
    train("names.txt", out="lines")
    with pytest.raises(InputError, match=r"separator '\\n%\\n' only works with .*mode records.*the model in lines") as error:
        finetune("poems.txt", "lines", separator="\n%\n")
    assert len(str(error.value).splitlines()) == 1


def test_an_encoding_is_refused_for_a_model_of_bytes():
    train("names.txt", vocabulary="bytes", out="bytes")
    with pytest.raises(InputError, match=r"encoding cp1252.*the model in bytes"):
        finetune("poems.txt", "bytes", encoding="cp1252")


def test_fine_tuning_takes_the_separator_of_the_model():
    train("poems.txt", separator="\n%\n", out="run")
    tuned = finetune("poems.txt", "run", out="tuned")
    assert tuned.record["settings"]["separator"] == "\n%\n"
    assert "4 records to train on" in header("poems.txt", from_="tuned", hidden=None)
    Path("other.txt").write_text("\n==\n".join(POEMS))
    assert finetune("other.txt", "run", separator="\n==\n").record["settings"]["separator"] == "\n==\n"
    with pytest.raises(InputError, match=r"separator '\\n%\\n': 'other\.txt' does not hold it"):
        finetune("other.txt", "run")


def test_several_texts_to_fine_tune_on_are_records_without_the_separator_of_the_model():
    train("poems.txt", separator="\n%\n", out="run")
    for number, poem in enumerate(POEMS):
        Path(f"{number}.poem").write_text(poem)
    for text in ([Path("0.poem"), Path("1.poem")], POEMS[:2], "*.poem"):
        assert finetune(text, "run", out=f"tuned{len(str(text))}", stop_after=1).mode == "records"
        assert bptt.train(None if text != POEMS[:2] else text, resume=f"tuned{len(str(text))}", report=None).mode == "records"


# A text without a separator


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_text_that_is_one_record_is_refused(vocabulary):
    for text in ("poems.txt", Path("poems.txt"), SEPARATED):
        with pytest.raises(InputError, match=r"mode records: all of .* is one record: give what stands between two"):
            train(text, mode="records", vocabulary=vocabulary)


def test_several_texts_are_a_record_each():
    Path("texts").mkdir()
    for number, poem in enumerate(POEMS):
        Path(f"texts/{number}").write_text(poem)
    for text in ("texts", [Path("texts/0"), Path("texts/1"), Path("texts/2"), Path("texts/3")], POEMS):
        assert "4 records to train on" in header(text, mode="records")


def test_items_without_a_newline_are_records_where_the_mode_says_so():
    assert "3 records to train on" in header(["anna bella", "carla", "dora"], mode="records")
