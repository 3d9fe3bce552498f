"""`bptt cache`: what is kept on this machine, and how it is removed without harm to a process that uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bptt import acceleration, files, system
from bptt.data import corpus, loading, source, token_store

TEXT = "the cat\nsat on\nthe mat\n" * 3
OURS = f"{'a' * 64}-characters.ids"
posix = pytest.mark.skipif(os.name != "posix", reason="links and locks of POSIX")


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder with a text that counts as large, the cache folder, and a folder with the code of two kernels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "LARGE", 1)
    monkeypatch.setattr(source, "CHUNK", 7)
    Path("text.txt").write_text(TEXT)
    Path("kernels").mkdir()
    for name in ("a", "b"):
        Path("kernels", name).write_bytes(b"code")
    monkeypatch.setattr(acceleration, "stored_kernels", lambda: sorted((tmp_path / "kernels").iterdir()))
    return tmp_path


def sizes(folder="cache"):
    return {path.name: path.lstat().st_size for path in Path(folder).iterdir()}


def test_the_cache_folder_is_shown_with_its_sizes(run):
    folder = system.cache_folder()
    kernels = f"kernels    2 files, 8 bytes in {system.cache_folder()}\n"
    assert run("cache") == (0, f"token ids  0 files, 0 bytes in {folder}\n{kernels}", "")
    corpus.read("text.txt")
    assert len(sizes()) == 2
    assert run("cache") == (0, f"token ids  2 files, {sum(sizes().values()):,} bytes in {folder}\n{kernels}", "")
    assert len(sizes()) == 2


def test_the_cache_is_cleared(run):
    corpus.read("text.txt")
    Path("cache", f"{OURS}.{'0' * 16}.tmp").write_bytes(b"of a process that was killed")
    size = sum(sizes().values()) + 8
    assert run("cache", "--clear") == (0, f"freed {size:,} bytes\n", "")
    assert sizes() == sizes("kernels") == {}
    assert run("cache", "--clear") == (0, "freed 0 bytes\n", "")


@posix
def test_only_files_of_bptt_are_removed(run):
    others = ["notes.txt", "a.ids", f"{'A' * 64}-characters.ids", f"{OURS}.txt", f"{OURS}.tmp", f"x{OURS}"]
    Path("cache").mkdir()
    for name in others:
        Path("cache", name).write_bytes(b"1")
    Path("cache", f"{'b' * 64}-bytes.json").mkdir()
    Path("cache", f"{'c' * 64}-bytes.json").symlink_to(Path("text.txt").absolute())
    Path("cache", f"{'d' * 64}-bytes.ids").symlink_to("nowhere")
    before = sorted(Path("cache").iterdir())
    assert run("cache", "--clear") == (0, "freed 8 bytes\n", "")
    assert sorted(Path("cache").iterdir()) == before
    assert Path("text.txt").read_text() == TEXT


def test_a_text_that_is_in_use_outlives_its_files(run):
    read = corpus.read("text.txt")
    before = read.tokens.ids.tolist()
    assert run("cache", "--clear")[0] == 0
    assert read.tokens.ids.tolist() == before
    assert token_store.reader(read.tokens.ids)(1, 4).tolist() == before[1:4]
    assert corpus.read("text.txt").tokens.ids.tolist() == before


@posix
def test_a_cache_that_is_written_to_is_not_cleared(run, monkeypatch):
    answers = []
    write = token_store._write

    def write_and_clear(*arguments):
        write(*arguments)  # from then on until it is read, the files must stay
        answers.append(run("cache", "--clear"))

    monkeypatch.setattr(token_store, "_write", write_and_clear)
    assert corpus.read("text.txt").tokens.ids is not None
    refused = f"bptt: {system.cache_folder()}: another bptt writes a text there: wait for it, and clear the cache then\n"
    assert answers == [(2, "", refused)]
    assert len(sizes()) == 2
    assert len(sizes("kernels")) == 2
    assert run("cache", "--clear")[0] == 0


@posix
def test_writing_waits_for_a_cache_that_is_being_cleared(workdir):
    Path("cache").mkdir()
    code = "import sys; from pathlib import Path; from bptt import files; print(1, flush=True)\n"
    code += "with files.locked_folder(Path('cache'), shared=True) as free: print(free, flush=True)"
    with files.locked_folder(Path("cache"), shared=False) as free:
        assert free
        with files.locked_folder(Path("cache"), shared=False) as again:
            assert not again
        waiting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert waiting.stdout.readline() == "1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.3)
    assert waiting.communicate(timeout=60)[0] == "True\n"


def test_the_lines_are_readable_on_a_narrow_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = run("cache")[1].splitlines()
    assert all(len(line) <= 40 or len(line.split()) == 1 for line in lines)
    assert " ".join(" ".join(lines).split()).endswith(f"kernels 2 files, 8 bytes in {system.cache_folder()}")


def test_a_cache_folder_that_is_none_is_a_one_line_error(run, monkeypatch):
    monkeypatch.setenv("BPTT_CACHE", "text.txt")
    for flags in ((), ("--clear",)):
        code, out, err = run("cache", *flags)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert "Not a directory" in err
    assert Path("text.txt").read_text() == TEXT


def test_files_that_the_system_keeps_are_not_counted(workdir, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda path: (_ for _ in ()).throw(PermissionError()))
    assert files.remove_files([Path("text.txt"), Path("nowhere")]) == 0


def test_stored_kernels_are_the_files_that_compiled_kernels_leave(tmp_path, monkeypatch):
    pytest.importorskip("llvmlite", reason="llvmlite is not installed: pip install '.[fast]'")
    if acceleration._unavailable_reason("numpy"):
        pytest.skip(acceleration._unavailable_reason("numpy"))  # an LLVM that cannot compile here leaves no files
    from bptt.kernels.cpu import jit

    monkeypatch.setenv("BPTT_CACHE", str(tmp_path))
    jit._load("loss", "float32")
    (compiled,) = tmp_path.iterdir()
    left = {compiled.name, f"kernels-gru_float64-{'f' * 16}.o", f"kernels-{'0' * 32}.tmp"}
    for name in (*left, f"{'0' * 32}.tmp", f"kernels-gru_float64-{'f' * 12}.o", f"kernels-gru_float64-{'f' * 16}.so"):
        Path(tmp_path, name).touch()
    assert {path.name for path in acceleration.stored_kernels()} == left
    monkeypatch.setattr(acceleration, "_unavailable_reason", lambda library: "no llvmlite")
    assert acceleration.stored_kernels() == []
