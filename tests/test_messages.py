"""Progress: the words for people say what was done, and text from a model cannot play with the terminal."""

import io
import math
import sys

import numpy as np
import pytest

import bptt
from bptt.config.settings import Settings
from bptt.data import dataset
from bptt.display import text
from bptt.inference import generate

NAMES = [a + b for a in "bdklm" for b in "aeio"]


def reported_lines(text, **flags):
    lines = []
    trained = bptt.train(text, report=lines.append, **{"hidden": 4, "steps": 3, "backend": "numpy", **flags})
    return trained, lines


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        (
            NAMES,
            {"batch": 18},
            ["text   text: 18 lines to train on, 2 held out, 10 symbols", "3 steps, batches of up to 18 x 256, adam"],
        ),
        (NAMES, {"batch": 32}, ["3 steps, batches of up to 18 x 256 (the text is too short for batches of 32), adam"]),
        (
            NAMES,
            {"validation": 0, "batch": 20},
            ["20 lines to train on, no validation set (as requested); the last weights are kept", "batches of up to 20 x"],
        ),
        (["ab", "cd"], {}, ["2 lines to train on, none held out (too few lines), 5 symbols"]),
        (["ab"], {"mode": "lines"}, ["1 line to train on, none held out (too few lines)"]),
        (
            "ab " * 400 + "\n",
            {"batch": 4, "length": 50},
            ["1,081 characters to train on, the last 10 % (120) held out", "of up to 4 x 50, adam"],
        ),
        (["ab\ncd " * 99, "ef"], {}, ["2 records to train on, none held out (too few records), 9 symbols"]),
        ("ab\n" * 4, {"mode": "stream"}, ["12 characters to train on, none held out (the text is too short), 3 symbols"]),
        ("ab " * 400 + "\n", {"vocabulary": "bytes"}, ["1,081 bytes to train on, the last 10 % (120) held out"]),
        ("ab " * 400 + "\n", {"batch": 40, "length": 50}, ["of up to 21 x 50 (the text is too short for batches of 40)"]),
        (NAMES, {"cell": "lstm", "layers": 2, "seed": 7, "dropout": 0.5}, ["lstm, 2 x 4 units", "dropout 0.5, seed 7"]),
    ],
)
def test_the_header_describes_the_text_the_model_and_the_run(text, flags, words):
    _, lines = reported_lines(text, **flags)
    assert len(lines[0].splitlines()) == 3
    for word in words:
        assert word in lines[0]


RECORD = '{"name": "anna", "tags": ["one", "two", "three", "four", "five", "six"]}'
LONG = "every line of this text is longer than forty characters, and stands for itself"


@pytest.mark.parametrize(
    ("lines", "flags", "noted"),
    [
        ([RECORD] * 4, {}, True),
        ([RECORD, "", RECORD, ""], {"vocabulary": "bytes"}, True),
        (["[" + RECORD + "]"] * 4, {}, True),
        ([RECORD] * 4, {"mode": "stream"}, False),  # as asked for
        ([RECORD] * 4, {"mode": "lines"}, False),
        ([RECORD, "a" + RECORD, RECORD], {}, False),
        (["[" * 9000 + "1", RECORD], {}, False),  # nested too deeply for a parser
        ([LONG] * 10, {}, True),
        ([LONG] * 9, {}, False),
        ([*[LONG] * 9, "", LONG], {}, False),  # paragraphs
        (["123456"] * 4, {"mode": None, "vocabulary": "bytes"}, False),  # are JSON, but no record, and short lines
        ([LONG * 300], {}, False),
    ],
)
def test_the_header_says_that_lines_may_be_texts_of_their_own(lines, flags, noted):
    text = "\n".join([*lines, ""])
    note = "mode   read as one stream of text; mode='lines' makes each line a text of its own"
    assert (note in reported_lines(text, steps=1, **flags)[1][0].splitlines()) is noted


POEM = "\n\n".join(["roses are red\nviolets are blue", "sugar is sweet\nand so are you", "the cat sat\non the mat"]) + "\n"
FASTA = ">sp1 kinase\nMKTAYIAKQRQISFVKSHFS\nMKT\n>sp2\nMKTAYLAKQRQVSFVRSHFA\n"
HEADINGS = "First\n\nthe cat sat\non the mat\n\nSecond\n\nthe dog ran\nto the man\n"


@pytest.mark.parametrize(
    ("text", "flags", "separator"),
    [
        (POEM, {}, r"'\n\n'"),
        (POEM, {"vocabulary": "bytes"}, r"'\n\n'"),
        (POEM.replace("\n\n", "\n \n\n"), {}, r"'\n\n'"),
        (FASTA, {}, r"'\n>'"),
        (FASTA.replace("Q", 30 * "Q"), {}, r"'\n>'"),  # the long lines of a stream
        (POEM, {"mode": "stream"}, None),
        (POEM, {"separator": "\n\n"}, None),
        (FASTA, {"mode": "lines"}, None),
        ("> how are you\nwell, thank you\n> and your dog\nwell, too\n", {}, None),  # a quotation
        (">one\n>two\n>three\nx\n", {}, None),
        (HEADINGS, {}, None),
        (POEM.replace("red", 60 * "red "), {}, None),  # paragraphs
        (POEM.replace("\n\n", "\n\nMARY:\n"), {}, None),  # a play
        (POEM.replace("\na", "\n    a").replace("\no", "\n    o"), {}, None),  # indented as code is
        (POEM.replace("cat", "cat {\nx").replace("and", "}\nand"), {}, None),
    ],
)
def test_the_header_says_how_records_could_be_separated(text, flags, separator):
    hints = [line for line in reported_lines(text, steps=1, **flags)[1][0].splitlines() if "makes each part a record" in line]
    assert len(hints) == (separator is not None)
    assert separator is None or f": separator={separator} makes" in hints[0]


@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "names.txt", "dinos.txt"])
def test_a_play_or_names_are_not_taken_for_records(real_text, name):
    data = dataset.prepare(real_text(name), Settings(), np.random.default_rng(0))
    assert dataset.separator_hint(data) == ""


def test_a_file_of_json_lines_is_known_by_its_name_and_the_note_is_made_once(tmp_path):
    for name, noted in (("a.jsonl", True), ("a.ndjson", True), ("a.txt", False)):
        (tmp_path / name).write_text(LONG * 300)  # no line ends in the part that is looked at
        _, lines = reported_lines(tmp_path / name, out=tmp_path / f"run-{name}", steps=2, stop_after=1)
        assert ("mode   read as one stream" in lines[0]) is noted
    lines = []
    bptt.train(resume=tmp_path / "run-a.jsonl", report=lines.append)
    assert "mode   " not in lines[0]


def test_the_evaluation_line_has_nats_bits_and_samples():
    trained, lines = reported_lines(NAMES, steps=1)
    held_out = trained.record["held_out"]
    expected = (
        f"step 1  loss {trained.record['loss']:.4f}  held out {held_out:.4f} nats/char ({held_out / 0.6931472:.4f} bits)  "
    )
    assert expected in lines[1]
    texts = [text for text in trained.sample(30, temperature=0.8, seed=1) if text.strip()]
    assert lines[1].endswith("  " + ", ".join(texts[:3])[:60])
    _, lines = reported_lines(NAMES, steps=1, validation=0)
    assert "held out" not in lines[1]


def test_the_final_message_has_ten_new_samples():
    trained, lines = reported_lines(NAMES, hidden=16, steps=30, learning_rate=0.002, dropout=0)
    assert set(trained.sample(10, temperature=0.8)) & set(NAMES)  # it has learnt some by heart
    head, *names = lines[-1].splitlines()[:11]
    assert head == "10 new lines, not in the training text:"
    assert len({name.strip() for name in names} - {*NAMES, ""}) == 10


@pytest.mark.parametrize(("vocabulary", "symbols"), [("characters", "characters"), ("bytes", "bytes")])
def test_the_final_message_explains_the_nats(vocabulary, symbols):
    trained, lines = reported_lines(NAMES, vocabulary=vocabulary)
    nats, place = trained.record["held_out"], trained.record["step"]
    both = f"{nats:.4f} nats per held-out character ({nats / math.log(2):.4f} bits)"
    expected = f"best at step {place}: {both}, as unsure as among {math.exp(nats):.1f} equally likely {symbols}"
    assert expected in lines[-1].splitlines()


def test_the_sample_preview_is_short_and_has_no_empty_texts(monkeypatch):
    names = ["ba", "", " ", "x" * 80]
    monkeypatch.setattr(generate, "generate_texts", lambda *_: [generate.Sample(name, cut=False) for name in names])
    monkeypatch.setattr(bptt.LanguageModel, "sample", lambda *_, **__: names)
    _, lines = reported_lines(NAMES, steps=1)
    assert lines[1].endswith("  " + f"ba, {'x' * 56}")
    assert lines[-1].splitlines()[:3] == ["2 new lines, not in the training text:", "  ba", f"  {'x' * 80}"]


def test_the_final_message_says_if_no_sample_is_new(monkeypatch):
    monkeypatch.setattr(bptt.LanguageModel, "sample", lambda *_, exclude=None, **__: [] if exclude else ["ba"])
    assert reported_lines(NAMES)[1][-1].splitlines()[0] == "no new lines: all that was generated is in the training text"


def test_the_final_message_quotes_its_command_for_the_shell(tmp_path):
    _, lines = reported_lines(NAMES, out=tmp_path / "my names")
    assert lines[-1].splitlines()[-2:] == [
        f"saved in {tmp_path / 'my names'}",
        f"more: bptt sample '{tmp_path / 'my names'}' --count 10 --seed 1",
    ]


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_control_characters_of_a_text_do_not_reach_the_terminal(mode):
    _, lines = reported_lines("\x1b[2J\rab\x07\n\x9b1mcd\x08\n" * 30, mode=mode)
    assert all(character.isprintable() or character in "\n\t" for line in lines for character in line)
    assert len(lines[1].splitlines()) == 1


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"caf? ?\n"), ("utf-8", "café 日\n".encode())])
def test_print_safe_replaces_what_the_console_cannot_encode(monkeypatch, encoding, shown):
    console = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", console)
    text.print_safe("café 日")
    assert console.buffer.getvalue() == shown


def test_ctrl_c_shortens_the_final_message(monkeypatch, tmp_path):
    def sample(*_, exclude=None, **__):
        if exclude:
            raise KeyboardInterrupt
        return ["ba"]

    monkeypatch.setattr(bptt.LanguageModel, "sample", sample)
    trained, lines = reported_lines(NAMES, out=tmp_path / "m")
    assert trained.record["ended"] == ""
    assert f"saved in {tmp_path / 'm'}" in lines[-1]


def test_printable_replaces_control_characters():
    assert text.printable("é日 \x1b[m\t\n\u2028\x9b.") == "é日  [m    ."
    assert text.printable("👩\u200d🚀 \u200c.\u202a\u202e\u2066\u2069.") == "👩\u200d🚀 \u200c.    ."
    assert text.printable("a\tb\nc\r", "\n\t") == "a\tb\nc "
