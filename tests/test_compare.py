"""`bptt compare`: the best losses of runs, the settings that differ, the curves, and a warning where they do not compare."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from bptt.checkpoint import run_folder, run_summary
from bptt.report import comparison
from bptt.report.comparison import Curve
from forging import forge, train

posix = pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
TITLE = "\x1b]0;title\x07"  # sets the title of a terminal


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Three runs of one text, and one of a stream."""
    folder = tmp_path_factory.mktemp("originals")
    how = {"steps": 6, "evaluate_every": 2}
    train(folder / "a", **how)
    train(folder / "b", hidden=7, learning_rate=0.02, **how)
    train(folder / "c", split_seed=1, **how)
    train(folder / "d", "stream", **how)
    return folder


@pytest.fixture
def workdir(tmp_path, monkeypatch, original):
    """A folder with copies of all of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)
    shutil.copytree(original, ".", symlinks=True, dirs_exist_ok=True)
    return tmp_path


def progress_of(run):
    return run_folder.read_checkpoint(Path(run), run=True)[1].progress


def change_records(run, **entries):
    """Let every checkpoint of a run record something else."""
    for path in run_folder.checkpoints(Path(run)):
        value = json.loads((path / "config.json").read_bytes())
        value["record"] |= entries
        forge(path, "config.json", json.dumps(value).encode())


def test_the_table_has_the_best_loss_of_each_run(run):
    code, out, err = run("compare", "a", "b")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["run", "nats", "bits", "at", "step", "after", "steps", "seconds"]
    for letter, name, line in zip("AB", "ab", lines[1:3], strict=True):
        progress = progress_of(name)
        step, nats = progress.best
        (after,) = [row["seconds"] for row in progress.history if row["step"] == step]
        cells = [letter, name, f"{nats:.4f}", f"{nats / math.log(2):.4f}", str(step), f"{after:.1f}", "s", "6"]
        assert line.split() == [*cells, f"{progress.seconds:.1f}"]


def test_settings_that_differ_are_listed(run):
    lines = run("compare", "a", "b")[1].splitlines()
    start = lines.index("") + 1
    assert lines[start].split() == ["setting", "A", "B"]
    rows = [line.split() for line in lines[start + 1 : lines.index("", start)]]
    assert {row[0]: row[1:] for row in rows}.items() >= {"hidden": ["5", "7"]}.items()
    assert next(row for row in rows if row[0] == "learning_rate")[2] == "0.02"
    assert not {"out", "seed", "steps", "text"} & {row[0] for row in rows}
    assert "setting" not in run("compare", "a", "a")[1]


def test_the_curves_go_over_steps_and_seconds(run):
    for columns, width in ((None, 80), (40, 40)):
        with pytest.MonkeyPatch.context() as patch:
            if columns:
                patch.setenv("COLUMNS", str(columns))
            out = run("compare", "a", "b")[1]
        charts = [line for line in out.splitlines() if line.count("|") == 2]
        assert len(charts) == 20
        assert {len(line) for line in charts} == {width}
        nats = [row["held_out"] for name in "ab" for row in progress_of(name).history if "held_out" in row]
        for first, last in (charts[0], charts[9]), (charts[10], charts[19]):
            assert first.startswith(f"{max(nats):.2f}|")
            assert first.endswith(f"|{max(nats) / math.log(2):.2f}")
            assert last.startswith(f"{min(nats):.2f}|")
            assert last.endswith(f"|{min(nats) / math.log(2):.2f}")
        words = " ".join(out.split())
        assert "held-out nats (left) and bits (right), steps 2 to 6" in words
        assert ", seconds " in words
        assert max(map(len, out.splitlines())) <= width


def test_a_chart_draws_each_curve_in_its_letter():
    falling = Curve("A", "a", (0, 10), (0.0, 1.0), (3.0, 1.0))
    rising = Curve("B", "b", (0, 10), (0.0, 2.0), (1.0, 3.0))
    chart = comparison.chart([falling, rising], "steps", 4 + 2 + 4 + 5, 5)
    assert [line[5:10] for line in chart] == ["A   B", " A B ", "  *  ", " B A ", "B   A"]
    assert [line[:4] for line in chart] == ["3.00", *["    "] * 3, "1.00"]
    assert [line[-4:] for line in chart] == ["4.33", *["    "] * 3, "1.44"]
    assert [line[5:10] for line in comparison.chart([falling, rising], "seconds", 15, 3)] == ["A  BB", " AB  ", "BBA  "]
    assert comparison.chart([falling], "steps", 13, 5) == comparison.chart([falling], "steps", 15, 1) == []
    assert comparison.chart([falling._replace(steps=(), nats=())], "steps", 80, 5) == []
    (top, bottom) = comparison.chart([Curve("A", "a", (3,), (1.0,), (2.0,))], "steps", 80, 2)
    assert top.count("A") == 80 - 10
    assert bottom.startswith("2.00|")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("c", "(they differ in: split seed)"),
        ("d", "(they differ in: mode, text, "),
        ({"sha256": "0" * 64}, "(they differ in: text)"),
        ({"validation": {"sha256": "0" * 64}}, "(they differ in: text, split seed, duplicates, validation file)"),
    ],
    ids=str,
)
def test_other_held_out_sets_are_warned_of_in_a_line(run, changed, words):
    name = "b"
    if isinstance(changed, dict):
        change_records("b", **changed)
    else:
        name = changed
    code, _, err = run("compare", "a", name)
    assert code == 0
    assert err.startswith("bptt: warning: these runs have different held-out sets (")
    assert words in err
    assert len(err.splitlines()) == 1
    assert [json.loads(line)["comparable"] for line in run("compare", "a", name, "--json")[1].splitlines()] == [False] * 2


def test_one_validation_file_makes_runs_of_two_texts_comparable(run):
    for name, text in (("a", "0"), ("c", "1")):
        change_records(name, validation={"sha256": "f" * 64}, sha256=text * 64)
    assert run("compare", "a", "c")[2] == ""


def test_compare_prints_json(run):
    code, out, err = run("compare", "a", "b", "--json")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["run"] for row in rows] == ["a", "b"]
    for row in rows:
        progress = progress_of(row["run"])
        assert (row["best_step"], row["nats_per_char"]) == progress.best
        assert row["bits_per_char"] == row["nats_per_char"] / math.log(2)
        assert row["comparable"] is True
        assert [(one["step"], one["nats_per_char"]) for one in row["curve"]] == [
            (entry["step"], entry["held_out"]) for entry in progress.history if "held_out" in entry
        ]
        assert row["seconds_to_best"] == next(one["seconds"] for one in row["curve"] if one["step"] == row["best_step"])
    assert [row["settings"]["hidden"] for row in rows] == ["5", "7"]


def test_runs_that_held_out_nothing_have_no_curve(run):
    train(Path("e"), steps=2, validation=0)
    code, out, err = run("compare", "e", "e")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split() == ["A", "e", "2", f"{progress_of('e').seconds:.1f}"]
    assert "|" not in out
    row = json.loads(run("compare", "e", "e", "--json")[1].splitlines()[0])
    assert (row["nats_per_char"], row["bits_per_char"], row["seconds_to_best"], row["curve"]) == (None, None, None, [])


# Pictures


@pytest.mark.parametrize("name", ["compare.png", "compare.SVG"])
def test_a_picture_shows_the_curves(run, name):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[plot]'")
    Path("a").rename("a$_{$é")
    Path(name).write_text("an older one")
    code, out, err = run("compare", "a$_{$é", "b", "--out", name)
    assert (code, err, out.splitlines()[-1]) == (0, "", f"written: {name}")
    data = Path(name).read_bytes()
    assert data.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert run("compare", "a$_{$é", "b", "--out", name, "--json")[0] == 0
    assert Path(name).read_bytes() == data
    if name.endswith("SVG"):
        text = data.decode()
        assert "<!-- A  a$_{$é -->" in text
        assert all(words in text for words in ("held-out loss (nats per character)", "bits per character", "step", "seconds"))


@posix
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compare.jpg", "'compare.jpg': expected the name of a picture that ends in .png or .svg"),
        ("folder.png", "'folder.png' is no file: name one for the picture"),
        ("pipe.svg", "'pipe.svg' is no file: name one for the picture"),
    ],
)
def test_a_picture_needs_a_file_of_its_kind(run, name, words):
    Path("folder.png").mkdir()
    os.mkfifo("pipe.svg")
    assert run("compare", "a", "b", "--out", name) == (2, "", f"bptt: {words}\n")


def test_a_picture_needs_matplotlib(run, monkeypatch):
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    expected = "bptt: a picture needs matplotlib, which is not installed: pip install 'bptt[plot]'\n"
    assert run("compare", "a", "b", "--out", "a.png") == (2, "", expected)
    assert run("compare", "a", "b")[0] == 0


# Bad input


@pytest.mark.parametrize("names", ["", "a", " ".join(["a"] * 27)])
def test_compare_needs_two_runs(run, names):
    code, out, err = run("compare", *names.split())
    assert (code, out) == (2, "")
    count = len(names.split())
    assert err == f"bptt: {count} run{'s' * (count != 1)}: expected 2 to 26 runs to compare\n"


def test_a_run_that_cannot_be_read_is_a_one_line_error(run):
    for name, words in (("nothing", "nothing: no such folder"), ("a/config.toml", "is a file")):
        code, out, err = run("compare", "a", name)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert words in err
    for path in run_folder.checkpoints(Path("a")):
        (path / "training.json").write_bytes(b"{}")
    code, out, err = run("compare", "a", "b")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "training.json: has 2 bytes, expected" in err
    shutil.rmtree("a/checkpoints")
    assert "the run has saved nothing yet" in run("compare", "a", "b")[2]


def test_an_older_checkpoint_is_used_with_a_warning(run):
    newest = run_folder.checkpoints(Path("a"))[0]
    (newest / "training.json").write_bytes(b"{}")
    code, _, err = run("compare", "a", "b")
    assert (code, len(err.splitlines())) == (0, 1)
    assert err.startswith(f"bptt: warning: {newest}/training.json: has 2 bytes")
    assert err.endswith("; an older checkpoint of a is used instead\n")


@pytest.mark.parametrize(
    "entries",
    [
        {"settings": {TITLE: TITLE, "hidden": [1], "validation": {"a": 1}}, "plan": 7},
        {"settings": [1], "plan": {"steps": {}}},
        {"text": TITLE, "validation": [TITLE], "sha256": {}},
    ],
    ids=str,
)
def test_forged_records_do_no_harm(run, entries):
    change_records("a", **entries)
    Path("b").rename(f"b{TITLE}")
    for flags in ((), ("--json",)):
        code, out, err = run("compare", "a", f"b{TITLE}", *flags)
        assert code == 0
        assert all(line.isprintable() for line in (out + err).splitlines())


def test_a_checkpoint_is_compared_as_a_run_is(run):
    rows = run("compare", "a", "a/checkpoints/step-00000004", "--json")[1].splitlines()
    assert [json.loads(row)["step"] for row in rows] == [6, 4]
    assert run_summary.read_run(Path("a")).progress == progress_of("a")
