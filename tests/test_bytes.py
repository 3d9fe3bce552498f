"""Models of bytes: what they read and write is bytes, whether or not these are text."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt import cli
from bptt.data.vocabulary import BYTES, RECORD, Vocabulary, characters
from bptt.errors import InputError
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree


def make_model(mode="stream", vocabulary=BYTES):
    backend = backends.select("numpy", "float64")
    config = model.Config("gru", len(vocabulary), 6)
    params = tree.tree_map(lambda a: backend.put(2 * a), model.init(config, np.random.default_rng(0)))
    return LanguageModel(config, vocabulary, mode, params, backend, {"text": "midi"})


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model().save("b")


def test_bytes_are_sampled_as_they_are():
    trained = make_model()
    texts = trained.sample_bytes(3, length=40, seed=5, prompt=b"\xff\0MThd")
    assert len(set(texts)) == 3
    assert all(text.startswith(b"\xff\0MThd") and len(text) == 46 for text in texts)
    assert trained.sample_bytes(2, length=40, seed=5, prompt=b"\xff\0MThd") == texts[:2]
    plain = trained.sample_bytes(2, length=40)
    assert [text.decode("utf-8", "replace") for text in plain] == trained.sample(2, length=40)
    assert any(b not in range(128) for b in plain[0])
    stop = plain[0][20:22].decode("latin-1")
    if stop.isascii():
        assert trained.sample_bytes(1, length=40, stop=stop)[0] == plain[0][: plain[0].index(stop.encode())]


def test_only_models_of_bytes_sample_bytes():
    with pytest.raises(InputError, match="the model writes characters, not bytes"):
        make_model(vocabulary=characters("ab\n")).sample_bytes()
    with pytest.raises(InputError, match="count 0: expected a whole number"):
        make_model().sample_bytes(0)


def test_a_prompt_of_bytes_is_for_models_of_bytes():
    trained = make_model()
    assert trained.next("é") == trained.next("é".encode())
    assert trained.next(b"\xe9") != trained.next("é")
    assert trained.sample(1, prompt=b"\xe9", length=3)[0].startswith("\ufffd")
    assert "".join(trained.stream(prompt="é".encode(), length=3)).startswith("é")
    with pytest.raises(InputError, match=r"prompt b'\\xe9': expected str, or bytes for a model of bytes"):
        make_model(vocabulary=characters("ab\n")).next(b"\xe9")
    with pytest.raises(InputError, match="prompt 5: expected str"):
        trained.next(5)
    with pytest.raises(InputError, match="expected the beginning of one line"):
        make_model("lines").next(b"\xe9\n")
    with pytest.raises(InputError, match="expected the beginning of one record"):
        make_model("records", Vocabulary(None, RECORD)).next(RECORD.encode())


@pytest.mark.parametrize("raw", [b"MThd\0\0\0\x06\xff", b"\xff\xfea\0", b"a\r\nb\n", b""])
def test_a_prompt_file_of_any_bytes_is_taken_as_it_is(capfdbinary, monkeypatch, raw):
    Path("midi.bin").write_bytes(raw)
    assert cli.main(["sample", "b", "--prompt-file", "midi.bin", "--length", "30", "--raw"]) == 0
    written = capfdbinary.readouterr().out
    assert written == bptt.load("b").sample_bytes(1, prompt=raw, length=30)[0]
    assert (written[: len(raw)], len(written)) == (raw, len(raw) + 30)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert cli.main(["sample", "b", "--prompt-file", "-", "--length", "30", "--raw"]) == 0
    assert capfdbinary.readouterr().out == written


def test_raw_bytes_are_not_written_to_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["sample", "b", "--raw"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("--raw writes bytes")) == ("", 1)


def test_the_score_of_bytes_counts_bytes(capsys):
    Path("midi.bin").write_bytes(b"\xff\xfe\nab\n")
    assert cli.main(["score", "b", "midi.bin"]) == 0
    assert "2 lines, 4 bytes, " in capsys.readouterr().err
