"""Searches the booster's parameters: Optuna over one binned dataset, hopeless trials cut short, each a nested run.

Decides the space and what is judged: the log loss of the calibration slice, which lies before the test, so that the
test stays unseen. Binning is fixed, for a dataset that is binned once can be fitted many times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from features.matrix import Columns, ModelInput
from training.dataset import Dataset
from training.tracking import experiment_of, quiet_mlflow
from training.train import MAX_ROUNDS, PARAMETERS, PATIENCE, SEED, Slices, is_unused

FILE = "tuned.json"
"""Under NBA_VAR: the parameters that the next training takes instead of those in the code."""
REPORT_EVERY = 10


def tune(
    dataset: Dataset, mlflow_uri: str, trials: int, threads: int = 2, max_rounds: int = MAX_ROUNDS
) -> dict[str, Any]:
    """Search, with the parameters in the code as the first trial, and write every trial down in MLflow.

    Args:
        dataset: What `build_dataset` gave. trials: How many, the first included.

    Returns:
        `parameters` of the best trial, its `log_loss`, that of the `first`, and how many were `pruned`.
    """
    import optuna

    with quiet_mlflow():
        import mlflow
        from mlflow import MlflowClient

        mlflow.set_tracking_uri(mlflow_uri)
        client = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)
        experiment = experiment_of(client, mlflow_uri)
        fit = Fitting(dataset, threads, max_rounds)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=SEED),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=4 * REPORT_EVERY),
        )
        study.enqueue_trial({name: PARAMETERS[name] for name in SPACE})
        with mlflow.start_run(experiment_id=experiment, run_name="tune"):
            mlflow.set_tag("dataset_fingerprint", dataset.fingerprint)
            study.optimize(lambda trial: _run(trial, fit, mlflow, experiment), n_trials=trials)
            mlflow.log_params({f"best.{name}": value for name, value in study.best_params.items()})
            mlflow.log_metric("best_log_loss", study.best_value)
    pruned = sum(trial.state is optuna.trial.TrialState.PRUNED for trial in study.trials)
    return {
        "parameters": study.best_params,
        "log_loss": study.best_value,
        "first": study.trials[0].value,
        "pruned": pruned,
        "dataset_fingerprint": dataset.fingerprint,
    }


SPACE: Mapping[str, tuple[float, float, bool]] = {
    "learning_rate": (0.03, 0.2, True),
    "num_leaves": (7, 63, True),
    "min_data_in_leaf": (30, 600, True),
    "feature_fraction": (0.2, 1.0, False),
    "bagging_fraction": (0.5, 1.0, False),
    "lambda_l2": (0.5, 100.0, True),
    "path_smooth": (0.5, 100.0, True),
    "cat_smooth": (5.0, 200.0, True),
}
"""Parameter -> (least, greatest, whether on a logarithmic scale); none of them touches the bins."""


class Fitting:
    """One dataset, binned once, fitted with many parameters."""

    def __init__(self, dataset: Dataset, threads: int, max_rounds: int) -> None:
        import lightgbm

        labels = dataset.column("label").astype(np.float64)
        slices = Slices.of(dataset)
        self.max_rounds = max_rounds
        self.fixed = {
            **PARAMETERS,
            "num_threads": threads,
            # Otherwise what is binned depends on the least number of rows in a leaf.
            "feature_pre_filter": False,
            "feature_contri": [0.0 if is_unused(name) else 1.0 for name in dataset.names],
        }
        made: dict[str, Any] = {
            "feature_name": list(dataset.names),
            "categorical_feature": list(ModelInput(Columns()).categoricals),
            "params": self.fixed,
            "free_raw_data": False,
        }
        self.fitted = lightgbm.Dataset(dataset.inputs[slices.train], labels[slices.train], **made).construct()
        held = slices.calibration
        self.watched = lightgbm.Dataset(dataset.inputs[held], labels[held], reference=self.fitted, **made).construct()

    def log_loss(self, parameters: Mapping[str, Any], tell: Any) -> tuple[float, int]:
        """Fit with early stopping; `tell(round, log loss)` hears how it goes and may raise to end it."""
        import lightgbm

        def listen(environment: Any) -> None:
            if environment.iteration % REPORT_EVERY == 0:
                tell(environment.iteration, environment.evaluation_result_list[0][2])

        booster = lightgbm.train(
            {**self.fixed, **parameters},
            self.fitted,
            self.max_rounds,
            valid_sets=[self.watched],
            callbacks=[listen, lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        return float(booster.best_score["valid_0"]["binary_logloss"]), int(booster.best_iteration)


def _run(trial: Any, fit: Fitting, mlflow: Any, experiment: str) -> float:
    import optuna

    parameters = {
        name: trial.suggest_int(name, int(low), int(high), log=log)
        if isinstance(PARAMETERS[name], int)
        else trial.suggest_float(name, low, high, log=log)
        for name, (low, high, log) in SPACE.items()
    }

    def tell(step: int, loss: float) -> None:
        mlflow.log_metric("log_loss", loss, step=step)
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    with mlflow.start_run(experiment_id=experiment, run_name=f"trial {trial.number}", nested=True):
        mlflow.log_params(parameters)
        try:
            loss, rounds = fit.log_loss(parameters, tell)
        except optuna.TrialPruned:
            mlflow.set_tag("pruned", "yes")
            raise
        mlflow.log_metrics({"best_log_loss": loss, "rounds": rounds})
    return loss


def tuned(var: Path) -> Mapping[str, Any]:
    """Return the parameters that a search left under NBA_VAR; none where there was no search."""
    try:
        found = json.loads((var / FILE).read_text())["parameters"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{FILE} under NBA_VAR cannot be read ({error}); remove it, or run `nba tune` again") from None
    unknown = sorted(set(found) - set(SPACE))
    if unknown:
        raise ValueError(
            f"{FILE} under NBA_VAR names {unknown[0]!r}, which is not tuned; remove it, or `nba tune` again"
        )
    return dict(found)
