"""The examples for trackers and for a search, each with the real package and without a network; `nox -s trackers`.

A run that names these tests (-m trackers) fails where a package is missing; any other run skips them.
"""

import ast
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples" / "trackers"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NUMBERS = {"loss", "rate", "norm", "seconds", "held_out"}
STEPS = 20
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "1",
}  # they ask for names of hosts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_tracker_example_is_a_short_script_with_a_callback(script):
    source = script.read_text("utf-8")
    tree = ast.parse(source)
    package = script.stem.removeprefix("with_")
    imported = {alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {package, "bptt"}
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 30
    assert "callbacks=[" in source
    assert re.search(r"\bsteps=300\b", source)


@functools.cache
def isolated() -> tuple[str, ...]:
    """What runs a command without a network, where this system has it."""
    command = ("unshare", "--map-root-user", "--net")
    if shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return command
    return ()


@pytest.fixture
def tracked(request, tmp_path, monkeypatch):
    """Run an example in an empty folder, with fewer steps; returns what it printed and logged."""
    monkeypatch.chdir(tmp_path)

    def run(package: str) -> str:
        if importlib.util.find_spec(package) is None:
            give_up = pytest.fail if request.config.option.markexpr == "trackers" else pytest.skip
            give_up(f"{package} is not installed: nox -s trackers runs this")
        script = tmp_path / "script.py"  # a name that hides no package
        source = (EXAMPLES / f"with_{package}.py").read_text("utf-8").replace("n_trials=10", "n_trials=6")
        script.write_text(source.replace("steps=300", f"steps={STEPS}"), "utf-8")
        environment = {**os.environ, **QUIET, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "BPTT_KERNELS": "0"}
        command = [*isolated(), sys.executable, "-W", "ignore", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8", env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return f"{done.stdout}{done.stderr}"

    return run


def expected_rows() -> list[dict[str, Any]]:
    """The rows of the run that the examples make."""
    import bptt

    return list(bptt.train("dinosaurs", steps=STEPS, report=None).history.rows)


@pytest.mark.trackers
def test_tensorboard_reads_each_number(tracked):
    tracked("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator("logs", size_guidance={"tensors": 0}).Reload()
    assert set(log.Tags()["tensors"]) == NUMBERS
    losses = {event.step: event.tensor_proto.float_val[0] for event in log.Tensors("loss")}
    assert losses == pytest.approx({row["step"]: row["loss"] for row in expected_rows()}, rel=1e-4)
    assert log.SummaryMetadata("loss").plugin_data.plugin_name == "scalars"


@pytest.mark.trackers
@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy, about MLflow
def test_mlflow_reads_settings_numbers_and_the_run_folder(tracked, monkeypatch):
    tracked("mlflow")
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("bptt").experiment_id])
    assert (run.info.status, run.data.params["steps"], run.data.params["cell"]) == ("FINISHED", str(STEPS), "gru")
    losses = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}
    assert losses == pytest.approx({row["step"]: row["loss"] for row in expected_rows()}, rel=1e-4)
    assert "run/metrics.jsonl" in {file.path for file in client.list_artifacts(run.info.run_id, "run")}


@pytest.mark.trackers
def test_wandb_writes_numbers_and_settings_offline(tracked):
    tracked("wandb")
    (file,) = Path("wandb").glob("offline-run-*/*.wandb")
    data = file.read_bytes()
    assert data.count(b"held_out") >= len([row for row in expected_rows() if "held_out" in row])
    assert b"learning_rate" in data
    assert b"validation_loss" in data


@pytest.mark.trackers
def test_trackio_keeps_each_row(tracked, monkeypatch, tmp_path):
    tracked("trackio")
    code = """
import json
from trackio.sqlite_storage import SQLiteStorage
(run,) = SQLiteStorage.get_runs("bptt")
print(json.dumps([{name: row[name] for name in ("step", "loss")} for row in SQLiteStorage.get_logs("bptt", run)]))
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    losses = {row["step"]: row["loss"] for row in json.loads(done.stdout)}
    assert losses == pytest.approx({row["step"]: row["loss"] for row in expected_rows()}, rel=1e-4)


@pytest.mark.trackers
def test_optuna_prunes_runs_and_finds_the_best(tracked):
    words = tracked("optuna")
    assert re.search(r"(?m)^\{'learning_rate': [\d.e-]+, 'cell': '(gru|lstm)'\} [\d.]+$", words)
    assert len(re.findall(r"(?m)Trial \d+ pruned", words)) in range(1, 4)
