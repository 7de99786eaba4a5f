"""The benchmark's model: 300 trees of 63 leaves over the engine's own inputs, as a bundle and as MLflow saves it.

What it predicts means nothing: labels are drawn from a made-up function of the facts, so that the trees split on many
columns as a real model's do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.matrix import ActionTable, Columns, ModelInput
from service.adapters.bundle_dir import current_digest, set_current, write_bundle
from service.adapters.native_trees import LIBRARY, compile_trees
from service.adapters.scoring import Golden
from service.decision.calibration import Calibrator
from service.decision.record import BUNDLE_FILES

Floats = NDArray[np.float64]
TREES, LEAVES, ROWS, GOLDEN_ROWS = 300, 63, 20_000, 64
PARAMETERS = {
    "objective": "binary", "num_leaves": LEAVES, "min_data_in_leaf": 20, "learning_rate": 0.05, "num_threads": 1,
    "feature_fraction": 0.5, "verbosity": -1, "max_bin": 127, "deterministic": True,
}  # fmt: skip


def grow(facts: Floats, now: float, table: ActionTable, seed: int) -> tuple[lightgbm.Booster, Floats]:
    """Train on random pairs of customers and actions; return the model and some of its rows.

    Args:
        facts: (layout.width, n_customers).
    """
    rng, columns = np.random.default_rng(seed), Columns()
    inputs = ModelInput(columns)
    as_of = columns.as_of(facts, now)
    rows = inputs.rows(as_of, rng.integers(0, facts.shape[1], ROWS), rng.integers(0, len(table.statics), ROWS), table)
    ranks = np.nan_to_num(rows).argsort(axis=0).argsort(axis=0) / ROWS
    weights = rng.normal(0.0, 2.0, rows.shape[1])
    noise = rng.normal(0.0, 1.0, ROWS)
    labels = (np.sin(ranks * 9.0) @ weights + noise > np.abs(weights).sum() / 9).astype(float)
    data = lightgbm.Dataset(
        rows, labels, feature_name=list(inputs.names), categorical_feature=list(inputs.categoricals)
    )
    return lightgbm.train(PARAMETERS, data, TREES), rows[:GOLDEN_ROWS]


def plant(booster: lightgbm.Booster, rows: Floats, models: Path, version: str) -> str:
    """Make the model a bundle under `models` and the current one; return its digest.

    The rest of the bundle, such as the read plan, is that of the bundle in use.
    """
    before = models / str(current_digest(models))
    files = {name: (before / name).read_bytes() for name in BUNDLE_FILES}
    scores: Floats = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
    issues = rows[:, ModelInput(Columns()).names.index("issue")]
    calibrator = Calibrator.from_document(json.loads(files["calibrator.json"]))
    golden = Golden(rows, scores, calibrator.apply(scores, issues))
    files["model.txt"] = booster.model_to_string().encode()
    files["golden.json"] = json.dumps(golden.document()).encode()
    digest = write_bundle(models, files, version, "benchmarks.forest")
    if (before / LIBRARY).exists():  # of the same trees
        shutil.copy2(before / LIBRARY, models / digest / LIBRARY)
    compile_trees(models / digest / "model.txt")
    set_current(models, digest)
    return digest


def save(booster: lightgbm.Booster, rows: Floats, folder: Path) -> None:
    """Save the model as MLflow does, with its signature, for who loads it through mlflow.pyfunc or serves it."""
    frame = pd.DataFrame(rows, columns=list(ModelInput(Columns()).names))
    signature = mlflow.models.infer_signature(frame, np.asarray(booster.predict(rows, num_threads=1)))
    mlflow.lightgbm.save_model(booster, str(folder), signature=signature)
