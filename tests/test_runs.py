"""`bptt runs`, and the newest run, which `bptt sample` and `bptt report` take: also where files are not what they were."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from bptt.checkpoint import run_folder, run_summary
from bptt.display import plots
from bptt.report import page
from forging import forge, train

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and locks of POSIX")
TITLE = "\x1b]0;title\x07"  # sets the title of a terminal


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a run that was paused and one, of two layers, that has ended."""
    folder = tmp_path_factory.mktemp("originals")
    train(folder / "paused", steps=9, stop_after=6, evaluate_every=3)
    train(folder / "done", "stream", steps=4)
    return folder


@pytest.fixture
def workdir(tmp_path, monkeypatch, original):
    """A folder with copies of both in runs/, the paused one newer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)
    monkeypatch.setattr(plots, "available", lambda: False)
    for age, name in enumerate(["paused", "done"]):
        shutil.copytree(original / name, f"runs/{name}", symlinks=True)
        set_age(f"runs/{name}", age + 1)
    return tmp_path


def set_age(run, days):
    """Let the newest checkpoint of a run be so old; older ones are newer, as after a copy in another order."""
    for number, path in enumerate(run_folder.checkpoints(Path(run))):
        time = 1.7e9 - 86400 * days + 10 * number
        for file in (path / "manifest.json", path):
            os.utime(file, (time, time))


def test_each_run_has_a_row_with_the_newest_last(run):
    code, out, err = run("runs")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["run", "text", "cell", "units", "steps", "nats", "bits", "seconds", "state"]
    for line, name in zip(lines[1:3], ("done", "paused"), strict=True):
        saved = run_folder.read_checkpoint(Path("runs", name), run=True)[1]
        best = saved.progress.best[1]
        units = {"done": "2 x 4", "paused": "5"}[name]
        steps = {"done": "4/4", "paused": "6/9"}[name]
        cells = [name, "text", saved.config.cell, units, steps, f"{best:.4f}", f"{best / math.log(2):.4f}"]
        cells += [f"{saved.progress.seconds:.1f}", {"done": "finished", "paused": "paused"}[name]]
        assert line.split() == " ".join(cells).split()
    assert lines[3:] == ["runs/paused: paused, resume with", "  bptt.train(TEXT, resume='runs/paused')"]


def test_runs_prints_json(run):
    rows = [json.loads(line) for line in run("runs", "--json")[1].splitlines()]
    assert [row["run"] for row in rows] == ["runs/done", "runs/paused"]
    first, second = rows
    assert (first["cell"], first["units"], first["layers"], first["step"], first["steps"]) == ("lstm", 4, 2, 4, 4)
    assert (first["state"], first["problem"], first["resume"]) == ("finished", None, None)
    assert (second["state"], second["step"], second["steps"]) == ("paused", 6, 9)
    assert second["resume"] == "bptt.train(TEXT, resume='runs/paused')"
    assert second["bits_per_char"] == second["nats_per_char"] / math.log(2)
    assert second["best_step"] == run_folder.read_checkpoint(Path("runs/paused"), run=True)[1].progress.best[0]
    assert second["saved"].startswith("2023-11-")


def test_runs_takes_another_folder_or_one_run(run):
    Path("runs").rename("kept")
    assert [json.loads(line)["run"] for line in run("runs", "kept", "--json")[1].splitlines()] == ["kept/done", "kept/paused"]
    assert [json.loads(line)["run"] for line in run("runs", "kept/done", "--json")[1].splitlines()] == ["kept/done"]


def test_runs_without_a_run(run):
    shutil.rmtree("runs")
    assert run("runs") == (0, "", "bptt: no run in runs: bptt train makes one in runs\n")
    expected = "bptt: other: No such file or directory: expected a folder with runs, as bptt train makes it\n"
    assert run("runs", "other") == (2, "", expected)
    Path("runs/folder").mkdir(parents=True)
    Path("runs/file").write_text("")
    assert run("runs") == (0, "", "bptt: no run in runs: bptt train makes one in runs\n")
    assert run("runs", "--json") == (0, "", "")


def test_the_table_is_readable_on_a_narrow_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = run("runs")[1]
    assert max(map(len, out.splitlines())) <= 40
    words = " ".join(out.split())
    for cells in ("units 2 x 4", "steps 4/4", "state finished", "resume with bptt.train(TEXT, resume='runs/paused')"):
        assert cells in words


SESSIONS = [
    ({"ended": "done"}, "finished"),
    ({"ended": "patience"}, "stopped early"),
    ({"ended": "SIGTERM"}, "interrupted"),
    ({"ended": "diverged"}, "diverged"),
    ({"ended": "unsaved"}, "failed"),
    ({"pid": 1}, "interrupted"),
    ({"ended": ["done"]}, "interrupted"),
    (7, "interrupted"),
]


@pytest.mark.parametrize(("session", "state"), SESSIONS, ids=str)
def test_the_environment_file_says_how_a_run_ended(run, session, state):
    Path("runs/paused/env.json").write_text(json.dumps({"sessions": [{"ended": "paused"}, session]}))
    row = json.loads(run("runs", "runs/paused", "--json")[1])
    assert row["state"] == state
    assert (row["resume"] is not None) == (state in ("interrupted", "failed"))


@posix
def test_a_run_that_another_process_writes_is_running(run):
    Path("runs/paused/env.json").write_text(json.dumps({"sessions": [{"pid": 1}]}))
    with run_folder.locked(Path("runs/paused")):
        assert json.loads(run("runs", "runs/paused", "--json")[1])["state"] == "running now"
        assert run_folder.is_locked(Path("runs/paused"))
    assert not run_folder.is_locked(Path("runs/paused"))
    assert json.loads(run("runs", "runs/paused", "--json")[1])["state"] == "interrupted"


def test_a_run_without_a_lock_gets_none(run):
    Path("runs/paused/env.json").unlink()
    Path("runs/paused/.lock").unlink()
    assert run("runs")[0] == 0
    assert not Path("runs/paused/.lock").exists()


@posix
def test_a_lock_that_is_a_link_is_not_followed(run):
    Path("runs/paused/env.json").unlink()
    Path("runs/paused/.lock").unlink()
    Path("runs/paused/.lock").symlink_to(Path("runs/done/.lock").absolute())
    with run_folder.locked(Path("runs/done")):
        assert json.loads(run("runs", "runs/paused", "--json")[1])["state"] == "interrupted"


@posix
def test_the_metrics_of_a_running_run_go_beyond_its_newest_checkpoint(run):
    rows = [json.loads(line) for line in Path("runs/paused/metrics.jsonl").read_text().splitlines()]
    progress = run_summary.read_run(Path("runs/paused")).progress
    newest = {**rows[-1], "step": 8, "held_out": 0.5, "seconds": 77.0}
    with open("runs/paused/metrics.jsonl", "a") as file:
        file.write(json.dumps({**newest, "step": 7, "held_out": math.inf}) + "\n" + json.dumps(newest) + '\n{"step": 9, "lo')
    paused = json.loads(run("runs", "runs/paused", "--json")[1])
    assert (paused["step"], paused["nats_per_char"]) == (6, progress.best[1])
    Path("runs/paused/env.json").unlink()
    with run_folder.locked(Path("runs/paused")):
        row = json.loads(run("runs", "runs/paused", "--json")[1])
    assert (row["step"], row["best_step"], row["nats_per_char"], row["seconds"]) == (8, 8, 0.5, 77.0)


def test_a_run_before_its_first_checkpoint_has_a_row(run):
    shutil.rmtree("runs/paused/checkpoints")
    Path("runs/paused/checkpoints").mkdir()
    code, out, err = run("runs", "runs/paused", "--json")
    row = json.loads(out)
    assert (code, err, row["state"], row["problem"]) == (0, "", "paused", "has saved nothing yet")
    assert (row["cell"], row["units"], row["step"], row["steps"]) == ("gru", 5, 6, 9)
    for broken in ("hidden = [", 'hidden = "a"\ncell = 7\ntext = ["a"]\nsteps = -1\n', "hidden = 0\nlayers = 1e9\n"):
        Path("runs/paused/config.toml").write_text(broken)
        row = json.loads(run("runs", "runs/paused", "--json")[1])
        assert (row["units"], row["layers"]) == (None, None)
    Path("runs/paused/config.toml").unlink()
    assert json.loads(run("runs", "runs/paused", "--json")[1])["state"] == "damaged"


# Damaged runs


def damage(path, name="training.json"):
    data = bytearray((path / name).read_bytes())
    data[0] ^= 1  # of a manifest, another byte may be that of a file which is not read
    (path / name).write_bytes(data)


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "training.json"])
def test_a_damaged_run_is_one_row(run, name):
    for path in run_folder.checkpoints(Path("runs/paused")):
        damage(path, name)
    code, out, err = run("runs")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[1].split()[0] == "done"
    assert lines[2].split() == ["paused", "damaged"]
    assert lines[3].startswith(f"runs/paused/checkpoints/step-00000006/{name}: ")
    assert len(lines) == 4
    row = json.loads(run("runs", "--json")[1].splitlines()[1])
    assert (row["state"], row["step"], row["nats_per_char"], row["resume"]) == ("damaged", 0, None, None)
    assert "Traceback" not in out + err


def test_an_older_checkpoint_stands_in_for_a_damaged_one(run):
    damage(Path("runs/paused/checkpoints/step-00000006"))
    row = json.loads(run("runs", "runs/paused", "--json")[1])
    assert (row["state"], row["steps"]) == ("paused", 9)
    assert row["problem"].startswith("runs/paused/checkpoints/step-00000006/training.json: does not match its checksum")


def test_weights_are_not_read(run):
    before = run("runs", "--json")
    for path in run_folder.checkpoints(Path("runs/paused")):
        (path / "model.safetensors").unlink()
    set_age("runs/paused", 1)
    assert run("runs", "--json") == before


def test_a_cell_of_a_user_is_listed_by_its_name(run):
    for path in run_folder.checkpoints(Path("runs/paused")):
        value = json.loads((path / "config.json").read_bytes())
        value["model"]["cell"] = "mine"
        value["record"] |= {"cell_file": {"name": "mine.py"}, "source": "names.txt"}
        forge(path, "config.json", json.dumps(value).encode())
    row = json.loads(run("runs", "runs/paused", "--json")[1])
    assert (row["cell"], row["units"]) == ("mine", 5)
    assert row["resume"] == "bptt train --resume runs/paused --cell FILE.py"


FORGED = [
    ("record", {"text": TITLE, "plan": {"steps": "many"}, "source": 7}),
    ("record", {"plan": [], "settings": None}),
    ("record", {"plan": {"steps": -3}, "source": "-"}),
    ("model", {"cell": TITLE, "hidden": 5, "layers": 1, "vocabulary": 9}),
    ("model", {"cell": "x", "hidden": -5, "layers": 1, "vocabulary": 9}),
    ("model", {"cell": ["gru"], "hidden": 5}),
    ("model", 7),
]


@pytest.mark.parametrize(("part", "value"), FORGED, ids=str)
def test_a_forged_run_is_one_row(run, monkeypatch, part, value):
    for path in run_folder.checkpoints(Path("runs/paused")):
        config = json.loads((path / "config.json").read_bytes())
        forge(path, "config.json", json.dumps(config | {part: value}).encode())
    set_age("runs/paused", 1)
    code, out, err = run("runs")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert out.splitlines()[2].split()[0] == "paused"
    assert len(run("runs", "--json")[1].splitlines()) == 2


def test_no_name_of_a_run_reaches_the_terminal_as_a_command(run):
    Path("runs/paused").rename(f"runs/a{TITLE}")
    Path("runs/done/checkpoints").rename("runs/done/gone")
    Path("runs/done/config.toml").write_bytes(b"\xff" + TITLE.encode())
    code, out, err = run("runs")
    assert code == 0
    assert all(line.isprintable() for line in (out + err).splitlines())
    code, out, err = run("sample", "--length", 3)
    assert code == 0
    assert all(line.isprintable() for line in err.splitlines())


@posix
def test_links_and_loops_do_no_harm(run):
    Path("runs/again").symlink_to("done", target_is_directory=True)
    Path("runs/loop").symlink_to("loop")
    Path("runs/gone").symlink_to("nowhere")
    shutil.rmtree("runs/paused/checkpoints")
    Path("runs/paused/checkpoints").symlink_to("checkpoints")
    rows = [json.loads(line) for line in run("runs", "--json")[1].splitlines()]
    assert {row["run"]: row["state"] for row in rows} == {
        "runs/again": "finished",
        "runs/done": "finished",
        "runs/paused": "damaged",
    }


# The newest run


def test_sample_takes_the_newest_run(run):
    code, out, err = run("sample", "--seed", 3)
    assert (code, err) == (0, "bptt: using runs/paused, the newest run\n")
    assert (0, out) == run("sample", "runs/paused", "--seed", 3)[:2]
    set_age("runs/done", 0)
    assert run("sample", "--length", 3, "--count", 2)[2] == "bptt: using runs/done, the newest run\n"
    shutil.rmtree("runs/done/checkpoints")
    Path("runs/done/checkpoints").mkdir()
    assert run("sample")[2] == "bptt: using runs/paused, the newest run\n"


def test_report_takes_the_newest_run(run, monkeypatch):
    written = []
    monkeypatch.setattr(page, "write", lambda model, place, text, out, reading: written.append((place, text, out)))
    assert run("report")[::2] == (0, "bptt: using runs/paused, the newest run\n")
    assert run("report", "--out", "a.html")[0] == 0
    expected = Path("runs/paused")
    assert written == [(expected, None, expected / "report.html"), (expected, None, Path("a.html"))]


@pytest.mark.parametrize("command", ["sample", "report"])
def test_without_a_run_there_is_no_newest_one(run, command):
    expected = "bptt: no run in runs: name a run or a saved model, or train one with bptt train\n"
    shutil.rmtree("runs/done")
    shutil.rmtree("runs/paused/checkpoints")
    assert run(command) == (2, "", expected)
    shutil.rmtree("runs")
    assert run(command) == (2, "", expected)
    Path("runs").write_text("")
    assert run(command) == (2, "", expected)


@pytest.mark.parametrize("command", ["score", "evaluate", "next", "export", "train --resume", "train --from"])
def test_no_other_command_guesses_a_run(run, command):
    before = sorted(Path().rglob("*"))
    code, out, err = run(*command.split())
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "newest" not in err
    assert sorted(Path().rglob("*")) == before
