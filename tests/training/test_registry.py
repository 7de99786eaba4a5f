"""A registered version carries all that is needed to serve and to judge it, and nothing pickled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from features.contract import FEATURE_SERVICE, REGISTERED_MODEL
from features.matrix import ACTION_COLUMNS, OFFER_COLUMNS
from features.version import features_version
from service.decision.calibration import Calibrator
from service.decision.model import ISSUES
from tests.small_world import SmallWorld


@pytest.fixture(scope="module")
def client(small_world: SmallWorld) -> MlflowClient:
    return MlflowClient(small_world.mlflow_uri, small_world.mlflow_uri)


@pytest.fixture(scope="module")
def champion(client: MlflowClient) -> ModelVersion:
    return client.get_model_version_by_alias(REGISTERED_MODEL, "champion")


@pytest.fixture(scope="module")
def artifacts(client: MlflowClient, champion: ModelVersion) -> Path:
    return Path(urlsplit(client.get_logged_model(champion.source.removeprefix("models:/")).artifact_location).path)


def _read(artifacts: Path, name: str) -> Any:
    return json.loads((artifacts / name).read_text())


def test_the_newest_version_is_the_champion_and_says_what_it_came_from(
    client: MlflowClient, champion: ModelVersion
) -> None:
    """Feature service, feature contract and the fingerprint of the dataset are tags of version and run."""
    run = client.get_run(champion.run_id)
    for tags in (champion.tags, run.data.tags):
        assert tags["feature_service"] == FEATURE_SERVICE
        assert tags["features_version"] == features_version()
        assert len(tags["dataset_fingerprint"]) == 64
    assert int(run.data.params["rows_train"]) > int(run.data.params["rows_calibration"]) > 0


def test_every_model_is_measured_alike(client: MlflowClient, champion: ModelVersion) -> None:
    """The booster stands beside a constant, the action's rate and a logistic regression, with the same measures."""
    metrics = client.get_run(champion.run_id).data.metrics
    for issue in ("upsell", "cross_sell", "retention"):
        for model in ("lightgbm", "logistic_regression", "popularity", "constant"):
            for name in ("auc", "log_loss", "ece", "ece_ratio", "predicted_ratio", "brier_skill"):
                assert np.isfinite(metrics[f"{model}.{issue}.{name}"])
        assert metrics[f"constant.{issue}.auc"] == 0.5
        assert metrics[f"lightgbm.{issue}.auc_low"] <= metrics[f"lightgbm.{issue}.auc"]
    assert "lightgbm.upsell_a.auc" in metrics
    assert any(name.startswith("action.cross_sell.") for name in metrics)
    assert metrics["lightgbm.upsell.within_auc"] > 0.5
    assert metrics["lightgbm.retention.auc"] > 0.7


def test_pictures_and_tables_are_there(client: MlflowClient, champion: ModelVersion) -> None:
    """The run holds six pictures and two tables, none empty."""
    pictures = ("auc_by_action", "calibration", "contributions", "drift", "gain", "importance")
    found = {
        file.path: file.file_size
        for part in ("plots", "tables")
        for file in client.list_artifacts(champion.run_id, part)
    }
    assert set(found) == {
        *(f"plots/{name}.png" for name in pictures),
        "tables/models.md",
        "tables/actions.md",
    }
    assert all(size > 200 for size in found.values())


def test_the_model_loads_where_pickles_are_forbidden(artifacts: Path) -> None:
    """No file is a pickle, and MLflow loads the booster with pickles switched off."""
    assert not [path for path in artifacts.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    code = f"import mlflow.lightgbm as m; print(m.load_model({str(artifacts)!r}).num_trees() > 0)"
    env = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr[-500:]


def test_golden_rows_cover_all_issues_and_missing_facts(artifacts: Path) -> None:
    """Their probabilities are the calibrator's, and some rows know nothing of the customer."""
    golden, contract = _read(artifacts, "golden.json"), _read(artifacts, "contract.json")
    rows = np.array([[np.nan if v is None else v for v in row] for row in golden["rows"]])
    issues = rows[:, contract["features"]["model_inputs"].index("issue")]
    assert set(issues) == {0.0, 1.0, 2.0}
    assert np.isnan(rows[:, : -len(ACTION_COLUMNS)]).all(axis=1).any()
    calibrator = Calibrator.from_document(_read(artifacts, "calibrator.json"))
    assert np.array_equal(calibrator.apply(np.array(golden["raw"]), issues), np.array(golden["probabilities"]))


def test_evidence_and_domain_tell_what_was_seen(artifacts: Path) -> None:
    """Positives are counted by issue and member; each issue says which windows and campaign types it has seen."""
    evidence, actions = _read(artifacts, "evidence.json"), _read(artifacts, "contract.json")["actions"]
    assert evidence["retention|"] > 50
    assert sum(count for name, count in evidence.items() if name.startswith("upsell|")) > 20
    assert set(actions) == set(ISSUES) - {"service"}
    cross_sell = actions["cross_sell"]
    assert (cross_sell["window_days"], cross_sell["campaign_types"]) == ([30.0, 30.0], [])
    for issue in ("cross_sell", "upsell"):
        known = {name.partition("|")[2] for name, n in evidence.items() if name.startswith(f"{issue}|") and n >= 20}
        assert set(actions[issue]["members"]) == known
    assert "offers" not in cross_sell
    assert actions["upsell"]["campaign_types"] == ["a", "b", "c"]
    coupons, breadth = (actions["upsell"]["offers"][name] for name in OFFER_COLUMNS)
    assert 1.0 <= coupons[0] < coupons[1]
    assert 0.0 <= breadth[0] < breadth[1]
    assert actions["upsell"]["window_days"][0] < actions["upsell"]["window_days"][1]
