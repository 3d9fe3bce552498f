"""Checkpoints: what was saved comes back exactly, what was damaged is refused, and nothing is ever there by halves."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import bptt
from bptt import errors, files
from bptt.checkpoint import format as checkpoint_format
from bptt.checkpoint import store
from bptt.checkpoint.format import Checkpoint, Progress
from bptt.config import toml
from bptt.data.vocabulary import BYTES, Vocabulary
from bptt.errors import CheckpointError, InputError
from bptt.nn import model, tree
from failing import ERRORS, Failing
from forging import ALL, MODEL, NAMES, RUN, content, equal_checkpoints, forge, refusal, restore, tensor_file, train

GOLDEN = Path(__file__).parent / "golden"
SYMBOLS = Vocabulary(("\n", "[", "a", "é", "\ud800", "😀"))
RECORD = {"text": "naïve", "held_out": 1 / 3, "none": None, "deep": [{"a": [1e-300, True]}]}
ROW = {"step": 2, "loss": 1 / 3, "rate": 0.1, "norm": 1.0, "characters": 9, "seconds": 0.5}
PROGRESS = Progress(
    2, 1, 3, 9, 0.25, (1, 0.5), 1, (0.5,), (0.1,), (ROW, {**ROW, "held_out": 2.0, "sample": ["[{é\ud800\n", ""]})
)

posix = pytest.mark.skipif(os.name != "posix", reason="modes and pipes of POSIX")


def layouts():
    """Arrays (4, 4) in every order that memory can have."""
    big = np.random.default_rng(0).normal(size=(8, 8))
    yield "plain", big[:4, :4].copy()
    yield "Fortran", np.asfortranarray(big[:4, :4])
    yield "transposed", big[:4, :4].copy().T
    yield "strided", big[::2, 1::2]
    yield "reversed", big[:4, :4].copy()[::-1]
    yield "broadcast", np.broadcast_to(big[0, :4], (4, 4))
    yield "read-only", np.frombuffer(big[:2].tobytes()).reshape(4, 4)
    yield "tiny and large", np.reshape([5e-324, -0.0, 1.7e308, -1.7e308] * 4, (4, 4))


def example(array=None, dtype="float64", **changes):
    """A checkpoint of a run, one of whose weights is the array (4, 4); with `progress` None, of a model."""
    config = model.Config("vanilla", vocabulary=6, hidden=4)
    weights = {
        "layers.0.Wax": np.arange(24.0).reshape(6, 4).T,
        "layers.0.Waa": np.eye(4) if array is None else array,
        "layers.0.b": np.arange(8.0)[::2],
        "initial.0.a": np.zeros(4),
        "Wya": np.ones((6, 4)),
        "by": np.arange(6.0),
    }
    arrays = {"t": np.asarray(2.0), "m": np.arange(78.0)[::-1], "v": np.zeros(78), "states.0.a": np.ones((4, 3)).T}
    weights, arrays = ({name: a.astype(dtype) if dtype != a.dtype else a for name, a in d.items()} for d in (weights, arrays))
    saved = Checkpoint(config, "lines", SYMBOLS, RECORD, weights, PROGRESS, arrays)
    return saved._replace(**changes)


def write_checkpoint(folder, saved=None):
    store.write(folder, example() if saved is None else saved)
    return folder


# What was saved comes back


@pytest.mark.parametrize("run", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_checkpoint_is_read_back(tmp_path, dtype, run):
    saved = example(dtype=dtype)
    back = store.read(write_checkpoint(tmp_path / "new", saved), run=run)
    assert equal_checkpoints(back, saved if run else saved._replace(progress=None, training_arrays=None))
    assert {str(array.dtype) for array in back.weights.values()} == {dtype}


@pytest.mark.parametrize(("name", "array"), list(layouts()), ids=[name for name, _ in layouts()])
def test_arrays_of_every_layout_are_read_back_exactly(tmp_path, name, array):
    back = store.read(write_checkpoint(tmp_path / "new", example(array))).weights["layers.0.Waa"]
    np.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, (4, 4), array.tobytes())


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_every_kind_of_model_is_read_back(tmp_path, cell):
    for config in [model.Config(cell, 256, 3, layers=2), model.Config(cell, 256, 1, initial="zero")]:
        params = model.init(config, np.random.default_rng(0))
        saved = Checkpoint(config, "stream", BYTES, {}, dict(tree.named_leaves(params)))
        assert equal_checkpoints(store.read(write_checkpoint(tmp_path / config.initial, saved)), saved)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    saved = example()
    backwards = {name: dict(reversed(getattr(saved, name).items())) for name in ("record", "weights", "training_arrays")}
    first = content(write_checkpoint(tmp_path / "first", saved))
    assert sorted(first) == sorted(ALL)
    assert content(write_checkpoint(tmp_path / "second", saved._replace(**backwards))) == first


def test_a_model_alone_cannot_be_read_as_a_run(tmp_path):
    alone = write_checkpoint(tmp_path / "alone", example(progress=None, training_arrays=None))
    assert sorted(content(alone)) == sorted([*MODEL, "manifest.json"])
    assert "lists a model alone and no run to resume: start a new run with from_" in refusal(alone)
    whole = write_checkpoint(tmp_path / "whole")
    for name in RUN[3:]:
        (whole / name).unlink()
    assert store.read(whole).config == example().config  # what it does not need it does not look at
    assert "training.json: no such file" in refusal(whole)


@posix
@pytest.mark.parametrize(
    ("umask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0, 0o777, 0o666)]
)
def test_file_modes_follow_the_umask(tmp_path, umask, folder_mode, file_mode):
    before = os.umask(umask)
    try:
        folder = write_checkpoint(tmp_path / "above" / "new")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert folder.parent.stat().st_mode & 0o777 == folder.stat().st_mode & 0o777 == folder_mode
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {file_mode}


# Nothing by halves


@posix
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_failure_at_any_call_leaves_nothing_or_everything(tmp_path, error):
    folder = tmp_path / "new"
    with Failing() as calls:
        write_checkpoint(folder)
    assert [calls.made.count(name) for name in ("mkdir", "open", "write", "replace")] == [2, 8, 6, 1]
    assert calls.made.count("fsync") == 8
    renamed = calls.made.index("replace")
    assert renamed > max(i for i, name in enumerate(calls.made) if name == "write")
    shutil.rmtree(folder)
    for place in range(len(calls.made)):
        failure = ""
        try:
            with Failing(place, error):
                write_checkpoint(folder)
        except (errors.SaveError, KeyboardInterrupt) as raised:
            failure = str(raised) or "Ctrl-C"
        left = [path.name for path in tmp_path.iterdir()]
        if folder.exists():  # whole: the failing call could be done without, or came after the rename
            assert left == ["new"]
            assert not failure or place > renamed
            assert equal_checkpoints(store.read(folder, run=True), example())
            shutil.rmtree(folder)
        else:
            assert left == []
            assert failure == "Ctrl-C" or f"cannot save the model in {folder}: {error.strerror}: " in failure


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc to name descriptors with")
def test_files_are_synced_before_the_folder_appears(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def call(*arguments, name=name, real=real):
            what = [os.readlink(f"/proc/self/fd/{arguments[0]}")] if name == "fsync" else [os.fspath(a) for a in arguments]
            events.append((name, *what))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)
    write_checkpoint(tmp_path / "two" / "more" / "new")
    renamed = next(i for i, event in enumerate(events) if event[0] == "replace")
    temporary, final = events[renamed][1:]
    assert final == str(tmp_path / "two" / "more" / "new")
    assert [event[1] for event in events[:renamed]] == [*(f"{temporary}/{name}" for name in ALL), temporary]  # manifest last
    around = tmp_path / "two" / "more", tmp_path / "two", tmp_path  # all that have a new entry
    assert events[renamed + 1 :] == [("fsync", str(folder)) for folder in around]


@pytest.mark.parametrize("kind", ["file", "folder", "full folder", "dangling link", "link to a folder"])
def test_an_existing_path_is_refused_and_not_changed(tmp_path, kind):
    path, other = tmp_path / "new", tmp_path / "other"
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
    for refuse in (store.check_can_save, write_checkpoint):
        with pytest.raises(errors.AlreadyExists, match="already exists: name a new folder"):
            refuse(path)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_an_existing_run_is_refused_with_the_command_to_resume_it(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(errors.AlreadyExists, match=r"run: already exists: resume it with bptt train --resume .*run, or name"):
        store.check_can_save(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    null = "null (byte|character in path)"  # until Python 3.12, and since
    for bad, reason in [("file/new", "Not a directory"), ("a/b/" + "c" * 300 + "/d", "too long"), ("a/\0", null)]:
        with pytest.raises(InputError, match=rf"no folder can be made there \(.*{reason}\): name another one"):
            store.check_can_save(tmp_path / bad)
        with pytest.raises(errors.SaveError, match="cannot save the model"):
            write_checkpoint(tmp_path / bad)
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
    store.check_can_save(tmp_path / "a" / "b" / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_error_says_how_many_bytes_are_needed(tmp_path):
    size = sum(map(len, content(write_checkpoint(tmp_path / "first")).values()))
    with Failing(2, OSError(28, "No space left on device")), pytest.raises(errors.SaveError) as error:
        write_checkpoint(tmp_path / "second")
    assert f"No space left on device: {size:,} bytes are needed, " in str(error.value)
    assert str(error.value).endswith(" are free")


def test_a_name_taken_just_before_the_rename_is_not_overwritten(tmp_path, monkeypatch):
    real = os.replace

    def rename(source, target):
        os.mkdir(target)
        Path(target, "theirs").write_text("theirs")
        return real(source, target)

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(errors.AlreadyExists):
        write_checkpoint(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "theirs"]


def test_free_name_gives_the_first_free_name(tmp_path):
    path = tmp_path / "runs" / "names"
    assert store.free_name(path) == path
    path.mkdir(parents=True)
    assert store.free_name(path) == path.with_name("names-2")
    path.with_name("names-2").symlink_to("nowhere")
    assert store.free_name(path) == path.with_name("names-3")


def test_parent_folders_are_created(tmp_path):
    assert equal_checkpoints(store.read(write_checkpoint(tmp_path / "a" / "b" / "new"), run=True), example())


# Damage


@pytest.mark.parametrize("name", ALL)
def test_every_flipped_bit_is_detected(tmp_path, name):
    path = write_checkpoint(tmp_path / "new") / name
    whole = path.read_bytes()
    for place in range(len(whole)):
        bit = 1 << place % 8
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        refusal(path.parent)
    for place in range(0, len(whole), 40):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            refusal(path.parent)
    path.write_bytes(whole)
    assert equal_checkpoints(store.read(path.parent, run=True), example())


@pytest.mark.parametrize("name", ALL)
def test_every_truncation_and_every_addition_is_detected(tmp_path, name):
    path = write_checkpoint(tmp_path / "new") / name
    whole = path.read_bytes()
    for damaged in (*(whole[:n] for n in range(0, len(whole), 7)), whole[:-1], whole + b"\n", whole + b"\0"):
        path.write_bytes(damaged)
        assert f"{path}: " in refusal(path.parent)


@pytest.mark.parametrize("name", ALL)
def test_a_missing_or_special_file_is_named(tmp_path, name):
    path = write_checkpoint(tmp_path / "new") / name
    path.rename(tmp_path / name)
    assert f"{path}: no such file" in refusal(path.parent)
    path.mkdir()
    assert f"{path}: is not a regular file" in refusal(path.parent)
    path.rmdir()
    path.symlink_to(tmp_path / name)
    assert f"{path}: is not a regular file" in refusal(path.parent)
    path.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # to open it would wait for ever
        assert f"{path}: is not a regular file" in refusal(path.parent)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ALL)
def test_a_file_without_read_permission_is_named(tmp_path, name):
    path = write_checkpoint(tmp_path / "new") / name
    path.chmod(0)
    assert f"{path}: cannot be read: Permission denied" in refusal(path.parent)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "no such folder: expected a folder that bptt train or model.save made"),
        ("a" * 300, "no such folder: expected"),
        ("file", "file: is a file, expected a folder that bptt train or model.save made"),
        ("modle", "model?): expected"),
        ("", "is not a model but holds some: name one of them, as "),
    ],
)
def test_what_is_not_a_checkpoint_folder_is_refused(tmp_path, path, words):
    (tmp_path / "file").write_text("mine")
    write_checkpoint(tmp_path / "model")
    assert words in refusal(tmp_path / path)
    with pytest.raises(CheckpointError, match="no such folder: expected"):
        store.read(tmp_path / "a\0b")


# Forgery: the checksums are right, what they stand for is not


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"[]", "is not as it was written: the file is damaged"),
        (b"{}", "is not as it was written: the file is damaged"),
        (b'{"format": "1"}', "format '1'"),
        (b'{"format": 1}', "is not as it was written"),
        ({"format": 1}, "has no checksum and size of config.json"),
        ({"format": 1, "files": []}, "has no checksum and size of config.json"),
        ({"format": 1, "files": dict.fromkeys(MODEL, 5)}, "has no checksum and size of config.json"),
        (b"[" * 100_000, "holds 100,000 lists and objects"),
        (b"[" * 400, "is not JSON"),
        ('{"format": 1}'.encode("utf-16"), "is not JSON"),
        (b" " * (checkpoint_format.MAX_JSON_BYTES + 1), "has 1,048,577 bytes, expected at most 1,048,576"),
    ],
)
def test_a_forged_manifest_is_refused(tmp_path, manifest, words):
    raw = files.to_json(manifest) if isinstance(manifest, dict) else manifest
    (write_checkpoint(tmp_path / "new") / "manifest.json").write_bytes(raw)
    assert f"manifest.json: {words}" in refusal(tmp_path / "new")


@pytest.mark.parametrize("field", ["sha256", "bytes"])
@pytest.mark.parametrize("value", ["", None, [], 0.5, float("inf"), -1, 10**400, "x", "g" * 64])
def test_a_forged_manifest_entry_is_refused(tmp_path, field, value):
    path = write_checkpoint(tmp_path / "new") / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"]["vocabulary.json"][field] = value
    path.write_bytes(files.to_json(manifest))
    assert "json: has no checksum and size of vocabulary.json" in refusal(path.parent)


def test_a_forged_size_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "new")
    for name, size, words in [
        ("config.json", 2 << 23, "config.json: has 16,777,216 bytes, expected at most 8,388,608"),
        ("vocabulary.json", 10**6, "vocabulary.json: has 1,000,000 bytes, expected at most 184"),
        ("model.safetensors", 10**9, "model.safetensors: has 1,000,000,000 bytes, expected those of 78 numbers"),
        ("model.safetensors", 300, "model.safetensors: has 300 bytes, expected those of 78 numbers"),
        ("training.json", 10**9, "training.json: has 1,000,000,000 bytes, expected at most 16,777,216"),
        ("optimizer.safetensors", 10**9, "optimizer.safetensors: has 1,000,000,000 bytes, expected those of 156 numbers"),
    ]:
        before = content(folder)
        forge(folder, name, before[name], size)
        assert words in refusal(folder)
        restore(folder, before)
    monkeypatch.setattr(checkpoint_format, "MAX_HEADER_BYTES", 10**9)
    monkeypatch.setattr(store.system, "physical_memory", lambda: 1e6)
    forge(folder, "model.safetensors", b"", 2 * 10**6)
    assert "model.safetensors: has 2,000,000 bytes, more than this machine has memory" in refusal(folder)


def test_running_out_of_memory_is_a_checkpoint_error(tmp_path, monkeypatch):
    def none(*_):
        raise MemoryError

    folder = write_checkpoint(tmp_path / "new")
    monkeypatch.setattr(safetensors.numpy, "load", none)
    monkeypatch.setattr(checkpoint_format, "Exception", ValueError, raising=False)
    assert "model.safetensors: there is no memory for it" in refusal(folder)


def test_forged_tensors_are_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "new")
    for name in ("model.safetensors", "optimizer.safetensors"):
        whole = (folder / name).read_bytes()
        size = len(whole)
        for data, words in [
            ((checkpoint_format.MAX_HEADER_BYTES + 1).to_bytes(8, "little").ljust(size), "header is larger than"),
            (b"\0" * size, "is not a safetensors file"),
            (whole[:-8] + b"\0" * 9, "is not a safetensors file"),
            (whole.replace(b'"F64"', b'"X64"', 1), "is not a safetensors file"),
            (tensor_file(b"[" * 500, bytes(size)), "is not a safetensors file"),
        ]:
            forge(folder, name, data)
            assert f"{name}: " in refusal(folder)
            assert words in refusal(folder)
        forge(folder, name, whole)
    assert equal_checkpoints(store.read(folder, run=True), example())


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("part", "name", "array", "words"),
    [
        ("weights", "by", None, "by is missing, expected floats [6]"),
        ("weights", "more\n", np.zeros(1), "'more\\n' is not expected"),
        ("weights", "by", np.zeros((1, 6)), "by is float64 [1, 6], expected floats [6], all of one type"),
        ("weights", "by", np.zeros(6, np.float32), "layers.0.Wax is float64 [4, 6], expected floats [4, 6], all of one type"),
        ("weights", "by", np.zeros(6, np.int64), "layers.0.Wax is float64 [4, 6], expected floats [4, 6], all of one type"),
        ("weights", "by", np.full(6, np.nan), "by holds numbers that are not finite"),
        ("weights", "Wya", np.full((6, 4), -np.inf), "Wya holds numbers that are not finite"),
        ("training_arrays", "t", None, "t is missing, expected floats []"),
        ("training_arrays", "m", np.zeros(77), "m is float64 [77], expected floats [78]"),
        ("training_arrays", "v", np.zeros(78, np.float32), "v is float32 [78], expected floats [78], all of one type"),
        ("training_arrays", "v", np.full(78, np.inf), "v holds numbers that are not finite"),
        ("training_arrays", "states.0.a", np.zeros((3, 5)), "states.0.a is float64 [3, 5], expected floats [3, 4]"),
        ("training_arrays", "states.0.a", np.zeros(()), "states.0.a is float64 [], expected floats [0, 4]"),
        ("training_arrays", "states.0.c", np.zeros((3, 4)), "'states.0.c' is not expected"),
    ],
)
def test_tensors_of_another_model_are_refused(tmp_path, part, name, array, words):
    saved = example()
    arrays = without(getattr(saved, part), name) | ({} if array is None else {name: array})
    file = "model" if part == "weights" else "optimizer"
    assert f"{file}.safetensors: {words}" in refusal(write_checkpoint(tmp_path / "new", saved._replace(**{part: arrays})))


def test_forged_json_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "new")
    for name in ("config.json", "vocabulary.json", "training.json"):
        whole = (folder / name).read_bytes()
        for data in (b"", b"{", b"\xff", b"9" * 150, b"1e999", b"NaN", whole[:-3], whole.decode().encode("utf-16")[:150]):
            forge(folder, name, data)
            assert f"{name}: " in refusal(folder)
        forge(folder, name, whole)
    assert equal_checkpoints(store.read(folder, run=True), example())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": None}, "is not the configuration of a model"),
        ({"model": {"cell": "gru"}}, "is not the configuration of a model (Config.__init__() missing"),
        ({"model": {"a\nb": 1}}, "is not the configuration of a model"),
        ({"cell": "rnn"}, "cell 'rnn' is unknown"),
        ({"cell": ["gru"]}, "cell ['gru'] is unknown"),
        ({"initial": 5}, "initial state 5 is unknown"),
        ({"mode": {}}, "mode {} is unknown"),
        ({"hidden": 0}, "hidden 0: expected a whole number from 1 to 1000000"),
        ({"hidden": True}, "hidden True: expected"),
        ({"hidden": 4.0}, "hidden 4.0: expected"),
        ({"hidden": "4"}, "hidden '4': expected"),
        ({"hidden": 10**4000}, "hidden 1000000000000000000000000000000000000000: expected"),
        ({"layers": 1001}, "layers 1001: expected a whole number from 1 to 1000"),
        ({"vocabulary": 0x110001}, "vocabulary 1114113: expected a whole number from 1 to 1114112"),
        ({"record": []}, "the record of its training is malformed"),
        ({"record": {"text": 5}}, "the record of its training is malformed"),
        ({"record": {"held_out": "low"}}, "held_out 'low': expected a number"),
        ({"record": {"loss": float("nan")}}, "loss nan: expected a number"),
        ({"record": {"targets": "many"}}, "targets 'many': expected a number"),
        ({"record": {"held_out": 10**400}}, "held_out 1000000000000000000000000000000000000000: expected a number"),
    ],
)
def test_a_forged_configuration_is_refused(tmp_path, changes, words):
    folder = write_checkpoint(tmp_path / "new")
    value = json.loads((folder / "config.json").read_bytes())
    whole = {name: changes.pop(name) for name in ("model", "mode", "record") if name in changes}
    value["model"] |= changes
    forge(folder, "config.json", files.to_json(value | whole))
    assert f"config.json: {words}" in refusal(folder)


@pytest.mark.parametrize(
    ("symbols", "words"),
    [
        (["\n"], "has 1 symbols, the model has 6"),
        (None, "has 256 symbols, the model has 6"),
        ("abcdef", "vocabulary is str, expected a list"),
        ([*"\nabcd", 5], "vocabulary holds 5, expected single characters"),
        ([*"\nabcd", "ef"], "vocabulary holds 'ef', expected single characters"),
        ([*"a\nbcde"], "vocabulary is out of order"),
        ([*"\naabcd"], "vocabulary is out of order"),
        ([*"abcdef"], "vocabulary is out of order"),
        ([[]] * 6, "holds 7 lists and objects, expected at most 1"),
    ],
)
def test_a_forged_vocabulary_is_refused(tmp_path, symbols, words):
    folder = write_checkpoint(tmp_path / "new")
    forge(folder, "vocabulary.json", files.to_json(symbols))
    assert f"vocabulary.json: {words}" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a\nb": 1}, "is not the progress of a run"),
        ({"step": -1}, "holds an invalid count or number"),
        ({"step": True}, "holds an invalid count or number"),
        ({"epoch": 1 << 62}, "holds an invalid count or number"),
        ({"batch": 1.0}, "holds an invalid count or number"),
        ({"seconds": float("inf")}, "holds an invalid count or number"),
        ({"best": 5}, "is not the progress of a run"),
        ({"best": [1]}, "is not the progress of a run"),
        ({"best": [1.5, 1.0]}, "holds an invalid count or number"),
        ({"losses": 5}, "is not the progress of a run"),
        ({"losses": ["1"]}, "holds an invalid count or number"),
        ({"norms": [None]}, "holds an invalid count or number"),
        ({"history": [5]}, "5 is no entry of a history"),
        ({"history": [{}]}, "{} is no entry of a history"),
        ({"history": [{**ROW, "loss": "1"}]}, "is no entry of a history"),
        ({"history": [{**ROW, "held_out": None}]}, "is no entry of a history"),
        ({"history": [{**ROW, "more": [[]]}]}, "is no entry of a history"),
        ({"history": [{**ROW, "sample": "text"}]}, "'text' is no sample"),
        ({"history": [{**ROW, "sample": [5]}]}, "[5] is no sample"),
        ({"history": [{**ROW, "radii": 1.5}]}, "1.5 are no spectral radii"),
        ({"history": [{**ROW, "radii": [1.5]}]}, "[1.5] are no spectral radii"),
        ({"history": [{**ROW, "radii": [["1.5"]]}]}, "[['1.5']] are no spectral radii"),
    ],
)
def test_a_forged_progress_is_refused(tmp_path, changes, words):
    folder = write_checkpoint(tmp_path / "new")
    forge(folder, "training.json", files.to_json(json.loads((folder / "training.json").read_bytes()) | changes))
    message = refusal(folder)
    assert "training.json: " in message
    assert words in message


def test_brackets_in_texts_do_not_count_as_lists(tmp_path):
    row = {**ROW, "sample": ['[{"\\' * 100] * 9}
    saved = example(progress=PROGRESS._replace(history=(row,)), record={"text": "[{" * 500 + '"', "source": "\\"})
    assert equal_checkpoints(store.read(write_checkpoint(tmp_path / "new", saved), run=True), saved)


# Formats: each version that was ever released can be read, and later ones are recognized


AVERAGED = {"average": 0.9, "parametrization": "mup", "weight_decay": 0.1}  # what format 2 has and format 1 has not


def make_golden(folder: Path) -> None:
    """How the golden checkpoint of a format is made, once, before it is released: python tests/test_store.py."""
    with tempfile.TemporaryDirectory() as place:
        run = train(Path(place, "run"), cell="vanilla", hidden=3, dtype="float64", steps=6, stop_after=4, seed=1, **AVERAGED)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(run / "checkpoints" / "step-00000004", folder)


def test_the_golden_checkpoint_of_format_1_is_read():
    folder = GOLDEN / "format-1"
    saved = store.read(folder, run=True)
    assert saved.config == model.Config("vanilla", vocabulary=11, hidden=3)
    assert saved.vocabulary.symbols == tuple("\nabcdelnorv")
    assert (saved.progress.step, len(saved.progress.history), saved.training_arrays["t"]) == (4, 4, 4.0)
    m = bptt.load(folder, backend="numpy")
    assert m.score("anna") == pytest.approx(12.124338243409913, rel=0, abs=1e-12)  # as NumPy gives them without bptt
    assert m.score("bob\neve") == pytest.approx(19.387897405441173, rel=0, abs=1e-12)


@pytest.mark.filterwarnings("ignore::bptt.errors.KernelWarning")  # it was made without them
def test_the_golden_checkpoint_of_format_1_can_be_resumed(tmp_path):
    bptt.train(NAMES, resume=GOLDEN / "format-1", steps=9, out=tmp_path / "on", backend="numpy", report=None)
    progress = store.read(tmp_path / "on" / "checkpoints" / "step-00000009", run=True).progress
    assert [row["step"] for row in progress.history] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.filterwarnings("ignore::bptt.errors.KernelWarning")
def test_the_golden_checkpoint_of_format_1_keeps_its_old_rule(tmp_path):
    """One rate for all tensors, no weight decay and no average, whatever the defaults of new runs are."""
    trained = bptt.train(NAMES, resume=GOLDEN / "format-1", steps=9, out=tmp_path / "on", backend="numpy", report=None)
    assert {name: trained.record["plan"][name] for name in ("parametrization", "weight_decay", "average")} == {
        "parametrization": "standard",
        "weight_decay": 0.0,
        "average": 0.0,
    }
    saved = store.read(tmp_path / "on" / "checkpoints" / "step-00000009", run=True)
    assert saved.training_arrays.keys().isdisjoint({"average", "params"})


def test_a_config_of_format_1_keeps_its_old_rule(tmp_path):
    """It begins with the line that every run wrote, and names no parametrization; what a user wrote has the new defaults."""
    old = tmp_path / "config.toml"
    old.write_text(f"{toml.HEADER}\nhidden = 3\nlearning_rate = 0.01\n")
    kept = toml.read(old)
    assert (kept["parametrization"], kept["weight_decay"], kept["average"]) == ("standard", 0.0, 0.0)
    old.write_text("hidden = 3\n")
    assert toml.read(old) == {"hidden": 3}
    new = train(tmp_path / "run", parametrization="mup", average=0.5) / "config.toml"
    assert (toml.read(new)["parametrization"], toml.read(new)["average"]) == ("mup", 0.5)


@pytest.mark.filterwarnings("ignore::bptt.errors.KernelWarning")  # it was made with them
def test_the_golden_checkpoint_of_format_2_is_read_and_resumed(tmp_path):
    folder = GOLDEN / "format-2"
    saved = store.read(folder, run=True)
    assert saved.record["plan"]["average"] == 0.9
    assert saved.training_arrays.keys() >= {"t", "m", "v", "average", "params"}
    m = bptt.load(folder, backend="numpy")
    assert m.score("anna") == pytest.approx(14.932005247424945, rel=0, abs=1e-12)
    assert m.score("bob\neve") == pytest.approx(24.16450194335526, rel=0, abs=1e-12)
    bptt.train(NAMES, resume=folder, steps=9, out=tmp_path / "on", backend="numpy", report=None)
    progress = store.read(tmp_path / "on" / "checkpoints" / "step-00000009", run=True).progress
    assert [row["step"] for row in progress.history] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("found", [3, 0, "1", None, 1.5, [1], 10**400])
def test_another_format_is_reported_before_anything_else(tmp_path, found):
    path = write_checkpoint(tmp_path / "new") / "manifest.json"
    path.write_text(json.dumps({"format": found, "pieces": [[]]}))
    assert refusal(path.parent).startswith(f"{path}: format {found!r:.40}, expected 1 or 2: use the bptt version that wrote it")


if __name__ == "__main__":
    make_golden(made := GOLDEN / f"format-{checkpoint_format.FORMAT}")
    print({text: bptt.load(made, backend="numpy").score(text) for text in ("anna", "bob\neve")})
