"""What is compiled stays on disk, in as many processes as there are; where it cannot, everything works all the same."""

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="llvmlite is not installed: pip install '.[fast]'")

from bptt import system
from bptt.errors import InputError
from bptt.kernels.cpu import jit

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache, with nothing in it."""
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def norm(dtype="float32"):
    """What the smallest library computes, in a process that has not loaded it."""
    jit._functions.clear()
    squares = np.zeros(1)
    jit.function("optimizers", "squared_norm", dtype)(np.array([3.0, 4.0], dtype), 2, squares)
    return squares[0]


def compiles(dtype="float32"):
    """Whether a new process would have to compile the library."""
    compiled, real = [], jit._compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "_compile", lambda *given: compiled.append(given) or real(*given))
        assert norm(dtype) == 25.0
    return compiled == [("optimizers", dtype)]


def test_compiled_code_is_found_in_the_cache(folder):
    assert not jit.stored_libraries()
    assert compiles()
    assert not compiles()
    assert jit.stored_libraries() == [("optimizers", "float32")]
    assert compiles("float64")
    assert not compiles("float64")
    assert jit.stored_libraries() == [("optimizers", "float32"), ("optimizers", "float64")]
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"kernels-optimizers_{dtype}-{jit._source()[:16]}.o" for dtype in ("float32", "float64")]
    assert jit.stored_files() == [folder / name for name in names]


def test_a_library_is_loaded_once(folder):
    assert norm() == 25.0
    assert jit.function("optimizers", "adam", "float32") is jit.function("optimizers", "adam", np.float32)
    assert {dtype.name for _, dtype in jit._functions} == {"float32"}


def test_code_compiled_from_other_source_is_removed(folder, monkeypatch):
    assert compiles()
    assert compiles("float64")
    before = jit.stored_files()
    monkeypatch.setattr(jit, "_source", lambda: "0123456789abcdef" * 4)
    assert not jit.stored_libraries()
    assert compiles()
    assert not compiles()
    assert [path.name for path in jit.stored_files()] == ["kernels-optimizers_float32-0123456789abcdef.o", before[1].name]


@pytest.mark.parametrize("damage", [b"", b"x", 40, -1, "flip", "empty", "no json"])
def test_a_damaged_cache_file_is_rewritten(folder, damage):
    assert compiles()
    (path,) = jit.stored_files()
    data = path.read_bytes()
    content = b"" if damage == "empty" else b"{\n"
    made = {
        "flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "empty": hashlib.sha256(content).digest() + content,
        "no json": hashlib.sha256(content).digest() + content,
    }
    path.write_bytes(damage if isinstance(damage, bytes) else made[damage] if isinstance(damage, str) else data[:damage])
    assert compiles()
    assert not compiles()
    assert len(jit.stored_files()) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of POSIX")
@pytest.mark.parametrize("whose", ["file", "folder"])
def test_code_that_another_user_could_have_written_is_not_used(folder, whose):
    assert compiles()
    (path,) = jit.stored_files()
    place = path if whose == "file" else path.parent
    place.chmod(0o777)
    assert compiles()
    path.chmod(0o644)
    folder.chmod(0o755)
    assert not compiles()


def test_nothing_is_cached_without_a_folder(folder, monkeypatch):
    def nowhere():
        raise InputError("no home")

    monkeypatch.setattr(system, "cache_folder", nowhere)
    assert compiles()
    assert compiles()
    assert not folder.exists()
    assert jit.stored_libraries() == []


def test_a_cache_that_is_no_folder_does_not_stop_compilation(folder):
    folder.write_text("")
    assert compiles()
    assert compiles()
    assert jit.stored_libraries() == []
    assert folder.read_text() == ""


@pytest.mark.parametrize(("owner", "failing"), [(Path, "write_bytes"), (Path, "unlink"), (os, "replace"), (Path, "mkdir")])
def test_a_failing_disk_does_not_stop_compilation(folder, monkeypatch, owner, failing):
    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, fails)
        assert compiles()
    assert compiles() == (failing != "unlink")
    assert [path.suffix for path in folder.iterdir()] == [".o"]


def test_the_key_of_compiled_code_depends_on_the_cpu_kernels_and_the_processor(tmp_path, monkeypatch):
    cpu, cuda = tmp_path / "cpu", tmp_path / "cuda"
    shutil.copytree(Path(jit.__file__).parent, cpu, ignore=shutil.ignore_patterns("__pycache__"))
    cuda.mkdir()
    (cuda / "recurrence.py").write_text("one = 1")
    before = jit.source_key(cpu)
    assert before == jit.source_key(Path(jit.__file__).parent)
    with monkeypatch.context() as patch:
        patch.setattr(jit, "processor", lambda: ("other", ""))
        assert jit.source_key(cpu) != before
    (cpu / "gemm.py").write_text("one = 1")
    assert jit.source_key(cpu) != before


@pytest.mark.parametrize("path", sorted(Path(jit.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_compiled_functions_call_only_those_of_their_folder(path):
    imported = re.findall(r"(?m)^\s*(?:from|import) (bptt[\w.]*)", path.read_text())
    outside = {name for name in imported if not name.startswith("bptt.kernels.cpu")}
    assert not outside or path.stem in ("__init__", "jit")  # which register kernels and keep code; they write none


def test_arguments_of_another_type_are_refused(folder):
    norm()
    squared_norm = jit.function("optimizers", "squared_norm", "float32")
    with pytest.raises(TypeError, match=r"^an array of float64, expected float32$"):
        squared_norm(np.ones(2), 2, np.zeros(1))
    with pytest.raises(ctypes.ArgumentError):
        squared_norm(np.ones(2, np.float32), 2.5, np.zeros(1))
    with pytest.raises(ValueError, match="zip"):
        squared_norm(np.ones(2, np.float32), 2)


def test_no_memory_is_a_memory_error(folder):
    jit._functions.clear()
    one, ids = np.zeros((1, 1), np.float32), np.zeros(1, np.int64)
    for many, inputs in ((2**23, 0), (1, 2**47)):  # a matrix beyond all addresses: the first that is allocated, and a later one
        with pytest.raises(MemoryError, match="no memory left"):
            jit.function("vanilla", "vanilla", "float32")(one, one, one, ids, one, inputs, inputs, 1, 1, many, one, one)


def work(dtype):
    """What each of many processes does at once."""
    assert norm(dtype) == 25.0


def test_processes_can_compile_at_the_same_time(tmp_path):
    dtypes = ["float32", "float64", "float32", "float32"]
    env = {**os.environ, "BPTT_CACHE": str(tmp_path)}
    commands = [[sys.executable, "-c", f"import test_jit; test_jit.work({dtype!r})"] for dtype in dtypes]

    def run(command):
        return subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as threads:
        for done in threads.map(run, commands):
            assert done.returncode == 0, done.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".o", ".o"]
    assert json.loads(next(tmp_path.iterdir()).read_bytes()[32:].partition(b"\n")[0])["squared_norm"] == [
        "numbers",
        "int",
        "doubles",
    ]
