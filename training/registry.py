"""From history to a registered version: dataset, training, measures, and all of it written to MLflow as one run.

Decides what a version carries; whether it replaces the champion is the gate's word. MLflow is imported inside
functions: it takes seconds. Nothing is pickled: the model is LightGBM's own text, everything beside it JSON.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from features.contract import FEATURE_SERVICE, REGISTERED_MODEL
from features.version import features_version
from service.decision.model import ISSUES, Catalogue
from service.decision.record import FILES_TAG, files_digest
from training.dataset import Dataset, FactsOf, build_dataset, feast_facts, groups_of, label_rows, monthly_moments
from training.documents import documents
from training.evaluate import auc_interval, flatten, measure
from training.held_out import HeldOut
from training.log_dataset import Log, log_dataset
from training.model_card import model_card
from training.promotion import CHALLENGER, CHAMPION, Registry
from training.reports import as_markdown, draw_all
from training.tracking import experiment_of, quiet_mlflow
from training.train import CALIBRATION_FROM, MAX_ROUNDS, TEST_FROM, THREADS, Trained, train

LEAST_POSITIVES = 10
"""Below so many positives on the test an action gets no AUC of its own."""


def train_and_register(
    history: Path,
    mlflow_uri: str,
    *,
    facts_of: FactsOf | None = None,
    console: Console | None = None,
    catalogue: Catalogue | None = None,
    log: Log | None = None,
    max_rounds: int = MAX_ROUNDS,
    threads: int = THREADS,
    parameters: Mapping[str, Any] | None = None,
) -> str:
    """Train on the history, register the result, and make it the champion if the gate lets it through.

    Args:
        history: Folder of the tidy tables.
        mlflow_uri: Of tracking and registry; for SQLite, artifacts go to `artifacts` beside the database.
        facts_of: Where facts come from; by default Feast's offline store.
        console: Where progress is shown; None shows nothing.
        catalogue: Its groups are calibrated each; its version is kept as a tag.
        log: Decisions whose answers are learned from beside the history.
        max_rounds: Most trees.
        threads: How many threads DuckDB and LightGBM may use.
        parameters: Of the booster, in place of those in the code.

    Returns:
        One line for people: version and what it reached.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console or Console(quiet=True), transient=True) as progress:
        task = progress.add_task("Labelling", total=None)
        rows = label_rows(history, monthly_moments(history), threads)
        progress.update(task, description=f"Joining facts point in time to {rows.num_rows:,} rows, through Feast")
        dataset = build_dataset(rows, facts_of or feast_facts(), groups_of(catalogue) if catalogue else None)
        progress.update(task, description="Reading the decision log")
        logged = log_dataset(log) if log else None
        dataset = Dataset.joined(dataset, logged) if logged else dataset
        progress.update(task, description="Training and calibrating")
        trained = train(dataset, max_rounds, threads, parameters)
        progress.update(task, description="Measuring")
        overall, actions = measures(dataset, trained)
        progress.update(task, description="Drawing and registering")
        known_as = catalogue.version if catalogue else None
        version = register_version(mlflow_uri, dataset, trained, overall, actions, known_as)
    reached = {issue: overall.get(f"lightgbm.{issue}", {}).get("auc", np.nan) for issue in ISSUES[:3]}
    said = ", ".join(f"{issue} {area:.3f}" for issue, area in reached.items())
    said += f"; {learned_from(dataset)}" if log else ""
    return f"{REGISTERED_MODEL}/{version} {admitted(mlflow_uri, version)}; AUC on the test: {said}"


def learned_from(dataset: Dataset) -> str:
    """Say what a dataset has of the decision log."""
    own = dataset.is_logged
    if not own.any():
        return "the log has too few answers yet: learned from the history alone"
    issues, labels = dataset.column("issue")[own], dataset.column("label")[own].astype(bool)
    counts = (f"{issue} {(issues == issue).sum():,} ({labels[issues == issue].sum():,} positive)" for issue in ISSUES)
    told = [count for count, issue in zip(counts, ISSUES, strict=True) if (issues == issue).any()]
    return "answers of the log: " + ", ".join(told)


def admitted(mlflow_uri: str, version: str) -> str:
    """Let a new version through the gate, and say what became of it.

    The very first version has nothing to be better than: it becomes champion whatever the gate says of it.
    """
    registry = Registry(mlflow_uri)
    verdict = registry.verdict(version)
    if not verdict.is_passed and registry.version_of(CHAMPION) is not None:
        return "stays challenger, the champion goes on: " + "; ".join(verdict.refusals)
    registry.promote(version, "nba train", "trained and let through the gate", verdict)
    doubts = f" (the gate had: {'; '.join(verdict.refusals)})" if verdict.refusals else ""
    return f"is the champion{doubts}"


def measures(dataset: Dataset, trained: Trained) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Measure on the test slice.

    Returns:
        `<model>.<issue>` and `<model>.upsell_<a|b_c>` -> measures of every model; `issue|member` -> the model's own.
    """
    labels, issues = dataset.column("label").astype(np.float64), dataset.column("issue")
    kinds, members = dataset.column("campaign_type"), dataset.column("member")
    sends, households = _codes(dataset, "customer_id", "campaign_id"), _codes(dataset, "customer_id")
    test = trained.slices.test
    parts = {issue: test & (issues == issue) for issue in ISSUES if (test & (issues == issue)).any()}
    if "upsell" in parts:
        parts["upsell_a"] = parts["upsell"] & (kinds == "a")
        parts["upsell_b_c"] = parts["upsell"] & np.isin(kinds.astype(np.str_), ("b", "c"))
    overall: dict[str, dict[str, float]] = {}
    for model, p in trained.scores.items():
        for part, mask in parts.items():
            groups = sends[mask] if part.startswith("upsell") else None
            if mask.any():
                overall[f"{model}.{part}"] = measure(labels[mask], p[mask], groups)
    for part, mask in parts.items():
        if "auc" in overall.get(f"lightgbm.{part}", {}):
            low, high = auc_interval(labels[mask], trained.scores["lightgbm"][mask], households[mask])
            overall[f"lightgbm.{part}"] |= {"auc_low": low, "auc_high": high}
    p = trained.scores["lightgbm"]
    actions: dict[str, dict[str, float]] = {}
    for issue in parts.keys() & set(ISSUES):
        for member in sorted({str(m) for m in members[parts[issue]] if m is not None}):
            mask = parts[issue] & (members == member)
            if labels[mask].sum() >= LEAST_POSITIVES:
                low, high = auc_interval(labels[mask], p[mask], households[mask], resamples=60)
                measured = measure(labels[mask], p[mask]) | {"interval_low": low, "interval_high": high}
                actions[f"{issue}|{member}"] = measured
    return overall, actions


def _codes(dataset: Dataset, *names: str) -> NDArray[np.int64]:
    texts = ["|".join(str(part) for part in row) for row in zip(*(dataset.column(n) for n in names), strict=True)]
    return np.unique(texts, return_inverse=True)[1]


def register_version(
    mlflow_uri: str,
    dataset: Dataset,
    trained: Trained,
    overall: Mapping[str, Mapping[str, float]],
    actions: Mapping[str, Mapping[str, float]],
    catalogue_version: str | None = None,
) -> str:
    """Write one run with model, documents, measures and pictures, and register it as the challenger.

    Returns:
        The version's number.
    """
    with quiet_mlflow(), tempfile.TemporaryDirectory(prefix="nba-train-") as temporary:
        import mlflow
        import mlflow.lightgbm
        from mlflow import MlflowClient

        folder = Path(temporary)
        mlflow.set_tracking_uri(mlflow_uri)
        mlflow.set_registry_uri(mlflow_uri)
        client = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)
        with mlflow.start_run(experiment_id=experiment_of(client, mlflow_uri)) as run:
            tags = {"feature_service": FEATURE_SERVICE, "features_version": features_version()}
            tags |= {"dataset_fingerprint": dataset.fingerprint}
            tags |= {"catalogue_version": catalogue_version} if catalogue_version else {}
            # MLflow shows this tag as the run's description.
            mlflow.set_tags(tags | {"mlflow.note.content": _description(overall)})
            mlflow.log_params(_parameters(dataset, trained))
            flat: dict[str, float] = {}
            for part, measured in (
                *overall.items(),
                *((f"action.{n.replace('|', '.')}", m) for n, m in actions.items()),
            ):
                flat |= flatten(part, measured)
            mlflow.log_metrics(flat)
            plots, tables = folder / "plots", folder / "tables"
            plots.mkdir()
            tables.mkdir()
            draw_all(plots, dataset, trained, actions)
            (tables / "models.md").write_text(as_markdown(overall))
            (tables / "actions.md").write_text(as_markdown(actions))
            mlflow.log_artifacts(str(plots), "plots")
            mlflow.log_artifacts(str(tables), "tables")
            mlflow.log_text(model_card(dataset, trained, overall, actions), "model_card.md")
            mlflow.log_artifact(str(HeldOut.of(dataset, trained.slices.test).write(folder)), "evaluation")
            example = _example(dataset)
            logged = mlflow.lightgbm.log_model(
                trained.booster,
                name="model",
                input_example=example,
                signature=mlflow.models.infer_signature(example, trained.booster.predict(example)),
                pip_requirements=["lightgbm", "numpy"],
            )
            beside = folder / "beside"
            beside.mkdir()
            files = {name: json.dumps(document).encode() for name, document in documents(dataset, trained).items()}
            for name, content in files.items():
                (beside / name).write_bytes(content)
            files["model.txt"] = trained.booster.model_to_string().encode()
            tags[FILES_TAG] = files_digest(files)
            client.log_model_artifacts(logged.model_id, str(beside))
            version = mlflow.register_model(logged.model_uri, REGISTERED_MODEL, tags=tags).version
        client.set_registered_model_alias(REGISTERED_MODEL, CHALLENGER, version)
        client.set_model_version_tag(REGISTERED_MODEL, version, "run_id", run.info.run_id)
    return str(version)


def _description(overall: Mapping[str, Mapping[str, float]]) -> str:
    """Return what a run says of itself: what was trained, and every model's measures on the test slice."""
    return (
        "One LightGBM over customer x action for three events that are never compared raw: a coupon of the aisle "
        "redeemed (upsell, intent to treat), the aisle bought within 30 days (cross-sell), 30 silent days (retention). "
        "Nothing in the data is randomised: these are propensities, not uplifts. Plots and per-action tables are among "
        "the artifacts.\n\n" + as_markdown(overall)
    )


def _parameters(dataset: Dataset, trained: Trained) -> dict[str, Any]:
    slices = trained.slices
    return {
        **{name: value for name, value in trained.parameters.items() if name != "verbose"},
        "rounds": trained.rounds,
        "inputs": len(dataset.names),
        "calibration_from": CALIBRATION_FROM.isoformat(),
        "test_from": TEST_FROM.isoformat(),
        "rows_train": int(slices.train.sum()),
        "rows_calibration": int(slices.calibration.sum()),
        "rows_test": int(slices.test.sum()),
        "rows_logged": int(dataset.is_logged.sum()),
    }


def _example(dataset: Dataset) -> Any:
    import pandas as pd

    return pd.DataFrame(dataset.inputs[:3], columns=list(dataset.names))
