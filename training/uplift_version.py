"""A registered version with an effect model beside its propensity model: a new version, the newest challenger.

Decides what the new version takes over from the one it is made of: everything. Nothing of a version ever changes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from features.contract import REGISTERED_MODEL
from features.matrix import Columns, ModelInput
from service.decision.record import BUNDLE_FILES, EFFECT_FILES, FILES_TAG, files_digest
from training.held_out import FILE
from training.promotion import CHALLENGER
from training.tracking import quiet_mlflow
from training.uplift import Effect, EffectRows
from training.uplift_reports import draw_effects, effect_card
from training.version_scorer import NoSuchVersion

MODEL, PLAN, CARD = "model.txt", "plan.json", "model_card.md"


def register_with_effect(mlflow_uri: str, base: str, effect: Effect, document: bytes, rows: EffectRows) -> str:
    """Register a version's files and an effect model as a new version.

    Args:
        base: Number of the version whose propensity model it keeps. document: uplift.json.
        rows: What the effect was learned from.

    Returns:
        The new version's number.

    Raises:
        NoSuchVersion: The base is not there.
    """
    with quiet_mlflow(), tempfile.TemporaryDirectory(prefix="nba-uplift-") as temporary:
        import lightgbm
        import mlflow
        import mlflow.lightgbm
        import pandas as pd
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        folder = Path(temporary)
        mlflow.set_tracking_uri(mlflow_uri)
        mlflow.set_registry_uri(mlflow_uri)
        client = MlflowClient(mlflow_uri, mlflow_uri)
        try:
            version = client.get_model_version(REGISTERED_MODEL, base)
        except MlflowException as error:
            raise NoSuchVersion(f"there is no version {base}; `nba versions` lists what there is") from error
        found = Path(
            mlflow.artifacts.download_artifacts(f"models:/{REGISTERED_MODEL}/{base}", dst_path=str(folder / "base"))
        )
        booster = lightgbm.Booster(model_file=str(found / "model.lgb"))
        files = {name: (found / name).read_bytes() for name in BUNDLE_FILES if name not in (MODEL, PLAN)}
        files |= dict(zip(EFFECT_FILES, (effect.booster.model_to_string().encode(), document), strict=True))
        beside = folder / "beside"
        beside.mkdir()
        for name, content in files.items():
            (beside / name).write_bytes(content)
        names = list(ModelInput(Columns()).names)
        example = pd.DataFrame([[0.0] * len(names)], columns=names)
        experiment = client.get_run(version.run_id).info.experiment_id
        with mlflow.start_run(experiment_id=experiment, run_name=f"uplift on {base}") as run:
            mlflow.log_params({"base_version": base, "learner": effect.learner, "actions": len(effect.actions)})
            mlflow.log_metrics(_metrics(effect))
            held_out = client.download_artifacts(version.run_id, f"evaluation/{FILE}", str(folder))
            mlflow.log_artifact(held_out, "evaluation")
            mlflow.log_artifact(str(draw_effects(folder, effect, rows)), "plots")
            card = Path(client.download_artifacts(version.run_id, CARD, str(folder))).read_text()
            mlflow.log_text(f"{card}\n\n{effect_card(base, effect, rows)}", CARD)
            logged = mlflow.lightgbm.log_model(
                booster,
                name="model",
                signature=mlflow.models.infer_signature(example, booster.predict(example)),
                pip_requirements=["lightgbm", "numpy"],
            )
            client.log_model_artifacts(logged.model_id, str(beside))
            files[MODEL] = booster.model_to_string().encode()
            tags = {**version.tags, FILES_TAG: files_digest(files), "base_version": base}
            new = mlflow.register_model(logged.model_uri, REGISTERED_MODEL, tags=tags).version
        client.set_registered_model_alias(REGISTERED_MODEL, CHALLENGER, new)
        client.set_model_version_tag(REGISTERED_MODEL, new, "run_id", run.info.run_id)
    return str(new)


def _metrics(effect: Effect) -> dict[str, float]:
    gains = {
        f"{measure}.{learner}{part}": value
        for measure, found in (("qini", effect.qini), ("auuc_gain", effect.auuc))
        for learner, gain in found.items()
        for part, value in (("", gain.value), ("_low", gain.low), ("_high", gain.high))
    }
    significant = sum(action.is_significant for action in effect.actions.values())
    return {**gains, "fidelity": effect.fidelity, "significant_actions": float(significant)}
