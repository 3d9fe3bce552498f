"""Files that people take for texts, names that are not what they seem, and what the messages about them advise."""

import bz2
import glob
import gzip
import io
import json
import lzma
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bptt
import forging
from bptt import cli, files
from bptt.cli import console
from bptt.cli.parser import app
from bptt.data import compression, corpus, file_lists, loading, token_store
from bptt.data.source import Reading
from bptt.errors import InputError
from bptt.report import page
from runs import bptt_process
from texts import complaint, write

NAMES = "\n".join(a + b + c for a in "abc" for b in "aei" for c in "lmnr") + "\n"
RAW = NAMES.encode()
PROSE = "It was a dark night and nobody was there to see what went on behind the house of the old man."


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))


def train(text, **flags):
    return bptt.train(text, **{"hidden": 4, "steps": 2, "report": None, "backend": "numpy", **flags})


def run(capsys, *words):
    """The exit code of a command, and what it writes on standard error."""
    code = cli.main([str(word) for word in words])
    return code, capsys.readouterr().err


# Compressed files


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": lambda raw: zipped({"a.txt": raw})}


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("zeros", [1, 8, 12, 1 << 15, 1 << 18, (1 << 18) + 5])
def test_zeros_may_follow_what_is_compressed(form, zeros):
    zeros = min(zeros, 1 << 15) if form == "zip" else zeros  # Python looks for its end in 64 kilobytes
    assert corpus.read(write("text", COMPRESS[form](RAW) + bytes(zeros))).text == NAMES


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("zeros", [0, 3, 1 << 15])
def test_other_bytes_may_not_follow_it(form, zeros):
    message = complaint(write("text", COMPRESS[form](RAW) + bytes(zeros) + b"garbage"))
    assert message == "'text' has other bytes behind its compressed ones: was something appended to it?"


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("zeros", [0, 4, 1 << 18])
@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
def test_compressed_files_behind_each_other_are_read_as_one(monkeypatch, form, zeros, piece):
    monkeypatch.setattr(compression, "_INPUT", max(piece, zeros // 1000))
    compress = COMPRESS[form]
    path = write("text", compress(RAW) + bytes(zeros) + compress(b"") + compress(b"last\n"))
    assert corpus.read(path).text == f"{NAMES}last\n"


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])
def test_every_beginning_of_a_compressed_file_is_refused(form):
    packed = COMPRESS[form](RAW)
    for size in range(10, len(packed)):
        assert "cannot be unpacked (Compressed file ended" in complaint(write("text", packed[:size]), "bytes")


HIDDEN = {"__MACOSX/._a.txt": "\0", ".DS_Store": "\0", "texts/.hidden": "b\0", ".git/config": "c\0"}


def test_hidden_members_of_a_zip_file_are_no_texts():
    assert corpus.read(write("text", zipped({"texts/": "", "texts/a.txt": NAMES, **HIDDEN}))).text == NAMES
    assert complaint(write("text", zipped(HIDDEN))) == "'text' holds no files: name a text"


def many(count, field=None, value=None):
    """A ZIP file of so many empty members; a number in the record at its end, at an offset, may be another one."""
    raw = zipped({f"{n:06}": "" for n in range(count)})
    end = raw.rindex(compression.END_OF_ZIP)
    return raw if field is None else raw[: end + field] + value + raw[end + field + len(value) :]


def with_zip64(raw, listed, gap=0):
    """The ZIP file with a record of ZIP64 that claims so many bytes of its list, in place of the usual one."""
    end = raw.rindex(compression.END_OF_ZIP)
    count, size, start = struct.unpack_from("<8x2xHLL", raw, end)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44 + gap, 45, 45, 0, 0, count, count, listed or size, start) + bytes(gap)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    return raw[:end] + record + locator + raw[end : end + 8] + b"\xff" * 12 + raw[end + 20 :]


FULL = "'text' holds thousands of files: unpack it and give the folder"


@pytest.mark.parametrize(
    "raw",
    [
        many(20_000),
        many(20_000, 8, b"\1\0\1\0"),  # claims one member
        many(20_000, 20, b"\3\0") + b"abc",  # a comment
        many(20_000, 18, b"PK\5\6"),  # the mark of the record in the record
        with_zip64(many(20_000), None),
        with_zip64(many(20_000), None, gap=8),
        with_zip64(many(1), 1 << 40),
    ],
    ids=["plain", "claims one", "comment", "mark", "zip64", "zip64 elsewhere", "claims a terabyte"],
)
def test_a_zip_file_of_many_members_is_not_listed(monkeypatch, raw):
    opened, real = [], zipfile.ZipFile

    def counted(file):
        opened.append(len(real(file).infolist()))
        return real(file)

    monkeypatch.setattr(zipfile, "ZipFile", counted)
    message = complaint(write("text", raw))
    assert message == FULL or "File is not a zip file" in message or "Bad offset" in message
    assert not any(count > 1 for count in opened)


def test_a_zip_file_with_records_of_zip64_is_read():
    raw = zipped({"a.txt": NAMES})
    assert corpus.read(write("text", with_zip64(raw, None))).text == NAMES


OTHERS = {
    "gzip in gzip": (gzip.compress(gzip.compress(RAW)), "holds a compressed file in its turn"),
    "xz in a zip": (zipped({"a.xz": lzma.compress(RAW)}), "holds a compressed file in its turn"),
    "lzma": (lzma.compress(RAW, lzma.FORMAT_ALONE), "is compressed by lzma"),
    "lzma with a size": (b"]\0\0\x80\0" + struct.pack("<Q", len(RAW)) + bytes(9), "is compressed by lzma"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40), "is a 7z archive"),
    "rar": (b"Rar!\x1a\x07\1\0" + bytes(40), "is a RAR archive"),
}


@pytest.mark.parametrize(("raw", "expected"), OTHERS.values(), ids=OTHERS.keys())
def test_what_another_program_has_to_unpack_is_named(raw, expected):
    assert complaint(write("text", raw)) == f"'text' {expected}: unpack it, and name the text in it"


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_prompt_is_no_compressed_file(capsys, vocabulary):
    train(NAMES, vocabulary=vocabulary).save("model")
    write("prompt.gz", gzip.compress(b"a"))
    code, message = run(capsys, "sample", "model", "--prompt-file", "prompt.gz")
    assert (code, message) == (2, "bptt: --prompt-file prompt.gz is compressed: unpack it, and name the text in it\n")


# Encodings


def test_a_nul_now_and_then_is_no_sign_of_utf_16():
    for raw in (b"abc\0def\n" * 9, b"one\0two\0three\0four\n" * 9):
        message = complaint(write("text", raw))
        assert "utf-16" not in message.lower()
        assert "NUL bytes, which no text has: byte 0x00 at offset 3, line 1: remove them" in message


@pytest.mark.parametrize("text", [NAMES, "très français, œuvre\n" * 9, "Tiếng Việt được viết\n" * 9, "привет, мир\n" * 9])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_texts_in_wide_characters_are_recognized(text, encoding):
    assert f": give encoding={encoding!r}" in complaint(write("text", text.encode(encoding)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_byte_order_that_is_missing_is_asked_for(encoding):
    raw = NAMES.encode(f"{encoding}-le")
    message = complaint(write("text", raw), reading=Reading(encoding))
    assert f": give encoding='{encoding}-le' or {encoding}-be, or train with" in message


FLAWED = {
    "surrogates": (RAW + b"\xed\xa0\x80\xed\xb0\x80\n", "is UTF-8 but for surrogates, halves of characters as in CESU-8"),
    "one byte": ("größer, später, möglich\n".encode() * 9 + b"\xff\n", "is UTF-8 but for a few bytes"),
}


@pytest.mark.parametrize(("raw", "expected"), FLAWED.values(), ids=FLAWED.keys())
def test_a_text_that_is_utf_8_but_for_a_few_bytes_is_of_no_other_encoding(raw, expected):
    message = complaint(write("text", raw))
    assert message.startswith(f"'text' {expected}: byte 0x")
    assert "encoding=" not in message


def test_no_encoding_is_advised_in_which_a_text_is_no_words():
    raw = bytes(range(0xA0, 0xC0)) * 9 + b"\n"  # symbols in Cyrillic encodings
    assert ": say which encoding it has: encoding='NAME', or " in complaint(write("text", raw))


@pytest.mark.parametrize("name", ["undefined", "idna", "punycode", "charmap", "unicode_escape", "raw-unicode-escape", "UTF-7"])
def test_codecs_that_are_no_encodings_of_files_are_refused(name):
    with pytest.raises(InputError, match=f"encoding '{name}': expected an encoding of texts"):
        train(NAMES, encoding=name)


# Names


def test_a_file_with_a_newline_in_its_name_is_read(capsys):
    write("new\nline.txt", NAMES)
    flags = ("--backend", "numpy", "--hidden", "4", "--steps", "2")
    assert run(capsys, "train", "new\nline.txt", *flags, "--out", "run") == (0, "")
    assert bptt.load("run").record["source"] == os.path.abspath("new\nline.txt")
    assert run(capsys, "train", NAMES, *flags, "--out", "other") == (0, "")
    assert bptt.load("other").record["source"] == ""
    assert run(capsys, "score", "run", "new\nline.txt")[0] == 0


@pytest.mark.parametrize("text", ["new\nline.txt", b"new\nline.txt", b"names.txt", "folder\n"])
def test_a_text_that_is_the_name_of_a_file_is_refused_in_python(text):
    write("new\nline.txt", NAMES)
    write("names.txt", NAMES)
    Path("folder\n").mkdir()
    with pytest.raises(InputError, match=r"which is a text here and the name of a file, too: give a file as pathlib\.Path"):
        train(text)


def iterables():
    names = ["a.txt", "b.txt"]
    return [
        iter(names),
        set(names),
        map(str, names),
        (name for name in names),
        dict.fromkeys(names).keys(),
        glob.iglob("*.txt"),
    ]


@pytest.mark.parametrize("number", range(len(iterables())))
def test_names_of_files_are_no_lines_in_any_iterable(number):
    write("a.txt", NAMES)
    write("b.txt", NAMES)
    assert "is a file, and a str of several is a line of text" in complaint(iterables()[number])


def test_lines_of_a_generator_are_all_read():
    lines = [f"line{number:04}" for number in range(3 * file_lists.SHORT_LIST)]
    write(lines[5], "a line may have the name of a file")
    assert corpus.read(iter(lines)).text == "\n".join(lines)


def test_a_link_that_leads_nowhere_is_said_to_do_so():
    Path("dangling").symlink_to("nowhere")
    Path("danglinb").symlink_to("nowhere")
    for name in ("dangling", Path("dangling")):
        assert "'dangling' does not exist (it is a link to 'nowhere', which leads nowhere): expected" in complaint(name)


def test_the_path_of_a_built_in_text_is_not_suggested_for_itself():
    assert "does not exist (as a path; the built-in text is the str 'dinosaurs'): expected" in complaint([Path("dinosaurs")])
    assert "(did you mean 'dinosaurs'?)" in complaint("dinosaur")


ODD = [
    "esc\x1b]0;owned\x07.txt",
    "r\u202ex.txt",
    os.fsdecode(b"\xff.txt"),
    "new\nline.txt",
    "w" * 250 + ".txt",
    "...",
    "-x.txt",
]


@pytest.mark.parametrize("name", ODD)
def test_the_command_at_the_end_of_a_run_can_be_typed(capsys, name):
    write(name, NAMES)
    write("b.txt", NAMES)
    for texts in ([f"./{name}"], [f"./{name}", "b.txt"]):
        assert cli.main(["train", *texts, "--backend", "numpy", "--hidden", "4", "--steps", "2"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert cli.main(shlex.split(last.removeprefix("more: bptt "))) == 0
        capsys.readouterr()


@pytest.mark.parametrize("name", ["esc\x1bed", "r\u202ex"])
def test_the_run_of_a_folder_has_a_name_that_can_be_typed(name):
    Path(name).mkdir()
    write(f"{name}/a.txt", NAMES)
    write(f"{name}/b.txt", NAMES)
    assert corpus.read(name).name.isprintable()


# Pipes


def pipe(text):
    """The path of a pipe that holds a text, as a shell writes it for <(command), and the number of its file."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    return f"/dev/fd/{reading}", reading


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="a system without /dev/fd")
@pytest.mark.parametrize("others", [[], ["names.txt"]])
@pytest.mark.parametrize("saved", [True, False])
def test_a_run_on_a_pipe_asks_for_its_text(capsys, others, saved):
    write("names.txt", NAMES)
    place, number = pipe(f"{NAMES}last\n")
    flags = ["--backend", "numpy", "--hidden", "4", "--steps", "4", "--stop-after", "2", "--out", "run"]
    assert run(capsys, "train", place, *others, *flags) == (0, "")
    os.close(number)
    if not saved:
        shutil.rmtree("run/checkpoints")
    command = "bptt train TEXT --resume run"
    message = f"bptt: run: the text of this run came from standard input or a pipe: give it again: {command}\n"
    assert run(capsys, "train", "--resume", "run") == (2, message)
    place, number = pipe(f"{NAMES}last\n")
    assert run(capsys, "train", place, *others, "--resume", "run") == (0, "")
    os.close(number)
    assert bptt.load("run").record["text"] == ("pipe-and-1-more" if others else "pipe")


def test_a_file_on_standard_input_is_not_read_again_by_its_path(capsys):
    with write("names.txt", NAMES).open("rb") as file:
        place = f"/dev/fd/{file.fileno()}"
        train(Path(place), out="run", steps=4, stop_after=2)
    assert "the text of this run came from standard input or a pipe" in run(capsys, "train", "--resume", "run")[1]


# Arguments in Python


def test_a_folder_without_a_model_is_named(capsys):
    expected = "is not a model: expected a folder that bptt train or model.save made"
    for use in (lambda: bptt.load("."), lambda: bptt.train(resume="."), lambda: train(NAMES, from_=".")):
        with pytest.raises(bptt.CheckpointError, match=rf"^\.: {expected}$"):
            use()
    Path("empty").mkdir()
    assert run(capsys, "sample", "empty") == (2, f"bptt: empty: {expected}\n")


def test_an_empty_path_is_none():
    uses = {
        "folder": lambda: bptt.load(""),
        "resume": lambda: bptt.train(resume=""),
        "from_": lambda: train(NAMES, from_=""),
        "out": lambda: train(NAMES, out=""),
        "config": lambda: train(NAMES, config=""),
    }
    for name, use in uses.items():
        with pytest.raises(InputError, match=f"^{name} '': expected a path$"):
            use()


@pytest.mark.parametrize("lines", [None, 3, Path("names.txt")])
def test_what_is_no_line_is_refused_by_scores(lines):
    with pytest.raises(InputError, match=rf"got {type(lines).__name__}, expected the text itself"):
        train(NAMES).scores(lines)


@pytest.mark.parametrize("novel", [["names.txt"], 1, None])
def test_what_is_no_path_of_a_text_is_refused(novel):
    with pytest.raises(InputError, match=r"novel .*: expected True, False, or the path of a text"):
        train(NAMES).sample(1, novel=novel)


class BytesPath:
    def __fspath__(self):
        return b"model"


def test_a_path_may_be_bytes():
    train(NAMES).save(BytesPath())
    assert bptt.load(BytesPath()).mode == "lines"


@pytest.mark.parametrize("path", ["a\0b", "\ud800\n"])
def test_a_path_that_no_file_can_have_is_refused_for_a_validation_set(path):
    with pytest.raises(InputError):
        train(NAMES, validation=path)


@pytest.mark.parametrize("exclude", [3, [3], [["abc"]], "abc", {b"abc"}, None])
def test_what_is_no_collection_of_texts_is_refused(exclude):
    with pytest.raises(InputError, match=r"exclude .*: expected a collection of texts, as str, or a function"):
        train(NAMES).sample(1, exclude=exclude)


# Several files


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
@pytest.mark.parametrize("others", [["\n\n\n"], ["\n\n\n", "a"], ["\n \n\né\n\n\n", "\n" * 99 + "b\nc" + "\n" * 99]])
@pytest.mark.parametrize("large", [False, True])
def test_blank_lines_around_one_text_do_not_decide_the_mode_of_all(monkeypatch, vocabulary, others, large):
    if large:
        monkeypatch.setattr(loading, "LARGE", 9)
    monkeypatch.setattr(token_store, "CHUNK", 7)
    for order in (others, others[::-1]):
        files = [write(f"{number}.txt", text) for number, text in enumerate([*order[:1], NAMES, *order[1:]])]
        read = corpus.read(files, vocabulary)
        assert corpus.choose_mode(read) == "lines"
        assert corpus.choose_mode(corpus.read([*files, write("prose.txt", "\n\n".join([PROSE] * 9))], vocabulary)) == "stream"


def forged_run(source, flags=None, **facts):
    """Train on names.txt up to a checkpoint whose record names other texts."""
    train(write("names.txt", NAMES), out="run", steps=4, stop_after=2, **flags or {})
    path = max(Path("run/checkpoints").glob("step-*"))
    config = json.loads((path / "config.json").read_bytes())
    config["record"] |= {"source": source, **facts}
    forging.forge(path, "config.json", files.to_json(config))


def uses():
    """The ways in which a record leads to its texts."""
    return [
        lambda: bptt.train(resume="run", report=None),
        lambda: bptt.load("run").sample(1, novel=True),
        lambda: page.write(bptt.load("run"), Path("run"), None, Path("report.html")),
    ]


def count_opened(monkeypatch):
    """A list that grows with each text that is opened because a record names it."""
    opened, real = [], loading._Opening.opened

    def counted(self, path, *arguments):
        opened.append(path)
        return real(self, path, *arguments)

    monkeypatch.setattr(loading._Opening, "opened", counted)
    return opened


@pytest.mark.parametrize("same", [lambda path: path, os.link, os.symlink], ids=["name", "hard link", "link"])
@pytest.mark.parametrize("use", range(3))
def test_a_record_does_not_make_one_file_be_read_many_times(monkeypatch, same, use):
    write("big.txt", NAMES * 10)
    places = ["big.txt"] * 200
    if same in (os.link, os.symlink):
        places = [f"{number}.txt" for number in range(200)]
        for place in places:
            same("big.txt", place)
    forged_run(places)
    monkeypatch.setattr(loading, "LARGE", 10_000)
    opened = count_opened(monkeypatch)
    with pytest.raises(InputError, match="is recorded several times, and more than 10,000 bytes would be read again: name the"):
        uses()[use]()
    assert len(opened) == 10_000 // len(NAMES * 10) + 2


@pytest.mark.parametrize("use", range(3))
def test_a_record_of_too_many_files_opens_none(monkeypatch, use):
    forged_run(["names.txt"] * (file_lists.MOST_FILES + 1))
    opened = count_opened(monkeypatch)
    with pytest.raises(InputError, match="the text has more than 10,000 files"):
        uses()[use]()
    assert opened == []


def test_a_validation_set_of_too_many_files_opens_none(monkeypatch):
    write("held.txt", "mla\nmel\n")
    places = ["held.txt"] * (file_lists.MOST_FILES + 1)
    forged_run("names.txt", validation={"source": places, "sha256": ""}, flags={"validation": "held.txt"})
    opened = count_opened(monkeypatch)
    with pytest.raises(InputError, match="the text has more than 10,000 files"):
        bptt.train(resume="run", report=None)
    assert opened == ["names.txt"]


def test_the_configuration_of_a_run_does_not_make_one_file_be_read_many_times(monkeypatch):
    train(write("names.txt", NAMES), out="run", steps=4, stop_after=2)
    shutil.rmtree("run/checkpoints")
    config = Path("run/config.toml").read_text()
    monkeypatch.setattr(loading, "LARGE", 10_000)
    for count, expected in ((500, "is recorded several times"), (file_lists.MOST_FILES + 1, "more than 10,000 files")):
        listed = json.dumps(["../names.txt"] * count)
        Path("run/config.toml").write_text(re.sub("^text = .*$", f"text = {listed}", config, flags=re.MULTILINE))
        with pytest.raises(InputError, match=expected):
            bptt.train(resume="run", report=None)


def test_a_user_may_name_a_file_twice_and_resume():
    train([write("names.txt", NAMES)] * 2, out="run", steps=4, stop_after=2)
    assert bptt.train(resume="run", report=None).record["step"] == 4


# What messages advise

BAD = {
    "binary": bytes(range(256)),
    "cp1252": "caf\u00e9, na\u00efve\n".encode("cp1252") * 9,
    "cp1251": "Привет, как дела\n".encode("cp1251") * 9,
    "utf-16": NAMES.encode("utf-16"),
    "utf-16-le": NAMES.encode("utf-16-le"),
    "nul": RAW * 9 + b"\0",
    "truncated": RAW + b"\xc3",
    "record": RAW + b"\x1e",
    "packed": gzip.compress(gzip.compress(RAW)),
    "blank": b" \n",
    "empty": b"",
    "unknown": "\u4e2d\u6587\n".encode() * 9,
    "short": b"a",
    "dangling": None,
    "missing": None,
    "folder": None,
    "m": None,
}
USES = [
    "train {text}",
    "train names.txt --validation {text}",
    "train {text} --encoding ascii",
    "train {text} --mode records",
    "train {text} --separator @@",
    "sample {m} --prompt-file {text}",
    "sample {m} --prompt-file {text} --encoding utf-16",
    "sample {m} --novel --text {text}",
    "sample {m} --novel --text {text} --encoding ascii",
    "next {m} --prompt-file {text}",
    "next {m} --prompt-file {text} --encoding utf-32",
    "score {m} {text}",
    "score {m} {text} --encoding utf-16",
    "evaluate {m} {text}",
    "evaluate {m} {text} --encoding utf-8",
    "report {m} {text}",
    "report {m} {text} --encoding gb18030",
]
ELSEWHERE = (
    r"(train|train a new model) with --[a-z-]+|use bptt train --resume or --from"  # what a message advises for another command
)


CASES = [(use, model) for use in USES for model in ("lines", "records", "bytes") if model == "lines" or "{m}" in use]


@pytest.mark.parametrize(("use", "model"), CASES)
def test_no_message_names_a_flag_that_the_command_lacks(capsys, model, use):
    for name, raw in BAD.items():
        if raw is not None:
            write(name, raw)
    Path("dangling").symlink_to("nowhere")
    Path("folder").mkdir()
    write("folder/binary", BAD["binary"])
    write("names.txt", NAMES)
    vocabulary = "bytes" if model == "bytes" else "characters"
    text, mode = (NAMES.split(), "records") if model == "records" else (NAMES, None)
    train(text, mode=mode, vocabulary=vocabulary).save("m")
    command = use.split()[0]
    flags = {name for argument in app[command].assemble_argument_collection() for name in argument.names}
    refused = 0
    for name in BAD:
        words = use.format(text=name, m="m").split()
        code, message = run(capsys, *words, *(["--steps", "1", "--hidden", "4"] if command == "train" else []))
        refused += code == 2
        assert code in (0, 2), message
        for flag in re.findall(r"--[a-z][a-z-]+", re.sub(ELSEWHERE, "", message)):
            assert flag in flags, message
    assert refused


def test_a_prompt_and_a_novel_text_have_the_encoding_of_the_run(capsys):
    text = NAMES.replace("l", "\u00e9")
    write("names.txt", text.encode("cp1252"))
    train(Path("names.txt"), encoding="cp1252").save("m")
    write("prompt.txt", "a\u00e9".encode("cp1252"))
    write("wide.txt", "a\u00e9".encode("utf-16"))
    write("wide-names.txt", text.encode("utf-16"))
    for words in ("--prompt-file prompt.txt", "--prompt-file wide.txt --encoding utf-16"):
        assert cli.main(["sample", "m", *words.split(), "--length", "1"]) == 0
        assert capsys.readouterr().out.startswith("a\u00e9")
        assert cli.main(["next", "m", *words.split()]) == 0
        capsys.readouterr()
    for words in ("--text names.txt", "--text wide-names.txt --encoding utf-16"):
        assert cli.main(["sample", "m", "--novel", *words.split()]) == 0
    for words in ("names.txt", "wide-names.txt --encoding utf-16"):
        assert cli.main(["report", "m", *words.split(), "--out", "report.html"]) == 0
    for words in ("sample m --encoding utf-8", "next m --encoding utf-8", "report m --encoding utf-8"):
        assert run(capsys, *words.split())[0] == 2


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize(
    ("words", "text", "hint"), [("train", NAMES, True), ("train", "", False), ("train names.txt", NAMES, False)]
)
def test_a_text_on_standard_input_that_is_not_read_is_mentioned(words, text, hint):
    write("names.txt", NAMES)
    flags = ["--steps", "1", "--hidden", "4", "--quiet"]
    with bptt_process(*words.split(), *flags, stdin=subprocess.PIPE) as running:
        running.stdin.write(text)  # which waits in the pipe before the command looks
        running.stdin.close()
        running.stdin = None
        _, err = running.communicate(timeout=60)
    expected = "bptt: standard input is not read: give - to train on it, as in: bptt train - < TEXT\n"
    assert (running.returncode, err) == (0, expected * hint)


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("kind", ["open pipe", "file", "/dev/null", "closed"])
def test_no_text_is_waited_for(monkeypatch, kind):
    reading, writing = os.pipe()
    path = {"file": write("names.txt", NAMES), "/dev/null": "/dev/null"}.get(kind, reading)
    with open(path, closefd=True) as file:
        monkeypatch.setattr(sys, "stdin", None if kind == "closed" else file)
        assert not console.input_waits()
        os.write(writing, b"a")
        assert console.input_waits() == (kind == "open pipe")
    os.close(writing)
