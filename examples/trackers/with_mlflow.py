"""MLflow: settings, numbers and the folder of a run in a database beside it. See them with: mlflow ui.

MLFLOW_DISABLE_TELEMETRY=true in the environment keeps MLflow off the network.
"""

import mlflow

import bptt


def log(event: bptt.Event) -> None:
    """Log the settings at the start, then the numbers of each row, and at the end the run folder."""
    if event.kind == "start":
        mlflow.log_params(event.settings)
    elif event.kind in ("log", "evaluation"):
        numbers = {name: value for name, value in event.row.items() if isinstance(value, float)}
        mlflow.log_metrics(numbers, step=event.step)
    elif event.kind == "end":
        mlflow.log_artifacts(str(event.folder), "run")


mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("bptt")
with mlflow.start_run():
    bptt.train("dinosaurs", steps=300, out="mlflow-run", callbacks=[log])
