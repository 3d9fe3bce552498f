"""The folder of a run: one that writes, checkpoints that come and go whole, and always one to go on from."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

import bptt
from bptt import cli, errors, files
from bptt.checkpoint import run_folder, store
from bptt.errors import CheckpointError, CheckpointWarning, InputError, SaveError
from bptt.nn import optimizers
from failing import ERRORS, Failing
from forging import NAMES, content, equal_checkpoints, train
from runs import replace_adam

posix = pytest.mark.skipif(os.name != "posix", reason="links and signals of POSIX")
ROW = {"step": 1, "loss": 0.5, "rate": 0.1, "norm": 1.0, "characters": 9, "seconds": 0.5}
MEASURED = {**ROW, "step": 2, "held_out": 1.25, "sample": ["anna", "é\ud800"], "radii": [[0.5, 1.5]]}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of six steps with its last three checkpoints, the last of them the best."""
    return train(tmp_path_factory.mktemp("runs") / "run", steps=9, stop_after=6, parametrization="standard", average=0)


@pytest.fixture
def run(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "run", symlinks=True))


@pytest.fixture(scope="module")
def saved(original):
    return run_folder.read_checkpoint(original, run=True)[1]


def checkpoint_path(run, step):
    return run / "checkpoints" / run_folder.checkpoint_name(step)


def listed_steps(run):
    return [int(path.name.removeprefix("step-")) for path in run_folder.checkpoints(run)]


def linked_step(run, link):
    return os.path.realpath(run / "checkpoints" / link).rpartition("step-")[2].lstrip("0")


def damage_model(path):
    (path / "config.json").write_bytes(b"{}")


# Beginning


def test_create_makes_a_run_folder(tmp_path):
    run = tmp_path / "above" / "run"
    run_folder.create(run, "hidden = 5\n", {"sessions": []})
    assert run_folder.is_run(run)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.toml", "env.json"]
    with pytest.raises(errors.AlreadyExists, match="resume it with bptt train --resume"):
        run_folder.create(run, "", {})
    with pytest.raises(SaveError, match="cannot be made: Not a directory"):
        run_folder.create(run / "env.json" / "run", "", {})
    with pytest.raises(CheckpointError, match="the run has saved nothing yet: resume it with bptt train --resume"):
        run_folder.read_checkpoint(run)


@posix
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_create_on_a_failing_disk_leaves_nothing(tmp_path, error):
    run = tmp_path / "run"
    with Failing() as calls:
        run_folder.create(run, "", {})
    for place in range(len(calls.made)):
        shutil.rmtree(run, ignore_errors=True)
        with Failing(place, error), contextlib.suppress(SaveError, KeyboardInterrupt):
            run_folder.create(run, "", {})
        assert [path.name for path in tmp_path.iterdir()] in ([], ["run"])
        assert not run.exists() or (run_folder.is_run(run) and listed_steps(run) == [])


def test_is_run_recognizes_a_run_folder(run):
    assert run_folder.is_run(run)
    assert not run_folder.is_run(run / "checkpoints")
    assert not run_folder.is_run(checkpoint_path(run, 6))
    assert not run_folder.is_run(run / "nowhere")


# The lock


OWNER = """
import pathlib, sys
from bptt.checkpoint import run_folder
with run_folder.locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def locking_process(run):
    """Another process that has locked a run, until its standard input is closed."""
    other = subprocess.Popen([sys.executable, "-c", OWNER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "locked\n"
    return other


def test_a_second_writer_is_kept_out(run):
    with locking_process(run) as other:
        last = run_folder.read_environment(run)["sessions"][-1]
        with pytest.raises(InputError, match=rf"run: process {last['pid']} on {last['host']} is writing there: wait for it"):
            run_folder.locked(run).__enter__()
        with pytest.raises(InputError, match="is writing there"):
            bptt.train(NAMES, resume=run, report=None)
        other.stdin.close()
        assert other.wait(30) == 0
    with run_folder.locked(run), pytest.raises(InputError, match="is writing there"):  # in one process, too
        run_folder.locked(run).__enter__()
    with run_folder.locked(run):
        pass


@posix
def test_the_lock_of_a_killed_process_is_released_at_once(run):
    with locking_process(run) as other:
        other.send_signal(signal.SIGKILL)
        assert other.wait(30) == -signal.SIGKILL
        assert (run / ".lock").exists()
        with run_folder.locked(run):
            assert listed_steps(run) == [6, 5, 4]


@pytest.mark.parametrize("environment", [b"", b"[]", b'{"sessions": [5]}', b'{"sessions": {}}', b"[" * 10**6])
def test_the_owner_of_a_lock_may_be_unknown(run, environment):
    (run / "env.json").write_bytes(environment)
    with run_folder.locked(run), pytest.raises(InputError, match=r"run: .*process .*is writing there"):
        run_folder.locked(run).__enter__()


def test_a_disk_without_locks_is_refused(run, monkeypatch):
    def none(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_folder.filelock.FileLock, "acquire", none)
    with pytest.raises(InputError, match=r"cannot be locked \(Function not implemented\): copy it to another disk"):
        run_folder.locked(run).__enter__()


# Which checkpoint is read


def test_the_best_checkpoint_is_loaded_and_the_newest_is_resumed(run):
    run_folder.update_links(run, run_folder.checkpoint_name(6), run_folder.checkpoint_name(4))
    assert run_folder.read_checkpoint(run)[0] == checkpoint_path(run, 4)
    assert run_folder.read_checkpoint(run, run=True)[0] == checkpoint_path(run, 6)
    assert run_folder.read_checkpoint(run / "checkpoints" / "best", run=True)[0] == checkpoint_path(run, 4)
    assert run_folder.read_checkpoint(run / "checkpoints" / "latest")[0] == checkpoint_path(run, 6)
    assert run_folder.read_checkpoint(checkpoint_path(run, 5), run=True)[0] == checkpoint_path(run, 5)


@pytest.mark.parametrize("alone", ["best", "latest", "step-00000005"])
def test_a_copied_checkpoint_folder_works_alone(run, tmp_path, alone):
    shutil.copytree(run / "checkpoints" / alone, tmp_path / "alone")
    shutil.rmtree(run)
    m = bptt.load(tmp_path / "alone", backend="numpy")
    assert len(m.sample(2, length=5)) == 2
    assert m.score("anna") > 0
    on = bptt.train(NAMES, resume=tmp_path / "alone", report=None)
    assert on.config == m.config


def test_a_link_that_was_copied_as_a_folder_is_read(run):
    best = run / "checkpoints" / "best"
    best.unlink()
    shutil.copytree(checkpoint_path(run, 5), best)
    assert run_folder.read_checkpoint(best)[0] == best
    assert run_folder.read_checkpoint(run)[0] == checkpoint_path(run, 6)


def test_a_damaged_checkpoint_is_skipped_with_a_warning(run):
    damage_model(checkpoint_path(run, 6))
    for go_on in (False, True):
        with pytest.warns(CheckpointWarning, match=r"step-00000006.config.json: .*; step-00000005 is used instead") as said:
            assert run_folder.read_checkpoint(run, run=go_on)[0] == checkpoint_path(run, 5)
        assert len(said) == 1
    damage_model(checkpoint_path(run, 5))
    with pytest.warns(CheckpointWarning, match=r"step-0000000[56].*; step-00000004 is used instead") as said:
        assert run_folder.read_checkpoint(run)[0] == checkpoint_path(run, 4)
    assert len(said) == 2
    shutil.rmtree(checkpoint_path(run, 4))
    checkpoint_path(run, 4).write_text("a file")
    with pytest.raises(CheckpointError, match=r"step-00000006.config\.json: has 2 bytes"):
        run_folder.read_checkpoint(run)
    with pytest.raises(CheckpointError, match=r"step-00000006.config\.json: has 2 bytes"):
        run_folder.read_checkpoint(run / "checkpoints" / "best")  # named, so nothing else will do


def test_a_damaged_optimizer_file_matters_only_for_resuming(run):
    (checkpoint_path(run, 6) / "optimizer.safetensors").write_bytes(b"")
    assert run_folder.read_checkpoint(run)[0] == checkpoint_path(run, 6)
    with pytest.warns(CheckpointWarning, match=r"step-00000006.optimizer.safetensors: has 0 bytes"):
        assert run_folder.read_checkpoint(run, run=True)[0] == checkpoint_path(run, 5)


@posix
@pytest.mark.parametrize("kind", ["upwards", "absolute", "through a link", "to the other link", "to itself", "to nothing"])
def test_links_that_point_elsewhere_are_not_followed(run, kind, tmp_path):
    link, elsewhere = run / "checkpoints" / "best", tmp_path / "step-00000099"
    shutil.copytree(checkpoint_path(run, 4), elsewhere)
    checkpoint_path(run, 98).symlink_to(elsewhere)
    checkpoint_path(run, 5).rename(checkpoint_path(run, 5).with_name("step-5"))
    target = {"upwards": "../../step-00000099", "absolute": elsewhere, "through a link": "step-00000098"}
    target |= {"to the other link": "latest", "to itself": "best", "to nothing": "step-00000003"}
    link.unlink()
    link.symlink_to(target[kind])
    assert listed_steps(run) == [6, 4]
    assert run_folder.read_checkpoint(run)[0] == checkpoint_path(run, 6)
    with pytest.raises(CheckpointError, match=rf"best: names no checkpoint: name another one, or the run {run}"):
        run_folder.read_checkpoint(link)


@pytest.mark.parametrize("words", ["../../elsewhere", "/etc", "", "step-00000003", "step-1", "x" * 65, "\0"])
def test_files_in_place_of_links_cannot_point_elsewhere(run, words):
    link = run / "checkpoints" / "best"
    link.unlink()
    link.write_text(words)
    assert run_folder.read_checkpoint(run)[0] == checkpoint_path(run, 6)
    with pytest.raises(CheckpointError, match="names no checkpoint"):
        run_folder.read_checkpoint(link)
    link.write_text("step-00000004")
    assert run_folder.read_checkpoint(run)[0] == run_folder.read_checkpoint(link)[0] == checkpoint_path(run, 4)


# Saving


def test_the_newest_and_the_best_checkpoints_are_kept(run, saved):
    for step in range(7, 12):
        assert run_folder.save_checkpoint(run, saved, step, best=5, most=2) == checkpoint_path(run, step)
        assert listed_steps(run) == sorted({step, step - 1, 5}, reverse=True)
        assert (linked_step(run, "latest"), linked_step(run, "best")) == (str(step), "5")
    run_folder.save_checkpoint(run, saved, 12, best=12, most=1)
    assert listed_steps(run) == [12]
    assert (linked_step(run, "latest"), linked_step(run, "best")) == ("12", "12")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best", "latest", "step-00000012"]
    assert equal_checkpoints(run_folder.read_checkpoint(run, run=True)[1], saved)


def test_checkpoints_are_ordered_by_number(run, saved):
    run_folder.save_checkpoint(run, saved, 10**9, best=6, most=2)
    run_folder.save_checkpoint(run, saved, 10**8 - 1, best=6, most=2)
    assert listed_steps(run) == [10**9, 10**8 - 1, 6]


def test_other_files_are_not_removed(run, saved):
    for name in ("step-1", "step-00000001.damaged", "step-0000000x", "mine"):
        (run / "checkpoints" / name).mkdir()
    run_folder.save_checkpoint(run, saved, 7, best=7, most=1)
    assert listed_steps(run) == [7]
    assert len(list((run / "checkpoints").iterdir())) == 7


def test_save_checkpoint_does_not_overwrite(run, saved):
    before = content(checkpoint_path(run, 6))
    with pytest.raises(errors.AlreadyExists):
        run_folder.save_checkpoint(run, saved, 6, best=6, most=3)
    assert content(checkpoint_path(run, 6)) == before
    assert listed_steps(run) == [6, 5, 4]


@posix
@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("best", [4, 7])
def test_a_failure_at_any_call_leaves_a_checkpoint_to_resume(original, saved, tmp_path, best, error):
    def fresh(name):
        run = Path(shutil.copytree(original, tmp_path / name, symlinks=True))
        run_folder.update_links(run, run_folder.checkpoint_name(6), run_folder.checkpoint_name(4))
        return run

    with Failing() as calls:
        run_folder.save_checkpoint(fresh("whole"), saved, 7, best=best, most=2)
    assert {"mkdir", "open", "write", "fsync", "symlink", "replace", "rmdir"} <= set(calls.made)
    for place, name in enumerate(calls.made):
        run = fresh(f"{place}")
        with Failing(place, error), contextlib.suppress(SaveError, KeyboardInterrupt):
            run_folder.save_checkpoint(run, saved, 7, best=best, most=2)
        steps = listed_steps(run)
        assert steps in ([6, 5, 4], [7, 6, 5, 4], [7, 6, 5], [7, 6, 4], [7, 6]), (place, name)
        for step in steps:  # no partial one
            store.read(checkpoint_path(run, step), run=True)
        with warnings.catch_warnings(action="error"):
            assert run_folder.read_checkpoint(run, run=True)[0] == checkpoint_path(run, steps[0])
            assert run_folder.read_checkpoint(run)[0] in (checkpoint_path(run, 4), checkpoint_path(run, 7))
        run_folder.repair(run, checkpoint_path(run, steps[0]), ())
        assert not list(run.rglob(f"{files.TEMPORARY}*"))
        shutil.rmtree(run)


@posix
def test_old_checkpoints_are_removed_only_after_the_new_one_exists(run, saved, monkeypatch):
    real, gone = shutil.rmtree, []

    def rmtree(path, *arguments, **keywords):
        if Path(path).exists():
            assert equal_checkpoints(run_folder.read_checkpoint(run, run=True)[1], saved)
            assert run_folder.read_checkpoint(run, run=True)[0] == checkpoint_path(run, 7)
            gone.append(path)
        real(path, *arguments, **keywords)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    run_folder.save_checkpoint(run, saved, 7, best=7, most=1)
    assert len(gone) == 3


@posix
def test_an_old_checkpoint_has_lost_its_name_before_its_files_go(run, saved, monkeypatch):
    """Also after a power failure: the folder is synced in between."""
    events = []
    fsync, rmtree = os.fsync, shutil.rmtree
    monkeypatch.setattr(os, "fsync", lambda one: events.append(os.readlink(f"/proc/self/fd/{one}")) or fsync(one))
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: events.append("rmtree") or rmtree(path))
    files.remove_folder(checkpoint_path(run, 4))
    assert events == [str(run / "checkpoints"), "rmtree"]
    assert listed_steps(run) == [6, 5]


@posix
@pytest.mark.parametrize("name", [".lock", "checkpoints"])
def test_a_run_does_not_write_through_a_link_in_its_folder(run, tmp_path, capsys, name):
    other = tmp_path / "other"
    shutil.move(run / "checkpoints", other)
    other.joinpath("note").write_text("mine")
    if name == "checkpoints":
        (run / name).symlink_to(other)
    else:
        shutil.copytree(other, run / "checkpoints", symlinks=True)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(other / "note")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    assert cli.main(["train", "--resume", str(run), "--steps", "20"]) == 2
    expected = f"bptt: {run / name}: is a link, expected a part of the run itself: put what it leads to in its place\n"
    assert capsys.readouterr().err == expected
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@posix
@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.txt"])
def test_the_history_is_not_appended_to_what_a_link_leads_to(run, tmp_path, name):
    (tmp_path / "other").write_text("mine")
    (run / name).unlink()
    (run / name).symlink_to(tmp_path / "other")
    with pytest.raises(SaveError, match="cannot write in"):
        run_folder.append_row(run, MEASURED)
    run_folder.write_history(run, [MEASURED])  # as a resumed run does
    run_folder.append_row(run, MEASURED)
    assert (tmp_path / "other").read_text() == "mine"


@pytest.mark.parametrize("what", ["removed", "moved"])
def test_a_run_whose_folder_is_gone_is_saved_elsewhere(tmp_path, monkeypatch, capsys, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    Path("names.txt").write_text("\n".join(NAMES))
    adam, updates = optimizers.adam, []

    def update(*arguments, **options):
        updates.append(None)
        if len(updates) == 5:
            shutil.rmtree("run") if what == "removed" else shutil.move("run", "moved")
        return adam(*arguments, **options)

    replace_adam(monkeypatch, update)
    flags = "--hidden 4 --steps 9 --evaluate-every 3 --backend numpy --quiet --out run"
    assert cli.main(["train", "names.txt", *flags.split()]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write in run: it has been moved or removed; where the run stands is saved in " in line
    assert not Path("run").exists()
    assert Path("moved").exists() == (what == "moved")
    assert stat.S_IMODE(Path("elsewhere/bptt-run").stat().st_mode) == 0o700
    assert cli.main(["train", "names.txt", "--resume", "elsewhere/bptt-run", "--quiet", "--out", "new"]) == 0


def test_no_checkpoint_is_written_into_a_folder_that_is_not_the_run(run, saved):
    shutil.rmtree(run)
    run.mkdir()
    with pytest.raises(SaveError, match=r"cannot write in .*run: config.toml is not there any more"):
        run_folder.save_checkpoint(run, saved, 7, best=7, most=3)
    assert list(run.iterdir()) == []


def test_a_removed_folder_of_checkpoints_is_made_again(run, saved):
    shutil.rmtree(run / "checkpoints")
    run_folder.save_checkpoint(run, saved, 7, best=7, most=3)
    assert listed_steps(run) == [7]


def test_systems_without_links_use_files(run, saved, monkeypatch):
    def none(*_, **__):
        raise NotImplementedError  # as pathlib does on a system that knows no links

    monkeypatch.setattr(Path, "symlink_to", none)
    run_folder.save_checkpoint(run, saved, 7, best=5, most=1)
    checkpoints = run / "checkpoints"
    assert not (checkpoints / "latest").is_symlink()
    assert ((checkpoints / "latest").read_text(), (checkpoints / "best").read_text()) == ("step-00000007", "step-00000005")
    assert (run_folder.read_checkpoint(run)[0], run_folder.read_checkpoint(run, run=True)[0]) == (
        checkpoint_path(run, 5),
        checkpoint_path(run, 7),
    )
    assert run_folder.read_checkpoint(checkpoints / "best")[0] == checkpoint_path(run, 5)
    monkeypatch.undo()
    run_folder.save_checkpoint(run, saved, 8, best=8, most=1)
    assert (linked_step(run, "latest"), linked_step(run, "best")) == ("8", "8")


def test_links_to_missing_checkpoints_are_not_updated(run):
    run_folder.update_links(run, run_folder.checkpoint_name(5), run_folder.checkpoint_name(99))
    assert (linked_step(run, "latest"), linked_step(run, "best")) == ("5", "6")


# After a run that was killed


def test_leftovers_are_removed_and_damaged_checkpoints_moved_aside(run, saved):
    files.temporary_path(run / "x").write_text("half")
    files.temporary_path(run / "checkpoints" / "x").mkdir()
    damage_model(checkpoint_path(run, 6))
    for expected in (["step-00000006.damaged"], ["step-00000006.damaged", "step-00000006.damaged1"]):
        run_folder.repair(run, checkpoint_path(run, 5), [ROW])
        assert json.loads((run / "metrics.jsonl").read_text()) == ROW
        assert listed_steps(run) == [5, 4]
        assert not list(run.rglob(f"{files.TEMPORARY}*"))
        assert sorted(path.name for path in run.glob("checkpoints/*.damaged*")) == expected
        run_folder.save_checkpoint(run, saved, 6, best=6, most=3)  # its place is free again
    run_folder.repair(run, None, ())
    assert listed_steps(run) == []


def test_repair_restores_a_missing_checkpoint_folder(run):
    shutil.rmtree(run / "checkpoints")
    assert listed_steps(run) == []
    run_folder.repair(run, None, ())
    assert (run / "checkpoints").is_dir()


# What people and programs read


def test_the_history_is_written_to_two_files(run):
    run_folder.write_history(run, [ROW])
    run_folder.append_row(run, MEASURED)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == [ROW, MEASURED]
    written = (run / "samples.txt").read_bytes().decode("utf-8", "surrogatepass")
    assert written == "step 2, 1.2500 nats per held-out character (1.8034 bits)\nanna\né\ud800\n\n"


def test_a_torn_last_line_is_removed_on_resume(run):
    names = ("metrics.jsonl", "samples.txt")
    whole = {name: (run / name).read_bytes() for name in names}
    for name in names:
        files.append(run / name, '{"step": 7, "lo')
    run_folder.write_history(run, run_folder.read_checkpoint(run, run=True)[1].progress.history)
    assert {name: (run / name).read_bytes() for name in names} == whole


def test_rows_that_a_checkpoint_leaves_out_stay_in_the_metrics(run):
    """The history of a checkpoint is at most 16 MiB: of a longer one it has every second row."""
    rows = [{**(MEASURED if step % 2 else ROW), "step": step} for step in range(1, 9)]
    run_folder.write_history(run, rows)
    written = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "samples.txt")}
    assert b"step 5" in written["samples.txt"]
    files.append(run / "metrics.jsonl", json.dumps({**ROW, "step": 9}) + '\n{"step": 10, "lo')  # after the checkpoint
    run_folder.write_history(run, rows[1::2])
    assert {name: (run / name).read_bytes() for name in written} == written


@posix
@pytest.mark.parametrize("content", [b"[1]\nnull\n\n{}\n\xff\n", b" " * (1 << 20), b"", None, "pipe"])
def test_metrics_that_are_damaged_are_made_of_the_history(run, content):
    (run / "metrics.jsonl").unlink()
    if content == "pipe":
        os.mkfifo(run / "metrics.jsonl")
    elif content is not None:
        (run / "metrics.jsonl").write_bytes(content)
    run_folder.write_history(run, [ROW, MEASURED])
    assert [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] == [ROW, MEASURED]


@posix
@pytest.mark.parametrize("write", [run_folder.write_history, run_folder.append_row])
def test_a_history_on_a_full_disk_is_an_error(run, write):
    what = [ROW, MEASURED] if write is run_folder.write_history else MEASURED
    run_folder.write_history(run, [])
    with Failing() as calls:
        write(run, what)
    for place, name in enumerate(calls.made):
        with Failing(place, ERRORS[0]), contextlib.suppress(SaveError):
            write(run, what)
        if name in ("write", "replace"):
            with Failing(place, ERRORS[0]), pytest.raises(SaveError, match=r"cannot write in .*run: No space left on device"):
                write(run, what)
        run_folder.write_history(run, [ROW])
        assert json.loads((run / "metrics.jsonl").read_text()) == ROW


def test_every_start_of_a_run_is_recorded_in_env_json(run):
    before = run_folder.read_environment(run)["sessions"]
    run_folder.record_session(run, {"pid": 1}, new=True)
    run_folder.record_session(run, {"pid": 1, "ended": "done"}, new=False)
    assert run_folder.read_environment(run)["sessions"] == [*before, {"pid": 1, "ended": "done"}]
    (run / "env.json").write_bytes(b"{")
    run_folder.record_session(run, {"pid": 2}, new=True)
    assert run_folder.read_environment(run) == {"sessions": [{"pid": 2}]}
