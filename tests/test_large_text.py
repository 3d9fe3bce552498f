"""Large texts: the memory that reading and batching takes is bounded, whatever the text is like."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bptt.config.settings import Settings
from bptt.data import corpus, dataset, loading

MB = 1_000_000
NAMES = b"".join(f"{a}{b}{c}{d}na\n".encode() for a in "bdfgk" for b in "aeiou" for c in "lmnrst" for d in ("ia", "e", "orio"))
RARE = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))  # more than 256 symbols: two bytes for each id
PROSE = "the cat sat on the mat, and the dog, who had seen it all before, did not; so it went on and on.\n" * 9

# text, mode, vocabulary, and the most memory (MB) where the text has 100 MB
KINDS = {
    "stream": (PROSE.encode(), "stream", "characters", 100),
    "lines": (NAMES, "lines", "characters", 260),
    "lines of bytes": (NAMES, "lines", "bytes", 260),
    "one line": (b"all on one line, ", "lines", "characters", 100),
    "many symbols": ((PROSE + RARE + "\n").encode(), "stream", "characters", 120),
    "lines of many symbols": (NAMES * 9 + "\n".join(RARE).encode() + b"\n", "lines", "characters", 260),
}

SCRIPT = """
import itertools, json, resource, sys
import numpy as np
import bptt.train_step.update
from bptt import backend
from bptt.data import dataset
from bptt.config.settings import Settings
from bptt.data import batches

path, mode, vocabulary = sys.argv[1:]
ready = dataset.prepare(path, Settings(mode=mode, vocabulary=vocabulary), np.random.default_rng(0))
read = batches.batch_reader(ready.training.ids, backend.select("numpy"))
batch, length = (128, 256) if mode == "lines" else (32, 64)
count = dataset.batches_in_epoch(ready, batch, length, 0)
for _, window in itertools.islice(dataset.epochs(ready, batch, length, 0), 1000):
    read(window)
for position in (dataset.Position(0, count // 2), dataset.Position(1, count - 1)):
    for _, window in itertools.islice(dataset.epochs(ready, batch, length, 0, position), 30):
        read(window)
held_out = sum(float(read(window).mask.sum()) for window in dataset.validation_windows(ready)) if len(ready.validation) else 0
dataset.contained(ready, ["bailana", "the cat sat on the dog"])
try:  # on Linux ru_maxrss begins with the peak of the process that started this one
    peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({
    "peak": peak / 1e6,
    "targets": dataset.count_targets(ready.training) + dataset.count_targets(ready.validation),
    "held_out": held_out == dataset.count_targets(ready.validation),
    "type": str(ready.training.ids.dtype),
    "sequences": len(ready.training) + len(ready.validation),
}))
"""


def measure(folder, kind, megabytes):
    text, mode, vocabulary, _ = KINDS[kind]
    path = folder / "large.txt"
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(text * (MB // len(text)))
    environment = {**os.environ, "BPTT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("COVERAGE_PROCESS_START", None)
    command = [sys.executable, "-c", SCRIPT, str(path), mode, vocabulary]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    path.unlink()
    copies = MB // len(text) * megabytes
    found = json.loads(answer.stdout)
    assert found["held_out"]
    assert found["type"] == ("uint16" if RARE.encode() in text or b"\n".join(map(str.encode, RARE)) in text else "uint8")
    whole = mode == "lines" and not text.endswith(b"\n")  # the newline that ends the last line is to be predicted, too
    assert found["targets"] == len(text.decode()) * copies + whole
    assert found["sequences"] == ((text.count(b"\n") * copies or 1) if mode == "lines" else 2)
    return found["peak"]


needs_getrusage = pytest.mark.skipif(os.name == "nt", reason="measures with resource.getrusage")


@needs_getrusage
@pytest.mark.parametrize("kind", KINDS)
def test_reading_twenty_megabytes_takes_little_memory(tmp_path, kind):
    assert measure(tmp_path, kind, 20) < 40 + KINDS[kind][-1] / 3


@needs_getrusage
@pytest.mark.endurance
@pytest.mark.parametrize("kind", KINDS)
def test_reading_a_hundred_megabytes_takes_little_memory(tmp_path, kind):
    assert measure(tmp_path, kind, 100) < KINDS[kind][-1]


def test_a_long_run_of_combining_marks_is_read(tmp_path, monkeypatch):
    text = "a" + "\u0301" * 400_000 + "\nb\n"
    path = tmp_path / "marks.txt"
    path.write_text(text, "utf-8")
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    for large in (loading.LARGE, 1000):
        monkeypatch.setattr(loading, "LARGE", large)
        read = corpus.read(path)
        assert len(read.ids) == 1 + 400_004
        assert read.vocabulary.symbols == ("\n", "a", "b", "\u0301")
        for mode in ("lines", "stream"):
            ready = dataset.prepare(path, Settings(mode=mode), np.random.default_rng(0))
            assert dataset.count_targets(ready.training) + dataset.count_targets(ready.validation) == 400_004
    assert list(Path(tmp_path / "cache").glob("*.ids"))
