"""Files that are there whole or not at all, and files that are read only if they are what they are said to be."""

import contextlib
import io
import os
import random
import shutil
from pathlib import Path

import pytest

from bptt import files
from bptt.errors import InvalidFile
from failing import ERRORS, Failing

posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


def attempt(function, *arguments):
    try:
        function(*arguments)
    except (OSError, KeyboardInterrupt) as error:
        return error
    return None


def unusable(function, *arguments, **keywords):
    with pytest.raises(InvalidFile) as error:
        function(*arguments, **keywords)
    return str(error.value)


# Writing


@posix
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_folder_is_written_completely_or_not_at_all(tmp_path, error):
    parts, folder = {"a": b"1" * 10, "b": b"2" * 10}, tmp_path / "new"
    with Failing() as calls:
        files.write_folder(folder, parts)
    for place in range(len(calls.made)):
        shutil.rmtree(folder, ignore_errors=True)
        with Failing(place, error):
            attempt(files.write_folder, folder, parts)
        assert [path.name for path in tmp_path.iterdir()] in ([], ["new"])
        if folder.exists():
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == parts


@posix
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_file_is_replaced_completely_or_not_at_all(tmp_path, error):
    path = tmp_path / "file"
    with Failing() as calls:
        files.replace(path, b"first")
    assert calls.made == ["open", "write", "flush", "fsync", "replace", "unlink", "open", "fsync"]
    for place in range(len(calls.made)):
        path.write_bytes(b"before")
        with Failing(place, error):
            failed = attempt(files.replace, path, b"after")
        assert path.read_bytes() == (b"before" if place < 5 else b"after")
        assert (failed is error) == (place < 5 or isinstance(error, KeyboardInterrupt))
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_write_folder_does_not_overwrite(tmp_path):
    files.write_folder(tmp_path / "a" / "b", {"c": b"mine"})
    with pytest.raises(FileExistsError):
        files.write_folder(tmp_path / "a" / "b", {"c": b"theirs"})
    with pytest.raises(NotADirectoryError, match="Not a directory"):
        files.write_folder(tmp_path / "a" / "b" / "c" / "d", {"e": b"theirs"})
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c"]


@posix
def test_replace_replaces_a_link_and_not_its_target(tmp_path):
    (tmp_path / "other").write_bytes(b"theirs")
    (tmp_path / "file").symlink_to("other")
    files.replace(tmp_path / "file", b"mine")
    assert (tmp_path / "other").read_bytes() == b"theirs"
    assert not (tmp_path / "file").is_symlink()


def test_append_adds_text_at_the_end(tmp_path):
    files.append(tmp_path / "file", "é\n")
    files.append(tmp_path / "file", "\ud800")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\n\xed\xa0\x80"


def test_a_partial_write_is_continued(tmp_path, monkeypatch):
    class Slow(io.FileIO):
        def write(self, data):
            return super().write(data[:3])

    monkeypatch.setattr(files, "open", lambda path, *_, **__: Slow(path, "ab"), raising=False)
    files.append(tmp_path / "file", "0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_leftovers_of_writers_are_removed(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    files.temporary_path(tmp_path / "x").mkdir()
    files.temporary_path(tmp_path / "x").write_text("half")
    files.temporary_path(tmp_path / "x").symlink_to("other")
    files.temporary_path(tmp_path / "x").symlink_to("nowhere")
    assert len(list(tmp_path.iterdir())) == 5
    files.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "other"]


# Reading


def test_read_checks_the_size_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read(path, 5) == files.read(path, 9, 5) == files.read(path, 5, 5) == b"12345"
    assert unusable(files.read, path, 4) == "has 5 bytes, expected at most 4"
    assert unusable(files.read, path, 1000, 6) == "has 5 bytes, expected 6 to 1,000"
    assert unusable(files.read, path, 6, 6) == "has 5 bytes, expected 6"


def test_read_refuses_what_is_not_a_regular_file(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    for name in ("nothing", "file/nothing"):
        assert unusable(files.read, tmp_path / name, 9) == "no such file"
    for name in ("a\0b", "a" * 300):
        assert "cannot be read: " in unusable(files.read, tmp_path / name, 9)
    assert unusable(files.read, tmp_path, 9) == "is not a regular file"
    if os.name == "posix":
        (tmp_path / "link").symlink_to("file")
        os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
        for name in ("link", "pipe"):
            assert unusable(files.read, tmp_path / name, 9) == "is not a regular file"


@posix
def test_what_a_user_named_may_be_a_link_or_an_open_pipe(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert files.read(tmp_path / "link", 5, named=True) == b"12345"
    for name in ("zero", "pipe"):
        assert unusable(files.read, tmp_path / name, 9, named=True) == "is not a regular file"
    with open_pipe(b"12345") as path:
        assert unusable(files.read, path, 5) == "is not a regular file"
        assert files.read(path, 5, named=True) == b"12345"
    with open_pipe(b"12345") as path:
        assert unusable(files.read, path, 4, named=True) == "has more bytes than 4, expected at most 4"


@contextlib.contextmanager
def open_pipe(content):
    """The path of a pipe that this process has open, as a shell's <(command) gives it."""
    out, into = os.pipe()
    os.write(into, content)
    os.close(into)
    yield Path(f"/dev/fd/{out}")
    os.close(out)


@posix
def test_a_pipe_or_link_in_the_place_of_a_file_is_refused(tmp_path, monkeypatch):
    """Somebody has replaced the file since it was looked at."""
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")  # to open it for reading would wait for ever
    (tmp_path / "link").symlink_to("file")
    before = os.lstat(tmp_path / "file")
    monkeypatch.setattr(os, "lstat", lambda path: before)
    assert unusable(files.read, tmp_path / "pipe", 9) == "is not a regular file"
    assert "cannot be read: " in unusable(files.read, tmp_path / "link", 9)


def test_read_reports_a_disk_that_cannot_be_read(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    (tmp_path / "file").write_bytes(b"12345")
    monkeypatch.setattr(files, "open", broken, raising=False)
    assert unusable(files.read, tmp_path / "file", 9) == "cannot be read: Input/output error"


def test_json_round_trips():
    for value in (None, 1.5, 1e-300, "é\ud800[{", [{"b": [], "a": {}}]):
        assert files.parse_json(files.to_json(value), 4) == value
    assert files.to_json({"b": 1, "a": ["é"]}) == b'{\n "a": [\n  "\\u00e9"\n ],\n "b": 1\n}\n'


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b"\xff", b"1 2", b"9" * 5000, b"[" * 50_000, "[]".encode("utf-16")])
def test_invalid_json_is_refused(data):
    assert unusable(files.parse_json, data, 10**6) == "is not JSON"


def test_json_with_too_many_lists_and_objects_is_refused_early():
    assert files.parse_json(b'["[[[", {"[": "\\"[[["}, "\\\\", []]', 3) == ["[[[", {"[": '"[[['}, "\\", []]
    assert (
        unusable(files.parse_json, b'["[[[", {"[": "\\"[[["}, "\\\\", []]', 2)
        == "holds 3 lists and objects, expected at most 2"
    )
    assert unusable(files.parse_json, b'"' + b'\\"' * 10**6 + b"[", 0) == "is not JSON"  # in one pass, not one from each quote
    rng = random.Random(0)
    for _ in range(2000):
        value = [rng.choice(['"', "\\", "[", "{", "a"]) * rng.randrange(4) for _ in range(5)]
        assert files.parse_json(files.to_json(value), 1) == value


def test_an_invalid_file_error_is_one_short_printable_line():
    assert str(InvalidFile("a\nb\x1b[2Jc\ud800é")) == "a b [2Jc é"
    assert str(InvalidFile("x" * 10**6)) == "x" * 300 + "..."


def test_describe_os_error_gives_the_system_message():
    assert files.describe_os_error(OSError(28, "No space left on device")) == "No space left on device"
    assert files.describe_os_error(ValueError("bad")) == "bad"
    assert files.describe_os_error(MemoryError()) == "MemoryError"


@pytest.mark.parametrize("attempts", [1, 4, 6, 7])
def test_a_rename_on_windows_waits_for_a_scanner(monkeypatch, tmp_path, attempts):
    made, rename = [], os.replace

    def held(source, target):
        made.append(source)
        if len(made) < attempts:
            raise PermissionError(13, "in use")
        rename(source, target)

    (tmp_path / "a").write_text("a")
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(files.os, "replace", held)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "name", "nt")
        if attempts == 7:
            with pytest.raises(PermissionError):
                files.rename(tmp_path / "a", tmp_path / "b")
        else:
            files.rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").exists() == (attempts < 7)
    assert len(made) == min(attempts, 6)
