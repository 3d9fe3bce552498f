"""The texts that a model is measured on: several files, folders and lists, in the encoding of the training text."""

import json
from pathlib import Path

import pytest

import bptt
from bptt import cli
from bptt.data import loading
from bptt.errors import InputError

NAMES = "\n".join(a + b + c for a in "abc" for b in "aei" for c in "lmnr") + "\n"
PROSE = "a man came in a calm manner, as nearly all men can, and ran a mile in a lane near a barn. " * 5


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    Path("parts/below").mkdir(parents=True)
    texts = {"names.txt": NAMES, "parts/1.txt": "alan\nberl\n", "parts/below/2.txt": "caln", "parts/no.md": "x"}
    for name, text in texts.items():
        Path(name).write_text(text)


def train(text="names.txt", **flags):
    return bptt.train(text, **{"hidden": 4, "steps": 2, "report": None, "backend": "numpy", **flags})


def run(capsys, *words):
    code = cli.main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


# Several texts


@pytest.mark.parametrize(
    "texts", [["parts/1.txt", "parts/below/2.txt"], ["parts", "--glob", "*.txt"], ["parts/1.txt", "parts/b*/*.txt"]]
)
def test_several_texts_are_evaluated_and_scored(capsys, texts):
    train(out="run")
    code, out, err = run(capsys, "evaluate", "run", *texts)
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["characters"] == 15
    code, out, err = run(capsys, "score", "run", *texts)
    assert (code, [line.split("\t")[-1] for line in out.splitlines()]) == (0, ["alan", "berl", "caln"])
    assert err.startswith("bptt: 3 lines, 15 characters, ")


def test_each_file_of_a_stream_begins_afresh():
    Path("1.txt").write_text(PROSE[:100])
    Path("2.txt").write_text(PROSE[100:150])
    Path("stream.txt").write_text(PROSE)
    model = train("stream.txt")
    assert model.mode == "stream"
    both = model.evaluate([Path("1.txt"), Path("2.txt")])
    apart = model.score(PROSE[:100] + "\n"), model.score(PROSE[100:150])
    assert both.nats == pytest.approx(sum(apart), rel=1e-5)


def test_an_ensemble_takes_a_folder_as_its_text(capsys):
    train(out="run")
    code, out, err = run(capsys, "evaluate", "run", "run", "--text", "parts", "--glob", "*.txt")
    assert (code, err, json.loads(out.splitlines()[-1])["characters"]) == (0, "", 15)


def test_standard_input_is_a_text_alone(capsys):
    train(out="run")
    code, _, err = run(capsys, "score", "run", "parts/1.txt", "-")
    assert (code, err.count("standard input (-) is a text alone")) == (2, 1)


def test_a_list_of_paths_or_lines_is_evaluated_in_python():
    model = train()
    paths = [Path("parts/1.txt"), Path("parts/below")]
    assert model.evaluate(paths) == model.evaluate(["alan", "berl", "caln"]) == model.evaluate("alan\nberl\ncaln\n")
    assert bptt.Ensemble([model]).evaluate(paths) == model.evaluate(paths)
    assert model.evaluate(paths, dynamic=True).characters == 15
    with pytest.raises(InputError, match="not in the vocabulary: 'x'"):
        model.evaluate(Path("parts"))
    with pytest.raises(InputError, match="unknown 'drop': expected one of error, skip"):
        model.evaluate("alan", unknown="drop")


def test_unknown_characters_are_left_out_in_python():
    model, of_bytes = train(), train(vocabulary="bytes")
    for dynamic in (False, True):
        assert model.evaluate("alxan\n", unknown="skip", dynamic=dynamic) == model.evaluate("alan\n", dynamic=dynamic)
    assert model.evaluate(["alxan", "berl"], unknown="skip") == model.evaluate(["alan", "berl"])
    assert of_bytes.evaluate("alxan\n", unknown="skip") == of_bytes.evaluate("alxan\n")


# The encoding of the training text


def test_the_encoding_of_the_training_text_is_used_again(capsys):
    Path("latin.txt").write_bytes("josé\nnoël\nanaïs\nrené\n".encode("cp1252"))
    Path("utf8.txt").write_text("josé\n", "utf-8")
    model = train("latin.txt", encoding="cp1252", out="run")
    for command in ("score", "evaluate"):
        assert run(capsys, command, "run", "latin.txt")[0] == 0
        assert run(capsys, command, "run", "utf8.txt")[0] == 2
        assert run(capsys, command, "run", "utf8.txt", "--encoding", "utf-8")[0] == 0
    assert model.evaluate(Path("latin.txt")) == model.evaluate("josé\nnoël\nanaïs\nrené\n")
    model.export("torch", "model.safetensors")
    assert bptt.from_torch("model.safetensors").evaluate(Path("latin.txt")).characters == 21
    assert len(model.sample(2, novel="latin.txt")) <= 2
    model.record["settings"]["encoding"] = "klingon"
    with pytest.raises(InputError, match="the encoding of the model 'klingon': expected an encoding of texts"):
        model.evaluate(Path("latin.txt"))


# A validation set of several files


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("folder", ["parts", "parts/*.txt"])
def test_a_validation_set_may_be_a_folder_or_a_pattern(monkeypatch, folder, large):
    if large:
        monkeypatch.setattr(loading, "LARGE", 3)
    Path("parts/3.txt").write_text("carn\n")
    chosen = {"validation": folder} | ({"glob": "*.txt"} if folder == "parts" else {})
    once = train(**chosen, steps=4, out="once")
    train(**chosen, steps=4, out="run", stop_after=2)
    again = bptt.train(resume="run", report=None)
    assert again.record["held_out"] == once.record["held_out"]
    count = 3 if folder == "parts" else 2
    assert len(once.record["validation"]["source"]) == len(once.record["validation"]["files"]["bytes"]) == count
    assert bptt.train(config="once/config.toml", report=None).record["held_out"] == once.record["held_out"]
    train(**chosen, steps=4, out="more", stop_after=2)
    Path("parts/3.txt").write_text("carla\n")
    with pytest.raises(InputError, match=r"validation set '.*3\.txt' has changed: 6 bytes now, 5 before"):
        bptt.train(resume="more", report=None)
    assert bptt.train(resume="more", changed_text=True, report=None).record["ended"] == ""


def test_a_folder_of_validation_files_is_described():
    lines = []
    train(validation="parts", glob="*.txt", report=lines.append)
    assert "36 lines to train on, 3 of parts to validate on" in lines[0]
    Path("parts/below/2.txt").write_text("xyz")
    with pytest.raises(InputError, match=r"^validation set 'parts/below/2\.txt': not in the vocabulary: 'x'"):
        train(validation="parts", glob="*.txt")
    with pytest.raises(InputError, match=r"validation set 'nowhere' does not exist: expected a fraction"):
        train(validation="nowhere")
