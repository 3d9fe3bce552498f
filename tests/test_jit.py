"""What is compiled stays on disk, in as many processes as there are; where it cannot, everything works all the same."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed: pip install '.[fast]'")

import numba
from numba.core.caching import CompileResultCacheImpl

from bptt.kernels.cpu import jit

HERE = Path(__file__).parent


def double(x):
    return x + x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where Numba keeps code."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def files(folder):
    return sorted(folder.rglob("*.*"))


def compiles(number=1.5):
    """Whether a new process would have to compile the function for such a number."""
    made = jit.compiled(double)
    assert made(number) == number + number
    return sum(made.stats.cache_misses.values()) == 1


def test_compiled_code_is_found_in_the_cache(folder):
    assert compiles()
    assert not compiles()
    assert compiles(1)
    assert not compiles()
    names = [path.name for path in files(folder)]
    assert len(names) == 2
    assert all(f"test_jit.double.{sys.implementation.cache_tag}-{jit.SOURCE}-" in name for name in names)


def test_code_compiled_from_other_source_is_removed(folder, monkeypatch):
    assert compiles()
    before = files(folder)
    monkeypatch.setattr(jit, "SOURCE", "0123456789ab")
    assert compiles()
    assert not compiles()
    assert len(files(folder)) == 1
    assert files(folder) != before


@pytest.mark.parametrize("damage", [b"", b"x", 40, -1, "flip"])
def test_a_damaged_cache_file_is_rewritten(folder, damage):
    assert compiles()
    (path,) = files(folder)
    data = path.read_bytes()
    flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    path.write_bytes(damage if isinstance(damage, bytes) else flipped if damage == "flip" else data[:damage])
    assert compiles()
    assert not compiles()
    assert len(files(folder)) == 1


def test_cached_code_is_verified_before_it_is_unpickled(folder):
    assert compiles()
    (path,) = files(folder)
    path.write_bytes(bytes(32) + pickle.dumps("no code"))
    assert compiles()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of POSIX")
@pytest.mark.parametrize("whose", ["file", "folder"])
def test_code_that_another_user_could_have_written_is_not_unpickled(folder, whose):
    assert compiles()
    (path,) = files(folder)
    place = path if whose == "file" else path.parent
    place.chmod(0o777)
    assert compiles()
    place.chmod(0o755)
    assert not compiles()


def test_nothing_is_cached_without_a_writable_folder(folder, monkeypatch):
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        jit.Cache(double)
    assert jit.compiled(double)(2.5) == 5.0
    assert files(folder) == []


@pytest.mark.parametrize(
    ("owner", "failing"), [(Path, "write_bytes"), (Path, "unlink"), (os, "replace"), (tempfile, "TemporaryFile")]
)
def test_a_failing_disk_does_not_stop_compilation(folder, monkeypatch, owner, failing):
    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    made = jit.compiled(double)
    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, fails)
        assert made(2.5) == 5.0
    assert compiles() == (failing != "unlink")
    assert [path.suffix for path in files(folder)] == [".nbc"]


def test_the_key_of_compiled_code_depends_on_the_cpu_kernels_alone(tmp_path):
    cpu, cuda = tmp_path / "cpu", tmp_path / "cuda"
    shutil.copytree(Path(jit.__file__).parent, cpu, ignore=shutil.ignore_patterns("__pycache__"))
    cuda.mkdir()
    (cuda / "recurrence.py").write_text("one = 1")
    assert jit.source_key(cpu) == jit.SOURCE
    (cpu / "gemm.py").write_text("one = 1")
    assert jit.source_key(cpu) != jit.SOURCE


@pytest.mark.parametrize("path", sorted(Path(jit.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_compiled_functions_call_only_those_of_their_folder(path):
    imported = re.findall(r"(?m)^\s*(?:from|import) (bptt[\w.]*)", path.read_text())
    outside = {name for name in imported if not name.startswith("bptt.kernels.cpu")}
    assert not outside or path.stem in ("__init__", "jit")  # which register kernels and keep code; they compile none


def test_a_removed_cache_folder_does_not_stop_compilation(folder):
    made = jit.compiled(double)
    for path in folder.iterdir():
        path.rename(folder.with_name("gone"))
    assert made(2.5) == 5.0


def work(kind):
    """What each of many processes does at once."""
    assert jit.compiled(double)(np.ones(3, kind)).tolist() == [2, 2, 2]


def test_processes_can_compile_at_the_same_time(tmp_path):
    kinds = ["float32", "float64", "int64", "float32"]
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    commands = [[sys.executable, "-c", f"import test_jit; test_jit.work({kind!r})"] for kind in kinds]

    def run(command):
        return subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as threads:
        for done in threads.map(run, commands):
            assert done.returncode == 0, done.stderr
    assert len(files(tmp_path)) == 3
    assert all(path.suffix == ".nbc" for path in files(tmp_path))
