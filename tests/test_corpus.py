"""Corpus: every source gives its text or one line of complaint; cutting and splitting lose nothing."""

import builtins
import io
import re
import sys
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt.errors import InputError
from bptt.text import corpus
from bptt.text.vocabulary import BYTES, characters

quick = settings(deadline=None, max_examples=100)


def generator(seed=0):
    return np.random.default_rng(seed)


def feed(monkeypatch, raw):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


# Sources


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"emma\nava\n", "emma\nava\n"),
        (b"emma\r\nava\rmia", "emma\nava\nmia"),
        (b"\xef\xbb\xbfemma\n", "emma\n"),
        ("añ\u0301😀".encode(), "añ\u0301😀"),
    ],
)
def test_a_file_is_utf8_with_any_line_ends_or_raw_bytes(tmp_path, raw, text):
    path = tmp_path / "some.names.txt"
    path.write_bytes(raw)
    for source in (path, str(path)):
        assert corpus.read(source) == corpus.Corpus("some.names", text)
        assert corpus.read(source, "bytes") == corpus.Corpus("some.names", raw)


def test_standard_input(monkeypatch):
    feed(monkeypatch, b"emma\r\nava")
    assert corpus.read("-") == corpus.Corpus("stdin", "emma\nava")
    feed(monkeypatch, b"emma\r\nava")
    assert corpus.read("-", "bytes") == corpus.Corpus("stdin", b"emma\r\nava")


def test_a_str_with_a_newline_is_the_text_itself():
    assert corpus.read("dinosaurs\n") == corpus.Corpus("text", "dinosaurs\n")
    assert corpus.read("é\n😀", "bytes") == corpus.Corpus("text", "é\n😀".encode())


@pytest.mark.parametrize("lines", [["emma", "ava"], ("emma\n", "ava\n"), iter(["emma", "ava"]), io.StringIO("emma\nava\n")])
def test_an_iterable_gives_lines(lines):
    assert corpus.read(lines) == corpus.Corpus("text", "emma\nava")


def test_a_file_may_be_called_like_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dinosaurs").write_text("a file")
    Path("-").write_text("a dash")
    assert corpus.read("./dinosaurs").text == corpus.read(Path("dinosaurs")).text == "a file"
    assert corpus.read("./-").text == corpus.read(Path("-")).text == "a dash"


def test_dinosaurs_are_real_lines():
    names = corpus.read("dinosaurs").text.splitlines()
    assert len(names) >= 1000
    assert names == sorted(set(names))
    assert all(re.fullmatch("[a-z]+", name) for name in names)
    assert "tyrannosaurus" in names


def test_python_help_is_the_same_on_each_call_and_in_each_process():
    help_text = corpus.read("python-help")
    assert help_text == corpus.read("python-help")
    assert help_text.text.startswith(topics[min(topics)] + "\n\n")
    assert help_text.text.endswith("\n\n" + topics[max(topics)])
    assert len(help_text.text) > 100_000
    assert corpus.read("python-help", "bytes").text == help_text.text.encode()


def test_nul_is_a_character_like_others_in_a_str_and_in_bytes(tmp_path):
    (tmp_path / "raw").write_bytes(b"ab\0")
    assert corpus.read(["ab\0"]).text == "ab\0"
    assert corpus.read(tmp_path / "raw", "bytes").text == b"ab\0"


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
@pytest.mark.parametrize("raw", [b"a\n", b"aaa\na\n"])
def test_one_character_can_be_read_but_not_learnt(tmp_path, monkeypatch, raw, vocabulary):
    path = tmp_path / "same.txt"
    path.write_bytes(raw)
    feed(monkeypatch, raw)
    for source, shown in [(path, repr(str(path))), ("-", "standard input"), (raw.decode(), "the text")]:
        with pytest.raises(InputError) as error:
            corpus.check_learnable(corpus.read(source, vocabulary))
        expected = "expected text of at least two different characters, or a built-in text (dinosaurs, python-help)"
        assert str(error.value) == f"{shown} holds one character only: {expected}"
    corpus.check_learnable(corpus.read("ab\n", vocabulary))


SENTENCE = "the cat sat on the mat\n"
BAD_FILES = {
    "empty": (b"", ["holds nothing: expected text of at least two", "or a built-in text (dinosaurs, python-help)"]),
    "blank": (b" \n\t\r\n", ["nothing but white space"]),
    "only a mark": (b"\xef\xbb\xbf", ["holds nothing"]),
    "latin-1": (b"abc\ncaf\xe9 noir", ["byte 0xe9 at offset 7, line 2", "iconv", "or train with --vocabulary bytes"]),
    "latin-1 after a mark": (b"\xef\xbb\xbfab\xff", ["byte 0xff at offset 5, line 1"]),
    "truncated": (
        "été".encode()[:-1],
        [
            "cut off in the middle of a character: byte 0xc3 at offset 3, line 1",
            "unexpected end",
            "get the whole file, or train with --vocabulary bytes",
        ],
    ),
    "nul": (
        b"ab\nthe cat\0\xff",
        ["looks like a binary file, expected UTF-8: byte 0x00 at offset 10, line 2: train with --vocabulary bytes"],
    ),
    "cyrillic utf-16-le": (
        "привет мир".encode("utf-16-le"),
        ["looks like UTF-16LE,", "0x00 at offset 13", "iconv -f UTF-16LE -t"],
    ),
    "cyrillic utf-16-be": (
        "привет мир".encode("utf-16-be"),
        ["looks like UTF-16BE,", "0x00 at offset 12", "iconv -f UTF-16BE -t"],
    ),
    "a program": (b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\x3e\0\1", ["looks like a binary file", "0x00 at offset 7"]),
    "every byte": (bytes(range(256)), ["looks like a binary file", ": train with --vocabulary bytes"]),
    "one nul": (corpus.dinosaurs().encode() + b"\0", ["looks like a binary file"]),
    "another nul": (SENTENCE.encode() + b"\0", ["looks like a binary file"]),
    "controls": (b"ab\1\2\3\xff", ["looks like a binary file", "0xff at offset 5", ": train with --vocabulary bytes"]),
    "surrogate": (b"ab\xed\xa0\x80", ["byte 0xed at offset 2"]),
    "utf-16": (
        SENTENCE.encode("utf-16"),
        ["looks like UTF-16,", "at offset 0, line 1", "iconv -f UTF-16 -t UTF-8"],
    ),
    "utf-32": (SENTENCE.encode("utf-32"), ["looks like UTF-32,", "iconv -f UTF-32 -t UTF-8"]),
    "utf-16-be marked": (b"\xfe\xff" + SENTENCE.encode("utf-16-be"), ["looks like UTF-16,"]),
    "utf-16-le": (SENTENCE.encode("utf-16-le"), ["looks like UTF-16LE,", "byte 0x00 at offset 1", "iconv -f UTF-16LE"]),
    "utf-16-be": (SENTENCE.encode("utf-16-be"), ["looks like UTF-16BE,"]),
    "utf-32-le": (SENTENCE.encode("utf-32-le"), ["looks like UTF-32LE,"]),
    "utf-32-be marked": (b"\0\0\xfe\xff" + SENTENCE.encode("utf-32-be"), ["UTF-32,", "at offset 0"]),
    "utf-32-be": (SENTENCE.encode("utf-32-be"), ["looks like UTF-32BE,"]),
}


def complaint(source, vocabulary="characters"):
    with pytest.raises(InputError) as error:
        corpus.read(source, vocabulary)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(("raw", "expected"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_named_and_explained_and_so_is_standard_input(tmp_path, monkeypatch, raw, expected):
    path = tmp_path / "bad.txt"
    path.write_bytes(raw)
    feed(monkeypatch, raw)
    messages = {repr(str(path)): complaint(path), "standard input": complaint("-")}
    for shown, message in messages.items():
        assert message.startswith(shown)
        for words in expected:
            assert words in message
        assert not ("UTF-16" in message and "--vocabulary" in message)
        assert not ("binary" in message and "iconv" in message)


@pytest.mark.parametrize("raw", [b"", b" \n"])
def test_bytes_too_must_hold_something(tmp_path, raw):
    (tmp_path / "bad.txt").write_bytes(raw)
    assert "expected text" in complaint(tmp_path / "bad.txt", "bytes")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "nmaes.txt",
            [
                "'nmaes.txt' does not exist",
                "did you mean 'names.txt'?",
                "- for standard input",
                "dinosaurs, python-help",
                "in Python a text with a newline in it",
            ],
        ),
        ("missing.txt", ["'missing.txt' does not exist: expected a file"]),
        ("folder/verse.tx", ["did you mean 'folder/verse.txt'?"]),
        ("dinosaur", ["did you mean 'dinosaurs'?"]),
        ("nowhere/names.txt", ["'nowhere/names.txt' does not exist:"]),
        ("", ["'' does not exist"]),
        ("folder", ["'folder' is a folder"]),
        (Path("folder"), ["'folder' is a folder"]),
        ("names.txt/emma", ["'names.txt/emma' cannot be read", "directory"]),
        ("a" * 9000, ["aaa...' cannot be read", "too long", "a newline in it"]),
        ("a\0b", ["'a\\x00b' cannot be read", "null"]),
        ("\ud800", ["'\\ud800' cannot be read"]),
        (Path("two\nlines"), ["'two\\nlines' does not exist"]),
        (" \n", ["the text holds nothing but white space"]),
        ([], ["the text holds nothing"]),
        (["emma", 5], ["line 2 of the text is int, expected str"]),
        (b"emma", ["got bytes, expected a path, a text or lines of text, as str"]),
        (None, ["got NoneType"]),
        (np.array("emma"), ["got ndarray"]),
    ],
)
def test_a_bad_source_is_one_line_of_complaint(tmp_path, monkeypatch, source, expected):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("emma\nava\n")
    Path("win.txt").touch()
    Path("folder").mkdir()
    Path("folder", "verse.txt").touch()
    message = complaint(source)
    assert len(message) < 400
    for words in expected:
        assert words in message


def test_a_file_that_may_not_be_read(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "secret.txt")

    monkeypatch.setattr(builtins, "open", refuse)
    message = complaint("secret.txt")
    monkeypatch.undo()
    assert "'secret.txt' cannot be read (Permission denied)" in message


def test_standard_input_that_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input cannot be read" in complaint("-")


def test_an_unknown_vocabulary():
    assert "'words'" in complaint("dinosaurs", "words")


# Modes and sequences


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("emma\nava\n", "lines"),
        ("emma\nava\n\n\n", "lines"),
        ("\n emma stone\nmary ann van dyke\n", "lines"),
        (b"emma\nava\n", "lines"),
        ("å" * 39 + "\nb", "lines"),
        (("å" * 40 + "\nb").encode(), "lines"),
        ("emma\n", "stream"),
        ("emma", "stream"),
        ("emma\n\nava\n", "stream"),
        ("ab\n" * 200 + "\n" + "ab\n", "lines"),
        ("ab\n" * 90 + "\n" + "ab\n", "stream"),
        ("a" * 41 + "\n" + "b" * 41, "stream"),
        ("to be or not\nto be that is\nthe question whether it is", "stream"),
        ("\n", "stream"),
    ],
)
def test_choose_mode(text, mode):
    assert corpus.choose_mode(text) == mode


def test_choose_mode_of_the_built_in_texts_and_of_source_code():
    assert corpus.choose_mode(corpus.read("dinosaurs").text) == "lines"
    assert corpus.choose_mode(corpus.read("python-help").text) == "stream"
    assert corpus.choose_mode(corpus.read(corpus.__file__).text) == "stream"


@pytest.mark.parametrize(("name", "mode"), [("dinos", "lines"), ("names", "lines"), ("tinyshakespeare", "stream")])
def test_choose_mode_of_known_files(real_text, name, mode):
    assert corpus.choose_mode(corpus.read(real_text(f"{name}.txt")).text) == mode


TEXT = st.text(st.sampled_from("ab \n\té"), max_size=40)


@quick
@given(TEXT)
def test_lines_become_sequences_with_a_newline_at_both_ends(text):
    for known in (characters(text), BYTES):
        decoded = [known.decode(s) for s in corpus.sequences(text, known, "lines")]
        assert decoded == [f"\n{line}\n" for line in text.split("\n") if line.strip()]
        assert decoded == [f"\n{line}\n" for line in corpus.lines(text)]
    raw = text.encode()
    assert [s.tobytes() for s in corpus.sequences(raw, BYTES, "lines")] == [b"\n" + line + b"\n" for line in corpus.lines(raw)]


@quick
@given(TEXT)
def test_a_stream_is_one_sequence_with_every_character_a_target(text):
    for known in (characters(text), BYTES):
        (s,) = corpus.sequences(text, known, "stream")
        assert known.decode(s) == "\n" + text


def test_a_line_keeps_its_spaces():
    assert corpus.lines("  a b \n \n\nc") == ["  a b ", "c"]
    assert corpus.lines(b"  a b \n \n\nc") == [b"  a b ", b"c"]


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_an_unknown_character_is_placed_in_the_text_that_was_given(mode):
    with pytest.raises(InputError, match="line 4, column 3"):
        corpus.sequences("ab\n\n \nabz\n", characters("ab "), mode)


def test_an_unknown_mode_is_refused():
    with pytest.raises(InputError, match="'line'"):
        corpus.sequences("ab\n", BYTES, "line")


# Splits

fractions = st.floats(0, 1, exclude_max=True)
several = st.lists(st.integers(1, 6), max_size=30)


def count_targets(parts):
    return sum(len(s) - 1 for s in parts)


@quick
@given(several, fractions, st.integers(0, 99))
def test_a_split_of_lines_loses_and_doubles_nothing(lengths, fraction, seed):
    whole = [np.full(n + 1, i) for i, n in enumerate(lengths)]
    if len(whole) == 1:
        return
    training, held = corpus.split(whole, fraction, generator(seed))
    names = [[int(s[0]) for s in part] for part in (training, held)]
    assert sorted(names[0] + names[1]) == list(range(len(whole)))
    assert names == [sorted(part) for part in names]
    assert len(held) == min(round(fraction * len(whole)), max(0, len(whole) - 1))
    assert count_targets(training) + count_targets(held) == count_targets(whole)


@quick
@given(st.integers(0, 300), fractions, st.integers(0, 99))
def test_a_split_of_a_stream_loses_and_doubles_no_target(targets, fraction, seed):
    whole = np.arange(targets + 1)  # each symbol is its own place
    training, held = corpus.split([whole], fraction, generator(seed))
    found = Counter(int(y) for s in training + held for y in s[1:])
    assert found == Counter(range(1, targets + 1))
    assert len(training) == 1
    assert training[0][0] == 0
    size = min(round(fraction * targets), targets - 1)
    assert count_targets(held) == (size if size >= 2 else 0)
    for s in held:
        assert (np.diff(s) == 1).all()  # one block, and its first input is the true character before it


def test_a_stream_gives_one_of_its_equal_blocks_and_every_one_can_be_it():
    starts = {int(corpus.split([np.arange(101)], 0.1, generator(seed))[1][0][0]) for seed in range(200)}
    assert starts == set(range(0, 100, 10))


def test_lines_are_chosen_at_random_and_by_the_seed_alone():
    whole = [np.array([i, i]) for i in range(50)]

    def held(seed):
        return [int(s[0]) for s in corpus.split(whole, 0.2, generator(seed))[1]]

    assert held(1) == held(1)
    assert held(1) != held(2)


@pytest.mark.parametrize(
    ("targets", "fraction"), [([3] * 10, 0), ([3] * 4, 0.1), ([100], 0), ([10], 0.1), ([2], 0.9), ([0], 0.5)]
)
def test_a_share_too_small_is_not_held_out(targets, fraction):
    whole = [np.arange(n + 1) for n in targets]
    training, held = corpus.split(whole, fraction, generator())
    assert held == []
    assert [s.tolist() for s in training] == [s.tolist() for s in whole]


@pytest.mark.parametrize("fraction", [-0.1, 1, 5, float("nan")])
def test_a_fraction_that_is_none(fraction):
    with pytest.raises(InputError, match="held-out fraction"):
        corpus.split([np.arange(9)], fraction, generator())
