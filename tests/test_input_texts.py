"""Texts as people have them: several files, folders, patterns, compressed files, records, encodings."""

import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import resource
import sys
import tarfile
import zipfile
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bptt
import forging
from bptt import cli, files
from bptt.config import toml
from bptt.config.settings import Settings
from bptt.data import compression, corpus, dataset, file_lists, joining, loading, token_store
from bptt.data.source import Names, Reading, Section
from bptt.data.vocabulary import RECORD, characters
from bptt.display import plots
from bptt.errors import InputError, TrainingWarning
from bptt.report import page
from bptt.training import memory_estimate
from bptt.training.setup import from_scratch
from texts import complaint, write

quick = settings(deadline=None, max_examples=100)
PROSE = "It was a dark night and nobody was there to see what went on behind the house of the old man.\n"
NAMES = "\n".join(a + b + c for a in "abc" for b in "aei" for c in "lmnr") + "\n"
POEMS = "\n---\n".join(f"roses are red\nviolets are {word}" for word in ("blue", "new", "true", "few", "due", "grey")) + "\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))


def prepare(text, **flags):
    return dataset.prepare(text, Settings(**flags), np.random.default_rng(0))


def decoded(data, part):
    return [data.vocabulary.decode(sequence) for sequence in part]


def train(text, **flags):
    return bptt.train(text, **{"hidden": 4, "steps": 2, "report": None, "backend": "numpy", **flags})


# Compressed files


def zipped(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


PACKED = {
    "gz": gzip.compress(NAMES.encode()),
    "bz2": bz2.compress(NAMES.encode()),
    "xz": lzma.compress(NAMES.encode()),
    "zip": zipped({"names.txt": NAMES}),
    "zip with a folder": zipped({"texts/": "", "texts/names.txt": NAMES}),
}


@pytest.mark.parametrize("raw", PACKED.values(), ids=PACKED.keys())
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_compressed_text_is_read_as_what_it_holds(monkeypatch, raw, large, vocabulary):
    if large:
        monkeypatch.setattr(loading, "LARGE", 9)
    path = write("anything", raw)  # the content tells, not the name
    read, plain = corpus.read(path, vocabulary), corpus.read(write("names.txt", NAMES), vocabulary)
    assert read.text == NAMES
    assert (read.sha256, read.size) == (plain.sha256, len(raw))
    assert read.files["unpacked"] == [len(NAMES)]
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert corpus.read("-", vocabulary).text == NAMES


@pytest.mark.parametrize("suffix", ["txt.gz", "txt.bz2", "txt.xz", "txt.zip", "gz"])
def test_a_run_is_named_by_the_text_in_a_compressed_file(suffix):
    assert corpus.read(write(f"names.{suffix}", PACKED[suffix.rpartition(".")[2]])).name == "names"


def patched(raw, **fields):
    """A zip file with other numbers in the headers of its member; each field is at one offset here and at another there."""
    offsets = {"version": (4, 6), "flags": (6, 8), "method": (8, 10)}
    data, directory = bytearray(raw), raw.index(b"PK\x01\x02")
    for name, value in fields.items():
        for begin, offset in zip((0, directory), offsets[name]):
            data[begin + offset : begin + offset + 2] = value.to_bytes(2, "little")
    return bytes(data)


def tarred(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return file.getvalue()


INCOMPLETE = "is compressed and cannot be unpacked ({}): is it complete?"
UNSUPPORTED = "uses a compression method that Python cannot unpack: unpack it, and name its file"
UNUSABLE = {
    "half a gz": (PACKED["gz"][:-9], INCOMPLETE.format("Compressed file ended before the end-of-stream marker was reached")),
    "half an xz": (PACKED["xz"][:-9], INCOMPLETE.format("Compressed file ended before the end-of-stream marker was reached")),
    "half a bz2": (PACKED["bz2"][:-9], INCOMPLETE.format("Compressed file ended before the end-of-stream marker was reached")),
    "half a zip": (PACKED["zip"][:-9], INCOMPLETE.format("File is not a zip file")),
    "zip of two": (zipped({"a.txt": "a\nb\n", "b.txt": "c\n"}), "holds 2 files: unpack it and give the folder"),
    "zip of folders": (zipped({"a/": "", "b/": ""}), "holds no files: name a text"),
    "Word": (
        zipped({"[Content_Types].xml": "<a/>", "word/document.xml": "<a/>"}),
        "is a Word document: save it as plain text first, and name that file",
    ),
    "encrypted zip": (patched(PACKED["zip"], flags=1), "is encrypted: unpack it, and name its file"),
    "strong encryption": (patched(PACKED["zip"], flags=0x40), UNSUPPORTED),
    "patched data": (patched(PACKED["zip"], flags=0x20), UNSUPPORTED),
    "Deflate64": (patched(PACKED["zip"], method=9), UNSUPPORTED),
    "zip 9.9": (patched(PACKED["zip"], version=99), UNSUPPORTED),
    "tgz": (tarred({"a.txt": NAMES}), "is a tar archive: unpack it and give the folder"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\n", "is a PDF: extract its text first, as with pdftotext, and name that file"),
    "doc": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99),
        "is a document of Microsoft Office: save it as plain text first, and name that file",
    ),
}


@pytest.mark.parametrize(("raw", "expected"), UNUSABLE.values(), ids=UNUSABLE.keys())
@pytest.mark.parametrize("memory", [loading.LARGE, 9])
def test_a_compressed_file_that_cannot_be_used_is_refused(monkeypatch, raw, expected, memory):
    monkeypatch.setattr(loading, "LARGE", memory)
    assert complaint(write("text", raw)) == f"'text' {expected}"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            PACKED["gz"][:40] + b"????" + PACKED["gz"][44:],
            "'text' is compressed and cannot be unpacked (Error -3 while decompressing data: ",
        ),
        (
            zipped({}),
            "'text' holds no files: name a text",
        ),
        (gzip.compress(b"\xff\xfe\xfd" * 9), "'text' is not UTF-8: byte 0xff at offset 0"),
    ],
    ids=["checksum", "empty zip", "no UTF-8"],
)
def test_what_is_packed_but_no_text_is_refused(raw, expected):
    assert complaint(write("text", raw)).startswith(expected)


def test_zstd_is_unpacked_by_a_python_that_can(monkeypatch):
    path, loaded = write("text", b"\x28\xb5\x2f\xfd" + NAMES.encode()), []

    class ZstdError(Exception):
        pass

    def reader(file):
        loaded.append(file.read(4))
        return file

    monkeypatch.setattr(compression, "_zstd", lambda: None)
    assert complaint(path) == "'text' is compressed by zstd, which Python has since 3.14: unpack it (zstd -d)"
    monkeypatch.setattr(compression, "_zstd", lambda: SimpleNamespace(open=reader, ZstdError=ZstdError))
    assert corpus.read(path).text == NAMES
    assert loaded == [b"\x28\xb5\x2f\xfd"]

    def broken(file):
        raise ZstdError("bad block")

    monkeypatch.setattr(compression, "_zstd", lambda: SimpleNamespace(open=broken, ZstdError=ZstdError))
    assert complaint(path) == "'text' is compressed and cannot be unpacked (bad block): is it complete?"


def test_a_file_of_macos_beside_the_text_in_a_zip_is_ignored():
    path = write("names.zip", zipped({"names.txt": NAMES, "__MACOSX/._names.txt": "\0\5\x16\7"}))
    assert corpus.read(path).text == NAMES


def test_a_full_disk_is_what_the_message_names(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loading, "LARGE", 9)
    monkeypatch.setattr(token_store, "temporary_file", full)
    message = complaint(write("names.gz", PACKED["gz"]))
    assert re.fullmatch(
        r"'names.gz': 10 bytes cannot be written into '.*' \(No space left on device\): set BPTT_CACHE to a .*", message
    )


@pytest.mark.parametrize("form", ["gz", "bz2", "xz", "zip", "lzma in a zip", "bz2 in a zip"])
def test_mutated_archives_are_read_or_refused_in_one_line(form):
    raw = PACKED.get(form)
    if raw is None:
        method = zipfile.ZIP_LZMA if form.startswith("lzma") else zipfile.ZIP_BZIP2
        raw = zipped({"names.txt": NAMES}, method)
    rng, refused = np.random.default_rng(0), []
    for _ in range(300):
        data = bytearray(raw)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        if rng.random() < 0.2:
            del data[int(rng.integers(len(data))) :]
        try:
            corpus.read(write("text", bytes(data)), "bytes")
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert not any("\n" in message for message in refused)


def test_a_text_that_begins_like_a_format_is_not_taken_for_it():
    for text in ("BZh9 is how a bzip2 file begins\nand this one does, too\n", "PK\nPKs\n"):
        assert corpus.read(write("text", text)).text == text


def test_unpacking_stops_at_the_recorded_size(monkeypatch):
    """A file that somebody sends with a model may unpack to any size; the record says to which."""
    monkeypatch.setattr(loading, "LARGE", 1000)
    monkeypatch.setattr(loading, "CHUNK", 1000)
    path = write("names.gz", PACKED["gz"])
    model = train(str(path), out="run", steps=4, stop_after=2)
    assert model.record["files"]["unpacked"] == [len(NAMES)]
    bomb = gzip.compress(b"ab\n" * 10**6)
    path.write_bytes(bomb)
    record = Path("run/checkpoints/step-00000002/config.json")
    sizes = [b'"bytes": %d' % len(raw) for raw in (PACKED["gz"], bomb)]
    forging.forge(record.parent, record.name, record.read_bytes().replace(*sizes))
    copied = []

    class Watched(io.BytesIO):
        def close(self):
            copied.append(len(self.getvalue()))
            super().close()

    monkeypatch.setattr(token_store, "temporary_file", Watched)
    with pytest.raises(InputError, match=r"its text '.*names\.gz' has changed: it holds 1,001 bytes now, 144 before"):
        bptt.train(resume="run", report=None)
    assert copied
    assert max(copied) <= len(NAMES) + 2 * 1001


def record_of(run):
    """The record of the last checkpoint of a run, and a function that writes another one in its place."""
    path = max(Path(run, "checkpoints").glob("step-*"))
    config = json.loads((path / "config.json").read_bytes())
    return config["record"], lambda: forging.forge(path, "config.json", files.to_json(config))


@pytest.mark.parametrize("claimed", [None, 3 * 10**6, "not recorded"])
def test_a_record_alone_makes_no_text_unpack_to_any_size(monkeypatch, claimed):
    """A stranger sends a run with its text, and writes what he likes into its record."""
    monkeypatch.setattr(loading, "LARGE", 1000)
    path, bomb = write("names.gz", PACKED["gz"]), gzip.compress(b"ab\n" * 10**6)
    train(path, out="run", steps=4, stop_after=2)
    path.write_bytes(bomb)
    record, forge = record_of("run")
    record |= {"bytes": len(bomb), "files": {"bytes": [len(bomb)], "unpacked": [claimed], "sha256": [""]}}
    if claimed == "not recorded":
        del record["files"], record["bytes"]
    forge()
    copied, copy = [], loading._Opening.write

    def counted(*arguments):
        copied.append(copy(*arguments))
        return copied[-1]

    monkeypatch.setattr(loading, "CHUNK", 1000)
    monkeypatch.setattr(loading._Opening, "write", counted)
    expected = "it is compressed now, and was not before" if claimed is None else "unpacks to more than 100 times its size"
    for use in (lambda: bptt.train(resume="run", report=None), lambda: bptt.load("run").sample(1, novel=True)):
        with pytest.raises(InputError, match=rf"names\.gz' .*{expected}") as error:
            use()
        assert len(str(error.value).splitlines()) == 1
    if claimed != "not recorded":
        assert copied == []
    assert sum(copied) <= 2 * (100 * len(bomb) + 2000)
    text = "" if claimed is None else bptt.train("names.gz", resume="run", changed_text=True, report=None)  # a user names it
    assert text == "" or text.record["files"]["unpacked"] == [3 * 10**6]


def test_two_readers_of_one_file_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setattr("bptt.data.source.CHUNK", 2)
    file = io.BytesIO(b"-abcde12345-")
    first, second = Section(file, 1, 5).pieces(), Section(file, 6, 5).pieces()
    assert list(zip(first, second)) == [(b"ab", b"12"), (b"cd", b"34"), (b"e", b"5")]


def test_many_compressed_files_need_few_open_files(monkeypatch):
    """What does not fit into memory is copied behind each other."""
    monkeypatch.setattr(loading, "LARGE", 100)
    lines = [f"name{n:03}\n" * 20 for n in range(300)]
    for n, text in enumerate(lines):
        write(f"t/{n:03}.gz", gzip.compress(text.encode()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 30, hard))
    try:
        data = corpus.read("t")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert data.text == "".join(lines)
    assert data.files["unpacked"] == [len(text) for text in lines]


def test_a_validation_set_may_be_compressed():
    write("names.txt", NAMES)
    write("held.gz", gzip.compress(b"mla\nmel\n"))
    model = train("names.txt", validation="held.gz", out="run", steps=4, stop_after=2)
    assert model.record["validation"]["unpacked"] == 8
    packed = gzip.compress(b"mla\nmel\nmer\n")
    write("held.gz", packed)
    record = Path("run/checkpoints/step-00000002/config.json")
    size = b'"bytes": %d' % model.record["validation"]["bytes"]
    forging.forge(record.parent, record.name, record.read_bytes().replace(size, b'"bytes": %d' % len(packed)))
    with pytest.raises(InputError, match=r"validation set '.*held\.gz' has changed: it holds 12 bytes now, 8 before"):
        bptt.train(resume="run", report=None)


# Several texts


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("end", ["", "\n"])
def test_the_border_of_two_files_is_a_border_of_texts(monkeypatch, large, end):
    if large:
        monkeypatch.setattr(loading, "LARGE", 9)
    first, second = write("a.txt", NAMES.rstrip("\n") + end), write("b.txt", "zora\nzoe\n")
    data = prepare([first, second], validation=0.0)
    assert data.mode == "lines"
    assert decoded(data, data.training) == [f"\n{line}\n" for line in (NAMES + "zora\nzoe").split("\n")]
    first, second = write("a.txt", PROSE * 3 + "The end." + end), write("b.txt", "Another story." + end)
    data = prepare([first, second], validation=0.0)
    assert data.mode == "stream"
    assert decoded(data, data.training) == [f"\n{PROSE * 3}The end.\n", "\nAnother story." + end]
    assert data.source == [str(first.absolute()), str(second.absolute())]


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_the_end_of_each_file_is_held_out_of_a_stream(vocabulary):
    paths = [write(f"{n}.txt", PROSE * n) for n in (3, 5)]
    data = prepare(paths, vocabulary=vocabulary, validation=0.1, mode="stream")
    sizes = [len(PROSE) * n for n in (3, 5)]
    assert data.validation.lengths.tolist() == [round(0.1 * size) for size in sizes]
    assert (data.training.lengths + data.validation.lengths).tolist() == sizes
    for part, other, n in zip(decoded(data, data.training), decoded(data, data.validation), (3, 5)):
        assert part[1:] + other[1:] == PROSE * n  # the input before is the last character that is trained on


def test_a_folder_is_read_in_the_order_of_its_paths():
    for path in ("t/b.py", "t/a.py", "t/deep/c.py", "t/deep/d.txt", "t/.hidden", "t/.git/e.py"):
        write(path, f"print('{path}')\n" + PROSE)
    write("t/empty.py", "")
    os.symlink("/dev/zero", "t/zero.py")  # not a regular file
    os.symlink(os.curdir, "t/loop")

    def read(*source, pattern="*"):
        return [Path(path).as_posix() for path in corpus.read(*source, reading=Reading(pattern=pattern)).source]

    here = Path.cwd().as_posix()
    files = [f"{here}/t/{name}" for name in ("a.py", "b.py", "deep/c.py", "deep/d.txt", "empty.py")]
    assert read("t") == read(Path("t")) == read(Names(("t",))) == files
    python = [files[0], files[1], files[2], files[4]]
    assert read("t", pattern="*.py") == python
    assert read("t", pattern="deep/*") == files[2:4]
    assert read("t/*.py") == [files[0], files[1], files[4]]
    assert read(Names(("t/deep", "t/a.py"))) == [files[2], files[3], files[0]]
    assert corpus.read("t").name == "t"
    assert corpus.read(Path("t/../t")).name == "t"
    assert corpus.read([Path("t/b.py"), Path("t/a.py"), Path("t/deep")]).name == "b-and-3-more"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("-", "a.txt"), "standard input (-) is a text alone: leave out the others, or give all of them as files"),
        (("a.txt", "missing.txt"), "'missing.txt' does not exist"),
        (("a.txt", "b*.md"), "'b*.md' matches no file: expected a file, or a pattern such as 'texts/*.txt'"),
        (("blank.txt", "empty.txt"), "the text (2 files) holds nothing but white space"),
        (("a.txt", "binary"), "'binary' looks like a binary file"),
        (("folder",), "'folder/binary' looks like a binary file, expected UTF-8: byte 0x00 at offset 0, line 1: train with "),
        (("folder",), "or choose files by a pattern such as 'texts/*.txt'"),
        (
            ("run",),
            "'run' is a folder of a run or a model, expected texts: to train it further, use resume or from_",
        ),
    ],
)
def test_texts_that_cannot_be_read_together_are_refused(names, expected):
    write("a.txt", NAMES)
    write("blank.txt", " \n")
    write("empty.txt", "")
    write("binary", bytes(99))
    write("folder/binary", bytes(99))
    write("run/manifest.json", "{}")
    write("run/model.safetensors", "")
    assert expected in complaint(Names(names))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", "a.py a.txt b/a.py b/c/d.py b/e.txt"),
        ("*.py", "a.py b/a.py b/c/d.py"),
        ("/*.py", "a.py"),
        ("./*.py", "a.py"),
        ("**/*.py", "a.py b/a.py b/c/d.py"),
        ("**/**/*.py", "a.py b/a.py b/c/d.py"),
        ("b/*", "b/a.py b/e.txt"),
        ("b/", "b/a.py b/c/d.py b/e.txt"),
        ("b/**", "b/a.py b/c/d.py b/e.txt"),
        ("b/**/*.py", "b/a.py b/c/d.py"),
        ("*/*.py", "b/a.py"),
        ("**/c/*", "b/c/d.py"),
        ("[ab].*", "a.py a.txt b/a.py"),
        ("?.txt", "a.txt b/e.txt"),
        ("A.*", ""),
        (".*", ".hidden"),
        (".git/*", ".git/f.py"),
        ("**/.*/*", ".git/f.py"),
        ("**", "a.py a.txt b/a.py b/c/d.py b/e.txt"),
        ("**.py", "a.py b/a.py b/c/d.py"),
    ],
)
def test_a_pattern_means_one_thing(pattern, expected):
    r"""As in pathlib and in .gitignore: * stays within a name, **/ is any number of folders."""
    for path in ("a.py", "a.txt", "b/a.py", "b/c/d.py", "b/e.txt", ".hidden", ".git/f.py"):
        write(f"t/{path}", PROSE)
    os.symlink("..", "t/b/loop")
    listed = file_lists._matching("t", file_lists._components(pattern if "/" in pattern else f"**/{pattern}"))
    assert sorted({Path(path).relative_to("t").as_posix() for path in listed}) == expected.split()
    if expected and "/" in pattern.strip("/"):  # the same in the place of a text
        assert file_lists.expand(f"t/{pattern.removeprefix('./')}", "*") == [str(Path("t", path)) for path in expected.split()]


def test_a_pattern_of_texts_may_name_folders_in_folders():
    for path in ("texts/a.txt", "texts/b/c.txt", "texts/b/d/e.txt", "f.txt"):
        write(path, PROSE)
    assert file_lists.expand("texts/**/*.txt", "*") == ["texts/a.txt", "texts/b/c.txt", "texts/b/d/e.txt"]
    assert file_lists.expand("*/*.txt", "*") == ["texts/a.txt"]
    assert file_lists.expand("*.txt", "*") == ["f.txt"]
    absolute = os.path.abspath("texts")
    assert file_lists.expand(f"{absolute}/*/*.txt", "*") == [f"{absolute}/b/c.txt"]


def test_runs_in_a_folder_of_texts_are_no_texts():
    write("a.txt", NAMES)
    first = train(".", glob="*.txt", out="runs/a", steps=2)
    first.save("model.txt")
    assert Path("runs/a/samples.txt").exists()
    again = train(".", glob="*.txt", out="runs/b", steps=2)
    assert again.record["source"] == first.record["source"] == str(Path("a.txt").absolute())
    assert file_lists.expand("**/*.txt", "*") == ["a.txt"]
    for name in ("manifest.json", "checkpoints/a.txt", "config.toml.txt"):  # of a program, say, and of no run
        write(f"web/{name}", "[1,\n2]\n")
    assert len(corpus.read("web").source) == 3


def test_too_many_files_are_refused(monkeypatch):
    for n in range(4):
        write(f"t/{n}", "abc\n")
    monkeypatch.setattr("bptt.data.file_lists.MOST_FILES", 3)
    assert (
        complaint("t")
        == "'t' holds more than 3 files: choose some by a pattern such as 'texts/*.txt', or join them into one text"
    )


@pytest.mark.endurance
def test_a_run_of_the_most_files_is_loaded_resumed_and_repeated():
    """What a run may write has to be read again, with long names of letters that JSON writes in twelve characters."""
    names = [f"t/{n:04}{chr(0x1F4A9) * 9}{'x' * 80}" for n in range(file_lists.MOST_FILES)]
    Path("t").mkdir()
    for n, name in enumerate(names):
        Path(name).write_text(f"ab\n{'cd'[n % 2]}\n")
    done = train("t", out="run", steps=2, mode="lines", validation=0.0)
    assert len(bptt.load("run").record["source"]) == len(names)
    again = bptt.train(config="run/config.toml", report=None)
    assert np.array_equal(again.params.Wya, done.params.Wya)
    assert bptt.train(resume="run", steps=3, report=None).record["step"] == 3
    Path("run/checkpoints").rename("gone")  # as if the run had been killed before its first checkpoint
    assert bptt.train(resume="run", steps=3, report=None).record["step"] == 3


@pytest.mark.parametrize("limit", [("bptt.data.file_lists.MOST_FILES", 4), ("bptt.data.file_lists.MOST_CHARACTERS", 200)])
def test_the_names_of_files_are_counted_over_all_texts(monkeypatch, limit):
    paths = [write(f"{folder}/{n}.txt", NAMES) for folder in "ab" for n in range(3)]
    monkeypatch.setattr(*limit)
    Path("bptt.toml").write_text('text = ["a", "b"]\n')
    for source in (Names(("a", "b")), Names(tuple(map(str, paths))), paths, toml.read(Path("bptt.toml"))["text"]):
        message = complaint(source)
        assert re.fullmatch(r"the text has more than .* files, or their names more than .* characters: choose some .*", message)


def test_a_separator_that_no_file_could_hold_is_refused_at_once():
    text = "ab\ncd\n" + "%" * 70_000 + "ef\n"
    with pytest.raises(InputError, match=r"could not be read again: has [\d,]+ characters .*: shorten --separator"):
        train(write("t", text), separator="%" * 70_000, out="run")
    assert not Path("run").exists()


def test_the_checksum_says_where_texts_end():
    one, two = corpus.read([write("a", "ab\nc\n"), write("b", "d\n")]), corpus.read([write("c", "ab\n"), write("d", "c\nd\n")])
    assert one.text == two.text
    assert one.sha256 != two.sha256
    assert corpus.read(write("e", "ab\nc\nd\n")).sha256 != one.sha256


def test_the_checksum_of_a_file_is_that_of_other_tools():
    """So a user can find out which file has changed; a boundary that is added is no part of it."""
    texts = [PROSE.rstrip("\n"), "\ufeffa\r\nb", NAMES]
    paths = [write(f"{n}", text) for n, text in enumerate(texts)]
    paths[2] = write("2.gz", gzip.compress(texts[2].encode()))
    expected = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    for vocabulary in ("characters", "bytes"):
        assert corpus.read(paths, vocabulary).files["raw_sha256"] == expected
    assert corpus.read(["x\ny", "z"]).files is None  # given in Python: there is nothing to compare with


@pytest.mark.parametrize("other", [{"sha256": ["0" * 64] * 2}, {"raw_sha256": ["0" * 64] * 2}, {"raw_sha256": 5}, {}])
def test_a_run_with_other_checksums_of_its_files_is_resumed(other):
    """They were those of the joined text once; that of all of it decides."""
    write("t/a.txt", PROSE * 9)
    write("t/b.txt", PROSE.swapcase() * 5)
    train("t", out="run", steps=4, stop_after=2)
    record, forge = record_of("run")
    record["files"] = {name: record["files"][name] for name in ("bytes", "unpacked")} | other
    forge()
    assert bptt.train(resume="run", stop_after=1, report=None).record["step"] == 3
    write("t/a.txt", PROSE.swapcase() * 9)
    with pytest.raises(InputError, match=r"its text( '.*/a\.txt')? has changed"):
        bptt.train(resume="run", report=None)


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_large_texts_give_what_small_ones_do(monkeypatch, mode):
    paths = [write("a.txt", NAMES), write("b.txt", PROSE), write("c.gz", PACKED["gz"])]
    small = prepare(paths, mode=mode)
    for module, name, value in [(loading, "LARGE", 60), (loading, "CHUNK", 50), (token_store, "CHUNK", 30)]:
        monkeypatch.setattr(module, name, value)
    for _ in range(2):  # written, and found in the cache
        large = prepare(paths, mode=mode)
        assert token_store.is_map(large.training.ids)
        assert decoded(large, chain(large.training, large.validation)) == decoded(
            small, chain(small.training, small.validation)
        )
        assert (large.sha256, large.files) == (small.sha256, small.files)
    write("b.txt", PROSE.upper())
    assert prepare(paths, mode=mode).sha256 != small.sha256


def test_a_run_of_several_texts_is_repeated_resumed_and_reported(capsys):
    write("t/a.txt", PROSE * 9)
    write("t/b.txt", PROSE.swapcase() * 5)
    done = train("t", out="run", steps=6)
    assert done.record["source"] == [str(Path(f"t/{name}.txt").absolute()) for name in "ab"]
    assert done.record["files"] == {
        "bytes": [len(PROSE) * 9, len(PROSE) * 5],
        "unpacked": [None, None],
        "raw_sha256": [hashlib.sha256(Path(f"t/{name}.txt").read_bytes()).hexdigest() for name in "ab"],
    }
    again = bptt.train(config="run/config.toml", report=None, out="again")
    assert np.array_equal(again.params.Wya, done.params.Wya)
    train("t", out="part", steps=6, stop_after=3)
    write("t/c.txt", "a file that came later\n")  # and has no part in the run
    assert np.array_equal(bptt.train(resume="part", report=None).params.Wya, done.params.Wya)
    if plots.available():
        page.write(done, Path("run"), None, Path("page.html"))
    assert len(done.sample(99, length=1)) == 99
    assert done.sample(99, length=1, novel=True) == []  # each character is in one of the files
    write("t/b.txt", PROSE.swapcase() * 4 + PROSE.swapcase()[::-1])
    with pytest.raises(InputError, match=r"its text '.*/t/b\.txt' has changed: it is as long as before, but not the same"):
        bptt.train(resume="run", steps=9, report=None)
    write("t/b.txt", PROSE)
    with pytest.raises(InputError, match=r"its text '.*b\.txt' has changed: \d+ bytes now, \d+ before"):
        bptt.train(resume="run", steps=9, report=None)


def header_of(text, **flags):
    lines = []
    train(text, report=lines.append, **flags)
    return lines[0].splitlines()


@pytest.mark.parametrize("mode", ["lines", "stream"])
@pytest.mark.parametrize("validation", ["t/valid.txt", "t/valid", "t/v*.txt"])
def test_the_validation_set_in_a_folder_of_texts_is_not_learnt(mode, validation):
    for name in ("a", "b", "valid", "valid/one", "valid/two"):
        letters = f"{name.replace('/', '')} and {''.join(sorted(set(PROSE.strip() + 'valid')))}\n"
        write(f"t/{name}.txt", letters + letters[::-1].strip() + "\n")
    held = {"t/valid.txt": ["valid"], "t/valid": ["valid/one", "valid/two"], "t/v*.txt": ["valid"]}[validation]
    kept = [str(Path(f"t/{name}.txt").absolute()) for name in sorted({"a", "b", "valid", "valid/one", "valid/two"} - {*held})]
    Path("bptt.toml").write_text('text = "t"\n')
    for source in (Names(("t",)), Path("t"), "t", "t/**/*.txt", [Path("t")], toml.read(Path("bptt.toml"))["text"]):
        data = prepare(source, validation=Path(validation), mode=mode)
        assert sorted(data.source) == sorted(kept)
        assert data.left_out == len(held)
    shown = Path(validation.replace("v*", "valid")).name
    lines = header_of("t", validation=validation, mode=mode, out="run")
    assert lines[0].startswith(f"text   t: {len(kept)} files, ")
    assert lines[1] == f"       {shown} in the folder of the texts is the validation set: not trained on"
    assert bptt.train(resume="run", steps=3, report=None).record["source"] == bptt.load("run").record["source"]
    with pytest.warns(TrainingWarning, match="a file of the validation set is also a training text: name it as one of"):
        train([Path("t/a.txt"), Path("t/b.txt")], validation="t/b.txt", mode=mode)
    with pytest.raises(InputError, match=r"'t/valid' holds no files but those of the validation set: name texts to train on"):
        prepare("t/valid", validation=Path("t/valid"))


def test_the_header_counts_the_files_that_have_a_text():
    for name, text in {"a": NAMES, "b": "", "c": "zora\nzoe\n", "d": ""}.items():
        write(f"t/{name}.txt", text)
    assert header_of("t")[0].startswith("text   t: 2 files, ")
    assert header_of("t/a.txt")[0].startswith("text   a: 32 lines")
    paths = [Path(f"t/{name}.txt") for name in "bacd"]
    assert corpus.read(paths).name == "a-and-1-more"
    assert corpus.read(paths[:2]).name == "a"


def test_texts_in_toml_are_beside_the_file():
    write("there/one.txt", NAMES)
    write("there/two.txt", "zora\nzoe\n")
    path = write("there/bptt.toml", 'text = ["one.txt", "two.txt"]\n')
    assert prepare(toml.read(path)["text"]).source == [str(Path(f"there/{name}.txt").absolute()) for name in ("one", "two")]
    path.write_text('text = "."\nglob = "*.txt"\n')
    assert len(prepare(toml.read(path)["text"], glob="*.txt").source) == 2
    for text in ("[]", '["one.txt", 3]', '["-", "one.txt"]', '""', "{a = 1}"):
        path.write_text(f"text = {text}\n")
        with pytest.raises(InputError, match=r"expected a path, a list of paths, - or the name of a built-in text$"):
            toml.read(path)


def test_the_config_of_a_run_leads_to_files_alone():
    """A folder that somebody sends must not make this machine list its disk."""
    write("texts/a.txt", NAMES)
    path = write("config.toml", 'text = "texts"\n')
    with pytest.raises(InputError, match="texts' is not a regular file"):
        prepare(toml.read(path, named=False)["text"])


# Records


def records_of(text, separator):
    """What the records of a text are, found one after the other in all of it."""
    bare = separator.strip("\n")
    before, after = "\n" * (separator[0] == "\n" and bool(bare)), "\n" * (separator[-1] == "\n" and bool(bare))
    records, rest = [], before + text + after
    while separator in rest:
        record, _, rest = rest.partition(separator)
        records.append(record)
        rest = before + rest
    return [record.strip("\n") for record in (*records, rest) if record.strip("\n")]


@quick
@given(st.text("ab-\n", max_size=40), st.text("ab-\n", min_size=1, max_size=4), st.integers(1, 7))
@example("---\na\n---\n---\n\nb\n---", "\n---\n", 3)
@example(">a\nb\n>c\n", "\n>", 2)
@example("\n\n\n", "\n\n", 1)
def test_separators_are_replaced_as_in_the_text_at_once(text, separator, size):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    joined = "".join(joining._trimmed(joining._replaced(iter(pieces), separator, "!"), "!"))
    assert joined.removesuffix("!") == "!".join(records_of(text, separator))
    raw = (piece.encode() for piece in pieces)
    assert b"".join(joining._trimmed(joining._replaced(raw, separator.encode(), b"!"), b"!")) == joined.encode()


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        ("---\na\n---\nb\n", "\n---\n", ["a", "b"]),
        ("a\n---\n---\nb\n---", "\n---\n", ["a", "b"]),
        (">sp1\nMK\n>sp2\nML\n", "\n>", ["sp1\nMK", "sp2\nML"]),
        ("%a%%b%", "%", ["a", "b"]),
        ("\n\na\n\n\nb\nc\n\n", "\n\n", ["a", "b\nc"]),
        ("a\n\x1eb\n\x1ec\n", "\n\x1e", ["a", "b", "c"]),
        ("a\n% b\n", "\r\n%", ["a", " b"]),
    ],
)
def test_records_have_no_separator_and_no_newline_around_them(text, separator, expected):
    data = prepare(write("t", text), separator=separator, validation=0.0)
    assert [record.strip(RECORD) for record in decoded(data, data.training)] == expected


def test_a_separator_has_the_newlines_of_the_text():
    path = write("t", b"a\r\nb\r\n---\r\nc\r\n---\r\nd\r\n")
    for separator in ("\n---\n", "\r\n---\r\n", "\r---\r"):
        data = prepare(path, separator=separator, validation=0.0)
        assert [record.strip(RECORD) for record in decoded(data, data.training)] == ["a\nb", "c", "d"]
    with pytest.raises(InputError) as error:
        prepare(path, separator="\n---\n", validation=0.0, vocabulary="bytes")
    problem = "does not hold it: the newlines of this text are \\r\\n: give separator='\\r\\n---\\r\\n'"
    assert str(error.value) == f"separator='\\n---\\n': 't' {problem}"
    data = prepare(path, separator="\r\n---\r\n", validation=0.0, vocabulary="bytes")
    assert [record.strip(RECORD) for record in decoded(data, data.training)] == ["a\r\nb", "c", "d"]


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_text_of_blank_records_is_refused(vocabulary):
    with pytest.raises(InputError, match="'t' holds nothing but white space: expected text of at least two"):
        prepare(write("t", " %\n %\n\n%"), separator="%", vocabulary=vocabulary)


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_each_record_is_a_text_that_ends_by_itself(vocabulary):
    path = write("poems.txt", POEMS)
    data = prepare(path, separator="\n---\n", vocabulary=vocabulary, validation=0.2)
    assert data.mode == "records"
    assert data.vocabulary.boundary == RECORD
    records = decoded(data, chain(data.training, data.validation))
    assert sorted(records) == sorted(f"{RECORD}{poem}{RECORD}" for poem in POEMS.removesuffix("\n").split("\n---\n"))
    assert len(data.validation) == 1
    assert dataset.contained(data, ["roses are red\nviolets are blue", "roses are red"]) == {"roses are red\nviolets are blue"}


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_record_of_white_space_is_left_out(vocabulary):
    data = prepare(write("t", "ab%% \n%cd\ne%%%"), separator="%", vocabulary=vocabulary, validation=0.0)
    assert decoded(data, data.training) == [f"{RECORD}ab{RECORD}", f"{RECORD}cd\ne{RECORD}"]


def test_the_end_of_a_file_is_the_end_of_a_record():
    paths = [write("a", "one\ntwo%three"), write("b", "four%")]
    data = prepare(paths, separator="%", validation=0.0)
    assert [text.strip(RECORD) for text in decoded(data, data.training)] == ["one\ntwo", "three", "four"]
    data = prepare(paths, mode="records", validation=0.0)  # without a separator, each file is one
    assert [text.strip(RECORD) for text in decoded(data, data.training)] == ["one\ntwo%three", "four%"]


def test_items_with_newlines_are_kept_whole():
    texts = ["roses are red\nviolets", "one line", "sugar\nis sweet\n"]
    for source in (texts, iter(texts)):
        data = prepare(source, validation=0.0)
        assert data.mode == "records"
        assert [text.strip(RECORD) for text in decoded(data, data.training)] == [text.removesuffix("\n") for text in texts]
    stream = prepare(texts, validation=0.0, mode="stream")
    assert [text[1:].removesuffix("\n") for text in decoded(stream, stream.training)] == [t.removesuffix("\n") for t in texts]
    with pytest.raises(InputError, match="a text of the list holds a newline, and in mode lines each line is a text"):
        prepare(texts, mode="lines")
    lines = prepare(["emma\n", "ava", "zoe"], validation=0.0)
    assert (lines.mode, len(lines.training)) == ("lines", 3)


def test_a_list_of_str_is_lines_however_long_they_are():
    texts = [PROSE.strip() * 3, PROSE.strip().upper(), PROSE.strip() * 2]
    for source in (texts, tuple(texts), iter(texts)):
        data = prepare(source, validation=0.0)
        assert data.mode == "lines"
        assert decoded(data, data.training) == [f"\n{text}\n" for text in texts]
    assert prepare(texts, mode="stream").mode == "stream"
    path = write("book.txt", PROSE * 9)
    with path.open() as file:
        assert prepare(file).mode == "stream"  # its lines are those of one text
    with pytest.raises(InputError, match=r"^line 2 of the text is bytes, expected str: decode it, or join all of them to one"):
        prepare(["a", b"b"])


def test_names_of_files_are_not_learnt():
    write("who.txt", NAMES)
    Path("texts").mkdir()
    advice = (
        r", and a str of several is a line of text: give files as pathlib.Path\(...\), or lines as one str: '\\n'.join\(...\)$"
    )
    for names, kind in [
        (["nofile.txt", "who.txt"], "'who.txt' is a file"),
        (["texts", "x"], "'texts' is a folder"),
        (("who.txt",), "'who.txt' is a file"),
        ([*["who.txt"] * 200, "nofile.txt"], "'who.txt' is a file"),
    ]:
        with pytest.raises(InputError, match=f"^{kind}{advice}"):
            prepare(names)
    words = [f"word{n}" for n in range(200)]
    assert len(prepare([*words, "texts"], validation=0.0).training) == 201  # by chance
    assert prepare(["no\0file", "x" * 2000]).mode == "lines"


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("ab\ncd\n", {"separator": "---"}, "separator='---': 't' does not hold it: expected what stands between two records"),
        (f"ab{RECORD}c%d", {"separator": "%"}, "'t' holds the character U+001E, which ends a record here: remove it, or"),
    ],
)
def test_records_that_cannot_be_separated_are_refused(text, flags, expected):
    for vocabulary in ("characters", "bytes"):
        with pytest.raises(InputError) as error:
            prepare(write("t", text), vocabulary=vocabulary, **flags)
        assert expected in str(error.value)
    assert len(prepare(write("t", f"ab{RECORD}c%d"), separator=RECORD, validation=0.0).training) == 2
    with pytest.raises(InputError, match=r"separator='%': the text \(2 files\) does not hold it"):
        prepare([write("a", "ab\nc\n"), write("b", "d\n")], separator="%")
    one = corpus.read(write("one", "ab\nc"), characters("abc\n", RECORD), Reading(separator="%", mode="records"))
    assert len(corpus.sequences(one, "records")) == 1  # a model of records may be measured on one


def test_a_model_of_records_writes_scores_and_continues_records(tmp_path):
    """A model that knows one record by heart ends where that ends."""
    write("poems.txt", "a\nb%" * 40)
    model = train("poems.txt", separator="%", hidden=24, steps=150, validation=0.0, out="run", batch=8)
    assert model.mode == "records"
    assert model.sample(3, temperature=0.0) == ["a\nb"] * 3
    assert model.sample(1, temperature=0.0, prompt="a\n") == ["a\nb"]
    assert model.score("a\nb") < model.score("a\nb\nb")
    loaded = bptt.load("run")
    assert loaded.sample(1, temperature=0.0) == ["a\nb"]
    assert loaded.evaluate(corpus.read("poems.txt", loaded.vocabulary, Reading(separator="%"))).characters == 160
    with pytest.raises(InputError, match="expected the beginning of one record, for the model writes records"):
        model.sample(1, prompt=f"a{RECORD}")
    resumed = bptt.train(resume="run", steps=151, report=None)
    assert resumed.mode == "records"
    tuned = train("poems.txt", separator="%", from_="run", hidden=None)
    assert tuned.vocabulary == model.vocabulary


def test_records_from_and_to_other_formats():
    model = train("poems.txt" if write("poems.txt", POEMS) else None, separator="\n---\n")
    model.export("torch", "model.safetensors")
    again = bptt.from_torch("model.safetensors")
    assert (again.mode, again.vocabulary) == ("records", model.vocabulary)
    assert again.sample(2, seed=3) == model.sample(2, seed=3)
    model.export("page", "page.html")
    known = json.loads(re.search(r">(\{.*\})</script>", Path("page.html").read_text())[1])
    assert (known["mode"], known["symbols"][known["start"]]) == ("records", RECORD)


# Encodings


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-16", "utf-16-le", "utf-32", "shift_jis", "koi8-r", "utf-8-sig"])
@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_any_encoding_is_decoded_in_chunks(monkeypatch, encoding, chunk):
    text = {"koi8-r": "Привет,\nмир\n", "cp1252": "“café”\nnaïve\n"}.get(encoding, "古池や蛙飛び\n込む水の音\n")
    monkeypatch.setattr("bptt.data.source.CHUNK", chunk)
    path = write("text", text.replace("\n", "\r\n").encode(encoding))
    assert corpus.read(path, reading=Reading(encoding)).text == text
    assert prepare(path, encoding=encoding).vocabulary == characters(text)


def test_an_encoding_that_does_not_fit_is_refused():
    path = write("text", "“Привет”".encode())
    assert "is not in the encoding ascii: byte 0xe2 at offset 0, line 1" in complaint(path, reading=Reading("ascii"))
    assert "give the encoding of the text (encoding)" in complaint(path, reading=Reading("shift_jis"))
    message = complaint(write("odd", b"a\0b"), reading=Reading("utf-16-le"))
    assert "is not in the encoding utf-16-le: byte 0x62 at offset 2, line 1 (truncated data)" in message


@pytest.mark.parametrize("name", ["klingon", "hex", "rot13", "", "\0", 5, b"utf-8"])
def test_an_unknown_encoding_is_refused(name):
    with pytest.raises(
        InputError, match=r"^encoding .*: expected an encoding of texts that Python knows, as utf-8, cp1252 or gb18030$"
    ):
        train(NAMES, encoding=name)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"separator": ""}, "separator '': expected a text of at least one character"),
        ({"separator": 5}, "separator 5: expected a text of at least one character"),
        ({"glob": ""}, "glob '': expected a text of at least one character"),
        (
            {"separator": "%", "mode": "lines"},
            "separator '%' only works with mode records, not with mode lines: leave out",
        ),
        ({"encoding": "cp1252", "vocabulary": "bytes"}, "encoding cp1252: vocabulary bytes decodes nothing"),
    ],
)
def test_settings_of_texts_that_contradict_each_other_are_refused(flags, expected):
    with pytest.raises(InputError) as error:
        train(NAMES, **flags)
    assert str(error.value).startswith(expected)


def test_the_encoding_of_a_run_is_used_again():
    write("text", ("“café”\nnaïve\n" * 9).encode("cp1252"))
    train("text", encoding="cp1252", out="run", steps=4, stop_after=2)
    assert bptt.train(resume="run", report=None).record["settings"]["encoding"] == "cp1252"
    assert 'encoding = "cp1252"' in Path("run/config.toml").read_text()


# Bytes and strings in Python


def test_bytes_are_a_text():
    midi = b"MThd\0\0\0\6" + bytes(range(256))
    data = prepare(midi, vocabulary="bytes", mode="stream")
    assert data.training.ids[1:].astype(np.uint8).tobytes() == midi
    assert prepare(NAMES.encode()).vocabulary == characters(NAMES)
    assert prepare("“a”\nb\n".encode("cp1252"), encoding="cp1252").vocabulary == characters("“a”\nb\n")
    assert "looks like a binary file" in complaint(midi)


@pytest.mark.parametrize(
    "text", ["~\nis a tilde.", "/ or\nnot. Maybe", "C:\n", "a/b\nc/d\n", "see:\n./x.txt\n", "x" * 300 + "/\nb.txt"]
)
def test_a_text_with_a_newline_is_seldom_taken_for_a_path(text):
    assert corpus.read(text).text == text


def test_the_memory_of_a_run_counts_the_columns_of_several_texts():
    """Three texts are two streams each in a batch of 8, as they are in one of 6, and one text of that size is 8 streams."""

    def numbers(text, batch):
        task = from_scratch(text, Settings(backend="numpy", mode="stream", batch=batch, length=16, hidden=64, steps=2)).task
        return memory_estimate.update_numbers(task)

    paths = [write(f"{n}.txt", PROSE * 20) for n in range(3)]
    together = write("all.txt", PROSE * 60)
    assert numbers(paths, 8) == numbers(paths, 6) == numbers(together, 6)
    assert numbers(paths, 8) < 0.9 * numbers(together, 8)


@pytest.mark.parametrize(
    ("separator", "expected"), [("%", "a\nb%a\nb\n"), ("\n%\n", "a\nb\n%\na\nb\n"), ("%\n", "a\nb%\na\nb\n")]
)
def test_samples_of_records_are_printed_as_the_text_has_them(capsys, separator, expected):
    write("poems.txt", separator.join(["a\nb"] * 40))
    train("poems.txt", separator=separator, hidden=24, steps=150, validation=0.0, out="run", batch=8)
    assert cli.main(["sample", "run", "--count", "2", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == expected
    assert cli.main(["sample", "run", "--count", "2", "--temperature", "0", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["a\nb"] * 2
