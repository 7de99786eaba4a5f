"""A registered version, or a bundle's folder, as the scorer that serving would make of it. Decides where files lie."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from features.contract import REGISTERED_MODEL
from features.matrix import Columns
from features.version import features_version
from service.decision.bundle_scorer import BundleScorer, ColdStart, Compiled, Domain, EffectModel, Predict
from service.decision.calibration import Calibrator
from training.tracking import quiet_mlflow

MODEL_NAMES = ("model.txt", "model.lgb")
"""The booster's file in a bundle, and in a registered version."""


class NoSuchVersion(ValueError):
    """The version cannot be had; one sentence says what to do."""


def make_scorer_of(version: str, mlflow_uri: str) -> Callable[[Compiled], BundleScorer]:
    """Return what binds a version to a catalogue.

    Args:
        version: Number of a registered version, an alias such as `champion`, or the folder of a bundle.

    Raises:
        NoSuchVersion: It is not there, or of another feature contract.
    """
    with files_of(version, mlflow_uri) as folder:
        return read_folder(folder, version)


def domain_of(version: str, mlflow_uri: str) -> Domain:
    """Return what kinds of action a version has seen. Raises NoSuchVersion."""
    with files_of(version, mlflow_uri) as folder:
        return Domain.from_contract(json.loads((folder / "contract.json").read_text()))


@contextmanager
def files_of(version: str, mlflow_uri: str) -> Iterator[Path]:
    """Give the folder of a version's files, for as long as they are read. Raises NoSuchVersion."""
    if Path(version).is_dir():
        yield Path(version)
        return
    with tempfile.TemporaryDirectory(prefix="nba-version-") as temporary, quiet_mlflow():
        import mlflow
        from mlflow.exceptions import MlflowException

        mlflow.set_tracking_uri(mlflow_uri)
        mlflow.set_registry_uri(mlflow_uri)
        named = f"{REGISTERED_MODEL}/{version}" if version.isdecimal() else f"{REGISTERED_MODEL}@{version}"
        try:
            found = mlflow.artifacts.download_artifacts(f"models:/{named}", dst_path=temporary)
        except (OSError, MlflowException) as error:
            raise NoSuchVersion(f"there is no version {version!r} in the registry, nor such a folder") from error
        yield Path(found)


def read_folder(folder: Path, name: str) -> Callable[[Compiled], BundleScorer]:
    """Read a version's files; see `make_scorer_of`."""
    documents: dict[str, Any] = {}
    for part in ("calibrator", "contract", "cold_start", "evidence"):
        path = folder / f"{part}.json"
        if not path.is_file():
            raise NoSuchVersion(f"version {name} has no {path.name}; train and register it again")
        documents[part] = json.loads(path.read_text())
    theirs = documents["contract"].get("features_version")
    if theirs != features_version():
        raise NoSuchVersion(
            f"version {name} was trained on the feature contract {theirs}, this is {features_version()}; train again"
        )
    model = next((folder / file for file in MODEL_NAMES if (folder / file).is_file()), None)
    if model is None:
        raise NoSuchVersion(f"version {name} has no model text; train and register it again")
    effect = None
    if (folder / "uplift.txt").is_file():
        effect = EffectModel.from_document(
            json.loads((folder / "uplift.json").read_text()), _predictor(folder / "uplift.txt")
        )
    return partial(
        BundleScorer,
        version=name,
        predict=_predictor(model),
        calibrator=Calibrator.from_document(documents["calibrator"]),
        cold_start=ColdStart.from_document(documents["cold_start"]),
        evidence=documents["evidence"],
        domain=Domain.from_contract(documents["contract"]),
        columns=Columns(),
        effect=effect,
    )


def _predictor(model: Path) -> Predict:
    import lightgbm

    booster = lightgbm.Booster(model_str=model.read_text(encoding="utf-8"))
    predict: Predict = partial(booster.predict, raw_score=True, num_threads=1)
    return predict
