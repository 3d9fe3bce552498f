"""Records, texts of several lines: which separator is used, by the run and by what is made of its model."""

import json
from pathlib import Path

import pytest

import bptt
from bptt import cli
from bptt.data.vocabulary import RECORD
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
    with pytest.raises(InputError, match=r"separator='\\n%\\n': 'other\.txt' does not hold it"):
        finetune("other.txt", "run")


def test_several_texts_to_fine_tune_on_are_a_record_each():
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
        with pytest.raises(InputError, match=r"mode='records': all of .* is one record: give what stands between two"):
            train(text, mode="records", vocabulary=vocabulary)


def test_several_texts_are_a_record_each():
    Path("texts").mkdir()
    for number, poem in enumerate(POEMS):
        Path(f"texts/{number}").write_text(poem)
    for text in ("texts", [Path("texts/0"), Path("texts/1"), Path("texts/2"), Path("texts/3")], POEMS):
        assert "4 records to train on" in header(text, mode="records")


def test_items_without_a_newline_are_records_in_that_mode():
    assert "3 records to train on" in header(["anna bella", "carla", "dora"], mode="records")


# A model that is used elsewhere


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_an_exported_model_of_records_reads_records_as_before(vocabulary, capsys):
    Path("words.txt").write_text("%".join(["ab", "abba", "baba", "bab"]))  # no newline anywhere
    model = train("words.txt", separator="%", vocabulary=vocabulary, out="run")
    model.export("torch", "model.safetensors")
    assert b"words.txt" not in Path("model.safetensors").read_bytes()  # no path of its user
    again = bptt.from_torch("model.safetensors")
    assert (again.mode, again.vocabulary) == ("records", model.vocabulary)
    again.save("again")
    before, after = (bptt.load(run).evaluate(Path("words.txt")) for run in ("run", "again"))
    assert before.characters == after.characters == 17
    assert after.nats == pytest.approx(before.nats, rel=1e-6)
    for run in ("run", "again"):
        assert cli.main(["evaluate", run, "words.txt"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["characters"] == 17
        assert cli.main(["score", run, "words.txt"]) == 0
        assert [line.split("\t")[-1] for line in capsys.readouterr().out.splitlines()] == ["ab", "abba", "baba", "bab"]
    Path("other.txt").write_text("ab%ba")
    assert "2 records to train on" in header("other.txt", from_="again", hidden=None)


def test_a_forged_mode_of_an_exported_model_is_refused():
    train("names.txt").export("torch", "model.safetensors")
    raw = Path("model.safetensors").read_bytes()
    forged = raw.replace(b'mode\\": \\"lines', b'mode\\": \\"linez')
    assert forged != raw
    Path("model.safetensors").write_bytes(forged)
    with pytest.raises(InputError, match="mode 'linez' is unknown"):
        bptt.from_torch("model.safetensors")


def test_the_separator_may_be_another_one(capsys):
    train("poems.txt", separator="\n%\n", out="run")
    Path("other.txt").write_text("\n==\n".join(["the cat", "dogs bark", "roses"]))
    flags = ["--separator", "\\n==\\n"]
    assert cli.main(["score", "run", "other.txt", *flags]) == 0
    assert "3 records" in capsys.readouterr().err
    assert cli.main(["evaluate", "run", "other.txt", *flags]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["characters"] == 24
    assert cli.main(["evaluate", "run", "poems.txt", *flags, "--unknown", "skip"]) == 2
    assert "'poems.txt' does not hold it" in capsys.readouterr().err


def test_text_given_in_python_is_separated_as_a_file_is():
    model = train("poems.txt", separator="\n%\n")
    parted = model.evaluate(RECORD.join(POEMS) + RECORD)
    assert model.evaluate(SEPARATED) == model.evaluate(Path("poems.txt")) == model.evaluate(POEMS) == parted
    assert [score.text for score in model.scores(SEPARATED)] == POEMS


# What is printed of records


def test_a_record_is_scored_on_one_line_of_fields(capsys):
    Path("tabs.txt").write_text("a\tb\nc%b\tc\na%a\\b\n")
    train("tabs.txt", separator="%", out="run")
    assert cli.main(["score", "run", "tabs.txt"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[-1] for line in out.splitlines()] == ["a\\tb\\nc", "b\\tc\\na", "a\\b"]
    assert err.startswith("bptt: 3 records, ")
    assert cli.main(["score", "run", "tabs.txt", "--json"]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["a\tb\nc", "b\tc\na", "a\\b"]
