"""The commands that use a saved model: sample, next, score and evaluate, as they are typed."""

import contextlib
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import unicodedata
from ast import literal_eval
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt import cli
from bptt.data import corpus, loading
from bptt.data.vocabulary import BYTES, RECORD, characters
from bptt.inference import generate, request, text_model
from bptt.inference.generate import Sample, is_cut
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree

TEXT = "anna\nbo\ncarla\n"
posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


def make_model(mode="lines", vocabulary=None, scale=2.0, seed=0):
    vocabulary = vocabulary or characters(TEXT + " ")
    backend = backends.select("numpy", "float64")
    config = model.Config("gru", len(vocabulary), 6)
    params = tree.tree_map(lambda a: backend.put(scale * a), model.init(config, np.random.default_rng(seed)))
    record = {"text": "names", "held_out": 1.25}
    return LanguageModel(config, vocabulary, mode, params, backend, record)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder to work in, with a model of lines, one of a stream and one of bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)
    Path("names.txt").write_text(TEXT)
    make_model().save("m")
    make_model("stream").save("s")
    make_model("stream", BYTES).save("b")
    return tmp_path


def set_stdin(monkeypatch, raw):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def parse_table(out):
    return [line.split("\t") for line in out.splitlines()]


# sample


def test_sample_passes_its_flags_to_the_model(run):
    m, s = bptt.load("m"), bptt.load("s")
    flags = ["--temperature", "0.8", "--top-k", "6", "--top-p", "0.9", "--seed", "4", "--prompt", "xan", "--unknown", "skip"]
    how = {"temperature": 0.8, "top_k": 6, "top_p": 0.9, "seed": 4, "prompt": "xan", "unknown": "skip"}
    for count in (1, 3):
        expected = "\n".join(m.sample(count, length=30, **how)) + "\n"
        assert run("sample", "m", "--count", count, "--length", 30, *flags) == (0, expected, "")
        expected = "\n\n".join(s.sample(count, stop="la", **how)) + "\n"
        assert run("sample", "s", "--count", count, "--stop", "la", *flags) == (0, expected, "")


def test_a_single_text_is_printed_as_it_is_generated(run, monkeypatch):
    shown = []

    class Terminal(io.StringIO):
        def flush(self):
            shown.append(self.getvalue())

    drawn = []
    real = model.forward

    def forward(*arguments):
        drawn.append(shown[-1] if shown else "")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        patch.setattr(model, "forward", forward)
        assert cli.main(["sample", "s", "--length", "20", "--prompt", "an"]) == 0
    text = bptt.load("s").sample(length=20, prompt="an")[0]
    assert shown[-1] == text + "\n"
    assert drawn[:5] == ["an" * (n > 0) + text[2 : n + 2] if n else "an" for n in range(5)]


def test_control_characters_are_printed_to_files_but_not_to_terminals(run, monkeypatch):
    raw = ["a\x1b[2J\u200db\n", "\x9bc"]
    monkeypatch.setattr(cli.inference, "stream_text", lambda *_: iter(raw))
    monkeypatch.setattr(cli.inference, "sample_texts", lambda *_, **__: [Sample(text, cut=False) for text in raw])
    assert run("sample", "s")[1] == "".join(raw) + "\n"
    assert run("sample", "s", "--count", "2")[1] == "\n\n".join(raw) + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("sample", "s")[1] == "a [2J\u200db\n c\n"
    assert run("sample", "s", "--count", "2")[1] == "a [2J\u200db\n\n\n c\n"


def save_novel_model(source, mode="lines", **record):
    m = make_model(mode)
    m.record.update(source=str(source), **record)
    m.save("n")
    return m


def test_novel_texts_are_not_in_the_training_text(run, workdir):
    m = make_model()
    known = [text for text in m.sample(20) if text.strip()][::2]
    file = workdir / "known.txt"
    file.write_text("\n".join(known))
    save_novel_model(file, sha256=corpus.read(str(file), m.vocabulary).sha256)
    code, out, err = run("sample", "n", "--count", 20, "--novel")
    assert (code, err) == (0, "")
    new = out.splitlines()
    assert len(new) == len(set(new)) == 20
    assert not set(known) & set(new)
    assert all(text.strip() for text in new)
    assert set(new) <= set(m.sample(1000))
    assert run("sample", "n", "--novel")[1].splitlines() == new[:1]
    assert bptt.load("n").sample(20, novel=True) == new
    assert bptt.load("n").sample(15, novel=True, exclude=new[:5]) == new[5:]


def test_novel_stops_if_no_new_text_is_left(run, workdir):
    m = save_novel_model("dinosaurs")
    assert m.sample(temperature=0)[0].strip()
    code, out, err = run("sample", "n", "--novel", "--count", 3, "--temperature", 0)
    assert (code, out) == (2, "")  # the dinosaurs have letters that the model does not know
    assert err.startswith("bptt: --novel needs the training text: ")
    file = workdir / "all.txt"
    file.write_text(m.sample(temperature=0)[0])
    m = dataclasses.replace(m, record={"source": str(file), "sha256": "of another text"})
    m.save("o")
    code, out, err = run("sample", "o", "--novel", "--count", 3, "--temperature", 0)
    assert (code, out) == (0, "")
    assert "is not what it was when the model was trained" in err.splitlines()[0]
    assert err.splitlines()[1] == "bptt: 0 of 3 texts are new: try a higher --temperature"


def test_novel_texts_may_be_those_outside_of_another_text(run, workdir):
    m = save_novel_model(workdir / "gone.txt")
    texts = [text for text in m.sample(60) if text.strip()]
    Path("other.txt").write_text("\n".join([*texts[::2], "Ünknown"]))  # with characters that the model does not know
    code, out, err = run("sample", "n", "--count", 20, "--novel", "--text", "other.txt")
    assert (code, err) == (0, "")
    new = out.splitlines()
    assert len(set(new)) == 20
    assert not {*texts[::2], "", " "} & set(new)
    assert bptt.load("n").sample(20, novel="other.txt") == bptt.load("n").sample(20, novel=Path("other.txt")) == new
    assert run("sample", "m", "--count", 20, "--novel", "--text", "other.txt") == (0, out, "")  # its record names no text
    err = run("sample", "n", "--novel")[2]
    assert "gone.txt' does not exist" in err
    assert err.endswith("; with --text another file takes its place\n")


def test_novel_texts_of_a_model_of_bytes_are_outside_of_bytes(run):
    Path("any.bin").write_bytes(bytes(range(128, 256)) + b"a")
    assert "a" not in run("sample", "b", "--novel", "--text", "any.bin", "--length", 1, "--count", 50)[1].split("\n\n")


# The prompt


def test_a_prompt_may_be_the_content_of_a_file_or_of_standard_input(run, monkeypatch):
    for raw in (b"an", b"an\n", b"\xef\xbb\xbfan\r\n"):
        Path("prompt.txt").write_bytes(raw)
        assert run("sample", "m", "--prompt-file", "prompt.txt") == run("sample", "m", "--prompt", "an")
        assert run("next", "m", "--prompt-file=prompt.txt") == run("next", "m", "an")
        set_stdin(monkeypatch, raw)
        assert run("next", "m", "--prompt-file", "-") == run("next", "m", "an")
    Path("prompt.txt").write_bytes(b"bo\r\nan\n")  # of a stream, the last newline counts
    assert run("sample", "s", "--prompt-file", "prompt.txt") == run("sample", "s", "--prompt", "bo\nan\n")
    assert run("sample", "s", "--prompt-file", "prompt.txt")[1].startswith("bo\nan\n")
    Path("prompt.txt").write_bytes(b"an\n\n")  # one newline is left out, no more
    assert "expected the beginning of one line" in run("sample", "m", "--prompt-file", "prompt.txt")[2]


@posix
def test_a_prompt_may_come_from_a_pipe_of_the_shell(workdir):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bptt next m --top 1 --prompt-file <(printf an)"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_prompt_file_is_bounded(run, monkeypatch):
    monkeypatch.setattr(request, "MAX_PROMPT", 4)
    Path("prompt.txt").write_text("annab")
    assert "has 5 bytes, expected at most 4" in run("next", "m", "--prompt-file", "prompt.txt")[2]
    set_stdin(monkeypatch, b"annab")
    assert run("next", "m", "--prompt-file", "-")[2] == (
        "bptt: --prompt-file -: expected at most 4 bytes: give the end of it alone\n"
    )
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input cannot be read" in run("next", "m", "--prompt-file", "-")[2]


def test_a_typed_backslash_and_n_is_no_newline(run):
    said = r"\n is a backslash and an n, and the model knows no backslash: for a newline write $'\n' (bash, zsh)"
    for flag in ("--prompt", "--stop"):
        code, out, err = run("sample", "s", flag, r"an\nbo")
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert said in err
        assert said not in run("sample", "m", flag, r"an\nbo")[2]  # which writes lines
        assert run("sample", "s", flag, "an\nbo")[0] == 0
    make_model("records", characters(TEXT, RECORD)).save("r")
    assert said in run("sample", "r", "--prompt", r"an\nbo")[2]
    make_model("stream", characters(TEXT + "\\")).save("k")
    assert run("sample", "k", "--prompt", r"an\nbo")[0] == 0


@pytest.mark.parametrize(("form", "prompt"), [("NFC", "bo\u0302"), ("NFD", "b\u00f4")])
def test_a_character_in_the_other_unicode_form_is_explained(run, form, prompt):
    Path("text.txt").write_text(prompt, encoding="utf-8")
    make_model(vocabulary=characters(unicodedata.normalize(form, TEXT + prompt))).save("u")
    said = f"the model knows more of them in the Unicode normal form {form}: convert the text with uconv -x any-{form.lower()}"
    for words in (
        ["sample", "u", "--prompt", prompt],
        ["next", "u", prompt],
        ["score", "u", "text.txt"],
        ["evaluate", "u", "text.txt"],
    ):
        code, _, err = run(*words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert said in err
    assert "Unicode normal form" not in run("next", "u", "z")[2]


def test_texts_are_printed_as_their_batches_are_written(run, monkeypatch):
    monkeypatch.setattr(text_model, "BATCH_SIZE", 4)
    expected = {saved: run("sample", saved, "--count", 10, "--length", 20)[1] for saved in ("m", "s")}
    real, batches = generate.generate_texts, []

    def interrupted(*arguments):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(generate, "generate_texts", interrupted)
    for saved, between in (("m", "\n"), ("s", "\n\n")):
        batches.clear()
        code, out, _ = run("sample", saved, "--count", 10, "--length", 20)
        assert code == 130
        assert expected[saved].startswith(out)
        assert out.count(between) >= 7


# Texts that are cut


def test_texts_that_are_cut_are_counted(run, monkeypatch):
    monkeypatch.setitem(request.MAX_LENGTH, "lines", 3)
    rows = [json.loads(line) for line in run("sample", "m", "--count", 40, "--json")[1].splitlines()]
    assert [row["text"] for row in rows] == bptt.load("m").sample(40, length=3)
    assert [row["cut"] for row in rows] == [len(row["text"]) == 3 for row in rows]
    cut = sum(row["cut"] for row in rows)
    assert 1 < cut < 40
    said = f"bptt: {cut} of 40 samples were cut at 3 characters: give --length N for longer ones\n"
    assert run("sample", "m", "--count", 40)[2] == run("sample", "m", "--count", 40, "--json")[2] == said
    assert run("sample", "m", "--count", 40, "--length", 3)[2] == ""
    first = [
        "bptt: the sample was cut at 3 characters: give --length N for longer ones\n" if row["cut"] else "" for row in rows
    ]
    for seed in range(8):
        text = bptt.load("m").sample(length=3, seed=seed)[0]
        assert (run("sample", "m", "--seed", seed)[2] != "") is (len(text) == 3)
    assert run("sample", "m", "--json")[2] == run("sample", "m")[2] == first[0]


def test_a_text_of_a_stream_is_cut_only_where_a_stop_string_was_asked_for(run, monkeypatch):
    monkeypatch.setitem(request.MAX_LENGTH, "stream", 6)
    assert run("sample", "s", "--count", 30)[2] == run("sample", "s")[2] == ""
    rows = [json.loads(line) for line in run("sample", "s", "--count", 30, "--json", "--stop", "a")[1].splitlines()]
    assert [row["cut"] for row in rows] == [len(row["text"]) == 6 for row in rows]
    assert 0 < sum(row["cut"] for row in rows) < 30


def test_a_text_that_ends_with_its_last_character_is_not_cut():
    for ids, newline, stop, expected in [
        ([1, 2, 3], None, [], False),
        ([1, 2, 3], 0, [], True),
        ([1, 2, 0], 0, [], False),
        ([1, 2], 0, [], False),
        ([1, 2, 3], None, [2, 3], False),
        ([1, 2, 3], None, [3, 2], True),
        ([1, 2, 3], 0, [3, 3], True),
    ]:
        assert is_cut(ids, request.StopCriteria(3, newline, np.array(stop, np.int64))) is expected


# next


def test_next_prints_the_probabilities_of_the_next_characters(run):
    m = bptt.load("m")
    for words, keywords in [((), {}), (("an",), {}), (("an", "--temperature", "0.5"), {"temperature": 0.5})]:
        code, out, err = run("next", "m", *words)
        assert (code, err) == (0, "")
        expected = m.next(*words[:1], **keywords)
        heads, *rows = parse_table(out)
        assert heads == ["symbol", "probability", "nats", "bits"]
        assert [literal_eval(row[0]) for row in rows] == [symbol for symbol, _ in expected]
        columns = np.array([list(map(float, row[1:])) for row in rows]).T
        p = np.array([p for _, p in expected])
        np.testing.assert_allclose(columns[0], p, atol=1e-6)
        np.testing.assert_allclose(columns[1:], [-np.log(p), -np.log2(p)], atol=1e-4)
    assert "'\\n'\t" in out
    assert "' '\t" in out
    assert run("next", "m", "an", "--top", 3)[1].splitlines() == run("next", "m", "an")[1].splitlines()[:4]
    assert run("next", "m", "xan", "--unknown", "skip") == run("next", "m", "an")


def test_next_prints_probabilities_of_zero_and_one(run):
    _, first, second = parse_table(run("next", "m", "--temperature", 0, "--top", 2)[1])
    assert (first[1:], second[1:]) == (["1.000000", "0.0000", "0.0000"], ["0.000000", "inf", "inf"])
    rows = [json.loads(line) for line in run("next", "m", "--temperature", 0, "--top", 2, "--json")[1].splitlines()]
    assert [(row["probability"], row["nats"], row["bits"]) for row in rows] == [(1.0, 0.0, 0.0), (0.0, None, None)]


@pytest.mark.parametrize(("columns", "encoding", "full"), [(40, "utf-8", "█"), (300, "utf-8", "█"), (60, "ascii", "#")])
def test_next_draws_bars_on_a_terminal(workdir, monkeypatch, columns, encoding, full):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["next", "m", "an"]) == 0
    head, *lines = terminal.buffer.getvalue().decode(encoding).splitlines()
    assert head.split() == ["symbol", "nats", "bits"]
    p = [p for _, p in bptt.load("m").next("an")]
    assert len(lines) == len(p)
    for share, line in zip(p, lines, strict=True):
        assert line.split(" %")[0].endswith(f" {100 * share:.1f}")
        assert line.split(" %")[1].split()[:2] == [f"{-math.log(share):.2f}", f"{-math.log2(share):.2f}"]
    bars = [line.count(full) for line in lines]
    assert bars == sorted(bars, reverse=True)
    assert max(bars) > bars[-1]
    assert max(map(len, lines)) <= min(columns, 100)


def test_next_prints_json_and_byte_values(run):
    rows = [json.loads(line) for line in run("next", "b", "é", "--json", "--top", 300)[1].splitlines()]
    assert [(row["character"], row["probability"]) for row in rows] == bptt.load("b").next("é")
    out = run("next", "b", "é", "--top", 300)[1]
    assert "\n'\\xe9'\t" in out
    assert "\n'A'\t" in out


# score


def test_score_prints_each_line(run, monkeypatch):
    m = bptt.load("m")
    code, out, err = run("score", "m", "names.txt")
    assert code == 0
    for (nats, mean, bits, text), expected in zip(parse_table(out), ["anna", "bo", "carla"], strict=True):
        assert text == expected
        assert float(nats) == pytest.approx(m.score(text), abs=1e-4)
        assert float(mean) == pytest.approx(m.evaluate(text).nats_per_char, abs=1e-4)
        assert float(bits) == pytest.approx(m.evaluate(text).bits_per_char, abs=1e-4)
    total = m.evaluate(TEXT)
    nats = f"{total.nats:.4f} nats ({total.nats / math.log(2):.4f} bits)"
    each = f"{total.nats_per_char:.4f} nats per character ({total.bits_per_char:.4f} bits)"
    assert err == f"bptt: 3 lines, 14 characters, {nats}, {each}\n"
    set_stdin(monkeypatch, TEXT.encode())
    assert run("score", "m") == (0, out, err)
    set_stdin(monkeypatch, b"bo")
    assert run("score", "m", "-")[1] == out.splitlines()[1] + "\n"


@pytest.mark.parametrize(("run_", "characters_"), [("m", "anna\nbo\ncarla\n"), ("s", "annabocarla")])
def test_score_prints_each_character(run, run_, characters_):
    rows = parse_table(run("score", run_, "names.txt", "--per-char")[1])
    assert "".join(literal_eval(symbol) for *_, symbol in rows) == characters_
    for number, text in enumerate(["anna", "bo", "carla"], 1):
        own = [row for row in rows if int(row[2]) == number]
        assert [int(row[3]) for row in own] == list(range(1, len(own) + 1))
        assert [float(row[1]) for row in own] == pytest.approx([float(row[0]) / math.log(2) for row in own], abs=2e-4)
        assert sum(float(row[0]) for row in own) == pytest.approx(bptt.load(run_).score(text), abs=1e-3)


def test_score_prints_json(run):
    rows = [json.loads(line) for line in run("score", "m", "names.txt", "--json")[1].splitlines()]
    assert [row.keys() for row in rows] == [{"line", "text", "nats", "nats_per_char", "bits_per_char"}] * 3
    assert [(row["line"], row["text"]) for row in rows] == [(1, "anna"), (2, "bo"), (3, "carla")]
    more = [json.loads(line) for line in run("score", "m", "names.txt", "--json", "--per-char")[1].splitlines()]
    for row, each in zip(rows, more, strict=True):
        assert "".join(symbol for symbol, _ in each["each"]) == row["text"] + "\n"
        assert math.fsum(nats for _, nats in each.pop("each")) == row["nats"]
        assert each == row


def test_score_refuses_or_skips_unknown_characters(run):
    Path("some.txt").write_text("bo\n\nx-é\nanna\n")
    code, out, err = run("score", "m", "some.txt")
    assert (code, out) == (2, "")
    assert err.startswith("bptt: line 3: not in the vocabulary: 'x' (U+0078), '-' (U+002D), 'é' (U+00E9): ")
    assert len(err.splitlines()) == 1
    code, out, err = run("score", "m", "some.txt", "--unknown", "skip")
    assert (code, [text for *_, text in parse_table(out)]) == (0, ["bo", "anna"])
    assert err.startswith("bptt: 2 lines, 8 characters, ")


def test_score_takes_any_bytes(run):
    Path("any.bin").write_bytes(b"\xff\r\na\x1b\n")
    assert [text for *_, text in parse_table(run("score", "b", "any.bin")[1].replace("\r", "R"))] == ["\\xffR", "a\x1b"]


def test_score_prints_no_control_characters_to_a_terminal(run, monkeypatch):
    Path("any.bin").write_bytes(b"a\x1b[2J\tb\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("score", "b", "any.bin")[1].endswith("\ta [2J\\tb\n")
    assert "'\\x1b'" in run("score", "b", "any.bin", "--per-char")[1]


def test_score_refuses_input_without_text(run, monkeypatch):
    set_stdin(monkeypatch, b"\n \n")
    expected = "nothing to score: expected lines that are more than white space, of characters that the model knows"
    assert run("score", "m") == (2, "", f"bptt: {expected}\n")


# evaluate


def test_evaluate_prints_the_dynamic_figure_beside_the_static_one(run, workdir, monkeypatch):
    Path("names.txt").write_text(TEXT * 20)
    m, before = bptt.load("m"), {path: path.read_bytes() for path in Path("m").iterdir()}
    static, dynamic = m.evaluate(TEXT * 20), m.evaluate(TEXT * 20, dynamic=True)
    assert dynamic.nats != static.nats
    code, out, err = run("evaluate", "m", "names.txt", "--dynamic")
    assert (code, err) == (0, "")
    sentence, numbers = out.splitlines()
    expected = f"{static.nats_per_char:.4f} nats ({static.bits_per_char:.4f} bits) per character"
    assert sentence == f"dynamic evaluation: {dynamic}; static: {expected}"
    assert {path: path.read_bytes() for path in Path("m").iterdir()} == before
    numbers = json.loads(numbers)
    keys = ["nats_per_char", "bits_per_char", "perplexity", "characters"]
    assert [list(numbers), list(numbers["dynamic"])] == [[*keys, "dynamic"], keys]
    assert numbers["dynamic"] == {name: getattr(dynamic, name) for name in keys}
    del numbers["dynamic"]
    assert numbers == json.loads(run("evaluate", "m", "names.txt")[1].splitlines()[1])
    set_stdin(monkeypatch, (TEXT * 20).encode())
    assert run("evaluate", "m", "-", "--dynamic") == (0, out, "")


@pytest.mark.parametrize(("saved", "symbols"), [("m", "characters"), ("b", "bytes")])
def test_evaluate_explains_its_nats_on_a_terminal(run, monkeypatch, saved, symbols):
    piped = run("evaluate", saved, "names.txt")[1].splitlines()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = run("evaluate", saved, "names.txt")[1].splitlines()
    measured = bptt.load(saved).evaluate(TEXT)
    both = f"{measured.nats_per_char:.4f} nats ({measured.bits_per_char:.4f} bits)"
    assert lines[1] == f"{both}: as unsure as among {measured.perplexity:.1f} equally likely {symbols}"
    assert [lines[0], lines[2]] == piped


def test_evaluate_takes_several_runs_as_an_ensemble(run, monkeypatch):
    make_model(seed=1).save("m2")
    models = [bptt.load("m"), bptt.load("m2")]
    both = bptt.Ensemble(models).evaluate(TEXT)
    code, out, err = run("evaluate", "m", "m2", "--text", "names.txt")
    assert (code, err) == (0, "")
    sentence, numbers = out.splitlines()
    assert sentence == str(both)
    assert json.loads(numbers)["nats_per_char"] == both.nats_per_char
    assert both.nats not in [one.evaluate(TEXT).nats for one in models]
    for words in (["--text", "names.txt", "m", "m2"], ["m", "--text=names.txt", "m2"], ["m2", "m", "--text", "names.txt"]):
        assert run("evaluate", *words) == (0, out, "")
    set_stdin(monkeypatch, TEXT.encode())
    assert run("evaluate", "m", "m2", "--text", "-") == (0, out, "")


def test_evaluate_takes_the_text_of_one_run_with_or_without_its_flag(run):
    expected = run("evaluate", "m", "names.txt")
    assert expected[0] == 0
    assert run("evaluate", "m", "--text", "names.txt") == run("evaluate", "--text", "names.txt", "m") == expected
    assert run("evaluate", "m", "--text", "names.txt", "--dynamic") == run("evaluate", "m", "names.txt", "--dynamic")


@pytest.mark.parametrize("large", [False, True])
def test_evaluate_skips_unknown_characters_and_counts_them(run, monkeypatch, large):
    if large:
        monkeypatch.setattr(loading, "LARGE", 8)
    Path("some.txt").write_text("xannaé\n\nbxo\nx\n", encoding="utf-8")
    Path("plain.txt").write_text("anna\n\nbo\n\n")
    code, _, err = run("evaluate", "m", "some.txt")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.endswith("or train a new model with --vocabulary bytes, or leave them out with --unknown skip\n")
    code, out, err = run("evaluate", "m", "some.txt", "--unknown", "skip")
    left_out = "4 characters that the model lacks are left out: 'x' (U+0078) 3 times, 'é' (U+00E9) once"
    assert (code, err) == (0, f"bptt: 'some.txt': {left_out}\n")
    plain = run("evaluate", "m", "plain.txt")[1].splitlines()
    assert out.splitlines()[0] == plain[0]
    assert json.loads(out.splitlines()[1]) == {**json.loads(plain[1]), "skipped": 4}
    assert run("evaluate", "m", "some.txt", "--unknown", "skip", "--dynamic")[0] == 0
    code, out, err = run("evaluate", "m", "plain.txt", "--unknown", "skip")
    assert (code, err, json.loads(out.splitlines()[1])["skipped"]) == (0, "", 0)
    code, out, err = run("evaluate", "b", "some.txt", "--unknown", "skip")
    assert (code, err, json.loads(out.splitlines()[1])["characters"]) == (0, "", 15)
    Path("foreign.txt").write_text("xyz" * 5)
    code, out, err = run("evaluate", "m", "foreign.txt", "--unknown", "skip")
    assert (code, out) == (2, "")
    assert err.startswith("bptt: 'foreign.txt' holds nothing that the model knows: expected text of at least two different ")
    assert "'' does not exist" in run("evaluate", "m", "")[2]


def test_evaluate_takes_a_text_of_one_character(run):
    Path("one.txt").write_text("a")
    for saved, count in (("m", 2), ("s", 1), ("b", 1)):
        code, out, err = run("evaluate", saved, "one.txt", "--dynamic")
        assert (code, err, json.loads(out.splitlines()[1])["characters"]) == (0, "", count)


# What is common to all


@pytest.mark.parametrize("command", ["sample", "next", "score", "evaluate"])
def test_help_describes_every_flag(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    shown = " ".join(out.replace("│", " ").replace("|", " ").split())
    assert "--no-" not in shown
    assert "{" not in shown
    own = {
        "sample": ["count", "temperature", "top-k", "top-p", "seed", "prompt", "prompt-file", "unknown", "length", "stop"]
        + ["novel", "text", "raw", "json"],
        "next": ["prompt-file", "top", "temperature", "unknown", "json"],
        "score": ["per-char", "unknown", "encoding", "separator", "glob", "json"],
        "evaluate": ["text", "dynamic", "unknown", "encoding", "separator", "glob"],
    }
    for name in [*own[command], "backend", "require-backend", "dtype"]:
        after = shown.split(f"--{name} ", 1)[1].split(" --", 1)[0]
        assert ". " in after or after.endswith("."), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("sample m --top-k 0", "top_k 0: expected a whole number from 1 to 1,000,000,000"),
        ("sample m --top-p 0", "top_p 0.0: expected a number above 0, at most 1"),
        ("sample m --top-p 1.5 --count 3", "top_p 1.5: expected"),
        ("sample m --stop x", "stop 'x': not in the vocabulary"),
        ("sample m --unknown drop", "drop"),
        ("sample m --novel", "--novel: the training text was no file"),
        ("sample m --text names.txt", "--text is for --novel: give both, or neither"),
        ("sample m --raw", "the model writes characters, not bytes: expected one that was trained with the vocabulary bytes"),
        ("sample b --raw --count 2", "--raw writes the bytes of one text: leave out --count, --novel and --json"),
        ("sample b --raw --json", "--raw writes the bytes of one text"),
        ("sample m --novel --text nowhere", "'nowhere' does not exist"),
        ("sample m --prompt a --prompt-file names.txt", "--prompt 'a' and --prompt-file names.txt: give one of the two"),
        (
            "sample m --prompt-file nowhere",
            "--prompt-file nowhere: no such file: expected a file of text, or - for standard input",
        ),
        ("sample m --prompt-file s", "--prompt-file s: is not a regular file"),
        ("next m --prompt-file binary", "--prompt-file binary looks like a binary file, expected UTF-8: byte 0x80 at offset 0"),
        ("next m a --prompt-file names.txt", "PROMPT 'a' and --prompt-file names.txt: give one of the two"),
        ("next m --prompt-file names.txt", "expected the beginning of one line"),
        ("evaluate m names.txt --unknown drop", "drop"),
        ("sample m --prompt xo", "leave them out with --unknown skip"),
        ("next", "RUN"),
        ("next m --top 0", "--top 0: expected a whole number from 1 to 1,000,000,000"),
        ("next m --topp 3", "Did you mean --top?"),
        ("next m a b", "unexpected 'b'"),
        ("next m xo", "not in the vocabulary: 'x' (U+0078)"),
        ("next m --temperature -1", "temperature -1.0: expected"),
        ("next nowhere", "nowhere: no such folder"),
        ("score", "RUN"),
        ("score m nowhere", "'nowhere' does not exist"),
        ("score m s", "'s' is a folder"),
        ("score m names.txt --per-chr", "Did you mean --per-char?"),
        ("score nowhere", "nowhere: no such folder"),
        ("score m binary", "looks like a binary file"),
        ("score m --dtype float16", "float16"),
        ("evaluate m", "TEXT"),
        ("evaluate m names.txt --dynamc", "Did you mean --dynamic?"),
        ("evaluate m nowhere --dynamic", "'nowhere' does not exist"),
        ("evaluate nowhere names.txt --dynamic", "nowhere: no such folder"),
        ("evaluate m empty --dynamic", "'empty' holds nothing"),
        ("evaluate", "RUN"),
        ("evaluate --text names.txt", "RUN"),
        ("evaluate m s", "m s: expected RUN TEXT, RUN and several texts, or several runs and --text TEXT"),
        ("evaluate m m names.txt", "m m names.txt: expected RUN TEXT, RUN and several texts, or several runs and --text TEXT"),
        ("evaluate m names.txt m", "m names.txt m: expected RUN TEXT, RUN and several texts, or several runs and --text TEXT"),
        ("evaluate b names.txt --encoding cp1252", "--encoding cp1252: a model of bytes decodes nothing: leave it out"),
        ("score b names.txt --encoding cp1252", "--encoding cp1252: a model of bytes decodes nothing: leave it out"),
        ("score m names.txt --encoding klingon", "--encoding 'klingon': expected an encoding of texts that Python knows"),
        ("score m names.txt --separator %", "--separator '%' only works with a model of records, not with mode lines"),
        ("evaluate s names.txt --separator %", "--separator '%' only works with a model of records, not with mode stream"),
        ("evaluate m names.txt --text names.txt", "names.txt: is a file, expected a folder"),
        ("evaluate m m --text", "--text"),
        ("evaluate m m --text --dynamic", "--dynamic is in the place of a text: expected a file, - for standard input"),
        ("evaluate m m --txt names.txt", "Did you mean --text?"),
        ("evaluate m nowhere --text names.txt", "nowhere: no such folder"),
        ("evaluate m m --text nowhere", "'nowhere' does not exist"),
        ("evaluate m m --text empty", "'empty' holds nothing"),
        ("evaluate m m --text unknown", "'unknown': not in the vocabulary: 'x' (U+0078), first at line 2, column 1"),
        ("evaluate m m --text names.txt --dynamic", "--dynamic: 2 runs, expected one"),
        ("evaluate m s --text names.txt", "m and s have different modes (lines and stream)"),
        ("evaluate m m b --text names.txt", "m and b have different vocabularies (9 characters and bytes)"),
        ("evaluate m unknown --dynamic", "'unknown': not in the vocabulary: 'x' (U+0078), first at line 2, column 1"),
    ],
)
def test_bad_input_is_a_one_line_error(run, arguments, words):
    for name, raw in {"binary": b"\x80\xff\x81\x01\x02", "empty": b"", "unknown": b"anna\nx\n"}.items():
        Path(name).write_bytes(raw)
    code, out, err = run(*arguments.split())
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("bptt: ")
    assert words in err


@pytest.mark.parametrize("command", ["sample m", "next m", "score m names.txt", "evaluate m names.txt"])
def test_every_command_passes_on_backend_and_dtype(run, monkeypatch, command):
    asked = []

    def load(folder, **flags):
        asked.append(flags)
        return bptt.load(folder)

    for module in (cli.inference, cli.evaluation):
        monkeypatch.setattr(module, "load", load)
    command = command.split()
    assert run(*command, "--backend", "strict", "--device", "CPU_DEVICE", "--dtype", "float32", "--require-backend")[0] == 0
    assert run(*command)[0] == 0
    assert asked == [
        {"backend": "strict", "device": "CPU_DEVICE", "dtype": "float32", "require_backend": True, "cell": None},
        {"backend": "auto", "device": None, "dtype": None, "require_backend": None, "cell": None},
    ]


def process(*arguments, **keywords):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **keywords.pop("env", {})}
    main = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from bptt.cli import main"
    command = [sys.executable, "-c", f"{main}; sys.exit(main())", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **{**pipes, **keywords})


@posix
def test_ctrl_c_ends_a_text_with_a_newline(workdir):
    # unbuffered: what a read has left in a buffer `communicate` would not find
    with process("sample", "s", "--length", 10_000_000, bufsize=0) as running:
        begun = running.stdout.read(50)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, b"bptt: interrupted\n")
    out = begun + out
    assert out.endswith(b"\n")
    assert "".join(bptt.load("s").stream(length=len(out) - 1)) == out[:-1].decode()


@posix
@pytest.mark.parametrize("command", [["sample", "s", "--length", 10_000_000], ["score", "m", "many.txt", "--per-char"]])
def test_a_closed_output_pipe_stops_the_command(workdir, command):
    Path("many.txt").write_text(TEXT * 200_000)
    with process(*command) as running:
        running.stdout.read(50)
        running.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(60)
        running.kill()
        assert (running.returncode, running.stderr.read()) == (0, b"")


def on_terminal(*arguments, env):
    """The exit code of a command, and what it prints on a terminal."""
    import pty  # not on Windows

    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", 0) as shown, process(*arguments, env=env, stdout=end, stderr=end) as running:
        os.close(end)
        out = b""
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while piece := shown.read(1 << 16):
                out += piece
    return running.returncode, out


@posix
def test_a_terminal_gets_its_own_encoding_and_pipes_get_utf8(workdir):
    make_model(vocabulary=characters("日本é")).save("j")
    Path("lines.txt").write_text("日é\n", encoding="utf-8")
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    for command in (["sample", "j", "--prompt", "日"], ["score", "j", "lines.txt"]):
        with process(*command, env=environment) as running:
            out, err = running.communicate(timeout=60)
        assert (running.returncode, b"?" in out + err) == (0, False)
        assert "日" in out.decode()
        code, shown = on_terminal(*command, env=environment)
        assert (code, b"?" in shown, shown.isascii()) == (0, True, True)


@posix
def test_output_is_utf8_in_the_locale_c(workdir):
    make_model(vocabulary=characters("日本é")).save("j")
    with process("next", "j", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, b"")
    assert "'日'\t" in out.decode()
