"""The search for parameters judges on the slice before the test, and what it finds is what the next training takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from features.matrix import Columns, ModelInput
from training.dataset import Dataset
from training.train import PARAMETERS
from training.tune import SPACE, Fitting, tune, tuned

N = 3000


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Rows of one issue whose response follows two inputs, over the slices of training."""
    draw = np.random.default_rng(4)
    names = ModelInput(Columns()).names
    inputs = np.full((N, len(names)), np.nan)
    inputs[:, :8] = draw.normal(size=(N, 8))
    inputs[:, names.index("issue")] = 0.0
    labels = draw.random(N) < 1 / (1 + np.exp(2 - inputs[:, 0] - inputs[:, 1]))
    days = draw.integers(0, 150, N)
    moments = [datetime.fromtimestamp(1_491_000_000 + 86_400 * int(day), UTC) for day in days]
    moment = pa.array(moments, pa.timestamp("us", tz="UTC"))
    rows = pa.table({"label": labels, "moment": moment, "channel": pa.nulls(N, pa.string())})
    return Dataset(rows, inputs, names, np.empty((0, 0)), np.empty(0, dtype=np.int64), "f" * 64)


def test_every_trial_is_a_nested_run_and_the_best_is_kept(dataset: Dataset, tmp_path: Path) -> None:
    """The parameters in the code are the first trial, and the best is no worse than they."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    found = tune(dataset, uri, trials=5, threads=1, max_rounds=40)
    assert found["log_loss"] <= found["first"]
    assert set(found["parameters"]) == set(SPACE)
    client = MlflowClient(uri, uri)
    runs = client.search_runs([client.get_experiment_by_name("nba").experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(trials) == 5
    first = next(run for run in trials if run.info.run_name == "trial 0")
    assert float(first.data.params["learning_rate"]) == PARAMETERS["learning_rate"]
    assert found["pruned"] == sum(run.data.tags.get("pruned") == "yes" for run in trials)


def test_a_dataset_is_binned_once(dataset: Dataset) -> None:
    """Two fits with other parameters use the same bins, and other leaves give another loss."""
    fit = Fitting(dataset, threads=1, max_rounds=20)
    bins = fit.fitted

    def deaf(step: int, loss: float) -> None:
        """Hear of a round."""

    small, _ = fit.log_loss({"num_leaves": 2}, deaf)
    large, _ = fit.log_loss({"num_leaves": 31, "min_data_in_leaf": 30}, deaf)
    assert fit.fitted is bins
    assert small != large


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("{", "cannot be read"), ('{"parameters": {"max_bin": 3}}', "'max_bin'"), ("[]", "cannot be read")],
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str, wrong: str) -> None:
    """It is named, with what to do about it."""
    (tmp_path / "tuned.json").write_text(text)
    with pytest.raises(ValueError, match=wrong):
        tuned(tmp_path)


def test_what_was_found_is_what_training_takes(tmp_path: Path) -> None:
    """Without a search the parameters in the code stand."""
    assert tuned(tmp_path) == {}
    (tmp_path / "tuned.json").write_text(json.dumps({"parameters": {"num_leaves": 9}}))
    assert tuned(tmp_path) == {"num_leaves": 9}
