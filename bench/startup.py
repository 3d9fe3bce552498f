"""What a new process costs: `bptt sample`, beside importing PyTorch and JAX, and the size of what is installed.

With --cold: the default run of `bptt train` where nothing has been compiled before, and once more, until its first line of
progress and until its end.

Each command runs in a process of its own, with its bytecode and files in the system's cache; times are medians, memory is the
largest resident set. A size is that of the files of a package and of all that it requires.

    taskset -c 0 env OMP_NUM_THREADS=1 python bench/startup.py
"""

import argparse
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import report

PEERS = {"numpy": "numpy", "torch": "torch", "jax": "jax"}  # what is imported, and the package that it comes from


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and the largest resident megabytes of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # the process has been waited for
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def size(package: str) -> float:
    """Megabytes of the files of a package and of all that it requires, extras left out."""
    todo, seen, total = [package], set(), 0
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # another platform's
            continue
        paths = [Path(str(file.locate())) for file in distribution.files or ()]
        total += sum(path.stat().st_size for path in paths if path.is_file())
        todo += [
            match[0] for line in distribution.requires or () if "extra ==" not in line and (match := re.match(r"[\w.-]+", line))
        ]
    return total / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cold", action="store_true", help="the default run with nothing compiled")
    arguments = parser.parse_args()
    if arguments.cold:
        print(report(cold_rows(arguments.repeats)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model, start = str(Path(folder) / "model"), [sys.executable, "-m", "bptt"]
        # not in this process: the largest resident set of one that it starts would begin with its own
        subprocess.run([*start, *f"train dinosaurs --hidden 64 --steps 20 --quiet --out {model}".split()], check=True)
        commands = {"bptt": [*start, "sample", model, "--count", "1"]}
        peers = [name for name, package in PEERS.items() if _installed(package)]
        print(
            "".join(f"left out: {package} is not installed\n" for name, package in PEERS.items() if name not in peers), end=""
        )
        commands |= {name: [sys.executable, "-c", f"import {name}"] for name in peers}
        for command in commands.values():
            run(command)  # the system's cache
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(arguments.repeats):
            for name, command in commands.items():
                results[name].append(run(command))
    print(f"{'':24}{'seconds':>9}{'MB':>8}{'MB installed':>15}")
    for name, pairs in results.items():
        seconds, memory = (round(statistics.median(column), 3) for column in zip(*pairs))
        installed = round(size(PEERS.get(name, name)), 1)
        what = "bptt sample" if name == "bptt" else f"import {name}"
        print(f"{what:24}{seconds:9.2f}{memory:8.0f}{installed:15.0f}")
        rows.append({"what": what, "seconds": seconds, "resident_mb": memory, "installed_mb": installed})
    print(report(rows, *peers))


def cold_rows(repeats: int) -> list[dict[str, Any]]:
    """Time the default run with an empty cache, and then again, in turn."""
    times: dict[str, list[tuple[float, float]]] = {"first run": [], "later run": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for number, what in enumerate(times):
                environment = {**os.environ, "BPTT_CACHE": str(Path(folder) / "cache")}
                command = [sys.executable, "-m", "bptt", "train", "--out", f"run{number}"]
                began = time.perf_counter()
                with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
                    first = next(time.perf_counter() - began for line in process.stdout or () if " step " in line)
                    for _ in process.stdout or ():
                        pass
                times[what].append((first, time.perf_counter() - began))
    rows = []
    for what, pairs in times.items():
        first, whole = (round(statistics.median(column), 3) for column in zip(*pairs))
        rows.append({"what": what, "first_line_seconds": first, "seconds": whole})
        print(f"{what:12}{first:9.2f} s to the first line of progress{whole:9.2f} s in all")
    print(f"ratio {rows[0]['seconds'] / rows[1]['seconds']:.2f}")
    return rows


def _installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
