"""Tokens: a large text is encoded in chunks as it would be at once, and its ids are kept on disk, verified and reused."""

import gc
import io
import json
import os
import stat
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bptt import files, system
from bptt.data import corpus, joining, loading, source, token_store
from bptt.data.vocabulary import BYTES, Vocabulary, characters
from bptt.errors import InputError

TEXT = "the cat\nsat on\nthe mät 😀\n" * 3
quick = settings(deadline=None, max_examples=200)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where every file of more than a byte is kept as a large text."""
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "LARGE", 1)
    monkeypatch.setattr(source, "CHUNK", 7)
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return path


@pytest.fixture
def encodings(monkeypatch):
    """The texts that are written into the cache folder, counted."""
    calls, keep = [], token_store.save

    def spy(key, *arguments):
        calls.append(key)
        return keep(key, *arguments)

    monkeypatch.setattr(token_store, "save", spy)
    return calls


def mapped(read):
    return not read.tokens.ids.flags.writeable and read.tokens.ids.base is not None


# Streamed as in memory

LETTERS = st.text(
    st.sampled_from("ab \n\r\té\u0301\u3000😀\ufeff\u2028\x85") | st.characters(exclude_categories=["Cs"]),
    min_size=1,
    max_size=60,
)


@quick
@given(st.booleans(), LETTERS, st.integers(1, 12), st.sampled_from(["characters", "bytes", "given"]))
@example(True, "\ufeffa\r\n\rb", 1, "characters")
@example(False, "a\r\nb\r", 2, "characters")
@example(False, "a\r", 1, "characters")
def test_encoding_in_chunks_equals_encoding_at_once(tmp_path_factory, mark, text, chunk, kind):
    folder = tmp_path_factory.mktemp("streamed")
    path = folder / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    vocabulary = characters(text + "xyz") if kind == "given" else kind
    try:
        expected = corpus.read(path, vocabulary)
    except InputError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPTT_CACHE", str(folder / "cache"))
        patch.setattr(loading, "LARGE", 0)
        patch.setattr(source, "CHUNK", chunk)
        for _ in ("encoded", "found"):
            read = corpus.read(path, vocabulary)
            assert mapped(read)
            assert (read.name, read.source, read.shown) == (expected.name, expected.source, expected.shown)
            assert read.tokens.ids.dtype == expected.tokens.ids.dtype
            assert read.tokens.ids.tolist() == expected.tokens.ids.tolist()
            assert read.tokens[1:] == expected.tokens[1:]
            assert corpus.choose_mode(read) == corpus.choose_mode(expected)


def test_ids_are_as_wide_as_the_vocabulary(cache, tmp_path):
    path = tmp_path / "wide.txt"
    for count, dtype in [(200, "uint8"), (300, "uint16"), (70_000, "uint32")]:
        text = "".join(map(chr, range(0x10000, 0x10000 + count)))
        path.write_text(text, "utf-8")
        read = corpus.read(path)
        assert (mapped(read), read.ids.dtype, read.text) == (True, dtype, text)


def test_a_text_that_fits_stays_in_memory(cache, path, monkeypatch):
    monkeypatch.setattr(loading, "LARGE", path.stat().st_size)
    assert not mapped(corpus.read(path))
    assert not cache.exists()
    monkeypatch.setattr(loading, "LARGE", path.stat().st_size - 1)
    assert mapped(corpus.read(path))


# The cache


@pytest.mark.parametrize("vocabulary", ["characters", "bytes", characters(TEXT + "xyz")])
def test_a_text_is_encoded_once(cache, path, encodings, vocabulary):
    one, two = corpus.read(path, vocabulary), corpus.read(path, vocabulary)
    assert len(encodings) == 1
    assert one.ids.tolist() == two.ids.tolist()
    assert one.tokens[1:] == two.tokens[1:]
    assert sorted(file.suffix for file in cache.iterdir()) == [".ids", ".json"]
    fields = json.loads(next(cache.glob("*.json")).read_bytes())
    assert (fields["sha256"], fields["dtype"], fields["count"]) == (one.sha256, "uint8", len(one.tokens.ids))
    assert Vocabulary.from_json(fields["symbols"]) == one.vocabulary
    assert next(cache.glob("*.ids")).read_bytes() == one.tokens.ids.tobytes()


def test_a_copy_of_a_file_uses_the_same_ids(cache, path, encodings):
    corpus.read(path)
    copy = path.with_name("copy.txt")
    copy.write_bytes(path.read_bytes())
    assert corpus.read(copy).name == "copy"
    assert len(encodings) == 1


def test_every_vocabulary_has_ids_of_its_own(cache, path, encodings):
    kinds = ["characters", "bytes", characters(TEXT + "x"), characters(TEXT + "y")]
    digests = [corpus.read(path, kind).sha256 for kind in kinds]
    assert digests == [corpus.read(path, kind).sha256 for kind in kinds]
    assert (len(set(digests)), len(encodings)) == (4, 4)


def test_the_vocabulary_of_a_model_finds_the_cached_ids(cache, path, encodings):
    corpus.read(path)
    corpus.read(path, characters(TEXT))
    corpus.read(path, "bytes")
    corpus.read(path, BYTES)
    assert len(encodings) == 2
    for file in cache.iterdir():
        file.unlink()
    corpus.read(path, characters(TEXT))
    corpus.read(path)
    assert len(encodings) == 3


def test_a_changed_file_is_encoded_again(cache, path):
    corpus.read(path)
    path.write_text(TEXT.replace("cat", "tac"), "utf-8")
    assert corpus.read(path).text == TEXT.replace("cat", "tac")


def flip(file):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


DAMAGE = {
    "a bit of the ids": (".ids", flip),
    "ids cut off": (".ids", lambda file: file.write_bytes(file.read_bytes()[:-1])),
    "ids continued": (".ids", lambda file: file.write_bytes(file.read_bytes() + b"\0")),
    "no ids": (".ids", lambda file: file.write_bytes(b"")),
    "ids gone": (".ids", Path.unlink),
    "fields gone": (".json", Path.unlink),
    "no fields": (".json", lambda file: file.write_bytes(b"")),
    "other fields": (".json", lambda file: file.write_text("[]")),
    "another format": (".json", lambda file: file.write_text(file.read_text().replace('"format": 4', '"format": 3'))),
    "another text": (".json", lambda file: file.write_text(file.read_text().replace('"key": "', '"key": "0'))),
    "another type": (".json", lambda file: file.write_text(file.read_text().replace("uint8", "uint16"))),
    "another count": (".json", lambda file: file.write_text(file.read_text().replace('"count": 7', '"count": 1'))),
    "other symbols": (".json", lambda file: file.write_text(file.read_text().replace('"a"', '"b"'))),
}


@pytest.mark.parametrize(("suffix", "damage"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_cache_files_are_replaced(cache, path, encodings, suffix, damage):
    read = corpus.read(path).tokens
    expected = (read.ids.tolist(), *read[1:])
    del read  # it is a map of the file
    (file,) = cache.glob(f"*{suffix}")
    whole = file.read_bytes()
    damage(file)
    assert not file.exists() or file.read_bytes() != whole
    found = corpus.read(path).tokens
    assert (found.ids.tolist(), *found[1:]) == expected
    assert len(encodings) == 2
    assert file.read_bytes() == whole
    corpus.read(path)
    assert len(encodings) == 2


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of POSIX")
@pytest.mark.parametrize("whose", [".ids", ".json", "folder"])
@pytest.mark.parametrize("how", ["another owner", "written by all"])
def test_ids_that_another_user_could_have_written_are_not_used(cache, path, encodings, monkeypatch, whose, how):
    corpus.read(path)
    place = cache if whose == "folder" else next(cache.glob(f"*{whose}"))
    if how == "written by all":
        place.chmod(0o777)
    else:
        os.utime(place, (1, 1))
        mine = files.only_this_user_writes
        monkeypatch.setattr(files, "only_this_user_writes", lambda status: status.st_mtime != 1 and mine(status))
    if whose == "folder":
        with pytest.raises(InputError, match=r"other users could change the ids of the text in .*: chmod go-w it, or set"):
            corpus.read(path)
    else:
        corpus.read(path)
        assert len(encodings) == 2
        assert stat.S_IMODE(next(cache.glob(f"*{whose}")).stat().st_mode) == 0o600


def test_who_can_write_to_a_file(monkeypatch):
    def status(user, group, mode):
        return SimpleNamespace(st_uid=user, st_gid=group, st_mode=mode)

    monkeypatch.setattr(os, "getuid", lambda: 1000, raising=False)
    monkeypatch.setattr(os, "getgid", lambda: 1000, raising=False)
    for user, group, mode in [(1000, 1000, 0o600), (1000, 5, 0o755), (0, 0, 0o644), (1000, 1000, 0o664)]:
        assert files.only_this_user_writes(status(user, group, mode))
    for user, group, mode in [(1001, 1000, 0o600), (1000, 5, 0o664), (1000, 1000, 0o666), (0, 0, 0o664)]:
        assert not files.only_this_user_writes(status(user, group, mode))
    monkeypatch.setattr(os, "getgid", lambda: 100, raising=False)  # a group of all users
    assert not files.only_this_user_writes(status(1000, 100, 0o664))


@pytest.mark.skipif(not hasattr(os, "pread"), reason="reads with pread")
def test_ids_that_are_cut_off_while_they_are_used_are_an_error(cache, path):
    read = token_store.reader(corpus.read(path).ids)
    assert len(read(1, 3)) == 2
    os.truncate(next(cache.glob("*.ids")), 2)
    with pytest.raises(InputError, match=r"the ids of the text were cut off in .* while they were in use: try again"):
        read(1, 3)


def test_concurrent_readers_get_the_same_ids(cache, path):
    found, barrier = [], threading.Barrier(8)

    def read():
        barrier.wait()
        found.append(corpus.read(path).ids.tolist())

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [characters(TEXT).encode("\n" + TEXT).tolist()] * 8
    assert len(list(cache.iterdir())) == 2


def test_a_cache_file_in_use_is_not_replaced(cache, path, monkeypatch):
    def refuse(*_):
        corpus_of_another_process()
        raise PermissionError(13, "Access is denied")

    def corpus_of_another_process():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            corpus.read(path)

    replace = Path.replace
    monkeypatch.setattr(Path, "replace", refuse)
    assert corpus.read(path).text == TEXT
    assert len(list(cache.iterdir())) == 2


# What can go wrong


def complaint(*arguments):
    with pytest.raises(InputError) as error:
        corpus.read(*arguments)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_an_unwritable_cache_folder_is_reported(cache, path, monkeypatch, vocabulary):
    monkeypatch.setenv("BPTT_CACHE", str(path / "cache"))
    size = 2 + (len(TEXT) if vocabulary == "characters" else len(TEXT.encode()))
    message = complaint(path, vocabulary)
    assert message.startswith(f"{str(path)!r}: {size} bytes cannot be written into {str(path / 'cache')!r} (Not a directory): ")
    assert message.endswith("set BPTT_CACHE to a folder that has room for them")


def test_an_unwritable_cache_folder_is_reported_for_standard_input(cache, path, monkeypatch):
    monkeypatch.setenv("BPTT_CACHE", str(path / "cache"))
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", os.fdopen(os.dup(file.fileno())))
        message = complaint("-")
        sys.stdin.close()
    assert message.startswith("standard input: 16 bytes cannot be written into")
    assert "(Not a directory): set BPTT_CACHE" in message


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_no_half_written_file_is_left_behind(cache, path, monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((InputError, KeyboardInterrupt)) as raised:
        corpus.read(path)
    assert list(cache.iterdir()) == []
    if isinstance(error, OSError):
        assert "(No space left on device): set BPTT_CACHE" in str(raised.value)


def test_ctrl_c_while_a_text_is_encoded_leaves_no_files(cache, path, monkeypatch):
    encode, calls = Vocabulary.encode, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(Vocabulary, "encode", interrupted)
    monkeypatch.setattr(joining, "_BATCH", 1)
    with pytest.raises(KeyboardInterrupt):
        corpus.read(path)
    assert len(calls) == 3
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_text_that_changes_while_it_is_read_is_refused(cache, path, monkeypatch, vocabulary):
    keep = token_store.save

    def change(*arguments):
        path.write_text(TEXT.replace("cat", "tac"), "utf-8")
        return keep(*arguments)

    monkeypatch.setattr(token_store, "save", change)
    assert complaint(path, vocabulary) == f"{str(path)!r} changed while it was read: try again"
    assert list(cache.iterdir()) == []


def test_a_file_that_cannot_be_read_to_its_end_is_refused(cache, path, monkeypatch):
    class Broken(io.BytesIO):
        def seek(self, *_):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(loading._Opening, "content", lambda *_, **__: (source.Section(Broken(), 0, 9), None))
    assert complaint(path) == f"{str(path)!r} cannot be read (Input/output error)"


# Standard input and pipes


def test_a_large_standard_input_is_cached_like_a_file(cache, path, monkeypatch, encodings):
    expected = corpus.read(path)
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", os.fdopen(os.dup(file.fileno())))
        read = corpus.read("-")
        sys.stdin.close()
    assert (read.name, read.source, read.sha256) == ("stdin", "-", expected.sha256)
    assert mapped(read)
    assert len(encodings) == 1
    assert len(list(cache.iterdir())) == 2  # and no copy of standard input


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_only_once(cache, path, tmp_path):
    pipe = tmp_path / "named.txt"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[path.read_bytes()])
    writer.start()
    read = corpus.read(pipe)
    writer.join()
    assert (read.name, read.source, read.text) == ("named", "-", TEXT)
    assert mapped(read)


# Where


def test_the_cache_folder_comes_from_the_environment_or_the_system(monkeypatch, tmp_path):
    for name in ("BPTT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert system.cache_folder() == tmp_path / ".cache" / "bptt"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert system.cache_folder() == tmp_path / ".cache" / "bptt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert system.cache_folder() == tmp_path / "xdg" / "bptt"
    monkeypatch.setenv("BPTT_CACHE", "here")
    assert system.cache_folder() == Path("here")


@pytest.mark.parametrize("home", ["none", "no folder", "read-only"])
@pytest.mark.parametrize("piped", [False, True])
def test_without_a_folder_for_a_cache_a_temporary_file_holds_the_ids(monkeypatch, cache, path, tmp_path, home, piped):
    def find_home():
        if home == "none":
            raise RuntimeError("Could not determine home directory.")
        return Path(os.devnull, "home") if home == "no folder" else tmp_path / "home"

    expected = corpus.read(path)
    for name in ("BPTT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", find_home)
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", os.fdopen(os.dup(file.fileno())))
        read = corpus.read("-" if piped else path)
        sys.stdin.close()
    assert mapped(read)
    assert (read.text, read.sha256) == (TEXT, expected.sha256)
    assert token_store.reader(read.ids)(3, 9).tolist() == expected.ids[3:9].tolist()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert [one for one in (tmp_path / "home").rglob("*") if one.is_file()] == []


def test_a_cache_folder_that_was_chosen_and_cannot_be_made_is_an_error(monkeypatch, cache, path):
    monkeypatch.setenv("BPTT_CACHE", str(Path(os.devnull, "cache")))
    assert "cannot be written into '/dev/null/cache' (Not a directory): set BPTT_CACHE" in complaint(path)


# Maps


def test_a_memory_map_has_the_contents_of_the_file(tmp_path):
    ids = np.arange(1000, dtype="<u2")
    (tmp_path / "ids").write_bytes(ids.tobytes())
    with (tmp_path / "ids").open("rb") as file:
        whole = token_store.memory_map(file, ids.dtype)
    for part, expected in [(whole, ids), (whole[3:-2], ids[3:-2]), (ids, ids)]:
        read = token_store.reader(part)
        for start, stop in [(0, 5), (7, 17), (100, 900), (990, 995)]:
            assert read(start, stop).tolist() == part[start:stop].tolist() == expected[start:stop].tolist()
            assert read(start, stop).dtype == ids.dtype
            token_store.release_pages(part)
    assert [token_store.is_map(part) for part in (whole, whole[3:-2], ids)] == [True, True, False]
    with pytest.raises(ValueError, match="read-only"):
        whole[0] = 1


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts pages in /proc")
def test_pages_of_a_memory_map_are_released(tmp_path):
    path = tmp_path / "a file with its own name.ids"
    path.write_bytes(bytes(3 << 20))
    with path.open("rb") as file:
        ids = token_store.memory_map(file, np.dtype(np.uint8))

    def resident():
        maps = Path("/proc/self/smaps").read_text().partition(path.name)[2]
        return int(maps.partition("\nRss:")[2].split()[0])

    read = token_store.reader(ids)
    assert sum(int(read(place, place + 10).sum()) for place in range(0, len(ids) - 10, 1 << 16)) == 0
    assert resident() == 0
    assert ids.sum() == 0
    assert resident() == 3 << 10
    token_store.release_pages(ids[5:])
    assert resident() == 0
    assert sum(int(piece.sum()) for piece in token_store.chunks(ids[7:])) == 0
    assert resident() == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_an_unused_memory_map_keeps_no_file_open(cache, path):
    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    corpus.read(path)
    before = count()
    read = [corpus.read(path) for _ in range(5)]
    assert count() > before
    del read
    assert count() == before
