"""Optuna: a search for the learning rate and the cell that stops the runs that are worse than the others were."""

import optuna

import bptt


def objective(trial: optuna.Trial) -> float:
    """Train a model and return its validation loss; a callback stops a run that is to be pruned."""

    def report(event: bptt.Event) -> bool:
        if event.kind == "evaluation":
            trial.report(event.row["held_out"], event.step)
        return event.kind == "evaluation" and trial.should_prune()

    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    cell = trial.suggest_categorical("cell", ["gru", "lstm"])
    model = bptt.train("dinosaurs", cell=cell, learning_rate=learning_rate, steps=300, report=None, callbacks=[report])
    if model.record["ended"] == "callback":
        raise optuna.TrialPruned
    return float(model.record["held_out"])


study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner(3))
study.optimize(objective, n_trials=10)
print(study.best_params, study.best_value)
