"""Which version serves: challenger through the gate to champion, back by rollback; who moved what, when and why.

Decides nothing about quality (that is `gate`); moves aliases and writes down each move as a tag of the registered
model. MLflow and LightGBM are imported inside functions: they take seconds.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import REGISTERED_MODEL
from features.version import features_version
from service.decision.bundle_scorer import Domain
from service.decision.calibration import Calibrator
from training.gate import Verdict, judge
from training.held_out import FILE, HeldOut
from training.tracking import quiet_mlflow

Floats = NDArray[np.float64]

CHAMPION, CHALLENGER = "champion", "challenger"
MOVES_TAG = "champion_moves"
"""Tag of the registered model: JSON list of moves, newest last."""
KEPT_MOVES = 50


class PromotionError(Exception):
    """A move that cannot be made: the sentence says why and what to do."""


@dataclass(frozen=True)
class Move:
    """One move of the alias.

    Attributes:
        version, before: Numbers; `before` is "" for the first.
        refusals: What the gate had against it, where it was forced.
        is_rollback: Whether it took a promotion back; a further rollback then goes further back.
    """

    version: str
    before: str
    at: str
    who: str
    why: str
    refusals: tuple[str, ...] = ()
    is_rollback: bool = False


class Registry:
    """The versions of the registered model in one MLflow."""

    def __init__(self, mlflow_uri: str) -> None:
        from mlflow import MlflowClient

        self.uri = mlflow_uri
        self._client: Any = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)

    def version_of(self, alias: str) -> str | None:
        """Return the number of the version that has an alias, or None."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_model_version_by_alias(REGISTERED_MODEL, alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def verdict(self, version: str) -> Verdict:
        """Judge a version against the champion on the held-out rows that came with the version.

        Raises:
            PromotionError: The version is not there, or carries no held-out rows, or reads other inputs.
        """
        with tempfile.TemporaryDirectory(prefix="nba-promote-") as temporary:
            held_out = self._held_out(version, Path(temporary))
            new = self._probabilities(version, held_out, Path(temporary) / "challenger")
            champion = self.version_of(CHAMPION)
            if champion in (None, version) or self._contract_of(str(champion)) != features_version():
                # A champion of another contract reads other inputs: it cannot be asked, and cannot serve here either.
                return judge(held_out, new, None)
            return judge(held_out, new, self._probabilities(str(champion), held_out, Path(temporary) / "champion"))

    def promote(self, version: str, who: str, why: str, verdict: Verdict) -> Move:
        """Make a version the champion and write down the move, with what the gate had against it."""
        return self._move(version, who, why, verdict.refusals, is_rollback=False)

    def roll_back(self, who: str, why: str) -> Move:
        """Make the version champion again that the present one replaced.

        Raises:
            PromotionError: There is none.
        """
        champion = self.version_of(CHAMPION)
        promotions = [m for m in self.moves() if m["version"] == champion and not m["is_rollback"] and m["before"]]
        if not promotions:
            raise PromotionError("there is no version before the champion; `nba versions` lists the moves")
        return self._move(str(promotions[-1]["before"]), who, why, (), is_rollback=True)

    def _move(self, version: str, who: str, why: str, refusals: tuple[str, ...], *, is_rollback: bool) -> Move:
        before = self.version_of(CHAMPION) or ""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        move = Move(version, before, now, who, why, refusals, is_rollback)
        self._client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)
        kept = [*self.moves(), vars(move)][-KEPT_MOVES:]
        self._client.set_registered_model_tag(REGISTERED_MODEL, MOVES_TAG, json.dumps(kept))
        return move

    def moves(self) -> list[dict[str, Any]]:
        """Return the moves so far, newest last."""
        text = self._client.get_registered_model(REGISTERED_MODEL).tags.get(MOVES_TAG, "[]")
        return list(json.loads(text))

    def _held_out(self, version: str, folder: Path) -> HeldOut:
        from mlflow.exceptions import MlflowException

        run = self._version(version).run_id
        try:
            return HeldOut.read(Path(self._client.download_artifacts(run, f"evaluation/{FILE}", str(folder))))
        except (OSError, MlflowException) as error:
            raise PromotionError(
                f"version {version} has no held-out rows to be judged on; train again, or use --force"
            ) from error

    def _probabilities(self, version: str, held_out: HeldOut, folder: Path) -> Floats:
        import lightgbm
        import mlflow

        folder.mkdir()
        with quiet_mlflow():
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            found = Path(
                mlflow.artifacts.download_artifacts(f"models:/{REGISTERED_MODEL}/{version}", dst_path=str(folder))
            )
        booster = lightgbm.Booster(model_file=str(found / "model.lgb"))
        if tuple(booster.feature_name()) != held_out.names:
            raise PromotionError(f"version {version} reads other inputs than the held-out rows have; train again")
        calibrator = Calibrator.from_document(json.loads((found / "calibrator.json").read_text()))
        domain = Domain.from_contract(json.loads((found / "contract.json").read_text()))
        raw = np.asarray(booster.predict(held_out.as_read_by(domain.logged), raw_score=True, num_threads=1))
        return calibrator.apply(raw, calibrator.lines(held_out.kinds))

    def _contract_of(self, version: str) -> str:
        return str(self._version(version).tags.get("features_version", ""))

    def _version(self, version: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version(REGISTERED_MODEL, version)
        except MlflowException as error:
            raise PromotionError(f"there is no version {version}; `nba versions` lists what there is") from error
