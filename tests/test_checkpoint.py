"""Checkpoints: what was saved comes back exactly, what was damaged is refused, and nothing is ever there by halves."""

import builtins
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bptt.errors import InputError
from bptt.run import checkpoint
from bptt.run.checkpoint import CheckpointError

FILES = ["manifest.json", "config.json", "vocabulary.json", "model.safetensors"]
CONFIG = {"mode": "lines", "model": {"hidden": 3}, "record": {"text": "naïve", "held_out": 1 / 3, "none": None}}
SYMBOLS = ["\n", "a", "é", "\ud800", "😀"]

posix = pytest.mark.skipif(os.name != "posix", reason="modes and pipes of POSIX")


def arrays():
    rng = np.random.default_rng(0)
    big = rng.normal(size=(6, 8))
    return {
        "plain": big.copy(),
        "fortran": np.asfortranarray(big),
        "transposed": big.T,
        "strided": big[::2, 1::3],
        "reversed": big[::-1],
        "broadcast": np.broadcast_to(big[0], (4, 8)),
        "read-only float32": big.astype(np.float32),
        "ids": np.arange(5),
        "scalar": np.asarray(7.5),
        "empty": np.zeros((0, 3), np.float32),
        "layers.0.Waa é": np.full((1, 1), np.nan),
    }


def saved(folder, weights=None):
    checkpoint.write(folder, CONFIG, SYMBOLS, arrays() if weights is None else weights)
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forge(folder, **files):
    """Replace files of a model, and say so in the manifest as if they had been saved like that."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, data in files.items():
        name = {"config": "config.json", "vocabulary": "vocabulary.json", "model": "model.safetensors"}[name]
        (folder / name).write_bytes(data)
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def refusal(folder):
    with pytest.raises(CheckpointError) as error:
        checkpoint.read(folder)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


# What was saved comes back


def test_every_layout_of_an_array_comes_back_exactly(tmp_path):
    config, symbols, weights = checkpoint.read(saved(tmp_path / "model"))
    assert (config, symbols) == (CONFIG, SYMBOLS)
    assert weights.keys() == arrays().keys()
    for name, expected in arrays().items():
        assert weights[name].dtype == expected.dtype, name
        assert weights[name].shape == expected.shape, name
        np.testing.assert_array_equal(weights[name], expected, err_msg=name)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first = content(saved(tmp_path / "first"))
    assert sorted(first) == sorted(FILES)
    checkpoint.write(tmp_path / "second", dict(reversed(CONFIG.items())), SYMBOLS, dict(reversed(arrays().items())))
    assert content(tmp_path / "second") == first


@posix
@pytest.mark.parametrize(
    ("umask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0, 0o777, 0o666)]
)
def test_modes_follow_the_umask(tmp_path, umask, folder_mode, file_mode):
    before = os.umask(umask)
    try:
        folder = saved(tmp_path / "above" / "model")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert folder.parent.stat().st_mode & 0o777 == folder.stat().st_mode & 0o777 == folder_mode
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {file_mode}


# Nothing by halves


class Failing:
    """Counts the calls that touch the disk, and lets one of them fail."""

    def __init__(self, patch, error):
        self.calls, self.fail_at, self.error = [], None, error
        for owner, name in [
            (os, "mkdir"),
            (os, "fsync"),
            (os, "rename"),
            (os, "open"),
        ]:
            patch.setattr(owner, name, self.counted(name, getattr(owner, name)))
        patch.setattr(checkpoint, "open", self.opened, raising=False)

    def counted(self, name, function):
        def call(*arguments, **keywords):
            self.calls.append(name)
            if len(self.calls) == self.fail_at:
                raise self.error
            return function(*arguments, **keywords)

        return call

    def opened(self, *arguments, **keywords):
        file = self.counted("open", builtins.open)(*arguments, **keywords)
        outer = self

        class File:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                file.write(data[: len(data) // 2])
                file.flush()
                return outer.counted("write", file.write)(data[len(data) // 2 :])

            def flush(self):
                return outer.counted("flush", file.flush)()

            def fileno(self):
                return file.fileno()

        return File()


@posix
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_failure_at_any_call_leaves_nothing_or_all_of_it(tmp_path, monkeypatch, error):
    small = {"W": np.arange(6.0).reshape(2, 3)}
    with monkeypatch.context() as patch:
        watch = Failing(patch, error)
        saved(tmp_path / "whole", small)
        calls = watch.calls
    shutil.rmtree(tmp_path / "whole")
    assert [calls.count(name) for name in ("mkdir", "open", "write", "rename")] == [2, 6, 4, 1]
    assert calls.count("fsync") == 6
    assert calls.index("rename") > max(i for i, name in enumerate(calls) if name == "write")
    for place, name in enumerate(calls, 1):
        folder = tmp_path / "model"
        with monkeypatch.context() as patch:
            watch = Failing(patch, error)
            watch.fail_at = place
            failure = ""
            try:
                saved(folder, small)
            except (InputError, KeyboardInterrupt) as raised:
                failure = str(raised) or "Ctrl-C"
        left = [path.name for path in tmp_path.iterdir()]
        assert failure in ("", "Ctrl-C", f"cannot save the model in {folder}: No space left on device")
        if folder.exists():  # whole: the failing call could be done without, or came after the rename
            assert not failure or place > calls.index("rename") + 1, name
            assert checkpoint.read(folder)[0] == CONFIG
            shutil.rmtree(folder)
            assert left == ["model"]
        else:
            assert failure, name
            assert left == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc to name descriptors with")
def test_the_files_are_on_the_disk_before_the_folder_appears(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)

        def call(*arguments, name=name, real=real):
            what = [os.readlink(f"/proc/self/fd/{arguments[0]}")] if name == "fsync" else [os.fspath(a) for a in arguments]
            events.append((name, *what))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)
    saved(tmp_path / "model")
    renamed = next(i for i, event in enumerate(events) if event[0] == "rename")
    temporary, final = events[renamed][1:]
    assert final == str(tmp_path / "model")
    assert {event[1] for event in events[:renamed]} == {temporary, *(f"{temporary}/{name}" for name in FILES)}
    assert events[renamed + 1 :] == [("fsync", str(tmp_path))]


@pytest.mark.parametrize("kind", ["file", "folder", "full folder", "dangling link", "link to a folder"])
def test_what_is_there_already_is_refused_and_left_alone(tmp_path, kind):
    path, other = tmp_path / "model", tmp_path / "other"
    other.mkdir()
    if kind == "file":
        path.write_text("mine")
    elif "link" in kind:
        path.symlink_to(other if kind == "link to a folder" else tmp_path / "nowhere")
    else:
        path.mkdir()
    if kind == "full folder":
        (path / "mine").write_text("mine")
    before = sorted(map(str, tmp_path.rglob("*")))
    for refuse in (checkpoint.refuse_unusable, saved):
        with pytest.raises(checkpoint.Taken, match="something is there already: name a new folder"):
            refuse(path)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_a_folder_that_cannot_be_made_is_refused_before_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    null = "null (byte|character in path)"  # until Python 3.12, and since
    for bad, reason in [("file/model", "Not a directory"), ("a/b/" + "c" * 300 + "/d", "too long"), ("a/\0", null)]:
        with pytest.raises(InputError, match=rf"no folder can be made there \(.*{reason}\): name another one"):
            checkpoint.refuse_unusable(tmp_path / bad)
        with pytest.raises(InputError, match="cannot save the model"):
            saved(tmp_path / bad)
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
    checkpoint.refuse_unusable(tmp_path / "a" / "b" / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_taken_between_the_look_and_the_rename(tmp_path, monkeypatch):
    real = os.rename

    def rename(source, target):
        os.mkdir(target)
        Path(target, "theirs").write_text("theirs")
        return real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(checkpoint.Taken):
        saved(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["model", "theirs"]


def test_the_first_free_name(tmp_path):
    path = tmp_path / "runs" / "names"
    assert checkpoint.free(path) == path
    path.mkdir(parents=True)
    assert checkpoint.free(path) == path.with_name("names-2")
    path.with_name("names-2").symlink_to("nowhere")
    assert checkpoint.free(path) == path.with_name("names-3")


# Damage


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(tmp_path, name):
    path = saved(tmp_path / "model", {"W": np.arange(6.0)}) / name
    whole = path.read_bytes()
    places = np.random.default_rng(0).choice(len(whole), min(30, len(whole)), replace=False)
    for place in {0, len(whole) - 1, *places.tolist()}:
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert str(path.parent) in refusal(path.parent)
    path.write_bytes(whole)
    assert checkpoint.read(path.parent)[0] == CONFIG


@pytest.mark.parametrize("name", FILES)
def test_every_cut_and_every_addition_is_noticed(tmp_path, name):
    path = saved(tmp_path / "model", {"W": np.arange(6.0)}) / name
    whole = path.read_bytes()
    for damaged in (*(whole[:n] for n in range(0, len(whole), 7)), whole[:-1], whole + b"\n", whole + b"\0"):
        path.write_bytes(damaged)
        assert f"{path}: " in refusal(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    path = saved(tmp_path / "model", {"W": np.arange(6.0)}) / name
    path.unlink()
    assert f"{path}: no such file: expected a folder that bptt train or model.save made" in refusal(path.parent)
    path.mkdir()
    assert f"{path}: no such file" in refusal(path.parent)
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # to open it would wait for ever
        assert f"{path}: no such file" in refusal(path.parent)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "no such folder: expected a folder that bptt train or model.save made"),
        ("a" * 300, "no such folder: expected"),
        ("a\0b", "no such folder: expected"),
        ("file", "file: is a file, expected a folder that bptt train or model.save made"),
        ("modle", "model?): expected"),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path, path, words):
    (tmp_path / "file").write_text("mine")
    saved(tmp_path / "model")
    assert words in refusal(tmp_path / path)


def test_a_format_of_the_future_is_told_before_anything_else(tmp_path):
    folder = saved(tmp_path / "model")
    (folder / "manifest.json").write_text('{"format": 2, "pieces": []}')
    assert "format 2, expected 1" in refusal(folder)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("[]", "not as it was written: the file is damaged"),
        ("{}", "not as it was written: the file is damaged"),
        ('{"format": "1"}', "format '1'"),
        ('{"format": 1}', "not as it was written"),
        ({"format": 1}, "has no checksum and size of config.json"),
        ({"format": 1, "files": []}, "has no checksum and size of config.json"),
        ({"format": 1, "files": {"config.json": 5}}, "has no checksum and size of config.json"),
        ({"format": 1, "files": {"config.json": {"sha256": "", "bytes": "x"}}}, "has no checksum and size of config.json"),
        ({"format": 1, "files": {"config.json": {"sha256": "", "bytes": float("inf")}}}, "no checksum and size"),
        ({"format": 1, "files": {"config.json": {"sha256": "", "bytes": 10**18}}}, "does not have the size its manifest says"),
        ({"format": 1, "files": {"config.json": {"sha256": "", "bytes": -1}}}, "does not have the size its manifest says"),
        ("[" * 100_000, "not JSON"),
        (" " * (checkpoint.LARGEST_HEADER + 1), "larger than any manifest"),
    ],
)
def test_a_forged_manifest(tmp_path, manifest, words):
    folder = saved(tmp_path / "model", {"W": np.arange(6.0)})
    text = manifest if isinstance(manifest, str) else json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (folder / "manifest.json").write_text(text)
    assert words in refusal(folder)


def test_forged_weights(tmp_path):
    folder = saved(tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    size = (checkpoint.LARGEST_HEADER + 1).to_bytes(8, "little")
    for data, words in [
        (size + b" " * (checkpoint.LARGEST_HEADER + 1), "header is larger than"),
        (b"", "not a safetensors file"),
        (b"\0" * 8, "not a safetensors file"),
        (whole[:-1], "not a safetensors file"),
        (whole.replace(b'"F64"', b'"X64"', 1), "not a safetensors file"),
    ]:
        forge(folder, model=data)
        assert words in refusal(folder)
    forge(folder, model=whole)
    checkpoint.read(folder)


def test_forged_json(tmp_path):
    folder = saved(tmp_path / "model")
    for name in ("config", "vocabulary"):
        whole = (folder / f"{name}.json").read_bytes()
        for data in (b"", b"{", b"\xff", b"9" * 5000, b"[" * 100_000):
            forge(folder, **{name: data})
            assert f"{name}.json: not JSON" in refusal(folder)
        forge(folder, **{name: whole})


def test_the_parent_folders_are_made(tmp_path):
    assert checkpoint.read(saved(Path(tmp_path, "a", "b", "model")))[0] == CONFIG
