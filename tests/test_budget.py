"""A budget of time: a trial chooses units and steps, and the run is the one that these numbers give as flags."""

import json
import signal
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import bptt
from bptt import acceleration, cli
from bptt.backend import NumPy
from bptt.config import defaults
from bptt.config.defaults import RunCost, budget_hidden, budget_steps
from bptt.config.rules import check_duration, duration_seconds
from bptt.config.settings import from_flags
from bptt.display import plots
from bptt.errors import InputError, OutOfMemory
from bptt.train_step import threads
from bptt.training import budget, dry_run, launch, memory_estimate, setup
from process_groups import run_processes
from runs import NAMES, PROSE, outcome

CAPPED = ": at most 16 times the default run of this text"
SMALL = {"backend": "numpy", "batch": 6, "report": None}


def fake_cost(prepared, seconds):
    """An update of 64 units takes 50 ms, and of others in proportion."""
    return RunCost(0.05 * prepared.task.config.hidden / 64, 0.002)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No kernels to compile, and no curves, which take longer to draw than these runs."""
    monkeypatch.setenv("BPTT_KERNELS", "0")
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(NAMES) + "\n")
    return tmp_path


@pytest.fixture
def fake_trial(monkeypatch):
    """A trial without a clock: of the names, a budget of 1 s makes 32 units and 30 steps, 1 s in all."""
    monkeypatch.setattr(budget, "measure", fake_cost)
    monkeypatch.setattr(budget, "measure_rest", lambda prepared, seconds, saving: 0.003)
    monkeypatch.setattr(budget, "overhead", lambda began: 0.15)
    monkeypatch.setattr(dry_run, "TRIAL", 0.01)


# The rule


@pytest.mark.parametrize(
    ("times", "hidden"), [(1, 160), (16, 320), (1e9, 320), (1 / 16, 80), (1.2, 160), (1.5, 176), (1e-4, 32), (1e-12, 32)]
)
def test_units_grow_with_a_root_of_the_time(times, hidden):
    assert budget_hidden(160, 20.0, 20.0 * times) == hidden


def test_units_have_a_largest_number():
    assert budget_hidden(2000, 1.0, 1000.0) == 2048


@pytest.mark.parametrize(
    ("cost", "seconds", "every", "steps"),
    [
        (RunCost(0.01), 10.0, None, 1000),
        (RunCost(0.01), 9.999, None, 990),
        (RunCost(0.01, 0.5), 10.0, None, 500),
        (RunCost(0.01, 0.5), 10.0, 50, 500),
        (RunCost(0.01, 60.0), 100.0, 1000, 1000),
        (RunCost(0.01, 2.0), 10.0, None, 10),
        (RunCost(1.0), 0.001, None, 10),
        (RunCost(1e-12), 100.0, None, 1_000_000_000),
    ],
)
def test_steps_are_what_fits_into_the_time(cost, seconds, every, steps):
    assert budget_steps(cost, 1e6, seconds, every) == steps
    if seconds >= 9:
        assert steps == 10 or cost.seconds(steps, every) <= seconds


def test_a_short_text_does_not_use_unlimited_time():
    assert budget_steps(RunCost(0.01), 10.0, 1e6) == 1000 * defaults.MOST_TIME


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("90s", 90), ("1.5h", 5400), (".5m", 30), ("2.s", 2)]
)
def test_a_time_is_a_number_with_its_unit(text, seconds):
    assert duration_seconds(check_duration("--budget", text)) == seconds


@pytest.mark.parametrize(
    "value", ["30", "", "s", "0s", "-5m", "5 m", "5min", "5M", "1e3s", "infs", "nans", "1h30m", "9" * 400 + "h", "٣s", 30, True]
)
def test_another_time_is_refused_with_what_is_expected(value):
    with pytest.raises(InputError) as error:
        from_flags({"budget": value})
    expected = "expected a number above 0 and its unit, s, m or h, as in 30s, 5m or 1.5h"
    assert str(error.value) == f"budget {value!r}: {expected}"


# The run


@pytest.mark.parametrize(
    ("text", "flags"), [(NAMES, {"dropout": 0.2}), (PROSE, {"hidden": 5, "cell": "lstm", "layers": 2, "evaluate_every": 1000})]
)
def test_a_budget_and_its_numbers_as_flags_give_the_same_bits(text, flags, tmp_path):
    """With a real trial: it leaves weights, random numbers and the order of the batches as they are."""
    chosen = bptt.train(text, budget="0.2s", out=tmp_path / "budget", **flags, **SMALL).record["plan"]
    size = {"hidden": chosen["hidden"], "steps": chosen["steps"]}
    record = bptt.train(text, out=tmp_path / "flags", **{**flags, **size}, **SMALL).record
    assert record["plan"] == chosen
    assert outcome(tmp_path / "budget") == outcome(tmp_path / "flags")


def test_a_run_keeps_the_numbers_and_not_the_budget(fake_trial, workdir):
    record = bptt.train("names.txt", budget="1s", out="run", **SMALL).record
    assert record["budget"] == {"asked": "1s", "update_seconds": 0.025, "seconds": 1.0, "capped": False}
    assert (record["settings"]["hidden"], record["settings"]["steps"]) == (32, 30)
    assert (record["plan"]["hidden"], record["plan"]["steps"], record["plan"]["evaluate_every"]) == (32, 30, 3)
    assert record["settings"]["budget"] is None
    table = tomllib.loads(Path("run/config.toml").read_text())
    assert (table["hidden"], table["steps"]) == (32, 30)
    assert "budget" not in table
    bptt.train(config="run/config.toml", out="again", report=None)
    assert outcome(Path("run")) == outcome(Path("again"))


def test_a_run_with_a_budget_is_resumed_without_another_trial(fake_trial, workdir, monkeypatch):
    bptt.train("names.txt", budget="1s", out="whole", **SMALL)
    bptt.train("names.txt", budget="1s", out="paused", stop_after=11, **SMALL)
    monkeypatch.setattr(budget, "fit_to_budget", None)
    resumed = bptt.train(resume="paused", report=None)
    assert resumed.record["budget"]["asked"] == "1s"
    assert outcome(Path("paused")) == outcome(Path("whole"))


@pytest.mark.parametrize("flags", [{"hidden": 5}, {"from_": "run"}])
def test_given_units_and_those_of_a_checkpoint_stay(flags, fake_trial, workdir):
    bptt.train("names.txt", hidden=5, steps=2, out="run", **SMALL)
    record = bptt.train("names.txt", budget="1s", **flags, **SMALL).record
    assert record["plan"]["hidden"] == 5
    assert record["plan"]["steps"] == 200  # in 0.85 s: ten evaluations take 0.05 s, an update 3.9 ms


def test_units_are_limited_by_the_memory(fake_trial, workdir, monkeypatch):
    def refuse(task):
        if task.config.hidden > 96:
            raise OutOfMemory("too large")

    monkeypatch.setattr(memory_estimate, "refuse_too_large", refuse)
    record = bptt.train("names.txt", budget="30m", stop_after=1, **SMALL).record
    assert record["plan"]["hidden"] == 96


def test_units_for_which_the_device_has_no_memory_are_given_up(fake_trial, workdir, monkeypatch):
    def measure(prepared, seconds):
        if prepared.task.config.hidden > 96:
            raise MemoryError
        return fake_cost(prepared, seconds)

    monkeypatch.setattr(budget, "measure", measure)
    assert bptt.train("names.txt", budget="30m", stop_after=1, **SMALL).record["plan"]["hidden"] == 96


@pytest.mark.parametrize(("spent", "steps"), [(0.2, 30), (10.0, 10)])
def test_at_least_half_of_a_budget_is_for_training(spent, steps, fake_trial, workdir, monkeypatch):
    monkeypatch.setattr(budget, "overhead", lambda began: spent)
    assert bptt.train("names.txt", budget="1s", **SMALL).record["plan"]["steps"] == steps


def test_a_budget_counts_from_the_beginning_of_the_command(monkeypatch):
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: 17.0))
    assert budget.overhead(12.0) == 5.0 + budget.CLOSING


# The trial


def prepared_run(text=NAMES, **flags):
    return setup.from_scratch(text, from_flags({"hidden": 4, "batch": 6, "backend": "numpy", **flags}))


def test_an_update_takes_the_mean_of_the_timed_ones(monkeypatch):
    """The first updates, which compile, do not count, and neither does the slowest tenth."""
    rounds = [9.0, *[0.2, 0.3] * 5, 7.0]
    times = iter([sum(rounds[:count]) * 4 for count in range(len(rounds) + 1)])
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=times.__next__))
    assert budget.update_seconds(prepared_run(), limit=4 * 18) == pytest.approx(0.25)
    assert list(times) == []


def test_evaluations_of_a_trial_have_one_blas_thread_as_those_of_a_run(workdir, monkeypatch):
    """With more, on busy cores, a spectral radius takes many times as long."""
    seen = []

    def blas_threads(*arguments, **keywords):
        seen.append({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
        return 0.001

    monkeypatch.setattr(threads, "workers", lambda: 2)
    monkeypatch.setattr(budget, "_validation_seconds", blas_threads)
    monkeypatch.setattr(budget, "measure_rest", blas_threads)
    with threadpool_limits(2, "blas"):
        bptt.train("names.txt", budget="0.1s", **SMALL)
    assert len(seen) > 1
    assert all(count == {1} for count in seen)


@pytest.mark.parametrize("module", [plots, budget.store])
def test_a_trial_that_cannot_draw_or_save_goes_on(workdir, monkeypatch, module):
    """The run itself, which may have another folder, reports what fails."""

    def fail(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(plots, "available", lambda: True)
    monkeypatch.setattr(module, "save_curve" if module is plots else "write", fail)
    assert budget.measure_rest(prepared_run(), 1.0, saving=True) > 0


def test_ctrl_c_in_a_trial_takes_effect_at_its_end(fake_trial, workdir, monkeypatch):
    """A compiled kernel that it interrupts would raise a SystemError."""
    after = []

    def interrupted(prepared, seconds):
        signal.raise_signal(signal.SIGINT)
        after.append(seconds)
        return fake_cost(prepared, seconds)

    monkeypatch.setattr(budget, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bptt.train("names.txt", budget="1s", hidden=5, out="run", **SMALL)
    assert len(after) == 1
    assert not Path("run").exists()


def test_a_trial_waits_for_the_device(monkeypatch):
    """Before each look at the clock, as an array is copied to the host."""
    calls, get = [], NumPy.get
    monkeypatch.setattr(NumPy, "get", lambda backend, array: calls.append("device") or get(backend, array))
    clock = iter(range(1000)).__next__
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: calls.append("clock") or clock()))
    budget.update_seconds(prepared_run(), limit=0)
    assert calls == ["clock", *["device", "clock"] * (1 + budget.MIN_TIMED)]


def test_a_trial_leaves_the_state_of_the_run_as_it_is():
    prepared = prepared_run(dropout=0.1)
    before = [np.array(array) for array in (prepared.now.state.params_vector, *prepared.now.state.opt_state)]
    budget.measure(prepared, 0.1)
    budget.measure_rest(prepared, 0.1, saving=True)
    after = [prepared.now.state.params_vector, *prepared.now.state.opt_state]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert prepared.now.state.step == 0


@pytest.mark.parametrize("limit", [0, 1000])
def test_the_time_of_an_evaluation_is_that_of_all_its_windows(limit, monkeypatch):
    prepared = prepared_run("ab" * 20_000 + "\n", validation=0.5)
    clock = iter(range(1000)).__next__
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=clock))
    seconds = budget._validation_seconds(prepared, limit)
    if limit:
        assert seconds == 6  # five windows of 256 steps and 16 columns, each with a look at the clock, and the end
    else:
        assert seconds == pytest.approx(2 * 20_000 / 4096, rel=0.01)
    assert budget._validation_seconds(prepared_run(validation=0), 1) == 0


# What is said and refused


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("1s", "budget 1 s: 32 units, 30 steps of about 25 ms"),
        ("30m", "budget 30 min: 192 units, 8,000 steps of about 150 ms, about 20 min in all" + CAPPED),
        ("0.1s", "budget 0.1 s: 32 units, 10 steps of about 25 ms, about 1 s in all"),
    ],
)
def test_the_header_says_what_was_chosen(asked, words, fake_trial, workdir):
    lines = []
    bptt.train("names.txt", budget=asked, stop_after=1, **{**SMALL, "report": lines.append})
    (line,) = [line for line in lines[0].splitlines() if line.startswith("budget")]
    assert line == words


def test_a_trial_that_compiles_says_so_before_it_does(fake_trial, workdir, monkeypatch):
    said, empty = [], iter([True, False])
    monkeypatch.setattr(acceleration, "compiled_by", lambda *_: "llvmlite 9")
    monkeypatch.setattr(acceleration, "single_launch", lambda *_: True)
    monkeypatch.setattr(acceleration, "cache_is_empty", empty.__next__)
    monkeypatch.setattr(acceleration, "warm_up", lambda *_: said.append("compiles"))
    bptt.train("names.txt", budget="1s", stop_after=1, **{**SMALL, "report": said.append})
    assert said[:2] == ["compiling kernels, once on this machine, about a second", "compiles"]
    assert said[2].startswith("text ")
    assert "compiling" not in "".join(said[2:])


def test_json_and_a_dry_run_have_the_choice(fake_trial, workdir, capsys):
    command = ["train", "names.txt", "--budget", "1s", "--batch", "6", "--backend", "numpy"]
    assert cli.main([*command, "--json", "--out", "run"]) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (event["event"], event["record"]["budget"]["asked"], event["record"]["plan"]["steps"]) == ("start", "1s", 30)
    assert cli.main([*command, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["text", "model", "run", "budget", "chosen", "memory", "time"]
    assert lines[3] == "budget 1 s: 32 units, 30 steps of about 25 ms"
    assert cli.main([*command, "--dry-run", "--json"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert (event["plan"]["hidden"], event["plan"]["steps"], event["record"]["budget"]["asked"]) == (32, 30, "1s")
    assert sorted(path.name for path in workdir.iterdir()) == ["names.txt", "run"]


@pytest.mark.parametrize(("name", "value"), [("steps", 5), ("epochs", 2.0)])
def test_steps_or_epochs_beside_a_budget_are_refused(name, value, workdir, capsys):
    words = f"{name} {value} and budget 1s: give one of the two"
    with pytest.raises(InputError, match=f"^{words}$"):
        bptt.train("names.txt", budget="1s", **{name: value})
    assert cli.main(["train", "names.txt", "--budget", "1s", f"--{name}", str(value)]) == 2
    assert capsys.readouterr().err == f"bptt: --{name} {value} and --budget 1s: give one of the two\n"
    Path("m.toml").write_text(f'{name} = {value}\nbudget = "1s"\n')
    assert cli.main(["train", "names.txt", "--config", "m.toml"]) == 2
    assert capsys.readouterr().err == f"bptt: m.toml: {name} = {value} and m.toml: budget = 1s: give one of the two\n"


def test_a_file_may_have_a_budget_that_flags_replace(fake_trial, workdir):
    Path("m.toml").write_text('text = "names.txt"\nbudget = "1s"\nbackend = "numpy"\nbatch = 6\nquiet = true\n')
    assert bptt.train(config="m.toml").record["plan"]["steps"] == 30
    assert bptt.train(config="m.toml", steps=2).record["plan"]["steps"] == 2
    assert cli.main(["train", "--config", "m.toml", "--epochs", "1", "--out", "run"]) == 0
    assert bptt.load("run").record["plan"]["steps"] == 5
    Path("m.toml").write_text('text = "names.txt"\nsteps = 7\nbackend = "numpy"\nbatch = 6\nquiet = true\n')
    assert bptt.train(config="m.toml", budget="1s").record["plan"]["steps"] == 30


def test_a_resumed_run_takes_no_budget(workdir, capsys):
    bptt.train("names.txt", hidden=3, steps=3, stop_after=1, out="run", **SMALL)
    problem = "a resumed run keeps this setting: leave it out, or start a new run with"
    assert cli.main(["train", "--resume", "run", "--budget", "5m"]) == 2
    assert capsys.readouterr().err == f"bptt: --budget 5m: {problem} --from run\n"
    with pytest.raises(InputError, match=f"^budget='5m': {problem} from_='run'$"):
        bptt.train(resume="run", budget="5m")


# Several processes


@pytest.mark.parametrize("real", [False, True])
def test_processes_take_the_numbers_of_process_0(real, monkeypatch):
    """With a real trial they make the same updates together."""
    monkeypatch.setattr(budget, "overhead", lambda began: 0.15)
    if not real:
        monkeypatch.setattr(budget, "measure_rest", lambda prepared, seconds, saving: 0.003)
        monkeypatch.setattr(budget, "measure", lambda run, seconds: RunCost(0.02 * (1 + run.task.group.rank)))
    settings = from_flags({"backend": "numpy", "batch": 6, "budget": "1s"})

    def fit(group):
        prepared = launch.setup_all(group, settings, lambda: setup.from_scratch(NAMES, settings, group))
        return budget.fit_to_budget(prepared, settings, 0.0, launch.silent_reporter, saving=True)

    runs = run_processes(3, fit)
    assert all(run.record["budget"] == runs[0].record["budget"] for run in runs)
    one, *others = [prepared.task for prepared in runs]
    assert all((task.plan, task.config, task.settings) == (one.plan, one.config, one.settings) for task in others)
    assert one.all_reduce is not None
    assert one.settings.budget is None
    if not real:
        assert (one.plan.hidden, one.plan.steps) == (48, 40)
