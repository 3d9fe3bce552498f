"""Commands on forged runs: `python tests/forged_commands.py FIRST END FOLDER` runs the cases FIRST to END - 1.

Each case takes two small runs, a model and its exports, replaces some of what their files hold, with checksums that fit, and
calls a command or a function on them. It depends on its number alone, so one can be repeated by itself. A case is a line of
JSON on standard output, and its problems are what must never happen.
"""

import contextlib
import faulthandler
import gzip
import io
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import bptt
from bptt import cli, inspect
from bptt.data import loading
from bptt.display import plots
from bptt.errors import Diverged, InputError
from forging import NAMES, STREAM, reseal
from fuzzing import SPECIAL_FILES, forge_file

SECONDS = 60  # after which a case is ended
MEMORY = 3 << 30  # bytes of addresses that a process may take beyond those at the start
LONGEST = 3000  # characters of a line on standard error
TAIL = 2000  # characters of what a failing case printed that its report keeps
CODES = (0, 2, 3)
TOO_LARGE = 4  # of a size in bptt.toml that this machine has no memory for, if that is known before it is taken
OUTSIDE = "outside"  # a folder that no case may change

RUNS = ("lines", "stream", "records")
CHECKPOINT = "checkpoints/step-00000007"
PARTS = ("config.json", "vocabulary.json", "model.safetensors", "training.json", "optimizer.safetensors")
BESIDE = ("env.json", "config.toml", "metrics.jsonl", "samples.txt", ".lock", "checkpoints/best", "checkpoints/latest")
LINKS = ["step-00000007", "step-00000008", "best", "../checkpoints", "../../stream/checkpoints/step-00000007", "a\nb"]
TEXTS = {"lines": "names.txt", "stream": "prose.txt", "records": "poems.txt"}

# (how often, a command: {run}, its {text}, and {ckpt}, the run, its checkpoint, a link to that, or a saved model)
COMMANDS: list[tuple[int, str]] = [
    (8, "train --resume {run} --stop-after 1 --json"),
    (4, "train --resume {run} --stop-after 2"),
    (3, "train {text} --resume {run} --changed-text --stop-after 1 --json"),
    (3, "train --resume {ckpt} --stop-after 1 --out new --json"),
    (5, "train {text} --from {ckpt} --steps 2 --out new --json"),
    (6, "train --config settings.toml --steps 2 --out new --json"),
    (3, "train --config {run}/config.toml --steps 2 --out new"),
    (2, "train {text} --steps 2 --out new --json"),
    (2, "train --dry-run --config settings.toml --json"),
    (4, "sample {ckpt} --count 2 --length 9"),
    (2, "sample {ckpt} --prompt an --unknown skip --temperature 0 --length 5 --top-k 3"),
    (3, "sample {run} --novel --count 2 --length 9"),
    (4, "next {ckpt} an --unknown skip --json"),
    (2, "next {ckpt} --temperature 0"),
    (4, "score {ckpt} {text} --unknown skip --json"),
    (2, "score {ckpt} {text} --unknown skip --json --per-char --dtype float64"),
    (4, "evaluate {ckpt} {text}"),
    (2, "evaluate {ckpt} {text} --dynamic"),
    (2, "evaluate {run} {ckpt} --text {text}"),
    (1, "report {run}"),
    (4, "export {ckpt} --to torch --out new.safetensors"),
    (3, "export {ckpt} --to page --out new.html"),
    (2, "export {ckpt} --to onnx --out new.onnx"),
    (5, "import {run}.safetensors --out new"),
    (3, "import bare.safetensors --out new --mode lines --symbols symbols.json"),
    (1, "info --json"),
    (2, "runs {run}"),
    (2, "runs . --json"),
    (2, "compare {run} {ckpt}"),
    (2, "compare lines stream --json"),
]


def python_calls(run: str, checkpoint: str, text: str) -> dict[str, Callable[[], Any]]:
    """Functions that a user may call, by name."""
    words = {"lines": "anna", "stream": "the cat", "records": "ann\nben"}[run]
    load = lambda: bptt.load(checkpoint, backend="numpy")  # noqa: E731
    return {
        "load": lambda: repr(load()),
        "sample": lambda: load().sample(3, length=5),
        "novel": lambda: load().sample(2, length=5, novel=True),
        "novel text": lambda: load().sample(2, length=5, novel="more.gz"),
        "score": lambda: load().score(words),
        "scores": lambda: [(line.nats, line.symbols) for line in load().scores([words], unknown="skip")],
        "next": lambda: load().next(words, unknown="skip"),
        "activations": lambda: inspect.activations(load(), words),
        "gradient_flow": lambda: inspect.gradient_flow(load(), words),
        "jacobian_spectrum": lambda: inspect.jacobian_spectrum(load(), words[:2]),
        "save": lambda: load().save("new"),
        "Ensemble": lambda: bptt.Ensemble([load(), bptt.load(run, backend="numpy")]).score(words),
        "from_torch": lambda: bptt.from_torch(f"{run}.safetensors").sample(1, length=5),
        "train": lambda: bptt.train(resume=run, stop_after=1, report=None),
        "fine-tune": lambda: bptt.train(text, from_=checkpoint, steps=2, backend="numpy", report=None),
    }


def make_originals() -> None:
    """Make the files of all cases in the current folder."""
    Path("names.txt").write_text("\n".join(NAMES) + "\n")
    Path("prose.txt").write_text(STREAM)
    common = {"backend": "numpy", "report": None, "steps": 9, "stop_after": 7, "evaluate_every": 7}
    bptt.train("names.txt", out="lines", hidden=5, average=0.9, **common)
    stream = {"hidden": 4, "layers": 2, "cell": "lstm", "mode": "stream", "batch": 3, "length": 6}
    bptt.train("prose.txt", out="stream", validation=0.2, **stream, **common)
    Path("poems.txt").write_text("%\n".join(f"{a}\n{b}\n" for a, b in pairwise(NAMES)))
    drawn = random.Random(0).choices(NAMES, k=9000)  # of which gzip makes a tenth
    Path("more.gz").write_bytes(gzip.compress("\n%\n".join(drawn).encode(), mtime=0))
    bptt.train([Path("poems.txt"), Path("more.gz")], out="records", hidden=5, separator="%\n", batch=4, **common)
    for run in RUNS:
        bptt.load(run, backend="numpy").export("torch", f"{run}.safetensors")
    bptt.load("lines", backend="numpy").save("model")
    shutil.copy("lines.safetensors", "bare.safetensors")
    Path("symbols.json").write_bytes(Path("model/vocabulary.json").read_bytes())
    anywhere = ['backend = "numpy"', "learning-rate = 0.01", "batch = 4", "validation = 0.2", "clip-norm = 2.0"]
    Path("bptt.toml").write_text("\n".join(anywhere) + "\n")
    settings = ['text = "names.txt"', "hidden = 5", 'cell = "gru"', 'mode = "lines"', 'optimizer = "adam"', "beta1 = 0.8"]
    Path("settings.toml").write_text("\n".join([*anywhere, *settings]) + "\n")


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file of a folder, and what its links lead to."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def restore(folder: Path, files: dict[str, bytes | str]) -> None:
    """Make a folder of these files, and nothing else."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(content) if isinstance(content, str) else path.write_bytes(content)


def forge_files(rng: random.Random, run: str, checkpoint: str, command: str) -> list[str]:
    """Replace something in one to three files that the command may read; returns their names."""
    inside = checkpoint if checkpoint == "model" else f"{run}/{CHECKPOINT}"
    candidates = [f"{inside}/{name}" for name in PARTS if (Path(inside) / name).exists()] * 3
    if checkpoint != "model":
        candidates += [f"{run}/{name}" for name in BESIDE]
    if command.startswith("train --") and "--resume" not in command:
        candidates = ["settings.toml", f"{run}/config.toml"]
    if command.startswith(f"train {TEXTS[run]} --steps"):
        candidates = ["bptt.toml"]
    if command.startswith(("import", "from_torch")):
        candidates = [f"{run}.safetensors", "bare.safetensors", "symbols.json"]
    names = sorted({rng.choice(candidates) for _ in range(rng.choice([1, 1, 1, 2, 3]))})
    for name in names:
        path = Path(name)
        whole = b"" if name.endswith(("best", "latest", ".lock")) else path.read_bytes()
        forged = forge_file(rng, name, whole) if whole else rng.choice(SPECIAL_FILES + LINKS)
        path.unlink(missing_ok=True)
        if isinstance(forged, bytes):
            path.write_bytes(forged)
        elif forged == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(forged)
    if Path(inside, "manifest.json").exists():
        reseal(Path(inside))
    return names


def choose(rng: random.Random) -> tuple[str, str, str]:
    """A run, a checkpoint of it or a saved model, and a command, or the name of a function with () behind it."""
    run = rng.choice(RUNS)
    checkpoints = [run, f"{run}/{CHECKPOINT}", f"{run}/checkpoints/best"]
    checkpoint = rng.choice([*checkpoints, "model"] if run == "lines" else checkpoints)
    calls = python_calls(run, checkpoint, TEXTS[run])
    weights = [weight for weight, _ in COMMANDS] + [1] * len(calls)
    command = rng.choices([command for _, command in COMMANDS] + [f"{name}()" for name in calls], weights)[0]
    return run, checkpoint, command.format(run=run, ckpt=checkpoint, text=TEXTS[run])


def call(run: str, checkpoint: str, command: str) -> int:
    """The exit code of a command, or that of the command line for the exception of a function."""
    if not command.endswith("()"):
        return cli.main(command.split())
    try:
        python_calls(run, checkpoint, TEXTS[run])[command[:-2]]()
    except InputError as error:
        print(f"bptt: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"bptt: {error}", file=sys.stderr)
        return 3
    except MemoryError as error:
        print(f"bptt: out of memory: {error}", file=sys.stderr)
        return 4
    return 0


def problems(command: str, code: int, out: str, err: str) -> Iterator[str]:
    """What is wrong with the end of a command."""
    if code not in CODES and not (code == TOO_LARGE and " need " in err):
        yield f"exit code {code}"
    if "Traceback" in err + out:
        yield "a traceback"
    if code and not err.startswith("bptt: "):
        yield "no message"
    lines = err.splitlines()
    if code == 2 and len([line for line in lines if not line.startswith("bptt: warning: ")]) != 1:
        yield "not one line of error"
    if max(map(len, lines), default=0) > LONGEST:
        yield "a line that nobody will read"
    for line in lines:
        if not (line.startswith("bptt: ") and line.isprintable()) and not command.endswith("()"):
            yield f"a line on standard error: {line!r:.300}"
        if "encountered in" in line and not command.endswith("()"):
            yield f"a warning of NumPy: {line!r:.300}"
    for line in out.splitlines():
        if " --json" in command or line.startswith("{"):
            try:
                json.loads(line, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
            except ValueError as error:
                yield f"a line that is not JSON ({error}): {line!r:.300}"


def memory_peak() -> float:
    """The most memory that this process has had since the last call, in MB; 0 where that is not known."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0.0
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1000


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1}


def watch_writes(allowed: list[Path]) -> list[str]:
    """Note from now on in the list that is returned each path that is written, made or removed outside of these folders."""
    seen: list[str] = []

    def note(path: Any) -> None:
        if isinstance(path, int) or not path:
            return
        whole = os.path.abspath(os.fsdecode(path))
        real = Path(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))
        if not any(real.is_relative_to(folder) for folder in allowed) and not str(path).startswith(("/proc/self/", os.devnull)):
            seen.append(os.fsdecode(path))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            follow = isinstance(arguments[0], str | bytes) and not arguments[2] & os.O_NOFOLLOW
            note(os.path.realpath(arguments[0]) if follow else arguments[0])
        elif event in CHANGES:
            for path in arguments[: CHANGES[event]][-1:]:
                note(path)

    sys.addaudithook(hook)
    return seen


def run_case(number: int, folder: Path, files: dict[str, bytes | str], seen: list[str]) -> dict[str, Any]:
    """Run a case in the current folder, and report it."""
    rng = random.Random(f"case {number}")
    restore(folder, files)
    outside = snapshot(folder.parent / OUTSIDE)
    run, checkpoint, command = choose(rng)
    forged = forge_files(rng, run, checkpoint, command)
    before, raw = memory_peak(), io.BytesIO()
    out, err = io.TextIOWrapper(raw, "utf-8"), io.StringIO()
    before = memory_peak()  # now that the peak before is forgotten
    seen.clear()
    began, failure, code = time.process_time(), "", -1
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call(run, checkpoint, command)
    except BaseException:
        failure = traceback.format_exc()
    faulthandler.cancel_dump_traceback_later()
    seconds, written, peak = time.process_time() - began, list(seen), memory_peak()
    out.flush()
    printed, complaints = raw.getvalue().decode("utf-8"), err.getvalue()
    wrong = [failure] if failure else list(problems(command, code, printed, complaints))
    if snapshot(folder.parent / OUTSIDE) != outside:
        wrong.append("something outside has changed")
    wrong += [f"written outside: {path}" for path in written]
    report = {"case": number, "command": command, "forged": forged, "code": code}
    report |= {"seconds": round(seconds, 3), "megabytes": round(peak - before, 1), "problems": wrong}
    report["message"] = complaints.splitlines()[-1] if code and complaints else ""
    return report | ({"printed": (printed + complaints)[-TAIL:]} if wrong else {})


def main(first: int, end: int, place: Path) -> None:
    """Run cases, and print a report of each."""
    folder = place / "work"
    for part in (folder, place / OUTSIDE, place / "temporary"):
        part.mkdir(parents=True, exist_ok=True)
    (place / OUTSIDE / "secret.txt").write_text("anna\nbob\n")
    loading.LARGE = 10_000  # so that more.gz is unpacked on the disk
    os.environ |= {"TMPDIR": str(place / "temporary"), "BPTT_CACHE": str(place / "cache")}
    os.chdir(folder)
    with contextlib.suppress(ImportError):
        import matplotlib.font_manager  # noqa: F401  # it makes a cache of its own
    plots.available = lambda: False  # training draws no curves
    restore(folder, {})
    make_originals()
    files = snapshot(folder)
    soft = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))
    seen = watch_writes([folder, place / "temporary", place / "cache"])
    for number in range(first, end):
        print(json.dumps(run_case(number, folder, files, seen)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).resolve())
