"""Checkpoints from strangers: whatever their files hold, they are refused in words, or they work."""

import json
import os
import pickle
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import bptt
from bptt import backend as backends
from bptt import cli, errors, files
from bptt.checkpoint import run_folder
from bptt.checkpoint.format import Checkpoint
from bptt.errors import InputError, KernelWarning
from bptt.inference import language_model
from bptt.report import page
from bptt.train_step import stepper
from bptt.training import resume
from forging import ALL, RUN, content, forge, restore, tensor_file, train, training_text
from fuzzing import mutate_file

CHUNKS = 10  # for each of two runs; half of them leave the manifest as it was
EACH = int(os.environ.get("BPTT_MUTATIONS", "10000")) // (2 * CHUNKS)


# What becomes of them


@pytest.fixture(scope="module", params=["lines", "stream"])
def original(request, tmp_path_factory):
    """The mode of a run, and the files of a checkpoint in the middle of it."""
    run = train(tmp_path_factory.mktemp("runs") / request.param, request.param, stop_after=7)
    return request.param, content(run / "checkpoints" / "latest")


def use_checkpoint(where: Path, saved: Checkpoint, source: Any, *, changed_text: bool) -> None:
    """All that somebody may do with a checkpoint: look at it, let it write, go on with it, save it."""
    model = language_model.model_from_checkpoint(saved, backends.select("numpy", "float32"))
    assert repr(model)
    model.sample(1, length=5)
    ready = resume.from_checkpoint(where, saved, source, {}, changed_text=changed_text)
    next(stepper.run_updates(ready.task, ready.now.state))
    files.to_json([ready.record, ready.now.progress._asdict()])


def refusal(where: Path, source: Any, *, changed_text: bool) -> str:
    """Why a checkpoint is refused, or nothing; any other error is one."""
    try:
        _, saved = run_folder.read_checkpoint(where, run=True)
        use_checkpoint(where, saved, source, changed_text=changed_text)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_damaged_files_are_refused_with_a_message_or_work(original, tmp_path, chunk):
    mode, whole = original
    forged = chunk % 2 == 1
    rng = random.Random(f"{mode} {chunk}")
    where = tmp_path / "checkpoint"
    restore(where, whole)
    refused = 0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", errors.BackendWarning)  # a forged name of one that is not here
        warnings.simplefilter("ignore", KernelWarning)  # a forged record of their use
        for _ in range(EACH):
            name = rng.choice(ALL)
            data = mutate_file(rng, name, whole[name], forged=forged)
            if forged and name in RUN:
                forge(where, name, data)
            else:
                restore(where, {name: data})
            reason = refusal(where, training_text(mode), changed_text=rng.random() < 0.5)
            restore(where, {part: whole[part] for part in (name, "manifest.json")})
            refused += bool(reason)
            if reason:
                assert reason.startswith(f"{where}")
                assert reason.isprintable()
            elif not forged:
                assert data == whole[name]
            assert len(reason) < 3000
    assert refused > 0.6 * EACH
    assert not forged or refused < 0.95 * EACH  # many of the forged ones are read to the end, and used
    assert refusal(where, training_text(mode), changed_text=False) == ""


@pytest.mark.parametrize("rows", [None, 0, 1, 2, 4])
def test_states_that_do_not_fit_the_next_batch_are_refused(original, tmp_path, rows):
    mode, whole = original
    restore(tmp_path / "new", whole)
    arrays = safetensors.numpy.load(whole["optimizer.safetensors"])
    states = {name: array for name, array in arrays.items() if name.startswith("states")}
    rest = {name: array for name, array in arrays.items() if name not in states}
    forged = {} if rows is None else {name: np.resize(array, (rows, array.shape[1])) for name, array in states.items()}
    forge(tmp_path / "new", "optimizer.safetensors", safetensors.numpy.save(rest | forged))
    reason = refusal(tmp_path / "new", training_text(mode), changed_text=False)
    assert ("cannot be resumed from its states: use another checkpoint" in reason) == (mode == "stream")  # a line begins anew


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        (("plan", "length"), 10**30, "is not the record of a run (length 1000"),
        (("plan", "batch"), 10**30, "is not the record of a run (batch 1000"),
        (("plan", "hidden"), 7, "is not the record of this model's run"),
        (("plan", "dropout"), 1.0, "is not the record of a run (dropout 1.0: expected a fraction"),
        (("settings", "x" * 10**6), 1, "is not the record of a run (setting 'xxx"),
        (("settings",), [], "is not the record of a run"),
        (("source",), None, "is not the record of this model's run"),
        (("targets",), "many", "targets 'many': expected a number"),
        ((), {"targets": None, "sha256": "x"}, "its text has changed: "),
        (("sha256",), [], "its text has changed: it is as long as before, but not the same: give the text as it was"),
    ],
)
def test_a_forged_record_is_refused(original, tmp_path, part, value, words):
    mode, whole = original
    restore(tmp_path / "new", whole)
    found = json.loads(whole["config.json"])
    holder = found["record"]
    for key in part[:-1]:
        holder = holder[key]
    holder |= {part[-1]: value} if part else value
    forge(tmp_path / "new", "config.json", files.to_json(found))
    reason = refusal(tmp_path / "new", training_text(mode), changed_text=False)
    assert words in reason
    assert len(reason) < 1000


@pytest.mark.skipif(os.name != "posix", reason="devices, pipes and holes of POSIX")
@pytest.mark.parametrize("kind", ["device", "pipe", "hole", "other"])
@pytest.mark.parametrize(
    ("part", "command"),
    [
        ("text", "train --resume new"),
        ("text", "report new"),
        ("text", "sample new --novel"),
        ("validation set", "train --resume new"),
        ("validation set", "report new"),
    ],
)
def test_a_record_leads_to_no_file_but_its_text(original, tmp_path, monkeypatch, capsys, part, command, kind):
    if command.startswith("report"):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: the extra plot brings it")
    mode, whole = original
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    restore(tmp_path / "new", whole)
    place = {"device": Path("/dev/zero"), "other": Path(__file__)}.get(kind, tmp_path / "found")
    if kind == "pipe":
        os.mkfifo(place)  # to open it would wait for ever
    elif kind == "hole":
        with place.open("wb") as file:
            file.truncate(3 * 10**9)
    found = json.loads(whole["config.json"])
    record = found["record"]
    text, learned = tmp_path / "text.txt", training_text(mode)
    text.write_text(learned if isinstance(learned, str) else "\n".join(learned))
    size = text.stat().st_size
    if part == "text":
        record |= {"source": str(place), "bytes": size}
    else:
        record |= {"source": str(text), "bytes": size, "validation": {"source": "", "sha256": "", "bytes": 12}}
        record["settings"]["validation"] = str(place)
    forge(tmp_path / "new", "config.json", files.to_json(found))
    assert cli.main(command.split()) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(place) in message
    assert ("bytes now" if kind in ("hole", "other") else "is not a regular file") in message
    assert not Path("cache").exists()


# Extreme numbers


@pytest.fixture
def huge(original, tmp_path, monkeypatch):
    """A checkpoint in `new` whose weights are as large as float32 allows."""
    monkeypatch.chdir(tmp_path)
    _, whole = original
    restore(tmp_path / "new", whole)
    arrays = safetensors.numpy.load(whole["model.safetensors"])
    rng = np.random.default_rng(0)
    for name, array in arrays.items():
        arrays[name] = rng.choice(np.array([-3.4e38, 3.4e38], np.float32), array.shape)
    forge(tmp_path / "new", "model.safetensors", safetensors.numpy.save(arrays))
    Path("text.txt").write_text("ad\n")
    return whole


@pytest.mark.parametrize("flags", ["", "--dtype float64"])
@pytest.mark.parametrize(
    "command",
    [
        "next new a",
        "next new a --json",
        "score new text.txt --json",
        "evaluate new text.txt",
        "evaluate new text.txt --dynamic",
        "sample new --length 3",
    ],
)
def test_results_that_are_not_finite_are_an_error(huge, capsys, command, flags):
    """In float64 they are finite, but so large that their digits would fill the screen."""
    code = cli.main([*command.split(), *flags.split()])
    out, err = capsys.readouterr()
    assert "nan" not in out.lower()
    assert not re.search(r"\d{100}", out)
    for line in out.splitlines():
        if line.startswith("{"):
            json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    if not flags:
        assert code == 2
        assert err.count("\n") == 1
        expected = "the predictions of the model are not finite numbers: its weights are too large: compute in another type"
        assert expected in err


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        (("seconds",), 1e299, "holds an invalid count or number"),
        (("seconds",), -1.0, "holds an invalid count or number"),
        (("history", -1, "seconds"), 1e299, "holds an invalid time"),
        (("history", -1, "step"), -(10**12), "holds an invalid count"),
        (("history", 0, "step"), 10**12, "holds a history whose steps fall"),
        (("history", -1, "characters"), 1.5, "holds an invalid count"),
        (("history", -1, "loss"), 10**400, "is no entry of a history"),
    ],
)
def test_a_history_with_numbers_out_of_range_is_refused(original, tmp_path, part, value, words):
    mode, whole = original
    restore(tmp_path / "new", whole)
    found = json.loads(whole["training.json"])
    holder = found
    for key in part[:-1]:
        holder = holder[key]
    holder[part[-1]] = value
    forge(tmp_path / "new", "training.json", files.to_json(found))
    assert words in refusal(tmp_path / "new", training_text(mode), changed_text=False)


def test_a_report_does_without_a_clip_norm_that_is_no_number(original, tmp_path):
    _, whole = original
    restore(tmp_path / "new", whole)
    found = json.loads(whole["config.json"])
    found["record"]["settings"]["clip_norm"] = 10**400
    forge(tmp_path / "new", "config.json", files.to_json(found))
    assert page._clip(bptt.load(tmp_path / "new")) is None


# Bombs: refused before they take time or memory

MEASURE = """
import json, os, resource, sys, time
from pathlib import Path
from bptt import errors
from bptt.checkpoint import store

def said(place):
    try:
        store.read(Path(place), run=True)
    except errors.CheckpointError as error:
        return str(error)

for place in sys.argv[1:]:
    if os.fork() == 0:  # so that each has its own peak
        before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
        for _ in range(3):
            began = time.perf_counter()
            words = said(place)
            seconds.append(time.perf_counter() - began)
        megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
        print(json.dumps([Path(place).name, words, min(seconds), megabytes]), flush=True)
        os._exit(0)
    os.wait()
"""


def config(**changes: Any) -> Any:
    """A bomb: a model of another shape."""

    def plant(where: Path) -> None:
        value = json.loads((where / "config.json").read_bytes())
        value["model"] |= changes
        forge(where, "config.json", files.to_json(value))

    return plant


def file(name: str, data: bytes) -> Any:
    """A bomb: a file that holds something else."""
    return lambda where: forge(where, name, data)


def sparse(name: str, size: int, **changes: Any) -> Any:
    """A file of zeros that takes no space on the disk."""

    def plant(where: Path) -> None:
        config(**changes)(where)
        forge(where, name, b"", size)
        os.truncate(where / name, size)

    return plant


def one_tensor(shape: list[int], end: int = 4) -> Any:
    """A bomb: a tensor with a shape that its bytes do not bear out, in a file as large as it should be."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    return file("model.safetensors", tensor_file({"Wya": entry}, bytes(1400)))


def link(name: str, target: str) -> Any:
    """A bomb: a link in place of a file, if it is one of the checkpoint, to what is in it."""

    def plant(where: Path) -> None:
        outside = where.with_name(f"{where.name} {name}")
        (where / name).rename(outside)
        (where / name).symlink_to(target or outside)

    return plant


def listed(name: str) -> Any:
    """A bomb: a manifest that lists a file elsewhere."""

    def plant(where: Path) -> None:
        manifest = json.loads((where / "manifest.json").read_bytes())
        manifest["files"][name] = manifest["files"]["config.json"]
        (where / "manifest.json").write_bytes(files.to_json(manifest))

    return plant


class Touch:
    """What a pickle of it does when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(where: Path) -> None:
    bomb = pickle.dumps(Touch(where / "touched"))
    pickle.loads(bomb).close()
    (where / "touched").unlink()  # it works
    forge(where, "model.safetensors", bomb.ljust(1804, b"\0"))


def pipe(where: Path) -> None:
    (where / "training.json").unlink()
    os.mkfifo(where / "training.json")


def manifest_of_2_gb(where: Path) -> None:
    os.truncate(where / "manifest.json", 2 * 10**9)


EMPTY = {f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(16_000)} | {
    "Wya": {"dtype": "F32", "shape": [350], "data_offsets": [0, 1400]}
}
BOMBS: dict[str, tuple[Any, str]] = {
    "header of 76 MB": (file("model.safetensors", tensor_file(b" " * 76_000_000)), "has 76,000,008 bytes"),
    "header of 2**63": (file("model.safetensors", (2**63).to_bytes(8, "little").ljust(1804)), "header is larger than"),
    "header of 16,000 tensors": (file("model.safetensors", tensor_file(EMPTY, bytes(1400))), "'0' is not expected"),
    "shape of 10**18": (one_tensor([10**9, 10**9]), "is not a safetensors file"),
    "shape beyond 2**64": (one_tensor([2**40, 2**40]), "is not a safetensors file"),
    "offsets beyond the end": (one_tensor([10**9], 4 * 10**9), "is not a safetensors file"),
    "hidden 10**9": (config(hidden=10**9), "hidden 1000000000: expected a whole number from 1 to 1000000"),
    "hidden 10**30": (config(hidden=10**30), "hidden 1"),
    "hidden 10**4000": (config(hidden=10**4000), "hidden 1"),
    "hidden 10**6": (config(hidden=10**6), "model.safetensors: has 1,804 bytes, expected those of 3,000,0"),
    "layers 10**6": (config(layers=10**6), "layers 1000000: expected a whole number from 1 to 1000"),
    "layers 1000": (config(layers=1000), "model.safetensors: has 1,804 bytes, expected those of"),
    "vocabulary 10**9": (config(vocabulary=10**9), "vocabulary 1000000000: expected a whole number from 1 to"),
    "vocabulary 10**6": (config(vocabulary=10**6), "model.safetensors: has 1,804 bytes, expected those of"),
    "weights of 50 GB": (sparse("model.safetensors", 50 * 10**9), "has 50,000,000,000 bytes, expected those of 331 numbers"),
    "weights of 12 TB": (sparse("model.safetensors", 12_000_196_100_000, hidden=10**6), "more than this machine has memory"),
    "memory of 50 GB": (sparse("optimizer.safetensors", 50 * 10**9), "has 50,000,000,000 bytes, expected"),
    "config of 2 GB": (sparse("config.json", 2 * 10**9), "config.json: has 2,000,000,000 bytes, expected at most"),
    "vocabulary of 2 GB": (sparse("vocabulary.json", 2 * 10**9), "vocabulary.json: has 2,000,000,000 bytes, expected at most"),
    "training of 2 GB": (sparse("training.json", 2 * 10**9), "training.json: has 2,000,000,000 bytes, expected at most"),
    "manifest of 2 GB": (manifest_of_2_gb, "manifest.json: has 2,000,000,000 bytes, expected at most"),
    "10**6 lists in lists": (file("training.json", b"[" * 10**6 + b"]" * 10**6), "holds 1,000,000 lists and objects"),
    "10**6 lists": (file("training.json", b"[[]" + b",[]" * 10**6 + b"]"), "holds 1,000,002 lists and objects"),
    "a few lists in lists": (file("config.json", b"[" * 400 + b"]" * 400), "config.json: is not the configuration of a model"),
    "pickle": (pickled, "its header is larger than"),
    "link to a file": (link("model.safetensors", ""), "model.safetensors: is not a regular file"),
    "link to the manifest": (link("manifest.json", ""), "manifest.json: is not a regular file"),
    "link to zeros": (link("config.json", "/dev/zero"), "config.json: is not a regular file"),
    "path upwards": (listed("../config.json"), "lists '../config.json', which is no file of a checkpoint"),
    "absolute path": (listed("/etc/passwd"), "lists '/etc/passwd', which is no file of a checkpoint"),
    "pipe": (pipe, "training.json: is not a regular file"),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What is said of each bomb, and the seconds and megabytes that it took."""
    place = tmp_path_factory.mktemp("bombs")
    whole = content(train(place / "run", stop_after=7) / "checkpoints" / "latest")
    for name, (plant, _) in BOMBS.items():
        restore(place / name, whole)
        plant(place / name)
    command = [sys.executable, "-c", MEASURE, *(str(place / name) for name in BOMBS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert not list(place.glob("*/touched"))
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks as Linux counts them, and sparse files")
@pytest.mark.parametrize("name", BOMBS)
def test_oversized_claims_take_neither_time_nor_memory(measured, name):
    words, seconds, megabytes = measured[name]
    print(f"{1000 * seconds:.1f} ms, {megabytes:.1f} MB: {words}")
    assert BOMBS[name][1] in words
    assert words.isprintable()
    assert megabytes < 50
    assert seconds < 2  # 0.2 on a machine that does nothing else
