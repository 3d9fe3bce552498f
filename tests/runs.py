"""The folder of a run, as tests compare it, and a run in a process of its own."""

import contextlib
import functools
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bptt import acceleration
from bptt.nn.optimizers import OPTIMIZERS

NAMES = [a + b + c for a in "bdk" for b in "aeiou" for c in ("nn", "r")]  # 30 lines of 3 or 4 characters
PROSE = "the cat sat on the mat, and the dog did not. " * 8 + "\n"  # a stream of 361 characters
MAIN = "import sys; from bptt.__main__ import main; sys.exit(main())"
NO_PICTURES = "from bptt.display import plots; plots.available = lambda: False\n"  # drawing takes longer than all the rest
PLAIN = NO_PICTURES + MAIN


def replace_adam(monkeypatch: pytest.MonkeyPatch, update: Callable[..., Any]) -> None:
    """Let training runs in this process call another update for Adam, but no warm-up, which would call it, too."""
    monkeypatch.setattr(acceleration, "warm_up", lambda *_: None)
    monkeypatch.setitem(OPTIMIZERS, "adam", OPTIMIZERS["adam"]._replace(update=update))


def saved_steps(run: Path) -> list[int]:
    """The steps of the checkpoints of a run, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-????????"))


def newest_checkpoint(run: Path) -> Path:
    """The newest checkpoint."""
    return run / "checkpoints" / f"step-{saved_steps(run)[-1]:08d}"


def outcome(run: Path) -> dict[str, Any]:
    """What a run has come to, and how, but for the seconds: it must not depend on where the run was stopped."""
    here = newest_checkpoint(run)
    progress = json.loads((here / "training.json").read_text())
    return {
        **{name: sha256_of(here / f"{name}.safetensors") for name in ("model", "optimizer")},
        "latest": (run / "checkpoints" / "latest").resolve().name,
        "best": (run / "checkpoints" / "best").resolve().name,
        "progress": without_seconds(progress) | {"history": [without_seconds(row) for row in progress["history"]]},
        "metrics": [without_seconds(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()],
        "samples": (run / "samples.txt").read_text(),
        "left behind": [path.name for path in run.rglob(".bptt-*")],
    }


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    """The same without the seconds, which are never the same."""
    return {name: value for name, value in row.items() if name != "seconds"}


def flip_last_bit(file: Path) -> None:
    """Flip the last bit of a file."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@contextlib.contextmanager
def bptt_process(
    *arguments: Any, code: str = PLAIN, options: tuple[str, ...] = (), **keywords: Any
) -> Iterator[subprocess.Popen[str]]:
    """`bptt` with these arguments, or other code, with one thread of BLAS; it does not outlive the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **keywords.pop("env", {})}
    command = [sys.executable, *options, "-c", code, *map(str, arguments)]
    # a shell that runs the tests in the background has them ignore SIGINT, nohup SIGHUP, and so would this process
    handlers: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords}
        running = subprocess.Popen(command, env=environment, text=True, **pipes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with running:
        try:
            yield running
        finally:
            running.kill()


def run_bptt(*arguments: Any, code: str = PLAIN, **keywords: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of `bptt` with these arguments."""
    with bptt_process(*arguments, code=code, **keywords) as running:
        out, err = running.communicate(timeout=120)
        return running.returncode, out, err


# waits for jobs, each of which a child does that need not import anything
FORKING = """
import json, os, sys
import numpy.random, bptt.cli.train, bptt.training.trainer
for line in sys.stdin:
    if os.fork() == 0:
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    sys.exit()
job = json.loads(line)
os.chdir(job["folder"])
os.environ.clear()
os.environ.update(job["environment"])
for number, file in enumerate((os.devnull, job["out"], job["err"])):
    os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
sys.argv[1:] = job["arguments"]
exec(job["code"], {"__name__": "__main__"})
"""


@functools.cache
def _forking() -> subprocess.Popen[str]:
    """The process that makes the others, between two of which it ends with this one, whose end of the pipe it reads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FORKING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)


def run_bptt_forked(*arguments: Any, code: str = PLAIN) -> tuple[int, str, str]:
    """What `bptt` gives, sooner: a start of Python takes longer than most of these runs."""
    running = _forking()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder, name)) for name in ("out", "err")}
        job = {"folder": os.getcwd(), "environment": dict(os.environ), "code": code, **files}
        job["arguments"] = [str(argument) for argument in arguments]
        print(json.dumps(job), file=running.stdin, flush=True)
        assert running.stdout is not None
        if not select.select([running.stdout], [], [], 120)[0]:
            os.killpg(running.pid, signal.SIGKILL)  # with its child
            running.communicate()
            _forking.cache_clear()
            raise subprocess.TimeoutExpired(job["arguments"], 120)
        ended = int(running.stdout.readline())
        return ended, Path(files["out"]).read_text("utf-8"), Path(files["err"]).read_text("utf-8")


@functools.cache
def uninterrupted_outcome(*flags: str) -> dict[str, Any]:
    """What a run of the names comes to with these flags when nothing stops it; made once for all tests that compare theirs."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "names.txt").write_text("\n".join(NAMES) + "\n")
        assert run_bptt("train", "names.txt", *flags, "--out", "whole", cwd=folder)[0] == 0
        return outcome(Path(folder, "whole"))


def wait_until(running: subprocess.Popen[str], condition: Callable[[], bool]) -> bool:
    """Whether something comes true before a process ends by itself."""
    while running.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False
