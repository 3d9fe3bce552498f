"""`python tests/mutations [WORD ...]`: make each mistake in a copy of the package and see its test fail.

Words select the mistakes whose function or text contains one of them. The named test must pass without the mistake.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT / "tests")

from mutations import mutations  # noqa: E402  # the folder of this file would hide it
from mutations.mutation import Mutation, mutated  # noqa: E402

WITH_KERNELS = {  # the only tests that run compiled kernels
    "test_cpu_kernels.py",
    "test_jit.py",
    "test_segments.py",
    "test_acceleration.py",
    "test_stepper.py",
}


class NoVerdict(Exception):
    """A test that neither passed nor failed."""


def passes(test: str, source: Path) -> bool:
    """Whether a test passes with the package in the folder `source`.

    Raises:
        NoVerdict: nothing was collected, all was skipped, or pytest itself ended in another way.
    """
    file, _, expression = test.partition("::")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [f"tests/{file}", "-k", expression or "test", "--backend", "numpy"]
    switches = {"BPTT_KERNELS": str(int(file in WITH_KERNELS)), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    folders = {"PYTHONPATH": str(source), "BPTT_CACHE": str(source / "cache")}  # kernels with a mistake stay here
    environment = {**os.environ, **folders, **switches}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode > 1:  # less than 0: killed by what it did to memory, which is a verdict
        raise NoVerdict(f"{test}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
    if not done.returncode and " passed" not in done.stdout:
        raise NoVerdict(f"{test}: skipped here\n{done.stdout}")
    return done.returncode == 0


def catches(mutation: Mutation, source: Path) -> bool:
    """Whether the test of a mutation fails with the mistake, which is taken back afterwards."""
    path, text = mutated(mutation, source / "bptt")
    original = path.read_text("utf-8")
    path.write_text(text, "utf-8")
    try:
        return not passes(mutation.test, source)
    finally:
        path.write_text(original, "utf-8")


def main(words: list[str]) -> int:
    """Apply the selected mutations and print what caught each; 1 if one went unnoticed."""
    chosen = [one for one in mutations() if not words or any(word in f"{one.function} {one.mistake}" for word in words)]
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as executor:
        copies: SimpleQueue[Path] = SimpleQueue()  # a copy of the package for each worker
        for number in range(workers):
            copy = Path(folder) / str(number)
            shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
            copies.put(copy)

        def in_a_copy(function: Callable[[Any, Path], bool], argument: Any) -> bool:
            copy = copies.get()
            try:
                return function(argument, copy)
            finally:
                copies.put(copy)

        tests = list(dict.fromkeys(mutation.test for mutation in chosen))
        for test, fine in zip(tests, executor.map(lambda test: in_a_copy(passes, test), tests)):
            if not fine:
                sys.exit(f"{test} fails without any mistake")
        missed = 0
        for mutation, caught in zip(chosen, executor.map(lambda one: in_a_copy(catches, one), chosen)):
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {mutation.mistake}  ({mutation.test})", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mistakes caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
