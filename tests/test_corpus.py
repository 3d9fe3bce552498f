"""Corpus: every source gives its text or one line of complaint, in memory and streamed; cutting and splitting lose nothing."""

import builtins
import hashlib
import io
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bptt.data import corpus, joining, loading, sequences, source, token_store
from bptt.data.sequences import Sequences
from bptt.data.vocabulary import BYTES, characters
from bptt.errors import InputError

quick = settings(deadline=None, max_examples=100)


def generator(seed=0):
    return np.random.default_rng(seed)


def content(read):
    """A text as it was read: str, or bytes where its vocabulary is that of bytes."""
    return read.text if read.vocabulary.symbols else read.ids[1:].tobytes()


def corpus_of(text):
    """The corpus of a str in its own characters, or of bytes."""
    return corpus.from_text(text, BYTES if isinstance(text, bytes) else characters(text))


def set_stdin(monkeypatch, raw):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def stream_everything(monkeypatch, cache, chunk):
    """Treat every file of more than a byte as a large one, and work in tiny chunks."""
    monkeypatch.setenv("BPTT_CACHE", str(cache))
    monkeypatch.setattr(loading, "LARGE", 1)
    monkeypatch.setattr(source, "CHUNK", chunk)
    monkeypatch.setattr(token_store, "CHUNK", chunk)


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
def test_a_file_is_utf8_with_any_line_ends_or_raw_bytes(tmp_path, raw, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.names.txt"
    path.write_bytes(raw)
    for where in (Path(path.name), path.name):
        for vocabulary, expected in [("characters", text), ("bytes", raw)]:
            read = corpus.read(where, vocabulary)
            assert (read.name, read.source, content(read)) == ("some.names", str(path), expected)
            assert read.shown == "'some.names.txt'"


def test_the_source_of_a_file_is_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("emma\nava\n")
    monkeypatch.chdir(tmp_path)
    assert corpus.read("names.txt").source == str(tmp_path / "names.txt")


def test_a_dash_reads_standard_input(monkeypatch):
    set_stdin(monkeypatch, b"emma\r\nava")
    read = corpus.read("-")
    assert (read.name, read.source, content(read)) == ("stdin", "-", "emma\nava")
    set_stdin(monkeypatch, b"emma\r\nava")
    assert content(corpus.read("-", "bytes")) == b"emma\r\nava"


def test_a_str_with_a_newline_is_the_text_itself():
    read = corpus.read("dinosaurs\n")
    assert (read.name, read.source, content(read)) == ("text", "", "dinosaurs\n")
    assert content(corpus.read("é\n😀", "bytes")) == "é\n😀".encode()


@pytest.mark.parametrize("lines", [["emma", "ava"], ("emma\n", "ava\n"), iter(["emma", "ava"]), io.StringIO("emma\nava\n")])
def test_an_iterable_is_read_as_lines(lines):
    read = corpus.read(lines)
    assert (read.name, read.source, content(read)) == ("text", "", "emma\nava")


def test_an_iterable_is_joined_in_chunks(monkeypatch):
    monkeypatch.setattr(joining, "_LINES", 3)
    for count in range(1, 9):
        assert corpus.read(map(str, range(count)), "bytes").text == "\n".join(map(str, range(count)))


def test_a_file_may_have_the_name_of_a_built_in_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dinosaurs").write_text("a file")
    Path("-").write_text("a dash")
    assert corpus.read("./dinosaurs").text == corpus.read(Path("dinosaurs")).text == "a file"
    assert corpus.read("./-").text == corpus.read(Path("-")).text == "a dash"


def test_dinosaurs_are_sorted_lowercase_names():
    names = corpus.read("dinosaurs").text.splitlines()
    assert len(names) >= 1000
    assert names == sorted(set(names))
    assert all(re.fullmatch("[a-z]+", name) for name in names)
    assert "tyrannosaurus" in names


def test_python_help_is_the_same_on_each_call_and_in_each_process():
    help_text = corpus.read("python-help")
    assert (help_text.name, help_text.source) == ("python-help", "python-help")
    assert help_text.sha256 == corpus.read("python-help").sha256
    assert help_text.text.startswith(topics[min(topics)] + "\n\n")
    assert help_text.text.endswith("\n\n" + topics[max(topics)])
    assert len(help_text.text) > 100_000
    assert content(corpus.read("python-help", "bytes")) == help_text.text.encode()


def test_nul_is_an_ordinary_character_in_a_str_and_in_bytes(tmp_path):
    (tmp_path / "raw").write_bytes(b"ab\0")
    assert corpus.read(["ab\0"]).text == "ab\0"
    assert content(corpus.read(tmp_path / "raw", "bytes")) == b"ab\0"


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
@pytest.mark.parametrize("raw", [b"a\n", b"aaa\na\n"])
def test_a_text_of_one_character_can_be_read_but_not_trained_on(tmp_path, monkeypatch, raw, vocabulary):
    path = tmp_path / "same.txt"
    path.write_bytes(raw)
    set_stdin(monkeypatch, raw)
    for where, shown in [(path, repr(str(path))), ("-", "standard input"), (raw.decode(), "the text")]:
        with pytest.raises(InputError) as error:
            corpus.check_learnable(corpus.read(where, vocabulary))
        expected = "expected text of at least two different characters, or a built-in text (dinosaurs, python-help)"
        assert str(error.value) == f"{shown} holds one character only: {expected}"
    corpus.check_learnable(corpus.read("ab\n", vocabulary))
    with pytest.raises(InputError, match="one character"):  # of a vocabulary that knows more
        corpus.check_learnable(corpus.read("aa\n", characters("abc")))


SENTENCE = "the cat sat on the mat\n"
BAD_FILES = {
    "empty": (b"", ["holds nothing: expected text of at least two", "or a built-in text (dinosaurs, python-help)"]),
    "blank": (b" \n\t\r\n", ["nothing but white space"]),
    "only a mark": (b"\xef\xbb\xbf", ["holds nothing"]),
    "latin-1": (
        b"abc\ncaf\xe9 noir",
        ["byte 0xe9 at offset 7, line 2", "encoding='NAME', such as cp1252, cp1250", "or train with vocabulary='bytes'"],
    ),
    "latin-1 with a bell": (
        b"caf\xe9 noir\a " * 9 + 99 * b"caf\xe9 ",
        ["is not UTF-8: byte 0xe9 at offset 3, line 1", "say which encoding it has: encoding='NAME', such as"],
    ),
    "latin-1 with more": (b"caf\xe9 noir\a " * 9, ["looks like a binary file"]),
    "utf-16 with a bell": ((SENTENCE * 9 + "\a").encode("utf-16-le"), ["looks like UTF-16-LE,"]),
    "chinese utf-32-le": (("\u4e2d\u6587 " * 9).encode("utf-32-le"), ["looks like UTF-32-LE,"]),
    "latin-1 after a mark": (b"\xef\xbb\xbfab\xff", ["byte 0xff at offset 5, line 1"]),
    "truncated": (
        "été".encode()[:-1],
        [
            "cut off in the middle of a character: byte 0xc3 at offset 3, line 1",
            "unexpected end",
            "get the whole file, or train with vocabulary='bytes'",
        ],
    ),
    "nul": (
        b"ab\nthe cat\0\xff",
        ["looks like a binary file, expected UTF-8: byte 0x00 at offset 10, line 2: train with vocabulary='bytes'"],
    ),
    "cyrillic utf-16-le": (
        "привет мир".encode("utf-16-le"),
        ["looks like UTF-16-LE,", "0x00 at offset 13", ": give encoding='utf-16-le'"],
    ),
    "cyrillic utf-16-be": (
        "привет мир".encode("utf-16-be"),
        ["looks like UTF-16-BE,", "0x00 at offset 12", ": give encoding='utf-16-be'"],
    ),
    "a program": (b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\x3e\0\1", ["looks like a binary file", "0x00 at offset 7"]),
    "every byte": (bytes(range(256)), ["looks like a binary file", ": train with vocabulary='bytes'"]),
    "one nul": (
        source.dinosaurs().encode() + b"\0",
        ["holds 1 NUL byte, which no text has: byte 0x00 at offset 18143, line 1422: remove it (tr -d '\\0' < OLD > NEW)"],
    ),
    "some nuls": ((SENTENCE * 99).encode() + b"\0\0", ["holds 2 NUL bytes, which", ": remove them (tr -d"]),
    "windows-1252": (
        "“He said so.”\n".encode("cp1252") * 9,
        ["0x93 at offset 0", "it looks like Windows-1252: give encoding='cp1252',"],
    ),
    "gbk": ("举头望明月\n".encode("gbk"), ["encoding='NAME', such as gb18030"]),
    "shift_jis": ("古池や蛙飛び込む水の音\n".encode("shift_jis"), ["shift_jis"]),
    "koi8": ("Привет, как дела\n".encode("koi8-r") * 9, ["such as cp1251 or koi8_r,"]),
    "another nul": (SENTENCE.encode() + b"\0", ["holds 1 NUL byte"]),
    "controls": (b"ab\1\2\3\xff", ["looks like a binary file", "0xff at offset 5", ": train with vocabulary='bytes'"]),
    "surrogate": (b"ab\xed\xa0\x80", ["byte 0xed at offset 2"]),
    "utf-16": (
        SENTENCE.encode("utf-16"),
        ["looks like UTF-16,", "at offset 0, line 1: give encoding='utf-16'"],
    ),
    "utf-32": (SENTENCE.encode("utf-32"), ["looks like UTF-32,", "give encoding='utf-32'"]),
    "utf-16-be marked": (b"\xfe\xff" + SENTENCE.encode("utf-16-be"), ["looks like UTF-16,"]),
    "utf-16-le": (
        SENTENCE.encode("utf-16-le"),
        ["looks like UTF-16-LE,", "byte 0x00 at offset 1", "give encoding='utf-16-le'"],
    ),
    "utf-16-be": (SENTENCE.encode("utf-16-be"), ["looks like UTF-16-BE,"]),
    "utf-32-le": (SENTENCE.encode("utf-32-le"), ["looks like UTF-32-LE,"]),
    "utf-32-be marked": (b"\0\0\xfe\xff" + SENTENCE.encode("utf-32-be"), ["UTF-32,", "at offset 0"]),
    "utf-32-be": (SENTENCE.encode("utf-32-be"), ["looks like UTF-32-BE,"]),
}


def complaint(where, vocabulary="characters"):
    with pytest.raises(InputError) as error:
        corpus.read(where, vocabulary)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(("raw", "expected"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_errors_name_the_bad_file_or_standard_input_and_explain(tmp_path, monkeypatch, raw, expected):
    path = tmp_path / "bad.txt"
    path.write_bytes(raw)
    set_stdin(monkeypatch, raw)
    messages = {repr(str(path)): complaint(path), "standard input": complaint("-")}
    for shown, message in messages.items():
        assert message.startswith(shown)
        for words in expected:
            assert words in message
        assert not ("UTF-16" in message and "vocabulary" in message)
        assert not ("binary" in message and "encoding" in message)


@pytest.mark.parametrize(
    "raw", [raw for raw, _ in BAD_FILES.values() if len(raw) > 1], ids=[k for k, v in BAD_FILES.items() if v[0]]
)
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_a_streamed_bad_file_gives_the_same_error(tmp_path, monkeypatch, raw, chunk):
    path = tmp_path / "bad.txt"
    path.write_bytes(raw)
    expected = complaint(path)
    stream_everything(monkeypatch, tmp_path / "cache", chunk)
    set_stdin(monkeypatch, raw)
    assert complaint(path) == expected
    assert complaint("-") == expected.replace(repr(str(path)), "standard input")
    assert not list((tmp_path / "cache").glob("*"))


@quick
@given(st.binary(max_size=30) | st.text(max_size=30).map(lambda text: text.encode()[:-1]), st.integers(1, 9))
def test_streaming_reads_or_refuses_any_bytes_alike(tmp_path_factory, raw, chunk):
    folder = tmp_path_factory.mktemp("any")
    path = folder / "any.txt"
    path.write_bytes(raw)

    def outcome():
        try:
            return tuple(corpus.read(path).tokens[1:])
        except InputError as error:
            return str(error)

    expected = outcome()
    with pytest.MonkeyPatch.context() as patch:
        stream_everything(patch, folder / "cache", chunk)
        assert outcome() == expected


@pytest.mark.parametrize("raw", [b"", b" \n"])
def test_an_empty_file_of_bytes_is_refused(tmp_path, raw):
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
                "or a text with a newline in it",
            ],
        ),
        ("missing.txt", ["'missing.txt' does not exist: expected a file"]),
        ("folder/verse.tx", ["did you mean 'folder/verse.txt'?"]),
        ("dinosaur", ["did you mean 'dinosaurs'?"]),
        ("nowhere/names.txt", ["'nowhere/names.txt' does not exist:"]),
        ("", ["'' does not exist"]),
        ("folder", ["'folder/verse.txt' holds nothing"]),
        (Path("folder"), ["'folder/verse.txt' holds nothing"]),
        ("empty", ["'empty' holds no files: expected texts in the folder"]),
        ("*.md", ["'*.md' matches no file: expected a file, or a pattern"]),
        ("names.txt/emma", ["'names.txt/emma' cannot be read", "directory"]),
        ("a" * 9000, ["aaa...' cannot be read", "too long", "a newline in it"]),
        ("a\0b", ["'a\\x00b' cannot be read", "null"]),
        ("\ud800", ["'\\ud800' cannot be read"]),
        (Path("two\nlines"), ["'two\\nlines' does not exist"]),
        (" \n", ["the text holds nothing but white space"]),
        ([], ["the text holds nothing"]),
        (["emma", 5], ["line 2 of the text is int, expected str"]),
        (bytearray(b"emma"), ["got bytearray, expected a path, several paths, a text or lines of text, as str"]),
        (
            ["names.txt", "win.txt"],
            ["'names.txt' is a file, and a str of several is a line of text: give files as pathlib.Path(...)"],
        ),
        ([Path("names.txt"), "win.txt"], ["got 'win.txt' among paths, expected a path: give pathlib.Path('win.txt')"]),
        (
            "C:\new\names.txt",
            [r"got 'C:\new\names.txt', which looks like a path with a newline in it: write r'C:\new\names.txt'"],
        ),
        ("./data\names.txt", ["which looks like a path with a newline in it"]),
        (None, ["got NoneType"]),
        (np.array("emma"), ["got ndarray"]),
    ],
)
def test_a_bad_source_is_a_one_line_error(tmp_path, monkeypatch, source, expected):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("emma\nava\n")
    Path("win.txt").touch()
    Path("folder").mkdir()
    Path("folder", "verse.txt").touch()
    Path("empty").mkdir()
    message = complaint(source)
    assert len(message) < 400
    for words in expected:
        assert words in message


def test_a_file_without_read_permission_is_refused(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "secret.txt")

    monkeypatch.setattr(builtins, "open", refuse)
    message = complaint("secret.txt")
    monkeypatch.undo()
    assert "'secret.txt' cannot be read (Permission denied)" in message


def test_a_closed_standard_input_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input cannot be read" in complaint("-")


def test_an_unknown_vocabulary_is_refused():
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
        (" \n  " + "å" * 40 + "\n" + "b" * 40 + "   \n  ", "lines"),
        (("  " + "å" * 40 + "\n" + "b" * 40 + "   ").encode(), "lines"),
        ("  " + "å" * 41 + "\n" + "b" * 40 + "   ", "stream"),
        ("a" * 40 + " \n" + "b" * 40, "stream"),
        ("a" * 40 + "\n " + "b" * 40, "stream"),
    ],
)
def test_choose_mode_distinguishes_lines_and_streams(text, mode):
    assert corpus.choose_mode(corpus_of(text)) == mode


def test_choose_mode_of_the_built_in_texts_and_of_source_code():
    assert corpus.choose_mode(corpus.read("dinosaurs")) == "lines"
    assert corpus.choose_mode(corpus.read("python-help")) == "stream"
    assert corpus.choose_mode(corpus.read(corpus.__file__)) == "stream"


@pytest.mark.parametrize(("name", "mode"), [("dinos", "lines"), ("names", "lines"), ("tinyshakespeare", "stream")])
def test_choose_mode_of_known_files(real_text, name, mode):
    assert corpus.choose_mode(corpus.read(real_text(f"{name}.txt"))) == mode


def full_lines(text):
    """The lines that are not blank, the plain way."""
    if isinstance(text, str):
        return [line for line in text.split("\n") if line.strip()]
    return [line for line in text.split(b"\n") if line.strip()]


def mode_of(text, longest):
    """The rule of `choose_mode`, the plain way."""
    text = text.strip()
    every, full = text.count("\n") + 1, full_lines(text)
    short = sum(map(len, full)) <= longest * len(full) and len(text.split()) <= 4 * len(full)
    return "lines" if len(full) > 1 and every - len(full) <= 0.01 * every and short else "stream"


WORDS = st.lists(
    st.sampled_from(["a", "é", "😀", "aaaa", " ", "\u3000", "\u3022", "\x85", "\x1c", "\n", "\n", "\n"]), max_size=60
).map("".join)


@settings(deadline=None, max_examples=400)
@given(WORDS, st.integers(1, 50))
@example("   aaaa\naaaa   \n", 4)
@example(" \n\n aa\na  \n\n", 2)
@example("aaaa\na", 2)
def test_choose_mode_does_not_depend_on_the_chunk_size(text, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_store, "CHUNK", chunk)
        assert corpus.choose_mode(corpus_of(text)) == mode_of(text, 40)
        assert corpus.choose_mode(corpus_of(text.encode())) == mode_of(text, 40)
        long = text.replace("a", "a" * 20)  # near the border of 40
        assert corpus.choose_mode(corpus_of(long)) == mode_of(long, 40)
        assert corpus.choose_mode(corpus_of(long.encode() + b"\xff\xc3")) == mode_of(long + "\ufffd\ufffd", 40)


TEXT = st.text(st.sampled_from("ab \n\t\r\v\fé"), max_size=40)


@quick
@given(TEXT, st.integers(1, 9))
def test_lines_become_sequences_with_a_newline_at_both_ends(text, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_store, "CHUNK", chunk)
        for known in (characters(text), BYTES):
            decoded = [known.decode(s) for s in corpus.sequences(corpus.from_text(text, known), "lines")]
            assert decoded == [f"\n{line}\n" for line in full_lines(text)]
        raw = text.encode()
        lines = [s.tobytes() for s in corpus.sequences(corpus_of(raw), "lines")]
        assert lines == [b"\n" + line + b"\n" for line in full_lines(raw)]


@quick
@given(TEXT)
def test_a_stream_is_one_sequence_with_every_character_a_target(text):
    for known in (characters(text), BYTES):
        (s,) = corpus.sequences(corpus.from_text(text, known), "stream")
        assert known.decode(s) == "\n" + text


def test_a_line_keeps_its_spaces():
    for text in ("  a b \n \n\nc", b"  a b \n \n\nc"):
        lines = corpus.sequences(corpus_of(text), "lines")
        assert [corpus_of(text).vocabulary.decode(s) for s in lines] == ["\n  a b \n", "\nc\n"]


def test_an_unknown_character_is_located_in_the_text(tmp_path, monkeypatch):
    known = characters("ab ")
    with pytest.raises(InputError) as error:
        corpus.from_text("ab\n\n \nabz\n", known)
    assert "line 4, column 3" in str(error.value)
    assert complaint("ab\n\n \nabz\n", known) == f"the text: {error.value}"
    path = tmp_path / "some.txt"
    path.write_bytes(b"\xef\xbb\xbfab\r\n\r \nabz\n")
    assert complaint(path, known) == f"{str(path)!r}: {error.value}"
    for chunk in (1, 2, 3, 4, 5, 100):
        stream_everything(monkeypatch, tmp_path / "cache", chunk)
        assert complaint(path, known) == f"{str(path)!r}: {error.value}"


def test_a_given_vocabulary_is_used():
    known = characters("abcdé")
    read = corpus.read("abba\n", known)
    assert (read.vocabulary, read.text) == (known, "abba\n")
    assert corpus.read("añ\n", BYTES).vocabulary == BYTES


def test_the_sha256_depends_on_the_text_and_its_vocabulary():
    texts = [
        corpus_of("ab\n"),
        corpus_of("ab\n\n"),
        corpus_of("ab"),
        corpus_of("ba\n"),
        corpus_of("ac\n"),
        corpus.from_text("ab\n", characters("abc")),
        corpus_of(b"ab\n"),
    ]
    assert len({text.sha256 for text in texts}) == len(texts)
    assert corpus_of("ab\n").sha256 == corpus.read("ab\r\n").sha256
    ids = bytes([0, 1, 2, 0, 0])  # between two newlines
    assert corpus_of("ab\n").sha256 == hashlib.sha256(b'["\\n", "a", "b"]\n' + ids).hexdigest()


def test_an_unknown_mode_is_refused():
    with pytest.raises(InputError, match="'line'"):
        corpus.sequences(corpus_of("ab\n"), "line")


# Search


@quick
@given(TEXT, st.lists(TEXT | st.text(st.sampled_from("ab"), min_size=1, max_size=4), max_size=5), st.integers(1, 9))
def test_contains_finds_texts_across_chunk_borders(text, wanted, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_store, "CHUNK", chunk)
        for whole in (corpus_of(text), corpus_of(text.encode())):
            assert whole.contains(wanted, "lines") == {one for one in wanted if one in full_lines(text)}
            assert whole.contains(wanted, "stream") == {one for one in wanted if one in text}


def test_contains_compares_incomplete_utf8_as_it_is_decoded():
    whole = corpus_of(b"ab\nab\xc3")
    for mode in ("lines", "stream"):
        assert whole.contains(["ab\ufffd"], mode) == {"ab\ufffd"}


def test_contains_compares_whole_long_lines():
    whole = corpus_of("a" * 1000 + "\nab\n")
    assert whole.contains(["a" * 999, "a" * 1000, "a" * 1001, "ab", "b", ""], "lines") == {"a" * 1000, "ab"}


# Splits

fractions = st.floats(0, 1, exclude_max=True)
several = st.lists(st.integers(1, 6), max_size=30)


def count_targets(parts):
    return sum(len(s) - 1 for s in parts)


def sequences_of(targets):
    """Sequences of so many targets; each id is its own place."""
    lengths = np.array(targets, np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    return Sequences(np.arange((lengths + 1).sum()), starts, lengths)


@quick
@given(several, fractions, st.integers(0, 99))
def test_a_split_of_lines_keeps_each_line_exactly_once(lengths, fraction, seed):
    whole = sequences_of(lengths)
    training, validation_ids = sequences.split(whole, fraction, generator(seed), "lines")
    names = [[int(s[0]) for s in part] for part in (training, validation_ids)]
    assert sorted(names[0] + names[1]) == whole.starts.tolist()
    assert names == [sorted(part) for part in names]
    assert len(validation_ids) == min(round(fraction * len(whole)), max(0, len(whole) - 1))
    assert count_targets(training) + count_targets(validation_ids) == count_targets(whole)


@quick
@given(st.integers(0, 300), fractions)
def test_the_end_of_a_stream_is_the_validation_set(targets, fraction):
    whole = sequences_of([targets])
    training, validation_ids = sequences.split(whole, fraction, generator(), "stream")
    size = min(round(fraction * targets), targets - 1)
    size = size if size >= 2 else 0
    assert [s.tolist() for s in training] == [list(range(targets - size + 1))]
    assert [s.tolist() for s in validation_ids] == ([list(range(targets - size, targets + 1))] if size else [])
    assert all(s.base is whole.ids for s in [*training, *validation_ids])  # nothing is copied


def test_the_seed_alone_chooses_the_validation_lines():
    whole = sequences_of([1] * 50)

    def validation_ids(seed):
        return [int(s[0]) for s in sequences.split(whole, 0.2, generator(seed), "lines")[1]]

    assert validation_ids(1) == validation_ids(1)
    assert validation_ids(1) != validation_ids(2)
    assert validation_ids(1) == sorted(2 * i for i in generator(1).permutation(50)[:10])


@pytest.mark.parametrize(
    ("targets", "fraction"), [([3] * 10, 0), ([3] * 4, 0.1), ([100], 0), ([10], 0.1), ([2], 0.9), ([0], 0.5)]
)
def test_a_fraction_below_one_sequence_gives_no_validation_set(targets, fraction):
    whole = sequences_of(targets)
    mode = "stream" if len(targets) == 1 else "lines"
    training, validation_ids = sequences.split(whole, fraction, generator(), mode)
    assert len(validation_ids) == 0
    assert [s.tolist() for s in training] == [s.tolist() for s in whole]


@pytest.mark.parametrize("fraction", [-0.1, 1, 5, float("nan")])
def test_an_invalid_validation_fraction_is_refused(fraction):
    with pytest.raises(InputError, match="held-out fraction"):
        sequences.split(sequences_of([9]), fraction, generator(), "stream")
